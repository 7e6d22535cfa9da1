//! A byte stream from or to a peer: plain TCP, TLS over it, or a stream of HTTP/2 on either.
use std::io;
use std::task::{Context, Poll};

use super::http2::StreamIo;
use crate::io::buffer::Buffer;
use crate::io::tcp::TcpStream;
use crate::io::tls::TlsStream;
use crate::kernel::Time;

/// Payload up to this size is copied behind its head instead of being sent from where it is: one plain
/// send is cheaper than gathering.
const COPY_BELOW_TCP: usize = 2048;
/// The same for TLS: one record is cheaper than two, and encryption copies anyway.
const COPY_BELOW_TLS: usize = 16 * 1024;

/// A connection.
pub(super) enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// Encrypted; boxed, because the state is large.
    Tls(Box<TlsStream>),
    /// A stream of HTTP/2. `None` stands for one that is not there: it is down.
    Http2(Option<StreamIo>),
}

// === impl Stream ===

impl Stream {
    /// The socket below; a stream of HTTP/2 has none of its own.
    #[inline]
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.tcp()),
            Self::Http2(_) => None,
        }
    }

    /// Whether this is a stream of HTTP/2: what is sent and received is heads and plain bytes, and it has an end
    /// that no framing has to tell.
    #[inline]
    pub(super) const fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// See [`AsyncFd::set_deadline`](crate::io::reactor::AsyncFd::set_deadline).
    #[inline]
    pub(super) fn set_deadline(&self, at: Time) {
        match self {
            Self::Tcp(tcp) => tcp.set_deadline(at),
            Self::Tls(tls) => tls.tcp().set_deadline(at),
            Self::Http2(Some(stream)) => stream.set_deadline(at),
            Self::Http2(None) => {}
        }
    }

    /// See [`AsyncFd::poll_expired`](crate::io::reactor::AsyncFd::poll_expired).
    #[inline]
    pub(super) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(tcp) => tcp.fd().poll_expired(cx),
            Self::Tls(tls) => tls.tcp().fd().poll_expired(cx),
            Self::Http2(Some(stream)) => stream.poll_expired(cx),
            Self::Http2(None) => Poll::Ready(()),
        }
    }

    /// Whether it is broken in both directions.
    #[inline]
    pub(super) fn is_down(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.fd().is_down(),
            Self::Tls(tls) => tls.tcp().fd().is_down(),
            Self::Http2(stream) => stream.as_ref().is_none_or(StreamIo::is_down),
        }
    }

    /// Whether it has ended by an error.
    pub(super) fn has_failed(&self) -> bool {
        self.tcp().map_or_else(|| self.is_down(), |tcp| tcp.fd().has_failed())
    }

    /// Has the task woken when [`Stream::is_down`] may have changed.
    #[inline]
    pub(super) fn watch(&self, cx: &mut Context<'_>) {
        match self {
            Self::Tcp(tcp) => drop(tcp.fd().poll_readable(cx)),
            Self::Tls(tls) => drop(tls.tcp().fd().poll_readable(cx)),
            Self::Http2(Some(stream)) => drop(stream.poll_expired(cx)),
            Self::Http2(None) => {}
        }
    }

    /// Ends a message where that is not a matter of its framing: on a stream of HTTP/2.
    pub(super) fn finish(&mut self, trailers: &[u8]) {
        if let Self::Http2(Some(stream)) = self {
            stream.finish(trailers);
        }
    }

    /// Trailers that came outside of the body's framing, as lines.
    pub(super) fn trailers(&self) -> Vec<u8> {
        match self {
            Self::Http2(Some(stream)) => stream.trailers(),
            _ => Vec::new(),
        }
    }

    /// Whether the peer has said that it did nothing about the request.
    pub(super) fn was_refused(&self) -> bool {
        matches!(self, Self::Http2(Some(stream)) if stream.was_refused())
    }

    /// Receives; 0 is the end of the stream.
    #[inline]
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_recv(cx, buffer),
            Self::Tls(tls) => tls.poll_recv(cx, buffer),
            Self::Http2(Some(stream)) => stream.poll_recv(cx, buffer),
            Self::Http2(None) => Poll::Ready(Ok(0)),
        }
    }

    /// Sends the parts in order; returns how many bytes were taken. What TLS has taken is on its way
    /// only after [`Stream::poll_flush`].
    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_send(cx, parts),
            Self::Tls(tls) => tls.poll_send(cx, parts),
            Self::Http2(Some(stream)) => stream.poll_send(cx, parts),
            Self::Http2(None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Ready when everything taken is handed to the kernel.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Http2(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Up to which size payload should be appended to what is sent before it.
    #[inline]
    pub(super) const fn copy_below(&self) -> usize {
        match self {
            Self::Tcp(_) => COPY_BELOW_TCP,
            Self::Tls(_) => COPY_BELOW_TLS,
            // Frames are copies anyway.
            Self::Http2(_) => 0,
        }
    }

    /// Tells the peer that nothing more will be sent; does not wait.
    pub(super) fn close_write(&mut self, cx: &mut Context<'_>) {
        if let Self::Tls(tls) = self {
            tls.close_notify(cx);
        }
        self.finish(&[]);
        if let Some(tcp) = self.tcp() {
            // An error means that the connection is gone, which is what is wanted.
            let _ = tcp.shutdown_write();
        }
    }

    /// See [`TcpStream::reset_on_close`]; a stream of HTTP/2 that has not ended is reset anyway.
    pub(super) fn reset_on_close(&self) {
        if let Some(tcp) = self.tcp() {
            tcp.reset_on_close();
        }
    }

    /// See [`TcpStream::is_quiet`].
    #[inline]
    pub(super) fn is_quiet(&mut self, ask_kernel: bool) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_quiet(ask_kernel),
            Self::Tls(tls) => tls.is_quiet(ask_kernel),
            Self::Http2(_) => false,
        }
    }

    /// Gives back memory that is not needed while nothing is on its way.
    #[inline]
    pub(super) fn release(&mut self) {
        if let Self::Tls(tls) = self {
            tls.release();
        }
    }
}
