//! What somebody takes away from a running agent comes back, and what an agent lacks is said.
use crate::bpf_lab;
use crate::bpf_lab::run;
use crate::lab::{ETH, Lab, vip};
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
