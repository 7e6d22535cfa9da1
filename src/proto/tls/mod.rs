//! As much of TLS as is needed to decide what to do with a connection before its handshake.
mod client_hello;

pub use client_hello::{
    ClientHello, ClientHelloError, Peeked, alert, fuzz as fuzz_client_hello, peek_client_hello,
};

#[cfg(test)]
mod tests;
