//! Requests of the scenarios, and whether their results are as wanted.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use pilus::proto::value::{Value, parse_json};

use crate::ground::Ground;
use crate::language::{RequestLine, namespaced};

/// Sends it once (or `n` times) and returns what is not as wanted.
pub(crate) fn differences(ground: &mut Ground, scenario: &str, line: &RequestLine) -> Vec<String> {
    let Some(address) = address(ground, scenario, &line.gateway) else {
        return vec![format!("{} has no address", line.gateway)];
    };
    // What the echo saw is found again by this.
    static IDENTITY: AtomicU32 = AtomicU32::new(0);
    let identity = format!("{scenario}-{}", IDENTITY.fetch_add(1, Ordering::Relaxed));
    let job = job(ground, scenario, line, &address, &identity);
    let answer = ground.ask.ask(&job);
    if let Some(outcomes) = answer.get("outcomes") {
        return distribution(ground, scenario, line, outcomes, &identity);
    }
    let body = parse_json(answer.text_at("body")).unwrap_or_else(|_| Value::map());
    let mut wrong = Vec::new();
    for (key, value) in &line.wanted {
        let seen = seen(ground, scenario, &answer, &body, key, &identity);
        if !fits(&seen, key, value) {
            wrong.push(format!("{key} is {seen:?}, not {value:?}"));
        }
    }
    if !wrong.is_empty() {
        let whole = answer.plain();
        wrong.push(whole.chars().take(1500).collect());
    }
    wrong
}

/// The first address of a Gateway.
fn address(ground: &Ground, scenario: &str, gateway: &str) -> Option<String> {
    let (namespace, name) = namespaced(gateway, scenario);
    let object = ground.object("gateway", namespace, name).ok()?;
    Some(object.items_at("status.addresses").first()?.text_at("value").to_owned())
}

fn job(
    ground: &Ground,
    scenario: &str,
    line: &RequestLine,
    address: &str,
    identity: &str,
) -> Value {
    let tls = matches!(&*line.scheme, "https" | "tls");
    let mut kind = match &*line.method {
        "GRPC" => "grpc",
        "WS" => "ws",
        "TCP" => "tcp",
        "UDP" => "udp",
        _ => "http",
    };
    let method = match kind {
        "grpc" => "POST",
        "ws" | "tcp" | "udp" => "GET",
        _ => &line.method,
    };
    let mut host = address.to_owned();
    let mut headers: Vec<(&str, &str)> = vec![("X-Conformance-Id", identity)];
    let mut job = Value::map()
        .with("address", address)
        .with("port", i64::from(line.port))
        .with("tls", tls)
        .with("method", method)
        .with(
            "path",
            if line.path.is_empty() { "/".to_owned() } else { line.path.replace("{id}", identity) },
        );
    for (key, value) in &line.given {
        match &**key {
            "host" => {
                value.clone_into(&mut host);
                // The name in the handshake is without the port.
                job.set_default("sni", value.split(':').next().unwrap_or(value));
            }
            "sni" => job.set("sni", &**value),
            "h2" => kind = "h2",
            "body" => job.set("body", &**value),
            "n" => job.set("count", value.parse::<i64>().unwrap()),
            "together" => job.set("together", value.parse::<i64>().unwrap()),
            "trust" => {
                let authority = ground.file(scenario, value, "ca");
                let known = std::fs::exists(&authority).unwrap();
                job.set("ca", if known { authority } else { ground.file(scenario, value, "crt") });
            }
            "cert" => {
                job.set("cert", ground.file(scenario, value, "crt"));
                job.set("key", ground.file(scenario, value, "key"));
            }
            name => {
                assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "unknown word {name}");
                headers.push((name, value));
            }
        }
    }
    headers.push(("Host", &host));
    let pair =
        |(name, value): &(&str, &str)| Value::from(vec![Value::string(name), Value::string(value)]);
    job.with("kind", kind)
        .with("headers", Value::from(headers.iter().map(pair).collect::<Vec<_>>()))
}

/// What there is to compare with a wanted token.
fn seen(
    ground: &mut Ground,
    scenario: &str,
    answer: &Value,
    body: &Value,
    key: &str,
    identity: &str,
) -> String {
    let text = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), Value::plain);
    let field = |name: &str| {
        let name = name.to_lowercase();
        let all = answer
            .items_at("headers")
            .iter()
            .filter(|pair| pair.items()[0].as_str() == Some(&name));
        let values: Vec<String> = all.map(|pair| pair.items()[1].plain()).collect();
        if values.is_empty() { "-".to_owned() } else { values.join(",") }
    };
    let sent = |headers: Option<&Value>, name: &str| {
        let values = headers.and_then(|all| all.get(&name.to_lowercase()));
        let values: Vec<String> =
            values.map(|it| it.items().iter().map(Value::plain).collect()).unwrap_or_default();
        if values.is_empty() { "-".to_owned() } else { values.join(",") }
    };
    match key {
        "error" => {
            if answer.get("error").is_some() {
                String::new()
            } else {
                "an answer".to_owned()
            }
        }
        "pod" => ground
            .service_at(scenario, &field("x-echo-address"))
            .unwrap_or_else(|| "nobody".to_owned()),
        "path" | "host" | "proto" | "method" | "client" | "tries" => text(body.get(key)),
        "grpc" => text(answer.get("grpc")),
        "body" => text(answer.get("body")),
        "tail" => text(answer.get("tail")),
        "backend-sni" => text(body.at("tls.sni")),
        "backend-cert" => ground.certificate_name(scenario, body.text_at("tls.client")),
        "plain" => {
            if body.get("tls").is_none() {
                String::new()
            } else {
                "TLS".to_owned()
            }
        }
        "encrypted" => {
            if body.get("tls").is_some() {
                String::new()
            } else {
                "plain".to_owned()
            }
        }
        "shown" => ground.certificate_name(scenario, answer.text_at("shown")),
        "reached" => {
            let all = copies(ground, identity);
            let services =
                all.iter().filter_map(|it| ground.service_at(scenario, it.text_at("address")));
            let mut services: Vec<String> = services.collect();
            services.sort();
            services.join(",")
        }
        _ if key.starts_with('>') && key.contains('@') => {
            let all = copies(ground, identity);
            let (name, service) = key[1..].split_once('@').unwrap_or_default();
            let of = |it: &&Value| {
                ground.service_at(scenario, it.text_at("address")).as_deref() == Some(service)
            };
            all.iter()
                .find(of)
                .map_or_else(|| "no copy".to_owned(), |it| sent(it.get("headers"), name))
        }
        _ if key.starts_with('>') => sent(body.get("headers"), &key[1..]),
        _ if key.starts_with(|c: char| c.is_ascii_digit()) => text(answer.get("status")),
        name => field(name),
    }
}

fn copies(ground: &mut Ground, identity: &str) -> Vec<Value> {
    let answer = ground.echo.ask(&Value::map().with("seen", identity));
    answer.items_at("seen").to_vec()
}

fn fits(seen: &str, key: &str, wanted: &str) -> bool {
    if key.starts_with(|c: char| c.is_ascii_digit()) {
        return key.split('|').any(|one| match one.strip_suffix("xx") {
            Some(hundreds) => seen.starts_with(hundreds),
            None => seen == one,
        });
    }
    if let Some(part) = wanted.strip_prefix('~') {
        return seen.contains(part);
    }
    // Lists are compared without the spaces between their members.
    let seen = seen.replace(", ", ",");
    wanted.split('|').any(|one| one == seen)
}

/// `SERVICE=NUMBER`, `500=NUMBER` (a status), `grpc14=NUMBER`, `error=NUMBER`, each within `tol` (1 if not given);
/// `mirrored:SERVICE=NUMBER`. Nothing else may have happened.
fn distribution(
    ground: &mut Ground,
    scenario: &str,
    line: &RequestLine,
    outcomes: &Value,
    identity: &str,
) -> Vec<String> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for member in outcomes.members() {
        let name = match &*member.key {
            "error" => "error".to_owned(),
            other => match other.split_once(' ') {
                Some(("status", code)) => code.to_owned(),
                Some((_, code)) => format!("grpc{code}"),
                None => ground.service_at(scenario, other).unwrap_or_else(|| other.to_owned()),
            },
        };
        *counts.entry(name).or_default() += member.value.as_int().unwrap_or_default();
    }
    let wants_copies = line.wanted.iter().any(|(key, _)| key.starts_with("mirrored:"));
    for copy in if wants_copies { copies(ground, identity) } else { Vec::new() } {
        if let Some(service) = ground.service_at(scenario, copy.text_at("address")) {
            *counts.entry(format!("mirrored:{service}")).or_default() += 1;
        }
    }
    let given = line.wanted.iter().find(|(key, _)| key == "tol");
    let tolerance = given.map_or(1, |(_, n)| n.parse().unwrap());
    let mut wrong = Vec::new();
    let all = format!("{counts:?}");
    for (key, wanted) in line.wanted.iter().filter(|(key, _)| key != "tol") {
        let seen = counts.remove(key).unwrap_or_default();
        let wanted = wanted.parse::<i64>().unwrap();
        if (seen - wanted).abs() > if wanted == 0 { 0 } else { tolerance } {
            wrong.push(format!("{key} is {seen}, not {wanted} ± {tolerance}"));
        }
    }
    // What reached a backend by itself counts as a copy as well: only those that are named are compared.
    for (key, count) in counts.iter().filter(|(key, _)| !key.starts_with("mirrored:")) {
        wrong.push(format!("{key} got {count}"));
    }
    if !wrong.is_empty() {
        wrong.push(all);
    }
    wrong
}
