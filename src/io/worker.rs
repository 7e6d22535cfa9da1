//! A second thread with an event loop and a kernel of its own, for work that must not hold up the first.
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use super::event_loop::EventLoop;
use super::reactor::AsyncFd;
use crate::kernel::{self, Driver, Kernel, Lane, Link, Message, ServerId, Time};

/// How much less of a contended processor the thread gets than one of the default priority: a third (setpriority(2)). On
/// a machine with one core requests and adverts go first, and a new configuration is still there in good time.
const NICE: i32 = 5;

/// Wakes the event loop of another thread: an eventfd(2) that is never read, for each write is an edge.
#[derive(Clone)]
pub struct LoopWaker {
    fd: Arc<OwnedFd>,
}

// === impl LoopWaker ===

impl LoopWaker {
    /// A waker that wakes nothing yet.
    ///
    /// # Errors
    /// The kernel's: no descriptors are left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Lets it wake this thread's loop from now on, as long as what is returned lives.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(&self) -> io::Result<AsyncFd> {
        AsyncFd::new(self.fd.try_clone()?)
    }

    /// Wakes the loop.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // A counter that is full (after 2^64 calls) would wake nobody; everything else cannot fail.
        // SAFETY: `one` is valid for the call, the descriptor is open.
        let _ = unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// One of two kernels: how it is connected to the other, and how it is woken.
struct Half<M> {
    link: Link<M>,
    waker: LoopWaker,
}

// === impl Half ===

impl<M: Message> Half<M> {
    fn both(first: &'static [ServerId], second: &'static [ServerId]) -> io::Result<[Self; 2]> {
        let wakers = [LoopWaker::new()?, LoopWaker::new()?];
        let lanes = wakers.each_ref().map(|waker| {
            let waker = waker.clone();
            Arc::new(Lane::new(move || waker.wake()))
        });
        let [first_waker, second_waker] = wakers;
        let half = |elsewhere, to: usize, from: usize, waker| Self {
            link: Link { elsewhere, to: Arc::clone(&lanes[to]), from: Arc::clone(&lanes[from]) },
            waker,
        };
        Ok([half(second, 1, 0, first_waker), half(first, 0, 1, second_waker)])
    }

    /// Makes `kernel` this half, on this thread, as long as what is returned lives.
    fn connect(self, kernel: &mut Kernel<M>) -> io::Result<AsyncFd> {
        let attached = self.waker.attach()?;
        kernel.connect(self.link);
        Ok(attached)
    }
}

/// The second thread.
pub struct Second {
    ending: Arc<AtomicBool>,
    waker: LoopWaker,
    thread: JoinHandle<()>,
    /// So that the first one is woken.
    _attached: AsyncFd,
}

/// The driver of the second thread, which ends when the first one says so.
struct SecondLoop(Arc<AtomicBool>);

// === impl Second ===

impl Second {
    /// Ends it when it has done what it is doing, and waits for that.
    pub fn end(self) {
        self.ending.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.thread.join();
    }
}

impl Driver for SecondLoop {
    fn now(&self) -> Time {
        EventLoop.now()
    }

    fn run_tasks(&mut self) -> bool {
        EventLoop.run_tasks()
    }

    fn wait(&mut self, deadline: Option<Time>) {
        EventLoop.wait(deadline);
    }

    fn stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Adds the servers `here` of those that `wire` adds to `kernel`, starts a thread at a lower priority with a kernel for
/// those `there`, and returns when all have done what they can do without input. If the thread ends by itself, so does
/// the program: half of it would be a node that promises what it cannot keep.
///
/// # Errors
/// Those of `wire`, and the kernel's: no descriptors or threads are left.
pub fn split<M: Message>(
    kernel: &mut Kernel<M>,
    here: &'static [ServerId],
    there: &'static [ServerId],
    wire: impl Fn(&mut Kernel<M>) -> io::Result<()> + Send + 'static,
) -> io::Result<Second> {
    let [here, there] = Half::both(here, there)?;
    let waker = there.waker.clone();
    let _attached = here.connect(kernel)?;
    wire(kernel)?;
    let ending = Arc::new(AtomicBool::new(false));
    let mut driver = SecondLoop(Arc::clone(&ending));
    let (started, is_started) = channel();
    let run = move || -> io::Result<()> {
        let mut kernel = Kernel::new();
        let _attached = there.connect(&mut kernel)?;
        wire(&mut kernel)?;
        kernel::settle(&mut kernel, &driver);
        let _ = started.send(());
        kernel::run(&mut kernel, &mut driver);
        Ok(())
    };
    let run = move || {
        lower_priority();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => log::error!("{error}"),
            Err(_) => {} // the panic has been printed
        }
        log::error!("the second thread has died, and so does the program");
        process::exit(1);
    };
    let thread = std::thread::Builder::new().name("objects".to_owned()).spawn(run)?;
    kernel::settle(kernel, &EventLoop);
    // An error is the end of the other thread, and so of the program.
    let _ = is_started.recv();
    kernel::settle(kernel, &EventLoop);
    Ok(Second { ending, waker, thread, _attached })
}

/// For the calling thread. Without the right to it nothing else is worse than it was.
fn lower_priority() {
    // SAFETY: no pointers. 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } < 0 {
        log::debug!("the second thread's priority stays: {}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock;
    use crate::io::event_loop::EventLoop;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    #[test]
    fn a_sleeping_loop_is_woken_each_time() {
        let waker = LoopWaker::new().unwrap();
        let _attached = waker.attach().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let (other, seen) = (waker.clone(), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            for turn in 0..100 {
                while seen.load(Ordering::Acquire) <= turn {
                    std::thread::yield_now();
                }
                other.wake();
            }
        });
        // The first look finds that the descriptor can be written.
        EventLoop.wait(Some(Time::ZERO));
        let begun = clock::now();
        for turn in 0..100 {
            asked.store(turn + 1, Ordering::Release);
            EventLoop.wait(Some(begun + Duration::from_secs(60)));
        }
        thread.join().unwrap();
        assert!(clock::now() < begun + Duration::from_secs(60));
    }
}
