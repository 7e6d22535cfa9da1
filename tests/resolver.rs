//! The resolver on its loop, against a name server of this test on the loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pilus::api::config::Config;
use pilus::api::message::Resolved;
use pilus::api::meta::Str;
use pilus::api::{Message, wiring};
use pilus::io::event_loop::{self, EventLoop};
use pilus::io::resolver::Resolver;
use pilus::kernel::{Kernel, Outbox, Server, ServerId, Time, Wiring, run};

type Seen = Rc<RefCell<BTreeMap<Str, Resolved>>>;

/// Asks for names, and ends the loop when it knows enough.
struct Asker {
    names: Arc<BTreeSet<Str>>,
    seen: Seen,
    enough: fn(&BTreeMap<Str, Resolved>) -> bool,
}

impl Server<Message> for Asker {
    fn start(&mut self, _: Time, out: &mut Outbox<Message>) {
        out.send(wiring::RESOLVER, Message::Resolve(Arc::clone(&self.names)));
    }

    fn handle(&mut self, _: Time, _: ServerId, message: Message, _: &mut Outbox<Message>) {
        let Message::Resolved(resolved) = message else { panic!("{message:?}") };
        *self.seen.borrow_mut() = (*resolved).clone();
        if (self.enough)(&resolved) {
            event_loop::stop();
        }
    }
}

/// A server that knows `nas.test` (and its IPv6 address), sends a forged answer before each true one, and says of
/// everything else that it does not exist.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut message) {
            let question = &message[..length];
            let mut reply = question.to_vec();
            reply[2..4].copy_from_slice(&[0x81, 0x80]);
            let known = question[12..].starts_with(b"\x03nas\x04test\0");
            match (known, question[length - 3]) {
                (false, _) => reply[3] = 0x83,
                (true, 1) => {
                    reply[7] = 1;
                    reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\x09\x08\x07");
                }
                (true, _) => {
                    reply[7] = 1;
                    reply.extend(
                        b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07",
                    );
                }
            }
            let mut forged = reply.clone();
            forged[0] ^= 0xff;
            if let Some(last) = forged.last_mut() {
                *last = 66;
            }
            let _ = socket.send_to(&forged, from);
            let _ = socket.send_to(&reply, from);
        }
    });
    address
}

fn look_up(
    servers: Vec<SocketAddr>,
    names: &[&str],
    enough: fn(&BTreeMap<Str, Resolved>) -> bool,
) -> BTreeMap<Str, Resolved> {
    let config = Arc::new(Config { nameservers: servers, ..Config::default() });
    let seen = Seen::default();
    let names = Arc::new(names.iter().map(|&name| Str::from(name)).collect());
    let mut kernel: Kernel<Message> = Kernel::new();
    let mailer = kernel.mailer(wiring::RESOLVER);
    let asker = Cell::new(Some(Asker { names, seen: Rc::clone(&seen), enough }));
    let mut add = |id, may_send, build: Box<dyn Fn() -> Box<dyn Server<Message>>>| {
        kernel.add(Wiring { id, name: "test", may_send, mailbox: 64, build });
    };
    add(
        wiring::RESOLVER,
        &[wiring::ENDPOINT],
        Box::new(move || Box::new(Resolver::new(Arc::clone(&config), mailer.clone()))),
    );
    add(wiring::ENDPOINT, &[wiring::RESOLVER], Box::new(move || Box::new(asker.take().unwrap())));
    run(&mut kernel, &mut EventLoop);
    seen.take()
}

#[test]
fn names_are_looked_up_and_forged_answers_passed_over() {
    let all = |seen: &BTreeMap<Str, Resolved>| seen.len() == 2;
    let seen = look_up(vec![name_server()], &["nas.test", "gone.test"], all);
    let addresses = ["10.9.8.7", "fd00::7"].map(|ip| ip.parse().unwrap()).to_vec();
    assert_eq!(seen["nas.test"], Resolved { addresses, fault: None });
    assert!(seen["gone.test"].addresses.is_empty());
    let fault = seen["gone.test"].fault.as_ref().unwrap();
    assert!(fault.starts_with("gone.test: the name does not exist, says 127.0.0.1:"), "{fault}");
}

#[test]
fn a_silent_server_is_passed_over_for_the_next() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let servers = vec![silent.local_addr().unwrap(), name_server()];
    let seen = look_up(servers, &["nas.test"], |seen| !seen.is_empty());
    assert_eq!(seen["nas.test"].addresses.len(), 2);
}
