//! L4 load balancing: what the kernel's service programs must do, and what they have acknowledged.
//!
//! A *frontend* is an address and port that clients use, a *backend* one of the places behind it. Which backend a new
//! connection goes to follows from its addresses and ports and the sorted list of backends alone (Maglev), so that all
//! nodes send it to the same one, whoever holds the address.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::address::{Generation, IfIndex, Network, Port};
use super::meta::NamespacedName;
use super::object::PortProtocol;

/// How a backend is reached from this node, and how its answers find back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// A Pod or container of this node: the packet's destination is rewritten, and answers come back through this node.
    Local,
    /// An address of this node itself: the packet is delivered here after the rewriting.
    Host,
    /// It runs on another node with an agent, whose address on a LAN that both are on is this: the packet is handed
    /// over as it is, and that node rewrites it and answers the client itself (direct return). The client's address
    /// stays.
    Node(IpAddr),
    /// Somewhere else: so that answers come back, the packet gets an address of this node as its source. The backend
    /// does not see the client's.
    Elsewhere,
}

/// One place behind a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Address and port; the address is of the frontend's family.
    pub address: SocketAddr,
    /// How it is reached.
    pub reach: Reach,
}

/// What kind of address a frontend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendKind {
    /// An address of a LoadBalancer Service.
    LoadBalancer,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// The cluster's own address of a Service; with `--kube-proxy-replacement` only.
    ClusterIp,
    /// A port of the node's addresses; with `--kube-proxy-replacement` only.
    NodePort,
}

/// An address and port with what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// The address that clients use.
    pub address: IpAddr,
    /// The port that clients use.
    pub port: Port,
    /// TCP, UDP or SCTP.
    pub protocol: PortProtocol,
    /// Whose it is.
    pub service: NamespacedName,
    /// What kind of address it is.
    pub kind: FrontendKind,
    /// How long a client's address stays with one backend (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// Connections from outside go to backends of this node only (`externalTrafficPolicy: Local`).
    pub local_from_outside: bool,
    /// Connections of Pods and of the node go to backends of this node only (`internalTrafficPolicy: Local`, which
    /// Kubernetes defines for cluster addresses alone).
    pub local_from_inside: bool,
    /// Who may connect from outside (`loadBalancerSourceRanges`); None: everybody.
    pub sources: Option<Arc<[Network]>>,
    /// Where new connections go, sorted. None at all: they are refused.
    pub backends: Arc<[Backend]>,
    /// Where those connections go that stay on this node, sorted; empty unless one of the two above asks for it. Not
    /// simply those of `backends` that are here: endpoints that terminate serve if no ready one is left *here* (KEP-1669).
    pub local_backends: Arc<[Backend]>,
}

/// An interface whose packets are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hooked {
    /// The kernel's number.
    pub index: IfIndex,
    /// Clients outside of the cluster are behind it, not Pods: policies for traffic from outside hold.
    pub outside: bool,
    /// A sentence for people: why.
    pub why: Arc<str>,
}

/// The whole state the service programs must have; what is not in it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balancing {
    /// Counts the versions.
    pub generation: Generation,
    /// This node's addresses, IPv4 and IPv6, that stand in for a client's where nothing else helps.
    pub own: [Option<IpAddr>; 2],
    /// The interfaces whose packets are looked at; sorted.
    pub interfaces: Vec<Hooked>,
    /// Sorted by address, port and protocol; no two alike.
    pub frontends: Vec<Arc<Frontend>>,
}

/// The service programs hold this generation, or say why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balanced {
    /// That of the [`Balancing`].
    pub generation: Generation,
    /// What could not be applied, each a sentence naming address, interface and cause.
    pub failures: Vec<String>,
}
