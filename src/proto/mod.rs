//! proto
pub mod claims;
pub mod fuzz;
pub mod http1;
pub mod object;
pub mod value;
//! Sans-IO codecs: bytes in, values out, and back.
pub mod x509;
