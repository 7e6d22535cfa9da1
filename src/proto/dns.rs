//! DNS questions for addresses, and the answers to them (RFC 1035 section 4, RFC 3596). What a stub resolver needs, and
//! no more: one question a message, answers over UDP.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest UDP answer that is taken in: what EDNS-less servers may send is 512, but some do not care.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Records looked at in one answer; real ones have a few.
const MAX_RECORDS: usize = 64;
/// CNAMEs followed within one answer.
const MAX_ALIASES: usize = 16;
/// A name on the wire (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// Compression pointers followed in one name: each must point backwards, so this only bounds the work.
const MAX_POINTERS: usize = 32;

const HEADER_BYTES: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
}

/// An answer to a question for addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The addresses, in the order of the answer; empty: the name has none of this type.
    pub addresses: Vec<IpAddr>,
    /// For how many seconds they hold: the least of all records that led to them.
    pub ttl: u32,
}

/// Why a message is not the answer, or not a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It answers another question: it is to be ignored, not believed.
    NotOurs,
    /// It breaks the format.
    Malformed,
    /// The name does not exist (RCODE 3).
    NoSuchName,
    /// The server could not or would not answer; its RCODE.
    Refused(u8),
}

// === impl Error ===

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOurs => f.write_str("the answer is for another question"),
            Self::Malformed => f.write_str("the answer is malformed"),
            Self::NoSuchName => f.write_str("the name does not exist"),
            Self::Refused(code) => write!(f, "the server answers with error {code}"),
        }
    }
}

/// The question for the addresses of `name`, recursion desired; None if it is no DNS name.
pub fn question(id: u16, name: &str, record: RecordType) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    (message.len() - HEADER_BYTES <= MAX_NAME_BYTES).then_some(())?;
    message.extend_from_slice(&(record as u16).to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(message)
}

/// Reads `message` as the answer to `question`.
///
/// # Errors
/// See [`Error`]; [`Error::NotOurs`] means: go on waiting.
pub fn answer(message: &[u8], question: &[u8], record: RecordType) -> Result<Answer, Error> {
    let header = message.get(..HEADER_BYTES).ok_or(Error::NotOurs)?;
    if header[..2] != question[..2] || header[2] & 0x80 == 0 || header[2] & 0x78 != 0 {
        return Err(Error::NotOurs);
    }
    let asked = &question[HEADER_BYTES..];
    let repeated = message.get(HEADER_BYTES..HEADER_BYTES + asked.len()).ok_or(Error::NotOurs)?;
    if header[4..6] != [0, 1] || !repeated.eq_ignore_ascii_case(asked) {
        return Err(Error::NotOurs);
    }
    match header[3] & 0xf {
        0 => {}
        3 => return Err(Error::NoSuchName),
        code => return Err(Error::Refused(code)),
    }
    let count = usize::from(u16::from_be_bytes([header[6], header[7]])).min(MAX_RECORDS);
    let mut at = HEADER_BYTES + asked.len();
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(Record::read(message, &mut at).ok_or(Error::Malformed)?);
    }
    let (name, _) = read_name(question, HEADER_BYTES).ok_or(Error::Malformed)?;
    collect(message, &records, name, record)
}

/// One resource record; its data stays where it is.
struct Record {
    name: Vec<u8>,
    kind: u16,
    ttl: u32,
    data: std::ops::Range<usize>,
}

// === impl Record ===

impl Record {
    fn read(message: &[u8], at: &mut usize) -> Option<Self> {
        let (name, end) = read_name(message, *at)?;
        let fixed = message.get(end..end + 10)?;
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        let class = u16::from_be_bytes([fixed[2], fixed[3]]);
        let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = end + 10..end + 10 + length;
        message.get(data.clone())?;
        *at = data.end;
        // A record of another class is none of ours.
        let kind = if class == CLASS_IN { kind } else { 0 };
        Some(Self { name, kind, ttl, data })
    }
}

/// Follows the aliases from `name` to its addresses.
fn collect(
    message: &[u8],
    records: &[Record],
    mut name: Vec<u8>,
    record: RecordType,
) -> Result<Answer, Error> {
    let mut answer = Answer { addresses: Vec::new(), ttl: u32::MAX };
    for _ in 0..MAX_ALIASES {
        for found in records.iter().filter(|r| r.kind == record as u16 && r.name == name) {
            let address = address(&message[found.data.clone()], record).ok_or(Error::Malformed)?;
            answer.ttl = answer.ttl.min(found.ttl);
            answer.addresses.push(address);
        }
        let alias = records.iter().find(|r| r.kind == TYPE_CNAME && r.name == name);
        let Some(alias) = alias.filter(|_| answer.addresses.is_empty()) else { break };
        answer.ttl = answer.ttl.min(alias.ttl);
        name = read_name(message, alias.data.start).ok_or(Error::Malformed)?.0;
    }
    if answer.ttl == u32::MAX {
        answer.ttl = 0;
    }
    Ok(answer)
}

fn address(data: &[u8], record: RecordType) -> Option<IpAddr> {
    match record {
        RecordType::A => <[u8; 4]>::try_from(data).ok().map(|raw| Ipv4Addr::from(raw).into()),
        RecordType::Aaaa => <[u8; 16]>::try_from(data).ok().map(|raw| Ipv6Addr::from(raw).into()),
    }
}

/// The name at `at` in lower case, length bytes included, and where what follows it begins (RFC 1035 section 4.1.4).
fn read_name(message: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut at, mut end) = (Vec::new(), at, None);
    for _ in 0..=MAX_POINTERS {
        loop {
            let length = *message.get(at)?;
            match length {
                0 => return Some((name, end.unwrap_or(at + 1))),
                1..=63 => {
                    let next = at + 1 + usize::from(length);
                    name.extend(message.get(at..next)?.iter().map(u8::to_ascii_lowercase));
                    at = next;
                }
                0xc0.. => break,
                _ => return None,
            }
            if name.len() >= MAX_NAME_BYTES {
                return None;
            }
        }
        let target = usize::from(message[at] & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
        end = end.or(Some(at + 2));
        // Only backwards: no loop is possible.
        at = Some(target).filter(|target| *target < at)?;
    }
    None
}

/// The fuzz target: the input is a message; whatever it is, it is read without a panic, and what is found holds.
pub fn fuzz(data: &[u8]) {
    let Some(asked) = question(0x1234, "nas.home.arpa", RecordType::A) else {
        panic!("a good name was refused")
    };
    for record in [RecordType::A, RecordType::Aaaa] {
        if let Ok(answer) = answer(data, &asked, record) {
            assert!(answer.addresses.len() <= MAX_RECORDS);
            let v4 = record == RecordType::A;
            assert!(answer.addresses.iter().all(|address| address.is_ipv4() == v4));
        }
    }
    let _ = read_name(data, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] =
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03nas\x04home\x04arpa\0\0\x01\0\x01";

    fn reply(flags: [u8; 2], answers: u8, records: &[u8]) -> Vec<u8> {
        let mut message = QUESTION.to_vec();
        message[2..4].copy_from_slice(&flags);
        message[7] = answers;
        message.extend_from_slice(records);
        message
    }

    fn read(message: &[u8]) -> Result<Answer, Error> {
        answer(message, QUESTION, RecordType::A)
    }

    #[test]
    fn a_question_on_the_wire() {
        assert_eq!(question(0x1234, "nas.home.arpa", RecordType::A).unwrap(), QUESTION);
        assert_eq!(question(0x1234, "nas.home.arpa.", RecordType::A).unwrap(), QUESTION);
        let long = format!("{}.{}", "a".repeat(64), "b");
        for bad in ["", "a..b", ".", &long, &vec!["a".repeat(60); 5].join(".")] {
            assert_eq!(question(1, bad, RecordType::A), None, "{bad}");
        }
    }

    #[test]
    fn addresses_also_behind_an_alias() {
        let direct = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x05";
        let found = read(&reply([0x81, 0x80], 1, direct)).unwrap();
        assert_eq!(found, Answer { addresses: vec![[10, 0, 0, 5].into()], ttl: 60 });
        // nas.home.arpa CNAME box.home.arpa (10 s); BOX.home.arpa A twice, and one of a stranger.
        let aliased = b"\xc0\x0c\0\x05\0\x01\0\0\0\x0a\0\x06\x03box\xc0\x10\
            \x03BOX\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x06\
            \x03box\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07\
            \x03bad\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x08";
        let found = read(&reply([0x81, 0x80], 4, aliased)).unwrap();
        let addresses = vec![[10, 0, 0, 6].into(), [10, 0, 0, 7].into()];
        assert_eq!(found, Answer { addresses, ttl: 10 });
        assert_eq!(read(&reply([0x81, 0x80], 0, b"")), Ok(Answer::default()));
    }

    #[test]
    fn what_is_not_the_answer_is_told_apart() {
        let good = reply([0x81, 0x80], 0, b"");
        let mut other_id = good.clone();
        other_id[0] = 0;
        let mut other_name = good.clone();
        other_name[13] = b'x';
        for stranger in [&other_id[..], &other_name, QUESTION, b"", &good[..11], &good[..20]] {
            assert_eq!(read(stranger), Err(Error::NotOurs));
        }
        assert_eq!(read(&reply([0x81, 0x83], 0, b"")), Err(Error::NoSuchName));
        assert_eq!(read(&reply([0x81, 0x82], 0, b"")), Err(Error::Refused(2)));
        for broken in [
            &b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0"[..],
            b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x03\x0a\0\0",
            b"\xc0\x1f\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x05",
            b"\x40\0",
        ] {
            assert_eq!(read(&reply([0x81, 0x80], 1, broken)), Err(Error::Malformed), "{broken:?}");
        }
    }
}
