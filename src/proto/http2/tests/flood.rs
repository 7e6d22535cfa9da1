//! Peers that only want to cause work.
use super::super::ErrorCode;
use super::super::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};
use super::{GET, POST, Server, raw};

/// How many times `input` is borne.
fn borne(server: &mut Server, mut input: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for i in 0..100_000 {
        let input = input(i);
        if let Some(code) = server.take(&input).1 {
            assert_eq!(code, ErrorCode::EnhanceYourCalm);
            return i;
        }
        server.out.clear();
        server.connection.flushed();
    }
    panic!("without end");
}

#[test]
fn frames_that_carry_nothing_come_to_an_end() {
    for (what, input) in [
        ("SETTINGS", raw(SETTINGS, 0, 0, b"")),
        ("PING", raw(PING, 0, 0, &[0; 8])),
        ("PRIORITY", raw(PRIORITY, 0, 9, &[0; 5])),
        ("WINDOW_UPDATE", raw(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("empty DATA", raw(DATA, 0, 1, b"")),
        ("unknown", raw(99, 0, 0, b"")),
    ] {
        let mut server = Server::new();
        server.headers(1, 0, POST);
        let count = borne(&mut server, |_| input.clone());
        assert!((900..1100).contains(&count), "{what}: {count}");
    }
}

#[test]
fn pings_among_data_do_not() {
    let mut server = Server::new();
    server.headers(1, 0, POST);
    let input = [raw(PING, 0, 0, &[0; 8]), raw(DATA, 0, 1, b"x")].concat();
    for _ in 0..5000 {
        assert_eq!(server.take(&input).1, None);
        server.connection.consumed(1, 1, &mut server.out);
    }
    // And time makes good for them as well.
    let mut server = Server::new();
    for second in 0..50 {
        server.now = second * 1000;
        for _ in 0..100 {
            assert_eq!(server.take(&raw(PING, 0, 0, &[0; 8])).1, None);
        }
    }
}

#[test]
fn streams_broken_off_without_end_end_the_connection() {
    let mut server = Server::new();
    let mut block = server.block(GET);
    let count = borne(&mut server, |i| {
        let stream = 2 * i + 1;
        let open = raw(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        block = b"\x82\x84\x86".to_vec();
        [open, raw(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    });
    // All but the first 128 were refused before they were anything.
    assert!((100..600).contains(&count), "{count}");
}

#[test]
fn streams_that_we_are_made_to_break_off_count_as_well() {
    let mut server = Server::new();
    let count = borne(&mut server, |i| {
        let stream = 2 * i + 1;
        let open = raw(HEADERS, END_HEADERS, stream, b"\x83\x84\x86");
        [open, raw(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
    assert!((100..600).contains(&count), "{count}");
}

#[test]
fn header_blocks_without_end_end_the_connection() {
    let endless = |piece: &[u8]| {
        let mut server = Server::new();
        server.take(&raw(HEADERS, 0, 1, b"\x82"));
        borne(&mut server, |_| raw(CONTINUATION, 0, 1, piece))
    };
    assert_eq!(endless(b""), 16, "by their number");
    assert_eq!(endless(&[0x82; 16_384]), 3, "by their size");
}

#[test]
fn a_block_of_a_million_fields_is_not_kept() {
    let mut server = Server::new();
    let large = raw(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82; 16_000]);
    assert_eq!(server.take(&large).1, Some(ErrorCode::EnhanceYourCalm));
}
