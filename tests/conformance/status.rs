//! Whether an object's status says what a scenario wants.
use pilus::proto::value::Value;

use crate::language::StatusLine;

const CONTROLLER: &str = "pilus.dev/gateway-controller";

/// What is not as wanted; empty if all is.
pub(crate) fn differences(object: &Value, wanted: &StatusLine) -> Vec<String> {
    let mut wrong = stale(object);
    let conditions = match place(object, wanted) {
        Ok(place) => place,
        // "parents=0" and the like need no place.
        Err(_) if wanted.parent.is_none() && wanted.wanted.iter().all(|it| it.contains("s=0")) => {
            object
        }
        Err(message) => return vec![message],
    };
    for token in &wanted.wanted {
        if let Some(message) = difference(object, conditions, token) {
            wrong.push(message);
        }
    }
    wrong
}

/// The part of the status that has the conditions.
fn place<'v>(object: &'v Value, wanted: &StatusLine) -> Result<&'v Value, String> {
    let all =
        |path: &str| object.items_at(path).iter().map(Value::plain).collect::<Vec<_>>().join("\n");
    if let Some(listener) = &wanted.listener {
        let mut listeners = object.items_at("status.listeners").iter();
        return listeners
            .find(|it| it.text_at("name") == listener)
            .ok_or_else(|| format!("no listener {listener}: {}", all("status.listeners")));
    }
    let (list, reference) = match &*wanted.kind {
        kind if kind.ends_with("Route") => ("status.parents", "parentRef"),
        "BackendTLSPolicy" | "XBackendTrafficPolicy" => ("status.ancestors", "ancestorRef"),
        _ => return object.get("status").ok_or_else(|| "no status".to_owned()),
    };
    let found: Vec<&Value> = object
        .items_at(list)
        .iter()
        .filter(|entry| {
            wanted.parent.as_ref().is_none_or(|parent| is(entry.get(reference), parent))
        })
        .collect();
    let [entry] = found[..] else {
        return Err(format!("{} entries of {list} fit, not one:\n{}", found.len(), all(list)));
    };
    if entry.text_at("controllerName") != CONTROLLER {
        return Err(format!("controllerName is {:?}", entry.text_at("controllerName")));
    }
    let shown = entry.get(reference).ok_or("no reference")?;
    for key in ["group", "kind", "name"] {
        if shown.text_at(key).is_empty() && !(key == "group" && shown.get("group").is_some()) {
            return Err(format!("{reference} lacks {key}: {}", shown.plain()));
        }
    }
    Ok(entry)
}

/// Whether a reference is `[!][NAMESPACE/]NAME[.SECTION][:PORT]`.
fn is(reference: Option<&Value>, text: &str) -> bool {
    let Some(reference) = reference else { return false };
    let (text, kind) = match text.strip_prefix('!') {
        Some(text) => (text, "ListenerSet"),
        None => (text, "Gateway"),
    };
    let (text, port) = text.split_once(':').unwrap_or((text, ""));
    let (text, section) = text.split_once('.').unwrap_or((text, ""));
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    let shown_port = reference.get("port").map(Value::plain).unwrap_or_default();
    reference.text_at("kind") == kind
        && reference.text_at("name") == name
        && reference.text_at("sectionName") == section
        && shown_port == port
        && (namespace.is_empty() || reference.text_at("namespace") == namespace)
}

fn difference(object: &Value, place: &Value, token: &str) -> Option<String> {
    let (key, value) = token.split_once('=').unwrap_or((token, ""));
    let compare = |seen: String| (seen != value).then(|| format!("{key} is {seen}, not {value}"));
    let number = |path: &str| object.at(path).map(Value::plain).unwrap_or_default();
    match key {
        "attached" => compare(place.at("attachedRoutes").map(Value::plain).unwrap_or_default()),
        "kinds" => compare(joined(place.items_at("supportedKinds"), "kind")),
        "sets" => compare(number("status.attachedListenerSets")),
        "parents" => compare(object.items_at("status.parents").len().to_string()),
        "listeners" => compare(object.items_at("status.listeners").len().to_string()),
        "addresses" => compare(object.items_at("status.addresses").len().to_string()),
        "address" => compare(joined(object.items_at("status.addresses"), "value")),
        "address-type" => compare(joined(object.items_at("status.addresses"), "type")),
        "generation" => compare(number("metadata.generation")),
        "features" => {
            let shown = joined(object.items_at("status.supportedFeatures"), "name");
            let missing: Vec<&str> = crate::coverage::features()
                .filter(|name| !shown.split(',').any(|it| it == *name))
                .collect();
            (!missing.is_empty()).then(|| format!("supportedFeatures lacks {missing:?}: {shown}"))
        }
        _ => match key.split_once(':') {
            Some(("label", name)) => compare(member(object, "metadata.labels", name)),
            Some(("annotation", name)) => compare(member(object, "metadata.annotations", name)),
            _ => condition(place, key, value),
        },
    }
}

fn member(object: &Value, path: &str, name: &str) -> String {
    object.at(path).and_then(|all| all.get(name)).map(Value::plain).unwrap_or_default()
}

fn joined(items: &[Value], key: &str) -> String {
    let mut names: Vec<&str> = items.iter().map(|it| it.text_at(key)).collect();
    names.sort_unstable();
    names.join(",")
}

/// `TYPE` is True with the reason of its own name; `-TYPE` is absent or False; `TYPE=STATUS[/REASON]`.
fn condition(place: &Value, key: &str, value: &str) -> Option<String> {
    let find =
        |kind: &str| place.items_at("conditions").iter().find(|it| it.text_at("type") == kind);
    let show = |it: &Value| {
        format!("{}/{} ({})", it.text_at("status"), it.text_at("reason"), it.text_at("message"))
    };
    if let Some(kind) = key.strip_prefix('-') {
        let seen = find(kind)?;
        return (seen.text_at("status") == "True").then(|| format!("{kind} is {}", show(seen)));
    }
    let wanted = if value.is_empty() { format!("True/{key}") } else { value.to_owned() };
    let (status, reason) = wanted.split_once('/').unwrap_or((&wanted, ""));
    let Some(seen) = find(key) else { return Some(format!("{key} is absent, not {wanted}")) };
    // A few situations leave the choice of the reason: A|B.
    let fits = reason.is_empty() || reason.split('|').any(|it| it == seen.text_at("reason"));
    (seen.text_at("status") != status || !fits)
        .then(|| format!("{key} is {}, not {wanted}", show(seen)))
}

/// Conditions that speak of another generation than the object's, or lack a field that Kubernetes requires.
fn stale(object: &Value) -> Vec<String> {
    let generation = object.at("metadata.generation").and_then(Value::as_int);
    let mut places: Vec<&Value> = object.get("status").into_iter().collect();
    for list in ["status.listeners", "status.parents", "status.ancestors"] {
        places.extend(object.items_at(list));
    }
    let conditions = places.iter().flat_map(|place| place.items_at("conditions"));
    // Those of other servers (LB-IPAM's of Services) are older than the field.
    let ours = conditions.filter(|it| !it.text_at("type").contains('/'));
    // The default of an object that no controller has seen.
    let ours = ours.filter(|it| it.text_at("lastTransitionTime") != "1970-01-01T00:00:00Z");
    let mut wrong = Vec::new();
    for condition in ours {
        let observed = condition.get("observedGeneration").and_then(Value::as_int);
        let whole = ["type", "status", "reason", "lastTransitionTime"];
        if observed != generation || whole.iter().any(|key| condition.text_at(key).is_empty()) {
            wrong.push(format!("generation {generation:?}, but {}", condition.plain()));
        }
    }
    wrong
}
