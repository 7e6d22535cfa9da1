//! Ingresses (ING-01 to ING-16) and Gateway API to routing tables.
//!
//! | file | what |
//! |---|---|
//! | `class` | which Ingresses are ours |
//! | `annotation` | what their annotations say |
//! | `compile` | one Ingress after the other to rules, with every complaint |
//! | `gateway/` | Gateways, ListenerSets, routes and policies to listeners and statuses |
//! | `context` | what both look things up in |
//! | `certificate`, `authority` | Secrets to certificates, ConfigMaps to CA certificates |
//! | `upstream` | Services' annotations to settings of backends |
//! | `table` | rules of many Ingresses to listeners |
//! | `service` | the generated LoadBalancer Services |
//!
//! In: `Objects` from the store, `Assignments` from LB-IPAM, `Serving` from the datapath server. Out: `Routes` to the
//! datapath server, and `Statuses` (conditions, addresses, problems, generated Services) to the store.
mod annotation;
mod authority;
mod certificate;
mod class;
mod compile;
mod context;
mod gateway;
mod report;
mod service;
mod suggest;
mod table;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use context::{Caches, Context};
use gateway::policy::Policies;
use gateway::programmed::{self, Effects, Since};

use crate::api::address::{Assignments, Generation, Port};
use crate::api::config::Config;
use crate::api::datapath::Transport;
use crate::api::meta::{Kind, NamespacedName, ObjectKey};
use crate::api::objects::{Generated, Objects};
use crate::api::problem::Problem;
use crate::api::route::{Listener, RouteTable, Serving};
use crate::api::status::{ObjectStatus, Statuses};
use crate::api::{Message, wiring};
use crate::arrange::Arrange;
use crate::kernel::{Outbox, Retired, Server, ServerId, Time};

/// All complaints about the Ingresses and Gateways of `objects` and what they refer to; `unix` is the time in seconds
/// since 1970, for the certificates. For `pilus check`.
pub fn check(objects: &Objects, config: &Config, unix: u64) -> Vec<Problem> {
    compile(objects, config, &mut Caches::default(), unix).problems
}

/// The result of one compilation.
#[derive(Default)]
struct Compiled {
    /// Sorted by Service, port and transport.
    listeners: Vec<Listener>,
    ingress: compile::Compiled,
    gateway: gateway::Compiled,
    problems: Vec<Problem>,
    /// When the next certificate in use becomes valid or expires, seconds since 1970.
    next_change: Option<u64>,
}

/// Compiles `objects`; `unix` is the time in seconds since 1970.
fn compile(objects: &Objects, config: &Config, caches: &mut Caches, unix: u64) -> Compiled {
    let mut context = Context::new(objects, config, caches, unix);
    let policies = Policies::new(&mut context);
    let mut ingress = compile::compile(&mut context, &policies);
    let mut gateway = gateway::compile(&mut context, policies);
    context.sweep();
    let mut listeners = std::mem::take(&mut ingress.listeners);
    listeners.append(&mut gateway.listeners);
    listeners.arrange_by(|a, b| key(a).cmp(&key(b)));
    let next_change = context.next_change;
    Compiled { listeners, ingress, gateway, problems: context.report.finish(), next_change }
}

/// The order of listeners in a table.
const fn key(listener: &Listener) -> (&NamespacedName, Port, Transport) {
    (&listener.service, listener.port, listener.protocol.transport())
}

/// The server; see the module.
pub struct RouteServer {
    config: Arc<Config>,
    unix_at_zero: Duration,
    objects: Option<Arc<Objects>>,
    assignments: Arc<Assignments>,
    serving: Arc<Serving>,
    since: Since,
    caches: Caches,
    compiled: Compiled,
    routes: Arc<RouteTable>,
    /// Listeners of before, which connections may still use.
    retired: Retired<Listener>,
    statuses: Arc<Statuses>,
}

/// What has been computed so far; for tests that count work instead of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Regular expressions compiled.
    pub regexes: u64,
    /// Secrets parsed.
    pub certificates: u64,
}

// === impl RouteServer ===

impl RouteServer {
    /// A server that knows nothing yet. `unix_at_zero` is what the clock of the day showed (since 1970)
    /// when the monotonic clock showed [`Time::ZERO`].
    pub fn new(config: Arc<Config>, unix_at_zero: Duration) -> Self {
        Self {
            config,
            unix_at_zero,
            objects: None,
            assignments: Arc::default(),
            serving: Arc::default(),
            since: Since::default(),
            caches: Caches::default(),
            compiled: Compiled::default(),
            routes: Arc::default(),
            retired: Retired::default(),
            statuses: Arc::default(),
        }
    }

    /// How much was computed since the start.
    pub const fn work(&self) -> Work {
        Work {
            regexes: self.caches.compiled_regexes,
            certificates: self.caches.certificates.parsed,
        }
    }

    fn compile(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(objects) = &self.objects else { return };
        let unix = (self.unix_at_zero + now.since(Time::ZERO)).as_secs();
        self.compiled = compile(objects, &self.config, &mut self.caches, unix);
        let listeners = std::mem::take(&mut self.compiled.listeners);
        let (listeners, changed) = share_unchanged(&self.routes.listeners, listeners);
        if changed || self.routes.generation.0 == 0 {
            let generation = match self.routes.generation {
                Generation(0) => Generation::first(now),
                known => known.next(),
            };
            let routes = Arc::new(RouteTable { generation, listeners });
            let former = std::mem::replace(&mut self.routes, routes);
            for listener in former.listeners.iter().filter(|it| !contains(&self.routes, it)) {
                self.retired.add(now, Arc::clone(listener));
            }
            out.send(wiring::DATAPATH, Message::Routes(Arc::clone(&self.routes)));
            out.send(wiring::ADMIN, Message::Routes(Arc::clone(&self.routes)));
        }
        self.since.update(&self.compiled.gateway.gateways, self.routes.generation);
        self.report(out);
    }

    /// The next moment at which a certificate becomes valid or expires.
    fn next_change(&self) -> Option<Time> {
        let at = Duration::from_secs(self.compiled.next_change?);
        Some(Time::ZERO + at.saturating_sub(self.unix_at_zero))
    }

    /// Sends the statuses if they have changed.
    fn report(&mut self, out: &mut Outbox<Message>) {
        let Compiled { ingress, gateway, problems, .. } = &self.compiled;
        let services = ingress.services.iter().chain(&gateway.services).map(Arc::clone).collect();
        let mut statuses = Statuses {
            by_object: gateway.statuses.clone(),
            problems: problems.clone(),
            generated: Arc::new(Generated { services, ..Generated::default() }),
            ..Statuses::default()
        };
        let effects = Effects {
            assignments: &self.assignments,
            serving: &self.serving,
            since: &self.since,
            newest: self.routes.generation,
            no_bpf: self.config.no_bpf,
        };
        let of_gateways = gateway.gateways.iter();
        statuses.by_object.extend(of_gateways.flat_map(|it| programmed::statuses(it, effects)));
        for (ingress, service, ports) in &ingress.owned {
            let key = ObjectKey { kind: Kind::Ingress, name: ingress.clone() };
            let addresses = self.assignments.settled(service).collect();
            let status = ObjectStatus {
                load_balancer: Some(addresses),
                ports: ports.clone(),
                ..ObjectStatus::default()
            };
            statuses.by_object.insert(key, status);
        }
        if statuses != *self.statuses {
            self.statuses = Arc::new(statuses);
            out.send(wiring::STORE, Message::Statuses(Arc::clone(&self.statuses)));
        }
    }

    /// Whether a table that the routes are made from differs.
    fn is_new(&self, objects: &Objects) -> bool {
        let Some(old) = &self.objects else { return true };
        macro_rules! same {
            ($($table:ident)*) => { $(Arc::ptr_eq(&old.$table, &objects.$table))&&* };
        }
        !same!(ingresses ingress_classes services secrets config_maps namespaces gateway_classes gateways
            listener_sets http_routes grpc_routes tls_routes tcp_routes udp_routes reference_grants
            backend_tls_policies backend_traffic_policies external_backends)
    }
}

/// Whether this very listener is in the table.
fn contains(routes: &RouteTable, listener: &Arc<Listener>) -> bool {
    let at = routes.listeners.binary_search_by(|other| key(other).cmp(&key(listener)));
    at.is_ok_and(|at| Arc::ptr_eq(&routes.listeners[at], listener))
}

/// Replaces those listeners that are as before by the old ones; false if all are.
fn share_unchanged(old: &[Arc<Listener>], new: Vec<Listener>) -> (Vec<Arc<Listener>>, bool) {
    let mut changed = old.len() != new.len();
    let mut shared = Vec::with_capacity(new.len());
    for (at, listener) in new.into_iter().enumerate() {
        let same =
            old.binary_search_by(|l| key(l).cmp(&key(&listener))).ok().map(|at| (at, &old[at]));
        match same {
            Some((was_at, same)) if **same == listener => {
                changed |= was_at != at;
                shared.push(Arc::clone(same));
            }
            _ => {
                changed = true;
                shared.push(Arc::new(listener));
            }
        }
    }
    (shared, changed)
}

impl Server<Message> for RouteServer {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Objects(objects) => {
                let new = self.is_new(&objects);
                self.objects = Some(objects);
                if new {
                    self.compile(now, out);
                }
            }
            Message::Assignments(assignments) => {
                self.assignments = assignments;
                self.report(out);
            }
            Message::Serving(serving) => {
                self.serving = serving;
                self.report(out);
            }
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        [self.next_change(), self.retired.timeout()].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.retired.sweep(now);
        if self.next_change().is_some_and(|at| at <= now) {
            self.compile(now, out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if self.objects.is_none() {
            return;
        }
        match peer {
            wiring::DATAPATH | wiring::ADMIN => {
                out.send(peer, Message::Routes(Arc::clone(&self.routes)))
            }
            wiring::STORE => out.send(peer, Message::Statuses(Arc::clone(&self.statuses))),
            _ => {}
        }
    }
}
