//! proto
pub mod fuzz;
pub mod http1;
