//! Tests of one claim by itself; the cluster is tested in `tests/sim`.
use std::net::IpAddr;
use std::time::Duration;

use super::claim::{Claim, Heard, Rival, State};
use super::timing;
use crate::api::address::MacAddr;
use crate::kernel::Time;

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
