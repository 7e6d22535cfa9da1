//! Readiness: one edge-triggered epoll instance per thread, timers, and coarse deadlines.
//!
//! A descriptor is registered once, for input, output and hang-up, and never again: the kernel reports
//! edges, and [`AsyncFd`] remembers the level. A read that returns less than was asked for clears the
//! level, so there are no reads that only find out that there is nothing (see `feasibility`: this is
//! what makes the loop fast).
//!
//! Timeouts of connections are [`AsyncFd::set_deadline`]: one store per change, looked at by a sweep over
//! all descriptors about once a second. A [`Timer`] is exact and costs a tree operation.
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::kernel::Time;

/// Events taken from the kernel in one call: 12 KiB on the stack. What happens on the LAN stands behind at most
/// this many busy connections per turn.
const EVENTS_PER_WAIT: usize = 1024;

/// How often deadlines are looked at. A deadline is noticed this much late at most.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

const READABLE: u16 = 1;
const WRITABLE: u16 = 2;
/// The peer has closed its sending side.
const READ_CLOSED: u16 = 4;
/// The connection is down in both directions.
const DOWN: u16 = 8;
/// The deadline has passed.
const EXPIRED: u16 = 16;
/// The reader's waker waits for input.
const READER_WAITS: u16 = 32;
/// The writer's waker waits for output.
const WRITER_WAITS: u16 = 64;
/// Urgent data has arrived at some time: a short read says nothing any more.
const URGENT: u16 = 128;
/// The connection has ended by an error, such as a reset.
const FAILED: u16 = 256;

thread_local! {
    static REACTOR: Reactor = const { Reactor::new() };
}

struct Reactor {
    epoll: RefCell<Option<OwnedFd>>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    timers: RefCell<BTreeMap<(Time, u64), Waker>>,
    next_timer: Cell<u64>,
    /// Descriptors that have ever had a deadline: without any there is no sweep.
    watched: Cell<usize>,
    next_sweep: Cell<Time>,
    now: Cell<Time>,
}

#[derive(Default)]
struct Slot {
    /// Counts the users of this slot, so that an event for a former one is recognised.
    generation: u32,
    source: Option<Rc<Source>>,
}

struct Source {
    index: u32,
    flags: Cell<u16>,
    watched: Cell<bool>,
    deadline: Cell<Time>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

/// A non-blocking descriptor on this thread's loop.
pub struct AsyncFd {
    source: Rc<Source>,
    fd: OwnedFd,
}

/// Wakes whoever waits on an [`AsyncFd`], without owning it.
#[derive(Clone)]
pub struct WakeHandle {
    source: Rc<Source>,
}

/// A timer on this thread's loop; a future that is ready at its time.
pub struct Timer {
    at: Time,
    key: Option<(Time, u64)>,
}

// === impl Reactor ===

impl Reactor {
    const fn new() -> Self {
        Self {
            epoll: RefCell::new(None),
            slots: RefCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            timers: RefCell::new(BTreeMap::new()),
            next_timer: Cell::new(0),
            watched: Cell::new(0),
            next_sweep: Cell::new(Time::ZERO),
            now: Cell::new(Time::ZERO),
        }
    }

    fn epoll(&self) -> io::Result<i32> {
        let mut epoll = self.epoll.borrow_mut();
        if let Some(fd) = &*epoll {
            return Ok(fd.as_raw_fd());
        }
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and belongs to nobody else.
        *epoll = Some(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(fd)
    }

    fn register(&self, fd: BorrowedFd<'_>) -> io::Result<Rc<Source>> {
        let epoll = self.epoll()?;
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            // There are fewer descriptors than 2^31.
            (slots.len() - 1) as u32
        });
        let slot = &mut slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let key = u64::from(slot.generation) << 32 | u64::from(index);
        #[expect(clippy::cast_sign_loss, reason = "the flags are a bit set")]
        let events =
            (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET)
                as u32;
        let mut event = libc::epoll_event { events, u64: key };
        // SAFETY: both descriptors are open, `event` is valid for the call.
        let result =
            unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if result < 0 {
            self.free.borrow_mut().push(index);
            return Err(io::Error::last_os_error());
        }
        let source = Rc::new(Source {
            index,
            flags: Cell::new(0),
            watched: Cell::new(false),
            deadline: Cell::new(Time::MAX),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        });
        slot.source = Some(Rc::clone(&source));
        Ok(source)
    }

    /// Closing the descriptor takes it out of the epoll set, unless it has been duplicated: then its
    /// events go on and are recognised by the generation.
    fn forget(&self, source: &Source) {
        self.slots.borrow_mut()[source.index as usize].source = None;
        self.free.borrow_mut().push(source.index);
        if source.watched.get() {
            self.watched.set(self.watched.get() - 1);
        }
    }

    fn wait(&self, timeout_millis: i32) -> io::Result<()> {
        let epoll = self.epoll()?;
        let mut events =
            [const { std::mem::MaybeUninit::<libc::epoll_event>::uninit() }; EVENTS_PER_WAIT];
        // SAFETY: `events` has room for EVENTS_PER_WAIT entries.
        let count = unsafe {
            libc::epoll_wait(
                epoll,
                events.as_mut_ptr().cast(),
                EVENTS_PER_WAIT as i32,
                timeout_millis,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        };
        let slots = self.slots.borrow();
        for event in &events[..count] {
            // SAFETY: the kernel has written the first `count` entries.
            let event = unsafe { event.assume_init() };
            let (generation, index) = ((event.u64 >> 32) as u32, event.u64 as u32);
            // Waking only queues a task: nothing is registered or forgotten in this loop.
            if let Some(slot) = slots.get(index as usize)
                && slot.generation == generation
                && let Some(source) = &slot.source
            {
                source.ready(event.events);
            }
        }
        Ok(())
    }

    fn fire_timers(&self, now: Time) {
        loop {
            let mut timers = self.timers.borrow_mut();
            let Some(entry) = timers.first_entry() else { break };
            if entry.key().0 > now {
                break;
            }
            let waker = entry.remove();
            drop(timers);
            waker.wake();
        }
    }

    fn sweep(&self, now: Time) {
        if self.watched.get() == 0 || now < self.next_sweep.get() {
            return;
        }
        self.next_sweep.set(now + SWEEP_INTERVAL);
        for slot in &*self.slots.borrow() {
            if let Some(source) = &slot.source
                && source.deadline.get() <= now
                && !source.has(EXPIRED)
            {
                source.set(EXPIRED);
                source.wake_all();
            }
        }
    }

    fn next_wake(&self) -> Option<Time> {
        let timer = self.timers.borrow().first_key_value().map(|((at, _), _)| *at);
        let sweep = (self.watched.get() > 0).then(|| self.next_sweep.get());
        [timer, sweep].into_iter().flatten().min()
    }
}

// === impl Source ===

impl Source {
    #[inline]
    fn has(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }

    #[inline]
    fn set(&self, flag: u16) {
        self.flags.set(self.flags.get() | flag);
    }

    #[inline]
    fn clear(&self, flag: u16) {
        self.flags.set(self.flags.get() & !flag);
    }

    #[inline]
    fn ready(&self, events: u32) {
        const IN: u32 = libc::EPOLLIN as u32;
        const PRI: u32 = libc::EPOLLPRI as u32;
        const OUT: u32 = libc::EPOLLOUT as u32;
        const HALF: u32 = libc::EPOLLRDHUP as u32;
        const ERR: u32 = libc::EPOLLERR as u32;
        const BOTH: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;
        let mut flags = self.flags.get();
        if events & (IN | HALF | BOTH) != 0 {
            flags |= READABLE;
        }
        if events & (OUT | BOTH) != 0 {
            flags |= WRITABLE;
        }
        if events & PRI != 0 {
            flags |= URGENT;
        }
        if events & HALF != 0 {
            flags |= READ_CLOSED;
        }
        if events & BOTH != 0 {
            flags |= READ_CLOSED | DOWN;
        }
        if events & ERR != 0 {
            self.flags.set(flags | FAILED);
            // Whoever waits for something else on this connection waits in vain.
            return self.wake_all();
        }
        let read = flags & (READABLE | READER_WAITS) == READABLE | READER_WAITS;
        let write = flags & (WRITABLE | WRITER_WAITS) == WRITABLE | WRITER_WAITS;
        if read {
            flags &= !READER_WAITS;
        }
        if write {
            flags &= !WRITER_WAITS;
        }
        self.flags.set(flags);
        if read && let Some(waker) = &*self.reader.borrow() {
            waker.wake_by_ref();
        }
        if write && let Some(waker) = &*self.writer.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wake_all(&self) {
        for waker in [&self.reader, &self.writer] {
            if let Some(waker) = &*waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

/// Waits for readiness until `deadline` or the next timer, and wakes what has become ready.
pub(super) fn wait(now: Time, deadline: Option<Time>) {
    REACTOR.with(|reactor| {
        let until = match deadline {
            Some(Time::ZERO) => deadline,
            _ => [deadline, reactor.next_wake()].into_iter().flatten().min(),
        };
        let millis = until.map_or(-1, |until| {
            // Rounded up: waking a millisecond late is better than spinning for the last one.
            let millis = until.since(now).as_nanos().div_ceil(1_000_000);
            i32::try_from(millis).unwrap_or(i32::MAX)
        });
        if let Err(error) = reactor.wait(millis) {
            log::error!("waiting for input failed: {error}");
        }
        let now = super::clock::now();
        reactor.now.set(now);
        reactor.fire_timers(now);
        reactor.sweep(now);
    });
}

/// The time at which the loop last woke: exact enough for deadlines and service times, and free.
#[inline]
pub fn loop_now() -> Time {
    let now = REACTOR.with(|reactor| reactor.now.get());
    if now == Time::ZERO { super::clock::now() } else { now }
}

// === impl AsyncFd ===

impl AsyncFd {
    /// Puts a descriptor, which must be non-blocking, on this thread's loop.
    ///
    /// # Errors
    /// The kernel's, such as too many watches.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let source = REACTOR.with(|reactor| reactor.register(fd.as_fd()))?;
        Ok(Self { source, fd })
    }

    /// Whether the peer has closed its sending side, or the whole connection is down.
    #[inline]
    pub fn is_hung_up(&self) -> bool {
        self.source.has(READ_CLOSED)
    }

    /// Whether urgent data has arrived at some time. Reading stops where it is, however much follows, and splicing
    /// does not get past it.
    #[inline]
    pub fn has_urgent(&self) -> bool {
        self.source.has(URGENT)
    }

    /// Whether the connection is down in both directions, by an error or a reset.
    #[inline]
    pub fn is_down(&self) -> bool {
        self.source.has(DOWN)
    }

    /// Whether it has ended by an error. What had arrived before can still be read.
    #[inline]
    pub fn has_failed(&self) -> bool {
        self.source.has(FAILED)
    }

    /// Whether a read is worth trying.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.source.has(READABLE)
    }

    /// Says that a read has found nothing more: the next [`AsyncFd::poll_readable`] waits for an edge.
    #[inline]
    pub fn clear_readable(&self) {
        self.source.clear(READABLE);
    }

    /// Says that a write was not taken in full: the next [`AsyncFd::poll_writable`] waits for an edge.
    #[inline]
    pub fn clear_writable(&self) {
        self.source.clear(WRITABLE);
    }

    /// Ready when a read is worth trying.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.has(READABLE) {
            return Poll::Ready(());
        }
        self.source.set(READER_WAITS);
        register_waker(&self.source.reader, cx);
        Poll::Pending
    }

    /// Ready when a write is worth trying.
    #[inline]
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.has(WRITABLE) {
            return Poll::Ready(());
        }
        self.source.set(WRITER_WAITS);
        register_waker(&self.source.writer, cx);
        Poll::Pending
    }

    /// Waits until a read is worth trying.
    pub async fn readable(&self) {
        poll_fn(|cx| self.poll_readable(cx)).await;
    }

    /// Waits until a write is worth trying.
    pub async fn writable(&self) {
        poll_fn(|cx| self.poll_writable(cx)).await;
    }

    /// From `at` on (up to [`SWEEP_INTERVAL`] later) [`AsyncFd::poll_expired`] is ready, until another
    /// deadline is set. [`Time::MAX`] is none.
    #[inline]
    pub fn set_deadline(&self, at: Time) {
        self.source.deadline.set(at);
        self.source.clear(EXPIRED);
        if !self.source.watched.replace(true) {
            REACTOR.with(|reactor| reactor.watched.set(reactor.watched.get() + 1));
        }
    }

    /// Ready when the deadline has passed.
    #[inline]
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.has(EXPIRED) {
            return Poll::Ready(());
        }
        register_waker(&self.source.reader, cx);
        Poll::Pending
    }

    /// A handle that wakes the task that waits on this descriptor.
    pub fn wake_handle(&self) -> WakeHandle {
        WakeHandle { source: Rc::clone(&self.source) }
    }
}

impl WakeHandle {
    /// Wakes the tasks that wait, or have waited, on the descriptor.
    pub fn wake(&self) {
        self.source.wake_all();
    }
}

#[inline]
fn register_waker(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &mut *slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

impl AsFd for AsyncFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for AsyncFd {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl Drop for AsyncFd {
    fn drop(&mut self) {
        // The wakers would keep the task's memory.
        let wakers = (self.source.reader.take(), self.source.writer.take());
        // The thread's reactor may be gone already when the thread ends.
        let _ = REACTOR.try_with(|reactor| reactor.forget(&self.source));
        drop(wakers);
    }
}

// === impl Timer ===

impl Timer {
    /// A timer for the moment `at`.
    pub const fn at(at: Time) -> Self {
        Self { at, key: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if super::clock::now() >= self.at {
            return Poll::Ready(());
        }
        REACTOR.with(|reactor| {
            let at = self.at;
            let key = *self.key.get_or_insert_with(|| {
                let id = reactor.next_timer.get();
                reactor.next_timer.set(id + 1);
                (at, id)
            });
            reactor.timers.borrow_mut().insert(key, cx.waker().clone());
        });
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let _ = REACTOR.try_with(|reactor| reactor.timers.borrow_mut().remove(&key));
        }
    }
}
