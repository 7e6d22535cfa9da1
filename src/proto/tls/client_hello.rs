//! The ClientHello (RFC 8446 section 4.1.2), read for its server name only (RFC 6066 section 3).
//!
//! ```text
//! record:    type 22 | version 2 | length 2 | fragment
//! handshake: type 1  | length 3  | version 2 | random 32 | session id <1> | cipher suites <2>
//!            | compression methods <1> | extensions <2>
//! extension: type 2 | data <2>;  server_name (0): list <2> of: type 1 (0 = host_name) | name <2>
//! ```
//! `<n>` is a vector with a length of n bytes. The handshake message may be split over records.

/// Longest ClientHello that is looked at. Post-quantum key shares make it 2 KiB.
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// Largest fragment of a record (RFC 8446 section 5.1).
const MAX_FRAGMENT_BYTES: usize = 16 * 1024;
const RECORD_HEADER_BYTES: usize = 5;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Longest DNS name.
const MAX_NAME_BYTES: usize = 255;

/// What the beginning of a connection says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The name the client wants to reach, in lower case, without a final dot.
    pub server_name: Option<String>,
}

/// The verdict on the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peeked {
    /// More is needed.
    Incomplete,
    /// It is all there.
    Complete(ClientHello),
}

/// Why it is not a ClientHello. The client is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientHelloError {
    /// Not a TLS handshake.
    NotTls,
    /// A handshake, but not a well-formed ClientHello.
    Malformed,
    /// Longer than anyone needs.
    TooLong,
    /// The server name is no host name.
    ServerName,
}

/// Reads the ClientHello at the beginning of `stream`. Call again with the same bytes and more after
/// [`Peeked::Incomplete`].
///
/// # Errors
/// What is wrong with it; answer with [`alert`] and close.
pub fn peek_client_hello(stream: &[u8]) -> Result<Peeked, ClientHelloError> {
    let mut message = Vec::new();
    let mut rest = stream;
    loop {
        let Some((fragment, after)) = next_fragment(rest)? else { return Ok(Peeked::Incomplete) };
        // The usual case needs no copy: the whole message is in the first record.
        if message.is_empty()
            && let Some(whole) = whole_message(fragment)?
        {
            return hello(whole).map(Peeked::Complete);
        }
        message.extend_from_slice(fragment);
        if let Some(whole) = whole_message(&message)? {
            return hello(whole).map(Peeked::Complete);
        }
        rest = after;
    }
}

/// A fatal alert in a record of its own, as it is sent before a version has been agreed on.
pub const fn alert(description: u8) -> [u8; 7] {
    [21, 3, 1, 0, 2, 2, description]
}

/// What a record carries, and the bytes after it.
type Fragment<'b> = (&'b [u8], &'b [u8]);

/// The fragment of the next record and what follows it; None if it is not all there.
fn next_fragment(stream: &[u8]) -> Result<Option<Fragment<'_>>, ClientHelloError> {
    match stream {
        [HANDSHAKE_RECORD, 3, _, ..] | [HANDSHAKE_RECORD, 3] | [HANDSHAKE_RECORD] | [] => {}
        _ => return Err(ClientHelloError::NotTls),
    }
    let Some(header) = stream.get(..RECORD_HEADER_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > MAX_FRAGMENT_BYTES {
        return Err(ClientHelloError::Malformed);
    }
    let end = RECORD_HEADER_BYTES + length;
    Ok(stream.get(RECORD_HEADER_BYTES..end).map(|fragment| (fragment, &stream[end..])))
}

/// The body of the handshake message at the beginning of `bytes`; None if it is not all there.
fn whole_message(bytes: &[u8]) -> Result<Option<&[u8]>, ClientHelloError> {
    let [kind, header @ ..] = bytes else { return Ok(None) };
    if *kind != CLIENT_HELLO {
        return Err(ClientHelloError::Malformed);
    }
    let [a, b, c, body @ ..] = header else { return Ok(None) };
    let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    if length > MAX_HELLO_BYTES {
        return Err(ClientHelloError::TooLong);
    }
    Ok(body.get(..length))
}

fn hello(body: &[u8]) -> Result<ClientHello, ClientHelloError> {
    parse(body).ok_or(ClientHelloError::Malformed)?
}

/// None if a length does not fit.
fn parse(body: &[u8]) -> Option<Result<ClientHello, ClientHelloError>> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let mut rest = body.get(VERSION_AND_RANDOM..)?;
    vector8(&mut rest)?;
    vector16(&mut rest)?;
    vector8(&mut rest)?;
    if rest.is_empty() {
        // TLS 1.2 without extensions.
        return Some(Ok(ClientHello::default()));
    }
    let mut extensions = vector16(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.is_empty() {
        let kind = number16(&mut extensions)?;
        let data = vector16(&mut extensions)?;
        // Two of them could be read in two ways.
        if kind == SERVER_NAME && found.replace(data).is_some() {
            return None;
        }
    }
    let Some(mut data) = found else { return Some(Ok(ClientHello::default())) };
    let mut names = vector16(&mut data)?;
    let (kind, after) = names.split_first()?;
    names = after;
    let name = vector16(&mut names)?;
    // Exactly one name, of the only type there is.
    if *kind != HOST_NAME || !names.is_empty() || !data.is_empty() {
        return None;
    }
    Some(host_name(name).map(|name| ClientHello { server_name: Some(name) }))
}

/// A DNS name, in lower case; no address, no port, no NUL.
fn host_name(name: &[u8]) -> Result<String, ClientHelloError> {
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.iter().all(valid);
    let text = std::str::from_utf8(name).map_err(|_| ClientHelloError::ServerName)?;
    let text = text.strip_suffix('.').unwrap_or(text);
    if !fits || text.is_empty() || text.split('.').any(str::is_empty) {
        return Err(ClientHelloError::ServerName);
    }
    Ok(text.to_ascii_lowercase())
}

fn number16(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

fn vector8<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, after) = rest.split_first()?;
    take(rest, after, usize::from(*length))
}

fn vector16<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = number16(rest)?;
    let after = *rest;
    take(rest, after, usize::from(length))
}

fn take<'b>(rest: &mut &'b [u8], after: &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, left) = after.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// Invariants on arbitrary bytes: more bytes never change an answer that was final, and a server name is
/// a lower-case host name.
///
/// # Panics
/// When one is broken.
pub fn fuzz(data: &[u8]) {
    /// Prefixes tried of long inputs.
    const STEPS: usize = 64;
    let whole = peek_client_hello(data);
    for length in (0..data.len()).step_by((data.len() / STEPS).max(1)) {
        match peek_client_hello(&data[..length]) {
            Ok(Peeked::Incomplete) => {}
            decided => assert_eq!(decided, whole, "decided after {length} bytes"),
        }
    }
    if let Ok(Peeked::Complete(hello)) = whole
        && let Some(name) = hello.server_name
    {
        let fits = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
        assert!(!name.is_empty() && name.bytes().all(fits), "{name:?}");
    }
}
