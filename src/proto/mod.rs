//! Sans-IO codecs: bytes in, values out, and back.
pub mod x509;
