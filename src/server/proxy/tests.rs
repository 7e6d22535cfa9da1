//! Tests of the proxy that need no socket.
