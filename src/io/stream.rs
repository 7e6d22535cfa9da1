//! A byte stream from or to a peer: plain TCP, or TLS over it.
use std::io;
use std::task::{Context, Poll};

use super::buffer::Buffer;
use super::tcp::TcpStream;
use super::tls::TlsStream;

/// Payload up to this size is copied behind its head instead of being sent from where it is: one plain
/// send is cheaper than gathering.
const COPY_BELOW_TCP: usize = 2048;
/// The same for TLS: one record is cheaper than two, and encryption copies anyway.
const COPY_BELOW_TLS: usize = 16 * 1024;

/// A connection.
pub enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// Encrypted; boxed, because the state is large.
    Tls(Box<TlsStream>),
}

// === impl Stream ===

impl Stream {
    /// The socket below.
    #[inline]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Receives; 0 is the end of the stream.
    #[inline]
    pub fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_recv(cx, buffer),
            Self::Tls(tls) => tls.poll_recv(cx, buffer),
        }
    }

    /// Sends the parts in order; returns how many bytes were taken. What TLS has taken is on its way
    /// only after [`Stream::poll_flush`].
    #[inline]
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_send(cx, parts),
            Self::Tls(tls) => tls.poll_send(cx, parts),
        }
    }

    /// Ready when everything taken is handed to the kernel.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Up to which size payload should be appended to what is sent before it.
    #[inline]
    pub const fn copy_below(&self) -> usize {
        match self {
            Self::Tcp(_) => COPY_BELOW_TCP,
            Self::Tls(_) => COPY_BELOW_TLS,
        }
    }

    /// Tells the peer that nothing more will be sent; does not wait.
    pub fn close_write(&mut self, cx: &mut Context<'_>) {
        if let Self::Tls(tls) = self {
            tls.close_notify(cx);
        }
        // An error means that the connection is gone, which is what is wanted.
        let _ = self.tcp().shutdown_write();
    }

    /// See [`TcpStream::is_quiet`].
    #[inline]
    pub fn is_quiet(&mut self, ask_kernel: bool) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_quiet(ask_kernel),
            Self::Tls(tls) => tls.is_quiet(ask_kernel),
        }
    }

    /// Gives back memory that is not needed while nothing is on its way.
    #[inline]
    pub fn release(&mut self) {
        if let Self::Tls(tls) = self {
            tls.release();
        }
    }
}
