//! Who is believed about clients: X-Forwarded-* and the PROXY protocol by the sender's address, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilus::api::address::Network;
use pilus::api::config::Config;
use pilus::api::route::{
    Action, Backend as To, Balance, ExternalAuth, ListenerProtocol, Route, UpstreamSettings,
};
use pilus::proto::proxy_protocol::{Ends, write_v2};
use support::backend::{Backend, header};
use support::client::Client;
use support::http2::Http2;
use support::{Front, RouteSpec, TestProxy, World, free_port};

/// Proxies of ours: one on loopback, those of a LAN, and one on IPv6.
const TRUSTED: [(&str, u8); 3] = [("127.0.0.2", 32), ("10.0.0.0", 8), ("::1", 128)];
const PROXY: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.3";

fn trusting() -> Config {
    let network = |&(text, length): &(&str, u8)| Network { address: ip(text), length };
    let trusted_proxies = TRUSTED.iter().map(network).collect();
    Config { no_bpf: true, trusted_proxies, ..Config::default() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn start(
    shape: impl Fn(&mut pilus::api::route::Listener) + Send + Sync + 'static,
) -> (TestProxy, u16) {
    let echo = Backend::echoing();
    let port = free_port();
    let front =
        Front { shape: Some(Arc::new(shape)), ..Front::http(port, vec![RouteSpec::all("web")]) };
    let mut world = World { listeners: vec![front], ..World::default() };
    world.serve("web", &[echo.address]);
    (TestProxy::with_config(trusting, world), port)
}

/// What the endpoint gets if `from` sends these header lines.
fn sent(from: &str, port: u16, lines: &str) -> String {
    let mut client = Client::from(ip(from), port);
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.replace('\n', "\r\n")));
    client.response().text().to_owned()
}

fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    header(head.as_bytes(), name)
}

/// Everything by which a client could say who it is.
const CLAIMS: &str = "X-Forwarded-For: 203.0.113.9\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil\n\
    x_forwarded_port: 443\nForwarded: for=203.0.113.9\nX-Real-IP: 203.0.113.9\n\
    X-Envoy-External-Address: 203.0.113.9\nX-Envoy-Retry-On: 5xx\nX-Request-Id: mine\nX-Kept: 1\n";

#[test]
fn what_a_stranger_says_about_itself_is_dropped() {
    let (_proxy, port) = start(|_| ());
    for head in [sent(STRANGER, port, CLAIMS), {
        let mut client = Http2::from(ip(STRANGER), port);
        let lines = CLAIMS.to_ascii_lowercase().replace('\n', "\r\n");
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        let id = client.send(&text, b"", false);
        String::from_utf8(client.wait(id).body).unwrap()
    }] {
        assert_eq!(value(&head, "x-forwarded-for"), Some(STRANGER), "{head}");
        assert_eq!(value(&head, "x-forwarded-proto"), Some("http"), "{head}");
        assert_eq!(value(&head, "x-request-id").unwrap().len(), 36, "{head}");
        assert_eq!(value(&head, "x-kept"), Some("1"), "{head}");
        for name in [
            "x-forwarded-host",
            "x_forwarded_port",
            "forwarded",
            "x-real-ip",
            "x-envoy-external-address",
            "x-envoy-retry-on",
        ] {
            assert_eq!(value(&head, name), None, "{name}: {head}");
        }
    }
}

#[test]
fn what_a_trusted_proxy_says_is_believed() {
    let (_proxy, port) = start(|_| ());
    let mut http2 = Http2::from(ip(PROXY), port);
    let lines = CLAIMS.to_ascii_lowercase().replace('\n', "\r\n");
    let id = http2.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n"), b"", false);
    let over_http2 = String::from_utf8(http2.wait(id).body).unwrap();
    for (head, peer) in [
        (sent(PROXY, port, CLAIMS), PROXY),
        (sent("::1", port, CLAIMS), "::1"),
        (over_http2, PROXY),
    ] {
        let forwarded_for = format!("203.0.113.9, {peer}");
        for (name, expected) in [
            ("x-forwarded-for", &*forwarded_for),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-request-id", "mine"),
            ("x-real-ip", "203.0.113.9"),
            ("x-envoy-external-address", "203.0.113.9"),
        ] {
            assert_eq!(value(&head, name), Some(expected), "{name}: {head}");
        }
        assert_eq!(value(&head, "x-envoy-retry-on"), None, "the client is not internal: {head}");
    }
}

#[test]
fn the_client_is_found_behind_several_proxies_and_nothing_before_it_is_kept() {
    let (_proxy, port) = start(|_| ());
    for (lines, forwarded_for, external) in [
        ("", "127.0.0.2", None),
        (
            "X-Forwarded-For: 6.6.6.6, 203.0.113.1, 10.0.0.1\n",
            "203.0.113.1, 10.0.0.1, 127.0.0.2",
            Some("203.0.113.1"),
        ),
        (
            "X-Forwarded-For: 6.6.6.6,203.0.113.1\nX-Forwarded-For: 10.0.0.1 ,10.0.0.2\n",
            "203.0.113.1, 10.0.0.1, 10.0.0.2, 127.0.0.2",
            Some("203.0.113.1"),
        ),
        ("X-Forwarded-For: 10.0.0.3, 10.0.0.1\n", "10.0.0.3, 10.0.0.1, 127.0.0.2", None),
        ("X-Forwarded-For: 6.6.6.6, nobody, 10.0.0.1\n", "10.0.0.1, 127.0.0.2", None),
        ("X-Forwarded-For: unknown\n", "127.0.0.2", None),
        ("X-Forwarded-For: 2001:db8::5\n", "2001:db8::5, 127.0.0.2", Some("2001:db8::5")),
    ] {
        let head = sent(PROXY, port, lines);
        assert_eq!(value(&head, "x-forwarded-for"), Some(forwarded_for), "{lines}");
        assert_eq!(value(&head, "x-envoy-external-address"), external, "{lines}");
    }
}

#[test]
fn clients_stay_with_their_endpoint_by_the_address_that_is_believed() {
    let endpoints: Vec<Backend> = ["a", "b", "c", "d"].map(Backend::answering).into();
    let port = free_port();
    let shape = |route: &mut Route| {
        let Action::Forward(backends) = &mut route.action else { return };
        let settings = UpstreamSettings { balance: Balance::SourceAddress, ..Default::default() };
        backends[0].settings = Arc::new(settings);
    };
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web").with(shape)]));
    world.serve("web", &endpoints.iter().map(|it| it.address).collect::<Vec<SocketAddr>>());
    let _proxy = TestProxy::with_config(trusting, world);
    let answers = |from: &str| -> Vec<String> {
        let lines = (1..=16).map(|last| format!("X-Forwarded-For: 203.0.113.{last}\n"));
        lines.map(|line| sent(from, port, &line)).collect()
    };
    let (first, again, stranger) = (answers(PROXY), answers(PROXY), answers(STRANGER));
    assert_eq!(first, again);
    assert!(first.iter().any(|it| *it != first[0]), "sixteen clients, four endpoints: {first:?}");
    assert!(stranger.iter().all(|it| *it == stranger[0]), "one client: {stranger:?}");
}

/// The proxy does not answer and closes. (The reset may have met what was still being sent: then there is only an end.)
fn assert_closed(client: &mut Client) {
    match client.stream.read(&mut [0]) {
        Ok(got) => assert_eq!(got, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn v2(client: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let server = "192.0.2.1:80".parse().unwrap();
    write_v2(&mut out, Ends { client: client.parse().unwrap(), server });
    out
}

#[test]
fn a_proxy_header_is_taken_from_trusted_proxies_only() {
    let (proxy, port) = start(|listener| listener.accept_proxy_protocol = true);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", CLAIMS.replace('\n', "\r\n"));
    let v1 = |client: &str| format!("PROXY TCP4 {client} 192.0.2.1 4711 80\r\n").into_bytes();
    for (header, forwarded_for, id) in [
        // The one who is named speaks, and it is not a proxy of ours.
        (v1("203.0.113.1"), "203.0.113.1", None),
        (v2("203.0.113.1:9"), "203.0.113.1", None),
        // It is.
        (v1("10.0.0.1"), "203.0.113.9, 10.0.0.1", Some("mine")),
        (v2("10.0.0.1:9"), "203.0.113.9, 10.0.0.1", Some("mine")),
        // Nobody knows who speaks.
        (b"PROXY UNKNOWN\r\n".to_vec(), PROXY, None),
    ] {
        let mut client = Client::from(ip(PROXY), port);
        client.send([&header, request.as_bytes()].concat());
        let response = client.response();
        let head = response.text();
        assert_eq!(value(head, "x-forwarded-for"), Some(forwarded_for));
        assert_eq!(value(head, "x-request-id").filter(|it| it.len() < 36), id);
    }
    assert_eq!(proxy.stats().connections_untrusted, 0);
    for header in [v1("203.0.113.1"), v2("203.0.113.1:9")] {
        let mut client = Client::from(ip(STRANGER), port);
        client.send([&header, request.as_bytes()].concat());
        assert_closed(&mut client);
    }
    assert_eq!(proxy.stats().connections_untrusted, 2);
    assert_eq!(proxy.stats().requests, 5);
}

#[test]
fn bytes_behind_a_proxy_header_are_for_trusted_proxies_as_well() {
    let (proxy, port) = start(|listener| {
        listener.protocol = ListenerProtocol::Tcp;
        listener.accept_proxy_protocol = true;
        let to = To::new(support::service_port("web"), 1);
        listener.forward = Some(Arc::new(Route::new(Action::Forward(vec![to]))));
    });
    let bytes = b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::from(ip(PROXY), port);
    client.send(bytes);
    assert!(client.response().text().starts_with("GET / HTTP/1.1\r\nHost: a\r\n"));
    let mut client = Client::from(ip(STRANGER), port);
    client.send(bytes);
    assert_closed(&mut client);
    assert_eq!(proxy.stats().connections_untrusted, 1);
}

#[test]
fn auth_servers_are_told_of_the_client_that_is_believed() {
    let echo = Backend::echoing();
    let refusing = Backend::start(|mut peer| {
        while let Some((head, _)) = peer.request() {
            let told =
                ["x-forwarded-for", "x-forwarded-proto"].map(|name| header(&head, name).unwrap());
            let told = told.join(" ");
            peer.say(&format!("HTTP/1.1 403 No\r\ncontent-length: {}\r\n\r\n{told}", told.len()));
        }
    });
    let port = free_port();
    let shape = |route: &mut Route| {
        route.filters.auth = Some(Arc::new(ExternalAuth {
            backend: To::new(support::service_port("auth"), 1),
            grpc: false,
            path: "/".into(),
            allowed_headers: Vec::new(),
            allowed_response_headers: Vec::new(),
            body_limit: None,
        }));
    };
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web").with(shape)]));
    world.serve("web", &[echo.address]);
    world.serve("auth", &[refusing.address]);
    let _proxy = TestProxy::with_config(trusting, world);
    assert_eq!(sent(PROXY, port, CLAIMS), "203.0.113.9 https");
    assert_eq!(sent(STRANGER, port, CLAIMS), "127.0.0.3 http");
}
