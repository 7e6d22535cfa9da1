//! All routes in the order of their age: what they attach to, what they compile to, and what their statuses say.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::attachment::{Attachment, Parent, Parents, RouteView, name_of};
use super::backend::{Backends, Traffic, Use};
use super::filter::Findings;
use super::hosts::{Attached, wider};
use super::http::{self, CompiledRoute};
use super::listener::{Protocol, age};
use super::policy::Policies;
use super::reference::{Grants, Referrer, is};
use super::status::{ACCEPTED, Fault, RESOLVED_REFS, condition, verdict};
use super::{GatewayState, hint, l4, nothing_attached};
use crate::api::class::GATEWAY_GROUP;
use crate::api::meta::{Kind, ObjectKey, Str};
use crate::api::object::gateway_route::{GrpcRoute, HttpRoute, L4Route};
use crate::api::objects::Table;
use crate::api::route::Route;
use crate::api::status::{Condition, GatewayApiStatus, ObjectStatus, ParentStatus};
use crate::arrange::Arrange;
use crate::server::route::context::Context;

/// A listener: its Gateway and its place there.
type Place = (usize, usize);

/// Attaches and compiles routes.
pub(super) struct RouteCompiler<'c, 'a> {
    context: &'c mut Context<'a>,
    grants: &'c Grants,
    policies: Policies,
    parents: Parents,
    gateways: Vec<GatewayState>,
    attached: Vec<Vec<Attached>>,
    /// The hostnames that routes of each kind have on a listener: HTTPRoutes and GRPCRoutes must not meet.
    taken: HashMap<(Place, Kind), Names>,
    statuses: Vec<(ObjectKey, ObjectStatus)>,
}

/// Hostname patterns, so that whether another one meets any of them costs a few lookups.
#[derive(Default)]
struct Names {
    all: HashSet<Str>,
    /// The patterns that match more than one of them does.
    wider: HashSet<String>,
}

/// The result.
pub(super) struct Done {
    pub(super) gateways: Vec<GatewayState>,
    /// By Gateway and listener.
    pub(super) attached: Vec<Vec<Attached>>,
    pub(super) statuses: Vec<(ObjectKey, ObjectStatus)>,
}

/// A route with requests.
#[derive(Clone, Copy)]
enum Requests<'r> {
    Http(&'r HttpRoute),
    Grpc(&'r GrpcRoute),
}

/// What the status of a route says about the route itself.
#[derive(Default)]
struct Verdicts {
    /// All of its rules are unusable.
    rejected: Option<Fault>,
    /// Some are.
    partially: Option<String>,
    unresolved: Option<Fault>,
}

// === impl Names ===

impl Names {
    fn add(&mut self, name: &Str) {
        if self.all.insert(Str::clone(name)) {
            self.wider.extend(wider(name));
        }
    }

    /// Whether some name is matched by `name` and by one of these.
    fn meets(&self, name: &str) -> bool {
        self.all.contains(name)
            || self.wider.contains(name)
            || wider(name).any(|wider| self.all.contains(&*wider))
    }
}

// === impl Requests ===

impl<'r> Requests<'r> {
    fn view(self) -> RouteView<'r> {
        match self {
            Self::Http(route) => RouteView {
                kind: Kind::HttpRoute,
                meta: &route.meta,
                parents: &route.parents,
                hostnames: Some(&route.hostnames),
                default_gateways: route.default_gateways,
            },
            Self::Grpc(route) => RouteView {
                kind: Kind::GrpcRoute,
                meta: &route.meta,
                parents: &route.parents,
                hostnames: Some(&route.hostnames),
                default_gateways: route.default_gateways,
            },
        }
    }
}

// === impl RouteCompiler ===

impl<'c, 'a> RouteCompiler<'c, 'a> {
    pub(super) fn new(
        context: &'c mut Context<'a>,
        grants: &'c Grants,
        policies: Policies,
        parents: Parents,
        gateways: Vec<GatewayState>,
    ) -> Self {
        let attached = nothing_attached(&gateways);
        Self {
            context,
            grants,
            policies,
            parents,
            gateways,
            attached,
            taken: HashMap::new(),
            statuses: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Done {
        let mut statuses = self.statuses;
        statuses.extend(self.policies.statuses(&self.gateways));
        Done { gateways: self.gateways, attached: self.attached, statuses }
    }

    // --- HTTPRoute and GRPCRoute ---

    pub(super) fn http_and_grpc(&mut self) {
        let objects = self.context.objects;
        let http = objects.http_routes.values().map(|route| Requests::Http(route));
        let grpc = objects.grpc_routes.values().map(|route| Requests::Grpc(route));
        let mut all: Vec<Requests<'_>> = http.chain(grpc).collect();
        all.arrange_by(|a, b| age(a.view().meta).cmp(&age(b.view().meta)));
        let mixed = !objects.http_routes.is_empty() && !objects.grpc_routes.is_empty();
        for route in all {
            self.requests(route, mixed);
        }
    }

    fn requests(&mut self, route: Requests<'_>, mixed: bool) {
        let view = route.view();
        let mut parents = self.attach(view);
        if mixed {
            self.keep_kinds_apart(view, &mut parents);
        }
        // Gateways without a certificate of their own are all the same to a route.
        let mut compiled: BTreeMap<Option<usize>, Arc<CompiledRoute>> = BTreeMap::new();
        for at in compiled_for(&parents) {
            let key = self.client_key(at);
            compiled.entry(key).or_insert_with(|| Arc::new(self.compile_requests(route, at)));
        }
        let verdicts = compiled.values().next().map_or_else(Verdicts::default, |compiled| {
            self.judge(view, &compiled.findings, &compiled.invalid, compiled.rules.len())
        });
        for (place, attachment) in attachments(&parents) {
            let key = self.client_key(place.0);
            let Some(compiled) = compiled.get(&key) else { continue };
            self.count(place, &verdicts);
            self.mark(&compiled.findings, place.0);
            let hosts = &mut self.attached[place.0][place.1].hosts;
            for hostname in &attachment.hostnames {
                hosts.entry(Str::clone(hostname)).or_default().push(Arc::clone(compiled));
            }
        }
        self.status(view, parents, &verdicts);
    }

    fn compile_requests(&mut self, route: Requests<'_>, gateway: usize) -> CompiledRoute {
        let view = route.view();
        let namespace = &view.meta.name.namespace;
        let from = Referrer { kind: view.kind, namespace };
        let client = &self.gateways[gateway].client;
        let of = Use { from, traffic: Traffic::Http, client };
        let mut backends = Backends::new(self.context, self.grants, &self.policies);
        match route {
            Requests::Http(route) => http::http(&mut backends, of, route),
            Requests::Grpc(route) => http::grpc(&mut backends, of, route),
        }
    }

    /// An HTTPRoute and a GRPCRoute with a common hostname on one listener: the older stays (spec 5.4).
    fn keep_kinds_apart(&mut self, view: RouteView<'_>, parents: &mut [Parent]) {
        let other = if view.kind == Kind::HttpRoute { Kind::GrpcRoute } else { Kind::HttpRoute };
        for parent in parents {
            let Ok(attachments) = &mut parent.outcome else { continue };
            attachments.retain(|attachment| {
                let place = (parent.gateway, attachment.listener);
                let meets = self
                    .taken
                    .get(&(place, other))
                    .is_some_and(|taken| attachment.hostnames.iter().any(|name| taken.meets(name)));
                if !meets {
                    let taken = self.taken.entry((place, view.kind)).or_default();
                    attachment.hostnames.iter().for_each(|name| taken.add(name));
                }
                !meets
            });
            if attachments.is_empty() {
                let message = format!("an older {other} has the same hostnames on the listener");
                parent.outcome = Err(Fault::new("NotAllowedByListeners", message));
            }
        }
    }

    // --- TLSRoute, TCPRoute and UDPRoute ---

    pub(super) fn l4(&mut self, kind: Kind, routes: &Table<L4Route>) {
        let mut all: Vec<_> = routes.values().collect();
        all.arrange_by(|a, b| age(&a.meta).cmp(&age(&b.meta)));
        for route in all {
            self.l4_route(kind, route);
        }
    }

    fn l4_route(&mut self, kind: Kind, route: &L4Route) {
        let view = RouteView {
            kind,
            meta: &route.meta,
            parents: &route.parents,
            hostnames: (kind == Kind::TlsRoute).then_some(&route.hostnames),
            default_gateways: route.default_gateways,
        };
        let parents = self.attach(view);
        let mut compiled: HashMap<(Option<usize>, Traffic), (Arc<Route>, Findings)> =
            HashMap::new();
        let mut verdicts = self.judge_detached(view, route, &parents);
        for (place, attachment) in attachments(&parents) {
            let (gateway, at) = place;
            let listener = &self.gateways[gateway].listeners[at];
            let traffic = match listener.protocol {
                Some(Protocol::Udp) => Traffic::Udp,
                Some(Protocol::Tls) if listener.passthrough => Traffic::Passthrough,
                _ => Traffic::Tcp,
            };
            let key = (self.client_key(gateway), traffic);
            let (compiled, findings) = compiled.entry(key).or_insert_with(|| {
                let from = Referrer { kind, namespace: &route.meta.name.namespace };
                let of = Use { from, traffic, client: &self.gateways[gateway].client };
                let mut backends = Backends::new(self.context, self.grants, &self.policies);
                let (route, findings) = l4::compile(&mut backends, of, kind, route);
                (Arc::new(route), findings)
            });
            let verdicts =
                verdicts.get_or_insert_with(|| judge(self.context, view, findings, &[], 0));
            self.count(place, verdicts);
            self.mark(findings, gateway);
            let attached = &mut self.attached[gateway][at];
            if kind == Kind::TlsRoute {
                for hostname in &attachment.hostnames {
                    let names = attached.names.entry(Str::clone(hostname));
                    names.or_insert_with(|| Arc::clone(compiled));
                }
            } else {
                attached.forward.get_or_insert_with(|| Arc::clone(compiled));
            }
        }
        self.status(view, parents, &verdicts.unwrap_or_default());
    }

    /// What is said about a route that no listener takes.
    fn judge_detached(
        &mut self,
        view: RouteView<'_>,
        route: &L4Route,
        parents: &[Parent],
    ) -> Option<Verdicts> {
        if parents.is_empty() || parents.iter().any(|parent| parent.outcome.is_ok()) {
            return None;
        }
        let from = Referrer { kind: view.kind, namespace: &view.meta.name.namespace };
        let traffic = if view.kind == Kind::UdpRoute { Traffic::Udp } else { Traffic::Passthrough };
        let of = Use { from, traffic, client: &Ok(None) };
        let mut backends = Backends::new(self.context, self.grants, &self.policies);
        let (_, findings) = l4::compile(&mut backends, of, view.kind, route);
        Some(judge(self.context, view, &findings, &[], 0))
    }

    // --- both ---

    fn attach(&mut self, view: RouteView<'_>) -> Vec<Parent> {
        self.warn_of_strangers(view);
        self.parents.attach(self.context.objects, &self.gateways, view)
    }

    /// Says which parents do not exist at all.
    fn warn_of_strangers(&mut self, view: RouteView<'_>) {
        let objects = self.context.objects;
        for (at, parent) in view.parents.iter().enumerate() {
            let name = name_of(&parent.object, view.meta);
            let missing = if is(&parent.object, GATEWAY_GROUP, Kind::Gateway) {
                !objects.gateways.contains_key(&name)
            } else {
                is(&parent.object, GATEWAY_GROUP, Kind::ListenerSet)
                    && !objects.listener_sets.contains_key(&name)
            };
            if missing {
                let hint = hint(self.context, &name);
                let message = format!("{} {name} does not exist{hint}", parent.object.kind);
                let field = format!("spec.parentRefs[{at}]");
                self.context.report.warning(view.kind, view.meta, field, message);
            }
        }
    }

    /// Routes compile alike for all Gateways that show no certificate to backends.
    fn client_key(&self, gateway: usize) -> Option<usize> {
        let own = !matches!(self.gateways[gateway].client, Ok(None));
        own.then_some(gateway)
    }

    fn count(&mut self, (gateway, listener): Place, verdicts: &Verdicts) {
        if verdicts.rejected.is_none() {
            self.gateways[gateway].listeners[listener].attached += 1;
        }
    }

    /// Notes to which Services a Gateway leads.
    fn mark(&mut self, findings: &Findings, gateway: usize) {
        for service in &findings.services {
            self.policies.used(service, gateway);
        }
    }

    fn judge(
        &mut self,
        view: RouteView<'_>,
        findings: &Findings,
        invalid: &[(String, Fault)],
        rules: usize,
    ) -> Verdicts {
        judge(self.context, view, findings, invalid, rules)
    }

    fn status(&mut self, view: RouteView<'_>, parents: Vec<Parent>, verdicts: &Verdicts) {
        if parents.is_empty() {
            return;
        }
        let mut entries = Vec::with_capacity(parents.len());
        for parent in parents {
            let conditions = match &parent.outcome {
                Ok(_) => verdicts.conditions(),
                Err(fault) => {
                    let field = parents_field(view, &parent);
                    let message = fault.message.clone();
                    self.context.report.error(view.kind, view.meta, field, message);
                    vec![verdict(ACCEPTED, Some(fault)), verdicts.resolved()]
                }
            };
            entries.push(ParentStatus {
                parent: parent.reference,
                controller: Str::clone(&self.gateways[parent.gateway].controller),
                conditions,
            });
        }
        let status = GatewayApiStatus {
            observed_generation: view.meta.generation,
            parents: entries,
            ..GatewayApiStatus::default()
        };
        let key = ObjectKey { kind: view.kind, name: view.meta.name.clone() };
        let gateway = Some(Arc::new(status));
        self.statuses.push((key, ObjectStatus { gateway, ..ObjectStatus::default() }));
    }
}

/// The Gateways that a route is compiled for: those that take it; if none does, one, for what there is to say.
fn compiled_for(parents: &[Parent]) -> Vec<usize> {
    let all = || parents.iter().map(|parent| parent.gateway);
    let attached = parents.iter().filter(|parent| parent.outcome.is_ok());
    let attached: Vec<usize> = attached.map(|parent| parent.gateway).collect();
    if attached.is_empty() { all().take(1).collect() } else { attached }
}

/// The field of a parentRef in messages.
fn parents_field(view: RouteView<'_>, parent: &Parent) -> String {
    let at = view.parents.iter().position(|reference| *reference == parent.reference);
    at.map_or("spec.useDefaultGateways".to_owned(), |at| format!("spec.parentRefs[{at}]"))
}

/// The listeners that take a route, each once.
fn attachments(parents: &[Parent]) -> Vec<(Place, &Attachment)> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for parent in parents {
        for attachment in parent.outcome.iter().flatten() {
            let place = (parent.gateway, attachment.listener);
            if seen.insert(place) {
                all.push((place, attachment));
            }
        }
    }
    all
}

/// Reports what was found and sums it up.
fn judge(
    context: &mut Context<'_>,
    view: RouteView<'_>,
    findings: &Findings,
    invalid: &[(String, Fault)],
    rules: usize,
) -> Verdicts {
    for (field, fault) in findings.unresolved.iter().chain(invalid) {
        context.report.error(view.kind, view.meta, field.clone(), fault.message.clone());
    }
    let first = |all: &[(String, Fault)]| all.first().map(|(_, fault)| fault.clone());
    let whole_rules: HashSet<&str> =
        invalid.iter().filter_map(|(field, _)| rule_of(field)).collect();
    let mut verdicts = Verdicts { unresolved: first(&findings.unresolved), ..Verdicts::default() };
    if rules > 0 && whole_rules.len() == rules {
        verdicts.rejected = first(invalid);
    } else if let Some((field, fault)) = invalid.first() {
        verdicts.partially = Some(format!("Dropped Rule {field}: {}", fault.message));
    }
    verdicts
}

/// The rule, if the field is that of its filters: then the whole rule cannot be used.
fn rule_of(field: &str) -> Option<&str> {
    let rule = field.strip_suffix(".filters")?;
    (!rule.contains(".backendRefs")).then_some(rule)
}

// === impl Verdicts ===

impl Verdicts {
    fn resolved(&self) -> Condition {
        verdict(RESOLVED_REFS, self.unresolved.as_ref())
    }

    fn conditions(&self) -> Vec<Condition> {
        let mut conditions = vec![verdict(ACCEPTED, self.rejected.as_ref()), self.resolved()];
        if let Some(message) = &self.partially {
            let kind = "PartiallyInvalid";
            conditions.push(condition(kind, true, "UnsupportedValue", message.as_str()));
        }
        conditions
    }
}
