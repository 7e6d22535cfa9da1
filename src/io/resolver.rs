//! The driver that looks names up: a stub resolver over UDP. It asks what `/etc/resolv.conf` names, or what the settings
//! name, after `/etc/hosts`; both files are read anew for each look-up, so that a change needs no restart.
//!
//! getaddrinfo is not used: it blocks, and the loop must not.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smol::Task;

use super::event_loop::spawn;
use super::reactor::{AsyncFd, Timer};
use super::{clock, random};
use crate::api::config::Config;
use crate::api::message::Resolved;
use crate::api::meta::Str;
use crate::api::{Message, wiring};
use crate::arrange::Arrange;
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};
use crate::proto::dns::{self, Answer, RecordType};

/// How long one server is waited for. LAN resolvers answer in milliseconds, those behind them in some hundred.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Servers asked one after the other, as in glibc (MAXNS).
const MAX_SERVERS: usize = 3;
/// A name is looked up again after its TTL, but not more often than this,
const SHORTEST_LIFE: Duration = Duration::from_secs(5);
/// and at least this often: a changed `/etc/hosts` has no TTL.
const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// A failed look-up is repeated after this.
const RETRY: Duration = Duration::from_secs(5);
/// Names looked up at all; one XBackend has one.
const MAX_NAMES: usize = 1024;

/// Sends [`Message::Resolved`] for the names of [`Message::Resolve`], at once and whenever an answer changes.
pub struct Resolver {
    config: Arc<Config>,
    mailer: Mailer<Message>,
    /// The task that keeps a name's addresses up to date; dropped with the name.
    tasks: HashMap<Str, Task<()>>,
    found: BTreeMap<Str, Resolved>,
}

// === impl Resolver ===

impl Resolver {
    /// `mailer` must be that of [`wiring::RESOLVER`].
    pub fn new(config: Arc<Config>, mailer: Mailer<Message>) -> Self {
        Self { config, mailer, tasks: HashMap::new(), found: BTreeMap::new() }
    }

    fn want(&mut self, names: &BTreeSet<Str>) {
        self.tasks.retain(|name, _| names.contains(name));
        self.found.retain(|name, _| names.contains(name));
        for name in names.iter().take(MAX_NAMES) {
            if !self.tasks.contains_key(name) {
                let keep =
                    keep(Str::clone(name), self.config.nameservers.clone(), self.mailer.clone());
                self.tasks.insert(Str::clone(name), spawn(keep));
            }
        }
    }

    fn publish(&self, out: &mut Outbox<Message>) {
        out.send(wiring::ENDPOINT, Message::Resolved(Arc::new(self.found.clone())));
    }
}

impl Server<Message> for Resolver {
    fn handle(&mut self, _now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Resolve(names) => self.want(&names),
            // From a task of ours.
            Message::Lookup(name, found) if self.tasks.contains_key(&name) => {
                // Addresses that were good once are kept while nobody can say otherwise.
                let kept = match (self.found.remove(&name), found) {
                    (Some(Resolved { addresses, .. }), Resolved { addresses: new, fault })
                        if new.is_empty() && fault.is_some() =>
                    {
                        Resolved { addresses, fault }
                    }
                    (_, found) => found,
                };
                self.found.insert(name, kept);
                self.publish(out);
            }
            _ => {}
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if peer == wiring::ENDPOINT {
            self.publish(out);
        }
    }
}

/// Looks `name` up for ever, and says so when the outcome differs.
async fn keep(name: Str, servers: Vec<SocketAddr>, mailer: Mailer<Message>) {
    let mut last = None;
    loop {
        let (found, life) = match look_up(&name, &servers).await {
            Ok(answer) => {
                let life = Duration::from_secs(answer.ttl.into());
                let mut addresses = answer.addresses;
                addresses.arrange();
                addresses.dedup();
                (Resolved { addresses, fault: None }, life.clamp(SHORTEST_LIFE, LONGEST_LIFE))
            }
            Err(fault) => (Resolved { addresses: Vec::new(), fault: Some(fault) }, RETRY),
        };
        if last.as_ref() != Some(&found) {
            last = Some(found.clone());
            mailer.send(wiring::RESOLVER, Message::Lookup(Str::clone(&name), found));
        }
        Timer::at(clock::now() + life).await;
    }
}

pub(super) async fn look_up(name: &str, servers: &[SocketAddr]) -> Result<Answer, String> {
    if let Ok(hosts) = std::fs::read_to_string("/etc/hosts") {
        let addresses = in_hosts(&hosts, name);
        if !addresses.is_empty() {
            return Ok(Answer { addresses, ttl: 0 });
        }
    }
    let servers = match servers {
        [] => std::fs::read_to_string("/etc/resolv.conf")
            .map(|text| in_resolv_conf(&text))
            .map_err(|error| format!("{name} cannot be looked up: /etc/resolv.conf: {error}"))?,
        servers => servers.to_vec(),
    };
    let mut fault = format!("{name} cannot be looked up: no name server is configured");
    for server in servers.into_iter().take(MAX_SERVERS) {
        match ask_both(server, name).await {
            Ok(answer) if answer.addresses.is_empty() => {
                return Err(format!("{name} has no address, says {server}"));
            }
            Ok(answer) => return Ok(answer),
            Err(Fault::Final(why)) => return Err(format!("{name}: {why}, says {server}")),
            Err(Fault::Server(why)) => {
                fault = format!("{name} cannot be looked up: {server}: {why}")
            }
        }
    }
    Err(fault)
}

/// Whether another server may know better.
enum Fault {
    Final(dns::Error),
    Server(String),
}

/// The addresses of both families.
async fn ask_both(server: SocketAddr, name: &str) -> Result<Answer, Fault> {
    let mut all = ask(server, name, RecordType::A).await?;
    let v6 = ask(server, name, RecordType::Aaaa).await?;
    all.ttl = if all.addresses.is_empty() { v6.ttl } else { all.ttl };
    all.addresses.extend(v6.addresses);
    Ok(all)
}

/// One question to one server. Each has a socket, and so a port, of its own: together with the identifier it is what
/// a forger must guess (RFC 5452).
async fn ask(server: SocketAddr, name: &str, record: RecordType) -> Result<Answer, Fault> {
    let failed = |error: io::Error| Fault::Server(error.to_string());
    let id = (random::next() >> 48) as u16;
    let Some(question) = dns::question(id, name, record) else {
        return Err(Fault::Final(dns::Error::NoSuchName));
    };
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.send(&question).map_err(failed)?;
    let fd = AsyncFd::new(socket.try_clone().map_err(failed)?.into()).map_err(failed)?;
    let mut timer = Box::pin(Timer::at(clock::now() + SERVER_TIMEOUT));
    let mut message = [0; dns::MAX_MESSAGE_BYTES];
    poll_fn(|cx| {
        while fd.poll_readable(cx).is_ready() {
            match socket.recv(&mut message) {
                Ok(length) => match dns::answer(&message[..length], &question, record) {
                    Err(dns::Error::NotOurs) => {}
                    Err(error @ dns::Error::NoSuchName) => {
                        return Poll::Ready(Err(Fault::Final(error)));
                    }
                    Err(error) => return Poll::Ready(Err(Fault::Server(error.to_string()))),
                    Ok(answer) => return Poll::Ready(Ok(answer)),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => fd.clear_readable(),
                Err(error) => return Poll::Ready(Err(failed(error))),
            }
        }
        timer.as_mut().poll(cx).map(|()| Err(Fault::Server("no answer".to_owned())))
    })
    .await
}

/// The `nameserver` lines (resolv.conf(5)).
fn in_resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

/// The addresses that hosts(5) has for `name`.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let ip = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.'))).then_some(ip)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_as_glibc_reads_them() {
        let servers = "# nameserver 1.1.1.1\nnameserver 10.0.0.53\noptions ndots:5\n  nameserver\t::1 \nnameservers 9.9.9.9\n";
        let addresses = ["10.0.0.53:53", "[::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(in_resolv_conf(servers), addresses);
        let hosts = "127.0.0.1 localhost\n10.0.0.5\tnas.home.arpa NAS # old one: box\nfd00::5 nas\nbad nas\n";
        let found =
            |name| in_hosts(hosts, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("nas"), ["10.0.0.5", "fd00::5"]);
        assert_eq!(found("nas.home.arpa."), ["10.0.0.5"]);
        assert!(found("box").is_empty());
    }
}
