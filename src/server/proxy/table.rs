//! What the connections read: the listeners, routes and endpoints of one moment.
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::balance::{Credits, Plan, identity};
use super::cluster::Cluster;
use super::limits::MAX_FORMER_TURNS;
use super::upstream::Hosts;
use crate::api::address::Port;
use crate::api::datapath::Transport;
use crate::api::endpoint::{Endpoint, Endpoints, ServicePort};
use crate::api::route::{
    Action, Backend, Listener, ListenerProtocol, ListenerTable, Route, Target, UpstreamSettings,
};
use crate::io::tcp::ANY;
use crate::kernel::Time;

type Doors = HashMap<(Option<IpAddr>, Port, Transport), Door>;
/// With the number of replacements since it was somebody's turn.
type Turns = HashMap<u64, (u32, Credits)>;
type Plans = HashMap<*const Route, Rc<Plan>, BuildHasherDefault<PointerHasher>>;
/// Usually one of a Service port: backends rarely differ in their settings.
type Clusters = HashMap<ServicePort, Vec<Made>>;

/// A cluster, and the endpoint list that it was made from, to see whether it has changed.
struct Made {
    list: Arc<[Endpoint]>,
    cluster: Rc<Cluster>,
}

/// Immutable but for the turns of the balancing and what is made on demand; replaced whole. A request
/// keeps the one it began with.
pub(super) struct Snapshot {
    /// Who listens where; the address is None for whatever is not an address of its own.
    doors: Doors,
    /// What the balancing is made from.
    endpoints: Arc<Endpoints>,
    /// Keeps the routes, whose addresses are the keys of `plans`, alive.
    table: Arc<ListenerTable>,
    plans: RefCell<Plans>,
    /// Whose turn it was at weighted routes of the snapshots before, by the identity of the route.
    turns: Turns,
    clusters: RefCell<Clusters>,
    hosts: Rc<Hosts>,
}

/// The listeners at one address and port. In host-network mode one port serves HTTP and TLS (ING-16).
#[derive(Clone, Default)]
pub(super) struct Door {
    pub(super) http: Option<Arc<Listener>>,
    pub(super) tls: Option<Arc<Listener>>,
    /// Takes connections or datagrams as they are; there is no other then.
    pub(super) whole: Option<Arc<Listener>>,
}

/// Several listeners want what only one can have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) port: Port,
    pub(super) services: Vec<String>,
}

/// The address of a route spreads well enough by itself.
#[derive(Default)]
pub(super) struct PointerHasher(u64);

// === impl Snapshot ===

impl Snapshot {
    pub(super) fn empty(hosts: Rc<Hosts>) -> Self {
        Self {
            doors: HashMap::new(),
            endpoints: Arc::default(),
            table: Arc::default(),
            plans: RefCell::default(),
            turns: Turns::new(),
            clusters: RefCell::default(),
            hosts,
        }
    }

    /// The successor of `before`. With `host_network` the listeners share the node's ports.
    pub(super) fn new(
        before: &Self,
        table: Arc<ListenerTable>,
        endpoints: Arc<Endpoints>,
        host_network: bool,
        now: Time,
    ) -> (Self, Vec<Conflict>) {
        let (doors, conflicts) =
            if host_network { host_doors(&table) } else { (steered_doors(&table), Vec::new()) };
        let hosts = Rc::clone(&before.hosts);
        let clusters = kept_clusters(before, &endpoints, now);
        let snapshot = Self {
            doors,
            endpoints,
            table,
            plans: RefCell::default(),
            turns: before.turns_so_far(),
            clusters: RefCell::new(clusters),
            hosts,
        };
        (snapshot, conflicts)
    }

    pub(super) const fn table(&self) -> &Arc<ListenerTable> {
        &self.table
    }

    pub(super) const fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// Who listens at the address a client has connected to.
    pub(super) fn door(&self, local: SocketAddr) -> Option<&Door> {
        self.door_of(local, Transport::Tcp)
    }

    fn door_of(&self, local: SocketAddr, transport: Transport) -> Option<&Door> {
        let port = Port(local.port());
        self.doors
            .get(&(Some(local.ip().to_canonical()), port, transport))
            .or_else(|| self.doors.get(&(None, port, transport)))
    }

    /// Who takes the datagrams that are sent to this address.
    pub(super) fn datagrams(&self, local: SocketAddr) -> Option<&Arc<Listener>> {
        self.door_of(local, Transport::Udp)?.whole.as_ref()
    }

    /// Whether a listener of this one has no successor.
    pub(super) fn has_doors_that_are_not_in(&self, other: &Self) -> bool {
        self.doors.keys().any(|key| !other.doors.contains_key(key))
    }

    /// Where to listen besides the sockets that are steered to, with the Services that want it: in host-network mode the
    /// ports of the node, else the addresses of UDP listeners.
    pub(super) fn places(
        &self,
        host_network: bool,
    ) -> BTreeMap<(Transport, SocketAddr), Vec<String>> {
        let mut places: BTreeMap<_, Vec<String>> = BTreeMap::new();
        let mut add = |transport, address, listener: &Listener| {
            let names = places.entry((transport, address)).or_default();
            let name = listener.service.to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        };
        if host_network {
            for listener in &self.table.all {
                for ip in ANY {
                    let address = SocketAddr::new(ip, host_port(listener).0);
                    add(listener.protocol.transport(), address, listener);
                }
            }
        } else {
            for (&(ip, port, transport), listener) in &self.table.by_address {
                if transport == Transport::Udp {
                    add(transport, SocketAddr::new(ip, port.0), listener);
                }
            }
        }
        places
    }

    /// The balancing of a route of this snapshot.
    #[inline]
    pub(super) fn plan(&self, route: &Arc<Route>) -> Rc<Plan> {
        if let Some(plan) = self.plans.borrow().get(&Arc::as_ptr(route)) {
            return Rc::clone(plan);
        }
        self.make_plan(route)
    }

    #[cold]
    fn make_plan(&self, route: &Arc<Route>) -> Rc<Plan> {
        let backends: &[_] = match &route.action {
            Action::Forward(backends) => backends,
            Action::RedirectHttps(_) | Action::Redirect(_) | Action::Refuse(..) => &[],
        };
        let plan = Plan::new(identity(route), backends, &mut |backend| self.cluster(backend));
        if let Some((_, credits)) = plan.identity().and_then(|identity| self.turns.get(&identity)) {
            plan.go_on(credits);
        }
        let plan = Rc::new(plan);
        self.plans.borrow_mut().insert(Arc::as_ptr(route), Rc::clone(&plan));
        plan
    }

    /// The endpoints of a backend; none if it can only be refused.
    pub(super) fn cluster(&self, backend: &Backend) -> Rc<Cluster> {
        let settings = &backend.settings;
        let mut host = |endpoint: &Endpoint| self.hosts.get(endpoint.address, settings);
        let Target::Service(service) = &backend.target else {
            return Rc::new(Cluster::new(Arc::clone(settings), &[], None, Time::ZERO, &mut host));
        };
        let mut clusters = self.clusters.borrow_mut();
        if let Some(made) = clusters.get(service)
            && let Some(made) = made.iter().find(|made| is_same(made.cluster.settings(), settings))
        {
            return Rc::clone(&made.cluster);
        }
        let list = self.endpoints.by_port.get(service).map_or_else(|| Arc::from([]), Arc::clone);
        let cluster = Cluster::new(Arc::clone(settings), &list, None, Time::ZERO, &mut host);
        let cluster = Rc::new(cluster);
        let made = Made { list, cluster: Rc::clone(&cluster) };
        clusters.entry(service.clone()).or_default().push(made);
        cluster
    }

    /// Lets weighted routes go on where their predecessors were, so that shares stay exact however often the tables
    /// are replaced. Costs what the routes in use cost, not what the table does.
    fn turns_so_far(&self) -> Turns {
        let mut turns: Turns = self
            .turns
            .iter()
            .map(|(identity, (age, credits))| (*identity, (age + 1, Rc::clone(credits))))
            .collect();
        for plan in self.plans.borrow().values() {
            if let Some(identity) = plan.identity() {
                turns.insert(identity, (0, plan.credits()));
            }
        }
        // Of routes that nobody has asked for since, or that are gone.
        let mut oldest = turns.values().map(|(age, _)| *age).max().unwrap_or(0);
        while turns.len() > MAX_FORMER_TURNS && oldest > 0 {
            turns.retain(|_, (age, _)| *age < oldest);
            oldest -= 1;
        }
        turns
    }
}

// === impl Door ===

impl Door {
    pub(super) fn of(listener: &Arc<Listener>) -> Self {
        let mut door = Self::default();
        *door.side(listener.protocol) = Some(Arc::clone(listener));
        door
    }

    pub(super) fn get(&self, protocol: ListenerProtocol) -> Option<&Arc<Listener>> {
        match protocol {
            ListenerProtocol::Http => self.http.as_ref(),
            ListenerProtocol::Tls => self.tls.as_ref(),
            ListenerProtocol::Tcp | ListenerProtocol::Udp => self.whole.as_ref(),
        }
    }

    /// Whether connections must begin with a PROXY protocol header.
    pub(super) fn wants_header(&self) -> bool {
        let all = [&self.http, &self.tls, &self.whole].into_iter().flatten();
        all.clone().any(|listener| listener.accept_proxy_protocol)
    }

    fn side(&mut self, protocol: ListenerProtocol) -> &mut Option<Arc<Listener>> {
        match protocol {
            ListenerProtocol::Http => &mut self.http,
            ListenerProtocol::Tls => &mut self.tls,
            ListenerProtocol::Tcp | ListenerProtocol::Udp => &mut self.whole,
        }
    }
}

// === impl PointerHasher ===

impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_usize(&mut self, address: usize) {
        // Routes are aligned; a multiplication moves what differs to the bits the table looks at.
        self.0 = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn steered_doors(table: &ListenerTable) -> Doors {
    let door = |(&(address, port, transport), listener): (&(_, _, _), &Arc<Listener>)| {
        ((Some(address), port, transport), Door::of(listener))
    };
    table.by_address.iter().map(door).collect()
}

fn host_port(listener: &Listener) -> Port {
    listener.host_port.unwrap_or(listener.port)
}

/// A virtual address if the client came to one (something else has put it on this node); else the
/// shared listener of the port; else the only one.
fn host_doors(table: &ListenerTable) -> (Doors, Vec<Conflict>) {
    let mut doors = Doors::new();
    for ((address, _, transport), listener) in &table.by_address {
        let door = doors.entry((Some(*address), host_port(listener), *transport)).or_default();
        *door.side(listener.protocol) = Some(Arc::clone(listener));
    }
    let mut claims: BTreeMap<(Port, ListenerProtocol), Vec<&Arc<Listener>>> = BTreeMap::new();
    for listener in &table.all {
        claims.entry((host_port(listener), listener.protocol)).or_default().push(listener);
    }
    let mut conflicts = Vec::new();
    for ((port, protocol), claimants) in claims {
        let shared = || claimants.iter().find(|listener| listener.shared);
        let winner = if let [only] = claimants[..] { Some(only) } else { shared().copied() };
        if let Some(winner) = winner {
            let door = doors.entry((None, port, protocol.transport())).or_default();
            *door.side(protocol) = Some(Arc::clone(winner));
        } else {
            let services = claimants.iter().map(|listener| listener.service.to_string()).collect();
            conflicts.push(Conflict { port, services });
        }
    }
    for ((_, port, _), door) in &mut doors {
        // Who takes whole connections leaves none to the others.
        if let (Some(whole), Some(other)) = (&door.whole, door.http.as_ref().or(door.tls.as_ref()))
        {
            let services = [whole, other].map(|listener| listener.service.to_string()).into();
            conflicts.push(Conflict { port: *port, services });
            door.whole = None;
        }
    }
    (doors, conflicts)
}

/// The clusters in use, with their turns; those whose endpoints did not change are shared.
fn kept_clusters(before: &Snapshot, endpoints: &Endpoints, now: Time) -> Clusters {
    let mut kept = Clusters::new();
    for (service, made) in &*before.clusters.borrow() {
        let Some(list) = endpoints.by_port.get(service) else { continue };
        // One of settings that no route has any more is held by nothing but the map.
        let used = made.iter().filter(|made| {
            **made.cluster.settings() == UpstreamSettings::default()
                || Rc::strong_count(&made.cluster) > 1
        });
        let again = used.map(|made| {
            let same = Arc::ptr_eq(list, &made.list) || *list == made.list;
            let old = &made.cluster;
            let cluster = if same {
                Rc::clone(old)
            } else {
                let settings = old.settings();
                let mut host = |endpoint: &Endpoint| before.hosts.get(endpoint.address, settings);
                Rc::new(Cluster::new(Arc::clone(settings), list, Some(old), now, &mut host))
            };
            Made { list: Arc::clone(list), cluster }
        });
        kept.insert(service.clone(), again.collect());
    }
    kept
}

fn is_same(a: &Arc<UpstreamSettings>, b: &Arc<UpstreamSettings>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
