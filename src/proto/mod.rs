//! proto
pub mod claims;
pub mod fuzz;
pub mod http1;
pub mod object;
pub mod value;
//! Sans-IO codecs: bytes in, values out, and back.
pub mod x509;
pub mod arp;
pub mod checksum;
pub mod ether;
pub mod ndp;
pub mod vrrp;
//! Codecs without input and output: bytes in, views and decisions out.
pub mod http1;
pub mod tls;
