//! Receive and send buffers, lent from a pool of this thread and given back as soon as they are empty, so
//! that a connection that waits holds none.
use std::cell::{Cell, RefCell};
use std::io;

/// Size of a pooled buffer. A head is usually below 2 KiB; a TLS record with its overhead (16,645 bytes)
/// fits, and a large body moves with one system call per 32 KiB.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// Buffers kept for reuse. What a burst needed beyond is given back to the allocator.
const POOLED_BUFFERS: usize = 128;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that have arrived or wait to be sent: taken from the front, added at the end. Holds no memory
/// while it is empty and [`Buffer::release`] was called.
#[derive(Default, Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// How many buffers are in use on this thread; what the tests of back-pressure count.
pub fn lent() -> usize {
    LENT.with(Cell::get)
}

// === impl Buffer ===

impl Buffer {
    /// An empty buffer without memory.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0 }
    }

    /// What is in it.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// What is in it, for decryption in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// How many bytes are in it.
    #[inline]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether it holds nothing.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    /// Takes `count` bytes from the front.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len(), "consumed more than there is");
        if self.start >= self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
        }
    }

    /// The vector to append to. Everything before what is in use is dropped first.
    #[inline]
    pub fn vec(&mut self) -> &mut Vec<u8> {
        self.acquire();
        if self.start > 0 {
            self.compact();
        }
        &mut self.bytes
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.acquire();
        self.bytes.extend_from_slice(bytes);
    }

    /// Room for more: at least `least` bytes of spare capacity, the whole of a pooled buffer if it is
    /// empty.
    pub fn reserve(&mut self, least: usize) {
        self.acquire();
        if self.bytes.capacity() - self.bytes.len() < least {
            self.compact();
            self.bytes.reserve(least);
        }
    }

    /// Lets `receive` write to the spare capacity; it returns how many bytes it has initialised. Returns
    /// that and whether the room was filled, in which case there may be more to receive.
    ///
    /// # Errors
    /// Those of `receive`.
    pub(super) fn fill(
        &mut self,
        receive: impl FnOnce(*mut u8, usize) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        let length = self.bytes.len();
        let room = self.bytes.capacity() - length;
        let spare = self.bytes.spare_capacity_mut();
        let got = receive(spare.as_mut_ptr().cast(), spare.len())?.min(room);
        // SAFETY: `receive` (in this directory only) has initialised `got` bytes, and there is room.
        unsafe { self.bytes.set_len(length + got) };
        Ok((got, got == room))
    }

    /// Gives the memory back if nothing is in it.
    #[inline]
    pub fn release(&mut self) {
        if self.is_empty() {
            self.give_back();
        }
    }

    #[inline]
    fn acquire(&mut self) {
        if self.bytes.capacity() == 0 {
            LENT.with(|lent| lent.set(lent.get() + 1));
            self.bytes =
                POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        }
    }

    #[cold]
    fn compact(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
    }

    fn give_back(&mut self) {
        if self.bytes.capacity() == 0 {
            return;
        }
        self.start = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        // The thread's pool may be gone already when the thread ends.
        let _ = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(1)));
        if bytes.capacity() == BUFFER_BYTES {
            bytes.clear();
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < POOLED_BUFFERS {
                    pool.push(bytes);
                }
            });
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}
