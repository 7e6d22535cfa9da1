//! What a route does to a request on its way: the filters of Gateway API, retries, session persistence. Values have
//! been validated when one of these exists: names and values of headers are legal, and none of them frames a message.
use std::sync::Arc;
use std::time::Duration;

use super::meta::Str;
use super::route::Backend;

/// All filters of a route or backend. The default does nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// Changes to the request's header.
    pub request: HeaderChange,
    /// Changes to the response's header.
    pub response: HeaderChange,
    /// Changes to host and path.
    pub rewrite: UrlRewrite,
    /// Copies sent elsewhere.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin requests.
    pub cors: Option<Arc<Cors>>,
    /// Who is asked whether the request may pass.
    pub auth: Option<Arc<ExternalAuth>>,
}

/// `remove`, then `set` (replaces), then `add` (appends to what is there).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Names to drop.
    pub remove: Vec<Str>,
    /// Lines that replace all of that name.
    pub set: Vec<(Str, Str)>,
    /// Lines added; where the name is there already, its value becomes `old,new`.
    pub add: Vec<(Str, Str)>,
}

/// URLRewrite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlRewrite {
    /// The new host.
    pub host: Option<Str>,
    /// The new path.
    pub path: Option<PathRewrite>,
}

/// A new path; the query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// This one.
    Full(Str),
    /// This in place of the matched prefix, slashes normalised.
    Prefix(Str),
}

/// RequestRedirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`; None: as the request.
    pub scheme: Option<Str>,
    /// None: the request's.
    pub host: Option<Str>,
    /// None: the scheme's well-known one if a scheme is given, else the listener's.
    pub port: Option<u16>,
    /// None: the request's.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// RequestMirror: a copy whose answer is ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where it goes.
    pub backend: Backend,
    /// Which share of requests is copied: numerator and denominator.
    pub fraction: (u32, u32),
}

/// CORS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// Origins as written; `*` is all, `https://*.foo.com` crosses dots, without a port the default one is meant.
    pub origins: Vec<Str>,
    /// `access-control-allow-credentials: true`
    pub credentials: bool,
    /// Methods; `*`: those that are asked for.
    pub methods: Vec<Str>,
    /// Request headers; `*`: those that are asked for.
    pub headers: Vec<Str>,
    /// `access-control-expose-headers`
    pub expose: Vec<Str>,
    /// `access-control-max-age`, seconds.
    pub max_age: u32,
}

/// ExternalAuth: the request waits until this server has allowed it. No answer is a no.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternalAuth {
    /// The server.
    pub backend: Backend,
    /// Envoy's ext_authz over gRPC; else HTTP.
    pub grpc: bool,
    /// Put before the path (HTTP).
    pub path: Str,
    /// Request headers it is sent besides the mandatory ones; lower-case.
    pub allowed_headers: Vec<Str>,
    /// Headers of its answer copied to the request (HTTP); lower-case; empty: all but hop-by-hop and framing ones.
    pub allowed_response_headers: Vec<Str>,
    /// So much of the body is sent, bytes; None: nothing of it.
    pub body_limit: Option<u32>,
}

/// When a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Status codes that are tried again, sorted.
    pub codes: Vec<u16>,
    /// After the first attempt.
    pub attempts: u32,
    /// The least time between two attempts.
    pub backoff: Duration,
    /// Connection errors, resets before an answer and attempts that time out are tried again.
    pub on_failure: bool,
    /// Bounds retries of all requests to a backend.
    pub budget: Option<RetryBudget>,
}

/// XBackendTrafficPolicy's `retryConstraint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries as a share of the requests of the interval.
    pub percent: u32,
    /// The interval.
    pub interval: Duration,
    /// So many in so long are always allowed.
    pub minimum: (u32, Duration),
}

/// Session persistence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The cookie's or header's name.
    pub name: Str,
    /// Cookie or header.
    pub kind: SessionKind,
    /// A session ends after this, whatever happens.
    pub absolute_timeout: Option<Duration>,
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// A cookie that ends with the browser.
    SessionCookie,
    /// A cookie that lasts for `absolute_timeout`.
    PermanentCookie,
    /// A header.
    Header,
}

// === impl Filters ===

impl Filters {
    /// Whether nothing is done.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty()
            && self.response.is_empty()
            && self.rewrite == UrlRewrite::default()
            && self.mirrors.is_empty()
            && self.cors.is_none()
            && self.auth.is_none()
    }
}

// === impl HeaderChange ===

impl HeaderChange {
    /// Whether nothing changes.
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
