//! Turns the short forms of the scenario files into manifests.
use std::fmt::Write as _;

use crate::ground::Ground;
use crate::language::{Block, namespaced};

/// The class of all Gateways that do not name another.
pub(crate) const CLASS: &str = "kit";

/// One YAML document, or several. `ground` gives addresses and certificates to what needs them.
pub(crate) fn expand(block: &Block, scenario: &str, ground: &mut Ground) -> String {
    let (namespace, name) = namespaced(&block.name, scenario);
    match &*block.kind {
        "Echo" => block.name.split(' ').map(|name| echo(name, scenario, ground)).collect(),
        "Tls" => tls_echo(block, namespace, name, scenario, ground),
        "CA" => {
            let pem = ground.authority(scenario, name);
            let body = literal("ca.crt", &pem);
            document("v1", "ConfigMap", namespace, name, "", &format!("data:\n{body}"))
        }
        "Cert" => {
            let pair = ground.certificate(scenario, name, &block.short);
            let body = literal("tls.crt", &pair.0) + &literal("tls.key", &pair.1);
            let body = format!("type: kubernetes.io/tls\nstringData:\n{body}");
            document("v1", "Secret", namespace, name, "", &body)
        }
        kind => {
            let body = body(block, scenario, ground);
            document(group(kind), kind, namespace, name, &block.metadata, &body)
        }
    }
}

fn group(kind: &str) -> &'static str {
    match kind {
        "Secret" | "ConfigMap" | "Namespace" | "Service" | "Pod" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "Ingress" | "IngressClass" => "networking.k8s.io/v1",
        "XBackend" | "XBackendTrafficPolicy" => "gateway.networking.x-k8s.io/v1alpha1",
        _ => "gateway.networking.k8s.io/v1",
    }
}

fn document(
    group: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    more: &str,
    body: &str,
) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let namespace = if matches!(kind, "Namespace" | "GatewayClass" | "IngressClass") {
        String::new()
    } else {
        format!(", namespace: {namespace}")
    };
    let metadata = format!("{{name: {name}{namespace}{more}}}");
    format!("---\napiVersion: {group}\nkind: {kind}\nmetadata: {metadata}\n{body}")
}

/// Everything below the metadata.
fn body(block: &Block, scenario: &str, ground: &Ground) -> String {
    let lines = || block.body.iter().map(|line| macros(line, scenario, ground));
    if matches!(&*block.kind, "Secret" | "ConfigMap" | "EndpointSlice" | "Namespace") {
        return lines().map(|line| line + "\n").collect();
    }
    let mut text = String::from("spec:\n");
    match &*block.kind {
        "Gateway" if !block.body.iter().any(|line| line.starts_with("gatewayClassName")) => {
            let _ = writeln!(text, "  gatewayClassName: {CLASS}");
        }
        "ListenerSet" => {
            let _ = writeln!(text, "  parentRef: {}", parent(&block.parents[0]));
        }
        _ if !block.parents.is_empty() => {
            let parents: Vec<String> = block.parents.iter().map(|it| parent(it)).collect();
            let _ = writeln!(text, "  parentRefs: [{}]", parents.join(", "));
        }
        _ => {}
    }
    match &*block.kind {
        "Gateway" | "ListenerSet" if !block.short.is_empty() => {
            text += "  listeners:\n";
            for listener in block.short.split("; ") {
                let _ = writeln!(text, "  - {}", self::listener(listener));
            }
        }
        "GatewayClass" => {
            let _ = writeln!(text, "  controllerName: {}", block.short);
        }
        "ReferenceGrant" => text += &grant(&block.short),
        // Hostnames of a route.
        _ if !block.short.is_empty() => {
            let _ = writeln!(text, "  hostnames: [{}]", quoted(&block.short));
        }
        _ => {}
    }
    text + &lines().map(|line| format!("  {line}\n")).collect::<String>()
}

fn quoted(words: &str) -> String {
    words.split(' ').map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// `[!][NAMESPACE/]NAME[.SECTION][:PORT]`; `!` for a ListenerSet.
fn parent(text: &str) -> String {
    let (text, kind) = match text.strip_prefix('!') {
        Some(rest) => (rest, ", kind: ListenerSet"),
        None => (text, ""),
    };
    let (text, port) = text.split_once(':').unwrap_or((text, ""));
    let (text, section) = text.split_once('.').unwrap_or((text, ""));
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    let field = |key: &str, value: &str| match value {
        "" => String::new(),
        value => format!(", {key}: {value}"),
    };
    let (namespace, section) = (field("namespace", namespace), field("sectionName", section));
    format!("{{name: {name}{kind}{namespace}{section}{}}}", field("port", port))
}

/// `NAME PROTOCOL PORT [HOSTNAME] [from=…] [cert=A,B] [mode=…] [kinds=A,B]`
fn listener(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut out = format!("{{name: {}, protocol: {}, port: {}", words[0], words[1], words[2]);
    let (mut tls, mut allowed) = (Vec::new(), Vec::new());
    for word in &words[3..] {
        match word.split_once('=') {
            None => {
                let _ = write!(out, ", hostname: \"{word}\"");
            }
            Some(("cert", names)) => {
                let reference = |name: &str| match name.split_once('/') {
                    Some((namespace, name)) => format!("{{name: {name}, namespace: {namespace}}}"),
                    None => format!("{{name: {name}}}"),
                };
                let names: Vec<String> = names.split(',').map(reference).collect();
                tls.push(format!("certificateRefs: [{}]", names.join(", ")));
            }
            Some(("mode", mode)) => tls.push(format!("mode: {mode}")),
            Some(("from", from)) => allowed.push(format!("namespaces: {}", from_namespaces(from))),
            Some(("kinds", kinds)) => {
                let kinds: Vec<String> =
                    kinds.split(',').map(|it| format!("{{kind: {it}}}")).collect();
                allowed.push(format!("kinds: [{}]", kinds.join(", ")));
            }
            Some(_) => panic!("unknown word of a listener: {word}"),
        }
    }
    if !tls.is_empty() {
        let _ = write!(out, ", tls: {{{}}}", tls.join(", "));
    }
    if !allowed.is_empty() {
        let _ = write!(out, ", allowedRoutes: {{{}}}", allowed.join(", "));
    }
    out + "}"
}

fn from_namespaces(from: &str) -> String {
    match from {
        "Selector" => "{from: Selector, selector: {matchLabels: {door: open}}}".to_owned(),
        other => format!("{{from: {other}}}"),
    }
}

/// `KIND NAMESPACE to KIND [NAME]`
fn grant(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let group = |kind: &str| match kind {
        "Secret" | "Service" | "ConfigMap" => "\"\"",
        _ => "gateway.networking.k8s.io",
    };
    let name = words.get(4).map(|name| format!(", name: {name}")).unwrap_or_default();
    format!(
        "  from: [{{group: {}, kind: {}, namespace: {}}}]\n  to: [{{group: {}, kind: {}{name}}}]\n",
        group(words[0]),
        words[0],
        words[1],
        group(words[3]),
        words[3]
    )
}

/// What takes the place of a macro with these words in its parentheses.
type Macro<'a> = &'a dyn Fn(&str) -> String;

/// `EXACT(…)`, `PREFIX(…)`, `TO(…)`, `REF(…)`, `POD(…)`, `FROM(…)`.
fn macros(line: &str, scenario: &str, ground: &Ground) -> String {
    let mut line = line.to_owned();
    let all: [(&str, Macro<'_>); 6] = [
        ("EXACT(", &|path| format!("{{type: Exact, value: \"{path}\"}}")),
        ("PREFIX(", &|path| format!("{{type: PathPrefix, value: \"{path}\"}}")),
        ("TO(", &|list| {
            let list: Vec<String> = list.split(", ").map(backend).collect();
            format!("backendRefs: [{}]", list.join(", "))
        }),
        ("REF(", &|one| backend(one)),
        ("POD(", &|service| ground.addresses(scenario, service)[0].clone()),
        ("FROM(", &from_namespaces),
    ];
    for (name, expand) in all {
        while let Some(start) = line.find(name) {
            let inner = start + name.len();
            let end = inner + line[inner..].find(')').expect("a macro is closed");
            line = format!("{}{}{}", &line[..start], expand(&line[inner..end]), &line[end + 1..]);
        }
    }
    line
}

/// `[NAMESPACE/]NAME[:PORT] [WEIGHT]`
fn backend(text: &str) -> String {
    let (target, weight) = text.split_once(' ').unwrap_or((text, ""));
    let (target, port) = target.split_once(':').unwrap_or((target, "80"));
    let (namespace, name) = target.split_once('/').unwrap_or(("", target));
    let namespace =
        if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    let weight = if weight.is_empty() { String::new() } else { format!(", weight: {weight}") };
    format!("{{name: {name}{namespace}, port: {port}{weight}}}")
}

fn literal(key: &str, text: &str) -> String {
    format!("  {key}: |\n    {}\n", text.trim_end().replace('\n', "\n    "))
}

/// A Service `NAME[*PODS]` with all its ports, and its endpoints.
fn echo(name: &str, scenario: &str, ground: &mut Ground) -> String {
    let (name, pods) = name.split_once('*').unwrap_or((name, "1"));
    let addresses = ground.pods(scenario, name, pods.parse().unwrap());
    let (namespace, name) = namespaced(name, scenario);
    service(namespace, name, &addresses)
}

fn service(namespace: &str, name: &str, addresses: &[String]) -> String {
    let ports = "ports:\n  - {name: http, port: 80, targetPort: 3000}\n  \
        - {name: h2c, port: 8081, targetPort: 3001, appProtocol: kubernetes.io/h2c}\n  \
        - {name: ws, port: 8082, targetPort: 3000, appProtocol: kubernetes.io/ws}\n  \
        - {name: grpc, port: 9000, targetPort: 3001}\n  \
        - {name: tcp, port: 7000, targetPort: 3002}\n  \
        - {name: https, port: 443, targetPort: 8443}\n  \
        - {name: other-https, port: 8443, targetPort: 8443}\n  \
        - {name: udp, port: 5300, targetPort: 3003, protocol: UDP}\n";
    let slice = "addressType: IPv4\nports:\n- {name: http, port: 3000}\n- {name: h2c, port: 3001}\n\
        - {name: ws, port: 3000}\n- {name: grpc, port: 3001}\n- {name: tcp, port: 3002}\n\
        - {name: https, port: 8443}\n- {name: other-https, port: 8443}\n\
        - {name: udp, port: 3003, protocol: UDP}\n";
    let endpoints: String =
        addresses.iter().map(|address| format!("- addresses: [{address}]\n")).collect();
    let endpoints = if endpoints.is_empty() {
        "endpoints: []\n".to_owned()
    } else {
        format!("endpoints:\n{endpoints}")
    };
    let labels = format!("labels: {{kubernetes.io/service-name: {name}}}");
    document("v1", "Service", namespace, name, "", &format!("spec:\n  {ports}"))
        + &document(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            namespace,
            &format!("{name}-1"),
            &labels,
            &format!("{slice}{endpoints}"),
        )
}

/// `+ Tls NAME: CERT [CA]`: an echo that also speaks TLS, with this certificate, and asks clients for one of this CA.
fn tls_echo(
    block: &Block,
    namespace: &str,
    name: &str,
    scenario: &str,
    ground: &mut Ground,
) -> String {
    let addresses = ground.pods(scenario, &block.name, 1);
    let mut words = block.short.split(' ');
    let certificate = words.next().unwrap();
    ground.speak_tls(scenario, certificate, words.next(), &addresses[0]);
    service(namespace, name, &addresses)
}
