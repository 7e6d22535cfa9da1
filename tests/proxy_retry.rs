//! Attempts, timeouts and budgets of routes, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilus::api::route::{
    Action, Balance, CircuitBreaker, RetryBudget, RetryPolicy, Route, UpstreamSettings,
};
use support::backend::Backend;
use support::client::Client;
use support::{Front, RouteSpec, TestProxy, World, free_port};

fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy {
        codes: vec![500, 503],
        attempts,
        backoff: Duration::from_millis(1),
        on_failure: true,
        budget: None,
    }
}

fn start(
    backends: &[&Backend],
    shape: impl Fn(&mut Route) + Send + Sync + 'static,
) -> (TestProxy, u16) {
    let port = free_port();
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web").with(shape)]));
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    world.serve("web", &addresses);
    (TestProxy::start(world), port)
}

/// Fails so many requests with `status`, then answers with what it has got.
fn failing(times: usize, status: u16) -> (Backend, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let backend = Backend::start(move |mut peer| {
        while let Some((head, body)) = peer.request() {
            if counted.fetch_add(1, Ordering::SeqCst) < times {
                peer.say(&format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno"));
            } else {
                let method = head.split(|b| *b == b' ').next().unwrap().to_vec();
                peer.answer(&String::from_utf8([method, b" ".to_vec(), body].concat()).unwrap());
            }
        }
    });
    (backend, seen)
}

#[test]
fn listed_statuses_are_tried_again_and_bodies_sent_again() {
    let (backend, seen) = failing(2, 503);
    let (proxy, port) = start(&[&backend], |route| route.retry = Some(policy(2)));
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    client.send("lo");
    assert_eq!(client.response().text(), "POST hello");
    assert_eq!((seen.load(Ordering::SeqCst), proxy.stats().route_retries), (3, 2));
    seen.store(0, Ordering::SeqCst);
    client.send(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().text(), "PUT hello", "a chunked body that is there is kept too");
    seen.store(0, Ordering::SeqCst);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.response().status(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "POST hello");
    // The last status is passed on as it is.
    let (hopeless, _) = failing(99, 503);
    let (_proxy, port) = start(&[&hopeless], |route| route.retry = Some(policy(2)));
    let mut client = Client::connect(port);
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status(), response.text()), (503, "no"));
    }
    assert_eq!(
        hopeless.connections(),
        5,
        "three attempts each; the connection of the last is kept"
    );
}

#[test]
fn what_is_not_listed_or_too_large_is_not_tried_again() {
    let (backend, seen) = failing(1, 502);
    let (_proxy, port) = start(&[&backend], |route| route.retry = Some(policy(3)));
    assert_eq!(Client::connect(port).get("/").status(), 502);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    seen.store(0, Ordering::SeqCst);
    let (backend, seen) = failing(1, 503);
    let (_proxy, port) = start(&[&backend], |route| route.retry = Some(policy(3)));
    let mut client = Client::connect(port);
    let body = "x".repeat(65 * 1024);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response().status(), 503);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn an_attempt_that_breaks_goes_to_another_endpoint() {
    let breaking = Backend::start(|mut peer| drop(peer.request()));
    let good = Backend::answering("good");
    let (proxy, port) = start(&[&breaking, &good], |route| route.retry = Some(policy(1)));
    let mut client = Client::connect(port);
    for _ in 0..10 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.response().text(), "good");
    }
    assert_eq!(proxy.stats().route_retries as usize, breaking.connections());
}

#[test]
fn attempts_and_requests_have_their_time() {
    let silent = Backend::start(|mut peer| {
        peer.request();
        peer.rest();
    });
    let good = Backend::answering("good");
    let (_proxy, port) = start(&[&silent, &good], |route| {
        route.backend_timeout = Some(Duration::from_millis(50));
        route.retry = Some(policy(1));
    });
    let mut client = Client::connect(port);
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "good");
    }
    let (_proxy, port) =
        start(&[&silent], |route| route.backend_timeout = Some(Duration::from_millis(50)));
    let response = Client::connect(port).get("/");
    assert_eq!((response.status(), response.text()), (504, "upstream request timeout"));
    let before = silent.connections();
    let (proxy, port) = start(&[&silent], |route| {
        route.request_timeout = Some(Duration::from_millis(60));
        route.backend_timeout = Some(Duration::from_millis(50));
        route.retry = Some(RetryPolicy { backoff: Duration::from_secs(5), ..policy(9) });
    });
    assert_eq!(Client::connect(port).get("/").status(), 504);
    assert_eq!(silent.connections() - before, 1, "there is no time for a second attempt");
    assert_eq!(proxy.stats().route_retries, 0);
}

#[test]
fn a_spent_budget_is_an_overflow() {
    let (backend, seen) = failing(999, 500);
    let (proxy, port) = start(&[&backend], |route| {
        let long = Duration::from_secs(3600);
        let budget = RetryBudget { percent: 0, interval: long, minimum: (3, long) };
        route.retry = Some(RetryPolicy { budget: Some(budget), ..policy(2) });
    });
    let mut client = Client::connect(port);
    assert_eq!((client.get("/").status(), seen.load(Ordering::SeqCst)), (500, 3));
    let response = client.get("/");
    assert_eq!((response.status(), response.text()), (503, "upstream overflow"));
    assert_eq!((seen.load(Ordering::SeqCst), proxy.stats().retries_over_budget), (5, 1));
}

#[test]
fn a_breaker_refuses_what_is_too_much() {
    let gate = Arc::new(Mutex::new(()));
    let shut = gate.lock().unwrap();
    let waiting = Arc::clone(&gate);
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            drop(waiting.lock());
            peer.answer("at last");
        }
    });
    let (proxy, port) = start(&[&backend], |route| {
        let Action::Forward(backends) = &mut route.action else { panic!() };
        let breaker = CircuitBreaker { max_requests: 1, max_connections: 0 };
        let settings = UpstreamSettings {
            breaker,
            balance: Balance::LeastRequest,
            ..UpstreamSettings::default()
        };
        backends[0].settings = Arc::new(settings);
    });
    let mut first = Client::connect(port);
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while backend.connections() == 0 {
        std::thread::yield_now();
    }
    let response = Client::connect(port).get("/");
    assert_eq!((response.status(), response.text()), (503, "upstream overflow"));
    drop(shut);
    assert_eq!(first.response().text(), "at last");
    assert_eq!(first.get("/").text(), "at last", "the place is free again");
    assert_eq!(proxy.stats().upstream_overflows, 1);
}
