//! Objects in few words, and one server with its clock.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pilus::api::address::Assignments;
use pilus::api::config::Config;
use pilus::api::file::StateBlob;
use pilus::api::meta::{Kind, NamespacedName, ObjectKey};
use pilus::api::object::{
    IpBlock, IpFamilyPolicy, Pool, PortProtocol, Service, ServicePortSpec, ServiceType, TargetPort,
};
use pilus::api::objects::Objects;
use pilus::api::selector::{LabelSelector, Requirement};
use pilus::api::status::{Condition, ObjectStatus, Statuses};
use pilus::api::{Message, wiring};
use pilus::kernel::{Outbox, Server, Time};
use pilus::server::ipam::Ipam;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(ip).collect()
}

pub(crate) fn name(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    NamespacedName::new(namespace, name)
}

/// A LoadBalancer Service `ns/name` with port 80.
pub(crate) fn service(text: &str) -> Service {
    let mut service = Service { kind: ServiceType::LoadBalancer, ..Service::default() };
    service.meta.name = name(text);
    service.ports = vec![port(80, PortProtocol::Tcp)];
    service
}

pub(crate) fn port(port: u16, protocol: PortProtocol) -> ServicePortSpec {
    ServicePortSpec {
        name: "".into(),
        port,
        target: TargetPort::Number(port),
        protocol,
        node_port: 0,
        app_protocol: None,
    }
}

pub(crate) trait With: Sized {
    fn with(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl<T> With for T {
    fn with(mut self, change: impl FnOnce(&mut T)) -> T {
        change(&mut self);
        self
    }
}

pub(crate) trait ServiceWords: Sized {
    fn annotate(self, key: &str, value: &str) -> Self;
    fn label(self, key: &str, value: &str) -> Self;
    fn key(self, key: &str) -> Self;
    fn ips(self, list: &str) -> Self;
    fn port(self, number: u16) -> Self;
    fn families(self, policy: IpFamilyPolicy, v6: &[bool]) -> Self;
}

impl ServiceWords for Service {
    fn annotate(self, key: &str, value: &str) -> Self {
        self.with(|s| drop(s.meta.annotations.insert(key.into(), value.into())))
    }
    fn label(self, key: &str, value: &str) -> Self {
        self.with(|s| drop(s.meta.labels.insert(key.into(), value.into())))
    }
    fn key(self, key: &str) -> Self {
        self.annotate("lbipam.cilium.io/sharing-key", key)
    }
    fn ips(self, list: &str) -> Self {
        self.annotate("lbipam.cilium.io/ips", list)
    }
    fn port(self, number: u16) -> Self {
        self.with(|s| s.ports = vec![port(number, PortProtocol::Tcp)])
    }
    fn families(self, policy: IpFamilyPolicy, v6: &[bool]) -> Self {
        self.with(|s| {
            s.ip_family_policy = policy;
            s.ip_families_v6 = v6.to_vec();
        })
    }
}

/// A pool; blocks are `a/b`, `a-b` or `a`, separated by spaces.
pub(crate) fn pool(text: &str, blocks: &str) -> Pool {
    let mut pool = Pool { allow_first_last: true, ..Pool::default() };
    pool.meta.name = NamespacedName::new("", text);
    pool.blocks = blocks.split_whitespace().map(block).collect();
    pool
}

fn block(text: &str) -> IpBlock {
    if let Some((address, length)) = text.split_once('/') {
        return IpBlock::Cidr(ip(address), length.parse().unwrap());
    }
    let (start, stop) = text.split_once('-').unwrap_or((text, text));
    IpBlock::Range(ip(start), ip(stop))
}

pub(crate) fn selecting(key: &str, value: &str) -> Option<LabelSelector> {
    Some(LabelSelector { requirements: vec![Requirement::In(key.into(), vec![value.into()])] })
}

pub(crate) fn config(node: &str) -> Config {
    Config { node: node.into(), ..Config::default() }
}

/// A server alone, with its clock and what it last said.
pub(crate) struct Node {
    pub(crate) ipam: Ipam,
    pub(crate) now: Time,
    pub(crate) services: BTreeMap<NamespacedName, Arc<Service>>,
    pub(crate) pools: BTreeMap<NamespacedName, Arc<Pool>>,
    pub(crate) assignments: BTreeMap<NamespacedName, Vec<IpAddr>>,
    pub(crate) given: Arc<Assignments>,
    pub(crate) statuses: Statuses,
    pub(crate) saved: Option<Vec<u8>>,
    pub(crate) sent: Vec<Arc<[u8]>>,
    pub(crate) messages: usize,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::configured(config("n1"), None)
    }

    pub(crate) fn configured(config: Config, state: Option<Vec<u8>>) -> Self {
        let mut node = Self {
            ipam: Ipam::new(Arc::new(config)),
            now: Time::from_nanos(1_000_000_000),
            services: BTreeMap::new(),
            pools: BTreeMap::new(),
            assignments: BTreeMap::new(),
            given: Arc::default(),
            statuses: Statuses::default(),
            saved: None,
            sent: Vec::new(),
            messages: 0,
        };
        node.ipam.start(node.now, &mut Outbox::new());
        let blob = StateBlob { name: "addresses", content: state };
        node.tell(Message::Restored(blob));
        node
    }

    /// A node with these objects, as they are right after it has seen them.
    pub(crate) fn with(
        pools: impl IntoIterator<Item = Pool>,
        services: impl IntoIterator<Item = Service>,
    ) -> Self {
        let mut node = Self::new();
        node.set(pools, services);
        node
    }

    pub(crate) fn set(
        &mut self,
        pools: impl IntoIterator<Item = Pool>,
        services: impl IntoIterator<Item = Service>,
    ) {
        self.pools = pools.into_iter().map(|p| (p.meta.name.clone(), Arc::new(p))).collect();
        self.services = services.into_iter().map(|s| (s.meta.name.clone(), Arc::new(s))).collect();
        self.objects();
    }

    pub(crate) fn put(&mut self, service: Service) {
        self.services.insert(service.meta.name.clone(), Arc::new(service));
        self.objects();
    }

    pub(crate) fn put_pool(&mut self, pool: Pool) {
        self.pools.insert(pool.meta.name.clone(), Arc::new(pool));
        self.objects();
    }

    pub(crate) fn remove(&mut self, text: &str) {
        self.services.remove(&name(text));
        self.pools.remove(&name(text));
        self.objects();
    }

    pub(crate) fn objects(&mut self) {
        let objects = Objects {
            services: Arc::new(self.services.clone()),
            pools: Arc::new(self.pools.clone()),
            ..Objects::default()
        };
        self.tell(Message::Objects(Arc::new(objects)));
    }

    pub(crate) fn tell(&mut self, message: Message) {
        let mut out = Outbox::new();
        self.ipam.handle(self.now, wiring::STORE, message, &mut out);
        self.listen(out);
    }

    /// The node when its addresses stay.
    pub(crate) fn settled(mut self) -> Self {
        self.wait(1_000);
        self
    }

    /// The addresses in a Service's status.
    pub(crate) fn said(&self, service: &str) -> String {
        let status = self.status(Kind::Service, service);
        let list = status.and_then(|status| status.load_balancer.clone()).unwrap_or_default();
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// The addresses that may be announced for a Service.
    pub(crate) fn settled_of(&self, service: &str) -> String {
        self.given.settled(&name(service)).map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(due) = self.ipam.timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let mut out = Outbox::new();
            self.ipam.tick(self.now, &mut out);
            self.listen(out);
        }
        self.now = end;
    }

    fn listen(&mut self, mut out: Outbox<Message>) {
        for (to, message) in out.take() {
            self.messages += 1;
            match message {
                Message::Assignments(new) if to == wiring::STORE => {
                    self.assignments = new.by_service.clone();
                    self.given = new;
                }
                Message::Assignments(_) => {}
                Message::Statuses(new) => self.statuses = (*new).clone(),
                Message::SendPeers(packet) => self.sent.push(packet),
                Message::Save(blob) => self.saved = blob.content,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The addresses of a Service, as text.
    pub(crate) fn of(&self, service: &str) -> String {
        let list = self.assignments.get(&name(service)).cloned().unwrap_or_default();
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn status(&self, kind: Kind, text: &str) -> Option<&ObjectStatus> {
        self.statuses.by_object.get(&ObjectKey { kind, name: name(text) })
    }

    /// A condition as `status reason: message`; empty if there is none.
    pub(crate) fn condition(&self, kind: Kind, text: &str, condition: &str) -> String {
        let print = |c: &Condition| format!("{} {}: {}", c.status.as_str(), c.reason, c.message);
        let status = self.status(kind, text);
        let found = status.and_then(|s| s.conditions.iter().find(|c| c.kind == condition));
        found.map(print).unwrap_or_default()
    }

    pub(crate) fn satisfied(&self, service: &str) -> String {
        self.condition(Kind::Service, service, "cilium.io/IPAMRequestSatisfied")
    }

    pub(crate) fn pool_condition(&self, pool: &str, condition: &str) -> String {
        self.condition(Kind::CiliumLoadBalancerIPPool, pool, condition)
    }

    /// IPsTotal, IPsAvailable, IPsUsed.
    pub(crate) fn counts(&self, pool: &str) -> [String; 3] {
        ["cilium.io/IPsTotal", "cilium.io/IPsAvailable", "cilium.io/IPsUsed"]
            .map(|kind| self.pool_condition(pool, kind).replace("Unknown noreason: ", ""))
    }

    /// The messages of the problems that name this object.
    pub(crate) fn problems(&self, text: &str) -> Vec<String> {
        let of = |p: &&pilus::api::problem::Problem| {
            p.object.as_ref().is_some_and(|object| object.name == name(text))
        };
        self.statuses.problems.iter().filter(of).map(ToString::to_string).collect()
    }

    /// A new server with this one's state file.
    pub(crate) fn restarted(&self) -> Self {
        let mut node = Self::configured(config("n1"), self.saved.clone());
        node.pools = self.pools.clone();
        node.services = self.services.clone();
        node.objects();
        node
    }
}
