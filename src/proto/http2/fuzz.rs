//! Invariants of the codec on arbitrary bytes.
