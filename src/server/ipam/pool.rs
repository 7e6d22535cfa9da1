//! Pools: their ranges, which of them conflict, and how many addresses they have (LB-02 to LB-09).
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::service::ServiceView;
use crate::api::meta::{Kind, NamespacedName, ObjectKey, Origin};
use crate::api::object::{IpBlock, Pool};
use crate::api::problem::{Problem, Severity};
use crate::arrange::Arrange;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// One block of a pool: `first` to `last`, both included, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Of which family.
    pub family: Family,
    /// The lowest address.
    pub first: u128,
    /// The highest address.
    pub last: u128,
    /// Whether the first and last address are kept back (LB-03).
    pub reserved_ends: bool,
}

/// A pool and what follows from all pools together.
#[derive(Debug, Clone)]
pub struct PoolView {
    /// The object.
    pub pool: Arc<Pool>,
    /// Its valid blocks, in order.
    pub ranges: Vec<Range>,
    /// The message of `cilium.io/PoolConflict`, if it conflicts (LB-07).
    pub conflict: Option<String>,
}

/// All pools, by name.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    /// Sorted by name: the order in which addresses are looked for.
    pub list: Vec<PoolView>,
    /// Blocks that cannot be used, and conflicts.
    pub problems: Vec<Problem>,
    enabled: [bool; 2],
}

/// What [`Pools::find`] says about an address that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is in this pool, which selects the Service.
    Pool(usize),
    /// It is in a pool, but none that selects the Service.
    SelectorMismatch,
    /// It is in no pool that hands out addresses.
    Nowhere,
}

// === impl Family ===

impl Family {
    /// The family of `address`.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address with this number.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// The address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

// === impl Range ===

impl Range {
    /// The range of a block; None if its ends are of two families, or in the wrong order, or its prefix
    /// is too long.
    pub fn from_block(block: IpBlock, allow_first_last: bool) -> Option<Self> {
        match block {
            IpBlock::Cidr(address, length) => {
                let family = Family::of(address);
                let host_bits = family.bits().checked_sub(u32::from(length))?;
                let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
                let first = number(address) & !mask;
                let last = first | mask;
                let reserved_ends = !allow_first_last && last - first > 1;
                Some(Self { family, first, last, reserved_ends })
            }
            IpBlock::Range(start, stop) => {
                let (first, last) = (number(start), number(stop));
                let family = Family::of(start);
                (family == Family::of(stop) && first <= last).then_some(Self {
                    family,
                    first,
                    last,
                    reserved_ends: false,
                })
            }
        }
    }

    /// Whether the address lies between its ends.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.family == Family::of(address) && (self.first..=self.last).contains(&number(address))
    }

    /// Whether the address is kept back.
    pub fn reserves(&self, address: IpAddr) -> bool {
        let number = number(address);
        self.reserved_ends && (number == self.first || number == self.last)
    }

    /// As Cilium prints it.
    fn text(&self) -> String {
        format!("{} - {}", self.family.address(self.first), self.family.address(self.last))
    }
}

// === impl PoolView ===

impl PoolView {
    /// Whether new addresses may come from it.
    pub fn is_open(&self) -> bool {
        !self.pool.disabled && self.conflict.is_none()
    }

    /// Whether it selects the Service (LB-06).
    pub fn selects(&self, service: &ServiceView) -> bool {
        self.pool.selector.as_ref().is_none_or(|selector| service.matches(selector))
    }

    /// Total and free addresses in decimal, given how many of its addresses Services have. Addresses kept
    /// back count as used, as Cilium counts them.
    pub fn counts(&self, in_use: u64) -> Counts {
        let (mut carry, mut low) = (0_u32, 0_u128);
        let mut used = in_use;
        for range in &self.ranges {
            let (sum, one) = low.overflowing_add(range.last - range.first);
            let (sum, two) = sum.overflowing_add(1);
            low = sum;
            carry += u32::from(one) + u32::from(two);
            used += if range.reserved_ends { 2 } else { 0 };
        }
        let (free, borrow) = low.overflowing_sub(u128::from(used));
        let free_carry = carry.saturating_sub(u32::from(borrow));
        Counts {
            total: decimal(carry, low),
            available: decimal(free_carry, free),
            available_about: f64::from(free_carry) * 2_f64.powi(128) + free as f64,
            used,
        }
    }
}

/// The numbers of LB-09.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// All addresses.
    pub total: String,
    /// Those that can still be handed out.
    pub available: String,
    /// The same for a metric.
    pub available_about: f64,
    /// Those in use or kept back.
    pub used: u64,
}

/// `carry` × 2^128 + `low` in decimal: `::/0` has one address more than 128 bits can count.
fn decimal(carry: u32, low: u128) -> String {
    const PART: u128 = 1_000_000_000_000_000_000;
    // 2^128 in parts of 18 digits, lowest first.
    const TWO_TO_128: [u128; 3] = [374_607_431_768_211_456, 282_366_920_938_463_463, 340];
    if carry == 0 {
        return low.to_string();
    }
    let mut parts = [low % PART, low / PART % PART, low / PART / PART];
    for (part, one) in parts.iter_mut().zip(TWO_TO_128) {
        *part += one * u128::from(carry);
    }
    parts[1] += parts[0] / PART;
    parts[2] += parts[1] / PART;
    format!("{}{:018}{:018}", parts[2], parts[1] % PART, parts[0] % PART)
}

// === impl Pools ===

impl Pools {
    /// Looks at all pools. Which of two overlapping pools is the later one must not differ between nodes:
    /// objects of the API server are ordered by creationTimestamp, then name; those of files, whose time
    /// of first reading is each node's own, only by name and before the others.
    pub fn new<'a>(
        pools: impl Iterator<Item = &'a Arc<Pool>>,
        ipv4_enabled: bool,
        ipv6_enabled: bool,
    ) -> Self {
        let mut all = Self { enabled: [ipv4_enabled, ipv6_enabled], ..Self::default() };
        for pool in pools {
            let view = all.view(pool);
            all.list.push(view);
        }
        all.list.arrange_by(|a, b| a.pool.meta.name.cmp(&b.pool.meta.name));
        all.find_conflicts();
        all
    }

    /// Whether addresses of this family are handed out at all.
    pub fn is_enabled(&self, family: Family) -> bool {
        self.enabled[usize::from(family == Family::V6)]
    }

    /// Whether some pool has addresses of this family and they are handed out.
    pub fn has(&self, family: Family) -> bool {
        self.is_enabled(family)
            && self.list.iter().any(|pool| pool.ranges.iter().any(|range| range.family == family))
    }

    /// Whether a Service may keep this address: some pool has it and selects the Service. A disabled or
    /// conflicting pool keeps what it gave (LB-08).
    pub fn allow(&self, service: &ServiceView, address: IpAddr) -> bool {
        self.is_enabled(Family::of(address))
            && self.containing(address).any(|(_, pool, _)| pool.selects(service))
    }

    /// In which pool a Service may newly get this address.
    pub fn find(&self, service: &ServiceView, address: IpAddr) -> Found {
        let mut found = Found::Nowhere;
        if !self.is_enabled(Family::of(address)) {
            return found;
        }
        for (at, pool, _) in self.containing(address) {
            if pool.is_open() {
                if pool.selects(service) {
                    return Found::Pool(at);
                }
                found = Found::SelectorMismatch;
            }
        }
        found
    }

    /// Whether the pool keeps this address back.
    pub fn reserves(&self, pool: usize, address: IpAddr) -> bool {
        self.list[pool]
            .ranges
            .iter()
            .any(|range| range.contains(address) && range.reserves(address))
    }

    /// To which pool the use of an address is counted: the first that has it and does not conflict, else
    /// the first that has it.
    pub fn account(&self, address: IpAddr) -> Option<usize> {
        let clean = |pool: &PoolView| pool.conflict.is_none();
        self.containing(address)
            .find(|(_, pool, _)| clean(pool))
            .or_else(|| self.containing(address).next())
            .map(|(at, ..)| at)
    }

    fn containing(&self, address: IpAddr) -> impl Iterator<Item = (usize, &PoolView, &Range)> {
        self.list.iter().enumerate().filter_map(move |(at, pool)| {
            pool.ranges.iter().find(|range| range.contains(address)).map(|range| (at, pool, range))
        })
    }

    fn view(&mut self, pool: &Arc<Pool>) -> PoolView {
        let mut ranges = Vec::with_capacity(pool.blocks.len());
        for (at, block) in pool.blocks.iter().enumerate() {
            match Range::from_block(*block, pool.allow_first_last) {
                Some(range) => ranges.push(range),
                None => self.complain(
                    pool,
                    at,
                    "not a range of addresses; write the lower address \
                     first, both of one family"
                        .to_owned(),
                ),
            }
        }
        PoolView { pool: Arc::clone(pool), ranges, conflict: None }
    }

    fn complain(&mut self, pool: &Pool, block: usize, message: String) {
        let field = format!("spec.blocks[{block}]");
        self.problems.push(Problem {
            position: pool.meta.position(&field),
            object: Some(ObjectKey {
                kind: Kind::CiliumLoadBalancerIPPool,
                name: pool.meta.name.clone(),
            }),
            field,
            message,
            severity: Severity::Error,
        });
    }

    fn find_conflicts(&mut self) {
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.arrange_by_key(|&at| age(&self.list[at].pool));
        // The ranges of pools without conflict, which do not overlap each other.
        let mut taken = Taken::new();
        for at in order {
            let conflict = self.conflict_of(at, &taken);
            if let Some((block, message)) = conflict {
                let pool = Arc::clone(&self.list[at].pool);
                self.complain(&pool, block, message.clone());
                self.list[at].conflict = Some(message);
            } else {
                for range in &self.list[at].ranges {
                    taken.insert((range.family, range.first), (range.last, at));
                }
            }
        }
    }

    /// The first range of pool `at` that overlaps another of its own or a taken one, with the message.
    fn conflict_of(&self, at: usize, taken: &Taken) -> Option<(usize, String)> {
        let pool = &self.list[at];
        let mut own = Taken::new();
        for range in &pool.ranges {
            if let Some(other) = overlap(&own, range) {
                return Some(self.conflict_message(at, &other, range, at));
            }
            own.insert((range.family, range.first), (range.last, at));
        }
        let (range, other, owner) = pool.ranges.iter().find_map(|range| {
            overlap(taken, range).map(|other| (range, other, owner_of(taken, &other)))
        })?;
        Some(self.conflict_message(at, range, &other, owner))
    }

    fn conflict_message(
        &self,
        at: usize,
        own: &Range,
        other: &Range,
        owner: usize,
    ) -> (usize, String) {
        let block = self.list[at].pool.blocks.iter().position(|block| {
            Range::from_block(*block, self.list[at].pool.allow_first_last).as_ref() == Some(own)
        });
        let message = format!(
            "Pool conflicts since range '{}' overlaps range '{}' from IP Pool '{}'",
            own.text(),
            other.text(),
            self.list[owner].pool.meta.name.name
        );
        (block.unwrap_or(0), message)
    }
}

/// (family, first) → (last, pool), without overlaps.
type Taken = BTreeMap<(Family, u128), (u128, usize)>;

/// The range in `taken` that overlaps `range`. As they do not overlap each other, it can only be the
/// one that starts last before the end of `range`.
fn overlap(taken: &Taken, range: &Range) -> Option<Range> {
    let (&(family, first), &(last, _)) = taken.range(..=(range.family, range.last)).next_back()?;
    (family == range.family && last >= range.first).then_some(Range {
        family,
        first,
        last,
        reserved_ends: false,
    })
}

fn owner_of(taken: &Taken, range: &Range) -> usize {
    taken.get(&(range.family, range.first)).map_or(0, |&(_, owner)| owner)
}

/// The order of creation; see [`Pools::new`].
fn age(pool: &Pool) -> (u64, NamespacedName) {
    let created = match pool.meta.origin {
        Origin::Cluster => pool.meta.created,
        Origin::File(_) | Origin::Generated(_) => 0,
    };
    (created, pool.meta.name.clone())
}
