//! rtnetlink messages: writing requests, reading what the kernel sends. No system calls here.
//!
//! Layouts: RFC 3549, rtnetlink(7), <linux/rtnetlink.h>, <linux/if_link.h>. Integers are in host
//! order. Attributes that are unknown are passed over; a message that cannot be what its header
//! says is [`Malformed`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Address, Event, Link, LocalRoute, OperState, PROTOCOL, Way};

/// Bytes of `nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `nlattr`.
const ATTRIBUTE: usize = 4;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`: flags in an attribute's type.
const TYPE_FLAGS: u16 = 0xc000;

pub(super) const AF_INET: u8 = libc::AF_INET as u8;
pub(super) const AF_INET6: u8 = libc::AF_INET6 as u8;

const IFLA_INFO_KIND: u16 = 1;
const IFA_FLAGS: u16 = 8;
const RTA_TABLE: u16 = 15;

/// A netlink message that contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// One message of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of a datagram; ends after the first malformed one.
#[derive(Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let found = message(self.0);
        self.0 = match found {
            Ok((_, rest)) => rest,
            Err(Malformed) => &[],
        };
        Some(found.map(|(message, _)| message))
    }
}

fn message(data: &[u8]) -> Result<(Message<'_>, &[u8]), Malformed> {
    let length = u32_at(data, 0)? as usize;
    let body = data.get(HEADER..length).ok_or(Malformed)?;
    let found = Message {
        kind: u16_at(data, 4)?,
        flags: u16_at(data, 6)?,
        sequence: u32_at(data, 8)?,
        body,
    };
    Ok((found, data.get(align(length)..).unwrap_or_default()))
}

/// The attributes after a fixed header.
#[derive(Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let found = attribute(self.0);
        self.0 = match found {
            Ok((_, _, rest)) => rest,
            Err(Malformed) => &[],
        };
        Some(found.map(|(kind, value, _)| (kind, value)))
    }
}

fn attribute(data: &[u8]) -> Result<(u16, &[u8], &[u8]), Malformed> {
    let length = usize::from(u16_at(data, 0)?);
    let kind = u16_at(data, 2)? & !TYPE_FLAGS;
    let value = data.get(ATTRIBUTE..length).ok_or(Malformed)?;
    Ok((kind, value, data.get(align(length)..).unwrap_or_default()))
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn array<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    data.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed)
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Result<u32, Malformed> {
    array(data, at).map(u32::from_ne_bytes)
}

fn u16_at(data: &[u8], at: usize) -> Result<u16, Malformed> {
    array(data, at).map(u16::from_ne_bytes)
}

fn u8_at(data: &[u8], at: usize) -> Result<u8, Malformed> {
    data.get(at).copied().ok_or(Malformed)
}

fn ip(family: u8, data: &[u8]) -> Result<IpAddr, Malformed> {
    match family {
        AF_INET => Ok(Ipv4Addr::from(array::<4>(data, 0)?).into()),
        AF_INET6 => Ok(Ipv6Addr::from(array::<16>(data, 0)?).into()),
        _ => Err(Malformed),
    }
}

/// A string attribute without its terminating zero.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Reads a link, address or local-route message; `None` for everything else.
pub fn event(message: &Message<'_>) -> Result<Option<Event>, Malformed> {
    Ok(match message.kind {
        libc::RTM_NEWLINK => link(message.body)?.map(Event::Link),
        libc::RTM_DELLINK => link(message.body)?.map(|l| Event::LinkGone { ifindex: l.ifindex }),
        libc::RTM_NEWADDR => address(message.body)?.map(Event::Address),
        libc::RTM_DELADDR => address(message.body)?.map(Event::AddressGone),
        libc::RTM_NEWROUTE => local_route(message.body)?.map(Event::Route),
        libc::RTM_DELROUTE => local_route(message.body)?.map(Event::RouteGone),
        _ => None,
    })
}

/// `ifinfomsg` and its attributes. Messages of other families (bridge ports) are `None`.
pub(super) fn link(body: &[u8]) -> Result<Option<Link>, Malformed> {
    if u8_at(body, 0)? != libc::AF_UNSPEC as u8 {
        return Ok(None);
    }
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        ifindex: u32_at(body, 4)?,
        name: String::new(),
        hardware: u16_at(body, 2)?,
        mac: None,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        noarp: flags & libc::IFF_NOARP as u32 != 0,
        operstate: OperState::Unknown,
        kind: None,
        mtu: 0,
        master: None,
        parent: None,
        parent_elsewhere: false,
        queueless: false,
    };
    for found in Attributes(body.get(16..).ok_or(Malformed)?) {
        let (kind, value) = found?;
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_MASTER => link.master = Some(u32_at(value, 0)?),
            libc::IFLA_LINK => link.parent = Some(u32_at(value, 0)?),
            libc::IFLA_LINK_NETNSID => link.parent_elsewhere = true,
            libc::IFLA_QDISC => link.queueless = text(value) == "noqueue",
            libc::IFLA_OPERSTATE => link.operstate = oper_state(u8_at(value, 0)?),
            libc::IFLA_LINKINFO => {
                for found in Attributes(value) {
                    let (kind, value) = found?;
                    if kind == IFLA_INFO_KIND {
                        link.kind = Some(text(value));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Some(link))
}

/// RFC 2863 `ifOperStatus`, as <linux/if.h> numbers it.
const fn oper_state(raw: u8) -> OperState {
    match raw {
        1 => OperState::NotPresent,
        2 => OperState::Down,
        3 => OperState::LowerLayerDown,
        4 => OperState::Testing,
        5 => OperState::Dormant,
        6 => OperState::Up,
        _ => OperState::Unknown,
    }
}

/// `ifaddrmsg` and its attributes; `None` for families other than IP.
pub(super) fn address(body: &[u8]) -> Result<Option<Address>, Malformed> {
    let family = u8_at(body, 0)?;
    if family != AF_INET && family != AF_INET6 {
        return Ok(None);
    }
    let mut flags = u32::from(u8_at(body, 2)?);
    let (mut own, mut peer) = (None, None);
    for found in Attributes(body.get(8..).ok_or(Malformed)?) {
        let (kind, value) = found?;
        match kind {
            // On point-to-point links IFA_ADDRESS is the other end and IFA_LOCAL ours.
            libc::IFA_LOCAL => own = Some(ip(family, value)?),
            libc::IFA_ADDRESS => peer = Some(ip(family, value)?),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    Ok(Some(Address {
        ifindex: u32_at(body, 4)?,
        ip: own.or(peer).ok_or(Malformed)?,
        prefix: u8_at(body, 1)?,
        scope: u8_at(body, 3)?,
        flags,
    }))
}

/// `rtmsg` and its attributes; `None` unless it is a single-address local route of ours.
pub(super) fn local_route(body: &[u8]) -> Result<Option<LocalRoute>, Malformed> {
    let (family, bits) = (u8_at(body, 0)?, u8_at(body, 1)?);
    let (mut table, protocol, kind) =
        (u32::from(u8_at(body, 4)?), u8_at(body, 5)?, u8_at(body, 7)?);
    let full = match family {
        AF_INET => 32,
        AF_INET6 => 128,
        _ => return Ok(None),
    };
    if protocol != PROTOCOL || kind != libc::RTN_LOCAL || bits != full {
        return Ok(None);
    }
    let (mut destination, mut ifindex) = (None, None);
    for found in Attributes(body.get(12..).ok_or(Malformed)?) {
        let (kind, value) = found?;
        match kind {
            libc::RTA_DST => destination = Some(ip(family, value)?),
            libc::RTA_OIF => ifindex = Some(u32_at(value, 0)?),
            RTA_TABLE => table = u32_at(value, 0)?,
            _ => {}
        }
    }
    if table != u32::from(libc::RT_TABLE_LOCAL) {
        return Ok(None);
    }
    let (Some(ip), Some(ifindex)) = (destination, ifindex) else {
        return Err(Malformed);
    };
    Ok(Some(LocalRoute { ip, ifindex }))
}

/// The question for the route of one address.
pub(super) fn way_request(ip: IpAddr) -> Request {
    let (family, bytes) = match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let bits = (bytes.len() * 8) as u8;
    let fixed = [family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Request::new(libc::RTM_GETROUTE, 0, &fixed).put(libc::RTA_DST, &bytes)
}

/// The answer to [`way_request`].
pub(super) fn way(body: &[u8]) -> Result<Way, Malformed> {
    if u8_at(body, 7)? == libc::RTN_LOCAL {
        return Ok(Way::Here);
    }
    for found in Attributes(body.get(12..).ok_or(Malformed)?) {
        let (kind, value) = found?;
        if kind == libc::RTA_OIF {
            return Ok(Way::Out(u32_at(value, 0)?));
        }
    }
    Err(Malformed)
}

/// The error number of an `NLMSG_ERROR` message; 0 is an acknowledgement.
pub(super) fn error_number(message: &Message<'_>) -> Result<i32, Malformed> {
    Ok(-array(message.body, 0).map(i32::from_ne_bytes)?)
}

/// A request being written.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// Starts a request with its fixed header, whose length is a multiple of four.
    pub(super) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut data = Vec::with_capacity(128);
        data.extend(0u32.to_ne_bytes());
        data.extend(kind.to_ne_bytes());
        data.extend(((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        data.extend([0; 8]);
        data.extend(fixed);
        Self(data)
    }

    /// Adds an attribute.
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
        self
    }

    /// Adds an attribute that holds attributes.
    pub(super) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        self = fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// The finished bytes.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// The fixed header and attributes of a local route of ours.
pub(super) fn local_route_request(kind: u16, flags: i32, route: LocalRoute) -> Request {
    let (family, bits) = match route.ip {
        IpAddr::V4(_) => (AF_INET, 32),
        IpAddr::V6(_) => (AF_INET6, 128),
    };
    let fixed = [
        family,
        bits,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        PROTOCOL,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
        0,
        0,
        0,
        0,
    ];
    let request = Request::new(kind, flags, &fixed);
    let request = match route.ip {
        IpAddr::V4(ip) => request.put(libc::RTA_DST, &ip.octets()),
        IpAddr::V6(ip) => request.put(libc::RTA_DST, &ip.octets()),
    };
    request.put(libc::RTA_OIF, &route.ifindex.to_ne_bytes())
}
