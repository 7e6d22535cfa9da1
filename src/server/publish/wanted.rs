//! What the API server is to have: statuses and made objects, as JSON, and where they are written to.
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

use super::merge::Others;
use crate::api::cluster::{APPLIED, MANAGED_BY, OUR_CONDITIONS, Seen, ServedVersions, WATCHED};
use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Origin, Str};
use crate::api::objects::{HasMeta, Objects, Table};
use crate::api::query::ShownStatus;
use crate::kube_lite::Resource;
use crate::proto::object::{conditions, gateway_status, load_balancer};
use crate::proto::value::{Value, parse_json, to_json_compact};

/// The path of an object; None if its kind is not served.
pub(super) fn path(key: &ObjectKey, versions: &ServedVersions) -> Option<String> {
    let NamespacedName { namespace, name } = &key.name;
    if key.kind == Kind::Lease {
        let (group, plural) = ("coordination.k8s.io", "leases");
        let resource = Resource { group, version: "v1".to_owned(), plural };
        return Some(resource.object_path(namespace, name));
    }
    let watched = WATCHED.iter().find(|watched| watched.kind == key.kind)?;
    let version = versions.get(&key.kind)?.rsplit('/').next()?.to_owned();
    let resource = Resource { group: watched.group, version, plural: watched.plural };
    Some(resource.object_path(namespace, name))
}

/// The status that an object of ours is to have; None if it is none of our business.
pub(super) fn status(
    key: &ObjectKey,
    shown: Option<&ShownStatus>,
    seen: &Seen,
) -> Option<(Value, Others)> {
    let foreign = Others::ButThesePrefixes(OUR_CONDITIONS);
    let with_conditions = |mut status: Value| {
        let ours = shown.map_or(&[][..], |shown| &shown.conditions);
        if !ours.is_empty() {
            status.set("conditions", conditions(ours, 0));
        }
        status
    };
    match key.kind {
        Kind::Service if seen.was_balancer => Some((Value::map(), foreign)),
        Kind::Service => {
            let ips = shown?.load_balancer.as_deref()?;
            let mut balancer = load_balancer(ips, &[]);
            if let Some(ingress) = balancer.get_mut("ingress") {
                ingress.items_mut().iter_mut().for_each(|entry| entry.set("ipMode", "VIP"));
            }
            Some((with_conditions(Value::map().with("loadBalancer", balancer)), foreign))
        }
        Kind::Ingress if shown.is_none() && seen.is_written_by_us => {
            Some((Value::map().with("loadBalancer", Value::map()), foreign))
        }
        Kind::Ingress => {
            let shown = shown?;
            let ips = shown.load_balancer.as_deref()?;
            let balancer = load_balancer(ips, &shown.ports);
            Some((Value::map().with("loadBalancer", balancer), foreign))
        }
        Kind::CiliumLoadBalancerIPPool | Kind::CiliumL2AnnouncementPolicy => {
            Some((with_conditions(Value::map()), foreign))
        }
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            // Nothing to say is to take back what was said.
            let status = gateway_status(key.kind, shown, 0);
            Some((status.unwrap_or_else(|| empty("parents")), Others::AreOurs))
        }
        Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy => {
            let status = gateway_status(key.kind, shown, 0);
            Some((status.unwrap_or_else(|| empty("ancestors")), Others::AreOurs))
        }
        Kind::Gateway if shown.is_none() && seen.is_written_by_us => {
            Some((Value::map(), Others::AreOurs))
        }
        Kind::GatewayClass | Kind::Gateway | Kind::ListenerSet => {
            Some((gateway_status(key.kind, Some(shown?), 0)?, Others::AreOurs))
        }
        _ => None,
    }
}

/// Whether an object of this kind loses its last address, or all of its status, when that becomes `wanted`.
pub(super) fn takes_back(kind: Kind, before: &Value, wanted: &Value) -> bool {
    let has_addresses = |status: &Value| {
        let list = match kind {
            Kind::Service | Kind::Ingress => status.get("loadBalancer")?.get("ingress"),
            Kind::Gateway => status.get("addresses"),
            _ => None,
        };
        list.filter(|list| !list.items().is_empty()).map(|_| ())
    };
    let loses_all = kind == Kind::Gateway && wanted.members().is_empty();
    loses_all || has_addresses(before).is_some() && has_addresses(wanted).is_none()
}

fn empty(list: &str) -> Value {
    Value::map().with(list, Vec::<Value>::new())
}

/// The object that the agents make under this name, as it is applied, and the hash of it.
pub(super) fn made(key: &ObjectKey, objects: &Objects) -> Option<(String, Str)> {
    let meta = match key.kind {
        Kind::Service => meta_of(&objects.services, &key.name),
        Kind::EndpointSlice => meta_of(&objects.endpoint_slices, &key.name),
        Kind::Lease => meta_of(&objects.leases, &key.name),
        _ => None,
    }?;
    let mut json = parse_json(&meta.json).ok().filter(|_| is_made(meta))?;
    let mut hasher = DefaultHasher::new();
    hasher.write(meta.json.as_bytes());
    let hash: Str = format!("{:016x}", hasher.finish()).into();
    let metadata = json.entry("metadata");
    metadata.entry("labels").set(MANAGED_BY.0, MANAGED_BY.1);
    metadata.entry("annotations").set(APPLIED, &*hash);
    Some((to_json_compact(&json), hash))
}

fn meta_of<'o, T: HasMeta>(table: &'o Table<T>, name: &NamespacedName) -> Option<&'o Meta> {
    table.get(name).map(|object| object.meta())
}

fn is_made(meta: &Meta) -> bool {
    // EndpointSlices of the endpoint server are made in static mode only.
    matches!(meta.origin, Origin::Generated(_)) && !meta.json.is_empty()
}

/// The made objects that are not the same in both snapshots.
pub(super) fn made_differently(before: &Objects, now: &Objects) -> BTreeSet<ObjectKey> {
    let mut keys = BTreeSet::new();
    differing(Kind::Service, &before.services, &now.services, &mut keys);
    differing(Kind::EndpointSlice, &before.endpoint_slices, &now.endpoint_slices, &mut keys);
    differing(Kind::Lease, &before.leases, &now.leases, &mut keys);
    keys
}

fn differing<T: HasMeta>(
    kind: Kind,
    before: &Table<T>,
    now: &Table<T>,
    keys: &mut BTreeSet<ObjectKey>,
) {
    if std::sync::Arc::ptr_eq(before, now) {
        return;
    }
    let json = |table: &Table<T>, name: &NamespacedName| {
        let meta = meta_of(table, name).filter(|meta| is_made(meta));
        meta.map(|meta| Str::clone(&meta.json))
    };
    for name in now.keys().chain(before.keys()) {
        if json(before, name) != json(now, name) {
            keys.insert(ObjectKey { kind, name: name.clone() });
        }
    }
}
