//! Ingresses to rules (ING-01 to ING-16), one after the other in the order of their names, so that all
//! nodes come to the same result.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::annotation::{self, Settings};
use super::certificate::Loaded;
use super::class::Classes;
use super::context::{Context, FoundPort};
use super::gateway::policy::Policies;
use super::service;
use super::suggest::closest;
use super::table::{ANY_HOST, Matcher, Rule, Rules, ServiceTable, TlsClaim, TlsClaimKind};
use super::upstream::AppProtocol;
use crate::api::address::Port;
use crate::api::config::IngressMode;
use crate::api::meta::{NamespacedName, Str};
use crate::api::object::{Ingress, IngressBackend, IngressTls, PathType, PortProtocol, Service};
use crate::api::route::{Action, Backend, Listener, Target};

/// A generated Service, its only owner and its ports.
pub(super) type MadeServices = HashMap<NamespacedName, (Arc<Ingress>, Vec<Port>, Arc<Service>)>;

/// What follows from the Ingresses.
#[derive(Default)]
pub(super) struct Compiled {
    /// Sorted by Service and port.
    pub(super) listeners: Vec<Listener>,
    /// The Ingresses that are ours, each with the Service that has its address and ports.
    pub(super) owned: Vec<(NamespacedName, NamespacedName, Vec<u16>)>,
    /// The generated Services.
    pub(super) services: Vec<Arc<Service>>,
}

/// Compiles the Ingresses of the snapshot.
pub(super) fn compile(context: &mut Context<'_>, policies: &Policies) -> Compiled {
    let objects = context.objects;
    let classes = Classes::new(objects, context.config);
    let (tables, owners) = (BTreeMap::new(), BTreeMap::new());
    let mut compiler = Compiler { context, policies, tables, owners };
    for ingress in objects.ingresses.values() {
        if classes.owns(ingress) {
            compiler.ingress(ingress);
        } else if let Some(message) = classes.misspelt(ingress) {
            let field = "spec.ingressClassName".to_owned();
            compiler.context.report.ingress_warning(ingress, field, message);
        }
    }
    compiler.finish()
}

struct Compiler<'c, 'a> {
    context: &'c mut Context<'a>,
    policies: &'c Policies,
    tables: BTreeMap<NamespacedName, ServiceTable>,
    /// Whose each Service is, in the order of names; the settings are those that shape it.
    owners: BTreeMap<NamespacedName, Vec<(Arc<Ingress>, Settings)>>,
}

/// One entry of `spec.tls`, looked up.
struct TlsEntry {
    field: String,
    loaded: Result<Loaded, Arc<str>>,
}

// === impl Compiler ===

impl Compiler<'_, '_> {
    fn ingress(&mut self, ingress: &Arc<Ingress>) {
        let settings = annotation::read(ingress, self.context.config, &mut self.context.report);
        let service = service::name(ingress, settings.mode, &self.context.config.name_prefix);
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
        self.owners.entry(service).or_default().push((Arc::clone(ingress), settings));
    }

    fn finish(mut self) -> Compiled {
        let Context { config, caches, report, .. } = self.context;
        caches.services.retain(|name, _| self.tables.contains_key(name));
        let mut compiled = Compiled::default();
        for (name, table) in self.tables {
            let ports = table.ports();
            let owners = self.owners.remove(&name).unwrap_or_default();
            let numbers: Vec<u16> = ports.iter().map(|port| port.0).collect();
            for (ingress, _) in &owners {
                let ingress = ingress.meta.name.clone();
                compiled.owned.push((ingress, name.clone(), numbers.clone()));
            }
            compiled.services.push(made(&mut caches.services, &name, &owners, &ports));
            let mut listeners = table.listeners(&name, &caches.regexes, report);
            for listener in &mut listeners {
                listener.host_port = listener.host_port.or(config.host_port(listener.port));
            }
            compiled.listeners.extend(listeners);
        }
        compiled
    }

    /// Annotations for the load balancer's Service go to the Ingress' own Service only (ING-05).
    fn warn_of_lost_annotations(&mut self, ingress: &Ingress) {
        let keys = ingress.meta.annotations.keys();
        for key in keys.filter(|key| key.starts_with("lbipam.cilium.io/")) {
            let message = format!(
                "{key} has no effect on an Ingress that shares its address; set ingress.cilium.io/loadbalancer-mode: dedicated"
            );
            self.context.report.ingress_warning(ingress, annotation::field(key), message);
        }
    }

    // --- HTTP and TLS termination ---

    fn terminated(
        &mut self,
        ingress: &Arc<Ingress>,
        settings: &Settings,
        service: &NamespacedName,
    ) {
        let rules = self.rules(ingress, settings);
        let tls = self.tls_entries(ingress, &rules, service);
        let covering = |host: &str| {
            tls.get(host).or_else(|| {
                let (_, parent) = host.split_once('.')?;
                tls.get(&*format!("*.{parent}"))
            })
        };
        let Some(table) = self.tables.get_mut(service) else { return };
        let port = self.context.config.host_port(Port::HTTPS).unwrap_or(Port::HTTPS);
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

    fn rules(&mut self, ingress: &Arc<Ingress>, settings: &Settings) -> Rules {
        let mut rules = Rules::new();
        if let Some(backend) = &ingress.default_backend {
            let field = "spec.defaultBackend".to_owned();
            let action = self.backend(ingress, backend, &field);
            add(&mut rules, ANY_HOST, Matcher::Default, ingress, field, action, settings);
        }
        for (i, rule) in ingress.rules.iter().enumerate() {
            if rule.paths.is_empty() {
                self.context.report.ingress_warning(
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
        // It gets what no path of a host matches as well, not only hosts that have no rule.
        let default = rules.get(ANY_HOST).and_then(|any| any.get(&Matcher::Default)).cloned();
        for paths in rules.values_mut() {
            if let Some(default) = &default {
                paths.entry(Matcher::Default).or_insert_with(|| default.clone());
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
                    self.context.report.ingress_warning(
                        ingress,
                        format!("{field}.path"),
                        message.to_owned(),
                    );
                }
                if let Err(error) = self.context.regex(path) {
                    let message = format!(
                        "{path:?} is not a regular expression: {error}; the path is left out"
                    );
                    self.context.report.ingress_error(ingress, format!("{field}.path"), message);
                    return None;
                }
                Some(Matcher::Regex(Str::clone(path)))
            }
        }
    }

    // --- backends ---

    fn backend(&mut self, ingress: &Ingress, backend: &IngressBackend, field: &str) -> Action {
        let (name, port) = match backend {
            IngressBackend::Service(name, port) => (name, port),
            IngressBackend::Resource(text) => {
                let message =
                    format!("resource backends ({text}) are not supported; requests get 500");
                self.context.report.ingress_error(
                    ingress,
                    format!("{field}.resource"),
                    message.clone(),
                );
                return Action::Refuse(500, message);
            }
        };
        let namespace = &ingress.meta.name.namespace;
        let key = NamespacedName { namespace: Str::clone(namespace), name: Str::clone(name) };
        match self.context.service_port(&key, port, PortProtocol::Tcp) {
            Ok(found) => self.forward(ingress, &found, field),
            Err((part, why)) => {
                let message = format!("{why}; requests get 503");
                self.context.report.ingress_error(
                    ingress,
                    format!("{field}.service.{part}"),
                    message,
                );
                Action::Refuse(503, why)
            }
        }
    }

    /// To a port of a Service, with TLS if a policy asks for it.
    fn forward(&mut self, ingress: &Ingress, found: &FoundPort<'_>, field: &str) -> Action {
        let port = found.port();
        let protocol = AppProtocol::parse(found.spec.app_protocol.as_deref());
        let settings = self.context.settings(found.service, protocol == AppProtocol::Http2);
        match self.policies.secured(&port.service, &found.spec.name, settings) {
            Ok(settings) => {
                if protocol == AppProtocol::Tls && settings.tls.is_none() {
                    let message = format!(
                        "the port's appProtocol asks for TLS, and no BackendTLSPolicy for Service {} says whom to trust; requests go without TLS",
                        port.service
                    );
                    self.context.report.ingress_warning(ingress, field.to_owned(), message);
                }
                let target = Target::Service(port);
                Action::Forward(vec![Backend { target, weight: 1, settings, filters: None }])
            }
            Err(why) => {
                let message = format!("{why}; requests get 500");
                self.context.report.ingress_error(ingress, field.to_owned(), message);
                Action::Refuse(500, why)
            }
        }
    }

    // --- TLS ---

    /// The TLS entries of `ingress` by host; their claims go to the table.
    fn tls_entries(
        &mut self,
        ingress: &Arc<Ingress>,
        rules: &Rules,
        service: &NamespacedName,
    ) -> BTreeMap<Str, Arc<TlsEntry>> {
        let mut entries = BTreeMap::new();
        for (i, tls) in ingress.tls.iter().enumerate() {
            let field = format!("spec.tls[{i}]");
            if tls.hosts.is_empty() {
                let message = "the entry names no hosts and has no effect; list the hosts that the certificate is for";
                self.context.report.ingress_error(
                    ingress,
                    format!("{field}.hosts"),
                    message.to_owned(),
                );
                continue;
            }
            let loaded = self.tls_secret(ingress, tls, &field);
            let entry = Arc::new(TlsEntry { field, loaded });
            for (j, host) in tls.hosts.iter().enumerate() {
                self.check_tls_host(ingress, &entry, j, host, rules);
                self.claim(ingress, &entry, host, service);
                // The first entry that names a host decides; a second claim is reported by the table.
                entries.entry(Str::clone(host)).or_insert_with(|| Arc::clone(&entry));
            }
        }
        if !entries.is_empty()
            && let Some(name) = &self.context.config.default_tls_secret
        {
            let default = self.context.certificate(name);
            if let Err(why) = &default {
                self.context.report.default_certificate_error(why);
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
        ingress: &Arc<Ingress>,
        entry: &TlsEntry,
        host: &Str,
        service: &NamespacedName,
    ) {
        let kind = match &entry.loaded {
            Ok(loaded) => TlsClaimKind::Terminate(Arc::clone(&loaded.certificate)),
            Err(why) => TlsClaimKind::Refuse(Arc::clone(why)),
        };
        let field = format!("{}.secretName", entry.field).into();
        let claim = TlsClaim { ingress: Arc::clone(ingress), field, kind };
        if let Some(table) = self.tables.get_mut(service) {
            table.tls.entry(Str::clone(host)).or_default().push(claim);
        }
    }

    fn tls_secret(
        &mut self,
        ingress: &Ingress,
        tls: &IngressTls,
        field: &str,
    ) -> Result<Loaded, Arc<str>> {
        let name = match (&tls.secret, &self.context.config.default_tls_secret) {
            (Some(name), _) => Ok(NamespacedName {
                namespace: Str::clone(&ingress.meta.name.namespace),
                name: Str::clone(name),
            }),
            (None, Some(default)) => Ok(default.clone()),
            (None, None) => {
                Err(Arc::from("there is no secretName, and no default certificate is configured"))
            }
        };
        let loaded = name.and_then(|name| self.context.certificate(&name));
        let hosts = || tls.hosts.join(", ");
        let fault = match &loaded {
            Err(why) => Some(format!("{why}; TLS handshakes for {} are refused", hosts())),
            Ok(Loaded { fault: Some(why), .. }) => {
                Some(format!("{why}; its last good version stays in effect for {}", hosts()))
            }
            Ok(_) => None,
        };
        if let Some(message) = fault {
            self.context.report.ingress_error(ingress, format!("{field}.secretName"), message);
        }
        loaded
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
            self.context.report.ingress_warning(ingress, field.clone(), message);
        }
        let covered = |rule: &Str| {
            let parent = host.strip_prefix("*.");
            parent.is_some() && rule.split_once('.').map(|(_, rest)| rest) == parent
        };
        let served = rules.contains_key(host) || rules.contains_key(ANY_HOST);
        if !served && !rules.keys().any(covered) {
            let hint = closest(host, rules.keys().map(|rule| &**rule));
            let message = format!("no rule is for host {host:?}{hint}; its requests get 404");
            self.context.report.ingress_warning(ingress, field, message);
        }
    }

    // --- TLS passthrough (ING-12) ---

    fn passthrough(&mut self, ingress: &Arc<Ingress>, service: &NamespacedName) {
        if ingress.default_backend.is_some() {
            self.skip(ingress, "spec.defaultBackend", "a default backend is not possible");
        }
        if !ingress.tls.is_empty() {
            let message = "TLS is passed through; the certificates here are not used";
            self.context.report.ingress_warning(ingress, "spec.tls".to_owned(), message.to_owned());
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
                let claim = TlsClaim { ingress: Arc::clone(ingress), field: field.into(), kind };
                if let Some(table) = self.tables.get_mut(service) {
                    table.tls.entry(Str::clone(host)).or_default().push(claim);
                }
            }
        }
    }

    fn skip(&mut self, ingress: &Ingress, field: &str, why: &str) {
        let message = format!("{why} with TLS passthrough; it is left out");
        self.context.report.ingress_error(ingress, field.to_owned(), message);
    }
}

fn add(
    rules: &mut Rules,
    host: &str,
    matcher: Matcher,
    ingress: &Arc<Ingress>,
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
                Rule::new(&rule.ingress, Arc::clone(&rule.field), action, None)
            }));
        } else {
            all.extend(rules.iter().cloned());
        }
    }
}

/// The generated Service; the one from last time if neither its only owner nor its ports changed.
fn made(
    known: &mut MadeServices,
    name: &NamespacedName,
    owners: &[(Arc<Ingress>, Settings)],
    ports: &[Port],
) -> Arc<Service> {
    let [(owner, _)] = owners else { return Arc::new(service::generate(name, owners, ports)) };
    if let Some((known, known_ports, service)) = known.get(name)
        && Arc::ptr_eq(known, owner)
        && known_ports == ports
    {
        return Arc::clone(service);
    }
    let service = Arc::new(service::generate(name, owners, ports));
    known.insert(name.clone(), (Arc::clone(owner), ports.to_vec(), Arc::clone(&service)));
    service
}
