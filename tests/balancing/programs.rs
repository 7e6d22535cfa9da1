//! Every branch of the service programs, packet in and packet out (`BPF_PROG_TEST_RUN`). Packets are compared whole.
use std::net::SocketAddr;
use std::sync::Arc;

use pilus::api::address::{IfIndex, Port};
use pilus::api::meta::NamespacedName;
use pilus::api::object::PortProtocol;
use pilus::api::service::{Backend, Frontend, FrontendKind, Hooked, Reach};
use pilus::io::bpf::service::Services;
use pilus::io::bpf::service_abi::SERVICE_COUNTERS;
use pilus::io::bpf::{Announced, Bpf, Role, TcHook};

use crate::bpf_lab::{self, CLIENT4, CLIENT6, Lab, NODE4, NODE6, VIP4, VIP6, VIPS};
use crate::packet::{Body, Packet};

const PASS: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
/// A backend behind the node's interface, of each family.
const BACKENDS: [&str; 2] = ["192.0.2.90:8080", "[2001:db8::90]:8080"];

struct Bench {
    lab: Lab,
    bpf: Bpf,
    services: Services,
}

fn vip(family: usize, port: u16) -> SocketAddr {
    SocketAddr::new([VIP4.into(), VIP6.into()][family], port)
}

fn client(family: usize) -> SocketAddr {
    SocketAddr::new([CLIENT4.into(), CLIENT6.into()][family], 40_000)
}

fn backend(family: usize) -> SocketAddr {
    BACKENDS[family].parse().unwrap()
}

impl Bench {
    /// The frontends of both families on ports 80 with one backend of this reach.
    fn new(reach: Reach) -> Self {
        let lab = Lab::new();
        let root = lab.bpf_root();
        let (mut bpf, mut services) = lab.node.enter(|| {
            let bpf = Bpf::load(&root, TcHook::Auto).unwrap();
            (bpf, Services::load(&root, TcHook::Auto).unwrap())
        });
        let ifindex = lab.ifindex;
        for ip in VIPS {
            let mac = lab.node_mac;
            bpf.set_address(Announced { ifindex, ip, role: Role::Held, mac }).unwrap();
        }
        services.set_own([Some(NODE4.into()), Some(NODE6.into())]).unwrap();
        let mut frontends = Vec::new();
        for family in [0, 1] {
            for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
                frontends.push(Arc::new(Frontend {
                    address: vip(family, 80).ip(),
                    port: Port(80),
                    protocol,
                    service: NamespacedName { namespace: "a".into(), name: "s".into() },
                    kind: FrontendKind::LoadBalancer,
                    affinity: None,
                    local_from_outside: false,
                    local_from_inside: false,
                    sources: None,
                    backends: [Backend { address: backend(family), reach }].into(),
                    local_backends: [].into(),
                }));
            }
        }
        let failures = lab.node.enter(|| services.sync(&frontends));
        assert!(failures.is_empty(), "{failures:?}");
        Self { lab, bpf, services }
    }

    fn packet(&self, from: SocketAddr, to: SocketAddr, body: Body) -> Packet {
        let macs = [self.lab.node_mac, self.lab.client_mac];
        Packet { macs, from, to, ttl: 64, fragment: (0, false), body }
    }

    /// Runs a program; returns the verdict, the packet after, and the counters that moved, each by one.
    fn run(&self, egress: bool, frame: &[u8]) -> (i32, Vec<u8>, Vec<&'static str>) {
        /// Of `struct __sk_buff`.
        const SIZE: usize = 192;
        const IFINDEX: usize = 40;
        let mut context = [0_u8; SIZE];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&self.lab.ifindex.to_ne_bytes());
        let before = self.services.counters().unwrap();
        let ran = self.lab.node.enter(|| self.services.test_run(egress, frame, &context));
        let (verdict, packet) = ran.unwrap();
        let after = self.services.counters().unwrap();
        let mut moved = Vec::new();
        for ((name, before), after) in SERVICE_COUNTERS.iter().zip(before).zip(after) {
            match after - before {
                0 => {}
                1 => moved.push(*name),
                n => panic!("{name} moved by {n}"),
            }
        }
        (verdict, packet, moved)
    }

    #[track_caller]
    fn sends(&self, packet: &Packet, expected: &Packet, counters: &[&str]) {
        let (verdict, bytes, moved) = self.run(false, &packet.bytes());
        assert_eq!((verdict, moved), (REDIRECT, counters.to_vec()));
        assert_eq!(bytes, expected.bytes());
    }

    #[track_caller]
    fn leaves(&self, packet: &[u8], verdict: i32, counters: &[&str]) {
        assert_eq!(self.run(false, packet), (verdict, packet.to_vec(), counters.to_vec()));
    }
}

/// The same packet as it is sent on: another tuple, one hop less.
fn sent(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Packet {
    Packet { from, to, ttl: packet.ttl - 1, ..packet.clone() }
}

/// A packet back the way it came.
fn returned(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Packet {
    let [to_mac, from_mac] = packet.macs;
    Packet { macs: [from_mac, to_mac], ..sent(packet, from, to) }
}

#[test]
fn packets_to_a_backend_here_and_its_answers() {
    needs_root!("packets_to_a_backend_here_and_its_answers");
    let bench = Bench::new(Reach::Local);
    for family in [0, 1] {
        let (from, to, target) = (client(family), vip(family, 80), backend(family));
        let bodies = [
            Body::Tcp(SYN, vec![]),
            Body::Tcp(SYN | ACK, vec![]),
            Body::Tcp(ACK, b"odd".to_vec()),
            Body::Tcp(ACK | FIN, vec![]),
        ];
        for (n, body) in bodies.into_iter().enumerate() {
            let ask = bench.packet(from, to, body.clone());
            let new: &[_] = if n == 0 { &["service_new"] } else { &[] };
            bench.sends(&ask, &sent(&ask, from, target), &[new, &["service_to_backend"]].concat());
            // The client's own card and the node's, the other way round.
            let answer = bench.packet(target, from, body);
            bench.sends(&answer, &returned(&answer, to, from), &["service_to_client"]);
        }
        let ask = bench.packet(from, to, Body::Udp(b"question".to_vec()));
        bench.sends(&ask, &sent(&ask, from, target), &["service_new", "service_to_backend"]);
        let answer = bench.packet(target, from, Body::Udp(b"answer".to_vec()));
        bench.sends(&answer, &returned(&answer, to, from), &["service_to_client"]);
    }
    // A checksum that is not there stays so.
    let ask = bench.packet(client(0), vip(0, 80), Body::UdpUnchecked(b"question".to_vec()));
    bench.sends(&ask, &sent(&ask, client(0), backend(0)), &["service_to_backend"]);
}

#[test]
fn fragments_follow_their_first() {
    needs_root!("fragments_follow_their_first");
    let bench = Bench::new(Reach::Local);
    let (from, to, target) = (client(0), vip(0, 80), backend(0));
    let ask = bench.packet(from, to, Body::Udp(vec![7; 64]));
    let first = Packet { fragment: (0, true), ..ask.clone() };
    let later = Packet { fragment: (9, false), body: Body::Later(17, vec![7; 33]), ..ask };
    bench.leaves(&later.bytes(), PASS, &["service_fragment_lost"]);
    bench.sends(&first, &sent(&first, from, target), &["service_new", "service_to_backend"]);
    bench.sends(&later, &sent(&later, from, target), &["service_to_backend"]);
}

#[test]
fn what_is_no_business_of_services_passes_untouched() {
    needs_root!("what_is_no_business_of_services_passes_untouched");
    let bench = Bench::new(Reach::Local);
    for family in [0, 1] {
        let (from, to) = (client(family), vip(family, 80));
        let syn = bench.packet(from, to, Body::Tcp(SYN, vec![]));
        let another_port = Packet { to: vip(family, 81), ..syn.clone() };
        let another_host = Packet { to: SocketAddr::new(backend(family).ip(), 80), ..syn.clone() };
        let last_hop = Packet { ttl: 1, ..syn.clone() };
        let not_for_us = Packet { macs: [[2, 0, 0, 0, 0, 9], syn.macs[1]], ..syn.clone() };
        let short = syn.bytes()[..if family == 0 { 44 } else { 64 }].to_vec();
        for frame in [another_port, another_host, last_hop, not_for_us].map(|packet| packet.bytes())
        {
            bench.leaves(&frame, PASS, &[]);
        }
        bench.leaves(&short, PASS, &[]);
        let mut tagged = syn.bytes();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        bench.leaves(&tagged, PASS, &[]);
        let answer_of_nobody = bench.packet(backend(family), from, Body::Tcp(ACK, vec![]));
        bench.leaves(&answer_of_nobody.bytes(), PASS, &[]);
    }
}

#[test]
fn echo_requests_are_answered_by_the_holder() {
    needs_root!("echo_requests_are_answered_by_the_holder");
    let mut bench = Bench::new(Reach::Local);
    let pings = [0, 1].map(|family| {
        let (kind, reply) = [(8, 0), (128, 129)][family];
        let rest = b"an odd number of bytes.".to_vec();
        let body = |kind| Body::Icmp(kind, 0, [1, 2, 3, 4], rest.clone());
        let [from, to] = [client(family), vip(family, 80)].map(|at| SocketAddr::new(at.ip(), 0));
        let ask = bench.packet(from, to, body(kind));
        let [node, other] = ask.macs;
        let answer =
            Packet { macs: [other, node], from: to, to: from, body: body(reply), ..ask.clone() };
        bench.sends(&ask, &answer, &["service_echoed"]);
        ask
    });
    for ip in VIPS {
        let (ifindex, mac) = (bench.lab.ifindex, bench.lab.node_mac);
        bench.bpf.set_address(Announced { ifindex, ip, role: Role::NotHeld, mac }).unwrap();
    }
    pings.iter().for_each(|ping| bench.leaves(&ping.bytes(), PASS, &[]));
}

#[test]
fn errors_find_the_sender_of_what_they_are_about() {
    needs_root!("errors_find_the_sender_of_what_they_are_about");
    let bench = Bench::new(Reach::Local);
    for family in [0, 1] {
        let (from, to, target) = (client(family), vip(family, 80), backend(family));
        let ask = bench.packet(from, to, Body::Tcp(SYN, vec![1, 2, 3]));
        bench.sends(&ask, &sent(&ask, from, target), &["service_new", "service_to_backend"]);
        let (kind, code) = [(3, 4), (2, 0)][family];
        let bare = |at: SocketAddr| SocketAddr::new(at.ip(), 0);
        // A router on the way to the client finds an answer too large.
        let router: SocketAddr = ["203.0.113.1:0", "[2001:db8:f::1]:0"][family].parse().unwrap();
        let quoted = |from, to| bench.packet(from, to, Body::Tcp(ACK, vec![5; 40])).ip();
        let error = |from: SocketAddr, to: SocketAddr, quoted: Vec<u8>| {
            bench.packet(bare(from), bare(to), Body::Icmp(kind, code, [0, 0, 5, 0xdc], quoted))
        };
        // The quoted transport checksum cannot be right in both: it stays as it was sent.
        let outside = error(router, to, quoted(to, from));
        let (verdict, bytes, moved) = bench.run(false, &outside.bytes());
        assert_eq!((verdict, moved), (REDIRECT, vec!["service_icmp"]));
        let mut inner = quoted(target, from);
        let at = if family == 0 { 20 + 16 } else { 40 + 16 };
        inner[at..at + 2].copy_from_slice(&quoted(to, from)[at..at + 2]);
        let expected = error(router, target, inner);
        assert_eq!(bytes, Packet { ttl: 63, ..expected }.bytes());
        // The backend says that nobody listens there.
        let inside = error(target, from, quoted(from, target));
        let (verdict, bytes, moved) = bench.run(false, &inside.bytes());
        assert_eq!((verdict, moved), (REDIRECT, vec!["service_icmp"]));
        let mut inner = quoted(from, to);
        inner[at..at + 2].copy_from_slice(&quoted(from, target)[at..at + 2]);
        let expected = error(to, from, inner);
        let [node, other] = expected.macs;
        assert_eq!(bytes, Packet { macs: [other, node], ttl: 63, ..expected }.bytes());
        // About somebody else's packets.
        let other = error(router, to, quoted(to, SocketAddr::new(from.ip(), 9)));
        bench.leaves(&other.bytes(), PASS, &[]);
    }
}

#[test]
fn another_node_gets_the_packet_as_it_is_and_only_from_the_holder() {
    needs_root!("another_node_gets_the_packet_as_it_is_and_only_from_the_holder");
    for family in [0, 1] {
        let node = SocketAddr::new([CLIENT4.into(), CLIENT6.into()][family], 0).ip();
        let mut bench = Bench::new(Reach::Node(node));
        let ask = bench.packet(client(family), vip(family, 80), Body::Tcp(SYN, vec![]));
        let relayed = Packet { ttl: 63, ..ask.clone() };
        bench.sends(&ask, &relayed, &["service_new", "service_relayed"]);
        for ip in VIPS {
            let (ifindex, mac) = (bench.lab.ifindex, bench.lab.node_mac);
            bench.bpf.set_address(Announced { ifindex, ip, role: Role::NotHeld, mac }).unwrap();
        }
        let other = SocketAddr::new(client(family).ip(), 40_001);
        let ask = bench.packet(other, vip(family, 80), Body::Tcp(SYN, vec![]));
        bench.leaves(&ask.bytes(), DROP, &["service_not_local"]);
    }
}

#[test]
fn a_port_of_the_node_stands_in_for_a_client_of_what_is_elsewhere() {
    needs_root!("a_port_of_the_node_stands_in_for_a_client_of_what_is_elsewhere");
    let bench = Bench::new(Reach::Elsewhere);
    for family in [0, 1] {
        let (to, target) = (vip(family, 80), backend(family));
        let own = [NODE4.into(), NODE6.into()][family];
        let mut ports = std::collections::BTreeSet::new();
        for port in 40_000..40_020 {
            let from = SocketAddr::new(client(family).ip(), port);
            let ask = bench.packet(from, to, Body::Tcp(SYN, vec![]));
            let (verdict, bytes, moved) = bench.run(false, &ask.bytes());
            assert_eq!((verdict, moved), (REDIRECT, vec!["service_new", "service_to_backend"]));
            let at = if family == 0 { 34 } else { 54 };
            let stand_in = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            assert!((61_000..65_535).contains(&stand_in) && ports.insert(stand_in), "{stand_in}");
            let stand_in = SocketAddr::new(own, stand_in);
            assert_eq!(bytes, sent(&ask, stand_in, target).bytes());
            let answer = bench.packet(target, stand_in, Body::Tcp(SYN | ACK, vec![]));
            bench.sends(&answer, &returned(&answer, to, from), &["service_to_client"]);
        }
    }
}

#[test]
fn backends_on_the_node_are_delivered_to_and_answer_as_the_frontend() {
    needs_root!("backends_on_the_node_are_delivered_to_and_answer_as_the_frontend");
    let bench = Bench::new(Reach::Host);
    for family in [0, 1] {
        let (from, to, target) = (client(family), vip(family, 80), backend(family));
        let ask = bench.packet(from, to, Body::Tcp(SYN, vec![]));
        let delivered = Packet { to: target, ..ask.clone() };
        let expected = (PASS, delivered.bytes(), vec!["service_new", "service_to_backend"]);
        assert_eq!(bench.run(false, &ask.bytes()), expected);
        let answer = bench.packet(target, from, Body::Tcp(SYN | ACK, vec![]));
        let translated = Packet { from: to, ..answer.clone() };
        let expected = (PASS, translated.bytes(), vec!["service_to_client"]);
        assert_eq!(bench.run(true, &answer.bytes()), expected);
        // What others send leaves as it is.
        let other = bench.packet(target, to, Body::Tcp(ACK, vec![]));
        assert_eq!(bench.run(true, &other.bytes()), (PASS, other.bytes(), vec![]));
    }
}

#[test]
fn a_frontend_without_backends_refuses() {
    needs_root!("a_frontend_without_backends_refuses");
    let mut bench = Bench::new(Reach::Local);
    let frontend = Frontend {
        address: vip(0, 80).ip(),
        port: Port(80),
        protocol: PortProtocol::Tcp,
        service: NamespacedName { namespace: "a".into(), name: "s".into() },
        kind: FrontendKind::LoadBalancer,
        affinity: None,
        local_from_outside: false,
        local_from_inside: false,
        sources: None,
        backends: [].into(),
        local_backends: [].into(),
    };
    assert!(bench.services.sync(&[Arc::new(frontend)]).is_empty());
    let ask = bench.packet(client(0), vip(0, 80), Body::Tcp(SYN, vec![]));
    bench.leaves(&ask.bytes(), DROP, &["service_no_backend"]);
    // The other family's frontend is gone.
    let ask = bench.packet(client(1), vip(1, 80), Body::Tcp(SYN, vec![]));
    bench.leaves(&ask.bytes(), PASS, &[]);
}

#[test]
fn interfaces_are_hooked_and_left() {
    needs_root!("interfaces_are_hooked_and_left");
    for hook in [TcHook::Auto, TcHook::Clsact] {
        let lab = Lab::new();
        lab.node.enter(|| {
            let mut services = Services::load(&lab.bpf_root(), hook).unwrap();
            let wanted =
                [Hooked { index: IfIndex(lab.ifindex), outside: true, why: "test".into() }];
            assert!(!services.are_hooked(&wanted).unwrap());
            assert!(services.hook(&wanted).is_empty());
            assert!(services.are_hooked(&wanted).unwrap());
            drop(services);
            let mut services = Services::load(&lab.bpf_root(), hook).unwrap();
            assert!(services.are_hooked(&wanted).unwrap(), "it outlives the agent");
            assert!(services.hook(&[]).is_empty());
            assert!(!services.are_hooked(&wanted).unwrap());
        });
    }
}
