//! `filters` of HTTPRoutes and GRPCRoutes: each has the payload of its type and no other, and some come only once.
use super::faults::Faults;
use super::gateway::{list, object_ref, word};
use super::gateway_route::backend;
use super::service::{flag, mark_of, port_number, text, texts};
use crate::api::meta::Str;
use crate::api::object::gateway_route::{
    CorsFilter, ExternalAuthFilter, HeaderModifier, PathModifier, RequestRedirect, RouteFilter,
};
use crate::proto::value::{Mark, Value};

/// Each type with the member that holds its payload, and whether it may come more than once.
const PAYLOADS: [(&str, &str, bool); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier", false),
    ("ResponseHeaderModifier", "responseHeaderModifier", false),
    ("RequestMirror", "requestMirror", true),
    ("RequestRedirect", "requestRedirect", false),
    ("URLRewrite", "urlRewrite", false),
    ("ExtensionRef", "extensionRef", true),
    ("CORS", "cors", false),
    ("ExternalAuth", "externalAuth", true),
];

/// The filters within `value`, which is written at `field`.
pub(super) fn filters(value: &Value, field: &str, faults: &mut Faults) -> Vec<RouteFilter> {
    let mut all = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (at, value) in list(value, "filters") {
        let field = format!("{field}.filters[{at}]");
        let Some(kind) = text(value, "type") else { continue };
        let Some((_, payload, repeatable)) = PAYLOADS.iter().find(|row| row.0 == kind) else {
            continue;
        };
        let mark = mark_of(value, "type");
        check_payloads(value, kind, &field, faults);
        if !repeatable && seen.contains(&kind) {
            let message = format!("{kind} cannot be repeated");
            faults.error(mark, format!("{field}.type"), message);
        }
        let other = match kind {
            "URLRewrite" => "RequestRedirect",
            "RequestRedirect" => "URLRewrite",
            _ => "",
        };
        if seen.contains(&other) {
            let message = format!("{kind} and {other} exclude each other");
            faults.error(mark, format!("{field}.type"), message);
        }
        seen.push(kind);
        if let Some(content) = value.get(payload) {
            let field = format!("{field}.{payload}");
            all.extend(filter(kind, content, mark_of(value, payload), &field, faults));
        }
    }
    all
}

fn check_payloads(value: &Value, kind: &str, field: &str, faults: &mut Faults) {
    for (other, payload, _) in PAYLOADS {
        match (value.member(payload), other == kind) {
            (Some(member), false) => {
                let message = format!("not allowed with type {kind}");
                faults.error(member.mark, format!("{field}.{payload}"), message);
            }
            (None, true) => {
                let message = format!("required with type {kind}");
                faults.error(mark_of(value, "type"), format!("{field}.{payload}"), message);
            }
            _ => {}
        }
    }
}

fn filter(
    kind: &str,
    value: &Value,
    mark: Mark,
    field: &str,
    faults: &mut Faults,
) -> Option<RouteFilter> {
    Some(match kind {
        "RequestHeaderModifier" => RouteFilter::RequestHeaders(header_modifier(value)),
        "ResponseHeaderModifier" => RouteFilter::ResponseHeaders(header_modifier(value)),
        "RequestRedirect" => RouteFilter::Redirect(redirect(value, field, faults)),
        "URLRewrite" => RouteFilter::Rewrite {
            hostname: text(value, "hostname").map(Str::from),
            path: path_modifier(value, field, faults),
        },
        "RequestMirror" => RouteFilter::Mirror {
            backend: backend(value.get("backendRef")?, &format!("{field}.backendRef"), faults),
            fraction: fraction(value, mark, field, faults),
        },
        "CORS" => RouteFilter::Cors(cors(value, field, faults)),
        "ExternalAuth" => external_auth(value, field, faults)?,
        _ => RouteFilter::Extension(object_ref(value)),
    })
}

fn header_modifier(value: &Value) -> HeaderModifier {
    let lines = |key: &str| {
        list(value, key).map(|(_, line)| (word(line, "name"), word(line, "value"))).collect()
    };
    HeaderModifier {
        set: lines("set"),
        add: lines("add"),
        remove: texts(value, "remove").map(Str::from).collect(),
    }
}

fn redirect(value: &Value, field: &str, faults: &mut Faults) -> RequestRedirect {
    let status = port_number(value, "statusCode").unwrap_or(302);
    if matches!(status, 304..=306) {
        let message = format!("{status} is not one of 301, 302, 303, 307, 308");
        faults.error(mark_of(value, "statusCode"), format!("{field}.statusCode"), message);
    }
    RequestRedirect {
        scheme: text(value, "scheme").map(Str::from),
        hostname: text(value, "hostname").map(Str::from),
        path: path_modifier(value, field, faults),
        port: port_number(value, "port"),
        status,
    }
}

fn path_modifier(value: &Value, field: &str, faults: &mut Faults) -> Option<PathModifier> {
    let path = value.get("path")?;
    let is_full = match text(path, "type")? {
        "ReplaceFullPath" => true,
        "ReplacePrefixMatch" => false,
        _ => return None,
    };
    let keys = ["replaceFullPath", "replacePrefixMatch"];
    let (wanted, other) = if is_full { (keys[0], keys[1]) } else { (keys[1], keys[0]) };
    let kind = text(path, "type").unwrap_or_default();
    if let Some(member) = path.member(other) {
        let message = format!("not allowed with type {kind}");
        faults.error(member.mark, format!("{field}.path.{other}"), message);
    }
    let Some(replacement) = path.get(wanted) else {
        let message = format!("required with type {kind}");
        faults.error(mark_of(path, "type"), format!("{field}.path.{wanted}"), message);
        return None;
    };
    let replacement = replacement.as_str()?;
    Some(if is_full {
        PathModifier::Full(replacement.into())
    } else {
        PathModifier::Prefix(replacement.into())
    })
}

/// Which share of requests is mirrored.
fn fraction(value: &Value, mark: Mark, field: &str, faults: &mut Faults) -> (u32, u32) {
    let number = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_int).and_then(|number| u32::try_from(number).ok())
    };
    let percent = number(value, "percent");
    let Some(fraction) = value.member("fraction") else {
        return percent.map_or((1, 1), |percent| (percent, 100));
    };
    if percent.is_some() {
        let message = "has both `percent` and `fraction`: one of them";
        faults.error(mark, field, message);
    }
    let numerator = number(&fraction.value, "numerator").unwrap_or(0);
    let denominator = number(&fraction.value, "denominator").unwrap_or(100);
    if numerator > denominator {
        let message = format!("{numerator} is greater than the denominator {denominator}");
        let field = format!("{field}.fraction.numerator");
        faults.error(mark_of(&fraction.value, "numerator"), field, message);
    }
    (numerator, denominator)
}

fn cors(value: &Value, field: &str, faults: &mut Faults) -> CorsFilter {
    let mut words = |key: &str, alone: bool| -> Vec<Str> {
        let words: Vec<Str> = texts(value, key).map(Str::from).collect();
        if alone && words.len() > 1 && words.iter().any(|word| &**word == "*") {
            let message = "`*` must stand alone";
            faults.error(mark_of(value, key), format!("{field}.{key}"), message);
        }
        words
    };
    CorsFilter {
        origins: words("allowOrigins", true),
        credentials: flag(value, "allowCredentials"),
        methods: words("allowMethods", true),
        headers: words("allowHeaders", true),
        expose: words("exposeHeaders", false),
        max_age: value
            .get("maxAge")
            .and_then(Value::as_int)
            .and_then(|age| u32::try_from(age).ok())
            .unwrap_or(5),
    }
}

fn external_auth(value: &Value, field: &str, faults: &mut Faults) -> Option<RouteFilter> {
    let protocol @ ("HTTP" | "GRPC") = text(value, "protocol")? else { return None };
    let grpc = protocol == "GRPC";
    let (wanted, other) = if grpc { ("grpc", "http") } else { ("http", "grpc") };
    if value.get(wanted).is_none() {
        let message = format!("required with protocol {protocol}");
        faults.error(mark_of(value, "protocol"), format!("{field}.{wanted}"), message);
    }
    if let Some(member) = value.member(other) {
        let message = format!("not allowed with protocol {protocol}");
        faults.error(member.mark, format!("{field}.{other}"), message);
    }
    let part = value.get(wanted);
    let words = |key: &str| -> Vec<Str> {
        part.map_or_else(Vec::new, |part| texts(part, key).map(Str::from).collect())
    };
    let limit = value.path(&["forwardBody", "maxSize"]).and_then(Value::as_int);
    Some(RouteFilter::ExternalAuth(ExternalAuthFilter {
        backend: backend(value.get("backendRef")?, &format!("{field}.backendRef"), faults),
        grpc,
        path: part.map(|part| word(part, "path")).unwrap_or_default(),
        allowed_headers: words("allowedHeaders"),
        allowed_response_headers: words("allowedResponseHeaders"),
        body_limit: limit.and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0),
    }))
}
