//! v1 Node, Pod, Secret and ConfigMap.
use std::collections::BTreeMap;

use super::faults::Faults;
use super::names;
use super::service::{flag, port_number, protocol, text, texts};
use crate::api::meta::{Labels, Meta, Str};
use crate::api::object::{ConfigMap, Node, Pod, PodPort, Secret};
use crate::proto::value::{Data, Value};

/// The API server's bound for the data of a Secret or ConfigMap.
const MAX_DATA_BYTES: usize = 1 << 20;

pub(super) fn node(meta: Meta, value: &Value) -> Node {
    let addresses = value.path(&["status", "addresses"]).map_or(&[][..], Value::items);
    let internal = addresses.iter().filter(|address| text(address, "type") == Some("InternalIP"));
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let mut pod_cidrs: Vec<Str> = texts(spec, "podCIDRs").map(Str::from).collect();
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(text(spec, "podCIDR").map(Str::from));
    }
    Node {
        meta,
        internal_ips: internal.filter_map(|ip| text(ip, "address")?.parse().ok()).collect(),
        pod_cidrs,
        unschedulable: flag(spec, "unschedulable"),
    }
}

pub(super) fn pod(meta: Meta, value: &Value) -> Pod {
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let status = value.get("status").unwrap_or(&empty);
    let listed = status.get("podIPs").map_or(&[][..], Value::items);
    let mut ips: Vec<_> = listed.iter().filter_map(|ip| text(ip, "ip")?.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(text(status, "podIP").and_then(|ip| ip.parse::<std::net::IpAddr>().ok()));
    }
    let conditions = status.get("conditions").map_or(&[][..], Value::items);
    let is_ready = |condition: &Value| {
        text(condition, "type") == Some("Ready") && text(condition, "status") == Some("True")
    };
    Pod {
        ips,
        node: text(spec, "nodeName").map(Str::from),
        ports: pod_ports(spec),
        ready: conditions.is_empty() || conditions.iter().any(is_ready),
        terminating: value.path(&["metadata", "deletionTimestamp"]).is_some(),
        finished: matches!(text(status, "phase"), Some("Succeeded" | "Failed")),
        meta,
    }
}

/// The ports of all containers that run as long as the Pod does: sidecars are init containers that are
/// restarted always.
fn pod_ports(spec: &Value) -> Vec<PodPort> {
    let containers = spec.get("containers").map_or(&[][..], Value::items);
    let init = spec.get("initContainers").map_or(&[][..], Value::items);
    let sidecars = init.iter().filter(|init| text(init, "restartPolicy") == Some("Always"));
    let ports = containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.get("ports").map_or(&[][..], Value::items));
    let port = |port: &Value| {
        Some(PodPort {
            name: text(port, "name").unwrap_or_default().into(),
            port: port_number(port, "containerPort")?,
            protocol: protocol(port),
        })
    };
    ports.filter_map(port).collect()
}

/// Reads a Secret. In the value, which becomes `meta.json`, every secret is replaced by an empty string.
pub(super) fn secret(meta: Meta, value: &mut Value, faults: &mut Faults) -> Secret {
    let mut data: BTreeMap<Str, Vec<u8>> = BTreeMap::new();
    for member in value.get("data").map_or(&[][..], Value::members) {
        check_key(member, "data", faults);
        match super::decode_base64(member.value.as_str().unwrap_or_default()) {
            Ok(bytes) => {
                data.insert(Str::from(&*member.key), bytes);
            }
            Err(message) => faults.error(member.mark, format!("data.{}", member.key), message),
        }
    }
    for member in value.get("stringData").map_or(&[][..], Value::members) {
        check_key(member, "stringData", faults);
        let text = member.value.as_str().unwrap_or_default();
        data.insert(Str::from(&*member.key), text.as_bytes().to_vec());
    }
    check_size(data.values().map(Vec::len).sum(), value, faults);
    let kind = text(value, "type").unwrap_or("Opaque").to_owned();
    if kind == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"] {
            let is_there = |field| value.path(&[field, key]).is_some();
            if !is_there("data") && !is_there("stringData") {
                let message = "required with type kubernetes.io/tls, and missing";
                faults.error(
                    super::service::mark_of(value, "data"),
                    format!("data.{key}"),
                    message,
                );
            }
        }
    }
    value.remove("stringData");
    value.set_default("type", kind.as_str());
    if !data.is_empty() {
        let shown = value.entry("data");
        shown.data = Data::Map(Vec::new());
        data.keys().for_each(|key| shown.set(key, ""));
    }
    Secret { meta, kind: kind.into(), data }
}

pub(super) fn config_map(meta: Meta, value: &Value, faults: &mut Faults) -> ConfigMap {
    let mut data = Labels::new();
    let mut bytes = 0;
    for member in value.get("data").map_or(&[][..], Value::members) {
        check_key(member, "data", faults);
        if let Some(text) = member.value.as_str() {
            bytes += text.len();
            data.insert(Str::from(&*member.key), text.into());
        }
    }
    for member in value.get("binaryData").map_or(&[][..], Value::members) {
        check_key(member, "binaryData", faults);
        if data.contains_key(&*member.key) {
            let message = "is a key of `data` already";
            faults.error(member.mark, format!("binaryData.{}", member.key), message);
        }
        match super::decode_base64(member.value.as_str().unwrap_or_default()) {
            Ok(content) => bytes += content.len(),
            Err(message) => {
                faults.error(member.mark, format!("binaryData.{}", member.key), message);
            }
        }
    }
    check_size(bytes, value, faults);
    ConfigMap { meta, data }
}

fn check_key(member: &crate::proto::value::Member, field: &str, faults: &mut Faults) {
    if let Err(message) = names::config_key(&member.key) {
        faults.error(member.mark, format!("{field}.{}", member.key), message);
    }
}

fn check_size(bytes: usize, value: &Value, faults: &mut Faults) {
    if bytes > MAX_DATA_BYTES {
        let message = format!("{bytes} bytes; at most {MAX_DATA_BYTES}");
        faults.error(super::service::mark_of(value, "data"), "data", message);
    }
}
