//! The columns of `pilus get`: kubectl's for its kinds, the printer columns of the CRDs for Cilium's.
use super::table::{Table, age};
use crate::api::meta::Kind;
use crate::arrange::Arrange;
use crate::proto::value::Value;
use crate::server::admin::moment::parse_rfc3339;

/// kubectl cuts load-balancer addresses to this width unless asked for wide output.
const LOAD_BALANCER_WIDTH: usize = 16;
/// kubectl lists this many hosts, endpoints or ports, and counts the rest.
const ITEMS_SHOWN: usize = 3;
const NONE: &str = "<none>";

type Cell = fn(&Value, bool) -> String;

/// One kind's columns after NAME and before AGE, and those that only `-o wide` shows.
struct Columns {
    normal: &'static [(&'static str, Cell)],
    age: bool,
    after_age: &'static [(&'static str, Cell)],
    wide: &'static [(&'static str, Cell)],
}

/// The table of `items`, as of `now` (seconds since 1970).
pub(super) fn table(kind: Kind, items: &[Value], namespaces: bool, wide: bool, now: u64) -> Table {
    let columns = columns(kind);
    let after: Vec<&(&str, Cell)> =
        columns.after_age.iter().chain(columns.wide.iter().filter(|_| wide)).collect();
    let mut header = Vec::new();
    header.extend(namespaces.then_some("NAMESPACE"));
    header.push("NAME");
    header.extend(columns.normal.iter().map(|(name, _)| *name));
    header.extend(columns.age.then_some("AGE"));
    header.extend(after.iter().map(|(name, _)| *name));
    let mut table = Table::new(&header);
    for item in items {
        let mut row = Vec::new();
        row.extend(namespaces.then(|| item.text_at("metadata.namespace").to_owned()));
        row.push(item.text_at("metadata.name").to_owned());
        row.extend(columns.normal.iter().map(|(_, cell)| cell(item, wide)));
        row.extend(columns.age.then(|| age_of(item, now)));
        row.extend(after.iter().map(|(_, cell)| cell(item, wide)));
        table.row(row);
    }
    table
}

fn age_of(item: &Value, now: u64) -> String {
    match parse_rfc3339(item.text_at("metadata.creationTimestamp")) {
        Some(created) if created > 0 => age(now.saturating_sub(created)),
        _ => "<unknown>".to_owned(),
    }
}

fn columns(kind: Kind) -> Columns {
    let plain = Columns { normal: &[], age: true, after_age: &[], wide: &[] };
    let normal: &'static [(&'static str, Cell)] = match kind {
        Kind::Service => {
            return Columns {
                normal: &[
                    ("TYPE", |it, _| or_none(it.text_at("spec.type"))),
                    ("CLUSTER-IP", |it, _| or_none(it.text_at("spec.clusterIP"))),
                    ("EXTERNAL-IP", external_ip),
                    ("PORT(S)", service_ports),
                ],
                wide: &[("SELECTOR", |it, _| selector(it))],
                ..plain
            };
        }
        Kind::Ingress => &[
            ("CLASS", |it, _| ingress_class(it)),
            ("HOSTS", |it, _| ingress_hosts(it)),
            ("ADDRESS", load_balancer),
            ("PORTS", |it, _| {
                if it.items_at("spec.tls").is_empty() { "80" } else { "80, 443" }.to_owned()
            }),
        ],
        Kind::IngressClass => &[
            ("CONTROLLER", |it, _| it.text_at("spec.controller").to_owned()),
            ("PARAMETERS", |it, _| class_parameters(it)),
        ],
        Kind::Pod => {
            return Columns {
                normal: &[
                    ("READY", |it, _| pod_ready(it)),
                    ("STATUS", |it, _| or(it.text_at("status.phase"), "Finished")),
                    ("RESTARTS", |_, _| "0".to_owned()),
                ],
                wide: &[
                    ("IP", |it, _| or_none(it.text_at("status.podIP"))),
                    ("NODE", |it, _| or_none(it.text_at("spec.nodeName"))),
                    ("NOMINATED NODE", |_, _| NONE.to_owned()),
                    ("READINESS GATES", |_, _| NONE.to_owned()),
                ],
                ..plain
            };
        }
        Kind::Node => {
            return Columns {
                normal: &[("STATUS", |it, _| node_status(it)), ("ROLES", |it, _| node_roles(it))],
                after_age: &[("VERSION", |it, _| {
                    or_none(it.text_at("status.nodeInfo.kubeletVersion"))
                })],
                wide: &[("INTERNAL-IP", |it, _| {
                    let addresses = it.items_at("status.addresses").iter();
                    let mut internal = addresses.filter(|it| it.text_at("type") == "InternalIP");
                    or_none(internal.next().map_or("", |it| it.text_at("address")))
                })],
                ..plain
            };
        }
        Kind::Endpoints => &[("ENDPOINTS", |it, _| endpoints(it))],
        Kind::EndpointSlice => &[
            ("ADDRESSTYPE", |it, _| it.text_at("addressType").to_owned()),
            ("PORTS", |it, _| {
                let ports = it.items_at("ports").iter();
                some_of(
                    &ports.filter_map(|it| it.get("port")).map(Value::plain).collect::<Vec<_>>(),
                )
            }),
            ("ENDPOINTS", |it, _| {
                let endpoints = it.items_at("endpoints").iter();
                let addresses = endpoints.flat_map(|it| it.items_at("addresses")).map(Value::plain);
                some_of(&addresses.collect::<Vec<_>>())
            }),
        ],
        Kind::Secret => &[
            ("TYPE", |it, _| or(it.text_at("type"), "Opaque")),
            ("DATA", |it, _| members(it, "data")),
        ],
        Kind::ConfigMap => &[("DATA", |it, _| members(it, "data"))],
        Kind::Namespace => &[("STATUS", |it, _| or(it.text_at("status.phase"), "Active"))],
        Kind::GatewayClass => {
            return Columns {
                normal: &[
                    ("CONTROLLER", |it, _| it.text_at("spec.controllerName").to_owned()),
                    ("ACCEPTED", |it, _| condition(it, "Accepted", "status")),
                ],
                wide: &[("DESCRIPTION", |it, _| it.text_at("spec.description").to_owned())],
                ..plain
            };
        }
        Kind::Gateway => &[
            ("CLASS", |it, _| it.text_at("spec.gatewayClassName").to_owned()),
            ("ADDRESS", |it, _| {
                // The API server's column is a JSON path of which kubectl shows the first value.
                it.items_at("status.addresses")
                    .first()
                    .map_or("", |it| it.text_at("value"))
                    .to_owned()
            }),
            ("PROGRAMMED", |it, _| condition(it, "Programmed", "status")),
        ],
        Kind::ListenerSet => &[
            ("ACCEPTED", |it, _| condition(it, "Accepted", "status")),
            ("PROGRAMMED", |it, _| condition(it, "Programmed", "status")),
        ],
        Kind::HttpRoute | Kind::GrpcRoute => {
            &[("HOSTNAMES", |it, _| it.at("spec.hostnames").map_or_else(String::new, Value::plain))]
        }
        Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::ReferenceGrant
        | Kind::BackendTlsPolicy
        | Kind::XBackendTrafficPolicy
        | Kind::XBackend => &[],
        Kind::Lease => &[("HOLDER", |it, _| it.text_at("spec.holderIdentity").to_owned())],
        Kind::CiliumLoadBalancerIPPool => &[
            ("DISABLED", |it, _| it.at("spec.disabled").map_or("false".into(), Value::plain)),
            ("CONFLICTING", |it, _| condition(it, "cilium.io/PoolConflict", "status")),
            ("IPS AVAILABLE", |it, _| condition(it, "cilium.io/IPsAvailable", "message")),
        ],
        Kind::CiliumL2AnnouncementPolicy => &[],
    };
    Columns { normal, ..plain }
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise } else { text }.to_owned()
}

fn or_none(text: &str) -> String {
    or(text, NONE)
}

fn members(item: &Value, field: &str) -> String {
    item.get(field).map_or(0, |it| it.members().len()).to_string()
}

fn condition(item: &Value, kind: &str, field: &str) -> String {
    let mut conditions = item.items_at("status.conditions").iter();
    conditions.find(|it| it.text_at("type") == kind).map_or("", |it| it.text_at(field)).to_owned()
}

/// Up to three items, and how many more.
fn some_of(items: &[String]) -> String {
    if items.is_empty() {
        return "<unset>".to_owned();
    }
    some_of_or(items, "")
}

fn some_of_or(items: &[String], empty: &str) -> String {
    if items.is_empty() {
        return empty.to_owned();
    }
    let shown = items[..items.len().min(ITEMS_SHOWN)].join(",");
    match items.len().saturating_sub(ITEMS_SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn load_balancer(item: &Value, wide: bool) -> String {
    let entries = item.items_at("status.loadBalancer.ingress").iter();
    let addresses: Vec<&str> = entries
        .map(|it| if it.get("ip").is_some() { it.text_at("ip") } else { it.text_at("hostname") })
        .collect();
    let text = addresses.join(",");
    if !wide && text.len() > LOAD_BALANCER_WIDTH {
        let cut: String = text.chars().take(LOAD_BALANCER_WIDTH - 3).collect();
        return cut + "...";
    }
    text
}

fn external_ip(item: &Value, wide: bool) -> String {
    let mut external: Vec<String> =
        item.items_at("spec.externalIPs").iter().map(Value::plain).collect();
    match item.text_at("spec.type") {
        "LoadBalancer" => {
            let balanced = load_balancer(item, wide);
            if !balanced.is_empty() {
                external.insert(0, balanced);
            }
            if external.is_empty() { "<pending>".to_owned() } else { external.join(",") }
        }
        "ExternalName" => or_none(item.text_at("spec.externalName")),
        _ => or_none(&external.join(",")),
    }
}

fn service_ports(item: &Value, _wide: bool) -> String {
    let port = |it: &Value| {
        let number = it.get("port").map_or_else(String::new, Value::plain);
        let protocol = or(it.text_at("protocol"), "TCP");
        match it.get("nodePort").and_then(Value::as_int).filter(|node_port| *node_port > 0) {
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<String> = item.items_at("spec.ports").iter().map(port).collect();
    or_none(&ports.join(","))
}

fn selector(item: &Value) -> String {
    let labels = item.at("spec.selector").map_or(&[][..], Value::members);
    let pairs: Vec<String> =
        labels.iter().map(|it| format!("{}={}", it.key, it.value.plain())).collect();
    or_none(&pairs.join(","))
}

fn ingress_class(item: &Value) -> String {
    let annotation = item
        .at("metadata.annotations")
        .and_then(|it| it.get("kubernetes.io/ingress.class"))
        .and_then(Value::as_str);
    or_none(annotation.unwrap_or_else(|| item.text_at("spec.ingressClassName")))
}

fn ingress_hosts(item: &Value) -> String {
    let rules = item.items_at("spec.rules").iter();
    let hosts: Vec<String> =
        rules.map(|it| it.text_at("host").to_owned()).filter(|it| !it.is_empty()).collect();
    some_of_or(&hosts, "*")
}

fn class_parameters(item: &Value) -> String {
    let Some(parameters) = item.at("spec.parameters") else { return NONE.to_owned() };
    let group = parameters.text_at("apiGroup");
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", parameters.text_at("kind"), parameters.text_at("name"))
}

fn pod_ready(item: &Value) -> String {
    let containers = item.items_at("spec.containers").len();
    let ready = condition(item, "Ready", "status") == "True";
    format!("{}/{containers}", if ready { containers } else { 0 })
}

fn node_status(item: &Value) -> String {
    let status = match condition(item, "Ready", "status").as_str() {
        "True" => "Ready",
        "False" => "NotReady",
        _ => "Unknown",
    };
    let closed = item.at("spec.unschedulable").and_then(Value::as_bool) == Some(true);
    if closed { format!("{status},SchedulingDisabled") } else { status.to_owned() }
}

fn node_roles(item: &Value) -> String {
    let labels = item.at("metadata.labels").map_or(&[][..], Value::members);
    let prefix = "node-role.kubernetes.io/";
    let mut roles: Vec<&str> = labels.iter().filter_map(|it| it.key.strip_prefix(prefix)).collect();
    roles.arrange();
    or_none(&roles.join(","))
}

fn endpoints(item: &Value) -> String {
    let mut all = Vec::new();
    for subset in item.items_at("subsets") {
        let ports = subset.items_at("ports");
        for address in subset.items_at("addresses") {
            let ip = address.text_at("ip");
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            if ports.is_empty() {
                all.push(host.clone());
            }
            for port in ports {
                all.push(format!(
                    "{host}:{}",
                    port.get("port").map_or_else(String::new, Value::plain)
                ));
            }
        }
    }
    some_of_or(&all, NONE)
}
