//! Answers the questions of the command line and of Prometheus.
//!
//! In: `View` (store), `Announcements` (announce), `Endpoints` (endpoint), `Listeners` and `Routes`
//! (datapath, route), `Assignments` (ipam), `Balancing` (service), `Programmed` and `DatapathReport` (bpf), all whole states.
//! Out: nothing; it cannot change anything. Its tasks answer HTTP/1.1 on the admin address (`unix:PATH` or a
//! loopback `HOST:PORT`) and on the metrics address, with `curl --unix-socket PATH http://pilus/v1/status`
//! as well as with the command line:
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | `ok` |
//! | `/metrics` | Prometheus text; alone with `/healthz` on the metrics address |
//! | `/v1/objects/KIND[?namespace=NS][&name=NAME]` | one object, or a v1 `List` |
//! | `/v1/status`, `/v1/config` | `pilus.dev/v1alpha1` `Status`, `Config` |
//! | `/v1/services`, `/v1/endpoints`, `/v1/addresses`, `/v1/routes` | `…List` of the same version |
//! | `/v1/explain?url=URL[&method=M][&header='n: v']…[&from=IP or NS/POD]` | `Explanation` |
//!
//! A failure is a Kubernetes `Status`. Secrets are never part of an answer: a Secret's `data` has its keys
//! with `null`.
//!
//! Invariants: no answer blocks the loop (long ones are made piece by piece, with back-pressure); the
//! number of connections, their heads and their patience are bounded. When it dies, connections in
//! progress end with what they know, and the new one is sent everything again.
mod answer;
mod explain;
pub mod http;
mod list;
mod metrics;
pub mod moment;
mod object;
pub mod resource;
mod routes;
mod serve;
mod state;
mod status;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use smol::Task;

use crate::api::Message;
use crate::api::config::Config;
use crate::io::admin_socket::{AdminSocket, SocketError};
use crate::io::event_loop::spawn_connection;
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};
use answer::Scope;
pub use state::Counters;
use state::State;

/// `apiVersion` of the shapes that are Pilus' own.
pub const API_VERSION: &str = "pilus.dev/v1alpha1";
/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The listening sockets. Bound once, before the first server is built, so that an address in use ends
/// the program with a clear error; kept when the server is built again.
#[derive(Debug, Default)]
pub struct AdminSockets {
    /// For the command line.
    pub admin: Option<AdminSocket>,
    /// For Prometheus.
    pub metrics: Option<AdminSocket>,
}

// === impl AdminSockets ===

impl AdminSockets {
    /// Listens where the settings say.
    ///
    /// # Errors
    /// An address is in use, or not permitted.
    pub fn open(config: &Config) -> Result<Self, SocketError> {
        let metrics = match config.metrics.as_str() {
            "" => None,
            address => Some(AdminSocket::bind_metrics(address)?),
        };
        Ok(Self { admin: Some(AdminSocket::bind_admin(&config.admin)?), metrics })
    }
}

/// The server.
pub struct Admin {
    state: Rc<RefCell<State>>,
    /// Cancelled when the server is dropped.
    acceptors: Vec<Task<()>>,
}

// === impl Admin ===

impl Admin {
    /// A server that shows `config` and the kernel's reports, and answers on `sockets`. `started` is when
    /// the program started.
    pub fn new(
        config: std::sync::Arc<Config>,
        started: Time,
        mailer: Mailer<Message>,
        sockets: &AdminSockets,
    ) -> Self {
        let mut state = State::new(config);
        state.started = started;
        state.mailer = Some(mailer);
        let state = Rc::new(RefCell::new(state));
        let mut acceptors = Vec::new();
        let sockets = [(&sockets.admin, Scope::Admin), (&sockets.metrics, Scope::Metrics)];
        for (socket, scope) in sockets {
            let Some(socket) = socket else { continue };
            match socket.listener() {
                Ok(listener) => {
                    let open = Rc::new(Cell::new(0));
                    let task = serve::accept(listener, scope, Rc::clone(&state), open);
                    acceptors.push(spawn_connection(task));
                }
                Err(error) => log::error!("admin: cannot listen on {}: {error}", socket.address()),
            }
        }
        Self { state, acceptors }
    }

    /// Shows the figures of another part of the program in `/metrics`.
    #[must_use]
    pub fn with_counters(self, counters: Counters) -> Self {
        self.state.borrow_mut().counters.push(counters);
        self
    }
}

impl Server<Message> for Admin {
    fn handle(
        &mut self,
        _now: Time,
        _from: ServerId,
        message: Message,
        _out: &mut Outbox<Message>,
    ) {
        self.state.borrow_mut().take(message);
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({} acceptors)", self.acceptors.len())
    }
}
