//! A client connection that speaks HTTP: one request after the other, until either side has enough.
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::access_log::{Entry, Reason};
use super::exchange;
use super::flow::poll_drain;
use super::http2;
use super::limits::{
    ANSWERS_PER_TURN, HEAD_TIMEOUT, KEEP_ALIVE_TIMEOUT, LINGER_LONGEST, LINGER_SILENCE,
    ROUNDS_PER_TURN, STREAM_IDLE_TIMEOUT,
};
use super::request::{self, Answer, Next};
use super::shared::{Admission, Shared};
use super::stats::count;
use super::stream::Stream;
use super::table::Snapshot;
use crate::api::route::{Listener, ListenerProtocol, TlsAction};
use crate::io::buffer::Buffer;
use crate::io::event_loop;
use crate::io::reactor::loop_now;
use crate::proto::http1::{HeadProgress, LocalReply, PeerAddress, Version};
use crate::proto::proxy_protocol::Ends;

/// The scope of a connection whose listener is not there any more; no host has it.
pub(super) const NO_SCOPE: u32 = u32::MAX;

/// A client and all that is known about it between two requests. Kept small: ten thousand of them wait.
pub(super) struct Connection {
    pub(super) client: Stream,
    pub(super) shared: Rc<Shared>,
    pub(super) snapshot: Rc<Snapshot>,
    /// None once the listener has been taken away.
    pub(super) listener: Option<Arc<Listener>>,
    pub(super) local: SocketAddr,
    pub(super) peer: PeerAddress,
    pub(super) peer_port: u16,
    /// The peer is a proxy whose word about its clients counts.
    pub(super) is_trusted_proxy: bool,
    pub(super) is_tls: bool,
    /// On TLS: which of the listeners that share the port the server name has chosen.
    pub(super) scope: u32,
    /// The server name, lower-case.
    pub(super) server_name: Option<Box<str>>,
    pub(super) progress: HeadProgress,
    /// The time for the head that is arriving runs.
    pub(super) head_began: bool,
    /// Received from the client.
    pub(super) input: Buffer,
    /// To be sent to the client.
    pub(super) to_client: Buffer,
    /// To be sent to the endpoint.
    pub(super) to_upstream: Buffer,
    /// The line of the access log for the request that is served.
    pub(super) entry: Option<Box<Entry>>,
    /// None of a stream of HTTP/2: its connection has one.
    pub(super) admission: Option<Admission>,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// The next request is read.
    KeepAlive,
    /// All was said; close as soon as the client has heard it.
    Linger,
    /// The connection is broken or what was sent is incomplete: just close.
    Abort,
}

/// What the wait for a request head ended with.
enum Waited {
    More,
    Closed,
    TooLong,
    Draining,
}

/// Serves a client until the connection is over.
pub(super) async fn serve(mut connection: Connection) {
    let mut in_a_row = 0u32;
    let mut began = false;
    loop {
        if !began && http2::is_wanted(&connection) {
            // Another task, so that this one's memory is given back.
            return event_loop::spawn_connection(http2::serve(connection)).detach();
        }
        let after = match request::next(&mut connection) {
            Next::Incomplete => match connection.receive().await {
                Waited::More => continue,
                Waited::Closed | Waited::Draining => After::Abort,
                Waited::TooLong => connection.give_up_waiting().await,
            },
            Next::Answered(keep_alive, _) => {
                began = true;
                in_a_row += 1;
                if in_a_row.is_multiple_of(ANSWERS_PER_TURN) {
                    smol::future::yield_now().await;
                }
                connection.answered(keep_alive).await
            }
            Next::Forward(job) => {
                began = true;
                exchange::forward(&mut connection, job).await
            }
        };
        connection.log_end();
        match after {
            After::KeepAlive => {}
            After::Linger => return connection.linger().await,
            After::Abort => return,
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Takes over the current tables. What is in flight keeps those it began with.
    #[inline]
    pub(super) fn refresh(&mut self) {
        if self.shared.is_current(&self.snapshot) {
            return;
        }
        self.snapshot = self.shared.current();
        let protocol = if self.is_tls { ListenerProtocol::Tls } else { ListenerProtocol::Http };
        let door = self.snapshot.door(self.local);
        self.listener = door.and_then(|door| door.get(protocol)).map(Arc::clone);
        if self.is_tls {
            self.scope = self.scope_of_name();
        }
    }

    /// What the server name of the handshake chooses now.
    fn scope_of_name(&self) -> u32 {
        let Some(listener) = &self.listener else { return NO_SCOPE };
        match listener.tls.find(self.server_name.as_deref()) {
            Some(TlsAction::Terminate(termination)) => termination.scope,
            _ => NO_SCOPE,
        }
    }

    /// Its ends, as the client sees them.
    pub(super) fn origin(&self) -> Ends {
        let client = SocketAddr::new(self.peer.ip(), self.peer_port);
        Ends { client, server: self.local }
    }

    /// Postpones the end that silence brings.
    #[inline]
    pub(super) fn alive(&self) {
        self.client.set_deadline(loop_now() + STREAM_IDLE_TIMEOUT);
    }

    /// Waits for (more of) a request head.
    async fn receive(&mut self) -> Waited {
        let fresh = self.input.is_empty();
        if fresh {
            self.release();
            if let Some(admission) = &self.admission {
                admission.begin_idle();
            }
            self.client.set_deadline(loop_now() + KEEP_ALIVE_TIMEOUT);
        } else {
            self.begin_head();
        }
        let waited = poll_fn(|cx| {
            match self.client.poll_recv(cx, &mut self.input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Waited::Closed),
                Poll::Ready(Ok(_)) => return Poll::Ready(Waited::More),
                Poll::Pending => {}
            }
            if self.client.poll_expired(cx).is_ready() {
                return Poll::Ready(Waited::TooLong);
            }
            let unwanted = self.admission.as_ref().is_some_and(Admission::is_unwanted);
            let closing = self.shared.is_draining() || unwanted;
            if fresh && (closing || self.is_unclaimed()) {
                return Poll::Ready(Waited::Draining);
            }
            Poll::Pending
        })
        .await;
        if fresh && let Some(admission) = &self.admission {
            admission.end_idle();
        }
        self.begin_head();
        waited
    }

    /// Starts the time for a head, once, with its first byte.
    fn begin_head(&mut self) {
        if !std::mem::replace(&mut self.head_began, true) {
            self.client.set_deadline(loop_now() + HEAD_TIMEOUT);
        }
    }

    /// Whether nobody listens any more where this client has connected to.
    pub(super) fn is_unclaimed(&self) -> bool {
        !self.shared.is_current(&self.snapshot) && self.shared.current().door(self.local).is_none()
    }

    async fn give_up_waiting(&mut self) -> After {
        count(|c| c.client_timeouts.add());
        if self.input.is_empty() {
            return After::Abort;
        }
        let answer = Answer::closing(Version::Http11);
        let at = self.to_client.len();
        request::reply_to(self.to_client.vec(), LocalReply::RequestTimeout, answer);
        self.log_unread(at, Version::Http11, Reason::HEAD_SLOW);
        self.answered(false).await
    }

    /// Sends the answer that is in `to_client`.
    pub(super) async fn answered(&mut self, keep_alive: bool) -> After {
        self.alive();
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = poll_drain(cx, &mut self.client, &mut self.to_client) {
                self.client.finish(&[]);
                return Poll::Ready(sent.is_ok());
            }
            self.client.poll_expired(cx).map(|()| false)
        })
        .await;
        if !sent && let Some(entry) = &mut self.entry {
            entry.because(Reason::CLIENT_GONE);
        }
        match (sent, keep_alive) {
            (false, _) => After::Abort,
            (true, true) => After::KeepAlive,
            (true, false) => After::Linger,
        }
    }

    /// Gives back all memory that is not needed while nothing happens.
    #[inline]
    fn release(&mut self) {
        self.input.release();
        self.to_client.release();
        self.to_upstream.release();
        self.client.release();
    }

    /// Closes so that the client gets what was sent: a reset, which the kernel sends if data arrives for
    /// a closed socket, would destroy it (RFC 9112 section 9.6).
    pub(super) async fn linger(mut self) {
        let last = loop_now() + LINGER_LONGEST;
        self.client.set_deadline(loop_now() + LINGER_SILENCE);
        let mut closed = false;
        poll_fn(|cx| {
            if !std::mem::replace(&mut closed, true) {
                self.client.close_write(cx);
            }
            for _ in 0..ROUNDS_PER_TURN {
                self.input.consume(self.input.len());
                match self.client.poll_recv(cx, &mut self.input) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) if loop_now() >= last => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {
                        self.client.set_deadline(last.min(loop_now() + LINGER_SILENCE));
                    }
                    Poll::Pending => {
                        self.release();
                        return self.client.poll_expired(cx);
                    }
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Size of what a connection's task keeps; see the test.
#[cfg(test)]
pub(super) fn size_of_task() -> usize {
    fn size<A, F>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }
    size(serve)
}
