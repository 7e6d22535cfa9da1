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
//! The servers. Each is on its own and sees only `kernel`, `api` and `proto` (proxy and admin also `io`,
//! for the tasks of their connections).
pub mod proxy;
