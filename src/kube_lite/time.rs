//! Times as Kubernetes writes them (RFC 3339, UTC).

/// Seconds of a day.
const DAY: u64 = 86_400;

/// `2006-01-02T15:04:05.000000Z`, as in `MicroTime`; without the fraction if `micros` is None.
#[must_use]
pub fn format(unix: u64, micros: Option<u32>) -> String {
    let (year, month, day) = date_of(unix / DAY);
    let (hour, minute, second) = (unix % DAY / 3600, unix % 3600 / 60, unix % 60);
    let start = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match micros {
        Some(micros) => format!("{start}.{micros:06}Z"),
        None => format!("{start}Z"),
    }
}

/// Seconds since 1970 of a time in UTC; its fraction is left away.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let mut date = date.split('-').map(number);
    let mut time = time.split('.').next()?.split(':').map(number);
    let (year, month, day): (u64, u64, u64) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute, second): (u64, u64, u64) = (time.next()??, time.next()??, time.next()??);
    let sane = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    sane.then(|| days_to(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

/// Days since 1970 of a date of the Gregorian calendar: years begin in March, so that the odd day is their last.
fn days_to(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469
}

fn date_of(days: u64) -> (u64, u64, u64) {
    // The year by estimate, then by count: at most two steps.
    let mut year = 1970 + days / 366;
    while days_to(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_to(year, *month, 1) <= days).unwrap_or(1);
    (year, month, days - days_to(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_there_and_back() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_764_072_000, "2025-11-25T12:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format(unix, None), text);
            assert_eq!(parse(text), Some(unix));
        }
        assert_eq!(format(1, Some(42)), "1970-01-01T00:00:01.000042Z");
        assert_eq!(parse("1970-01-01T00:00:01.000042Z"), Some(1));
        for bad in ["", "1970-01-01", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00+01:00", "x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
