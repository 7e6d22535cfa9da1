//! BackendTLSPolicy, XBackendTrafficPolicy, XBackend, and session persistence: what the schema cannot say.
use std::time::Duration;

use super::faults::Faults;
use super::gateway::{list, object_ref, object_refs, word};
use super::http_names::parse_duration;
use super::service::{mark_of, port_number, text};
use crate::api::meta::{Meta, Str};
use crate::api::object::gateway::{
    AlternativeName, BackendTlsPolicy, BackendTrafficPolicy, BackendValidation, ExternalBackend,
    ExternalTls, ObjectRef, RetryConstraint, SessionPersistence,
};
use crate::proto::value::Value;

const HOUR: Duration = Duration::from_secs(3600);

/// A duration member.
pub(super) fn duration(value: &Value, key: &str) -> Option<Duration> {
    text(value, key).and_then(parse_duration)
}

pub(super) fn backend_tls_policy(
    meta: Meta,
    spec: &Value,
    faults: &mut Faults,
) -> BackendTlsPolicy {
    let mut targets: Vec<(ObjectRef, Option<Str>)> = Vec::new();
    for (at, value) in list(spec, "targetRefs") {
        let target = (object_ref(value), text(value, "sectionName").map(Str::from));
        let first = targets.iter().position(|known| {
            known.0 == target.0 && (known.1 == target.1 || known.1.is_none() != target.1.is_none())
        });
        if let Some(first) = first {
            let message = format!(
                "has the target of targetRefs[{first}]: each needs a sectionName of its own then"
            );
            faults.error(value.mark, format!("spec.targetRefs[{at}]"), message);
        }
        targets.push(target);
    }
    let validation = spec
        .get("validation")
        .map(|value| backend_validation(value, "spec.validation", faults))
        .unwrap_or_default();
    BackendTlsPolicy { meta, targets, validation }
}

fn backend_validation(value: &Value, field: &str, faults: &mut Faults) -> BackendValidation {
    let validation = BackendValidation {
        authorities: object_refs(value, "caCertificateRefs"),
        well_known: text(value, "wellKnownCACertificates").map(Str::from),
        hostname: word(value, "hostname"),
        alternative_names: alternative_names(value, field, faults),
    };
    match (validation.authorities.is_empty(), &validation.well_known) {
        (false, Some(_)) => {
            let message = "has both `caCertificateRefs` and `wellKnownCACertificates`: one of them";
            faults.error(mark_of(value, "wellKnownCACertificates"), field, message);
        }
        (true, None) => {
            let message = "required: `caCertificateRefs` or `wellKnownCACertificates`";
            faults.error(value.mark, field, message);
        }
        _ => {}
    }
    validation
}

fn alternative_names(value: &Value, field: &str, faults: &mut Faults) -> Vec<AlternativeName> {
    let mut names = Vec::new();
    for (at, value) in list(value, "subjectAltNames") {
        let field = format!("{field}.subjectAltNames[{at}]");
        let Some(kind @ ("Hostname" | "URI")) = text(value, "type") else { continue };
        let (wanted, other) = if kind == "URI" { ("uri", "hostname") } else { ("hostname", "uri") };
        if text(value, other).is_some() {
            let message = format!("not allowed with type {kind}");
            faults.error(mark_of(value, other), format!("{field}.{other}"), message);
        }
        match text(value, wanted) {
            None => {
                let message = format!("required with type {kind}");
                faults.error(mark_of(value, "type"), format!("{field}.{wanted}"), message);
            }
            Some(text) if kind == "URI" => names.push(AlternativeName::Uri(text.into())),
            Some(text) => names.push(AlternativeName::Hostname(text.into())),
        }
    }
    names
}

pub(super) fn backend_traffic_policy(
    meta: Meta,
    spec: &Value,
    faults: &mut Faults,
) -> BackendTrafficPolicy {
    let targets = object_refs(spec, "targetRefs");
    for (at, value) in list(spec, "targetRefs") {
        if let Some(first) = targets[..at].iter().position(|known| *known == targets[at]) {
            let message = format!("has the target of targetRefs[{first}]");
            faults.error(value.mark, format!("spec.targetRefs[{at}]"), message);
        }
    }
    BackendTrafficPolicy {
        meta,
        targets,
        retry: spec.get("retryConstraint").map(|value| retry_constraint(value, faults)),
        session: session(spec, "spec", faults),
    }
}

fn retry_constraint(value: &Value, faults: &mut Faults) -> RetryConstraint {
    let number = |value: Option<&Value>, key: &str, default: u32| {
        let number = value.and_then(|value| value.get(key)?.as_int());
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    };
    let (budget, minimum) = (value.get("budget"), value.get("minRetryRate"));
    let mut interval = |value: Option<&Value>, name: &str, least: Duration, default: Duration| {
        let Some((value, interval)) =
            value.and_then(|value| Some((value, duration(value, "interval")?)))
        else {
            return default;
        };
        if interval < least || interval > HOUR {
            let message = format!("must be {least:?} to 1h");
            let field = format!("spec.retryConstraint.{name}.interval");
            faults.error(mark_of(value, "interval"), field, message);
        }
        interval
    };
    let second = Duration::from_secs(1);
    let over = interval(budget, "budget", second, Duration::from_secs(10));
    let within = interval(minimum, "minRetryRate", Duration::from_millis(1), second);
    RetryConstraint {
        percent: number(budget, "percent", 20),
        interval: over,
        minimum: (number(minimum, "count", 10), within),
    }
}

/// `sessionPersistence` within `value`, which is written at `field`.
pub(super) fn session(
    value: &Value,
    field: &str,
    faults: &mut Faults,
) -> Option<SessionPersistence> {
    let value = value.get("sessionPersistence")?;
    let field = format!("{field}.sessionPersistence");
    let cookie = value.member("cookieConfig");
    let session = SessionPersistence {
        name: text(value, "sessionName").map(Str::from),
        header: text(value, "type") == Some("Header"),
        absolute_timeout: duration(value, "absoluteTimeout"),
        permanent: cookie
            .is_some_and(|cookie| text(&cookie.value, "lifetimeType") == Some("Permanent")),
    };
    if session.header
        && let Some(cookie) = cookie
    {
        let message = "only allowed with type Cookie";
        faults.error(cookie.mark, format!("{field}.cookieConfig"), message);
    }
    if session.permanent && value.get("absoluteTimeout").is_none() {
        let message = "required with lifetimeType Permanent";
        faults.error(value.mark, format!("{field}.absoluteTimeout"), message);
    }
    Some(session)
}

pub(super) fn external_backend(meta: Meta, spec: &Value, faults: &mut Faults) -> ExternalBackend {
    let external = spec.get("externalHostname");
    if external.is_none() && text(spec, "type") == Some("ExternalHostname") {
        let message = "required with type ExternalHostname";
        faults.error(mark_of(spec, "type"), "spec.externalHostname", message);
    }
    let hostname = external.map(|value| word(value, "hostname")).unwrap_or_default();
    if hostname.ends_with(".cluster.local") {
        let mark = external.map_or(spec.mark, |value| mark_of(value, "hostname"));
        let message = format!("`{hostname}` is within the cluster: refer to the Service");
        faults.error(mark, "spec.externalHostname.hostname", message);
    }
    ExternalBackend {
        meta,
        hostname,
        port: spec.get("port").and_then(|value| port_number(value, "port")).unwrap_or(0),
        protocol: text(spec, "protocol").map(Str::from),
        tls: spec.get("tls").and_then(|value| external_tls(value, faults)),
    }
}

fn external_tls(value: &Value, faults: &mut Faults) -> Option<ExternalTls> {
    let validation = value
        .get("validation")
        .map(|value| backend_validation(value, "spec.tls.validation", faults));
    let client_certificate = value.get("clientCertificateRef").map(object_ref);
    let mode = text(value, "mode")?;
    if client_certificate.is_some() != (mode == "ClientAndServer") {
        let field = "spec.tls.clientCertificateRef";
        let message = if client_certificate.is_some() {
            "only allowed with mode ClientAndServer"
        } else {
            "required with mode ClientAndServer"
        };
        let key = if client_certificate.is_some() { "clientCertificateRef" } else { "mode" };
        faults.error(mark_of(value, key), field, message);
    }
    (mode != "None").then_some(ExternalTls { validation, client_certificate })
}
