//! UDP listeners. What a client address sends to a listener is a flow: it goes to one endpoint, whose answers come
//! back from the address and port that the client has asked, until nothing has passed for a while.
mod table;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use self::table::{Key, Limits, Stage, Table};
use super::access_log::Passed;
use super::cluster::{Lease, Member, Wish};
use super::limits::{
    ROUNDS_PER_TURN, UDP_ANSWERED_TIMEOUT, UDP_FLOWS, UDP_FLOWS_OF_SOURCE, UDP_TOUCH,
    UDP_UNANSWERED_TIMEOUT,
};
use super::shared::Shared;
use super::stats::count;
use super::table::Snapshot;
use crate::api::route::Route;
use crate::io::reactor::loop_now;
use crate::io::udp::{Datagram, UdpSocket};
use crate::io::{event_loop, random};
use crate::kernel::Time;
use crate::proto::http1::PeerAddress;
use crate::proto::maglev;

/// A listener's socket.
struct Port {
    socket: UdpSocket,
    shared: Rc<Shared>,
}

struct Flow {
    key: Key,
    /// The socket it came in by.
    port: Weak<Port>,
    upstream: UdpSocket,
    /// The tables by which the endpoint is known to be good.
    snapshot: RefCell<Rc<Snapshot>>,
    route: Arc<Route>,
    began: Time,
    /// Bytes from the client, and to it.
    bytes: Cell<(u64, u64)>,
    stage: Cell<Stage>,
    /// When its place in the table was last changed.
    touched: Cell<Time>,
    /// It is not in the table any more.
    over: Cell<bool>,
    lease: Lease,
    _open: Open,
}

thread_local! {
    /// Of all listeners.
    static FLOWS: RefCell<Table<Rc<Flow>>> = RefCell::new(Table::new(limits(u64::MAX)));
}

/// Counts a flow until dropped.
struct Open;

/// Bounds the flows of this thread, each of which has a descriptor, to an eighth of `descriptors` and to [`UDP_FLOWS`].
pub(super) fn set_limit(descriptors: u64) {
    FLOWS.set(Table::new(limits(descriptors)));
}

fn limits(descriptors: u64) -> Limits {
    let all = usize::try_from(descriptors / 8).unwrap_or(usize::MAX).clamp(1, UDP_FLOWS);
    Limits { all, of_source: (all / UDP_FLOWS_OF_SOURCE).max(1) }
}

/// Serves a listener's socket until dropped.
pub(super) async fn serve(socket: UdpSocket, shared: Rc<Shared>) {
    let port = Rc::new(Port { socket, shared });
    loop {
        for _ in 0..ROUNDS_PER_TURN {
            let take = &mut |batch: &[Datagram<'_>]| {
                for datagrams in batch.chunk_by(|a, b| (a.from, a.to) == (b.from, b.to)) {
                    port.take((datagrams[0].from, datagrams[0].to), datagrams);
                }
            };
            if let Err(error) = poll_fn(|cx| port.socket.poll_recv(cx, take)).await {
                // Left by an answer that did not arrive.
                log::debug!("receiving on {}: {error}", port.socket.local());
            }
        }
        smol::future::yield_now().await;
    }
}

// === impl Port ===

impl Port {
    /// Hands on what has come from one client to one address.
    fn take(self: &Rc<Self>, key: Key, datagrams: &[Datagram<'_>]) {
        count(|c| c.datagrams_received.add_all(datagrams.len()));
        let (mut rest, mut sent) = (datagrams, 0);
        let mut refused = None;
        let known = FLOWS.with_borrow(|flows| flows.get(&key).map(Rc::clone));
        if let Some(flow) = known {
            if self.is_good(&flow) {
                sent += flow.send(&mut rest);
                refused = (!rest.is_empty()).then(|| Rc::clone(&flow.lease.member));
            }
            if !rest.is_empty() {
                flow.end();
            }
        }
        if !rest.is_empty()
            && let Some(flow) = self.begin(key, refused.as_ref())
        {
            sent += flow.send(&mut rest);
        }
        count(|c| c.datagrams_dropped.add_all(datagrams.len() - sent));
    }

    /// Whether the flow's endpoint is still one of its listener's. Only then it stays there, whatever else changes.
    fn is_good(&self, flow: &Flow) -> bool {
        if self.shared.is_current(&flow.snapshot.borrow()) {
            return true;
        }
        let snapshot = self.shared.current();
        let route = snapshot.datagrams(flow.key.1).and_then(|it| it.forward.as_ref());
        let good = route.is_some_and(|route| {
            let endpoint = flow.lease.member.host.address;
            let plan = snapshot.plan(route);
            plan.clusters().any(|(_, it)| it.members().iter().any(|m| m.host.address == endpoint))
        });
        flow.snapshot.replace(snapshot);
        good
    }

    /// A new flow, if there is an endpoint for it; not `refused`, if there is another.
    fn begin(self: &Rc<Self>, key: Key, refused: Option<&Rc<Member>>) -> Option<Rc<Flow>> {
        let snapshot = self.shared.current();
        let route = snapshot.datagrams(key.1)?.forward.as_ref()?;
        let plan = snapshot.plan(route);
        let cluster = plan.cluster(plan.next()?)?;
        let affinity = maglev::affinity(key.0.ip());
        let wish = Wish { now: loop_now(), affinity, avoid: refused, random: random::next };
        let lease = cluster.lease(cluster.pick(&wish)?)?;
        // Only now: who has no endpoint must not cost anybody his flow.
        make_room(key.0);
        let endpoint = lease.member.host.address;
        let connected = UdpSocket::connect(endpoint)
            .inspect_err(|error| log::debug!("cannot send to {endpoint}: {error}"));
        let flow = Rc::new(Flow {
            key,
            port: Rc::downgrade(self),
            upstream: connected.ok()?,
            snapshot: RefCell::new(Rc::clone(&snapshot)),
            route: Arc::clone(route),
            began: loop_now(),
            bytes: Cell::default(),
            stage: Cell::new(Stage::Unanswered),
            touched: Cell::new(loop_now()),
            over: Cell::new(false),
            lease,
            _open: Open::new(),
        });
        flow.upstream.set_deadline(loop_now() + UDP_UNANSWERED_TIMEOUT);
        FLOWS.with_borrow_mut(|flows| flows.insert(key, Rc::clone(&flow)));
        event_loop::spawn_connection(answers(Rc::clone(&flow))).detach();
        Some(flow)
    }

    fn log(&self, flow: &Flow) {
        if let Some(log) = &self.shared.access_log {
            log.passed(&Passed {
                client: &PeerAddress::new(flow.key.0.ip()),
                local: flow.key.1,
                protocol: "UDP",
                server_name: None,
                route: &flow.route,
                began: flow.began,
                upstream: Some(flow.lease.member.host.address),
                bytes: flow.bytes.get(),
            });
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // The thread's table may be gone already when the thread ends.
        let mine = FLOWS.try_with(|flows| {
            let flows = flows.borrow();
            let mine = flows.values().filter(|flow| std::ptr::eq(flow.port.as_ptr(), self));
            mine.map(Rc::clone).collect::<Vec<_>>()
        });
        for flow in mine.unwrap_or_default() {
            flow.end();
        }
    }
}

/// Ends the flow that must go before one from `client` can come, if one must.
fn make_room(client: SocketAddr) {
    let in_the_way = FLOWS.with_borrow(|flows| flows.in_the_way(client).map(Rc::clone));
    if let Some(flow) = in_the_way {
        count(|c| match flow.stage.get() {
            Stage::Unanswered => c.udp_flows_displaced.add(),
            Stage::Answered | Stage::Confirmed => c.udp_flows_dismissed.add(),
        });
        flow.end();
    }
}

/// Passes the endpoint's datagrams on to the client until the flow is over.
async fn answers(flow: Rc<Flow>) {
    poll_fn(|cx| flow.poll_answers(cx)).await;
    flow.end();
    if let Some(port) = flow.port.upgrade() {
        port.log(&flow);
    }
}

// === impl Flow ===

impl Flow {
    /// Something has passed, and has brought the flow to `stage`.
    fn moved(&self, stage: Stage) {
        let now = loop_now();
        if stage != self.stage.get() || now.since(self.touched.get()) >= UDP_TOUCH {
            self.touched.set(now);
            self.stage.set(stage);
            if !self.over.get() {
                FLOWS.with_borrow_mut(|flows| flows.advance(&self.key, stage));
            }
        }
        self.upstream.set_deadline(now + UDP_ANSWERED_TIMEOUT);
    }

    /// Sends to the endpoint, and leaves in `datagrams` what it refuses; returns how many the kernel has taken.
    fn send(&self, datagrams: &mut &[Datagram<'_>]) -> usize {
        match self.stage.get() {
            // There are protocols without answers (syslog): who goes on sending stays.
            Stage::Unanswered => self.upstream.set_deadline(loop_now() + UDP_UNANSWERED_TIMEOUT),
            Stage::Answered | Stage::Confirmed => self.moved(Stage::Confirmed),
        }
        let sent = self.upstream.send(datagrams);
        let (received, answered) = self.bytes.get();
        self.bytes.set((received + length(&datagrams[..sent.done]), answered));
        *datagrams = &datagrams[sent.done..];
        if let Some(error) = sent.error {
            log::debug!("{}: {error}", self.lease.member.host.address);
            self.lease.report(loop_now(), true);
        }
        sent.count
    }

    /// Ready when the flow is over: silence, no endpoint, or no listener.
    fn poll_answers(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(port) = self.port.upgrade() else { return Poll::Ready(()) };
        for _ in 0..ROUNDS_PER_TURN {
            if self.over.get() {
                return Poll::Ready(());
            }
            let (client, asked) = self.key;
            let take = &mut |batch: &[Datagram<'_>]| {
                let sent = port.socket.send_to(batch, client, asked.ip());
                count(|c| c.datagrams_sent.add_all(sent.count));
                let (received, answered) = self.bytes.get();
                self.bytes.set((received, answered + length(batch)));
                if let Some(error) = sent.error {
                    log::debug!("answering {client}: {error}");
                }
            };
            match self.upstream.poll_recv(cx, take) {
                Poll::Ready(Ok(_)) => {
                    if self.stage.get() == Stage::Unanswered {
                        self.lease.report(loop_now(), false);
                    }
                    self.moved(self.stage.get().max(Stage::Answered));
                }
                Poll::Ready(Err(error)) => {
                    log::debug!("{}: {error}", self.lease.member.host.address);
                    self.lease.report(loop_now(), true);
                    return Poll::Ready(());
                }
                Poll::Pending => return self.upstream.poll_expired(cx),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&self) {
        if !self.over.replace(true) {
            let _ = FLOWS.try_with(|flows| {
                let mut flows = flows.borrow_mut();
                if flows.get(&self.key).is_some_and(|it| std::ptr::eq(&**it, self)) {
                    flows.remove(&self.key);
                }
            });
            self.upstream.wake_handle().wake();
        }
    }
}

fn length(datagrams: &[Datagram<'_>]) -> u64 {
    datagrams.iter().map(|datagram| datagram.bytes.len() as u64).sum()
}

// === impl Open ===

impl Open {
    fn new() -> Self {
        count(|c| {
            c.udp_flows.add();
            c.udp_flows_open.add();
        });
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        count(|c| c.udp_flows_open.subtract(1));
    }
}
