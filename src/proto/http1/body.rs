//! Bodies of any framing: where the payload is in what arrived, and how to send it on.
use super::BodyFraming;
use super::chunked::{CHUNK_END, ChunkSizeLine, ChunkedDecoder, write_chunk, write_last_chunk};
use super::error::BodyError;
use std::ops::Range;

/// What one call of a decoder found in its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyPart {
    /// Bytes of the input that are dealt with.
    pub consumed: usize,
    /// The payload among them, possibly empty; at most one run.
    pub data: Range<usize>,
    /// The body has ended; unconsumed input belongs to the next message.
    pub done: bool,
}

/// Counts down a body of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthCounter {
    remaining: u64,
}

/// Finds the payload of a body as it arrives.
#[derive(Debug)]
pub enum BodyDecoder {
    /// No body: done from the beginning.
    None,
    /// A declared length.
    Length(LengthCounter),
    /// Chunked coding.
    Chunked(ChunkedDecoder),
    /// Until the connection closes; `true` once it has.
    UntilClose(bool),
}

/// Frames a body as it is sent, and refuses to send more than was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoder {
    /// No body.
    None,
    /// A declared length.
    Length(LengthCounter),
    /// Chunked coding; `true` once the last chunk is written.
    Chunked(bool),
    /// Until the connection closes; `true` once finished.
    UntilClose(bool),
}

// === impl LengthCounter ===

impl LengthCounter {
    /// A body of `length` bytes, none of which has passed.
    #[must_use]
    pub fn new(length: u64) -> Self {
        Self { remaining: length }
    }

    /// Bytes still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Whether all bytes have passed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.remaining == 0
    }

    /// Lets up to `available` bytes pass and says how many.
    pub fn take(&mut self, available: usize) -> usize {
        let taken = self.remaining.min(available as u64);
        self.remaining -= taken;
        taken as usize
    }
}

// === impl BodyDecoder ===

impl BodyDecoder {
    /// A decoder at the beginning of a body.
    #[must_use]
    pub fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None => Self::None,
            BodyFraming::Length(n) => Self::Length(LengthCounter::new(n)),
            BodyFraming::Chunked => Self::Chunked(ChunkedDecoder::new()),
            BodyFraming::UntilClose => Self::UntilClose(false),
        }
    }

    /// Whether the whole body has been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length(counter) => counter.is_done(),
            Self::Chunked(decoder) => decoder.is_done(),
            Self::UntilClose(closed) => *closed,
        }
    }

    /// Takes in `input` up to the end of one run of payload or of the body. Call again with the
    /// rest while something is consumed and the body is not done.
    pub fn decode(&mut self, input: &[u8]) -> Result<BodyPart, BodyError> {
        let taken = match self {
            Self::None => 0,
            Self::Length(counter) => counter.take(input.len()),
            Self::Chunked(decoder) => return Ok(decoder.decode(input)?),
            Self::UntilClose(_) => input.len(),
        };
        Ok(BodyPart { consumed: taken, data: 0..taken, done: self.is_done() })
    }

    /// The sender has closed: ends a close-delimited body, is an error within any other.
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        if let Self::UntilClose(closed) = self {
            *closed = true;
        }
        if self.is_done() { Ok(()) } else { Err(BodyError::Truncated) }
    }

    /// Trailers of a chunked body, canonical; empty for all others.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        match self {
            Self::Chunked(decoder) => decoder.trailers(),
            _ => &[],
        }
    }
}

// === impl BodyEncoder ===

impl BodyEncoder {
    /// An encoder for a body announced as `framing`.
    #[must_use]
    pub fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None => Self::None,
            BodyFraming::Length(n) => Self::Length(LengthCounter::new(n)),
            BodyFraming::Chunked => Self::Chunked(false),
            BodyFraming::UntilClose => Self::UntilClose(false),
        }
    }

    /// Bytes to send before and after `len` bytes of payload, for sending without a copy. An empty
    /// payload has neither.
    pub fn frame(&mut self, len: usize) -> Result<(ChunkSizeLine, &'static [u8]), BodyError> {
        match self {
            _ if len == 0 => {}
            Self::Length(counter) if counter.remaining() >= len as u64 => {
                counter.take(len);
            }
            Self::Chunked(false) => return Ok((ChunkSizeLine::new(len as u64), CHUNK_END)),
            Self::UntilClose(false) => {}
            _ => return Err(BodyError::Excess),
        }
        Ok((ChunkSizeLine::none(), b""))
    }

    /// Appends payload with its framing to `out`.
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        match self {
            Self::Chunked(false) => write_chunk(out, data),
            _ => {
                self.frame(data.len())?;
                out.extend_from_slice(data);
            }
        }
        Ok(())
    }

    /// Ends the body; `trailers` go out only in a chunked one. Errs if the announced length has
    /// not been reached: then the receiver can only be told by closing.
    pub fn finish(&mut self, trailers: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        match self {
            Self::None => {}
            Self::Length(counter) if counter.is_done() => {}
            Self::Length(_) => return Err(BodyError::Truncated),
            Self::Chunked(ended) => {
                if !std::mem::replace(ended, true) {
                    write_last_chunk(out, trailers);
                }
            }
            Self::UntilClose(ended) => *ended = true,
        }
        Ok(())
    }

    /// Whether the receiver knows that the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length(counter) => counter.is_done(),
            Self::Chunked(ended) | Self::UntilClose(ended) => *ended,
        }
    }
}
