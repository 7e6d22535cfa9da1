//! The servers, one folder each. A server never imports another one; it sees `kernel`, `api` and `proto`
//! (proxy and admin also `io`, for the tasks of their connections).
pub mod admin;
pub mod announce;
pub mod datapath;
pub mod endpoint;
pub mod ipam;
pub mod kube;
pub mod manifests;
pub mod proxy;
pub mod publish;
pub mod route;
pub mod service;
pub mod store;
