//! The Services that are generated for Ingresses (ING-02, ING-05) and Gateways (GatewayInfrastructurePropagation).
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use nanoserde::SerJson as _;

use super::annotation::Settings;
use crate::api::address::Port;
use crate::api::class::{GATEWAY_NAME_LABEL, SERVICE_PROXY_NAME_LABEL};
use crate::api::config::IngressMode;
use crate::api::meta::{Kind, Labels, Meta, NamespacedName, Origin, field_hash};
use crate::api::object::gateway::Gateway;
use crate::api::object::{
    ExternalTrafficPolicy, Ingress, PortProtocol, Service, ServicePortSpec, ServiceType, TargetPort,
};

/// The longest name of a Service and value of a label.
const MAX_NAME: usize = 63;
/// The annotation by which LB-IPAM is asked for addresses (LB-13).
const ADDRESSES: &str = "lbipam.cilium.io/ips";
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const SHARED_NAMESPACE: &str = "kube-system";
const INGRESS_LABEL: &str = "cilium.io/ingress";
/// Annotations and labels that begin so go from a dedicated Ingress to its Service.
const PROPAGATED: [&str; 5] = [
    "lbipam.cilium.io",
    "nodeipam.cilium.io",
    "service.beta.kubernetes.io",
    "service.kubernetes.io",
    "cloud.google.com",
];

/// Whom a Service is made for: API version, kind, metadata.
type Owner<'a> = (&'a str, Kind, &'a Meta);

/// The name of the Service whose addresses `ingress` is served on.
pub(super) fn name(ingress: &Ingress, mode: IngressMode, prefix: &str) -> NamespacedName {
    let NamespacedName { namespace, name } = &ingress.meta.name;
    match mode {
        IngressMode::Shared => NamespacedName::new(SHARED_NAMESPACE, &format!("{prefix}-ingress")),
        IngressMode::Dedicated => NamespacedName {
            namespace: Arc::clone(namespace),
            name: short_name(&format!("{prefix}-ingress-{name}")).into(),
        },
    }
}

/// The Service `name` for its `owners`.
pub(super) fn generate(
    name: &NamespacedName,
    owners: &[(Arc<Ingress>, Settings)],
    ports: &[Port],
) -> Service {
    let created = owners.iter().map(|(ingress, _)| ingress.meta.created).min().unwrap_or(0);
    let dedicated = owners.first().filter(|(_, settings)| settings.mode == IngressMode::Dedicated);
    let mut service = Service {
        meta: Meta {
            name: name.clone(),
            generation: 1,
            created,
            origin: Origin::Generated("route"),
            ..Meta::default()
        },
        kind: ServiceType::LoadBalancer,
        ..Service::default()
    };
    if let Some((ingress, settings)) = dedicated {
        service.meta.labels = propagated(&ingress.meta.labels);
        service.meta.annotations = propagated(&ingress.meta.annotations);
        service.kind = settings.service_type;
        service.load_balancer_class.clone_from(&settings.load_balancer_class);
        service.external_traffic_policy = settings.traffic_policy;
    }
    service.meta.labels.insert(INGRESS_LABEL.into(), "true".into());
    service.ports = ports.iter().map(|&port| port_spec(port, dedicated)).collect();
    finish(
        &mut service,
        dedicated.map(|(ingress, _)| ("networking.k8s.io/v1", Kind::Ingress, &ingress.meta)),
    );
    service
}

/// The Service `name` for a Gateway.
pub(super) fn for_gateway(
    gateway: &Gateway,
    name: &NamespacedName,
    addresses: &[IpAddr],
    ports: &[(&str, u16, PortProtocol)],
) -> Service {
    let mut service = Service {
        meta: Meta {
            name: name.clone(),
            generation: 1,
            created: gateway.meta.created,
            origin: Origin::Generated("route"),
            labels: gateway.infrastructure_labels.clone(),
            annotations: gateway.infrastructure_annotations.clone(),
            ..Meta::default()
        },
        kind: ServiceType::LoadBalancer,
        ..Service::default()
    };
    if !addresses.is_empty() {
        let list: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        service.meta.annotations.insert(ADDRESSES.into(), list.join(",").into());
    }
    let label = shortened(&gateway.meta.name.name);
    service.meta.labels.insert(GATEWAY_NAME_LABEL.into(), label.into());
    service.ports = ports
        .iter()
        .map(|&(name, port, protocol)| ServicePortSpec {
            name: format!("{name}-{port}").into(),
            port,
            target: TargetPort::Number(port),
            protocol,
            node_port: 0,
            app_protocol: None,
        })
        .collect();
    finish(&mut service, Some((GATEWAY_API, Kind::Gateway, &gateway.meta)));
    service
}

/// What all generated Services have: kube-proxy must not touch what the proxy serves.
fn finish(service: &mut Service, owner: Option<Owner<'_>>) {
    service.meta.labels.insert(SERVICE_PROXY_NAME_LABEL.into(), "pilus".into());
    service.meta.json = json(service, owner).into();
    let mut hasher = DefaultHasher::new();
    hasher.write(service.meta.json.as_bytes());
    service.meta.uid = format!("{:016x}", hasher.finish()).into();
}

/// As it is, or cut to what names and label values may have and made unique by a hash.
fn shortened(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let mut end = MAX_NAME - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{:08x}", name[..end].trim_end_matches(['-', '.']), field_hash(name))
}

/// A name for a Service (RFC 1035 label): without dots, and not too long. One that has to be changed gets a hash
/// of the whole.
pub(super) fn short_name(name: &str) -> String {
    if !name.contains('.') {
        return shortened(name);
    }
    let hashed = format!("{}-{:08x}", name.replace('.', "-"), field_hash(name));
    shortened(&hashed)
}

fn propagated(labels: &Labels) -> Labels {
    labels
        .iter()
        .filter(|(key, _)| PROPAGATED.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (Arc::clone(key), Arc::clone(value)))
        .collect()
}

fn port_spec(port: Port, dedicated: Option<&(Arc<Ingress>, Settings)>) -> ServicePortSpec {
    let secure = port == Port::HTTPS;
    let node_port = dedicated.map_or(0, |(_, settings)| {
        if secure { settings.secure_node_port } else { settings.insecure_node_port }
    });
    ServicePortSpec {
        name: if secure { "https".into() } else { "http".into() },
        port: port.0,
        target: TargetPort::Number(port.0),
        protocol: PortProtocol::Tcp,
        node_port,
        app_protocol: None,
    }
}

/// As `kubectl get -o json` prints it, without status.
fn json(service: &Service, owner: Option<Owner<'_>>) -> String {
    let mut text = String::from(r#"{"apiVersion":"v1","kind":"Service","metadata":{"#);
    let quoted = |text: &str| text.to_owned().serialize_json();
    let map = |labels: &Labels| {
        let pairs: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
            .collect();
        format!("{{{}}}", pairs.join(","))
    };
    let NamespacedName { namespace, name } = &service.meta.name;
    let mut put = |part: String| text.push_str(&part);
    if !service.meta.annotations.is_empty() {
        put(format!(r#""annotations":{},"#, map(&service.meta.annotations)));
    }
    put(format!(r#""labels":{},"#, map(&service.meta.labels)));
    put(format!(r#""name":{},"namespace":{}"#, quoted(name), quoted(namespace)));
    if let Some((version, kind, owner)) = owner {
        put(format!(
            r#","ownerReferences":[{{"apiVersion":"{version}","kind":"{kind}","name":{},"uid":{}}}]"#,
            quoted(&owner.name.name),
            quoted(&owner.uid)
        ));
    }
    let policy = match service.external_traffic_policy {
        ExternalTrafficPolicy::Cluster => "Cluster",
        ExternalTrafficPolicy::Local => "Local",
    };
    put(format!(
        r#"}},"spec":{{"allocateLoadBalancerNodePorts":false,"externalTrafficPolicy":"{policy}","#
    ));
    if let Some(class) = &service.load_balancer_class {
        put(format!(r#""loadBalancerClass":{},"#, quoted(class)));
    }
    let ports: Vec<String> = service.ports.iter().map(port_json).collect();
    let kind = if service.kind == ServiceType::NodePort { "NodePort" } else { "LoadBalancer" };
    put(format!(r#""ports":[{}],"sessionAffinity":"None","type":"{kind}"}}}}"#, ports.join(",")));
    text
}

fn port_json(spec: &ServicePortSpec) -> String {
    let mut text = format!(r#"{{"name":"{}","#, spec.name);
    if spec.node_port != 0 {
        write!(text, r#""nodePort":{},"#, spec.node_port).expect("a String takes everything");
    }
    let protocol = if spec.protocol == PortProtocol::Udp { "UDP" } else { "TCP" };
    text + &format!(r#""port":{0},"protocol":"{protocol}","targetPort":{0}}}"#, spec.port)
}
