use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::meta::{Labels, Meta, Str};

/// v1 Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// Metadata.
    pub meta: Meta,
}

/// v1 Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Metadata.
    pub meta: Meta,
    /// `status.addresses` of type InternalIP, in order.
    pub internal_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`, as written.
    pub pod_cidrs: Vec<Str>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
}

/// A container port with a name, which a Service may name as its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// The name; empty if it has none.
    pub name: Str,
    /// The number.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: super::PortProtocol,
}

/// v1 Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// `status.podIPs` (or `podIP`); host-network Pods have their node's.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: Option<Str>,
    /// Ports of all containers.
    pub ports: Vec<PodPort>,
    /// Condition Ready; a Pod in a file without any status conditions is ready.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// Phase Succeeded or Failed: never an endpoint.
    pub finished: bool,
}

/// v1 Secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret {
    /// Metadata. `meta.json` holds no data: secrets are never printed.
    pub meta: Meta,
    /// `type`, default Opaque.
    pub kind: Str,
    /// `data` (decoded) and `stringData`.
    pub data: BTreeMap<Str, Vec<u8>>,
}

/// v1 ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigMap {
    /// Metadata.
    pub meta: Meta,
    /// `data`.
    pub data: Labels,
}

/// coordination.k8s.io/v1 Lease; here only generated, for people to see who announces an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    /// Metadata.
    pub meta: Meta,
    /// `spec.holderIdentity`: a node name.
    pub holder: Option<Str>,
    /// `spec.acquireTime`, seconds since 1970.
    pub acquired: u64,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
}

// === impl Secret ===

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}, {} entries)", self.meta.name, self.data.len())
    }
}
