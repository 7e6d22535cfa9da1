//! Connections to endpoints: keeping and reusing them.
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use super::dial::{Dial, Dials};
use super::http2::{self, StreamIo};
use super::limits::{IDLE_PER_ENDPOINT, UPSTREAM_IDLE_TIMEOUT, UPSTREAM_KEEPALIVE};
use super::stats::count;
use super::stream::Stream;
use crate::api::route::{UpstreamProtocol, UpstreamSettings};
use crate::io::buffer::Buffer;
use crate::io::reactor;
use crate::kernel::Time;

/// One address that requests are sent to in one way, and its idle connections, the most recently used last.
pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) dial: Rc<Dial>,
    idle: RefCell<Vec<Idle>>,
    /// The connections that carry many requests at a time.
    pub(super) http2: http2::Pool,
    /// No Service has this endpoint any more: connections are not kept.
    gone: Cell<bool>,
    all_idle: Rc<AllIdle>,
}

/// Idle connections of all hosts.
struct AllIdle {
    count: Cell<usize>,
    limit: usize,
}

struct Idle {
    stream: Stream,
    since: Time,
}

/// All addresses in use, each with each way of connecting. A host lives on while the tables change, with its
/// connections.
pub(super) struct Hosts {
    by_address: RefCell<HashMap<(SocketAddr, u32), Rc<Host>>>,
    dials: Dials,
    all_idle: Rc<AllIdle>,
}

/// A connection to an endpoint that carries a request.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) host: Rc<Host>,
    /// It has carried a request before.
    pub(super) reused: bool,
    pub(super) input: Buffer,
}

// === impl Hosts ===

impl Hosts {
    /// No hosts, which together will keep at most `idle_limit` connections.
    pub(super) fn new(idle_limit: usize) -> Self {
        let all_idle = Rc::new(AllIdle { count: Cell::new(0), limit: idle_limit });
        Self { by_address: RefCell::default(), dials: Dials::default(), all_idle }
    }

    pub(super) fn get(&self, address: SocketAddr, settings: &UpstreamSettings) -> Rc<Host> {
        let dial = self.dials.get(settings);
        let mut hosts = self.by_address.borrow_mut();
        let host = hosts.entry((address, dial.id)).or_insert_with(|| {
            Rc::new(Host {
                address,
                dial,
                idle: RefCell::new(Vec::new()),
                http2: http2::Pool::default(),
                gone: Cell::new(false),
                all_idle: Rc::clone(&self.all_idle),
            })
        });
        Rc::clone(host)
    }

    /// Forgets all addresses but those that `used` names.
    pub(super) fn retain(&self, used: impl Fn(SocketAddr) -> bool) {
        self.by_address.borrow_mut().retain(|(address, _), host| {
            let keep = used(*address);
            if !keep {
                host.gone.set(true);
                host.close_idle(|_| true);
                host.http2.retire();
            }
            keep
        });
    }

    /// Closes idle connections that are too old or were closed by the endpoint, and forgets what no table names.
    pub(super) fn sweep(&self, now: Time) {
        self.by_address.borrow_mut().retain(|_, host| {
            host.close_idle(|idle| {
                now.since(idle.since) >= UPSTREAM_IDLE_TIMEOUT || !idle.stream.is_quiet(false)
            });
            Rc::strong_count(host) > 1 || !host.idle.borrow().is_empty() || !host.http2.is_empty()
        });
        self.dials.sweep();
    }

    /// Closes all idle connections.
    pub(super) fn close_all(&self) {
        for host in self.by_address.borrow().values() {
            host.close_idle(|_| true);
            host.http2.retire();
        }
    }
}

// === impl AllIdle ===

impl AllIdle {
    #[inline]
    fn has_room(&self) -> bool {
        self.count.get() < self.limit
    }
}

// === impl Host ===

impl Host {
    /// An idle connection that is still good. `ask_kernel`: look once more, because the request must
    /// not be sent twice.
    #[inline]
    pub(super) fn take_idle(self: &Rc<Self>, ask_kernel: bool) -> Option<Upstream> {
        if self.dial.is_personal() {
            return None;
        }
        if let Some(stream) = self.http2.open() {
            count(|c| c.upstream_reuses.add());
            return Some(Upstream::shared(stream, self));
        }
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            self.uncount(1);
            if idle.stream.is_quiet(ask_kernel) {
                count(|c| c.upstream_reuses.add());
                return Some(Upstream {
                    stream: idle.stream,
                    host: Rc::clone(self),
                    reused: true,
                    input: Buffer::new(),
                });
            }
        }
    }

    fn close_idle(&self, close: impl Fn(&mut Idle) -> bool) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|idle| !close(idle));
        self.uncount(before - idle.len());
    }

    fn uncount(&self, closed: usize) {
        let left = &self.all_idle.count;
        left.set(left.get() - closed);
        count(|c| c.upstream_idle.subtract(closed as u64));
    }
}

// === impl Upstream ===

impl Upstream {
    /// A new connection; `input` is what the endpoint has already said. `raw`: for bytes, none of HTTP's versions.
    pub(super) fn fresh(stream: Stream, input: Buffer, host: &Rc<Host>, raw: bool) -> Self {
        count(|c| c.upstream_connects.add());
        // A dead endpoint is noticed by other timeouts too.
        if let Some(tcp) = stream.tcp() {
            let _ = tcp.set_keepalive(UPSTREAM_KEEPALIVE);
        }
        if host.dial.protocol == UpstreamProtocol::Http2 && !raw {
            let stream = http2::begin(stream, input, host);
            return Self { reused: false, ..Self::shared(stream, host) };
        }
        Self { stream, host: Rc::clone(host), reused: false, input }
    }

    /// A stream of a connection that others use as well.
    pub(super) fn shared(stream: StreamIo, host: &Rc<Host>) -> Self {
        let stream = Stream::Http2(Some(stream));
        Self { stream, host: Rc::clone(host), reused: true, input: Buffer::new() }
    }

    /// Keeps the connection for another request, if there is room. Its last exchange must be over.
    #[inline]
    pub(super) fn keep(self) {
        let mut stream = self.stream;
        if stream.is_http2() {
            return;
        }
        let host = &self.host;
        let mut idle = host.idle.borrow_mut();
        let room = idle.len() < IDLE_PER_ENDPOINT && host.all_idle.has_room();
        if room && !host.gone.get() && !host.dial.is_personal() {
            stream.release();
            idle.push(Idle { stream, since: reactor::loop_now() });
            host.all_idle.count.set(host.all_idle.count.get() + 1);
            count(|c| c.upstream_idle.add());
        }
    }
}
