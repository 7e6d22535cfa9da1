//! `status` of the kinds of Gateway API, as Kubernetes shows it.
use super::moment::rfc3339;
use crate::api::meta::Kind;
use crate::api::object::gateway_route::ParentRef;
use crate::api::query::{Nested, ShownGateway, ShownStatus};
use crate::api::status::Condition;
use crate::proto::value::Value;

const GROUP: &str = "gateway.networking.k8s.io";

/// The status of an object of `kind`; None if nobody has said anything and the API server would not either.
pub(super) fn status(kind: Kind, shown: Option<&ShownStatus>, generation: u64) -> Option<Value> {
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
pub(super) fn conditions(all: &[(Condition, u64)], generation: u64) -> Value {
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
