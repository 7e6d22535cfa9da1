//! Who gets a request: sessions, shares across table swaps, endpoints that come, go, die and fail.
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pilus::api::route::{
    Action, Balance, OutlierDetection, Route, Session, SessionKind, UpstreamSettings,
};
use support::backend::Backend;
use support::client::Client;
use support::{ActionSpec, EndpointSpec, Front, RouteSpec, TestProxy, World, free_port};

fn world(
    port: u16,
    endpoints: &[SocketAddr],
    shape: impl Fn(&mut Route) + Send + Sync + 'static,
) -> World {
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web").with(shape)]));
    world.serve("web", endpoints);
    world
}

fn settings(
    of: impl Fn() -> UpstreamSettings + Send + Sync + 'static,
) -> impl Fn(&mut Route) + Send + Sync {
    move |route| {
        let Action::Forward(backends) = &mut route.action else { panic!() };
        backends.iter_mut().for_each(|backend| backend.settings = Arc::new(of()));
    }
}

fn session(kind: SessionKind) -> impl Fn(&mut Route) + Send + Sync {
    move |route| {
        let absolute_timeout = Some(Duration::from_secs(3600));
        route.session = Some(Session { name: "stay".into(), kind, absolute_timeout });
    }
}

fn get(client: &mut Client, header: &str) -> (String, Option<String>) {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n"));
    let response = client.response();
    let set = response.header("set-cookie").or(response.header("stay"));
    (response.text().to_owned(), set.map(str::to_owned))
}

#[test]
fn a_cookie_leads_back_to_its_endpoint_while_it_is_there() {
    let backends = ["a", "b", "c"].map(Backend::answering);
    let all = backends.each_ref().map(|backend| backend.address);
    let port = free_port();
    let proxy = TestProxy::start(world(port, &all, session(SessionKind::PermanentCookie)));
    // Another node: the same rule, the same endpoints.
    let other_port = free_port();
    let _other = TestProxy::start(world(other_port, &all, session(SessionKind::PermanentCookie)));
    let mut client = Client::connect(port);
    let (first, set) = get(&mut client, "");
    let set = set.unwrap();
    let (cookie, attributes) = set.split_once(';').unwrap();
    assert_eq!(attributes, " Path=/; HttpOnly; Max-Age=3600");
    let value = cookie.strip_prefix("stay=").unwrap();
    assert_eq!(value.len(), 48);
    let carried = format!("Cookie: x=1; {cookie}\r\nCookie: y\r\n");
    for _ in 0..10 {
        assert_eq!(get(&mut client, &carried), (first.clone(), None));
    }
    assert_eq!(get(&mut Client::connect(other_port), &carried).0, first);
    // Values that somebody has changed are none.
    let forged = format!("{}{}", if value.starts_with('0') { '1' } else { '0' }, &value[1..]);
    for bad in [&forged, "", "x", &value[1..], &value.replace(|_: char| true, "z")] {
        let (_, set) = get(&mut client, &format!("Cookie: stay={bad}\r\n"));
        assert!(set.is_some(), "{bad}");
    }
    let left: Vec<_> = backends
        .iter()
        .zip(["a", "b", "c"])
        .filter(|(_, name)| *name != first)
        .map(|(b, _)| b.address)
        .collect();
    proxy.update(world(port, &left, session(SessionKind::PermanentCookie)));
    let (second, set) = get(&mut client, &carried);
    assert!(second != first && set.is_some(), "its endpoint is gone");
}

#[test]
fn a_session_in_a_header_stays_with_its_backend_too() {
    let backends = ["a", "b"].map(Backend::answering);
    let port = free_port();
    let mut world = World::default();
    let mut route = RouteSpec::all("one").with(session(SessionKind::Header));
    route.action = ActionSpec::Forward(vec![("one".to_owned(), 1), ("two".to_owned(), 1)]);
    world.listeners.push(Front::http(port, vec![route]));
    world.serve("one", &[backends[0].address]);
    world.serve("two", &[backends[1].address]);
    let _proxy = TestProxy::start(world);
    let mut client = Client::connect(port);
    for _ in 0..2 {
        let (first, set) = get(&mut client, "");
        let carried = format!("Stay: {}\r\n", set.unwrap());
        for _ in 0..5 {
            assert_eq!(get(&mut client, &carried), (first.clone(), None));
        }
    }
}

#[test]
fn shares_are_exact_over_table_swaps_and_connections() {
    let backends = ["a", "b"].map(Backend::answering);
    let port = free_port();
    let world = || {
        let mut world = World::default();
        let mut route = RouteSpec::all("one");
        route.action = ActionSpec::Forward(vec![("one".to_owned(), 90), ("two".to_owned(), 10)]);
        world.listeners.push(Front::http(port, vec![route]));
        world.serve("one", &[backends[0].address]);
        world.serve("two", &[backends[1].address]);
        world
    };
    let proxy = TestProxy::start(world());
    let mut client = Client::connect(port);
    let mut count = |requests: usize, swap: bool| {
        (0..requests)
            .filter(|i| {
                if swap && i % 7 == 0 {
                    proxy.update(world());
                }
                client.get("/").text() == "a"
            })
            .count()
    };
    assert_eq!(count(20, false), 18);
    assert_eq!(count(1000, false), 900);
    assert_eq!(count(100, true), 90);
}

#[test]
fn endpoints_that_fail_are_left_out() {
    let bad = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&bad);
    let failing = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
            peer.say("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let good = Backend::answering("good");
    let port = free_port();
    let shape = settings(|| UpstreamSettings {
        outlier: Some(OutlierDetection {
            consecutive: 3,
            base_ejection: Duration::from_secs(600),
            max_percent: 50,
        }),
        ..UpstreamSettings::default()
    });
    let _proxy = TestProxy::start(world(port, &[failing.address, good.address], shape));
    let mut client = Client::connect(port);
    let failed = (0..50).filter(|_| client.get("/").status() == 500).count();
    assert_eq!((failed, bad.load(Ordering::SeqCst)), (3, 3));
}

#[test]
fn a_dead_endpoint_is_asked_for_once_and_comes_back() {
    let good = Backend::answering("good");
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let port = free_port();
    let proxy = TestProxy::start(world(port, &[address, good.address], |_| ()));
    let mut client = Client::connect(port);
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "good");
    }
    let requests = proxy.stats().upstream_connect_failures;
    assert!(requests >= 1);
    let back = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in back.incoming() {
            use std::io::{Read, Write};
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|got| got > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback");
                }
            });
        }
    });
    // It is noticed without a request having to wait.
    let mut turns = 0;
    while client.get("/").text() != "back" {
        turns += 1;
        assert!(turns < 10_000, "it never came back");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn nobody_notices_a_rolling_update() {
    let port = free_port();
    let stop = Arc::new(AtomicBool::new(false));
    let backends: Vec<Backend> = (0..6).map(|_| Backend::answering("ok")).collect();
    let two = |from: usize| [backends[from].address, backends[from + 1].address];
    let shape = || {
        settings(|| UpstreamSettings {
            balance: Balance::LeastRequest,
            ..UpstreamSettings::default()
        })
    };
    let proxy = TestProxy::start(world(port, &two(0), shape()));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut served = 0usize;
                let mut client = Client::connect(port);
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").text(), "ok");
                    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
                    assert_eq!(client.response().status(), 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    for from in [1, 2, 3, 4, 3, 2, 1, 0] {
        // As Kubernetes says it: the leaving one is terminating first, then gone.
        let mut world = world(port, &two(from), shape());
        let leaving = backends[(from + 2) % 6].address;
        let spec = EndpointSpec { address: leaving, ready: true, terminating: true };
        world.services.get_mut("web").unwrap().push(spec);
        proxy.update(world.clone());
        world.services.get_mut("web").unwrap().pop();
        proxy.update(world);
    }
    stop.store(true, Ordering::SeqCst);
    let served: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    let stats = proxy.stats();
    assert!(served > 0 && stats.responses_5xx == 0, "{served} served, {stats:?}");
}
