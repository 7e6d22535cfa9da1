//! The sockets of one LAN interface.
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::api::address::IfIndex;
use crate::proto::vrrp;

/// UDP port for messages between agents.
pub(super) const PEER_PORT: u16 = 9967;
/// Group for messages between agents, organization-local (RFC 2365). Receivers refuse what a router has
/// forwarded, by its TTL.
pub(super) const PEER_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 112, 112);
/// The same, link-local, for interfaces without IPv4 ("pilu").
pub(super) const PEER_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x7069, 0x6c75);
/// Sent with, and expected: what comes from beyond the link has less (RFC 5082).
pub(super) const PEER_TTL: u8 = 255;

/// Room for control messages; more than any that we ask for.
const CONTROL: usize = 128;

/// Classic BPF: only what the election reads wakes the loop. In: ARP, VRRP, neighbor solicitations and
/// advertisements. Out: everything else, what this host sends itself, and frames of VLANs, whose tag the
/// kernel has taken off and which belong to other interfaces.
fn packet_filter() -> Vec<libc::sock_filter> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // SKF_AD_OFF plus SKF_AD_PKTTYPE and SKF_AD_VLAN_TAG_PRESENT of linux/filter.h.
    const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
    const VLAN_PRESENT: u32 = (-0x1000_i32 + 48) as u32;
    const OUTGOING: u32 = 4;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    vec![
        op(LOAD_BYTE, 0, 0, PACKET_TYPE),
        op(IF_EQUAL, 15, 0, OUTGOING),     // 1 -> drop (17)
        op(LOAD_BYTE, 0, 0, VLAN_PRESENT), // 2
        op(IF_EQUAL, 0, 13, 0),            // 3: tagged -> drop
        op(LOAD_HALF, 0, 0, 12),           // 4: EtherType
        op(IF_EQUAL, 10, 0, 0x0806),       // 5: ARP -> accept (16)
        op(IF_EQUAL, 3, 0, 0x86dd),        // 6: IPv6 -> 10
        op(IF_EQUAL, 0, 9, 0x0800),        // 7: not IPv4 -> drop
        op(LOAD_BYTE, 0, 0, 23),           // 8: protocol
        op(IF_EQUAL, 6, 7, 112),           // 9: VRRP -> accept, else drop
        op(LOAD_BYTE, 0, 0, 20),           // 10: next header
        op(IF_EQUAL, 4, 0, 112),           // 11: VRRP -> accept
        op(IF_EQUAL, 0, 4, 58),            // 12: not ICMPv6 -> drop
        op(LOAD_BYTE, 0, 0, 54),           // 13: ICMPv6 type
        op(IF_EQUAL, 1, 0, 135),           // 14: solicitation -> accept
        op(IF_EQUAL, 0, 1, 136),           // 15: advertisement, else drop
        op(RETURN, 0, 0, u32::MAX),        // 16: accept
        op(RETURN, 0, 0, 0),               // 17: drop
    ]
}

/// Nothing at all: for sockets that only send.
fn no_packets() -> Vec<libc::sock_filter> {
    vec![libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }]
}

/// The socket for Ethernet frames.
pub(super) fn packet(index: IfIndex) -> io::Result<OwnedFd> {
    // With protocol 0 nothing arrives before the filter is in place; binding starts the flow.
    let fd = open(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    attach(&fd, packet_filter())?;
    let address = link_address(index);
    // SAFETY: `address` is a sockaddr_ll of the size given.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(result)?;
    Ok(fd)
}

/// Whether a packet socket is still bound to the interface.
pub(super) fn is_bound(fd: BorrowedFd<'_>, index: IfIndex) -> bool {
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` has room for `length` bytes, both are alive during the call.
    let result =
        unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    result == 0 && address.sll_ifindex == index.0 as i32
}

fn link_address(index: IfIndex) -> libc::sockaddr_ll {
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.0 as i32;
    address
}

/// The socket that sends VRRP of one family and keeps the groups joined. It receives nothing: VRRP is
/// read from the packet socket, which also shows the sender's MAC.
pub(super) fn vrrp(index: IfIndex, name: &str, v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let fd = open(family, libc::SOCK_RAW, i32::from(vrrp::PROTOCOL))?;
    attach(&fd, no_packets())?;
    bind_to_device(&fd, name)?;
    multicast_options(&fd, index, v6, vrrp::TTL)?;
    let group = if v6 { IpAddr::V6(vrrp::GROUP_V6) } else { IpAddr::V4(vrrp::GROUP_V4) };
    join(&fd, index, group)?;
    Ok(fd)
}

/// The socket for messages between agents.
pub(super) fn peers(index: IfIndex, name: &str, v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let fd = open(family, libc::SOCK_DGRAM, 0)?;
    bind_to_device(&fd, name)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)?;
    multicast_options(&fd, index, v6, PEER_TTL)?;
    let group = if v6 {
        option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1_i32)?;
        option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1_i32)?;
        IpAddr::V6(PEER_GROUP_V6)
    } else {
        option(&fd, libc::IPPROTO_IP, libc::IP_RECVTTL, &1_i32)?;
        IpAddr::V4(PEER_GROUP_V4)
    };
    let (address, length) = socket_address(group, PEER_PORT, index);
    // SAFETY: `address` holds a socket address of `length` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    join(&fd, index, group)?;
    Ok(fd)
}

/// Joins a group on the interface; a second time is no error.
pub(super) fn join(fd: &OwnedFd, index: IfIndex, group: IpAddr) -> io::Result<()> {
    membership(fd, index, group, true)
}

/// Leaves a group.
pub(super) fn leave(fd: &OwnedFd, index: IfIndex, group: IpAddr) -> io::Result<()> {
    membership(fd, index, group, false)
}

fn membership(fd: &OwnedFd, index: IfIndex, group: IpAddr, on: bool) -> io::Result<()> {
    let result = match group {
        IpAddr::V4(group) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: u32::from(group).to_be() },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: index.0 as i32,
            };
            let name = if on { libc::IP_ADD_MEMBERSHIP } else { libc::IP_DROP_MEMBERSHIP };
            option(fd, libc::IPPROTO_IP, name, &request)
        }
        IpAddr::V6(group) => {
            let request = libc::ipv6_mreq {
                ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
                ipv6mr_interface: index.0,
            };
            let name = if on { libc::IPV6_ADD_MEMBERSHIP } else { libc::IPV6_DROP_MEMBERSHIP };
            option(fd, libc::IPPROTO_IPV6, name, &request)
        }
    };
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
        result => result,
    }
}

fn multicast_options(fd: &OwnedFd, index: IfIndex, v6: bool, ttl: u8) -> io::Result<()> {
    let ttl = i32::from(ttl);
    if v6 {
        let level = libc::IPPROTO_IPV6;
        option(fd, level, libc::IPV6_MULTICAST_IF, &(index.0 as i32))?;
        option(fd, level, libc::IPV6_MULTICAST_HOPS, &ttl)?;
        option(fd, level, libc::IPV6_MULTICAST_LOOP, &0_i32)
    } else {
        let level = libc::IPPROTO_IP;
        let interface = libc::ip_mreqn {
            imr_multiaddr: libc::in_addr { s_addr: 0 },
            imr_address: libc::in_addr { s_addr: 0 },
            imr_ifindex: index.0 as i32,
        };
        option(fd, level, libc::IP_MULTICAST_IF, &interface)?;
        option(fd, level, libc::IP_MULTICAST_TTL, &ttl)?;
        option(fd, level, libc::IP_MULTICAST_LOOP, &0_i32)
    }
}

/// Puts a frame on the wire.
pub(super) fn send_frame(fd: BorrowedFd<'_>, index: IfIndex, frame: &[u8]) -> io::Result<()> {
    let address = link_address(index);
    // SAFETY: `frame` and `address` are valid for the lengths given.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends `payload` to a group, from `source` if one is given.
pub(super) fn send_to(
    fd: BorrowedFd<'_>,
    index: IfIndex,
    source: Option<IpAddr>,
    group: IpAddr,
    port: u16,
    payload: &[u8],
) -> io::Result<()> {
    let (mut address, length) = socket_address(group, port, index);
    let mut piece =
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    let mut control = [0_u64; CONTROL / 8];
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    if let Some(source) = source {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = match source {
            IpAddr::V4(source) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: index.0 as i32,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put_control(&mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            }
            IpAddr::V6(source) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: index.0,
                };
                put_control(&mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            }
        };
    }
    // SAFETY: every pointer in `message` is to a local or to `payload`, all alive during the call.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes one control message; returns its length.
fn put_control<T>(control: &mut [u64; CONTROL / 8], level: i32, kind: i32, value: T) -> usize {
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the buffer is aligned for a cmsghdr and larger than
    // the header and any value used here.
    unsafe {
        let header: *mut libc::cmsghdr = control.as_mut_ptr().cast();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(size_of::<T>() as u32) as usize
    }
}

/// Takes one frame. None if there is none.
pub(super) fn receive_frame(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: `buffer` is valid for its length.
    let length = unsafe {
        libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    };
    received(length)
}

/// Takes one datagram: its length, source, and TTL or hop limit.
pub(super) fn receive_datagram(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, IpAddr, u8)>> {
    // SAFETY: all zero is a valid sockaddr_storage.
    let mut address: libc::sockaddr_storage = unsafe { zeroed() };
    let mut control = [0_u64; CONTROL / 8];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: every pointer in `message` is to a local or to `buffer`, all alive during the call.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let Some(length) = received(length)? else { return Ok(None) };
    let mut ttl = 0;
    // SAFETY: the kernel has filled `message`; the macros walk its control buffer only.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let kind = ((*header).cmsg_level, (*header).cmsg_type);
            if kind == (libc::IPPROTO_IP, libc::IP_TTL)
                || kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
            {
                let value = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
                ttl = u8::try_from(value).unwrap_or(0);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    let source = match i32::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in.
            let address = unsafe { *(&raw const address).cast::<libc::sockaddr_in>() };
            IpAddr::V4(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
        }
        _ => {
            // SAFETY: the socket is of one of two families, and sockaddr_storage is large enough.
            let address = unsafe { *(&raw const address).cast::<libc::sockaddr_in6>() };
            IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr))
        }
    };
    Ok(Some((length, source, ttl)))
}

fn received(length: isize) -> io::Result<Option<usize>> {
    if let Ok(length) = usize::try_from(length) {
        return Ok(Some(length));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
}

/// The name of an interface in this network namespace.
pub(super) fn interface_name(index: IfIndex) -> io::Result<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call requires.
    let found = unsafe { libc::if_indextoname(index.0, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

fn socket_address(
    address: IpAddr,
    port: u16,
    index: IfIndex,
) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        IpAddr::V4(address) => {
            // SAFETY: sockaddr_storage is large and aligned enough for every socket address.
            let v4 = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as u16;
            v4.sin_port = port.to_be();
            v4.sin_addr.s_addr = u32::from(address).to_be();
            size_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(address) => {
            // SAFETY: sockaddr_storage is large and aligned enough for every socket address.
            let v6 = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            v6.sin6_family = libc::AF_INET6 as u16;
            v6.sin6_port = port.to_be();
            v6.sin6_addr.s6_addr = address.octets();
            v6.sin6_scope_id = index.0;
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

fn open(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd =
        unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    check(fd)?;
    // SAFETY: `fd` was just created and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(fd: &OwnedFd, mut filter: Vec<libc::sock_filter>) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn bind_to_device(fd: &OwnedFd, name: &str) -> io::Result<()> {
    let mut device = [0_u8; libc::IF_NAMESIZE];
    let length = name.len().min(device.len() - 1);
    device[..length].copy_from_slice(&name.as_bytes()[..length]);
    option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &device)
}

fn option<T>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for its size; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
