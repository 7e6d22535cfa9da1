//! `pilus status`, the lists, `config view` and `explain` for people.
use std::fmt::Write;

use super::table::{Style, Table, age, clean};
use crate::proto::value::Value;
use crate::server::admin::moment::parse_rfc3339;

/// Blanks between key and value of `config view`, as `cilium config view` pads.
const CONFIG_GAP: usize = 4;

fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>" } else { text }.to_owned()
}

fn plain_at(json: &Value, path: &str) -> String {
    json.at(path).map_or_else(String::new, Value::plain)
}

/// `namespace/name` of `{"namespace", "name"}`.
fn name(json: Option<&Value>) -> String {
    let Some(json) = json else { return String::new() };
    match json.text_at("namespace") {
        "" => json.text_at("name").to_owned(),
        namespace => format!("{namespace}/{}", json.text_at("name")),
    }
}

fn joined(items: &[Value], text: impl Fn(&Value) -> String) -> String {
    or_none(&items.iter().map(text).collect::<Vec<_>>().join(","))
}

fn host_port(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn ago(json: &Value, field: &str, now: u64) -> String {
    parse_rfc3339(json.text_at(field))
        .map_or_else(|| "<unknown>".to_owned(), |then| age(now.saturating_sub(then)))
}

fn section(out: &mut String, style: Style, title: &str) {
    let _ = writeln!(out, "\n{}", style.bold(title));
}

/// `pilus status`
pub(super) fn status(json: &Value, style: Style, now: u64) -> String {
    let mut out = String::new();
    let uptime = json.at("uptimeSeconds").and_then(Value::as_int).unwrap_or(0);
    let _ = writeln!(
        out,
        "{} {}   version {}   up {}",
        style.bold("Node"),
        clean(json.text_at("node")),
        json.text_at("version"),
        age(u64::try_from(uptime).unwrap_or(0))
    );
    servers(&mut out, json, style);
    sources(&mut out, json, style);
    held_addresses(&mut out, json, style, now);
    listeners(&mut out, json, style);
    datapath(&mut out, json, style);
    problems(&mut out, json, style, now);
    out
}

fn servers(out: &mut String, json: &Value, style: Style) {
    section(out, style, "Servers");
    let mut table = Table::new(&["NAME", "STATE", "RESTARTS", "HANDLED", "REFUSED", "LAST PANIC"]);
    for server in json.items_at("servers") {
        table.row(vec![
            server.text_at("name").to_owned(),
            server.text_at("state").to_owned(),
            plain_at(server, "restarts"),
            plain_at(server, "handled"),
            plain_at(server, "refused"),
            or_none(server.text_at("lastPanic")),
        ]);
    }
    out.push_str(&table.render());
}

fn sources(out: &mut String, json: &Value, style: Style) {
    section(out, style, "Sources");
    let Some(sources) = json.get("sources") else { return };
    let _ = match sources.get("kubernetes") {
        Some(from) => writeln!(out, "Kubernetes API server: {}", clean(&from.plain())),
        None => write!(
            out,
            "directories: {}\nfiles: {}   ",
            clean(&joined(sources.items_at("directories"), Value::plain)),
            plain_at(sources, "files")
        ),
    };
    let (objects, generated) = (plain_at(sources, "objects"), plain_at(sources, "generated"));
    let _ = writeln!(out, "objects: {objects} (generated: {generated})");
    for (title, field) in [("kinds", "byKind"), ("skipped kinds", "skipped")] {
        let counts = sources.get(field).map_or(&[][..], Value::members);
        if !counts.is_empty() {
            let counts: Vec<String> = counts
                .iter()
                .map(|it| format!("{} {}", it.value.plain(), clean(&it.key)))
                .collect();
            let _ = writeln!(out, "{title}: {}", counts.join(", "));
        }
    }
}

fn held_addresses(out: &mut String, json: &Value, style: Style, now: u64) {
    section(out, style, "Addresses");
    let header = ["ADDRESS", "INTERFACE", "ROLE", "HOLDER", "SINCE", "SERVICES", "WHY"];
    let mut table = Table::new(&header);
    for entry in json.items_at("addresses") {
        table.row(vec![
            entry.text_at("address").to_owned(),
            entry.text_at("interface").to_owned(),
            entry.text_at("role").to_owned(),
            or_none(entry.text_at("holder")),
            ago(entry, "since", now),
            joined(entry.items_at("services"), |it| name(Some(it))),
            entry.text_at("why").to_owned(),
        ]);
    }
    if table.is_empty() {
        out.push_str("none announced\n");
    } else {
        out.push_str(&table.render());
    }
    for entry in json.items_at("notAnnounced") {
        let why = clean(entry.text_at("why"));
        let service = clean(&name(entry.get("service")));
        let _ = writeln!(out, "{} {service}: {why}", style.doubtful("not announced:"));
    }
}

fn listeners(out: &mut String, json: &Value, style: Style) {
    section(out, style, "Listeners");
    let mut table = Table::new(&[
        "SERVICE",
        "PORT",
        "PROTOCOL",
        "ADDRESSES",
        "HOSTS",
        "ROUTES",
        "CERTIFICATES",
    ]);
    for listener in json.items_at("listeners") {
        table.row(vec![
            name(listener.get("service")),
            plain_at(listener, "port"),
            listener.text_at("protocol").to_owned(),
            joined(listener.items_at("addresses"), Value::plain),
            plain_at(listener, "hosts"),
            plain_at(listener, "routes"),
            plain_at(listener, "certificates"),
        ]);
    }
    out.push_str(&if table.is_empty() { "none\n".to_owned() } else { table.render() });
}

fn datapath(out: &mut String, json: &Value, style: Style) {
    section(out, style, "Data path");
    let Some(datapath) = json.get("datapath") else { return };
    if datapath.get("enabled").and_then(Value::as_bool) == Some(false) {
        out.push_str("off (--no-bpf): ordinary sockets, nothing is announced\n");
    } else if datapath.get("generation").is_none() {
        let _ = writeln!(out, "{}", style.doubtful("the hooks have not answered yet"));
    } else {
        let _ = writeln!(out, "generation: {}", plain_at(datapath, "generation"));
    }
    for failure in datapath.items_at("failures") {
        let _ = writeln!(out, "{} {}", style.bad("failed:"), clean(&failure.plain()));
    }
    for hook in datapath.items_at("hooks") {
        let _ = writeln!(out, "{}: {}", clean(hook.text_at("name")), clean(hook.text_at("value")));
    }
}

fn problems(out: &mut String, json: &Value, style: Style, now: u64) {
    section(out, style, "Problems");
    let problems = json.items_at("problems");
    if problems.is_empty() {
        let _ = writeln!(out, "{}", style.good("none"));
    }
    for problem in problems {
        let severity = match problem.text_at("severity") {
            "Warning" => style.doubtful("warning"),
            _ => style.bad("error"),
        };
        // The severity is said once, in front.
        let text = clean(problem.text_at("text")).replacen("warning: ", "", 1);
        let _ = writeln!(out, "{severity} (for {}): {text}", ago(problem, "since", now));
    }
    let count = json.at("problemCount").and_then(Value::as_int).unwrap_or(0);
    let more = usize::try_from(count).unwrap_or(0).saturating_sub(problems.len());
    if more > 0 {
        let _ = writeln!(out, "and {more} more");
    }
}

/// `pilus service list`: one line a backend.
pub(super) fn services(json: &Value) -> String {
    let mut table =
        Table::new(&["NAMESPACE", "NAME", "FRONTEND", "PROTOCOL", "BACKENDS", "HOLDER"]);
    for item in json.items_at("items") {
        let mut backends = item.items_at("backends").iter().map(backend);
        let first = match item.text_at("servedBy") {
            "proxy" => Some("proxy".to_owned()),
            _ => backends.next(),
        };
        table.row(vec![
            item.text_at("service.namespace").to_owned(),
            item.text_at("service.name").to_owned(),
            host_port(item.text_at("frontend.address"), &plain_at(item, "frontend.port")),
            item.text_at("frontend.protocol").to_owned(),
            or_none(&first.unwrap_or_default()),
            or_none(item.text_at("holder")),
        ]);
        for backend in backends {
            let mut row = vec![String::new(); 6];
            row[4] = backend;
            table.row(row);
        }
    }
    table.render()
}

/// `10.244.1.7:8080 (active, direct return by 192.168.10.102)`
fn backend(item: &Value) -> String {
    let how = match item.text_at("reach") {
        "local" => ", on this node".to_owned(),
        "host" => ", this node".to_owned(),
        "direct-return" => format!(", direct return by {}", item.text_at("via")),
        "node-address" => ", from this node's address".to_owned(),
        _ => String::new(),
    };
    format!("{} ({}{how})", item.text_at("address"), item.text_at("state"))
}

/// `pilus endpoint list`
pub(super) fn endpoints(json: &Value) -> String {
    let mut table = Table::new(&["SERVICE", "PORT", "ADDRESS", "STATE", "NODE", "POD"]);
    for item in json.items_at("items") {
        table.row(vec![
            name(item.get("service")),
            match item.text_at("protocol") {
                "" | "TCP" => plain_at(item, "port"),
                other => format!("{}/{other}", plain_at(item, "port")),
            },
            item.text_at("address").to_owned(),
            item.text_at("state").to_owned(),
            or_none(item.text_at("node")),
            or_none(&name(item.get("pod"))),
        ]);
    }
    table.render()
}

/// `pilus ip list`
pub(super) fn addresses(json: &Value) -> String {
    let mut table = Table::new(&["IP", "IDENTITY", "SOURCE", "OWNER", "HOLDER"]);
    for item in json.items_at("items") {
        let owner = format!("{} {}", item.text_at("owner.kind"), name(item.get("owner")));
        table.row(vec![
            item.text_at("address").to_owned(),
            joined(item.items_at("identity"), Value::plain),
            item.text_at("source").to_owned(),
            owner,
            or_none(item.text_at("holder")),
        ]);
    }
    table.render()
}

/// `pilus route list`
pub(super) fn routes(json: &Value) -> String {
    let mut table = Table::new(&["LISTENER", "HOST", "MATCH", "PATH", "ACTION", "RULE"]);
    for item in json.items_at("items") {
        let listener =
            format!("{}:{}", name(item.at("listener.service")), plain_at(item, "listener.port"));
        let rule = |it: &Value| {
            format!("{} {} {}", it.text_at("kind"), name(Some(it)), it.text_at("field"))
        };
        table.row(vec![
            listener,
            item.text_at("host").to_owned(),
            item.text_at("match").to_owned(),
            route_path(item),
            action(item),
            joined(item.items_at("origins"), rule),
        ]);
    }
    table.render()
}

/// The path with what else must hold.
fn route_path(item: &Value) -> String {
    let conditions = item.items_at("conditions").iter().map(Value::plain);
    let parts: Vec<String> =
        std::iter::once(item.text_at("path").to_owned()).chain(conditions).collect();
    parts.join(", ")
}

fn action(item: &Value) -> String {
    match item.text_at("action.type") {
        "Forward" => {
            let backends = item.items_at("action.backends");
            let backend = |it: &Value| {
                let service = match it.get("service") {
                    Some(service) => format!("{}:{}", name(Some(service)), plain_at(it, "port")),
                    None => format!("{} {}", plain_at(it, "status"), it.text_at("why")),
                };
                if backends.len() == 1 {
                    service
                } else {
                    format!("{service} (weight {})", plain_at(it, "weight"))
                }
            };
            joined(backends, backend)
        }
        "RedirectHttps" => format!("301 to https port {}", plain_at(item, "action.port")),
        _ => format!("{} {}", plain_at(item, "action.status"), item.text_at("action.why")),
    }
}

/// `pilus config view`
pub(super) fn config(json: &Value) -> String {
    let settings = json.get("settings").map_or(&[][..], Value::members);
    let width = settings.iter().map(|it| it.key.len()).max().unwrap_or(0) + CONFIG_GAP;
    let mut out = String::new();
    for setting in settings {
        let line = format!("{:width$}{}", setting.key, clean(&setting.value.plain()));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// `pilus explain`
pub(super) fn explanation(json: &Value, style: Style) -> String {
    let mut out = String::new();
    let scheme = json.text_at("request.scheme");
    let place = host_port(json.text_at("request.host"), &plain_at(json, "request.port"));
    let request = if scheme.starts_with("http") {
        let (method, path) = (json.text_at("request.method"), json.text_at("request.path"));
        format!("{method} {scheme}://{place}{path}")
    } else {
        format!("{scheme}://{place}")
    };
    let _ = writeln!(out, "{}", style.bold(&clean(&request)));
    let steps = json.items_at("steps");
    let width = steps.iter().map(|it| it.text_at("step").len()).max().unwrap_or(0);
    for step in steps {
        let (result, why) = (clean(step.text_at("result")), clean(step.text_at("why")));
        let _ = writeln!(out, "  {:width$}   {result}", step.text_at("step"));
        if !why.is_empty() {
            let _ = writeln!(out, "  {:width$}     because: {why}", "");
        }
    }
    let text = clean(json.text_at("outcome.text"));
    let served = json.at("outcome.served").and_then(Value::as_bool) == Some(true);
    let text = if served { style.good(&text) } else { style.bad(&text) };
    let _ = writeln!(out, "=> {text}");
    out
}
