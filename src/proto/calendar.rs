//! Days and seconds since 1970 as dates of the Gregorian calendar, in UTC.

/// Short English names, as dates of HTTP and log formats have them.
pub const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month (1 to 12) and day (from 1) of a day counted from 1970-01-01.
pub const fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from the 1st of March of year 0, so that the leap day is a year's last day.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

/// Seconds since 1970 of a time as [`rfc3339`] writes it.
pub fn unix(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The inverse of `civil`: years begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some((days - 719_469) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// RFC 3339 up to the second and without the zone: `2026-11-21T02:03:25`.
pub fn date_time(unix: u64) -> String {
    let (year, month, day) = civil(unix / 86_400);
    let second = unix % 86_400;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// RFC 3339 as `metadata.creationTimestamp` is written: `2026-11-21T02:03:25Z`.
pub fn rfc3339(unix: u64) -> String {
    date_time(unix) + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for time in [0, 951_782_400, 951_868_799, 1_764_072_001, 4_107_542_399, 4_107_542_400] {
            assert_eq!(unix(&rfc3339(time)), Some(time));
        }
        for bad in ["", "x", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+01:00"] {
            assert_eq!(unix(bad), None, "{bad}");
        }
    }
}
