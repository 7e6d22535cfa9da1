//! HTTP/1.1 as a client of an API server speaks it (RFC 9112): bytes in, bytes out.
use std::fmt::Write as _;

/// Longest head of a response.
const MAX_HEAD: usize = 64 * 1024;
/// Fields in a head; an API server sends about ten.
const MAX_FIELDS: usize = 64;
/// Longest line that gives a chunk's length, extensions included.
const MAX_CHUNK_LINE: usize = 256;

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `PATCH`, …
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// `accept`, if not `application/json`.
    pub accept: Option<&'static str>,
    /// `content-type` and content.
    pub body: Option<(&'static str, String)>,
}

/// What a response begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Seconds that the server wants to be left alone.
    pub retry_after: Option<u32>,
}

/// The next part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// It needs more bytes.
    Incomplete,
    /// The head of the final response.
    Head(Head),
    /// Bytes of the body.
    Body(&'b [u8]),
    /// That was all; whether the connection can be used again.
    End(bool),
}

/// What the bytes are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHttp(pub &'static str);

/// Takes a response apart.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    persists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes are left.
    Length(u64),
    UntilClose,
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    End,
}

// === impl Request ===

impl Request {
    /// `GET path`
    #[must_use]
    pub fn get(path: String) -> Self {
        Self { method: "GET", path, ..Self::default() }
    }

    /// Appends it to `out`. The token is not a part of the request, so that requests can be shown.
    pub fn write(&self, out: &mut Vec<u8>, host: &str, user_agent: &str, token: Option<&str>) {
        let mut head = String::with_capacity(256);
        let accept = self.accept.unwrap_or("application/json");
        let Self { method, path, .. } = self;
        let _ = write!(
            head,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {user_agent}\r\naccept: {accept}\r\n"
        );
        if let Some(token) = token {
            let _ = write!(head, "authorization: Bearer {token}\r\n");
        }
        let body = self.body.as_ref().map_or("", |(_, body)| body);
        if let Some((content_type, _)) = &self.body {
            let length = body.len();
            let _ = write!(head, "content-type: {content_type}\r\ncontent-length: {length}\r\n");
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }
}

// === impl Decoder ===

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Head, persists: true }
    }
}

impl Decoder {
    /// The next piece of what has arrived and not been consumed yet, and how many bytes of it that was. `closed` is
    /// whether nothing comes after it.
    ///
    /// # Errors
    /// It is not HTTP, or ends too early.
    pub fn next<'b>(
        &mut self,
        input: &'b [u8],
        closed: bool,
    ) -> Result<(Piece<'b>, usize), NotHttp> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let (piece, consumed) = self.step(rest, closed)?;
            used += consumed;
            match piece {
                Some(piece) => return Ok((piece, used)),
                None if consumed == 0 && closed => return Err(NotHttp("the response is cut off")),
                None if consumed == 0 => return Ok((Piece::Incomplete, used)),
                None => {}
            }
        }
    }

    /// One step: None is that it goes on, or, if nothing was consumed, that more bytes are needed.
    fn step<'b>(
        &mut self,
        rest: &'b [u8],
        closed: bool,
    ) -> Result<(Option<Piece<'b>>, usize), NotHttp> {
        match self.state {
            State::Head => self.head(rest),
            State::Length(0) => {
                self.state = State::End;
                Ok((Some(Piece::End(self.persists)), 0))
            }
            State::Length(left) => Ok(self.body(rest, left, State::Length)),
            State::UntilClose if rest.is_empty() && closed => {
                self.state = State::End;
                Ok((Some(Piece::End(false)), 0))
            }
            State::UntilClose => Ok(self.body(rest, u64::MAX, |_| State::UntilClose)),
            State::ChunkLine => {
                let Some(line) = line(rest, MAX_CHUNK_LINE)? else { return Ok((None, 0)) };
                let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
                let digits = std::str::from_utf8(digits.trim_ascii()).unwrap_or_default();
                let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let length = u64::from_str_radix(digits, 16).ok().filter(|_| valid);
                let length = length.ok_or(NotHttp("the length of a chunk is no number"))?;
                self.state = if length == 0 { State::Trailers } else { State::Chunk(length) };
                Ok((None, line.len() + 2))
            }
            State::Chunk(0) => {
                self.state = State::ChunkEnd;
                self.step(rest, closed)
            }
            State::Chunk(left) => Ok(self.body(rest, left, State::Chunk)),
            State::ChunkEnd => match rest {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkLine;
                    Ok((None, 2))
                }
                [] | [b'\r'] => Ok((None, 0)),
                _ => Err(NotHttp("a chunk is longer than it says")),
            },
            State::Trailers => {
                let Some(line) = line(rest, MAX_HEAD)? else { return Ok((None, 0)) };
                if line.is_empty() {
                    self.state = State::End;
                    return Ok((Some(Piece::End(self.persists)), 2));
                }
                Ok((None, line.len() + 2))
            }
            State::End => Ok((Some(Piece::End(self.persists)), 0)),
        }
    }

    fn body<'b>(
        &mut self,
        rest: &'b [u8],
        left: u64,
        next: fn(u64) -> State,
    ) -> (Option<Piece<'b>>, usize) {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        if take == 0 {
            return (None, 0);
        }
        self.state = next(left - take as u64);
        (Some(Piece::Body(&rest[..take])), take)
    }

    fn head<'b>(&mut self, rest: &'b [u8]) -> Result<(Option<Piece<'b>>, usize), NotHttp> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(rest).map_err(|_| NotHttp("this is no HTTP/1.1 response"))?;
        let httparse::Status::Complete(length) = parsed else {
            let fits = rest.len() < MAX_HEAD;
            return if fits { Ok((None, 0)) } else { Err(NotHttp("the head is too long")) };
        };
        let status = response.code.unwrap_or_default();
        if (100..200).contains(&status) {
            // An interim response; 101 was not asked for.
            return if status == 101 {
                Err(NotHttp("unasked upgrade"))
            } else {
                Ok((None, length))
            };
        }
        let value = |name: &str| {
            let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            found.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
        };
        self.persists = response.version == Some(1)
            && !value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let chunked =
            value("transfer-encoding").map(|coding| coding.eq_ignore_ascii_case("chunked"));
        self.state = match (chunked, value("content-length")) {
            _ if status == 204 || status == 304 => State::Length(0),
            (Some(true), None) => State::ChunkLine,
            (Some(_), _) => return Err(NotHttp("an unknown transfer coding")),
            (None, Some(text)) => {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let length = text.parse().ok().filter(|_| digits);
                State::Length(length.ok_or(NotHttp("the content length is no number"))?)
            }
            (None, None) => State::UntilClose,
        };
        let retry_after = value("retry-after").and_then(|text| text.parse().ok());
        Ok((Some(Piece::Head(Head { status, retry_after })), length))
    }
}

/// The line that `rest` begins with, without its CRLF, if it has ended.
fn line(rest: &[u8], longest: usize) -> Result<Option<&[u8]>, NotHttp> {
    match rest.windows(2).take(longest).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some(&rest[..end])),
        None if rest.len() > longest => Err(NotHttp("a line is too long")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it, fed in pieces of `step` bytes: status, body, whether it persists.
    fn decode(bytes: &[u8], step: usize, closed: bool) -> Result<(u16, Vec<u8>, bool), NotHttp> {
        let mut decoder = Decoder::default();
        let (mut input, mut fed) = (Vec::new(), 0);
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let (piece, used) = decoder.next(&input, closed && fed == bytes.len())?;
            match piece {
                Piece::Incomplete => {
                    input.drain(..used);
                    if fed == bytes.len() {
                        return Err(NotHttp("waits"));
                    }
                    let end = (fed + step).min(bytes.len());
                    input.extend_from_slice(&bytes[fed..end]);
                    fed = end;
                    continue;
                }
                Piece::Head(head) => status = head.status,
                Piece::Body(bytes) => body.extend_from_slice(bytes),
                Piece::End(persists) => return Ok((status, body, persists)),
            }
            input.drain(..used);
        }
    }

    #[test]
    fn responses_in_one_piece_and_byte_by_byte() {
        let rows: [(&str, bool, u16, &str, bool); 6] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, "hello", true),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: x\r\n\r\n",
                false,
                201,
                "abcde",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", true, 200, "to the end", false),
            ("HTTP/1.1 204 No\r\n\r\n", false, 204, "", true),
            (
                "HTTP/1.1 404 N\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                false,
                404,
                "",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", false, 200, "x", false),
        ];
        for (text, closed, status, body, persists) in rows {
            for step in [1, 2, 3, 7, text.len()] {
                let got = decode(text.as_bytes(), step, closed);
                assert_eq!(got, Ok((status, body.as_bytes().to_vec(), persists)), "{text} {step}");
            }
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
            "HTTP/1.1 101 Switching\r\n\r\n",
        ] {
            assert!(decode(bad.as_bytes(), bad.len(), true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_is_written_with_its_secret_beside_it() {
        let request = Request {
            method: "PATCH",
            path: "/x?y".to_owned(),
            accept: None,
            body: Some(("application/json", "{}".to_owned())),
        };
        let mut out = Vec::new();
        request.write(&mut out, "h:1", "pilus", Some("s3cret"));
        let expected = "PATCH /x?y HTTP/1.1\r\nhost: h:1\r\nuser-agent: pilus\r\naccept: application/json\r\n\
            authorization: Bearer s3cret\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(!format!("{request:?}").contains("s3cret"));
    }
}
