//! Joins what is routed, who has which address and who answers for it, and hands it to those who carry
//! it out: listeners to the proxy, answers and steering to the kernel's hooks.
//!
//! What is reported is computed from effects: `pilus.dev/Programmed` of a Service tells what the hooks
//! have acknowledged, not what they were asked for. With `--no-bpf` there are no hooks.
//!
//! In: `Routes`, `Assignments`, `Answers`, `Interfaces`, `Programmed`, `Listening`, `Shutdown`. Out: `Listeners` to
//! the proxy, `Program` to the bpf driver, `Serving` to the route server, `Statuses` to the store, `Released` to the
//! signal driver.
mod serving;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::api::address::{Assignments, Generation, Port};
use crate::api::announce::Answers;
use crate::api::config::Config;
use crate::api::datapath::{Program, Programmed, Steer, Transport};
use crate::api::interface::Interfaces;
use crate::api::meta::{Kind, NamespacedName, ObjectKey};
use crate::api::problem::{Problem, Severity};
use crate::api::route::{Listener, ListenerTable, RouteTable, Serving};
use crate::api::status::{Condition, ObjectStatus, Statuses, Truth};
use crate::api::{Message, wiring};
use crate::arrange::Arrange;
use crate::kernel::{Outbox, Server, ServerId, Time};

/// The condition of a Service whose listeners the hooks hold.
const PROGRAMMED: &str = "pilus.dev/Programmed";

/// The addresses and ports of each Service that is served here.
type Served = BTreeMap<NamespacedName, Vec<Place>>;

/// Where a listener is reached.
type Place = (IpAddr, Port, Transport);

/// The server; see the module.
pub struct DatapathServer {
    no_bpf: bool,
    routes: Option<Arc<RouteTable>>,
    assignments: Option<Arc<Assignments>>,
    answers: Option<Arc<Answers>>,
    interfaces: Option<Arc<Interfaces>>,
    /// Since when something has come in that has not been worked in.
    changed: Option<Time>,
    listeners: Option<Arc<ListenerTable>>,
    /// Two Services with the same address and port: the one that is not served there.
    clashes: Vec<Clash>,
    /// All places, also those that the hooks may not steer.
    places: Served,
    /// What the proxy has taken over.
    listening: Option<(Generation, Arc<[String]>)>,
    program: Option<Arc<Program>>,
    /// The routes that the current program goes with.
    program_routes: Generation,
    /// What the current program serves.
    served: Arc<Served>,
    /// The last acknowledgement of a current program, and what that program served.
    acknowledged: Option<(Arc<Programmed>, Arc<Served>)>,
    statuses: Arc<Statuses>,
    serving: Arc<Serving>,
    generation: Generation,
    stopping: bool,
}

/// A place of a listener that another Service has.
struct Clash {
    listener: Arc<Listener>,
    problem: Problem,
}

// === impl DatapathServer ===

impl DatapathServer {
    /// A server that knows nothing yet.
    pub fn new(config: &Config) -> Self {
        Self {
            no_bpf: config.no_bpf,
            routes: None,
            assignments: None,
            answers: None,
            interfaces: None,
            changed: None,
            listeners: None,
            clashes: Vec::new(),
            places: Served::new(),
            listening: None,
            program: None,
            program_routes: Generation::default(),
            served: Arc::default(),
            acknowledged: None,
            statuses: Arc::default(),
            serving: Arc::default(),
            generation: Generation::default(),
            stopping: false,
        }
    }

    /// Computes and sends what follows from the latest input. Nothing goes out before routes, addresses
    /// and answers are known: a restarted server must not take away what works.
    fn update(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(routes) = self.routes.clone() else { return };
        let assignments = match &self.assignments {
            Some(assignments) => Arc::clone(assignments),
            None if self.no_bpf => Arc::default(),
            None => return,
        };
        let served = self.join(now, &routes, &assignments, out);
        self.places.clone_from(&served);
        if !self.no_bpf {
            self.program(served, routes.generation, out);
        }
        self.report(out);
    }

    fn join(
        &mut self,
        now: Time,
        routes: &RouteTable,
        assignments: &Assignments,
        out: &mut Outbox<Message>,
    ) -> Served {
        let mut table = ListenerTable {
            routes: routes.generation,
            all: routes.listeners.clone(),
            ..ListenerTable::default()
        };
        let mut served = Served::new();
        self.clashes.clear();
        for listener in &routes.listeners {
            let addresses = assignments.by_service.get(&listener.service);
            for &address in addresses.into_iter().flatten() {
                let key = (address, listener.port, listener.protocol.transport());
                if let Some(first) = table.by_address.get(&key) {
                    let problem = clash(listener, first, address);
                    self.clashes.push(Clash { listener: Arc::clone(listener), problem });
                    continue;
                }
                table.by_address.insert(key, Arc::clone(listener));
                served.entry(listener.service.clone()).or_default().push(key);
            }
        }
        let same = |old: &Arc<ListenerTable>| is_same(old, &table) && old.routes == table.routes;
        if !self.listeners.as_ref().is_some_and(same) {
            table.generation =
                self.listeners.as_ref().map_or(Generation::first(now), |l| l.generation.next());
            let table = Arc::new(table);
            self.listeners = Some(Arc::clone(&table));
            out.send(wiring::PROXY, Message::Listeners(Arc::clone(&table)));
            out.send(wiring::ADMIN, Message::Listeners(table));
        }
        served
    }

    fn program(&mut self, served: Served, routes: Generation, out: &mut Outbox<Message>) {
        let Some(announced) = self.answers.clone() else { return };
        let mut steers: Vec<Steer> = served
            .values()
            .flatten()
            .filter(|(address, ..)| announced.considered.contains(address))
            .map(|&(address, port, transport)| Steer { address, port, transport })
            .collect();
        steers.arrange();
        let mut answers = (*announced).clone();
        if let Some(interfaces) = &self.interfaces {
            // An interface that is gone has no hook to program; announce will say so in a moment.
            answers.answers.retain(|a| interfaces.list.iter().any(|i| i.index == a.interface));
        }
        self.program_routes = routes;
        let same = |old: &Arc<Program>| old.answers == answers && old.steers == steers;
        if !self.program.as_ref().is_some_and(same) {
            self.send_program(answers, steers, out);
            self.served = Arc::new(served);
        }
    }

    fn send_program(&mut self, answers: Answers, steers: Vec<Steer>, out: &mut Outbox<Message>) {
        self.generation = self.generation.next();
        let program = Arc::new(Program { generation: self.generation, answers, steers });
        self.program = Some(Arc::clone(&program));
        out.send(wiring::BPF, Message::Program(program));
    }

    fn programmed(&mut self, programmed: Arc<Programmed>, out: &mut Outbox<Message>) {
        // An acknowledgement from before a restart of this server: numbers go on from there.
        self.generation = self.generation.max(programmed.generation);
        let current = self.program.as_ref().map(|program| program.generation);
        if current != Some(programmed.generation) {
            return;
        }
        self.acknowledged = Some((programmed, Arc::clone(&self.served)));
        if self.stopping {
            out.send(wiring::SIGNAL, Message::Released);
        } else {
            self.report(out);
        }
    }

    fn report(&mut self, out: &mut Outbox<Message>) {
        self.report_serving(out);
        let problems = self.clashes.iter().map(|clash| clash.problem.clone()).collect();
        let mut statuses = Statuses { problems, ..Statuses::default() };
        if let Some((programmed, served)) = &self.acknowledged {
            statuses.problems.extend(programmed.failures.iter().map(|text| failure(text)));
            for (service, places) in served.iter() {
                let key = ObjectKey { kind: Kind::Service, name: service.clone() };
                let conditions = vec![condition(places, &programmed.failures)];
                let status = ObjectStatus { conditions, ..ObjectStatus::default() };
                statuses.by_object.insert(key, status);
            }
        }
        statuses.problems.arrange();
        if statuses != *self.statuses {
            self.statuses = Arc::new(statuses);
            out.send(wiring::STORE, Message::Statuses(Arc::clone(&self.statuses)));
        }
    }

    fn stop(&mut self, out: &mut Outbox<Message>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.changed = None;
        if self.no_bpf {
            out.send(wiring::SIGNAL, Message::Released);
        } else {
            self.send_program(Answers::default(), Vec::new(), out);
        }
    }
}

impl Server<Message> for DatapathServer {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Routes(routes) => self.routes = Some(routes),
            Message::Assignments(assignments) => self.assignments = Some(assignments),
            Message::Answers(answers) => self.answers = Some(answers),
            Message::Interfaces(interfaces) => self.interfaces = Some(interfaces),
            Message::Programmed(programmed) => return self.programmed(programmed, out),
            Message::Listening(generation, faults) => {
                self.listening = Some((generation, faults));
                return self.report_serving(out);
            }
            Message::Shutdown => return self.stop(out),
            _ => return,
        }
        if !self.stopping {
            self.changed.get_or_insert(now);
        }
    }

    /// What comes in together (all peers speak at once after a restart) is worked in together.
    fn timeout(&self) -> Option<Time> {
        self.changed
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        if self.changed.take().is_some() {
            self.update(now, out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        match (peer, &self.program, &self.listeners) {
            (wiring::BPF, Some(program), _) => {
                out.send(peer, Message::Program(Arc::clone(program)))
            }
            (wiring::PROXY | wiring::ADMIN, _, Some(listeners)) => {
                out.send(peer, Message::Listeners(Arc::clone(listeners)));
            }
            (wiring::ROUTE, ..) => out.send(peer, Message::Serving(Arc::clone(&self.serving))),
            (wiring::STORE, ..) => out.send(peer, Message::Statuses(Arc::clone(&self.statuses))),
            _ => {}
        }
    }
}

fn is_same(old: &ListenerTable, new: &ListenerTable) -> bool {
    old.all.len() == new.all.len()
        && old.by_address.len() == new.by_address.len()
        && old.all.iter().zip(&new.all).all(|(a, b)| Arc::ptr_eq(a, b))
        && old.by_address.iter().all(|(key, listener)| {
            new.by_address.get(key).is_some_and(|other| Arc::ptr_eq(listener, other))
        })
}

fn clash(listener: &Listener, first: &Listener, address: IpAddr) -> Problem {
    Problem {
        position: None,
        object: Some(ObjectKey { kind: Kind::Service, name: listener.service.clone() }),
        field: String::new(),
        message: format!(
            "{} is not served: Service {} has the same address and port",
            SocketAddr::new(address, listener.port.0),
            first.service
        ),
        severity: Severity::Error,
    }
}

fn failure(text: &str) -> Problem {
    Problem {
        position: None,
        object: None,
        field: String::new(),
        message: format!("data path: {text}"),
        severity: Severity::Error,
    }
}

/// Whether the hooks hold all places of a Service: no failure names one of its addresses.
fn condition(places: &[Place], failures: &[String]) -> Condition {
    let concerned = failures.iter().find(|text| places.iter().any(|(ip, ..)| names(text, *ip)));
    match concerned {
        Some(text) => Condition {
            kind: PROGRAMMED,
            status: Truth::False,
            reason: "Failed".into(),
            message: text.clone(),
        },
        None => {
            let places: Vec<String> = places
                .iter()
                .map(|&(ip, port, _)| SocketAddr::new(ip, port.0).to_string())
                .collect();
            Condition {
                kind: PROGRAMMED,
                status: Truth::True,
                reason: "Programmed".into(),
                message: format!("{} reach the proxy", places.join(", ")),
            }
        }
    }
}

/// Whether a sentence names the address, by itself, with a prefix length or with a port.
fn names(text: &str, address: IpAddr) -> bool {
    text.split_whitespace().any(|word| {
        let word = word.trim_matches(|c: char| ",;.()'\"".contains(c)).trim_end_matches(':');
        let bare = word.split('/').next().unwrap_or(word);
        bare.parse() == Ok(address)
            || word.parse::<SocketAddr>().is_ok_and(|socket| socket.ip() == address)
    })
}

#[cfg(test)]
mod tests;
