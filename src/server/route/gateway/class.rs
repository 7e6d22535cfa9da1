//! Which Gateways are ours, and what a GatewayClass of ours says about itself.
use std::collections::HashMap;

use super::status::{ACCEPTED, Fault, condition, verdict};
use crate::api::class::{CILIUM_GATEWAY_CONTROLLER, GATEWAY_CONTROLLER};
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Str};
use crate::api::object::gateway::{Gateway, GatewayClass};
use crate::api::objects::Objects;
use crate::api::status::{GatewayApiStatus, ObjectStatus};
use crate::server::route::report::Report;
use crate::server::route::suggest::closest;

/// Class names that are ours even without a GatewayClass, which people forget in static files.
const OUR_CLASS_NAMES: [&str; 2] = ["pilus", "cilium"];

/// Every feature of Gateway API v1.6.1 for gateways (pkg/features), sorted.
const FEATURES: [&str; 48] = [
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// The GatewayClasses of one snapshot: the controller name of those that are ours.
pub(super) struct Classes<'a> {
    objects: &'a Objects,
    ours: HashMap<&'a str, Str>,
}

// === impl Classes ===

impl<'a> Classes<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let ours = objects.gateway_classes.values().filter(|class| is_ours(class));
        let ours = ours.map(|class| (&*class.meta.name.name, Str::clone(&class.controller)));
        Self { objects, ours: ours.collect() }
    }

    /// The controller name under which `gateway` is ours, if it is.
    pub(super) fn owns(&self, gateway: &Gateway) -> Option<Str> {
        let name = &*gateway.class;
        if let Some(controller) = self.ours.get(name) {
            return Some(Str::clone(controller));
        }
        let unknown = !self.objects.gateway_classes.contains_key(&NamespacedName::new("", name));
        (unknown && OUR_CLASS_NAMES.contains(&name)).then(|| GATEWAY_CONTROLLER.into())
    }

    /// What to say about a Gateway whose class does not exist, if that of ours is spelt nearly the same.
    pub(super) fn misspelt(&self, gateway: &Gateway) -> Option<String> {
        let name = &gateway.class;
        let known = &self.objects.gateway_classes;
        if known.keys().any(|key| key.name == *name) {
            return None;
        }
        let hint = closest(name, self.ours.keys().copied().chain(OUR_CLASS_NAMES));
        let message =
            format!("GatewayClass {name:?} does not exist{hint}; the Gateway has no effect");
        (!hint.is_empty()).then_some(message)
    }

    /// The statuses of those that are ours.
    pub(super) fn statuses(&self, report: &mut Report) -> Vec<(ObjectKey, ObjectStatus)> {
        let ours = self.objects.gateway_classes.values().filter(|class| is_ours(class));
        ours.map(|class| {
            let fault = class.parameters.as_ref().map(|parameters| {
                let message = format!(
                    "parametersRef names {} {}, and no parameters are known; leave it out",
                    parameters.kind, parameters.name
                );
                let field = "spec.parametersRef".to_owned();
                report.error(Kind::GatewayClass, &class.meta, field, message.clone());
                Fault::new("InvalidParameters", message)
            });
            let key = ObjectKey { kind: Kind::GatewayClass, name: class.meta.name.clone() };
            let conditions = vec![
                verdict(ACCEPTED, fault.as_ref()),
                condition("SupportedVersion", true, "SupportedVersion", ""),
            ];
            let gateway = GatewayApiStatus {
                observed_generation: class.meta.generation,
                supported_features: FEATURES.to_vec(),
                ..GatewayApiStatus::default()
            };
            (key, ObjectStatus { conditions, gateway: Some(gateway.into()), ..Default::default() })
        })
        .collect()
    }
}

fn is_ours(class: &GatewayClass) -> bool {
    [GATEWAY_CONTROLLER, CILIUM_GATEWAY_CONTROLLER].contains(&&*class.controller)
}
