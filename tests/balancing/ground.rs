//! A LAN with a client, a machine that has no agent, and two nodes with Pods behind bridges, all in network namespaces.
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pilus::api::address::IfIndex;
use pilus::api::service::{Frontend, Hooked};
use pilus::io::bpf::TcHook;
use pilus::io::bpf::service::Services;
use pilus::io::netlink::Netlink;

use crate::bpf_lab::{Namespace, eventually, run};

/// Who is where. Pods 1 and 2 are on node 1, Pod 3 is on node 2.
pub(crate) const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const OTHER: [&str; 2] = ["192.0.2.50", "2001:db8::50"];
pub(crate) const NODE1: [&str; 2] = ["192.0.2.11", "2001:db8::11"];
pub(crate) const NODE2: [&str; 2] = ["192.0.2.12", "2001:db8::12"];
pub(crate) const POD1: [&str; 2] = ["10.1.0.2", "fd00:1::2"];
pub(crate) const POD2: [&str; 2] = ["10.1.0.3", "fd00:1::3"];
pub(crate) const POD3: [&str; 2] = ["10.2.0.2", "fd00:2::2"];
pub(crate) const VIP: [&str; 2] = ["192.0.2.80", "2001:db8::80"];
/// Longer than any machine takes; a test that waits it out has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Ground {
    id: String,
    mount: PathBuf,
    ends: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

/// The namespaces by their short names.
const PLACES: [&str; 8] = ["sw", "cl", "ot", "n1", "n2", "p1", "p2", "p3"];

impl Ground {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("plsv{}-{number}", std::process::id());
        let mount = PathBuf::from(format!("/tmp/{id}"));
        let ground =
            Self { id, mount, ends: Arc::new(AtomicBool::new(false)), servers: Vec::new() };
        ground.build();
        ground
    }

    pub(crate) fn place(&self, name: &str) -> Namespace {
        Namespace(format!("{}{name}", self.id))
    }

    /// Where its BPF file system is mounted.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.mount
    }

    /// The control groups of version 2, mounted for this test: not every machine has them.
    pub(crate) fn control_groups(&self) -> PathBuf {
        let path = self.mount.with_extension("cgroup");
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        run(&format!("mount -t cgroup2 none {}", path.display()));
        path
    }

    fn ip(&self, place: &str, command: &str) {
        run(&format!("ip -n {} {command}", self.place(place).0));
    }

    fn build(&self) {
        std::fs::create_dir_all(&self.mount).expect("the temporary directory is writable");
        run(&format!("mount -t bpf bpf {}", self.mount.display()));
        for place in PLACES {
            run(&format!("ip netns add {}", self.place(place).0));
            self.ip(place, "link set lo up");
        }
        self.ip("sw", "link add br0 type bridge");
        self.ip("sw", "link set br0 up");
        for (place, [v4, v6]) in [("cl", CLIENT), ("ot", OTHER), ("n1", NODE1), ("n2", NODE2)] {
            let switch = self.place("sw").0;
            self.ip(place, &format!("link add lan0 type veth peer name {place} netns {switch}"));
            self.ip("sw", &format!("link set {place} master br0 up"));
            self.ip(place, &format!("addr add {v4}/24 dev lan0"));
            self.ip(place, &format!("addr add {v6}/64 dev lan0 nodad"));
            self.ip(place, "link set lan0 up");
        }
        for (node, pods) in [("n1", &[("p1", POD1), ("p2", POD2)][..]), ("n2", &[("p3", POD3)])] {
            self.ip(node, "link add cni0 type bridge");
            let net = pods[0].1.map(|address| address.trim_end_matches('2').to_owned());
            self.ip(node, &format!("addr add {}1/24 dev cni0", net[0]));
            self.ip(node, &format!("addr add {}1/64 dev cni0 nodad", net[1]));
            self.ip(node, "link set cni0 up");
            for (pod, [v4, v6]) in pods {
                let namespace = self.place(node).0;
                self.ip(pod, &format!("link add eth0 type veth peer name {pod} netns {namespace}"));
                self.ip(node, &format!("link set {pod} master cni0 up"));
                self.ip(pod, &format!("addr add {v4}/24 dev eth0"));
                self.ip(pod, &format!("addr add {v6}/64 dev eth0 nodad"));
                self.ip(pod, "link set eth0 up");
                self.ip(pod, &format!("route add default via {}1", net[0]));
                self.ip(pod, &format!("-6 route add default via {}1", net[1]));
            }
            self.place(node).enter(|| {
                for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                    std::fs::write(format!("/proc/sys/net/{key}"), "1").expect("it is writable");
                }
            });
        }
        self.settle();
        self.hold("n1");
    }

    /// Waits until all links are up.
    fn settle(&self) {
        for place in PLACES {
            self.place(place).enter(|| {
                let mut netlink = Netlink::open().expect("netlink opens");
                eventually("a link does not come up", || {
                    let links = netlink.links().expect("links are listed");
                    links.iter().all(|link| link.loopback || link.usable()).then_some(())
                });
            });
        }
    }

    /// The LAN has the virtual addresses at this node.
    pub(crate) fn hold(&self, node: &str) {
        let mac = self.mac(node, "lan0");
        for place in ["cl", "ot"] {
            for vip in VIP {
                self.ip(place, &format!("neigh replace {vip} lladdr {mac} dev lan0"));
            }
        }
    }

    pub(crate) fn mac(&self, place: &str, link: &str) -> String {
        let shown = run(&format!("ip -n {} link show {link}", self.place(place).0));
        let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        mac.expect("it has a hardware address").to_owned()
    }

    /// Loads the programs of a node and puts them on its interfaces.
    pub(crate) fn services(&self, node: &str) -> Services {
        let root = self.mount.join(node);
        self.place(node).enter(|| {
            let mut services = Services::load(&root, TcHook::Auto).expect("the programs load");
            let mut netlink = Netlink::open().expect("netlink opens");
            let links = netlink.links().expect("links are listed");
            let hooked: Vec<Hooked> = links
                .iter()
                .filter(|link| !link.loopback)
                .map(|link| Hooked {
                    index: IfIndex(link.ifindex),
                    outside: link.name == "lan0",
                    why: "test".into(),
                })
                .collect();
            let failures = services.hook(&hooked);
            assert!(failures.is_empty(), "{failures:?}");
            let own = if node == "n1" { NODE1 } else { NODE2 };
            let own = own.map(|address| Some(address.parse().expect("an address")));
            services.set_own(own).expect("settings are written");
            services
        })
    }

    pub(crate) fn sync(&self, node: &str, services: &mut Services, frontends: &[Arc<Frontend>]) {
        let failures = self.place(node).enter(|| services.sync(frontends));
        assert!(failures.is_empty(), "{failures:?}");
    }

    /// Serves TCP and UDP on a port: the answer to a line is the server's name and whom it saw.
    pub(crate) fn serve(&mut self, place: &str, port: u16) {
        let (tcp, udp) = self.place(place).enter(|| {
            let any: SocketAddr = format!("[::]:{port}").parse().expect("an address");
            (TcpListener::bind(any).expect("it binds"), UdpSocket::bind(any).expect("it binds"))
        });
        let (name, ends) = (place.to_owned(), Arc::clone(&self.ends));
        tcp.set_nonblocking(true).expect("it can be set");
        self.servers.push(std::thread::spawn(move || {
            let mut open = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                if let Ok((stream, peer)) = tcp.accept() {
                    let (name, seen) = (name.clone(), peer.ip().to_canonical());
                    open.push(std::thread::spawn(move || answer(stream, &name, seen)));
                } else {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }));
        let (name, ends) = (place.to_owned(), Arc::clone(&self.ends));
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("it can be set");
        self.servers.push(std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, peer)) = udp.recv_from(&mut buffer) else { continue };
                let head = format!("{name} {} ", peer.ip().to_canonical());
                let _ = udp.send_to(&[head.as_bytes(), &buffer[..length]].concat(), peer);
            }
        }));
    }

    /// What a new connection to `to` is answered, seen from `place`.
    pub(crate) fn ask(&self, place: &str, to: SocketAddr) -> String {
        self.place(place).enter(|| {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)
                .unwrap_or_else(|error| panic!("{place} connects to {to}: {error}"));
            say(&mut stream, "hello")
        })
    }

    /// Whether a connection is not made, in a time that one always is.
    pub(crate) fn is_silent(&self, place: &str, to: SocketAddr) -> bool {
        let short = Duration::from_millis(700);
        self.place(place).enter(|| TcpStream::connect_timeout(&to, short).is_err())
    }
}

/// Answers each line until the connection ends.
fn answer(mut stream: TcpStream, name: &str, seen: IpAddr) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if byte == *b"\n" && stream.write_all(format!("{name} {seen}\n").as_bytes()).is_err() {
            break;
        }
    }
}

/// Sends a line and returns the answer.
pub(crate) fn say(stream: &mut TcpStream, line: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    stream.write_all(format!("{line}\n").as_bytes()).expect("it is sent");
    let (mut answer, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte).expect("an answer comes");
        if byte == *b"\n" {
            return String::from_utf8(answer).expect("it is text");
        }
        answer.push(byte[0]);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
        for place in PLACES {
            let _ = std::process::Command::new("ip")
                .args(["netns", "del", &self.place(place).0])
                .output();
        }
        for mount in [self.mount.with_extension("cgroup"), self.mount.clone()] {
            let _ = std::process::Command::new("umount").arg("-l").arg(&mount).output();
            let _ = std::fs::remove_dir(&mount);
        }
    }
}
