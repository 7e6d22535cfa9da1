//! The driver that puts a [`Balancing`] into the kernel: the service programs on the interfaces, and their maps.
//!
//! It runs beside the servers of objects: five thousand frontends are some thousand system calls, for which no packet
//! of an announcement should wait.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bpf::service::Services;
use super::bpf::service_abi::SERVICE_COUNTERS;
use super::bpf::{BpfError, TcHook};
use crate::api::datapath::DatapathReport;
use crate::api::service::{Balanced, Balancing, Hooked};
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Server, ServerId, Time};

/// What could not be applied is tried again after this; a missing capability or a full table may be mended meanwhile.
const RETRY: Duration = Duration::from_secs(2);
/// Where control groups usually are; named in the complaint if they are nowhere.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// How often it is checked that the programs are in place, that the ways to backends are still the same, and counters
/// are read for `pilus status`.
const CHECK: Duration = Duration::from_secs(2);

/// Applies [`Message::Balancing`] and acknowledges with [`Message::Balanced`].
pub struct Balancer {
    root: PathBuf,
    services: Option<Services>,
    wanted: Option<Arc<Balancing>>,
    balanced: Option<Arc<Balanced>>,
    /// The interfaces that the programs are on; None: they have to be put there again.
    hooked: Option<Vec<Hooked>>,
    /// Why the node's own processes are not balanced; None: they are, or there is nothing to balance.
    host_fault: Option<String>,
    retry_at: Option<Time>,
    check_at: Time,
    stopping: bool,
}

// === impl Balancer ===

impl Balancer {
    /// Pins everything below `root`.
    pub const fn new(root: PathBuf) -> Self {
        Self {
            root,
            services: None,
            wanted: None,
            balanced: None,
            hooked: None,
            host_fault: None,
            retry_at: None,
            check_at: Time::ZERO,
            stopping: false,
        }
    }

    fn apply(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(wanted) = self.wanted.clone() else { return };
        let mut failures = Vec::new();
        match self.loaded(&wanted) {
            Ok(true) => self.put(&wanted, &mut failures),
            Ok(false) => {}
            Err(error) => failures.push(error.to_string()),
        }
        self.retry_at = (!failures.is_empty()).then(|| now + RETRY);
        let balanced = Arc::new(Balanced { generation: wanted.generation, failures });
        let known = self.balanced.as_ref().map(|old| &old.failures);
        if known != Some(&balanced.failures) {
            for failure in &balanced.failures {
                log::error!("services: {failure}");
            }
        }
        self.balanced = Some(Arc::clone(&balanced));
        out.send(wiring::SERVICE, Message::Balanced(balanced));
        self.report(now, out);
    }

    /// Loads the programs, unless there has never been anything for them to do.
    fn loaded(&mut self, wanted: &Balancing) -> Result<bool, BpfError> {
        let idle =
            wanted.frontends.is_empty() && !self.root.join("maps").join("frontends").exists();
        if self.services.is_none() && !idle {
            self.services = Some(Services::load(&self.root, TcHook::Auto)?);
        }
        Ok(self.services.is_some())
    }

    fn put(&mut self, wanted: &Balancing, failures: &mut Vec<String>) {
        let Some(services) = &mut self.services else { return };
        let hooked = match wanted.frontends.is_empty() {
            true => services.unhook_host(),
            false if services.is_host_hooked() && self.hooked.is_some() => Ok(()),
            false => services.hook_host(&control_groups()),
        };
        // Not a failure of a Service: clients and Pods are served.
        let fault = hooked.err().map(|error| error.to_string());
        if let Some(fault) = fault.as_ref().filter(|_| fault != self.host_fault) {
            log::warn!("processes of this node do not reach services by their addresses: {fault}");
        }
        self.host_fault = fault;
        if let Err(error) = services.set_own(wanted.own) {
            failures.push(error.to_string());
        }
        let failed = services.sync(&wanted.frontends);
        failures.extend(failed.into_iter().map(|(at, error)| format!("{at}: {error}")));
        let interfaces = interfaces(wanted);
        if self.hooked.as_deref() != Some(interfaces) {
            let failed = services.hook(interfaces);
            self.hooked = failed.is_empty().then(|| interfaces.to_vec());
            failures.extend(
                failed.into_iter().map(|(index, error)| format!("interface {index}: {error}")),
            );
        }
    }

    /// Puts back what somebody else has taken away, and notices routes that have changed.
    fn check(&mut self, now: Time, out: &mut Outbox<Message>) {
        let (Some(services), Some(wanted)) = (&mut self.services, &self.wanted) else { return };
        let host =
            wanted.frontends.is_empty() || self.host_fault.is_some() || services.is_host_hooked();
        match services.are_hooked(interfaces(wanted)) {
            Ok(true) if host => {}
            Ok(_) => {
                log::warn!("somebody has taken a service program away: it is put back");
                self.hooked = None;
                return self.apply(now, out);
            }
            Err(error) => log::error!("the service programs cannot be checked: {error}"),
        }
        if let Err(error) = services.refresh_ways() {
            log::error!("{error}");
        }
        self.report(now, out);
    }

    fn report(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.check_at = now + CHECK;
        let Some(services) = &self.services else { return };
        let mut lines = Vec::new();
        if let Ok(counters) = services.counters() {
            let named = SERVICE_COUNTERS.into_iter().zip(counters);
            lines.extend(named.map(|(name, value)| (name.into(), value.to_string())));
        }
        let host = self.host_fault.as_deref().unwrap_or("yes");
        lines.push(("service_for_node_processes".into(), host.to_owned()));
        lines.push(("service_room_for_flows".into(), services.room_for_flows().to_string()));
        out.send(wiring::ADMIN, Message::ServiceReport(Arc::new(DatapathReport { lines })));
    }
}

impl Server<Message> for Balancer {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Balancing(wanted) if !self.stopping => {
                self.wanted = Some(wanted);
                self.apply(now, out);
            }
            // Connections go on without an agent: nothing is taken away.
            Message::Shutdown => self.stopping = true,
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        let check = self.services.is_some().then_some(self.check_at);
        [self.retry_at, check].into_iter().flatten().min().filter(|_| !self.stopping)
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.apply(now, out);
        } else if self.check_at <= now {
            self.check(now, out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if let Some(balanced) = self.balanced.clone().filter(|_| peer == wiring::SERVICE) {
            out.send(peer, Message::Balanced(balanced));
        }
    }
}

/// Where the control groups of version 2 are mounted: alone, or beside those of version 1.
fn control_groups() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = lines.find(|words| words.get(2) == Some(&"cgroup2"));
    found.and_then(|words| words.get(1).map(PathBuf::from)).unwrap_or(CONTROL_GROUPS.into())
}

/// Where there is nothing to balance, nobody's packets are looked at.
fn interfaces(wanted: &Balancing) -> &[Hooked] {
    if wanted.frontends.is_empty() { &[] } else { &wanted.interfaces }
}
