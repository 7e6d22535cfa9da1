//! The real program on ordinary sockets (`--no-bpf`): changes under load, bad input, restarts, and what its
//! commands print.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a watchdog, and figures that are printed")]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests, of which each uses a part")]
#[path = "../support/backend.rs"]
mod backend;
#[allow(dead_code, unreachable_pub, reason = "shared with other tests, of which each uses a part")]
#[path = "../support/client.rs"]
mod client;

mod access_log;
mod bad_input;
mod commands;
mod gateway;
mod lifecycle;
mod load;
mod reload;
mod support;
