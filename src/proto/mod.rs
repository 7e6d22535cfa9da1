//! Codecs without input and output: bytes in, values out, and back.
pub mod access_log;
pub mod arp;
pub mod calendar;
pub mod checksum;
pub mod claims;
pub mod dns;
pub mod ether;
pub mod fuzz;
pub mod http1;
pub mod http2;
pub mod ndp;
pub mod object;
pub mod proxy_protocol;
pub mod tls;
pub mod value;
pub mod vrrp;
pub mod x509;
