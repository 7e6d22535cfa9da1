//! The strict line walker: judges whole lines of a head and names the first fault.
//!
//! The fast path (httparse plus a check of every line end) decides whether a head is accepted; this
//! walker runs when it is incomplete or refused, and says why. The fuzz target `http1_request`
//! holds both to the same verdict.
use super::error::{HeadFault, RequestError, ResponseError};
use super::field::{is_target_byte, is_token, is_token_byte, is_value_byte, trim_ows};
use super::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_METHOD_BYTES, MAX_REQUEST_LINE_BYTES};

/// How far whole lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// The empty line that ends the head is not there yet.
    Unfinished,
    /// The head ends after this many bytes.
    Head(usize),
}

/// Walks a request head. `window` is what has arrived, cut at [`MAX_HEAD_BYTES`].
pub(super) fn walk_request(window: &[u8]) -> Result<Walked, RequestError> {
    match window {
        [first, ..] if !is_token_byte(*first) && !matches!(first, b'\r' | b'\n') => {
            return Err(HeadFault::NotHttp.into());
        }
        _ => {}
    }
    let mut lines = Lines::of(window);
    let mut line = lines.next();
    if let Some(Ok([])) = line {
        line = lines.next();
    }
    let Some(line) = line else {
        let over = lines.rest.len() > MAX_REQUEST_LINE_BYTES + 1;
        return if over { Err(RequestError::TargetTooLong) } else { Ok(Walked::Unfinished) };
    };
    match line {
        _ if lines.last_len > MAX_REQUEST_LINE_BYTES + 2 => {
            return Err(RequestError::TargetTooLong);
        }
        Ok([]) => return Err(HeadFault::LeadingEmptyLine.into()),
        Ok(line) => walk_request_line(line)?,
        Err(fault) => return Err(fault.into()),
    }
    Ok(walk_fields(window, lines)?)
}

/// Walks a response head.
pub(super) fn walk_response(window: &[u8]) -> Result<Walked, ResponseError> {
    match window {
        [first, ..] if *first != b'H' => {
            let empty = matches!(first, b'\r' | b'\n');
            return Err(if empty { HeadFault::LeadingEmptyLine } else { HeadFault::NotHttp }.into());
        }
        _ => {}
    }
    let mut lines = Lines::of(window);
    match lines.next() {
        None => {}
        Some(line) => walk_status_line(line?)?,
    }
    Ok(walk_fields(window, lines)?)
}

fn walk_request_line(line: &[u8]) -> Result<(), RequestError> {
    let method_len = line.iter().position(|b| !is_token_byte(*b)).unwrap_or(line.len());
    if method_len > MAX_METHOD_BYTES {
        return Err(RequestError::MethodTooLong);
    }
    let rest = match &line[method_len..] {
        _ if method_len == 0 => return Err(HeadFault::Method.into()),
        [] => return Err(HeadFault::StartLine.into()),
        [b' ', rest @ ..] => rest,
        _ => return Err(HeadFault::Method.into()),
    };
    let target_len = rest.iter().position(|b| !is_target_byte(*b)).unwrap_or(rest.len());
    match &rest[target_len..] {
        _ if target_len == 0 => Err(HeadFault::StartLine.into()),
        [] => Err(HeadFault::NoVersion.into()),
        [b' ', version @ ..] => match version_known(version) {
            Some(true) => Ok(()),
            Some(false) => Err(RequestError::Version),
            None => Err(HeadFault::VersionSyntax.into()),
        },
        _ => Err(HeadFault::TargetByte.into()),
    }
}

fn walk_status_line(line: &[u8]) -> Result<(), ResponseError> {
    let version = line.get(..8).unwrap_or(line);
    match version_known(version) {
        Some(true) => {}
        Some(false) => return Err(ResponseError::Version),
        None => return Err(HeadFault::VersionSyntax.into()),
    }
    let (code, reason) = match &line[8..] {
        [b' ', a, b, c] => ([a, b, c], &[][..]),
        [b' ', a, b, c, b' ', reason @ ..] => ([a, b, c], reason),
        _ => return Err(HeadFault::StatusCode.into()),
    };
    if !code.iter().all(|b| b.is_ascii_digit()) || *code[0] == b'0' {
        return Err(HeadFault::StatusCode.into());
    }
    if !reason.iter().all(|b| is_value_byte(*b)) {
        return Err(HeadFault::ReasonPhrase.into());
    }
    Ok(())
}

/// `Some(true)` for HTTP/1.0 and HTTP/1.1, `Some(false)` for another well-formed version.
fn version_known(version: &[u8]) -> Option<bool> {
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => Some(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(false)
        }
        _ => None,
    }
}

fn walk_fields<'b>(window: &'b [u8], mut lines: Lines<'b>) -> Result<Walked, HeadFault> {
    let mut count = 0;
    while let Some(line) = lines.next() {
        let line = line?;
        if line.is_empty() {
            return Ok(Walked::Head(window.len() - lines.rest.len()));
        }
        if count == MAX_HEADERS {
            return Err(HeadFault::TooManyHeaders);
        }
        split_field(line).map_err(|fault| match fault {
            HeadFault::ObsFold if count == 0 => HeadFault::SpaceBeforeFirstHeader,
            fault => fault,
        })?;
        count += 1;
    }
    if window.len() >= MAX_HEAD_BYTES {
        return Err(HeadFault::TooLarge);
    }
    Ok(Walked::Unfinished)
}

/// Name and value of one field line, given without its line end.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadFault> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Err(HeadFault::ObsFold);
    }
    let colon = line.iter().position(|b| *b == b':').ok_or(HeadFault::MissingColon)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    match name {
        [] => return Err(HeadFault::EmptyName),
        [.., b' ' | b'\t'] => return Err(HeadFault::SpaceBeforeColon),
        name if !is_token(name) => return Err(HeadFault::NameByte),
        _ => {}
    }
    if !value.iter().all(|b| is_value_byte(*b)) {
        return Err(HeadFault::ValueControl);
    }
    Ok((name, trim_ows(value)))
}

/// Whole lines of a buffer, without their CRLF; what follows the last LF stays in `rest`.
struct Lines<'b> {
    rest: &'b [u8],
    /// Bytes of the last line, its line end included.
    last_len: usize,
}

impl<'b> Lines<'b> {
    fn of(window: &'b [u8]) -> Self {
        Self { rest: window, last_len: 0 }
    }

    fn next(&mut self) -> Option<Result<&'b [u8], HeadFault>> {
        let end = self.rest.iter().position(|b| *b == b'\n')?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        self.last_len = end + 1;
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        Some(if text.contains(&b'\r') {
            Err(HeadFault::BareCr)
        } else if text.len() == line.len() {
            Err(HeadFault::BareLf)
        } else {
            Ok(text)
        })
    }
}
