//! Header fields: character classes, lists, the names this proxy treats specially.
use super::MAX_BODY_LENGTH;

/// Headers that the proxy itself reads, writes or drops. All others are forwarded as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    /// `keep-alive`, `proxy-connection`, `http2-settings`: dropped whatever they say.
    HopByHop,
    Te,
    Trailer,
    Upgrade,
    Expect,
    XForwardedFor,
    XForwardedProto,
    XRequestId,
    XEnvoyExternalAddress,
    XEnvoyUpstreamServiceTime,
    /// Any other `x-envoy-…`: believed only from internal clients.
    XEnvoy,
    Server,
    Date,
    /// A framing header with `_` for `-`.
    FramingLookalike,
    /// A header this proxy vouches for, with `_` for `-`.
    OwnLookalike,
}

/// Which special header `name` is, if any. Most names are decided by length or first letter.
#[inline]
pub(super) fn known(name: &[u8]) -> Option<Known> {
    let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
    let pick = |text: &str, known| is(text).then_some(known);
    match (name.len(), name.first()? | 0x20) {
        (2, b't') => pick("te", Known::Te),
        (4, b'h') => pick("host", Known::Host),
        (4, b'd') => pick("date", Known::Date),
        (6, b'e') => pick("expect", Known::Expect),
        (6, b's') => pick("server", Known::Server),
        (7, b'u') => pick("upgrade", Known::Upgrade),
        (7, b't') => pick("trailer", Known::Trailer),
        (10, b'c') => pick("connection", Known::Connection),
        (10, b'k') => pick("keep-alive", Known::HopByHop),
        (14, b'c') => pick("content-length", Known::ContentLength)
            .or_else(|| pick("content_length", Known::FramingLookalike)),
        (14, b'h') => pick("http2-settings", Known::HopByHop),
        (16, b'p') => pick("proxy-connection", Known::HopByHop),
        (17, b't') => pick("transfer-encoding", Known::TransferEncoding)
            .or_else(|| pick("transfer_encoding", Known::FramingLookalike)),
        (8.., b'x') => known_x(name),
        _ => None,
    }
}

/// The `x-…` part of [`known`]; `_` is taken for `-`, as CGI-style backends do.
fn known_x(name: &[u8]) -> Option<Known> {
    let is = |text: &str| {
        name.len() == text.len() && name.iter().zip(text.as_bytes()).all(|(a, b)| dashed(*a) == *b)
    };
    let found = match name.len() {
        12 if is("x-request-id") => Known::XRequestId,
        15 if is("x-forwarded-for") => Known::XForwardedFor,
        17 if is("x-forwarded-proto") => Known::XForwardedProto,
        24 if is("x-envoy-external-address") => Known::XEnvoyExternalAddress,
        29 if is("x-envoy-upstream-service-time") => Known::XEnvoyUpstreamServiceTime,
        _ if name.iter().zip(b"x-envoy-").all(|(a, b)| dashed(*a) == *b) => Known::XEnvoy,
        _ => return None,
    };
    Some(if name.contains(&b'_') { Known::OwnLookalike } else { found })
}

#[inline]
pub(super) fn dashed(b: u8) -> u8 {
    if b == b'_' { b'-' } else { b.to_ascii_lowercase() }
}

/// `tchar` (RFC 9110 section 5.6.2).
#[inline]
pub(super) fn is_token_byte(b: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut i = 0;
        while i < 256 {
            let b = i as u8;
            table[i] = b.is_ascii_alphanumeric()
                || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
                || matches!(b, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
            i += 1;
        }
        table
    };
    TABLE[b as usize]
}

#[inline]
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_token_byte(*b))
}

/// Bytes a field value may have: HTAB, SP, VCHAR and obs-text, which is opaque but legal
/// (RFC 9110 section 5.5).
#[inline]
pub(super) fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

/// Bytes a request target may have: visible ASCII without `#`. The characters RFC 3986 excludes
/// beyond that (`"<>\^{|}` and the backtick) are sent by real clients and are no delimiter to
/// anyone, so they pass through untouched.
#[inline]
pub(super) fn is_target_byte(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'#'
}

/// Whether `name` may be the name of a header.
#[must_use]
pub fn is_field_name(name: &str) -> bool {
    is_token(name.as_bytes())
}

/// Whether `value` may be the value of a header, as it will stand on the wire.
#[must_use]
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|b| is_value_byte(*b))
        && !matches!(value.first(), Some(b' ' | b'\t'))
        && !matches!(value.last(), Some(b' ' | b'\t'))
}

/// Members of a comma-separated list, white space trimmed; empty members are handed out too.
pub fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim_ows)
}

/// `bytes` without SP and HTAB at both ends; nothing else counts as white space.
pub(super) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A Content-Length as this proxy accepts it: decimal digits only, no leading zero (which some
/// recipients read as octal), at most [`MAX_BODY_LENGTH`].
#[inline]
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    match value {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] if value.len() <= 19 => {}
        _ => return None,
    }
    // 19 digits cannot overflow 64 bits.
    let length = value
        .iter()
        .try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))?;
    (length <= MAX_BODY_LENGTH).then_some(length)
}
