//! proto
pub mod fuzz;
pub mod http1;
pub mod object;
pub mod value;
