//! server
pub mod manifests;
