//! An agent in a directory of its own, and manifests for it.
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use pilus::proto::value::{Value, parse_json};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::backend::WATCHDOG;
use crate::client::{Client, Response};

/// How long to sleep between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Ports below those the kernel gives to connections, so that none is taken by chance.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// A directory with manifests, configuration and state, and the agent that runs on it.
pub(crate) struct Agent {
    pub(crate) folder: PathBuf,
    pub(crate) http: u16,
    pub(crate) https: u16,
    pub(crate) child: Option<Child>,
    /// For the names of files that are not there yet.
    written: Cell<u32>,
}

/// What a command has printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Waits until `ready`; the watchdog is only there so that a broken test ends.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < WATCHDOG, "never happened: {what}");
        std::thread::sleep(LOOK);
    }
}

/// A port nobody listens on.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::SeqCst);
        let port = PORTS.start + (start + step) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

// === impl Agent ===

impl Agent {
    /// The directories and the configuration; nothing runs yet. `name` must be unique among the tests.
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pilus-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("m")).unwrap();
        let (http, https) = (free_port(), free_port());
        let config = format!("ingress: {{mode: shared, http-port: {http}, https-port: {https}}}\n");
        fs::write(folder.join("pilus.yaml"), config).unwrap();
        Self { folder, http, https, child: None, written: Cell::default() }
    }

    /// Starts it and waits for its admin socket.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"));
        let out = fs::File::options().create(true).append(true).open(self.folder.join("out"));
        let child = self.command().stdout(out.unwrap()).stderr(log.unwrap()).spawn().unwrap();
        self.child = Some(child);
        wait_until("the agent answers", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the agent ended with {status}: {}", self.log());
            }
            self.run(&["status"]).code == 0
        });
    }

    /// The command that runs the agent.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilus"));
        // The directory of the manifests is named as it is seen from here: short names in all messages.
        command.current_dir(&self.folder).args(["run", "--no-bpf", "--node", "n1"]);
        command.args(["--metrics", "", "--config", "pilus.yaml", "--manifests", "m"]);
        command.args(["--state-dir", "state", "--admin"]).arg(self.admin());
        command
    }

    pub(crate) fn admin(&self) -> String {
        format!("unix:{}", self.folder.join("admin.sock").display())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.join("m")
    }

    /// Writes a manifest as editors do: beside it, then renamed.
    pub(crate) fn write(&self, file: &str, text: &str) {
        self.written.set(self.written.get() + 1);
        let beside = self.manifests().join(format!(".new-{}", self.written.get()));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.manifests().join(file)).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// Runs a command of the program beside the agent.
    pub(crate) fn run(&self, words: &[&str]) -> Printed {
        let output = Command::new(env!("CARGO_BIN_EXE_pilus"))
            .current_dir(&self.folder)
            .env("PILUS_ADMIN", self.admin())
            .args(words)
            .output()
            .unwrap();
        Printed {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What a command prints that must succeed.
    pub(crate) fn good(&self, words: &[&str]) -> String {
        let printed = self.run(words);
        assert_eq!((printed.code, &*printed.err), (0, ""), "{words:?}: {printed:?}");
        printed.out
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words = [words, &["-o", "json"]].concat();
        parse_json(&self.good(&words)).unwrap()
    }

    /// Everything `pilus status` complains about, in its order, without "since when".
    pub(crate) fn problems(&self) -> Vec<String> {
        let status = self.json(&["status"]);
        let problems = status.get("problems").unwrap().items();
        problems.iter().map(|it| it.get("text").unwrap().as_str().unwrap().to_owned()).collect()
    }

    /// Waits until exactly these are the complaints.
    pub(crate) fn expect_problems(&self, wanted: &[String]) {
        let begun = Instant::now();
        let mut seen = self.problems();
        while seen != wanted {
            assert!(begun.elapsed() < WATCHDOG, "problems:\n{seen:#?}\nwanted:\n{wanted:#?}");
            std::thread::sleep(LOOK);
            seen = self.problems();
        }
    }

    /// One request on a connection of its own; None if it is not answered.
    pub(crate) fn try_get(&self, host: &str, path: &str) -> Option<Response> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).ok()?;
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        get(&mut Client { stream: std::io::BufReader::new(stream) }, host, path)
    }

    pub(crate) fn get(&self, host: &str, path: &str) -> Response {
        self.try_get(host, path).expect("an answer")
    }

    /// Waits until requests for this host and path are answered with this status.
    pub(crate) fn await_status(&self, host: &str, path: &str, status: u16) {
        wait_until(&format!("{host}{path} gets {status}"), || {
            self.try_get(host, path).is_some_and(|response| response.status() == status)
        });
    }

    /// The certificate shown for a server name, or why the handshake failed.
    pub(crate) fn certificate(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut tls = TlsClient::connect(self.https, name, &trusting_all())?;
        tls.handshake()?;
        Ok(tls.shown())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Adds to the configuration; before the start.
    pub(crate) fn configure(&self, text: &str) {
        let path = self.folder.join("pilus.yaml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + text).unwrap();
    }

    /// What it has written to standard output.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    /// The exit code, once it ends.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let mut code = None;
        wait_until("the agent ends", || match child.try_wait().unwrap() {
            Some(status) => {
                code = Some(status.code());
                true
            }
            None => false,
        });
        code.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the agent\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One request; None if the connection ends before its answer is whole.
pub(crate) fn get<S: std::io::Read + std::io::Write>(
    client: &mut Client<S>,
    host: &str,
    path: &str,
) -> Option<Response> {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.try_response(false).filter(|response| response.whole)
}

/// A TLS connection that takes any certificate and remembers it.
pub(crate) struct TlsClient {
    pub(crate) client: Client<StreamOwned<ClientConnection, TcpStream>>,
}

/// Takes every certificate: what is shown is the test's concern.
#[derive(Debug)]
struct Anything;

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A client without memory of earlier sessions that takes every certificate.
pub(crate) fn trusting_all() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let anything = Arc::new(Anything);
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(anything).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

impl TlsClient {
    pub(crate) fn connect(
        port: u16,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> Result<Self, String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let stream = StreamOwned::new(connection, stream);
        Ok(Self { client: Client { stream: std::io::BufReader::new(stream) } })
    }

    pub(crate) fn handshake(&mut self) -> Result<(), String> {
        let StreamOwned { conn, sock } = self.client.stream.get_mut();
        while conn.is_handshaking() {
            conn.complete_io(sock).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The certificate the server has shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        self.client.stream.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
    }
}

/// A certificate and its key, both in PEM, and the certificate in DER.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

pub(crate) fn pair(name: &str) -> Pair {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let der = made.cert.der().to_vec();
    Pair { certificate: made.cert.pem(), key: made.signing_key.serialize_pem(), der }
}

/// A TLS Secret with these texts.
pub(crate) fn secret(name: &str, certificate: &str, key: &str) -> String {
    let indented = |text: &str| text.trim_end().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\n\
         stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(certificate),
        indented(key)
    )
}

/// A Service of one Pod at this address; its port is 80 and named `http`.
pub(crate) fn service(name: &str, endpoint: SocketAddr) -> String {
    let (ip, port) = (endpoint.ip(), endpoint.port());
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{containers: [{{name: {name}, ports: [{{containerPort: {port}}}]}}]}}\n\
         status: {{podIP: {ip}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n---\n"
    )
}

pub(crate) const CLASS: &str = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\n\
    metadata: {name: pilus}\nspec: {controller: pilus.dev/ingress-controller}\n---\n";

pub(crate) const POOL: &str = "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\n\
    metadata: {name: pool}\nspec: {blocks: [{start: 192.0.2.1, stop: 192.0.2.200}]}\n---\n";

/// An Ingress of one host, `path service` each a prefix, without TLS if `secret` is empty.
pub(crate) fn ingress(name: &str, host: &str, paths: &[(&str, &str)], secret: &str) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n\
         spec:\n  ingressClassName: pilus\n"
    );
    if !secret.is_empty() {
        let _ = writeln!(text, "  tls:\n  - hosts: [{host}]\n    secretName: {secret}");
    }
    let _ = write!(text, "  rules:\n  - host: {host}\n    http:\n      paths:\n");
    for (path, service) in paths {
        let _ = write!(
            text,
            "      - path: {path}\n        pathType: Prefix\n        backend:\n          service:\n            \
             name: {service}\n            port:\n              number: 80\n"
        );
    }
    text
}
