//! HTTP/1.1 for questions: GET without a body, nothing else. Sans-IO.
use std::fmt::Write;

/// The longest head that is read. The longest question, an `explain` with headers, stays far below it.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// The most header fields of a request.
const MAX_FIELDS: usize = 64;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// The path, percent-decoded.
    pub(super) path: String,
    /// The query's parameters in order, decoded.
    pub(super) query: Vec<(String, String)>,
    /// The Host field.
    pub(super) host: String,
    /// Whether another request may follow.
    pub(super) keep_alive: bool,
}

/// Why a request is not answered: a status code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: &'static str,
}

// === impl Request ===

impl Request {
    /// The first parameter called `name`.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All parameters called `name`.
    pub(super) fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one request off the start of `bytes`: the request and its length, or None if its head is not
/// complete yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let refuse = |status, message| Err(Refusal { status, message });
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return refuse(431, "the request's head is too large");
        }
        Err(_) => return refuse(400, "this is not HTTP/1.1"),
    };
    if head.method != Some("GET") {
        return refuse(405, "only GET is answered here");
    }
    let field = |name: &str| {
        head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|it| it.value)
    };
    let without_body = field("transfer-encoding").is_none()
        && field("content-length").is_none_or(|value| value == b"0");
    if !without_body {
        return refuse(400, "a question has no body");
    }
    let target = head.path.unwrap_or_default();
    if !target.starts_with('/') {
        return refuse(400, "the target must be a path");
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decoded = decode(path, false).zip(decode_query(query));
    let Some((path, query)) = decoded else { return refuse(400, "bad percent-encoding") };
    let host =
        field("host").map_or_else(String::new, |it| String::from_utf8_lossy(it).into_owned());
    let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let keep_alive = head.version == Some(1) && !close;
    Ok(Some((Request { path, query, host, keep_alive }, length)))
}

fn decode_query(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key, true)?, decode(value, true)?))
        })
        .collect()
}

fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
                out.push(u8::try_from(value).ok()?);
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// Percent-encodes a query parameter's value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A response's head. With `length` None the body follows in chunks.
pub(super) fn response_head(
    status: u16,
    content_type: &str,
    length: Option<usize>,
    keep_alive: bool,
) -> String {
    let framing = match length {
        Some(length) => format!("content-length: {length}"),
        None => "transfer-encoding: chunked".to_owned(),
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\n{framing}\r\nconnection: {connection}\r\n\r\n",
        reason(status)
    )
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_what_follows_it_is_left() {
        let bytes = b"GET /v1/explain?url=http%3A%2F%2Fa.b%2Fc%3Fd&header=x:+y&header=z HTTP/1.1\r\nHost: pilus\r\n\r\nGET";
        let (request, length) = parse(bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len() - 3);
        assert_eq!(request.path, "/v1/explain");
        assert_eq!(request.parameter("url"), Some("http://a.b/c?d"));
        assert_eq!(request.parameters("header").collect::<Vec<_>>(), ["x: y", "z"]);
        assert_eq!(request.host, "pilus");
        assert!(request.keep_alive);
        assert_eq!(decode(&encode("a b&c=ü%"), true).unwrap(), "a b&c=ü%");
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        let unfinished = format!("GET /{}", "a".repeat(MAX_HEAD));
        for (text, status) in [
            ("\x16\x03\x01\x02\x00\x01\x00", 400),
            ("POST / HTTP/1.1\r\n\r\n", 405),
            ("GET / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 400),
            ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
            ("GET /%zz HTTP/1.1\r\n\r\n", 400),
            ("GET /%ff HTTP/1.1\r\n\r\n", 400),
            ("GET /?a=% HTTP/1.1\r\n\r\n", 400),
            (&long, 431),
            (&many, 431),
            (&unfinished, 431),
        ] {
            let refusal = parse(text.as_bytes()).unwrap_err();
            assert_eq!(refusal.status, status, "{}", &text[..text.len().min(60)]);
        }
        for text in ["", "GET", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            assert_eq!(parse(text.as_bytes()), Ok(None));
        }
        assert!(!parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.keep_alive);
    }
}
