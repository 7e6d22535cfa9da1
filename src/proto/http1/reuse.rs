//! Whether a connection may carry another exchange. Every reason why not has a name.
//!
//! This is where desynchronisation is prevented after the parsers: a connection whose last body
//! was not seen to its end is never used again (CVE-2025-4366, CVE-2026-33555).

/// Why a connection is closed after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer, or this proxy towards it, said `Connection: close`, or HTTP/1.0 did not say
    /// `keep-alive`, or the body ended with the connection.
    Announced,
    /// The request body was not taken in (client side) or not sent (upstream side) to its end.
    RequestBodyUnfinished,
    /// The response body was not received or not sent to its end.
    ResponseBodyUnfinished,
    /// The upstream sent bytes nobody asked for.
    UnexpectedBytes,
    /// The connection became a tunnel.
    Upgraded,
}

/// The client side of an exchange that is over.
#[derive(Clone, Copy, Debug)]
pub struct ClientExchange {
    /// What the response head announced ([`SentResponse`](super::SentResponse) or
    /// [`write_local_reply`](super::write_local_reply)).
    pub keep_alive: bool,
    /// Whether the request body decoder is done.
    pub request_body_received: bool,
    /// Whether the response body encoder is done.
    pub response_body_sent: bool,
    /// Whether 101 was passed on.
    pub upgraded: bool,
}

/// The upstream side of an exchange that is over.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamExchange {
    /// [`ResponseHead::keep_alive`](super::ResponseHead::keep_alive) of the final response.
    pub keep_alive: bool,
    /// Whether the request body encoder is done. An early response does not change this.
    pub request_body_sent: bool,
    /// Whether the response body decoder is done.
    pub response_body_received: bool,
    /// Bytes received after the end of the response.
    pub bytes_left: usize,
    /// Whether the upstream answered 101.
    pub upgraded: bool,
}

impl ClientExchange {
    /// `Ok` if the next request may be read from this connection.
    pub fn verdict(&self) -> Result<(), CloseReason> {
        first(&[
            (self.upgraded, CloseReason::Upgraded),
            (!self.response_body_sent, CloseReason::ResponseBodyUnfinished),
            (!self.request_body_received, CloseReason::RequestBodyUnfinished),
            (!self.keep_alive, CloseReason::Announced),
        ])
    }
}

impl UpstreamExchange {
    /// `Ok` if the connection may go back to the pool.
    pub fn verdict(&self) -> Result<(), CloseReason> {
        first(&[
            (self.upgraded, CloseReason::Upgraded),
            (!self.response_body_received, CloseReason::ResponseBodyUnfinished),
            (!self.request_body_sent, CloseReason::RequestBodyUnfinished),
            (self.bytes_left > 0, CloseReason::UnexpectedBytes),
            (!self.keep_alive, CloseReason::Announced),
        ])
    }
}

fn first(reasons: &[(bool, CloseReason)]) -> Result<(), CloseReason> {
    reasons.iter().find(|(applies, _)| *applies).map_or(Ok(()), |(_, reason)| Err(*reason))
}
