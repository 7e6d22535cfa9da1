//! The object store: merging, fixed point, view.
use std::sync::Arc;
use std::time::Duration;

use pilus::api::Message;
use pilus::api::message::wiring;
use pilus::api::meta::{Kind, Meta, Origin};
use pilus::api::object::Service;
use pilus::api::objects::{Generated, Objects};
use pilus::api::problem::{Problem, Severity};
use pilus::api::query::View;
use pilus::api::status::{Condition, ObjectStatus, Statuses, Truth};
use pilus::kernel::{Outbox, Server, ServerId, Time};
use pilus::server::store::StoreServer;

use crate::build::*;

struct Bench {
    store: StoreServer,
    now: Time,
    sent: Vec<(ServerId, Message)>,
}

impl Bench {
    fn new() -> Self {
        Self { store: StoreServer::new(UNIX, &[wiring::ADMIN]), now: Time::ZERO, sent: Vec::new() }
    }

    fn send(&mut self, from: ServerId, message: Message) {
        self.store.handle(self.now, from, message, &mut Outbox::new());
    }

    fn source(&mut self, objects: &Objects) {
        self.send(wiring::MANIFESTS, Message::Source(Arc::new(objects.clone())));
    }

    fn statuses(&mut self, from: ServerId, statuses: Statuses) {
        self.send(from, Message::Statuses(Arc::new(statuses)));
    }

    /// One tick, if one is due; returns who was sent something.
    fn tick(&mut self) -> Vec<ServerId> {
        if self.store.timeout().is_none_or(|at| at > self.now) {
            return Vec::new();
        }
        let mut out = Outbox::new();
        self.store.tick(self.now, &mut out);
        let letters = out.take();
        let to = letters.iter().map(|(to, _)| *to).collect();
        self.sent.extend(letters);
        to
    }

    /// Ticks until there is nothing to do; returns the number of ticks.
    fn settle(&mut self) -> usize {
        for count in 0..100 {
            // What it keeps of before is looked at later.
            if self.store.timeout().is_none_or(|at| at > self.now) {
                return count;
            }
            self.tick();
        }
        panic!("it never settles");
    }

    fn objects(&self, of: ServerId) -> Arc<Objects> {
        let mut letters = self.sent.iter().rev();
        letters
            .find_map(|(to, message)| match message {
                Message::Objects(objects) if *to == of => Some(Arc::clone(objects)),
                _ => None,
            })
            .unwrap()
    }

    fn view(&self) -> Arc<View> {
        let mut letters = self.sent.iter().rev();
        letters
            .find_map(|(_, message)| match message {
                Message::View(view) => Some(Arc::clone(view)),
                _ => None,
            })
            .unwrap()
    }
}

fn made(names: &[&str]) -> Statuses {
    let services = names.iter().map(|text| {
        let meta = Meta { origin: Origin::Generated("route"), ..meta(text) };
        Arc::new(Service { meta, ..service(text, &[("http", 80)]) })
    });
    let generated = Arc::new(Generated { services: services.collect(), ..Generated::default() });
    Statuses { generated, ..Statuses::default() }
}

fn problem(message: &str) -> Problem {
    Problem {
        position: None,
        object: None,
        field: String::new(),
        message: message.to_owned(),
        severity: Severity::Error,
    }
}

#[test]
fn makers_first_users_when_nothing_changes_any_more() {
    let mut bench = Bench::new();
    bench.statuses(wiring::IPAM, Statuses::default());
    assert_eq!(bench.tick(), [], "nothing to tell before the source has spoken");
    bench.source(&objects(&[]));
    assert_eq!(bench.tick(), [wiring::ENDPOINT, wiring::ROUTE]);
    bench.statuses(wiring::ROUTE, made(&["default/pilus-ingress-web"]));
    assert_eq!(bench.tick(), [wiring::ENDPOINT, wiring::ROUTE]);
    assert_eq!(bench.tick(), [wiring::SERVICE, wiring::IPAM, wiring::ANNOUNCE, wiring::ADMIN]);
    assert_eq!(bench.store.timeout(), None);
    let seen = bench.objects(wiring::IPAM);
    assert!(seen.services.contains_key(&name("default/pilus-ingress-web")));
    assert!(Arc::ptr_eq(&seen, &bench.objects(wiring::ROUTE)));
    assert!(Arc::ptr_eq(&seen, &bench.view().objects));
    let first = bench.sent.iter().find(|(to, _)| *to == wiring::IPAM).unwrap();
    let Message::Objects(first) = &first.1 else { panic!() };
    assert!(Arc::ptr_eq(first, &seen), "users never saw an incomplete snapshot");
}

#[test]
fn an_empty_source_is_published_too() {
    let mut bench = Bench::new();
    bench.source(&Objects::default());
    assert!(bench.settle() <= 3);
    assert_eq!(bench.objects(wiring::IPAM).services.len(), 0);
    assert!(bench.view().problems.is_empty());
}

#[test]
fn what_is_equal_is_not_published_again() {
    let web = || ingress("default/web").rule("*", &[("/", 'P', "a:80")]);
    let mut bench = Bench::new();
    bench.source(&objects(&[web()]));
    bench.statuses(wiring::ROUTE, made(&["default/g"]));
    bench.settle();
    let before = bench.objects(wiring::IPAM);
    bench.sent.clear();
    // Everything anew, nothing different: as after a restart of manifests and route.
    bench.source(&objects(&[web()]));
    bench.statuses(wiring::ROUTE, made(&["default/g"]));
    bench.settle();
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    // One kind changes: the other tables stay the same, and so do the other objects of this kind.
    let mut changed = objects(&[web()]);
    put(&mut changed.services, service("default/a", &[("http", 8080)]));
    bench.source(&changed);
    bench.settle();
    let after = bench.objects(wiring::IPAM);
    assert!(after.generation > before.generation);
    assert!(Arc::ptr_eq(&after.ingresses, &before.ingresses));
    assert!(Arc::ptr_eq(&after.secrets, &before.secrets));
    assert!(!Arc::ptr_eq(&after.services, &before.services));
    for (text, same) in [("default/a", false), ("default/b", true), ("default/g", true)] {
        let name = name(text);
        assert_eq!(Arc::ptr_eq(&after.services[&name], &before.services[&name]), same, "{text}");
    }
}

#[test]
fn two_makers_that_never_agree_do_not_starve_the_users() {
    let mut bench = Bench::new();
    bench.source(&objects(&[]));
    let mut users = 0;
    for round in 0..20 {
        bench.statuses(wiring::ROUTE, made(&[&format!("default/g{round}")]));
        users += usize::from(bench.tick().contains(&wiring::IPAM));
    }
    assert_eq!(users, 5);
}

#[test]
fn a_made_object_never_replaces_one_that_was_read() {
    let mut bench = Bench::new();
    bench.source(&objects(&[]));
    bench.statuses(wiring::ROUTE, made(&["default/a", "default/new"]));
    bench.settle();
    let seen = bench.objects(wiring::IPAM);
    assert!(matches!(seen.services[&name("default/a")].meta.origin, Origin::File(_)));
    assert!(matches!(seen.services[&name("default/new")].meta.origin, Origin::Generated("route")));
    let view = bench.view();
    assert_eq!(view.problems.len(), 1);
    let text = view.problems[0].1.to_string();
    assert!(text.starts_with("a.yaml:1:1: Service default/a: metadata.name: "), "{text}");
    // It is made as soon as the name is free.
    let mut objects = objects(&[]);
    let mut services = (*objects.services).clone();
    services.remove(&name("default/a"));
    objects.services = Arc::new(services);
    bench.source(&objects);
    bench.settle();
    let seen = bench.objects(wiring::IPAM);
    assert!(matches!(seen.services[&name("default/a")].meta.origin, Origin::Generated("route")));
    assert!(bench.view().problems.is_empty());
}

#[test]
fn the_view_merges_and_remembers_when_things_began() {
    let key = key(Kind::Service, "default/a");
    let condition = |kind, status, message: &str| Condition {
        kind,
        status,
        reason: "r".into(),
        message: message.to_owned(),
    };
    let says = |conditions: Vec<Condition>, ip: Option<&str>, problems: &[&str]| Statuses {
        by_object: [(
            key.clone(),
            ObjectStatus {
                conditions,
                load_balancer: ip.map(|ip| vec![ip.parse().unwrap()]),
                ..ObjectStatus::default()
            },
        )]
        .into(),
        problems: problems.iter().map(|text| problem(text)).collect(),
        ..Statuses::default()
    };
    let start = UNIX.as_secs();
    let mut bench = Bench::new();
    bench.source(&objects(&[]));
    bench.statuses(
        wiring::IPAM,
        says(vec![condition("ip", Truth::True, "1")], Some("10.0.0.1"), &["z", "a"]),
    );
    bench.statuses(wiring::DATAPATH, says(vec![condition("dp", Truth::False, "")], None, &["a"]));
    bench.settle();
    let view = bench.view();
    let shown = &view.statuses[&key];
    let conditions: Vec<_> =
        shown.conditions.iter().map(|(c, at)| (c.kind, c.status, *at)).collect();
    assert_eq!(conditions, [("ip", Truth::True, start), ("dp", Truth::False, start)]);
    assert_eq!(shown.load_balancer, Some(vec!["10.0.0.1".parse().unwrap()]));
    let problems: Vec<_> = view.problems.iter().map(|(at, p)| (*at, &*p.message)).collect();
    assert_eq!(problems, [(start, "a"), (start, "z")]);
    // Ten seconds later: a new message is no transition, a new status is; old complaints stay old.
    bench.now = Time::ZERO + Duration::from_secs(10);
    bench.statuses(
        wiring::IPAM,
        says(vec![condition("ip", Truth::True, "2")], Some("10.0.0.1"), &["z", "b"]),
    );
    bench.statuses(wiring::DATAPATH, says(vec![condition("dp", Truth::True, "")], None, &[]));
    bench.settle();
    let view = bench.view();
    let shown = &view.statuses[&key];
    let conditions: Vec<_> = shown.conditions.iter().map(|(c, at)| (&*c.message, *at)).collect();
    assert_eq!(conditions, [("2", start), ("", start + 10)]);
    let problems: Vec<_> = view.problems.iter().map(|(at, p)| (*at, &*p.message)).collect();
    assert_eq!(problems, [(start + 10, "b"), (start, "z")]);
    // Statuses change nothing for those who see objects only: two makers and three users have seen them once.
    let objects = bench.sent.iter().filter(|(_, m)| matches!(m, Message::Objects(_))).count();
    assert_eq!(objects, 5);
}

#[test]
fn restarted_peers_get_what_they_had() {
    let mut bench = Bench::new();
    let mut out = Outbox::new();
    for peer in [wiring::IPAM, wiring::ROUTE, wiring::ADMIN] {
        bench.store.peer_restarted(Time::ZERO, peer, &mut out);
    }
    assert!(out.take().is_empty(), "nothing is known yet");
    bench.source(&objects(&[]));
    bench.settle();
    for peer in [wiring::IPAM, wiring::ROUTE, wiring::ENDPOINT, wiring::ANNOUNCE, wiring::ADMIN] {
        bench.store.peer_restarted(Time::ZERO, peer, &mut out);
        assert_eq!(out.take().len(), 1, "{peer:?}");
    }
}
