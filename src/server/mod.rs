//! server
pub mod announce;
