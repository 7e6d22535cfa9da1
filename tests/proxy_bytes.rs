//! TCP and UDP listeners: whole connections and datagram flows go to backends, by weight.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use pilus::api::config::Config;
use pilus::api::route::{Action, Backend as To, Listener, ListenerProtocol, Route, Target};
use support::backend::{Backend, WATCHDOG};
use support::{Front, Shape, TestProxy, World, free_port, service_port};

/// A listener of `protocol` that forwards to the Services, by weight; `-` is one that is refused.
fn front(protocol: ListenerProtocol, port: u16, to: &'static [(&'static str, u32)]) -> Front {
    let shape: Shape<Listener> = Arc::new(move |listener| {
        let backend = |&(name, weight): &(&str, u32)| {
            let mut backend = To::new(service_port(name), weight);
            if name == "-" {
                backend.target = Target::Refuse(500, "there is no such Service".to_owned());
            }
            backend
        };
        listener.protocol = protocol;
        let action = Action::Forward(to.iter().map(backend).collect());
        listener.forward = Some(Arc::new(Route::new(action)));
    });
    Front { shape: Some(shape), ..Front::http(port, Vec::new()) }
}

fn world(front: Front, services: &[(&str, &[SocketAddr])]) -> World {
    let mut world = World { listeners: vec![front], ..World::default() };
    for (name, endpoints) in services {
        world.serve(name, endpoints);
    }
    world
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// What comes until the end.
fn rest(mut stream: &TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

/// Greets, and repeats what it is told when all is said.
fn parrot(name: &'static str) -> Backend {
    Backend::start(move |mut peer| {
        peer.say(name);
        let said = peer.rest();
        peer.say(&String::from_utf8(said).unwrap());
    })
}

#[test]
fn the_server_may_speak_first_and_each_side_ends_for_itself() {
    let (backend, port) = (parrot("hello "), free_port());
    let front = front(ListenerProtocol::Tcp, port, &[("a", 1)]);
    let proxy = TestProxy::start(world(front, &[("a", &[backend.address])]));
    let mut client = connect(port);
    let mut greeting = [0; 6];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello ");
    client.write_all(b"\x16\x03 and GET / HTTP/1.1\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client).unwrap(), "\x16\x03 and GET / HTTP/1.1\r\n\r\n");
    assert_eq!(proxy.stats().tunnels, 1);
}

#[test]
fn much_passes_both_ways_at_once() {
    const SIZE: usize = 16 << 20;
    let backend = Backend::start(|mut peer| {
        let mut out = peer.stream.get_ref().try_clone().unwrap();
        let _ = std::io::copy(&mut peer.stream, &mut out);
        let _ = out.shutdown(Shutdown::Write);
    });
    let port = free_port();
    let front = front(ListenerProtocol::Tcp, port, &[("a", 1)]);
    let proxy = TestProxy::start(world(front, &[("a", &[backend.address])]));
    let client = connect(port);
    let data: Arc<Vec<u8>> = Arc::new((0..SIZE).map(|i| (i / 251 + i) as u8).collect());
    let writer = std::thread::spawn({
        let (mut stream, data) = (client.try_clone().unwrap(), Arc::clone(&data));
        move || {
            stream.write_all(&data).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut got = Vec::new();
    (&client).read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == *data);
    assert_eq!(proxy.ask(pilus::io::buffer::lent), 0);
}

#[test]
fn connections_are_spread_by_weight_and_refused_ones_are_reset() {
    let (a, b, port) = (parrot("a"), parrot("b"), free_port());
    let front =
        front(ListenerProtocol::Tcp, port, &[("a", 3), ("b", 1), ("-", 1), ("none", 1), ("c", 0)]);
    let services = [("a", &[a.address][..]), ("b", &[b.address]), ("none", &[])];
    let _proxy = TestProxy::start(world(front, &services));
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..12 {
        let client = connect(port);
        // It may have been reset by now.
        let _ = client.shutdown(Shutdown::Write);
        let outcome = rest(&client).unwrap_or_else(|error| format!("{:?}", error.kind()));
        *seen.entry(outcome).or_insert(0) += 1;
    }
    let expected = [("ConnectionReset", 4), ("a", 6), ("b", 2)];
    assert_eq!(seen, expected.map(|(name, count)| (name.to_owned(), count)).into());
}

#[test]
fn a_dead_endpoint_is_passed_over_and_a_reset_is_passed_on() {
    let (alive, port) = (parrot("alive"), free_port());
    let dead: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
    let rude = Backend::start(|mut peer| {
        // Closed with something unread: the kernel says so by a reset.
        peer.say("x");
        let _ = peer.stream.get_ref().peek(&mut [0]);
    });
    let first = front(ListenerProtocol::Tcp, port, &[("a", 1)]);
    let second = front(ListenerProtocol::Tcp, free_port(), &[("rude", 1)]);
    let rude_port = second.port;
    let mut world = world(first, &[("a", &[dead, alive.address]), ("rude", &[rude.address])]);
    world.listeners.push(second);
    let _proxy = TestProxy::start(world);
    for _ in 0..4 {
        let client = connect(port);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&client).unwrap(), "alive");
    }
    let mut client = connect(rude_port);
    client.write_all(b"anything").unwrap();
    assert_eq!(rest(&client).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// An endpoint that answers each datagram with its name and what it was told.
struct Datagrams {
    address: SocketAddr,
    socket: UdpSocket,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Datagrams {
    fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, served) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
        let serve = move || {
            let mut room = vec![0; 65_536];
            while let Ok((length, from)) = served.recv_from(&mut room) {
                if length == 0 {
                    return;
                }
                let answer = [name.as_bytes(), &room[..length]].concat();
                let _ = served.send_to(&answer, from);
            }
        };
        Self { address, socket, thread: Some(std::thread::spawn(serve)) }
    }

    /// Nobody is there from now on.
    fn stop(mut self) {
        let stop = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        stop.send_to(&[], self.address).unwrap();
        self.thread.take().unwrap().join().unwrap();
        drop(self.socket);
    }
}

/// A client that takes answers from the address that it asks only.
fn asking(to: impl std::net::ToSocketAddrs) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, text: &str) -> String {
    let mut room = [0; 65_536];
    socket.send(text.as_bytes()).unwrap();
    let length = socket.recv(&mut room).unwrap();
    String::from_utf8(room[..length].to_vec()).unwrap()
}

#[test]
fn flows_stay_with_their_endpoint_and_are_spread_by_weight() {
    let (a, b, port) = (Datagrams::start("a"), Datagrams::start("b"), free_port());
    let front = front(ListenerProtocol::Udp, port, &[("a", 2), ("b", 1), ("c", 0)]);
    let services = [("a", &[a.address][..]), ("b", &[b.address])];
    let proxy = TestProxy::start(world(front, &services));
    assert_eq!(proxy.problems(), Vec::<String>::new());
    let clients: Vec<_> = (0..6).map(|_| asking((Ipv4Addr::LOCALHOST, port))).collect();
    let mut seen = Vec::new();
    for client in &clients {
        seen.push(ask(client, "1"));
    }
    assert_eq!(seen.iter().filter(|answer| *answer == "a1").count(), 4, "{seen:?}");
    assert_eq!(seen.iter().filter(|answer| *answer == "b1").count(), 2, "{seen:?}");
    for (client, before) in clients.iter().zip(&seen) {
        assert_eq!(ask(client, "2")[..1], before[..1]);
    }
    let long = "x".repeat(9_000);
    assert_eq!(ask(&clients[0], &long).len(), 9_001);
    let stats = proxy.stats();
    assert_eq!((stats.udp_flows, stats.udp_flows_open), (6, 6));
    assert_eq!(
        (stats.datagrams_received, stats.datagrams_sent, stats.datagrams_dropped),
        (13, 13, 0)
    );
    proxy.update(World::default());
    assert_eq!(proxy.stats().datagrams_received, 13);
    a.stop();
    b.stop();
}

#[test]
fn a_flow_moves_when_its_endpoint_dies_or_leaves() {
    let (a, b, port) = (Datagrams::start("a"), Datagrams::start("b"), free_port());
    let front = front(ListenerProtocol::Udp, port, &[("a", 1)]);
    let both = world(front.clone(), &[("a", &[a.address, b.address])]);
    let proxy = TestProxy::start(both.clone());
    let client = asking((Ipv4Addr::LOCALHOST, port));
    assert_eq!(ask(&client, "1"), "a1");
    proxy.update(both);
    assert_eq!(ask(&client, "2"), "a2", "other tables, the same endpoint");
    proxy.update(world(front.clone(), &[("a", &[b.address])]));
    assert_eq!(ask(&client, "3"), "b3");
    b.stop();
    proxy.update(world(front, &[("a", &[nobody(), a.address])]));
    client.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    // The first datagram finds out that nobody is there, and is lost.
    let answered = (0..20).find_map(|_| {
        client.send(b"4").unwrap();
        let mut room = [0; 16];
        client.recv(&mut room).ok().map(|length| room[..length].to_vec())
    });
    assert_eq!(answered.unwrap(), b"a4");
    a.stop();
}

/// Where nobody is told when nothing answers, and what has arrived there.
fn deaf() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    socket
}

/// The flows that the proxy may have: an eighth of the descriptors, 4,096 at most.
fn most_flows() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap_or(u64::MAX);
    (hard / 8).min(4096)
}

#[test]
fn forged_sources_displace_one_another_and_not_who_was_answered() {
    const FORGED: u64 = 6000;
    let (a, port) = (Datagrams::start("a"), free_port());
    let silent = deaf();
    let first = front(ListenerProtocol::Udp, port, &[("a", 1)]);
    let second = front(ListenerProtocol::Udp, free_port(), &[("silent", 1)]);
    let silent_port = second.port;
    let mut world =
        world(first, &[("a", &[a.address]), ("silent", &[silent.local_addr().unwrap()])]);
    world.listeners.push(second);
    let proxy = TestProxy::start(world);
    let good: Vec<_> = (0..8).map(|_| asking((Ipv4Addr::LOCALHOST, port))).collect();
    for client in &good {
        assert_eq!(ask(client, "1"), "a1");
    }
    let begun = proxy.stats().udp_flows;
    // All of 127.0.0.0/8 is this machine: a thousand sources, each with a few ports.
    for number in 0..FORGED {
        let source = Ipv4Addr::new(127, 1, (number % 1000 / 250) as u8, (number % 250 + 1) as u8);
        // A port that no other flow of the source has.
        let socket = UdpSocket::bind((source, 7000 + (number / 1000) as u16)).unwrap();
        socket.send_to(b"?", (Ipv4Addr::LOCALHOST, silent_port)).unwrap();
        if number % 16 == 15 {
            proxy.ask(|| ());
        }
    }
    for client in &good {
        assert_eq!(ask(client, "2"), "a2");
    }
    let stats = proxy.stats();
    assert_eq!(
        stats.udp_flows,
        begun + FORGED,
        "each was let in, and the eight are what they were"
    );
    assert_eq!((stats.udp_flows_dismissed, stats.datagrams_dropped), (0, 0));
    let most = stats.udp_flows - stats.udp_flows_displaced;
    assert_eq!(most, most_flows());
    a.stop();
}

#[test]
fn one_source_has_a_share_of_the_flows() {
    let (a, port) = (Datagrams::start("a"), free_port());
    let front = front(ListenerProtocol::Udp, port, &[("a", 1)]);
    let proxy = TestProxy::start(world(front, &[("a", &[a.address])]));
    let other = UdpSocket::bind(("127.0.0.9", 0)).unwrap();
    other.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    other.set_read_timeout(Some(WATCHDOG)).unwrap();
    assert_eq!(ask(&other, "1"), "a1");
    // A resolver asks from a new port each time; the sockets are kept, so that none is used twice.
    let (most, mut clients) = (most_flows() / 4, Vec::new());
    for number in 0..most + 50 {
        let client = asking((Ipv4Addr::LOCALHOST, port));
        assert_eq!(ask(&client, "?"), "a?", "{number}");
        clients.push(client);
    }
    let stats = proxy.stats();
    assert_eq!((stats.udp_flows, stats.udp_flows_dismissed), (1 + most + 50, 50));
    assert_eq!(ask(&other, "2"), "a2");
    assert_eq!(proxy.stats().udp_flows, 1 + most + 50, "the other's is what it was");
    a.stop();
}

#[test]
fn many_datagrams_pass_in_order_whatever_their_size() {
    let (a, port) = (Datagrams::start(""), free_port());
    let front = front(ListenerProtocol::Udp, port, &[("a", 1)]);
    let proxy = TestProxy::start(world(front, &[("a", &[a.address])]));
    let client = asking((Ipv4Addr::LOCALHOST, port));
    let text = |number: usize| format!("{number} {}", "x".repeat(number * 37 % 9000));
    for round in 0..20 {
        // So few that no socket on the way is too small for them.
        let numbers = round * 12..(round + 1) * 12;
        for number in numbers.clone() {
            client.send(text(number).as_bytes()).unwrap();
        }
        let mut room = [0; 65_536];
        for number in numbers {
            let length = client.recv(&mut room).unwrap();
            assert_eq!(String::from_utf8_lossy(&room[..length]), text(number));
        }
    }
    let stats = proxy.stats();
    assert_eq!((stats.datagrams_received, stats.datagrams_sent, stats.udp_flows), (240, 240, 1));
    // The listener's end is that of its flows.
    proxy.update(World::default());
    proxy.settle();
    assert_eq!(proxy.stats().udp_flows_open, 0);
    a.stop();
}

#[test]
fn other_weights_and_other_endpoints_move_no_flow() {
    let (a, b, port) = (Datagrams::start("a"), Datagrams::start("b"), free_port());
    let services = [("a", &[a.address][..]), ("b", &[b.address])];
    let even = front(ListenerProtocol::Udp, port, &[("a", 1), ("b", 1)]);
    let proxy = TestProxy::start(world(even, &services));
    let clients = [asking((Ipv4Addr::LOCALHOST, port)), asking((Ipv4Addr::LOCALHOST, port))];
    let before: Vec<_> = clients.iter().map(|client| ask(client, "1")[..1].to_owned()).collect();
    assert_ne!(before[0], before[1]);
    let tilted = front(ListenerProtocol::Udp, port, &[("a", 1000), ("b", 1)]);
    proxy.update(world(tilted, &[("a", &[nobody(), a.address][..]), ("b", &[b.address])]));
    for (client, before) in clients.iter().zip(&before) {
        assert_eq!(ask(client, "2"), format!("{before}2"));
    }
    // Without b its flow moves, and the other stays.
    let one = front(ListenerProtocol::Udp, port, &[("a", 1)]);
    proxy.update(world(one, &services));
    for client in &clients {
        assert_eq!(ask(client, "3"), "a3");
    }
    assert_eq!(proxy.stats().udp_flows, 3);
    a.stop();
    b.stop();
}

/// An address at which nobody is.
fn nobody() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

#[test]
fn without_an_endpoint_datagrams_are_dropped() {
    let port = free_port();
    let front = front(ListenerProtocol::Udp, port, &[("-", 1), ("none", 1)]);
    let proxy = TestProxy::start(world(front, &[("none", &[])]));
    let client = asking((Ipv4Addr::LOCALHOST, port));
    client.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    for _ in 0..4 {
        client.send(b"x").unwrap();
    }
    assert_eq!(client.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let stats = proxy.stats();
    assert_eq!((stats.datagrams_received, stats.datagrams_dropped), (4, 4));
    assert_eq!(stats.udp_flows_open, 0);
}

#[test]
fn with_hooks_each_virtual_address_has_a_socket() {
    let (a, port) = (Datagrams::start("a"), free_port());
    let addresses = vec![[127, 0, 0, 77].into(), [127, 0, 0, 78].into()];
    let front = Front { addresses, ..front(ListenerProtocol::Udp, port, &[("a", 1)]) };
    let proxy = TestProxy::with_config(Config::default, world(front, &[("a", &[a.address])]));
    assert_eq!(proxy.problems(), Vec::<String>::new());
    for last in [77, 78] {
        assert_eq!(ask(&asking((Ipv4Addr::new(127, 0, 0, last), port)), "x"), "ax");
    }
    // Only there.
    let other = asking((Ipv4Addr::LOCALHOST, port));
    other.send(b"x").unwrap();
    assert_eq!(other.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    a.stop();
}
