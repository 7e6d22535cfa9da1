//! TLS of clients beyond names: which certificate is shown, who must show one, what resumption may skip, and bytes
//! within TLS.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pilus::api::route::{
    Action, Backend as To, ClientAuth, Listener, Route, TlsAction, TlsTermination,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use support::backend::{Backend, WATCHDOG};
use support::client::Client;
use support::pki::{Authority, Issued, authorities};
use support::{Front, RouteSpec, Shape, TestProxy, World, free_port, service_port};

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// How a name is terminated, in a form that can be sent to the proxy's thread.
#[derive(Clone)]
struct Name {
    name: &'static str,
    certificates: Vec<(Issued, Vec<&'static str>)>,
    /// Whose certificates clients must show, and whether they really must.
    clients: Option<(CertificateDer<'static>, bool)>,
    /// The Service that gets the bytes.
    forward: Option<&'static str>,
}

impl Name {
    fn new(name: &'static str, issued: &Issued) -> Self {
        let certificates = vec![(issued.clone(), vec![name])];
        Self { name, certificates, clients: None, forward: None }
    }

    fn checking(self, authority: &Authority, optional: bool) -> Self {
        Self { clients: Some((authority.der.clone(), optional)), ..self }
    }

    fn build(&self) -> TlsAction {
        let auth = |(authority, optional): &(CertificateDer<'static>, bool)| {
            Arc::new(ClientAuth { authorities: authorities(authority), optional: *optional })
        };
        let route = |name: &&str| {
            Arc::new(Route::new(Action::Forward(vec![To::new(service_port(name), 1)])))
        };
        let certificates = self.certificates.iter();
        TlsAction::Terminate(Arc::new(TlsTermination {
            certificates: certificates.map(|(issued, names)| issued.certificate(names)).collect(),
            client_auth: self.clients.as_ref().map(auth),
            forward: self.forward.as_ref().map(route),
            scope: 0,
        }))
    }
}

fn world(port: u16, backend: &Backend, names: Vec<Name>) -> World {
    let shape: Shape<Listener> = Arc::new(move |listener| {
        for name in &names {
            listener.tls.exact.insert(name.name.into(), name.build());
        }
    });
    let front =
        Front { tls: true, shape: Some(shape), ..Front::http(port, vec![RouteSpec::all("web")]) };
    let mut world = World { listeners: vec![front], ..World::default() };
    world.serve("web", &[backend.address]);
    world
}

fn config(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    ours: Option<&Issued>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let key = |issued: &Issued| {
        let key = rcgen::KeyPair::from_pem(&issued.key_pem).unwrap();
        PrivateKeyDer::try_from(key.serialize_der()).unwrap()
    };
    Arc::new(match ours {
        Some(issued) => {
            builder.with_client_auth_cert(vec![issued.der.clone()], key(issued)).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

fn connect(port: u16, name: &str, config: &Arc<ClientConfig>) -> TlsClient {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    Client { stream: BufReader::new(StreamOwned::new(connection, stream)) }
}

/// A request on a new connection: whether the session was resumed, and the answer, if there is one.
fn ask(
    port: u16,
    name: &str,
    config: &Arc<ClientConfig>,
) -> (Option<HandshakeKind>, Option<String>) {
    let mut client = connect(port, name, config);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.try_response(false).map(|response| response.text().to_owned());
    (client.stream.get_ref().conn.handshake_kind(), answer)
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn clients_must_show_a_certificate_where_it_is_asked_for() {
    let (servers, good, bad) = (Authority::new("s"), Authority::new("g"), Authority::new("b"));
    let backend = Backend::answering("in");
    let port = free_port();
    let issued = servers.issue(&["must.example", "may.example", "open.example"]);
    let proxy = TestProxy::start(world(
        port,
        &backend,
        vec![
            Name::new("must.example", &issued).checking(&good, false),
            Name::new("may.example", &issued).checking(&good, true),
            Name::new("open.example", &issued),
        ],
    ));
    let (ours, strangers) = (good.issue(&["me"]), bad.issue(&["me"]));
    for version in VERSIONS {
        for (name, certificate, enters) in [
            ("must.example", Some(&ours), true),
            ("must.example", Some(&strangers), false),
            ("must.example", None, false),
            ("may.example", Some(&ours), true),
            ("may.example", Some(&strangers), true),
            ("may.example", None, true),
            ("open.example", None, true),
        ] {
            let config = config(&servers, version, certificate);
            let (_, answer) = ask(port, name, &config);
            assert_eq!(answer.is_some(), enters, "{name} {version:?} {}", certificate.is_some());
        }
    }
    assert_eq!(proxy.stats().tls_failures, 4);
}

#[test]
fn a_session_gets_around_no_check() {
    let (servers, first, second) = (Authority::new("s"), Authority::new("1"), Authority::new("2"));
    let backend = Backend::answering("in");
    let issued = servers.issue(&["a.example"]);
    let names = |authority: Option<&Authority>| {
        let name = Name::new("a.example", &issued);
        vec![match authority {
            Some(authority) => name.checking(authority, false),
            None => name,
        }]
    };
    for version in VERSIONS {
        let port = free_port();
        let proxy = TestProxy::start(world(port, &backend, names(None)));
        let nobody = config(&servers, version, None);
        let full = Some(HandshakeKind::Full);
        let resumed = Some(HandshakeKind::Resumed);
        let enters = |kind| (kind, Some("in".to_owned()));
        assert_eq!(ask(port, "a.example", &nobody), enters(full));
        assert_eq!(ask(port, "a.example", &nobody), enters(resumed));
        // The same name is checked from now on: the ticket is worth nothing.
        proxy.update(world(port, &backend, names(Some(&first))));
        assert_eq!(ask(port, "a.example", &nobody).1, None);
        let ours = first.issue(&["me"]);
        let known = config(&servers, version, Some(&ours));
        assert_eq!(ask(port, "a.example", &known), enters(full));
        assert_eq!(ask(port, "a.example", &known), enters(resumed));
        // The same settings, made anew.
        proxy.update(world(port, &backend, names(Some(&first))));
        assert_eq!(ask(port, "a.example", &known), enters(resumed));
        // Another authority: who was checked by the first one is checked again, and does not pass.
        proxy.update(world(port, &backend, names(Some(&second))));
        assert_eq!(ask(port, "a.example", &known).1, None);
    }
}

#[test]
fn the_certificate_fits_the_name_and_the_client() {
    let authority = Authority::new("s");
    let (ecdsa, rsa) = (authority.issue(&["a.example"]), authority.issue_rsa(&["a.example"]));
    let other = authority.issue(&["*.b.example"]);
    let backend = Backend::answering("in");
    let port = free_port();
    let all = vec![
        (rsa.clone(), vec!["a.example"]),
        (ecdsa.clone(), vec!["a.example"]),
        (other.clone(), vec!["*.b.example"]),
    ];
    let names = ["a.example", "x.b.example"];
    let names = names.map(|name| Name { certificates: all.clone(), ..Name::new(name, &rsa) });
    let _proxy = TestProxy::start(world(port, &backend, names.to_vec()));
    let shown = |name: &str, algorithms: &str| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name])
            .args(["-sigalgs", algorithms])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pem =
            |issued: &Issued| text.contains(&issued.pem.replace("\r\n", "\n").trim().to_owned());
        [("ecdsa", &ecdsa), ("rsa", &rsa), ("other", &other)]
            .into_iter()
            .find_map(|(name, issued)| pem(issued).then_some(name))
    };
    assert_eq!(shown("a.example", "ECDSA+SHA256:RSA-PSS+SHA256"), Some("ecdsa"));
    assert_eq!(shown("a.example", "RSA-PSS+SHA256"), Some("rsa"));
    assert_eq!(shown("x.b.example", "ECDSA+SHA256:RSA-PSS+SHA256"), Some("other"));
    assert_eq!(shown("c.example", "ECDSA+SHA256"), None);
}

#[test]
fn bytes_within_tls_go_to_a_backend() {
    let authority = Authority::new("s");
    let issued = authority.issue(&["a.example"]);
    let backend = Backend::start(|mut peer| {
        peer.say("hello ");
        let said = peer.rest();
        peer.say(&String::from_utf8(said).unwrap());
    });
    let port = free_port();
    let names = vec![
        Name { forward: Some("web"), ..Name::new("a.example", &issued) },
        Name { forward: Some("none"), ..Name::new("none.example", &issued) },
    ];
    let _proxy = TestProxy::start(world(port, &backend, names));
    for version in VERSIONS {
        let mut config = ClientConfig::clone(&config(&authority, version, None));
        // What it speaks is nothing that HTTP listeners know.
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        let mut client = connect(port, "a.example", &Arc::new(config));
        let StreamOwned { conn, sock } = client.stream.get_mut();
        conn.writer().write_all(b"world").unwrap();
        conn.complete_io(sock).unwrap();
        conn.send_close_notify();
        conn.write_tls(sock).unwrap();
        sock.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        client.stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
    }
}
