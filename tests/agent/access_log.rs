//! The access log of the real program: what is in a line, rotation, and a disk that takes nothing.
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pilus::proto::value::{Value, parse_json};

use crate::backend::Backend;
use crate::client::Client;
use crate::support::{Agent, CLASS, ingress, service, wait_until};

/// An agent whose log goes to `target` in `format`, with one host and a backend that says "hello".
fn agent(name: &str, target: &str, format: &str) -> (Agent, Backend) {
    let agent = Agent::new(name);
    let config = fs::read_to_string(agent.folder.join("pilus.yaml")).unwrap();
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        agent.folder.join(target).display().to_string()
    };
    let proxy = format!("proxy: {{access-log: {target}, access-log-format: {format}}}\n");
    fs::write(agent.folder.join("pilus.yaml"), config + &proxy).unwrap();
    let backend = Backend::answering("hello");
    let base = [
        CLASS.to_owned(),
        service("a", backend.address),
        ingress("i", "a.test", &[("/", "a")], ""),
    ];
    agent.write("base.yaml", &base.concat());
    (agent, backend)
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "only whole lines are written");
    text.lines().map(str::to_owned).collect()
}

fn field<'v>(line: &'v Value, name: &str) -> &'v str {
    line.get(name).and_then(Value::as_str).unwrap_or("")
}

#[test]
fn each_request_is_one_line_of_json_whatever_it_says() {
    let (mut agent, backend) = agent("access-json", "access.log", "json");
    agent.start();
    agent.await_status("a.test", "/", 200);
    let log = agent.folder.join("access.log");
    let before = lines(&log).len();
    let mut client = Client::connect(agent.http);
    client.send(
        "GET /p?q=%22 HTTP/1.1\r\nhost: a.test\r\nauthorization: Bearer s3cret\r\ncookie: k=s3cret\r\n\
         user-agent: x\"\\\t\u{e9}\r\nreferer: http://r/\r\nx-request-id: 00000000-0000-4000-8000-000000000001\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    client.send("GET /nowhere HTTP/1.1\r\nhost: other.test\r\n\r\n");
    assert_eq!(client.response().status(), 404);
    client.send("GET / HTTP/1.1\r\nhost: bad host\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    wait_until("three lines", || lines(&log).len() >= before + 3);
    let text = lines(&log)[before..].join("\n");
    assert!(!text.contains("s3cret"));
    let all: Vec<Value> = text.lines().map(|line| parse_json(line).unwrap()).collect();
    // Whoever asked while the agent was starting may be among them.
    let all: Vec<Value> = all
        .into_iter()
        .filter(|line| field(line, "path") != "/" || field(line, "authority") != "a.test")
        .collect();
    assert_eq!(all.len(), 3, "{text}");
    let number = |line: &Value, name: &str| line.get(name).and_then(Value::as_int).unwrap_or(-1);
    let first = &all[0];
    assert_eq!((field(first, "method"), field(first, "path")), ("GET", "/p?q=%22"));
    assert_eq!((field(first, "authority"), field(first, "protocol")), ("a.test", "HTTP/1.1"));
    assert_eq!((number(first, "status"), number(first, "bytes_sent")), (200, 5));
    assert_eq!(field(first, "route"), "Ingress/default/i");
    assert_eq!(field(first, "upstream_address"), backend.address.to_string());
    assert_eq!(
        (field(first, "referer"), field(first, "client_address")),
        ("http://r/", "127.0.0.1")
    );
    assert!(field(first, "user_agent").starts_with("x\"\\"));
    assert_eq!(
        (field(first, "response_flags"), field(first, "response_code_details")),
        ("-", "via_upstream")
    );
    let second = &all[1];
    assert_eq!((number(second, "status"), field(second, "response_flags")), (404, "NR"));
    assert_eq!((number(&all[2], "status"), field(&all[2], "response_flags")), (400, "DPE"));
}

#[test]
fn a_moved_file_is_opened_anew_at_sighup_and_nothing_is_lost() {
    let (mut agent, _backend) = agent("access-hup", "access.log", "common");
    agent.start();
    agent.await_status("a.test", "/", 200);
    let (log, moved) = (agent.folder.join("access.log"), agent.folder.join("access.log.1"));
    wait_until("a line", || !lines(&log).is_empty());
    let before = lines(&log).len();
    fs::rename(&log, &moved).unwrap();
    for _ in 0..20 {
        assert_eq!(agent.get("a.test", "/old").status(), 200);
    }
    wait_until("what is said before the signal is in the old file", || {
        lines(&moved).len() == before + 20
    });
    let pid = agent.child.as_ref().unwrap().id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    wait_until("a new file", || log.exists());
    for _ in 0..20 {
        assert_eq!(agent.get("a.test", "/new").status(), 200);
    }
    wait_until("what is said after it is in the new one", || lines(&log).len() == 20);
    let last = lines(&log).pop().unwrap();
    assert!(
        last.starts_with("127.0.0.1 - - [") && last.ends_with("\"GET /new HTTP/1.1\" 200 5"),
        "{last}"
    );
    assert_eq!(lines(&moved).len(), before + 20);
    // Ended in order, everything said is written.
    assert_eq!(agent.get("a.test", "/last").status(), 200);
    agent.terminate();
    assert_eq!(agent.exit_code(), Some(0));
    assert_eq!(lines(&log).len(), 21);
}

#[test]
fn a_disk_that_takes_nothing_is_said_once_and_stops_nobody() {
    let (mut agent, _backend) = agent("access-full", "/dev/full", "json");
    agent.start();
    agent.await_status("a.test", "/", 200);
    for _ in 0..200 {
        assert_eq!(agent.get("a.test", "/").status(), 200);
    }
    wait_until("a complaint", || agent.log().contains("access log"));
    assert_eq!(agent.log().matches("No space left").count(), 1, "{}", agent.log());
}

#[test]
fn a_file_that_cannot_be_opened_is_said_at_the_start() {
    let (agent, _backend) = agent("access-none", "/nonexistent/access.log", "json");
    let output = agent.command().stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("access-log") && said.contains("/nonexistent"), "{said}");
}
