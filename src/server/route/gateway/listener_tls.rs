//! TLS of listeners: certificates, and how clients' certificates are checked (`spec.tls.frontend`).
use std::sync::Arc;

use super::listener::{ListenerState, Protocol, SetState};
use super::reference::{Grants, Referrer, is};
use super::status::Fault;
use crate::api::meta::Kind;
use crate::api::object::gateway::{FrontendValidation, Gateway, ObjectRef};
use crate::api::route::{Authorities, ClientAuth};
use crate::server::route::authority::joined;
use crate::server::route::certificate::Loaded;
use crate::server::route::context::Context;

const INVALID_CERTIFICATE: &str = "InvalidCertificateRef";

/// Loads what the TLS listeners of a Gateway refer to.
pub(super) fn resolve(
    context: &mut Context<'_>,
    grants: &Grants,
    gateway: &Gateway,
    sets: &[SetState],
    listeners: &mut [ListenerState],
) {
    for listener in listeners {
        let Some(protocol @ (Protocol::Https | Protocol::Tls)) = listener.protocol else {
            continue;
        };
        if listener.passthrough {
            if protocol == Protocol::Https {
                let message = "HTTPS cannot be passed through; use protocol TLS and a TLSRoute";
                listener.rejected = Some(Fault::new("UnsupportedValue", message));
            }
            continue;
        }
        certificates(context, grants, gateway, sets, listener);
        if protocol == Protocol::Https {
            client_auth(context, grants, gateway, listener);
        }
    }
}

fn certificates(
    context: &mut Context<'_>,
    grants: &Grants,
    gateway: &Gateway,
    sets: &[SetState],
    listener: &mut ListenerState,
) {
    let (kind, meta, spec) = listener.owner(gateway, sets);
    let from = Referrer { kind, namespace: &meta.name.namespace };
    let references = spec.tls.as_ref().map_or(&[][..], |tls| &tls.certificates);
    if references.is_empty() {
        let message = "tls.certificateRefs names no certificate";
        listener.unresolved(Fault::new(INVALID_CERTIFICATE, message));
    }
    let mut names = Vec::new();
    for reference in references {
        match certificate(context, grants, from, reference, INVALID_CERTIFICATE) {
            Ok(loaded) => {
                if let Some(why) = &loaded.fault {
                    let message = format!("{why}; its last good version stays in effect");
                    listener.unresolved(Fault::new(INVALID_CERTIFICATE, message));
                }
                names.push(loaded.info);
                listener.certificates.push(loaded.certificate);
            }
            Err(fault) => listener.unresolved(fault),
        }
    }
    // One whose names cannot be read may be for any.
    if let Some(host) = &listener.hostname
        && !names.is_empty()
        && names.iter().all(|info| info.as_ref().is_ok_and(|info| !info.covers(host)))
    {
        let field = format!("spec.listeners[{}].tls.certificateRefs", listener.index);
        let message = format!("no certificate is for {host:?}; clients refuse what they get");
        context.report.warning(kind, meta, field, message);
    }
    listener.broken |= listener.certificates.is_empty();
}

/// The certificate that a Gateway or ListenerSet refers to; `invalid` is the reason if there is none.
pub(super) fn certificate(
    context: &mut Context<'_>,
    grants: &Grants,
    from: Referrer<'_>,
    reference: &ObjectRef,
    invalid: &'static str,
) -> Result<Loaded, Fault> {
    if !is(reference, "", Kind::Secret) {
        let message = format!("{} {} is no Secret", reference.kind, reference.name);
        return Err(Fault::new(invalid, message));
    }
    let name = grants.permit(from, reference).map_err(|why| Fault::new("RefNotPermitted", why))?;
    context.certificate(&name).map_err(|why| Fault::new(invalid, &*why))
}

/// How the clients of a port are checked: `perPort` overrides `default`.
fn validation(gateway: &Gateway, port: u16) -> Option<&FrontendValidation> {
    match gateway.frontend_validation_per_port.get(&port) {
        Some(own) => own.as_ref(),
        None => gateway.frontend_validation.as_ref(),
    }
}

/// Whether some listener lets clients through whose certificates are not good.
pub(super) fn is_insecure(gateway: &Gateway) -> bool {
    let ports = gateway.frontend_validation_per_port.values().flatten();
    ports.chain(&gateway.frontend_validation).any(|validation| validation.insecure_fallback)
}

fn client_auth(
    context: &mut Context<'_>,
    grants: &Grants,
    gateway: &Gateway,
    listener: &mut ListenerState,
) {
    let Some(validation) = validation(gateway, listener.port) else { return };
    let mut good = Vec::new();
    for reference in &validation.authorities {
        match authorities(context, grants, gateway, reference) {
            Ok(authorities) => good.push(authorities),
            Err(fault) => listener.unresolved(fault),
        }
    }
    match joined(good) {
        Some(authorities) => {
            let optional = validation.insecure_fallback;
            listener.client_auth = Some(Arc::new(ClientAuth { authorities, optional }));
        }
        None => {
            let message = "none of the references to CA certificates can be used";
            listener.rejected.get_or_insert(Fault::new("NoValidCACertificate", message));
            listener.broken = true;
        }
    }
}

fn authorities(
    context: &mut Context<'_>,
    grants: &Grants,
    gateway: &Gateway,
    reference: &ObjectRef,
) -> Result<Arc<Authorities>, Fault> {
    if !is(reference, "", Kind::ConfigMap) {
        let message = format!("{} {} is no ConfigMap", reference.kind, reference.name);
        return Err(Fault::new("InvalidCACertificateKind", message));
    }
    let from = Referrer { kind: Kind::Gateway, namespace: &gateway.meta.name.namespace };
    let name = grants.permit(from, reference).map_err(|why| Fault::new("RefNotPermitted", why))?;
    let objects = context.objects;
    let loaded = context.caches.authorities.load(objects, &name);
    loaded.map_err(|why| Fault::new("InvalidCACertificateRef", &*why))
}
