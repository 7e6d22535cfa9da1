//! Thousands of Services and pools too large to look through. What is counted is work, not time.
use std::time::Instant;

use pilus::api::object::{IpFamilyPolicy, Service};

use crate::harness::*;

fn many(number: usize) -> impl Iterator<Item = Service> {
    (0..number).map(|n| {
        service(&format!("ns-{}/web-{n:05}", n % 7)).families(IpFamilyPolicy::RequireDualStack, &[])
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "prints how long it took; nothing depends on it")]
fn five_thousand_services_on_large_pools() {
    const NUMBER: usize = 5_000;
    let pools = [pool("v4", "10.0.0.0/16"), pool("v6", "fd00::/64")];
    let start = Instant::now();
    let mut node = Node::with(pools, many(NUMBER));
    let first = start.elapsed();
    assert_eq!(node.assignments.len(), NUMBER);
    assert_eq!(node.counts("v4"), ["65536", "60536", "5000"]);
    assert_eq!(node.counts("v6"), ["18446744073709551616", "18446744073709546616", "5000"]);
    let start = Instant::now();
    node.wait(2_000);
    let settled = start.elapsed();
    let before = node.assignments.clone();
    let start = Instant::now();
    node.put(service("a/new"));
    let one_more = start.elapsed();
    assert_eq!(node.of("a/new"), "10.0.19.136");
    assert_eq!(node.assignments.len(), NUMBER + 1);
    assert!(before.iter().all(|(name, addresses)| node.assignments[name] == *addresses));
    let packets = node.sent.len();
    assert!(packets < 700, "{packets} packets tell everything");
    let state = node.saved.as_ref().unwrap().len();
    println!(
        "first {first:?}, settled {settled:?}, one more {one_more:?}, {packets} packets, state file \
         {state} bytes"
    );
    let start = Instant::now();
    let again = node.restarted();
    println!("restarted {:?}", start.elapsed());
    assert!(before.iter().all(|(name, addresses)| again.assignments[name] == *addresses));
}

#[test]
fn a_full_pool_is_not_searched_again_for_each_service() {
    // Quadratic would be 4 * 10^8 look-ups: minutes, unoptimised.
    let node =
        Node::with([pool("p", "10.0.0.0/18")], (0..20_000).map(|n| service(&format!("a/s{n}"))));
    assert_eq!(node.assignments.len(), 16_384);
    assert_eq!(node.statuses.ipam.as_ref().unwrap().services_unsatisfied, 20_000 - 16_384);
}
