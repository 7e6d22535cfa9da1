//! From a header block to its fields.
use super::static_table;
use super::table::Table;
use super::{DECODER_TABLE_BYTES, huffman};

/// Continuation bytes of an integer: 28 bits are more than any length or index here.
const MAX_INTEGER_BYTES: u32 = 4;
/// Scratch space kept between blocks; longer strings are rare.
const KEPT_SCRATCH: usize = 1024;

/// A block that is not HPACK. The tables of both ends differ from here on: the connection is of no use
/// (COMPRESSION_ERROR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto::http2) enum HpackError {
    /// The block ends within a field.
    Truncated,
    /// An integer with too many bytes.
    Integer,
    /// Index 0, or one that no entry has.
    Index,
    /// A string that is not Huffman code.
    Huffman,
    /// A table size above the one announced, or after the first field.
    TableSize,
}

/// The receiving end.
#[derive(Debug)]
pub(in crate::proto::http2) struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Where a string is.
enum Text<'b> {
    Plain(&'b [u8]),
    /// In the scratch space it was decoded to.
    Decoded,
}

/// What is left of a block.
struct Block<'b>(&'b [u8]);

// === impl Decoder ===

impl Decoder {
    pub(in crate::proto::http2) fn new() -> Self {
        Self { table: Table::new(DECODER_TABLE_BYTES), name: Vec::new(), value: Vec::new() }
    }

    /// Calls `sink` with every field of a whole block, in order.
    pub(in crate::proto::http2) fn decode(
        &mut self,
        block: &[u8],
        sink: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut block = Block(block);
        let mut began = false;
        while let Some(&first) = block.0.first() {
            match first {
                0x80.. => {
                    let index = block.integer(7)?;
                    let (name, value) = entry(&self.table, index)?;
                    sink(name, value);
                }
                0x40..=0x7f => self.literal(&mut block, 6, true, sink)?,
                0x20..=0x3f if began => return Err(HpackError::TableSize),
                0x20..=0x3f => {
                    let size = block.integer(5)?;
                    if size > DECODER_TABLE_BYTES {
                        return Err(HpackError::TableSize);
                    }
                    self.table.resize(size);
                    continue;
                }
                // Whether a field may be indexed by others only concerns those that pass blocks on.
                _ => self.literal(&mut block, 4, false, sink)?,
            }
            began = true;
        }
        for scratch in [&mut self.name, &mut self.value] {
            scratch.clear();
            scratch.shrink_to(KEPT_SCRATCH);
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut Block<'_>,
        prefix: u32,
        indexed: bool,
        sink: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let index = block.integer(prefix)?;
        let name = if index > 0 {
            // Its entry may have to go to make room for this one.
            self.name.clear();
            self.name.extend_from_slice(entry(&self.table, index)?.0);
            Text::Decoded
        } else {
            block.string(&mut self.name)?
        };
        let value = block.string(&mut self.value)?;
        let name = name.bytes(&self.name);
        let value = value.bytes(&self.value);
        sink(name, value);
        if indexed {
            self.table.insert(name, value, 0);
        }
        Ok(())
    }
}

fn entry(table: &Table, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
    let found = match index {
        ..=static_table::LENGTH => static_table::get(index),
        _ => table.get(index - static_table::LENGTH - 1),
    };
    found.ok_or(HpackError::Index)
}

// === impl Text ===

impl<'b> Text<'b> {
    fn bytes(self, scratch: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Decoded => scratch,
        }
    }
}

// === impl Block ===

impl<'b> Block<'b> {
    /// An integer in the lowest `prefix` bits of the next byte and those after it (section 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let (first, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        let full = (1usize << prefix) - 1;
        let mut value = usize::from(*first) & full;
        if value < full {
            return Ok(value);
        }
        for at in 0..MAX_INTEGER_BYTES {
            let (byte, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
            self.0 = rest;
            value += usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::Integer)
    }

    /// A string (section 5.2); decoded to `scratch` if it is compressed.
    fn string(&mut self, scratch: &mut Vec<u8>) -> Result<Text<'b>, HpackError> {
        let compressed = self.0.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if !compressed {
            return Ok(Text::Plain(text));
        }
        scratch.clear();
        huffman::decode(text, scratch).ok_or(HpackError::Huffman)?;
        Ok(Text::Decoded)
    }
}
