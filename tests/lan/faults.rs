//! Faults of agents, nodes, cables, and foreign hosts.
use std::net::IpAddr;
use std::time::Duration;

use crate::bpf_lab;
use crate::bpf_lab::run;
use crate::lab::{ETH, Lab, ingress, succeeds, vip};
use crate::needs_root;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 201));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 202));
/// The bound for a takeover.
const BOUND_MS: u128 = 1000;

#[test]
fn a_killed_holder_is_replaced_and_its_kernel_stays_silent() {
    needs_root!("a_killed_holder_is_replaced_and_its_kernel_stays_silent");
    let mut lab = Lab::serving(2, 2);
    let places = lab.addresses(0);
    for round in 0..4 {
        let holder = lab.holder(A).expect("one holder");
        lab.kill(holder);
        let ms = lab.time_to_page(A);
        println!("round {round}: node-{} killed, page after {ms} ms", holder + 1);
        assert!(ms < BOUND_MS, "{ms} ms");
        assert!(lab.nodes[holder].local_routes().contains("10.77.0.201"), "the trap is not set");
        // Both nodes' kernels are asked in each sample.
        lab.watch(40, 1, &[A, B]);
        assert_eq!(lab.holder(A), Some(1 - holder));
        lab.start(holder);
        // The pinned program and its entries are taken over without a moment in which the kernel answers.
        lab.watch(100, 1, &[A]);
        lab.settle(&[A, B]);
        assert_eq!(lab.addresses(holder), places);
    }
}

#[test]
fn a_node_that_is_asked_to_end_hands_over_and_leaves_nothing() {
    needs_root!("a_node_that_is_asked_to_end_hands_over_and_leaves_nothing");
    let mut lab = Lab::serving(2, 2);
    let holder = lab.holder(A).expect("one holder");
    let node = &lab.nodes[holder];
    assert!(!node.local_routes().is_empty() && node.bpf_root.join("links/steer").exists());
    let shown = run(&format!("bpftool link show pinned {}", node.tc_link().display()));
    let id = shown.split(':').next().expect("the link's number").to_owned();
    lab.end(holder);
    println!("after SIGTERM: page after {} ms", lab.time_to_page(A));
    let node = &lab.nodes[holder];
    assert_eq!(node.local_routes(), "");
    assert!(!node.bpf_root.exists(), "pins are left");
    assert!(!succeeds(&format!("bpftool link show id {id}")), "the tc program is still attached");
    let links = run("bpftool link show");
    let inode = std::os::unix::fs::MetadataExt::ino(
        &std::fs::metadata(format!("/run/netns/{}", node.ns.0)).unwrap(),
    );
    assert!(!links.contains(&format!("netns_ino {inode} ")), "{links}");
    lab.watch(20, 1, &[A, B]);
    // The other one too: then nobody answers at all.
    lab.end(1 - holder);
    lab.watch(5, 0, &[A, B]);
}

#[test]
fn a_hung_holder_is_replaced_and_yields_when_it_goes_on() {
    needs_root!("a_hung_holder_is_replaced_and_yields_when_it_goes_on");
    let lab = Lab::serving(2, 1);
    for round in 0..3 {
        let holder = lab.holder(A).expect("one holder");
        lab.signal(holder, "STOP");
        let ms = lab.time_to_page_elsewhere(A, holder);
        println!("round {round}: node-{} stopped, answered by the other after {ms} ms", holder + 1);
        assert!(ms < BOUND_MS, "{ms} ms");
        lab.watch(20, 1, &[A]);
        lab.signal(holder, "CONT");
        lab.watch(100, 1, &[A]);
        lab.settle(&[A]);
    }
}

#[test]
fn links_that_fail_and_come_back_leave_one_holder() {
    needs_root!("links_that_fail_and_come_back_leave_one_holder");
    let lab = Lab::serving(2, 1);
    let holder = lab.holder(A).expect("one holder");
    // The cable: the node's own link loses its carrier.
    let (node, other) = (&lab.nodes[holder], 1 - holder);
    run(&format!("ip -n {} link set {} down", lab.lan.0, node.port()));
    println!("cable out: page after {} ms", lab.time_to_page(A));
    assert_eq!(lab.holder(A), Some(other));
    run(&format!("ip -n {} link set {} up", lab.lan.0, node.port()));
    lab.settle(&[A]);
    lab.watch(50, 1, &[A]);
    // The interface: what the kernel has on it is gone and comes back.
    let holder = lab.holder(A).expect("one holder");
    let node = &lab.nodes[holder];
    node.run(&format!("ip link set {ETH} down"));
    println!("interface down: page after {} ms", lab.time_to_page(A));
    node.run(&format!("ip link set {ETH} up"));
    lab.settle(&[A]);
    lab.watch(50, 1, &[A]);
    // A switch that is switched off and on: nobody hears anybody, both may hold it, one remains.
    for node in &lab.nodes {
        run(&format!("ip -n {} link set {} down", lab.lan.0, node.port()));
    }
    std::thread::sleep(Duration::from_secs(1));
    for node in &lab.nodes {
        run(&format!("ip -n {} link set {} up", lab.lan.0, node.port()));
    }
    lab.settle(&[A]);
    lab.watch(50, 1, &[A]);
}

#[test]
fn of_three_nodes_two_may_die() {
    needs_root!("of_three_nodes_two_may_die");
    let mut lab = Lab::serving(3, 3);
    let all = [A, B, vip(203)];
    for _ in 0..2 {
        let holder = lab.holder(A).expect("one holder");
        lab.kill(holder);
        let ms = all.map(|address| lab.time_to_page(address));
        println!("node-{} killed, pages after {ms:?} ms", holder + 1);
        assert!(ms.iter().all(|ms| *ms < BOUND_MS), "{ms:?}");
        lab.until("no single holder", || {
            lab.sample(&all).values().all(|macs| macs.len() == 1).then_some(())
        });
        lab.watch(30, 1, &all);
    }
}

#[test]
fn an_address_that_a_foreign_host_has_is_left_to_it() {
    needs_root!("an_address_that_a_foreign_host_has_is_left_to_it");
    let mut lab = Lab::new(2);
    run(&format!("ip -n {} addr add 10.77.0.201/24 dev {ETH}", lab.stranger.0));
    let stranger = crate::wire::mac(&lab.stranger, ETH);
    lab.apply("web", &ingress("web", ""));
    lab.start(0);
    lab.start(1);
    let [a, b, c, d, e, f] = stranger;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    lab.until(&format!("nobody complains about {mac}"), || {
        let said = |node| lab.status(node).contains(&mac);
        (said(0) || said(1)).then_some(())
    });
    for i in 0..60 {
        let macs = &lab.sample(&[A])[&A];
        assert_eq!(macs[..], [stranger], "sample {i}: {}", lab.logs());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(succeeds(&format!("ip -n {} addr del 10.77.0.201/24 dev {ETH}", lab.stranger.0)));
    lab.settle(&[A]);
    lab.watch(30, 1, &[A]);
    assert!(lab.holder(A).is_some(), "a node of ours has it now");
}

impl Lab {
    /// Milliseconds until a node other than `not` answers for the address.
    fn time_to_page_elsewhere(&self, address: IpAddr, not: usize) -> u128 {
        let start = std::time::Instant::now();
        self.until("nobody else takes over", || {
            self.holder(address).filter(|holder| *holder != not).map(drop)
        });
        self.time_to_page(address);
        start.elapsed().as_millis()
    }
}
