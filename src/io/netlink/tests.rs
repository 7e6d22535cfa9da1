//! Messages byte by byte, and anything else as well.

use super::message::{Request, local_route_request};
use super::*;

const LINK_FIXED: [u8; 16] = {
    let mut fixed = [0u8; 16];
    fixed[2] = 1; // ARPHRD_ETHER
    fixed[4] = 7; // ifindex
    fixed[8] = 0x43; // UP, BROADCAST, RUNNING
    fixed[9] = 0x10; // MULTICAST
    fixed[10] = 0x01; // LOWER_UP
    fixed
};

fn link_message() -> Vec<u8> {
    Request::new(libc::RTM_NEWLINK, 0, &LINK_FIXED)
        .put(libc::IFLA_IFNAME, b"eth0.5\0")
        .put(0x3fff, b"unknown")
        .put(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])
        .put(libc::IFLA_MTU, &1500u32.to_ne_bytes())
        .put(libc::IFLA_MASTER, &9u32.to_ne_bytes())
        .put(libc::IFLA_LINK, &2u32.to_ne_bytes())
        .put(libc::IFLA_OPERSTATE, &[6])
        .nest(libc::IFLA_LINKINFO | 0x8000, |info| info.put(1, b"vlan\0").put(2, &[]))
        .finish(0)
}

fn address_message(fixed: [u8; 8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    attributes
        .iter()
        .fold(Request::new(libc::RTM_NEWADDR, 0, &fixed), |r, (kind, value)| r.put(*kind, value))
        .finish(0)
}

fn route_message(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let route = LocalRoute { ip: "192.0.2.80".parse().expect("an address"), ifindex: 1 };
    let mut data = local_route_request(libc::RTM_NEWROUTE, 0, route).finish(0);
    change(&mut data[16..28]);
    data
}

fn events(datagram: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    read_events(datagram, &mut out);
    out
}

#[test]
fn a_link_is_read() {
    let expected = Link {
        ifindex: 7,
        name: "eth0.5".to_owned(),
        hardware: 1,
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        carrier: true,
        loopback: false,
        noarp: false,
        operstate: OperState::Up,
        kind: Some("vlan".to_owned()),
        mtu: 1500,
        master: Some(9),
        parent: Some(2),
        parent_elsewhere: false,
        queueless: false,
    };
    assert_eq!(events(&link_message()), [Event::Link(expected)]);
}

#[test]
fn a_link_is_usable_when_up_with_a_carrier() {
    let Some(Event::Link(mut link)) = events(&link_message()).pop() else {
        panic!("a link was expected");
    };
    let cases = [
        (true, OperState::Up, false, true),
        (true, OperState::Unknown, true, true),
        (true, OperState::Unknown, false, false),
        (true, OperState::LowerLayerDown, true, false),
        (true, OperState::Dormant, true, false),
        (false, OperState::Up, true, false),
    ];
    for (up, operstate, carrier, usable) in cases {
        (link.up, link.operstate, link.carrier) = (up, operstate, carrier);
        assert_eq!(link.usable(), usable, "{link:?}");
    }
}

#[test]
fn messages_about_bridge_ports_are_not_links() {
    let mut fixed = LINK_FIXED;
    fixed[0] = libc::AF_BRIDGE as u8;
    assert_eq!(events(&Request::new(libc::RTM_NEWLINK, 0, &fixed).finish(0)), []);
    assert_eq!(events(&Request::new(libc::RTM_DELLINK, 0, &fixed).finish(0)), []);
    let gone = Request::new(libc::RTM_DELLINK, 0, &LINK_FIXED).finish(0);
    assert_eq!(events(&gone), [Event::LinkGone { ifindex: 7 }]);
}

#[test]
fn the_own_end_of_a_point_to_point_link_is_its_address() {
    let fixed = [libc::AF_INET as u8, 32, 0x80, 0, 3, 0, 0, 0];
    let data = address_message(fixed, &[(1, &[192, 0, 2, 1]), (2, &[192, 0, 2, 2])]);
    let expected = Address {
        ifindex: 3,
        ip: "192.0.2.2".parse().expect("an address"),
        prefix: 32,
        scope: 0,
        flags: 0x80,
    };
    assert_eq!(events(&data), [Event::Address(expected)]);
    assert!(!expected.tentative());
}

#[test]
fn wide_address_flags_win() {
    let ip = std::net::Ipv6Addr::LOCALHOST.octets();
    let fixed = [libc::AF_INET6 as u8, 64, 0, 253, 3, 0, 0, 0];
    let data = address_message(fixed, &[(1, &ip), (8, &0x240u32.to_ne_bytes())]);
    let [Event::Address(address)] = events(&data)[..] else { panic!("an address was expected") };
    assert_eq!((address.flags, address.scope, address.tentative()), (0x240, 253, true));
}

#[test]
fn a_local_route_is_written_as_the_kernel_reads_it() {
    let route = LocalRoute { ip: "192.0.2.80".parse().expect("an address"), ifindex: 1 };
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let data = local_route_request(libc::RTM_NEWROUTE, flags, route).finish(5);
    let mut expected = Vec::new();
    expected.extend(44u32.to_ne_bytes());
    expected.extend(24u16.to_ne_bytes());
    expected.extend(0x601u16.to_ne_bytes());
    expected.extend(5u32.to_ne_bytes());
    expected.extend([0; 4]);
    // inet/32, table local, proto 80, scope host, type local
    expected.extend([2, 32, 0, 0, 255, 80, 254, 2, 0, 0, 0, 0]);
    expected.extend(8u16.to_ne_bytes());
    expected.extend(1u16.to_ne_bytes());
    expected.extend([192, 0, 2, 80]);
    expected.extend(8u16.to_ne_bytes());
    expected.extend(4u16.to_ne_bytes());
    expected.extend(1u32.to_ne_bytes());
    assert_eq!(data, expected);
}

#[test]
fn only_our_local_routes_are_seen() {
    let ours = LocalRoute { ip: "192.0.2.80".parse().expect("an address"), ifindex: 1 };
    assert_eq!(events(&route_message(|_| {})), [Event::Route(ours)]);
    let changes: [fn(&mut [u8]); 5] = [
        |fixed| fixed[0] = libc::AF_MPLS as u8,
        |fixed| fixed[1] = 24,
        |fixed| fixed[4] = libc::RT_TABLE_MAIN,
        |fixed| fixed[5] = libc::RTPROT_KERNEL,
        |fixed| fixed[7] = libc::RTN_UNICAST,
    ];
    for change in changes {
        assert_eq!(events(&route_message(change)), []);
    }
}

#[test]
fn several_messages_in_a_datagram_are_all_read() {
    let datagram = [link_message(), route_message(|_| {}), link_message()].concat();
    assert_eq!(events(&datagram).len(), 3);
}

#[test]
fn a_truncated_datagram_counts_as_lost_changes() {
    let whole = link_message();
    for length in 1..whole.len() {
        let found = events(&whole[..length]);
        assert_eq!(found, [Event::Lost], "cut to {length}");
    }
}

#[test]
fn contradictions_inside_a_message_count_as_lost_changes() {
    // An attribute longer than its message; one shorter than its own header.
    for length in [200u16, 3, 0] {
        let mut data = link_message();
        data[32..34].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(events(&data), [Event::Lost]);
    }
    // An address of three bytes; none at all; a route without its interface.
    let fixed = [libc::AF_INET as u8, 32, 0, 0, 3, 0, 0, 0];
    assert_eq!(events(&address_message(fixed, &[(1, &[192, 0, 2])])), [Event::Lost]);
    assert_eq!(events(&address_message(fixed, &[])), [Event::Lost]);
    let mut route = route_message(|_| {});
    route.truncate(36);
    route[0] = 36;
    assert_eq!(events(&route), [Event::Lost]);
}

/// Whatever the bytes, reading ends and nothing is read beyond the datagram.
#[test]
fn any_bytes_are_read_without_harm() {
    let seeds = [link_message(), route_message(|_| {}), [link_message(), link_message()].concat()];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for round in 0..20_000 {
        let mut data = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % data.len();
            data[at] = random() as u8;
        }
        data.truncate(random() % (data.len() + 1));
        assert!(events(&data).len() <= data.len() / 16 + 1);
    }
}
