//! Invariants of the codec on arbitrary bytes; called by `tests/fuzz_corpus.rs` and by libFuzzer.
//!
//! - The verdict does not depend on how the bytes were split.
//! - The fast path and the line walker accept the same heads.
//! - What is forwarded is accepted again with the same framing, and forwarding that again changes
//!   nothing: so no two hops of this proxy can disagree.
//! - A body decoded, encoded and decoded again is the same body.
use super::syntax::{Walked, walk_request, walk_response};
use super::{
    BodyDecoder, BodyEncoder, BodyError, BodyFraming, ChunkedDecoder, ForwardContext, HeadProgress,
    HeaderSlots, Parsed, PeerAddress, RequestError, RequestHead, RequestId, ResponseContext,
    ResponseError, ResponseTo, Trust, Version, parse_request, parse_response, write_last_chunk,
    write_request_head, write_response_head,
};
use std::net::{IpAddr, Ipv4Addr};

/// What is compared between two ways of feeding the same bytes.
type Verdict<E> = Result<Option<(usize, BodyFraming)>, E>;

/// A client's connection: a request head and its body.
pub fn request(data: &[u8]) {
    let whole = request_verdict(data, data.len().max(1));
    for step in steps(data) {
        assert_eq!(request_verdict(data, step), whole, "in steps of {step}");
    }
    match (walk_request(&data[..data.len().min(super::MAX_HEAD_BYTES)]), whole) {
        (Ok(Walked::Head(walked)), Ok(Some((parsed, _)))) => assert_eq!(walked, parsed),
        (Ok(Walked::Head(_)), Err(error)) => assert!(!matches!(error, RequestError::Head(_))),
        (Ok(Walked::Unfinished), Ok(None)) => {}
        (Err(walked), Err(parsed)) => assert_eq!(walked, parsed),
        (walked, parsed) => panic!("walker says {walked:?}, parser {parsed:?}"),
    }
    let mut slots = HeaderSlots::new();
    let Ok(Parsed::Complete(head, consumed)) =
        parse_request(data, &mut slots, &mut HeadProgress::default())
    else {
        return;
    };
    for peer in [Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::new(10, 0, 0, 7)] {
        forwarded_twice(&head, &PeerAddress::new(IpAddr::V4(peer)));
    }
    body(head.framing, &data[consumed..]);
}

/// An upstream's connection: a response head and its body, as an answer to every kind of request.
pub fn response(data: &[u8]) {
    for (head, upgrade) in [(false, false), (true, false), (false, true)] {
        response_to(data, ResponseTo { head, upgrade });
    }
}

/// A chunked body.
pub fn chunked(data: &[u8]) {
    body(BodyFraming::Chunked, data);
}

fn steps(data: &[u8]) -> [usize; 3] {
    // One step depends on the data, so that mutation moves the split.
    [1, 7, data.iter().fold(1, |sum: usize, b| sum + usize::from(*b)) % data.len().max(1) + 1]
}

fn prefixes(data: &[u8], step: usize) -> impl Iterator<Item = &[u8]> {
    (0..data.len()).step_by(step).map(move |start| &data[..(start + step).min(data.len())])
}

fn request_verdict(data: &[u8], step: usize) -> Verdict<RequestError> {
    let mut progress = HeadProgress::default();
    for prefix in prefixes(data, step) {
        let mut slots = HeaderSlots::new();
        if let Parsed::Complete(head, consumed) = parse_request(prefix, &mut slots, &mut progress)?
        {
            return Ok(Some((consumed, head.framing)));
        }
    }
    Ok(None)
}

fn response_verdict(data: &[u8], to: ResponseTo, step: usize) -> Verdict<ResponseError> {
    let mut progress = HeadProgress::default();
    for prefix in prefixes(data, step) {
        let mut slots = HeaderSlots::new();
        if let Parsed::Complete(head, consumed) =
            parse_response(prefix, to, &mut slots, &mut progress)?
        {
            return Ok(Some((consumed, head.framing)));
        }
    }
    Ok(None)
}

fn forwarded_twice(head: &RequestHead<'_, '_>, peer: &PeerAddress) {
    let id = RequestId::from_random([7; 16]);
    let ctx = ForwardContext {
        peer,
        proto: "http",
        request_id: &id,
        trust: Trust::Hops(0),
        append_forwarded_for: false,
        fallback_host: "fallback",
        host: None,
        target: None,
        upgrade: true,
    };
    let mut once = Vec::new();
    write_request_head(&mut once, head, &ctx);
    let mut slots = HeaderSlots::new();
    match parse_request(&once, &mut slots, &mut HeadProgress::default()) {
        Ok(Parsed::Complete(again, consumed)) => {
            assert_eq!(consumed, once.len(), "the forwarded head ends early");
            assert_eq!((again.method, again.target), (head.method, head.target));
            assert_eq!(again.framing, head.framing);
            assert_eq!(again.upgrade, head.upgrade);
            let host = |h: &RequestHead<'_, '_>| h.authority.map(|a| a.as_str().to_owned());
            assert_eq!(host(&again), host(head).or_else(|| Some("fallback".to_owned())));
            let mut twice = Vec::new();
            write_request_head(&mut twice, &again, &ctx);
            assert_eq!(text(&twice), text(&once), "forwarding is no fixed point");
        }
        // The proxy's own lines may push a head that was just within the bounds over them.
        Err(RequestError::Head(super::HeadFault::TooLarge | super::HeadFault::TooManyHeaders)) => {}
        other => panic!("forwarded head is not accepted: {other:?}\n{}", text(&once)),
    }
}

fn response_to(data: &[u8], to: ResponseTo) {
    let whole = response_verdict(data, to, data.len().max(1));
    for step in steps(data) {
        assert_eq!(response_verdict(data, to, step), whole, "in steps of {step}");
    }
    match (walk_response(&data[..data.len().min(super::MAX_HEAD_BYTES)]), whole) {
        (Ok(Walked::Head(walked)), Ok(Some((parsed, _)))) => assert_eq!(walked, parsed),
        (Ok(Walked::Head(_)), Err(error)) => assert!(!matches!(error, ResponseError::Head(_))),
        (Ok(Walked::Unfinished), Ok(None)) => {}
        (Err(walked), Err(parsed)) => assert_eq!(walked, parsed),
        (walked, parsed) => panic!("walker says {walked:?}, parser {parsed:?}"),
    }
    let mut slots = HeaderSlots::new();
    let Ok(Parsed::Complete(head, consumed)) =
        parse_response(data, to, &mut slots, &mut HeadProgress::default())
    else {
        return;
    };
    let ctx = ResponseContext {
        client_version: Version::Http11,
        keep_alive: head.keep_alive,
        server: "pilus",
        date: "Thu, 01 Jan 1970 00:00:00 GMT",
        service_time_ms: None,
    };
    let mut once = Vec::new();
    let sent = write_response_head(&mut once, &head, &ctx);
    let mut slots = HeaderSlots::new();
    match parse_response(&once, to, &mut slots, &mut HeadProgress::default()) {
        Ok(Parsed::Complete(again, consumed)) => {
            assert_eq!(consumed, once.len(), "the forwarded head ends early");
            assert_eq!(again.status, head.status);
            assert_eq!(again.framing, sent.framing);
            assert_eq!(again.declared_length, head.declared_length);
            let mut twice = Vec::new();
            write_response_head(&mut twice, &again, &ctx);
            assert_eq!(text(&twice), text(&once), "forwarding is no fixed point");
        }
        Err(ResponseError::Head(super::HeadFault::TooLarge | super::HeadFault::TooManyHeaders)) => {
        }
        other => panic!("forwarded head is not accepted: {other:?}\n{}", text(&once)),
    }
    body(head.framing, &data[consumed..]);
}

/// All that a decoder makes of its input: payload, bytes taken, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    payload: Vec<u8>,
    trailers: Vec<u8>,
    consumed: usize,
    end: Result<bool, BodyError>,
}

fn decode(framing: BodyFraming, data: &[u8], step: usize) -> Decoded {
    let mut decoder = BodyDecoder::new(framing);
    let mut payload = Vec::new();
    let mut consumed = 0;
    let mut end = Ok(false);
    'pieces: for prefix in prefixes(data, step) {
        while consumed < prefix.len() && !decoder.is_done() {
            let input = &prefix[consumed..];
            match decoder.decode(input) {
                Ok(part) => {
                    assert!(part.consumed > 0, "no progress");
                    assert!(part.data.end <= part.consumed && part.consumed <= input.len());
                    assert_eq!(part.done, decoder.is_done());
                    payload.extend_from_slice(&input[part.data]);
                    consumed += part.consumed;
                }
                Err(error) => {
                    assert_eq!(decoder.decode(input), Err(error), "a fault does not last");
                    end = Err(error);
                    break 'pieces;
                }
            }
        }
    }
    let trailers = decoder.trailers().to_vec();
    // Where in a framing line a fault is met may differ by what was consumed before it.
    let consumed = if end.is_err() { 0 } else { consumed };
    Decoded { payload, trailers, consumed, end: end.map(|_| decoder.is_done()) }
}

fn body(framing: BodyFraming, data: &[u8]) {
    let whole = decode(framing, data, data.len().max(1));
    for step in steps(data) {
        assert_eq!(decode(framing, data, step), whole, "in steps of {step}");
    }
    if whole.end != Ok(true) || framing != BodyFraming::Chunked {
        return;
    }
    let mut encoded = Vec::new();
    let mut encoder = BodyEncoder::new(framing);
    for piece in whole.payload.chunks(5) {
        assert_eq!(encoder.write(piece, &mut encoded), Ok(()));
    }
    assert_eq!(encoder.finish(&whole.trailers, &mut encoded), Ok(()));
    let again = decode(framing, &encoded, encoded.len());
    assert_eq!(again.end, Ok(true));
    assert_eq!((again.payload, again.trailers), (whole.payload, whole.trailers.clone()));
    // Canonical trailers are accepted unchanged on their own.
    let mut only = Vec::new();
    write_last_chunk(&mut only, &whole.trailers);
    let mut decoder = ChunkedDecoder::new();
    assert!(decoder.decode(&only).is_ok_and(|part| part.done && part.consumed == only.len()));
    assert_eq!(decoder.trailers(), whole.trailers);
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
