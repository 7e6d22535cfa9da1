//! The server side of TLS over a socket. rustls is driven by hand through its unbuffered interface: it
//! keeps no buffers of its own, so an idle connection holds none.
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::buffer::Buffer;
use super::tcp::TcpStream;

/// Plaintext that is encrypted ahead of what the socket has taken.
const ENCRYPT_AHEAD: usize = 32 * 1024;
/// Reads without any plaintext in them before other tasks get their turn: records may be empty, and a peer
/// that sends nothing else, as fast as it can, would never be left.
const EMPTY_READS_PER_TURN: usize = 16;
/// Largest plaintext of one record (RFC 8446 section 5.1).
const RECORD_PLAINTEXT: usize = 16 * 1024;
/// What a record adds to its plaintext, at most: header, nonce of TLS 1.2, content type, tag.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;

/// A TLS connection.
pub struct TlsStream {
    tcp: TcpStream,
    connection: UnbufferedServerConnection,
    incoming: Buffer,
    outgoing: Buffer,
    peer_closed: bool,
    failed: Option<rustls::Error>,
}

// === impl TlsStream ===

impl TlsStream {
    /// A connection on which nothing has happened; `incoming` is what has arrived so far.
    ///
    /// # Errors
    /// rustls', if the configuration is of no use.
    pub fn new(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        incoming: Buffer,
    ) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        let outgoing = Buffer::new();
        Ok(Self { tcp, connection, incoming, outgoing, peer_closed: false, failed: None })
    }

    /// The socket.
    #[inline]
    pub const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Ready when application data can flow, or the handshake has failed; then the client has been told
    /// why. Application data that came with the end of the handshake goes to `plaintext`.
    pub fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        plaintext: &mut Buffer,
    ) -> Poll<io::Result<()>> {
        for _ in 0..EMPTY_READS_PER_TURN {
            let advanced = self.advance(plaintext);
            let flushed = self.poll_flush(cx);
            if let Err(error) = advanced {
                return Poll::Ready(Err(error));
            }
            if !self.connection.is_handshaking() {
                ready!(flushed)?;
                self.release();
                return Poll::Ready(Ok(()));
            }
            if ready!(self.tcp.poll_recv(cx, &mut self.incoming))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// See [`super::stream::Stream::poll_recv`]. An end without `close_notify` is an end like any other:
    /// HTTP's framing knows whether something is missing.
    pub fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        plaintext: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        for _ in 0..EMPTY_READS_PER_TURN {
            let before = plaintext.len();
            if !self.incoming.is_empty() {
                let advanced = self.advance(plaintext);
                // Answers of the protocol itself (alerts, key updates): sent as far as possible now.
                let _ = self.poll_flush(cx)?;
                advanced?;
            }
            if plaintext.len() > before {
                return Poll::Ready(Ok(plaintext.len() - before));
            }
            if self.peer_closed || ready!(self.tcp.poll_recv(cx, &mut self.incoming))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// See [`super::stream::Stream::poll_send`].
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let mut taken = 0;
        for part in parts {
            let part = &part[..part.len().min(ENCRYPT_AHEAD - taken)];
            if !part.is_empty() {
                self.encrypt(part)?;
                taken += part.len();
            }
            if taken == ENCRYPT_AHEAD {
                break;
            }
        }
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    /// See [`super::stream::Stream::poll_flush`].
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(self.tcp.poll_send(cx, [self.outgoing.as_slice(), &[], &[]]))?;
            self.outgoing.consume(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub fn close_notify(&mut self, cx: &mut Context<'_>) {
        if self.failed.is_none() {
            let _ = self.with_write_state(|write, out| write.queue_close_notify(out));
        }
        let _ = self.poll_flush(cx);
    }

    /// Gives back buffers in which nothing is.
    #[inline]
    pub fn release(&mut self) {
        self.incoming.release();
        self.outgoing.release();
    }

    fn encrypt(&mut self, plaintext: &[u8]) -> io::Result<()> {
        let records = plaintext.len().div_ceil(RECORD_PLAINTEXT);
        self.outgoing.reserve(plaintext.len() + records * RECORD_OVERHEAD);
        self.with_write_state(|write, out| write.encrypt(plaintext, out))
    }

    /// Runs `step` with room at the end of `outgoing`, enlarged as it asks for.
    fn with_write_state(
        &mut self,
        mut step: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            let status = self.connection.process_tls_records(&mut []);
            match status.state.map_err(refused)? {
                ConnectionState::WriteTraffic(mut write) => {
                    let mut outcome = Ok(0);
                    append(&mut self.outgoing, RECORD_OVERHEAD, |out| {
                        outcome = step(&mut write, out);
                        match outcome {
                            Err(EncryptError::InsufficientSize(ref more)) => {
                                Err(more.required_size)
                            }
                            Ok(written) => Ok(written),
                            Err(EncryptError::EncryptExhausted) => Ok(0),
                        }
                    });
                    return match outcome {
                        Err(EncryptError::EncryptExhausted) => {
                            Err(io::Error::other("TLS sequence numbers are used up"))
                        }
                        _ => Ok(()),
                    };
                }
                ConnectionState::EncodeTlsData(mut encode) => {
                    encode_to(&mut self.outgoing, &mut encode)
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }

    /// Takes in what has arrived: plaintext goes to `plaintext`, answers of the protocol to `outgoing`.
    fn advance(&mut self, plaintext: &mut Buffer) -> io::Result<()> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(self.incoming.as_mut_slice());
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(refused)?;
                        plaintext.extend(record.payload);
                        discard += record.discard;
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                    encode_to(&mut self.outgoing, &mut encode);
                    true
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    true
                }
                Ok(_) => false,
                Err(error) if self.failed.is_none() => {
                    // Once more: the alert for the peer is waiting to be encoded.
                    self.failed = Some(error);
                    true
                }
                Err(error) => {
                    self.incoming.consume(discard.min(self.incoming.len()));
                    return Err(refused(self.failed.clone().unwrap_or(error)));
                }
            };
            self.incoming.consume(discard);
            if !more {
                return match &self.failed {
                    Some(error) => Err(refused(error.clone())),
                    None => Ok(()),
                };
            }
        }
    }
}

fn encode_to(
    outgoing: &mut Buffer,
    encode: &mut rustls::unbuffered::EncodeTlsData<'_, rustls::server::ServerConnectionData>,
) {
    append(outgoing, 0, |out| match encode.encode(out) {
        Ok(written) => Ok(written),
        Err(EncodeError::InsufficientSize(more)) => Err(more.required_size),
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    });
}

/// Lets `write` fill room at the end of `outgoing`; it is called again with the size it asks for.
fn append(
    outgoing: &mut Buffer,
    least: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) {
    let out = outgoing.vec();
    let length = out.len();
    let mut room = (out.capacity() - length).max(least);
    // Zeroing all of a pooled buffer for a small record would cost more than encrypting it.
    let mut first = room.min(2048);
    loop {
        out.resize(length + first, 0);
        match write(&mut out[length..]) {
            Ok(written) => return out.truncate(length + written),
            Err(required) => {
                room = required;
                first = room;
            }
        }
    }
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
