//! Clients that speak HTTP/2: over TLS if that was agreed on (ALPN), on plain connections if they begin with it.
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::super::connection::Connection;
use super::super::exchange;
use super::super::limits::{GOAWAY_PATIENCE, HEAD_TIMEOUT, KEEP_ALIVE_TIMEOUT, LINGER_LONGEST};
use super::super::request::{self, Next};
use super::super::shared::StreamAdmission;
use super::super::stats::count;
use super::super::stream::Stream;
use super::driver::{Driver, News};
use super::session::{Session, State, millis};
use super::stream_io::StreamIo;
use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;
use crate::io::{event_loop, random};
use crate::kernel::Time;
use crate::proto::http1::HeadProgress;
use crate::proto::http2::{Connection as Protocol, ErrorCode, PREFACE};

/// Whether what has come of a connection's first bytes is HTTP/2.
#[inline]
pub(in crate::server::proxy) fn is_wanted(connection: &Connection) -> bool {
    match &connection.client {
        Stream::Tcp(_) => connection.input.as_slice().starts_with(&PREFACE[..4]),
        Stream::Tls(tls) => tls.protocol() == Some(b"h2"),
        Stream::Http2(_) => false,
    }
}

/// Serves a client until the connection is over.
pub(in crate::server::proxy) async fn serve(mut connection: Connection) {
    count(|c| c.http2_connections.add());
    let nonce = u128::from_ne_bytes(random::bytes16());
    let protocol = Protocol::server(millis(loop_now()), nonce);
    let session = Rc::new(Session::new(protocol));
    let input = std::mem::replace(&mut connection.input, Buffer::new());
    let mut driver = Driver { session: Rc::clone(&session), input, failed: false };
    connection.client.set_deadline(loop_now() + HEAD_TIMEOUT);
    let mut idle = Idle::default();
    let early = !driver.input.is_empty();
    let mut first = true;
    let ended = poll_fn(|cx| {
        let Connection { client, .. } = &mut connection;
        // The transport is taken out, so that a new stream can be made of what is left.
        let mut transport = std::mem::replace(client, Stream::Http2(None));
        let mut news = |news: News<'_>| match news {
            News::Request { state, stream, end } => {
                begin(&mut connection, &session, state, stream, end);
            }
            News::Refused => count(|c| c.bad_requests.add()),
        };
        if std::mem::take(&mut first) && early {
            driver.take(&mut news);
        }
        let mut polled = driver.poll(cx, &mut transport, &mut news);
        connection.client = transport;
        if polled.is_pending() && !driver.is_over() {
            idle.look(cx, &mut connection, &session);
            if driver.is_over() {
                polled = driver.poll(cx, &mut connection.client, &mut |_| {});
            }
        }
        // One that does not take the last words either is not waited for.
        if polled.is_pending() && driver.is_over() {
            if !std::mem::replace(&mut idle.closing, true) {
                connection.client.set_deadline(loop_now() + LINGER_LONGEST);
            } else if connection.client.poll_expired(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    })
    .await;
    drop(driver);
    if ended.is_ok() {
        connection.linger().await;
    }
}

/// A stream for the request whose head has just arrived, and a task for it.
fn begin(
    connection: &mut Connection,
    session: &Rc<Session>,
    state: &mut State,
    stream: u32,
    end: bool,
) {
    let Some(place) = connection.shared.admit_stream() else {
        count(|c| c.streams_refused.add());
        let (protocol, out) = state.parts();
        return protocol.release(stream, ErrorCode::RefusedStream, out);
    };
    let token = state.take_slot(stream);
    state.protocol.set_token(stream, token);
    state.slot(token).ended = end;
    connection.refresh();
    let mut input = Buffer::new();
    input.extend(state.protocol.text());
    let stream = StreamIo::incoming(Rc::clone(session), token);
    let connection = Connection {
        client: Stream::Http2(Some(stream)),
        shared: Rc::clone(&connection.shared),
        snapshot: Rc::clone(&connection.snapshot),
        listener: connection.listener.clone(),
        local: connection.local,
        peer: connection.peer,
        peer_port: connection.peer_port,
        is_trusted_proxy: connection.is_trusted_proxy,
        is_tls: connection.is_tls,
        scope: connection.scope,
        server_name: connection.server_name.clone(),
        progress: HeadProgress::default(),
        head_began: true,
        input,
        to_client: Buffer::new(),
        to_upstream: Buffer::new(),
        entry: None,
        admission: None,
    };
    event_loop::spawn_connection(one_request(connection, place)).detach();
}

/// Serves the one request of a stream.
async fn one_request(mut connection: Connection, _place: StreamAdmission) {
    match request::next(&mut connection) {
        // The text of a head is always whole.
        Next::Incomplete => {}
        Next::Answered(keep_alive, _) => {
            connection.answered(keep_alive).await;
        }
        Next::Forward(job) => {
            exchange::forward(&mut connection, job).await;
        }
    }
    connection.log_end();
}

/// What a connection waits for, and how long.
#[derive(Default)]
struct Idle {
    waits: bool,
    /// It has shown that it speaks HTTP/2.
    began: bool,
    leaving: Cell<bool>,
    closing: bool,
}

// === impl Idle ===

impl Idle {
    /// Looks at deadlines, and whether the connection is still wanted.
    fn look(
        &mut self,
        cx: &mut std::task::Context<'_>,
        connection: &mut Connection,
        session: &Session,
    ) {
        let mut state = session.state();
        let streams = state.protocol.stream_count();
        let began = state.protocol.has_begun() != self.began;
        self.began |= began;
        if streams == 0 && (began || !self.waits) {
            self.waits = true;
            if let Some(admission) = &connection.admission {
                admission.begin_idle();
            }
            let patience = if self.began { KEEP_ALIVE_TIMEOUT } else { HEAD_TIMEOUT };
            Self::wait(&mut state, connection, loop_now() + patience);
        } else if streams > 0 && std::mem::take(&mut self.waits) {
            if let Some(admission) = &connection.admission {
                admission.end_idle();
            }
            state.next_look = Time::MAX;
        }
        if connection.client.poll_expired(cx).is_ready() {
            if self.waits || self.leaving.get() {
                let (protocol, out) = state.parts();
                protocol.depart(out);
            }
            state.expire();
            state.next_look = Time::MAX;
        }
        let unwanted = connection.admission.as_ref().is_some_and(|a| a.is_unwanted());
        let closing = connection.shared.is_draining() || connection.is_unclaimed();
        if unwanted && self.waits {
            let (protocol, out) = state.parts();
            protocol.depart(out);
        } else if closing && !self.leaving.replace(true) {
            let (protocol, out) = state.parts();
            protocol.announce_departure(out);
            Self::wait(&mut state, connection, loop_now() + GOAWAY_PATIENCE);
        }
        let earliest = state.earliest().unwrap_or(Time::MAX);
        if earliest < state.next_look {
            Self::wait(&mut state, connection, earliest);
        }
        if !state.out.is_empty() {
            state.wake_driver();
        }
    }

    fn wait(state: &mut State, connection: &Connection, until: Time) {
        state.next_look = until;
        connection.client.set_deadline(until);
    }
}
