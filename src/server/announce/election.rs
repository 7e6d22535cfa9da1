//! Advertisements in and out.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::claim::{Claim, Heard, Rival};
use super::{Announce, Ignored, Key, Phase, timing};
use crate::api::address::{IfIndex, MacAddr};
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Time};
use crate::proto::vrrp::{self, Advertisement};

/// A virtual router on one interface, of one family: interface, VRID, priority, source.
pub(super) type Router = (IfIndex, u8, u8, IpAddr);

/// Addresses that are given up; said several times.
#[derive(Debug)]
pub(super) struct Release {
    router: Router,
    addresses: Vec<IpAddr>,
    left: u8,
    pub(super) next: Time,
}

/// The virtual router under which a claim is advertised.
pub(super) const fn router(key: Key, claim: &Claim) -> Router {
    (key.0, claim.vrid, claim.priority, claim.own)
}

// === impl Announce ===

impl Announce {
    pub(super) fn on_vrrp(
        &mut self,
        now: Time,
        (index, mac, source): (IfIndex, MacAddr, IpAddr),
        ttl: u8,
        payload: &[u8],
        out: &mut Outbox<Message>,
    ) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(interface) = self.lan.get(index) else {
            return self.ignore(Ignored::Interface);
        };
        if mac == interface.mac {
            return self.ignore(Ignored::Own);
        }
        let advertisement = match Advertisement::parse(source, ttl, payload) {
            Ok(advertisement) => advertisement,
            Err(drop) => return self.ignore(Ignored::Vrrp(drop)),
        };
        self.meet(now, index, mac);
        let Advertisement { priority, interval, addresses, .. } = advertisement;
        let rival = Rival { source, priority, interval };
        let mut ours = false;
        let mut changed = false;
        let mut urgent = BTreeSet::new();
        let mut yielded: BTreeMap<Router, Vec<IpAddr>> = BTreeMap::new();
        for address in addresses {
            let key = (index, address);
            let Some(claim) = self.claims.get_mut(&key) else { continue };
            ours = true;
            let router = router(key, claim);
            match claim.heard(now, rival, self.interval) {
                Heard::Nothing => {}
                Heard::Changed => changed = true,
                Heard::Yielded => {
                    changed = true;
                    yielded.entry(router).or_default().push(address);
                }
                Heard::Assert => {
                    // Not more often than four times an interval, whatever comes in.
                    if now.since(claim.asserted) >= self.interval / 4 {
                        claim.asserted = now;
                        urgent.insert(router);
                    }
                    let stale =
                        claim.told.is_some_and(|told| now.since(told.from) >= timing::RETELL_AFTER);
                    if stale {
                        claim.told = None;
                    }
                }
            }
        }
        if !ours {
            self.ignore(Ignored::NotOurAddress);
        }
        self.dirty |= changed;
        // The last word of the weaker one: the stronger may not know that there were two, and must tell
        // the LAN again, because hosts may have learnt our hardware address.
        for (router, addresses) in &yielded {
            self.send_advertisement(*router, router.2, addresses, out);
        }
        self.send_advertisements(&urgent, out);
        if changed || !urgent.is_empty() {
            self.after(now, out);
        }
    }

    /// Remembers a node's hardware address; what it was taken for before is forgiven.
    fn meet(&mut self, now: Time, index: IfIndex, mac: MacAddr) {
        if self.peers.insert((index, mac), now).is_some() {
            return;
        }
        if self.peers.len() > timing::MAX_PEERS {
            let oldest = self.peers.iter().min_by_key(|(_, heard)| **heard).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.peers.remove(&oldest);
            }
        }
        for (_, claim) in self.claims.range_mut(on_interface(index)) {
            self.dirty |= claim.known(mac);
        }
    }

    /// Sends the regular advertisements if they are due, otherwise those that are urgent.
    pub(super) fn advertise(
        &mut self,
        now: Time,
        urgent: &BTreeSet<Router>,
        out: &mut Outbox<Message>,
    ) {
        if self.next_advertisement > now {
            return self.send_advertisements(urgent, out);
        }
        self.next_advertisement = now + self.interval;
        let all: BTreeSet<Router> = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.advertises())
            .map(|(key, claim)| router(*key, claim))
            .collect();
        self.send_advertisements(&all, out);
    }

    fn send_advertisements(&self, routers: &BTreeSet<Router>, out: &mut Outbox<Message>) {
        if routers.is_empty() {
            return;
        }
        let mut held: BTreeMap<Router, Vec<IpAddr>> = BTreeMap::new();
        for (&key, claim) in self.claims.iter().filter(|(_, claim)| claim.advertises()) {
            held.entry(router(key, claim)).or_default().push(key.1);
        }
        for router in routers {
            if let Some(addresses) = held.get(router) {
                self.send_advertisement(*router, router.2, addresses, out);
            }
        }
    }

    fn send_advertisement(
        &self,
        (index, vrid, _, source): Router,
        priority: u8,
        addresses: &[IpAddr],
        out: &mut Outbox<Message>,
    ) {
        let (most, first) = match source {
            IpAddr::V4(_) => (vrrp::MAX_ADDRESSES, None),
            IpAddr::V6(_) => (timing::V6_PER_ADVERTISEMENT, Some(virtual_link_local(vrid))),
        };
        for addresses in addresses.chunks(most) {
            let addresses = first.into_iter().chain(addresses.iter().copied()).collect();
            let advertisement =
                Advertisement { vrid, priority, interval: self.interval, addresses };
            let payload: Arc<[u8]> = advertisement.payload(source).into();
            out.send(wiring::LAN, Message::SendVrrp(index, source, payload));
        }
    }

    /// Queues the release of those of `keys` that we advertise.
    pub(super) fn release(&mut self, now: Time, keys: &[Key]) {
        let mut by_router: BTreeMap<Router, Vec<IpAddr>> = BTreeMap::new();
        for key in keys {
            let claim = self.claims.get(key).filter(|claim| claim.advertises());
            if let Some(claim) = claim {
                by_router.entry(router(*key, claim)).or_default().push(key.1);
            }
        }
        let left = timing::RELEASES;
        self.releases.extend(by_router.into_iter().map(|(router, addresses)| Release {
            router,
            addresses,
            left,
            next: now,
        }));
    }

    pub(super) fn send_releases(&mut self, now: Time, out: &mut Outbox<Message>) {
        let mut releases = std::mem::take(&mut self.releases);
        for release in releases.iter_mut().filter(|release| release.next <= now) {
            // An address that came back meanwhile is not released.
            let (index, ..) = release.router;
            let claims = &self.claims;
            release
                .addresses
                .retain(|address| !claims.get(&(index, *address)).is_some_and(Claim::advertises));
            if !release.addresses.is_empty() {
                let released = vrrp::PRIORITY_RELEASE;
                self.send_advertisement(release.router, released, &release.addresses, out);
            }
            release.left -= 1;
            release.next = now + timing::RELEASE_EVERY;
        }
        releases.retain(|release| release.left > 0);
        self.releases = releases;
        if self.phase == Phase::Leaving && self.releases.is_empty() {
            self.phase = Phase::Released;
            out.send(wiring::SIGNAL, Message::Released);
        }
    }
}

/// All claims on one interface.
pub(super) fn on_interface(index: IfIndex) -> std::ops::RangeInclusive<Key> {
    let last = Ipv6Addr::from(u128::MAX);
    (index, IpAddr::from([0, 0, 0, 0]))..=(index, IpAddr::V6(last))
}

/// The link-local address that belongs to a virtual router, which must be the first in every IPv6
/// advertisement (RFC 9568, section 5.2.9): made from its virtual MAC 00-00-5E-00-02-VRID.
fn virtual_link_local(vrid: u8) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0200, 0x5eff, 0xfe00, 0x0200 | u16::from(vrid)).into()
}
