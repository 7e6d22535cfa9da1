//! This node's interfaces, as far as announcing is concerned.
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::address::{IfIndex, MacAddr};
use crate::api::config::Config;
use crate::api::interface::{Interface, Interfaces, Prefix};

/// Every interface that could announce.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lan {
    /// Sorted by index.
    pub(super) list: Vec<LanInterface>,
}

/// One interface with a hardware address.
#[derive(Debug, PartialEq)]
pub(super) struct LanInterface {
    pub(super) index: IfIndex,
    pub(super) name: Arc<str>,
    pub(super) mac: MacAddr,
    pub(super) up: bool,
    /// `--interface` names it, or nothing is named.
    pub(super) permitted: bool,
    /// Taken where a policy names no interfaces.
    pub(super) by_default: bool,
    /// Its name says that it leads to containers or tunnels.
    pub(super) container: bool,
    addresses: Vec<Prefix>,
}

// === impl Lan ===

impl Lan {
    pub(super) fn new(config: &Config, interfaces: &Interfaces) -> Self {
        let usable = |it: &&Interface| !it.loopback && !it.port && it.mac != MacAddr::ZERO;
        let list = interfaces.list.iter().filter(usable).map(|it| LanInterface::new(config, it));
        Self { list: list.collect() }
    }

    pub(super) fn get(&self, index: IfIndex) -> Option<&LanInterface> {
        let at = self.list.binary_search_by_key(&index, |it| it.index).ok()?;
        Some(&self.list[at])
    }

    /// The interface on which `address` itself is configured.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&LanInterface> {
        self.list.iter().find(|it| it.addresses.iter().any(|own| own.address == address))
    }
}

// === impl LanInterface ===

impl LanInterface {
    fn new(config: &Config, interface: &Interface) -> Self {
        let named = config.interfaces.contains(&interface.name);
        let permitted = named || config.interfaces.is_empty();
        let container = interface.leads_to_containers();
        let global = interface.has_global_address();
        Self {
            index: interface.index,
            name: Arc::clone(&interface.name),
            mac: interface.mac,
            up: interface.up,
            permitted,
            by_default: named || (permitted && global && !container),
            container,
            addresses: interface.addresses.clone(),
        }
    }

    /// Whether `address` lies in a subnet of the interface.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.contains(address))
    }

    /// The address from which this node advertises `address`: for IPv4 the lowest one in whose subnet it
    /// lies, or the lowest of all; for IPv6 the link-local one (RFC 9568, 5.1.2.1).
    pub(super) fn source(&self, address: IpAddr) -> Option<IpAddr> {
        let mut own =
            self.addresses.iter().filter(|own| own.address.is_ipv4() == address.is_ipv4());
        match address {
            IpAddr::V4(_) => own
                .clone()
                .find(|own| own.contains(address))
                .or_else(|| own.next())
                .map(|own| own.address),
            IpAddr::V6(_) => own.map(|own| own.address).find(|own| is_link_local(*own)),
        }
    }

    pub(super) fn lacks_source(&self, address: IpAddr) -> String {
        let kind = if address.is_ipv4() { "IPv4" } else { "link-local IPv6" };
        format!("{} has no {kind} address to send VRRP from", self.name)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
