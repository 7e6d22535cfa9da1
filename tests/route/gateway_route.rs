//! Attachment, HTTPRoute and GRPCRoute (spec 5.4 to 5.6).
use std::sync::Arc;
use std::time::Duration;

use pilus::api::meta::Kind;
use pilus::api::object::gateway::{
    BackendTrafficPolicy, FromNamespaces, GatewayListener, RetryConstraint, SessionPersistence,
};
use pilus::api::object::gateway_route::{HttpRoute, RouteRetry};
use pilus::api::object::{Service, ServiceType};
use pilus::api::objects::Objects;
use pilus::api::route::{Action, SessionKind, UpstreamProtocol};

use crate::build::*;
use crate::gateway_build::*;

/// `infra/gw` with these listeners, and HTTPRoutes.
pub(crate) fn routed(listeners: &[GatewayListener], routes: &[HttpRoute]) -> Router {
    routed_with(listeners, routes, |_| {})
}

pub(crate) fn routed_with(
    listeners: &[GatewayListener],
    routes: &[HttpRoute],
    more: impl FnOnce(&mut Objects),
) -> Router {
    let mut objects = cluster();
    put(&mut objects.gateways, gateway("infra/gw", listeners));
    for route in routes {
        put(&mut objects.http_routes, route.clone());
    }
    more(&mut objects);
    Router::gateway(objects)
}

pub(crate) fn plain() -> [GatewayListener; 1] {
    [on("http 80 HTTP")]
}

// --- 5.4 ---

#[test]
fn attachment_by_parent_then_kind_and_namespace_then_hostname() {
    let same = GatewayListener { allowed_namespaces: FromNamespaces::Same, ..on("same 80 HTTP") };
    let listeners = [same, on("a 8080 HTTP a.com"), on("tcp 9000 TCP"), on("bad 1 INVALID")];
    let ok = "Accepted ResolvedRefs";
    let no = |reason: &str| format!("Accepted=False/{reason} ResolvedRefs");
    for (namespace, parent, hostnames, expected) in [
        ("infra", "infra/gw", &[][..], ok.to_owned()),
        ("infra", "gw#same", &[], ok.to_owned()),
        ("infra", "gw:80", &[], ok.to_owned()),
        ("infra", "gw#same:80", &[], ok.to_owned()),
        ("infra", "gw#same:8080", &[], no("NoMatchingParent")),
        ("infra", "gw#nobody", &[], no("NoMatchingParent")),
        ("infra", "gw:81", &[], no("NoMatchingParent")),
        ("infra", "gw#tcp", &[], no("NotAllowedByListeners")),
        ("infra", "gw#bad", &[], no("NotAllowedByListeners")),
        ("other", "infra/gw#same", &[], no("NotAllowedByListeners")),
        ("other", "infra/gw", &[], ok.to_owned()),
        ("other", "infra/gw", &["b.com"], no("NoMatchingListenerHostname")),
        ("other", "infra/gw", &["b.com", "a.com"], ok.to_owned()),
        ("infra", "gw#a", &["x.a.com"], no("NoMatchingListenerHostname")),
        ("infra", "gw#a", &["*.com"], ok.to_owned()),
    ] {
        let text = format!("{namespace}/r");
        let route = http(&text, &[parent]).hosts(hostnames).rule(&[], &["a:80"]);
        let router = routed(&listeners, &[route]);
        let status = router.parents(Kind::HttpRoute, &text).remove(0);
        assert_eq!(status, expected, "{parent} {hostnames:?}");
        let complaints = router.problems();
        let said = complaints.iter().any(|it| it.contains("spec.parentRefs[0]"));
        assert_eq!(said, expected != ok, "{complaints:?}");
    }
}

#[test]
fn a_route_that_no_listener_takes_is_looked_at_all_the_same() {
    let route = http("infra/r", &["gw#nobody"]).rule(&[], &["missing:80"]);
    let router = routed_with(&plain(), &[route], |objects| {
        put(&mut objects.tcp_routes, l4("infra/t", &["gw"], &[], &["missing:80"]));
    });
    let status =
        |reason: &str| format!("Accepted=False/{reason} ResolvedRefs=False/BackendNotFound");
    assert_eq!(router.parents(Kind::HttpRoute, "infra/r"), [status("NoMatchingParent")]);
    assert_eq!(router.parents(Kind::TcpRoute, "infra/t"), [status("NotAllowedByListeners")]);
}

#[test]
fn statuses_echo_each_parent_of_ours_and_no_other() {
    let strange = gateway("infra/strange", &plain());
    let route = http("infra/r", &["gw#http", "strange", "gw#nobody", "missing", "infra/gw"]);
    let router = routed_with(&plain(), &[route.rule(&[], &["a:80"])], |objects| {
        put(
            &mut objects.gateways,
            pilus::api::object::gateway::Gateway { class: "x".into(), ..strange },
        );
    });
    let status = router.api_status(Kind::HttpRoute, "infra/r");
    assert_eq!(status.observed_generation, 5);
    let parents: Vec<_> = status.parents.iter().map(|it| it.parent.clone()).collect();
    assert_eq!(parents, ["gw#http", "gw#nobody", "infra/gw"].map(parent));
    assert!(status.parents.iter().all(|it| &*it.controller == "pilus.dev/gateway-controller"));
    let listeners = &router.api_status(Kind::Gateway, "infra/gw").listeners;
    assert_eq!(listeners[0].attached_routes, 1, "once, whatever the number of parentRefs");
    router.complains(&[
        "E infra/r spec.parentRefs[2]: Gateway gw has no listener with name nobody",
        "W infra/r spec.parentRefs[3]: Gateway infra/missing does not exist",
    ]);
}

#[test]
fn attached_routes_count_what_is_accepted_served_or_not() {
    let listeners = [on("good 80 HTTP"), with_tls("bad 443 HTTPS", &["missing"]), on("x 1 X")];
    let routes = [
        http("infra/one", &["gw"]).rule(&[], &["a:80"]),
        http("infra/two", &["gw#bad"]).rule(&[], &["missing:80"]),
        http("infra/three", &["gw#nobody"]).rule(&[], &["a:80"]),
    ];
    let router = routed(&listeners, &routes);
    let listeners = router.api_status(Kind::Gateway, "infra/gw").listeners.iter();
    let counts: Vec<u32> = listeners.map(|it| it.attached_routes).collect();
    assert_eq!(counts, [1, 2, 0]);
}

#[test]
fn default_gateways_take_routes_that_ask_for_them() {
    let mut route = http("infra/r", &[]).rule(&[], &["a:80"]);
    route.default_gateways = true;
    for scope in [false, true] {
        let router = routed_with(&plain(), std::slice::from_ref(&route), |objects| {
            let mut gateway = gateway("infra/gw", &plain());
            gateway.default_scope = scope;
            put(&mut objects.gateways, gateway);
        });
        let parents = router.parents(Kind::HttpRoute, "infra/r");
        assert_eq!(parents.len(), usize::from(scope));
        assert_eq!(router.get(80, "x", "/"), if scope { "a:80" } else { "404" });
    }
}

#[test]
fn a_grpc_route_and_an_http_route_do_not_share_a_hostname() {
    let state = |http_created, grpc_hosts: &[&str]| {
        let http = http("infra/h", &["gw"]).hosts(&["*.com"]).created(http_created);
        let router = routed_with(&plain(), &[http.rule(&[], &["a:80"])], |objects| {
            let mut route = grpc("infra/g", &["gw"]).hosts(grpc_hosts).created(5);
            route.rules.push(grpc_rule(&[], &["b:80"]));
            put(&mut objects.grpc_routes, route);
        });
        let one = |kind, name| router.parents(kind, name).remove(0);
        let both = [one(Kind::HttpRoute, "infra/h"), one(Kind::GrpcRoute, "infra/g")];
        (both, router.get(80, "a.com", "/x"))
    };
    let ok = || "Accepted ResolvedRefs".to_owned();
    let lost = || "Accepted=False/NotAllowedByListeners ResolvedRefs".to_owned();
    assert_eq!(state(4, &["a.com"]), ([ok(), lost()], "a:80".to_owned()));
    assert_eq!(state(6, &["a.com"]), ([lost(), ok()], "b:80".to_owned()));
    assert_eq!(state(6, &["a.org"]), ([ok(), ok()], "a:80".to_owned()));
}

#[test]
fn routes_of_listener_sets_are_theirs_alone() {
    let own = GatewayListener { allowed_namespaces: FromNamespaces::Same, ..on("own 8080 HTTP") };
    let routes = [
        http("sets/r", &["set:set#own", "infra/gw#own"]).rule(&[], &["infra/a:80"]),
        http("infra/r", &["gw", "set:sets/set"]).rule(&[], &["b:80"]),
    ];
    let router = routed_with(&plain(), &routes, |objects| {
        let mut gateway = gateway("infra/gw", &plain());
        gateway.allowed_listeners = FromNamespaces::All;
        put(&mut objects.gateways, gateway);
        put(&mut objects.listener_sets, listener_set("sets/set", 1, "infra/gw", &[own]));
        put(&mut objects.reference_grants, grant("infra", "sets HTTPRoute", "Service"));
    });
    let parents = router.parents(Kind::HttpRoute, "sets/r");
    let expected = ["Accepted ResolvedRefs", "Accepted=False/NoMatchingParent ResolvedRefs"];
    assert_eq!(parents, expected, "a Gateway parent does not reach the listeners of its sets");
    let parents = router.parents(Kind::HttpRoute, "infra/r");
    let expected = ["Accepted ResolvedRefs", "Accepted=False/NotAllowedByListeners ResolvedRefs"];
    assert_eq!(parents, expected, "`Same` is the ListenerSet's namespace");
    assert_eq!(router.get(8080, "x", "/"), "a:80");
    assert_eq!(router.get(80, "x", "/"), "b:80");
}

// --- hostnames and listener isolation (5.3) ---

#[test]
fn a_request_meets_the_routes_of_its_most_specific_listener_only() {
    let listeners = [
        on("any 80 HTTP"),
        on("wild 80 HTTP *.example.com"),
        on("deep 80 HTTP *.foo.example.com"),
        on("exact 80 HTTP abc.foo.example.com"),
    ];
    let one = |name: &str, section: &str, path: &str| {
        http(&format!("infra/{name}"), &[&format!("gw#{section}")]).rule(&[path], &["a:80"])
    };
    let routes = [
        one("any", "any", "P/any"),
        one("wild", "wild", "P/wild"),
        one("deep", "deep", "P/deep"),
        one("exact", "exact", "P/exact"),
    ];
    let router = routed(&listeners, &routes);
    for (host, section) in [
        ("bar.com", "any"),
        ("example.com", "any"),
        ("bar.example.com", "wild"),
        ("x.bar.example.com", "wild"),
        ("bar.foo.example.com", "deep"),
        ("a.b.foo.example.com", "deep"),
        ("abc.foo.example.com", "exact"),
    ] {
        for other in ["any", "wild", "deep", "exact"] {
            let expected = if other == section { "a:80" } else { "404" };
            assert_eq!(router.get(80, host, &format!("/{other}")), expected, "{host} {other}");
        }
    }
    let scope = |host| router.table.listeners[0].hosts.find(host).unwrap().scope;
    let scopes = ["bar.com", "bar.example.com", "a.foo.example.com", "abc.foo.example.com"];
    assert_eq!(scopes.map(scope), [1, 2, 3, 4]);
}

#[test]
fn a_route_has_the_common_hostnames_and_no_other() {
    // With hostnames of its own that are more specific than the listener's, less so, and neither.
    let listeners = [
        on("very 80 HTTP very.specific.com"),
        on("wild 80 HTTP *.wildcard.io"),
        on("also 80 HTTP *.anotherwildcard.io"),
    ];
    let routes = [
        http("infra/one", &["gw"])
            .hosts(&["non.matching.com", "*.nonmatchingwildcard.io", "very.specific.com"])
            .rule(&["P/s1"], &["a:80"]),
        http("infra/two", &["gw"])
            .hosts(&["very.specific.com", "*.specific.com", "foo.wildcard.io"])
            .rule(&["P/s2"], &["b:80"]),
        http("infra/three", &["gw"]).hosts(&["*.io", "wildcard.io"]).rule(&["P/s3"], &["c:80"]),
    ];
    let router = routed(&listeners, &routes);
    for (host, path, expected) in [
        ("very.specific.com", "/s1", "a:80"),
        ("very.specific.com", "/s2", "b:80"),
        ("non.matching.com", "/s1", "-"),
        ("foo.specific.com", "/s2", "-"),
        ("foo.wildcard.io", "/s2", "b:80"),
        ("bar.wildcard.io", "/s2", "404"),
        ("bar.wildcard.io", "/s3", "c:80"),
        ("foo.wildcard.io", "/s3", "c:80"),
        ("wildcard.io", "/s3", "-"),
        ("a.b.anotherwildcard.io", "/s3", "c:80"),
    ] {
        let listener = &router.table.listeners[0];
        let got = if listener.hosts.find(host).is_none() {
            "-".to_owned()
        } else {
            router.get(80, host, path)
        };
        assert_eq!(got, expected, "{host}{path}");
    }
}

#[test]
fn a_hostname_of_another_listener_is_not_taken_from_it() {
    let listeners = [on("any 80 HTTP"), on("a 80 HTTP a.com")];
    let routes = [
        http("infra/steal", &["gw#any"]).hosts(&["a.com", "b.com"]).rule(&[], &["a:80"]),
        http("infra/own", &["gw#a"]).rule(&["P/own"], &["b:80"]),
    ];
    let router = routed(&listeners, &routes);
    assert_eq!(router.get(80, "a.com", "/"), "404");
    assert_eq!(router.get(80, "a.com", "/own"), "b:80");
    assert_eq!(router.get(80, "b.com", "/"), "a:80");
}

#[test]
fn tls_and_hosts_of_one_port_have_the_same_scopes() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    let listeners = [
        with_tls("any 443 HTTPS", &["x", "y"]),
        with_tls("second 443 HTTPS second.org", &["x"]),
        with_tls("wild 443 HTTPS *.wildcard.org", &["y"]),
        with_tls("lost 443 HTTPS lost.wildcard.org", &["missing"]),
    ];
    let router =
        routed_with(&listeners, &[http("infra/r", &["gw"]).rule(&[], &["a:80"])], |objects| {
            put(&mut objects.secrets, secret("infra/x", &chain, &key));
            put(&mut objects.secrets, secret("infra/y", &chain, &key));
        });
    for (name, secrets, scope) in [
        ("first.org", "x,y", 1),
        ("second.org", "x", 2),
        ("a.b.wildcard.org", "y", 3),
        ("lost.wildcard.org", "refused", 4),
    ] {
        assert_eq!(router.tls(443, Some(name)), secrets, "{name}");
        let listener = &router.table.listeners[0];
        assert_eq!(listener.hosts.find(name).unwrap().scope, scope);
        if let Some(pilus::api::route::TlsAction::Terminate(it)) = listener.tls.find(Some(name)) {
            assert_eq!(it.scope, scope);
        }
    }
    assert_eq!(router.tls(443, None), "x,y");
    assert_eq!(router.get(443, "lost.wildcard.org", "/"), "404", "never that of *.wildcard.org");
}

// --- 5.5 precedence ---

#[test]
fn the_most_specific_match_wins_over_all_routes_of_a_host() {
    let routes = [
        http("infra/young", &["gw"]).created(9).rule(
            &["E/exact", "P/one/two", "P/one m=GET", "P/one h=x:1 h=y:2", "P/one h=x:1 q=a:b"],
            &["a:80"],
        ),
        http("infra/old", &["gw"])
            .created(1)
            .rule(&["P/exact", "P/one", "P/one h=x:1"], &["b:80"])
            .rule(&["P/one", "P/"], &["c:80"]),
    ];
    let router = routed(&plain(), &routes);
    let x = &[("x", "1")][..];
    let xy = &[("x", "1"), ("y", "2")][..];
    let q = &[("a", "b")][..];
    for (method, path, headers, query, expected) in [
        ("GET", "/exact", &[][..], &[][..], "a:80"),
        ("GET", "/exact/", &[], &[], "b:80"),
        ("GET", "/one/two/three", &[], &[], "a:80"),
        ("GET", "/one", xy, &[], "a:80"),
        ("GET", "/one", &[], &[], "a:80"),
        ("PUT", "/one", &[], &[], "b:80"),
        ("PUT", "/one", x, &[], "b:80"),
        ("PUT", "/one", xy, &[], "a:80"),
        ("PUT", "/one", x, q, "a:80"),
        ("PUT", "/onetwo", &[], &[], "c:80"),
    ] {
        let ask = Ask { method, headers, query };
        assert_eq!(
            router.route(80, "h", path, &ask),
            expected,
            "{method} {path} {headers:?} {query:?}"
        );
    }
}

#[test]
fn equals_go_to_the_oldest_then_by_name_then_by_order() {
    let one = |text: &str, created, to: &str| {
        http(text, &["infra/gw"]).created(created).rule(&["P/x"], &[to])
    };
    let router = routed(&plain(), &[one("infra/a", 5, "a:80"), one("infra/b", 4, "b:80")]);
    assert_eq!(router.get(80, "h", "/x"), "b:80");
    let router = routed(&plain(), &[one("infra/b", 4, "b:80"), one("infra/a", 4, "a:80")]);
    assert_eq!(router.get(80, "h", "/x"), "a:80");
    let route = one("infra/a", 1, "b:80").rule(&["P/x"], &["c:80"]);
    assert_eq!(routed(&plain(), &[route]).get(80, "h", "/x"), "b:80");
}

#[test]
fn a_longer_hostname_goes_before_a_longer_path() {
    let routes = [
        http("infra/wide", &["gw"]).hosts(&["*.a.com"]).rule(&["E/long/path"], &["a:80"]),
        http("infra/deep", &["gw"]).hosts(&["*.x.a.com"]).rule(&["P/long"], &["b:80"]),
        http("infra/exact", &["gw"]).hosts(&["x.x.a.com"]).rule(&["P/ h=only:this"], &["c:80"]),
        http("infra/any", &["gw"]).rule(&["P/any"], &["a:80"]),
    ];
    let router = routed(&plain(), &routes);
    assert_eq!(router.get(80, "y.a.com", "/long/path"), "a:80");
    assert_eq!(router.get(80, "y.x.a.com", "/long/path"), "b:80");
    // What the more specific host does not match is for the next: within one listener.
    assert_eq!(router.get(80, "x.x.a.com", "/long/path"), "b:80");
    let ask = Ask { headers: &[("only", "this")], ..Ask::default() };
    assert_eq!(router.route(80, "x.x.a.com", "/long/path", &ask), "c:80");
    assert_eq!(router.get(80, "x.x.a.com", "/any"), "a:80");
    assert_eq!(router.get(80, "x.x.a.com", "/else"), "404");
}

#[test]
fn regular_expressions_match_whole_paths_the_longest_pattern_first() {
    let route = http("infra/r", &["gw"])
        .rule(&["R/v[0-9]+/.*"], &["a:80"])
        .rule(&["R/v1/(a|b)/[a-z]+"], &["b:80"])
        .rule(&["P/v1/a/x"], &["c:80"]);
    let router = routed(&plain(), &[route]);
    assert_eq!(router.get(80, "h", "/v2/q"), "a:80");
    assert_eq!(router.get(80, "h", "/v1/a/q"), "b:80");
    assert_eq!(router.get(80, "h", "/x/v2/q"), "404");
}

#[test]
fn routes_without_matches_or_backends() {
    let route = http("infra/r", &["gw"]).rule(&["P/none"], &[]).rule(&[], &["a:80"]);
    let mut zero = http("infra/zero", &["gw"]).rule(&["P/zero"], &["a:80*0", "b:80*0"]);
    zero.rules[0].name = Some("name".into());
    let router = routed(&plain(), &[route, zero]);
    assert_eq!(router.get(80, "h", "/"), "a:80");
    assert_eq!(router.get(80, "h", "/none"), "500");
    assert_eq!(router.get(80, "h", "/zero"), "500");
    for name in ["infra/r", "infra/zero"] {
        assert_eq!(router.parents(Kind::HttpRoute, name), ["Accepted ResolvedRefs"]);
    }
    let found = router.found(80, "h", "/zero", &Ask::default()).unwrap();
    assert_eq!(found.name.as_deref(), Some("name"));
    assert_eq!(found.origins, [(key(Kind::HttpRoute, "infra/zero"), "spec.rules[0]".to_owned())]);
}

// --- backends ---

#[test]
fn backends_that_cannot_be_used_refuse_their_share() {
    for (backend, reason) in [
        ("a:80", ""),
        ("missing:80", "BackendNotFound"),
        ("a:81", "BackendNotFound"),
        ("a:53", "BackendNotFound"),
        ("a", "BackendNotFound"),
        ("named:80", "BackendNotFound"),
        ("other/a:80", "RefNotPermitted"),
        ("Strange.example.com=a:80", "InvalidKind"),
        ("Service.example.com=a:80", "InvalidKind"),
        ("XBackend.gateway.networking.x-k8s.io=x", "BackendNotFound"),
        ("odd:80", "UnsupportedProtocol"),
        ("tls:80", "UnsupportedProtocol"),
    ] {
        let route = http("infra/r", &["gw"]).rule(&["P/"], &["b:80*3", backend]);
        let router = routed_with(&plain(), &[route], |objects| {
            let named =
                Service { kind: ServiceType::ExternalName, ..service("infra/named", &[("", 80)]) };
            put(&mut objects.services, named);
            for (name, protocol) in [("infra/odd", "example.com/x"), ("infra/tls", "https")] {
                let mut service = service(name, &[("http", 80)]);
                service.ports[0].app_protocol = Some(protocol.into());
                put(&mut objects.services, service);
            }
        });
        let (expected, refs) = if reason.is_empty() {
            ("b:80*3+a:80", "ResolvedRefs".to_owned())
        } else {
            ("b:80*3+refuse 500", format!("ResolvedRefs=False/{reason}"))
        };
        assert_eq!(router.get(80, "h", "/"), expected, "{backend}");
        assert_eq!(router.parents(Kind::HttpRoute, "infra/r"), [format!("Accepted {refs}")]);
        if !reason.is_empty() {
            router.complains(&["E infra/r spec.rules[0].backendRefs[1]:"]);
        }
    }
}

#[test]
fn a_grant_permits_and_its_end_revokes_at_once() {
    let route = http("infra/r", &["gw"]).rule(&[], &["other/a:80"]);
    for (from, to, granted) in [
        ("infra HTTPRoute", "Service", true),
        ("infra HTTPRoute", "Service a", true),
        ("infra HTTPRoute", "Service b", false),
        ("infra GRPCRoute", "Service", false),
        ("elsewhere HTTPRoute", "Service", false),
    ] {
        let router = routed_with(&plain(), std::slice::from_ref(&route), |objects| {
            put(&mut objects.reference_grants, grant("other", from, to));
        });
        let expected = if granted { "other/a:80" } else { "refuse 500" };
        assert_eq!(router.get(80, "h", "/"), expected, "{from} {to}");
    }
    let mut objects = cluster();
    put(&mut objects.gateways, gateway("infra/gw", &plain()));
    put(&mut objects.http_routes, route);
    let without = objects.clone();
    put(&mut objects.reference_grants, grant("other", "infra HTTPRoute", "Service"));
    let mut router = Router::gateway(objects);
    assert_eq!(router.get(80, "h", "/"), "other/a:80");
    router.objects(without);
    assert_eq!(router.get(80, "h", "/"), "refuse 500");
}

#[test]
fn app_protocol_says_what_is_spoken() {
    for (protocol, http2) in [
        ("", false),
        ("http", false),
        ("kubernetes.io/ws", false),
        ("kubernetes.io/h2c", true),
        ("kubernetes.io/grpc", true),
        ("grpc", true),
    ] {
        let route = http("infra/r", &["gw"]).rule(&[], &["x:80"]);
        let router = routed_with(&plain(), &[route], |objects| {
            let mut service = service("infra/x", &[("p", 80)]);
            service.ports[0].app_protocol = Some(protocol.into());
            put(&mut objects.services, service);
        });
        let found = router.found(80, "h", "/", &Ask::default()).unwrap();
        let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
        let spoken = if http2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
        assert_eq!(backends[0].settings.protocol, spoken, "{protocol}");
    }
}

// --- timeouts, retries, sessions ---

#[test]
fn timeouts_retries_and_sessions() {
    let seconds = Duration::from_secs;
    let mut route = http("infra/r", &["gw"]).rule(&["P/"], &["a:80"]).rule(&["P/none"], &["b:80"]);
    let rule = &mut route.rules[0];
    rule.request_timeout = Some(seconds(5));
    rule.backend_timeout = Some(seconds(2));
    rule.retry = Some(RouteRetry {
        codes: vec![503, 500, 503],
        attempts: Some(3),
        backoff: Some(seconds(1)),
    });
    rule.session = Some(SessionPersistence {
        header: true,
        name: Some("X-S".into()),
        ..SessionPersistence::default()
    });
    route.rules[1].request_timeout = Some(Duration::ZERO);
    route.rules[1].retry = Some(RouteRetry::default());
    let policy = |text: &str, created, target: &str| {
        let mut meta = meta(text);
        meta.created = created;
        BackendTrafficPolicy {
            meta,
            targets: vec![object("", "Service", target)],
            retry: Some(RetryConstraint {
                percent: 20,
                interval: seconds(10),
                minimum: (10, seconds(1)),
            }),
            session: Some(SessionPersistence {
                permanent: true,
                absolute_timeout: Some(seconds(60)),
                ..SessionPersistence::default()
            }),
        }
    };
    let router = routed_with(&plain(), &[route], |objects| {
        put(&mut objects.backend_traffic_policies, policy("infra/new", 2, "b"));
        put(&mut objects.backend_traffic_policies, policy("infra/old", 1, "b"));
    });
    let found = |path| router.found(80, "h", path, &Ask::default()).unwrap();
    let first = found("/");
    assert_eq!(
        (first.request_timeout, first.backend_timeout),
        (Some(seconds(5)), Some(seconds(2)))
    );
    let retry = first.retry.as_ref().unwrap();
    assert_eq!((&retry.codes[..], retry.attempts, retry.backoff), (&[500, 503][..], 3, seconds(1)));
    assert!(retry.on_failure && retry.budget.is_none());
    let session = first.session.as_ref().unwrap();
    assert_eq!((&*session.name, session.kind), ("X-S", SessionKind::Header));
    let second = found("/none");
    assert_eq!(second.request_timeout, None, "0s is none");
    assert_eq!(second.retry.as_ref().unwrap().budget.unwrap().percent, 20);
    let session = second.session.as_ref().unwrap();
    assert_eq!(session.kind, SessionKind::PermanentCookie);
    let kind = Kind::XBackendTrafficPolicy;
    assert_eq!(router.parents(kind, "infra/old"), ["Accepted"]);
    assert_eq!(router.parents(kind, "infra/new"), ["Accepted=False/Conflicted"]);
}

// --- 5.6 ---

#[test]
fn grpc_routes_match_services_and_methods() {
    let router = routed_with(&plain(), &[], |objects| {
        let mut route = grpc("infra/g", &["gw"]);
        route.rules = vec![
            grpc_rule(&["/"], &["c:80"]),
            grpc_rule(&["foo.Bar/"], &["b:80"]),
            grpc_rule(&["foo.Bar/Get", "/Only"], &["a:80"]),
            grpc_rule(&["foo.Bar/Get h=x:1"], &["b:80", "missing:80"]),
        ];
        put(&mut objects.grpc_routes, route);
    });
    let x = Ask { headers: &[("x", "1")], ..Ask::default() };
    for (path, ask, expected) in [
        ("/foo.Bar/Get", &Ask::default(), "a:80"),
        ("/foo.Bar/Get", &x, "b:80+refuse 503"),
        ("/foo.Bar/Put", &x, "b:80"),
        ("/foo.Bart/Get", &x, "c:80"),
        ("/other/Only", &x, "a:80"),
    ] {
        assert_eq!(router.route(80, "h", path, ask), expected, "{path}");
    }
    let found = router.found(80, "h", "/foo.Bar/Get", &Ask::default()).unwrap();
    let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
    assert_eq!(backends[0].settings.protocol, UpstreamProtocol::Http2, "whatever appProtocol says");
    let status = router.parents(Kind::GrpcRoute, "infra/g");
    assert_eq!(status, ["Accepted ResolvedRefs=False/BackendNotFound"]);
}

#[test]
fn the_longer_service_goes_before_the_longer_method() {
    let router = routed_with(&plain(), &[], |objects| {
        let mut route = grpc("infra/g", &["gw"]);
        let mut regex = grpc_rule(&["long\\.[a-z]+\\.Name/"], &["b:80*9"]);
        regex.matches[0].regex = true;
        route.rules = vec![
            grpc_rule(&["/VeryLongMethod"], &["a:80"]),
            grpc_rule(&["a.B/"], &["b:80"]),
            grpc_rule(&["a.B/Exact"], &["c:80"]),
            regex,
        ];
        put(&mut objects.grpc_routes, route);
    });
    for (path, expected) in [
        ("/a.B/VeryLongMethod", "b:80"),
        ("/a.B/Exact", "c:80"),
        ("/x.Y/VeryLongMethod", "a:80"),
        ("/long.er.Name/VeryLongMethod", "b:80*9"),
        ("/aXB/Other", "404"),
        ("/a.B/Other/more", "404"),
    ] {
        assert_eq!(router.get(80, "h", path), expected, "{path}");
    }
}

// --- many ---

#[test]
fn what_does_not_change_is_shared_and_costs_nothing() {
    let routes = |changed: bool| {
        (0..1000).map(move |i| {
            let to = if changed && i == 7 { "b:80" } else { "a:80" };
            let path = format!("P/{i}");
            http(&format!("infra/r{i}"), &["gw#a"])
                .hosts(&[&format!("h{i}.com")])
                .rule(&[&path], &[to])
        })
    };
    let listeners = [on("a 80 HTTP"), on("b 81 HTTP")];
    let mut objects = cluster();
    put(&mut objects.gateways, gateway("infra/gw", &listeners));
    for route in routes(false) {
        let map = Arc::make_mut(&mut objects.http_routes);
        map.insert(route.meta.name.clone(), Arc::new(route));
    }
    let mut router = Router::gateway(objects.clone());
    assert_eq!(router.get(80, "h999.com", "/999"), "a:80");
    let before = router.table.listeners.clone();
    let sent = router.sent;
    router.objects(objects.clone());
    assert_eq!(router.sent, sent, "the same objects");
    let route = routes(true).nth(7).unwrap();
    put(&mut objects.http_routes, route);
    router.objects(objects);
    assert_eq!(router.get(80, "h7.com", "/7"), "b:80");
    assert!(Arc::ptr_eq(&before[1], &router.table.listeners[1]), "port 81 is as before");
    assert!(!Arc::ptr_eq(&before[0], &router.table.listeners[0]));
}
