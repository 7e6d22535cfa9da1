//! Cross-origin requests (the Fetch standard, section 3.2).
use crate::api::meta::Str;
use crate::api::route::Cors;
use crate::proto::http1::{HeadEditor, RequestHead, list_items};

/// The origin of the request, if it may.
pub(super) fn allowed_origin<'b>(cors: &Cors, head: &RequestHead<'_, 'b>) -> Option<&'b str> {
    let origin = std::str::from_utf8(head.header("origin")?).ok()?;
    cors.origins.iter().any(|pattern| matches(pattern, origin)).then_some(origin)
}

/// Whether a browser asks whether it may ask.
pub(in super::super) fn is_preflight(head: &RequestHead<'_, '_>) -> bool {
    head.method == "OPTIONS"
        && head.header("origin").is_some()
        && head.header("access-control-request-method").is_some()
}

/// What any response to an allowed origin says.
pub(super) fn allow(head: &mut HeadEditor<'_>, cors: &Cors, origin: &str) {
    head.set("access-control-allow-origin", origin.as_bytes());
    if cors.credentials {
        head.set("access-control-allow-credentials", b"true");
    }
    if !cors.expose.is_empty() {
        head.set("access-control-expose-headers", joined(&cors.expose).as_bytes());
    }
    // The answer is another one for another origin (Fetch, section 3.2.5).
    head.add("vary", b"Origin");
}

/// What the answer to a preflight says besides, if the origin is allowed.
pub(in super::super) fn answer_preflight(
    out: &mut HeadEditor<'_>,
    cors: &Cors,
    head: &RequestHead<'_, '_>,
) {
    if allowed_origin(cors, head).is_none() {
        return;
    }
    let lists = [
        (&cors.methods, "access-control-request-method", "access-control-allow-methods"),
        (&cors.headers, "access-control-request-headers", "access-control-allow-headers"),
    ];
    for (allowed, asked, answer) in lists {
        // `*` means itself in a request with credentials, so what was asked for is named instead.
        if allowed.iter().any(|name| &**name == "*") {
            if let Some(asked) = head.header(asked).filter(|value| is_list(value)) {
                out.set(answer, asked);
            }
        } else if !allowed.is_empty() {
            out.set(answer, joined(allowed).as_bytes());
        }
    }
    out.set("access-control-max-age", cors.max_age.to_string().as_bytes());
}

/// Whether `origin` is what `pattern` describes. A wildcard stands for letters, digits, `.`, `-`, so that neither a
/// port nor another scheme slips through it.
fn matches(pattern: &str, origin: &str) -> bool {
    let (pattern, origin) = (without_default_port(pattern), without_default_port(origin));
    if pattern == "*" {
        return true;
    }
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern.eq_ignore_ascii_case(origin);
    };
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let middle = origin.len().checked_sub(before.len() + after.len()).filter(|length| *length > 0);
    middle.is_some_and(|length| {
        let (start, rest) = origin.as_bytes().split_at(before.len());
        let (middle, end) = rest.split_at(length);
        start.eq_ignore_ascii_case(before.as_bytes())
            && end.eq_ignore_ascii_case(after.as_bytes())
            && middle.iter().all(|b| is_host_byte(*b))
    })
}

fn without_default_port(origin: &str) -> &str {
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(port).unwrap_or(origin)
}

fn joined(names: &[Str]) -> String {
    names.join(", ")
}

/// Whether a value that a client has sent can be sent back: names, and nothing else.
fn is_list(value: &[u8]) -> bool {
    let is_name =
        |item: &[u8]| std::str::from_utf8(item).is_ok_and(crate::proto::http1::is_field_name);
    list_items(value).all(is_name)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        let cases = [
            ("*", "https://any.where:8443", true),
            ("*", "null", true),
            ("https://foo.com", "https://foo.com", true),
            ("https://foo.com", "HTTPS://Foo.com", true),
            ("https://foo.com", "http://foo.com", false),
            ("https://foo.com", "https://foo.com:8443", false),
            ("https://foo.com:443", "https://foo.com", true),
            ("http://foo.com", "http://foo.com:80", true),
            ("https://foo.com", "https://foo.com:80", false),
            ("https://*.foo.com", "https://a.foo.com", true),
            ("https://*.foo.com", "https://a.b.foo.com", true),
            ("https://*.foo.com", "https://foo.com", false),
            ("https://*.foo.com", "https://.foo.com", false),
            ("https://*.foo.com", "https://a.foo.com:8443", false),
            ("https://*.foo.com:8443", "https://a.foo.com:8443", true),
            ("https://*.foo.com", "https://evil.com/.foo.com", false),
            ("https://*.foo.com", "https://evil.com:1.foo.com", false),
            ("https://*.foo.com", "https://a.foo.com.evil.com", false),
            ("https://*", "https://foo.com", true),
            ("https://*", "https://foo.com:8443", false),
            ("https://foo.com", "null", false),
        ];
        for (pattern, origin, wanted) in cases {
            assert_eq!(matches(pattern, origin), wanted, "{pattern} and {origin}");
        }
    }
}
