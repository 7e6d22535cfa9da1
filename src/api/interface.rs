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
    /// Hardware address; zero for interfaces without one.
    pub mac: MacAddr,
    /// Administratively up and with a carrier.
    pub up: bool,
    /// Loopback interfaces never announce.
    pub loopback: bool,
    /// A port of a bridge or bond never announces: its frames reach the kernel through the bridge or bond.
    pub port: bool,
    /// Addresses, sorted.
    pub addresses: Vec<Prefix>,
}

/// All interfaces; whole state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interfaces {
    /// Sorted by index.
    pub list: Vec<Interface>,
}
