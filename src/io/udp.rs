//! UDP sockets on this thread's loop: batches in, answers from the address that was asked.
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use super::reactor::{AsyncFd, WakeHandle};
use super::tcp::{parse_address, raw_address, set_option};
use crate::kernel::Time;

/// Datagrams taken with one system call.
const BATCH: usize = 16;
/// Longest datagram: what the length field of UDP can say. All but the touched pages are never there.
const DATAGRAM_BYTES: usize = 65_536;
/// What the kernel may hold for a socket until the loop comes round, if it permits (`net.core.rmem_max`).
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Room for one `in_pktinfo` or `in6_pktinfo` with its header, aligned.
const CONTROL_WORDS: usize = 8;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A socket.
pub struct UdpSocket {
    fd: AsyncFd,
    local: SocketAddr,
}

/// One that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its content.
    pub bytes: &'a [u8],
    /// Who has sent it.
    pub from: SocketAddr,
    /// To which of our addresses, with the socket's port.
    pub to: SocketAddr,
}

/// What the kernel fills in for one datagram.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u64; CONTROL_WORDS]);

// === impl UdpSocket ===

impl UdpSocket {
    /// Receives on `address`, which need not be there yet; an IPv6 socket takes IPv6 only.
    ///
    /// # Errors
    /// The kernel's: the port is in use, or not permitted.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let fd = socket(address)?;
        if address.is_ipv6() {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)?;
        } else {
            set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
        }
        let _ = set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER);
        let (raw, length) = raw_address(address);
        // SAFETY: `raw` holds a socket address of `length` bytes.
        checked(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), length) as isize })?;
        let local = super::tcp::local_address(fd.as_raw_fd())?;
        Ok(Self { fd: AsyncFd::new(fd)?, local })
    }

    /// A socket that talks to `to` only, and learns that nobody is there.
    ///
    /// # Errors
    /// The kernel's: no route, out of descriptors or ports.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let fd = socket(to)?;
        let (raw, length) = raw_address(to);
        // SAFETY: `raw` holds a socket address of `length` bytes.
        checked(unsafe {
            libc::connect(fd.as_raw_fd(), (&raw const raw).cast(), length) as isize
        })?;
        let local = super::tcp::local_address(fd.as_raw_fd())?;
        Ok(Self { fd: AsyncFd::new(fd)?, local })
    }

    /// Where it is.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// See [`AsyncFd::set_deadline`].
    pub fn set_deadline(&self, at: Time) {
        self.fd.set_deadline(at);
    }

    /// See [`AsyncFd::poll_expired`].
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.fd.poll_expired(cx)
    }

    /// See [`AsyncFd::wake_handle`].
    pub fn wake_handle(&self) -> WakeHandle {
        self.fd.wake_handle()
    }

    /// Hands what has arrived, some datagrams, to `each`; ready with how many they were.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(Datagram<'_>),
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.fd.poll_readable(cx));
            let mut room = ROOM.take();
            room.resize(BATCH * DATAGRAM_BYTES, 0);
            let received = self.recv(&mut room, each);
            ROOM.set(room);
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.fd.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn recv(&self, room: &mut [u8], each: &mut dyn FnMut(Datagram<'_>)) -> io::Result<usize> {
        // SAFETY: all-zero is valid for these: no address, no vectors, no control data.
        let (mut names, mut headers, mut vectors) = unsafe {
            (
                std::mem::zeroed::<[libc::sockaddr_storage; BATCH]>(),
                std::mem::zeroed::<[libc::mmsghdr; BATCH]>(),
                std::mem::zeroed::<[libc::iovec; BATCH]>(),
            )
        };
        let mut controls = [Control([0; CONTROL_WORDS]); BATCH];
        for (i, part) in room.chunks_exact_mut(DATAGRAM_BYTES).enumerate().take(BATCH) {
            vectors[i] =
                libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: DATAGRAM_BYTES };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut controls[i]).cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        let none = std::ptr::null_mut::<libc::timespec>();
        // SAFETY: each header points to a name, a vector with its part of `room`, and control data, all of which live
        // until the end of this function.
        let count = checked(unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT as _,
                none,
            ) as isize
        })?;
        for i in 0..count {
            let Ok(from) = parse_address(&names[i]) else { continue };
            let length = (headers[i].msg_len as usize).min(DATAGRAM_BYTES);
            let start = i * DATAGRAM_BYTES;
            let to = destination(&headers[i].msg_hdr).unwrap_or_else(|| self.local.ip());
            let to = SocketAddr::new(to, self.local.port());
            each(Datagram { bytes: &room[start..start + length], from, to });
        }
        Ok(count)
    }

    /// Sends to whom the socket is connected. What the kernel has no room for is lost, as datagrams are.
    ///
    /// # Errors
    /// The kernel's: nobody is there, no route, too long.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `bytes` is valid for its length.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        lossy(sent)
    }

    /// Sends to `to`, from the address `from` and the socket's port. What the kernel has no room for is lost.
    ///
    /// # Errors
    /// The kernel's: no route, not our address, too long.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let (mut name, length) = raw_address(to);
        let mut vector =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = Control([0; CONTROL_WORDS]);
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = length;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = source(&mut control, from) as _;
        // SAFETY: `message` points to a name, a vector and control data that live until after the call and are only
        // read.
        let sent = unsafe {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            libc::sendmsg(self.fd.as_raw_fd(), &raw const message, flags)
        };
        lossy(sent)
    }
}

/// The address a datagram was sent to, from its control data.
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has filled the control data and its length; the macros stay within it, and each payload is of
    // the type that its level and kind say.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while !next.is_null() {
            let data = libc::CMSG_DATA(next);
            match ((*next).cmsg_level, (*next).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => next = libc::CMSG_NXTHDR(header, next),
            }
        }
    }
    None
}

/// Writes control data that says from which address to send; returns its length.
fn source(control: &mut Control, from: IpAddr) -> usize {
    let (level, kind, length) = match from {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>()),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>()),
    };
    let header = (&raw mut *control).cast::<libc::cmsghdr>();
    // SAFETY: `control` is aligned for a cmsghdr and has room for it and the larger of the two structures.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(length as u32) as _;
        let data = libc::CMSG_DATA(header);
        match from {
            IpAddr::V4(v4) => data.cast::<libc::in_pktinfo>().write_unaligned(libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(v4.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            }),
            IpAddr::V6(v6) => data.cast::<libc::in6_pktinfo>().write_unaligned(libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: v6.octets() },
                ipi6_ifindex: 0,
            }),
        }
        libc::CMSG_SPACE(length as u32) as usize
    }
}

fn socket(for_address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if for_address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn lossy(sent: isize) -> io::Result<()> {
    match checked(sent) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}
