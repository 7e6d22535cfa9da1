//! What the kernel's hooks must do, and what they have acknowledged.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::address::{Generation, IfIndex, Port};
use super::announce::Answers;

/// The transport of a steered address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

/// Packets to this address and port go to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steer {
    /// The virtual address.
    pub address: IpAddr,
    /// The virtual port.
    pub port: Port,
    /// TCP or UDP.
    pub transport: Transport,
}

/// The whole state the hooks must have; what is not in it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Counts the versions.
    pub generation: Generation,
    /// L2 answers. The LAN interfaces to hook are those named in it and in `interfaces`.
    pub answers: Answers,
    /// Which virtual addresses and ports the proxy's listeners receive; each address gets a local route.
    pub steers: Vec<Steer>,
}

/// The hooks hold this generation, or say why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programmed {
    /// The generation of the [`Program`] that was applied.
    pub generation: Generation,
    /// What could not be applied, each a sentence naming address, interface and cause.
    pub failures: Vec<String>,
    /// Interfaces on which this node can neither answer nor keep silent, and why: it must not hold an
    /// address there.
    pub unhooked: BTreeMap<IfIndex, String>,
}

/// A socket that stays open as long as somebody has this, so that its number cannot come to mean another
/// one when the server that opened it dies.
#[derive(Debug, Clone)]
pub struct Socket(pub Arc<OwnedFd>);

/// The sockets that steered connections are handed to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sockets {
    /// The TCP listener for IPv4.
    pub tcp4: Option<Socket>,
    /// The TCP listener for IPv6.
    pub tcp6: Option<Socket>,
}

// === impl Socket ===

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Socket {}

/// A short text for `pilus status`: hooks attached where, counters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatapathReport {
    /// One line each, `name: value`.
    pub lines: Vec<(Arc<str>, String)>,
}
