//! v1 Service.
use std::net::IpAddr;
use std::time::Duration;

use super::faults::Faults;
use super::names;
use crate::api::meta::{Labels, Meta, Str};
use crate::api::object::{
    ExternalTrafficPolicy, IpFamilyPolicy, PortProtocol, Service, ServicePortSpec, ServiceType,
    TargetPort,
};
use crate::arrange::Gather;
use crate::proto::value::{Mark, Value};

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not written: three hours.
const AFFINITY_SECONDS: u64 = 10_800;

/// Reads a Service, complains about what the schema cannot express, and fills in the defaults.
pub(super) fn decode(meta: Meta, value: &mut Value, faults: &mut Faults) -> Service {
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let service = Service {
        meta,
        kind: service_type(spec),
        selector: selector(spec, faults),
        ports: ports(spec),
        cluster_ips: cluster_ips(spec),
        headless: texts(spec, "clusterIPs").chain(text(spec, "clusterIP")).any(|ip| ip == "None"),
        external_ips: texts(spec, "externalIPs").filter_map(|ip| ip.parse().ok()).collect(),
        load_balancer_ip: text(spec, "loadBalancerIP").map(Str::from),
        load_balancer_class: text(spec, "loadBalancerClass").map(Str::from),
        external_traffic_policy: match text(spec, "externalTrafficPolicy") {
            Some("Local") => ExternalTrafficPolicy::Local,
            _ => ExternalTrafficPolicy::Cluster,
        },
        ip_family_policy: match text(spec, "ipFamilyPolicy") {
            Some("PreferDualStack") => IpFamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => IpFamilyPolicy::RequireDualStack,
            _ => IpFamilyPolicy::SingleStack,
        },
        ip_families_v6: texts(spec, "ipFamilies").map(|family| family == "IPv6").collect(),
        publish_not_ready: flag(spec, "publishNotReadyAddresses"),
        internal_traffic_local: text(spec, "internalTrafficPolicy") == Some("Local"),
        session_affinity: session_affinity(spec),
        source_ranges: texts(spec, "loadBalancerSourceRanges").map(Str::from).collect(),
        health_check_node_port: port_number(spec, "healthCheckNodePort").unwrap_or(0),
        status_ips: status_ips(value),
    };
    let at = value.member("spec").map_or(value.mark, |member| member.mark);
    check_ports(spec, &service, at, faults);
    check_type(spec, &service, faults);
    check_families(spec, faults);
    set_defaults(value.entry("spec"), &service);
    service
}

/// The text of a string member; None if it is empty.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The strings of a list member.
pub(super) fn texts<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v str> {
    value.get(key).map_or(&[][..], Value::items).iter().filter_map(Value::as_str)
}

/// A boolean member, false if it is not there.
pub(super) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A port number member.
pub(super) fn port_number(value: &Value, key: &str) -> Option<u16> {
    value.get(key).and_then(Value::as_int).and_then(|port| u16::try_from(port).ok())
}

/// `protocol`, TCP by default.
pub(super) fn protocol(value: &Value) -> PortProtocol {
    match text(value, "protocol") {
        Some("UDP") => PortProtocol::Udp,
        Some("SCTP") => PortProtocol::Sctp,
        _ => PortProtocol::Tcp,
    }
}

/// The place of a member's key, or of the map if it is not there.
pub(super) fn mark_of(value: &Value, key: &str) -> Mark {
    value.member(key).map_or(value.mark, |member| member.mark)
}

fn service_type(spec: &Value) -> ServiceType {
    match text(spec, "type") {
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        _ => ServiceType::ClusterIp,
    }
}

fn selector(spec: &Value, faults: &mut Faults) -> Option<Labels> {
    let members = spec.get("selector")?.members();
    for member in members {
        let value = member.value.as_str().unwrap_or_default();
        let checked = names::qualified_name(&member.key).and_then(|()| names::label_value(value));
        if let Err(message) = checked {
            faults.error(member.mark, format!("spec.selector.{}", member.key), message);
        }
    }
    let label = |member: &crate::proto::value::Member| {
        Some((Str::from(&*member.key), Str::from(member.value.as_str()?)))
    };
    (!members.is_empty()).then(|| members.iter().filter_map(label).gather())
}

fn ports(spec: &Value) -> Vec<ServicePortSpec> {
    let port = |value: &Value| {
        let port = port_number(value, "port")?;
        let target = match value.get("targetPort") {
            Some(target) => match (target.as_str(), target.as_int()) {
                (Some(name), _) => TargetPort::Name(name.into()),
                (None, number) => {
                    TargetPort::Number(number.and_then(|n| u16::try_from(n).ok()).unwrap_or(port))
                }
            },
            None => TargetPort::Number(port),
        };
        Some(ServicePortSpec {
            app_protocol: text(value, "appProtocol").map(Str::from),
            name: text(value, "name").unwrap_or_default().into(),
            port,
            target,
            protocol: protocol(value),
            node_port: port_number(value, "nodePort").unwrap_or(0),
        })
    };
    spec.get("ports").map_or(&[][..], Value::items).iter().filter_map(port).collect()
}

fn cluster_ips(spec: &Value) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in text(spec, "clusterIP").into_iter().chain(texts(spec, "clusterIPs")) {
        if let Ok(ip) = ip.parse()
            && !ips.contains(&ip)
        {
            ips.push(ip);
        }
    }
    ips
}

fn session_affinity(spec: &Value) -> Option<Duration> {
    let path = ["sessionAffinityConfig", "clientIP", "timeoutSeconds"];
    let seconds = spec.path(&path).and_then(Value::as_int).and_then(|it| u64::try_from(it).ok());
    let timeout = Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS));
    (text(spec, "sessionAffinity") == Some("ClientIP")).then_some(timeout)
}

fn status_ips(value: &Value) -> Vec<IpAddr> {
    let ingress = value.path(&["status", "loadBalancer", "ingress"]);
    let entries = ingress.map_or(&[][..], Value::items);
    entries.iter().filter_map(|entry| text(entry, "ip")?.parse().ok()).collect()
}

fn check_ports(spec: &Value, service: &Service, at: Mark, faults: &mut Faults) {
    let ports = spec.get("ports").map_or(&[][..], Value::items);
    if ports.is_empty() && service.kind != ServiceType::ExternalName && !service.headless {
        faults.error(at, "spec.ports", "required, and missing: a Service needs at least one port");
    }
    for (index, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let name = text(port, "name");
        if name.is_none() && ports.len() > 1 {
            let message = "required when there is more than one port";
            faults.error(port.mark, field("name"), message);
        }
        let same = |other: &&Value, key: &str| {
            other.get(key).map(|v| &v.data) == port.get(key).map(|v| &v.data)
        };
        if name.is_some()
            && let Some(first) = ports[..index].iter().position(|other| same(&other, "name"))
        {
            let message =
                format!("`{}` is the name of ports[{first}] already", name.unwrap_or_default());
            faults.error(mark_of(port, "name"), field("name"), message);
        }
        let first = ports[..index]
            .iter()
            .position(|other| same(&other, "port") && protocol(other) == protocol(port));
        if let (Some(first), Some(number)) = (first, port_number(port, "port")) {
            let message =
                format!("{number} is the port of ports[{first}] already, with this protocol");
            faults.error(mark_of(port, "port"), field("port"), message);
        }
        // In a cluster they are given by the API server and opened by whoever is the cluster's Service proxy.
        if !faults.lenient && port_number(port, "nodePort").is_some_and(|port| port > 0) {
            let message = "node ports are opened with --kube-proxy-replacement only";
            faults.warn(mark_of(port, "nodePort"), field("nodePort"), message);
        }
    }
}

fn check_type(spec: &Value, service: &Service, faults: &mut Faults) {
    let is_external = matches!(service.kind, ServiceType::NodePort | ServiceType::LoadBalancer);
    if !is_external
        && service.external_ips.is_empty()
        && let Some(member) = spec.member("externalTrafficPolicy")
    {
        let message =
            "may only be set when `type` is NodePort or LoadBalancer, or with externalIPs";
        faults.error(member.mark, "spec.externalTrafficPolicy", message);
    }
    if service.kind != ServiceType::LoadBalancer
        && let Some(member) = spec.member("loadBalancerClass")
    {
        let message = "may only be set when `type` is LoadBalancer";
        faults.error(member.mark, "spec.loadBalancerClass", message);
    }
    if service.kind == ServiceType::ExternalName {
        if text(spec, "externalName").is_none() {
            let message = "required when `type` is ExternalName";
            faults.error(mark_of(spec, "type"), "spec.externalName", message);
        }
        let message = "ExternalName is not supported yet: the Service has no endpoints";
        faults.warn(mark_of(spec, "type"), "spec.type", message);
    }
    if service.headless && is_external {
        let message = "`None` may not be set when `type` is NodePort or LoadBalancer";
        faults.error(mark_of(spec, "clusterIP"), "spec.clusterIP", message);
    }
    // LB-13: the list is taken entry by entry; what is no address is left out.
    for ip in service.load_balancer_ip.iter().flat_map(|ips| ips.split(',')) {
        if names::ip(ip.trim()).is_err() {
            let message = format!("`{}` is not an IP address, ignored", ip.trim());
            faults.warn(mark_of(spec, "loadBalancerIP"), "spec.loadBalancerIP", message);
        }
    }
}

fn check_families(spec: &Value, faults: &mut Faults) {
    let mark = mark_of(spec, "ipFamilies");
    let families: Vec<&str> = texts(spec, "ipFamilies").collect();
    if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        faults.error(mark, "spec.ipFamilies", "at most IPv4 and IPv6, each once");
    } else if families.len() == 2
        && matches!(text(spec, "ipFamilyPolicy"), None | Some("SingleStack"))
    {
        let message = "two families need ipFamilyPolicy PreferDualStack or RequireDualStack";
        faults.error(mark, "spec.ipFamilies", message);
    }
    if let (Some(first), Some(member)) =
        (texts(spec, "clusterIPs").next(), spec.member("clusterIP"))
        && member.value.as_str().is_some_and(|ip| !ip.is_empty() && ip != first)
    {
        let message = format!("must be the first of clusterIPs, `{first}`");
        faults.error(member.mark, "spec.clusterIP", message);
    }
}

fn set_defaults(spec: &mut Value, service: &Service) {
    spec.set_default("type", "ClusterIP");
    spec.set_default("sessionAffinity", "None");
    if service.kind != ServiceType::ExternalName {
        spec.set_default("internalTrafficPolicy", "Cluster");
        spec.set_default("ipFamilyPolicy", "SingleStack");
    }
    if matches!(service.kind, ServiceType::NodePort | ServiceType::LoadBalancer) {
        spec.set_default("externalTrafficPolicy", "Cluster");
    }
    if let Some(crate::proto::value::Data::List(ports)) = spec.get_mut("ports").map(|v| &mut v.data)
    {
        for port in ports {
            port.set_default("protocol", "TCP");
            if let Some(number) = port.get("port").and_then(Value::as_int) {
                port.set_default("targetPort", number);
            }
        }
    }
}
