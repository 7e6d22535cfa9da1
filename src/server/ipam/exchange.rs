//! When to tell the others what: digests at intervals and after changes, whole buckets to those who
//! differ, and never more than a bound, whatever arrives.
use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::meta::Str;
use crate::kernel::Time;
use crate::proto::claims::{BUCKETS, Digest};

/// How often a digest is sent (a packet of about 300 bytes): how long a lost packet goes unnoticed.
pub const DIGEST_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two digests, so that changes in quick succession make one.
pub const DIGEST_GAP: Duration = Duration::from_millis(50);
/// One bucket is sent per so much time: about 10 packets of 5,000 Services, so 1,000 packets a second.
pub const PUSH_PACE: Duration = Duration::from_millis(10);
/// A bucket is not sent again sooner, whoever asks: what a flood of forged digests can cause is bounded.
pub const PUSH_GAP: Duration = Duration::from_millis(400);
/// The longest pause between two pushes to a neighbor that stays different (its manifests may differ).
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// How many neighbors are remembered; clusters have ten nodes.
pub const MAX_NEIGHBORS: usize = 64;

const BACKOFF: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct Neighbor {
    heard: Time,
    pushed_at: Time,
    backoff: Duration,
    /// Its digest and ours when we last told it what we have.
    known: Option<Box<(Digest, Digest)>>,
}

/// What is to be sent, and when.
#[derive(Debug, Clone)]
pub struct Exchange {
    digest_due: Option<Time>,
    digest_sent: Option<Time>,
    push: u32,
    push_due: Time,
    pushed: [Option<Time>; BUCKETS],
    neighbors: BTreeMap<Str, Neighbor>,
}

// === impl Exchange ===

impl Exchange {
    /// Nothing is due before [`Exchange::digest_soon`] is called.
    pub const fn new() -> Self {
        Self {
            digest_due: None,
            digest_sent: None,
            push: 0,
            push_due: Time::ZERO,
            pushed: [None; BUCKETS],
            neighbors: BTreeMap::new(),
        }
    }

    /// Our claims have changed: the others must hear of it.
    pub fn digest_soon(&mut self, now: Time) {
        let due = self.digest_sent.map_or(now, |sent| now.max(sent + DIGEST_GAP));
        self.digest_due = Some(self.digest_due.map_or(due, |old| old.min(due)));
    }

    /// These buckets have claims that the others cannot know yet.
    pub fn push_soon(&mut self, now: Time, buckets: u32) {
        self.push |= buckets;
        self.push_due = self.push_due.max(now);
    }

    /// A neighbor's digest has arrived.
    pub fn compare(&mut self, now: Time, node: &Str, theirs: &Digest, ours: &Digest) {
        self.make_room(node);
        let neighbor = self.neighbors.entry(Str::clone(node)).or_insert_with(|| Neighbor {
            heard: now,
            pushed_at: now,
            backoff: BACKOFF,
            known: None,
        });
        neighbor.heard = now;
        if theirs == ours {
            neighbor.known = None;
            return;
        }
        let different = mask(|at| theirs[at] != ours[at]);
        let news =
            neighbor.known.as_ref().is_none_or(|known| known.0 != *theirs || known.1 != *ours);
        if !news && now < neighbor.pushed_at + neighbor.backoff {
            return;
        }
        neighbor.backoff = if news { BACKOFF } else { (neighbor.backoff * 2).min(LONGEST_BACKOFF) };
        neighbor.pushed_at = now;
        let ready = mask(|at| self.pushed[at].is_none_or(|pushed| pushed + PUSH_GAP <= now));
        // What was sent to all a moment ago may have been lost: then this neighbor's next digest tells.
        neighbor.known = (different & !ready == 0).then(|| Box::new((*theirs, *ours)));
        self.push_soon(now, different & ready);
        // It differs, so it wants to know our digest as well and tell us what we lack.
        if news && self.digest_sent.is_none_or(|sent| sent + DIGEST_INTERVAL / 4 <= now) {
            self.digest_soon(now);
        }
    }

    /// When [`Exchange::due`] has something.
    pub fn timeout(&self) -> Option<Time> {
        let push = (self.push != 0).then_some(self.push_due);
        [self.digest_due, push].into_iter().flatten().min()
    }

    /// Whether a digest must be sent now, and which bucket.
    pub fn due(&mut self, now: Time) -> (bool, Option<usize>) {
        let digest = self.digest_due.is_some_and(|due| due <= now);
        if digest {
            self.digest_sent = Some(now);
            self.digest_due = Some(now + DIGEST_INTERVAL);
        }
        let bucket = (self.push != 0 && self.push_due <= now).then(|| self.push.trailing_zeros());
        let bucket = bucket.and_then(|bucket| usize::try_from(bucket).ok());
        if let Some(at) = bucket {
            self.push &= self.push - 1;
            self.pushed[at] = Some(now);
            self.push_due = now + PUSH_PACE;
        }
        (digest, bucket)
    }

    fn make_room(&mut self, node: &Str) {
        if self.neighbors.len() >= MAX_NEIGHBORS && !self.neighbors.contains_key(node) {
            let oldest = self.neighbors.iter().min_by_key(|(_, neighbor)| neighbor.heard);
            if let Some(name) = oldest.map(|(name, _)| Str::clone(name)) {
                self.neighbors.remove(&name);
            }
        }
    }
}

/// The buckets for which `is` holds, one bit each.
fn mask(is: impl Fn(usize) -> bool) -> u32 {
    (0..BUCKETS).filter(|&at| is(at)).fold(0, |mask, at| mask | 1 << at)
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}
