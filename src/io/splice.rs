//! Bytes from one socket to another without a copy in user space: splice(2) by way of a pipe, which holds references to
//! the pages that the network has filled.
//!
//! A pipe is taken when bytes are there to be moved, filled once, emptied, and given back: what waits holds none. So it
//! is always known what EAGAIN means, which splice says both of a socket that has nothing and of a pipe that is full: a
//! pipe is only filled while it is empty, and only emptied while it is not.
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use super::tcp::TcpStream;

/// What a pipe takes at once. It bounds the bytes that wait in front of a slow receiver.
pub const PIPE_BYTES: usize = 128 * 1024;
/// Pipes at a time, two descriptors each; who finds none copies. The kernel lets a user without CAP_SYS_RESOURCE have
/// 64 MiB of pipes (`fs.pipe-user-pages-soft`), and smaller ones beyond: half of that.
pub const PIPES: usize = 256;
/// Empty pipes kept for the next who need one: as many transfers as make progress at the same time.
const POOLED_PIPES: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    /// Those in the pool included.
    static OPEN: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(PIPES) };
}

/// A pipe on loan. Dropped empty it goes back to the pool; dropped with something in it, it is closed.
pub struct Pipe {
    ends: Option<Ends>,
    filled: usize,
}

/// Counted in `OPEN` until dropped.
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// Bounds the pipes of this thread to a thirty-second of `descriptors`, two for each, and to [`PIPES`].
pub fn set_limit(descriptors: u64) {
    LIMIT.set(usize::try_from(descriptors / 32).unwrap_or(PIPES).min(PIPES));
}

/// How many pipes this thread has open, and how many of those are in the pool; for the tests.
pub fn open() -> (usize, usize) {
    (OPEN.get(), POOL.with_borrow(Vec::len))
}

// === impl Pipe ===

impl Pipe {
    /// An empty pipe; None if there are as many as there may be, or no descriptor is left.
    pub fn take() -> Option<Self> {
        let ends = match POOL.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None if OPEN.get() >= LIMIT.get() => return None,
            None => Ends::open().inspect_err(|error| log::debug!("no pipe: {error}")).ok()?,
        };
        Some(Self { ends: Some(ends), filled: 0 })
    }

    /// How many bytes are in it.
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes up to [`PIPE_BYTES`] from a socket, into a pipe that must be empty; 0 is the end of the stream. It stops
    /// before urgent data, where only receiving goes on ([`AsyncFd::has_urgent`](super::reactor::AsyncFd::has_urgent)).
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty(), "EAGAIN would not tell whether the pipe is full");
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            ready!(from.fd().poll_readable(cx));
            match splice(from.fd().as_raw_fd(), ends.write.as_raw_fd(), PIPE_BYTES) {
                Ok(got) => {
                    // Less than was asked for does not say that the socket is empty: a pipe has as many places as pages
                    // fit, and a small segment takes one.
                    self.filled = got;
                    return Poll::Ready(Ok(got));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    from.fd().clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Hands all that is in the pipe to a socket; ready when it is empty. How far it has come shows in [`Pipe::len`].
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while self.filled > 0 {
            ready!(to.fd().poll_writable(cx));
            // Not more than there is: the kernel would hold back the last segment for what is to follow.
            match splice(ends.read.as_raw_fd(), to.fd().as_raw_fd(), self.filled) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => self.filled -= sent.min(self.filled),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    to.fd().clear_writable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.filled > 0 {
            return;
        }
        if let Some(ends) = self.ends.take() {
            // The thread's pool may be gone already when the thread ends.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < POOLED_PIPES {
                    pool.push(ends);
                }
            });
        }
    }
}

// === impl Ends ===

impl Ends {
    fn open() -> io::Result<Self> {
        let mut fds = [-1; 2];
        // SAFETY: there is room for the two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were just created and belong to nobody else.
        let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        // If the user has too many already the kernel refuses: then it is a smaller one.
        // SAFETY: no pointers.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int) };
        OPEN.set(OPEN.get() + 1);
        Ok(Self { read, write })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = OPEN.try_with(|open| open.set(open.get() - 1));
    }
}

/// One of the two is a pipe. A receiver that is gone is `EPIPE`; the signal for it is ignored in every Rust program.
fn splice(from: i32, to: i32, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut::<libc::loff_t>();
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: no offsets are given; the kernel touches no memory of ours.
    let moved = unsafe { libc::splice(from, none, to, none, most, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
