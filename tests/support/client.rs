//! Clients that say exactly what they are told.
