//! TLS through the proxy: names, certificates that change, refusals, passthrough.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::backend::{Backend, WATCHDOG};
use support::client::Client;
use support::{Front, NameSpec, RouteSpec, TestProxy, World, certificate, free_port};

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

fn config(
    roots: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.to_vec())).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn connect(port: u16, name: &str, config: &Arc<ClientConfig>) -> TlsClient {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    Client { stream: BufReader::new(StreamOwned::new(connection, stream)) }
}

/// Finishes the handshake, or says why it failed.
fn handshake(client: &mut TlsClient) -> std::io::Result<()> {
    let StreamOwned { conn, sock } = client.stream.get_mut();
    while conn.is_handshaking() {
        conn.complete_io(sock)?;
    }
    Ok(())
}

fn shown_certificate(client: &TlsClient) -> Vec<u8> {
    client.stream.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
}

fn tls_world(
    port: u16,
    endpoints: &[std::net::SocketAddr],
    names: Vec<(String, NameSpec)>,
) -> World {
    let mut world = World::simple(port, endpoints);
    world.listeners[0].tls = true;
    world.listeners[0].names = names;
    world
}

#[test]
fn each_name_gets_its_certificate_and_unknown_ones_are_refused() {
    let backend = Backend::answering("secret");
    let port = free_port();
    let (a, a_der) = certificate("a.example");
    let (b, b_der) = certificate("x.b.example");
    let names = vec![
        ("a.example".to_owned(), NameSpec::Certificate(a)),
        ("*.b.example".to_owned(), NameSpec::Certificate(b)),
    ];
    let proxy = TestProxy::start(tls_world(port, &[backend.address], names));
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let config = config(&[&a_der, &b_der], versions);
        for (name, der) in [("a.example", &a_der), ("x.b.example", &b_der)] {
            let mut client = connect(port, name, &config);
            for _ in 0..3 {
                assert_eq!(client.get("/").text(), "secret");
            }
            assert_eq!(&shown_certificate(&client), der);
            assert_eq!(client.stream.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
        for name in ["b.example", "y.x.b.example", "other.example"] {
            let error = handshake(&mut connect(port, name, &config)).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}: {error}");
        }
    }
    let stats = proxy.stats();
    assert_eq!((stats.tls_handshakes, stats.tls_unknown_names), (4, 6));
    assert_eq!(stats.connections_panicked, 0);
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_not_lost() {
    let backend = Backend::answering("ok");
    let port = free_port();
    let (key, der) = certificate("a.example");
    let names = vec![("a.example".to_owned(), NameSpec::Certificate(key))];
    let _proxy = TestProxy::start(tls_world(port, &[backend.address], names));
    let config = config(&[&der], rustls::ALL_VERSIONS);
    let mut client = connect(port, "a.example", &config);
    let StreamOwned { conn, sock } = client.stream.get_mut();
    conn.write_tls(sock).unwrap();
    while conn.is_handshaking() {
        conn.read_tls(sock).unwrap();
        conn.process_new_packets().unwrap();
    }
    // The client's last handshake message waits; now the request waits behind it.
    conn.writer().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut both = Vec::new();
    while conn.wants_write() {
        conn.write_tls(&mut both).unwrap();
    }
    sock.write_all(&both).unwrap();
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn endpoints_are_told_that_the_client_came_by_https() {
    let backend = Backend::start(|mut peer| {
        let (head, _) = peer.request().unwrap();
        peer.answer(&String::from_utf8(head).unwrap());
    });
    let port = free_port();
    let (key, der) = certificate("a.example");
    let names = vec![(String::new(), NameSpec::Certificate(key))];
    let _proxy = TestProxy::start(tls_world(port, &[backend.address], names));
    let mut client = connect(port, "a.example", &config(&[&der], rustls::ALL_VERSIONS));
    assert!(client.get("/").text().contains("x-forwarded-proto: https\r\n"));
}

#[test]
fn a_new_certificate_is_shown_at_once_and_disturbs_nobody() {
    let backend = Backend::answering("ok");
    let port = free_port();
    let (old, old_der) = certificate("a.example");
    let (new, new_der) = certificate("a.example");
    let world = |key| {
        tls_world(port, &[backend.address], vec![("a.example".into(), NameSpec::Certificate(key))])
    };
    let proxy = TestProxy::start(world(old));
    // A configuration each: a ticket would spare the second one the certificate.
    let trust = || config(&[&old_der, &new_der], rustls::ALL_VERSIONS);
    let mut before = connect(port, "a.example", &trust());
    assert_eq!(before.get("/").text(), "ok");
    proxy.update(world(new));
    let mut after = connect(port, "a.example", &trust());
    assert_eq!(after.get("/").text(), "ok");
    assert_eq!(before.get("/").text(), "ok", "the old connection lives");
    assert_eq!(shown_certificate(&before), old_der);
    assert_eq!(shown_certificate(&after), new_der);
}

#[test]
fn sessions_are_resumed() {
    let backend = Backend::answering("ok");
    let port = free_port();
    let (key, der) = certificate("a.example");
    let names = vec![("a.example".to_owned(), NameSpec::Certificate(key))];
    let _proxy = TestProxy::start(tls_world(port, &[backend.address], names));
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let config = config(&[&der], versions);
        for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let mut client = connect(port, "a.example", &config);
            assert_eq!(client.get("/").text(), "ok");
            assert_eq!(client.stream.get_ref().conn.handshake_kind(), Some(kind));
        }
    }
}

#[test]
fn big_bodies_pass_both_ways_and_leave_no_buffer() {
    const SIZE: usize = 8 << 20;
    let backend = Backend::start(|mut peer| {
        while let Some((_, body)) = peer.request() {
            peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            let _ = peer.stream.get_mut().write_all(&body);
        }
    });
    let port = free_port();
    let (key, der) = certificate("a.example");
    let names = vec![("a.example".to_owned(), NameSpec::Certificate(key))];
    let proxy = TestProxy::start(tls_world(port, &[backend.address], names));
    let mut client = connect(port, "a.example", &config(&[&der], rustls::ALL_VERSIONS));
    let body: Vec<u8> = (0..SIZE).map(|i| (i / 7) as u8).collect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.send(&body);
    let response = client.response();
    assert!(response.whole && response.body == body);
    assert_eq!(client.get("/").status(), 200, "the connection persists");
    assert_eq!(proxy.ask(pilus::io::buffer::lent), 0);
}

#[test]
fn passthrough_shows_the_backends_own_certificate() {
    // The backend is another proxy that terminates TLS.
    let plain = Backend::answering("inner");
    let (inner_port, port) = (free_port(), free_port());
    let (inner, inner_der) = certificate("pass.example");
    let (outer, outer_der) = certificate("term.example");
    let names = vec![("pass.example".to_owned(), NameSpec::Certificate(inner))];
    let _inner = TestProxy::start(tls_world(inner_port, &[plain.address], names));
    let mut world = tls_world(
        port,
        &[plain.address],
        vec![
            ("pass.example".to_owned(), NameSpec::Passthrough("tls".into())),
            ("dead.example".to_owned(), NameSpec::Passthrough("none".into())),
            ("term.example".to_owned(), NameSpec::Certificate(outer)),
        ],
    );
    world.serve("tls", &[(Ipv4Addr::LOCALHOST, inner_port).into()]);
    let proxy = TestProxy::start(world);
    let config = config(&[&inner_der, &outer_der], rustls::ALL_VERSIONS);
    let mut passed = connect(port, "pass.example", &config);
    assert_eq!(passed.get("/").text(), "inner");
    assert_eq!(shown_certificate(&passed), inner_der);
    let mut terminated = connect(port, "term.example", &config);
    assert_eq!(terminated.get("/").text(), "inner");
    assert_eq!(shown_certificate(&terminated), outer_der);
    assert!(handshake(&mut connect(port, "dead.example", &config)).is_err());
    assert_eq!(proxy.stats().tunnels, 1);
}

#[test]
fn one_port_of_the_node_serves_http_and_tls() {
    let backend = Backend::answering("ok");
    let port = free_port();
    let (key, der) = certificate("a.example");
    let mut world =
        tls_world(port, &[backend.address], vec![("a.example".into(), NameSpec::Certificate(key))]);
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web")]));
    let proxy = TestProxy::start(world);
    assert_eq!(proxy.problems(), Vec::<String>::new());
    assert_eq!(Client::connect(port).get("/").text(), "ok");
    let mut client = connect(port, "a.example", &config(&[&der], rustls::ALL_VERSIONS));
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn what_is_no_client_hello_is_answered_with_an_alert() {
    let port = free_port();
    let (key, _) = certificate("a.example");
    let names = vec![("a.example".to_owned(), NameSpec::Certificate(key))];
    let proxy = TestProxy::start(tls_world(port, &[], names));
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x00\x01\x02"]
    {
        let mut client = Client::connect(port);
        client.send(bytes);
        assert_eq!(client.until_closed(), [21, 3, 1, 0, 2, 2, 50]);
    }
    // Gone in the middle of the handshake.
    let mut client = Client::connect(port);
    client.send([22, 3, 1]);
    client.end();
    assert_eq!(client.until_closed(), b"");
    assert_eq!(proxy.stats().tls_failures, 4);
}
