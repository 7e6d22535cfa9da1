//! LB-IPAM: which LoadBalancer Service has which address (LB-01 to LB-19).
//!
//! **In**: [`Message::Objects`] (pools, and Services of every origin), [`Message::Peer`] (other nodes'
//! claims), [`Message::Restored`] (own claims from before a restart).
//! **Out**: [`Message::Assignments`] to announce, datapath, route and store; [`Message::Statuses`] to store;
//! [`Message::SendPeers`] to the LAN; [`Message::Save`] to the state directory.
//!
//! # Agreement without a leader
//! With static manifests there is no API server to decide, so nodes talk. What a node hands out is a pure
//! function ([`allocate`]) of the objects and a set of *claims* "this Service has this address since then".
//! Nodes with the same files differ at most in their claims, and those they exchange:
//!
//! - What the function adds by itself (lowest free address and so on) is used at once, so a single node
//!   never waits. It becomes a claim when it has stayed the same for [`SETTLE`]
//!   and the node has listened for [`LISTEN`]. Until then it is computed
//!   anew with every change: however files arrive within that time, the result is that of all together.
//!   And a node that starts hears the claims of the others first and adopts them.
//! - Two claims that exclude each other: the older wins, ties by Service and address. The set is merged by
//!   union and the smaller time of birth, which is commutative, associative and idempotent: nodes that can
//!   hear each other end with the same set, in whatever order, how often and by whom they are told.
//! - Only claims in effect are told and saved. One that has lost is forgotten a second later; one that
//!   the objects do not allow (Service or pool gone) after [`DORMANT`], or when somebody else has the
//!   address: a file that is rewritten, or a Service that appears late at start, costs nobody his address.
//! - Claims of others that our own objects and pools do not allow are not believed, and counted by reason.
//!
//! # Why ages survive partitions, restarts and wrong clocks
//! There is no time of day here. "Older" is read off the [`claim::ClusterClock`]: milliseconds on each node's
//! monotonic clock, where whoever is behind follows whoever is ahead. If clocks differ by more than
//! [`claim::CLOCK_TOLERANCE`] the two have been apart (or one has just started): the one behind moves its
//! times by the difference, that is, *ages* are compared, not times. So a node that comes up without a
//! memory, with its cable plugged late, has young claims and cannot take anything from a cluster that has
//! been running; and in contact all have one clock, so that comparisons come out the same everywhere.
//! After a restart remembered claims count at most [`claim::HEAD_START`] old: they go before those of a node
//! that starts empty (a power cut does not shuffle addresses), and after those that others have been using
//! meanwhile (a stale memory changes nothing). An address in use thus moves only if its Service or pool
//! forbids it, or if after a partition another has used it (or the Service another one) longer.
//!
//! # Protocol
//! [`crate::proto::claims`] has the bytes. Each node sends a digest (32 hashes, by bucket of Services) every
//! second and after changes. Whoever hears one that differs sends his claims of the buckets that differ,
//! with bounds on repetition ([`exchange`]).
//!
//! # Decisions where Cilium depends on the order of events
//! - A later pool (LB-07) is later by creationTimestamp, then name; pools from files by name only.
//! - An explicit request does not take an address that another Service is using: `already_allocated`.
//! - Two sharers that become incompatible: the one with the younger claim moves.
//! - Pools are searched by name, a sharing key's addresses from the lowest.
//!
//! # If it dies
//! It is built anew, asks nobody, and gets its objects and its saved claims sent again; the addresses are
//! the same. Until then everybody else goes on with the last [`Message::Assignments`].
pub mod allocate;
pub mod claim;
pub mod exchange;
pub mod pool;
pub mod service;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::allocate::{Allocation, Services};
use self::claim::{ClaimSet, ClusterClock, HEAD_START, Meeting};
use self::exchange::Exchange;
use self::pool::{Family, Pools};
use self::service::ServiceView;
use crate::api::address::Assignments;
use crate::api::config::Config;
use crate::api::file::StateBlob;
use crate::api::meta::{NamespacedName, Str};
use crate::api::objects::Objects;
use crate::api::problem::Problem;
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::arrange::Gather;
use crate::kernel::{Outbox, Server, ServerId, Time};
use crate::proto::claims::{
    Body, Claim, Digest, Packet, State, bucket_of, encode_claims, encode_digest,
};

/// What is wrong with the pools and with what Services ask for, as `pilus check` says it.
pub fn check(objects: &Objects, config: &Config) -> Vec<Problem> {
    let pools = Pools::new(objects.pools.values(), config.ipv4, config.ipv6);
    let mut problems = Vec::new();
    for service in objects.services.values().filter(|service| ServiceView::is_ours(service)) {
        ServiceView::new(service, &pools, &mut problems);
    }
    problems.extend(pools.problems);
    problems
}

/// The name of the state file.
pub const STATE_NAME: &str = "addresses";
/// Who is told which Service has which address.
const READERS: [ServerId; 5] =
    [wiring::ANNOUNCE, wiring::DATAPATH, wiring::ROUTE, wiring::STORE, wiring::ADMIN];
/// How long an address must have stayed the same before it counts as in use. Longer than files of one
/// change take to arrive, and shorter than it takes to announce a new address (it is probed for first): what
/// a client can reach does not move. Each node adds up to a quarter of it, by its name, so that usually one
/// is first and the others hear of it.
pub const SETTLE: Duration = Duration::from_millis(100);
/// A node that has just started makes no claims for so long: it hears first what the others use.
pub const LISTEN: Duration = Duration::from_millis(600);
/// How long a claim that has lost is still told, so that all who believed it hear of it.
const LOSER_KEPT: Duration = Duration::from_secs(1);
/// How long a claim is remembered that the objects do not allow at present.
pub const DORMANT: Duration = Duration::from_secs(30);
/// How long the first allocation waits for the state file; a disk that hangs must not stop it for ever.
pub const RESTORE_WAIT: Duration = Duration::from_millis(500);
/// Claims that arrive within this time are worked in together.
const GATHER: Duration = Duration::from_millis(5);
/// The shortest time between two writes of the state file, for the sake of SD cards.
const SAVE_GAP: Duration = Duration::from_secs(1);

/// What follows from the objects.
#[derive(Default)]
struct Inputs {
    pools: Pools,
    services: Services,
    problems: Vec<Problem>,
}

/// The server.
pub struct Ipam {
    config: Arc<Config>,
    settle: Duration,
    /// Until when this node only listens; None: it has not started.
    listening: Option<Time>,
    objects: Option<Arc<Objects>>,
    inputs: Inputs,
    /// Whether a pool has ever been there; before, Services are none of our business (LB-01).
    awake: bool,
    /// Until when to wait for the state file; None: no longer.
    waiting: Option<Time>,
    restored: bool,
    clock: ClusterClock,
    claims: ClaimSet,
    digest: Digest,
    allocation: Allocation,
    /// Addresses in use that are no claims yet, and since when.
    pending: BTreeMap<(NamespacedName, IpAddr), Time>,
    /// Services that were ours, with the addresses they had (LB-12).
    released: BTreeMap<NamespacedName, Vec<IpAddr>>,
    exchange: Exchange,
    rejected: BTreeMap<&'static str, u64>,
    recompute_due: Option<Time>,
    settle_due: Option<Time>,
    save_due: Option<Time>,
    saved: Option<(Time, SavedNames)>,
    assignments: Arc<Assignments>,
    statuses: Arc<Statuses>,
    published: bool,
}

// === impl Ipam ===

impl Ipam {
    /// A server that knows nothing yet.
    pub fn new(config: Arc<Config>) -> Self {
        let spread = config
            .node
            .bytes()
            .fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self {
            settle: SETTLE + Duration::from_millis(spread % 25),
            listening: None,
            config,
            objects: None,
            inputs: Inputs::default(),
            awake: false,
            waiting: None,
            restored: false,
            clock: ClusterClock::default(),
            claims: ClaimSet::default(),
            digest: Digest::default(),
            allocation: Allocation::default(),
            pending: BTreeMap::new(),
            released: BTreeMap::new(),
            exchange: Exchange::new(),
            rejected: BTreeMap::new(),
            recompute_due: None,
            settle_due: None,
            save_due: None,
            saved: None,
            assignments: Arc::default(),
            statuses: Arc::default(),
            published: false,
        }
    }

    /// Packets and claims that were not believed, by reason.
    pub const fn rejected(&self) -> &BTreeMap<&'static str, u64> {
        &self.rejected
    }

    fn on_objects(&mut self, now: Time, objects: Arc<Objects>, out: &mut Outbox<Message>) {
        let old = self.objects.replace(Arc::clone(&objects));
        if old.as_ref().is_some_and(|old| {
            Arc::ptr_eq(&old.services, &objects.services) && Arc::ptr_eq(&old.pools, &objects.pools)
        }) {
            return;
        }
        if old.is_none() && !self.restored {
            self.waiting = Some(now + RESTORE_WAIT);
        }
        self.read_objects(&objects);
        self.exchange.digest_soon(now);
        self.recompute(now, out);
    }

    fn read_objects(&mut self, objects: &Objects) {
        self.awake |= !objects.pools.is_empty();
        let pools = Pools::new(objects.pools.values(), self.config.ipv4, self.config.ipv6);
        let mut inputs = Inputs { pools, ..Inputs::default() };
        if self.awake {
            for (name, service) in objects.services.iter() {
                if ServiceView::is_ours(service) {
                    let view = ServiceView::new(service, &inputs.pools, &mut inputs.problems);
                    inputs.services.insert(name.clone(), view);
                }
            }
        }
        self.note_released(objects, &inputs.services);
        self.inputs = inputs;
    }

    /// Services that are there and no longer ours lose in their status what we had put there (LB-12).
    fn note_released(&mut self, objects: &Objects, ours: &Services) {
        for (name, grant) in &self.allocation.grants {
            if !ours.contains_key(name) && !grant.addresses.is_empty() {
                self.released.insert(name.clone(), grant.addresses.clone());
            }
        }
        self.released.retain(|name, given| {
            !ours.contains_key(name)
                && objects.services.get(name).is_some_and(|service| {
                    service.status_ips.iter().any(|address| given.contains(address))
                })
        });
    }

    fn on_restored(&mut self, now: Time, blob: &StateBlob, out: &mut Outbox<Message>) {
        if blob.name != STATE_NAME || self.restored {
            return;
        }
        self.restored = true;
        self.waiting = None;
        match blob.content.as_deref().map(State::decode) {
            Some(Ok(state)) => self.remember(now, &state),
            Some(Err(error)) => {
                log::warn!("state file {STATE_NAME} is not usable and ignored: {error}");
                self.reject(error.reason());
            }
            None => {}
        }
        if self.objects.is_some() {
            self.recompute(now, out);
        }
    }

    fn remember(&mut self, now: Time, state: &State) {
        if let Meeting::Jumped(by) = self.clock.meet(now, state.clock) {
            self.claims.shift(by);
        }
        let clock = self.clock.at(now);
        for claim in &state.claims {
            let age = state.clock.saturating_sub(claim.born).min(HEAD_START);
            let born = clock.saturating_sub(age);
            if self.claims.merge(&claim.service, claim.address, born).is_none() {
                self.reject("too many claims of one service");
            }
        }
        self.saved = Some((now, self.names()));
    }

    fn on_packet(&mut self, now: Time, bytes: &[u8]) {
        let packet = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.reject(error.reason()),
        };
        // Before the first objects nothing can be judged; our first digest makes the others say it again.
        if packet.node == self.config.node || self.objects.is_none() {
            return;
        }
        let mut younger_by = 0;
        match self.clock.meet(now, packet.clock) {
            Meeting::Same => {}
            Meeting::Behind(by) => younger_by = by,
            Meeting::Jumped(by) => {
                self.claims.shift(by);
                self.digest = self.claims.digest();
                self.exchange.digest_soon(now);
            }
            Meeting::Absurd => return self.reject("clock too far ahead"),
        }
        match packet.body {
            Body::Digest(theirs) => {
                self.exchange.compare(now, &packet.node, &theirs, &self.digest);
            }
            Body::Claims(claims) => {
                for claim in claims {
                    self.on_claim(now, &claim, younger_by);
                }
            }
        }
    }

    fn on_claim(&mut self, now: Time, claim: &Claim, younger_by: u64) {
        let Some(view) = self.inputs.services.get(&claim.service) else {
            return self.reject("claim for an unknown service");
        };
        let family = Family::of(claim.address);
        let asked = if view.requested.is_empty() {
            view.wants(family)
        } else {
            view.requested.contains(&claim.address)
        };
        if !asked {
            return self.reject("claim for an address the service does not ask for");
        }
        if !self.inputs.pools.allow(view, claim.address) {
            return self.reject("claim for an address of no pool of the service");
        }
        let born = claim.born.saturating_add(younger_by);
        match self.claims.merge(&claim.service, claim.address, born) {
            Some(true) => self.recompute_due = Some(self.recompute_due.unwrap_or(now + GATHER)),
            Some(false) => {}
            None => self.reject("too many claims of one service"),
        }
    }

    fn reject(&mut self, reason: &'static str) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    fn recompute(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.recompute_due = None;
        if self.waiting.is_some_and(|until| now < until) {
            return;
        }
        self.waiting = None;
        self.allocation = Allocation::new(&self.inputs.pools, &self.inputs.services, &self.claims);
        self.note_pending(now);
        self.note_effect(now);
        self.publish(out);
    }

    /// Addresses that are not claimed yet start to settle.
    fn note_pending(&mut self, now: Time) {
        let mut old = std::mem::take(&mut self.pending);
        for (service, grant) in &self.allocation.grants {
            for &address in &grant.addresses {
                if !self.claims.has(service, address) {
                    let key = (service.clone(), address);
                    let since = old.remove(&key).unwrap_or(now);
                    self.pending.insert(key, since);
                }
            }
        }
    }

    /// Notes which claims are in effect and forgets those that are done for.
    fn note_effect(&mut self, now: Time) {
        let (allocation, inputs) = (&self.allocation, &self.inputs);
        let mut claimed = BTreeSet::new();
        self.claims.retain(|service, address, held| {
            if allocation.holds(service, address) {
                held.idle_since = None;
                claimed.insert(address);
            } else {
                held.idle_since.get_or_insert(now);
            }
            true
        });
        let settled = families_in_effect(&self.claims);
        let mut expiry = None;
        self.claims.retain(|service, address, held| {
            let Some(since) = held.idle_since else { return true };
            let view = inputs.services.get(service);
            let allowed = view.is_some_and(|view| inputs.pools.allow(view, address));
            let v6 = usize::from(Family::of(address) == Family::V6);
            let replaced = claimed.contains(&address)
                || settled.get(service).is_some_and(|families| families[v6]);
            let until = since + if allowed { LOSER_KEPT } else { DORMANT };
            let keep = (allowed || !replaced) && now < until;
            if keep {
                expiry = Some(expiry.map_or(until, |first: Time| first.min(until)));
            }
            keep
        });
        let settling = self.pending.values().map(|&since| self.settled_at(since));
        self.settle_due = settling.chain(expiry).min();
        let digest = self.claims.digest();
        if digest != self.digest {
            self.digest = digest;
            self.exchange.digest_soon(now);
        }
        let save = now.max(self.saved.as_ref().map_or(now, |(at, _)| *at + SAVE_GAP));
        self.save_due = Some(self.save_due.unwrap_or(save));
    }

    /// When an address that has been handed out at `since` becomes a claim.
    fn settled_at(&self, since: Time) -> Time {
        (since + self.settle).max(self.listening.unwrap_or(Time::MAX))
    }

    /// Makes claims of what has settled, and forgets what has been idle long enough.
    fn settle(&mut self, now: Time, out: &mut Outbox<Message>) {
        let mut buckets = 0_u32;
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|(service, address), since| {
            if now < self.settled_at(*since) {
                return true;
            }
            let (clock, claims) = (self.clock, &mut self.claims);
            let merged = claims.merge(service, *address, clock.at(*since));
            if merged.is_some() {
                buckets |= 1 << bucket_of(service);
            }
            merged.is_none()
        });
        self.pending = pending;
        self.note_effect(now);
        if buckets != 0 {
            self.exchange.push_soon(now, buckets);
        }
        self.publish(out);
    }

    fn publish(&mut self, out: &mut Outbox<Message>) {
        let given = self.allocation.grants.iter().filter(|(_, grant)| !grant.addresses.is_empty());
        let by_service = given.map(|(name, grant)| (name.clone(), grant.addresses.clone()));
        let tentative = self.pending.keys().cloned().collect();
        let assignments = Assignments { by_service: by_service.gather(), tentative };
        if *self.assignments != assignments || !self.published {
            self.assignments = Arc::new(assignments);
            for peer in READERS {
                out.send(peer, Message::Assignments(Arc::clone(&self.assignments)));
            }
        }
        self.publish_statuses(out);
        self.published = true;
    }

    fn publish_statuses(&mut self, out: &mut Outbox<Message>) {
        let Some(objects) = &self.objects else { return };
        let mut released = self.released.clone();
        for (name, given) in &mut released {
            let there = objects.services.get(name).map_or(&[][..], |service| &service.status_ips);
            *given = there.iter().copied().filter(|address| !given.contains(address)).collect();
        }
        let mut statuses = status::report(
            &self.inputs.pools,
            &self.inputs.services,
            &self.allocation,
            &self.assignments.tentative,
            &released,
            &self.inputs.problems,
        );
        if let Some(metrics) = statuses.ipam.as_mut().and_then(Arc::get_mut) {
            metrics.claims = status::count(self.claims.in_effect().count());
            metrics.rejected = self.rejected.clone();
        }
        if *self.statuses != statuses || !self.published {
            self.statuses = Arc::new(statuses);
            out.send(wiring::STORE, Message::Statuses(Arc::clone(&self.statuses)));
        }
    }

    fn send_due(&mut self, now: Time, out: &mut Outbox<Message>) {
        let (digest, bucket) = self.exchange.due(now);
        let (node, clock): (&Str, u64) = (&self.config.node, self.clock.at(now));
        if digest {
            let packet = encode_digest(node, clock, &self.digest);
            out.send(wiring::LAN, Message::SendPeers(packet.into()));
        }
        if let Some(bucket) = bucket {
            let in_bucket = |claim: &Claim| bucket_of(&claim.service) == bucket;
            let claims: Vec<Claim> = self.claims.in_effect().filter(in_bucket).collect();
            for packet in encode_claims(node, clock, &claims) {
                out.send(wiring::LAN, Message::SendPeers(packet.into()));
            }
        }
        if digest && self.published && self.rejected_changed() {
            self.publish_statuses(out);
        }
    }

    fn rejected_changed(&self) -> bool {
        self.statuses.ipam.as_ref().is_some_and(|metrics| metrics.rejected != self.rejected)
    }

    /// Writes the state file if the claims are others than those it has; ages alone do not matter, as they
    /// count for little after a restart. Claims without effect are written too: their Service may appear yet.
    fn save(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.save_due = None;
        let names = self.names();
        let same = match &self.saved {
            Some((_, saved)) => *saved == names,
            None => names.is_empty(),
        };
        if !same {
            self.saved = Some((now, names));
            out.send(wiring::FILES, Message::Save(self.state_blob(now)));
        }
    }

    fn names(&self) -> SavedNames {
        self.claims.iter().map(|(service, address, _)| (service.clone(), address)).collect()
    }

    fn state_blob(&self, now: Time) -> StateBlob {
        let claims = self.claims.iter().map(|(service, address, held)| Claim {
            born: held.born,
            service: service.clone(),
            address,
        });
        let state = State { clock: self.clock.at(now), claims: claims.collect() };
        StateBlob { name: STATE_NAME, content: Some(state.encode()) }
    }
}

/// What the state file names, without ages.
type SavedNames = Vec<(NamespacedName, IpAddr)>;

/// Of each Service, whether it has a claim in effect of IPv4 and IPv6.
fn families_in_effect(claims: &ClaimSet) -> BTreeMap<NamespacedName, [bool; 2]> {
    let mut families: BTreeMap<NamespacedName, [bool; 2]> = BTreeMap::new();
    for (service, address, held) in claims.iter() {
        if held.idle_since.is_none() {
            let v6 = usize::from(Family::of(address) == Family::V6);
            families.entry(service.clone()).or_default()[v6] = true;
        }
    }
    families
}

impl Server<Message> for Ipam {
    fn start(&mut self, now: Time, _out: &mut Outbox<Message>) {
        self.clock = ClusterClock::new(now, 0);
        self.listening = Some(now + LISTEN);
    }

    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Objects(objects) => self.on_objects(now, objects, out),
            Message::Restored(blob) => self.on_restored(now, &blob, out),
            Message::Peer(_, bytes) => self.on_packet(now, &bytes),
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        [self.waiting, self.recompute_due, self.settle_due, self.save_due, self.exchange.timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        let due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        if due(self.waiting) || due(self.recompute_due) {
            self.recompute(now, out);
        }
        if due(self.settle_due) {
            self.settle(now, out);
        }
        if due(self.save_due) {
            self.save(now, out);
        }
        self.send_due(now, out);
    }

    fn peer_restarted(&mut self, now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if !self.published {
            return;
        }
        if READERS.contains(&peer) {
            out.send(peer, Message::Assignments(Arc::clone(&self.assignments)));
        }
        if peer == wiring::STORE {
            out.send(peer, Message::Statuses(Arc::clone(&self.statuses)));
        }
        if peer == wiring::FILES && self.saved.is_some() {
            out.send(peer, Message::Save(self.state_blob(now)));
        }
    }
}
