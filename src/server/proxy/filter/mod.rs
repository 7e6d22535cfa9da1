//! What a route does to a request beyond forwarding it.
//!
//! `rewrite.rs` paths, hosts, redirects · `cors.rs` cross-origin requests · `retry.rs` when a request is sent again ·
//! `session.rs` who stays with which endpoint · `mirror.rs` copies · `auth.rs` who is asked before.
pub(super) mod auth;
pub(super) mod cors;
mod grpc_auth;
pub(super) mod mirror;
pub(super) mod retry;
pub(super) mod rewrite;
pub(super) mod session;

use std::rc::Rc;
use std::sync::Arc;

use self::retry::Retry;
use super::cluster::Member;
use crate::api::route::{Action, Filters, HeaderChange, PathRewrite, Route};
use crate::io::clock;
use crate::proto::http1::{HeadEditor, RequestHead};

/// A request of a route that does more than forwarding. Most do not, and have none of this.
pub(super) struct Extra {
    pub(super) route: Arc<Route>,
    /// Which backend was chosen.
    backend: Option<usize>,
    /// The origin that has asked and may.
    origin: Option<Box<str>>,
    pub(super) retry: Option<Retry>,
    /// Which endpoint the client stays with.
    pub(super) stay: Option<session::Stay>,
    /// Who has to agree.
    pub(super) question: Option<auth::Question>,
    /// Copies to be sent.
    pub(super) copies: Vec<mirror::Copy>,
}

// === impl Extra ===

impl Extra {
    /// What `route` does to the request besides sending it to `backend`; None if that is all.
    #[inline]
    pub(super) fn of(
        route: &Arc<Route>,
        backend: Option<usize>,
        head: &RequestHead<'_, '_>,
    ) -> Option<Box<Self>> {
        let nothing = route.filters.is_empty()
            && route.retry.is_none()
            && route.session.is_none()
            && route.backend_timeout.is_none()
            && backend_filters(route, backend).is_none();
        if nothing { None } else { Some(Self::make(route, backend, head)) }
    }

    #[cold]
    fn make(route: &Arc<Route>, backend: Option<usize>, head: &RequestHead<'_, '_>) -> Box<Self> {
        let cors = route.filters.cors.as_deref();
        let retry = route.retry.as_ref().filter(|retry| retry.attempts > 0);
        Box::new(Self {
            route: Arc::clone(route),
            backend,
            origin: cors.and_then(|cors| cors::allowed_origin(cors, head)).map(Into::into),
            retry: retry.map(|_| Retry::default()),
            stay: None,
            question: None,
            copies: Vec::new(),
        })
    }

    /// The filters in order: those of the route, then those of the backend.
    pub(super) fn filters(&self) -> impl Iterator<Item = &Filters> {
        std::iter::once(&self.route.filters).chain(backend_filters(&self.route, self.backend))
    }

    /// The host to ask the backend for, if not that of the request.
    pub(super) fn host(&self) -> Option<&str> {
        self.filters().filter_map(|filters| filters.rewrite.host.as_deref()).last()
    }

    /// The path to ask the backend for, if not that of the request.
    pub(super) fn path(&self) -> Option<&PathRewrite> {
        self.filters().filter_map(|filters| filters.rewrite.path.as_ref()).last()
    }

    /// Changes the header of the request whose head begins at `at`.
    pub(super) fn edit_request(&self, out: &mut Vec<u8>, at: usize) {
        edit(out, at, self.filters().map(|filters| &filters.request));
    }

    /// Lets the client know, in the response whose head begins at `at`, that it stays with `member`.
    pub(super) fn tell_session(
        &self,
        (out, at): (&mut Vec<u8>, usize),
        member: &Rc<Member>,
        is_tls: bool,
    ) {
        if let (Some(stay), Some(session)) = (&self.stay, &self.route.session)
            && let Some(mut head) = HeadEditor::new(out, at)
        {
            stay.tell(&mut head, session, member, (clock::unix_seconds(), is_tls));
        }
    }

    /// Changes the header of the response whose head begins at `at`; one of our own as well.
    pub(super) fn edit_response(&self, out: &mut Vec<u8>, at: usize) {
        if let (Some(cors), Some(origin)) = (&self.route.filters.cors, &self.origin)
            && let Some(mut head) = HeadEditor::new(out, at)
        {
            cors::allow(&mut head, cors, origin);
        }
        edit(out, at, self.filters().map(|filters| &filters.response));
    }
}

fn backend_filters(route: &Route, backend: Option<usize>) -> Option<&Filters> {
    match (&route.action, backend) {
        (Action::Forward(backends), Some(index)) => backends.get(index)?.filters.as_deref(),
        _ => None,
    }
}

pub(super) fn edit<'c>(
    out: &mut Vec<u8>,
    at: usize,
    changes: impl Iterator<Item = &'c HeaderChange>,
) {
    for change in changes.filter(|change| !change.is_empty()) {
        // There is a whole head: it has just been written.
        let Some(mut head) = HeadEditor::new(out, at) else { return };
        change.remove.iter().for_each(|name| head.remove(name));
        change.set.iter().for_each(|(name, value)| head.set(name, value.as_bytes()));
        change.add.iter().for_each(|(name, value)| head.add(name, value.as_bytes()));
    }
}
