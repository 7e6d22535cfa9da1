//! Which node is preferred for an address, and in what order the others follow: weighted rendezvous
//! hashing. All nodes compute the same from the same names; a node that comes or goes moves only its own
//! addresses.
use crate::api::address::NodeName;
use crate::arrange::Arrange;

/// The largest weight of a node; the cost of ranking grows with it.
pub(super) const MAX_WEIGHT: u8 = 16;
/// Priority of the first in rank; 255 is for owners of the address (RFC 9568), which no node is.
const FIRST_PRIORITY: u8 = 254;
/// Distance between ranks where there are few nodes: ten milliseconds of skew at the default interval,
/// so that the second has spoken before the third moves.
const PRIORITY_STEP: usize = 25;

/// A node that may announce, and how much of the load it should take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: NodeName,
    /// 1 to [`MAX_WEIGHT`].
    pub(super) weight: u8,
}

/// FNV-1a, then the finalizer of SplitMix64, because FNV mixes its last bytes badly.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for &byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// A node enters the draw as often as its weight says; its best ticket counts.
fn score(key: &[u8], node: &Candidate) -> u64 {
    (0..node.weight.max(1)).map(|n| hash(&[key, node.name.as_bytes(), &[n]])).max().unwrap_or(0)
}

/// The node that should hold `key`. None if there are no candidates.
pub(super) fn preferred<'a>(key: &[u8], nodes: &'a [Candidate]) -> Option<&'a Candidate> {
    nodes.iter().max_by_key(|node| (score(key, node), NodeName::clone(&node.name)))
}

/// The VRRP priority of `me` among `nodes` when `first` is preferred. The others follow in an order that
/// depends on `first`, so that a dead node's addresses do not all fall to the same one each time.
pub(super) fn priority(first: &str, nodes: &[Candidate], me: &str) -> u8 {
    let mut order: Vec<&Candidate> = nodes.iter().collect();
    order.arrange_by_key(|node| {
        let ticket = score(first.as_bytes(), node);
        (&*node.name != first, std::cmp::Reverse(ticket), NodeName::clone(&node.name))
    });
    let rank = order.iter().position(|node| &*node.name == me).unwrap_or(order.len());
    let step = (usize::from(FIRST_PRIORITY) / nodes.len().max(1)).clamp(1, PRIORITY_STEP);
    let below = u8::try_from(rank * step).unwrap_or(u8::MAX);
    FIRST_PRIORITY.saturating_sub(below).max(1)
}

/// The priority of a node that knows of no others by name.
pub(super) fn lone_priority(me: &str) -> u8 {
    (hash(&[me.as_bytes()]) % u64::from(FIRST_PRIORITY)) as u8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[u8]) -> Vec<Candidate> {
        let node = |(i, &weight): (usize, &u8)| Candidate { name: format!("n{i}").into(), weight };
        weights.iter().enumerate().map(node).collect()
    }

    fn owners(nodes: &[Candidate]) -> Vec<NodeName> {
        (0..3000_u32)
            .map(|i| NodeName::clone(&preferred(&i.to_be_bytes(), nodes).unwrap().name))
            .collect()
    }

    #[test]
    fn addresses_spread_over_the_nodes_by_weight() {
        let share = |weights: &[u8], name: &str| {
            owners(&nodes(weights)).iter().filter(|owner| &***owner == name).count()
        };
        for i in 0..3 {
            let even = share(&[1, 1, 1], &format!("n{i}"));
            assert!((900..1100).contains(&even), "n{i} has {even} of 3000");
        }
        let double = share(&[2, 1, 1], "n0");
        assert!((1400..1600).contains(&double), "half belongs to weight 2 of 4, not {double}");
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_addresses() {
        let three = nodes(&[1, 1, 1]);
        let two = &three[..2];
        for (before, after) in owners(&three).iter().zip(owners(two)) {
            assert!(&**before == "n2" || *before == after);
        }
    }

    #[test]
    fn priorities_are_distinct_and_the_preferred_comes_first() {
        for count in [1, 2, 3, 10, 100] {
            let nodes = nodes(&vec![1; count]);
            let mut all: Vec<u8> =
                nodes.iter().map(|node| priority("n0", &nodes, &node.name)).collect();
            assert_eq!(all[0], 254);
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
            assert!(all[0] >= 1);
        }
        let three = nodes(&[1, 1, 1]);
        assert_eq!(priority("n1", &three, "n1"), 254);
        assert_eq!(priority("n0", &three, "stranger"), 179);
        assert!((1..=254).contains(&lone_priority("k8s-ctr")));
    }
}
