//! What nodes tell each other about assigned addresses: packets on the LAN, and the same records in the
//! state file. Sans-IO. What the claims mean is decided by the server `ipam`.
//!
//! All numbers are big-endian. A packet, at most [`MAX_PACKET`] bytes:
//!
//! ```text
//! 0   4  magic "PLCL"
//! 4   1  version, 1
//! 5   1  kind: 1 digest, 2 claims
//! 6   8  the sender's cluster clock, milliseconds
//! 14  1  length n of the sender's node name, 1-253; n bytes follow
//! digest: 32 × 8 bytes, one hash per bucket of services
//! claims: 2 bytes count, then each: born (8, milliseconds of the cluster clock, not after the sender's
//!         clock), length and text of namespace and name, 4 or 6, the address (4 or 16 bytes)
//! ```
//!
//! The state file: magic "PLST", version, clock (8), count (4), claims as above, FNV-1a of all before (8).
//! Nothing may follow the last field. Whatever breaks a rule is refused whole, with the reason.
use std::fmt;
use std::net::IpAddr;

use crate::api::meta::{NamespacedName, Str};

/// The longest packet: fits the smallest IPv6 MTU (1280) with its IPv6 and UDP headers.
pub const MAX_PACKET: usize = 1200;
/// Into how many parts the services are divided, so that two nodes that differ in one service exchange
/// a small part of all claims.
pub const BUCKETS: usize = 32;
/// How many claims a state file may have; more than any cluster this is made for.
pub const MAX_STATE_CLAIMS: usize = 65_536;
/// Later than any honest cluster clock (milliseconds; 35 million years).
pub const MAX_CLOCK: u64 = 1 << 60;

const PACKET_MAGIC: [u8; 4] = *b"PLCL";
const STATE_MAGIC: [u8; 4] = *b"PLST";
const VERSION: u8 = 1;
const KIND_DIGEST: u8 = 1;
const KIND_CLAIMS: u8 = 2;
/// The longest DNS label, which a namespace is.
const MAX_NAMESPACE: usize = 63;
/// The longest DNS name, which Service and node names are.
const MAX_NAME: usize = 253;

/// One bucket's hash each.
pub type Digest = [u64; BUCKETS];

/// "This Service has had this address since then."
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When, in milliseconds of the cluster clock.
    pub born: u64,
    /// Who.
    pub service: NamespacedName,
    /// What.
    pub address: IpAddr,
}

/// What a packet says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Hashes over all claims of the sender.
    Digest(Box<Digest>),
    /// Some claims of the sender.
    Claims(Vec<Claim>),
}

/// A packet from another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The sender's name.
    pub node: Str,
    /// The sender's cluster clock when it sent.
    pub clock: u64,
    /// The rest.
    pub body: Body,
}

/// The content of the state file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The cluster clock when it was written.
    pub clock: u64,
    /// All claims.
    pub claims: Vec<Claim>,
}

/// Why bytes were refused. The sender is to blame (or the disk, for a state file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DecodeError {
    /// More than [`MAX_PACKET`] bytes.
    TooLong,
    /// It ends before its last field.
    Truncated,
    /// It does not start with the magic.
    BadMagic,
    /// Another version of this protocol.
    UnknownVersion,
    /// Neither digest nor claims.
    UnknownKind,
    /// A name is empty, too long, or has a character that names do not have.
    BadName,
    /// The address is neither IPv4 nor IPv6.
    BadAddress,
    /// The clock is later than [`MAX_CLOCK`], or a claim was born after it.
    BadClock,
    /// More claims than allowed.
    TooMany,
    /// Bytes after the last field.
    TrailingBytes,
    /// The checksum of the state file does not fit.
    BadChecksum,
}

// === impl DecodeError ===

impl DecodeError {
    /// The name under which it is counted.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "packet too long",
            Self::Truncated => "packet truncated",
            Self::BadMagic => "not a claims packet",
            Self::UnknownVersion => "unknown version",
            Self::UnknownKind => "unknown kind",
            Self::BadName => "bad name",
            Self::BadAddress => "bad address",
            Self::BadClock => "bad clock",
            Self::TooMany => "too many claims",
            Self::TrailingBytes => "trailing bytes",
            Self::BadChecksum => "bad checksum",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

// === impl Packet ===

impl Packet {
    /// Reads a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_PACKET {
            return Err(DecodeError::TooLong);
        }
        let mut input = Reader(bytes);
        input.magic(PACKET_MAGIC)?;
        let kind = input.byte()?;
        let clock = input.clock()?;
        let node = input.name(MAX_NAME, is_node_character)?;
        let body = match kind {
            KIND_DIGEST => {
                let mut digest = Box::new([0; BUCKETS]);
                for hash in digest.iter_mut() {
                    *hash = input.long()?;
                }
                Body::Digest(digest)
            }
            KIND_CLAIMS => {
                let count = usize::from(u16::from_be_bytes(input.array()?));
                Body::Claims(input.claims(count, clock)?)
            }
            _ => return Err(DecodeError::UnknownKind),
        };
        input.end()?;
        Ok(Self { node, clock, body })
    }
}

/// Who has sent a packet; the rest of it is not looked at.
pub fn sender(bytes: &[u8]) -> Result<Str, DecodeError> {
    let mut input = Reader(bytes);
    input.magic(PACKET_MAGIC)?;
    input.byte()?;
    input.clock()?;
    input.name(MAX_NAME, is_node_character)
}

/// The packet with a node's digest.
pub fn encode_digest(node: &str, clock: u64, digest: &Digest) -> Vec<u8> {
    let mut out = header(node, clock, KIND_DIGEST);
    out.extend(digest.iter().flat_map(|hash| hash.to_be_bytes()));
    out
}

/// As many packets as the claims need; none if there are none.
pub fn encode_claims(node: &str, clock: u64, claims: &[Claim]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let start = header(node, clock, KIND_CLAIMS);
    let mut rest = claims;
    while !rest.is_empty() {
        let mut out = start.clone();
        out.extend([0; 2]);
        let mut count: u16 = 0;
        while let Some((claim, after)) = rest.split_first() {
            if out.len() + encoded_length(claim) > MAX_PACKET {
                break;
            }
            encode_claim(claim, &mut out);
            count += 1;
            rest = after;
        }
        if count == 0 {
            // Cannot be with names as long as Kubernetes has them; such a claim is left out.
            rest = &rest[1..];
            continue;
        }
        out[start.len()..start.len() + 2].copy_from_slice(&count.to_be_bytes());
        packets.push(out);
    }
    packets
}

// === impl State ===

impl State {
    /// The state file's bytes. Only the first [`MAX_STATE_CLAIMS`] claims are written.
    pub fn encode(&self) -> Vec<u8> {
        let claims = &self.claims[..self.claims.len().min(MAX_STATE_CLAIMS)];
        let mut out = STATE_MAGIC.to_vec();
        out.push(VERSION);
        out.extend(self.clock.to_be_bytes());
        out.extend(u32::try_from(claims.len()).unwrap_or(u32::MAX).to_be_bytes());
        for claim in claims {
            encode_claim(claim, &mut out);
        }
        out.extend(fnv(FNV_START, &out).to_be_bytes());
        out
    }

    /// Reads a state file.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((content, checksum)) = bytes.split_last_chunk::<8>() else {
            return Err(DecodeError::Truncated);
        };
        let mut input = Reader(content);
        input.magic(STATE_MAGIC)?;
        if fnv(FNV_START, content) != u64::from_be_bytes(*checksum) {
            return Err(DecodeError::BadChecksum);
        }
        let clock = input.clock()?;
        let count = usize::try_from(u32::from_be_bytes(input.array()?)).unwrap_or(usize::MAX);
        if count > MAX_STATE_CLAIMS {
            return Err(DecodeError::TooMany);
        }
        let claims = input.claims(count, clock)?;
        input.end()?;
        Ok(Self { clock, claims })
    }
}

/// In which bucket of the digest a Service's claims are.
pub fn bucket_of(service: &NamespacedName) -> usize {
    // The low bits of FNV mix well; the count is a power of two.
    usize::try_from(hash_name(service) % BUCKETS as u64).unwrap_or(0)
}

/// Adds a claim to a digest, or takes it out again: the hash of a bucket is the exclusive or of those of
/// its claims, so that their order has no influence.
pub fn toggle(digest: &mut Digest, claim: &Claim) {
    let mut hash = hash_name(&claim.service);
    hash = match claim.address {
        IpAddr::V4(address) => fnv(hash, &address.octets()),
        IpAddr::V6(address) => fnv(hash, &address.octets()),
    };
    digest[bucket_of(&claim.service)] ^= fnv(hash, &claim.born.to_be_bytes());
}

/// Feeds anything to the decoders and checks that what they accept survives a round trip.
///
/// # Panics
/// If it does not.
pub fn fuzz_claims(data: &[u8]) {
    if let Ok(packet) = Packet::decode(data) {
        let again = match &packet.body {
            Body::Digest(digest) => vec![encode_digest(&packet.node, packet.clock, digest)],
            Body::Claims(claims) => encode_claims(&packet.node, packet.clock, claims),
        };
        let empty = matches!(&packet.body, Body::Claims(claims) if claims.is_empty());
        assert!(empty || again == [data.to_vec()], "a packet has one encoding");
    }
    if let Ok(state) = State::decode(data) {
        assert_eq!(state.encode(), data, "a state file has one encoding");
    }
    // The same bytes with a right checksum, so that the fields behind it are reached.
    let mut sealed = data.to_vec();
    sealed.extend(fnv(FNV_START, data).to_be_bytes());
    if let Ok(state) = State::decode(&sealed) {
        assert_eq!(state.encode(), sealed, "a state file has one encoding");
    }
}

// === impl Reader ===

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn long(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn magic(&mut self, magic: [u8; 4]) -> Result<(), DecodeError> {
        if self.array()? != magic {
            return Err(DecodeError::BadMagic);
        }
        if self.byte()? != VERSION {
            return Err(DecodeError::UnknownVersion);
        }
        Ok(())
    }

    fn clock(&mut self) -> Result<u64, DecodeError> {
        let clock = self.long()?;
        if clock > MAX_CLOCK { Err(DecodeError::BadClock) } else { Ok(clock) }
    }

    fn name(&mut self, longest: usize, allowed: fn(u8) -> bool) -> Result<Str, DecodeError> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        if length == 0 || length > longest || !bytes.iter().all(|&byte| allowed(byte)) {
            return Err(DecodeError::BadName);
        }
        std::str::from_utf8(bytes).map(Str::from).map_err(|_| DecodeError::BadName)
    }

    fn claims(&mut self, count: usize, clock: u64) -> Result<Vec<Claim>, DecodeError> {
        let mut claims = Vec::new();
        for _ in 0..count {
            let born = self.long()?;
            if born > clock {
                return Err(DecodeError::BadClock);
            }
            let namespace = self.name(MAX_NAMESPACE, is_object_character)?;
            let name = self.name(MAX_NAME, is_object_character)?;
            let address = match self.byte()? {
                4 => IpAddr::from(self.array::<4>()?),
                6 => IpAddr::from(self.array::<16>()?),
                _ => return Err(DecodeError::BadAddress),
            };
            claims.push(Claim { born, service: NamespacedName { namespace, name }, address });
        }
        Ok(claims)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

fn is_object_character(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
}

fn is_node_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn header(node: &str, clock: u64, kind: u8) -> Vec<u8> {
    let mut out = PACKET_MAGIC.to_vec();
    out.extend([VERSION, kind]);
    out.extend(clock.to_be_bytes());
    push_name(node, MAX_NAME, &mut out);
    out
}

fn push_name(name: &str, longest: usize, out: &mut Vec<u8>) {
    let bytes = &name.as_bytes()[..name.len().min(longest)];
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend(bytes);
}

fn encoded_length(claim: &Claim) -> usize {
    let address = if claim.address.is_ipv4() { 4 } else { 16 };
    8 + 1 + claim.service.namespace.len() + 1 + claim.service.name.len() + 1 + address
}

fn encode_claim(claim: &Claim, out: &mut Vec<u8>) {
    out.extend(claim.born.to_be_bytes());
    push_name(&claim.service.namespace, MAX_NAMESPACE, out);
    push_name(&claim.service.name, MAX_NAME, out);
    match claim.address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend(address.octets());
        }
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits. It only has to tell different states apart; nobody is kept out by it.
fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn hash_name(name: &NamespacedName) -> u64 {
    fnv(fnv(fnv(FNV_START, name.namespace.as_bytes()), b"/"), name.name.as_bytes())
}
