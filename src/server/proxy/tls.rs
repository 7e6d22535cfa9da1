//! TLS on client connections: which certificate, or which backend, by server name.
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

use super::connection::Connection;
use super::forward;
use super::limits::{CLIENT_HELLO_BYTES, HANDSHAKE_TIMEOUT};
use super::stats::count;
use super::stream::Stream;
use super::terminate::offering;
use crate::api::route::{Route, TlsAction, TlsTermination};
use crate::arrange::Arrange;
use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;
use crate::io::tls::TlsStream;
use crate::proto::tls::{ClientHelloError, Peeked, alert, peek_client_hello};

/// Alerts of RFC 8446 section 6.2 and RFC 6066 section 9.
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

/// AES-128 first: nobody breaks it, and it costs less than AES-256, which rustls would prefer.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let aes_128 = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    provider.cipher_suites.arrange_by_key(|suite| !aes_128.contains(&suite.suite()));
    Arc::new(provider)
}

/// Serves the beginning of a TLS connection: returns it decrypted, or None if there is nothing left to
/// do, because it was handed to a backend or refused.
pub(super) async fn handshake(mut connection: Connection) -> Option<Connection> {
    connection.client.set_deadline(loop_now() + HANDSHAKE_TIMEOUT);
    let hello = match peek(&mut connection).await {
        Ok(hello) => hello?,
        Err(description) => return refuse(connection, description).await,
    };
    let listener = Arc::clone(connection.listener.as_ref()?);
    match listener.tls.find(hello.server_name.as_deref()) {
        Some(TlsAction::Terminate(termination)) => {
            connection.scope = termination.scope;
            connection.server_name = hello.server_name.map(Into::into);
            terminate(connection, termination).await
        }
        Some(TlsAction::Passthrough(route)) => {
            connection.server_name = hello.server_name.map(Into::into);
            pass_through(connection, route).await;
            None
        }
        Some(TlsAction::Refuse(_)) => {
            count(|c| c.tls_unknown_names.add());
            refuse(connection, UNRECOGNIZED_NAME).await
        }
        // An alert would say that somebody here speaks TLS. For a name that nobody has there is nobody, and what the suite
        // of Gateway API wants to see for a TLSRoute is a connection that is reset.
        Some(TlsAction::Reset(_)) | None => {
            count(|c| c.tls_unknown_names.add());
            count(|c| c.tls_failures.add());
            connection.client.reset_on_close();
            None
        }
    }
}

/// Waits for the ClientHello. None: the client is gone or too slow; an error is the alert to send.
async fn peek(connection: &mut Connection) -> Result<Option<crate::proto::tls::ClientHello>, u8> {
    loop {
        match peek_client_hello(connection.input.as_slice()) {
            Ok(Peeked::Complete(hello)) => return Ok(Some(hello)),
            Ok(Peeked::Incomplete) if connection.input.len() < CLIENT_HELLO_BYTES => {}
            Ok(Peeked::Incomplete) => return Err(DECODE_ERROR),
            Err(ClientHelloError::ServerName) => return Err(UNRECOGNIZED_NAME),
            Err(_) => return Err(DECODE_ERROR),
        }
        let Connection { client, input, .. } = connection;
        let received = poll_fn(|cx| {
            if let Poll::Ready(received) = client.poll_recv(cx, input) {
                return Poll::Ready(received.is_ok_and(|got| got > 0));
            }
            client.poll_expired(cx).map(|()| false)
        });
        if !received.await {
            count(|c| c.tls_failures.add());
            return Ok(None);
        }
    }
}

async fn refuse(mut connection: Connection, description: u8) -> Option<Connection> {
    count(|c| c.tls_failures.add());
    connection.to_client.extend(&alert(description));
    connection.answered(false).await;
    connection.linger().await;
    None
}

async fn terminate(
    connection: Connection,
    termination: &Arc<TlsTermination>,
) -> Option<Connection> {
    let config = match connection.shared.tls.config(termination) {
        Ok(config) => config,
        Err(error) => {
            log::error!("clients of {} cannot be checked: {error}", connection.local);
            return refuse(connection, INTERNAL_ERROR).await;
        }
    };
    let Connection { client, input, .. } = connection;
    let Stream::Tcp(tcp) = client else { return None };
    let mut stream = TlsStream::accept(tcp, config, input).ok()?;
    let mut early = Buffer::new();
    let finished =
        poll_fn(|cx| match offering(termination, || stream.poll_handshake(cx, &mut early)) {
            Poll::Ready(finished) => Poll::Ready(finished.is_ok()),
            Poll::Pending => stream.tcp().fd().poll_expired(cx).map(|()| false),
        });
    if !finished.await {
        count(|c| c.tls_failures.add());
        return None;
    }
    count(|c| c.tls_handshakes.add());
    let client = Stream::Tls(Box::new(stream));
    let connection = Connection { client, input: early, is_tls: true, ..connection };
    let Some(route) = &termination.forward else { return Some(connection) };
    forward::forward(connection, route).await;
    None
}

/// Hands the connection to a backend as it is.
async fn pass_through(mut connection: Connection, route: &Arc<Route>) {
    if !forward::join(&mut connection, route).await {
        // Nobody is there who could speak TLS.
        count(|c| c.tls_failures.add());
        connection.client.reset_on_close();
    }
}
