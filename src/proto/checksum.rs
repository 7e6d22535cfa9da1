//! The Internet checksum (RFC 1071) and the IPv6 pseudo header (RFC 8200, section 8.1).
use std::net::{Ipv4Addr, Ipv6Addr};

/// A running one's complement sum.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum(u32);

// === impl Checksum ===

impl Checksum {
    /// Adds bytes, as big-endian 16-bit words; an odd last byte is padded with zero, so only the last
    /// piece may have an odd length.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            self.0 += u32::from(word);
            self.0 = (self.0 & 0xffff) + (self.0 >> 16);
        }
        self
    }

    /// Adds the IPv6 pseudo header for a payload of `length` bytes of the protocol `next_header`.
    #[must_use]
    pub fn add_pseudo_v6(
        self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        length: usize,
        next_header: u8,
    ) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes(&source.octets())
            .bytes(&destination.octets())
            .bytes(&length.to_be_bytes())
            .bytes(&[0, 0, 0, next_header])
    }

    /// Adds the IPv4 pseudo header of TCP and UDP, which older VRRPv3 implementations use as well.
    #[must_use]
    pub fn add_pseudo_v4(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        length: usize,
        protocol: u8,
    ) -> Self {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.bytes(&source.octets())
            .bytes(&destination.octets())
            .bytes(&[0, protocol])
            .bytes(&length.to_be_bytes())
    }

    /// What belongs into the packet's checksum field, or zero if a sum that includes a correct checksum
    /// field was made.
    pub const fn finish(self) -> u16 {
        let folded = (self.0 & 0xffff) + (self.0 >> 16);
        !(folded as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_and_an_odd_length() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Checksum::default().bytes(&bytes).finish(), !0xddf2);
        assert_eq!(
            Checksum::default().bytes(&[1, 2, 3]).finish(),
            Checksum::default().bytes(&[1, 2, 3, 0]).finish()
        );
    }
}
