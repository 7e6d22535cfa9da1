//! TLS over a socket, either side of it. rustls is driven by hand through its unbuffered interface: it
//! keeps no buffers of its own, so an idle connection holds none.
//!
//! rustls itself refuses a peer that sends more than 32 empty records in a row, so that nobody can make it
//! decrypt without end and get nowhere.
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{ClientConfig, CommonState, ServerConfig};

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
    side: Side,
    records: Records,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What is on its way in either direction.
struct Records {
    incoming: Buffer,
    outgoing: Buffer,
    peer_closed: bool,
    failed: Option<rustls::Error>,
}

/// What both sides' connections have in common, but rustls has written down twice.
trait Connection {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether something waits to be encoded.
    fn has_output(&self) -> bool;
}

/// What is encrypted.
#[derive(Clone, Copy)]
enum Said<'a> {
    Data(&'a [u8]),
    Goodbye,
}

// === impl TlsStream ===

impl TlsStream {
    /// The server's side of a connection on which nothing has happened; `incoming` is what has arrived so far.
    ///
    /// # Errors
    /// rustls', if the configuration is of no use.
    pub fn accept(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        incoming: Buffer,
    ) -> Result<Self, rustls::Error> {
        let side = Side::Server(UnbufferedServerConnection::new(config)?);
        Ok(Self { tcp, side, records: Records::new(incoming) })
    }

    /// The client's side of a new connection to the server of this name; `protocols` are offered (ALPN).
    ///
    /// # Errors
    /// rustls', if the configuration is of no use.
    pub fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Self, rustls::Error> {
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, protocols)?;
        let side = Side::Client(connection);
        Ok(Self { tcp, side, records: Records::new(Buffer::new()) })
    }

    /// What was agreed upon to be spoken within (ALPN, RFC 7301), once the handshake is over.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// The peer's certificates, its own first, once the handshake is over. Whether they were checked, and how, is
    /// the configuration's business.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.common().peer_certificates()
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(connection) => connection,
            Side::Client(connection) => connection,
        }
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
            if !self.common().is_handshaking() {
                ready!(flushed)?;
                self.release();
                return Poll::Ready(Ok(()));
            }
            if ready!(self.tcp.poll_recv(cx, &mut self.records.incoming))? == 0 {
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
            if !self.records.incoming.is_empty() {
                let advanced = self.advance(plaintext);
                // Answers of the protocol itself (alerts, key updates): sent as far as possible now.
                let _ = self.poll_flush(cx)?;
                advanced?;
            }
            if plaintext.len() > before {
                return Poll::Ready(Ok(plaintext.len() - before));
            }
            let Records { incoming, peer_closed, .. } = &mut self.records;
            if *peer_closed || ready!(self.tcp.poll_recv(cx, incoming))? == 0 {
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
                self.say(Said::Data(part))?;
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
        let outgoing = &mut self.records.outgoing;
        while !outgoing.is_empty() {
            let sent = ready!(self.tcp.poll_send(cx, [outgoing.as_slice(), &[], &[]]))?;
            outgoing.consume(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub fn close_notify(&mut self, cx: &mut Context<'_>) {
        if self.records.failed.is_none() {
            let _ = self.say(Said::Goodbye);
        }
        let _ = self.poll_flush(cx);
    }

    /// Gives back buffers in which nothing is.
    #[inline]
    pub fn release(&mut self) {
        self.records.incoming.release();
        self.records.outgoing.release();
    }

    /// See [`TcpStream::is_quiet`]. What the protocol itself sends between two messages, session tickets above all,
    /// is taken in and does not count.
    pub fn is_quiet(&mut self, ask_kernel: bool) -> bool {
        if self.records.peer_closed || !self.records.incoming.is_empty() {
            return false;
        }
        if self.tcp.is_quiet(ask_kernel) {
            return true;
        }
        if self.tcp.fd().is_hung_up() || self.tcp.fd().is_down() {
            return false;
        }
        let mut plaintext = Buffer::new();
        let mut nobody = Context::from_waker(Waker::noop());
        let quiet = self.poll_recv(&mut nobody, &mut plaintext).is_pending();
        quiet && self.records.incoming.is_empty() && self.tcp.is_quiet(false)
    }

    fn say(&mut self, said: Said<'_>) -> io::Result<()> {
        match &mut self.side {
            Side::Server(connection) => self.records.encrypt(connection, said),
            Side::Client(connection) => self.records.encrypt(connection, said),
        }
    }

    /// Takes in what has arrived: plaintext goes to `plaintext`, answers of the protocol to `outgoing`.
    fn advance(&mut self, plaintext: &mut Buffer) -> io::Result<()> {
        match &mut self.side {
            Side::Server(connection) => self.records.advance(connection, plaintext),
            Side::Client(connection) => self.records.advance(connection, plaintext),
        }
    }
}

// === impl Records ===

impl Records {
    const fn new(incoming: Buffer) -> Self {
        Self { incoming, outgoing: Buffer::new(), peer_closed: false, failed: None }
    }

    /// Appends records to `outgoing`.
    fn encrypt<C: Connection>(&mut self, connection: &mut C, said: Said<'_>) -> io::Result<()> {
        if let Said::Data(plaintext) = said {
            let records = plaintext.len().div_ceil(RECORD_PLAINTEXT);
            self.outgoing.reserve(plaintext.len() + records * RECORD_OVERHEAD);
        }
        loop {
            match connection.process(&mut []).state.map_err(refused)? {
                ConnectionState::WriteTraffic(mut write) => {
                    let mut exhausted = false;
                    append(&mut self.outgoing, RECORD_OVERHEAD, |out| {
                        let outcome = match said {
                            Said::Data(plaintext) => write.encrypt(plaintext, out),
                            Said::Goodbye => write.queue_close_notify(out),
                        };
                        match outcome {
                            Ok(written) => Ok(written),
                            Err(EncryptError::InsufficientSize(more)) => Err(more.required_size),
                            Err(EncryptError::EncryptExhausted) => {
                                exhausted = true;
                                Ok(0)
                            }
                        }
                    });
                    if exhausted {
                        return Err(io::Error::other("TLS sequence numbers are used up"));
                    }
                    return Ok(());
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

    /// See [`TlsStream::advance`]. Once that has failed it fails for ever.
    fn advance<C: Connection>(
        &mut self,
        connection: &mut C,
        plaintext: &mut Buffer,
    ) -> io::Result<()> {
        if let Some(error) = &self.failed {
            return Err(refused(error.clone()));
        }
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                connection.process(self.incoming.as_mut_slice());
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
                Err(error) => {
                    self.failed = Some(error);
                    false
                }
            };
            self.incoming.consume(discard);
            match &self.failed {
                // The alert for the peer is waiting to be encoded. Beyond it rustls would look at the same bytes again,
                // which it does not expect.
                Some(_) if connection.has_output() => {}
                Some(error) => return Err(refused(error.clone())),
                None if more => {}
                None => return Ok(()),
            }
        }
    }
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    #[inline]
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn has_output(&self) -> bool {
        self.wants_write()
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    #[inline]
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn has_output(&self) -> bool {
        self.wants_write()
    }
}

fn encode_to<Data>(outgoing: &mut Buffer, encode: &mut EncodeTlsData<'_, Data>) {
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
