//! TLS to endpoints: who is believed, what is refused, and that nothing is ever said in the clear instead.
mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use pilus::api::route::{Action, Route, UpstreamProtocol, UpstreamSettings, UpstreamTls};
use support::backend::Backend;
use support::client::Client;
use support::pki::{Authority, Issued, OpensslServer, authorities};
use support::{NameSpec, RouteSpec, TestProxy, World, free_port};

/// How a backend is talked to, in a form that can be sent to the proxy's thread.
#[derive(Clone)]
struct Trust {
    authority: rustls::pki_types::CertificateDer<'static>,
    name: String,
    names: Vec<String>,
    uris: Vec<String>,
    client: Option<Issued>,
    protocol: UpstreamProtocol,
}

impl Trust {
    fn new(authority: &Authority, name: &str) -> Self {
        Self {
            authority: authority.der.clone(),
            name: name.to_owned(),
            names: Vec::new(),
            uris: Vec::new(),
            client: None,
            protocol: UpstreamProtocol::Http1,
        }
    }

    fn settings(&self) -> UpstreamSettings {
        let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        let tls = UpstreamTls {
            server_name: self.name.as_str().into(),
            authorities: authorities(&self.authority),
            names: texts(&self.names),
            uris: texts(&self.uris),
            client: self.client.as_ref().map(|issued| issued.certificate(&[])),
        };
        UpstreamSettings {
            protocol: self.protocol,
            tls: Some(Arc::new(tls)),
            ..UpstreamSettings::default()
        }
    }

    /// A route to `service` with these settings.
    fn route(&self, prefix: &str, service: &str) -> RouteSpec {
        let trust = self.clone();
        let shape = move |route: &mut Route| {
            let Action::Forward(backends) = &mut route.action else { return };
            backends[0].settings = Arc::new(trust.settings());
        };
        RouteSpec { shape: Some(Arc::new(shape)), ..RouteSpec::to("", prefix, service) }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn world(port: u16, endpoint: u16, routes: Vec<RouteSpec>) -> World {
    let mut world = World::simple(port, &[local(endpoint)]);
    world.listeners[0].routes = routes;
    world
}

/// An endpoint with TLS: another proxy, before a backend that answers `inner`.
fn secured(issued: &Issued, name: &str) -> (TestProxy, u16) {
    let backend = Backend::answering("inner");
    let port = free_port();
    let mut world = World::simple(port, &[backend.address]);
    world.listeners[0].tls = true;
    world.listeners[0].names =
        vec![(name.to_owned(), NameSpec::Certificate(Arc::clone(&issued.key)))];
    (TestProxy::start(world), port)
}

#[test]
fn connections_with_tls_are_kept_and_those_without_are_others() {
    let authority = Authority::new("ca");
    let (inner, inner_port) = secured(&authority.issue(&["b.example"]), "b.example");
    let port = free_port();
    let trust = Trust::new(&authority, "b.example");
    let routes = vec![
        trust.route("", "web"),
        Trust { names: vec!["*.example".into(), "b.example".into()], ..trust }
            .route("/other", "web"),
        RouteSpec::to("", "/plain", "web"),
    ];
    let world = world(port, inner_port, routes);
    let proxy = TestProxy::start(world.clone());
    let mut client = Client::connect(port);
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "inner");
        // The same settings, made anew.
        proxy.update(world.clone());
    }
    assert_eq!(inner.stats().tls_handshakes, 1, "one connection for all");
    assert_eq!(client.get("/other").text(), "inner");
    assert_eq!(inner.stats().tls_handshakes, 2, "other settings, another connection");
    assert_ne!(client.get("/plain").status(), 200, "no TLS, no answer");
    assert_eq!(client.get("/").text(), "inner");
    let stats = proxy.stats();
    assert_eq!((stats.upstream_tls_handshakes, stats.upstream_tls_failures), (2, 0));
    assert_eq!(stats.upstream_idle, 2);
}

#[test]
fn whom_to_believe() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let names = ["b.example", "*.wild.example", "spiffe://cluster/ns/web"];
    let (_inner, inner_port) = secured(&authority.issue(&names), "b.example");
    let good = Trust::new(&authority, "b.example");
    let with = |names: &[&str], uris: &[&str]| {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Trust { names: texts(names), uris: texts(uris), ..good.clone() }
    };
    let cases = [
        (good.clone(), true),
        // Signed by somebody else.
        (Trust::new(&other, "b.example"), false),
        // The SNI name is refused by the endpoint, and by us.
        (Trust::new(&authority, "c.example"), false),
        // Only the given names count.
        (with(&["c.example"], &[]), false),
        (with(&["x.wild.example"], &[]), true),
        (with(&["*.wild.example"], &[]), true),
        (with(&["X.Wild.Example"], &[]), true),
        (with(&["y.x.wild.example"], &[]), false),
        (with(&["*.example"], &[]), false),
        (with(&["c.example", "b.example"], &[]), true),
        (with(&[], &["spiffe://cluster/ns/web"]), true),
        (with(&[], &["spiffe://cluster/ns/WEB"]), false),
        (with(&["c.example"], &["spiffe://cluster/ns/web"]), true),
        (with(&["c.example"], &["spiffe://cluster/ns"]), false),
        // No name that SNI could carry.
        (Trust::new(&authority, "not a name"), false),
    ];
    let port = free_port();
    let route = |(i, (trust, _)): (usize, &(Trust, bool))| trust.route(&format!("/{i}"), "web");
    let routes = cases.iter().enumerate().map(route).collect();
    let proxy = TestProxy::start(world(port, inner_port, routes));
    let mut client = Client::connect(port);
    for (i, (trust, believed)) in cases.iter().enumerate() {
        let expected = if *believed { 200 } else { 503 };
        let about = (&trust.name, &trust.names, &trust.uris);
        assert_eq!(client.get(&format!("/{i}")).status(), expected, "{i}: {about:?}");
    }
    let refused = cases.iter().filter(|(_, believed)| !believed).count() as u64;
    assert_eq!(proxy.stats().upstream_tls_failures, refused);
    assert_eq!(proxy.stats().connections_panicked, 0);
}

#[test]
fn an_endpoint_without_tls_is_told_nothing() {
    let authority = Authority::new("ca");
    let (sender, heard) = std::sync::mpsc::channel();
    let backend = Backend::start(move |mut peer| {
        let mut bytes = [0; 3];
        let _ = std::io::Read::read_exact(&mut peer.stream, &mut bytes);
        sender.send(bytes).unwrap();
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let port = free_port();
    let routes = vec![Trust::new(&authority, "b.example").route("", "web")];
    let proxy = TestProxy::start(world(port, backend.address.port(), routes));
    assert_eq!(Client::connect(port).get("/secret").status(), 503);
    assert_eq!(heard.recv().unwrap(), [22, 3, 1], "a TLS handshake");
    assert_eq!(proxy.stats().upstream_tls_failures, 1);
}

#[test]
fn an_endpoint_that_never_finishes_its_handshake_is_given_up() {
    let authority = Authority::new("ca");
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free_port();
    let mut route = Trust::new(&authority, "b.example").route("", "web");
    route.timeout = Some(Duration::from_millis(300));
    let endpoint = silent.local_addr().unwrap().port();
    let _proxy = TestProxy::start(world(port, endpoint, vec![route]));
    assert_eq!(Client::connect(port).get("/").status(), 504);
}

#[test]
fn openssl_sees_our_certificate_and_resumes_our_sessions() {
    let authority = Authority::new("ca");
    let ours = authority.issue(&["proxy.example"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let theirs = authority.issue(&["b.example"]);
        let verify = ["-Verify", "1", "-verify_return_error", version];
        let server = OpensslServer::start(&theirs, Some(&authority), &verify);
        let port = free_port();
        let trust = Trust { client: Some(ours.clone()), ..Trust::new(&authority, "b.example") };
        let routes = vec![
            trust.route("", "web"),
            Trust { client: None, ..trust.clone() }.route("/nobody", "web"),
        ];
        let proxy = TestProxy::start(world(port, server.port, routes));
        let get = |path: &str| {
            let mut client = Client::connect(port);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            client.response()
        };
        let first = get("/");
        assert!(first.text().contains("\nNew, TLSv1."), "{}", first.text());
        assert!(first.text().contains("Subject: CN=someone"), "{}", first.text());
        let second = get("/");
        assert!(second.text().contains("\nReused, TLSv1."), "{}", second.text());
        assert_ne!(get("/nobody").status(), 200, "who shows no certificate is refused");
        assert!(proxy.stats().upstream_tls_handshakes >= 2);
    }
}

#[test]
fn an_endpoint_that_does_not_agree_to_http2_is_refused() {
    let authority = Authority::new("ca");
    let server = OpensslServer::start(&authority.issue(&["b.example"]), None, &[]);
    let port = free_port();
    let trust = Trust::new(&authority, "b.example");
    let routes = vec![
        trust.route("/1", "web"),
        Trust { protocol: UpstreamProtocol::Http2, ..trust }.route("/2", "web"),
    ];
    let proxy = TestProxy::start(world(port, server.port, routes));
    assert_eq!(Client::connect(port).get("/1").status(), 200);
    assert_eq!(Client::connect(port).get("/2").status(), 503);
    assert_eq!(proxy.stats().upstream_tls_failures, 1);
}
