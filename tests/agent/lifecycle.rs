//! Ends, restarts, and two agents in one place.
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::channel;

use pilus::proto::value::Value;

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
