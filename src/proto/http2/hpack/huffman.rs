//! The Huffman code of HPACK (RFC 7541 appendix B). It is canonical, so the lengths alone define it.

/// Bits of the code of each byte, and of the end-of-string symbol.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];
/// The symbol that must never be written out.
const END: u16 = 256;
const MAX_BITS: usize = 30;

struct Code {
    /// Symbols ordered by their codes.
    symbols: [u16; 257],
    /// The code of each symbol, in its lowest bits.
    codes: [u32; 257],
    /// By length: the first code, as the highest bits of 32, and where its symbol stands.
    first: [u32; MAX_BITS + 1],
    position: [u16; MAX_BITS + 1],
    /// By length: what is below this, as the highest bits of 32, has at most that length.
    limit: [u32; MAX_BITS + 1],
    /// By the first eight bits: the symbol and its length, for codes of up to eight bits; else zero.
    short: [(u8, u8); 256],
}

static CODE: Code = {
    let mut code = Code {
        symbols: [0; 257],
        codes: [0; 257],
        first: [0; MAX_BITS + 1],
        position: [0; MAX_BITS + 1],
        limit: [0; MAX_BITS + 1],
        short: [(0, 0); 256],
    };
    let (mut bits, mut next, mut at) = (1, 0u32, 0);
    while bits <= MAX_BITS {
        next <<= 1;
        code.first[bits] = next << (32 - bits);
        code.position[bits] = at as u16;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == bits {
                code.symbols[at] = symbol as u16;
                code.codes[symbol] = next;
                if bits <= 8 {
                    let start = (next as usize) << (8 - bits);
                    let mut i = 0;
                    while i < 1 << (8 - bits) {
                        code.short[start + i] = (symbol as u8, bits as u8);
                        i += 1;
                    }
                }
                next += 1;
                at += 1;
            }
            symbol += 1;
        }
        // The last code of all is all ones: nothing is above it.
        code.limit[bits] = if bits == MAX_BITS { u32::MAX } else { next << (32 - bits) };
        bits += 1;
    }
    code
};
static BITS: [u8; 257] = LENGTHS;

/// Bytes that `text` takes when encoded.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|b| usize::from(BITS[usize::from(*b)])).sum();
    bits.div_ceil(8)
}

/// Appends `text` encoded, filled up with ones.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut pending, mut count) = (0u64, 0u32);
    for byte in text {
        let symbol = usize::from(*byte);
        let bits = u32::from(BITS[symbol]);
        pending = pending << bits | u64::from(CODE.codes[symbol]);
        count += bits;
        while count >= 8 {
            count -= 8;
            out.push((pending >> count) as u8);
        }
    }
    if count > 0 {
        let fill = 8 - count;
        out.push((pending << fill) as u8 | ((1u16 << fill) - 1) as u8);
    }
}

/// Appends what `input` encodes to `out`. `None`: the end-of-string symbol, or padding that is not
/// its beginning or longer than seven bits (RFC 7541 section 5.2).
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The next bits, from the highest on.
    let (mut pending, mut count) = (0u64, 0usize);
    let mut rest = input.iter();
    loop {
        while count <= 56 {
            let Some(byte) = rest.next() else { break };
            pending |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let (symbol, bits) = CODE.short[(pending >> 56) as usize];
        let mut bits = usize::from(bits);
        let mut symbol = u16::from(symbol);
        if bits == 0 {
            let word = (pending >> 32) as u32;
            bits = (9..MAX_BITS).find(|bits| word < CODE.limit[*bits]).unwrap_or(MAX_BITS);
            let above = (word - CODE.first[bits]) >> (32 - bits);
            symbol = CODE.symbols[usize::from(CODE.position[bits]) + above as usize];
        }
        if bits > count {
            let padding = u64::MAX.checked_shl(64 - count as u32).unwrap_or(0);
            return (count < 8 && pending == padding).then_some(());
        }
        if symbol == END {
            return None;
        }
        out.push(symbol as u8);
        pending <<= bits;
        count -= bits;
    }
}
