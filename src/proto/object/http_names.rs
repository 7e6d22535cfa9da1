//! The forms that Gateway API asks for: references, header fields, paths, durations, origins.
use std::time::Duration;

use super::names;

/// The longest header value, description of an annotation, or regular expression for one.
const MAX_VALUE: usize = 4096;
/// The longest path and query value.
const MAX_PATH: usize = 1024;
/// The longest name of an object, host or protocol.
const MAX_NAME: usize = 253;

fn bounded(text: &str, low: usize, high: usize) -> Result<(), String> {
    match text.chars().count() {
        0 if low > 0 => Err("required, and empty".to_owned()),
        count if count > high => Err(format!("{count} characters; at most {high} are allowed")),
        _ => Ok(()),
    }
}

/// The kind of an object.
pub(super) fn kind(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_kind = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && text.bytes().all(inner);
    if is_kind { Ok(()) } else { Err(format!("`{text}` is not a kind, such as Service")) }
}

/// The name of some object; what a name looks like depends on the kind.
pub(super) fn object_name(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_NAME)
}

/// `description` of a GatewayClass.
pub(super) fn description(text: &str) -> Result<(), String> {
    bounded(text, 0, 64)
}

/// A value of `annotations` and `options`.
pub(super) fn annotation_value(text: &str) -> Result<(), String> {
    bounded(text, 0, MAX_VALUE)
}

/// `sessionName`: a cookie's or header's name.
pub(super) fn session_name(text: &str) -> Result<(), String> {
    bounded(text, 1, 128)?;
    token(text)
}

/// `protocol` of a listener: a word, or a domain and a word.
pub(super) fn listener_protocol(text: &str) -> Result<(), String> {
    let is_word = |word: &str, dash: bool| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || dash && byte == b'-')
            && !word.starts_with('-')
            && !word.ends_with('-')
    };
    let is_protocol = match text.split_once('/') {
        None => is_word(text, true),
        Some((domain, word)) => names::dns_subdomain(domain).is_ok() && is_word(word, false),
    };
    if is_protocol && text.len() <= 255 {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a protocol: HTTP, HTTPS, TLS, TCP, UDP, or a domain, `/` and a word"
    ))
}

/// `type` of an address.
pub(super) fn gateway_address_type(text: &str) -> Result<(), String> {
    if matches!(text, "IPAddress" | "Hostname" | "NamedAddress")
        || names::domain_prefixed_path(text).is_ok()
    {
        return Ok(());
    }
    Err(format!("`{text}` is not IPAddress, Hostname, or a domain, `/` and a word"))
}

/// `wellKnownCACertificates`.
pub(super) fn well_known_authorities(text: &str) -> Result<(), String> {
    if text == "System" || text.contains('/') && names::qualified_name(text).is_ok() {
        return Ok(());
    }
    Err(format!("`{text}` is not `System`, nor a domain, `/` and a word"))
}

/// RFC 3986: a scheme, `://` and more.
pub(super) fn absolute_uri(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_NAME)?;
    match text.split_once("://") {
        Some((scheme, _)) if !scheme.is_empty() && !scheme.contains(['/', '?', '#', ':']) => Ok(()),
        _ => Err(format!("`{text}` is not a URI, such as spiffe://example.com/web")),
    }
}

/// RFC 9110 §5.6.2.
fn token(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(inner) {
        return Ok(());
    }
    Err(format!("`{text}` is not a name: letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 token)"))
}

/// The name of a header field or query parameter.
pub(super) fn header_name(text: &str) -> Result<(), String> {
    bounded(text, 1, 256)?;
    token(text)
}

/// The value of a header field: visible ASCII, single blanks or tabs between.
pub(super) fn header_value(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_VALUE)?;
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t');
    let bytes = text.as_bytes();
    let wrong = bytes.iter().any(|&byte| !is_blank(byte) && !byte.is_ascii_graphic())
        || bytes.windows(2).any(|pair| is_blank(pair[0]) && is_blank(pair[1]))
        || bytes.first().is_some_and(|byte| is_blank(*byte))
        || bytes.last().is_some_and(|byte| is_blank(*byte));
    if wrong {
        return Err(format!(
            "`{}` is not a header value: visible ASCII, single blanks only between",
            text.escape_debug()
        ));
    }
    Ok(())
}

/// The value of a header of a GRPCRoute's match.
pub(super) fn grpc_header_value(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_VALUE)
}

/// The value of a query parameter.
pub(super) fn query_value(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_PATH)
}

/// RFC 3986: what a path may consist of, `%` only before two digits.
fn path_characters(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        match bytes[at] {
            b'%' if hex(at + 1) && hex(at + 2) => at += 3,
            byte if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte) => {
                at += 1
            }
            _ => {
                let wrong = text[at..].chars().next().unwrap_or('%');
                return Err(format!("`{text}` must not contain `{}`", wrong.escape_debug()));
            }
        }
    }
    Ok(())
}

/// An Exact or PathPrefix path, as the API server takes it.
pub(super) fn path(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_PATH)?;
    if !text.starts_with('/') {
        return Err(format!("`{text}` must begin with `/`"));
    }
    for wrong in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if text.contains(wrong) {
            return Err(format!("`{text}` must not contain `{wrong}`"));
        }
    }
    for wrong in ["/..", "/."] {
        if text.ends_with(wrong) {
            return Err(format!("`{text}` must not end with `{wrong}`"));
        }
    }
    path_characters(text)
}

/// A regular expression for paths.
pub(super) fn path_regex(text: &str) -> Result<(), String> {
    bounded(text, 0, MAX_PATH)?;
    names::compile(text)
}

/// `http.path` of an ExternalAuth filter.
pub(super) fn path_prefix(text: &str) -> Result<(), String> {
    bounded(text, 1, MAX_PATH)?;
    path_characters(text)
}

/// What a redirect or rewrite puts in place of a path. It goes out as it is, so nothing in it may end a line or begin
/// something else than a path.
pub(super) fn path_of_redirect(text: &str) -> Result<(), String> {
    bounded(text, 0, MAX_PATH)?;
    match text.bytes().find(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'?')) {
        None => Ok(()),
        Some(byte) => Err(format!("must not contain `{}`", byte.escape_ascii())),
    }
}

/// `service` of a GRPCRoute's match: words joined by dots.
pub(super) fn grpc_service(text: &str) -> Result<(), String> {
    bounded(text, 0, MAX_PATH)?;
    if text.strip_prefix('.').unwrap_or(text).split('.').all(is_grpc_word) {
        return Ok(());
    }
    Err(format!("`{text}` is not a gRPC service, such as helloworld.Greeter"))
}

/// `method` of a GRPCRoute's match.
pub(super) fn grpc_method(text: &str) -> Result<(), String> {
    bounded(text, 0, MAX_PATH)?;
    if is_grpc_word(text) {
        return Ok(());
    }
    Err(format!("`{text}` is not a gRPC method, such as SayHello"))
}

fn is_grpc_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An origin of a CORS filter: `*`, or scheme, host (perhaps with `*`) and port.
pub(super) fn origin(text: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "`{text}` is not an origin, such as https://example.com or https://*.example.com:8443"
        )
    };
    bounded(text, 1, MAX_NAME)?;
    if text == "*" {
        return Ok(());
    }
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or_else(wrong)?;
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let named = host.strip_prefix("*.").unwrap_or(host);
    if (host == "*" || named.split('.').all(is_label)) && port.is_none_or(is_port) {
        return Ok(());
    }
    Err(wrong())
}

/// A duration as GEP-2257 writes it.
pub(super) fn duration(text: &str) -> Result<(), String> {
    match parse_duration(text) {
        Some(_) => Ok(()),
        None => Err(format!(
            "`{text}` is not a duration: one to four of a number (five digits) and h, m, s or ms, such as \
             1m30s"
        )),
    }
}

/// Reads a duration of GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for part in 0.. {
        if rest.is_empty() {
            return (part > 0).then_some(total);
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if part == 4 || !(1..=5).contains(&digits) {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let (milliseconds, length) = match unit.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b'h', ..] => (3_600_000, 1),
            [b'm', ..] => (60_000, 1),
            [b's', ..] => (1_000, 1),
            _ => return None,
        };
        total += Duration::from_millis(number * milliseconds);
        rest = &unit[length..];
    }
    None
}
