//! Who reaches what, and whom the backend sees.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use pilus::api::address::Port;
use pilus::api::meta::NamespacedName;
use pilus::api::object::PortProtocol;
use pilus::api::service::{Backend, Frontend, FrontendKind, Reach};

use crate::bpf_lab;
use crate::ground::{CLIENT, Ground, NODE1, NODE2, OTHER, PATIENCE, POD1, POD2, POD3, VIP, say};

const PORT: u16 = 80;
const TARGET: u16 = 8080;
const BOTH: [usize; 2] = [0, 1];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn backend(address: &str, reach: Reach) -> Backend {
    Backend { address: at(address, TARGET), reach }
}

/// Frontends for TCP and UDP at the virtual address of a family.
fn frontends(family: usize, backends: &[Backend]) -> Vec<Arc<Frontend>> {
    with(family, backends, |_| {})
}

fn with(family: usize, backends: &[Backend], change: impl Fn(&mut Frontend)) -> Vec<Arc<Frontend>> {
    let mut backends = backends.to_vec();
    backends.sort();
    let is_here = |it: &Backend| matches!(it.reach, Reach::Local | Reach::Host);
    let local: Vec<Backend> = backends.iter().copied().filter(is_here).collect();
    [PortProtocol::Tcp, PortProtocol::Udp]
        .map(|protocol| {
            let mut frontend = Frontend {
                address: ip(VIP[family]),
                port: Port(PORT),
                protocol,
                service: NamespacedName { namespace: "a".into(), name: "s".into() },
                kind: FrontendKind::LoadBalancer,
                affinity: None,
                local_from_outside: false,
                local_from_inside: false,
                sources: None,
                backends: backends.clone().into(),
                local_backends: local.clone().into(),
            };
            change(&mut frontend);
            Arc::new(frontend)
        })
        .to_vec()
}

/// One datagram and its answer.
fn ask_udp(ground: &Ground, place: &str, to: SocketAddr, length: usize) -> String {
    ground.place(place).enter(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Answers from anywhere else are not received.
        socket.connect(to).unwrap();
        socket.send(&vec![b'x'; length]).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{place} asks {to}: {e}"));
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        text.trim_end_matches(['x', ' ']).to_owned()
    })
}

#[test]
fn pods_of_this_node_see_the_client() {
    needs_root!("pods_of_this_node_see_the_client");
    let mut ground = Ground::new();
    ["p1", "p2"].into_iter().for_each(|pod| ground.serve(pod, TARGET));
    let mut services = ground.services("n1");
    for family in BOTH {
        let pods = [POD1, POD2].map(|pod| backend(pod[family], Reach::Local));
        ground.sync("n1", &mut services, &frontends(family, &pods));
        let mut seen = BTreeMap::new();
        for _ in 0..40 {
            *seen.entry(ground.ask("cl", at(VIP[family], PORT))).or_insert(0) += 1;
        }
        // Which it is follows from the ports, of which each connection has another.
        let expected = ["p1", "p2"].map(|pod| format!("{pod} {}", CLIENT[family]));
        assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), expected, "{seen:?}");
        let answer = ask_udp(&ground, "cl", at(VIP[family], PORT), 5);
        assert!(expected.contains(&answer), "{answer}");
        // In fragments, there and back.
        let answer = ask_udp(&ground, "cl", at(VIP[family], PORT), 4000);
        assert!(expected.contains(&answer), "{answer}");
    }
}

#[test]
fn a_pod_of_another_node_sees_the_client_too_and_answers_him_directly() {
    needs_root!("a_pod_of_another_node_sees_the_client_too_and_answers_him_directly");
    let mut ground = Ground::new();
    ground.serve("p3", TARGET);
    let (mut first, mut second) = (ground.services("n1"), ground.services("n2"));
    for family in BOTH {
        let node2 = ip(NODE2[family]);
        let remote = frontends(family, &[backend(POD3[family], Reach::Node(node2))]);
        ground.sync("n1", &mut first, &remote);
        ground.sync("n2", &mut second, &frontends(family, &[backend(POD3[family], Reach::Local)]));
        let expected = format!("p3 {}", CLIENT[family]);
        assert_eq!(ground.ask("cl", at(VIP[family], PORT)), expected);
        assert_eq!(ask_udp(&ground, "cl", at(VIP[family], PORT), 5), expected);
        // A connection goes on when the address moves to the other node and back.
        let mut stream = ground
            .place("cl")
            .enter(|| TcpStream::connect_timeout(&at(VIP[family], PORT), PATIENCE).unwrap());
        for holder in ["n1", "n2", "n1"] {
            ground.hold(holder);
            assert_eq!(say(&mut stream, holder), expected, "{holder}");
        }
    }
}

#[test]
fn what_runs_elsewhere_sees_the_node() {
    needs_root!("what_runs_elsewhere_sees_the_node");
    let mut ground = Ground::new();
    ground.serve("ot", TARGET);
    let mut services = ground.services("n1");
    for family in BOTH {
        let elsewhere = [backend(OTHER[family], Reach::Elsewhere)];
        ground.sync("n1", &mut services, &frontends(family, &elsewhere));
        for place in ["cl", "p1"] {
            let expected = format!("ot {}", NODE1[family]);
            assert_eq!(ground.ask(place, at(VIP[family], PORT)), expected, "{place}");
            assert_eq!(ask_udp(&ground, place, at(VIP[family], PORT), 5), expected, "{place}");
        }
    }
}

#[test]
fn pods_reach_each_other_themselves_and_other_nodes() {
    needs_root!("pods_reach_each_other_themselves_and_other_nodes");
    let mut ground = Ground::new();
    ["p1", "p2", "p3"].into_iter().for_each(|pod| ground.serve(pod, TARGET));
    let mut services = ground.services("n1");
    for (node, pods, via) in [
        ("n1", ["10.2.0.0/24", "fd00:2::/64"], NODE2),
        ("n2", ["10.1.0.0/24", "fd00:1::/64"], NODE1),
    ] {
        for family in BOTH {
            let command = format!("route add {} via {}", pods[family], via[family]);
            bpf_lab::run(&format!("ip -n {} {command}", ground.place(node).0));
        }
    }
    for family in BOTH {
        for (target, reach, name, sees) in [
            (POD1, Reach::Local, "p1", NODE1),
            (POD2, Reach::Local, "p2", POD1),
            (POD3, Reach::Node(ip(NODE2[family])), "p3", POD1),
        ] {
            ground.sync("n1", &mut services, &frontends(family, &[backend(target[family], reach)]));
            let expected = format!("{name} {}", sees[family]);
            assert_eq!(ground.ask("p1", at(VIP[family], PORT)), expected);
            assert_eq!(ask_udp(&ground, "p1", at(VIP[family], PORT), 5), expected);
        }
    }
}

#[test]
fn what_listens_on_the_node_itself_sees_the_client() {
    needs_root!("what_listens_on_the_node_itself_sees_the_client");
    let mut ground = Ground::new();
    ground.serve("n1", TARGET);
    let mut services = ground.services("n1");
    for family in BOTH {
        let here = [backend(NODE1[family], Reach::Host)];
        ground.sync("n1", &mut services, &frontends(family, &here));
        for (place, sees) in [("cl", CLIENT), ("p1", POD1)] {
            let expected = format!("n1 {}", sees[family]);
            assert_eq!(ground.ask(place, at(VIP[family], PORT)), expected, "{place}");
        }
        // To a Pod the node would answer from the bridge's address, as it does without us.
        let expected = format!("n1 {}", CLIENT[family]);
        assert_eq!(ask_udp(&ground, "cl", at(VIP[family], PORT), 5), expected);
    }
}

#[test]
fn processes_of_the_node_reach_services_and_those_of_others_are_left_alone() {
    needs_root!("processes_of_the_node_reach_services_and_those_of_others_are_left_alone");
    let mut ground = Ground::new();
    ["p1", "ot", "n2"].into_iter().for_each(|place| ground.serve(place, TARGET));
    let mut services = ground.services("n1");
    let node = ground.place("n1");
    let group = ground.control_groups();
    node.enter(|| services.hook_host(&group).unwrap());
    assert!(services.is_host_hooked());
    let own = NODE1.map(|address| Some(ip(address)));
    services.set_own(own).unwrap();
    for family in BOTH {
        let to = at(VIP[family], PORT);
        for (target, reach, expected) in [
            // From the bridge's address, as any connection of the node to its Pods.
            (
                POD1,
                Reach::Local,
                format!("p1 {}", POD1[family].trim_end_matches('2').to_owned() + "1"),
            ),
            (OTHER, Reach::Elsewhere, format!("ot {}", NODE1[family])),
        ] {
            ground.sync("n1", &mut services, &frontends(family, &[backend(target[family], reach)]));
            assert_eq!(ground.ask("n1", to), expected);
            assert_eq!(ask_udp(&ground, "n1", to, 5), expected);
            node.enter(|| {
                let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
                assert_eq!(stream.peer_addr().unwrap(), to, "it is told whom it asked for");
                // Not connected: each datagram says where to, and each answer where from.
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send_to(b"", to).unwrap();
                assert_eq!(socket.recv_from(&mut [0; 100]).unwrap().1, to);
            });
        }
        ground.sync("n1", &mut services, &frontends(family, &[]));
        assert!(node.enter(|| TcpStream::connect_timeout(&to, PATIENCE).is_err()), "refused");
    }
    // Another network namespace on this machine asks the node at its own address.
    let to = at(NODE2[0], TARGET);
    ground.sync(
        "n1",
        &mut services,
        &[Arc::new(Frontend {
            address: to.ip(),
            port: Port(TARGET),
            ..(*frontends(0, &[backend(OTHER[0], Reach::Elsewhere)])[0]).clone()
        })],
    );
    assert!(ground.ask("n1", to).starts_with("ot"));
    assert!(ground.ask("cl", to).starts_with("n2"));
    services.unhook_host().unwrap();
    services.set_own(own).unwrap();
    assert!(ground.ask("n1", to).starts_with("n2"));
}

#[test]
fn policies_of_a_service_hold() {
    needs_root!("policies_of_a_service_hold");
    let mut ground = Ground::new();
    ["p1", "p2", "p3"].into_iter().for_each(|pod| ground.serve(pod, TARGET));
    let mut services = ground.services("n1");
    for family in BOTH {
        let to = at(VIP[family], PORT);
        let pods = [
            backend(POD1[family], Reach::Local),
            backend(POD2[family], Reach::Local),
            backend(POD3[family], Reach::Node(ip(NODE2[family]))),
        ];
        // externalTrafficPolicy Local: never the other node's.
        let local = with(family, &pods, |frontend| frontend.local_from_outside = true);
        ground.sync("n1", &mut services, &local);
        for _ in 0..20 {
            assert!(!ground.ask("cl", to).starts_with("p3"));
        }
        let remote = with(family, &pods[2..], |frontend| frontend.local_from_outside = true);
        ground.sync("n1", &mut services, &remote);
        assert!(ground.is_silent("cl", to), "there is nothing of this node");
        // Affinity: one client, one backend, whatever its ports.
        let affine = with(family, &pods[..2], |frontend| frontend.affinity = Some(PATIENCE));
        ground.sync("n1", &mut services, &affine);
        let first = ground.ask("cl", to);
        for _ in 0..20 {
            assert_eq!(ground.ask("cl", to), first);
        }
        // Ranges of clients: from outside only.
        let ranges = |text: &str, length| {
            let network = pilus::api::address::Network { address: ip(text), length };
            with(family, &pods[..2], move |frontend| frontend.sources = Some([network].into()))
        };
        let length = if family == 0 { 32 } else { 128 };
        ground.sync("n1", &mut services, &ranges(OTHER[family], length));
        assert!(ground.is_silent("cl", to), "the client is in no range");
        assert!(ground.ask("ot", to).starts_with('p'));
        assert!(ground.ask("p2", to).starts_with('p'));
        ground.sync("n1", &mut services, &ranges(CLIENT[family], length));
        assert!(ground.ask("cl", to).starts_with('p'));
        // Nothing behind it, and no frontend at all.
        ground.sync("n1", &mut services, &frontends(family, &[]));
        assert!(ground.is_silent("cl", to), "there is no backend");
    }
}

#[test]
fn connections_go_on_whatever_becomes_of_tables_and_programs() {
    needs_root!("connections_go_on_whatever_becomes_of_tables_and_programs");
    let mut ground = Ground::new();
    ["p1", "p2"].into_iter().for_each(|pod| ground.serve(pod, TARGET));
    let mut services = ground.services("n1");
    let to = at(VIP[0], PORT);
    let [one, two] = [POD1, POD2].map(|pod| backend(pod[0], Reach::Local));
    ground.sync("n1", &mut services, &frontends(0, &[one]));
    let mut stream =
        ground.place("cl").enter(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    let expected = format!("p1 {}", CLIENT[0]);
    assert_eq!(say(&mut stream, "before"), expected);
    // Its backend takes no new ones.
    ground.sync("n1", &mut services, &frontends(0, &[two]));
    assert_eq!(say(&mut stream, "drained"), expected);
    assert_eq!(ground.ask("cl", to), format!("p2 {}", CLIENT[0]));
    // The agent dies: the programs stay; another one takes over what is pinned.
    drop(services);
    assert_eq!(say(&mut stream, "without an agent"), expected);
    let mut services = ground.services("n1");
    assert_eq!(say(&mut stream, "with another"), expected);
    ground.sync("n1", &mut services, &frontends(0, &[one, two]));
    assert_eq!(say(&mut stream, "and its tables"), expected);
    assert!(ground.ask("cl", to).starts_with('p'));
}

#[test]
fn datagrams_move_when_their_backend_goes() {
    needs_root!("datagrams_move_when_their_backend_goes");
    let mut ground = Ground::new();
    ["p1", "p2"].into_iter().for_each(|pod| ground.serve(pod, TARGET));
    let mut services = ground.services("n1");
    let [one, two] = [POD1, POD2].map(|pod| backend(pod[0], Reach::Local));
    ground.sync("n1", &mut services, &frontends(0, &[one]));
    let socket = ground.place("cl").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(at(VIP[0], PORT)).unwrap();
        socket
    });
    let ask = || {
        socket.send(b"").unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap().trim().to_owned()
    };
    assert_eq!(ask(), format!("p1 {}", CLIENT[0]));
    ground.sync("n1", &mut services, &frontends(0, &[one, two]));
    assert_eq!(ask(), format!("p1 {}", CLIENT[0]), "it stays while its backend is there");
    ground.sync("n1", &mut services, &frontends(0, &[two]));
    assert_eq!(ask(), format!("p2 {}", CLIENT[0]));
}

#[test]
fn addresses_answer_pings() {
    needs_root!("addresses_answer_pings");
    let ground = Ground::new();
    let mut services = ground.services("n1");
    let all: Vec<_> = BOTH.into_iter().flat_map(|family| frontends(family, &[])).collect();
    ground.sync("n1", &mut services, &all);
    for place in ["cl", "p1"] {
        for vip in VIP {
            let output = std::process::Command::new("ip")
                .args(["netns", "exec", &ground.place(place).0, "python3", "-c", PING, vip])
                .output()
                .unwrap();
            assert!(output.status.success(), "{place} {vip}: {output:?}");
        }
    }
}

/// Sends an echo request of 56 bytes and expects them back, from the address that was asked.
const PING: &str = "
import socket, struct, sys
to = sys.argv[1]
six = ':' in to
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
sock = socket.socket(family, socket.SOCK_RAW, protocol)
sock.settimeout(10)
body = bytes(range(56))
head = lambda sum: struct.pack('!BBHHH', 128 if six else 8, 0, sum, 4711, 1)
sock.sendto(head(0 if six else checksum(head(0) + body)) + body, (to, 0))
while True:
    data, peer = sock.recvfrom(2000)
    if not six:
        data = data[20:]
    if data[0] == (129 if six else 0) and data[4:6] == struct.pack('!H', 4711):
        assert six or checksum(data) == 0, 'checksum'
        assert data[8:] == body and peer[0] == to, (data, peer)
        break
";
