//! `status` of the kinds of Gateway API, as Kubernetes shows it.
use crate::api::meta::Kind;
use crate::api::object::gateway_route::ParentRef;
use crate::api::query::{Nested, ShownGateway, ShownStatus};
use crate::api::status::Condition;
use crate::proto::calendar::rfc3339;
use crate::proto::value::Value;

const GROUP: &str = "gateway.networking.k8s.io";

/// The status of an object of `kind`; None if nobody has said anything and the API server would not either.
pub fn gateway_status(kind: Kind, shown: Option<&ShownStatus>, generation: u64) -> Option<Value> {
    let Some(shown) = shown else { return waiting(kind) };
    let Some(gateway) = &shown.gateway else {
        return (!shown.conditions.is_empty())
            .then(|| Value::map().with("conditions", conditions(&shown.conditions, generation)));
    };
    let observed = match gateway.status.observed_generation {
        0 => generation,
        observed => observed,
    };
    let mut status = Value::map();
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            status.set("parents", parents(gateway, "parentRef", observed));
            return Some(status);
        }
        Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy => {
            status.set("ancestors", parents(gateway, "ancestorRef", observed));
            return Some(status);
        }
        Kind::GatewayClass => {
            let features = gateway.status.supported_features.iter();
            let features = features.map(|name| Value::map().with("name", *name));
            status.set("supportedFeatures", features.collect::<Vec<_>>());
        }
        Kind::Gateway => {
            let addresses: Vec<Value> =
                gateway.status.addresses.iter().map(|(kind, value)| typed(kind, value)).collect();
            if !addresses.is_empty() {
                status.set("addresses", addresses);
            }
            if let Some(count) = gateway.status.attached_listener_sets {
                status.set("attachedListenerSets", count);
            }
            status.set("listeners", listeners(gateway, observed));
        }
        Kind::ListenerSet => status.set("listeners", listeners(gateway, observed)),
        _ => {}
    }
    if !shown.conditions.is_empty() {
        status.set("conditions", conditions(&shown.conditions, observed));
    }
    (!status.members().is_empty()).then_some(status)
}

fn typed(kind: &str, value: &str) -> Value {
    Value::map().with("type", kind).with("value", value)
}

/// What the API server writes for want of a controller.
fn waiting(kind: Kind) -> Option<Value> {
    let kinds: &[&str] = match kind {
        Kind::GatewayClass => &["Accepted"],
        Kind::Gateway | Kind::ListenerSet => &["Accepted", "Programmed"],
        _ => return None,
    };
    let condition = |kind: &&str| {
        Value::map()
            .with("type", *kind)
            .with("status", "Unknown")
            .with("reason", "Pending")
            .with("message", "Waiting for controller")
            .with("lastTransitionTime", rfc3339(0))
    };
    Some(Value::map().with("conditions", kinds.iter().map(condition).collect::<Vec<_>>()))
}

/// `conditions[]`; a generation of 0 is not shown.
pub fn conditions(all: &[(Condition, u64)], generation: u64) -> Value {
    let all = all.iter().map(|(it, since)| condition(it, *since, generation));
    all.collect::<Vec<_>>().into()
}

fn condition(condition: &Condition, since: u64, generation: u64) -> Value {
    let json = Value::map()
        .with("type", condition.kind)
        .with("status", condition.status.as_str())
        .with("reason", &*condition.reason)
        .with("message", condition.message.as_str())
        .with("lastTransitionTime", rfc3339(since));
    if generation > 0 { json.with("observedGeneration", generation) } else { json }
}

/// The conditions of one listener or parent.
fn nested(
    gateway: &ShownGateway,
    entry: Nested,
    conditions: &[Condition],
    generation: u64,
) -> Value {
    let each = |(at, it): (usize, &Condition)| condition(it, gateway.since(entry, at), generation);
    conditions.iter().enumerate().map(each).collect::<Vec<_>>().into()
}

fn listeners(gateway: &ShownGateway, generation: u64) -> Value {
    let listener = |(at, it): (usize, &crate::api::status::ListenerStatus)| {
        let kinds = it.supported_kinds.iter();
        let kinds = kinds.map(|kind| Value::map().with("group", GROUP).with("kind", *kind));
        Value::map()
            .with("name", &*it.name)
            .with("attachedRoutes", it.attached_routes)
            .with("supportedKinds", kinds.collect::<Vec<_>>())
            .with("conditions", nested(gateway, Nested::Listener(at), &it.conditions, generation))
    };
    gateway.status.listeners.iter().enumerate().map(listener).collect::<Vec<_>>().into()
}

fn parents(gateway: &ShownGateway, key: &str, generation: u64) -> Value {
    let parent = |(at, it): (usize, &crate::api::status::ParentStatus)| {
        Value::map()
            .with(key, parent_ref(&it.parent))
            .with("controllerName", &*it.controller)
            .with("conditions", nested(gateway, Nested::Parent(at), &it.conditions, generation))
    };
    gateway.status.parents.iter().enumerate().map(parent).collect::<Vec<_>>().into()
}

fn parent_ref(parent: &ParentRef) -> Value {
    Value::map()
        .with("group", &*parent.object.group)
        .with("kind", &*parent.object.kind)
        .with_some("namespace", parent.object.namespace.as_deref())
        .with("name", &*parent.object.name)
        .with_some("sectionName", parent.section.as_deref())
        .with_some("port", parent.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::meta::Str;
    use crate::api::object::gateway::ObjectRef;
    use crate::api::status::{GatewayApiStatus, ListenerStatus, ParentStatus, Truth};
    use crate::proto::value::to_json_compact;
    use std::sync::Arc;

    fn condition(kind: &'static str, status: Truth, reason: &str) -> Condition {
        Condition { kind, status, reason: reason.into(), message: String::new() }
    }

    fn parent(section: Option<&str>) -> ParentStatus {
        let object = ObjectRef {
            group: GROUP.into(),
            kind: "Gateway".into(),
            namespace: section.map(|_| "infra".into()),
            name: "g".into(),
        };
        ParentStatus {
            parent: ParentRef {
                object,
                section: section.map(Str::from),
                port: section.map(|_| 80),
            },
            controller: "a.b/c".into(),
            conditions: vec![condition("Accepted", Truth::False, "NoMatchingParent")],
        }
    }

    fn json(kind: Kind, status: GatewayApiStatus, transitions: Vec<u64>) -> String {
        let accepted = (condition("Accepted", Truth::True, "Accepted"), 60);
        let gateway = Some(ShownGateway { status: Arc::new(status), transitions });
        let shown = ShownStatus { conditions: vec![accepted], gateway, ..ShownStatus::default() };
        let mut status = gateway_status(kind, Some(&shown), 9).unwrap();
        status.sort();
        to_json_compact(&status)
    }

    #[test]
    fn a_gateway_has_addresses_listeners_and_conditions() {
        let listener = |name: &str, kinds: &[&'static str]| ListenerStatus {
            name: name.into(),
            supported_kinds: kinds.to_vec(),
            attached_routes: 3,
            conditions: vec![condition("Programmed", Truth::Unknown, "Pending")],
        };
        let status = GatewayApiStatus {
            observed_generation: 4,
            addresses: vec![("IPAddress".into(), "192.0.2.1".into())],
            listeners: vec![listener("a", &["HTTPRoute"]), listener("b", &[])],
            attached_listener_sets: Some(2),
            ..GatewayApiStatus::default()
        };
        let programmed = |at: &str| {
            format!(
                r#"[{{"lastTransitionTime":"{at}","message":"","observedGeneration":4,"reason":"Pending","status":"Unknown","type":"Programmed"}}]"#
            )
        };
        let accepted = r#"[{"lastTransitionTime":"1970-01-01T00:01:00Z","message":"","observedGeneration":4,"reason":"Accepted","status":"True","type":"Accepted"}]"#;
        let (first, second) =
            (programmed("1970-01-01T00:00:01Z"), programmed("1970-01-01T00:00:02Z"));
        assert_eq!(
            json(Kind::Gateway, status.clone(), vec![1, 2]),
            format!(
                r#"{{"addresses":[{{"type":"IPAddress","value":"192.0.2.1"}}],"attachedListenerSets":2,"conditions":{accepted},"listeners":[{{"attachedRoutes":3,"conditions":{first},"name":"a","supportedKinds":[{{"group":"gateway.networking.k8s.io","kind":"HTTPRoute"}}]}},{{"attachedRoutes":3,"conditions":{second},"name":"b","supportedKinds":[]}}]}}"#
            )
        );
        let status = GatewayApiStatus { listeners: Vec::new(), ..status };
        assert_eq!(
            json(Kind::ListenerSet, status, Vec::new()),
            format!(r#"{{"conditions":{accepted},"listeners":[]}}"#)
        );
    }

    #[test]
    fn routes_have_parents_and_policies_ancestors() {
        let status = GatewayApiStatus {
            observed_generation: 2,
            parents: vec![parent(None), parent(Some("s"))],
            ..GatewayApiStatus::default()
        };
        let entry = |at: u8, key: &str, rest: &str| {
            format!(
                r#""conditions":[{{"lastTransitionTime":"1970-01-01T00:00:0{at}Z","message":"","observedGeneration":2,"reason":"NoMatchingParent","status":"False","type":"Accepted"}}],"controllerName":"a.b/c","{key}":{{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"g"{rest}}}"#
            )
        };
        let more = r#","namespace":"infra","port":80,"sectionName":"s""#;
        let both = [entry(5, "parentRef", ""), entry(6, "parentRef", more)];
        assert_eq!(
            json(Kind::TlsRoute, status.clone(), vec![5, 6]),
            format!(r#"{{"parents":[{{{}}},{{{}}}]}}"#, both[0], both[1])
        );
        // The members of a policy's entry are in another order, for they are sorted by name.
        let policy = json(Kind::BackendTlsPolicy, status, vec![5, 6]);
        let start = r#"{"ancestors":[{"ancestorRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"g"},"conditions":["#;
        assert!(policy.starts_with(start), "{policy}");
        let none = GatewayApiStatus::default();
        assert_eq!(json(Kind::HttpRoute, none, Vec::new()), r#"{"parents":[]}"#);
    }

    #[test]
    fn a_class_has_features_and_what_nobody_claims_waits() {
        let status = GatewayApiStatus {
            supported_features: vec!["Gateway", "HTTPRoute"],
            ..GatewayApiStatus::default()
        };
        let class = json(Kind::GatewayClass, status, Vec::new());
        let end = r#","supportedFeatures":[{"name":"Gateway"},{"name":"HTTPRoute"}]}"#;
        assert!(class.ends_with(end) && class.contains(r#""observedGeneration":9"#), "{class}");
        let mut waiting = gateway_status(Kind::Gateway, None, 1).unwrap();
        waiting.sort();
        let pending = |kind: &str| {
            format!(
                r#"{{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller","reason":"Pending","status":"Unknown","type":"{kind}"}}"#
            )
        };
        let wanted =
            format!(r#"{{"conditions":[{},{}]}}"#, pending("Accepted"), pending("Programmed"));
        assert_eq!(to_json_compact(&waiting), wanted);
        assert!(gateway_status(Kind::HttpRoute, None, 1).is_none());
        assert!(gateway_status(Kind::ReferenceGrant, None, 1).is_none());
    }
}
