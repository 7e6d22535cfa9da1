//! References across namespaces: ReferenceGrants, and `namespaces.from` with its selector.
use std::collections::HashMap;
use std::sync::Arc;

use crate::api::class::GATEWAY_GROUP;
use crate::api::meta::{Kind, NamespacedName, Str};
use crate::api::object::gateway::{FromNamespaces, ObjectRef, ReferenceGrant};
use crate::api::objects::Objects;

/// The label that every namespace has (KEP-2161).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The group of XBackend.
pub(super) const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

/// The ReferenceGrants of one snapshot.
pub(super) struct Grants {
    by_namespace: HashMap<Str, Vec<Arc<ReferenceGrant>>>,
}

/// Who refers to something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referrer<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a Str,
}

// === impl Referrer ===

impl Referrer<'_> {
    const fn group(&self) -> &'static str {
        match self.kind {
            Kind::XBackend => EXPERIMENTAL_GROUP,
            _ => GATEWAY_GROUP,
        }
    }
}

// === impl Grants ===

impl Grants {
    pub(super) fn new(objects: &Objects) -> Self {
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for grant in objects.reference_grants.values() {
            let namespace = Str::clone(&grant.meta.name.namespace);
            by_namespace.entry(namespace).or_default().push(Arc::clone(grant));
        }
        Self { by_namespace }
    }

    /// The name of what is referred to, or a clause that says who does not permit it.
    pub(super) fn permit(
        &self,
        from: Referrer<'_>,
        to: &ObjectRef,
    ) -> Result<NamespacedName, String> {
        let namespace = to.namespace.as_ref().unwrap_or(from.namespace);
        let name = NamespacedName { namespace: Str::clone(namespace), name: Str::clone(&to.name) };
        if namespace == from.namespace || self.has(from, to, namespace) {
            return Ok(name);
        }
        Err(format!(
            "no ReferenceGrant in namespace {namespace} permits a {} of namespace {} to refer to {} {}",
            from.kind, from.namespace, to.kind, to.name
        ))
    }

    fn has(&self, from: Referrer<'_>, to: &ObjectRef, namespace: &Str) -> bool {
        let grants = self.by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
        grants.iter().any(|grant| {
            grant.from.iter().any(|(group, kind, namespace)| {
                **group == *from.group()
                    && **kind == *from.kind.as_str()
                    && namespace == from.namespace
            }) && grant.to.iter().any(|(group, kind, name)| {
                *group == to.group
                    && *kind == to.kind
                    && name.as_ref().is_none_or(|name| *name == to.name)
            })
        })
    }
}

/// Whether objects of namespace `other` may attach to one of namespace `own`.
pub(super) fn admits(objects: &Objects, from: &FromNamespaces, own: &str, other: &str) -> bool {
    match from {
        FromNamespaces::None => false,
        FromNamespaces::Same => own == other,
        FromNamespaces::All => true,
        FromNamespaces::Selector(selector) => {
            let namespace = objects.namespaces.get(&NamespacedName::new("", other));
            selector.matches_with(|key| match key {
                NAME_LABEL => Some(other),
                _ => namespace?.meta.labels.get(key).map(|value| &**value),
            })
        }
    }
}

/// Whether `object` is of this group and kind.
pub(super) fn is(object: &ObjectRef, group: &str, kind: Kind) -> bool {
    *object.group == *group && *object.kind == *kind.as_str()
}
