//! Copies of requests: sent beside the request, their answers ignored. A copy never holds up or breaks the request it is
//! made of.
//!
//! A request is copied whole or not at all: bodies above [`KEPT_BYTES`](super::super::limits::KEPT_BYTES), and those
//! without a length that have not arrived with their head, are not kept, and such requests are not mirrored.
use std::cell::Cell;
use std::rc::Rc;

use super::super::cluster::Cluster;
use super::super::limits::{MIRROR_TIMEOUT, MIRRORS_IN_FLIGHT};
use super::super::stats::count;
use super::super::subrequest::{Message, ask};
use crate::api::route::Mirror;
use crate::io::reactor::loop_now;
use crate::io::{event_loop, random};

/// A copy that is to be sent once the request is allowed and its body is there.
pub(in super::super) struct Copy {
    pub(in super::super) cluster: Rc<Cluster>,
    /// Its body follows.
    pub(in super::super) message: Message,
}

thread_local! {
    static IN_FLIGHT: Cell<usize> = const { Cell::new(0) };
}

/// A copy's place among those in flight.
struct Place;

/// Whether this request is among those that are copied.
pub(in super::super) fn is_due(mirror: &Mirror) -> bool {
    let (share, of) = mirror.fraction;
    share >= of || random::next() % u64::from(of.max(1)) < u64::from(share)
}

/// Sends a copy, if there are not too many on their way.
pub(in super::super) fn send(copy: Copy) {
    if IN_FLIGHT.get() >= MIRRORS_IN_FLIGHT {
        return count(|c| c.mirrors_dropped.add());
    }
    IN_FLIGHT.set(IN_FLIGHT.get() + 1);
    count(|c| c.mirrors.add());
    let place = Place;
    event_loop::spawn_connection(async move {
        let _place = place;
        // The answer is read, so that the endpoint is not disturbed, and thrown away.
        ask(&copy.cluster, copy.message, loop_now() + MIRROR_TIMEOUT, 0).await;
    })
    .detach();
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = IN_FLIGHT.try_with(|count| count.set(count.get() - 1));
    }
}
