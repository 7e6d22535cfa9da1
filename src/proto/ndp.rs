//! Neighbor Solicitation and Neighbor Advertisement (RFC 4861, sections 4.3 and 4.4), from the Ethernet
//! header to the ICMPv6 options.
//!
//! ```text
//! Ethernet 14 | IPv6 40: next header 58, hop limit 255 | ICMPv6: type, code 0, checksum,
//!     flags (NA: R S O) and reserved (4), target (16), options (type, length/8, …)
//! ```
use std::net::Ipv6Addr;

use super::checksum::Checksum;
use super::ether;
use crate::api::address::MacAddr;

/// Protocol number of ICMPv6.
const ICMPV6: u8 = 58;
/// The hop limit of every neighbor message: whoever is not on the link cannot send it (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;
const IPV6_HEADER: usize = 40;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A solicitation or an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who has the target? From `::` it is the probe of duplicate address detection (RFC 4862).
    Solicitation,
    /// The sender has the target.
    Advertisement {
        /// R: the sender is a router.
        router: bool,
        /// S: in answer to a solicitation.
        solicited: bool,
        /// O: replaces what is cached.
        overrides: bool,
    },
}

/// A neighbor message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The frame's destination.
    pub destination_mac: MacAddr,
    /// The frame's source.
    pub source_mac: MacAddr,
    /// IPv6 source; unspecified in a probe.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// What it says.
    pub kind: Kind,
    /// About which address.
    pub target: Ipv6Addr,
    /// The source (solicitation) or target (advertisement) link-layer address option.
    pub link_layer: Option<MacAddr>,
}

/// Why a packet was dropped. The rules are those of RFC 4861, sections 7.1.1 and 7.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// The Ethernet header is broken.
    Ether(ether::Drop),
    /// Not IPv6 carrying ICMPv6 (extension headers are not looked behind).
    NotIcmp,
    /// Shorter than its headers say.
    Truncated,
    /// The hop limit is not 255: it may come from beyond the link.
    HopLimit,
    /// The checksum is wrong.
    Checksum,
    /// Neither a solicitation nor an advertisement.
    Type,
    /// The ICMPv6 code is not 0.
    Code,
    /// The target is a multicast address.
    Target,
    /// An option of length 0, or one that ends beyond the packet.
    Options,
    /// A probe (source `::`) that is not sent to the target's solicited-node group, or that carries a
    /// link-layer address.
    Probe,
    /// An advertisement to a group that claims to be solicited.
    Solicited,
    /// The IPv6 source is a multicast address.
    Source,
}

/// The solicited-node group of `address` (RFC 4291, section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The Ethernet group of an IPv6 group (RFC 2464, section 7).
pub const fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

// === impl Message ===

impl Message {
    /// "Does anybody use `target`?" (duplicate address detection, RFC 4862, section 5.4.2).
    pub const fn probe(mac: MacAddr, target: Ipv6Addr) -> Self {
        let group = solicited_node(target);
        Self {
            destination_mac: group_mac(group),
            source_mac: mac,
            source: Ipv6Addr::UNSPECIFIED,
            destination: group,
            kind: Kind::Solicitation,
            target,
            link_layer: None,
        }
    }

    /// "I have `target`", unasked, to all nodes, replacing what they remember (RFC 4861, 7.2.6).
    pub const fn unsolicited(mac: MacAddr, target: Ipv6Addr) -> Self {
        Self {
            destination_mac: group_mac(ALL_NODES),
            source_mac: mac,
            source: target,
            destination: ALL_NODES,
            kind: Kind::Advertisement { router: false, solicited: false, overrides: true },
            target,
            link_layer: Some(mac),
        }
    }

    /// Reads the neighbor message in an Ethernet frame.
    ///
    /// # Errors
    /// See [`Drop`]; the sender is to blame.
    pub fn parse(frame: &[u8]) -> Result<Self, Drop> {
        let (header, payload) = ether::Header::parse(frame).map_err(Drop::Ether)?;
        if header.ether_type != ether::IPV6 {
            return Err(Drop::NotIcmp);
        }
        let (ip, rest) = payload.split_first_chunk::<IPV6_HEADER>().ok_or(Drop::Truncated)?;
        if ip[0] >> 4 != 6 || ip[6] != ICMPV6 {
            return Err(Drop::NotIcmp);
        }
        let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let icmp = rest.get(..length).ok_or(Drop::Truncated)?;
        let (source, destination) = (address(&ip[8..24]), address(&ip[24..40]));
        if icmp.len() < 24 {
            return Err(Drop::Truncated);
        }
        if ip[7] != HOP_LIMIT {
            return Err(Drop::HopLimit);
        }
        let sum = Checksum::default().add_pseudo_v6(source, destination, icmp.len(), ICMPV6);
        if sum.bytes(icmp).finish() != 0 {
            return Err(Drop::Checksum);
        }
        let (kind, option) = match icmp[0] {
            SOLICITATION => (Kind::Solicitation, SOURCE_LINK_LAYER),
            ADVERTISEMENT => {
                let set = |flag| icmp[4] & flag != 0;
                let kind = Kind::Advertisement {
                    router: set(FLAG_ROUTER),
                    solicited: set(FLAG_SOLICITED),
                    overrides: set(FLAG_OVERRIDE),
                };
                (kind, TARGET_LINK_LAYER)
            }
            _ => return Err(Drop::Type),
        };
        if icmp[1] != 0 {
            return Err(Drop::Code);
        }
        let message = Self {
            destination_mac: header.destination,
            source_mac: header.source,
            source,
            destination,
            kind,
            target: address(&icmp[8..24]),
            link_layer: link_layer_option(&icmp[24..], option)?,
        };
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), Drop> {
        if self.target.is_multicast() {
            return Err(Drop::Target);
        }
        if self.source.is_multicast() {
            return Err(Drop::Source);
        }
        match self.kind {
            Kind::Solicitation if self.source.is_unspecified() => {
                let right_group = self.destination == solicited_node(self.target);
                if right_group && self.link_layer.is_none() { Ok(()) } else { Err(Drop::Probe) }
            }
            Kind::Advertisement { solicited: true, .. } if self.destination.is_multicast() => {
                Err(Drop::Solicited)
            }
            Kind::Solicitation | Kind::Advertisement { .. } => Ok(()),
        }
    }

    /// The Ethernet frame of this message.
    pub fn frame(&self) -> Vec<u8> {
        let (kind, flags, option) = match self.kind {
            Kind::Solicitation => (SOLICITATION, 0, SOURCE_LINK_LAYER),
            Kind::Advertisement { router, solicited, overrides } => {
                let flag = |set, flag| if set { flag } else { 0 };
                let flags = flag(router, FLAG_ROUTER)
                    | flag(solicited, FLAG_SOLICITED)
                    | flag(overrides, FLAG_OVERRIDE);
                (ADVERTISEMENT, flags, TARGET_LINK_LAYER)
            }
        };
        let mut icmp = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        icmp.extend_from_slice(&self.target.octets());
        if let Some(mac) = self.link_layer {
            icmp.extend_from_slice(&[option, 1]);
            icmp.extend_from_slice(&mac.0);
        }
        let sum = Checksum::default()
            .add_pseudo_v6(self.source, self.destination, icmp.len(), ICMPV6)
            .bytes(&icmp)
            .finish();
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());

        let mut out = Vec::with_capacity(ether::HEADER_LEN + IPV6_HEADER + icmp.len());
        ether::Header {
            destination: self.destination_mac,
            source: self.source_mac,
            ether_type: ether::IPV6,
        }
        .write(&mut out);
        // At most 32 bytes follow, so the length fits into its low byte.
        out.extend_from_slice(&[0x60, 0, 0, 0, 0, icmp.len() as u8, ICMPV6, HOP_LIMIT]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
        out.extend_from_slice(&icmp);
        out
    }
}

fn address(bytes: &[u8]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    octets.into()
}

/// The first link-layer address option of type `wanted`; others are skipped (RFC 4861, 4.6).
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, Drop> {
    let mut found = None;
    while !options.is_empty() {
        let length = options.get(1).map_or(0, |&units| usize::from(units) * 8);
        if length == 0 || length > options.len() {
            return Err(Drop::Options);
        }
        let (option, rest) = options.split_at(length);
        if option[0] == wanted && length == 8 && found.is_none() {
            let [_, _, a, b, c, d, e, f] = *option else { return Err(Drop::Options) };
            found = Some(MacAddr([a, b, c, d, e, f]));
        }
        options = rest;
    }
    Ok(found)
}

/// Fuzz target: what parses says the same after being written and read again.
pub fn fuzz(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        assert_eq!(Message::parse(&message.frame()), Ok(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn vip() -> Ipv6Addr {
        "fd00::1:2:abcd".parse().unwrap()
    }

    /// Changes a byte and repairs the checksum, so that only the change itself can be the fault.
    fn changed(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame[56..58].fill(0);
        let sum = Checksum::default()
            .add_pseudo_v6(
                address(&frame[22..38]),
                address(&frame[38..54]),
                frame.len() - 54,
                ICMPV6,
            )
            .bytes(&frame[54..])
            .finish();
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn a_probe_goes_to_the_solicited_node_group() {
        let probe = Message::probe(MAC, vip());
        assert_eq!(probe.destination, "ff02::1:ff02:abcd".parse::<Ipv6Addr>().unwrap());
        assert_eq!(probe.destination_mac, MacAddr([0x33, 0x33, 0xff, 0x02, 0xab, 0xcd]));
        assert_eq!(Message::parse(&probe.frame()), Ok(probe));
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_and_carries_the_mac() {
        let message = Message::unsolicited(MAC, vip());
        let frame = message.frame();
        assert_eq!(frame[21], 255, "hop limit");
        assert_eq!(frame[58], FLAG_OVERRIDE);
        assert_eq!(Message::parse(&frame), Ok(message));
    }

    #[test]
    fn each_fault_has_its_name() {
        let advertisement = Message::unsolicited(MAC, vip()).frame();
        let probe = Message::probe(MAC, vip()).frame();
        let parse = |frame: Vec<u8>| Message::parse(&frame);
        assert_eq!(Message::parse(&probe[..60]), Err(Drop::Truncated));
        assert_eq!(Message::parse(&probe[..30]), Err(Drop::Truncated));
        assert_eq!(parse(changed(&probe, 12, 8)), Err(Drop::NotIcmp));
        assert_eq!(parse(changed(&probe, 14, 0x40)), Err(Drop::NotIcmp));
        assert_eq!(parse(changed(&probe, 20, 6)), Err(Drop::NotIcmp));
        assert_eq!(parse(changed(&probe, 21, 254)), Err(Drop::HopLimit));
        assert_eq!(parse(changed(&probe, 54, 133)), Err(Drop::Type));
        assert_eq!(parse(changed(&probe, 55, 1)), Err(Drop::Code));
        assert_eq!(parse(changed(&probe, 77, 1)), Err(Drop::Probe), "another group's target");
        assert_eq!(parse(changed(&advertisement, 62, 0xff)), Err(Drop::Target));
        assert_eq!(parse(changed(&advertisement, 22, 0xff)), Err(Drop::Source));
        assert_eq!(parse(changed(&advertisement, 58, FLAG_SOLICITED)), Err(Drop::Solicited));
        assert_eq!(parse(changed(&advertisement, 79, 0)), Err(Drop::Options));
        assert_eq!(parse(changed(&advertisement, 79, 2)), Err(Drop::Options));
        let mut frame = advertisement;
        frame[56] ^= 1;
        assert_eq!(Message::parse(&frame), Err(Drop::Checksum));
    }
}
