//! The Services that are generated for Ingresses (ING-02, ING-05).
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::rc::Rc;

use nanoserde::SerJson as _;

use super::annotation::Settings;
use crate::api::address::Port;
use crate::api::class::SERVICE_PROXY_NAME_LABEL;
use crate::api::config::IngressMode;
use crate::api::meta::{Labels, Meta, NamespacedName, Origin};
use crate::api::object::{
    ExternalTrafficPolicy, Ingress, PortProtocol, Service, ServicePortSpec, ServiceType, TargetPort,
};

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

/// The name of the Service whose addresses `ingress` is served on.
pub(super) fn name(ingress: &Ingress, mode: IngressMode, prefix: &str) -> NamespacedName {
    let NamespacedName { namespace, name } = &ingress.meta.name;
    match mode {
        IngressMode::Shared => NamespacedName::new(SHARED_NAMESPACE, &format!("{prefix}-ingress")),
        IngressMode::Dedicated => NamespacedName {
            namespace: Rc::clone(namespace),
            name: format!("{prefix}-ingress-{name}").into(),
        },
    }
}

/// The Service `name` for its `owners`.
pub(super) fn generate(
    name: &NamespacedName,
    owners: &[(Rc<Ingress>, Settings)],
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
    // kube-proxy must not touch what the proxy serves.
    service.meta.labels.insert(SERVICE_PROXY_NAME_LABEL.into(), "pilus".into());
    service.ports = ports.iter().map(|&port| port_spec(port, dedicated)).collect();
    service.meta.json = json(&service, dedicated.map(|(ingress, _)| &**ingress)).into();
    let mut hasher = DefaultHasher::new();
    hasher.write(service.meta.json.as_bytes());
    service.meta.uid = format!("{:016x}", hasher.finish()).into();
    service
}

fn propagated(labels: &Labels) -> Labels {
    labels
        .iter()
        .filter(|(key, _)| PROPAGATED.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (Rc::clone(key), Rc::clone(value)))
        .collect()
}

fn port_spec(port: Port, dedicated: Option<&(Rc<Ingress>, Settings)>) -> ServicePortSpec {
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
fn json(service: &Service, owner: Option<&Ingress>) -> String {
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
    if let Some(owner) = owner {
        put(format!(
            r#","ownerReferences":[{{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","name":{},"uid":{}}}]"#,
            quoted(&owner.meta.name.name),
            quoted(&owner.meta.uid)
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
    text + &format!(r#""port":{0},"protocol":"TCP","targetPort":{0}}}"#, spec.port)
}
