//! Two kernels of one program, each on a thread of its own: what one sends to servers of the other.
//!
//! The servers do not notice. Letters of one sender to one receiver arrive in the order in which they were sent, and
//! a whole state that waits is replaced by the next one, as in a [`super::Mailbox`]; so a kernel that is busy for
//! long finds the newest of everything, and the lane stays short.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Message, ServerId, ServerReport};

/// How many letters may wait. Whole states take one place each; events are bounded by the sockets they come from, and
/// what is refused is repaired by the next one as if the LAN had lost it.
const CAPACITY: usize = 4096;

/// What travels.
pub(super) enum Letter<M> {
    /// A message, with its sender and its receiver.
    Message(ServerId, ServerId, M),
    /// This server has died and was built anew.
    Restarted(ServerId),
}

/// One direction between two kernels.
pub struct Lane<M> {
    letters: Mutex<VecDeque<Letter<M>>>,
    /// Whether letters wait; so that looking costs no lock.
    waiting: AtomicBool,
    /// The sending kernel's report on its servers, as of its last step.
    reports: Mutex<Vec<ServerReport>>,
    /// Wakes the receiving thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// How a kernel is connected to the other one.
pub struct Link<M> {
    /// The servers of the other kernel.
    pub elsewhere: &'static [ServerId],
    /// What is sent there.
    pub to: Arc<Lane<M>>,
    /// What comes from there.
    pub from: Arc<Lane<M>>,
}

// === impl Lane ===

impl<M: Message> Lane<M> {
    /// An empty lane. `wake` must make the receiving thread call [`super::Kernel::step`] soon.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            letters: Mutex::default(),
            waiting: AtomicBool::new(false),
            reports: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    /// Whether letters wait.
    pub(super) fn has_mail(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Puts a letter in. Returns false if it was refused because too many wait.
    pub(super) fn push(&self, letter: Letter<M>) -> bool {
        let mut letters = lock(&self.letters);
        let superseded = letters.iter().position(|old| letter.supersedes(old));
        // Dropped only when others can go on: it may be large.
        let superseded = superseded.and_then(|at| letters.remove(at));
        let fits = letters.len() < CAPACITY;
        if fits {
            letters.push_back(letter);
        }
        let was_waiting = self.waiting.swap(true, Ordering::Release);
        drop(letters);
        drop(superseded);
        if !was_waiting {
            (self.wake)();
        }
        fits
    }

    /// Takes all letters.
    pub(super) fn take(&self) -> VecDeque<Letter<M>> {
        let mut letters = lock(&self.letters);
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut *letters)
    }

    pub(super) fn set_reports(&self, reports: &[ServerReport]) {
        reports.clone_into(&mut lock(&self.reports));
    }

    pub(super) fn reports(&self) -> Vec<ServerReport> {
        lock(&self.reports).clone()
    }
}

// === impl Letter ===

impl<M: Message> Letter<M> {
    fn supersedes(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::Message(from, to, new), Self::Message(old_from, old_to, old)) => {
                from == old_from && to == old_to && new.supersedes(old)
            }
            _ => false,
        }
    }
}

/// No code that can panic runs under these locks, but for comparisons of messages: what they guard is whole anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
