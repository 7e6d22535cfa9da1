//! Bytes in both directions without looking at them: TCP listeners, TLS passthrough, and what follows an upgrade.
//!
//! A direction begins with copying. When it turns out that much is to be moved, and both ends are plain sockets, the
//! kernel passes the bytes on (splice(2)), until there is little again or no pipe left. An end that waits holds neither
//! a buffer nor a pipe.
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::limits::{FULL_READS, ROUNDS_PER_TURN, SPLICE_LEAST};
use super::stats::count;
use super::stream::Stream;
use crate::io::buffer::{BUFFER_BYTES, Buffer};
use crate::io::reactor::loop_now;
use crate::io::splice::Pipe;
use crate::io::tcp::TcpStream;

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
            // What it has said waits for a slow endpoint, and nobody is left to hear the answer. The other way round a
            // slow client may still want the last words of its endpoint.
            (Poll::Pending, _) if client.stream.has_failed() => Poll::Ready(()),
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
    /// Reads in a row that have filled the buffer; the bytes are spliced once they are [`FULL_READS`].
    full_reads: u8,
    /// Bytes on their way between two sockets.
    pipe: Option<Pipe>,
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
            match ready!(self.poll_recv(cx, from, to)) {
                Ok(0) => self.ended = true,
                Ok(got) => {
                    self.moved = true;
                    count(|c| c.tunnel_bytes.add_all(got));
                }
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
        if let (Some(pipe), Stream::Tcp(to)) = (&mut self.pipe, &*to.stream) {
            let before = pipe.len();
            let drained = pipe.poll_drain(cx, to);
            self.moved |= pipe.len() < before;
            self.sent += before.saturating_sub(pipe.len()) as u64;
            ready!(drained)?;
            self.pipe = None;
        }
        ready!(to.stream.poll_flush(cx))?;
        to.stream.release();
        Poll::Ready(Ok(()))
    }

    /// Receives into a pipe or the buffer, of which nothing must be left to send.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut End<'_>,
        to: &End<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.full_reads >= FULL_READS
            && let (Stream::Tcp(tcp), Stream::Tcp(_)) = (&*from.stream, &*to.stream)
            && !tcp.fd().has_urgent()
        {
            ready!(tcp.fd().poll_readable(cx));
            if let Some(pipe) = Pipe::take() {
                return self.poll_splice(cx, tcp, pipe);
            }
            count(|c| c.pipes_refused.add());
            self.full_reads = 0;
        }
        let received = from.stream.poll_recv(cx, from.input);
        match received {
            Poll::Ready(Ok(BUFFER_BYTES..)) => self.full_reads = self.full_reads.saturating_add(1),
            Poll::Ready(_) => self.full_reads = 0,
            Poll::Pending => from.input.release(),
        }
        received
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        mut pipe: Pipe,
    ) -> Poll<io::Result<usize>> {
        let got = ready!(pipe.poll_fill(cx, from))?;
        if got < SPLICE_LEAST {
            self.full_reads = 0;
        }
        count(|c| c.tunnel_bytes_spliced.add_all(got));
        self.pipe = Some(pipe);
        Poll::Ready(Ok(got))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};
    use std::rc::Rc;

    use super::*;
    use crate::io::event_loop::{self, EventLoop};
    use crate::io::splice;
    use crate::kernel::{Driver, Time};

    /// A socket of the loop and its peer.
    fn pair() -> (Stream, std::net::TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Stream::Tcp(near), listener.accept().unwrap().0)
    }

    #[test]
    fn silence_ends_a_tunnel_also_with_bytes_in_its_pipe() {
        let ((mut client, mut client_peer), (mut upstream, upstream_peer)) = (pair(), pair());
        let sender = std::thread::spawn(move || {
            // More than anybody takes: the endpoint never reads.
            client_peer.write_all(&vec![0; 64 << 20]).unwrap_err().kind()
        });
        let done = Rc::new(Cell::new(false));
        let tell = Rc::clone(&done);
        event_loop::spawn(async move {
            let mut buffers: [Buffer; 4] = Default::default();
            let [a, b, c, d] = &mut buffers;
            let from = End { stream: &mut client, input: a, pending: b };
            let to = End { stream: &mut upstream, input: c, pending: d };
            run(from, to, Duration::from_millis(200)).await;
            tell.set(true);
        })
        .detach();
        let mut driver = EventLoop;
        loop {
            let busy = driver.run_tasks();
            if done.get() {
                break;
            }
            driver.wait(busy.then_some(Time::ZERO));
        }
        assert_eq!(sender.join().unwrap(), io::ErrorKind::ConnectionReset);
        assert!(upstream_peer.take_error().unwrap().is_some(), "a reset as well");
        // What was in it belongs to nobody else.
        assert_eq!(splice::open(), (0, 0));
        assert_eq!(crate::io::buffer::lent(), 0);
    }
}
