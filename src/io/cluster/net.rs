//! What the client of API servers needs: sockets, TLS, timers, clocks, and programs that print tokens.
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::io::buffer::Buffer;
use crate::io::reactor::Timer;
use crate::io::tcp::{Keepalive, TcpStream};
use crate::io::tls::TlsStream;
use crate::io::{clock, random, resolver};
use crate::kernel::Time;
use crate::kube_lite::kubeconfig::{Exec, Server};
use crate::kube_lite::{Later, Net, Stream};

/// A server that is gone without a word is noticed after about a minute, also by a watch on which nothing happens.
const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 };
/// What a plugin prints; a token is a few KiB.
const MAX_PRINTED: usize = 64 << 10;

/// Of this thread's event loop.
pub(super) struct LoopNet {
    /// Who is asked for the address of the server; empty: those in `/etc/resolv.conf`.
    pub(super) nameservers: Vec<SocketAddr>,
}

struct Plain {
    tcp: TcpStream,
    buffer: Buffer,
}

struct Secure {
    tls: TlsStream,
    buffer: Buffer,
}

// === impl LoopNet ===

impl LoopNet {
    async fn address(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        match resolver::look_up(host, &self.nameservers).await {
            Ok(answer) => Ok(answer.addresses),
            Err(fault) => Err(io::Error::other(fault)),
        }
    }

    async fn open(
        &self,
        server: &Server,
        tls: Option<Arc<ClientConfig>>,
    ) -> io::Result<Box<dyn Stream>> {
        let mut last = io::Error::other("the server has no address");
        for address in self.address(&server.host).await? {
            let tcp = match TcpStream::connect(SocketAddr::new(address, server.port)) {
                Ok(tcp) => tcp,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            if let Err(error) = poll_fn(|cx| tcp.poll_connected(cx)).await {
                last = error;
                continue;
            }
            tcp.set_keepalive(KEEPALIVE)?;
            let mut buffer = Buffer::new();
            let Some(config) = tls else { return Ok(Box::new(Plain { tcp, buffer })) };
            let name = server.tls_name.as_deref().unwrap_or(&server.host);
            let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
            let tls = TlsStream::connect(tcp, config, name, vec![b"http/1.1".to_vec()]);
            let mut tls = tls.map_err(io::Error::other)?;
            poll_fn(|cx| tls.poll_handshake(cx, &mut buffer)).await?;
            return Ok(Box::new(Secure { tls, buffer }));
        }
        Err(last)
    }
}

impl Net for LoopNet {
    fn connect<'a>(
        &'a self,
        server: &'a Server,
        tls: Option<Arc<ClientConfig>>,
    ) -> Later<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(self.open(server, tls))
    }

    fn sleep(&self, time: Duration) -> Later<'static, ()> {
        Box::pin(Timer::at(clock::now() + time))
    }

    fn random(&self) -> u64 {
        random::next()
    }

    fn now(&self) -> Duration {
        clock::now().since(Time::ZERO)
    }

    fn unix(&self) -> Duration {
        Duration::from_millis(clock::unix_millis())
    }

    fn run(&self, exec: &Exec, info: String) -> Later<'static, io::Result<Vec<u8>>> {
        let mut command = Command::new(&exec.command);
        command.args(&exec.args).envs(exec.env.iter().cloned());
        command.env("KUBERNETES_EXEC_INFO", info).stdin(Stdio::null()).stderr(Stdio::inherit());
        // A process is waited for on a thread of its own: it may take its time.
        Box::pin(smol::unblock(move || {
            let output = command.stdout(Stdio::piped()).output()?;
            if !output.status.success() {
                return Err(io::Error::other(format!("it ended with {}", output.status)));
            }
            if output.stdout.len() > MAX_PRINTED {
                return Err(io::Error::other("it printed too much"));
            }
            Ok(output.stdout)
        }))
    }
}

// === impl Plain ===

impl Stream for Plain {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let got = ready!(self.tcp.poll_recv(cx, &mut self.buffer))?;
        Poll::Ready(Ok(moved(&mut self.buffer, into).max(got)))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.tcp.poll_send(cx, [bytes, &[], &[]])
    }

    fn is_quiet(&mut self) -> bool {
        self.tcp.is_quiet(true)
    }
}

// === impl Secure ===

impl Stream for Secure {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        // The first bytes may have come with the handshake.
        if self.buffer.is_empty() {
            ready!(self.tls.poll_recv(cx, &mut self.buffer))?;
        }
        let got = moved(&mut self.buffer, into);
        self.tls.release();
        Poll::Ready(Ok(got))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return self.tls.poll_flush(cx).map_ok(|()| 0);
        }
        self.tls.poll_send(cx, [bytes, &[], &[]])
    }

    fn is_quiet(&mut self) -> bool {
        self.buffer.is_empty() && self.tls.is_quiet(true)
    }
}

/// Moves all there is, and gives the buffer back.
fn moved(buffer: &mut Buffer, into: &mut Vec<u8>) -> usize {
    let count = buffer.len();
    into.extend_from_slice(buffer.as_slice());
    buffer.consume(count);
    buffer.release();
    count
}
