//! gateway.networking.k8s.io routes: HTTPRoute, GRPCRoute, and TLSRoute, TCPRoute, UDPRoute.
use std::time::Duration;

use super::gateway::{ObjectRef, SessionPersistence};
use crate::api::meta::{Meta, Str};

/// One entry of `spec.parentRefs`, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentRef {
    /// `group`, `kind`, `namespace`, `name`
    pub object: ObjectRef,
    /// `sectionName`
    pub section: Option<Str>,
    /// `port`
    pub port: Option<u16>,
}

/// One entry of `backendRefs`, or the reference of a filter (then its weight is 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// `group`, `kind`, `namespace`, `name`
    pub object: ObjectRef,
    /// `port`; a Service needs one.
    pub port: Option<u16>,
    /// `weight`, default 1.
    pub weight: u32,
    /// `filters`
    pub filters: Vec<RouteFilter>,
}

/// HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpRoute {
    /// Metadata.
    pub meta: Meta,
    /// `spec.parentRefs`, in order.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`, lower-case; may begin with `*.`; empty: every host.
    pub hostnames: Vec<Str>,
    /// `spec.rules`, in order.
    pub rules: Vec<HttpRouteRule>,
    /// `spec.useDefaultGateways: All`
    pub default_gateways: bool,
}

/// One entry of an HTTPRoute's `rules`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpRouteRule {
    /// `name`
    pub name: Option<Str>,
    /// `matches`; left out: one that matches every path.
    pub matches: Vec<HttpRouteMatch>,
    /// `filters`, in order.
    pub filters: Vec<RouteFilter>,
    /// `backendRefs`, in order.
    pub backends: Vec<BackendRef>,
    /// `timeouts.request`; zero: none.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest`; zero: none.
    pub backend_timeout: Option<Duration>,
    /// `retry`
    pub retry: Option<RouteRetry>,
    /// `sessionPersistence`
    pub session: Option<SessionPersistence>,
}

/// `retry`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteRetry {
    /// `codes`; empty: connection errors only.
    pub codes: Vec<u16>,
    /// `attempts` after the first; None: 1.
    pub attempts: Option<u32>,
    /// `backoff`: the least time between two.
    pub backoff: Option<Duration>,
}

/// One entry of `matches`; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRouteMatch {
    /// `path`, default PathPrefix `/`.
    pub path: PathMatcher,
    /// `headers`, names lower-case, only the first of several with the same name.
    pub headers: Vec<ValueMatcher>,
    /// `queryParams`, only the first of several with the same name.
    pub query: Vec<ValueMatcher>,
    /// `method`
    pub method: Option<Str>,
}

/// `path` of a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatcher {
    /// The whole path.
    Exact(Str),
    /// Whole path elements; a slash at the end means nothing.
    Prefix(Str),
    /// A regular expression on the whole path; known to compile.
    Regex(Str),
}

/// A header or a query parameter to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatcher {
    /// The name.
    pub name: Str,
    /// The value, or a regular expression on the whole value, known to compile.
    pub value: Str,
    /// Whether `value` is a regular expression.
    pub regex: bool,
}

/// GRPCRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcRoute {
    /// Metadata.
    pub meta: Meta,
    /// `spec.parentRefs`, in order.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`, as of an HTTPRoute.
    pub hostnames: Vec<Str>,
    /// `spec.rules`, in order.
    pub rules: Vec<GrpcRouteRule>,
    /// `spec.useDefaultGateways: All`
    pub default_gateways: bool,
}

/// One entry of a GRPCRoute's `rules`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcRouteRule {
    /// `name`
    pub name: Option<Str>,
    /// `matches`; empty: everything.
    pub matches: Vec<GrpcRouteMatch>,
    /// `filters`, in order.
    pub filters: Vec<RouteFilter>,
    /// `backendRefs`, in order.
    pub backends: Vec<BackendRef>,
    /// `sessionPersistence`
    pub session: Option<SessionPersistence>,
}

/// One entry of a GRPCRoute's `matches`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcRouteMatch {
    /// `method.service`
    pub service: Option<Str>,
    /// `method.method`
    pub method: Option<Str>,
    /// `method.type: RegularExpression`
    pub regex: bool,
    /// `headers`
    pub headers: Vec<ValueMatcher>,
}

/// TLSRoute, TCPRoute or UDPRoute: one rule of backends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct L4Route {
    /// Metadata.
    pub meta: Meta,
    /// `spec.parentRefs`, in order.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames` of a TLSRoute: SNI names.
    pub hostnames: Vec<Str>,
    /// `spec.rules[0].name`
    pub rule_name: Option<Str>,
    /// `spec.rules[0].backendRefs`, in order.
    pub backends: Vec<BackendRef>,
    /// `spec.useDefaultGateways: All`
    pub default_gateways: bool,
}

/// One entry of `filters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFilter {
    /// RequestHeaderModifier
    RequestHeaders(HeaderModifier),
    /// ResponseHeaderModifier
    ResponseHeaders(HeaderModifier),
    /// RequestRedirect
    Redirect(RequestRedirect),
    /// URLRewrite
    Rewrite {
        /// `hostname`
        hostname: Option<Str>,
        /// `path`
        path: Option<PathModifier>,
    },
    /// RequestMirror
    Mirror {
        /// `backendRef`
        backend: BackendRef,
        /// `percent` or `fraction`, as numerator and denominator; all by default.
        fraction: (u32, u32),
    },
    /// CORS
    Cors(CorsFilter),
    /// ExternalAuth
    ExternalAuth(ExternalAuthFilter),
    /// ExtensionRef: nothing of ours; a route with it does not forward.
    Extension(ObjectRef),
    /// A type that this version does not know; a route with it does not forward.
    Unknown(Str),
}

/// `requestHeaderModifier` and `responseHeaderModifier`. Names are as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderModifier {
    /// `set`
    pub set: Vec<(Str, Str)>,
    /// `add`
    pub add: Vec<(Str, Str)>,
    /// `remove`
    pub remove: Vec<Str>,
}

/// `requestRedirect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRedirect {
    /// `scheme`: http or https.
    pub scheme: Option<Str>,
    /// `hostname`
    pub hostname: Option<Str>,
    /// `path`
    pub path: Option<PathModifier>,
    /// `port`
    pub port: Option<u16>,
    /// `statusCode`, default 302.
    pub status: u16,
}

/// `path` of a redirect or rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathModifier {
    /// ReplaceFullPath
    Full(Str),
    /// ReplacePrefixMatch
    Prefix(Str),
}

/// `cors`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CorsFilter {
    /// `allowOrigins`
    pub origins: Vec<Str>,
    /// `allowCredentials`
    pub credentials: bool,
    /// `allowMethods`
    pub methods: Vec<Str>,
    /// `allowHeaders`
    pub headers: Vec<Str>,
    /// `exposeHeaders`
    pub expose: Vec<Str>,
    /// `maxAge`, seconds, default 5.
    pub max_age: u32,
}

/// `externalAuth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuthFilter {
    /// `backendRef`
    pub backend: BackendRef,
    /// `protocol: GRPC` (Envoy's ext_authz); else HTTP.
    pub grpc: bool,
    /// `http.path`: put before the request's path.
    pub path: Str,
    /// `http.allowedHeaders` or `grpc.allowedHeaders`: sent to the server besides the mandatory ones.
    pub allowed_headers: Vec<Str>,
    /// `http.allowedResponseHeaders`: copied from its answer to the request; empty: all.
    pub allowed_response_headers: Vec<Str>,
    /// `forwardBody.maxSize`, bytes; None: the body is not sent.
    pub body_limit: Option<u32>,
}
