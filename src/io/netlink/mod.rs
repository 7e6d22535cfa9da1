//! The kernel's links, addresses and local routes, over rtnetlink (RFC 3549, rtnetlink(7)).
//!
//! [`Netlink`] asks and changes, and waits for the kernel's answer, which comes at once.
//! [`Monitor`] is a non-blocking descriptor that tells of changes. Both see the network namespace
//! of the thread that opened them. Reading and writing of messages is in [`message`].

pub mod message;
pub(crate) mod tc;
#[cfg(test)]
mod tests;

use crate::arrange::Arrange;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use self::message::{Malformed, Message, Messages, Request};

/// The routing protocol number of our routes: how stale ones of a dead predecessor are known.
/// Not in use elsewhere (<linux/rtnetlink.h>, iproute2's rt_protos).
pub const PROTOCOL: u8 = 80;
/// The loopback interface has this index in every network namespace.
pub const LOOPBACK: u32 = 1;

/// A dump is at most this much in one datagram (kernel: `SKB_WITH_OVERHEAD(32768)`).
const BUFFER: usize = 64 * 1024;
/// A dump that a change interrupted is begun anew this often before giving up.
const DUMP_ATTEMPTS: usize = 8;
/// How many datagrams one read of the monitor takes, so that a storm cannot hold the loop.
const MONITOR_BATCH: usize = 64;
/// Room for changes that nobody has read yet; beyond it the kernel says so ([`Event::Lost`]).
const MONITOR_QUEUE: libc::c_int = 1024 * 1024;

/// Operational state (RFC 2863 `ifOperStatus`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperState {
    /// The driver does not say; then [`Link::carrier`] decides.
    Unknown,
    /// Hardware missing.
    NotPresent,
    /// No carrier, or set down.
    Down,
    /// Something below is down.
    LowerLayerDown,
    /// Under test.
    Testing,
    /// Waiting, for 802.1X for instance.
    Dormant,
    /// Working.
    Up,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// `ARPHRD_*`: 1 is Ethernet.
    pub hardware: u16,
    /// Hardware address, if it has six bytes.
    pub mac: Option<[u8; 6]>,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// The cable is in (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Speaks no ARP (`IFF_NOARP`).
    pub noarp: bool,
    /// Operational state.
    pub operstate: OperState,
    /// `veth`, `bridge`, `vlan`, …; hardware has none.
    pub kind: Option<String>,
    /// In bytes.
    pub mtu: u32,
    /// The bridge or bond it belongs to.
    pub master: Option<u32>,
    /// The interface a VLAN sits on, or a veth's peer.
    pub parent: Option<u32>,
    /// The parent is in another network namespace.
    pub parent_elsewhere: bool,
    /// Packets that are sent over it wait in no queue (`noqueue`).
    pub queueless: bool,
}

impl Link {
    /// Whether frames can be sent and received now.
    pub const fn usable(&self) -> bool {
        self.up
            && matches!(
                (self.operstate, self.carrier),
                (OperState::Up, _) | (OperState::Unknown, true)
            )
    }
}

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address itself (not the peer's).
    pub ip: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// `RT_SCOPE_*`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u32,
}

impl Address {
    /// Not yet, or never to be, used as a source (`IFA_F_TENTATIVE`, `IFA_F_DADFAILED`).
    pub const fn tentative(&self) -> bool {
        self.flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0
    }
}

/// `local IP dev IFINDEX table local proto 80`: packets to the address end on this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LocalRoute {
    /// The address.
    pub ip: IpAddr,
    /// The interface it is routed to: [`LOOPBACK`].
    pub ifindex: u32,
}

/// A change in the kernel's tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A link is new or has changed.
    Link(Link),
    /// A link is gone.
    LinkGone {
        /// Its index.
        ifindex: u32,
    },
    /// An address is new or has changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A local route of ours is there.
    Route(LocalRoute),
    /// A local route of ours is gone.
    RouteGone(LocalRoute),
    /// Changes came faster than they were read and some are lost: list everything again.
    Lost,
}

/// A netlink operation that failed.
#[derive(Debug)]
pub struct NetlinkError {
    /// What was being done, to what.
    pub operation: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.source)?;
        match self.source.raw_os_error() {
            Some(libc::EPERM) => f.write_str(": the agent needs CAP_NET_ADMIN"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Where packets to an address go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To this node itself.
    Here,
    /// Out of this interface.
    Out(u32),
}

/// A socket for requests.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

// === impl Netlink ===

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let fd = socket(0).map_err(failed("opening a netlink socket"))?;
        // Lets the kernel filter dumps. Old kernels lack it: what comes back is filtered again.
        let _ = set_option(fd.as_fd(), libc::NETLINK_GET_STRICT_CHK, 1);
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = || Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16]);
        self.dump("listing links", request, |message| match message.kind {
            libc::RTM_NEWLINK => message::link(message.body),
            _ => Ok(None),
        })
    }

    /// All IPv4 and IPv6 addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let request = || Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8]);
        self.dump("listing addresses", request, |message| match message.kind {
            libc::RTM_NEWADDR => message::address(message.body),
            _ => Ok(None),
        })
    }

    /// Our local routes, including those of a dead predecessor.
    pub fn local_routes(&mut self) -> Result<Vec<LocalRoute>, NetlinkError> {
        let mut found = Vec::new();
        for family in [message::AF_INET, message::AF_INET6] {
            let table = libc::RT_TABLE_LOCAL;
            let fixed = [family, 0, 0, 0, table, PROTOCOL, 0, libc::RTN_LOCAL, 0, 0, 0, 0];
            let request = || Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &fixed);
            found.extend(self.dump(
                "listing local routes",
                request,
                |message| match message.kind {
                    libc::RTM_NEWROUTE => message::local_route(message.body),
                    _ => Ok(None),
                },
            )?);
        }
        // A kernel without IPv6 answers a dump of that family with every family's routes.
        found.arrange();
        found.dedup();
        Ok(found)
    }

    /// Where packets to `ip` go at present.
    pub fn way_to(&mut self, ip: IpAddr) -> Result<Way, NetlinkError> {
        let failed = failed(format!("asking for the route to {ip}"));
        let sequence = match self.send(message::way_request(ip), 0) {
            Ok(sequence) => sequence,
            Err(error) => return Err(failed(error)),
        };
        let mut answer = || loop {
            let length = self.receive()?;
            for found in Messages(&self.buffer[..length]) {
                let found = found.map_err(malformed)?;
                if found.sequence != sequence {
                    continue;
                }
                if i32::from(found.kind) == libc::NLMSG_ERROR {
                    acknowledged(&found)?;
                }
                return message::way(found.body).map_err(malformed);
            }
        };
        answer().map_err(failed)
    }

    /// Makes packets to `ip` end on this node. `false` if such a route was there already.
    pub fn add_local_route(&mut self, ip: IpAddr) -> Result<bool, NetlinkError> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let route = LocalRoute { ip, ifindex: LOOPBACK };
        let request = message::local_route_request(libc::RTM_NEWROUTE, flags, route);
        let result = self.change(request);
        done_unless(result, &[libc::EEXIST]).map_err(failed(format!("adding local route {ip}")))
    }

    /// Removes our local route. `false` if there was none; routes of others are left alone.
    pub fn remove_local_route(&mut self, ip: IpAddr) -> Result<bool, NetlinkError> {
        let route = LocalRoute { ip, ifindex: LOOPBACK };
        let result = self.change(message::local_route_request(libc::RTM_DELROUTE, 0, route));
        done_unless(result, &[libc::ESRCH]).map_err(failed(format!("removing local route {ip}")))
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    fn change(&mut self, request: Request) -> io::Result<()> {
        let sequence = self.send(request, libc::NLM_F_ACK)?;
        loop {
            let length = self.receive()?;
            for found in Messages(&self.buffer[..length]) {
                let found = found.map_err(malformed)?;
                if found.sequence == sequence && i32::from(found.kind) == libc::NLMSG_ERROR {
                    return acknowledged(&found);
                }
            }
        }
    }

    /// Sends a dump request and collects what `read` makes of the answers.
    fn dump<T>(
        &mut self,
        operation: &str,
        request: impl Fn() -> Request,
        read: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.dump_once(request(), &read) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(e) => return Err(failed(operation)(e)),
            }
        }
        let busy = io::Error::other("the table changed during every attempt to read it");
        Err(failed(operation)(busy))
    }

    fn dump_once<T>(
        &mut self,
        request: Request,
        read: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> io::Result<Option<Vec<T>>> {
        let sequence = self.send(request, 0)?;
        let (mut out, mut interrupted) = (Vec::new(), false);
        loop {
            let length = self.receive()?;
            for found in Messages(&self.buffer[..length]) {
                let found = found.map_err(malformed)?;
                if found.sequence != sequence {
                    continue;
                }
                interrupted |= i32::from(found.flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(found.kind) {
                    libc::NLMSG_DONE => return Ok((!interrupted).then_some(out)),
                    libc::NLMSG_ERROR => acknowledged(&found)?,
                    _ => out.extend(read(&found).map_err(malformed)?),
                }
            }
        }
    }

    fn send(&mut self, request: Request, flags: i32) -> io::Result<u32> {
        self.sequence += 1;
        let mut data = request.finish(self.sequence);
        let old = u16::from_ne_bytes([data[6], data[7]]);
        data[6..8].copy_from_slice(&(old | flags as u16).to_ne_bytes());
        // SAFETY: the pointer and length are those of a live buffer.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), data.as_ptr().cast(), data.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(self.sequence) }
    }

    fn receive(&mut self) -> io::Result<usize> {
        receive(self.fd.as_fd(), &mut self.buffer)
    }
}

fn acknowledged(message: &Message<'_>) -> io::Result<()> {
    match message::error_number(message).map_err(malformed)? {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

/// Turns errors that say "it is so already" into `false`.
fn done_unless(result: io::Result<()>, already: &[i32]) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error().is_some_and(|n| already.contains(&n)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A descriptor that becomes readable when links, addresses or routes change.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

// === impl Monitor ===

impl Monitor {
    /// Opens a monitor in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let fail = || failed("opening a netlink monitor");
        let fd = socket(libc::SOCK_NONBLOCK).map_err(fail())?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            set_option(fd.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group as libc::c_int)
                .map_err(fail())?;
        }
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; a smaller queue only loses sooner.
        let _ = set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, MONITOR_QUEUE);
        Ok(Self { fd, buffer: vec![0; BUFFER] })
    }

    /// Appends the changes that have come, without waiting. Returns `true` if there may be more.
    pub fn read(&mut self, events: &mut Vec<Event>) -> Result<bool, NetlinkError> {
        for _ in 0..MONITOR_BATCH {
            match receive(self.fd.as_fd(), &mut self.buffer) {
                Ok(length) => read_events(&self.buffer[..length], events),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => events.push(Event::Lost),
                Err(e) => return Err(failed("reading netlink changes")(e)),
            }
        }
        Ok(true)
    }
}

/// Reads a datagram of changes; one that is malformed counts as lost.
pub fn read_events(datagram: &[u8], events: &mut Vec<Event>) {
    for found in Messages(datagram) {
        match found.and_then(|found| message::event(&found)) {
            Ok(event) => events.extend(event),
            Err(Malformed) => events.push(Event::Lost),
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

// === system calls ===

fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> NetlinkError {
    let operation = operation.into();
    move |source| NetlinkError { operation, source }
}

fn malformed(_: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed")
}

fn socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes is a valid sockaddr_nl: let the kernel choose the port.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // Without a port of its own a socket is passed over when the kernel tells of changes.
    // SAFETY: pointer and length are those of a live address.
    let ret = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn set_option(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set(fd, libc::SOL_NETLINK, option, value)
}

fn set(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: pointer and length are those of a live integer.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, length) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live buffer.
    let length = unsafe {
        libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
    };
    match usize::try_from(length) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(n) if n > buffer.len() => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
        Ok(n) => Ok(n),
    }
}
