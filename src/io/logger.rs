//! Log lines on stderr: with journald's priority prefixes (sd-daemon(3)) under systemd, with time and level
//! elsewhere. A line that cannot be written at once is dropped and counted: logging never blocks the loop.
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::clock;

/// The longest line. Below PIPE_BUF, so that a line is written whole or not at all.
const MAX_LINE: usize = 3_500;
const STDERR: i32 = 2;

struct Logger {
    journal: bool,
    dropped: AtomicU64,
}

static JOURNAL: Logger = Logger { journal: true, dropped: AtomicU64::new(0) };
static PLAIN: Logger = Logger { journal: false, dropped: AtomicU64::new(0) };

/// Sets the logger up, once: the level by `PILUS_LOG` (off, error, warn, info, debug, trace; default
/// info). Returns the text of `PILUS_LOG` if it is none of these.
pub fn init() -> Option<String> {
    let text = std::env::var("PILUS_LOG").unwrap_or_default();
    let level = if text.is_empty() { Some(LevelFilter::Info) } else { text.parse().ok() };
    let logger = if std::env::var_os("JOURNAL_STREAM").is_some() { &JOURNAL } else { &PLAIN };
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
    level.is_none().then_some(text)
}

/// Lines that could not be written so far.
pub fn dropped() -> u64 {
    JOURNAL.dropped.load(Ordering::Relaxed) + PLAIN.dropped.load(Ordering::Relaxed)
}

const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// One line, without anything that could forge a second one or steer a terminal.
fn line(journal: bool, unix_millis: u64, record: &Record<'_>) -> String {
    let mut line = String::with_capacity(128);
    if journal {
        let _ = write!(line, "<{}>", priority(record.level()));
    } else {
        let time = time_of_day(unix_millis);
        let _ = write!(line, "{time} {:<5} ", record.level());
    }
    let start = line.len();
    let _ = write!(line, "{}", record.args());
    if line[start..].chars().any(char::is_control) {
        let clean: String = line[start..]
            .chars()
            .flat_map(|char| {
                let escaped = char.is_control().then(|| char.escape_default());
                let plain = (!char.is_control()).then_some(char);
                escaped.into_iter().flatten().chain(plain)
            })
            .collect();
        line.truncate(start);
        line.push_str(&clean);
    }
    if line.len() > MAX_LINE {
        let end = (0..=MAX_LINE).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line.push('\n');
    line
}

/// `2026-11-21T02:03:25.123Z`
fn time_of_day(unix_millis: u64) -> String {
    let time = libc::time_t::try_from(unix_millis / 1_000).unwrap_or(0);
    // SAFETY: `tm` is plain data for which all zeros is a value.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    unsafe { libc::gmtime_r(&raw const time, &raw mut parts) };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        unix_millis % 1_000
    )
}

/// Writes if that is possible at once.
fn write_now(fd: i32, bytes: &[u8]) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `poll` is one valid entry.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready != 1 || poll.revents & libc::POLLOUT == 0 {
        return false;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are readable for their whole length.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent >= 0 {
        return true;
    }
    if std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOTSOCK) {
        return false;
    }
    // SAFETY: as above. A pipe or terminal that polls as writable takes a line without blocking.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) >= 0 }
}

// === impl Logger ===

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(self.journal, clock::unix_millis(), record);
            if !write_now(STDERR, line.as_bytes()) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn render(journal: bool, text: &str) -> String {
        let arguments = format_args!("{text}").to_string();
        let record = Record::builder();
        let mut record = record;
        line(
            journal,
            1_795_226_605_042,
            &record.level(Level::Warn).args(format_args!("{arguments}")).build(),
        )
    }

    #[test]
    fn a_line_has_its_prefix_and_stays_one_line() {
        assert_eq!(render(true, "an address"), "<4>an address\n");
        assert_eq!(render(false, "an address"), "2026-11-21T02:03:25.042Z WARN  an address\n");
        assert_eq!(render(true, "a\n<0>forged\x1b[2J"), "<4>a\\n<0>forged\\u{1b}[2J\n");
        assert!(render(true, &"ü".repeat(MAX_LINE)).len() < 4_096);
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_nobody() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let line = [b'x'; 1_000];
        let written = (0..100_000).take_while(|_| write_now(near.as_raw_fd(), &line)).count();
        assert!(written > 0 && written < 100_000);
        let mut first = [0; 1_000];
        far.read_exact(&mut first).unwrap();
        assert_eq!(first, line);
    }
}
