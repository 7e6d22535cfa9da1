//! What all connections of this thread share: the current tables, and who is connected.
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;

use super::stats::count;
use super::table::Snapshot;
use super::upstream::Hosts;
use crate::io::reactor::WakeHandle;

/// The proxy as its connections see it.
pub(super) struct Shared {
    current: RefCell<Rc<Snapshot>>,
    pub(super) hosts: Rc<Hosts>,
    pub(super) xff_trusted_hops: u8,
    pub(super) connection_limit: usize,
    pub(super) tls: Arc<ServerConfig>,
    draining: Cell<bool>,
    connections: RefCell<Vec<Option<Member>>>,
    free: RefCell<Vec<usize>>,
    open: Cell<usize>,
}

struct Member {
    wake: WakeHandle,
    idle: Rc<Cell<bool>>,
}

/// A client connection's place among the others; leaves when dropped, also by a panic.
pub(super) struct Admission {
    shared: Rc<Shared>,
    index: usize,
    idle: Rc<Cell<bool>>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        xff_trusted_hops: u8,
        connection_limit: usize,
        tls: Arc<ServerConfig>,
    ) -> Self {
        let hosts = Rc::new(Hosts::default());
        Self {
            current: RefCell::new(Rc::new(Snapshot::empty(Rc::clone(&hosts)))),
            hosts,
            xff_trusted_hops,
            connection_limit,
            tls,
            draining: Cell::new(false),
            connections: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn is_current(&self, snapshot: &Rc<Snapshot>) -> bool {
        Rc::ptr_eq(&self.current.borrow(), snapshot)
    }

    pub(super) fn current(&self) -> Rc<Snapshot> {
        Rc::clone(&self.current.borrow())
    }

    /// Makes `snapshot` the one that all later requests see.
    pub(super) fn replace(&self, snapshot: Snapshot) {
        // The old one may be freed here, and with it much else: not while it is borrowed.
        let old = self.current.replace(Rc::new(snapshot));
        let closed = old.has_doors_that_are_not_in(&self.current.borrow());
        drop(old);
        if closed {
            self.wake_idle();
        }
    }

    /// No request is begun any more; idle connections close.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.hosts.close_all();
        self.wake_idle();
    }

    #[inline]
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// How many client connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// A place for a new connection, unless there are too many.
    pub(super) fn admit(self: &Rc<Self>, wake: WakeHandle) -> Option<Admission> {
        if self.open.get() >= self.connection_limit {
            return None;
        }
        let idle = Rc::new(Cell::new(false));
        let member = Some(Member { wake, idle: Rc::clone(&idle) });
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
        Some(Admission { shared: Rc::clone(self), index, idle })
    }

    /// Lets idle connections see whether they are still wanted.
    fn wake_idle(&self) {
        for member in self.connections.borrow().iter().flatten() {
            if member.idle.get() {
                member.wake.wake();
            }
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Whether the connection waits for a request.
    #[inline]
    pub(super) fn set_idle(&self, idle: bool) {
        self.idle.set(idle);
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
