//! Request heads (RFC 9112 sections 2, 3, 6).
use super::error::{AuthorityFault, HeadFault, RequestError};
use super::field::{Known, is_target_byte, is_token, known, list_items, parse_length};
use super::syntax::{Walked, walk_request};
use super::{
    Authority, BodyFraming, HeadProgress, Header, HeaderSlots, MAX_HEAD_BYTES, MAX_METHOD_BYTES,
    MAX_REQUEST_LINE_BYTES, Parsed, Version, offset_in,
};

/// Options in the `Connection` lines of one head; beyond that nobody means well, and looking each
/// header up among them must stay cheap.
const MAX_CONNECTION_OPTIONS: usize = 32;

/// A request head, borrowed from the receive buffer and the slots.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'s, 'b> {
    /// Method, a token; case matters.
    pub method: &'b str,
    /// Origin-form target (`/path?query`), or `*` for OPTIONS. An absolute-form target has been
    /// reduced to this, its authority is in `authority`.
    pub target: &'b str,
    /// Authority, of the target if it has one, else of Host. `None` only in HTTP/1.0 without Host.
    pub authority: Option<Authority<'b>>,
    /// Version of the client.
    pub version: Version,
    /// All header lines in order, values trimmed.
    pub headers: &'s [Header<'b>],
    /// How the body ends. Never `UntilClose`.
    pub framing: BodyFraming,
    /// Whether the client lets the connection persist after this exchange.
    pub keep_alive: bool,
    /// Protocol asked for by `Upgrade` and `Connection: upgrade`, on HTTP/1.1 and without a body.
    pub upgrade: Option<Upgrade<'b>>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The client accepts trailers (`TE: trailers`).
    pub te_trailers: bool,
    /// The head as received, for copying lines whole.
    pub(super) raw: &'b [u8],
    /// Bit i: header i is one of [`Known`].
    pub(super) special: u128,
    /// Bit i: header i is named by `Connection`.
    pub(super) named_by_connection: u128,
}

/// A protocol to switch to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade<'b> {
    /// RFC 6455.
    WebSocket,
    /// Another one; never `h2c`, which would open a tunnel past every rule of this proxy.
    Other(&'b str),
}

/// Reads a request head from the beginning of `buf`.
///
/// Call again with the same bytes and more of them after `Partial`; `progress` belongs to this
/// head. On error answer [`RequestError::status`] and close.
///
/// One CRLF before the request line is skipped (RFC 9112 section 2.2).
pub fn parse_request<'s, 'b>(
    buf: &'b [u8],
    slots: &'s mut HeaderSlots<'b>,
    progress: &mut HeadProgress,
) -> Result<Parsed<RequestHead<'s, 'b>>, RequestError> {
    let window = &buf[..buf.len().min(MAX_HEAD_BYTES)];
    if !progress.advance(window) {
        // No whole line is new: only the bounds can have been crossed.
        let line = window.strip_prefix(b"\r\n").unwrap_or(window);
        let line_too_long =
            line.get(..MAX_REQUEST_LINE_BYTES + 2).is_some_and(|start| !start.contains(&b'\n'));
        return if line_too_long || window.len() == MAX_HEAD_BYTES {
            walk_request(window).map(|_| Parsed::Partial)
        } else {
            Ok(Parsed::Partial)
        };
    }
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, &mut slots.0) {
        Ok(httparse::Status::Complete(len)) => {
            let raw = &window[..len];
            let (Some(method), Some(target), Some(minor)) =
                (request.method, request.path, request.version)
            else {
                return Err(HeadFault::Malformed.into());
            };
            if !request_line_is_strict(raw, method, target) {
                return Err(fault_in(raw));
            }
            let mut scan = Scan::default();
            for (i, header) in request.headers.iter().enumerate() {
                scan.header(raw, i, header)?;
            }
            if raw[len - 2] != b'\r' {
                return Err(fault_in(raw));
            }
            let head =
                scan.finish(raw, method, target, Version::from_minor(minor), request.headers)?;
            Ok(Parsed::Complete(head, len))
        }
        Ok(httparse::Status::Partial) => walk_request(window).map(|_| Parsed::Partial),
        // The fault may lie in a line that has not ended: then it is too early to tell.
        Err(_) => match walk_request(window)? {
            Walked::Unfinished => Ok(Parsed::Partial),
            Walked::Head(_) => Err(HeadFault::Malformed.into()),
        },
    }
}

/// What the line walker finds wrong with a head the fast path refused.
#[cold]
fn fault_in(raw: &[u8]) -> RequestError {
    walk_request(raw).err().unwrap_or(RequestError::Head(HeadFault::Malformed))
}

/// Where httparse is more liberal than this proxy: empty lines, bare LF, bytes of the target,
/// lengths.
#[inline]
fn request_line_is_strict(raw: &[u8], method: &str, target: &str) -> bool {
    const VERSION_LEN: usize = " HTTP/1.1".len();
    let start = offset_in(raw, method.as_bytes());
    let end = offset_in(raw, target.as_bytes()) + target.len() + VERSION_LEN;
    matches!(&raw[..start], [] | b"\r\n")
        && raw.get(end) == Some(&b'\r')
        && end - start <= MAX_REQUEST_LINE_BYTES
        && method.len() <= MAX_METHOD_BYTES
        && target.bytes().all(is_target_byte)
}

/// Whether the line of `header` ends with CRLF; that it ends with LF, httparse has seen.
#[inline]
pub(super) fn line_is_strict(raw: &[u8], header: &Header<'_>) -> bool {
    let end = offset_in(raw, header.value) + header.value.len();
    let mut rest = raw[end..].iter();
    loop {
        match rest.next() {
            Some(b' ' | b'\t') => {}
            other => return other == Some(&b'\r'),
        }
    }
}

/// What the `Connection` lines of a head say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Names something else, hence headers to drop.
    pub(super) names_headers: bool,
    /// Names a header that frames or routes the message.
    pub(super) names_essential: bool,
    count: usize,
}

/// Everything learned in the one pass over the headers.
#[derive(Default)]
struct Scan<'b> {
    special: u128,
    host: Option<&'b [u8]>,
    multiple_hosts: bool,
    length: Option<&'b [u8]>,
    multiple_lengths: bool,
    coding: Option<&'b [u8]>,
    multiple_codings: bool,
    connection: ConnectionOptions,
    bad_connection: bool,
    upgrade: Option<&'b [u8]>,
    expect: Option<&'b [u8]>,
    te_trailers: bool,
    lookalike: bool,
}

// === impl RequestHead ===

impl<'b> RequestHead<'_, 'b> {
    /// First value of a header, by name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// Path of the target, without query.
    #[must_use]
    pub fn path(&self) -> &'b str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Query of the target, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'b str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Whether the response will have no body because of the method.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

// === impl Upgrade ===

impl<'b> Upgrade<'b> {
    /// The token as this proxy writes it.
    #[must_use]
    pub fn as_str(&self) -> &'b str {
        match self {
            Self::WebSocket => "websocket",
            Self::Other(token) => token,
        }
    }

    /// The protocol an Upgrade value asks for: websocket if it is among them, else the first.
    fn parse(value: &'b [u8]) -> Option<Self> {
        if list_items(value).any(|item| item.eq_ignore_ascii_case(b"websocket")) {
            return Some(Self::WebSocket);
        }
        let token = std::str::from_utf8(list_items(value).next()?).ok()?;
        let valid = token.split('/').all(|part| is_token(part.as_bytes()));
        let h2c = token.get(..3).is_some_and(|t| t.eq_ignore_ascii_case("h2c"));
        (valid && !h2c).then_some(Self::Other(token))
    }
}

// === impl ConnectionOptions ===

impl ConnectionOptions {
    /// Takes in one `Connection` line; `None` if it is not a list of at most so many tokens.
    pub(super) fn line(&mut self, value: &[u8]) -> Option<()> {
        for item in list_items(value).filter(|item| !item.is_empty()) {
            self.count += 1;
            if !is_token(item) || self.count > MAX_CONNECTION_OPTIONS {
                return None;
            }
            if item.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if item.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if item.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.names_headers = true;
                self.names_essential |= matches!(
                    known(item),
                    Some(Known::Host | Known::ContentLength | Known::TransferEncoding)
                );
            }
        }
        Some(())
    }

    /// Whether the connection persists as far as this side is concerned (RFC 9112 section 9.3).
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// Bit i: header i is named by a `Connection` line. Headers this proxy handles itself cannot
    /// be dropped that way: a client must not erase X-Forwarded-For of the proxy before us.
    pub(super) fn named(&self, headers: &[Header<'_>], special: u128) -> u128 {
        if !self.names_headers {
            return 0;
        }
        let named = |name: &str| {
            headers
                .iter()
                .enumerate()
                .filter(|(i, h)| special >> i & 1 == 1 && h.name.eq_ignore_ascii_case("connection"))
                .flat_map(|(_, h)| list_items(h.value))
                .any(|item| item.eq_ignore_ascii_case(name.as_bytes()))
        };
        headers
            .iter()
            .enumerate()
            .filter(|(i, h)| special >> i & 1 == 0 && named(h.name))
            .fold(0, |bits, (i, _)| bits | 1 << i)
    }
}

// === impl Scan ===

impl<'b> Scan<'b> {
    #[inline]
    fn header(&mut self, raw: &[u8], i: usize, header: &Header<'b>) -> Result<(), RequestError> {
        if !line_is_strict(raw, header) {
            return Err(fault_in(raw));
        }
        let Some(known) = known(header.name.as_bytes()) else { return Ok(()) };
        self.special |= 1 << i;
        let value = header.value;
        match known {
            Known::Host => self.multiple_hosts |= self.host.replace(value).is_some(),
            Known::ContentLength => self.multiple_lengths |= self.length.replace(value).is_some(),
            Known::TransferEncoding => {
                self.multiple_codings |= self.coding.replace(value).is_some();
            }
            Known::Connection => self.bad_connection |= self.connection.line(value).is_none(),
            Known::Upgrade => self.upgrade = self.upgrade.or(Some(value)),
            // Only the first can be honoured, and any other is refused: the last one decides.
            Known::Expect => self.expect = Some(value),
            Known::Te => {
                self.te_trailers |=
                    list_items(value).any(|item| item.eq_ignore_ascii_case(b"trailers"));
            }
            Known::FramingLookalike => self.lookalike = true,
            _ => {}
        }
        Ok(())
    }

    fn finish<'s>(
        self,
        raw: &'b [u8],
        method: &'b str,
        target: &'b str,
        version: Version,
        headers: &'s [Header<'b>],
    ) -> Result<RequestHead<'s, 'b>, RequestError> {
        if self.bad_connection {
            return Err(RequestError::Connection);
        }
        if self.connection.names_essential {
            return Err(RequestError::ConnectionNamesEssential);
        }
        let framing = self.framing(version)?;
        let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        if method == "TRACE" && has_body {
            return Err(RequestError::TraceWithBody);
        }
        let (target, authority) = self.route(method, target, version)?;
        let http11 = version == Version::Http11;
        if self.expect.is_some_and(|e| http11 && !e.eq_ignore_ascii_case(b"100-continue")) {
            return Err(RequestError::Expectation);
        }
        let may_upgrade = http11 && self.connection.upgrade && !has_body;
        Ok(RequestHead {
            method,
            target,
            authority,
            version,
            headers,
            framing,
            keep_alive: self.connection.persists(version),
            upgrade: self.upgrade.filter(|_| may_upgrade).and_then(Upgrade::parse),
            expect_continue: http11 && has_body && self.expect.is_some(),
            te_trailers: self.te_trailers,
            raw,
            special: self.special,
            named_by_connection: self.connection.named(headers, self.special),
        })
    }

    /// Body framing (RFC 9112 sections 6.1 to 6.3), refusing whatever has two readings.
    fn framing(&self, version: Version) -> Result<BodyFraming, RequestError> {
        if self.lookalike {
            return Err(RequestError::FramingLookalike);
        }
        if let Some(coding) = self.coding {
            if self.length.is_some() {
                return Err(RequestError::LengthAndChunked);
            }
            if version == Version::Http10 {
                return Err(RequestError::TransferEncodingInHttp10);
            }
            if self.multiple_codings {
                return Err(RequestError::MultipleTransferEncoding);
            }
            return if coding.eq_ignore_ascii_case(b"chunked") {
                Ok(BodyFraming::Chunked)
            } else {
                Err(coding_fault(coding))
            };
        }
        match self.length {
            None => Ok(BodyFraming::None),
            Some(_) if self.multiple_lengths => Err(RequestError::MultipleContentLength),
            Some(value) if value.contains(&b',') => Err(RequestError::MultipleContentLength),
            Some(value) => {
                parse_length(value).map(BodyFraming::Length).ok_or(RequestError::ContentLength)
            }
        }
    }

    /// Target and authority (RFC 9112 sections 3.2 and 3.3).
    fn route(
        &self,
        method: &str,
        target: &'b str,
        version: Version,
    ) -> Result<(&'b str, Option<Authority<'b>>), RequestError> {
        if method == "CONNECT" {
            return Err(RequestError::Connect);
        }
        if self.multiple_hosts {
            return Err(AuthorityFault::Multiple.into());
        }
        let host = match self.host {
            Some(value) => Some(Authority::parse(value)?),
            None if version == Version::Http11 => return Err(AuthorityFault::Absent.into()),
            None => None,
        };
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            return Ok((target, host));
        }
        let (authority, default_port, rest) = split_absolute(target)?;
        let authority = Authority::parse(authority.as_bytes())?;
        if let Some(host) = host {
            host.must_equal(&authority, default_port)?;
        }
        let target = match rest {
            "" if method == "OPTIONS" => "*",
            "" => "/",
            rest if rest.starts_with('/') => rest,
            // `http://host?query`: legal, sent by nobody, and would need rewriting.
            _ => return Err(RequestError::TargetForm),
        };
        Ok((target, Some(authority)))
    }
}

/// Authority, default port and rest of an absolute-form target.
fn split_absolute(target: &str) -> Result<(&str, u16, &str), RequestError> {
    let scheme = |name: &str| {
        target
            .get(..name.len())
            .filter(|start| start.eq_ignore_ascii_case(name))
            .map(|_| &target[name.len()..])
    };
    let (rest, port) = match (scheme("http://"), scheme("https://")) {
        (Some(rest), _) => (rest, 80),
        (_, Some(rest)) => (rest, 443),
        _ => return Err(RequestError::TargetForm),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Ok((&rest[..end], port, &rest[end..]))
}

/// Whether a coding that is not `chunked` is one we do not have (501) or nonsense (400).
#[cold]
fn coding_fault(coding: &[u8]) -> RequestError {
    let mut chunked = 0;
    for item in list_items(coding) {
        if !is_token(item) {
            return RequestError::TransferEncoding;
        }
        chunked += usize::from(item.eq_ignore_ascii_case(b"chunked"));
    }
    if chunked > 1 { RequestError::TransferEncoding } else { RequestError::TransferCoding }
}
