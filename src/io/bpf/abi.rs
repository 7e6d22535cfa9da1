//! What the kernel programs and user space share, laid out as in `bpf/pilus.h`.
//!
//! Addresses are 16 bytes in network order, IPv4 as IPv4-mapped (RFC 4291 §2.5.5.2); every other
//! integer is in host order. The assertions below and the C compiler keep the two files equal.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv6Addr};

/// Most address entries over all interfaces (`MAX_ADDRESSES`).
pub const MAX_ADDRESSES: u32 = 4096;
/// Most steered address and port pairs (`MAX_STEERED`).
pub const MAX_STEERED: u32 = 16384;
/// Most listening sockets of one agent (`MAX_SOCKETS`).
pub const MAX_SOCKETS: u32 = 1024;

/// Key of map `addresses`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AddressKey {
    /// The LAN interface.
    pub ifindex: u32,
    /// The announced address.
    pub addr: [u8; 16],
}

/// Value of map `addresses`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressValue {
    /// 1 when this node answers, 0 when another does.
    pub role: u32,
    /// The interface's hardware address.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
    /// Answers sent; written by the program.
    pub replies: u64,
}

/// Key of map `steering`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SteerKey {
    /// The service address.
    pub addr: [u8; 16],
    /// The service port.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Named outcomes counted by the programs (`enum counter`), in the order of map `counters`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Counter {
    /// ARP replies sent.
    RepliedArp,
    /// Neighbor Advertisements sent.
    RepliedNdp,
    /// Questions for an address that another node holds.
    DroppedNotHolder,
    /// Questions for a held address while the agent's liveness had run out.
    DroppedStale,
    /// ARP frames that were short or not Ethernet/IPv4; passed to the kernel.
    PassedArpMalformed,
    /// ARP requests whose sender hardware address is a group address or zero.
    DroppedArpBadSender,
    /// Neighbor Solicitations too short to name a target; passed to the kernel.
    PassedNdpMalformed,
    /// Neighbor Solicitations whose hop limit is not 255.
    DroppedNdpHopLimit,
    /// Neighbor Solicitations with a wrong ICMPv6 checksum.
    DroppedNdpChecksum,
    /// Neighbor Solicitations of an impossible length, or over 128 bytes.
    DroppedNdpLength,
    /// Neighbor Solicitations with a malformed option.
    DroppedNdpOption,
    /// Neighbor Solicitations whose source breaks RFC 4861 §7.1.1.
    DroppedNdpBadSource,
    /// Replies the kernel refused to build.
    DroppedInternal,
    /// Connections given to a socket of the agent.
    Steered,
    /// Connections to a steered address while no agent listened.
    SteerNoSocket,
    /// Connections whose socket is of another family or protocol.
    SteerAssignFailed,
}

impl Counter {
    /// Every counter, in map order.
    pub const ALL: [Self; 16] = [
        Self::RepliedArp,
        Self::RepliedNdp,
        Self::DroppedNotHolder,
        Self::DroppedStale,
        Self::PassedArpMalformed,
        Self::DroppedArpBadSender,
        Self::PassedNdpMalformed,
        Self::DroppedNdpHopLimit,
        Self::DroppedNdpChecksum,
        Self::DroppedNdpLength,
        Self::DroppedNdpOption,
        Self::DroppedNdpBadSource,
        Self::DroppedInternal,
        Self::Steered,
        Self::SteerNoSocket,
        Self::SteerAssignFailed,
    ];

    /// The name used in metrics and status, as in `enum counter`, lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RepliedArp => "replied_arp",
            Self::RepliedNdp => "replied_ndp",
            Self::DroppedNotHolder => "dropped_not_holder",
            Self::DroppedStale => "dropped_stale",
            Self::PassedArpMalformed => "passed_arp_malformed",
            Self::DroppedArpBadSender => "dropped_arp_bad_sender",
            Self::PassedNdpMalformed => "passed_ndp_malformed",
            Self::DroppedNdpHopLimit => "dropped_ndp_hop_limit",
            Self::DroppedNdpChecksum => "dropped_ndp_checksum",
            Self::DroppedNdpLength => "dropped_ndp_length",
            Self::DroppedNdpOption => "dropped_ndp_option",
            Self::DroppedNdpBadSource => "dropped_ndp_bad_source",
            Self::DroppedInternal => "dropped_internal",
            Self::Steered => "steered",
            Self::SteerNoSocket => "steer_no_socket",
            Self::SteerAssignFailed => "steer_assign_failed",
        }
    }
}

// SAFETY: repr(C), integers and byte arrays only, no padding (asserted below), any bits are valid.
unsafe impl aya::Pod for AddressKey {}
// SAFETY: as above.
unsafe impl aya::Pod for AddressValue {}
// SAFETY: as above.
unsafe impl aya::Pod for SteerKey {}

const _: () = {
    assert!(size_of::<AddressKey>() == 20);
    assert!(offset_of!(AddressKey, addr) == 4);
    assert!(size_of::<AddressValue>() == 24);
    assert!(offset_of!(AddressValue, mac) == 4);
    assert!(offset_of!(AddressValue, replies) == 16);
    assert!(size_of::<SteerKey>() == 20);
    assert!(offset_of!(SteerKey, port) == 16);
    assert!(offset_of!(SteerKey, protocol) == 18);
};

/// An address as the maps hold it.
pub const fn to_wire(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address a map entry stands for.
pub const fn from_wire(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from_octets(bytes).to_canonical()
}
