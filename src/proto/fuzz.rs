//! The fuzz targets of all codecs.
//!
//! A target is a function next to the codec that panics when an invariant is broken. It is
//! registered by one line here and has a directory of the same name in `tests/fuzz/corpus/`.
//! `tests/fuzz_corpus.rs` replays and mutates the corpora; `tests/fuzz/` runs them under libFuzzer.
use super::{arp, claims, dns, http1, http2, ndp, object, proxy_protocol, tls, vrrp, x509};

/// Checks the invariants of a codec on arbitrary bytes; panics if one is broken.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("arp", arp::fuzz),
    ("claims", claims::fuzz_claims),
    ("dns", dns::fuzz),
    ("http1_chunked", http1::fuzz::chunked),
    ("http1_request", http1::fuzz::request),
    ("http1_response", http1::fuzz::response),
    ("http2_client", http2::fuzz::client),
    ("http2_hpack", http2::fuzz::hpack),
    ("http2_server", http2::fuzz::server),
    ("manifest", object::fuzz_manifest),
    ("ndp", ndp::fuzz),
    ("proxy_protocol", proxy_protocol::fuzz),
    ("tls_client_hello", tls::fuzz_client_hello),
    ("vrrp", vrrp::fuzz),
    ("x509", x509::fuzz),
];
