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
    said: BTreeSet<u64>,
    /// True at present, and not said.
    standing: BTreeMap<u64, Problem>,
}

/// Names an object's uid, if the object is there.
type Uid<'a> = &'a dyn Fn(&ObjectKey) -> Option<Str>;

// === impl Events ===

impl Events {
    /// Takes in all complaints; the numbers of those that are to be said. An object that was deleted and made again is
    /// another one.
    pub(super) fn of(&mut self, problems: &[(u64, Problem)], uid: Uid<'_>, unix: u64) -> Vec<u64> {
        self.standing.clear();
        let mut current = BTreeSet::new();
        for (_, problem) in problems {
            let Some(uid) = problem.object.as_ref().and_then(uid) else { continue };
            // Again each hour, as long as it is true, for Events are forgotten.
            let mut hasher = DefaultHasher::new();
            (&problem.object, uid, &problem.field, &problem.message, unix / 3600).hash(&mut hasher);
            let id = hasher.finish();
            current.insert(id);
            if !self.said.contains(&id) {
                self.standing.insert(id, problem.clone());
            }
        }
        if self.said.len() >= MAX_SAID {
            self.said.retain(|id| current.contains(id));
        }
        let room = MAX_SAID.saturating_sub(self.said.len());
        self.standing.keys().take(room).copied().collect()
    }

    /// The Event `id` could not be written, and should be.
    pub(super) fn again(&mut self, id: u64) {
        self.said.remove(&id);
    }

    /// The write of the Event `id`; None if that is not true any more.
    pub(super) fn write(
        &mut self,
        id: u64,
        uid: Uid<'_>,
        versions: &ServedVersions,
        node: &str,
        unix: u64,
    ) -> Option<(Verb, String, String)> {
        if self.said.len() >= MAX_SAID {
            return None;
        }
        let problem = self.standing.remove(&id)?;
        self.said.insert(id);
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
