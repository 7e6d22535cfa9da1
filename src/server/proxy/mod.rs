//! The proxy: HTTP/1.1 and TLS between clients and endpoints. The data path never asks anyone: it reads
//! an immutable [`table::Snapshot`] that this server replaces whole.
//!
//! `accept.rs` a connection arrives · `access_log.rs` what is written about it · `tls.rs` `terminate.rs` handshake or passthrough · `connection.rs` one request
//! after the other · `request.rs` head to decision · `exchange.rs` one request and its response ·
//! `matching.rs` which route · `filter/` what a route changes · `flow.rs` bodies · `forward.rs` whole connections · `tunnel.rs` bytes both ways · `udp.rs` datagrams ·
//! `dial.rs` `upstream_tls.rs` connecting · `upstream.rs` kept connections · `balance.rs` which backend · `cluster.rs` which endpoint · `probe.rs` dead ones ·
//! `table.rs` what all of them read · `listen.rs` sockets · `limits.rs` every bound.
mod accept;
mod access_log;
mod balance;
mod cluster;
mod connect;
mod connection;
mod date;
mod dial;
mod exchange;
mod filter;
mod flow;
mod forward;
mod http2;
mod limits;
mod listen;
mod matching;
mod probe;
mod request;
mod shared;
mod stats;
mod stream;
mod subrequest;
mod table;
mod terminate;
mod tls;
mod tunnel;
mod udp;
mod upstream;
mod upstream_tls;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use smol::Task;

use self::access_log::AccessLog;
use self::limits::{
    DRAIN_POLL, DRAIN_TIMEOUT, IDLE_TOTAL, LONGEST_BIND_PAUSE, RESERVED_DESCRIPTORS, UPSTREAM_SWEEP,
};
use self::listen::{Ports, Steered};
use self::shared::Shared;
use self::table::{Conflict, Snapshot};
use self::terminate::Terminator;
use crate::api::address::Generation;
use crate::api::config::Config;
use crate::api::datapath::Sockets;
use crate::api::endpoint::Endpoints;
use crate::api::message::{Message, wiring};
use crate::api::problem::{Problem, Severity};
use crate::api::route::ListenerTable;
use crate::api::status::Statuses;
use crate::io::reactor::Timer;
use crate::io::{clock, event_loop, splice, tcp};
use crate::kernel::{Outbox, Server, ServerId, Time};

pub use self::stats::{Stats, StatsReader, stats, stats_reader};

/// The proxy server. Receives `Listeners`, `Endpoints` and `Shutdown`; sends `Sockets` to the eBPF driver,
/// `Listening` to the datapath server, `Statuses` to the store and `Released` to the signal driver.
pub struct Proxy {
    shared: Rc<Shared>,
    sockets: SocketsOf,
    /// Those that are not steered to: datagrams are answered from the address that was asked, which takes a socket of
    /// its own, and in `--no-bpf` mode the ports of the node.
    ports: Ports,
    conflicts: Vec<Conflict>,
    steered_problems: Vec<String>,
    /// Why there is no access log.
    log_problem: Option<String>,
    sent_sockets: Option<Sockets>,
    sent_statuses: Option<Arc<Statuses>>,
    /// The last `Listening`: the table that new connections see, and what of it could not be opened.
    sent_listening: Option<(Generation, Arc<[String]>)>,
    /// While the program ends: when waiting for requests in flight is given up.
    drain_until: Option<Time>,
    /// When to look again whether that is over, or whether a socket can be had.
    next_look: Time,
    released: bool,
    _sweeper: Task<()>,
}

/// Where connections come from.
enum SocketsOf {
    Steered(Steered),
    /// Only ports.
    Host,
    /// Nothing is accepted any more.
    Closed,
}

// === impl Proxy ===

impl Proxy {
    /// A proxy without listeners. Raises the limit of open descriptors to what is permitted.
    ///
    /// # Panics
    /// If the system has no randomness for TLS tickets: nothing could be served safely then.
    pub fn new(config: &Config) -> Self {
        let limit = tcp::raise_descriptor_limit();
        splice::set_limit(limit);
        udp::set_limit(limit);
        // A busy connection needs a second descriptor for its endpoint, but most are idle.
        let connections = limit.saturating_sub(RESERVED_DESCRIPTORS).max(limit / 2) / 4 * 3;
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        // So that busy clients, their endpoints and what is kept idle fit together.
        let idle_upstreams = usize::try_from(limit / 8).unwrap_or(usize::MAX).min(IDLE_TOTAL);
        let tls = Terminator::new().expect("the kernel gives randomness once it has booted");
        let mut shared = Shared::new(config, connections, idle_upstreams, tls);
        let (access_log, log_problem) = match AccessLog::open(config) {
            Ok(log) => (log, None),
            // It was good a moment ago, when the settings were read. Requests are served nevertheless.
            Err(problem) => (None, Some(problem)),
        };
        shared.access_log = access_log;
        let shared = Rc::new(shared);
        let sockets =
            if config.no_bpf { SocketsOf::Host } else { SocketsOf::Steered(Steered::default()) };
        let sweeper = event_loop::spawn(sweep(Rc::clone(&shared)));
        Self {
            shared,
            sockets,
            ports: Ports::default(),
            conflicts: Vec::new(),
            steered_problems: Vec::new(),
            log_problem,
            sent_sockets: None,
            sent_statuses: None,
            sent_listening: None,
            drain_until: None,
            next_look: Time::ZERO,
            released: false,
            _sweeper: sweeper,
        }
    }

    fn replace(
        &mut self,
        now: Time,
        table: Arc<ListenerTable>,
        endpoints: Arc<Endpoints>,
        out: &mut Outbox<Message>,
    ) {
        let before = self.shared.current();
        let host_network = matches!(self.sockets, SocketsOf::Host);
        let moved = !Arc::ptr_eq(before.endpoints(), &endpoints);
        let (snapshot, conflicts) =
            Snapshot::new(&before, table, Arc::clone(&endpoints), host_network, now);
        self.shared.replace(snapshot);
        self.conflicts = conflicts;
        if moved {
            let used: std::collections::HashSet<_> = endpoints
                .by_port
                .values()
                .flat_map(|list| list.iter())
                .map(|e| e.address)
                .collect();
            self.shared.hosts.retain(|address| used.contains(&address));
        }
        self.open(now, out);
    }

    /// Opens the sockets that should be open, and says what is wrong with them.
    fn open(&mut self, now: Time, out: &mut Outbox<Message>) {
        match &mut self.sockets {
            SocketsOf::Steered(steered) => {
                self.steered_problems = steered.open(&self.shared);
                self.next_look = now + LONGEST_BIND_PAUSE;
                let sockets = steered.sockets();
                if self.sent_sockets.as_ref() != Some(&sockets) {
                    self.sent_sockets = Some(sockets.clone());
                    out.send(wiring::BPF, Message::Sockets(sockets));
                }
            }
            SocketsOf::Host => {}
            SocketsOf::Closed => return self.report(out),
        }
        let host_network = matches!(self.sockets, SocketsOf::Host);
        let places = self.shared.current().places(host_network);
        self.ports.open(now, &places, &self.shared);
        self.report(out);
    }

    fn report(&mut self, out: &mut Outbox<Message>) {
        let mut messages: Vec<String> = self.steered_problems.clone();
        messages.extend(self.ports.problems());
        messages.extend(self.conflicts.iter().map(|conflict| {
            format!(
                "port {}: several services want it and none of them is the shared one: {}; \
                 connections to it are closed (give each another ingress.cilium.io/host-listener-port)",
                conflict.port,
                conflict.services.join(", ")
            )
        }));
        self.acknowledge(&messages, out);
        messages.extend(self.log_problem.clone());
        let problem = |message| Problem {
            position: None,
            object: None,
            field: String::new(),
            message,
            severity: Severity::Error,
        };
        let problems = messages.into_iter().map(problem).collect();
        let statuses = Arc::new(Statuses { problems, ..Statuses::default() });
        if self.sent_statuses.as_ref() != Some(&statuses) {
            self.sent_statuses = Some(Arc::clone(&statuses));
            out.send(wiring::STORE, Message::Statuses(statuses));
        }
    }

    /// Tells what is served now, unless that is known.
    fn acknowledge(&mut self, messages: &[String], out: &mut Outbox<Message>) {
        let generation = self.shared.current().table().generation;
        let listening = (generation, Arc::from(messages));
        if generation != Generation::default() && self.sent_listening.as_ref() != Some(&listening) {
            out.send(wiring::DATAPATH, Message::Listening(generation, Arc::clone(&listening.1)));
            self.sent_listening = Some(listening);
        }
    }

    fn drain(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.sockets = SocketsOf::Closed;
        self.ports = Ports::default();
        self.steered_problems.clear();
        self.shared.drain();
        self.drain_until = Some(now + DRAIN_TIMEOUT);
        self.tick(now, out);
    }
}

impl Server<Message> for Proxy {
    fn start(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.open(now, out);
    }

    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        let current = self.shared.current();
        match message {
            Message::Listeners(table) => {
                self.replace(now, table, Arc::clone(current.endpoints()), out);
            }
            Message::Endpoints(endpoints) => {
                self.replace(now, Arc::clone(current.table()), endpoints, out);
            }
            Message::Shutdown => self.drain(now, out),
            Message::ReopenLogs => self.shared.access_log.iter().for_each(AccessLog::reopen),
            other => log::warn!("the proxy has no use for {}", kernel_name(&other)),
        }
    }

    fn timeout(&self) -> Option<Time> {
        if self.drain_until.is_some() {
            return (!self.released).then_some(self.next_look);
        }
        let look = (!self.steered_problems.is_empty()).then_some(self.next_look);
        [self.ports.next_retry(), look].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        match self.drain_until {
            Some(until) if !self.released && (self.shared.open() == 0 || now >= until) => {
                self.released = true;
                out.send(wiring::SIGNAL, Message::Released);
            }
            Some(_) => self.next_look = now + DRAIN_POLL,
            None => self.open(now, out),
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        match peer {
            wiring::BPF => {
                if let Some(sockets) = &self.sent_sockets {
                    out.send(wiring::BPF, Message::Sockets(sockets.clone()));
                }
            }
            wiring::DATAPATH => {
                if let Some((generation, messages)) = &self.sent_listening {
                    let messages = Arc::clone(messages);
                    out.send(wiring::DATAPATH, Message::Listening(*generation, messages));
                }
            }
            wiring::STORE => {
                if let Some(statuses) = &self.sent_statuses {
                    out.send(wiring::STORE, Message::Statuses(Arc::clone(statuses)));
                }
            }
            _ => {}
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Connections outlive a proxy that crashed, but not for long: its successor has the new tables.
        self.shared.drain();
        if self.released {
            // The program ends.
            self.shared.access_log.iter().for_each(AccessLog::finish);
        }
    }
}

fn kernel_name(message: &Message) -> &'static str {
    crate::kernel::Message::name(message)
}

/// Closes upstream connections that have been idle for long.
async fn sweep(shared: Rc<Shared>) {
    loop {
        let now = clock::now();
        shared.hosts.sweep(now);
        shared.access_log.iter().for_each(AccessLog::settle);
        Timer::at(now + UPSTREAM_SWEEP).await;
    }
}
