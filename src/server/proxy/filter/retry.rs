//! When a request is sent again.
use std::time::Duration;

use super::super::cluster::Cluster;
use super::super::limits::LONGEST_BACKOFF_FACTOR;
use crate::api::route::RetryPolicy;
use crate::kernel::Time;

/// The attempts of one request.
#[derive(Default)]
pub(in super::super) struct Retry {
    /// Those made after the first.
    made: u32,
}

/// What is done after an attempt that could be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// Again, at this time.
    At(Time),
    /// The outcome is what the client gets.
    Enough,
    /// The backend has had its share of retries: 503.
    OverBudget,
}

// === impl Retry ===

impl Retry {
    /// Whether the request is sent again. `deadline`: when it must be answered. `random` spreads the retries of
    /// requests that failed together.
    pub(in super::super) fn next(
        &mut self,
        policy: &RetryPolicy,
        cluster: &Cluster,
        now: Time,
        deadline: Option<Time>,
        random: u64,
    ) -> Verdict {
        if self.made >= policy.attempts {
            return Verdict::Enough;
        }
        let at = now + pause(policy.backoff, self.made, random);
        if deadline.is_some_and(|deadline| at >= deadline) {
            return Verdict::Enough;
        }
        if policy.budget.is_some_and(|budget| !cluster.take_retry(now, &budget)) {
            return Verdict::OverBudget;
        }
        self.made += 1;
        Verdict::At(at)
    }
}

/// At least `least`, doubled with each attempt, and up to half of that more.
fn pause(least: Duration, made: u32, random: u64) -> Duration {
    let factor = 2_u32.saturating_pow(made).min(LONGEST_BACKOFF_FACTOR);
    let pause = least.saturating_mul(factor);
    pause + pause / 2 * u32::from((random % 256) as u8) / 256
}
