//! The annotations of an Ingress (ING-04), read strictly: what cannot be honoured is reported, never
//! silently replaced.
use std::time::Duration;

use super::report::Report;
use super::suggest::closest;
use crate::api::address::Port;
use crate::api::config::{Config, IngressMode};
use crate::api::meta::Str;
use crate::api::object::{ExternalTrafficPolicy, Ingress, ServiceType};

const PREFIX: &str = "ingress.cilium.io/";
/// The older spelling of five of them.
const ALIAS_PREFIX: &str = "io.cilium.ingress/";

const MODE: &str = "loadbalancer-mode";
const CLASS: &str = "loadbalancer-class";
const SERVICE_TYPE: &str = "service-type";
const TRAFFIC_POLICY: &str = "service-external-traffic-policy";
const INSECURE_NODE_PORT: &str = "insecure-node-port";
const SECURE_NODE_PORT: &str = "secure-node-port";
const HOST_PORT: &str = "host-listener-port";
const PASSTHROUGH: &str = "tls-passthrough";
const FORCE_HTTPS: &str = "force-https";
const TIMEOUT: &str = "request-timeout";

const KNOWN: [&str; 10] = [
    MODE,
    CLASS,
    SERVICE_TYPE,
    TRAFFIC_POLICY,
    INSECURE_NODE_PORT,
    SECURE_NODE_PORT,
    HOST_PORT,
    PASSTHROUGH,
    FORCE_HTTPS,
    TIMEOUT,
];
const ALIASED: [&str; 5] = [MODE, SERVICE_TYPE, INSECURE_NODE_PORT, SECURE_NODE_PORT, PASSTHROUGH];

/// What the annotations of one Ingress say, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) mode: IngressMode,
    pub(super) load_balancer_class: Option<Str>,
    pub(super) service_type: ServiceType,
    pub(super) traffic_policy: ExternalTrafficPolicy,
    pub(super) insecure_node_port: u16,
    pub(super) secure_node_port: u16,
    pub(super) host_port: Option<Port>,
    pub(super) passthrough: bool,
    pub(super) force_https: bool,
    pub(super) request_timeout: Option<Duration>,
}

/// Reads all annotations of `ingress`.
pub(super) fn read(ingress: &Ingress, config: &Config, report: &mut Report) -> Settings {
    if !ingress.meta.annotations.keys().any(|key| is_ours(key)) {
        return Settings::default_of(config);
    }
    let mut reader = Reader { ingress, report };
    reader.unknown();
    let mode = reader.mode(config.ingress_mode);
    let settings = Settings {
        mode,
        load_balancer_class: reader.value(CLASS).map(|(_, class)| class.into()),
        service_type: reader.service_type(),
        traffic_policy: reader.traffic_policy(),
        insecure_node_port: reader.port(INSECURE_NODE_PORT).map_or(0, |port| port.0),
        secure_node_port: reader.port(SECURE_NODE_PORT).map_or(0, |port| port.0),
        host_port: reader.port(HOST_PORT),
        passthrough: reader.switch(PASSTHROUGH, "not passed through").unwrap_or(false),
        force_https: reader
            .switch(FORCE_HTTPS, "treated as enabled")
            .unwrap_or(config.enforce_https),
        request_timeout: reader.timeout(),
    };
    reader.without_effect(&settings);
    settings
}

fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX) || key.starts_with(ALIAS_PREFIX)
}

/// The field path of an annotation in messages.
pub(super) fn field(key: &str) -> String {
    format!("metadata.annotations.{key}")
}

struct Reader<'a> {
    ingress: &'a Ingress,
    report: &'a mut Report,
}

// === impl Settings ===

impl Settings {
    const fn default_of(config: &Config) -> Self {
        Self {
            mode: config.ingress_mode,
            load_balancer_class: None,
            service_type: ServiceType::LoadBalancer,
            traffic_policy: ExternalTrafficPolicy::Cluster,
            insecure_node_port: 0,
            secure_node_port: 0,
            host_port: None,
            passthrough: false,
            force_https: config.enforce_https,
            request_timeout: None,
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The value of the annotation and the key it was found under; the alias counts if there is no other.
    fn value(&self, name: &str) -> Option<(String, &'a str)> {
        let get = |prefix: &str| {
            let key = format!("{prefix}{name}");
            let value = self.ingress.meta.annotation(&key)?;
            Some((key, value))
        };
        get(PREFIX).or_else(|| if ALIASED.contains(&name) { get(ALIAS_PREFIX) } else { None })
    }

    fn bad(&mut self, key: &str, value: &str, allowed: &str, instead: &str) {
        self.report.ingress_error(
            self.ingress,
            field(key),
            format!("{value:?} is not a value for {key}: {allowed}; {instead}"),
        );
    }

    fn unknown(&mut self) {
        for key in self.ingress.meta.annotations.keys() {
            let (name, names) = if let Some(name) = key.strip_prefix(PREFIX) {
                (name, &KNOWN[..])
            } else if let Some(name) = key.strip_prefix(ALIAS_PREFIX) {
                (name, &ALIASED[..])
            } else {
                continue;
            };
            if !names.contains(&name) {
                let hint = closest(name, names.iter().copied());
                self.report.ingress_warning(
                    self.ingress,
                    field(key),
                    format!("the annotation {key} is not known and has no effect{hint}"),
                );
            }
        }
    }

    fn mode(&mut self, default: IngressMode) -> IngressMode {
        match self.value(MODE) {
            None => default,
            Some((_, "shared")) => IngressMode::Shared,
            Some((_, "dedicated")) => IngressMode::Dedicated,
            Some((key, value)) => {
                let default_name =
                    if default == IngressMode::Shared { "shared" } else { "dedicated" };
                self.bad(
                    &key,
                    value,
                    "shared or dedicated",
                    &format!("the default, {default_name}, is in effect"),
                );
                default
            }
        }
    }

    fn service_type(&mut self) -> ServiceType {
        match self.value(SERVICE_TYPE) {
            None | Some((_, "LoadBalancer")) => ServiceType::LoadBalancer,
            Some((_, "NodePort")) => ServiceType::NodePort,
            Some((key, value)) => {
                let instead = "LoadBalancer is in effect";
                self.bad(&key, value, "LoadBalancer or NodePort", instead);
                ServiceType::LoadBalancer
            }
        }
    }

    fn traffic_policy(&mut self) -> ExternalTrafficPolicy {
        match self.value(TRAFFIC_POLICY) {
            None | Some((_, "Cluster")) => ExternalTrafficPolicy::Cluster,
            Some((_, "Local")) => ExternalTrafficPolicy::Local,
            Some((key, value)) => {
                self.bad(&key, value, "Cluster or Local", "Cluster is in effect");
                ExternalTrafficPolicy::Cluster
            }
        }
    }

    fn port(&mut self, name: &str) -> Option<Port> {
        let (key, value) = self.value(name)?;
        let port = value.parse().ok().filter(|&port| port != 0).map(Port);
        if port.is_none() {
            self.bad(&key, value, "a port number from 1 to 65535", "none is set");
        }
        port
    }

    /// A switch is on or off; what is neither is on for force-https (fail closed) and off for
    /// passthrough, which its callers decide with `instead`.
    fn switch(&mut self, name: &str, instead: &str) -> Option<bool> {
        let (key, value) = self.value(name)?;
        let on = match value {
            "enabled" | "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "disabled" | "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => {
                self.bad(&key, value, "enabled, disabled, true or false", instead);
                name == FORCE_HTTPS
            }
        };
        Some(on)
    }

    fn timeout(&mut self) -> Option<Duration> {
        let (key, value) = self.value(TIMEOUT)?;
        let duration = parse_go_duration(value);
        if duration.is_none() {
            let allowed = "a duration such as 30s, 1m30s or 500ms";
            self.bad(&key, value, allowed, "there is no time limit");
        }
        duration.filter(|duration| !duration.is_zero())
    }

    /// Says what is understood and not in effect in this mode.
    fn without_effect(&mut self, settings: &Settings) {
        let mut useless = |name: &str, why: &str| {
            if let Some((key, _)) = self.value(name) {
                let message = format!("{key} has no effect: {why}");
                self.report.ingress_warning(self.ingress, field(&key), message);
            }
        };
        if settings.mode == IngressMode::Shared {
            for name in [CLASS, SERVICE_TYPE, TRAFFIC_POLICY, HOST_PORT] {
                useless(name, "it is for an Ingress with loadbalancer-mode dedicated");
            }
        }
        for name in [INSECURE_NODE_PORT, SECURE_NODE_PORT] {
            useless(name, "node ports are not served");
        }
        if settings.mode == IngressMode::Dedicated && settings.service_type == ServiceType::NodePort
        {
            useless(
                SERVICE_TYPE,
                "a NodePort Service gets no address, and node ports are not served",
            );
        }
        if settings.passthrough {
            useless(TIMEOUT, "TLS is passed through, requests are not seen");
            useless(FORCE_HTTPS, "TLS is passed through and plain HTTP is not served");
        }
    }
}

/// Go's `time.ParseDuration` for durations that are not negative: `1h15m30.5s`, `300ms`, `0`. None if it
/// is not one, or beyond what Go can hold (292 years).
pub(super) fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanos, after) = parse_go_element(rest)?;
        total = total.checked_add(nanos)?;
        rest = after;
    }
    i64::try_from(total).ok().and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
}

/// One number with its unit, in nanoseconds, and what follows.
fn parse_go_element(text: &str) -> Option<(u128, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(unit_at);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More digits than these do not fit Go's 64 bits, or are below a nanosecond of an hour.
    let whole: u128 = if whole.is_empty() { 0 } else { whole.get(..)?.parse::<u64>().ok()?.into() };
    let fraction = &fraction[..fraction.len().min(15)];
    let digits = u32::try_from(fraction.len()).ok()?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.into() };
    Some((whole * scale + part * scale / 10_u128.pow(digits), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1h15m30.918s", Some(4_530_918_000_000)),
            ("500ms", Some(500_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("7us", Some(7_000)),
            ("7µs", Some(7_000)),
            ("7ns", Some(7)),
            ("+5s", Some(5_000_000_000)),
            ("0.00000000000000000001h", Some(0)),
            ("", None),
            ("+", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("5 s", None),
            ("5sec", None),
            ("5d", None),
            ("1..5s", None),
            ("3000000h", None),
            ("99999999999999999999999s", None),
        ] {
            let expected = nanos.map(Duration::from_nanos);
            assert_eq!(parse_go_duration(text), expected, "{text:?}");
        }
    }
}
