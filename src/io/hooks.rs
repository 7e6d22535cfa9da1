//! The driver that puts a [`Program`] into the kernel: tc and sk_lookup programs, their maps, local routes.
//!
//! The order matters. A local route makes the kernel answer ARP for its address, so the tc program must
//! know the address before the route is there, and until the route is gone.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bpf::{Announced, Bpf, BpfError, Role, Steered, TcHook, Transport};
use super::netlink::{Netlink, NetlinkError};
use crate::api::Message;
use crate::api::address::IfIndex;
use crate::api::datapath::{self, DatapathReport, Program, Programmed, Sockets};
use crate::api::wiring;
use crate::arrange::Gather;
use crate::kernel::{Outbox, Server, ServerId, Time};

/// What could not be applied is tried again after this; a missing capability or a full table may be
/// mended meanwhile.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is checked that everything is still in place, and the counters are read for `pilus
/// status`. While something is missing two nodes may answer, or none.
const CHECK: Duration = Duration::from_secs(2);

/// Applies [`Message::Program`] and acknowledges with [`Message::Programmed`].
pub struct HookDriver {
    root: PathBuf,
    bpf: Option<Bpf>,
    netlink: Option<Netlink>,
    wanted: Option<Arc<Program>>,
    sockets: Sockets,
    routes: Option<BTreeSet<IpAddr>>,
    programmed: Option<Arc<Programmed>>,
    retry_at: Option<Time>,
    check_at: Time,
    /// How often something had to be put back, and what it was the last time.
    put_back: (u32, String),
}

// === impl HookDriver ===

impl HookDriver {
    /// Pins everything below `root`.
    pub const fn new(root: PathBuf) -> Self {
        Self {
            root,
            bpf: None,
            netlink: None,
            wanted: None,
            sockets: Sockets { tcp4: None, tcp6: None },
            routes: None,
            programmed: None,
            retry_at: None,
            check_at: Time::ZERO,
            put_back: (0, String::new()),
        }
    }

    fn apply(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(program) = self.wanted.clone() else { return };
        let mut failures = Vec::new();
        let mut unhooked = BTreeMap::new();
        match self.loaded() {
            Ok(()) => {
                let unguarded = self.apply_answers(&program, &mut unhooked, &mut failures);
                self.apply_steers(&program, &mut failures);
                self.apply_routes(&program, &unguarded, &mut failures);
                self.drop_unused(&program, &mut failures);
            }
            Err(error) => {
                failures.push(error.to_string());
                unhooked.extend(
                    program.answers.answers.iter().map(|it| (it.interface, error.to_string())),
                );
            }
        }
        self.retry_at = (!failures.is_empty()).then(|| now + RETRY);
        let programmed =
            Arc::new(Programmed { generation: program.generation, failures, unhooked });
        if self.programmed.as_ref() != Some(&programmed) {
            for failure in &programmed.failures {
                log::error!("data path: {failure}");
            }
        }
        self.programmed = Some(Arc::clone(&programmed));
        for peer in [wiring::ANNOUNCE, wiring::DATAPATH, wiring::ADMIN] {
            out.send(peer, Message::Programmed(Arc::clone(&programmed)));
        }
        self.report(now, out);
    }

    fn loaded(&mut self) -> Result<(), BpfError> {
        if self.bpf.is_none() {
            let mut bpf = Bpf::load(&self.root, TcHook::Auto)?;
            bpf.attach_steer()?;
            self.bpf = Some(bpf);
        }
        Ok(())
    }

    /// Writes who answers and hooks the LAN interfaces. Addresses that are no longer wanted stay (silent)
    /// until their routes are gone: see [`Self::drop_unused`]. Returns the addresses for which the kernel
    /// would answer by itself if they were routed here.
    fn apply_answers(
        &mut self,
        program: &Program,
        unhooked: &mut BTreeMap<IfIndex, String>,
        failures: &mut Vec<String>,
    ) -> BTreeSet<IpAddr> {
        let mut unguarded = BTreeSet::new();
        let Some(bpf) = &mut self.bpf else { return unguarded };
        for announced in announced(program) {
            if let Err(error) = bpf.set_address(announced) {
                unguarded.insert(announced.ip);
                failures.push(format!("{}: {error}", announced.ip));
            }
        }
        let hooked = bpf.lans().unwrap_or_default();
        for index in interfaces(program) {
            if !hooked.contains(&index) {
                log::info!("hooking {}", interface_name(index));
            }
            match bpf.attach_lan(index) {
                Ok(()) => {}
                // Whoever lists the interfaces will say so in a moment.
                Err(error) if error.is_gone() => {}
                Err(error) => {
                    unhooked.insert(IfIndex(index), error.to_string());
                    failures.push(format!("{}: {error}", interface_name(index)));
                }
            }
        }
        let on = |it: &Announced| unhooked.contains_key(&IfIndex(it.ifindex));
        unguarded.extend(announced(program).filter(on).map(|it| it.ip));
        let wanted: BTreeSet<(u32, IpAddr)> =
            announced(program).map(|announced| (announced.ifindex, announced.ip)).gather();
        match bpf.addresses() {
            Ok(present) => {
                for state in present {
                    if !wanted.contains(&(state.address.ifindex, state.address.ip)) {
                        let silent = Announced { role: Role::NotHeld, ..state.address };
                        note(bpf.set_address(silent), failures);
                    }
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
        unguarded
    }

    fn apply_steers(&mut self, program: &Program, failures: &mut Vec<String>) {
        let Some(bpf) = &mut self.bpf else { return };
        let mut steered = Vec::with_capacity(program.steers.len());
        for steer in &program.steers {
            let socket = match steer.address {
                IpAddr::V4(_) => &self.sockets.tcp4,
                IpAddr::V6(_) => &self.sockets.tcp6,
            };
            let (Some(socket), datapath::Transport::Tcp) = (socket, steer.transport) else {
                continue;
            };
            let (ip, port, socket) = (steer.address, steer.port.0, socket.0.as_fd());
            steered.push(Steered { ip, port, transport: Transport::Tcp, socket });
        }
        note(bpf.sync_steering(&steered).map(|_| ()), failures);
    }

    fn apply_routes(
        &mut self,
        program: &Program,
        unguarded: &BTreeSet<IpAddr>,
        failures: &mut Vec<String>,
    ) {
        if let Err(error) = self.try_routes(program, unguarded, failures) {
            failures.push(error.to_string());
        }
    }

    fn try_routes(
        &mut self,
        program: &Program,
        unguarded: &BTreeSet<IpAddr>,
        failures: &mut Vec<String>,
    ) -> Result<(), NetlinkError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            None => self.netlink.insert(Netlink::open()?),
        };
        let present = match &mut self.routes {
            Some(routes) => routes,
            // Those of a dead predecessor are ours as well.
            None => self
                .routes
                .insert(netlink.local_routes()?.into_iter().map(|route| route.ip).gather()),
        };
        let steered = program.steers.iter().map(|steer| steer.address);
        let wanted: BTreeSet<IpAddr> = steered.filter(|ip| !unguarded.contains(ip)).gather();
        for ip in wanted.difference(&present.clone()) {
            match netlink.add_local_route(*ip) {
                Ok(_) => _ = present.insert(*ip),
                Err(error) => failures.push(error.to_string()),
            }
        }
        for ip in present.clone().difference(&wanted) {
            match netlink.remove_local_route(*ip) {
                Ok(_) => _ = present.remove(ip),
                Err(error) => failures.push(error.to_string()),
            }
        }
        Ok(())
    }

    /// Forgets addresses and interfaces that are not wanted, now that no route makes the kernel answer.
    fn drop_unused(&mut self, program: &Program, failures: &mut Vec<String>) {
        let Some(bpf) = &mut self.bpf else { return };
        let wanted: Vec<Announced> = announced(program).collect();
        note(bpf.sync_addresses(&wanted).map(|_| ()), failures);
        match bpf.lans() {
            Ok(hooked) => {
                for index in hooked {
                    if !wanted.iter().any(|announced| announced.ifindex == index) {
                        log::info!("leaving {}", interface_name(index));
                        note(bpf.detach_lan(index), failures);
                    }
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }

    /// Puts back what somebody else has taken away: a program, a map entry, a local route. Without them
    /// this node does not answer for what it holds, or its kernel does for what it does not hold.
    fn check(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(program) = self.wanted.clone() else { return };
        match self.lost(&program) {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                let what = lost.join(", ");
                log::warn!("somebody has taken away or changed {what}: it is put back");
                self.put_back = (self.put_back.0.saturating_add(1), what);
                // As after a start: what is left is taken over.
                self.bpf = None;
                self.routes = None;
                self.apply(now, out);
            }
            Err(error) => log::error!("the hooks cannot be checked: {error}"),
        }
    }

    fn lost(&mut self, program: &Program) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let Some(bpf) = &self.bpf else { return Ok(Vec::new()) };
        let mut netlink = Netlink::open()?;
        let present: BTreeSet<u32> = netlink.links()?.iter().map(|link| link.ifindex).gather();
        // An interface that is gone, and with it the program, is no business of ours.
        let lans = interfaces(program).intersection(&present).copied().gather();
        let mut lost = bpf.lost(&lans)?;
        if let Some(routes) = &self.routes {
            let present: BTreeSet<IpAddr> =
                netlink.local_routes()?.into_iter().map(|route| route.ip).gather();
            lost.extend(routes.difference(&present).map(|ip| format!("the local route of {ip}")));
        }
        Ok(lost)
    }

    fn report(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.check_at = now + CHECK;
        let mut lines: Vec<(Arc<str>, String)> = Vec::new();
        if let (Some(bpf), Some(program)) = (&self.bpf, &self.wanted) {
            for index in bpf.lans().unwrap_or_default() {
                let name = interface_name(index);
                lines.push((format!("tc {name}").into(), duties(program, index)));
            }
            if self.put_back.0 > 0 {
                let (times, what) = &self.put_back;
                lines.push(("put back".into(), format!("{times} times, last: {what}")));
            }
            if let Ok(counters) = bpf.counters() {
                lines.extend(
                    counters
                        .iter()
                        .map(|(counter, count)| (counter.name().into(), count.to_string())),
                );
            }
        }
        out.send(wiring::ADMIN, Message::DatapathReport(Arc::new(DatapathReport { lines })));
    }

    fn release(&mut self) {
        if let (Some(netlink), Some(routes)) = (&mut self.netlink, self.routes.take()) {
            for ip in routes {
                if let Err(error) = netlink.remove_local_route(ip) {
                    log::error!("{error}");
                }
            }
        }
        if let Some(Err(error)) = self.bpf.take().map(Bpf::release) {
            log::error!("{error}");
        }
        self.wanted = None;
        self.retry_at = None;
    }
}

/// The name of an interface for people, or its number when it is gone.
fn interface_name(index: u32) -> String {
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
    let link = links.into_iter().find(|link| link.ifindex == index);
    link.map_or_else(|| format!("interface {index}"), |link| link.name)
}

fn interfaces(program: &Program) -> BTreeSet<u32> {
    program.answers.answers.iter().map(|answer| answer.interface.0).gather()
}

/// What the program on an interface is there for.
fn duties(program: &Program, index: u32) -> String {
    let all = program.answers.answers.iter().filter(|answer| answer.interface.0 == index);
    let (held, silent): (Vec<_>, Vec<_>) = all.partition(|answer| answer.held);
    format!("answers for {} addresses, keeps silent about {}", held.len(), silent.len())
}

fn announced(program: &Program) -> impl Iterator<Item = Announced> {
    program.answers.answers.iter().map(|answer| Announced {
        ifindex: answer.interface.0,
        ip: answer.address,
        role: if answer.held { Role::Held } else { Role::NotHeld },
        mac: answer.mac.0,
    })
}

fn note(result: Result<(), BpfError>, failures: &mut Vec<String>) {
    if let Err(error) = result {
        failures.push(error.to_string());
    }
}

impl Server<Message> for HookDriver {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Program(program) => {
                self.wanted = Some(program);
                self.apply(now, out);
            }
            Message::Sockets(sockets) => {
                self.sockets = sockets;
                self.apply(now, out);
            }
            Message::Alive(until) => {
                if let Some(Err(error)) =
                    self.bpf.as_mut().map(|bpf| bpf.set_liveness(until.as_nanos()))
                {
                    log::error!("{error}");
                }
            }
            Message::Shutdown => {
                self.release();
                out.send(wiring::SIGNAL, Message::Released);
            }
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        let check = self.bpf.is_some().then_some(self.check_at);
        [self.retry_at, check].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.apply(now, out);
        } else {
            // What could not be put in place is missing, of course.
            if self.retry_at.is_none() {
                self.check(now, out);
            }
            self.report(now, out);
        }
    }

    fn peer_restarted(&mut self, now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if matches!(peer, wiring::ANNOUNCE | wiring::DATAPATH)
            && let Some(programmed) = &self.programmed
        {
            out.send(peer, Message::Programmed(Arc::clone(programmed)));
        } else if peer == wiring::ADMIN {
            if let Some(programmed) = &self.programmed {
                out.send(peer, Message::Programmed(Arc::clone(programmed)));
            }
            self.report(now, out);
        }
    }
}
