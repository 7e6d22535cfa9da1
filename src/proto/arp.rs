//! ARP for IPv4 over Ethernet (RFC 826), with the probes and announcements of RFC 5227.
//!
//! ```text
//!  0 hardware type = 1      2 protocol type = 0x0800   4 hardware length = 6   5 protocol length = 4
//!  6 operation              8 sender MAC              14 sender IPv4
//! 18 target MAC            24 target IPv4             28 padding
//! ```
use std::net::Ipv4Addr;

use super::ether;
use crate::api::address::MacAddr;

/// Bytes of an ARP packet for IPv4 over Ethernet. Longer ones are padded (the Ethernet minimum).
pub const PACKET_LEN: usize = 28;

/// What an ARP packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// Who sends.
    pub sender_mac: MacAddr,
    /// The address the sender claims; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// Who is meant; ignored in a request.
    pub target_mac: MacAddr,
    /// The address asked for.
    pub target: Ipv4Addr,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// The Ethernet header is broken.
    Ether(ether::Drop),
    /// The EtherType is another.
    NotArp,
    /// Shorter than a packet.
    Truncated,
    /// Not Ethernet, or its address length is not 6.
    Hardware,
    /// Not IPv4, or its address length is not 4.
    Protocol,
    /// Neither a request nor a reply.
    Operation,
    /// The sender address in the packet is not the frame's: a forgery, or a proxy we do not want.
    SenderMismatch,
    /// The sender claims a multicast, broadcast or loopback address.
    SenderAddress,
}

// === impl Packet ===

impl Packet {
    /// "Does anybody use `address`?" without claiming it (RFC 5227, section 2.1.1).
    pub const fn probe(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddr::ZERO,
            target: address,
        }
    }

    /// "I use `address`" (RFC 5227, section 2.3: a request with both addresses the same), or the same
    /// said as a reply, which some hosts heed that ignore the request, and the other way round.
    pub const fn announcement(operation: Operation, mac: MacAddr, address: Ipv4Addr) -> Self {
        let target_mac = match operation {
            Operation::Request => MacAddr::ZERO,
            Operation::Reply => MacAddr::BROADCAST,
        };
        Self { operation, sender_mac: mac, sender: address, target_mac, target: address }
    }

    /// Whether the sender asks without claiming an address.
    pub const fn is_probe(&self) -> bool {
        matches!(self.operation, Operation::Request) && self.sender.is_unspecified()
    }

    /// Reads the ARP packet in an Ethernet frame.
    ///
    /// # Errors
    /// See [`Drop`]; the sender is to blame.
    pub fn parse(frame: &[u8]) -> Result<Self, Drop> {
        let (header, payload) = ether::Header::parse(frame).map_err(Drop::Ether)?;
        if header.ether_type != ether::ARP {
            return Err(Drop::NotArp);
        }
        let packet = payload.first_chunk::<PACKET_LEN>().ok_or(Drop::Truncated)?;
        if packet[..2] != [0, 1] || packet[4] != 6 {
            return Err(Drop::Hardware);
        }
        if packet[2..4] != [8, 0] || packet[5] != 4 {
            return Err(Drop::Protocol);
        }
        let operation = match packet[6..8] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return Err(Drop::Operation),
        };
        let packet = Self {
            operation,
            sender_mac: mac(packet, 8),
            sender: ipv4(packet, 14),
            target_mac: mac(packet, 18),
            target: ipv4(packet, 24),
        };
        if packet.sender_mac != header.source {
            return Err(Drop::SenderMismatch);
        }
        let sender = packet.sender;
        if sender.is_multicast() || sender.is_broadcast() || sender.is_loopback() {
            return Err(Drop::SenderAddress);
        }
        Ok(packet)
    }

    /// The Ethernet frame that carries this packet to `destination`.
    pub fn frame(&self, destination: MacAddr) -> Vec<u8> {
        let mut out = Vec::with_capacity(ether::HEADER_LEN + PACKET_LEN);
        ether::Header { destination, source: self.sender_mac, ether_type: ether::ARP }
            .write(&mut out);
        out.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0]);
        out.push(match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        });
        out.extend_from_slice(&self.sender_mac.0);
        out.extend_from_slice(&self.sender.octets());
        out.extend_from_slice(&self.target_mac.0);
        out.extend_from_slice(&self.target.octets());
        out
    }
}

const fn mac(packet: &[u8; PACKET_LEN], at: usize) -> MacAddr {
    MacAddr([
        packet[at],
        packet[at + 1],
        packet[at + 2],
        packet[at + 3],
        packet[at + 4],
        packet[at + 5],
    ])
}

const fn ipv4(packet: &[u8; PACKET_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

/// Fuzz target: what parses is written back to the same bytes (padding aside).
pub fn fuzz(data: &[u8]) {
    if let Ok(packet) = Packet::parse(data) {
        let destination = MacAddr([data[0], data[1], data[2], data[3], data[4], data[5]]);
        let frame = packet.frame(destination);
        assert_eq!(frame[..], data[..frame.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 211);

    #[test]
    fn probe_and_announcements_look_as_rfc_5227_says() {
        let probe = Packet::probe(MAC, VIP);
        assert!(probe.is_probe());
        let frame = probe.frame(MacAddr::BROADCAST);
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[..6], &[0xff; 6]);
        assert_eq!(&frame[28..32], &[0, 0, 0, 0], "a probe claims nothing");
        assert_eq!(&frame[38..42], &VIP.octets());
        assert_eq!(Packet::parse(&frame), Ok(probe));
        for operation in [Operation::Request, Operation::Reply] {
            let packet = Packet::announcement(operation, MAC, VIP);
            assert_eq!((packet.sender, packet.target), (VIP, VIP));
            assert!(!packet.is_probe());
            let mut padded = packet.frame(MacAddr::BROADCAST);
            padded.resize(60, 0);
            assert_eq!(Packet::parse(&padded), Ok(packet), "padding is no fault");
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let good = Packet::probe(MAC, VIP).frame(MacAddr::BROADCAST);
        let broken = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            Packet::parse(&frame)
        };
        assert_eq!(Packet::parse(&good[..41]), Err(Drop::Truncated));
        assert_eq!(Packet::parse(&good[..5]), Err(Drop::Ether(ether::Drop::Truncated)));
        assert_eq!(broken(13, 0), Err(Drop::NotArp));
        assert_eq!(broken(15, 6), Err(Drop::Hardware));
        assert_eq!(broken(18, 8), Err(Drop::Hardware));
        assert_eq!(broken(16, 0x86), Err(Drop::Protocol));
        assert_eq!(broken(19, 16), Err(Drop::Protocol));
        assert_eq!(broken(21, 3), Err(Drop::Operation), "RARP");
        assert_eq!(broken(20, 1), Err(Drop::Operation));
        assert_eq!(broken(27, 9), Err(Drop::SenderMismatch));
        assert_eq!(broken(28, 224), Err(Drop::SenderAddress));
        assert_eq!(broken(28, 127), Err(Drop::SenderAddress));
    }
}
