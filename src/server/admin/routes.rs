//! `/v1/routes`: every rule that is in effect, one JSON object for each path, TLS name or port.
//!
//! Shape: `{"listener": {"service", "port", "protocol", "addresses"}, "host", "match", "path", "conditions"?: [text],
//! "action": {"type": "Forward" | "RedirectHttps" | "Redirect" | "Refuse", …}, "name"?, "filters"?: [text],
//! "requestTimeout"?, "backendTimeout"?, "retry"?, "session"?, "origins": [{"kind", "namespace", "name", "field"}]}`.
//! `match` is `Exact`, `PathPrefix` or `RegularExpression` of a path; `SNI` of a TLS name, with `tls`: `Passthrough` or
//! `Terminate`; `Any` where a port forwards everything.
use std::net::IpAddr;
use std::sync::Arc;

use super::explain::{
    conditions_in_words, filters_in_words, redirect_in_words, retry_in_words, session_in_words,
    settings_in_words,
};
use super::list::{listener_protocol, name, object_key};
use crate::api::route::{
    Action, Backend, Candidates, Conditions, Filters, Listener, Route, Target, TlsAction,
    VirtualHost,
};
use crate::arrange::Arrange;
use crate::proto::value::Value;

/// Where a route is found within a listener.
struct Place<'r> {
    host: &'r str,
    comparison: &'static str,
    path: &'r str,
    conditions: Option<&'r Conditions>,
    tls: Option<&'static str>,
}

/// What one line of the list, or many, are made from.
pub(super) enum Source {
    Host(String, Arc<VirtualHost>),
    /// An SNI name whose bytes go on, decrypted or not.
    Name(String, &'static str, Arc<Route>),
    /// A port whose bytes or datagrams go on.
    Port(Arc<Route>),
}

/// Names in order: exact ones, wildcards, then `*`.
fn in_order<'t, T>(
    exact: impl Iterator<Item = (&'t Box<str>, &'t T)>,
    wildcard: impl Iterator<Item = (&'t Box<str>, &'t T)>,
    any: Option<&'t T>,
) -> Vec<(String, &'t T)> {
    let mut all: Vec<_> = exact.map(|(name, it)| (name.to_string(), it)).collect();
    all.arrange_by(|left, right| left.0.cmp(&right.0));
    let mut wild: Vec<_> = wildcard.map(|(name, it)| (format!("*.{name}"), it)).collect();
    wild.arrange_by(|left, right| left.0.cmp(&right.0));
    all.extend(wild);
    all.extend(any.map(|it| ("*".to_owned(), it)));
    all
}

/// The virtual hosts of a listener.
pub(super) fn hosts(listener: &Listener) -> Vec<(String, Arc<VirtualHost>)> {
    let table = &listener.hosts;
    let wildcard = table.wildcard.iter().chain(&table.suffix);
    let all = in_order(table.exact.iter(), wildcard, table.any.as_ref());
    all.into_iter().map(|(name, host)| (name, Arc::clone(host))).collect()
}

/// Everything in a listener that has routes, in order.
pub(super) fn sources(listener: &Listener) -> Vec<Source> {
    let mut all: Vec<Source> =
        hosts(listener).into_iter().map(|(name, host)| Source::Host(name, host)).collect();
    let table = &listener.tls;
    let wildcard = table.wildcard.iter().chain(&table.suffix);
    for (name, action) in in_order(table.exact.iter(), wildcard, table.default.as_ref()) {
        match action {
            TlsAction::Passthrough(route) => {
                all.push(Source::Name(name, "Passthrough", Arc::clone(route)));
            }
            TlsAction::Terminate(termination) => {
                let forward = termination.forward.iter();
                all.extend(
                    forward.map(|it| Source::Name(name.clone(), "Terminate", Arc::clone(it))),
                );
            }
            TlsAction::Refuse(_) | TlsAction::Reset(_) => {}
        }
    }
    all.extend(listener.forward.iter().map(|route| Source::Port(Arc::clone(route))));
    all
}

/// The lines of one source.
pub(super) fn items(listener: &Listener, addresses: &[IpAddr], source: &Source) -> Vec<Value> {
    let addresses: Vec<Value> = addresses.iter().map(|ip| Value::from(ip.to_string())).collect();
    let shown = Value::map()
        .with("service", name(&listener.service))
        .with("port", listener.port.0)
        .with("protocol", listener_protocol(listener.protocol))
        .with("addresses", addresses);
    match source {
        Source::Host(host, routes) => {
            let mut all = Vec::new();
            paths(routes, &mut |comparison, path, conditions, route| {
                let place = Place { host, comparison, path, conditions, tls: None };
                all.push(item(&shown, &place, route));
            });
            all
        }
        Source::Name(host, mode, route) => {
            let tls = Some(*mode);
            let place = Place { host, comparison: "SNI", path: "", conditions: None, tls };
            vec![item(&shown, &place, route)]
        }
        Source::Port(route) => {
            let place =
                Place { host: "*", comparison: "Any", path: "", conditions: None, tls: None };
            vec![item(&shown, &place, route)]
        }
    }
}

/// Tells of each path how it is compared, the path, conditions and the route; in the order in which they are tried
/// (ING-07).
fn paths<'h>(
    host: &'h VirtualHost,
    tell: &mut dyn FnMut(&'static str, &'h str, Option<&'h Conditions>, &'h Route),
) {
    let mut each = |comparison, path, all: &'h Candidates| {
        for it in all {
            tell(comparison, path, it.conditions.as_deref(), &it.route);
        }
    };
    let by_length =
        |left: &str, right: &str| right.len().cmp(&left.len()).then_with(|| left.cmp(right));
    let mut exact: Vec<_> = host.exact.iter().collect();
    exact.arrange_by(|left, right| by_length(left.0, right.0));
    for (path, all) in exact {
        each("Exact", path, all);
    }
    for (regex, all) in &host.regex {
        each("RegularExpression", &regex.pattern, all);
    }
    let mut prefix: Vec<_> = host.prefix.iter().collect();
    prefix.arrange_by(|left, right| by_length(left.0, right.0));
    for (path, all) in prefix {
        each("PathPrefix", if path.is_empty() { "/" } else { path }, all);
    }
}

/// A list of texts, unless it is empty.
fn texts(all: Vec<String>) -> Option<Value> {
    let texts = || all.iter().map(|text| Value::from(text.as_str())).collect::<Vec<_>>();
    (!all.is_empty()).then(|| texts().into())
}

fn item(listener: &Value, place: &Place<'_>, route: &Route) -> Value {
    let conditions = place.conditions.map(conditions_in_words).unwrap_or_default();
    Value::map()
        .with("listener", listener.clone())
        .with("host", place.host)
        .with("match", place.comparison)
        .with("path", place.path)
        .with_some("tls", place.tls)
        .with_some("conditions", texts(conditions))
        .with("action", action(&route.action))
        .with_some("name", route.name.as_deref())
        .with_some("filters", texts(filters(&route.filters)))
        .with_some("requestTimeout", route.request_timeout.map(|limit| format!("{limit:?}")))
        .with_some("backendTimeout", route.backend_timeout.map(|limit| format!("{limit:?}")))
        .with_some("retry", route.retry.as_ref().map(retry_in_words))
        .with_some("session", route.session.as_ref().map(session_in_words))
        .with("origins", origins(route))
}

fn filters(filters: &Filters) -> Vec<String> {
    filters_in_words(filters, None)
}

fn origins(route: &Route) -> Value {
    let all = route.origins.iter().map(|(object, field)| {
        let mut json = object_key(object);
        json.set("field", field.as_str());
        json
    });
    all.collect::<Vec<_>>().into()
}

fn action(action: &Action) -> Value {
    match action {
        Action::Forward(backends) => {
            let backends: Vec<Value> = backends.iter().map(backend).collect();
            Value::map().with("type", "Forward").with("backends", backends)
        }
        Action::RedirectHttps(port) => {
            Value::map().with("type", "RedirectHttps").with("status", 301u16).with("port", port.0)
        }
        Action::Redirect(redirect) => Value::map()
            .with("type", "Redirect")
            .with("status", redirect.status)
            .with("why", redirect_in_words(redirect, None)),
        Action::Refuse(status, why) => {
            Value::map().with("type", "Refuse").with("status", *status).with("why", why.as_str())
        }
    }
}

fn backend(backend: &Backend) -> Value {
    let json = match &backend.target {
        Target::Service(service) => {
            Value::map().with("service", name(&service.service)).with("port", service.port.0)
        }
        Target::Refuse(status, why) => {
            Value::map().with("status", *status).with("why", why.as_str())
        }
    };
    let own = backend.filters.as_ref().map(|own| filters(own)).unwrap_or_default();
    json.with("weight", backend.weight)
        .with_some("settings", texts(settings_in_words(&backend.settings)))
        .with_some("filters", texts(own))
}
