//! What is written to an object, read from its JSON without taking it apart.
use crate::api::cluster::{APPLIED, Seen};
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
    let has_status = match kind {
        Kind::Service => {
            let is_balancer = json.at(&["spec", "type"]).and_then(Json::string);
            is_balancer.as_deref() == Some("LoadBalancer")
        }
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
    Some((
        name,
        Some(Seen { uid: field("uid"), version: field("resourceVersion"), status, applied }),
    ))
}
