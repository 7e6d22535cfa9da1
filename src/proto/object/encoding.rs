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
