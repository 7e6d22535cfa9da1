//! L4 services through the real programs: packets between network namespaces, clients outside and inside, backends here,
//! on another node and elsewhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../bpf_lab/mod.rs"]
#[macro_use]
mod bpf_lab;
mod agent;
mod ground;
mod packet;
mod programs;
mod reach;
