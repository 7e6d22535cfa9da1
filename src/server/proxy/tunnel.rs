//! Bytes in both directions without looking at them: after an upgrade, and for TLS passthrough.
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::limits::ROUNDS_PER_TURN;
use super::stats::count;
use super::stream::Stream;
use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;

/// One end of a tunnel.
pub(super) struct End<'a> {
    pub(super) stream: &'a mut Stream,
    /// Received from this end.
    pub(super) input: &'a mut Buffer,
    /// To be sent to this end before anything else.
    pub(super) pending: &'a mut Buffer,
}

/// Runs until both directions have ended, one is broken, or nothing has moved for `idle`. An end that has
/// said all is told so to the other one, which may go on; that one is broken as well. Returns how many bytes were sent to
/// the endpoint and to the client.
pub(super) async fn run(mut client: End<'_>, mut upstream: End<'_>, idle: Duration) -> (u64, u64) {
    count(|c| c.tunnels.add());
    let mut up = Direction::default();
    let mut down = Direction::default();
    client.stream.set_deadline(loop_now() + idle);
    poll_fn(|cx| {
        let ups = up.poll(cx, &mut client, &mut upstream);
        let downs = down.poll(cx, &mut upstream, &mut client);
        if std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved) {
            client.stream.set_deadline(loop_now() + idle);
        }
        match (ups, downs) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(()),
            _ if up.lost || down.lost => Poll::Ready(()),
            _ => client.stream.poll_expired(cx),
        }
    })
    .await;
    if up.is_broken() || down.is_broken() {
        client.stream.reset_on_close();
        upstream.stream.reset_on_close();
    }
    (up.sent, down.sent)
}

#[derive(Default)]
struct Direction {
    moved: bool,
    /// Bytes.
    sent: u64,
    /// The sender has closed.
    ended: bool,
    /// And the receiver was told.
    closed: bool,
    /// The sender's connection is broken.
    lost: bool,
    /// The receiver takes no more. What it has said before may still be there to be read.
    refused: bool,
}

// === impl Direction ===

impl Direction {
    /// Whether this ended otherwise than by the sender's own end.
    const fn is_broken(&self) -> bool {
        !self.closed
    }

    /// Ready when nothing more will move.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut End<'_>, to: &mut End<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_PER_TURN {
            if self.closed || self.lost || self.refused {
                return Poll::Ready(());
            }
            if ready!(self.poll_send(cx, from, to)).is_err() {
                self.refused = true;
                continue;
            }
            if self.ended {
                to.stream.close_write(cx);
                self.closed = true;
                continue;
            }
            match ready!(from.stream.poll_recv(cx, from.input)) {
                Ok(0) => self.ended = true,
                Ok(_) => self.moved = true,
                Err(_) => self.lost = true,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends all that has been received.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut End<'_>,
        to: &mut End<'_>,
    ) -> Poll<io::Result<()>> {
        for buffer in [&mut *to.pending, &mut *from.input] {
            while !buffer.is_empty() {
                let sent = ready!(to.stream.poll_send(cx, [buffer.as_slice(), &[], &[]]))?;
                buffer.consume(sent);
                self.moved = true;
                self.sent += sent as u64;
            }
            buffer.release();
        }
        ready!(to.stream.poll_flush(cx))?;
        to.stream.release();
        Poll::Ready(Ok(()))
    }
}
