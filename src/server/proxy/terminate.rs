//! How TLS from clients is terminated: one configuration of rustls for each way of checking clients, which certificate
//! is shown, and which protocols are offered.
use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use super::limits::CLIENT_AUTH_CONFIGS;
use super::tls::provider;
use crate::api::route::{Certificate, ClientAuth, TlsTermination};
use crate::proto::x509::name_covers;

/// What is spoken within TLS on HTTP listeners, by its ALPN names, the preferred one first.
const HTTP_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

thread_local! {
    /// What the handshake that is going on at this moment is for. rustls wants a resolver that may be shared between
    /// threads; the tables are not.
    static TERMINATION: RefCell<Option<Arc<TlsTermination>>> = const { RefCell::new(None) };
}

/// The configurations. Each has tickets and sessions of its own, so that a session resumed with one was made with it:
/// none gets around the check of another listener, or one that has changed since.
pub(super) struct Terminator {
    /// Without a check of clients; for HTTP, and for bytes.
    open: [Arc<ServerConfig>; 2],
    /// Those with one, the least recently used first.
    checked: RefCell<Vec<Checked>>,
}

struct Checked {
    auth: Arc<ClientAuth>,
    raw: bool,
    config: Arc<ServerConfig>,
}

/// Finds the certificate of the [`TERMINATION`].
#[derive(Debug)]
struct Shown;

/// Believes every client that holds the key of the certificate it shows: what it is worth is the backend's to judge.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

// === impl Terminator ===

impl Terminator {
    /// # Errors
    /// rustls', if the system has no randomness.
    pub(super) fn new() -> Result<Self, Error> {
        let open = |raw| server_config(WebPkiClientVerifier::no_client_auth(), raw);
        Ok(Self { open: [open(false)?, open(true)?], checked: RefCell::default() })
    }

    /// The configuration for a termination.
    ///
    /// # Errors
    /// The clients' authorities are of no use.
    pub(super) fn config(&self, termination: &TlsTermination) -> Result<Arc<ServerConfig>, Error> {
        let raw = termination.forward.is_some();
        let Some(auth) = &termination.client_auth else {
            return Ok(Arc::clone(&self.open[usize::from(raw)]));
        };
        let mut list = self.checked.borrow_mut();
        let same =
            |it: &Checked| it.raw == raw && (Arc::ptr_eq(&it.auth, auth) || it.auth == *auth);
        let found = match list.iter().position(same) {
            Some(index) => list.remove(index),
            None => {
                let verifier = verifier(auth).map_err(|error| Error::General(error.to_string()))?;
                let config = server_config(verifier, raw)?;
                if list.len() == CLIENT_AUTH_CONFIGS {
                    list.remove(0);
                }
                Checked { auth: Arc::clone(auth), raw, config }
            }
        };
        let config = Arc::clone(&found.config);
        // The table's own, which is faster to compare.
        list.push(Checked { auth: Arc::clone(auth), ..found });
        Ok(config)
    }
}

/// Runs a step of a handshake that is for `termination`.
pub(super) fn offering<T>(termination: &Arc<TlsTermination>, step: impl FnOnce() -> T) -> T {
    // Also cleared when rustls panics: by the next handshake that sets it.
    TERMINATION.set(Some(Arc::clone(termination)));
    let outcome = step();
    TERMINATION.set(None);
    outcome
}

/// TLS 1.2 and 1.3, resumption by tickets.
fn server_config(
    verifier: Arc<dyn ClientCertVerifier>,
    raw: bool,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown));
    if !raw {
        config.alpn_protocols = HTTP_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    }
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

fn verifier(auth: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let roots = Arc::clone(&auth.authorities.roots);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if auth.optional {
        return Ok(Arc::new(Lenient(builder.allow_unauthenticated().build()?)));
    }
    builder.build()
}

// === impl Shown ===

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        TERMINATION.with_borrow(|termination| {
            let certificates = &termination.as_ref()?.certificates;
            let name = hello.server_name().map(str::to_ascii_lowercase);
            let best = choose(certificates, name.as_deref(), hello.signature_schemes());
            best.map(|certificate| Arc::clone(&certificate.key))
        })
    }
}

/// The certificate for a client: one that is for the name, whose key it understands, and that costs little; the first
/// of several such.
fn choose<'c>(
    certificates: &'c [Arc<Certificate>],
    name: Option<&str>,
    schemes: &[SignatureScheme],
) -> Option<&'c Arc<Certificate>> {
    if let [only] = certificates {
        return Some(only);
    }
    let rank = |certificate: &&Arc<Certificate>| {
        let key = &certificate.key.key;
        let covers =
            name.is_none_or(|name| certificate.names.iter().any(|it| name_covers(it, name)));
        (!covers, key.choose_scheme(schemes).is_none(), key.algorithm() == SignatureAlgorithm::RSA)
    };
    certificates.iter().min_by_key(rank)
}

// === impl Lenient ===

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.0.verify_client_cert(end_entity, intermediates, now) {
            // Of no use for proving anything.
            Err(error @ Error::InvalidCertificate(CertificateError::BadEncoding)) => Err(error),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
