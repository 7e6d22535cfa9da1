//! What happens to a server that panics.
//!
//! The panic is caught at the mailbox boundary (the program is built with unwinding for this). The
//! server's struct is dropped, its mailbox emptied, and after a pause that doubles with every crash a
//! new one is built; all who may send to it are told ([`super::Server::peer_restarted`]) and send it
//! their state again. The other servers go on meanwhile.
use std::time::Duration;

use super::Time;

/// The pause before the first restart. Short: one crash on a strange packet should not be noticed.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause. A server that crashes on its very input costs one attempt in this time.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that has lived this long is healthy again: its next crash starts with the first pause.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Counts the crashes of one server and decides when it is built again.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    crashes_in_a_row: u32,
    total: u64,
    started: Time,
}

// === impl Restarts ===

impl Restarts {
    /// Notes that the server was built at `now`.
    pub const fn started(&mut self, now: Time) {
        self.started = now;
    }

    /// Notes a crash at `now`; returns when to build the server again.
    pub fn crashed(&mut self, now: Time) -> Time {
        if now.since(self.started) >= HEALTHY_AFTER {
            self.crashes_in_a_row = 0;
        }
        let pause =
            FIRST_PAUSE.saturating_mul(1 << self.crashes_in_a_row.min(16)).min(LONGEST_PAUSE);
        self.crashes_in_a_row += 1;
        self.total += 1;
        now + pause
    }

    /// All crashes so far.
    pub const fn total(&self) -> u64 {
        self.total
    }
}
