//! HPACK: header compression for HTTP/2 (RFC 7541).
//!
//! [`Decoder`] hands out the fields of a block one by one; [`Encoder`] appends fields to a block. Both
//! keep a dynamic table whose size is bounded by what was agreed in SETTINGS. Names and values are
//! opaque here: who may have what in a field is decided in `head.rs` and `block.rs`.
mod decode;
mod encode;
mod huffman;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

pub(super) use decode::Decoder;
pub(super) use encode::Encoder;

/// Bytes of the decoder's dynamic table: the default of RFC 9113, so that it need not be announced.
pub(super) const DECODER_TABLE_BYTES: usize = 4096;
/// Bytes of the encoder's dynamic table: room for the two dozen fields that are the same in most messages
/// of a connection. More would only be searched in vain.
pub(super) const ENCODER_TABLE_BYTES: usize = 2048;
