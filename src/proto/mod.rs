//! proto
pub mod claims;
pub mod fuzz;
pub mod http1;
