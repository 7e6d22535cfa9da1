//! Who gets which address: a pure function of the objects and the claims, so that nodes with the same
//! objects and claims have the same result whatever happened before.
//!
//! 1. Claims, oldest first: an address in use stays, as long as its Service and pool allow it.
//! 2. Addresses that the Service's status already has (LB-17), in namespace/name order.
//! 3. Explicit requests (LB-13), in namespace/name order.
//! 4. For each family still wanted, in namespace/name order: an address of the sharing key's set (LB-16),
//!    else the lowest free one of the first open pool that selects the Service; pools by name, ranges in
//!    order (LB-05).
//!
//! A Service takes only addresses that it asks for now, so its own explicit request goes before what it had
//! before; another's request does not take an address that is in use (LB-15, `already_allocated`).
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::claim::ClaimSet;
use super::pool::{Family, Found, Pools};
use super::service::ServiceView;
use crate::api::meta::NamespacedName;
use crate::arrange::{Arrange, Gather};

/// Our Services by name.
pub type Services = BTreeMap<NamespacedName, ServiceView>;

/// Why a Service lacks an address (LB-15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No open pool selects the Service.
    NoPool,
    /// No open pool has this address.
    NoPoolWith(IpAddr),
    /// The pool that has this address does not select the Service.
    SelectorMismatch(IpAddr),
    /// All pools that would do are used up.
    OutOfIps,
    /// Somebody else has this address.
    AlreadyAllocated(IpAddr),
    /// Those who have this address cannot share it with the Service.
    Incompatible(IpAddr, &'static str),
}

/// What one Service gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Its addresses: as requested, else IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
    /// What it lacks: the last refusal, as Cilium's condition has one message only.
    pub refusal: Option<Refusal>,
}

/// What all Services get.
#[derive(Debug, Clone, Default)]
pub struct Allocation {
    /// Of each of our Services.
    pub grants: BTreeMap<NamespacedName, Grant>,
    /// How many addresses in use are counted to each pool.
    pub used: Vec<u64>,
}

// === impl Refusal ===

impl Refusal {
    /// The condition's reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoPool | Self::NoPoolWith(_) => "no_pool",
            Self::SelectorMismatch(_) => "pool_selector_mismatch",
            Self::OutOfIps => "out_of_ips",
            Self::AlreadyAllocated(_) => "already_allocated",
            Self::Incompatible(..) => "already_allocated_incompatible_service",
        }
    }

    /// The condition's message, in Cilium's words.
    pub fn message(&self) -> String {
        match self {
            Self::NoPool => {
                "There are no enabled CiliumLoadBalancerIPPools that match this service".to_owned()
            }
            Self::NoPoolWith(ip) => format!("No pool exists with a CIDR containing '{ip}'"),
            Self::SelectorMismatch(ip) => {
                format!("The pool with the CIDR containing '{ip}', doesn't select this service")
            }
            Self::OutOfIps => "All enabled CiliumLoadBalancerIPPools that match this service ran \
                               out of allocatable IPs"
                .to_owned(),
            Self::AlreadyAllocated(ip) => {
                format!("The IP '{ip}' is already allocated to another service")
            }
            Self::Incompatible(ip, reason) => format!(
                "The IP '{ip}' is already allocated to an incompatible service. Reason: {reason}"
            ),
        }
    }
}

// === impl Allocation ===

impl Allocation {
    /// Computes it. Costs O(n log n) in the number of addresses in use, whatever the size of the pools.
    pub fn new(pools: &Pools, services: &Services, claims: &ClaimSet) -> Self {
        let mut run = Run {
            pools,
            services: services.values().collect(),
            grants: vec![Grant::default(); services.len()],
            owners: BTreeMap::new(),
            shared: BTreeMap::new(),
            next_free: pools
                .list
                .iter()
                .map(|pool| {
                    pool.ranges
                        .iter()
                        .map(|range| Some(range.first + u128::from(range.reserved_ends)))
                        .collect()
                })
                .collect(),
        };
        run.keep_claims(claims);
        run.import_statuses();
        for service in 0..run.services.len() {
            run.grant_requests(service);
        }
        for service in 0..run.services.len() {
            run.fill_families(service);
        }
        run.finish()
    }

    /// Whether the Service gets the address.
    pub fn holds(&self, service: &NamespacedName, address: IpAddr) -> bool {
        self.grants.get(service).is_some_and(|grant| grant.addresses.contains(&address))
    }
}

/// The function's state. Services are numbered in namespace/name order.
struct Run<'a> {
    pools: &'a Pools,
    services: Vec<&'a ServiceView>,
    grants: Vec<Grant>,
    owners: BTreeMap<IpAddr, Vec<usize>>,
    shared: BTreeMap<&'a str, BTreeSet<IpAddr>>,
    /// By pool and range: no address below is free. Nothing is given back during a run.
    next_free: Vec<Vec<Option<u128>>>,
}

// === impl Run ===

impl<'a> Run<'a> {
    fn keep_claims(&mut self, claims: &ClaimSet) {
        let mut order: Vec<(u64, usize, IpAddr)> = Vec::new();
        for (at, service) in self.services.iter().enumerate() {
            order.extend(claims.of(service.name()).map(|(address, held)| (held.born, at, address)));
        }
        order.arrange();
        for (_, service, address) in order {
            let view = self.services[service];
            if self.may_have(service, address)
                && self.pools.allow(view, address)
                && self.is_free_for(service, address).is_ok()
            {
                self.grant(service, address);
            }
        }
    }

    fn import_statuses(&mut self) {
        for service in 0..self.services.len() {
            let view = self.services[service];
            for &address in &view.service.status_ips {
                if self.may_have(service, address)
                    && matches!(self.pools.find(view, address), Found::Pool(_))
                    && self.is_free_for(service, address).is_ok()
                {
                    self.grant(service, address);
                }
            }
        }
    }

    fn grant_requests(&mut self, service: usize) {
        let view = self.services[service];
        for &address in &view.requested {
            if self.grants[service].addresses.contains(&address) {
                continue;
            }
            let result = match self.pools.find(view, address) {
                Found::Nowhere => Err(Refusal::NoPoolWith(address)),
                Found::SelectorMismatch => Err(Refusal::SelectorMismatch(address)),
                Found::Pool(pool) if self.pools.reserves(pool, address) => {
                    Err(Refusal::AlreadyAllocated(address))
                }
                Found::Pool(_) => self.is_free_for(service, address),
            };
            match result {
                Ok(()) => self.grant(service, address),
                Err(refusal) => self.grants[service].refusal = Some(refusal),
            }
        }
    }

    fn fill_families(&mut self, service: usize) {
        if !self.services[service].requested.is_empty() {
            return;
        }
        for family in [Family::V4, Family::V6] {
            if !self.services[service].wants(family) || self.has_family(service, family) {
                continue;
            }
            let found = match self.shared_address(service, family) {
                Some(address) => Ok(address),
                None => self.lowest_free(service, family),
            };
            match found {
                Ok(address) => self.grant(service, address),
                Err(refusal) => self.grants[service].refusal = Some(refusal),
            }
        }
    }

    /// Whether the Service asks for this address (or one of its family) and has none for it yet.
    fn may_have(&self, service: usize, address: IpAddr) -> bool {
        let view = self.services[service];
        if view.requested.is_empty() {
            let family = Family::of(address);
            view.wants(family) && !self.has_family(service, family)
        } else {
            view.requested.contains(&address) && !self.grants[service].addresses.contains(&address)
        }
    }

    fn has_family(&self, service: usize, family: Family) -> bool {
        self.grants[service].addresses.iter().any(|&address| Family::of(address) == family)
    }

    fn is_free_for(&self, service: usize, address: IpAddr) -> Result<(), Refusal> {
        let Some(owners) = self.owners.get(&address) else { return Ok(()) };
        let view = self.services[service];
        if view.sharing_key.is_none() {
            return Err(Refusal::AlreadyAllocated(address));
        }
        for &owner in owners {
            self.services[owner]
                .may_share(view)
                .map_err(|reason| Refusal::Incompatible(address, reason))?;
        }
        Ok(())
    }

    fn shared_address(&self, service: usize, family: Family) -> Option<IpAddr> {
        let view = self.services[service];
        let set = self.shared.get(view.sharing_key.as_deref()?)?;
        set.iter().copied().find(|&address| {
            Family::of(address) == family
                && self.pools.allow(view, address)
                && self.is_free_for(service, address).is_ok()
        })
    }

    fn lowest_free(&mut self, service: usize, family: Family) -> Result<IpAddr, Refusal> {
        let pools = self.pools;
        let mut refusal = Refusal::NoPool;
        if !pools.is_enabled(family) {
            return Err(refusal);
        }
        let view = self.services[service];
        for (at, pool) in pools.list.iter().enumerate() {
            if !pool.is_open() || !pool.selects(view) {
                continue;
            }
            for (range_at, range) in pool.ranges.iter().enumerate() {
                if range.family != family {
                    continue;
                }
                let last = range.last - u128::from(range.reserved_ends);
                let next = &mut self.next_free[at][range_at];
                while let Some(number) = *next {
                    let address = family.address(number);
                    if !self.owners.contains_key(&address) {
                        return Ok(address);
                    }
                    *next = number.checked_add(1).filter(|&number| number <= last);
                }
                refusal = Refusal::OutOfIps;
            }
        }
        Err(refusal)
    }

    fn grant(&mut self, service: usize, address: IpAddr) {
        self.grants[service].addresses.push(address);
        self.owners.entry(address).or_default().push(service);
        if let Some(key) = &self.services[service].sharing_key {
            self.shared.entry(key).or_default().insert(address);
        }
    }

    fn finish(self) -> Allocation {
        let mut used = vec![0; self.pools.list.len()];
        for &address in self.owners.keys() {
            // An address that a pool keeps back is in its count already.
            if let Some(pool) = self.pools.account(address)
                && !self.pools.reserves(pool, address)
            {
                used[pool] += 1;
            }
        }
        let grants = self.services.iter().zip(self.grants).map(|(view, mut grant)| {
            let asked = |address: &IpAddr| view.requested.iter().position(|ip| ip == address);
            grant.addresses.arrange_by_key(|address| (asked(address), *address));
            (view.name().clone(), grant)
        });
        Allocation { grants: grants.gather(), used }
    }
}
