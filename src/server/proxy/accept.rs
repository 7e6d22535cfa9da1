//! Accepting connections, and finding out what is spoken on them.
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::connection::{self, Connection};
use super::forward;
use super::limits::{ACCEPT_PAUSE, ACCEPTS_PER_TURN, COMPLAINT_PAUSE, HANDSHAKE_TIMEOUT};
use super::shared::Shared;
use super::stats::count;
use super::stream::Stream;
use super::table::Door;
use crate::api::route::ListenerProtocol;
use crate::io::buffer::Buffer;
use crate::io::reactor::{Timer, loop_now};
use crate::io::tcp::{TcpListener, TcpStream};
use crate::io::{clock, event_loop};
use crate::kernel::Time;
use crate::proto::http1::{HeadProgress, PeerAddress};
use crate::proto::proxy_protocol::{self, Parsed};

/// The first byte of every TLS connection: a handshake record (RFC 8446 section 5.1). No request line
/// begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// Accepts connections until dropped.
pub(super) async fn accept(listener: Rc<TcpListener>, shared: Rc<Shared>) {
    let mut in_a_row = 0;
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((stream, peer)) => admit(stream, peer, &shared),
            Err(error) if is_exhausted(&error) => {
                log::warn!("cannot accept connections on {}: {error}", listener.address());
                Timer::at(clock::now() + ACCEPT_PAUSE).await;
            }
            // The client has gone before it was accepted, or the like.
            Err(error) => log::debug!("accepting on {}: {error}", listener.address()),
        }
        in_a_row += 1;
        if in_a_row == ACCEPTS_PER_TURN {
            in_a_row = 0;
            smol::future::yield_now().await;
        }
    }
}

/// Whether the system has run out of something that others give back.
fn is_exhausted(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Rc<Shared>) {
    let Ok(local) = stream.local_addr() else { return };
    let snapshot = shared.current();
    let Some(door) = snapshot.door(local).cloned() else {
        return count(|c| c.connections_unclaimed.add());
    };
    let Some(admission) = shared.admit(stream.wake_handle()) else {
        return count(|c| c.connections_refused.add());
    };
    count(|c| c.connections_accepted.add());
    let connection = Connection {
        client: Stream::Tcp(stream),
        shared: Rc::clone(shared),
        listener: None,
        snapshot,
        local,
        peer: PeerAddress::new(peer.ip()),
        peer_port: peer.port(),
        is_trusted_proxy: shared.is_trusted_proxy(peer.ip()),
        is_tls: false,
        scope: 0,
        server_name: None,
        progress: HeadProgress::default(),
        head_began: false,
        input: Buffer::new(),
        to_client: Buffer::new(),
        to_upstream: Buffer::new(),
        entry: None,
        admission: Some(admission),
    };
    match door {
        Door { http: Some(http), tls: None, whole: None } if !http.accept_proxy_protocol => {
            let connection = Connection { listener: Some(http), ..connection };
            event_loop::spawn_connection(connection::serve(connection)).detach();
        }
        door => event_loop::spawn_connection(begin(connection, door)).detach(),
    }
}

/// Serves a connection of which it is not known from the beginning that it is HTTP.
async fn begin(mut connection: Connection, door: Door) {
    if door.wants_header() && !connection.shared.may_send_proxy_header(connection.peer.ip()) {
        refuse_stranger(&connection);
        return connection.client.reset_on_close();
    }
    if door.wants_header() && !take_header(&mut connection).await {
        count(|c| c.connections_without_header.add());
        return connection.client.reset_on_close();
    }
    match door.whole {
        Some(listener) => match &listener.forward {
            Some(route) => forward::forward(connection, route).await,
            None => connection.client.reset_on_close(),
        },
        None => detect(connection).await,
    }
}

thread_local! {
    /// When a connection of a stranger may be reported again, and how many were not.
    static STRANGERS: Cell<(Time, u64)> = const { Cell::new((Time::ZERO, 0)) };
}

/// A connection that is to begin with the PROXY protocol and does not come from a proxy that is believed.
fn refuse_stranger(connection: &Connection) {
    count(|c| c.connections_untrusted.add());
    let (next, unsaid) = STRANGERS.get();
    let now = loop_now();
    if now < next {
        return STRANGERS.set((next, unsaid + 1));
    }
    STRANGERS.set((now + COMPLAINT_PAUSE, 0));
    let others = if unsaid > 0 { format!(" ({unsaid} more before)") } else { String::new() };
    log::warn!(
        "{} is not among proxy.trusted-proxies: its connection to {}, which takes PROXY protocol, is closed{others}",
        connection.peer.ip(),
        connection.local
    );
}

/// Takes the PROXY protocol header from the beginning of the connection; its client is the client from here on.
async fn take_header(connection: &mut Connection) -> bool {
    connection.client.set_deadline(loop_now() + HANDSHAKE_TIMEOUT);
    loop {
        match proxy_protocol::parse(connection.input.as_slice()) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete(ends, consumed)) => {
                connection.input.consume(consumed);
                // What follows comes from the client that is named. Without a name nobody knows from whom.
                connection.is_trusted_proxy =
                    ends.is_some_and(|it| connection.shared.is_trusted_proxy(it.client.ip()));
                if let Some(ends) = ends {
                    connection.peer = PeerAddress::new(ends.client.ip());
                    connection.peer_port = ends.client.port();
                }
                return true;
            }
            Err(error) => {
                log::debug!("a client of {}: {error}", connection.local);
                return false;
            }
        }
        if !receive(connection).await {
            return false;
        }
    }
}

/// Waits for more; false: none will come, or not in time.
async fn receive(connection: &mut Connection) -> bool {
    let Connection { client, input, .. } = connection;
    let received = poll_fn(|cx| {
        if let Poll::Ready(received) = client.poll_recv(cx, input) {
            return Poll::Ready(received.is_ok_and(|got| got > 0));
        }
        client.poll_expired(cx).map(|()| false)
    });
    received.await
}

/// Serves TLS, or HTTP where the port has both and the client speaks it.
async fn detect(mut connection: Connection) {
    connection.client.set_deadline(loop_now() + HANDSHAKE_TIMEOUT);
    if connection.input.is_empty() && !receive(&mut connection).await {
        return;
    }
    let door = connection.snapshot.door(connection.local).cloned().unwrap_or_default();
    let is_tls = connection.input.as_slice().first() == Some(&TLS_HANDSHAKE) || door.http.is_none();
    let protocol = if is_tls { ListenerProtocol::Tls } else { ListenerProtocol::Http };
    connection.listener = door.get(protocol).map(Arc::clone);
    if is_tls {
        // Large, and over soon: not a part of the connection's state.
        let Some(decrypted) = Box::pin(super::tls::handshake(connection)).await else { return };
        connection = decrypted;
    }
    // A task of its own, so that this one's memory is given back.
    event_loop::spawn_connection(connection::serve(connection)).detach();
}
