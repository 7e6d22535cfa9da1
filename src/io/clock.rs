//! The clocks. Nothing else in the program reads them.
use std::time::{SystemTime, UNIX_EPOCH};

use crate::kernel::Time;

/// CLOCK_MONOTONIC, the same clock as `bpf_ktime_get_ns`, so that times can be compared with those the
/// eBPF programs see.
pub fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// Seconds since 1970, for people.
pub fn unix_seconds() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Milliseconds since 1970.
pub fn unix_millis() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What to add to a [`Time`] in nanoseconds to get nanoseconds since 1970.
pub fn unix_offset_nanos() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    unix.saturating_sub(now().as_nanos())
}
