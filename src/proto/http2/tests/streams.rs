//! What two good ends say to each other.
use super::super::connection::{Connection, Event};
use super::super::frame::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::super::{CONNECTION_WINDOW, ErrorCode, MAX_STREAMS, STREAM_WINDOW};
use super::{GET, POST, Server, client, fields, frames, raw};

fn receive(connection: &mut Connection, input: &[u8], out: &mut Vec<u8>) -> Vec<Event> {
    let (mut events, mut at) = (Vec::new(), 0);
    loop {
        let received = connection.receive(0, &input[at..], out).unwrap();
        at += received.consumed;
        match received.event {
            Some(event) => events.push(event),
            None => return events,
        }
    }
}

#[test]
fn a_request_and_its_response_with_trailers() {
    let mut server = Server::new();
    let (mut connection, mut out) = client();
    let text = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nrest";
    let (id, sent) = connection.open(9, text, &mut out).unwrap();
    assert_eq!((id, sent.consumed, sent.ended), (1, text.len() - 4, false));
    assert_eq!(connection.send_data(1, [b"he", b"", b"llo"], 100, &mut out), 5);
    connection.finish(1, b"x-sum: 1\r\n", &mut out);
    let events = server.take(&std::mem::take(&mut out)).0;
    assert_eq!(
        events,
        [
            "Head 1 false\nPOST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            "Data 1 false hello",
            "Trailers 1\nx-sum: 1\\r\\n"
        ]
    );
    let Server { connection: server, out: back, .. } = &mut server;
    let interim = server.send_response(1, b"HTTP/1.1 103 \r\nlink: x\r\n\r\n", back).unwrap();
    assert!(interim.interim);
    server.send_response(1, b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\n", back).unwrap();
    assert_eq!(server.send_data(1, [b"answer", b"", b""], 100, back), 6);
    server.finish(1, b"grpc-status: 0\r\n", back);
    server.release(1, ErrorCode::Internal, back);
    let back = std::mem::take(back);
    let mut seen = Vec::new();
    let mut at = 0;
    loop {
        let received = connection.receive(0, &back[at..], &mut out).unwrap();
        let Some(event) = received.event else { break };
        seen.push(match event {
            Event::Data { token, data, end } => {
                format!("{token} {end} {}", back[at..][data].escape_ascii())
            }
            Event::Head { token, end, .. } => {
                format!("{token} {end} {}", connection.text().escape_ascii())
            }
            Event::Trailers { token } => format!("{token} {}", connection.text().escape_ascii()),
            other => format!("{other:?}"),
        });
        at += received.consumed;
    }
    assert_eq!(
        seen,
        [
            "9 false HTTP/1.1 103 \\r\\nlink: x\\r\\n\\r\\n",
            "9 false HTTP/1.1 200 \\r\\nserver: s\\r\\n\\r\\n",
            "9 false answer",
            "9 grpc-status: 0\\r\\n"
        ]
    );
    connection.release(1, ErrorCode::Cancel, &mut out);
    assert_eq!((out.len(), connection.stream_count()), (0, 0), "nothing is left to say");
}

#[test]
fn the_end_is_marked_in_the_last_frame_if_it_is_still_there() {
    let mut server = Server::new();
    for stream in [1, 3, 5] {
        server.headers(stream, END_STREAM, GET);
    }
    server.sent();
    let Server { connection, out, .. } = &mut server;
    connection.send_response(1, b"HTTP/1.1 204 \r\n\r\n", out);
    connection.finish(1, b"", out);
    connection.send_response(3, b"HTTP/1.1 200 \r\n\r\n", out);
    connection.send_data(3, [b"a", b"b", b"c"], 9, out);
    connection.finish(3, b"", out);
    connection.send_response(5, b"HTTP/1.1 200 \r\n\r\n", out);
    connection.flushed();
    connection.finish(5, b"", out);
    let kinds: Vec<_> = server.sent().into_iter().map(|(k, f, s, p)| (k, f, s, p.len())).collect();
    assert_eq!(
        kinds.iter().map(|(k, f, s, _)| (*k, *f, *s)).collect::<Vec<_>>(),
        [
            (HEADERS, END_HEADERS | END_STREAM, 1),
            (HEADERS, END_HEADERS, 3),
            (DATA, END_STREAM, 3),
            (HEADERS, END_HEADERS, 5),
            (DATA, END_STREAM, 5)
        ]
    );
    assert_eq!(kinds[4].3, 0);
}

#[test]
fn sending_stops_at_both_windows_and_goes_on() {
    let mut server = Server::new();
    server.headers(1, END_STREAM, GET);
    server.headers(3, END_STREAM, GET);
    let Server { connection, out, .. } = &mut server;
    for stream in [1, 3] {
        connection.send_response(stream, b"HTTP/1.1 200 \r\n\r\n", out);
    }
    let body = vec![7; 100_000];
    assert_eq!(connection.send_data(1, [&body, b"", b""], 1000, out), 1000, "the room");
    assert_eq!(connection.send_data(1, [&body, b"", b""], usize::MAX, out), 64_535, "the window");
    assert_eq!((connection.window(1), connection.window(3)), (Some(0), Some(0)));
    assert!(!connection.may_send());
    let update = raw(WINDOW_UPDATE, 0, 0, &1000u32.to_be_bytes());
    assert_eq!(server.take(&update).0, ["AllWindowsOpened"]);
    assert_eq!(server.connection.window(1), Some(0), "that of the stream is still closed");
    assert_eq!(server.connection.window(3), Some(1000));
    let update = raw(WINDOW_UPDATE, 0, 1, &10u32.to_be_bytes());
    assert_eq!(server.take(&update).0, ["WindowOpened { token: 1 }"]);
    assert_eq!(server.connection.window(1), Some(10));
    // A smaller window can make it negative; only more than the debt opens it again.
    let smaller = raw(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    server.take(&smaller);
    assert_eq!(server.connection.window(1), Some(0));
    server.take(&raw(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    assert_eq!(server.connection.window(1), Some(11), "65536 and 10, less the 65535 sent");
    let sizes: Vec<usize> =
        server.sent().iter().filter(|f| f.0 == DATA).map(|f| f.3.len()).collect();
    assert_eq!(sizes, [1000, 16_384, 16_384, 16_384, 15_383]);
}

#[test]
fn windows_open_again_when_half_of_them_is_consumed() {
    let mut server = Server::new();
    server.headers(1, 0, POST);
    server.sent();
    server.take(&raw(DATA, 0, 1, &[0; 16_384]));
    let Server { connection, out, .. } = &mut server;
    connection.consumed(1, 16_384, out);
    assert!(out.is_empty(), "a quarter of it is not worth a frame");
    for _ in 1..CONNECTION_WINDOW / 16_384 {
        server.take(&raw(DATA, 0, 1, &[0; 16_384]));
        server.connection.consumed(1, 16_384, &mut server.out);
    }
    let updates: Vec<(u32, Vec<u8>)> = server.sent().into_iter().map(|f| (f.2, f.3)).collect();
    let half = (STREAM_WINDOW / 2).to_be_bytes().to_vec();
    assert_eq!(updates.iter().filter(|(s, v)| *s == 1 && *v == half).count(), 8);
    let half = (CONNECTION_WINDOW / 2).to_be_bytes().to_vec();
    assert_eq!(updates.iter().filter(|(s, v)| *s == 0 && *v == half).count(), 2);
}

#[test]
fn streams_beyond_the_limit_are_refused_until_others_are_let_go_of() {
    let mut server = Server::new();
    for i in 0..MAX_STREAMS {
        assert_eq!(server.headers(2 * i + 1, END_STREAM, GET).0.len(), 1);
    }
    server.sent();
    let next = 2 * MAX_STREAMS + 1;
    assert_eq!(server.headers(next, END_STREAM, GET).0, ["Refused"]);
    let refused = (ErrorCode::RefusedStream as u32).to_be_bytes().to_vec();
    assert_eq!(server.sent(), [(RST_STREAM, 0, next, refused)]);
    // The client breaking one off does not make room; that its work has ended does.
    server.take(&raw(RST_STREAM, 0, 1, &8u32.to_be_bytes()));
    assert_eq!(server.headers(next + 2, END_STREAM, GET).0, ["Refused"]);
    server.connection.release(1, ErrorCode::Cancel, &mut server.out);
    assert!(server.headers(next + 4, END_STREAM, GET).0[0].starts_with("Head"));
}

#[test]
fn frames_for_streams_that_we_broke_off_are_ignored_and_counted() {
    let mut server = Server::new();
    server.headers(1, 0, POST);
    server.connection.release(1, ErrorCode::Cancel, &mut server.out);
    let code = (ErrorCode::Cancel as u32).to_be_bytes().to_vec();
    assert_eq!(server.sent(), [(RST_STREAM, 0, 1, code)]);
    for _ in 0..CONNECTION_WINDOW / 16_384 {
        assert_eq!(server.take(&raw(DATA, 0, 1, &[0; 16_384])), (Vec::new(), None));
    }
    let updates = server.sent();
    assert_eq!(updates.len(), 2, "what was thrown away is consumed");
    assert!(updates.iter().all(|f| (f.0, f.2) == (WINDOW_UPDATE, 0)));
    let trailers = server.block(&[("x", "y")]);
    let input = raw(HEADERS, END_HEADERS | END_STREAM, 1, &trailers);
    assert_eq!(server.take(&input), (Vec::new(), None));
    assert!(server.headers(3, END_STREAM, GET).0[0].starts_with("Head"));
}

#[test]
fn an_early_answer_asks_for_the_rest_of_the_request_to_be_left_out() {
    let mut server = Server::new();
    server.headers(1, 0, POST);
    server.sent();
    let Server { connection, out, .. } = &mut server;
    connection.send_response(1, b"HTTP/1.1 413 \r\n\r\n", out);
    connection.finish(1, b"", out);
    connection.release(1, ErrorCode::Internal, out);
    let none = (ErrorCode::None as u32).to_be_bytes().to_vec();
    assert_eq!(server.sent().last(), Some(&(RST_STREAM, 0, 1, none)));
}

#[test]
fn departure_is_announced_confirmed_and_final() {
    let mut server = Server::new();
    server.headers(1, END_STREAM, GET);
    server.sent();
    server.connection.announce_departure(&mut server.out);
    server.connection.announce_departure(&mut server.out);
    let sent = server.sent();
    assert_eq!(sent.iter().map(|f| f.0).collect::<Vec<_>>(), [GOAWAY, PING]);
    assert_eq!(sent[0].3[..4], [0x7f, 255, 255, 255]);
    assert!(server.headers(3, END_STREAM, GET).0[0].starts_with("Head"), "sent before it knew");
    let answer = raw(PING, ACK, 0, &sent[1].3);
    assert_eq!(server.take(&answer).0, ["DepartureKnown"]);
    server.connection.depart(&mut server.out);
    assert_eq!(server.sent(), [(GOAWAY, 0, 0, vec![0, 0, 0, 3, 0, 0, 0, 0])]);
    assert_eq!(server.headers(5, END_STREAM, GET).0, ["Refused"]);
    assert!(!server.connection.may_close());
    for stream in [1, 3] {
        server.connection.release(stream, ErrorCode::Cancel, &mut server.out);
    }
    assert!(server.connection.may_close());
}

#[test]
fn a_client_learns_which_requests_were_not_looked_at() {
    let (mut connection, mut out) = client();
    for token in [10, 11, 12] {
        connection.open(token, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", &mut out).unwrap();
    }
    let goaway = raw(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(receive(&mut connection, &goaway, &mut out), [Event::GoAway]);
    assert_eq!(connection.take_refused(), Some(12));
    assert_eq!(connection.take_refused(), None);
    assert!(connection.open(13, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", &mut out).is_none());
    let response = raw(HEADERS, END_HEADERS | END_STREAM, 3, b"\x88");
    let events = receive(&mut connection, &response, &mut out);
    assert_eq!(events, [Event::Head { stream: 3, token: 11, end: true }]);
}

#[test]
fn a_client_keeps_to_the_servers_limit() {
    let (mut connection, mut out) = client();
    receive(&mut connection, &raw(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]), &mut out);
    assert_eq!(connection.room_for_streams(), 1);
    let text = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let (id, sent) = connection.open(0, text, &mut out).unwrap();
    assert!(sent.ended);
    assert!(connection.open(1, text, &mut out).is_none());
    connection.release(id, ErrorCode::Cancel, &mut out);
    assert!(connection.open(1, text, &mut out).is_some());
}

#[test]
fn a_long_head_goes_out_in_several_frames() {
    let (mut connection, mut out) = client();
    let text = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "@".repeat(40_000));
    connection.open(0, text.as_bytes(), &mut out).unwrap();
    let sent = frames(&out);
    assert!(sent.len() > 2 && sent[1..].iter().all(|f| f.0 == 9 && f.2 == 1));
    assert_eq!(sent[0].1, END_STREAM);
    assert_eq!(sent.last().map(|f| f.1), Some(END_HEADERS));
    let block: Vec<u8> = sent.into_iter().flat_map(|f| f.3).collect();
    assert_eq!(fields(&block).last().map(String::len), Some(40_003));
    assert!(Server::new().take(&out).0[0].starts_with("Head 1 true\nGET / HTTP/1.1"));
}
