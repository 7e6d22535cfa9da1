//! Every branch of the kernel programs, packet in and packet out (`BPF_PROG_TEST_RUN`). Packets
//! are compared whole, so a wrong byte anywhere fails.

mod bpf_lab;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bpf_lab::frames::{Arp, Nd, link_option, tagged};
use bpf_lab::{CLIENT4, CLIENT6, Lab, NODE4, VIP4, VIP6, VIPS};
use pilus::io::bpf::{
    Announced, Bpf, Counter, ProgramName, Role, Steered, TcHook, Transport, monotonic_ns,
};

const PASS: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
const HOUR: u64 = 3_600_000_000_000;
/// Not the interface's own address, so that an answer from anywhere else is noticed.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// The programs, loaded; the tests run on the node's interface.
struct Bench {
    lab: Lab,
    bpf: Bpf,
}

impl Bench {
    /// Both service addresses held, the agent alive.
    fn new() -> Self {
        let lab = Lab::new();
        let bpf = Bpf::load(&lab.bpf_root(), TcHook::Auto).expect("the programs load");
        let mut bench = Self { lab, bpf };
        bench.role(Role::Held);
        bench.bpf.set_liveness(monotonic_ns() + HOUR).expect("liveness is written");
        bench
    }

    fn role(&mut self, role: Role) {
        let ifindex = self.lab.ifindex;
        let wanted = VIPS.map(|ip| Announced { ifindex, ip, role, mac: MAC });
        self.bpf.sync_addresses(&wanted).expect("addresses are written");
    }

    /// Runs the program; returns the verdict, the packet after, and the counters that moved by one.
    fn run(&self, frame: &[u8]) -> (i32, Vec<u8>, Vec<Counter>) {
        /// Of `struct __sk_buff`.
        const SIZE: usize = 192;
        const IFINDEX: usize = 40;
        let mut context = [0u8; SIZE];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&self.lab.ifindex.to_ne_bytes());
        let before = self.bpf.counters().expect("counters are read");
        let (verdict, packet) = self
            .lab
            .node
            .enter(|| self.bpf.test_run(ProgramName::L2Announce, frame, &context))
            .expect("the program runs");
        let after = self.bpf.counters().expect("counters are read");
        let mut moved = Vec::new();
        for (counter, value) in &after {
            match value - before[counter] {
                0 => {}
                1 => moved.push(*counter),
                n => panic!("{counter:?} moved by {n}"),
            }
        }
        (verdict, packet, moved)
    }

    #[track_caller]
    fn answers(&self, frame: &[u8], expected: &[u8], counter: Counter) {
        assert_eq!(self.run(frame), (REDIRECT, expected.to_vec(), vec![counter]));
    }

    #[track_caller]
    fn drops(&self, frame: &[u8], counter: Counter) {
        assert_eq!(self.run(frame), (DROP, frame.to_vec(), vec![counter]));
    }

    #[track_caller]
    fn passes(&self, frame: &[u8], counters: &[Counter]) {
        assert_eq!(self.run(frame), (PASS, frame.to_vec(), counters.to_vec()));
    }

    fn request(&self) -> Arp {
        Arp::request(self.lab.client_mac, CLIENT4, VIP4)
    }

    fn reply(&self) -> Arp {
        Arp::reply(MAC, VIP4, self.lab.client_mac, CLIENT4)
    }

    fn solicitation(&self) -> Nd {
        Nd::solicitation(self.lab.client_mac, CLIENT6, VIP6)
    }

    fn advertisement(&self) -> Nd {
        Nd::advertisement(MAC, VIP6, self.lab.client_mac, CLIENT6)
    }
}

#[test]
fn arp_requests_for_a_held_address_are_answered() {
    needs_root!("arp_requests_for_a_held_address_are_answered");
    let b = Bench::new();
    let (request, reply) = (b.request(), b.reply());
    b.answers(&request.bytes(), &reply.bytes(), Counter::RepliedArp);

    // Padded to Ethernet's minimum: the padding stays.
    let pad = |arp: Arp| [arp.bytes(), vec![0; 18]].concat();
    b.answers(&pad(request), &pad(reply), Counter::RepliedArp);

    // A poll straight to the interface (RFC 1122 section 2.3.2.1).
    let poll = Arp { to: b.lab.node_mac, tha: MAC, ..request };
    b.answers(&poll.bytes(), &reply.bytes(), Counter::RepliedArp);

    // A probe has no sender address yet (RFC 5227); the answer defends ours.
    let probe = Arp { spa: Ipv4Addr::UNSPECIFIED, ..request };
    let defence = Arp { tpa: Ipv4Addr::UNSPECIFIED, ..reply };
    b.answers(&probe.bytes(), &defence.bytes(), Counter::RepliedArp);

    // The answer goes to the hardware address in the packet, not to that of the frame.
    let station = [2, 0, 0, 0, 0, 9];
    let relayed = Arp { from: station, ..request };
    b.answers(&relayed.bytes(), &reply.bytes(), Counter::RepliedArp);

    // Linux answers IEEE 802 hardware type too, with type Ethernet.
    b.answers(&Arp { htype: 6, ..request }.bytes(), &reply.bytes(), Counter::RepliedArp);

    let state = b.bpf.addresses().expect("addresses are read");
    let v4 = state.iter().find(|s| s.address.ip == IpAddr::V4(VIP4)).expect("it is there");
    assert_eq!(v4.replies, 6);
}

#[test]
fn arp_requests_are_dropped_when_another_node_holds_the_address_or_the_agent_is_dead() {
    needs_root!("arp_requests_are_dropped");
    let mut b = Bench::new();
    b.role(Role::NotHeld);
    b.drops(&b.request().bytes(), Counter::DroppedNotHolder);
    b.role(Role::Held);
    for stale in [0, 1, monotonic_ns()] {
        b.bpf.set_liveness(stale).expect("liveness is written");
        b.drops(&b.request().bytes(), Counter::DroppedStale);
    }
    b.bpf.set_liveness(monotonic_ns() + HOUR).expect("liveness is written");
    b.answers(&b.request().bytes(), &b.reply().bytes(), Counter::RepliedArp);
}

#[test]
fn other_arp_passes_untouched() {
    needs_root!("other_arp_passes_untouched");
    let mut b = Bench::new();
    let request = b.request();
    b.passes(&Arp { tpa: NODE4, ..request }.bytes(), &[]);
    b.passes(&b.reply().bytes(), &[]);
    // An announcement, and a conflicting one.
    b.passes(&Arp { spa: VIP4, ..request }.bytes(), &[]);
    b.passes(&Arp { op: 2, spa: VIP4, ..request }.bytes(), &[]);
    // For another host.
    b.passes(&Arp { to: [2, 0, 0, 0, 0, 9], ..request }.bytes(), &[]);
    // In a VLAN.
    b.passes(&tagged(&request.bytes(), 5), &[]);
    // The address is announced on another interface only.
    let elsewhere =
        Announced { ifindex: b.lab.ifindex + 1000, ip: VIP4.into(), role: Role::Held, mac: MAC };
    b.bpf.sync_addresses(&[elsewhere]).expect("addresses are written");
    b.passes(&request.bytes(), &[]);
}

#[test]
fn malformed_arp_is_counted_and_never_answered() {
    needs_root!("malformed_arp");
    let b = Bench::new();
    let request = b.request();
    let malformed = [
        Arp { htype: 2, ..request },
        Arp { ptype: 0x0806, ..request },
        Arp { hlen: 8, ..request },
        Arp { plen: 16, ..request },
    ];
    for arp in malformed {
        b.passes(&arp.bytes(), &[Counter::PassedArpMalformed]);
    }
    let whole = request.bytes();
    for length in 15..whole.len() {
        b.passes(&whole[..length], &[Counter::PassedArpMalformed]);
    }
    for sha in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        b.drops(&Arp { sha, ..request }.bytes(), Counter::DroppedArpBadSender);
    }
}

#[test]
fn solicitations_for_a_held_address_are_answered() {
    needs_root!("solicitations_for_a_held_address_are_answered");
    let b = Bench::new();
    let (ns, na) = (b.solicitation(), b.advertisement());
    b.answers(&ns.bytes(), &na.bytes(), Counter::RepliedNdp);

    // Unreachability detection asks the node itself, without an option: the frame must grow.
    let unicast = Nd { to: b.lab.node_mac, dst: VIP6, options: vec![], ..ns.clone() };
    b.answers(&unicast.bytes(), &na.bytes(), Counter::RepliedNdp);

    // With an option the answer goes where that says.
    let station = [2, 0, 0, 0, 0, 9];
    let relayed = Nd { from: station, ..ns.clone() };
    b.answers(&relayed.bytes(), &na.bytes(), Counter::RepliedNdp);

    // More options before and after: the frame must shrink.
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let long = [14, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
    let options = [&nonce[..], &link_option(1, b.lab.client_mac), &long].concat();
    b.answers(&Nd { options, ..ns.clone() }.bytes(), &na.bytes(), Counter::RepliedNdp);
    // As many as fit the bound.
    let options = [link_option(1, b.lab.client_mac), nonce.repeat(12)].concat();
    b.answers(&Nd { options, ..ns }.bytes(), &na.bytes(), Counter::RepliedNdp);

    // Duplicate address detection: all nodes hear that the address is taken.
    let probe = Nd::probe(b.lab.client_mac, VIP6);
    let defence = Nd::advertisement_to_all(MAC, VIP6);
    b.answers(&probe.bytes(), &defence.bytes(), Counter::RepliedNdp);
    let nonced = Nd { options: nonce.to_vec(), ..probe };
    b.answers(&nonced.bytes(), &defence.bytes(), Counter::RepliedNdp);
}

#[test]
fn advertised_checksums_are_right_for_every_address() {
    needs_root!("advertised_checksums");
    let mut b = Bench::new();
    // Addresses whose sums carry differently, among them all ones and nearly so.
    for low in [0u128, 1, 0xffff, 0xfffe, 0xffff_ffff, 0xdead_beef_0bad_f00d, u64::MAX.into()] {
        let vip = Ipv6Addr::from(u128::from(VIP6) & !u128::from(u64::MAX) | low);
        let announced =
            Announced { ifindex: b.lab.ifindex, ip: vip.into(), role: Role::Held, mac: MAC };
        b.bpf.set_address(announced).expect("the address is written");
        let ns = Nd::solicitation(b.lab.client_mac, CLIENT6, vip);
        let na = Nd::advertisement(MAC, vip, b.lab.client_mac, CLIENT6);
        b.answers(&ns.bytes(), &na.bytes(), Counter::RepliedNdp);
    }
}

#[test]
fn solicitations_are_dropped_when_another_node_holds_the_address_or_the_agent_is_dead() {
    needs_root!("solicitations_are_dropped");
    let mut b = Bench::new();
    b.role(Role::NotHeld);
    b.drops(&b.solicitation().bytes(), Counter::DroppedNotHolder);
    b.role(Role::Held);
    b.bpf.set_liveness(monotonic_ns()).expect("liveness is written");
    b.drops(&b.solicitation().bytes(), Counter::DroppedStale);
}

#[test]
fn invalid_solicitations_are_dropped_by_name() {
    needs_root!("invalid_solicitations");
    let b = Bench::new();
    let ns = b.solicitation();
    let probe = Nd::probe(b.lab.client_mac, VIP6);
    let with = |options: &[u8]| Nd { options: options.to_vec(), ..ns.clone() };
    let cases = [
        (Nd { hop_limit: 254, ..ns.clone() }, Counter::DroppedNdpHopLimit),
        (Nd { checksum_error: 1, ..ns.clone() }, Counter::DroppedNdpChecksum),
        (Nd { checksum_error: 0x8000, ..ns.clone() }, Counter::DroppedNdpChecksum),
        (Nd { payload_length: Some(16), ..ns.clone() }, Counter::DroppedNdpLength),
        (Nd { payload_length: Some(31), ..ns.clone() }, Counter::DroppedNdpLength),
        (Nd { payload_length: Some(40), ..ns.clone() }, Counter::DroppedNdpLength),
        (Nd { payload_length: Some(0xffff), ..ns.clone() }, Counter::DroppedNdpLength),
        (with(&[14, 14].repeat(56)), Counter::DroppedNdpLength),
        (with(&[1, 0, 2, 0, 0, 0, 0, 9]), Counter::DroppedNdpOption),
        (with(&[14, 2, 2, 0, 0, 0, 0, 9]), Counter::DroppedNdpOption),
        (with(&[14, 255, 2, 0, 0, 0, 0, 9]), Counter::DroppedNdpOption),
        (with(&link_option(1, [0xff; 6])), Counter::DroppedNdpOption),
        (with(&link_option(1, [0; 6])), Counter::DroppedNdpOption),
        (with(&[1, 2, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]), Counter::DroppedNdpOption),
        (Nd { options: link_option(1, probe.from), ..probe.clone() }, Counter::DroppedNdpBadSource),
        (Nd { dst: VIP6, ..probe }, Counter::DroppedNdpBadSource),
        (
            Nd { src: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), ..ns.clone() },
            Counter::DroppedNdpBadSource,
        ),
    ];
    for (packet, counter) in cases {
        b.drops(&packet.bytes(), counter);
    }
}

#[test]
fn other_ipv6_passes_untouched() {
    needs_root!("other_ipv6_passes_untouched");
    let b = Bench::new();
    let ns = b.solicitation();
    b.passes(&Nd { target: CLIENT6, ..ns.clone() }.bytes(), &[]);
    b.passes(&Nd { kind: 136, ..ns.clone() }.bytes(), &[]);
    b.passes(&Nd { kind: 128, ..ns.clone() }.bytes(), &[]);
    b.passes(&Nd { code: 1, ..ns.clone() }.bytes(), &[]);
    b.passes(&Nd { to: [2, 0, 0, 0, 0, 9], ..ns.clone() }.bytes(), &[]);
    b.passes(&tagged(&ns.bytes(), 5), &[]);
    let mut tcp = ns.bytes();
    tcp[20] = 6;
    b.passes(&tcp, &[]);
    let mut ipv4 = ns.bytes();
    ipv4[12..14].copy_from_slice(&[8, 0]);
    b.passes(&ipv4, &[]);
    // Too short to name a target; too short even for a type.
    let whole = ns.bytes();
    for length in 56..78 {
        b.passes(&whole[..length], &[Counter::PassedNdpMalformed]);
    }
    // The kernel runs no test on less than an IPv6 header.
    for length in 54..56 {
        b.passes(&whole[..length], &[]);
    }
}

/// `struct bpf_sk_lookup` for a connection to `ip`:`port`.
fn lookup(ip: IpAddr, port: u16, protocol: u8) -> [u8; 72] {
    let mut context = [0u8; 72];
    let mut put = |at: usize, bytes: &[u8]| context[at..at + bytes.len()].copy_from_slice(bytes);
    match ip {
        IpAddr::V4(ip) => {
            put(8, &(libc::AF_INET as u32).to_ne_bytes());
            put(40, &ip.octets());
        }
        IpAddr::V6(ip) => {
            put(8, &(libc::AF_INET6 as u32).to_ne_bytes());
            put(44, &ip.octets());
        }
    }
    put(12, &u32::from(protocol).to_ne_bytes());
    put(60, &u32::from(port).to_ne_bytes());
    context
}

#[test]
fn steering_always_passes_and_counts() {
    needs_root!("steering_always_passes_and_counts");
    use std::os::fd::AsFd;
    const SK_PASS: i32 = 1;
    let mut b = Bench::new();
    let v4 = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let v6 = std::net::TcpListener::bind("[::1]:0").expect("a listener");
    let entry = |ip: IpAddr, socket| Steered { ip, port: 80, transport: Transport::Tcp, socket };
    b.bpf
        .sync_steering(&[entry(VIP4.into(), v4.as_fd()), entry(VIP6.into(), v6.as_fd())])
        .expect("steering is written");
    let run = |b: &Bench, ip: IpAddr, port: u16, protocol: u8| {
        let before = b.bpf.counters().expect("counters are read");
        let context = lookup(ip, port, protocol);
        let (verdict, _) =
            b.bpf.test_run(ProgramName::Steer, &[], &context).expect("the program runs");
        assert_eq!(verdict, SK_PASS);
        let after = b.bpf.counters().expect("counters are read");
        Counter::ALL.into_iter().filter(|c| after[c] != before[c]).collect::<Vec<_>>()
    };
    for vip in VIPS {
        assert_eq!(run(&b, vip, 80, 6), [Counter::Steered]);
        assert_eq!(run(&b, vip, 81, 6), []);
        assert_eq!(run(&b, vip, 80, 17), []);
    }
    assert_eq!(run(&b, NODE4.into(), 80, 6), []);
    // A listener of the wrong family is refused by the kernel, not used.
    b.bpf.steer(entry(VIP6.into(), v4.as_fd())).expect("steering is written");
    assert_eq!(run(&b, VIP6.into(), 80, 6), [Counter::SteerAssignFailed]);
    drop((v4, v6));
    assert_eq!(run(&b, VIP4.into(), 80, 6), [Counter::SteerNoSocket]);
}
