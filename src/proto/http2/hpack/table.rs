//! The dynamic table (RFC 7541 section 2.3.2), of either end.
use std::collections::VecDeque;

/// What an entry counts beyond its bytes (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Entries, the oldest first; names and values stand in one run of bytes.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    name: u32,
    value: u32,
    hash: u32,
}

// === impl Table ===

impl Table {
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), size: 0, max }
    }

    /// Bytes the entries may have together.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Name and value of the entry added `age` entries before the last one.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let at = self.entries.len().checked_sub(age + 1)?;
        let entry = self.entries[at];
        let name = entry.start as usize;
        let value = name + entry.name as usize;
        Some((&self.bytes[name..value], &self.bytes[value..value + entry.value as usize]))
    }

    /// The age of the entry with this name and value, by their [`hash`].
    pub(super) fn find(&self, name: &[u8], value: &[u8], hash: u32) -> Option<usize> {
        let ages = self.entries.iter().rev().enumerate();
        ages.filter(|(_, entry)| entry.hash == hash)
            .map(|(age, _)| age)
            .find(|age| self.get(*age) == Some((name, value)))
    }

    /// Changes the bound; what does not fit goes.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict_to(max);
    }

    /// Adds an entry; older ones go as needed. One that is larger than the table empties it.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], hash: u32) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.max {
            return self.evict_to(0);
        }
        self.evict_to(self.max - size);
        self.compact();
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let entry = Entry { start, name: name.len() as u32, value: value.len() as u32, hash };
        self.entries.push_back(entry);
        self.size += size;
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else { break };
            self.size -= (entry.name + entry.value) as usize + ENTRY_OVERHEAD;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    /// Drops the bytes of former entries once they are as many as a full table has.
    fn compact(&mut self) {
        let gone = self.entries.front().map_or(0, |entry| entry.start);
        if gone as usize > self.max {
            self.bytes.drain(..gone as usize);
            for entry in &mut self.entries {
                entry.start -= gone;
            }
        }
    }
}

/// A number by which [`Table::find`] knows most fields apart. A peer that makes fields meet only makes us
/// compare them.
pub(super) fn hash(name: &[u8], value: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = (name.len() as u64) << 32 | value.len() as u64;
    for part in [name, value] {
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = (sum.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
        }
    }
    (sum >> 32) as u32
}
