//! L4 load balancing in the kernel: the service programs on the interfaces, and their maps.
//!
//! Maps and links are pinned like those of [`super::Bpf`] and outlive the agent: connections go on while it is restarted
//! or upgraded. Nothing takes them away when it ends; removing the BPF root's directory does.
//!
//! What flows refer to keeps its place for as long as it exists: a backend's slot is given to another only under a new
//! generation, by which flows notice. Order matters: backends, then the tables that name them, then the frontends; and
//! the other way round when they go.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::abi::to_wire;
use super::error::BpfError;
use super::hooks::{Hooks, Place, SERVICE_IN, SERVICE_OUT};
use super::object::{self, NamedMaps, Program};
use super::service_abi::{
    BackendValue, FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_OUTSIDE, FRONTEND_SOURCES, FrontendKey,
    FrontendValue, MAGLEV_SIZE, MAGLEV_SLOTS, MAX_BACKENDS, MAX_FRONTENDS, MAX_SOURCES, NO_BACKEND,
    WireReach,
};
use super::sys::{self, RawMap};
use super::{ProgramCost, TcHook, prepare};
use crate::api::address::Network;
use crate::api::object::PortProtocol;
use crate::api::service::{Backend, Frontend, Hooked, Reach};
use crate::arrange::Gather;
use crate::io::netlink::{Link, Netlink, Way};
use crate::proto::maglev;

/// The object file, compiled from `bpf/` by `scripts/bpf-build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/service.bpf.o");
/// Flows are sized by memory: a flow costs about 160 bytes, so this is half a percent of it.
const MEMORY_PER_FLOW: u64 = 32 * 1024;
/// Fewest and most flows; two for each connection.
const FLOWS: (u64, u64) = (16 * 1024, 1024 * 1024);

/// The programs for processes of the node: function, pin and attach type (`enum bpf_attach_type`).
const HOST_HOOKS: [(&str, &str, u32); 8] = [
    ("host_ask4", "host_connect4", 10),
    ("host_ask6", "host_connect6", 11),
    ("host_ask4", "host_sendmsg4", 14),
    ("host_ask6", "host_sendmsg6", 15),
    ("host_tell4", "host_recvmsg4", 19),
    ("host_tell6", "host_recvmsg6", 20),
    ("host_tell4", "host_peername4", 29),
    ("host_tell6", "host_peername6", 30),
];

/// One frontend as it is in the kernel.
struct Installed {
    frontend: Arc<Frontend>,
    id: u32,
    slots: Vec<u32>,
}

/// Key and value of an entry.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What tells one backend from another: flows go on as long as all of it stays.
type BackendKey = (SocketAddr, WireReach, [u8; 16]);

/// A backend's place.
struct Slot {
    value: BackendValue,
    /// How many frontends have it; 0: the place is free.
    users: u32,
}

/// The loaded service programs.
pub struct Services {
    hooks: Hooks,
    tc: TcHook,
    ingress: Program,
    egress: Program,
    /// In the order of [`HOST_HOOKS`].
    host: [Program; 8],
    /// What the node's processes are told apart by; 0: this kernel cannot tell.
    netns: u64,
    maps: Maps,
    frontends: BTreeMap<FrontendKey, Installed>,
    /// Frontends of a predecessor that are not known to be wanted yet.
    inherited: BTreeMap<FrontendKey, u32>,
    slots: Vec<Slot>,
    places: BTreeMap<BackendKey, u32>,
    free: BTreeSet<u32>,
    next_id: u32,
    /// Addresses that answer echo requests.
    echoes: BTreeSet<IpAddr>,
    inside: BTreeSet<u32>,
    settings: Option<[u8; 40]>,
    ways: Ways,
}

struct Maps {
    frontends: RawMap,
    maglev: RawMap,
    backends: RawMap,
    flows: RawMap,
    sources: RawMap,
    settings: RawMap,
    inside: RawMap,
    counters: RawMap,
}

/// The kernel's routes to backends, asked for once.
#[derive(Default)]
struct Ways {
    netlink: Option<Netlink>,
    mtus: BTreeMap<u32, u32>,
}

/// The number of a protocol in packets.
pub const fn protocol_number(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Tcp => libc::IPPROTO_TCP as u8,
        PortProtocol::Udp => libc::IPPROTO_UDP as u8,
        PortProtocol::Sctp => libc::IPPROTO_SCTP as u8,
    }
}

// === impl Services ===

impl Services {
    /// Loads the programs on the maps pinned under `root` or on new ones. Nothing is attached yet.
    pub fn load(root: &Path, tc: TcHook) -> Result<Self, BpfError> {
        let (maps, links) = (root.join("maps"), root.join("links"));
        prepare(root, &[&maps, &links])?;
        let size = |name: &str| (name == "flows").then(flows);
        let mut programs = [("service_in", sys::PROG_TYPE_SCHED_CLS, 0); 10];
        programs[1].0 = "service_out";
        for (place, (name, _, attach)) in programs[2..].iter_mut().zip(HOST_HOOKS) {
            *place = (name, sys::PROG_TYPE_CGROUP_SOCK_ADDR, attach);
        }
        let (mut named, [ingress, egress, host @ ..]) =
            object::load_object(OBJECT, &maps, &size, programs)?;
        let maps = Maps::new(&mut named)?;
        let mut services = Self {
            hooks: Hooks::new(links),
            tc,
            ingress,
            egress,
            host,
            netns: 0,
            maps,
            frontends: BTreeMap::new(),
            inherited: BTreeMap::new(),
            slots: Vec::new(),
            places: BTreeMap::new(),
            free: BTreeSet::new(),
            next_id: 1,
            echoes: BTreeSet::new(),
            inside: BTreeSet::new(),
            settings: None,
            ways: Ways::default(),
        };
        services.inherit().map_err(|e| BpfError::system("reading the service maps", e))?;
        Ok(services)
    }

    /// Takes over what a predecessor has left: flows refer to its backends.
    fn inherit(&mut self) -> io::Result<()> {
        for (key, value) in self.maps.frontends.entries()? {
            let (Ok(key), Some(id)) = (<[u8; 20]>::try_from(key), FrontendValue::id_of(&value))
            else {
                continue;
            };
            self.next_id = self.next_id.max(id.wrapping_add(1));
            self.inherited.insert(FrontendKey(key), id);
        }
        for index in 0..MAX_BACKENDS {
            let value = self.maps.backends.get(&index.to_ne_bytes())?;
            let Some(value) = value.as_deref().and_then(BackendValue::from_bytes) else { break };
            // Slots are used from the first: behind one that never was, none was.
            if value.reach.is_none() && value.generation == 0 {
                break;
            }
            if let Some(reach) = value.reach {
                self.places.insert((value.address, reach, value.via), index);
            } else {
                self.free.insert(index);
            }
            self.slots.push(Slot { value, users: 0 });
        }
        for (key, _) in self.maps.inside.entries()? {
            self.inside.extend(<[u8; 4]>::try_from(key).ok().map(u32::from_ne_bytes));
        }
        Ok(())
    }

    // --- interfaces ---

    /// Puts the programs on these interfaces and takes them off all others. Returns what failed, by interface.
    pub fn hook(&mut self, wanted: &[Hooked]) -> Vec<(u32, BpfError)> {
        let mut failures = Vec::new();
        let inside: BTreeSet<u32> =
            wanted.iter().filter(|it| !it.outside).map(|it| it.index.0).gather();
        let links = match Netlink::open().and_then(|mut netlink| netlink.links()) {
            Ok(links) => links,
            Err(error) => return vec![(0, error.into())],
        };
        for index in self.inside.union(&inside).copied().collect::<Vec<_>>() {
            let key = index.to_ne_bytes();
            let done = match inside.contains(&index) {
                true => self.maps.inside.put(&key, &inside_value(index, &links)),
                false => self.maps.inside.remove(&key),
            };
            if let Err(error) = done {
                failures.push((index, BpfError::system("writing BPF map inside", error)));
            }
        }
        self.inside = inside;
        for (place, program) in [(&SERVICE_IN, &self.ingress), (&SERVICE_OUT, &self.egress)] {
            for it in wanted {
                match self.hooks.attach(place, program, it.index.0, self.tc) {
                    // Whoever lists the interfaces will say so in a moment.
                    Err(error) if !error.is_gone() => failures.push((it.index.0, error)),
                    _ => {}
                }
            }
            failures.extend(unhook(&self.hooks, place, wanted));
        }
        failures
    }

    /// Whether both programs are on these interfaces.
    pub fn are_hooked(&self, wanted: &[Hooked]) -> Result<bool, BpfError> {
        for it in wanted {
            for place in [&SERVICE_IN, &SERVICE_OUT] {
                if !self.hooks.is_attached(place, it.index.0)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Balances the connections of processes of this network namespace too, wherever in the machine's control groups
    /// they are. `group` is the root of the control groups of version 2.
    pub fn hook_host(&mut self, group: &Path) -> Result<(), BpfError> {
        let shown = group.display();
        let file = std::fs::File::open(group)
            .map_err(|e| BpfError::system(format!("opening the control group {shown}"), e))?;
        self.netns = sys::netns_cookie()
            .map_err(|e| BpfError::system("telling this network namespace from others", e))?;
        for (program, (_, pin, attach)) in self.host.iter().zip(HOST_HOOKS) {
            self.hooks.attach_cgroup(program, (pin, attach), &file)?;
        }
        Ok(())
    }

    /// Leaves the connections of processes alone.
    pub fn unhook_host(&mut self) -> Result<(), BpfError> {
        self.netns = 0;
        HOST_HOOKS.iter().try_for_each(|(_, pin, _)| self.hooks.detach_link(pin))
    }

    /// Whether the hooks of processes are there.
    pub fn is_host_hooked(&self) -> bool {
        self.hooks.has_links(&HOST_HOOKS.map(|(_, pin, _)| pin))
    }

    // --- maps ---

    /// The addresses of this node that stand in for clients', IPv4 and IPv6.
    pub fn set_own(&mut self, own: [Option<IpAddr>; 2]) -> Result<(), BpfError> {
        let mut value = [0; 40];
        value[32..].copy_from_slice(&self.netns.to_ne_bytes());
        for (at, ip) in own.into_iter().enumerate() {
            if let Some(ip) = ip {
                value[at * 16..][..16].copy_from_slice(&to_wire(ip));
            }
        }
        if self.settings != Some(value) {
            let put = self.maps.settings.put(&0_u32.to_ne_bytes(), &value);
            put.map_err(|e| BpfError::system("writing BPF map settings", e))?;
            self.settings = Some(value);
        }
        Ok(())
    }

    /// Makes the frontends exactly these, writing differences only. Returns what failed, by frontend.
    pub fn sync(&mut self, wanted: &[Arc<Frontend>]) -> Vec<(SocketAddr, BpfError)> {
        let mut failures = Vec::new();
        let keys: BTreeSet<FrontendKey> = wanted.iter().map(|it| key_of(it)).gather();
        for frontend in wanted {
            let key = key_of(frontend);
            let same =
                |old: &Installed| Arc::ptr_eq(&old.frontend, frontend) || old.frontend == *frontend;
            if self.frontends.get(&key).is_some_and(same) {
                continue;
            }
            if let Err(error) = self.install(key, frontend) {
                failures.push((SocketAddr::new(frontend.address, frontend.port.0), error));
            }
        }
        let gone: Vec<FrontendKey> =
            self.frontends.keys().filter(|key| !keys.contains(key)).copied().collect();
        let inherited = std::mem::take(&mut self.inherited);
        let left = inherited.into_iter().filter(|(key, _)| !keys.contains(key));
        for (key, id) in left.collect::<Vec<_>>() {
            self.remove_tables(key, id);
        }
        for key in gone {
            if let Some(old) = self.frontends.remove(&key) {
                self.remove_tables(key, old.id);
                self.leave(&old.slots);
            }
        }
        self.sync_echoes(wanted, &mut failures);
        self.free_unused();
        failures
    }

    fn install(&mut self, key: FrontendKey, frontend: &Arc<Frontend>) -> Result<(), BpfError> {
        let id = match (self.frontends.get(&key), self.inherited.remove(&key)) {
            (Some(old), _) => old.id,
            (None, Some(id)) => id,
            (None, None) => self.new_id(),
        };
        let all = self.slots_of(&frontend.backends)?;
        let local = if frontend.local_from_outside || frontend.local_from_inside {
            self.slots_of(&frontend.local_backends)?
        } else {
            // What another node hands over must not go on from here.
            let here = |slot: &u32| {
                let reach = self.slots[*slot as usize].value.reach;
                matches!(reach, Some(WireReach::Local | WireReach::Host))
            };
            all.iter().copied().filter(here).collect()
        };
        let slots = [&all[..], &local].concat();
        for slot in &slots {
            self.slots[*slot as usize].users += 1;
        }
        let value = FrontendValue {
            id,
            affinity: frontend.affinity.map_or(0, |time| time.as_secs().max(1) as u32),
            flags: flags_of(frontend),
            backends: [all.len(), local.len()].map(|n| u16::try_from(n).unwrap_or(u16::MAX)),
        };
        let write = |error| insert_failed("maglev", 2 * MAX_FRONTENDS, error);
        self.put_table(id, 0, &all).map_err(write)?;
        self.put_table(id, 1, &local).map_err(write)?;
        self.put_sources(id, frontend)?;
        let put = self.maps.frontends.put(&key.0, &value.to_bytes());
        put.map_err(|error| insert_failed("frontends", MAX_FRONTENDS, error))?;
        let new = Installed { frontend: Arc::clone(frontend), id, slots };
        if let Some(old) = self.frontends.insert(key, new) {
            self.remove_sources(old.id, &old.frontend, frontend.sources.as_deref().unwrap_or(&[]));
            self.leave(&old.slots);
        }
        Ok(())
    }

    fn slots_of(&mut self, backends: &[Backend]) -> Result<Vec<u32>, BpfError> {
        backends.iter().map(|backend| self.slot_of(backend)).collect()
    }

    /// The place of a backend, with the way there as it is now.
    fn slot_of(&mut self, backend: &Backend) -> Result<u32, BpfError> {
        let (reach, via) = match backend.reach {
            Reach::Local => (WireReach::Local, None),
            Reach::Host => (WireReach::Host, None),
            Reach::Node(node) => (WireReach::Node, Some(node)),
            Reach::Elsewhere => (WireReach::Elsewhere, None),
        };
        let via_bytes = via.map_or([0; 16], to_wire);
        let key = (backend.address, reach, via_bytes);
        if let Some(slot) = self.places.get(&key) {
            return Ok(*slot);
        }
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_BACKENDS as usize => {
                let value = BackendValue {
                    address: backend.address,
                    via: [0; 16],
                    generation: 0,
                    ifindex: 0,
                    mtu: 0,
                    reach: None,
                };
                self.slots.push(Slot { value, users: 0 });
                self.slots.len() as u32 - 1
            }
            None => return Err(BpfError::Full { map: "backends", limit: MAX_BACKENDS }),
        };
        let (ifindex, mtu) = self.ways.to(via.unwrap_or(backend.address.ip()), reach);
        let generation = self.slots[slot as usize].value.generation.wrapping_add(1).max(1);
        let value = BackendValue {
            address: backend.address,
            via: via_bytes,
            generation,
            ifindex,
            mtu,
            reach: Some(reach),
        };
        self.put_backend(slot, value)?;
        self.places.insert(key, slot);
        Ok(slot)
    }

    fn put_backend(&mut self, slot: u32, value: BackendValue) -> Result<(), BpfError> {
        let put = self.maps.backends.put(&slot.to_ne_bytes(), &value.to_bytes());
        put.map_err(|e| BpfError::system("writing BPF map backends", e))?;
        self.slots[slot as usize].value = value;
        Ok(())
    }

    /// Asks anew for the ways to all backends: routes or interfaces have changed.
    pub fn refresh_ways(&mut self) -> Result<(), BpfError> {
        self.ways = Ways::default();
        for slot in 0..self.slots.len() as u32 {
            let old = self.slots[slot as usize].value;
            let Some(reach) = old.reach else { continue };
            let via =
                if old.via == [0; 16] { old.address.ip() } else { super::abi::from_wire(old.via) };
            let (ifindex, mtu) = self.ways.to(via, reach);
            if (ifindex, mtu) != (old.ifindex, old.mtu) {
                self.put_backend(slot, BackendValue { ifindex, mtu, ..old })?;
            }
        }
        Ok(())
    }

    fn put_table(&self, id: u32, local: u32, slots: &[u32]) -> io::Result<()> {
        let key = [id.to_ne_bytes(), local.to_ne_bytes()].concat();
        if slots.is_empty() {
            return self.maps.maglev.remove(&key);
        }
        let addresses: Vec<SocketAddr> =
            slots.iter().map(|slot| self.slots[*slot as usize].value.address).collect();
        let mut value = [0xff; MAGLEV_SIZE];
        for (at, place) in maglev::table(&addresses, MAGLEV_SLOTS).iter().enumerate() {
            let slot = slots.get(usize::from(*place)).and_then(|slot| u16::try_from(*slot).ok());
            value[at * 2..][..2].copy_from_slice(&slot.unwrap_or(NO_BACKEND).to_ne_bytes());
        }
        self.maps.maglev.put(&key, &value)
    }

    fn put_sources(&self, id: u32, frontend: &Frontend) -> Result<(), BpfError> {
        for network in frontend.sources.iter().flat_map(|list| list.iter()) {
            let put = self.maps.sources.put(&source_key(id, network), &1_u32.to_ne_bytes());
            put.map_err(|error| insert_failed("sources", MAX_SOURCES, error))?;
        }
        Ok(())
    }

    fn remove_sources(&self, id: u32, old: &Frontend, kept: &[Network]) {
        for network in old.sources.iter().flat_map(|list| list.iter()) {
            if !kept.contains(network) {
                note(self.maps.sources.remove(&source_key(id, network)), "sources");
            }
        }
    }

    fn remove_tables(&self, key: FrontendKey, id: u32) {
        note(self.maps.frontends.remove(&key.0), "frontends");
        for local in [0_u32, 1] {
            let key = [id.to_ne_bytes(), local.to_ne_bytes()].concat();
            note(self.maps.maglev.remove(&key), "maglev");
        }
    }

    /// Addresses with frontends answer echo requests.
    fn sync_echoes(
        &mut self,
        wanted: &[Arc<Frontend>],
        failures: &mut Vec<(SocketAddr, BpfError)>,
    ) {
        let addresses: BTreeSet<IpAddr> = wanted.iter().map(|it| it.address).gather();
        let key = |ip: IpAddr| FrontendKey::new(SocketAddr::new(ip, 0), libc::IPPROTO_ICMP as u8);
        for ip in self.echoes.difference(&addresses) {
            note(self.maps.frontends.remove(&key(*ip).0), "frontends");
        }
        let value = FrontendValue::default().to_bytes();
        for ip in addresses.difference(&self.echoes) {
            if let Err(error) = self.maps.frontends.put(&key(*ip).0, &value) {
                let error = insert_failed("frontends", MAX_FRONTENDS, error);
                failures.push((SocketAddr::new(*ip, 0), error));
            }
        }
        self.echoes = addresses;
    }

    fn leave(&mut self, slots: &[u32]) {
        for slot in slots {
            let users = &mut self.slots[*slot as usize].users;
            *users = users.saturating_sub(1);
        }
    }

    /// Gives up the places that no frontend has any more: their flows of datagrams begin anew.
    fn free_unused(&mut self) {
        let unused: Vec<(BackendKey, u32)> = self
            .places
            .iter()
            .filter(|(_, slot)| self.slots[**slot as usize].users == 0)
            .map(|(key, slot)| (*key, *slot))
            .collect();
        for (key, slot) in unused {
            let value = BackendValue { reach: None, ..self.slots[slot as usize].value };
            match self.put_backend(slot, value) {
                Ok(()) => {
                    self.places.remove(&key);
                    self.free.insert(slot);
                }
                Err(error) => log::error!("{error}"),
            }
        }
    }

    fn new_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        id
    }

    // --- reading ---

    /// The counters, summed over processors, in the order of their names.
    pub fn counters(&self) -> Result<Vec<u64>, BpfError> {
        let count = super::service_abi::SERVICE_COUNTERS.len();
        (0..count as u32)
            .map(|index| self.maps.counters.sum(index))
            .collect::<io::Result<_>>()
            .map_err(|e| BpfError::system("reading BPF map service_counters", e))
    }

    /// What the programs cost, for budgets.
    pub fn costs(&self) -> Result<[ProgramCost; 2], BpfError> {
        Ok([self.ingress.cost()?, self.egress.cost()?])
    }

    /// How many flows there is room for.
    pub const fn room_for_flows(&self) -> u32 {
        self.maps.flows.max_entries()
    }

    /// Every flow, as bytes of key and value. For tests and `pilus status`.
    pub fn flows(&self) -> Result<Vec<Entry>, BpfError> {
        self.maps.flows.entries().map_err(|e| BpfError::system("reading BPF map flows", e))
    }

    /// Runs `service_in` (or `service_out`) once on a packet: the verdict and the packet after it.
    pub fn test_run(
        &self,
        egress: bool,
        packet: &[u8],
        context: &[u8],
    ) -> Result<(i32, Vec<u8>), BpfError> {
        let program = if egress { &self.egress } else { &self.ingress };
        sys::prog_test_run(program.fd.as_fd(), packet, context)
            .map(|(verdict, packet)| (verdict as i32, packet))
            .map_err(|e| BpfError::system(format!("running {}", program.name), e))
    }
}

// === impl Maps ===

impl Maps {
    fn new(named: &mut NamedMaps) -> Result<Self, BpfError> {
        let mut take = |name: &str| {
            let (fd, shape) = object::take_map(named, name)?;
            Ok::<_, BpfError>(RawMap::new(fd, shape))
        };
        Ok(Self {
            frontends: take("frontends")?,
            maglev: take("maglev")?,
            backends: take("backends")?,
            flows: take("flows")?,
            sources: take("sources")?,
            settings: take("settings")?,
            inside: take("inside")?,
            counters: take("service_counters")?,
        })
    }
}

// === impl Ways ===

impl Ways {
    /// The interface on the way to an address and its MTU; zeroes: the kernel's forwarding has to find it.
    fn to(&mut self, ip: IpAddr, reach: WireReach) -> (u32, u16) {
        if reach == WireReach::Host {
            return (0, 0);
        }
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            None => match Netlink::open() {
                Ok(mut netlink) => {
                    let links = netlink.links().unwrap_or_default();
                    self.mtus = links.into_iter().map(|link| (link.ifindex, link.mtu)).gather();
                    self.netlink.insert(netlink)
                }
                Err(error) => {
                    log::warn!("{error}");
                    return (0, 0);
                }
            },
        };
        match netlink.way_to(ip) {
            Ok(Way::Out(ifindex)) => {
                let mtu = self.mtus.get(&ifindex).copied().unwrap_or(0);
                (ifindex, u16::try_from(mtu).unwrap_or(u16::MAX))
            }
            Ok(Way::Here) => (0, 0),
            Err(error) => {
                log::debug!("{error}");
                (0, 0)
            }
        }
    }
}

fn key_of(frontend: &Frontend) -> FrontendKey {
    let address = SocketAddr::new(frontend.address, frontend.port.0);
    FrontendKey::new(address, protocol_number(frontend.protocol))
}

fn flags_of(frontend: &Frontend) -> u32 {
    let mut flags = 0;
    for (is, flag) in [
        (frontend.local_from_outside, FRONTEND_LOCAL_OUTSIDE),
        (frontend.local_from_inside, FRONTEND_LOCAL_INSIDE),
        (frontend.sources.is_some(), FRONTEND_SOURCES),
    ] {
        if is {
            flags |= flag;
        }
    }
    flags
}

/// Key of map `sources`: 32 bits of id, then the network as of IPv6.
fn source_key(id: u32, network: &Network) -> Vec<u8> {
    let mapped = if network.address.is_ipv4() { 96 } else { 0 };
    let prefix = 32 + mapped + u32::from(network.length);
    [&prefix.to_ne_bytes()[..], &id.to_ne_bytes(), &to_wire(network.address)].concat()
}

/// Map `inside`: what routes name for the interface, and whether its packets may go to the Pod at once. A queue that somebody
/// has put on it (a limit of bandwidth) is not gone around.
fn inside_value(index: u32, links: &[Link]) -> [u8; 8] {
    let link = links.iter().find(|link| link.ifindex == index);
    let way = link.and_then(|link| link.master).unwrap_or(index);
    let is_pair = |link: &Link| link.kind.as_deref() == Some("veth") && link.parent_elsewhere;
    let peer = link.is_some_and(|link| is_pair(link) && link.queueless);
    let mut value = [0; 8];
    value[..4].copy_from_slice(&way.to_ne_bytes());
    value[4..].copy_from_slice(&u32::from(peer).to_ne_bytes());
    value
}

/// Takes a program off the interfaces that are not wanted any more.
fn unhook(hooks: &Hooks, place: &Place, wanted: &[Hooked]) -> Vec<(u32, BpfError)> {
    let attached = match hooks.attached(place) {
        Ok(attached) => attached,
        Err(error) => return vec![(0, error)],
    };
    let left = attached.into_iter().filter(|at| !wanted.iter().any(|it| it.index.0 == *at));
    left.filter_map(|index| hooks.detach(place, index).err().map(|error| (index, error))).collect()
}

fn note(result: io::Result<()>, map: &str) {
    if let Err(error) = result {
        log::error!("removing from BPF map {map}: {error}");
    }
}

fn insert_failed(map: &'static str, limit: u32, error: io::Error) -> BpfError {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => BpfError::Full { map, limit },
        _ => BpfError::system(format!("writing BPF map {map}"), error),
    }
}

/// How many flows this machine has room for.
fn flows() -> u32 {
    // SAFETY: sysconf only reads its number.
    let [pages, size] =
        [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
    let memory = u64::try_from(pages).unwrap_or(0) * u64::try_from(size).unwrap_or(0);
    (memory / MEMORY_PER_FLOW).clamp(FLOWS.0, FLOWS.1) as u32
}
