//! `spec.addresses` of a Gateway: what is asked of LB-IPAM, and what came of it.
use std::net::IpAddr;

use super::status::Fault;
use crate::api::object::gateway::Gateway;

/// The addresses that are asked for; empty: any one.
pub(super) fn requested(gateway: &Gateway) -> Result<Vec<IpAddr>, Fault> {
    let mut requested = Vec::new();
    for address in &gateway.addresses {
        if &*address.kind != "IPAddress" {
            let message =
                format!("addresses of type {} are not supported, only IPAddress is", address.kind);
            return Err(Fault::new("UnsupportedAddress", message));
        }
        let Some(value) = address.value.as_ref().filter(|value| !value.is_empty()) else {
            continue;
        };
        match value.parse() {
            Ok(ip) if requested.contains(&ip) => {}
            Ok(ip) => requested.push(ip),
            Err(_) => {
                let message = format!("{value:?} is not an IP address");
                return Err(Fault::new("UnsupportedAddress", message));
            }
        }
    }
    Ok(requested)
}

/// What is wrong with the addresses that were assigned, if something is.
pub(super) fn fault(requested: &[IpAddr], assigned: &[IpAddr]) -> Option<Fault> {
    let missing: Vec<String> =
        requested.iter().filter(|ip| !assigned.contains(ip)).map(IpAddr::to_string).collect();
    if !missing.is_empty() {
        let message = format!(
            "{} cannot be used: no pool of LB-IPAM has it, or somebody else does",
            missing.join(", ")
        );
        return Some(Fault::new("AddressNotUsable", message));
    }
    assigned.is_empty().then(|| {
        let message = "LB-IPAM has assigned no address: no pool has a free one for this Gateway";
        Fault::new("AddressNotAssigned", message)
    })
}
