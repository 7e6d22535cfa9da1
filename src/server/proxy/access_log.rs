//! The access log: one line for each request, connection and datagram flow that is over. Without it nothing is done
//! for it; with it nothing is allocated for each, because what a line is made in is used again.
use std::cell::RefCell;
use std::net::SocketAddr;

use super::connection::Connection;
use super::limits::{IDLE_LOG_ENTRIES, LOG_FLUSH_PATIENCE};
use super::stats::count;
use crate::api::config::{AccessLog as Target, Config, LogFormat};
use crate::api::route::Route;
use crate::io::clock;
use crate::io::line_log::{self, LineLog};
use crate::io::reactor::loop_now;
use crate::kernel::Time;
use crate::proto::access_log::{Begun, Ended, begin, end};
use crate::proto::http1::{LocalReply, PeerAddress, RequestHead, Version};

/// The log of this proxy.
pub(super) struct AccessLog {
    lines: LineLog,
    format: LogFormat,
    /// Entries that were used, with their memory.
    #[expect(clippy::vec_box, reason = "the boxes go to connections and come back")]
    idle: RefCell<Vec<Box<Entry>>>,
}

/// A line that is being made.
pub(super) struct Entry {
    text: Vec<u8>,
    /// Where the end belongs.
    middle: usize,
    began: Time,
    pub(super) ended: Ended,
}

/// Why a request was not simply passed on: Envoy's flag, and what it is in (mostly Envoy's) words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reason(&'static str, &'static str);

/// What is known of an HTTP request that has just been decided about.
pub(super) struct Facts<'a, 's, 'b> {
    /// None if it could not be read.
    pub(super) head: Option<&'a RequestHead<'s, 'b>>,
    pub(super) client: &'a PeerAddress,
    pub(super) peer: &'a PeerAddress,
    pub(super) local: SocketAddr,
    pub(super) version: Version,
    pub(super) server_name: Option<&'a str>,
    pub(super) route: Option<&'a Route>,
    /// The head for the endpoint.
    pub(super) forwarded: &'a [u8],
}

/// What is known of a connection or flow that is over.
pub(super) struct Passed<'a> {
    pub(super) client: &'a PeerAddress,
    pub(super) local: SocketAddr,
    /// `TCP`, `TLS` or `UDP`.
    pub(super) protocol: &'static str,
    pub(super) server_name: Option<&'a str>,
    pub(super) route: &'a Route,
    pub(super) began: Time,
    /// None: it could not be reached.
    pub(super) upstream: Option<SocketAddr>,
    /// Bytes from the client, and to it.
    pub(super) bytes: (u64, u64),
}

// === impl Reason ===

impl Reason {
    pub(super) const PASSED_ON: Self = Self("-", "via_upstream");
    pub(super) const DIRECT: Self = Self("-", "direct_response");
    pub(super) const CLIENT_GONE: Self = Self("DC", "downstream_remote_disconnect");
    pub(super) const CLIENT_SLOW: Self = Self("SI", "stream_idle_timeout");
    pub(super) const HEAD_SLOW: Self = Self("-", "request_header_timeout");
    pub(super) const BAD_REQUEST: Self = Self("DPE", "downstream_protocol_error");
    pub(super) const NO_ROUTE: Self = Self("NR", "route_not_found");
    pub(super) const MISDIRECTED: Self = Self("NR", "misdirected_request");
    pub(super) const DENIED: Self = Self("UAEX", "ext_authz_denied");
    pub(super) const AUTH_FAILED: Self = Self("UAEX", "ext_authz_error");
    pub(super) const NO_ENDPOINT: Self = Self("UH", "no_healthy_upstream");
    pub(super) const UNREACHABLE: Self = Self("UF", "upstream_connection_failure");
    pub(super) const OVERFLOW: Self = Self("UO", "upstream_overflow");
    pub(super) const UPSTREAM_GONE: Self = Self("UC", "upstream_connection_termination");
    pub(super) const BAD_UPSTREAM: Self = Self("UPE", "upstream_protocol_error");
    pub(super) const UPSTREAM_SLOW: Self = Self("UT", "upstream_response_timeout");
    const INTERNAL: Self = Self("-", "internal_error");

    /// Why an answer is given before anybody is asked.
    pub(super) const fn of(reply: &LocalReply<'_>) -> Self {
        match reply {
            LocalReply::Refused(_) | LocalReply::BadBody => Self::BAD_REQUEST,
            LocalReply::NoRoute => Self::NO_ROUTE,
            LocalReply::Misdirected => Self::MISDIRECTED,
            LocalReply::NoHealthyUpstream => Self::NO_ENDPOINT,
            LocalReply::RequestTimeout => Self::HEAD_SLOW,
            LocalReply::Internal => Self::INTERNAL,
            _ => Self::DIRECT,
        }
    }
}

// === impl AccessLog ===

impl AccessLog {
    /// The log that is asked for, if any.
    ///
    /// # Errors
    /// It cannot be opened, and what to do.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, String> {
        let path = match &config.access_log {
            None => return Ok(None),
            Some(Target::Stdout) => None,
            Some(Target::File(path)) => Some(path.as_path()),
        };
        let lines = line_log::open(path).map_err(|error| match path {
            Some(path) => line_log::describe(path, &error),
            None => format!("standard output: {error}"),
        });
        let lines = lines.map_err(|error| format!("proxy.access-log: {error}"))?;
        let (format, idle) = (config.access_log_format, RefCell::default());
        Ok(Some(Self { lines, format, idle }))
    }

    /// An entry for a request.
    pub(super) fn begin(&self, facts: &Facts<'_, '_, '_>) -> Box<Entry> {
        let Facts { head, client, peer, local, version, server_name, route, forwarded } = *facts;
        let header = |name| head.and_then(|head| head.header(name));
        self.begin_with(&Begun {
            unix_millis: clock::unix_millis(),
            client: client.as_bytes(),
            peer: (client.ip() != peer.ip()).then(|| peer.as_bytes()),
            local: Some(local),
            protocol: match version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            request: head.map(|head| {
                [head.method, head.authority.map_or("", |it| it.as_str()), head.target]
            }),
            user_agent: header("user-agent"),
            referer: header("referer"),
            request_id: value_in(forwarded, b"x-request-id: "),
            server_name,
            route: route.and_then(|route| Some(&route.origins.first()?.0)),
        })
    }

    fn begin_with(&self, begun: &Begun<'_>) -> Box<Entry> {
        let mut entry = self.idle.borrow_mut().pop().unwrap_or_default();
        entry.middle = begin(self.format, &mut entry.text, begun);
        entry.began = loop_now();
        entry.ended = Ended { status: Some(0), ..Ended::default() };
        entry.because(Reason::PASSED_ON);
        entry
    }

    /// Writes the line.
    pub(super) fn end(&self, mut entry: Box<Entry>) {
        let duration = loop_now().since(entry.began).as_millis();
        entry.ended.duration_ms = u64::try_from(duration).unwrap_or(u64::MAX);
        let Entry { text, middle, ended, .. } = &mut *entry;
        let range = end(self.format, text, ended);
        let parts = [&text[..*middle], &text[range.clone()], &text[*middle..range.start]];
        let taken = self.lines.push(parts);
        count(|c| {
            if taken { c.access_log_lines_total.add() } else { c.access_log_dropped_total.add() }
        });
        self.settle();
        text.clear();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_LOG_ENTRIES {
            idle.push(entry);
        }
    }

    /// A line for what has no requests.
    pub(super) fn passed(&self, passed: &Passed<'_>) {
        let lasted = loop_now().since(passed.began).as_millis();
        let lasted = u64::try_from(lasted).unwrap_or(u64::MAX);
        let origin = passed.route.origins.first();
        let mut entry = self.begin_with(&Begun {
            unix_millis: clock::unix_millis().saturating_sub(lasted),
            client: passed.client.as_bytes(),
            local: Some(passed.local),
            protocol: passed.protocol,
            server_name: passed.server_name,
            route: origin.map(|origin| &origin.0),
            ..Begun::default()
        });
        entry.began = passed.began;
        let (received, sent) = passed.bytes;
        let upstream = passed.upstream;
        entry.ended = Ended { received, sent, upstream, ..Ended::default() };
        entry.because(if upstream.is_some() { Reason::PASSED_ON } else { Reason::UNREACHABLE });
        self.end(entry);
    }

    /// Takes over into the counters what was lost on the way to the disk.
    #[inline]
    pub(super) fn settle(&self) {
        let lost = self.lines.losses();
        if lost != line_log::Losses::default() {
            count(|c| {
                c.access_log_dropped_total.add_many(lost.lines);
                c.access_log_write_errors_total.add_many(lost.failures);
            });
        }
    }

    /// The file was moved away: goes on in a new one.
    pub(super) fn reopen(&self) {
        self.lines.reopen();
    }

    /// Waits a moment for what is not written yet; for the end of the program.
    pub(super) fn finish(&self) {
        self.lines.finish(LOG_FLUSH_PATIENCE);
    }
}

/// The value of the first line of a head that begins so.
fn value_in<'h>(head: &'h [u8], begin: &[u8]) -> Option<&'h [u8]> {
    let mut lines = head.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(begin)?.strip_suffix(b"\r"))
}

// === impl Entry ===

impl Default for Entry {
    fn default() -> Self {
        Self {
            text: Vec::with_capacity(512),
            middle: 0,
            began: Time::ZERO,
            ended: Ended::default(),
        }
    }
}

impl Entry {
    pub(super) const fn because(&mut self, reason: Reason) {
        self.ended.reason = (reason.0, reason.1);
    }

    /// Takes status and length from an answer of our own.
    pub(super) fn answered(&mut self, answer: &[u8]) {
        let digits = answer.get(9..12).unwrap_or_default();
        let status = digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit & 0x0f));
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        self.ended.status = Some(status);
        self.ended.sent = end.map_or(0, |end| (answer.len() - end - 4) as u64);
    }
}

// === impl Connection ===

impl Connection {
    /// Begins the entry of a request that could not be read, whose answer is in `to_client` from `at` on.
    pub(super) fn log_unread(&mut self, at: usize, version: Version, reason: Reason) {
        let Some(log) = &self.shared.access_log else { return };
        let mut entry = log.begin(&Facts {
            head: None,
            client: &self.peer,
            peer: &self.peer,
            local: self.local,
            version,
            server_name: self.server_name.as_deref(),
            route: None,
            forwarded: &[],
        });
        entry.answered(&self.to_client.as_slice()[at..]);
        entry.because(reason);
        self.entry = Some(entry);
    }

    /// Writes the line of the request that is over, if there is to be one.
    #[inline]
    pub(super) fn log_end(&mut self) {
        if let Some(entry) = self.entry.take()
            && let Some(log) = &self.shared.access_log
        {
            log.end(entry);
        }
    }
}
