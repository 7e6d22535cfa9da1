//! The statuses of Gateways and ListenerSets, computed from effects: what is accepted comes from the objects, what is
//! programmed from the acknowledgements of proxy and hooks.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::listener::ListenerState;
use super::listener_tls::is_insecure;
use super::status::{ACCEPTED, CONFLICTED, Fault, PROGRAMMED, RESOLVED_REFS, condition, verdict};
use super::{GatewayState, address};
use crate::api::address::{Assignments, Generation, Port};
use crate::api::meta::{Kind, Meta, ObjectKey, Str};
use crate::api::route::Serving;
use crate::api::status::{Condition, GatewayApiStatus, ListenerStatus, ObjectStatus};

const LISTENERS_NOT_VALID: &str = "ListenersNotValid";

/// In which route table each listener, as it is now, first was: kind and name of its object, and its own name.
#[derive(Debug, Default)]
pub(in crate::server::route) struct Since {
    by_listener: HashMap<(ObjectKey, Str), (u64, Generation)>,
}

/// What is in effect.
#[derive(Clone, Copy)]
pub(in crate::server::route) struct Effects<'e> {
    pub(in crate::server::route) assignments: &'e Assignments,
    pub(in crate::server::route) serving: &'e Serving,
    pub(in crate::server::route) since: &'e Since,
    /// The newest table. What is said about a newer one is about one from before a restart.
    pub(in crate::server::route) newest: Generation,
    /// Without hooks the node's own addresses are served, and nothing has to be assigned.
    pub(in crate::server::route) no_bpf: bool,
}

// === impl Since ===

impl Since {
    /// Notes that the table `now` has these listeners.
    pub(in crate::server::route) fn update(&mut self, gateways: &[GatewayState], now: Generation) {
        let mut old = std::mem::take(&mut self.by_listener);
        for state in gateways {
            for listener in state.listeners.iter().filter(|listener| listener.serves()) {
                let (kind, meta, _) = listener.owner(&state.gateway, &state.sets);
                let object = ObjectKey { kind, name: meta.name.clone() };
                let key = (object, Str::clone(&listener.name));
                let known =
                    old.remove(&key).filter(|(generation, _)| *generation == meta.generation);
                self.by_listener.insert(key, known.unwrap_or((meta.generation, now)));
            }
        }
    }

    fn of(&self, kind: Kind, meta: &Meta, listener: &ListenerState) -> Option<Generation> {
        let object = ObjectKey { kind, name: meta.name.clone() };
        let key = (object, Str::clone(&listener.name));
        self.by_listener.get(&key).map(|(_, since)| *since)
    }
}

/// The statuses of a Gateway and of its ListenerSets.
pub(in crate::server::route) fn statuses(
    state: &GatewayState,
    effects: Effects<'_>,
) -> Vec<(ObjectKey, ObjectStatus)> {
    let pending: Vec<Option<Fault>> =
        state.listeners.iter().map(|listener| not_programmed(state, listener, effects)).collect();
    let entries = |set: Option<usize>| {
        let own = state.listeners.iter().zip(&pending).filter(|(l, _)| l.set == set);
        own.collect::<Vec<_>>()
    };
    let mut statuses = vec![gateway(state, &entries(None), effects)];
    for at in 0..state.sets.len() {
        statuses.push(listener_set(state, at, &entries(Some(at)), effects));
    }
    statuses
}

type Entry<'e> = (&'e ListenerState, &'e Option<Fault>);

fn gateway(
    state: &GatewayState,
    entries: &[Entry<'_>],
    effects: Effects<'_>,
) -> (ObjectKey, ObjectStatus) {
    let meta = &state.gateway.meta;
    let assigned: Vec<IpAddr> = effects.assignments.settled(&state.service).collect();
    let programmed = gateway_not_programmed(state, &assigned, effects);
    let mut conditions = vec![gateway_accepted(state), verdict(PROGRAMMED, programmed.as_ref())];
    if state.gateway.client_certificate.is_some() {
        conditions.push(verdict(RESOLVED_REFS, state.client.as_ref().err()));
    }
    if is_insecure(&state.gateway) {
        let message = "clients are let through whose certificates are missing or not valid";
        let kind = "InsecureFrontendValidationMode";
        conditions.push(condition(kind, true, "ConfigurationChanged", message));
    }
    let accepted = |at: &usize| set_fault(state, *at).is_none();
    let sets = (0..state.sets.len()).filter(accepted).count();
    let status = GatewayApiStatus {
        observed_generation: meta.generation,
        addresses: assigned.iter().map(|ip| ("IPAddress".into(), ip.to_string().into())).collect(),
        listeners: entries.iter().map(listener_status).collect(),
        attached_listener_sets: Some(u32::try_from(sets).unwrap_or(u32::MAX)),
        ..GatewayApiStatus::default()
    };
    object_status(Kind::Gateway, meta, conditions, status)
}

fn object_status(
    kind: Kind,
    meta: &Meta,
    conditions: Vec<Condition>,
    status: GatewayApiStatus,
) -> (ObjectKey, ObjectStatus) {
    let key = ObjectKey { kind, name: meta.name.clone() };
    let gateway = Some(Arc::new(status));
    (key, ObjectStatus { conditions, gateway, ..ObjectStatus::default() })
}

fn gateway_accepted(state: &GatewayState) -> Condition {
    if let Some(fault) = &state.rejected {
        return verdict(ACCEPTED, Some(fault));
    }
    let bad: Vec<&str> = state
        .listeners
        .iter()
        .filter(|listener| listener.set.is_none() && !listener.is_accepted())
        .map(|listener| &*listener.name)
        .collect();
    if bad.is_empty() {
        return verdict(ACCEPTED, None);
    }
    let good = state.listeners.iter().any(ListenerState::is_accepted);
    let message = format!("not accepted: listeners {}", bad.join(", "));
    condition(ACCEPTED, good, LISTENERS_NOT_VALID, message)
}

fn gateway_not_programmed(
    state: &GatewayState,
    assigned: &[IpAddr],
    effects: Effects<'_>,
) -> Option<Fault> {
    if let Some(fault) = &state.rejected {
        return Some(Fault::new("Invalid", fault.message.clone()));
    }
    let mut serving = state.listeners.iter().filter(|listener| listener.serves()).peekable();
    if serving.peek().is_none() {
        return Some(Fault::new("Invalid", "no listener can be served"));
    }
    if !effects.no_bpf
        && let Some(fault) = address::fault(&state.requested, assigned)
    {
        return Some(fault);
    }
    let not_yet: Vec<Fault> =
        serving.filter_map(|listener| not_programmed(state, listener, effects)).collect();
    not_yet.into_iter().next()
}

/// Why connections to a listener are not served yet, or at all.
fn not_programmed(
    state: &GatewayState,
    listener: &ListenerState,
    effects: Effects<'_>,
) -> Option<Fault> {
    if let Some(fault) = &state.rejected {
        return Some(Fault::new("Invalid", fault.message.clone()));
    }
    if !listener.serves() {
        let faults = [&listener.rejected, &listener.conflict, &listener.unresolved];
        let why = faults.into_iter().flatten().next().map_or("", |fault| &*fault.message);
        return Some(Fault::new("Invalid", why));
    }
    let (kind, meta, _) = listener.owner(&state.gateway, &state.sets);
    let since = effects.since.of(kind, meta, listener);
    let acknowledged = effects.serving.routes;
    if since.is_none_or(|since| acknowledged < since || acknowledged > effects.newest) {
        return Some(Fault::new("Pending", "the data path has not taken it over yet"));
    }
    let transport = listener.protocol?.transport();
    let port = Port(listener.port);
    let failed = effects.serving.failed.iter().find(|(service, at, over, _)| {
        *service == state.service && *at == port && *over == transport
    });
    failed.map(|(.., why)| Fault::new("Pending", why.clone()))
}

fn listener_status((listener, not_programmed): &Entry<'_>) -> ListenerStatus {
    let accepted = listener.conflict.as_ref().or(listener.rejected.as_ref());
    // The suite wants the conflict's own word in all three conditions of a ListenerSet's listener.
    let of_conflict = listener.conflict.as_ref().filter(|_| listener.set.is_some());
    let conflicted = match &listener.conflict {
        None => condition(CONFLICTED, false, "NoConflicts", ""),
        Some(fault) => condition(CONFLICTED, true, fault.reason, fault.message.as_str()),
    };
    ListenerStatus {
        name: Str::clone(&listener.name),
        supported_kinds: listener.kinds.iter().map(|kind| kind.as_str()).collect(),
        attached_routes: listener.attached,
        conditions: vec![
            verdict(ACCEPTED, accepted),
            verdict(PROGRAMMED, of_conflict.or(not_programmed.as_ref())),
            verdict(RESOLVED_REFS, listener.unresolved.as_ref()),
            conflicted,
        ],
    }
}

/// Why a ListenerSet is not accepted, if it is not.
fn set_fault(state: &GatewayState, at: usize) -> Option<Fault> {
    if !state.sets[at].allowed {
        let message = format!(
            "Gateway {} does not let ListenerSets of this namespace attach (allowedListeners)",
            state.gateway.meta.name
        );
        return Some(Fault::new("NotAllowed", message));
    }
    if state.rejected.is_some() {
        let message = format!("Gateway {} is not accepted", state.gateway.meta.name);
        return Some(Fault::new("ParentNotAccepted", message));
    }
    let mut own = state.listeners.iter().filter(|listener| listener.set == Some(at));
    // One whose certificate is refused is of no use either (ListenerSetReferenceGrant).
    let good = own.any(ListenerState::serves);
    (!good).then(|| Fault::new(LISTENERS_NOT_VALID, "no listener of it can be served"))
}

fn listener_set(
    state: &GatewayState,
    at: usize,
    entries: &[Entry<'_>],
    effects: Effects<'_>,
) -> (ObjectKey, ObjectStatus) {
    let meta = &state.sets[at].set.meta;
    let fault = set_fault(state, at);
    let programmed = match &fault {
        Some(fault) if fault.reason == "ParentNotAccepted" => {
            Some(Fault::new("ParentNotProgrammed", fault.message.clone()))
        }
        Some(fault) => Some(fault.clone()),
        None => set_not_programmed(state, entries, effects),
    };
    let bad: Vec<&str> =
        entries.iter().filter(|(l, _)| !l.is_accepted()).map(|(l, _)| &*l.name).collect();
    let accepted = match &fault {
        None if !bad.is_empty() => {
            let message = format!("not accepted: listeners {}", bad.join(", "));
            condition(ACCEPTED, true, LISTENERS_NOT_VALID, message)
        }
        fault => verdict(ACCEPTED, fault.as_ref()),
    };
    let conditions = vec![accepted, verdict(PROGRAMMED, programmed.as_ref())];
    let status = GatewayApiStatus {
        observed_generation: meta.generation,
        listeners: entries.iter().map(listener_status).collect(),
        ..GatewayApiStatus::default()
    };
    object_status(Kind::ListenerSet, meta, conditions, status)
}

fn set_not_programmed(
    state: &GatewayState,
    entries: &[Entry<'_>],
    effects: Effects<'_>,
) -> Option<Fault> {
    let assigned: Vec<IpAddr> = effects.assignments.settled(&state.service).collect();
    if let Some(fault) = gateway_not_programmed(state, &assigned, effects)
        && fault.reason.starts_with("Address")
    {
        return Some(Fault::new("ParentNotProgrammed", fault.message));
    }
    let mut serving = entries.iter().filter(|(listener, _)| listener.serves()).peekable();
    if serving.peek().is_none() {
        return Some(Fault::new(LISTENERS_NOT_VALID, "no listener of it can be served"));
    }
    serving.find_map(|(_, pending)| (*pending).clone())
}
