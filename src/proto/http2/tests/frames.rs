//! Every way in which a frame can be wrong, and what that costs.
use super::super::connection::Connection;
use super::super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY,
};
use super::super::{ErrorCode, STREAM_WINDOW};
use super::{GET, POST, Server, client, frames, raw};

fn error_after_get(input: &[u8]) -> Option<ErrorCode> {
    let mut server = Server::new();
    server.headers(1, END_STREAM, GET);
    server.sent();
    let (_, error) = server.take(input);
    if let Some(code) = error {
        let last = server.sent().pop().unwrap();
        assert_eq!((last.0, &last.3[4..]), (GOAWAY, &(code as u32).to_be_bytes()[..]));
    }
    error
}

#[test]
fn what_breaks_the_connection() {
    use ErrorCode::{Compression, FlowControl, FrameSize, Protocol, StreamClosed};
    let setting = |id: u16, value: u32| {
        raw(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
    };
    let window = |stream, increment: u32| raw(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    for (what, input, code) in [
        ("frame too large", raw(DATA, 0, 1, &[0; 16_385]), FrameSize),
        ("DATA on the connection", raw(DATA, 0, 0, b"x"), Protocol),
        ("DATA on an idle stream", raw(DATA, 0, 5, b"x"), Protocol),
        ("DATA of padding only", raw(DATA, PADDED, 1, &[4, 0, 0, 0]), Protocol),
        ("DATA padded and empty", raw(DATA, PADDED, 1, b""), Protocol),
        ("HEADERS on the connection", raw(HEADERS, END_HEADERS, 0, b"\x82"), Protocol),
        ("HEADERS on an even stream", raw(HEADERS, END_HEADERS, 2, b"\x82"), Protocol),
        (
            "HEADERS with short priority",
            raw(HEADERS, END_HEADERS | WITH_PRIORITY, 3, b"1234"),
            Protocol,
        ),
        ("HEADERS that are not HPACK", raw(HEADERS, END_HEADERS, 3, b"\x80"), Compression),
        ("CONTINUATION alone", raw(CONTINUATION, END_HEADERS, 1, b"\x82"), Protocol),
        (
            "another frame within a block",
            [raw(HEADERS, 0, 3, b"\x82"), raw(PING, 0, 0, &[0; 8])].concat(),
            Protocol,
        ),
        (
            "CONTINUATION of another stream",
            [raw(HEADERS, 0, 3, b"\x82"), raw(CONTINUATION, 0, 5, b"\x82")].concat(),
            Protocol,
        ),
        ("PRIORITY on the connection", raw(PRIORITY, 0, 0, &[0; 5]), Protocol),
        ("RST_STREAM on the connection", raw(RST_STREAM, 0, 0, &[0; 4]), Protocol),
        ("RST_STREAM on an idle stream", raw(RST_STREAM, 0, 3, &[0; 4]), Protocol),
        ("RST_STREAM of three bytes", raw(RST_STREAM, 0, 1, &[0; 3]), FrameSize),
        ("SETTINGS on a stream", raw(SETTINGS, 0, 1, b""), Protocol),
        ("SETTINGS of five bytes", raw(SETTINGS, 0, 0, &[0; 5]), FrameSize),
        ("SETTINGS acknowledged with more", raw(SETTINGS, ACK, 0, &[0; 6]), FrameSize),
        ("ENABLE_PUSH of 2", setting(2, 2), Protocol),
        ("INITIAL_WINDOW_SIZE too large", setting(4, 1 << 31), FlowControl),
        ("MAX_FRAME_SIZE too small", setting(5, 16_383), Protocol),
        ("MAX_FRAME_SIZE too large", setting(5, 1 << 24), Protocol),
        ("ENABLE_CONNECT_PROTOCOL of 2", setting(8, 2), Protocol),
        ("PUSH_PROMISE", raw(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), Protocol),
        ("PING on a stream", raw(PING, 0, 1, &[0; 8]), Protocol),
        ("PING of seven bytes", raw(PING, 0, 0, &[0; 7]), FrameSize),
        ("GOAWAY on a stream", raw(GOAWAY, 0, 1, &[0; 8]), Protocol),
        ("GOAWAY of seven bytes", raw(GOAWAY, 0, 0, &[0; 7]), FrameSize),
        ("WINDOW_UPDATE of three bytes", raw(WINDOW_UPDATE, 0, 0, &[0; 3]), FrameSize),
        ("WINDOW_UPDATE of nothing", window(0, 0), Protocol),
        ("WINDOW_UPDATE on an idle stream", window(3, 1), Protocol),
        ("WINDOW_UPDATE that overflows", window(0, 0x7fff_ffff), FlowControl),
        ("an older stream that was skipped", [get(5), get(3)].concat(), Protocol),
    ] {
        assert_eq!(error_after_get(&input), Some(code), "{what}");
    }
    let mut server = Server::new();
    server.headers(1, END_STREAM, GET);
    server.connection.send_response(1, b"HTTP/1.1 200 \r\n\r\n", &mut server.out);
    server.connection.finish(1, b"", &mut server.out);
    server.connection.release(1, ErrorCode::Internal, &mut server.out);
    for input in [raw(DATA, 0, 1, b"x"), get(1)] {
        assert_eq!(server.take(&input).1, Some(StreamClosed), "a stream that has ended");
    }
}

fn get(stream: u32) -> Vec<u8> {
    // Indexed fields only, so that any number of them is the same.
    raw(HEADERS, END_HEADERS | END_STREAM, stream, b"\x82\x84\x86")
}

#[test]
fn what_breaks_a_stream_off() {
    let window = |increment: u32| raw(WINDOW_UPDATE, 0, 1, &increment.to_be_bytes());
    for (what, flags, fields, input, code) in [
        ("DATA after the end", END_STREAM, GET, raw(DATA, 0, 1, b"x"), ErrorCode::StreamClosed),
        ("HEADERS after the end", END_STREAM, GET, get(1), ErrorCode::StreamClosed),
        ("PRIORITY of four bytes", 0, POST, raw(PRIORITY, 0, 1, &[0; 4]), ErrorCode::FrameSize),
        ("PRIORITY on itself", 0, POST, raw(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), ErrorCode::Protocol),
        ("WINDOW_UPDATE of nothing", 0, POST, window(0), ErrorCode::Protocol),
        ("WINDOW_UPDATE that overflows", 0, POST, window(0x7fff_ffff), ErrorCode::FlowControl),
    ] {
        let mut server = Server::new();
        server.headers(1, flags, fields);
        server.sent();
        let (events, error) = server.take(&input);
        assert_eq!((events, error), (vec![format!("Reset 1 {code:?}")], None), "{what}");
        let reset = (code as u32).to_be_bytes().to_vec();
        assert_eq!(server.sent(), [(RST_STREAM, 0, 1, reset)], "{what}");
    }
    let mut server = Server::new();
    let itself = raw(HEADERS, END_HEADERS | WITH_PRIORITY, 3, &[0, 0, 0, 3, 0, 0x82, 0x84, 0x86]);
    assert_eq!(server.take(&itself), (vec!["Refused".to_owned()], None));
}

#[test]
fn a_body_has_the_length_that_was_declared() {
    for (what, length, pieces) in [
        ("more", "3", &[(0, "ab"), (0, "cd")][..]),
        ("less", "3", &[(END_STREAM, "ab")]),
        ("nothing", "1", &[(END_STREAM, "")]),
    ] {
        let mut server = Server::new();
        server.headers(1, 0, &[POST, &[("content-length", length)]].concat());
        let mut last = Vec::new();
        for (flags, data) in pieces {
            last = server.take(&raw(DATA, *flags, 1, data.as_bytes())).0;
        }
        assert_eq!(last, ["Reset 1 Protocol"], "{what}");
    }
    let mut server = Server::new();
    server.headers(1, 0, &[POST, &[("content-length", "3")]].concat());
    let input = [raw(DATA, PADDED, 1, b"\x02ab\0\0"), raw(DATA, END_STREAM, 1, b"c")].concat();
    assert_eq!(server.take(&input).0, ["Data 1 false ab", "Data 1 true c"]);
}

#[test]
fn the_preface_is_complete_and_settings_come_first() {
    for (what, input) in [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("one byte is wrong", [&PREFACE[..23], b"x"].concat()),
        ("PING first", [&PREFACE[..], &raw(PING, 0, 0, &[0; 8])].concat()),
        ("an acknowledgement first", [&PREFACE[..], &raw(SETTINGS, ACK, 0, b"")].concat()),
    ] {
        let mut connection = Connection::server(0, 0);
        let error = connection.receive(0, &input, &mut Vec::new()).unwrap_err();
        assert_eq!(error.0, ErrorCode::Protocol, "{what}");
    }
    let mut connection = Connection::server(0, 0);
    for byte in PREFACE {
        let received = connection.receive(0, &[*byte], &mut Vec::new()).unwrap();
        assert_eq!((received.consumed, received.event), (1, None));
    }
}

#[test]
fn settings_and_pings_are_answered_and_unknown_frames_ignored() {
    let mut server = Server::new();
    let data = *b"12345678";
    let input =
        [raw(SETTINGS, 0, 0, b""), raw(PING, 0, 0, &data), raw(77, 255, 9, b"what")].concat();
    assert_eq!(server.take(&input).1, None);
    let answers = [(SETTINGS, ACK, 0, Vec::new()), (PING, ACK, 0, data.to_vec())];
    assert_eq!(server.sent(), answers);
}

#[test]
fn a_client_takes_no_promises_and_no_heads_it_did_not_ask_for() {
    for (what, input) in [
        ("a promise", raw(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("HEADERS on an idle stream", raw(HEADERS, END_HEADERS, 3, b"\x88")),
        ("HEADERS on an even stream", raw(HEADERS, END_HEADERS, 2, b"\x88")),
        ("ENABLE_PUSH", raw(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1])),
    ] {
        let (mut connection, mut out) = client();
        connection.open(1, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", &mut out).unwrap();
        let error = connection.receive(0, &input, &mut out).unwrap_err();
        assert_eq!(error.0, ErrorCode::Protocol, "{what}");
    }
}

#[test]
fn more_than_the_window_is_refused() {
    let mut server = Server::new();
    server.headers(1, 0, POST);
    let full = raw(DATA, 0, 1, &[0; 16_384]);
    for _ in 0..STREAM_WINDOW / 16_384 {
        assert_eq!(server.take(&full).1, None);
    }
    assert_eq!(server.take(&raw(DATA, 0, 1, b"x")).0, ["Reset 1 FlowControl"]);
    assert_eq!(frames(&server.out).last().map(|f| f.0), Some(RST_STREAM));
}
