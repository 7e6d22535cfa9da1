//! Tells systemd how we are (sd_notify(3)): datagrams to the socket named by `NOTIFY_SOCKET`.
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use super::clock;
use super::event_loop::spawn;
use super::reactor::Timer;

/// The line to systemd; does nothing when we were not started with `Type=notify`.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

// === impl Notifier ===

impl Notifier {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_env() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let interval = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        match Self::connect(path.as_bytes()) {
            Ok(socket) => {
                Self { socket: Some(socket), watchdog: interval.map(Duration::from_micros) }
            }
            Err(error) => {
                log::warn!("NOTIFY_SOCKET {}: {error}", path.display());
                Self::default()
            }
        }
    }

    /// A notifier for the socket at `path` (`@name` for an abstract one) and a watchdog interval.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn new(path: &[u8], watchdog: Option<Duration>) -> io::Result<Self> {
        Ok(Self { socket: Some(Self::connect(path)?), watchdog })
    }

    fn connect(path: &[u8]) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        match path.split_first() {
            Some((b'@', name)) => {
                socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            }
            _ => socket.connect(Path::new(std::ffi::OsStr::from_bytes(path)))?,
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The first configuration is in effect: units that wait for us may start.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// We are about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// How often the watchdog must be fed: at half of what systemd allows.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|interval| interval / 2)
    }

    /// Feeds the watchdog once.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Feeds the watchdog from a task of its own for ever: as long as the loop turns, systemd is told.
    pub fn spawn_watchdog(self: &std::rc::Rc<Self>) {
        let Some(interval) = self.watchdog_interval() else { return };
        let notifier = std::rc::Rc::clone(self);
        spawn(async move {
            loop {
                notifier.alive();
                Timer::at(clock::now() + interval).await;
            }
        })
        .detach();
    }

    fn send(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(text.as_bytes()) {
            log::debug!("systemd was not told {text}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_what_is_said() {
        let path = std::env::temp_dir().join(format!("pilus-notify-{}", std::process::id()));
        let abstract_name = format!("pilus-notify-{}", std::process::id());
        let systemd = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let hidden = UnixDatagram::bind_addr(&address).unwrap();
        let mut bytes = [0; 64];
        let seconds = Duration::from_secs(10);
        let notifier = Notifier::new(path.as_os_str().as_bytes(), Some(seconds)).unwrap();
        assert_eq!(notifier.watchdog_interval(), Some(seconds / 2));
        notifier.ready();
        notifier.status("3 addresses\nheld");
        notifier.alive();
        notifier.stopping();
        for expected in ["READY=1", "STATUS=3 addresses held", "WATCHDOG=1", "STOPPING=1"] {
            let length = systemd.recv(&mut bytes).unwrap();
            assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), expected);
        }
        let notifier = Notifier::new(format!("@{abstract_name}").as_bytes(), None).unwrap();
        notifier.ready();
        assert_eq!(hidden.recv(&mut bytes).unwrap(), 7);
        Notifier::default().ready();
        std::fs::remove_file(path).unwrap();
    }
}
