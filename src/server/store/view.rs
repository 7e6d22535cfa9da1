//! What there is to show: statuses and complaints of all servers, merged.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::meta::ObjectKey;
use crate::api::objects::Objects;
use crate::api::problem::Problem;
use crate::api::query::{Nested, ShownGateway, ShownStatus, View};
use crate::api::status::{Condition, GatewayApiStatus, ObjectStatus, Statuses};
use crate::arrange::Arrange;
use crate::kernel::ServerId;

/// How many complaints are kept. More than anyone reads; the first in order are kept.
const MAX_PROBLEMS: usize = 10_000;

/// The merged statuses and complaints, with the times at which they began.
#[derive(Default)]
pub(super) struct Views {
    statuses: Arc<BTreeMap<ObjectKey, ShownStatus>>,
    problems: Arc<Vec<(u64, Problem)>>,
}

// === impl Views ===

impl Views {
    /// Merges everything anew; `unix` (seconds since 1970) becomes the time of what is new. Returns
    /// whether anything changed.
    pub(super) fn update(
        &mut self,
        statuses: &BTreeMap<ServerId, Arc<Statuses>>,
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
            self.statuses = Arc::new(shown);
            self.problems = Arc::new(problems);
        }
        changed
    }

    pub(super) fn view(&self, objects: Arc<Objects>) -> View {
        View { objects, statuses: Arc::clone(&self.statuses), problems: Arc::clone(&self.problems) }
    }

    fn problems(
        &self,
        statuses: &BTreeMap<ServerId, Arc<Statuses>>,
        refused: &[Problem],
        unix: u64,
    ) -> Vec<(u64, Problem)> {
        let all = statuses.values().flat_map(|statuses| &statuses.problems);
        let mut problems: Vec<&Problem> = all.chain(refused).collect();
        problems.arrange();
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
    if let (None, Some(gateway)) = (&shown.gateway, &status.gateway) {
        let before = before.and_then(|before| before.gateway.as_ref());
        shown.gateway = Some(add_gateway(gateway, before, unix));
    }
}

/// Nested conditions keep their times as long as their entry (a listener by name, a parent by reference and
/// controller) has them with the same status.
fn add_gateway(
    status: &Arc<GatewayApiStatus>,
    before: Option<&ShownGateway>,
    unix: u64,
) -> ShownGateway {
    let mut transitions = Vec::new();
    let mut add = |conditions: &[Condition], known: Option<(Nested, &[Condition])>| {
        transitions.extend(conditions.iter().map(|condition| {
            let same =
                |old: &Condition| old.kind == condition.kind && old.status == condition.status;
            let since = known.and_then(|(entry, old)| Some((entry, old.iter().position(same)?)));
            match (since, before) {
                (Some((entry, at)), Some(before)) => before.since(entry, at),
                _ => unix,
            }
        }));
    };
    for listener in &status.listeners {
        let old = before.map_or(&[][..], |before| &before.status.listeners);
        let known = old.iter().position(|old| old.name == listener.name);
        add(&listener.conditions, known.map(|at| (Nested::Listener(at), &old[at].conditions[..])));
    }
    for parent in &status.parents {
        let old = before.map_or(&[][..], |before| &before.status.parents);
        let known = old
            .iter()
            .position(|old| old.parent == parent.parent && old.controller == parent.controller);
        add(&parent.conditions, known.map(|at| (Nested::Parent(at), &old[at].conditions[..])));
    }
    ShownGateway { status: Arc::clone(status), transitions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::meta::{Kind, NamespacedName, Str};
    use crate::api::object::gateway_route::ParentRef;
    use crate::api::status::{ListenerStatus, ParentStatus, Truth};
    use crate::api::wiring;

    fn condition(kind: &'static str, status: Truth) -> Condition {
        Condition { kind, status, reason: "R".into(), message: String::new() }
    }

    fn listener(name: &str, conditions: Vec<Condition>) -> ListenerStatus {
        let name = name.into();
        ListenerStatus { name, supported_kinds: vec!["HTTPRoute"], attached_routes: 0, conditions }
    }

    fn parent(section: &str, conditions: Vec<Condition>) -> ParentStatus {
        let parent = ParentRef { section: Some(section.into()), ..ParentRef::default() };
        ParentStatus { parent, controller: "c".into(), conditions }
    }

    fn told(
        views: &mut Views,
        listeners: Vec<ListenerStatus>,
        parents: Vec<ParentStatus>,
        unix: u64,
    ) -> (bool, Vec<u64>) {
        let gateway = GatewayApiStatus { listeners, parents, ..GatewayApiStatus::default() };
        let status = ObjectStatus { gateway: Some(Arc::new(gateway)), ..ObjectStatus::default() };
        let key = ObjectKey { kind: Kind::Gateway, name: NamespacedName::new("a", "g") };
        let by_object = BTreeMap::from([(key.clone(), status)]);
        let statuses = Statuses { by_object, ..Statuses::default() };
        let all = BTreeMap::from([(wiring::ROUTE, Arc::new(statuses))]);
        let changed = views.update(&all, &[], unix);
        (changed, views.statuses[&key].gateway.as_ref().unwrap().transitions.clone())
    }

    #[test]
    fn nested_conditions_keep_their_times_by_entry_and_type() {
        let mut views = Views::default();
        let yes = |kind| condition(kind, Truth::True);
        let no = |kind| condition(kind, Truth::False);
        let first = vec![listener("a", vec![yes("A"), no("P")]), listener("b", vec![yes("A")])];
        let parents = vec![parent("x", vec![yes("A")]), parent("y", vec![yes("A"), yes("R")])];
        let (changed, times) = told(&mut views, first.clone(), parents.clone(), 10);
        assert!(changed);
        assert_eq!(times, [10; 6]);
        // The same again is no news.
        assert_eq!(told(&mut views, first, parents, 20), (false, vec![10; 6]));
        // Entries have moved, conditions as well; P has become true, b is new by another name.
        let second = vec![listener("c", vec![yes("A")]), listener("a", vec![yes("P"), yes("A")])];
        let parents = vec![parent("y", vec![no("R"), yes("A")]), parent("z", vec![yes("A")])];
        let (changed, times) = told(&mut views, second, parents, 30);
        assert!(changed);
        assert_eq!(times, [30, 30, 10, 30, 10, 30]);
        // A reason or a message is no transition.
        let reworded = Condition { message: "m".to_owned(), ..yes("A") };
        let third = vec![listener("a", vec![Condition { reason: Str::from("S"), ..reworded }])];
        assert_eq!(told(&mut views, third, Vec::new(), 40), (true, vec![10]));
    }
}
