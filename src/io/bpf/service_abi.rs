//! What the service programs and user space share, laid out as in `bpf/service.h`.
//!
//! Addresses are 16 bytes in network order, IPv4 as IPv4-mapped; ports are in network order too, every other integer
//! is in host order. Entries are written and read as bytes: each type here knows how it lies in a map.
use std::net::SocketAddr;

use super::abi::{from_wire, to_wire};

/// Slots of a Maglev table (`MAGLEV_SLOTS`).
pub const MAGLEV_SLOTS: usize = 251;
/// Bytes of a table in its map.
pub(super) const MAGLEV_SIZE: usize = 512;
/// Most backends (`MAX_BACKENDS`).
pub const MAX_BACKENDS: u32 = 16384;
/// Most frontends (`MAX_FRONTENDS`).
pub const MAX_FRONTENDS: u32 = 65536;
/// Most ranges of clients (`MAX_SOURCES`).
pub const MAX_SOURCES: u32 = 16384;
/// No backend, in a table.
pub(super) const NO_BACKEND: u16 = 0xffff;
/// Bytes of a flow's key and value in map `flows`.
pub const FLOW_SIZES: (usize, usize) = (40, 72);

/// Backends of this node only, for clients outside.
pub(super) const FRONTEND_LOCAL_OUTSIDE: u32 = 1;
/// Backends of this node only, for Pods and the node.
pub(super) const FRONTEND_LOCAL_INSIDE: u32 = 2;
/// Only clients in map `sources`.
pub(super) const FRONTEND_SOURCES: u32 = 4;

/// How a backend is reached (`enum reach`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum WireReach {
    /// Rewrite and forward.
    Local = 1,
    /// Rewrite and deliver here.
    Host = 2,
    /// Hand over to another node.
    Node = 3,
    /// Rewrite the source too.
    Elsewhere = 4,
}

/// Key of map `frontends`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrontendKey(pub [u8; 20]);

/// Value of map `frontends`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrontendValue {
    /// Of its tables.
    pub id: u32,
    /// Seconds a client stays with a backend; 0: none.
    pub affinity: u32,
    /// `FRONTEND_*`.
    pub flags: u32,
    /// Entries in the table of all, and of this node's.
    pub backends: [u16; 2],
}

/// Value of map `backends`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendValue {
    /// Where it is.
    pub address: SocketAddr,
    /// The node that it is handed to; zeroes: none.
    pub via: [u8; 16],
    /// Counts the owners of the slot.
    pub generation: u32,
    /// The interface on the way; 0: the kernel's forwarding knows.
    pub ifindex: u32,
    /// The interface's MTU; 0: any packet may pass.
    pub mtu: u16,
    /// How it is reached; None: the slot is empty.
    pub reach: Option<WireReach>,
}

// === impl FrontendKey ===

impl FrontendKey {
    /// Of an address, a port and a protocol's number; port 0 with ICMP is for echo requests.
    pub fn new(address: SocketAddr, protocol: u8) -> Self {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&to_wire(address.ip()));
        bytes[16..18].copy_from_slice(&address.port().to_be_bytes());
        bytes[18] = protocol;
        Self(bytes)
    }
}

// === impl FrontendValue ===

impl FrontendValue {
    /// As in the map.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (at, number) in [self.id, self.affinity, self.flags].into_iter().enumerate() {
            bytes[at * 4..][..4].copy_from_slice(&number.to_ne_bytes());
        }
        for (at, number) in self.backends.into_iter().enumerate() {
            bytes[12 + at * 2..][..2].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// The number of its tables, of an entry in the map.
    pub(super) fn id_of(bytes: &[u8]) -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
    }
}

// === impl BackendValue ===

impl BackendValue {
    /// As in the map.
    pub fn to_bytes(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&to_wire(self.address.ip()));
        bytes[16..32].copy_from_slice(&self.via);
        bytes[32..36].copy_from_slice(&self.generation.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[40..42].copy_from_slice(&self.address.port().to_be_bytes());
        bytes[42..44].copy_from_slice(&self.mtu.to_ne_bytes());
        bytes[44] = self.reach.map_or(0, |reach| reach as u8);
        bytes
    }

    /// Of an entry in the map.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let reach = match bytes.get(44)? {
            1 => Some(WireReach::Local),
            2 => Some(WireReach::Host),
            3 => Some(WireReach::Node),
            4 => Some(WireReach::Elsewhere),
            _ => None,
        };
        let port = u16::from_be_bytes(bytes.get(40..42)?.try_into().ok()?);
        Some(Self {
            address: SocketAddr::new(from_wire(bytes.get(..16)?.try_into().ok()?), port),
            via: bytes.get(16..32)?.try_into().ok()?,
            generation: number(32)?,
            ifindex: number(36)?,
            mtu: u16::from_ne_bytes(bytes.get(42..44)?.try_into().ok()?),
            reach,
        })
    }
}

/// Named outcomes of the service programs (`enum service_counter`), in the order of map `service_counters`.
pub const SERVICE_COUNTERS: [&str; 16] = [
    "service_new",
    "service_to_backend",
    "service_to_client",
    "service_relayed",
    "service_no_backend",
    "service_denied",
    "service_not_local",
    "service_no_port",
    "service_no_own",
    "service_full",
    "service_fragment_lost",
    "service_echoed",
    "service_icmp",
    "service_to_stack",
    "service_internal",
    "service_host",
];
