//! Both clocks at the moment of a question, and times as people read them.
use crate::kernel::Time;
pub use crate::proto::calendar::rfc3339;

/// Now, on the clock that counts and on the wall.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic clock.
    pub time: Time,
    /// Seconds since 1970.
    pub unix: u64,
}

// === impl Moment ===

impl Moment {
    /// The second (since 1970) of an earlier point on the monotonic clock.
    pub const fn unix_of(self, time: Time) -> u64 {
        self.unix.saturating_sub(self.time.since(time).as_secs())
    }
}

/// The inverse of [`rfc3339`]; fractions of a second are dropped. None if it is no such text.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|&(at, byte)| bytes[at] == byte)
        && text.ends_with('Z');
    if !shaped {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    Some(days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + is_leap(year) as u64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn days_before_year(year: u64) -> u64 {
    let last = year - 1;
    (year - 1970) * 365 + (last / 4 - last / 100 + last / 400)
        - (1969 / 4 - 1969 / 100 + 1969 / 400)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    days_before_year(year) + (1..month).map(|month| days_of_month(year, month)).sum::<u64>() + day
        - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_226_605, "2026-11-21T02:03:25Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix), text);
            assert_eq!(parse_rfc3339(text), Some(unix));
        }
        assert_eq!(parse_rfc3339("2026-11-21T02:03:25.123456Z"), Some(1_795_226_605));
        for text in ["", "2026-11-21", "2026-13-21T02:03:25Z", "x026-11-21T02:03:25Z"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
