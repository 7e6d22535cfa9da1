//! Crashes each server of the real wiring table, one after the other, and sees the others go on.
#![expect(clippy::unwrap_used, reason = "a test that cannot do its step must fail")]
#[expect(dead_code, reason = "only the wiring of the program is used")]
#[path = "../src/main.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use pilus::api::config::{Config, IngressMode};
use pilus::api::wiring;
use pilus::io::event_loop::EventLoop;
use pilus::kernel::{Driver, Kernel, ServerId, ServerReport, ServerState};

const MANIFESTS: &str = "apiVersion: v1
kind: Pod
metadata: {name: backend, labels: {app: backend}}
spec: {containers: [{name: backend, ports: [{containerPort: PORT}]}]}
status: {podIP: 127.0.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec: {selector: {app: backend}, ports: [{port: 80, targetPort: PORT}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {ingressClassName: pilus, defaultBackend: {service: {name: backend, port: {number: 80}}}}
";

enum Order {
    Crash(ServerId),
    Report(Sender<Vec<ServerReport>>),
    Stop,
}

/// A backend that answers every connection once.
fn backend() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|length| length > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                stream.write_all(answer).unwrap();
            }
        }
    });
    port
}

fn run(folder: &Path, port: u16, orders: &Receiver<Order>) {
    let config = Config {
        manifests: vec![folder.join("m")],
        state_dir: folder.join("state"),
        admin: format!("unix:{}", folder.join("admin.sock").display()),
        metrics: String::new(),
        no_bpf: true,
        ingress_mode: IngressMode::Shared,
        host_ports: (port, port + 1),
        ..Config::default()
    };
    let mut kernel = Kernel::new();
    let sockets = pilus::server::admin::AdminSockets::open(&config).unwrap();
    let stats = pilus::server::proxy::stats_reader();
    program::wire(&mut kernel, &Arc::new(config), &Arc::new(sockets), stats).unwrap();
    let mut driver = EventLoop;
    loop {
        match orders.try_recv() {
            Ok(Order::Crash(id)) => kernel.crash_next_call(id),
            Ok(Order::Report(to)) => to.send(kernel.reports()).unwrap(),
            Ok(Order::Stop) => return,
            Err(_) => {}
        }
        let next = kernel.step(driver.now());
        let busy = driver.run_tasks() || kernel.has_mail();
        let soon = driver.now() + Duration::from_millis(2);
        driver.wait(Some(if busy { driver.now() } else { next.map_or(soon, |at| at.min(soon)) }));
    }
}

fn get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn is_good(port: u16) -> bool {
    get(port).is_some_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"))
}

fn wait_for(what: &str, ready: impl Fn() -> bool) {
    for _ in 0..2000 {
        if ready() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain for {what}");
}

#[test]
fn each_server_dies_once_and_the_others_go_on() {
    let folder = std::env::temp_dir().join(format!("pilus-supervision-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("m")).unwrap();
    let text = MANIFESTS.replace("PORT", &backend().to_string());
    std::fs::write(folder.join("m/all.yaml"), text).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (orders, inbox) = channel();
    let agent = thread::spawn({
        let folder = folder.clone();
        move || run(&folder, port, &inbox)
    });
    let reports = || {
        let (to, from) = channel();
        orders.send(Order::Report(to)).unwrap();
        from.recv().unwrap()
    };
    wait_for("the first page", || is_good(port));
    let victims = [
        (wiring::NETLINK, "interfaces"),
        (wiring::FILES, "files"),
        (wiring::MANIFESTS, "manifests"),
        (wiring::STORE, "store"),
        (wiring::IPAM, "ipam"),
        (wiring::ENDPOINT, "endpoint"),
        (wiring::ROUTE, "route"),
        (wiring::DATAPATH, "datapath"),
        (wiring::PROXY, "proxy"),
        (wiring::ADMIN, "admin"),
    ];
    for (id, name) in victims {
        orders.send(Order::Crash(id)).unwrap();
        // What makes it do something: a change of the files goes through all of them.
        let marker = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, ports: [{{port: 1}}]}}\n"
        );
        std::fs::write(folder.join("m/marker.yaml"), marker).unwrap();
        if id != wiring::PROXY {
            assert!(is_good(port), "requests are served while {name} is down");
        }
        let dead = |report: &ServerReport| report.name == name && report.crashes == 1;
        wait_for(&format!("{name} to die"), || reports().iter().any(dead));
        let all_run = || reports().iter().all(|report| report.state == ServerState::Running);
        wait_for(&format!("{name} to live again"), all_run);
        wait_for(&format!("a page after {name} died"), || is_good(port));
    }
    orders.send(Order::Stop).unwrap();
    agent.join().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
