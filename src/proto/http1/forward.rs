//! Writes the heads this proxy sends, in canonical form, in one pass.
//!
//! Header lines that concern only the two ends are copied as they came (runs of them at once where
//! they already are `name: value CRLF`). Lines about the connection, the framing and the client's
//! address are never copied: they are written anew (ING-13; Envoy's `use_remote_address`).
use super::field::{Known, known};
use super::request::Upgrade;
use super::trust::{self, Trust, client_of, walk};
use super::{BodyFraming, Header, RequestHead, RequestId, ResponseHead, Version, offset_in};
use std::io::Write as _;
use std::net::IpAddr;

/// The other end of a client connection; made once per connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress {
    ip: IpAddr,
    text: [u8; 39],
    len: u8,
}

/// What the proxy knows about a request beyond its head.
#[derive(Clone, Copy, Debug)]
pub struct ForwardContext<'a> {
    /// Peer of the client connection (after PROXY protocol, if used).
    pub peer: &'a PeerAddress,
    /// `http` or `https`, as the client connected.
    pub proto: &'static str,
    /// Used unless an internal client brought its own.
    pub request_id: &'a RequestId,
    /// Whose X-Forwarded-For and the like are believed.
    pub trust: Trust<'a>,
    /// Whether the peer is appended to X-Forwarded-For; off on L7 policy listeners (ING-13).
    pub append_forwarded_for: bool,
    /// Host for an HTTP/1.0 request that has none.
    pub fallback_host: &'a str,
    /// Replaces the authority.
    pub host: Option<&'a str>,
    /// Replaces the target; written one after the other.
    pub target: Option<[&'a str; 3]>,
    /// Whether an upgrade the client asks for is passed on.
    pub upgrade: bool,
}

/// What the proxy knows about a response beyond its head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext<'a> {
    /// Version the client speaks.
    pub client_version: Version,
    /// Whether the client connection could persist ([`RequestHead::keep_alive`], its body received,
    /// no shutdown under way).
    pub keep_alive: bool,
    /// Value of `server`, whatever the upstream says.
    pub server: &'a str,
    /// Value of `date` if the upstream sent none.
    pub date: &'a str,
    /// Value of `x-envoy-upstream-service-time`, milliseconds.
    pub service_time_ms: Option<u64>,
}

/// How a response was announced to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentResponse {
    /// Framing to encode the body with.
    pub framing: BodyFraming,
    /// Whether the client connection persists after the body.
    pub keep_alive: bool,
}

/// Appends the head to send upstream to `out`. The body, if any, follows in
/// [`RequestHead::framing`].
pub fn write_request_head(out: &mut Vec<u8>, head: &RequestHead<'_, '_>, ctx: &ForwardContext<'_>) {
    let authority = head.authority.map_or(ctx.fallback_host, |a| a.as_str());
    let [target, more @ ..] = ctx.target.unwrap_or([head.target, "", ""]);
    for part in [head.method, " ", target, more[0], more[1], " HTTP/1.1\r\nhost: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(ctx.host.unwrap_or(authority).as_bytes());
    out.extend_from_slice(b"\r\n");
    let skip = head.special | head.named_by_connection | ctx.trust.hearsay(head.headers);
    copy_lines(out, head.raw, head.headers, skip);
    write_framing(out, head.framing);
    write_request_connection(out, head, ctx);
    write_client_address(out, head, ctx);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head to send to the client to `out` and says how the body must be framed.
///
/// Towards HTTP/1.0 nothing is chunked (the body then ends with the connection) and interim
/// responses are not written at all (RFC 9110 section 15.2).
pub fn write_response_head(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_, '_>,
    ctx: &ResponseContext<'_>,
) -> SentResponse {
    let sent = announced(head, ctx);
    if head.is_interim() && ctx.client_version == Version::Http10 {
        return sent;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(head.status));
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut special = head.special | head.named_by_connection;
    let date = position_of(head.headers, head.special, Known::Date);
    if let Some(i) = date {
        special &= !(1 << i);
    }
    copy_lines(out, head.raw, head.headers, special);
    if head.is_interim() {
        out.extend_from_slice(b"\r\n");
        return sent;
    }
    if date.is_none() {
        push_line(out, "date", ctx.date.as_bytes());
    }
    if head.is_switch() {
        let protocol = head.upgrade.unwrap_or_default();
        push_line(out, "connection", b"upgrade");
        push_line(out, "upgrade", protocol);
    } else {
        match head.declared_length {
            Some(n) => write_framing(out, BodyFraming::Length(n)),
            None => write_framing(out, sent.framing),
        }
        if !sent.keep_alive && ctx.client_version != Version::Http2 {
            push_line(out, "connection", b"close");
        } else if ctx.client_version == Version::Http10 {
            push_line(out, "connection", b"keep-alive");
        }
    }
    if head.framing == BodyFraming::Chunked && sent.framing == BodyFraming::Chunked {
        for value in lines_of(head.headers, head.special, Known::Trailer) {
            push_line(out, "trailer", value);
        }
    }
    push_line(out, "server", ctx.server.as_bytes());
    if let Some(ms) = ctx.service_time_ms {
        out.extend_from_slice(b"x-envoy-upstream-service-time: ");
        push_decimal(out, ms);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    sent
}

// === impl PeerAddress ===

impl PeerAddress {
    /// An IPv4-mapped IPv6 address is taken for the IPv4 address it is.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let mut text = [0; 39];
        let mut rest = &mut text[..];
        // 39 bytes hold every address: the longest text of an IPv6 address that is not IPv4-mapped.
        let written = write!(rest, "{ip}").map(|()| 39 - rest.len()).unwrap_or_default();
        Self { ip, text, len: written as u8 }
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// Whether Envoy would call a client at this address internal: RFC 1918, loopback, and unique local
/// IPv6.
fn is_internal(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

/// Framing and persistence towards the client.
fn announced(head: &ResponseHead<'_, '_>, ctx: &ResponseContext<'_>) -> SentResponse {
    let framing = match head.framing {
        BodyFraming::Chunked | BodyFraming::UntilClose => match ctx.client_version {
            Version::Http11 => BodyFraming::Chunked,
            Version::Http10 | Version::Http2 => BodyFraming::UntilClose,
        },
        framing => framing,
    };
    let keep_alive = ctx.keep_alive && framing != BodyFraming::UntilClose && !head.is_switch();
    SentResponse { framing, keep_alive }
}

/// Appends the header lines whose bit in `skip` is not set.
fn copy_lines(out: &mut Vec<u8>, raw: &[u8], headers: &[Header<'_>], skip: u128) {
    let mut run = 0..0;
    for (i, header) in headers.iter().enumerate() {
        if skip >> i & 1 == 1 {
            continue;
        }
        let start = offset_in(raw, header.name.as_bytes());
        let colon = start + header.name.len();
        let value = offset_in(raw, header.value);
        let end = value + header.value.len();
        let canonical = value == colon + 2 && raw[colon + 1] == b' ' && raw[end] == b'\r';
        if canonical && run.end == start {
            run.end = end + 2;
            continue;
        }
        out.extend_from_slice(&raw[run]);
        run = 0..0;
        if canonical {
            run = start..end + 2;
        } else {
            push_line(out, header.name, header.value);
        }
    }
    out.extend_from_slice(&raw[run]);
}

/// The one framing header.
fn write_framing(out: &mut Vec<u8>, framing: BodyFraming) {
    match framing {
        BodyFraming::None | BodyFraming::UntilClose => {}
        BodyFraming::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            push_decimal(out, n);
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => push_line(out, "transfer-encoding", b"chunked"),
    }
}

/// Upgrade, TE and Trailer: the hop-by-hop fields that have a successor on the next hop.
fn write_request_connection(
    out: &mut Vec<u8>,
    head: &RequestHead<'_, '_>,
    ctx: &ForwardContext<'_>,
) {
    let upgrade = head.upgrade.filter(|_| ctx.upgrade);
    let options: &[u8] = match (upgrade.is_some(), head.te_trailers) {
        (true, true) => b"upgrade, te",
        (true, false) => b"upgrade",
        (false, true) => b"te",
        (false, false) => b"",
    };
    if !options.is_empty() {
        push_line(out, "connection", options);
    }
    if let Some(protocol) = upgrade {
        push_line(out, "upgrade", Upgrade::as_str(&protocol).as_bytes());
    }
    if head.te_trailers {
        push_line(out, "te", b"trailers");
    }
    if head.framing == BodyFraming::Chunked {
        for value in lines_of(head.headers, head.special, Known::Trailer) {
            push_line(out, "trailer", value);
        }
    }
}

/// X-Forwarded-For and -Proto, x-request-id and `x-envoy-…`, as Envoy at the edge does. Whose claims are kept is decided
/// by the peer's address where proxies are trusted by theirs, else by whether the client is internal.
fn write_client_address(out: &mut Vec<u8>, head: &RequestHead<'_, '_>, ctx: &ForwardContext<'_>) {
    let client = client_of(head, ctx.peer.ip(), ctx.trust);
    let internal = is_internal(client);
    let keeps_id = match ctx.trust {
        Trust::Hops(_) => internal,
        Trust::Proxies { peer, .. } => peer,
    };
    let (mut forwarded_for, mut proto, mut request_id) = (false, None, None);
    let mut next_for = |out: &mut Vec<u8>, value: &[u8]| {
        out.extend_from_slice(if forwarded_for { b", " } else { b"x-forwarded-for: " });
        out.extend_from_slice(value);
        forwarded_for = true;
    };
    if let Trust::Proxies { networks, peer: true } = ctx.trust {
        let vouched = walk(trust::forwarded_for(head).rev(), ctx.peer.ip(), networks);
        trust::last_elements(head, vouched.elements).for_each(|element| next_for(out, element));
    }
    for (known, value) in specials(head.headers, head.special) {
        match known {
            Known::XForwardedFor if matches!(ctx.trust, Trust::Hops(_)) && !value.is_empty() => {
                next_for(out, value);
            }
            Known::XForwardedProto if ctx.trust.believes_peer() => {
                proto = proto.or(Some(value)).filter(|p| matches!(*p, b"http" | b"https"));
            }
            Known::XRequestId if keeps_id && !value.is_empty() => {
                request_id = request_id.or(Some(value));
            }
            _ => {}
        }
    }
    if ctx.append_forwarded_for {
        next_for(out, ctx.peer.as_bytes());
    }
    if forwarded_for {
        out.extend_from_slice(b"\r\n");
    }
    push_line(out, "x-forwarded-proto", proto.unwrap_or(ctx.proto.as_bytes()));
    push_line(out, "x-request-id", request_id.unwrap_or(ctx.request_id.as_bytes()));
    if internal {
        for (_, header) in headers_in(head.headers, head.special) {
            let known = known(header.name.as_bytes());
            let kept = matches!(
                known,
                Some(
                    Known::XEnvoy | Known::XEnvoyExternalAddress | Known::XEnvoyUpstreamServiceTime
                )
            );
            if kept && keeps_id {
                push_line(out, header.name, header.value);
            }
        }
    } else if client == ctx.peer.ip() {
        push_line(out, "x-envoy-external-address", ctx.peer.as_bytes());
    } else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "x-envoy-external-address: {client}\r\n");
    }
}

/// Headers whose bit is set, with their position.
fn headers_in<'s, 'b>(
    headers: &'s [Header<'b>],
    mut bits: u128,
) -> impl DoubleEndedIterator<Item = (usize, &'s Header<'b>)> {
    bits &= if headers.len() < 128 { (1 << headers.len()) - 1 } else { u128::MAX };
    BitPositions(bits).map(|i| (i, &headers[i]))
}

/// Special headers with what they are.
fn specials<'s, 'b: 's>(
    headers: &'s [Header<'b>],
    special: u128,
) -> impl DoubleEndedIterator<Item = (Known, &'b [u8])> + 's {
    headers_in(headers, special)
        .filter_map(|(_, h)| known(h.name.as_bytes()).map(|known| (known, h.value)))
}

/// Values of all lines of one special header.
pub(super) fn lines_of<'s, 'b: 's>(
    headers: &'s [Header<'b>],
    special: u128,
    wanted: Known,
) -> impl DoubleEndedIterator<Item = &'b [u8]> + 's {
    specials(headers, special).filter(move |(known, _)| *known == wanted).map(|(_, value)| value)
}

fn position_of(headers: &[Header<'_>], special: u128, wanted: Known) -> Option<usize> {
    headers_in(headers, special)
        .find(|(_, h)| known(h.name.as_bytes()) == Some(wanted))
        .map(|(i, _)| i)
}

fn push_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub(super) fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

/// Positions of the bits that are set, lowest first.
struct BitPositions(u128);

impl Iterator for BitPositions {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (bit < 128).then_some(bit as usize)
    }
}

impl DoubleEndedIterator for BitPositions {
    fn next_back(&mut self) -> Option<usize> {
        let bit = 127u32.checked_sub(self.0.leading_zeros())?;
        self.0 &= !(1 << bit);
        Some(bit as usize)
    }
}
