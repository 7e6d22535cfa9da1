//! What LB-IPAM sees of a Service: whether it is ours, what it asks for, and with whom it may share
//! (LB-06, LB-11, LB-13, LB-14, LB-16).
use std::net::IpAddr;
use std::sync::Arc;

use super::pool::{Family, Pools};
use crate::api::class::is_our_load_balancer;
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Str};
use crate::api::object::{ExternalTrafficPolicy, IpFamilyPolicy, Service};
use crate::api::problem::{Problem, Severity};
use crate::api::selector::LabelSelector;

/// How many addresses one Service can ask for; more are named in a problem and left out. Keeps a typing
/// error (or a hostile neighbor's claims) from growing without bound.
pub const MAX_ADDRESSES: usize = 32;

const IPS: [&str; 2] = ["lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips"];
const SHARING_KEY: [&str; 2] = ["lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key"];
const CROSS_NAMESPACE: [&str; 2] =
    ["lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace"];

/// One of our Services.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// The object.
    pub service: Arc<Service>,
    /// The addresses it asks for by number, without repetition; empty: any.
    pub requested: Vec<IpAddr>,
    /// The families it asks for: IPv4, IPv6.
    wants: [bool; 2],
    /// With whom it shares; None: with nobody.
    pub sharing_key: Option<Str>,
    cross_namespace: Vec<Str>,
}

// === impl ServiceView ===

impl ServiceView {
    /// Whether LB-IPAM is responsible for the Service at all (LB-11).
    pub fn is_ours(service: &Service) -> bool {
        is_our_load_balancer(service)
    }

    /// Reads the Service's wishes; what cannot be read goes to `problems`.
    pub fn new(service: &Arc<Service>, pools: &Pools, problems: &mut Vec<Problem>) -> Self {
        let sharing_key = annotation(service, SHARING_KEY).map(|(_, key)| key);
        let cross_namespace = annotation(service, CROSS_NAMESPACE)
            .map(|(_, list)| list.split(',').map(Str::from).collect())
            .unwrap_or_default();
        Self {
            service: Arc::clone(service),
            requested: requested(service, problems),
            wants: wants(service, pools),
            sharing_key: sharing_key.filter(|key| !key.is_empty()).map(Str::from),
            cross_namespace,
        }
    }

    /// Its name.
    pub fn name(&self) -> &NamespacedName {
        &self.service.meta.name
    }

    /// Whether it asks for an address of this family. Explicit requests do not depend on it.
    pub fn wants(&self, family: Family) -> bool {
        self.wants[usize::from(family == Family::V6)]
    }

    /// Whether its labels and the two that stand for its name satisfy the selector (LB-06).
    pub fn matches(&self, selector: &LabelSelector) -> bool {
        let meta = &self.service.meta;
        selector.matches_with(|key| match key {
            "io.kubernetes.service.name" => Some(&*meta.name.name),
            "io.kubernetes.service.namespace" => Some(&*meta.name.namespace),
            _ => meta.labels.get(key).map(|value| &**value),
        })
    }

    /// Whether the two may have one address (LB-16); if not, why, in Cilium's words (LB-15). Protocols
    /// are told apart by our data path, so Cilium's `same port` (for data paths that cannot) never occurs.
    pub fn may_share(&self, other: &Self) -> Result<(), &'static str> {
        if self.sharing_key.is_none() || self.sharing_key != other.sharing_key {
            return Err("different sharing key");
        }
        if self.name().namespace != other.name().namespace
            && !(self.permits_namespace_of(other) && other.permits_namespace_of(self))
        {
            return Err("different and not permitted namespace");
        }
        let (ours, theirs) = (&self.service, &other.service);
        let clash = |a: &crate::api::object::ServicePortSpec| {
            theirs.ports.iter().any(|b| a.port == b.port && a.protocol == b.protocol)
        };
        if ours.ports.iter().any(clash) {
            return Err("same port and protocol");
        }
        if ours.external_traffic_policy != theirs.external_traffic_policy {
            return Err("different ExternalTrafficPolicy");
        }
        // Local: only nodes with a Pod take traffic, so both need the same Pods; without a selector
        // nobody can tell.
        let selects = |service: &Service| service.selector.as_ref().is_some_and(|s| !s.is_empty());
        if ours.external_traffic_policy == ExternalTrafficPolicy::Local
            && !(selects(ours) && ours.selector == theirs.selector)
        {
            return Err(
                "compatible ExternalTrafficPolicy local but selecting different set of pods",
            );
        }
        Ok(())
    }

    fn permits_namespace_of(&self, other: &Self) -> bool {
        self.cross_namespace.iter().any(|ns| **ns == *other.name().namespace || &**ns == "*")
    }
}

/// The value of the first of the keys that is there.
fn annotation<'a>(
    service: &'a Service,
    keys: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    keys.into_iter().find_map(|key| service.meta.annotation(key).map(|value| (key, value)))
}

fn requested(service: &Service, problems: &mut Vec<Problem>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut add = |entry: &str, field: &str| {
        let message = match entry.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address) => return,
            Ok(address) if addresses.len() < MAX_ADDRESSES => return addresses.push(address),
            Ok(_) => format!("{entry}: a Service can ask for {MAX_ADDRESSES} addresses at most"),
            Err(_) => format!("'{entry}' is not an IP address; this entry is ignored"),
        };
        problems.push(Problem {
            position: service.meta.position(field),
            object: Some(ObjectKey { kind: Kind::Service, name: service.meta.name.clone() }),
            field: field.to_owned(),
            message,
            severity: Severity::Error,
        });
    };
    if let Some(entry) = service.load_balancer_ip.as_ref().filter(|entry| !entry.is_empty()) {
        add(entry, "spec.loadBalancerIP");
    }
    if let Some((key, list)) = annotation(service, IPS).filter(|(_, list)| !list.is_empty()) {
        for entry in list.split(',') {
            add(entry.trim(), &format!("metadata.annotations[{key}]"));
        }
    }
    addresses
}

/// LB-14. Two deliberate points: `PreferDualStack` "takes what the cluster has", and as both families are
/// enabled here by default, a cluster has a family if a pool has addresses of it (if no pool has any, the
/// enabled families count, so that the condition says what is missing). `RequireDualStack` wants both
/// whatever is enabled, so it stays unsatisfied if one is not.
fn wants(service: &Service, pools: &Pools) -> [bool; 2] {
    let families = &service.ip_families_v6;
    let one = |v6: bool| [!v6, v6];
    match service.ip_family_policy {
        IpFamilyPolicy::SingleStack => match families.first() {
            Some(&v6) => one(v6),
            None if pools.is_enabled(Family::V4) => one(false),
            None => [false, pools.is_enabled(Family::V6)],
        },
        IpFamilyPolicy::PreferDualStack => {
            let listed = |v6| families.is_empty() || families.contains(&v6);
            let listed = [listed(false), listed(true)];
            let both = [Family::V4, Family::V6];
            let there = both.map(|family| pools.has(family));
            let enabled = both.map(|family| pools.is_enabled(family));
            let there = [listed[0] && there[0], listed[1] && there[1]];
            if there == [false, false] {
                [listed[0] && enabled[0], listed[1] && enabled[1]]
            } else {
                there
            }
        }
        IpFamilyPolicy::RequireDualStack => [true, true],
    }
}
