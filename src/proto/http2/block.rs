//! From the canonical text of a head to a header block: what HTTP/2 forbids is left out, what it has pseudo-header
//! fields for is put there.
use super::hpack::Encoder;

/// Names are put into lower case here; longer ones are sent without being looked up.
const NAME_ROOM: usize = 64;

/// What of a sent head matters for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentFacts {
    /// Bytes of the text, its empty line included.
    pub(super) consumed: usize,
    /// Status of a response.
    pub(super) status: u16,
    /// The method is HEAD.
    pub(super) is_head: bool,
    /// No body follows a request.
    pub(super) bodyless: bool,
}

/// Appends the block of a request head; `None` if `text` does not hold a whole one.
pub(super) fn write_request(
    encoder: &mut Encoder,
    text: &[u8],
    scheme: &[u8],
    out: &mut Vec<u8>,
) -> Option<SentFacts> {
    let (line, lines) = split_line(text)?;
    let end = lines.windows(4).position(|w| w == b"\r\n\r\n").map_or(lines.len(), |at| at + 2);
    let mut words = line.split(|b| *b == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let host = fields(&lines[..end]).find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    encoder.begin(out);
    encoder.field(b":method", method, out);
    encoder.field(b":scheme", scheme, out);
    if let Some((_, authority)) = host {
        encoder.field(b":authority", authority, out);
    }
    encoder.field(b":path", target, out);
    let mut facts =
        SentFacts { consumed: 0, status: 0, is_head: method == b"HEAD", bodyless: true };
    let rest = write_fields(encoder, lines, out, &mut |name, value| {
        match name {
            b"host" | b"http2-settings" => return false,
            b"te" => return value == b"trailers",
            b"content-length" => facts.bodyless = value == b"0",
            b"transfer-encoding" => facts.bodyless = false,
            _ => {}
        }
        true
    })?;
    facts.consumed = text.len() - rest.len();
    Some(facts)
}

/// Appends the block of a response head; `None` if `text` does not hold a whole one. The switch to a
/// WebSocket becomes the success of an extended CONNECT (RFC 8441 section 5).
pub(super) fn write_response(
    encoder: &mut Encoder,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Option<SentFacts> {
    let (line, lines) = split_line(text)?;
    let code = line.get(b"HTTP/1.1 ".len()..)?.get(..3)?;
    let status = code.iter().fold(0, |n, d| n * 10 + u16::from(d.wrapping_sub(b'0')));
    let switch = status == 101;
    encoder.begin(out);
    encoder.field(b":status", if switch { b"200" } else { code }, out);
    let rest = write_fields(encoder, lines, out, &mut |name, _| match name {
        b"te" | b"http2-settings" => false,
        b"sec-websocket-accept" => !switch,
        _ => true,
    })?;
    let consumed = text.len() - rest.len();
    Some(SentFacts { consumed, status, is_head: false, bodyless: false })
}

/// Appends the block of trailers, given as lines.
pub(super) fn write_trailers(encoder: &mut Encoder, lines: &[u8], out: &mut Vec<u8>) {
    encoder.begin(out);
    write_fields(encoder, lines, out, &mut |_, _| true);
}

/// Appends the fields of all lines that `keep` agrees to; returns what follows the empty line, `None` if there is
/// none.
fn write_fields<'t>(
    encoder: &mut Encoder,
    mut lines: &'t [u8],
    out: &mut Vec<u8>,
    keep: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Option<&'t [u8]> {
    loop {
        let (line, rest) = split_line(lines)?;
        lines = rest;
        if line.is_empty() {
            return Some(lines);
        }
        let Some((name, value)) = split_field(line) else { continue };
        let mut room = [0; NAME_ROOM];
        let long;
        let name = match room.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => {
                long = name.to_ascii_lowercase();
                &long[..]
            }
        };
        let of_connection = matches!(
            name,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
        );
        // First `keep`, which also takes note of them.
        if keep(name, value) && !of_connection {
            encoder.field(name, value, out);
        }
    }
}

fn fields(mut lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (line, rest) = split_line(lines)?;
        lines = rest;
        split_field(line)
    })
}

/// The first line without its end, and what follows it.
#[inline]
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|b| *b == b'\n')?;
    Some((text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]), &text[end + 1..]))
}

#[inline]
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    let value = &line[colon + 1..];
    Some((&line[..colon], value.trim_ascii()))
}
