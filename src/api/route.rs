//! The routing tables of the proxy: one immutable structure for Ingress (and later Gateway API and
//! CiliumEnvoyConfig), swapped in whole.
//!
//! Lookup cost: a host is one or two hash lookups, an exact path is one, a prefix is one per path
//! element of the request; only regular expressions are tried one after the other, per host.
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Generation, Port};
use super::endpoint::ServicePort;
use super::meta::{NamespacedName, ObjectKey, Str};

/// What is spoken on a listener's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerProtocol {
    /// Plain HTTP.
    Http,
    /// TLS: each SNI name is either terminated (then HTTP) or passed through.
    Tls,
}

/// One virtual port of one LoadBalancer Service, and all that is served on it.
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
    /// HTTP or TLS.
    pub protocol: ListenerProtocol,
    /// By host.
    pub hosts: HostTable,
    /// For TLS: by SNI name.
    pub tls: TlsTable,
}

/// Virtual hosts by name (ING-08).
#[derive(Debug, Default, PartialEq)]
pub struct HostTable {
    /// Lower-case names without a port.
    pub exact: HashMap<Box<str>, Rc<VirtualHost>>,
    /// `*.foo.com`, keyed `foo.com`: matches exactly one label more.
    pub wildcard: HashMap<Box<str>, Rc<VirtualHost>>,
    /// Everything else.
    pub any: Option<Rc<VirtualHost>>,
}

/// One host's routes.
#[derive(Debug, Default, PartialEq)]
pub struct VirtualHost {
    /// The host as written, `*` for any.
    pub name: Str,
    /// Whole paths.
    pub exact: HashMap<Box<str>, Rc<Route>>,
    /// Regular expressions on the whole path, the longest pattern first (ING-07).
    pub regex: Vec<(Rc<PathRegex>, Rc<Route>)>,
    /// Prefixes by whole path elements, without the trailing slash; `/` is the empty string.
    pub prefix: HashMap<Box<str>, Rc<Route>>,
    /// The longest prefix's number of elements: the request's path is cut to it before the search.
    pub prefix_depth: usize,
}

/// A regular expression that matches whole paths. Two are equal if their patterns are. Shared, for each
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

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What to do.
    pub action: Action,
    /// The whole request must be answered within this; None: no limit (ING-14).
    pub request_timeout: Option<Duration>,
    /// The rules it was made from, for explanations: object and field path.
    pub origins: Vec<(ObjectKey, String)>,
}

/// The action of a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// To one of the backends, by weight.
    Forward(Vec<Backend>),
    /// 301 to the same host and path with `https`, and this port unless it is 443.
    RedirectHttps(Port),
    /// Answered here with this status code: what it refers to is not there, and it says why.
    Refuse(u16, String),
}

/// A weighted backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The Service port whose endpoints take the requests. It may have none, or not exist: 503.
    pub service: ServicePort,
    /// Its share. 0 gets nothing.
    pub weight: u32,
}

/// Certificates and passthrough targets by SNI name.
#[derive(Debug, Default, PartialEq)]
pub struct TlsTable {
    /// Lower-case names.
    pub exact: HashMap<Box<str>, TlsAction>,
    /// `*.foo.com`, keyed `foo.com`: matches exactly one label more.
    pub wildcard: HashMap<Box<str>, TlsAction>,
    /// For clients that send no SNI name or an unknown one: None refuses the handshake.
    pub default: Option<TlsAction>,
}

/// What is done with a TLS connection.
#[derive(Debug, Clone, PartialEq)]
pub enum TlsAction {
    /// Terminated with this certificate.
    Terminate(Rc<Certificate>),
    /// Handed to a backend as it is.
    Passthrough(Rc<Route>),
    /// The handshake is refused: the name's certificate is not there, and this says why. Neither the
    /// wildcard's nor the default certificate takes its place.
    Refuse(Str),
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
}

/// All listeners; whole state.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Counts the versions.
    pub generation: Generation,
    /// Sorted by Service and port.
    pub listeners: Vec<Rc<Listener>>,
}

/// The listeners with the addresses that LB-IPAM gave their Services; what the proxy looks up when a
/// connection arrives.
#[derive(Debug, Default)]
pub struct ListenerTable {
    /// Counts the versions.
    pub generation: Generation,
    /// By virtual address and port.
    pub by_address: HashMap<(IpAddr, Port), Rc<Listener>>,
    /// All, for `--no-bpf` mode.
    pub all: Vec<Rc<Listener>>,
}

// === impl HostTable ===

impl HostTable {
    /// The virtual host for `host`, which must be lower-case and without a port.
    pub fn find(&self, host: &str) -> Option<&Rc<VirtualHost>> {
        self.exact
            .get(host)
            .or_else(|| host.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))
            .or(self.any.as_ref())
    }
}

// === impl VirtualHost ===

impl VirtualHost {
    /// The route for `path`, which must not contain the query string (ING-06, ING-07): exact, then
    /// regular expression, then the longest prefix.
    pub fn find(&self, path: &str) -> Option<&Rc<Route>> {
        self.find_match(path).map(|(_, route)| route)
    }

    /// As [`VirtualHost::find`], with what matched; for explanations.
    pub fn find_match(&self, path: &str) -> Option<(PathMatch<'_>, &Rc<Route>)> {
        if let Some((key, route)) = self.exact.get_key_value(path) {
            return Some((PathMatch::Exact(key), route));
        }
        if let Some((regex, route)) = self.regex.iter().find(|(r, _)| r.regex.is_match(path)) {
            return Some((PathMatch::Regex(&regex.pattern), route));
        }
        self.find_prefix(path)
    }

    fn find_prefix(&self, path: &str) -> Option<(PathMatch<'_>, &Rc<Route>)> {
        let mut end = nth_element_end(path, self.prefix_depth);
        loop {
            if let Some((key, route)) = self.prefix.get_key_value(&path[..end]) {
                return Some((PathMatch::Prefix(key), route));
            }
            end = path[..end].rfind('/')?;
        }
    }
}

/// Where the first `count` elements of `path` end: `/a/b/c` with 2 gives the length of `/a/b`.
fn nth_element_end(path: &str, count: usize) -> usize {
    path.bytes()
        .enumerate()
        .filter(|&(_, byte)| byte == b'/')
        .nth(count)
        .map_or(path.len(), |(at, _)| at)
}

// === impl TlsTable ===

impl TlsTable {
    /// The action for the SNI name `name` (lower-case), or for a client without one.
    pub fn find(&self, name: Option<&str>) -> Option<&TlsAction> {
        name.and_then(|name| {
            self.exact
                .get(name)
                .or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))
        })
        .or(self.default.as_ref())
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
