//! What upstreams must not be able to say, and what a client gets of what they may.
//!
//! Used by the codec test (`tests/http1_responses.rs`), and meant to be sent through a running
//! proxy as well: an upstream that answers with `bytes` and then closes.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test that includes this file uses a part of it"
)]

/// One answer of an upstream.
pub struct ResponseVector {
    pub name: &'static str,
    /// What was asked.
    pub asked: Asked,
    /// What the upstream sends before it closes.
    pub bytes: &'static [u8],
    pub expect: Expect,
    pub source: &'static str,
}

/// The request that is answered; the client connection could persist in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    Head,
    /// GET of an HTTP/1.0 client that keeps the connection alive.
    Http10,
    /// GET with a WebSocket upgrade.
    Upgrade,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The client gets these heads (without `server`, `date` and service time), the last with this
    /// payload.
    Sent {
        heads: &'static [&'static str],
        body: &'static str,
        /// Whether the upstream connection is reusable, had the upstream not closed.
        upstream: bool,
        /// Whether the client's connection persists.
        client: bool,
    },
    /// 502 for this reason, and the upstream connection closes.
    BadGateway(&'static str),
    /// The head was passed on, then the body broke: both connections close.
    BodyBroken(&'static str),
    /// The upstream closed before the head had ended.
    Incomplete,
}

use Asked::{Get, Head, Http10, Upgrade};
use Expect::{BadGateway, BodyBroken, Incomplete};

const fn sent(head: &'static [&'static str], body: &'static str, up: bool, client: bool) -> Expect {
    Expect::Sent { heads: head, body, upstream: up, client }
}

const fn row(
    name: &'static str,
    asked: Asked,
    bytes: &'static [u8],
    expect: Expect,
    source: &'static str,
) -> ResponseVector {
    ResponseVector { name, asked, bytes, expect, source }
}

const OK3: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
const OKC: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Every row.
#[rustfmt::skip]
pub static RESPONSES: &[ResponseVector] = &[
    // === Framing ===
    row("length", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&[OK3], "abc", true, true), "RFC 9112 6.3"),
    row("length_more_bytes", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcX", sent(&[OK3], "abc", false, true), "C2"),
    row("length_second_response", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", sent(&[OK3], "abc", false, true), "C2"),
    row("length_short", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", BodyBroken("body_truncated"), "C2"),
    row("length_zero", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", sent(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], "", true, true), "RFC 9112 6.3"),
    row("chunked", Get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", sent(&[OKC], "abc", true, true), "RFC 9112 6.3"),
    row("chunked_short", Get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", BodyBroken("body_truncated"), "RFC 9112 8"),
    row("chunked_bad", Get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", BodyBroken("chunk_size_byte"), "C2"),
    row("chunked_extra_bytes", Get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", sent(&[OKC], "", false, true), "C2"),
    row("chunked_to_http10", Http10, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", sent(&["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"], "abc", true, false), "RFC 9112 7.1"),
    row("until_close", Get, b"HTTP/1.1 200 OK\r\n\r\nabc", sent(&[OKC], "abc", false, true), "C2; RFC 9112 6.3"),
    row("until_close_to_http10", Http10, b"HTTP/1.0 200 OK\r\n\r\nabc", sent(&["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"], "abc", false, false), "C2"),
    row("length_to_http10", Http10, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n"], "abc", true, true), "RFC 9112 9.3"),
    row("close", Get, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", sent(&[OK3], "abc", false, true), "RFC 9112 9.6"),
    row("http10_closes", Get, b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&[OK3], "abc", false, true), "RFC 9112 9.3"),
    row("http10_keep_alive", Get, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", sent(&[OK3], "abc", true, true), "RFC 9112 9.3"),
    row("length_and_chunked", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", BadGateway("length_and_chunked"), "C2"),
    row("lengths_equal", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", BadGateway("multiple_content_length"), "C2"),
    row("lengths_unequal", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", BadGateway("multiple_content_length"), "C2"),
    row("length_list", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", BadGateway("multiple_content_length"), "C2"),
    row("length_negative", Get, b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", BadGateway("content_length"), "C2"),
    row("length_empty", Get, b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", BadGateway("content_length"), "C2"),
    row("coding_unknown", Get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadGateway("transfer_encoding"), "C2"),
    row("coding_twice", Get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadGateway("transfer_encoding"), "C2"),
    row("coding_http10", Get, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadGateway("transfer_encoding"), "C2"),
    // === Responses without body ===
    row("head_length", Head, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", sent(&[OK3], "", true, true), "C2; RFC 9110 9.3.2"),
    row("head_with_body", Head, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&[OK3], "", false, true), "C2"),
    row("head_chunked", Head, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", sent(&["HTTP/1.1 200 OK\r\n\r\n"], "", true, true), "C2"),
    row("head_no_length", Head, b"HTTP/1.1 200 OK\r\n\r\n", sent(&["HTTP/1.1 200 OK\r\n\r\n"], "", true, true), "RFC 9112 6.3"),
    row("no_content", Get, b"HTTP/1.1 204 No Content\r\n\r\n", sent(&["HTTP/1.1 204 No Content\r\n\r\n"], "", true, true), "RFC 9112 6.3"),
    row("no_content_with_length", Get, b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 204 No Content\r\n\r\n"], "", false, true), "C2"),
    row("no_content_chunked", Get, b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", sent(&["HTTP/1.1 204 No Content\r\n\r\n"], "", false, true), "C2"),
    row("not_modified", Get, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: x\r\n\r\n", sent(&["HTTP/1.1 304 Not Modified\r\nETag: x\r\ncontent-length: 3\r\n\r\n"], "", true, true), "RFC 9110 15.4.5"),
    row("not_modified_with_body", Get, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n"], "", false, true), "C2"),
    row("reset_content", Get, b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", sent(&["HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"], "", true, true), "RFC 9110 15.3.6"),
    // === Interim responses and switching ===
    row("interim", Get, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK3], "abc", true, true), "RFC 9110 15.2"),
    row("interim_to_http10", Http10, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n"], "abc", true, true), "RFC 9110 15.2"),
    row("interim_with_length", Get, b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 100 Continue\r\n\r\n", OK3], "abc", true, true), "C2"),
    row("interim_flood", Get, b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n", BadGateway("too_many_interim"), "C2"),
    row("switch", Upgrade, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00", sent(&["HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"], "", false, false), "C2; RFC 6455"),
    row("switch_unasked", Get, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", BadGateway("unexpected_switch"), "C2; CVE-2026-2833"),
    row("switch_without_upgrade", Upgrade, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", BadGateway("unexpected_switch"), "RFC 9110 15.2.2"),
    row("switch_to_other_protocol", Upgrade, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", BadGateway("unexpected_switch"), "RFC 9110 15.2.2"),
    row("switch_refused", Upgrade, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", sent(&[OK3], "abc", true, true), "C2; RFC 9110 7.8"),
    // === Fields ===
    row("hop_by_hop_dropped", Get, b"HTTP/1.1 200 OK\r\nConnection: X-Drop\r\nX-Drop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Keep: 1\r\nServer: evil\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 200 OK\r\nX-Keep: 1\r\ncontent-length: 3\r\n\r\n"], "abc", true, true), "RFC 9110 7.6.1"),
    row("no_reason", Get, b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 200 \r\ncontent-length: 3\r\n\r\n"], "abc", true, true), "RFC 9112 4"),
    row("odd_status", Get, b"HTTP/1.1 799 \xc3\xa9\r\nContent-Length: 3\r\n\r\nabc", sent(&["HTTP/1.1 799 \r\ncontent-length: 3\r\n\r\n"], "abc", true, true), "RFC 9110 15"),
    // === Syntax ===
    row("nothing", Get, b"", Incomplete, "C2"),
    row("half_a_head", Get, b"HTTP/1.1 200 OK\r\nContent-Len", Incomplete, "C2"),
    row("leading_crlf", Get, b"\r\nHTTP/1.1 200 OK\r\n\r\n", BadGateway("leading_empty_line"), "C2"),
    row("not_http", Get, b"SSH-2.0-x\r\n", BadGateway("not_http"), "C2"),
    row("bare_lf", Get, b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", BadGateway("bare_lf"), "C2"),
    row("bare_lf_in_header", Get, b"HTTP/1.1 200 OK\r\nContent-Length: 3\n\r\nabc", BadGateway("bare_lf"), "C2"),
    row("bare_cr", Get, b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", BadGateway("bare_cr"), "C2"),
    row("nul", Get, b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", BadGateway("value_control"), "C2"),
    row("obs_fold", Get, b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", BadGateway("obs_fold"), "C2"),
    row("space_before_colon", Get, b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", BadGateway("space_before_colon"), "C2"),
    row("empty_name", Get, b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", BadGateway("empty_name"), "C2"),
    row("reason_control", Get, b"HTTP/1.1 200 O\x01K\r\n\r\n", BadGateway("reason_phrase"), "RFC 9112 4"),
    row("status_two_digits", Get, b"HTTP/1.1 20 OK\r\n\r\n", BadGateway("status_code"), "RFC 9112 4"),
    row("status_four_digits", Get, b"HTTP/1.1 2000 OK\r\n\r\n", BadGateway("status_code"), "RFC 9112 4"),
    row("status_below_100", Get, b"HTTP/1.1 099 OK\r\n\r\n", BadGateway("status_code"), "RFC 9110 15"),
    row("version_2", Get, b"HTTP/2.0 200 OK\r\n\r\n", BadGateway("version"), "C2"),
    row("version_junk", Get, b"HTTP/1.1x 200 OK\r\n\r\n", BadGateway("status_code"), "C2"),
];
