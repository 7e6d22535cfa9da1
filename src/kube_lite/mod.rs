//! A small client of Kubernetes API servers, and nothing of the rest of this program.
//!
//! - [`kubeconfig`]: whom to talk to and as whom; [`Client`]: requests over TLS or plain HTTP/1.1.
//! - [`Reflector`] and [`follow`]: a copy of a collection that follows the original.
//! - [`discover`]: what is served in which version.
//! - [`lease`]: who of several does the work. [`event`]: what people read in `kubectl describe`.
//!
//! Objects stay JSON text ([`json`]); what they mean is for the caller to say. Sockets, clock and chance come in through
//! [`Net`]; the rest decides over bytes and can be tested without any.
mod backoff;
mod client;
mod credentials;
mod discovery;
mod error;
pub mod event;
mod follow;
pub mod http;
pub mod json;
pub mod kubeconfig;
pub mod lease;
mod reflector;
mod resource;
pub mod time;

pub use backoff::Backoff;
pub use client::{Answer, Client, Later, Lines, Net, Stream};
pub use discovery::{Served, discover};
pub use error::{Error, Status};
pub use follow::{Change, follow};
pub use reflector::{Reflector, Step, Told};
pub use resource::{Resource, Selection};
