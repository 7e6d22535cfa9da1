//! Clients and endpoints that mean harm, or that are as bad as luck can have it. Named for the attack.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType,
    ProtocolVersion, RootCertStore,
};
use support::backend::Backend;
use support::client::Client;
use support::{Front, NameSpec, RouteSpec, TestProxy, World, certificate, free_port};

#[test]
fn upload_that_is_refused_early_still_hears_the_answer_when_it_reads_only_at_its_end() {
    const BODY: usize = 64 << 20;
    let backend = Backend::start(|mut peer| {
        peer.head().unwrap();
        peer.say(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        );
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..BODY / piece.len() {
        client.stream.get_mut().write_all(&piece).unwrap();
    }
    let response = client.response();
    assert_eq!((response.status(), response.text()), (413, "big"));
    client.until_closed();
}

#[test]
fn body_in_the_answer_to_head_is_nobodys_response() {
    let backend = Backend::start(|mut peer| {
        while let Some((head, _)) = peer.request() {
            if head.starts_with(b"HEAD") {
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n");
                // The body comes when the next request may be on its way already.
                std::thread::sleep(std::time::Duration::from_millis(2));
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON");
            } else {
                peer.answer("good");
            }
        }
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.try_response(true).unwrap().status(), 200);
        assert_eq!(client.get("/").text(), "good");
    }
}

#[test]
fn bytes_after_a_response_are_nobodys_response() {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.say(
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood\
                 HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON",
            );
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(proxy.stats().upstream_idle, 0);
}

/// A TLS 1.3 connection after its handshake, and what encrypts on it, with the next sequence number.
fn raw_tls(port: u16, root: Vec<u8>) -> (TcpStream, Box<dyn MessageEncrypter>, u64) {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    let suite = provider.cipher_suites[0].tls13().unwrap();
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from(root)).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    let name = ServerName::try_from("a.test").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut stream).unwrap();
    }
    let (sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("another suite") };
    (stream, suite.aead_alg.encrypter(key, iv), sequence)
}

#[test]
fn flood_of_empty_tls_records_does_not_stop_the_others() {
    let (key, root) = certificate("a.test");
    let backend = Backend::answering("good");
    let (port, plain) = (free_port(), free_port());
    let mut world = World::simple(port, &[backend.address]);
    world.listeners[0].tls = true;
    world.listeners[0].names = vec![(String::new(), NameSpec::Certificate(key))];
    world.listeners.push(Front::http(plain, vec![RouteSpec::all("web")]));
    let proxy = TestProxy::start(world);
    let (mut stream, mut encrypter, mut sequence) = raw_tls(port, root);
    let mut record = move || {
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(&[]),
        };
        sequence += 1;
        encrypter.encrypt(message, sequence - 1).unwrap().encode()
    };
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let flood = std::thread::spawn(move || {
        // Made beforehand, so that the flood is faster than who has to decrypt it.
        let records: Vec<Vec<u8>> =
            (0..400).map(|_| (0..1000).flat_map(|_| record()).collect()).collect();
        for many in records {
            if ended.load(Ordering::SeqCst) || stream.write_all(&many).is_err() {
                return;
            }
        }
    });
    let mut client = Client::connect(plain);
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "good");
    }
    over.store(true, Ordering::SeqCst);
    flood.join().unwrap();
    assert_eq!(proxy.stats().tls_failures, 0, "empty records are allowed");
}

/// The real agent with nothing to serve; ends when dropped.
struct Agent {
    process: std::process::Child,
    directory: std::path::PathBuf,
    metrics: u16,
}

impl Agent {
    fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("pilus-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("manifests")).unwrap();
        let metrics = free_port();
        let process = Command::new(env!("CARGO_BIN_EXE_pilus"))
            .args(["run", "--no-bpf", "--manifests", "manifests", "--state-dir", "state"])
            .args(["--admin", "unix:admin.sock", "--metrics", &format!("127.0.0.1:{metrics}")])
            .current_dir(&directory)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { process, directory, metrics };
        while !agent.answers() {
            std::thread::yield_now();
        }
        agent
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.join("admin.sock")
    }

    fn answers(&self) -> bool {
        let address = format!("unix:{}", self.socket().display());
        let command = [env!("CARGO_BIN_EXE_pilus"), "status", "--admin", &address];
        let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
        output.status.success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn scrapers_that_take_every_place_and_never_stop_asking_do_not_silence_the_admin_socket() {
    let agent = Agent::start("hostile-admin");
    let over = AtomicBool::new(false);
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, agent.metrics)).unwrap();
    // More than there are places, and they say nothing.
    let silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    assert!(agent.answers(), "metrics have places of their own");
    drop(silent);
    std::thread::scope(|scope| {
        let flood = |mut asks: UnixStream| {
            let mut answers = asks.try_clone().unwrap();
            let over = &over;
            scope.spawn(move || {
                let questions = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
                while !over.load(Ordering::SeqCst) && asks.write_all(&questions).is_ok() {}
                let _ = asks.shutdown(std::net::Shutdown::Both);
            });
            scope.spawn(move || {
                let mut bytes = vec![0; 1 << 20];
                while answers.read(&mut bytes).is_ok_and(|got| got > 0) {}
            });
        };
        flood(UnixStream::connect(agent.socket()).unwrap());
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                drop(TcpStream::connect((Ipv4Addr::LOCALHOST, agent.metrics)));
            }
        });
        let answered = (0..5).all(|_| agent.answers());
        over.store(true, Ordering::SeqCst);
        assert!(answered, "pipelined questions and floods of connections leave turns to others");
    });
}
