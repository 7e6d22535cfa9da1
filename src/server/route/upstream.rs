//! How the endpoints of a Service are talked to: `appProtocol` of its port and the annotations `pilus.dev/…`, for
//! backends of Ingresses and Gateways alike. What cannot be honoured is reported, never silently replaced.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::annotation::{field, parse_go_duration};
use super::context::Context;
use super::report::Report;
use super::suggest::closest;
use crate::api::meta::{Kind, Meta, NamespacedName};
use crate::api::object::Service;
use crate::api::problem::Severity;
use crate::api::route::{
    Balance, OutlierDetection, SendProxyProtocol, UpstreamProtocol, UpstreamSettings,
};

/// What all our own annotations begin with.
pub(super) const PREFIX: &str = "pilus.dev/";

const BALANCE: &str = "load-balancing";
const SLOW_START: &str = "slow-start";
const OUTLIER_CONSECUTIVE: &str = "outlier-consecutive";
const OUTLIER_EJECTION: &str = "outlier-ejection";
const MAX_CONNECTIONS: &str = "max-connections";
const MAX_REQUESTS: &str = "max-requests";
const SEND_PROXY_PROTOCOL: &str = "send-proxy-protocol";
const TRANSPARENT: &str = "transparent";
const KNOWN: [&str; 8] = [
    BALANCE,
    SLOW_START,
    OUTLIER_CONSECUTIVE,
    OUTLIER_EJECTION,
    MAX_CONNECTIONS,
    MAX_REQUESTS,
    SEND_PROXY_PROTOCOL,
    TRANSPARENT,
];

/// Envoy's defaults for what only one of the two annotations names.
const DEFAULT_CONSECUTIVE: u32 = 5;
const DEFAULT_EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTION_PERCENT: u32 = 50;

/// What `appProtocol` says (KEP-3726).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppProtocol {
    /// HTTP/1.1, WebSocket, or nothing said.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// HTTP over TLS: needs to be told whom to trust.
    Tls,
    /// Not HTTP.
    Unsupported,
}

/// The settings of the Services used in one compilation: by Service, and whether HTTP/2 is spoken.
pub(super) type Settings = HashMap<(NamespacedName, bool), Arc<UpstreamSettings>>;

// === impl AppProtocol ===

impl AppProtocol {
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text.unwrap_or("http") {
            "kubernetes.io/h2c" | "kubernetes.io/grpc" | "h2c" | "http2" | "grpc" => Self::Http2,
            "https" | "kubernetes.io/wss" | "wss" | "tls" | "grpcs" => Self::Tls,
            "kubernetes.io/ws" => Self::Http1,
            // Names with a domain mean something exact; bare ones are written for all kinds of reasons.
            other if other.contains('/') => Self::Unsupported,
            _ => Self::Http1,
        }
    }
}

impl Context<'_> {
    /// The settings of a Service without TLS.
    pub(super) fn settings(&mut self, service: &Service, http2: bool) -> Arc<UpstreamSettings> {
        let key = (service.meta.name.clone(), http2);
        if let Some(known) = self.settings.get(&key) {
            return Arc::clone(known);
        }
        let mut settings = read(&service.meta, &mut self.report);
        if http2 {
            settings.protocol = UpstreamProtocol::Http2;
        }
        let settings = Arc::new(settings);
        self.settings.insert(key, Arc::clone(&settings));
        settings
    }
}

/// The annotations of a Service.
fn read(meta: &Meta, report: &mut Report) -> UpstreamSettings {
    let mut settings = UpstreamSettings::default();
    if !meta.annotations.keys().any(|key| key.starts_with(PREFIX)) {
        return settings;
    }
    warn_of_unknown(Kind::Service, meta, &KNOWN, report);
    let mut outlier: (Option<u32>, Option<Duration>) = (None, None);
    for (key, value) in &meta.annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let number = || value.parse::<u32>().ok().filter(|&number| number > 0);
        let time = || parse_go_duration(value).filter(|time| !time.is_zero());
        let (done, allowed) = match name {
            BALANCE => {
                let balance = balance(value);
                settings.balance = balance.unwrap_or_default();
                (balance.is_some(), "round-robin, least-request, random or source-address")
            }
            SLOW_START => {
                settings.slow_start = time().unwrap_or_default();
                (time().is_some(), DURATION)
            }
            OUTLIER_CONSECUTIVE => {
                outlier.0 = number();
                (number().is_some(), NUMBER)
            }
            OUTLIER_EJECTION => {
                outlier.1 = time();
                (time().is_some(), DURATION)
            }
            MAX_CONNECTIONS => {
                settings.breaker.max_connections = number().unwrap_or_default();
                (number().is_some(), NUMBER)
            }
            MAX_REQUESTS => {
                settings.breaker.max_requests = number().unwrap_or_default();
                (number().is_some(), NUMBER)
            }
            SEND_PROXY_PROTOCOL => {
                settings.send_proxy_protocol = match &**value {
                    "v1" => Some(SendProxyProtocol::V1),
                    "v2" => Some(SendProxyProtocol::V2),
                    _ => None,
                };
                (settings.send_proxy_protocol.is_some(), "v1 or v2")
            }
            TRANSPARENT => {
                settings.transparent = &**value == "true";
                (["true", "false"].contains(&&**value), "true or false")
            }
            _ => continue,
        };
        if !done {
            let message =
                format!("{value:?} is not a value for {key}: {allowed}; it has no effect");
            report.push(Kind::Service, meta, field(key), message, Severity::Error);
        }
    }
    if outlier != (None, None) {
        settings.outlier = Some(OutlierDetection {
            consecutive: outlier.0.unwrap_or(DEFAULT_CONSECUTIVE),
            base_ejection: outlier.1.unwrap_or(DEFAULT_EJECTION),
            max_percent: MAX_EJECTION_PERCENT,
        });
    }
    settings
}

const DURATION: &str = "a duration such as 30s, 1m30s or 500ms";
const NUMBER: &str = "a whole number above 0";

fn balance(text: &str) -> Option<Balance> {
    Some(match text {
        "round-robin" => Balance::RoundRobin,
        "least-request" => Balance::LeastRequest,
        "random" => Balance::Random,
        "source-address" => Balance::SourceAddress,
        _ => return None,
    })
}

/// Warns of annotations `pilus.dev/…` that objects of this kind do not have.
pub(super) fn warn_of_unknown(kind: Kind, meta: &Meta, known: &[&str], report: &mut Report) {
    for key in meta.annotations.keys() {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if !known.contains(&name) {
            let hint = closest(name, known.iter().copied());
            let message = format!("the annotation {key} is not known and has no effect{hint}");
            report.push(kind, meta, field(key), message, Severity::Warning);
        }
    }
}
