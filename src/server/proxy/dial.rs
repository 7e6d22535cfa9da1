//! Connecting to an endpoint the way its backend wants it: TCP, with the client's address or a PROXY protocol header if
//! that is asked for, then TLS if there are settings for it. There is no falling back: what cannot be had with TLS is
//! not had.
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::stats::count;
use super::stream::Stream;
use super::upstream_tls::client_config;
use crate::api::route::{SendProxyProtocol, UpstreamProtocol, UpstreamSettings, UpstreamTls};
use crate::io::buffer::Buffer;
use crate::io::tcp::TcpStream;
use crate::io::tls::TlsStream;
use crate::proto::proxy_protocol::{self, Ends};

/// How connections to the endpoints of a backend are made. Connections that were made in different ways are never taken
/// for one another.
pub(super) struct Dial {
    /// Different for each of those that exist at a time.
    pub(super) id: u32,
    pub(super) protocol: UpstreamProtocol,
    tls: Option<Arc<UpstreamTls>>,
    security: Security,
    proxy_protocol: Option<SendProxyProtocol>,
    transparent: bool,
}

enum Security {
    Plain,
    Tls(Arc<ClientConfig>, ServerName<'static>),
    /// TLS is asked for, and cannot be had with these settings.
    Unusable(String),
}

/// All ways in use. Each has its TLS configuration, and with it the sessions that can be resumed.
#[derive(Default)]
pub(super) struct Dials {
    list: RefCell<Vec<Rc<Dial>>>,
}

/// What a connection is wanted for.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// For bytes, none of HTTP's versions: none is offered.
    pub(super) raw: bool,
    /// On behalf of which client.
    pub(super) from: Option<Ends>,
}

/// A connection on its way.
pub(super) struct Connecting {
    dial: Rc<Dial>,
    state: State,
    call: Call,
    early: Buffer,
}

enum State {
    Tcp(TcpStream),
    /// A PROXY protocol header on its way.
    Preface(TcpStream, Buffer),
    Tls(Box<TlsStream>),
    Over,
}

// === impl Dials ===

impl Dials {
    pub(super) fn get(&self, settings: &UpstreamSettings) -> Rc<Dial> {
        let mut list = self.list.borrow_mut();
        if let Some(dial) = list.iter().find(|dial| dial.is_for(settings)) {
            return Rc::clone(dial);
        }
        let mut id = 0;
        while list.iter().any(|dial| dial.id == id) {
            id += 1;
        }
        let dial = Rc::new(Dial::new(id, settings));
        list.push(Rc::clone(&dial));
        dial
    }

    /// Forgets what nobody uses any more.
    pub(super) fn sweep(&self) {
        self.list.borrow_mut().retain(|dial| Rc::strong_count(dial) > 1);
    }
}

// === impl Dial ===

impl Dial {
    fn new(id: u32, settings: &UpstreamSettings) -> Self {
        let security = match &settings.tls {
            None => Security::Plain,
            Some(tls) => match secure(tls) {
                Ok((config, name)) => Security::Tls(config, name),
                Err(why) => {
                    log::warn!("no TLS to backends called {}: {why}", tls.server_name);
                    Security::Unusable(why)
                }
            },
        };
        Self {
            id,
            protocol: settings.protocol,
            tls: settings.tls.clone(),
            security,
            proxy_protocol: settings.send_proxy_protocol,
            transparent: settings.transparent,
        }
    }

    fn is_for(&self, settings: &UpstreamSettings) -> bool {
        self.protocol == settings.protocol
            && self.tls == settings.tls
            && self.proxy_protocol == settings.send_proxy_protocol
            && self.transparent == settings.transparent
    }

    /// Whether a connection says who the client is, so that no other client may use it.
    #[inline]
    pub(super) const fn is_personal(&self) -> bool {
        self.transparent || self.proxy_protocol.is_some()
    }

    const fn is_announced(&self, call: Call) -> bool {
        self.proxy_protocol.is_some() && call.from.is_some()
    }

    fn preface(&self, from: Option<Ends>) -> Option<Buffer> {
        let (version, from) = (self.proxy_protocol?, from?);
        let mut header = Buffer::new();
        match version {
            SendProxyProtocol::V1 => proxy_protocol::write_v1(header.vec(), from),
            SendProxyProtocol::V2 => proxy_protocol::write_v2(header.vec(), from),
        }
        Some(header)
    }

    /// Starts to connect.
    ///
    /// # Errors
    /// The kernel's, or that there can be no TLS.
    pub(super) fn connect(self: &Rc<Self>, to: SocketAddr, call: Call) -> io::Result<Connecting> {
        if let Security::Unusable(why) = &self.security {
            count(|c| c.upstream_tls_failures.add());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why.clone()));
        }
        let source = call.from.filter(|_| self.transparent).map(|from| from.client.ip());
        let tcp = TcpStream::connect_from(to, source).inspect_err(|error| {
            if source.is_some() {
                log::warn!(
                    "cannot connect to {to} with the address of a client: {error} \
                     (it takes CAP_NET_ADMIN, and one address family on both sides)"
                );
            }
        })?;
        let state = State::Tcp(tcp);
        Ok(Connecting { dial: Rc::clone(self), state, call, early: Buffer::new() })
    }

    /// The names of what is spoken within TLS (RFC 7301).
    fn alpn(&self, raw: bool) -> Vec<Vec<u8>> {
        match self.protocol {
            _ if raw => Vec::new(),
            UpstreamProtocol::Http1 => vec![b"http/1.1".to_vec()],
            UpstreamProtocol::Http2 => vec![b"h2".to_vec()],
        }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dial({})", self.id)
    }
}

fn secure(tls: &UpstreamTls) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let name = ServerName::try_from(&*tls.server_name)
        .map_err(|_| format!("{:?} is no server name", tls.server_name))?;
    let config = client_config(tls).map_err(|error| error.to_string())?;
    Ok((config, name.to_owned()))
}

// === impl Connecting ===

impl Connecting {
    /// Ready with the connection, and what the endpoint has already said on it; or with the reason why there is none.
    /// The deadline is the caller's.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Buffer)>> {
        loop {
            match &mut self.state {
                State::Tcp(tcp) => ready!(tcp.poll_connected(cx))?,
                State::Preface(tcp, header) => {
                    while !header.is_empty() {
                        let sent = ready!(tcp.poll_send(cx, [header.as_slice(), &[], &[]]))?;
                        header.consume(sent);
                    }
                }
                State::Tls(tls) => match ready!(tls.poll_handshake(cx, &mut self.early)) {
                    Ok(()) => {}
                    Err(error) => {
                        count(|c| c.upstream_tls_failures.add());
                        return Poll::Ready(Err(error));
                    }
                },
                State::Over => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
            let before = std::mem::replace(&mut self.state, State::Over);
            self.state = match (before, &self.dial.security) {
                (State::Tcp(tcp), _) if self.dial.is_announced(self.call) => {
                    let header = self.dial.preface(self.call.from).unwrap_or_default();
                    State::Preface(tcp, header)
                }
                (State::Tcp(tcp) | State::Preface(tcp, _), Security::Tls(config, name)) => {
                    let (config, name) = (Arc::clone(config), name.clone());
                    let tls = TlsStream::connect(tcp, config, name, self.dial.alpn(self.call.raw));
                    State::Tls(Box::new(tls.map_err(io::Error::other)?))
                }
                (State::Tcp(tcp) | State::Preface(tcp, _), Security::Plain) => {
                    return Poll::Ready(Ok((Stream::Tcp(tcp), Buffer::new())));
                }
                (State::Tls(tls), Security::Tls(..)) => return Poll::Ready(self.secured(tls)),
                _ => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            };
        }
    }

    fn secured(&mut self, tls: Box<TlsStream>) -> io::Result<(Stream, Buffer)> {
        let wants_http2 = self.dial.protocol == UpstreamProtocol::Http2 && !self.call.raw;
        if wants_http2 && tls.protocol() != Some(b"h2") {
            count(|c| c.upstream_tls_failures.add());
            return Err(io::Error::other("the endpoint does not speak HTTP/2"));
        }
        count(|c| c.upstream_tls_handshakes.add());
        Ok((Stream::Tls(tls), std::mem::take(&mut self.early)))
    }
}
