//! From the fields of a header block to the canonical text of HTTP/1.1 (RFC 9113 sections 8.1 to 8.5).
//!
//! Every way in which a field could mean something else to the next hop is refused here, and once more by the
//! HTTP/1.1 parser that reads the text.
use std::io::Write as _;

use super::{MAX_FIELDS, MAX_HEAD_BYTES, MAX_HEADERS};
use crate::proto::http1::{MAX_BODY_LENGTH, MAX_TRAILER_BYTES, is_field_value, keeps_trailer};

/// Room for the lines that are added at the end.
const ADDED_BYTES: usize = 128;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
    Trailers,
}

/// Why a head is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Malformed (RFC 9113 section 8.1.1).
    Malformed,
    /// Too many or too large fields.
    TooLarge,
}

/// What of a head matters for the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeadFacts {
    /// Content-Length.
    pub(super) length: Option<u64>,
    /// Status of a response.
    pub(super) status: u16,
    /// The method is HEAD.
    pub(super) is_head: bool,
    /// What follows is a tunnel.
    pub(super) is_tunnel: bool,
}

/// The pseudo-header fields of a request, each a part of one run of bytes.
#[derive(Default)]
struct Pseudo {
    method: Option<Part>,
    scheme: Option<Part>,
    authority: Option<Part>,
    path: Option<Part>,
    protocol: Option<Part>,
}

type Part = (usize, usize);

/// Takes in fields one by one and writes the text of the head, or of trailers.
pub(super) struct HeadWriter<'t> {
    kind: Kind,
    text: &'t mut Vec<u8>,
    /// Values of pseudo-header fields, and crumbs of cookies.
    scratch: Vec<u8>,
    cookies: Vec<u8>,
    pseudo: Pseudo,
    nonce: u128,
    began: bool,
    has_host: bool,
    fields: usize,
    fault: Option<Refusal>,
    facts: HeadFacts,
}

// === impl HeadWriter ===

impl<'t> HeadWriter<'t> {
    /// Writes to `text`, whose content is replaced. `nonce` becomes the key of a WebSocket handshake.
    pub(super) fn new(kind: Kind, text: &'t mut Vec<u8>, nonce: u128) -> Self {
        text.clear();
        Self {
            kind,
            text,
            scratch: Vec::new(),
            cookies: Vec::new(),
            pseudo: Pseudo::default(),
            nonce,
            began: kind == Kind::Trailers,
            has_host: false,
            fields: 0,
            fault: None,
            facts: HeadFacts::default(),
        }
    }

    /// Takes in one field. A fault is remembered: the rest of the block is decoded only for the table's sake.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.fields += 1;
        if self.fault.is_some() {
            return;
        }
        let limit = if self.kind == Kind::Trailers { MAX_TRAILER_BYTES } else { MAX_HEAD_BYTES };
        let used = self.text.len() + self.scratch.len() + self.cookies.len() + ADDED_BYTES;
        let outcome = if used + name.len() + value.len() > limit || self.fields > MAX_HEADERS {
            Err(Refusal::TooLarge)
        } else if let [b':', ..] = name {
            self.pseudo(name, value)
        } else {
            self.regular(name, value)
        };
        self.fault = outcome.err();
    }

    /// Whether the block has so many fields that it can only be an attack.
    pub(super) fn is_absurd(&self) -> bool {
        self.fields > MAX_FIELDS
    }

    /// The end of the block. `end`: nothing follows it on the stream.
    pub(super) fn finish(mut self, end: bool) -> Result<HeadFacts, Refusal> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.begin()?;
        if self.kind == Kind::Trailers {
            return Ok(self.facts);
        }
        if !self.cookies.is_empty() {
            let cookies = std::mem::take(&mut self.cookies);
            push_line(self.text, b"cookie", &cookies);
        }
        let interim = self.kind == Kind::Response && self.facts.status < 200;
        let broken = match self.facts.length {
            Some(_) if self.facts.is_tunnel => true,
            // The answer to HEAD, or a 304, tells a length that it does not have: `stream.rs` knows.
            Some(length) => self.kind == Kind::Request && end && length > 0,
            None => interim && end,
        };
        if broken {
            return Err(Refusal::Malformed);
        }
        if self.kind == Kind::Request && self.facts.length.is_none() && !self.facts.is_tunnel {
            if !end {
                self.text.extend_from_slice(b"transfer-encoding: chunked\r\n");
            } else if [&b"POST"[..], b"PUT", b"PATCH"].iter().any(|m| self.method_is(m)) {
                // What HTTP/1.1 expects of methods that usually have a body (RFC 9110 section 8.6).
                self.text.extend_from_slice(b"content-length: 0\r\n");
            }
        }
        self.text.extend_from_slice(b"\r\n");
        Ok(self.facts)
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if self.began {
            return Err(Refusal::Malformed);
        }
        let slot = match (self.kind, name) {
            (Kind::Response, b":status") if self.facts.status == 0 => {
                let &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = value else {
                    return Err(Refusal::Malformed);
                };
                let digit = |d: u8| u16::from(d - b'0');
                self.facts.status = digit(a) * 100 + digit(b) * 10 + digit(c);
                return Ok(());
            }
            (Kind::Request, b":method") => &mut self.pseudo.method,
            (Kind::Request, b":scheme") => &mut self.pseudo.scheme,
            (Kind::Request, b":authority") => &mut self.pseudo.authority,
            (Kind::Request, b":path") => &mut self.pseudo.path,
            (Kind::Request, b":protocol") => &mut self.pseudo.protocol,
            _ => return Err(Refusal::Malformed),
        };
        let start = self.scratch.len();
        self.scratch.extend_from_slice(value);
        let twice = slot.replace((start, self.scratch.len())).is_some();
        if twice || value.is_empty() || !value.iter().all(u8::is_ascii_graphic) {
            return Err(Refusal::Malformed);
        }
        Ok(())
    }

    /// The start line, once all pseudo-header fields are known.
    fn begin(&mut self) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.began, true) {
            return Ok(());
        }
        match self.kind {
            Kind::Request => self.request_line(),
            // 101 is a matter of HTTP/1.1 (RFC 9113 section 8.6).
            _ if matches!(self.facts.status, 0 | 101) => Err(Refusal::Malformed),
            _ => {
                // Writing to a Vec cannot fail.
                let _ = write!(self.text, "HTTP/1.1 {} \r\n", self.facts.status);
                Ok(())
            }
        }
    }

    fn request_line(&mut self) -> Result<(), Refusal> {
        let part = |part: Option<Part>| part.map(|(start, end)| &self.scratch[start..end]);
        let Pseudo { method, scheme, authority, path, protocol } = self.pseudo;
        let (method, authority) = (part(method).ok_or(Refusal::Malformed)?, part(authority));
        let text = &mut *self.text;
        let mut push = |parts: &[&[u8]]| parts.iter().for_each(|p| text.extend_from_slice(p));
        if method == b"CONNECT" && protocol.is_none() {
            // Its form is checked here; that it is refused is decided where HTTP/1.1 is parsed.
            let (None, None, Some(authority)) = (scheme, path, authority) else {
                return Err(Refusal::Malformed);
            };
            push(&[b"CONNECT ", authority, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]);
            self.facts.is_tunnel = true;
            return Ok(());
        }
        let (Some(scheme), Some(path)) = (part(scheme), part(path)) else {
            return Err(Refusal::Malformed);
        };
        let asterisk = path == b"*" && method == b"OPTIONS";
        let path_is_good = asterisk || path[0] == b'/' && !path.contains(&b'#');
        if !matches!(scheme, b"http" | b"https") || !path_is_good {
            return Err(Refusal::Malformed);
        }
        match part(protocol) {
            None => push(&[method, b" ", path, b" HTTP/1.1\r\n"]),
            Some(b"websocket") if method == b"CONNECT" && authority.is_some() => {
                let key = websocket_key(self.nonce);
                push(&[
                    b"GET ",
                    path,
                    b" HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
                ]);
                push(&[b"sec-websocket-key: ", &key, b"\r\n"]);
                self.facts.is_tunnel = true;
            }
            // Another protocol than the one there is: as CONNECT it will be refused.
            Some(_) if method == b"CONNECT" => {
                push(&[b"CONNECT ", path, b" HTTP/1.1\r\n"]);
                self.facts.is_tunnel = true;
            }
            Some(_) => return Err(Refusal::Malformed),
        }
        if let Some(authority) = authority {
            push(&[b"host: ", authority, b"\r\n"]);
        }
        self.facts.is_head = method == b"HEAD";
        Ok(())
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.begin()?;
        if !is_lower_case_name(name) || !is_field_value(value) {
            return Err(Refusal::Malformed);
        }
        match name {
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => return Err(Refusal::Malformed),
            b"te" if value != b"trailers" => return Err(Refusal::Malformed),
            _ if self.kind == Kind::Trailers => match keeps_trailer(name) {
                Some(true) => {}
                Some(false) => return Ok(()),
                None => return Err(Refusal::Malformed),
            },
            b"content-length" => {
                let length = parse_length(value).ok_or(Refusal::Malformed)?;
                if self.facts.length.replace(length).is_some() {
                    return Err(Refusal::Malformed);
                }
            }
            b"host" if self.kind == Kind::Request => return self.host(value),
            b"cookie" if self.kind == Kind::Request => {
                // Split for the sake of compression (RFC 9113 section 8.2.3).
                if !self.cookies.is_empty() {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(value);
                return Ok(());
            }
            // The client of an extended CONNECT has none; ours is in its place.
            b"sec-websocket-key" if self.facts.is_tunnel => return Ok(()),
            _ => {}
        }
        push_line(self.text, name, value);
        Ok(())
    }

    /// Host stands in for `:authority`, or says the same (RFC 9113 section 8.3.1).
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.has_host, true) {
            return Err(Refusal::Malformed);
        }
        match self.pseudo.authority {
            None => push_line(self.text, b"host", value),
            Some((start, end)) if self.scratch[start..end].eq_ignore_ascii_case(value) => {}
            Some(_) => return Err(Refusal::Malformed),
        }
        Ok(())
    }

    fn method_is(&self, method: &[u8]) -> bool {
        self.pseudo.method.is_some_and(|(start, end)| &self.scratch[start..end] == method)
    }
}

fn push_line(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

/// A field name as HTTP/2 has it: a token without upper-case letters (RFC 9113 section 8.2.1).
fn is_lower_case_name(name: &[u8]) -> bool {
    let good = |b: &u8| match b {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => true,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' => true,
        _ => matches!(b, b'|' | b'~'),
    };
    !name.is_empty() && name.iter().all(good)
}

/// As strict as that of HTTP/1.1: digits without leading zeros.
fn parse_length(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = text == "0" || matches!(value, [b'1'..=b'9', ..]);
    text.parse().ok().filter(|length| plain && *length <= MAX_BODY_LENGTH)
}

/// Sixteen bytes in base64 (RFC 6455 section 4.1).
fn websocket_key(nonce: u128) -> [u8; 24] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = [b'='; 24];
    for (i, digit) in key[..22].iter_mut().enumerate() {
        *digit = ALPHABET[((nonce << (6 * i)) >> 122) as usize];
    }
    key
}
