//! The tasks that accept connections and write answers.
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::answer::{Answer, Body, Scope, answer};
use super::http::{self, MAX_HEAD, Request};
use super::moment::Moment;
use super::state::State;
use crate::io::admin_socket::{AdminListener, AdminStream};
use crate::io::clock;
use crate::io::event_loop::spawn_connection;
use crate::io::reactor::Timer;

/// Connections at a time on each listener: a few people, a few scrapers. One more is told to come back. Whoever
/// can reach the metrics only cannot take the places of people.
const MAX_CONNECTIONS: usize = 64;
/// A client must have sent its question within this time, and may stay silent between two as long.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces of an answer are gathered until they make a chunk of about this size; between two chunks
/// everybody else gets their turn.
const CHUNK: usize = 32 * 1024;
/// Connections accepted before everybody else gets their turn.
const ACCEPTS_PER_TURN: u32 = 16;
/// After a failure to accept (no descriptors left) this much time passes before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts a connection as long as it lives.
struct Place(Rc<Cell<usize>>);

// === impl Place ===

impl Place {
    fn take(open: &Rc<Cell<usize>>) -> Option<Self> {
        if open.get() >= MAX_CONNECTIONS {
            return None;
        }
        open.set(open.get() + 1);
        Some(Self(Rc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts connections for ever.
pub(super) async fn accept(
    listener: AdminListener,
    scope: Scope,
    state: Rc<RefCell<State>>,
    open: Rc<Cell<usize>>,
) {
    let mut in_a_row = 0u32;
    loop {
        in_a_row += 1;
        if in_a_row.is_multiple_of(ACCEPTS_PER_TURN) {
            in_a_row = 0;
            smol::future::yield_now().await;
        }
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                log::warn!("admin: a connection could not be accepted: {error}");
                Timer::at(clock::now() + ACCEPT_PAUSE).await;
                continue;
            }
        };
        let state = Rc::clone(&state);
        let place = Place::take(&open);
        let check_host = listener.is_tcp() && scope == Scope::Admin;
        spawn_connection(async move {
            let result = match place {
                Some(_place) => converse(&stream, scope, check_host, &state).await,
                None => {
                    let busy = Answer::failure(503, "TooManyRequests", "too many connections");
                    write_answer(&stream, busy, false).await
                }
            };
            if let Err(error) = result {
                log::debug!("admin: a connection ended: {error}");
            }
        })
        .detach();
    }
}

async fn converse(
    stream: &AdminStream,
    scope: Scope,
    check_host: bool,
    state: &RefCell<State>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let question = within(QUESTION_TIMEOUT, read_question(stream, &mut buffer)).await;
        let request = match question {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(refusal)) => {
                let answer = Answer::failure(refusal.status, "BadRequest", refusal.message);
                return write_answer(stream, answer, false).await;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !buffer.is_empty() => {
                let answer = Answer::failure(408, "Timeout", "the question took too long");
                return write_answer(stream, answer, false).await;
            }
            Err(error) => return Err(error),
        };
        let moment = Moment { time: clock::now(), unix: clock::unix_seconds() };
        let answer = if check_host && !is_local_host(&request.host) {
            Answer::failure(403, "Forbidden", "the Host field must be an address or localhost")
        } else {
            // Cheap clones: the state may change while the answer is written.
            let state = state.borrow().clone();
            answer(&state, moment, scope, &request)
        };
        write_answer(stream, answer, request.keep_alive).await?;
        // A client may have sent many questions at once.
        smol::future::yield_now().await;
        if !request.keep_alive {
            return Ok(());
        }
    }
}

/// A web page must not be able to read the admin port through a name of its own that it points at
/// 127.0.0.1 (DNS rebinding).
fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok()
}

/// The next question; None at the end of the connection.
async fn read_question(
    stream: &AdminStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Result<Option<Request>, http::Refusal>> {
    loop {
        match http::parse(buffer) {
            Ok(Some((request, length))) => {
                buffer.drain(..length);
                return Ok(Ok(Some(request)));
            }
            Ok(None) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        let start = buffer.len();
        buffer.resize((start + 2048).min(MAX_HEAD + 1), 0);
        let read = stream.read(&mut buffer[start..]).await;
        buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return Ok(Ok(None));
        }
    }
}

async fn write_answer(stream: &AdminStream, answer: Answer, keep_alive: bool) -> io::Result<()> {
    let head = |length| http::response_head(answer.status, answer.content_type, length, keep_alive);
    let pieces = match answer.body {
        Body::Whole(text) => {
            let bytes = head(Some(text.len())) + &text;
            return write_all(stream, bytes.as_bytes()).await;
        }
        Body::Pieces(pieces) => pieces,
    };
    let mut out = head(None);
    let mut chunk = String::new();
    for piece in pieces {
        chunk.push_str(&piece);
        if chunk.len() >= CHUNK {
            let _ = write!(out, "{:x}\r\n{chunk}\r\n", chunk.len());
            chunk.clear();
            write_all(stream, out.as_bytes()).await?;
            out.clear();
            smol::future::yield_now().await;
        }
    }
    if !chunk.is_empty() {
        let _ = write!(out, "{:x}\r\n{chunk}\r\n", chunk.len());
    }
    out.push_str("0\r\n\r\n");
    write_all(stream, out.as_bytes()).await
}

async fn write_all(stream: &AdminStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = within(WRITE_TIMEOUT, stream.write(bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timeout = async {
        Timer::at(clock::now() + limit).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    smol::future::or(work, timeout).await
}
