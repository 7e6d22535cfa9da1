//! Which backend of a route takes a request, by weight.
use std::cell::{Cell, OnceCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::cluster::Cluster;
use super::filter::session::Marks;
use crate::api::route::{Action, Backend, Route, Target};

/// Whose turn it is, as [`Plan::go_on`] takes it.
pub(super) type Credits = Rc<[i64]>;

/// The weighted backends of one route.
pub(super) struct Plan {
    identity: Option<u64>,
    /// In the order of the route's list; backends without a weight have none to give.
    shares: Vec<Share>,
    total: i64,
    /// For session persistence; made when it is needed.
    marks: OnceCell<Rc<Marks>>,
}

struct Share {
    weight: i64,
    credit: Cell<i64>,
    /// None: its share is refused.
    cluster: Option<Rc<Cluster>>,
}

// === impl Plan ===

impl Plan {
    /// The plan for `backends`, whose clusters `cluster` knows, for the route with this [`identity`].
    pub(super) fn new(
        identity: Option<u64>,
        backends: &[Backend],
        cluster: &mut dyn FnMut(&Backend) -> Rc<Cluster>,
    ) -> Self {
        let share = |backend: &Backend| Share {
            weight: i64::from(backend.weight),
            credit: Cell::new(0),
            cluster: match backend.target {
                Target::Service(_) => Some(cluster(backend)),
                Target::Refuse(..) => None,
            },
        };
        let shares: Vec<Share> = backends.iter().map(share).collect();
        let total = shares.iter().map(|share| share.weight).sum();
        Self { identity, shares, total, marks: OnceCell::new() }
    }

    /// The backend for the next request, as its position in the route's list: within each run of as many requests as
    /// the weights add up to, each gets exactly its weight, evenly spread (smooth weighted round robin, as nginx does
    /// it). None if none has a weight.
    #[inline]
    pub(super) fn next(&self) -> Option<usize> {
        if let [only] = &self.shares[..] {
            return (only.weight > 0).then_some(0);
        }
        let mut best: Option<(usize, &Share)> = None;
        for (index, share) in self.shares.iter().enumerate() {
            share.credit.set(share.credit.get() + share.weight);
            let better = best.is_none_or(|(_, best)| share.credit.get() > best.credit.get());
            if share.weight > 0 && better {
                best = Some((index, share));
            }
        }
        let (index, best) = best?;
        best.credit.set(best.credit.get() - self.total);
        Some(index)
    }

    /// The endpoints of a backend; None if its share is refused.
    #[inline]
    pub(super) fn cluster(&self, backend: usize) -> Option<&Rc<Cluster>> {
        self.shares.get(backend)?.cluster.as_ref()
    }

    /// The endpoints of each backend that has a weight, with its position.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (usize, &Rc<Cluster>)> {
        let weighted = self.shares.iter().enumerate().filter(|(_, share)| share.weight > 0);
        weighted.filter_map(|(index, share)| Some((index, share.cluster.as_ref()?)))
    }

    /// The endpoints as sessions name them.
    pub(super) fn marks(&self, route: &Route) -> &Rc<Marks> {
        self.marks.get_or_init(|| Rc::new(Marks::new(route, self)))
    }

    /// What the route is known by, if whose turn it is matters.
    pub(super) const fn identity(&self) -> Option<u64> {
        self.identity
    }

    /// Whose turn it is.
    pub(super) fn credits(&self) -> Credits {
        self.shares.iter().map(|share| share.credit.get()).collect()
    }

    /// Goes on where the plan of the same backends was that had these `credits`.
    pub(super) fn go_on(&self, credits: &[i64]) {
        for (share, credit) in self.shares.iter().zip(credits) {
            share.credit.set(*credit);
        }
    }
}

/// What a weighted route is known by when the tables are replaced: its rule, and its backends with their weights.
/// None for routes without turns.
pub(super) fn identity(route: &Route) -> Option<u64> {
    let Action::Forward(backends) = &route.action else { return None };
    if backends.len() < 2 {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for (object, field) in &route.origins {
        (object, field).hash(&mut hasher);
    }
    for backend in backends {
        backend.weight.hash(&mut hasher);
        match &backend.target {
            Target::Service(service) => service.hash(&mut hasher),
            Target::Refuse(status, _) => status.hash(&mut hasher),
        }
    }
    Some(hasher.finish())
}
