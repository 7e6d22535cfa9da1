//! HTTP/2 as a reverse proxy needs it (RFC 9113, RFC 7541, RFC 8441), both sides, sans-IO.
//!
//! [`Connection`] takes received bytes and gives events; what has to be sent is appended to a buffer of
//! the caller. It keeps the states and windows of streams, and no payload: the caller keeps what it was
//! given until its own receiver takes it, and says so ([`Connection::consumed`]), which is what opens the
//! peer's windows again.
//!
//! # Heads are HTTP/1.1 text
//! A request or response head that arrives is validated and written as the canonical text of HTTP/1.1
//! ([`Connection::text`]), and one that is sent is given as such. So the strict parser of
//! [`http1`](super::http1) judges every head a second time, and whatever works on heads exists once.
//! In the text of a request `transfer-encoding: chunked` says that a body of unknown length follows, as
//! plain bytes; a response of unknown length has no framing header. Trailers are lines `name: value CRLF`.
//!
//! # Rules that hold everywhere
//! - *What RFC 9113 calls malformed is refused*, with a stream error, also where others look away.
//! - *Everything is bounded*: header blocks, fields, streams, frames that carry nothing, streams broken off.
//!   Beyond the bound the connection ends with ENHANCE_YOUR_CALM.
//! - A stream counts as open until the caller has let go of it ([`Connection::release`]): a peer that
//!   breaks streams off does not get more work done than one that waits.
//! - What is sensitive is never put into a compression table.
//!
//! # Where things are
//! `frame.rs`, `settings.rs`, `hpack/` the wire · `head.rs` fields to text · `block.rs` text to fields ·
//! `stream.rs` one stream · `connection.rs` the connection and receiving · `control.rs` frames without
//! a message · `send.rs` sending · `flood.rs` patience ·
//! `fuzz.rs` what the fuzz targets call.
mod block;
mod connection;
mod control;
mod error;
mod flood;
mod frame;
pub mod fuzz;
mod head;
mod hpack;
mod send;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Event, Received};
pub use error::{ConnectionError, ErrorCode};
pub use frame::PREFACE;
pub use head::Refusal;
pub use send::SentHead;

pub use super::http1::{MAX_HEAD_BYTES, MAX_HEADERS};

/// Streams a client may have open. Browsers open dozens, gRPC clients open a second connection beyond it.
pub const MAX_STREAMS: u32 = 128;
/// Bytes a peer may send on a stream before we have passed anything on: what an upload over 10 ms of distance
/// needs for 100 Mbit/s.
pub const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all streams of a connection together: what a connection can make us keep.
pub const CONNECTION_WINDOW: u32 = 512 * 1024;
/// A window before anything was said about it (RFC 9113 section 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;
/// Bytes of one header block as it arrives. Compression makes it smaller than [`MAX_HEAD_BYTES`], padding
/// and Huffman's worst case larger.
const MAX_BLOCK_BYTES: usize = 64 * 1024;
/// Frames of one header block; five hold the largest (CVE-2024-27316 and its kin).
const MAX_CONTINUATIONS: u32 = 16;
/// Fields of one block beyond which nobody means well (a block of one-byte fields decodes to a million).
const MAX_FIELDS: usize = 8 * MAX_HEADERS;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Requests arrive.
    Server,
    /// Requests are sent.
    Client,
}
