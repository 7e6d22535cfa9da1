//! Sorting that is one piece of code for every type.
//!
//! The standard library's is made anew for each type it is used with, four to eight KiB each time; what is sorted here are
//! a few names when objects change. So numbers are sorted, by an order that looks at what they stand for, and the items
//! are moved once.
use std::cmp::Ordering;

/// Sorts in place and stably, as the methods of slices whose names begin with `sort`.
pub trait Arrange<T> {
    /// By the order of the type.
    fn arrange(&mut self)
    where
        T: Ord;

    /// By `order`.
    fn arrange_by(&mut self, order: impl FnMut(&T, &T) -> Ordering);

    /// By the order of what `key` gives.
    fn arrange_by_key<K: Ord>(&mut self, key: impl FnMut(&T) -> K);
}

/// Maps and sets from iterators, one entry after the other: their `FromIterator` sorts first, again for each type.
pub trait Gather: Iterator + Sized {
    /// All items.
    fn gather<C: Default + Extend<Self::Item>>(self) -> C {
        let mut all = C::default();
        all.extend(self);
        all
    }
}

impl<I: Iterator> Gather for I {}

impl<T> Arrange<T> for [T] {
    fn arrange(&mut self)
    where
        T: Ord,
    {
        self.arrange_by(T::cmp);
    }

    fn arrange_by(&mut self, mut order: impl FnMut(&T, &T) -> Ordering) {
        let mut places: Vec<usize> = (0..self.len()).collect();
        sort_numbers(&mut places, &mut |a, b| order(&self[a], &self[b]));
        // Each cycle is walked once: at `at` belongs what is at `places[at]`.
        for start in 0..places.len() {
            let mut at = start;
            loop {
                let from = std::mem::replace(&mut places[at], at);
                if from == start || from == at {
                    break;
                }
                self.swap(at, from);
                at = from;
            }
        }
    }

    fn arrange_by_key<K: Ord>(&mut self, mut key: impl FnMut(&T) -> K) {
        self.arrange_by(|a, b| key(a).cmp(&key(b)));
    }
}

fn sort_numbers(numbers: &mut [usize], order: &mut dyn FnMut(usize, usize) -> Ordering) {
    numbers.sort_by(|a, b| order(*a, *b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arranges_as_the_standard_library_sorts() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for length in (0..40).chain([500]) {
            for span in [2, 10, 1000] {
                let items: Vec<(u64, usize)> =
                    (0..length).map(|at| (random() % span, at)).collect();
                let (mut ours, mut theirs) = (items.clone(), items.clone());
                ours.arrange_by_key(|item| item.0);
                theirs.sort_by_key(|item| item.0);
                assert_eq!(ours, theirs, "stable");
                let (mut ours, mut theirs) = (items.clone(), items);
                ours.arrange_by(|a, b| b.cmp(a));
                theirs.sort_by(|a, b| b.cmp(a));
                assert_eq!(ours, theirs);
                ours.arrange();
                theirs.sort();
                assert_eq!(ours, theirs);
            }
        }
    }
}
