//! One snapshot of the objects that were read and those that were made.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::cluster::MANAGED_BY;
use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Origin, Str};
use crate::api::object::Service;
use crate::api::objects::{Generated, HasMeta, Objects, Table};
use crate::api::problem::{Problem, Severity};
use crate::api::status::Statuses;
use crate::kernel::ServerId;

/// The result of a merge.
pub(super) struct Merged {
    pub(super) objects: Objects,
    /// Whether anything differs from the snapshot before.
    pub(super) changed: bool,
    /// One complaint for each made object whose name is taken.
    pub(super) refused: Vec<Problem>,
}

/// Merges what was read with what `statuses` bring along; whatever is equal in `old` is taken from there.
pub(super) fn merge(
    source: &Objects,
    statuses: &BTreeMap<ServerId, Arc<Statuses>>,
    old: &Objects,
) -> Merged {
    let mut merger = Merger { statuses, changed: false, refused: Vec::new() };
    let mut objects = Objects {
        generation: old.generation,
        namespaces: merger.read(&source.namespaces, &old.namespaces),
        nodes: merger.read(&source.nodes, &old.nodes),
        pods: merger.read(&source.pods, &old.pods),
        secrets: merger.read(&source.secrets, &old.secrets),
        config_maps: merger.read(&source.config_maps, &old.config_maps),
        ingresses: merger.read(&source.ingresses, &old.ingresses),
        ingress_classes: merger.read(&source.ingress_classes, &old.ingress_classes),
        pools: merger.read(&source.pools, &old.pools),
        l2_policies: merger.read(&source.l2_policies, &old.l2_policies),
        gateway_classes: merger.read(&source.gateway_classes, &old.gateway_classes),
        gateways: merger.read(&source.gateways, &old.gateways),
        listener_sets: merger.read(&source.listener_sets, &old.listener_sets),
        http_routes: merger.read(&source.http_routes, &old.http_routes),
        grpc_routes: merger.read(&source.grpc_routes, &old.grpc_routes),
        tls_routes: merger.read(&source.tls_routes, &old.tls_routes),
        tcp_routes: merger.read(&source.tcp_routes, &old.tcp_routes),
        udp_routes: merger.read(&source.udp_routes, &old.udp_routes),
        reference_grants: merger.read(&source.reference_grants, &old.reference_grants),
        backend_tls_policies: merger.read(&source.backend_tls_policies, &old.backend_tls_policies),
        backend_traffic_policies: merger
            .read(&source.backend_traffic_policies, &old.backend_traffic_policies),
        external_backends: merger.read(&source.external_backends, &old.external_backends),
        services: merger.made(
            Kind::Service,
            &source.services,
            &old.services,
            |g| &g.services,
            adopt_service,
        ),
        endpoint_slices: merger.made(
            Kind::EndpointSlice,
            &source.endpoint_slices,
            &old.endpoint_slices,
            |g| &g.endpoint_slices,
            |made, _| Arc::clone(made),
        ),
        leases: merger.made(
            Kind::Lease,
            &source.leases,
            &old.leases,
            |g| &g.leases,
            |made, _| Arc::clone(made),
        ),
        skipped: Arc::clone(&old.skipped),
    };
    if source.skipped != old.skipped {
        objects.skipped = Arc::clone(&source.skipped);
        merger.changed = true;
    }
    if merger.changed {
        objects.generation = old.generation.next();
    }
    Merged { objects, changed: merger.changed, refused: merger.refused }
}

struct Merger<'a> {
    statuses: &'a BTreeMap<ServerId, Arc<Statuses>>,
    changed: bool,
    refused: Vec<Problem>,
}

// === impl Merger ===

impl Merger<'_> {
    /// A table of a kind that is only read.
    fn read<T: PartialEq>(&mut self, source: &Table<T>, old: &Table<T>) -> Table<T> {
        if Arc::ptr_eq(source, old) {
            return Arc::clone(old);
        }
        let (mut same, mut equal) = (source.len() == old.len(), false);
        for (name, object) in source.iter() {
            match old.get(name) {
                Some(known) if Arc::ptr_eq(known, object) => {}
                Some(known) if known == object => equal = true,
                _ => same = false,
            }
        }
        if same {
            return Arc::clone(old);
        }
        if equal {
            return self.share(BTreeMap::clone(source), old);
        }
        self.changed = true;
        Arc::clone(source)
    }

    /// A table of a kind that is also made. What was read keeps its name.
    fn made<T: PartialEq + HasMeta>(
        &mut self,
        kind: Kind,
        source: &Table<T>,
        old: &Table<T>,
        of: fn(&Generated) -> &Vec<Arc<T>>,
        adopt: fn(&Arc<T>, &T) -> Arc<T>,
    ) -> Table<T> {
        if self.statuses.values().all(|statuses| of(&statuses.generated).is_empty()) {
            return self.read(source, old);
        }
        let mut table = BTreeMap::clone(source);
        for object in self.statuses.values().flat_map(|statuses| of(&statuses.generated)) {
            let name = &object.meta().name;
            match table.get(name) {
                // It was made by an agent, and read back from the API server.
                Some(served) if is_ours(served.meta()) => {
                    let object = adopt(object, served);
                    table.insert(object.meta().name.clone(), object);
                }
                Some(taken) => {
                    self.refused.push(refusal(kind, name, taken.meta().position("")));
                }
                None => {
                    table.insert(name.clone(), Arc::clone(object));
                }
            }
        }
        self.share(table, old)
    }

    /// Replaces each object by the equal one in `old`, and the whole table if all are.
    fn share<T: PartialEq>(
        &mut self,
        mut table: BTreeMap<NamespacedName, Arc<T>>,
        old: &Table<T>,
    ) -> Table<T> {
        let mut same = table.len() == old.len();
        for (name, object) in &mut table {
            match old.get(name) {
                Some(known) if Arc::ptr_eq(known, object) => {}
                Some(known) if known == object => *object = Arc::clone(known),
                _ => same = false,
            }
        }
        if same {
            return Arc::clone(old);
        }
        self.changed = true;
        Arc::new(table)
    }
}

/// A Service that is made has in the API server what only that can give.
fn adopt_service(made: &Arc<Service>, served: &Service) -> Arc<Service> {
    let mut service = Service::clone(made);
    service.meta.uid = Str::clone(&served.meta.uid);
    service.meta.created = served.meta.created;
    service.cluster_ips.clone_from(&served.cluster_ips);
    service.status_ips.clone_from(&served.status_ips);
    Arc::new(service)
}

fn is_ours(meta: &Meta) -> bool {
    meta.origin == Origin::Cluster
        && meta.labels.get(MANAGED_BY.0).is_some_and(|by| &**by == MANAGED_BY.1)
}

fn refusal(
    kind: Kind,
    name: &NamespacedName,
    position: Option<crate::api::meta::Position>,
) -> Problem {
    Problem {
        position,
        object: Some(ObjectKey { kind, name: name.clone() }),
        field: "metadata.name".to_owned(),
        message: format!(
            "the name is needed for a {kind} that is made from other objects and not made because of this one; rename it"
        ),
        severity: Severity::Error,
    }
}
