//! Counters of the proxy on this thread. Only this thread writes them, so that counting is a plain load and store;
//! others may read.
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What the proxy has counted since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            const fn new() -> Self {
                Self { $($name: Counter(AtomicU64::new(0)),)* }
            }

            fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* }
            }
        }

        impl Stats {
            /// Every counter with its name, for metrics.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Client connections accepted.
    connections_accepted,
    /// Client connections open now.
    connections_open,
    /// Client connections that spoke HTTP/2.
    http2_connections,
    /// Requests on such connections refused because too many were in flight.
    streams_refused,
    /// Client connections closed at once because there were too many.
    connections_refused,
    /// Idle client connections closed to make room for new ones.
    connections_dismissed,
    /// Client connections closed because nothing listens on their address and port any more.
    connections_unclaimed,
    /// Client connections closed because they did not begin with the PROXY protocol header that is demanded.
    connections_without_header,
    /// Client connections closed because PROXY protocol is demanded and they come from none of the trusted proxies.
    connections_untrusted,
    /// Connection tasks that panicked.
    connections_panicked,
    /// Request heads taken.
    requests,
    /// Responses sent with a status of 1xx.
    responses_1xx,
    /// 2xx
    responses_2xx,
    /// 3xx
    responses_3xx,
    /// 4xx
    responses_4xx,
    /// 5xx
    responses_5xx,
    /// Responses made here, of those.
    responses_local,
    /// Connections to endpoints established.
    upstream_connects,
    /// Connections to endpoints that could not be established.
    upstream_connect_failures,
    /// TLS handshakes with endpoints finished.
    upstream_tls_handshakes,
    /// TLS handshakes with endpoints that failed: not who they should be, or nothing in common.
    upstream_tls_failures,
    /// Requests sent on a kept connection.
    upstream_reuses,
    /// Requests sent again because a kept connection was closed by the endpoint.
    upstream_retries,
    /// Attempts made because the route asks for them.
    route_retries,
    /// Such attempts that were not made because a retry budget was spent.
    retries_over_budget,
    /// Copies sent to mirrors.
    mirrors,
    /// Copies that were not, because too many were on their way.
    mirrors_dropped,
    /// Requests that an auth server has refused.
    auth_denied,
    /// Requests refused because an auth server gave no (sensible) answer.
    auth_failures,
    /// Requests refused because their backend has as many as it may (circuit breaker).
    upstream_overflows,
    /// Idle connections to endpoints now.
    upstream_idle,
    /// Request heads or bodies refused because of their syntax.
    bad_requests,
    /// Responses of endpoints that broke the protocol.
    bad_responses,
    /// Requests for a host that the server name of their TLS connection does not lead to (421).
    misdirected,
    /// Requests without a route.
    no_route,
    /// Requests for which there was no endpoint.
    no_endpoint,
    /// Clients that were too slow or silent.
    client_timeouts,
    /// Endpoints that were too slow or silent.
    upstream_timeouts,
    /// Clients that went away during an exchange.
    client_aborts,
    /// Endpoints that closed during a response.
    upstream_aborts,
    /// Connections that became tunnels: upgrades and TLS passthrough.
    tunnels,
    /// Bytes that tunnels have passed on.
    tunnel_bytes,
    /// Bytes that they have taken without copying them, of those.
    tunnel_bytes_spliced,
    /// Times that a tunnel would have spliced and no pipe was to be had.
    pipes_refused,
    /// UDP flows begun.
    udp_flows,
    /// UDP flows open now.
    udp_flows_open,
    /// UDP flows whose endpoint has answered, ended to make room for new ones.
    udp_flows_dismissed,
    /// Those that ended so before there was an answer.
    udp_flows_displaced,
    /// Datagrams from clients.
    datagrams_received,
    /// Of those: no listener, no endpoint or no room.
    datagrams_dropped,
    /// Datagrams to clients.
    datagrams_sent,
    /// Lines of the access log that were handed to its writer.
    access_log_lines_total,
    /// Lines that were lost: there was no room for them, or writing failed.
    access_log_dropped_total,
    /// Writes to the access log that failed.
    access_log_write_errors_total,
    /// TLS handshakes finished.
    tls_handshakes,
    /// TLS handshakes that failed.
    tls_failures,
    /// TLS handshakes refused because of the server name.
    tls_unknown_names,
}

/// One number.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

/// Reads the counters of one thread's proxy, from any thread.
#[derive(Clone, Copy)]
pub struct StatsReader(&'static Counters);

thread_local! {
    /// Leaked: there are as many as threads with a proxy, and readers may outlive them.
    static COUNTERS: &'static Counters = Box::leak(Box::new(Counters::new()));
}

/// The counters of the proxy on this thread.
pub fn stats() -> Stats {
    stats_reader().read()
}

/// A reader for the counters of the proxy on this thread.
pub fn stats_reader() -> StatsReader {
    COUNTERS.with(|counters| StatsReader(counters))
}

/// Gives access to the counters, to count.
#[inline]
pub(super) fn count(count: impl FnOnce(&Counters)) {
    // Counted also while the thread ends: then it no longer matters.
    let _ = COUNTERS.try_with(|counters| count(counters));
}

// === impl StatsReader ===

impl StatsReader {
    /// What has been counted so far.
    pub fn read(self) -> Stats {
        self.0.snapshot()
    }
}

// === impl Counter ===

impl Counter {
    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn add(&self) {
        self.set(self.get() + 1);
    }

    pub(super) fn add_many(&self, count: u64) {
        self.set(self.get() + count);
    }

    #[inline]
    pub(super) fn add_all(&self, count: usize) {
        self.set(self.get().wrapping_add(count as u64));
    }

    #[inline]
    pub(super) fn subtract(&self, count: u64) {
        self.set(self.get().saturating_sub(count));
    }
}

// === impl Counters ===

impl Counters {
    #[inline]
    pub(super) fn response(&self, status: u16) {
        match status / 100 {
            1 => self.responses_1xx.add(),
            2 => self.responses_2xx.add(),
            3 => self.responses_3xx.add(),
            4 => self.responses_4xx.add(),
            _ => self.responses_5xx.add(),
        }
    }
}
