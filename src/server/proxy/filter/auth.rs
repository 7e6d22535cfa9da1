//! External auth over HTTP: a server is asked whether a request may pass. No answer, or one that cannot be understood,
//! is a no.
use std::rc::Rc;
use std::sync::Arc;

use super::super::cluster::Cluster;
use super::super::limits::{AUTH_ANSWER_BYTES, AUTH_TIMEOUT};
use super::super::subrequest::{Message, Reply, ask};
use super::grpc_auth;
use crate::api::route::ExternalAuth;
use crate::io::reactor::loop_now;
use crate::proto::http1::{
    HeadEditor, HeadProgress, Header, HeaderSlots, Parsed, PeerAddress, RequestHead, ResponseHead,
    ResponseTo, is_editable, parse_response,
};

/// A question that is to be asked once the body is there.
pub(in super::super) struct Question {
    pub(in super::super) auth: Arc<ExternalAuth>,
    cluster: Rc<Cluster>,
    message: Message,
}

/// What the auth server has said.
pub(in super::super) enum Verdict {
    /// The request may pass, with these changes.
    Allowed(Changes),
    /// It may not; this is for the client.
    Denied(Reply),
    /// There was no answer.
    Failed,
}

/// Changes to the request that the auth server wants.
#[derive(Default)]
pub(in super::super) struct Changes {
    pub(super) remove: Vec<String>,
    /// Name, value, and whether it is added to what is there.
    pub(super) set: Vec<(String, Vec<u8>, bool)>,
}

// === impl Question ===

impl Question {
    pub(in super::super) fn new(
        auth: &Arc<ExternalAuth>,
        cluster: Rc<Cluster>,
        head: &RequestHead<'_, '_>,
        peer: &PeerAddress,
        scheme: &'static str,
    ) -> Self {
        let auth = Arc::clone(auth);
        let message = if auth.grpc {
            grpc_auth::question(&auth, head, peer, scheme)
        } else {
            question(&auth, head, peer, scheme)
        };
        Self { auth, cluster, message }
    }

    /// Asks, showing `body` of the request.
    pub(in super::super) async fn ask(self, body: &[u8]) -> Verdict {
        let Self { auth, cluster, mut message } = self;
        let limit = auth.body_limit.unwrap_or_default() as usize;
        let body = &body[..body.len().min(limit)];
        if auth.grpc {
            message.body = grpc_auth::framed(message.body, body);
        } else {
            message.body = body.to_vec();
        }
        let to = message.to;
        let asked = ask(&cluster, message, loop_now() + AUTH_TIMEOUT, AUTH_ANSWER_BYTES).await;
        let Some(reply) = asked.filter(|reply| !reply.cut) else { return Verdict::Failed };
        let verdict = with_head(&reply.head, to, |head| {
            if auth.grpc {
                return grpc_auth::verdict(head, &reply.body);
            }
            let allowed = (200..300).contains(&head.status);
            Some(allowed.then(|| changes(&auth, head)))
        });
        match verdict.flatten() {
            Some(Some(changes)) => Verdict::Allowed(changes),
            Some(None) if auth.grpc => match grpc_auth::denial(&reply.body) {
                Some(reply) => Verdict::Denied(reply),
                None => Verdict::Failed,
            },
            Some(None) => Verdict::Denied(reply),
            None => Verdict::Failed,
        }
    }
}

// === impl Changes ===

impl Changes {
    pub(in super::super) fn apply(&self, head: &mut HeadEditor<'_>) {
        self.remove.iter().for_each(|name| head.remove(name));
        for (name, value, added) in &self.set {
            if *added { head.add(name, value) } else { head.set(name, value) }
        }
    }
}

/// The client's request as the auth server sees it: method, path, host, `authorization`, and what the route allows.
fn question(
    auth: &ExternalAuth,
    head: &RequestHead<'_, '_>,
    peer: &PeerAddress,
    scheme: &str,
) -> Message {
    let host = head.authority.map_or("", |authority| authority.as_str());
    let target = if head.target == "*" { "/" } else { head.target };
    let prefix = auth.path.trim_end_matches('/');
    let mut out =
        format!("{} {prefix}{target} HTTP/1.1\r\nhost: {host}\r\n", head.method).into_bytes();
    let mut push = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    head.headers.iter().filter(|h| is_shown(auth, h)).for_each(|h| push(h.name, h.value));
    push("x-forwarded-for", peer.as_bytes());
    push("x-forwarded-proto", scheme.as_bytes());
    push("x-forwarded-host", host.as_bytes());
    Message { head: out, body: Vec::new(), to: ResponseTo { head: head.is_head(), upgrade: false } }
}

/// Whether the auth server gets to see a header. What is said about the client here is not taken from the client.
pub(super) fn is_shown(auth: &ExternalAuth, header: &Header<'_>) -> bool {
    let name = header.name;
    let ours = name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-"));
    let allowed = |allowed: &crate::api::meta::Str| allowed.eq_ignore_ascii_case(name);
    is_editable(name)
        && !ours
        && (name.eq_ignore_ascii_case("authorization") || auth.allowed_headers.iter().any(allowed))
}

/// What the answer of an HTTP server changes in the request. A header that the route lets it set is not taken from the
/// client if the server does not: or clients could say about themselves what only the server may.
fn changes(auth: &ExternalAuth, head: &ResponseHead<'_, '_>) -> Changes {
    let allowed = &auth.allowed_response_headers;
    let copied = |name: &str| {
        let framing = !is_editable(name)
            || name.eq_ignore_ascii_case("date")
            || name.eq_ignore_ascii_case("server");
        match &allowed[..] {
            [] => !framing,
            allowed => is_editable(name) && allowed.iter().any(|a| a.eq_ignore_ascii_case(name)),
        }
    };
    let mut changes = Changes::default();
    changes.remove.extend(allowed.iter().map(|name| (**name).to_owned()));
    for header in head.headers.iter().filter(|header| copied(header.name)) {
        let again = changes.set.iter().any(|(name, ..)| name.eq_ignore_ascii_case(header.name));
        changes.set.push((header.name.to_owned(), header.value.to_vec(), again));
    }
    changes
}

/// Reads a head that was read before.
pub(in super::super) fn with_head<T>(
    bytes: &[u8],
    to: ResponseTo,
    with: impl FnOnce(&ResponseHead<'_, '_>) -> T,
) -> Option<T> {
    let mut slots = HeaderSlots::new();
    match parse_response(bytes, to, &mut slots, &mut HeadProgress::default()) {
        Ok(Parsed::Complete(head, _)) => Some(with(&head)),
        _ => None,
    }
}
