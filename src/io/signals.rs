//! The driver that ends the program in order when it is told to (SIGTERM, SIGINT), and has log files opened again
//! (SIGHUP, as logrotate sends it). Manifests need no signal: they are watched.
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::event_loop::{spawn, stop};
use super::reactor::{AsyncFd, Timer};
use crate::api::Message;
use crate::api::wiring;
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};

/// Everybody has this long to release what they hold; then the program ends anyway. Below systemd's
/// default of 90 s, above the time in which the proxy lets requests finish.
const RELEASE_LIMIT: Duration = Duration::from_secs(12);

/// Waits for a signal, asks the servers to release what they hold, stage by stage, then stops the loop.
pub struct SignalDriver {
    mailer: Mailer<Message>,
    signals: Option<OwnedFd>,
    stages: VecDeque<Vec<ServerId>>,
    waiting: Vec<ServerId>,
    stopping: bool,
    give_up: Option<Time>,
}

// === impl SignalDriver ===

impl SignalDriver {
    /// Asks the servers of one stage after the other to release what they hold; a stage begins when the
    /// one before has answered. `signals` comes from [`block`].
    pub fn new(
        mailer: Mailer<Message>,
        signals: Option<OwnedFd>,
        stages: impl IntoIterator<Item = Vec<ServerId>>,
    ) -> Self {
        Self {
            mailer,
            signals,
            stages: stages.into_iter().collect(),
            waiting: Vec::new(),
            stopping: false,
            give_up: None,
        }
    }

    fn advance(&mut self, out: &mut Outbox<Message>) {
        if !self.waiting.is_empty() {
            return;
        }
        let Some(stage) = self.stages.pop_front() else { return stop() };
        for server in &stage {
            out.send(*server, Message::Shutdown);
        }
        self.waiting = stage;
    }
}

impl Server<Message> for SignalDriver {
    fn start(&mut self, _now: Time, _out: &mut Outbox<Message>) {
        if let Some(signals) = self.signals.take() {
            let mailer = self.mailer.clone();
            spawn(async move {
                if let Err(error) = wait(signals, &mailer).await {
                    log::error!("signals are not heard: {error}");
                }
            })
            .detach();
        }
    }

    fn handle(&mut self, now: Time, from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Shutdown if !self.stopping => {
                self.stopping = true;
                self.give_up = Some(now + RELEASE_LIMIT);
                self.advance(out);
            }
            // A second signal: the user is in a hurry.
            Message::Shutdown => stop(),
            Message::ReopenLogs => out.send(wiring::PROXY, Message::ReopenLogs),
            Message::Released => {
                self.waiting.retain(|server| *server != from);
                if self.stopping {
                    self.advance(out);
                }
            }
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        self.give_up
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if self.waiting.contains(&peer) {
            out.send(peer, Message::Shutdown);
        }
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        if !self.waiting.is_empty() {
            log::warn!("not all was released in time");
        }
        self.waiting.clear();
        // The next stage gets a moment of its own; it must not be left out.
        self.give_up = Some(now + RELEASE_LIMIT);
        self.advance(out);
    }
}

async fn wait(signals: OwnedFd, mailer: &Mailer<Message>) -> io::Result<()> {
    let fd = AsyncFd::new(signals)?;
    loop {
        fd.readable().await;
        fd.clear_readable();
        // SAFETY: all-zero bytes are a valid signalfd_siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` has room for `size` bytes; the descriptor is open.
        while unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) } > 0 {
            if i64::from(info.ssi_signo) == i64::from(libc::SIGHUP) {
                mailer.send(wiring::SIGNAL, Message::ReopenLogs);
                continue;
            }
            log::info!("signal {}: ending", info.ssi_signo);
            mailer.send(wiring::SIGNAL, Message::Shutdown);
            // Lets the loop take the first one before a second is read.
            Timer::at(super::clock::now() + Duration::from_millis(1)).await;
        }
    }
}

/// Blocks SIGTERM, SIGINT and SIGHUP for this thread and returns a descriptor that reports them. Also
/// ignores SIGPIPE, so that a closed connection is an error and not the end. Call before anything else.
///
/// # Errors
/// The kernel's, if it has no signalfd.
pub fn block() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before it is used; all calls only read or write it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}
