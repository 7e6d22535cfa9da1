//! Filters of routes. What cannot be honoured makes the rule answer with an error: it never forwards without it.
use std::sync::Arc;

use super::backend::{Backends, Traffic, Use};
use super::status::Fault;
use crate::api::meta::{NamespacedName, Str};
use crate::api::object::gateway_route::{
    BackendRef, CorsFilter, ExternalAuthFilter, HeaderModifier, PathModifier, RequestRedirect,
    RouteFilter,
};
use crate::api::route::{
    Backend, Cors, ExternalAuth, Filters, HeaderChange, Mirror, PathRewrite, Redirect, Target,
    UrlRewrite,
};

/// Header fields that frame messages or belong to one connection (RFC 9110 section 7.6.1, RFC 9112 section 6): a
/// filter that sets one could make two messages of one.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Where filters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// `rules[].filters`
    Rule,
    /// `rules[].backendRefs[].filters`
    Backend,
}

/// What compiling the parts of a route brings to light.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What makes ResolvedRefs False, and the field.
    pub(super) unresolved: Vec<(String, Fault)>,
    /// The Services it leads to.
    pub(super) services: Vec<NamespacedName>,
}

/// Filters that can be honoured.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) filters: Filters,
    pub(super) redirect: Option<Redirect>,
}

/// Why a rule (or a backend) cannot forward.
#[derive(Debug)]
pub(super) enum Broken {
    /// The filters themselves: the rule is not accepted.
    Invalid(Fault),
    /// What they refer to.
    Unresolved(Fault),
}

// === impl Broken ===

impl Broken {
    pub(super) const fn fault(&self) -> &Fault {
        match self {
            Self::Invalid(fault) | Self::Unresolved(fault) => fault,
        }
    }
}

// === impl Findings ===

impl Findings {
    /// Looks a backend up and notes what is found.
    pub(super) fn resolve(
        &mut self,
        backends: &mut Backends<'_, '_>,
        of: Use<'_>,
        reference: &BackendRef,
        field: &str,
    ) -> (Backend, Option<Fault>) {
        let (backend, fault) = backends.resolve(of, reference);
        if &*reference.object.kind == "Service" {
            let namespace = reference.object.namespace.as_ref().unwrap_or(of.from.namespace);
            self.services.push(NamespacedName {
                namespace: Str::clone(namespace),
                name: Str::clone(&reference.object.name),
            });
        }
        if let Some(fault) = &fault {
            self.unresolved.push((field.to_owned(), fault.clone()));
        }
        (backend, fault)
    }
}

/// Compiles `filters`, written at `field`; `prefixes` tells whether all matches of the rule are path prefixes.
pub(super) fn compile(
    backends: &mut Backends<'_, '_>,
    of: Use<'_>,
    filters: &[RouteFilter],
    level: Level,
    prefixes: bool,
    field: &str,
    findings: &mut Findings,
) -> Result<Compiled, Broken> {
    let mut compiled = Compiled::default();
    compatible(filters, level).map_err(Broken::Invalid)?;
    for (at, filter) in filters.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let invalid = |why: String| Broken::Invalid(Fault::new("UnsupportedValue", why));
        let Compiled { filters, redirect } = &mut compiled;
        match filter {
            RouteFilter::RequestHeaders(change) => {
                filters.request = header_change(change, true).map_err(invalid)?;
            }
            RouteFilter::ResponseHeaders(change) => {
                filters.response = header_change(change, false).map_err(invalid)?;
            }
            RouteFilter::Redirect(wanted) => {
                *redirect = Some(redirection(wanted, prefixes).map_err(invalid)?);
            }
            RouteFilter::Rewrite { hostname, path } => {
                let host = hostname.as_ref().map(host).transpose().map_err(invalid)?;
                let path = path_rewrite(path.as_ref(), prefixes).map_err(invalid)?;
                filters.rewrite = UrlRewrite { host, path };
            }
            RouteFilter::Mirror { backend, fraction } => {
                let field = format!("{field}.requestMirror.backendRef");
                let (backend, _) = findings.resolve(backends, of, backend, &field);
                // The request itself goes on without the copy; the status says so.
                if matches!(backend.target, Target::Service(_)) {
                    filters.mirrors.push(Mirror { backend, fraction: *fraction });
                }
            }
            RouteFilter::Cors(wanted) => {
                filters.cors = Some(Arc::new(cors(wanted).map_err(invalid)?));
            }
            RouteFilter::ExternalAuth(wanted) => {
                let auth = external_auth(backends, of, wanted, &field, findings)?;
                filters.auth = Some(Arc::new(auth));
            }
            RouteFilter::Extension(object) => {
                return Err(invalid(format!(
                    "ExtensionRef to {} {} ({}): no such filters are known",
                    object.kind, object.name, object.group
                )));
            }
            RouteFilter::Unknown(name) => {
                return Err(invalid(format!("filters of type {name} are not supported")));
            }
        }
    }
    Ok(compiled)
}

/// Whether the filters can be together, and where they are written.
fn compatible(filters: &[RouteFilter], level: Level) -> Result<(), Fault> {
    let mut seen: Vec<&str> = Vec::new();
    for filter in filters {
        let name = type_of(filter);
        let repeats = seen.contains(&name);
        if repeats && !matches!(filter, RouteFilter::Mirror { .. } | RouteFilter::Extension(_)) {
            let message = format!("there are several filters of type {name}");
            return Err(Fault::new("IncompatibleFilters", message));
        }
        seen.push(name);
        let at_rule_only = ["RequestRedirect", "CORS", "ExternalAuth"].contains(&name);
        if level == Level::Backend && at_rule_only {
            let message = format!("a filter of type {name} is possible for a whole rule only");
            return Err(Fault::new("UnsupportedValue", message));
        }
    }
    if seen.contains(&"RequestRedirect") && seen.contains(&"URLRewrite") {
        let message = "URLRewrite and RequestRedirect exclude each other";
        return Err(Fault::new("IncompatibleFilters", message));
    }
    Ok(())
}

fn type_of(filter: &RouteFilter) -> &str {
    match filter {
        RouteFilter::RequestHeaders(_) => "RequestHeaderModifier",
        RouteFilter::ResponseHeaders(_) => "ResponseHeaderModifier",
        RouteFilter::Redirect(_) => "RequestRedirect",
        RouteFilter::Rewrite { .. } => "URLRewrite",
        RouteFilter::Mirror { .. } => "RequestMirror",
        RouteFilter::Cors(_) => "CORS",
        RouteFilter::ExternalAuth(_) => "ExternalAuth",
        RouteFilter::Extension(_) => "ExtensionRef",
        RouteFilter::Unknown(name) => name,
    }
}

fn header_change(change: &HeaderModifier, request: bool) -> Result<HeaderChange, String> {
    let names = change.set.iter().chain(&change.add).map(|(name, _)| name).chain(&change.remove);
    for name in names {
        header_name(name)?;
        if request && name.eq_ignore_ascii_case("host") {
            return Err("the Host header is changed by URLRewrite.hostname".to_owned());
        }
    }
    for (name, value) in change.set.iter().chain(&change.add) {
        header_value(value).map_err(|why| format!("header {name}: {why}"))?;
    }
    Ok(HeaderChange {
        remove: change.remove.clone(),
        set: change.set.clone(),
        add: change.add.clone(),
    })
}

/// RFC 9110 section 5.1, without what frames messages.
pub(super) fn header_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{name:?} is not the name of a header"));
    }
    if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
        return Err(format!("the header {name} belongs to the connection and cannot be changed"));
    }
    Ok(())
}

/// RFC 9110 section 5.5.
fn header_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return Err(format!("{value:?} has characters that no header can have"));
    }
    Ok(())
}

fn host(name: &Str) -> Result<Str, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(format!("{name:?} is not a hostname"));
    }
    Ok(Str::clone(name))
}

/// Only what can stand in the path of a URI (RFC 3986 section 3.3), so that nothing ends it.
fn path(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
    if text.bytes().all(fits) { Ok(()) } else { Err(format!("{text:?} is not a path")) }
}

fn path_rewrite(
    wanted: Option<&PathModifier>,
    prefixes: bool,
) -> Result<Option<PathRewrite>, String> {
    let Some(wanted) = wanted else { return Ok(None) };
    let with_slash = |text: &Str| -> Str {
        if text.starts_with('/') { Str::clone(text) } else { format!("/{text}").into() }
    };
    match wanted {
        PathModifier::Full(text) => {
            path(text)?;
            Ok(Some(PathRewrite::Full(with_slash(text))))
        }
        PathModifier::Prefix(text) => {
            path(text)?;
            if !prefixes {
                return Err("ReplacePrefixMatch needs matches of type PathPrefix only".to_owned());
            }
            Ok(Some(PathRewrite::Prefix(with_slash(text))))
        }
    }
}

fn redirection(wanted: &RequestRedirect, prefixes: bool) -> Result<Redirect, String> {
    if !matches!(wanted.status, 301 | 302 | 303 | 307 | 308) {
        return Err(format!("{} is not the status of a redirect", wanted.status));
    }
    if let Some(scheme) = wanted.scheme.as_ref().filter(|s| !["http", "https"].contains(&&***s)) {
        return Err(format!("scheme {scheme} is not supported"));
    }
    Ok(Redirect {
        scheme: wanted.scheme.clone(),
        host: wanted.hostname.as_ref().map(host).transpose()?,
        port: wanted.port,
        path: path_rewrite(wanted.path.as_ref(), prefixes)?,
        status: wanted.status,
    })
}

fn cors(wanted: &CorsFilter) -> Result<Cors, String> {
    let names = wanted.headers.iter().chain(&wanted.expose).chain(&wanted.methods);
    for value in names.chain(&wanted.origins) {
        header_value(value)?;
    }
    Ok(Cors {
        origins: wanted.origins.clone(),
        credentials: wanted.credentials,
        methods: wanted.methods.clone(),
        headers: wanted.headers.clone(),
        expose: wanted.expose.clone(),
        max_age: wanted.max_age,
    })
}

fn external_auth(
    backends: &mut Backends<'_, '_>,
    of: Use<'_>,
    wanted: &ExternalAuthFilter,
    field: &str,
    findings: &mut Findings,
) -> Result<ExternalAuth, Broken> {
    let invalid = |why: String| Broken::Invalid(Fault::new("UnsupportedValue", why));
    path(&wanted.path).map_err(invalid)?;
    let traffic = if wanted.grpc { Traffic::Grpc } else { Traffic::Http };
    let of = Use { traffic, ..of };
    let field = format!("{field}.externalAuth.backendRef");
    let (backend, fault) = findings.resolve(backends, of, &wanted.backend, &field);
    if let Target::Refuse(_, why) = &backend.target {
        let why = format!("nobody can be asked whether the request may pass: {why}");
        let reason = fault.map_or("BackendNotFound", |fault| fault.reason);
        return Err(Broken::Unresolved(Fault::new(reason, why)));
    }
    let lower = |names: &[Str]| names.iter().map(|name| name.to_ascii_lowercase().into()).collect();
    Ok(ExternalAuth {
        backend,
        grpc: wanted.grpc,
        path: Str::clone(&wanted.path),
        allowed_headers: lower(&wanted.allowed_headers),
        allowed_response_headers: lower(&wanted.allowed_response_headers),
        body_limit: wanted.body_limit,
    })
}
