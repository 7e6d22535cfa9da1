//! How the endpoints of a backend are chosen and talked to.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::meta::Str;
use super::route::Certificate;

/// Settings of a backend; the default is plain HTTP/1.1, round robin, no limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamSettings {
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// TLS to it (BackendTLSPolicy).
    pub tls: Option<Arc<UpstreamTls>>,
    /// Which endpoint is next.
    pub balance: Balance,
    /// New endpoints get their full share only after this; zero: at once.
    pub slow_start: Duration,
    /// Endpoints that fail are left out for a while.
    pub outlier: Option<OutlierDetection>,
    /// Bounds on what is in flight.
    pub breaker: CircuitBreaker,
    /// Connections begin with a PROXY protocol header.
    pub send_proxy_protocol: Option<SendProxyProtocol>,
    /// Connections to it have the client's address as their source (needs routing back through this node).
    pub transparent: bool,
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1; with TLS, HTTP/2 is not offered.
    #[default]
    Http1,
    /// HTTP/2: by prior knowledge without TLS (`kubernetes.io/h2c`, gRPC), by ALPN with TLS.
    Http2,
}

/// Which endpoint is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one of two random ones with fewer requests in flight.
    LeastRequest,
    /// Any.
    Random,
    /// Consistent, by the client's address (Maglev's table).
    SourceAddress,
}

/// Which PROXY protocol is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Outlier detection, as Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// So many failures in a row (5xx, connection errors) and the endpoint is left out.
    pub consecutive: u32,
    /// For how long, times how often it was.
    pub base_ejection: Duration,
    /// At most this share of the endpoints is left out, percent.
    pub max_percent: u32,
}

/// Bounds of one backend; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CircuitBreaker {
    /// Connections in use.
    pub max_connections: u32,
    /// Requests in flight.
    pub max_requests: u32,
}

/// TLS to a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// The SNI name.
    pub server_name: Str,
    /// Who must have signed its certificate.
    pub authorities: Arc<Authorities>,
    /// Names of which one must be in the certificate; empty: `server_name`.
    pub names: Vec<Str>,
    /// URIs of which one may be in the certificate instead.
    pub uris: Vec<Str>,
    /// Our own certificate.
    pub client: Option<Arc<Certificate>>,
}

/// CA certificates, parsed. Two are equal if they have the same certificates.
pub struct Authorities {
    /// Where they come from, for messages.
    pub source: String,
    /// The certificates in DER.
    pub certificates: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// Ready for rustls.
    pub roots: Arc<rustls::RootCertStore>,
}

// === impl Authorities ===

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.source)
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}
