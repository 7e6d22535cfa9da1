//! Ingresses to routing tables (ING-01 to ING-16).
//!
//! | file | what |
//! |---|---|
//! | `class` | which Ingresses are ours |
//! | `annotation` | what their annotations say |
//! | `compile` | one Ingress after the other to rules, with every complaint |
//! | `certificate` | Secrets to certificates |
//! | `table` | rules of many Ingresses to listeners |
//! | `service` | the generated LoadBalancer Services |
//!
//! In: `Objects` from the store, `Assignments` from LB-IPAM. Out: `Routes` to the datapath server, and
//! `Statuses` (addresses of Ingresses, problems, generated Services) to the store.
mod annotation;
mod certificate;
mod class;
mod compile;
mod report;
mod service;
mod suggest;
mod table;

use std::rc::Rc;
use std::time::Duration;

use compile::{Caches, Compiled, compile};

use crate::api::address::Assignments;
use crate::api::config::Config;
use crate::api::meta::{Kind, ObjectKey};
use crate::api::objects::{Generated, Objects};
use crate::api::problem::Problem;
use crate::api::route::{Listener, RouteTable};
use crate::api::status::{ObjectStatus, Statuses};
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Server, ServerId, Time};

/// All complaints about the Ingresses of `objects` and what they refer to; `unix` is the time in seconds
/// since 1970, for the certificates. For `pilus check`.
pub fn check(objects: &Objects, config: &Config, unix: u64) -> Vec<Problem> {
    compile(objects, config, &mut Caches::default(), unix).problems
}

/// The server; see the module.
pub struct RouteServer {
    config: Rc<Config>,
    unix_at_zero: Duration,
    objects: Option<Rc<Objects>>,
    assignments: Rc<Assignments>,
    caches: Caches,
    compiled: Compiled,
    routes: Rc<RouteTable>,
    statuses: Rc<Statuses>,
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
    pub fn new(config: Rc<Config>, unix_at_zero: Duration) -> Self {
        Self {
            config,
            unix_at_zero,
            objects: None,
            assignments: Rc::default(),
            caches: Caches::default(),
            compiled: Compiled::default(),
            routes: Rc::default(),
            statuses: Rc::default(),
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
            let generation = self.routes.generation.next();
            self.routes = Rc::new(RouteTable { generation, listeners });
            out.send(wiring::DATAPATH, Message::Routes(Rc::clone(&self.routes)));
            out.send(wiring::ADMIN, Message::Routes(Rc::clone(&self.routes)));
        }
        self.report(out);
    }

    /// Sends the statuses if they have changed.
    fn report(&mut self, out: &mut Outbox<Message>) {
        let mut statuses = Statuses {
            problems: self.compiled.problems.clone(),
            generated: Rc::new(Generated {
                services: self.compiled.services.clone(),
                ..Generated::default()
            }),
            ..Statuses::default()
        };
        for (ingress, service, ports) in &self.compiled.owned {
            let key = ObjectKey { kind: Kind::Ingress, name: ingress.clone() };
            let addresses = self.assignments.by_service.get(service).cloned().unwrap_or_default();
            let status = ObjectStatus {
                load_balancer: Some(addresses),
                ports: ports.clone(),
                ..ObjectStatus::default()
            };
            statuses.by_object.insert(key, status);
        }
        if statuses != *self.statuses {
            self.statuses = Rc::new(statuses);
            out.send(wiring::STORE, Message::Statuses(Rc::clone(&self.statuses)));
        }
    }

    /// Whether a table that the routes are made from differs.
    fn is_new(&self, objects: &Objects) -> bool {
        let Some(old) = &self.objects else { return true };
        !(Rc::ptr_eq(&old.ingresses, &objects.ingresses)
            && Rc::ptr_eq(&old.ingress_classes, &objects.ingress_classes)
            && Rc::ptr_eq(&old.services, &objects.services)
            && Rc::ptr_eq(&old.secrets, &objects.secrets))
    }
}

/// Replaces those listeners that are as before by the old ones; false if all are.
fn share_unchanged(old: &[Rc<Listener>], new: Vec<Listener>) -> (Vec<Rc<Listener>>, bool) {
    let mut changed = old.len() != new.len();
    let mut shared = Vec::with_capacity(new.len());
    for (at, listener) in new.into_iter().enumerate() {
        let key = |l: &Listener| (l.service.clone(), l.port);
        let wanted = key(&listener);
        let same = old.binary_search_by_key(&wanted, |l| key(l)).ok().map(|at| (at, &old[at]));
        match same {
            Some((was_at, same)) if **same == listener => {
                changed |= was_at != at;
                shared.push(Rc::clone(same));
            }
            _ => {
                changed = true;
                shared.push(Rc::new(listener));
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
            _ => {}
        }
    }

    /// The next moment at which a certificate becomes valid or expires.
    fn timeout(&self) -> Option<Time> {
        let at = Duration::from_secs(self.compiled.next_change?);
        Some(Time::ZERO + at.saturating_sub(self.unix_at_zero))
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.compile(now, out);
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if self.objects.is_none() {
            return;
        }
        match peer {
            wiring::DATAPATH | wiring::ADMIN => {
                out.send(peer, Message::Routes(Rc::clone(&self.routes)))
            }
            wiring::STORE => out.send(peer, Message::Statuses(Rc::clone(&self.statuses))),
            _ => {}
        }
    }
}
