//! Which listeners a route attaches to (spec 5.4): parent, then kind and namespace, then hostname.
use std::collections::HashMap;

use super::GatewayState;
use super::listener::ListenerState;
use super::reference::{admits, is};
use super::status::Fault;
use crate::api::class::GATEWAY_GROUP;
use crate::api::meta::{Kind, Meta, NamespacedName, Str};
use crate::api::object::gateway::ObjectRef;
use crate::api::object::gateway_route::ParentRef;
use crate::api::objects::Objects;

/// A route of any kind, as far as attachment goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteView<'a> {
    pub(super) kind: Kind,
    pub(super) meta: &'a Meta,
    pub(super) parents: &'a [ParentRef],
    /// None: the kind has no hostnames.
    pub(super) hostnames: Option<&'a [Str]>,
    pub(super) default_gateways: bool,
}

/// One listener that takes a route.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Its place among the listeners of the Gateway.
    pub(super) listener: usize,
    /// The hostnames that the route has there: `*` for every one. Empty if the kind has none.
    pub(super) hostnames: Vec<Str>,
}

/// What became of one parentRef that is ours.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) reference: ParentRef,
    /// The Gateway, also that of a ListenerSet.
    pub(super) gateway: usize,
    /// The listeners that take the route, or why none does.
    pub(super) outcome: Result<Vec<Attachment>, Fault>,
}

/// The Gateways and ListenerSets that are ours, by name.
#[derive(Debug, Default)]
pub(super) struct Parents {
    gateways: HashMap<NamespacedName, usize>,
    sets: HashMap<NamespacedName, (usize, usize)>,
    /// The Gateways that routes with `useDefaultGateways` attach to.
    defaults: Vec<usize>,
}

// === impl Parents ===

impl Parents {
    pub(super) fn new(gateways: &[GatewayState]) -> Self {
        let mut parents = Self::default();
        for (at, state) in gateways.iter().enumerate() {
            parents.gateways.insert(state.gateway.meta.name.clone(), at);
            if state.gateway.default_scope {
                parents.defaults.push(at);
            }
            for (place, set) in state.sets.iter().enumerate() {
                parents.sets.insert(set.set.meta.name.clone(), (at, place));
            }
        }
        parents
    }

    /// What becomes of the parentRefs of `route` that are ours, in their order.
    pub(super) fn attach(
        &self,
        objects: &Objects,
        gateways: &[GatewayState],
        route: RouteView<'_>,
    ) -> Vec<Parent> {
        let mut outcomes = Vec::new();
        let mut add = |reference: ParentRef, gateway: usize, set: Option<usize>| {
            let outcome = attach(objects, &gateways[gateway], set, &reference, route);
            outcomes.push(Parent { reference, gateway, outcome });
        };
        for reference in route.parents {
            if let Some((gateway, set)) = self.find(&reference.object, route.meta) {
                add(reference.clone(), gateway, set);
            }
        }
        for &gateway in self.defaults.iter().filter(|_| route.default_gateways) {
            let name = &gateways[gateway].gateway.meta.name;
            let object = ObjectRef {
                group: GATEWAY_GROUP.into(),
                kind: Kind::Gateway.as_str().into(),
                namespace: Some(Str::clone(&name.namespace)),
                name: Str::clone(&name.name),
            };
            add(ParentRef { object, ..ParentRef::default() }, gateway, None);
        }
        outcomes
    }

    fn find(&self, object: &ObjectRef, from: &Meta) -> Option<(usize, Option<usize>)> {
        let name = name_of(object, from);
        if is(object, GATEWAY_GROUP, Kind::Gateway) {
            return Some((*self.gateways.get(&name)?, None));
        }
        if is(object, GATEWAY_GROUP, Kind::ListenerSet) {
            let (gateway, set) = *self.sets.get(&name)?;
            return Some((gateway, Some(set)));
        }
        None
    }
}

/// The name of the object that `from` refers to.
pub(super) fn name_of(object: &ObjectRef, from: &Meta) -> NamespacedName {
    let namespace = object.namespace.as_ref().unwrap_or(&from.name.namespace);
    NamespacedName { namespace: Str::clone(namespace), name: Str::clone(&object.name) }
}

fn attach(
    objects: &Objects,
    state: &GatewayState,
    set: Option<usize>,
    reference: &ParentRef,
    route: RouteView<'_>,
) -> Result<Vec<Attachment>, Fault> {
    let what = set.map_or("Gateway", |_| "ListenerSet");
    let named = |listener: &ListenerState| {
        reference.section.as_ref().is_none_or(|section| *section == listener.name)
            && reference.port.is_none_or(|port| port == listener.port)
    };
    let own = state.listeners.iter().enumerate().filter(|(_, listener)| listener.set == set);
    let matching: Vec<_> = own.filter(|(_, listener)| named(listener)).collect();
    if matching.is_empty() {
        let section = reference.section.as_ref().map(|section| format!(" with name {section}"));
        let port = reference.port.map(|port| format!(" with port {port}"));
        let message = format!(
            "{what} {} has no listener{}{}",
            reference.object.name,
            section.unwrap_or_default(),
            port.unwrap_or_default()
        );
        return Err(Fault::new("NoMatchingParent", message));
    }
    let namespace = &route.meta.name.namespace;
    let allowed: Vec<_> = matching
        .into_iter()
        .filter(|(_, listener)| {
            let (_, owner, spec) = listener.owner(&state.gateway, &state.sets);
            let own = &owner.name.namespace;
            listener.kinds.contains(&route.kind)
                && admits(objects, &spec.allowed_namespaces, own, namespace)
        })
        .collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener of {what} {} lets a {} of namespace {namespace} attach",
            reference.object.name, route.kind
        );
        return Err(Fault::new("NotAllowedByListeners", message));
    }
    let attached: Vec<_> = allowed
        .into_iter()
        .filter_map(|(at, listener)| {
            let hostnames = match route.hostnames {
                None => Vec::new(),
                Some(hostnames) => {
                    Some(common(listener.pattern(), hostnames)).filter(|all| !all.is_empty())?
                }
            };
            Some(Attachment { listener: at, hostnames })
        })
        .collect();
    if attached.is_empty() {
        let message = format!(
            "no hostname of the route is one of a listener of {what} {}",
            reference.object.name
        );
        return Err(Fault::new("NoMatchingListenerHostname", message));
    }
    Ok(attached)
}

/// The hostnames that a route with `hostnames` has on a listener for `pattern`.
fn common(pattern: &str, hostnames: &[Str]) -> Vec<Str> {
    if hostnames.is_empty() {
        return vec![pattern.into()];
    }
    let mut common: Vec<Str> = Vec::new();
    for name in hostnames {
        if let Some(both) = intersection(pattern, name) {
            let both = both.into();
            if !common.contains(&both) {
                common.push(both);
            }
        }
    }
    common
}

/// The names that are matched by both patterns, as a pattern.
fn intersection<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

/// Whether every name that `narrow` matches is matched by `wide`: `*` is all, `*.foo.com` any number of labels more
/// than `foo.com`.
fn covers(wide: &str, narrow: &str) -> bool {
    if wide == "*" || wide == narrow {
        return true;
    }
    let Some(suffix) = wide.strip_prefix('*') else { return false };
    // `suffix` is `.foo.com`: both `a.foo.com` and `*.a.foo.com` end so, and are longer.
    narrow != "*" && narrow.len() > suffix.len() && narrow.ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_intersect() {
        for (a, b, both) in [
            ("*", "a.com", Some("a.com")),
            ("*", "*", Some("*")),
            ("a.com", "a.com", Some("a.com")),
            ("a.com", "b.com", None),
            ("*.a.com", "x.a.com", Some("x.a.com")),
            ("*.a.com", "x.y.a.com", Some("x.y.a.com")),
            ("*.a.com", "a.com", None),
            ("*.a.com", "xa.com", None),
            ("*.a.com", "*.x.a.com", Some("*.x.a.com")),
            ("*.a.com", "*.b.com", None),
            ("*.com", "*.a.com", Some("*.a.com")),
        ] {
            assert_eq!(intersection(a, b), both, "{a} {b}");
            assert_eq!(intersection(b, a), both, "{b} {a}");
        }
    }
}
