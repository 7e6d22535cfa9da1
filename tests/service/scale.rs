//! 5,000 Services: what changes is computed, and nothing else.
use std::collections::BTreeMap;
use std::sync::Arc;

use pilus::api::object::PortProtocol;

use crate::harness::*;

const COUNT: u32 = 5_000;

fn address(at: u32) -> String {
    format!("192.168.{}.{}", 100 + at / 250, 1 + at % 250)
}

#[test]
fn only_what_changed_is_computed() {
    let mut cluster = Cluster::new();
    let mut services = BTreeMap::new();
    for at in 0..COUNT {
        let service = balanced(&format!("default/s{at:04}"), &["80", "53/UDP"]);
        let name = service.meta.name.clone();
        let pod = format!("10.244.1.{}:8080@n1", at % 250 + 1);
        for (port, protocol) in [(80, PortProtocol::Tcp), (53, PortProtocol::Udp)] {
            cluster.endpoints_of(&name, port, protocol, &[&pod]);
        }
        cluster.assignments.by_service.insert(name.clone(), vec![ip(&address(at))]);
        services.insert(name, Arc::new(service));
    }
    cluster.objects.services = Arc::new(services);
    cluster.tell();
    assert_eq!(cluster.server.computed(), u64::from(COUNT));
    assert_eq!(cluster.frontends().len(), 2 * COUNT as usize);
    assert!(cluster.frontends().is_sorted_by_key(|it| (it.address, it.port, it.protocol)));
    cluster.acknowledge(&[]);
    assert_eq!(cluster.statuses.by_object.len(), COUNT as usize);
    let mut expected = u64::from(COUNT);
    let mut computes = |cluster: &mut Cluster, more: u64, what: &str| {
        cluster.tell();
        expected += more;
        assert_eq!(cluster.server.computed(), expected, "{what}");
    };
    computes(&mut cluster, 0, "nothing");
    let before = cluster.balancing.clone().unwrap();
    cluster.endpoints_of(&name("default/s0007"), 80, PortProtocol::Tcp, &["10.244.1.9:1@n1"]);
    computes(&mut cluster, 1, "endpoints of one");
    let after = cluster.balancing.clone().unwrap();
    let same = before.frontends.iter().zip(&after.frontends).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!(same.count(), 2 * COUNT as usize - 1);
    cluster.assignments.by_service.insert(name("default/s0008"), vec![ip("192.168.200.1")]);
    computes(&mut cluster, 1, "an address");
    put(&mut cluster.objects.services, balanced("default/s0009", &["81"]));
    computes(&mut cluster, 1, "an object");
    put(&mut cluster.objects.services, balanced("default/new", &["81"]));
    computes(&mut cluster, 1, "a new one");
    cluster.interfaces.list.push(interface(9, "veth9", "veth", &[]));
    computes(&mut cluster, 0, "an interface of a Pod");
    cluster.node("n2", &["192.168.10.102"], &[]);
    computes(&mut cluster, u64::from(COUNT) + 1, "a node: every way may be another");
    cluster.node("n2", &["192.168.10.102"], &[]);
    computes(&mut cluster, 0, "its heartbeat");
}
