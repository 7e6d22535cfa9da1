//! The admin and metrics sockets, both ends: `unix:PATH` or `HOST:PORT`.
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use super::reactor::AsyncFd;

/// Who may connect to the Unix socket: owner and group.
const UMASK: libc::mode_t = 0o117;
/// How long a client of the command line waits for a byte.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer a client takes: far more than the objects of any node.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// Where to listen or to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `HOST:PORT`, the host an IP address or `localhost`.
    Tcp(SocketAddr),
}

/// Why a socket cannot be had.
#[derive(Debug)]
pub enum SocketError {
    /// The address cannot be read: the text as given.
    BadAddress(String),
    /// Not a loopback address: whoever can reach it could read every object.
    NotLoopback(SocketAddr),
    /// Another process listens there.
    InUse(AdminAddress),
    /// Something that is no socket is in the way.
    NotASocket(PathBuf),
    /// The system's error.
    System(AdminAddress, io::Error),
}

/// A bound, listening socket. The Unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    address: AdminAddress,
    fd: OwnedFd,
    inode: Option<(u64, u64)>,
}

/// A listening socket on the loop.
pub struct AdminListener {
    fd: AsyncFd,
    tcp: bool,
}

/// An accepted connection.
pub struct AdminStream {
    fd: AsyncFd,
}

// === impl AdminAddress ===

impl std::str::FromStr for AdminAddress {
    type Err = SocketError;

    fn from_str(text: &str) -> Result<Self, SocketError> {
        let bad = || SocketError::BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self::Tcp).map_err(|_| bad())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

// === impl SocketError ===

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAddress(text) => {
                write!(f, "{text:?} is neither unix:PATH nor an IP address with a port")
            }
            Self::NotLoopback(address) => write!(
                f,
                "{address} is not a loopback address: everybody who can reach it could read every \
                 object; use unix:PATH or 127.0.0.1:PORT"
            ),
            Self::InUse(address) => write!(
                f,
                "{address} is in use by another process; is an agent running already? Give each its \
                 own --admin, --metrics and --state-dir"
            ),
            Self::NotASocket(path) => {
                write!(
                    f,
                    "{} is there and is no socket; remove it or choose another",
                    path.display()
                )
            }
            Self::System(address, error) => write!(f, "{address}: {error}"),
        }
    }
}

impl std::error::Error for SocketError {}

// === impl AdminSocket ===

impl AdminSocket {
    /// Listens on the admin address: a Unix socket (mode 0660; missing directories are made; a socket
    /// that nobody listens on is replaced) or a loopback address.
    ///
    /// # Errors
    /// See [`SocketError`]; each names the address.
    pub fn bind_admin(text: &str) -> Result<Self, SocketError> {
        let address: AdminAddress = text.parse()?;
        match &address {
            AdminAddress::Tcp(tcp) if !is_loopback(tcp.ip()) => Err(SocketError::NotLoopback(*tcp)),
            AdminAddress::Tcp(_) => Self::bind_tcp(address),
            AdminAddress::Unix(path) => {
                let path = path.clone();
                Self::bind_unix(address, &path)
            }
        }
    }

    /// Listens on the metrics address, any `HOST:PORT`.
    ///
    /// # Errors
    /// See [`SocketError`]; each names the address.
    pub fn bind_metrics(text: &str) -> Result<Self, SocketError> {
        match text.parse()? {
            AdminAddress::Unix(_) => Err(SocketError::BadAddress(text.to_owned())),
            address @ AdminAddress::Tcp(_) => Self::bind_tcp(address),
        }
    }

    fn bind_tcp(address: AdminAddress) -> Result<Self, SocketError> {
        let AdminAddress::Tcp(tcp) = &address else {
            return Err(SocketError::BadAddress(address.to_string()));
        };
        let bound = TcpListener::bind(tcp)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        match bound {
            Ok(listener) => {
                let address = listener.local_addr().map_or(address, AdminAddress::Tcp);
                Ok(Self { address, fd: listener.into(), inode: None })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(SocketError::InUse(address))
            }
            Err(error) => Err(SocketError::System(address, error)),
        }
    }

    fn bind_unix(address: AdminAddress, path: &Path) -> Result<Self, SocketError> {
        let system = |error| SocketError::System(address.clone(), error);
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(system)?;
        }
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(system)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) => return Err(SocketError::InUse(address)),
                Err(error) => return Err(system(error)),
            }
        }
        // The mode must be right from the first moment on, so it is set by the mask, not afterwards.
        // SAFETY: umask has no preconditions; the program has one thread at this point.
        let old = unsafe { libc::umask(UMASK) };
        let bound = UnixListener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(old) };
        let listener = bound.map_err(system)?;
        listener.set_nonblocking(true).map_err(system)?;
        let inode = std::fs::symlink_metadata(path).ok().map(|it| (it.dev(), it.ino()));
        Ok(Self { address, fd: listener.into(), inode })
    }

    /// Where it listens; with port 0 given, the port it got.
    pub const fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// A second handle of the same socket, on this thread's loop.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn listener(&self) -> io::Result<AdminListener> {
        let fd = AsyncFd::new(self.fd.try_clone()?)?;
        Ok(AdminListener { fd, tcp: matches!(self.address, AdminAddress::Tcp(_)) })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let AdminAddress::Unix(path) = &self.address {
            let found = std::fs::symlink_metadata(path).ok().map(|it| (it.dev(), it.ino()));
            if found.is_some() && found == self.inode {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

const fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

// === impl AdminListener ===

impl AdminListener {
    /// Whether it is a TCP socket.
    pub const fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// The next connection.
    ///
    /// # Errors
    /// The kernel's, such as too many descriptors.
    pub async fn accept(&self) -> io::Result<AdminStream> {
        poll_fn(|cx| {
            loop {
                std::task::ready!(self.fd.poll_readable(cx));
                let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
                // SAFETY: the descriptor is a listening socket; null addresses are allowed.
                let fd = unsafe {
                    libc::accept4(
                        self.fd.as_raw_fd(),
                        std::ptr::null_mut(),
                        std::ptr::null_mut(),
                        flags,
                    )
                };
                if fd >= 0 {
                    // SAFETY: accept4 has just made this descriptor for us.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    return Poll::Ready(AsyncFd::new(fd).map(|fd| AdminStream { fd }));
                }
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::WouldBlock => self.fd.clear_readable(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }
}

// === impl AdminStream ===

impl AdminStream {
    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            loop {
                std::task::ready!(self.fd.poll_readable(cx));
                // SAFETY: the buffer is writable for its whole length.
                let read = unsafe {
                    libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
                };
                match outcome(read) {
                    Some(result) => return Poll::Ready(result),
                    None => self.fd.clear_readable(),
                }
            }
        })
        .await
    }

    /// Writes some of `bytes`; returns how many.
    ///
    /// # Errors
    /// The kernel's, such as a closed connection.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            loop {
                std::task::ready!(self.fd.poll_writable(cx));
                let flags = libc::MSG_NOSIGNAL;
                // SAFETY: the bytes are readable for their whole length.
                let written = unsafe {
                    libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
                };
                match outcome(written) {
                    Some(result) => return Poll::Ready(result),
                    None => self.fd.clear_writable(),
                }
            }
        })
        .await
    }
}

/// None: the call would block.
fn outcome(result: isize) -> Option<io::Result<usize>> {
    if let Ok(count) = usize::try_from(result) {
        return Some(Ok(count));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { None } else { Some(Err(error)) }
}

impl AsFd for AdminStream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends `request` to the agent at `address`, and returns everything it answers until it closes. For the
/// command line: it blocks.
///
/// # Errors
/// Nobody listens, or the agent does not answer in time.
pub fn exchange(address: &AdminAddress, request: &[u8]) -> io::Result<Vec<u8>> {
    fn talk(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    }
    match address {
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
            stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
            talk(stream, request)
        }
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, CLIENT_TIMEOUT)?;
            stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
            stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
            talk(stream, request)
        }
    }
}
