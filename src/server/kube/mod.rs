//! The objects of a Kubernetes API server: what it says in, one snapshot of all objects out.
//!
//! Nothing is sent on before every kind was read once: half of the objects would be a configuration that nobody wrote.
//! From then on each batch becomes one snapshot, in which kinds and objects that did not change keep their [`Arc`]. While
//! the API server is away everything stays as it was. An object that this version cannot take is left out, or its last
//! good version kept where there is one, and its complaint names it.
//!
//! In: `Facts` from the cluster driver. Out: `FactsTaken` to it, `Source` and `Statuses` to the store, `Served` and
//! `WriterLease` to the publish server.
mod seen;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::address::Generation;
use crate::api::cluster::{Fact, Seen, ServedVersions, WATCHED};
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Str};
use crate::api::objects::Objects;
use crate::api::problem::{Problem, Severity};
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::arrange::{Arrange, Gather};
use crate::kernel::{Outbox, Server, ServerId, Time};
use crate::proto::object::{Decoded, Object, Outcome, decode_served};

/// One object.
#[derive(Debug, Default)]
struct Entry {
    /// None: it is broken, and there is no version from before.
    object: Option<Object>,
    problems: Vec<Problem>,
}

/// The objects of one kind.
#[derive(Debug, Default)]
struct Collection {
    entries: BTreeMap<NamespacedName, Entry>,
    /// `GROUP/VERSION`, once it is known; why there is none.
    version: Option<Result<Str, Str>>,
    /// A list is being read: what it has named so far.
    listed: Option<BTreeSet<NamespacedName>>,
    /// It was read once.
    is_known: bool,
    trouble: Option<Str>,
}

/// The server; see the module.
#[derive(Debug, Default)]
pub struct Kube {
    kinds: BTreeMap<Kind, Collection>,
    objects: Option<Arc<Objects>>,
    problems: Vec<Problem>,
    versions: ServedVersions,
    lease: Option<Option<Str>>,
    /// What the API server has of objects that are written to, and what of it has changed in this batch.
    seen: BTreeMap<ObjectKey, Arc<Seen>>,
    seen_changed: BTreeSet<ObjectKey>,
    /// What stands in the way of the writer's Lease.
    lease_trouble: Option<Str>,
}

// === impl Kube ===

impl Kube {
    /// A server that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one fact in; returns whether objects of the kind are others now.
    fn take(&mut self, fact: &Fact) -> Option<Kind> {
        match fact {
            Fact::Listing(kind) => {
                self.kinds.entry(*kind).or_default().listed = Some(BTreeSet::new());
                None
            }
            Fact::Put(kind, text) => {
                if let Some((name, seen)) = seen::of(*kind, text) {
                    self.see(ObjectKey { kind: *kind, name }, seen);
                }
                self.put(*kind, text).then_some(*kind)
            }
            Fact::Gone(kind, name) => {
                self.see(ObjectKey { kind: *kind, name: name.clone() }, None);
                let collection = self.kinds.entry(*kind).or_default();
                collection.entries.remove(name).is_some().then_some(*kind)
            }
            Fact::Complete(kind) => {
                let collection = self.kinds.entry(*kind).or_default();
                let listed = collection.listed.take().unwrap_or_default();
                let before = collection.entries.len();
                let known = self.seen.keys().filter(|key| key.kind == *kind);
                let gone: Vec<ObjectKey> =
                    known.filter(|key| !listed.contains(&key.name)).cloned().collect();
                collection.entries.retain(|name, _| listed.contains(name));
                let is_first = !std::mem::replace(&mut collection.is_known, true);
                let changed = is_first || collection.entries.len() < before;
                gone.into_iter().for_each(|key| self.see(key, None));
                changed.then_some(*kind)
            }
            Fact::Served(kind, version) => {
                self.kinds.entry(*kind).or_default().version = Some(version.clone());
                None
            }
            Fact::Trouble(Kind::Lease, trouble) => {
                self.lease_trouble.clone_from(trouble);
                None
            }
            Fact::Trouble(kind, trouble) => {
                self.kinds.entry(*kind).or_default().trouble.clone_from(trouble);
                None
            }
            Fact::Lease(lease) => {
                self.lease_trouble = None;
                self.lease = Some(lease.clone());
                None
            }
        }
    }

    /// Notes what the API server has of an object that is written to.
    fn see(&mut self, key: ObjectKey, seen: Option<Seen>) {
        if let Some(listed) = self.kinds.get_mut(&key.kind).and_then(|it| it.listed.as_mut())
            && seen.is_some()
        {
            listed.insert(key.name.clone());
        }
        let changed = match seen {
            Some(seen) if self.seen.get(&key).is_some_and(|known| **known == seen) => false,
            Some(seen) => {
                self.seen.insert(key.clone(), Arc::new(seen));
                true
            }
            None => self.seen.remove(&key).is_some(),
        };
        if changed {
            self.seen_changed.insert(key);
        }
    }

    fn publish_seen(&mut self, keys: BTreeSet<ObjectKey>, out: &mut Outbox<Message>) {
        if !keys.is_empty() {
            let state = |key: ObjectKey| {
                let seen = self.seen.get(&key).map(Arc::clone);
                (key, seen)
            };
            out.send(wiring::PUBLISH, Message::SeenObjects(keys.into_iter().map(state).collect()));
        }
    }

    fn put(&mut self, kind: Kind, text: &str) -> bool {
        let collection = self.kinds.entry(kind).or_default();
        let Some(Ok(version)) = &collection.version else { return false };
        let Ok(Decoded { outcome, problems, .. }) = decode_served(kind, version, text) else {
            return false;
        };
        let (name, object) = match outcome {
            Outcome::Decoded(key, object) => (key.name, Some(object)),
            Outcome::Broken(Some(key)) => (key.name, None),
            // Nothing without a name is served.
            Outcome::Broken(None) | Outcome::Skipped(_) => return false,
        };
        if let Some(listed) = &mut collection.listed {
            listed.insert(name.clone());
        }
        let object = object.filter(table::is_wanted);
        if object.is_none() && problems.is_empty() {
            return collection.entries.remove(&name).is_some();
        }
        let entry = collection.entries.entry(name).or_default();
        entry.problems = problems;
        match (object, &entry.object) {
            (Some(new), Some(old)) if new == *old => false,
            (Some(new), _) => {
                entry.object = Some(new);
                true
            }
            (None, Some(_)) => {
                for problem in &mut entry.problems {
                    if problem.severity == Severity::Error {
                        problem.message.push_str("; its last good version stays in effect");
                    }
                }
                false
            }
            (None, None) => false,
        }
    }

    /// Whether each kind was read, or is known not to be there.
    fn is_complete(&self) -> bool {
        WATCHED.iter().all(|watched| {
            self.kinds.get(&watched.kind).is_some_and(|collection| {
                collection.is_known || matches!(collection.version, Some(Err(_)))
            })
        })
    }

    /// All complaints: those about objects, about kinds that cannot be read, and about what is not served though another
    /// kind of its group is.
    fn complaints(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        for watched in &WATCHED {
            let Some(collection) = self.kinds.get(&watched.kind) else { continue };
            problems.extend(collection.entries.values().flat_map(|e| e.problems.iter().cloned()));
            if let Some(trouble) = &collection.trouble {
                let what = format!("{} cannot be read: {trouble}", watched.plural);
                problems.push(complaint(what, Severity::Error));
            }
            if let Some(Err(why)) = &collection.version
                && !watched.group.starts_with("gateway.networking.x-")
            {
                problems.push(complaint(why.to_string(), Severity::Warning));
            }
        }
        if let Some(trouble) = &self.lease_trouble {
            let what =
                format!("the Lease of the writer cannot be read, nothing is written: {trouble}");
            problems.push(complaint(what, Severity::Error));
        }
        problems.arrange();
        problems.dedup();
        problems
    }

    fn publish_objects(&mut self, changed: &BTreeSet<Kind>, out: &mut Outbox<Message>) {
        if !self.is_complete() || self.objects.is_some() && changed.is_empty() {
            return;
        }
        let mut objects = self.objects.as_deref().cloned().unwrap_or_default();
        for (kind, collection) in &self.kinds {
            if self.objects.is_none() || changed.contains(kind) {
                table::replace(&mut objects, *kind, collection.entries.values());
            }
        }
        objects.generation = Generation(objects.generation.0 + 1);
        self.objects = Some(Arc::new(objects));
        self.send_objects(out);
    }

    fn publish_versions(&mut self, out: &mut Outbox<Message>) {
        let served = self.kinds.iter().filter_map(|(kind, collection)| {
            let version = collection.version.as_ref()?.as_ref().ok()?;
            Some((*kind, Str::clone(version)))
        });
        let mut versions = BTreeMap::new();
        versions.extend(served);
        if versions != *self.versions {
            self.versions = Arc::new(versions);
            out.send(wiring::PUBLISH, Message::Served(Arc::clone(&self.versions)));
        }
    }

    fn send_objects(&self, out: &mut Outbox<Message>) {
        if let Some(objects) = &self.objects {
            out.send(wiring::STORE, Message::Source(Arc::clone(objects)));
        }
    }

    fn send_problems(&self, out: &mut Outbox<Message>) {
        let statuses = Statuses { problems: self.problems.clone(), ..Statuses::default() };
        out.send(wiring::STORE, Message::Statuses(Arc::new(statuses)));
    }
}

fn complaint(message: String, severity: Severity) -> Problem {
    Problem { position: None, object: None::<ObjectKey>, field: String::new(), message, severity }
}

impl Server<Message> for Kube {
    fn handle(&mut self, _now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        let Message::Facts(facts) = message else { return };
        let lease = self.lease.clone();
        let changed: BTreeSet<Kind> = facts.iter().filter_map(|fact| self.take(fact)).gather();
        out.send(wiring::CLUSTER, Message::FactsTaken);
        self.publish_versions(out);
        let seen = std::mem::take(&mut self.seen_changed);
        self.publish_seen(seen, out);
        self.publish_objects(&changed, out);
        let problems = self.complaints();
        if problems != self.problems {
            self.problems = problems;
            self.send_problems(out);
        }
        if let Some(known) = &self.lease
            && self.lease != lease
        {
            out.send(wiring::PUBLISH, Message::WriterLease(known.clone()));
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if peer == wiring::STORE {
            self.send_objects(out);
            self.send_problems(out);
        }
        if peer == wiring::PUBLISH {
            out.send(wiring::PUBLISH, Message::Served(Arc::clone(&self.versions)));
            self.publish_seen(self.seen.keys().cloned().collect(), out);
            if let Some(lease) = &self.lease {
                out.send(wiring::PUBLISH, Message::WriterLease(lease.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
