//! Newtypes for addresses, and what LB-IPAM has assigned.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::meta::NamespacedName;
use crate::kernel::Time;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

/// A block of addresses, `address/length`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its lowest address; an IPv4 one is never written as IPv6.
    pub address: IpAddr,
    /// Leading bits that all its addresses share.
    pub length: u8,
}

/// A TCP or UDP port, never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Port(pub u16);

/// The kernel's number of a network interface, within one network namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IfIndex(pub u32);

/// The name of a node, as Kubernetes and `--node` give it.
pub type NodeName = Arc<str>;

/// Counts the versions of a snapshot; larger is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u64);

/// The addresses of all LoadBalancer Services that LB-IPAM is responsible for; keyed by the Service.
/// A Service without an address is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignments {
    /// In the order in which `status.loadBalancer.ingress` lists them.
    pub by_service: BTreeMap<NamespacedName, Vec<IpAddr>>,
    /// Those that may still change, because other nodes have not been heard yet: neither announced nor written into a
    /// status, so that what clients can reach never moves. By Service: who joins others at an address takes nothing
    /// from them.
    pub tentative: BTreeSet<(NamespacedName, IpAddr)>,
}

// === impl Assignments ===

impl Assignments {
    /// The addresses of a Service that it will keep.
    pub fn settled<'a>(
        &'a self,
        service: &'a NamespacedName,
    ) -> impl Iterator<Item = IpAddr> + use<'a> {
        let assigned = self.by_service.get(service).into_iter().flatten().copied();
        assigned.filter(|&address| !self.tentative.contains(&(service.clone(), address)))
    }
}

// === impl MacAddr ===

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Self(bytes)) }
    }
}

// === impl Network ===

impl Network {
    /// The network of `length` bits in which `address` lies.
    pub fn of(address: IpAddr, length: u8) -> Self {
        let address = match address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
                IpAddr::V4((it.to_bits() & mask).into())
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
                IpAddr::V6((it.to_bits() & mask).into())
            }
        };
        Self { address, length }
    }

    /// Whether `address` is one of its addresses. One of IPv4 may come as IPv6 (`::ffff:192.0.2.1`).
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, own, width) = match (address.to_canonical(), self.address) {
            (IpAddr::V4(it), IpAddr::V4(own)) => {
                (u128::from(it.to_bits()), own.to_bits().into(), 32)
            }
            (IpAddr::V6(it), IpAddr::V6(own)) => (it.to_bits(), own.to_bits(), 128),
            _ => return false,
        };
        // All bits may belong to the host: shifting them all out is an overflow to Rust.
        (bits ^ own).checked_shr(width - u32::from(self.length)).is_none_or(|rest| rest == 0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

// === impl Port ===

impl Port {
    /// The port for HTTP.
    pub const HTTP: Self = Self(80);
    /// The port for HTTPS.
    pub const HTTPS: Self = Self(443);
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Generation ===

impl Generation {
    /// For the first version of a server that starts at `now`: later than all from before a restart, which come less
    /// than once in a millisecond.
    pub const fn first(now: Time) -> Self {
        Self(now.as_nanos() / 1_000_000 + 1)
    }

    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Whether an address can be another host's: not one that leads back to this node, or that only it can reach. What
/// names outside of the cluster resolve to must not open a way in.
pub fn is_elsewhere(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast())
        }
    }
}
