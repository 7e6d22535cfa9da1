//! Policies on Services: BackendTLSPolicy (spec 5.10) and XBackendTrafficPolicy. Of several for the same target the
//! oldest counts. A policy that cannot be honoured leaves its backends unreachable, never without TLS.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::listener::age;
use super::reference::is;
use super::status::{ACCEPTED, Fault, RESOLVED_REFS, verdict};
use super::{GatewayState, gateway_reference};
use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Str};
use crate::api::object::gateway::{
    AlternativeName, BackendTlsPolicy, BackendTrafficPolicy, BackendValidation, ObjectRef,
};
use crate::api::route::{Certificate, UpstreamSettings, UpstreamTls};
use crate::api::status::{Condition, GatewayApiStatus, ObjectStatus, ParentStatus};
use crate::arrange::{Arrange, Gather};
use crate::server::route::authority::joined;
use crate::server::route::context::Context;

/// At most so many `ancestors` (the bound of the CRD).
const MAX_ANCESTORS: usize = 16;

/// A Service and the name of one of its ports; None: all of it.
type Place = (NamespacedName, Option<Str>);

/// All policies of one snapshot.
pub(in crate::server::route) struct Policies {
    tls: Vec<TlsPolicy>,
    tls_by_place: HashMap<Place, usize>,
    traffic: Vec<TrafficPolicy>,
    traffic_by_service: HashMap<NamespacedName, usize>,
    /// The Gateways that have routes to each Service with a policy.
    users: HashMap<NamespacedName, BTreeSet<usize>>,
}

struct TlsPolicy {
    policy: Arc<BackendTlsPolicy>,
    places: Vec<Place>,
    /// What the policy asks for, or why it cannot be had.
    outcome: Result<UpstreamTls, Fault>,
    unresolved: Option<Fault>,
    /// The older policy that has all its targets.
    loses_to: Option<NamespacedName>,
}

struct TrafficPolicy {
    policy: Arc<BackendTrafficPolicy>,
    services: Vec<NamespacedName>,
    loses_to: Option<NamespacedName>,
}

// === impl Policies ===

impl Policies {
    pub(in crate::server::route) fn new(context: &mut Context<'_>) -> Self {
        let mut policies = Self {
            tls: Vec::new(),
            tls_by_place: HashMap::new(),
            traffic: Vec::new(),
            traffic_by_service: HashMap::new(),
            users: HashMap::new(),
        };
        policies.collect_tls(context);
        policies.collect_traffic(context);
        policies
    }

    fn collect_tls(&mut self, context: &mut Context<'_>) {
        let mut all: Vec<_> = context.objects.backend_tls_policies.values().collect();
        all.arrange_by(|a, b| age(&a.meta).cmp(&age(&b.meta)));
        for policy in all {
            let meta = &policy.meta;
            let targets = policy.targets.iter().enumerate();
            let places: Vec<Place> = targets
                .filter_map(|(at, (object, section))| {
                    let service = target(context, Kind::BackendTlsPolicy, meta, at, object)?;
                    Some((service, section.clone()))
                })
                .collect();
            let mut unresolved = None;
            let namespace = &meta.name.namespace;
            let outcome = validation(context, namespace, &policy.validation, &mut unresolved);
            if let Some(fault) = unresolved.as_ref().or(outcome.as_ref().err()) {
                let field = "spec.validation".to_owned();
                context.report.error(Kind::BackendTlsPolicy, meta, field, fault.message.clone());
            }
            let place = self.tls.len();
            let loses_to = claim(&mut self.tls_by_place, &places, place)
                .map(|winner| self.tls[winner].policy.meta.name.clone());
            warn_of_loss(context, Kind::BackendTlsPolicy, meta, loses_to.as_ref());
            let policy = Arc::clone(policy);
            self.tls.push(TlsPolicy { policy, places, outcome, unresolved, loses_to });
        }
    }

    fn collect_traffic(&mut self, context: &mut Context<'_>) {
        let mut all: Vec<_> = context.objects.backend_traffic_policies.values().collect();
        all.arrange_by(|a, b| age(&a.meta).cmp(&age(&b.meta)));
        for policy in all {
            let meta = &policy.meta;
            let kind = Kind::XBackendTrafficPolicy;
            let targets = policy.targets.iter().enumerate();
            let services: Vec<_> = targets
                .filter_map(|(at, object)| target(context, kind, meta, at, object))
                .collect();
            let place = self.traffic.len();
            let loses_to = claim(&mut self.traffic_by_service, &services, place)
                .map(|winner| self.traffic[winner].policy.meta.name.clone());
            warn_of_loss(context, kind, meta, loses_to.as_ref());
            self.traffic.push(TrafficPolicy { policy: Arc::clone(policy), services, loses_to });
        }
    }

    /// The settings of a backend of an Ingress, with the TLS that a policy asks for; or why it cannot be had.
    pub(in crate::server::route) fn secured(
        &self,
        service: &NamespacedName,
        port_name: &Str,
        settings: Arc<UpstreamSettings>,
    ) -> Result<Arc<UpstreamSettings>, String> {
        match self.tls(service, port_name) {
            None => Ok(settings),
            Some(Err(fault)) => Err(format!("BackendTLSPolicy: {}", fault.message)),
            Some(Ok(tls)) => {
                let tls = Some(with_client(tls, None));
                Ok(Arc::new(UpstreamSettings { tls, ..(*settings).clone() }))
            }
        }
    }

    /// What the policy for this port asks for; None: there is no policy.
    pub(super) fn tls(
        &self,
        service: &NamespacedName,
        port_name: &Str,
    ) -> Option<Result<&UpstreamTls, &Fault>> {
        let exact = self.tls_by_place.get(&(service.clone(), Some(Str::clone(port_name))));
        let place = exact.or_else(|| self.tls_by_place.get(&(service.clone(), None)))?;
        Some(self.tls[*place].outcome.as_ref())
    }

    /// The policy for the traffic to this Service.
    pub(super) fn traffic(&self, service: &NamespacedName) -> Option<&BackendTrafficPolicy> {
        let place = *self.traffic_by_service.get(service)?;
        Some(&self.traffic[place].policy)
    }

    /// Notes that a route of the Gateway leads to the Service.
    pub(super) fn used(&mut self, service: &NamespacedName, gateway: usize) {
        if !self.tls.is_empty() || !self.traffic.is_empty() {
            self.users.entry(service.clone()).or_default().insert(gateway);
        }
    }

    /// The statuses of those whose targets some Gateway of ours leads to.
    pub(super) fn statuses(&self, gateways: &[GatewayState]) -> Vec<(ObjectKey, ObjectStatus)> {
        let mut statuses = Vec::new();
        for tls in &self.tls {
            let fault = loss(tls.loses_to.as_ref());
            let accepted = fault.as_ref().or(tls.outcome.as_ref().err());
            let conditions =
                vec![verdict(ACCEPTED, accepted), verdict(RESOLVED_REFS, tls.unresolved.as_ref())];
            let services = tls.places.iter().map(|(service, _)| service);
            let meta = &tls.policy.meta;
            statuses.extend(self.status(
                gateways,
                Kind::BackendTlsPolicy,
                meta,
                services,
                &conditions,
            ));
        }
        for traffic in &self.traffic {
            let fault = loss(traffic.loses_to.as_ref());
            let conditions = vec![verdict(ACCEPTED, fault.as_ref())];
            let (kind, meta) = (Kind::XBackendTrafficPolicy, &traffic.policy.meta);
            let services = traffic.services.iter();
            statuses.extend(self.status(gateways, kind, meta, services, &conditions));
        }
        statuses
    }

    fn status<'s>(
        &self,
        gateways: &[GatewayState],
        kind: Kind,
        meta: &Meta,
        services: impl Iterator<Item = &'s NamespacedName>,
        conditions: &[Condition],
    ) -> Option<(ObjectKey, ObjectStatus)> {
        let users = services.filter_map(|service| self.users.get(service)).flatten();
        let users: BTreeSet<usize> = users.copied().gather();
        if users.is_empty() {
            return None;
        }
        let ancestors = users.into_iter().take(MAX_ANCESTORS).map(|at| ParentStatus {
            parent: gateway_reference(&gateways[at].gateway),
            controller: Str::clone(&gateways[at].controller),
            conditions: conditions.to_vec(),
        });
        let gateway = GatewayApiStatus {
            observed_generation: meta.generation,
            parents: ancestors.collect(),
            ..GatewayApiStatus::default()
        };
        let key = ObjectKey { kind, name: meta.name.clone() };
        Some((key, ObjectStatus { gateway: Some(Arc::new(gateway)), ..ObjectStatus::default() }))
    }
}

/// Gives the places to their first claimant; if all of them are taken, the one that has the first.
fn claim<P: Clone + Eq + std::hash::Hash>(
    taken: &mut HashMap<P, usize>,
    places: &[P],
    claimant: usize,
) -> Option<usize> {
    let mut winner = None;
    let mut lost = 0;
    for place in places {
        match taken.get(place) {
            Some(other) => {
                winner.get_or_insert(*other);
                lost += 1;
            }
            None => {
                taken.insert(place.clone(), claimant);
            }
        }
    }
    winner.filter(|_| lost == places.len())
}

/// The Service that a policy is for.
fn target(
    context: &mut Context<'_>,
    kind: Kind,
    meta: &Meta,
    at: usize,
    object: &ObjectRef,
) -> Option<NamespacedName> {
    let field = format!("spec.targetRefs[{at}]");
    if !is(object, "", Kind::Service) {
        let message = format!("{} {} is no Service", object.kind, object.name);
        context.report.error(kind, meta, field, message);
        return None;
    }
    let namespace = Str::clone(&meta.name.namespace);
    let service = NamespacedName { namespace, name: Str::clone(&object.name) };
    if !context.objects.services.contains_key(&service) {
        let message = format!("Service {service} does not exist");
        context.report.error(kind, meta, field, message);
    }
    Some(service)
}

fn loss(winner: Option<&NamespacedName>) -> Option<Fault> {
    let winner = winner?;
    Some(Fault::new("Conflicted", format!("the older policy {winner} has the same targets")))
}

fn warn_of_loss(
    context: &mut Context<'_>,
    kind: Kind,
    meta: &Meta,
    winner: Option<&NamespacedName>,
) {
    if let Some(fault) = loss(winner) {
        context.report.error(kind, meta, "spec.targetRefs".to_owned(), fault.message);
    }
}

/// TLS to a backend whose certificate is checked so; `unresolved` gets what is referred to and not there.
pub(super) fn validation(
    context: &mut Context<'_>,
    namespace: &Str,
    validation: &BackendValidation,
    unresolved: &mut Option<Fault>,
) -> Result<UpstreamTls, Fault> {
    if let Some(word) = &validation.well_known {
        let message = format!(
            "wellKnownCACertificates: {word} is not supported; name a ConfigMap in caCertificateRefs"
        );
        return Err(Fault::new("Invalid", message));
    }
    let mut good = Vec::new();
    for reference in &validation.authorities {
        if !is(reference, "", Kind::ConfigMap) {
            let message = format!("{} {} is no ConfigMap", reference.kind, reference.name);
            unresolved.get_or_insert(Fault::new("InvalidKind", message));
            continue;
        }
        let name =
            NamespacedName { namespace: Str::clone(namespace), name: Str::clone(&reference.name) };
        let objects = context.objects;
        match context.caches.authorities.load(objects, &name) {
            Ok(authorities) => good.push(authorities),
            Err(why) => {
                unresolved.get_or_insert(Fault::new("InvalidCACertificateRef", &*why));
            }
        }
    }
    let Some(authorities) = joined(good) else {
        let message = "none of the references to CA certificates can be used";
        return Err(Fault::new("NoValidCACertificate", message));
    };
    let (mut names, mut uris) = (Vec::new(), Vec::new());
    for name in &validation.alternative_names {
        match name {
            AlternativeName::Hostname(name) => names.push(Str::clone(name)),
            AlternativeName::Uri(uri) => uris.push(Str::clone(uri)),
        }
    }
    let server_name = Str::clone(&validation.hostname);
    Ok(UpstreamTls { server_name, authorities, names, uris, client: None })
}

/// The same with our own certificate.
pub(super) fn with_client(
    tls: &UpstreamTls,
    client: Option<&Arc<Certificate>>,
) -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls { client: client.map(Arc::clone), ..tls.clone() })
}

/// Sorted, so that equal snapshots give equal statuses.
pub(super) fn sorted(
    statuses: Vec<(ObjectKey, ObjectStatus)>,
) -> BTreeMap<ObjectKey, ObjectStatus> {
    statuses.into_iter().gather()
}
