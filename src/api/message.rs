//! The messages, and the names of the servers that exchange them.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::address::Generation;
use super::address::{Assignments, IfIndex, MacAddr};
use super::announce::{Announcements, Answers};
use super::cluster::{ClusterWrite, ClusterWritten, Fact, SeenObjects, ServedVersions};
use super::datapath::{DatapathReport, Program, Programmed, Sockets};
use super::endpoint::Endpoints;
use super::file::{Files, StateBlob};
use super::interface::Interfaces;
use super::meta::Str;
use super::objects::Objects;
use super::query::View;
use super::route::{ListenerTable, RouteTable, Serving};
use super::service::{Balanced, Balancing};
use super::status::Statuses;
use crate::kernel::{self, Time};

/// Everything that servers and drivers send each other. Large payloads are shared, not copied.
#[derive(Debug, Clone)]
pub enum Message {
    /// files driver → manifests: what changed on disk.
    Files(Arc<Files>),
    /// cluster driver → kube: what the API server has said since the last batch. There is one batch at a time.
    Facts(Arc<[Fact]>),
    /// kube → cluster driver: the batch has been taken in.
    FactsTaken,
    /// kube → publish: in which version each kind is served. Whole state.
    Served(ServedVersions),
    /// kube → publish: what the API server has of objects that are written to; what changed.
    SeenObjects(SeenObjects),
    /// kube → publish: the writer's Lease as it is on the server. Whole state.
    WriterLease(Option<Str>),
    /// publish → cluster driver.
    Write(Arc<ClusterWrite>),
    /// cluster driver → publish.
    Written(Arc<ClusterWritten>),
    /// manifests or kube → store: all objects of the source. Whole state.
    Source(Arc<Objects>),
    /// store → ipam, endpoint, route, service, announce: all objects, generated ones included. Whole state.
    Objects(Arc<Objects>),
    /// any server → store: what it has found out about objects. Whole state of that server.
    Statuses(Arc<Statuses>),
    /// store → admin. Whole state.
    View(Arc<View>),
    /// ipam → announce, datapath, route, service: who has which address. Whole state.
    Assignments(Arc<Assignments>),
    /// endpoint → resolver: look these names up, and keep on doing so. Whole state.
    Resolve(Arc<BTreeSet<Str>>),
    /// A task of the resolver → resolver: what became of one look-up.
    Lookup(Str, Resolved),
    /// resolver → endpoint: what is known of them. Whole state.
    Resolved(Arc<BTreeMap<Str, Resolved>>),
    /// endpoint → proxy, announce, service: the backends. Whole state.
    Endpoints(Arc<Endpoints>),
    /// route → datapath, service: listeners and routes. Whole state.
    Routes(Arc<RouteTable>),
    /// datapath → proxy: routes joined with addresses. Whole state.
    Listeners(Arc<ListenerTable>),
    /// proxy → datapath: connections that arrive from now on see this [`ListenerTable`]; and what of it could not be
    /// opened. Whole state.
    Listening(Generation, Arc<[String]>),
    /// datapath → route: which routes are in effect. Whole state.
    Serving(Arc<Serving>),
    /// netlink driver → announce, datapath, service. Whole state.
    Interfaces(Arc<Interfaces>),
    /// announce → datapath: who answers. Whole state.
    Answers(Arc<Answers>),
    /// announce → bpf driver: the hooks may answer until this time; sent again and again while all is
    /// well, so that a dead agent's node falls silent by itself.
    Alive(Time),
    /// announce → admin. Whole state.
    Announcements(Arc<Announcements>),
    /// datapath → bpf driver: what the hooks must do. Whole state.
    Program(Arc<Program>),
    /// bpf driver → announce, datapath, admin: what they do now. Whole state.
    Programmed(Arc<Programmed>),
    /// service → balancer driver: what the service programs must do; to admin: what they do. Whole state.
    Balancing(Arc<Balancing>),
    /// balancer driver → service: what they do now. Whole state.
    Balanced(Arc<Balanced>),
    /// balancer driver → admin. Whole state.
    ServiceReport(Arc<DatapathReport>),
    /// bpf driver → admin. Whole state.
    DatapathReport(Arc<DatapathReport>),
    /// proxy → bpf driver: the sockets for steered connections. Whole state.
    Sockets(Sockets),
    /// announce → lan driver: put this Ethernet frame on the wire.
    SendFrame(IfIndex, Arc<[u8]>),
    /// lan driver → announce: an ARP packet or neighbor message arrived (Ethernet frame).
    Frame(IfIndex, Arc<[u8]>),
    /// announce → lan driver: send this VRRP payload to the VRRP group of the source's family.
    SendVrrp(IfIndex, IpAddr, Arc<[u8]>),
    /// lan driver → announce: a VRRP payload that this MAC sent from this source, with the TTL or hop
    /// limit it arrived with. The MAC is what tells another agent's ARP answers from a stranger's.
    Vrrp(IfIndex, MacAddr, IpAddr, u8, Arc<[u8]>),
    /// announce → lan driver: exchange frames and VRRP on these interfaces, and join the solicited-node
    /// groups of these IPv6 addresses. Whole state.
    Listen(Arc<[(IfIndex, Vec<IpAddr>)]>),
    /// ipam → lan driver: send this to the other agents on all LAN interfaces.
    SendPeers(Arc<[u8]>),
    /// lan driver → ipam, service: another agent sent this.
    Peer(IpAddr, Arc<[u8]>),
    /// ipam → files driver: keep this in the state directory.
    Save(StateBlob),
    /// files driver → ipam: what was kept; sent at the start, also when there is nothing.
    Restored(StateBlob),
    /// signal driver → announce, datapath, proxy: the program ends now; release what is held.
    Shutdown,
    /// signal driver → proxy: files that are written to were moved away; go on in new ones.
    ReopenLogs,
    /// announce, datapath, bpf driver → signal driver: released.
    Released,
}

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses, sorted; the last good ones where a look-up has failed.
    pub addresses: Vec<IpAddr>,
    /// Why the last look-up failed, in a sentence.
    pub fault: Option<String>,
}

/// The wiring's names. The number is the priority: sources first, presentation last.
pub mod wiring {
    use crate::kernel::ServerId;

    /// io: netlink, interfaces.
    pub const NETLINK: ServerId = ServerId(0);
    /// io: files of the manifest and state directories.
    pub const FILES: ServerId = ServerId(1);
    /// io: frames, VRRP and peer messages on the LAN.
    pub const LAN: ServerId = ServerId(2);
    /// io: names to addresses.
    pub const RESOLVER: ServerId = ServerId(4);
    /// io: termination.
    pub const SIGNAL: ServerId = ServerId(3);
    /// io: an API server.
    pub const CLUSTER: ServerId = ServerId(5);
    /// Static manifests.
    pub const MANIFESTS: ServerId = ServerId(8);
    /// Objects of an API server.
    pub const KUBE: ServerId = ServerId(9);
    /// The object store.
    pub const STORE: ServerId = ServerId(10);
    /// Services to frontends and backends.
    pub const SERVICE: ServerId = ServerId(11);
    /// LB-IPAM.
    pub const IPAM: ServerId = ServerId(12);
    /// Backends of Services.
    pub const ENDPOINT: ServerId = ServerId(13);
    /// Ingress to routes.
    pub const ROUTE: ServerId = ServerId(14);
    /// Election and announcement.
    pub const ANNOUNCE: ServerId = ServerId(15);
    /// What the kernel hooks must do.
    pub const DATAPATH: ServerId = ServerId(16);
    /// io: eBPF programs, maps and local routes.
    pub const BPF: ServerId = ServerId(17);
    /// io: the service programs and their maps.
    pub const BALANCER: ServerId = ServerId(21);
    /// HTTP and TLS.
    pub const PROXY: ServerId = ServerId(18);
    /// Statuses and made objects to an API server.
    pub const PUBLISH: ServerId = ServerId(19);
    /// Command-line queries, metrics.
    pub const ADMIN: ServerId = ServerId(20);

    /// The servers of the first thread: what packets and connections wait for. Each turn of it is short.
    pub const EFFECTS: &[ServerId] = &[NETLINK, LAN, SIGNAL, ANNOUNCE, DATAPATH, BPF, PROXY];
    /// Those of the second thread: their work grows with the number of objects.
    pub const OBJECTS: &[ServerId] = &[
        FILES, RESOLVER, CLUSTER, MANIFESTS, KUBE, STORE, SERVICE, IPAM, ENDPOINT, ROUTE, PUBLISH,
        ADMIN, BALANCER,
    ];
}

// === impl Message ===

impl kernel::Message for Message {
    fn supersedes(&self, older: &Self) -> bool {
        use Message as M;
        match self {
            M::Source(_)
            | M::Served(_)
            | M::WriterLease(_)
            | M::Objects(_)
            | M::Statuses(_)
            | M::View(_)
            | M::Assignments(_)
            | M::Resolve(_)
            | M::Resolved(_)
            | M::Endpoints(_)
            | M::Routes(_)
            | M::Listeners(_)
            | M::Listening(..)
            | M::Serving(_)
            | M::Interfaces(_)
            | M::Answers(_)
            | M::Alive(_)
            | M::Announcements(_)
            | M::Program(_)
            | M::Programmed(_)
            | M::Balancing(_)
            | M::Balanced(_)
            | M::ServiceReport(_)
            | M::DatapathReport(_)
            | M::Listen(_)
            | M::Sockets(_) => std::mem::discriminant(self) == std::mem::discriminant(older),
            M::Save(new) => matches!(older, M::Save(old) if old.name == new.name),
            M::Files(_)
            | M::Facts(_)
            | M::FactsTaken
            | M::SeenObjects(_)
            | M::Write(_)
            | M::Written(_)
            | M::Lookup(..)
            | M::SendFrame(..)
            | M::Frame(..)
            | M::SendVrrp(..)
            | M::Vrrp(..)
            | M::SendPeers(_)
            | M::Peer(..)
            | M::Restored(_)
            | M::Shutdown
            | M::ReopenLogs
            | M::Released => false,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Files(_) => "Files",
            Self::Facts(_) => "Facts",
            Self::FactsTaken => "FactsTaken",
            Self::Served(_) => "Served",
            Self::SeenObjects(_) => "SeenObjects",
            Self::WriterLease(_) => "WriterLease",
            Self::Write(_) => "Write",
            Self::Written(_) => "Written",
            Self::Source(_) => "Source",
            Self::Objects(_) => "Objects",
            Self::Statuses(_) => "Statuses",
            Self::View(_) => "View",
            Self::Assignments(_) => "Assignments",
            Self::Resolve(_) => "Resolve",
            Self::Lookup(..) => "Lookup",
            Self::Resolved(_) => "Resolved",
            Self::Endpoints(_) => "Endpoints",
            Self::Routes(_) => "Routes",
            Self::Listeners(_) => "Listeners",
            Self::Listening(..) => "Listening",
            Self::Serving(_) => "Serving",
            Self::Interfaces(_) => "Interfaces",
            Self::Answers(_) => "Answers",
            Self::Alive(_) => "Alive",
            Self::Announcements(_) => "Announcements",
            Self::Program(_) => "Program",
            Self::Programmed(_) => "Programmed",
            Self::Balancing(_) => "Balancing",
            Self::Balanced(_) => "Balanced",
            Self::ServiceReport(_) => "ServiceReport",
            Self::DatapathReport(_) => "DatapathReport",
            Self::Sockets(_) => "Sockets",
            Self::SendFrame(..) => "SendFrame",
            Self::Frame(..) => "Frame",
            Self::SendVrrp(..) => "SendVrrp",
            Self::Vrrp(..) => "Vrrp",
            Self::Listen(_) => "Listen",
            Self::SendPeers(_) => "SendPeers",
            Self::Peer(..) => "Peer",
            Self::Save(_) => "Save",
            Self::Restored(_) => "Restored",
            Self::Shutdown => "Shutdown",
            Self::ReopenLogs => "ReopenLogs",
            Self::Released => "Released",
        }
    }
}
