//! What is told about Services: `pilus.dev/Programmed`, from what the programs have acknowledged.
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::api::address::Assignments;
use crate::api::meta::{Kind, NamespacedName, ObjectKey};
use crate::api::object::PortProtocol;
use crate::api::problem::{Problem, Severity};
use crate::api::route::RouteTable;
use crate::api::service::{Backend, Balanced, Balancing, Frontend, FrontendKind, Reach};
use crate::api::status::{Condition, ObjectStatus, Statuses, Truth};
use crate::arrange::Arrange;

/// The condition of a Service whose frontends the programs hold. Datapath writes the same for those of the proxy.
const PROGRAMMED: &str = "pilus.dev/Programmed";
/// So many places are named; a Service with more has a range of ports.
const MAX_PLACES: usize = 8;

/// `10.0.0.1:53/UDP`
pub(super) fn place(frontend: &Frontend) -> String {
    let protocol = match frontend.protocol {
        PortProtocol::Tcp => "TCP",
        PortProtocol::Udp => "UDP",
        PortProtocol::Sctp => "SCTP",
    };
    format!("{}/{protocol}", SocketAddr::new(frontend.address, frontend.port.0))
}

/// Adds conditions and the programs' complaints. Not of Services that the proxy serves: their condition is another
/// server's; nor of addresses that may still change, which nobody is told.
pub(super) fn effects(
    statuses: &mut Statuses,
    balanced: &Balanced,
    balancing: &Balancing,
    assignments: &Assignments,
    routes: &RouteTable,
) {
    statuses.problems.extend(balanced.failures.iter().map(|text| failure(text)));
    let proxied: HashSet<&NamespacedName> =
        routes.listeners.iter().map(|listener| &listener.service).collect();
    let mut by_service: BTreeMap<&NamespacedName, Vec<&Frontend>> = BTreeMap::new();
    for frontend in &balancing.frontends {
        let for_clients =
            matches!(frontend.kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp);
        let tentative = || {
            let place = (frontend.service.clone(), frontend.address);
            !assignments.tentative.is_empty() && assignments.tentative.contains(&place)
        };
        if for_clients && !proxied.contains(&frontend.service) && !tentative() {
            by_service.entry(&frontend.service).or_default().push(frontend);
        }
    }
    let named: Vec<(HashSet<IpAddr>, &String)> =
        balanced.failures.iter().map(|text| (addresses(text), text)).collect();
    for (service, frontends) in by_service {
        let concerned = named.iter().find(|(addresses, _)| {
            frontends.iter().any(|frontend| addresses.contains(&frontend.address))
        });
        let condition = match concerned {
            Some((_, text)) => condition(Truth::False, "Failed", (*text).clone()),
            None => condition(Truth::True, "Programmed", sentence(&frontends)),
        };
        let key = ObjectKey { kind: Kind::Service, name: service.clone() };
        let status = ObjectStatus { conditions: vec![condition], ..ObjectStatus::default() };
        statuses.by_object.insert(key, status);
    }
}

fn condition(status: Truth, reason: &str, message: String) -> Condition {
    Condition { kind: PROGRAMMED, status, reason: reason.into(), message }
}

fn failure(text: &str) -> Problem {
    Problem {
        position: None,
        object: None,
        field: String::new(),
        message: format!("data path: {text}"),
        severity: Severity::Error,
    }
}

/// The addresses that a sentence names, by themselves, with a prefix length, a port or a protocol.
fn addresses(text: &str) -> HashSet<IpAddr> {
    let words = text.split_whitespace().map(|word| {
        let word = word.trim_matches(|c: char| ",;.()'\"".contains(c)).trim_end_matches(':');
        word.split('/').next().unwrap_or(word)
    });
    words
        .filter_map(|word| {
            word.parse().ok().or_else(|| Some(word.parse::<SocketAddr>().ok()?.ip()))
        })
        .collect()
}

/// Where the frontends of a Service lead; those that lead the same way together.
fn sentence(frontends: &[&Frontend]) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for frontend in frontends {
        let way = way(frontend);
        match groups.iter_mut().find(|group| group.0 == way) {
            Some(group) => group.1.push(place(frontend)),
            None => groups.push((way, vec![place(frontend)])),
        }
    }
    groups.arrange_by(|a, b| a.1.cmp(&b.1));
    let parts: Vec<String> = groups
        .iter()
        .map(|(way, places)| {
            let verb = match (way.starts_with("no "), places.len()) {
                (true, 1) => "has",
                (true, _) => "have",
                (false, 1) => "goes to",
                (false, _) => "go to",
            };
            let shown = places[..places.len().min(MAX_PLACES)].join(", ");
            let more = match places.len().saturating_sub(MAX_PLACES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{shown}{more} {verb} {way}")
        })
        .collect();
    parts.join("; ")
}

/// `3 backends: 1 here, 1 by direct return, 1 with a node's address in place of the client's`
fn way(frontend: &Frontend) -> String {
    if frontend.local_from_outside {
        return match frontend.local_backends.len() {
            0 => "no backend on this node, and externalTrafficPolicy Local allows no other"
                .to_owned(),
            count => format!("{} on this node only", backends(count)),
        };
    }
    let all = &frontend.backends;
    if all.is_empty() {
        return "no backends: connections are refused".to_owned();
    }
    let of = |is: fn(&Backend) -> bool| all.iter().filter(|it| is(it)).count();
    let counts = [
        (of(|it| matches!(it.reach, Reach::Local | Reach::Host)), "here"),
        (of(|it| matches!(it.reach, Reach::Node(_))), "by direct return"),
        (of(|it| it.reach == Reach::Elsewhere), "with a node's address in place of the client's"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{count} {how}"))
        .collect();
    format!("{}: {}", backends(all.len()), parts.join(", "))
}

fn backends(count: usize) -> String {
    if count == 1 { "1 backend".to_owned() } else { format!("{count} backends") }
}
