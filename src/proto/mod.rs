//! proto
pub mod arp;
pub mod checksum;
pub mod ether;
pub mod ndp;
pub mod vrrp;
