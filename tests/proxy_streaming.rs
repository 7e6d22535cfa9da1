//! Bodies of any size pass through with the memory of a few buffers; what the endpoint says early arrives early.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{Read, Write};

use pilus::io::buffer;
use support::backend::Backend;
use support::client::Client;
use support::{TestProxy, World, free_port};

const GIB: u64 = 1 << 30;
const PIECE: usize = 256 * 1024;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_gibibyte_up_and_down_needs_a_few_buffers() {
    let backend = Backend::start(|mut peer| {
        peer.head().unwrap();
        let mut piece = vec![0; PIECE];
        let mut left = GIB;
        while left > 0 {
            let got = peer.stream.read(&mut piece).unwrap();
            assert!(got > 0, "{left} bytes did not come");
            left -= got as u64;
        }
        peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"));
        for _ in 0..GIB / PIECE as u64 {
            peer.stream.get_mut().write_all(&piece).unwrap();
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n"));
    let before = resident();
    let (mut most_lent, mut most_resident) = (0, 0);
    let mut look = |at: u64| {
        if at.is_multiple_of(128) {
            most_lent = most_lent.max(proxy.ask(buffer::lent));
            most_resident = most_resident.max(resident());
        }
    };
    let piece = vec![7; PIECE];
    for at in 0..GIB / PIECE as u64 {
        client.send(&piece);
        look(at);
    }
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let mut piece = vec![0; PIECE];
    for at in 0..GIB / PIECE as u64 {
        client.stream.read_exact(&mut piece).unwrap();
        look(at);
    }
    assert!(most_lent <= 8, "{most_lent} buffers of 32 KiB");
    assert!(most_resident < before + (16 << 20), "{before} grew to {most_resident}");
}

#[test]
fn interim_responses_and_early_answers_pass_while_the_body_is_still_sent() {
    let backend = Backend::start(|mut peer| {
        peer.head().unwrap();
        peer.say("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n");
        let mut first = [0; 5];
        peer.stream.read_exact(&mut first).unwrap();
        peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n");
        peer.stream.get_mut().write_all(&first).unwrap();
        peer.say("\r\n");
        let mut second = [0; 5];
        peer.stream.read_exact(&mut second).unwrap();
        peer.say("5\r\n");
        peer.stream.get_mut().write_all(&second).unwrap();
        peer.say("\r\n0\r\n\r\n");
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    assert!(client.head().unwrap().contains("103 Early Hints\r\nlink: </a>; rel=preload\r\n"));
    client.send("first");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    let mut chunk = [0; 10];
    client.stream.read_exact(&mut chunk).unwrap();
    assert_eq!(&chunk, b"5\r\nfirst\r\n", "half of the answer to half of the request");
    client.send("secon");
    let mut rest = [0; 15];
    client.stream.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"5\r\nsecon\r\n0\r\n\r\n");
}
