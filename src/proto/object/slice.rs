//! discovery.k8s.io/v1 EndpointSlice and v1 Endpoints.
use std::net::IpAddr;

use super::faults::Faults;
use super::service::{flag, mark_of, port_number, protocol, text, texts};
use crate::api::meta::{Meta, NamespacedName, Str};
use crate::api::object::{EndpointSlice, SliceEndpoint, SlicePort};
use crate::proto::value::{Data, Value};

/// The label that names the Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The bound of Kubernetes for the endpoints of one slice.
const MAX_ENDPOINTS: usize = 1000;

pub(super) fn decode(meta: Meta, value: &mut Value, faults: &mut Faults) -> EndpointSlice {
    let service = meta.labels.get(SERVICE_NAME_LABEL).cloned().unwrap_or_default();
    if service.is_empty() {
        let message = format!("without the label {SERVICE_NAME_LABEL} it belongs to no Service");
        faults.warn(mark_of(value, "metadata"), "metadata.labels", message);
    }
    let kind = text(value, "addressType").unwrap_or_default();
    if kind == "FQDN" {
        let message = "FQDN is not supported yet: the endpoints have no effect";
        faults.warn(mark_of(value, "addressType"), "addressType", message);
    }
    let list = value.get("endpoints").map_or(&[][..], Value::items);
    if list.len() > MAX_ENDPOINTS {
        let message = format!("{} endpoints; at most {MAX_ENDPOINTS}", list.len());
        faults.error(mark_of(value, "endpoints"), "endpoints", message);
    }
    let mut endpoints = Vec::with_capacity(list.len());
    for (at, endpoint) in list.iter().enumerate() {
        check_addresses(endpoint, at, kind, faults);
        if kind != "FQDN" {
            endpoints.push(slice_endpoint(endpoint, &meta.name));
        }
    }
    let ports = slice_ports(value, "", faults);
    let slice = EndpointSlice { meta, service, ports, endpoints };
    set_port_defaults(value);
    slice
}

fn check_addresses(endpoint: &Value, at: usize, kind: &str, faults: &mut Faults) {
    let addresses = endpoint.get("addresses").map_or(&[][..], Value::items);
    if endpoint.get("addresses").is_some() && addresses.is_empty() {
        let message = "required, and empty";
        faults.error(endpoint.mark, format!("endpoints[{at}].addresses"), message);
    }
    for (index, address) in addresses.iter().enumerate() {
        let Some(ip) = address.as_str().filter(|_| kind != "FQDN") else { continue };
        let is_right = match ip.parse() {
            Ok(IpAddr::V4(_)) => kind != "IPv6",
            Ok(IpAddr::V6(_)) => kind != "IPv4",
            Err(_) => false,
        };
        if !is_right {
            let message = format!("`{ip}` is not an {kind} address, as addressType says");
            let field = format!("endpoints[{at}].addresses[{index}]");
            faults.error(address.mark, field, message);
        }
    }
}

fn slice_endpoint(endpoint: &Value, name: &NamespacedName) -> SliceEndpoint {
    let conditions = endpoint.get("conditions");
    let condition = |key| conditions.and_then(|c| c.get(key)).and_then(Value::as_bool);
    let ready = condition("ready").unwrap_or(true);
    SliceEndpoint {
        addresses: texts(endpoint, "addresses").filter_map(|ip| ip.parse().ok()).collect(),
        ready,
        terminating: conditions.is_some_and(|conditions| flag(conditions, "terminating")),
        serving: condition("serving").unwrap_or(ready),
        node: text(endpoint, "nodeName").map(Str::from),
        pod: pod_reference(endpoint, name),
    }
}

fn pod_reference(endpoint: &Value, name: &NamespacedName) -> Option<NamespacedName> {
    let target = endpoint.get("targetRef").filter(|target| text(target, "kind") == Some("Pod"))?;
    let namespace = text(target, "namespace").unwrap_or(&name.namespace);
    Some(NamespacedName::new(namespace, text(target, "name")?))
}

fn slice_ports(value: &Value, prefix: &str, faults: &mut Faults) -> Vec<SlicePort> {
    let mut ports: Vec<SlicePort> = Vec::new();
    for (at, port) in value.get("ports").map_or(&[][..], Value::items).iter().enumerate() {
        let name = text(port, "name").unwrap_or_default();
        if ports.iter().any(|other| &*other.name == name) {
            let message = format!("`{name}` is the name of another port already");
            faults.error(mark_of(port, "name"), format!("{prefix}ports[{at}].name"), message);
        }
        match port_number(port, "port") {
            Some(number) => {
                ports.push(SlicePort { name: name.into(), port: number, protocol: protocol(port) });
            }
            // In an Endpoints the schema asks for it.
            None if port.get("port").is_none() && prefix.is_empty() => {
                let message =
                    "a port without a number stands for all ports: not supported yet, ignored";
                faults.warn(port.mark, format!("{prefix}ports[{at}].port"), message);
            }
            None => {}
        }
    }
    ports
}

fn set_port_defaults(value: &mut Value) {
    if let Some(Data::List(ports)) = value.get_mut("ports").map(|ports| &mut ports.data) {
        for port in ports {
            port.set_default("name", "");
            port.set_default("protocol", "TCP");
        }
    }
}

/// Each subset becomes a slice: `endpoints/NAME`, `endpoints/NAME/1`, …
pub(super) fn decode_endpoints(
    meta: Meta,
    value: &mut Value,
    faults: &mut Faults,
) -> Vec<EndpointSlice> {
    let service = Str::clone(&meta.name.name);
    let subsets = value.get("subsets").map_or(&[][..], Value::items);
    let mut slices = Vec::new();
    for (at, subset) in subsets.iter().enumerate() {
        let mut meta = meta.clone();
        meta.name = super::endpoints_name(&meta.name);
        if at > 0 {
            meta.name.name = format!("{}/{at}", meta.name.name).into();
        }
        let mut endpoints = Vec::new();
        for (key, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset.get(key).map_or(&[][..], Value::items) {
                endpoints.push(SliceEndpoint {
                    addresses: text(address, "ip")
                        .and_then(|ip| ip.parse().ok())
                        .into_iter()
                        .collect(),
                    ready,
                    terminating: false,
                    serving: ready,
                    node: text(address, "nodeName").map(Str::from),
                    pod: pod_reference(address, &meta.name),
                });
            }
        }
        let ports = slice_ports(subset, &format!("subsets[{at}]."), faults);
        slices.push(EndpointSlice { meta, service: Str::clone(&service), ports, endpoints });
    }
    if let Some(Data::List(subsets)) = value.get_mut("subsets").map(|subsets| &mut subsets.data) {
        for subset in subsets {
            if let Some(Data::List(ports)) = subset.get_mut("ports").map(|ports| &mut ports.data) {
                ports.iter_mut().for_each(|port| port.set_default("protocol", "TCP"));
            }
        }
    }
    slices
}
