//! Tests of one claim by itself; the cluster is tested in `tests/sim`.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Heard, Rival, State};
use super::{Announce, timing};
use crate::api::address::{Assignments, Generation, IfIndex, MacAddr};
use crate::api::config::Config;
use crate::api::datapath::Programmed;
use crate::api::endpoint::Endpoints;
use crate::api::interface::{Interface, Interfaces, Prefix};
use crate::api::meta::{Meta, NamespacedName};
use crate::api::object::{L2Policy, Service, ServiceType};
use crate::api::objects::Objects;
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Server, ServerId, Time};
use crate::proto::vrrp::Advertisement;

const INTERVAL: Duration = Duration::from_millis(100);
const STRANGER: MacAddr = MacAddr([2, 0xee, 0, 0, 0, 1]);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn rival(priority: u8, last: u8) -> Rival {
    Rival { source: ip(last), priority, interval: INTERVAL }
}

fn claim(priority: u8) -> Claim {
    Claim::new(at(0), INTERVAL, priority, ip(5))
}

fn holder(priority: u8) -> Claim {
    let mut claim = claim(priority);
    claim.probes_left = 0;
    assert!(!claim.advance(at(300)), "skew has not passed");
    assert!(claim.advance(at(400)));
    assert_eq!(claim.state, State::Holder);
    claim
}

#[test]
fn of_two_holders_the_lower_priority_then_the_lower_source_falls_silent() {
    for (theirs, verdict) in [
        (rival(201, 4), Heard::Yielded),
        (rival(200, 6), Heard::Yielded),
        (rival(200, 4), Heard::Assert),
        (rival(199, 6), Heard::Assert),
    ] {
        let mut claim = holder(200);
        assert_eq!(claim.heard(at(500), theirs, INTERVAL), verdict, "{theirs:?}");
        assert_eq!(claim.answers(), verdict == Heard::Assert);
    }
}

#[test]
fn a_backup_waits_three_intervals_and_skew_after_the_last_advertisement() {
    let mut claim = claim(229);
    claim.heard(at(1000), rival(254, 4), INTERVAL);
    claim.probes_left = 0;
    let skew = timing::skew(INTERVAL, 229);
    assert_eq!(skew, Duration::from_nanos(10_546_875));
    assert!(!claim.advance(at(1310)));
    assert!(claim.advance(at(1300) + skew));
    assert!(claim.answers());
}

#[test]
fn a_released_address_is_taken_after_skew_alone() {
    let mut claim = claim(229);
    claim.heard(at(1000), rival(254, 4), INTERVAL);
    claim.probes_left = 0;
    assert_eq!(claim.heard(at(1050), rival(0, 9), INTERVAL), Heard::Nothing, "not the holder's");
    assert_eq!(claim.heard(at(1050), rival(0, 4), INTERVAL), Heard::Changed);
    assert!(claim.advance(at(1061)));
}

#[test]
fn a_better_node_takes_over_only_when_it_has_been_up_for_a_while() {
    let mut claim = claim(254);
    for millis in (100..2500).step_by(100) {
        claim.heard(at(millis), rival(229, 4), INTERVAL);
        let taken = claim.advance(at(millis));
        assert_eq!(taken, claim.answers());
        assert_eq!(claim.answers(), at(millis) >= at(2000), "{millis} ms");
        if taken {
            return;
        }
    }
    panic!("it never took over");
}

#[test]
fn an_address_that_a_stranger_uses_is_not_answered_until_the_stranger_is_gone() {
    let mut claim = claim(254);
    claim.stranger(at(50), STRANGER);
    claim.probes_left = 0;
    assert!(claim.advance(at(400)));
    assert!(claim.advertises() && !claim.answers(), "other nodes must not walk into the same trap");
    claim.probes_left = 0;
    claim.stranger(at(450), STRANGER);
    assert!(claim.advance(at(700)));
    assert!(!claim.answers());
    let State::Conflict { ask_at, verdict_at: None } = claim.state else {
        panic!("{:?}", claim.state)
    };
    assert_eq!(ask_at, at(700) + timing::CONFLICT_RETRY);
    claim.advance(ask_at);
    assert_eq!(claim.probes_left, timing::PROBES);
    claim.probes_left = 0;
    assert!(claim.advance(ask_at + Duration::from_millis(250)));
    assert!(claim.answers());
}

#[test]
fn a_strangers_claim_is_answered_once_and_believed_the_second_time() {
    let mut claim = holder(254);
    claim.stranger(at(1000), STRANGER);
    assert_eq!(claim.defend_at, Some(at(1000) + timing::DEFEND_AFTER));
    claim.defend_at = None;
    claim.defended = Some(at(1050));
    claim.stranger(at(1060), STRANGER);
    assert!(claim.answers(), "the second frame of the same announcement");
    claim.stranger(at(5000), STRANGER);
    assert!(!claim.answers());
    assert!(claim.known(STRANGER), "it was a node after all");
    assert!(claim.answers());
}

/// A node with one interface and one Service to announce.
fn standby_inputs(addresses: Vec<IpAddr>) -> Vec<Message> {
    let interface = Interface {
        index: IfIndex(2),
        name: "eth1".into(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        up: true,
        loopback: false,
        port: false,
        kind: "".into(),
        addresses: vec![Prefix { address: ip(5), length: 24 }],
    };
    let name = NamespacedName::new("default", "web");
    let meta = Meta { name: name.clone(), ..Meta::default() };
    let service = Service { meta, kind: ServiceType::LoadBalancer, ..Service::default() };
    let policy = L2Policy { load_balancer_ips: true, ..L2Policy::default() };
    let objects = Objects {
        services: Arc::new(BTreeMap::from([(name.clone(), Arc::new(service))])),
        l2_policies: Arc::new(BTreeMap::from([(NamespacedName::new("", "all"), Arc::new(policy))])),
        ..Objects::default()
    };
    let by_service = BTreeMap::from([(name, addresses)]);
    let assignments = Assignments { by_service, ..Assignments::default() };
    vec![
        Message::Objects(Arc::new(objects)),
        Message::Interfaces(Arc::new(Interfaces { list: vec![interface] })),
        Message::Endpoints(Arc::new(Endpoints::default())),
        Message::Assignments(Arc::new(assignments)),
    ]
}

fn running(out: &mut Outbox<Message>) -> Announce {
    let config = Arc::new(Config { node: "node-a".into(), ..Config::default() });
    let mut server = Announce::new(config, 0);
    server.start(at(0), out);
    for message in standby_inputs(vec![ip(80)]) {
        server.handle(at(0), wiring::STORE, message, out);
    }
    server
}

fn advertisement(priority: u8) -> Message {
    let addresses = vec![ip(80)];
    let advertisement = Advertisement { vrid: 1, priority, interval: INTERVAL, addresses };
    let payload = advertisement.payload(ip(4)).into();
    Message::Vrrp(IfIndex(2), MacAddr([2, 0, 0, 0, 0, 2]), ip(4), 255, payload)
}

fn answers(out: &mut Outbox<Message>) -> bool {
    let held = |(_, message): &(ServerId, Message)| match message {
        Message::Answers(answers) => answers.answers.iter().any(|answer| answer.held),
        _ => false,
    };
    out.take().iter().any(held)
}

#[test]
fn a_standby_that_stood_still_reads_its_mail_before_it_takes_over() {
    let mut out = Outbox::new();
    let mut server = running(&mut out);
    for millis in (0..2000).step_by(10) {
        if millis % 100 == 0 {
            server.handle(at(millis), wiring::LAN, advertisement(255), &mut out);
        }
        while server.timeout().is_some_and(|due| due <= at(millis)) {
            server.tick(at(millis), &mut out);
        }
    }
    assert!(!answers(&mut out), "there is a better holder");
    // Past the time at which it would take over; the holder's advertisements wait unread.
    for millis in [2330, 2331] {
        server.tick(at(millis), &mut out);
        server.handle(at(millis), wiring::LAN, advertisement(255), &mut out);
    }
    assert!(!answers(&mut out));
}

#[test]
fn an_interface_without_hooks_holds_nothing() {
    let mut out = Outbox::new();
    let mut server = running(&mut out);
    let programmed = |failure: Option<&str>| {
        Message::Programmed(Arc::new(Programmed {
            generation: Generation(1),
            failures: Vec::new(),
            unhooked: failure.map(|text| (IfIndex(2), text.to_owned())).into_iter().collect(),
        }))
    };
    server.handle(at(10), wiring::BPF, programmed(Some("no capability")), &mut out);
    let run = |server: &mut Announce, out: &mut Outbox<Message>, from: u64, to: u64| {
        for millis in from..to {
            while server.timeout().is_some_and(|due| due <= at(millis)) {
                server.tick(at(millis), out);
            }
        }
    };
    run(&mut server, &mut out, 11, 3000);
    assert!(!answers(&mut out));
    server.handle(at(3000), wiring::BPF, programmed(None), &mut out);
    run(&mut server, &mut out, 3000, 6000);
    assert!(answers(&mut out), "the hooks work now");
}

#[test]
fn an_address_beyond_the_room_of_the_hooks_is_not_routed_either() {
    let addresses: Vec<IpAddr> =
        (0..=timing::MAX_CLAIMS).map(|i| [192, 0, 3 + (i >> 8) as u8, i as u8].into()).collect();
    let mut out = Outbox::new();
    let mut server = Announce::new(Arc::new(Config::default()), 0);
    for message in standby_inputs(addresses.clone()) {
        server.handle(at(0), wiring::STORE, message, &mut out);
    }
    let sent = out.take();
    let find = |(_, message): &(ServerId, Message)| match message {
        Message::Answers(answers) => Some(Arc::clone(answers)),
        _ => None,
    };
    let answers = sent.iter().find_map(find).unwrap();
    assert_eq!(answers.answers.len(), timing::MAX_CLAIMS);
    let last = addresses.last().unwrap();
    assert_eq!(answers.considered.len(), timing::MAX_CLAIMS);
    assert!(!answers.considered.contains(last), "the kernel would answer for it");
}
