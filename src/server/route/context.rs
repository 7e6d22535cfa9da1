//! What the compilers of Ingress and Gateway API share: the snapshot, the caches, the complaints, and how a Service's
//! port, a certificate or a regular expression is looked up.
use std::collections::HashSet;
use std::sync::Arc;

use super::authority::AuthorityCache;
use super::certificate::{Certificates, Loaded};
use super::compile::MadeServices;
use super::report::Report;
use super::suggest::closest;
use super::table::Regexes;
use super::upstream;
use crate::api::address::Port;
use crate::api::config::Config;
use crate::api::endpoint::ServicePort;
use crate::api::meta::{Kind, NamespacedName, Str};
use crate::api::object::{PortProtocol, Service, ServicePortRef, ServicePortSpec, ServiceType};
use crate::api::objects::Objects;
use crate::api::problem::Severity;
use crate::api::route::PathRegex;

/// The compiled size of one regular expression, in bytes. Those for paths need a few hundred.
const MAX_REGEX_SIZE: usize = 256 * 1024;

/// What is kept from one compilation to the next.
#[derive(Default)]
pub(super) struct Caches {
    pub(super) certificates: Certificates,
    pub(super) authorities: AuthorityCache,
    pub(super) regexes: Regexes,
    /// How many regular expressions were compiled; what the tests count.
    pub(super) compiled_regexes: u64,
    /// The Services of dedicated Ingresses with what they were made from.
    pub(super) services: MadeServices,
}

/// One compilation.
pub(super) struct Context<'a> {
    pub(super) objects: &'a Objects,
    pub(super) config: &'a Config,
    pub(super) caches: &'a mut Caches,
    /// The time in seconds since 1970.
    pub(super) unix: u64,
    pub(super) report: Report,
    /// When the next certificate in use becomes valid or expires, seconds since 1970.
    pub(super) next_change: Option<u64>,
    /// How Services in use are talked to.
    pub(super) settings: upstream::Settings,
    /// The regular expressions in use.
    patterns: HashSet<Str>,
}

/// A port of a Service, looked up.
pub(super) struct FoundPort<'a> {
    pub(super) service: &'a Arc<Service>,
    pub(super) spec: &'a ServicePortSpec,
}

// === impl Context ===

impl<'a> Context<'a> {
    pub(super) fn new(
        objects: &'a Objects,
        config: &'a Config,
        caches: &'a mut Caches,
        unix: u64,
    ) -> Self {
        Self {
            objects,
            config,
            caches,
            unix,
            report: Report::default(),
            next_change: None,
            settings: upstream::Settings::new(),
            patterns: HashSet::new(),
        }
    }

    /// Forgets what this compilation has not used.
    pub(super) fn sweep(&mut self) {
        self.caches.certificates.sweep();
        self.caches.authorities.sweep();
        let patterns = &self.patterns;
        self.caches.regexes.retain(|pattern, _| patterns.contains(pattern));
    }

    /// The compiled expression, or why it is none.
    pub(super) fn regex(&mut self, pattern: &Str) -> Result<Arc<PathRegex>, Arc<str>> {
        self.patterns.insert(Str::clone(pattern));
        if let Some(known) = self.caches.regexes.get(pattern) {
            return known.clone();
        }
        self.caches.compiled_regexes += 1;
        let result = compile_regex(pattern);
        self.caches.regexes.insert(Str::clone(pattern), result.clone());
        result
    }

    /// The Service's port, or which part of the reference is wrong and why.
    pub(super) fn service_port(
        &self,
        key: &NamespacedName,
        port: &ServicePortRef,
        protocol: PortProtocol,
    ) -> Result<FoundPort<'a>, (&'static str, String)> {
        let objects = self.objects;
        let Some(service) = objects.services.get(key) else {
            let same = |other: &&NamespacedName| other.namespace == key.namespace;
            let candidates = objects.services.keys().filter(same).map(|other| &*other.name);
            let hint = closest(&key.name, candidates);
            return Err(("name", format!("Service {key} does not exist{hint}")));
        };
        if service.kind == ServiceType::ExternalName {
            let why = format!("Service {key} is of type ExternalName, which has no endpoints");
            return Err(("name", why));
        }
        let what = if protocol == PortProtocol::Udp { "UDP" } else { "TCP" };
        let ports = || service.ports.iter().filter(|spec| spec.protocol == protocol);
        match port {
            ServicePortRef::Number(number) => {
                if let Some(spec) = ports().find(|spec| spec.port == *number) {
                    return Ok(FoundPort { service, spec });
                }
                let ports: Vec<String> = ports().map(|spec| spec.port.to_string()).collect();
                let has = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
                let why = format!("Service {key} has no {what} port {number} (it has {has})");
                Err(("port.number", why))
            }
            ServicePortRef::Name(name) => {
                if let Some(spec) = ports().find(|spec| spec.name == *name) {
                    return Ok(FoundPort { service, spec });
                }
                let hint = closest(name, ports().map(|spec| &*spec.name));
                let why = format!("Service {key} has no {what} port named {name:?}{hint}");
                Err(("port.name", why))
            }
        }
    }

    /// The certificate in a Secret; what is worth knowing about the Secret is reported.
    pub(super) fn certificate(&mut self, name: &NamespacedName) -> Result<Loaded, Arc<str>> {
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
                    let message = format!(
                        "the certificate in tls.crt expired {days} days ago; clients refuse it"
                    );
                    warn("data", message);
                }
                if info.not_before > self.unix {
                    let message = "the certificate in tls.crt is not valid yet; clients refuse it";
                    warn("data", message.to_owned());
                }
                let times = [info.not_before, info.not_after + 1];
                let next = times.into_iter().filter(|&time| time > self.unix).min();
                self.next_change = self.next_change.into_iter().chain(next).min();
            }
        }
        Ok(loaded)
    }
}

// === impl FoundPort ===

impl FoundPort<'_> {
    /// As the endpoint server knows it.
    pub(super) fn port(&self) -> ServicePort {
        let service = self.service.meta.name.clone();
        ServicePort { service, port: Port(self.spec.port), protocol: self.spec.protocol }
    }
}

/// Compiles `pattern` for whole paths. It is compiled by itself first, so that `a)(b` is an error.
fn compile_regex(pattern: &Str) -> Result<Arc<PathRegex>, Arc<str>> {
    let build = |text: &str| {
        regex_lite::RegexBuilder::new(text)
            .size_limit(MAX_REGEX_SIZE)
            .build()
            .map_err(|error| Arc::from(error.to_string()))
    };
    build(pattern)?;
    let regex = build(&format!("^(?:{pattern})$"))?;
    Ok(Arc::new(PathRegex { pattern: Str::clone(pattern), regex }))
}
