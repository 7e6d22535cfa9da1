//! The value of the `date` header, made once a second.
use std::cell::RefCell;

use crate::io::{clock, reactor};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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
        MONTHS[month],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month (from 0) and day of a day counted from 1970-01-01, by years of March to February.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    (year_of_era + era * 400 + u64::from(month < 2), month as usize, day)
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
