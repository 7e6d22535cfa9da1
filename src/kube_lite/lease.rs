//! Election by a Lease (coordination.k8s.io/v1), as the controllers of Kubernetes hold theirs.
//!
//! Clocks of nodes differ, so a lease has expired when its record has not changed for its whole duration by the clock
//! of the one that looks. The resource version makes sure that only one of several writers succeeds.
use std::fmt::Write as _;
use std::time::Duration;

use super::json::{Json, push_string};
use super::time;

/// The times of an election.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// So long after its last change somebody else may take the lease.
    pub duration: Duration,
    /// The holder renews it so often; what fails is tried again after a quarter of this.
    pub renew: Duration,
    /// The holder gives up if it could not renew for so long: less than `duration`, so that there are never two.
    pub deadline: Duration,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The lease does not exist: POST this.
    Create(String),
    /// PUT this.
    Replace(String),
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    namespace: String,
    name: String,
    me: String,
    terms: Terms,
    seen: Option<Seen>,
    /// It is known that there is none.
    absent: bool,
    /// When the last write of ours that went through was begun.
    renewed: Option<Duration>,
    /// When the next write is due.
    next: Duration,
    /// The write under way, and when it was begun.
    writing: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    version: String,
    holder: String,
    renewed: String,
    acquired: String,
    transitions: i64,
    /// When this was first seen.
    since: Duration,
}

// === impl Election ===

impl Election {
    /// A candidate that knows nothing yet. Times are of a clock that never goes back.
    #[must_use]
    pub fn new(namespace: &str, name: &str, me: &str, terms: Terms) -> Self {
        let [namespace, name, me] = [namespace, name, me].map(str::to_owned);
        let (seen, renewed, writing) = (None, None, None);
        Self {
            namespace,
            name,
            me,
            terms,
            seen,
            absent: false,
            renewed,
            next: Duration::ZERO,
            writing,
        }
    }

    /// The lease as it is on the server, None if there is none.
    pub fn observe(&mut self, lease: Option<Json<'_>>, now: Duration) {
        self.absent = lease.is_none();
        let Some(lease) = lease else {
            self.seen = None;
            return;
        };
        let text =
            |path: &[&str]| lease.at(path).and_then(Json::string).unwrap_or_default().into_owned();
        let seen = Seen {
            version: text(&["metadata", "resourceVersion"]),
            holder: text(&["spec", "holderIdentity"]),
            renewed: text(&["spec", "renewTime"]),
            acquired: text(&["spec", "acquireTime"]),
            transitions: lease
                .at(&["spec", "leaseTransitions"])
                .and_then(Json::int)
                .unwrap_or_default(),
            since: now,
        };
        if seen.holder != self.me {
            self.renewed = None;
        }
        match &mut self.seen {
            Some(old) if old.holder == seen.holder && old.renewed == seen.renewed => {
                old.version = seen.version;
            }
            old => *old = Some(seen),
        }
    }

    /// Whether this candidate holds the lease at `now`.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed + self.terms.deadline)
    }

    /// Who holds it, as far as is known; empty if nobody.
    #[must_use]
    pub fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |seen| &seen.holder)
    }

    /// When [`Election::tick`] has something to do.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if self.writing.is_some() {
            return None;
        }
        match &self.seen {
            None => self.absent.then_some(self.next),
            Some(seen) if seen.holder == self.me || seen.holder.is_empty() => Some(self.next),
            Some(seen) => Some(self.next.max(seen.since + self.terms.duration)),
        }
    }

    /// What is to be written at `now`, if anything; [`Election::written`] must be told the outcome.
    pub fn tick(&mut self, now: Duration, unix: Duration) -> Option<Write> {
        if self.timeout().is_none_or(|due| due > now) {
            return None;
        }
        self.writing = Some(now);
        let time = time::format(unix.as_secs(), Some(unix.subsec_micros()));
        let mut body = String::from(
            r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"#,
        );
        push_string(&mut body, &self.name);
        body.push_str(r#","namespace":"#);
        push_string(&mut body, &self.namespace);
        let (mut acquired, mut transitions) = (&*time, 0);
        if let Some(seen) = &self.seen {
            body.push_str(r#","resourceVersion":"#);
            push_string(&mut body, &seen.version);
            let ours = seen.holder == self.me;
            transitions = seen.transitions + i64::from(!ours);
            if ours && !seen.acquired.is_empty() {
                acquired = &seen.acquired;
            }
        }
        body.push_str(r#"},"spec":{"holderIdentity":"#);
        push_string(&mut body, &self.me);
        let seconds = self.terms.duration.as_secs();
        let _ = write!(body, r#","leaseDurationSeconds":{seconds},"acquireTime":"#);
        push_string(&mut body, acquired);
        body.push_str(r#","renewTime":"#);
        push_string(&mut body, &time);
        let _ = write!(body, r#","leaseTransitions":{transitions}}}}}"#);
        Some(if self.seen.is_some() { Write::Replace(body) } else { Write::Create(body) })
    }

    /// The write is over; the lease as the server has it now, if it went through.
    pub fn written(&mut self, lease: Option<Json<'_>>, now: Duration) {
        let began = self.writing.take();
        if lease.is_some() {
            self.observe(lease, now);
            self.renewed = began;
            self.next = now + self.terms.renew;
        } else {
            self.next = now + self.terms.renew / 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        duration: Duration::from_secs(30),
        renew: Duration::from_secs(10),
        deadline: Duration::from_secs(25),
    };

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A server that knows one lease.
    #[derive(Default)]
    struct Server {
        lease: Option<String>,
        version: u32,
    }

    impl Server {
        /// Takes a write, if its version is the current one.
        fn take(&mut self, write: &Write) -> bool {
            let (Write::Create(body) | Write::Replace(body)) = write;
            let json = Json::check(body).unwrap();
            let version = json.at(&["metadata", "resourceVersion"]).and_then(Json::string);
            let current = self.lease.as_ref().map(|_| self.version.to_string());
            if version.as_deref() != current.as_deref() {
                return false;
            }
            self.version += 1;
            let rest =
                body.replacen(&format!(r#","resourceVersion":"{}""#, self.version - 1), "", 1);
            let with = format!(r#""metadata":{{"resourceVersion":"{}","#, self.version);
            self.lease = Some(rest.replacen(r#""metadata":{"#, &with, 1));
            true
        }

        fn json(&self) -> Option<Json<'_>> {
            self.lease.as_deref().and_then(Json::check)
        }
    }

    fn step(candidate: &mut Election, server: &mut Server, now: Duration, reaches: bool) {
        if let Some(write) = candidate.tick(now, now) {
            let taken = reaches && server.take(&write);
            candidate.written(if taken { server.json() } else { None }, now);
        }
    }

    #[test]
    fn one_leads_and_the_other_follows_when_it_is_gone() {
        let mut server = Server::default();
        let mut a = Election::new("ns", "l", "a", TERMS);
        let mut b = Election::new("ns", "l", "b", TERMS);
        assert_eq!(a.timeout(), None, "nothing is written before anything is known");
        for second in 0..200 {
            let now = at(second);
            for candidate in [&mut a, &mut b] {
                candidate.observe(server.json(), now);
            }
            let cut = second >= 100;
            step(&mut a, &mut server, now, !cut);
            step(&mut b, &mut server, now, true);
            assert!(!(a.leads(now) && b.leads(now)), "two at {second}");
            match second {
                1..=99 => assert!(a.leads(now), "{second}"),
                // Renewed at 90, it steps down at 115. The other has seen that at 91.
                100..115 => assert!(a.leads(now), "{second}"),
                115..121 => assert!(!a.leads(now) && !b.leads(now), "{second}"),
                121.. => assert!(b.leads(now), "{second}"),
                _ => {}
            }
        }
        assert_eq!((a.holder(), b.holder()), ("b", "b"));
        let transitions =
            server.json().unwrap().at(&["spec", "leaseTransitions"]).and_then(Json::int);
        assert_eq!(transitions, Some(1));
        // Renewals: one each ten seconds.
        assert_eq!(server.version, 10 + 8);
    }

    #[test]
    fn of_two_that_write_at_once_one_wins() {
        let mut server = Server::default();
        let mut a = Election::new("ns", "l", "a", TERMS);
        let mut b = Election::new("ns", "l", "b", TERMS);
        a.observe(None, at(0));
        b.observe(None, at(0));
        let (first, second) = (a.tick(at(0), at(0)).unwrap(), b.tick(at(0), at(0)).unwrap());
        assert!(server.take(&second));
        assert!(!server.take(&first));
        a.written(None, at(0));
        b.written(server.json(), at(0));
        assert!(b.leads(at(1)) && !a.leads(at(1)));
        a.observe(server.json(), at(1));
        assert_eq!(a.timeout(), Some(at(31)));
    }
}
