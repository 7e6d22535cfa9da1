//! One Service: its frontends with their backends, and what is wrong with it.
use std::net::IpAddr;
use std::sync::Arc;

use super::place::Place;
use crate::api::address::{Network, Port, is_elsewhere};
use crate::api::class::{SERVICE_PROXY_NAME_LABEL, is_our_load_balancer};
use crate::api::cluster::MANAGED_BY;
use crate::api::datapath::Transport;
use crate::api::endpoint::Endpoint;
use crate::api::meta::{Kind, Meta, ObjectKey, Origin};
use crate::api::object::{
    ExternalTrafficPolicy, PortProtocol, Service, ServicePortSpec, ServiceType,
};
use crate::api::problem::{Problem, Severity};
use crate::api::service::{Backend, Frontend, FrontendKind, Reach};
use crate::arrange::Arrange;
use crate::proto::object::parse_network_of;

/// Where cloud controllers and kube-proxy look if `spec.loadBalancerSourceRanges` is empty.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Marks Services whose cluster address nobody serves, as kube-proxy does.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// All that the frontends of a Service follow from.
pub(super) struct Given<'a> {
    pub(super) service: &'a Arc<Service>,
    /// The endpoints of each port, in the order of `spec.ports`.
    pub(super) endpoints: &'a [Arc<[Endpoint]>],
    /// What LB-IPAM has given it.
    pub(super) addresses: &'a [IpAddr],
    /// Its ports that the proxy serves.
    pub(super) proxied: &'a [(Port, Transport)],
    pub(super) place: &'a Place,
    pub(super) kube_proxy_replacement: bool,
}

/// What follows.
#[derive(Default)]
pub(super) struct Found {
    pub(super) frontends: Vec<Arc<Frontend>>,
    pub(super) problems: Vec<Problem>,
}

/// The transport of the proxy's listeners for a protocol; it has none for SCTP.
pub(super) const fn transport(protocol: PortProtocol) -> Option<Transport> {
    match protocol {
        PortProtocol::Tcp => Some(Transport::Tcp),
        PortProtocol::Udp => Some(Transport::Udp),
        PortProtocol::Sctp => None,
    }
}

/// Computes one Service.
pub(super) fn compute(given: &Given<'_>) -> Found {
    let mut found = Found::default();
    let places = places(given, &mut found.problems);
    if places.is_empty() {
        return found;
    }
    let sources = sources(given.service, &mut found.problems);
    for (at, spec) in given.service.ports.iter().enumerate() {
        let endpoints = given.endpoints.get(at).map_or(&[][..], |list| list);
        let mut chosen: [Option<Chosen>; 2] = [None, None];
        for &(kind, address) in &places {
            let Some(port) = port_of(given, kind, spec) else { continue };
            let v6 = address.is_ipv6();
            let chosen =
                chosen[usize::from(v6)].get_or_insert_with(|| Chosen::new(given, endpoints, v6));
            let sources = sources.clone().filter(|_| kind == FrontendKind::LoadBalancer);
            found.frontends.push(Arc::new(chosen.frontend(
                given.service,
                kind,
                (address, port, spec.protocol),
                sources,
            )));
        }
    }
    found
}

/// The backends of one port and family.
struct Chosen {
    all: Arc<[Backend]>,
    local: Arc<[Backend]>,
}

// === impl Chosen ===

impl Chosen {
    fn new(given: &Given<'_>, endpoints: &[Endpoint], v6: bool) -> Self {
        let backend = |endpoint: &Endpoint| {
            let reach = given.place.reach(endpoint);
            (Backend { address: endpoint.address, reach }, endpoint.ready, endpoint.terminating)
        };
        let of_family = endpoints.iter().filter(|it| it.address.is_ipv6() == v6);
        let mut all: Vec<(Backend, bool, bool)> = of_family.map(backend).collect();
        all.arrange();
        let here = |it: &&(Backend, bool, bool)| matches!(it.0.reach, Reach::Local | Reach::Host);
        let local = usable(all.iter().filter(here));
        Self { all: usable(all.iter()), local }
    }

    fn frontend(
        &self,
        service: &Service,
        kind: FrontendKind,
        (address, port, protocol): (IpAddr, Port, PortProtocol),
        sources: Option<Arc<[Network]>>,
    ) -> Frontend {
        // A cluster address has the internal policy wherever a connection comes from; the others the external one.
        let external = service.external_traffic_policy == ExternalTrafficPolicy::Local;
        let (outside, inside) = match kind {
            FrontendKind::ClusterIp => {
                (service.internal_traffic_local, service.internal_traffic_local)
            }
            _ => (external, false),
        };
        Frontend {
            address,
            port,
            protocol,
            service: service.meta.name.clone(),
            kind,
            affinity: service.session_affinity,
            local_from_outside: outside,
            local_from_inside: inside,
            sources,
            backends: Arc::clone(&self.all),
            local_backends: if outside { Arc::clone(&self.local) } else { Arc::default() },
        }
    }
}

/// The ready ones, or else those that terminate and still serve.
fn usable<'a>(all: impl Iterator<Item = &'a (Backend, bool, bool)> + Clone) -> Arc<[Backend]> {
    let ready: Vec<Backend> = all.clone().filter(|it| it.1).map(|it| it.0).collect();
    if ready.is_empty() { all.filter(|it| it.2).map(|it| it.0).collect() } else { ready.into() }
}

/// The addresses at which a Service is reached; the kind that is first keeps an address that comes twice.
fn places(given: &Given<'_>, problems: &mut Vec<Problem>) -> Vec<(FrontendKind, IpAddr)> {
    let service = given.service;
    let mut places: Vec<(FrontendKind, IpAddr)> = Vec::new();
    if service.kind == ServiceType::ExternalName || is_generated(&service.meta) {
        return places;
    }
    let mut add = |kind, address: IpAddr| {
        // Node ports have other numbers.
        let port = |it: FrontendKind| it == FrontendKind::NodePort;
        if !places.iter().any(|it| it.1 == address && port(it.0) == port(kind)) {
            places.push((kind, address));
        }
    };
    let ours = is_our_load_balancer(service);
    if ours {
        given.addresses.iter().for_each(|it| add(FrontendKind::LoadBalancer, *it));
    }
    let as_kube_proxy = given.kube_proxy_replacement && is_for_kube_proxy(service);
    if as_kube_proxy && !service.headless {
        service.cluster_ips.iter().for_each(|it| add(FrontendKind::ClusterIp, *it));
    }
    if ours || as_kube_proxy {
        for (at, &address) in service.external_ips.iter().enumerate() {
            if is_elsewhere(address) {
                add(FrontendKind::ExternalIp, address);
            } else {
                let message = format!("{address} cannot be an address for clients; it is left out");
                problems.push(problem(service, &format!("spec.externalIPs[{at}]"), message));
            }
        }
    }
    let has_node_ports = matches!(service.kind, ServiceType::NodePort | ServiceType::LoadBalancer);
    if as_kube_proxy && has_node_ports {
        given.place.own().for_each(|it| add(FrontendKind::NodePort, it));
    }
    places
}

/// The port of a frontend; None if it has none there, or the proxy has it.
fn port_of(given: &Given<'_>, kind: FrontendKind, spec: &ServicePortSpec) -> Option<Port> {
    match kind {
        FrontendKind::NodePort => (spec.node_port != 0).then_some(Port(spec.node_port)),
        FrontendKind::ClusterIp => Some(Port(spec.port)),
        FrontendKind::LoadBalancer | FrontendKind::ExternalIp => {
            let port = Port(spec.port);
            let proxied = transport(spec.protocol)
                .is_some_and(|transport| given.proxied.contains(&(port, transport)));
            (!proxied).then_some(port)
        }
    }
}

/// Whether it was made for an Ingress or Gateway, here or by another agent: then the proxy serves it or nobody does.
fn is_generated(meta: &Meta) -> bool {
    match meta.origin {
        Origin::Generated(_) => true,
        Origin::Cluster => meta.labels.get(MANAGED_BY.0).is_some_and(|by| &**by == MANAGED_BY.1),
        Origin::File(_) => false,
    }
}

/// Whether kube-proxy, if there were one, would serve the Service.
fn is_for_kube_proxy(service: &Service) -> bool {
    let labels = &service.meta.labels;
    !labels.contains_key(SERVICE_PROXY_NAME_LABEL) && !labels.contains_key(HEADLESS_LABEL)
}

/// Who may connect; a range that cannot be read lets nobody in, rather than everybody.
fn sources(service: &Service, problems: &mut Vec<Problem>) -> Option<Arc<[Network]>> {
    let annotation = service.meta.annotation(SOURCE_RANGES).unwrap_or_default().trim();
    let ranges: Vec<(String, &str)> = if !service.source_ranges.is_empty() {
        let field = |at| format!("spec.loadBalancerSourceRanges[{at}]");
        service.source_ranges.iter().enumerate().map(|(at, it)| (field(at), &**it)).collect()
    } else if annotation.is_empty() {
        return None;
    } else {
        let field = || format!("metadata.annotations[{SOURCE_RANGES}]");
        annotation.split(',').map(|it| (field(), it)).collect()
    };
    let mut networks = Vec::new();
    let mut closed = false;
    for (field, range) in ranges {
        match parse_network_of(range.trim()) {
            Ok(network) => networks.push(network),
            Err(why) => {
                closed = true;
                problems.push(problem(service, &field, format!("{why}; nobody may connect")));
            }
        }
    }
    if closed {
        networks.clear();
    }
    networks.arrange_by_key(|it| (it.address, it.length));
    networks.dedup();
    Some(networks.into())
}

pub(super) fn problem(service: &Service, field: &str, message: String) -> Problem {
    Problem {
        position: service.meta.position(field),
        object: Some(ObjectKey { kind: Kind::Service, name: service.meta.name.clone() }),
        field: field.to_owned(),
        message,
        severity: Severity::Error,
    }
}
