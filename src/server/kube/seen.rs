//! What is written to an object, read from its JSON without taking it apart.
use crate::api::cluster::{APPLIED, FIELD_MANAGER, OUR_CONDITIONS, Seen};
use crate::api::meta::{Kind, NamespacedName, Str};
use crate::kube_lite::json::Json;

/// What the API server has of an object; None if nothing is ever written to it. The outer None is no object at all.
pub(super) fn of(kind: Kind, text: &str) -> Option<(NamespacedName, Option<Seen>)> {
    let json = Json::check(text)?;
    let metadata = json.get("metadata")?;
    let field =
        |key: &str| -> Str { metadata.get(key).and_then(Json::string).unwrap_or_default().into() };
    let name = NamespacedName { namespace: field("namespace"), name: field("name") };
    let applied = metadata.at(&["annotations", APPLIED]).and_then(Json::string).map(Str::from);
    let is_balancer = || {
        let of_type = json.at(&["spec", "type"]).and_then(Json::string);
        of_type.as_deref() == Some("LoadBalancer")
    };
    let was_balancer = kind == Kind::Service && !is_balancer() && has_our_conditions(json);
    let has_status = match kind {
        Kind::Service => was_balancer || is_balancer(),
        Kind::Namespace
        | Kind::Node
        | Kind::Pod
        | Kind::Endpoints
        | Kind::EndpointSlice
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::IngressClass
        | Kind::ReferenceGrant
        | Kind::XBackend
        | Kind::Lease => false,
        _ => true,
    };
    if !has_status && applied.is_none() {
        return Some((name, None));
    }
    let status = json.get("status").filter(|_| has_status).map_or("", Json::text).into();
    let (uid, version) = (field("uid"), field("resourceVersion"));
    let is_classed = matches!(kind, Kind::Ingress | Kind::Gateway);
    let is_written_by_us = is_classed && manages_status(metadata);
    let seen = Seen { uid, version, status, applied, was_balancer, is_written_by_us };
    Some((name, Some(seen)))
}

/// Whether what stands in the status was written by an agent.
fn manages_status(metadata: Json<'_>) -> bool {
    let is = |entry: Json<'_>, key, text| {
        entry.get(key).and_then(Json::string).is_some_and(|it| it == text)
    };
    let mut managers = metadata.get("managedFields").into_iter().flat_map(Json::items);
    managers.any(|it| is(it, "manager", FIELD_MANAGER) && is(it, "subresource", "status"))
}

fn has_our_conditions(object: Json<'_>) -> bool {
    let conditions = object.at(&["status", "conditions"]);
    let mut types = conditions.into_iter().flat_map(Json::items).filter_map(|it| it.get("type"));
    types.any(|it| {
        let text = it.string().unwrap_or_default();
        OUR_CONDITIONS.iter().any(|prefix| text.starts_with(prefix))
    })
}
