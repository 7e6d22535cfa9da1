//! proto
pub mod value;
