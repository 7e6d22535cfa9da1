//! Collects the rules of all Ingresses of one generated Service and makes its listeners of them:
//! merging (ING-09), precedence between contradicting rules, and the lookup structures.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::report::Report;
use crate::api::address::Port;
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Str};
use crate::api::object::Ingress;
use crate::api::route::{
    Action, Backend, Certificate, HostTable, Listener, ListenerProtocol, PathRegex, Route,
    TlsAction, TlsTable, VirtualHost,
};
use crate::arrange::Arrange;

/// The host of rules for every host.
pub(super) const ANY_HOST: &str = "*";

/// How a path is compared; the order is only that of the map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Matcher {
    /// The whole path.
    Exact(Str),
    /// Without the trailing slash.
    Prefix(Str),
    /// On the whole path.
    Regex(Str),
    /// `spec.defaultBackend`: gives way to a rule for `/`.
    Default,
}

/// One path of one Ingress.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) ingress: Arc<Ingress>,
    /// Where it is written: `spec.rules[0].http.paths[1]`.
    pub(super) field: Arc<str>,
    /// What is done if nobody else has a rule for the same path.
    pub(super) route: Arc<Route>,
}

/// What one Ingress wants done with one SNI name.
#[derive(Debug, Clone)]
pub(super) struct TlsClaim {
    pub(super) ingress: Arc<Ingress>,
    pub(super) field: Arc<str>,
    pub(super) kind: TlsClaimKind,
}

/// See [`TlsClaim`].
#[derive(Debug, Clone)]
pub(super) enum TlsClaimKind {
    Terminate(Arc<Certificate>),
    Refuse(Str),
    Passthrough(Action),
}

/// Rules by host and path.
pub(super) type Rules = BTreeMap<Str, BTreeMap<Matcher, Vec<Rule>>>;

/// All that is served on one generated Service.
#[derive(Debug, Default)]
pub(super) struct ServiceTable {
    pub(super) shared: bool,
    pub(super) host_port: Option<Port>,
    /// Whether there is a listener for plain HTTP: all but passthrough Ingresses want one.
    pub(super) plain: bool,
    pub(super) http: Rules,
    pub(super) https: Rules,
    pub(super) tls: BTreeMap<Str, Vec<TlsClaim>>,
    /// For unknown SNI names.
    pub(super) default_certificate: Option<Arc<Certificate>>,
}

/// Compiled regular expressions by pattern.
pub(super) type Regexes = HashMap<Str, Result<Arc<PathRegex>, Arc<str>>>;

// === impl Rule ===

impl Rule {
    /// A rule written at `field` of `ingress`.
    pub(super) fn new(
        ingress: &Arc<Ingress>,
        field: Arc<str>,
        action: Action,
        request_timeout: Option<Duration>,
    ) -> Self {
        let object = ObjectKey { kind: Kind::Ingress, name: ingress.meta.name.clone() };
        let origins = vec![(object, field.to_string())];
        let route = Arc::new(Route { request_timeout, origins, ..Route::new(action) });
        Self { ingress: Arc::clone(ingress), field, route }
    }

    /// How strong its action is where rules contradict each other. What protects wins over what serves,
    /// and what serves over what has nothing to serve from.
    fn rank(&self) -> u8 {
        match self.route.action {
            Action::RedirectHttps(_) | Action::Redirect(_) => 3,
            Action::Refuse(503, _) => 0,
            Action::Refuse(..) => 2,
            Action::Forward(_) => 1,
        }
    }
}

// === impl ServiceTable ===

impl ServiceTable {
    pub(super) fn ports(&self) -> Vec<Port> {
        let tls = (!self.tls.is_empty()).then_some(Port::HTTPS);
        self.plain.then_some(Port::HTTP).into_iter().chain(tls).collect()
    }

    /// The listeners, sorted by port.
    pub(super) fn listeners(
        self,
        service: &NamespacedName,
        regexes: &Regexes,
        report: &mut Report,
    ) -> Vec<Listener> {
        warn_of_duplicates(&self.http, report);
        let (shared, host_port) = (self.shared, self.host_port);
        let listener = |port, protocol, hosts, tls| Listener {
            shared,
            host_port,
            hosts,
            tls,
            ..Listener::new(service.clone(), port, protocol)
        };
        let mut listeners = Vec::new();
        if self.plain {
            let hosts = host_table(&self.http, regexes);
            let tls = TlsTable::default();
            listeners.push(listener(Port::HTTP, ListenerProtocol::Http, hosts, tls));
        }
        if !self.tls.is_empty() {
            let hosts = host_table(&self.https, regexes);
            let tls = tls_table(self.tls, self.default_certificate, report);
            listeners.push(listener(Port::HTTPS, ListenerProtocol::Tls, hosts, tls));
        }
        listeners
    }
}

fn host_table(rules: &Rules, regexes: &Regexes) -> HostTable {
    let mut table = HostTable::default();
    for (host, paths) in rules {
        let virtual_host = Arc::new(virtual_host(host, paths, regexes));
        if **host == *ANY_HOST {
            table.any = Some(virtual_host);
        } else if let Some(parent) = host.strip_prefix("*.") {
            table.wildcard.insert(parent.into(), virtual_host);
        } else {
            table.exact.insert((**host).into(), virtual_host);
        }
    }
    table
}

fn virtual_host(
    host: &Str,
    paths: &BTreeMap<Matcher, Vec<Rule>>,
    regexes: &Regexes,
) -> VirtualHost {
    let mut virtual_host = VirtualHost { name: Str::clone(host), ..VirtualHost::default() };
    for (matcher, rules) in paths {
        let route = vec![merged(rules).into()];
        match matcher {
            Matcher::Exact(path) => {
                virtual_host.exact.insert((**path).into(), route);
            }
            Matcher::Prefix(path) => {
                let depth = path.bytes().filter(|&byte| byte == b'/').count();
                virtual_host.prefix_depth = virtual_host.prefix_depth.max(depth);
                virtual_host.prefix.insert((**path).into(), route);
            }
            Matcher::Regex(pattern) => {
                // One that does not compile has been reported and left out before.
                if let Some(Ok(regex)) = regexes.get(pattern) {
                    virtual_host.regex.push((Arc::clone(regex), route));
                }
            }
            // The last of the map, so a rule for `/` is there already.
            Matcher::Default => {
                virtual_host.prefix.entry("".into()).or_insert(route);
            }
        }
    }
    // The longest first; the order of the alphabet among equals is that of the map (ING-07).
    virtual_host.regex.arrange_by_key(|(regex, _)| std::cmp::Reverse(regex.pattern.len()));
    virtual_host
}

/// One route of the rules for one host and path (ING-09): the backends of all, by equal shares.
fn merged(rules: &[Rule]) -> Arc<Route> {
    if let [rule] = rules {
        return Arc::clone(&rule.route);
    }
    let top = rules.iter().map(Rule::rank).max().unwrap_or(0);
    let winners = || rules.iter().filter(|rule| rule.rank() == top).map(|rule| &rule.route);
    Arc::new(Route {
        request_timeout: winners().filter_map(|route| route.request_timeout).min(),
        origins: winners().flat_map(|route| route.origins.iter().cloned()).collect(),
        ..Route::new(merged_action(winners().map(|route| &route.action)))
    })
}

fn merged_action<'a>(actions: impl Iterator<Item = &'a Action>) -> Action {
    let mut merged: Option<Action> = None;
    for action in actions {
        match (&mut merged, action) {
            (Some(Action::Forward(all)), Action::Forward(more)) => {
                for backend in more {
                    add_backend(all, backend);
                }
            }
            (Some(_), _) => {}
            (None, action) => merged = Some(action.clone()),
        }
    }
    merged.unwrap_or_else(|| Action::Refuse(503, "no rule".to_owned()))
}

fn add_backend(all: &mut Vec<Backend>, backend: &Backend) {
    match all.iter_mut().find(|known| known.target == backend.target) {
        Some(known) => known.weight += backend.weight,
        None => all.push(backend.clone()),
    }
}

fn warn_of_duplicates(rules: &Rules, report: &mut Report) {
    for (host, paths) in rules {
        let any = &**host == ANY_HOST;
        for (matcher, rules) in paths {
            // A default backend is in the table for each host, and is complained about once.
            if rules.len() > 1 && (any || *matcher != Matcher::Default) {
                warn_of_one_duplicate(host, matcher, rules, report);
            }
        }
        if !any {
            continue;
        }
        let root = paths.get(&Matcher::Prefix("".into())).and_then(|rules| rules.first());
        for default in paths.get(&Matcher::Default).into_iter().flatten() {
            if let Some(rule) = root
                && rule.ingress.meta.name != default.ingress.meta.name
            {
                let message = format!(
                    "the default backend gets no requests: Ingress {} has a rule for every host and path ({})",
                    rule.ingress.meta.name, rule.field
                );
                report.ingress_warning(&default.ingress, default.field.to_string(), message);
            }
        }
    }
}

fn warn_of_one_duplicate(host: &str, matcher: &Matcher, rules: &[Rule], report: &mut Report) {
    let what = match matcher {
        Matcher::Exact(path) => format!("host {host:?} and path {path:?} (Exact)"),
        Matcher::Prefix(path) if path.is_empty() => {
            format!("host {host:?} and path \"/\" (Prefix)")
        }
        Matcher::Prefix(path) => format!("host {host:?} and path {path:?} (Prefix)"),
        Matcher::Regex(path) => {
            format!("host {host:?} and path {path:?} (ImplementationSpecific)")
        }
        Matcher::Default => "the default backend".to_owned(),
    };
    let top = rules.iter().map(Rule::rank).max().unwrap_or(0);
    let mixed = rules.iter().any(|rule| rule.rank() != top);
    for (at, rule) in rules.iter().enumerate() {
        // The neighbor in the list; with more than two each names one and counts the rest.
        let other = &rules[if at == 0 { 1 } else { 0 }];
        let place = if other.ingress.meta.name == rule.ingress.meta.name {
            other.field.to_string()
        } else {
            format!("Ingress {} ({})", other.ingress.meta.name, other.field)
        };
        let more = match rules.len() - 2 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let effect = match (mixed, rule.rank() == top) {
            (false, _) => "requests are spread evenly over all of them",
            (true, true) => {
                "this one is in effect, because the other cannot be served or is less strict"
            }
            (true, false) => {
                "the other is in effect, because this one cannot be served or is less strict"
            }
        };
        let message = format!("{what} is also in {place}{more}: {effect}");
        report.ingress_warning(&rule.ingress, rule.field.to_string(), message);
    }
}

fn tls_table(
    claims: BTreeMap<Str, Vec<TlsClaim>>,
    default: Option<Arc<Certificate>>,
    report: &mut Report,
) -> TlsTable {
    let default = default.map(|it| TlsAction::Terminate(Arc::new(it.into())));
    let mut table = TlsTable { default, ..TlsTable::default() };
    for (host, claims) in claims {
        let Some(action) = tls_action(&host, &claims, report) else { continue };
        match host.strip_prefix("*.") {
            Some(parent) => table.wildcard.insert(parent.into(), action),
            None => table.exact.insert((*host).into(), action),
        };
    }
    table
}

/// The first claim, in the order of the Ingresses' names, decides between termination and passthrough.
fn tls_action(host: &str, claims: &[TlsClaim], report: &mut Report) -> Option<TlsAction> {
    let first = claims.first()?;
    let passthrough = matches!(first.kind, TlsClaimKind::Passthrough(_));
    for claim in &claims[1..] {
        if matches!(claim.kind, TlsClaimKind::Passthrough(_)) != passthrough {
            let what = if passthrough { "passed through for" } else { "terminated for" };
            let message = format!(
                "not in effect: TLS for host {host:?} is already {what} Ingress {}",
                first.ingress.meta.name
            );
            report.ingress_error(&claim.ingress, claim.field.to_string(), message);
        }
    }
    if passthrough {
        Some(TlsAction::Passthrough(merged_passthrough(host, claims, report)))
    } else {
        Some(termination(host, claims, report))
    }
}

fn merged_passthrough(host: &str, claims: &[TlsClaim], report: &mut Report) -> Arc<Route> {
    let rules: Vec<Rule> = claims
        .iter()
        .filter_map(|claim| match &claim.kind {
            TlsClaimKind::Passthrough(action) => {
                Some(Rule::new(&claim.ingress, Arc::clone(&claim.field), action.clone(), None))
            }
            TlsClaimKind::Terminate(_) | TlsClaimKind::Refuse(_) => None,
        })
        .collect();
    if rules.len() > 1 {
        warn_of_one_duplicate(host, &Matcher::Prefix("".into()), &rules, report);
    }
    merged(&rules)
}

/// The first certificate there is; only if nobody has one, the name is refused.
fn termination(host: &str, claims: &[TlsClaim], report: &mut Report) -> TlsAction {
    let mut chosen: Option<(&TlsClaim, &Arc<Certificate>)> = None;
    let mut refusal: Str = "".into();
    for claim in claims {
        match (&claim.kind, chosen) {
            (TlsClaimKind::Terminate(certificate), None) => chosen = Some((claim, certificate)),
            (TlsClaimKind::Terminate(certificate), Some((winner, winning)))
                if certificate.secret != winning.secret =>
            {
                let message = format!(
                    "Secret {} is not used for host {host:?}: Ingress {} already names Secret {}",
                    certificate.secret, winner.ingress.meta.name, winning.secret
                );
                report.ingress_warning(&claim.ingress, claim.field.to_string(), message);
            }
            (TlsClaimKind::Refuse(why), _) if refusal.is_empty() => refusal = Str::clone(why),
            _ => {}
        }
    }
    match chosen {
        Some((_, certificate)) => TlsAction::Terminate(Arc::new(Arc::clone(certificate).into())),
        None => TlsAction::Refuse(refusal),
    }
}
