//! Response heads from upstreams, which are no more trusted than clients (RFC 9112 section 6.3).
use super::error::{HeadFault, ResponseError};
use super::field::{Known, is_token, known, parse_length};
use super::request::{ConnectionOptions, line_is_strict};
use super::syntax::{Walked, walk_response};
use super::{
    BodyFraming, HeadProgress, Header, HeaderSlots, MAX_HEAD_BYTES, Parsed, RequestHead, Version,
};

/// What of a request decides how its response is framed; taken from the forwarded request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseTo {
    /// The method was HEAD: no body whatever the header says.
    pub head: bool,
    /// An upgrade was forwarded: 101 is a possible answer.
    pub upgrade: bool,
}

/// A response head, borrowed from the receive buffer and the slots.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'s, 'b> {
    /// Status, 100 to 999.
    pub status: u16,
    /// Reason phrase as received; empty if absent or not ASCII.
    pub reason: &'b str,
    /// Version of the upstream.
    pub version: Version,
    /// All header lines in order, values trimmed.
    pub headers: &'s [Header<'b>],
    /// How the body ends. After 101 there is none: the connection is a tunnel from there on.
    pub framing: BodyFraming,
    /// Content-Length of a response that has no body because of HEAD or 304: metadata to pass on.
    pub declared_length: Option<u64>,
    /// Whether the upstream connection may persist after the body.
    pub keep_alive: bool,
    /// Value of Upgrade in a 101.
    pub upgrade: Option<&'b [u8]>,
    /// The head as received.
    pub(super) raw: &'b [u8],
    /// Bit i: header i is one of [`Known`].
    pub(super) special: u128,
    /// Bit i: header i is named by `Connection`.
    pub(super) named_by_connection: u128,
}

/// Reads a response head from the beginning of `buf`; called again like
/// [`parse_request`](super::parse_request). On error answer 502 and close the upstream connection.
pub fn parse_response<'s, 'b>(
    buf: &'b [u8],
    to: ResponseTo,
    slots: &'s mut HeaderSlots<'b>,
    progress: &mut HeadProgress,
) -> Result<Parsed<ResponseHead<'s, 'b>>, ResponseError> {
    let window = &buf[..buf.len().min(MAX_HEAD_BYTES)];
    if !progress.advance(window) {
        return match window.len() {
            MAX_HEAD_BYTES => walk_response(window).map(|_| Parsed::Partial),
            _ => Ok(Parsed::Partial),
        };
    }
    let config = httparse::ParserConfig::default();
    let mut response = httparse::Response::new(&mut []);
    match config.parse_response_with_uninit_headers(&mut response, window, &mut slots.0) {
        Ok(httparse::Status::Complete(len)) => {
            let raw = &window[..len];
            let (Some(status), Some(reason), Some(minor)) =
                (response.code, response.reason, response.version)
            else {
                return Err(HeadFault::Malformed.into());
            };
            let status_line = raw.iter().position(|b| *b == b'\n').unwrap_or_default();
            let strict = raw[0] == b'H'
                && raw[status_line.wrapping_sub(1)] == b'\r'
                && raw[len - 2] == b'\r'
                && status >= 100;
            if !strict {
                return Err(fault_in(raw));
            }
            let mut scan = Scan::default();
            for (i, header) in response.headers.iter().enumerate() {
                scan.header(raw, i, header)?;
            }
            let version = Version::from_minor(minor);
            let head = scan.finish(raw, to, status, reason, version, response.headers)?;
            Ok(Parsed::Complete(head, len))
        }
        Ok(httparse::Status::Partial) => walk_response(window).map(|_| Parsed::Partial),
        Err(_) => match walk_response(window)? {
            Walked::Unfinished => Ok(Parsed::Partial),
            Walked::Head(_) => Err(HeadFault::Malformed.into()),
        },
    }
}

#[cold]
fn fault_in(raw: &[u8]) -> ResponseError {
    walk_response(raw).err().unwrap_or(ResponseError::Head(HeadFault::Malformed))
}

/// Whether a 101 may switch to `token`: one protocol, and never to another version of HTTP, which
/// this proxy does not ask for.
fn is_switch_token(token: &[u8]) -> bool {
    let http = token.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"));
    !http && token.split(|b| *b == b'/').all(is_token)
}

#[derive(Default)]
struct Scan<'b> {
    special: u128,
    length: Option<&'b [u8]>,
    multiple_lengths: bool,
    coding: Option<&'b [u8]>,
    multiple_codings: bool,
    connection: ConnectionOptions,
    upgrade: Option<&'b [u8]>,
}

// === impl ResponseTo ===

impl From<&RequestHead<'_, '_>> for ResponseTo {
    fn from(request: &RequestHead<'_, '_>) -> Self {
        Self { head: request.is_head(), upgrade: request.upgrade.is_some() }
    }
}

// === impl ResponseHead ===

impl<'b> ResponseHead<'_, 'b> {
    /// First value of a header, by name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// Whether the final response is still to come (1xx except 101).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether the connection now speaks the upgraded protocol.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.status == 101
    }
}

// === impl Scan ===

impl<'b> Scan<'b> {
    #[inline]
    fn header(&mut self, raw: &[u8], i: usize, header: &Header<'b>) -> Result<(), ResponseError> {
        if !line_is_strict(raw, header) {
            return Err(fault_in(raw));
        }
        let Some(known) = known(header.name.as_bytes()) else { return Ok(()) };
        self.special |= 1 << i;
        let value = header.value;
        match known {
            Known::ContentLength => self.multiple_lengths |= self.length.replace(value).is_some(),
            Known::TransferEncoding => {
                self.multiple_codings |= self.coding.replace(value).is_some();
            }
            // A malformed Connection only costs the connection.
            Known::Connection if self.connection.line(value).is_none() => {
                self.connection.close = true;
            }
            Known::Upgrade => self.upgrade = self.upgrade.or(Some(value)),
            _ => {}
        }
        Ok(())
    }

    fn finish<'s>(
        self,
        raw: &'b [u8],
        to: ResponseTo,
        status: u16,
        reason: &'b str,
        version: Version,
        headers: &'s [Header<'b>],
    ) -> Result<ResponseHead<'s, 'b>, ResponseError> {
        let switch_asked =
            to.upgrade && self.connection.upgrade && self.upgrade.is_some_and(is_switch_token);
        if status == 101 && !switch_asked {
            return Err(ResponseError::UnexpectedSwitch);
        }
        let declared = self.declared(version)?;
        let bodyless = status < 200 || status == 204;
        // A body that must not be there would be taken for the next response.
        let foul = bodyless && !matches!(declared, None | Some(BodyFraming::Length(0)));
        let (framing, declared_length) = match declared {
            _ if bodyless => (BodyFraming::None, None),
            Some(BodyFraming::Length(n)) if to.head || status == 304 => {
                (BodyFraming::None, Some(n))
            }
            _ if to.head || status == 304 => (BodyFraming::None, None),
            Some(framing) => (framing, None),
            None => (BodyFraming::UntilClose, None),
        };
        Ok(ResponseHead {
            status,
            reason,
            version,
            headers,
            framing,
            declared_length,
            keep_alive: self.connection.persists(version)
                && framing != BodyFraming::UntilClose
                && !foul
                && status != 101,
            upgrade: self.upgrade.filter(|_| status == 101),
            raw,
            special: self.special,
            named_by_connection: self.connection.named(headers, self.special),
        })
    }

    /// The framing the header declares, if any.
    fn declared(&self, version: Version) -> Result<Option<BodyFraming>, ResponseError> {
        match (self.coding, self.length) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(ResponseError::LengthAndChunked),
            (Some(coding), None) => {
                let plain = version == Version::Http11
                    && !self.multiple_codings
                    && coding.eq_ignore_ascii_case(b"chunked");
                if plain {
                    Ok(Some(BodyFraming::Chunked))
                } else {
                    Err(ResponseError::TransferEncoding)
                }
            }
            (None, Some(value)) if self.multiple_lengths || value.contains(&b',') => {
                Err(ResponseError::MultipleContentLength)
            }
            (None, Some(value)) => parse_length(value)
                .map(|n| Some(BodyFraming::Length(n)))
                .ok_or(ResponseError::ContentLength),
        }
    }
}
