//! Packets written byte by byte, with checksums of their own making.
use std::net::{IpAddr, SocketAddr};

/// What a packet is made of.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ttl: u8,
    /// IPv4: offset in units of eight bytes, and whether more follow.
    pub(crate) fragment: (u16, bool),
    pub(crate) body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    /// Flags and payload.
    Tcp(u8, Vec<u8>),
    Udp(Vec<u8>),
    /// UDP over IPv4 without a checksum.
    UdpUnchecked(Vec<u8>),
    /// Type, code, the four bytes after the checksum, and what is quoted or echoed.
    Icmp(u8, u8, [u8; 4], Vec<u8>),
    /// What comes after a first fragment.
    Later(u8, Vec<u8>),
}

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut total: u32 = bytes.chunks(2).map(word).sum();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !(total as u16)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Packet {
    fn is_v6(&self) -> bool {
        self.to.is_ipv6()
    }

    fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp(..) => 6,
            Body::Udp(_) | Body::UdpUnchecked(_) => 17,
            Body::Icmp(..) if self.is_v6() => 58,
            Body::Icmp(..) => 1,
            Body::Later(protocol, _) => *protocol,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let (mut bytes, place) = match &self.body {
            Body::Tcp(flags, payload) => {
                let head = [0, 0, 0, 7, 0, 0, 0, 9, 0x50, *flags, 1, 0, 0, 0, 0, 0];
                ([&ports[..], &head, payload].concat(), 16)
            }
            Body::Udp(payload) | Body::UdpUnchecked(payload) => {
                let length = (payload.len() as u16 + 8).to_be_bytes();
                ([&ports[..], &length, &[0, 0], payload].concat(), 6)
            }
            Body::Icmp(kind, code, word, rest) => {
                ([&[*kind, *code, 0, 0][..], word, rest].concat(), 2)
            }
            Body::Later(_, payload) => return payload.clone(),
        };
        if matches!(self.body, Body::UdpUnchecked(_)) {
            return bytes;
        }
        let pseudo = match (&self.body, self.is_v6()) {
            (Body::Icmp(..), false) => Vec::new(),
            _ => [
                octets(self.from.ip()),
                octets(self.to.ip()),
                (bytes.len() as u32).to_be_bytes().to_vec(),
                vec![0, 0, 0, self.protocol()],
            ]
            .concat(),
        };
        let sum = sum(&[&pseudo, &bytes]).to_be_bytes();
        bytes[place..place + 2].copy_from_slice(&sum);
        bytes
    }

    /// From the IP header on.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let transport = self.transport();
        if self.is_v6() {
            let length = (transport.len() as u16).to_be_bytes();
            let head = [0x60, 0, 0, 0, length[0], length[1], self.protocol(), self.ttl];
            return [&head[..], &octets(self.from.ip()), &octets(self.to.ip()), &transport]
                .concat();
        }
        let length = (transport.len() as u16 + 20).to_be_bytes();
        let fragment = (self.fragment.0 | u16::from(self.fragment.1) << 13).to_be_bytes();
        let mut head = vec![0x45, 0, length[0], length[1], 0x12, 0x34, fragment[0], fragment[1]];
        head.extend([self.ttl, self.protocol(), 0, 0]);
        head.extend(octets(self.from.ip()));
        head.extend(octets(self.to.ip()));
        let sum = sum(&[&head]).to_be_bytes();
        head[10..12].copy_from_slice(&sum);
        [head, transport].concat()
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let kind = if self.is_v6() { [0x86, 0xdd] } else { [8, 0] };
        [&self.macs[0][..], &self.macs[1], &kind, &self.ip()].concat()
    }
}
