//! Clients that say exactly what they are told.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::backend::{WATCHDOG, header};

/// A connection to the proxy; `S` is what carries it.
pub struct Client<S: Read + Write = TcpStream> {
    pub stream: BufReader<S>,
}

/// A response, or as much of it as came.
#[derive(Debug)]
pub struct Response {
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub fn connect(port: u16) -> Self {
        Self::to((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects from one of this machine's addresses; loopback has many.
    pub fn from(source: IpAddr, port: u16) -> Self {
        Self::over(connect_from(source, port))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.set_write_timeout(Some(WATCHDOG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Says that nothing more will come.
    pub fn end(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends `bytes`; the proxy may refuse to take them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
        let _ = self.stream.get_mut().flush();
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.response()
    }

    /// The next head; None if the connection ends before.
    pub fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.stream.read_until(b'\n', &mut head).unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(String::from_utf8(head).unwrap())
    }

    /// The next response to anything but HEAD.
    pub fn response(&mut self) -> Response {
        self.try_response(false).expect("a response")
    }

    pub fn try_response(&mut self, to_head: bool) -> Option<Response> {
        let head = self.head()?;
        let mut response = Response { head, body: Vec::new(), whole: true };
        if !to_head {
            self.read_body(&mut response);
        }
        Some(response)
    }

    /// Reads the body that belongs to the head.
    pub fn read_body(&mut self, response: &mut Response) {
        let Response { head, body, whole } = response;
        let length = header(head.as_bytes(), "content-length").map(|text| text.parse().unwrap());
        let status: u16 = head[9..12].parse().unwrap();
        *whole = if status < 200 || status == 204 || status == 304 {
            true
        } else if header(head.as_bytes(), "transfer-encoding").is_some() {
            self.chunks(body).is_some()
        } else if let Some(length) = length {
            let _ = self.stream.by_ref().take(length).read_to_end(body);
            body.len() as u64 == length
        } else {
            self.stream.read_to_end(body).is_ok()
        };
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.strip_suffix("\r\n")?, 16).unwrap();
            let before = body.len() as u64;
            let _ = self.stream.by_ref().take(size).read_to_end(body);
            if body.len() as u64 - before < size {
                return None;
            }
            if size == 0 {
                while self.stream.read_line(&mut line).ok()? > 2 {}
                return Some(());
            }
            let mut end = [0; 2];
            self.stream.read_exact(&mut end).ok()?;
            assert_eq!(&end, b"\r\n");
        }
    }

    /// Reads until the proxy closes; panics if it does not.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the proxy did not close")
            }
            _ => rest,
        }
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub fn text(&self) -> &str {
        assert!(self.whole, "the body was cut off");
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head.as_bytes(), name)
    }
}

/// A connection to the loopback address of the source's family, from `source`.
#[expect(unsafe_code, reason = "the standard library binds no sockets before they connect")]
pub fn connect_from(source: IpAddr, port: u16) -> TcpStream {
    let raw = |address: IpAddr, port: u16| {
        // SAFETY: all zeroes are a value of this plain structure.
        let mut raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let place = (&raw mut raw).cast::<libc::sockaddr>();
        let length = match address {
            // SAFETY: sockaddr_storage has room for, and the alignment of, every address.
            IpAddr::V4(v4) => unsafe {
                let it = &mut *place.cast::<libc::sockaddr_in>();
                it.sin_family = libc::AF_INET as u16;
                it.sin_port = port.to_be();
                it.sin_addr.s_addr = u32::from_ne_bytes(v4.octets());
                size_of::<libc::sockaddr_in>()
            },
            // SAFETY: as above.
            IpAddr::V6(v6) => unsafe {
                let it = &mut *place.cast::<libc::sockaddr_in6>();
                it.sin6_family = libc::AF_INET6 as u16;
                it.sin6_port = port.to_be();
                it.sin6_addr.s6_addr = v6.octets();
                size_of::<libc::sockaddr_in6>()
            },
        };
        (raw, length as u32)
    };
    let (family, to) = match source {
        IpAddr::V4(_) => (libc::AF_INET, IpAddr::from(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => (libc::AF_INET6, IpAddr::from(Ipv6Addr::LOCALHOST)),
    };
    // SAFETY: no pointers; the descriptor is checked and belongs to nobody else.
    let fd = unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let (own, length) = raw(source, 0);
    // SAFETY: `own` is a valid address of `length` bytes.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const own).cast(), length) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    let (peer, length) = raw(to, port);
    // SAFETY: `peer` is a valid address of `length` bytes.
    let connected = unsafe { libc::connect(fd.as_raw_fd(), (&raw const peer).cast(), length) };
    assert_eq!(connected, 0, "{}", std::io::Error::last_os_error());
    fd.into()
}
