//! The listeners of a Gateway and of its ListenerSets as one list: which are valid, and which conflict.
use std::cmp::Reverse;
use std::sync::Arc;

use super::reference::{admits, is};
use super::status::Fault;
use crate::api::class::GATEWAY_GROUP;
use crate::api::datapath::Transport;
use crate::api::meta::{Kind, Meta, Str};
use crate::api::object::gateway::{Gateway, GatewayListener, ListenerSet};
use crate::api::objects::Objects;
use crate::api::route::{Certificate, ClientAuth};
use crate::arrange::Arrange;

/// The most listeners of a Gateway with all its ListenerSets: a Gateway alone can have 64, and conflicts are looked for
/// between all of a port.
const MAX_LISTENERS: usize = 1024;

/// `protocol` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Https,
    Tls,
    Tcp,
    Udp,
}

/// One listener of a Gateway or of a ListenerSet that is attached to it.
#[derive(Debug)]
pub(super) struct ListenerState {
    /// The place of its ListenerSet among those of the Gateway; None: it is the Gateway's own.
    pub(super) set: Option<usize>,
    /// Its place in `spec.listeners`.
    pub(super) index: usize,
    pub(super) name: Str,
    pub(super) port: u16,
    pub(super) hostname: Option<Str>,
    /// None: not supported.
    pub(super) protocol: Option<Protocol>,
    /// TLS is passed through.
    pub(super) passthrough: bool,
    /// The kinds of routes that may attach.
    pub(super) kinds: Vec<Kind>,
    /// Why it is not accepted, besides conflicts.
    pub(super) rejected: Option<Fault>,
    /// With what it conflicts.
    pub(super) conflict: Option<Fault>,
    /// What it refers to and is not there or not permitted.
    pub(super) unresolved: Option<Fault>,
    /// That leaves nothing to serve with.
    pub(super) broken: bool,
    pub(super) certificates: Vec<Arc<Certificate>>,
    pub(super) client_auth: Option<Arc<ClientAuth>>,
    /// How many accepted routes are attached.
    pub(super) attached: u32,
}

/// A ListenerSet whose parent is a Gateway of ours.
#[derive(Debug)]
pub(super) struct SetState {
    pub(super) set: Arc<ListenerSet>,
    /// Whether the Gateway lets it attach.
    pub(super) allowed: bool,
}

// === impl Protocol ===

impl Protocol {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "TCP" => Self::Tcp,
            "UDP" => Self::Udp,
            _ => return None,
        })
    }

    pub(super) const fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// Lower-case, for names of ports.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Http | Self::Https => &[Kind::HttpRoute, Kind::GrpcRoute],
            Self::Tls => &[Kind::TlsRoute],
            Self::Tcp => &[Kind::TcpRoute],
            Self::Udp => &[Kind::UdpRoute],
        }
    }

    /// Whether listeners of both can share a port, told apart by their hostnames.
    const fn shares_port(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Http, Self::Http) | (Self::Https | Self::Tls, Self::Https | Self::Tls)
        )
    }
}

// === impl ListenerState ===

impl ListenerState {
    fn new(set: Option<usize>, index: usize, spec: &GatewayListener) -> Self {
        let protocol = Protocol::parse(&spec.protocol);
        let rejected = protocol.is_none().then(|| {
            let message = format!(
                "protocol {} is not supported (HTTP, HTTPS, TLS, TCP and UDP are)",
                spec.protocol
            );
            Fault::new("UnsupportedProtocol", message)
        });
        let (kinds, unresolved) = kinds(protocol, spec);
        Self {
            set,
            index,
            name: Str::clone(&spec.name),
            port: spec.port,
            hostname: spec.hostname.clone(),
            protocol,
            passthrough: spec.tls.as_ref().is_some_and(|tls| tls.passthrough),
            broken: kinds.is_empty(),
            kinds,
            rejected,
            conflict: None,
            unresolved,
            certificates: Vec::new(),
            client_auth: None,
            attached: 0,
        }
    }

    /// Whether connections are served.
    pub(super) const fn serves(&self) -> bool {
        self.is_accepted() && !self.broken
    }

    /// Whether its Accepted condition is True.
    pub(super) const fn is_accepted(&self) -> bool {
        self.rejected.is_none() && self.conflict.is_none()
    }

    /// Its hostname as a pattern.
    pub(super) fn pattern(&self) -> &str {
        self.hostname.as_deref().unwrap_or("*")
    }

    /// Notes what cannot be resolved; the first remark stays.
    pub(super) fn unresolved(&mut self, fault: Fault) {
        self.unresolved.get_or_insert(fault);
    }

    /// The object that it is written in.
    pub(super) fn owner<'a>(
        &self,
        gateway: &'a Gateway,
        sets: &'a [SetState],
    ) -> (Kind, &'a Meta, &'a GatewayListener) {
        match self.set {
            None => (Kind::Gateway, &gateway.meta, &gateway.listeners[self.index]),
            Some(at) => {
                let set = &sets[at].set;
                (Kind::ListenerSet, &set.meta, &set.listeners[self.index])
            }
        }
    }
}

/// The kinds of routes that a listener takes, and what is wrong with those it names.
fn kinds(protocol: Option<Protocol>, spec: &GatewayListener) -> (Vec<Kind>, Option<Fault>) {
    let Some(protocol) = protocol else { return (Vec::new(), None) };
    let possible = protocol.kinds();
    if spec.allowed_kinds.is_empty() {
        return (possible.to_vec(), None);
    }
    let mut kinds = Vec::new();
    let mut wrong = Vec::new();
    for (group, name) in &spec.allowed_kinds {
        let same = |kind: &&Kind| **group == *GATEWAY_GROUP && *kind.as_str() == **name;
        match possible.iter().find(same) {
            Some(kind) if !kinds.contains(kind) => kinds.push(*kind),
            Some(_) => {}
            None => wrong.push(format!("{name}.{group}")),
        }
    }
    let fault = (!wrong.is_empty()).then(|| {
        let message = format!(
            "allowedRoutes.kinds: {} cannot attach to a listener of protocol {}",
            wrong.join(", "),
            spec.protocol
        );
        Fault::new("InvalidRouteKinds", message)
    });
    (kinds, fault)
}

/// The ListenerSets in `candidates`, whose parent is `gateway`, in order of precedence: the oldest first.
pub(super) fn sets(
    objects: &Objects,
    gateway: &Gateway,
    candidates: &[Arc<ListenerSet>],
) -> Vec<SetState> {
    let own = &gateway.meta.name.namespace;
    let mut sets: Vec<SetState> = candidates
        .iter()
        .map(|set| SetState {
            set: Arc::clone(set),
            allowed: admits(objects, &gateway.allowed_listeners, own, &set.meta.name.namespace),
        })
        .collect();
    sets.arrange_by(|a, b| age(&a.set.meta).cmp(&age(&b.set.meta)));
    sets
}

/// By what the older of two objects is told: the order of precedence everywhere in Gateway API.
pub(super) fn age(meta: &Meta) -> (u64, &str, &str) {
    (meta.created, &meta.name.namespace, &meta.name.name)
}

/// Whether `set` names a Gateway as its parent.
pub(super) fn has_gateway_parent(set: &ListenerSet) -> bool {
    is(&set.parent, GATEWAY_GROUP, Kind::Gateway)
}

/// All listeners of `gateway` and of the ListenerSets that may attach, in order of precedence, with conflicts.
pub(super) fn merge(gateway: &Gateway, sets: &[SetState]) -> Vec<ListenerState> {
    let own = gateway.listeners.iter().enumerate().map(|(i, spec)| (None, i, spec));
    let allowed = sets.iter().enumerate().filter(|(_, set)| set.allowed);
    let theirs = allowed.flat_map(|(at, set)| {
        set.set.listeners.iter().enumerate().map(move |(i, spec)| (Some(at), i, spec))
    });
    let mut all: Vec<ListenerState> =
        own.chain(theirs).map(|(set, index, spec)| ListenerState::new(set, index, spec)).collect();
    for listener in all.iter_mut().skip(MAX_LISTENERS) {
        let message =
            format!("a Gateway and its ListenerSets have {MAX_LISTENERS} listeners at most");
        listener.rejected.get_or_insert(Fault::new("TooManyListeners", message));
    }
    for at in 0..all.len().min(MAX_LISTENERS) {
        all[at].conflict = conflict(&all, at);
    }
    all
}

/// With which other listener the one at `at` conflicts. Within a Gateway nobody wins; a ListenerSet gives way to
/// what comes before it and has not given way itself.
fn conflict(all: &[ListenerState], at: usize) -> Option<Fault> {
    let this = &all[at];
    let protocol = this.protocol?;
    let rivals = all.iter().take(MAX_LISTENERS).enumerate().filter(|(other_at, other)| {
        *other_at != at
            && other.port == this.port
            && match (this.set, other.set) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some(_), None) => true,
                (Some(_), Some(_)) => *other_at < at && other.conflict.is_none(),
            }
    });
    let found = rivals.filter_map(|(_, other)| {
        let theirs = other.protocol?;
        if protocol.transport() != theirs.transport() {
            return None;
        }
        if !protocol.shares_port(theirs) {
            return Some((true, other));
        }
        (this.hostname == other.hostname).then_some((false, other))
    });
    let (is_protocol, other) = found.min_by_key(|(is_protocol, _)| Reverse(*is_protocol))?;
    let whose = if other.set.is_none() { "the Gateway" } else { "a ListenerSet" };
    Some(if is_protocol {
        let message = format!(
            "port {} is also listener {} of {whose}, whose protocol is not compatible",
            this.port, other.name
        );
        Fault::new("ProtocolConflict", message)
    } else {
        let message = format!(
            "port {} and hostname {:?} are also those of listener {} of {whose}",
            this.port,
            this.pattern(),
            other.name
        );
        Fault::new("HostnameConflict", message)
    })
}
