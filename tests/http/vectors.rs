//! What clients must not be able to say, and the canonical form of what they may.
//!
//! One row a trick. The rows come from the http-garden list of bugs ("garden server N"), from CVEs,
//! and from the RFCs. A row gives the bytes of one client connection and what follows from them:
//! which requests an upstream sees, in exactly which bytes, and what becomes of the connection.
//! The table is used by the codec test (`tests/http1_vectors.rs`), and is meant to be sent through
//! a running proxy as well.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test that includes this file uses a part of it"
)]

/// One client connection.
pub struct Vector {
    pub name: &'static str,
    /// What the client sends, and then nothing more.
    pub bytes: &'static [u8],
    /// The requests an upstream sees.
    pub seen: &'static [Seen],
    /// What becomes of the client connection.
    pub then: Then,
    pub source: &'static str,
}

/// One request as an upstream sees it.
pub struct Seen {
    /// The exact head, without the lines this proxy makes up ([`without_generated`]). `FALLBACK`
    /// as host stands for whatever a proxy writes where the client gave none.
    pub head: &'static [u8],
    /// The payload; in `BodyRefused` and `Incomplete`, of the last request, what came of it.
    pub body: &'static [u8],
}

/// What becomes of the client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It waits for the next request.
    Open,
    /// It is in the middle of a request.
    Incomplete,
    /// It closes after the response because that was asked for; later bytes are not looked at.
    Closed,
    /// A tunnel was asked for: later bytes are not looked at before the upstream has agreed.
    UpgradeAsked,
    /// This status is answered, then it closes. The label is the reason.
    Refused(u16, &'static str),
    /// The body of the last request is broken off: its upstream connection closes without the end
    /// of the body, and so does the client's. The label is the reason.
    BodyRefused(&'static str),
}

use Then::{BodyRefused, Closed, Incomplete, Open, Refused, UpgradeAsked};

/// A head without the lines a proxy makes up: address, identity and protocol of the client.
pub fn without_generated(head: &[u8]) -> Vec<u8> {
    const GENERATED: [&str; 5] = [
        "x-forwarded-for:",
        "x-forwarded-proto:",
        "x-request-id:",
        "x-envoy-external-address:",
        "x-envoy-internal:",
    ];
    head.split_inclusive(|b| *b == b'\n')
        .filter(|line| {
            !GENERATED.iter().any(|name| {
                line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
            })
        })
        .flatten()
        .copied()
        .collect()
}

const fn vector(
    name: &'static str,
    bytes: &'static [u8],
    seen: &'static [Seen],
    then: Then,
    source: &'static str,
) -> Vector {
    Vector { name, bytes, seen, then, source }
}

const fn seen(head: &'static [u8], body: &'static [u8]) -> Seen {
    Seen { head, body }
}

/// `start`, then `fill` again and again until there are N bytes.
const fn filled<const N: usize>(start: &[u8], fill: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = if i < start.len() { start[i] } else { fill[(i - start.len()) % fill.len()] };
        i += 1;
    }
    bytes
}

static TOO_MANY_HEADERS: [u8; 25 + 129 * 6] = filled(b"GET / HTTP/1.1\r\nHost: a\r\n", b"a: b\r\n");
static HEAD_TOO_LARGE: [u8; 64 * 1024] =
    filled(b"GET / HTTP/1.1\r\nHost: a", &filled::<1024>(b"\r\nx: ", b"y"));
static HEADER_WITHOUT_END: [u8; 64 * 1024] = filled(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x");
static TARGET_TOO_LONG: [u8; 17 * 1024] =
    filled(&filled::<{ 16 * 1024 + 100 }>(b"GET /", b"x"), b" HTTP/1.1\r\nHost: a\r\n\r\n");
static TARGET_WITHOUT_END: [u8; 17 * 1024] = filled(b"GET /", b"x");
static CHUNK_EXTENSION_TOO_LONG: [u8; 1024] =
    filled(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x");
static TRAILER_TOO_LARGE: [u8; 10 * 1024] =
    filled(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x");

/// Every row, by topic.
#[rustfmt::skip]
pub static VECTORS: &[Vector] = &[
    // === Plain requests, for the table to prove that it can pass ===
    vector("plain_get", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112"),
    vector("plain_get_http10_closes", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Closed, "RFC 9112 9.3"),
    vector("http10_keep_alive", b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 9.3"),
    vector("connection_close", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Closed, "RFC 9112 9.6"),
    vector("pipelined", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b""), seen(b"GET /2 HTTP/1.1\r\nhost: b\r\n\r\n", b"")], Open, "RFC 9112 9.3.2"),
    vector("post_length_then_get", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"abc"), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 6.3"),
    vector("post_chunked_then_get", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abc"), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 7.1"),
    vector("headers_kept_verbatim", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-b:2\r\nX-C:  3 \t\r\nX-D:\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nX-A: 1\r\nx-b: 2\r\nX-C: 3\r\nX-D: \r\n\r\n", b"")], Open, "RFC 9112 5.1"),
    vector("head_incomplete", b"GET / HTTP/1.1\r\nHost: a", &[], Incomplete, "RFC 9112 8"),
    vector("body_incomplete", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n", b"abc")], Incomplete, "RFC 9112 8"),
    vector("chunked_incomplete", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abc")], Incomplete, "RFC 9112 8"),
    // === Content-Length ===
    vector("content_length_empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 16, 38, 42; CVE-2023-40225"),
    vector("content_length_plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 10, 32"),
    vector("content_length_minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 10"),
    vector("content_length_negative_busy_loop", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -48\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 26"),
    vector("content_length_hex", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 29, 32"),
    vector("content_length_underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 10"),
    vector("content_length_plus_underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1_0\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 10"),
    vector("content_length_octal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 32"),
    vector("content_length_zeros", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 32"),
    vector("content_length_trailing_junk", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1Z\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 29"),
    vector("content_length_inner_space", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "RFC 9110 8.6"),
    vector("content_length_overflow_64", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "C2"),
    vector("content_length_overflow_63", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "C2"),
    vector("content_length_huge", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999999999\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "C2"),
    vector("content_length_decimal_point", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "C2"),
    vector("content_length_nbsp", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xa01\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 12"),
    vector("content_length_nel", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\x85\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "garden server 12"),
    vector("content_length_quoted", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"1\"\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "C2"),
    vector("content_length_arabic_digit", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa1\r\n\r\nabcdefghij", &[], Refused(400, "content_length"), "C2"),
    vector("content_length_list_equal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabcd", &[], Refused(400, "multiple_content_length"), "C2; RFC 9110 8.6"),
    vector("content_length_list_unequal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabcd", &[], Refused(400, "multiple_content_length"), "C2; RFC 9110 8.6"),
    vector("content_length_list_trailing_comma", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3,\r\n\r\nabcd", &[], Refused(400, "multiple_content_length"), "C2; RFC 9110 8.6"),
    vector("content_length_list_leading_comma", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ,3\r\n\r\nabcd", &[], Refused(400, "multiple_content_length"), "C2; RFC 9110 8.6"),
    vector("content_length_repeated_equal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", &[], Refused(400, "multiple_content_length"), "C2; RFC 9110 8.6"),
    vector("content_length_repeated_first_wins", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\nZ", &[], Refused(400, "multiple_content_length"), "garden server 23"),
    vector("content_length_repeated_last_wins", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\nZ", &[], Refused(400, "multiple_content_length"), "garden server 33"),
    vector("content_length_empty_then_valid", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\nContent-Length: 3\r\n\r\nabc", &[], Refused(400, "multiple_content_length"), "garden server 42"),
    vector("content_length_valid_then_empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length:\r\n\r\nabc", &[], Refused(400, "multiple_content_length"), "garden server 42"),
    vector("content_length_underscore_name", b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nabc", &[], Refused(400, "framing_lookalike"), "CGI naming"),
    vector("content_length_zero", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", b"")], Open, "RFC 9110 8.6"),
    vector("content_length_on_get", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"abc"), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 9.3.1"),
    vector("content_length_case_and_tab", b"POST / HTTP/1.1\r\nHost: a\r\ncONTENT-lENGTH:\t3\t\r\n\r\nabc", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"abc")], Open, "RFC 9112 5.1"),
    vector("content_length_largest", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nabc", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9223372036854775807\r\n\r\n", b"abc")], Incomplete, "C2"),
    vector("content_length_http10", b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"abc")], Closed, "RFC 9112 9.3"),
    // === Transfer-Encoding ===
    vector("te_and_content_length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", &[], Refused(400, "length_and_chunked"), "C2; RFC 9112 6.1"),
    vector("content_length_and_te", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "length_and_chunked"), "C2; RFC 9112 6.1"),
    vector("te_identity_and_content_length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", &[], Refused(400, "length_and_chunked"), "C2"),
    vector("te_empty_and_content_length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", &[], Refused(400, "length_and_chunked"), "C2"),
    vector("te_twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n0\r\n\r\n", &[], Refused(400, "multiple_transfer_encoding"), "garden server 11"),
    vector("te_twice_identity_first", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "multiple_transfer_encoding"), "C2"),
    vector("te_twice_in_list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "C2; RFC 9112 6.1"),
    vector("te_leading_comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "garden server 21"),
    vector("te_trailing_comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "C2"),
    vector("te_empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "C2"),
    vector("te_unknown", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", &[], Refused(501, "transfer_coding"), "C2; RFC 9112 6.1"),
    vector("te_gzip_chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[], Refused(501, "transfer_coding"), "C2; RFC 9112 6.1"),
    vector("te_chunked_gzip", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[], Refused(501, "transfer_coding"), "C2; RFC 9112 6.1"),
    vector("te_identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", &[], Refused(501, "transfer_coding"), "C2"),
    vector("te_xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[], Refused(501, "transfer_coding"), "C2"),
    vector("te_quoted", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "C2"),
    vector("te_parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "C2"),
    vector("te_nbsp", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\xa0\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "garden server 12"),
    vector("te_nel", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x85\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding"), "garden server 12"),
    vector("te_vertical_tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "value_control"), "C2"),
    vector("te_form_feed", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", &[], Refused(400, "value_control"), "C2"),
    vector("te_folded", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "obs_fold"), "C2"),
    vector("te_name_folded", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-\r\nEncoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", &[], Refused(400, "missing_colon"), "garden server 37"),
    vector("te_space_before_colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "space_before_colon"), "C2"),
    vector("te_http10", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding_in_http10"), "C2; CVE-2026-2835"),
    vector("te_http10_keep_alive", b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "transfer_encoding_in_http10"), "C2"),
    vector("te_underscore_name", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "framing_lookalike"), "CGI naming"),
    vector("te_named_by_connection", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "connection_names_essential"), "hop-by-hop abuse"),
    vector("te_case_and_white_space", b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING: \t CHUNKED \t \r\n\r\n1\r\nZ\r\n0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"Z")], Open, "RFC 9112 7"),
    vector("te_on_get", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"Z"), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "C2"),
    vector("te_on_trace", b"TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Refused(400, "trace_with_body"), "RFC 9110 9.3.8"),
    vector("content_length_on_trace", b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nZ", &[], Refused(400, "trace_with_body"), "RFC 9110 9.3.8"),
    // === Chunks ===
    vector("chunk_hex_prefix", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "garden server 22, 25"),
    vector("chunk_underscore", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0_2e\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "garden server 1, 22"),
    vector("chunk_plus", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "garden server 25"),
    vector("chunk_minus", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "garden server 25"),
    vector("chunk_empty_size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_empty"), "garden server 17"),
    vector("chunk_empty_size_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n;a=b\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_empty"), "C2"),
    vector("chunk_longest_prefix", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5Z\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "garden server 22"),
    vector("chunk_size_overflow_17_digits", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_overflow"), "C2"),
    vector("chunk_size_overflow_64", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_overflow"), "C2"),
    vector("chunk_size_overflow_63", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_overflow"), "C2"),
    vector("chunk_size_zeros", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n000000000000000005\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_overflow"), "C2"),
    vector("chunk_leading_space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_leading_tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\t5\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_trailing_space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_space_before_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 ;a=b\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_cr_before_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_line_end"), "garden server 31"),
    vector("chunk_cr_in_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\rX\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_line_end"), "garden server 36"),
    vector("chunk_bare_lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_line_end"), "C2"),
    vector("chunk_bare_lf_after_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_line_end"), "C2"),
    vector("chunk_cr_x", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rXabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_line_end"), "garden server 31"),
    vector("chunk_nul_in_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\0\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_extension_byte"), "C2"),
    vector("chunk_obs_text_in_extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\xff\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_extension_byte"), "C2"),
    vector("chunk_comma_after_size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5,5\r\nabcde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_arabic_digit", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\xd9\xa1\r\nZ\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_data_too_long", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdef\r\n0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abcde")], BodyRefused("chunk_data_end"), "C2"),
    vector("chunk_missing_crlf_after_data", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abcde")], BodyRefused("chunk_data_end"), "C2"),
    vector("chunk_lf_after_data", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\n0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abcde")], BodyRefused("chunk_data_end"), "C2"),
    vector("chunk_cr_x_after_data", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\rX0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abcde")], BodyRefused("chunk_data_end"), "C2"),
    vector("chunk_two_bytes_after_data", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abcde")], BodyRefused("chunk_data_end"), "C2"),
    vector("chunk_extra_crlf_before_last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n\r\n0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abcde")], BodyRefused("chunk_size_empty"), "C2"),
    vector("chunk_bad_size_after_good_chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abc")], BodyRefused("chunk_size_byte"), "C2"),
    vector("chunk_last_then_request", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:POST / HTTP/1.1\r\nbad\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "garden server 39"),
    vector("chunk_trailer_that_looks_like_request", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:POST / HTTP/1.1\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], Open, "garden server 39"),
    vector("chunk_extra_byte_after_trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], Refused(400, "not_http"), "C2"),
    vector("chunk_extra_space_after_end", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], Refused(400, "not_http"), "C2"),
    vector("chunk_extra_crlf_after_end", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b""), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 2.2"),
    vector("chunk_two_extra_crlf_after_end", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], Refused(400, "leading_empty_line"), "RFC 9112 2.2"),
    vector("chunk_end_bare_lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("chunk_end_cr_x", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\rX", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_line_end"), "C2"),
    vector("trailer_content_length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_transfer_encoding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_host", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_connection", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nConnection: close\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_te", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTE: trailers\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_upgrade", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nUpgrade: websocket\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_lookalike", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent_Length: 5\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_forbidden"), "C2; RFC 9110 6.5.1"),
    vector("trailer_no_colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nabc\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_empty_name", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n: x\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_space_before_colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na : b\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_obs_fold", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_nul", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: \0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_bare_cr", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\rc\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_leading_space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n a: b\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_obs_text_name", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\xef: b\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_bare_lf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_syntax"), "C2"),
    vector("trailer_dropped", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abc"), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 6.5"),
    vector("chunk_extension_dropped", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b c\";d\r\nabc\r\n0;e\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abc")], Open, "RFC 9112 7.1.1"),
    vector("chunk_upper_case_and_zeros", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"0123456789")], Open, "RFC 9112 7.1"),
    vector("chunk_one_byte_each", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"abc")], Open, "C2"),
    vector("chunk_data_with_crlf", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n\r\n0\r\n\r\nX\r\n0\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"\r\n0\r\n\r\nX")], Open, "C2"),
    // === Header syntax ===
    vector("header_nul_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", &[], Refused(400, "value_control"), "garden server 2, 35"),
    vector("header_nul_and_cr_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: v\0\ralue\r\n\r\n", &[], Refused(400, "bare_cr"), "garden server 2"),
    vector("header_bare_cr_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: va\rlue\r\n\r\n", &[], Refused(400, "bare_cr"), "garden server 34"),
    vector("header_bare_lf_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: va\nlue\r\n\r\n", &[], Refused(400, "bare_lf"), "garden server 2"),
    vector("header_cr_as_line_end", b"GET / HTTP/1.1\r\nHost: a\r\nVisible: :/\rSmuggled: :)\r\n\r\n", &[], Refused(400, "bare_cr"), "garden server 13"),
    vector("header_obs_fold", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", &[], Refused(400, "obs_fold"), "C2; RFC 9112 5.2"),
    vector("header_obs_fold_tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", &[], Refused(400, "obs_fold"), "C2; RFC 9112 5.2"),
    vector("header_space_before_colon", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 34\r\n\r\n", &[], Refused(400, "space_before_colon"), "garden server 3"),
    vector("header_tab_before_colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: a\r\n\r\n", &[], Refused(400, "space_before_colon"), "C2"),
    vector("header_no_colon", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length 10\r\n\r\n", &[], Refused(400, "missing_colon"), "garden server 28"),
    vector("header_empty_name", b"GET / HTTP/1.1\r\nHost: a\r\n: ignored\r\n\r\n", &[], Refused(400, "empty_name"), "garden server 18; CVE-2023-25725"),
    vector("header_nameless_and_valueless", b"GET / HTTP/1.1\r\nHost: a\r\n:\r\n\r\n", &[], Refused(400, "empty_name"), "garden server 27"),
    vector("header_nbsp_after_name", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length\xa0: 10\r\n\r\n", &[], Refused(400, "name_byte"), "garden server 20"),
    vector("header_nel_after_name", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length\x85: 10\r\n\r\n", &[], Refused(400, "name_byte"), "garden server 20"),
    vector("header_obs_text_in_name", b"GET / HTTP/1.1\r\nHost: a\r\n\xefoo: bar\r\n\r\n", &[], Refused(400, "name_byte"), "garden server 8"),
    vector("header_controls_in_name", b"GET / HTTP/1.1\r\nHost: a\r\n\x01\x02: bar\r\n\r\n", &[], Refused(400, "name_byte"), "garden server 14"),
    vector("header_separators_in_name", b"GET / HTTP/1.1\r\nHost: a\r\na(b): c\r\n\r\n", &[], Refused(400, "name_byte"), "garden server 14"),
    vector("header_space_in_name", b"GET / HTTP/1.1\r\nHost: a\r\na b: c\r\n\r\n", &[], Refused(400, "name_byte"), "garden server 14"),
    vector("header_cr_x_as_end", b"GET / HTTP/1.1\r\nHost: a\r\n\rZGET /evil: HTTP/1.1\r\n\r\n", &[], Refused(400, "bare_cr"), "garden server 30"),
    vector("header_bare_cr_line", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", &[], Refused(400, "bare_cr"), "C2"),
    vector("header_delete_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", &[], Refused(400, "value_control"), "RFC 9110 5.5"),
    vector("header_escape_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x1b\r\n\r\n", &[], Refused(400, "value_control"), "RFC 9110 5.5"),
    vector("header_vertical_tab_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0ba\r\n\r\n", &[], Refused(400, "value_control"), "RFC 9110 5.5"),
    vector("header_space_before_first", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", &[], Refused(400, "space_before_first_header"), "C2"),
    vector("header_tab_before_first", b"GET / HTTP/1.1\r\n\tContent-Length: 1\r\n\r\nX", &[], Refused(400, "space_before_first_header"), "garden server 4"),
    vector("header_bare_lf", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", &[], Refused(400, "bare_lf"), "garden transducer 16"),
    vector("header_bare_lf_empty_value", b"GET / HTTP/1.1\r\nHost: a\r\nUseless:\n\nGET / HTTP/1.1\r\n\r\n", &[], Refused(400, "bare_lf"), "garden server 19"),
    vector("header_end_bare_lf", b"GET / HTTP/1.1\r\nHost: a\r\n\n", &[], Refused(400, "bare_lf"), "C2"),
    vector("header_all_bare_lf", b"GET / HTTP/1.1\nHost: a\n\n", &[], Refused(400, "bare_lf"), "C2"),
    vector("header_all_bare_cr", b"GET / HTTP/1.1\rHost: a\r\r\n", &[], Refused(400, "bare_cr"), "C2"),
    vector("header_obs_text_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nUser: \x85admin\xa0\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nUser: \x85admin\xa0\r\n\r\n", b"")], Open, "garden server 41; RFC 9110 5.5"),
    vector("header_tab_in_value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nX: a\tb\r\n\r\n", b"")], Open, "RFC 9110 5.5"),
    vector("header_all_token_characters", b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", b"")], Open, "RFC 9110 5.6.2"),
    vector("header_count_too_large", &TOO_MANY_HEADERS, &[], Refused(431, "too_many_headers"), "C2"),
    vector("header_bytes_too_large", &HEAD_TOO_LARGE, &[], Refused(431, "head_too_large"), "C2; CVE-2021-40346"),
    vector("header_without_end_too_large", &HEADER_WITHOUT_END, &[], Refused(431, "head_too_large"), "C2"),
    vector("target_too_long", &TARGET_TOO_LONG, &[], Refused(414, "target_too_long"), "C2"),
    vector("target_without_end_too_long", &TARGET_WITHOUT_END, &[], Refused(414, "target_too_long"), "C2"),
    vector("chunk_extension_too_long", &CHUNK_EXTENSION_TOO_LONG, &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("chunk_extension_too_long"), "CVE-2023-39326"),
    vector("trailer_too_large", &TRAILER_TOO_LARGE, &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"")], BodyRefused("trailer_too_large"), "C2"),
    // === Request line ===
    vector("line_http09", b"GET /\r\n", &[], Refused(400, "no_version"), "C2"),
    vector("line_http09_bare_lf", b"GET /\n", &[], Refused(400, "bare_lf"), "C2"),
    vector("line_http09_space", b"GET / \r\n\r\n", &[], Refused(400, "version_syntax"), "C2"),
    vector("line_version_prefix", b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "garden server 5"),
    vector("line_version_two_digits", b"GET / HTTP/1.32\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "garden server 5"),
    vector("line_version_overflow", b"GET / HTTP/4294967295.255\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "garden server 24"),
    vector("line_version_overflow_8_bit", b"GET / HTTP/257.257\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "garden server 24"),
    vector("line_version_missing_digits", b"GET / HTTP/\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "garden server 15"),
    vector("line_version_bare_cr", b"GET / HTTP/\r\r1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "bare_cr"), "garden server 15"),
    vector("line_version_dots", b"GET / HTTP/............0596.7407.\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "garden server 40"),
    vector("line_version_lower_case", b"GET / http/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "RFC 9112 2.3"),
    vector("line_version_1_2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", &[], Refused(505, "version"), "RFC 9110 15.6.6"),
    vector("line_version_2_0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", &[], Refused(505, "version"), "RFC 9110 15.6.6"),
    vector("line_version_0_9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", &[], Refused(505, "version"), "RFC 9110 15.6.6"),
    vector("line_http2_preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[], Refused(505, "version"), "RFC 9113 3.4"),
    vector("line_trailing_space", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "C2"),
    vector("line_method_separators", b"G=\":<>(e),[T];?\" /get HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "method"), "garden server 6"),
    vector("line_method_nul", b"\0 / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "not_http"), "garden server 40"),
    vector("line_method_obs_text", b"G\xc3T / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "method"), "C2"),
    vector("line_method_with_nul", b"GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "method"), "C2"),
    vector("line_method_too_long", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(501, "method_too_long"), "RFC 9112 3"),
    vector("line_leading_space", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "not_http"), "C2"),
    vector("line_tabs", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "method"), "C2"),
    vector("line_tab_before_version", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_byte"), "C2"),
    vector("line_newline_separator", b"GET /\nHTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "bare_lf"), "garden server 9"),
    vector("line_two_spaces_after_method", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "start_line"), "C2"),
    vector("line_two_spaces_after_target", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "C2"),
    vector("line_space_in_target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "version_syntax"), "C2"),
    vector("line_vertical_tab", b"GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "method"), "C2"),
    vector("line_fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_byte"), "CVE-2023-45539"),
    vector("line_target_obs_text", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_byte"), "C2"),
    vector("line_target_utf8", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_byte"), "C2"),
    vector("line_target_nul", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_byte"), "C2"),
    vector("line_target_delete", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_byte"), "C2"),
    vector("line_target_bare_cr", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "bare_cr"), "C2"),
    vector("line_target_no_slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "garden server 7"),
    vector("line_target_bang", b"GET ! HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "garden server 7"),
    vector("line_target_empty", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "no_version"), "C2"),
    vector("line_asterisk_get", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "RFC 9112 3.2.4"),
    vector("line_asterisk_path", b"OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "RFC 9112 3.2.4"),
    vector("line_connect", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(501, "connect"), "C2; RFC 9110 9.3.6"),
    vector("line_connect_path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(501, "connect"), "C2"),
    vector("line_authority_form_get", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "RFC 9112 3.2.3"),
    vector("line_absolute_other_scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "C2"),
    vector("line_absolute_userinfo", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "host_userinfo"), "C2"),
    vector("line_absolute_userinfo_password", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "host_userinfo"), "C2"),
    vector("line_absolute_empty_authority", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "host_empty"), "C2"),
    vector("line_absolute_mismatch", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "host_mismatch"), "C2; RFC 9112 3.2.2"),
    vector("line_absolute_port_mismatch", b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "host_mismatch"), "C2; RFC 9112 3.2.2"),
    vector("line_absolute_query_only", b"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "target_form"), "C2"),
    vector("line_tls_client_hello", b"\x16\x03\x01\x00\r\nHost: a\r\n\r\n", &[], Refused(400, "not_http"), "C2"),
    vector("line_two_leading_crlf", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "leading_empty_line"), "RFC 9112 2.2"),
    vector("line_leading_lf", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "bare_lf"), "C2"),
    vector("line_leading_crlf", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 2.2"),
    vector("line_absolute", b"GET http://a/p?q HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET /p?q HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 3.2.2"),
    vector("line_absolute_default_port", b"GET HTTP://A:80 HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: A:80\r\n\r\n", b"")], Open, "RFC 9112 3.2.2"),
    vector("line_options_asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 3.2.4"),
    vector("line_options_absolute", b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9112 3.2.4"),
    vector("line_other_method", b"M-SEARCH /x HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"M-SEARCH /x HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 9.1"),
    vector("line_method_case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"get / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 9.1"),
    vector("line_unwise_target", b"GET /|{}^\"<>`\\[]%zz HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET /|{}^\"<>`\\[]%zz HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "garden server 7"),
    // === Host ===
    vector("host_empty", b"GET / HTTP/1.1\r\nHost: \r\n\r\n", &[], Refused(400, "host_empty"), "C2; RFC 9110 7.2"),
    vector("host_port_only", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", &[], Refused(400, "host_empty"), "C2; RFC 9110 7.2"),
    vector("host_port_0", b"GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_port_65536", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_port_empty", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_port_sign", b"GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_port_zero_padded", b"GET / HTTP/1.1\r\nHost: a:080\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_port_junk", b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_two_ports", b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_userinfo", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", &[], Refused(400, "host_userinfo"), "C2; RFC 9110 7.2"),
    vector("host_userinfo_port", b"GET / HTTP/1.1\r\nHost: u:80@a\r\n\r\n", &[], Refused(400, "host_userinfo"), "C2; RFC 9110 7.2"),
    vector("host_comma", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_slash", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_backslash", b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_question", b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_fragment", b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_percent", b"GET / HTTP/1.1\r\nHost: a%2e\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_obs_text", b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_bad_ipv6", b"GET / HTTP/1.1\r\nHost: [1::2::3]\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_ipv6_zone", b"GET / HTTP/1.1\r\nHost: [fe80::1%eth0]\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_ipv6_junk", b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", &[], Refused(400, "host_byte"), "C2; RFC 9110 7.2"),
    vector("host_bare_ipv6", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", &[], Refused(400, "host_port"), "C2; RFC 9110 7.2"),
    vector("host_absent", b"GET / HTTP/1.1\r\n\r\n", &[], Refused(400, "host_absent"), "C2; RFC 9112 3.2"),
    vector("host_absent_absolute", b"GET http://a/ HTTP/1.1\r\n\r\n", &[], Refused(400, "host_absent"), "RFC 9112 3.2"),
    vector("host_twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[], Refused(400, "host_multiple"), "C2"),
    vector("host_twice_equal", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[], Refused(400, "host_multiple"), "C2"),
    vector("host_named_by_connection", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", &[], Refused(400, "connection_names_essential"), "hop-by-hop abuse"),
    vector("host_port", b"GET / HTTP/1.1\r\nHost: Example.COM:8080\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: Example.COM:8080\r\n\r\n", b"")], Open, "RFC 9110 7.2"),
    vector("host_port_65535", b"GET / HTTP/1.1\r\nHost: a:65535\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a:65535\r\n\r\n", b"")], Open, "RFC 9110 7.2"),
    vector("host_ipv6", b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: [2001:db8::1]:80\r\n\r\n", b"")], Open, "RFC 9110 7.2"),
    vector("host_moved_to_front", b"GET / HTTP/1.1\r\nX: 1\r\nHost: a\r\nY: 2\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nX: 1\r\nY: 2\r\n\r\n", b"")], Open, "RFC 9110 7.2"),
    vector("host_absent_http10", b"GET / HTTP/1.0\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: FALLBACK\r\n\r\n", b"")], Closed, "RFC 9112 3.2"),
    // === Hop-by-hop fields ===
    vector("hop_by_hop_dropped", b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nConnection: X-Drop\r\nX-Drop: 1\r\nx-drop: 2\r\nX-Keep: 1\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nX-Keep: 1\r\n\r\n", b"")], Open, "RFC 9110 7.6.1"),
    vector("te_keeps_trailers", b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: te\r\nte: trailers\r\n\r\n", b"")], Open, "RFC 9110 10.1.4"),
    vector("te_other_dropped", b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 10.1.4"),
    vector("connection_cannot_drop_forwarded_for", b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\nConnection: X-Forwarded-For\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "hop-by-hop abuse"),
    vector("connection_named_content_length", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 1\r\n\r\nZ", &[], Refused(400, "connection_names_essential"), "hop-by-hop abuse"),
    vector("connection_no_token", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", &[], Refused(400, "connection"), "RFC 9110 7.6.1"),
    vector("connection_too_many_options", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: h0,h1,h2,h3,h4,h5,h6,h7,h8,h9,h10,h11,h12,h13,h14,h15,h16,h17,h18,h19,h20,h21,h22,h23,h24,h25,h26,h27,h28,h29,h30,h31,h32,h33,h34,h35,h36,h37,h38,h39\r\n\r\n", &[], Refused(400, "connection"), "algorithmic complexity"),
    vector("connection_close_wins", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: , Close ,\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Closed, "RFC 9112 9.6"),
    vector("expect_answered_here", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nZ", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n", b"Z")], Open, "RFC 9110 10.1.1"),
    vector("expect_unknown", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nZ", &[], Refused(417, "expectation"), "RFC 9110 10.1.1"),
    vector("http2_settings_and_h2c_dropped", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "h2c smuggling"),
    vector("underscore_lookalikes_dropped", b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.1.1.1\r\nX_Request_Id: x\r\nx-envoy_external-address: 1.1.1.1\r\nX_Other: kept\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nX_Other: kept\r\n\r\n", b"")], Open, "CGI naming"),
    // === Connection life ===
    vector("pipelined_after_error", b"GET / HTTP/1.1\r\nbad\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[], Refused(400, "missing_colon"), "C2"),
    vector("pipelined_good_then_bad", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nbad\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Refused(400, "missing_colon"), "C2"),
    vector("nothing_after_close", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Closed, "C2; RFC 9112 9.6"),
    vector("nothing_after_http10", b"GET / HTTP/1.0\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Closed, "C2; RFC 9112 9.3"),
    vector("upgrade_waits_for_101", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\nSec-WebSocket-Version: 13\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", b"")], UpgradeAsked, "C2; CVE-2026-2833"),
    vector("upgrade_without_connection", b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b""), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 7.8"),
    vector("upgrade_http10", b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n", &[seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "RFC 9110 7.8"),
    vector("upgrade_with_body", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nZGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[seen(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n", b"Z"), seen(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"")], Open, "CVE-2026-2833"),
];
