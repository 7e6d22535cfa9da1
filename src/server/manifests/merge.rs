//! The entries of all files → one snapshot.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Entry, File};
use crate::api::meta::{NamespacedName, ObjectKey};
use crate::api::object::gateway::{
    BackendTlsPolicy, BackendTrafficPolicy, ExternalBackend, Gateway, GatewayClass, ListenerSet,
    ReferenceGrant,
};
use crate::api::object::gateway_route::{GrpcRoute, HttpRoute, L4Route};
use crate::api::object::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, L2Policy, Namespace, Node, Pod, Pool, Secret,
    Service,
};
use crate::api::objects::{HasMeta, Objects, Table};
use crate::api::problem::{Problem, Severity};
use crate::proto::object::Object;

/// The result of a merge.
pub(super) struct Merged<'f> {
    pub(super) objects: Objects,
    /// Whether any table differs from the one before.
    pub(super) changed: bool,
    /// Second definitions of the same object.
    pub(super) problems: Vec<Problem>,
    /// The entries that count, one for each object, broken ones included.
    pub(super) first: BTreeMap<&'f ObjectKey, &'f Entry>,
}

/// Tables under construction.
#[derive(Default)]
struct Tables {
    namespaces: Map<Namespace>,
    nodes: Map<Node>,
    pods: Map<Pod>,
    services: Map<Service>,
    endpoint_slices: Map<EndpointSlice>,
    secrets: Map<Secret>,
    config_maps: Map<ConfigMap>,
    ingresses: Map<Ingress>,
    ingress_classes: Map<IngressClass>,
    pools: Map<Pool>,
    l2_policies: Map<L2Policy>,
    gateway_classes: Map<GatewayClass>,
    gateways: Map<Gateway>,
    listener_sets: Map<ListenerSet>,
    http_routes: Map<HttpRoute>,
    grpc_routes: Map<GrpcRoute>,
    tls_routes: Map<L4Route>,
    tcp_routes: Map<L4Route>,
    udp_routes: Map<L4Route>,
    reference_grants: Map<ReferenceGrant>,
    backend_tls_policies: Map<BackendTlsPolicy>,
    backend_traffic_policies: Map<BackendTrafficPolicy>,
    external_backends: Map<ExternalBackend>,
}

type Map<T> = Vec<(NamespacedName, Arc<T>)>;

/// Puts the entries together, in the order of paths and of the text in each; the first definition of an
/// object wins.
pub(super) fn merge<'f>(files: &'f BTreeMap<PathBuf, File>, old: &Objects) -> Merged<'f> {
    let mut first: BTreeMap<&ObjectKey, &Entry> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut tables = Tables::default();
    let mut skipped: BTreeMap<String, u32> = BTreeMap::new();
    let entries = || files.values().flat_map(|file| &file.entries);
    let leftovers = entries().filter(|entry| entry.is_leftover);
    for entry in entries().filter(|entry| !entry.is_leftover).chain(leftovers) {
        if let Some(winner) = first.get(&entry.key) {
            if !entry.is_leftover {
                problems.push(second_definition(entry, winner));
            }
            continue;
        }
        first.insert(&entry.key, entry);
    }
    // In the order of their names, so that a table that has not changed is seen without making it.
    first.values().filter_map(|entry| entry.object.as_ref()).for_each(|it| tables.insert(it));
    for (kind, count) in files.values().flat_map(|file| &file.skipped) {
        *skipped.entry(kind.clone()).or_default() += count;
    }
    let (objects, changed) = tables.finish(old, skipped);
    Merged { objects, changed, problems, first }
}

fn second_definition(entry: &Entry, winner: &Entry) -> Problem {
    Problem {
        position: Some(entry.position.clone()),
        object: Some(entry.key.clone()),
        field: String::new(),
        message: format!(
            "defined already at {}; this definition is not in effect",
            winner.position
        ),
        severity: Severity::Error,
    }
}

fn insert<T: HasMeta>(table: &mut Map<T>, object: &Arc<T>) {
    table.push((object.meta().name.clone(), Arc::clone(object)));
}

/// The old table if it holds the same objects, else the new one; and whether that is a change.
fn share<T>(new: Map<T>, old: &Table<T>, changed: &mut bool) -> Table<T> {
    // Almost always in the order of the names already; only slices may not be.
    if is_same(new.iter().map(|(name, object)| (name, object)), old) {
        return Arc::clone(old);
    }
    let mut table = BTreeMap::new();
    for (name, object) in new {
        table.insert(name, object);
    }
    if is_same(table.iter(), old) {
        return Arc::clone(old);
    }
    *changed = true;
    Arc::new(table)
}

fn is_same<'a, T: 'a>(
    new: impl ExactSizeIterator<Item = (&'a NamespacedName, &'a Arc<T>)>,
    old: &Table<T>,
) -> bool {
    new.len() == old.len()
        && new
            .zip(old.iter())
            .all(|((new_name, new), (old_name, old))| Arc::ptr_eq(new, old) && new_name == old_name)
}

// === impl Tables ===

impl Tables {
    fn insert(&mut self, object: &Object) {
        match object {
            Object::Namespace(object) => insert(&mut self.namespaces, object),
            Object::Node(object) => insert(&mut self.nodes, object),
            Object::Pod(object) => insert(&mut self.pods, object),
            Object::Service(object) => insert(&mut self.services, object),
            Object::EndpointSlices(slices) => {
                slices.iter().for_each(|slice| insert(&mut self.endpoint_slices, slice));
            }
            Object::Secret(object) => insert(&mut self.secrets, object),
            Object::ConfigMap(object) => insert(&mut self.config_maps, object),
            Object::Ingress(object) => insert(&mut self.ingresses, object),
            Object::IngressClass(object) => insert(&mut self.ingress_classes, object),
            Object::Pool(object) => insert(&mut self.pools, object),
            Object::L2Policy(object) => insert(&mut self.l2_policies, object),
            Object::GatewayClass(object) => insert(&mut self.gateway_classes, object),
            Object::Gateway(object) => insert(&mut self.gateways, object),
            Object::ListenerSet(object) => insert(&mut self.listener_sets, object),
            Object::HttpRoute(object) => insert(&mut self.http_routes, object),
            Object::GrpcRoute(object) => insert(&mut self.grpc_routes, object),
            Object::TlsRoute(object) => insert(&mut self.tls_routes, object),
            Object::TcpRoute(object) => insert(&mut self.tcp_routes, object),
            Object::UdpRoute(object) => insert(&mut self.udp_routes, object),
            Object::ReferenceGrant(object) => insert(&mut self.reference_grants, object),
            Object::BackendTlsPolicy(object) => insert(&mut self.backend_tls_policies, object),
            Object::XBackendTrafficPolicy(object) => {
                insert(&mut self.backend_traffic_policies, object)
            }
            Object::XBackend(object) => insert(&mut self.external_backends, object),
        }
    }

    fn finish(self, old: &Objects, skipped: BTreeMap<String, u32>) -> (Objects, bool) {
        let mut changed = false;
        let same_skipped = *old.skipped == skipped;
        let objects = Objects {
            generation: old.generation,
            namespaces: share(self.namespaces, &old.namespaces, &mut changed),
            nodes: share(self.nodes, &old.nodes, &mut changed),
            pods: share(self.pods, &old.pods, &mut changed),
            services: share(self.services, &old.services, &mut changed),
            endpoint_slices: share(self.endpoint_slices, &old.endpoint_slices, &mut changed),
            secrets: share(self.secrets, &old.secrets, &mut changed),
            config_maps: share(self.config_maps, &old.config_maps, &mut changed),
            ingresses: share(self.ingresses, &old.ingresses, &mut changed),
            ingress_classes: share(self.ingress_classes, &old.ingress_classes, &mut changed),
            pools: share(self.pools, &old.pools, &mut changed),
            l2_policies: share(self.l2_policies, &old.l2_policies, &mut changed),
            gateway_classes: share(self.gateway_classes, &old.gateway_classes, &mut changed),
            gateways: share(self.gateways, &old.gateways, &mut changed),
            listener_sets: share(self.listener_sets, &old.listener_sets, &mut changed),
            http_routes: share(self.http_routes, &old.http_routes, &mut changed),
            grpc_routes: share(self.grpc_routes, &old.grpc_routes, &mut changed),
            tls_routes: share(self.tls_routes, &old.tls_routes, &mut changed),
            tcp_routes: share(self.tcp_routes, &old.tcp_routes, &mut changed),
            udp_routes: share(self.udp_routes, &old.udp_routes, &mut changed),
            reference_grants: share(self.reference_grants, &old.reference_grants, &mut changed),
            backend_tls_policies: share(
                self.backend_tls_policies,
                &old.backend_tls_policies,
                &mut changed,
            ),
            backend_traffic_policies: share(
                self.backend_traffic_policies,
                &old.backend_traffic_policies,
                &mut changed,
            ),
            external_backends: share(self.external_backends, &old.external_backends, &mut changed),
            leases: Arc::clone(&old.leases),
            skipped: if same_skipped { Arc::clone(&old.skipped) } else { Arc::new(skipped) },
        };
        (objects, changed || !same_skipped)
    }
}
