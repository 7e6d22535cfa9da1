//! The LAN driver: Ethernet frames, VRRP and messages between agents, on the interfaces that
//! [`Message::Listen`] names.
//!
//! Everything is received with one packet socket per interface, behind a filter that lets through only
//! ARP, neighbor messages and VRRP: it sees frames before the hooks take them, and the sender's MAC. VRRP
//! is sent by raw sockets, agents' messages by UDP. An interface that fails is closed and reported, and
//! opened again when that is possible: a node that does not hear the others would take their addresses.
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::Task;

use super::event_loop::spawn;
use super::reactor::AsyncFd;
use crate::api::address::IfIndex;
use crate::api::{Message, wiring};
use crate::arrange::Gather;
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};
use crate::proto::{ndp, vrrp};

/// Packets taken from one socket before others get their turn, so that a flood cannot starve the loop.
const READS_PER_TURN: usize = 32;
/// The largest packet read: VRRP with 255 IPv4 addresses is 1,062 bytes; nothing expected is longer.
const LONGEST_FRAME: usize = 1514;
/// The largest message between agents; fits into one frame on every link.
pub const MAX_PEER_BYTES: usize = 1200;
/// How often a port that failed, or could not be opened, is opened again.
const CHECK: Duration = Duration::from_secs(1);
/// Messages to other agents per second; more are dropped, which their senders must stand anyway.
const PEER_MESSAGES_PER_SECOND: u32 = 100;

/// The driver. A server by itself: its tasks read, it writes.
pub struct Lan {
    mailer: Mailer<Message>,
    wanted: Arc<[(IfIndex, Vec<IpAddr>)]>,
    ports: BTreeMap<IfIndex, Port>,
    /// What could not be opened; said once.
    failed: BTreeSet<IfIndex>,
    check_at: Time,
    /// The second in which messages are being counted, and how many were sent in it.
    peer_budget: (u64, u32),
}

/// The sockets on one interface. Dropping it ends its tasks and closes them.
struct Port {
    name: String,
    packet: Rc<AsyncFd>,
    vrrp4: Option<OwnedFd>,
    vrrp6: Option<OwnedFd>,
    peers4: Option<Rc<AsyncFd>>,
    peers6: Option<Rc<AsyncFd>>,
    groups: BTreeSet<Ipv6Addr>,
    tasks: Vec<Task<()>>,
}

// === impl Lan ===

impl Lan {
    /// A driver whose tasks send as [`wiring::LAN`] through `mailer`.
    pub fn new(mailer: Mailer<Message>) -> Self {
        Self {
            mailer,
            wanted: Arc::new([]),
            ports: BTreeMap::new(),
            failed: BTreeSet::new(),
            check_at: Time::ZERO,
            peer_budget: (0, 0),
        }
    }

    /// Opens what is wanted and not open, and closes the rest.
    fn listen(&mut self) {
        let wanted = Arc::clone(&self.wanted);
        self.ports.retain(|index, _| wanted.iter().any(|(it, _)| it == index));
        self.failed.retain(|index| wanted.iter().any(|(it, _)| it == index));
        for (index, addresses) in &*wanted {
            if !self.ports.contains_key(index) {
                match Port::open(*index, &self.mailer) {
                    Ok(port) => {
                        self.failed.remove(index);
                        self.ports.insert(*index, port);
                    }
                    Err(error) => {
                        if self.failed.insert(*index) {
                            log::error!(
                                "interface {} cannot be used for announcements: {error}",
                                index.0
                            );
                        }
                        continue;
                    }
                }
            }
            if let Some(port) = self.ports.get_mut(index) {
                port.join_groups(*index, addresses);
            }
        }
    }

    /// Reports a failed send, and closes the port if the interface is gone.
    fn sent(&mut self, index: IfIndex, what: &str, result: io::Result<()>) {
        let Err(error) = result else { return };
        let name = self.ports.get(&index).map_or("?", |port| &port.name);
        match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => {
                log::warn!("{name} is gone: {error}");
                self.ports.remove(&index);
            }
            // The interface is down, which netlink reports; or its queue is full, and the next one counts.
            Some(libc::ENETDOWN | libc::ENOBUFS | libc::EAGAIN) => {}
            _ => log::warn!("sending {what} on {name} failed: {error}"),
        }
    }

    fn send_vrrp(&mut self, index: IfIndex, source: IpAddr, payload: &[u8]) {
        let Some(port) = self.ports.get(&index) else { return };
        let (fd, group) = match source {
            IpAddr::V4(_) => (&port.vrrp4, IpAddr::V4(vrrp::GROUP_V4)),
            IpAddr::V6(_) => (&port.vrrp6, IpAddr::V6(vrrp::GROUP_V6)),
        };
        let Some(fd) = fd else { return };
        let result = socket::send_to(fd.as_fd(), index, Some(source), group, 0, payload);
        self.sent(index, "VRRP", result);
    }

    fn send_peers(&mut self, now: Time, payload: &[u8]) {
        let second = now.as_nanos() / 1_000_000_000;
        if self.peer_budget.0 != second {
            self.peer_budget = (second, 0);
        }
        self.peer_budget.1 += 1;
        if payload.len() > MAX_PEER_BYTES || self.peer_budget.1 > PEER_MESSAGES_PER_SECOND {
            log::warn!("a message of {} bytes to other agents was dropped", payload.len());
            return;
        }
        let mut results = Vec::new();
        for (&index, port) in &self.ports {
            let send = |fd: &Option<Rc<AsyncFd>>, group| match fd {
                Some(fd) => {
                    let port = socket::PEER_PORT;
                    socket::send_to(fd.as_fd(), index, None, group, port, payload)
                }
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            // One family is enough; an interface without IPv4 addresses has IPv6's.
            let result = send(&port.peers4, IpAddr::V4(socket::PEER_GROUP_V4))
                .or_else(|_| send(&port.peers6, IpAddr::V6(socket::PEER_GROUP_V6)));
            results.push((index, result));
        }
        for (index, result) in results {
            self.sent(index, "a message to other agents", result);
        }
    }
}

impl Server<Message> for Lan {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, _out: &mut Outbox<Message>) {
        match message {
            Message::Listen(wanted) => {
                self.wanted = wanted;
                self.check_at = now + CHECK;
                self.listen();
            }
            Message::SendFrame(index, frame) => {
                let Some(port) = self.ports.get(&index) else { return };
                let result = socket::send_frame(port.packet.as_fd(), index, &frame);
                self.sent(index, "a frame", result);
            }
            Message::SendVrrp(index, source, payload) => self.send_vrrp(index, source, &payload),
            Message::SendPeers(payload) => self.send_peers(now, &payload),
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        (!self.wanted.is_empty()).then_some(self.check_at)
    }

    fn tick(&mut self, now: Time, _out: &mut Outbox<Message>) {
        self.check_at = now + CHECK;
        self.ports.retain(|index, port| {
            let works = port.works(*index);
            if !works {
                log::warn!("{}: nothing is received any more, it is opened again", port.name);
            }
            works
        });
        self.listen();
    }
}

// === impl Port ===

impl Port {
    fn open(index: IfIndex, mailer: &Mailer<Message>) -> io::Result<Self> {
        let name = socket::interface_name(index)?;
        let packet = Rc::new(AsyncFd::new(socket::packet(index)?)?);
        let mut tasks = vec![spawn(read_frames(index, Rc::clone(&packet), mailer.clone()))];
        // A machine without IPv6, or an interface without IPv4, can do with the other.
        let optional = |what: &str, result: io::Result<OwnedFd>| match result {
            Ok(fd) => Some(fd),
            Err(error) => {
                log::warn!("{name}: no {what}: {error}");
                None
            }
        };
        let vrrp4 = optional("VRRP over IPv4", socket::vrrp(index, &name, false));
        let vrrp6 = optional("VRRP over IPv6", socket::vrrp(index, &name, true));
        let mut peers = |what: &str, result: io::Result<OwnedFd>| {
            let fd = Rc::new(AsyncFd::new(optional(what, result)?).ok()?);
            tasks.push(spawn(read_peers(Rc::clone(&fd), mailer.clone())));
            Some(fd)
        };
        let peers4 = peers("messages over IPv4", socket::peers(index, &name, false));
        let peers6 = peers("messages over IPv6", socket::peers(index, &name, true));
        let groups = BTreeSet::new();
        Ok(Self { name, packet, vrrp4, vrrp6, peers4, peers6, groups, tasks })
    }

    /// Whether it is still heard. The kernel unbinds the socket of an interface that is gone, also when
    /// another one has got its number.
    fn works(&self, index: IfIndex) -> bool {
        socket::is_bound(self.packet.as_fd(), index) && !self.tasks.iter().any(Task::is_finished)
    }

    /// Joins the solicited-node groups of the announced addresses, so that switches and the network card
    /// let the questions for them through.
    fn join_groups(&mut self, index: IfIndex, addresses: &[IpAddr]) {
        let Some(fd) = &self.vrrp6 else { return };
        let wanted: BTreeSet<Ipv6Addr> = addresses
            .iter()
            .filter_map(|address| match address {
                IpAddr::V6(address) => Some(ndp::solicited_node(*address)),
                IpAddr::V4(_) => None,
            })
            .gather();
        for group in self.groups.difference(&wanted) {
            if let Err(error) = socket::leave(fd, index, (*group).into()) {
                log::warn!("{}: leaving {group} failed: {error}", self.name);
            }
        }
        let mut joined: BTreeSet<Ipv6Addr> = self.groups.intersection(&wanted).copied().gather();
        for group in wanted.difference(&self.groups) {
            match socket::join(fd, index, (*group).into()) {
                Ok(()) => {
                    joined.insert(*group);
                }
                Err(error) => log::warn!("{}: joining {group} failed: {error}", self.name),
            }
        }
        self.groups = joined;
    }
}

/// What to do after a packet or the lack of one.
fn note(fd: &AsyncFd, error: Option<&io::Error>) -> bool {
    match error.map(io::Error::raw_os_error) {
        // Down for the moment: the socket goes on when the interface does.
        None | Some(Some(libc::ENETDOWN | libc::EINTR)) => {
            fd.clear_readable();
            true
        }
        Some(_) => false,
    }
}

async fn read_frames(index: IfIndex, fd: Rc<AsyncFd>, mailer: Mailer<Message>) {
    let mut buffer = [0; LONGEST_FRAME];
    loop {
        fd.readable().await;
        for _ in 0..READS_PER_TURN {
            match socket::receive_frame(fd.as_fd(), &mut buffer) {
                Ok(Some(length)) => deliver(index, &buffer[..length], &mailer),
                Ok(None) => {
                    note(&fd, None);
                    break;
                }
                Err(error) if note(&fd, Some(&error)) => break,
                Err(error) => {
                    log::error!("reading frames from interface {} failed: {error}", index.0);
                    return;
                }
            }
        }
        smol::future::yield_now().await;
    }
}

fn deliver(index: IfIndex, frame: &[u8], mailer: &Mailer<Message>) {
    let message = match vrrp::in_frame(frame) {
        Some((mac, source, ttl, payload)) => Message::Vrrp(index, mac, source, ttl, payload.into()),
        None => Message::Frame(index, frame.into()),
    };
    // A full mailbox is counted by the kernel; the LAN repeats itself.
    mailer.send(wiring::ANNOUNCE, message);
}

async fn read_peers(fd: Rc<AsyncFd>, mailer: Mailer<Message>) {
    let mut buffer = [0; MAX_PEER_BYTES + 1];
    loop {
        fd.readable().await;
        for _ in 0..READS_PER_TURN {
            match socket::receive_datagram(fd.as_fd(), &mut buffer) {
                Ok(Some((length, source, ttl))) => {
                    if ttl == socket::PEER_TTL && length <= MAX_PEER_BYTES {
                        let packet: Arc<[u8]> = buffer[..length].into();
                        for to in [wiring::IPAM, wiring::SERVICE] {
                            mailer.send(to, Message::Peer(source, Arc::clone(&packet)));
                        }
                    }
                }
                Ok(None) => {
                    note(&fd, None);
                    break;
                }
                Err(error) if note(&fd, Some(&error)) => break,
                Err(error) => {
                    log::error!("reading messages of other agents failed: {error}");
                    return;
                }
            }
        }
        smol::future::yield_now().await;
    }
}
