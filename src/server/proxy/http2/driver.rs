//! The task of a connection: moves bytes between the transport and the protocol.
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::super::limits::ROUNDS_PER_TURN;
use super::super::stream::Stream;
use super::session::{Session, State, millis};
use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;
use crate::proto::http2::{ErrorCode, Event};

/// What happened that is not the driver's business.
pub(super) enum News<'a> {
    /// A request has arrived; this is its head. The stream gets the token that is returned.
    Request { state: &'a mut State, stream: u32, end: bool },
    /// A request was refused.
    Refused,
}

/// Runs one side of a connection.
pub(super) struct Driver {
    pub(super) session: Rc<Session>,
    pub(super) input: Buffer,
    /// The peer's bytes broke the protocol; what is left to send says so.
    pub(super) failed: bool,
}

// === impl Driver ===

impl Driver {
    /// Moves what can be moved. Ready when the connection is over: with an error if the transport is broken or the
    /// peer has closed it, else because all was said.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Stream,
        news: &mut dyn FnMut(News<'_>),
    ) -> Poll<io::Result<()>> {
        self.session.state().driver_runs(cx);
        for _ in 0..ROUNDS_PER_TURN {
            let flushed = self.poll_flush(cx, transport)?;
            if self.is_over() {
                return flushed.map(Ok);
            }
            // Who does not take answers is not read from either.
            if self.session.state().is_choked() {
                return Poll::Pending;
            }
            match transport.poll_recv(cx, &mut self.input) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(_)) => self.take(news),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.input.release();
                    let mut state = self.session.state();
                    if state.give_room() {
                        state.wake_driver();
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether all was said, but for what still has to be sent.
    pub(super) fn is_over(&self) -> bool {
        self.failed || self.session.state().protocol.may_close()
    }

    /// Sends what is there.
    pub(super) fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        transport: &mut Stream,
    ) -> io::Result<Poll<()>> {
        let mut state = self.session.state();
        let state = &mut *state;
        while !state.out.is_empty() {
            match transport.poll_send(cx, [state.out.as_slice(), &[], &[]]) {
                Poll::Ready(sent) => {
                    state.out.consume(sent?);
                    state.protocol.flushed();
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        state.out.release();
        match transport.poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Has the protocol take in what has arrived.
    pub(super) fn take(&mut self, news: &mut dyn FnMut(News<'_>)) {
        let mut state = self.session.state();
        let state = &mut *state;
        let now = millis(loop_now());
        while !self.failed {
            let (protocol, out) = state.parts();
            let Ok(received) = protocol.receive(now, self.input.as_slice(), out) else {
                self.failed = true;
                break;
            };
            if let Some(event) = &received.event {
                Self::event(state, event, self.input.as_slice(), news);
            }
            self.input.consume(received.consumed);
            if received.event.is_none() && received.consumed == 0 || self.input.is_empty() {
                break;
            }
        }
        state.out.release();
    }

    fn event(state: &mut State, event: &Event, input: &[u8], news: &mut dyn FnMut(News<'_>)) {
        match *event {
            Event::Head { stream, token: u32::MAX, end } => {
                news(News::Request { state, stream, end });
            }
            Event::Head { token, end, .. } => {
                let State { protocol, .. } = state;
                let text = protocol.text().to_vec();
                let slot = state.slot(token);
                slot.received.extend(&text);
                slot.head_bytes += text.len();
                slot.ended = end;
                slot.wake_reader();
            }
            Event::Data { token, ref data, end } => {
                let slot = state.slot(token);
                if !data.is_empty() {
                    slot.received.extend(&input[data.clone()]);
                }
                slot.ended = end;
                slot.wake_reader();
            }
            Event::Trailers { token } => {
                let lines = state.protocol.text().to_vec();
                let slot = state.slot(token);
                slot.trailers = lines;
                slot.ended = true;
                slot.wake_reader();
            }
            Event::Reset { token, code } => Self::reset(state, token, code),
            Event::WindowOpened { token } => state.slot(token).wake_writer(),
            Event::AllWindowsOpened => {
                state.wake_writers();
                state.give_room();
            }
            Event::GoAway => {
                while let Some(token) = state.protocol.take_refused() {
                    Self::reset(state, token, ErrorCode::RefusedStream);
                }
                // Those that wait to be opened will not be.
                state.wake_writers();
            }
            Event::DepartureKnown => {
                let (protocol, out) = state.parts();
                protocol.depart(out);
            }
            Event::Refused => news(News::Refused),
        }
    }

    fn reset(state: &mut State, token: u32, code: ErrorCode) {
        let slot = state.slot(token);
        slot.reset = Some(code);
        slot.wake_reader();
        slot.wake_writer();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.session.state().close();
    }
}
