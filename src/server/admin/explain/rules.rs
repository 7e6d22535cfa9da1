//! Which rule a request has, and why each of the others has lost.
use std::collections::HashMap;
use std::sync::Arc;

use super::question::Asked;
use super::{Outcome, Steps};
use crate::api::route::{
    Candidates, Conditions, PathMatch, PathRegex, Request, Route, ValueMatch, VirtualHost,
};
use crate::arrange::Arrange;

/// How many rules whose path fits are told about. More have the same path only where a machine wrote them.
const FITTING_SHOWN: usize = 64;
/// How many rules whose path does not fit are told about; the rest is counted.
const OTHERS_SHOWN: usize = 16;
/// How many routes that also match, but lose, are named.
const LOSERS_NAMED: usize = 3;

/// One entry of a virtual host's tables.
struct Entry<'h> {
    comparison: &'static str,
    path: &'h str,
    regex: Option<&'h PathRegex>,
    conditions: Option<&'h Conditions>,
    route: &'h Arc<Route>,
}

/// Tells about every rule of `host` (and of the wider ones that it falls back to) in the order in which they are
/// tried; returns the route that the table gives.
pub(super) fn explain<'h>(
    steps: &mut Steps,
    host: &'h VirtualHost,
    path: &str,
    asked: &Asked<'_>,
) -> Result<(Option<PathMatch<'h>>, &'h Arc<Route>), Outcome> {
    let mut host = host;
    loop {
        let all = entries(host);
        let winner = all.iter().position(|it| it.loses(path, asked).is_none());
        tell(steps, &all[..winner.unwrap_or(all.len())], path, asked);
        if let Some(at) = winner {
            let (result, why) = precedence(&all, at, path, asked);
            steps.add("route", &result, &why);
            // What the proxy would do is what counts.
            let found = host.find_match(path, asked);
            let (matched, route) =
                found.map_or((None, all[at].route), |(matched, route)| (Some(matched), route));
            return Ok((matched, route));
        }
        let Some(wider) = host.fallback.as_deref() else {
            steps.add("route", "none", &format!("no rule of this host matches {path}"));
            let text = format!("404: no path of this host matches{}", asked.grpc_note());
            return Err(Outcome::failed(Some(404), &text));
        };
        host = wider;
        let name = if host.name.is_empty() { "*" } else { &host.name };
        let why = "no rule of the narrower host matches: the next wider one of this listener";
        steps.add("host", name, why);
    }
}

/// In the order in which they are tried: exact paths, regular expressions, prefixes from the longest on; each with its
/// candidates.
fn entries(host: &VirtualHost) -> Vec<Entry<'_>> {
    fn add<'h>(
        all: &mut Vec<Entry<'h>>,
        comparison: &'static str,
        path: &'h str,
        regex: Option<&'h PathRegex>,
        candidates: &'h Candidates,
    ) {
        all.extend(candidates.iter().map(|it| Entry {
            comparison,
            path,
            regex,
            conditions: it.conditions.as_deref(),
            route: &it.route,
        }));
    }
    fn longest_first(table: &HashMap<Box<str>, Candidates>) -> Vec<(&str, &Candidates)> {
        let mut keys: Vec<_> = table.iter().map(|(path, it)| (&**path, it)).collect();
        keys.arrange_by(|left, right| {
            right.0.len().cmp(&left.0.len()).then_with(|| left.0.cmp(right.0))
        });
        keys
    }
    let mut all = Vec::new();
    for (path, candidates) in longest_first(&host.exact) {
        add(&mut all, "Exact", path, None, candidates);
    }
    for (regex, candidates) in &host.regex {
        add(&mut all, "RegularExpression", &regex.pattern, Some(regex), candidates);
    }
    for (path, candidates) in longest_first(&host.prefix) {
        let path = if path.is_empty() { "/" } else { path };
        add(&mut all, "PathPrefix", path, None, candidates);
    }
    all
}

/// One step for each rule that was tried and has lost.
fn tell(steps: &mut Steps, tried: &[Entry<'_>], path: &str, asked: &Asked<'_>) {
    let (mut fitting, mut others, mut untold) = (0, 0, 0);
    for entry in tried {
        let (shown, limit) = if entry.fits(path) {
            (&mut fitting, FITTING_SHOWN)
        } else {
            (&mut others, OTHERS_SHOWN)
        };
        if *shown == limit {
            untold += 1;
            continue;
        }
        *shown += 1;
        let result = format!("{} of {}", entry.shown(), entry.rule());
        steps.add("tried", &result, &entry.loses(path, asked).unwrap_or_default());
    }
    if untold > 0 {
        let others = if untold == 1 { "rule" } else { "rules" };
        steps.say("tried", &format!("{untold} more {others}, none of which matches"));
    }
}

/// What has won, and which others match as well.
fn precedence(all: &[Entry<'_>], winner: usize, path: &str, asked: &Asked<'_>) -> (String, String) {
    let later = all[winner + 1..].iter().filter(|it| it.loses(path, asked).is_none());
    let losers: Vec<String> = later.take(LOSERS_NAMED).map(Entry::shown).collect();
    let order = "Exact before RegularExpression before PathPrefix, the longest first";
    let why = if losers.is_empty() {
        "the only path that matches".to_owned()
    } else {
        format!("wins over {} ({order})", losers.join(", "))
    };
    (all[winner].shown(), why)
}

// === impl Entry ===

impl Entry<'_> {
    fn fits(&self, path: &str) -> bool {
        match (self.comparison, self.regex) {
            (_, Some(regex)) => regex.regex.is_match(path),
            ("Exact", _) => self.path == path,
            _ => {
                self.path == "/"
                    || path
                        .strip_prefix(self.path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// Why it is not for this request; None: it is.
    fn loses(&self, path: &str, asked: &Asked<'_>) -> Option<String> {
        if !self.fits(path) {
            return Some(match self.comparison {
                "Exact" => format!("the path is {path}"),
                "RegularExpression" => format!("it does not match the whole of {path}"),
                _ => format!("{path} does not begin with it"),
            });
        }
        self.conditions.and_then(|conditions| missed(conditions, asked))
    }

    /// `PathPrefix /x, method GET, header x-a = 1`
    fn shown(&self) -> String {
        let mut text = format!("{} {}", self.comparison, self.path);
        if let Some(conditions) = self.conditions {
            for part in conditions_in_words(conditions) {
                text.push_str(", ");
                text.push_str(&part);
            }
        }
        text
    }

    fn rule(&self) -> String {
        match self.route.origins.first() {
            Some((object, field)) => format!("{object} {field}"),
            None => "no object".to_owned(),
        }
    }
}

/// The first condition that does not hold.
fn missed(conditions: &Conditions, asked: &Asked<'_>) -> Option<String> {
    if let Some(method) = &conditions.method
        && **method != *asked.method()
    {
        return Some(format!("the method is {}", asked.method()));
    }
    let differs = |kind: &str, name: &str, wanted: &ValueMatch, value: Option<String>| match value {
        None => Some(format!("there is no {kind} {name}")),
        Some(value) if wanted.matches(&value) => None,
        Some(value) => Some(format!("{kind} {name} is `{value}`")),
    };
    let header = |(name, wanted): &(_, ValueMatch)| {
        let name: &crate::api::meta::Str = name;
        differs("header", name, wanted, asked.header_value(name))
    };
    let query = |(name, wanted): &(_, ValueMatch)| {
        let name: &crate::api::meta::Str = name;
        differs("query parameter", name, wanted, asked.query_value(name))
    };
    conditions.headers.iter().find_map(header).or_else(|| conditions.query.iter().find_map(query))
}

/// `method GET`, `header x-a = 1`, `query q ~ [ab]`
pub(in crate::server::admin) fn conditions_in_words(conditions: &Conditions) -> Vec<String> {
    let value = |wanted: &ValueMatch| match wanted {
        ValueMatch::Exact(text) => format!("= {text}"),
        ValueMatch::Regex(regex) => format!("~ {}", regex.pattern),
    };
    let method = conditions.method.iter().map(|method| format!("method {method}"));
    let headers =
        conditions.headers.iter().map(|(name, it)| format!("header {name} {}", value(it)));
    let query = conditions.query.iter().map(|(name, it)| format!("query {name} {}", value(it)));
    method.chain(headers).chain(query).collect()
}

#[cfg(test)]
mod tests {
    use super::super::question::{Question, Url};
    use super::*;
    use crate::api::address::Port;
    use crate::api::route::{Action, Candidate};

    fn route() -> Arc<Route> {
        Arc::new(Route::new(Action::RedirectHttps(Port::HTTPS)))
    }

    fn told(host: &VirtualHost, path: &str, headers: &[&str]) -> (Vec<(String, String)>, bool) {
        let question =
            Question { url: "http://a", method: "GET", headers: headers.to_vec(), from: None };
        let url = Url::parse(question.url).ok().unwrap();
        let (asked, _) = Asked::new(&question, &url).ok().unwrap();
        let mut steps = Steps(Vec::new());
        let found = explain(&mut steps, host, path, &asked).is_ok();
        let step = |it: &crate::proto::value::Value| {
            (it.text_at("step").to_owned(), it.text_at("result").to_owned())
        };
        (steps.0.iter().map(step).collect(), found)
    }

    #[test]
    fn of_many_paths_some_are_told_about_and_the_rest_is_counted() {
        let exact = (0..20_000).map(|at| (format!("/{at:05}").into(), vec![route().into()]));
        let prefix = [("".into(), vec![route().into()])];
        let host = VirtualHost {
            exact: exact.collect(),
            prefix: prefix.into_iter().collect(),
            ..VirtualHost::default()
        };
        let (steps, found) = told(&host, "/x", &[]);
        assert!(found);
        assert_eq!(steps.len(), OTHERS_SHOWN + 2);
        assert_eq!(steps[0].1, "Exact /00000 of no object");
        assert_eq!(steps[OTHERS_SHOWN].1, "19984 more rules, none of which matches");
        assert_eq!(steps[OTHERS_SHOWN + 1], ("route".to_owned(), "PathPrefix /".to_owned()));
    }

    #[test]
    fn what_no_rule_of_a_host_matches_falls_to_the_next_wider_one() {
        let conditions = |value: &str| {
            let headers = vec![("x".into(), ValueMatch::Exact(value.into()))];
            Some(Arc::new(Conditions { headers, ..Conditions::default() }))
        };
        let host = |name: &str, value: &str, fallback| {
            let candidate = Candidate { conditions: conditions(value), route: route() };
            let prefix = [("/p".into(), vec![candidate])].into_iter().collect();
            VirtualHost {
                name: name.into(),
                prefix,
                prefix_depth: 1,
                fallback,
                ..Default::default()
            }
        };
        let wide = Arc::new(host("*.a", "2", None));
        let narrow = host("b.a", "1", Some(wide));
        let line = |step: &str, result: &str| (step.to_owned(), result.to_owned());
        let tried =
            |value: &str| line("tried", &format!("PathPrefix /p, header x = {value} of no object"));
        let won = |value: &str| line("route", &format!("PathPrefix /p, header x = {value}"));
        assert_eq!(told(&narrow, "/p/q", &["X: 1"]), (vec![won("1")], true));
        let both = vec![tried("1"), line("host", "*.a"), won("2")];
        assert_eq!(told(&narrow, "/p/q", &["X: 2"]), (both, true));
        let none = vec![tried("1"), line("host", "*.a"), tried("2"), line("route", "none")];
        assert_eq!(told(&narrow, "/p", &[]), (none, false));
    }
}
