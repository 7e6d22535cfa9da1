//! Ethernet frames written byte by byte, independent of the code under test.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// An ARP packet in an Ethernet frame.
#[derive(Clone, Copy)]
pub(crate) struct Arp {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) htype: u16,
    pub(crate) ptype: u16,
    pub(crate) hlen: u8,
    pub(crate) plen: u8,
    pub(crate) op: u16,
    pub(crate) sha: [u8; 6],
    pub(crate) spa: Ipv4Addr,
    pub(crate) tha: [u8; 6],
    pub(crate) tpa: Ipv4Addr,
}

impl Arp {
    /// A broadcast request.
    pub(crate) fn request(from: [u8; 6], spa: Ipv4Addr, tpa: Ipv4Addr) -> Self {
        Self {
            to: BROADCAST,
            from,
            htype: 1,
            ptype: 0x0800,
            hlen: 6,
            plen: 4,
            op: 1,
            sha: from,
            spa,
            tha: [0; 6],
            tpa,
        }
    }

    /// The answer to it.
    pub(crate) fn reply(from: [u8; 6], ip: Ipv4Addr, to: [u8; 6], asker: Ipv4Addr) -> Self {
        Self {
            to,
            from,
            op: 2,
            sha: from,
            spa: ip,
            tha: to,
            tpa: asker,
            ..Self::request(from, ip, asker)
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = ethernet(self.to, self.from, 0x0806);
        out.extend(self.htype.to_be_bytes());
        out.extend(self.ptype.to_be_bytes());
        out.extend([self.hlen, self.plen]);
        out.extend(self.op.to_be_bytes());
        out.extend(self.sha);
        out.extend(self.spa.octets());
        out.extend(self.tha);
        out.extend(self.tpa.octets());
        out
    }
}

pub(crate) fn arp_request(from: [u8; 6], spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    Arp::request(from, spa, tpa).bytes()
}

pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(to);
    out.extend(from);
    out.extend(ethertype.to_be_bytes());
    out
}

/// A Neighbor Solicitation or Advertisement.
#[derive(Clone)]
pub(crate) struct Nd {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
    pub(crate) hop_limit: u8,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) flags: u32,
    pub(crate) target: Ipv6Addr,
    pub(crate) options: Vec<u8>,
    /// Added to the correct checksum.
    pub(crate) checksum_error: u16,
    /// Instead of the correct one.
    pub(crate) payload_length: Option<u16>,
}

/// ff02::1:ffXX:XXXX.
pub(crate) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let t = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]])
}

pub(crate) fn link_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

impl Nd {
    /// A solicitation as Linux sends it.
    pub(crate) fn solicitation(from: [u8; 6], src: Ipv6Addr, target: Ipv6Addr) -> Self {
        let dst = solicited_node(target);
        let d = dst.octets();
        Self {
            to: [0x33, 0x33, d[12], d[13], d[14], d[15]],
            from,
            src,
            dst,
            hop_limit: 255,
            kind: 135,
            code: 0,
            flags: 0,
            target,
            options: link_option(1, from),
            checksum_error: 0,
            payload_length: None,
        }
    }

    /// A duplicate address detection probe.
    pub(crate) fn probe(from: [u8; 6], target: Ipv6Addr) -> Self {
        let ns = Self::solicitation(from, Ipv6Addr::UNSPECIFIED, target);
        Self { options: Vec::new(), ..ns }
    }

    /// The answer to a solicitation: solicited and overriding.
    pub(crate) fn advertisement(
        from: [u8; 6],
        target: Ipv6Addr,
        to: [u8; 6],
        dst: Ipv6Addr,
    ) -> Self {
        Self {
            to,
            dst,
            src: target,
            kind: 136,
            flags: 0x6000_0000,
            options: link_option(2, from),
            ..Self::solicitation(from, target, target)
        }
    }

    /// The answer to a probe: overriding, to all nodes.
    pub(crate) fn advertisement_to_all(from: [u8; 6], target: Ipv6Addr) -> Self {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let na = Self::advertisement(from, target, [0x33, 0x33, 0, 0, 0, 1], all);
        Self { flags: 0x2000_0000, ..na }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut icmp = vec![self.kind, self.code, 0, 0];
        icmp.extend(self.flags.to_be_bytes());
        icmp.extend(self.target.octets());
        icmp.extend(&self.options);
        let length = self.payload_length.unwrap_or(icmp.len() as u16);
        let sum = checksum(self.src, self.dst, length, &icmp).wrapping_add(self.checksum_error);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut out = ethernet(self.to, self.from, 0x86dd);
        out.extend([0x60, 0, 0, 0]);
        out.extend(length.to_be_bytes());
        out.extend([58, self.hop_limit]);
        out.extend(self.src.octets());
        out.extend(self.dst.octets());
        out.extend(icmp);
        out
    }
}

/// RFC 8200 section 8.1, the slow way.
fn checksum(src: Ipv6Addr, dst: Ipv6Addr, length: u16, icmp: &[u8]) -> u16 {
    let mut data = Vec::new();
    data.extend(src.octets());
    data.extend(dst.octets());
    data.extend(u32::from(length).to_be_bytes());
    data.extend([0, 0, 0, 58]);
    data.extend(icmp);
    if data.len() % 2 == 1 {
        data.push(0);
    }
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ARP reply or a Neighbor Advertisement.
pub(crate) fn is_answer(frame: &[u8]) -> bool {
    let arp = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
    let ndp = frame.len() >= 78 && frame[12..14] == [0x86, 0xdd] && frame[54] == 136;
    arp || ndp
}

/// The frame with an 802.1Q tag.
pub(crate) fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend([0x81, 0]);
    out.extend(vlan.to_be_bytes());
    out.extend(&frame[12..]);
    out
}
