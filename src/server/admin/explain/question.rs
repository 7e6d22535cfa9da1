//! What is asked: a URL, a method, headers; and how a request made of them answers the route table.
use crate::api::address::Port;
use crate::api::datapath::Transport;
use crate::api::route::{ListenerProtocol, Request};

/// What is asked.
pub(in crate::server::admin) struct Question<'a> {
    /// `http://host[:port]/path?query`, `https://…`, or `tls://`, `tcp://`, `udp://` with `host:port`
    pub(in crate::server::admin) url: &'a str,
    /// The method.
    pub(in crate::server::admin) method: &'a str,
    /// `name: value`; `Host` stands for the URL's host.
    pub(in crate::server::admin) headers: Vec<&'a str>,
    /// An address or `namespace/pod`.
    pub(in crate::server::admin) from: Option<&'a str>,
}

/// What the URL begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    Tls,
    Tcp,
    Udp,
}

pub(super) struct Url<'a> {
    pub(super) scheme: Scheme,
    pub(super) host: &'a str,
    pub(super) port: Port,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

/// The words of the command line as conditions ask about them.
pub(super) struct Asked<'a> {
    method: &'a str,
    /// Names lower-case.
    headers: Vec<(String, &'a str)>,
    query: &'a str,
}

// === impl Scheme ===

impl Scheme {
    const ALL: [(&'static str, Self); 5] = [
        ("http", Self::Http),
        ("https", Self::Https),
        ("tls", Self::Tls),
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
    ];

    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }

    /// Whether the client begins with a ClientHello.
    pub(super) const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    pub(super) const fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// Whether a listener of this protocol may be what is meant.
    pub(super) const fn fits(self, protocol: ListenerProtocol) -> bool {
        match protocol {
            ListenerProtocol::Http => matches!(self, Self::Http),
            ListenerProtocol::Tls => self.is_tls(),
            ListenerProtocol::Tcp => !matches!(self, Self::Udp),
            ListenerProtocol::Udp => matches!(self, Self::Udp),
        }
    }

    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https | Self::Tls => Some(443),
            Self::Tcp | Self::Udp => None,
        }
    }
}

// === impl Url ===

impl<'a> Url<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let found = text.split_once("://").and_then(|(name, rest)| {
            let scheme = Scheme::ALL.iter().find(|row| row.0 == name)?.1;
            Some((scheme, rest))
        });
        let Some((scheme, rest)) = found else {
            return Err(format!(
                "the URL {text:?} must start with http:// or https:// (or tls://, tcp://, udp://)"
            ));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = &target[..target.find('#').unwrap_or(target.len())];
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let bare = strip_port(authority);
        let port = match authority[bare.len()..].trim_start_matches(']').strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0),
            None => scheme.default_port(),
        };
        let host = bare.trim_start_matches('[').trim_end_matches(']');
        let Some(port) = port.map(Port).filter(|_| !host.is_empty() && !host.contains('@')) else {
            return Err(format!("the URL {text:?} has no host, or a port that is none"));
        };
        Ok(Self { scheme, host, port, path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// `[::1]:80` → `[::1]`, `a.b:80` → `a.b`
pub(super) fn strip_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// The request, and its host: that of the URL, or of a `Host` header.
    pub(super) fn new(
        question: &'a Question<'_>,
        url: &'a Url<'_>,
    ) -> Result<(Self, String), String> {
        let mut host = url.host;
        let mut headers: Vec<(String, &str)> = Vec::new();
        for header in &question.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                format!("the header {header:?} has no colon: write 'name: value'")
            })?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if name == "host" {
                host = strip_port(value);
            }
            headers.push((name, value));
        }
        let query = url.query.unwrap_or_default();
        Ok((Self { method: question.method, headers, query }, host.to_ascii_lowercase()))
    }

    /// The value of a header, all lines of it joined.
    pub(super) fn header_value(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> =
            self.headers.iter().filter(|header| header.0 == name).map(|header| header.1).collect();
        (!lines.is_empty()).then(|| lines.join(","))
    }

    /// What clients of gRPC make of a 404.
    pub(super) fn grpc_note(&self) -> &'static str {
        let kind = self.header_value("content-type").unwrap_or_default();
        if kind.starts_with("application/grpc") { " (gRPC: 12, UNIMPLEMENTED)" } else { "" }
    }

    /// The first query parameter of this name, decoded.
    pub(super) fn query_value(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut named = pairs.filter(|(key, _)| decoded(key) == name);
        named.next().map(|(_, value)| decoded(value))
    }
}

impl Request for Asked<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.header_value(name).is_some_and(|value| test(value.as_bytes()))
    }

    fn query(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.query_value(name).is_some_and(|value| test(&value))
    }
}

/// Without percent-encoding; `%` that begins none, and `+`, stand for themselves.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let escape = escape.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_its_parts() {
        let url = Url::parse("https://A.b:8443/x/y?q=1&r#f").ok().unwrap();
        assert_eq!((url.scheme, url.host, url.port), (Scheme::Https, "A.b", Port(8443)));
        assert_eq!((url.path, url.query), ("/x/y", Some("q=1&r")));
        let url = Url::parse("udp://[fd00::1]:53").ok().unwrap();
        assert_eq!((url.scheme, url.host, url.port), (Scheme::Udp, "fd00::1", Port(53)));
        for wrong in
            ["tcp://a", "a", "http://", "ftp://a", "http://a:0", "http://a:x", "http://u@a"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_answers_for_its_headers_and_query() {
        let question = Question {
            url: "http://a/?q=1&q=2&n%61=b%20c&e",
            method: "PUT",
            headers: vec!["X-A: 1", "x-a:2", "HOST: B.c:81"],
            from: None,
        };
        let url = Url::parse(question.url).ok().unwrap();
        let (asked, host) = Asked::new(&question, &url).ok().unwrap();
        assert_eq!((host.as_str(), asked.method()), ("b.c", "PUT"));
        assert!(asked.header("x-a", &mut |value| value == b"1,2"));
        assert!(!asked.header("x-b", &mut |_| true));
        for (name, value) in [("q", "1"), ("na", "b c"), ("e", "")] {
            assert!(asked.query(name, &mut |it| it == value), "{name}");
        }
        assert!(!asked.query("x", &mut |_| true));
    }
}
