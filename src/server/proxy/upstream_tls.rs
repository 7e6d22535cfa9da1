//! TLS to endpoints: whom to believe that it is the right one.
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::limits::UPSTREAM_SESSIONS;
use super::tls::provider;
use crate::api::route::UpstreamTls;
use crate::proto::x509;

/// The configuration for `tls`; sessions made with it are resumed with it only.
///
/// # Errors
/// rustls', if the settings are of no use.
pub(super) fn client_config(tls: &UpstreamTls) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider();
    let identity = Identity {
        roots: Arc::clone(&tls.authorities.roots),
        names: match &tls.names[..] {
            [] if tls.uris.is_empty() => vec![(*tls.server_name).into()],
            names => names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        },
        uris: tls.uris.iter().map(|uri| (**uri).into()).collect(),
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(identity));
    let mut config = match &tls.client {
        Some(certificate) => {
            builder.with_client_cert_resolver(Arc::new(Ours(Arc::clone(&certificate.key))))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(UPSTREAM_SESSIONS);
    Ok(Arc::new(config))
}

/// Who an endpoint must be.
#[derive(Debug)]
struct Identity {
    roots: Arc<RootCertStore>,
    /// DNS names of which its certificate must have one…
    names: Vec<Box<str>>,
    /// … or one of these URIs.
    uris: Vec<Box<str>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The certificate that is shown to endpoints which ask for one.
#[derive(Debug)]
struct Ours(Arc<CertifiedKey>);

// === impl Identity ===

impl ServerCertVerifier for Identity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let bad = |error| Error::InvalidCertificate(error);
        let info = x509::parse(end_entity).map_err(|_| bad(CertificateError::BadEncoding))?;
        let named = self.names.iter().any(|name| info.covers(name));
        let identified = self.uris.iter().any(|uri| info.uris.iter().any(|it| **it == **uri));
        if named || identified {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(bad(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

// === impl Ours ===

impl ResolvesClientCert for Ours {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
