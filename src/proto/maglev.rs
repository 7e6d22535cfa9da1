//! Consistent hashing: Maglev's lookup table (Eisenbud et al., NSDI 2016, section 3.4).
use crate::arrange::Arrange;
use std::net::{IpAddr, SocketAddr};

/// Entries of a table of the kernel's service programs, of which there are thousands. A prime.
pub const KERNEL_SIZE: usize = 251;
/// An entry of a table without backends.
pub const NOBODY: u16 = u16::MAX;

/// The table for `backends`: `size` positions among them. `size` must be a prime, so that every step visits every entry,
/// and below 65,536; so many backends are looked at. The shares of the backends differ by one entry at most; if there are more backends than entries, the
/// last ones in order of address get none; if there are none, all entries are [`NOBODY`]. The order of the backends does
/// not matter, so all nodes send a client to the same one; when one comes or goes, about its share of the clients moves.
pub fn table(backends: &[SocketAddr], size: usize) -> Vec<u16> {
    let mut order: Vec<usize> = (0..backends.len().min(usize::from(NOBODY))).collect();
    order.arrange_by_key(|&i| backends[i]);
    order.truncate(size);
    // Each backend's next choice and the step to the one after.
    let mut choices: Vec<(usize, usize)> =
        order.iter().map(|&i| first_choice(backends[i], size)).collect();
    let mut table = vec![NOBODY; size];
    let mut filled = 0;
    while filled < size && !order.is_empty() {
        for (choice, &index) in choices.iter_mut().zip(&order) {
            while table[choice.0] != NOBODY {
                choice.0 = (choice.0 + choice.1) % size;
            }
            // There are no more positions than fit; see above.
            table[choice.0] = index as u16;
            filled += 1;
            if filled == size {
                break;
            }
        }
    }
    table
}

/// A number for a client, the same on all nodes.
pub fn affinity(client: IpAddr) -> u64 {
    hash(0, &address_bytes(client))
}

fn first_choice(address: SocketAddr, size: usize) -> (usize, usize) {
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&address_bytes(address.ip()));
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    let (offset, skip) = (hash(1, &bytes), hash(2, &bytes));
    let size = size as u64;
    ((offset % size) as usize, (skip % (size - 1)) as usize + 1)
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// FNV-1a, then the finisher of MurmurHash3, which spreads what FNV leaves together.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = bytes.iter().fold(start, step);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::{KERNEL_SIZE, NOBODY, table};
    use std::net::SocketAddr;

    /// The proxy's.
    const LARGE: usize = 16_381;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (0..count).map(|i| ([10, 0, 0, i], 80).into()).collect()
    }

    fn share(table: &[u16], index: usize) -> usize {
        table.iter().filter(|entry| usize::from(**entry) == index).count()
    }

    #[test]
    fn shares_differ_by_one_entry_at_most_and_every_entry_is_somebodys() {
        for size in [KERNEL_SIZE, LARGE] {
            for count in [1, 2, 3, 7, 10, 50, 100, 200, 250] {
                let made = table(&addresses(count), size);
                assert_eq!(made.len(), size);
                let count = usize::from(count);
                for index in 0..count {
                    let share = share(&made, index);
                    assert!(
                        (size / count..=size.div_ceil(count)).contains(&share),
                        "{index} of {count} has {share} of {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_node_makes_the_same_table_whatever_the_order() {
        for size in [KERNEL_SIZE, LARGE] {
            let list = addresses(7);
            let first = table(&list, size);
            let reversed: Vec<_> = list.iter().rev().copied().collect();
            let second = table(&reversed, size);
            let same = first
                .iter()
                .zip(&second)
                .all(|(a, b)| list[usize::from(*a)] == reversed[usize::from(*b)]);
            assert!(same, "another order gives another table");
        }
        // A table as it has been since this was written: nodes of two versions must agree.
        let three = table(&addresses(3), 13);
        assert_eq!(three, PINNED);
    }

    /// Made by another implementation of the paper's algorithm and of the hash.
    const PINNED: [u16; 13] = [2, 2, 0, 2, 1, 0, 0, 0, 2, 1, 1, 1, 0];

    #[test]
    fn when_one_leaves_little_more_than_its_share_moves() {
        // In multiples of the share of the one that leaves: a small table pays for its even shares.
        for (size, bounds) in [
            (KERNEL_SIZE, [(2_u8, 1.01), (3, 1.06), (5, 1.16), (10, 2.36), (20, 3.43)]),
            (LARGE, [(2, 1.01), (3, 1.02), (5, 1.02), (10, 1.07), (20, 1.18)]),
        ] {
            for (count, factor) in bounds {
                let all = addresses(count);
                let before = table(&all, size);
                for gone in 0..usize::from(count) {
                    let mut rest = all.clone();
                    rest.remove(gone);
                    let after = table(&rest, size);
                    let moved = before
                        .iter()
                        .zip(&after)
                        .filter(|(a, b)| all[usize::from(**a)] != rest[usize::from(**b)])
                        .count();
                    let bound = factor * size as f64 / f64::from(count);
                    assert!((moved as f64) <= bound, "{gone} of {count}: {moved} of {size}");
                }
            }
        }
    }

    #[test]
    fn none_and_too_many() {
        assert_eq!(table(&[], KERNEL_SIZE), [NOBODY; KERNEL_SIZE]);
        let many: Vec<SocketAddr> =
            (0..300).map(|i| ([10, 0, (i / 256) as u8, i as u8], 80).into()).collect();
        let made = table(&many, KERNEL_SIZE);
        let mut used = made.clone();
        used.sort_unstable();
        let first: Vec<u16> = (0..251).collect();
        assert_eq!(used, first, "one each, for the first 251");
    }
}
