//! Base64 and the time stamps of Kubernetes.

/// Decodes standard Base64 with padding (RFC 4648 section 4); line feeds are skipped, as Go does.
///
/// # Errors
/// What is wrong, without repeating the text: it may be a secret.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut padding) = (0u32, 0u32, 0u32);
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\n' | b'\r')) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                0
            }
            _ => {
                return Err(format!(
                    "not valid Base64: character {} is not of its alphabet",
                    at + 1
                ));
            }
        };
        if padding > 0 && (byte != b'=' || padding > 2 || count < 2) {
            return Err("not valid Base64: `=` may only stand at the end".to_owned());
        }
        bits = bits << 6 | u32::from(six);
        count += 1;
        if count == 4 {
            let [_, a, b, c] = bits.to_be_bytes();
            out.extend_from_slice(&[a, b, c][..3 - padding as usize]);
            (bits, count) = (0, 0);
            if padding > 0 {
                // Anything but line feeds after this is caught by the check above.
                count = 4;
            }
        } else if count > 4 {
            return Err("not valid Base64: there is something after the padding".to_owned());
        }
    }
    if count % 4 != 0 {
        return Err("not valid Base64: its length is not a multiple of four".to_owned());
    }
    Ok(out)
}

/// RFC 3339 in UTC, as `metadata.creationTimestamp` is written: `2025-08-23T12:52:57Z`.
pub fn format_unix_seconds(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the 1st of March of year 0, so that the leap day is a year's last day.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
