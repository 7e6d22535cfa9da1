use std::net::IpAddr;

use crate::api::meta::{Meta, Str};
use crate::api::selector::LabelSelector;

/// One entry of a pool's `blocks` (LB-02 to LB-04).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpBlock {
    /// `cidr`: network address and prefix length.
    Cidr(IpAddr, u8),
    /// `start` and `stop`, both included; `start` alone is one address.
    Range(IpAddr, IpAddr),
}

/// cilium.io CiliumLoadBalancerIPPool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    /// Metadata.
    pub meta: Meta,
    /// `spec.blocks`, in order.
    pub blocks: Vec<IpBlock>,
    /// `spec.serviceSelector`; None selects all.
    pub selector: Option<LabelSelector>,
    /// `spec.allowFirstLastIPs`, default Yes (LB-03).
    pub allow_first_last: bool,
    /// `spec.disabled` (LB-08).
    pub disabled: bool,
}

/// cilium.io CiliumL2AnnouncementPolicy (L2-02).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct L2Policy {
    /// Metadata.
    pub meta: Meta,
    /// `spec.serviceSelector`; None selects all.
    pub service_selector: Option<LabelSelector>,
    /// `spec.nodeSelector`; None selects all.
    pub node_selector: Option<LabelSelector>,
    /// `spec.interfaces`: regular expressions, OR-ed, unanchored; empty is all. Known to compile.
    pub interfaces: Vec<Str>,
    /// `spec.externalIPs`
    pub external_ips: bool,
    /// `spec.loadBalancerIPs`
    pub load_balancer_ips: bool,
}
