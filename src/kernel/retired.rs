use std::sync::Arc;
use std::time::Duration;

use super::Time;

/// When it is first looked whether what was replaced is still in use: by then everybody has the successor.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// And at least this often: a connection may use what it began with for hours.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps what was replaced until nobody else has it, so that it is dropped here: to free ten thousand objects takes
/// milliseconds, which the thread that has used them may not have.
#[derive(Debug)]
pub struct Retired<T: ?Sized> {
    kept: Vec<Arc<T>>,
    pause: Duration,
    next: Time,
}

// === impl Retired ===

impl<T: ?Sized> Retired<T> {
    /// Keeps `old` if others have it too.
    pub fn add(&mut self, now: Time, old: Arc<T>) {
        if Arc::strong_count(&old) > 1 {
            self.kept.push(old);
            self.pause = FIRST_LOOK;
            self.next = now + FIRST_LOOK;
        }
    }

    /// When [`Retired::sweep`] is to be called.
    pub fn timeout(&self) -> Option<Time> {
        (!self.kept.is_empty()).then_some(self.next)
    }

    /// Drops what nobody else has any more, if it is time to look.
    pub fn sweep(&mut self, now: Time) {
        if now >= self.next {
            self.kept.retain(|old| Arc::strong_count(old) > 1);
            self.pause = (self.pause * 2).min(LAST_PAUSE);
            self.next = now + self.pause;
        }
    }
}

impl<T: ?Sized> Default for Retired<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), pause: FIRST_LOOK, next: Time::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retired_is_dropped_here_when_the_last_other_has_let_it_go() {
        let mut retired = Retired::default();
        retired.add(Time::ZERO, Arc::new([1]));
        assert_eq!(retired.timeout(), None, "nobody else has it");
        let used = Arc::new([2]);
        retired.add(Time::ZERO, Arc::clone(&used));
        let first = retired.timeout().unwrap();
        retired.sweep(first - Duration::from_nanos(1));
        retired.sweep(first);
        assert_eq!(Arc::strong_count(&used), 2);
        let second = retired.timeout().unwrap();
        assert_eq!(second, first + FIRST_LOOK * 2);
        let weak = Arc::downgrade(&used);
        drop(used);
        assert!(weak.upgrade().is_some());
        retired.sweep(second);
        assert!(weak.upgrade().is_none());
        assert_eq!(retired.timeout(), None);
    }
}
