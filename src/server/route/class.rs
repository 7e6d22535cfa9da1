//! Which Ingresses are ours (ING-01).
use super::suggest::closest;
use crate::api::class::{CILIUM_INGRESS_CONTROLLER, INGRESS_CONTROLLER};
use crate::api::config::Config;
use crate::api::meta::{NamespacedName, Str};
use crate::api::object::{Ingress, IngressClass};
use crate::api::objects::Objects;

/// The legacy annotation; it wins over `spec.ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Marks the IngressClass of Ingresses that name none.
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// Class names that are ours even without an IngressClass object, which people forget in static files.
const OUR_CLASS_NAMES: [&str; 2] = ["pilus", "cilium"];

/// Decides over the Ingresses of one snapshot.
pub(super) struct Classes<'a> {
    objects: &'a Objects,
    /// Ingresses without a class are ours.
    default_is_ours: bool,
}

// === impl Classes ===

impl<'a> Classes<'a> {
    pub(super) fn new(objects: &'a Objects, config: &Config) -> Self {
        let default_is_ours = config.ingress_default_class
            || objects.ingress_classes.values().any(|class| {
                is_ours(class) && class.meta.annotation(DEFAULT_CLASS_ANNOTATION) == Some("true")
            });
        Self { objects, default_is_ours }
    }

    /// Whether `ingress` is ours. If not, nothing is said about it, unless it is [`Self::misspelt`].
    pub(super) fn owns(&self, ingress: &Ingress) -> bool {
        let annotated = ingress.meta.annotations.get(CLASS_ANNOTATION);
        let named = annotated.or(ingress.class.as_ref()).filter(|name| !name.is_empty());
        named.map_or(self.default_is_ours, |name| self.owns_class(name))
    }

    /// What to say about an Ingress whose class does not exist, if that of ours is spelt nearly the same.
    pub(super) fn misspelt(&self, ingress: &Ingress) -> Option<String> {
        let name = ingress.class.as_ref().filter(|name| !name.is_empty())?;
        let known = &self.objects.ingress_classes;
        if known.keys().any(|key| key.name == *name) {
            return None;
        }
        let ours =
            known.values().filter(|class| is_ours(class)).map(|class| &*class.meta.name.name);
        let hint = closest(name, ours.chain(OUR_CLASS_NAMES));
        let message =
            format!("IngressClass {name:?} does not exist{hint}; the Ingress has no effect");
        (!hint.is_empty()).then_some(message)
    }

    fn owns_class(&self, name: &Str) -> bool {
        let key = NamespacedName { namespace: "".into(), name: Str::clone(name) };
        match self.objects.ingress_classes.get(&key) {
            Some(class) => is_ours(class),
            None => OUR_CLASS_NAMES.contains(&&**name),
        }
    }
}

fn is_ours(class: &IngressClass) -> bool {
    [INGRESS_CONTROLLER, CILIUM_INGRESS_CONTROLLER].contains(&&*class.controller)
}
