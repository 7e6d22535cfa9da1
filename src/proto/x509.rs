//! Reads from an X.509 certificate what people must be warned about: its validity and its names.
//!
//! A walk over the DER of RFC 5280 §4.1, strict in its encoding (X.690 §10: definite, minimal lengths).
//! It verifies nothing; chains and signatures are rustls' business.
use std::fmt;
use std::net::IpAddr;

/// What is read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateInfo {
    /// `notBefore`, seconds since 1970; 0 for anything earlier.
    pub not_before: u64,
    /// `notAfter`, seconds since 1970; 0 for anything earlier.
    pub not_after: u64,
    /// `dNSName`s of the subject alternative name, lower-case.
    pub dns_names: Vec<String>,
    /// `uniformResourceIdentifier`s of the subject alternative name, as written.
    pub uris: Vec<String>,
    /// `iPAddress`es of the subject alternative name.
    pub ip_addresses: Vec<IpAddr>,
}

/// Why a certificate cannot be read. Who made the file is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It ends in the middle of this.
    Truncated(&'static str),
    /// A length is indefinite, not minimal or beyond 32 bits.
    Length,
    /// This was expected, and something else is there.
    Expected(&'static str),
    /// There are bytes after this.
    Trailing(&'static str),
    /// A time is not as RFC 5280 §4.1.2.5 wants it: in UTC, with seconds.
    Time,
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT Extensions`
const EXTENSIONS: u8 = 0xa3;
/// `[2] dNSName` of GeneralName
const DNS_NAME: u8 = 0x82;
/// `[6] uniformResourceIdentifier` of GeneralName
const URI: u8 = 0x86;
/// `[7] iPAddress` of GeneralName
const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName, 2.5.29.17
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Reads one DER certificate.
pub fn parse(der: &[u8]) -> Result<CertificateInfo, Error> {
    let mut outer = Reader(der);
    let mut certificate = outer.nested(SEQUENCE, "a certificate")?;
    outer.end("the certificate")?;
    let to_be_signed = certificate.nested(SEQUENCE, "tbsCertificate")?;
    certificate.element(SEQUENCE, "signatureAlgorithm")?;
    certificate.element(BIT_STRING, "signatureValue")?;
    certificate.end("signatureValue")?;
    parse_to_be_signed(to_be_signed)
}

fn parse_to_be_signed(mut tbs: Reader<'_>) -> Result<CertificateInfo, Error> {
    if tbs.peek() == Some(VERSION) {
        tbs.element(VERSION, "version")?;
    }
    tbs.element(INTEGER, "serialNumber")?;
    tbs.element(SEQUENCE, "signature")?;
    tbs.element(SEQUENCE, "issuer")?;
    let mut validity = tbs.nested(SEQUENCE, "validity")?;
    let mut info = CertificateInfo {
        not_before: time(validity.any("notBefore")?)?,
        not_after: time(validity.any("notAfter")?)?,
        ..CertificateInfo::default()
    };
    validity.end("notAfter")?;
    tbs.element(SEQUENCE, "subject")?;
    tbs.element(SEQUENCE, "subjectPublicKeyInfo")?;
    while let Some(tag) = tbs.peek() {
        let (_, value) = tbs.any("tbsCertificate")?;
        if tag == EXTENSIONS {
            parse_extensions(value, &mut info)?;
        }
    }
    Ok(info)
}

fn parse_extensions(value: &[u8], info: &mut CertificateInfo) -> Result<(), Error> {
    let mut explicit = Reader(value);
    let mut list = explicit.nested(SEQUENCE, "extensions")?;
    explicit.end("extensions")?;
    while list.peek().is_some() {
        let mut extension = list.nested(SEQUENCE, "an extension")?;
        let id = extension.element(OBJECT_IDENTIFIER, "extnID")?;
        if extension.peek() == Some(BOOLEAN) {
            extension.element(BOOLEAN, "critical")?;
        }
        let value = extension.element(OCTET_STRING, "extnValue")?;
        extension.end("extnValue")?;
        if id == SUBJECT_ALT_NAME {
            parse_names(value, info)?;
        }
    }
    Ok(())
}

fn parse_names(value: &[u8], info: &mut CertificateInfo) -> Result<(), Error> {
    let mut outer = Reader(value);
    let mut names = outer.nested(SEQUENCE, "subjectAltName")?;
    outer.end("subjectAltName")?;
    while names.peek().is_some() {
        match names.any("a GeneralName")? {
            (DNS_NAME, name) => {
                let name = std::str::from_utf8(name).map_err(|_| Error::Expected("a dNSName"))?;
                info.dns_names.push(name.to_ascii_lowercase());
            }
            (URI, uri) => {
                let uri = std::str::from_utf8(uri).map_err(|_| Error::Expected("a URI"))?;
                info.uris.push(uri.to_owned());
            }
            (IP_ADDRESS, bytes) => info.ip_addresses.push(ip(bytes)?),
            _ => {}
        }
    }
    Ok(())
}

fn ip(bytes: &[u8]) -> Result<IpAddr, Error> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| Error::Expected("an iPAddress"))
}

/// UTCTime `YYMMDDHHMMSSZ` (RFC 5280: 50-99 is 19xx) or GeneralizedTime `YYYYMMDDHHMMSSZ`, as seconds
/// since 1970.
fn time((tag, text): (u8, &[u8])) -> Result<u64, Error> {
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 13) => {
            let year = number(&text[..2])?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 15) => (number(&text[..4])?, &text[4..]),
        _ => return Err(Error::Time),
    };
    if rest[10] != b'Z' {
        return Err(Error::Time);
    }
    let mut fields = [0; 5];
    for (field, digits) in fields.iter_mut().zip(rest[..10].chunks_exact(2)) {
        *field = number(digits)?;
    }
    let [month, day, hour, minute, second] = fields;
    let valid = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 59 {
        return Err(Error::Time);
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Ok(u64::try_from(seconds).unwrap_or(0))
}

fn number(digits: &[u8]) -> Result<i64, Error> {
    digits.iter().try_fold(0, |sum, digit| {
        if digit.is_ascii_digit() {
            Ok(sum * 10 + i64::from(digit - b'0'))
        } else {
            Err(Error::Time)
        }
    })
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Leap days before January 1st of `year`, counted from year 1.
    let leap_days = |year: i64| {
        let before = year - 1;
        before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400)
    };
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    let months: i64 = (1..month).map(|month| days_in_month(year, month)).sum();
    years + months + day - 1
}

/// The rest of a sequence of DER elements.
struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn any(&mut self, what: &'static str) -> Result<(u8, &'a [u8]), Error> {
        let (&tag, rest) = self.0.split_first().ok_or(Error::Truncated(what))?;
        if tag & 0x1f == 0x1f {
            // No field of a certificate needs a tag number beyond 30.
            return Err(Error::Expected(what));
        }
        let (&first, rest) = rest.split_first().ok_or(Error::Truncated(what))?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            long_length(usize::from(first & 0x7f), rest, what)?
        };
        let (value, rest) = rest.split_at_checked(length).ok_or(Error::Truncated(what))?;
        self.0 = rest;
        Ok((tag, value))
    }

    fn element(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], Error> {
        match self.any(what)? {
            (found, value) if found == tag => Ok(value),
            _ => Err(Error::Expected(what)),
        }
    }

    fn nested(&mut self, tag: u8, what: &'static str) -> Result<Self, Error> {
        self.element(tag, what).map(Reader)
    }

    const fn end(&self, what: &'static str) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Trailing(what)) }
    }
}

fn long_length<'a>(
    count: usize,
    rest: &'a [u8],
    what: &'static str,
) -> Result<(usize, &'a [u8]), Error> {
    if !(1..=4).contains(&count) {
        return Err(Error::Length);
    }
    let (bytes, rest) = rest.split_at_checked(count).ok_or(Error::Truncated(what))?;
    let length = bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    if bytes[0] == 0 || length < 0x80 { Err(Error::Length) } else { Ok((length, rest)) }
}

// === impl CertificateInfo ===

impl CertificateInfo {
    /// Whether the certificate is for `host` (lower-case). A wildcard stands for exactly one label; if
    /// `host` is a wildcard itself, the certificate must have the same.
    pub fn covers(&self, host: &str) -> bool {
        self.dns_names.iter().any(|name| name_covers(name, host))
    }
}

/// Whether a name of a certificate, maybe a wildcard, is for `host`; see [`CertificateInfo::covers`].
pub fn name_covers(name: &str, host: &str) -> bool {
    let of_wildcard = |parent: &str| {
        let label = host.split_once('.').filter(|(_, rest)| *rest == parent);
        label.is_some_and(|(label, _)| label != "*" && !label.is_empty())
    };
    name == host || name.strip_prefix("*.").is_some_and(of_wildcard)
}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(what) => write!(f, "it ends within {what}"),
            Self::Length => f.write_str("a length is not valid DER"),
            Self::Expected(what) => write!(f, "{what} is not where it should be"),
            Self::Trailing(what) => write!(f, "there are bytes after {what}"),
            Self::Time => f.write_str("a time is not as RFC 5280 wants it"),
        }
    }
}

impl std::error::Error for Error {}

/// Invariants on arbitrary bytes: what is read is usable, and trailing bytes are refused.
///
/// # Panics
/// When one is broken.
pub fn fuzz(data: &[u8]) {
    let Ok(info) = parse(data) else { return };
    for name in &info.dns_names {
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
        assert!(info.covers(name) || name.contains('*'), "{name:?} does not cover itself");
    }
    let mut longer = data.to_vec();
    longer.push(0);
    assert!(parse(&longer).is_err(), "trailing bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_validity_of_a_real_certificate() {
        let mut params =
            rcgen::CertificateParams::new(["A.example.com".to_owned(), "*.b.org".to_owned()])
                .unwrap();
        params.subject_alt_names.push(rcgen::SanType::IpAddress("10.1.2.3".parse().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::IpAddress("fd00::1".parse().unwrap()));
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(2052, 2, 29);
        let key = rcgen::KeyPair::generate().unwrap();
        let info = parse(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(info.not_before, 946_598_400);
        assert_eq!(info.not_after, 2_592_777_600, "GeneralizedTime from 2050 on");
        assert_eq!(info.dns_names, ["a.example.com", "*.b.org"]);
        assert_eq!(
            info.ip_addresses,
            ["10.1.2.3".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
        for (host, covered) in [
            ("a.example.com", true),
            ("b.example.com", false),
            ("x.b.org", true),
            ("b.org", false),
            ("x.y.b.org", false),
            ("*.b.org", true),
            ("*.example.com", false),
            (".b.org", false),
        ] {
            assert_eq!(info.covers(host), covered, "{host}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_survived() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a.example.com".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        for end in 0..der.len() {
            assert!(parse(&der[..end]).is_err(), "cut at {end}");
        }
        let mut longer = der.clone();
        longer.push(0);
        assert_eq!(parse(&longer), Err(Error::Trailing("the certificate")));
        for at in 0..der.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = der.clone();
                bad[at] ^= flip;
                // Most flips are in names and keys and change nothing we read; none may panic.
                drop(parse(&bad));
            }
        }
    }

    #[test]
    fn lengths_must_be_definite_and_minimal() {
        for (bytes, error) in [
            (&[0x30, 0x80, 0, 0][..], Error::Length),
            (&[0x30, 0x81, 0x01, 0], Error::Length),
            (&[0x30, 0x82, 0x00, 0x80], Error::Length),
            (&[0x30, 0x85, 1, 1, 1, 1, 1], Error::Length),
            (&[0x3f, 0x81, 0x01], Error::Expected("a certificate")),
            (&[0x31, 0], Error::Expected("a certificate")),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], Error::Truncated("a certificate")),
            (&[], Error::Truncated("a certificate")),
        ] {
            assert_eq!(parse(bytes), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn times() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", Ok(0)),
            (UTC_TIME, "500101000000Z", Ok(0)),
            (UTC_TIME, "491231235959Z", Ok(2_524_607_999)),
            (UTC_TIME, "000229120000Z", Ok(951_825_600)),
            (UTC_TIME, "010229120000Z", Err(Error::Time)),
            (UTC_TIME, "7001010000Z", Err(Error::Time)),
            (UTC_TIME, "700101000000+0000", Err(Error::Time)),
            (UTC_TIME, "7001010000000", Err(Error::Time)),
            (UTC_TIME, "70010100000aZ", Err(Error::Time)),
            (UTC_TIME, "701301000000Z", Err(Error::Time)),
            (UTC_TIME, "700100000000Z", Err(Error::Time)),
            (UTC_TIME, "700101240000Z", Err(Error::Time)),
            (GENERALIZED_TIME, "99991231235959Z", Ok(253_402_300_799)),
            (GENERALIZED_TIME, "21000229000000Z", Err(Error::Time)),
            (GENERALIZED_TIME, "20000101000000.5Z", Err(Error::Time)),
            (INTEGER, "700101000000Z", Err(Error::Time)),
        ] {
            assert_eq!(time((tag, text.as_bytes())), seconds, "{text}");
        }
    }
}
