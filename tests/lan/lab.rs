//! Nodes with the real binary, a client, a backend and a host that is none of ours, each in a network
//! namespace on one bridge. Everything is removed on drop, also when a test fails.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::bpf_lab::{Namespace, eventually, run};
use crate::wire::Wire;

pub(crate) const ETH: &str = "eth1";
/// Below the lab's directory: a BPF file system of its own, for not every machine has one mounted.
const BPF_MOUNT: &str = "bpffs";
const CLIENT: u8 = 100;
pub(crate) const CLIENT_IP: &str = "10.77.0.100";
const BACKEND: u8 = 50;
const STRANGER: u8 = 66;

/// The address of the pool with this last byte.
pub(crate) fn vip(last: u8) -> IpAddr {
    [10, 77, 0, last].into()
}

pub(crate) fn vip6(last: u16) -> IpAddr {
    IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, last])
}

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) ns: Namespace,
    pub(crate) ip: IpAddr,
    pub(crate) mac: [u8; 6],
    pub(crate) dir: PathBuf,
    pub(crate) bpf_root: PathBuf,
    /// What the agent is started by, such as setpriv with its arguments.
    pub(crate) wrapper: &'static [&'static str],
    manifests: PathBuf,
    agent: Option<Child>,
}

pub(crate) struct Lab {
    id: String,
    pub(crate) dir: PathBuf,
    pub(crate) lan: Namespace,
    pub(crate) client: Namespace,
    pub(crate) stranger: Namespace,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wire: Wire,
}

/// Whether a command succeeds.
pub(crate) fn succeeds(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let status =
        Command::new(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

// === impl Lab ===

impl Lab {
    /// A LAN with `count` nodes, whose agents do not run yet.
    pub(crate) fn new(count: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("pilus-lan-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        // From here on whatever is made is removed, also if the making fails.
        let guard = Leftovers { id: id.clone(), dir: dir.clone() };
        let bpf = dir.join(BPF_MOUNT);
        std::fs::create_dir_all(&bpf).unwrap();
        run(&format!("mount -t bpf bpf {}", bpf.display()));
        let name = |what: &str| Namespace(format!("{id}-{what}"));
        let lan = name("lan");
        run(&format!("ip netns add {}", lan.0));
        run(&format!("ip -n {} link add br0 type bridge", lan.0));
        run(&format!("ip -n {} link set br0 up", lan.0));
        let (client, backend, stranger) = (name("client"), name("backend"), name("stranger"));
        for (ns, last) in [(&client, CLIENT), (&backend, BACKEND), (&stranger, STRANGER)] {
            connect(&lan, ns, last);
        }
        let nodes = (1..=count).map(|number| Node::new(&lan, number, &id, &dir)).collect();
        serve(&backend);
        let wire = Wire::new(&client, ETH, [10, 77, 0, CLIENT].into());
        let lab = Self { id, dir, lan, client, stranger, nodes, wire };
        std::mem::forget(guard);
        lab.apply("base", &lab.base());
        lab
    }

    /// Two nodes or more with running agents and the Ingresses `web-1` to `web-N`, all answering.
    pub(crate) fn serving(nodes: usize, ingresses: u8) -> Self {
        let mut lab = Self::new(nodes);
        for i in 1..=ingresses {
            lab.apply(&format!("web-{i}"), &ingress(&format!("web-{i}"), ""));
        }
        for node in 0..nodes {
            lab.start(node);
        }
        let addresses: Vec<IpAddr> = (201..201 + ingresses).map(vip).collect();
        lab.settle(&addresses);
        lab
    }

    /// Waits until exactly one node answers for each, ten samples in a row, and HTTP works.
    pub(crate) fn settle(&self, addresses: &[IpAddr]) {
        let mut steady = 0;
        self.until(&format!("no single holder of {addresses:?}"), || {
            let sample = self.sample(addresses);
            let single = addresses.iter().all(|address| sample[address].len() == 1);
            steady = if single { steady + 1 } else { 0 };
            (steady == 10).then_some(())
        });
        for &address in addresses {
            self.until(&format!("{address} serves no page"), || {
                self.client.enter(|| get(address)).map(drop)
            });
        }
    }

    /// Who answers for each address at this moment, by hardware address. Everybody's kernel is asked for its
    /// own address behind the question; frames keep their order, so nothing is missed.
    pub(crate) fn sample(&self, addresses: &[IpAddr]) -> BTreeMap<IpAddr, Vec<[u8; 6]>> {
        let controls: Vec<IpAddr> = self.nodes.iter().map(|node| node.ip).collect();
        self.wire.sample(addresses, &controls)
    }

    /// The node that answers for the address, if exactly one does.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<usize> {
        let [mac] = self.sample(&[address])[&address][..] else { return None };
        self.nodes.iter().position(|node| node.mac == mac)
    }

    /// Takes `count` samples and fails if in any of them another number than `expected` answered.
    pub(crate) fn watch(&self, count: usize, expected: usize, addresses: &[IpAddr]) {
        for i in 0..count {
            for (address, macs) in self.sample(addresses) {
                assert_eq!(
                    macs.len(),
                    expected,
                    "sample {i}: {address} is answered by {macs:x?}\n{}",
                    self.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Puts a file into every node's manifests, whole.
    pub(crate) fn apply(&self, name: &str, text: &str) {
        for node in &self.nodes {
            let (new, file) =
                (node.manifests.join(".new"), node.manifests.join(format!("{name}.yaml")));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, file).unwrap();
        }
    }

    fn base(&self) -> String {
        let mut text = String::from(BASE);
        for node in &self.nodes {
            write!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: node-{}\nstatus:\n  addresses:\n  - type: \
                 InternalIP\n    address: {}\n",
                node.number, node.ip
            )
            .unwrap();
        }
        text
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.start_with(node, &["--interface", ETH]);
    }

    /// Starts the agent with arguments beyond those that keep it apart from the others.
    pub(crate) fn start_with(&mut self, node: usize, arguments: &[&str]) {
        self.nodes[node].start(arguments);
    }

    /// `pilus` with these arguments, asking the agent of the node.
    pub(crate) fn pilus(&self, node: usize, arguments: &str) -> Output {
        let node = &self.nodes[node];
        Command::new(env!("CARGO_BIN_EXE_pilus"))
            .args(arguments.split(' '))
            .env("PILUS_ADMIN", node.admin())
            .output()
            .unwrap()
    }

    pub(crate) fn status(&self, node: usize) -> String {
        String::from_utf8_lossy(&self.pilus(node, "status -o json").stdout).into_owned()
    }

    /// The addresses of all Services as the node sees them, in the order of `pilus get`.
    pub(crate) fn addresses(&self, node: usize) -> String {
        let output = self.pilus(node, "get svc -A -o json");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        // The namespaced names and the ingress addresses; times differ between nodes.
        text.lines()
            .filter(|line| line.contains("\"name\":") || line.contains("\"ip\":"))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(crate) fn signal(&self, node: usize, signal: &str) {
        let pid = self.nodes[node].agent.as_ref().expect("the agent runs").id();
        run(&format!("kill -{signal} {pid}"));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut agent = self.nodes[node].agent.take().expect("the agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERM; waits for the end.
    pub(crate) fn end(&mut self, node: usize) {
        self.signal(node, "TERM");
        let mut agent = self.nodes[node].agent.take().expect("the agent runs");
        let status =
            eventually("the agent does not end", || agent.try_wait().expect("it is our child"));
        assert!(status.success(), "{status}\n{}", self.logs());
    }

    /// Milliseconds after which a page comes from `address`, asked every few milliseconds.
    pub(crate) fn time_to_page(&self, address: IpAddr) -> u128 {
        let start = Instant::now();
        self.until(&format!("no page from {address} after the fault"), || {
            self.client.enter(|| get(address)).map(|_| start.elapsed().as_millis())
        })
    }

    /// Waits until something comes true; a failure shows what the agents said.
    pub(crate) fn until<T>(&self, failure: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        // Half a minute and more: a test that waits it out has failed.
        for _ in 0..3000 {
            if let Some(done) = attempt() {
                return done;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{failure}{}", self.logs());
    }

    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let log = std::fs::read_to_string(node.dir.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(15)..];
            write!(text, "\n--- node-{}\n{}", node.number, last.join("\n")).unwrap();
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut agent) = node.agent.take() {
                let _ = agent.kill();
                let _ = agent.wait();
            }
        }
        drop(Leftovers { id: self.id.clone(), dir: self.dir.clone() });
    }
}

/// What a lab leaves on the machine.
struct Leftovers {
    id: String,
    dir: PathBuf,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}-", self.id)) {
                succeeds(&format!("ip netns del {name}"));
            }
        }
        succeeds(&format!("umount -l {}", self.dir.join(BPF_MOUNT).display()));
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            succeeds(&format!("umount -l {}", entry.path().join("bpf").display()));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Joins a namespace to the LAN as [`ETH`], with the same last byte in both families.
fn connect(lan: &Namespace, ns: &Namespace, last: u8) {
    run(&format!("ip netns add {}", ns.0));
    run(&format!("ip -n {} link set lo up", ns.0));
    run(&format!(
        "ip link add {ETH} netns {} type veth peer name port-{last} netns {}",
        ns.0, lan.0
    ));
    run(&format!("ip -n {} link set port-{last} master br0 up", lan.0));
    run(&format!("ip -n {} addr add 10.77.0.{last}/24 dev {ETH}", ns.0));
    run(&format!("ip -n {} addr add fd77::{last}/64 dev {ETH} nodad", ns.0));
    run(&format!("ip -n {} link set {ETH} up", ns.0));
}

// === impl Node ===

impl Node {
    fn new(lan: &Namespace, number: usize, id: &str, dir: &Path) -> Self {
        let ns = Namespace(format!("{id}-node-{number}"));
        connect(lan, &ns, number as u8);
        let bpf_root = dir.join(BPF_MOUNT).join(format!("node-{number}"));
        let dir = dir.join(format!("node-{number}"));
        let manifests = dir.join("manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        std::fs::write(dir.join("pilus.yaml"), "ingress:\n  mode: dedicated\n").unwrap();
        let mac = crate::wire::mac(&ns, ETH);
        let ip = [10, 77, 0, number as u8].into();
        Self { number, ns, ip, mac, dir, bpf_root, wrapper: &[], manifests, agent: None }
    }

    fn admin(&self) -> String {
        format!("unix:{}", self.dir.join("admin.sock").display())
    }

    fn start(&mut self, arguments: &[&str]) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.ns.0))
            .args(self.wrapper)
            .arg(env!("CARGO_BIN_EXE_pilus"))
            .args(["run", "--config", &at("pilus.yaml"), "--manifests", &at("manifests")])
            .args(["--state-dir", &at("state"), "--node", &format!("node-{}", self.number)])
            .args(["--admin", &self.admin(), "--metrics", "127.0.0.1:9965"])
            .args(arguments);
        if !arguments.contains(&"--bpf-root") {
            command.arg("--bpf-root").arg(&self.bpf_root);
        }
        let agent = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.agent = Some(agent.spawn().unwrap());
    }

    /// Runs a command in the node's namespace and returns what it printed.
    pub(crate) fn run(&self, command: &str) -> String {
        run(&format!("nsenter --net=/run/netns/{} {command}", self.ns.0))
    }

    /// The local routes that Pilus made.
    pub(crate) fn local_routes(&self) -> String {
        let show = |family: &str| {
            self.run(&format!("ip {family} route show table local proto 80 type local"))
        };
        show("-4") + &show("-6")
    }

    /// The pin of the tcx link on its interface.
    pub(crate) fn tc_link(&self) -> PathBuf {
        let pins = std::fs::read_dir(self.bpf_root.join("links")).unwrap();
        let mut pins = pins.flatten().map(|entry| entry.path());
        let is_tc = |pin: &PathBuf| pin.to_string_lossy().contains("l2_announce-");
        pins.find(is_tc).expect("a tcx link is pinned")
    }

    /// The name of its port on the bridge.
    pub(crate) fn port(&self) -> String {
        format!("port-{}", self.number)
    }
}

/// A dedicated Ingress of everything to the backend.
pub(crate) fn ingress(name: &str, annotations: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations:\n    \
         ingress.cilium.io/loadbalancer-mode: dedicated\n{annotations}spec:\n  ingressClassName: pilus\n  rules:\n  \
         - http:\n      paths:\n      - path: /\n        pathType: Prefix\n        backend:\n          service:\n            \
         name: echo\n            port:\n              number: 80\n"
    )
}

const BASE: &str = "\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata:
  name: pool
spec:
  blocks:
  - start: 10.77.0.201
    stop: 10.77.0.206
  - start: fd77::201
    stop: fd77::206
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata:
  name: all
spec:
  loadBalancerIPs: true
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: pilus
spec:
  controller: pilus.dev/ingress-controller
---
apiVersion: v1
kind: Service
metadata:
  name: echo
spec:
  ports:
  - port: 80
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  labels:
    kubernetes.io/service-name: echo
addressType: IPv4
ports:
- port: 8080
endpoints:
- addresses: [10.77.0.50]
";

/// A backend that answers with the request's head.
fn serve(backend: &Namespace) {
    let listener = backend.enter(|| TcpListener::bind(("0.0.0.0", 8080)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        request.extend(&chunk[..count]);
        if request.ends_with(b"\r\n\r\n") {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.len());
            if stream.write_all(&[head.as_bytes(), &request].concat()).is_err() {
                return;
            }
            request.clear();
        }
    }
}

/// A page by a connection of its own, from the calling thread's namespace; None if it does not come soon.
pub(crate) fn get(address: IpAddr) -> Option<String> {
    let patience = Duration::from_millis(100);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 80), patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: lan.test\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}
