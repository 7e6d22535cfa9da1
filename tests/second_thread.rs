//! Two kernels on two threads: neither waits for the other, and their servers do not notice.
#![expect(clippy::unwrap_used, reason = "a test that cannot do its step must fail")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilus::io::event_loop::EventLoop;
use pilus::io::worker;
use pilus::kernel::{self, Driver, Kernel, Outbox, Server, ServerId, ServerState, Time, Wiring};

const HERE: ServerId = ServerId(0);
const THERE: ServerId = ServerId(1);
const BEAT: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, PartialEq)]
enum Message {
    /// A whole state.
    State(u64),
    Event(u64),
}

impl kernel::Message for Message {
    fn supersedes(&self, older: &Self) -> bool {
        matches!((self, older), (Self::State(_), Self::State(_)))
    }

    fn name(&self) -> &'static str {
        "message"
    }
}

/// Beats on the first thread, as a holder of addresses does, and tells the other server each time.
struct Beating {
    beats: Arc<Mutex<u64>>,
    heard: Arc<Mutex<Vec<Message>>>,
    next: Time,
}

impl Server<Message> for Beating {
    fn handle(&mut self, now: Time, from: ServerId, message: Message, _: &mut Outbox<Message>) {
        if from == HERE {
            self.next = now; // it may begin
        } else {
            self.heard.lock().unwrap().push(message);
        }
    }

    fn timeout(&self) -> Option<Time> {
        Some(self.next)
    }

    fn tick(&mut self, now: Time, out: &mut Outbox<Message>) {
        self.next = now + BEAT;
        let mut beats = self.beats.lock().unwrap();
        *beats += 1;
        out.send(THERE, Message::State(*beats));
        out.send(THERE, Message::Event(*beats));
    }

    fn peer_restarted(&mut self, _: Time, peer: ServerId, _: &mut Outbox<Message>) {
        assert_eq!(peer, THERE);
        self.heard.lock().unwrap().push(Message::State(u64::MAX));
    }
}

/// Is busy with its first letter until it is told to go on; then says what it has got.
struct Busy {
    begun: Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
    first: bool,
}

impl Server<Message> for Busy {
    fn handle(&mut self, _: Time, from: ServerId, message: Message, out: &mut Outbox<Message>) {
        if std::mem::take(&mut self.first) {
            self.begun.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        assert!(message != Message::Event(0), "crashed on purpose");
        out.send(from, message);
    }
}

#[test]
fn the_first_thread_beats_while_the_second_is_busy_and_nothing_is_lost() {
    let (beats, heard) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel();
    let may_go_on = Arc::new(Mutex::new(may_go_on));
    let wire = {
        let (beats, heard) = (Arc::clone(&beats), Arc::clone(&heard));
        move |kernel: &mut Kernel<Message>| {
            let (beats, heard) = (Arc::clone(&beats), Arc::clone(&heard));
            let (begun, go_on) = (begun.clone(), Arc::clone(&may_go_on));
            type Build = Box<dyn Fn() -> Box<dyn Server<Message>>>;
            let mut add = |id, name, may_send, build: Build| {
                kernel.add(Wiring { id, name, may_send, mailbox: 4096, build });
            };
            let here = move || -> Box<dyn Server<Message>> {
                let (beats, heard) = (Arc::clone(&beats), Arc::clone(&heard));
                Box::new(Beating { beats, heard, next: Time::MAX })
            };
            add(HERE, "here", &[THERE], Box::new(here));
            let built = AtomicBool::new(false);
            let there = move || -> Box<dyn Server<Message>> {
                // Built anew it is not busy.
                let first = !built.swap(true, Ordering::SeqCst);
                Box::new(Busy { begun: begun.clone(), go_on: Arc::clone(&go_on), first })
            };
            add(THERE, "there", &[HERE], Box::new(there));
            Ok(())
        }
    };
    let mut kernel = Kernel::new();
    let second = worker::split(&mut kernel, &[HERE], &[THERE], wire).unwrap();
    let mailer = kernel.mailer(HERE);
    assert!(mailer.send(HERE, Message::State(0)));
    let mut driver = EventLoop;
    let mut turn_until = |so: &mut dyn FnMut() -> bool| {
        while !so() {
            let next = kernel.step(driver.now());
            driver.wait(if kernel.has_mail() { Some(Time::ZERO) } else { next });
        }
    };
    turn_until(&mut || has_begun.try_recv().is_ok());
    let before = *beats.lock().unwrap();
    // It cannot go on before these beats were made: if it held up this thread, this would never end.
    turn_until(&mut || *beats.lock().unwrap() >= before + 50);
    assert!(heard.lock().unwrap().is_empty());
    go_on.send(()).unwrap();
    let events = |heard: &[Message]| -> Vec<u64> {
        let number = |message: &Message| match message {
            Message::Event(number) => Some(*number),
            Message::State(_) => None,
        };
        heard.iter().filter_map(number).collect()
    };
    turn_until(&mut || events(&heard.lock().unwrap()).len() >= 60);
    let all = heard.lock().unwrap().clone();
    let numbers = events(&all);
    assert!(numbers.iter().zip(1..).all(|(number, nth)| *number == nth), "{numbers:?}");
    // Of the states that piled up the newest was enough.
    let states = all.iter().filter(|message| matches!(message, Message::State(_))).count();
    assert!(states < numbers.len() / 2, "{states} states, {} events", numbers.len());
    // It dies at one letter and is built anew; its peer on the other thread is told.
    assert!(mailer.send(THERE, Message::Event(0)));
    turn_until(&mut || heard.lock().unwrap().contains(&Message::State(u64::MAX)));
    let count = events(&heard.lock().unwrap()).len();
    turn_until(&mut || events(&heard.lock().unwrap()).len() > count);
    let reports = mailer.reports();
    let shown = reports.iter().map(|report| (report.name, report.crashes, report.state));
    let expected = [("here", 0, ServerState::Running), ("there", 1, ServerState::Running)];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    second.end();
}
