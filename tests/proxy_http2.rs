//! HTTP/2 through the proxy, from clients and to endpoints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;
#[path = "http/http2_vectors.rs"]
mod vectors;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use pilus::api::route::{Action, Route, SendProxyProtocol, UpstreamProtocol, UpstreamSettings};
use pilus::proto::http2::ErrorCode;
use support::backend::{Backend, header};
use support::client::Client;
use support::http2::{Came, DATA, END_STREAM, Ended, Http2, Raw, http2_backend};
use support::{Front, RouteSpec, TestProxy, World, free_port};
use vectors::{VECTORS, Verdict};

fn to_http2(prefix: &str, service: &str) -> RouteSpec {
    let shape = |route: &mut Route| {
        let Action::Forward(backends) = &mut route.action else { return };
        let settings = UpstreamSettings { protocol: UpstreamProtocol::Http2, ..Default::default() };
        backends[0].settings = Arc::new(settings);
    };
    RouteSpec { shape: Some(Arc::new(shape)), ..RouteSpec::to("", prefix, service) }
}

/// A proxy in front of one endpoint that speaks HTTP/2.
fn in_front_of(backend: &Backend) -> (TestProxy, u16) {
    let port = free_port();
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![to_http2("", "web")]));
    world.serve("web", &[backend.address]);
    (TestProxy::start(world), port)
}

/// Heads and bodies of requests.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// An endpoint that writes down what it sees.
fn recording() -> (Backend, Seen) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let backend = Backend::start(move |mut peer| {
        while let Some((head, body)) = peer.request() {
            let text = |bytes: &[u8]| bytes.iter().map(|b| char::from(*b)).collect::<String>();
            log.lock().unwrap().push((text(&head), text(&body)));
            peer.answer("ok");
        }
    });
    (backend, seen)
}

#[test]
fn every_vector_is_refused_or_seen_in_canonical_form() {
    let (backend, seen) = recording();
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    for vector in VECTORS {
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"a"),
        ];
        for &(name, value) in vector.fields {
            match (fields.iter().position(|(n, _)| *n == name), value) {
                (Some(at), b"-") if name.starts_with(b":") => drop(fields.remove(at)),
                (_, [b'+', rest @ ..]) if name.starts_with(b":") => fields.push((name, rest)),
                (Some(at), _) if name.starts_with(b":") => fields[at].1 = value,
                _ => fields.push((name, value)),
            }
        }
        let mut raw = Raw::connect(port);
        let whole = vector.data.is_empty();
        raw.headers(1, if whole { END_STREAM } else { 0 }, &fields);
        for (i, data) in vector.data.iter().enumerate() {
            let last = i + 1 == vector.data.len();
            raw.frame(DATA, if last { END_STREAM } else { 0 }, 1, data);
        }
        let ended = raw.ended(1);
        // What was refused must not have left anything behind: the next request is the next one seen.
        raw.headers(
            3,
            END_STREAM,
            &[
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":path", b"/marker"),
                (b":authority", b"a"),
            ],
        );
        assert_eq!(raw.ended(3), Ended::Response(0x88), "{}", vector.name);
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        let marker = seen.pop().unwrap().0;
        assert!(marker.starts_with("GET /marker HTTP/1.1\r\n"), "{}: {marker}", vector.name);
        match vector.verdict {
            Verdict::Reset(code) => assert_eq!(ended, Ended::Reset(code), "{}", vector.name),
            Verdict::Refused(code) => assert_eq!(ended, Ended::Response(code), "{}", vector.name),
            Verdict::Forwarded(lines, body) => {
                assert_eq!(ended, Ended::Response(0x88), "{}", vector.name);
                let (head, its_body) = seen.pop().unwrap();
                let of_proxy = |line: &&str| {
                    line.is_empty()
                        || line.starts_with("x-forwarded-")
                        || line.starts_with("x-request-id")
                };
                let head: String = head.chars().collect();
                let mut got: Vec<&str> =
                    head.split("\r\n").filter(|line| !of_proxy(line)).collect();
                let latin = |line: &str| line.replace("\u{c3}\u{a9}", "\u{e9}");
                let mut got: Vec<String> = got.drain(..).map(latin).collect();
                let mut expected: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
                assert_eq!(got[0], expected[0], "{}", vector.name);
                got.sort();
                expected.sort();
                assert_eq!((got, its_body.as_str()), (expected, body), "{}", vector.name);
            }
        }
        assert!(seen.is_empty(), "{}: the endpoint saw {seen:?}", vector.name);
    }
}

#[test]
fn requests_share_a_connection_and_trailers_go_both_ways() {
    let backend = Backend::start(|mut peer| {
        let mut trailers = String::new();
        while let Some(head) = peer.head() {
            if header(&head, "transfer-encoding").is_some() {
                use std::io::BufRead;
                for line in ["3\r\n", "abc\r\n", "0\r\n"] {
                    let mut got = String::new();
                    peer.stream.read_line(&mut got).unwrap();
                    assert_eq!(got, line);
                }
                while !trailers.ends_with("\r\n\r\n") {
                    peer.stream.read_line(&mut trailers).unwrap();
                }
            }
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\nx-got: ");
            peer.say(trailers.lines().next().unwrap_or("nothing"));
            peer.say("\r\n\r\n");
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Http2::connect(port);
    let text = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let id = client.send(text, b"abc", true);
    client.protocol.finish(id, b"x-mine: 1\r\n", &mut client.out);
    client.flush();
    let came = client.wait(id);
    assert_eq!((came.status(), &came.body[..], came.reset), (200, &b"hi"[..], None));
    assert_eq!(came.trailers, "x-sum: 7\r\nx-got: x-mine: 1\r\n");
    let many: Vec<u32> = (0..50)
        .map(|i| client.send(&format!("GET /{i} HTTP/1.1\r\nhost: a\r\n\r\n"), b"", false))
        .collect();
    for id in many {
        let came = client.wait(id);
        assert_eq!((came.status(), &came.body[..]), (200, &b"hi"[..]));
    }
    let stats = proxy.stats();
    assert_eq!((stats.connections_accepted, stats.http2_connections, stats.requests), (1, 1, 51));
}

#[test]
fn an_endpoint_that_speaks_http_2_gets_requests_of_all_clients() {
    let backend = http2_backend(|came: &Came| {
        let line = came.head().lines().next().unwrap_or_default();
        let said = format!("{line} {} {}", came.body.len(), came.trailers.trim_end());
        ("HTTP/1.1 200 \r\n\r\n".to_owned(), said.into_bytes(), "grpc-status: 0\r\n".to_owned())
    });
    let (proxy, port) = in_front_of(&backend);
    let mut client = Http2::connect(port);
    // All at once, while there is no connection yet.
    let many: Vec<u32> = (0..100)
        .map(|_| client.send("GET /many HTTP/1.1\r\nhost: a\r\n\r\n", b"", false))
        .collect();
    for id in many {
        assert_eq!(client.wait(id).body, b"GET /many HTTP/1.1 0 ");
    }
    assert_eq!(backend.connections(), 1);
    let came = client.get("/x");
    assert_eq!(came.body, b"GET /x HTTP/1.1 0 ");
    assert_eq!((came.status(), came.trailers.as_str()), (200, "grpc-status: 0\r\n"));
    // More than all windows together.
    let large = vec![7; 2_000_000];
    let text = "POST /y HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let id = client.send(text, &large, true);
    client.protocol.finish(id, b"x-sum: 1\r\n", &mut client.out);
    client.flush();
    assert_eq!(client.wait(id).body, b"POST /y HTTP/1.1 2000000 x-sum: 1");
    let mut old = Client::connect(port);
    old.send("POST /z HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: u\r\n\r\n");
    let response = old.response();
    assert_eq!((response.status(), response.text()), (200, "POST /z HTTP/1.1 3 x-t: u"));
    old.send("POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(old.response().text(), "POST /l HTTP/1.1 2 ");
    assert_eq!(old.get("/again").text(), "GET /again HTTP/1.1 0 ");
    assert_eq!(backend.connections(), 1);
    assert_eq!(proxy.stats().upstream_connects, 1);
}

#[test]
fn large_responses_wait_for_the_clients_windows() {
    let body = Arc::new((0..3_000_000u32).map(|i| (i >> 8) as u8).collect::<Vec<u8>>());
    let sent = Arc::clone(&body);
    let old = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", sent.len()));
            let _ = peer.stream.get_mut().write_all(&sent);
        }
    });
    let sent = Arc::clone(&body);
    let new =
        http2_backend(move |_| ("HTTP/1.1 200 \r\n\r\n".to_owned(), sent.to_vec(), String::new()));
    let port = free_port();
    let mut world = World::default();
    let routes = vec![to_http2("/new", "new"), RouteSpec::to("", "/old", "old")];
    world.listeners.push(Front::http(port, routes));
    world.serve("new", &[new.address]);
    world.serve("old", &[old.address]);
    let _proxy = TestProxy::start(world);
    for path in ["/old", "/new"] {
        let mut client = Http2::connect(port);
        client.consumes = false;
        // That endpoint answers one after the other.
        let count = if path == "/old" { 2 } else { 1 };
        let ids: Vec<u32> = (0..count)
            .map(|_| client.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"), b"", false))
            .collect();
        // Each gets as far as the window of its stream; then nothing more comes until some is consumed.
        let window = 128 * 1024;
        assert!(client.until(|c| c.streams.values().all(|came| came.body.len() == window)));
        for &id in &ids {
            let received = client.streams[&id].body.len();
            client.protocol.consumed(id, received, &mut client.out);
        }
        client.consumes = true;
        client.flush();
        for id in ids.into_iter().rev() {
            let came = client.wait(id);
            assert!(came.body == *body && came.reset.is_none(), "{path}");
        }
        let mut old = Client::connect(port);
        assert!(old.get(path).body == *body, "{path} by HTTP/1.1");
    }
}

#[test]
fn what_an_endpoint_has_refused_is_sent_again_and_its_departure_respected() {
    let backend = Backend::start(|peer| {
        let number = peer.number;
        let mut connection = Http2::serve(peer);
        let mut served = 0;
        while connection.until(|c| c.streams.values().any(|came| came.ended)) {
            let id = *connection.streams.keys().next().unwrap();
            connection.streams.remove(&id);
            if number == 0 && served == 1 {
                // Only what came before was looked at.
                let goaway = [&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 4]].concat();
                connection.out.extend_from_slice(&goaway);
                connection.flush();
                while connection.read() {}
                return;
            }
            served += 1;
            let body = format!("{number}");
            connection.answer(id, "HTTP/1.1 200 \r\n\r\n", body.as_bytes(), "");
        }
    });
    let (proxy, port) = in_front_of(&backend);
    let mut client = Http2::connect(port);
    assert_eq!(client.get("/").body, b"0");
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    let id = client.send(post, b"", false);
    let came = client.wait(id);
    assert_eq!((came.status(), &came.body[..]), (200, &b"1"[..]), "a POST that nobody has seen");
    assert_eq!((backend.connections(), proxy.stats().upstream_retries), (2, 1));
}

#[test]
fn a_connection_that_tells_whose_it_is_is_nobody_elses() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ended);
    let backend = Backend::start(move |mut peer| {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            peer.stream.get_mut().read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).unwrap();
        let mut connection = Http2::serve(peer);
        connection.until(|c| c.streams.values().any(|came| came.ended));
        connection.answer(1, "HTTP/1.1 200 \r\n\r\n", line.trim_end().as_bytes(), "");
        while connection.read() {}
        log.lock().unwrap().push(connection.going_away);
    });
    let port = free_port();
    let shape = |route: &mut Route| {
        let Action::Forward(backends) = &mut route.action else { return };
        backends[0].settings = Arc::new(UpstreamSettings {
            protocol: UpstreamProtocol::Http2,
            send_proxy_protocol: Some(SendProxyProtocol::V1),
            ..Default::default()
        });
    };
    let mut world = World::default();
    let route = RouteSpec { shape: Some(Arc::new(shape)), ..RouteSpec::all("web") };
    world.listeners.push(Front::http(port, vec![route]));
    world.serve("web", &[backend.address]);
    let _proxy = TestProxy::start(world);
    for number in 1..=3 {
        let mut client = Http2::connect(port);
        let from = client.stream.local_addr().unwrap().port();
        let said = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {port}");
        assert_eq!(String::from_utf8(client.get("/").body).unwrap(), said);
        assert_eq!(backend.connections(), number);
    }
    // They end by themselves, without being asked for anything more.
    while ended.lock().unwrap().len() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(*ended.lock().unwrap(), [true; 3]);
}

#[test]
fn errors_of_grpc_calls_are_statuses_of_grpc() {
    let port = free_port();
    let mut world = World::default();
    let routes = vec![to_http2("/s.S", "none"), to_http2("/d.D", "dead")];
    world.listeners.push(Front::http(port, routes));
    world.serve("none", &[]);
    world.serve("dead", &[([127, 0, 0, 1], free_port()).into()]);
    let _proxy = TestProxy::start(world);
    let mut client = Http2::connect(port);
    let mut call = |path: &str, kind: &str| {
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let id = client.send(&text, b"\0\0\0\0\0", false);
        client.wait(id)
    };
    for (path, kind, status) in [
        ("/nobody/x", "application/grpc", "12"),
        ("/s.S/x", "application/grpc+proto", "14"),
        ("/d.D/x", "application/grpc; x=y", "14"),
    ] {
        let came = call(path, kind);
        assert_eq!((came.status(), came.heads.len(), came.body.len()), (200, 1, 0), "{path}");
        assert_eq!(header(came.head().as_bytes(), "grpc-status"), Some(status), "{path}");
        assert_eq!(header(came.head().as_bytes(), "content-type"), Some("application/grpc"));
    }
    assert_eq!(call("/nobody/x", "application/grpc-web").status(), 404);
    assert_eq!(call("/nobody/x", "text/plain").status(), 404);
}

#[test]
fn an_extended_connect_reaches_a_websocket_endpoint() {
    let backend = Backend::start(|mut peer| {
        let head = peer.head().unwrap();
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert_eq!(header(&head, "sec-websocket-key").map(str::len), Some(24));
        peer.say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nhello");
        let rest = peer.rest();
        peer.say(&format!("got {}", String::from_utf8_lossy(&rest)));
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut raw = Raw::connect(port);
    raw.headers(
        1,
        0,
        &[
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"a"),
        ],
    );
    raw.frame(DATA, 0, 1, b"to ");
    raw.frame(DATA, END_STREAM, 1, b"the endpoint");
    assert_eq!(raw.ended(1), Ended::Response(0x88));
    assert_eq!(proxy.stats().tunnels, 1);
    // Any other protocol, and CONNECT itself, are refused.
    raw.headers(3, 0, &[(b":method", b"CONNECT"), (b":authority", b"a:1")]);
    assert!(matches!(raw.ended(3), Ended::Response(_) | Ended::Reset(_)));
    assert_eq!(proxy.stats().tunnels, 1);
}

#[test]
fn a_proxy_that_ends_says_so_and_finishes_what_it_has_begun() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            wait.lock().unwrap().recv().unwrap();
            peer.answer("late");
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut idle = Http2::connect(port);
    go.send(()).unwrap();
    assert_eq!(idle.get("/").body, b"late");
    let mut busy = Http2::connect(port);
    let id = busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", false);
    while proxy.stats().requests < 2 {
        std::thread::yield_now();
    }
    proxy.shutdown();
    assert!(busy.until(|c| c.going_away));
    assert!(!idle.until(|_| false) && idle.going_away, "it is told, and closed");
    go.send(()).unwrap();
    let came = busy.wait(id);
    assert_eq!((came.status(), &came.body[..]), (200, &b"late"[..]));
    while busy.read() {}
    while !proxy.is_released() {
        std::thread::yield_now();
    }
}

#[test]
fn a_client_that_breaks_a_stream_off_ends_the_request() {
    let (gone, seen) = std::sync::mpsc::channel();
    let gone = Mutex::new(gone);
    let backend = Backend::start(move |mut peer| {
        if peer.request().is_some() {
            assert_eq!(peer.rest(), b"");
            gone.lock().unwrap().send(()).unwrap();
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Http2::connect(port);
    let id = client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", false);
    while proxy.stats().upstream_connects < 1 {
        std::thread::yield_now();
    }
    client.protocol.release(id, ErrorCode::Cancel, &mut client.out);
    client.flush();
    seen.recv_timeout(support::backend::WATCHDOG).unwrap();
}

#[test]
fn floods_end_the_connection_and_nobody_elses() {
    let (backend, _) = recording();
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut good = Http2::connect(port);
    assert_eq!(good.get("/").status(), 200);
    let get: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")];
    type Flood<'f> = &'f dyn Fn(&mut Raw, u32);
    let floods: [(&str, Flood<'_>); 5] = [
        ("rapid reset", &|raw, i| {
            raw.headers(2 * i + 1, END_STREAM, &get);
            raw.frame(3, 0, 2 * i + 1, &[0, 0, 0, 8]);
        }),
        ("SETTINGS", &|raw, _| raw.frame(4, 0, 0, b"")),
        ("PING", &|raw, _| raw.frame(6, 0, 0, &[0; 8])),
        ("CONTINUATION", &|raw, i| {
            if i == 0 {
                raw.frame(1, END_STREAM, 1, b"");
            }
            raw.frame(9, 0, 1, b"\0\x01x\x01y");
        }),
        ("empty DATA", &|raw, i| {
            if i == 0 {
                raw.headers(1, 0, &get);
            }
            raw.frame(DATA, 0, 1, b"");
        }),
    ];
    for (name, flood) in floods {
        let mut raw = Raw::connect(port);
        for i in 0..3000 {
            flood(&mut raw, i);
        }
        let ended = raw.ended(u32::MAX);
        let calm = Ended::GoAway(ErrorCode::EnhanceYourCalm as u32);
        // The reset of a socket that is still being written to may be faster than what was said.
        assert!(ended == calm || ended == Ended::Closed, "{name}: {ended:?}");
        assert_eq!(good.get("/").status(), 200, "{name}");
    }
}
