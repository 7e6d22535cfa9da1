//! What the agents have found out and made, to the API server: statuses, Services and Leases, Events.
//!
//! One of the agents writes: the holder of a Lease. What is written is always the difference between what is wanted and
//! what the API server was last seen to have, so that a stable cluster is written to by nobody, and a new writer repeats
//! nothing. A write that fails is computed anew later, from what is true then.
//!
//! In: `View` from the store, `Served`, `SeenObjects` and `WriterLease` from the kube server, `Written` from the cluster
//! driver. Out: `Write` to the driver, `Statuses` (complaints about writes) to the store.
mod event;
mod merge;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use merge::patch;

use crate::api::cluster::{
    ClusterWrite, ClusterWritten, Seen, SeenObjects, ServedVersions, Verb, WriteId,
};
use crate::api::config::Config;
use crate::api::meta::{Kind, ObjectKey, Str};
use crate::api::problem::{Problem, Severity};
use crate::api::query::View;
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Server, ServerId, Time};
use crate::kube_lite::json::Json;
use crate::kube_lite::lease::{Election, Terms, Write};
use crate::proto::value::{Value, parse_json, to_json_compact};

/// The writer renews its Lease every 10 s, which is a tenth of the requests that two nodes may make in all, and is replaced
/// half a minute after it fell silent: nothing but what people see of statuses waits for it.
const TERMS: Terms = Terms {
    duration: Duration::from_secs(30),
    renew: Duration::from_secs(10),
    deadline: Duration::from_secs(25),
};
/// Writes under way at once.
const MAX_WRITES: usize = 4;
/// What has failed is tried again after this, if nothing else changes before.
const AGAIN: Duration = Duration::from_secs(2);
/// What is not allowed, or not there, is tried again after this: somebody has to do something first.
const LATER: Duration = Duration::from_secs(30);
/// A new writer deletes nothing, and takes no address back, before this: it may not have computed everything yet.
const SETTLE: Duration = Duration::from_secs(10);
/// A new writer writes nothing before this: an agent that has just started listens first to what the others use, and
/// until then addresses that are in use all the while are tentative to it.
pub const LISTEN: Duration = Duration::from_secs(1);
/// How often the same is written to one object within [`LATER`].
const MAX_REPEATS: u32 = 5;
/// What is wrong for a moment, while objects that belong together arrive, is no Event.
const STANDING: Duration = Duration::from_secs(1);
/// Changes of a moment are written together.
const GATHER: Duration = Duration::from_millis(20);

/// Something that is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// The writer's Lease.
    Election,
    /// An object that the agents make.
    Made(ObjectKey),
    /// The status of an object.
    Status(ObjectKey),
    /// An Event: its place in `events`.
    Event(u64),
}

/// The server; see the module.
pub struct Publish {
    config: Arc<Config>,
    unix_at_zero: Duration,
    election: Election,
    leading_since: Option<Time>,
    view: Arc<View>,
    has_view: bool,
    versions: ServedVersions,
    seen: BTreeMap<ObjectKey, Arc<Seen>>,
    /// What may have to be written.
    dirty: BTreeSet<Target>,
    /// What was last taken from there.
    last: Option<Target>,
    gathering: Option<Time>,
    /// Not to be tried before.
    waiting: BTreeMap<Target, Time>,
    writing: BTreeMap<WriteId, Target>,
    /// The last patch of each status: its hash, since when it is written again and again, and how often.
    patched: BTreeMap<ObjectKey, (u64, Time, u32)>,
    next_id: WriteId,
    events: event::Events,
    /// Why writes fail, by kind.
    refusals: BTreeMap<Kind, String>,
}

// === impl Publish ===

impl Publish {
    /// A server that knows nothing yet; `unix_at_zero` is what the clock of the day showed at [`Time::ZERO`].
    pub fn new(config: Arc<Config>, unix_at_zero: Duration) -> Self {
        let lease = config.writer_lease();
        let election = Election::new(&lease.namespace, &lease.name, &config.node, TERMS);
        Self {
            config,
            unix_at_zero,
            election,
            leading_since: None,
            view: Arc::default(),
            has_view: false,
            versions: ServedVersions::default(),
            seen: BTreeMap::new(),
            dirty: BTreeSet::new(),
            last: None,
            gathering: None,
            waiting: BTreeMap::new(),
            writing: BTreeMap::new(),
            patched: BTreeMap::new(),
            next_id: 1,
            events: event::Events::default(),
            refusals: BTreeMap::new(),
        }
    }

    fn unix(&self, now: Time) -> Duration {
        self.unix_at_zero + now.since(Time::ZERO)
    }

    fn leads(&self, now: Time) -> bool {
        self.election.leads(now.since(Time::ZERO))
    }

    fn touch(&mut self, now: Time, target: Target) {
        if self.leading_since.is_some() {
            // What was put off long stays so.
            if self.waiting.get(&target).is_some_and(|at| *at > now + AGAIN) {
                return;
            }
            self.waiting.remove(&target);
            self.dirty.insert(target);
            self.gathering.get_or_insert(now + GATHER);
        }
    }

    /// Another view: what differs from the one before may have to be written.
    fn look(&mut self, now: Time, view: Arc<View>) {
        let before = std::mem::replace(&mut self.view, view);
        self.has_view = true;
        if self.leading_since.is_none() {
            return;
        }
        let view = Arc::clone(&self.view);
        if !Arc::ptr_eq(&before.statuses, &view.statuses) {
            for (key, status) in view.statuses.iter() {
                if before.statuses.get(key) != Some(status) {
                    self.touch(now, Target::Status(key.clone()));
                }
            }
            for key in before.statuses.keys().filter(|key| !view.statuses.contains_key(key)) {
                self.touch(now, Target::Status(key.clone()));
            }
        }
        for key in wanted::made_differently(&before.objects, &view.objects) {
            self.touch(now, Target::Made(key));
        }
        self.tell_events(now);
    }

    fn tell_events(&mut self, now: Time) {
        if self.leading_since.is_none() {
            return;
        }
        let unix = self.unix(now).as_secs();
        let seen = &self.seen;
        let uid = |key: &ObjectKey| seen.get(key).map(|seen| Str::clone(&seen.uid));
        for id in self.events.of(&self.view.problems, &uid, unix) {
            let target = Target::Event(id);
            if !self.dirty.contains(&target) {
                self.waiting.entry(target).or_insert(now + STANDING);
            }
        }
    }

    fn saw(&mut self, now: Time, objects: &SeenObjects) {
        let mut another = false;
        for (key, seen) in objects.iter() {
            if seen.is_none() {
                self.patched.remove(key);
            }
            let before = match seen {
                Some(seen) => self.seen.insert(key.clone(), Arc::clone(seen)),
                None => self.seen.remove(key),
            };
            another |= before.map(|before| Str::clone(&before.uid))
                != seen.as_ref().map(|it| Str::clone(&it.uid));
            self.touch(now, Target::Status(key.clone()));
            if seen.as_ref().is_none_or(|seen| seen.applied.is_some()) {
                self.touch(now, Target::Made(key.clone()));
            }
        }
        if another {
            self.tell_events(now);
        }
    }

    /// Everything may have to be written: this agent is the writer now.
    fn begin(&mut self, now: Time) {
        log::info!("this node writes to the API server now");
        self.leading_since = Some(now);
        self.gathering = Some(now + LISTEN);
        self.touch_all(now);
    }

    fn touch_all(&mut self, now: Time) {
        let keys: Vec<ObjectKey> =
            self.seen.keys().chain(self.view.statuses.keys()).cloned().collect();
        keys.into_iter().for_each(|key| self.touch(now, Target::Status(key)));
        let view = Arc::clone(&self.view);
        for key in wanted::made_differently(&Arc::default(), &view.objects) {
            self.touch(now, Target::Made(key));
        }
        let managed = self.seen.iter().filter(|(_, seen)| seen.applied.is_some());
        let managed: Vec<ObjectKey> = managed.map(|(key, _)| key.clone()).collect();
        managed.into_iter().for_each(|key| self.touch(now, Target::Made(key)));
        self.tell_events(now);
    }

    fn end(&mut self) {
        log::info!("{} writes to the API server now", self.election.holder());
        self.leading_since = None;
        self.dirty.clear();
        self.waiting.clear();
        self.events = event::Events::default();
        self.gathering = None;
    }

    fn write_next(&mut self, now: Time, out: &mut Outbox<Message>) {
        if self.leading_since.is_none_or(|since| now < since + LISTEN) {
            return;
        }
        self.gathering = None;
        let due: Vec<Target> =
            self.waiting.iter().filter(|(_, at)| **at <= now).map(|(it, _)| it.clone()).collect();
        for target in due {
            self.waiting.remove(&target);
            self.dirty.insert(target);
        }
        while self.writing.len() < MAX_WRITES
            && let Some(target) = self.next_dirty()
        {
            // What is under way is seen when it is done.
            if self.writing.values().any(|writing| *writing == target) {
                self.waiting.insert(target, now + AGAIN);
                continue;
            }
            if let Some((verb, path, body)) = self.difference(now, &target) {
                self.send(target, (verb, path, body), out);
            }
        }
    }

    /// Takes out what is written next: of Events one at a time, for they come in hundreds; of the others the one that
    /// follows the last in their order. From the first each time, those that change all the time would keep the rest
    /// from being written at all.
    fn next_dirty(&mut self) -> Option<Target> {
        let is_event = |target: &&Target| matches!(target, Target::Event(_));
        let target = match self.dirty.last().filter(is_event) {
            Some(event) if !self.writing.values().any(|it| is_event(&it)) => event.clone(),
            _ => {
                let after = |last| (Bound::Excluded(last), Bound::Unbounded);
                let next = self.last.take().and_then(|last| self.dirty.range(after(last)).next());
                let next = next.filter(|it| !is_event(it)).or_else(|| self.dirty.first());
                let next = next.filter(|it| !is_event(it))?.clone();
                self.last = Some(next.clone());
                next
            }
        };
        self.dirty.remove(&target);
        Some(target)
    }

    fn send(&mut self, target: Target, write: (Verb, String, String), out: &mut Outbox<Message>) {
        let (verb, path, body) = write;
        let id = self.next_id;
        self.next_id += 1;
        self.writing.insert(id, target);
        let write = ClusterWrite { id, verb, path: path.into(), body: body.into() };
        out.send(wiring::CLUSTER, Message::Write(Arc::new(write)));
    }

    /// The write that makes `target` as it is wanted, if it is not.
    fn difference(&mut self, now: Time, target: &Target) -> Option<(Verb, String, String)> {
        match target {
            Target::Election => None,
            Target::Status(key) => self.status_difference(now, key),
            Target::Made(key) => self.made_difference(now, key),
            Target::Event(id) => {
                let unix = self.unix(now).as_secs();
                let seen = &self.seen;
                let uid = |key: &ObjectKey| seen.get(key).map(|seen| Str::clone(&seen.uid));
                let node = &self.config.node;
                self.events.write(*id, &uid, &self.versions, node, unix)
            }
        }
    }

    fn status_difference(&mut self, now: Time, key: &ObjectKey) -> Option<(Verb, String, String)> {
        let seen = self.seen.get(key)?;
        let (wanted, others) = wanted::status(key, self.view.statuses.get(key), seen)?;
        let before = match &*seen.status {
            "" => Value::map(),
            text => parse_json(text).ok()?,
        };
        if wanted::takes_back(key.kind, &before, &wanted) && !self.is_settled(now) {
            self.waiting.insert(Target::Status(key.clone()), now + SETTLE);
            return None;
        }
        let patch = patch(&before, wanted, others)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(to_json_compact(&patch).as_bytes());
        // The same once more: somebody undoes it, and two who never give up are a storm.
        let hash = hasher.finish();
        let last = self.patched.entry(key.clone()).or_insert((hash, now, 0));
        if last.0 != hash || now >= last.1 + LATER {
            *last = (hash, now, 0);
        }
        last.2 += 1;
        if last.2 > MAX_REPEATS {
            let until = last.1 + LATER;
            self.waiting.insert(Target::Status(key.clone()), until);
            return None;
        }
        let path = wanted::path(key, &self.versions)? + "/status?fieldManager=pilus";
        let metadata = Value::map().with("resourceVersion", &*seen.version);
        let body = Value::map().with("metadata", metadata).with("status", patch);
        Some((Verb::Merge, path, to_json_compact(&body)))
    }

    /// Whether what is not wanted is so because nobody wants it any more.
    fn is_settled(&self, now: Time) -> bool {
        self.has_view && self.leading_since.is_some_and(|since| now >= since + SETTLE)
    }

    fn made_difference(&mut self, now: Time, key: &ObjectKey) -> Option<(Verb, String, String)> {
        let seen = self.seen.get(key);
        let path = wanted::path(key, &self.versions)?;
        let Some((body, hash)) = wanted::made(key, &self.view.objects) else {
            seen?.applied.as_ref()?;
            if !self.is_settled(now) {
                self.waiting.insert(Target::Made(key.clone()), now + SETTLE);
                return None;
            }
            return Some((Verb::Delete, path, String::new()));
        };
        match seen {
            // Somebody else's object has the name; the store has complained.
            Some(seen) if seen.applied.is_none() => None,
            Some(seen) if seen.applied.as_deref() == Some(&*hash) => None,
            _ => Some((Verb::Apply, path + "?fieldManager=pilus&force=true", body)),
        }
    }

    fn written(&mut self, now: Time, written: &ClusterWritten, out: &mut Outbox<Message>) {
        let Some(target) = self.writing.remove(&written.id) else { return };
        if target == Target::Election {
            let lease = written.outcome.as_ref().ok().and_then(|text| Json::check(text));
            self.election.written(lease, now.since(Time::ZERO));
            if let Err((code, message)) = &written.outcome
                && *code != 409
            {
                self.refuse(
                    Kind::Lease,
                    format!("the writer's Lease cannot be written: {message}"),
                    out,
                );
            } else {
                self.allow(Kind::Lease, out);
            }
            return;
        }
        let kind = match &target {
            Target::Made(key) | Target::Status(key) => key.kind,
            Target::Event(_) | Target::Election => Kind::Lease,
        };
        match &written.outcome {
            Ok(_) => self.allow(kind, out),
            Err((code, message)) => {
                match code {
                    0 | 429 | 500.. if let Target::Event(id) = target => {
                        self.events.again(id);
                        self.tell_events(now);
                    }
                    // It was said before, or it cannot be said there.
                    _ if matches!(target, Target::Event(_)) => {}
                    // Gone or changed meanwhile, and what is seen next decides; or the server has no time.
                    0 | 404 | 409 | 429 | 500.. => {
                        self.waiting.insert(target, now + AGAIN);
                    }
                    _ => {
                        let what = match &target {
                            Target::Status(key) => format!("the status of {key}"),
                            Target::Made(key) => key.to_string(),
                            Target::Event(_) | Target::Election => "an Event".to_owned(),
                        };
                        let text = format!("{what} cannot be written: {message}");
                        self.waiting.insert(target, now + LATER);
                        self.refuse(kind, text, out);
                    }
                }
            }
        }
    }

    fn refuse(&mut self, kind: Kind, text: String, out: &mut Outbox<Message>) {
        if self.refusals.get(&kind) != Some(&text) {
            self.refusals.insert(kind, text);
            self.complain(out);
        }
    }

    fn allow(&mut self, kind: Kind, out: &mut Outbox<Message>) {
        if self.refusals.remove(&kind).is_some() {
            self.complain(out);
        }
    }

    fn complain(&self, out: &mut Outbox<Message>) {
        let problem = |message: &String| Problem {
            position: None,
            object: None,
            field: String::new(),
            message: message.clone(),
            severity: Severity::Error,
        };
        let problems = self.refusals.values().map(problem).collect();
        let statuses = Statuses { problems, ..Statuses::default() };
        out.send(wiring::STORE, Message::Statuses(Arc::new(statuses)));
    }

    fn vote(&mut self, now: Time, out: &mut Outbox<Message>) {
        let lease = self.config.writer_lease();
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", lease.namespace);
        match self.election.tick(now.since(Time::ZERO), self.unix(now)) {
            Some(Write::Create(body)) => {
                self.send(Target::Election, (Verb::Create, path, body), out)
            }
            Some(Write::Replace(body)) => {
                let path = format!("{path}/{}", lease.name);
                self.send(Target::Election, (Verb::Replace, path, body), out);
            }
            None => {}
        }
        match (self.leads(now), self.leading_since) {
            (true, None) => self.begin(now),
            (false, Some(_)) => self.end(),
            _ => {}
        }
    }
}

impl Server<Message> for Publish {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::View(view) => self.look(now, view),
            Message::Served(versions) => {
                self.versions = versions;
                self.touch_all(now);
            }
            Message::SeenObjects(objects) => self.saw(now, &objects),
            Message::WriterLease(lease) => {
                let lease = lease.as_deref().and_then(Json::check);
                self.election.observe(lease, now.since(Time::ZERO));
                self.vote(now, out);
            }
            Message::Written(written) => {
                self.written(now, &written, out);
                self.vote(now, out);
                self.write_next(now, out);
            }
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        let election = self.election.timeout().map(|due| Time::ZERO + due);
        // A holder that cannot write steps down in time.
        let down = self.leading_since.map(|since| since + TERMS.renew);
        let waiting = self.waiting.values().min().copied();
        let free = self.writing.len() < MAX_WRITES;
        let gathered = self.gathering.filter(|_| free && !self.dirty.is_empty());
        [election, down.filter(|_| election.is_none()), waiting.filter(|_| free), gathered]
            .into_iter()
            .flatten()
            .min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.vote(now, out);
        self.write_next(now, out);
    }

    fn peer_restarted(&mut self, now: Time, peer: ServerId, _out: &mut Outbox<Message>) {
        if peer == wiring::CLUSTER {
            // What was under way is lost.
            for target in std::mem::take(&mut self.writing).into_values() {
                if target == Target::Election {
                    self.election.written(None, now.since(Time::ZERO));
                } else if let Target::Event(id) = target {
                    self.events.again(id);
                } else {
                    self.touch(now, target);
                }
            }
            self.tell_events(now);
        }
    }
}

#[cfg(test)]
mod tests;
