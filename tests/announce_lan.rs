//! The announce server and the LAN driver on real sockets, in network namespaces (root).
//!
//! The agent under test is this test program again, started inside a namespace; the other side is
//! keepalived, an independent implementation of VRRP.
#![expect(clippy::unwrap_used, reason = "a test: whatever fails should end it with its place")]
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pilus::api::address::{Assignments, IfIndex, MacAddr};
use pilus::api::announce::{Announcements, Role};
use pilus::api::config::Config;
use pilus::api::endpoint::Endpoints;
use pilus::api::interface::{Interface, Interfaces, Prefix};
use pilus::api::meta::{Meta, NamespacedName};
use pilus::api::object::{L2Policy, Node, Service, ServiceType};
use pilus::api::objects::Objects;
use pilus::api::{Message, wiring};
use pilus::io::event_loop::{self, EventLoop};
use pilus::io::lan::Lan;
use pilus::io::reactor::Timer;
use pilus::io::{clock, event_loop::spawn};
use pilus::kernel::{Kernel, Outbox, Server, ServerId, Time, Wiring, run};
use pilus::server::announce::Announce;

const A: &str = "pilus-announce-a";
const B: &str = "pilus-announce-b";
const VIP: &str = "192.0.2.10";

/// Removes the namespaces, also after a failure.
struct Namespaces;

impl Namespaces {
    fn new() -> Self {
        let guard = Self;
        guard.remove();
        for (ns, address) in [(A, "192.0.2.1/24"), (B, "192.0.2.2/24")] {
            ip(&format!("netns add {ns}"));
            if ns == B {
                ip(&format!("link add eth1 netns {A} type veth peer name eth1 netns {B}"));
                ip(&format!("-n {A} addr add 192.0.2.1/24 dev eth1"));
                ip(&format!("-n {B} addr add {address} dev eth1"));
            }
        }
        for ns in [A, B] {
            ip(&format!("-n {ns} link set lo up"));
            ip(&format!("-n {ns} link set eth1 up"));
        }
        guard
    }

    fn remove(&self) {
        for ns in [A, B] {
            let delete =
                Command::new("ip").args(["netns", "del", ns]).stderr(Stdio::null()).status();
            delete.expect("ip runs");
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn in_namespace(ns: &str, command: &[&str]) -> Command {
    let mut ip = Command::new("ip");
    ip.args(["netns", "exec", ns]).args(command);
    ip
}

fn keepalived(priority: u8, directory: &std::path::Path) -> (Child, std::path::PathBuf) {
    let config = directory.join(format!("keepalived-{priority}.conf"));
    let log = directory.join(format!("keepalived-{priority}.log"));
    let text = format!(
        "global_defs {{\n vrrp_version 3\n}}\nvrrp_instance test {{\n state BACKUP\n interface eth1\n \
         virtual_router_id 1\n priority {priority}\n advert_int 0.1\n virtual_ipaddress {{\n {VIP}\n }}\n}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let file = std::fs::File::create(&log).unwrap();
    let pid = |name: &str| directory.join(name).display().to_string();
    let child = in_namespace(
        B,
        &[
            "keepalived",
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            "--pid",
            &pid("k.pid"),
            "--vrrp_pid",
            &pid("v.pid"),
            "--use-file",
            &config.display().to_string(),
        ],
    )
    .stdout(file.try_clone().unwrap())
    .stderr(file)
    .spawn()
    .unwrap();
    (child, log)
}

fn stop(mut child: Child) {
    // keepalived takes its address away again when it is asked to end.
    let pid = child.id().to_string();
    Command::new("kill").arg(&pid).status().unwrap();
    child.wait().unwrap();
}

/// Runs the agent in namespace A for some seconds; returns what it said.
fn agent(seconds: u64) -> String {
    let exe = std::env::current_exe().unwrap();
    let exe = exe.to_str().unwrap();
    let output = in_namespace(A, &[exe, "--exact", "the_agent_itself", "--nocapture"])
        .env("PILUS_LAN_AGENT", seconds.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn keepalived_and_the_agent_understand_each_other() {
    let root = Command::new("id").arg("-u").output().unwrap();
    assert_eq!(root.stdout, b"0\n", "this test makes network namespaces: run it as root");
    let _namespaces = Namespaces::new();
    let directory = std::env::temp_dir().join(format!("pilus-announce-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();

    // The agent alone, seen from the wire.
    let dump = in_namespace(B, &["tcpdump", "-i", "eth1", "-n", "-e", "-v", "-l", "-c", "12"])
        .arg("ip proto 112 or arp")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = agent(2);
    let seen = String::from_utf8_lossy(&dump.wait_with_output().unwrap().stdout).into_owned();
    assert!(said.contains("Holder"), "{said}");
    assert!(seen.contains("ttl 255"), "{seen}");
    assert!(seen.contains("192.0.2.1 > 224.0.0.18"), "{seen}");
    assert!(seen.contains("vrid 1, prio 254, intvl 10cs"), "{seen}");
    assert!(!seen.contains("bad vrrp cksum"), "{seen}");
    assert!(
        seen.contains("who-has 192.0.2.10 (ff:ff:ff:ff:ff:ff) tell 0.0.0.0")
            || seen.contains("who-has 192.0.2.10 tell 0.0.0.0"),
        "a probe: {seen}"
    );
    assert!(
        seen.contains("who-has 192.0.2.10 tell 192.0.2.10")
            || seen.contains("Reply 192.0.2.10 is-at"),
        "{seen}"
    );

    // keepalived ranks lower: it takes the agent's advertisements for a master's.
    let (child, log) = keepalived(100, &directory);
    let said = agent(5);
    stop(child);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("Holder"), "{said}");
    assert!(log.contains("Entering BACKUP STATE"), "{log}");
    assert!(!log.to_lowercase().contains("checksum"), "{log}");
    // It may become master before the agent is up, but its last word is that it yields.
    let (backup, master) = (log.rfind("Entering BACKUP STATE"), log.rfind("Entering MASTER STATE"));
    assert!(backup > master, "{log}");

    // keepalived ranks higher: the agent hears it and stays silent.
    let (child, log) = keepalived(255, &directory);
    std::thread::sleep(Duration::from_secs(3));
    let said = agent(2);
    stop(child);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("Entering MASTER STATE"), "{log}");
    assert!(said.contains("Standby of 192.0.2.2"), "{said}\n{log}");
    assert!(!said.contains("Holder"), "{said}");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// A server that knows the configuration and prints who holds the address.
struct Neighbour {
    id: ServerId,
    messages: Arc<Vec<(ServerId, Message)>>,
    last: RefCell<String>,
}

impl Server<Message> for Neighbour {
    fn start(&mut self, _now: Time, out: &mut Outbox<Message>) {
        for (from, message) in self.messages.iter().filter(|(from, _)| *from == self.id) {
            assert_eq!(*from, self.id);
            out.send(wiring::ANNOUNCE, message.clone());
        }
    }
    fn handle(
        &mut self,
        _now: Time,
        _from: ServerId,
        message: Message,
        _out: &mut Outbox<Message>,
    ) {
        if let Message::Announcements(all) = message {
            self.show(&all);
        }
    }
}

impl Neighbour {
    fn show(&self, all: &Announcements) {
        for it in &all.list {
            let line = match it.role {
                Role::Standby => format!("Standby of {}", it.holder.as_deref().unwrap_or("nobody")),
                role => format!("{role:?}"),
            };
            if *self.last.borrow() != line {
                println!("{line} ({})", it.why);
                *self.last.borrow_mut() = line;
            }
        }
    }
}

/// Not a check by itself: the agent that the test above starts in a namespace.
#[test]
fn the_agent_itself() {
    let Ok(seconds) = std::env::var("PILUS_LAN_AGENT") else { return };
    let seconds = seconds.parse().unwrap();
    let messages = Arc::new(inputs());
    let mut kernel = Kernel::new();
    let ids = [
        wiring::NETLINK,
        wiring::STORE,
        wiring::IPAM,
        wiring::ENDPOINT,
        wiring::DATAPATH,
        wiring::BPF,
        wiring::ADMIN,
    ];
    for id in ids {
        let messages = Arc::clone(&messages);
        let build = move || -> Box<dyn Server<Message>> {
            Box::new(Neighbour { id, messages: Arc::clone(&messages), last: RefCell::default() })
        };
        let may_send = &[wiring::ANNOUNCE];
        kernel.add(Wiring { id, name: "neighbour", may_send, mailbox: 64, build: Box::new(build) });
    }
    let config = Arc::new(Config { node: "node-a".into(), ..Config::default() });
    kernel.add(Wiring {
        id: wiring::ANNOUNCE,
        name: "announce",
        may_send: &[wiring::LAN, wiring::STORE, wiring::DATAPATH, wiring::BPF, wiring::ADMIN],
        mailbox: 1024,
        build: Box::new(move || Box::new(Announce::new(Arc::clone(&config), 0))),
    });
    let mailer = kernel.mailer(wiring::LAN);
    kernel.add(Wiring {
        id: wiring::LAN,
        name: "lan",
        may_send: &[wiring::ANNOUNCE, wiring::IPAM],
        mailbox: 1024,
        build: Box::new(move || Box::new(Lan::new(mailer.clone()))),
    });
    spawn(async move {
        Timer::at(clock::now() + Duration::from_secs(seconds)).await;
        event_loop::stop();
    })
    .detach();
    run(&mut kernel, &mut EventLoop);
}

fn inputs() -> Vec<(ServerId, Message)> {
    let read = |file: &str| {
        let text = std::fs::read_to_string(format!("/sys/class/net/eth1/{file}")).unwrap();
        text.trim().to_owned()
    };
    let index = IfIndex(read("ifindex").parse().unwrap());
    let mac: MacAddr = read("address").parse().unwrap();
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let interface = Interface {
        index,
        name: "eth1".into(),
        mac,
        up: true,
        loopback: false,
        port: false,
        kind: "".into(),
        addresses: vec![Prefix { address, length: 24 }],
    };
    let (service, node) =
        (NamespacedName::new("default", "web"), NamespacedName::new("", "node-a"));
    let meta = |name: &NamespacedName| Meta { name: name.clone(), ..Meta::default() };
    let policy = L2Policy { load_balancer_ips: true, ..L2Policy::default() };
    let objects = Objects {
        nodes: Arc::new(BTreeMap::from([(
            node.clone(),
            Arc::new(Node { meta: meta(&node), internal_ips: vec![address], ..Node::default() }),
        )])),
        services: Arc::new(BTreeMap::from([(
            service.clone(),
            Arc::new(Service {
                meta: meta(&service),
                kind: ServiceType::LoadBalancer,
                ..Service::default()
            }),
        )])),
        l2_policies: Arc::new(BTreeMap::from([(NamespacedName::new("", "all"), Arc::new(policy))])),
        ..Objects::default()
    };
    let assignments = Assignments {
        by_service: BTreeMap::from([(service, vec![VIP.parse().unwrap()])]),
        ..Assignments::default()
    };
    vec![
        (wiring::NETLINK, Message::Interfaces(Arc::new(Interfaces { list: vec![interface] }))),
        (wiring::STORE, Message::Objects(Arc::new(objects))),
        (wiring::IPAM, Message::Assignments(Arc::new(assignments))),
        (wiring::ENDPOINT, Message::Endpoints(Arc::new(Endpoints::default()))),
    ]
}
