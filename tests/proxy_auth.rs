//! External auth and mirrors, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use pilus::api::route::{Backend as To, ExternalAuth, HeaderChange, Mirror, Route, Target};
use support::backend::{Backend, WATCHDOG, header};
use support::client::{Client, Response};
use support::{Front, RouteSpec, TestProxy, World, free_port, service_port};

fn start(
    backends: &[(&str, &Backend)],
    shape: impl Fn(&mut Route) + Send + Sync + 'static,
) -> (TestProxy, u16) {
    let port = free_port();
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web").with(shape)]));
    for (name, backend) in backends {
        world.serve(name, &[backend.address]);
    }
    (TestProxy::start(world), port)
}

/// Answers with `answer` and hands on what it was asked.
fn recording(answer: &'static str) -> (Backend, Receiver<(String, String)>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let backend = Backend::start(move |mut peer| {
        while let Some((head, body)) = peer.request() {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let _ = sender.lock().unwrap().send((text(head), text(body)));
            peer.say(answer);
        }
    });
    (backend, receiver)
}

fn auth(
    change: impl Fn(&mut ExternalAuth) + Send + Sync + 'static,
) -> impl Fn(&mut Route) + Send + Sync {
    move |route| {
        let mut auth = ExternalAuth {
            backend: To::new(service_port("auth"), 1),
            grpc: false,
            path: "/check".into(),
            allowed_headers: vec!["cookie".into(), "connection".into(), "x-forwarded-for".into()],
            allowed_response_headers: vec!["x-user".into()],
            body_limit: None,
        };
        change(&mut auth);
        route.filters.auth = Some(Arc::new(auth));
    }
}

fn ask(port: u16, request: &str) -> Response {
    let mut client = Client::connect(port);
    client.send(request.replace('\n', "\r\n"));
    client.response()
}

#[test]
fn a_yes_lets_pass_with_what_the_server_says_and_nothing_the_client_claims() {
    let (server, asked) =
        recording("HTTP/1.1 202 Yes\r\nx-user: alice\r\nx-other: 1\r\ncontent-length: 2\r\n\r\nok");
    let echo = Backend::echoing();
    let (_proxy, port) = start(&[("web", &echo), ("auth", &server)], auth(|_| ()));
    let response = ask(
        port,
        "POST /a?b HTTP/1.1\nHost: h:1\nAuthorization: secret\nCookie: c=1\nX-User: root\n\
         X-Forwarded-For: 9.9.9.9\nX-Hidden: 1\nContent-Length: 4\n\nbody",
    );
    let head = response.text();
    assert!(
        head.starts_with("POST /a?b HTTP/1.1\r\nhost: h:1\r\n") && head.ends_with("body"),
        "{head}"
    );
    assert_eq!(header(head.as_bytes(), "x-user"), Some("alice"));
    assert_eq!(head.matches("ser: ").count(), 1, "{head}");
    assert_eq!(header(head.as_bytes(), "x-other"), None);
    let (head, body) = asked.recv_timeout(WATCHDOG).unwrap();
    assert!(head.starts_with("POST /check/a?b HTTP/1.1\r\nhost: h:1\r\n"), "{head}");
    for (name, value) in [
        ("authorization", Some("secret")),
        ("cookie", Some("c=1")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-hidden", None),
        ("x-user", None),
        ("connection", None),
    ] {
        assert_eq!(header(head.as_bytes(), name), value, "{name}");
    }
    assert_eq!(body, "");
}

#[test]
fn what_the_server_does_not_say_the_client_may_not_either() {
    let (server, _) = recording("HTTP/1.1 200 Yes\r\ncontent-length: 0\r\n\r\n");
    let echo = Backend::echoing();
    let (_proxy, port) = start(&[("web", &echo), ("auth", &server)], auth(|_| ()));
    let response = ask(port, "GET / HTTP/1.1\nHost: h\nX-User: root\n\n");
    assert_eq!(header(&response.body, "x-user"), None);
}

#[test]
fn a_no_is_for_the_client_and_the_backend_hears_nothing() {
    let (server, _) = recording(
        "HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: a=1\r\ncontent-length: 5\r\n\r\nlogin",
    );
    let echo = Backend::echoing();
    let (proxy, port) = start(&[("web", &echo), ("auth", &server)], auth(|_| ()));
    let mut client = Client::connect(port);
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.status(), response.text()), (302, "login"));
        assert_eq!(response.header("location"), Some("/login"));
        assert_eq!(response.header("set-cookie"), Some("a=1"));
        assert_eq!(response.header("server"), Some("envoy"));
    }
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.try_response(true).unwrap().status(), 302);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz");
    assert_eq!(client.response().text(), "login");
    assert_eq!((echo.connections(), proxy.stats().auth_denied), (0, 5));
}

#[test]
fn no_answer_is_a_no() {
    let answers = [
        "",
        "HTTP/1.1 200 Yes\r\ncontent-length: 5\r\n\r\nhalf",
        "HTTP/1.1 200 Yes\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ];
    let echo = Backend::echoing();
    for answer in answers {
        let server = Backend::start(move |mut peer| {
            peer.request();
            peer.say(answer);
        });
        let (proxy, port) = start(&[("web", &echo), ("auth", &server)], auth(|_| ()));
        assert_eq!(Client::connect(port).get("/").status(), 503, "{answer:?}");
        assert_eq!(proxy.stats().auth_failures, 1);
    }
    let cases: [fn(&mut ExternalAuth); 3] = [
        |auth| auth.backend.target = Target::Refuse(500, "not there".to_owned()),
        |auth| auth.backend = To::new(service_port("none"), 1),
        // It does not speak HTTP/2.
        |auth| auth.grpc = true,
    ];
    for case in cases {
        let server = Backend::start(|mut peer| drop(peer.rest()));
        let routes = auth(case);
        let (_proxy, port) = start(&[("web", &echo), ("auth", &server)], routes);
        assert_eq!(Client::connect(port).get("/").status(), 503);
    }
    assert_eq!(echo.connections(), 0);
}

#[test]
fn the_server_is_shown_as_much_of_the_body_as_it_may_see() {
    let (server, asked) = recording("HTTP/1.1 200 Yes\r\ncontent-length: 0\r\n\r\n");
    let echo = Backend::echoing();
    let limited = auth(|auth| auth.body_limit = Some(5));
    let (_proxy, port) = start(&[("web", &echo), ("auth", &server)], limited);
    let post = "POST / HTTP/1.1\nHost: a\n";
    for (rest, shown, whole) in [
        ("Content-Length: 4\n\nbody", "body", "body"),
        ("Content-Length: 8\n\nlong one", "long ", "long one"),
    ] {
        let response = ask(port, &format!("{post}{rest}"));
        assert!(response.text().ends_with(&format!("\r\n\r\n{whole}")), "{}", response.text());
        assert_eq!(asked.recv_timeout(WATCHDOG).unwrap().1, shown);
    }
    let chunked = "Transfer-Encoding: chunked\n\n2\nbo\n2\ndy\n0\n\n";
    let response = ask(port, &format!("{post}{chunked}"));
    assert!(response.text().ends_with("\r\n\r\nbody"));
    assert_eq!(asked.recv_timeout(WATCHDOG).unwrap().1, "bo", "five bytes with their framing");
}

#[test]
fn copies_go_to_mirrors_with_the_changes_and_the_body() {
    let (first, at_first) = recording("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno");
    let (second, at_second) = recording("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let echo = Backend::echoing();
    let backends = [("web", &echo), ("first", &first), ("second", &second)];
    let (proxy, port) = start(&backends, |route| {
        route.filters.request =
            HeaderChange { set: vec![("x-set".into(), "1".into())], ..HeaderChange::default() };
        let to = |name, fraction| Mirror { backend: To::new(service_port(name), 1), fraction };
        route.filters.mirrors =
            vec![to("first", (1, 1)), to("second", (100, 100)), to("second", (0, 100))];
    });
    let response = ask(port, "POST /a HTTP/1.1\nHost: h\nContent-Length: 4\n\nbody");
    assert!(response.text().ends_with("\r\n\r\nbody"));
    for seen in [&at_first, &at_second] {
        let (head, body) = seen.recv_timeout(WATCHDOG).unwrap();
        assert!(head.starts_with("POST /a HTTP/1.1\r\nhost: h\r\n"), "{head}");
        assert_eq!((header(head.as_bytes(), "x-set"), &*body), (Some("1"), "body"));
    }
    assert_eq!(ask(port, "GET /b HTTP/1.1\nHost: h\n\n").status(), 200);
    assert!(at_first.recv_timeout(WATCHDOG).unwrap().0.starts_with("GET /b "));
    assert!(at_second.recv_timeout(WATCHDOG).unwrap().0.starts_with("GET /b "));
    assert_eq!((proxy.stats().mirrors, proxy.stats().requests), (4, 2));
}

#[test]
fn a_mirror_that_is_dead_or_slow_is_not_noticed() {
    let slow = Backend::start(|mut peer| drop(peer.rest()));
    let good = Backend::answering("good");
    let (proxy, port) = start(&[("web", &good), ("slow", &slow)], |route| {
        let to = |name| Mirror { backend: To::new(service_port(name), 1), fraction: (1, 1) };
        route.filters.mirrors = vec![to("slow"), to("none")];
    });
    let mut client = Client::connect(port);
    for _ in 0..300 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert!(proxy.stats().mirrors_dropped > 0, "there is a bound");
    // The whole is not kept for a mirror: it passes.
    let body = "x".repeat(200_000);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response().text(), "good");
}

#[test]
fn shares_of_mirrors_are_about_what_is_asked_for() {
    let (mirror, _seen) = recording("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let good = Backend::answering("good");
    let (proxy, port) = start(&[("web", &good), ("mirror", &mirror)], |route| {
        let backend = To::new(service_port("mirror"), 1);
        route.filters.mirrors = vec![Mirror { backend, fraction: (1, 4) }];
    });
    let mut client = Client::connect(port);
    (0..400).for_each(|_| assert_eq!(client.get("/").text(), "good"));
    let stats = proxy.stats();
    let copied = stats.mirrors + stats.mirrors_dropped;
    assert!((60..=140).contains(&copied), "{copied} of 400");
}
