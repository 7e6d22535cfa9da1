//! The whole program on real packets: real agents in network namespaces on one bridge, and everything that
//! can happen to them. Needs root. What is counted are answers; milliseconds are only printed, but for the
//! promise that a dead holder is replaced within a second.
#![expect(clippy::unwrap_used, reason = "a test: whatever fails should end it with its place")]
#![expect(
    clippy::disallowed_methods,
    reason = "waits are bounded and takeovers measured by the clock"
)]
#[path = "../bpf_lab/mod.rs"]
mod bpf_lab;
mod faults;
mod healing;
mod lab;
mod steady;
mod wire;
