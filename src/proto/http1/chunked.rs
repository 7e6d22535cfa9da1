//! Chunked transfer coding (RFC 9112 section 7.1): a strict incremental decoder that copies
//! nothing, and an encoder.
use super::body::BodyPart;
use super::error::{ChunkFault, HeadFault};
use super::field::{Known, is_value_byte, known};
use super::syntax::split_field;
use super::{
    MAX_BODY_LENGTH, MAX_CHUNK_EXTENSION_BYTES, MAX_CHUNK_EXTENSIONS_BYTES, MAX_CHUNK_SIZE_DIGITS,
    MAX_TRAILER_BYTES,
};

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Decodes a chunked body that arrives in pieces of any size.
///
/// Extensions are checked, bounded and dropped. Trailers are checked, bounded and kept in
/// canonical form for [`write_last_chunk`]; whoever does not want to forward them ignores them.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The fault that was reported: it stays.
    fault: Option<ChunkFault>,
    /// Of the current chunk: the size so far, then the bytes still to come.
    remaining: u64,
    digits: u8,
    extension: u32,
    extensions: u32,
    /// Bytes of the trailer section so far, dropped lines included.
    trailer_bytes: usize,
    /// Canonical trailer lines, and at the end the line that is arriving.
    trailers: Vec<u8>,
    trailer_line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerLine,
    EndLf,
    Done,
}

/// A size line to send before chunk data, made on the stack.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSizeLine {
    bytes: [u8; 18],
    start: u8,
}

/// Appends one chunk. Empty data writes nothing, because a chunk of size 0 would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.extend_from_slice(ChunkSizeLine::new(data.len() as u64).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}

/// Appends the end of a chunked body; `trailers` are lines as [`ChunkedDecoder::trailers`] has them.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

// === impl ChunkSizeLine ===

impl ChunkSizeLine {
    /// The line of a chunk with `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let mut bytes = [0; 18];
        bytes[16..].copy_from_slice(b"\r\n");
        let (mut start, mut rest) = (16, size);
        loop {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
            if rest == 0 {
                return Self { bytes, start: start as u8 };
            }
        }
    }

    /// A line that is not there, for bodies without chunks.
    #[must_use]
    pub fn none() -> Self {
        Self { bytes: [0; 18], start: 18 }
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

// === impl ChunkedDecoder ===

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// Before the first chunk.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Size,
            fault: None,
            remaining: 0,
            digits: 0,
            extension: 0,
            extensions: 0,
            trailer_bytes: 0,
            trailers: Vec::new(),
            trailer_line: 0,
        }
    }

    /// Whether the body has ended, trailers included. Later bytes belong to the next message.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Trailers received so far, each as `name: value CRLF`. Complete once [`is_done`](Self::is_done).
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers[..self.trailer_line]
    }

    /// Takes in `input` up to the end of one run of payload, the framing around it, or the end of
    /// the body. Call again with the rest until nothing of it is left or the body is done.
    ///
    /// Payload before a fault is handed out before the fault is reported. A fault stays:
    /// the connection is of no use.
    pub fn decode(&mut self, input: &[u8]) -> Result<BodyPart, ChunkFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut data = 0..0;
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                if !data.is_empty() {
                    break;
                }
                let here = (input.len() - at) as u64;
                let take = self.remaining.min(here);
                data = at..at + take as usize;
                at = data.end;
                self.remaining -= take;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            match self.framing_byte(input[at]) {
                Ok(()) => at += 1,
                Err(_) if !data.is_empty() => break,
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(fault);
                }
            }
        }
        Ok(BodyPart { consumed: at, data, done: self.is_done() })
    }

    /// One byte that is not payload. Changes nothing when it errs, so that it errs again.
    fn framing_byte(&mut self, b: u8) -> Result<(), ChunkFault> {
        match (self.state, b) {
            (State::Size, b'\r') if self.digits > 0 => self.state = State::SizeLf,
            (State::Size, b';') if self.digits > 0 => self.state = State::Extension,
            (State::Size, _) => self.size_digit(b)?,
            (State::Extension, b'\r') => self.state = State::SizeLf,
            (State::Extension, _) => self.extension_byte(b)?,
            (State::SizeLf, b'\n') => {
                self.state = if self.remaining == 0 { State::TrailerStart } else { State::Data };
                self.digits = 0;
                self.extension = 0;
            }
            (State::DataCr, b'\r') => self.state = State::DataLf,
            (State::DataLf, b'\n') => self.state = State::Size,
            (State::DataCr | State::DataLf, _) => return Err(ChunkFault::DataEnd),
            (State::TrailerStart, b'\r') => self.state = State::EndLf,
            (State::TrailerStart | State::TrailerLine, _) => self.trailer_byte(b)?,
            (State::EndLf, b'\n') => self.state = State::Done,
            (State::SizeLf | State::EndLf, _) => return Err(ChunkFault::LineEnd),
            // `decode` never comes here with these.
            (State::Data | State::Done, _) => {}
        }
        Ok(())
    }

    fn size_digit(&mut self, b: u8) -> Result<(), ChunkFault> {
        let Some(digit) = char::from(b).to_digit(16) else {
            return Err(match b {
                b'\n' if self.digits > 0 => ChunkFault::LineEnd,
                b'\r' | b'\n' | b';' => ChunkFault::SizeEmpty,
                _ => ChunkFault::SizeByte,
            });
        };
        let fits = self.remaining <= MAX_BODY_LENGTH >> 4 && self.digits < MAX_CHUNK_SIZE_DIGITS;
        if !fits {
            return Err(ChunkFault::SizeOverflow);
        }
        self.remaining = self.remaining << 4 | u64::from(digit);
        self.digits += 1;
        Ok(())
    }

    fn extension_byte(&mut self, b: u8) -> Result<(), ChunkFault> {
        if b == b'\n' {
            return Err(ChunkFault::LineEnd);
        }
        if !is_value_byte(b) || b >= 0x80 {
            return Err(ChunkFault::ExtensionByte);
        }
        if self.extension == MAX_CHUNK_EXTENSION_BYTES
            || self.extensions == MAX_CHUNK_EXTENSIONS_BYTES
        {
            return Err(ChunkFault::ExtensionTooLong);
        }
        self.extension += 1;
        self.extensions += 1;
        Ok(())
    }

    fn trailer_byte(&mut self, b: u8) -> Result<(), ChunkFault> {
        if b == b'\n' {
            return self.end_trailer_line();
        }
        // CR is only good before LF.
        if self.trailers.len() > self.trailer_line && self.trailers.last() == Some(&b'\r') {
            return Err(ChunkFault::Trailer(HeadFault::BareCr));
        }
        if self.trailer_bytes == MAX_TRAILER_BYTES {
            return Err(ChunkFault::TrailerTooLarge);
        }
        self.trailer_bytes += 1;
        self.trailers.push(b);
        self.state = State::TrailerLine;
        Ok(())
    }

    fn end_trailer_line(&mut self) -> Result<(), ChunkFault> {
        let Some(line) = self.trailers[self.trailer_line..].strip_suffix(b"\r") else {
            return Err(ChunkFault::Trailer(HeadFault::BareLf));
        };
        let (name, value) = split_field(line).map_err(ChunkFault::Trailer)?;
        let keep = keeps_trailer(name).ok_or(ChunkFault::ForbiddenTrailer)?;
        if keep {
            let mut canonical = Vec::with_capacity(line.len() + 4);
            canonical.extend_from_slice(name);
            canonical.extend_from_slice(b": ");
            canonical.extend_from_slice(value);
            canonical.extend_from_slice(b"\r\n");
            self.trailers.truncate(self.trailer_line);
            self.trailers.append(&mut canonical);
        } else {
            self.trailers.truncate(self.trailer_line);
        }
        self.trailer_line = self.trailers.len();
        self.state = State::TrailerStart;
        Ok(())
    }
}

/// Whether a trailer is passed on; `None` if a message that has it is refused.
#[must_use]
pub fn keeps_trailer(name: &[u8]) -> Option<bool> {
    match known(name) {
        None => Some(!is_refused_as_trailer(name)),
        Some(
            Known::Host
            | Known::Connection
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::HopByHop
            | Known::Te
            | Known::Upgrade
            | Known::FramingLookalike,
        ) => None,
        // Headers this proxy vouches for, and those that say something about the trailers.
        Some(_) => Some(false),
    }
}

/// Fields that must not be merged from a trailer (RFC 9110 section 6.5.1): they decide about
/// authentication, content or routing. Dropped, not refused: they break no framing.
fn is_refused_as_trailer(name: &[u8]) -> bool {
    const REFUSED: [&str; 13] = [
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-type",
        "content-range",
        "cache-control",
        "location",
        "max-forwards",
        "range",
        "forwarded",
    ];
    REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
}
