//! The authority a request is for: `host [":" port]` (RFC 9110 section 7.2, RFC 3986 section 3.2).
use super::error::AuthorityFault;
use super::{MAX_HOST_BYTES, RequestError};
use std::net::Ipv6Addr;

/// A validated authority, as the client wrote it.
///
/// The host is letters, digits and `-._~`, or an IPv6 literal in brackets: the sub-delims and
/// percent-encoding RFC 3986 would allow occur in no host name a route can have, and a comma or
/// semicolon there only serves to confuse. No user information, no port 0, no empty port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    text: &'b str,
    host_len: usize,
    port: Option<u16>,
}

impl<'b> Authority<'b> {
    /// Validates `bytes`.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, AuthorityFault> {
        let host_len = match bytes.first() {
            None => return Err(AuthorityFault::Empty),
            Some(b'[') => ipv6_literal_len(bytes)?,
            Some(_) => bytes.iter().position(|b| !is_host_byte(*b)).unwrap_or(bytes.len()),
        };
        let port = match &bytes[host_len..] {
            [] => None,
            _ if bytes.contains(&b'@') => return Err(AuthorityFault::UserInfo),
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return Err(AuthorityFault::HostByte),
        };
        match host_len {
            0 => Err(AuthorityFault::Empty),
            1..=MAX_HOST_BYTES => {
                let text = std::str::from_utf8(bytes).map_err(|_| AuthorityFault::HostByte)?;
                Ok(Self { text, host_len, port })
            }
            _ => Err(AuthorityFault::TooLong),
        }
    }

    /// Host and port as written.
    #[must_use]
    pub fn as_str(&self) -> &'b str {
        self.text
    }

    /// Host without port, as written: case is kept, IPv6 keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &'b str {
        &self.text[..self.host_len]
    }

    /// Port if one was written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host in lower case, in `buf`; the form to look a route up with.
    #[must_use]
    pub fn host_lowercase<'s>(&self, buf: &'s mut [u8; MAX_HOST_BYTES]) -> &'s str {
        let lower = &mut buf[..self.host_len];
        lower.copy_from_slice(self.host().as_bytes());
        lower.make_ascii_lowercase();
        std::str::from_utf8(lower).unwrap_or_default()
    }

    /// Whether both name the same host, case aside.
    #[must_use]
    pub fn host_eq(&self, host: &str) -> bool {
        self.host().eq_ignore_ascii_case(host)
    }

    /// Errs unless `other` is the same place, an absent port meaning `default_port`.
    pub(super) fn must_equal(&self, other: &Self, default_port: u16) -> Result<(), RequestError> {
        let same = self.host_eq(other.host())
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port);
        if same { Ok(()) } else { Err(AuthorityFault::Mismatch.into()) }
    }
}

#[inline]
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

fn ipv6_literal_len(bytes: &[u8]) -> Result<usize, AuthorityFault> {
    let end = bytes.iter().position(|b| *b == b']').ok_or(AuthorityFault::HostByte)?;
    std::str::from_utf8(&bytes[1..end])
        .ok()
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
        .ok_or(AuthorityFault::HostByte)?;
    Ok(end + 1)
}

fn parse_port(digits: &[u8]) -> Result<u16, AuthorityFault> {
    let plain = matches!(digits, [b'1'..=b'9', ..]) && digits.len() <= 5;
    if !plain {
        return Err(AuthorityFault::Port);
    }
    digits
        .iter()
        .try_fold(0u32, |port, b| b.is_ascii_digit().then(|| port * 10 + u32::from(b - b'0')))
        .and_then(|port| u16::try_from(port).ok())
        .ok_or(AuthorityFault::Port)
}
