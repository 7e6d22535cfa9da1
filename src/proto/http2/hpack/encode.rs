//! From fields to a header block.
use super::table::{Table, hash};
use super::{ENCODER_TABLE_BYTES, huffman, static_table};

/// Values longer than this are not worth a place in the table.
const MAX_INDEXED_VALUE: usize = 256;
/// A cookie shorter than this could be guessed byte by byte from the size of blocks (RFC 7541 section
/// 7.1.3); this many bytes cannot.
const GUESSABLE_COOKIE: usize = 20;

/// The sending end.
#[derive(Debug)]
pub(in crate::proto::http2) struct Encoder {
    table: Table,
    /// The table size changed since the last block: the smallest it has been.
    resized: Option<usize>,
}

/// What may be remembered of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Indexing {
    /// Name and value, for the next time.
    Whole,
    /// It will not be the same next time.
    Not,
    /// Nobody on the way may keep it either.
    Never,
}

// === impl Encoder ===

impl Encoder {
    pub(in crate::proto::http2) fn new() -> Self {
        Self { table: Table::new(ENCODER_TABLE_BYTES), resized: Some(ENCODER_TABLE_BYTES) }
    }

    /// The peer will keep a table of at most `limit` bytes.
    pub(in crate::proto::http2) fn set_limit(&mut self, limit: usize) {
        let size = limit.min(ENCODER_TABLE_BYTES);
        if size != self.table.max() {
            self.table.resize(size);
            self.resized = Some(self.resized.map_or(size, |smallest| smallest.min(size)));
        }
    }

    /// Begins a block: says how large the table is if that has changed.
    pub(in crate::proto::http2) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.resized.take() {
            if smallest < self.table.max() {
                integer(smallest, 5, 0x20, out);
            }
            integer(self.table.max(), 5, 0x20, out);
        }
    }

    /// Appends a field; the name is in lower case.
    pub(in crate::proto::http2) fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let known = static_table::find(name, value);
        if let Some((_, Some(index))) = known {
            return integer(index, 7, 0x80, out);
        }
        let name_index = known.map_or(0, |(index, _)| index);
        let (prefix, pattern) = match indexing(name, value) {
            Indexing::Whole => {
                let hash = hash(name, value);
                if let Some(age) = self.table.find(name, value, hash) {
                    return integer(static_table::LENGTH + 1 + age, 7, 0x80, out);
                }
                self.table.insert(name, value, hash);
                (6, 0x40)
            }
            Indexing::Not => (4, 0),
            Indexing::Never => (4, 0x10),
        };
        integer(name_index, prefix, pattern, out);
        if name_index == 0 {
            string(name, out);
        }
        string(value, out);
    }
}

fn indexing(name: &[u8], value: &[u8]) -> Indexing {
    match name {
        b"authorization" | b"proxy-authorization" | b"set-cookie" => Indexing::Never,
        b"cookie" if value.len() < GUESSABLE_COOKIE => Indexing::Never,
        b":path"
        | b"content-length"
        | b"content-range"
        | b"range"
        | b"etag"
        | b"age"
        | b"if-none-match"
        | b"if-modified-since"
        | b"last-modified"
        | b"location"
        | b"x-request-id"
        | b"x-envoy-upstream-service-time"
        | b"grpc-timeout" => Indexing::Not,
        _ if value.len() > MAX_INDEXED_VALUE => Indexing::Not,
        _ => Indexing::Whole,
    }
}

/// An integer in the lowest `prefix` bits of a byte whose others are `pattern`, and those after it.
fn integer(value: usize, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let full = (1usize << prefix) - 1;
    if value < full {
        return out.push(pattern | value as u8);
    }
    out.push(pattern | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    let compressed = huffman::encoded_len(text);
    if compressed < text.len() {
        integer(compressed, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}
