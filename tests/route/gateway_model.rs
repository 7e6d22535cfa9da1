//! Random HTTPRoutes and requests, against the rules of precedence written down one after the other (spec 5.3 to 5.5).
use std::cmp::Reverse;

use pilus::api::object::gateway_route::{HttpRoute, HttpRouteMatch, PathMatcher};

use crate::build::*;
use crate::gateway_build::*;

/// xorshift64: the same sequence everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Few names and paths, so that much overlaps.
const NAMES: [&str; 7] = ["*", "*.a", "*.b.a", "b.a", "c.b.a", "d.c.b.a", "*.c.b.a"];
const HOSTS: [&str; 8] = ["a", "b.a", "x.a", "c.b.a", "x.b.a", "d.c.b.a", "y.c.b.a", "other"];
const PATHS: [&str; 6] = ["/", "/p", "/p/", "/p/q", "/p/q/r", "/pq"];
const METHODS: [&str; 2] = ["GET", "PUT"];

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == name,
        Some("") => true,
        // `*.b.a` covers `c.b.a` and `*.c.b.a`, not `b.a`.
        Some(suffix) => name != "*" && name.len() > suffix.len() && name.ends_with(suffix),
    }
}

/// The pattern of both, if they have names in common.
fn both<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) { Some(b) } else { covers(b, a).then_some(a) }
}

/// Longest without the wildcard, then longest.
fn weight(pattern: &str) -> (usize, usize) {
    (pattern.trim_start_matches('*').len(), pattern.len())
}

fn path_weight(path: &PathMatcher, asked: &str) -> Option<(bool, usize)> {
    match path {
        PathMatcher::Exact(path) => (**path == *asked).then_some((true, path.len())),
        PathMatcher::Prefix(prefix) => {
            let elements = |text: &str| {
                let all = text.split('/').filter(|it| !it.is_empty());
                all.map(str::to_owned).collect::<Vec<_>>()
            };
            let wanted = elements(prefix);
            elements(asked).starts_with(&wanted).then_some((false, wanted.len()))
        }
        PathMatcher::Regex(_) => unreachable!(),
    }
}

fn holds(wanted: &HttpRouteMatch, ask: &Ask<'_>) -> bool {
    let has = |all: &[(&str, &str)], name: &str, value: &str| all.contains(&(name, value));
    wanted.method.as_ref().is_none_or(|method| **method == *ask.method)
        && wanted.headers.iter().all(|it| has(ask.headers, &it.name, &it.value))
        && wanted.query.iter().all(|it| has(ask.query, &it.name, &it.value))
}

/// What the specification says, by trying everything: the number of the rule.
fn expected(
    listeners: &[&str],
    routes: &[HttpRoute],
    host: &str,
    path: &str,
    ask: &Ask<'_>,
) -> Option<u32> {
    let all = listeners.iter().filter(|pattern| covers(pattern, host));
    let listener = all.max_by_key(|pattern| weight(pattern))?;
    let mut best = None;
    for route in routes {
        let own = if route.hostnames.is_empty() {
            vec![*listener]
        } else {
            route.hostnames.iter().filter_map(|name| both(listener, name)).collect()
        };
        for name in own.into_iter().filter(|name| covers(name, host)) {
            for (i, rule) in route.rules.iter().enumerate() {
                for (j, wanted) in rule.matches.iter().enumerate() {
                    let Some(path) = path_weight(&wanted.path, path) else { continue };
                    if !holds(wanted, ask) {
                        continue;
                    }
                    let counts = (wanted.headers.len(), wanted.query.len());
                    let meta = &route.meta;
                    let oldest = Reverse((meta.created, meta.name.name.to_string(), i, j));
                    let rank = (weight(name), path, wanted.method.is_some(), counts, oldest);
                    if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                        best = Some((rank, rule.backends[0].weight));
                    }
                }
            }
        }
    }
    best.map(|(_, number)| number)
}

fn random_route(random: &mut Random, number: usize) -> HttpRoute {
    let mut route = http(&format!("infra/r{number}"), &["gw"]).created(random.below(3) as u64);
    for _ in 0..random.below(3) {
        // A hostname `*` is no hostname.
        route.hostnames.push(random.of(&NAMES[1..]).into());
    }
    for rule in 0..=random.below(2) {
        let mut matches = Vec::new();
        for _ in 0..=random.below(2) {
            let mut text = format!("{}{}", random.of(&["P", "P", "E"]), random.of(&PATHS));
            if random.one_in(3) {
                text += &format!(" m={}", random.of(&METHODS));
            }
            for (kind, name) in [("h", "x"), ("h", "y"), ("q", "k"), ("q", "l")] {
                if random.one_in(4) {
                    text += &format!(" {kind}={name}:1");
                }
            }
            matches.push(text);
        }
        let matches: Vec<&str> = matches.iter().map(String::as_str).collect();
        let id = 2 + number * 10 + rule;
        route = route.rule(&matches, &[&format!("a:80*{id}")]);
    }
    route
}

#[test]
fn precedence_is_that_of_the_specification() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut found, mut none) = (0, 0);
    for _ in 0..300 {
        let mut listeners: Vec<&str> = (0..=random.below(3)).map(|_| random.of(&NAMES)).collect();
        listeners.sort_unstable();
        listeners.dedup();
        let specs: Vec<_> = listeners
            .iter()
            .enumerate()
            .map(|(i, name)| match *name {
                "*" => on(&format!("l{i} 80 HTTP")),
                name => on(&format!("l{i} 80 HTTP {name}")),
            })
            .collect();
        let routes: Vec<_> = (0..=random.below(6)).map(|i| random_route(&mut random, i)).collect();
        let mut objects = cluster();
        put(&mut objects.gateways, gateway("infra/gw", &specs));
        for route in &routes {
            put(&mut objects.http_routes, route.clone());
        }
        let router = Router::gateway(objects);
        for _ in 0..100 {
            let (host, path) = (random.of(&HOSTS), random.of(&PATHS));
            let headers = &[("x", "1"), ("y", "1")][..random.below(3)];
            let query = &[("k", "1"), ("l", "1")][..random.below(3)];
            let ask = Ask { method: random.of(&METHODS), headers, query };
            let wanted = expected(&listeners, &routes, host, path, &ask);
            let got = router.found(80, host, path, &ask).map(|route| forwarded(&route));
            let wanted = wanted.map(|number| format!("a:80*{number}"));
            assert_eq!(got, wanted, "{host}{path} {listeners:?} {routes:#?}");
            *(if wanted.is_some() { &mut found } else { &mut none }) += 1;
        }
    }
    assert!(found > 5_000 && none > 5_000, "{found} found, {none} not: both must be tried");
}
