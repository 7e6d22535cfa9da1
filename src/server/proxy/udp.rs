//! UDP listeners. What a client address sends to a listener is a flow: it goes to one endpoint, whose answers come
//! back from the address and port that the client has asked, until nothing has passed for a while.
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::access_log::Passed;
use super::cluster::{Cluster, Lease, Wish};
use super::limits::{ROUNDS_PER_TURN, UDP_FLOW_LOOKS, UDP_FLOWS, UDP_IDLE_TIMEOUT};
use super::maglev;
use super::shared::Shared;
use super::stats::count;
use super::table::Snapshot;
use crate::api::route::Route;
use crate::io::reactor::loop_now;
use crate::io::udp::{Datagram, UdpSocket};
use crate::io::{event_loop, random};
use crate::kernel::Time;
use crate::proto::http1::PeerAddress;

/// A listener's socket and the flows that came in by it.
struct Port {
    socket: UdpSocket,
    shared: Rc<Shared>,
    flows: RefCell<HashMap<Key, Rc<Flow>>>,
}

/// The client, and what it has sent to.
type Key = (SocketAddr, SocketAddr);

struct Flow {
    key: Key,
    upstream: UdpSocket,
    endpoint: SocketAddr,
    /// The tables by which the endpoint is known to be good.
    snapshot: RefCell<Rc<Snapshot>>,
    route: Arc<Route>,
    began: Time,
    last: Cell<Time>,
    /// Bytes from the client, and to it.
    bytes: Cell<(u64, u64)>,
    /// It is not in the map any more.
    over: Cell<bool>,
    _lease: Lease,
    _open: Open,
}

thread_local! {
    static FLOWS: Cell<usize> = const { Cell::new(0) };
}

/// A flow's part in the number of all.
struct Open;

/// Serves a listener's socket until dropped.
pub(super) async fn serve(socket: UdpSocket, shared: Rc<Shared>) {
    let port = Rc::new(Port { socket, shared, flows: RefCell::default() });
    loop {
        for _ in 0..ROUNDS_PER_TURN {
            let each = &mut |datagram: Datagram<'_>| port.take(datagram);
            if let Err(error) = poll_fn(|cx| port.socket.poll_recv(cx, each)).await {
                // Left by an answer that did not arrive.
                log::debug!("receiving on {}: {error}", port.socket.local());
            }
        }
        smol::future::yield_now().await;
    }
}

// === impl Port ===

impl Port {
    fn take(self: &Rc<Self>, datagram: Datagram<'_>) {
        count(|c| c.datagrams_received.add());
        let key = (datagram.from, datagram.to);
        let known = self.flows.borrow().get(&key).map(Rc::clone);
        if let Some(flow) = known {
            if self.is_good(&flow) && flow.send(datagram.bytes) {
                return;
            }
            self.end(&flow);
        }
        let sent = self.begin(key).is_some_and(|flow| flow.send(datagram.bytes));
        if !sent {
            count(|c| c.datagrams_dropped.add());
        }
    }

    /// Whether the flow's endpoint is still one of its listener's.
    fn is_good(&self, flow: &Flow) -> bool {
        if self.shared.is_current(&flow.snapshot.borrow()) {
            return true;
        }
        let snapshot = self.shared.current();
        let route = snapshot.datagrams(flow.key.1).and_then(|it| it.forward.as_ref());
        let good = route.is_some_and(|route| {
            let plan = snapshot.plan(route);
            plan.clusters()
                .any(|(_, it)| it.members().iter().any(|m| m.host.address == flow.endpoint))
        });
        flow.snapshot.replace(snapshot);
        good
    }

    /// A new flow, if there is an endpoint for it and room.
    fn begin(self: &Rc<Self>, key: Key) -> Option<Rc<Flow>> {
        if FLOWS.get() >= UDP_FLOWS && !self.forget_oldest() {
            return None;
        }
        let snapshot = self.shared.current();
        let route = snapshot.datagrams(key.1)?.forward.as_ref()?;
        let plan = snapshot.plan(route);
        let cluster = Rc::clone(plan.cluster(plan.next()?)?);
        let (upstream, lease) = connect(&cluster, key.0)?;
        let flow = Rc::new(Flow {
            key,
            endpoint: lease.member.host.address,
            upstream,
            snapshot: RefCell::new(Rc::clone(&snapshot)),
            route: Arc::clone(route),
            began: loop_now(),
            last: Cell::new(loop_now()),
            bytes: Cell::default(),
            over: Cell::new(false),
            _lease: lease,
            _open: Open::new(),
        });
        self.flows.borrow_mut().insert(key, Rc::clone(&flow));
        event_loop::spawn_connection(answers(Rc::clone(&flow), Rc::downgrade(self))).detach();
        Some(flow)
    }

    /// Makes room: of some flows the one that has been silent for longest goes.
    fn forget_oldest(&self) -> bool {
        let oldest = {
            let flows = self.flows.borrow();
            flows.values().take(UDP_FLOW_LOOKS).min_by_key(|flow| flow.last.get()).map(Rc::clone)
        };
        if let Some(flow) = &oldest {
            self.end(flow);
            count(|c| c.udp_flows_dismissed.add());
        }
        oldest.is_some()
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
                upstream: Some(flow.endpoint),
                bytes: flow.bytes.get(),
            });
        }
    }

    fn end(&self, flow: &Rc<Flow>) {
        if !flow.over.replace(true) {
            self.flows.borrow_mut().remove(&flow.key);
            flow.upstream.wake_handle().wake();
        }
    }
}

/// A socket to an endpoint.
fn connect(cluster: &Rc<Cluster>, client: SocketAddr) -> Option<(UdpSocket, Lease)> {
    let affinity = maglev::affinity(client.ip());
    let wish = Wish { now: loop_now(), affinity, avoid: None, random: random::next };
    let lease = cluster.lease(cluster.pick(&wish)?)?;
    match UdpSocket::connect(lease.member.host.address) {
        Ok(socket) => Some((socket, lease)),
        Err(error) => {
            log::debug!("cannot send to {}: {error}", lease.member.host.address);
            None
        }
    }
}

/// Passes the endpoint's datagrams on to the client until the flow is over.
async fn answers(flow: Rc<Flow>, port: Weak<Port>) {
    flow.alive();
    poll_fn(|cx| flow.poll_answers(cx, &port)).await;
    if let Some(port) = port.upgrade() {
        port.end(&flow);
        port.log(&flow);
    }
}

// === impl Flow ===

impl Flow {
    fn alive(&self) {
        let now = loop_now();
        self.last.set(now);
        self.upstream.set_deadline(now + UDP_IDLE_TIMEOUT);
    }

    /// Sends to the endpoint; false if it is not there.
    fn send(&self, bytes: &[u8]) -> bool {
        self.alive();
        match self.upstream.send(bytes) {
            // Too long for the way: the flow is not to blame.
            Err(error) => error.raw_os_error() == Some(libc::EMSGSIZE),
            Ok(()) => {
                let (received, sent) = self.bytes.get();
                self.bytes.set((received + bytes.len() as u64, sent));
                true
            }
        }
    }

    /// Ready when the flow is over: silence, no endpoint, or no listener.
    fn poll_answers(&self, cx: &mut Context<'_>, port: &Weak<Port>) -> Poll<()> {
        let Some(port) = port.upgrade() else { return Poll::Ready(()) };
        for _ in 0..ROUNDS_PER_TURN {
            if self.over.get() {
                return Poll::Ready(());
            }
            let (client, asked) = self.key;
            let each = &mut |datagram: Datagram<'_>| {
                count(|c| c.datagrams_sent.add());
                if let Err(error) = port.socket.send_to(datagram.bytes, client, asked.ip()) {
                    log::debug!("answering {client}: {error}");
                }
                let (received, sent) = self.bytes.get();
                self.bytes.set((received, sent + datagram.bytes.len() as u64));
            };
            match self.upstream.poll_recv(cx, each) {
                Poll::Ready(Ok(_)) => self.alive(),
                Poll::Ready(Err(error)) => {
                    log::debug!("{}: {error}", self.endpoint);
                    return Poll::Ready(());
                }
                Poll::Pending => return self.upstream.poll_expired(cx),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

// === impl Open ===

impl Open {
    fn new() -> Self {
        FLOWS.set(FLOWS.get() + 1);
        count(|c| {
            c.udp_flows.add();
            c.udp_flows_open.add();
        });
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = FLOWS.try_with(|flows| flows.set(flows.get() - 1));
        count(|c| c.udp_flows_open.subtract(1));
    }
}
