//! Replays the corpora of all fuzz targets, and mutates them a little with a fixed seed.
//!
//! `PILUS_FUZZ_ITERATIONS` and `PILUS_FUZZ_SEED` lengthen or vary the mutation run. A failing input
//! is printed escaped; save it in the corpus directory of its target under a name that says what it
//! broke.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use pilus::proto::fuzz::{TARGETS, Target};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutated inputs per target in a normal test run: a second or two unoptimised.
const ITERATIONS: u64 = 20_000;
/// Larger inputs are replayed but not mutated, to keep the run short.
const MAX_MUTATED_BYTES: usize = 2048;

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "a target is registered twice");
    let directories: BTreeSet<String> = fs::read_dir(corpus_root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(directories, targets);
    for (name, _) in TARGETS {
        assert!(!corpus(name).is_empty(), "tests/fuzz/corpus/{name} is empty");
    }
}

#[test]
fn corpora_replay() {
    for (name, target) in TARGETS {
        for (path, data) in corpus(name) {
            check(name, *target, &data, &path.display().to_string());
        }
    }
}

#[test]
fn mutated_corpora_hold_the_invariants() {
    let iterations = from_env("PILUS_FUZZ_ITERATIONS").unwrap_or(ITERATIONS);
    for (name, target) in TARGETS {
        let mut random = Random(from_env("PILUS_FUZZ_SEED").unwrap_or(1));
        let seeds: Vec<Vec<u8>> = corpus(name)
            .into_iter()
            .map(|(_, data)| data)
            .filter(|data| data.len() <= MAX_MUTATED_BYTES)
            .collect();
        for i in 0..iterations {
            let data = mutate(&seeds, &mut random);
            check(name, *target, &data, &format!("mutation {i}"));
        }
    }
}

fn check(name: &str, target: Target, data: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        panic!("{name} fails on {origin}: b\"{}\"", data.escape_ascii());
    }
}

fn corpus_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(corpus_root().join(name))
        .unwrap_or_else(|error| panic!("no corpus for {name}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// One to four small changes to one of the seeds, or a splice of two.
fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const TOKENS: &[u8] = b"\r\n\0\t :;,0aFxX-_/#[]\x7f\x85\xa0\xff";
    let mut data = random.pick(seeds).clone();
    for _ in 0..=random.below(3) {
        let at = random.below(data.len());
        let byte = if random.below(2) == 0 { *random.pick(TOKENS) } else { random.next() as u8 };
        match random.below(7) {
            0 if at < data.len() => data[at] = byte,
            1 if at < data.len() => drop(data.remove(at)),
            2 => data.insert(at, byte),
            3 => data.truncate(at),
            4 => {
                let end = (at + random.below(12)).min(data.len());
                let piece = data[at..end].to_vec();
                let to = random.below(data.len());
                data.splice(to..to, piece);
            }
            5 => {
                let other = random.pick(seeds);
                let from = random.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + random.below(12)).min(data.len());
                data.drain(at..end);
            }
        }
    }
    data.truncate(2 * MAX_MUTATED_BYTES);
    data
}

/// xorshift64*: deterministic and good enough to move bytes about.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// A number up to and including `max`.
    fn below(&mut self, max: usize) -> usize {
        (self.next() % (max as u64 + 1)) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() - 1)]
    }
}
