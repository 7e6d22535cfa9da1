//! `/v1/services`, `/v1/endpoints`, `/v1/addresses`: one JSON object a line of the tables
//! that `pilus service list` and its sisters print.
//!
//! The shapes are those of `pilus.dev/v1alpha1`; fields are only ever added.
use std::collections::HashMap;
use std::net::IpAddr;

use super::moment::{Moment, rfc3339};
use super::object::{protocol, service_type};
use super::state::State;
use crate::api::address::Port;
use crate::api::announce::Role;
use crate::api::datapath::Transport;
use crate::api::endpoint::{Endpoint, ServicePort};
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Origin};
use crate::api::object::{PortProtocol, Service, ServiceType};
use crate::api::route::ListenerProtocol;
use crate::api::service::{Backend, Frontend, FrontendKind, Reach};
use crate::arrange::Arrange;
use crate::proto::value::{Data, Value};

/// `{"namespace": …, "name": …}`
pub(super) fn name(name: &NamespacedName) -> Value {
    let json = Value::map();
    let json =
        if name.namespace.is_empty() { json } else { json.with("namespace", &*name.namespace) };
    json.with("name", &*name.name)
}

/// `{"kind": …, "namespace": …, "name": …}`
pub(super) fn object_key(key: &ObjectKey) -> Value {
    let mut json = Value::map().with("kind", key.kind.as_str());
    if !key.name.namespace.is_empty() {
        json.set("namespace", &*key.name.namespace);
    }
    json.with("name", &*key.name.name)
}

/// `Holder`, `Standby`, `Probing`, `Conflict`
pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Holder => "Holder",
        Role::Standby => "Standby",
        Role::Probing => "Probing",
        Role::Conflict => "Conflict",
    }
}

/// Every virtual address and port of every Service: `id`, `frontend`, `type`, `service`, `servedBy` (`proxy`, `kernel` or
/// null), `backends` (with `reach`, and `via` for direct return, where the kernel serves), and `holder`, `role`,
/// `interface` if it is announced. Cluster addresses and node ports are there if they are served. `id` counts the lines and is not
/// kept from one call to the next.
pub(super) fn services(state: &State) -> Vec<Value> {
    let mut all = Vec::new();
    let mut further: HashMap<&NamespacedName, Vec<&Frontend>> = HashMap::new();
    for it in &state.balancing.frontends {
        if matches!(it.kind, FrontendKind::ClusterIp | FrontendKind::NodePort) {
            further.entry(&it.service).or_default().push(it);
        }
    }
    for service in state.view.objects.services.values() {
        let balanced = service.kind == ServiceType::LoadBalancer;
        let addresses = if balanced { state.addresses_of(service) } else { Vec::new() };
        let external = service.external_ips.iter().filter(|ip| !addresses.contains(ip));
        for &address in addresses.iter().chain(external) {
            for port in &service.ports {
                let id = all.len() + 1;
                all.push(frontend(state, service, id, address, port.port, port.protocol));
            }
        }
        let name = &service.meta.name;
        for served in further.get(name).into_iter().flatten() {
            let (port, id) = (served.port.0, all.len() + 1);
            all.push(frontend(state, service, id, served.address, port, served.protocol));
        }
    }
    all
}

fn frontend(
    state: &State,
    service: &Service,
    id: usize,
    address: IpAddr,
    port: u16,
    spec: PortProtocol,
) -> Value {
    let protocol = protocol(spec);
    let transport = if spec == PortProtocol::Udp { Transport::Udp } else { Transport::Tcp };
    let listener = state.listeners.by_address.get(&(address, Port(port), transport));
    let listener = listener.filter(|listener| listener.service == service.meta.name);
    let name_of = &service.meta.name;
    let served = state.frontend(name_of, address, Port(port), spec);
    let endpoints = || {
        let port = ServicePort { service: name_of.clone(), port: Port(port), protocol: spec };
        state.endpoints_of(&port)
    };
    let (served_by, backends) = match (listener, served) {
        (Some(_), _) => ("proxy".into(), Vec::new()),
        (None, Some(served)) => {
            let reached = |it: &Endpoint| with_reach(backend_endpoint(it), it, served);
            ("kernel".into(), endpoints().iter().map(reached).collect())
        }
        (None, None) => {
            (Value::new(Data::Null), endpoints().iter().map(backend_endpoint).collect())
        }
    };
    let frontend = Value::map()
        .with("address", address.to_string())
        .with("port", port)
        .with("protocol", protocol);
    let json = Value::map()
        .with("id", id)
        .with("frontend", frontend)
        .with("type", service_type(service.kind))
        .with("service", name(&service.meta.name))
        .with("servedBy", served_by)
        .with("backends", backends);
    match state.announcement(address) {
        None => json,
        Some(entry) => json
            .with_some("holder", entry.holder.as_deref())
            .with("role", role(entry.role))
            .with("interface", &*entry.interface),
    }
}

/// How a backend is reached, if connections go there.
fn with_reach(json: Value, endpoint: &Endpoint, served: &Frontend) -> Value {
    let mut all = served.backends.iter().chain(&*served.local_backends);
    let Some(Backend { reach, .. }) = all.find(|it| it.address == endpoint.address) else {
        return json;
    };
    match reach {
        Reach::Local => json.with("reach", "local"),
        Reach::Host => json.with("reach", "host"),
        Reach::Node(node) => json.with("reach", "direct-return").with("via", node.to_string()),
        Reach::Elsewhere => json.with("reach", "node-address"),
    }
}

/// `active`, `terminating` or `not-ready`
pub(super) const fn endpoint_state(endpoint: &Endpoint) -> &'static str {
    match (endpoint.terminating, endpoint.ready) {
        (true, _) => "terminating",
        (false, true) => "active",
        (false, false) => "not-ready",
    }
}

pub(super) fn backend_endpoint(endpoint: &Endpoint) -> Value {
    Value::map()
        .with("address", endpoint.address.to_string())
        .with("state", endpoint_state(endpoint))
        .with_some("node", endpoint.node.as_deref())
        .with_some("pod", endpoint.pod.as_ref().map(name))
}

/// Every Service port in order; each is an item for [`endpoints_of_port`].
pub(super) fn service_ports(state: &State) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = state.endpoints.by_port.keys().cloned().collect();
    ports.arrange();
    ports
}

/// The backends of one Service port: `service`, `port`, `protocol`, `address`, `state`,
/// `node`, `pod`.
pub(super) fn endpoints_of_port(state: &State, port: &ServicePort) -> Vec<Value> {
    let endpoints = state.endpoints_of(port).iter();
    let item = |endpoint: &Endpoint| {
        let mut json = Value::map()
            .with("service", name(&port.service))
            .with("port", port.port.0)
            .with("protocol", protocol(port.protocol));
        for member in backend_endpoint(endpoint).members() {
            json.set(&member.key, member.value.clone());
        }
        json
    };
    endpoints.map(item).collect()
}

/// Every address that is known: `address`, `identity` (labels as Cilium writes them), `source`, and
/// `owner`, `holder` where there is one. Sorted by address.
pub(super) fn addresses(state: &State) -> Vec<Value> {
    let mut all: Vec<(IpAddr, Value)> = Vec::new();
    let objects = &state.view.objects;
    for service in objects.services.values().filter(|it| it.kind == ServiceType::LoadBalancer) {
        for address in state.addresses_of(service) {
            let ours = state.listeners.by_address.iter().any(|((ip, ..), listener)| {
                *ip == address && listener.service == service.meta.name
            });
            let identity = if ours { "reserved:ingress" } else { "reserved:world" };
            let owner = ObjectKey { kind: Kind::Service, name: service.meta.name.clone() };
            let holder = state.announcement(address).and_then(|entry| entry.holder.as_deref());
            let json = address_item(address, &[identity.to_owned()], "lb-ipam", &owner);
            all.push((address, json.with_some("holder", holder)));
        }
    }
    for node in objects.nodes.values() {
        let ours = *node.meta.name.name == *state.config.node;
        let identity = if ours { "reserved:host" } else { "reserved:remote-node" };
        let owner = ObjectKey { kind: Kind::Node, name: node.meta.name.clone() };
        for &address in &node.internal_ips {
            let source = source(&node.meta.origin);
            all.push((address, address_item(address, &[identity.to_owned()], source, &owner)));
        }
    }
    for pod in objects.pods.values() {
        let namespace = &pod.meta.name.namespace;
        let mut identity: Vec<String> =
            pod.meta.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
        identity.push(format!("k8s:io.kubernetes.pod.namespace={namespace}"));
        identity.arrange();
        let owner = ObjectKey { kind: Kind::Pod, name: pod.meta.name.clone() };
        for &address in &pod.ips {
            let source = source(&pod.meta.origin);
            all.push((address, address_item(address, &identity, source, &owner)));
        }
    }
    all.arrange_by_key(|(address, _)| *address);
    all.into_iter().map(|(_, json)| json).collect()
}

const fn source(origin: &Origin) -> &'static str {
    match origin {
        Origin::File(_) => "file",
        Origin::Cluster => "k8s",
        Origin::Generated(_) => "generated",
    }
}

fn address_item(address: IpAddr, identity: &[String], source: &str, owner: &ObjectKey) -> Value {
    let identity: Vec<Value> = identity.iter().map(|label| Value::from(label.as_str())).collect();
    Value::map()
        .with("address", address.to_string())
        .with("identity", identity)
        .with("source", source)
        .with("owner", object_key(owner))
}

/// `HTTP`, `TLS`, `TCP` or `UDP`
pub(super) const fn listener_protocol(protocol: ListenerProtocol) -> &'static str {
    match protocol {
        ListenerProtocol::Http => "HTTP",
        ListenerProtocol::Tls => "TLS",
        ListenerProtocol::Tcp => "TCP",
        ListenerProtocol::Udp => "UDP",
    }
}

/// What is announced, for `/v1/status`.
pub(super) fn announcements(state: &State, moment: Moment) -> Vec<Value> {
    let item = |entry: &crate::api::announce::Announcement| {
        Value::map()
            .with("address", entry.address.to_string())
            .with("interface", &*entry.interface)
            .with("role", role(entry.role))
            .with_some("holder", entry.holder.as_deref())
            .with("since", rfc3339(moment.unix_of(entry.since)))
            .with("why", entry.why.as_str())
            .with("services", entry.services.iter().map(name).collect::<Vec<_>>())
            .with("policy", &*entry.policy)
            .with("vrid", entry.vrid)
            .with("priority", entry.priority)
    };
    state.announcements.list.iter().map(item).collect()
}
