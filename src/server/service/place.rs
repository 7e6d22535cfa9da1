//! Where this node is: its addresses and interfaces, the other nodes, and how a backend is reached from here.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::neighbors::Neighbors;
use crate::api::address::{MacAddr, Network};
use crate::api::config::Config;
use crate::api::endpoint::Endpoint;
use crate::api::interface::{Interface, Interfaces, Prefix, is_global};
use crate::api::meta::Str;
use crate::api::objects::Objects;
use crate::api::service::{Hooked, Reach};
use crate::arrange::{Arrange, Gather};
use crate::proto::object::parse_network_of;

/// Everything that decides how backends are reached. Two that are equal give the same for every Service.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Place {
    node: Str,
    /// This node's addresses that others can use, sorted.
    own: BTreeSet<IpAddr>,
    /// The subnets of its LANs.
    lans: Vec<Prefix>,
    /// The other nodes with a live agent, and their addresses on a LAN of ours.
    live: BTreeMap<Str, [Option<IpAddr>; 2]>,
    /// Whose address that is.
    nodes: BTreeMap<IpAddr, Str>,
    /// In whose part of the cluster's network an address lies.
    networks: Vec<(Network, Str)>,
}

// === impl Place ===

impl Place {
    pub(super) fn new(
        config: &Config,
        interfaces: &Interfaces,
        objects: &Objects,
        neighbors: &Neighbors,
    ) -> Self {
        let mut place = Self { node: Str::clone(&config.node), ..Self::default() };
        for interface in &interfaces.list {
            let global = interface.addresses.iter().filter(|own| is_global(own.address));
            place.own.extend(global.clone().map(|own| own.address));
            if is_lan(config, interface) {
                place.lans.extend(global.copied());
            }
        }
        place.lans.arrange();
        for node in objects.nodes.values() {
            let name = &node.meta.name.name;
            place.nodes.extend(node.internal_ips.iter().map(|ip| (*ip, Str::clone(name))));
            let networks = node.pod_cidrs.iter().filter_map(|cidr| parse_network_of(cidr).ok());
            place.networks.extend(networks.map(|network| (network, Str::clone(name))));
        }
        for (name, heard) in neighbors.live() {
            place.nodes.extend(heard.iter().flatten().map(|ip| (*ip, Str::clone(name))));
            let addresses = [false, true].map(|v6| {
                let heard = heard[usize::from(v6)].filter(|ip| is_global(*ip));
                heard.or_else(|| place.on_lan(objects, name, v6))
            });
            place.live.insert(Str::clone(name), addresses);
        }
        place
    }

    /// The address that a Node object has on a LAN of ours: IPv6 is heard from link-local addresses.
    fn on_lan(&self, objects: &Objects, name: &Str, v6: bool) -> Option<IpAddr> {
        let node = objects.nodes.values().find(|node| node.meta.name.name == *name)?;
        let mut addresses = node.internal_ips.iter().filter(|ip| ip.is_ipv6() == v6);
        addresses.find(|ip| self.is_on_lan(**ip)).copied()
    }

    fn is_on_lan(&self, address: IpAddr) -> bool {
        self.lans.iter().any(|lan| lan.contains(address))
    }

    /// How an endpoint is reached from this node.
    pub(super) fn reach(&self, endpoint: &Endpoint) -> Reach {
        let ip = endpoint.address.ip();
        if self.own.contains(&ip) {
            return Reach::Host;
        }
        let network = || self.networks.iter().find(|(network, _)| network.contains(ip));
        let node = endpoint.node.as_ref().or_else(|| self.nodes.get(&ip));
        match node.or_else(|| network().map(|(_, node)| node)) {
            Some(node) if *node == self.node => Reach::Local,
            Some(node) => {
                let address = self.live.get(node).and_then(|it| it[usize::from(ip.is_ipv6())]);
                address.map_or(Reach::Elsewhere, Reach::Node)
            }
            None if self.is_on_lan(ip) => Reach::Elsewhere,
            None => Reach::Local,
        }
    }

    /// The addresses at which node ports are served.
    pub(super) fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().copied()
    }
}

/// Whether the LAN is behind an interface, announced on or not.
fn is_lan(config: &Config, interface: &Interface) -> bool {
    let named = config.interfaces.contains(&interface.name);
    let named_or_plain = named || !interface.leads_to_containers();
    named_or_plain && !interface.loopback && !interface.port && interface.has_global_address()
}

/// The node's address on its first LAN of each family; one that announces comes first.
pub(super) fn own_addresses(config: &Config, interfaces: &Interfaces) -> [Option<IpAddr>; 2] {
    let mut lans: Vec<&Interface> =
        interfaces.list.iter().filter(|it| it.up && is_lan(config, it)).collect();
    lans.arrange_by_key(|it| !config.interfaces.contains(&it.name));
    let own = |v6: bool| {
        let addresses = lans.iter().flat_map(|it| &it.addresses).map(|own| own.address);
        addresses.filter(|ip| is_global(*ip)).find(|ip| ip.is_ipv6() == v6)
    };
    [own(false), own(true)]
}

/// The interfaces whose packets the service programs see, with the reason: every one that Pods or clients may be behind.
/// Two Pods on one bridge speak past the bridge's own interface: the ports that lead to Pods are hooked as well. Without
/// Ethernet header there is nothing to hook.
pub(super) fn hooked(config: &Config, interfaces: &Interfaces) -> Vec<Hooked> {
    let leads_to_a_pod = |it: &Interface| matches!(&*it.kind, "veth" | "tun");
    let usable = |it: &&Interface| {
        it.up && !it.loopback && it.mac != MacAddr::ZERO && (!it.port || leads_to_a_pod(it))
    };
    let hook = |it: &Interface| Hooked {
        index: it.index,
        outside: is_lan(config, it),
        why: why(config, it).into(),
    };
    let mut all: Vec<Hooked> = interfaces.list.iter().filter(usable).map(hook).collect();
    all.arrange();
    all
}

fn why(config: &Config, interface: &Interface) -> String {
    if is_lan(config, interface) {
        let announces = config.interfaces.is_empty() || config.interfaces.contains(&interface.name);
        return if announces { "LAN: announces" } else { "LAN: does not announce" }.to_owned();
    }
    let global = interface.addresses.iter().filter(|own| is_global(own.address));
    let networks = global.map(|own| Network::of(own.address, own.length).to_string());
    let networks: BTreeSet<String> = networks.gather();
    let networks: Vec<String> = networks.into_iter().collect();
    match networks.as_slice() {
        _ if interface.port => "a Pod: a port of a bridge".to_owned(),
        [] => "Pods may be behind it".to_owned(),
        [one] => format!("Pods: {one} is behind it"),
        several => format!("Pods: {} are behind it", several.join(", ")),
    }
}
