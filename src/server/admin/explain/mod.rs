//! `/v1/explain`: what would happen to a request, step by step, and why.
//!
//! It asks the same tables as the proxy, by the same functions, so it cannot tell another story.
//! Shape: `{"apiVersion", "kind": "Explanation", "request", "steps": [{"step", "result", "why"?}],
//! "outcome": {"served": bool, "status"?, "text"}}`. Steps in order: `source`, `address`, `holder`,
//! `listener`, `certificate`, `client` (whose certificates clients must show), `host`, `tried` (one for each rule that was tried and has lost), `route`, `rule`,
//! `filter` (in the order in which they are applied), `timeout`, `retry`, `session`, `upstream` (what is special about
//! a backend), `backend` (one for each endpoint).
mod certificate;
mod forward;
mod gateway;
mod question;
mod rules;

use std::net::IpAddr;
use std::sync::Arc;

use super::API_VERSION;
use super::list::{listener_protocol, role};
use super::moment::{Moment, rfc3339};
use super::state::State;
use crate::api::address::Network;
use crate::api::announce::Role;
use crate::api::datapath::Transport;
use crate::api::meta::Kind;
use crate::api::problem::Severity;
use crate::api::route::{Action, Listener, ListenerProtocol, TlsAction, VirtualHost};
use crate::arrange::Arrange;
use crate::proto::http1::walk;
use crate::proto::value::Value;
use certificate::Tls;
pub(super) use forward::{
    filters_in_words, redirect_in_words, retry_in_words, session_in_words, settings_in_words,
};
pub(super) use question::Question;
use question::{Asked, Scheme, Url};
pub(super) use rules::conditions_in_words;

/// How many objects that are not in effect are named.
const LEFT_OUT_SHOWN: usize = 3;

struct Steps(Vec<Value>);

struct Outcome {
    served: bool,
    status: Option<u16>,
    text: String,
}

/// A request on its way.
struct Trip<'a> {
    state: &'a State,
    moment: Moment,
    url: &'a Url<'a>,
    /// Lower-case.
    host: &'a str,
    asked: &'a Asked<'a>,
    /// Who asks, if that was given by address.
    from: Option<IpAddr>,
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
    let (asked, host) = Asked::new(question, &url)?;
    let mut steps = Steps(Vec::new());
    explain_source(&mut steps, state, question)?;
    let from = question.from.and_then(|from| from.parse().ok());
    let trip = Trip { state, moment, url: &url, host: &host, asked: &asked, from };
    let outcome = trip.follow(&mut steps);
    let request = Value::map()
        .with("method", question.method)
        .with("scheme", url.scheme.as_str())
        .with("host", host)
        .with("port", url.port.0)
        .with("path", url.path)
        .with_some("query", url.query);
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

fn explain_source(steps: &mut Steps, state: &State, question: &Question<'_>) -> Result<(), String> {
    let Some(from) = question.from else { return Ok(()) };
    let why = "no policy is in effect: every source is treated alike";
    if let Ok(peer) = from.parse::<IpAddr>() {
        match believed(&state.config.trusted_proxies, peer, &question.headers) {
            Some(why) => steps.add("source", from, &why),
            None => steps.add("source", from, why),
        }
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

/// What the peer's word about its client is worth, if that depends on who it is.
fn believed(networks: &[Network], peer: IpAddr, headers: &[&str]) -> Option<String> {
    let of_peer = networks.iter().find(|network| network.contains(peer));
    let Some(network) = of_peer else {
        let text = "it is none of proxy.trusted-proxies: what it says of its client (X-Forwarded-* and the like) is dropped";
        return (!networks.is_empty()).then(|| text.to_owned());
    };
    let lines = headers.iter().rev().filter_map(|header| header.split_once(':'));
    let lines = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case("x-forwarded-for"));
    let client = walk(lines.map(|(_, value)| value.trim().as_bytes()), peer, networks).client;
    Some(format!(
        "one of proxy.trusted-proxies ({network}), whose word counts: the client is {client}"
    ))
}

/// 3: the very name; 2: a wildcard; 1: whatever it is called; 0: not at all.
fn specificity(listener: &Listener, host: &str) -> u8 {
    let hosts = &listener.hosts;
    let tls = &listener.tls;
    if hosts.exact.contains_key(host) || tls.exact.contains_key(host) {
        return 3;
    }
    let any =
        |found: &Arc<VirtualHost>| hosts.any.as_ref().is_some_and(|any| Arc::ptr_eq(any, found));
    let by_default = |found: &TlsAction| {
        tls.default.as_ref().is_some_and(|default| std::ptr::eq(default, found))
    };
    let in_hosts = hosts.find(host).map(any);
    let in_names = tls.find(Some(host)).map(by_default);
    match (in_hosts, in_names) {
        (Some(false), _) | (_, Some(false)) => 2,
        (Some(true), _) | (_, Some(true)) => 1,
        (None, None) => u8::from(listener.forward.is_some()),
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

/// The Ingresses and routes that are not in effect because they are wrong.
fn left_out(state: &State) -> Vec<String> {
    let objects = &state.view.objects;
    let problems = state.view.problems.iter().map(|(_, problem)| problem);
    let broken = problems.filter(|problem| problem.severity == Severity::Error);
    let keys = broken.filter_map(|problem| problem.object.as_ref());
    let mut names: Vec<String> = keys
        .filter_map(|key| match key.kind {
            Kind::Ingress if !objects.ingresses.contains_key(&key.name) => {
                Some(key.name.to_string())
            }
            Kind::HttpRoute if !objects.http_routes.contains_key(&key.name) => {
                Some(key.to_string())
            }
            Kind::GrpcRoute if !objects.grpc_routes.contains_key(&key.name) => {
                Some(key.to_string())
            }
            Kind::Gateway if !objects.gateways.contains_key(&key.name) => Some(key.to_string()),
            _ => None,
        })
        .collect();
    names.dedup();
    names.truncate(LEFT_OUT_SHOWN);
    names
}

// === impl Trip ===

impl Trip<'_> {
    fn follow(&self, steps: &mut Steps) -> Outcome {
        let (address, listener) = match self.find_listener(steps) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        if let Some(address) = address
            && let Some(outcome) = explain_holder(steps, self.state, self.moment, address)
        {
            return outcome;
        }
        let protocol = listener_protocol(listener.protocol);
        let result = format!("{protocol} port {} of Service {}", listener.port, listener.service);
        let scheme = self.url.scheme;
        if let Some(wrong) = wrong_scheme(listener.protocol, scheme) {
            let why = format!("the URL says {}", scheme.as_str());
            steps.add("listener", &result, &why);
            return Outcome::failed(None, wrong);
        }
        let name = if scheme.is_tls() { self.url.host } else { self.host };
        let owner = gateway::owner(self.state, &listener, &name.to_ascii_lowercase());
        match &owner {
            Some(owner) => steps.add("listener", &result, owner),
            None => steps.say("listener", &result),
        }
        let trusted = &self.state.config.trusted_proxies;
        if listener.accept_proxy_protocol
            && !trusted.is_empty()
            && self.from.is_some_and(|from| !trusted.iter().any(|it| it.contains(from)))
        {
            let text = "the connection is closed: this port takes PROXY protocol, and only from proxy.trusted-proxies";
            return Outcome::failed(None, text);
        }
        match listener.protocol {
            ListenerProtocol::Tcp | ListenerProtocol::Udp => self.explain_forward(steps, &listener),
            ListenerProtocol::Http => self.explain_host(steps, &listener, None),
            ListenerProtocol::Tls => self.explain_tls(steps, &listener),
        }
    }

    fn explain_forward(&self, steps: &mut Steps, listener: &Listener) -> Outcome {
        match &listener.forward {
            Some(route) => self.explain_bytes(steps, route),
            None if listener.protocol == ListenerProtocol::Udp => {
                Outcome::failed(None, "no route is attached: datagrams are dropped")
            }
            None => Outcome::failed(None, "no route is attached: connections are closed"),
        }
    }

    /// Bytes have no status codes.
    fn explain_bytes(&self, steps: &mut Steps, route: &crate::api::route::Route) -> Outcome {
        let outcome = forward::explain(steps, self.state, route, None);
        if outcome.served {
            return outcome;
        }
        let why = match &route.action {
            Action::Refuse(_, why) => why.as_str(),
            _ => outcome.text.split_once(": ").map_or(&*outcome.text, |(_, why)| why),
        };
        let what = if self.url.scheme == Scheme::Udp { "dropped" } else { "refused" };
        Outcome::failed(None, &format!("{what}: {why}"))
    }

    fn explain_tls(&self, steps: &mut Steps, listener: &Listener) -> Outcome {
        let name = self.url.host.parse::<IpAddr>().is_err().then_some(self.url.host);
        let name = name.map(str::to_ascii_lowercase);
        match certificate::explain(steps, self.moment, listener, name.as_deref()) {
            Tls::Refused(why) => {
                Outcome::failed(None, &format!("the TLS handshake is refused: {why}"))
            }
            Tls::Bytes(route) => self.explain_bytes(steps, &route),
            Tls::Http(_) if self.url.scheme == Scheme::Tls => {
                Outcome { served: true, status: None, text: "HTTP is spoken within TLS".to_owned() }
            }
            Tls::Http(scope) => self.explain_host(steps, listener, Some(scope)),
        }
    }

    /// `scope`: what the SNI name has chosen.
    fn explain_host(&self, steps: &mut Steps, listener: &Listener, scope: Option<u32>) -> Outcome {
        let host = self.host;
        let Some(found) = listener.hosts.find(host) else {
            steps.add("host", "none", &format!("no rule for {host} and none for every host"));
            let left_out = left_out(self.state);
            let is_gateway = gateway::of(self.state, listener).is_some();
            let kind = if is_gateway { "route" } else { "Ingress rule" };
            let text = if left_out.is_empty() {
                format!("404: no {kind} has this host{}", self.asked.grpc_note())
            } else {
                format!(
                    "404: no {kind} in effect has this host; left out, see `pilus status`: {}",
                    left_out.join(", ")
                )
            };
            return Outcome::failed(Some(404), &text);
        };
        steps.add("host", if found.name.is_empty() { "*" } else { &found.name }, {
            if listener.hosts.exact.contains_key(host) {
                "the very name; it wins over wildcards and *"
            } else if listener.hosts.any.as_ref().is_some_and(|any| Arc::ptr_eq(any, found)) {
                "no rule names this host: rules without a host apply"
            } else if is_suffix(listener, host) {
                "the wildcard matches, the longest of them; it wins over *"
            } else {
                "the wildcard matches one label; it wins over *"
            }
        });
        if scope.is_some_and(|scope| scope != found.scope) {
            let other = gateway::owner(self.state, listener, host)
                .unwrap_or_else(|| "another listener of this port".to_owned());
            let text = format!(
                "421 Misdirected Request: the TLS name {} leads to another listener than the host {host}, which \
                 belongs to {other}",
                self.url.host
            );
            return Outcome::failed(Some(421), &text);
        }
        match rules::explain(steps, found, self.url.path, self.asked) {
            Ok((matched, route)) => forward::explain(steps, self.state, route, matched),
            Err(outcome) => outcome,
        }
    }

    /// The address that is asked, and the listener there.
    fn find_listener(&self, steps: &mut Steps) -> Result<(Option<IpAddr>, Arc<Listener>), Outcome> {
        if self.state.config.no_bpf {
            return self.find_on_node(steps).map(|listener| (None, listener));
        }
        let Url { scheme, host, port, .. } = *self.url;
        let table = &self.state.listeners;
        if let Ok(address) = host.parse::<IpAddr>() {
            if let Some(listener) = table.by_address.get(&(address, port, scheme.transport())) {
                steps.add("address", &address.to_string(), "it stands in the URL");
                return Ok((Some(address), Arc::clone(listener)));
            }
            let ours = table.by_address.keys().any(|(ip, ..)| *ip == address);
            let why = if ours { "nothing listens on this port of it" } else { "no Service has it" };
            steps.add("address", &address.to_string(), why);
            let udp = if scheme.transport() == Transport::Udp { " over UDP" } else { "" };
            let text = format!("nobody here serves {address} port {port}{udp}");
            return Err(Outcome::failed(None, &text));
        }
        self.find_by_name(steps)
    }

    /// The address that a name should have: that of the listener which knows it best.
    fn find_by_name(&self, steps: &mut Steps) -> Result<(Option<IpAddr>, Arc<Listener>), Outcome> {
        let Url { scheme, port, .. } = *self.url;
        let table = &self.state.listeners;
        let name = self.name();
        let mut candidates: Vec<(IpAddr, &Arc<Listener>)> = table
            .by_address
            .iter()
            .filter(|((_, at, _), listener)| *at == port && scheme.fits(listener.protocol))
            .map(|((address, ..), listener)| (*address, listener))
            .collect();
        candidates.arrange_by_key(|(address, listener)| {
            (std::cmp::Reverse(specificity(listener, &name)), *address)
        });
        if let Some((address, listener)) = candidates.first() {
            let others = candidates.len() - 1;
            let why = format!(
                "it knows {name} best of {} on port {port}; the name must resolve to it",
                if others == 0 { "all".to_owned() } else { format!("{} addresses", others + 1) },
            );
            steps.add("address", &address.to_string(), &why);
            return Ok((Some(*address), Arc::clone(listener)));
        }
        let listeners = self.state.all_listeners();
        let without_address = listeners
            .iter()
            .find(|listener| listener.port == port && scheme.fits(listener.protocol));
        match without_address {
            Some(listener) => {
                let why = format!("Service {} has no address yet", listener.service);
                steps.add("address", "none", &why);
                let text = format!("{why}: see `pilus get svc` and `pilus status`");
                Err(Outcome::failed(None, &text))
            }
            None => Err(self.nothing_listens(steps)),
        }
    }

    fn nothing_listens(&self, steps: &mut Steps) -> Outcome {
        steps.add("address", "none", &format!("no listener has port {}", self.url.port));
        Outcome::failed(None, "nothing is served on this port")
    }

    /// The name by which a listener is chosen: what a client would look up.
    fn name(&self) -> String {
        let name = if self.url.scheme.is_tls() { self.url.host } else { self.host };
        name.to_ascii_lowercase()
    }

    /// The listener on an ordinary socket of this node. The port may be the node's or the virtual one.
    fn find_on_node(&self, steps: &mut Steps) -> Result<Arc<Listener>, Outcome> {
        let Url { scheme, port, .. } = *self.url;
        let fits = |listener: &&Arc<Listener>| {
            (listener.port == port || listener.host_port == Some(port))
                && scheme.fits(listener.protocol)
        };
        let listeners = self.state.all_listeners();
        let name = self.name();
        let best =
            listeners.iter().filter(fits).max_by_key(|listener| specificity(listener, &name));
        let Some(listener) = best else { return Err(self.nothing_listens(steps)) };
        let port = listener.host_port.unwrap_or(listener.port);
        let result = format!("every address of this node, port {port}");
        steps.add("address", &result, "--no-bpf: ordinary sockets, nothing is announced");
        Ok(Arc::clone(listener))
    }
}

/// Why a client that speaks this does not get along with the listener.
const fn wrong_scheme(protocol: ListenerProtocol, scheme: Scheme) -> Option<&'static str> {
    match (protocol, scheme) {
        (ListenerProtocol::Http, Scheme::Https | Scheme::Tls) => {
            Some("this port speaks plain HTTP: the TLS handshake fails")
        }
        (ListenerProtocol::Tls, Scheme::Http) => {
            Some("this port speaks TLS: plain HTTP is not understood")
        }
        (ListenerProtocol::Http, Scheme::Tcp) => Some("this port speaks HTTP: ask with http://"),
        (ListenerProtocol::Tls, Scheme::Tcp) => Some("this port speaks TLS: ask with tls://"),
        _ => None,
    }
}

/// Whether a wildcard of Gateway API, which matches any number of labels, has this host.
fn is_suffix(listener: &Listener, host: &str) -> bool {
    let parent = host.split_once('.').map_or("", |(_, parent)| parent);
    !listener.hosts.wildcard.contains_key(parent)
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
