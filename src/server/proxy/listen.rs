//! The listening sockets, by mode, and what is wrong with them.
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::Task;

use super::accept::accept;
use super::limits::{FIRST_BIND_PAUSE, LONGEST_BIND_PAUSE};
use super::shared::Shared;
use super::udp;
use crate::api::datapath::{Socket, Sockets, Transport};
use crate::io::event_loop;
use crate::io::tcp::TcpListener;
use crate::io::udp::UdpSocket;
use crate::kernel::Time;

/// A socket that accepts until dropped.
struct Acceptor {
    /// The same socket, for the hooks.
    socket: Socket,
    _task: Task<()>,
}

/// The two listeners that steered connections are handed to.
#[derive(Default)]
pub(super) struct Steered {
    v4: Option<Acceptor>,
    v6: Option<Acceptor>,
}

/// Sockets at addresses of their own.
#[derive(Default)]
pub(super) struct Ports {
    open: BTreeMap<Place, Opened>,
    failed: BTreeMap<Place, Failed>,
}

type Place = (Transport, SocketAddr);

/// What keeps a socket open.
enum Opened {
    Tcp(#[expect(dead_code, reason = "it is there to be dropped")] Acceptor),
    Udp(#[expect(dead_code, reason = "it is there to be dropped")] Task<()>),
}

/// A port that could not be had, and when it is tried again.
struct Failed {
    message: String,
    pause: Duration,
    retry: Time,
}

// === impl Acceptor ===

impl Acceptor {
    fn open(address: SocketAddr, shared: &Rc<Shared>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let socket = Socket(Arc::new(listener.duplicate()?));
        let task = event_loop::spawn_connection(accept(Rc::new(listener), Rc::clone(shared)));
        Ok(Self { socket, _task: task })
    }
}

// === impl Steered ===

impl Steered {
    /// Opens what is not open. Returns what could not be.
    pub(super) fn open(&mut self, shared: &Rc<Shared>) -> Vec<String> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut problems = Vec::new();
        for (slot, ip) in [&mut self.v4, &mut self.v6].into_iter().zip(loopback) {
            if slot.is_some() {
                continue;
            }
            match Acceptor::open(SocketAddr::new(ip, 0), shared) {
                Ok(acceptor) => *slot = Some(acceptor),
                Err(error) if ip.is_ipv6() && is_without_ipv6(&error) => {}
                Err(error) => problems.push(format!(
                    "cannot listen on {ip} for steered connections: {error}; \
                     none of this address family are served"
                )),
            }
        }
        problems
    }

    pub(super) fn sockets(&self) -> Sockets {
        let socket = |slot: &Option<Acceptor>| slot.as_ref().map(|open| open.socket.clone());
        Sockets { tcp4: socket(&self.v4), tcp6: socket(&self.v6) }
    }
}

// === impl Ports ===

impl Ports {
    /// Opens and closes sockets until exactly the `wanted` places are open, or their turn to be tried
    /// again has not come.
    pub(super) fn open(
        &mut self,
        now: Time,
        wanted: &BTreeMap<Place, Vec<String>>,
        shared: &Rc<Shared>,
    ) {
        self.open.retain(|place, _| wanted.contains_key(place));
        self.failed.retain(|place, _| wanted.contains_key(place));
        for (place, services) in wanted {
            let waits = self.failed.get(place).is_some_and(|failed| failed.retry > now);
            if !waits && !self.open.contains_key(place) {
                self.try_open(now, *place, services, shared);
            }
        }
    }

    fn try_open(&mut self, now: Time, place: Place, services: &[String], shared: &Rc<Shared>) {
        let (transport, address) = place;
        let opened = match transport {
            Transport::Tcp => Acceptor::open(address, shared).map(Opened::Tcp),
            Transport::Udp => UdpSocket::bind(address).map(|socket| {
                let serve = udp::serve(socket, Rc::clone(shared));
                Opened::Udp(event_loop::spawn_connection(serve))
            }),
        };
        match opened {
            Ok(opened) => {
                self.failed.remove(&place);
                self.open.insert(place, opened);
            }
            Err(error) if address.is_ipv6() && is_without_ipv6(&error) => {}
            Err(error) => {
                let pause = self
                    .failed
                    .get(&place)
                    .map_or(FIRST_BIND_PAUSE, |failed| (failed.pause * 2).min(LONGEST_BIND_PAUSE));
                let message = bind_message(place, services, &error);
                self.failed.insert(place, Failed { message, pause, retry: now + pause });
            }
        }
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.failed.values().map(|failed| failed.message.clone())
    }

    pub(super) fn next_retry(&self) -> Option<Time> {
        self.failed.values().map(|failed| failed.retry).min()
    }
}

fn bind_message(place: Place, services: &[String], error: &io::Error) -> String {
    let (transport, address) = place;
    let hint = match (error.kind(), transport) {
        (io::ErrorKind::AddrInUse, Transport::Tcp) => {
            "; find who has it with `ss -ltnp`, it is tried again"
        }
        (io::ErrorKind::AddrInUse, Transport::Udp) => {
            "; find who has it with `ss -lunp`, it is tried again"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
        }
        _ => "",
    };
    let wanted = services.join(", ");
    format!("cannot listen on {address}, which Ingress service {wanted} wants: {error}{hint}")
}

/// The kernel has no IPv6, or it is switched off: then nobody will miss it.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
