//! Two ends that talk to each other, and one that is told what no good end would say.
mod flood;
mod frames;
mod heads;
mod streams;

use super::connection::{Connection, Event};
use super::frame::{self, HEADER_BYTES, PREFACE};
use super::hpack::{Decoder, Encoder};
use super::{ErrorCode, Role};

/// A server and what it sends.
struct Server {
    connection: Connection,
    out: Vec<u8>,
    encoder: Encoder,
    now: u64,
}

/// What a server made of some input: its events, then the code of the error that ended the connection.
type Outcome = (Vec<String>, Option<ErrorCode>);

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_header(&mut bytes, kind, flags, stream, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

/// The frames in `bytes`: kind, flags, stream, payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(header) = frame::FrameHeader::parse(bytes) {
        let end = HEADER_BYTES + header.length;
        found.push((header.kind, header.flags, header.stream, bytes[HEADER_BYTES..end].to_vec()));
        bytes = &bytes[end..];
    }
    found
}

const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

// === impl Server ===

impl Server {
    /// A server that has seen preface and SETTINGS.
    fn new() -> Self {
        let connection = Connection::server(0, 7);
        let mut server = Self { connection, out: Vec::new(), encoder: Encoder::new(), now: 0 };
        server.connection.start(&mut server.out);
        let hello = [&PREFACE[..], &raw(frame::SETTINGS, 0, 0, b"")].concat();
        assert_eq!(server.take(&hello), (vec!["AllWindowsOpened".to_owned()], None));
        server.out.clear();
        server
    }

    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        for (name, value) in fields {
            self.encoder.field(name.as_bytes(), value.as_bytes(), &mut block);
        }
        block
    }

    fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> Outcome {
        let block = self.block(fields);
        self.take(&raw(frame::HEADERS, flags | frame::END_HEADERS, stream, &block))
    }

    fn take(&mut self, mut input: &[u8]) -> Outcome {
        let mut events = Vec::new();
        loop {
            let received = match self.connection.receive(self.now, input, &mut self.out) {
                Ok(received) => received,
                Err(error) => return (events, Some(error.0)),
            };
            let Some(event) = received.event else { return (events, None) };
            events.push(match &event {
                Event::Head { stream, end, .. } => {
                    self.connection.set_token(*stream, *stream);
                    let text = String::from_utf8_lossy(self.connection.text()).into_owned();
                    format!("Head {stream} {end}\n{text}")
                }
                Event::Trailers { token } => {
                    format!("Trailers {token}\n{}", self.connection.text().escape_ascii())
                }
                Event::Data { token, data, end } => {
                    format!("Data {token} {end} {}", input[data.clone()].escape_ascii())
                }
                Event::Reset { token, code } => format!("Reset {token} {code:?}"),
                other => format!("{other:?}"),
            });
            input = &input[received.consumed..];
        }
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        self.connection.flushed();
        frames(&std::mem::take(&mut self.out))
    }
}

/// The fields of a block, as `name: value`.
fn fields(block: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut take = |n: &[u8], v: &[u8]| {
        found.push(format!("{}: {}", n.escape_ascii(), v.escape_ascii()));
    };
    Decoder::new().decode(block, &mut take).unwrap();
    found
}

fn client() -> (Connection, Vec<u8>) {
    let (mut connection, mut out) = (Connection::client("http", 0), Vec::new());
    connection.start(&mut out);
    assert_eq!(connection.role, Role::Client);
    assert_eq!(&out[..PREFACE.len()], PREFACE);
    let settings = raw(frame::SETTINGS, 0, 0, b"");
    let received = connection.receive(0, &settings, &mut out).unwrap();
    assert_eq!(received.event, Some(Event::AllWindowsOpened));
    out.clear();
    (connection, out)
}
