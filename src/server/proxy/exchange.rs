//! One request and its response, between a client and an endpoint.
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::balance::Cluster;
use super::connection::{After, Connection};
use super::date::with_date;
use super::flow::{Flow, FlowError, Sink, Source, poll_drain};
use super::limits::{CONNECT_ATTEMPTS, CONNECT_TIMEOUT};
use super::request::{Job, SERVER, reply_to};
use super::stats::count;
use super::tunnel;
use super::upstream::{Host, Upstream};
use crate::io::reactor::{Timer, loop_now};
use crate::io::tcp::TcpStream;
use crate::kernel::Time;
use crate::proto::http1::reuse::{ClientExchange, UpstreamExchange};
use crate::proto::http1::{
    BodyFraming, CONTINUE, HeadProgress, HeaderEdits, HeaderSlots, LocalReply,
    MAX_INTERIM_RESPONSES, Parsed, ResponseContext, parse_response, write_response_head,
};

/// The state of an exchange while it is on its way.
struct Exchange<'c> {
    connection: &'c mut Connection,
    job: Job,
    timer: Option<Timer>,
    began: Time,
    /// The request body; the head goes before it.
    upload: Flow,
    upload_state: Upload,
    /// Bytes of the head that were sent, if it is kept for another attempt.
    head_sent: usize,
    progress: HeadProgress,
    interim: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Upload {
    Flowing,
    Done,
    /// The endpoint takes no more; its response may still come.
    Refused,
}

/// A final response whose head is in `to_client`.
struct Response {
    download: Flow,
    upstream_keep_alive: bool,
    client_keep_alive: bool,
    switched: bool,
}

/// How the wait for the head of the response ended.
enum Head {
    Final(Response),
    /// A kept connection turned out to be closed, and nothing was lost.
    Stale,
    Failed(Failure),
}

/// What went wrong, by who is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    ClientGone,
    ClientSlow,
    BadBody,
    UpstreamGone,
    BadUpstream,
    UpstreamSlow,
}

/// Forwards a request whose head is in `to_upstream`, and its response.
pub(super) async fn forward(connection: &mut Connection, job: Job) -> After {
    let began = loop_now();
    let timer = job.timeout.map(|timeout| Timer::at(began + timeout));
    let upload = Flow::new(job.framing, job.framing);
    let mut exchange = Exchange {
        connection,
        job,
        timer,
        began,
        upload,
        upload_state: Upload::Flowing,
        head_sent: 0,
        progress: HeadProgress::default(),
        interim: 0,
    };
    exchange.connection.alive();
    let mut may_reuse = true;
    loop {
        let mut upstream = match exchange.acquire(may_reuse).await {
            Ok(upstream) => upstream,
            Err(reply) => return exchange.reply(reply).await,
        };
        exchange.invite_body();
        match poll_fn(|cx| exchange.poll_head(cx, &mut upstream)).await {
            Head::Stale => {
                count(|c| c.upstream_retries.add());
                may_reuse = false;
                exchange.head_sent = 0;
                exchange.upload_state = Upload::Flowing;
                exchange.progress.reset();
            }
            Head::Failed(failure) => {
                drop(upstream);
                return exchange.fail(failure).await;
            }
            Head::Final(response) => return exchange.respond(upstream, response).await,
        }
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// A connection to the next endpoint: a kept one if allowed, else a new one.
    async fn acquire(&mut self, may_reuse: bool) -> Result<Upstream, LocalReply<'static>> {
        let may_repeat = self.may_repeat();
        let attempts = self.job.cluster.host_count().min(CONNECT_ATTEMPTS);
        for _ in 0..attempts {
            let Some(host) = self.job.cluster.next_host() else { break };
            if may_reuse && let Some(upstream) = host.take_idle(!may_repeat) {
                return Ok(upstream);
            }
            // Rare, and larger than what it interrupts.
            let connecting = connect(Rc::clone(host), self.connection, &mut self.timer);
            let connected = Box::pin(connecting).await;
            self.connection.alive();
            if let Some(upstream) = connected {
                return Ok(upstream);
            }
            if self.connection.client.tcp().fd().is_down() {
                break;
            }
        }
        if attempts == 0 {
            count(|c| c.no_endpoint.add());
            return Err(LocalReply::NoHealthyUpstream);
        }
        Err(LocalReply::ConnectFailure)
    }

    /// Tells a client that asked that its body is wanted, now that there is someone to take it. Envoy
    /// answers this itself as well: an endpoint that knows no 100 would make the client wait in vain.
    fn invite_body(&mut self) {
        let asked = std::mem::take(&mut self.job.expects_continue);
        if asked && self.connection.input.is_empty() {
            count(|c| c.response(100));
            self.connection.to_client.extend(CONTINUE);
        }
    }

    /// Whether the request can be sent again: it does no harm, and there is no body that is gone.
    fn may_repeat(&self) -> bool {
        self.job.idempotent && self.is_bodyless()
    }

    fn is_bodyless(&self) -> bool {
        matches!(self.job.framing, BodyFraming::None | BodyFraming::Length(0))
    }

    /// Sends the request and waits for the head of the final response, which it puts into `to_client`.
    fn poll_head(&mut self, cx: &mut Context<'_>, upstream: &mut Upstream) -> Poll<Head> {
        if let Err(failure) = self.poll_upload(cx, upstream) {
            return Poll::Ready(Head::Failed(failure));
        }
        loop {
            match upstream.stream.poll_recv(cx, &mut upstream.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(got)) if got > 0 => {}
                Poll::Ready(_) => return Poll::Ready(self.closed_early(upstream)),
            }
            if let Some(head) = self.take_head(upstream) {
                return Poll::Ready(head);
            }
        }
        let Connection { client, to_client, .. } = &mut *self.connection;
        if !to_client.is_empty() && matches!(poll_drain(cx, client, to_client), Poll::Ready(Err(_)))
        {
            return Poll::Ready(Head::Failed(Failure::ClientGone));
        }
        match self.poll_silence(cx) {
            Poll::Ready(failure) => Poll::Ready(Head::Failed(failure)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ready when waiting makes no sense any more.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        if std::mem::take(&mut self.upload.moved) {
            self.connection.alive();
        }
        let fd = self.connection.client.tcp().fd();
        if fd.is_down() {
            return Poll::Ready(Failure::ClientGone);
        }
        if is_late(&mut self.timer, cx) {
            return Poll::Ready(Failure::UpstreamSlow);
        }
        if fd.poll_expired(cx).is_ready() {
            let slow = self.upload_state == Upload::Flowing && !self.upload.is_received();
            return Poll::Ready(if slow { Failure::ClientSlow } else { Failure::UpstreamSlow });
        }
        // Only so that a reset by the client is noticed.
        let _ = fd.poll_readable(cx);
        Poll::Pending
    }

    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
    ) -> Result<(), Failure> {
        if self.upload_state != Upload::Flowing {
            return Ok(());
        }
        let bodyless = self.is_bodyless();
        let Connection { client, input, to_upstream, .. } = &mut *self.connection;
        let sent = if bodyless {
            // The head stays where it is until there is a response.
            poll_send_kept(cx, upstream, to_upstream.as_slice(), &mut self.head_sent)
                .map(|sent| sent.map_err(|_| FlowError::Sink))
        } else {
            let sink = Sink { stream: &mut upstream.stream, pending: to_upstream };
            self.upload.poll(cx, Source { stream: client, input }, sink)
        };
        match sent {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.upload_state = Upload::Done,
            Poll::Ready(Err(FlowError::Sink)) => self.upload_state = Upload::Refused,
            Poll::Ready(Err(FlowError::Source)) => return Err(Failure::ClientGone),
            Poll::Ready(Err(FlowError::Malformed(error))) => {
                let truncated = error == crate::proto::http1::BodyError::Truncated;
                return Err(if truncated { Failure::ClientGone } else { Failure::BadBody });
            }
        }
        Ok(())
    }

    fn closed_early(&self, upstream: &Upstream) -> Head {
        let nothing_came = upstream.input.is_empty() && self.interim == 0;
        if upstream.reused && nothing_came && self.may_repeat() {
            return Head::Stale;
        }
        Head::Failed(Failure::UpstreamGone)
    }

    /// Takes response heads from what has arrived: interim ones are passed on, the final one ends it.
    #[inline]
    fn take_head(&mut self, upstream: &mut Upstream) -> Option<Head> {
        loop {
            let mut slots = HeaderSlots::new();
            let input = upstream.input.as_slice();
            let parsed = parse_response(input, self.job.to, &mut slots, &mut self.progress);
            let (head, consumed) = match parsed {
                Ok(Parsed::Partial) => return None,
                Ok(Parsed::Complete(head, consumed)) => (head, consumed),
                Err(_) => return Some(Head::Failed(Failure::BadUpstream)),
            };
            let answer = self.job.answer;
            let context_keep_alive = answer.keep_alive && !self.connection.shared.is_draining();
            let elapsed = loop_now().since(self.began).as_millis();
            let sent = with_date(|date| {
                let context = ResponseContext {
                    client_version: answer.version,
                    keep_alive: context_keep_alive,
                    server: SERVER,
                    date,
                    service_time_ms: u64::try_from(elapsed).ok(),
                    edits: HeaderEdits::default(),
                };
                write_response_head(self.connection.to_client.vec(), &head, &context)
            });
            count(|c| c.response(head.status));
            let is_final = !head.is_interim();
            let response = is_final.then(|| Response {
                download: Flow::new(head.framing, sent.framing),
                upstream_keep_alive: head.keep_alive,
                client_keep_alive: sent.keep_alive,
                switched: head.is_switch(),
            });
            upstream.input.consume(consumed);
            self.progress.reset();
            if let Some(response) = response {
                return Some(Head::Final(response));
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM_RESPONSES {
                return Some(Head::Failed(Failure::BadUpstream));
            }
        }
    }

    /// Passes the response's body on, and what is left of the request's.
    async fn respond(&mut self, mut upstream: Upstream, mut response: Response) -> After {
        if self.upload_state == Upload::Done {
            // The head was kept for another attempt.
            let kept = self.connection.to_upstream.len();
            self.connection.to_upstream.consume(kept);
        }
        if response.switched {
            return self.switch(upstream).await;
        }
        let passed = poll_fn(|cx| self.poll_bodies(cx, &mut upstream, &mut response)).await;
        if let Err(failure) = passed {
            if !response.download.began && self.interim == 0 {
                // The head has not left yet: the client can still be told.
                let unsent = self.connection.to_client.len();
                self.connection.to_client.consume(unsent);
                return self.fail(failure).await;
            }
            // It cannot be told but by closing.
            failure.count();
            return After::Abort;
        }
        let uploaded = self.upload_state == Upload::Done;
        let of_upstream = UpstreamExchange {
            keep_alive: response.upstream_keep_alive,
            request_body_sent: uploaded,
            response_body_received: response.download.is_received(),
            bytes_left: upstream.input.len(),
            upgraded: false,
        };
        // Endpoints that send a body with the answer to HEAD are common, and it may arrive later: the next
        // request on this connection would take it for its response.
        if of_upstream.verdict().is_ok() && !self.job.answer.head {
            upstream.input.release();
            upstream.keep();
        }
        let of_client = ClientExchange {
            keep_alive: response.client_keep_alive,
            request_body_received: self.upload.is_received(),
            response_body_sent: response.download.is_sent(),
            upgraded: false,
        };
        let pending = self.connection.to_upstream.len();
        self.connection.to_upstream.consume(pending);
        if of_client.verdict().is_ok() { After::KeepAlive } else { After::Linger }
    }

    fn poll_bodies(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
        response: &mut Response,
    ) -> Poll<Result<(), Failure>> {
        let uploaded = self.poll_upload(cx, upstream);
        if uploaded.is_err() {
            // Too late to answer that; the response still goes on.
            self.upload_state = Upload::Refused;
        }
        let finished = response.download.is_sent();
        let Connection { client, to_client, .. } = &mut *self.connection;
        let source = Source { stream: &mut upstream.stream, input: &mut upstream.input };
        let passed = if finished && to_client.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            response.download.poll(cx, source, Sink { stream: client, pending: to_client })
        };
        match passed {
            // An endpoint that persists reads the rest of the body (RFC 9112 section 9.3).
            Poll::Ready(Ok(()))
                if self.upload_state == Upload::Flowing && response.upstream_keep_alive => {}
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(FlowError::Sink)) => return Poll::Ready(Err(Failure::ClientGone)),
            Poll::Ready(Err(FlowError::Source)) => {
                return Poll::Ready(Err(Failure::UpstreamGone));
            }
            Poll::Ready(Err(FlowError::Malformed(_))) => {
                return Poll::Ready(Err(Failure::BadUpstream));
            }
            Poll::Pending => {}
        }
        if std::mem::take(&mut response.download.moved) {
            self.connection.alive();
        }
        self.poll_silence(cx).map(Err)
    }

    /// The endpoint has agreed to another protocol: bytes in both directions from here on.
    async fn switch(&mut self, mut upstream: Upstream) -> After {
        let connection = &mut *self.connection;
        // Large and rare: not a part of every connection's state.
        let tunnel = Box::pin(tunnel::run(
            tunnel::End {
                stream: &mut connection.client,
                input: &mut connection.input,
                pending: &mut connection.to_client,
            },
            tunnel::End {
                stream: &mut upstream.stream,
                input: &mut upstream.input,
                pending: &mut connection.to_upstream,
            },
        ));
        tunnel.await;
        After::Abort
    }

    async fn fail(&mut self, failure: Failure) -> After {
        failure.count();
        match failure {
            Failure::ClientGone => After::Abort,
            Failure::ClientSlow => self.reply(LocalReply::RequestTimeout).await,
            Failure::BadBody => self.reply(LocalReply::BadBody).await,
            Failure::UpstreamGone => self.reply(LocalReply::ConnectFailure).await,
            Failure::BadUpstream => self.reply(LocalReply::BadUpstream).await,
            Failure::UpstreamSlow => self.reply(LocalReply::UpstreamTimeout).await,
        }
    }

    /// Answers instead of an endpoint.
    async fn reply(&mut self, reply: LocalReply<'_>) -> After {
        let mut answer = self.job.answer;
        answer.keep_alive &= self.is_bodyless() || self.upload.is_received();
        let connection = &mut *self.connection;
        let unsent = connection.to_upstream.len();
        connection.to_upstream.consume(unsent);
        let keep_alive = reply_to(connection.to_client.vec(), reply, answer);
        connection.answered(keep_alive).await
    }
}

// === impl Failure ===

impl Failure {
    fn count(self) {
        count(|c| match self {
            Self::ClientGone => c.client_aborts.add(),
            Self::ClientSlow => c.client_timeouts.add(),
            Self::BadBody => c.bad_requests.add(),
            Self::UpstreamGone => c.upstream_aborts.add(),
            Self::BadUpstream => c.bad_responses.add(),
            Self::UpstreamSlow => c.upstream_timeouts.add(),
        });
    }
}

/// Connects to an endpoint of `cluster`, for a tunnel.
pub(super) async fn connect_any(connection: &Connection, cluster: &Cluster) -> Option<Upstream> {
    for _ in 0..cluster.host_count().min(CONNECT_ATTEMPTS) {
        let host = Rc::clone(cluster.next_host()?);
        if let Some(upstream) = connect(host, connection, &mut None).await {
            return Some(upstream);
        }
    }
    count(|c| c.no_endpoint.add());
    None
}

async fn connect(
    host: Rc<Host>,
    connection: &Connection,
    timer: &mut Option<Timer>,
) -> Option<Upstream> {
    let client = connection.client.tcp();
    client.set_deadline(loop_now() + CONNECT_TIMEOUT);
    let connected = match TcpStream::connect(host.address) {
        Err(error) => Err(error),
        Ok(stream) => poll_fn(|cx| {
            if let Poll::Ready(connected) = stream.poll_connected(cx) {
                return Poll::Ready(connected);
            }
            let late = client.fd().poll_expired(cx).is_ready() || is_late(timer, cx);
            if late { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
        })
        .await
        .map(|()| stream),
    };
    match connected {
        Ok(stream) => Some(Upstream::fresh(stream, &host)),
        Err(error) => {
            count(|c| c.upstream_connect_failures.add());
            log::debug!("cannot connect to {}: {error}", host.address);
            None
        }
    }
}

fn is_late(timer: &mut Option<Timer>, cx: &mut Context<'_>) -> bool {
    timer.as_mut().is_some_and(|timer| Pin::new(timer).poll(cx).is_ready())
}

/// Sends `bytes` from where `sent` says, without taking them out of their buffer.
#[inline]
fn poll_send_kept(
    cx: &mut Context<'_>,
    upstream: &mut Upstream,
    bytes: &[u8],
    sent: &mut usize,
) -> Poll<io::Result<()>> {
    while *sent < bytes.len() {
        match upstream.stream.poll_send(cx, [&bytes[*sent..], &[], &[]]) {
            Poll::Ready(Ok(taken)) => *sent += taken,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}
