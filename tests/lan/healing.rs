//! What somebody takes away from a running agent comes back, and what an agent lacks is said.
use std::time::Duration;

use crate::bpf_lab;
use crate::bpf_lab::run;
use crate::lab::{ETH, Lab, ingress, vip};
use crate::needs_root;

#[test]
fn an_interface_that_is_made_anew_is_used_again() {
    needs_root!("an_interface_that_is_made_anew_is_used_again");
    let mut lab = Lab::serving(2, 1);
    let address = vip(201);
    let holder = lab.holder(address).expect("one holder");
    let node = &lab.nodes[holder];
    node.run(&format!("ip link del {ETH}"));
    println!("interface deleted: page after {} ms", lab.time_to_page(address));
    let (lan, ns, port, number) = (&lab.lan.0, &node.ns.0, node.port(), node.number);
    run(&format!("ip link add {ETH} netns {ns} type veth peer name {port} netns {lan}"));
    run(&format!("ip -n {lan} link set {port} master br0 up"));
    node.run(&format!("ip addr add 10.77.0.{number}/24 dev {ETH}"));
    node.run(&format!("ip addr add fd77::{number}/64 dev {ETH} nodad"));
    node.run(&format!("ip link set {ETH} up"));
    let mac = crate::wire::mac(&node.ns, ETH);
    lab.nodes[holder].mac = mac;
    lab.settle(&[address]);
    // The other one dies: this one takes over on the new interface.
    lab.kill(1 - holder);
    lab.until("it does not take over", || (lab.holder(address) == Some(holder)).then_some(()));
    lab.watch(20, 1, &[address]);
    lab.time_to_page(address);
}

/// As when a driver is loaded anew: number, name and hardware address are the same, and nobody may have seen
/// that it was away; but programs, sockets and memberships are gone.
#[test]
fn an_interface_that_is_made_anew_and_looks_the_same_is_used_again() {
    needs_root!("an_interface_that_is_made_anew_and_looks_the_same_is_used_again");
    let mut lab = Lab::serving(2, 1);
    let address = vip(201);
    let holder = lab.holder(address).expect("one holder");
    let node = &lab.nodes[holder];
    let shown = node.run(&format!("ip -o link show {ETH}"));
    let index = shown.split(':').next().expect("the index");
    let mac = node.mac.map(|byte| format!("{byte:02x}")).join(":");
    let (lan, port, number) = (&lab.lan.0, node.port(), node.number);
    let batch = node.dir.join("batch");
    let commands = format!(
        "link del {ETH}\nlink add {ETH} index {index} address {mac} type veth peer name {port} netns {lan}\n\
         addr add 10.77.0.{number}/24 dev {ETH}\naddr add fd77::{number}/64 dev {ETH} nodad\n\
         link set {ETH} up\n"
    );
    std::fs::write(&batch, commands).unwrap();
    run(&format!("ip -n {} -batch {}", node.ns.0, batch.display()));
    run(&format!("ip -n {lan} link set {port} master br0 up"));
    lab.settle(&[address]);
    lab.kill(1 - holder);
    lab.until("it does not take over", || (lab.holder(address) == Some(holder)).then_some(()));
    lab.time_to_page(address);
    // It hears the other one again: one of the two holds the address, and goes on to.
    lab.start(1 - holder);
    lab.settle(&[address]);
    lab.watch(100, 1, &[address]);
}

#[test]
fn what_somebody_takes_away_is_put_back() {
    needs_root!("what_somebody_takes_away_is_put_back");
    let mut lab = Lab::serving(2, 1);
    let address = vip(201);
    let holder = lab.holder(address).expect("one holder");
    for number in [holder, 1 - holder] {
        let node = &lab.nodes[number];
        let pin = node.tc_link();
        run(&format!("bpftool link detach pinned {}", pin.display()));
        lab.until("the tc program is not put back", || {
            lab.status(number).contains("1 times, last: the tc program").then_some(())
        });
        lab.settle(&[address]);
        lab.watch(20, 1, &[address]);
        node.run("ip route flush table local proto 80");
        assert_eq!(node.local_routes(), "");
        lab.until("the local route is not put back", || {
            node.local_routes().contains("10.77.0.201").then_some(())
        });
        std::fs::remove_dir_all(&node.bpf_root).unwrap();
        let steer = node.bpf_root.join("links/steer");
        lab.until("the pins are not put back", || steer.exists().then_some(()));
        lab.until("it does not say so", || lab.status(number).contains("put back").then_some(()));
        lab.settle(&[address]);
        lab.watch(20, 1, &[address]);
    }
    // What was put back does its work: a killed agent's node is silent.
    lab.kill(holder);
    lab.time_to_page(address);
    lab.watch(40, 1, &[address]);
    // And this is what it prevents: without the pinned program the dead node's kernel answers as well.
    std::fs::remove_dir_all(&lab.nodes[holder].bpf_root).unwrap();
    lab.until("the kernel does not answer: the other samples prove nothing", || {
        (lab.sample(&[address])[&address].len() == 2).then_some(())
    });
}

#[test]
fn a_node_whose_hooks_fail_holds_nothing_and_says_why() {
    needs_root!("a_node_whose_hooks_fail_holds_nothing_and_says_why");
    let mut lab = Lab::new(2);
    let addresses: Vec<_> = (201..=204).map(vip).collect();
    for i in 1..=4 {
        lab.apply(&format!("web-{i}"), &ingress(&format!("web-{i}"), ""));
    }
    let mount = lab.nodes[0].dir.join("bpf");
    std::fs::create_dir(&mount).unwrap();
    let root = mount.display().to_string();
    lab.start_with(0, &["--interface", ETH, "--interface", "eth9", "--bpf-root", &root]);
    lab.start(1);
    lab.settle(&addresses);
    lab.watch(20, 1, &addresses);
    for address in &addresses {
        assert_eq!(lab.holder(*address), Some(1), "{address}: {}", lab.status(0));
    }
    assert_eq!(lab.nodes[0].local_routes(), "", "its kernel would answer");
    let status = lab.status(0);
    assert!(status.contains("is not on a BPF file system"), "{status}");
    assert!(status.contains("--interface eth9: node node-1 has no such interface"), "{status}");
    // It works from the moment on in which the cause is gone.
    run(&format!("mount -t bpf bpf {root}"));
    lab.until("the hooks are not tried again", || {
        lab.nodes[0].local_routes().contains("10.77.0.204").then_some(())
    });
    lab.settle(&addresses);
    lab.kill(1);
    lab.until("it does not take over", || {
        addresses.iter().all(|address| lab.holder(*address) == Some(0)).then_some(())
    });
}

#[test]
fn a_missing_capability_is_one_complaint_and_the_other_node_answers() {
    needs_root!("a_missing_capability_is_one_complaint_and_the_other_node_answers");
    let mut lab = Lab::new(2);
    let addresses: Vec<_> = (201..=203).map(vip).collect();
    for i in 1..=3 {
        lab.apply(&format!("web-{i}"), &ingress(&format!("web-{i}"), ""));
    }
    lab.nodes[0].wrapper =
        &["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"];
    lab.start(0);
    lab.start(1);
    lab.settle(&addresses);
    for address in &addresses {
        assert_eq!(lab.holder(*address), Some(1), "{address}: {}", lab.status(0));
    }
    // Long enough for two more attempts.
    std::thread::sleep(Duration::from_secs(5));
    let log = std::fs::read_to_string(lab.nodes[0].dir.join("log")).unwrap();
    assert_eq!(log.matches("needs CAP_BPF and CAP_NET_ADMIN").count(), 1, "{log}");
    assert!(lab.status(0).contains("needs CAP_BPF and CAP_NET_ADMIN"), "{}", lab.status(0));
    lab.watch(10, 1, &addresses);
}

#[test]
fn a_node_that_loses_its_addresses_is_silent() {
    needs_root!("a_node_that_loses_its_addresses_is_silent");
    let mut lab = Lab::new(2);
    lab.apply("web", &ingress("web", ""));
    // No --interface, and a policy without interfaces: those with a global address are used.
    lab.start_with(0, &[]);
    lab.start_with(1, &[]);
    let address = vip(201);
    lab.settle(&[address]);
    let holder = lab.holder(address).expect("one holder");
    lab.nodes[holder].run(&format!("ip addr flush dev {ETH}"));
    println!("addresses gone: page after {} ms", lab.time_to_page(address));
    // The local route is still there.
    assert!(lab.nodes[holder].local_routes().contains("10.77.0.201"));
    lab.watch(20, 1, &[address]);
    assert_eq!(lab.holder(address), Some(1 - holder));
}
