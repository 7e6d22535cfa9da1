//! Pilus: LoadBalancer addresses, L2 announcement, Ingress and routing in one binary per node.
pub mod api;
pub mod arrange;
/// The command line; the only part that people see, and that no server imports.
pub mod cli;
#[allow(unsafe_code, reason = "the only directory that may make system calls")]
pub mod io;
pub mod kernel;
pub mod kube_lite;
pub mod proto;
pub mod server;
