//! Gateway API to routing tables (spec part 5).
//!
//! | file | what |
//! |---|---|
//! | `class` | which Gateways are ours |
//! | `listener` | listeners of Gateways and ListenerSets as one list, conflicts |
//! | `listener_tls` | their certificates, and how clients' are checked |
//! | `address` | `spec.addresses` |
//! | `reference` | ReferenceGrants and namespaces |
//! | `attachment` | which listeners a route attaches to |
//! | `routes` | all routes: attachment, compilation, their statuses |
//! | `http`, `l4` | one route object to routes with what they match |
//! | `filter`, `backend`, `policy` | the parts of a route, and what hangs on its backends |
//! | `hosts` | attached routes to listeners of the proxy |
//! | `programmed`, `status` | conditions |
//!
//! [`compile`] is a function of the snapshot alone; [`programmed::statuses`] adds what depends on effects.
mod address;
mod attachment;
mod backend;
mod class;
mod filter;
mod hosts;
mod http;
mod l4;
mod listener;
mod listener_tls;
pub(super) mod policy;
pub(super) mod programmed;
mod reference;
mod routes;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use attachment::Parents;
use backend::Client;
use class::Classes;
use hosts::Attached;
use listener::{ListenerState, SetState};
use policy::Policies;
use reference::{Grants, Referrer};
use routes::RouteCompiler;
use status::Fault;

use super::annotation::field;
use super::context::Context;
use super::service;
use super::suggest::closest;
use super::upstream::{self, warn_of_unknown};
use crate::api::class::GATEWAY_GROUP;
use crate::api::datapath::Transport;
use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Str};
use crate::api::object::gateway::{Gateway, ListenerSet, ObjectRef};
use crate::api::object::gateway_route::ParentRef;
use crate::api::object::{PortProtocol, Service};
use crate::api::route::Listener;
use crate::api::status::ObjectStatus;

/// Annotation of a Gateway: the ports on which connections begin with a PROXY protocol header, or `true`.
const ACCEPT_PROXY_PROTOCOL: &str = "accept-proxy-protocol";

/// What follows from the objects of Gateway API.
#[derive(Default)]
pub(super) struct Compiled {
    /// Sorted by Service, port and transport for each Gateway.
    pub(super) listeners: Vec<Listener>,
    /// The generated Services.
    pub(super) services: Vec<Arc<Service>>,
    /// The statuses of classes, routes and policies.
    pub(super) statuses: BTreeMap<ObjectKey, ObjectStatus>,
    /// The Gateways that are ours, for the statuses that depend on effects.
    pub(super) gateways: Vec<GatewayState>,
}

/// A Gateway of ours.
pub(super) struct GatewayState {
    gateway: Arc<Gateway>,
    /// The controller name of its class.
    controller: Str,
    /// The Service that has its addresses.
    service: NamespacedName,
    /// Why it is not accepted as a whole.
    rejected: Option<Fault>,
    /// The addresses that it asks for.
    requested: Vec<IpAddr>,
    /// The certificate that it shows to backends.
    client: Client,
    sets: Vec<SetState>,
    /// Its own listeners, then those of its ListenerSets.
    listeners: Vec<ListenerState>,
    proxy_protocol: ProxyProtocol,
}

/// On which ports connections begin with a PROXY protocol header.
#[derive(Debug, Default)]
struct ProxyProtocol {
    all: bool,
    ports: Vec<u16>,
}

/// Compiles all Gateways of the snapshot with their routes.
pub(super) fn compile(context: &mut Context<'_>, policies: Policies) -> Compiled {
    let objects = context.objects;
    let classes = Classes::new(objects);
    let mut statuses = classes.statuses(&mut context.report);
    let grants = Grants::new(objects);
    let gateways = collect(context, &classes, &grants);
    if gateways.is_empty() {
        return Compiled { statuses: policy::sorted(statuses), ..Compiled::default() };
    }
    let parents = Parents::new(&gateways);
    let mut compiler = RouteCompiler::new(context, &grants, policies, parents, gateways);
    compiler.http_and_grpc();
    compiler.l4(Kind::TlsRoute, &objects.tls_routes);
    compiler.l4(Kind::TcpRoute, &objects.tcp_routes);
    compiler.l4(Kind::UdpRoute, &objects.udp_routes);
    let done = compiler.finish();
    statuses.extend(done.statuses);
    let mut compiled = Compiled {
        statuses: policy::sorted(statuses),
        gateways: done.gateways,
        ..Compiled::default()
    };
    for (state, attached) in compiled.gateways.iter().zip(&done.attached) {
        state.report(context);
        if state.rejected.is_none() {
            compiled.listeners.extend(hosts::build(state, attached, context.config));
            compiled.services.extend(state.service().map(Arc::new));
        }
    }
    compiled
}

/// The Gateways that are ours, in the order of their names.
fn collect(context: &mut Context<'_>, classes: &Classes<'_>, grants: &Grants) -> Vec<GatewayState> {
    let mut sets: HashMap<NamespacedName, Vec<Arc<ListenerSet>>> = HashMap::new();
    for set in context.objects.listener_sets.values() {
        if listener::has_gateway_parent(set) {
            let parent = attachment::name_of(&set.parent, &set.meta);
            sets.entry(parent).or_default().push(Arc::clone(set));
        }
    }
    let mut gateways = Vec::new();
    for gateway in context.objects.gateways.values() {
        let meta = &gateway.meta;
        match classes.owns(gateway) {
            Some(controller) => {
                let sets = sets.remove(&meta.name).unwrap_or_default();
                gateways.push(GatewayState::new(context, grants, gateway, controller, &sets));
            }
            None => {
                if let Some(message) = classes.misspelt(gateway) {
                    let field = "spec.gatewayClassName".to_owned();
                    context.report.warning(Kind::Gateway, meta, field, message);
                }
            }
        }
    }
    for set in sets.values().flatten() {
        let parent = attachment::name_of(&set.parent, &set.meta);
        if !context.objects.gateways.contains_key(&parent) {
            let message = format!("Gateway {parent} does not exist{}", hint(context, &parent));
            let field = "spec.parentRef".to_owned();
            context.report.warning(Kind::ListenerSet, &set.meta, field, message);
        }
    }
    gateways
}

/// The Gateway of the same namespace whose name is nearly this.
fn hint(context: &Context<'_>, name: &NamespacedName) -> String {
    let same = |key: &&NamespacedName| key.namespace == name.namespace;
    let candidates = context.objects.gateways.keys().filter(same).map(|key| &*key.name);
    closest(&name.name, candidates)
}

/// A reference to a Gateway from anywhere.
fn gateway_reference(gateway: &Gateway) -> ParentRef {
    let NamespacedName { namespace, name } = &gateway.meta.name;
    let object = ObjectRef {
        group: GATEWAY_GROUP.into(),
        kind: Kind::Gateway.as_str().into(),
        namespace: Some(Str::clone(namespace)),
        name: Str::clone(name),
    };
    ParentRef { object, ..ParentRef::default() }
}

// === impl GatewayState ===

impl GatewayState {
    fn new(
        context: &mut Context<'_>,
        grants: &Grants,
        gateway: &Arc<Gateway>,
        controller: Str,
        sets: &[Arc<ListenerSet>],
    ) -> Self {
        let meta = &gateway.meta;
        let parameters = gateway.infrastructure_parameters.as_ref().map(|parameters| {
            let message = format!(
                "infrastructure.parametersRef names {} {}, and no parameters are known; leave it out",
                parameters.kind, parameters.name
            );
            Fault::new("InvalidParameters", message)
        });
        let requested = address::requested(gateway);
        let rejected = parameters.or_else(|| requested.as_ref().err().cloned());
        let sets = listener::sets(context.objects, gateway, sets);
        let mut listeners = listener::merge(gateway, &sets);
        listener_tls::resolve(context, grants, gateway, &sets, &mut listeners);
        let from = Referrer { kind: Kind::Gateway, namespace: &meta.name.namespace };
        let invalid = "InvalidClientCertificateRef";
        let client = match &gateway.client_certificate {
            None => Ok(None),
            Some(reference) => {
                let loaded = listener_tls::certificate(context, grants, from, reference, invalid);
                loaded.map(|loaded| Some(loaded.certificate))
            }
        };
        let name = format!("{}-gateway-{}", context.config.name_prefix, meta.name.name);
        Self {
            gateway: Arc::clone(gateway),
            controller,
            service: NamespacedName {
                namespace: Str::clone(&meta.name.namespace),
                name: service::short_name(&name).into(),
            },
            rejected,
            requested: requested.unwrap_or_default(),
            client,
            sets,
            listeners,
            proxy_protocol: ProxyProtocol::read(context, meta),
        }
    }

    /// The Service for its addresses; None if it has no port that could be served.
    fn service(&self) -> Option<Service> {
        let mut seen = BTreeSet::new();
        let mut ports = Vec::new();
        for listener in &self.listeners {
            let Some(protocol) = listener.protocol else { continue };
            let transport = protocol.transport();
            if seen.insert((listener.port, transport)) {
                let over = match transport {
                    Transport::Tcp => PortProtocol::Tcp,
                    Transport::Udp => PortProtocol::Udp,
                };
                ports.push((protocol.word(), listener.port, over));
            }
        }
        let service =
            || service::for_gateway(&self.gateway, &self.service, &self.requested, &ports);
        (!ports.is_empty()).then(service)
    }

    /// Complains about what is wrong with it.
    fn report(&self, context: &mut Context<'_>) {
        let meta = &self.gateway.meta;
        let report = &mut context.report;
        if let Some(fault) = &self.rejected {
            report.error(Kind::Gateway, meta, "spec".to_owned(), fault.message.clone());
        }
        if let Err(fault) = &self.client {
            let field = "spec.tls.backend.clientCertificateRef".to_owned();
            report.error(Kind::Gateway, meta, field, fault.message.clone());
        }
        for set in self.sets.iter().filter(|set| !set.allowed) {
            let field = "spec.parentRef".to_owned();
            let message =
                format!("Gateway {} does not let it attach (allowedListeners)", meta.name);
            report.error(Kind::ListenerSet, &set.set.meta, field, message);
        }
        for listener in &self.listeners {
            let (kind, meta, _) = listener.owner(&self.gateway, &self.sets);
            let faults = [&listener.rejected, &listener.conflict, &listener.unresolved];
            for fault in faults.into_iter().flatten() {
                let field = format!("spec.listeners[{}]", listener.index);
                report.error(kind, meta, field, fault.message.clone());
            }
        }
    }
}

// === impl ProxyProtocol ===

impl ProxyProtocol {
    fn read(context: &mut Context<'_>, meta: &Meta) -> Self {
        warn_of_unknown(Kind::Gateway, meta, &[ACCEPT_PROXY_PROTOCOL], &mut context.report);
        let key = format!("{}{ACCEPT_PROXY_PROTOCOL}", upstream::PREFIX);
        let Some(value) = meta.annotation(&key) else { return Self::default() };
        if ["true", "false"].contains(&value) {
            return Self { all: value == "true", ports: Vec::new() };
        }
        let ports: Result<Vec<u16>, _> = value.split(',').map(|port| port.trim().parse()).collect();
        ports.map_or_else(
            |_| {
                // Who asks for it has a load balancer in front: without it clients could lie about their addresses
                // or nothing would work; the header is required everywhere.
                let message = format!(
                    "{value:?} is not a value for {key}: true, false or ports such as \"80,443\"; it is required on all ports"
                );
                context.report.error(Kind::Gateway, meta, field(&key), message);
                Self { all: true, ports: Vec::new() }
            },
            |ports| Self { all: false, ports },
        )
    }

    fn covers(&self, port: u16) -> bool {
        self.all || self.ports.contains(&port)
    }
}

/// One entry for each listener of each Gateway.
fn nothing_attached(gateways: &[GatewayState]) -> Vec<Vec<Attached>> {
    let of = |state: &GatewayState| state.listeners.iter().map(|_| Attached::default()).collect();
    gateways.iter().map(of).collect()
}
