//! A cluster in one process: real kernels and real announce servers on a simulated LAN and clock.
//!
//! `PILUS_SIM_SEEDS=N` changes how many seeds are run, `PILUS_SIM_SEED=S` replays one, with a trace.
#[path = "sim/cluster.rs"]
mod cluster;
#[path = "sim/config.rs"]
mod config;
#[path = "sim/judge.rs"]
mod judge;
#[path = "sim/lan.rs"]
mod lan;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/scenario.rs"]
mod scenario;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use scenario::{Outcome, run};

/// Seeds in a normal run.
const SEEDS: u64 = 1000;

#[test]
fn exactly_one_node_answers_whatever_fails() {
    if let Some(seed) = from_env("PILUS_SIM_SEED") {
        let outcome = run(seed, true);
        println!("{outcome:#?}");
        assert!(outcome.violations.is_empty());
        return;
    }
    let seeds = from_env("PILUS_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let outcomes: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let outcome = run(seed, false);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    report(&outcomes);
    let mut failed: Vec<&Outcome> =
        outcomes.iter().filter(|it| !it.violations.is_empty()).collect();
    failed.sort_by_key(|outcome| outcome.seed);
    for outcome in failed.iter().take(8) {
        println!("PILUS_SIM_SEED={}: {:?}", outcome.seed, outcome.violations);
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds broke a rule", failed.len());
    if let Some(slowest) = outcomes.iter().max_by_key(|it| it.failovers.iter().max().copied()) {
        println!("slowest failover: seed {}", slowest.seed);
    }
    // A simulation in which nothing happens proves nothing.
    let failovers: usize = outcomes.iter().map(|outcome| outcome.failovers.len()).sum();
    assert!(failovers > outcomes.len() / 2, "only {failovers} failovers were seen");
}

#[test]
fn a_thousand_addresses_move_without_a_storm() {
    let storm = scenario::storm();
    println!("frames in the busiest second: {}; moved in {} ms", storm.peak, storm.moved_ms);
    assert_eq!(storm.unanswered, 0);
    assert!(storm.peak <= 2 * 600, "{} frames in a second from two nodes", storm.peak);
}

fn report(outcomes: &[Outcome]) {
    for lossy in [false, true] {
        let mut millis: Vec<u64> = outcomes
            .iter()
            .filter(|outcome| outcome.lossy == lossy)
            .flat_map(|outcome| outcome.failovers.iter().copied())
            .collect();
        millis.sort_unstable();
        let at = |permille: usize| millis.get(millis.len() * permille / 1000).copied().unwrap_or(0);
        println!(
            "failover {}: {} measured, p50 {} ms, p99 {} ms, max {} ms",
            if lossy { "with loss" } else { "without loss" },
            millis.len(),
            at(500),
            at(990),
            millis.last().copied().unwrap_or(0)
        );
    }
    let doubles: u64 = outcomes.iter().map(|outcome| outcome.doubles).sum();
    let samples: u64 = outcomes.iter().map(|outcome| outcome.samples).sum();
    println!("{samples} samples, of which {doubles} caught two answers during a handover");
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}
