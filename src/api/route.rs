//! The routing tables of the proxy: one immutable structure for Ingress, Gateway API and (later) CiliumEnvoyConfig,
//! swapped in whole.
//!
//! Lookup cost: a host is one hash lookup per label, an exact path is one, a prefix is one per path element of the
//! request; only regular expressions, and matches with conditions on the same path, are tried one after the other.
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Generation, Port};
use super::datapath::Transport;
use super::endpoint::ServicePort;
use super::meta::{NamespacedName, ObjectKey, Str};

pub use super::route_filter::{
    Cors, ExternalAuth, Filters, HeaderChange, Mirror, PathRewrite, Redirect, RetryBudget,
    RetryPolicy, Session, SessionKind, UrlRewrite,
};
pub use super::upstream::{
    Authorities, Balance, CircuitBreaker, OutlierDetection, SendProxyProtocol, UpstreamProtocol,
    UpstreamSettings, UpstreamTls,
};

/// What is spoken on a listener's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerProtocol {
    /// Plain HTTP/1.1, and HTTP/2 with prior knowledge.
    Http,
    /// TLS: each SNI name is either terminated (then HTTP or bytes) or passed through.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// One virtual port of one LoadBalancer Service, and all that is served on it. All listeners of a Gateway (and of
/// its ListenerSets) that have the same port and transport are one of these.
#[derive(Debug, PartialEq)]
pub struct Listener {
    /// The Service whose addresses this listener has: `kube-system/PREFIX-ingress` and the like.
    pub service: NamespacedName,
    /// Whether it is the shared one, which takes what arrives at none of the virtual addresses in
    /// `--no-bpf` mode.
    pub shared: bool,
    /// The virtual port.
    pub port: Port,
    /// In `--no-bpf` mode: listen on this port of the node instead (`host-listener-port`, ING-16).
    pub host_port: Option<Port>,
    /// What is spoken.
    pub protocol: ListenerProtocol,
    /// HTTP, also within TLS: by host.
    pub hosts: HostTable,
    /// For TLS: by SNI name.
    pub tls: TlsTable,
    /// For TCP and UDP: where connections and datagram flows go; None closes them.
    pub forward: Option<Arc<Route>>,
    /// Every connection must begin with a PROXY protocol header (v1 or v2).
    pub accept_proxy_protocol: bool,
}

/// Virtual hosts by name.
#[derive(Debug, Default, PartialEq)]
pub struct HostTable {
    /// Lower-case names without a port.
    pub exact: HashMap<Box<str>, Arc<VirtualHost>>,
    /// `*.foo.com`, keyed `foo.com`: matches exactly one label more (Ingress, ING-08).
    pub wildcard: HashMap<Box<str>, Arc<VirtualHost>>,
    /// `*.foo.com`, keyed `foo.com`: matches one or more labels more (Gateway API); the longest wins.
    pub suffix: HashMap<Box<str>, Arc<VirtualHost>>,
    /// Everything else.
    pub any: Option<Arc<VirtualHost>>,
}

/// One host's routes.
#[derive(Debug, Default, PartialEq)]
pub struct VirtualHost {
    /// The host as written, `*` for any.
    pub name: Str,
    /// Whole paths.
    pub exact: HashMap<Box<str>, Candidates>,
    /// Regular expressions on the whole path, in order of precedence (ING-07: the longest pattern first).
    pub regex: Vec<(Arc<PathRegex>, Candidates)>,
    /// Prefixes by whole path elements, without the trailing slash; `/` is the empty string.
    pub prefix: HashMap<Box<str>, Candidates>,
    /// The longest prefix's number of elements: the request's path is cut to it before the search.
    pub prefix_depth: usize,
    /// Asked when nothing here matches: the next less specific host of the same listener (Gateway API lets rules
    /// of `*.foo.com` serve what those of `a.foo.com` do not match).
    pub fallback: Option<Arc<Self>>,
    /// Which listener this host belongs to, among those that share the port. On TLS it must be the one that the SNI
    /// name chose, else the request is misdirected (421). Ingress has one listener a port: 0.
    pub scope: u32,
}

/// Routes with the same path, in order of precedence; the first whose conditions hold is taken.
pub type Candidates = Vec<Candidate>;

/// A route and what must hold besides the path.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// None: nothing.
    pub conditions: Option<Arc<Conditions>>,
    /// The route.
    pub route: Arc<Route>,
}

/// All of them must hold.
#[derive(Debug, Default, PartialEq)]
pub struct Conditions {
    /// The method.
    pub method: Option<Str>,
    /// Headers; names lower-case. Several lines of a name are one value, joined by commas.
    pub headers: Vec<(Str, ValueMatch)>,
    /// Query parameters; the first of a name counts.
    pub query: Vec<(Str, ValueMatch)>,
}

/// How a value is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// It is this.
    Exact(Str),
    /// The expression matches the whole of it.
    Regex(Arc<PathRegex>),
}

/// What a request offers to [`Conditions`]. The proxy implements it over the head in its buffer, `explain` over the
/// words of the command line.
pub trait Request {
    /// The method.
    fn method(&self) -> &str;
    /// Whether the header `name` (lower-case) is there and `test` holds for its value.
    fn header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
    /// Whether the first query parameter `name` is there and `test` holds for its decoded value.
    fn query(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// A regular expression that matches whole paths (or values). Two are equal if their patterns are. Shared, for each
/// clone of a `Regex` has caches of its own.
pub struct PathRegex {
    /// As written.
    pub pattern: Str,
    /// Compiled as `^(?:pattern)$`.
    pub regex: regex_lite::Regex,
}

/// Which of a virtual host's tables a request's path was found in, and under which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMatch<'a> {
    /// The whole path.
    Exact(&'a str),
    /// The pattern of a regular expression.
    Regex(&'a str),
    /// The prefix, without a trailing slash; empty for `/`.
    Prefix(&'a str),
}

/// What happens to a request, a connection or a datagram flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What to do.
    pub action: Action,
    /// What is changed, added, copied or asked on the way.
    pub filters: Filters,
    /// The whole request must be answered within this; None: no limit (ING-14).
    pub request_timeout: Option<Duration>,
    /// Each attempt at an endpoint must be answered within this; None: no limit.
    pub backend_timeout: Option<Duration>,
    /// What is tried again, and how often.
    pub retry: Option<RetryPolicy>,
    /// Requests of one client stay with one endpoint.
    pub session: Option<Session>,
    /// The rules it was made from, for explanations: object and field path.
    pub origins: Vec<(ObjectKey, String)>,
    /// `rules[].name`
    pub name: Option<Str>,
}

/// The action of a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// To one of the backends, by weight.
    Forward(Vec<Backend>),
    /// 301 to the same host and path with `https`, and this port unless it is 443 (ING-11).
    RedirectHttps(Port),
    /// A redirect as a filter asks for it.
    Redirect(Redirect),
    /// Answered here with this status code: what it refers to is not there, and it says why.
    Refuse(u16, String),
}

/// A weighted backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Where it goes.
    pub target: Target,
    /// Its share. 0 gets nothing.
    pub weight: u32,
    /// How endpoints are chosen and talked to.
    pub settings: Arc<UpstreamSettings>,
    /// Filters of this backend alone (header changes, rewrite, mirrors), after those of the route.
    pub filters: Option<Arc<Filters>>,
}

/// Where a backend's share goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The Service port whose endpoints take it. It may have none: 503.
    Service(ServicePort),
    /// What it refers to cannot be used: its share is answered with this status (TCP and UDP: refused), and why.
    Refuse(u16, String),
}

/// Certificates and passthrough targets by SNI name.
#[derive(Debug, Default, PartialEq)]
pub struct TlsTable {
    /// Lower-case names.
    pub exact: HashMap<Box<str>, TlsAction>,
    /// `*.foo.com`, keyed `foo.com`: matches exactly one label more (Ingress).
    pub wildcard: HashMap<Box<str>, TlsAction>,
    /// `*.foo.com`, keyed `foo.com`: matches one or more labels more (Gateway API); the longest wins.
    pub suffix: HashMap<Box<str>, TlsAction>,
    /// For clients that send no SNI name or an unknown one: None refuses the handshake.
    pub default: Option<TlsAction>,
}

/// What is done with a TLS connection.
#[derive(Debug, Clone, PartialEq)]
pub enum TlsAction {
    /// Terminated here.
    Terminate(Arc<TlsTermination>),
    /// Handed to a backend as it is.
    Passthrough(Arc<Route>),
    /// The handshake is refused: the name's certificate is not there, and this says why. Neither the
    /// wildcard's nor the default certificate takes its place.
    Refuse(Str),
    /// The connection is reset, as if nobody listened: no backend is for this name, and this says why.
    Reset(Str),
}

/// How TLS is terminated for one listener.
#[derive(Debug, PartialEq)]
pub struct TlsTermination {
    /// At least one; the one that fits the SNI name and the client's signature algorithms is taken, else the first.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whose certificates clients must show; None: none is asked for.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// Where the decrypted bytes go; None: they are HTTP, looked up in [`Listener::hosts`].
    pub forward: Option<Arc<Route>>,
    /// The listener among those that share the port; see [`VirtualHost::scope`].
    pub scope: u32,
}

/// How clients' certificates are checked.
#[derive(Debug, PartialEq)]
pub struct ClientAuth {
    /// Who must have signed them.
    pub authorities: Arc<Authorities>,
    /// Connections without a (good) certificate go on.
    pub optional: bool,
}

/// A certificate chain with its key, parsed and known to fit together. Two are equal if they come from
/// the same Secret and have the same chain: a key that fits the same leaf is the same key.
pub struct Certificate {
    /// The Secret it comes from.
    pub secret: NamespacedName,
    /// Ready for rustls.
    pub key: Arc<rustls::sign::CertifiedKey>,
    /// `notAfter`, seconds since 1970, if it could be read.
    pub not_after: Option<u64>,
    /// The DNS names it is for, lower-case.
    pub names: Vec<Str>,
}

/// All listeners; whole state.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Counts the versions.
    pub generation: Generation,
    /// Sorted by Service, port and transport.
    pub listeners: Vec<Arc<Listener>>,
}

/// The listeners with the addresses that LB-IPAM gave their Services; what the proxy looks up when a
/// connection arrives.
#[derive(Debug, Default)]
pub struct ListenerTable {
    /// Counts the versions.
    pub generation: Generation,
    /// The [`RouteTable`] it was made from.
    pub routes: Generation,
    /// By virtual address, port and transport.
    pub by_address: HashMap<(IpAddr, Port, Transport), Arc<Listener>>,
    /// All, for `--no-bpf` mode.
    pub all: Vec<Arc<Listener>>,
}

/// What of a route table is in effect, from proxy and hooks; `Programmed` conditions are computed from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The newest [`RouteTable`] that takes new connections, here.
    pub routes: Generation,
    /// Places that are not served, and why: Service, port, transport.
    pub failed: Vec<(NamespacedName, Port, Transport, String)>,
}

// === impl ListenerProtocol ===

impl ListenerProtocol {
    /// What carries it.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tls | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

// === impl Listener ===

impl Listener {
    /// A listener without hosts or names.
    pub fn new(service: NamespacedName, port: Port, protocol: ListenerProtocol) -> Self {
        Self {
            service,
            shared: false,
            port,
            host_port: None,
            protocol,
            hosts: HostTable::default(),
            tls: TlsTable::default(),
            forward: None,
            accept_proxy_protocol: false,
        }
    }
}

// === impl HostTable ===

impl HostTable {
    /// The virtual host for `host`, which must be lower-case and without a port.
    pub fn find(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        by_name(host, &self.exact, &self.wildcard, &self.suffix).or(self.any.as_ref())
    }
}

/// The entry for a name: its own, that of its parent with one label more, or that of its closest ancestor.
fn by_name<'t, T>(
    name: &str,
    exact: &'t HashMap<Box<str>, T>,
    wildcard: &'t HashMap<Box<str>, T>,
    suffix: &'t HashMap<Box<str>, T>,
) -> Option<&'t T> {
    if let Some(found) = exact.get(name) {
        return Some(found);
    }
    let (_, mut parent) = name.split_once('.')?;
    if let Some(found) = wildcard.get(parent) {
        return Some(found);
    }
    if suffix.is_empty() {
        return None;
    }
    loop {
        if let Some(found) = suffix.get(parent) {
            return Some(found);
        }
        parent = parent.split_once('.')?.1;
    }
}

// === impl VirtualHost ===

impl VirtualHost {
    /// The route for `path`, which must not contain the query string (ING-06, ING-07): exact, then
    /// regular expression, then the longest prefix, each only if its conditions hold.
    #[inline]
    pub fn find(&self, path: &str, request: &dyn Request) -> Option<&Arc<Route>> {
        self.find_match(path, request).map(|(_, route)| route)
    }

    /// As [`VirtualHost::find`], with what matched; also for rewrites, which replace the matched prefix.
    pub fn find_match(
        &self,
        path: &str,
        request: &dyn Request,
    ) -> Option<(PathMatch<'_>, &Arc<Route>)> {
        let mut host = self;
        loop {
            if let Some(found) = host.find_here(path, request) {
                return Some(found);
            }
            host = host.fallback.as_deref()?;
        }
    }

    fn find_here(&self, path: &str, request: &dyn Request) -> Option<(PathMatch<'_>, &Arc<Route>)> {
        if let Some((key, candidates)) = self.exact.get_key_value(path)
            && let Some(route) = first(candidates, request)
        {
            return Some((PathMatch::Exact(key), route));
        }
        for (regex, candidates) in &self.regex {
            if regex.regex.is_match(path)
                && let Some(route) = first(candidates, request)
            {
                return Some((PathMatch::Regex(&regex.pattern), route));
            }
        }
        self.find_prefix(path, request)
    }

    fn find_prefix(
        &self,
        path: &str,
        request: &dyn Request,
    ) -> Option<(PathMatch<'_>, &Arc<Route>)> {
        let mut end = nth_element_end(path, self.prefix_depth);
        loop {
            if let Some((key, candidates)) = self.prefix.get_key_value(&path[..end])
                && let Some(route) = first(candidates, request)
            {
                return Some((PathMatch::Prefix(key), route));
            }
            end = path[..end].rfind('/')?;
        }
    }
}

/// The first candidate whose conditions hold.
#[inline]
fn first<'c>(candidates: &'c [Candidate], request: &dyn Request) -> Option<&'c Arc<Route>> {
    let holds = |candidate: &&Candidate| {
        candidate.conditions.as_ref().is_none_or(|conditions| conditions.hold(request))
    };
    candidates.iter().find(holds).map(|candidate| &candidate.route)
}

/// Where the first `count` elements of `path` end: `/a/b/c` with 2 gives the length of `/a/b`.
fn nth_element_end(path: &str, count: usize) -> usize {
    path.bytes()
        .enumerate()
        .filter(|&(_, byte)| byte == b'/')
        .nth(count)
        .map_or(path.len(), |(at, _)| at)
}

// === impl Candidate ===

impl From<Arc<Route>> for Candidate {
    fn from(route: Arc<Route>) -> Self {
        Self { conditions: None, route }
    }
}

// === impl Conditions ===

impl Conditions {
    /// Whether all hold for `request`.
    pub fn hold(&self, request: &dyn Request) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method())
            && self.headers.iter().all(|(name, wanted)| {
                request.header(name, &mut |value| {
                    std::str::from_utf8(value).is_ok_and(|value| wanted.matches(value))
                })
            })
            && self
                .query
                .iter()
                .all(|(name, wanted)| request.query(name, &mut |value| wanted.matches(value)))
    }
}

// === impl ValueMatch ===

impl ValueMatch {
    /// Whether `value` is what is wanted.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *value,
            Self::Regex(regex) => regex.regex.is_match(value),
        }
    }
}

// === impl Route ===

impl Route {
    /// A route that only does this.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            filters: Filters::default(),
            request_timeout: None,
            backend_timeout: None,
            retry: None,
            session: None,
            origins: Vec::new(),
            name: None,
        }
    }
}

// === impl Backend ===

impl Backend {
    /// A Service port with a weight, and nothing special about it.
    pub fn new(service: ServicePort, weight: u32) -> Self {
        Self { target: Target::Service(service), weight, settings: Arc::default(), filters: None }
    }
}

// === impl TlsTable ===

impl TlsTable {
    /// The action for the SNI name `name` (lower-case), or for a client without one.
    pub fn find(&self, name: Option<&str>) -> Option<&TlsAction> {
        name.and_then(|name| by_name(name, &self.exact, &self.wildcard, &self.suffix))
            .or(self.default.as_ref())
    }
}

// === impl TlsTermination ===

impl From<Arc<Certificate>> for TlsTermination {
    fn from(certificate: Arc<Certificate>) -> Self {
        Self { certificates: vec![certificate], client_auth: None, forward: None, scope: 0 }
    }
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathRegex({})", self.pattern)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.secret)
    }
}

// === impl PathRegex ===

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

// === impl Certificate ===

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
            && (Arc::ptr_eq(&self.key, &other.key) || self.key.cert == other.key.cert)
    }
}
