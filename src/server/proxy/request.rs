//! From the bytes of a request head to what is done with it: one synchronous step, so that nothing
//! borrowed from the receive buffer outlives it.
use std::rc::Rc;
use std::time::Duration;

use super::balance::Cluster;
use super::connection::Connection;
use super::date::with_date;
use super::stats::count;
use crate::api::route::{Action, Listener, Request, Route};
use crate::io::random;
use crate::proto::http1::{
    BodyFraming, ForwardContext, HeaderEdits, HeaderSlots, LocalReply, MAX_HOST_BYTES, Parsed,
    ReplyContext, RequestHead, RequestId, ResponseTo, Version, parse_request, write_local_reply,
    write_request_head,
};

/// The value of `server` (ING-13).
pub(super) const SERVER: &str = "envoy";

/// What the head in the receive buffer asks for.
pub(super) enum Next {
    /// It has not ended yet.
    Incomplete,
    /// The answer is in `to_client` already; whether the connection persists.
    Answered(bool),
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
}

/// What an answer to the client has to know of its request.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) version: Version,
    pub(super) head: bool,
    pub(super) keep_alive: bool,
}

/// What is done with a request whose head is whole.
enum Decision<'b> {
    Reply(LocalReply<'b>),
    Forward(Rc<Route>, Rc<Cluster>),
    /// Answered with a text that belongs to the route.
    Refuse(Rc<Route>),
}

/// Takes the next request head from the receive buffer.
pub(super) fn next(connection: &mut Connection) -> Next {
    if connection.input.is_empty() {
        return Next::Incomplete;
    }
    connection.refresh();
    let mut slots = HeaderSlots::new();
    let Connection { input, progress, to_client, to_upstream, head_began, .. } = connection;
    let (head, consumed) = match parse_request(input.as_slice(), &mut slots, progress) {
        Ok(Parsed::Partial) => return Next::Incomplete,
        Ok(Parsed::Complete(head, consumed)) => (head, consumed),
        Err(error) => {
            count(|c| c.bad_requests.add());
            let answer = Answer { version: Version::Http11, head: false, keep_alive: false };
            return Next::Answered(reply_to(to_client.vec(), LocalReply::Refused(error), answer));
        }
    };
    count(|c| c.requests.add());
    let answer = Answer {
        version: head.version,
        head: head.is_head(),
        keep_alive: head.keep_alive && !connection.shared.is_draining(),
    };
    let next = match decide(connection.listener.as_deref(), &connection.snapshot, &head) {
        Decision::Forward(route, cluster) => {
            // HTTP/1.0 without Host: the address it came to stands for the name.
            let fallback = match head.authority {
                Some(_) => String::new(),
                None => connection.local.to_string(),
            };
            let context = ForwardContext {
                peer: &connection.peer,
                proto: if connection.is_tls { "https" } else { "http" },
                request_id: &RequestId::from_random(random::bytes16()),
                trusted_hops: connection.shared.xff_trusted_hops,
                append_forwarded_for: true,
                fallback_host: &fallback,
                host: None,
                target: None,
                upgrade: true,
                edits: HeaderEdits::default(),
            };
            write_request_head(to_upstream.vec(), &head, &context);
            Next::Forward(Job {
                cluster,
                framing: head.framing,
                answer,
                to: ResponseTo::from(&head),
                idempotent: is_idempotent(head.method),
                timeout: route.request_timeout,
                expects_continue: head.expect_continue,
            })
        }
        decision => {
            let (route, reply);
            let reply = match decision {
                Decision::Refuse(refusing) => {
                    route = refusing;
                    match &route.action {
                        Action::Refuse(status, why) => LocalReply::Status(*status, why),
                        _ => LocalReply::Internal,
                    }
                }
                Decision::Reply(decided) => {
                    reply = decided;
                    reply
                }
                Decision::Forward(..) => LocalReply::Internal,
            };
            // What follows a head whose body nobody reads is not the next request.
            let bodyless = matches!(head.framing, BodyFraming::None | BodyFraming::Length(0));
            let keep_alive = answer.keep_alive && bodyless && connection.listener.is_some();
            Next::Answered(reply_to(to_client.vec(), reply, Answer { keep_alive, ..answer }))
        }
    };
    input.consume(consumed);
    progress.reset();
    *head_began = false;
    next
}

fn decide<'b>(
    listener: Option<&Listener>,
    snapshot: &super::table::Snapshot,
    head: &RequestHead<'_, 'b>,
) -> Decision<'b> {
    // Without a listener: it was taken away since the connection was made.
    let Some(route) = listener.and_then(|listener| find_route(listener, head)) else {
        count(|c| c.no_route.add());
        return Decision::Reply(LocalReply::NoRoute);
    };
    match &route.action {
        Action::Forward(_) => match snapshot.plan(route).next() {
            Some(cluster) => Decision::Forward(Rc::clone(route), Rc::clone(cluster)),
            None => {
                count(|c| c.no_endpoint.add());
                Decision::Reply(LocalReply::NoHealthyUpstream)
            }
        },
        Action::RedirectHttps(port) => Decision::Reply(match head.authority {
            Some(authority) => {
                LocalReply::RedirectToHttps { authority, target: head.target, port: port.0 }
            }
            // HTTP/1.0 without a host to redirect to.
            None => LocalReply::Status(400, ""),
        }),
        Action::Redirect(_) => Decision::Reply(LocalReply::Internal),
        Action::Refuse(..) => Decision::Refuse(Rc::clone(route)),
    }
}

fn find_route<'l>(listener: &'l Listener, head: &RequestHead<'_, '_>) -> Option<&'l Rc<Route>> {
    let mut lower = [0; MAX_HOST_BYTES];
    // A client of HTTP/1.0 without Host gets what any host gets.
    let host = head.authority.as_ref().map_or("", |authority| authority.host_lowercase(&mut lower));
    // `OPTIONS *` asks about the whole site.
    let path = if head.target == "*" { "/" } else { head.path() };
    listener.hosts.find(host)?.find(path, &Asked(head))
}

/// A request head as the route table asks about it.
struct Asked<'a, 's, 'b>(&'a RequestHead<'s, 'b>);

impl Request for Asked<'_, '_, '_> {
    fn method(&self) -> &str {
        self.0.method
    }

    fn header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.header(name).is_some_and(test)
    }

    fn query(&self, _name: &str, _test: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
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
            server: SERVER,
            date,
        };
        write_local_reply(out, reply, &context)
    })
}
