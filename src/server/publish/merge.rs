//! What an object's status must be, and what it is → the patch that makes it so, or nothing.
//!
//! Three rules: a condition whose truth has not changed keeps the time of its transition (also the one another node wrote);
//! what other controllers say about the same object (entries of `parents`, conditions of other kinds) stays; and what
//! would change nothing is not written.
use crate::api::class::{CILIUM_GATEWAY_CONTROLLER, GATEWAY_CONTROLLER};
use crate::proto::value::{Data, Value};

/// What to do with conditions that are there and not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Others {
    /// All conditions of the object are ours.
    AreOurs,
    /// Ours begin with one of these.
    ButThesePrefixes(&'static [&'static str]),
}

/// The merge patch (RFC 7396) of `status`; None if `seen` is as wanted.
pub(super) fn patch(seen: &Value, wanted: Value, others: Others) -> Option<Value> {
    let mut wanted = wanted;
    for list in ["parents", "ancestors"] {
        if wanted.get(list).is_some() || seen.get(list).is_some() {
            let merged = parents(items(seen, list), items(&wanted, list));
            wanted.set(list, merged);
        }
    }
    if wanted.get("listeners").is_some() {
        let before = items(seen, "listeners");
        for listener in wanted.entry("listeners").items_mut() {
            let same = |old: &&Value| old.get("name").map(plain) == listener.get("name").map(plain);
            if let Some(old) = before.iter().find(same) {
                keep_times(old, listener);
            }
        }
    }
    if let Others::ButThesePrefixes(ours) = others {
        keep_foreign(seen, &mut wanted, ours);
    }
    keep_times(seen, &mut wanted);
    let mut patch = Value::map();
    for member in wanted.members() {
        let old = seen.get(&member.key);
        if old.is_none_or(|old| !equal(old, &member.value)) {
            patch.set(&member.key, replacing(old, &member.value));
        }
    }
    if others == Others::AreOurs {
        for member in seen.members() {
            if wanted.get(&member.key).is_none() {
                patch.set(&member.key, Value::new(Data::Null));
            }
        }
    }
    (!patch.members().is_empty()).then_some(patch)
}

/// What makes `new` of `old`: members of a map that a merge patch does not name stay as they are.
fn replacing(old: Option<&Value>, new: &Value) -> Value {
    let (Some(old), Data::Map(members)) = (old, &new.data) else { return new.clone() };
    let mut patch = Value::map();
    for member in members {
        patch.set(&member.key, replacing(old.get(&member.key), &member.value));
    }
    for member in old.members().iter().filter(|member| new.get(&member.key).is_none()) {
        patch.set(&member.key, Value::new(Data::Null));
    }
    patch
}

fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).map_or(&[], Value::items)
}

fn plain(value: &Value) -> String {
    value.plain()
}

/// Entries of other controllers as they are, ours in the order in which they are wanted, in the places of ours before.
fn parents(seen: &[Value], wanted: &[Value]) -> Vec<Value> {
    let is_ours = |entry: &Value| {
        let controller = entry.get("controllerName").and_then(Value::as_str);
        controller.is_some_and(|it| [GATEWAY_CONTROLLER, CILIUM_GATEWAY_CONTROLLER].contains(&it))
    };
    let mut ours = wanted.iter();
    let mut merged = Vec::with_capacity(seen.len() + wanted.len());
    for entry in seen {
        if !is_ours(entry) {
            merged.push(entry.clone());
        } else if let Some(next) = ours.next() {
            merged.push(next.clone());
        }
    }
    merged.extend(ours.cloned());
    let reference = |entry: &Value| {
        entry
            .get("parentRef")
            .or_else(|| entry.get("ancestorRef"))
            .cloned()
            .unwrap_or_else(Value::map)
    };
    for entry in &mut merged {
        let of = reference(entry);
        let same = |old: &&Value| is_ours(old) && equal(&reference(old), &of);
        if is_ours(entry)
            && let Some(old) = seen.iter().find(same)
        {
            keep_times(old, entry);
        }
    }
    merged
}

/// Conditions of the same truth keep the time at which they got it.
fn keep_times(seen: &Value, wanted: &mut Value) {
    let Some(conditions) = wanted.get_mut("conditions") else { return };
    let before = items(seen, "conditions");
    for condition in conditions.items_mut() {
        let same = |old: &&Value| {
            ["type", "status"]
                .iter()
                .all(|key| old.get(key).map(plain) == condition.get(key).map(plain))
        };
        if let Some(time) = before.iter().find(same).and_then(|old| old.get("lastTransitionTime")) {
            condition.set("lastTransitionTime", time.clone());
        }
    }
}

/// Conditions that do not begin with one of `prefixes` are somebody else's.
fn keep_foreign(seen: &Value, wanted: &mut Value, prefixes: &[&str]) {
    let is_ours = |condition: &Value| {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        prefixes.iter().any(|prefix| kind.starts_with(prefix))
    };
    let foreign: Vec<Value> =
        items(seen, "conditions").iter().filter(|it| !is_ours(it)).cloned().collect();
    let ours = items(wanted, "conditions").to_vec();
    let had = seen.get("conditions").is_some();
    if had || !ours.is_empty() {
        let mut all = foreign;
        all.extend(ours);
        wanted.set("conditions", all);
    }
}

/// Whether two values say the same, whatever the order of their members.
fn equal(left: &Value, right: &Value) -> bool {
    match (&left.data, &right.data) {
        (Data::Map(a), Data::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|member| right.get(&member.key).is_some_and(|it| equal(&member.value, it)))
        }
        (Data::List(a), Data::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::value::{parse_json, to_json_compact};

    fn patched(seen: &str, wanted: &str, others: Others) -> Option<String> {
        let [seen, wanted] = [seen, wanted].map(|text| parse_json(text).unwrap());
        patch(&seen, wanted, others).map(|mut patch| {
            patch.sort();
            to_json_compact(&patch)
        })
    }

    fn condition(kind: &str, status: &str, time: u8) -> String {
        format!(r#"{{"type":"{kind}","status":"{status}","lastTransitionTime":"{time}"}}"#)
    }

    #[test]
    fn what_is_as_wanted_is_not_written_again_whatever_its_time() {
        let status = |time| format!(r#"{{"conditions":[{}]}}"#, condition("A", "True", time));
        assert_eq!(patched(&status(1), &status(2), Others::AreOurs), None);
        let other = format!(r#"{{"conditions":[{}]}}"#, condition("A", "False", 2));
        assert!(patched(&status(1), &other, Others::AreOurs).unwrap().contains("\"2\""));
        // A new condition; the old one keeps its time.
        let two = format!(
            r#"{{"conditions":[{},{}]}}"#,
            condition("A", "True", 2),
            condition("B", "True", 2)
        );
        let patch = patched(&status(1), &two, Others::AreOurs).unwrap();
        assert!(
            patch.contains(r#"{"lastTransitionTime":"1","status":"True","type":"A"}"#),
            "{patch}"
        );
        assert_eq!(patched("{}", "{}", Others::AreOurs), None);
        let gone = patched(r#"{"addresses":[1]}"#, "{}", Others::AreOurs);
        assert_eq!(gone.as_deref(), Some(r#"{"addresses":null}"#));
        let seen = r#"{"loadBalancer":{"ingress":[{"ip":"10.0.0.1"}]}}"#;
        let gone = patched(seen, r#"{"loadBalancer":{}}"#, Others::AreOurs);
        assert_eq!(gone.as_deref(), Some(r#"{"loadBalancer":{"ingress":null}}"#));
    }

    #[test]
    fn what_others_say_of_a_route_stays() {
        let entry = |who: &str, name: &str, time: u8| {
            format!(
                r#"{{"controllerName":"{who}","parentRef":{{"name":"{name}"}},"conditions":[{}]}}"#,
                condition("Accepted", "True", time)
            )
        };
        let list = |entries: &[String]| format!(r#"{{"parents":[{}]}}"#, entries.join(","));
        let seen = list(&[entry("other", "x", 1), entry("pilus.dev/gateway-controller", "g", 1)]);
        assert_eq!(
            patched(
                &seen,
                &list(&[entry("pilus.dev/gateway-controller", "g", 5)]),
                Others::AreOurs
            ),
            None
        );
        let moved = patched(
            &seen,
            &list(&[entry("pilus.dev/gateway-controller", "h", 5)]),
            Others::AreOurs,
        )
        .unwrap();
        assert!(
            moved.contains(r#""other""#) && moved.contains(r#""h""#) && !moved.contains(r#""g""#)
        );
        // Ours are gone, the other's stay.
        let empty = patched(&seen, r#"{"parents":[]}"#, Others::AreOurs).unwrap();
        assert!(empty.contains(r#""other""#) && !empty.contains("pilus.dev/"), "{empty}");
        let only_other = list(&[entry("other", "x", 1)]);
        assert_eq!(patched(&only_other, r#"{"parents":[]}"#, Others::AreOurs), None);
    }

    #[test]
    fn conditions_of_others_on_a_service_stay() {
        let seen =
            format!(r#"{{"conditions":[{}],"loadBalancer":{{}}}}"#, condition("theirs", "True", 1));
        let wanted = format!(
            r#"{{"conditions":[{}],"loadBalancer":{{"ingress":[{{"ip":"a"}}]}}}}"#,
            condition("cilium.io/x", "True", 2)
        );
        let others = Others::ButThesePrefixes(&["cilium.io/", "pilus.dev/"]);
        let patch = patched(&seen, &wanted, others).unwrap();
        assert!(
            patch.contains("theirs") && patch.contains("cilium.io/x") && patch.contains("ingress")
        );
        assert_eq!(patched(&seen, r#"{"loadBalancer":{}}"#, others), None);
    }

    #[test]
    fn listeners_keep_their_times_by_name() {
        let listener = |name: &str, time| {
            format!(
                r#"{{"name":"{name}","conditions":[{}]}}"#,
                condition("Programmed", "True", time)
            )
        };
        let seen = format!(r#"{{"listeners":[{},{}]}}"#, listener("a", 1), listener("b", 2));
        let wanted = format!(r#"{{"listeners":[{},{}]}}"#, listener("a", 9), listener("b", 9));
        assert_eq!(patched(&seen, &wanted, Others::AreOurs), None);
        let fewer = format!(r#"{{"listeners":[{}]}}"#, listener("b", 9));
        let patch = patched(&seen, &fewer, Others::AreOurs).unwrap();
        assert!(patch.contains(r#""lastTransitionTime":"2""#), "{patch}");
    }
}
