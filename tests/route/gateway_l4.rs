//! TLSRoute, TCPRoute and UDPRoute (spec 5.7, 5.8).
use pilus::api::datapath::Transport;
use pilus::api::meta::Kind;
use pilus::api::object::gateway::GatewayListener;
use pilus::api::object::gateway_route::L4Route;
use pilus::api::objects::{Objects, Table};

use crate::build::*;
use crate::gateway_build::*;

type Routes = fn(&mut Objects) -> &mut Table<L4Route>;

/// `infra/gw` with these listeners and routes; Secrets `infra/{x,y}`.
fn routed(listeners: &[GatewayListener], routes: &[(Routes, L4Route)]) -> Router {
    let mut objects = cluster();
    put(&mut objects.gateways, gateway("infra/gw", listeners));
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    put(&mut objects.secrets, secret("infra/x", &chain, &key));
    put(&mut objects.secrets, secret("infra/y", &chain, &key));
    for (table, route) in routes {
        put(table(&mut objects), route.clone());
    }
    Router::gateway(objects)
}

const TLS: Routes = |objects| &mut objects.tls_routes;
const TCP: Routes = |objects| &mut objects.tcp_routes;
const UDP: Routes = |objects| &mut objects.udp_routes;

fn aged(mut route: L4Route, created: u64) -> L4Route {
    route.meta.created = created;
    route
}

fn forward(router: &Router, port: u16) -> String {
    let listener = router.listener("infra/pilus-gateway-gw", port).expect("a listener");
    listener.forward.as_ref().map_or_else(|| "closed".to_owned(), |route| forwarded(route))
}

#[test]
fn tls_is_passed_through_by_the_most_specific_name_or_refused() {
    let listeners = [
        with_tls("exact 443 TLS abc.example.com", &[]),
        with_tls("wild 443 TLS *.example.com", &[]),
        with_tls("empty 443 TLS *.empty.example.com", &[]),
    ];
    let names = ["abc.example.com", "*.example.com", "x.empty.example.com", "www.org"];
    let routes = [
        (TLS, aged(l4("infra/new", &["gw"], &["*.example.com"], &["b:80"]), 2)),
        (TLS, aged(l4("infra/old", &["gw#exact", "gw#wild"], &names, &["a:80"]), 1)),
        (TLS, aged(l4("infra/deep", &["gw#wild"], &["*.deep.example.com"], &["c:80"]), 3)),
    ];
    let router = routed(&listeners, &routes);
    for (name, expected) in [
        (Some("abc.example.com"), "pass a:80"),
        (Some("x.example.com"), "pass a:80"),
        (Some("a.b.example.com"), "pass a:80"),
        (Some("q.deep.example.com"), "pass c:80"),
        (Some("x.empty.example.com"), "pass b:80"),
        (Some("example.com"), "refused"),
        (Some("www.org"), "refused"),
        (None, "refused"),
    ] {
        assert_eq!(router.tls(443, name), expected, "{name:?}");
    }
    for (name, count) in [("infra/new", 1), ("infra/old", 2), ("infra/deep", 1)] {
        let parents = router.parents(Kind::TlsRoute, name);
        assert_eq!(parents, vec!["Accepted ResolvedRefs"; count], "{name}");
    }
}

#[test]
fn a_name_without_a_route_is_not_served_by_a_wider_listener() {
    let listeners = [with_tls("wild 443 TLS *.a.com", &[]), with_tls("own 443 TLS own.a.com", &[])];
    let route = l4("infra/r", &["gw#wild"], &["*.a.com", "own.a.com"], &["a:80"]);
    let router = routed(&listeners, &[(TLS, route)]);
    assert_eq!(router.tls(443, Some("x.a.com")), "pass a:80");
    assert_eq!(router.tls(443, Some("own.a.com")), "refused");
}

#[test]
fn termination_and_passthrough_share_a_port_and_https_too() {
    let listeners = [
        with_tls("pass 443 TLS pass.com", &[]),
        with_tls("end 443 TLS end.com", &["x", "y"]),
        with_tls("web 443 HTTPS web.com", &["y"]),
    ];
    let routes = [
        (TLS, l4("infra/one", &["gw"], &["pass.com"], &["a:80"])),
        (TLS, l4("infra/two", &["gw"], &["end.com"], &["b:80*3", "missing:80"])),
        (TLS, l4("infra/three", &["gw#web"], &["web.com"], &["b:80"])),
    ];
    let router = routed(&listeners, &routes);
    assert_eq!(router.tls(443, Some("pass.com")), "pass a:80");
    assert_eq!(router.tls(443, Some("end.com")), "x,y> b:80*3+refuse 500");
    assert_eq!(router.tls(443, Some("web.com")), "y");
    assert_eq!(router.tls(443, Some("other.com")), "refused");
    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
    let listeners = router.api_status(Kind::Gateway, "infra/gw").listeners.iter();
    let kinds: Vec<_> = listeners.map(|it| it.supported_kinds.join(" ")).collect();
    assert_eq!(kinds, ["TLSRoute", "TLSRoute", "HTTPRoute GRPCRoute"]);
    let refs = ["Accepted ResolvedRefs=False/BackendNotFound"];
    assert_eq!(router.parents(Kind::TlsRoute, "infra/two"), refs);
    let refused = ["Accepted=False/NotAllowedByListeners ResolvedRefs"];
    assert_eq!(router.parents(Kind::TlsRoute, "infra/three"), refused);
}

#[test]
fn https_cannot_be_passed_through() {
    let router = routed(&[with_tls("web 443 HTTPS", &[])], &[]);
    let listener = router.listeners(Kind::Gateway, "infra/gw").remove(0);
    assert!(listener.contains("Accepted=False/UnsupportedValue"), "{listener}");
}

#[test]
fn one_of_several_routes_of_a_listener_serves_all_are_accepted() {
    let listeners = [on("t 9300 TCP"), on("u 5300 UDP"), on("t2 9301 TCP"), on("empty 9302 TCP")];
    for (table, kind, port, backend) in
        [(TCP, Kind::TcpRoute, 9300, "80"), (UDP, Kind::UdpRoute, 5300, "53")]
    {
        let section = if kind == Kind::TcpRoute { "gw#t" } else { "gw" };
        let to = |service: &str| format!("{service}:{backend}");
        let route = |name: &str, service: &str, created| {
            (table, aged(l4(name, &[section], &[], &[&to(service)]), created))
        };
        let router = routed(
            &listeners,
            &[
                route("infra/a-new", "a", 2),
                route("infra/c-old", "c", 1),
                route("infra/b-old", "b", 1),
            ],
        );
        assert_eq!(forward(&router, port), to("b"), "the oldest, then by name");
        for name in ["infra/a-new", "infra/b-old", "infra/c-old"] {
            assert_eq!(router.parents(kind, name), ["Accepted ResolvedRefs"]);
        }
        let status = router.api_status(Kind::Gateway, "infra/gw");
        let counts: Vec<_> = status.listeners.iter().map(|it| it.attached_routes).collect();
        let expected = if kind == Kind::TcpRoute { [3, 0, 0, 0] } else { [0, 3, 0, 0] };
        assert_eq!(counts, expected);
        assert_eq!(forward(&router, 9302), "closed");
    }
}

#[test]
fn parents_without_section_mean_every_listener_of_the_protocol() {
    let listeners = [on("a 9300 TCP"), on("b 9301 TCP"), on("u 5300 UDP"), on("h 80 HTTP")];
    let routes = [
        (TCP, aged(l4("infra/all", &["gw"], &[], &["a:80"]), 2)),
        (TCP, aged(l4("infra/port", &["gw:9301"], &[], &["b:80"]), 1)),
        (TCP, l4("infra/wrong", &["gw#h"], &[], &["b:80"])),
        (UDP, l4("infra/udp", &["gw"], &[], &["a:53*7", "b:53*3", "c:53*0"])),
        (UDP, l4("infra/not-udp", &["gw#a"], &[], &["b:53"])),
    ];
    let router = routed(&listeners, &routes);
    assert_eq!(forward(&router, 9300), "a:80");
    assert_eq!(forward(&router, 9301), "b:80");
    assert_eq!(forward(&router, 5300), "a:53*7+b:53*3+c:53*0");
    let refused = ["Accepted=False/NotAllowedByListeners ResolvedRefs"];
    assert_eq!(router.parents(Kind::TcpRoute, "infra/wrong"), refused);
    assert_eq!(router.parents(Kind::UdpRoute, "infra/not-udp"), refused);
    let udp = router.listener("infra/pilus-gateway-gw", 5300).unwrap();
    assert_eq!(udp.protocol.transport(), Transport::Udp);
}

#[test]
fn l4_backends_that_cannot_be_used() {
    for (backend, reason, shown) in [
        ("missing:80", "BackendNotFound", "refuse 500"),
        ("other/a:80", "RefNotPermitted", "refuse 500"),
        ("Strange.example.com=a:80", "InvalidKind", "refuse 500"),
        ("a:53", "BackendNotFound", "refuse 500"),
    ] {
        let route = l4("infra/r", &["gw"], &[], &[backend]);
        let router = routed(&[on("a 9300 TCP")], &[(TCP, route)]);
        assert_eq!(forward(&router, 9300), shown, "{backend}");
        let refs = format!("Accepted ResolvedRefs=False/{reason}");
        assert_eq!(router.parents(Kind::TcpRoute, "infra/r"), [refs]);
    }
    let route = l4("infra/r", &["gw"], &[], &["a:80"]);
    let router = routed(&[on("a 5300 UDP")], &[(UDP, route)]);
    assert_eq!(forward(&router, 5300), "refuse 500", "80 is TCP");
    // Kinds of grants are kept apart.
    for (from, granted) in [("infra TCPRoute", true), ("infra UDPRoute", false)] {
        let mut objects = cluster();
        put(&mut objects.gateways, gateway("infra/gw", &[on("a 9300 TCP")]));
        put(&mut objects.tcp_routes, l4("infra/r", &["gw"], &[], &["other/a:80"]));
        put(&mut objects.reference_grants, grant("other", from, "Service"));
        let router = Router::gateway(objects);
        assert_eq!(forward(&router, 9300) == "other/a:80", granted);
    }
}
