//! proto
pub mod object;
pub mod value;
