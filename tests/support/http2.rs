//! Ends that speak HTTP/2: good ones made of the codec, and a client that says what no codec would.
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use pilus::proto::http2::{Connection, ErrorCode, Event, PREFACE};

use super::backend::{Backend, Peer, WATCHDOG};
use super::client::connect_from;

/// What has come on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// The texts of its heads, interim ones too.
    pub heads: Vec<String>,
    pub body: Vec<u8>,
    pub trailers: String,
    pub ended: bool,
    pub reset: Option<ErrorCode>,
}

/// A connection, either side of it.
pub struct Http2<S> {
    pub protocol: Connection,
    pub stream: S,
    pub out: Vec<u8>,
    input: Vec<u8>,
    pub streams: BTreeMap<u32, Came>,
    pub going_away: bool,
    pub closed: bool,
    /// What is received counts as consumed at once.
    pub consumes: bool,
}

impl Came {
    /// The final head.
    pub fn head(&self) -> &str {
        self.heads.last().map_or("", String::as_str)
    }

    pub fn status(&self) -> u16 {
        self.head().get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    pub fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

impl Http2<TcpStream> {
    /// A client, connected without TLS.
    pub fn connect(port: u16) -> Self {
        Self::from(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// The same from one of this machine's addresses.
    pub fn from(source: IpAddr, port: u16) -> Self {
        let stream = connect_from(source, port);
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, Connection::client("http", 0))
    }

    /// A server on a backend's connection.
    pub fn serve(peer: Peer) -> Self {
        Self::over(peer.stream.into_inner(), Connection::server(0, 7))
    }
}

impl<S: Read + Write> Http2<S> {
    pub fn over(stream: S, protocol: Connection) -> Self {
        let mut this = Self {
            protocol,
            stream,
            out: Vec::new(),
            input: Vec::new(),
            streams: BTreeMap::new(),
            going_away: false,
            closed: false,
            consumes: true,
        };
        this.protocol.start(&mut this.out);
        this.flush();
        this
    }

    pub fn flush(&mut self) {
        // That the other end may be gone is seen when nothing comes any more.
        let _ = self.stream.write_all(&self.out);
        let _ = self.stream.flush();
        self.out.clear();
        self.protocol.flushed();
    }

    /// Opens a stream with the head `text`; `body` follows, and the end unless `open`.
    pub fn send(&mut self, text: &str, body: &[u8], open: bool) -> u32 {
        let (id, _) = self.protocol.open(0, text.as_bytes(), &mut self.out).unwrap();
        // A client's tokens are its ids here.
        self.protocol.set_token(id, id);
        self.streams.insert(id, Came::default());
        self.flush();
        let mut sent = 0;
        while sent < body.len() && !self.streams[&id].is_over() {
            let rest = &body[sent..];
            sent += self.protocol.send_data(id, [rest, b"", b""], usize::MAX, &mut self.out);
            self.flush();
            if sent < body.len() && !self.read() {
                break;
            }
        }
        if !open {
            self.protocol.finish(id, b"", &mut self.out);
            self.flush();
        }
        id
    }

    pub fn get(&mut self, path: &str) -> Came {
        let id = self.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"), b"", false);
        self.wait(id)
    }

    /// Waits for the end of a stream.
    pub fn wait(&mut self, id: u32) -> Came {
        while !self.streams[&id].is_over() && self.read() {}
        self.protocol.release(id, ErrorCode::Cancel, &mut self.out);
        self.flush();
        self.streams.remove(&id).unwrap()
    }

    /// Waits until `done`; false if the connection ended before.
    pub fn until(&mut self, mut done: impl FnMut(&Self) -> bool) -> bool {
        while !done(self) {
            if !self.read() {
                return false;
            }
        }
        true
    }

    /// Reads once; false at the end of the connection.
    pub fn read(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let got = match self.stream.read(&mut bytes) {
            Ok(got) => got,
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing came");
                0
            }
        };
        self.input.extend_from_slice(&bytes[..got]);
        self.closed |= got == 0;
        loop {
            let Ok(received) = self.protocol.receive(0, &self.input, &mut self.out) else {
                panic!("the proxy broke the protocol");
            };
            if received.event.is_none() && received.consumed == 0 {
                break;
            }
            if let Some(event) = received.event {
                self.take(&event);
            }
            self.input.drain(..received.consumed);
        }
        self.flush();
        !self.closed
    }

    fn take(&mut self, event: &Event) {
        let text = || String::from_utf8(self.protocol.text().to_vec()).unwrap();
        match *event {
            Event::Head { stream, end, .. } => {
                let text = text();
                self.protocol.set_token(stream, stream);
                let came = self.streams.entry(stream).or_default();
                came.heads.push(text);
                came.ended = end;
            }
            Event::Data { token, ref data, end } => {
                let came = self.streams.entry(token).or_default();
                came.body.extend_from_slice(&self.input[data.clone()]);
                came.ended = end;
                if self.consumes {
                    self.protocol.consumed(token, data.len(), &mut self.out);
                }
            }
            Event::Trailers { token } => {
                let text = text();
                let came = self.streams.entry(token).or_default();
                came.trailers = text;
                came.ended = true;
            }
            Event::Reset { token, code } => {
                self.streams.entry(token).or_default().reset = Some(code);
            }
            Event::GoAway => {
                self.going_away = true;
                while let Some(token) = self.protocol.take_refused() {
                    self.streams.entry(token).or_default().reset = Some(ErrorCode::RefusedStream);
                }
            }
            Event::DepartureKnown
            | Event::Refused
            | Event::WindowOpened { .. }
            | Event::AllWindowsOpened => {}
        }
    }

    /// Answers a stream of a server.
    pub fn answer(&mut self, id: u32, head: &str, body: &[u8], trailers: &str) {
        self.protocol.send_response(id, head.as_bytes(), &mut self.out);
        let mut sent = 0;
        while sent < body.len() {
            let rest = &body[sent..];
            sent += self.protocol.send_data(id, [rest, b"", b""], usize::MAX, &mut self.out);
            self.flush();
            if sent < body.len() && !self.read() {
                return;
            }
        }
        self.protocol.finish(id, trailers.as_bytes(), &mut self.out);
        self.protocol.release(id, ErrorCode::Internal, &mut self.out);
        self.flush();
    }
}

/// An endpoint that speaks HTTP/2: answers each whole request with what `answer` makes of it: head, body, trailers.
pub fn http2_backend(
    answer: impl Fn(&Came) -> (String, Vec<u8>, String) + Send + Sync + 'static,
) -> Backend {
    Backend::start(move |peer| {
        let mut connection = Http2::serve(peer);
        while connection.read() {
            let whole: Vec<u32> =
                connection.streams.iter().filter(|(_, c)| c.ended).map(|(id, _)| *id).collect();
            for id in whole {
                let came = connection.streams.remove(&id).unwrap();
                let (head, body, trailers) = answer(&came);
                connection.answer(id, &head, &body, &trailers);
            }
        }
    })
}

/// A client that writes its frames by hand.
pub struct Raw {
    stream: TcpStream,
}

/// How a server has ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a response that has this first byte of its block, behind changes of the table's size.
    Response(u8),
    Reset(u32),
    GoAway(u32),
    Closed,
}

pub const HEADERS: u8 = 1;
pub const DATA: u8 = 0;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl Raw {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let mut raw = Self { stream };
        raw.write(PREFACE);
        raw.frame(4, 0, 0, b"");
        raw
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.write(&bytes);
    }

    /// HEADERS with fields exactly as they are given, without compression.
    pub fn headers(&mut self, stream: u32, flags: u8, fields: &[(&[u8], &[u8])]) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                assert!(text.len() < 127, "an integer of one byte");
                block.push(text.len() as u8);
                block.extend_from_slice(text);
            }
        }
        self.frame(HEADERS, flags | END_HEADERS, stream, &block);
    }

    /// Waits for the end of a stream.
    pub fn ended(&mut self, stream: u32) -> Ended {
        let mut response = None;
        loop {
            let mut header = [0; 9];
            if self.stream.read_exact(&mut header).is_err() {
                return Ended::Closed;
            }
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).unwrap();
            let of = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match header[3] {
                7 => return Ended::GoAway(number(4)),
                3 if of == stream => return Ended::Reset(number(0)),
                HEADERS if of == stream => {
                    let mut block = &payload[..];
                    if block[0] == 0x3f {
                        block = &block[3..];
                    }
                    response = Some(Ended::Response(block[0]));
                }
                _ => {}
            }
            if of == stream
                && header[3] <= HEADERS
                && header[4] & END_STREAM != 0
                && let Some(ended) = response
            {
                return ended;
            }
        }
    }
}
