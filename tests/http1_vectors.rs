//! The vector table against the codec: every row whole, byte by byte, and split in two everywhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "http/vectors.rs"]
mod vectors;

use pilus::proto::http1::{
    BodyDecoder, ForwardContext, HeadProgress, HeaderSlots, Parsed, PeerAddress, RequestId, Trust,
    parse_request, write_request_head,
};
use std::net::{IpAddr, Ipv4Addr};
use vectors::{Then, VECTORS, Vector, without_generated};

/// Longer rows are split only at every so many bytes.
const EVERY_SPLIT_BYTES: usize = 1024;
const COARSE_STEP: usize = 997;

#[test]
fn every_vector_whole() {
    for vector in VECTORS {
        check(vector, &[vector.bytes.len()], "whole");
    }
}

#[test]
fn every_vector_byte_by_byte() {
    for vector in VECTORS {
        let ends: Vec<usize> = (1..=vector.bytes.len()).collect();
        check(vector, &ends, "byte by byte");
    }
}

#[test]
fn every_vector_split_everywhere() {
    for vector in VECTORS {
        let len = vector.bytes.len();
        let step = if len <= EVERY_SPLIT_BYTES { 1 } else { COARSE_STEP };
        for split in (1..len).step_by(step) {
            check(vector, &[split, len], &format!("split at {split}"));
        }
    }
}

#[test]
fn rows_are_named_once_and_have_a_source() {
    let mut names: Vec<&str> = VECTORS.iter().map(|v| v.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), VECTORS.len());
    assert!(VECTORS.iter().all(|v| !v.source.is_empty()));
}

/// Writes the rows where the fuzz corpora keep them. Run it after changing the table:
/// `cargo test --test http1_vectors -- --ignored`.
#[test]
#[ignore = "writes files"]
fn save_vectors_as_corpus() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/");
    for vector in VECTORS.iter().filter(|v| v.bytes.len() <= EVERY_SPLIT_BYTES) {
        let save = |target: &str, bytes: &[u8]| {
            std::fs::write(format!("{root}{target}/vector_{}", vector.name), bytes).unwrap();
        };
        save("http1_request", vector.bytes);
        let chunked: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
        let start = vector.bytes.windows(chunked.len()).position(|window| window == chunked);
        if let Some(start) = start {
            save("http1_chunked", &vector.bytes[start + chunked.len()..]);
        }
    }
}

#[test]
fn corpus_holds_every_vector() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/http1_request/vector_");
    for vector in VECTORS.iter().filter(|v| v.bytes.len() <= EVERY_SPLIT_BYTES) {
        let saved = std::fs::read(format!("{root}{}", vector.name)).unwrap_or_default();
        assert_eq!(saved, vector.bytes, "{}: see save_vectors_as_corpus", vector.name);
    }
}

fn check(vector: &Vector, ends: &[usize], how: &str) {
    let mut connection = Connection::default();
    let mut fed = 0;
    for end in ends {
        connection.receive(&vector.bytes[fed..*end]);
        fed = *end;
    }
    let show = |requests: &[(Vec<u8>, Vec<u8>)]| -> Vec<String> {
        requests
            .iter()
            .map(|(head, body)| format!("{} | {}", head.escape_ascii(), body.escape_ascii()))
            .collect()
    };
    let expected: Vec<(Vec<u8>, Vec<u8>)> =
        vector.seen.iter().map(|s| (s.head.to_vec(), s.body.to_vec())).collect();
    let name = vector.name;
    assert_eq!(connection.then(), vector.then, "{name}, {how}: end of the connection");
    assert_eq!(show(&connection.seen), show(&expected), "{name}, {how}: what the upstream sees");
}

/// A proxy's client side, reduced to what the codec decides.
#[derive(Default)]
struct Connection {
    buffer: Vec<u8>,
    progress: HeadProgress,
    body: Option<BodyDecoder>,
    keep_alive: bool,
    upgrade: bool,
    over: Option<Then>,
    seen: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Connection {
    fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while self.over.is_none() && self.step() {}
    }

    /// Whether the last call got further.
    fn step(&mut self) -> bool {
        match &mut self.body {
            None => self.step_head(),
            Some(body) if body.is_done() => {
                self.body = None;
                if self.upgrade {
                    self.over = Some(Then::UpgradeAsked);
                } else if !self.keep_alive {
                    self.over = Some(Then::Closed);
                }
                true
            }
            Some(_) if self.buffer.is_empty() => false,
            Some(body) => {
                match body.decode(&self.buffer) {
                    Ok(part) => {
                        let payload = &self.buffer[part.data];
                        self.seen.last_mut().unwrap().1.extend_from_slice(payload);
                        self.buffer.drain(..part.consumed);
                    }
                    Err(error) => self.over = Some(Then::BodyRefused(error.label())),
                }
                true
            }
        }
    }

    fn step_head(&mut self) -> bool {
        if self.buffer.is_empty() {
            return false;
        }
        let mut slots = HeaderSlots::new();
        match parse_request(&self.buffer, &mut slots, &mut self.progress) {
            Ok(Parsed::Partial) => false,
            Ok(Parsed::Complete(head, consumed)) => {
                let peer = PeerAddress::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
                let id = RequestId::from_random([0; 16]);
                let mut out = Vec::new();
                write_request_head(&mut out, &head, &context(&peer, &id));
                self.seen.push((without_generated(&out), Vec::new()));
                self.body = Some(BodyDecoder::new(head.framing));
                self.keep_alive = head.keep_alive;
                self.upgrade = head.upgrade.is_some();
                self.progress.reset();
                self.buffer.drain(..consumed);
                true
            }
            Err(error) => {
                self.over = Some(Then::Refused(error.status(), error.label()));
                false
            }
        }
    }

    fn then(&self) -> Then {
        match self.over {
            Some(then) => then,
            None if self.body.is_none() && self.buffer.is_empty() => Then::Open,
            None => Then::Incomplete,
        }
    }
}

fn context<'a>(peer: &'a PeerAddress, request_id: &'a RequestId) -> ForwardContext<'a> {
    ForwardContext {
        peer,
        proto: "http",
        request_id,
        trust: Trust::Hops(0),
        append_forwarded_for: true,
        fallback_host: "FALLBACK",
        host: None,
        target: None,
        upgrade: true,
    }
}
