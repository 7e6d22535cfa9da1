//! Complaints about objects → Events, each said once.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::api::cluster::{ServedVersions, Verb};
use crate::api::meta::{ObjectKey, Str};
use crate::api::problem::{Problem, Severity};
use crate::kube_lite::event::Event;

/// How many are said in an hour, as long as an Event lives; more than this nobody reads.
const MAX_SAID: usize = 4096;

/// What was said, and what is to be said.
#[derive(Default)]
pub(super) struct Events {
    /// The hour since 1970 that `said` is about.
    hour: u64,
    said: BTreeSet<u64>,
    /// What has not been written yet, or not been answered.
    waiting: BTreeMap<u64, Problem>,
}

// === impl Events ===

impl Events {
    /// Takes in all complaints; the numbers of those that are to be said.
    pub(super) fn of(&mut self, problems: &[(u64, Problem)], unix: u64) -> Vec<u64> {
        let mut new = Vec::new();
        let hour = unix / 3600;
        if hour != self.hour {
            self.hour = hour;
            self.said.clear();
        }
        for (_, problem) in problems.iter().filter(|(_, problem)| problem.object.is_some()) {
            // Again each hour, as long as it is true, for Events are forgotten.
            let mut hasher = DefaultHasher::new();
            (&problem.object, &problem.field, &problem.message, hour).hash(&mut hasher);
            let id = hasher.finish();
            if self.said.len() < MAX_SAID && self.said.insert(id) {
                self.waiting.insert(id, problem.clone());
                new.push(id);
            }
        }
        new
    }

    /// The Event `id` was written, or never will be.
    pub(super) fn done(&mut self, id: u64) {
        self.waiting.remove(&id);
    }

    /// The write of the Event `id`; None if its object is not there any more.
    pub(super) fn write(
        &self,
        id: u64,
        uid: &dyn Fn(&ObjectKey) -> Option<Str>,
        versions: &ServedVersions,
        node: &str,
        unix: u64,
    ) -> Option<(Verb, String, String)> {
        let problem = self.waiting.get(&id)?;
        let key = problem.object.as_ref()?;
        let uid = uid(key)?;
        let message = match &*problem.field {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        };
        let is_error = problem.severity == Severity::Error;
        let event = Event {
            api_version: versions.get(&key.kind)?,
            kind: key.kind.as_str(),
            namespace: &key.name.namespace,
            name: &key.name.name,
            uid: &uid,
            warning: true,
            reason: if is_error { "Refused" } else { "Doubtful" },
            message: &message,
            component: "pilus",
            host: node,
        };
        let (path, body) = event.write(unix);
        Some((Verb::Create, path, body))
    }
}
