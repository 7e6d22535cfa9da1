//! What comes before a request is sent: its body is kept if need be, an auth server is asked, copies are made.
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::super::date::with_date;
use super::super::filter::auth::{self, Question};
use super::super::filter::mirror;
use super::super::limits::KEPT_BYTES;
use super::super::request::SERVER;
use super::super::stats::count;
use super::super::subrequest::{Reply, payload};
use super::{Exchange, Failure};
use crate::api::route::UpstreamProtocol;
use crate::io::reactor::loop_now;
use crate::proto::http1::{
    BodyFraming, HeadEditor, ResponseContext, ResponseTo, write_response_head,
};

// === impl Exchange ===

impl Exchange<'_> {
    /// What the route asks for before the request is sent.
    pub(super) async fn prepare(&mut self) -> Result<(), Failure> {
        let Some(extra) = &self.job.extra else { return Ok(()) };
        if let Some(budget) = extra.route.retry.as_ref().and_then(|retry| retry.budget) {
            self.job.cluster.count_for_budget(loop_now(), &budget);
        }
        let keep = extra.retry.is_some() || !extra.copies.is_empty();
        let shown = extra.question.as_ref().and_then(|question| question.auth.body_limit);
        let head_length = self.connection.to_upstream.len();
        if !self.kept && (keep || shown.is_some()) {
            // Of a body without a length as much as is there: the client may wait for an answer to it.
            let fits = match self.job.framing {
                BodyFraming::Length(length) => length < KEPT_BYTES as u64,
                _ => false,
            };
            let shown = shown.map_or(0, |limit| (limit as usize).min(KEPT_BYTES) + head_length);
            let limit = if keep { shown.max(KEPT_BYTES) } else { shown };
            self.kept = self.collect(limit, fits || shown > 0).await?;
        }
        let plain = self.job.cluster.settings().protocol == UpstreamProtocol::Http2;
        let body = &self.connection.to_upstream.as_slice()[head_length..];
        let body = payload(body, self.job.framing, plain);
        let Some(extra) = &mut self.job.extra else { return Ok(()) };
        let copies = std::mem::take(&mut extra.copies);
        if let Some(question) = extra.question.take() {
            self.await_permission(question, &body).await?;
        }
        for mut copy in copies.into_iter().filter(|_| self.kept) {
            copy.message.body.clone_from(&body);
            mirror::send(copy);
        }
        Ok(())
    }

    /// Asks the auth server; the request stays here until it has agreed.
    async fn await_permission(&mut self, question: Question, body: &[u8]) -> Result<(), Failure> {
        let mut asking = pin!(question.ask(body));
        let asked = poll_fn(|cx| match asking.as_mut().poll(cx) {
            Poll::Ready(verdict) => Poll::Ready(Ok(verdict)),
            Poll::Pending => self.poll_silence(cx).map(Err),
        })
        .await;
        match asked? {
            auth::Verdict::Allowed(changes) => {
                // The head is at the beginning: nothing was sent yet.
                let out = self.connection.to_upstream.vec();
                let mut head = HeadEditor::new(out, 0).ok_or(Failure::AuthFailed)?;
                changes.apply(&mut head);
                Ok(())
            }
            auth::Verdict::Denied(reply) => {
                self.deny(&reply);
                Err(Failure::Denied)
            }
            auth::Verdict::Failed => Err(Failure::AuthFailed),
        }
    }

    /// Puts what the auth server says into `to_client`.
    fn deny(&mut self, reply: &Reply) {
        let answer = self.job.answer;
        let keep_alive = answer.keep_alive && self.is_read();
        let before = self.connection.to_client.len();
        let out = self.connection.to_client.vec();
        let at = out.len();
        let to = ResponseTo { head: answer.head, upgrade: false };
        let sent = auth::with_head(&reply.head, to, |head| {
            let mut head = *head;
            let bodyless = answer.head || head.status == 204 || head.status == 304;
            if !bodyless {
                head.framing = BodyFraming::Length(reply.body.len() as u64);
            }
            count(|c| c.response(head.status));
            let sent = with_date(|date| {
                let context = ResponseContext {
                    client_version: answer.version,
                    keep_alive,
                    server: SERVER,
                    date,
                    service_time_ms: None,
                };
                write_response_head(out, &head, &context)
            });
            if !bodyless {
                out.extend_from_slice(&reply.body);
            }
            sent.keep_alive
        });
        if let Some(extra) = &self.job.extra {
            extra.edit_response(out, at);
        }
        if let Some(entry) = &mut self.connection.entry {
            entry.answered(&self.connection.to_client.as_slice()[before..]);
        }
        self.job.answer.keep_alive = sent.unwrap_or_default();
    }
}
