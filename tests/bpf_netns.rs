//! The data path on real packets, in network namespaces: who answers, who keeps silent, what a
//! killed agent leaves behind, and where connections arrive.

mod bpf_lab;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpf_lab::frames::{Arp, Nd, arp_request, tagged};
use bpf_lab::{
    CLIENT4, CLIENT6, LAN, Lab, NODE4, NODE6, Namespace, VIP4, VIP6, VIPS, Wire, eventually, run,
};
use pilus::io::bpf::{Announced, Bpf, Counter, Role, Steered, TcHook, Transport, monotonic_ns};
use pilus::io::netlink::{Event, LOOPBACK, LocalRoute, Monitor, Netlink};

const HOUR: u64 = 3_600_000_000_000;
/// Not the interface's own address: tells our answers from the kernel's.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const HOOKS: [TcHook; 2] = [TcHook::Tcx, TcHook::Clsact];

fn announced(ifindex: u32, role: Role) -> [Announced; 2] {
    VIPS.map(|ip| Announced { ifindex, ip, role, mac: MAC })
}

fn add_local_routes(node: &Namespace) {
    node.enter(|| {
        let mut netlink = Netlink::open().expect("netlink opens");
        for vip in VIPS {
            assert!(netlink.add_local_route(vip).expect("the route is added"));
        }
    });
}

/// What the client hears when it asks for both service addresses.
struct Asker {
    lab: Lab,
    wire: Wire,
}

impl Asker {
    fn new() -> Self {
        let lab = Lab::new();
        let wire = Wire::new(&lab.client);
        Self { lab, wire }
    }

    fn arp(&self) -> Vec<Vec<u8>> {
        let question = arp_request(self.lab.client_mac, CLIENT4, VIP4);
        self.wire.ask(&question, &self.lab.control())
    }

    fn ndp(&self) -> Vec<Vec<u8>> {
        let question = Nd::solicitation(self.lab.client_mac, CLIENT6, VIP6).bytes();
        self.wire.ask(&question, &self.lab.control())
    }

    #[track_caller]
    fn hears_us(&self) {
        let arp = Arp::reply(MAC, VIP4, self.lab.client_mac, CLIENT4).bytes();
        assert_eq!(self.arp(), [arp]);
        let na = Nd::advertisement(MAC, VIP6, self.lab.client_mac, CLIENT6).bytes();
        assert_eq!(self.ndp(), [na]);
    }

    #[track_caller]
    fn hears_nothing(&self) {
        assert_eq!(self.arp(), Vec::<Vec<u8>>::new());
        assert_eq!(self.ndp(), Vec::<Vec<u8>>::new());
    }

    /// The trap: the local route makes the node's kernel answer, with the interface's address.
    #[track_caller]
    fn hears_the_kernel(&self) {
        let arp = Arp::reply(self.lab.node_mac, VIP4, self.lab.client_mac, CLIENT4).bytes();
        assert_eq!(self.arp(), [arp]);
    }
}

#[test]
fn only_a_live_holder_answers_and_the_kernel_never_does() {
    needs_root!("only_a_live_holder_answers");
    for hook in HOOKS {
        let asker = Asker::new();
        let ifindex = asker.lab.ifindex;
        add_local_routes(&asker.lab.node);
        asker.hears_the_kernel();
        let mut bpf = asker.lab.node.enter(|| {
            let mut bpf = Bpf::load(&asker.lab.bpf_root(), hook).expect("loads");
            bpf.sync_addresses(&announced(ifindex, Role::NotHeld)).expect("addresses");
            bpf.set_liveness(monotonic_ns() + HOUR).expect("liveness");
            bpf.attach_lan(ifindex).expect("attaches");
            bpf
        });
        asker.hears_nothing();
        bpf.sync_addresses(&announced(ifindex, Role::Held)).expect("addresses");
        asker.hears_us();
        let replies: Vec<u64> = bpf.addresses().expect("reads").iter().map(|s| s.replies).collect();
        assert_eq!(replies, [1, 1]);
        bpf.set_liveness(monotonic_ns()).expect("liveness");
        asker.hears_nothing();
        // A change of role keeps the count.
        bpf.sync_addresses(&announced(ifindex, Role::NotHeld)).expect("addresses");
        assert!(bpf.addresses().expect("reads").iter().all(|s| s.replies == 1));

        assert_eq!(bpf.lans().expect("lists"), [ifindex]);
        asker.lab.node.enter(|| bpf.detach_lan(ifindex)).expect("detaches");
        assert_eq!(bpf.lans().expect("lists"), Vec::<u32>::new());
        asker.hears_the_kernel();
    }
}

#[test]
fn frames_in_a_vlan_are_left_to_the_vlan_and_priority_marks_are_not() {
    needs_root!("frames_in_a_vlan");
    let asker = Asker::new();
    let ifindex = asker.lab.ifindex;
    let _bpf = hold(&asker.lab, TcHook::Auto);
    let request = arp_request(asker.lab.client_mac, CLIENT4, VIP4);
    let control = asker.lab.control();
    let reply = Arp::reply(MAC, VIP4, asker.lab.client_mac, CLIENT4).bytes();
    assert_eq!(asker.wire.ask(&tagged(&request, 0), &control), [reply]);
    assert_eq!(asker.wire.ask(&tagged(&request, 5), &control), Vec::<Vec<u8>>::new());
    assert_ne!(ifindex, LOOPBACK);
}

fn hold(lab: &Lab, hook: TcHook) -> Bpf {
    add_local_routes(&lab.node);
    lab.node.enter(|| {
        let mut bpf = Bpf::load(&lab.bpf_root(), hook).expect("loads");
        bpf.sync_addresses(&announced(lab.ifindex, Role::Held)).expect("addresses");
        bpf.set_liveness(monotonic_ns() + HOUR).expect("liveness");
        bpf.attach_lan(lab.ifindex).expect("attaches");
        bpf
    })
}

#[test]
fn the_program_goes_before_others_on_the_hook() {
    needs_root!("the_program_goes_before_others_on_the_hook");
    for hook in HOOKS {
        let asker = Asker::new();
        let other_root = asker.lab.bpf_root().join("other");
        let mut first = hold(&asker.lab, hook);
        first.sync_addresses(&announced(asker.lab.ifindex, Role::NotHeld)).expect("addresses");
        asker.hears_nothing();
        // Another program that swallows the question is there already; ours is asked before it.
        let mut second =
            asker.lab.node.enter(|| Bpf::load(&other_root, TcHook::Tcx)).expect("loads");
        second.sync_addresses(&announced(asker.lab.ifindex, Role::Held)).expect("addresses");
        second.set_liveness(monotonic_ns() + HOUR).expect("liveness");
        asker.lab.node.enter(|| second.attach_lan(asker.lab.ifindex)).expect("attaches");
        asker.hears_us();
        // With no addresses it passes everything on.
        second.sync_addresses(&[]).expect("addresses");
        asker.hears_nothing();
    }
}

#[test]
fn agents_in_two_namespaces_do_not_meet() {
    needs_root!("agents_in_two_namespaces_do_not_meet");
    let (one, two) = (Asker::new(), Asker::new());
    let root = one.lab.bpf_root();
    let start = |asker: &Asker, root: &Path, role| {
        add_local_routes(&asker.lab.node);
        let mut bpf = asker.lab.node.enter(|| Bpf::load(root, TcHook::Auto)).expect("loads");
        bpf.sync_addresses(&announced(asker.lab.ifindex, role)).expect("addresses");
        bpf.set_liveness(monotonic_ns() + HOUR).expect("liveness");
        asker.lab.node.enter(|| bpf.attach_lan(asker.lab.ifindex)).expect("attaches");
        asker.lab.node.enter(|| bpf.attach_steer()).expect("attaches");
        bpf
    };
    let holder = start(&one, &root.join("one"), Role::Held);
    let other = start(&two, &root.join("two"), Role::NotHeld);
    one.hears_us();
    two.hears_nothing();
    one.lab.node.enter(|| holder.release()).expect("releases");
    two.hears_nothing();
    two.lab.node.enter(|| other.release()).expect("releases");
    two.hears_the_kernel();
}

// === a killed agent ===

/// How the child below is told what to be.
const CHILD: &str = "PILUS_TEST_CHILD";

#[test]
#[ignore = "not a test of its own: the agent process that other tests start and kill"]
fn child_agent() {
    let orders = std::env::var(CHILD).expect("another test starts this one");
    let [namespace, root, ifindex, hook] =
        <[&str; 4]>::try_from(orders.split(' ').collect::<Vec<_>>()).expect("four words");
    let ifindex = ifindex.parse().expect("a number");
    let hook = if hook == "tcx" { TcHook::Tcx } else { TcHook::Clsact };
    Namespace(namespace.to_owned()).join();
    let mut bpf = Bpf::load(Path::new(root), hook).expect("loads");
    bpf.sync_addresses(&announced(ifindex, Role::Held)).expect("addresses");
    bpf.set_liveness(monotonic_ns() + 300_000_000).expect("liveness");
    bpf.attach_lan(ifindex).expect("attaches");
    bpf.attach_steer().expect("attaches");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    bpf.steer(to(VIP4.into(), Transport::Tcp, &listener)).expect("steers");
    let mut netlink = Netlink::open().expect("netlink opens");
    for vip in VIPS {
        netlink.add_local_route(vip).expect("the route is added");
    }
    let _ = writeln!(std::io::stderr(), "ready");
    loop {
        bpf.set_liveness(monotonic_ns() + 300_000_000).expect("liveness");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn to<S: AsFd>(ip: IpAddr, transport: Transport, socket: &S) -> Steered<'_> {
    Steered { ip, port: 80, transport, socket: socket.as_fd() }
}

/// The child, killed without mercy on drop.
struct Agent(Child);

impl Agent {
    fn start(lab: &Lab, hook: &str) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let root: PathBuf = lab.bpf_root();
        let orders = format!("{} {} {} {hook}", lab.node.0, root.display(), lab.ifindex);
        let mut child = Command::new(program)
            .args(["--exact", "child_agent", "--ignored", "--nocapture"])
            .env(CHILD, orders)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the child starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let agent = Self(child);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let n = lines.read_line(&mut line).expect("the pipe can be read");
            assert_ne!(n, 0, "the agent ended: {said}");
            if line.trim() == "ready" {
                return agent;
            }
            said += &line;
        }
    }

    fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it can be waited for");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_agents_node_falls_silent_and_a_successor_takes_over_in_place() {
    needs_root!("a_killed_agents_node_falls_silent");
    for (name, hook) in [("tcx", TcHook::Tcx), ("clsact", TcHook::Clsact)] {
        let asker = Asker::new();
        let agent = Agent::start(&asker.lab, name);
        asker.hears_us();
        agent.kill();
        // Its liveness runs out by itself; nobody tells the kernel.
        eventually("a dead agent's node goes on answering", || {
            asker.arp().is_empty().then_some(())
        });
        for _ in 0..20 {
            asker.hears_nothing();
        }

        let (ifindex, root) = (asker.lab.ifindex, asker.lab.bpf_root());
        let mut successor = asker.lab.node.enter(|| Bpf::load(&root, hook)).expect("loads");
        assert_eq!(successor.lans().expect("lists"), [ifindex]);
        let left = successor.addresses().expect("reads");
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|s| s.address.role == Role::Held && s.replies > 0));
        let routes = asker.lab.node.enter(|| Netlink::open().and_then(|mut n| n.local_routes()));
        assert_eq!(routes.expect("lists").len(), 2);
        // Writing the same again changes nothing; asked all the while, the kernel never answers.
        let same = successor.sync_addresses(&announced(ifindex, Role::Held)).expect("writes");
        assert_eq!((same.written, same.removed), (0, 0));
        for _ in 0..20 {
            asker.lab.node.enter(|| successor.attach_lan(ifindex)).expect("attaches");
            asker.hears_nothing();
        }
        successor.set_liveness(monotonic_ns() + HOUR).expect("liveness");
        asker.hears_us();
        asker.lab.node.enter(|| successor.attach_steer()).expect("attaches");
        asker.lab.node.enter(|| successor.release()).expect("releases");
        asker.hears_the_kernel();
    }
}

// === steering ===

/// A lab whose node answers with its real hardware address, so that connections work.
fn steering_lab() -> (Lab, Bpf) {
    let lab = Lab::new();
    add_local_routes(&lab.node);
    let bpf = lab.node.enter(|| {
        let mut bpf = Bpf::load(&lab.bpf_root(), TcHook::Auto).expect("loads");
        let held = announced(lab.ifindex, Role::Held).map(|a| Announced { mac: lab.node_mac, ..a });
        bpf.sync_addresses(&held).expect("addresses");
        bpf.set_liveness(monotonic_ns() + HOUR).expect("liveness");
        bpf.attach_lan(lab.ifindex).expect("attaches");
        bpf.attach_steer().expect("attaches");
        bpf
    });
    (lab, bpf)
}

/// Connects from `from` to the service and asserts both ends' addresses and that bytes flow.
fn exchange(from: &Namespace, listener: &TcpListener, vip: IpAddr, source: IpAddr) {
    let mut client = from.enter(|| TcpStream::connect((vip, 80))).expect("connects");
    let (mut server, peer) = listener.accept().expect("accepts");
    assert_eq!(server.local_addr().expect("named"), SocketAddr::new(vip, 80));
    assert_eq!(peer, SocketAddr::new(source, client.local_addr().expect("named").port()));
    client.write_all(b"ping").expect("writes");
    let mut got = [0; 4];
    server.read_exact(&mut got).expect("reads");
    server.write_all(&got).expect("writes");
    client.read_exact(&mut got).expect("reads");
    assert_eq!(&got, b"ping");
}

#[test]
fn connections_reach_the_listener_with_both_addresses_intact() {
    needs_root!("connections_reach_the_listener");
    let (lab, mut bpf) = steering_lab();
    let (v4, v6) = lab.node.enter(|| {
        let listen = |at: &str| TcpListener::bind(at).expect("listens");
        (listen("127.0.0.1:0"), listen("[::1]:0"))
    });
    let wanted = [to(VIP4.into(), Transport::Tcp, &v4), to(VIP6.into(), Transport::Tcp, &v6)];
    assert_eq!(bpf.sync_steering(&wanted).expect("steers").written, 2);
    assert_eq!(bpf.sync_steering(&wanted).expect("steers").written, 0);
    exchange(&lab.client, &v4, VIP4.into(), CLIENT4.into());
    exchange(&lab.client, &v6, VIP6.into(), CLIENT6.into());
    // From the node itself: IPv4 takes the address itself for source, IPv6 one of an interface.
    exchange(&lab.node, &v4, VIP4.into(), VIP4.into());
    exchange(&lab.node, &v6, VIP6.into(), NODE6.into());
    assert_eq!(bpf.counters().expect("reads")[&Counter::Steered], 4);

    // Another port is not ours: the kernel refuses it.
    let refused = lab.client.enter(|| TcpStream::connect((VIP4, 81)));
    assert_eq!(refused.expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
    // A new listener takes over at once, and the old one gets nothing more.
    let second = lab.node.enter(|| TcpListener::bind("127.0.0.1:0")).expect("listens");
    bpf.steer(to(VIP4.into(), Transport::Tcp, &second)).expect("steers");
    exchange(&lab.client, &second, VIP4.into(), CLIENT4.into());
    // A closed listener: refused and counted. A removed entry: refused.
    drop(second);
    let refused = lab.client.enter(|| TcpStream::connect((VIP4, 80)));
    assert_eq!(refused.expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(bpf.counters().expect("reads")[&Counter::SteerNoSocket], 1);
    assert_eq!(bpf.sync_steering(&[]).expect("steers").removed, 2);
    let refused = lab.client.enter(|| TcpStream::connect((VIP6, 80)));
    assert_eq!(refused.expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn datagrams_reach_the_socket_too() {
    needs_root!("datagrams_reach_the_socket_too");
    let (lab, mut bpf) = steering_lab();
    let server = lab.node.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("binds");
    bpf.steer(to(VIP4.into(), Transport::Udp, &server)).expect("steers");
    let client = lab.client.enter(|| UdpSocket::bind((CLIENT4, 0))).expect("binds");
    client.send_to(b"ping", (VIP4, 80)).expect("sends");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    let mut got = [0; 8];
    let (n, from) = server.recv_from(&mut got).expect("receives");
    assert_eq!((&got[..n], from), (&b"ping"[..], client.local_addr().expect("named")));
}

#[test]
fn a_successor_steers_beside_a_living_predecessor() {
    needs_root!("a_successor_steers");
    let (lab, mut old) = steering_lab();
    let listen = || lab.node.enter(|| TcpListener::bind("127.0.0.1:0")).expect("listens");
    let (first, second) = (listen(), listen());
    old.steer(to(VIP4.into(), Transport::Tcp, &first)).expect("steers");
    let mut new = lab.node.enter(|| Bpf::load(&lab.bpf_root(), TcHook::Auto)).expect("loads");
    lab.node.enter(|| new.attach_steer()).expect("attaches");
    exchange(&lab.client, &first, VIP4.into(), CLIENT4.into());
    new.steer(to(VIP4.into(), Transport::Tcp, &second)).expect("steers");
    exchange(&lab.client, &second, VIP4.into(), CLIENT4.into());
}

// === what is left behind ===

#[test]
fn release_leaves_nothing_of_ours_and_everything_of_others() {
    needs_root!("release_leaves_nothing");
    for hook in HOOKS {
        for others_qdisc in [false, true] {
            let lab = Lab::new();
            let node = &lab.node.0;
            if others_qdisc {
                run(&format!("tc -n {node} qdisc add dev {LAN} clsact"));
                // A filter of the same kind and priority.
                run(&format!(
                    "tc -n {node} filter add dev {LAN} ingress prio 1 bpf da object-file \
                     {}/bpf/pilus.bpf.o sec classifier",
                    env!("CARGO_MANIFEST_DIR")
                ));
            }
            let mut bpf = hold(&lab, hook);
            lab.node.enter(|| bpf.attach_lan(lab.ifindex)).expect("attaches again");
            lab.node.enter(|| bpf.attach_steer()).expect("attaches");
            let shown = run(&format!("tc -n {node} filter show dev {LAN} ingress"));
            assert_eq!(
                shown.matches("pilus_l2_announce").count(),
                usize::from(hook == TcHook::Clsact)
            );
            lab.node.enter(|| bpf.release()).expect("releases");

            assert!(!lab.bpf_root().exists());
            let shown = run(&format!("tc -n {node} filter show dev {LAN} ingress"));
            assert!(!shown.contains("pilus_l2_announce"), "{shown}");
            assert_eq!(shown.contains("pilus.bpf.o"), others_qdisc, "{shown}");
            let qdiscs = run(&format!("tc -n {node} qdisc show dev {LAN}"));
            assert_eq!(qdiscs.contains("clsact"), others_qdisc, "{qdiscs}");
        }
    }
}

#[test]
fn a_pinned_map_of_another_layout_is_made_anew() {
    needs_root!("a_pinned_map_of_another_layout");
    let lab = Lab::new();
    let root = lab.bpf_root();
    std::fs::create_dir_all(root.join("maps")).expect("bpffs has directories");
    let pin = root.join("maps/addresses");
    run(&format!(
        "bpftool map create {} type hash key 8 value 8 entries 16 name addresses",
        pin.display()
    ));
    let mut bpf = Bpf::load(&root, TcHook::Auto).expect("loads");
    bpf.sync_addresses(&announced(lab.ifindex, Role::Held)).expect("addresses");
    let shown = run(&format!("bpftool map show pinned {}", pin.display()));
    assert!(shown.contains("key 20B  value 24B"), "{shown}");
}

#[test]
fn a_root_outside_a_bpf_file_system_is_refused_with_advice() {
    needs_root!("a_root_outside_a_bpf_file_system");
    let Err(error) = Bpf::load(Path::new("/tmp/plbpf-not-there"), TcHook::Auto) else {
        panic!("it loaded");
    };
    let said = error.to_string();
    assert!(said.contains("/tmp/plbpf-not-there is not on a BPF file system"), "{said}");
    assert!(said.contains("mount -t bpf"), "{said}");
    assert!(!Path::new("/tmp/plbpf-not-there").exists());
}

// === netlink ===

#[test]
fn local_routes_of_ours_are_listed_and_removed_and_others_are_not() {
    needs_root!("local_routes_of_ours");
    let lab = Lab::new();
    add_local_routes(&lab.node);
    lab.node.enter(|| {
        let mut netlink = Netlink::open().expect("opens");
        let ours = VIPS.map(|ip| LocalRoute { ip, ifindex: LOOPBACK });
        assert_eq!(netlink.local_routes().expect("lists"), ours);
        // The node's own addresses have local routes that are the kernel's.
        assert!(!netlink.add_local_route(NODE4.into()).expect("answers"));
        for foreign in [IpAddr::from(NODE4), NODE6.into()] {
            assert!(!netlink.remove_local_route(foreign).expect("answers"));
        }
        for vip in VIPS {
            assert!(!netlink.add_local_route(vip).expect("answers"));
            assert!(netlink.remove_local_route(vip).expect("answers"));
            assert!(!netlink.remove_local_route(vip).expect("answers"));
        }
        assert_eq!(netlink.local_routes().expect("lists"), []);
        // Enough for a dump of several datagrams.
        let many: Vec<IpAddr> =
            (0..1000u16).map(|n| [198, 18, (n >> 8) as u8, n as u8].into()).collect();
        for ip in &many {
            netlink.add_local_route(*ip).expect("the route is added");
        }
        let listed: Vec<IpAddr> =
            netlink.local_routes().expect("lists").iter().map(|r| r.ip).collect();
        assert_eq!(listed, many);
    });
}

/// Asserts that a change has been told by now: rtnetlink tells before it acknowledges.
#[track_caller]
fn told(monitor: &mut Monitor, what: impl Fn(&Event) -> bool) {
    let mut events = Vec::new();
    assert!(!monitor.read(&mut events).expect("reads"));
    assert!(events.iter().any(what), "{events:?}");
}

#[test]
fn links_and_addresses_are_listed_and_their_changes_told() {
    needs_root!("links_and_addresses");
    let lab = Lab::new();
    let node = &lab.node.0;
    let (mut netlink, mut monitor) =
        lab.node.enter(|| (Netlink::open().expect("opens"), Monitor::open().expect("opens")));
    let links = netlink.links().expect("lists");
    let lan = links.iter().find(|l| l.name == LAN).expect("there");
    assert_eq!((lan.ifindex, lan.mac), (lab.ifindex, Some(lab.node_mac)));
    assert_eq!((lan.kind.as_deref(), lan.mtu, lan.hardware), (Some("veth"), 1500, 1));
    assert!(lan.usable() && !lan.loopback && !lan.noarp && lan.master.is_none());
    assert!(links.iter().any(|l| l.ifindex == LOOPBACK && l.loopback));
    let addresses = netlink.addresses().expect("lists");
    for (ip, prefix) in [(IpAddr::from(NODE4), 24), (NODE6.into(), 64)] {
        let a = addresses.iter().find(|a| a.ip == ip).expect("there");
        assert_eq!((a.ifindex, a.prefix, a.scope), (lab.ifindex, prefix, 0));
    }

    run(&format!("ip -n {node} link add br7 type bridge"));
    told(
        &mut monitor,
        |e| matches!(e, Event::Link(l) if l.name == "br7" && l.kind.as_deref() == Some("bridge")),
    );
    run(&format!("ip -n {node} link set {LAN} master br7"));
    told(
        &mut monitor,
        |e| matches!(e, Event::Link(l) if l.ifindex == lab.ifindex && l.master.is_some()),
    );
    run(&format!("ip -n {node} link del br7"));
    told(&mut monitor, |e| matches!(e, Event::LinkGone { ifindex } if *ifindex != lab.ifindex));
    run(&format!("ip -n {node} addr add 192.0.2.9/32 dev {LAN}"));
    told(
        &mut monitor,
        |e| matches!(e, Event::Address(a) if a.ip.to_string() == "192.0.2.9" && a.prefix == 32),
    );
    run(&format!("ip -n {node} addr del 192.0.2.9/32 dev {LAN}"));
    told(&mut monitor, |e| matches!(e, Event::AddressGone(a) if a.ip.to_string() == "192.0.2.9"));
    netlink.add_local_route(VIP4.into()).expect("the route is added");
    told(&mut monitor, |e| *e == Event::Route(LocalRoute { ip: VIP4.into(), ifindex: LOOPBACK }));
    run(&format!("ip -n {node} route del local {VIP4} dev lo table local"));
    told(&mut monitor, |e| {
        *e == Event::RouteGone(LocalRoute { ip: VIP4.into(), ifindex: LOOPBACK })
    });
    run(&format!("ip -n {} link set {LAN} down", lab.client.0));
    // The carrier is noticed by a kernel worker.
    let down = |e: &Event| matches!(e, Event::Link(l) if l.ifindex == lab.ifindex && !l.usable());
    eventually("the lost carrier is not told", || {
        let mut events = Vec::new();
        monitor.read(&mut events).expect("reads");
        events.iter().any(down).then_some(())
    });
}
