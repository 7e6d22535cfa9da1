//! What servers have found out about objects: conditions and load-balancer addresses.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::meta::{ObjectKey, Str};
use super::object::gateway_route::ParentRef;
use super::objects::Generated;
use super::problem::Problem;

/// `status` of a condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// True
    True,
    /// False
    False,
    /// Unknown
    Unknown,
}

/// metav1.Condition. `lastTransitionTime` is kept by the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Such as `cilium.io/IPAMRequestSatisfied`.
    pub kind: &'static str,
    /// True, False or Unknown.
    pub status: Truth,
    /// One word for machines.
    pub reason: Str,
    /// A sentence for people.
    pub message: String,
}

/// One server's part of the status of one object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectStatus {
    /// Conditions of kinds only this server writes.
    pub conditions: Vec<Condition>,
    /// `status.loadBalancer.ingress[].ip`; None: this server has nothing to say about it.
    pub load_balancer: Option<Vec<IpAddr>>,
    /// `status.loadBalancer.ingress[].ports` for an Ingress (port numbers, TCP).
    pub ports: Vec<u16>,
    /// What the kinds of Gateway API have besides conditions.
    pub gateway: Option<Arc<GatewayApiStatus>>,
}

/// The status of a GatewayClass, Gateway, ListenerSet, route or policy, besides its conditions. Each kind uses the
/// parts it has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GatewayApiStatus {
    /// `observedGeneration` of every condition, also of the nested ones.
    pub observed_generation: u64,
    /// `addresses[]` of a Gateway: type and value.
    pub addresses: Vec<(Str, Str)>,
    /// `listeners[]` of a Gateway or ListenerSet, in the order of its spec.
    pub listeners: Vec<ListenerStatus>,
    /// `attachedListenerSets` of a Gateway.
    pub attached_listener_sets: Option<u32>,
    /// `parents[]` of a route, `ancestors[]` of a policy.
    pub parents: Vec<ParentStatus>,
    /// `supportedFeatures[].name` of a GatewayClass, sorted.
    pub supported_features: Vec<&'static str>,
}

/// One entry of `listeners[]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerStatus {
    /// `name`
    pub name: Str,
    /// `supportedKinds[]` of the group gateway.networking.k8s.io.
    pub supported_kinds: Vec<&'static str>,
    /// `attachedRoutes`
    pub attached_routes: u32,
    /// `conditions[]`
    pub conditions: Vec<Condition>,
}

/// One entry of `parents[]` or `ancestors[]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParentStatus {
    /// `parentRef` or `ancestorRef`
    pub parent: ParentRef,
    /// `controllerName`
    pub controller: Str,
    /// `conditions[]`
    pub conditions: Vec<Condition>,
}

/// Everything one server has to say about objects; whole state, replaces what it said before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statuses {
    /// By object.
    pub by_object: BTreeMap<ObjectKey, ObjectStatus>,
    /// Complaints, shown by `pilus status` and `pilus check`.
    pub problems: Vec<Problem>,
    /// Objects this server makes (Services for Ingresses, Leases for addresses).
    pub generated: Arc<Generated>,
    /// LB-IPAM's numbers, if this server is LB-IPAM.
    pub ipam: Option<Arc<IpamMetrics>>,
}

/// The numbers of LB-IPAM (LB-19), for `cilium_operator_lbipam_*` and our own counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpamMetrics {
    /// `conflicting_pools`
    pub conflicting_pools: u64,
    /// `ips_available{pool}` and `ips_used{pool}`.
    pub pools: BTreeMap<Str, (f64, u64)>,
    /// `services_matching`
    pub services_matching: u64,
    /// `services_unsatisfied`
    pub services_unsatisfied: u64,
    /// Addresses in use that this node shares with the others.
    pub claims: u64,
    /// Packets and claims of other nodes that were not believed, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

// === impl Truth ===

impl Truth {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}
