//! Invariants of the codec on arbitrary bytes; called by `tests/fuzz_corpus.rs` and by libFuzzer.
//!
//! - What a connection does does not depend on how the bytes were split.
//! - The text of a head is one HTTP/1.1 head and nothing else, whatever the fields were.
//! - A head passed on and received again is the same head.
//! - Fields encoded and decoded are the same fields.
use super::connection::{Connection, Event};
use super::frame::PREFACE;
use super::head::{HeadWriter, Kind};
use super::hpack::{Decoder, Encoder};
use super::{ErrorCode, block};
use crate::proto::http1::{
    HeadProgress, HeaderSlots, Parsed, ResponseTo, parse_request, parse_response,
};

/// All that came of some input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    sent: Vec<u8>,
    failed: Option<ErrorCode>,
}

/// The frames of a client, after its preface.
pub fn server(data: &[u8]) {
    let whole = run(Connection::server(0, 7), PREFACE, data, data.len().max(1));
    for step in [1, 7, 23] {
        assert_eq!(run(Connection::server(0, 7), PREFACE, data, step), whole, "in steps of {step}");
    }
}

/// The frames of a server, to a client with three requests on their way.
pub fn client(data: &[u8]) {
    let connection = || {
        let mut connection = Connection::client("http", 0);
        for method in ["GET", "HEAD", "GET"] {
            let text = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
            connection.open(0, text.as_bytes(), &mut Vec::new());
        }
        connection
    };
    let whole = run(connection(), b"", data, data.len().max(1));
    for step in [1, 7, 23] {
        assert_eq!(run(connection(), b"", data, step), whole, "in steps of {step}");
    }
}

/// A header block.
pub fn hpack(data: &[u8]) {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut take = |name: &[u8], value: &[u8]| fields.push((name.to_vec(), value.to_vec()));
    let decoded = Decoder::new().decode(data, &mut take);
    if decoded.is_err() || fields.len() > 64 {
        return;
    }
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for _ in 0..2 {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        for (name, value) in &fields {
            encoder.field(name, value, &mut block);
        }
        let mut again = Vec::new();
        let mut take = |name: &[u8], value: &[u8]| again.push((name.to_vec(), value.to_vec()));
        assert_eq!(decoder.decode(&block, &mut take), Ok(()));
        assert_eq!(again, fields);
    }
    for kind in [Kind::Request, Kind::Response] {
        head(kind, data);
    }
}

fn run(mut connection: Connection, before: &[u8], data: &[u8], step: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let is_server = !before.is_empty();
    let mut input = before.to_vec();
    for piece in data.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match connection.receive(0, &input, &mut outcome.sent) {
                Ok(received) => {
                    if let Some(event) = &received.event {
                        outcome.events.push(note(event, &connection, &input, is_server));
                        answer(event, &mut connection, is_server, &mut outcome.sent);
                    } else if received.consumed == 0 {
                        break;
                    }
                    input.drain(..received.consumed);
                }
                Err(error) => {
                    outcome.failed = Some(error.0);
                    return outcome;
                }
            }
        }
    }
    outcome
}

fn note(event: &Event, connection: &Connection, input: &[u8], is_server: bool) -> String {
    match event {
        Event::Head { end, .. } => {
            let text = connection.text();
            if is_server {
                one_request(text)
            } else {
                one_response(text)
            }
            format!("head {end} {}", text.escape_ascii())
        }
        Event::Data { data, end, .. } => {
            format!("data {end} {}", input[data.clone()].escape_ascii())
        }
        Event::Trailers { .. } => format!("trailers {}", connection.text().escape_ascii()),
        other => format!("{other:?}"),
    }
}

fn answer(event: &Event, connection: &mut Connection, is_server: bool, out: &mut Vec<u8>) {
    let Event::Head { stream, .. } = *event else { return };
    connection.set_token(stream, stream);
    // Every other stream is answered and let go of at once.
    if is_server && stream % 4 == 1 {
        connection.send_response(stream, b"HTTP/1.1 200 OK\r\nServer: a\r\n\r\n", out);
        connection.finish(stream, b"", out);
        connection.release(stream, ErrorCode::Cancel, out);
    }
}

/// The parser may refuse it, but never find a second one behind it.
fn one_request(text: &[u8]) {
    let mut slots = HeaderSlots::new();
    match parse_request(text, &mut slots, &mut HeadProgress::default()) {
        Ok(Parsed::Complete(_, consumed)) => assert_eq!(consumed, text.len()),
        Ok(Parsed::Partial) => panic!("no whole head: {}", text.escape_ascii()),
        Err(_) => {}
    }
}

fn one_response(text: &[u8]) {
    let mut slots = HeaderSlots::new();
    let parsed =
        parse_response(text, ResponseTo::default(), &mut slots, &mut HeadProgress::default());
    match parsed {
        Ok(Parsed::Complete(_, consumed)) => assert_eq!(consumed, text.len()),
        Ok(Parsed::Partial) => panic!("no whole head: {}", text.escape_ascii()),
        Err(_) => {}
    }
}

/// Reads a head, passes it on, and reads it again.
fn head(kind: Kind, data: &[u8]) {
    let Some(first) = read(kind, data) else { return };
    let passed_on = |text: &[u8]| {
        let mut out = Vec::new();
        let facts = match kind {
            Kind::Request => block::write_request(&mut Encoder::new(), text, b"http", &mut out),
            _ => block::write_response(&mut Encoder::new(), text, &mut out),
        };
        assert_eq!(facts.map(|facts| facts.consumed), Some(text.len()));
        read(kind, &out)
    };
    // A tunnel is not passed on as such; Host comes first.
    if let Some(second) = passed_on(&first) {
        assert_eq!(passed_on(&second).map(|t| text(&t)), Some(text(&second)));
    }
}

fn read(kind: Kind, data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut writer = HeadWriter::new(kind, &mut text, 7);
    let decoded = Decoder::new().decode(data, &mut |name, value| writer.field(name, value));
    decoded.ok()?;
    writer.finish(true).ok()?;
    Some(text)
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
