//! Which endpoint takes a request: backends by weight, endpoints in turn. No clock, no randomness.
use std::cell::Cell;
use std::rc::Rc;

use super::upstream::Host;
use crate::api::endpoint::Endpoint;

/// The weighted backends of one route.
pub(super) struct Plan {
    backends: Vec<Share>,
    total: i64,
}

struct Share {
    weight: i64,
    credit: Cell<i64>,
    cluster: Rc<Cluster>,
}

/// The endpoints of one Service port that may take requests.
pub(super) struct Cluster {
    hosts: Vec<Rc<Host>>,
    next: Cell<usize>,
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(backends: impl Iterator<Item = (u32, Rc<Cluster>)>) -> Self {
        let share =
            |(weight, cluster)| Share { weight: i64::from(weight), credit: Cell::new(0), cluster };
        let backends: Vec<Share> = backends.filter(|(weight, _)| *weight > 0).map(share).collect();
        let total = backends.iter().map(|share| share.weight).sum();
        Self { backends, total }
    }

    /// The backend for the next request: within each run of as many requests as the weights add up to,
    /// each gets exactly its weight, evenly spread (smooth weighted round robin, as nginx does it).
    #[inline]
    pub(super) fn next(&self) -> Option<&Rc<Cluster>> {
        if let [only] = &self.backends[..] {
            return Some(&only.cluster);
        }
        let mut best: Option<&Share> = None;
        for share in &self.backends {
            share.credit.set(share.credit.get() + share.weight);
            if best.is_none_or(|best| share.credit.get() > best.credit.get()) {
                best = Some(share);
            }
        }
        let best = best?;
        best.credit.set(best.credit.get() - self.total);
        Some(&best.cluster)
    }
}

// === impl Cluster ===

impl Cluster {
    /// Ready endpoints; terminating ones only if no other is left. `next` is where the former list of
    /// the same Service port was.
    pub(super) fn new(
        endpoints: &[Endpoint],
        next: usize,
        mut host: impl FnMut(&Endpoint) -> Rc<Host>,
    ) -> Self {
        let ready = |endpoint: &&Endpoint| endpoint.ready && !endpoint.terminating;
        let mut hosts: Vec<_> = endpoints.iter().filter(ready).map(&mut host).collect();
        if hosts.is_empty() {
            hosts = endpoints.iter().filter(|endpoint| endpoint.terminating).map(host).collect();
        }
        Self { hosts, next: Cell::new(next) }
    }

    /// The endpoint whose turn it is.
    #[inline]
    pub(super) fn next_host(&self) -> Option<&Rc<Host>> {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        self.hosts.get(turn.checked_rem(self.hosts.len())?)
    }

    pub(super) fn turn(&self) -> usize {
        self.next.get()
    }

    pub(super) fn host_count(&self) -> usize {
        self.hosts.len()
    }
}
