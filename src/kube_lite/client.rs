//! Requests to one API server, over connections that are kept for the next one.
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;

use super::credentials::Credentials;
use super::error::{Error, Status};
use super::http::{Decoder, Head, Piece, Request};
use super::kubeconfig::{Config, Exec, Server};

/// A connection is made, or an answer is there, within this; an API server gives up on its own work after 60 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// A watch on which nothing arrives is taken for dead after this: bookmarks come every minute.
const WATCH_SILENCE: Duration = Duration::from_secs(150);
/// Connections that are kept: writes follow each other, and more than two at once are rare.
const KEPT: usize = 2;
/// Longest answer: a page of 500 objects of 256 KiB, more than the average of any cluster.
const MAX_BODY: usize = 128 << 20;
/// Longest event: etcd takes no object above 1.5 MiB, and JSON may be twice as long.
const MAX_EVENT: usize = 4 << 20;

/// Something that will be there later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A connection to the server; TLS, if any, is inside.
pub trait Stream {
    /// Appends what has arrived to `into`; 0 is the end.
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>>;

    /// Sends some of `bytes`; returns how many. Once all is sent it is called with none, to flush.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Whether nothing has happened since the last answer, so that it can be used again.
    fn is_quiet(&mut self) -> bool;
}

/// What the client needs from the program it is a part of.
pub trait Net {
    /// Connects; with a configuration for TLS, the handshake included.
    fn connect<'a>(
        &'a self,
        server: &'a Server,
        tls: Option<Arc<ClientConfig>>,
    ) -> Later<'a, io::Result<Box<dyn Stream>>>;

    /// Is over after `time`.
    fn sleep(&self, time: Duration) -> Later<'static, ()>;

    /// Any number.
    fn random(&self) -> u64;

    /// A clock that never goes back.
    fn now(&self) -> Duration;

    /// The clock of the day: since 1970.
    fn unix(&self) -> Duration;

    /// Runs a credential plugin with `info` in `KUBERNETES_EXEC_INFO`; what it has printed.
    fn run(&self, exec: &Exec, info: String) -> Later<'static, io::Result<Vec<u8>>>;
}

/// A client of one API server.
pub struct Client {
    config: Config,
    net: Rc<dyn Net>,
    user_agent: String,
    credentials: RefCell<Credentials>,
    kept: RefCell<Vec<Box<dyn Stream>>>,
}

/// An answer that is arriving.
pub struct Answer {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    closed: bool,
    decoder: Decoder,
    head: Head,
}

// === impl Client ===

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(config: Config, net: Rc<dyn Net>, user_agent: String) -> Self {
        let (credentials, kept) = <(RefCell<Credentials>, RefCell<Vec<_>>)>::default();
        Self { config, net, user_agent, credentials, kept }
    }

    /// Whom it talks to.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it was given at the beginning.
    #[must_use]
    pub fn net(&self) -> &dyn Net {
        &*self.net
    }

    /// Asks, and returns the body of an answer of success.
    ///
    /// # Errors
    /// There is no answer, or another one.
    pub async fn request(&self, request: &Request) -> Result<String, Error> {
        let answered = self.within(PATIENCE, self.ask_whole(request)).await?;
        match answered {
            Err(Error::Refused(status)) if status.code == 401 => {
                // The token may have been replaced; once more with what is there now.
                self.credentials.borrow_mut().forget();
                self.within(PATIENCE, self.ask_whole(request)).await?
            }
            answered => answered,
        }
    }

    /// Asks, and returns the answer of success while it still arrives.
    ///
    /// # Errors
    /// There is no answer, or another one.
    pub async fn open(&self, request: &Request) -> Result<Answer, Error> {
        let opened = self.within(PATIENCE, self.ask(request, false)).await?;
        if opened.as_ref().is_err_and(|error| error.code() == Some(401)) {
            self.credentials.borrow_mut().forget();
        }
        opened
    }

    /// The next line of an answer that goes on and on; None when it has ended. The line is in `line`.
    ///
    /// # Errors
    /// The connection broke, or nothing came for too long.
    pub async fn next_line(&self, answer: &mut Answer, line: &mut Lines) -> Result<bool, Error> {
        let next = poll_fn(|cx| answer.poll_line(cx, line));
        self.within(WATCH_SILENCE, next).await?
    }

    async fn ask_whole(&self, request: &Request) -> Result<String, Error> {
        let mut answer = self.ask(request, true).await?;
        let mut body = Vec::new();
        let persists = poll_fn(|cx| answer.poll_body(cx, &mut body)).await?;
        if persists && answer.input.is_empty() && self.kept.borrow().len() < KEPT {
            self.kept.borrow_mut().push(answer.stream);
        }
        let body = String::from_utf8(body).map_err(|_| broken("an answer is not UTF-8"))?;
        Ok(body)
    }

    /// Sends the request and waits for the head of an answer of success.
    async fn ask(&self, request: &Request, may_reuse: bool) -> Result<Answer, Error> {
        if may_reuse {
            loop {
                let Some(mut kept) = self.kept.borrow_mut().pop() else { break };
                if !kept.is_quiet() {
                    continue;
                }
                match self.exchange(kept, request).await {
                    // It was closed in the very moment; all but POST can be said twice.
                    Err(Error::Broken(_)) if request.method != "POST" => {}
                    answered => return answered,
                }
            }
        }
        let tls = match self.config.server.tls {
            true => Some(self.credentials.borrow_mut().tls(&self.config)?),
            false => None,
        };
        let stream = self.net.connect(&self.config.server, tls).await;
        let stream = stream.map_err(|error| {
            self.credentials.borrow_mut().forget();
            Error::Unreachable(format!("{}: {error}", self.config.server.authority()))
        })?;
        self.exchange(stream, request).await
    }

    async fn exchange(&self, stream: Box<dyn Stream>, request: &Request) -> Result<Answer, Error> {
        let token = Credentials::token(&self.credentials, &self.config, &*self.net).await?;
        let mut out = Vec::new();
        let prefixed;
        let request = match &*self.config.server.prefix {
            "" => request,
            prefix => {
                let path = format!("{prefix}{}", request.path);
                prefixed = Request { path, ..request.clone() };
                &prefixed
            }
        };
        let host = self.config.server.authority();
        request.write(&mut out, &host, &self.user_agent, token.as_deref());
        let head = Head { status: 0, retry_after: None };
        let decoder = Decoder::default();
        let mut answer = Answer { stream, input: Vec::new(), closed: false, decoder, head };
        let mut sent = 0;
        poll_fn(|cx| answer.poll_head(cx, &out, &mut sent)).await?;
        if (200..300).contains(&answer.head.status) {
            return Ok(answer);
        }
        let Head { status, retry_after } = answer.head;
        let mut body = Vec::new();
        // Why is worth knowing, but not worth another failure.
        let _ = poll_fn(|cx| answer.poll_body(cx, &mut body)).await;
        let body = String::from_utf8_lossy(&body);
        Err(Error::Refused(Status::of(status, retry_after, &body)))
    }

    /// The outcome of `work` if it comes in time.
    async fn within<T>(&self, time: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
        let (mut work, mut sleep) = (pin!(work), self.net.sleep(time));
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            sleep.as_mut().poll(cx).map(|()| Err(Error::Silent))
        })
        .await
    }
}

// === impl Answer ===

impl Answer {
    /// Sends `out` and waits for the head.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        out: &[u8],
        sent: &mut usize,
    ) -> Poll<Result<(), Error>> {
        while let Poll::Ready(result) = self.stream.poll_send(cx, &out[*sent..]) {
            // A server that has said no already need not be listened to by us to the end.
            let Ok(count) = result else { break };
            *sent += count;
            if *sent == out.len() && count == 0 {
                break;
            }
        }
        loop {
            let (piece, used) = self.decoder.next(&self.input, self.closed).map_err(not_http)?;
            let head = if let Piece::Head(head) = piece { Some(head) } else { None };
            self.input.drain(..used);
            if let Some(head) = head {
                self.head = head;
                return Poll::Ready(Ok(()));
            }
            match self.poll_more(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Appends the body to `body`; ready when it has ended, with whether the connection persists.
    fn poll_body(&mut self, cx: &mut Context<'_>, body: &mut Vec<u8>) -> Poll<Result<bool, Error>> {
        loop {
            let mut used = 0;
            loop {
                let rest = &self.input[used..];
                let (piece, consumed) = self.decoder.next(rest, self.closed).map_err(not_http)?;
                used += consumed;
                match piece {
                    Piece::Body(bytes) => {
                        if body.len() + bytes.len() > MAX_BODY {
                            return Poll::Ready(Err(broken("an answer is too long")));
                        }
                        body.extend_from_slice(bytes);
                    }
                    Piece::End(persists) => {
                        self.input.drain(..used);
                        return Poll::Ready(Ok(persists && !self.closed));
                    }
                    Piece::Incomplete | Piece::Head(_) => break,
                }
            }
            self.input.drain(..used);
            match self.poll_more(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_line(&mut self, cx: &mut Context<'_>, lines: &mut Lines) -> Poll<Result<bool, Error>> {
        loop {
            if lines.advance() {
                return Poll::Ready(Ok(true));
            }
            let (piece, used) = self.decoder.next(&self.input, self.closed).map_err(not_http)?;
            let (ended, more) = match piece {
                Piece::Body(bytes) => {
                    if lines.bytes.len() + bytes.len() > MAX_EVENT {
                        return Poll::Ready(Err(broken("an event is too long")));
                    }
                    lines.bytes.extend_from_slice(bytes);
                    (false, false)
                }
                Piece::End(_) => (true, false),
                Piece::Incomplete | Piece::Head(_) => (false, true),
            };
            self.input.drain(..used);
            if ended {
                return Poll::Ready(Ok(false));
            }
            if more {
                match self.poll_more(cx) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
    }

    /// Receives more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.closed {
            return Poll::Ready(Err(broken("the answer is cut off")));
        }
        self.stream.poll_recv(cx, &mut self.input).map(|result| match result {
            Ok(0) => {
                self.closed = true;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Broken(error.to_string())),
        })
    }
}

/// Lines of an answer, one at a time.
#[derive(Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where the current line ends, its LF included.
    end: usize,
}

// === impl Lines ===

impl Lines {
    /// The current line.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn current(&self) -> Result<&str, Error> {
        let line = &self.bytes[..self.end.saturating_sub(1)];
        std::str::from_utf8(line).map_err(|_| broken("an event is not UTF-8"))
    }

    /// Goes on to the next line; false if it has not ended yet.
    fn advance(&mut self) -> bool {
        self.bytes.drain(..std::mem::take(&mut self.end));
        match self.bytes.iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                self.end = at + 1;
                true
            }
            None => {
                // A burst is over: what it needed is given back.
                if self.bytes.is_empty() && self.bytes.capacity() > 64 << 10 {
                    self.bytes = Vec::new();
                }
                false
            }
        }
    }
}

fn broken(text: &str) -> Error {
    Error::Broken(text.to_owned())
}

fn not_http(super::http::NotHttp(text): super::http::NotHttp) -> Error {
    broken(text)
}
