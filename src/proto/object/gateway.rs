//! gateway.networking.k8s.io: GatewayClass, Gateway, ListenerSet and ReferenceGrant. Besides the schema: what the CRDs
//! say in CEL rules (v1.6.1). Defaults have been filled in before.
use std::collections::BTreeMap;

use super::faults::Faults;
use super::lb;
use super::service::{mark_of, port_number, text};
use crate::api::meta::{Labels, Meta, Str};
use crate::api::object::gateway::{
    FromNamespaces, FrontendValidation, Gateway, GatewayAddress, GatewayClass, GatewayListener,
    ListenerSet, ListenerTls, ObjectRef, ReferenceGrant,
};
use crate::arrange::Gather;
use crate::proto::value::Value;

/// The items of a list member, with their indices.
pub(super) fn list<'v>(
    value: &'v Value,
    key: &str,
) -> impl Iterator<Item = (usize, &'v Value)> + use<'v> {
    value.get(key).map_or(&[][..], Value::items).iter().enumerate()
}

/// A string member; empty if it is not there.
pub(super) fn word(value: &Value, key: &str) -> Str {
    value.get(key).and_then(Value::as_str).unwrap_or_default().into()
}

/// A reference.
pub(super) fn object_ref(value: &Value) -> ObjectRef {
    ObjectRef {
        group: word(value, "group"),
        kind: word(value, "kind"),
        namespace: text(value, "namespace").map(Str::from),
        name: word(value, "name"),
    }
}

/// A list member of references.
pub(super) fn object_refs(value: &Value, key: &str) -> Vec<ObjectRef> {
    list(value, key).map(|(_, value)| object_ref(value)).collect()
}

fn labels(value: Option<&Value>) -> Labels {
    let members = value.map_or(&[][..], Value::members).iter();
    let label = |member: &crate::proto::value::Member| {
        Some((Str::from(&*member.key), Str::from(member.value.as_str()?)))
    };
    members.filter_map(label).gather()
}

pub(super) fn class(meta: Meta, spec: &Value) -> GatewayClass {
    GatewayClass {
        meta,
        controller: word(spec, "controllerName"),
        parameters: spec.get("parametersRef").map(object_ref),
    }
}

pub(super) fn gateway(meta: Meta, spec: &Value, faults: &mut Faults) -> Gateway {
    let infrastructure = spec.get("infrastructure");
    let within = |key| infrastructure.and_then(|value| value.get(key));
    check_keys(within("labels"), "spec.infrastructure.labels", faults);
    check_keys(within("annotations"), "spec.infrastructure.annotations", faults);
    let frontend = spec.path(&["tls", "frontend"]);
    let per_port = |(_, value): (usize, &Value)| {
        let validation = value.path(&["tls", "validation"]).map(frontend_validation);
        Some((port_number(value, "port")?, validation))
    };
    Gateway {
        meta,
        class: word(spec, "gatewayClassName"),
        addresses: addresses(spec, faults),
        listeners: listeners(spec, faults),
        allowed_listeners: match spec.get("allowedListeners") {
            None => FromNamespaces::None,
            Some(allowed) => from_namespaces(allowed, "spec.allowedListeners", faults),
        },
        infrastructure_labels: labels(within("labels")),
        infrastructure_annotations: labels(within("annotations")),
        infrastructure_parameters: within("parametersRef").map(object_ref),
        client_certificate: spec.path(&["tls", "backend", "clientCertificateRef"]).map(object_ref),
        frontend_validation: frontend
            .and_then(|value| value.path(&["default", "validation"]))
            .map(frontend_validation),
        frontend_validation_per_port: frontend.map_or_else(BTreeMap::new, |value| {
            list(value, "perPort").filter_map(per_port).gather()
        }),
        default_scope: text(spec, "defaultScope") == Some("All"),
    }
}

/// The keys of labels and annotations for generated objects.
fn check_keys(map: Option<&Value>, field: &str, faults: &mut Faults) {
    for member in map.map_or(&[][..], Value::members) {
        if let Err(message) = super::names::qualified_name(&member.key) {
            faults.error(member.mark, format!("{field}.{}", member.key), message);
        }
    }
}

fn addresses(spec: &Value, faults: &mut Faults) -> Vec<GatewayAddress> {
    let mut all: Vec<GatewayAddress> = Vec::new();
    for (at, value) in list(spec, "addresses") {
        let address = GatewayAddress {
            kind: word(value, "type"),
            value: text(value, "value").map(Str::from),
        };
        let checked = match (&*address.kind, address.value.as_deref()) {
            ("IPAddress", Some(ip)) => super::names::ip(ip),
            ("Hostname", Some(name)) => super::names::host(name),
            _ => Ok(()),
        };
        let known = all.iter().position(|known| {
            address.value.is_some()
                && *known == address
                && matches!(&*address.kind, "IPAddress" | "Hostname")
        });
        let repeated = known.map(|first| format!("is the value of addresses[{first}] already"));
        for message in checked.err().into_iter().chain(repeated) {
            let field = format!("spec.addresses[{at}].value");
            faults.error(mark_of(value, "value"), field, message);
        }
        all.push(address);
    }
    all
}

fn frontend_validation(value: &Value) -> FrontendValidation {
    FrontendValidation {
        authorities: object_refs(value, "caCertificateRefs"),
        insecure_fallback: text(value, "mode") == Some("AllowInsecureFallback"),
    }
}

/// `namespaces` within `value`, which is written at `field`.
fn from_namespaces(value: &Value, field: &str, faults: &mut Faults) -> FromNamespaces {
    let Some(namespaces) = value.get("namespaces") else { return FromNamespaces::Same };
    let field = format!("{field}.namespaces");
    let selector = lb::selector(namespaces, &field, "selector", faults);
    match text(namespaces, "from") {
        Some("All") => FromNamespaces::All,
        Some("None") => FromNamespaces::None,
        Some("Selector") => match selector {
            Some(selector) => FromNamespaces::Selector(selector),
            None => {
                let message = "required with `from: Selector`";
                faults.error(mark_of(namespaces, "from"), format!("{field}.selector"), message);
                FromNamespaces::None
            }
        },
        _ => FromNamespaces::Same,
    }
}

fn listeners(spec: &Value, faults: &mut Faults) -> Vec<GatewayListener> {
    let mut all: Vec<GatewayListener> = Vec::new();
    for (at, value) in list(spec, "listeners") {
        let field = format!("spec.listeners[{at}]");
        let listener = listener(value, &field, faults);
        check_listener(&listener, value, &field, faults);
        let same = |known: &GatewayListener| {
            known.port == listener.port
                && known.protocol == listener.protocol
                && known.hostname == listener.hostname
        };
        // A port of 0 is a fault of its own already.
        if let Some(first) = all.iter().position(|known| listener.port > 0 && same(known)) {
            let message = format!(
                "has the port, protocol and hostname of listeners[{first}] (`{}`)",
                all[first].name
            );
            faults.error(value.mark, field, message);
        }
        all.push(listener);
    }
    all
}

fn listener(value: &Value, field: &str, faults: &mut Faults) -> GatewayListener {
    let allowed = value.get("allowedRoutes");
    let kind = |(_, value): (usize, &Value)| (word(value, "group"), word(value, "kind"));
    GatewayListener {
        name: word(value, "name"),
        hostname: text(value, "hostname").map(Str::from),
        port: port_number(value, "port").unwrap_or(0),
        protocol: word(value, "protocol"),
        tls: value.get("tls").map(|tls| ListenerTls {
            passthrough: text(tls, "mode") == Some("Passthrough"),
            certificates: object_refs(tls, "certificateRefs"),
            options: labels(tls.get("options")),
        }),
        allowed_namespaces: allowed.map_or(FromNamespaces::Same, |allowed| {
            from_namespaces(allowed, &format!("{field}.allowedRoutes"), faults)
        }),
        allowed_kinds: allowed
            .map_or_else(Vec::new, |value| list(value, "kinds").map(kind).collect()),
    }
}

/// The CEL rules about one listener.
fn check_listener(listener: &GatewayListener, value: &Value, field: &str, faults: &mut Faults) {
    let protocol = &*listener.protocol;
    if let Some(tls) = &listener.tls {
        let terminates = value.text_at("tls.mode") == "Terminate";
        let message = match protocol {
            "HTTP" | "TCP" | "UDP" => Some(format!("not allowed with protocol {protocol}")),
            "HTTPS" if tls.passthrough => Some(
                "Passthrough is not allowed with protocol HTTPS; use TLS and a TLSRoute".to_owned(),
            ),
            _ if terminates && tls.certificates.is_empty() && tls.options.is_empty() => {
                Some("certificateRefs (or options) are required with mode Terminate".to_owned())
            }
            _ => None,
        };
        if let Some(message) = message {
            faults.error(mark_of(value, "tls"), format!("{field}.tls"), message);
        }
    } else if protocol == "TLS" {
        let message = "required with protocol TLS";
        faults.error(mark_of(value, "protocol"), format!("{field}.tls"), message);
    }
    if matches!(protocol, "TCP" | "UDP") && listener.hostname.is_some() {
        let message = format!("not allowed with protocol {protocol}");
        faults.error(mark_of(value, "hostname"), format!("{field}.hostname"), message);
    }
}

pub(super) fn listener_set(meta: Meta, spec: &Value, faults: &mut Faults) -> ListenerSet {
    ListenerSet {
        meta,
        parent: spec.get("parentRef").map(object_ref).unwrap_or_default(),
        listeners: listeners(spec, faults),
    }
}

pub(super) fn reference_grant(meta: Meta, spec: &Value) -> ReferenceGrant {
    let from = |(_, value): (usize, &Value)| {
        (word(value, "group"), word(value, "kind"), word(value, "namespace"))
    };
    let to = |(_, value): (usize, &Value)| {
        (word(value, "group"), word(value, "kind"), text(value, "name").map(Str::from))
    };
    ReferenceGrant {
        meta,
        from: list(spec, "from").map(from).collect(),
        to: list(spec, "to").map(to).collect(),
    }
}
