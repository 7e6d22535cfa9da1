//! What the server tells the data path and people.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::claim::{Claim, Seat, State};
use super::{Announce, Key, Phase};
use crate::api::address::{IfIndex, MacAddr, NodeName};
use crate::api::announce::{Announcement, Announcements, Answer, Answers, Role};
use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Origin, Str};
use crate::api::object::Lease;
use crate::api::objects::Generated;
use crate::api::problem::{Problem, Severity};
use crate::api::status::{Condition, ObjectStatus, Statuses, Truth};
use crate::api::{Message, wiring};
use crate::arrange::Arrange;
use crate::kernel::{Outbox, Time};
use crate::proto::calendar::date_time;

/// Where Cilium keeps its Leases, too (L2-05).
const LEASE_NAMESPACE: &str = "kube-system";
/// After this, a claim for an address by a stranger is no longer reported.
const STRANGER_REPORTED: std::time::Duration = std::time::Duration::from_secs(60);
const BAD_INTERFACE_REGEX: &str = "io.cilium/bad-interface-regex";

/// What a Lease says that the claims do not remember.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LeaseState {
    holder: Option<NodeName>,
    acquired: u64,
    transitions: u32,
}

// === impl Announce ===

impl Announce {
    /// Sends what has changed.
    pub(super) fn publish(&mut self, now: Time, out: &mut Outbox<Message>) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        for claim in self.claims.values_mut() {
            let seat = claim.seat();
            if claim.shown.0 != seat {
                claim.shown = (seat, now);
            }
        }
        let answers = Arc::new(self.answers());
        if self.sent.answers.as_ref() != Some(&answers) {
            self.sent.answers = Some(Arc::clone(&answers));
            out.send(wiring::DATAPATH, Message::Answers(answers));
        }
        let announcements = Arc::new(self.announcements());
        if self.sent.announcements.as_ref() != Some(&announcements) {
            self.sent.announcements = Some(Arc::clone(&announcements));
            out.send(wiring::ADMIN, Message::Announcements(announcements));
        }
        let statuses = Arc::new(self.statuses(now));
        if self.sent.statuses.as_ref() != Some(&statuses) {
            self.sent.statuses = Some(Arc::clone(&statuses));
            out.send(wiring::STORE, Message::Statuses(statuses));
        }
    }

    fn answers(&self) -> Answers {
        let answer = |(&(interface, address), claim): (&Key, &Claim)| {
            let mac = self.lan.get(interface).map_or(MacAddr::ZERO, |interface| interface.mac);
            Answer { address, interface, mac, held: claim.answers() }
        };
        let assigned = self.inputs.assignments.iter().flat_map(|a| a.by_service.values());
        Answers {
            answers: self.claims.iter().map(answer).collect(),
            considered: assigned
                .flatten()
                .filter(|address| !self.plan.left_out.contains(*address))
                .copied()
                .collect(),
        }
    }

    fn node_name(&self, source: IpAddr) -> NodeName {
        let known = self.plan.node_of.get(&source).cloned();
        known.unwrap_or_else(|| source.to_string().into())
    }

    fn holder(&self, seat: Seat) -> Option<NodeName> {
        match seat {
            Seat::Us => Some(NodeName::clone(&self.config.node)),
            Seat::Peer(source) => Some(self.node_name(source)),
            Seat::Nobody => None,
        }
    }

    fn interface_name(&self, index: IfIndex) -> Arc<str> {
        self.lan.get(index).map_or_else(|| "".into(), |interface| Arc::clone(&interface.name))
    }

    fn announcements(&self) -> Announcements {
        let mut list = Vec::new();
        for (key, claim) in &self.claims {
            let Some(pair) = self.plan.pairs.get(key) else { continue };
            if pair.services.is_empty() {
                // Kept quiet about, but nobody's to announce.
                continue;
            }
            let role = match claim.state {
                State::Holder => Role::Holder,
                State::Conflict { .. } => Role::Conflict,
                State::Backup { .. } if claim.is_probing() => Role::Probing,
                State::Backup { .. } => Role::Standby,
            };
            list.push(Announcement {
                address: key.1,
                interface: self.interface_name(key.0),
                role,
                holder: self.holder(claim.seat()),
                since: claim.shown.1,
                why: self.why(claim, &pair.why),
                services: pair.services.clone(),
                policy: Str::clone(&pair.policy),
                vrid: pair.vrid,
                priority: pair.priority,
            });
        }
        list.arrange_by(|a, b| (a.address, &a.interface).cmp(&(b.address, &b.interface)));
        Announcements { list, not_announced: self.plan.not_announced.clone() }
    }

    fn why(&self, claim: &Claim, rank: &str) -> String {
        let foreign = claim.foreign.map_or(MacAddr::ZERO, |foreign| foreign.mac);
        match claim.state {
            _ if !claim.eligible => rank.to_owned(),
            State::Holder => format!("no node with a better claim is heard: {rank}"),
            State::Conflict { .. } if claim.foreign.is_none() => {
                "asks again whether the stranger that used the address is gone".to_owned()
            }
            State::Conflict { .. } => format!(
                "{foreign} uses the address and is no node of ours: nobody answers for it until that stops"
            ),
            State::Backup { .. } => match claim.rival {
                Some(rival) if rival.priority < claim.priority => format!(
                    "{} holds it with priority {}; this node, with {}, takes over once it has been up for {:?}",
                    self.node_name(rival.source),
                    rival.priority,
                    claim.priority,
                    super::timing::PREEMPT_AFTER
                ),
                Some(rival) => format!(
                    "{} holds it with priority {}, this node has {}: {rank}",
                    self.node_name(rival.source),
                    rival.priority,
                    claim.priority
                ),
                None if claim.is_probing() => {
                    "listens for a holder and asks the LAN whether anybody uses the address"
                        .to_owned()
                }
                None => format!("its holder has fallen silent; {rank}"),
            },
        }
    }

    fn statuses(&mut self, now: Time) -> Statuses {
        let mut by_object = BTreeMap::new();
        for (key, error) in &self.plan.bad_interfaces {
            self.once_bad.insert(key.clone());
            by_object.insert(key.clone(), bad_interface_regex(Truth::True, error.clone()));
        }
        for key in &self.once_bad {
            let fine = || bad_interface_regex(Truth::False, String::new());
            by_object.entry(key.clone()).or_insert_with(fine);
        }
        let mut problems = self.plan.problems.clone();
        problems.extend(self.conflicts(now));
        let leases = self.lease_list(now);
        let generated = Arc::new(Generated { leases, ..Generated::default() });
        Statuses { by_object, problems, generated, ipam: None }
    }

    /// One complaint for each address that a stranger uses or has used lately.
    fn conflicts(&self, now: Time) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (&(index, address), claim) in &self.claims {
            let Some(foreign) = claim.foreign else { continue };
            let conflict = Self::is_conflict(claim);
            if !conflict && now.since(foreign.seen) > STRANGER_REPORTED {
                continue;
            }
            let Some(service) =
                self.plan.pairs.get(&(index, address)).and_then(|pair| pair.services.first())
            else {
                continue;
            };
            let object = self.inputs.objects.as_ref().and_then(|all| all.services.get(service));
            let effect =
                if conflict { "nobody answers for it until that stops" } else { "seen lately" };
            problems.push(Problem {
                position: object.and_then(|object| object.meta.position("")),
                object: Some(ObjectKey { kind: Kind::Service, name: service.clone() }),
                field: String::new(),
                message: format!(
                    "{address} is used on {} by {}, which is no node of this cluster: {effect}. Give that \
                     host another address, or take this one out of the pool",
                    self.interface_name(index),
                    foreign.mac
                ),
                severity: if conflict { Severity::Error } else { Severity::Warning },
            });
        }
        problems
    }

    /// A Lease for each announced service (L2-05); with several addresses that of the first is shown.
    fn lease_list(&mut self, now: Time) -> Vec<Arc<Lease>> {
        if self.phase == Phase::Leaving {
            return Vec::new();
        }
        let unix = (now.as_nanos().saturating_add(self.unix_offset_nanos)) / 1_000_000_000;
        let holders: BTreeMap<IpAddr, NodeName> = self
            .claims
            .iter()
            .filter_map(|((_, address), claim)| Some((*address, self.holder(claim.seat())?)))
            .collect();
        let mut leases = Vec::new();
        let mut states = BTreeMap::new();
        for (service, addresses) in &self.plan.announced {
            let holder = addresses.iter().find_map(|address| holders.get(address).cloned());
            let mut state = self.leases.remove(service).unwrap_or(LeaseState {
                holder: None,
                acquired: unix,
                transitions: 0,
            });
            if state.holder != holder {
                if holder.is_some() {
                    state.acquired = unix;
                    state.transitions += 1;
                }
                state.holder = holder;
            }
            leases.push(Arc::new(self.lease(service, &state)));
            states.insert(service.clone(), state);
        }
        self.leases = states;
        leases
    }

    fn lease(&self, service: &NamespacedName, state: &LeaseState) -> Lease {
        let prefix = &self.config.name_prefix;
        let name = format!("{prefix}-l2announce-{}-{}", service.namespace, service.name);
        let holder = state.holder.as_deref().unwrap_or("");
        // Names in Kubernetes need no escaping in JSON; a holder may be an IP address.
        let json = format!(
            "{{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":{{\"name\":\"{name}\",\
             \"namespace\":\"{LEASE_NAMESPACE}\"}},\"spec\":{{\"acquireTime\":\"{}\",\"holderIdentity\":\"{holder}\",\
             \"leaseDurationSeconds\":1,\"leaseTransitions\":{}}}}}",
            micro_time(state.acquired),
            state.transitions
        );
        Lease {
            meta: Meta {
                name: NamespacedName::new(LEASE_NAMESPACE, &name),
                created: state.acquired,
                origin: Origin::Generated("announce"),
                json: json.into(),
                ..Meta::default()
            },
            holder: state.holder.clone(),
            acquired: state.acquired,
            transitions: state.transitions,
        }
    }
}

fn bad_interface_regex(status: Truth, message: String) -> ObjectStatus {
    let condition =
        Condition { kind: BAD_INTERFACE_REGEX, status, reason: "error".into(), message };
    ObjectStatus { conditions: vec![condition], ..ObjectStatus::default() }
}

/// metav1.MicroTime of a second since 1970.
fn micro_time(unix: u64) -> String {
    date_time(unix) + ".000000Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_kubernetes_does() {
        assert_eq!(micro_time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(micro_time(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(micro_time(1_795_226_604), "2026-11-21T02:03:24.000000Z");
    }
}
