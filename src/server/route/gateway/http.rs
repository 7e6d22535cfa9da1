//! HTTPRoutes and GRPCRoutes to routes with what they match (spec 5.5, 5.6).
use std::sync::Arc;
use std::time::Duration;

use super::backend::{Backends, Traffic, Use};
use super::filter::{self, Broken, Findings, Level};
use super::status::Fault;
use crate::api::meta::{Kind, Meta, ObjectKey, Str};
use crate::api::object::gateway::SessionPersistence;
use crate::api::object::gateway_route::{
    BackendRef, GrpcRoute, GrpcRouteMatch, HttpRoute, HttpRouteMatch, HttpRouteRule, PathMatcher,
    RouteFilter, RouteRetry, ValueMatcher,
};
use crate::api::route::{
    Action, Backend, Conditions, PathRegex, RetryBudget, RetryPolicy, Route, Session, SessionKind,
    Target, ValueMatch,
};
use crate::arrange::Arrange;

/// The least time between two attempts if a route does not say; Envoy's.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// The name of a session whose route does not give one.
const DEFAULT_SESSION: &str = "pilus-session";

/// A route object with all its rules compiled, for one Gateway.
#[derive(Debug)]
pub(super) struct CompiledRoute {
    pub(super) rules: Vec<CompiledRule>,
    pub(super) findings: Findings,
    /// Rules that are not accepted, and the field.
    pub(super) invalid: Vec<(String, Fault)>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) route: Arc<Route>,
    pub(super) matches: Vec<Match>,
}

/// One match of a rule.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) path: PathKey,
    pub(super) conditions: Option<Arc<Conditions>>,
    /// What is more specific, among matches with the same path, is larger: a method, then the number of headers,
    /// then that of query parameters.
    pub(super) rank: (bool, usize, usize),
}

/// Where a match is looked up.
#[derive(Debug)]
pub(super) enum PathKey {
    Exact(Str),
    /// Without the trailing slash.
    Prefix(Str),
    /// With its precedence among regular expressions: the larger goes first.
    Regex(Arc<PathRegex>, (usize, usize)),
}

/// The parts of a rule that HTTPRoute and GRPCRoute have in common.
struct RuleParts<'r> {
    field: String,
    name: Option<&'r Str>,
    filters: &'r [RouteFilter],
    backends: &'r [BackendRef],
    session: Option<&'r SessionPersistence>,
    /// Whether all matches are path prefixes.
    prefixes: bool,
}

/// Compiles an HTTPRoute.
pub(super) fn http(
    backends: &mut Backends<'_, '_>,
    of: Use<'_>,
    route: &HttpRoute,
) -> CompiledRoute {
    let mut compiler = Compiler::new(backends, of, Kind::HttpRoute, &route.meta);
    for (at, rule) in route.rules.iter().enumerate() {
        compiler.http_rule(at, rule);
    }
    compiler.done
}

/// Compiles a GRPCRoute.
pub(super) fn grpc(
    backends: &mut Backends<'_, '_>,
    of: Use<'_>,
    route: &GrpcRoute,
) -> CompiledRoute {
    let of = Use { traffic: Traffic::Grpc, ..of };
    let mut compiler = Compiler::new(backends, of, Kind::GrpcRoute, &route.meta);
    let needs_regex =
        |it: &GrpcRouteMatch| it.regex || (it.service.is_none() && it.method.is_some());
    let loose = route.rules.iter().flat_map(|rule| &rule.matches).any(needs_regex);
    for (at, rule) in route.rules.iter().enumerate() {
        let field = format!("spec.rules[{at}]");
        let parts = RuleParts {
            field: field.clone(),
            name: rule.name.as_ref(),
            filters: &rule.filters,
            backends: &rule.backends,
            session: rule.session.as_ref(),
            prefixes: false,
        };
        let compiled = compiler.rule(&parts);
        let any = [GrpcRouteMatch::default()];
        let matches = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
        let matches = matches.iter().enumerate();
        let matches = matches
            .filter_map(|(i, wanted)| {
                let field = format!("{field}.matches[{i}]");
                let path = compiler.grpc_path(wanted, loose, &field)?;
                compiler.matched(path, &wanted.headers, &[], None, &field)
            })
            .collect();
        compiler.done.rules.push(CompiledRule { route: Arc::new(compiled), matches });
    }
    compiler.done
}

struct Compiler<'b, 'c, 'a> {
    backends: &'b mut Backends<'c, 'a>,
    of: Use<'b>,
    key: ObjectKey,
    meta: &'b Meta,
    done: CompiledRoute,
}

// === impl Compiler ===

impl<'b, 'c, 'a> Compiler<'b, 'c, 'a> {
    fn new(backends: &'b mut Backends<'c, 'a>, of: Use<'b>, kind: Kind, meta: &'b Meta) -> Self {
        let key = ObjectKey { kind, name: meta.name.clone() };
        let done =
            CompiledRoute { rules: Vec::new(), findings: Findings::default(), invalid: Vec::new() };
        Self { backends, of, key, meta, done }
    }

    fn http_rule(&mut self, at: usize, rule: &HttpRouteRule) {
        let field = format!("spec.rules[{at}]");
        let root = [HttpRouteMatch {
            path: PathMatcher::Prefix("/".into()),
            headers: Vec::new(),
            query: Vec::new(),
            method: None,
        }];
        let matches = if rule.matches.is_empty() { &root[..] } else { &rule.matches };
        let parts = RuleParts {
            field: field.clone(),
            name: rule.name.as_ref(),
            filters: &rule.filters,
            backends: &rule.backends,
            session: rule.session.as_ref(),
            prefixes: matches.iter().all(|m| matches!(m.path, PathMatcher::Prefix(_))),
        };
        let mut route = self.rule(&parts);
        route.request_timeout = rule.request_timeout.filter(|time| !time.is_zero());
        route.backend_timeout = rule.backend_timeout.filter(|time| !time.is_zero());
        let budget = self.budget(&route.action);
        route.retry = rule.retry.as_ref().map(|retry| retry_policy(retry, budget));
        let matches = matches
            .iter()
            .enumerate()
            .filter_map(|(i, wanted)| {
                let field = format!("{field}.matches[{i}]");
                let path = self.http_path(&wanted.path, &field)?;
                let method = wanted.method.as_ref();
                self.matched(path, &wanted.headers, &wanted.query, method, &field)
            })
            .collect();
        self.done.rules.push(CompiledRule { route: Arc::new(route), matches });
    }

    /// What a rule does; one that cannot be honoured answers with an error.
    fn rule(&mut self, parts: &RuleParts<'_>) -> Route {
        let field = format!("{}.filters", parts.field);
        let compiled = filter::compile(
            self.backends,
            self.of,
            parts.filters,
            Level::Rule,
            parts.prefixes,
            &field,
            &mut self.done.findings,
        );
        let mut route = match compiled {
            Ok(compiled) => {
                // Also for a redirect, so that the status tells what is wrong with the backends.
                let forward = self.forward(parts);
                let action = compiled.redirect.map_or(forward, Action::Redirect);
                Route { filters: compiled.filters, ..Route::new(action) }
            }
            Err(broken) => {
                let fault = broken.fault().clone();
                let route = Route::new(self.refuse(&fault.message));
                if let Broken::Invalid(_) = broken {
                    self.invalid(field, fault);
                }
                let _ = self.forward(parts);
                route
            }
        };
        route.origins = vec![(self.key.clone(), parts.field.clone())];
        route.name = parts.name.map(Str::clone);
        route.session = self.session(parts, &route.action);
        route
    }

    /// 500; for gRPC what its clients take for UNAVAILABLE (spec 5.6).
    fn refuse(&self, why: &str) -> Action {
        let status = if self.of.traffic == Traffic::Grpc { 503 } else { 500 };
        Action::Refuse(status, why.to_owned())
    }

    fn invalid(&mut self, field: String, fault: Fault) {
        self.done.invalid.push((field, fault));
    }

    fn forward(&mut self, parts: &RuleParts<'_>) -> Action {
        if parts.backends.is_empty() {
            return self.refuse("the rule has no backendRefs");
        }
        let mut all = Vec::with_capacity(parts.backends.len());
        for (at, reference) in parts.backends.iter().enumerate() {
            let field = format!("{}.backendRefs[{at}]", parts.field);
            all.push(self.backend(reference, &field, parts.prefixes));
        }
        if all.iter().all(|backend| backend.weight == 0) {
            return self.refuse("all backends have weight 0");
        }
        Action::Forward(all)
    }

    fn backend(&mut self, reference: &BackendRef, field: &str, prefixes: bool) -> Backend {
        let findings = &mut self.done.findings;
        let (mut backend, _) = findings.resolve(self.backends, self.of, reference, field);
        if reference.filters.is_empty() {
            return backend;
        }
        let field = format!("{field}.filters");
        let compiled = filter::compile(
            self.backends,
            self.of,
            &reference.filters,
            Level::Backend,
            prefixes,
            &field,
            findings,
        );
        match compiled {
            Ok(compiled) => {
                let filters = compiled.filters;
                backend.filters = (!filters.is_empty()).then(|| Arc::new(filters));
            }
            Err(broken) => {
                let fault = broken.fault().clone();
                backend.target = Target::Refuse(500, fault.message.clone());
                if let Broken::Invalid(_) = broken {
                    self.invalid(field, fault);
                }
            }
        }
        backend
    }

    // --- matches ---

    fn http_path(&mut self, path: &PathMatcher, field: &str) -> Option<PathKey> {
        match path {
            PathMatcher::Exact(path) => Some(PathKey::Exact(Str::clone(path))),
            PathMatcher::Prefix(path) => Some(PathKey::Prefix(path.trim_end_matches('/').into())),
            PathMatcher::Regex(pattern) => {
                let regex = self.regex(pattern, &format!("{field}.path"))?;
                Some(PathKey::Regex(regex, (pattern.len(), 0)))
            }
        }
    }

    /// `/service/method` is the path of a call. Beside matches that need a regular expression (`loose`) one for a
    /// service alone is one as well, so that the longer service goes first (spec 5.6).
    fn grpc_path(&mut self, wanted: &GrpcRouteMatch, loose: bool, field: &str) -> Option<PathKey> {
        let any = || "[^/]+".to_owned();
        let (service, method) = (wanted.service.as_deref(), wanted.method.as_deref());
        let pattern = match (service, method, wanted.regex) {
            (None, None, _) => return Some(PathKey::Prefix("".into())),
            (Some(service), Some(method), false) => {
                return Some(PathKey::Exact(format!("/{service}/{method}").into()));
            }
            (Some(service), None, false) if !loose => {
                return Some(PathKey::Prefix(format!("/{service}").into()));
            }
            (service, method, regex) => {
                let part = |text: Option<&str>| match text {
                    None => any(),
                    Some(text) if regex => format!("(?:{text})"),
                    Some(text) => regex_lite::escape(text),
                };
                format!("/{}/{}", part(service), part(method))
            }
        };
        let rank = (service.map_or(0, str::len), method.map_or(0, str::len));
        let regex = self.regex(&pattern.into(), &format!("{field}.method"))?;
        Some(PathKey::Regex(regex, rank))
    }

    /// A match that cannot be compiled makes nothing reachable: it is left out, and the route is told.
    fn regex(&mut self, pattern: &Str, field: &str) -> Option<Arc<PathRegex>> {
        match self.backends.context.regex(pattern) {
            Ok(regex) => Some(regex),
            Err(why) => {
                let message = format!("{pattern:?} is not a regular expression: {why}");
                self.invalid(field.to_owned(), Fault::new("UnsupportedValue", message));
                None
            }
        }
    }

    fn matched(
        &mut self,
        path: PathKey,
        headers: &[ValueMatcher],
        query: &[ValueMatcher],
        method: Option<&Str>,
        field: &str,
    ) -> Option<Match> {
        let rank = (method.is_some(), headers.len(), query.len());
        if rank == (false, 0, 0) {
            return Some(Match { path, conditions: None, rank });
        }
        let conditions = Conditions {
            method: method.map(Str::clone),
            headers: self.values(headers, field)?,
            query: self.values(query, field)?,
        };
        Some(Match { path, conditions: Some(Arc::new(conditions)), rank })
    }

    fn values(&mut self, wanted: &[ValueMatcher], field: &str) -> Option<Vec<(Str, ValueMatch)>> {
        let mut values = Vec::with_capacity(wanted.len());
        for matcher in wanted {
            let value = if matcher.regex {
                ValueMatch::Regex(self.regex(&matcher.value, field)?)
            } else {
                ValueMatch::Exact(Str::clone(&matcher.value))
            };
            values.push((Str::clone(&matcher.name), value));
        }
        Some(values)
    }

    // --- policies ---

    /// The budget for retries to the first backend that has one.
    fn budget(&self, action: &Action) -> Option<RetryBudget> {
        services(action).find_map(|service| {
            let retry = self.backends.policies.traffic(service)?.retry?;
            Some(RetryBudget {
                percent: retry.percent,
                interval: retry.interval,
                minimum: retry.minimum,
            })
        })
    }

    /// The rule's own session, or that of the policy of the first backend that has one.
    fn session(&mut self, parts: &RuleParts<'_>, action: &Action) -> Option<Session> {
        let policies = self.backends.policies;
        let of_backend = || services(action).find_map(|s| policies.traffic(s)?.session.as_ref());
        let wanted = parts.session.or_else(of_backend)?;
        let name = wanted.name.as_deref().unwrap_or(DEFAULT_SESSION);
        let fault = match filter::header_name(name) {
            Err(why) => Some(why),
            Ok(()) if wanted.permanent && wanted.absolute_timeout.is_none() => {
                Some("a permanent session cookie needs an absoluteTimeout".to_owned())
            }
            Ok(()) => None,
        };
        if let Some(why) = fault {
            let field = format!("{}.sessionPersistence", parts.field);
            let message = format!("{why}; sessions are not kept");
            self.backends.context.report.error(self.key.kind, self.meta, field, message);
            return None;
        }
        let kind = match (wanted.header, wanted.permanent) {
            (true, _) => SessionKind::Header,
            (false, true) => SessionKind::PermanentCookie,
            (false, false) => SessionKind::SessionCookie,
        };
        Some(Session { name: name.into(), kind, absolute_timeout: wanted.absolute_timeout })
    }
}

fn services(action: &Action) -> impl Iterator<Item = &crate::api::meta::NamespacedName> {
    let backends = match action {
        Action::Forward(backends) => &backends[..],
        _ => &[],
    };
    backends.iter().filter_map(|backend| match &backend.target {
        Target::Service(port) => Some(&port.service),
        Target::Refuse(..) => None,
    })
}

fn retry_policy(retry: &RouteRetry, budget: Option<RetryBudget>) -> RetryPolicy {
    let mut codes = retry.codes.clone();
    codes.arrange();
    codes.dedup();
    RetryPolicy {
        codes,
        attempts: retry.attempts.unwrap_or(1),
        backoff: retry.backoff.unwrap_or(DEFAULT_BACKOFF),
        on_failure: true,
        budget,
    }
}
