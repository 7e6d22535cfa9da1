//! What holds when nothing goes wrong.
use std::time::Duration;

use crate::bpf_lab;
use crate::bpf_lab::{Namespace, run};
use crate::lab::{CLIENT_IP, Lab, get, ingress, vip, vip6};
use crate::needs_root;

#[test]
fn one_node_answers_for_each_address_and_pages_come_from_everywhere() {
    needs_root!("one_node_answers_for_each_address_and_pages_come_from_everywhere");
    let mut lab = Lab::new(2);
    let both = "    lbipam.cilium.io/ips: \"10.77.0.201,fd77::201\"\n";
    lab.apply("both", &ingress("both", both));
    lab.apply("other", &ingress("other", ""));
    lab.start(0);
    lab.start(1);
    let used = [vip(201), vip(202), vip6(0x201)];
    lab.settle(&used);
    lab.watch(100, 1, &used);
    lab.watch(20, 0, &[vip(203), vip(206), vip6(0x202), vip6(0x206)]);

    for address in [vip(201), vip6(0x201)] {
        let page = lab.client.enter(|| get(address)).expect("a page").to_lowercase();
        let client = if address.is_ipv4() { CLIENT_IP } else { "fd77::100" };
        assert!(page.contains(&format!("x-forwarded-for: {client}\r\n")), "{page}");
        // From every node: from the holder itself and from one that does not hold it.
        assert!(lab.holder(address).is_some());
        for node in &lab.nodes {
            let page = node.ns.enter(|| get(address));
            assert!(page.is_some(), "no page from {address} on node-{}", node.number);
        }
    }
    // From pods behind the nodes, with the pod's address intact.
    for node in &lab.nodes {
        let pod = pod_behind(&node.ns, node.number);
        let page = pod.enter(|| get(vip(201))).expect("a page in the pod").to_lowercase();
        assert!(page.contains(&format!("x-forwarded-for: 10.78.{}.2\r\n", node.number)), "{page}");
    }
    for node in 0..2 {
        let status = String::from_utf8(lab.pilus(node, "status").stdout).unwrap();
        assert!(status.contains("eth1"), "{status}");
    }
}

/// A namespace behind a node, as a CNI would make it.
fn pod_behind(node: &Namespace, number: usize) -> Namespace {
    let pod = Namespace(format!("{}-pod", node.0));
    run(&format!("ip netns add {}", pod.0));
    run(&format!("ip link add eth0 netns {} type veth peer name vethpod netns {}", pod.0, node.0));
    run(&format!("ip -n {} addr add 10.78.{number}.1/24 dev vethpod", node.0));
    run(&format!("ip -n {} link set vethpod up", node.0));
    run(&format!("ip -n {} addr add 10.78.{number}.2/24 dev eth0", pod.0));
    run(&format!("ip -n {} link set lo up", pod.0));
    run(&format!("ip -n {} link set eth0 up", pod.0));
    run(&format!("ip -n {} route add default via 10.78.{number}.1", pod.0));
    pod
}

#[test]
fn addresses_are_equal_on_all_nodes_and_stay_whatever_comes_and_restarts() {
    needs_root!("addresses_are_equal_on_all_nodes_and_stay_whatever_comes_and_restarts");
    let mut lab = Lab::new(3);
    lab.start(0);
    // The second Ingress comes while one agent runs, the others start one after the other.
    lab.apply("m", &ingress("mmm", ""));
    lab.settle(&[vip(201)]);
    lab.start(2);
    lab.apply("z", &ingress("zzz", ""));
    lab.start(1);
    lab.settle(&[vip(201), vip(202)]);
    let before = lab.addresses(0);
    assert!(before.contains("10.77.0.201") && before.contains("10.77.0.202"), "{before}");
    for node in 0..3 {
        assert_eq!(lab.addresses(node), before, "node-{}", node + 1);
    }

    // Services that sort earlier get what is left.
    lab.apply("a", &ingress("aaa", ""));
    lab.settle(&[vip(201), vip(202), vip(203)]);
    // Each node tells an address when it knows for certain that it stays.
    let places = |lab: &Lab, node: usize| -> Vec<String> {
        lab.until("a node does not tell an address", || {
            let text = String::from_utf8(lab.pilus(node, "get ingress -A").stdout).unwrap();
            let address = |name: &str| {
                let row = text.lines().find(|line| line.contains(name))?;
                row.split_whitespace().find(|word| word.starts_with("10.77.")).map(str::to_owned)
            };
            ["aaa", "mmm", "zzz"].into_iter().map(address).collect()
        })
    };
    let expected = ["10.77.0.203", "10.77.0.201", "10.77.0.202"];
    for node in 0..3 {
        assert_eq!(places(&lab, node), expected, "node-{}", node + 1);
    }
    // Also when all agents end and start again in another order.
    for node in 0..3 {
        lab.end(node);
    }
    for node in [1, 2, 0] {
        lab.start(node);
    }
    lab.settle(&[vip(201), vip(202), vip(203)]);
    for node in 0..3 {
        assert_eq!(places(&lab, node), expected, "node-{} after the restart", node + 1);
    }
}

#[test]
fn the_lan_sees_no_storm() {
    needs_root!("the_lan_sees_no_storm");
    let lab = Lab::serving(2, 5);
    // Past the repeated announcements of a new holder.
    std::thread::sleep(Duration::from_secs(3));
    let frames = lab.wire.count(Duration::from_secs(3));
    println!("two nodes with five addresses: {} frames a second", frames / 3);
    // Ten advertisements a second from each node; the peers' claims and the kernels' own rounds besides.
    assert!(frames > 10, "the nodes are not heard: {frames} frames in three seconds");
    assert!(frames < 3 * 50, "{frames} frames in three seconds");
}
