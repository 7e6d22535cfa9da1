//! The PROXY protocol in both directions, and the client's own address towards endpoints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use pilus::api::route::{
    Action, Backend as To, Listener, ListenerProtocol, Route, SendProxyProtocol, TlsAction,
    UpstreamProtocol, UpstreamSettings, UpstreamTls,
};
use pilus::proto::proxy_protocol::{Ends, Parsed, parse, write_v2};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::backend::{Backend, Peer, WATCHDOG, header};
use support::client::Client;
use support::pki::{Authority, authorities};
use support::{Front, NameSpec, RouteSpec, Shape, TestProxy, World, free_port, service_port};

/// Changes how the backend of a route is talked to.
fn with(settings: UpstreamSettings, route: &mut Route) {
    let Action::Forward(backends) = &mut route.action else { return };
    backends[0].settings = Arc::new(settings);
}

fn sending(version: SendProxyProtocol) -> UpstreamSettings {
    UpstreamSettings { send_proxy_protocol: Some(version), ..UpstreamSettings::default() }
}

fn world(front: Front, endpoint: SocketAddr) -> World {
    let mut world = World { listeners: vec![front], ..World::default() };
    world.serve("web", &[endpoint]);
    world
}

/// Takes the header that a connection begins with.
fn take(peer: &mut Peer) -> Option<Ends> {
    use std::io::BufRead;
    loop {
        let known = peer.stream.buffer().to_vec();
        if let Parsed::Complete(ends, length) = parse(&known).unwrap() {
            peer.stream.consume(length);
            return ends;
        }
        assert!(known.is_empty(), "the header comes in one piece");
        peer.stream.fill_buf().unwrap();
    }
}

#[test]
fn http_listeners_demand_the_header_and_believe_it() {
    let backend = Backend::start(|mut peer| {
        while let Some((head, _)) = peer.request() {
            peer.answer(header(&head, "x-forwarded-for").unwrap());
        }
    });
    let port = free_port();
    let shape: Shape<Listener> = Arc::new(|listener| listener.accept_proxy_protocol = true);
    let front = Front { shape: Some(shape), ..Front::http(port, vec![RouteSpec::all("web")]) };
    let proxy = TestProxy::start(world(front, backend.address));
    let ends =
        Ends { client: "192.0.2.7:99".parse().unwrap(), server: "192.0.2.1:80".parse().unwrap() };
    let mut v2 = Vec::new();
    write_v2(&mut v2, ends);
    for (preface, expected) in [
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 1234 80\r\n".to_vec(), "203.0.113.9"),
        (v2, "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut client = Client::connect(port);
        // In two pieces, and the request with the second one.
        client.send(&preface[..5]);
        client.send([&preface[5..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(client.response().text(), expected);
        assert_eq!(client.get("/").text(), expected, "and so for all requests");
    }
    for bad in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n"] {
        let mut client = Client::connect(port);
        client.send(bad);
        let error = std::io::Read::read(&mut client.stream, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(proxy.stats().connections_without_header, 2);
}

#[test]
fn where_it_is_not_expected_it_is_a_bad_request() {
    let backend = Backend::answering("no");
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn tcp_backends_are_told_of_the_first_client_in_the_row() {
    for version in [SendProxyProtocol::V1, SendProxyProtocol::V2] {
        let backend = Backend::start(|mut peer| {
            let ends = take(&mut peer).unwrap();
            peer.say(&format!("{} {}", ends.client, ends.server.port()));
        });
        let port = free_port();
        let shape: Shape<Listener> = Arc::new(move |listener| {
            listener.protocol = ListenerProtocol::Tcp;
            listener.accept_proxy_protocol = true;
            let to = To::new(service_port("web"), 1);
            let mut route = Route::new(Action::Forward(vec![to]));
            with(sending(version), &mut route);
            listener.forward = Some(Arc::new(route));
        });
        let front = Front { shape: Some(shape), ..Front::http(port, Vec::new()) };
        let _proxy = TestProxy::start(world(front, backend.address));
        let mut client = Client::connect(port);
        client.send("PROXY TCP4 203.0.113.9 192.0.2.1 1234 80\r\n");
        let said = String::from_utf8(client.until_closed()).unwrap();
        assert_eq!(said, format!("203.0.113.9:1234 {port}"));
    }
}

#[test]
fn http_connections_that_name_a_client_are_for_it_alone() {
    let backend = Backend::start(|mut peer| {
        let ends = take(&mut peer).unwrap();
        while peer.request().is_some() {
            peer.answer(&ends.client.to_string());
        }
    });
    let port = free_port();
    let route = RouteSpec {
        shape: Some(Arc::new(|route: &mut Route| with(sending(SendProxyProtocol::V2), route))),
        ..RouteSpec::all("web")
    };
    let proxy = TestProxy::start(world(Front::http(port, vec![route]), backend.address));
    let mut clients = [Client::connect(port), Client::connect(port)];
    for _ in 0..2 {
        for client in &mut clients {
            let own = client.stream.get_ref().local_addr().unwrap().to_string();
            assert_eq!(client.get("/").text(), own);
        }
    }
    assert_eq!((backend.connections(), proxy.stats().upstream_idle), (4, 0));
}

#[test]
fn endpoints_can_see_the_clients_own_address() {
    let backend = Backend::start(|mut peer| {
        let from = peer.stream.get_ref().peer_addr().unwrap().ip().to_string();
        while peer.request().is_some() {
            peer.answer(&from);
        }
    });
    let port = free_port();
    let settings = || UpstreamSettings { transparent: true, ..UpstreamSettings::default() };
    let route = RouteSpec {
        shape: Some(Arc::new(move |route: &mut Route| with(settings(), route))),
        ..RouteSpec::all("web")
    };
    let _proxy = TestProxy::start(world(Front::http(port, vec![route]), backend.address));
    // All of 127.0.0.0/8 is here, so that answers find their way back.
    let socket = std::process::Command::new("curl")
        .args([
            "-s",
            "--interface",
            "127.0.0.9",
            &format!("http://{}:{port}/", Ipv4Addr::LOCALHOST),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&socket.stdout), "127.0.0.9");
}

/// Another proxy that demands the header and terminates TLS, before a backend that says who the client is.
fn secured(authority: &Authority) -> (TestProxy, SocketAddr) {
    let backend = Backend::start(|mut peer| {
        while let Some((head, _)) = peer.request() {
            let told = ["x-envoy-external-address", "x-forwarded-for", "x-forwarded-proto"];
            peer.answer(&told.map(|name| header(&head, name).unwrap_or("-")).join(" "));
        }
    });
    let port = free_port();
    let key = Arc::clone(&authority.issue(&["b.example"]).key);
    let front = Front {
        tls: true,
        names: vec![("b.example".to_owned(), NameSpec::Certificate(key))],
        shape: Some(Arc::new(|listener: &mut Listener| listener.accept_proxy_protocol = true)),
        ..Front::http(port, vec![RouteSpec::all("web")])
    };
    (TestProxy::start(world(front, backend.address)), (Ipv4Addr::LOCALHOST, port).into())
}

#[test]
fn passed_through_tls_is_preceded_by_the_header_and_may_follow_one() {
    let authority = Authority::new("ca");
    let (inner, address) = secured(&authority);
    for version in [SendProxyProtocol::V1, SendProxyProtocol::V2] {
        let port = free_port();
        let shape: Shape<Listener> = Arc::new(move |listener| {
            listener.accept_proxy_protocol = true;
            let to = To::new(service_port("web"), 1);
            let mut route = Route::new(Action::Forward(vec![to]));
            with(sending(version), &mut route);
            let action = TlsAction::Passthrough(Arc::new(route));
            listener.tls.exact.insert("b.example".into(), action);
        });
        let front = Front { tls: true, shape: Some(shape), ..Front::http(port, Vec::new()) };
        let outer = TestProxy::start(world(front, address));
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let mut header = Vec::new();
        let ends = Ends {
            client: "203.0.113.9:1234".parse().unwrap(),
            server: "192.0.2.1:443".parse().unwrap(),
        };
        write_v2(&mut header, ends);
        std::io::Write::write_all(&mut stream, &header).unwrap();
        let name = ServerName::try_from("b.example").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut client = Client { stream: BufReader::new(StreamOwned::new(connection, stream)) };
        for _ in 0..2 {
            assert_eq!(client.get("/").text(), "203.0.113.9 203.0.113.9 https");
        }
        let stats = outer.stats();
        assert_eq!((stats.tunnels, stats.tls_handshakes), (1, 0));
        // Without the header there is no handshake.
        let mut client = Client::connect(port);
        client.send([22, 3, 1, 0, 5, 1, 0, 0, 1, 0, 0, 0, 0]);
        let error = std::io::Read::read(&mut client.stream, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(outer.stats().connections_without_header, 1);
    }
    assert_eq!(inner.stats().connections_without_header, 0);
}

#[test]
fn the_header_comes_before_tls_to_an_endpoint_in_both_versions_of_http() {
    let authority = Authority::new("ca");
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (inner, address) = secured(&authority);
        let port = free_port();
        let trusted = authority.der.clone();
        let shape = move |route: &mut Route| {
            let tls = UpstreamTls {
                server_name: "b.example".into(),
                authorities: authorities(&trusted),
                names: Vec::new(),
                uris: Vec::new(),
                client: None,
            };
            let tls = Some(Arc::new(tls));
            with(UpstreamSettings { protocol, tls, ..sending(SendProxyProtocol::V2) }, route);
        };
        let route = RouteSpec { shape: Some(Arc::new(shape)), ..RouteSpec::all("web") };
        let accept: Shape<Listener> = Arc::new(|listener| listener.accept_proxy_protocol = true);
        let front = Front { shape: Some(accept), ..Front::http(port, vec![route]) };
        let outer = TestProxy::start(world(front, address));
        let mut clients = [7, 8].map(|last| {
            let mut client = Client::connect(port);
            client.send(format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 1234 80\r\n"));
            (last, client)
        });
        for _ in 0..2 {
            for (last, client) in &mut clients {
                // Both proxies add the client, which each has from its own header.
                let own = format!("203.0.113.{last}");
                assert_eq!(client.get("/").text(), format!("{own} {own}, {own} https"));
            }
        }
        assert_eq!(outer.stats().upstream_tls_failures, 0);
        let http2 = inner.stats().http2_connections > 0;
        assert_eq!(http2, protocol == UpstreamProtocol::Http2);
        assert_eq!(outer.stats().upstream_idle, 0, "no other client may have them");
    }
}
