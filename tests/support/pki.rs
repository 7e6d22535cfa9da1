//! Certificate authorities and what they issue; and `openssl` as a peer.
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pilus::api::meta::NamespacedName;
use pilus::api::route::{Authorities, Certificate};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub key_pem: String,
    pub key: Arc<CertifiedKey>,
}

/// A directory that goes with the value.
pub struct Scratch(pub PathBuf);

/// `openssl` as a TLS server, until dropped.
pub struct OpensslServer {
    child: Child,
    pub port: u16,
    _files: Scratch,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// A certificate for `names`, DNS names or URIs.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, KeyPair::generate().unwrap())
    }

    pub fn issue_rsa(&self, names: &[&str]) -> Issued {
        let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let made = Command::new("openssl").args(arguments).output().unwrap();
        assert!(made.status.success());
        let pem = String::from_utf8(made.stdout).unwrap();
        self.issue_for(names, KeyPair::from_pem(&pem).unwrap())
    }

    fn issue_for(&self, names: &[&str], key: KeyPair) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names
            .iter()
            .map(|&name| match name.contains("://") {
                true => SanType::URI(name.try_into().unwrap()),
                false => SanType::DnsName(name.try_into().unwrap()),
            })
            .collect();
        params.distinguished_name.push(DnType::CommonName, "someone");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let signing = rustls::crypto::ring::sign::any_supported_type(&secret).unwrap();
        let der = certificate.der().clone();
        Issued {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: Arc::new(CertifiedKey::new(vec![der.clone()], signing)),
            der,
        }
    }

    /// As the tables have it.
    pub fn authorities(&self) -> Arc<Authorities> {
        authorities(&self.der)
    }
}

pub fn authorities(der: &CertificateDer<'static>) -> Arc<Authorities> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    Arc::new(Authorities {
        source: "ConfigMap default/ca".to_owned(),
        certificates: vec![der.clone()],
        roots: Arc::new(roots),
    })
}

impl Issued {
    /// As the tables have it.
    pub fn certificate(&self, names: &[&str]) -> Arc<Certificate> {
        Arc::new(Certificate {
            secret: NamespacedName::new("default", "tls"),
            key: Arc::clone(&self.key),
            not_after: None,
            names: names.iter().map(|&name| name.into()).collect(),
        })
    }
}

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = format!("{}-pki-{}-{number}", env!("CARGO_CRATE_NAME"), std::process::id());
        let path = std::env::temp_dir().join(path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a file; returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl OpensslServer {
    /// `openssl s_server` that answers each request with what it knows of the session.
    pub fn start(issued: &Issued, trusted: Option<&Authority>, more: &[&str]) -> Self {
        let files = Scratch::new();
        let port = super::free_port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-naccept", "64", "-port", &port.to_string()]);
        command.args(["-cert", &files.file("cert.pem", &issued.pem)]);
        command.args(["-key", &files.file("key.pem", &issued.key_pem)]);
        if let Some(authority) = trusted {
            command.args(["-CAfile", &files.file("ca.pem", &authority.pem)]);
        }
        let child = command.args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = child.stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "openssl does not listen");
        }
        // It writes more than anybody wants to read.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self { child, port, _files: files }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
