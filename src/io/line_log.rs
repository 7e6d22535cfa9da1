//! Whole lines to standard output or a file, from a loop that must not wait for either.
//!
//! The loop copies a line into a ring of bytes and goes on; a thread of its own writes what is there, and is the only
//! one that waits. Non-blocking writes from the loop would not do: a file on a slow disk has none, and O_NONBLOCK on
//! standard output is a property of what we share with whoever started us, whose own writes would begin to fail. The
//! ring has one writer and one reader, so there is no lock; when it is full a line is lost as a whole and counted.
use std::cell::{Cell, UnsafeCell};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Thread};
use std::time::Duration;

/// Bytes that may wait: what ten thousand lines a second are in 50 ms, which is longer than a disk takes that is not
/// in trouble. A power of two, so that a position becomes an index by masking.
pub const RING_BYTES: usize = 256 * 1024;
/// How long lines are collected before they are written together: then a busy log costs a few hundred system calls a
/// second, and one that is looked at still seems to be live.
const COLLECT: Duration = Duration::from_millis(5);
/// The writer has no deep calls.
const WRITER_STACK: usize = 64 * 1024;
/// Others than the owner's group have no business in a log of who has asked for what.
const FILE_MODE: u32 = 0o640;

/// The end that lines are given to. One thread at a time may: it can be sent, not shared.
pub struct LineLog {
    ring: Arc<Ring>,
    writer: Thread,
    /// Closed when the writer has ended.
    ended: Receiver<()>,
    _one_thread: PhantomData<Cell<()>>,
}

/// What has been lost since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Lines that could not be written.
    pub lines: u64,
    /// Writes that failed.
    pub failures: u64,
}

struct Ring {
    bytes: Box<[UnsafeCell<u8>]>,
    /// How many bytes were ever put in; wraps around.
    head: AtomicUsize,
    /// How many were ever taken out.
    tail: AtomicUsize,
    /// The writer waits for the first line.
    asleep: AtomicBool,
    reopen: AtomicBool,
    end: AtomicBool,
    lost_lines: AtomicU64,
    failures: AtomicU64,
}

// SAFETY: `bytes` is what is not Sync of itself. Between tail and head it is read by the writer's thread only, elsewhere
// written by the one that has the LineLog only; the positions are handed over with Release and Acquire.
unsafe impl Sync for Ring {}

/// Where the writer writes.
struct Output {
    file: File,
    /// None is standard output.
    path: Option<PathBuf>,
    /// The last write has failed, and that was said.
    failing: bool,
    /// What was written last is not the end of a line.
    mid_line: bool,
    /// Its rest was lost: before anything else it has to be ended.
    torn: bool,
    /// What was lost last is not the end of a line: what comes first is the rest of it.
    skipping: bool,
}

/// Opens the file, or standard output, and starts the writer.
///
/// # Errors
/// The file's: see [`describe`]. Or there can be no more threads.
pub fn open(path: Option<&Path>) -> io::Result<LineLog> {
    let file = match path {
        Some(path) => open_file(path)?,
        None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
    };
    LineLog::start(Output {
        file,
        path: path.map(Into::into),
        failing: false,
        mid_line: false,
        torn: false,
        skipping: false,
    })
}

/// Appends to the file; one that is made is closed to others whatever the umask says.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A pipe that nobody reads must not hold up the start: opening it fails then.
    options.append(true).mode(FILE_MODE).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.create(true).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Whether the file could be opened, without making it.
///
/// # Errors
/// What opening it would meet.
pub fn probe(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            may_create_in(path.parent().unwrap_or(path))
        }
        other => other.map(drop),
    }
}

fn may_create_in(directory: &Path) -> io::Result<()> {
    let name = std::ffi::CString::new(directory.as_os_str().as_bytes())?;
    let (mode, flags) = (libc::W_OK | libc::X_OK, libc::AT_EACCESS);
    // SAFETY: `name` ends with a zero byte and lives through the call.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), mode, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What is wrong with a file that cannot be opened, and what to do.
pub fn describe(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().unwrap_or(path).display();
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("make the directory {directory}, or name a file in one that there is")
        }
        io::ErrorKind::PermissionDenied => {
            format!("let the user the agent runs as write to {directory}")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "under systemd the agent may write to /var/log/pilus and to what ReadWritePaths= names"
                .to_owned()
        }
        io::ErrorKind::IsADirectory => "name a file in it".to_owned(),
        _ => "name another file".to_owned(),
    };
    format!("{} cannot be written to: {error}; {advice}", path.display())
}

// === impl LineLog ===

impl LineLog {
    fn start(output: Output) -> io::Result<Self> {
        let ring = Arc::new(Ring::new());
        let (end, ended) = channel();
        let own = Arc::clone(&ring);
        let writer = thread::Builder::new().name("access-log".into()).stack_size(WRITER_STACK);
        let writer = writer.spawn(move || write_lines(&own, output, end))?.thread().clone();
        Ok(Self { ring, writer, ended, _one_thread: PhantomData })
    }

    /// Takes a line, which is given in parts and ends with a line feed. False: there is no room for it.
    pub fn push(&self, parts: [&[u8]; 3]) -> bool {
        let Some(used) = self.ring.push(parts) else { return false };
        // A writer that collects is called before the ring is full.
        let half = RING_BYTES / 2;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let fills = used >= half && used - length < half;
        if fills || self.ring.asleep.load(Ordering::SeqCst) {
            self.writer.unpark();
        }
        true
    }

    /// What was lost behind the ring since this was last called.
    #[inline]
    pub fn losses(&self) -> Losses {
        let take = |count: &AtomicU64| match count.load(Ordering::Relaxed) {
            0 => 0,
            _ => count.swap(0, Ordering::Relaxed),
        };
        Losses { lines: take(&self.ring.lost_lines), failures: take(&self.ring.failures) }
    }

    /// Has the writer close the file and open what has its name now, once all lines that were given are written.
    pub fn reopen(&self) {
        self.ring.reopen.store(true, Ordering::SeqCst);
        self.writer.unpark();
    }

    /// Waits until everything is written, at most so long.
    pub fn finish(&self, patience: Duration) {
        self.end();
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(patience) {
            log::warn!("the last lines of the access log could not be written in time");
        }
    }

    fn end(&self) {
        self.ring.end.store(true, Ordering::SeqCst);
        self.writer.unpark();
    }
}

impl Drop for LineLog {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Ring ===

impl Ring {
    fn new() -> Self {
        Self {
            bytes: (0..RING_BYTES).map(|_| UnsafeCell::new(0)).collect(),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            end: AtomicBool::new(false),
            lost_lines: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Puts the parts in, if there is room for all; how many bytes are in it then.
    fn push(&self, parts: [&[u8]; 3]) -> Option<usize> {
        let head = self.head.load(Ordering::Relaxed);
        let used = head.wrapping_sub(self.tail.load(Ordering::Acquire));
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if length > RING_BYTES - used {
            return None;
        }
        let mut at = head;
        for part in parts {
            let start = at & (RING_BYTES - 1);
            let (first, second) = part.split_at(part.len().min(RING_BYTES - start));
            for (bytes, to) in [(first, start), (second, 0)] {
                // SAFETY: from `to` on there is room for `bytes` before the end of the ring, and it is not between tail
                // and head: nobody else touches it until head is moved.
                unsafe { self.place(to).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            }
            at = at.wrapping_add(part.len());
        }
        self.head.store(at, Ordering::SeqCst);
        Some(used + length)
    }

    /// The byte at `index` and those that follow it.
    fn place(&self, index: usize) -> *mut u8 {
        UnsafeCell::raw_get(self.bytes.as_ptr().wrapping_add(index))
    }

    fn is_empty(&self) -> bool {
        self.head.load(Ordering::SeqCst) == self.tail.load(Ordering::Relaxed)
    }

    /// Hands on what is in it, in one or two pieces.
    fn take(&self, mut each: impl FnMut(&[u8])) {
        let head = self.head.load(Ordering::Acquire);
        loop {
            let tail = self.tail.load(Ordering::Relaxed);
            let start = tail & (RING_BYTES - 1);
            let length = head.wrapping_sub(tail).min(RING_BYTES - start);
            if length == 0 {
                return;
            }
            // SAFETY: these bytes are between tail and head: written, and not touched until tail is moved. A cell has
            // the layout of what is in it.
            each(unsafe { std::slice::from_raw_parts(self.place(start), length) });
            self.tail.store(tail.wrapping_add(length), Ordering::Release);
        }
    }
}

/// The writer's thread: until the log is closed and all is written.
fn write_lines(ring: &Ring, mut output: Output, _end: Sender<()>) {
    loop {
        let end = ring.end.load(Ordering::SeqCst);
        let reopen = ring.reopen.swap(false, Ordering::SeqCst);
        let idle = ring.is_empty();
        ring.take(|bytes| output.write(bytes, ring));
        if reopen {
            output.reopen();
        }
        if end {
            return;
        }
        if !idle {
            thread::park_timeout(COLLECT);
            continue;
        }
        ring.asleep.store(true, Ordering::SeqCst);
        let called = ring.end.load(Ordering::SeqCst) || ring.reopen.load(Ordering::SeqCst);
        if ring.is_empty() && !called {
            thread::park();
        }
        ring.asleep.store(false, Ordering::SeqCst);
    }
}

// === impl Output ===

impl Output {
    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdout".to_owned(), |path| path.display().to_string())
    }

    /// Writes all, or counts what is lost.
    fn write(&mut self, bytes: &[u8], ring: &Ring) {
        let mut rest = bytes;
        if self.skipping {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return };
            rest = &rest[end + 1..];
            self.skipping = false;
            ring.lost_lines.fetch_add(1, Ordering::Relaxed);
        }
        while !rest.is_empty() {
            let next = if self.torn { b"\n" } else { rest };
            match write_some(&self.file, next) {
                Ok(_) if std::mem::take(&mut self.torn) => {}
                Ok(count) => {
                    self.mid_line = rest[count - 1] != b'\n';
                    rest = &rest[count..];
                    if std::mem::take(&mut self.failing) {
                        log::info!("the access log {} can be written again", self.name());
                    }
                }
                Err(error) => return self.fail(&error, rest, ring),
            }
        }
    }

    /// Gives up what is left of a batch.
    fn fail(&mut self, error: &io::Error, rest: &[u8], ring: &Ring) {
        let lines = rest.iter().filter(|byte| **byte == b'\n').count();
        ring.lost_lines.fetch_add(lines as u64, Ordering::Relaxed);
        ring.failures.fetch_add(1, Ordering::Relaxed);
        self.torn |= self.mid_line;
        self.skipping = !rest.ends_with(b"\n");
        if !std::mem::replace(&mut self.failing, true) {
            log::error!(
                "the access log {} cannot be written: {error}; its lines are lost until it can be again",
                self.name()
            );
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open_file(path) {
            Ok(file) => {
                self.file = file;
                (self.torn, self.mid_line) = (false, false);
                log::info!("the access log {} was opened again", path.display());
            }
            Err(error) => {
                log::error!("access log: {}; it goes on where it was", describe(path, &error));
            }
        }
    }
}

/// Writes at least a byte, waiting for room.
fn write_some(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file)?,
            other => return other,
        }
    }
}

/// A pipe of somebody who does not wait for himself.
fn wait_for_room(file: &File) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: `poll` is one valid entry.
    let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
    let error = io::Error::last_os_error();
    if ready < 0 && error.kind() != io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// A log whose other end is in our hands.
    fn piped() -> (LineLog, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(near));
        let [failing, mid_line, torn, skipping] = [false; 4];
        let output = Output { file, path: None, failing, mid_line, torn, skipping };
        (LineLog::start(output).unwrap(), far)
    }

    /// As many lines as a reader who does not read lets in; every one has its number.
    fn fill(log: &LineLog, from: usize) -> usize {
        let line = |number: usize| format!("{number:08} {}\n", "x".repeat(number % 90));
        let taken = (from..10_000_000)
            .take_while(|&number| log.push([b"", line(number).as_bytes(), b""]))
            .count();
        assert!(taken > 0 && taken < 10_000_000 - from);
        taken
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_nobody_waits() {
        let (log, mut far) = piped();
        let taken = fill(&log, 0);
        // What was lost at the end is not missed in the middle.
        drop(log);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        let numbers: Vec<usize> =
            text.lines().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect();
        assert_eq!(numbers, (0..taken).collect::<Vec<_>>());
        assert!(text.ends_with('\n') && text.len() >= RING_BYTES);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_one_by_one() {
        let (log, far) = piped();
        let mut taken = fill(&log, 0);
        drop(far);
        // The rest of the ring meets the closed end.
        while !log.ring.is_empty() {
            thread::yield_now();
        }
        assert!(log.push([b"last", b" ", b"line\n"]));
        taken += 1;
        log.finish(Duration::from_secs(20));
        let Losses { lines, failures } = log.losses();
        // What the socket has taken before is beyond counting, but it is not half of it.
        assert!(failures > 0 && lines > 100 && lines <= taken as u64, "{lines} of {taken}");
        assert_eq!(log.losses(), Losses::default());
    }

    #[test]
    fn a_line_that_breaks_off_is_ended_before_the_next() {
        let path = std::env::temp_dir().join(format!("pilus-torn-{}", std::process::id()));
        let ring = Ring::new();
        let file = open_file(&path).unwrap();
        let mut output = Output {
            file: file.try_clone().unwrap(),
            path: Some(path.clone()),
            failing: false,
            mid_line: false,
            torn: false,
            skipping: false,
        };
        output.write(b"one\ntw", &ring);
        // The ring has wrapped in the middle of a line, and the other half meets a full disk.
        output.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        output.write(b"o\nthree\nfo", &ring);
        output.file = file;
        output.write(b"ur\nfive\n", &ring);
        output.write(b"six\n", &ring);
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "one\ntw\nfive\nsix\n");
        assert_eq!(mode & 0o777, FILE_MODE);
        let lost = ring.lost_lines.load(Ordering::Relaxed);
        assert_eq!((lost, ring.failures.load(Ordering::Relaxed)), (3, 1));
    }

    #[test]
    fn what_cannot_be_opened_is_found_before_it_is_made() {
        let here = std::env::temp_dir().join(format!("pilus-probe-{}", std::process::id()));
        std::fs::create_dir(&here).unwrap();
        let kind = |path: &Path| probe(path).err().map(|error| error.kind());
        assert_eq!(kind(&here.join("new.log")), None);
        assert!(!here.join("new.log").exists());
        assert_eq!(kind(&here), Some(io::ErrorKind::IsADirectory));
        assert_eq!(kind(&here.join("none/new.log")), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(Path::new("/dev/null/new.log")), Some(io::ErrorKind::NotADirectory));
        std::fs::remove_dir(&here).unwrap();
    }
}
