//! What this node does for one address on one interface: the state machine of RFC 9568, section 6.4,
//! applied to each address by itself, with the probing of RFC 5227 in front.
//!
//! Each address stands alone so that nodes with different configurations, whose virtual routers do not
//! match for a moment, still settle every address between them: whoever hears a better claim for an
//! address falls silent for it, under whatever VRID the claim came.
use std::net::IpAddr;
use std::time::Duration;

use super::timing;
use crate::api::address::MacAddr;
use crate::kernel::Time;

/// Another node's advertisement of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rival {
    pub(super) source: IpAddr,
    pub(super) priority: u8,
    pub(super) interval: Duration,
}

/// A claim of the address by a hardware address that belongs to no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) mac: MacAddr,
    pub(super) seen: Time,
}

/// Whether the holder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Silent; takes over at this time unless a holder is heard.
    Backup { take_at: Time },
    /// Holds the address and answers.
    Holder,
    /// Holds the address as far as the nodes are concerned, so that no other node walks into the same
    /// trap, but stays silent because a stranger uses it. Asks again at `ask_at`; while the answers
    /// are awaited, `verdict_at` is set.
    Conflict { ask_at: Time, verdict_at: Option<Time> },
}

/// What the server must do after an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Nothing,
    /// What is shown has changed.
    Changed,
    /// We have fallen silent.
    Yielded,
    /// We hold it with a better claim: say so at once.
    Assert,
}

/// One address on one interface.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Whether this node may hold it; if not, it only watches who does.
    pub(super) eligible: bool,
    pub(super) vrid: u8,
    pub(super) priority: u8,
    /// This node's source address for VRRP, which breaks ties.
    pub(super) own: IpAddr,
    pub(super) state: State,
    pub(super) rival: Option<Rival>,
    /// Nobody has answered our probes, or a node announces it already.
    pub(super) verified: bool,
    pub(super) probes_left: u8,
    pub(super) probe_at: Time,
    pub(super) foreign: Option<Foreign>,
    /// When the last claim of a stranger was answered with an announcement of ours.
    pub(super) defended: Option<Time>,
    /// When to answer the last claim of a stranger, if it still is one then.
    pub(super) defend_at: Option<Time>,
    /// From when on it may take the address from a lower node.
    pub(super) preempt_at: Time,
    /// When telling the LAN began, how often it was told, and when it is told next.
    pub(super) told: Option<Told>,
    pub(super) asserted: Time,
    /// Who held it when last published, and since when.
    pub(super) shown: (Seat, Time),
}

/// Progress of the gratuitous announcements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) from: Time,
    pub(super) times: usize,
    pub(super) next: Time,
}

/// Who holds an address, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    Nobody,
    Us,
    Peer(IpAddr),
}

// === impl Claim ===

impl Claim {
    /// A claim that begins: silent, listening for a holder, probing meanwhile.
    pub(super) fn new(now: Time, interval: Duration, priority: u8, own: IpAddr) -> Self {
        let take_at = now + timing::dead_after(interval) + timing::skew(interval, priority);
        Self {
            eligible: true,
            vrid: 1,
            priority,
            own,
            state: State::Backup { take_at },
            rival: None,
            verified: false,
            probes_left: timing::PROBES,
            probe_at: now,
            foreign: None,
            defended: None,
            defend_at: None,
            preempt_at: now + timing::PREEMPT_AFTER,
            told: None,
            asserted: Time::ZERO,
            shown: (Seat::Nobody, now),
        }
    }

    /// Whether this node answers.
    pub(super) const fn answers(&self) -> bool {
        matches!(self.state, State::Holder)
    }

    /// Whether this node advertises the address.
    pub(super) const fn advertises(&self) -> bool {
        matches!(self.state, State::Holder | State::Conflict { .. })
    }

    /// Whether it waits for another node's silence.
    pub(super) const fn is_waiting(&self) -> bool {
        self.eligible && self.rival.is_some() && matches!(self.state, State::Backup { .. })
    }

    /// Whether it waits for answers to probes before its first use.
    pub(super) const fn is_probing(&self) -> bool {
        self.eligible
            && !self.verified
            && self.rival.is_none()
            && matches!(self.state, State::Backup { .. })
    }

    /// Who holds it.
    pub(super) fn seat(&self) -> Seat {
        match (self.state, self.rival) {
            (State::Holder, _) => Seat::Us,
            (State::Conflict { .. }, _) | (State::Backup { .. }, None) => Seat::Nobody,
            (State::Backup { .. }, Some(rival)) => Seat::Peer(rival.source),
        }
    }

    /// A peer advertises the address, or releases it (priority 0).
    pub(super) fn heard(&mut self, now: Time, rival: Rival, interval: Duration) -> Heard {
        let skew = timing::skew(interval, self.priority);
        if rival.priority == 0 {
            return self.released(now + skew, rival.source);
        }
        let down = now + timing::dead_after(rival.interval) + skew;
        let theirs = (rival.priority, rival.source);
        match self.state {
            State::Holder | State::Conflict { .. } if theirs < (self.priority, self.own) => {
                Heard::Assert
            }
            State::Holder | State::Conflict { .. } => {
                self.fall_silent(down);
                self.rival = Some(rival);
                self.verified = true;
                Heard::Yielded
            }
            State::Backup { .. } => {
                self.state = State::Backup { take_at: down };
                // The probes go on: it may be held by a node and used by a stranger all the same.
                self.verified = true;
                let old = self.rival;
                let better =
                    |old: Rival| old.source == rival.source || theirs >= (old.priority, old.source);
                if old.is_none_or(better) {
                    self.rival = Some(rival);
                }
                if old.map(|old| (old.priority, old.source))
                    == self.rival.map(|new| (new.priority, new.source))
                {
                    Heard::Nothing
                } else {
                    Heard::Changed
                }
            }
        }
    }

    fn released(&mut self, take_at: Time, source: IpAddr) -> Heard {
        let State::Backup { take_at: planned } = self.state else { return Heard::Nothing };
        if self.rival.is_none_or(|rival| rival.source != source) {
            return Heard::Nothing;
        }
        self.rival = None;
        self.state = State::Backup { take_at: take_at.min(planned) };
        Heard::Changed
    }

    /// A stranger has claimed the address. The first time it is answered with an announcement, the
    /// second time it is a conflict (RFC 5227, section 2.4 (b)).
    pub(super) fn stranger(&mut self, now: Time, mac: MacAddr) {
        self.foreign = Some(Foreign { mac, seen: now });
        if self.state != State::Holder {
            return;
        }
        match self.defended {
            Some(at) if now.since(at) < timing::SAME_CLAIM => {}
            Some(at) if now.since(at) < timing::DEFEND_INTERVAL => self.enter_conflict(now),
            _ if self.defend_at.is_none() => self.defend_at = Some(now + timing::DEFEND_AFTER),
            _ => {}
        }
    }

    /// The hardware address turns out to be a node's: its claims are no conflict.
    pub(super) fn known(&mut self, mac: MacAddr) -> bool {
        if self.foreign.is_none_or(|foreign| foreign.mac != mac) {
            return false;
        }
        self.foreign = None;
        self.defended = None;
        self.defend_at = None;
        if matches!(self.state, State::Conflict { .. }) {
            self.state = State::Holder;
            self.told = None;
        }
        true
    }

    /// Stops answering; takes over again at `take_at` if nobody else has.
    pub(super) fn fall_silent(&mut self, take_at: Time) {
        self.state = State::Backup { take_at };
        self.told = None;
        self.defended = None;
        self.defend_at = None;
    }

    pub(super) fn enter_conflict(&mut self, now: Time) {
        self.state = State::Conflict { ask_at: now + timing::CONFLICT_RETRY, verdict_at: None };
        self.told = None;
        self.defend_at = None;
    }

    /// Moves on what is due. Returns whether the state changed.
    pub(super) fn advance(&mut self, now: Time) -> bool {
        match self.state {
            State::Backup { take_at } if !self.eligible => {
                let expired = take_at <= now && self.rival.is_some();
                if expired {
                    self.rival = None;
                }
                expired
            }
            State::Backup { take_at } => {
                let outranks = self.rival.is_some_and(|rival| rival.priority < self.priority);
                let preempts = outranks && self.preempt_at <= now;
                let vacant = take_at <= now;
                let probed = self.verified
                    || (self.probes_left == 0 && self.probe_at + timing::PROBE_WAIT <= now);
                if !(vacant || preempts) || !probed {
                    return false;
                }
                self.take(now);
                true
            }
            State::Conflict { ask_at, verdict_at: None } if ask_at <= now => {
                self.ask_again(now);
                false
            }
            State::Conflict { verdict_at: Some(at), .. } if at <= now && self.probes_left == 0 => {
                if self.foreign.is_some() {
                    self.enter_conflict(now);
                } else {
                    self.take(now);
                }
                true
            }
            State::Conflict { .. } | State::Holder => false,
        }
    }

    fn take(&mut self, now: Time) {
        // Also when a node held it before us: it may have been silent because of the same stranger.
        let contested = self.foreign.is_some();
        self.probes_left = 0;
        self.rival = None;
        self.verified = true;
        self.defended = None;
        self.told = None;
        if contested {
            self.enter_conflict(now);
            self.ask_again(now);
        } else {
            self.state = State::Holder;
        }
    }

    /// Probes again; the verdict follows when the answers must be in.
    fn ask_again(&mut self, now: Time) {
        let verdict = now + timing::PROBE_EVERY * u32::from(timing::PROBES) + timing::PROBE_WAIT;
        self.foreign = None;
        self.probes_left = timing::PROBES;
        self.probe_at = now;
        self.state = State::Conflict { ask_at: verdict, verdict_at: Some(verdict) };
    }

    /// When [`Claim::advance`], a probe or an announcement is due next.
    pub(super) fn deadline(&self) -> Time {
        let probing = self.probes_left > 0 && self.eligible;
        let probe = if probing { self.probe_at } else { Time::MAX };
        let state = match self.state {
            State::Backup { take_at } if self.eligible => {
                let outranks = self.rival.is_some_and(|rival| rival.priority < self.priority);
                let take = if outranks { take_at.min(self.preempt_at) } else { take_at };
                if self.verified {
                    take
                } else if probing {
                    Time::MAX
                } else {
                    take.max(self.probe_at + timing::PROBE_WAIT)
                }
            }
            State::Backup { take_at } if self.rival.is_some() => take_at,
            State::Backup { .. } => Time::MAX,
            State::Holder => self
                .told
                .map_or(Time::ZERO, |told| told.next)
                .min(self.defend_at.unwrap_or(Time::MAX)),
            State::Conflict { verdict_at: Some(_), .. } if probing => Time::MAX,
            State::Conflict { ask_at, verdict_at } => verdict_at.unwrap_or(ask_at),
        };
        probe.min(state)
    }
}
