//! The object store: what was read, what was made from it, and what everybody has found out about it.
//!
//! Some objects are made from others (a Service for an Ingress, EndpointSlices for a Service), by the
//! endpoint and route servers. When objects change, those two are told first; their objects are merged,
//! and only when nothing changes any more do IPAM and announce see the result. So addresses are given
//! out over complete snapshots, the same on every node. Objects and tables that are equal to what was
//! there keep their `Arc`, so that receivers can tell at a glance what has changed.
//!
//! In: `Source` from manifests, `Statuses` from everybody. Out: `Objects` to endpoint, route, IPAM and
//! announce, `View` to admin.
mod merge;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use merge::merge;
use view::Views;

use crate::api::objects::Objects;
use crate::api::problem::Problem;
use crate::api::query::View;
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::kernel::{Outbox, Retired, Server, ServerId, Time};

/// Those who make objects from objects.
const MAKERS: [ServerId; 2] = [wiring::ENDPOINT, wiring::ROUTE];
/// Those who want to see complete snapshots only.
const USERS: [ServerId; 3] = [wiring::SERVICE, wiring::IPAM, wiring::ANNOUNCE];

/// How often the makers are asked before the users see the snapshot even though it still changes. What
/// is made is made from what was read, so twice is enough; more would be a loop of two makers.
const MAX_ROUNDS: u32 = 4;

/// The server; see the module.
pub struct StoreServer {
    unix_at_zero: Duration,
    source: Option<Arc<Objects>>,
    statuses: BTreeMap<ServerId, Arc<Statuses>>,
    /// Since when something has come in that has not been worked in.
    changed: Option<Time>,
    /// What the makers have seen last.
    objects: Arc<Objects>,
    /// What the users have seen last.
    settled: Option<Arc<Objects>>,
    /// What they have seen before.
    retired: Retired<Objects>,
    rounds: u32,
    /// Generated objects that could not be taken.
    refused: Vec<Problem>,
    views: Views,
    /// Who sees them.
    viewers: &'static [ServerId],
    view: Option<Arc<View>>,
}

// === impl StoreServer ===

impl StoreServer {
    /// A server that knows nothing yet. `unix_at_zero` is what the clock of the day showed (since 1970)
    /// when the monotonic clock showed [`Time::ZERO`].
    /// `viewers` see all there is to show.
    pub fn new(unix_at_zero: Duration, viewers: &'static [ServerId]) -> Self {
        Self {
            unix_at_zero,
            viewers,
            source: None,
            statuses: BTreeMap::new(),
            changed: None,
            objects: Arc::default(),
            settled: None,
            retired: Retired::default(),
            rounds: 0,
            refused: Vec::new(),
            views: Views::default(),
            view: None,
        }
    }

    fn update(&mut self, now: Time, out: &mut Outbox<Message>) {
        let Some(source) = &self.source else { return self.show_what_stands_in_the_way(now, out) };
        let merged = merge(source, &self.statuses, &self.objects);
        self.refused = merged.refused;
        let first = self.settled.is_none() && self.rounds == 0;
        if merged.changed || first {
            self.objects = Arc::new(merged.objects);
            self.rounds += 1;
            for maker in MAKERS {
                out.send(maker, Message::Objects(Arc::clone(&self.objects)));
            }
            if self.rounds < MAX_ROUNDS {
                // What the makers make of it is here when the next tick comes.
                self.changed = Some(now);
                return;
            }
        }
        self.settle(now, out);
    }

    /// There are no objects yet. People see why; nobody else does, who would take it for "there are none".
    fn show_what_stands_in_the_way(&mut self, now: Time, out: &mut Outbox<Message>) {
        let unix = (self.unix_at_zero + now.since(Time::ZERO)).as_secs();
        if self.views.update(&self.statuses, &self.refused, unix) {
            let view = Arc::new(self.views.view(Arc::clone(&self.objects)));
            out.send(wiring::ADMIN, Message::View(view));
        }
    }

    fn settle(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.rounds = 0;
        if !self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, &self.objects)) {
            let former = self.settled.replace(Arc::clone(&self.objects));
            former.into_iter().for_each(|former| self.retired.add(now, former));
            for user in USERS {
                out.send(user, Message::Objects(Arc::clone(&self.objects)));
            }
        }
        let unix = (self.unix_at_zero + now.since(Time::ZERO)).as_secs();
        if self.views.update(&self.statuses, &self.refused, unix) || !self.view_is_current() {
            let view = Arc::new(self.views.view(Arc::clone(&self.objects)));
            self.view = Some(Arc::clone(&view));
            for viewer in self.viewers {
                out.send(*viewer, Message::View(Arc::clone(&view)));
            }
        }
    }

    fn view_is_current(&self) -> bool {
        self.view.as_ref().is_some_and(|view| Arc::ptr_eq(&view.objects, &self.objects))
    }
}

impl Server<Message> for StoreServer {
    fn handle(&mut self, now: Time, from: ServerId, message: Message, _out: &mut Outbox<Message>) {
        match message {
            Message::Source(source) => self.source = Some(source),
            Message::Statuses(statuses) => {
                self.statuses.insert(from, statuses);
            }
            _ => return,
        }
        self.changed.get_or_insert(now);
    }

    /// What comes in together (all peers speak at once after a restart) is worked in together.
    fn timeout(&self) -> Option<Time> {
        [self.changed, self.retired.timeout()].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.retired.sweep(now);
        if self.changed.take().is_some() {
            self.update(now, out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        let objects = if MAKERS.contains(&peer) && (self.settled.is_some() || self.rounds > 0) {
            Some(&self.objects)
        } else if USERS.contains(&peer) {
            self.settled.as_ref()
        } else {
            None
        };
        if let Some(objects) = objects {
            out.send(peer, Message::Objects(Arc::clone(objects)));
        }
        if let Some(view) = &self.view
            && self.viewers.contains(&peer)
        {
            out.send(peer, Message::View(Arc::clone(view)));
        }
    }
}
