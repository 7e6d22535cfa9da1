//! Requests that this proxy makes itself, beside those it forwards: to auth servers, and copies for mirrors.
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::cluster::{Cluster, Lease, Wish};
use super::connect::connect;
use super::dial::Call;
use super::flow::Flow;
use super::limits::{CONNECT_ATTEMPTS, FIRST_CONNECT_TIMEOUT};
use super::upstream::Upstream;
use crate::io::random;
use crate::io::reactor::{Timer, loop_now};
use crate::kernel::Time;
use crate::proto::http1::reuse::UpstreamExchange;
use crate::proto::http1::{
    BodyDecoder, BodyFraming, HeadProgress, HeaderSlots, MAX_INTERIM_RESPONSES, Parsed, ResponseTo,
    parse_response,
};

/// A request with its whole body.
pub(super) struct Message {
    /// The head without its last line, and without framing.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) to: ResponseTo,
}

/// What an endpoint has answered.
pub(super) struct Reply {
    /// The head of the final response, as it came.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// What of the body was not needed is missing.
    pub(super) cut: bool,
}

/// Asks one of the endpoints, once: what may have arrived is not sent again, but on a kept connection that turns out to
/// be closed. None: no whole answer until `until`. Of its body at most `most` bytes are taken.
pub(super) async fn ask(
    cluster: &Rc<Cluster>,
    message: Message,
    until: Time,
    most: usize,
) -> Option<Reply> {
    let Message { head: mut bytes, body, to } = message;
    if !body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    let mut timer = Some(Timer::at(until));
    let mut may_reuse = true;
    loop {
        let (mut upstream, lease) = reach(cluster, may_reuse, &mut timer).await?;
        let mut talk = Talk {
            bytes: &bytes,
            sent: 0,
            to,
            most,
            interim: 0,
            progress: HeadProgress::default(),
            answer: None,
        };
        let ended = poll_fn(|cx| match talk.poll(cx, &mut upstream) {
            Poll::Ready(whole) => Poll::Ready(Some(whole)),
            Poll::Pending => {
                let late = timer.as_mut().is_some_and(|t| Pin::new(t).poll(cx).is_ready());
                if late { Poll::Ready(None) } else { Poll::Pending }
            }
        })
        .await;
        if ended == Some(false) && upstream.reused && talk.is_unanswered(&upstream) && may_reuse {
            may_reuse = false;
            continue;
        }
        let failed = ended != Some(true);
        lease.report(loop_now(), failed);
        let answer = talk.answer.filter(|_| !failed)?;
        answer.keep(upstream);
        return Some(answer.reply);
    }
}

/// A connection to an endpoint.
async fn reach(
    cluster: &Rc<Cluster>,
    may_reuse: bool,
    timer: &mut Option<Timer>,
) -> Option<(Upstream, Lease)> {
    let mut avoid = None;
    for _ in 0..cluster.members().len().min(CONNECT_ATTEMPTS) {
        let wish = Wish {
            now: loop_now(),
            affinity: random::next(),
            avoid: avoid.as_ref(),
            random: random::next,
        };
        let lease = cluster.lease(cluster.pick(&wish)?)?;
        if may_reuse && let Some(upstream) = lease.member.host.take_idle(true) {
            return Some((upstream, lease));
        }
        let call = Call { raw: false, from: None };
        if let Ok(upstream) = connect(&lease.member, call, None, FIRST_CONNECT_TIMEOUT, timer).await
        {
            return Some((upstream, lease));
        }
        lease.report(loop_now(), true);
        avoid = Some(Rc::clone(&lease.member));
    }
    None
}

/// An exchange with an endpoint.
struct Talk<'b> {
    bytes: &'b [u8],
    sent: usize,
    to: ResponseTo,
    most: usize,
    interim: u8,
    progress: HeadProgress,
    answer: Option<Answer>,
}

struct Answer {
    reply: Reply,
    decoder: BodyDecoder,
    keep_alive: bool,
}

// === impl Talk ===

impl Talk<'_> {
    fn is_unanswered(&self, upstream: &Upstream) -> bool {
        self.answer.is_none() && self.interim == 0 && upstream.input.is_empty()
    }

    /// Ready when it is over; true if the answer is whole, or as much of it as is wanted.
    fn poll(&mut self, cx: &mut Context<'_>, upstream: &mut Upstream) -> Poll<bool> {
        while self.sent < self.bytes.len() {
            match upstream.stream.poll_send(cx, [&self.bytes[self.sent..], &[], &[]]) {
                Poll::Ready(Ok(taken)) => self.sent += taken,
                // It may have answered without reading on.
                Poll::Ready(Err(_)) => self.sent = self.bytes.len(),
                Poll::Pending => break,
            }
            if self.sent == self.bytes.len() {
                upstream.stream.finish(&[]);
            }
        }
        if self.sent == self.bytes.len() {
            let _ = upstream.stream.poll_flush(cx);
        }
        loop {
            match self.take(upstream) {
                None => return Poll::Ready(false),
                Some(true) => return Poll::Ready(true),
                Some(false) => {}
            }
            match ready!(upstream.stream.poll_recv(cx, &mut upstream.input)) {
                Ok(got) if got > 0 => {}
                Ok(_) => {
                    let ended = |a: &mut Answer| a.decoder.end_of_stream().is_ok();
                    return Poll::Ready(self.answer.as_mut().is_some_and(ended));
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    }

    /// Takes in what has arrived: whether that is all. None: it is no HTTP.
    fn take(&mut self, upstream: &mut Upstream) -> Option<bool> {
        while self.answer.is_none() {
            let mut slots = HeaderSlots::new();
            let input = upstream.input.as_slice();
            let (head, consumed) =
                match parse_response(input, self.to, &mut slots, &mut self.progress).ok()? {
                    Parsed::Partial => return Some(false),
                    Parsed::Complete(head, consumed) => (head, consumed),
                };
            if head.is_switch() {
                return None;
            }
            if head.is_interim() {
                self.interim += 1;
                if self.interim > MAX_INTERIM_RESPONSES {
                    return None;
                }
            } else {
                let framing = Flow::received(head.framing, upstream.stream.is_http2());
                let reply =
                    Reply { head: input[..consumed].to_vec(), body: Vec::new(), cut: false };
                let decoder = BodyDecoder::new(framing);
                self.answer = Some(Answer { reply, decoder, keep_alive: head.keep_alive });
            }
            upstream.input.consume(consumed);
            self.progress.reset();
        }
        let answer = self.answer.as_mut()?;
        while !upstream.input.is_empty() && !answer.decoder.is_done() {
            let input = upstream.input.as_slice();
            let part = answer.decoder.decode(input).ok()?;
            answer.reply.body.extend_from_slice(&input[part.data]);
            upstream.input.consume(part.consumed);
            if answer.reply.body.len() > self.most {
                answer.reply.body.truncate(self.most);
                answer.reply.cut = true;
                return Some(true);
            }
        }
        Some(answer.decoder.is_done())
    }
}

// === impl Answer ===

impl Answer {
    /// Keeps the connection, if its exchange is over.
    fn keep(&self, mut upstream: Upstream) {
        let exchange = UpstreamExchange {
            keep_alive: self.keep_alive,
            request_body_sent: true,
            response_body_received: self.decoder.is_done() && !self.reply.cut,
            bytes_left: upstream.input.len(),
            upgraded: false,
        };
        if exchange.verdict().is_ok() {
            upstream.input.release();
            upstream.keep();
        }
    }
}

/// The payload of a body that was kept as it is sent: with the framing of HTTP/1.1, or as plain bytes.
pub(super) fn payload(mut kept: &[u8], framing: BodyFraming, plain: bool) -> Vec<u8> {
    if plain || framing != BodyFraming::Chunked {
        return kept.to_vec();
    }
    let mut decoder = BodyDecoder::new(framing);
    let mut payload = Vec::with_capacity(kept.len());
    // We have written it ourselves; what does not decode is not there yet.
    while let Ok(part) = decoder.decode(kept)
        && part.consumed > 0
    {
        payload.extend_from_slice(&kept[part.data]);
        kept = &kept[part.consumed..];
    }
    payload
}
