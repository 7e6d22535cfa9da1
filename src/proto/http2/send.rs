//! Sending: heads, bodies, trailers, and breaking off.
use super::block::{self, SentFacts};
use super::connection::{Connection, Departure};
use super::error::ErrorCode;
use super::frame::{self, FrameHeader, HEADER_BYTES, MAX_FRAME_BYTES};
use super::stream::{Half, Reset, Stream};
use super::{MAX_STREAMS, STREAM_WINDOW};

/// Where the flags are in a frame.
const FLAGS_AT: usize = 4;
/// The highest id of a stream (RFC 9113 section 5.1.1).
const MAX_ID: u32 = 0x7fff_ffff;

/// A head that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentHead {
    /// Bytes of the text it took.
    pub consumed: usize,
    /// Another head follows: this was an interim response.
    pub interim: bool,
    /// Nothing follows.
    pub ended: bool,
}

impl Connection {
    /// Sends the response head that `text` begins with. `None`: the stream has ended, or there is no head.
    pub fn send_response(
        &mut self,
        stream: u32,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<SentHead> {
        let at = self.find(stream)?;
        if self.streams[at].reset != Reset::None || self.streams[at].send != Half::Head {
            return None;
        }
        let facts = self.write_response(stream, text, 0, out)?;
        let interim = facts.status < 200 && facts.status != 101;
        if !interim {
            self.streams[at].send = Half::Body;
        }
        self.patience.useful_frame();
        Some(SentHead { consumed: facts.consumed, interim, ended: false })
    }

    pub(super) fn write_response(
        &mut self,
        stream: u32,
        text: &[u8],
        flags: u8,
        out: &mut Vec<u8>,
    ) -> Option<SentFacts> {
        let start = begin_block(out);
        let Some(facts) = block::write_response(&mut self.encoder, text, out) else {
            return self.give_up(start, out);
        };
        self.end_block(stream, flags, start, out);
        Some(facts)
    }

    /// Opens a stream with the request head that `text` begins with; returns its id. `None`: no more streams can be
    /// opened now.
    pub fn open(&mut self, token: u32, text: &[u8], out: &mut Vec<u8>) -> Option<(u32, SentHead)> {
        if self.room_for_streams() == 0 {
            return None;
        }
        let id = self.next_id;
        let start = begin_block(out);
        let scheme = self.scheme.as_bytes();
        let Some(facts) = block::write_request(&mut self.encoder, text, scheme, out) else {
            return self.give_up(start, out);
        };
        self.next_id += 2;
        let flags = if facts.bodyless { frame::END_STREAM } else { 0 };
        self.end_block(id, flags, start, out);
        let mut stream = Stream::new(id, token, self.peer.initial_window, STREAM_WINDOW);
        stream.send = if facts.bodyless { Half::Ended } else { Half::Body };
        stream.is_head = facts.is_head;
        self.streams.push(stream);
        self.patience.useful_frame();
        let sent = SentHead { consumed: facts.consumed, interim: false, ended: facts.bodyless };
        Some((id, sent))
    }

    /// How many more streams can be opened now.
    #[must_use]
    pub fn room_for_streams(&self) -> usize {
        let leaving = self.refused_above.is_some() || self.departure != Departure::None;
        if leaving || self.next_id > MAX_ID {
            return 0;
        }
        (self.peer.max_streams.min(MAX_STREAMS) as usize).saturating_sub(self.streams.len())
    }

    /// Whether this connection will take more streams, now or later.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let leaving = self.refused_above.is_some() || self.departure != Departure::None;
        !leaving && self.next_id <= MAX_ID
    }

    /// A stream that the peer has said it did not look at: it can be tried elsewhere. Its token.
    pub fn take_refused(&mut self) -> Option<u32> {
        let last = self.refused_above?;
        let mut refused = self.streams.iter_mut().filter(|s| s.id > last && s.reset == Reset::None);
        let stream = refused.next()?;
        stream.reset = Reset::ByPeer;
        Some(stream.token)
    }

    /// Bytes that may be sent on the stream now; `None` if it takes none ever again.
    #[must_use]
    pub fn window(&self, stream: u32) -> Option<usize> {
        let stream = &self.streams[self.find(stream)?];
        let open = stream.reset == Reset::None && stream.send == Half::Body;
        open.then(|| stream.send_window.min(self.send_window).max(0) as usize)
    }

    /// Whether the window of the whole connection is open.
    #[must_use]
    pub fn may_send(&self) -> bool {
        self.send_window > 0
    }

    /// Sends as much of the parts, one after the other, as the windows allow, and at most `room` bytes;
    /// returns how much that is.
    pub fn send_data(
        &mut self,
        stream: u32,
        parts: [&[u8]; 3],
        room: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some(window) = self.window(stream) else { return 0 };
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let mut left = whole.min(window).min(room);
        let sent = left;
        let mut parts = parts.into_iter();
        let mut part: &[u8] = &[];
        while left > 0 {
            let length = left.min(MAX_FRAME_BYTES);
            self.last_frame = Some((stream, out.len()));
            frame::write_header(out, frame::DATA, 0, stream, length);
            let mut missing = length;
            while missing > 0 {
                if part.is_empty() {
                    part = parts.next().unwrap_or_default();
                    continue;
                }
                let (now, later) = part.split_at(part.len().min(missing));
                out.extend_from_slice(now);
                part = later;
                missing -= now.len();
            }
            left -= length;
            self.patience.useful_frame();
        }
        if let Some(at) = self.find(stream) {
            self.streams[at].send_window -= sent as i64;
        }
        self.send_window -= sent as i64;
        sent
    }

    /// Ends the stream in this direction, with trailers if there are any.
    pub fn finish(&mut self, stream: u32, trailers: &[u8], out: &mut Vec<u8>) {
        let Some(at) = self.find(stream) else { return };
        if self.streams[at].reset != Reset::None || self.streams[at].send != Half::Body {
            return;
        }
        self.streams[at].send = Half::Ended;
        if !trailers.is_empty() {
            let start = begin_block(out);
            block::write_trailers(&mut self.encoder, trailers, out);
            return self.end_block(stream, frame::END_STREAM, start, out);
        }
        match self.last_frame.take() {
            // The last frame is not sent yet: it is the end.
            Some((of, at)) if of == stream => out[at + FLAGS_AT] |= frame::END_STREAM,
            _ => frame::write_header(out, frame::DATA, frame::END_STREAM, stream, 0),
        }
    }

    /// The caller lets go of a stream. One that has not ended is broken off: with `code`, or, if all that
    /// we had to say was said, without a complaint (RFC 9113 section 8.1).
    pub fn release(&mut self, stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
        let Some(at) = self.find(stream) else { return };
        let gone = self.streams.remove(at);
        if self.streams.is_empty() {
            self.streams.shrink_to(0);
        }
        if !gone.is_over() {
            let said_all = gone.send == Half::Ended && self.role == super::Role::Server;
            frame::write_reset(out, stream, if said_all { ErrorCode::None } else { code });
            self.remember_broken_off(stream);
        }
    }

    /// Bytes have been taken from the front of `out`.
    pub fn flushed(&mut self) {
        self.last_frame = None;
    }

    /// Writes the frame header before the block that begins at `start`, and cuts it if it is too long for one
    /// frame.
    fn end_block(&mut self, stream: u32, flags: u8, start: usize, out: &mut Vec<u8>) {
        let length = out.len() - start - HEADER_BYTES;
        let (mut kind, mut flags) = (frame::HEADERS, flags);
        self.last_frame = None;
        if length <= MAX_FRAME_BYTES {
            self.last_frame = Some((stream, start));
            let header = FrameHeader { length, kind, flags: flags | frame::END_HEADERS, stream };
            return out[start..start + HEADER_BYTES].copy_from_slice(&header.bytes());
        }
        let block = out.split_off(start + HEADER_BYTES);
        out.truncate(start);
        let mut pieces = block.chunks(MAX_FRAME_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= frame::END_HEADERS;
            }
            frame::write_header(out, kind, flags, stream, piece.len());
            out.extend_from_slice(piece);
            (kind, flags) = (frame::CONTINUATION, 0);
        }
    }

    /// There was no whole head. The compression table has changed: the connection is of no use any more.
    #[cold]
    fn give_up<T>(&mut self, start: usize, out: &mut Vec<u8>) -> Option<T> {
        out.truncate(start);
        self.fail(ErrorCode::Internal, out);
        None
    }
}

/// Leaves room for a frame header; returns where.
fn begin_block(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    start
}
