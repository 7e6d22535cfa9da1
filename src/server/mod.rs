//! server
pub mod admin;
