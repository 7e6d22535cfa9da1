//! Readiness: one edge-triggered epoll instance per thread, and timers.
//!
//! A descriptor is registered once, for input, output and hang-up, and never again: the kernel reports
//! edges, and [`AsyncFd`] remembers the level. A read that returns less than was asked for clears the
//! level, so there are no reads that only find out that there is nothing (see `feasibility`: this is
//! what makes the loop fast).
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::kernel::Time;

/// Events taken from the kernel in one call.
const EVENTS_PER_WAIT: usize = 256;

thread_local! {
    static REACTOR: Rc<Reactor> = Rc::new(Reactor::new());
}

struct Reactor {
    epoll: RefCell<Option<OwnedFd>>,
    sources: RefCell<Vec<Option<Rc<Source>>>>,
    free: RefCell<Vec<usize>>,
    timers: RefCell<BTreeMap<(Time, u64), Waker>>,
    next_timer: Cell<u64>,
}

struct Source {
    index: Cell<usize>,
    readable: Cell<bool>,
    writable: Cell<bool>,
    hung_up: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

/// A non-blocking descriptor on this thread's loop.
pub struct AsyncFd {
    source: Rc<Source>,
    fd: OwnedFd,
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
            sources: RefCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            timers: RefCell::new(BTreeMap::new()),
            next_timer: Cell::new(0),
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
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut sources = self.sources.borrow_mut();
            sources.push(None);
            sources.len() - 1
        });
        let source = Rc::new(Source {
            index: Cell::new(index),
            readable: Cell::new(false),
            writable: Cell::new(false),
            hung_up: Cell::new(false),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        });
        #[expect(clippy::cast_sign_loss, reason = "the flags are a bit set")]
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: index as u64 };
        // SAFETY: both descriptors are open, `event` is valid for the call.
        let result =
            unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if result < 0 {
            self.free.borrow_mut().push(index);
            return Err(io::Error::last_os_error());
        }
        self.sources.borrow_mut()[index] = Some(Rc::clone(&source));
        Ok(source)
    }

    fn forget(&self, source: &Source) {
        let index = source.index.get();
        self.sources.borrow_mut()[index] = None;
        self.free.borrow_mut().push(index);
    }

    fn wait(&self, timeout_millis: i32) -> io::Result<()> {
        let epoll = self.epoll()?;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
        // SAFETY: `events` has room for EVENTS_PER_WAIT entries.
        let count = unsafe {
            libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS_PER_WAIT as i32, timeout_millis)
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        };
        for event in &events[..count] {
            let index = usize::try_from(event.u64).unwrap_or(usize::MAX);
            // A source forgotten while this batch is worked off may have been replaced by a new one of
            // the same index: it then sees a readiness that is not its own and finds out by EAGAIN.
            let source = self.sources.borrow().get(index).and_then(Option::clone);
            if let Some(source) = source {
                source.wake(event.events);
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

    fn next_timer(&self) -> Option<Time> {
        self.timers.borrow().first_key_value().map(|((at, _), _)| *at)
    }
}

impl Source {
    #[expect(clippy::cast_sign_loss, reason = "the flags are a bit set")]
    fn wake(&self, events: u32) {
        let down = events & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0;
        let half = events & libc::EPOLLRDHUP as u32 != 0;
        if down || half {
            self.hung_up.set(true);
        }
        if down || half || events & libc::EPOLLIN as u32 != 0 {
            self.readable.set(true);
            if let Some(waker) = self.reader.borrow_mut().take() {
                waker.wake();
            }
        }
        if down || events & libc::EPOLLOUT as u32 != 0 {
            self.writable.set(true);
            if let Some(waker) = self.writer.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

/// Waits for readiness until `deadline` or the next timer, and wakes what has become ready.
pub(super) fn wait(now: Time, deadline: Option<Time>) {
    REACTOR.with(|reactor| {
        let until = [deadline, reactor.next_timer()].into_iter().flatten().min();
        let millis = until.map_or(-1, |until| {
            // Rounded up: waking a millisecond late is better than spinning for the last one.
            let millis = until.since(now).as_nanos().div_ceil(1_000_000);
            i32::try_from(millis).unwrap_or(i32::MAX)
        });
        if let Err(error) = reactor.wait(millis) {
            log::error!("waiting for input failed: {error}");
        }
        reactor.fire_timers(super::clock::now());
    });
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
    pub fn is_hung_up(&self) -> bool {
        self.source.hung_up.get()
    }

    /// Whether a read is worth trying.
    pub fn is_readable(&self) -> bool {
        self.source.readable.get()
    }

    /// Says that a read has found nothing more: the next [`AsyncFd::poll_readable`] waits for an edge.
    pub fn clear_readable(&self) {
        self.source.readable.set(false);
    }

    /// Says that a write was not taken in full: the next [`AsyncFd::poll_writable`] waits for an edge.
    pub fn clear_writable(&self) {
        self.source.writable.set(false);
    }

    /// Ready when a read is worth trying.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.readable.get() {
            return Poll::Ready(());
        }
        register_waker(&self.source.reader, cx);
        Poll::Pending
    }

    /// Ready when a write is worth trying.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.source.writable.get() {
            return Poll::Ready(());
        }
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
}

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
        // Closing the descriptor takes it out of the epoll set.
        REACTOR.with(|reactor| reactor.forget(&self.source));
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
            REACTOR.with(|reactor| reactor.timers.borrow_mut().remove(&key));
        }
    }
}
