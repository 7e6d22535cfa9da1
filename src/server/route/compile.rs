//! Ingresses to rules (ING-01 to ING-16), one after the other in the order of their names, so that all
//! nodes come to the same result.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::annotation::{self, Settings};
use super::certificate::{Certificates, Loaded};
use super::class::Classes;
use super::report::Report;
use super::service;
use super::suggest::closest;
use super::table::{ANY_HOST, Matcher, Regexes, Rule, Rules, ServiceTable, TlsClaim, TlsClaimKind};
use crate::api::address::Port;
use crate::api::config::{Config, IngressMode};
use crate::api::endpoint::ServicePort;
use crate::api::meta::{Kind, NamespacedName, Str};
use crate::api::object::{
    Ingress, IngressBackend, IngressTls, PathType, PortProtocol, Service, ServicePortRef,
    ServiceType,
};
use crate::api::objects::Objects;
use crate::api::problem::{Problem, Severity};
use crate::api::route::{Action, Backend, Listener, PathRegex};

/// The compiled size of one regular expression, in bytes. Those for paths need a few hundred.
const MAX_REGEX_SIZE: usize = 256 * 1024;

/// What is kept from one compilation to the next.
#[derive(Default)]
pub(super) struct Caches {
    pub(super) certificates: Certificates,
    pub(super) regexes: Regexes,
    /// How many regular expressions were compiled; what the tests count.
    pub(super) compiled_regexes: u64,
    /// The Services of dedicated Ingresses with what they were made from.
    services: HashMap<NamespacedName, MadeService>,
}

// === impl Caches ===

impl Caches {
    /// The generated Service; the one from last time if neither its only owner nor its ports changed.
    fn service(
        &mut self,
        name: &NamespacedName,
        owners: &[(Rc<Ingress>, Settings)],
        ports: &[Port],
    ) -> Rc<Service> {
        let [(owner, _)] = owners else { return Rc::new(service::generate(name, owners, ports)) };
        if let Some((known, known_ports, service)) = self.services.get(name)
            && Rc::ptr_eq(known, owner)
            && known_ports == ports
        {
            return Rc::clone(service);
        }
        let service = Rc::new(service::generate(name, owners, ports));
        let entry = (Rc::clone(owner), ports.to_vec(), Rc::clone(&service));
        self.services.insert(name.clone(), entry);
        service
    }
}

/// A generated Service, its only owner and its ports.
type MadeService = (Rc<Ingress>, Vec<Port>, Rc<Service>);

/// The result of one compilation.
#[derive(Default)]
pub(super) struct Compiled {
    /// Sorted by Service and port.
    pub(super) listeners: Vec<Listener>,
    /// The Ingresses that are ours, each with the Service that has its address and ports.
    pub(super) owned: Vec<(NamespacedName, NamespacedName, Vec<u16>)>,
    /// The generated Services.
    pub(super) services: Vec<Rc<Service>>,
    pub(super) problems: Vec<Problem>,
    /// When the next certificate in use becomes valid or expires, seconds since 1970.
    pub(super) next_change: Option<u64>,
}

/// Compiles the Ingresses of `objects`; `unix` is the time in seconds since 1970.
pub(super) fn compile(
    objects: &Objects,
    config: &Config,
    caches: &mut Caches,
    unix: u64,
) -> Compiled {
    let mut compiler = Compiler {
        objects,
        config,
        caches,
        unix,
        report: Report::default(),
        tables: BTreeMap::new(),
        owners: BTreeMap::new(),
        next_change: None,
        patterns: Vec::new(),
    };
    let classes = Classes::new(objects, config);
    for ingress in objects.ingresses.values() {
        if classes.owns(ingress) {
            compiler.ingress(ingress);
        } else if let Some(message) = classes.misspelt(ingress) {
            compiler.report.ingress_warning(ingress, "spec.ingressClassName".to_owned(), message);
        }
    }
    compiler.finish()
}

struct Compiler<'a> {
    objects: &'a Objects,
    config: &'a Config,
    caches: &'a mut Caches,
    unix: u64,
    report: Report,
    tables: BTreeMap<NamespacedName, ServiceTable>,
    /// Whose each Service is, in the order of names; the settings are those that shape it.
    owners: BTreeMap<NamespacedName, Vec<(Rc<Ingress>, Settings)>>,
    next_change: Option<u64>,
    /// The regular expressions in use.
    patterns: Vec<Str>,
}

/// One entry of `spec.tls`, looked up.
struct TlsEntry {
    field: String,
    loaded: Result<Loaded, Rc<str>>,
}

// === impl Compiler ===

impl Compiler<'_> {
    fn ingress(&mut self, ingress: &Rc<Ingress>) {
        let settings = annotation::read(ingress, self.config, &mut self.report);
        let service = service::name(ingress, settings.mode, &self.config.name_prefix);
        if settings.mode == IngressMode::Shared {
            self.warn_of_lost_annotations(ingress);
        }
        let table = self.tables.entry(service.clone()).or_default();
        table.shared = settings.mode == IngressMode::Shared;
        if settings.mode == IngressMode::Dedicated {
            table.host_port = settings.host_port;
        }
        table.plain |= !settings.passthrough;
        if settings.passthrough {
            self.passthrough(ingress, &service);
        } else {
            self.terminated(ingress, &settings, &service);
        }
        self.owners.entry(service).or_default().push((Rc::clone(ingress), settings));
    }

    fn finish(mut self) -> Compiled {
        self.caches.certificates.sweep();
        let patterns: HashSet<_> = self.patterns.drain(..).collect();
        self.caches.regexes.retain(|pattern, _| patterns.contains(pattern));
        self.caches.services.retain(|name, _| self.tables.contains_key(name));
        let mut compiled = Compiled::default();
        for (name, table) in self.tables {
            let ports = table.ports();
            let owners = self.owners.remove(&name).unwrap_or_default();
            let numbers: Vec<u16> = ports.iter().map(|port| port.0).collect();
            for (ingress, _) in &owners {
                let ingress = ingress.meta.name.clone();
                compiled.owned.push((ingress, name.clone(), numbers.clone()));
            }
            compiled.services.push(self.caches.service(&name, &owners, &ports));
            let mut listeners = table.listeners(&name, &self.caches.regexes, &mut self.report);
            for listener in &mut listeners {
                listener.host_port = listener.host_port.or(self.config.host_port(listener.port));
            }
            compiled.listeners.extend(listeners);
        }
        compiled.problems = self.report.finish();
        compiled.next_change = self.next_change;
        compiled
    }

    /// Annotations for the load balancer's Service go to the Ingress' own Service only (ING-05).
    fn warn_of_lost_annotations(&mut self, ingress: &Ingress) {
        let keys = ingress.meta.annotations.keys();
        for key in keys.filter(|key| key.starts_with("lbipam.cilium.io/")) {
            let message = format!(
                "{key} has no effect on an Ingress that shares its address; set ingress.cilium.io/loadbalancer-mode: dedicated"
            );
            self.report.ingress_warning(ingress, annotation::field(key), message);
        }
    }

    // --- HTTP and TLS termination ---

    fn terminated(&mut self, ingress: &Rc<Ingress>, settings: &Settings, service: &NamespacedName) {
        let rules = self.rules(ingress, settings);
        let tls = self.tls_entries(ingress, &rules, service);
        let covering = |host: &str| {
            tls.get(host).or_else(|| {
                let (_, parent) = host.split_once('.')?;
                tls.get(&*format!("*.{parent}"))
            })
        };
        let Some(table) = self.tables.get_mut(service) else { return };
        let port = self.config.host_port(Port::HTTPS).unwrap_or(Port::HTTPS);
        let forced = settings.force_https.then_some(port);
        for (host, paths) in &rules {
            let entry = covering(host);
            let redirect = forced.filter(|_| entry.is_some());
            add_paths(&mut table.http, host, paths, redirect);
            if entry.is_some_and(|entry| entry.loaded.is_ok()) {
                add_paths(&mut table.https, host, paths, None);
            }
        }
        // TLS hosts without a rule of their own use those for every host (ING-10).
        let Some(any) = rules.get(ANY_HOST) else { return };
        for (host, entry) in tls.iter().filter(|(host, _)| !rules.contains_key(*host)) {
            if forced.is_some() {
                add_paths(&mut table.http, host, any, forced);
            }
            if entry.loaded.is_ok() {
                add_paths(&mut table.https, host, any, None);
            }
        }
    }

    fn rules(&mut self, ingress: &Rc<Ingress>, settings: &Settings) -> Rules {
        let mut rules = Rules::new();
        if let Some(backend) = &ingress.default_backend {
            let field = "spec.defaultBackend".to_owned();
            let action = self.backend(ingress, backend, &field);
            add(&mut rules, ANY_HOST, Matcher::Default, ingress, field, action, settings);
        }
        for (i, rule) in ingress.rules.iter().enumerate() {
            if rule.paths.is_empty() {
                self.report.ingress_warning(
                    ingress,
                    format!("spec.rules[{i}]"),
                    "the rule has no http paths and no effect".to_owned(),
                );
            }
            let host = rule.host.as_deref().unwrap_or(ANY_HOST);
            for (j, path) in rule.paths.iter().enumerate() {
                let field = format!("spec.rules[{i}].http.paths[{j}]");
                let Some(matcher) = self.matcher(ingress, path.path_type, &path.path, &field)
                else {
                    continue;
                };
                let action = self.backend(ingress, &path.backend, &format!("{field}.backend"));
                add(&mut rules, host, matcher, ingress, field, action, settings);
            }
        }
        rules
    }

    fn matcher(
        &mut self,
        ingress: &Ingress,
        path_type: PathType,
        path: &Str,
        field: &str,
    ) -> Option<Matcher> {
        match path_type {
            PathType::Exact => Some(Matcher::Exact(Str::clone(path))),
            PathType::Prefix => Some(Matcher::Prefix(path.trim_end_matches('/').into())),
            PathType::ImplementationSpecific => {
                if **path == *"/" {
                    let message = "an ImplementationSpecific path is a regular expression for the whole path: this one matches only \"/\" itself; for everything below it use pathType: Prefix";
                    self.report.ingress_warning(
                        ingress,
                        format!("{field}.path"),
                        message.to_owned(),
                    );
                }
                if let Err(error) = self.regex(path) {
                    let message = format!(
                        "{path:?} is not a regular expression: {error}; the path is left out"
                    );
                    self.report.ingress_error(ingress, format!("{field}.path"), message);
                    return None;
                }
                Some(Matcher::Regex(Str::clone(path)))
            }
        }
    }

    fn regex(&mut self, pattern: &Str) -> Result<(), Rc<str>> {
        self.patterns.push(Str::clone(pattern));
        if let Some(known) = self.caches.regexes.get(pattern) {
            return known.as_ref().map(drop).map_err(Rc::clone);
        }
        self.caches.compiled_regexes += 1;
        let result = compile_regex(pattern);
        let outcome = result.as_ref().map(drop).map_err(Rc::clone);
        self.caches.regexes.insert(Str::clone(pattern), result);
        outcome
    }

    // --- backends ---

    fn backend(&mut self, ingress: &Ingress, backend: &IngressBackend, field: &str) -> Action {
        let (name, port) = match backend {
            IngressBackend::Service(name, port) => (name, port),
            IngressBackend::Resource(text) => {
                let message =
                    format!("resource backends ({text}) are not supported; requests get 500");
                self.report.ingress_error(ingress, format!("{field}.resource"), message.clone());
                return Action::Refuse(500, message);
            }
        };
        let namespace = &ingress.meta.name.namespace;
        let key = NamespacedName { namespace: Str::clone(namespace), name: Str::clone(name) };
        match self.service_port(&key, port) {
            Ok(port) => {
                let service = ServicePort { service: key, port };
                Action::Forward(vec![Backend::new(service, 1)])
            }
            Err((part, why)) => {
                let message = format!("{why}; requests get 503");
                self.report.ingress_error(ingress, format!("{field}.service.{part}"), message);
                Action::Refuse(503, why)
            }
        }
    }

    /// The number of the Service's port, or which part of the reference is wrong and why.
    fn service_port(
        &self,
        key: &NamespacedName,
        port: &ServicePortRef,
    ) -> Result<Port, (&'static str, String)> {
        let Some(service) = self.objects.services.get(key) else {
            let same = |other: &&NamespacedName| other.namespace == key.namespace;
            let candidates = self.objects.services.keys().filter(same).map(|other| &*other.name);
            let hint = closest(&key.name, candidates);
            return Err(("name", format!("Service {key} does not exist{hint}")));
        };
        if service.kind == ServiceType::ExternalName {
            let why = format!("Service {key} is of type ExternalName, which has no endpoints");
            return Err(("name", why));
        }
        let tcp = || service.ports.iter().filter(|spec| spec.protocol == PortProtocol::Tcp);
        match port {
            ServicePortRef::Number(number) => {
                if tcp().any(|spec| spec.port == *number) {
                    return Ok(Port(*number));
                }
                let ports: Vec<String> = tcp().map(|spec| spec.port.to_string()).collect();
                let has = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
                let why = format!("Service {key} has no TCP port {number} (it has {has})");
                Err(("port.number", why))
            }
            ServicePortRef::Name(name) => {
                if let Some(spec) = tcp().find(|spec| spec.name == *name) {
                    return Ok(Port(spec.port));
                }
                let hint = closest(name, tcp().map(|spec| &*spec.name));
                let why = format!("Service {key} has no TCP port named {name:?}{hint}");
                Err(("port.name", why))
            }
        }
    }

    // --- TLS ---

    /// The TLS entries of `ingress` by host; their claims go to the table.
    fn tls_entries(
        &mut self,
        ingress: &Rc<Ingress>,
        rules: &Rules,
        service: &NamespacedName,
    ) -> BTreeMap<Str, Rc<TlsEntry>> {
        let mut entries = BTreeMap::new();
        for (i, tls) in ingress.tls.iter().enumerate() {
            let field = format!("spec.tls[{i}]");
            if tls.hosts.is_empty() {
                let message = "the entry names no hosts and has no effect; list the hosts that the certificate is for";
                self.report.ingress_error(ingress, format!("{field}.hosts"), message.to_owned());
                continue;
            }
            let loaded = self.tls_secret(ingress, tls, &field);
            let entry = Rc::new(TlsEntry { field, loaded });
            for (j, host) in tls.hosts.iter().enumerate() {
                self.check_tls_host(ingress, &entry, j, host, rules);
                self.claim(ingress, &entry, host, service);
                // The first entry that names a host decides; a second claim is reported by the table.
                entries.entry(Str::clone(host)).or_insert_with(|| Rc::clone(&entry));
            }
        }
        if !entries.is_empty()
            && let Some(name) = &self.config.default_tls_secret
        {
            let default = self.load(name);
            if let Err(why) = &default {
                self.report.default_certificate_error(why);
            }
            let default = default.ok();
            if let Some(table) = self.tables.get_mut(service) {
                table.default_certificate = default.map(|loaded| loaded.certificate);
            }
        }
        entries
    }

    fn claim(
        &mut self,
        ingress: &Rc<Ingress>,
        entry: &TlsEntry,
        host: &Str,
        service: &NamespacedName,
    ) {
        let kind = match &entry.loaded {
            Ok(loaded) => TlsClaimKind::Terminate(Rc::clone(&loaded.certificate)),
            Err(why) => TlsClaimKind::Refuse(Rc::clone(why)),
        };
        let field = format!("{}.secretName", entry.field).into();
        let claim = TlsClaim { ingress: Rc::clone(ingress), field, kind };
        if let Some(table) = self.tables.get_mut(service) {
            table.tls.entry(Str::clone(host)).or_default().push(claim);
        }
    }

    fn tls_secret(
        &mut self,
        ingress: &Ingress,
        tls: &IngressTls,
        field: &str,
    ) -> Result<Loaded, Rc<str>> {
        let name = match (&tls.secret, &self.config.default_tls_secret) {
            (Some(name), _) => Ok(NamespacedName {
                namespace: Str::clone(&ingress.meta.name.namespace),
                name: Str::clone(name),
            }),
            (None, Some(default)) => Ok(default.clone()),
            (None, None) => {
                Err(Rc::from("there is no secretName, and no default certificate is configured"))
            }
        };
        let loaded = name.and_then(|name| self.load(&name));
        let hosts = || tls.hosts.join(", ");
        let fault = match &loaded {
            Err(why) => Some(format!("{why}; TLS handshakes for {} are refused", hosts())),
            Ok(Loaded { fault: Some(why), .. }) => {
                Some(format!("{why}; its last good version stays in effect for {}", hosts()))
            }
            Ok(_) => None,
        };
        if let Some(message) = fault {
            self.report.ingress_error(ingress, format!("{field}.secretName"), message);
        }
        loaded
    }

    fn load(&mut self, name: &NamespacedName) -> Result<Loaded, Rc<str>> {
        let loaded = self.caches.certificates.load(self.objects, name)?;
        let Some(secret) = self.objects.secrets.get(name) else { return Ok(loaded) };
        let mut warn = |field: &str, message: String| {
            let field = field.to_owned();
            self.report.push(Kind::Secret, &secret.meta, field, message, Severity::Warning);
        };
        if loaded.wrong_type {
            let message = format!(
                "it is used as a TLS certificate, and its type is {} instead of kubernetes.io/tls",
                secret.kind
            );
            warn("type", message);
        }
        match &loaded.info {
            Err(error) => warn("data", format!("the validity of tls.crt cannot be read: {error}")),
            Ok(info) => {
                if info.not_after < self.unix {
                    let days = (self.unix - info.not_after) / 86_400;
                    warn(
                        "data",
                        format!(
                            "the certificate in tls.crt expired {days} days ago; clients refuse it"
                        ),
                    );
                }
                if info.not_before > self.unix {
                    warn(
                        "data",
                        "the certificate in tls.crt is not valid yet; clients refuse it".to_owned(),
                    );
                }
                let times = [info.not_before, info.not_after + 1];
                let next = times.into_iter().filter(|&time| time > self.unix).min();
                self.next_change = self.next_change.into_iter().chain(next).min();
            }
        }
        Ok(loaded)
    }

    fn check_tls_host(
        &mut self,
        ingress: &Ingress,
        entry: &TlsEntry,
        j: usize,
        host: &Str,
        rules: &Rules,
    ) {
        let field = format!("{}.hosts[{j}]", entry.field);
        if let Ok(Loaded { info: Ok(info), certificate, .. }) = &entry.loaded
            && !info.covers(host)
        {
            let names = match info.dns_names.len() {
                0 => "no name".to_owned(),
                _ => info.dns_names.join(", "),
            };
            let message = format!(
                "the certificate in Secret {} is not for {host:?} but for {names}; clients refuse it",
                certificate.secret
            );
            self.report.ingress_warning(ingress, field.clone(), message);
        }
        let covered = |rule: &Str| {
            let parent = host.strip_prefix("*.");
            parent.is_some() && rule.split_once('.').map(|(_, rest)| rest) == parent
        };
        let served = rules.contains_key(host) || rules.contains_key(ANY_HOST);
        if !served && !rules.keys().any(covered) {
            let hint = closest(host, rules.keys().map(|rule| &**rule));
            let message = format!("no rule is for host {host:?}{hint}; its requests get 404");
            self.report.ingress_warning(ingress, field, message);
        }
    }

    // --- TLS passthrough (ING-12) ---

    fn passthrough(&mut self, ingress: &Rc<Ingress>, service: &NamespacedName) {
        if ingress.default_backend.is_some() {
            self.skip(ingress, "spec.defaultBackend", "a default backend is not possible");
        }
        if !ingress.tls.is_empty() {
            let message = "TLS is passed through; the certificates here are not used";
            self.report.ingress_warning(ingress, "spec.tls".to_owned(), message.to_owned());
        }
        for (i, rule) in ingress.rules.iter().enumerate() {
            let field = format!("spec.rules[{i}]");
            let Some(host) = &rule.host else {
                self.skip(ingress, &field, "a rule without a host is not possible");
                continue;
            };
            if rule.paths.is_empty() {
                self.skip(ingress, &field, "a rule without the path / is not possible");
            }
            for (j, path) in rule.paths.iter().enumerate() {
                let field = format!("{field}.http.paths[{j}]");
                if &*path.path != "/" {
                    let why = "only the path / is possible, for requests are not seen";
                    self.skip(ingress, &format!("{field}.path"), why);
                    continue;
                }
                let action = self.backend(ingress, &path.backend, &format!("{field}.backend"));
                let kind = TlsClaimKind::Passthrough(action);
                let claim = TlsClaim { ingress: Rc::clone(ingress), field: field.into(), kind };
                if let Some(table) = self.tables.get_mut(service) {
                    table.tls.entry(Str::clone(host)).or_default().push(claim);
                }
            }
        }
    }

    fn skip(&mut self, ingress: &Ingress, field: &str, why: &str) {
        let message = format!("{why} with TLS passthrough; it is left out");
        self.report.ingress_error(ingress, field.to_owned(), message);
    }
}

fn add(
    rules: &mut Rules,
    host: &str,
    matcher: Matcher,
    ingress: &Rc<Ingress>,
    field: String,
    action: Action,
    settings: &Settings,
) {
    let rule = Rule::new(ingress, field.into(), action, settings.request_timeout);
    rules.entry(host.into()).or_default().entry(matcher).or_default().push(rule);
}

/// Adds one Ingress' rules for a host to a table, as they are or as redirects to https on a port (ING-11).
fn add_paths(
    to: &mut Rules,
    host: &Str,
    paths: &BTreeMap<Matcher, Vec<Rule>>,
    redirect: Option<Port>,
) {
    let host = to.entry(Str::clone(host)).or_default();
    for (matcher, rules) in paths {
        let all = host.entry(matcher.clone()).or_default();
        if let Some(port) = redirect {
            all.extend(rules.iter().map(|rule| {
                let action = Action::RedirectHttps(port);
                Rule::new(&rule.ingress, Rc::clone(&rule.field), action, None)
            }));
        } else {
            all.extend(rules.iter().cloned());
        }
    }
}

/// Compiles `pattern` for whole paths. It is compiled by itself first, so that `a)(b` is an error.
fn compile_regex(pattern: &Str) -> Result<Rc<PathRegex>, Rc<str>> {
    let build = |text: &str| {
        regex_lite::RegexBuilder::new(text)
            .size_limit(MAX_REGEX_SIZE)
            .build()
            .map_err(|error| Rc::from(error.to_string()))
    };
    build(pattern)?;
    let regex = build(&format!("^(?:{pattern})$"))?;
    Ok(Rc::new(PathRegex { pattern: Str::clone(pattern), regex }))
}
