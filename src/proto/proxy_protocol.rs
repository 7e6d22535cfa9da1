//! The PROXY protocol (haproxy.org/download/3.0/doc/proxy-protocol.txt), versions 1 and 2: what a proxy says about its
//! client before the client's own bytes.
//!
//! ```text
//! v1: "PROXY" SP ("TCP4" | "TCP6") SP source SP destination SP source port SP destination port CRLF
//!     "PROXY UNKNOWN" anything CRLF                                        at most 107 bytes in all
//! v2: 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A | version 2, command | family, transport | length 2 | addresses | TLVs
//! TLV: type 1 | length 2 | value
//! ```
//! Strict (spec row "PROXY"): a line that is too long, a number with a leading zero, a length that the addresses or the
//! TLVs do not fill exactly are refused.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The beginning of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Before the addresses of version 2.
const FIXED_BYTES: usize = 16;
/// Longest header of version 1, with CRLF (section 2.1).
const MAX_V1_BYTES: usize = 107;
/// Longest header of version 2 that is read: the certificate names and ids that others put into TLVs are a few hundred.
const MAX_V2_BYTES: usize = 4096;
/// No header is longer.
pub const MAX_HEADER_BYTES: usize = MAX_V2_BYTES;

/// The client's connection to the proxy that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// What it has connected to.
    pub server: SocketAddr,
}

/// The verdict on the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// More is needed.
    Incomplete,
    /// So many bytes are the header. Without ends it speaks for the connection itself: a health check, or a client whose
    /// address cannot be said.
    Complete(Option<Ends>, usize),
}

/// Why it is not a header. Who sends it is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Neither version begins like this.
    NotProxy,
    /// Longer than its version permits, or than anybody needs.
    TooLong,
    /// The line of version 1 is malformed.
    Line,
    /// A version or command of version 2 that there is not.
    Command,
    /// The length does not hold the addresses, or the TLVs do not end where it says.
    Length,
}

/// Reads the header at the beginning of `bytes`. Call again with the same bytes and more after
/// [`Parsed::Incomplete`].
///
/// # Errors
/// What is wrong with it; close the connection.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Error> {
    let begins = |start: &[u8]| {
        let known = bytes.len().min(start.len());
        bytes[..known] == start[..known]
    };
    if begins(SIGNATURE) {
        parse_v2(bytes)
    } else if begins(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err(Error::NotProxy)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Error> {
    let window = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_V1_BYTES {
            Ok(Parsed::Incomplete)
        } else {
            Err(Error::TooLong)
        };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| Error::Line)?;
    let rest = line.strip_prefix("PROXY ").ok_or(Error::Line)?;
    let consumed = end + 2;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Ok(Parsed::Complete(None, consumed));
    }
    let mut words = rest.split(' ');
    let mut word = || words.next().ok_or(Error::Line);
    let ip: fn(&str) -> Option<IpAddr> = match word()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(Error::Line),
    };
    let [client, server] = [word()?, word()?].map(|text| ip(text).ok_or(Error::Line));
    let [from, to] = [word()?, word()?].map(port);
    let ends =
        Ends { client: SocketAddr::new(client?, from?), server: SocketAddr::new(server?, to?) };
    if words.next().is_some() {
        return Err(Error::Line);
    }
    Ok(Parsed::Complete(Some(ends), consumed))
}

fn port(text: &str) -> Result<u16, Error> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten().ok_or(Error::Line)
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Error> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(Parsed::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Error::Command),
    };
    if FIXED_BYTES + length > MAX_V2_BYTES {
        return Err(Error::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(Parsed::Incomplete) };
    let (ends, tlvs) = match fixed[13] >> 4 {
        1 => {
            let (it, tlvs) = body.split_first_chunk::<12>().ok_or(Error::Length)?;
            let ip = |at: usize| IpAddr::from([it[at], it[at + 1], it[at + 2], it[at + 3]]);
            (Some(ends(ip(0), ip(4), &it[8..])), tlvs)
        }
        2 => {
            let (it, tlvs) = body.split_first_chunk::<36>().ok_or(Error::Length)?;
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&it[at..at + 16]);
                IpAddr::from(octets)
            };
            (Some(ends(ip(0), ip(16), &it[32..])), tlvs)
        }
        // UNIX sockets, and families that there are not yet: the addresses say nothing to us.
        3 => (None, body.get(216..).ok_or(Error::Length)?),
        0 => (None, body),
        _ => return Err(Error::Command),
    };
    check_tlvs(tlvs)?;
    // Only streams have been accepted here.
    let is_stream = fixed[13] & 0x0f == 1;
    let ends = ends.filter(|_| !local && is_stream);
    Ok(Parsed::Complete(ends, FIXED_BYTES + length))
}

fn ends(client: IpAddr, server: IpAddr, ports: &[u8]) -> Ends {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Ends { client: SocketAddr::new(client, port(0)), server: SocketAddr::new(server, port(2)) }
}

fn check_tlvs(mut tlvs: &[u8]) -> Result<(), Error> {
    while let Some(([_, high, low], rest)) = tlvs.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        tlvs = rest.get(length..).ok_or(Error::Length)?;
    }
    if tlvs.is_empty() { Ok(()) } else { Err(Error::Length) }
}

/// Appends a header of version 1. Ends of different families are UNKNOWN.
pub fn write_v1(out: &mut Vec<u8>, ends: Ends) {
    let Ends { client, server } = canonical(ends);
    let (from, to) = (client.port(), server.port());
    let line = match (client.ip(), server.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => format!("PROXY TCP4 {a} {b} {from} {to}\r\n"),
        (IpAddr::V6(a), IpAddr::V6(b)) => format!("PROXY TCP6 {a} {b} {from} {to}\r\n"),
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    out.extend_from_slice(line.as_bytes());
}

/// Appends a header of version 2. Ends of different families are both written as IPv6.
pub fn write_v2(out: &mut Vec<u8>, ends: Ends) {
    let Ends { client, server } = canonical(ends);
    out.extend_from_slice(SIGNATURE);
    out.push(0x21);
    if let (IpAddr::V4(a), IpAddr::V4(b)) = (client.ip(), server.ip()) {
        out.extend_from_slice(&[0x11, 0, 12]);
        out.extend_from_slice(&a.octets());
        out.extend_from_slice(&b.octets());
    } else {
        out.extend_from_slice(&[0x21, 0, 36]);
        for ip in [client.ip(), server.ip()] {
            let ip = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&server.port().to_be_bytes());
}

fn canonical(ends: Ends) -> Ends {
    let plain = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    Ends { client: plain(ends.client), server: plain(ends.server) }
}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProxy => "it does not begin with a PROXY protocol header",
            Self::TooLong => "the PROXY protocol header is too long",
            Self::Line => "the PROXY line is malformed",
            Self::Command => "a PROXY protocol version, command or family that there is not",
            Self::Length => "the length of the PROXY protocol header is wrong",
        })
    }
}

impl std::error::Error for Error {}

/// Invariants on arbitrary bytes: a verdict is the same for every longer input and for none shorter, and what was read
/// can be written and read again.
///
/// # Panics
/// When one is broken.
pub fn fuzz(data: &[u8]) {
    let verdict = parse(data);
    if let Ok(Parsed::Complete(ends, consumed)) = verdict {
        assert!(consumed <= data.len() && consumed <= MAX_HEADER_BYTES);
        assert_eq!(parse(&data[..consumed]), verdict);
        assert_eq!(parse(&data[..consumed - 1]), Ok(Parsed::Incomplete));
        if let Some(ends) = ends {
            let mut out = Vec::new();
            write_v2(&mut out, ends);
            let length = out.len();
            let Ok(Parsed::Complete(Some(again), used)) = parse(&out) else {
                panic!("what was written cannot be read")
            };
            assert_eq!((canonical(again), used), (canonical(ends), length));
        }
    }
    if verdict == Ok(Parsed::Incomplete) {
        assert!(data.len() < MAX_HEADER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Ends {
        Ends { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    /// A header of version 2 with this command, family, and what follows the length.
    fn v2(command: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        for (client, server) in [
            ("192.0.2.1:1", "198.51.100.2:443"),
            ("[2001:db8::1]:65535", "[2001:db8::2]:80"),
            ("[::ffff:192.0.2.1]:5", "198.51.100.2:443"),
        ] {
            let ends = ends(client, server);
            for write in [write_v1, write_v2] {
                let mut out = Vec::new();
                write(&mut out, ends);
                let length = out.len();
                for cut in 0..length {
                    assert_eq!(parse(&out[..cut]), Ok(Parsed::Incomplete), "{cut}");
                }
                out.extend_from_slice(b"GET /");
                assert_eq!(parse(&out), Ok(Parsed::Complete(Some(canonical(ends)), length)));
            }
        }
    }

    #[test]
    fn version_1_is_strict() {
        let good = |text: &str| parse(text.as_bytes());
        assert_eq!(
            good("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"),
            Ok(Parsed::Complete(Some(ends("1.2.3.4:9", "5.6.7.8:10")), 33))
        );
        assert_eq!(good("PROXY UNKNOWN ffff::1 x\r\n"), Ok(Parsed::Complete(None, 25)));
        for bad in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 11\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 \r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 9 10\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 09 10\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +9 10\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
            "PROXY TCP4 01.2.3.4 5.6.7.8 9 10\r\n",
            "PROXY TCP4 ::1 ::2 9 10\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 9 10\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 9 10\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n\r\n",
        ] {
            assert_eq!(good(bad), Err(Error::Line), "{bad:?}");
        }
        assert_eq!(good("PROXX"), Err(Error::NotProxy));
        assert_eq!(good("GET / HTTP/1.1\r\n"), Err(Error::NotProxy));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(good(&long), Ok(Parsed::Complete(None, MAX_V1_BYTES)));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(good(&longer), Err(Error::TooLong));
    }

    #[test]
    fn version_2_is_as_long_as_it_says() {
        let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10];
        let with = |tlvs: &[u8]| {
            let body = [&v4[..], tlvs].concat();
            parse(&v2(0x21, 0x11, body.len() as u16, &body))
        };
        let read = |length| Ok(Parsed::Complete(Some(ends("1.2.3.4:9", "5.6.7.8:10")), length));
        assert_eq!(with(&[]), read(28));
        assert_eq!(with(&[4, 0, 1, 7, 4, 0, 0]), read(35));
        assert_eq!(with(&[4, 0, 2, 7]), Err(Error::Length), "a TLV beyond the end");
        assert_eq!(with(&[4, 0]), Err(Error::Length), "half a TLV");
        assert_eq!(parse(&v2(0x21, 0x11, 11, &v4)), Err(Error::Length), "half an address");
        assert_eq!(parse(&v2(0x21, 0x21, 12, &v4)), Err(Error::Length));
        assert_eq!(parse(&v2(0x21, 0x11, 5000, &v4)), Err(Error::TooLong));
        assert_eq!(parse(&v2(0x21, 0x12, 12, &v4)), Ok(Parsed::Complete(None, 28)), "UDP");
        assert_eq!(parse(&v2(0x20, 0x11, 12, &v4)), Ok(Parsed::Complete(None, 28)), "LOCAL");
        assert_eq!(parse(&v2(0x20, 0, 0, &[])), Ok(Parsed::Complete(None, 16)));
        assert_eq!(parse(&v2(0x31, 0x11, 12, &v4)), Err(Error::Command));
        assert_eq!(parse(&v2(0x22, 0x11, 12, &v4)), Err(Error::Command));
        assert_eq!(parse(&v2(0x21, 0x51, 12, &v4)), Err(Error::Command));
    }
}
