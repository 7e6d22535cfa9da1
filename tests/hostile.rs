//! Clients and endpoints that mean harm, or that are as bad as luck can have it. Named for the attack.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use support::backend::Backend;
use support::client::Client;
use support::{TestProxy, World, free_port};

#[test]
fn upload_that_is_refused_early_still_hears_the_answer_when_it_reads_only_at_its_end() {
    const BODY: usize = 64 << 20;
    let backend = Backend::start(|mut peer| {
        peer.head().unwrap();
        peer.say(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        );
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..BODY / piece.len() {
        client.stream.get_mut().write_all(&piece).unwrap();
    }
    let response = client.response();
    assert_eq!((response.status(), response.text()), (413, "big"));
    client.until_closed();
}

#[test]
fn body_in_the_answer_to_head_is_nobodys_response() {
    let backend = Backend::start(|mut peer| {
        while let Some((head, _)) = peer.request() {
            if head.starts_with(b"HEAD") {
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n");
                // The body comes when the next request may be on its way already.
                std::thread::sleep(std::time::Duration::from_millis(2));
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON");
            } else {
                peer.answer("good");
            }
        }
    });
    let port = free_port();
    let _proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.try_response(true).unwrap().status(), 200);
        assert_eq!(client.get("/").text(), "good");
    }
}

#[test]
fn bytes_after_a_response_are_nobodys_response() {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.say(
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood\
                 HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON",
            );
        }
    });
    let port = free_port();
    let proxy = TestProxy::start(World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert_eq!(proxy.stats().upstream_idle, 0);
}

/// The real agent with nothing to serve; ends when dropped.
struct Agent {
    process: std::process::Child,
    directory: std::path::PathBuf,
    metrics: u16,
}

impl Agent {
    fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("pilus-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("manifests")).unwrap();
        let metrics = free_port();
        let process = Command::new(env!("CARGO_BIN_EXE_pilus"))
            .args(["run", "--no-bpf", "--manifests", "manifests", "--state-dir", "state"])
            .args(["--admin", "unix:admin.sock", "--metrics", &format!("127.0.0.1:{metrics}")])
            .current_dir(&directory)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { process, directory, metrics };
        while !agent.answers() {
            std::thread::yield_now();
        }
        agent
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.join("admin.sock")
    }

    fn answers(&self) -> bool {
        let address = format!("unix:{}", self.socket().display());
        let command = [env!("CARGO_BIN_EXE_pilus"), "status", "--admin", &address];
        let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
        output.status.success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn scrapers_that_take_every_place_and_never_stop_asking_do_not_silence_the_admin_socket() {
    let agent = Agent::start("hostile-admin");
    let over = AtomicBool::new(false);
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, agent.metrics)).unwrap();
    // More than there are places, and they say nothing.
    let silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    assert!(agent.answers(), "metrics have places of their own");
    drop(silent);
    std::thread::scope(|scope| {
        let flood = |mut asks: UnixStream| {
            let mut answers = asks.try_clone().unwrap();
            let over = &over;
            scope.spawn(move || {
                let questions = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
                while !over.load(Ordering::SeqCst) && asks.write_all(&questions).is_ok() {}
                let _ = asks.shutdown(std::net::Shutdown::Both);
            });
            scope.spawn(move || {
                let mut bytes = vec![0; 1 << 20];
                while answers.read(&mut bytes).is_ok_and(|got| got > 0) {}
            });
        };
        flood(UnixStream::connect(agent.socket()).unwrap());
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                drop(TcpStream::connect((Ipv4Addr::LOCALHOST, agent.metrics)));
            }
        });
        let answered = (0..5).all(|_| agent.answers());
        over.store(true, Ordering::SeqCst);
        assert!(answered, "pipelined questions and floods of connections leave turns to others");
    });
}
