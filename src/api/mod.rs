//! What servers say to each other: the objects and the messages, one file a subject. No decisions.
pub mod address;
pub mod announce;
pub mod class;
pub mod cluster;
pub mod config;
pub mod datapath;
pub mod endpoint;
pub mod file;
pub mod interface;
pub mod message;
pub mod meta;
pub mod object;
pub mod objects;
pub mod problem;
pub mod query;
pub mod route;
pub mod route_filter;
pub mod selector;
pub mod service;
pub mod status;
pub mod upstream;

pub use message::{Message, wiring};
