//! The real agents on two nodes, with nothing but files: an address of a plain LoadBalancer Service, its backends here and
//! there, and what becomes of connections when agents are restarted and killed.
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bpf_lab;
use crate::bpf_lab::eventually;
use crate::ground::{CLIENT, Ground, NODE1, NODE2, PATIENCE, say};

const ADDRESS: &str = "192.0.2.201:80";
const MANIFESTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}
---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: lan}
spec: {blocks: [{start: 192.0.2.201, stop: 192.0.2.209}]}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: lan}
spec: {loadBalancerIPs: true}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec:
  type: LoadBalancer
  ports: [{name: web, port: 80, targetPort: 8080, protocol: TCP}, {name: dns, port: 80, targetPort: 8080, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: a, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: web, port: 8080, protocol: TCP}, {name: dns, port: 8080, protocol: UDP}]
endpoints:
- {addresses: [10.1.0.2], nodeName: n1, conditions: {ready: true}}
- {addresses: [10.2.0.2], nodeName: n2, conditions: {ready: true}}
";

struct Agents {
    ground: Ground,
    running: [Option<Child>; 2],
}

const NODES: [&str; 2] = ["n1", "n2"];

impl Agents {
    fn new() -> Self {
        let mut ground = Ground::new();
        for pod in ["p1", "p3"] {
            ground.serve(pod, 8080);
        }
        let mut agents = Self { ground, running: [None, None] };
        for node in [0, 1] {
            std::fs::create_dir_all(agents.dir(node).join("manifests")).unwrap();
            std::fs::write(agents.dir(node).join("manifests/all.yaml"), MANIFESTS).unwrap();
            agents.start(node);
        }
        agents
    }

    fn dir(&self, node: usize) -> PathBuf {
        self.ground.dir().with_extension("agents").join(NODES[node])
    }

    fn start(&mut self, node: usize) {
        let dir = self.dir(node);
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.ground.place(NODES[node]).0))
            .arg(env!("CARGO_BIN_EXE_pilus"))
            .args(["run", "--manifests", &at("manifests"), "--state-dir", &at("state")])
            .args(["--node", NODES[node], "--interface", "lan0", "--metrics", "127.0.0.1:9965"])
            .args(["--admin", &self.admin(node)])
            .arg("--bpf-root")
            .arg(self.ground.dir().join(NODES[node]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running[node] = Some(child);
    }

    fn admin(&self, node: usize) -> String {
        format!("unix:{}", self.dir(node).join("admin.sock").display())
    }

    fn end(&mut self, node: usize, signal: &str) {
        let mut child = self.running[node].take().unwrap();
        bpf_lab::run(&format!("kill -{signal} {}", child.id()));
        child.wait().unwrap();
    }

    fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.dir(node).join("log")).unwrap_or_default()
    }

    fn pilus(&self, node: usize, arguments: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_pilus"))
            .args(arguments.split(' '))
            .env("PILUS_ADMIN", self.admin(node))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The client asks until both Pods have answered, and each saw the client.
    fn both_answer(&self) {
        let to: SocketAddr = ADDRESS.parse().unwrap();
        let mut seen = BTreeSet::new();
        let expected = ["p1", "p3"].map(|pod| format!("{pod} {}", CLIENT[0]));
        eventually("not both Pods answer", || {
            if let Some(answer) = self.try_ask(to) {
                assert!(expected.contains(&answer), "{answer}");
                seen.insert(answer);
            }
            (seen.len() == 2).then_some(())
        });
    }

    fn try_ask(&self, to: SocketAddr) -> Option<String> {
        self.ground.place("cl").enter(|| {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
            Some(say(&mut stream, "hello"))
        })
    }

    /// A connection from the client to each of the Pods.
    fn connections(&self) -> [TcpStream; 2] {
        let to: SocketAddr = ADDRESS.parse().unwrap();
        ["p1", "p3"].map(|pod| {
            eventually("no connection to a Pod", || {
                let mut stream = self
                    .ground
                    .place("cl")
                    .enter(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap());
                say(&mut stream, "who").starts_with(pod).then_some(stream)
            })
        })
    }

    /// The node that the client's neighbor table has for the address.
    fn holder(&self) -> Option<usize> {
        let command = format!("ip -n {} neigh show to 192.0.2.201", self.ground.place("cl").0);
        let shown = bpf_lab::run(&command);
        NODES.iter().position(|node| shown.contains(&self.ground.mac(node, "lan0")))
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in [0, 1] {
                eprintln!("--- {}\n{}", NODES[node], self.log(node));
            }
        }
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(self.ground.dir().with_extension("agents"));
    }
}

#[test]
fn connections_survive_restarts_and_the_holders_death() {
    needs_root!("connections_survive_restarts_and_the_holders_death");
    let mut agents = Agents::new();
    agents.both_answer();
    let list = agents.pilus(0, "service list");
    assert!(list.contains("192.0.2.201"), "{list}");
    let mut open = agents.connections();
    let expected = ["p1", "p3"].map(|pod| format!("{pod} {}", CLIENT[0]));
    let still = |open: &mut [TcpStream; 2], what: &str| {
        for (stream, expected) in open.iter_mut().zip(&expected) {
            assert_eq!(say(stream, what), *expected, "{what}");
        }
    };
    // Both agents are restarted, one after the other, three times; an orderly end hands the address over.
    for round in 0..3 {
        for node in [0, 1] {
            agents.end(node, "TERM");
            let log = agents.log(node);
            assert!(!log.contains(" ERROR "), "{log}");
            still(&mut open, "without one agent");
            agents.start(node);
            agents.both_answer();
            still(&mut open, &format!("restarted {round}"));
        }
    }
    // The holder dies without a word, and comes back.
    let holder = agents.holder().expect("somebody holds the address");
    agents.end(holder, "KILL");
    eventually("nobody takes the address over", || {
        agents.try_ask(ADDRESS.parse().unwrap());
        (agents.holder() == Some(1 - holder)).then_some(())
    });
    still(&mut open, "after the holder's death");
    agents.start(holder);
    agents.both_answer();
    still(&mut open, "when it is back");
    assert!([NODE1, NODE2].iter().all(|node| !expected.contains(&node[0].to_owned())));
}
