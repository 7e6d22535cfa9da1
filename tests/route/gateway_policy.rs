//! BackendTLSPolicy (spec 5.10), client certificates of Gateways, XBackend, and annotations of Services.
use std::sync::Arc;
use std::time::Duration;

use pilus::api::meta::Kind;
use pilus::api::object::gateway::{
    AlternativeName, BackendTlsPolicy, BackendValidation, ExternalBackend, ExternalTls, Gateway,
    ObjectRef,
};
use pilus::api::objects::Objects;
use pilus::api::route::{
    Action, Backend, Balance, SendProxyProtocol, Target, TlsAction, UpstreamProtocol,
    UpstreamSettings,
};

use crate::build::*;
use crate::gateway_build::*;

const X: &str = "XBackend.gateway.networking.x-k8s.io=";

/// A policy for `SERVICE[#PORT NAME]`… with the authorities of a ConfigMap in its namespace.
fn policy(
    text: &str,
    created: u64,
    targets: &[&str],
    hostname: &str,
    ca: ObjectRef,
) -> BackendTlsPolicy {
    let mut meta = meta(text);
    meta.created = created;
    meta.generation = 4;
    let targets = targets.iter().map(|text| {
        let (name, section) = match text.split_once('#') {
            Some((name, section)) => (name, Some(section.into())),
            None => (*text, None),
        };
        (object("", "Service", name), section)
    });
    BackendTlsPolicy {
        meta,
        targets: targets.collect(),
        validation: BackendValidation {
            authorities: vec![ca],
            well_known: None,
            hostname: hostname.into(),
            alternative_names: vec![],
        },
    }
}

fn ca() -> ObjectRef {
    object("", "ConfigMap", "ca")
}

/// `infra/gw`, whose HTTPRoute leads to `a:80`, `a:81` and `b:80` by path; ConfigMaps `ca` and `bad`.
fn world(change: impl FnOnce(&mut Objects)) -> Router {
    let mut objects = cluster();
    put(&mut objects.gateways, gateway("infra/gw", &[on("http 80 HTTP")]));
    put(&mut objects.services, service("infra/a", &[("http", 80), ("other", 81)]));
    let route = http("infra/r", &["gw"])
        .rule(&["P/a"], &["a:80"])
        .rule(&["P/81"], &["a:81"])
        .rule(&["P/b"], &["b:80"]);
    put(&mut objects.http_routes, route);
    let (pem, key) = certificate(&["ca"], 2025, 2030);
    put(&mut objects.config_maps, authorities("infra/ca", &pem));
    put(&mut objects.config_maps, authorities("infra/bad", "-----BEGIN CERTIFICATE-----\nx\n"));
    put(&mut objects.secrets, secret("infra/client", &pem, &key));
    change(&mut objects);
    Router::gateway(objects)
}

fn backend(router: &Router, path: &str) -> Backend {
    let found = router.found(80, "h", path, &Ask::default()).unwrap();
    let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
    backends[0].clone()
}

/// `plain`, the SNI name, or `refuse STATUS`.
fn shown(router: &Router, path: &str) -> String {
    let backend = backend(router, path);
    match (&backend.target, &backend.settings.tls) {
        (Target::Refuse(status, _), _) => format!("refuse {status}"),
        (_, None) => "plain".to_owned(),
        (_, Some(tls)) => tls.server_name.to_string(),
    }
}

fn settings(router: &Router, path: &str) -> Arc<UpstreamSettings> {
    backend(router, path).settings
}

#[test]
fn a_policy_for_a_port_goes_before_one_for_the_service() {
    let router = world(|objects| {
        let policies = &mut objects.backend_tls_policies;
        put(policies, policy("infra/whole", 1, &["a"], "whole.com", ca()));
        put(policies, policy("infra/port", 2, &["a#other"], "port.com", ca()));
    });
    assert_eq!(
        ["/a", "/81", "/b"].map(|path| shown(&router, path)),
        ["whole.com", "port.com", "plain"]
    );
    for name in ["infra/whole", "infra/port"] {
        assert_eq!(router.parents(Kind::BackendTlsPolicy, name), ["Accepted ResolvedRefs"]);
    }
    let status = router.api_status(Kind::BackendTlsPolicy, "infra/whole");
    assert_eq!(status.observed_generation, 4);
    let ancestor = &status.parents[0].parent;
    assert_eq!(*ancestor, parent("infra/gw"), "the Gateway, not the Service");
    assert_eq!(settings(&router, "/a").protocol, UpstreamProtocol::Http1);
}

#[test]
fn of_policies_for_the_same_target_the_oldest_counts() {
    let router = world(|objects| {
        let policies = &mut objects.backend_tls_policies;
        put(policies, policy("infra/c", 1, &["a"], "old.com", ca()));
        put(policies, policy("infra/b", 2, &["a"], "new.com", ca()));
        put(policies, policy("infra/a", 2, &["a", "b"], "both.com", ca()));
    });
    assert_eq!(["/a", "/b"].map(|path| shown(&router, path)), ["old.com", "both.com"]);
    let parents = |name| router.parents(Kind::BackendTlsPolicy, name);
    assert_eq!(parents("infra/c"), ["Accepted ResolvedRefs"]);
    assert_eq!(parents("infra/b"), ["Accepted=False/Conflicted ResolvedRefs"]);
    assert_eq!(parents("infra/a"), ["Accepted ResolvedRefs"], "it has one of its targets");
    router.complains(&["E infra/b spec.targetRefs: the older policy infra/c"]);
}

#[test]
fn a_policy_that_cannot_be_honoured_closes_its_backend() {
    let mut system = policy("infra/p", 1, &["a"], "a.com", ca());
    system.validation.authorities.clear();
    system.validation.well_known = Some("System".into());
    let with = |authorities: ObjectRef| policy("infra/p", 1, &["a"], "a.com", authorities);
    let no_ca = "Accepted=False/NoValidCACertificate";
    for (policy, expected) in [
        (
            with(object("", "ConfigMap", "missing")),
            format!("{no_ca} ResolvedRefs=False/InvalidCACertificateRef"),
        ),
        (
            with(object("", "ConfigMap", "bad")),
            format!("{no_ca} ResolvedRefs=False/InvalidCACertificateRef"),
        ),
        (with(object("", "Secret", "ca")), format!("{no_ca} ResolvedRefs=False/InvalidKind")),
        (system, "Accepted=False/Invalid ResolvedRefs".to_owned()),
    ] {
        let router = world(|objects| put(&mut objects.backend_tls_policies, policy));
        assert_eq!(shown(&router, "/a"), "refuse 500", "{expected}");
        assert_eq!(shown(&router, "/81"), "refuse 500");
        assert_eq!(shown(&router, "/b"), "plain");
        assert_eq!(router.parents(Kind::BackendTlsPolicy, "infra/p"), [expected]);
        let refs = router.parents(Kind::HttpRoute, "infra/r");
        assert_eq!(refs, ["Accepted ResolvedRefs"], "the policy's status says it");
    }
    // One of two references is enough.
    let mut two = with(object("", "ConfigMap", "missing"));
    two.validation.authorities.push(ca());
    let router = world(|objects| put(&mut objects.backend_tls_policies, two));
    assert_eq!(shown(&router, "/a"), "a.com");
    let expected = ["Accepted ResolvedRefs=False/InvalidCACertificateRef"];
    assert_eq!(router.parents(Kind::BackendTlsPolicy, "infra/p"), expected);
}

#[test]
fn a_config_map_that_comes_later_is_taken_up() {
    let mut objects = cluster();
    put(&mut objects.gateways, gateway("infra/gw", &[on("http 80 HTTP")]));
    put(&mut objects.http_routes, http("infra/r", &["gw"]).rule(&["P/a"], &["a:80"]));
    put(&mut objects.backend_tls_policies, policy("infra/p", 1, &["a"], "a.com", ca()));
    let mut router = Router::gateway(objects.clone());
    assert_eq!(shown(&router, "/a"), "refuse 500");
    let (pem, _) = certificate(&["ca"], 2025, 2030);
    put(&mut objects.config_maps, authorities("infra/ca", &pem));
    router.objects(objects.clone());
    assert_eq!(shown(&router, "/a"), "a.com");
    let first = settings(&router, "/a").tls.clone().unwrap();
    assert_eq!(first.authorities.certificates.len(), 1);
    let (another, _) = certificate(&["ca"], 2025, 2030);
    put(&mut objects.config_maps, authorities("infra/ca", &format!("{pem}{another}")));
    router.objects(objects);
    assert_eq!(settings(&router, "/a").tls.as_ref().unwrap().authorities.certificates.len(), 2);
}

#[test]
fn names_and_uris_are_handed_on() {
    let mut wanted = policy("infra/p", 1, &["a"], "a.com", ca());
    wanted.validation.alternative_names = vec![
        AlternativeName::Hostname("x.com".into()),
        AlternativeName::Uri("spiffe://x/y".into()),
    ];
    let router = world(|objects| put(&mut objects.backend_tls_policies, wanted));
    let settings = settings(&router, "/a");
    let tls = settings.tls.as_ref().unwrap();
    assert_eq!(
        (&tls.names[..], &tls.uris[..]),
        (&["x.com".into()][..], &["spiffe://x/y".into()][..])
    );
}

#[test]
fn a_policy_lets_https_backends_and_grpc_be_used() {
    let router = world(|objects| {
        let mut service = service("infra/b", &[("https", 80)]);
        service.ports[0].app_protocol = Some("https".into());
        put(&mut objects.services, service);
        put(&mut objects.backend_tls_policies, policy("infra/p", 1, &["b", "c"], "b.com", ca()));
        let mut route = grpc("infra/g", &["gw"]).hosts(&["grpc.com"]);
        route.rules.push(grpc_rule(&[], &["c:80"]));
        put(&mut objects.grpc_routes, route);
        let route = Arc::make_mut(&mut objects.http_routes).get_mut(&name("infra/r")).unwrap();
        Arc::make_mut(route).hostnames = vec!["h".into()];
    });
    assert_eq!(shown(&router, "/b"), "b.com");
    let found = router.found(80, "grpc.com", "/x.Y/Z", &Ask::default()).unwrap();
    let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
    assert_eq!(backends[0].settings.protocol, UpstreamProtocol::Http2);
    assert_eq!(backends[0].settings.tls.as_ref().unwrap().server_name, "b.com".into());
}

#[test]
fn termination_is_encrypted_again_and_passthrough_is_not() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    let router = world(|objects| {
        put(&mut objects.secrets, secret("infra/x", &chain, &key));
        put(&mut objects.backend_tls_policies, policy("infra/p", 1, &["a"], "a.com", ca()));
        let listeners =
            [with_tls("end 443 TLS end.com", &["x"]), with_tls("pass 443 TLS pass.com", &[])];
        put(&mut objects.gateways, gateway("infra/gw", &listeners));
        let names = ["end.com", "pass.com"];
        put(&mut objects.tls_routes, l4("infra/t", &["gw"], &names, &["a:80"]));
    });
    let listener = router.listener("infra/pilus-gateway-gw", 443).unwrap();
    for (name, secured) in [("end.com", true), ("pass.com", false)] {
        let route = match listener.tls.find(Some(name)).unwrap() {
            TlsAction::Terminate(it) => it.forward.as_ref().unwrap(),
            TlsAction::Passthrough(route) => route,
            TlsAction::Refuse(why) | TlsAction::Reset(why) => panic!("{why}"),
        };
        let Action::Forward(backends) = &route.action else { panic!("{route:?}") };
        assert_eq!(backends[0].settings.tls.is_some(), secured, "{name}");
    }
}

#[test]
fn each_gateway_shows_its_own_certificate() {
    let router = world(|objects| {
        put(&mut objects.backend_tls_policies, policy("infra/p", 1, &["a"], "a.com", ca()));
        for (text, secret) in
            [("infra/gw", None), ("infra/one", Some("client")), ("infra/two", Some("missing"))]
        {
            let client_certificate = secret.map(|secret| object("", "Secret", secret));
            let gateway = Gateway { client_certificate, ..gateway(text, &[on("http 80 HTTP")]) };
            put(&mut objects.gateways, gateway);
        }
        let route = http("infra/r", &["gw", "one", "two"]);
        put(&mut objects.http_routes, route.rule(&["P/a"], &["a:80"]).rule(&["P/b"], &["b:80"]));
    });
    let client = |gateway: &str, path: &str| {
        let service = format!("infra/pilus-gateway-{gateway}");
        let listener = router.listener(&service, 80).unwrap();
        let route = listener.hosts.find("h").unwrap().find(path, &Ask::default()).unwrap();
        let Action::Forward(backends) = &route.action else { panic!("{route:?}") };
        match (&backends[0].target, &backends[0].settings.tls) {
            (Target::Refuse(status, _), _) => format!("refuse {status}"),
            (_, None) => "plain".to_owned(),
            (_, Some(tls)) => {
                tls.client.as_ref().map_or("none".to_owned(), |it| it.secret.to_string())
            }
        }
    };
    assert_eq!(client("gw", "/a"), "none");
    assert_eq!(client("one", "/a"), "infra/client");
    assert_eq!(client("two", "/a"), "refuse 503", "not without what it should show");
    assert_eq!(client("two", "/b"), "plain");
    let ancestors = &router.api_status(Kind::BackendTlsPolicy, "infra/p").parents;
    assert_eq!(ancestors.len(), 3);
}

#[test]
fn policies_that_nobody_uses_have_no_ancestor() {
    let router = world(|objects| {
        let policies = &mut objects.backend_tls_policies;
        put(policies, policy("infra/p", 1, &["c"], "a.com", ca()));
        put(policies, policy("infra/q", 1, &["nobody"], "a.com", ca()));
    });
    assert!(router.status(Kind::BackendTlsPolicy, "infra/p").is_none());
    router.complains(&["E infra/q spec.targetRefs[0]: Service infra/nobody does not exist"]);
}

#[test]
fn a_policy_is_for_backends_of_ingresses_as_well() {
    let state = |change: &dyn Fn(&mut Objects)| {
        let router = world(|objects| {
            let mut service = service("infra/b", &[("https", 80)]);
            service.ports[0].app_protocol = Some("https".into());
            put(&mut objects.services, service);
            objects.http_routes = Default::default();
            let own = ingress("infra/i").note("loadbalancer-mode", "dedicated");
            put(&mut objects.ingresses, own.rule("h", &[("/", 'P', "b:80")]).0);
            change(objects);
        });
        let listener = router.listener("infra/pilus-ingress-i", 80).unwrap();
        let found = listener.hosts.find("h").unwrap().find("/", &Get).unwrap();
        let tls = match &found.action {
            Action::Forward(backends) => backends[0]
                .settings
                .tls
                .as_ref()
                .map_or("plain".into(), |it| it.server_name.to_string()),
            action => format!("{action:?}").chars().take(10).collect(),
        };
        (tls, router.problems().len())
    };
    let policies = |policy: BackendTlsPolicy| {
        move |objects: &mut Objects| put(&mut objects.backend_tls_policies, policy.clone())
    };
    assert_eq!(state(&|_| {}), ("plain".to_owned(), 1), "and that is said");
    let good = policy("infra/p", 1, &["b"], "b.com", ca());
    assert_eq!(state(&policies(good)), ("b.com".to_owned(), 0));
    let bad = policy("infra/p", 1, &["b"], "b.com", object("", "ConfigMap", "missing"));
    assert_eq!(state(&policies(bad)), ("Refuse(500".to_owned(), 2));
}

// --- XBackend ---

fn external(hostname: &str, protocol: Option<&str>, tls: Option<ExternalTls>) -> ExternalBackend {
    ExternalBackend {
        meta: meta("infra/x"),
        hostname: hostname.into(),
        port: 8443,
        protocol: protocol.map(Into::into),
        tls,
    }
}

fn with_external(backend: ExternalBackend) -> (String, String, Router) {
    let router = world(|objects| {
        put(&mut objects.external_backends, backend);
        let to = format!("{X}x");
        put(&mut objects.http_routes, http("infra/r", &["gw"]).rule(&[], &[&to]));
    });
    let status = router.parents(Kind::HttpRoute, "infra/r").remove(0);
    (router.get(80, "h", "/"), status, router)
}

#[test]
fn hosts_outside_of_the_cluster() {
    let ok = "Accepted ResolvedRefs";
    for (hostname, served) in [
        ("192.0.2.1", true),
        ("2001:db8::1", true),
        ("api.example.com", true),
        ("127.0.0.1", false),
        ("::1", false),
        ("::ffff:127.0.0.1", false),
        ("0.0.0.0", false),
        ("169.254.169.254", false),
        ("224.0.0.1", false),
    ] {
        let (got, status, _) = with_external(external(hostname, None, None));
        let expected = if served { "xbackend/x:8443" } else { "refuse 503" };
        assert_eq!(got, expected, "{hostname}");
        assert_eq!(status == ok, served, "{status}");
    }
    for (protocol, spoken) in [
        (None, Some(UpstreamProtocol::Http1)),
        (Some("HTTP11"), Some(UpstreamProtocol::Http1)),
        (Some("HTTP2"), Some(UpstreamProtocol::Http2)),
        (Some("H2C"), Some(UpstreamProtocol::Http2)),
        (Some("TCP"), None),
    ] {
        let (got, status, router) = with_external(external("192.0.2.1", protocol, None));
        match spoken {
            Some(spoken) => assert_eq!(settings(&router, "/").protocol, spoken, "{protocol:?}"),
            None => {
                assert_eq!(got, "refuse 500");
                assert!(status.contains("UnsupportedProtocol"), "{status}");
            }
        }
    }
}

#[test]
fn tls_to_hosts_outside_of_the_cluster() {
    let validation = policy("infra/p", 1, &[], "api.example.com", ca()).validation;
    let tls = ExternalTls {
        validation: Some(validation),
        client_certificate: Some(object("", "Secret", "client")),
    };
    let (_, status, router) = with_external(external("192.0.2.1", None, Some(tls.clone())));
    assert_eq!(status, "Accepted ResolvedRefs");
    let found = settings(&router, "/").tls.clone().unwrap();
    assert_eq!(&*found.server_name, "api.example.com");
    assert_eq!(found.client.as_ref().unwrap().secret, name("infra/client"));
    let missing = ExternalTls { client_certificate: Some(object("", "Secret", "no")), ..tls };
    for tls in [ExternalTls::default(), missing] {
        let (got, status, _) = with_external(external("192.0.2.1", None, Some(tls)));
        assert_eq!(got, "refuse 503");
        assert_eq!(status, "Accepted ResolvedRefs=False/BackendNotFound");
    }
}

// --- annotations of Services ---

#[test]
fn annotations_of_services_say_how_endpoints_are_talked_to() {
    let annotated = |notes: &[(&str, &str)]| {
        let mut service = service("infra/b", &[("http", 80)]);
        let notes =
            notes.iter().map(|&(key, value)| (format!("pilus.dev/{key}").into(), value.into()));
        service.meta.annotations = notes.collect();
        let router = world(|objects| {
            let own = ingress("infra/i").note("loadbalancer-mode", "dedicated");
            put(&mut objects.ingresses, own.rule("h", &[("/", 'P', "b:80")]).0);
            put(&mut objects.services, service);
        });
        let listener = router.listener("infra/pilus-ingress-i", 80).unwrap();
        let found = listener.hosts.find("h").unwrap().find("/", &Get).unwrap();
        let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
        let settings = settings(&router, "/b");
        assert_eq!(*backends[0].settings, *settings, "for Ingresses as well");
        (settings, router.problems())
    };
    let (settings, problems) = annotated(&[
        ("load-balancing", "least-request"),
        ("slow-start", "30s"),
        ("outlier-consecutive", "7"),
        ("max-connections", "100"),
        ("max-requests", "200"),
        ("send-proxy-protocol", "v2"),
        ("transparent", "true"),
    ]);
    assert_eq!(problems, [""; 0]);
    assert_eq!(settings.balance, Balance::LeastRequest);
    assert_eq!(settings.slow_start, Duration::from_secs(30));
    let outlier = settings.outlier.unwrap();
    assert_eq!((outlier.consecutive, outlier.base_ejection), (7, Duration::from_secs(30)));
    assert_eq!((settings.breaker.max_connections, settings.breaker.max_requests), (100, 200));
    assert_eq!(settings.send_proxy_protocol, Some(SendProxyProtocol::V2));
    assert!(settings.transparent);
    for (key, value) in [
        ("load-balancing", "fastest"),
        ("slow-start", "30"),
        ("outlier-consecutive", "0"),
        ("outlier-ejection", "x"),
        ("max-connections", "-1"),
        ("max-requests", "many"),
        ("send-proxy-protocol", "v3"),
        ("transparent", "yes"),
    ] {
        let (settings, problems) = annotated(&[(key, value)]);
        assert_eq!(*settings, UpstreamSettings::default(), "{key}");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(&format!("E infra/b metadata.annotations.pilus.dev/{key}"))
        );
    }
    let (_, problems) = annotated(&[("load-balansing", "random")]);
    assert!(problems[0].contains("did you mean"), "{problems:?}");
}
