//! Ends, restarts, and two agents in one place.
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::channel;

use pilus::proto::value::{Value, parse_json};

use crate::backend::Backend;
use crate::client::Client;
use crate::support::{Agent, CLASS, POOL, ingress, service, wait_until};

#[test]
fn sigterm_lets_a_request_finish_and_ends_with_0() {
    let (asked, is_asked) = channel();
    let (answer, may_answer) = channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let asked = std::sync::Mutex::new(asked);
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            asked.lock().unwrap().send(()).unwrap();
            may_answer.lock().unwrap().recv().unwrap();
            peer.answer("late, and whole");
        }
    });
    let mut agent = Agent::new("sigterm");
    let web = ingress("web", "a", &[("/", "web")], "");
    agent.write("base.yaml", &format!("{CLASS}{}{web}", service("web", backend.address)));
    agent.start();
    wait_until("the port is open", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, agent.http)).is_ok()
    });
    let mut client = Client::connect(agent.http);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    is_asked.recv().unwrap();
    agent.terminate();
    // It has heard the signal when it accepts nobody any more; the request is still on its way.
    wait_until("new connections are refused", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, agent.http)).is_err()
    });
    answer.send(()).unwrap();
    let response = client.response();
    assert_eq!((response.status(), response.text()), (200, "late, and whole"));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(agent.exit_code(), Some(0));
    assert!(!agent.folder.join("admin.sock").exists(), "its admin socket is still there");
    let printed = agent.run(&["status"]);
    assert_eq!(printed.code, 3, "{printed:?}");
    assert!(!agent.log().contains("panic"), "{}", agent.log());
}

#[test]
fn sigterm_without_work_ends_with_0() {
    let mut agent = Agent::new("idle");
    agent.start();
    // A connection that has asked for nothing does not hold it up.
    agent.write("base.yaml", &format!("{CLASS}{}", ingress("web", "a", &[("/", "web")], "")));
    agent.await_status("a", "/", 503);
    let idle = Client::connect(agent.http);
    agent.terminate();
    assert_eq!(agent.exit_code(), Some(0));
    drop(idle);
}

fn load_balancer(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n---\n"
    )
}

/// Services with their addresses.
fn addresses(agent: &Agent) -> Vec<(String, String)> {
    let list = agent.json(&["get", "svc"]);
    let entry = |service: &Value| {
        let text = |path: &[&str]| service.path(path).unwrap().as_str().unwrap().to_owned();
        let ip =
            service.path(&["status", "loadBalancer", "ingress"])?.items().first()?.get("ip")?;
        Some((text(&["metadata", "name"]), ip.as_str()?.to_owned()))
    };
    list.get("items").unwrap().items().iter().filter_map(entry).collect()
}

fn owned(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect()
}

#[test]
fn addresses_outlive_a_kill_though_files_sort_differently_now() {
    let mut agent = Agent::new("sigkill");
    agent.write("pool.yaml", POOL);
    agent.write("one.yaml", &load_balancer("m-first"));
    agent.start();
    let first = owned(&[("m-first", "192.0.2.1")]);
    wait_until("an address", || addresses(&agent) == first);
    agent.write("two.yaml", &load_balancer("z-second"));
    let both = owned(&[("m-first", "192.0.2.1"), ("z-second", "192.0.2.2")]);
    wait_until("the second address", || addresses(&agent) == both);
    // Written down, both of them.
    let saved = || fs::read(agent.folder.join("state/addresses")).unwrap_or_default();
    let holds = |name: &[u8]| saved().windows(name.len()).any(|part| part == name);
    wait_until("both are saved", || holds(b"m-first") && holds(b"z-second"));

    agent.kill();
    // By the rule for new Services, this one would get the first address: its name comes first.
    agent.remove("one.yaml");
    agent.write("zzz.yaml", &load_balancer("m-first"));
    agent.write("aaa.yaml", &load_balancer("a-new"));
    agent.start();
    let all = owned(&[("a-new", "192.0.2.3"), ("m-first", "192.0.2.1"), ("z-second", "192.0.2.2")]);
    wait_until("three addresses", || addresses(&agent).len() == 3);
    assert_eq!(addresses(&agent), all);

    // What the rule does without a memory: proof that the memory did it.
    agent.kill();
    fs::remove_dir_all(agent.folder.join("state")).unwrap();
    agent.start();
    let anew =
        owned(&[("a-new", "192.0.2.1"), ("m-first", "192.0.2.2"), ("z-second", "192.0.2.3")]);
    wait_until("three addresses", || addresses(&agent).len() == 3);
    assert_eq!(addresses(&agent), anew);
}

#[test]
fn a_killed_agent_leaves_nothing_that_stops_the_next() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("again");
    let web = ingress("web", "a", &[("/", "web")], "");
    agent.write("base.yaml", &format!("{CLASS}{}{web}", service("web", backend.address)));
    for _ in 0..3 {
        agent.start();
        agent.await_status("a", "/", 200);
        assert_eq!(agent.problems(), [""; 0]);
        agent.kill();
        assert!(agent.folder.join("admin.sock").exists(), "killed, and yet it has tidied up");
        let printed = agent.run(&["status"]);
        assert_eq!(printed.code, 3, "{printed:?}");
    }
}

#[test]
fn a_second_agent_on_the_same_socket_is_refused() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("second");
    let web = ingress("web", "a", &[("/", "web")], "");
    agent.write("base.yaml", &format!("{CLASS}{}{web}", service("web", backend.address)));
    agent.start();
    agent.await_status("a", "/", 200);
    let second = agent.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    let (_, message) = text.trim_end().split_once(" ERROR ").unwrap();
    let says = "is in use by another process; is an agent running already? Give each its own --admin, \
                --metrics and --state-dir";
    assert_eq!(message, format!("{} {says}", agent.admin()));
    // The first has not noticed.
    assert_eq!(agent.get("a", "/").text(), "web");
    assert_eq!(agent.run(&["status"]).code, 0);
}

/// The paths in an access log, in order.
fn logged(text: &str) -> Vec<String> {
    let path = |line: &str| parse_json(line).unwrap().text_at("path").to_owned();
    text.lines().map(path).collect()
}

#[test]
fn the_access_log_on_standard_output_is_whole_at_the_end() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("log-stdout");
    agent.configure("proxy: {access-log: stdout}\n");
    let web = ingress("web", "a", &[("/", "web")], "");
    agent.write("base.yaml", &format!("{CLASS}{}{web}", service("web", backend.address)));
    agent.start();
    agent.await_status("a", "/ready", 200);
    for number in 0..100 {
        assert_eq!(agent.get("a", &format!("/{number}")).status(), 200);
    }
    // SIGHUP is for files; it ends nothing.
    agent.signal("-HUP");
    assert_eq!(agent.get("a", "/last").status(), 200);
    agent.terminate();
    assert_eq!(agent.exit_code(), Some(0));
    let expected = (0..100).map(|number| format!("/{number}")).chain(["/last".to_owned()]);
    let paths = logged(&agent.output());
    let start = paths.len() - 101;
    assert_eq!(paths[start..], expected.collect::<Vec<_>>());
    assert!(paths[..start].iter().all(|path| path == "/ready"), "{paths:?}");
    assert!(agent.output().contains("\"route\":\"Ingress/default/web\""), "{}", agent.output());
}

#[test]
fn sighup_opens_the_access_log_again() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("log-file");
    let file = agent.folder.join("access.log");
    agent.configure(&format!("proxy: {{access-log: {}}}\n", file.display()));
    let web = ingress("web", "a", &[("/", "web")], "");
    agent.write("base.yaml", &format!("{CLASS}{}{web}", service("web", backend.address)));
    agent.start();
    agent.await_status("a", "/", 200);
    let moved = agent.folder.join("access.log.1");
    fs::rename(&file, &moved).unwrap();
    agent.signal("-HUP");
    wait_until("there is a new file", || file.exists());
    assert_eq!(agent.get("a", "/new").status(), 200);
    let text = || fs::read_to_string(&file).unwrap();
    wait_until("it is written to", || text().ends_with('\n'));
    assert_eq!(logged(&text()), ["/new"]);
    // A directory that is gone: the log goes on where it is, and so does everything else.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    agent.signal("-HUP");
    wait_until("it is said", || agent.log().contains("it goes on where it was"));
    assert_eq!(agent.get("a", "/x").status(), 200);
    let settings = agent.good(&["config", "view"]);
    assert!(settings.contains(&file.display().to_string()), "{settings}");
}

#[test]
fn an_access_log_that_cannot_be_written_is_refused_by_check_and_at_the_start() {
    let agent = Agent::new("log-bad");
    fs::create_dir(agent.folder.join("there")).unwrap();
    let (here, config) = (agent.folder.display().to_string(), agent.folder.join("pilus.yaml"));
    for (file, why) in [
        (
            "none/access.log",
            format!(
                "{here}/none/access.log cannot be written to: No such file or directory (os error 2); make the \
                 directory {here}/none, or name a file in one that there is"
            ),
        ),
        (
            "there",
            format!(
                "{here}/there cannot be written to: Is a directory (os error 21); name a file in it"
            ),
        ),
    ] {
        fs::write(&config, format!("proxy: {{access-log: {here}/{file}}}\n")).unwrap();
        let expected = format!("pilus.yaml: proxy.access-log: {why}\n");
        let checked = agent.run(&["check", "--config", "pilus.yaml", "m"]);
        assert_eq!((checked.code, &*checked.err), (1, &*expected));
        let started = agent.command().output().unwrap();
        assert_eq!(String::from_utf8(started.stderr).unwrap(), expected);
        assert_eq!(started.status.code(), Some(1));
    }
}
