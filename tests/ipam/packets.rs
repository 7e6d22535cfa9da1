//! The claims protocol as a hostile or broken neighbor would speak it.
use std::sync::Arc;

use pilus::api::Message;
use pilus::proto::claims::{
    Body, Claim, DecodeError, Digest, MAX_CLOCK, MAX_PACKET, Packet, State, bucket_of,
    encode_claims, encode_digest, toggle,
};

use crate::harness::*;

fn claim(service: &str, address: &str, born: u64) -> Claim {
    Claim { born, service: name(service), address: ip(address) }
}

fn hear(node: &mut Node, packet: &[u8]) {
    node.tell(Message::Peer(ip("192.0.2.7"), Arc::from(packet)));
    node.wait(10);
}

fn hear_claims(node: &mut Node, clock: u64, claims: &[Claim]) {
    for packet in encode_claims("n2", clock, claims) {
        hear(node, &packet);
    }
}

fn rejected(node: &Node) -> Vec<(&'static str, u64)> {
    node.ipam.rejected().iter().map(|(reason, count)| (*reason, *count)).collect()
}

#[test]
fn packets_and_state_files_survive_a_round_trip() {
    let claims: Vec<Claim> =
        (0..200).map(|n| claim(&format!("ns-{n}/web.{n}"), &format!("fd00::{n:x}"), n)).collect();
    let packets = encode_claims("node-1", 500, &claims);
    assert!(packets.len() > 5 && packets.iter().all(|packet| packet.len() <= MAX_PACKET));
    let mut read = Vec::new();
    for packet in &packets {
        let packet = Packet::decode(packet).unwrap();
        assert_eq!((&*packet.node, packet.clock), ("node-1", 500));
        let Body::Claims(claims) = packet.body else { panic!("claims") };
        read.extend(claims);
    }
    assert_eq!(read, claims);
    let mut digest = Digest::default();
    claims.iter().for_each(|claim| toggle(&mut digest, claim));
    let packet = Packet::decode(&encode_digest("n", 1, &digest)).unwrap();
    assert_eq!(packet.body, Body::Digest(Box::new(digest)));
    // The order has no influence, and every field has.
    let mut again = Digest::default();
    claims.iter().rev().for_each(|claim| toggle(&mut again, claim));
    assert_eq!(again, digest);
    for other in [claim("ns-3/web.3", "fd00::3", 4), claim("ns-3/web.3", "fd00::4", 3)] {
        let mut changed = digest;
        toggle(&mut changed, &claims[3]);
        toggle(&mut changed, &other);
        assert_ne!(changed[bucket_of(&claims[3].service)], digest[bucket_of(&claims[3].service)]);
    }
    let state = State { clock: 500, claims };
    assert_eq!(State::decode(&state.encode()), Ok(state));
}

#[test]
fn the_layout_is_fixed() {
    let packet = encode_claims("n1", 0x0102, &[claim("a/b", "10.0.0.1", 7)]);
    let expected =
        b"PLCL\x01\x02\0\0\0\0\0\0\x01\x02\x02n1\0\x01\0\0\0\0\0\0\0\x07\x01a\x01b\x04\x0a\0\0\x01";
    assert_eq!(packet, [expected.to_vec()]);
}

#[test]
fn bad_bytes_are_refused_by_name() {
    let good = encode_claims("n1", 9, &[claim("a/b", "10.0.0.1", 7)]).remove(0);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let digest = encode_digest("n1", 9, &Digest::default());
    for (bytes, expected) in [
        (vec![0; MAX_PACKET + 1], DecodeError::TooLong),
        (Vec::new(), DecodeError::Truncated),
        (with(0, b'X'), DecodeError::BadMagic),
        (with(4, 2), DecodeError::UnknownVersion),
        (with(5, 3), DecodeError::UnknownKind),
        (with(6, 0xff), DecodeError::BadClock),
        (with(14, 0), DecodeError::BadName),
        (with(15, b'/'), DecodeError::BadName),
        (with(15, 0xc3), DecodeError::BadName),
        (with(18, 2), DecodeError::Truncated),
        (with(18, 0), DecodeError::TrailingBytes),
        (with(26, 10), DecodeError::BadClock),
        (with(27, 0), DecodeError::BadName),
        (with(28, b'A'), DecodeError::BadName),
        (with(31, 5), DecodeError::BadAddress),
        ([&digest[..], b"!"].concat(), DecodeError::TrailingBytes),
    ] {
        assert_eq!(Packet::decode(&bytes), Err(expected), "{bytes:02x?}");
    }
    for bytes in [&good, &digest] {
        for end in 0..bytes.len() {
            assert_eq!(Packet::decode(&bytes[..end]), Err(DecodeError::Truncated), "{end}");
        }
    }
    let state = State { clock: 9, claims: vec![claim("a/b", "10.0.0.1", 7)] }.encode();
    for at in 0..state.len() {
        let mut torn = state.clone();
        torn[at] ^= 1;
        assert!(State::decode(&torn).is_err(), "byte {at}");
        assert!(State::decode(&state[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_neighbor_that_has_used_an_address_longer_is_believed() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("a/a"), service("a/b")]);
    node.wait(5_000);
    hear_claims(&mut node, 100_000, &[claim("a/b", "10.0.0.1", 10_000)]);
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.2", "10.0.0.1"]);
    assert_eq!(rejected(&node), []);
}

#[test]
fn one_that_has_just_started_is_not_whatever_its_clock_shows() {
    for clock in [0, 5_000, 1_000_000_000] {
        let mut node =
            Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("a/a"), service("a/b")]);
        node.wait(60_000);
        hear_claims(&mut node, clock, &[claim("a/b", "10.0.0.1", clock.saturating_sub(2_000))]);
        assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.1", "10.0.0.2"], "clock {clock}");
    }
}

#[test]
fn a_starting_node_adopts_what_the_others_use() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], ["a/a", "a/b"].map(service));
    node.wait(1);
    assert!(node.sent[0].starts_with(b"PLCL\x01\x01"), "asks at once");
    hear_claims(&mut node, 9_000_000, &[claim("a/a", "10.0.0.7", 8_000_000)]);
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.7", "10.0.0.1"]);
}

#[test]
fn one_claim_told_with_two_ages_is_as_old_as_the_older() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], ["a/a", "a/b"].map(service));
    node.wait(3_000);
    // Another has seen a/a use its address for long, so a third with a claim in between is too late.
    hear_claims(&mut node, 100_000, &[claim("a/a", "10.0.0.1", 1_000)]);
    hear_claims(&mut node, 100_000, &[claim("a/a", "10.0.0.1", 90_000)]);
    hear_claims(&mut node, 100_000, &[claim("a/b", "10.0.0.1", 50_000)]);
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn a_stale_memory_gives_way_to_what_is_in_use() {
    let mut old = Node::with([pool("p", "10.0.0.1-10.0.0.9")], ["a/a", "a/b"].map(service));
    old.wait(1_000_000);
    old.put(service("a/c"));
    old.wait(3_000);
    let mut node = old.restarted();
    // The others have been running for ten minutes with another address.
    hear_claims(&mut node, 3_000_000, &[claim("a/a", "10.0.0.7", 2_400_000)]);
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.7", "10.0.0.2"]);
    // One that has started empty seconds ago does not.
    let mut node = old.restarted();
    hear_claims(&mut node, 5_000, &[claim("a/a", "10.0.0.7", 1_000)]);
    assert_eq!(node.of("a/a"), "10.0.0.1");
}

#[test]
fn claims_that_our_objects_do_not_allow_are_counted_and_ignored() {
    let red = pool("red", "10.0.1.1-10.0.1.9").with(|p| p.selector = selecting("color", "red"));
    let mut node = Node::with(
        [pool("p", "10.0.0.1-10.0.0.9"), red],
        [service("a/a"), service("a/b").ips("10.0.0.5")],
    );
    node.wait(2_000);
    let before = node.assignments.clone();
    for (bad, reason) in [
        (claim("a/x", "10.0.0.1", 0), "claim for an unknown service"),
        (claim("a/a", "10.9.0.1", 0), "claim for an address of no pool of the service"),
        (claim("a/a", "10.0.1.1", 0), "claim for an address of no pool of the service"),
        (claim("a/a", "fd00::1", 0), "claim for an address the service does not ask for"),
        (claim("a/b", "10.0.0.6", 0), "claim for an address the service does not ask for"),
    ] {
        let counted = |node: &Node| node.ipam.rejected().get(reason).copied().unwrap_or(0);
        let old = counted(&node);
        hear_claims(&mut node, 100_000, &[bad]);
        assert_eq!(counted(&node), old + 1, "{reason}");
    }
    assert_eq!(node.assignments, before);
    node.wait(1_500);
    let metrics = node.statuses.ipam.clone().unwrap();
    assert_eq!(metrics.rejected, *node.ipam.rejected(), "the counts are shown");
}

#[test]
fn a_clock_beyond_belief_changes_nothing() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("a/a"), service("a/b")]);
    node.wait(2_000);
    hear_claims(&mut node, MAX_CLOCK, &[claim("a/b", "10.0.0.1", 0)]);
    assert_eq!(rejected(&node), [("clock too far ahead", 1)]);
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn claims_of_one_service_are_bounded() {
    let mut node = Node::with([pool("p", "10.0.0.0/16")], [service("a/a")]);
    let many: Vec<Claim> =
        (0..250).map(|n| claim("a/a", &format!("10.0.9.{n}"), 1_000 + n)).collect();
    hear_claims(&mut node, 100_000, &many);
    let expected = u64::try_from(250 - pilus::server::ipam::claim::MAX_CLAIMS).unwrap();
    assert_eq!(rejected(&node), [("too many claims of one service", expected)]);
    assert_eq!(node.of("a/a"), "10.0.9.0");
    node.wait(5_000);
    assert_eq!(node.statuses.ipam.as_ref().unwrap().claims, 1, "the losers are forgotten");
}

#[test]
fn own_packets_and_garbage_do_nothing() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("a/a"), service("a/b")]);
    node.wait(2_000);
    for packet in encode_claims("n1", 100_000, &[claim("a/b", "10.0.0.1", 0)]) {
        hear(&mut node, &packet);
    }
    hear(&mut node, b"PLCL");
    hear(&mut node, b"hello");
    assert_eq!(rejected(&node), [("not a claims packet", 1), ("packet truncated", 1)]);
    assert_eq!(node.of("a/a"), "10.0.0.1");
}

#[test]
fn a_flood_of_forged_digests_cannot_make_a_storm() {
    let mut node =
        Node::with([pool("p", "10.0.0.0/24")], (0..40).map(|n| service(&format!("a/s{n}"))));
    node.wait(5_000);
    let before = node.sent.len();
    for n in 0..2_000_u64 {
        let digest = [n; pilus::proto::claims::BUCKETS];
        let packet = encode_digest(&format!("evil-{n}"), 1, &digest);
        node.tell(Message::Peer(ip("192.0.2.7"), Arc::from(packet)));
        node.wait(1);
    }
    // 2 s: at most 6 rounds of 32 buckets, and digests every 250 ms.
    let sent = node.sent.len() - before;
    assert!(sent <= 6 * 32 + 10, "{sent} packets");
}

#[test]
fn a_damaged_state_file_is_as_none() {
    let node = Node::configured(config("n1"), Some(b"PLST garbage".to_vec()));
    assert_eq!(rejected(&node).len(), 1);
}

#[test]
fn a_neighbor_with_other_objects_is_told_ever_more_rarely() {
    let mut node = Node::with([pool("p", "10.0.0.0/24")], [service("a/a")]);
    node.wait(5_000);
    let is_claims = |packet: &&Arc<[u8]>| packet[5] == 2;
    let before = node.sent.iter().filter(is_claims).count();
    for _ in 0..120 {
        let packet = encode_digest("n2", 1, &[7; pilus::proto::claims::BUCKETS]);
        hear(&mut node, &packet);
        node.wait(990);
    }
    let told = node.sent.iter().filter(is_claims).count() - before;
    assert!((5..=10).contains(&told), "{told} times in two minutes");
}
