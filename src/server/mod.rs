//! server
pub mod ipam;
