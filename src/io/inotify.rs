//! inotify(7): the kernel's notes about changes in directories.
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::reactor::AsyncFd;

/// What is asked for: every way in which a file can get new content, come, or go. Not IN_MODIFY: a file
/// that is still being written is not to be read.
const MASK: u32 = libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_ATTRIB;

/// One read takes this many bytes of events: about a hundred.
const BUFFER: usize = 8192;

/// The fixed part of `struct inotify_event`: wd, mask, cookie, len.
const HEADER: usize = 16;

/// The kernel's number of a watched directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WatchId(i32);

/// One note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The directory.
    pub watch: WatchId,
    /// `libc::IN_…` bits.
    pub mask: u32,
    /// The file in it; empty if the directory itself is meant.
    pub name: OsString,
}

/// A set of watched directories.
pub struct Inotify {
    fd: AsyncFd,
    reader: std::fs::File,
}

// === impl Inotify ===

impl Inotify {
    /// An empty set, on this thread's loop.
    ///
    /// # Errors
    /// The kernel's, such as too many instances (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let reader = std::fs::File::from(fd.try_clone()?);
        Ok(Self { fd: AsyncFd::new(fd)?, reader })
    }

    /// Watches a directory; the same number again if it is watched already.
    ///
    /// # Errors
    /// The kernel's, such as too many watches (`fs.inotify.max_user_watches`).
    pub fn watch(&self, directory: &Path) -> io::Result<WatchId> {
        use std::os::fd::AsRawFd;
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let mask = MASK | libc::IN_ONLYDIR;
        // SAFETY: the descriptor is open, the path a valid C string; the result is checked.
        let id = unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), mask) };
        if id < 0 { Err(io::Error::last_os_error()) } else { Ok(WatchId(id)) }
    }

    /// Ends a watch.
    pub fn forget(&self, watch: WatchId) {
        use std::os::fd::AsRawFd;
        // SAFETY: no pointers. It fails if the directory is gone, and with it the watch: as wanted.
        unsafe { libc::inotify_rm_watch(self.fd.as_raw_fd(), watch.0) };
    }

    /// Waits until there is something to read.
    pub async fn readable(&self) {
        self.fd.readable().await;
    }

    /// All that has been noted so far.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer = [0; BUFFER];
        loop {
            match self.reader.read(&mut buffer) {
                Ok(length) if length > 0 => parse(&buffer[..length], &mut events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        self.fd.clear_readable();
        events
    }
}

fn parse(mut bytes: &[u8], events: &mut Vec<Event>) {
    while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = usize::try_from(word(12)).unwrap_or(usize::MAX);
        let Some((name, rest)) = rest.split_at_checked(length) else { break };
        // The name is filled up with zero bytes.
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        events.push(Event {
            watch: WatchId(word(0).cast_signed()),
            mask: word(4),
            name: OsString::from_vec(name.to_vec()),
        });
        bytes = rest;
    }
}
