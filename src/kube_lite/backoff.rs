//! How long to wait before the next attempt.
use std::time::Duration;

/// As client-go's reflectors: from 0.8 s, doubled each time, to 30 s, and up to as much again by chance, so that a
/// thousand clients of a server that comes back do not all come at once.
const FIRST: Duration = Duration::from_millis(800);
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// It has worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It has failed: how long to wait. `random` is any number.
    pub fn next(&mut self, random: u64) -> Duration {
        let base = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        base + base.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_bound_and_starts_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(waits, [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert!(backoff.next(u64::MAX) <= LONGEST * 2 && backoff.next(u64::MAX) > LONGEST);
        backoff.reset();
        assert_eq!(backoff.next(0), FIRST);
    }
}
