//! Lines of the access log: one JSON object each, or Apache's Common or Combined Log Format.
//!
//! A line is written in two steps into a buffer of the caller: [`begin`] what is known when a request has arrived,
//! [`end`] what is known when all is over. Nothing is allocated but by the buffer. Whatever comes from a client is
//! escaped and bounded: no line forges another, none steers a terminal, JSON is always JSON.
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;

use super::calendar::{MONTHS, civil};
use crate::api::config::LogFormat;
use crate::api::meta::ObjectKey;

/// Bytes that one text from outside takes in a line, escaped: what is longer is cut, and ends with `...`.
const MAX_TEXT: usize = 1024;
/// The same for paths, which have their query with them.
const MAX_PATH: usize = 4096;

/// What is known at the beginning. Of a request whose head could not be read most is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begun<'a> {
    /// Milliseconds since 1970.
    pub unix_millis: u64,
    /// The client's address, as far as proxies are believed.
    pub client: &'a [u8],
    /// Who has connected, if that is somebody else.
    pub peer: Option<&'a [u8]>,
    /// What it has connected to.
    pub local: Option<SocketAddr>,
    /// `HTTP/1.1` and so on, or `TCP`, `TLS`, `UDP`.
    pub protocol: &'static str,
    /// The method, the host with its port, the path with its query.
    pub request: Option<[&'a str; 3]>,
    /// `User-Agent`
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`
    pub referer: Option<&'a [u8]>,
    /// `x-request-id` as the endpoint gets it.
    pub request_id: Option<&'a [u8]>,
    /// The name in the TLS handshake.
    pub server_name: Option<&'a str>,
    /// The object the route was made from.
    pub route: Option<&'a ObjectKey>,
}

/// What is known at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// The status the client was sent; 0: it was sent none. None: there are none in this protocol.
    pub status: Option<u16>,
    /// Why it was answered here, or broke off: Envoy's response flag, and what it is in words.
    pub reason: (&'static str, &'static str),
    /// Payload from the client, bytes.
    pub received: u64,
    /// Payload to the client, bytes.
    pub sent: u64,
    /// From the head to the last byte.
    pub duration_ms: u64,
    /// The last endpoint that was tried.
    pub upstream: Option<SocketAddr>,
}

/// Writes the beginning to `out`, which is empty. Returns where [`end`]'s part belongs.
pub fn begin(format: LogFormat, out: &mut Vec<u8>, begun: &Begun<'_>) -> usize {
    match format {
        LogFormat::Json => {
            begin_json(out, begun);
            out.len()
        }
        LogFormat::Common | LogFormat::Combined => begin_common(format, out, begun),
    }
}

/// Appends the rest to `out`. The line is what stands before `middle`, then what is returned, then the rest of `out`
/// up to it.
pub fn end(format: LogFormat, out: &mut Vec<u8>, ended: &Ended) -> Range<usize> {
    let start = out.len();
    match format {
        LogFormat::Json => end_json(out, ended),
        LogFormat::Common | LogFormat::Combined => {
            put(out, format_args!(" {} ", ended.status.unwrap_or_default()));
            // A dash for nothing is what %b is.
            match ended.sent {
                0 => out.push(b'-'),
                sent => put(out, format_args!("{sent}")),
            }
            if format == LogFormat::Common {
                out.push(b'\n');
            }
        }
    }
    start..out.len()
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

/// Year, month, day, hour, minute, second.
fn parts_of(unix: u64) -> [u64; 6] {
    let (year, month, day) = civil(unix / 86_400);
    let second = unix % 86_400;
    [year, month, day, second / 3_600, second / 60 % 60, second % 60]
}

fn begin_json(out: &mut Vec<u8>, begun: &Begun<'_>) {
    let [year, month, day, hour, minute, second] = parts_of(begun.unix_millis / 1_000);
    let millis = begun.unix_millis % 1_000;
    put(
        out,
        format_args!(
            "{{\"time\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z\""
        ),
    );
    let mut field = |name: &str, value: Option<&[u8]>, most: usize| {
        let Some(value) = value else { return };
        put(out, format_args!(",\"{name}\":\""));
        json_text(out, value, most);
        out.push(b'"');
    };
    field("client_address", Some(begun.client), MAX_TEXT);
    field("peer_address", begun.peer, MAX_TEXT);
    let [method, authority, path] = begun.request.map_or([None; 3], |request| request.map(Some));
    field("method", method.map(str::as_bytes), MAX_TEXT);
    field("authority", authority.map(str::as_bytes), MAX_TEXT);
    field("path", path.map(str::as_bytes), MAX_PATH);
    field("protocol", Some(begun.protocol.as_bytes()), MAX_TEXT);
    field("server_name", begun.server_name.map(str::as_bytes), MAX_TEXT);
    field("request_id", begun.request_id, MAX_TEXT);
    field("user_agent", begun.user_agent, MAX_TEXT);
    field("referer", begun.referer, MAX_TEXT);
    // These have no bytes that must be escaped.
    if let Some(local) = begun.local {
        put(out, format_args!(",\"local_address\":\"{local}\""));
    }
    if let Some(route) = begun.route {
        put(out, format_args!(",\"route\":\"{}/{}\"", route.kind.as_str(), route.name));
    }
}

fn end_json(out: &mut Vec<u8>, ended: &Ended) {
    if let Some(status) = ended.status {
        put(out, format_args!(",\"status\":{status}"));
    }
    let (flags, details) = ended.reason;
    put(
        out,
        format_args!(
            ",\"response_flags\":\"{flags}\",\"response_code_details\":\"{details}\",\"bytes_received\":{},\
             \"bytes_sent\":{},\"duration_ms\":{}",
            ended.received, ended.sent, ended.duration_ms
        ),
    );
    if let Some(upstream) = ended.upstream {
        put(out, format_args!(",\"upstream_address\":\"{upstream}\""));
    }
    out.extend_from_slice(b"}\n");
}

/// `%h %l %u %t "%r"`, and for Combined `"%{Referer}i" "%{User-agent}i"` to be put behind status and bytes.
fn begin_common(format: LogFormat, out: &mut Vec<u8>, begun: &Begun<'_>) -> usize {
    let [year, month, day, hour, minute, second] = parts_of(begun.unix_millis / 1_000);
    // Months are counted from 1.
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    out.extend_from_slice(begun.client);
    put(
        out,
        format_args!(
            " - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \""
        ),
    );
    match begun.request {
        Some([method, _, path]) => {
            apache_text(out, method.as_bytes(), MAX_TEXT);
            out.push(b' ');
            apache_text(out, path.as_bytes(), MAX_PATH);
            put(out, format_args!(" {}", begun.protocol));
        }
        None => out.push(b'-'),
    }
    out.push(b'"');
    let middle = out.len();
    if format == LogFormat::Combined {
        for value in [begun.referer, begun.user_agent] {
            out.extend_from_slice(b" \"");
            apache_text(out, value.unwrap_or(b"-"), MAX_TEXT);
            out.push(b'"');
        }
        out.push(b'\n');
    }
    middle
}

/// Appends `value` as the inside of a JSON string. What is not UTF-8 becomes U+FFFD.
fn json_text(out: &mut Vec<u8>, value: &[u8], most: usize) {
    let end = out.len() + most;
    for chunk in value.utf8_chunks() {
        for char in chunk.valid().chars() {
            if out.len() >= end {
                break;
            }
            match char {
                '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
                ' '..='~' => out.push(char as u8),
                _ if char.is_control() => put(out, format_args!("\\u{:04x}", u32::from(char))),
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if out.len() >= end {
            return out.extend_from_slice(b"...");
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Appends `value` as Apache does within quotes: `\"`, `\\`, and `\xhh` for what is not printable ASCII.
fn apache_text(out: &mut Vec<u8>, value: &[u8], most: usize) {
    let end = out.len() + most;
    for byte in value {
        if out.len() >= end {
            return out.extend_from_slice(b"...");
        }
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => put(out, format_args!("\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::meta::{Kind, NamespacedName};
    use crate::proto::value::parse_json;

    fn line(format: LogFormat, begun: &Begun<'_>, ended: &Ended) -> String {
        let mut out = Vec::new();
        let middle = begin(format, &mut out, begun);
        let range = end(format, &mut out, ended);
        let parts = [&out[..middle], &out[range.clone()], &out[middle..range.start]];
        String::from_utf8(parts.concat()).unwrap()
    }

    fn begun<'a>(route: &'a ObjectKey, agent: &'a [u8]) -> Begun<'a> {
        Begun {
            unix_millis: 1_795_226_605_042,
            client: b"203.0.113.1",
            peer: Some(b"10.0.0.1"),
            local: Some("192.168.10.211:80".parse().unwrap()),
            protocol: "HTTP/1.1",
            request: Some(["GET", "shop.example", "/a?q=\"x\\"]),
            user_agent: Some(agent),
            referer: None,
            request_id: Some(b"1-2"),
            server_name: None,
            route: Some(route),
        }
    }

    fn ended() -> Ended {
        Ended {
            status: Some(200),
            reason: ("-", "via_upstream"),
            received: 3,
            sent: 5,
            duration_ms: 7,
            upstream: Some("[fd00::5]:8080".parse().unwrap()),
        }
    }

    #[test]
    fn a_line_has_everything_in_its_place() {
        let route =
            ObjectKey { kind: Kind::Ingress, name: NamespacedName::new("default", "basic") };
        let begun = begun(&route, b"curl/8");
        assert_eq!(
            line(LogFormat::Json, &begun, &ended()),
            "{\"time\":\"2026-11-21T02:03:25.042Z\",\"client_address\":\"203.0.113.1\",\
             \"peer_address\":\"10.0.0.1\",\"method\":\"GET\",\"authority\":\"shop.example\",\
             \"path\":\"/a?q=\\\"x\\\\\",\"protocol\":\"HTTP/1.1\",\"request_id\":\"1-2\",\"user_agent\":\"curl/8\",\
             \"local_address\":\"192.168.10.211:80\",\"route\":\"Ingress/default/basic\",\"status\":200,\
             \"response_flags\":\"-\",\"response_code_details\":\"via_upstream\",\"bytes_received\":3,\
             \"bytes_sent\":5,\"duration_ms\":7,\"upstream_address\":\"[fd00::5]:8080\"}\n"
        );
        let start =
            "203.0.113.1 - - [21/Nov/2026:02:03:25 +0000] \"GET /a?q=\\\"x\\\\ HTTP/1.1\" 200 5";
        assert_eq!(line(LogFormat::Common, &begun, &ended()), format!("{start}\n"));
        assert_eq!(
            line(LogFormat::Combined, &begun, &ended()),
            format!("{start} \"-\" \"curl/8\"\n")
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let begun = Begun { client: b"::1", protocol: "HTTP/1.1", ..Begun::default() };
        let ended = Ended { status: Some(400), reason: ("DPE", "bad"), ..Ended::default() };
        assert_eq!(
            line(LogFormat::Json, &begun, &ended),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"client_address\":\"::1\",\"protocol\":\"HTTP/1.1\",\
             \"status\":400,\"response_flags\":\"DPE\",\"response_code_details\":\"bad\",\"bytes_received\":0,\
             \"bytes_sent\":0,\"duration_ms\":0}\n"
        );
        assert_eq!(
            line(LogFormat::Combined, &begun, &ended),
            "::1 - - [01/Jan/1970:00:00:00 +0000] \"-\" 400 - \"-\" \"-\"\n"
        );
    }

    #[test]
    fn no_byte_of_a_client_breaks_a_line() {
        let route =
            ObjectKey { kind: Kind::Ingress, name: NamespacedName::new("default", "basic") };
        let every: Vec<u8> = (0..=255).collect();
        let long = [0xff; 10_000];
        for agent in [&every[..], &long, "\u{9b}2J\u{2028}\u{1f980}".as_bytes(), b"\xe2\x82"] {
            let json = line(LogFormat::Json, &begun(&route, agent), &ended());
            let parsed = parse_json(&json).unwrap();
            let text = parsed.text_at("user_agent");
            assert!(json.len() < 2048 && json.lines().count() == 1, "{json}");
            assert!(!json.trim_end().chars().any(char::is_control), "{json}");
            if agent.len() < 200 {
                assert_eq!(text, String::from_utf8_lossy(agent));
            }
            let common = line(LogFormat::Combined, &begun(&route, agent), &ended());
            assert!(common.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{common}");
            assert!(common.len() < 2048);
        }
        let combined = line(LogFormat::Combined, &begun(&route, b"\n\"\x1b\xff\\"), &ended());
        assert!(combined.ends_with(" \"\\x0a\\\"\\x1b\\xff\\\\\"\n"), "{combined}");
    }
}
