//! The access log, read as those who watch it read it: from the file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pilus::api::address::Network;
use pilus::api::config::{AccessLog, Config, LogFormat};
use pilus::api::meta::{Kind, NamespacedName, ObjectKey};
use pilus::api::route::{
    Action, Backend as To, ExternalAuth, Listener, ListenerProtocol, Route, Target,
};
use pilus::proto::value::{Value, parse_json};
use support::backend::{Backend, WATCHDOG};
use support::client::Client;
use support::http2::Http2;
use support::{ActionSpec, Front, NameSpec, RouteSpec, TestProxy, World, free_port, service_port};

/// A log file of this test's own.
struct Log {
    path: PathBuf,
}

impl Log {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pilus-log-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self { path }
    }

    fn config(&self, format: LogFormat) -> impl FnOnce() -> Config + Send + 'static {
        let access_log = Some(AccessLog::File(self.path.clone()));
        let access_log_format = format;
        let trusted = Network { address: "127.0.0.2".parse().unwrap(), length: 32 };
        move || Config {
            no_bpf: true,
            access_log,
            access_log_format,
            trusted_proxies: Arc::from([trusted]),
            ..Config::default()
        }
    }

    fn start(&self, world: World) -> TestProxy {
        TestProxy::with_config(self.config(LogFormat::Json), world)
    }

    /// Waits for so many lines, which are all there are.
    fn text(&self, lines: usize) -> String {
        wait_for("so many lines", || read(&self.path).matches('\n').count() >= lines);
        let text = read(&self.path);
        assert_eq!(text.lines().count(), lines, "{text}");
        text
    }

    fn lines(&self, lines: usize) -> Vec<Value> {
        self.text(lines).lines().map(|line| parse_json(line).unwrap()).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until something holds; the watchdog is only there so that a broken test ends.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let look = Duration::from_millis(2);
    let looks = WATCHDOG.as_millis() / look.as_millis();
    for _ in 0..looks {
        if holds() {
            return;
        }
        std::thread::sleep(look);
    }
    panic!("never happened: {what}");
}

fn number(line: &Value, name: &str) -> i64 {
    line.get(name).and_then(Value::as_int).unwrap_or(-1)
}

/// Status, flag, and bytes in both directions.
fn outcome(line: &Value) -> (i64, &str, i64, i64) {
    let [status, received, sent] =
        ["status", "bytes_received", "bytes_sent"].map(|it| number(line, it));
    (status, line.text_at("response_flags"), received, sent)
}

fn named(route: &mut Route) {
    let key = ObjectKey { kind: Kind::HttpRoute, name: NamespacedName::new("shop", "cart") };
    route.origins = vec![(key, "spec.rules[0]".to_owned())];
}

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

#[test]
fn a_forwarded_request_is_told_with_everything_that_is_known() {
    let backend = Backend::start(|mut peer| {
        while let Some((_, body)) = peer.request() {
            peer.answer(&"x".repeat(body.len() * 2));
        }
    });
    let port = free_port();
    let mut world = World::default();
    world.listeners.push(Front::http(port, vec![RouteSpec::all("web").with(named)]));
    world.serve("web", &[backend.address]);
    let log = Log::new("everything");
    let _proxy = log.start(world);
    let mut client = Client::from("127.0.0.2".parse::<IpAddr>().unwrap(), port);
    client.send(
        b"POST /a?token=\"1\" HTTP/1.1\r\nHost: Shop.example:80\r\nUser-Agent: a\"\\\xc2\x9b\r\nReferer: http://r/\r\n\
          X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Request-Id: of-the-proxy\r\nAuthorization: Bearer SECRET\r\n\
          Cookie: s=SECRET\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().body.len(), 10);
    assert_eq!(client.get("/again").status(), 200);
    let text = log.text(2);
    assert!(!text.contains("SECRET"), "{text}");
    let lines = log.lines(2);
    for (name, expected) in [
        ("client_address", "203.0.113.7"),
        ("peer_address", "127.0.0.2"),
        ("method", "POST"),
        ("authority", "Shop.example:80"),
        ("path", "/a?token=\"1\""),
        ("protocol", "HTTP/1.1"),
        ("request_id", "of-the-proxy"),
        ("user_agent", "a\"\\\u{9b}"),
        ("referer", "http://r/"),
        ("local_address", &format!("127.0.0.1:{port}")),
        ("route", "HTTPRoute/shop/cart"),
        ("response_code_details", "via_upstream"),
        ("upstream_address", &backend.address.to_string()),
    ] {
        assert_eq!(lines[0].text_at(name), expected, "{name}");
    }
    assert_eq!(outcome(&lines[0]), (200, "-", 5, 10));
    assert!(number(&lines[0], "duration_ms") >= 0);
    let time = lines[0].text_at("time");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    // The next on the connection has nothing of the one before.
    assert_eq!(outcome(&lines[1]), (200, "-", 0, 0));
    assert_eq!(lines[1].text_at("client_address"), "127.0.0.2");
    for name in ["peer_address", "referer", "user_agent"] {
        assert!(lines[1].get(name).is_none(), "{name}");
    }
    assert_eq!(lines[1].text_at("request_id").len(), 36, "one was made");
}

/// A world with an answer of every kind, by path.
fn answers(port: u16, web: &Backend, broken: &Backend) -> World {
    let mut world = World::default();
    let refuse = ActionSpec::Refuse(500, "no".to_owned());
    let auth = |route: &mut Route| {
        route.filters.auth = Some(Arc::new(ExternalAuth {
            backend: To::new(service_port("auth"), 1),
            grpc: false,
            path: "/".into(),
            allowed_headers: Vec::new(),
            allowed_response_headers: Vec::new(),
            body_limit: None,
        }));
    };
    let missing = |route: &mut Route| {
        let Action::Forward(backends) = &mut route.action else { return };
        backends[0].target = Target::Refuse(503, "no such Service".to_owned());
    };
    world.listeners.push(Front::http(
        port,
        vec![
            RouteSpec::to("a", "/web", "web"),
            RouteSpec::to("a", "/empty", "empty"),
            RouteSpec::to("a", "/dead", "dead"),
            RouteSpec::to("a", "/broken", "broken"),
            RouteSpec::to("a", "/auth", "web").with(auth),
            RouteSpec::to("a", "/missing", "web").with(missing),
            RouteSpec {
                timeout: Some(Duration::from_millis(20)),
                ..RouteSpec::to("a", "/slow", "slow")
            },
            RouteSpec { action: refuse, ..RouteSpec::to("a", "/refused", "web") },
            RouteSpec {
                action: ActionSpec::RedirectHttps(443),
                ..RouteSpec::to("a", "/https", "web")
            },
        ],
    ));
    let denying = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.say("HTTP/1.1 401 No\r\ncontent-length: 6\r\n\r\ndenied");
        }
    });
    let slow = Backend::start(|mut peer| {
        peer.request();
        peer.rest();
    });
    world.serve("web", &[web.address]);
    world.serve("broken", &[broken.address]);
    world.serve("dead", &[nobody()]);
    world.serve("auth", &[denying.address]);
    world.serve("slow", &[slow.address]);
    world
}

/// Path, and what the log must say: status, flag, details.
const ANSWERS: &[(&str, u16, &str, &str)] = &[
    ("/web", 200, "-", "via_upstream"),
    ("/nowhere", 404, "NR", "route_not_found"),
    ("/empty", 503, "UH", "no_healthy_upstream"),
    ("/dead", 503, "UF", "upstream_connection_failure"),
    ("/broken", 502, "UPE", "upstream_protocol_error"),
    ("/auth", 401, "UAEX", "ext_authz_denied"),
    ("/missing", 503, "-", "direct_response"),
    ("/slow", 504, "UT", "upstream_response_timeout"),
    ("/refused", 500, "-", "direct_response"),
    ("/https", 301, "-", "direct_response"),
];

#[test]
fn every_answer_has_a_line_that_says_why() {
    let web = Backend::answering("web");
    let broken = Backend::start(|mut peer| {
        peer.request();
        peer.say("nonsense\r\n\r\n");
    });
    for is_http2 in [false, true] {
        let log = Log::new(if is_http2 { "answers2" } else { "answers1" });
        let port = free_port();
        let proxy = log.start(answers(port, &web, &broken));
        let mut lengths = Vec::new();
        let mut http2 = is_http2.then(|| Http2::connect(port));
        for (path, status, ..) in ANSWERS {
            let (got, length) = match &mut http2 {
                Some(client) => {
                    let came = client.get(path);
                    (came.status(), came.body.len())
                }
                None => {
                    let response = Client::connect(port).get(path);
                    (response.status(), response.body.len())
                }
            };
            assert_eq!(got, *status, "{path}");
            lengths.push(length as i64);
        }
        let lines = log.lines(ANSWERS.len());
        let protocol = if is_http2 { "HTTP/2" } else { "HTTP/1.1" };
        for ((line, length), (path, status, flag, details)) in
            lines.iter().zip(lengths).zip(ANSWERS)
        {
            assert_eq!(line.text_at("path"), *path);
            assert_eq!(line.text_at("protocol"), protocol);
            assert_eq!(outcome(line), (i64::from(*status), *flag, 0, length), "{path}");
            assert_eq!(line.text_at("response_code_details"), *details, "{path}");
        }
        assert_eq!(proxy.stats().access_log_lines_total, ANSWERS.len() as u64);
        assert_eq!(proxy.stats().access_log_dropped_total, 0);
    }
}

#[test]
fn what_is_no_request_and_who_goes_away_is_told_as_well() {
    let (hurry, hurried) = std::sync::mpsc::channel::<()>();
    let hurried = std::sync::Mutex::new(hurried);
    let backend = Backend::start(move |mut peer| {
        peer.request();
        let _ = hurried.lock().unwrap().recv();
        peer.rest();
    });
    let port = free_port();
    let log = Log::new("gone");
    let _proxy = log.start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(b"GET /\x00 HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    let line = &log.lines(1)[0];
    assert_eq!(outcome(line), (400, "DPE", 0, 0));
    assert!(line.get("method").is_none() && line.get("path").is_none());
    let mut client = Client::connect(port);
    client.send(b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("it is on its way", || backend.connections() > 0);
    reset(client);
    let line = &log.lines(2)[1];
    assert_eq!(outcome(line), (0, "DC", 0, 0));
    assert_eq!(line.text_at("path"), "/gone");
    drop(hurry);
}

/// Closes so that the other end sees a reset: with something unread. (An orderly close is a client that has no more to
/// say and waits for its answer.)
fn reset(client: Client) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let fd = client.stream.get_ref().as_raw_fd();
    #[expect(unsafe_code, reason = "the standard library sets no linger")]
    // SAFETY: the descriptor is open and `linger` lives through the call.
    let set = unsafe {
        let size = size_of::<libc::linger>() as u32;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
    };
    assert_eq!(set, 0);
    drop(client);
}

#[test]
fn an_upgrade_is_one_line_at_its_end() {
    let backend = Backend::start(|mut peer| {
        peer.head();
        peer.say("HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
        assert_eq!(peer.rest(), b"ping");
    });
    let port = free_port();
    let log = Log::new("upgrade");
    let proxy = log.start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    let mut hello = [0; 5];
    client.stream.read_exact(&mut hello).unwrap();
    assert_eq!(proxy.stats().access_log_lines_total, 0);
    client.send("ping");
    client.end();
    client.until_closed();
    let line = &log.lines(1)[0];
    assert_eq!(outcome(line), (101, "-", 4, 5));
    assert_eq!(line.text_at("path"), "/ws");
}

fn raw(protocol: ListenerProtocol) -> impl Fn(&mut Listener) + Send + Sync + 'static {
    move |listener| {
        listener.protocol = protocol;
        let mut route = Route::new(Action::Forward(vec![To::new(service_port("web"), 1)]));
        named(&mut route);
        listener.forward = Some(Arc::new(route));
    }
}

#[test]
fn connections_and_flows_have_a_line_each() {
    let backend = Backend::start(|mut peer| {
        peer.say("welcome");
        peer.rest();
    });
    let (tcp, tls, dead, udp) = (free_port(), free_port(), free_port(), free_port());
    let front = |port, protocol| Front {
        shape: Some(Arc::new(raw(protocol))),
        ..Front::http(port, Vec::new())
    };
    let mut world = World::default();
    world.listeners.push(front(tcp, ListenerProtocol::Tcp));
    world.listeners.push(front(udp, ListenerProtocol::Udp));
    world.listeners.push(Front {
        tls: true,
        names: vec![("pass.test".to_owned(), NameSpec::Passthrough("web".to_owned()))],
        ..Front::http(tls, Vec::new())
    });
    let unreachable = |listener: &mut Listener| {
        listener.protocol = ListenerProtocol::Tcp;
        let to = vec![To::new(service_port("dead"), 1)];
        listener.forward = Some(Arc::new(Route::new(Action::Forward(to))));
    };
    world
        .listeners
        .push(Front { shape: Some(Arc::new(unreachable)), ..Front::http(dead, Vec::new()) });
    world.serve("web", &[backend.address]);
    world.serve("dead", &[nobody()]);
    let echo = UdpSocket::bind(backend.address).unwrap();
    let log = Log::new("connections");
    let proxy = log.start(world.clone());

    let mut client = Client::connect(tcp);
    client.send("hi");
    client.end();
    assert_eq!(client.until_closed(), b"welcome");
    let line = &log.lines(1)[0];
    assert_eq!(outcome(line), (-1, "-", 2, 7));
    assert_eq!((line.text_at("protocol"), line.text_at("route")), ("TCP", "HTTPRoute/shop/cart"));
    assert_eq!(line.text_at("local_address"), format!("127.0.0.1:{tcp}"));
    assert_eq!(line.text_at("upstream_address"), backend.address.to_string());

    let mut client = Client::connect(tls);
    client.send(hello("pass.test"));
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.until_closed(), b"welcome");
    let line = &log.lines(2)[1];
    assert_eq!((line.text_at("protocol"), line.text_at("server_name")), ("TLS", "pass.test"));
    assert_eq!(outcome(line), (-1, "-", hello("pass.test").len() as i64, 7));

    let mut client = Client::connect(dead);
    let _ = client.stream.read(&mut [0]);
    let line = &log.lines(3)[2];
    assert_eq!(outcome(line), (-1, "UF", 0, 0));
    assert!(line.get("upstream_address").is_none());

    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    echo.set_read_timeout(Some(WATCHDOG)).unwrap();
    client.send_to(b"question", (Ipv4Addr::LOCALHOST, udp)).unwrap();
    let mut bytes = [0; 64];
    let (length, from) = echo.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"question");
    echo.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv(&mut bytes).unwrap(), 6);
    // Its endpoint goes away, and with the next datagram the flow.
    world.serve("web", &[]);
    proxy.update(world);
    client.send_to(b"?", (Ipv4Addr::LOCALHOST, udp)).unwrap();
    let line = &log.lines(4)[3];
    assert_eq!(outcome(line), (-1, "-", 8, 6));
    assert_eq!((line.text_at("protocol"), line.text_at("client_address")), ("UDP", "127.0.0.1"));
}

/// A ClientHello with a server name and little else.
fn hello(name: &str) -> Vec<u8> {
    let len = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    let entry = [&[0][..], &len(name.as_bytes()), name.as_bytes()].concat();
    let list = [&len(&entry)[..], &entry].concat();
    let extension = [&[0, 0][..], &len(&list), &list].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &len(&extension), &extension]
            .concat();
    let message = [&[1, 0][..], &len(&body), &body].concat();
    [&[22, 3, 1][..], &len(&message), &message].concat()
}

#[test]
fn common_and_combined_are_what_apache_writes() {
    let backend = Backend::answering("hello");
    for (format, rest) in [(LogFormat::Common, ""), (LogFormat::Combined, " \"-\" \"a\\\"\\xff\"")]
    {
        let log = Log::new(format.name());
        let port = free_port();
        let config = log.config(format);
        let _proxy = TestProxy::with_config(config, World::simple(port, &[backend.address]));
        let mut client = Client::connect(port);
        client.send(b"GET /a%20b?\"q HTTP/1.1\r\nHost: a\r\nUser-Agent: a\"\xff\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
        let text = log.text(1);
        let (start, end) = (text.find('[').unwrap(), text.find(']').unwrap());
        assert_eq!(&text[..start], "127.0.0.1 - - ");
        assert_eq!(&text[end + 1..], format!(" \"GET /a%20b?\\\"q HTTP/1.1\" 200 5{rest}\n"));
        assert!(text[start..end].ends_with(" +0000"), "{text}");
    }
}

#[test]
fn a_log_that_was_moved_goes_on_in_a_new_file() {
    let backend = Backend::answering("hello");
    let port = free_port();
    let log = Log::new("moved");
    let proxy = log.start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.get("/before");
    log.text(1);
    let moved = log.path.with_extension("1");
    fs::rename(&log.path, &moved).unwrap();
    client.get("/between");
    wait_for("the old file is still written to", || read(&moved).matches('\n').count() == 2);
    proxy.reopen_logs();
    wait_for("there is a new file", || log.path.exists());
    client.get("/after");
    let text = log.text(1);
    assert!(text.contains("/after") && !read(&moved).contains("/after"), "{text}");
    assert!(read(&moved).contains("/between"));
    fs::remove_file(moved).unwrap();
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nobody() {
    let backend = Backend::answering("hello");
    let port = free_port();
    let log = Log::new("pipe");
    assert!(Command::new("mkfifo").arg(&log.path).status().unwrap().success());
    let open = |path: &Path| {
        fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    };
    let mut reader = open(&log.path);
    let proxy = log.start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    let long = "x".repeat(3_000);
    let mut asked = 0;
    // The pipe has 64 KiB, the ring 256.
    while proxy.stats().access_log_dropped_total < 10 {
        assert_eq!(client.get(&format!("/{long}")).text(), "hello");
        asked += 1;
        assert!(asked < 10_000, "nothing is lost");
    }
    let (lines, dropped) = {
        let stats = proxy.stats();
        (stats.access_log_lines_total, stats.access_log_dropped_total)
    };
    assert_eq!(lines + dropped, asked);
    // What was taken is whole.
    let mut text = Vec::new();
    wait_for("the reader gets the rest", || {
        let _ = reader.read_to_end(&mut text);
        text.iter().filter(|byte| **byte == b'\n').count() as u64 == lines
    });
    for line in String::from_utf8(text).unwrap().lines() {
        assert_eq!(outcome(&parse_json(line).unwrap()), (200, "-", 0, 5));
    }
}

#[test]
fn a_full_disk_costs_lines_and_not_requests() {
    let backend = Backend::answering("hello");
    let port = free_port();
    let full = || Config {
        no_bpf: true,
        access_log: Some(AccessLog::File("/dev/full".into())),
        ..Config::default()
    };
    let proxy = TestProxy::with_config(full, World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    // The loss of a line is known when a later one is written.
    let mut asked = 0;
    wait_for("losses are counted", || {
        asked += 1;
        assert_eq!(client.get("/").text(), "hello");
        proxy.stats().access_log_dropped_total >= 3
    });
    let stats = proxy.stats();
    assert_eq!(stats.access_log_lines_total, asked);
    assert!(stats.access_log_write_errors_total > 0);
    assert!(stats.access_log_dropped_total <= asked);
}
