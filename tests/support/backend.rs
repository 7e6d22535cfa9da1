//! Scripted endpoints: each connection is served by a thread with a function of its own.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Long enough for everything; only there so that a broken test ends.
pub const WATCHDOG: Duration = Duration::from_secs(20);

/// An endpoint that runs until the program ends.
pub struct Backend {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// A connection from the proxy.
pub struct Peer {
    pub stream: BufReader<TcpStream>,
    /// Which connection this is, from 0.
    pub number: usize,
}

impl Backend {
    /// Serves each connection with `serve`.
    pub fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(WATCHDOG)).unwrap();
                stream.set_nodelay(true).unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(Peer { stream: BufReader::new(stream), number }));
            }
        });
        Self { address, connections }
    }

    /// Answers every request on every connection with `body`.
    pub fn answering(body: &'static str) -> Self {
        Self::start(move |mut peer| {
            while peer.request().is_some() {
                peer.answer(body);
            }
        })
    }

    /// Answers every request with its own head and body.
    pub fn echoing() -> Self {
        Self::start(|mut peer| {
            while let Some((head, body)) = peer.request() {
                peer.answer(&String::from_utf8([head, body].concat()).unwrap());
            }
        })
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Peer {
    /// The next head, up to and with its empty line; None when the proxy closes before it ends.
    pub fn head(&mut self) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        loop {
            let start = head.len();
            self.stream.read_until(b'\n', &mut head).ok()?;
            match &head[start..] {
                [] => return None,
                b"\r\n" => return Some(head),
                line => assert!(line.ends_with(b"\r\n"), "the proxy sent {line:?}"),
            }
        }
    }

    /// The next request with its body. The body ends early if the proxy closes; then the last value is
    /// false.
    pub fn request_or_part(&mut self) -> Option<(Vec<u8>, Vec<u8>, bool)> {
        let head = self.head()?;
        let mut body = Vec::new();
        let whole = if header(&head, "transfer-encoding").is_some() {
            self.chunks(&mut body).is_some()
        } else {
            let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            let _ = self.stream.by_ref().take(length).read_to_end(&mut body);
            body.len() as u64 == length
        };
        Some((head, body, whole))
    }

    /// The next request with its whole body.
    pub fn request(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (head, body, whole) = self.request_or_part()?;
        whole.then_some((head, body))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.strip_suffix("\r\n")?, 16).unwrap();
            if size == 0 {
                while self.stream.read_line(&mut line).ok()? > 2 {}
                return line.ends_with("\r\n").then_some(());
            }
            let before = body.len() as u64;
            let _ = self.stream.by_ref().take(size).read_to_end(body);
            if body.len() as u64 - before < size {
                return None;
            }
            let mut end = [0; 2];
            self.stream.read_exact(&mut end).ok()?;
            assert_eq!(&end, b"\r\n");
        }
    }

    pub fn answer(&mut self, body: &str) {
        self.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    /// Sends `text`; that the proxy may be gone is not this end's concern.
    pub fn say(&mut self, text: &str) {
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    /// Everything until the proxy closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}

/// The value of a header.
pub fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    let text = std::str::from_utf8(head).ok()?;
    text.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
