//! LB-IPAM: one test per line of the specification (`table`), and whole clusters on a bad network
//! (`simulation`).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod harness;
mod packets;
mod scale;
mod simulation;
mod table;
