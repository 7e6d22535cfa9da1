//! A connection: what a received frame means, in which state (RFC 9113 sections 3.4, 5 and 6).
use std::collections::VecDeque;
use std::ops::Range;

use super::error::{ConnectionError, ErrorCode, FrameError};
use super::flood::Patience;
use super::frame::{self, FrameHeader, HEADER_BYTES, MAX_FRAME_BYTES, PREFACE, unpadded};
use super::head::{HeadFacts, HeadWriter, Kind, Refusal};
use super::hpack::{Decoder, Encoder};
use super::settings::{self, MAX_WINDOW, PeerSettings};
use super::stream::{Half, Reset, Stream};
use super::{
    CONNECTION_WINDOW, DEFAULT_WINDOW, MAX_BLOCK_BYTES, MAX_CONTINUATIONS, MAX_STREAMS, Role,
    STREAM_WINDOW,
};

/// Streams that we broke off and whose frames may still be on their way: two generations of all there can be.
const MAX_BROKEN_OFF: usize = 2 * MAX_STREAMS as usize;
/// What the PING carries that asks whether the peer has seen that we are going away.
pub(super) const DRAIN_PING: [u8; 8] = *b"draining";
/// Bytes kept for heads between two of them.
const KEPT_TEXT: usize = 2048;

/// One end of an HTTP/2 connection.
///
/// Times are milliseconds of any clock that does not go back. `out` is always the same buffer, from which
/// bytes are taken only after [`Connection::flushed`].
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) peer: PeerSettings,
    pub(super) encoder: Encoder,
    /// In the order of their ids.
    pub(super) streams: Vec<Stream>,
    /// Bytes that may be sent on all streams together.
    pub(super) send_window: i64,
    pub(super) patience: Patience,
    /// Where the last frame of a stream is in `out`, if it can still be changed.
    pub(super) last_frame: Option<(u32, usize)>,
    /// The id of the next stream, of a client.
    pub(super) next_id: u32,
    pub(super) departure: Departure,
    /// Streams above this will never be answered, as the peer has said.
    pub(super) refused_above: Option<u32>,
    pub(super) scheme: &'static str,
    decoder: Decoder,
    recv_window: i64,
    credit: u32,
    /// The highest stream a client has opened, and which of those before it were (the next lower one first).
    last_id: u32,
    opened: u64,
    /// Bytes of the preface that have been seen.
    preface_seen: usize,
    pub(super) settings_seen: bool,
    assembly: Option<Assembly>,
    text: Vec<u8>,
    broken_off: VecDeque<u32>,
    nonce: u128,
}

/// How far the end of the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    None,
    /// The peer has been told, and asked to confirm that.
    Announced,
    /// Streams above this are refused.
    Final(u32),
}

/// A header block that has begun.
#[derive(Debug)]
struct Assembly {
    stream: u32,
    end: bool,
    depends_on_itself: bool,
    continuations: u32,
    block: Vec<u8>,
}

/// What a call of [`Connection::receive`] made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the input that are dealt with.
    pub consumed: usize,
    /// What happened. `None`: more input is needed.
    pub event: Option<Event>,
}

/// What a peer did. `token` is the caller's name of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A head whose text is in [`Connection::text`]. Of a server: a new stream, which has to get its
    /// token now. Of a client: a response, also an interim one.
    Head {
        /// Stream id.
        stream: u32,
        /// Token of the stream; of no meaning for a new one.
        token: u32,
        /// Nothing follows.
        end: bool,
    },
    /// Bytes of a body. They have to be [`consumed`](Connection::consumed) later.
    Data {
        /// Token of the stream.
        token: u32,
        /// Where in the input they are.
        data: Range<usize>,
        /// Nothing follows.
        end: bool,
    },
    /// Trailers, whose lines are in [`Connection::text`]. Nothing follows.
    Trailers {
        /// Token of the stream.
        token: u32,
    },
    /// The stream was broken off, by the peer or because of what it did.
    Reset {
        /// Token of the stream.
        token: u32,
        /// Why.
        code: ErrorCode,
    },
    /// A request was refused; it never had a token.
    Refused,
    /// More can be sent on the stream.
    WindowOpened {
        /// Token of the stream.
        token: u32,
    },
    /// More can be sent on any stream, or more streams can be opened.
    AllWindowsOpened,
    /// The peer wants to end the connection; see [`Connection::take_refused`].
    GoAway,
    /// The peer knows that we want to end the connection: it will open no more streams.
    DepartureKnown,
}

/// Where the stream of a header block is.
enum Place {
    New,
    Open(usize),
    BrokenOff,
}

// === impl Connection ===

impl Connection {
    /// A connection to a client. `nonce`: a random number.
    #[must_use]
    pub fn server(now: u64, nonce: u128) -> Self {
        Self::new(Role::Server, "", now, nonce)
    }

    /// A connection to a server; `scheme` is what requests over it have, `http` or `https`.
    #[must_use]
    pub fn client(scheme: &'static str, now: u64) -> Self {
        Self::new(Role::Client, scheme, now, 0)
    }

    fn new(role: Role, scheme: &'static str, now: u64, nonce: u128) -> Self {
        Self {
            role,
            peer: PeerSettings::new(),
            encoder: Encoder::new(),
            streams: Vec::new(),
            send_window: i64::from(DEFAULT_WINDOW),
            patience: Patience::new(now),
            last_frame: None,
            next_id: 1,
            departure: Departure::None,
            refused_above: None,
            scheme,
            decoder: Decoder::new(),
            recv_window: i64::from(CONNECTION_WINDOW),
            credit: 0,
            last_id: 0,
            opened: 0,
            preface_seen: if role == Role::Server { 0 } else { PREFACE.len() },
            settings_seen: false,
            assembly: None,
            text: Vec::new(),
            broken_off: VecDeque::new(),
            nonce,
        }
    }

    /// Writes what has to be sent first.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if self.role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        settings::write(out, self.role, MAX_STREAMS, STREAM_WINDOW);
        frame::write_window_update(out, 0, CONNECTION_WINDOW - DEFAULT_WINDOW);
    }

    /// The text of the head or of the trailers that the last event was about.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Gives a new stream its name.
    pub fn set_token(&mut self, stream: u32, token: u32) {
        if let Some(at) = self.find(stream) {
            self.streams[at].token = token;
        }
    }

    /// How many streams there are that the caller has not let go of.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Takes in `input` up to the first event. Call again with what is left until nothing of it is
    /// consumed and there is no event.
    ///
    /// # Errors
    /// The connection is broken: send what is in `out`, and close.
    pub fn receive(
        &mut self,
        now: u64,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Received, ConnectionError> {
        let mut at = self.preface(input).map_err(|code| self.fail(code, out))?;
        if self.preface_seen < PREFACE.len() {
            return Ok(Received { consumed: at, event: None });
        }
        while let Some(header) = FrameHeader::parse(&input[at..]) {
            if header.length > MAX_FRAME_BYTES {
                return Err(self.fail(ErrorCode::FrameSize, out));
            }
            let start = at + HEADER_BYTES;
            let Some(payload) = input.get(start..start + header.length) else { break };
            at = start + header.length;
            let event = match self.frame(now, header, payload, start, out) {
                Ok(event) => event,
                Err(FrameError::Connection(code)) => return Err(self.fail(code, out)),
                Err(FrameError::Stream(code)) => {
                    Some(self.break_off(now, header.stream, code, out)?)
                }
            };
            if event.is_some() {
                return Ok(Received { consumed: at, event });
            }
        }
        Ok(Received { consumed: at, event: None })
    }

    /// Ends the connection because of a failure: writes GOAWAY.
    pub fn fail(&mut self, code: ErrorCode, out: &mut Vec<u8>) -> ConnectionError {
        frame::write_goaway(out, self.last_id, code);
        self.departure = Departure::Final(self.last_id);
        ConnectionError(code)
    }

    /// Consumes what `input` has of the preface; returns how much that is.
    fn preface(&mut self, input: &[u8]) -> Result<usize, ErrorCode> {
        let rest = &PREFACE[self.preface_seen..];
        let here = rest.len().min(input.len());
        if input[..here] != rest[..here] {
            return Err(ErrorCode::Protocol);
        }
        self.preface_seen += here;
        Ok(here)
    }

    /// `start` is where the payload is in the input.
    fn frame(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        let protocol = Err(FrameError::Connection(ErrorCode::Protocol));
        if !self.settings_seen && (header.kind != frame::SETTINGS || header.has(frame::ACK)) {
            return protocol;
        }
        if let Some(assembly) = &self.assembly
            && (header.kind != frame::CONTINUATION || header.stream != assembly.stream)
        {
            return protocol;
        }
        // These have no effect without a stream, or with one.
        let of_stream = match header.kind {
            frame::DATA | frame::HEADERS | frame::PRIORITY | frame::RST_STREAM => Some(true),
            frame::SETTINGS | frame::PING | frame::GOAWAY => Some(false),
            _ => None,
        };
        if of_stream.is_some_and(|of_stream| of_stream != (header.stream != 0)) {
            return protocol;
        }
        match header.kind {
            frame::DATA => self.data(now, header, payload, start, out),
            frame::HEADERS => self.headers(now, header, payload, out),
            frame::CONTINUATION => self.continuation(now, header, payload, out),
            frame::RST_STREAM => self.reset_received(now, header, payload),
            frame::SETTINGS => self.settings(now, header, payload, out),
            frame::PING => self.ping(now, header, payload, out),
            frame::GOAWAY => self.goaway(payload),
            frame::WINDOW_UPDATE => self.window_update(now, header, payload),
            frame::PUSH_PROMISE => protocol,
            frame::PRIORITY => self.priority(now, header, payload),
            _ => self.idle_frame(now).map(|()| None),
        }
    }

    fn data(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        let data = unpadded(header, payload).ok_or(FrameError::Connection(ErrorCode::Protocol))?;
        let end = header.has(frame::END_STREAM);
        self.recv_window -= payload.len() as i64;
        if self.recv_window < 0 {
            return Err(FrameError::Connection(ErrorCode::FlowControl));
        }
        if data.is_empty() && !end {
            self.idle_frame(now)?;
        } else {
            self.patience.useful_frame();
        }
        let Place::Open(at) = self.place(header.stream, false)? else {
            self.give_credit(payload.len(), out);
            return Ok(None);
        };
        let stream = &mut self.streams[at];
        let received = match stream.reset {
            Reset::None => stream.receive(payload.len(), data.len(), end).map(|()| true),
            Reset::ByUs => Ok(false),
            Reset::ByPeer => Err(FrameError::Stream(ErrorCode::StreamClosed)),
        };
        let token = stream.token;
        match received {
            Ok(true) => {}
            Ok(false) => {
                self.give_credit(payload.len(), out);
                return Ok(None);
            }
            Err(error) => {
                self.give_credit(payload.len(), out);
                return Err(error);
            }
        }
        self.consumed(header.stream, payload.len() - data.len(), out);
        let start = start + usize::from(header.has(frame::PADDED));
        Ok(Some(Event::Data { token, data: start..start + data.len(), end }))
    }

    fn headers(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        let protocol = FrameError::Connection(ErrorCode::Protocol);
        self.patience.useful_frame();
        let mut block = unpadded(header, payload).ok_or(protocol)?;
        let mut depends_on_itself = false;
        if header.has(frame::WITH_PRIORITY) {
            let (priority, rest) = block.split_first_chunk::<5>().ok_or(protocol)?;
            block = rest;
            depends_on_itself =
                priority.first_chunk().is_some_and(|p| depends_on(p) == header.stream);
        }
        let end = header.has(frame::END_STREAM);
        if header.has(frame::END_HEADERS) {
            return self.block(now, header.stream, end, depends_on_itself, block, out);
        }
        let (stream, block) = (header.stream, block.to_vec());
        self.assembly = Some(Assembly { stream, end, depends_on_itself, continuations: 0, block });
        Ok(None)
    }

    fn continuation(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        let mut assembly =
            self.assembly.take().ok_or(FrameError::Connection(ErrorCode::Protocol))?;
        assembly.continuations += 1;
        assembly.block.extend_from_slice(payload);
        let absurd =
            assembly.continuations > MAX_CONTINUATIONS || assembly.block.len() > MAX_BLOCK_BYTES;
        if absurd {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm));
        }
        if !header.has(frame::END_HEADERS) {
            self.assembly = Some(assembly);
            return Ok(None);
        }
        let Assembly { stream, end, depends_on_itself, block, .. } = assembly;
        self.block(now, stream, end, depends_on_itself, &block, out)
    }

    /// A whole header block. Whatever becomes of it, it has to be decoded, for the table's sake.
    fn block(
        &mut self,
        now: u64,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        let place = self.place(id, true)?;
        let kind = match place {
            Place::New => Kind::Request,
            Place::Open(at) if self.is_response(at) => Kind::Response,
            Place::Open(_) | Place::BrokenOff => Kind::Trailers,
        };
        let nonce = self.nonce ^ u128::from(id) << 64;
        self.text.clear();
        self.text.shrink_to(KEPT_TEXT);
        let mut writer = HeadWriter::new(kind, &mut self.text, nonce);
        self.decoder
            .decode(block, &mut |name, value| writer.field(name, value))
            .map_err(|_| FrameError::Connection(ErrorCode::Compression))?;
        if writer.is_absurd() {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm));
        }
        let mut outcome = writer.finish(end);
        if depends_on_itself {
            outcome = Err(Refusal::Malformed);
        }
        match place {
            Place::New => self.new_stream(now, id, end, outcome, out),
            Place::Open(at) => self.more_of_stream(at, kind, end, outcome),
            Place::BrokenOff => Ok(None),
        }
    }

    fn new_stream(
        &mut self,
        now: u64,
        id: u32,
        end: bool,
        outcome: Result<HeadFacts, Refusal>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        let step = (id - self.last_id) / 2;
        self.opened = self.opened.checked_shl(step).unwrap_or(0);
        if self.last_id > 0 && (1..=64).contains(&step) {
            self.opened |= 1 << (step - 1);
        }
        self.last_id = id;
        let leaving = matches!(self.departure, Departure::Final(last) if id > last);
        if leaving || self.streams.len() >= MAX_STREAMS as usize {
            return Err(FrameError::Stream(ErrorCode::RefusedStream));
        }
        let facts = match outcome {
            Ok(facts) => facts,
            Err(Refusal::Malformed) => return Err(FrameError::Stream(ErrorCode::Protocol)),
            Err(Refusal::TooLarge) => {
                self.refuse_too_large(now, id, end, out)?;
                return Ok(Some(Event::Refused));
            }
        };
        let mut stream = Stream::new(id, u32::MAX, self.peer.initial_window, STREAM_WINDOW);
        stream.recv = if end { Half::Ended } else { Half::Body };
        stream.length_left = facts.length;
        stream.is_head = facts.is_head;
        self.streams.push(stream);
        Ok(Some(Event::Head { stream: id, token: u32::MAX, end }))
    }

    /// Response heads, and trailers.
    fn more_of_stream(
        &mut self,
        at: usize,
        kind: Kind,
        end: bool,
        outcome: Result<HeadFacts, Refusal>,
    ) -> Result<Option<Event>, FrameError> {
        let stream = &mut self.streams[at];
        let (id, token) = (stream.id, stream.token);
        match stream.reset {
            Reset::None => {}
            Reset::ByUs => return Ok(None),
            Reset::ByPeer => return Err(FrameError::Stream(ErrorCode::StreamClosed)),
        }
        if stream.recv == Half::Ended {
            return Err(FrameError::Stream(ErrorCode::StreamClosed));
        }
        let facts = outcome.map_err(|_| FrameError::Stream(ErrorCode::Protocol))?;
        if kind == Kind::Trailers {
            if !end {
                return Err(FrameError::Stream(ErrorCode::Protocol));
            }
            stream.end_received()?;
            return Ok(Some(Event::Trailers { token }));
        }
        if facts.status >= 200 {
            stream.recv = Half::Body;
            let bodyless = stream.is_head || matches!(facts.status, 204 | 304);
            stream.length_left = if bodyless { None } else { facts.length };
            if end {
                stream.end_received()?;
            }
        }
        Ok(Some(Event::Head { stream: id, token, end }))
    }

    /// Breaks a stream off because of what the peer did on it.
    fn break_off(
        &mut self,
        now: u64,
        id: u32,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<Event, ConnectionError> {
        // Whoever has us break streams off gets as much work done as one who does so himself (CVE-2025-8671).
        if !self.patience.bears_reset(now) {
            return Err(self.fail(ErrorCode::EnhanceYourCalm, out));
        }
        frame::write_reset(out, id, code);
        self.remember_broken_off(id);
        let Some(at) = self.find(id) else { return Ok(Event::Refused) };
        let stream = &mut self.streams[at];
        stream.reset = Reset::ByUs;
        Ok(Event::Reset { token: stream.token, code })
    }

    pub(super) fn remember_broken_off(&mut self, id: u32) {
        if self.broken_off.len() == MAX_BROKEN_OFF {
            self.broken_off.pop_front();
        }
        self.broken_off.push_back(id);
    }

    fn refuse_too_large(
        &mut self,
        now: u64,
        id: u32,
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        if !self.patience.bears_reset(now) {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm));
        }
        let text = b"HTTP/1.1 431 \r\ncontent-length: 0\r\n\r\n";
        self.write_response(id, text, frame::END_STREAM, out);
        if !end {
            frame::write_reset(out, id, ErrorCode::None);
            self.remember_broken_off(id);
        }
        Ok(())
    }

    /// The peer's bytes have left us: it may send as many again. Also for those of a stream that is gone.
    pub fn consumed(&mut self, stream: u32, bytes: usize, out: &mut Vec<u8>) {
        if bytes == 0 {
            return;
        }
        if let Some(at) = self.find(stream) {
            let stream = &mut self.streams[at];
            stream.credit += bytes as u32;
            let open = stream.recv != Half::Ended && stream.reset == Reset::None;
            if open && stream.credit >= STREAM_WINDOW / 2 {
                frame::write_window_update(out, stream.id, stream.credit);
                stream.recv_window += i64::from(stream.credit);
                stream.credit = 0;
            }
        }
        self.give_credit(bytes, out);
    }

    fn give_credit(&mut self, bytes: usize, out: &mut Vec<u8>) {
        self.credit += bytes as u32;
        if self.credit >= CONNECTION_WINDOW / 2 {
            frame::write_window_update(out, 0, self.credit);
            self.recv_window += i64::from(self.credit);
            self.credit = 0;
        }
    }

    /// Tells the peer that the connection will end, and asks it to confirm that, because streams it
    /// opens before it knows are still served (RFC 9113 section 6.8).
    pub fn announce_departure(&mut self, out: &mut Vec<u8>) {
        if self.departure == Departure::None {
            self.departure = Departure::Announced;
            frame::write_goaway(out, MAX_WINDOW, ErrorCode::None);
            frame::write_ping(out, 0, DRAIN_PING);
        }
    }

    /// Tells the peer which stream was the last one. Later ones are refused.
    pub fn depart(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.departure, Departure::Final(_)) {
            self.departure = Departure::Final(self.last_id);
            frame::write_goaway(out, self.last_id, ErrorCode::None);
        }
    }

    /// Whether the peer has shown that it speaks HTTP/2.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.settings_seen
    }

    /// Whether the end was announced, and no stream is left.
    #[must_use]
    pub fn may_close(&self) -> bool {
        matches!(self.departure, Departure::Final(_)) && self.streams.is_empty()
    }

    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    fn is_response(&self, at: usize) -> bool {
        self.role == Role::Client && self.streams[at].recv == Half::Head
    }

    pub(super) fn idle_frame(&mut self, now: u64) -> Result<(), FrameError> {
        if self.patience.bears_idle_frame(now) {
            Ok(())
        } else {
            Err(FrameError::Connection(ErrorCode::EnhanceYourCalm))
        }
    }

    fn is_idle(&self, id: u32) -> bool {
        match self.role {
            Role::Server => id.is_multiple_of(2) || id > self.last_id,
            Role::Client => id.is_multiple_of(2) || id >= self.next_id,
        }
    }

    pub(super) fn must_not_be_idle(&self, id: u32) -> Result<(), FrameError> {
        let idle = self.is_idle(id);
        if idle { Err(FrameError::Connection(ErrorCode::Protocol)) } else { Ok(()) }
    }

    /// Where a stream is; `opens`: the frame may open one.
    fn place(&self, id: u32, opens: bool) -> Result<Place, FrameError> {
        if let Some(at) = self.find(id) {
            return Ok(Place::Open(at));
        }
        if self.is_idle(id) {
            let new = opens && self.role == Role::Server && id % 2 == 1;
            return if new {
                Ok(Place::New)
            } else {
                Err(FrameError::Connection(ErrorCode::Protocol))
            };
        }
        if self.broken_off.contains(&id) {
            return Ok(Place::BrokenOff);
        }
        let age = (self.last_id.saturating_sub(id)) / 2;
        let skipped = self.role == Role::Server
            && (1..=64).contains(&age)
            && self.opened >> (age - 1) & 1 == 0;
        let code = if skipped { ErrorCode::Protocol } else { ErrorCode::StreamClosed };
        Err(FrameError::Connection(code))
    }
}

/// A stream id, without the bit above it that is reserved or means exclusiveness.
pub(super) fn depends_on(bytes: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*bytes) & MAX_WINDOW
}
