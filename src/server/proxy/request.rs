//! From the bytes of a request head to what is done with it: one synchronous step, so that nothing
//! borrowed from the receive buffer outlives it.
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::access_log::{Facts, Reason};
use super::cluster::Cluster;
use super::connection::Connection;
use super::date::with_date;
use super::filter::session::Stay;
use super::filter::{Extra, auth, cors, edit, mirror, rewrite};
use super::matching::{Found, find_route};
use super::stats::count;
use super::subrequest::Message;
use super::table::Snapshot;
use crate::api::route::{
    Action, Balance, Listener, Mirror, PathMatch, Route, Target, UpstreamProtocol,
};
use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;
use crate::io::{clock, random};
use crate::proto::http1::{
    BodyFraming, ForwardContext, HeadEditor, HeaderSlots, LocalReply, Parsed, PeerAddress,
    ReplyContext, RequestHead, RequestId, ResponseTo, Trust, Version, client_of, parse_request,
    scheme_of, write_local_reply, write_request_head,
};
use crate::proto::maglev;

/// The value of `server` (ING-13).
pub(super) const SERVER: &str = "envoy";

/// What the head in the receive buffer asks for.
pub(super) enum Next {
    /// It has not ended yet.
    Incomplete,
    /// The answer is in `to_client` already; whether the connection persists, and why it was given.
    Answered(bool, Reason),
    /// It is to be forwarded; the head is in `to_upstream`.
    Forward(Job),
}

/// A request that is being forwarded.
pub(super) struct Job {
    pub(super) cluster: Rc<Cluster>,
    pub(super) framing: BodyFraming,
    pub(super) answer: Answer,
    pub(super) to: ResponseTo,
    /// Sending it twice does no harm.
    pub(super) idempotent: bool,
    pub(super) timeout: Option<Duration>,
    /// The client waits for 100 before it sends its body.
    pub(super) expects_continue: bool,
    /// The same for all requests of a client, if the backend wants that.
    pub(super) affinity: u64,
    /// What the route does besides.
    pub(super) extra: Option<Box<Extra>>,
}

/// What an answer to the client has to know of its request.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) version: Version,
    pub(super) head: bool,
    pub(super) keep_alive: bool,
    /// It is a call of gRPC, whose errors have a form of their own.
    pub(super) grpc: bool,
}

/// A request head, and all that decides what is done with it.
struct Asked<'a, 's, 'b> {
    head: &'a RequestHead<'s, 'b>,
    answer: Answer,
    snapshot: &'a Snapshot,
    listener: &'a Listener,
    route: &'a Arc<Route>,
    matched: PathMatch<'a>,
    peer: &'a PeerAddress,
    local: SocketAddr,
    is_tls: bool,
    trust: Trust<'a>,
    /// Who has asked, as far as that is known through proxies.
    client: &'a PeerAddress,
}

/// Takes the next request head from the receive buffer.
pub(super) fn next(connection: &mut Connection) -> Next {
    if connection.input.is_empty() {
        return Next::Incomplete;
    }
    connection.refresh();
    let version = if connection.client.is_http2() { Version::Http2 } else { Version::Http11 };
    let mut slots = HeaderSlots::new();
    let Connection { input, progress, to_client, to_upstream, head_began, entry, .. } = connection;
    let (head, consumed) = match parse_request(input.as_slice(), &mut slots, progress) {
        Ok(Parsed::Partial) => return Next::Incomplete,
        Ok(Parsed::Complete(head, consumed)) => (head, consumed),
        Err(error) => {
            count(|c| c.bad_requests.add());
            let at = to_client.len();
            let (reply, answer) = (LocalReply::Refused(error), Answer::closing(version));
            let keep_alive = reply_to(to_client.vec(), reply, answer);
            connection.log_unread(at, version, Reason::BAD_REQUEST);
            return Next::Answered(keep_alive, Reason::BAD_REQUEST);
        }
    };
    count(|c| c.requests.add());
    let answer = Answer {
        version: if version == Version::Http2 { version } else { head.version },
        head: head.is_head(),
        keep_alive: head.keep_alive && !connection.shared.is_draining(),
        grpc: is_grpc(&head),
    };
    let trust = connection.shared.trust(connection.is_trusted_proxy);
    let behind = client_of(&head, connection.peer.ip(), trust);
    let behind = (behind != connection.peer.ip()).then(|| PeerAddress::new(behind));
    let client = behind.as_ref().unwrap_or(&connection.peer);
    let listener = connection.listener.as_deref();
    let found = listener.map_or(Found::None, |listener| {
        let scope = connection.is_tls.then_some(connection.scope);
        find_route(listener, scope, &head)
    });
    let route = if let Found::Route(route, _) = &found { Some(&***route) } else { None };
    let at = to_client.len();
    let next = match (found, listener) {
        (Found::Route(route, matched), Some(listener)) => {
            let asked = Asked {
                head: &head,
                answer,
                snapshot: &connection.snapshot,
                listener,
                route,
                matched,
                peer: &connection.peer,
                local: connection.local,
                is_tls: connection.is_tls,
                trust,
                client,
            };
            asked.decide(to_client, to_upstream)
        }
        (Found::Misdirected, _) => {
            count(|c| c.misdirected.add());
            reply_bodyless(to_client.vec(), LocalReply::Misdirected, answer, &head)
        }
        // Without a listener: it was taken away since the connection was made.
        _ => {
            count(|c| c.no_route.add());
            let answer = Answer { keep_alive: answer.keep_alive && listener.is_some(), ..answer };
            reply_bodyless(to_client.vec(), LocalReply::NoRoute, answer, &head)
        }
    };
    if let Some(log) = &connection.shared.access_log {
        let mut begun = log.begin(&Facts {
            head: Some(&head),
            client,
            peer: &connection.peer,
            local: connection.local,
            version: answer.version,
            server_name: connection.server_name.as_deref(),
            route,
            forwarded: to_upstream.as_slice(),
        });
        if let Next::Answered(_, reason) = next {
            begun.answered(&to_client.as_slice()[at..]);
            begun.because(reason);
        }
        *entry = Some(begun);
    }
    input.consume(consumed);
    progress.reset();
    *head_began = false;
    next
}

// === impl Answer ===

impl Answer {
    /// To a request of which nothing is known; the connection closes.
    pub(super) const fn closing(version: Version) -> Self {
        Self { version, head: false, keep_alive: false, grpc: false }
    }
}

// === impl Asked ===

impl Asked<'_, '_, '_> {
    /// Writes the head for the endpoint to `to_upstream`, or the answer to `to_client`.
    #[inline]
    fn decide(&self, to_client: &mut Buffer, to_upstream: &mut Buffer) -> Next {
        let route = self.route;
        if let Some(cors) = &route.filters.cors
            && cors::is_preflight(self.head)
        {
            let at = to_client.vec().len();
            let next = self.reply(to_client, LocalReply::Status(204, ""), None);
            if let Some(mut out) = HeadEditor::new(to_client.vec(), at) {
                cors::answer_preflight(&mut out, cors, self.head);
            }
            return next;
        }
        match &route.action {
            Action::Forward(backends) => {
                let plan = self.snapshot.plan(route);
                let (stay, stays_with) = match &route.session {
                    Some(session) => {
                        let now = (loop_now(), clock::unix_seconds());
                        let (stay, at) = plan.marks(route).find(session, self.head, now);
                        (Some(stay), at)
                    }
                    None => (None, None),
                };
                let Some(backend) = stays_with.or_else(|| plan.next()) else {
                    count(|c| c.no_endpoint.add());
                    return self.reply(to_client, LocalReply::NoHealthyUpstream, None);
                };
                match (plan.cluster(backend), &backends[backend].target) {
                    (Some(cluster), _) => self.forward(to_upstream.vec(), backend, cluster, stay),
                    (None, Target::Refuse(status, why)) => {
                        self.reply(to_client, LocalReply::Status(*status, why), Some(backend))
                    }
                    (None, Target::Service(_)) => self.reply(to_client, LocalReply::Internal, None),
                }
            }
            Action::RedirectHttps(port) => {
                let reply = match self.head.authority {
                    Some(authority) => LocalReply::RedirectToHttps {
                        authority,
                        target: self.head.target,
                        port: port.0,
                    },
                    // HTTP/1.0 without a host to redirect to.
                    None => LocalReply::Status(400, ""),
                };
                self.reply(to_client, reply, None)
            }
            Action::Redirect(to) => {
                let reply =
                    rewrite::redirect(to, self.head, self.matched, self.listener, self.is_tls);
                self.reply(to_client, reply.unwrap_or(LocalReply::Status(400, "")), None)
            }
            Action::Refuse(status, why) => {
                self.reply(to_client, LocalReply::Status(*status, why), None)
            }
        }
    }

    #[inline]
    fn forward(
        &self,
        to_upstream: &mut Vec<u8>,
        backend: usize,
        cluster: &Rc<Cluster>,
        stay: Option<Stay>,
    ) -> Next {
        let Self { head, route, peer, .. } = *self;
        let mut extra = Extra::of(route, Some(backend), head);
        // HTTP/1.0 without Host: the address it came to stands for the name.
        let fallback = match head.authority {
            Some(_) => String::new(),
            None => self.local.to_string(),
        };
        let path = extra.as_ref().and_then(|extra| extra.path());
        let context = ForwardContext {
            peer,
            proto: self.scheme(),
            request_id: &RequestId::from_random(random::bytes16()),
            trust: self.trust,
            append_forwarded_for: true,
            fallback_host: &fallback,
            host: extra.as_ref().and_then(|extra| extra.host()),
            target: path.map(|path| rewrite::target(head.target, self.matched, path)),
            upgrade: true,
        };
        let at = to_upstream.len();
        write_request_head(to_upstream, head, &context);
        let copies = extra.as_ref().map(|extra| self.copies(extra, &context));
        if let Some(extra) = &mut extra {
            extra.edit_request(to_upstream, at);
            extra.stay = stay;
            extra.copies = copies.unwrap_or_default();
            extra.question = self.question(extra);
        }
        let affinity = match cluster.settings().balance {
            Balance::SourceAddress => maglev::affinity(self.client.ip()),
            _ => 0,
        };
        Next::Forward(Job {
            cluster: Rc::clone(cluster),
            framing: head.framing,
            answer: self.answer,
            to: ResponseTo::from(head),
            idempotent: is_idempotent(head.method),
            timeout: route.request_timeout,
            expects_continue: head.expect_continue,
            affinity,
            extra,
        })
    }

    /// What the auth server of the route is asked.
    fn question(&self, extra: &Extra) -> Option<auth::Question> {
        let wanted = extra.filters().filter_map(|filters| filters.auth.as_ref()).last()?;
        let mut backend = wanted.backend.clone();
        if wanted.grpc && backend.settings.protocol != UpstreamProtocol::Http2 {
            // gRPC is spoken over nothing else.
            Arc::make_mut(&mut backend.settings).protocol = UpstreamProtocol::Http2;
        }
        let cluster = self.snapshot.cluster(&backend);
        let scheme = scheme_of(self.head, self.trust).unwrap_or(self.scheme());
        Some(auth::Question::new(wanted, cluster, self.head, self.client, scheme))
    }

    /// The copies that are made of the request, with the changes that its own gets.
    fn copies(&self, extra: &Extra, context: &ForwardContext<'_>) -> Vec<mirror::Copy> {
        let mirrors = extra.filters().flat_map(|filters| &filters.mirrors);
        let due = mirrors.filter(|mirror| self.head.upgrade.is_none() && mirror::is_due(mirror));
        let copy = |wanted: &Mirror| {
            let mut out = Vec::new();
            let mut head = *self.head;
            // It is known when the body is.
            head.framing = BodyFraming::None;
            write_request_head(&mut out, &head, context);
            extra.edit_request(&mut out, 0);
            if let Some(filters) = &wanted.backend.filters {
                edit(&mut out, 0, std::iter::once(&filters.request));
            }
            out.truncate(out.len() - 2);
            let message = Message { head: out, body: Vec::new(), to: ResponseTo::from(&head) };
            mirror::Copy { cluster: self.snapshot.cluster(&wanted.backend), message }
        };
        due.map(copy).collect()
    }

    const fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Answers here, with what the route changes in responses.
    fn reply(&self, out: &mut Buffer, reply: LocalReply<'_>, backend: Option<usize>) -> Next {
        let out = out.vec();
        let at = out.len();
        let next = reply_bodyless(out, reply, self.answer, self.head);
        if let Some(extra) = Extra::of(self.route, backend, self.head) {
            extra.edit_response(out, at);
        }
        next
    }
}

/// As [`reply_to`], to a request whose body nobody will read: then what follows is not the next request.
fn reply_bodyless(
    out: &mut Vec<u8>,
    reply: LocalReply<'_>,
    answer: Answer,
    head: &RequestHead<'_, '_>,
) -> Next {
    let bodyless = matches!(head.framing, BodyFraming::None | BodyFraming::Length(0));
    let answer = Answer { keep_alive: answer.keep_alive && bodyless, ..answer };
    Next::Answered(reply_to(out, reply, answer), Reason::of(&reply))
}

/// Whether the content is that of gRPC, of any flavour (but gRPC-Web, whose clients want HTTP's errors).
fn is_grpc(head: &RequestHead<'_, '_>) -> bool {
    if head.method != "POST" {
        return false;
    }
    let rest = head.header("content-type").and_then(|t| t.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

/// Appends an answer of our own to `out`; returns whether the connection persists after it.
pub(super) fn reply_to(out: &mut Vec<u8>, reply: LocalReply<'_>, answer: Answer) -> bool {
    count(|c| {
        c.responses_local.add();
        c.response(reply.status());
    });
    with_date(|date| {
        let context = ReplyContext {
            head: answer.head,
            client_version: answer.version,
            keep_alive: answer.keep_alive,
            grpc: answer.grpc,
            server: SERVER,
            date,
        };
        write_local_reply(out, reply, &context)
    })
}
