//! Connections to endpoints on behalf of requests and tunnels: whose turn it is, how long one waits, what a failure means.
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::cluster::{Cluster, Lease, Member, Wish};
use super::connection::Connection;
use super::dial::Call;
use super::http2::{self, Turn};
use super::limits::{CONNECT_ATTEMPTS, CONNECT_TIMEOUT, DEAD_AFTER, FIRST_CONNECT_TIMEOUT};
use super::probe;
use super::stats::count;
use super::stream::Stream;
use super::upstream::Upstream;
use crate::api::route::UpstreamProtocol;
use crate::io::random;
use crate::io::reactor::{Timer, loop_now};
use crate::proto::maglev;

/// Why there is no connection to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreached {
    Failed,
    /// The time of the request, or of the attempt, was over before.
    Late,
}

/// Connects to an endpoint of `cluster`, for a tunnel.
pub(super) async fn connect_any(
    connection: &Connection,
    cluster: &Rc<Cluster>,
) -> Option<(Upstream, Lease)> {
    let client = &connection.client;
    let call = Call { raw: true, from: Some(connection.origin()) };
    let mut avoid = None;
    let attempts = cluster.members().len().min(CONNECT_ATTEMPTS);
    for attempt in 1..=attempts {
        let wish = Wish {
            now: loop_now(),
            affinity: maglev::affinity(connection.peer.ip()),
            avoid: avoid.as_ref(),
            random: random::next,
        };
        let Some(lease) = cluster.lease(cluster.pick(&wish)?) else {
            count(|c| c.upstream_overflows.add());
            return None;
        };
        let patience = if attempt < attempts { FIRST_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        if let Ok(upstream) = connect(&lease.member, call, Some(client), patience, &mut None).await
        {
            return Some((upstream, lease));
        }
        lease.report(loop_now(), true);
        avoid = Some(Rc::clone(&lease.member));
    }
    count(|c| c.no_endpoint.add());
    None
}

/// A new connection to an endpoint, within `patience` and while `timer` runs; `client` is whom it is for, if anybody.
pub(super) async fn connect(
    member: &Rc<Member>,
    call: Call,
    client: Option<&Stream>,
    patience: Duration,
    timer: &mut Option<Timer>,
) -> Result<Upstream, Unreached> {
    let began = loop_now();
    if let Some(client) = client {
        client.set_deadline(began + patience);
    }
    let mut is_late_now = false;
    // Connections of clients have deadlines already, which cost less.
    let mut alone = client.is_none().then(|| Timer::at(began + patience));
    let host = &member.host;
    let shares =
        host.dial.protocol == UpstreamProtocol::Http2 && !call.raw && !host.dial.is_personal();
    let (mut turn, mut connecting) = (None, None);
    let connected = poll_fn(|cx| {
        // A connection for many is made by one of those who want it.
        if shares && turn.is_none() {
            match http2::poll_turn(host, cx) {
                Turn::Shared(stream) => return Poll::Ready(Ok(Upstream::shared(stream, host))),
                Turn::Mine(mine) => turn = Some(mine),
                Turn::Wait => {}
            }
        }
        if connecting.is_none() && (turn.is_some() || !shares) {
            connecting = Some(host.dial.connect(host.address, call)?);
        }
        if let Some(connecting) = &mut connecting
            && let Poll::Ready(connected) = connecting.poll(cx)
        {
            let (stream, input) = connected?;
            return Poll::Ready(Ok(Upstream::fresh(stream, input, host, call.raw)));
        }
        is_late_now = is_late(timer, cx);
        let expired = client.is_some_and(|client| client.poll_expired(cx).is_ready())
            || is_late(&mut alone, cx);
        if is_late_now || expired {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    })
    .await;
    match connected {
        Ok(upstream) => {
            member.set_dead(false);
            Ok(upstream)
        }
        Err(error) => {
            let error: io::Error = error;
            count(|c| c.upstream_connect_failures.add());
            log::debug!("cannot connect to {}: {error}", member.host.address);
            // That it had no time to answer says nothing.
            if !is_late_now || loop_now().since(began) >= DEAD_AFTER {
                probe::bury(member);
            }
            Err(if is_late_now { Unreached::Late } else { Unreached::Failed })
        }
    }
}

/// Whether a timer that runs has gone off.
pub(super) fn is_late(timer: &mut Option<Timer>, cx: &mut Context<'_>) -> bool {
    timer.as_mut().is_some_and(|timer| Pin::new(timer).poll(cx).is_ready())
}
