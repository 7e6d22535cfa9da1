//! The kernel data path: ARP and NDP answers on LAN interfaces, steering of connections to the
//! proxy's listeners. The programs and the map table are described in `bpf/README.md`.
//!
//! Maps and attachments are pinned below a *BPF root* directory, one to an agent, and outlive it: a
//! killed agent's node stays silent for announced addresses, and a restarted agent takes everything
//! over in place. [`Bpf::release`] is the clean way out.
//!
//! Order matters at both ends because a local route makes the kernel answer ARP for an address:
//! write the addresses, attach the interfaces, then add local routes; and remove the local routes
//! before the release.

pub mod abi;
mod error;
mod hooks;
mod object;
pub mod service;
pub mod service_abi;
mod sys;

use crate::arrange::{Arrange, Gather};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::MapError;

pub use self::abi::Counter;
pub use self::error::BpfError;

use self::abi::{
    AddressKey, AddressValue, MAX_ADDRESSES, MAX_SOCKETS, MAX_STEERED, SteerKey, from_wire, to_wire,
};
use self::hooks::{ANNOUNCE, Hooks};
use self::object::{Loaded, MAP_NAMES, Maps, Program};

/// Whether this node answers for an address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Another node holds it: this node's kernel must stay silent.
    NotHeld = 0,
    /// This node answers while its agent is alive.
    Held = 1,
}

/// An announced address on one LAN interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announced {
    /// The LAN interface.
    pub ifindex: u32,
    /// The announced address.
    pub ip: IpAddr,
    /// Whether this node answers.
    pub role: Role,
    /// The interface's own hardware address, sent in answers.
    pub mac: [u8; 6],
}

/// What [`Bpf::addresses`] finds in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnnouncedState {
    /// The entry.
    pub address: Announced,
    /// Answers sent for it on that interface since the entry was made.
    pub replies: u64,
}

/// A transport that can be steered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Transport {
    /// TCP: the socket is a listener.
    Tcp = libc::IPPROTO_TCP as u8,
    /// UDP: the socket is unconnected.
    Udp = libc::IPPROTO_UDP as u8,
}

/// A service address and port that a socket of this process accepts for.
#[derive(Clone, Copy, Debug)]
pub struct Steered<'a> {
    /// The service address.
    pub ip: IpAddr,
    /// The service port.
    pub port: u16,
    /// The transport.
    pub transport: Transport,
    /// A listening socket of the address's family; many entries may share one.
    pub socket: BorrowedFd<'a>,
}

/// How many entries a sync wrote and removed. Zero both times when nothing had changed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Entries created or changed.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
}

/// Which tc hook carries the LAN program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcHook {
    /// A tcx link where the kernel has it (Linux 6.6), else a clsact filter.
    Auto,
    /// A tcx link or failure.
    Tcx,
    /// A clsact filter.
    Clsact,
}

/// What a program costs the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramCost {
    /// Function name.
    pub name: &'static str,
    /// Instructions after the kernel's rewriting.
    pub instructions: u32,
    /// Instructions the verifier walked; 0 before Linux 5.16.
    pub verified: u32,
    /// Whether the kernel takes the program's licence for GPL-compatible.
    pub gpl: bool,
}

/// Which program [`Bpf::test_run`] runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramName {
    /// tc ingress of LAN interfaces.
    L2Announce,
    /// Socket lookup.
    Steer,
}

/// The loaded data path of one agent.
pub struct Bpf {
    root: PathBuf,
    tc: TcHook,
    maps: Maps,
    l2_announce: Program,
    steer: Program,
    hooks: Hooks,
    /// Map `addresses` as this process, its only writer, knows it (but for the reply counts).
    announced: BTreeMap<AddressKey, (Role, [u8; 6])>,
    /// Map `steering`, likewise.
    steered: BTreeMap<SteerKey, u32>,
    /// Sockets of this process in map `sockets`, by socket cookie.
    slots: BTreeMap<u64, u32>,
    /// How many steered entries name a slot.
    uses: BTreeMap<u32, usize>,
}

/// `BPF_FS_MAGIC`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Now, as the programs read the clock: `CLOCK_MONOTONIC` in nanoseconds.
pub fn monotonic_ns() -> u64 {
    super::clock::now().as_nanos()
}

// === impl Bpf ===

impl Bpf {
    /// Loads the programs, on the maps pinned under `root` or on new ones pinned there.
    ///
    /// `root` is created if need be; it must lie on a mounted BPF file system. Nothing is attached
    /// yet, and what a predecessor attached goes on with the same maps until it is replaced.
    pub fn load(root: &Path, tc: TcHook) -> Result<Self, BpfError> {
        let maps = root.join("maps");
        let links = root.join("links");
        prepare(root, &[&maps, &links])?;
        let Loaded { maps, l2_announce, steer } = object::load(&maps)?;
        let mut bpf = Self {
            root: root.to_owned(),
            tc,
            maps,
            l2_announce,
            steer,
            hooks: Hooks::new(links),
            announced: BTreeMap::new(),
            steered: BTreeMap::new(),
            slots: BTreeMap::new(),
            uses: BTreeMap::new(),
        };
        bpf.read_tables()?;
        Ok(bpf)
    }

    fn read_tables(&mut self) -> Result<(), BpfError> {
        for entry in self.maps.addresses.iter() {
            let (key, value) = entry.map_err(|e| map_failed("reading", "addresses", e))?;
            self.announced.insert(key, (role_of(value.role), value.mac));
        }
        for entry in self.maps.steering.iter() {
            let (key, slot) = entry.map_err(|e| map_failed("reading", "steering", e))?;
            self.steered.insert(key, slot);
            *self.uses.entry(slot).or_default() += 1;
        }
        Ok(())
    }

    // --- attachments ---

    /// Answers and silences ARP and NDP on a LAN interface of the calling thread's namespace.
    ///
    /// Replaces, without a gap, the program of a dead predecessor. Call it after
    /// [`Self::sync_addresses`].
    pub fn attach_lan(&mut self, ifindex: u32) -> Result<(), BpfError> {
        self.hooks.attach(&ANNOUNCE, &self.l2_announce, ifindex, self.tc)
    }

    /// Takes the program off an interface; the kernel may then answer ARP for local routes.
    pub fn detach_lan(&mut self, ifindex: u32) -> Result<(), BpfError> {
        self.hooks.detach(&ANNOUNCE, ifindex)
    }

    /// Interfaces the program is on, including those a predecessor left.
    pub fn lans(&self) -> Result<Vec<u32>, BpfError> {
        self.hooks.attached(&ANNOUNCE)
    }

    /// Steers connections in the calling thread's network namespace.
    pub fn attach_steer(&mut self) -> Result<(), BpfError> {
        const NETNS: &str = "/proc/thread-self/ns/net";
        let netns =
            File::open(NETNS).map_err(|e| BpfError::system(format!("opening {NETNS}"), e))?;
        self.hooks.attach_steer(&self.steer, &netns)
    }

    /// What somebody else has taken away or changed of what this process has put into the kernel, each a
    /// phrase. Load anew, attach and sync to put it back.
    pub fn lost(&self, lans: &BTreeSet<u32>) -> Result<Vec<String>, BpfError> {
        let mut lost = Vec::new();
        for ifindex in lans {
            if !self.hooks.is_attached(&ANNOUNCE, *ifindex)? {
                lost.push(format!("the tc program of interface {ifindex}"));
            }
        }
        if !self.hooks.is_steering() {
            lost.push("the socket lookup of the network namespace".to_owned());
        }
        let mut present = BTreeMap::new();
        for entry in self.maps.addresses.iter() {
            let (key, value) = entry.map_err(|e| map_failed("reading", "addresses", e))?;
            present.insert(key, (role_of(value.role), value.mac));
        }
        if present != self.announced {
            lost.push("entries of BPF map addresses".to_owned());
        }
        let mut steered = BTreeMap::new();
        for entry in self.maps.steering.iter() {
            let (key, slot) = entry.map_err(|e| map_failed("reading", "steering", e))?;
            steered.insert(key, slot);
        }
        if steered != self.steered {
            lost.push("entries of BPF map steering".to_owned());
        }
        Ok(lost)
    }

    // --- addresses ---

    /// Adds or changes one announced address, keeping its reply count. No-op when equal.
    pub fn set_address(&mut self, address: Announced) -> Result<(), BpfError> {
        let key = AddressKey { ifindex: address.ifindex, addr: to_wire(address.ip) };
        if self.announced.get(&key) == Some(&(address.role, address.mac)) {
            return Ok(());
        }
        // An answer sent between this read and the write is not counted; only status shows it.
        let replies = self.maps.addresses.get(&key, 0).map_or(0, |old| old.replies);
        let value =
            AddressValue { role: address.role as u32, mac: address.mac, pad: [0; 2], replies };
        self.maps
            .addresses
            .insert(key, value, 0)
            .map_err(|e| insert_failed("addresses", MAX_ADDRESSES, e))?;
        self.announced.insert(key, (address.role, address.mac));
        Ok(())
    }

    /// Forgets an address: the kernel then treats ARP for it as it pleases.
    pub fn remove_address(&mut self, ifindex: u32, ip: IpAddr) -> Result<(), BpfError> {
        let key = AddressKey { ifindex, addr: to_wire(ip) };
        removed(self.maps.addresses.remove(&key), "addresses")?;
        self.announced.remove(&key);
        Ok(())
    }

    /// Makes the announced addresses exactly these, writing differences only.
    pub fn sync_addresses(&mut self, wanted: &[Announced]) -> Result<Changes, BpfError> {
        let keys: BTreeSet<_> = wanted.iter().map(|a| (a.ifindex, to_wire(a.ip))).gather();
        let gone: Vec<_> = self
            .announced
            .keys()
            .filter(|key| !keys.contains(&(key.ifindex, key.addr)))
            .copied()
            .gather();
        let mut changes = Changes::default();
        for key in gone {
            self.remove_address(key.ifindex, from_wire(key.addr))?;
            changes.removed += 1;
        }
        for address in wanted {
            let key = AddressKey { ifindex: address.ifindex, addr: to_wire(address.ip) };
            if self.announced.get(&key) != Some(&(address.role, address.mac)) {
                self.set_address(*address)?;
                changes.written += 1;
            }
        }
        Ok(changes)
    }

    /// The announced addresses as the kernel has them, ordered by interface and address.
    pub fn addresses(&self) -> Result<Vec<AnnouncedState>, BpfError> {
        let mut found = Vec::new();
        for entry in self.maps.addresses.iter() {
            let (key, value) = entry.map_err(|e| map_failed("reading", "addresses", e))?;
            let address = Announced {
                ifindex: key.ifindex,
                ip: from_wire(key.addr),
                role: role_of(value.role),
                mac: value.mac,
            };
            found.push(AnnouncedState { address, replies: value.replies });
        }
        found.arrange_by_key(|s| (s.address.ifindex, s.address.ip));
        Ok(found)
    }

    /// Lets the node answer for held addresses until `valid_until` ([`monotonic_ns`]).
    pub fn set_liveness(&mut self, valid_until: u64) -> Result<(), BpfError> {
        self.maps.liveness.set(0, valid_until, 0).map_err(|e| map_failed("writing", "liveness", e))
    }

    // --- steering ---

    /// Gives connections to `ip`:`port` to a socket. Moves the entry at once if it had another.
    pub fn steer(&mut self, entry: Steered<'_>) -> Result<(), BpfError> {
        self.steer_changed(entry).map(drop)
    }

    fn steer_changed(&mut self, entry: Steered<'_>) -> Result<bool, BpfError> {
        let key = steer_key(entry.ip, entry.port, entry.transport);
        let slot = self.slot_of(entry.socket)?;
        if self.steered.get(&key) == Some(&slot) {
            return Ok(false);
        }
        self.maps
            .steering
            .insert(key, slot, 0)
            .map_err(|e| insert_failed("steering", MAX_STEERED, e))?;
        *self.uses.entry(slot).or_default() += 1;
        if let Some(old) = self.steered.insert(key, slot) {
            self.leave_slot(old);
        }
        Ok(true)
    }

    /// Leaves connections to `ip`:`port` to the kernel again.
    pub fn unsteer(&mut self, ip: IpAddr, port: u16, transport: Transport) -> Result<(), BpfError> {
        self.unsteer_key(steer_key(ip, port, transport))
    }

    fn unsteer_key(&mut self, key: SteerKey) -> Result<(), BpfError> {
        removed(self.maps.steering.remove(&key), "steering")?;
        if let Some(slot) = self.steered.remove(&key) {
            self.leave_slot(slot);
        }
        Ok(())
    }

    /// Makes the steered addresses exactly these, writing differences only.
    pub fn sync_steering(&mut self, wanted: &[Steered<'_>]) -> Result<Changes, BpfError> {
        let keys: BTreeSet<_> =
            wanted.iter().map(|s| steer_key(s.ip, s.port, s.transport)).gather();
        let gone: Vec<_> = self.steered.keys().filter(|k| !keys.contains(k)).copied().collect();
        let mut changes = Changes::default();
        for key in gone {
            self.unsteer_key(key)?;
            changes.removed += 1;
        }
        for entry in wanted {
            changes.written += usize::from(self.steer_changed(*entry)?);
        }
        Ok(changes)
    }

    /// The place of a socket in map `sockets`, put there if it is new.
    fn slot_of(&mut self, socket: BorrowedFd<'_>) -> Result<u32, BpfError> {
        let cookie = socket_cookie(socket)?;
        if let Some(slot) = self.slots.get(&cookie) {
            return Ok(*slot);
        }
        // Slots in the table but not ours hold sockets of a predecessor that may still be serving.
        let used: BTreeSet<u32> = self.slots.values().chain(self.uses.keys()).copied().gather();
        let slot = (0..MAX_SOCKETS)
            .find(|slot| !used.contains(slot))
            .ok_or(BpfError::Full { map: "sockets", limit: MAX_SOCKETS })?;
        self.maps
            .sockets
            .set(slot, &socket.as_raw_fd(), 0)
            .map_err(|e| map_failed("adding a listening socket to", "sockets", e))?;
        self.slots.insert(cookie, slot);
        Ok(slot)
    }

    /// One entry less names the slot; its socket leaves the map with the last.
    fn leave_slot(&mut self, slot: u32) {
        let uses = self.uses.entry(slot).or_default();
        *uses = uses.saturating_sub(1);
        if *uses > 0 {
            return;
        }
        self.uses.remove(&slot);
        self.slots.retain(|_, used| *used != slot);
        if let Err(e) = self.maps.sockets.clear_index(&slot) {
            // A closed socket has left the map by itself.
            log::debug!("socket slot {slot} was already empty: {e}");
        }
    }

    // --- reading ---

    /// The counters, summed over processors.
    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, BpfError> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let values = self.maps.counters.get(&(*counter as u32), 0);
                let values = values.map_err(|e| map_failed("reading", "counters", e))?;
                Ok((*counter, values.iter().sum()))
            })
            .collect()
    }

    /// What the programs cost, for budgets.
    pub fn costs(&self) -> Result<[ProgramCost; 2], BpfError> {
        Ok([self.l2_announce.cost()?, self.steer.cost()?])
    }

    /// Runs a program once on a packet (empty for `steer`) in the context given (`__sk_buff` or
    /// `bpf_sk_lookup`): the verdict and the packet after it. `BPF_PROG_TEST_RUN`.
    pub fn test_run(
        &self,
        program: ProgramName,
        packet: &[u8],
        context: &[u8],
    ) -> Result<(i32, Vec<u8>), BpfError> {
        let program = match program {
            ProgramName::L2Announce => &self.l2_announce,
            ProgramName::Steer => &self.steer,
        };
        sys::prog_test_run(program.fd.as_fd(), packet, context)
            .map(|(verdict, packet)| (verdict as i32, packet))
            .map_err(|e| BpfError::system(format!("running {}", program.name), e))
    }

    // --- the end ---

    /// Detaches everything and removes every pin: nothing of Pilus stays in the kernel.
    ///
    /// Local routes must be gone before, else the kernel starts to answer ARP for them. Goes on
    /// after a failure and returns the first.
    pub fn release(self) -> Result<(), BpfError> {
        let mut results = vec![self.hooks.detach_steer()];
        match self.hooks.attached(&ANNOUNCE) {
            Ok(lans) => {
                results.extend(lans.into_iter().map(|lan| self.hooks.detach(&ANNOUNCE, lan)))
            }
            Err(e) => results.push(Err(e)),
        }
        let maps = self.root.join("maps");
        for pin in MAP_NAMES.map(|name| maps.join(name)) {
            results.push(remove(std::fs::remove_file(&pin), &pin));
        }
        for dir in [maps, self.root.join("links"), self.root] {
            match std::fs::remove_dir(&dir) {
                // A mount point, or in use by others too, as by the service programs: not ours to remove.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {}
                result => results.push(remove(result, &dir)),
            }
        }
        results.into_iter().collect()
    }
}

fn remove(result: io::Result<()>, path: &Path) -> Result<(), BpfError> {
    result.map_err(|e| BpfError::system(format!("removing {}", path.display()), e))
}

const fn role_of(raw: u32) -> Role {
    if raw == Role::Held as u32 { Role::Held } else { Role::NotHeld }
}

const fn steer_key(ip: IpAddr, port: u16, transport: Transport) -> SteerKey {
    SteerKey { addr: to_wire(ip), port, protocol: transport as u8, pad: 0 }
}

/// Creates the directories after making sure that they will be on a BPF file system.
fn prepare(root: &Path, below: &[&Path]) -> Result<(), BpfError> {
    let existing = root.ancestors().find(|p| p.exists()).unwrap_or_else(|| Path::new("/"));
    let path = std::ffi::CString::new(existing.as_os_str().as_bytes())
        .map_err(|_| BpfError::NotMounted { root: root.to_owned() })?;
    // SAFETY: an all-zero statfs is a valid value to be overwritten.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values; the path ends in zero.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut fs) } != 0 {
        let e = io::Error::last_os_error();
        return Err(BpfError::system(format!("looking at {}", existing.display()), e));
    }
    if fs.f_type as i64 != BPF_FS_MAGIC {
        return Err(BpfError::NotMounted { root: root.to_owned() });
    }
    for dir in below {
        std::fs::create_dir_all(dir)
            .map_err(|e| BpfError::system(format!("creating {}", dir.display()), e))?;
    }
    Ok(())
}

/// The number the kernel gives a socket for its lifetime (`SO_COOKIE`).
fn socket_cookie(socket: BorrowedFd<'_>) -> Result<u64, BpfError> {
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: value and length point to live variables of the size stated.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if ret != 0 {
        return Err(BpfError::system("identifying a listening socket", io::Error::last_os_error()));
    }
    Ok(cookie)
}

fn map_failed(doing: &str, map: &str, e: MapError) -> BpfError {
    let operation = format!("{doing} BPF map {map}");
    match e {
        MapError::SyscallError(e) => BpfError::system(operation, e.io_error),
        MapError::IoError(e) => BpfError::system(operation, e),
        e => BpfError::system(operation, io::Error::other(e)),
    }
}

fn insert_failed(map: &'static str, limit: u32, e: MapError) -> BpfError {
    match &e {
        MapError::SyscallError(s) if s.io_error.raw_os_error() == Some(libc::E2BIG) => {
            BpfError::Full { map, limit }
        }
        _ => map_failed("writing", map, e),
    }
}

/// Removing what is not there is no error.
fn removed(result: Result<(), MapError>, map: &str) -> Result<(), BpfError> {
    match result {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other.map_err(|e| map_failed("removing from", map, e)),
    }
}
