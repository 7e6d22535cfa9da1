//! A small cluster as node `n1` sees it, and the server that is told of it.
//!
//! LAN 192.168.10.0/24 and fd00:10::/64 behind eth1; this node is .101 and ::101, its Pods are in 10.244.1.0/24 behind
//! cni0, and in routed veths.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pilus::api::Message;
use pilus::api::address::{Assignments, Generation, IfIndex, MacAddr, Port};
use pilus::api::config::Config;
use pilus::api::endpoint::{Endpoint, Endpoints, ServicePort};
use pilus::api::interface::{Interface, Interfaces, Prefix};
use pilus::api::message::wiring;
use pilus::api::meta::{FileOrigin, Kind, Meta, NamespacedName, ObjectKey, Origin};
use pilus::api::object::{Node, PortProtocol, Service, ServicePortSpec, ServiceType, TargetPort};
use pilus::api::objects::{HasMeta, Objects, Table};
use pilus::api::route::{Listener, ListenerProtocol, RouteTable};
use pilus::api::service::{Backend, Balanced, Balancing, Frontend, FrontendKind, Reach};
use pilus::api::status::Statuses;
use pilus::kernel::{Outbox, Server, ServerId, Time};
use pilus::proto::claims;
use pilus::server::service::ServiceServer;

pub(crate) fn name(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    NamespacedName::new(namespace, name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn meta(text: &str) -> Meta {
    let name = name(text);
    let file = format!("{}.yaml", name.name).into();
    let origin = Origin::File(FileOrigin { file, line: 1, column: 1, fields: Arc::new([]) });
    Meta { name, origin, ..Meta::default() }
}

pub(crate) fn put<T: HasMeta + Clone>(table: &mut Table<T>, object: T) {
    let mut map = BTreeMap::clone(table);
    map.insert(object.meta().name.clone(), Arc::new(object));
    *table = Arc::new(map);
}

/// A LoadBalancer Service; ports as `53/UDP` or `80`, each with a node port 30000 above.
pub(crate) fn balanced(text: &str, ports: &[&str]) -> Service {
    let ports = ports.iter().map(|port| {
        let (port, protocol) = parse_port(port);
        ServicePortSpec {
            name: "".into(),
            port,
            target: TargetPort::Number(port),
            protocol,
            node_port: 30_000 + port,
            app_protocol: None,
        }
    });
    Service {
        meta: meta(text),
        kind: ServiceType::LoadBalancer,
        ports: ports.collect(),
        ..Service::default()
    }
}

fn parse_port(text: &str) -> (u16, PortProtocol) {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = match protocol {
        "UDP" => PortProtocol::Udp,
        "SCTP" => PortProtocol::Sctp,
        _ => PortProtocol::Tcp,
    };
    (port.parse().unwrap(), protocol)
}

/// `ADDRESS:PORT[@NODE]`, with `!` in front if it is not ready, `~` if it terminates and serves.
pub(crate) fn endpoint(text: &str) -> Endpoint {
    let ready = !text.starts_with(['!', '~']);
    let terminating = text.starts_with('~');
    let text = text.trim_start_matches(['!', '~']);
    let (address, node) = text.split_once('@').map_or((text, None), |(a, n)| (a, Some(n.into())));
    Endpoint { address: address.parse().unwrap(), ready, terminating, node, pod: None }
}

pub(crate) fn interface(index: u32, name: &str, kind: &str, addresses: &[(&str, u8)]) -> Interface {
    let addresses = addresses.iter().map(|&(it, length)| Prefix { address: ip(it), length });
    Interface {
        index: IfIndex(index),
        name: name.into(),
        mac: MacAddr([2, 0, 0, 0, 0, index as u8]),
        up: true,
        loopback: false,
        port: false,
        kind: kind.into(),
        addresses: addresses.collect(),
    }
}

/// What the server is told, what it has said, and what time it is.
pub(crate) struct Cluster {
    pub(crate) server: ServiceServer,
    pub(crate) now: Time,
    pub(crate) objects: Objects,
    pub(crate) endpoints: Endpoints,
    pub(crate) assignments: Assignments,
    pub(crate) interfaces: Interfaces,
    pub(crate) routes: RouteTable,
    pub(crate) balancing: Option<Arc<Balancing>>,
    pub(crate) statuses: Arc<Statuses>,
    /// To whom something was sent since this was last emptied.
    pub(crate) sent: Vec<(ServerId, &'static str)>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn as_kube_proxy() -> Self {
        Self::with(Config { kube_proxy_replacement: true, ..Config::default() })
    }

    pub(crate) fn with(config: Config) -> Self {
        let config = Config { node: "n1".into(), ..config };
        let mut lo = interface(1, "lo", "", &[("127.0.0.1", 8), ("::1", 128)]);
        lo.loopback = true;
        lo.mac = MacAddr::ZERO;
        let lan = [("192.168.10.101", 24), ("fd00:10::101", 64), ("fe80::1", 64)];
        let list = vec![
            lo,
            interface(2, "eth1", "", &lan),
            interface(3, "cni0", "bridge", &[("10.244.1.1", 24)]),
        ];
        Self {
            server: ServiceServer::new(Arc::new(config)),
            now: Time::from_nanos(3_600_000_000_000),
            objects: Objects::default(),
            endpoints: Endpoints::default(),
            assignments: Assignments::default(),
            interfaces: Interfaces { list },
            routes: RouteTable::default(),
            balancing: None,
            statuses: Arc::default(),
            sent: Vec::new(),
        }
    }

    /// Adds or replaces a Service, with the addresses it has been given and the endpoints of all its ports.
    pub(crate) fn service(&mut self, service: Service, addresses: &[&str], endpoints: &[&str]) {
        let name = service.meta.name.clone();
        for spec in &service.ports {
            self.endpoints_of(&name, spec.port, spec.protocol, endpoints);
        }
        let addresses: Vec<IpAddr> = addresses.iter().map(|it| ip(it)).collect();
        if addresses.is_empty() {
            self.assignments.by_service.remove(&name);
        } else {
            self.assignments.by_service.insert(name, addresses);
        }
        put(&mut self.objects.services, service);
    }

    pub(crate) fn endpoints_of(
        &mut self,
        service: &NamespacedName,
        port: u16,
        protocol: PortProtocol,
        endpoints: &[&str],
    ) {
        let port = ServicePort { service: service.clone(), port: Port(port), protocol };
        let list = endpoints.iter().map(|it| endpoint(it)).collect();
        self.endpoints.by_port.insert(port, list);
    }

    pub(crate) fn node(&mut self, text: &str, ips: &[&str], pod_cidrs: &[&str]) {
        put(
            &mut self.objects.nodes,
            Node {
                meta: meta(text),
                internal_ips: ips.iter().map(|it| ip(it)).collect(),
                pod_cidrs: pod_cidrs.iter().map(|&it| it.into()).collect(),
                unschedulable: false,
            },
        );
    }

    pub(crate) fn listener(&mut self, service: &str, port: u16, protocol: ListenerProtocol) {
        self.routes.listeners.push(Arc::new(Listener::new(name(service), Port(port), protocol)));
    }

    /// Another agent's digest arrives.
    pub(crate) fn hear(&mut self, node: &str, source: &str) {
        let packet = claims::encode_digest(node, 5, &[0; claims::BUCKETS]);
        self.deliver(wiring::LAN, Message::Peer(ip(source), packet.into()));
    }

    pub(crate) fn deliver(&mut self, from: ServerId, message: Message) {
        let mut out = Outbox::new();
        self.server.handle(self.now, from, message, &mut out);
        self.collect(&mut out);
    }

    /// Tells everything anew, and waits until the server has worked it in.
    pub(crate) fn tell(&mut self) {
        let routes =
            RouteTable { generation: Generation(1), listeners: self.routes.listeners.clone() };
        let endpoints = Endpoints { by_port: self.endpoints.by_port.clone() };
        for (from, message) in [
            (wiring::STORE, Message::Objects(Arc::new(self.objects.clone()))),
            (wiring::ENDPOINT, Message::Endpoints(Arc::new(endpoints))),
            (wiring::IPAM, Message::Assignments(Arc::new(self.assignments.clone()))),
            (wiring::NETLINK, Message::Interfaces(Arc::new(self.interfaces.clone()))),
            (wiring::ROUTE, Message::Routes(Arc::new(routes))),
        ] {
            self.deliver(from, message);
        }
        self.settle();
    }

    /// Lets the server do what is due now.
    pub(crate) fn settle(&mut self) {
        while self.server.timeout().is_some_and(|at| at <= self.now) {
            let mut out = Outbox::new();
            self.server.tick(self.now, &mut out);
            self.collect(&mut out);
        }
    }

    /// The programs hold the last state, but for `failures`.
    pub(crate) fn acknowledge(&mut self, failures: &[&str]) {
        let generation = self.balancing.as_ref().unwrap().generation;
        let failures = failures.iter().map(|&it| it.to_owned()).collect();
        let balanced = Balanced { generation, failures };
        self.deliver(wiring::BALANCER, Message::Balanced(Arc::new(balanced)));
    }

    fn collect(&mut self, out: &mut Outbox<Message>) {
        for (to, message) in out.take() {
            self.sent.push((to, pilus::kernel::Message::name(&message)));
            match message {
                Message::Balancing(balancing) => {
                    assert!([wiring::BALANCER, wiring::ADMIN].contains(&to));
                    self.balancing = Some(balancing);
                }
                Message::Statuses(statuses) => {
                    assert_eq!(to, wiring::STORE);
                    self.statuses = statuses;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn frontends(&self) -> &[Arc<Frontend>] {
        self.balancing.as_ref().map_or(&[], |it| &it.frontends)
    }

    /// All frontends, one line each: kind, place, Service, flags, `->` and the backends.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.frontends().iter().map(|it| line(it)).collect()
    }

    /// The backends of the first frontend of a Service.
    pub(crate) fn backends(&self, service: &str) -> String {
        let service = name(service);
        let frontend = self.frontends().iter().find(|it| it.service == service);
        frontend.map_or_else(|| "no frontend".to_owned(), |it| list(&it.backends))
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.statuses.problems.iter().map(ToString::to_string).collect()
    }

    /// Status and message of the condition of a Service.
    pub(crate) fn condition(&self, service: &str) -> Option<String> {
        let key = ObjectKey { kind: Kind::Service, name: name(service) };
        let [condition] = &*self.statuses.by_object.get(&key)?.conditions else { panic!() };
        assert_eq!(condition.kind, "pilus.dev/Programmed");
        Some(format!("{} {}", condition.status.as_str(), condition.message))
    }
}

fn line(it: &Frontend) -> String {
    let kind = match it.kind {
        FrontendKind::LoadBalancer => "lb",
        FrontendKind::ExternalIp => "external",
        FrontendKind::ClusterIp => "cluster",
        FrontendKind::NodePort => "node",
    };
    let protocol = match it.protocol {
        PortProtocol::Tcp => "TCP",
        PortProtocol::Udp => "UDP",
        PortProtocol::Sctp => "SCTP",
    };
    let place = SocketAddr::new(it.address, it.port.0);
    let mut line = format!("{kind} {place}/{protocol} {}", it.service);
    if let Some(affinity) = it.affinity {
        line += &format!(" affinity={}s", affinity.as_secs());
    }
    if it.local_from_outside {
        line += " outside-local";
    }
    if it.local_from_inside {
        line += " inside-local";
    }
    if let Some(sources) = &it.sources {
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        line += &format!(" from=[{}]", sources.join(" "));
    }
    line += &format!(" -> {}", list(&it.backends));
    if it.local_from_outside {
        line += &format!(" | {}", list(&it.local_backends));
    } else {
        assert!(it.local_backends.is_empty());
    }
    line
}

/// `ADDRESS` and how it is reached: `L`ocal, `H`ost, `E`lsewhere or the node's address.
fn list(backends: &[Backend]) -> String {
    let shown = backends.iter().map(|it| match it.reach {
        Reach::Local => format!("{} L", it.address),
        Reach::Host => format!("{} H", it.address),
        Reach::Elsewhere => format!("{} E", it.address),
        Reach::Node(node) => format!("{} {node}", it.address),
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}
