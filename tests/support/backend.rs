//! Scripted endpoints.
