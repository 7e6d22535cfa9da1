//! Tests of the server by itself.
