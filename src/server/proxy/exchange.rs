//! One request and its response, between a client and an endpoint.
mod prepare;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::access_log::Reason;
use super::cluster::{Lease, Member, Wish};
use super::connect::{Unreached, connect, is_late};
use super::connection::{After, Connection};
use super::date::with_date;
use super::dial::Call;
use super::filter::retry::Verdict;
use super::flow::{Flow, FlowError, Sink, Source, poll_drain};
use super::limits::{
    CONNECT_ATTEMPTS, CONNECT_TIMEOUT, FIRST_CONNECT_TIMEOUT, STREAM_IDLE_TIMEOUT,
};
use super::request::{Job, SERVER, reply_to};
use super::stats::count;
use super::tunnel;
use super::upstream::Upstream;
use crate::api::route::{RetryPolicy, UpstreamProtocol};
use crate::io::random;
use crate::io::reactor::{Timer, loop_now};
use crate::kernel::Time;
use crate::proto::http1::reuse::{ClientExchange, UpstreamExchange};
use crate::proto::http1::{
    BodyError, BodyFraming, CONTINUE, HeadProgress, HeaderSlots, LocalReply, MAX_INTERIM_RESPONSES,
    Parsed, ResponseContext, parse_response, write_response_head,
};

/// The state of an exchange while it is on its way.
struct Exchange<'c> {
    connection: &'c mut Connection,
    job: Job,
    /// When the attempt, or the whole, has taken too long.
    timer: Option<Timer>,
    began: Time,
    /// The place at the endpoint that has the request.
    lease: Option<Lease>,
    /// The endpoint that has just failed.
    avoid: Option<Rc<Member>>,
    /// The request body; the head goes before it.
    upload: Flow,
    upload_state: Upload,
    /// The whole request is in `to_upstream`, and stays there for another attempt until there is a response.
    kept: bool,
    /// Bytes of it that were sent, if it is kept.
    kept_sent: usize,
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
    /// It has a status that the route tries again.
    Again(Verdict),
    Failed(Failure),
}

/// What went wrong, by who is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    ClientGone,
    ClientSlow,
    BadBody,
    /// An auth server has refused; its answer is in `to_client`.
    Denied,
    /// An auth server gave no answer.
    AuthFailed,
    /// The backend has no endpoint.
    NoEndpoint,
    /// No endpoint could be connected to.
    Unreachable,
    /// The backend has as many requests, or retries, as it may.
    Overflow,
    UpstreamGone,
    BadUpstream,
    UpstreamSlow,
}

/// Forwards a request whose head is in `to_upstream`, and its response.
pub(super) async fn forward(connection: &mut Connection, job: Job) -> After {
    let to_http2 = job.cluster.settings().protocol == UpstreamProtocol::Http2;
    let upload =
        Flow::between((job.framing, connection.client.is_http2()), (job.framing, to_http2));
    let mut exchange = Exchange {
        connection,
        timer: None,
        began: loop_now(),
        lease: None,
        avoid: None,
        upload,
        upload_state: Upload::Flowing,
        kept: matches!(job.framing, BodyFraming::None | BodyFraming::Length(0)),
        kept_sent: 0,
        progress: HeadProgress::default(),
        interim: 0,
        job,
    };
    exchange.connection.alive();
    let after = attempts(&mut exchange).await;
    exchange.note();
    after
}

/// Tries until there is an answer, or no point in trying.
async fn attempts(exchange: &mut Exchange<'_>) -> After {
    exchange.begin_attempt();
    if exchange.job.extra.is_some()
        && let Err(failure) = Box::pin(exchange.prepare()).await
    {
        return exchange.fail(failure).await;
    }
    if exchange.job.extra.is_some() {
        exchange.begin_attempt();
    }
    let mut may_reuse = true;
    loop {
        let (verdict, failure) = match exchange.acquire(may_reuse).await {
            Err(failure) => (exchange.verdict_on(failure), failure),
            Ok(mut upstream) => {
                exchange.invite_body();
                match poll_fn(|cx| exchange.poll_head(cx, &mut upstream)).await {
                    Head::Final(response) => return exchange.respond(upstream, response).await,
                    Head::Stale => {
                        count(|c| c.upstream_retries.add());
                        may_reuse = false;
                        exchange.repeat();
                        continue;
                    }
                    Head::Again(verdict) => (verdict, Failure::Overflow),
                    Head::Failed(failure) => (exchange.verdict_on(failure), failure),
                }
            }
        };
        match verdict {
            Verdict::At(at) => {
                if !Box::pin(exchange.wait(at)).await {
                    return exchange.fail(Failure::ClientGone).await;
                }
                count(|c| c.route_retries.add());
                exchange.repeat();
                exchange.begin_attempt();
            }
            Verdict::Enough => return exchange.fail(failure).await,
            Verdict::OverBudget => {
                count(|c| c.retries_over_budget.add());
                return exchange.fail(Failure::Overflow).await;
            }
        }
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// For the access log: who had the request last, and how much of it there was.
    #[inline]
    fn note(&mut self) {
        if let Some(entry) = &mut self.connection.entry {
            let member = self.lease.as_ref().map(|lease| &lease.member).or(self.avoid.as_ref());
            entry.ended.upstream = member.map(|member| member.host.address);
            entry.ended.received += self.upload.passed;
        }
    }

    /// For the access log: why it has not gone well.
    fn blame(&mut self, failure: Failure) {
        if let Some(entry) = &mut self.connection.entry {
            entry.because(failure.reason());
        }
    }

    /// Whether the request has been read to its end, so that what follows is the next one.
    fn is_read(&self) -> bool {
        self.is_bodyless() || self.upload.is_received()
    }

    /// Takes in the body, up to so many bytes with the head, and waits for it if `wait`. Returns whether all is there.
    async fn collect(&mut self, limit: usize, wait: bool) -> Result<bool, Failure> {
        if wait {
            self.invite_body();
        }
        poll_fn(|cx| {
            let Connection { client, input, to_client, to_upstream, .. } = &mut *self.connection;
            if matches!(poll_drain(cx, client, to_client), Poll::Ready(Err(_))) {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            let source = Source { stream: client, input };
            match self.upload.poll_collect(cx, source, to_upstream, limit) {
                Poll::Ready(Ok(whole)) => Poll::Ready(Ok(whole)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Failure::of_upload(&error))),
                Poll::Pending if wait => self.poll_silence(cx).map(Err),
                Poll::Pending => Poll::Ready(Ok(false)),
            }
        })
        .await
    }

    /// Lets the time of an attempt run, and what is left of that of the whole.
    fn begin_attempt(&mut self) {
        let attempt = self.job.extra.as_ref().and_then(|extra| extra.route.backend_timeout);
        let attempt = attempt.map(|timeout| loop_now() + timeout);
        self.timer = [self.deadline(), attempt].into_iter().flatten().min().map(Timer::at);
    }

    /// When the whole must be over.
    fn deadline(&self) -> Option<Time> {
        self.job.timeout.map(|timeout| self.began + timeout)
    }

    /// Everything is sent once more.
    fn repeat(&mut self) {
        self.kept_sent = 0;
        self.upload_state = Upload::Flowing;
        self.progress.reset();
    }

    /// Waits until `at`; false if the client goes away before.
    async fn wait(&mut self, at: Time) -> bool {
        self.lease = None;
        let mut timer = Timer::at(at);
        poll_fn(|cx| {
            let client = &self.connection.client;
            if client.is_down() {
                return Poll::Ready(false);
            }
            client.watch(cx);
            Pin::new(&mut timer).poll(cx).map(|()| true)
        })
        .await
    }

    /// What the route does about a failure.
    fn verdict_on(&mut self, failure: Failure) -> Verdict {
        let of_upstream =
            matches!(failure, Failure::UpstreamGone | Failure::BadUpstream | Failure::UpstreamSlow);
        if let Some(lease) = self.lease.take_if(|_| of_upstream) {
            lease.report(loop_now(), true);
            self.avoid = Some(Rc::clone(&lease.member));
        }
        // What was not connected to has not got anything either.
        let again = of_upstream && self.kept || failure == Failure::Unreachable;
        if again { self.next_attempt(|policy| policy.on_failure) } else { Verdict::Enough }
    }

    /// Whether there is another attempt, if the route's policy is `meant`.
    fn next_attempt(&mut self, meant: impl Fn(&RetryPolicy) -> bool) -> Verdict {
        let deadline = self.deadline();
        let Job { cluster, extra, .. } = &mut self.job;
        let Some(extra) = extra else { return Verdict::Enough };
        match (&extra.route.retry, &mut extra.retry) {
            (Some(policy), Some(retry)) if self.interim == 0 && meant(policy) => {
                retry.next(policy, cluster, loop_now(), deadline, random::next())
            }
            _ => Verdict::Enough,
        }
    }

    /// A connection to the next endpoint: a kept one if allowed, else a new one.
    async fn acquire(&mut self, may_reuse: bool) -> Result<Upstream, Failure> {
        self.lease = None;
        let may_repeat = self.may_repeat();
        let attempts = self.job.cluster.members().len().min(CONNECT_ATTEMPTS);
        for attempt in 1..=attempts {
            let wish = Wish {
                now: loop_now(),
                affinity: self.job.affinity,
                avoid: self.avoid.as_ref(),
                random: random::next,
            };
            let stay =
                self.job.extra.as_ref().and_then(|extra| extra.stay.as_ref()?.member.as_ref());
            // A session ends with its endpoint: what has just failed is not insisted on.
            let stay = stay.filter(|_| self.avoid.is_none());
            let Some(member) = stay.or_else(|| self.job.cluster.pick(&wish)) else { break };
            let Some(lease) = self.job.cluster.lease(member) else {
                count(|c| c.upstream_overflows.add());
                return Err(Failure::Overflow);
            };
            let lease = &*self.lease.insert(lease);
            if may_reuse && let Some(upstream) = lease.member.host.take_idle(!may_repeat) {
                return Ok(upstream);
            }
            // One that does not answer at once is given up early if there is another.
            let patience = if attempt < attempts { FIRST_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
            let client = &self.connection.client;
            let call = Call { raw: false, from: Some(self.connection.origin()) };
            // Rare, and larger than what it interrupts.
            let connecting = connect(&lease.member, call, Some(client), patience, &mut self.timer);
            let connected = Box::pin(connecting).await;
            self.connection.alive();
            match connected {
                Ok(upstream) => return Ok(upstream),
                Err(Unreached::Late) => return Err(Failure::UpstreamSlow),
                Err(Unreached::Failed) => lease.report(loop_now(), true),
            }
            self.avoid = self.lease.take().map(|lease| Rc::clone(&lease.member));
            if self.connection.client.is_down() {
                return Err(Failure::ClientGone);
            }
        }
        if attempts == 0 {
            return Err(Failure::NoEndpoint);
        }
        Err(Failure::Unreachable)
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
        self.job.idempotent && self.kept
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
        let client = &self.connection.client;
        if client.is_down() {
            return Poll::Ready(Failure::ClientGone);
        }
        if is_late(&mut self.timer, cx) {
            return Poll::Ready(Failure::UpstreamSlow);
        }
        if client.poll_expired(cx).is_ready() {
            let slow = self.upload_state == Upload::Flowing && !self.upload.is_received();
            return Poll::Ready(if slow { Failure::ClientSlow } else { Failure::UpstreamSlow });
        }
        // Only so that a reset by the client is noticed.
        client.watch(cx);
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
        let Connection { client, input, to_upstream, .. } = &mut *self.connection;
        let sent = if self.kept {
            // The request stays where it is until there is a response.
            poll_send_kept(cx, upstream, to_upstream.as_slice(), &mut self.kept_sent)
                .map(|sent| sent.map_err(|_| FlowError::Sink))
        } else {
            let sink = Sink { stream: &mut upstream.stream, pending: to_upstream };
            self.upload.poll(cx, Source { stream: client, input }, sink)
        };
        match sent {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                upstream.stream.finish(&self.upload.trailers(&self.connection.client));
                self.upload_state = Upload::Done;
            }
            Poll::Ready(Err(FlowError::Sink)) => self.upload_state = Upload::Refused,
            Poll::Ready(Err(error)) => return Err(Failure::of_upload(&error)),
        }
        Ok(())
    }

    fn closed_early(&self, upstream: &Upstream) -> Head {
        let nothing_came = upstream.input.is_empty() && self.interim == 0;
        // What an endpoint has refused unseen can be sent again whatever it is.
        let refused = self.kept && upstream.stream.was_refused();
        if nothing_came && (refused || upstream.reused && self.may_repeat()) {
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
            let now = loop_now();
            if !head.is_interim() {
                if let Some(lease) = &self.lease {
                    lease.report(now, head.status >= 500);
                }
                if let Some(verdict) = self.verdict_on_status(head.status) {
                    return Some(Head::Again(verdict));
                }
            }
            let answer = self.job.answer;
            let context_keep_alive = answer.keep_alive && !self.connection.shared.is_draining();
            let elapsed = now.since(self.began).as_millis();
            let out = self.connection.to_client.vec();
            let at = out.len();
            let sent = with_date(|date| {
                let context = ResponseContext {
                    client_version: answer.version,
                    keep_alive: context_keep_alive,
                    server: SERVER,
                    date,
                    service_time_ms: u64::try_from(elapsed).ok(),
                };
                write_response_head(out, &head, &context)
            });
            if let Some(extra) = &self.job.extra
                && !head.is_interim()
            {
                extra.edit_response(out, at);
                if let Some(lease) = &self.lease {
                    extra.tell_session((out, at), &lease.member, self.connection.is_tls);
                }
            }
            count(|c| c.response(head.status));
            let is_final = !head.is_interim();
            if let Some(entry) = self.connection.entry.as_mut().filter(|_| is_final) {
                entry.ended.status = Some(head.status);
            }
            let response = is_final.then(|| Response {
                download: Flow::between(
                    (head.framing, upstream.stream.is_http2()),
                    (sent.framing, false),
                ),
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

    /// What the route does about a response: None is to pass it on.
    fn verdict_on_status(&mut self, status: u16) -> Option<Verdict> {
        self.job.extra.as_ref()?.retry.as_ref()?;
        if !self.kept {
            return None;
        }
        let verdict = self.next_attempt(|policy| policy.codes.contains(&status));
        if verdict == Verdict::Enough {
            return None;
        }
        self.avoid = self.lease.as_ref().map(|lease| Rc::clone(&lease.member));
        Some(verdict)
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
        if let Some(entry) = &mut self.connection.entry {
            let unsent = self.connection.to_client.len() as u64;
            entry.ended.sent = response.download.passed.saturating_sub(unsent);
        }
        if let Err(failure) = passed {
            if !response.download.began && self.interim == 0 {
                // The head has not left yet: the client can still be told.
                let unsent = self.connection.to_client.len();
                self.connection.to_client.consume(unsent);
                return self.fail(failure).await;
            }
            // It cannot be told but by closing.
            failure.count();
            self.blame(failure);
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
                if self.upload_state == Upload::Flowing && response.upstream_keep_alive =>
            {
                client.finish(&response.download.trailers(&upstream.stream));
            }
            Poll::Ready(Ok(())) => {
                client.finish(&response.download.trailers(&upstream.stream));
                return Poll::Ready(Ok(()));
            }
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
        let client = tunnel::End {
            stream: &mut connection.client,
            input: &mut connection.input,
            pending: &mut connection.to_client,
        };
        let upstream = tunnel::End {
            stream: &mut upstream.stream,
            input: &mut upstream.input,
            pending: &mut connection.to_upstream,
        };
        // Large and rare: not a part of every connection's state.
        // Heads are no payload.
        let heads = [upstream.pending.len() as u64, client.pending.len() as u64];
        let (up, down) = Box::pin(tunnel::run(client, upstream, STREAM_IDLE_TIMEOUT)).await;
        if let Some(entry) = &mut connection.entry {
            entry.ended.received = up.saturating_sub(heads[0]);
            entry.ended.sent = down.saturating_sub(heads[1]);
        }
        After::Abort
    }

    async fn fail(&mut self, failure: Failure) -> After {
        failure.count();
        self.blame(failure);
        match failure {
            Failure::ClientGone => After::Abort,
            Failure::Denied => {
                let unsent = self.connection.to_upstream.len();
                self.connection.to_upstream.consume(unsent);
                self.connection.answered(self.job.answer.keep_alive).await
            }
            Failure::AuthFailed => {
                self.reply(LocalReply::Status(503, "no answer from ext auth")).await
            }
            Failure::ClientSlow => self.reply(LocalReply::RequestTimeout).await,
            Failure::BadBody => self.reply(LocalReply::BadBody).await,
            Failure::NoEndpoint => self.reply(LocalReply::NoHealthyUpstream).await,
            Failure::Overflow => self.reply(LocalReply::Overload).await,
            Failure::UpstreamGone | Failure::Unreachable => {
                self.reply(LocalReply::ConnectFailure).await
            }
            Failure::BadUpstream => self.reply(LocalReply::BadUpstream).await,
            Failure::UpstreamSlow => self.reply(LocalReply::UpstreamTimeout).await,
        }
    }

    /// Answers instead of an endpoint.
    async fn reply(&mut self, reply: LocalReply<'_>) -> After {
        let mut answer = self.job.answer;
        answer.keep_alive &= self.is_read();
        let connection = &mut *self.connection;
        let unsent = connection.to_upstream.len();
        connection.to_upstream.consume(unsent);
        let out = connection.to_client.vec();
        let at = out.len();
        let keep_alive = reply_to(out, reply, answer);
        if let Some(extra) = &self.job.extra {
            extra.edit_response(out, at);
        }
        if let Some(entry) = &mut connection.entry {
            entry.answered(&out[at..]);
        }
        connection.answered(keep_alive).await
    }
}

// === impl Failure ===

impl Failure {
    /// A request body that did not arrive whole.
    fn of_upload(error: &FlowError) -> Self {
        match error {
            FlowError::Malformed(BodyError::Truncated) | FlowError::Source => Self::ClientGone,
            FlowError::Malformed(_) => Self::BadBody,
            FlowError::Sink => Self::UpstreamGone,
        }
    }

    const fn reason(self) -> Reason {
        match self {
            Self::ClientGone => Reason::CLIENT_GONE,
            Self::ClientSlow => Reason::CLIENT_SLOW,
            Self::BadBody => Reason::BAD_REQUEST,
            Self::Denied => Reason::DENIED,
            Self::AuthFailed => Reason::AUTH_FAILED,
            Self::NoEndpoint => Reason::NO_ENDPOINT,
            Self::Unreachable => Reason::UNREACHABLE,
            Self::Overflow => Reason::OVERFLOW,
            Self::UpstreamGone => Reason::UPSTREAM_GONE,
            Self::BadUpstream => Reason::BAD_UPSTREAM,
            Self::UpstreamSlow => Reason::UPSTREAM_SLOW,
        }
    }

    fn count(self) {
        count(|c| match self {
            Self::ClientGone => c.client_aborts.add(),
            Self::ClientSlow => c.client_timeouts.add(),
            Self::BadBody => c.bad_requests.add(),
            Self::NoEndpoint => c.no_endpoint.add(),
            Self::Denied => c.auth_denied.add(),
            Self::AuthFailed => c.auth_failures.add(),
            // Counted where they happen.
            Self::Overflow | Self::Unreachable => {}
            Self::UpstreamGone => c.upstream_aborts.add(),
            Self::BadUpstream => c.bad_responses.add(),
            Self::UpstreamSlow => c.upstream_timeouts.add(),
        });
    }
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
