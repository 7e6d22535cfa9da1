//! ARP and neighbor messages: probes, announcements, and the claims of strangers.
use std::net::IpAddr;
use std::sync::Arc;

use super::claim::{Claim, State, Told};
use super::{Announce, Ignored, Phase, timing};
use crate::api::address::{IfIndex, MacAddr};
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Time};
use crate::proto::{arp, ether, ndp};

/// A token bucket for the frames this node sends.
#[derive(Debug)]
pub(super) struct FrameBudget {
    tokens: u32,
    refilled: Time,
}

// === impl FrameBudget ===

impl Default for FrameBudget {
    fn default() -> Self {
        Self { tokens: timing::FRAME_BURST, refilled: Time::ZERO }
    }
}

impl FrameBudget {
    /// Takes `count` tokens if they are there.
    pub(super) fn take(&mut self, now: Time, count: u32) -> bool {
        let per_second = u128::from(timing::FRAMES_PER_SECOND);
        let earned = now.since(self.refilled).as_nanos() * per_second / 1_000_000_000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(timing::FRAME_BURST);
            self.refilled = now;
        }
        let enough = self.tokens >= count;
        if enough {
            self.tokens -= count;
        }
        enough
    }
}

// === impl Announce ===

impl Announce {
    pub(super) fn on_frame(
        &mut self,
        now: Time,
        index: IfIndex,
        frame: &[u8],
        out: &mut Outbox<Message>,
    ) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(interface) = self.lan.get(index) else {
            return self.ignore(Ignored::Interface);
        };
        let own = interface.mac;
        let (mac, address) = match claimed(frame) {
            Ok(claimed) => claimed,
            Err(why) => return self.ignore(why),
        };
        if mac == own {
            return self.ignore(Ignored::Own);
        }
        if self.peers.contains_key(&(index, mac)) {
            return self.ignore(Ignored::Node);
        }
        let Some(claim) = self.claims.get_mut(&(index, address)) else {
            return self.ignore(Ignored::NotOurAddress);
        };
        let news = claim.foreign.is_none_or(|foreign| foreign.mac != mac);
        let before = claim.state;
        claim.stranger(now, mac);
        self.next_claim = self.next_claim.min(claim.deadline());
        if news || claim.state != before {
            // A peer whose first advert is still on its way looks the same; status has the verdict.
            log::info!("{mac}, which is not known as a node, claims {address}");
            self.dirty = true;
        }
        if self.dirty {
            self.after(now, out);
        }
    }

    /// Sends the probes and announcements that are due, as far as the budget goes: first what an address
    /// waits for, then what the LAN waits for, then the precautions of a standby.
    pub(super) fn send_frames(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.send_probes(now, false, out);
        self.send_announcements(now, out);
        self.send_probes(now, true, out);
    }

    fn send_probes(&mut self, now: Time, precaution: bool, out: &mut Outbox<Message>) {
        for (&(index, address), claim) in &mut self.claims {
            let due = claim.eligible && claim.probes_left > 0 && claim.probe_at <= now;
            let standby = claim.verified && matches!(claim.state, State::Backup { .. });
            let Some(interface) = self.lan.get(index).filter(|_| due && standby == precaution)
            else {
                continue;
            };
            if !self.budget.take(now, 1) {
                claim.probe_at = now + timing::FRAME_RETRY;
                continue;
            }
            claim.probes_left -= 1;
            let last = claim.probes_left == 0;
            claim.probe_at = if last { now } else { now + timing::PROBE_EVERY };
            out.send(wiring::LAN, Message::SendFrame(index, probe(interface.mac, address)));
        }
    }

    fn send_announcements(&mut self, now: Time, out: &mut Outbox<Message>) {
        for (&(index, address), claim) in &mut self.claims {
            let Some(interface) = self.lan.get(index) else { continue };
            if claim.defend_at.is_some_and(|at| at <= now) {
                claim.defend_at = None;
                claim.defended = Some(now);
                // Both frames of an announcement; without budget the next regular one must do.
                if self.budget.take(now, 2) {
                    announce(index, address, interface.mac, true, out);
                }
            }
            if claim.state == State::Holder && claim.told.is_none_or(|told| told.next <= now) {
                let fresh = claim.told.is_none_or(|told| told.times < timing::TELL_AT.len());
                if self.budget.take(now, if fresh { 2 } else { 1 }) {
                    told(claim, now, address);
                    announce(index, address, interface.mac, fresh, out);
                } else if let Some(told) = &mut claim.told {
                    told.next = now + timing::FRAME_RETRY;
                } else {
                    claim.told =
                        Some(Told { from: now, times: 0, next: now + timing::FRAME_RETRY });
                }
            }
        }
    }
}

/// Who claims which address in a frame.
fn claimed(frame: &[u8]) -> Result<(MacAddr, IpAddr), Ignored> {
    let ether_type = frame.get(12..14).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match ether_type {
        Some(ether::ARP) => {
            let packet = arp::Packet::parse(frame).map_err(Ignored::Arp)?;
            if packet.sender.is_unspecified() {
                return Err(Ignored::Question);
            }
            Ok((packet.sender_mac, packet.sender.into()))
        }
        Some(ether::IPV6) => {
            let message = ndp::Message::parse(frame).map_err(Ignored::Ndp)?;
            let ndp::Kind::Advertisement { .. } = message.kind else {
                return Err(Ignored::Question);
            };
            Ok((message.link_layer.unwrap_or(message.source_mac), message.target.into()))
        }
        _ => Err(Ignored::EtherType),
    }
}

fn told(claim: &mut Claim, now: Time, address: IpAddr) {
    let old = claim.told.unwrap_or(Told { from: now, times: 0, next: now });
    let times = old.times + 1;
    let next = match timing::TELL_AT.get(times) {
        Some(&offset) => (old.from + offset).max(now + timing::FRAME_RETRY),
        // Spread over time, so that many addresses do not come in one burst.
        None if times == timing::TELL_AT.len() => {
            let spread = super::rendezvous::hash(&[address.to_string().as_bytes()]) % 1000;
            now + timing::TELL_EVERY / 1000 * u32::try_from(spread).unwrap_or(0)
                + timing::RETELL_AFTER
        }
        None => now + timing::TELL_EVERY,
    };
    claim.told = Some(Told { from: old.from, times, next });
}

fn probe(mac: MacAddr, address: IpAddr) -> Arc<[u8]> {
    match address {
        IpAddr::V4(address) => arp::Packet::probe(mac, address).frame(MacAddr::BROADCAST).into(),
        IpAddr::V6(address) => ndp::Message::probe(mac, address).frame().into(),
    }
}

/// Tells the LAN that `address` is at `mac`. For IPv4 a request (RFC 5227), and if `both` a reply too,
/// since some hosts heed only the one, some only the other.
fn announce(index: IfIndex, address: IpAddr, mac: MacAddr, both: bool, out: &mut Outbox<Message>) {
    let mut send = |frame: Vec<u8>| {
        out.send(wiring::LAN, Message::SendFrame(index, frame.into()));
    };
    match address {
        IpAddr::V4(address) => {
            for operation in [arp::Operation::Request, arp::Operation::Reply] {
                if both || operation == arp::Operation::Request {
                    let packet = arp::Packet::announcement(operation, mac, address);
                    send(packet.frame(MacAddr::BROADCAST));
                }
            }
        }
        IpAddr::V6(address) => send(ndp::Message::unsolicited(mac, address).frame()),
    }
}
