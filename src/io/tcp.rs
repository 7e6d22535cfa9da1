//! TCP sockets on this thread's loop.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::buffer::{BUFFER_BYTES, Buffer};
use super::reactor::{AsyncFd, WakeHandle};
use crate::kernel::Time;

/// Connections the kernel may hold before they are accepted; it cuts this to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Below this much room a receive buffer is moved or grown before it is filled.
const LEAST_ROOM: usize = 4096;

/// A connected (or connecting) socket.
pub struct TcpStream {
    fd: AsyncFd,
}

/// A listening socket.
pub struct TcpListener {
    fd: AsyncFd,
    address: SocketAddr,
}

/// When the kernel probes a silent peer.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is dead.
    pub probes: u32,
}

// === impl TcpStream ===

impl TcpStream {
    /// Starts to connect; [`TcpStream::poll_connected`] says when that is over.
    ///
    /// # Errors
    /// The kernel's: no route, too many descriptors, out of ports.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        Self::connect_from(to, None)
    }

    /// The same, with the source address `from`, which need not be one of this machine (`IP_TRANSPARENT`); what comes
    /// back must be routed here.
    ///
    /// # Errors
    /// The kernel's, also if that is not permitted, or the families differ.
    pub fn connect_from(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let fd = socket(to)?;
        set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if let Some(from) = from.map(|ip| ip.to_canonical()) {
            let transparent = match to {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
            };
            set_option(&fd, transparent.0, transparent.1, 1)?;
            // The port is chosen when the other end is known: many connections can then share one.
            set_option(&fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
            let (address, length) = raw_address(SocketAddr::new(from, 0));
            // SAFETY: `address` holds a socket address of `length` bytes.
            let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
            count(bound as isize)?;
        }
        let (address, length) = raw_address(to);
        // SAFETY: `address` holds a socket address of `length` bytes.
        let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINPROGRESS) {
                return Err(error);
            }
        }
        Ok(Self { fd: AsyncFd::new(fd)? })
    }

    /// Ready when the connection is there or has failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.fd.poll_writable(cx));
        let mut error: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `error` and `length` are valid for the option's type.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        };
        Poll::Ready(match (result, error) {
            (0, 0) => Ok(()),
            (0, code) => Err(io::Error::from_raw_os_error(code)),
            _ => Err(io::Error::last_os_error()),
        })
    }

    /// Receives into `buffer`; 0 is the end of the stream.
    #[inline]
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.fd.poll_readable(cx));
            buffer.reserve(LEAST_ROOM);
            let received = buffer.fill(|start, room| {
                let (fd, start) = (self.fd.as_raw_fd(), start.cast::<libc::c_void>());
                let none = std::ptr::null::<libc::c_void>();
                // Not `recv`, which in a program with threads is a point of cancellation and pays for it.
                // SAFETY: `start` points to `room` bytes that may be written; no address is asked for.
                let got =
                    unsafe { libc::syscall(libc::SYS_recvfrom, fd, start, room, 0, none, none) };
                count(got as isize)
            });
            match received {
                Ok((got, filled)) => {
                    // A short read has emptied the socket; a hang-up causes no further edge.
                    if !filled && !self.fd.is_hung_up() && !self.fd.has_urgent() {
                        self.fd.clear_readable();
                    }
                    return Poll::Ready(Ok(got));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.fd.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends the three parts one after the other, with one system call; returns how many bytes of them
    /// were taken, at least one unless all are empty.
    #[inline]
    pub fn poll_send(&self, cx: &mut Context<'_>, parts: [&[u8]; 3]) -> Poll<io::Result<usize>> {
        let whole = parts[0].len() + parts[1].len() + parts[2].len();
        if whole == 0 {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.fd.poll_writable(cx));
            let sent =
                if parts[0].len() == whole { self.send(parts[0]) } else { self.send_parts(parts) };
            match sent {
                Ok(sent) => {
                    if sent < whole {
                        self.fd.clear_writable();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.fd.clear_writable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let none = std::ptr::null::<libc::c_void>();
        // Not `send`, for the reason given at `recvfrom`.
        // SAFETY: `bytes` is valid for its length; no address is given.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendto,
                self.fd.as_raw_fd(),
                bytes.as_ptr(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
                none,
                0,
            )
        };
        count(sent as isize)
    }

    fn send_parts(&self, parts: [&[u8]; 3]) -> io::Result<usize> {
        let mut vectors = parts.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: all-zero is a valid msghdr: no name, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = vectors.len();
        // SAFETY: `message` points to three vectors that are valid for the call and only read.
        count(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
    }

    /// Tells the peer that nothing more will be sent.
    ///
    /// # Errors
    /// The kernel's; the connection is gone then.
    pub fn shutdown_write(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        count(unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_WR) as isize }).map(|_| ())
    }

    /// When the socket is closed the peer sees a reset, not an end, and nothing that is still unsent.
    pub fn reset_on_close(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the value is what the option wants, and its size is given.
        unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            );
        }
    }

    /// Whether an idle connection is still good for a request: nothing has arrived, the peer has not
    /// closed. Costs a system call only if `ask_kernel`, or if the last read may have left something.
    pub fn is_quiet(&self, ask_kernel: bool) -> bool {
        if self.fd.is_hung_up() || self.fd.is_down() {
            return false;
        }
        if !self.fd.is_readable() && !ask_kernel {
            return true;
        }
        let mut byte = 0u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: there is room for the one byte.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
        let quiet = got < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
        if quiet {
            self.fd.clear_readable();
        }
        quiet
    }

    /// The readiness of the socket, and its deadline.
    pub const fn fd(&self) -> &AsyncFd {
        &self.fd
    }

    /// See [`AsyncFd::set_deadline`].
    #[inline]
    pub fn set_deadline(&self, at: Time) {
        self.fd.set_deadline(at);
    }

    /// See [`AsyncFd::wake_handle`].
    pub fn wake_handle(&self) -> WakeHandle {
        self.fd.wake_handle()
    }

    /// This end's address: what the client has connected to, also if the connection was steered here.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_address(self.fd.as_raw_fd())
    }

    /// Has the kernel probe a silent peer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_keepalive(&self, keepalive: Keepalive) -> io::Result<()> {
        let seconds = |d: Duration| i32::try_from(d.as_secs()).unwrap_or(i32::MAX);
        let probes = i32::try_from(keepalive.probes).unwrap_or(i32::MAX);
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set_option(&self.fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(keepalive.idle))?;
        set_option(&self.fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(keepalive.interval))?;
        set_option(&self.fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, probes)
    }
}

// === impl TcpListener ===

impl TcpListener {
    /// Listens on `address`; an IPv6 socket takes IPv6 only.
    ///
    /// # Errors
    /// The kernel's: the port is in use, not permitted, no such address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let fd = socket(address)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if address.is_ipv6() {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        let (raw, length) = raw_address(address);
        // SAFETY: `raw` holds a socket address of `length` bytes.
        count(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), length) as isize })?;
        // SAFETY: no pointers.
        count(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) as isize })?;
        let address = local_address(fd.as_raw_fd())?;
        Ok(Self { fd: AsyncFd::new(fd)?, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The descriptor.
    pub fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Another descriptor for the same socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.as_fd().try_clone_to_owned()
    }

    /// Ready with the next connection and the client's address.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            ready!(self.fd.poll_readable(cx));
            match self.accept() {
                Ok(accepted) => return Poll::Ready(Ok(accepted)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.fd.clear_readable();
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        // SAFETY: all-zero is a valid sockaddr_storage.
        let mut raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: `raw` has room for `length` bytes.
        let fd = unsafe {
            libc::accept4(
                self.fd.as_raw_fd(),
                (&raw mut raw).cast(),
                &raw mut length,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        Ok((TcpStream { fd: AsyncFd::new(fd)? }, parse_address(&raw)?))
    }
}

/// Raises the limit of open descriptors to what is permitted; returns it.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return 1024;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the call.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    if raised { limit.rlim_cur } else { before }
}

fn socket(for_address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if for_address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn set_option(fd: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is an int, as these options want it, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    count(result as isize).map(|_| ())
}

#[inline]
fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub(super) fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut storage;
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large and aligned enough for every address.
            unsafe { place.cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

pub(super) fn parse_address(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let place = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in.
            let raw = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6.
            let raw = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id)))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

pub(super) fn local_address(fd: i32) -> io::Result<SocketAddr> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `raw` has room for `length` bytes.
    count(unsafe { libc::getsockname(fd, (&raw mut raw).cast(), &raw mut length) as isize })?;
    parse_address(&raw)
}

/// The unspecified addresses, where everything that is for this machine arrives.
pub const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

const _: () = assert!(BUFFER_BYTES > LEAST_ROOM, "a pooled buffer must be usable");
