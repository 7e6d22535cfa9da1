//! Clusters of 2 to 5 servers in virtual time, with clocks of their own, on a network that loses, delays,
//! reorders and partitions, with objects that arrive at each node in another order, and restarts.
//!
//! `PILUS_IPAM_SEEDS=N` runs more seeds than usual, `PILUS_IPAM_SEED=S` one again.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pilus::api::file::StateBlob;
use pilus::api::meta::NamespacedName;
use pilus::api::object::{IpBlock, IpFamilyPolicy, Pool, Service};
use pilus::api::objects::Objects;
use pilus::api::{Message, wiring};
use pilus::kernel::{Outbox, Server, Time};
use pilus::server::ipam::Ipam;

use crate::harness::*;

const SEEDS: u64 = 2_000;
/// Objects reach the nodes within this time of each other: less than an address takes to settle.
const SKEW: u64 = 500;

/// In some partitions they do not: the sides then give away the same addresses differently.
const LATE: u64 = 6_000;

type Assigned = BTreeMap<NamespacedName, Vec<IpAddr>>;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
enum Change {
    Service(NamespacedName, Option<Arc<Service>>),
    Pool(NamespacedName, Option<Arc<Pool>>),
}

enum Event {
    Packet(usize, Arc<[u8]>),
    Change(usize, Change),
}

struct Machine {
    name: String,
    ipam: Option<Ipam>,
    /// Its clock is ahead of the world's by this.
    offset: Duration,
    /// When its next timer is due, on the world's clock.
    due: Option<Time>,
    saved: Option<Vec<u8>>,
    services: BTreeMap<NamespacedName, Arc<Service>>,
    pools: BTreeMap<NamespacedName, Arc<Pool>>,
    assigned: Assigned,
    side: u8,
    /// When the last change of each object arrives, so that those of one object keep their order.
    arrivals: BTreeMap<String, Time>,
}

struct World {
    random: Random,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    count: u64,
    machines: Vec<Machine>,
    loss: u64,
    delay: u64,
    skew: u64,
    /// Services reach some nodes seconds later than others.
    late: bool,
    // The objects as they were last written.
    services: BTreeMap<NamespacedName, Arc<Service>>,
    pools: BTreeMap<NamespacedName, Arc<Pool>>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let nodes = 2 + random.below(4);
        let machines = (0..nodes).map(|n| Machine {
            name: format!("node-{n}"),
            ipam: None,
            offset: Duration::from_secs(random.below(1_000_000)),
            due: None,
            saved: None,
            services: BTreeMap::new(),
            pools: BTreeMap::new(),
            assigned: Assigned::new(),
            side: 0,
            arrivals: BTreeMap::new(),
        });
        let machines = machines.collect();
        let loss = [0, 5, 30][usize::try_from(random.below(3)).unwrap()];
        let delay = [1, 20, 200][usize::try_from(random.below(3)).unwrap()];
        Self {
            random,
            now: Time::from_nanos(1),
            events: BTreeMap::new(),
            count: 0,
            machines,
            loss,
            delay,
            skew: SKEW,
            late: false,
            services: BTreeMap::new(),
            pools: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:?} {text}", self.now));
    }

    fn push(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn boot(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let now = self.now + machine.offset;
        let mut ipam = Ipam::new(Arc::new(config(&machine.name)));
        ipam.start(now, &mut Outbox::new());
        machine.ipam = Some(ipam);
        machine.assigned.clear();
        let blob = StateBlob { name: "addresses", content: machine.saved.clone() };
        self.tell(at, Message::Restored(blob));
        self.tell_objects(at);
    }

    fn tell_objects(&mut self, at: usize) {
        let machine = &self.machines[at];
        let objects = Objects {
            services: Arc::new(machine.services.clone()),
            pools: Arc::new(machine.pools.clone()),
            ..Objects::default()
        };
        self.tell(at, Message::Objects(Arc::new(objects)));
    }

    fn tell(&mut self, at: usize, message: Message) {
        let machine = &mut self.machines[at];
        let now = self.now + machine.offset;
        let mut out = Outbox::new();
        let Some(ipam) = machine.ipam.as_mut() else { return };
        ipam.handle(now, wiring::STORE, message, &mut out);
        self.listen(at, out);
    }

    fn listen(&mut self, at: usize, mut out: Outbox<Message>) {
        let machine = &mut self.machines[at];
        let due = machine.ipam.as_ref().and_then(Server::timeout);
        machine.due = due.map(|due| due - machine.offset);
        for (to, message) in out.take() {
            match message {
                Message::Assignments(new) if to == wiring::STORE => {
                    self.machines[at].assigned = new.by_service.clone();
                }
                Message::Save(blob) => self.machines[at].saved = blob.content,
                Message::SendPeers(bytes) => self.broadcast(at, &bytes),
                _ => {}
            }
        }
    }

    fn broadcast(&mut self, from: usize, bytes: &Arc<[u8]>) {
        for to in 0..self.machines.len() {
            let apart = self.machines[from].side != self.machines[to].side;
            if to == from || apart || self.random.chance(self.loss) {
                continue;
            }
            let copies = if self.random.chance(2) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = Duration::from_millis(1 + self.random.below(self.delay));
                self.push(self.now + delay, Event::Packet(to, Arc::clone(bytes)));
            }
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let event = self.events.keys().next().map(|key| key.0);
            let timer =
                (0..self.machines.len()).filter_map(|at| Some((self.machines[at].due?, at))).min();
            let first = [event, timer.map(|timer| timer.0)].into_iter().flatten().min();
            let Some(first) = first.filter(|first| *first <= end) else { break };
            self.now = self.now.max(first);
            if event == Some(first) {
                let ((_, _), event) = self.events.pop_first().unwrap();
                self.happen(event);
            } else if let Some((_, at)) = timer {
                let machine = &mut self.machines[at];
                let mut out = Outbox::new();
                if let Some(ipam) = machine.ipam.as_mut() {
                    ipam.tick(self.now + machine.offset, &mut out);
                }
                self.listen(at, out);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Packet(to, bytes) => self.tell(to, Message::Peer(ip("192.0.2.1"), bytes)),
            Event::Change(to, change) => {
                let machine = &mut self.machines[to];
                match change {
                    Change::Service(name, Some(new)) => drop(machine.services.insert(name, new)),
                    Change::Service(name, None) => drop(machine.services.remove(&name)),
                    Change::Pool(name, Some(new)) => drop(machine.pools.insert(name, new)),
                    Change::Pool(name, None) => drop(machine.pools.remove(&name)),
                }
                self.tell_objects(to);
            }
        }
    }

    /// Writes an object; it arrives everywhere a little later.
    fn change(&mut self, change: Change) {
        self.note(format!("{change:?}").chars().take(160).collect());
        let key = match &change {
            Change::Service(name, _) => format!("s{name}"),
            Change::Pool(name, _) => format!("p{name}"),
        };
        match change.clone() {
            Change::Service(name, Some(new)) => drop(self.services.insert(name, new)),
            Change::Service(name, None) => drop(self.services.remove(&name)),
            Change::Pool(name, Some(new)) => drop(self.pools.insert(name, new)),
            Change::Pool(name, None) => drop(self.pools.remove(&name)),
        }
        for to in 0..self.machines.len() {
            let at = self.now + Duration::from_millis(self.random.below(self.skew));
            let last = self.machines[to].arrivals.get(&key).copied().unwrap_or_default();
            let at = at.max(last);
            self.machines[to].arrivals.insert(key.clone(), at);
            self.push(at, Event::Change(to, change.clone()));
        }
    }

    fn random_service(&mut self) -> Service {
        let names = ["a/a", "a/b", "a/c", "b/a", "b/b", "c/c", "c/d", "d/d"];
        let mut one = service(names[usize::try_from(self.random.below(8)).unwrap()]);
        if self.random.chance(25) {
            let first = self.random.below(14);
            one = one.ips(&format!("10.0.0.{first}"));
        } else if self.random.chance(30) {
            one = one.key("k").port(80 + u16::try_from(self.random.below(3)).unwrap());
        }
        match self.random.below(6) {
            0 => one.families(IpFamilyPolicy::PreferDualStack, &[]),
            1 => one.families(IpFamilyPolicy::SingleStack, &[true]),
            _ => one,
        }
    }

    fn random_pool(&mut self) -> Pool {
        let (text, first) = [("p", 1), ("q", 8)][usize::try_from(self.random.below(2)).unwrap()];
        let last = first + self.random.below(7);
        let v6 = if self.random.chance(50) { " fd00::1-fd00::4" } else { "" };
        let v6 = if text == "p" { v6 } else { "" };
        let mut new = pool(text, &format!("10.0.0.{first}-10.0.0.{last}{v6}"));
        new.disabled = self.random.chance(10);
        new
    }

    fn change_something(&mut self) {
        let change = match self.random.below(if self.late { 7 } else { 10 }) {
            0..=4 => {
                let new = self.random_service();
                Change::Service(new.meta.name.clone(), Some(Arc::new(new)))
            }
            5..=6 => Change::Service(self.random_service().meta.name, None),
            7 => Change::Pool(self.random_pool().meta.name, None),
            _ => {
                let new = self.random_pool();
                Change::Pool(new.meta.name.clone(), Some(Arc::new(new)))
            }
        };
        self.change(change);
    }

    /// All nodes up and connected; runs until they agree, and some more.
    fn settle(&mut self) -> Result<Assigned, String> {
        if std::mem::take(&mut self.late) {
            self.run(LATE);
        }
        self.skew = SKEW;
        for at in 0..self.machines.len() {
            self.machines[at].side = 0;
            if self.machines[at].ipam.is_none() {
                self.boot(at);
            }
        }
        self.run(4_000);
        let mut rounds = 0;
        while !self.agreed() {
            rounds += 1;
            if rounds > 60 {
                let all: Vec<_> = self.machines.iter().map(|m| &m.assigned).collect();
                return Err(format!("no agreement: {all:#?}"));
            }
            self.run(1_000);
        }
        let before = self.machines[0].assigned.clone();
        self.run(3_000);
        if !self.agreed() || self.machines[0].assigned != before {
            return Err(format!("agreed and changed again: {before:#?}"));
        }
        self.check(&before)?;
        Ok(before)
    }

    fn agreed(&self) -> bool {
        self.machines.iter().all(|machine| machine.assigned == self.machines[0].assigned)
    }

    // What follows judges results by the specification, in the simplest way, without the server's code.

    fn allowed(&self, name: &NamespacedName, address: IpAddr) -> bool {
        let Some(service) = self.services.get(name) else { return false };
        let requested = requested(service);
        let asked = if requested.is_empty() {
            self.families(service).contains(&address.is_ipv6())
        } else {
            requested.contains(&address)
        };
        asked && self.pools.values().any(|pool| contains(pool, address))
    }

    /// True is IPv6.
    fn families(&self, service: &Service) -> Vec<bool> {
        if service.ip_family_policy == IpFamilyPolicy::PreferDualStack {
            let has = |v6| {
                let block = |b: &IpBlock| matches!(b, IpBlock::Range(a, _) if a.is_ipv6() == v6);
                self.pools.values().any(|pool| pool.blocks.iter().any(block))
            };
            return [false, true].into_iter().filter(|v6| has(*v6)).collect();
        }
        vec![service.ip_families_v6.first().copied().unwrap_or(false)]
    }

    fn open(&self, pool: &Pool) -> bool {
        // Pool q is the later by name; both start at different addresses and may overlap.
        let overlaps = |other: &Arc<Pool>| {
            other.meta.name < pool.meta.name
                && pool.blocks.iter().any(|block| match block {
                    IpBlock::Range(a, _) => contains(other, *a),
                    IpBlock::Cidr(..) => false,
                })
        };
        !pool.disabled && !self.pools.values().any(overlaps)
    }

    fn check(&self, assigned: &Assigned) -> Result<(), String> {
        let mut users: BTreeMap<IpAddr, Vec<&NamespacedName>> = BTreeMap::new();
        for (name, addresses) in assigned {
            for &address in addresses {
                if !self.allowed(name, address) {
                    return Err(format!("{name} has {address}, which it may not have"));
                }
                users.entry(address).or_default().push(name);
            }
            let unique: BTreeSet<_> = addresses.iter().map(IpAddr::is_ipv6).collect();
            if requested(&self.services[name]).is_empty() && unique.len() != addresses.len() {
                return Err(format!("{name} has two addresses of one family: {addresses:?}"));
            }
        }
        for (address, names) in &users {
            for (at, one) in names.iter().enumerate() {
                for two in &names[..at] {
                    if !may_share(&self.services[*one], &self.services[*two]) {
                        return Err(format!("{address} is given to {one} and {two}"));
                    }
                }
            }
        }
        for (name, service) in &self.services {
            let has = |address: &IpAddr| assigned.get(name).is_some_and(|a| a.contains(address));
            for address in requested(service) {
                let open = self.pools.values().any(|p| self.open(p) && contains(p, address));
                if open && !has(&address) && !users.contains_key(&address) {
                    return Err(format!("{name} asks for {address}, which is free, in vain"));
                }
            }
        }
        Ok(())
    }
}

fn requested(service: &Service) -> Vec<IpAddr> {
    let list = service.meta.annotations.get("lbipam.cilium.io/ips");
    list.map(|list| vec![ip(list)]).unwrap_or_default()
}

fn contains(pool: &Pool, address: IpAddr) -> bool {
    pool.blocks.iter().any(|block| match block {
        IpBlock::Range(a, b) => a.is_ipv6() == address.is_ipv6() && *a <= address && address <= *b,
        IpBlock::Cidr(..) => false,
    })
}

fn key_of(service: &Service) -> Option<&str> {
    service.meta.annotation("lbipam.cilium.io/sharing-key")
}

fn may_share(a: &Service, b: &Service) -> bool {
    key_of(a).is_some()
        && key_of(a) == key_of(b)
        && a.meta.name.namespace == b.meta.name.namespace
        && a.ports[0].port != b.ports[0].port
}

/// What is in use and must stay.
struct InUse(BTreeSet<(NamespacedName, IpAddr)>);

impl InUse {
    fn after(assigned: &Assigned) -> Self {
        let all = assigned
            .iter()
            .flat_map(|(name, list)| list.iter().map(move |address| (name.clone(), *address)));
        Self(all.collect())
    }

    /// Takes out what the objects, as just written, do not allow any more. A Service that was changed and
    /// those it shares with may have to part.
    fn forget(&mut self, world: &World, before: &BTreeMap<NamespacedName, Arc<Service>>) {
        let changed = |name: &NamespacedName| world.services.get(name) != before.get(name);
        let shared: BTreeSet<IpAddr> =
            self.0.iter().filter(|(name, _)| changed(name)).map(|(_, a)| *a).collect();
        let lonely = |address: &IpAddr, set: &BTreeSet<(NamespacedName, IpAddr)>| {
            set.iter().filter(|(_, other)| other == address).count() == 1
        };
        let all = self.0.clone();
        self.0.retain(|(name, address)| {
            world.allowed(name, *address) && (!shared.contains(address) || lonely(address, &all))
        });
    }

    fn check(&self, assigned: &Assigned) -> Result<(), String> {
        for (name, address) in &self.0 {
            if !assigned.get(name).is_some_and(|list| list.contains(address)) {
                return Err(format!("{name} was moved from {address} to {:?}", assigned.get(name)));
            }
        }
        Ok(())
    }
}

/// The result if everything is there from the start.
fn canonical(world: &World) -> Assigned {
    let mut node = Node::new();
    node.pools = world.pools.clone();
    node.services = world.services.clone();
    node.objects();
    node.assignments
}

fn live(world: &mut World) -> Result<(), String> {
    for at in 0..world.machines.len() {
        world.boot(at);
    }
    for _ in 0..2 + world.random.below(6) {
        world.change_something();
    }
    let new = world.random_pool();
    world.change(Change::Pool(new.meta.name.clone(), Some(Arc::new(new))));
    let mut assigned = world.settle()?;
    let expected = canonical(world);
    if assigned != expected {
        return Err(format!("started from nothing: {assigned:#?}, expected {expected:#?}"));
    }
    for _ in 0..4 {
        let mut in_use = InUse::after(&assigned);
        disturb(world);
        for _ in 0..world.random.below(4) {
            let before = world.services.clone();
            world.change_something();
            in_use.forget(world, &before);
            let pause = [0, 300, 2_500][usize::try_from(world.random.below(3)).unwrap()];
            world.run(pause);
        }
        assigned = world.settle()?;
        in_use.check(&assigned)?;
    }
    Ok(())
}

/// A partition, restarts, a node that is down for a while, or nothing.
fn disturb(world: &mut World) {
    let nodes = u64::try_from(world.machines.len()).unwrap();
    let one = usize::try_from(world.random.below(nodes)).unwrap();
    match world.random.below(6) {
        0 => {
            world.note("partition".into());
            for machine in &mut world.machines {
                machine.side = u8::from(world.random.chance(50));
            }
            if world.random.chance(50) {
                world.late = true;
                world.skew = LATE;
            }
            let pause = world.random.below(6_000);
            world.run(pause);
        }
        1 => {
            world.note(format!("restart {one}"));
            world.boot(one);
        }
        2 => {
            world.note(format!("restart {one} without state"));
            world.machines[one].saved = None;
            world.boot(one);
        }
        3 => {
            world.note(format!("{one} is down for a while, and then its cable comes late"));
            world.machines[one].ipam = None;
            world.run(2_000);
            if world.random.chance(50) {
                world.machines[one].saved = None;
            }
            world.machines[one].side = 1;
            world.machines[one].offset = Duration::from_secs(world.random.below(100));
            world.boot(one);
            let pause = world.random.below(4_000);
            world.run(pause);
        }
        4 => {
            world.note("power cut".into());
            for at in 0..world.machines.len() {
                world.machines[at].ipam = None;
            }
            for at in 0..world.machines.len() {
                world.machines[at].offset = Duration::from_secs(world.random.below(100));
                world.boot(at);
                let pause = world.random.below(300);
                world.run(pause);
            }
        }
        _ => {}
    }
}

#[test]
fn nodes_agree_and_addresses_in_use_stay() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PILUS_IPAM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PILUS_IPAM_SEEDS").unwrap_or(SEEDS),
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let seeds = seeds.clone().skip(thread).step_by(threads);
            scope.spawn(move || seeds.for_each(run_seed));
        }
    });
}

fn run_seed(seed: u64) {
    let mut world = World::new(seed);
    if let Err(why) = live(&mut world) {
        let log = world.log.join("\n");
        let (loss, delay) = (world.loss, world.delay);
        panic!("PILUS_IPAM_SEED={seed}: {why}\nloss {loss} % delay {delay} ms\n{log}");
    }
}
