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
use crate::api::address::Port;
use crate::api::datapath::{Socket, Sockets, Transport};
use crate::io::event_loop;
use crate::io::tcp::{ANY, TcpListener};
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

/// One listener per port and family.
#[derive(Default)]
pub(super) struct HostPorts {
    open: BTreeMap<SocketAddr, Acceptor>,
    failed: BTreeMap<SocketAddr, Failed>,
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
        Sockets { tcp4: socket(&self.v4), tcp6: socket(&self.v6), ..Sockets::default() }
    }
}

// === impl HostPorts ===

impl HostPorts {
    /// Opens and closes sockets until exactly the `wanted` ports are open, or their turn to be tried
    /// again has not come.
    pub(super) fn open(
        &mut self,
        now: Time,
        wanted: &BTreeMap<(Transport, Port), Vec<String>>,
        shared: &Rc<Shared>,
    ) {
        let is_wanted = |it: &SocketAddr| wanted.contains_key(&(Transport::Tcp, Port(it.port())));
        self.open.retain(|address, _| is_wanted(address));
        self.failed.retain(|address, _| is_wanted(address));
        for ((_, port), services) in
            wanted.range((Transport::Tcp, Port(0))..(Transport::Udp, Port(0)))
        {
            for ip in ANY {
                let address = SocketAddr::new(ip, port.0);
                let waits = self.failed.get(&address).is_some_and(|failed| failed.retry > now);
                if !waits && !self.open.contains_key(&address) {
                    self.try_open(now, address, services, shared);
                }
            }
        }
    }

    fn try_open(
        &mut self,
        now: Time,
        address: SocketAddr,
        services: &[String],
        shared: &Rc<Shared>,
    ) {
        match Acceptor::open(address, shared) {
            Ok(acceptor) => {
                self.failed.remove(&address);
                self.open.insert(address, acceptor);
            }
            Err(error) if address.is_ipv6() && is_without_ipv6(&error) => {}
            Err(error) => {
                let pause = self
                    .failed
                    .get(&address)
                    .map_or(FIRST_BIND_PAUSE, |failed| (failed.pause * 2).min(LONGEST_BIND_PAUSE));
                let message = bind_message(address, services, &error);
                self.failed.insert(address, Failed { message, pause, retry: now + pause });
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

fn bind_message(address: SocketAddr, services: &[String], error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; find who has it with `ss -ltnp`, it is tried again",
        io::ErrorKind::PermissionDenied => {
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
