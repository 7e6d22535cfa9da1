//! Clients that ask without end, and count.
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::client::{Client, Response};
use crate::support::{TlsClient, get, trusting_all, wait_until};

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// One connection for all requests.
    KeepAlive,
    /// A connection for each.
    New,
    /// A connection with a full TLS handshake for each.
    Tls,
}

/// Client threads that run until stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(Arc<AtomicUsize>, JoinHandle<()>)>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Load {
    /// One client for each way. An answer other than 200 with one of `bodies` is a failure; so is none, or a
    /// kept connection that was closed.
    pub(crate) fn start(
        ways: &[Way],
        (http, https): (u16, u16),
        host: &'static str,
        bodies: &'static [&'static str],
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let client = |&way: &Way| {
            let count = Arc::new(AtomicUsize::new(0));
            let (stop, failures, counted) =
                (Arc::clone(&stop), Arc::clone(&failures), Arc::clone(&count));
            let thread = std::thread::spawn(move || {
                let mut kept = (way == Way::KeepAlive).then(|| Client::connect(http));
                while !stop.load(Ordering::SeqCst) {
                    let result = match way {
                        Way::KeepAlive => {
                            let client = kept.get_or_insert_with(|| Client::connect(http));
                            let result = judge(get(client, host, "/"), bodies);
                            if result.is_err() {
                                kept = None;
                            }
                            result
                        }
                        Way::New => plain(http, host, bodies),
                        Way::Tls => encrypted(https, host, bodies),
                    };
                    if let Err(failure) = result {
                        failures.lock().unwrap().push(format!("{way:?}: {failure}"));
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
            (count, thread)
        };
        Self { clients: ways.iter().map(client).collect(), stop, failures }
    }

    /// Waits until every client has begun and ended another request.
    pub(crate) fn round(&self) {
        let before: Vec<usize> = self.counts();
        wait_until("every client asks again", || {
            self.counts().iter().zip(&before).all(|(now, before)| *now >= before + 2)
        });
    }

    pub(crate) fn counts(&self) -> Vec<usize> {
        self.clients.iter().map(|(count, _)| count.load(Ordering::SeqCst)).collect()
    }

    /// How many requests were made, and those that failed.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut total = 0;
        for (count, thread) in self.clients {
            thread.join().unwrap();
            total += count.load(Ordering::SeqCst);
        }
        (total, std::mem::take(&mut self.failures.lock().unwrap()))
    }
}

fn judge(response: Option<Response>, bodies: &[&str]) -> Result<(), String> {
    let response = response.ok_or("the connection ended without an answer")?;
    if response.status() == 200 && bodies.contains(&response.text()) {
        Ok(())
    } else {
        Err(format!("{}{}", response.head, String::from_utf8_lossy(&response.body)))
    }
}

fn plain(port: u16, host: &str, bodies: &[&str]) -> Result<(), String> {
    let address = (Ipv4Addr::LOCALHOST, port);
    let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(crate::backend::WATCHDOG)).unwrap();
    let mut client = Client { stream: std::io::BufReader::new(stream) };
    judge(get(&mut client, host, "/"), bodies)
}

fn encrypted(port: u16, host: &str, bodies: &[&str]) -> Result<(), String> {
    let mut tls = TlsClient::connect(port, host, &trusting_all())?;
    tls.handshake().map_err(|error| format!("handshake: {error}"))?;
    judge(get(&mut tls.client, host, "/"), bodies)
}
