//! Which listener of a Gateway is meant where several share a port.
use std::sync::Arc;

use crate::api::class::GATEWAY_NAME_LABEL;
use crate::api::meta::{Kind, Meta, ObjectKey};
use crate::api::object::gateway::{Gateway, GatewayListener};
use crate::api::objects::HasMeta;
use crate::api::route::Listener;
use crate::api::status::Truth;
use crate::server::admin::state::State;

/// The Gateway whose Service this listener belongs to.
pub(super) fn of<'s>(state: &'s State, listener: &Listener) -> Option<&'s Arc<Gateway>> {
    let objects = &state.view.objects;
    let service = objects.services.get(&listener.service)?;
    let label = service.meta.labels.get(GATEWAY_NAME_LABEL)?;
    objects.gateways.values().find(|gateway| {
        let name = &gateway.meta.name;
        name.namespace == listener.service.namespace && name.name == *label
    })
}

/// The most specific listener for `host` on the port of `listener`, of its Gateway and that one's ListenerSets, in
/// words; None for the listeners of Ingresses.
pub(super) fn owner(state: &State, listener: &Listener, host: &str) -> Option<String> {
    let gateway = of(state, listener)?;
    let objects = &state.view.objects;
    let sets = objects.listener_sets.values().filter(|set| {
        let namespace = set.parent.namespace.as_ref().unwrap_or(&set.meta.name.namespace);
        set.parent.name == gateway.meta.name.name && *namespace == gateway.meta.name.namespace
    });
    let of = |kind, object: &dyn HasMeta, listeners: &[GatewayListener]| {
        let meta = object.meta().clone();
        listeners.iter().map(move |it| (kind, meta.clone(), it.clone())).collect::<Vec<_>>()
    };
    let mut all = of(Kind::Gateway, &**gateway, &gateway.listeners);
    all.extend(sets.flat_map(|set| of(Kind::ListenerSet, &**set, &set.listeners)));
    let (kind, meta, found) = all
        .into_iter()
        .rev()
        .filter(|(_, _, it)| {
            it.port == listener.port.0 && (&*it.protocol == "UDP") == is_udp(listener)
        })
        .filter_map(|it| Some((fit(it.2.hostname.as_deref(), host)?, it)))
        .max_by_key(|(fit, _)| *fit)
        .map(|(_, it)| it)?;
    let hostname = found.hostname.as_ref().map_or_else(String::new, |it| format!(", {it}"));
    let fault = fault(state, kind, &meta, &found.name).unwrap_or_default();
    Some(format!(
        "listener `{}` of {kind} {} ({}{hostname}){fault}",
        found.name, meta.name, found.protocol
    ))
}

fn is_udp(listener: &Listener) -> bool {
    listener.protocol == crate::api::route::ListenerProtocol::Udp
}

/// How well a listener's hostname fits: the very name best, then the longest wildcard, then none.
fn fit(hostname: Option<&str>, host: &str) -> Option<(bool, usize)> {
    match hostname {
        None => Some((false, 0)),
        Some(name) if name == host => Some((true, name.len())),
        Some(name) => {
            let suffix = name.strip_prefix('*')?;
            (host.len() > suffix.len() && host.ends_with(suffix)).then_some((false, name.len()))
        }
    }
}

/// Why this listener does not serve, as its status says.
fn fault(state: &State, kind: Kind, meta: &Meta, name: &str) -> Option<String> {
    let key = ObjectKey { kind, name: meta.name.clone() };
    let status = &state.view.statuses.get(&key)?.gateway.as_ref()?.status;
    let listener = status.listeners.iter().find(|it| *it.name == *name)?;
    let wrong = |kind: &str, truth: Truth| {
        listener.conditions.iter().find(|it| it.kind == kind && it.status == truth)
    };
    let condition = wrong("Conflicted", Truth::True)
        .or_else(|| wrong("Accepted", Truth::False))
        .or_else(|| wrong("ResolvedRefs", Truth::False))
        .or_else(|| wrong("Programmed", Truth::False))?;
    Some(format!(": {}: {}", condition.reason, condition.message))
}
