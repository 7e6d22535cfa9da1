//! The framing tables through a running proxy: what the endpoint sees, what the client gets, and which
//! connections close.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "http/responses.rs"]
mod responses;
mod support;
#[path = "http/vectors.rs"]
mod vectors;

use std::sync::mpsc::{Receiver, channel};

use responses::{Asked, Expect, RESPONSES, ResponseVector};
use support::backend::{Backend, WATCHDOG, header};
use support::client::Client;
use support::{RouteSpec, TestProxy, World, free_port};
use vectors::{Then, VECTORS, Vector, without_generated};

/// What arrived at the endpoint: head, body.
type Record = (Vec<u8>, Vec<u8>);

/// Records all requests, answers 200, or 101 where an upgrade is asked for.
fn recorder() -> (Backend, Receiver<Record>) {
    let (sender, receiver) = channel();
    let backend = Backend::start(move |mut peer| {
        while let Some((head, body, whole)) = peer.request_or_part() {
            let upgrade = header(&head, "upgrade").map(str::to_owned);
            let is_head = head.starts_with(b"HEAD ");
            let _ = sender.send((head, body));
            if !whole {
                return;
            }
            if let Some(protocol) = upgrade {
                peer.say(&format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                     Upgrade: {protocol}\r\n\r\n"
                ));
                peer.rest();
                return;
            }
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
            if !is_head {
                peer.say("ok");
            }
        }
    });
    (backend, receiver)
}

#[test]
fn every_request_vector() {
    let (backend, records) = recorder();
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut may_be_late = Vec::new();
    // A connection that begins with the preface of HTTP/2 is one of HTTP/2 here.
    for vector in VECTORS.iter().filter(|vector| vector.name != "line_http2_preface") {
        check_request(vector, port, &records, &mut may_be_late);
    }
    assert_eq!(proxy.stats().connections_panicked, 0);
}

/// `may_be_late` are the requests whose body was refused: the endpoint may see the beginning of one, if the
/// bytes came in pieces, and may tell so after the next row has begun.
fn check_request(
    vector: &'static Vector,
    port: u16,
    records: &Receiver<Record>,
    may_be_late: &mut Vec<&'static vectors::Seen>,
) {
    let name = vector.name;
    let mut client = Client::connect(port);
    client.send(vector.bytes);
    let mut statuses = Vec::new();
    let answered = match vector.then {
        // The last request never ends, so it has no answer.
        Then::Incomplete | Then::BodyRefused(_) => vector
            .seen
            .iter()
            .rposition(|seen| is_whole(seen.head, seen.body))
            .map_or(0, |last| last + 1),
        _ => vector.seen.len(),
    };
    for seen in &vector.seen[..answered] {
        let response = client.try_response(seen.head.starts_with(b"HEAD ")).unwrap_or_else(|| {
            panic!("{name}: no answer to {}", seen.head.escape_ascii());
        });
        statuses.push(response.status());
    }
    match vector.then {
        Then::Open => {
            assert_eq!(client.get("/still-open").text(), "ok", "{name}: the connection persists");
        }
        Then::Incomplete => {
            client.end();
            assert_eq!(client.until_closed().escape_ascii().to_string(), "", "{name}");
        }
        Then::Closed => assert_eq!(client.until_closed(), b"", "{name}"),
        Then::UpgradeAsked => assert_eq!(statuses, [101], "{name}"),
        Then::Refused(status, _) => {
            let response = client.response();
            assert_eq!(response.status(), status, "{name}");
            assert_eq!(response.header("connection"), Some("close"), "{name}");
            client.until_closed();
        }
        Then::BodyRefused(_) => {
            assert_eq!(client.response().status(), 400, "{name}");
            client.until_closed();
        }
    }
    drop(client);
    let mut seen = vector.seen;
    if matches!(vector.then, Then::BodyRefused(_)) {
        let (last, before) = seen.split_last().unwrap();
        may_be_late.push(last);
        seen = before;
    }
    let mut expected: Vec<Record> = seen
        .iter()
        .map(|seen| {
            let host = format!("127.0.0.1:{port}");
            (replace(seen.head, b"FALLBACK", host.as_bytes()), seen.body.to_vec())
        })
        .collect();
    if vector.then == Then::Open {
        expected.push((b"GET /still-open HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), Vec::new()));
    }
    // What must not arrive would arrive before this.
    expected.push((b"GET /marker HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), Vec::new()));
    let mut got = Vec::new();
    for at in 0..expected.len() {
        if at + 1 == expected.len() {
            assert_eq!(Client::connect(port).get("/marker").status(), 200);
        }
        loop {
            let (head, body) = records
                .recv_timeout(WATCHDOG)
                .unwrap_or_else(|_| panic!("{name}: the endpoint has seen only {}", show(&got)));
            let head = without_generated(&head);
            let late = |seen: &&vectors::Seen| seen.head == head && seen.body.starts_with(&body);
            if head == expected[at].0 || !may_be_late.iter().any(late) {
                got.push((head, body));
                break;
            }
        }
    }
    assert_eq!(show(&got), show(&expected), "{name}: what the endpoint sees");
}

/// Whether a request of the table has all of its body.
fn is_whole(head: &[u8], body: &[u8]) -> bool {
    match header(head, "content-length") {
        Some(length) => length.parse() == Ok(body.len()),
        // Rows that end in the middle of a chunked body have it as the last one.
        None => header(head, "transfer-encoding").is_none(),
    }
}

#[test]
fn every_response_vector() {
    for vector in RESPONSES {
        check_response(vector);
    }
}

fn check_response(vector: &ResponseVector) {
    let (name, bytes) = (vector.name, vector.bytes);
    // The first connection misbehaves, the next ones do not.
    let backend = Backend::start(move |mut peer| {
        let first = peer.number == 0;
        while peer.head().is_some() {
            if first {
                let _ = std::io::Write::write_all(peer.stream.get_mut(), bytes);
                let _ = peer.stream.get_mut().shutdown(std::net::Shutdown::Write);
                peer.rest();
                return;
            }
            peer.answer("next");
        }
    });
    let port = free_port();
    let mut world = World::simple(port, &[backend.address]);
    world.listeners[0].routes = vec![RouteSpec::all("web")];
    let proxy = TestProxy::start(world);
    let mut client = Client::connect(port);
    client.send(match vector.asked {
        Asked::Get => "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Asked::Head => "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        Asked::Http10 => "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        Asked::Upgrade => {
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        }
    });
    let is_head = vector.asked == Asked::Head;
    match vector.expect {
        Expect::Sent { heads, body, client: persists, .. } => {
            for (at, head) in heads.iter().enumerate() {
                let last = at + 1 == heads.len();
                let got = client.head().unwrap_or_else(|| panic!("{name}: no head {at}"));
                assert_eq!(comparable(&got), comparable(head), "{name}: head {at}");
                if last {
                    check_body(&mut client, &got, body, is_head, name);
                }
            }
            let switched = heads.last().is_some_and(|head| head.starts_with("HTTP/1.1 101"));
            if persists {
                assert_eq!(client.get("/next").text(), "next", "{name}: the client persists");
            } else if !switched {
                assert_eq!(client.until_closed(), b"", "{name}");
            }
        }
        Expect::BadGateway(_) => {
            let mut next = || client.try_response(is_head).unwrap_or_else(|| panic!("{name}"));
            let mut response = next();
            // Interim ones before it may have been passed on.
            while response.status() < 200 {
                response = next();
            }
            assert_eq!(response.status(), 502, "{name}");
        }
        Expect::BodyBroken(_) => {
            // 502 if the fault came together with the head, which then was not passed on.
            let broken = client.try_response(is_head).unwrap_or_else(|| panic!("{name}: no head"));
            assert!(!broken.whole || broken.status() == 502, "{name}: the client must notice");
        }
        Expect::Incomplete => {
            assert_eq!(
                client.try_response(is_head).unwrap_or_else(|| panic!("{name}")).status(),
                503,
                "{name}"
            );
        }
    }
    assert_eq!(proxy.stats().connections_panicked, 0, "{name}");
}

fn check_body(client: &mut Client, head: &str, body: &str, is_head: bool, name: &str) {
    if is_head || head.starts_with("HTTP/1.1 101") {
        return;
    }
    // The head was read already: give it to the reader of bodies again.
    let mut rest =
        support::client::Response { head: head.to_owned(), body: Vec::new(), whole: true };
    client.read_body(&mut rest);
    assert!(rest.whole, "{name}: the body is whole");
    assert_eq!(rest.body.escape_ascii().to_string(), body.as_bytes().escape_ascii().to_string());
}

/// A head without what depends on time, in lines that can be compared.
fn comparable(head: &str) -> Vec<&str> {
    let made_up = ["server:", "date:", "x-envoy-upstream-service-time:"];
    let is_made_up = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        made_up.iter().any(|name| lower.starts_with(name))
    };
    head.split("\r\n").filter(|line| !is_made_up(line)).collect()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

fn show(records: &[Record]) -> String {
    let line = |(head, body): &Record| {
        let body = &body[..body.len().min(200)];
        format!("{} | {}", head.escape_ascii(), body.escape_ascii())
    };
    records.iter().map(line).collect::<Vec<_>>().join("\n")
}
