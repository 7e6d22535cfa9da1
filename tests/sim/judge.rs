//! What must hold at every sampled instant.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use pilus::kernel::Time;

use crate::cluster::Cluster;
use crate::config::Vip;

/// Between two samples.
pub(crate) const SAMPLE: Duration = Duration::from_millis(10);
/// Without loss an address must be answered for this long after any disturbance.
pub(crate) const BOUND: Duration = Duration::from_millis(500);
/// With up to 20 % loss: adverts are lost three times in a row now and then.
pub(crate) const LOSSY_BOUND: Duration = Duration::from_millis(1500);

/// A stranger has been noticed.
pub(crate) const STRANGER_BOUND: Duration = Duration::from_secs(1);
/// A clean shutdown hands over at once.
pub(crate) const GRACEFUL_BOUND: u64 = 100;

/// Collects what is seen.
#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) lossy: bool,
    pub(crate) disturbed: Time,
    /// Two answers are no fault until then: two halves have just been joined.
    pub(crate) joining_until: Time,
    /// Addresses whose holder has just failed, with the time and the holder.
    pub(crate) watched: BTreeMap<IpAddr, (Time, usize)>,
    /// The last clean shutdown.
    pub(crate) graceful: Option<Time>,
    pub(crate) failovers: Vec<u64>,
    pub(crate) violations: Vec<String>,
    pub(crate) doubles: u64,
    pub(crate) samples: u64,
    pub(crate) double_since: BTreeMap<(IpAddr, u8), u32>,
}

impl Judge {
    pub(crate) fn sample(&mut self, cluster: &Cluster) {
        let vips: Vec<&Vip> = all_vips(cluster);
        let sides: BTreeSet<u8> = cluster.wire.side.iter().copied().collect();
        for vip in vips {
            for &side in &sides {
                self.samples += 1;
                self.judge(cluster, vip, side);
            }
            self.watch(cluster, vip.address);
        }
        self.judge_silence(cluster);
    }

    fn judge(&mut self, cluster: &Cluster, vip: &Vip, side: u8) {
        let now = cluster.now;
        let bound = if self.lossy { LOSSY_BOUND } else { BOUND };
        let quiet = now.since(self.disturbed) >= bound;
        let here = || cluster.nodes.iter().filter(|node| cluster.wire.side[node.number] == side);
        let answering: Vec<usize> =
            here().filter(|it| it.answers(vip.address, now)).map(|it| it.number).collect();
        let possible = here().any(|node| {
            let wanted = node.setup.vips.iter().find(|own| own.address == vip.address);
            node.is_running()
                && node.link
                && wanted.is_some_and(|vip| node.setup.allows(node.number, vip))
        });
        for &node in &answering {
            let setup = &cluster.nodes[node].setup;
            let own = setup.vips.iter().find(|own| own.address == vip.address);
            if own.is_none_or(|vip| !setup.allows(node, vip)) {
                self.violation(now, format!("node {node} answers for {} and may not", vip.address));
            }
        }
        if cluster.stranger == Some(vip.address) {
            // It speaks four times a second, is answered once and believed the second time.
            let noticed = now.since(self.disturbed) >= STRANGER_BOUND.max(bound);
            if noticed && !answering.is_empty() {
                self.violation(
                    now,
                    format!("{answering:?} fight with a stranger for {}", vip.address),
                );
            }
            return;
        }
        if quiet && possible && answering.is_empty() {
            self.violation(now, format!("nobody answers for {}", vip.address));
        }
        let run = self.double_since.entry((vip.address, side)).or_default();
        if answering.len() > 1 {
            *run += 1;
            self.doubles += 1;
        } else {
            *run = 0;
        }
        // One sample may fall into the millisecond in which a handover's advertisement travels.
        let allowed = if self.lossy { LOSSY_BOUND.as_millis() / SAMPLE.as_millis() } else { 1 };
        if u128::from(*run) > allowed && now >= self.joining_until {
            self.violation(now, format!("{answering:?} answer for {} at once", vip.address));
        }
        if let [holder] = answering[..]
            && quiet
            && !self.lossy
            && cluster.wire.side.iter().all(|side| *side == 0)
            && cluster.client.get(&vip.address) != Some(&cluster.nodes[holder].mac)
        {
            let known = cluster.client.get(&vip.address);
            self.violation(
                now,
                format!("{}: the client sends to {known:?}, not to node {holder}", vip.address),
            );
        }
    }

    /// Every running agent must keep its node's kernel silent about addresses it does not hold.
    fn judge_silence(&mut self, cluster: &Cluster) {
        if cluster.now.since(self.disturbed) < BOUND {
            return;
        }
        for node in cluster.nodes.iter().filter(|node| node.is_running()) {
            for vip in &node.setup.vips {
                if !node.is_silenced(vip.address) {
                    let text = format!("node {} leaves {} to its kernel", node.number, vip.address);
                    self.violation(cluster.now, text);
                }
            }
        }
    }

    fn watch(&mut self, cluster: &Cluster, address: IpAddr) {
        let Some(&(since, victim)) = self.watched.get(&address) else { return };
        let taken = cluster.nodes.iter().any(|node| {
            node.number != victim && node.is_running() && node.answers(address, cluster.now)
        });
        // The victim itself has come back and nobody else was needed.
        let node = &cluster.nodes[victim];
        let back = node.is_running() && node.answers(address, cluster.now);
        let others =
            cluster.nodes.iter().any(|it| it.number != victim && it.is_running() && it.link);
        if !others || back && cluster.now.since(since) > Duration::from_millis(300) {
            self.watched.remove(&address);
        }
        if taken {
            let millis = cluster.now.since(since).as_millis() as u64;
            self.failovers.push(millis);
            if self.graceful == Some(since) && !self.lossy && millis > GRACEFUL_BOUND {
                let text = format!("{address} took {millis} ms to move after a clean shutdown");
                self.violation(cluster.now, text);
            }
            self.watched.remove(&address);
        }
    }

    fn violation(&mut self, now: Time, text: String) {
        if self.violations.len() < 5 {
            self.violations.push(format!("{now:?}: {text}"));
        }
    }
}

fn all_vips(cluster: &Cluster) -> Vec<&Vip> {
    let mut seen = BTreeSet::new();
    let vips = cluster.nodes.iter().flat_map(|node| &node.setup.vips);
    vips.filter(|vip| seen.insert(vip.address)).collect()
}
