//! Every bound of the proxy, with its reason.
use std::time::Duration;

use crate::io::tcp::Keepalive;

/// Entries of a table by which sources are spread over endpoints. A prime; large enough that with a hundred endpoints their
/// shares differ by about 1 %. 32 KiB.
pub(super) const MAGLEV_SIZE: usize = 16_381;
/// From the first byte of a request head to its last; slowloris lives from longer ones.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client of HTTP/2 may take to confirm that it knows that its connection will end.
pub(super) const GOAWAY_PATIENCE: Duration = Duration::from_secs(1);
/// Between two requests on a client connection. Longer than what load balancers and browsers keep
/// connections for (60 to 300 s), so that the client closes first and no request meets a closing one.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(400);
/// Without a byte in either direction during an exchange or in a tunnel (Envoy's stream idle timeout,
/// ING-14). There is no limit on the whole.
pub(super) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Without a byte in either direction of a connection that is handed to a backend whole (Envoy's and the kernel's idea
/// of long: databases and brokers are silent for minutes).
pub(super) const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// To establish a connection to an endpoint: Envoy's default.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same while there is another endpoint to try: on a LAN a connection takes a few milliseconds, and a lost packet is
/// sent again after one second.
pub(super) const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// An endpoint that has not answered for so long when the time of a request is over is taken for dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_millis(250);
/// From the accepted connection to the end of the TLS handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a closing connection waits for more of what the client is still sending, so that the last response
/// is not destroyed by a reset (RFC 9112 section 9.6).
pub(super) const LINGER_SILENCE: Duration = Duration::from_secs(5);
/// And how long in all: many clients look at the answer only when the whole of an upload is sent.
pub(super) const LINGER_LONGEST: Duration = Duration::from_secs(30);
/// How long an idle upstream connection is kept (ING-14).
pub(super) const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Servers whose TLS sessions are remembered for each TLS setting of a backend. There is one name in each.
pub(super) const UPSTREAM_SESSIONS: usize = 2;
/// How often idle upstream connections are looked through.
pub(super) const UPSTREAM_SWEEP: Duration = Duration::from_secs(10);
/// Idle connections kept per endpoint: what a burst of as many concurrent requests leaves behind.
pub(super) const IDLE_PER_ENDPOINT: usize = 1024;
/// Idle connections kept in all; fewer if there are few descriptors.
pub(super) const IDLE_TOTAL: usize = 4096;
/// Endpoints tried for one request if connecting fails.
pub(super) const CONNECT_ATTEMPTS: usize = 3;
/// How long an endpoint that failed is left out at most (Envoy's `max_ejection_time`).
pub(super) const LONGEST_EJECTION: Duration = Duration::from_secs(300);
/// The share of its requests that an endpoint gets when its slow start begins (Envoy's `min_weight_percent`): without
/// any it would never warm up.
pub(super) const SLOW_START_LEAST: f64 = 0.1;
/// The first pause before a dead endpoint is connected to again, to see whether it is back; it doubles each time.
pub(super) const FIRST_PROBE_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause: so much later than it might does an endpoint get requests again.
pub(super) const LONGEST_PROBE_PAUSE: Duration = Duration::from_secs(10);
/// How much of a request is kept so that it can be sent again, mirrored or shown to an auth server, head included: the
/// forms and API calls for which that is wanted are smaller, and a thousand such requests in flight cost 64 MiB.
pub(super) const KEPT_BYTES: usize = 64 * 1024;
/// The longest pause between two attempts, as a multiple of what the route asks for (Envoy's `max_interval`).
pub(super) const LONGEST_BACKOFF_FACTOR: u32 = 10;
/// How long an auth server may take: its users wait for it, and nobody waits longer for a page.
pub(super) const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an auth server's answer: login pages and reasons are smaller.
pub(super) const AUTH_ANSWER_BYTES: usize = 64 * 1024;
/// Copies for mirrors that are on their way at a time; more are dropped. Each has a connection and up to 64 KiB.
pub(super) const MIRRORS_IN_FLIGHT: usize = 256;
/// How long such a copy may take.
pub(super) const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests in flight may take to finish once the program has been told to end.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the end of the draining is looked for.
pub(super) const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Bytes that may wait in front of a slow receiver, besides what the sockets hold.
pub(super) const PENDING_BYTES: usize = 32 * 1024;
/// Rounds of receiving and sending a body before other tasks get their turn.
pub(super) const ROUNDS_PER_TURN: u32 = 16;
/// Reads in a row that have filled a buffer before a tunnel splices: what is small, or is waited for, is cheaper to copy.
pub(super) const FULL_READS: u8 = 2;
/// A splice that moved less is the last one for now: so much is copied for less than the second system call costs.
pub(super) const SPLICE_LEAST: usize = 16 * 1024;
/// Own answers to pipelined requests of one client before other tasks get their turn; a forwarded request
/// waits anyway.
pub(super) const ANSWERS_PER_TURN: u32 = 32;
/// Connections accepted before other tasks get their turn.
pub(super) const ACCEPTS_PER_TURN: usize = 64;
/// Connections looked at for an idle one whose place a new one can have, when there are as many as may be.
pub(super) const DISMISSAL_LOOKS: usize = 64;
/// How long accepting pauses when there are no descriptors left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Entries of the access log kept for reuse: as many requests are seldom in flight, and each is some KiB at most.
pub(super) const IDLE_LOG_ENTRIES: usize = 128;
/// How long the end of the program waits for the access log: a disk writes the whole ring in less, and who does not read
/// his pipe is not waited for.
pub(super) const LOG_FLUSH_PATIENCE: Duration = Duration::from_millis(500);
/// Between two log lines about strangers that reach a port meant for a proxy: they may come as often as they like.
pub(super) const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// Descriptors kept for everything that is no client connection: files, admin, maps, idle upstreams.
pub(super) const RESERVED_DESCRIPTORS: u64 = 512;
/// The first pause before a port that could not be had is tried again; it doubles each time.
pub(super) const FIRST_BIND_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
pub(super) const LONGEST_BIND_PAUSE: Duration = Duration::from_secs(10);
/// When a silent upstream is probed (ING-14).
pub(super) const UPSTREAM_KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(10), interval: Duration::from_secs(5), probes: 10 };
/// TLS configurations kept for listeners that check clients, with their tickets: one is a few KiB. Those beyond are
/// made anew when needed, which costs a resumption.
pub(super) const CLIENT_AUTH_CONFIGS: usize = 256;
/// How long a UDP flow is remembered whose endpoint has not answered (the kernel's `nf_conntrack_udp_timeout`).
pub(super) const UDP_UNANSWERED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one is remembered that was answered, since a datagram in either direction (`nf_conntrack_udp_timeout_stream`).
pub(super) const UDP_ANSWERED_TIMEOUT: Duration = Duration::from_secs(120);
/// UDP flows at a time; each has a descriptor. A sender of forged addresses costs others no answered flows, nor memory.
pub(super) const UDP_FLOWS: usize = 4096;
/// Of which one source may have one in so many: a resolver that asks from ever new ports must not keep others out.
pub(super) const UDP_FLOWS_OF_SOURCE: usize = 4;
/// How exact the order is in which flows have moved: looking up their place costs more than sending a datagram's head.
pub(super) const UDP_TOUCH: Duration = Duration::from_secs(1);
/// Bytes of a ClientHello that are waited for. Post-quantum key shares make it 2 KiB; a record holds 16.
pub(super) const CLIENT_HELLO_BYTES: usize = 16 * 1024 + 5;
/// Weighted routes whose turns are remembered from one table to the next. A hundred bytes each; who has more of them in
/// use begins anew with those that were not asked for the longest.
pub(super) const MAX_FORMER_TURNS: usize = 16_384;
