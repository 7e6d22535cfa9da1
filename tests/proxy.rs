//! The proxy end to end on loopback: connections, bodies, upgrades, balancing, and what goes wrong.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilus::api::config::Config;
use support::backend::{Backend, header};
use support::client::Client;
use support::{ActionSpec, EndpointSpec, Front, RouteSpec, TestProxy, World, free_port};

const BIG: usize = 64 << 20;

fn steady(size: usize) -> impl Iterator<Item = Vec<u8>> {
    const PIECE: usize = 64 * 1024;
    (0..size / PIECE).map(|i| vec![i as u8; PIECE])
}

/// A hash that depends on every byte and its place.
fn digest(state: &mut u64, bytes: &[u8]) {
    for byte in bytes {
        *state = (*state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

fn expected_digest() -> u64 {
    let mut state = 0;
    steady(BIG).for_each(|piece| digest(&mut state, &piece));
    state
}

#[test]
fn one_upstream_connection_carries_many_requests_of_many_clients() {
    let backend = Backend::answering("hello");
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    for _ in 0..5 {
        let mut client = Client::connect(port);
        for _ in 0..10 {
            let response = client.get("/");
            assert_eq!(response.text(), "hello");
            assert_eq!(response.header("server"), Some("envoy"));
        }
    }
    assert_eq!(backend.connections(), 1);
    let stats = proxy.stats();
    assert_eq!((stats.requests, stats.responses_2xx), (50, 50));
    assert_eq!((stats.upstream_connects, stats.upstream_reuses), (1, 49));
}

#[test]
fn forwarded_headers_name_the_client() {
    let backend = Backend::start(|mut peer| {
        let (head, _) = peer.request().unwrap();
        peer.answer(&String::from_utf8(head).unwrap());
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let response = Client::connect(port).get("/");
    let head = response.body.as_slice();
    assert_eq!(header(head, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(header(head, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(head, "x-request-id").map(str::len), Some(36));
}

#[test]
fn a_kept_connection_that_the_endpoint_closed_is_not_noticed_by_clients() {
    // Every connection answers once and then closes without having said so.
    let backend = Backend::start(|mut peer| {
        peer.request().unwrap();
        peer.answer("once");
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "once");
    }
    assert_eq!(backend.connections(), 20);
    assert_eq!(proxy.stats().responses_5xx, 0);
}

#[test]
fn only_harmless_requests_are_sent_twice() {
    // The second request on a connection is read and never answered.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let backend = Backend::start(move |mut peer| {
        peer.request().unwrap();
        peer.answer("first");
        if let Some((head, _)) = peer.request() {
            record.lock().unwrap().push(String::from_utf8(head).unwrap());
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    assert_eq!(client.get("/").text(), "first");
    assert_eq!(client.get("/again").text(), "first", "a GET is sent again");
    client.send("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.response().status(), 503, "a POST is not");
    assert_eq!(proxy.stats().upstream_retries, 1);
    let seen = seen.lock().unwrap();
    assert!(seen[0].starts_with("GET /again") && seen[1].starts_with("POST /once"), "{seen:?}");
    assert_eq!(seen.len(), 2);
}

#[test]
fn endpoints_take_turns_and_backends_get_their_weight() {
    let names = ["a", "b", "c"];
    let backends = names.map(Backend::answering);
    let port = free_port();
    let mut world = World::default();
    let mut front = Front::http(port, vec![RouteSpec::all("one")]);
    let action = ActionSpec::Forward(vec![("one".into(), 3), ("two".into(), 1), ("off".into(), 0)]);
    front.routes.push(RouteSpec { action, ..RouteSpec::to("weights", "", "") });
    world.listeners.push(front);
    world.serve("one", &[backends[0].address, backends[1].address]);
    world.serve("two", &[backends[2].address]);
    world.serve("off", &[]);
    let _proxy = TestProxy::start(world);
    let mut client = Client::connect(port);
    let turns: String = (0..6).map(|_| client.get("/").text().to_owned()).collect();
    assert_eq!(turns, "ababab");
    let mut counts = [0; 3];
    for _ in 0..40 {
        client.send("GET / HTTP/1.1\r\nHost: weights\r\n\r\n");
        let by = client.response().text().to_owned();
        counts[names.iter().position(|name| *name == by).unwrap()] += 1;
    }
    assert_eq!(counts, [15, 15, 10]);
}

#[test]
fn terminating_endpoints_serve_only_if_there_is_no_other() {
    let (ready, leaving) = (Backend::answering("ready"), Backend::answering("leaving"));
    let spec = |backend: &Backend, ready| EndpointSpec {
        address: backend.address,
        ready,
        terminating: !ready,
    };
    let port = free_port();
    let mut world = World::simple(port, &[]);
    world.services.insert("web".into(), vec![spec(&leaving, false), spec(&ready, true)]);
    let proxy = TestProxy::start(world.clone());
    let mut client = Client::connect(port);
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "ready");
    }
    world.services.insert("web".into(), vec![spec(&leaving, false)]);
    proxy.update(world.clone());
    assert_eq!(client.get("/").text(), "leaving");
    world.serve("web", &[]);
    proxy.update(world);
    let response = client.get("/");
    assert_eq!((response.status(), response.text()), (503, "no healthy upstream"));
    assert_eq!(client.get("/").status(), 503, "the connection persists");
}

#[test]
fn the_next_endpoint_is_tried_if_one_cannot_be_connected_to() {
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let backend = Backend::answering("alive");
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[dead, backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..6 {
        assert_eq!(client.get("/").text(), "alive");
    }
    assert!(proxy.stats().upstream_connect_failures > 0);
    proxy.update(World::simple(port, &[dead]));
    assert_eq!(client.get("/").status(), 503);
}

#[test]
fn own_answers_follow_the_route() {
    let port = free_port();
    let mut world = World::simple(port, &[]);
    let route = |host: &str, action| RouteSpec { action, ..RouteSpec::to(host, "", "") };
    world.listeners[0].routes = vec![
        route("tls.example", ActionSpec::RedirectHttps(443)),
        route("odd.example", ActionSpec::RedirectHttps(8443)),
        route("broken.example", ActionSpec::Refuse(500, "its Secret is missing".into())),
        route("a", ActionSpec::Refuse(418, "teapot".into())),
    ];
    let _proxy = TestProxy::start(world);
    let mut client = Client::connect(port);
    let mut ask = |host: &str| {
        client.send(format!("GET /p?q=1 HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response()
    };
    let redirected = ask("TLS.example");
    assert_eq!(redirected.status(), 301);
    assert_eq!(redirected.header("location"), Some("https://TLS.example/p?q=1"));
    assert_eq!(ask("odd.example").header("location"), Some("https://odd.example:8443/p?q=1"));
    let refused = ask("broken.example");
    assert_eq!((refused.status(), refused.text()), (500, "its Secret is missing"));
    let unknown = ask("nobody.example");
    assert_eq!((unknown.status(), unknown.text()), (404, ""));
}

#[test]
fn big_downloads_do_not_pile_up_before_a_slow_client() {
    let backend = Backend::start(|mut peer| {
        let (head, _) = peer.request().unwrap();
        let chunked = head.starts_with(b"GET /chunked");
        if chunked {
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        } else {
            peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n"));
        }
        for piece in steady(BIG) {
            let stream = peer.stream.get_mut();
            let size = if chunked { format!("{:x}\r\n", piece.len()) } else { String::new() };
            let end = if chunked { "\r\n" } else { "" };
            let sent = stream
                .write_all(size.as_bytes())
                .and_then(|()| stream.write_all(&piece))
                .and_then(|()| stream.write_all(end.as_bytes()));
            if sent.is_err() {
                return;
            }
        }
        if chunked {
            peer.say("0\r\n\r\n");
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    for path in ["/length", "/chunked"] {
        let mut client = Client::connect(port);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head().unwrap();
        // Nobody reads now: the sockets fill up, and then the proxy must stop.
        for _ in 0..50 {
            proxy.settle();
        }
        assert!(proxy.ask(pilus::io::buffer::lent) <= 4, "buffers while the client is slow");
        let mut response =
            support::client::Response { head, body: Vec::with_capacity(BIG), whole: false };
        client.read_body(&mut response);
        let mut state = 0;
        digest(&mut state, &response.body);
        assert!(response.whole && response.body.len() == BIG);
        assert_eq!(state, expected_digest(), "{path}");
    }
    assert_eq!(proxy.ask(pilus::io::buffer::lent), 0, "idle connections hold no buffer");
}

#[test]
fn big_uploads_do_not_pile_up_before_a_slow_endpoint() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |mut peer| {
        let head = peer.head().unwrap();
        assert_eq!(header(&head, "content-length"), Some(BIG.to_string().as_str()));
        wait.lock().unwrap().recv().unwrap();
        let mut state = 0;
        let mut left = BIG;
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            let got = peer.stream.read(&mut piece).unwrap();
            assert!(got > 0, "the upload was cut off");
            digest(&mut state, &piece[..got]);
            left -= got;
        }
        peer.answer(&state.to_string());
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BIG}\r\n\r\n"));
    let mut stream = client.stream.get_ref().try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        steady(BIG).for_each(|piece| stream.write_all(&piece).unwrap());
    });
    for _ in 0..50 {
        proxy.settle();
    }
    assert!(proxy.ask(pilus::io::buffer::lent) <= 4, "buffers while the endpoint is slow");
    go.send(()).unwrap();
    assert_eq!(client.response().text(), expected_digest().to_string());
    writer.join().unwrap();
}

#[test]
fn an_early_response_reaches_the_client_and_the_connection_is_not_reused() {
    let backend = Backend::start(|mut peer| {
        peer.head().unwrap();
        peer.say(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        );
        peer.rest();
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart");
    let response = client.response();
    assert_eq!((response.status(), response.text()), (413, "big"));
    client.until_closed();
    assert_eq!(proxy.stats().upstream_idle, 0);
}

#[test]
fn a_client_that_asks_is_told_to_continue() {
    let backend = Backend::start(|mut peer| {
        let (head, body) = peer.request().unwrap();
        assert_eq!(header(&head, "expect"), None);
        peer.say("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        peer.answer(std::str::from_utf8(&body).unwrap());
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    assert_eq!(client.response().text(), "body");
}

#[test]
fn an_upgrade_becomes_a_tunnel_with_half_close_only_after_101() {
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.head() {
            if head.starts_with(b"GET /no") {
                peer.answer("not here");
                continue;
            }
            peer.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n");
            peer.say("Upgrade: websocket\r\n\r\nwelcome");
            let said = peer.rest();
            // The client has closed its side; this one may still speak.
            let _ = peer.stream.get_mut().write_all(&said);
            return;
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let upgrade = "HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = Client::connect(port);
    client.send(format!("GET /no {upgrade}"));
    assert_eq!(client.response().text(), "not here");
    assert_eq!(client.get("/no").text(), "not here", "still HTTP");
    assert_eq!(proxy.stats().tunnels, 0);
    client.send(format!("GET /yes {upgrade}early"));
    assert_eq!(client.head().unwrap().get(..12), Some("HTTP/1.1 101"));
    let mut welcome = [0; 7];
    client.stream.read_exact(&mut welcome).unwrap();
    client.send(" and late");
    client.end();
    assert_eq!(client.until_closed(), b"early and late");
    assert_eq!(proxy.stats().tunnels, 1);
}

#[test]
fn a_request_timeout_is_answered_with_504() {
    let backend = Backend::start(|mut peer| {
        peer.request().unwrap();
        peer.rest();
    });
    let port = free_port();
    let mut world = World::simple(port, &[backend.address]);
    world.listeners[0].routes[0].timeout = Some(Duration::from_millis(20));
    let proxy = TestProxy::start(world);
    let mut client = Client::connect(port);
    assert_eq!(client.get("/").status(), 504);
    assert_eq!(client.get("/").status(), 504, "the client's connection persists");
    assert_eq!(proxy.stats().upstream_timeouts, 2);
}

#[test]
fn no_request_fails_while_the_tables_are_replaced() {
    let backends = ["a", "b"].map(Backend::answering);
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backends[0].address]));
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (done, served) = (Arc::clone(&done), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").status(), 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for swap in 0..50 {
        let before = served.load(Ordering::SeqCst);
        proxy.update(World::simple(port, &[backends[swap % 2].address]));
        while served.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
    }
    done.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let stats = proxy.stats();
    assert_eq!((stats.responses_2xx, stats.responses_5xx), (stats.requests, 0));
}

#[test]
fn ports_of_the_node_find_their_listener() {
    let (shared, own) = (Backend::answering("shared"), Backend::answering("own"));
    let (port, other) = (free_port(), free_port());
    let mut world = World::default();
    world.serve("shared", &[shared.address]);
    world.serve("own", &[own.address]);
    world.listeners.push(Front::http(port, vec![RouteSpec::all("shared")]));
    let dedicated = |name: &str| Front {
        service: format!("default/{name}"),
        shared: false,
        ..Front::http(port, vec![RouteSpec::all("own")])
    };
    // This one's address is on the node.
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    world.listeners.push(Front { addresses: vec![address], ..dedicated("first") });
    world.listeners.push(Front { host_port: Some(other), ..dedicated("second") });
    let proxy = TestProxy::start(world.clone());
    assert_eq!(Client::connect(port).get("/").text(), "shared");
    assert_eq!(Client::to((address, port).into()).get("/").text(), "own");
    assert_eq!(Client::connect(other).get("/").text(), "own");
    assert_eq!(proxy.problems(), Vec::<String>::new());
    // Two that are not shared want the same port.
    world.listeners.push(Front { host_port: Some(other), ..dedicated("third") });
    proxy.update(world);
    let problems = proxy.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("default/second, default/third"), "{problems:?}");
    assert_eq!(Client::connect(other).until_closed(), b"");
}

#[test]
fn a_port_in_use_is_named_and_taken_later_and_the_others_work() {
    let holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let taken = holder.local_addr().unwrap().port();
    let backend = Backend::answering("ok");
    let port = free_port();
    let mut world = World::simple(port, &[backend.address]);
    world.listeners.push(Front::http(taken, vec![RouteSpec::all("web")]));
    let proxy = TestProxy::start(world);
    let problems = proxy.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let named = [format!("0.0.0.0:{taken}"), "pilus-ingress".into(), "os error 98".into()];
    assert!(named.iter().all(|part| problems[0].contains(part)), "{problems:?}");
    assert_eq!(Client::connect(port).get("/").text(), "ok");
    drop(holder);
    while !proxy.problems().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(Client::connect(taken).get("/").text(), "ok");
}

#[test]
fn steered_connections_are_served_by_their_local_address() {
    let proxy = TestProxy::with_config(Config::default, World::default());
    let sockets = proxy.sockets().expect("the sockets for the eBPF driver");
    let address = listening_address(sockets.tcp4.unwrap().0.as_raw_fd());
    assert!(address.ip().is_loopback() && sockets.tcp6.is_some());
    // Nothing listens there yet.
    assert_eq!(Client::to(address).until_closed(), b"");
    let backend = Backend::answering("steered");
    let mut world = World::simple(address.port(), &[backend.address]);
    world.listeners[0].addresses.push(address.ip());
    proxy.update(world);
    let mut client = Client::to(address);
    assert_eq!(client.get("/").text(), "steered");
    // The listener goes away: so do its idle connections.
    proxy.update(World::default());
    assert_eq!(client.until_closed(), b"");
    assert_eq!(proxy.stats().connections_unclaimed, 1);
}

fn listening_address(fd: i32) -> SocketAddr {
    let text = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let inode = text.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = table.lines().map(fields).find(|line| line[9] == inode).unwrap();
    let (ip, port) = line[1].split_once(':').unwrap();
    let ip = u32::from_str_radix(ip, 16).unwrap().to_ne_bytes();
    SocketAddr::from((Ipv4Addr::from(ip), u16::from_str_radix(port, 16).unwrap()))
}

#[test]
fn shutdown_finishes_what_is_in_flight_and_closes_the_rest() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |mut peer| {
        while let Some((head, _)) = peer.request() {
            if head.starts_with(b"GET /slow") {
                wait.lock().unwrap().recv().unwrap();
            }
            peer.answer("done");
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut idle = Client::connect(port);
    assert_eq!(idle.get("/").text(), "done");
    let mut busy = Client::connect(port);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    while proxy.stats().requests < 2 {
        std::thread::yield_now();
    }
    proxy.shutdown();
    assert_eq!(idle.until_closed(), b"");
    assert!(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    assert!(!proxy.is_released(), "a request is in flight");
    go.send(()).unwrap();
    let response = busy.response();
    assert_eq!(response.text(), "done");
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(busy.until_closed(), b"");
    drop(busy);
    while !proxy.is_released() {
        std::thread::yield_now();
    }
}
