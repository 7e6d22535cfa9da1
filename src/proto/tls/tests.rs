use super::{ClientHello, ClientHelloError, Peeked, peek_client_hello};

fn vector(length_bytes: usize, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    [&length[4 - length_bytes..], data].concat()
}

fn server_name_extension(name: &[u8]) -> Vec<u8> {
    let entry = [&[0][..], &vector(2, name)].concat();
    [&[0, 0][..], &vector(2, &vector(2, &entry))].concat()
}

fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector(1, &[9; 32]),
        &vector(2, &[0x13, 1]),
        &vector(1, &[0]),
        &vector(2, extensions),
    ]
    .concat();
    [&[1][..], &vector(3, &body)].concat()
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector(2, fragment)].concat()
}

fn named(name: &str) -> Peeked {
    Peeked::Complete(ClientHello { server_name: Some(name.to_owned()) })
}

#[test]
fn the_server_name_is_found_in_lower_case_after_other_extensions() {
    let extensions = [&[0, 43, 0, 3, 2, 3, 4][..], &server_name_extension(b"WWW.Foo.com")].concat();
    assert_eq!(peek_client_hello(&record(&message(&extensions))), Ok(named("www.foo.com")));
}

#[test]
fn every_prefix_is_incomplete_and_records_may_split_the_message_anywhere() {
    let message = message(&server_name_extension(b"a.example"));
    let whole = record(&message);
    for end in 0..whole.len() {
        assert_eq!(peek_client_hello(&whole[..end]), Ok(Peeked::Incomplete), "first {end} bytes");
    }
    for at in 1..message.len() {
        let split = [record(&message[..at]), record(&message[at..])].concat();
        assert_eq!(peek_client_hello(&split), Ok(named("a.example")), "split at {at}");
    }
}

#[test]
fn a_client_without_a_name_is_told_from_one_with_a_bad_name() {
    assert_eq!(
        peek_client_hello(&record(&message(&[]))),
        Ok(Peeked::Complete(ClientHello::default()))
    );
    for name in [&b""[..], b"a\0b", b"foo.com:443", b"a..b", b".", b"[::1]", &[b'a'; 256]] {
        let hello = record(&message(&server_name_extension(name)));
        assert_eq!(peek_client_hello(&hello), Err(ClientHelloError::ServerName), "{name:?}");
    }
}

#[test]
fn two_names_or_lengths_that_do_not_fit_are_refused() {
    let name = server_name_extension(b"a.b");
    let twice = [name.clone(), name.clone()].concat();
    assert_eq!(peek_client_hello(&record(&message(&twice))), Err(ClientHelloError::Malformed));
    let mut long = name;
    let last = long.len() - 4;
    long[last] += 1;
    assert_eq!(peek_client_hello(&record(&message(&long))), Err(ClientHelloError::Malformed));
}

#[test]
fn what_is_not_tls_is_recognised_at_once_and_sizes_are_bounded() {
    assert_eq!(peek_client_hello(b"G"), Err(ClientHelloError::NotTls));
    assert_eq!(peek_client_hello(&[22, 2]), Err(ClientHelloError::NotTls));
    assert_eq!(peek_client_hello(&[22, 3, 1, 0, 0]), Err(ClientHelloError::Malformed));
    assert_eq!(peek_client_hello(&[22, 3, 1, 0xff, 0xff]), Err(ClientHelloError::Malformed));
    let endless = record(&[1, 0xff, 0xff, 0xff]);
    assert_eq!(peek_client_hello(&endless), Err(ClientHelloError::TooLong));
}
