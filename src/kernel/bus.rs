use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::lane::{Lane, Letter, Link};
use super::supervisor::Restarts;
use super::{Mailbox, Message, Outbox, Server, ServerId, Time};

/// How many letters one call of [`Kernel::step`] delivers at most, so that a chatty pair of servers
/// cannot keep the loop from its sockets and timers.
const LETTERS_PER_STEP: usize = 256;

/// How many letters tasks outside the servers may have waiting; more are refused and counted.
const OUTSIDE_CAPACITY: usize = 4096;

/// One line of the wiring table: who a server is, whom it may talk to, and how it is built (again).
pub struct Wiring<M: Message> {
    /// The server's place and priority.
    pub id: ServerId,
    /// Its name in messages and in `pilus status`.
    pub name: &'static str,
    /// To whom it may send. A letter to anyone else is a bug: it is dropped, counted and logged.
    pub may_send: &'static [ServerId],
    /// How many letters may wait for it.
    pub mailbox: usize,
    /// Builds it, at the start and after each crash.
    pub build: Box<dyn Fn() -> Box<dyn Server<M>>>,
}

/// Whether a server is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It takes messages.
    Running,
    /// It has crashed and is built again at this time.
    Restarting(Time),
}

/// What the kernel knows about one server.
#[derive(Debug, Clone)]
pub struct ServerReport {
    /// Its place in the wiring table.
    pub id: ServerId,
    /// Its name in the wiring table.
    pub name: &'static str,
    /// Alive or not.
    pub state: ServerState,
    /// Crashes since the program started.
    pub crashes: u64,
    /// The text of the last panic.
    pub last_panic: Option<String>,
    /// Messages handled.
    pub handled: u64,
    /// Letters waiting.
    pub waiting: usize,
    /// Letters refused because the mailbox was full or the sender not allowed.
    pub refused: u64,
}

struct Slot<M: Message> {
    wiring: Wiring<M>,
    server: Option<Box<dyn Server<M>>>,
    mailbox: Mailbox<M>,
    restarts: Restarts,
    restart_at: Time,
    forbidden: u64,
    handled: u64,
    last_panic: Option<String>,
    crash_next: bool,
}

struct Outside<M> {
    letters: RefCell<VecDeque<(ServerId, ServerId, M)>>,
    refused: Cell<u64>,
    reports: RefCell<Vec<ServerReport>>,
    /// What comes from the other kernel, if there is one.
    lane: RefCell<Option<Arc<Lane<M>>>>,
}

/// A handle with which tasks on the loop (sockets, connections) send to servers.
pub struct Mailer<M> {
    from: ServerId,
    outside: Rc<Outside<M>>,
}

/// All servers and their mailboxes.
pub struct Kernel<M: Message> {
    slots: Vec<Slot<M>>,
    outside: Rc<Outside<M>>,
    link: Option<Link<M>>,
    started: bool,
    /// Nothing is to be done before this, unless mail arrives: the loop turns thousands of times a second
    /// for its connections, and must not ask every server each time.
    idle_until: Time,
}

// === impl Mailer ===

impl<M> Clone for Mailer<M> {
    fn clone(&self) -> Self {
        Self { from: self.from, outside: Rc::clone(&self.outside) }
    }
}

impl<M: Message> Mailer<M> {
    /// Sends `message` to `to` as the server this handle belongs to. Returns false if too many letters
    /// wait already.
    pub fn send(&self, to: ServerId, message: M) -> bool {
        let mut letters = self.outside.letters.borrow_mut();
        if letters.len() >= OUTSIDE_CAPACITY {
            self.outside.refused.set(self.outside.refused.get() + 1);
            return false;
        }
        letters.push_back((self.from, to, message));
        true
    }

    /// The report on every server, those of the other kernel included, as of the last steps.
    pub fn reports(&self) -> Vec<ServerReport> {
        let mut reports = self.outside.reports.borrow().clone();
        if let Some(lane) = &*self.outside.lane.borrow() {
            reports.extend(lane.reports());
            reports.sort_by_key(|report| report.id);
        }
        reports
    }
}

// === impl Kernel ===

impl<M: Message> Kernel<M> {
    /// A kernel without servers.
    pub fn new() -> Self {
        let outside = Outside {
            letters: RefCell::new(VecDeque::new()),
            refused: Cell::new(0),
            reports: RefCell::new(Vec::new()),
            lane: RefCell::new(None),
        };
        Self {
            slots: Vec::new(),
            outside: Rc::new(outside),
            link: None,
            started: false,
            idle_until: Time::ZERO,
        }
    }

    /// Connects this kernel to another one, to be called before servers are added.
    pub fn connect(&mut self, link: Link<M>) {
        *self.outside.lane.borrow_mut() = Some(Arc::clone(&link.from));
        self.link = Some(link);
    }

    /// Whether the server `id` is to run here, and not in the other kernel.
    pub fn has_place_for(&self, id: ServerId) -> bool {
        self.link.as_ref().is_none_or(|link| !link.elsewhere.contains(&id))
    }

    /// A handle that sends in the name of `from`.
    pub fn mailer(&self, from: ServerId) -> Mailer<M> {
        Mailer { from, outside: Rc::clone(&self.outside) }
    }

    /// Adds a server, unless it runs in the other kernel. It is built by the first [`Kernel::step`].
    pub fn add(&mut self, wiring: Wiring<M>) {
        if !self.has_place_for(wiring.id) {
            return;
        }
        let mailbox = Mailbox::new(wiring.mailbox);
        self.slots.push(Slot {
            wiring,
            server: None,
            mailbox,
            restarts: Restarts::default(),
            restart_at: Time::ZERO,
            forbidden: 0,
            handled: 0,
            last_panic: None,
            crash_next: false,
        });
        self.slots.sort_by_key(|slot| slot.wiring.id);
    }

    /// Makes the server panic in the next step; how the tests prove that the others go on.
    pub fn crash_next_call(&mut self, id: ServerId) {
        if let Some(at) = self.index(id) {
            self.slots[at].crash_next = true;
            self.idle_until = Time::ZERO;
        }
    }

    /// Builds what is due, delivers letters in order of priority, and calls the timers that are due.
    /// Returns when the next call is needed if nothing arrives from outside: `now` itself if letters
    /// are left.
    pub fn step(&mut self, now: Time) -> Option<Time> {
        if now < self.idle_until && !self.has_mail() {
            return (self.idle_until != Time::MAX).then_some(self.idle_until);
        }
        self.build_due(now);
        self.collect_outside(now);
        self.run_timers(now);
        for _ in 0..LETTERS_PER_STEP {
            let Some(at) = self.next_receiver() else { break };
            let Some((from, message)) = self.slots[at].mailbox.pop() else { break };
            self.slots[at].handled += 1;
            self.call(at, now, |server, out| server.handle(now, from, message, out));
            self.collect_outside(now);
        }
        self.update_reports();
        let next = self.next_timeout(now);
        self.idle_until = next.unwrap_or(Time::MAX);
        next
    }

    /// The state of every server, in order of priority.
    pub fn reports(&self) -> Vec<ServerReport> {
        self.slots.iter().map(Slot::report).collect()
    }

    /// Whether tasks outside the servers, or the other kernel, have left letters since the last step.
    pub fn has_mail(&self) -> bool {
        let from_other = self.link.as_ref().is_some_and(|link| link.from.has_mail());
        from_other || !self.outside.letters.borrow().is_empty()
    }

    fn index(&self, id: ServerId) -> Option<usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.wiring.id).ok()
    }

    fn next_receiver(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.server.is_some() && !slot.mailbox.is_empty())
    }

    fn build_due(&mut self, now: Time) {
        let first = !self.started;
        self.started = true;
        let due: Vec<usize> = (0..self.slots.len())
            .filter(|&at| self.slots[at].server.is_none() && self.slots[at].restart_at <= now)
            .collect();
        for &at in &due {
            let slot = &mut self.slots[at];
            slot.restarts.started(now);
            match catch_unwind(AssertUnwindSafe(|| (slot.wiring.build)())) {
                Ok(server) => slot.server = Some(server),
                Err(panic) => self.crashed(at, now, panic.as_ref()),
            }
        }
        for at in due {
            self.call(at, now, |server, out| server.start(now, out));
            if !first && self.slots[at].server.is_some() {
                self.announce_restart(at, now);
            }
        }
    }

    fn announce_restart(&mut self, at: usize, now: Time) {
        let peer = self.slots[at].wiring.id;
        self.peer_restarted(peer, now);
        if let Some(link) = &self.link {
            link.to.push(Letter::Restarted(peer));
        }
    }

    fn peer_restarted(&mut self, peer: ServerId, now: Time) {
        for other in 0..self.slots.len() {
            let wiring = &self.slots[other].wiring;
            if wiring.id != peer && wiring.may_send.contains(&peer) {
                self.call(other, now, |server, out| server.peer_restarted(now, peer, out));
            }
        }
    }

    fn run_timers(&mut self, now: Time) {
        for at in 0..self.slots.len() {
            if self.slots[at].crash_next {
                self.call(at, now, |_, _| {});
            }
            let due = self.slots[at].server.as_ref().and_then(|server| server.timeout());
            if due.is_some_and(|due| due <= now) {
                self.call(at, now, |server, out| server.tick(now, out));
            }
        }
    }

    fn call(
        &mut self,
        at: usize,
        now: Time,
        call: impl FnOnce(&mut dyn Server<M>, &mut Outbox<M>),
    ) {
        let slot = &mut self.slots[at];
        let Some(mut server) = slot.server.take() else { return };
        let crash = std::mem::take(&mut slot.crash_next);
        let mut out = Outbox::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            assert!(!crash, "crashed on purpose");
            call(server.as_mut(), &mut out);
        }));
        match result {
            Ok(()) => {
                slot.server = Some(server);
                let from = slot.wiring.id;
                for (to, message) in out.letters {
                    self.deliver(from, to, message);
                }
            }
            Err(panic) => {
                // A destructor that panics as well must not take the loop down.
                drop(catch_unwind(AssertUnwindSafe(move || drop(server))));
                self.crashed(at, now, panic.as_ref());
            }
        }
    }

    fn crashed(&mut self, at: usize, now: Time, panic: &(dyn std::any::Any + Send)) {
        let slot = &mut self.slots[at];
        slot.mailbox.clear();
        slot.restart_at = slot.restarts.crashed(now);
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic without a text".to_owned());
        log::error!(
            "server {} died and is restarted in {:?}: {text}",
            slot.wiring.name,
            slot.restart_at.since(now)
        );
        slot.last_panic = Some(text);
    }

    fn collect_outside(&mut self, now: Time) {
        loop {
            let letter = self.outside.letters.borrow_mut().pop_front();
            let Some((from, to, message)) = letter else { break };
            self.deliver(from, to, message);
        }
        let Some(lane) = self.link.as_ref().map(|link| &link.from) else { return };
        if !lane.has_mail() {
            return;
        }
        for letter in lane.take() {
            match letter {
                // Whether it may be sent was checked where it comes from.
                Letter::Message(from, to, message) => {
                    if let Some(at) = self.index(to) {
                        self.slots[at].push(from, message);
                    }
                }
                Letter::Restarted(peer) => self.peer_restarted(peer, now),
            }
        }
    }

    fn deliver(&mut self, from: ServerId, to: ServerId, message: M) {
        let (at, sender) = (self.index(to), self.index(from));
        if at.is_none() && self.has_place_for(to) {
            return; // it does not run at all
        }
        let name = message.name();
        let may_send = |at: usize| self.slots[at].wiring.may_send.contains(&to);
        if from != to && !sender.is_some_and(may_send) {
            if let Some(at) = at.or(sender) {
                self.slots[at].forbidden += 1;
            }
            log::error!(
                "bug: server {from:?} sent {name} to {to:?}, which the wiring table forbids"
            );
            debug_assert!(false, "{from:?} may not send {name} to {to:?}");
        } else if let Some(at) = at {
            self.slots[at].push(from, message);
        } else if let Some(link) = &self.link
            && !link.to.push(Letter::Message(from, to, message))
        {
            log::warn!("too many letters wait for the other thread: {name} for {to:?} refused");
        }
    }

    fn next_timeout(&self, now: Time) -> Option<Time> {
        if self.next_receiver().is_some() {
            return Some(now);
        }
        let due = |slot: &Slot<M>| match &slot.server {
            Some(server) => server.timeout(),
            None => Some(slot.restart_at),
        };
        self.slots.iter().filter_map(due).min()
    }

    fn update_reports(&self) {
        let mut reports = self.outside.reports.borrow_mut();
        reports.clear();
        reports.extend(self.slots.iter().map(Slot::report));
        if let Some(link) = &self.link {
            link.to.set_reports(&reports);
        }
    }
}

impl<M: Message> Default for Kernel<M> {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Slot ===

impl<M: Message> Slot<M> {
    /// Puts a letter into its mailbox, if it is alive.
    fn push(&mut self, from: ServerId, message: M) {
        let name = message.name();
        if self.server.is_some() && !self.mailbox.push(from, message) {
            log::warn!("the mailbox of {} is full: {name} refused", self.wiring.name);
        }
    }

    fn report(&self) -> ServerReport {
        ServerReport {
            id: self.wiring.id,
            name: self.wiring.name,
            state: match self.server {
                Some(_) => ServerState::Running,
                None => ServerState::Restarting(self.restart_at),
            },
            crashes: self.restarts.total(),
            last_panic: self.last_panic.clone(),
            handled: self.handled,
            waiting: self.mailbox.len(),
            refused: self.mailbox.refused() + self.forbidden,
        }
    }
}
