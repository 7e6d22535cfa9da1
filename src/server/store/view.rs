//! What there is to show: statuses and complaints of all servers, merged.
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::api::meta::ObjectKey;
use crate::api::objects::Objects;
use crate::api::problem::Problem;
use crate::api::query::{ShownStatus, View};
use crate::api::status::{ObjectStatus, Statuses};
use crate::kernel::ServerId;

/// How many complaints are kept. More than anyone reads; the first in order are kept.
const MAX_PROBLEMS: usize = 10_000;

/// The merged statuses and complaints, with the times at which they began.
#[derive(Default)]
pub(super) struct Views {
    statuses: Rc<BTreeMap<ObjectKey, ShownStatus>>,
    problems: Rc<Vec<(u64, Problem)>>,
}

// === impl Views ===

impl Views {
    /// Merges everything anew; `unix` (seconds since 1970) becomes the time of what is new. Returns
    /// whether anything changed.
    pub(super) fn update(
        &mut self,
        statuses: &BTreeMap<ServerId, Rc<Statuses>>,
        refused: &[Problem],
        unix: u64,
    ) -> bool {
        let mut shown = BTreeMap::<ObjectKey, ShownStatus>::new();
        for (key, status) in statuses.values().flat_map(|statuses| &statuses.by_object) {
            let before = self.statuses.get(key);
            add(shown.entry(key.clone()).or_default(), status, before, unix);
        }
        let problems = self.problems(statuses, refused, unix);
        let changed = shown != *self.statuses || problems != *self.problems;
        if changed {
            self.statuses = Rc::new(shown);
            self.problems = Rc::new(problems);
        }
        changed
    }

    pub(super) fn view(&self, objects: Rc<Objects>) -> View {
        View { objects, statuses: Rc::clone(&self.statuses), problems: Rc::clone(&self.problems) }
    }

    fn problems(
        &self,
        statuses: &BTreeMap<ServerId, Rc<Statuses>>,
        refused: &[Problem],
        unix: u64,
    ) -> Vec<(u64, Problem)> {
        let all = statuses.values().flat_map(|statuses| &statuses.problems);
        let mut problems: Vec<&Problem> = all.chain(refused).collect();
        problems.sort();
        problems.dedup();
        problems.truncate(MAX_PROBLEMS);
        let since = |problem: &Problem| {
            let known = self.problems.binary_search_by(|(_, known)| known.cmp(problem));
            known.map_or(unix, |at| self.problems[at].0)
        };
        problems.into_iter().map(|problem| (since(problem), problem.clone())).collect()
    }
}

/// Adds one server's word about an object. Who speaks first about the address is heard.
fn add(shown: &mut ShownStatus, status: &ObjectStatus, before: Option<&ShownStatus>, unix: u64) {
    for condition in &status.conditions {
        let known = before.and_then(|before| {
            let mut old = before.conditions.iter();
            old.find(|(old, _)| old.kind == condition.kind && old.status == condition.status)
        });
        shown.conditions.push((condition.clone(), known.map_or(unix, |(_, since)| *since)));
    }
    if shown.load_balancer.is_none() {
        shown.load_balancer.clone_from(&status.load_balancer);
    }
    if shown.ports.is_empty() {
        shown.ports.clone_from(&status.ports);
    }
}
