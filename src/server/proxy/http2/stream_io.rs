//! A stream as the end of an exchange: what is sent begins with the text of a head and goes on with plain bytes, and
//! so does what is received from an endpoint. (The head of a client's request is handed over when its stream begins.)
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::session::{Session, State};
use crate::io::buffer::Buffer;
use crate::kernel::Time;
use crate::proto::http2::{ErrorCode, SentHead};

/// One stream of a connection, of either side. Dropped before its end, it is broken off.
pub(in crate::server::proxy) struct StreamIo {
    session: Rc<Session>,
    token: u32,
    /// A head is sent next.
    before_head: bool,
    /// It is the client's side, and the stream has not been opened.
    opening: bool,
}

// === impl StreamIo ===

impl StreamIo {
    /// The stream of a request that has arrived.
    pub(super) fn incoming(session: Rc<Session>, token: u32) -> Self {
        Self { session, token, before_head: true, opening: false }
    }

    /// A stream for a request to be sent.
    pub(super) fn outgoing(session: &Rc<Session>) -> Self {
        session.opening.set(session.opening.get() + 1);
        let token = session.state().take_slot(0);
        Self { session: Rc::clone(session), token, before_head: true, opening: true }
    }

    /// See [`Stream::poll_recv`](super::super::stream::Stream::poll_recv).
    pub(in crate::server::proxy) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.session.state();
        let state = &mut *state;
        let slot = state.slot(self.token);
        let got = slot.received.len();
        if got > 0 {
            if buffer.is_empty() {
                std::mem::swap(buffer, &mut slot.received);
            } else {
                buffer.extend(slot.received.as_slice());
                slot.received.consume(got);
            }
            slot.received.release();
            let payload = got - std::mem::take(&mut slot.head_bytes);
            let id = slot.id;
            if payload > 0 {
                let before = state.out.len();
                let (protocol, out) = state.parts();
                protocol.consumed(id, payload, out);
                if state.out.len() > before {
                    state.wake_driver();
                } else {
                    state.out.release();
                }
            }
            return Poll::Ready(Ok(got));
        }
        if slot.ended {
            return Poll::Ready(Ok(0));
        }
        if slot.reset.is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        slot.wait_to_read(cx);
        Poll::Pending
    }

    /// See [`Stream::poll_send`](super::super::stream::Stream::poll_send). A head must be whole, and the beginning
    /// of the first part.
    pub(in crate::server::proxy) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.session.state();
        let state = &mut *state;
        let mut head_bytes = 0;
        if self.before_head {
            if state.slot(self.token).reset.is_some() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let sent = if self.opening {
                if state.protocol.is_open() && state.protocol.room_for_streams() == 0 {
                    state.slot(self.token).wait_to_write(cx);
                    return Poll::Pending;
                }
                let (protocol, out) = state.parts();
                let opened = protocol.open(self.token, parts[0], out);
                opened.map(|(id, sent)| {
                    self.opening = false;
                    self.session.opening.set(self.session.opening.get() - 1);
                    state.slot(self.token).id = id;
                    sent
                })
            } else {
                let id = state.slot(self.token).id;
                let (protocol, out) = state.parts();
                protocol.send_response(id, parts[0], out)
            };
            state.wake_driver();
            let Some(SentHead { consumed, interim, ended }) = sent else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            self.before_head = interim;
            if interim || ended {
                return Poll::Ready(Ok(consumed));
            }
            head_bytes = consumed;
        }
        let parts = [&parts[0][head_bytes..], parts[1], parts[2]];
        match Self::send_data(self.token, state, cx, parts) {
            Poll::Ready(Ok(sent)) => Poll::Ready(Ok(head_bytes + sent)),
            Poll::Pending if head_bytes > 0 => Poll::Ready(Ok(head_bytes)),
            other => other,
        }
    }

    fn send_data(
        token: u32,
        state: &mut State,
        cx: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let id = state.slot(token).id;
        let Some(window) = state.protocol.window(id).filter(|_| !state.closed) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let room = state.room();
        if room == 0 || !state.protocol.may_send() {
            state.wait_for_room(token, cx);
            return Poll::Pending;
        }
        if window == 0 {
            state.slot(token).wait_to_write(cx);
            return Poll::Pending;
        }
        let (protocol, out) = state.parts();
        let sent = protocol.send_data(id, parts, room, out);
        state.wake_driver();
        Poll::Ready(Ok(sent))
    }

    /// Says that nothing more will be sent, but these trailers.
    pub(in crate::server::proxy) fn finish(&mut self, trailers: &[u8]) {
        if self.before_head {
            return;
        }
        let mut state = self.session.state();
        let id = state.slot(self.token).id;
        let (protocol, out) = state.parts();
        protocol.finish(id, trailers, out);
        state.wake_driver();
    }

    /// The trailers that have arrived, as lines.
    pub(in crate::server::proxy) fn trailers(&self) -> Vec<u8> {
        self.session.state().slot(self.token).trailers.clone()
    }

    /// Whether the peer has said that nothing was done about the request.
    pub(in crate::server::proxy) fn was_refused(&self) -> bool {
        self.session.state().slot(self.token).reset == Some(ErrorCode::RefusedStream)
    }

    /// See [`AsyncFd::set_deadline`](crate::io::reactor::AsyncFd::set_deadline).
    #[inline]
    pub(in crate::server::proxy) fn set_deadline(&self, at: Time) {
        self.session.state().set_deadline(self.token, at);
    }

    /// See [`AsyncFd::poll_expired`](crate::io::reactor::AsyncFd::poll_expired).
    pub(in crate::server::proxy) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.session.state();
        let slot = state.slot(self.token);
        if slot.expired {
            return Poll::Ready(());
        }
        slot.wait_to_read(cx);
        Poll::Pending
    }

    /// Whether the peer, or the connection, has broken the stream off.
    pub(in crate::server::proxy) fn is_down(&self) -> bool {
        self.session.state().slot(self.token).reset.is_some()
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        if self.opening {
            self.session.opening.set(self.session.opening.get() - 1);
        }
        let code = if std::thread::panicking() { ErrorCode::Internal } else { ErrorCode::Cancel };
        self.session.state().release(self.token, code);
    }
}
