//! The objects that the nodes are given.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use pilus::api::address::{Assignments, Port};
use pilus::api::endpoint::{Endpoint, Endpoints, ServicePort};
use pilus::api::meta::{Meta, NamespacedName};
use pilus::api::object::{
    ExternalTrafficPolicy, L2Policy, Node, PortProtocol, Service, ServiceType,
};
use pilus::api::objects::Objects;
use pilus::api::selector::{LabelSelector, Requirement};

/// A service with one address.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vip {
    pub(crate) address: IpAddr,
    /// Nodes with an endpoint, for externalTrafficPolicy Local.
    pub(crate) local: Option<BTreeSet<usize>>,
    /// A generated Ingress service, whose endpoints are everywhere.
    pub(crate) ingress: bool,
}

/// One version of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    /// Whether there are Node objects.
    pub(crate) node_objects: bool,
    /// Nodes that carry the label that the policy asks for; None: it asks for none.
    pub(crate) selected: Option<BTreeSet<usize>>,
    pub(crate) vips: Vec<Vip>,
}

pub(crate) fn node_name(node: usize) -> String {
    format!("node-{node}")
}

pub(crate) fn node_ip(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 10, 100 + node as u8)
}

pub(crate) fn node_ip6(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100 + node as u16)
}

pub(crate) fn vip(number: u32, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16).into()
    } else {
        // Outside of the nodes' own addresses, in their /16.
        Ipv4Addr::from(0xc0a8_6400 + number).into()
    }
}

impl Setup {
    /// Whether the configuration lets `node` hold `vip`.
    pub(crate) fn allows(&self, node: usize, vip: &Vip) -> bool {
        let selected = match &self.selected {
            Some(selected) => self.node_objects && selected.contains(&node),
            None => true,
        };
        let local = vip.ingress || vip.local.as_ref().is_none_or(|local| local.contains(&node));
        selected && local
    }

    pub(crate) fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        let mut nodes = BTreeMap::new();
        for i in (0..self.nodes).filter(|_| self.node_objects) {
            let name = NamespacedName::new("", &node_name(i));
            let mut meta = Meta { name: name.clone(), ..Meta::default() };
            if self.selected.as_ref().is_some_and(|selected| selected.contains(&i)) {
                meta.labels.insert("lan".into(), "yes".into());
            }
            let internal_ips = vec![node_ip(i).into(), node_ip6(i).into()];
            nodes.insert(name, Arc::new(Node { meta, internal_ips, ..Node::default() }));
        }
        objects.nodes = Arc::new(nodes);
        let selector = LabelSelector { requirements: vec![Requirement::Exists("lan".into())] };
        let name = NamespacedName::new("", "policy");
        let policy = L2Policy {
            meta: Meta { name: name.clone(), ..Meta::default() },
            node_selector: self.selected.as_ref().map(|_| selector),
            interfaces: vec!["^eth[0-9]+".into()],
            load_balancer_ips: true,
            ..L2Policy::default()
        };
        objects.l2_policies = Arc::new([(name, Arc::new(policy))].into());
        let service = |vip: &Vip| {
            let name = service_name(vip);
            let mut meta = Meta { name: name.clone(), ..Meta::default() };
            if vip.ingress {
                meta.labels.insert("cilium.io/ingress".into(), "true".into());
            }
            let service = Service {
                meta,
                kind: ServiceType::LoadBalancer,
                external_traffic_policy: match vip.local {
                    Some(_) => ExternalTrafficPolicy::Local,
                    None => ExternalTrafficPolicy::Cluster,
                },
                ..Service::default()
            };
            (name, Arc::new(service))
        };
        objects.services = Arc::new(self.vips.iter().map(service).collect());
        objects
    }

    pub(crate) fn assignments(&self) -> Assignments {
        let assigned = |vip: &Vip| (service_name(vip), vec![vip.address]);
        Assignments {
            by_service: self.vips.iter().map(assigned).collect(),
            ..Assignments::default()
        }
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        let mut by_port: HashMap<ServicePort, Arc<[Endpoint]>> = HashMap::new();
        for vip in &self.vips {
            let nodes = vip.local.iter().flatten();
            let endpoint = |&node: &usize| Endpoint {
                address: SocketAddr::from(([10, 0, node as u8, 1], 8080)),
                ready: true,
                terminating: false,
                node: Some(node_name(node).into()),
                pod: None,
            };
            let key = ServicePort {
                service: service_name(vip),
                port: Port(80),
                protocol: PortProtocol::Tcp,
            };
            by_port.insert(key, nodes.map(endpoint).collect());
        }
        Endpoints { by_port }
    }
}

fn service_name(vip: &Vip) -> NamespacedName {
    NamespacedName::new("default", &format!("web-{}", vip.address))
}
