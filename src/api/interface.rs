//! Network interfaces of this node.
use std::net::IpAddr;
use std::sync::Arc;

use super::address::{IfIndex, MacAddr};

/// An address with its prefix length, as configured on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The address itself, host bits included.
    pub address: IpAddr,
    /// Length of the network part in bits.
    pub length: u8,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number.
    pub index: IfIndex,
    /// The name, such as `eth1`.
    pub name: Arc<str>,
    /// Hardware address; zero for interfaces whose packets have no Ethernet header (tun, WireGuard, ipip).
    pub mac: MacAddr,
    /// Administratively up and with a carrier.
    pub up: bool,
    /// Loopback interfaces never announce.
    pub loopback: bool,
    /// A port of a bridge or bond never announces: its frames reach the kernel through the bridge or bond.
    pub port: bool,
    /// What the kernel says it is: `bridge`, `veth`, `vxlan`, `vlan`…; empty for a network card.
    pub kind: Arc<str>,
    /// Addresses, sorted.
    pub addresses: Vec<Prefix>,
}

/// Names of interfaces that lead to containers and tunnels, never to the LAN.
const NOT_LAN: &[&str] = &[
    "br-", "cali", "cilium_", "cni", "docker", "flannel", "kube-", "lxc", "podman", "veth",
    "virbr", "vxlan",
];

/// All interfaces; whole state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interfaces {
    /// Sorted by index.
    pub list: Vec<Interface>,
}

// === impl Prefix ===

impl Prefix {
    /// Whether `address` lies in the subnet.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(u32::from(own)), u128::from(u32::from(other)), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (u128::from(own), u128::from(other), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.length).min(width);
        host_bits >= 128 || own >> host_bits == other >> host_bits
    }
}

// === impl Interface ===

impl Interface {
    /// Whether its name says that it leads to containers or tunnels. What people name themselves counts more.
    pub fn leads_to_containers(&self) -> bool {
        NOT_LAN.iter().any(|stem| self.name.starts_with(stem))
    }

    /// Whether it has an address that other hosts can reach.
    pub fn has_global_address(&self) -> bool {
        self.addresses.iter().any(|own| is_global(own.address))
    }
}

/// Whether an address is neither link-local nor of a loopback interface.
pub fn is_global(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !link_local && !address.is_loopback()
}
