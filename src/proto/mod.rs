//! proto
pub mod http1;
