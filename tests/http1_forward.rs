//! What the proxy adds to heads (ING-13), its own answers (ING-15), and what a request costs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use pilus::proto::http1::{
    Authority, AuthorityFault, BodyDecoder, BodyEncoder, BodyFraming, ForwardContext, HeadFault,
    HeadProgress, HeaderSlots, LocalReply, MAX_HOST_BYTES, Parsed, PeerAddress, ReplyContext,
    RequestError, RequestHead, RequestId, ResponseContext, ResponseTo, Trust, Version, client_of,
    parse_request, parse_response, reuse, write_local_reply, write_request_head,
    write_response_head,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::IpAddr;

/// Counts allocations of this thread, so that tests running beside each other do not disturb.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "counting allocations needs a global allocator")]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

const REQUEST: &[u8] = b"GET /productpage?u=normal HTTP/1.1\r\nHost: bookinfo.example:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello";
const ID: &str = "00000000-0000-4000-8000-000000000000";
const DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

#[test]
fn a_request_and_its_response_allocate_nothing() {
    let (peer, id) = (peer("203.0.113.7"), RequestId::from_random([0; 16]));
    let (mut up, mut down) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    let before = ALLOCATIONS.get();
    for _ in 0..3 {
        up.clear();
        down.clear();
        exchange(&peer, &id, &mut up, &mut down);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(up.starts_with(b"GET /productpage") && down.ends_with(b"\r\n\r\nhello"));
    drop(Vec::<u8>::with_capacity(1));
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter works");
}

#[test]
fn a_chunked_body_without_trailers_allocates_nothing() {
    let mut out = Vec::with_capacity(4096);
    let before = ALLOCATIONS.get();
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
    let mut rest: &[u8] = b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    while !decoder.is_done() {
        let part = decoder.decode(rest).unwrap();
        encoder.write(&rest[part.data], &mut out).unwrap();
        rest = &rest[part.consumed..];
    }
    encoder.finish(decoder.trailers(), &mut out).unwrap();
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(out, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
}

/// `cargo test --release --test http1_forward -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "this measures time")]
fn measure_an_exchange() {
    const ROUNDS: u32 = 1_000_000;
    let (peer, id) = (peer("203.0.113.7"), RequestId::from_random([0; 16]));
    let (mut up, mut down) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    for name in ["warm up", "request + response"] {
        let start = std::time::Instant::now();
        for _ in 0..ROUNDS {
            up.clear();
            down.clear();
            exchange(std::hint::black_box(&peer), &id, &mut up, &mut down);
        }
        println!("{name}: {} ns", start.elapsed().as_nanos() / u128::from(ROUNDS));
    }
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        up.clear();
        forward(std::hint::black_box(REQUEST), &peer, &id, &mut up);
    }
    println!("request: {} ns", start.elapsed().as_nanos() / u128::from(ROUNDS));
}

#[test]
fn external_clients_get_envoys_headers() {
    let sent = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\
         X-Envoy-External-Address: 9.9.9.9\r\nX-Envoy-Retry-On: 5xx\r\nX-Forwarded-For: 2.2.2.2\r\nX: y\r\n\r\n",
        "203.0.113.7",
        |_| {},
    );
    assert_eq!(
        sent,
        format!(
            "GET / HTTP/1.1\r\nhost: a\r\nX: y\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 203.0.113.7\r\n\
             x-forwarded-proto: http\r\nx-request-id: {ID}\r\nx-envoy-external-address: 203.0.113.7\r\n\r\n"
        )
    );
}

#[test]
fn internal_clients_keep_their_own() {
    for ip in
        ["10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
    {
        let sent = forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nX-Envoy-Retry-On: 5xx\r\n\r\n",
            ip,
            |_| {},
        );
        let ip = ip.trim_start_matches("::ffff:");
        assert_eq!(
            sent,
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {ip}\r\nx-forwarded-proto: http\r\n\
                 x-request-id: mine\r\nX-Envoy-Retry-On: 5xx\r\n\r\n"
            )
        );
    }
}

#[test]
fn other_addresses_are_external() {
    for ip in ["172.32.0.1", "11.0.0.1", "169.254.0.1", "100.64.0.1", "2001:db8::1", "fe80::1"] {
        let sent = forwarded("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ip, |_| {});
        assert!(sent.contains(&format!("\r\nx-envoy-external-address: {ip}\r\n")), "{sent}");
    }
}

#[test]
fn trusted_hops_choose_the_client() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9, 8.8.8.8\r\n\
                   X-Forwarded-For: 2001:db8::7\r\nX-Forwarded-Proto: https\r\n\r\n";
    for (hops, client) in [(1, "2001:db8::7"), (2, "8.8.8.8"), (3, "9.9.9.9"), (4, "203.0.113.7")] {
        let sent = forwarded(request, "203.0.113.7", |ctx| ctx.trust = Trust::Hops(hops));
        assert!(sent.contains(&format!("\r\nx-envoy-external-address: {client}\r\n")), "{sent}");
        assert!(sent.contains("\r\nx-forwarded-proto: https\r\n"), "{sent}");
    }
    with_head(request.as_bytes(), |head| {
        let peer: IpAddr = "203.0.113.7".parse().unwrap();
        assert_eq!(client_of(head, peer, Trust::Hops(0)), peer);
    });
}

#[test]
fn filters_change_host_and_target() {
    let sent = forwarded("GET /a HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n\r\n", "10.0.0.1", |ctx| {
        ctx.host = Some("b");
        ctx.target = Some(["/", "b", "?c"]);
        ctx.append_forwarded_for = false;
        ctx.proto = "https";
    });
    assert_eq!(
        sent,
        format!(
            "GET /b?c HTTP/1.1\r\nhost: b\r\nX-Kept: 1\r\nx-forwarded-proto: https\r\n\
             x-request-id: {ID}\r\n\r\n"
        )
    );
}

#[test]
fn a_missing_date_is_added_and_the_server_is_ours() {
    for (given, date) in [("", DATE), ("Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n", "")] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{given}Server: x\r\nContent-Length: 0\r\n\r\n");
        let mut slots = HeaderSlots::new();
        let parsed = parse_response(
            bytes.as_bytes(),
            ResponseTo::default(),
            &mut slots,
            &mut HeadProgress::default(),
        );
        let Ok(Parsed::Complete(head, _)) = parsed else { panic!("{parsed:?}") };
        let mut out = Vec::new();
        write_response_head(&mut out, &head, &response_context());
        let date = if date.is_empty() { String::new() } else { format!("date: {date}\r\n") };
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("HTTP/1.1 200 OK\r\n{given}{date}content-length: 0\r\nserver: pilus\r\n\r\n")
        );
    }
}

#[test]
fn expectations_and_upgrades_are_reported() {
    let body = "Content-Length: 1\r\n";
    for (version, headers, expected) in [
        ("1.1", format!("Expect: 100-continue\r\n{body}"), true),
        ("1.1", "Expect: 100-continue\r\n".to_owned(), false),
        ("1.0", format!("Expect: 100-continue\r\n{body}"), false),
        ("1.1", body.to_owned(), false),
    ] {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{headers}\r\n");
        with_head(bytes.as_bytes(), |head| assert_eq!(head.expect_continue, expected, "{bytes}"));
    }
}

#[test]
fn local_replies() {
    let ctx = ReplyContext {
        grpc: false,
        head: false,
        client_version: Version::Http11,
        keep_alive: true,
        server: "pilus",
        date: DATE,
    };
    let refused = |error| LocalReply::Refused(error);
    let cases = [
        (LocalReply::NoRoute, "404 Not Found", "", true),
        (LocalReply::NoHealthyUpstream, "503 Service Unavailable", "no healthy upstream", true),
        (LocalReply::UpstreamTimeout, "504 Gateway Timeout", "upstream request timeout", true),
        (LocalReply::BadUpstream, "502 Bad Gateway", "upstream protocol error", true),
        (LocalReply::Internal, "500 Internal Server Error", "", true),
        (LocalReply::RequestTimeout, "408 Request Timeout", "request timeout", false),
        (LocalReply::ContentTooLarge, "413 Content Too Large", "Payload Too Large", false),
        (LocalReply::BadBody, "400 Bad Request", "", false),
        (refused(RequestError::ContentLength), "400 Bad Request", "", false),
        (refused(RequestError::TargetTooLong), "414 URI Too Long", "", false),
        (refused(RequestError::Expectation), "417 Expectation Failed", "", false),
        (refused(HeadFault::TooLarge.into()), "431 Request Header Fields Too Large", "", false),
        (refused(RequestError::TransferCoding), "501 Not Implemented", "", false),
        (refused(RequestError::Version), "505 HTTP Version Not Supported", "", false),
    ];
    for (reply, status, body, persists) in cases {
        for head in [false, true] {
            let mut out = Vec::new();
            let kept = write_local_reply(&mut out, reply, &ReplyContext { head, ..ctx });
            let kind = if body.is_empty() { "" } else { "content-type: text/plain\r\n" };
            let close = if persists { "" } else { "connection: close\r\n" };
            let sent = if head { "" } else { body };
            let expected = format!(
                "HTTP/1.1 {status}\r\n{kind}content-length: {}\r\nserver: pilus\r\ndate: {DATE}\r\n{close}\r\n{sent}",
                body.len()
            );
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert_eq!(kept, persists);
        }
    }
}

#[test]
fn redirects_to_https() {
    let authority = Authority::parse(b"Example.com:80").unwrap();
    for (target, port, location) in [
        ("/a?b", 443, "https://Example.com/a?b"),
        ("/", 8443, "https://Example.com:8443/"),
        ("*", 443, "https://Example.com/"),
    ] {
        let mut out = Vec::new();
        let ctx = ReplyContext {
            grpc: false,
            head: false,
            client_version: Version::Http10,
            keep_alive: true,
            server: "pilus",
            date: DATE,
        };
        let reply = LocalReply::RedirectToHttps { authority, target, port };
        assert!(write_local_reply(&mut out, reply, &ctx));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "HTTP/1.1 301 Moved Permanently\r\nlocation: {location}\r\ncontent-length: 0\r\n\
                 server: pilus\r\ndate: {DATE}\r\nconnection: keep-alive\r\n\r\n"
            )
        );
    }
}

#[test]
fn authorities() {
    let authority = Authority::parse(b"ExAmple.COM:8080").unwrap();
    assert_eq!((authority.host(), authority.port()), ("ExAmple.COM", Some(8080)));
    assert_eq!(authority.host_lowercase(&mut [0; MAX_HOST_BYTES]), "example.com");
    assert!(authority.host_eq("example.com") && !authority.host_eq("example.org"));
    let long = vec![b'a'; MAX_HOST_BYTES + 1];
    assert!(Authority::parse(&long[1..]).is_ok());
    assert_eq!(Authority::parse(&long), Err(AuthorityFault::TooLong));
}

#[test]
fn request_ids_are_uuids() {
    assert_eq!(RequestId::from_random([0; 16]).as_str(), ID);
    assert_eq!(RequestId::from_random([0xff; 16]).as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}

#[test]
fn encoders_send_what_was_announced() {
    let mut out = Vec::new();
    let mut encoder = BodyEncoder::new(BodyFraming::Length(3));
    assert!(encoder.write(b"abcd", &mut out).is_err() && out.is_empty());
    encoder.write(b"ab", &mut out).unwrap();
    assert!(encoder.finish(b"", &mut out).is_err() && !encoder.is_done());
    encoder.write(b"c", &mut out).unwrap();
    encoder.finish(b"", &mut out).unwrap();
    assert!(encoder.is_done() && encoder.write(b"d", &mut out).is_err());
    assert_eq!(out, b"abc");
    assert!(BodyEncoder::new(BodyFraming::None).write(b"x", &mut out).is_err());
    let mut chunked = BodyEncoder::new(BodyFraming::Chunked);
    chunked.write(b"", &mut out).unwrap();
    assert_eq!(out, b"abc", "an empty chunk would end the body");
    chunked.write(&[b'x'; 16], &mut out).unwrap();
    chunked.finish(b"a: b\r\n", &mut out).unwrap();
    assert_eq!(out, b"abc10\r\nxxxxxxxxxxxxxxxx\r\n0\r\na: b\r\n\r\n");
    assert!(chunked.write(b"x", &mut out).is_err());
}

#[test]
fn trailers_are_kept_canonical_and_harmless() {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let body = b"0\r\nX-Sum:1\r\nX-Forwarded-For: 1.1.1.1\r\nSet-Cookie: a\r\nY: \t2 \r\n\r\n";
    for byte in body {
        decoder.decode(std::slice::from_ref(byte)).unwrap();
    }
    assert!(decoder.is_done());
    assert_eq!(decoder.trailers(), b"X-Sum: 1\r\nY: 2\r\n");
}

#[test]
fn connections_are_reused_only_when_both_bodies_ended() {
    use reuse::{ClientExchange, CloseReason, UpstreamExchange};
    let client = ClientExchange {
        keep_alive: true,
        request_body_received: true,
        response_body_sent: true,
        upgraded: false,
    };
    let upstream = UpstreamExchange {
        keep_alive: true,
        request_body_sent: true,
        response_body_received: true,
        bytes_left: 0,
        upgraded: false,
    };
    assert_eq!(client.verdict(), Ok(()));
    assert_eq!(upstream.verdict(), Ok(()));
    let of_client = [
        (ClientExchange { keep_alive: false, ..client }, CloseReason::Announced),
        (
            ClientExchange { request_body_received: false, ..client },
            CloseReason::RequestBodyUnfinished,
        ),
        (
            ClientExchange { response_body_sent: false, ..client },
            CloseReason::ResponseBodyUnfinished,
        ),
        (ClientExchange { upgraded: true, ..client }, CloseReason::Upgraded),
    ];
    for (exchange, reason) in of_client {
        assert_eq!(exchange.verdict(), Err(reason));
    }
    let of_upstream = [
        (UpstreamExchange { keep_alive: false, ..upstream }, CloseReason::Announced),
        (
            UpstreamExchange { request_body_sent: false, ..upstream },
            CloseReason::RequestBodyUnfinished,
        ),
        (
            UpstreamExchange { response_body_received: false, ..upstream },
            CloseReason::ResponseBodyUnfinished,
        ),
        (UpstreamExchange { bytes_left: 1, ..upstream }, CloseReason::UnexpectedBytes),
        (UpstreamExchange { upgraded: true, ..upstream }, CloseReason::Upgraded),
    ];
    for (exchange, reason) in of_upstream {
        assert_eq!(exchange.verdict(), Err(reason));
    }
}

fn peer(ip: &str) -> PeerAddress {
    PeerAddress::new(ip.parse().unwrap())
}

fn request_context<'a>(peer: &'a PeerAddress, request_id: &'a RequestId) -> ForwardContext<'a> {
    ForwardContext {
        peer,
        proto: "http",
        request_id,
        trust: Trust::Hops(0),
        append_forwarded_for: true,
        fallback_host: "fallback",
        host: None,
        target: None,
        upgrade: false,
    }
}

fn response_context() -> ResponseContext<'static> {
    ResponseContext {
        client_version: Version::Http11,
        keep_alive: true,
        server: "pilus",
        date: DATE,
        service_time_ms: None,
    }
}

fn with_head(bytes: &[u8], with: impl FnOnce(&RequestHead<'_, '_>)) {
    let mut slots = HeaderSlots::new();
    match parse_request(bytes, &mut slots, &mut HeadProgress::default()) {
        Ok(Parsed::Complete(head, _)) => with(&head),
        other => panic!("{other:?}"),
    }
}

fn forwarded(request: &str, ip: &str, adjust: impl FnOnce(&mut ForwardContext<'_>)) -> String {
    let (peer, id) = (peer(ip), RequestId::from_random([0; 16]));
    let mut ctx = request_context(&peer, &id);
    adjust(&mut ctx);
    let mut out = Vec::new();
    with_head(request.as_bytes(), |head| write_request_head(&mut out, head, &ctx));
    String::from_utf8(out).unwrap()
}

fn forward(bytes: &[u8], peer: &PeerAddress, id: &RequestId, out: &mut Vec<u8>) {
    with_head(bytes, |head| write_request_head(out, head, &request_context(peer, id)));
}

fn exchange(peer: &PeerAddress, id: &RequestId, up: &mut Vec<u8>, down: &mut Vec<u8>) {
    forward(REQUEST, peer, id, up);
    let mut slots = HeaderSlots::new();
    let mut progress = HeadProgress::default();
    match parse_response(RESPONSE, ResponseTo::default(), &mut slots, &mut progress) {
        Ok(Parsed::Complete(head, consumed)) => {
            let sent = write_response_head(down, &head, &response_context());
            let mut decoder = BodyDecoder::new(head.framing);
            let mut encoder = BodyEncoder::new(sent.framing);
            let part = decoder.decode(&RESPONSE[consumed..]).unwrap();
            encoder.write(&RESPONSE[consumed..][part.data], down).unwrap();
        }
        other => panic!("{other:?}"),
    }
}
