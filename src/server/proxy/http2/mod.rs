//! HTTP/2 on sockets, both sides: each stream is a [`Stream`](super::stream::Stream) like any other to what serves
//! requests.
//!
//! A connection has one task ([`driver`]) that owns the transport; all that streams have to send meets in one
//! buffer and leaves with one system call. `session.rs` what that task and the streams share · `stream_io.rs` a
//! stream as the end of an exchange · `server.rs` clients' connections · `client.rs` endpoints' connections.
mod client;
mod driver;
mod server;
mod session;
mod stream_io;

pub(super) use client::{Pool, Turn, begin, poll_turn};
pub(super) use server::{is_wanted, serve};
pub(super) use stream_io::StreamIo;
