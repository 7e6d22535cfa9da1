//! The response table against the codec: every row whole and byte by byte.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "http/responses.rs"]
mod responses;

use pilus::proto::http1::{
    BodyDecoder, BodyError, HeadProgress, HeaderSlots, MAX_INTERIM_RESPONSES, Parsed,
    ResponseContext, ResponseHead, ResponseTo, Version, parse_response, reuse::UpstreamExchange,
    write_response_head,
};
use responses::{Asked, Expect, RESPONSES, ResponseVector};

#[test]
fn every_response_whole() {
    for vector in RESPONSES {
        check(vector, vector.bytes.len().max(1));
    }
}

#[test]
fn every_response_in_pieces() {
    for vector in RESPONSES {
        for step in [1, 2, 3, 5, 8, 13, 21, 34, 55] {
            check(vector, step);
        }
    }
}

#[test]
fn corpus_holds_every_response() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/http1_response/vector_");
    for vector in RESPONSES {
        let saved = std::fs::read(format!("{root}{}", vector.name)).ok();
        assert_eq!(saved.as_deref(), Some(vector.bytes), "{}", vector.name);
    }
}

/// Run it after changing the table: `cargo test --test http1_responses -- --ignored`.
#[test]
#[ignore = "writes files"]
fn save_responses_as_corpus() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/http1_response/vector_");
    for vector in RESPONSES {
        std::fs::write(format!("{root}{}", vector.name), vector.bytes).unwrap();
    }
}

/// What came of a response, in the words of [`Expect`].
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Sent { heads: Vec<String>, body: String, upstream: bool, client: bool },
    BadGateway(&'static str),
    BodyBroken(&'static str),
    Incomplete,
}

fn check(vector: &ResponseVector, step: usize) {
    let expected = match vector.expect {
        Expect::Sent { heads, body, upstream, client } => Outcome::Sent {
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            body: body.to_owned(),
            upstream,
            client,
        },
        Expect::BadGateway(label) => Outcome::BadGateway(label),
        Expect::BodyBroken(label) => Outcome::BodyBroken(label),
        Expect::Incomplete => Outcome::Incomplete,
    };
    assert_eq!(receive(vector, step), expected, "{} in steps of {step}", vector.name);
}

/// A proxy's upstream side, reduced to what the codec decides.
fn receive(vector: &ResponseVector, step: usize) -> Outcome {
    let to =
        ResponseTo { head: vector.asked == Asked::Head, upgrade: vector.asked == Asked::Upgrade };
    let (mut progress, mut start, mut interim) = (HeadProgress::default(), 0, 0);
    let mut heads = Vec::new();
    let mut end = step.min(vector.bytes.len());
    loop {
        let mut slots = HeaderSlots::new();
        match parse_response(&vector.bytes[start..end], to, &mut slots, &mut progress) {
            Ok(Parsed::Partial) if end == vector.bytes.len() => return Outcome::Incomplete,
            Ok(Parsed::Partial) => end = (end + step).min(vector.bytes.len()),
            Err(error) => return Outcome::BadGateway(error.label()),
            Ok(Parsed::Complete(head, consumed)) => {
                let mut out = Vec::new();
                let sent = write_response_head(&mut out, &head, &context(vector.asked));
                if !out.is_empty() {
                    heads.push(without_generated(&out));
                }
                start += consumed;
                progress.reset();
                if !head.is_interim() {
                    let rest = &vector.bytes[start..];
                    return match body(&head, rest, step) {
                        Ok((body, upstream)) => {
                            Outcome::Sent { heads, body, upstream, client: sent.keep_alive }
                        }
                        Err(error) => Outcome::BodyBroken(error.label()),
                    };
                }
                interim += 1;
                if interim > MAX_INTERIM_RESPONSES {
                    return Outcome::BadGateway("too_many_interim");
                }
            }
        }
    }
}

/// Payload, and whether the connection could be used again.
fn body(
    head: &ResponseHead<'_, '_>,
    bytes: &[u8],
    step: usize,
) -> Result<(String, bool), BodyError> {
    let mut decoder = BodyDecoder::new(head.framing);
    let mut payload = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && !decoder.is_done() {
        let piece = &rest[..step.min(rest.len())];
        let part = decoder.decode(piece)?;
        payload.extend_from_slice(&piece[part.data]);
        rest = &rest[part.consumed..];
    }
    decoder.end_of_stream()?;
    let exchange = UpstreamExchange {
        keep_alive: head.keep_alive,
        request_body_sent: true,
        response_body_received: decoder.is_done(),
        bytes_left: rest.len(),
        upgraded: head.is_switch(),
    };
    Ok((String::from_utf8(payload).unwrap(), exchange.verdict().is_ok()))
}

fn context(asked: Asked) -> ResponseContext<'static> {
    ResponseContext {
        client_version: if asked == Asked::Http10 { Version::Http10 } else { Version::Http11 },
        keep_alive: true,
        server: "pilus",
        date: "Thu, 01 Jan 1970 00:00:00 GMT",
        service_time_ms: Some(7),
    }
}

/// A final head must have each generated line exactly once.
fn without_generated(head: &[u8]) -> String {
    let mut text = std::str::from_utf8(head).unwrap().to_owned();
    let generated = [
        "server: pilus\r\n",
        "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        "x-envoy-upstream-service-time: 7\r\n",
    ];
    let interim = text.starts_with("HTTP/1.1 10") && !text.starts_with("HTTP/1.1 101");
    for line in generated {
        assert_eq!(text.matches(line).count(), usize::from(!interim), "{line}{text}");
        text = text.replace(line, "");
    }
    text
}
