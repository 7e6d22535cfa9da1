//! Clients and endpoints that mean harm, or that are as bad as luck can have it. Named for the attack.
mod support;

use std::io::Write;

use support::backend::Backend;
use support::client::Client;
use support::{TestProxy, World, free_port};

#[test]
fn upload_that_is_refused_early_still_hears_the_answer_when_it_reads_only_at_its_end() {
    const BODY: usize = 64 << 20;
    let backend = Backend::start(|mut peer| {
        peer.head().unwrap();
        peer.say(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        );
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..BODY / piece.len() {
        client.stream.get_mut().write_all(&piece).unwrap();
    }
    let response = client.response();
    assert_eq!((response.status(), response.text()), (413, "big"));
    client.until_closed();
}

#[test]
fn body_in_the_answer_to_head_is_nobodys_response() {
    let backend = Backend::start(|mut peer| {
        while let Some((head, _)) = peer.request() {
            if head.starts_with(b"HEAD") {
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n");
                // The body comes when the next request may be on its way already.
                std::thread::sleep(std::time::Duration::from_millis(2));
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON");
            } else {
                peer.answer("good");
            }
        }
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.try_response(true).unwrap().status(), 200);
        assert_eq!(client.get("/").text(), "good");
    }
}

#[test]
fn bytes_after_a_response_are_nobodys_response() {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.say(
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood\
                 HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON",
            );
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(proxy.stats().upstream_idle, 0);
}
