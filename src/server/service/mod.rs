//! L4 load balancing: from Services to frontends and backends, as the kernel's service programs must have them.
//!
//! **In:** `Objects` (Services, Nodes), `Endpoints`, `Assignments`, `Interfaces`, `Routes` (what the proxy serves is no
//! frontend), `Peer` (which other nodes live, and where), `Balanced`. **Out:** `Balancing` to the balancer driver and,
//! once that has acknowledged it, to admin, `Statuses` (conditions of Services that are balanced here, problems) to the store.
//!
//! | frontend | when | backends stay on the node with |
//! |---|---|---|
//! | addresses from LB-IPAM, those that may still change included | type LoadBalancer, a class of ours | `externalTrafficPolicy: Local` |
//! | `spec.externalIPs` | the same, or `--kube-proxy-replacement` | the same |
//! | `spec.clusterIPs` | `--kube-proxy-replacement` | `internalTrafficPolicy: Local` |
//! | node ports at the node's own addresses | `--kube-proxy-replacement` | `externalTrafficPolicy: Local` |
//!
//! **Invariants.** What is sent follows from the inputs alone, sorted; nothing is sent that equals what was sent before,
//! and a frontend that stays the same stays the same allocation. Only Services are computed whose objects, endpoints or
//! addresses have changed, unless the nodes have. Nothing is sent before all inputs are there: a restarted server must not
//! take away what works. Of two Services with the same address, port and protocol one has it on all nodes: see [`rank`].
mod frontend;
mod neighbors;
mod place;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use frontend::{Found, Given, transport};
use neighbors::Neighbors;
pub use neighbors::{MAX_NEIGHBORS, MOVED, SILENCE};
use place::Place;

use crate::api::address::{Assignments, Generation, Port};
use crate::api::config::Config;
use crate::api::datapath::Transport;
use crate::api::endpoint::{Endpoint, Endpoints, ServicePort};
use crate::api::interface::Interfaces;
use crate::api::meta::NamespacedName;
use crate::api::object::Service;
use crate::api::objects::Objects;
use crate::api::problem::Problem;
use crate::api::route::RouteTable;
use crate::api::service::{Balanced, Balancing, Frontend, FrontendKind, Reach};
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::arrange::Arrange;
use crate::kernel::{Outbox, Retired, Server, ServerId, Time};
use crate::proto::claims;

/// A new server waits for so long before it says that a node is out of reach: by then every live agent has been heard
/// (they speak once a second). What the programs have goes on meanwhile.
pub const LISTEN: Duration = Duration::from_millis(1_500);

/// The last of each whole-state message.
#[derive(Default)]
struct Inputs {
    objects: Option<Arc<Objects>>,
    endpoints: Option<Arc<Endpoints>>,
    assignments: Option<Arc<Assignments>>,
    interfaces: Option<Arc<Interfaces>>,
    routes: Option<Arc<RouteTable>>,
}

/// The same, all there.
#[derive(Clone)]
struct Complete {
    objects: Arc<Objects>,
    endpoints: Arc<Endpoints>,
    assignments: Arc<Assignments>,
    interfaces: Arc<Interfaces>,
    routes: Arc<RouteTable>,
}

/// What was computed for a Service, and from what.
struct Known {
    service: Arc<Service>,
    endpoints: Vec<Arc<[Endpoint]>>,
    addresses: Vec<IpAddr>,
    proxied: Vec<(Port, Transport)>,
    found: Found,
}

/// The ports of each Service that the proxy serves.
type Proxied<'a> = HashMap<&'a NamespacedName, Vec<(Port, Transport)>>;

/// The server; see the module.
pub struct ServiceServer {
    config: Arc<Config>,
    started: Time,
    inputs: Inputs,
    neighbors: Neighbors,
    place: Place,
    services: HashMap<NamespacedName, Known>,
    /// When what has come in is to be worked in.
    changed: Option<Time>,
    balancing: Option<Arc<Balancing>>,
    generation: Generation,
    /// Those of before, which others may still have.
    retired: Retired<Balancing>,
    /// The last acknowledgement of a current state, and that state.
    acknowledged: Option<(Arc<Balanced>, Arc<Balancing>)>,
    problems: Vec<Problem>,
    statuses: Arc<Statuses>,
    computed: u64,
}

// === impl Inputs ===

impl Inputs {
    fn complete(&self) -> Option<Complete> {
        Some(Complete {
            objects: self.objects.clone()?,
            endpoints: self.endpoints.clone()?,
            assignments: self.assignments.clone()?,
            interfaces: self.interfaces.clone()?,
            routes: self.routes.clone()?,
        })
    }
}

// === impl ServiceServer ===

impl ServiceServer {
    /// A server that knows nothing yet.
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            started: Time::ZERO,
            inputs: Inputs::default(),
            neighbors: Neighbors::default(),
            place: Place::default(),
            services: HashMap::new(),
            changed: None,
            balancing: None,
            generation: Generation::default(),
            retired: Retired::default(),
            acknowledged: None,
            problems: Vec::new(),
            statuses: Arc::default(),
            computed: 0,
        }
    }

    /// How many Services were computed since the start; for tests that count work instead of time.
    pub const fn computed(&self) -> u64 {
        self.computed
    }

    fn update(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(given) = self.inputs.complete() else { return };
        self.compute(&given);
        let (frontends, clashes) = self.merge(&given);
        let unheard = |it: &Arc<Frontend>| it.backends.iter().any(|b| b.reach == Reach::Elsewhere);
        let heard_all = self.started + LISTEN;
        if self.balancing.is_none() && now < heard_all && frontends.iter().any(unheard) {
            self.changed = Some(heard_all);
            return;
        }
        self.problems = clashes;
        self.problems.extend(self.services.values().flat_map(|it| it.found.problems.clone()));
        self.balance(now, &given, frontends, out);
        self.report(out);
    }

    /// Brings `services` up to date.
    fn compute(&mut self, given: &Complete) {
        let place = Place::new(&self.config, &given.interfaces, &given.objects, &self.neighbors);
        let moved = place != self.place;
        self.place = place;
        let proxied = proxied(&given.routes);
        let mut known = HashMap::with_capacity(given.objects.services.len());
        for (name, service) in given.objects.services.iter() {
            let mut entry = Known::new(service, given, &proxied);
            let old = self.services.remove(name);
            entry.found = match old {
                Some(old) if !moved && old.is_from(&entry) => old.found,
                old => {
                    self.computed += 1;
                    let mut found = frontend::compute(&self.given(&entry));
                    keep_same(&mut found.frontends, old.map(|old| old.found.frontends));
                    found
                }
            };
            known.insert(name.clone(), entry);
        }
        self.services = known;
    }

    fn given<'a>(&'a self, entry: &'a Known) -> Given<'a> {
        Given {
            service: &entry.service,
            endpoints: &entry.endpoints,
            addresses: &entry.addresses,
            proxied: &entry.proxied,
            place: &self.place,
            kube_proxy_replacement: self.config.kube_proxy_replacement,
        }
    }

    /// All frontends, sorted and each place once, and a complaint for each Service that has lost one.
    fn merge(&self, given: &Complete) -> (Vec<Arc<Frontend>>, Vec<Problem>) {
        let taken = taken(given);
        let mut all: Vec<&Arc<Frontend>> =
            self.services.values().flat_map(|it| &it.found.frontends).collect();
        all.arrange_by(|a, b| {
            let by = |it: &Frontend| (it.address, it.port, it.protocol, rank(it.kind));
            by(a).cmp(&by(b)).then_with(|| a.service.cmp(&b.service))
        });
        let mut frontends: Vec<Arc<Frontend>> = Vec::with_capacity(all.len());
        let mut clashes = Vec::new();
        for it in all {
            let proxied = transport(it.protocol)
                .and_then(|transport| taken.get(&(it.address, it.port, transport)).copied());
            let before = frontends.last().filter(|last| {
                (last.address, last.port, last.protocol) == (it.address, it.port, it.protocol)
            });
            match proxied.or_else(|| before.map(|last| &last.service)) {
                None => frontends.push(Arc::clone(it)),
                Some(first) if *first == it.service => {}
                Some(first) => clashes.extend(self.clash(it, first)),
            }
        }
        (frontends, clashes)
    }

    fn clash(&self, lost: &Frontend, first: &NamespacedName) -> Option<Problem> {
        let service = &self.services.get(&lost.service)?.service;
        let field = match lost.kind {
            FrontendKind::LoadBalancer => "",
            FrontendKind::ExternalIp => "spec.externalIPs",
            FrontendKind::ClusterIp => "spec.clusterIPs",
            FrontendKind::NodePort => "spec.ports",
        };
        let place = report::place(lost);
        let message =
            format!("{place} is not served: Service {first} has the same address and port");
        Some(frontend::problem(service, field, message))
    }

    /// Sends the state if it is another one.
    fn balance(
        &mut self,
        now: Time,
        given: &Complete,
        frontends: Vec<Arc<Frontend>>,
        out: &mut Outbox<Message>,
    ) {
        let own = place::own_addresses(&self.config, &given.interfaces);
        let interfaces = place::hooked(&self.config, &given.interfaces);
        let same = |old: &Arc<Balancing>| {
            old.own == own
                && old.interfaces == interfaces
                && old.frontends.len() == frontends.len()
                && old.frontends.iter().zip(&frontends).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if self.balancing.as_ref().is_some_and(same) {
            return;
        }
        self.generation = match self.generation {
            Generation(0) => Generation::first(now),
            known => known.next(),
        };
        let balancing =
            Arc::new(Balancing { generation: self.generation, own, interfaces, frontends });
        if let Some(former) = self.balancing.replace(balancing) {
            self.retired.add(now, former);
        }
        send(wiring::BALANCER, self.balancing.as_ref(), out);
    }

    fn balanced(&mut self, balanced: Arc<Balanced>, out: &mut Outbox<Message>) {
        // An acknowledgement from before a restart of this server: numbers go on from there.
        self.generation = self.generation.max(balanced.generation);
        let current = self.balancing.as_ref().filter(|it| it.generation == balanced.generation);
        let Some(balancing) = current.cloned() else { return };
        let shown = self.acknowledged.as_ref().map(|it| &it.1);
        if !shown.is_some_and(|shown| Arc::ptr_eq(shown, &balancing)) {
            send(wiring::ADMIN, Some(&balancing), out);
        }
        self.acknowledged = Some((balanced, balancing));
        self.report(out);
    }

    fn report(&mut self, out: &mut Outbox<Message>) {
        let mut statuses = Statuses { problems: self.problems.clone(), ..Statuses::default() };
        if let (Some((balanced, balancing)), Some(given)) =
            (&self.acknowledged, self.inputs.complete())
        {
            report::effects(&mut statuses, balanced, balancing, &given.assignments, &given.routes);
        }
        statuses.problems.arrange();
        if statuses != *self.statuses {
            self.statuses = Arc::new(statuses);
            out.send(wiring::STORE, Message::Statuses(Arc::clone(&self.statuses)));
        }
    }

    fn soon(&mut self, at: Time) {
        self.changed = Some(self.changed.map_or(at, |known| known.min(at)));
    }

    /// Another agent has sent something: it lives, and this is its address.
    fn peer(&mut self, now: Time, source: IpAddr, packet: &[u8]) {
        if let Ok(node) = claims::sender(packet)
            && *node != *self.config.node
            && self.neighbors.heard(now, &node, source)
        {
            self.soon(now);
        }
    }
}

impl Server<Message> for ServiceServer {
    fn start(&mut self, now: Time, _out: &mut Outbox<Message>) {
        self.started = now;
    }

    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Objects(objects) => self.inputs.objects = Some(objects),
            Message::Endpoints(endpoints) => self.inputs.endpoints = Some(endpoints),
            Message::Assignments(assignments) => self.inputs.assignments = Some(assignments),
            Message::Interfaces(interfaces) => self.inputs.interfaces = Some(interfaces),
            Message::Routes(routes) => self.inputs.routes = Some(routes),
            Message::Peer(source, packet) => return self.peer(now, source, &packet),
            Message::Balanced(balanced) => return self.balanced(balanced, out),
            _ => return,
        }
        self.soon(now);
    }

    /// What comes in together (all peers speak at once after a restart) is worked in together.
    fn timeout(&self) -> Option<Time> {
        let times = [self.changed, self.neighbors.timeout(), self.retired.timeout()];
        times.into_iter().flatten().min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.retired.sweep(now);
        if self.neighbors.forget(now) {
            self.soon(now);
        }
        if self.changed.is_some_and(|at| at <= now) {
            self.changed = None;
            self.update(now, out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        match peer {
            wiring::BALANCER => send(peer, self.balancing.as_ref(), out),
            wiring::ADMIN => send(peer, self.acknowledged.as_ref().map(|it| &it.1), out),
            wiring::STORE => out.send(peer, Message::Statuses(Arc::clone(&self.statuses))),
            _ => {}
        }
    }
}

// === impl Known ===

impl Known {
    fn new(service: &Arc<Service>, given: &Complete, proxied: &Proxied<'_>) -> Self {
        let name = &service.meta.name;
        let endpoints = service.ports.iter().map(|spec| {
            let (port, protocol) = (Port(spec.port), spec.protocol);
            let port = ServicePort { service: name.clone(), port, protocol };
            given.endpoints.by_port.get(&port).map_or_else(Arc::default, Arc::clone)
        });
        Self {
            service: Arc::clone(service),
            endpoints: endpoints.collect(),
            addresses: given.assignments.by_service.get(name).cloned().unwrap_or_default(),
            proxied: proxied.get(name).cloned().unwrap_or_default(),
            found: Found::default(),
        }
    }

    fn is_from(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<[Endpoint]>, &Arc<[Endpoint]>)| Arc::ptr_eq(a, b) || a == b;
        Arc::ptr_eq(&self.service, &other.service)
            && self.addresses == other.addresses
            && self.proxied == other.proxied
            && self.endpoints.len() == other.endpoints.len()
            && self.endpoints.iter().zip(&other.endpoints).all(same)
    }
}

fn send(to: ServerId, balancing: Option<&Arc<Balancing>>, out: &mut Outbox<Message>) {
    if let Some(balancing) = balancing {
        out.send(to, Message::Balancing(Arc::clone(balancing)));
    }
}

/// Who wins a place: what Kubernetes or LB-IPAM has given before what somebody has written, and a node's port before an
/// `externalIPs` that names the node. Among equals, the first name: the same on all nodes, whatever came first.
const fn rank(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => 0,
        FrontendKind::LoadBalancer => 1,
        FrontendKind::NodePort => 2,
        FrontendKind::ExternalIp => 3,
    }
}

fn proxied(routes: &RouteTable) -> Proxied<'_> {
    let mut proxied = Proxied::new();
    for listener in &routes.listeners {
        let place = (listener.port, listener.protocol.transport());
        proxied.entry(&listener.service).or_default().push(place);
    }
    proxied
}

/// The addresses and ports at which the proxy listens.
fn taken(given: &Complete) -> HashMap<(IpAddr, Port, Transport), &NamespacedName> {
    let mut taken = HashMap::new();
    for listener in &given.routes.listeners {
        let addresses = given.assignments.by_service.get(&listener.service);
        for &address in addresses.into_iter().flatten() {
            let place = (address, listener.port, listener.protocol.transport());
            taken.insert(place, &listener.service);
        }
    }
    taken
}

/// Puts what has not changed in the place of its equal, so that who has it sees at once that it is the same.
fn keep_same(frontends: &mut [Arc<Frontend>], old: Option<Vec<Arc<Frontend>>>) {
    let place = |it: &Frontend| (SocketAddr::new(it.address, it.port.0), it.protocol, it.kind);
    let mut known = BTreeMap::new();
    for it in old.into_iter().flatten() {
        known.insert(place(&it), it);
    }
    for it in frontends {
        if let Some(same) = known.get(&place(it)).filter(|old| *old == it) {
            *it = Arc::clone(same);
        }
    }
}
