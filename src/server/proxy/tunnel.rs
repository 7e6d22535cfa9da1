//! Bytes in both directions without looking at them: after an upgrade, and for TLS passthrough.
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::limits::{ROUNDS_PER_TURN, STREAM_IDLE_TIMEOUT};
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

/// Runs until both directions have ended, one is broken, or nothing has moved for long. An end that has
/// said all is told so to the other one, which may go on.
pub(super) async fn run(mut client: End<'_>, mut upstream: End<'_>) {
    count(|c| c.tunnels.add());
    let mut up = Direction::default();
    let mut down = Direction::default();
    client.stream.set_deadline(loop_now() + STREAM_IDLE_TIMEOUT);
    poll_fn(|cx| {
        let ups = up.poll(cx, &mut client, &mut upstream);
        let downs = down.poll(cx, &mut upstream, &mut client);
        if std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved) {
            client.stream.set_deadline(loop_now() + STREAM_IDLE_TIMEOUT);
        }
        match (ups, downs) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            _ => client.stream.poll_expired(cx),
        }
    })
    .await;
}

#[derive(Default)]
struct Direction {
    moved: bool,
    /// The sender has closed.
    ended: bool,
    /// And the receiver was told.
    closed: bool,
}

// === impl Direction ===

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut End<'_>,
        to: &mut End<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS_PER_TURN {
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            for buffer in [&mut *to.pending, &mut *from.input] {
                while !buffer.is_empty() {
                    let sent = ready!(to.stream.poll_send(cx, [buffer.as_slice(), &[], &[]]))?;
                    buffer.consume(sent);
                    self.moved = true;
                }
                buffer.release();
            }
            ready!(to.stream.poll_flush(cx))?;
            to.stream.release();
            if self.ended {
                to.stream.close_write(cx);
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            match ready!(from.stream.poll_recv(cx, from.input))? {
                0 => self.ended = true,
                _ => self.moved = true,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
