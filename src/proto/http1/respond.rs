//! The answers this proxy gives itself. This is the only place that makes them.
//!
//! Texts are those Envoy sends where people match on them (ING-15, ING-11).
use super::error::RequestError;
use super::forward::push_decimal;
use super::{Authority, Version};
use std::io::Write as _;

/// The interim response that lets a client send its body. Only to HTTP/1.1 clients that asked.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What to answer. Reasons that mean the same to a client share a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReply<'a> {
    /// The request head was refused; the connection closes.
    Refused(RequestError),
    /// The request body was broken before a response began; the connection closes.
    BadBody,
    /// 301 to https, same host and target (ING-11). The port is left out if it is 443.
    RedirectToHttps {
        /// Authority of the request.
        authority: Authority<'a>,
        /// Target of the request.
        target: &'a str,
        /// Port https is served on.
        port: u16,
    },
    /// A redirect of a route.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// `http` or `https`.
        scheme: &'a str,
        /// Host without port.
        host: &'a str,
        /// Left out if it is the well-known one of the scheme.
        port: u16,
        /// Path and query, written one after the other.
        target: [&'a str; 3],
    },
    /// 421: the name in the TLS handshake chose another listener than the request's host does.
    Misdirected,
    /// 403 of a policy.
    Forbidden,
    /// No route: 404, empty (ING-15).
    NoRoute,
    /// The client took too long to send its request; the connection closes.
    RequestTimeout,
    /// A body above the limit of a route; the connection closes.
    ContentTooLarge,
    /// Failure in this proxy.
    Internal,
    /// The upstream broke the protocol.
    BadUpstream,
    /// The route has no endpoint (ING-15).
    NoHealthyUpstream,
    /// No endpoint could be connected to, or it closed before it answered.
    ConnectFailure,
    /// Too many requests are waiting.
    Overload,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A status and body of a filter.
    Status(u16, &'a str),
}

/// What a reply needs to know about the exchange.
#[derive(Clone, Copy, Debug)]
pub struct ReplyContext<'a> {
    /// The request was HEAD: the body is announced but not sent.
    pub head: bool,
    /// Version of the client.
    pub client_version: Version,
    /// Whether the client connection could persist: the request was read to its end.
    pub keep_alive: bool,
    /// The request was a call of gRPC: an error is a status of gRPC, in a response that is nothing but trailers.
    pub grpc: bool,
    /// Value of `server`.
    pub server: &'a str,
    /// Value of `date`.
    pub date: &'a str,
}

/// Appends the whole response to `out`; returns whether the connection persists after it.
pub fn write_local_reply(out: &mut Vec<u8>, reply: LocalReply<'_>, ctx: &ReplyContext<'_>) -> bool {
    let (status, body) = reply.status_and_body();
    let keep_alive = ctx.keep_alive && !reply.ends_connection();
    let (grpc_status, grpc_message) = (reply.grpc_status(), body);
    let is_grpc = ctx.grpc && status >= 300;
    let (status, body) = if is_grpc { (200, "") } else { (status, body) };
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    if is_grpc {
        write_grpc_status(out, grpc_status, grpc_message);
    }
    match reply {
        LocalReply::RedirectToHttps { authority, target, port } => {
            write_location(out, "https", authority.host(), port, [target, "", ""]);
        }
        LocalReply::Redirect { scheme, host, port, target, .. } => {
            write_location(out, scheme, host, port, target);
        }
        _ => {}
    }
    if !body.is_empty() {
        out.extend_from_slice(b"\r\ncontent-type: text/plain");
    }
    let may_have_length = status >= 200 && status != 204;
    // On HTTP/2 the frame of the trailers is the end.
    if may_have_length && !(is_grpc && ctx.client_version == Version::Http2) {
        out.extend_from_slice(b"\r\ncontent-length: ");
        push_decimal(out, body.len() as u64);
    }
    out.extend_from_slice(b"\r\nserver: ");
    out.extend_from_slice(ctx.server.as_bytes());
    out.extend_from_slice(b"\r\ndate: ");
    out.extend_from_slice(ctx.date.as_bytes());
    if !keep_alive && ctx.client_version != Version::Http2 {
        out.extend_from_slice(b"\r\nconnection: close");
    } else if ctx.client_version == Version::Http10 {
        out.extend_from_slice(b"\r\nconnection: keep-alive");
    }
    out.extend_from_slice(b"\r\n\r\n");
    if !ctx.head && may_have_length && status != 304 {
        out.extend_from_slice(body.as_bytes());
    }
    keep_alive
}

/// The trailers of a failed call (gRPC's PROTOCOL-HTTP2.md): the message is percent-encoded.
fn write_grpc_status(out: &mut Vec<u8>, status: u8, message: &str) {
    out.extend_from_slice(b"\r\ncontent-type: application/grpc\r\ngrpc-status: ");
    push_decimal(out, u64::from(status));
    out.extend_from_slice(b"\r\ngrpc-message: ");
    for byte in message.trim_end().bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            _ => out.push(byte),
        }
    }
}

fn write_location(out: &mut Vec<u8>, scheme: &str, host: &str, port: u16, target: [&str; 3]) {
    for part in ["\r\nlocation: ", scheme, "://", host] {
        out.extend_from_slice(part.as_bytes());
    }
    if port != if scheme == "https" { 443 } else { 80 } {
        out.push(b':');
        push_decimal(out, u64::from(port));
    }
    // `OPTIONS *` has no path to go to.
    for part in if target[0] == "*" { ["/", "", ""] } else { target } {
        out.extend_from_slice(part.as_bytes());
    }
}

// === impl LocalReply ===

impl<'a> LocalReply<'a> {
    /// Status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status_and_body().0
    }

    /// The status of gRPC that stands for this one (gRPC's http-grpc-status-mapping.md), except that a deadline of
    /// the route is a deadline.
    fn grpc_status(&self) -> u8 {
        const UNKNOWN: u8 = 2;
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        const UNAUTHENTICATED: u8 = 16;
        match (self, self.status()) {
            (Self::UpstreamTimeout, _) => DEADLINE_EXCEEDED,
            (_, 400) => INTERNAL,
            (_, 401) => UNAUTHENTICATED,
            (_, 403) => PERMISSION_DENIED,
            (_, 404) => UNIMPLEMENTED,
            (_, 429 | 502..=504) => UNAVAILABLE,
            _ => UNKNOWN,
        }
    }

    fn status_and_body(&self) -> (u16, &'a str) {
        match *self {
            Self::Refused(error) => (error.status(), ""),
            Self::BadBody => (400, ""),
            Self::RedirectToHttps { .. } => (301, ""),
            Self::Redirect { status, .. } => (status, ""),
            Self::Misdirected => (421, ""),
            Self::Forbidden => (403, "Access denied\r\n"),
            Self::NoRoute => (404, ""),
            Self::RequestTimeout => (408, "request timeout"),
            Self::ContentTooLarge => (413, "Payload Too Large"),
            Self::Internal => (500, ""),
            Self::BadUpstream => (502, "upstream protocol error"),
            Self::NoHealthyUpstream => (503, "no healthy upstream"),
            Self::ConnectFailure => {
                (503, "upstream connect error or disconnect/reset before headers")
            }
            Self::Overload => (503, "upstream overflow"),
            Self::UpstreamTimeout => (504, "upstream request timeout"),
            Self::Status(status, body) => (status, body),
        }
    }

    /// Whether the connection cannot persist because where the next request begins is unknown.
    fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::BadBody | Self::RequestTimeout | Self::ContentTooLarge
        )
    }
}

/// The reason phrase of a status (RFC 9110 section 15), empty if it is not registered.
pub(super) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
