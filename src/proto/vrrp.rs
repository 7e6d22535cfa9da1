//! VRRP version 3 advertisements (RFC 9568, section 5.2), for IPv4 and IPv6.
//!
//! ```text
//! 0 version 3, type 1 (4 bits each)   1 VRID   2 priority   3 number of addresses
//! 4 reserved (4 bits), maximum advertisement interval in centiseconds (12 bits)   6 checksum
//! 8 addresses, 4 or 16 bytes each, by the family of the IP header
//! ```
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::checksum::Checksum;
use super::ether;
use crate::api::address::MacAddr;

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// The IPv4 group (RFC 9568, 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The IPv6 group (RFC 9568, 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL and hop limit of every advertisement: whoever is not on the link cannot send it.
pub const TTL: u8 = 255;
/// The count of addresses is one byte.
pub const MAX_ADDRESSES: usize = 255;
/// The largest interval, 12 bits of centiseconds.
pub const MAX_INTERVAL: Duration = Duration::from_millis(40_950);
/// Says that the sender stops being the active router (RFC 9568, 5.2.4).
pub const PRIORITY_RELEASE: u8 = 0;

const HEADER_LEN: usize = 8;
const VERSION_AND_TYPE: u8 = 0x31;

/// An advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The virtual router, 1 to 255.
    pub vrid: u8,
    /// The sender's priority in it; 0 releases it, 255 is the address's owner.
    pub priority: u8,
    /// How often the sender advertises, in whole centiseconds.
    pub interval: Duration,
    /// The virtual addresses, all of the family of the IP header; 1 to 255.
    pub addresses: Vec<IpAddr>,
}

/// Why an advertisement was dropped (RFC 9568, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// TTL or hop limit is not 255: it may come from beyond the link.
    Ttl,
    /// Shorter than its header and addresses.
    Truncated,
    /// Bytes follow the last address.
    TooLong,
    /// Not version 3, such as the older VRRPv2.
    Version,
    /// Not an advertisement.
    Type,
    /// The VRID is 0.
    Vrid,
    /// No address, or an address that no host can have.
    Addresses,
    /// The interval is 0.
    Interval,
    /// The checksum is wrong.
    Checksum,
}

// === impl Advertisement ===

impl Advertisement {
    /// Reads an advertisement that came from `source` with this TTL or hop limit.
    ///
    /// For IPv4 both checksums in use are taken: over the message alone (RFC 9568, 5.2.8) and with a
    /// pseudo header, as implementations of RFC 5798 compute it.
    ///
    /// # Errors
    /// See [`Drop`]; the sender is to blame.
    pub fn parse(source: IpAddr, ttl: u8, payload: &[u8]) -> Result<Self, Drop> {
        if ttl != TTL {
            return Err(Drop::Ttl);
        }
        let (header, body) = payload.split_first_chunk::<HEADER_LEN>().ok_or(Drop::Truncated)?;
        let [version_and_type, vrid, priority, count, high, low, ..] = *header;
        if version_and_type >> 4 != 3 {
            return Err(Drop::Version);
        }
        if version_and_type != VERSION_AND_TYPE {
            return Err(Drop::Type);
        }
        let size = if source.is_ipv4() { 4 } else { 16 };
        match body.len().cmp(&(usize::from(count) * size)) {
            std::cmp::Ordering::Less => return Err(Drop::Truncated),
            std::cmp::Ordering::Greater => return Err(Drop::TooLong),
            std::cmp::Ordering::Equal => {}
        }
        if !checksum_holds(source, payload) {
            return Err(Drop::Checksum);
        }
        if vrid == 0 {
            return Err(Drop::Vrid);
        }
        // The four reserved bits are ignored on receipt.
        let centiseconds = u16::from_be_bytes([high & 0x0f, low]);
        if centiseconds == 0 {
            return Err(Drop::Interval);
        }
        let addresses: Vec<IpAddr> = body.chunks_exact(size).map(address).collect();
        if addresses.is_empty()
            || addresses.iter().any(|it| it.is_multicast() || it.is_unspecified())
        {
            return Err(Drop::Addresses);
        }
        let interval = Duration::from_millis(u64::from(centiseconds) * 10);
        Ok(Self { vrid, priority, interval, addresses })
    }

    /// The payload that goes from `source` to the group of its family. Addresses of the other family and
    /// those after the 255th are left out; the interval is rounded to 1 to 4095 centiseconds.
    ///
    /// For IPv4 the checksum covers a pseudo header, as keepalived 2.2 and tcpdump expect it. RFC 9568
    /// has settled the ambiguity of RFC 5798 the other way; who follows it to the letter cannot read
    /// these, but our agents read both.
    pub fn payload(&self, source: IpAddr) -> Vec<u8> {
        let addresses: Vec<&IpAddr> = self
            .addresses
            .iter()
            .filter(|address| address.is_ipv4() == source.is_ipv4())
            .take(MAX_ADDRESSES)
            .collect();
        let centiseconds = (self.interval.as_millis() / 10).clamp(1, 4095) as u16;
        let [high, low] = centiseconds.to_be_bytes();
        let count = addresses.len() as u8;
        let mut out = vec![VERSION_AND_TYPE, self.vrid, self.priority, count, high, low, 0, 0];
        for address in addresses {
            match address {
                IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
            }
        }
        let sum = match source {
            IpAddr::V4(source) => {
                Checksum::default().add_pseudo_v4(source, GROUP_V4, out.len(), PROTOCOL)
            }
            IpAddr::V6(source) => {
                Checksum::default().add_pseudo_v6(source, GROUP_V6, out.len(), PROTOCOL)
            }
        };
        let sum = sum.bytes(&out).finish();
        out[6..8].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// Finds the VRRP payload in an Ethernet frame: (sender's MAC, IP source, TTL, payload). None if the frame
/// carries none, is broken or fragmented, or is not sent to the VRRP group of its family.
pub fn in_frame(frame: &[u8]) -> Option<(MacAddr, IpAddr, u8, &[u8])> {
    let (header, packet) = ether::Header::parse(frame).ok()?;
    match header.ether_type {
        ether::IPV4 => {
            let first = *packet.first()?;
            let header_length = usize::from(first & 0x0f) * 4;
            let ip = packet.get(..header_length).filter(|ip| ip.len() >= 20 && first >> 4 == 4)?;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
            let intact = Checksum::default().bytes(ip).finish() == 0;
            if fragment || !intact || ip[9] != PROTOCOL || ip[16..20] != GROUP_V4.octets() {
                return None;
            }
            let payload = packet.get(header_length..total)?;
            Some((header.source, address(&ip[12..16]), ip[8], payload))
        }
        ether::IPV6 => {
            let (ip, rest) = packet.split_first_chunk::<40>()?;
            if ip[0] >> 4 != 6 || ip[6] != PROTOCOL || ip[24..40] != GROUP_V6.octets() {
                return None;
            }
            let payload = rest.get(..usize::from(u16::from_be_bytes([ip[4], ip[5]])))?;
            Some((header.source, address(&ip[8..24]), ip[7], payload))
        }
        _ => None,
    }
}

fn checksum_holds(source: IpAddr, payload: &[u8]) -> bool {
    let (plain, pseudo) = (Checksum::default(), Checksum::default());
    match source {
        IpAddr::V4(source) => {
            let pseudo = pseudo.add_pseudo_v4(source, GROUP_V4, payload.len(), PROTOCOL);
            plain.bytes(payload).finish() == 0 || pseudo.bytes(payload).finish() == 0
        }
        IpAddr::V6(source) => {
            let pseudo = pseudo.add_pseudo_v6(source, GROUP_V6, payload.len(), PROTOCOL);
            pseudo.bytes(payload).finish() == 0
        }
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match *bytes {
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => {
            let mut octets = [0; 16];
            octets.copy_from_slice(bytes);
            Ipv6Addr::from(octets).into()
        }
    }
}

/// Fuzz target: a frame is taken apart without a panic. For the payload the first byte chooses the family; what parses says the same after being written and
/// read again.
pub fn fuzz(data: &[u8]) {
    if let Some((_, source, ttl, payload)) = in_frame(data) {
        let _ = Advertisement::parse(source, ttl, payload);
    }
    let Some((&family, payload)) = data.split_first() else { return };
    let source: IpAddr = if family & 1 == 0 {
        Ipv4Addr::new(192, 168, 10, 100).into()
    } else {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into()
    };
    if let Ok(advertisement) = Advertisement::parse(source, TTL, payload) {
        let again = advertisement.payload(source);
        assert_eq!(again.len(), payload.len());
        assert_eq!(Advertisement::parse(source, TTL, &again), Ok(advertisement));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 10, 100));

    fn v6() -> IpAddr {
        "fe80::1".parse().unwrap()
    }

    fn advertisement(addresses: &[&str]) -> Advertisement {
        Advertisement {
            vrid: 7,
            priority: 254,
            interval: Duration::from_millis(100),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// Changes a byte and repairs the (IPv4) checksum.
    fn changed(at: usize, byte: u8) -> Vec<u8> {
        let mut payload = advertisement(&["192.168.10.211"]).payload(V4);
        payload[at] = byte;
        payload[6..8].fill(0);
        let sum = Checksum::default().bytes(&payload).finish();
        payload[6..8].copy_from_slice(&sum.to_be_bytes());
        payload
    }

    #[test]
    fn the_wire_format_is_that_of_rfc_9568() {
        let payload = advertisement(&["192.168.10.211"]).payload(V4);
        assert_eq!(payload[..6], [0x31, 7, 254, 1, 0, 10]);
        assert_eq!(payload[8..], [192, 168, 10, 211]);
        // Message: 0x3107 + 0xfe01 + 0x000a + 0xc0a8 + 0x0ad3 = 0x1fa8d. Pseudo header: 0xc0a8 + 0x0a64 +
        // 0xe000 + 0x0012 + 0x0070 + 0x000c = 0x1ab9a. Together 0x3a627, folded 0xa62a.
        assert_eq!(payload[6..8], (!0xa62a_u16).to_be_bytes());
    }

    #[test]
    fn both_families_survive_the_round_trip_up_to_255_addresses() {
        let four = advertisement(&["192.168.10.211", "192.168.10.212"]);
        assert_eq!(Advertisement::parse(V4, 255, &four.payload(V4)), Ok(four));
        let six = advertisement(&["fe80::200:5eff:fe00:207", "fd00::1"]);
        assert_eq!(Advertisement::parse(v6(), 255, &six.payload(v6())), Ok(six));
        let mut many = advertisement(&[]);
        many.addresses = (0..300).map(|i| Ipv4Addr::from(0x0a00_0001 + i).into()).collect();
        let read = Advertisement::parse(V4, 255, &many.payload(V4)).unwrap();
        assert_eq!(read.addresses[..], many.addresses[..255]);
    }

    #[test]
    fn both_checksums_are_taken_for_ipv4() {
        // `changed` computes the one of RFC 9568, `payload` the one with a pseudo header.
        let mut payload = changed(2, 100);
        assert_eq!(Advertisement::parse(V4, 255, &payload).unwrap().priority, 100);
        let other = advertisement(&["192.168.10.211"]).payload(V4);
        assert_eq!(Advertisement::parse(V4, 255, &other).unwrap().priority, 254);
        payload[7] ^= 1;
        assert_eq!(Advertisement::parse(V4, 255, &payload), Err(Drop::Checksum));
    }

    #[test]
    fn an_advertisement_is_found_in_a_frame_and_only_there() {
        let payload = advertisement(&["192.168.10.211"]).payload(V4);
        let mut frame = vec![1, 0, 0x5e, 0, 0, 0x12, 2, 0, 0, 0, 0, 1, 8, 0];
        let mut ip = vec![0x45, 0xc0, 0, 32, 0, 1, 0, 0, 255, 112, 0, 0];
        ip.extend_from_slice(&[192, 168, 10, 100, 224, 0, 0, 18]);
        let sum = Checksum::default().bytes(&ip).finish();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&payload);
        frame.resize(60, 0);
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        assert_eq!(in_frame(&frame), Some((mac, V4, 255, &payload[..])), "padding is cut off");
        for at in [13, 14, 20, 23, 24, 33] {
            let mut broken = frame.clone();
            broken[at] ^= 0x20;
            assert_eq!(in_frame(&broken), None, "byte {at}");
        }
        assert_eq!(in_frame(&frame[..40]), None);
    }

    #[test]
    fn the_ipv6_checksum_covers_the_source() {
        let payload = advertisement(&["fd00::1"]).payload(v6());
        let other: IpAddr = "fe80::2".parse().unwrap();
        assert_eq!(Advertisement::parse(other, 255, &payload), Err(Drop::Checksum));
    }

    #[test]
    fn the_interval_is_rounded_to_twelve_bits() {
        let mut long = advertisement(&["192.168.10.211"]);
        long.interval = Duration::from_secs(3600);
        let read = Advertisement::parse(V4, 255, &long.payload(V4)).unwrap();
        assert_eq!(read.interval, MAX_INTERVAL);
        long.interval = Duration::from_millis(3);
        let read = Advertisement::parse(V4, 255, &long.payload(V4)).unwrap();
        assert_eq!(read.interval, Duration::from_millis(10));
    }

    #[test]
    fn each_fault_has_its_name() {
        let parse = |payload: &[u8]| Advertisement::parse(V4, 255, payload).unwrap_err();
        let good = changed(1, 7);
        assert_eq!(Advertisement::parse(V4, 254, &good), Err(Drop::Ttl));
        assert_eq!(parse(&good[..7]), Drop::Truncated);
        assert_eq!(parse(&good[..10]), Drop::Truncated);
        assert_eq!(parse(&[&good[..], &[0]].concat()), Drop::TooLong);
        assert_eq!(parse(&changed(0, 0x21)), Drop::Version);
        assert_eq!(parse(&changed(0, 0x32)), Drop::Type);
        assert_eq!(parse(&changed(1, 0)), Drop::Vrid);
        assert_eq!(parse(&changed(5, 0)), Drop::Interval);
        assert_eq!(parse(&changed(8, 224)), Drop::Addresses);
        assert_eq!(parse(&advertisement(&[]).payload(V4)), Drop::Addresses);
        let mut bad = good;
        bad[6] ^= 0x10;
        assert_eq!(parse(&bad), Drop::Checksum);
        assert_eq!(
            Advertisement::parse(V4, 255, &changed(4, 0xf0)).unwrap().interval.as_millis(),
            100
        );
    }
}
