//! Connections to endpoints that speak HTTP/2: as many streams on each as the endpoint takes.
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::limits::{LINGER_LONGEST, UPSTREAM_IDLE_TIMEOUT};
use super::super::stream::Stream;
use super::super::upstream::Host;
use super::driver::Driver;
use super::session::{Session, millis};
use super::stream_io::StreamIo;
use crate::io::buffer::Buffer;
use crate::io::event_loop;
use crate::io::reactor::loop_now;
use crate::kernel::Time;
use crate::proto::http2::Connection as Protocol;

/// The connections to one endpoint.
#[derive(Default)]
pub(in crate::server::proxy) struct Pool {
    sessions: RefCell<Vec<Rc<Session>>>,
    /// Somebody is connecting; the others wait for that.
    connecting: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// What a request that needs a stream is to do.
pub(in crate::server::proxy) enum Turn {
    /// It can have one of a connection that there is.
    Shared(StreamIo),
    /// Connect; the others wait until this is dropped.
    Mine(Connecting),
    /// Wait for somebody who connects.
    Wait,
}

/// The turn of the one who connects.
pub(in crate::server::proxy) struct Connecting(Rc<Host>);

// === impl Pool ===

impl Pool {
    /// A stream on one of the connections, if any has room. The first one is filled first, so that those that are
    /// not needed any more become idle.
    pub(in crate::server::proxy) fn open(&self) -> Option<StreamIo> {
        let sessions = self.sessions.borrow();
        let free = sessions.iter().find(|session| {
            let state = session.state();
            !state.closed && state.protocol.room_for_streams() > session.opening.get()
        })?;
        Some(StreamIo::outgoing(free))
    }

    /// Whether there are no connections.
    pub(in crate::server::proxy) fn is_empty(&self) -> bool {
        self.sessions.borrow().is_empty()
    }

    /// Has all connections end, when their streams have.
    pub(in crate::server::proxy) fn retire(&self) {
        for session in self.sessions.borrow().iter() {
            let mut state = session.state();
            let (protocol, out) = state.parts();
            protocol.depart(out);
            state.wake_driver();
        }
    }

    fn forget(&self, gone: &Rc<Session>) {
        self.sessions.borrow_mut().retain(|session| !Rc::ptr_eq(session, gone));
    }
}

/// Whose turn it is to connect to `host`.
pub(in crate::server::proxy) fn poll_turn(host: &Rc<Host>, cx: &Context<'_>) -> Turn {
    let pool = &host.http2;
    if let Some(stream) = pool.open() {
        return Turn::Shared(stream);
    }
    if pool.connecting.replace(true) {
        let mut waiting = pool.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        return Turn::Wait;
    }
    Turn::Mine(Connecting(Rc::clone(host)))
}

/// Begins to speak HTTP/2 on a new connection to `host`, and opens a stream on it. `input` is what has arrived.
pub(in crate::server::proxy) fn begin(
    transport: Stream,
    input: Buffer,
    host: &Rc<Host>,
) -> StreamIo {
    let scheme = if matches!(transport, Stream::Tls(_)) { "https" } else { "http" };
    let session = Rc::new(Session::new(Protocol::client(scheme, millis(loop_now()))));
    let personal = host.dial.is_personal();
    if !personal {
        host.http2.sessions.borrow_mut().push(Rc::clone(&session));
    }
    let stream = StreamIo::outgoing(&session);
    let driver = Driver { session, input, failed: false };
    event_loop::spawn_connection(run(transport, driver, Rc::downgrade(host), personal)).detach();
    stream
}

/// Runs a connection until it is over. `personal`: it is for one client, and ends with its stream.
async fn run(mut transport: Stream, mut driver: Driver, host: Weak<Host>, personal: bool) {
    let patience = if personal { Duration::ZERO } else { UPSTREAM_IDLE_TIMEOUT };
    let session = Rc::clone(&driver.session);
    // Not one that is closed by the endpoint, or breaks, is offered to anybody.
    let _place = Place { session: Rc::clone(&session), host };
    let mut waits = false;
    driver.take(&mut |_| {});
    let ended = poll_fn(|cx| {
        let polled = driver.poll(cx, &mut transport, &mut |_| {});
        if polled.is_ready() {
            return polled;
        }
        let mut state = session.state();
        let idle = state.protocol.stream_count() == 0 && session.opening.get() == 0;
        if idle && !std::mem::replace(&mut waits, true) {
            state.next_look = loop_now() + patience;
            transport.set_deadline(state.next_look);
        } else if !idle && std::mem::take(&mut waits) {
            state.next_look = Time::MAX;
        }
        if transport.poll_expired(cx).is_ready() {
            if state.protocol.may_close() {
                // It does not even take the last words.
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if waits {
                transport.set_deadline(loop_now() + LINGER_LONGEST);
                let (protocol, out) = state.parts();
                protocol.depart(out);
                state.wake_driver();
            }
            state.expire();
            state.next_look = Time::MAX;
        }
        let earliest = state.earliest().unwrap_or(Time::MAX);
        if earliest < state.next_look {
            state.next_look = earliest;
            transport.set_deadline(earliest);
        }
        Poll::Pending
    })
    .await;
    drop(driver);
    if ended.is_ok() {
        poll_fn(|cx| {
            transport.close_write(cx);
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.http2.connecting.set(false);
        self.0.http2.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// A connection's place in the pool.
struct Place {
    session: Rc<Session>,
    host: Weak<Host>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(host) = self.host.upgrade() {
            host.http2.forget(&self.session);
        }
    }
}
