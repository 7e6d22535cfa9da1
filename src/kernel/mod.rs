//! The microkernel: mailboxes, timers, a virtual clock and a supervisor for servers that share a thread.
//!
//! It knows no Kubernetes, HTTP or BPF word. A server is a plain struct (see [`Server`]) that is handed
//! the time and one message at a time and answers with messages in its [`Outbox`]; it has no clock, no
//! sockets and no randomness of its own. That makes a whole cluster run inside a unit test: the test owns
//! the clock and calls [`Kernel::step`].
//!
//! A program may have two kernels, each on a thread of its own, connected by [`Lane`]s: their servers send each other
//! messages as if they were neighbours.
//!
//! What happens when a server dies: see [`supervisor`].
mod bus;
mod lane;
mod mailbox;
mod outbox;
mod retired;
mod run;
mod server;
pub mod supervisor;
mod time;

pub use bus::{Kernel, Mailer, ServerReport, ServerState, Wiring};
pub use lane::{Lane, Link};
pub use mailbox::Mailbox;
pub use outbox::Outbox;
pub use retired::Retired;
pub use run::{Driver, run, settle};
pub use server::{Message, Server, ServerId};
pub use time::Time;

#[cfg(test)]
mod tests;
