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

/// How far sending a batch came.
#[derive(Debug)]
pub struct Sent {
    /// Taken by the kernel.
    pub count: usize,
    /// Dealt with, from the first one on: taken, too long for the way, or lost because the kernel has no room.
    pub done: usize,
    /// Why the one after those was not sent: nobody is there, no route.
    pub error: Option<io::Error>,
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

    /// Hands what has arrived, some datagrams, to `take`; ready with how many they were.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[Datagram<'_>]),
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.fd.poll_readable(cx));
            let mut room = ROOM.take();
            if room.is_empty() {
                // Not resized, which would touch all of it.
                room = vec![0; BATCH * DATAGRAM_BYTES];
            }
            let received = self.recv(&mut room, take);
            ROOM.set(room);
            match received {
                Ok(count) => {
                    if count < BATCH {
                        // The kernel has looked for more.
                        self.fd.clear_readable();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.fd.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn recv(&self, room: &mut [u8], take: &mut dyn FnMut(&[Datagram<'_>])) -> io::Result<usize> {
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
        let none = Datagram { bytes: &[], from: self.local, to: self.local };
        let (mut batch, mut known) = ([none; BATCH], 0);
        for i in 0..count {
            let Ok(from) = parse_address(&names[i]) else { continue };
            let length = (headers[i].msg_len as usize).min(DATAGRAM_BYTES);
            let start = i * DATAGRAM_BYTES;
            let to = destination(&headers[i].msg_hdr).unwrap_or_else(|| self.local.ip());
            let to = SocketAddr::new(to, self.local.port());
            batch[known] = Datagram { bytes: &room[start..start + length], from, to };
            known += 1;
        }
        take(&batch[..known]);
        Ok(count)
    }

    /// Sends to whom the socket is connected. What the kernel has no room for is lost, as datagrams are.
    pub fn send(&self, batch: &[Datagram<'_>]) -> Sent {
        self.send_batch(batch, None)
    }

    /// Sends to `to`, from the address `from` and the socket's port. What the kernel has no room for is lost.
    pub fn send_to(&self, batch: &[Datagram<'_>], to: SocketAddr, from: IpAddr) -> Sent {
        self.send_batch(batch, Some((to, from)))
    }

    fn send_batch(&self, batch: &[Datagram<'_>], ends: Option<(SocketAddr, IpAddr)>) -> Sent {
        let mut sent = Sent { count: 0, done: 0, error: None };
        while sent.done < batch.len() {
            match self.send_some(&batch[sent.done..], ends) {
                Ok(count) => {
                    sent.count += count;
                    sent.done += count;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Too long for the way: the others may fit.
                    Some(libc::EMSGSIZE) => sent.done += 1,
                    Some(libc::EAGAIN | libc::ENOBUFS) => sent.done = batch.len(),
                    _ => {
                        sent.error = Some(error);
                        break;
                    }
                },
            }
        }
        sent
    }

    /// Sends the first ones, at least one, with one system call.
    fn send_some(
        &self,
        batch: &[Datagram<'_>],
        ends: Option<(SocketAddr, IpAddr)>,
    ) -> io::Result<usize> {
        // SAFETY: all-zero is valid for these: no address, no vectors, no control data.
        let (mut headers, mut vectors) = unsafe {
            (
                std::mem::zeroed::<[libc::mmsghdr; BATCH]>(),
                std::mem::zeroed::<[libc::iovec; BATCH]>(),
            )
        };
        let mut control = Control([0; CONTROL_WORDS]);
        let mut name = ends.map(|(to, _)| raw_address(to));
        let control_length = ends.map_or(0, |(_, from)| source(&mut control, from));
        let count = batch.len().min(BATCH);
        for (i, datagram) in batch.iter().enumerate().take(BATCH) {
            vectors[i] = libc::iovec {
                iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
                iov_len: datagram.bytes.len(),
            };
            let header = &mut headers[i].msg_hdr;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            if let Some((name, length)) = &mut name {
                header.msg_name = std::ptr::from_mut(name).cast();
                header.msg_namelen = *length;
                header.msg_control = (&raw mut control).cast();
                header.msg_controllen = control_length as _;
            }
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the first `count` headers each point to a vector, and if there are ends to a name and control data,
        // all of which live until the end of this function and, but for the lengths, are only read.
        checked(unsafe {
            let (fd, headers) = (self.fd.as_raw_fd(), headers.as_mut_ptr());
            libc::sendmmsg(fd, headers, count as u32, flags as _) as isize
        })
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
