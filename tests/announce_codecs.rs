//! Replays the corpora of the ARP, neighbor discovery and VRRP codecs, with small mutations.
use std::path::Path;

use pilus::proto::{arp, ndp, vrrp};

/// Mutations of each seed.
const MUTATIONS: u64 = 2000;

#[test]
fn corpora_and_their_mutations_hold_the_invariants() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 3] = [("arp", arp::fuzz), ("ndp", ndp::fuzz), ("vrrp", vrrp::fuzz)];
    for (name, target) in targets {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let mut seeds = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            target(&data);
            seeds += 1;
            let mut state = 1_u64;
            for _ in 0..MUTATIONS {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let mut mutant = data.clone();
                let at = (state >> 33) as usize % mutant.len();
                mutant[at] ^= 1 << ((state >> 20) & 7);
                mutant.truncate(mutant.len() - usize::from(state >> 60 == 0));
                target(&mutant);
            }
        }
        assert!(seeds >= 6, "{name} has {seeds} seeds");
    }
}

#[test]
fn good_seeds_parse_and_bad_ones_do_not() {
    let read = |path: &str| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        std::fs::read(root.join(path)).unwrap()
    };
    assert!(arp::Packet::parse(&read("arp/probe")).unwrap().is_probe());
    assert_eq!(arp::Packet::parse(&read("arp/rarp")), Err(arp::Drop::Operation));
    assert!(ndp::Message::parse(&read("ndp/nonce-option-before-link-layer")).is_ok());
    assert_eq!(ndp::Message::parse(&read("ndp/hop-limit-64")), Err(ndp::Drop::HopLimit));
    assert!(vrrp::in_frame(&read("vrrp/frame")).is_some());
    let source = "192.168.10.100".parse().unwrap();
    let release = read("vrrp/ipv4-release");
    assert_eq!(vrrp::Advertisement::parse(source, 255, &release[1..]).unwrap().priority, 0);
}
