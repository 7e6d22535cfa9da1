//! Which fields make which HTTP/1.1 head, and which are refused: the rows "h2 to h1" of the framing vectors.
use super::super::frame::{self, END_STREAM};
use super::super::hpack::Encoder;
use super::super::{ErrorCode, block};
use super::{GET, POST, Server, fields};

fn with(
    base: &[(&'static str, &'static str)],
    more: &[(&'static str, &'static str)],
) -> Vec<(&'static str, &'static str)> {
    [base, more].concat()
}

fn text_of(flags: u8, fields: &[(&str, &str)]) -> String {
    let (events, error) = Server::new().headers(1, flags, fields);
    assert_eq!((events.len(), error), (1, None), "{fields:?}");
    events[0].split_once('\n').unwrap_or(("", &events[0])).1.to_owned()
}

#[test]
fn requests_become_canonical_text() {
    assert_eq!(text_of(END_STREAM, GET), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(
        text_of(0, &with(POST, &[("accept", "*/*"), ("x-empty", "")])),
        "POST / HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-empty: \r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        text_of(0, &with(POST, &[("content-length", "5")])),
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"
    );
    assert_eq!(
        text_of(END_STREAM, POST),
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        text_of(
            END_STREAM,
            &with(GET, &[("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")])
        ),
        "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ncookie: a=1; b=2\r\n\r\n"
    );
    let host = with(&GET[..3], &[("accept", "x"), ("host", "h:81")]);
    assert_eq!(text_of(END_STREAM, &host), "GET / HTTP/1.1\r\naccept: x\r\nhost: h:81\r\n\r\n");
    let both = with(GET, &[("host", "A")]);
    assert_eq!(text_of(END_STREAM, &both), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let options =
        [(":method", "OPTIONS"), (":scheme", "https"), (":path", "*"), (":authority", "a")];
    assert_eq!(text_of(END_STREAM, &options), "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
}

#[test]
fn an_extended_connect_becomes_an_upgrade() {
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "of the client"),
    ];
    let text = text_of(0, &connect);
    let (before, after) = text.split_once("sec-websocket-key: ").unwrap();
    assert_eq!(before, "GET /chat HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
    let (key, after) = after.split_once("\r\n").unwrap();
    assert!(key.len() == 24 && key.ends_with("=="), "{key}");
    assert_eq!(after, "host: a\r\nsec-websocket-version: 13\r\n\r\n");
    let other = connect.map(|(n, v)| if n == ":protocol" { (n, "else") } else { (n, v) });
    assert!(text_of(0, &other).starts_with("CONNECT /chat HTTP/1.1\r\n"), "which is refused later");
    let tunnel = [(":method", "CONNECT"), (":authority", "a:1")];
    assert_eq!(text_of(0, &tunnel), "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n");
}

#[test]
fn malformed_requests_are_broken_off() {
    let without = |name: &str| GET.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let replaced = |name: &str, value: &'static str| {
        GET.iter().map(|&(n, v)| if n == name { (n, value) } else { (n, v) }).collect::<Vec<_>>()
    };
    let added = |name, value| with(GET, &[(name, value)]);
    for (what, fields) in [
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("empty method", replaced(":method", "")),
        ("empty path", replaced(":path", "")),
        ("path without slash", replaced(":path", "x")),
        ("path with a fragment", replaced(":path", "/#x")),
        ("path with a space", replaced(":path", "/ HTTP/1.1")),
        ("path with CRLF", replaced(":path", "/ HTTP/1.1\r\nx: y")),
        ("path with NUL", replaced(":path", "/\0")),
        ("asterisk", replaced(":path", "*")),
        ("absolute path", replaced(":path", "http://b/")),
        ("scheme", replaced(":scheme", "ftp")),
        ("authority with CRLF", replaced(":authority", "a\r\nx: y")),
        ("authority with a space", replaced(":authority", "a b")),
        ("empty authority", replaced(":authority", "")),
        ("method with a space", replaced(":method", "GET /x HTTP/1.1\r\n")),
        ("method twice", added(":method", "GET")),
        ("path twice", added(":path", "/")),
        ("authority twice", added(":authority", "a")),
        ("unknown pseudo-header", added(":x", "y")),
        ("pseudo-header of a response", added(":status", "200")),
        ("protocol without CONNECT", added(":protocol", "websocket")),
        ("late pseudo-header", with(&GET[..3], &[("x", "y"), (":authority", "a")])),
        ("other host", added("host", "b")),
        ("two hosts", with(GET, &[("host", "a"), ("host", "a")])),
        ("connection", added("connection", "close")),
        ("keep-alive", added("keep-alive", "x")),
        ("proxy-connection", added("proxy-connection", "x")),
        ("transfer-encoding", added("transfer-encoding", "chunked")),
        ("upgrade", added("upgrade", "websocket")),
        ("te", added("te", "gzip")),
        ("te with more", added("te", "trailers, gzip")),
        ("empty name", added("", "x")),
        ("upper case", added("X-a", "y")),
        ("name with a colon", added("a:b", "y")),
        ("name with a space", added("a b", "y")),
        ("name with CRLF", added("a\r\nb", "y")),
        ("name with NUL", added("a\0", "y")),
        ("name beyond ASCII", added("a\u{e9}", "y")),
        ("value with CR", added("a", "x\ry")),
        ("value with LF", added("a", "x\ny")),
        ("value with CRLF", added("a", "x\r\ntransfer-encoding: chunked")),
        ("value with NUL", added("a", "x\0")),
        ("value with DEL", added("a", "x\x7f")),
        ("space before a value", added("a", " x")),
        ("space after a value", added("a", "x ")),
        ("tab after a value", added("a", "x\t")),
        ("length and no body", added("content-length", "1")),
        ("length with a sign", added("content-length", "+0")),
        ("length with a zero before", added("content-length", "00")),
        ("no length", added("content-length", "")),
        ("length as a list", added("content-length", "0, 0")),
        ("length that overflows", added("content-length", "18446744073709551616")),
        ("two lengths", with(GET, &[("content-length", "0"), ("content-length", "0")])),
        ("CONNECT with a path", vec![(":method", "CONNECT"), (":authority", "a"), (":path", "/")]),
        ("CONNECT without authority", vec![(":method", "CONNECT")]),
    ] {
        let mut server = Server::new();
        let outcome = server.headers(1, END_STREAM, &fields);
        assert_eq!(outcome, (vec!["Refused".to_owned()], None), "{what}");
        let reset = (ErrorCode::Protocol as u32).to_be_bytes().to_vec();
        assert_eq!(server.sent(), [(frame::RST_STREAM, 0, 1, reset)], "{what}");
        assert_eq!(server.headers(3, END_STREAM, GET).0.len(), 1, "{what}: the next one is served");
    }
}

#[test]
fn large_heads_are_answered_and_the_table_stays_right() {
    let large = "x".repeat(16_000);
    let many: Vec<(String, String)> =
        (0..130).map(|i| (format!("x-{i}"), "y".to_owned())).collect();
    let borrowed = |list: &[(String, String)]| -> Vec<(String, String)> { list.to_vec() };
    let sized: Vec<_> = (0..4).map(|i| (format!("y-{i}"), large.clone())).collect();
    for list in [borrowed(&many), borrowed(&sized)] {
        let mut server = Server::new();
        let mut fields = GET.to_vec();
        fields.extend(list.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let block = server.block(&fields);
        let mut pieces = block.chunks(16_000);
        let mut input = raw_headers(pieces.next().unwrap(), 1, pieces.len() == 0);
        while let Some(piece) = pieces.next() {
            let flags = if pieces.len() == 0 { frame::END_HEADERS } else { 0 };
            input.extend(super::raw(frame::CONTINUATION, flags, 1, piece));
        }
        assert_eq!(server.take(&input), (vec!["Refused".to_owned()], None));
        let sent = server.sent();
        assert_eq!(sent.len(), 1);
        let (kind, flags, stream, block) = &sent[0];
        assert_eq!((*kind, *flags, *stream), (frame::HEADERS, END_STREAM | frame::END_HEADERS, 1));
        assert_eq!(super::fields(block), [":status: 431", "content-length: 0"]);
        let (events, error) = server.headers(3, END_STREAM, &[GET, &[("x-0", "y")]].concat());
        assert_eq!((events.len(), error), (1, None));
        assert!(events[0].ends_with("x-0: y\r\n\r\n"), "{events:?}");
    }
}

fn raw_headers(block: &[u8], stream: u32, whole: bool) -> Vec<u8> {
    let flags = END_STREAM | if whole { frame::END_HEADERS } else { 0 };
    super::raw(frame::HEADERS, flags, stream, block)
}

#[test]
fn trailers_are_lines_and_those_that_frame_are_refused() {
    let mut server = Server::new();
    server.headers(1, 0, POST);
    let trailers = [("grpc-status", "0"), ("authorization", "x"), ("x-y", "z")];
    let (events, error) = server.headers(1, END_STREAM, &trailers);
    assert_eq!(events, ["Trailers 1\ngrpc-status: 0\\r\\nx-y: z\\r\\n"]);
    assert_eq!(error, None);
    for (what, flags, trailer) in [
        ("content-length", END_STREAM, ("content-length", "0")),
        ("host", END_STREAM, ("host", "a")),
        ("transfer-encoding", END_STREAM, ("transfer-encoding", "chunked")),
        ("connection", END_STREAM, ("connection", "close")),
        ("pseudo-header", END_STREAM, (":path", "/")),
        ("upper case", END_STREAM, ("X", "y")),
        ("no end", 0, ("x", "y")),
    ] {
        let mut server = Server::new();
        server.headers(1, 0, POST);
        let (events, _) = server.headers(1, flags, &[trailer]);
        assert_eq!(events, ["Reset 1 Protocol"], "{what}");
    }
}

#[test]
fn heads_become_blocks_without_what_http_2_forbids() {
    let text = "POST /a?b HTTP/1.1\r\nhost: example.org\r\nConnection: te, upgrade\r\nX-Y: Z\r\n\
                upgrade: x\r\nte: trailers\r\nkeep-alive: 1\r\ntransfer-encoding: chunked\r\n\r\nbody";
    let mut out = Vec::new();
    let facts = block::write_request(&mut Encoder::new(), text.as_bytes(), b"https", &mut out);
    let facts = facts.unwrap();
    assert_eq!((facts.consumed, facts.bodyless), (text.len() - 4, false));
    assert_eq!(
        fields(&out),
        [
            ":method: POST",
            ":scheme: https",
            ":authority: example.org",
            ":path: /a?b",
            "x-y: Z",
            "te: trailers"
        ]
    );
    for (text, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\nServer: s\r\nconnection: close\r\n\r\n",
            &[":status: 404", "server: s"][..],
        ),
        (
            "HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n",
            &[":status: 200"],
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", &[":status: 100"]),
    ] {
        let mut out = Vec::new();
        let facts = block::write_response(&mut Encoder::new(), text.as_bytes(), &mut out).unwrap();
        assert_eq!(facts.consumed, text.len());
        assert_eq!(fields(&out), expected);
    }
    for (framing, bodyless) in
        [("", true), ("content-length: 0\r\n", true), ("content-length: 7\r\n", false)]
    {
        let text = format!("PUT / HTTP/1.1\r\nhost: a\r\n{framing}\r\n");
        let facts =
            block::write_request(&mut Encoder::new(), text.as_bytes(), b"http", &mut Vec::new());
        assert_eq!(facts.map(|facts| facts.bodyless), Some(bodyless), "{framing}");
    }
}
