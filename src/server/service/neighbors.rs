//! Which other nodes have a live agent, and under which address they are heard on the LAN.
//!
//! Every agent sends its claims (`proto::claims`) at least once a second; their sender's address is the address where
//! packets can be handed over to that node. As with VRRP, whoever can send on the LAN is believed.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::api::meta::Str;
use crate::kernel::Time;

/// An agent that has not been heard for so long is taken for gone, and its node for one without our programs: connections
/// to its Pods must be made in another way then, and those that exist break. Its programs work without it, so this is
/// longer than an agent needs that drains (10 s), ends, and is started again or upgraded. Of a node that is dead nothing
/// is reached in either way.
pub const SILENCE: Duration = Duration::from_secs(30);
/// A node that has another address is believed when the old one has been silent for so long: five packets are missing.
pub const MOVED: Duration = Duration::from_secs(5);
/// How many nodes are remembered; clusters have ten.
pub const MAX_NEIGHBORS: usize = 64;

/// Where a node was last heard, for IPv4 and IPv6.
type Heard = [Option<(IpAddr, Time)>; 2];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    by_name: BTreeMap<Str, Heard>,
}

// === impl Neighbors ===

impl Neighbors {
    /// `node` was heard from `source`. Returns whether that is news. As long as a node is heard from one address it
    /// keeps that, so that neither a second LAN nor somebody else who uses its name moves its connections.
    pub(super) fn heard(&mut self, now: Time, node: &Str, source: IpAddr) -> bool {
        if !self.by_name.contains_key(node) && self.by_name.len() >= MAX_NEIGHBORS {
            return false;
        }
        let slots = self.by_name.entry(Str::clone(node)).or_default();
        let slot = &mut slots[usize::from(source.is_ipv6())];
        match slot {
            Some((address, last)) if *address == source => {
                *last = now;
                false
            }
            Some((_, last)) if now < *last + MOVED => false,
            _ => {
                *slot = Some((source, now));
                true
            }
        }
    }

    /// Forgets who is silent. Returns whether somebody was.
    pub(super) fn forget(&mut self, now: Time) -> bool {
        let mut changed = false;
        self.by_name.retain(|_, slots| {
            for slot in slots.iter_mut() {
                if slot.is_some_and(|(_, last)| last + SILENCE <= now) {
                    *slot = None;
                    changed = true;
                }
            }
            slots.iter().any(Option::is_some)
        });
        changed
    }

    /// When [`Neighbors::forget`] has something to do, unless they are heard again.
    pub(super) fn timeout(&self) -> Option<Time> {
        let all = self.by_name.values().flatten().flatten();
        all.map(|(_, last)| *last + SILENCE).min()
    }

    /// The live ones with their addresses.
    pub(super) fn live(&self) -> impl Iterator<Item = (&Str, [Option<IpAddr>; 2])> {
        let address = |slot: Option<(IpAddr, Time)>| slot.map(|(address, _)| address);
        self.by_name.iter().map(move |(name, slots)| (name, slots.map(address)))
    }
}
