//! Small builders for the objects of Gateway API, and questions to a route server that has them.
use std::sync::Arc;

use pilus::api::Message;
use pilus::api::address::{Generation, Port};
use pilus::api::config::Config;
use pilus::api::datapath::Transport;
use pilus::api::meta::{Kind, NamespacedName, Str};
use pilus::api::object::gateway::{
    FromNamespaces, Gateway, GatewayClass, GatewayListener, ListenerSet, ListenerTls, ObjectRef,
    ReferenceGrant,
};
use pilus::api::object::gateway_route::{
    BackendRef, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, HttpRoute, HttpRouteMatch, HttpRouteRule,
    L4Route, ParentRef, PathMatcher, RouteFilter, ValueMatcher,
};
use pilus::api::object::{ConfigMap, PortProtocol};
use pilus::api::objects::Objects;
use pilus::api::route::{Action, Backend, Request, Route, Serving, Target, TlsAction};
use pilus::api::status::{Condition, GatewayApiStatus, ObjectStatus, Truth};

use crate::build::*;

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

pub(crate) fn object(group: &str, kind: &str, text: &str) -> ObjectRef {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace.into()), name),
        None => (None, text),
    };
    ObjectRef { group: group.into(), kind: kind.into(), namespace, name: name.into() }
}

/// `pilus`, ours; in generation 3.
pub(crate) fn gateway_class() -> GatewayClass {
    let mut meta = meta("pilus");
    meta.generation = 3;
    GatewayClass { meta, controller: "pilus.dev/gateway-controller".into(), parameters: None }
}

pub(crate) fn gateway(text: &str, listeners: &[GatewayListener]) -> Gateway {
    let mut meta = meta(text);
    meta.generation = 7;
    Gateway {
        meta,
        class: "pilus".into(),
        listeners: listeners.to_vec(),
        allowed_listeners: FromNamespaces::None,
        ..Gateway::default()
    }
}

pub(crate) fn listener_set(
    text: &str,
    created: u64,
    parent: &str,
    listeners: &[GatewayListener],
) -> ListenerSet {
    let mut meta = meta(text);
    meta.created = created;
    meta.generation = 2;
    let parent = object(GROUP, "Gateway", parent);
    ListenerSet { meta, parent, listeners: listeners.to_vec() }
}

/// `NAME PORT PROTOCOL [HOSTNAME]`; routes of all namespaces may attach.
pub(crate) fn on(text: &str) -> GatewayListener {
    let words: Vec<&str> = text.split(' ').collect();
    GatewayListener {
        name: words[0].into(),
        port: words[1].parse().unwrap(),
        protocol: words[2].into(),
        hostname: words.get(3).map(|&name| name.into()),
        tls: None,
        allowed_namespaces: FromNamespaces::All,
        allowed_kinds: vec![],
    }
}

/// The same with a certificate, or passed through if `secret` is empty.
pub(crate) fn with_tls(text: &str, secrets: &[&str]) -> GatewayListener {
    let certificates = secrets.iter().map(|secret| object("", "Secret", secret)).collect();
    let passthrough = secrets.is_empty();
    GatewayListener {
        tls: Some(ListenerTls { passthrough, certificates, ..ListenerTls::default() }),
        ..on(text)
    }
}

/// `[NAMESPACE/]GATEWAY[#SECTION][:PORT]`, or a ListenerSet with `set:` in front.
pub(crate) fn parent(text: &str) -> ParentRef {
    let (kind, text) = match text.strip_prefix("set:") {
        Some(rest) => ("ListenerSet", rest),
        None => ("Gateway", text),
    };
    let (text, port) = match text.split_once(':') {
        Some((text, port)) => (text, Some(port.parse().unwrap())),
        None => (text, None),
    };
    let (text, section) = match text.split_once('#') {
        Some((text, section)) => (text, Some(section.into())),
        None => (text, None),
    };
    ParentRef { object: object(GROUP, kind, text), section, port }
}

/// `[NAMESPACE/]SERVICE:PORT[*WEIGHT]`, or another kind with `KIND.GROUP=` in front.
pub(crate) fn to(text: &str) -> BackendRef {
    let (group, kind, text) = match text.split_once('=') {
        Some((kind, rest)) => {
            let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
            (group, kind, rest)
        }
        None => ("", "Service", text),
    };
    let (text, weight) = match text.split_once('*') {
        Some((text, weight)) => (text, weight.parse().unwrap()),
        None => (text, 1),
    };
    let (text, port) = match text.split_once(':') {
        Some((text, port)) => (text, Some(port.parse().unwrap())),
        None => (text, None),
    };
    BackendRef { object: object(group, kind, text), port, weight, filters: vec![] }
}

/// `P/path`, `E/path` or `R/path`, then any of `m=METHOD`, `h=NAME:VALUE` and `q=NAME:VALUE`.
pub(crate) fn matching(text: &str) -> HttpRouteMatch {
    let mut words = text.split(' ');
    let path = words.next().unwrap();
    let (kind, path) = path.split_at(1);
    let path: Str = path.into();
    let mut wanted = HttpRouteMatch {
        path: match kind {
            "E" => PathMatcher::Exact(path),
            "P" => PathMatcher::Prefix(path),
            _ => PathMatcher::Regex(path),
        },
        headers: vec![],
        query: vec![],
        method: None,
    };
    for word in words {
        let (what, value) = word.split_once('=').unwrap();
        let pair = || {
            let (name, value) = value.split_once(':').unwrap();
            ValueMatcher { name: name.into(), value: value.into(), regex: false }
        };
        match what {
            "m" => wanted.method = Some(value.into()),
            "h" => wanted.headers.push(pair()),
            _ => wanted.query.push(pair()),
        }
    }
    wanted
}

pub(crate) fn http(text: &str, parents: &[&str]) -> HttpRoute {
    let mut meta = meta(text);
    meta.generation = 5;
    HttpRoute {
        meta,
        parents: parents.iter().map(|it| parent(it)).collect(),
        ..HttpRoute::default()
    }
}

pub(crate) fn grpc(text: &str, parents: &[&str]) -> GrpcRoute {
    let parents = parents.iter().map(|it| parent(it)).collect();
    GrpcRoute { meta: meta(text), parents, ..GrpcRoute::default() }
}

pub(crate) fn l4(text: &str, parents: &[&str], hostnames: &[&str], backends: &[&str]) -> L4Route {
    L4Route {
        meta: meta(text),
        parents: parents.iter().map(|it| parent(it)).collect(),
        hostnames: hostnames.iter().map(|&name| name.into()).collect(),
        backends: backends.iter().map(|it| to(it)).collect(),
        ..L4Route::default()
    }
}

/// Chains for routes.
pub(crate) trait RouteBuild: Sized {
    fn created(self, at: u64) -> Self;
    fn hosts(self, hostnames: &[&str]) -> Self;
}

impl RouteBuild for HttpRoute {
    fn created(mut self, at: u64) -> Self {
        self.meta.created = at;
        self
    }
    fn hosts(mut self, hostnames: &[&str]) -> Self {
        self.hostnames = hostnames.iter().map(|&name| name.into()).collect();
        self
    }
}

impl RouteBuild for GrpcRoute {
    fn created(mut self, at: u64) -> Self {
        self.meta.created = at;
        self
    }
    fn hosts(mut self, hostnames: &[&str]) -> Self {
        self.hostnames = hostnames.iter().map(|&name| name.into()).collect();
        self
    }
}

pub(crate) trait HttpBuild: Sized {
    fn rule(self, matches: &[&str], backends: &[&str]) -> Self;
    fn filtered(self, matches: &[&str], filters: &[RouteFilter], backends: &[&str]) -> Self;
}

impl HttpBuild for HttpRoute {
    fn rule(self, matches: &[&str], backends: &[&str]) -> Self {
        self.filtered(matches, &[], backends)
    }
    fn filtered(mut self, matches: &[&str], filters: &[RouteFilter], backends: &[&str]) -> Self {
        self.rules.push(HttpRouteRule {
            matches: matches.iter().map(|it| matching(it)).collect(),
            filters: filters.to_vec(),
            backends: backends.iter().map(|it| to(it)).collect(),
            ..HttpRouteRule::default()
        });
        self
    }
}

/// A rule for `SERVICE/METHOD`, of which each may be missing, with headers `h=NAME:VALUE`.
pub(crate) fn grpc_rule(matches: &[&str], backends: &[&str]) -> GrpcRouteRule {
    let matches = matches.iter().map(|text| {
        let mut words = text.split(' ');
        let (service, method) = words.next().unwrap().split_once('/').unwrap();
        let part = |text: &str| (!text.is_empty()).then(|| text.into());
        let headers = words.map(|word| {
            let (name, value) = word[2..].split_once(':').unwrap();
            ValueMatcher { name: name.into(), value: value.into(), regex: false }
        });
        GrpcRouteMatch {
            service: part(service),
            method: part(method),
            regex: false,
            headers: headers.collect(),
        }
    });
    GrpcRouteRule {
        matches: matches.collect(),
        backends: backends.iter().map(|it| to(it)).collect(),
        ..GrpcRouteRule::default()
    }
}

/// From `NAMESPACE KIND` to `KIND [NAME]` in `namespace`.
pub(crate) fn grant(namespace: &str, from: &str, to: &str) -> ReferenceGrant {
    let (from_namespace, from_kind) = from.split_once(' ').unwrap();
    let (to_kind, to_name) = match to.split_once(' ') {
        Some((kind, name)) => (kind, Some(name.into())),
        None => (to, None),
    };
    ReferenceGrant {
        meta: meta(&format!("{namespace}/grant")),
        from: vec![(GROUP.into(), from_kind.into(), from_namespace.into())],
        to: vec![("".into(), to_kind.into(), to_name)],
    }
}

pub(crate) fn authorities(text: &str, pem: &str) -> ConfigMap {
    ConfigMap { meta: meta(text), data: labels(&[("ca.crt", pem)]) }
}

/// The Services `infra/{a,b,c}` and `other/a` with TCP port 80 "http" and UDP port 53, and the class.
pub(crate) fn cluster() -> Objects {
    let mut objects = Objects::default();
    put(&mut objects.gateway_classes, gateway_class());
    for text in ["infra/a", "infra/b", "infra/c", "other/a"] {
        let mut service = service(text, &[("http", 80), ("dns", 53)]);
        service.ports[1].protocol = PortProtocol::Udp;
        put(&mut objects.services, service);
    }
    objects
}

/// A request to be asked about.
#[derive(Default)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) query: &'a [(&'a str, &'a str)],
}

impl Request for Ask<'_> {
    fn method(&self) -> &str {
        if self.method.is_empty() { "GET" } else { self.method }
    }
    fn header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(known, value)| *known == name && test(value.as_bytes()))
    }
    fn query(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.query.iter().any(|(known, value)| *known == name && test(value))
    }
}

pub(crate) fn config() -> Config {
    Config::default()
}

impl Router {
    /// The state after `objects`, all of it acknowledged by the data path, with 10.0.0.1 for `infra/gw`.
    pub(crate) fn gateway(objects: Objects) -> Self {
        let mut router = Self::new(config());
        router.objects(objects);
        router.assign("infra/pilus-gateway-gw", &["10.0.0.1"]);
        router.acknowledge();
        router
    }

    pub(crate) fn acknowledge(&mut self) {
        let serving = Serving { routes: self.table.generation, failed: vec![] };
        self.send(Message::Serving(Arc::new(serving)));
    }

    /// The data path has taken over this table, and does not serve these TCP ports of `infra/gw`.
    pub(crate) fn serving(&mut self, routes: u64, failed: &[u16]) {
        let failed = failed.iter().map(|&port| {
            let service = name("infra/pilus-gateway-gw");
            (service, Port(port), Transport::Tcp, "no".to_owned())
        });
        let serving = Serving { routes: Generation(routes), failed: failed.collect() };
        self.send(Message::Serving(Arc::new(serving)));
    }

    /// What a GET gets on a port of `infra/gw`.
    pub(crate) fn get(&self, port: u16, host: &str, path: &str) -> String {
        self.route(port, host, path, &Ask::default())
    }

    pub(crate) fn route(&self, port: u16, host: &str, path: &str, ask: &Ask<'_>) -> String {
        let Some(route) = self.found(port, host, path, ask) else { return "404".to_owned() };
        forwarded(&route)
    }

    pub(crate) fn found(
        &self,
        port: u16,
        host: &str,
        path: &str,
        ask: &Ask<'_>,
    ) -> Option<Arc<Route>> {
        let listener = self.listener("infra/pilus-gateway-gw", port).expect("a listener");
        listener.hosts.find(host)?.find(path, ask).map(Arc::clone)
    }

    /// What a TLS client gets on a port of `infra/gw`: the Secrets, `pass ROUTE`, `SECRETS> ROUTE`, `refused`.
    pub(crate) fn tls(&self, port: u16, name: Option<&str>) -> String {
        let listener = self.listener("infra/pilus-gateway-gw", port).expect("a listener");
        match listener.tls.find(name) {
            None | Some(TlsAction::Refuse(_) | TlsAction::Reset(_)) => "refused".to_owned(),
            Some(TlsAction::Passthrough(route)) => format!("pass {}", forwarded(route)),
            Some(TlsAction::Terminate(termination)) => {
                let all = termination.certificates.iter();
                let all: Vec<String> = all.map(|it| it.secret.name.to_string()).collect();
                let forward = termination.forward.as_ref();
                let forward = forward.map(|route| format!("> {}", forwarded(route)));
                all.join(",") + &forward.unwrap_or_default()
            }
        }
    }

    pub(crate) fn status(&self, kind: Kind, text: &str) -> Option<&ObjectStatus> {
        self.statuses.by_object.get(&key(kind, text))
    }

    pub(crate) fn api_status(&self, kind: Kind, text: &str) -> &GatewayApiStatus {
        self.status(kind, text).and_then(|it| it.gateway.as_deref()).expect("a status")
    }

    /// The conditions of a Gateway, ListenerSet or GatewayClass.
    pub(crate) fn conditions(&self, kind: Kind, text: &str) -> String {
        shown_conditions(&self.status(kind, text).expect("a status").conditions)
    }

    /// `NAME [KINDS] ATTACHED: CONDITIONS` for each listener.
    pub(crate) fn listeners(&self, kind: Kind, text: &str) -> Vec<String> {
        let listeners = self.api_status(kind, text).listeners.iter();
        listeners
            .map(|it| {
                let kinds = it.supported_kinds.join(" ");
                let conditions = shown_conditions(&it.conditions);
                format!("{} [{kinds}] {}: {conditions}", it.name, it.attached_routes)
            })
            .collect()
    }

    /// The conditions of a route or policy for each parent or ancestor.
    pub(crate) fn parents(&self, kind: Kind, text: &str) -> Vec<String> {
        let Some(status) = self.status(kind, text) else { return vec![] };
        let parents = &status.gateway.as_ref().expect("a status of Gateway API").parents;
        parents.iter().map(|it| shown_conditions(&it.conditions)).collect()
    }
}

/// `TYPE` for those that are as they should be, else `TYPE=STATUS/REASON`.
fn shown_conditions(conditions: &[Condition]) -> String {
    let shown = conditions.iter().map(|it| {
        let Condition { kind, status, reason, .. } = it;
        let fine = match *kind {
            "Conflicted" => *status == Truth::False && &**reason == "NoConflicts",
            kind => *status == Truth::True && **reason == *kind,
        };
        if fine { (*kind).to_owned() } else { format!("{kind}={}/{reason}", status.as_str()) }
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// `a:80`, `a:80*3+other/b:80`, `a:80+refuse 500*2`, `redirect 302`, `500`.
pub(crate) fn forwarded(route: &Route) -> String {
    match &route.action {
        Action::Forward(backends) => {
            backends.iter().map(shown_backend).collect::<Vec<_>>().join("+")
        }
        Action::Redirect(redirect) => format!("redirect {}", redirect.status),
        Action::Refuse(status, _) => status.to_string(),
        Action::RedirectHttps(port) => format!("https {port}"),
    }
}

fn shown_backend(backend: &Backend) -> String {
    let target = match &backend.target {
        Target::Refuse(status, _) => format!("refuse {status}"),
        Target::Service(port) => {
            let NamespacedName { namespace, name } = &port.service;
            let namespace =
                if &**namespace == "infra" { String::new() } else { format!("{namespace}/") };
            format!("{namespace}{name}:{}", port.port)
        }
    };
    if backend.weight == 1 { target } else { format!("{target}*{}", backend.weight) }
}
