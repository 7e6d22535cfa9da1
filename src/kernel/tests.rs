use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::*;

const A: ServerId = ServerId(0);
const B: ServerId = ServerId(1);
const C: ServerId = ServerId(2);

#[derive(Debug, Clone, PartialEq)]
enum Note {
    Word(&'static str),
    State(u32),
}

impl Message for Note {
    fn supersedes(&self, older: &Self) -> bool {
        matches!((self, older), (Self::State(_), Self::State(_)))
    }
    fn name(&self) -> &'static str {
        "note"
    }
}

type Journal = Rc<RefCell<Vec<String>>>;

/// Forwards what it hears to `to`, writes all down, and sends its state to a restarted peer.
struct Echo {
    name: &'static str,
    to: Option<ServerId>,
    heard: u32,
    wake: Option<Time>,
    journal: Journal,
}

impl Server<Note> for Echo {
    fn handle(&mut self, _now: Time, _from: ServerId, message: Note, out: &mut Outbox<Note>) {
        self.heard += 1;
        self.journal.borrow_mut().push(format!("{} {message:?}", self.name));
        if let Some(to) = self.to {
            out.send(to, message);
        }
    }
    fn timeout(&self) -> Option<Time> {
        self.wake
    }
    fn tick(&mut self, _now: Time, _out: &mut Outbox<Note>) {
        self.wake = None;
        self.journal.borrow_mut().push(format!("{} tick", self.name));
    }
    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Note>) {
        out.send(peer, Note::State(self.heard));
    }
}

fn kernel(journal: &Journal) -> Kernel<Note> {
    let mut kernel = Kernel::new();
    for (id, name, to, may_send) in
        [(A, "a", Some(B), &[B][..]), (B, "b", Some(C), &[C]), (C, "c", None, &[])]
    {
        let journal = Rc::clone(journal);
        kernel.add(Wiring {
            id,
            name,
            may_send,
            mailbox: 2,
            build: Box::new(move || {
                let journal = Rc::clone(&journal);
                let wake = (name == "c").then_some(Time::from_nanos(500));
                Box::new(Echo { name, to, heard: 0, wake, journal })
            }),
        });
    }
    kernel
}

fn heard(journal: &Journal) -> Vec<String> {
    std::mem::take(&mut *journal.borrow_mut())
}

#[test]
fn a_letter_travels_down_the_table() {
    let journal = Journal::default();
    let mut kernel = kernel(&journal);
    kernel.mailer(A).send(A, Note::Word("hello"));
    kernel.step(Time::ZERO);
    assert_eq!(heard(&journal), [r#"a Word("hello")"#, r#"b Word("hello")"#, r#"c Word("hello")"#]);
}

#[test]
fn a_timer_is_called_when_it_is_due() {
    let journal = Journal::default();
    let mut kernel = kernel(&journal);
    assert_eq!(kernel.step(Time::ZERO), Some(Time::from_nanos(500)));
    assert!(heard(&journal).is_empty());
    assert_eq!(kernel.step(Time::from_nanos(500)), None);
    assert_eq!(heard(&journal), ["c tick"]);
}

#[test]
fn a_crash_kills_one_server_and_its_peers_tell_the_new_one_their_state() {
    for victim in [A, B, C] {
        let journal = Journal::default();
        let mut kernel = kernel(&journal);
        kernel.mailer(A).send(A, Note::Word("one"));
        kernel.step(Time::ZERO);
        heard(&journal);
        kernel.crash_next_call(victim);
        kernel.mailer(A).send(A, Note::Word("two"));
        kernel.step(Time::from_nanos(1));
        let dead: Vec<_> = kernel
            .reports()
            .iter()
            .filter(|r| r.state != ServerState::Running)
            .map(|r| r.name)
            .collect();
        assert_eq!(dead, [["a", "b", "c"][usize::from(victim.0)]]);
        let before = heard(&journal);
        assert_eq!(
            before.iter().filter(|line| line.contains("two")).count(),
            usize::from(victim.0)
        );
        kernel.step(Time::from_nanos(1) + supervisor::FIRST_PAUSE);
        assert!(kernel.reports().iter().all(|r| r.state == ServerState::Running));
        let resent = heard(&journal).iter().filter(|line| line.contains("State")).count();
        assert_eq!(resent > 0, victim != A, "the one who sends to {victim:?} repeats its state");
        kernel.mailer(A).send(A, Note::Word("three"));
        kernel.step(Time::from_nanos(2) + supervisor::FIRST_PAUSE);
        assert_eq!(heard(&journal).iter().filter(|line| line.contains("three")).count(), 3);
    }
}

#[test]
fn a_server_that_keeps_crashing_waits_longer_each_time() {
    let mut restarts = supervisor::Restarts::default();
    let pauses: Vec<Duration> =
        (0..12).map(|_| restarts.crashed(Time::ZERO).since(Time::ZERO)).collect();
    assert_eq!(pauses[0], supervisor::FIRST_PAUSE);
    assert_eq!(pauses[1], supervisor::FIRST_PAUSE * 2);
    assert_eq!(*pauses.last().unwrap(), supervisor::LONGEST_PAUSE);
    restarts.started(Time::ZERO);
    let later = Time::ZERO + supervisor::HEALTHY_AFTER;
    assert_eq!(restarts.crashed(later).since(later), supervisor::FIRST_PAUSE);
}

#[test]
fn a_whole_state_replaces_the_one_that_waits_and_a_full_mailbox_refuses() {
    let mut mailbox = Mailbox::new(2);
    assert!(mailbox.push(A, Note::State(1)));
    assert!(mailbox.push(A, Note::Word("x")));
    assert!(mailbox.push(A, Note::State(2)), "takes the place of the older state");
    assert!(!mailbox.push(B, Note::State(3)), "another sender's state does not count");
    assert_eq!(mailbox.refused(), 1);
    assert_eq!(mailbox.pop(), Some((A, Note::Word("x"))));
    assert_eq!(mailbox.pop(), Some((A, Note::State(2))));
    assert_eq!(mailbox.pop(), None);
}

#[test]
fn a_letter_the_wiring_table_forbids_is_a_bug() {
    let journal = Journal::default();
    let mut kernel = kernel(&journal);
    kernel.step(Time::ZERO);
    kernel.mailer(C).send(A, Note::Word("no"));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kernel.step(Time::ZERO)));
    assert!(result.is_err(), "debug builds stop here");
    assert!(heard(&journal).is_empty());
}
