//! The attached routes of a Gateway to listeners of the proxy: one for each port and transport. A request is only
//! ever matched against the routes of its most specific listener (listener isolation).
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::GatewayState;
use super::http::{CompiledRoute, Match, PathKey};
use super::listener::{ListenerState, Protocol};
use crate::api::address::Port;
use crate::api::config::Config;
use crate::api::datapath::Transport;
use crate::api::meta::Str;
use crate::api::route::{
    Candidate, Candidates, HostTable, Listener, ListenerProtocol, PathRegex, Route, TlsAction,
    TlsTable, TlsTermination, VirtualHost,
};
use crate::arrange::Arrange;

/// What is attached to one listener; each list has the oldest route first.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// HTTPRoutes and GRPCRoutes by hostname.
    pub(super) hosts: BTreeMap<Str, Vec<Arc<CompiledRoute>>>,
    /// The oldest TLSRoute of each SNI name.
    pub(super) names: BTreeMap<Str, Arc<Route>>,
    /// The oldest TCPRoute or UDPRoute.
    pub(super) forward: Option<Arc<Route>>,
}

/// The listeners of the proxy for a Gateway, sorted by port and transport; `attached` has one entry for each of its
/// listeners.
pub(super) fn build(state: &GatewayState, attached: &[Attached], config: &Config) -> Vec<Listener> {
    let mut ports: BTreeMap<(u16, Transport), Vec<usize>> = BTreeMap::new();
    for (at, listener) in state.listeners.iter().enumerate() {
        if let Some(protocol) = listener.protocol {
            ports.entry((listener.port, protocol.transport())).or_default().push(at);
        }
    }
    ports
        .into_iter()
        .filter_map(|((port, _), all)| {
            let mut listener = Group::new(state, attached, &all)?.build(port);
            if listener.protocol.transport() == Transport::Tcp {
                listener.host_port = config.host_port(listener.port);
                listener.accept_proxy_protocol = state.proxy_protocol.covers(port);
            }
            Some(listener)
        })
        .collect()
}

/// The listeners that share a port.
struct Group<'g> {
    state: &'g GatewayState,
    attached: &'g [Attached],
    protocol: ListenerProtocol,
    /// Each hostname pattern with the listener that has it; one that does not serve if there is no other.
    patterns: HashMap<&'g str, usize>,
    /// One that serves.
    first: usize,
}

// === impl Group ===

impl<'g> Group<'g> {
    fn new(state: &'g GatewayState, attached: &'g [Attached], all: &[usize]) -> Option<Self> {
        let listener = |at: usize| &state.listeners[at];
        let first = *all.iter().find(|&&at| listener(at).serves())?;
        let protocol = served(listener(first).protocol?);
        let mut patterns: HashMap<&str, usize> = HashMap::new();
        for &at in all {
            let this = listener(at);
            if this.protocol.map(served) != Some(protocol) {
                continue;
            }
            let known = patterns.entry(this.pattern()).or_insert(at);
            if this.serves() {
                *known = at;
            }
        }
        Some(Self { state, attached, protocol, patterns, first })
    }

    fn listener(&self, at: usize) -> &'g ListenerState {
        &self.state.listeners[at]
    }

    fn build(&self, port: u16) -> Listener {
        let mut listener = Listener::new(self.state.service.clone(), Port(port), self.protocol);
        match self.protocol {
            ListenerProtocol::Tcp | ListenerProtocol::Udp => {
                listener.forward = self.attached[self.first].forward.clone();
            }
            ListenerProtocol::Http | ListenerProtocol::Tls => {
                for (&pattern, &at) in &self.patterns {
                    self.add(at, pattern, &mut listener.hosts, &mut listener.tls);
                }
            }
        }
        listener
    }

    /// Adds what is served by the listener at `at`, whose hostname is `pattern`.
    fn add(&self, at: usize, pattern: &str, hosts: &mut HostTable, tls: &mut TlsTable) {
        let listener = self.listener(at);
        let is_http = matches!(listener.protocol, Some(Protocol::Http | Protocol::Https));
        if is_http {
            self.add_hosts(at, pattern, hosts);
        }
        if self.protocol != ListenerProtocol::Tls {
            return;
        }
        if !listener.serves() {
            let faults = [&listener.rejected, &listener.conflict, &listener.unresolved];
            let why = faults.into_iter().flatten().next().map_or("", |fault| &*fault.message);
            insert_tls(tls, pattern, TlsAction::Refuse(why.into()));
            return;
        }
        if is_http {
            insert_tls(tls, pattern, self.terminate(at, None));
            return;
        }
        // So that a less specific listener does not get what has no route here.
        insert_tls(tls, pattern, TlsAction::Reset("no TLSRoute is for this name".into()));
        for (name, route) in &self.attached[at].names {
            if self.owner(name) != Some(pattern) {
                continue;
            }
            let action = if listener.passthrough {
                TlsAction::Passthrough(Arc::clone(route))
            } else {
                self.terminate(at, Some(route))
            };
            insert_tls(tls, name, action);
        }
    }

    fn terminate(&self, at: usize, forward: Option<&Arc<Route>>) -> TlsAction {
        let listener = self.listener(at);
        TlsAction::Terminate(Arc::new(TlsTermination {
            certificates: listener.certificates.clone(),
            client_auth: listener.client_auth.clone(),
            forward: forward.map(Arc::clone),
            scope: scope(at),
        }))
    }

    fn add_hosts(&self, at: usize, pattern: &str, hosts: &mut HostTable) {
        let empty = BTreeMap::new();
        let routes = if self.listener(at).serves() { &self.attached[at].hosts } else { &empty };
        let mut names: Vec<&str> =
            routes.keys().map(|name| &**name).filter(|name| *name != pattern).collect();
        names.retain(|name| self.owner(name) == Some(pattern));
        names.push(pattern);
        // The widest first: each falls back to the next wider one.
        names.arrange_by_key(|name| (name.strip_prefix('*').is_none(), name.len()));
        let mut built: HashMap<&str, Arc<VirtualHost>> = HashMap::new();
        for name in names {
            let fallback = wider(name).find_map(|name| built.get(&*name)).map(Arc::clone);
            let all = routes.get(name).map_or(&[][..], Vec::as_slice);
            let mut host = virtual_host(name, all);
            host.fallback = fallback;
            host.scope = scope(at);
            let host = Arc::new(host);
            insert(&mut hosts.exact, &mut hosts.suffix, &mut hosts.any, name, Arc::clone(&host));
            built.insert(name, host);
        }
    }

    /// The pattern of the most specific listener for `name`.
    fn owner(&self, name: &str) -> Option<&'g str> {
        if let Some((pattern, _)) = self.patterns.get_key_value(name) {
            return Some(pattern);
        }
        wider(name)
            .find_map(|name| self.patterns.get_key_value(&*name).map(|(pattern, _)| *pattern))
    }
}

/// The number by which the proxy tells listeners of one port apart.
fn scope(at: usize) -> u32 {
    u32::try_from(at + 1).unwrap_or(u32::MAX)
}

const fn served(protocol: Protocol) -> ListenerProtocol {
    match protocol {
        Protocol::Http => ListenerProtocol::Http,
        Protocol::Https | Protocol::Tls => ListenerProtocol::Tls,
        Protocol::Tcp => ListenerProtocol::Tcp,
        Protocol::Udp => ListenerProtocol::Udp,
    }
}

/// The patterns that match more than `name` does, the most specific first: those of `a.b.com` are `*.b.com`, `*.com`
/// and `*`.
pub(super) fn wider(name: &str) -> impl Iterator<Item = String> {
    let mut rest = (name != "*").then(|| name.strip_prefix("*.").unwrap_or(name));
    std::iter::from_fn(move || {
        let base = rest?;
        rest = base.split_once('.').map(|(_, parent)| parent);
        Some(rest.map_or("*".to_owned(), |parent| format!("*.{parent}")))
    })
}

fn insert<T>(
    exact: &mut HashMap<Box<str>, T>,
    suffix: &mut HashMap<Box<str>, T>,
    any: &mut Option<T>,
    name: &str,
    value: T,
) {
    if name == "*" {
        *any = Some(value);
    } else if let Some(parent) = name.strip_prefix("*.") {
        suffix.insert(parent.into(), value);
    } else {
        exact.insert(name.into(), value);
    }
}

fn insert_tls(table: &mut TlsTable, name: &str, action: TlsAction) {
    insert(&mut table.exact, &mut table.suffix, &mut table.default, name, action);
}

/// The routes for one hostname, the oldest first.
fn virtual_host(name: &str, routes: &[Arc<CompiledRoute>]) -> VirtualHost {
    type Ranked<'m> = Vec<(&'m Match, &'m Arc<Route>)>;
    let mut exact: HashMap<&str, Ranked<'_>> = HashMap::new();
    let mut prefix: HashMap<&str, Ranked<'_>> = HashMap::new();
    type Pattern<'m> = (&'m Arc<PathRegex>, (usize, usize), Ranked<'m>);
    let mut regex: BTreeMap<&str, Pattern<'_>> = BTreeMap::new();
    for rule in routes.iter().flat_map(|route| &route.rules) {
        for wanted in &rule.matches {
            let ranked = match &wanted.path {
                PathKey::Exact(path) => exact.entry(path).or_default(),
                PathKey::Prefix(path) => prefix.entry(path).or_default(),
                PathKey::Regex(pattern, rank) => {
                    let new = || (pattern, *rank, Ranked::new());
                    &mut regex.entry(&pattern.pattern).or_insert_with(new).2
                }
            };
            ranked.push((wanted, &rule.route));
        }
    }
    let depth = |path: &&str| path.bytes().filter(|&byte| byte == b'/').count();
    let prefix_depth = prefix.keys().map(depth).max().unwrap_or(0);
    let keyed = |map: HashMap<&str, Ranked<'_>>| {
        map.into_iter().map(|(path, ranked)| (path.into(), candidates(ranked))).collect()
    };
    // The longest first; the order of the alphabet among equals is that of the map.
    let mut regex: Vec<Pattern<'_>> = regex.into_values().collect();
    regex.arrange_by_key(|(_, rank, _)| std::cmp::Reverse(*rank));
    let regex = regex.into_iter();
    let regex = regex.map(|(regex, _, ranked)| (Arc::clone(regex), candidates(ranked))).collect();
    VirtualHost {
        name: name.into(),
        exact: keyed(exact),
        prefix: keyed(prefix),
        regex,
        prefix_depth,
        ..VirtualHost::default()
    }
}

/// The most specific first, the oldest among equals; what comes after one without conditions is never reached.
fn candidates(mut ranked: Vec<(&Match, &Arc<Route>)>) -> Candidates {
    ranked.arrange_by_key(|(wanted, _)| std::cmp::Reverse(wanted.rank));
    let last = ranked.iter().position(|(wanted, _)| wanted.conditions.is_none());
    ranked.truncate(last.map_or(ranked.len(), |at| at + 1));
    ranked
        .into_iter()
        .map(|(wanted, route)| Candidate {
            conditions: wanted.conditions.clone(),
            route: Arc::clone(route),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_patterns() {
        let all = |name: &str| wider(name).collect::<Vec<_>>();
        assert_eq!(all("a.b.com"), ["*.b.com", "*.com", "*"]);
        assert_eq!(all("*.b.com"), ["*.com", "*"]);
        assert_eq!(all("com"), ["*"]);
        assert_eq!(all("*"), [""; 0]);
    }
}
