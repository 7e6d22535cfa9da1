//! Who answers for which address on the LAN.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::address::{IfIndex, MacAddr, NodeName};
use super::meta::NamespacedName;
use crate::kernel::Time;

/// What this node does for one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It answers for the address.
    Holder,
    /// It stays silent; another node answers or may answer.
    Standby,
    /// It asks the LAN whether somebody uses the address already (RFC 5227), and stays silent.
    Probing,
    /// Somebody who is no node of ours uses the address; nobody of us answers.
    Conflict,
}

/// One address on one interface, as the data path must answer for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The announced address.
    pub address: IpAddr,
    /// On which interface.
    pub interface: IfIndex,
    /// The interface's own hardware address, which is put into the answers.
    pub mac: MacAddr,
    /// Whether this node answers. If not, the data path drops the questions, so that the kernel, whose
    /// local route would make it answer, stays silent.
    pub held: bool,
}

/// Everything this node answers for, complete: what is not in it is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answers {
    /// Sorted by (interface, address).
    pub answers: Vec<Answer>,
    /// Every assigned address this takes into account. One that is not in it must not be routed to this
    /// node yet: the kernel would answer for it, unasked.
    pub considered: BTreeSet<IpAddr>,
}

/// One announced address as `pilus status` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// The address.
    pub address: IpAddr,
    /// The interface it is announced on, by name.
    pub interface: Arc<str>,
    /// What this node does for it.
    pub role: Role,
    /// Who answers, as far as this node knows.
    pub holder: Option<NodeName>,
    /// Since when the holder holds it.
    pub since: Time,
    /// Why this node has this role, in a sentence.
    pub why: String,
    /// The Services it belongs to.
    pub services: Vec<NamespacedName>,
    /// The CiliumL2AnnouncementPolicy that selected it.
    pub policy: Arc<str>,
    /// The VRRP virtual router that carries it, and our priority in it.
    pub vrid: u8,
    /// This node's VRRP priority for it.
    pub priority: u8,
}

/// All announced addresses; whole state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Announcements {
    /// Sorted by address, then interface.
    pub list: Vec<Announcement>,
    /// Services that should be announced and are not, with the reason in a sentence.
    pub not_announced: BTreeMap<NamespacedName, String>,
}
