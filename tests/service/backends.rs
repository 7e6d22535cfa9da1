//! Which backends a frontend has, and how they are reached.
use std::time::Duration;

use pilus::api::address::MacAddr;
use pilus::api::object::ExternalTrafficPolicy;
use pilus::kernel::Server as _;
use pilus::server::service::{LISTEN, MAX_NEIGHBORS, MOVED, SILENCE};

use crate::harness::*;

/// What the endpoints of `default/web` at an address become.
fn become_of(cluster: &mut Cluster, address: &str, endpoints: &[&str]) -> String {
    cluster.service(balanced("default/web", &["80"]), &[address], endpoints);
    cluster.tell();
    cluster.backends("default/web")
}

#[test]
fn ready_ones_or_else_those_that_still_serve() {
    for (endpoints, expected) in [
        (&[][..], "none"),
        (&["!10.244.1.5:80@n1"], "none"),
        (&["10.244.1.6:80@n1", "10.244.1.5:80@n1"], "10.244.1.5:80 L, 10.244.1.6:80 L"),
        (&["10.244.1.5:80@n1", "~10.244.1.6:80@n1", "!10.244.1.7:80@n1"], "10.244.1.5:80 L"),
        (&["~10.244.1.6:80@n1", "!10.244.1.7:80@n1"], "10.244.1.6:80 L"),
        // The other family is another frontend's.
        (&["10.244.1.5:80@n1", "[fd00:244::5]:80@n1"], "10.244.1.5:80 L"),
    ] {
        let mut cluster = Cluster::new();
        assert_eq!(become_of(&mut cluster, "192.168.10.211", endpoints), expected, "{endpoints:?}");
        assert_eq!(cluster.frontends().len(), 1, "without backends a frontend stays");
    }
    let mut cluster = Cluster::new();
    let both = ["10.244.1.5:80@n1", "[fd00:244::5]:80@n1"];
    assert_eq!(become_of(&mut cluster, "fd00:10::211", &both), "[fd00:244::5]:80 L");
}

/// The world of the next test: n2 is heard, n3 is not, n4 is heard by IPv6 alone.
fn four_nodes() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.node("n1", &["192.168.10.101", "fd00:10::101"], &["10.244.1.0/24"]);
    // As Vagrant has it: the address that Kubernetes knows is that of a NAT, the same LAN's is another.
    cluster.node("n2", &["10.0.2.15", "fd00:10::102"], &["10.244.2.0/24", "nonsense"]);
    cluster.node("n3", &["192.168.10.103"], &["10.244.3.0/24"]);
    cluster.node("n4", &["192.168.10.104", "fd00:99::104"], &[]);
    cluster.hear("n2", "192.168.10.102");
    cluster.hear("n2", "fe80::2");
    cluster.hear("n4", "fe80::4");
    cluster.now = cluster.now + LISTEN;
    cluster
}

#[test]
fn the_way_to_a_backend_follows_from_its_address_and_node() {
    for (what, endpoint, expected) in [
        ("a Pod here", "10.244.1.5:80@n1", "L"),
        ("a Pod here with an address of the LAN (macvlan)", "192.168.10.55:80@n1", "L"),
        ("the node itself, whoever it says it is", "192.168.10.101:80@n9", "H"),
        ("the node's address on the Pods' bridge", "10.244.1.1:80", "H"),
        ("a Pod of a node that is heard", "10.244.2.5:80@n2", "192.168.10.102"),
        (
            "the same by IPv6: the address of the Node object on this LAN",
            "[fd00:244:2::5]:80@n2",
            "fd00:10::102",
        ),
        ("a node that is silent", "10.244.3.5:80@n3", "E"),
        ("a node that nobody knows", "10.244.9.5:80@n9", "E"),
        ("heard, with no address of this family on the LAN", "[fd00:244:4::5]:80@n4", "E"),
        (
            "heard by IPv6; the Node object has the IPv4 address",
            "10.244.4.5:80@n4",
            "192.168.10.104",
        ),
        ("no node named: by the network of the node", "10.244.2.6:80", "192.168.10.102"),
        ("no node named: by the network of this node", "10.244.1.6:80", "L"),
        ("no node named: the other node itself", "192.168.10.102:80", "192.168.10.102"),
        ("no node named: a silent node itself", "192.168.10.103:80", "E"),
        ("no node named: another machine of the LAN", "192.168.10.77:80", "E"),
        ("no node named, not of the LAN: a container here", "172.17.0.2:80", "L"),
    ] {
        let mut cluster = four_nodes();
        let vip = if endpoint.starts_with('[') { "fd00:10::211" } else { "192.168.10.211" };
        let backends = become_of(&mut cluster, vip, &[endpoint]);
        let address = endpoint.split('@').next().unwrap();
        assert_eq!(backends, format!("{address} {expected}"), "{what}");
    }
}

#[test]
fn what_stays_on_the_node_has_its_own_choice_of_ready_and_terminating() {
    let mut cluster = four_nodes();
    let mut service = balanced("default/web", &["80"]);
    service.external_traffic_policy = ExternalTrafficPolicy::Local;
    for (endpoints, expected) in [
        (
            &["10.244.1.5:80@n1", "10.244.2.5:80@n2"][..],
            "10.244.1.5:80 L, 10.244.2.5:80 192.168.10.102 | 10.244.1.5:80 L",
        ),
        // The ready one is elsewhere; connections to this node go to the one that drains (KEP-1669).
        (
            &["~10.244.1.5:80@n1", "10.244.2.5:80@n2"],
            "10.244.2.5:80 192.168.10.102 | 10.244.1.5:80 L",
        ),
        (
            &["192.168.10.101:80@n1", "~10.244.1.5:80@n1"],
            "192.168.10.101:80 H | 192.168.10.101:80 H",
        ),
        (&["10.244.2.5:80@n2"], "10.244.2.5:80 192.168.10.102 | none"),
    ] {
        cluster.service(service.clone(), &["192.168.10.211"], endpoints);
        cluster.tell();
        let line = format!("lb 192.168.10.211:80/TCP default/web outside-local -> {expected}");
        assert_eq!(cluster.lines(), [line]);
    }
}

#[test]
fn a_node_that_falls_silent_is_out_of_reach_until_it_is_heard_again() {
    let mut cluster = four_nodes();
    let direct = "10.244.2.5:80 192.168.10.102";
    assert_eq!(become_of(&mut cluster, "192.168.10.211", &["10.244.2.5:80@n2"]), direct);
    let heard = cluster.now;
    cluster.hear("n2", "192.168.10.102");
    assert_eq!(
        cluster.server.timeout(),
        Some(heard + SILENCE - LISTEN),
        "the others were heard earlier"
    );
    cluster.sent.clear();
    cluster.now = heard + SILENCE - Duration::from_nanos(1);
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), direct);
    cluster.now = heard + SILENCE;
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), "10.244.2.5:80 E");
    cluster.hear("n2", "192.168.10.102");
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), direct);
}

#[test]
fn a_node_keeps_its_address_while_it_is_heard_from_there() {
    let mut cluster = four_nodes();
    // Another LAN of it, or somebody who uses its name.
    cluster.hear("n2", "192.168.10.66");
    assert_eq!(
        become_of(&mut cluster, "192.168.10.211", &["10.244.2.5:80@n2"]),
        "10.244.2.5:80 192.168.10.102"
    );
    cluster.now = cluster.now + MOVED;
    cluster.settle();
    cluster.hear("n2", "192.168.10.66");
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), "10.244.2.5:80 192.168.10.66");
    // Our own name from somewhere else changes nothing, nor do bytes that are no claims.
    cluster.hear("n1", "192.168.10.9");
    let noise = pilus::api::Message::Peer(ip("192.168.10.8"), (*b"PLCL\x01").into());
    cluster.deliver(pilus::api::wiring::LAN, noise);
    assert_eq!(become_of(&mut cluster, "192.168.10.211", &["10.244.1.5:80@n1"]), "10.244.1.5:80 L");
}

#[test]
fn made_up_names_do_not_push_out_the_nodes_that_live() {
    let mut cluster = four_nodes();
    for i in 0..2 * MAX_NEIGHBORS {
        cluster.hear(&format!("ghost{i}"), "192.168.10.66");
    }
    assert_eq!(
        become_of(&mut cluster, "192.168.10.211", &["10.244.2.5:80@n2"]),
        "10.244.2.5:80 192.168.10.102"
    );
    // n9 finds no place until the ghosts are gone.
    cluster.hear("n9", "192.168.10.109");
    assert_eq!(become_of(&mut cluster, "192.168.10.211", &["10.244.9.5:80@n9"]), "10.244.9.5:80 E");
    cluster.now = cluster.now + SILENCE;
    cluster.settle();
    cluster.hear("n9", "192.168.10.109");
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), "10.244.9.5:80 192.168.10.109");
}

#[test]
fn every_interface_that_clients_or_pods_may_be_behind_is_hooked_with_the_reason() {
    let mut cluster = Cluster::new();
    let list = &mut cluster.interfaces.list;
    let port = |index, name, kind| {
        let mut port = interface(index, name, kind, &[]);
        port.port = true;
        port
    };
    list.push(port(4, "veth1", "veth"));
    list.push(interface(5, "cali123", "veth", &[("fe80::5", 64)]));
    list.push(interface(6, "docker0", "bridge", &[("172.17.0.1", 16), ("fd00:17::1", 64)]));
    list.push(interface(7, "flannel.1", "vxlan", &[("10.244.1.0", 32)]));
    let mut down = interface(8, "eth3", "", &[]);
    down.up = false;
    list.push(down);
    // Without Ethernet header: the driver of interfaces gives them no hardware address.
    let mut wireguard = interface(9, "wg0", "wireguard", &[("10.9.0.1", 24)]);
    wireguard.mac = MacAddr::ZERO;
    list.push(wireguard);
    // A network card that is a port of a bridge: its packets are seen at the bridge.
    list.push(port(11, "eth4", ""));
    list.push(interface(10, "eth2.5", "vlan", &[("192.168.5.2", 24)]));
    cluster.tell();
    let hooked = |cluster: &Cluster| -> Vec<(u32, bool, String)> {
        let all = &cluster.balancing.as_ref().unwrap().interfaces;
        all.iter().map(|it| (it.index.0, it.outside, it.why.to_string())).collect()
    };
    let expected = |eth1: &str, vlan: &str| {
        [
            (2, eth1),
            (3, "Pods: 10.244.1.0/24 is behind it"),
            (4, "a Pod: a port of a bridge"),
            (5, "Pods may be behind it"),
            (6, "Pods: 172.17.0.0/16, fd00:17::/64 are behind it"),
            (7, "Pods: 10.244.1.0/32 is behind it"),
            (10, vlan),
        ]
        .map(|(index, why)| (index, [2, 10].contains(&index), why.to_owned()))
    };
    assert_eq!(hooked(&cluster), expected("LAN: announces", "LAN: announces"));
    let own = cluster.balancing.as_ref().unwrap().own;
    assert_eq!(own, [Some(ip("192.168.10.101")), Some(ip("fd00:10::101"))]);
    // A named one is the only one that announces, and comes first for this node's own address.
    let config =
        pilus::api::config::Config { interfaces: vec!["eth2.5".into()], ..Default::default() };
    let mut named = Cluster::with(config);
    named.interfaces.list = cluster.interfaces.list.clone();
    named.tell();
    assert_eq!(hooked(&named), expected("LAN: does not announce", "LAN: announces"));
    let own = named.balancing.as_ref().unwrap().own;
    assert_eq!(own, [Some(ip("192.168.5.2")), Some(ip("fd00:10::101"))]);
}
