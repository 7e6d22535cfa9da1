//! Which UDP flows there are, and which goes first when there are too many. No socket, no clock.
//!
//! Addresses can be forged, and then nobody answers to what the endpoint says. So a flow has to earn its place: until the
//! endpoint has answered it is the first to go, the oldest of them before the others; the last are those whose client has
//! spoken again after that. A source has a share only, of which its own flows pay. Every operation takes the same time
//! however many flows there are.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The client, and what it has sent to.
pub(super) type Key = (SocketAddr, SocketAddr);

/// What a flow has to show for itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// Its endpoint has said nothing yet.
    Unanswered,
    /// It has answered.
    Answered,
    /// And the client has sent more.
    Confirmed,
}

/// Flows by key.
pub(super) struct Table<T> {
    by_key: HashMap<Key, u32>,
    places: Vec<Place<T>>,
    free: Vec<u32>,
    all: Queues,
    by_source: HashMap<IpAddr, Queues>,
    limits: Limits,
}

/// How many flows there may be.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) of_source: usize,
}

struct Place<T> {
    key: Key,
    value: Option<T>,
    stage: Stage,
    /// Among all flows of this stage.
    all: Link,
    /// Among those of the source.
    own: Link,
}

/// One queue a stage.
#[derive(Clone, Copy)]
struct Queues([Queue; 3]);

/// The flow that has moved longest ago is the first.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
    length: usize,
}

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

/// No place.
const NONE: u32 = u32::MAX;

/// Of the places, the part in which unanswered flows only go for one another, not for answered ones: one in so many.
/// Without it nobody new could come to a table that is full of good flows.
const NEWCOMERS: usize = 8;

// === impl Table ===

impl<T> Table<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            by_key: HashMap::new(),
            places: Vec::new(),
            free: Vec::new(),
            all: Queues::EMPTY,
            by_source: HashMap::new(),
            limits,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        self.places[*self.by_key.get(key)? as usize].value.as_ref()
    }

    /// The flow that has to go before one from `client` can come, if any has to.
    pub(super) fn in_the_way(&self, client: SocketAddr) -> Option<&T> {
        let own = self.by_source.get(&source(client));
        let own = own.filter(|own| own.length() >= self.limits.of_source);
        let place = match own {
            Some(own) => own.first_to_go(self.limits.of_source),
            None if self.by_key.len() >= self.limits.all => self.all.first_to_go(self.limits.all),
            None => return None,
        };
        self.places.get(place as usize)?.value.as_ref()
    }

    /// Adds a flow, unanswered, for which there must be room.
    pub(super) fn insert(&mut self, key: Key, value: T) {
        self.remove(&key);
        let place = Place {
            key,
            value: Some(value),
            stage: Stage::Unanswered,
            all: Link::NOWHERE,
            own: Link::NOWHERE,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index as usize] = place;
                index
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        self.by_key.insert(key, index);
        self.enqueue(index);
    }

    /// The flow has moved, and has come to `stage`: it is the last of that to go.
    pub(super) fn advance(&mut self, key: &Key, stage: Stage) {
        if let Some(&index) = self.by_key.get(key) {
            self.dequeue(index);
            self.places[index as usize].stage = stage;
            self.enqueue(index);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<T> {
        let index = self.by_key.remove(key)?;
        self.dequeue(index);
        self.free.push(index);
        self.places[index as usize].value.take()
    }

    /// The flows to one listener's address.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    fn enqueue(&mut self, index: u32) {
        let Place { key, stage, .. } = self.places[index as usize];
        let own = self.by_source.entry(source(key.0)).or_insert(Queues::EMPTY);
        self.all.of(stage).push(index, &mut self.places, |place| &mut place.all);
        own.of(stage).push(index, &mut self.places, |place| &mut place.own);
    }

    fn dequeue(&mut self, index: u32) {
        let Place { key, stage, .. } = self.places[index as usize];
        self.all.of(stage).remove(index, &mut self.places, |place| &mut place.all);
        let source = source(key.0);
        if let Some(own) = self.by_source.get_mut(&source) {
            own.of(stage).remove(index, &mut self.places, |place| &mut place.own);
            if own.length() == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// Whom a flow counts for: an address, of IPv6 the network, in which a host may choose its own.
fn source(client: SocketAddr) -> IpAddr {
    match client.ip().to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

// === impl Queues ===

impl Queues {
    const EMPTY: Self = Self([Queue { first: NONE, last: NONE, length: 0 }; 3]);

    const fn of(&mut self, stage: Stage) -> &mut Queue {
        &mut self.0[stage as usize]
    }

    fn length(&self) -> usize {
        self.0.iter().map(|queue| queue.length).sum()
    }

    fn first_to_go(&self, limit: usize) -> u32 {
        let [unanswered, answered, confirmed] = &self.0;
        let order = if unanswered.length > limit / NEWCOMERS {
            [unanswered, answered, confirmed]
        } else {
            [answered, confirmed, unanswered]
        };
        order.into_iter().map(|queue| queue.first).find(|first| *first != NONE).unwrap_or(NONE)
    }
}

// === impl Queue ===

impl Queue {
    fn push<T>(
        &mut self,
        index: u32,
        places: &mut [Place<T>],
        link: fn(&mut Place<T>) -> &mut Link,
    ) {
        *link(&mut places[index as usize]) = Link { before: self.last, after: NONE };
        match self.last {
            NONE => self.first = index,
            last => link(&mut places[last as usize]).after = index,
        }
        self.last = index;
        self.length += 1;
    }

    fn remove<T>(
        &mut self,
        index: u32,
        places: &mut [Place<T>],
        link: fn(&mut Place<T>) -> &mut Link,
    ) {
        let Link { before, after } = *link(&mut places[index as usize]);
        match before {
            NONE => self.first = after,
            before => link(&mut places[before as usize]).after = after,
        }
        match after {
            NONE => self.last = before,
            after => link(&mut places[after as usize]).before = before,
        }
        self.length -= 1;
    }
}

// === impl Link ===

impl Link {
    const NOWHERE: Self = Self { before: NONE, after: NONE };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: &str) -> Key {
        (client.parse().unwrap(), "192.0.2.1:53".parse().unwrap())
    }

    fn forged(number: u16) -> Key {
        key(&format!("10.0.{}.{}:7", number / 256, number % 256))
    }

    /// Makes room as the listener does; says who had to go.
    fn admit(table: &mut Table<Key>, key: Key) -> Option<Key> {
        let gone = table.in_the_way(key.0).copied();
        if let Some(gone) = gone {
            assert_eq!(table.remove(&gone), Some(gone));
        }
        table.insert(key, key);
        gone
    }

    #[test]
    fn who_was_never_answered_goes_first_and_the_oldest_of_them() {
        let mut table = Table::new(Limits { all: 16, of_source: 16 });
        let good = [key("192.0.2.9:1"), key("192.0.2.9:2")];
        for (key, stage) in good.iter().zip([Stage::Answered, Stage::Confirmed]) {
            assert_eq!(admit(&mut table, *key), None);
            table.advance(key, stage);
        }
        for number in 0..14 {
            assert_eq!(admit(&mut table, forged(number)), None);
        }
        for number in 14..1000 {
            assert_eq!(admit(&mut table, forged(number)), Some(forged(number - 14)));
        }
        assert!(good.iter().all(|key| table.get(key) == Some(key)));
    }

    #[test]
    fn a_table_full_of_good_flows_lets_some_new_ones_in_for_the_one_that_is_silent_longest() {
        let mut table = Table::new(Limits { all: 16, of_source: 100 });
        let good: Vec<_> = (0..16).map(|port| key(&format!("192.0.2.9:{port}"))).collect();
        for key in &good {
            admit(&mut table, *key);
            table.advance(key, Stage::Confirmed);
        }
        table.advance(&good[0], Stage::Confirmed);
        table.advance(&good[2], Stage::Answered);
        // One is answered only; then the one that is silent for longest. Three newcomers, one more than an eighth.
        let gone: Vec<_> =
            (0..6).map(|number| admit(&mut table, forged(number)).unwrap()).collect();
        assert_eq!(gone, [good[2], good[1], good[3], forged(0), forged(1), forged(2)]);
    }

    #[test]
    fn a_source_that_has_its_share_pays_for_itself() {
        let mut table = Table::new(Limits { all: 100, of_source: 8 });
        let bystander = key("192.0.2.9:1");
        admit(&mut table, bystander);
        // Addresses of one IPv6 network are one source.
        let greedy = |number: u32| key(&format!("[2001:db8::{number:x}]:9"));
        for number in 0..50 {
            let gone = admit(&mut table, greedy(number));
            assert_eq!(gone, number.checked_sub(8).map(greedy));
        }
        assert_eq!(admit(&mut table, key("[2001:db8:0:1::1]:9")), None);
        assert_eq!(table.get(&bystander), Some(&bystander));
        assert_eq!(table.values().count(), 10);
    }

    #[test]
    fn places_are_used_again_and_nothing_is_left_behind() {
        let mut table = Table::new(Limits { all: 64, of_source: 64 });
        for round in 0..10 {
            for number in 0..60 {
                admit(&mut table, forged(round * 60 + number));
            }
            for number in (0..60).rev() {
                let key = forged(round * 60 + number);
                table.advance(&key, Stage::Answered);
                assert_eq!(table.remove(&key), Some(key));
                assert_eq!(table.remove(&key), None);
            }
        }
        assert_eq!((table.places.len(), table.free.len()), (60, 60));
        assert!(table.by_source.is_empty() && table.by_key.is_empty());
        assert_eq!(table.all.length(), 0);
    }
}
