//! Random numbers for identifiers and jitter.
use std::cell::Cell;

thread_local! {
    static STATE: Cell<[u64; 4]> = Cell::new(seed());
}

/// Sixteen bytes from a generator seeded by the kernel: unlikely to repeat, not fit for secrets. Costs no
/// system call.
pub fn bytes16() -> [u8; 16] {
    u128::from_ne_bytes(halves(next(), next())).to_ne_bytes()
}

/// xoshiro256** (Blackman and Vigna, 2018).
pub fn next() -> u64 {
    STATE.with(|cell| {
        let mut s = cell.get();
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        cell.set(s);
        result
    })
}

fn halves(a: u64, b: u64) -> [u8; 16] {
    ((u128::from(a) << 64) | u128::from(b)).to_ne_bytes()
}

fn seed() -> [u64; 4] {
    let mut words = [0u64; 4];
    // SAFETY: the buffer is valid for its whole size. Requests of up to 256 bytes are filled whole.
    let got = unsafe { libc::getrandom(words.as_mut_ptr().cast(), size_of_val(&words), 0) };
    if got < 0 || words == [0; 4] {
        // A kernel without getrandom: identifiers then differ by time and address only.
        let place = std::ptr::from_ref(&words) as u64;
        words = [super::clock::now().as_nanos() | 1, place, super::clock::unix_millis(), 0x9e37];
    }
    words
}
