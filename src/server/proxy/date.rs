//! The value of the `date` header, made once a second.
use std::cell::RefCell;

use crate::io::{clock, reactor};
use crate::proto::calendar::{MONTHS, civil};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

struct Cached {
    /// Of the monotonic clock, when it was made.
    second: u64,
    text: String,
}

thread_local! {
    static CACHED: RefCell<Cached> = const { RefCell::new(Cached { second: 0, text: String::new() }) };
}

/// Calls `with` with the present date.
#[inline]
pub(super) fn with_date<T>(with: impl FnOnce(&str) -> T) -> T {
    let second = reactor::loop_now().as_nanos() / 1_000_000_000;
    CACHED.with_borrow_mut(|cached| {
        if cached.second != second || cached.text.is_empty() {
            *cached = Cached { second, text: imf_fixdate(clock::unix_seconds()) };
        }
        with(&cached.text)
    })
}

/// IMF-fixdate (RFC 9110 section 5.6.7) of a moment in seconds since 1970.
fn imf_fixdate(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[(month - 1) as usize],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::imf_fixdate;

    #[test]
    fn dates_are_written_as_rfc_9110_wants_them() {
        // The RFC's own example, a leap day, the epoch, and an end of year.
        assert_eq!(imf_fixdate(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(imf_fixdate(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(imf_fixdate(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(imf_fixdate(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
    }
}
