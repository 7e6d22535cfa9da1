//! When something is sent, to whom, and what people are told.
use std::sync::Arc;

use pilus::api::Message;
use pilus::api::address::Generation;
use pilus::api::object::{ExternalTrafficPolicy, ServiceType};
use pilus::api::route::ListenerProtocol;
use pilus::api::service::Balanced;
use pilus::api::wiring;
use pilus::kernel::{Outbox, Server};
use pilus::server::service::LISTEN;

use crate::harness::*;

const POD: &str = "10.244.1.5:80@n1";

fn one() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.service(balanced("default/web", &["80"]), &["192.168.10.211"], &[POD]);
    cluster.tell();
    cluster
}

#[test]
fn nothing_is_said_before_all_is_known() {
    let mut cluster = one();
    let complete = std::mem::take(&mut cluster.sent);
    assert_eq!(complete, [(wiring::BALANCER, "Balancing")]);
    // People see what is in effect.
    cluster.acknowledge(&[]);
    let told = [(wiring::ADMIN, "Balancing"), (wiring::STORE, "Statuses")];
    assert_eq!(std::mem::take(&mut cluster.sent), told);
    cluster.acknowledge(&[]);
    assert!(cluster.sent.is_empty());
    let all = [
        (wiring::STORE, Message::Objects(Arc::new(cluster.objects.clone()))),
        (wiring::ENDPOINT, Message::Endpoints(Arc::default())),
        (wiring::IPAM, Message::Assignments(Arc::default())),
        (wiring::NETLINK, Message::Interfaces(Arc::new(cluster.interfaces.clone()))),
        (wiring::ROUTE, Message::Routes(Arc::default())),
    ];
    for missing in 0..all.len() {
        let mut fresh = Cluster::new();
        for (at, (from, message)) in all.iter().enumerate() {
            if at != missing {
                fresh.deliver(*from, message.clone());
            }
        }
        fresh.settle();
        assert!(fresh.sent.is_empty(), "without {}", pilus::kernel::Message::name(&all[missing].1));
    }
}

#[test]
fn a_new_server_waits_until_every_live_node_can_have_been_heard() {
    let mut cluster = Cluster::new();
    let mut out = Outbox::new();
    cluster.server.start(cluster.now, &mut out);
    let started = cluster.now;
    cluster.service(balanced("default/web", &["80"]), &["192.168.10.211"], &["10.244.2.5:80@n2"]);
    cluster.tell();
    assert!(cluster.sent.is_empty());
    assert_eq!(cluster.server.timeout(), Some(started + LISTEN));
    cluster.now = started + LISTEN / 2;
    cluster.hear("n2", "192.168.10.102");
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), "10.244.2.5:80 192.168.10.102");
    // One that stays silent is out of reach from then on.
    let mut cluster = Cluster::new();
    cluster.server.start(cluster.now, &mut out);
    cluster.service(balanced("default/web", &["80"]), &["192.168.10.211"], &["10.244.2.5:80@n2"]);
    cluster.tell();
    cluster.now = cluster.now + LISTEN;
    cluster.settle();
    assert_eq!(cluster.backends("default/web"), "10.244.2.5:80 E");
}

#[test]
fn the_same_again_is_no_news_and_what_stays_is_the_same_allocation() {
    let mut cluster = one();
    cluster.service(balanced("default/x", &["81"]), &["192.168.10.212"], &[POD]);
    cluster.tell();
    let before = cluster.balancing.clone().unwrap();
    cluster.sent.clear();
    cluster.tell();
    assert!(cluster.sent.is_empty());
    // A Pod that comes brings an interface, and nothing else changes for the Services.
    cluster.interfaces.list.push(interface(9, "veth9", "veth", &[("fe80::9", 64)]));
    let computed = cluster.server.computed();
    cluster.tell();
    let after = cluster.balancing.clone().unwrap();
    assert_eq!(after.generation, before.generation.next());
    assert_eq!(cluster.server.computed(), computed);
    // A Service that is written anew with the same content keeps its frontends.
    let mut again = balanced("default/web", &["80"]);
    again.meta.labels.insert("a".into(), "b".into());
    cluster.service(again, &["192.168.10.211"], &[POD]);
    cluster.sent.clear();
    cluster.tell();
    assert_eq!(cluster.server.computed(), computed + 1);
    assert!(cluster.sent.is_empty());
    cluster.service(balanced("default/web", &["80"]), &["192.168.10.211"], &["10.244.1.6:80@n1"]);
    cluster.tell();
    let last = cluster.balancing.clone().unwrap();
    assert!(!Arc::ptr_eq(&after.frontends[0], &last.frontends[0]));
    assert!(Arc::ptr_eq(&after.frontends[1], &last.frontends[1]));
    // What is gone is gone.
    cluster.objects.services = Arc::default();
    cluster.tell();
    assert_eq!(cluster.lines(), [""; 0]);
}

#[test]
fn generations_go_on_after_a_restart_and_old_acknowledgements_say_nothing() {
    let mut cluster = one();
    let later = Generation(cluster.balancing.as_ref().unwrap().generation.0 + 1_000);
    let old = Balanced { generation: later, failures: vec!["192.168.10.211: old".into()] };
    cluster.deliver(wiring::BALANCER, Message::Balanced(Arc::new(old)));
    assert_eq!(cluster.condition("default/web"), None);
    cluster.service(balanced("default/x", &["81"]), &["192.168.10.212"], &[POD]);
    cluster.tell();
    assert_eq!(cluster.balancing.as_ref().unwrap().generation, later.next());
    for (peer, sent) in [
        (wiring::BALANCER, Some("Balancing")),
        (wiring::ADMIN, None),
        (wiring::STORE, Some("Statuses")),
        (wiring::IPAM, None),
    ] {
        let mut out = Outbox::new();
        cluster.server.peer_restarted(cluster.now, peer, &mut out);
        let letters = out.take();
        let names: Vec<_> =
            letters.iter().map(|(to, it)| (*to, pilus::kernel::Message::name(it))).collect();
        assert_eq!(names, sent.map(|sent| (peer, sent)).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_condition_tells_what_the_programs_hold_and_how_backends_are_reached() {
    let mut cluster = Cluster::new();
    cluster.hear("n2", "192.168.10.102");
    cluster.service(
        balanced("default/dns", &["53/UDP"]),
        &["192.168.10.211"],
        &["10.244.1.5:53@n1", "10.244.2.5:53@n2", "10.244.3.5:53@n3"],
    );
    let two = ["192.168.10.212", "fd00:10::212"];
    cluster.service(balanced("default/web", &["80", "443"]), &two, &[POD, "10.244.1.6:80@n1"]);
    let mut local = balanced("default/local", &["25"]);
    local.external_traffic_policy = ExternalTrafficPolicy::Local;
    cluster.service(local.clone(), &["192.168.10.213"], &["10.244.2.5:25@n2"]);
    local.meta = meta("default/here");
    cluster.service(local, &["192.168.10.214"], &["10.244.1.7:25@n1"]);
    cluster.service(balanced("default/idle", &["1"]), &["192.168.10.215"], &[]);
    cluster.service(balanced("default/proxied", &["80", "81"]), &["192.168.10.216"], &[POD]);
    cluster.listener("default/proxied", 80, ListenerProtocol::Http);
    let many: Vec<String> = (1..=10).map(|port| port.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    cluster.service(balanced("default/range", &many), &["192.168.10.217"], &[POD]);
    cluster.now = cluster.now + LISTEN;
    cluster.tell();
    assert_eq!(cluster.condition("default/dns"), None, "asked for, not acknowledged");
    cluster.acknowledge(&[]);
    for (service, expected) in [
        (
            "default/dns",
            "True 192.168.10.211:53/UDP goes to 3 backends: 1 here, 1 by direct return, 1 with a node's address in place of the client's",
        ),
        (
            "default/web",
            "True 192.168.10.212:80/TCP, 192.168.10.212:443/TCP go to 2 backends: 2 here; \
             [fd00:10::212]:80/TCP, [fd00:10::212]:443/TCP have no backends: connections are refused",
        ),
        (
            "default/local",
            "True 192.168.10.213:25/TCP has no backend on this node, and externalTrafficPolicy Local allows no other",
        ),
        ("default/here", "True 192.168.10.214:25/TCP goes to 1 backend on this node only"),
        ("default/idle", "True 192.168.10.215:1/TCP has no backends: connections are refused"),
        (
            "default/range",
            "True 192.168.10.217:1/TCP, 192.168.10.217:2/TCP, 192.168.10.217:3/TCP, 192.168.10.217:4/TCP, \
             192.168.10.217:5/TCP, 192.168.10.217:6/TCP, 192.168.10.217:7/TCP, 192.168.10.217:8/TCP and 2 more \
             go to 1 backend: 1 here",
        ),
    ] {
        assert_eq!(cluster.condition(service).as_deref(), Some(expected));
    }
    assert_eq!(cluster.condition("default/proxied"), None, "another server writes it");
    // A failure is told of the Services that it names.
    cluster.acknowledge(&["192.168.10.215:1/TCP: the map is full"]);
    let failed = "False 192.168.10.215:1/TCP: the map is full";
    assert_eq!(cluster.condition("default/idle").as_deref(), Some(failed));
    assert!(cluster.condition("default/dns").unwrap().starts_with("True"));
    assert_eq!(cluster.problems(), ["data path: 192.168.10.215:1/TCP: the map is full"]);
    cluster.acknowledge(&[]);
    assert!(cluster.problems().is_empty());
}

#[test]
fn an_address_that_may_still_change_is_served_and_told_to_nobody() {
    let mut cluster = Cluster::new();
    let address = ip("192.168.10.211");
    cluster.service(balanced("default/web", &["80"]), &["192.168.10.211"], &[POD]);
    cluster.assignments.tentative.insert((name("default/web"), address));
    cluster.tell();
    cluster.acknowledge(&[]);
    assert_eq!(cluster.lines().len(), 1);
    assert_eq!(cluster.condition("default/web"), None);
    cluster.assignments.tentative.clear();
    cluster.tell();
    assert!(cluster.condition("default/web").is_some(), "settled without a new program");
}

#[test]
fn cluster_addresses_and_node_ports_have_no_condition() {
    let mut cluster = Cluster::as_kube_proxy();
    let mut service = balanced("default/web", &["80"]);
    service.kind = ServiceType::NodePort;
    service.cluster_ips = vec![ip("10.96.0.9")];
    cluster.service(service, &[], &[POD]);
    cluster.tell();
    cluster.acknowledge(&[]);
    assert_eq!(cluster.lines().len(), 4);
    assert_eq!(cluster.condition("default/web"), None);
}
