//! TLS on client connections: which certificate, or which backend, by server name.
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};

use super::connection::Connection;
use super::exchange;
use super::limits::{CLIENT_HELLO_BYTES, HANDSHAKE_TIMEOUT};
use super::stats::count;
use super::stream::Stream;
use super::tunnel;
use crate::api::route::{Listener, Route, TlsAction};
use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;
use crate::io::tls::TlsStream;
use crate::proto::tls::{ClientHelloError, Peeked, alert, peek_client_hello};

/// Alerts of RFC 8446 section 6.2 and RFC 6066 section 9.
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

thread_local! {
    /// The listener whose connection is being handshaken with at this moment. rustls wants a resolver
    /// that may be shared between threads; the tables are not.
    static OFFERING: RefCell<Option<Rc<Listener>>> = const { RefCell::new(None) };
}

/// Finds the certificate in the table of the listener that is [`OFFERING`].
#[derive(Debug)]
struct CurrentTable;

/// The one configuration of all TLS connections: TLS 1.2 and 1.3, HTTP/1.1, resumption by tickets.
///
/// # Errors
/// rustls', if the system has no randomness.
pub(super) fn server_config() -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(CurrentTable));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// AES-128 first: nobody breaks it, and it costs less than AES-256, which rustls would prefer.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let aes_128 = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    provider.cipher_suites.sort_by_key(|suite| !aes_128.contains(&suite.suite()));
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
    let listener = Rc::clone(connection.listener.as_ref()?);
    match listener.tls.find(hello.server_name.as_deref()) {
        Some(TlsAction::Terminate(termination)) => {
            connection.scope = termination.scope;
            connection.server_name = hello.server_name.map(Into::into);
            terminate(connection, listener).await
        }
        Some(TlsAction::Passthrough(route)) => {
            pass_through(connection, route).await;
            None
        }
        Some(TlsAction::Refuse(_)) | None => {
            count(|c| c.tls_unknown_names.add());
            refuse(connection, UNRECOGNIZED_NAME).await
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

async fn terminate(connection: Connection, listener: Rc<Listener>) -> Option<Connection> {
    let Connection { client, input, .. } = connection;
    let Stream::Tcp(tcp) = client else { return None };
    let Ok(mut stream) = TlsStream::accept(tcp, Arc::clone(&connection.shared.tls), input) else {
        return None;
    };
    let mut early = Buffer::new();
    let finished = poll_fn(|cx| {
        // Also cleared when rustls panics: by the next handshake that sets it.
        OFFERING.set(Some(Rc::clone(&listener)));
        let polled = stream.poll_handshake(cx, &mut early);
        OFFERING.set(None);
        match polled {
            Poll::Ready(finished) => Poll::Ready(finished.is_ok()),
            Poll::Pending => stream.tcp().fd().poll_expired(cx).map(|()| false),
        }
    });
    if !finished.await {
        count(|c| c.tls_failures.add());
        return None;
    }
    count(|c| c.tls_handshakes.add());
    let client = Stream::Tls(Box::new(stream));
    Some(Connection { client, input: early, is_tls: true, ..connection })
}

async fn pass_through(mut connection: Connection, route: &Rc<Route>) {
    let plan = connection.snapshot.plan(route);
    let upstream = match plan.next().and_then(|backend| plan.cluster(backend)) {
        Some(cluster) => exchange::connect_any(&connection, cluster).await,
        None => None,
    };
    let Some((mut upstream, _lease)) = upstream else {
        // There is no better word for "the backend is not there" before a handshake.
        refuse(connection, INTERNAL_ERROR).await;
        return;
    };
    tunnel::run(
        tunnel::End {
            stream: &mut connection.client,
            input: &mut connection.input,
            pending: &mut connection.to_client,
        },
        tunnel::End {
            stream: &mut upstream.stream,
            input: &mut upstream.input,
            pending: &mut connection.to_upstream,
        },
    )
    .await;
}

// === impl CurrentTable ===

impl ResolvesServerCert for CurrentTable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        OFFERING.with_borrow(|listener| match listener.as_ref()?.tls.find(name.as_deref())? {
            TlsAction::Terminate(termination) => {
                termination.certificates.first().map(|certificate| Arc::clone(&certificate.key))
            }
            TlsAction::Passthrough(_) | TlsAction::Refuse(_) => None,
        })
    }
}
