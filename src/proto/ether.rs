//! Ethernet II headers (IEEE 802.3): destination (6), source (6), type (2), payload.
use crate::api::address::MacAddr;

/// Bytes of an Ethernet header without a VLAN tag.
pub const HEADER_LEN: usize = 14;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// An Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// To whom.
    pub destination: MacAddr,
    /// From whom.
    pub source: MacAddr,
    /// What the payload is; at least 0x0600.
    pub ether_type: u16,
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// Shorter than a header.
    Truncated,
    /// The type field is a length (IEEE 802.3 LLC), not an EtherType.
    NotEthernetII,
    /// The source is a group address, which no sender has.
    GroupSource,
}

// === impl Header ===

impl Header {
    /// Splits a frame into header and payload.
    ///
    /// # Errors
    /// See [`Drop`]; the sender is to blame.
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), Drop> {
        let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().ok_or(Drop::Truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let header = Self {
            destination: MacAddr([d0, d1, d2, d3, d4, d5]),
            source: MacAddr([s0, s1, s2, s3, s4, s5]),
            ether_type: u16::from_be_bytes([t0, t1]),
        };
        if header.ether_type < 0x0600 {
            return Err(Drop::NotEthernetII);
        }
        if header.source.0[0] & 1 == 1 {
            return Err(Drop::GroupSource);
        }
        Ok((header, payload))
    }

    /// Appends the header to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.destination.0);
        out.extend_from_slice(&self.source.0);
        out.extend_from_slice(&self.ether_type.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip_and_faults_are_named() {
        let header = Header {
            destination: MacAddr::BROADCAST,
            source: MacAddr([2, 0, 0, 0, 0, 1]),
            ether_type: ARP,
        };
        let mut frame = Vec::new();
        header.write(&mut frame);
        frame.extend_from_slice(b"payload");
        assert_eq!(Header::parse(&frame), Ok((header, &b"payload"[..])));
        assert_eq!(Header::parse(&frame[..13]), Err(Drop::Truncated));
        frame[6] = 1;
        assert_eq!(Header::parse(&frame), Err(Drop::GroupSource));
        frame[12] = 5;
        assert_eq!(Header::parse(&frame), Err(Drop::NotEthernetII));
    }
}
