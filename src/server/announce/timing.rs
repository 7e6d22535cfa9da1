//! Every time and bound of the election, with its reason. `interval` is `Config::advert_interval`
//! (100 ms by default).
use std::time::Duration;

/// Probes before an address is used that no peer announces (RFC 5227 sends three as well).
pub(super) const PROBES: u8 = 3;
/// Between probes. RFC 5227's one second is for links that come up slowly; ours is up before an address
/// is wanted, and all probes fit into the time we listen for a holder anyway.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(50);
/// From the last probe to the verdict that nobody has answered: far above any LAN's round trip, and with
/// three probes still shorter than the wait for a holder.
pub(super) const PROBE_WAIT: Duration = Duration::from_millis(100);

/// When a new holder tells the LAN, counted from the takeover. At once for speed, repeated because the
/// frames are not acknowledged, late ones for switches whose port has just come up.
pub(super) const TELL_AT: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(2000),
];
/// Afterwards again and again: well below the five minutes after which switches forget a port.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(60);
/// A holder that was challenged tells the LAN again, but not more often than this.
pub(super) const RETELL_AFTER: Duration = Duration::from_secs(1);

/// A node that ranks above the holder takes over only when it has been fit this long, so that a link or
/// an agent that keeps failing does not take addresses with it each time.
pub(super) const PREEMPT_AFTER: Duration = Duration::from_secs(2);

/// How long a holder that met a stranger's claim waits before it asks again whether it is gone.
pub(super) const CONFLICT_RETRY: Duration = Duration::from_secs(10);
/// RFC 5227, DEFEND_INTERVAL: a second claim within this time is a conflict; the first is answered with
/// one announcement.
pub(super) const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// The defence waits this long: a node that takes over is first heard by its announcement if its
/// advertisement was lost or overtaken, and must not be contradicted.
pub(super) const DEFEND_AFTER: Duration = Duration::from_millis(50);
/// Claims this close together are one: hosts announce in pairs, and networks duplicate frames.
pub(super) const SAME_CLAIM: Duration = Duration::from_millis(200);

/// How often a release is advertised, so that a lost one costs nothing.
pub(super) const RELEASES: u8 = 3;
/// Between releases.
pub(super) const RELEASE_EVERY: Duration = Duration::from_millis(10);

/// How long the addresses and endpoints of Services may be missing after the objects and interfaces have
/// come; then there are none.
pub(super) const INPUT_GRACE: Duration = Duration::from_millis(500);

/// ARP and neighbor frames this node sends per second at most, however many addresses move at once.
pub(super) const FRAMES_PER_SECOND: u32 = 500;
/// Of which this many may go out at once.
pub(super) const FRAME_BURST: u32 = 100;
/// When the budget is used up, try again after this.
pub(super) const FRAME_RETRY: Duration = Duration::from_millis(20);

/// Nodes remembered by their hardware address. The design is for ten; forged ones push out the oldest.
pub(super) const MAX_PEERS: usize = 64;
/// Pairs of address and interface, as many as the kernel's table has room for.
pub(super) const MAX_CLAIMS: usize = 4096;
/// IPv6 addresses in one advertisement: it must fit into the 1280 bytes that every link carries.
pub(super) const V6_PER_ADVERTISEMENT: usize = 72;

/// A holder is dead when nothing was heard for three intervals (RFC 9568, Active_Down_Interval), plus
/// [`skew`].
pub(super) const fn dead_after(interval: Duration) -> Duration {
    interval.saturating_mul(3)
}

/// The lower the priority, the later: so that successors do not all move at once (RFC 9568, Skew_Time).
pub(super) fn skew(interval: Duration, priority: u8) -> Duration {
    interval * (256 - u32::from(priority)) / 256
}

/// How long the hooks may answer after a sign of life. Signs are sent every half interval, so a killed
/// agent's node is silent two and a half intervals after its last advertisement at the latest: half an
/// interval before the first successor moves.
pub(super) const fn alive_for(interval: Duration) -> Duration {
    interval.saturating_mul(2)
}

/// A busy machine stops an agent again and again: the log says it at most this often.
pub(super) const LOG_STOPS: Duration = Duration::from_secs(60);

/// How long an agent that was stopped, and whose hooks have fallen silent, listens before it answers
/// again: every live holder has spoken once by then.
pub(super) fn resume_after(interval: Duration) -> Duration {
    interval * 3 / 2
}
