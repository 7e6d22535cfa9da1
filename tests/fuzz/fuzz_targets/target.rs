//! Runs the target that PILUS_FUZZ_TARGET names, so that a new target needs no new binary:
//!
//! ```sh
//! PILUS_FUZZ_TARGET=http1_request \
//!     cargo +nightly fuzz run --fuzz-dir tests/fuzz target tests/fuzz/corpus/http1_request
//! ```
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilus::proto::fuzz::{TARGETS, Target};
use std::sync::LazyLock;

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("PILUS_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    found.unwrap_or_else(|| panic!("set PILUS_FUZZ_TARGET to one of {}", names.join(", "))).1
});

fuzz_target!(|data: &[u8]| CHOSEN(data));
