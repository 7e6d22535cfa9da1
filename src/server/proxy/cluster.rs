//! The endpoints of a backend: which one takes a request, and which are better left alone. No clock, no randomness of
//! its own.
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{LONGEST_EJECTION, MAGLEV_SIZE, SLOW_START_LEAST};
use super::upstream::Host;
use crate::api::endpoint::Endpoint;
use crate::api::route::{Balance, RetryBudget, UpstreamSettings};
use crate::kernel::Time;
use crate::proto::maglev;

/// The endpoints of one Service port that may take requests, under the settings of one backend.
pub(super) struct Cluster {
    settings: Arc<UpstreamSettings>,
    members: Vec<Rc<Member>>,
    next: Cell<usize>,
    /// For [`Balance::SourceAddress`]; made when it is needed.
    table: OnceCell<Box<[u16]>>,
    load: Rc<Load>,
}

/// An endpoint of a cluster; lives on when the cluster is made anew.
pub(super) struct Member {
    pub(super) host: Rc<Host>,
    in_flight: Cell<u32>,
    /// Connecting failed, and has not succeeded since.
    dead: Cell<bool>,
    /// In a row.
    failures: Cell<u32>,
    ejected_until: Cell<Time>,
    ejections: Cell<u32>,
    /// When it joined endpoints that were there already; the slow start runs from here.
    since: Option<Time>,
}

/// What is in flight to a backend; lives on when the cluster is made anew.
#[derive(Default)]
struct Load {
    requests: Cell<u32>,
    budget: Budget,
}

/// Requests and retries of the present interval.
#[derive(Default)]
struct Budget {
    since: Cell<Time>,
    requests: Cell<u32>,
    retries: Cell<u32>,
    minimum_since: Cell<Time>,
    minimum: Cell<u32>,
}

/// What a request wants of an endpoint.
pub(super) struct Wish<'m> {
    pub(super) now: Time,
    /// The same for all requests of a client.
    pub(super) affinity: u64,
    /// Not this one, if there is another.
    pub(super) avoid: Option<&'m Rc<Member>>,
    pub(super) random: fn() -> u64,
}

/// A request's place at an endpoint: counted until dropped.
pub(super) struct Lease {
    pub(super) member: Rc<Member>,
    cluster: Rc<Cluster>,
}

// === impl Cluster ===

impl Cluster {
    /// Ready endpoints; terminating ones only if no other is left. `before` is the former cluster of the same backend,
    /// whose turns, counts and verdicts on endpoints go on.
    pub(super) fn new(
        settings: Arc<UpstreamSettings>,
        endpoints: &[Endpoint],
        before: Option<&Self>,
        now: Time,
        host: &mut dyn FnMut(&Endpoint) -> Rc<Host>,
    ) -> Self {
        let ready = |endpoint: &&Endpoint| endpoint.ready && !endpoint.terminating;
        let mut chosen: Vec<&Endpoint> = endpoints.iter().filter(ready).collect();
        if chosen.is_empty() {
            chosen = endpoints.iter().filter(|endpoint| endpoint.terminating).collect();
        }
        let former: HashMap<SocketAddr, &Rc<Member>> =
            before.into_iter().flat_map(|b| &b.members).map(|m| (m.host.address, m)).collect();
        let since = (!former.is_empty()).then_some(now);
        let member = |endpoint: &Endpoint| match former.get(&endpoint.address) {
            Some(member) => Rc::clone(member),
            None => Rc::new(Member::new(host(endpoint), since)),
        };
        Self {
            settings,
            members: chosen.into_iter().map(member).collect(),
            next: Cell::new(before.map_or(0, |before| before.next.get())),
            table: OnceCell::new(),
            load: before.map_or_else(Rc::default, |before| Rc::clone(&before.load)),
        }
    }

    pub(super) const fn settings(&self) -> &Arc<UpstreamSettings> {
        &self.settings
    }

    pub(super) fn members(&self) -> &[Rc<Member>] {
        &self.members
    }

    /// The endpoint for a request. If all are left out, for whatever reason, all are tried: a wrong verdict must not
    /// take a backend away.
    #[inline]
    pub(super) fn pick(&self, wish: &Wish<'_>) -> Option<&Rc<Member>> {
        let count = self.members.len();
        if count <= 1 {
            return self.members.first();
        }
        let turn = match self.settings.balance {
            Balance::RoundRobin => {
                let turn = self.next.get();
                self.next.set(turn.wrapping_add(1));
                turn
            }
            Balance::LeastRequest => return Some(self.less_busy(wish)),
            Balance::Random => random_index(wish, count),
            Balance::SourceAddress => return Some(self.of_source(wish)),
        };
        Some(self.since_turn(turn, wish))
    }

    /// The first good one from `turn` on.
    fn since_turn(&self, turn: usize, wish: &Wish<'_>) -> &Rc<Member> {
        let count = self.members.len();
        let at = |i: usize| &self.members[turn.wrapping_add(i) % count];
        let warm = |member: &Rc<Member>| self.is_warm(member, wish);
        for i in 0..count {
            if at(i).is_wanted(wish) && warm(at(i)) {
                // Those that were passed over have had their turn.
                if i > 0 && self.settings.balance == Balance::RoundRobin {
                    self.next.set(turn.wrapping_add(i + 1));
                }
                return at(i);
            }
        }
        let wanted = (0..count).map(at).find(|member| member.is_wanted(wish));
        let other = || (0..count).map(at).find(|member| !wish.avoids(member));
        wanted.or_else(other).unwrap_or_else(|| at(0))
    }

    /// The one of two random ones with fewer requests in flight.
    fn less_busy(&self, wish: &Wish<'_>) -> &Rc<Member> {
        let count = self.members.len();
        let first = random_index(wish, count);
        let second = (first + 1 + random_index(wish, count - 1)) % count;
        let [first, second] = [self.since_turn(first, wish), self.since_turn(second, wish)];
        if second.in_flight.get() < first.in_flight.get() { second } else { first }
    }

    fn of_source(&self, wish: &Wish<'_>) -> &Rc<Member> {
        let table = self.table.get_or_init(|| {
            let addresses: Vec<_> = self.members.iter().map(|m| m.host.address).collect();
            maglev::table(&addresses, MAGLEV_SIZE).into_boxed_slice()
        });
        let slot = (wish.affinity % table.len() as u64) as usize;
        // Where the chosen one is not there, its clients spread over the others.
        let entries = table[slot..].iter().chain(&table[..slot]);
        let members = entries.map(|index| &self.members[usize::from(*index)]);
        let wanted = members.take(8 * self.members.len()).find(|member| member.is_wanted(wish));
        wanted.unwrap_or_else(|| self.since_turn(slot, wish))
    }

    /// Whether a new endpoint takes this request already: its share grows with its age.
    fn is_warm(&self, member: &Member, wish: &Wish<'_>) -> bool {
        let slow_start = self.settings.slow_start;
        let Some(since) = member.since.filter(|_| !slow_start.is_zero()) else { return true };
        let age = wish.now.since(since);
        if age >= slow_start {
            return true;
        }
        let share = (age.as_secs_f64() / slow_start.as_secs_f64()).max(SLOW_START_LEAST);
        ((wish.random)() % 1000) < (share * 1000.0) as u64
    }

    /// A place at `member`; None if the backend has as much to do as it may (circuit breaker).
    #[inline]
    pub(super) fn lease(self: &Rc<Self>, member: &Rc<Member>) -> Option<Lease> {
        let breaker = &self.settings.breaker;
        let requests = self.load.requests.get();
        // A request has a connection of its own, so that both bounds say the same.
        let over = |limit: u32| limit > 0 && requests >= limit;
        if over(breaker.max_requests) || over(breaker.max_connections) {
            return None;
        }
        self.load.requests.set(requests + 1);
        member.in_flight.set(member.in_flight.get() + 1);
        Some(Lease { member: Rc::clone(member), cluster: Rc::clone(self) })
    }

    /// Counts a request whose retries a budget bounds.
    pub(super) fn count_for_budget(&self, now: Time, budget: &RetryBudget) {
        self.load.budget.advance(now, budget);
        add(&self.load.budget.requests);
    }

    /// Whether the budget has room for a retry, which it then takes.
    pub(super) fn take_retry(&self, now: Time, budget: &RetryBudget) -> bool {
        let spent = &self.load.budget;
        spent.advance(now, budget);
        let share = u64::from(spent.requests.get()) * u64::from(budget.percent);
        let fits = (u64::from(spent.retries.get()) + 1) * 100 <= share;
        let allowed = fits || spent.minimum.get() < budget.minimum.0;
        if allowed {
            add(&spent.retries);
            add(&spent.minimum);
        }
        allowed
    }

    /// Leaves `member` out for a while, if so many may be.
    fn eject(&self, member: &Member, now: Time) {
        let Some(outlier) = &self.settings.outlier else { return };
        let ejected = self.members.iter().filter(|member| member.is_ejected(now)).count();
        let share = (ejected as u64 + 1) * 100;
        let fits = share <= u64::from(outlier.max_percent) * self.members.len() as u64;
        // As Envoy does, one may always be, or a small backend would never have any left out.
        if outlier.max_percent == 0 || !(fits || ejected == 0) {
            return;
        }
        member.eject(now, outlier.base_ejection);
        log::debug!("{} is left out after {} failures", member.host.address, outlier.consecutive);
    }
}

fn random_index(wish: &Wish<'_>, count: usize) -> usize {
    ((wish.random)() % count as u64) as usize
}

fn add(counter: &Cell<u32>) {
    counter.set(counter.get().saturating_add(1));
}

// === impl Member ===

impl Member {
    fn new(host: Rc<Host>, since: Option<Time>) -> Self {
        Self {
            host,
            in_flight: Cell::new(0),
            dead: Cell::new(false),
            failures: Cell::new(0),
            ejected_until: Cell::new(Time::ZERO),
            ejections: Cell::new(0),
            since,
        }
    }

    #[inline]
    fn is_wanted(self: &Rc<Self>, wish: &Wish<'_>) -> bool {
        !self.dead.get() && !self.is_ejected(wish.now) && !wish.avoids(self)
    }

    #[inline]
    fn is_ejected(&self, now: Time) -> bool {
        self.ejected_until.get() > now
    }

    /// Whether requests may go there: sessions end with their endpoint.
    pub(super) fn is_usable(&self, now: Time) -> bool {
        !self.dead.get() && !self.is_ejected(now)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// Says whether connecting has worked; returns whether that is news.
    pub(super) fn set_dead(&self, dead: bool) -> bool {
        self.dead.replace(dead) != dead
    }

    /// The time grows with each ejection, and shrinks again with the time without one.
    fn eject(&self, now: Time, base: Duration) {
        let calm = now.since(self.ejected_until.get()).as_nanos() / base.as_nanos().max(1);
        let calm = u32::try_from(calm).unwrap_or(u32::MAX);
        let ejections = self.ejections.get().saturating_sub(calm) + 1;
        self.ejections.set(ejections);
        self.ejected_until.set(now + base.saturating_mul(ejections).min(LONGEST_EJECTION));
        self.failures.set(0);
    }
}

// === impl Wish ===

impl Wish<'_> {
    #[inline]
    fn avoids(&self, member: &Rc<Member>) -> bool {
        self.avoid.is_some_and(|avoid| Rc::ptr_eq(avoid, member))
    }
}

// === impl Lease ===

impl Lease {
    /// Says how the request ended: a failure is a 5xx, a connection that broke, or silence.
    #[inline]
    pub(super) fn report(&self, now: Time, failed: bool) {
        let Some(outlier) = &self.cluster.settings.outlier else { return };
        let failures = if failed { self.member.failures.get() + 1 } else { 0 };
        self.member.failures.set(failures);
        if failures >= outlier.consecutive.max(1) && !self.member.is_ejected(now) {
            self.cluster.eject(&self.member, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for counter in [&self.member.in_flight, &self.cluster.load.requests] {
            counter.set(counter.get().saturating_sub(1));
        }
    }
}

// === impl Budget ===

impl Budget {
    /// Begins new intervals when theirs is over.
    fn advance(&self, now: Time, budget: &RetryBudget) {
        if now.since(self.since.get()) >= budget.interval {
            self.since.set(now);
            self.requests.set(0);
            self.retries.set(0);
        }
        if now.since(self.minimum_since.get()) >= budget.minimum.1 {
            self.minimum_since.set(now);
            self.minimum.set(0);
        }
    }
}
