//! The rows "h2 to h1" of the framing vectors: what is refused, and what the endpoint sees of the rest.

/// What becomes of a request.
pub(crate) enum Verdict {
    /// RST_STREAM with this code, and nothing for the endpoint.
    Reset(u32),
    /// A response with this first byte of its block (an index of the static table), and nothing for the endpoint.
    Refused(u8),
    /// The endpoint gets these lines, besides those of the proxy, and this body.
    Forwarded(&'static [&'static str], &'static str),
}

pub(crate) struct Vector {
    pub(crate) name: &'static str,
    /// What replaces or follows the usual pseudo-header fields of a GET for `/`.
    pub(crate) fields: &'static [(&'static [u8], &'static [u8])],
    /// DATA frames; none: HEADERS end the stream.
    pub(crate) data: &'static [&'static [u8]],
    pub(crate) verdict: Verdict,
}

use Verdict::{Forwarded, Refused, Reset};

const PROTOCOL: u32 = 1;
/// `:status: 400`.
const BAD_REQUEST: u8 = 0x8c;

macro_rules! vectors {
    ($($name:literal: [$($field:literal = $value:literal),*] [$($data:literal),*] => $verdict:expr;)*) => {
        pub(crate) const VECTORS: &[Vector] = &[$(Vector {
            name: $name,
            fields: &[$(($field, $value)),*],
            data: &[$($data),*],
            verdict: $verdict,
        }),*];
    };
}

vectors! {
    "plain": [] [] => Forwarded(&["GET / HTTP/1.1", "host: a"], "");
    "body without a length": [b":method" = b"POST"] [b"ab", b"", b"c"] =>
        Forwarded(&["POST / HTTP/1.1", "host: a", "transfer-encoding: chunked"], "abc");
    "body with a length": [b":method" = b"POST", b"content-length" = b"3"] [b"ab", b"c"] =>
        Forwarded(&["POST / HTTP/1.1", "host: a", "content-length: 3"], "abc");
    "a body of GET": [] [b"x"] =>
        Forwarded(&["GET / HTTP/1.1", "host: a", "transfer-encoding: chunked"], "x");
    "POST without a body": [b":method" = b"POST"] [] =>
        Forwarded(&["POST / HTTP/1.1", "host: a", "content-length: 0"], "");
    "cookie crumbs": [b"cookie" = b"a=1", b"x" = b"y", b"cookie" = b"b=2"] [] =>
        Forwarded(&["GET / HTTP/1.1", "host: a", "x: y", "cookie: a=1; b=2"], "");
    "host instead of authority": [b":authority" = b"-", b"host" = b"b:8"] [] =>
        Forwarded(&["GET / HTTP/1.1", "host: b:8"], "");
    "host and authority agree": [b"host" = b"A"] [] => Forwarded(&["GET / HTTP/1.1", "host: a"], "");
    "te: trailers": [b"te" = b"trailers"] [] =>
        Forwarded(&["GET / HTTP/1.1", "host: a", "connection: te", "te: trailers"], "");
    "a colon in a value": [b"x" = b"y: z"] [] => Forwarded(&["GET / HTTP/1.1", "host: a", "x: y: z"], "");
    "an empty value": [b"x" = b""] [] => Forwarded(&["GET / HTTP/1.1", "host: a", "x: "], "");
    "bytes beyond ASCII in a value": [b"x" = b"\xc3\xa9"] [] =>
        Forwarded(&["GET / HTTP/1.1", "host: a", "x: \u{e9}"], "");

    "more body than declared": [b":method" = b"POST", b"content-length" = b"1"] [b"ab"] => Reset(PROTOCOL);
    "length and no body": [b"content-length" = b"1"] [] => Reset(PROTOCOL);
    "two lengths": [b"content-length" = b"0", b"content-length" = b"0"] [] => Reset(PROTOCOL);
    "length with a sign": [b"content-length" = b"+1"] [b"a"] => Reset(PROTOCOL);
    "transfer-encoding": [b"transfer-encoding" = b"chunked"] [b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"] => Reset(PROTOCOL);
    "connection": [b"connection" = b"x-forwarded-for"] [] => Reset(PROTOCOL);
    "keep-alive": [b"keep-alive" = b"1"] [] => Reset(PROTOCOL);
    "proxy-connection": [b"proxy-connection" = b"close"] [] => Reset(PROTOCOL);
    "upgrade": [b"upgrade" = b"websocket"] [] => Reset(PROTOCOL);
    "te: chunked": [b"te" = b"chunked"] [] => Reset(PROTOCOL);
    "CRLF in a value": [b"x" = b"y\r\ntransfer-encoding: chunked"] [] => Reset(PROTOCOL);
    "LF in a value": [b"x" = b"y\nz: 1"] [] => Reset(PROTOCOL);
    "CR in a value": [b"x" = b"y\rz"] [] => Reset(PROTOCOL);
    "NUL in a value": [b"x" = b"y\0"] [] => Reset(PROTOCOL);
    "space before a value": [b"x" = b" y"] [] => Reset(PROTOCOL);
    "space after a value": [b"x" = b"y "] [] => Reset(PROTOCOL);
    "tab around a value": [b"x" = b"\ty\t"] [] => Reset(PROTOCOL);
    "CRLF in a name": [b"x: y\r\nz" = b"1"] [] => Reset(PROTOCOL);
    "colon in a name": [b"transfer-encoding:" = b"chunked"] [] => Reset(PROTOCOL);
    "space in a name": [b"x " = b"y"] [] => Reset(PROTOCOL);
    "NUL in a name": [b"x\0" = b"y"] [] => Reset(PROTOCOL);
    "upper case in a name": [b"X" = b"y"] [] => Reset(PROTOCOL);
    "empty name": [b"" = b"y"] [] => Reset(PROTOCOL);
    "bytes beyond ASCII in a name": [b"x\xe9" = b"y"] [] => Reset(PROTOCOL);
    "late pseudo-header": [b"x" = b"y", b":path" = b"+/x"] [] => Reset(PROTOCOL);
    "pseudo-header twice": [b":path" = b"+/x"] [] => Reset(PROTOCOL);
    "unknown pseudo-header": [b":x" = b"y"] [] => Reset(PROTOCOL);
    "no path": [b":path" = b"-"] [] => Reset(PROTOCOL);
    "no method": [b":method" = b"-"] [] => Reset(PROTOCOL);
    "no scheme": [b":scheme" = b"-"] [] => Reset(PROTOCOL);
    "empty path": [b":path" = b""] [] => Reset(PROTOCOL);
    "path without a slash": [b":path" = b"x"] [] => Reset(PROTOCOL);
    "path that is a URL": [b":path" = b"http://b/"] [] => Reset(PROTOCOL);
    "path with a second line": [b":path" = b"/ HTTP/1.1\r\nhost: b\r\n\r\nGET /"] [] => Reset(PROTOCOL);
    "method with a second line": [b":method" = b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"] [] => Reset(PROTOCOL);
    "authority with a second line": [b":authority" = b"a\r\nx: y"] [] => Reset(PROTOCOL);
    "host and authority differ": [b"host" = b"b"] [] => Reset(PROTOCOL);
    "two hosts": [b"host" = b"a", b"host" = b"a"] [] => Reset(PROTOCOL);

    "authority with user information": [b":authority" = b"u@a"] [] => Refused(BAD_REQUEST);
    "authority with a path": [b":authority" = b"a/b"] [] => Refused(BAD_REQUEST);
    "authority with port 0": [b":authority" = b"a:0"] [] => Refused(BAD_REQUEST);
    "neither host nor authority": [b":authority" = b"-"] [] => Refused(BAD_REQUEST);
    "content_length": [b"content_length" = b"5"] [] => Refused(BAD_REQUEST);
    "transfer_encoding": [b"transfer_encoding" = b"chunked"] [] => Refused(BAD_REQUEST);
    "method that is no token": [b":method" = b"GE:T"] [] => Refused(BAD_REQUEST);
}
