//! The wire: loss, delay, duplicates, partitions.
use std::sync::Arc;

use pilus::api::address::MacAddr;

/// Small, fast and reproducible (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Frame(Arc<[u8]>),
    Vrrp { mac: MacAddr, source: std::net::IpAddr, payload: Arc<[u8]> },
}

#[derive(Debug, Clone)]
pub(crate) struct Wire {
    /// Percent of packets lost on each receiver's port.
    pub(crate) loss: u64,
    /// Percent delivered twice.
    pub(crate) duplicates: u64,
    /// The longest delay in microseconds.
    pub(crate) delay_micros: u64,
    /// Which side of a partition each node is on.
    pub(crate) side: Vec<u8>,
}

impl Wire {
    /// The delays of the copies that arrive, in nanoseconds.
    pub(crate) fn copies(&self, random: &mut Random) -> Vec<u64> {
        let mut copies = Vec::new();
        if !random.chance(self.loss) {
            copies.push((50 + random.below(self.delay_micros)) * 1000);
            if random.chance(self.duplicates) {
                copies.push((50 + random.below(self.delay_micros)) * 1000);
            }
        }
        copies
    }
}
