//! What a route does with a request: filters in the order in which they are applied, limits, and the backends with
//! their endpoints.
use super::{Outcome, Steps};
use crate::api::endpoint::Endpoint;
use crate::api::route::{
    Action, Backend, Balance, Filters, HeaderChange, PathMatch, PathRewrite, Redirect, RetryPolicy,
    Route, Session, SessionKind, Target, UpstreamProtocol, UpstreamSettings,
};
use crate::server::admin::list::endpoint_state;
use crate::server::admin::state::State;

/// Explains a route, and how `matched` is the part that a rewrite replaces.
pub(super) fn explain(
    steps: &mut Steps,
    state: &State,
    route: &Route,
    matched: Option<PathMatch<'_>>,
) -> Outcome {
    for (object, field) in &route.origins {
        let name = route.name.as_ref().map_or_else(String::new, |name| format!(" (`{name}`)"));
        steps.add("rule", &format!("{object}{name}"), field);
    }
    explain_filters(steps, &route.filters, matched);
    match &route.action {
        Action::Forward(backends) => {
            explain_limits(steps, route);
            explain_backends(steps, state, backends)
        }
        Action::RedirectHttps(port) => {
            let text =
                format!("301 to https on port {port}: the host has TLS and force-https is on");
            Outcome { served: true, status: Some(301), text }
        }
        Action::Redirect(redirect) => {
            let text = format!("{} {}", redirect.status, redirect_in_words(redirect, matched));
            Outcome { served: true, status: Some(redirect.status), text }
        }
        Action::Refuse(status, why) => Outcome::failed(Some(*status), &format!("{status}: {why}")),
    }
}

fn explain_filters(steps: &mut Steps, filters: &Filters, matched: Option<PathMatch<'_>>) {
    for text in filters_in_words(filters, matched) {
        steps.say("filter", &text);
    }
}

/// Each filter as `Type: what it does`, in the order in which they are applied.
pub(in crate::server::admin) fn filters_in_words(
    filters: &Filters,
    matched: Option<PathMatch<'_>>,
) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(cors) = &filters.cors {
        let list = |words: &[crate::api::meta::Str]| words.join(" ");
        let with = if cors.credentials { ", with credentials" } else { "" };
        all.push(format!(
            "CORS: origins {}; methods {}; headers {}; max-age {} s{with}",
            list(&cors.origins),
            list(&cors.methods),
            list(&cors.headers),
            cors.max_age
        ));
    }
    if let Some(auth) = &filters.auth {
        let protocol = if auth.grpc { "gRPC" } else { "HTTP" };
        let body = auth
            .body_limit
            .map_or_else(String::new, |limit| format!(", with up to {limit} bytes of the body"));
        let target = target(&auth.backend.target);
        all.push(format!("ExternalAuth: {target} is asked over {protocol}{body}"));
    }
    if !filters.request.is_empty() {
        all.push(format!("RequestHeaderModifier: {}", change_in_words(&filters.request)));
    }
    let rewrite = &filters.rewrite;
    if rewrite.host.is_some() || rewrite.path.is_some() {
        let host = rewrite.host.as_ref().map(|host| format!("host becomes {host}"));
        let path = rewrite.path.as_ref().map(|path| path_in_words(path, matched));
        let parts: Vec<String> = host.into_iter().chain(path).collect();
        all.push(format!("URLRewrite: {}", parts.join("; ")));
    }
    for mirror in &filters.mirrors {
        let (numerator, denominator) = mirror.fraction;
        let share = if numerator == denominator {
            "every request".to_owned()
        } else {
            format!("{numerator} of {denominator} requests")
        };
        all.push(format!("RequestMirror: {share} to {}", target(&mirror.backend.target)));
    }
    if !filters.response.is_empty() {
        all.push(format!("ResponseHeaderModifier: {}", change_in_words(&filters.response)));
    }
    all
}

fn change_in_words(change: &HeaderChange) -> String {
    let remove = change.remove.iter().map(|name| format!("remove {name}"));
    let set = change.set.iter().map(|(name, value)| format!("set {name}: {value}"));
    let add = change.add.iter().map(|(name, value)| format!("add {name}: {value}"));
    remove.chain(set).chain(add).collect::<Vec<_>>().join("; ")
}

fn path_in_words(path: &PathRewrite, matched: Option<PathMatch<'_>>) -> String {
    match path {
        PathRewrite::Full(path) => format!("path becomes {path}"),
        PathRewrite::Prefix(new) => {
            let new = if new.is_empty() { "/" } else { new };
            match matched {
                Some(PathMatch::Prefix(old)) => {
                    let old = if old.is_empty() { "/" } else { old };
                    format!("prefix {old} becomes {new}")
                }
                _ => format!("the matched prefix becomes {new}"),
            }
        }
    }
}

pub(in crate::server::admin) fn redirect_in_words(
    redirect: &Redirect,
    matched: Option<PathMatch<'_>>,
) -> String {
    let mut parts = Vec::new();
    parts.extend(redirect.scheme.as_ref().map(|scheme| format!("scheme becomes {scheme}")));
    parts.extend(redirect.host.as_ref().map(|host| format!("host becomes {host}")));
    parts.extend(redirect.port.map(|port| format!("port becomes {port}")));
    parts.extend(redirect.path.as_ref().map(|path| path_in_words(path, matched)));
    if parts.is_empty() {
        return "redirect to the same URL".to_owned();
    }
    format!("redirect: {}", parts.join("; "))
}

/// Timeouts, retries and session persistence.
fn explain_limits(steps: &mut Steps, route: &Route) {
    let whole = route.request_timeout.map(|time| format!("{time:?} for the whole request"));
    let each = route.backend_timeout.map(|time| format!("{time:?} for each attempt"));
    let times: Vec<String> = whole.into_iter().chain(each).collect();
    if !times.is_empty() {
        steps.add("timeout", &times.join(", "), "then 504");
    }
    if let Some(retry) = &route.retry {
        steps.say("retry", &retry_in_words(retry));
    }
    if let Some(session) = &route.session {
        steps.say("session", &session_in_words(session));
    }
}

pub(in crate::server::admin) fn retry_in_words(retry: &RetryPolicy) -> String {
    let mut causes: Vec<String> = retry.codes.iter().map(ToString::to_string).collect();
    if retry.on_failure {
        causes.push("connection failures".to_owned());
    }
    let budget = retry.budget.map_or_else(String::new, |budget| {
        let (count, interval) = budget.minimum;
        format!(
            "; at most {} % of the requests of {:?}, and always {count} in {interval:?}",
            budget.percent, budget.interval
        )
    });
    let (attempts, backoff) = (retry.attempts, retry.backoff);
    format!("up to {attempts} more on {}, {backoff:?} apart{budget}", causes.join(", "))
}

pub(in crate::server::admin) fn session_in_words(session: &Session) -> String {
    let kind = match session.kind {
        SessionKind::SessionCookie => "session cookie",
        SessionKind::PermanentCookie => "permanent cookie",
        SessionKind::Header => "header",
    };
    let end = session.absolute_timeout.map_or_else(String::new, |end| format!(", {end:?} at most"));
    format!("{kind} {}{end}", session.name)
}

/// Where a backend's share goes, in words.
fn target(target: &Target) -> String {
    match target {
        Target::Service(service) => format!("{}:{}", service.service, service.port),
        Target::Refuse(status, why) => format!("nobody ({status}: {why})"),
    }
}

/// What is special about how a backend is talked to; empty for plain HTTP/1.1 in turn.
pub(in crate::server::admin) fn settings_in_words(settings: &UpstreamSettings) -> Vec<String> {
    let mut all = Vec::new();
    if settings.protocol == UpstreamProtocol::Http2 {
        all.push("HTTP/2".to_owned());
    }
    if let Some(tls) = &settings.tls {
        let names = tls.names.iter().chain(&tls.uris).map(|name| &**name).collect::<Vec<_>>();
        let names = match &names[..] {
            [] => String::new(),
            names => format!(", certificate for {}", names.join(" or ")),
        };
        let client = tls
            .client
            .as_ref()
            .map_or_else(String::new, |own| format!(", our certificate: Secret {}", own.secret));
        let (name, source) = (&tls.server_name, &tls.authorities.source);
        all.push(format!("TLS as {name}{names}, signed by {source}{client}"));
    }
    if let Some(outlier) = &settings.outlier {
        let (count, time) = (outlier.consecutive, outlier.base_ejection);
        all.push(format!("left out for {time:?} after {count} failures in a row"));
    }
    let breaker = &settings.breaker;
    for (limit, what) in
        [(breaker.max_connections, "connections"), (breaker.max_requests, "requests")]
    {
        if limit > 0 {
            all.push(format!("at most {limit} {what}"));
        }
    }
    if !settings.slow_start.is_zero() {
        all.push(format!("slow start of {:?}", settings.slow_start));
    }
    if settings.send_proxy_protocol.is_some() {
        all.push("PROXY protocol".to_owned());
    }
    if settings.transparent {
        all.push("the client's address as source".to_owned());
    }
    all
}

const fn balance_in_words(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round robin",
        Balance::LeastRequest => "fewest requests in flight",
        Balance::Random => "at random",
        Balance::SourceAddress => "by the client's address",
    }
}

/// What all backends together come to.
#[derive(Default)]
struct Sum {
    usable: usize,
    /// A share is answered here, and why.
    refused: Option<(u16, String)>,
    /// A share meets a Service without endpoints.
    empty: bool,
    balance: Balance,
}

fn explain_backends(steps: &mut Steps, state: &State, backends: &[Backend]) -> Outcome {
    let total: u32 = backends.iter().map(|backend| backend.weight).sum();
    let mut sum = Sum::default();
    for backend in backends.iter().filter(|backend| backend.weight > 0) {
        explain_backend(steps, state, backend, total, &mut sum);
    }
    let Sum { usable, refused, empty, balance } = sum;
    if usable == 0 {
        return match refused.filter(|_| !empty) {
            Some((status, why)) => Outcome::failed(Some(status), &format!("{status}: {why}")),
            None => Outcome::failed(Some(503), "503: no healthy upstream"),
        };
    }
    let text = if let Some((status, why)) = refused {
        format!("forwarded; a share of the requests gets {status}: {why}")
    } else if empty {
        "forwarded; a share of the requests meets a Service without endpoints and gets 503"
            .to_owned()
    } else {
        let s = if usable == 1 { "" } else { "s" };
        format!("forwarded, {} over {usable} endpoint{s}", balance_in_words(balance))
    };
    Outcome { served: true, status: None, text }
}

fn explain_backend(steps: &mut Steps, state: &State, backend: &Backend, total: u32, sum: &mut Sum) {
    let service = match &backend.target {
        Target::Service(service) => service,
        Target::Refuse(status, why) => {
            let share = format!("{} of {total} gets {status}", backend.weight);
            sum.refused = Some((*status, why.clone()));
            steps.add("backend", &share, why);
            return;
        }
    };
    let share = format!("{}:{} gets {} of {total}", service.service, service.port, backend.weight);
    let settings = settings_in_words(&backend.settings);
    if !settings.is_empty() {
        steps.say(
            "upstream",
            &format!("{}:{}: {}", service.service, service.port, settings.join("; ")),
        );
    }
    if let Some(filters) = &backend.filters {
        for text in filters_in_words(filters, None) {
            steps.add("filter", &text, &format!("only for {}:{}", service.service, service.port));
        }
    }
    let known = state.endpoints.by_port.contains_key(service);
    let endpoints = state.endpoints_of(service);
    let any_ready = endpoints.iter().any(|it| it.ready && !it.terminating);
    let is_chosen =
        |it: &&Endpoint| if any_ready { it.ready && !it.terminating } else { it.terminating };
    let count = endpoints.iter().filter(is_chosen).count();
    sum.empty |= count == 0;
    sum.usable += count;
    sum.balance = backend.settings.balance;
    if endpoints.is_empty() {
        let why =
            if known { "the Service has no endpoints" } else { "there is no such Service port" };
        steps.add("backend", &share, why);
    }
    for endpoint in endpoints {
        let place = match (&endpoint.pod, &endpoint.node) {
            (Some(pod), Some(node)) => format!(" (Pod {pod} on {node})"),
            (Some(pod), None) => format!(" (Pod {pod})"),
            (None, Some(node)) => format!(" (on {node})"),
            (None, None) => String::new(),
        };
        let result = format!("{} {}{place}", endpoint.address, endpoint_state(endpoint));
        steps.add("backend", &result, &share);
    }
}
