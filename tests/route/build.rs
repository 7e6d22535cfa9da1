//! Small builders for objects, and a route server that can be asked what it would do.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pilus::api::address::{Assignments, Port};
use pilus::api::config::{Config, IngressMode};
use pilus::api::message::wiring;
use pilus::api::meta::{FileOrigin, Labels, Meta, NamespacedName, Origin};
use pilus::api::object::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, IngressTls, PathType, Pod,
    PodPort, PortProtocol, Secret, Service, ServicePortRef, ServicePortSpec, TargetPort,
};
use pilus::api::objects::{HasMeta, Objects, Table};
use pilus::api::problem::Severity;
use pilus::api::route::{Action, Listener, Request, Route, RouteTable, Target, TlsAction};
use pilus::api::status::Statuses;
use pilus::api::{Message, meta};
use pilus::kernel::{Outbox, Server, Time};
use pilus::server::route::RouteServer;

/// 2026-01-01T00:00:00Z
pub(crate) const UNIX: Duration = Duration::from_secs(1_767_225_600);

pub(crate) fn name(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    NamespacedName::new(namespace, name)
}

pub(crate) fn meta(text: &str) -> Meta {
    let name = name(text);
    let file = format!("{}.yaml", name.name).into();
    let origin = Origin::File(FileOrigin { file, line: 1, column: 1, fields: Arc::new([]) });
    Meta { name, origin, uid: "u".into(), ..Meta::default() }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

/// Puts an object into a table, in the place of one with the same name.
pub(crate) fn put<T: HasMeta + Clone>(table: &mut Table<T>, object: T) {
    let mut map = BTreeMap::clone(table);
    map.insert(object.meta().name.clone(), Arc::new(object));
    *table = Arc::new(map);
}

pub(crate) fn service(text: &str, ports: &[(&str, u16)]) -> Service {
    let ports = ports
        .iter()
        .map(|&(name, port)| ServicePortSpec {
            name: name.into(),
            port,
            target: TargetPort::Number(port),
            protocol: PortProtocol::Tcp,
            node_port: 0,
            app_protocol: None,
        })
        .collect();
    let selector = Some(labels(&[("app", text.rsplit('/').next().unwrap_or(text))]));
    Service { meta: meta(text), selector, ports, ..Service::default() }
}

pub(crate) fn pod(text: &str, app: &str, ips: &[&str]) -> Pod {
    let mut meta = meta(text);
    meta.labels = labels(&[("app", app)]);
    Pod {
        meta,
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        node: Some("n1".into()),
        ports: vec![PodPort { name: "web".into(), port: 8080, protocol: PortProtocol::Tcp }],
        ready: true,
        ..Pod::default()
    }
}

pub(crate) fn class(text: &str, controller: &str, default: bool) -> IngressClass {
    let mut meta = meta(text);
    if default {
        let key = "ingressclass.kubernetes.io/is-default-class";
        meta.annotations = labels(&[(key, "true")]);
    }
    IngressClass { meta, controller: controller.into() }
}

pub(crate) fn secret(text: &str, chain: &str, key: &str) -> Secret {
    let data = [("tls.crt", chain), ("tls.key", key)];
    Secret {
        meta: meta(text),
        kind: "kubernetes.io/tls".into(),
        data: data.iter().map(|&(k, v)| (k.into(), v.as_bytes().to_vec())).collect(),
    }
}

/// A self-signed certificate for `hosts` with its key, both in PEM; valid from `from` to `to` (years).
pub(crate) fn certificate(hosts: &[&str], from: i32, to: i32) -> (String, String) {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A path, its type (`E`, `P` or `I`) and `SERVICE:PORT`.
pub(crate) type Path<'a> = (&'a str, char, &'a str);

pub(crate) fn backend(text: &str) -> IngressBackend {
    let (service, port) = text.split_once(':').unwrap();
    let port =
        port.parse().map_or_else(|_| ServicePortRef::Name(port.into()), ServicePortRef::Number);
    IngressBackend::Service(service.into(), port)
}

#[derive(Clone)]
pub(crate) struct Build(pub(crate) Ingress);

pub(crate) fn ingress(text: &str) -> Build {
    Build(Ingress { meta: meta(text), class: Some("pilus".into()), ..Ingress::default() })
}

impl Build {
    pub(crate) fn class(mut self, class: Option<&str>) -> Self {
        self.0.class = class.map(Into::into);
        self
    }
    pub(crate) fn note(mut self, key: &str, value: &str) -> Self {
        let key =
            if key.contains('/') { key.to_owned() } else { format!("ingress.cilium.io/{key}") };
        self.0.meta.annotations.insert(key.into(), value.into());
        self
    }
    pub(crate) fn rule(mut self, host: &str, paths: &[Path<'_>]) -> Self {
        let paths = paths
            .iter()
            .map(|&(path, kind, target)| IngressPath {
                path: path.into(),
                path_type: match kind {
                    'E' => PathType::Exact,
                    'P' => PathType::Prefix,
                    _ => PathType::ImplementationSpecific,
                },
                backend: backend(target),
            })
            .collect();
        let host = (host != "*").then(|| host.into());
        self.0.rules.push(IngressRule { host, paths });
        self
    }
    pub(crate) fn default_backend(mut self, target: &str) -> Self {
        self.0.default_backend = Some(backend(target));
        self
    }
    pub(crate) fn tls(mut self, hosts: &[&str], secret: &str) -> Self {
        let hosts = hosts.iter().map(|&host| host.into()).collect();
        let secret = (!secret.is_empty()).then(|| secret.into());
        self.0.tls.push(IngressTls { hosts, secret });
        self
    }
}

/// Objects with the Services `default/{a,b,c,web}` (port 80 "http") and `other/a`.
pub(crate) fn objects(ingresses: &[Build]) -> Objects {
    let mut objects = Objects::default();
    for text in ["default/a", "default/b", "default/c", "default/web", "other/a"] {
        put(&mut objects.services, service(text, &[("http", 80)]));
    }
    for Build(ingress) in ingresses {
        put(&mut objects.ingresses, ingress.clone());
    }
    objects
}

pub(crate) fn shared() -> Config {
    Config { ingress_mode: IngressMode::Shared, ..Config::default() }
}

/// A GET request without headers and query.
pub(crate) struct Get;

impl Request for Get {
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

/// A route server and the latest it has sent.
pub(crate) struct Router {
    pub(crate) server: RouteServer,
    pub(crate) table: Arc<RouteTable>,
    pub(crate) statuses: Arc<Statuses>,
    /// How often each was sent.
    pub(crate) sent: (u32, u32),
}

impl Router {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            server: RouteServer::new(Arc::new(config), UNIX),
            table: Arc::default(),
            statuses: Arc::default(),
            sent: (0, 0),
        }
    }

    /// The state after `ingresses` in shared mode.
    pub(crate) fn shared(ingresses: &[Build]) -> Self {
        let mut router = Self::new(shared());
        router.objects(objects(ingresses));
        router
    }

    pub(crate) fn objects(&mut self, objects: Objects) {
        self.send(Message::Objects(Arc::new(objects)));
    }

    pub(crate) fn send(&mut self, message: Message) {
        let mut out = Outbox::new();
        self.server.handle(Time::ZERO, wiring::STORE, message, &mut out);
        self.take(&mut out);
    }

    pub(crate) fn take(&mut self, out: &mut Outbox<Message>) {
        for (to, message) in out.take() {
            match message {
                // What the others are told is shown to people as well.
                Message::Routes(_) if [wiring::ADMIN, wiring::SERVICE].contains(&to) => {}
                Message::Routes(table) => {
                    assert_eq!(to, wiring::DATAPATH);
                    self.table = table;
                    self.sent.0 += 1;
                }
                Message::Statuses(statuses) => {
                    assert_eq!(to, wiring::STORE);
                    self.statuses = statuses;
                    self.sent.1 += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn assign(&mut self, service: &str, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let by_service = BTreeMap::from([(name(service), ips)]);
        self.send(Message::Assignments(Arc::new(Assignments {
            by_service,
            ..Assignments::default()
        })));
    }

    pub(crate) fn listener(&self, service: &str, port: u16) -> Option<&Arc<Listener>> {
        let service = name(service);
        self.table.listeners.iter().find(|l| l.service == service && l.port == Port(port))
    }

    /// What a request gets on the shared listener: `a:80`, `a:80+b:80*2`, `https`, `503`, `404`, `-`.
    pub(crate) fn ask(&self, port: u16, host: &str, path: &str) -> String {
        self.ask_at("kube-system/pilus-ingress", port, host, path)
    }

    pub(crate) fn ask_at(&self, service: &str, port: u16, host: &str, path: &str) -> String {
        let Some(listener) = self.listener(service, port) else { return "-".to_owned() };
        let route =
            listener.hosts.find(host).and_then(|virtual_host| virtual_host.find(path, &Get));
        route.map_or_else(|| "404".to_owned(), |route| shown(route))
    }

    /// What a TLS client gets on the shared listener: the Secret, `pass a:80`, `refused` or `-`.
    pub(crate) fn sni(&self, host: Option<&str>) -> String {
        let Some(listener) = self.listener("kube-system/pilus-ingress", 443) else {
            return "-".to_owned();
        };
        match listener.tls.find(host) {
            None => "closed".to_owned(),
            Some(TlsAction::Refuse(_) | TlsAction::Reset(_)) => "refused".to_owned(),
            Some(TlsAction::Terminate(termination)) => {
                termination.certificates[0].secret.to_string()
            }
            Some(TlsAction::Passthrough(route)) => format!("pass {}", shown(route)),
        }
    }

    /// Each complaint as `E|W NAME FIELD: MESSAGE`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = self.statuses.problems.iter();
        problems
            .map(|problem| {
                let severity = if problem.severity == Severity::Error { 'E' } else { 'W' };
                let object = problem.object.as_ref().map(|key| key.name.to_string());
                let object = object.unwrap_or_default();
                assert!(problem.position.is_some(), "{problem}");
                format!("{severity} {object} {}: {}", problem.field, problem.message)
            })
            .collect()
    }

    /// Asserts that there is one complaint for each of `starts`, in order, and no other.
    pub(crate) fn complains(&self, starts: &[&str]) {
        let problems = self.problems();
        let all = problems.len() == starts.len()
            && problems.iter().zip(starts).all(|(problem, start)| {
                start
                    .split("..")
                    .try_fold(&problem[..], |rest, part| {
                        rest.find(part).map(|at| &rest[at + part.len()..])
                    })
                    .is_some()
            });
        assert!(all, "expected {starts:#?}, got {problems:#?}");
    }

    pub(crate) fn generated(&self, service: &str) -> Option<&Service> {
        let service = name(service);
        let services = &self.statuses.generated.services;
        services.iter().find(|s| s.meta.name == service).map(|s| &**s)
    }

    pub(crate) fn services(&self) -> Vec<String> {
        let services = self.statuses.generated.services.iter();
        services.map(|service| service.meta.name.to_string()).collect()
    }
}

fn shown(route: &Route) -> String {
    match &route.action {
        Action::Forward(backends) => {
            let backends: Vec<String> = backends
                .iter()
                .map(|backend| {
                    let weight = if backend.weight == 1 {
                        String::new()
                    } else {
                        format!("*{}", backend.weight)
                    };
                    let Target::Service(target) = &backend.target else {
                        panic!("{backend:?}");
                    };
                    let service = &target.service;
                    let namespace =
                        if &*service.namespace == "default" { "" } else { &*service.namespace };
                    let slash = if namespace.is_empty() { "" } else { "/" };
                    format!("{namespace}{slash}{}:{}{weight}", service.name, target.port)
                })
                .collect();
            backends.join("+")
        }
        Action::RedirectHttps(port) => {
            assert_eq!(*port, Port::HTTPS);
            "https".to_owned()
        }
        Action::Redirect(redirect) => format!("redirect {}", redirect.status),
        Action::Refuse(code, _) => code.to_string(),
    }
}

/// The whole name of the annotation in field paths.
pub(crate) fn key(kind: meta::Kind, text: &str) -> meta::ObjectKey {
    meta::ObjectKey { kind, name: name(text) }
}
