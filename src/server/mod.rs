//! server
pub mod manifests;
//! The servers, one folder each. A server never imports another one.
pub mod datapath;
pub mod endpoint;
pub mod route;
pub mod store;
pub mod ipam;
pub mod announce;
pub mod admin;
