//! The claims this node believes, and the clock by which their age is compared.
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::meta::NamespacedName;
use crate::kernel::Time;
use crate::proto::claims::{Claim, Digest, MAX_CLOCK, toggle};

/// Two clocks that differ by less are taken for one: more than packets are delayed and clocks drift
/// between two of them, less than any outage that matters.
pub const CLOCK_TOLERANCE: u64 = 2_000;
/// A neighbor's clock that is this far ahead is not believed: ten years, in milliseconds.
pub const MAX_CLOCK_JUMP: u64 = 10 * 365 * 24 * 3_600_000;
/// How old a claim from the state file counts at most, in milliseconds: more than one of a node that has
/// just started without a memory, less than one of a cluster that has been running meanwhile.
pub const HEAD_START: u64 = 60_000;
/// Claims of one Service that are kept while it is not decided which is right.
pub const MAX_CLAIMS: usize = super::service::MAX_ADDRESSES + 4;

/// Milliseconds that all nodes in contact count alike. It starts at zero with the first node, follows
/// whoever is ahead, and has nothing to do with the time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterClock {
    ahead: u64,
    started: Time,
}

/// How another node's clock relates to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// One clock: times mean the same.
    Same,
    /// The other is this much behind: its times count from an earlier zero.
    Behind(u64),
    /// It was ahead by more than the tolerance; ours has jumped, and all our times must be moved by this.
    Jumped(u64),
    /// It is too far ahead to be believed.
    Absurd,
}

/// One claim of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Since when the Service has the address, on the cluster clock.
    pub born: u64,
    /// Since when the claim has no effect, on the local clock; None: it has.
    pub idle_since: Option<Time>,
}

/// All claims, by Service and address.
#[derive(Debug, Clone, Default)]
pub struct ClaimSet {
    by_service: BTreeMap<NamespacedName, BTreeMap<IpAddr, Held>>,
}

// === impl ClusterClock ===

impl ClusterClock {
    /// A clock that shows `ahead` at `now`.
    pub const fn new(now: Time, ahead: u64) -> Self {
        Self { ahead, started: now }
    }

    /// What it shows at `at`.
    pub fn at(&self, at: Time) -> u64 {
        let run = u64::try_from(at.since(self.started).as_millis()).unwrap_or(u64::MAX);
        self.ahead.saturating_add(run).min(MAX_CLOCK)
    }

    /// Compares with the clock of another node, as of just now, and follows it if it is ahead.
    pub fn meet(&mut self, now: Time, theirs: u64) -> Meeting {
        let ours = self.at(now);
        if theirs.saturating_add(CLOCK_TOLERANCE) < ours {
            return Meeting::Behind(ours - theirs);
        }
        let lead = theirs.saturating_sub(ours);
        if lead > MAX_CLOCK_JUMP {
            return Meeting::Absurd;
        }
        self.ahead = self.ahead.saturating_add(lead);
        if lead > CLOCK_TOLERANCE { Meeting::Jumped(lead) } else { Meeting::Same }
    }
}

// === impl ClaimSet ===

impl ClaimSet {
    /// Adds a claim or makes it older; returns whether that changed anything. None: the Service has too
    /// many claims already.
    pub fn merge(&mut self, service: &NamespacedName, address: IpAddr, born: u64) -> Option<bool> {
        let claims = self.by_service.entry(service.clone()).or_default();
        if let Some(held) = claims.get_mut(&address) {
            let older = born < held.born;
            held.born = held.born.min(born);
            return Some(older);
        }
        if claims.len() >= MAX_CLAIMS {
            return None;
        }
        claims.insert(address, Held { born, idle_since: None });
        Some(true)
    }

    /// The claims of a Service.
    pub fn of(&self, service: &NamespacedName) -> impl Iterator<Item = (IpAddr, Held)> {
        self.by_service.get(service).into_iter().flatten().map(|(address, held)| (*address, *held))
    }

    /// Whether the Service claims the address.
    pub fn has(&self, service: &NamespacedName, address: IpAddr) -> bool {
        self.by_service.get(service).is_some_and(|claims| claims.contains_key(&address))
    }

    /// All claims.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespacedName, IpAddr, Held)> {
        self.by_service.iter().flat_map(|(service, claims)| {
            claims.iter().map(move |(address, held)| (service, *address, *held))
        })
    }

    /// Lets `keep` change or drop each claim.
    pub fn retain(&mut self, mut keep: impl FnMut(&NamespacedName, IpAddr, &mut Held) -> bool) {
        self.by_service.retain(|service, claims| {
            claims.retain(|address, held| keep(service, *address, held));
            !claims.is_empty()
        });
    }

    /// Moves all times, after the clock has jumped.
    pub fn shift(&mut self, by: u64) {
        self.retain(|_, _, held| {
            held.born = held.born.saturating_add(by).min(MAX_CLOCK);
            true
        });
    }

    /// The claims in effect: what is told to others and saved.
    pub fn in_effect(&self) -> impl Iterator<Item = Claim> {
        self.iter().filter(|(.., held)| held.idle_since.is_none()).map(
            |(service, address, held)| Claim { born: held.born, service: service.clone(), address },
        )
    }

    /// The hashes over [`ClaimSet::in_effect`].
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for claim in self.in_effect() {
            toggle(&mut digest, &claim);
        }
        digest
    }
}
