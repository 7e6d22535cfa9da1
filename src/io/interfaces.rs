//! The driver that tells the servers which network interfaces there are.
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::event_loop::spawn;
use super::netlink::{Address, Event, Link, Monitor, Netlink, NetlinkError};
use super::reactor::{AsyncFd, Timer};
use crate::api::Message;
use crate::api::address::{IfIndex, MacAddr};
use crate::api::interface::{Interface, Interfaces, Prefix};
use crate::api::wiring;
use crate::arrange::Arrange;
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};

/// After a change more changes follow (a link comes up: state, addresses, routes): they are collected for
/// this long before everything is listed again. Short against the failover time.
const SETTLE: Duration = Duration::from_millis(5);
/// When the monitor fails it is opened anew after this pause.
const RETRY: Duration = Duration::from_secs(1);

/// Sends [`Message::Interfaces`] at the start and after each change.
pub struct InterfaceDriver {
    mailer: Mailer<Message>,
    current: Option<Arc<Interfaces>>,
    watching: bool,
}

// === impl InterfaceDriver ===

impl InterfaceDriver {
    /// `mailer` must be that of [`wiring::NETLINK`].
    pub const fn new(mailer: Mailer<Message>) -> Self {
        Self { mailer, current: None, watching: false }
    }

    fn publish(&mut self, interfaces: Arc<Interfaces>, out: &mut Outbox<Message>) {
        if self.current.as_ref() == Some(&interfaces) {
            return;
        }
        for to in [wiring::ANNOUNCE, wiring::DATAPATH, wiring::SERVICE] {
            out.send(to, Message::Interfaces(Arc::clone(&interfaces)));
        }
        self.current = Some(interfaces);
    }
}

impl Server<Message> for InterfaceDriver {
    fn start(&mut self, _now: Time, out: &mut Outbox<Message>) {
        match list() {
            Ok(interfaces) => self.publish(Arc::new(interfaces), out),
            Err(error) => log::error!("{error}"),
        }
        if !self.watching {
            self.watching = true;
            spawn(watch(self.mailer.clone())).detach();
        }
    }

    fn handle(&mut self, _now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        if let Message::Interfaces(interfaces) = message {
            self.publish(interfaces, out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if let Some(interfaces) = &self.current {
            out.send(peer, Message::Interfaces(Arc::clone(interfaces)));
        }
    }
}

/// Lists the interfaces again after each change, and hands the list to the driver.
async fn watch(mailer: Mailer<Message>) {
    loop {
        if let Err(error) = watch_once(&mailer).await {
            log::error!("interfaces are not watched at present: {error}");
        }
        Timer::at(super::clock::now() + RETRY).await;
    }
}

async fn watch_once(mailer: &Mailer<Message>) -> Result<(), Box<dyn std::error::Error>> {
    let mut monitor = Monitor::open()?;
    let fd = AsyncFd::new(monitor.as_fd().try_clone_to_owned()?)?;
    let mut events = Vec::new();
    loop {
        // Listed after the monitor is open, so that no change falls between the two.
        mailer.send(wiring::NETLINK, Message::Interfaces(Arc::new(list()?)));
        loop {
            fd.readable().await;
            fd.clear_readable();
            events.clear();
            while monitor.read(&mut events)? {}
            if events.iter().any(concerns_interfaces) {
                break;
            }
        }
        Timer::at(super::clock::now() + SETTLE).await;
    }
}

const fn concerns_interfaces(event: &Event) -> bool {
    match event {
        Event::Route(_) | Event::RouteGone(_) => false,
        Event::Link(_)
        | Event::LinkGone { .. }
        | Event::Address(_)
        | Event::AddressGone(_)
        | Event::Lost => true,
    }
}

fn list() -> Result<Interfaces, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let addresses = netlink.addresses()?;
    let mut list: Vec<Interface> =
        links.iter().map(|link| interface(link, &links, &addresses)).collect();
    list.arrange_by_key(|interface| interface.index);
    Ok(Interfaces { list })
}

/// ARPHRD_ETHER of <linux/if_arp.h>.
const ETHERNET: u16 = 1;
/// Kinds of interfaces that take all frames of their ports.
const WITH_PORTS: [&str; 3] = ["bridge", "bond", "team"];

fn interface(link: &Link, links: &[Link], addresses: &[Address]) -> Interface {
    let master = links.iter().find(|other| link.master == Some(other.ifindex));
    let takes_all = |it: &Link| it.kind.as_deref().is_some_and(|kind| WITH_PORTS.contains(&kind));
    let mut prefixes: Vec<Prefix> = addresses
        .iter()
        .filter(|address| address.ifindex == link.ifindex && !address.tentative())
        .map(|address| Prefix { address: address.ip, length: address.prefix })
        .collect();
    prefixes.arrange();
    let mac = link.mac.map_or(MacAddr::ZERO, MacAddr);
    Interface {
        index: IfIndex(link.ifindex),
        name: link.name.as_str().into(),
        mac: if link.hardware == ETHERNET { mac } else { MacAddr::ZERO },
        kind: link.kind.as_deref().unwrap_or_default().into(),
        up: link.usable(),
        loopback: link.loopback,
        port: master.is_some_and(takes_all),
        addresses: prefixes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netlink::OperState;

    fn link(ifindex: u32, kind: Option<&str>, master: Option<u32>) -> Link {
        Link {
            ifindex,
            name: format!("eth{ifindex}"),
            hardware: 1,
            mac: Some([2, 0, 0, 0, 0, 1]),
            up: true,
            carrier: true,
            loopback: false,
            noarp: false,
            operstate: OperState::Up,
            kind: kind.map(str::to_owned),
            mtu: 1500,
            master,
            parent: None,
            parent_elsewhere: false,
            queueless: false,
        }
    }

    #[test]
    fn the_ports_of_bridges_and_bonds_are_told_from_members_of_a_vrf() {
        let masters = [link(10, Some("bridge"), None), link(11, Some("vrf"), None)];
        for (master, port) in
            [(Some(10), true), (Some(11), false), (Some(99), false), (None, false)]
        {
            let found = interface(&link(2, None, master), &masters, &[]);
            assert_eq!(found.port, port, "{master:?}");
        }
    }
}
