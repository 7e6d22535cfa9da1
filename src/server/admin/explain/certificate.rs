//! What the TLS handshake comes to: which certificate, or whose.
use std::sync::Arc;

use super::Steps;
use crate::api::route::{Certificate, Listener, Route, TlsAction, TlsTermination};
use crate::server::admin::moment::{Moment, rfc3339};

/// What comes after the ClientHello.
pub(super) enum Tls {
    /// HTTP, for the hosts of this scope.
    Http(u32),
    /// Bytes, decrypted or not, for this route.
    Bytes(Arc<Route>),
    /// And why.
    Refused(String),
}

pub(super) fn explain(
    steps: &mut Steps,
    moment: Moment,
    listener: &Listener,
    name: Option<&str>,
) -> Tls {
    let Some(action) = listener.tls.find(name) else {
        let why = format!("no entry for SNI {} and no default", name.unwrap_or("(none)"));
        steps.add("certificate", "none", &why);
        return Tls::Refused("no certificate for this name".to_owned());
    };
    let why = chosen_by(listener, name);
    match action {
        TlsAction::Terminate(termination) => {
            terminated(steps, moment, termination, name, &why);
            match &termination.forward {
                Some(route) => Tls::Bytes(Arc::clone(route)),
                None => Tls::Http(termination.scope),
            }
        }
        TlsAction::Passthrough(route) => {
            steps.add("certificate", "the backend's own: TLS is passed through", &why);
            Tls::Bytes(Arc::clone(route))
        }
        TlsAction::Refuse(reason) | TlsAction::Reset(reason) => {
            steps.add("certificate", &format!("handshake refused: {reason}"), &why);
            let is_route = reason.contains("TLSRoute");
            let why = if is_route { reason } else { "no certificate for this name" };
            Tls::Refused(why.to_owned())
        }
    }
}

/// Which entry of the table the SNI name has found.
fn chosen_by(listener: &Listener, name: Option<&str>) -> String {
    let table = &listener.tls;
    let name = name.unwrap_or_default();
    if table.exact.contains_key(name) {
        return "SNI is the very name".to_owned();
    }
    let mut parents = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
    let first = parents.clone().next().map_or("", |(_, parent)| parent);
    if table.wildcard.contains_key(first) {
        return format!("SNI matches *.{first}");
    }
    match parents.find(|(_, parent)| table.suffix.contains_key(*parent)) {
        Some((_, parent)) => format!("SNI matches *.{parent}"),
        None => "default: SNI names nothing else".to_owned(),
    }
}

fn terminated(
    steps: &mut Steps,
    moment: Moment,
    termination: &TlsTermination,
    name: Option<&str>,
    why: &str,
) {
    let all = &termination.certificates;
    // As the proxy chooses, for a client that understands every kind of key.
    let rank = |it: &&Arc<Certificate>| {
        let is_rsa = it.key.key.algorithm() == rustls::SignatureAlgorithm::RSA;
        (name.is_some_and(|name| !is_for(it, name)), is_rsa)
    };
    let Some(certificate) = all.iter().min_by_key(rank) else {
        steps.add("certificate", "none", why);
        return;
    };
    let expiry = match certificate.not_after {
        Some(end) if end <= moment.unix => format!(", EXPIRED at {}", rfc3339(end)),
        Some(end) => format!(", valid until {}", rfc3339(end)),
        None => String::new(),
    };
    let others: Vec<String> = all
        .iter()
        .filter(|it| !Arc::ptr_eq(it, certificate))
        .map(|it| it.secret.to_string())
        .collect();
    let others = if others.is_empty() {
        String::new()
    } else {
        format!("; for other names and signature algorithms: {}", others.join(", "))
    };
    let result = format!("Secret {}{expiry}{others}", certificate.secret);
    steps.add("certificate", &result, why);
    if let Some(client) = &termination.client_auth {
        let result = if client.optional { "asked for, not required" } else { "required" };
        let why = format!("it must be signed by {}", client.authorities.source);
        steps.add("client", result, &why);
    }
}

/// Whether one of the certificate's names is this, or a wildcard for one label of it.
fn is_for(certificate: &Certificate, name: &str) -> bool {
    certificate.names.iter().any(|known| match known.strip_prefix("*.") {
        None => **known == *name,
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
    })
}
