//! Objects as JSON: the text they were read from, or their fields if Pilus made them, plus their status.
use std::sync::Arc;

use super::moment::rfc3339;
use super::resource;
use super::state::State;
use crate::api::address::Port;
use crate::api::endpoint::ServicePort;
use crate::api::meta::{Kind, Labels, Meta, NamespacedName, ObjectKey};
use crate::api::object::{
    EndpointSlice, Lease, Node, Pod, PortProtocol, Secret, Service, ServiceType, TargetPort,
};
use crate::api::objects::HasMeta;
use crate::api::query::ShownStatus;
use crate::arrange::Arrange;
use crate::proto::object::{conditions, gateway_status, load_balancer};
use crate::proto::value::{Data, Value, parse_json};

/// Endpoints objects are kept among the EndpointSlices under this prefix.
const ENDPOINTS_PREFIX: &str = "endpoints/";

/// One object of any kind, shared with the snapshot.
#[derive(Clone)]
pub(super) enum Object {
    /// Kinds whose JSON is that of their metadata and whose status has no typed part.
    Plain(Kind, Arc<dyn HasMeta>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    /// An EndpointSlice.
    Slice(Arc<EndpointSlice>),
    /// A declared Endpoints object.
    Endpoints(Arc<EndpointSlice>),
    /// The Endpoints that Kubernetes would keep for a Service.
    EndpointsOf(Arc<Service>),
    Secret(Arc<Secret>),
    Lease(Arc<Lease>),
}

/// All objects of `kind` in `namespace` (all namespaces if None), in the order of their names.
pub(super) fn select(state: &State, kind: Kind, namespace: Option<&str>) -> Vec<Object> {
    let objects = &state.view.objects;
    let inside = |name: &NamespacedName| {
        !kind.is_namespaced() || namespace.is_none_or(|wanted| &*name.namespace == wanted)
    };
    macro_rules! all {
        ($table:expr, $make:expr) => {
            $table
                .iter()
                .filter(|(name, _)| inside(name))
                .map(|(_, it)| $make(it.clone()))
                .collect()
        };
    }
    let is_endpoints = |slice: &EndpointSlice| slice.meta.name.name.starts_with(ENDPOINTS_PREFIX);
    match kind {
        Kind::Namespace => all!(objects.namespaces, |it| Object::Plain(kind, it)),
        Kind::Node => all!(objects.nodes, Object::Node),
        Kind::Pod => all!(objects.pods, Object::Pod),
        Kind::Service => all!(objects.services, Object::Service),
        Kind::EndpointSlice => objects
            .endpoint_slices
            .iter()
            .filter(|(name, slice)| inside(name) && !is_endpoints(slice))
            .map(|(_, slice)| Object::Slice(Arc::clone(slice)))
            .collect(),
        Kind::Endpoints => endpoints(state, &inside),
        Kind::Secret => all!(objects.secrets, Object::Secret),
        Kind::ConfigMap => all!(objects.config_maps, |it| Object::Plain(kind, it)),
        Kind::Ingress => all!(objects.ingresses, |it| Object::Plain(kind, it)),
        Kind::IngressClass => all!(objects.ingress_classes, |it| Object::Plain(kind, it)),
        Kind::CiliumLoadBalancerIPPool => all!(objects.pools, |it| Object::Plain(kind, it)),
        Kind::CiliumL2AnnouncementPolicy => {
            all!(objects.l2_policies, |it| Object::Plain(kind, it))
        }
        Kind::GatewayClass => all!(objects.gateway_classes, |it| Object::Plain(kind, it)),
        Kind::Gateway => all!(objects.gateways, |it| Object::Plain(kind, it)),
        Kind::ListenerSet => all!(objects.listener_sets, |it| Object::Plain(kind, it)),
        Kind::HttpRoute => all!(objects.http_routes, |it| Object::Plain(kind, it)),
        Kind::GrpcRoute => all!(objects.grpc_routes, |it| Object::Plain(kind, it)),
        Kind::TlsRoute => all!(objects.tls_routes, |it| Object::Plain(kind, it)),
        Kind::TcpRoute => all!(objects.tcp_routes, |it| Object::Plain(kind, it)),
        Kind::UdpRoute => all!(objects.udp_routes, |it| Object::Plain(kind, it)),
        Kind::ReferenceGrant => all!(objects.reference_grants, |it| Object::Plain(kind, it)),
        Kind::BackendTlsPolicy => all!(objects.backend_tls_policies, |it| Object::Plain(kind, it)),
        Kind::XBackendTrafficPolicy => {
            all!(objects.backend_traffic_policies, |it| Object::Plain(kind, it))
        }
        Kind::XBackend => all!(objects.external_backends, |it| Object::Plain(kind, it)),
        Kind::Lease => all!(objects.leases, Object::Lease),
    }
}

/// Declared Endpoints, and those of every Service that has none of its own.
fn endpoints(state: &State, inside: &dyn Fn(&NamespacedName) -> bool) -> Vec<Object> {
    let objects = &state.view.objects;
    let mut found: Vec<(NamespacedName, Object)> = Vec::new();
    for slice in objects.endpoint_slices.values() {
        if let Some(name) = slice.meta.name.name.strip_prefix(ENDPOINTS_PREFIX) {
            let name = NamespacedName::new(&slice.meta.name.namespace, name);
            found.push((name, Object::Endpoints(Arc::clone(slice))));
        }
    }
    let declared = found.len();
    for (name, service) in &*objects.services {
        let known = found[..declared].binary_search_by(|(other, _)| other.cmp(name)).is_ok();
        if !known && service.kind != ServiceType::ExternalName {
            found.push((name.clone(), Object::EndpointsOf(Arc::clone(service))));
        }
    }
    found.retain(|(name, _)| inside(name));
    found.arrange_by(|left, right| left.0.cmp(&right.0));
    found.into_iter().map(|(_, object)| object).collect()
}

// === impl Object ===

impl Object {
    /// The name under which it is asked for.
    pub(super) fn name(&self) -> &str {
        let name = &self.meta().name.name;
        name.strip_prefix(ENDPOINTS_PREFIX).unwrap_or(name)
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Plain(kind, _) => *kind,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Slice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) | Self::EndpointsOf(_) => Kind::Endpoints,
            Self::Secret(_) => Kind::Secret,
            Self::Lease(_) => Kind::Lease,
        }
    }

    fn meta(&self) -> &Meta {
        match self {
            Self::Plain(_, object) => object.meta(),
            Self::Node(object) => &object.meta,
            Self::Pod(object) => &object.meta,
            Self::Service(object) | Self::EndpointsOf(object) => &object.meta,
            Self::Slice(object) | Self::Endpoints(object) => &object.meta,
            Self::Secret(object) => &object.meta,
            Self::Lease(object) => &object.meta,
        }
    }

    /// The whole object with its status.
    pub(super) fn json(&self, state: &State) -> Value {
        let parsed = match self {
            Self::EndpointsOf(_) => None,
            _ => parse_json(&self.meta().json).ok().filter(|json| json.get("kind").is_some()),
        };
        let mut json = parsed.unwrap_or_else(|| self.generated_json(state));
        self.complete_metadata(&mut json);
        if let Self::Secret(secret) = self {
            json.set("data", secret_keys(secret));
        }
        let key = ObjectKey { kind: self.kind(), name: self.meta().name.clone() };
        let shown = state.view.statuses.get(&key);
        if let Some(status) = self.status(shown) {
            json.set("status", status);
        }
        json
    }

    /// What the API server would have filled in.
    fn complete_metadata(&self, json: &mut Value) {
        let meta = self.meta();
        let metadata = json.entry("metadata");
        if metadata.get("creationTimestamp").is_none() {
            metadata.set("creationTimestamp", rfc3339(meta.created));
        }
        if metadata.get("uid").is_none() && !meta.uid.is_empty() {
            metadata.set("uid", &*meta.uid);
        }
        if metadata.get("generation").is_none() && meta.generation > 0 {
            metadata.set("generation", meta.generation);
        }
        if !meta.name.namespace.is_empty() && metadata.get("namespace").is_none() {
            metadata.set("namespace", &*meta.name.namespace);
        }
    }

    fn generated_json(&self, state: &State) -> Value {
        let kind = self.kind();
        let meta = self.meta();
        let mut metadata = Value::map().with("name", self.name());
        if !meta.name.namespace.is_empty() {
            metadata.set("namespace", &*meta.name.namespace);
        }
        if !meta.labels.is_empty() {
            metadata.set("labels", labels(&meta.labels));
        }
        if !meta.annotations.is_empty() {
            metadata.set("annotations", labels(&meta.annotations));
        }
        let json = Value::map()
            .with("apiVersion", resource::of(kind).api_version)
            .with("kind", kind.as_str())
            .with("metadata", metadata);
        match self {
            Self::Service(service) => json.with("spec", service_spec(service)),
            Self::Lease(lease) => json.with("spec", lease_spec(lease)),
            Self::Slice(slice) => slice_fields(json, slice),
            Self::Endpoints(slice) => json.with("subsets", declared_subsets(slice)),
            Self::EndpointsOf(service) => json.with("subsets", subsets(state, service)),
            Self::Plain(..) | Self::Node(_) | Self::Pod(_) | Self::Secret(_) => json,
        }
    }

    fn status(&self, shown: Option<&ShownStatus>) -> Option<Value> {
        let generation = self.meta().generation;
        if matches!(resource::of(self.kind()).group, resource::GATEWAY | resource::EXPERIMENTAL) {
            return gateway_status(self.kind(), shown, generation);
        }
        let mut status = Value::map();
        match self {
            Self::Node(node) => {
                status.set(
                    "addresses",
                    node.internal_ips.iter().map(internal_ip).collect::<Vec<_>>(),
                );
            }
            Self::Pod(pod) => status = pod_status(pod),
            Self::Service(service) => {
                let ips = shown
                    .and_then(|shown| shown.load_balancer.as_deref())
                    .unwrap_or(&service.status_ips);
                status.set("loadBalancer", load_balancer(ips, &[]));
            }
            Self::Plain(Kind::Ingress, _) => {
                let ips = shown.and_then(|shown| shown.load_balancer.as_deref()).unwrap_or(&[]);
                let ports = shown.map_or(&[][..], |shown| &shown.ports);
                status.set("loadBalancer", load_balancer(ips, ports));
            }
            _ => {}
        }
        if let Some(shown) = shown.filter(|shown| !shown.conditions.is_empty()) {
            status.set("conditions", conditions(&shown.conditions, generation));
        }
        (!status.members().is_empty()).then_some(status)
    }
}

fn labels(labels: &Labels) -> Value {
    labels.iter().map(|(key, value)| (&**key, &**value)).collect()
}

fn internal_ip(ip: &std::net::IpAddr) -> Value {
    Value::map().with("address", ip.to_string()).with("type", "InternalIP")
}

/// Which entries there are, never what is in them.
fn secret_keys(secret: &Secret) -> Value {
    secret.data.keys().map(|key| (&**key, Value::new(Data::Null))).collect()
}

fn pod_status(pod: &Pod) -> Value {
    let mut status = Value::map();
    // Of a Pod that has ended it is not kept whether it succeeded or failed.
    if !pod.finished {
        status.set("phase", "Running");
        let ready = if pod.ready { "True" } else { "False" };
        let condition = Value::map().with("type", "Ready").with("status", ready);
        status.set("conditions", vec![condition]);
    }
    if let Some(first) = pod.ips.first() {
        status.set("podIP", first.to_string());
        let ips = pod.ips.iter().map(|ip| Value::map().with("ip", ip.to_string()));
        status.set("podIPs", ips.collect::<Vec<_>>());
    }
    status
}

/// `TCP`, `UDP` or `SCTP`.
pub(super) const fn protocol(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "TCP",
        PortProtocol::Udp => "UDP",
        PortProtocol::Sctp => "SCTP",
    }
}

/// `spec.type` as Kubernetes writes it.
pub(super) const fn service_type(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName => "ExternalName",
    }
}

fn service_spec(service: &Service) -> Value {
    let mut spec = Value::map().with("type", service_type(service.kind));
    if service.headless {
        spec.set("clusterIP", "None");
    } else if let Some(first) = service.cluster_ips.first() {
        spec.set("clusterIP", first.to_string());
        let ips = service.cluster_ips.iter().map(|ip| Value::from(ip.to_string()));
        spec.set("clusterIPs", ips.collect::<Vec<_>>());
    }
    if !service.external_ips.is_empty() {
        let ips = service.external_ips.iter().map(|ip| Value::from(ip.to_string()));
        spec.set("externalIPs", ips.collect::<Vec<_>>());
    }
    let ports = service.ports.iter().map(|port| {
        let target = match &port.target {
            TargetPort::Number(number) => Value::from(*number),
            TargetPort::Name(name) => Value::from(&**name),
        };
        let mut json = Value::map();
        if !port.name.is_empty() {
            json.set("name", &*port.name);
        }
        json.set("port", port.port);
        json.set("protocol", protocol(port.protocol));
        json.set("targetPort", target);
        if port.node_port > 0 {
            json.set("nodePort", port.node_port);
        }
        json
    });
    spec.set("ports", ports.collect::<Vec<_>>());
    if let Some(selector) = &service.selector {
        spec.set("selector", labels(selector));
    }
    spec.with_some("loadBalancerClass", service.load_balancer_class.as_deref())
        .with_some("loadBalancerIP", service.load_balancer_ip.as_deref())
}

fn lease_spec(lease: &Lease) -> Value {
    Value::map()
        .with_some("holderIdentity", lease.holder.as_deref())
        .with("acquireTime", rfc3339(lease.acquired))
        .with("leaseTransitions", lease.transitions)
}

fn slice_ports(slice: &EndpointSlice) -> Value {
    let ports = slice.ports.iter().map(|port| {
        Value::map()
            .with("name", &*port.name)
            .with("port", port.port)
            .with("protocol", protocol(port.protocol))
    });
    ports.collect::<Vec<_>>().into()
}

fn slice_fields(json: Value, slice: &EndpointSlice) -> Value {
    let v6 = slice
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.addresses.first())
        .any(|ip| ip.is_ipv6());
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let addresses = endpoint.addresses.iter().map(|ip| Value::from(ip.to_string()));
        let conditions = Value::map()
            .with("ready", endpoint.ready)
            .with("serving", endpoint.serving)
            .with("terminating", endpoint.terminating);
        Value::map()
            .with("addresses", addresses.collect::<Vec<_>>())
            .with("conditions", conditions)
            .with_some("nodeName", endpoint.node.as_deref())
            .with_some("targetRef", endpoint.pod.as_ref().map(pod_reference))
    });
    json.with("addressType", if v6 { "IPv6" } else { "IPv4" })
        .with("endpoints", endpoints.collect::<Vec<_>>())
        .with("ports", slice_ports(slice))
}

fn pod_reference(pod: &NamespacedName) -> Value {
    Value::map().with("kind", "Pod").with("name", &*pod.name).with("namespace", &*pod.namespace)
}

fn declared_subsets(slice: &EndpointSlice) -> Value {
    let addresses = |ready: bool| -> Vec<Value> {
        let chosen = slice.endpoints.iter().filter(|endpoint| endpoint.ready == ready);
        chosen
            .flat_map(|endpoint| endpoint.addresses.first())
            .map(|ip| Value::map().with("ip", ip.to_string()))
            .collect()
    };
    vec![subset(addresses(true), addresses(false), slice_ports(slice))].into()
}

fn subset(ready: Vec<Value>, not_ready: Vec<Value>, ports: Value) -> Value {
    let mut subset = Value::map();
    if !ready.is_empty() {
        subset.set("addresses", ready);
    }
    if !not_ready.is_empty() {
        subset.set("notReadyAddresses", not_ready);
    }
    subset.with("ports", ports)
}

/// One subset for each port, since named target ports may differ from Pod to Pod.
fn subsets(state: &State, service: &Service) -> Value {
    let mut all = Vec::new();
    for port in &service.ports {
        let endpoints = state.endpoints_of(&ServicePort {
            service: service.meta.name.clone(),
            port: Port(port.port),
            protocol: port.protocol,
        });
        let mut by_target: std::collections::BTreeMap<u16, (Vec<Value>, Vec<Value>)> =
            std::collections::BTreeMap::new();
        for endpoint in endpoints {
            let address = Value::map()
                .with("ip", endpoint.address.ip().to_string())
                .with_some("nodeName", endpoint.node.as_deref())
                .with_some("targetRef", endpoint.pod.as_ref().map(pod_reference));
            let (ready, not_ready) = by_target.entry(endpoint.address.port()).or_default();
            if endpoint.ready { ready.push(address) } else { not_ready.push(address) }
        }
        for (target, (ready, not_ready)) in by_target {
            let mut json = Value::map();
            if !port.name.is_empty() {
                json.set("name", &*port.name);
            }
            json.set("port", target);
            json.set("protocol", protocol(port.protocol));
            all.push(subset(ready, not_ready, vec![json].into()));
        }
    }
    all.into()
}
