//! `status.loadBalancer` of a Service or Ingress.
use std::net::IpAddr;

use crate::proto::value::Value;

/// `{ingress: [{ip, ports}]}`, or an empty map without addresses; ports are those of an Ingress, all TCP.
pub fn load_balancer(ips: &[IpAddr], ports: &[u16]) -> Value {
    if ips.is_empty() {
        return Value::map();
    }
    let ports: Vec<Value> =
        ports.iter().map(|&port| Value::map().with("port", port).with("protocol", "TCP")).collect();
    let entry = |ip: &IpAddr| {
        let entry = Value::map().with("ip", ip.to_string());
        if ports.is_empty() { entry } else { entry.with("ports", ports.clone()) }
    };
    Value::map().with("ingress", ips.iter().map(entry).collect::<Vec<_>>())
}
