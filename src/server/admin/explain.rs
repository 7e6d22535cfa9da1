//! `/v1/explain`: what would happen to a request, step by step, and why.
//!
//! It asks the same tables as the proxy, by the same functions, so it cannot tell another story.
//! Shape: `{"apiVersion", "kind": "Explanation", "request", "steps": [{"step", "result", "why"?}],
//! "outcome": {"served": bool, "status"?, "text"}}`. Steps in order: `source`, `address`, `holder`,
//! `listener`, `certificate`, `host`, `route`, `backend` (one for each endpoint).
use std::net::IpAddr;
use std::rc::Rc;

use super::API_VERSION;
use super::list::{endpoint_state, listener_protocol, paths, role};
use super::moment::{Moment, rfc3339};
use super::state::State;
use crate::api::address::Port;
use crate::api::announce::Role;
use crate::api::datapath::Transport;
use crate::api::meta::Kind;
use crate::api::problem::Severity;
use crate::api::route::{
    Action, Backend, Listener, ListenerProtocol, Request, Route, Target, TlsAction, VirtualHost,
};
use crate::proto::value::Value;

/// How many routes that also match, but lose, are named.
const LOSERS_NAMED: usize = 3;

/// How many Ingresses that are not in effect are named.
const LEFT_OUT_SHOWN: usize = 3;

/// What is asked.
pub(super) struct Question<'a> {
    /// `http://host[:port]/path` or `https://…`
    pub(super) url: &'a str,
    /// The method; it decides nothing in an Ingress.
    pub(super) method: &'a str,
    /// `name: value`; `Host` stands for the URL's host.
    pub(super) headers: Vec<&'a str>,
    /// An address or `namespace/pod`.
    pub(super) from: Option<&'a str>,
}

struct Url<'a> {
    tls: bool,
    host: &'a str,
    port: Port,
    path: &'a str,
}

struct Steps(Vec<Value>);

struct Outcome {
    served: bool,
    status: Option<u16>,
    text: String,
}

/// Explains one request.
///
/// # Errors
/// A sentence, if the question itself makes no sense.
pub(super) fn explain(
    state: &State,
    moment: Moment,
    question: &Question<'_>,
) -> Result<Value, String> {
    let url = Url::parse(question.url)?;
    let host = host_of(question, &url)?;
    let mut steps = Steps(Vec::new());
    explain_source(&mut steps, state, question.from)?;
    let outcome = follow(&mut steps, state, moment, &url, &host);
    let request = Value::map()
        .with("method", question.method)
        .with("scheme", if url.tls { "https" } else { "http" })
        .with("host", host)
        .with("port", url.port.0)
        .with("path", url.path);
    let result = Value::map()
        .with("served", outcome.served)
        .with_some("status", outcome.status)
        .with("text", outcome.text);
    Ok(Value::map()
        .with("apiVersion", API_VERSION)
        .with("kind", "Explanation")
        .with("node", &*state.config.node)
        .with("request", request)
        .with("steps", steps.0)
        .with("outcome", result))
}

fn host_of(question: &Question<'_>, url: &Url<'_>) -> Result<String, String> {
    let mut host = url.host;
    for header in &question.headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| format!("the header {header:?} has no colon: write 'name: value'"))?;
        if name.trim().eq_ignore_ascii_case("host") {
            host = strip_port(value.trim());
        }
    }
    Ok(host.to_ascii_lowercase())
}

fn explain_source(steps: &mut Steps, state: &State, from: Option<&str>) -> Result<(), String> {
    let Some(from) = from else { return Ok(()) };
    let why = "no policy is in effect: every source is treated alike";
    if from.parse::<IpAddr>().is_ok() {
        steps.add("source", from, why);
        return Ok(());
    }
    let Some((namespace, name)) = from.split_once('/') else {
        return Err(format!("--from {from:?} is neither an IP address nor NAMESPACE/POD"));
    };
    let key = crate::api::meta::NamespacedName::new(namespace, name);
    let Some(pod) = state.view.objects.pods.get(&key) else {
        return Err(format!("--from: there is no Pod {name:?} in namespace {namespace:?}"));
    };
    let ip = pod.ips.first().map_or_else(|| "no address".to_owned(), ToString::to_string);
    steps.add("source", &format!("Pod {from} ({ip})"), why);
    Ok(())
}

fn follow(steps: &mut Steps, state: &State, moment: Moment, url: &Url<'_>, host: &str) -> Outcome {
    let (address, listener) = match find_listener(steps, state, url, host) {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    if let Some(address) = address
        && let Some(outcome) = explain_holder(steps, state, moment, address)
    {
        return outcome;
    }
    let protocol = listener_protocol(listener.protocol);
    let result = format!("{protocol} port {} of Service {}", listener.port, listener.service);
    match (listener.protocol, url.tls) {
        (ListenerProtocol::Http, true) => {
            steps.add("listener", &result, "the URL says https");
            return Outcome::failed(None, "this port speaks plain HTTP: the TLS handshake fails");
        }
        (ListenerProtocol::Tls, false) => {
            steps.add("listener", &result, "the URL says http");
            return Outcome::failed(None, "this port speaks TLS: plain HTTP is not understood");
        }
        _ => steps.say("listener", &result),
    }
    if url.tls {
        let name = url.host.parse::<IpAddr>().is_err().then_some(url.host);
        match explain_tls(steps, moment, &listener, name.map(str::to_ascii_lowercase).as_deref()) {
            Tls::Refused => {
                return Outcome::failed(
                    None,
                    "the TLS handshake is refused: no certificate for this name",
                );
            }
            Tls::Passthrough(route) => return explain_route(steps, state, &route),
            Tls::Terminated => {}
        }
    }
    explain_host(steps, state, &listener, host, url.path)
}

/// The address that is asked, and the listener there.
fn find_listener(
    steps: &mut Steps,
    state: &State,
    url: &Url<'_>,
    host: &str,
) -> Result<(Option<IpAddr>, Rc<Listener>), Outcome> {
    if state.config.no_bpf {
        return find_on_node(steps, state, url, host).map(|listener| (None, listener));
    }
    let table = &state.listeners;
    if let Ok(address) = url.host.parse::<IpAddr>() {
        if let Some(listener) = table.by_address.get(&(address, url.port, Transport::Tcp)) {
            steps.add("address", &address.to_string(), "it stands in the URL");
            return Ok((Some(address), Rc::clone(listener)));
        }
        let ours = table.by_address.keys().any(|(ip, ..)| *ip == address);
        let why = if ours { "nothing listens on this port of it" } else { "no Service has it" };
        steps.add("address", &address.to_string(), why);
        let text = format!("nobody here serves {address} port {}", url.port);
        return Err(Outcome::failed(None, &text));
    }
    let mut candidates: Vec<(IpAddr, &Rc<Listener>)> = table
        .by_address
        .iter()
        .filter(|((_, port, _), listener)| {
            *port == url.port && (listener.protocol == ListenerProtocol::Tls) == url.tls
        })
        .map(|((address, ..), listener)| (*address, listener))
        .collect();
    candidates.sort_by_key(|(address, listener)| {
        (std::cmp::Reverse(specificity(listener, host)), *address)
    });
    if let Some((address, listener)) = candidates.first() {
        let others = candidates.len() - 1;
        let why = format!(
            "it knows {host} best of {} on port {}; the name must resolve to it",
            if others == 0 { "all".to_owned() } else { format!("{} addresses", others + 1) },
            url.port
        );
        steps.add("address", &address.to_string(), &why);
        return Ok((Some(*address), Rc::clone(listener)));
    }
    let without_address = state.all_listeners().into_iter().find(|listener| {
        listener.port == url.port && (listener.protocol == ListenerProtocol::Tls) == url.tls
    });
    match without_address {
        Some(listener) => {
            let why = format!("Service {} has no address yet", listener.service);
            steps.add("address", "none", &why);
            Err(Outcome::failed(None, &format!("{why}: see `pilus get svc` and `pilus status`")))
        }
        None => {
            steps.add("address", "none", &format!("no listener has port {}", url.port));
            Err(Outcome::failed(None, "nothing is served on this port"))
        }
    }
}

/// The listener on an ordinary socket of this node. The port may be the node's or the virtual one.
fn find_on_node(
    steps: &mut Steps,
    state: &State,
    url: &Url<'_>,
    host: &str,
) -> Result<Rc<Listener>, Outcome> {
    let fits = |listener: &&Rc<Listener>| {
        (listener.port == url.port || listener.host_port == Some(url.port))
            && (listener.protocol == ListenerProtocol::Tls) == url.tls
    };
    let listeners = state.all_listeners();
    let best = listeners.iter().filter(fits).max_by_key(|listener| specificity(listener, host));
    let Some(listener) = best else {
        steps.add("address", "none", &format!("no listener has port {}", url.port));
        return Err(Outcome::failed(None, "nothing is served on this port"));
    };
    let port = listener.host_port.unwrap_or(listener.port);
    let result = format!("every address of this node, port {port}");
    steps.add("address", &result, "--no-bpf: ordinary sockets, nothing is announced");
    Ok(Rc::clone(listener))
}

/// 2: the host by name or wildcard; 1: by `*` only; 0: not at all.
fn specificity(listener: &Listener, host: &str) -> u8 {
    match listener.hosts.find(host) {
        None => 0,
        Some(found) if listener.hosts.any.as_ref().is_some_and(|any| Rc::ptr_eq(any, found)) => 1,
        Some(_) => 2,
    }
}

fn explain_holder(
    steps: &mut Steps,
    state: &State,
    moment: Moment,
    address: IpAddr,
) -> Option<Outcome> {
    let Some(entry) = state.announcement(address) else {
        let why = "no CiliumL2AnnouncementPolicy selects it on this node";
        steps.add("holder", "not announced by this node", why);
        return None;
    };
    let since = rfc3339(moment.unix_of(entry.since));
    let holder = entry.holder.as_deref().unwrap_or("nobody");
    let result =
        format!("{holder} on {} (this node: {}, since {since})", entry.interface, role(entry.role));
    steps.add("holder", &result, &entry.why);
    (entry.role == Role::Conflict).then(|| {
        Outcome::failed(None, "somebody else on the LAN uses this address: nobody of us answers")
    })
}

enum Tls {
    Terminated,
    Passthrough(Rc<Route>),
    Refused,
}

fn explain_tls(steps: &mut Steps, moment: Moment, listener: &Listener, name: Option<&str>) -> Tls {
    let Some(action) = listener.tls.find(name) else {
        let why = format!("no entry for SNI {} and no default", name.unwrap_or("(none)"));
        steps.add("certificate", "none", &why);
        return Tls::Refused;
    };
    let exact = name.is_some_and(|name| listener.tls.exact.contains_key(name));
    let parent = name.and_then(|name| name.split_once('.')).map(|(_, parent)| parent);
    let wildcard = parent.filter(|parent| listener.tls.wildcard.contains_key(*parent));
    let why = match (exact, wildcard) {
        (true, _) => "SNI is the very name".to_owned(),
        (false, Some(parent)) => format!("SNI matches *.{parent}"),
        (false, None) => "default: SNI names nothing else".to_owned(),
    };
    match action {
        TlsAction::Terminate(termination) => {
            let Some(certificate) = termination.certificates.first() else { return Tls::Refused };
            let expiry = match certificate.not_after {
                Some(end) if end <= moment.unix => format!(", EXPIRED at {}", rfc3339(end)),
                Some(end) => format!(", valid until {}", rfc3339(end)),
                None => String::new(),
            };
            let result = format!("Secret {}{expiry}", certificate.secret);
            steps.add("certificate", &result, &why);
            Tls::Terminated
        }
        TlsAction::Passthrough(route) => {
            steps.add("certificate", "the backend's own: TLS is passed through", &why);
            Tls::Passthrough(Rc::clone(route))
        }
        TlsAction::Refuse(reason) => {
            steps.add("certificate", &format!("handshake refused: {reason}"), &why);
            Tls::Refused
        }
    }
}

/// The Ingresses that are not in effect because they are wrong.
fn left_out(state: &State) -> Vec<String> {
    let problems = state.view.problems.iter().map(|(_, problem)| problem);
    let broken = problems.filter(|problem| problem.severity == Severity::Error);
    let keys = broken.filter_map(|problem| problem.object.as_ref());
    let ingresses = keys.filter(|key| key.kind == Kind::Ingress).map(|key| &key.name);
    let mut names: Vec<String> = ingresses
        .filter(|name| !state.view.objects.ingresses.contains_key(*name))
        .map(ToString::to_string)
        .collect();
    names.dedup();
    names.truncate(LEFT_OUT_SHOWN);
    names
}

fn explain_host(
    steps: &mut Steps,
    state: &State,
    listener: &Listener,
    host: &str,
    path: &str,
) -> Outcome {
    let Some(found) = listener.hosts.find(host) else {
        steps.add("host", "none", &format!("no rule for {host} and none for every host"));
        let left_out = left_out(state);
        let text = if left_out.is_empty() {
            "404: no Ingress rule has this host".to_owned()
        } else {
            format!(
                "404: no Ingress rule in effect has this host; left out, see `pilus status`: {}",
                left_out.join(", ")
            )
        };
        return Outcome::failed(Some(404), &text);
    };
    let why = if listener.hosts.exact.contains_key(host) {
        "the very name; it wins over wildcards and *"
    } else if specificity(listener, host) == 2 {
        "the wildcard matches one label; it wins over *"
    } else {
        "no rule names this host: rules without a host apply"
    };
    steps.add("host", if found.name.is_empty() { "*" } else { &found.name }, why);
    let Some(route) = found.find(path, &Asked) else {
        steps.add("route", "none", &format!("no path of this host matches {path}"));
        return Outcome::failed(Some(404), "404: no path of this host matches");
    };
    let (result, why) = precedence(found, path, route);
    steps.add("route", &result, &why);
    explain_route(steps, state, route)
}

/// A GET without headers.
struct Asked;

impl Request for Asked {
    fn method(&self) -> &str {
        "GET"
    }

    fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }

    fn query(&self, _: &str, _: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
}

/// Which path has won, and which others match as well.
fn precedence(host: &VirtualHost, path: &str, winner: &Rc<Route>) -> (String, String) {
    let matches = |comparison: &str, pattern: &str| match comparison {
        "Exact" => pattern == path,
        "RegularExpression" => host
            .regex
            .iter()
            .any(|(regex, _)| &*regex.pattern == pattern && regex.regex.is_match(path)),
        _ => {
            pattern == "/"
                || path
                    .strip_prefix(pattern)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    };
    let all = paths(host);
    let mut matching = all.iter().filter(|(comparison, pattern, _)| matches(comparison, pattern));
    let won = matching.next().filter(|(_, _, route)| Rc::ptr_eq(route, winner));
    let name = |it: &(&str, String, Rc<Route>)| format!("{} {}", it.0, it.1);
    let losers: Vec<String> = matching.take(LOSERS_NAMED).map(name).collect();
    let order = "Exact before RegularExpression before PathPrefix, the longest first";
    let why = if losers.is_empty() {
        "the only path that matches".to_owned()
    } else {
        format!("wins over {} ({order})", losers.join(", "))
    };
    (won.map_or_else(|| path.to_owned(), name), why)
}

fn explain_route(steps: &mut Steps, state: &State, route: &Route) -> Outcome {
    for (object, field) in &route.origins {
        steps.add("rule", &object.to_string(), field);
    }
    match &route.action {
        Action::Forward(backends) => explain_backends(steps, state, backends),
        Action::RedirectHttps(port) => {
            let text =
                format!("301 to https on port {port}: the host has TLS and force-https is on");
            Outcome { served: true, status: Some(301), text }
        }
        Action::Redirect(redirect) => {
            let text = format!("{} redirect", redirect.status);
            Outcome { served: true, status: Some(redirect.status), text }
        }
        Action::Refuse(status, why) => Outcome::failed(Some(*status), &format!("{status}: {why}")),
    }
}

fn explain_backends(steps: &mut Steps, state: &State, backends: &[Backend]) -> Outcome {
    let total: u32 = backends.iter().map(|backend| backend.weight).sum();
    let mut usable = 0;
    let mut dead_share = false;
    for backend in backends.iter().filter(|backend| backend.weight > 0) {
        let service = match &backend.target {
            Target::Service(service) => service,
            Target::Refuse(status, why) => {
                dead_share = true;
                steps.add("backend", &format!("{status}"), why);
                continue;
            }
        };
        let share =
            format!("{}:{} gets {} of {total}", service.service, service.port, backend.weight);
        let known = state.endpoints.by_port.contains_key(service);
        let endpoints = state.endpoints_of(&service.service, service.port.0);
        let any_ready = endpoints.iter().any(|it| it.ready && !it.terminating);
        let chosen = endpoints
            .iter()
            .filter(|it| if any_ready { it.ready && !it.terminating } else { it.terminating });
        let count = chosen.count();
        usable += count;
        dead_share |= count == 0;
        if endpoints.is_empty() {
            let why = if known {
                "the Service has no endpoints"
            } else {
                "there is no such Service port"
            };
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
    if usable == 0 {
        return Outcome::failed(Some(503), "503: no healthy upstream");
    }
    let text = if dead_share {
        "forwarded; a share of the requests meets a Service without endpoints and gets 503"
            .to_owned()
    } else {
        format!(
            "forwarded, round robin over {usable} endpoint{}",
            if usable == 1 { "" } else { "s" }
        )
    };
    Outcome { served: true, status: None, text }
}

// === impl Steps ===

impl Steps {
    fn add(&mut self, step: &str, result: &str, why: &str) {
        self.0.push(Value::map().with("step", step).with("result", result).with("why", why));
    }

    fn say(&mut self, step: &str, result: &str) {
        self.0.push(Value::map().with("step", step).with("result", result));
    }
}

// === impl Outcome ===

impl Outcome {
    fn failed(status: Option<u16>, text: &str) -> Self {
        Self { served: false, status, text: text.to_owned() }
    }
}

// === impl Url ===

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else {
            return Err(format!("the URL {text:?} must start with http:// or https://"));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
        let bare = strip_port(authority);
        let port = match authority[bare.len()..].trim_start_matches(']').strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0),
            None => Some(if tls { 443 } else { 80 }),
        };
        let host = bare.trim_start_matches('[').trim_end_matches(']');
        let Some(port) = port.map(Port).filter(|_| !host.is_empty() && !host.contains('@')) else {
            return Err(format!("the URL {text:?} has no host, or a port that is none"));
        };
        Ok(Self { tls, host, port, path: if path.is_empty() { "/" } else { path } })
    }
}

/// `[::1]:80` → `[::1]`, `a.b:80` → `a.b`
fn strip_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}
