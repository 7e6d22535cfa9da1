//! CiliumLoadBalancerIPPool and CiliumL2AnnouncementPolicy.
use std::net::IpAddr;

use super::faults::Faults;
use super::names;
use super::service::{flag, mark_of, text, texts};
use crate::api::meta::{Meta, Str};
use crate::api::object::{IpBlock, L2Policy, Pool};
use crate::api::selector::{LabelSelector, Requirement};
use crate::proto::value::Value;

pub(super) fn pool(meta: Meta, value: &mut Value, faults: &mut Faults) -> Pool {
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let mut blocks = Vec::new();
    for (at, entry) in spec.get("blocks").map_or(&[][..], Value::items).iter().enumerate() {
        blocks.extend(block(entry, &format!("spec.blocks[{at}]"), faults));
    }
    if spec.get("blocks").map_or(&[][..], Value::items).is_empty() && value.get("spec").is_some() {
        let message = "the pool has no blocks, so no addresses";
        faults.warn(mark_of(value, "spec"), "spec.blocks", message);
    }
    let pool = Pool {
        meta,
        blocks,
        selector: selector(spec, "spec", "serviceSelector", faults),
        allow_first_last: text(spec, "allowFirstLastIPs") != Some("No"),
        disabled: flag(spec, "disabled"),
    };
    let spec = value.entry("spec");
    spec.set_default("disabled", false);
    pool
}

fn block(entry: &Value, field: &str, faults: &mut Faults) -> Option<IpBlock> {
    let cidr = text(entry, "cidr");
    let (start, stop) = (text(entry, "start"), text(entry, "stop"));
    match (cidr, start, stop) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            let message = "has both `cidr` and `start` or `stop`: either the one or the other";
            faults.error(entry.mark, field, message);
            None
        }
        (Some(cidr), None, None) => {
            let (address, length) = names::parse_cidr(cidr).ok()?;
            let network = network(address, length);
            if network != address {
                let message = format!("`{cidr}` is taken as {network}/{length}");
                faults.warn(mark_of(entry, "cidr"), format!("{field}.cidr"), message);
            }
            Some(IpBlock::Cidr(network, length))
        }
        (None, Some(start), stop) => {
            let first: IpAddr = start.parse().ok()?;
            let last: IpAddr = stop.unwrap_or(start).parse().ok()?;
            let wrong = if first.is_ipv4() != last.is_ipv4() {
                "is not of the same family as"
            } else if first > last {
                "is greater than"
            } else {
                return Some(IpBlock::Range(first, last));
            };
            let message = format!("start {first} {wrong} stop {last}");
            faults.error(mark_of(entry, "start"), format!("{field}.start"), message);
            None
        }
        (None, None, Some(_)) => {
            let message = "required with `stop`";
            faults.error(entry.mark, format!("{field}.start"), message);
            None
        }
        (None, None, None) => {
            if entry
                .members()
                .iter()
                .all(|member| !matches!(&*member.key, "cidr" | "start" | "stop"))
            {
                let message = "needs `cidr`, or `start` (and `stop`)";
                faults.error(entry.mark, field, message);
            }
            None
        }
    }
}

/// The address with its host bits cleared.
fn network(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

pub(super) fn l2_policy(meta: Meta, value: &mut Value, faults: &mut Faults) -> L2Policy {
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let policy = L2Policy {
        meta,
        service_selector: selector(spec, "spec", "serviceSelector", faults),
        node_selector: selector(spec, "spec", "nodeSelector", faults),
        interfaces: texts(spec, "interfaces").map(Str::from).collect(),
        external_ips: flag(spec, "externalIPs"),
        load_balancer_ips: flag(spec, "loadBalancerIPs"),
    };
    if !policy.external_ips && !policy.load_balancer_ips {
        let message = "announces nothing: set loadBalancerIPs or externalIPs to true";
        faults.warn(mark_of(value, "spec"), "spec", message);
    }
    policy
}

/// The label selector `key` of a map that is written at `parent`.
pub(super) fn selector(
    map: &Value,
    parent: &str,
    key: &str,
    faults: &mut Faults,
) -> Option<LabelSelector> {
    let value = map.get(key)?;
    let mut requirements = Vec::new();
    for member in value.get("matchLabels").map_or(&[][..], Value::members) {
        let text = member.value.as_str().unwrap_or_default();
        let checked = names::qualified_name(&member.key).and_then(|()| names::label_value(text));
        if let Err(message) = checked {
            let field = format!("{parent}.{key}.matchLabels.{}", member.key);
            faults.error(member.mark, field, message);
        }
        requirements.push(Requirement::In(Str::from(&*member.key), vec![Str::from(text)]));
    }
    let expressions = value.get("matchExpressions").map_or(&[][..], Value::items);
    for (at, expression) in expressions.iter().enumerate() {
        let field = format!("{parent}.{key}.matchExpressions[{at}].values");
        requirements.extend(requirement(expression, &field, faults));
    }
    Some(LabelSelector { requirements })
}

fn requirement(expression: &Value, field: &str, faults: &mut Faults) -> Option<Requirement> {
    let key = Str::from(text(expression, "key")?);
    let operator = text(expression, "operator")?;
    let values: Vec<Str> = texts(expression, "values").map(Str::from).collect();
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let message = format!("required, and empty: {operator} needs at least one value");
            faults.error(mark_of(expression, "values"), field, message);
            None
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = format!("must be empty with {operator}");
            faults.error(mark_of(expression, "values"), field, message);
            None
        }
        "In" => Some(Requirement::In(key, values)),
        "NotIn" => Some(Requirement::NotIn(key, values)),
        "Exists" => Some(Requirement::Exists(key)),
        "DoesNotExist" => Some(Requirement::DoesNotExist(key)),
        _ => None,
    }
}
