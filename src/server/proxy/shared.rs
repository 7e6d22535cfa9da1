//! What all connections of this thread share: the current tables, and who is connected.
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::access_log::AccessLog;
use super::limits::DISMISSAL_LOOKS;
use super::stats::count;
use super::table::Snapshot;
use super::terminate::Terminator;
use super::upstream::Hosts;
use crate::api::address::Network;
use crate::api::config::Config;
use crate::io::reactor::WakeHandle;
use crate::proto::http1::Trust;

/// The proxy as its connections see it.
pub(super) struct Shared {
    current: RefCell<Rc<Snapshot>>,
    pub(super) hosts: Rc<Hosts>,
    xff_trusted_hops: u8,
    trusted_proxies: Arc<[Network]>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) connection_limit: usize,
    pub(super) tls: Terminator,
    draining: Cell<bool>,
    connections: RefCell<Vec<Option<Member>>>,
    free: RefCell<Vec<usize>>,
    open: Cell<usize>,
    /// Requests in flight that share their connections with others.
    streams: Cell<usize>,
    /// Where the next idle connection is looked for when there are too many.
    hand: Cell<usize>,
}

struct Member {
    wake: WakeHandle,
    state: Rc<Cell<State>>,
}

/// What a connection is doing, as far as the others need to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Busy,
    /// It waits for a request.
    Idle,
    /// It has waited, and its place is needed.
    Unwanted,
}

/// A client connection's place among the others; leaves when dropped, also by a panic.
pub(super) struct Admission {
    shared: Rc<Shared>,
    index: usize,
    state: Rc<Cell<State>>,
}

/// The place of a request on a shared connection.
pub(super) struct StreamAdmission {
    shared: Rc<Shared>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        config: &Config,
        connection_limit: usize,
        idle_upstream_limit: usize,
        tls: Terminator,
    ) -> Self {
        let hosts = Rc::new(Hosts::new(idle_upstream_limit));
        Self {
            current: RefCell::new(Rc::new(Snapshot::empty(Rc::clone(&hosts)))),
            hosts,
            xff_trusted_hops: config.xff_trusted_hops,
            trusted_proxies: Arc::clone(&config.trusted_proxies),
            access_log: None,
            connection_limit,
            tls,
            draining: Cell::new(false),
            connections: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
            streams: Cell::new(0),
            hand: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn is_current(&self, snapshot: &Rc<Snapshot>) -> bool {
        Rc::ptr_eq(&self.current.borrow(), snapshot)
    }

    pub(super) fn current(&self) -> Rc<Snapshot> {
        Rc::clone(&self.current.borrow())
    }

    /// Whether `address` is that of a proxy that is believed by its address.
    pub(super) fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from `address` may begin with the PROXY protocol: any, unless it is said which.
    pub(super) fn may_send_proxy_header(&self, address: IpAddr) -> bool {
        self.trusted_proxies.is_empty() || self.is_trusted_proxy(address)
    }

    /// Whose word about clients counts, on a connection whose peer is a trusted proxy or not.
    #[inline]
    pub(super) fn trust(&self, peer: bool) -> Trust<'_> {
        match &*self.trusted_proxies {
            [] => Trust::Hops(self.xff_trusted_hops),
            networks => Trust::Proxies { networks, peer },
        }
    }

    /// Makes `snapshot` the one that all later requests see.
    pub(super) fn replace(&self, snapshot: Snapshot) {
        // The old one may be freed here, and with it much else: not while it is borrowed.
        let old = self.current.replace(Rc::new(snapshot));
        let closed = old.has_doors_that_are_not_in(&self.current.borrow());
        drop(old);
        if closed {
            self.wake_all();
        }
    }

    /// No request is begun any more; idle connections close.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.hosts.close_all();
        self.wake_all();
    }

    #[inline]
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// How many client connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// A place for a new connection. If there are too many, one that waits for a request makes room: whoever
    /// holds connections without using them must not keep others out.
    pub(super) fn admit(self: &Rc<Self>, wake: WakeHandle) -> Option<Admission> {
        if self.open.get() >= self.connection_limit && !self.dismiss_idle() {
            return None;
        }
        let state = Rc::new(Cell::new(State::Busy));
        let member = Some(Member { wake, state: Rc::clone(&state) });
        let mut connections = self.connections.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                connections[index] = member;
                index
            }
            None => {
                connections.push(member);
                connections.len() - 1
            }
        };
        self.open.set(self.open.get() + 1);
        count(|c| c.connections_open.add());
        Some(Admission { shared: Rc::clone(self), index, state })
    }

    /// A place for a request that shares its connection with others. Each may need a descriptor for its endpoint, so
    /// that there may be as many as half of the connections.
    pub(super) fn admit_stream(self: &Rc<Self>) -> Option<StreamAdmission> {
        if self.streams.get() >= (self.connection_limit / 2).max(1) {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        Some(StreamAdmission { shared: Rc::clone(self) })
    }

    /// Has an idle connection closed. They take turns, so it is one that has been there for long.
    fn dismiss_idle(&self) -> bool {
        // One that gets a request at this moment stays, so there may be some too many for a while.
        if self.open.get() >= self.connection_limit + DISMISSAL_LOOKS {
            return false;
        }
        let connections = self.connections.borrow();
        for _ in 0..DISMISSAL_LOOKS.min(connections.len()) {
            let at = self.hand.get() % connections.len();
            self.hand.set(at + 1);
            if let Some(member) = &connections[at]
                && member.state.get() == State::Idle
            {
                member.state.set(State::Unwanted);
                member.wake.wake();
                count(|c| c.connections_dismissed.add());
                return true;
            }
        }
        false
    }

    /// Lets connections see whether they are still wanted: those that wait, and those of HTTP/2.
    fn wake_all(&self) {
        for member in self.connections.borrow().iter().flatten() {
            member.wake.wake();
        }
    }
}

// === impl Admission ===

impl Admission {
    /// The connection waits for a request from here on.
    #[inline]
    pub(super) fn begin_idle(&self) {
        self.state.set(State::Idle);
    }

    /// It does not any more.
    #[inline]
    pub(super) fn end_idle(&self) {
        self.state.set(State::Busy);
    }

    /// Whether the connection's place is needed.
    #[inline]
    pub(super) fn is_unwanted(&self) -> bool {
        self.state.get() == State::Unwanted
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.connections.borrow_mut()[self.index] = None;
        self.shared.free.borrow_mut().push(self.index);
        self.shared.open.set(self.shared.open.get() - 1);
        count(|c| {
            c.connections_open.subtract(1);
            if std::thread::panicking() {
                c.connections_panicked.add();
            }
        });
    }
}

impl Drop for StreamAdmission {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get() - 1);
        if std::thread::panicking() {
            count(|c| c.connections_panicked.add());
        }
    }
}
