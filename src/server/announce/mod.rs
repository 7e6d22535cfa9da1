//! Who answers for which address on the LAN: election and announcement.
//!
//! **In:** objects (policies, services, nodes), the assigned addresses, endpoints (for
//! externalTrafficPolicy Local), this node's interfaces and which of them the hooks work on, frames and VRRP from the LAN, shutdown.
//! **Out:** what the hooks answer (`Answers`) and until when (`Alive`), frames and VRRP, who holds what
//! for people (`Announcements`, Leases, conditions, problems), `Released` after a shutdown.
//!
//! **Election.** VRRPv3 (RFC 9568) without virtual MACs. Addresses with the same eligible nodes and the
//! same preferred node share one virtual router, so there are as many as nodes ([`plan`],
//! [`rendezvous`]). Each address is settled by itself ([`claim`]): of two nodes that advertise it the
//! one with the lower (priority, source address) falls silent at once, whatever the VRID; a node takes
//! an address when it has not been advertised for three intervals plus skew.
//!
//! **Invariants.** A node answers only for what it advertises, and only while its liveness is fresh,
//! which ends before a successor moves. It answers for nothing before it has listened, after a start as
//! after a stop of the process. For every address that some node may announce there is an entry in
//! `Answers`, so that this node's kernel stays silent where it does not hold it.
//!
//! **When it dies** the hooks fall silent by themselves and another node takes over, as if the node had
//! died. The new server listens before it answers again.
mod claim;
mod election;
mod frames;
mod interfaces;
mod plan;
mod rendezvous;
mod report;
mod timing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::api::address::{Assignments, IfIndex, MacAddr};
use crate::api::announce::{Announcements, Answers};
use crate::api::config::Config;
use crate::api::endpoint::Endpoints;
use crate::api::interface::Interfaces;
use crate::api::meta::{NamespacedName, ObjectKey};
use crate::api::objects::Objects;
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Server, ServerId, Time};
use crate::proto::{arp, ndp, vrrp};

use claim::{Claim, State};
use election::Release;
use frames::FrameBudget;
use interfaces::Lan;
use plan::{Given, Plan};
use report::LeaseState;

type Key = (IfIndex, IpAddr);

/// Why something from the LAN had no effect. Counted; see [`Announce::ignored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignored {
    /// Not a well-formed ARP packet.
    Arp(arp::Drop),
    /// Not a well-formed neighbor message.
    Ndp(ndp::Drop),
    /// Not a well-formed advertisement.
    Vrrp(vrrp::Drop),
    /// A frame of a type that is not expected.
    EtherType,
    /// Our own frame or advertisement came back.
    Own,
    /// A claim for an address that is none of ours, or an advertisement without one of ours.
    NotOurAddress,
    /// A node announces what it holds.
    Node,
    /// A question, which the hooks answer.
    Question,
    /// It came on an interface we do not use.
    Interface,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The inputs are not complete. If the time is set, what is missing then is taken as empty.
    Gathering(Option<Time>),
    Running,
    /// Shutdown: releases are being advertised.
    Leaving,
    Released,
}

#[derive(Default)]
struct Inputs {
    objects: Option<Arc<Objects>>,
    assignments: Option<Arc<Assignments>>,
    endpoints: Option<Arc<Endpoints>>,
    interfaces: Option<Arc<Interfaces>>,
    /// Interfaces without working hooks, and why.
    unhooked: BTreeMap<IfIndex, String>,
}

#[derive(Default)]
struct Sent {
    answers: Option<Arc<Answers>>,
    announcements: Option<Arc<Announcements>>,
    statuses: Option<Arc<Statuses>>,
    listen: Option<Listen>,
}

type Listen = Arc<[(IfIndex, Vec<IpAddr>)]>;

/// The server.
pub struct Announce {
    config: Arc<Config>,
    interval: Duration,
    unix_offset_nanos: u64,
    phase: Phase,
    inputs: Inputs,
    lan: Lan,
    plan: Plan,
    claims: BTreeMap<Key, Claim>,
    /// Hardware addresses of other nodes, and when they last advertised.
    peers: BTreeMap<(IfIndex, MacAddr), Time>,
    releases: Vec<Release>,
    budget: FrameBudget,
    next_advertisement: Time,
    next_alive: Time,
    /// The last promise; None while nothing is held.
    alive_until: Option<Time>,
    next_claim: Time,
    /// Whether anything is advertised or waited for.
    beats: bool,
    /// What is published may have changed.
    dirty: bool,
    sent: Sent,
    leases: BTreeMap<NamespacedName, LeaseState>,
    /// Policies that had a bad-interface-regex condition, which is False from then on (L2-04).
    once_bad: BTreeSet<ObjectKey>,
    ignored: BTreeMap<Ignored, u64>,
}

// === impl Announce ===

impl Announce {
    /// A server for `config.node`. `unix_offset_nanos` is what to add to the loop's clock to get
    /// nanoseconds since 1970 (`io::clock::unix_offset_nanos`), for the times in Leases.
    pub fn new(config: Arc<Config>, unix_offset_nanos: u64) -> Self {
        // The wire has centiseconds, and nobody wants a storm by a slip of the pen.
        let interval = config.advert_interval.clamp(Duration::from_millis(10), vrrp::MAX_INTERVAL);
        Self {
            config,
            interval,
            unix_offset_nanos,
            phase: Phase::Gathering(None),
            inputs: Inputs::default(),
            lan: Lan::default(),
            plan: Plan::default(),
            claims: BTreeMap::new(),
            peers: BTreeMap::new(),
            releases: Vec::new(),
            budget: FrameBudget::default(),
            next_advertisement: Time::ZERO,
            next_alive: Time::ZERO,
            alive_until: None,
            next_claim: Time::MAX,
            beats: false,
            dirty: false,
            sent: Sent::default(),
            leases: BTreeMap::new(),
            once_bad: BTreeSet::new(),
            ignored: BTreeMap::new(),
        }
    }

    /// How often what came from the LAN had no effect, by reason.
    pub const fn ignored(&self) -> &BTreeMap<Ignored, u64> {
        &self.ignored
    }

    fn ignore(&mut self, why: Ignored) {
        *self.ignored.entry(why).or_default() += 1;
    }

    /// Takes a new input into account.
    fn input_changed(&mut self, now: Time, out: &mut Outbox<Message>) {
        if let Phase::Gathering(until) = self.phase {
            let inputs = &self.inputs;
            if inputs.objects.is_none() || inputs.interfaces.is_none() {
                return;
            }
            let complete = inputs.assignments.is_some() && inputs.endpoints.is_some();
            if !complete && until.is_none_or(|until| now < until) {
                let until = until.unwrap_or(now + timing::INPUT_GRACE);
                self.phase = Phase::Gathering(Some(until));
                return;
            }
            self.phase = Phase::Running;
        }
        if self.phase == Phase::Running {
            self.replan(now, out);
        }
    }

    fn replan(&mut self, now: Time, out: &mut Outbox<Message>) {
        let (Some(objects), Some(interfaces)) = (&self.inputs.objects, &self.inputs.interfaces)
        else {
            return;
        };
        let (assignments, endpoints) = (Assignments::default(), Endpoints::default());
        let old = std::mem::replace(&mut self.lan, Lan::new(&self.config, interfaces));
        self.plan = plan::plan(&Given {
            config: &self.config,
            objects,
            assignments: self.inputs.assignments.as_deref().unwrap_or(&assignments),
            endpoints: self.inputs.endpoints.as_deref().unwrap_or(&endpoints),
            lan: &self.lan,
            unhooked: &self.inputs.unhooked,
        });
        self.dirty = true;
        self.listen(out);
        self.reconcile_claims(now);
        // Hosts remember the hardware address that an interface had before.
        for ((index, _), claim) in &mut self.claims {
            if old.get(*index).map(|it| it.mac) != self.lan.get(*index).map(|it| it.mac) {
                claim.told = None;
            }
        }
        self.after(now, out);
    }

    /// Makes claims for new pairs, ends those that are gone, and adapts the others.
    fn reconcile_claims(&mut self, now: Time) {
        let gone: Vec<Key> =
            self.claims.keys().filter(|key| !self.plan.pairs.contains_key(key)).copied().collect();
        for key in gone {
            self.release(now, &[key]);
            self.claims.remove(&key);
        }
        let mut lost = Vec::new();
        for (&key, pair) in &self.plan.pairs {
            let source = self.lan.get(key.0).and_then(|interface| interface.source(key.1));
            // Without a source the pair is not eligible, and the source is not used.
            let own = source.unwrap_or(key.1);
            let fresh = || {
                let mut claim = Claim::new(now, self.interval, pair.priority, own);
                claim.eligible = pair.eligible;
                claim.vrid = pair.vrid;
                claim
            };
            let claim = self.claims.entry(key).or_insert_with(fresh);
            if claim.eligible && !pair.eligible && claim.advertises() {
                lost.push(key);
            }
        }
        self.release(now, &lost);
        for (&key, pair) in &self.plan.pairs {
            let Some(claim) = self.claims.get_mut(&key) else { continue };
            let source = self.lan.get(key.0).and_then(|interface| interface.source(key.1));
            claim.adapt(now, self.interval, pair, source.unwrap_or(key.1));
        }
    }

    /// Moves on everything that is due.
    fn run(&mut self, now: Time, out: &mut Outbox<Message>) {
        if let Phase::Gathering(Some(until)) = self.phase
            && until <= now
        {
            self.input_changed(now, out);
        }
        if self.phase == Phase::Running {
            self.resume_if_stopped(now);
            let mut urgent = BTreeSet::new();
            for (&key, claim) in &mut self.claims {
                if claim.deadline() <= now && claim.advance(now) {
                    self.dirty = true;
                    if claim.advertises() {
                        urgent.insert(election::router(key, claim));
                    }
                }
            }
            self.advertise(now, &urgent, out);
        }
        self.send_releases(now, out);
        self.after(now, out);
    }

    /// What follows every call: publish, announce, keep the hooks alive, and plan the next call.
    fn after(&mut self, now: Time, out: &mut Outbox<Message>) {
        if self.phase == Phase::Running {
            self.publish(now, out);
            self.send_frames(now, out);
            self.keep_alive(now, out);
        }
        self.next_claim = self.claims.values().map(Claim::deadline).min().unwrap_or(Time::MAX);
        // Also a node that only waits wakes regularly: it must notice that it stood still before it takes
        // over from a holder whose advertisements it has not read.
        let beats = self.claims.values().any(|it| it.advertises() || it.is_waiting());
        if beats && !self.beats {
            // The last beat is long past, and nothing was late.
            self.next_advertisement = self.next_advertisement.max(now);
        }
        self.beats = beats;
    }

    fn keep_alive(&mut self, now: Time, out: &mut Outbox<Message>) {
        if !self.claims.values().any(Claim::answers) {
            self.alive_until = None;
        } else if self.alive_until.is_none() || self.next_alive <= now {
            let until = now + timing::alive_for(self.interval);
            self.alive_until = Some(until);
            self.next_alive = now + self.interval / 2;
            out.send(wiring::BPF, Message::Alive(until));
        }
    }

    /// After a stop of the whole process (a debugger, a hypervisor, an overloaded machine) the hooks
    /// have fallen silent, others may have taken over, and their advertisements wait unread. Nothing is
    /// answered or taken before they have been listened to.
    fn resume_if_stopped(&mut self, now: Time) {
        let silenced = self.alive_until.is_some_and(|until| until <= now);
        let late = self.timeout().map_or(Duration::ZERO, |due| now.since(due));
        if !silenced && late < self.interval {
            return;
        }
        log::warn!("this agent stood still for {late:?} and listens before it announces again");
        let listened = now + timing::resume_after(self.interval);
        if silenced {
            self.alive_until = None;
            self.dirty = true;
        }
        for claim in self.claims.values_mut() {
            let take_at = listened + timing::skew(self.interval, claim.priority);
            match claim.state {
                State::Backup { take_at: planned } => {
                    claim.state = State::Backup { take_at: planned.max(take_at) };
                }
                State::Holder | State::Conflict { .. } if silenced => claim.fall_silent(take_at),
                State::Holder | State::Conflict { .. } => {}
            }
            claim.preempt_at = claim.preempt_at.max(now + timing::PREEMPT_AFTER);
        }
        self.next_claim = self.next_claim.max(now);
        self.next_advertisement = self.next_advertisement.max(now);
    }

    fn listen(&mut self, out: &mut Outbox<Message>) {
        let mut list: BTreeMap<IfIndex, Vec<IpAddr>> = BTreeMap::new();
        for interface in self.lan.list.iter().filter(|it| it.up && it.by_default) {
            list.entry(interface.index).or_default();
        }
        for (&(index, address), _) in self.plan.pairs.iter().filter(|(_, pair)| pair.eligible) {
            let groups = list.entry(index).or_default();
            if address.is_ipv6() {
                groups.push(address);
            }
        }
        let list: Listen = list.into_iter().collect();
        if self.sent.listen.as_ref() != Some(&list) {
            out.send(wiring::LAN, Message::Listen(Arc::clone(&list)));
            self.sent.listen = Some(list);
        }
    }

    fn shut_down(&mut self, now: Time, out: &mut Outbox<Message>) {
        if matches!(self.phase, Phase::Leaving | Phase::Released) {
            return;
        }
        let held: Vec<Key> = self.claims.keys().copied().collect();
        self.release(now, &held);
        for claim in self.claims.values_mut() {
            claim.eligible = false;
            claim.fall_silent(Time::MAX);
        }
        self.dirty = true;
        if self.phase == Phase::Running {
            self.publish(now, out);
        }
        self.phase = Phase::Leaving;
        self.send_releases(now, out);
        self.next_claim = Time::MAX;
    }
}

impl Claim {
    /// Follows a change of the configuration.
    fn adapt(&mut self, now: Time, interval: Duration, pair: &plan::Pair, own: IpAddr) {
        if (self.vrid, self.priority) != (pair.vrid, pair.priority) {
            self.preempt_at = now + timing::PREEMPT_AFTER;
        }
        self.vrid = pair.vrid;
        self.priority = pair.priority;
        self.own = own;
        match (self.eligible, pair.eligible) {
            (true, false) => {
                self.fall_silent(now + timing::dead_after(interval));
            }
            (false, true) => {
                let shown = self.shown;
                let rival = self.rival;
                let verified = self.verified && rival.is_some();
                *self = Self {
                    rival,
                    verified,
                    shown,
                    vrid: pair.vrid,
                    ..Self::new(now, interval, pair.priority, own)
                };
            }
            _ => {}
        }
        self.eligible = pair.eligible;
    }
}

impl Server<Message> for Announce {
    fn start(&mut self, now: Time, _out: &mut Outbox<Message>) {
        self.next_advertisement = now;
    }

    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        // Mail from before a stop of the process must not be judged as if we still held anything.
        if self.phase == Phase::Running {
            self.resume_if_stopped(now);
        }
        match message {
            Message::Objects(objects) => {
                self.inputs.objects = Some(objects);
                self.input_changed(now, out);
            }
            Message::Assignments(assignments) => {
                self.inputs.assignments = Some(assignments);
                self.input_changed(now, out);
            }
            Message::Endpoints(endpoints) => {
                self.inputs.endpoints = Some(endpoints);
                self.input_changed(now, out);
            }
            Message::Interfaces(interfaces) => {
                self.inputs.interfaces = Some(interfaces);
                self.input_changed(now, out);
            }
            Message::Programmed(programmed) if programmed.unhooked != self.inputs.unhooked => {
                self.inputs.unhooked = programmed.unhooked.clone();
                self.input_changed(now, out);
            }
            Message::Vrrp(index, mac, source, ttl, payload) => {
                self.on_vrrp(now, (index, mac, source), ttl, &payload, out);
            }
            Message::Frame(index, frame) => self.on_frame(now, index, &frame, out),
            Message::Shutdown => self.shut_down(now, out),
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        let releases = self.releases.iter().map(|release| release.next).min();
        let phase = match self.phase {
            Phase::Gathering(until) => until,
            Phase::Running => {
                let regular =
                    self.beats.then(|| self.next_advertisement.min(self.next_alive_time()));
                let claims = (self.next_claim != Time::MAX).then_some(self.next_claim);
                [regular, claims].into_iter().flatten().min()
            }
            Phase::Leaving | Phase::Released => None,
        };
        [releases, phase].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.run(now, out);
    }

    fn peer_restarted(&mut self, now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        let sent = &self.sent;
        let message = match peer {
            wiring::DATAPATH => sent.answers.clone().map(Message::Answers),
            wiring::ADMIN => sent.announcements.clone().map(Message::Announcements),
            wiring::STORE => sent.statuses.clone().map(Message::Statuses),
            wiring::LAN => sent.listen.clone().map(Message::Listen),
            wiring::BPF => self.alive_until.filter(|until| now < *until).map(Message::Alive),
            wiring::SIGNAL => (self.phase == Phase::Released).then_some(Message::Released),
            _ => None,
        };
        if let Some(message) = message {
            out.send(peer, message);
        }
    }
}

impl Announce {
    fn next_alive_time(&self) -> Time {
        if self.alive_until.is_some() { self.next_alive } else { Time::MAX }
    }

    /// Whether the claim waits for probes or a verdict, for the reports.
    fn is_conflict(claim: &Claim) -> bool {
        matches!(claim.state, State::Conflict { .. })
    }
}
