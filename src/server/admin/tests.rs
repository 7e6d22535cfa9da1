use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Scope, answer};
use super::http::parse;
use super::moment::Moment;
use super::state::State;
use super::{Admin, AdminSockets};
use crate::api::config::Config;
use crate::api::{Message, wiring};
use crate::io::admin_socket::{AdminSocket, SocketError};
use crate::io::event_loop::EventLoop;
use crate::kernel::{Driver, Kernel, Time};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pilus-admin-{name}-{}/run/admin.sock", std::process::id()))
}

fn bind(name: &str) -> (String, AdminSocket) {
    let address = format!("unix:{}", path(name).display());
    let socket = AdminSocket::bind_admin(&address).unwrap();
    (address, socket)
}

/// Runs an admin server on this thread while `client` works on another, and returns what it returns.
fn with_server<T: Send + 'static>(
    name: &str,
    client: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let (_, socket) = bind(name);
    let sockets = AdminSockets { admin: Some(socket), metrics: None };
    let kernel: Kernel<Message> = Kernel::new();
    let mailer = kernel.mailer(wiring::ADMIN);
    let _admin = Admin::new(Arc::new(Config::default()), Time::ZERO, mailer, &sockets);
    let path = path(name);
    let worker = std::thread::spawn(move || client(path));
    let mut driver = EventLoop;
    while !worker.is_finished() {
        let busy = driver.run_tasks();
        let soon = driver.now() + Duration::from_millis(2);
        driver.wait(Some(if busy { Time::ZERO } else { soon }));
    }
    worker.join().unwrap()
}

fn send(path: &PathBuf, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn questions_follow_each_other_on_one_connection() {
    let answers = with_server("pipeline", |path| {
        send(&path, b"GET /healthz HTTP/1.1\r\n\r\nGET /v1/services HTTP/1.1\r\n\r\nGET /nope HTTP/1.1\r\nConnection: close\r\n\r\n")
    });
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 404 Not Found\r\n").count(), 1, "{answers}");
    assert!(answers.contains("transfer-encoding: chunked"), "{answers}");
    assert!(answers.contains("\"kind\":\"ServiceList\""), "{answers}");
}

#[test]
fn hostile_bytes_get_an_error_or_nothing_and_the_server_goes_on() {
    let (answers, last) = with_server("hostile", |path| {
        let huge = [b"GET /".as_slice(), &[b'a'; 100_000]].concat();
        let cases: [&[u8]; 6] = [
            b"",
            b"\0\xff\x16\x03garbage\r\n\r\n",
            &huge,
            b"POST /v1/status HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"GET /v1/objects/..%2F..%2Fetc%2Fpasswd HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET /v1/status HTTP/1.1\r\nHalf: a he",
        ];
        let answers = cases.map(|case| send(&path, case));
        (answers, send(&path, b"GET /healthz HTTP/1.0\r\n\r\n"))
    });
    let status = |text: &str| text.split(' ').nth(1).unwrap_or_default().to_owned();
    let statuses: Vec<String> = answers.iter().map(|text| status(text)).collect();
    // The huge head may be answered or, since it was not read to its end, reset.
    assert!(statuses[2] == "431" || statuses[2].is_empty(), "{statuses:?}");
    assert_eq!(statuses[..2], ["", "400"]);
    assert_eq!(statuses[3..], ["405", "404", ""]);
    assert!(last.ends_with("\r\n\r\nok\n"), "{last}");
}

#[test]
fn too_many_connections_are_told_so_and_the_places_come_back() {
    let (refused, after) = with_server("many", |path| {
        let idle: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let mut one_more = UnixStream::connect(&path).unwrap();
        let mut refused = String::new();
        let _ = one_more.read_to_string(&mut refused);
        drop(idle);
        let mut after = String::new();
        // Their ends are seen some turns later.
        while !after.ends_with("ok\n") {
            after = send(&path, b"GET /healthz HTTP/1.0\r\n\r\n");
        }
        (refused, after)
    });
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(after.starts_with("HTTP/1.1 200 "), "{after}");
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_others() {
    let other = with_server("slow", |path| {
        let mut slow = UnixStream::connect(&path).unwrap();
        // Far more answers than the socket's buffers hold.
        let questions = b"GET /metrics HTTP/1.1\r\n\r\n".repeat(400);
        slow.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = slow.write_all(&questions);
        send(&path, b"GET /healthz HTTP/1.0\r\n\r\n")
    });
    assert!(other.ends_with("ok\n"), "{other}");
}

#[test]
fn the_socket_is_private_and_a_stale_one_is_replaced() {
    let name = "socket";
    let (address, socket) = bind(name);
    let mode = std::fs::metadata(path(name)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let error = AdminSocket::bind_admin(&address).unwrap_err();
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    drop(socket);
    assert!(!path(name).exists());
    // As a killed agent leaves it: a file without a listener.
    drop(std::os::unix::net::UnixListener::bind(path(name)).unwrap());
    assert!(path(name).exists());
    let (_, socket) = bind(name);
    drop(socket);
    std::fs::write(path(name), "precious").unwrap();
    let error = AdminSocket::bind_admin(&address).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(path(name)).unwrap(), "precious");
    std::fs::remove_dir_all(path(name).parent().unwrap().parent().unwrap()).unwrap();
}

#[test]
fn the_admin_address_must_be_a_loopback_address() {
    for address in ["0.0.0.0:0", "192.168.10.100:8080", "[::]:0"] {
        let error = AdminSocket::bind_admin(address).unwrap_err();
        assert!(matches!(error, SocketError::NotLoopback(_)), "{error}");
    }
    for address in ["", "unix:", "example.org:80", "127.0.0.1"] {
        let error = AdminSocket::bind_admin(address).unwrap_err();
        assert!(matches!(error, SocketError::BadAddress(_)), "{error}");
    }
    let socket = AdminSocket::bind_admin("localhost:0").unwrap();
    let address = socket.address().to_string();
    let error = AdminSocket::bind_metrics(&address).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

fn ask(scope: Scope, target: &str) -> (u16, String) {
    let state = State::new(Arc::new(Config::default()));
    let text = format!("GET {target} HTTP/1.1\r\n\r\n");
    let (request, _) = parse(text.as_bytes()).unwrap().unwrap();
    let moment = Moment { time: Time::from_nanos(5_000_000_000), unix: 1_000 };
    let answer = answer(&state, moment, scope, &request);
    (answer.status, answer.text())
}

#[test]
fn the_metrics_address_serves_metrics_only() {
    assert_eq!(ask(Scope::Metrics, "/v1/objects/secrets").0, 404);
    assert_eq!(ask(Scope::Metrics, "/healthz"), (200, "ok\n".to_owned()));
    let (status, text) = ask(Scope::Metrics, "/metrics");
    assert_eq!(status, 200);
    for name in [
        "pilus_build_info{version=",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "pilus_lbipam_conflicting_pools 0",
        "pilus_lbipam_services_matching 0",
        "pilus_lbipam_services_unsatisfied 0",
        "pilus_announced_addresses{role=\"Holder\"} 0",
        "pilus_objects{kind=\"Ingress\"} 0",
    ] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    for line in text.lines() {
        assert!(line.starts_with("# ") || line.split(' ').count() == 2, "{line}");
    }
}

#[test]
fn an_agent_that_knows_nothing_yet_answers_everything() {
    for target in [
        "/v1/status",
        "/v1/config",
        "/v1/services",
        "/v1/endpoints",
        "/v1/addresses",
        "/v1/routes",
        "/v1/objects/svc",
        "/v1/explain?url=http://a/",
    ] {
        let (status, text) = ask(Scope::Admin, target);
        assert_eq!(status, 200, "{target}");
        crate::proto::value::parse_json(&text).unwrap();
    }
    assert_eq!(ask(Scope::Admin, "/v1/explain?url=nonsense").0, 400);
    assert_eq!(ask(Scope::Admin, "/v1/objects/gatewaze").0, 404);
}
