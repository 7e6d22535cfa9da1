//! HTTP/1.0 and HTTP/1.1 as a reverse proxy needs them (RFC 9110, RFC 9112), sans-IO.
//!
//! Bytes in, views out: [`parse_request`] and [`parse_response`] borrow from the receive buffer,
//! [`BodyDecoder`] says which ranges of it are payload, [`write_request_head`] and
//! [`write_response_head`] append the forwarded head to a buffer of the caller. Nothing here
//! allocates per message (trailers aside), reads a clock or touches a socket.
//!
//! # Rules that hold everywhere
//! - *Never re-emit what the peer used for framing.* Every forwarded message carries exactly one
//!   framing header, written from [`BodyFraming`], and one `host`, written from [`Authority`].
//! - *What two implementations could read in two ways is refused* with 400 (client) or 502
//!   (upstream) and the connection is closed. Liberties RFC 9112 gives to a recipient (bare LF,
//!   obs-fold, lists of equal Content-Length) are not taken.
//! - *The verdict does not depend on how the bytes were split*: a head is judged line by line, and
//!   only whole lines are judged.
//! - A connection is reused only when both bodies are known to have ended ([`reuse`]).
//!
//! # Where things are
//! `request.rs`, `response.rs` heads · `authority.rs` Host · `field.rs` names and lists ·
//! `syntax.rs` the strict line walker that names faults · `chunked.rs`, `body.rs` bodies ·
//! `forward.rs` writers · `edit.rs` filters' changes · `respond.rs` our own answers · `reuse.rs` connection life ·
//! `trust.rs` who the client is · `request_id.rs` · `fuzz.rs` what the fuzz targets call.
mod authority;
mod body;
mod chunked;
mod edit;
mod error;
mod field;
mod forward;
pub mod fuzz;
mod request;
mod request_id;
mod respond;
mod response;
pub mod reuse;
mod syntax;
#[cfg(test)]
mod tests;
mod trust;

pub use authority::Authority;
pub use body::{BodyDecoder, BodyEncoder, BodyPart, LengthCounter};
pub use chunked::{
    CHUNK_END, ChunkSizeLine, ChunkedDecoder, LAST_CHUNK, keeps_trailer, write_chunk,
    write_last_chunk,
};
pub use edit::{HeadEditor, is_editable};
pub use error::{AuthorityFault, BodyError, ChunkFault, HeadFault, RequestError, ResponseError};
pub use field::{is_field_name, is_field_value, list_items};
pub use forward::{
    ForwardContext, PeerAddress, ResponseContext, SentResponse, write_request_head,
    write_response_head,
};
pub use httparse::Header;
pub use request::{RequestHead, Upgrade, parse_request};
pub use request_id::RequestId;
pub use respond::{CONTINUE, LocalReply, ReplyContext, write_local_reply};
pub use response::{ResponseHead, ResponseTo, parse_response};
pub use trust::{MAX_FORWARDED_ELEMENTS, Trust, Vouched, client_of, scheme_of, walk};

use std::mem::MaybeUninit;

/// Bytes of one head, start line to empty line. Envoy's default (`max_request_headers_kb: 60`), so
/// that whoever comes from there finds the same limit; a connection holds such a buffer only while
/// a head that large is arriving.
pub const MAX_HEAD_BYTES: usize = 60 * 1024;
/// Header lines of one head. Envoy allows 100; 128 is what fits the bit set that marks special ones.
pub const MAX_HEADERS: usize = 128;
/// Bytes of a request line without its CRLF, hence roughly of a URI: twice nginx's 8 KiB, enough
/// for SAML and OAuth redirects.
pub const MAX_REQUEST_LINE_BYTES: usize = 16 * 1024;
/// Bytes of a method. The longest registered one (`UPDATEREDIRECTREF`) has 17.
pub const MAX_METHOD_BYTES: usize = 32;
/// Bytes of the name in an authority: the longest DNS name.
pub const MAX_HOST_BYTES: usize = 255;
/// Largest Content-Length or chunk: what fits a signed 64 bit integer, which many peers use.
pub const MAX_BODY_LENGTH: u64 = i64::MAX as u64;
/// Hexadecimal digits of a chunk size, leading zeros included.
pub const MAX_CHUNK_SIZE_DIGITS: u8 = 16;
/// Bytes of the extension of one chunk. Extensions are dropped; nobody needs longer ones.
pub const MAX_CHUNK_EXTENSION_BYTES: u32 = 256;
/// Bytes of extensions in one body, so that they cannot be made the bulk of it (CVE-2023-39326).
pub const MAX_CHUNK_EXTENSIONS_BYTES: u32 = 16 * 1024;
/// Bytes of a trailer section: trailers are buffered, unlike bodies.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Interim (1xx) responses an upstream may send before the final one.
pub const MAX_INTERIM_RESPONSES: u8 = 16;

/// Protocol version of a message; those of HTTP/1 are the only two that are parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no persistence unless asked for.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, of a client whose messages are translated: it has no say in framing and persistence.
    Http2,
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// This many bytes; `Length(0)` was declared, `None` was not.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything until the connection closes; responses only.
    UntilClose,
}

/// What a head parser found.
#[derive(Debug)]
pub enum Parsed<T> {
    /// The head has not ended yet and nothing is wrong with its lines so far.
    Partial,
    /// A head, and how many bytes of the buffer it took.
    Complete(T, usize),
}

/// Room for the headers of one message. Uninitialised, so making one costs nothing: keep it on the
/// stack of the function that parses and forwards.
pub struct HeaderSlots<'b>(pub(crate) [MaybeUninit<Header<'b>>; MAX_HEADERS]);

/// How far a growing head has been looked at, so that a peer that sends it byte by byte costs one
/// scan of each byte and one parse of each line, not one parse of everything per byte.
///
/// Keep one per connection and [`reset`](Self::reset) it for each head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadProgress {
    seen: usize,
}

// === impl HeaderSlots ===

impl HeaderSlots<'_> {
    /// Room for [`MAX_HEADERS`] headers.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_HEADERS])
    }
}

impl Default for HeaderSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

// === impl HeadProgress ===

impl HeadProgress {
    /// Starts over, for the next head on the connection.
    pub fn reset(&mut self) {
        self.seen = 0;
    }

    /// Whether `window` holds a line end that was not there at the last call.
    #[inline]
    fn advance(&mut self, window: &[u8]) -> bool {
        let new = window.get(self.seen..).unwrap_or_default();
        // The first look goes straight to the parser: the head is usually complete.
        let news = self.seen == 0 || new.contains(&b'\n');
        self.seen = window.len();
        news
    }
}

// === impl Version ===

impl Version {
    #[inline]
    fn from_minor(minor: u8) -> Self {
        if minor == 0 { Self::Http10 } else { Self::Http11 }
    }
}

/// Where `part`, a sub-slice of `whole`, begins in it.
#[inline]
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}
