//! Consistent hashing: Maglev's lookup table (Eisenbud et al., NSDI 2016, section 3.4).
use crate::arrange::Arrange;
use std::net::{IpAddr, SocketAddr};

/// The table of `size` entries for `addresses`: entries are positions among them, `u16::MAX` in all where there are none.
/// `size` is a prime, so that every step visits every entry; of more addresses than entries the first have them. The
/// order of the addresses does not matter, so all
/// nodes send a client to the same endpoint; when one comes or goes, about its share of the clients moves.
pub fn table(addresses: &[SocketAddr], size: usize) -> Box<[u16]> {
    let mut order: Vec<usize> = (0..addresses.len().min(size)).collect();
    order.arrange_by_key(|&i| addresses[i]);
    // Each endpoint's next choice and the step to the one after.
    let mut choices: Vec<(usize, usize)> =
        order.iter().map(|&i| first_choice(addresses[i], size)).collect();
    let mut table = vec![u16::MAX; size].into_boxed_slice();
    let mut filled = 0;
    while filled < size && !order.is_empty() {
        for (choice, &index) in choices.iter_mut().zip(&order) {
            while table[choice.0] != u16::MAX {
                choice.0 = (choice.0 + choice.1) % size;
            }
            // There are fewer endpoints than entries, which fit.
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
    use super::table;
    use std::net::SocketAddr;

    const TABLE_SIZE: usize = 16_381;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (0..count).map(|i| ([10, 0, 0, i], 80).into()).collect()
    }

    #[test]
    fn shares_are_even_whatever_the_order() {
        let list = addresses(7);
        let first = table(&list, TABLE_SIZE);
        for index in 0..7 {
            let share = first.iter().filter(|entry| **entry == index).count();
            assert!(share.abs_diff(TABLE_SIZE / 7) <= 1, "{index} has {share}");
        }
        let reversed: Vec<_> = list.iter().rev().copied().collect();
        let second = table(&reversed, TABLE_SIZE);
        let same =
            first.iter().zip(&second).all(|(a, b)| list[*a as usize] == reversed[*b as usize]);
        assert!(same, "another order gives another table");
    }

    #[test]
    fn only_about_the_share_of_an_endpoint_that_leaves_moves() {
        let all = table(&addresses(10), TABLE_SIZE);
        let fewer = table(&addresses(9), TABLE_SIZE);
        let moved = all.iter().zip(&fewer).filter(|(a, b)| **a != 9 && a != b).count();
        assert!(moved * 20 < TABLE_SIZE, "{moved} of {TABLE_SIZE} moved needlessly");
        assert_eq!(table(&[], TABLE_SIZE).len(), TABLE_SIZE);
    }
}
