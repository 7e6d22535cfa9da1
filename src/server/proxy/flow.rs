//! One direction of a message body: from a stream through decoder and encoder to another stream, with
//! bounded buffers and back-pressure. Payload is sent from the buffer it was received in.
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::limits::{PENDING_BYTES, ROUNDS_PER_TURN};
use super::stream::Stream;
use crate::io::buffer::Buffer;
use crate::proto::http1::{BodyDecoder, BodyEncoder, BodyError, BodyFraming};

/// A body on its way.
pub(super) struct Flow {
    decoder: BodyDecoder,
    encoder: BodyEncoder,
    /// The end is in the pending buffer or sent.
    finished: bool,
    /// Something has moved since this was last cleared.
    pub(super) moved: bool,
    /// The receiver has been sent something.
    pub(super) began: bool,
    /// Bytes of payload taken from the sender.
    pub(super) passed: u64,
}

/// Where a body comes from: the stream, and what of it has arrived.
pub(super) struct Source<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) input: &'a mut Buffer,
}

/// Where a body goes: the stream, and what it has not taken yet.
pub(super) struct Sink<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) pending: &'a mut Buffer,
}

/// Why a body did not arrive whole, by who is to blame.
#[derive(Debug)]
pub(super) enum FlowError {
    /// The sender's connection broke.
    Source,
    /// The receiver's connection broke.
    Sink,
    /// The sender broke the framing, or closed before the end.
    Malformed(BodyError),
}

// === impl Flow ===

impl Flow {
    pub(super) fn new(received: BodyFraming, sent: BodyFraming) -> Self {
        Self {
            decoder: BodyDecoder::new(received),
            encoder: BodyEncoder::new(sent),
            finished: false,
            moved: false,
            began: false,
            passed: 0,
        }
    }

    /// As [`Flow::new`], where either end may be a stream of HTTP/2 (true): there a body is plain bytes, whose end the
    /// stream has. Its length was compared with the declared one.
    pub(super) fn between(received: (BodyFraming, bool), sent: (BodyFraming, bool)) -> Self {
        let received = Self::received(received.0, received.1);
        let sent = match sent {
            (BodyFraming::Chunked, true) => BodyFraming::UntilClose,
            (framing, _) => framing,
        };
        Self::new(received, sent)
    }

    /// How the end of a body is found that was announced as `framing`, on a stream of HTTP/2 or not.
    pub(super) const fn received(framing: BodyFraming, is_http2: bool) -> BodyFraming {
        match (framing, is_http2) {
            (BodyFraming::None, _) | (_, false) => framing,
            (_, true) => BodyFraming::UntilClose,
        }
    }

    /// The trailers of the body, which has come from `source` to its end.
    pub(super) fn trailers(&self, source: &Stream) -> Vec<u8> {
        match self.decoder.trailers() {
            [] => source.trailers(),
            trailers => trailers.to_vec(),
        }
    }

    /// Whether the sender's body has been received to its end.
    #[inline]
    pub(super) fn is_received(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether the receiver has been sent the end, as far as the pending buffer goes.
    #[inline]
    pub(super) fn is_sent(&self) -> bool {
        self.finished && self.encoder.is_done()
    }

    /// Moves what can be moved; ready when all of the body, and what was pending before it, is sent.
    #[inline]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut source: Source<'_>,
        mut sink: Sink<'_>,
    ) -> Poll<Result<(), FlowError>> {
        for _ in 0..ROUNDS_PER_TURN {
            self.pass(cx, &mut source, &mut sink)?;
            if self.decoder.is_done() && !self.finished {
                self.finished = true;
                let trailers = self.trailers(source.stream);
                self.encoder.finish(&trailers, sink.pending.vec()).map_err(FlowError::Malformed)?;
            }
            ready!(self.flush(cx, &mut sink)).map_err(|_| FlowError::Sink)?;
            if self.finished {
                return Poll::Ready(Ok(()));
            }
            if !source.input.is_empty() {
                continue;
            }
            match source.stream.poll_recv(cx, source.input) {
                Poll::Ready(Ok(0)) => {
                    self.decoder.end_of_stream().map_err(FlowError::Malformed)?;
                }
                Poll::Ready(Ok(_)) => self.moved = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(FlowError::Source)),
                Poll::Pending => {
                    source.input.release();
                    sink.pending.release();
                    return Poll::Pending;
                }
            }
        }
        // Both ends are fast; the other tasks want to live as well.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the body in without sending it, until `pending` holds `limit` bytes; ready with whether the whole body is
    /// in it. [`Flow::poll`] goes on from there.
    pub(super) fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
        source: Source<'_>,
        pending: &mut Buffer,
        limit: usize,
    ) -> Poll<Result<bool, FlowError>> {
        loop {
            while !source.input.is_empty() && !self.decoder.is_done() && pending.len() < limit {
                let input = source.input.as_slice();
                let part = self.decoder.decode(input).map_err(FlowError::Malformed)?;
                self.passed += part.data.len() as u64;
                let written = self.encoder.write(&input[part.data], pending.vec());
                written.map_err(FlowError::Malformed)?;
                source.input.consume(part.consumed);
            }
            if self.decoder.is_done() {
                self.finished = true;
                let trailers = self.trailers(source.stream);
                let ended = self.encoder.finish(&trailers, pending.vec());
                return Poll::Ready(ended.map(|()| true).map_err(FlowError::Malformed));
            }
            if pending.len() >= limit {
                return Poll::Ready(Ok(false));
            }
            match ready!(source.stream.poll_recv(cx, source.input)) {
                Ok(0) => self.decoder.end_of_stream().map_err(FlowError::Malformed)?,
                Ok(_) => self.moved = true,
                Err(_) => return Poll::Ready(Err(FlowError::Source)),
            }
        }
    }

    /// Decodes what has arrived and hands it on, until the receiver is slow.
    #[inline]
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), FlowError> {
        while !source.input.is_empty()
            && !self.decoder.is_done()
            && sink.pending.len() < PENDING_BYTES
        {
            let input = source.input.as_slice();
            let part = self.decoder.decode(input).map_err(FlowError::Malformed)?;
            if !part.data.is_empty() {
                self.passed += part.data.len() as u64;
                self.hand_on(cx, input, part.data, sink)?;
            }
            source.input.consume(part.consumed);
        }
        Ok(())
    }

    #[inline]
    fn hand_on(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        data: Range<usize>,
        sink: &mut Sink<'_>,
    ) -> Result<(), FlowError> {
        let data = &input[data];
        let (size, end) = self.encoder.frame(data.len()).map_err(FlowError::Malformed)?;
        sink.pending.extend(size.as_bytes());
        let mut sent = 0;
        if data.len() > sink.stream.copy_below() {
            match sink.stream.poll_send(cx, [sink.pending.as_slice(), data, end]) {
                Poll::Ready(Ok(taken)) => sent = taken,
                Poll::Ready(Err(_)) => return Err(FlowError::Sink),
                Poll::Pending => {}
            }
        }
        self.moved |= sent > 0;
        self.began |= sent > 0;
        let before = sent.min(sink.pending.len());
        sink.pending.consume(before);
        let of_data = (sent - before).min(data.len());
        sink.pending.extend(&data[of_data..]);
        sink.pending.extend(&end[sent - before - of_data..]);
        Ok(())
    }

    #[inline]
    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'_>) -> Poll<io::Result<()>> {
        if !sink.pending.is_empty() {
            let before = sink.pending.len();
            let flushed = poll_drain(cx, sink.stream, sink.pending);
            self.moved |= sink.pending.len() < before;
            self.began |= sink.pending.len() < before;
            ready!(flushed)?;
        }
        sink.stream.poll_flush(cx)
    }
}

/// Sends what is pending; ready when all of it is handed to the kernel.
#[inline]
pub(super) fn poll_drain(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    pending: &mut Buffer,
) -> Poll<io::Result<()>> {
    while !pending.is_empty() {
        let sent = ready!(stream.poll_send(cx, [pending.as_slice(), &[], &[]]))?;
        pending.consume(sent);
    }
    stream.poll_flush(cx)
}
