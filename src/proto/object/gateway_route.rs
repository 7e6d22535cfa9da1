//! HTTPRoute, GRPCRoute, TLSRoute, TCPRoute and UDPRoute. Besides the schema: what the CRDs say in CEL rules (v1.6.1),
//! and that regular expressions are some. Defaults have been filled in before.
use super::faults::Faults;
use super::gateway::{list, object_ref, word};
use super::gateway_filter::filters;
use super::gateway_policy::{duration, session};
use super::service::{mark_of, port_number, text, texts};
use super::{http_names, names};
use crate::api::meta::{Meta, Str};
use crate::api::object::gateway_route::{
    BackendRef, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, HttpRoute, HttpRouteMatch, HttpRouteRule,
    L4Route, ParentRef, PathMatcher, PathModifier, RouteFilter, RouteRetry, ValueMatcher,
};
use crate::proto::value::Value;

/// How many matches all rules of a route may have together.
const MAX_MATCHES: usize = 128;

fn parents(spec: &Value, faults: &mut Faults) -> Vec<ParentRef> {
    let mut all: Vec<ParentRef> = Vec::new();
    for (at, value) in list(spec, "parentRefs") {
        let parent = ParentRef {
            object: object_ref(value),
            section: text(value, "sectionName").map(Str::from),
            port: port_number(value, "port"),
        };
        let clash = all.iter().position(|known| {
            let kinds = |it: &ParentRef| (it.section.is_some(), it.port.is_some());
            known.object == parent.object
                && (kinds(known) != kinds(&parent)
                    || known.section == parent.section && known.port == parent.port)
        });
        if let Some(first) = clash {
            let message = format!(
                "refers to the parent of parentRefs[{first}]: each needs a sectionName or port of its own then"
            );
            faults.error(value.mark, format!("spec.parentRefs[{at}]"), message);
        }
        all.push(parent);
    }
    all
}

fn hostnames(spec: &Value) -> Vec<Str> {
    texts(spec, "hostnames").map(Str::from).collect()
}

fn default_gateways(spec: &Value) -> bool {
    text(spec, "useDefaultGateways") == Some("All")
}

/// A reference to a backend, which is written at `field`.
pub(super) fn backend(value: &Value, field: &str, faults: &mut Faults) -> BackendRef {
    let object = object_ref(value);
    if object.group.is_empty() && &*object.kind == "Service" && value.get("port").is_none() {
        let message = "required for a Service";
        faults.error(value.mark, format!("{field}.port"), message);
    }
    let weight = value.get("weight").and_then(Value::as_int);
    BackendRef {
        object,
        port: port_number(value, "port"),
        weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1),
        filters: filters(value, field, faults),
    }
}

fn backends(rule: &Value, field: &str, faults: &mut Faults) -> Vec<BackendRef> {
    let each = |(at, value)| backend(value, &format!("{field}.backendRefs[{at}]"), faults);
    list(rule, "backendRefs").map(each).collect()
}

/// The names of rules are unique, and there are not too many matches.
fn check_rules(spec: &Value, faults: &mut Faults) {
    let rules = spec.get("rules").map_or(&[][..], Value::items);
    for (at, rule) in rules.iter().enumerate() {
        let Some(name) = text(rule, "name") else { continue };
        if let Some(first) = rules[..at].iter().position(|known| text(known, "name") == Some(name))
        {
            let message = format!("`{name}` is the name of rules[{first}] already");
            faults.error(mark_of(rule, "name"), format!("spec.rules[{at}].name"), message);
        }
    }
    let matches: usize = rules.iter().map(|rule| list(rule, "matches").count()).sum();
    if matches > MAX_MATCHES {
        let message = format!("{matches} matches in all rules; at most {MAX_MATCHES} are allowed");
        faults.error(mark_of(spec, "rules"), "spec.rules", message);
    }
}

pub(super) fn http_route(meta: Meta, spec: &Value, faults: &mut Faults) -> HttpRoute {
    check_rules(spec, faults);
    HttpRoute {
        meta,
        parents: parents(spec, faults),
        hostnames: hostnames(spec),
        rules: list(spec, "rules").map(|(at, rule)| http_rule(rule, at, faults)).collect(),
        default_gateways: default_gateways(spec),
    }
}

fn http_rule(value: &Value, at: usize, faults: &mut Faults) -> HttpRouteRule {
    let field = format!("spec.rules[{at}]");
    let mut matches: Vec<HttpRouteMatch> = list(value, "matches")
        .map(|(at, value)| http_match(value, &format!("{field}.matches[{at}]"), faults))
        .collect();
    if matches.is_empty() {
        let path = PathMatcher::Prefix("/".into());
        matches.push(HttpRouteMatch { path, headers: Vec::new(), query: Vec::new(), method: None });
    }
    let timeouts = value.get("timeouts");
    let timeout = |key| timeouts.and_then(|value| duration(value, key));
    let rule = HttpRouteRule {
        name: text(value, "name").map(Str::from),
        matches,
        filters: filters(value, &field, faults),
        backends: backends(value, &field, faults),
        request_timeout: timeout("request"),
        backend_timeout: timeout("backendRequest"),
        retry: value.get("retry").map(retry),
        session: session(value, &field, faults),
    };
    if let (Some(whole), Some(part)) = (rule.request_timeout, rule.backend_timeout)
        && !whole.is_zero()
        && part > whole
    {
        let mark = timeouts.map_or(value.mark, |value| mark_of(value, "backendRequest"));
        let message = "must not be longer than `request`";
        faults.error(mark, format!("{field}.timeouts.backendRequest"), message);
    }
    check_redirect(&rule, value, &field, faults);
    rule
}

/// The CEL rules about redirects and rewrites.
fn check_redirect(rule: &HttpRouteRule, value: &Value, field: &str, faults: &mut Faults) {
    let redirects = rule.filters.iter().any(|filter| matches!(filter, RouteFilter::Redirect(_)));
    if redirects && !rule.backends.is_empty() {
        let message = "not allowed with a RequestRedirect filter";
        faults.error(mark_of(value, "backendRefs"), format!("{field}.backendRefs"), message);
    }
    let one_prefix =
        matches!(&rule.matches[..], [only] if matches!(only.path, PathMatcher::Prefix(_)));
    let lists = rule.backends.iter().enumerate().map(|(at, backend)| {
        let value = value.get("backendRefs").and_then(|list| list.items().get(at));
        (&backend.filters, value, format!("{field}.backendRefs[{at}]"))
    });
    let own = (&rule.filters, Some(value), field.to_owned());
    for (filters, value, field) in std::iter::once(own).chain(lists) {
        let replaces = |filter: &RouteFilter| {
            let path = match filter {
                RouteFilter::Redirect(redirect) => &redirect.path,
                RouteFilter::Rewrite { path, .. } => path,
                _ => return false,
            };
            matches!(path, Some(PathModifier::Prefix(_)))
        };
        if !one_prefix
            && filters.iter().any(replaces)
            && let Some(value) = value
        {
            let message =
                "ReplacePrefixMatch needs exactly one match in the rule, of type PathPrefix";
            faults.error(mark_of(value, "filters"), format!("{field}.filters"), message);
        }
    }
}

fn retry(value: &Value) -> RouteRetry {
    let codes = value.get("codes").map_or(&[][..], Value::items).iter();
    RouteRetry {
        codes: codes.filter_map(|code| u16::try_from(code.as_int()?).ok()).collect(),
        attempts: value.get("attempts").and_then(Value::as_int).and_then(|n| u32::try_from(n).ok()),
        backoff: duration(value, "backoff"),
    }
}

fn http_match(value: &Value, field: &str, faults: &mut Faults) -> HttpRouteMatch {
    HttpRouteMatch {
        path: path(value, field, faults),
        headers: value_matchers(value, "headers", true, field, faults),
        query: value_matchers(value, "queryParams", false, field, faults),
        method: text(value, "method").map(Str::from),
    }
}

fn path(value: &Value, field: &str, faults: &mut Faults) -> PathMatcher {
    let empty = Value::map();
    let value = value.get("path").unwrap_or(&empty);
    let path = value.get("value").and_then(Value::as_str).unwrap_or("/");
    let kind = text(value, "type");
    let check =
        if kind == Some("RegularExpression") { http_names::path_regex } else { http_names::path };
    if let Err(message) = check(path) {
        faults.error(mark_of(value, "value"), format!("{field}.path.value"), message);
    }
    match kind {
        Some("Exact") => PathMatcher::Exact(path.into()),
        Some("RegularExpression") => PathMatcher::Regex(path.into()),
        _ => PathMatcher::Prefix(path.into()),
    }
}

/// `headers` or `queryParams` within a match; of several with one name the first.
fn value_matchers(
    value: &Value,
    key: &str,
    fold_case: bool,
    field: &str,
    faults: &mut Faults,
) -> Vec<ValueMatcher> {
    let mut all: Vec<ValueMatcher> = Vec::new();
    for (at, value) in list(value, key) {
        let regex = text(value, "type") == Some("RegularExpression");
        let mut name = word(value, "name");
        if fold_case {
            name = name.to_ascii_lowercase().into();
        }
        let wanted = word(value, "value");
        if regex && let Err(message) = names::compile(&wanted) {
            let field = format!("{field}.{key}[{at}].value");
            faults.error(mark_of(value, "value"), field, message);
        }
        if all.iter().all(|known| known.name != name) {
            all.push(ValueMatcher { name, value: wanted, regex });
        }
    }
    all
}

pub(super) fn grpc_route(meta: Meta, spec: &Value, faults: &mut Faults) -> GrpcRoute {
    check_rules(spec, faults);
    GrpcRoute {
        meta,
        parents: parents(spec, faults),
        hostnames: hostnames(spec),
        rules: list(spec, "rules").map(|(at, rule)| grpc_rule(rule, at, faults)).collect(),
        default_gateways: default_gateways(spec),
    }
}

fn grpc_rule(value: &Value, at: usize, faults: &mut Faults) -> GrpcRouteRule {
    let field = format!("spec.rules[{at}]");
    GrpcRouteRule {
        name: text(value, "name").map(Str::from),
        matches: list(value, "matches")
            .map(|(at, value)| grpc_match(value, &format!("{field}.matches[{at}]"), faults))
            .collect(),
        filters: filters(value, &field, faults),
        backends: backends(value, &field, faults),
        session: session(value, &field, faults),
    }
}

fn grpc_match(value: &Value, field: &str, faults: &mut Faults) -> GrpcRouteMatch {
    let headers = value_matchers(value, "headers", true, field, faults);
    let Some(method) = value.get("method") else {
        return GrpcRouteMatch { headers, ..GrpcRouteMatch::default() };
    };
    let regex = text(method, "type") == Some("RegularExpression");
    if method.get("service").is_none() && method.get("method").is_none() {
        let message = "needs `service` or `method`, or both";
        faults.error(mark_of(value, "method"), format!("{field}.method"), message);
    }
    let checks: [(&str, super::schema::Check); 2] = if regex {
        [("service", http_names::path_regex), ("method", http_names::path_regex)]
    } else {
        [("service", http_names::grpc_service), ("method", http_names::grpc_method)]
    };
    for (key, check) in checks {
        if let Some(text) = method.get(key).and_then(Value::as_str)
            && let Err(message) = check(text)
        {
            faults.error(mark_of(method, key), format!("{field}.method.{key}"), message);
        }
    }
    GrpcRouteMatch {
        service: text(method, "service").map(Str::from),
        method: text(method, "method").map(Str::from),
        regex,
        headers,
    }
}

/// A TLSRoute, TCPRoute or UDPRoute. `must_name_hosts`: a TLSRoute of a version that asks for hostnames.
pub(super) fn l4_route(
    meta: Meta,
    spec: &Value,
    must_name_hosts: bool,
    faults: &mut Faults,
) -> L4Route {
    let hostnames = hostnames(spec);
    if must_name_hosts && hostnames.is_empty() {
        let message = "required: the SNI names";
        faults.error(mark_of(spec, "hostnames"), "spec.hostnames", message);
    }
    let rule = list(spec, "rules").next().map(|(_, rule)| rule);
    L4Route {
        meta,
        parents: parents(spec, faults),
        hostnames,
        rule_name: rule.and_then(|rule| text(rule, "name")).map(Str::from),
        backends: rule.map_or_else(Vec::new, |rule| backends(rule, "spec.rules[0]", faults)),
        default_gateways: default_gateways(spec),
    }
}
