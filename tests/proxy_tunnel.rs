//! Tunnels that the kernel carries (splice): much both ways, ends, resets, slow readers, and when pipes are not to be had.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pilus::api::route::{Action, Backend as To, Listener, ListenerProtocol, Route};
use pilus::io::{buffer, splice};
use support::backend::{Backend, WATCHDOG};
use support::client::Client;
use support::{Front, Shape, TestProxy, World, free_port, service_port};

const GIB: u64 = 1 << 30;
/// Enough to fill what sockets hold (`net.ipv4.tcp_wmem`, `tcp_rmem`), many times over.
const MUCH: u64 = 64 << 20;

/// A TCP listener on the port, before the endpoint.
fn world(port: u16, endpoint: SocketAddr) -> World {
    let shape: Shape<Listener> = Arc::new(move |listener| {
        listener.protocol = ListenerProtocol::Tcp;
        let action = Action::Forward(vec![To::new(service_port("web"), 1)]);
        listener.forward = Some(Arc::new(Route::new(action)));
    });
    let front = Front { shape: Some(shape), ..Front::http(port, Vec::new()) };
    let mut world = World { listeners: vec![front], ..World::default() };
    world.serve("web", &[endpoint]);
    world
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.set_write_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// Bytes of which no piece of any usual size repeats: what is lost, doubled or moved shows.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = (1 << 20) - 3;
    const PIECE: usize = 300_000;

    fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let mut bytes: Vec<u8> = (0..Self::PERIOD).map(|_| next()).collect();
        bytes.extend_from_within(..Self::PIECE);
        Self(bytes)
    }

    /// The bytes from `at` on, so many that a piece is in it.
    fn at(&self, at: u64) -> &[u8] {
        &self.0[(at % Self::PERIOD as u64) as usize..]
    }

    fn send(&self, mut to: &TcpStream, length: u64) {
        let mut sent = 0;
        while sent < length {
            let piece = (length - sent).min(Self::PIECE as u64) as usize;
            to.write_all(&self.at(sent)[..piece]).unwrap();
            sent += piece as u64;
        }
    }

    /// Takes what comes until the end, or an error; returns how much it was.
    fn receive(&self, from: &mut impl Read) -> std::io::Result<u64> {
        let mut room = vec![0; Self::PIECE];
        let mut received = 0;
        loop {
            let got = from.read(&mut room)?;
            if got == 0 {
                return Ok(received);
            }
            assert!(room[..got] == self.at(received)[..got], "other bytes from {received} on");
            received += got as u64;
        }
    }
}

/// Writes until nobody takes any more; returns how much that was.
fn fill(mut stream: &TcpStream, pattern: &Pattern) -> u64 {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while let Ok(taken) = stream.write(&pattern.at(sent)[..Pattern::PIECE]) {
        sent += taken as u64;
    }
    sent
}

fn sysctl_most(name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
    text.split_whitespace().last().unwrap().parse().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until the proxy has no client any more; then it must hold nothing.
fn assert_nothing_is_held(proxy: &TestProxy) {
    while proxy.stats().connections_open > 0 {
        std::thread::yield_now();
    }
    let ((open, pooled), lent) = proxy.ask(|| (splice::open(), buffer::lent()));
    assert_eq!((open, lent), (pooled, 0), "pipes and buffers");
    assert!(pooled <= 32, "{pooled}");
}

#[test]
fn a_gibibyte_passes_each_way_at_once_without_a_copy() {
    let there = Arc::new(Pattern::new(1));
    let back = Arc::new(Pattern::new(2));
    let backend = Backend::start({
        let (there, back) = (Arc::clone(&there), Arc::clone(&back));
        move |mut peer| {
            let out = peer.stream.get_ref().try_clone().unwrap();
            let back = Arc::clone(&back);
            let writer = std::thread::spawn(move || {
                back.send(&out, GIB);
                out.shutdown(Shutdown::Write).unwrap();
            });
            assert_eq!(there.receive(&mut peer.stream).unwrap(), GIB);
            writer.join().unwrap();
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    let mut client = connect(port);
    let writer = std::thread::spawn({
        let out = client.try_clone().unwrap();
        move || {
            there.send(&out, GIB);
            out.shutdown(Shutdown::Write).unwrap();
        }
    });
    assert_eq!(back.receive(&mut client).unwrap(), GIB);
    writer.join().unwrap();
    drop(client);
    assert_nothing_is_held(&proxy);
    let stats = proxy.stats();
    assert_eq!(stats.tunnel_bytes, 2 * GIB);
    assert!(stats.tunnel_bytes_spliced > GIB, "{}", stats.tunnel_bytes_spliced);
    assert_eq!(stats.pipes_refused, 0);
}

#[test]
fn little_is_copied_and_an_idle_tunnel_holds_nothing() {
    let backend = Backend::start(|mut peer| {
        let mut room = [0; 4096];
        while let Ok(got @ 1..) = peer.stream.read(&mut room) {
            let _ = peer.stream.get_mut().write_all(&room[..got]);
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    let mut client = connect(port);
    let mut room = [0; 4096];
    for length in [1, 100, 4096, 1] {
        client.write_all(&room[..length]).unwrap();
        client.read_exact(&mut room[..length]).unwrap();
    }
    assert_eq!(proxy.ask(|| (splice::open(), buffer::lent())), ((0, 0), 0));
    assert_eq!(proxy.stats().tunnel_bytes, 2 * 4198);
    assert_eq!(proxy.stats().tunnel_bytes_spliced, 0);
}

#[test]
fn an_end_comes_after_what_is_in_the_pipe_and_the_other_way_stays_open() {
    let pattern = Arc::new(Pattern::new(3));
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let backend = Backend::start({
        let pattern = Arc::clone(&pattern);
        move |mut peer| {
            let sent: u64 = wait.lock().unwrap().recv().unwrap();
            assert_eq!(pattern.receive(&mut peer.stream).unwrap(), sent);
            peer.say("all of it");
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    let mut client = connect(port);
    let sent = fill(&client, &pattern);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(proxy.stats().tunnel_bytes_spliced > 0);
    assert_eq!(proxy.ask(splice::open), (1, 0), "bytes are in a pipe");
    go.send(sent).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "all of it");
    drop(client);
    assert_nothing_is_held(&proxy);
}

#[test]
fn for_a_slow_reader_no_more_waits_than_a_pipe_and_the_sockets_hold() {
    let pattern = Arc::new(Pattern::new(4));
    let backend = Backend::start({
        let pattern = Arc::clone(&pattern);
        move |peer| {
            pattern.send(peer.stream.get_ref(), MUCH);
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    let mut client = connect(port);
    let mut taken = 0;
    // Until it stands still.
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = proxy.stats().tunnel_bytes;
        if now > 0 && now == taken {
            break;
        }
        taken = now;
    }
    let room = sysctl_most("tcp_wmem") + sysctl_most("tcp_rmem") + splice::PIPE_BYTES as u64;
    assert!(taken < MUCH && taken <= room, "{taken} bytes are on their way, {room} fit");
    assert_eq!(proxy.ask(|| (splice::open().0, buffer::lent())), (1, 0));
    assert_eq!(pattern.receive(&mut client).unwrap(), MUCH);
    assert_eq!(proxy.stats().tunnel_bytes, MUCH);
    drop(client);
    assert_nothing_is_held(&proxy);
}

#[test]
fn a_client_that_resets_takes_its_endpoint_along_even_while_that_is_stuck() {
    let pattern = Pattern::new(5);
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |mut peer| {
        // The client will leave this unread, so that its end is a reset.
        peer.say("unread");
        wait.lock().unwrap().recv().unwrap();
        // The reset is there before anything was read.
        let waited = (0..2000).find(|_| {
            std::thread::sleep(Duration::from_millis(10));
            peer.stream.get_ref().take_error().unwrap().is_some()
        });
        tell.send(waited.is_some()).unwrap();
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    let client = connect(port);
    assert_eq!(client.peek(&mut [0]).unwrap(), 1);
    fill(&client, &pattern);
    assert_eq!(proxy.ask(splice::open), (1, 0));
    drop(client);
    go.send(()).unwrap();
    assert!(told.recv().unwrap(), "the endpoint was not told");
    assert_nothing_is_held(&proxy);
    assert_eq!(proxy.ask(splice::open), (0, 0), "a pipe with something in it is not used again");
}

#[test]
fn an_endpoint_that_resets_does_so_to_its_client() {
    let pattern = Arc::new(Pattern::new(6));
    let (tell, told) = mpsc::channel();
    let backend = Backend::start({
        let pattern = Arc::clone(&pattern);
        move |peer| {
            assert_eq!(peer.stream.get_ref().peek(&mut [0]).unwrap(), 1);
            tell.send(fill(peer.stream.get_ref(), &pattern)).unwrap();
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    let mut client = connect(port);
    client.write_all(b"unread").unwrap();
    let sent = told.recv().unwrap();
    let error = pattern.receive(&mut client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after some of {sent} bytes");
    assert_nothing_is_held(&proxy);
}

/// Sends the pattern both ways, one after the other.
fn exchange(client: &mut TcpStream, pattern: &Pattern, length: u64) {
    pattern.send(client, length);
    let mut room = vec![0; length as usize];
    client.read_exact(&mut room).unwrap();
    assert!(room == pattern.at(0)[..room.len()]);
}

fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let echo = move || {
                let mut room = vec![0; 65_536];
                while let Ok(got @ 1..) = stream.read(&mut room) {
                    if stream.write_all(&room[..got]).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new().stack_size(64 * 1024).spawn(echo).unwrap();
        }
    });
    address
}

#[test]
fn without_pipes_bytes_are_copied() {
    let (port, pattern) = (free_port(), Pattern::new(7));
    let proxy = TestProxy::start(world(port, echo()));
    proxy.ask(|| splice::set_limit(0));
    let mut client = connect(port);
    exchange(&mut client, &pattern, 300_000);
    let stats = proxy.stats();
    assert_eq!((stats.tunnel_bytes, stats.tunnel_bytes_spliced), (600_000, 0));
    assert!(stats.pipes_refused > 0);
    proxy.ask(|| splice::set_limit(u64::MAX));
    exchange(&mut client, &pattern, 300_000);
    exchange(&mut client, &pattern, 300_000);
    assert!(proxy.stats().tunnel_bytes_spliced > 0, "and not for ever");
    drop(client);
    assert_nothing_is_held(&proxy);
}

/// The limit is the whole process's: this test is run in one of its own.
#[test]
fn a_thousand_tunnels_at_the_limit_of_descriptors_go_on() {
    const ALONE: &str = "PILUS_TEST_ALONE";
    const NAME: &str = "a_thousand_tunnels_at_the_limit_of_descriptors_go_on";
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().unwrap();
        let run = Command::new(this).args(["--exact", NAME]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let limit = |descriptors: usize| {
        let pid = std::process::id();
        let arguments = [format!("--pid={pid}"), format!("--nofile={descriptors}:")];
        assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
    };
    let (port, pattern) = (free_port(), Pattern::new(8));
    let proxy = TestProxy::start(world(port, echo()));
    proxy.settle();
    let before = descriptors();
    let mut clients: Vec<_> = (0..1000).map(|_| connect(port)).collect();
    for client in &mut clients {
        exchange(client, &pattern, 1);
    }
    // Numbers below the limit may be free; none above can be had.
    let highest = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = highest.map(|it| it.unwrap().file_name().to_str().unwrap().parse::<usize>());
    let highest = numbers.map(Result::unwrap).max().unwrap();
    assert!(highest > 4000);
    limit(highest + 1);
    let mut holes = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        holes.push(file);
    }
    for client in &mut clients {
        exchange(client, &pattern, 200_000);
    }
    let stats = proxy.stats();
    assert_eq!((stats.tunnels, stats.tunnel_bytes_spliced), (1000, 0));
    assert!(stats.pipes_refused >= 1000, "{}", stats.pipes_refused);
    drop(holes);
    limit(highest + 200);
    for client in &mut clients {
        exchange(client, &pattern, 200_000);
    }
    assert!(proxy.stats().tunnel_bytes_spliced > 0);
    drop(clients);
    assert_nothing_is_held(&proxy);
    let pooled = proxy.ask(splice::open).1;
    // The endpoints' threads close in their own time.
    while descriptors() > before + 2 * pooled {
        std::thread::yield_now();
    }
}

#[test]
fn urgent_data_does_not_stop_a_splice() {
    let pattern = Arc::new(Pattern::new(9));
    let backend = Backend::start({
        let pattern = Arc::clone(&pattern);
        move |mut peer| {
            assert_eq!(pattern.receive(&mut peer.stream).unwrap(), MUCH);
            peer.say("all of it");
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(world(port, backend.address));
    // A peer that can send such a byte, in the middle of what is spliced; it is not a part of the stream.
    let script = "import socket, sys\n\
        s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        data = sys.stdin.buffer.read()\n\
        half = len(data) // 2\n\
        s.sendall(data[:half]); s.send(b'!', socket.MSG_OOB); s.sendall(data[half:])\n\
        s.shutdown(socket.SHUT_WR)\n\
        s.settimeout(20)\n\
        print(s.makefile().read(), end='')\n";
    let mut python = Command::new("python3")
        .args(["-c", script, &port.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let mut sent = 0;
    while sent < MUCH {
        let piece = (MUCH - sent).min(Pattern::PIECE as u64) as usize;
        input.write_all(&pattern.at(sent)[..piece]).unwrap();
        sent += piece as u64;
    }
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all of it");
    assert_eq!(proxy.stats().tunnel_bytes, MUCH + 9);
}

#[test]
fn what_follows_an_upgrade_is_spliced_after_the_early_bytes() {
    let pattern = Arc::new(Pattern::new(10));
    let backend = Backend::start({
        let pattern = Arc::clone(&pattern);
        move |mut peer| {
            peer.head().unwrap();
            peer.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n");
            peer.say("Upgrade: websocket\r\n\r\n");
            let out = peer.stream.get_ref().try_clone().unwrap();
            let echoed = Arc::clone(&pattern);
            let writer = std::thread::spawn(move || {
                echoed.send(&out, MUCH);
                let _ = out.shutdown(Shutdown::Write);
            });
            assert_eq!(pattern.receive(&mut peer.stream).unwrap(), MUCH);
            writer.join().unwrap();
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    // The first bytes of the new protocol come with the request.
    let early = 1000;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send([head.as_bytes(), &pattern.at(0)[..early]].concat());
    assert_eq!(client.head().unwrap().get(..12), Some("HTTP/1.1 101"));
    let writer = std::thread::spawn({
        let (mut out, pattern) =
            (client.stream.get_ref().try_clone().unwrap(), Arc::clone(&pattern));
        move || {
            let mut sent = early as u64;
            while sent < MUCH {
                let piece = (MUCH - sent).min(Pattern::PIECE as u64) as usize;
                out.write_all(&pattern.at(sent)[..piece]).unwrap();
                sent += piece as u64;
            }
            out.shutdown(Shutdown::Write).unwrap();
        }
    });
    assert_eq!(pattern.receive(&mut client.stream).unwrap(), MUCH);
    writer.join().unwrap();
    let stats = proxy.stats();
    assert!(stats.tunnel_bytes_spliced > MUCH / 2, "{}", stats.tunnel_bytes_spliced);
    drop(client);
    assert_nothing_is_held(&proxy);
}
