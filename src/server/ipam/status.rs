//! The conditions, addresses, problems and numbers that LB-IPAM reports (LB-07, LB-09, LB-12, LB-15, LB-19).
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::allocate::{Allocation, Grant, Services};
use super::pool::{Counts, PoolView, Pools};
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Str};
use crate::api::problem::{Problem, Severity};
use crate::api::status::{Condition, IpamMetrics, ObjectStatus, Statuses, Truth};

/// The condition of a Service.
pub const REQUEST_SATISFIED: &str = "cilium.io/IPAMRequestSatisfied";
/// The conditions of a pool.
pub const POOL_CONFLICT: &str = "cilium.io/PoolConflict";
/// See [`POOL_CONFLICT`].
pub const IPS_TOTAL: &str = "cilium.io/IPsTotal";
/// See [`POOL_CONFLICT`].
pub const IPS_AVAILABLE: &str = "cilium.io/IPsAvailable";
/// See [`POOL_CONFLICT`].
pub const IPS_USED: &str = "cilium.io/IPsUsed";

/// Everything LB-IPAM has to say. `released` are Services that it does not care for any more and whose
/// status still has addresses that it gave them: with what must remain there (LB-12). Of a Service that gets
/// what it wants, but only `tentative` addresses, nothing is said yet.
pub fn report(
    pools: &Pools,
    services: &Services,
    allocation: &Allocation,
    tentative: &BTreeSet<(NamespacedName, IpAddr)>,
    released: &BTreeMap<NamespacedName, Vec<IpAddr>>,
    problems: &[Problem],
) -> Statuses {
    let mut all = Statuses::default();
    all.problems.extend(pools.problems.iter().chain(problems).cloned());
    let mut metrics = IpamMetrics {
        services_matching: count(services.len()),
        conflicting_pools: count(pools.list.iter().filter(|p| p.conflict.is_some()).count()),
        ..IpamMetrics::default()
    };
    for (name, remaining) in released {
        let status =
            ObjectStatus { load_balancer: Some(remaining.clone()), ..ObjectStatus::default() };
        all.by_object.insert(key(Kind::Service, name), status);
    }
    let satisfied: Str = "satisfied".into();
    for (name, grant) in &allocation.grants {
        let key = key(Kind::Service, name);
        if let Some(refusal) = &grant.refusal {
            metrics.services_unsatisfied += 1;
            all.problems.push(Problem {
                position: services.get(name).and_then(|view| view.service.meta.position("")),
                object: Some(key.clone()),
                field: String::new(),
                message: refusal.message(),
                severity: Severity::Error,
            });
        }
        let is_settled = |ip: &&IpAddr| !tentative.contains(&(name.clone(), **ip));
        let settled: Vec<IpAddr> = grant.addresses.iter().filter(is_settled).copied().collect();
        if !settled.is_empty() || grant.addresses.is_empty() || grant.refusal.is_some() {
            all.by_object.insert(key, service_status(grant, settled, &satisfied));
        }
    }
    for (pool, in_use) in pools.list.iter().zip(&allocation.used) {
        let counts = pool.counts(*in_use);
        let name = &pool.pool.meta.name;
        metrics.pools.insert(Str::clone(&name.name), (counts.available_about, counts.used));
        all.by_object.insert(key(Kind::CiliumLoadBalancerIPPool, name), pool_status(pool, &counts));
    }
    all.ipam = Some(Arc::new(metrics));
    all
}

fn service_status(grant: &Grant, settled: Vec<IpAddr>, satisfied: &Str) -> ObjectStatus {
    let condition = match &grant.refusal {
        None => Condition {
            kind: REQUEST_SATISFIED,
            status: Truth::True,
            reason: Str::clone(satisfied),
            message: String::new(),
        },
        Some(refusal) => Condition {
            kind: REQUEST_SATISFIED,
            status: Truth::False,
            reason: refusal.reason().into(),
            message: refusal.message(),
        },
    };
    ObjectStatus {
        conditions: vec![condition],
        load_balancer: Some(settled),
        ..ObjectStatus::default()
    }
}

fn pool_status(pool: &PoolView, counts: &Counts) -> ObjectStatus {
    let conflict = match &pool.conflict {
        Some(message) => Condition {
            kind: POOL_CONFLICT,
            status: Truth::True,
            reason: "cidr_overlap".into(),
            message: message.clone(),
        },
        None => Condition {
            kind: POOL_CONFLICT,
            status: Truth::False,
            reason: "resolved".into(),
            message: String::new(),
        },
    };
    let number = |kind, message: &str| Condition {
        kind,
        status: Truth::Unknown,
        reason: "noreason".into(),
        message: message.to_owned(),
    };
    ObjectStatus {
        conditions: vec![
            conflict,
            number(IPS_TOTAL, &counts.total),
            number(IPS_AVAILABLE, &counts.available),
            number(IPS_USED, &counts.used.to_string()),
        ],
        ..ObjectStatus::default()
    }
}

fn key(kind: Kind, name: &NamespacedName) -> ObjectKey {
    ObjectKey { kind, name: name.clone() }
}

/// A number of things for a metric.
pub fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
