//! The four servers in the real kernel, with stubs around them: from objects to listeners and back to
//! status, and the same again after each of them has died.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use pilus::api::Message;
use pilus::api::address::Assignments;
use pilus::api::announce::Answers;
use pilus::api::config::Config;
use pilus::api::datapath::{Program, Programmed};
use pilus::api::endpoint::Endpoints;
use pilus::api::message::wiring;
use pilus::api::object::{Pod, ServiceType};
use pilus::api::objects::Objects;
use pilus::api::query::View;
use pilus::api::route::ListenerTable;
use pilus::kernel::{Kernel, Outbox, Server, ServerId, ServerState, Time, Wiring, supervisor};
use pilus::server::datapath::DatapathServer;
use pilus::server::endpoint::EndpointServer;
use pilus::server::route::RouteServer;
use pilus::server::store::StoreServer;

use crate::build::*;
use crate::gateway_build::{HttpBuild as _, gateway, http, on};

/// What has arrived at the ends.
#[derive(Default)]
struct Seen {
    source: Arc<Objects>,
    listeners: Arc<ListenerTable>,
    endpoints: Arc<Endpoints>,
    view: Arc<View>,
    programs: Vec<Arc<Program>>,
    /// How many LoadBalancer Services each snapshot had that LB-IPAM saw.
    snapshots: Vec<usize>,
    released: u32,
}

type Shared = Rc<RefCell<Seen>>;

/// Stands for everybody who is not tested here.
struct Stub {
    id: ServerId,
    seen: Shared,
    assignments: Arc<Assignments>,
}

impl Stub {
    fn source(&self, out: &mut Outbox<Message>) {
        out.send(wiring::STORE, Message::Source(Arc::clone(&self.seen.borrow().source)));
    }

    /// Gives each LoadBalancer Service an address, in the order of names.
    fn assign(&mut self, objects: &Objects, out: &mut Outbox<Message>) {
        let balanced: Vec<_> = objects
            .services
            .values()
            .filter(|service| service.kind == ServiceType::LoadBalancer)
            .map(|service| service.meta.name.clone())
            .collect();
        self.seen.borrow_mut().snapshots.push(balanced.len());
        let by_service: BTreeMap<_, Vec<IpAddr>> = balanced
            .into_iter()
            .zip(211..)
            .map(|(name, last)| (name, vec![Ipv4Addr::new(192, 168, 10, last).into()]))
            .collect();
        self.assignments = Arc::new(Assignments { by_service, ..Assignments::default() });
        for peer in [wiring::ROUTE, wiring::DATAPATH] {
            self.tell_assignments(peer, out);
        }
    }

    fn tell_assignments(&self, peer: ServerId, out: &mut Outbox<Message>) {
        out.send(peer, Message::Assignments(Arc::clone(&self.assignments)));
        if peer == wiring::DATAPATH {
            let considered = self.assignments.by_service.values().flatten().copied().collect();
            let answers = Answers { considered, ..Answers::default() };
            out.send(peer, Message::Answers(Arc::new(answers)));
        }
    }

    fn acknowledge(program: &Program, out: &mut Outbox<Message>) {
        let programmed = Programmed {
            generation: program.generation,
            failures: Vec::new(),
            unhooked: BTreeMap::new(),
        };
        out.send(wiring::DATAPATH, Message::Programmed(Arc::new(programmed)));
    }
}

impl Stub {
    fn listening(listeners: &ListenerTable, out: &mut Outbox<Message>) {
        let message = Message::Listening(listeners.generation, Arc::new([]));
        out.send(wiring::DATAPATH, message);
    }
}

impl Server<Message> for Stub {
    fn start(&mut self, _now: Time, out: &mut Outbox<Message>) {
        if self.id == wiring::MANIFESTS {
            self.source(out);
        }
    }

    fn handle(&mut self, _now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match (self.id, message) {
            (wiring::IPAM, Message::Objects(objects)) => self.assign(&objects, out),
            (wiring::ANNOUNCE, Message::Objects(_) | Message::Endpoints(_)) => {}
            (wiring::PROXY, Message::Listeners(listeners)) => {
                Self::listening(&listeners, out);
                self.seen.borrow_mut().listeners = listeners;
            }
            (wiring::PROXY, Message::Endpoints(endpoints)) => {
                self.seen.borrow_mut().endpoints = endpoints;
            }
            (wiring::ADMIN, Message::View(view)) => self.seen.borrow_mut().view = view,
            // What the others are told is shown to people as well.
            (wiring::ADMIN, Message::Routes(_) | Message::Listeners(_) | Message::Endpoints(_)) => {
            }
            (wiring::BPF, Message::Program(program)) => {
                Self::acknowledge(&program, out);
                self.seen.borrow_mut().programs.push(program);
            }
            (wiring::SIGNAL, Message::Released) => self.seen.borrow_mut().released += 1,
            (id, message) => panic!("{id:?} got {message:?}"),
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        match self.id {
            wiring::MANIFESTS => self.source(out),
            wiring::PROXY if peer == wiring::DATAPATH => {
                Self::listening(&self.seen.borrow().listeners, out);
            }
            wiring::IPAM if peer != wiring::STORE => self.tell_assignments(peer, out),
            wiring::BPF => {
                if let Some(program) = self.seen.borrow().programs.last() {
                    Self::acknowledge(program, out);
                }
            }
            _ => {}
        }
    }
}

struct Node {
    kernel: Kernel<Message>,
    seen: Shared,
    now: Time,
}

/// Each server with those it may send to; what main.rs must allow at least.
const WIRING: [(ServerId, &str, &[ServerId]); 11] = [
    (wiring::SIGNAL, "signal", &[wiring::DATAPATH]),
    (wiring::MANIFESTS, "manifests", &[wiring::STORE]),
    (
        wiring::STORE,
        "store",
        &[
            wiring::SERVICE,
            wiring::IPAM,
            wiring::ENDPOINT,
            wiring::ROUTE,
            wiring::ANNOUNCE,
            wiring::ADMIN,
        ],
    ),
    (wiring::IPAM, "ipam", &[wiring::STORE, wiring::ROUTE, wiring::DATAPATH]),
    (
        wiring::ENDPOINT,
        "endpoint",
        &[wiring::STORE, wiring::SERVICE, wiring::ANNOUNCE, wiring::PROXY, wiring::ADMIN],
    ),
    (wiring::ROUTE, "route", &[wiring::STORE, wiring::SERVICE, wiring::DATAPATH, wiring::ADMIN]),
    (wiring::ANNOUNCE, "announce", &[]),
    (
        wiring::DATAPATH,
        "datapath",
        &[wiring::STORE, wiring::ROUTE, wiring::BPF, wiring::PROXY, wiring::SIGNAL, wiring::ADMIN],
    ),
    (wiring::BPF, "bpf", &[wiring::DATAPATH]),
    (wiring::PROXY, "proxy", &[wiring::DATAPATH]),
    (wiring::ADMIN, "admin", &[]),
];

impl Node {
    fn new(source: Objects) -> Self {
        let seen: Shared = Rc::default();
        seen.borrow_mut().source = Arc::new(source);
        let mut kernel = Kernel::new();
        for (id, name, may_send) in WIRING {
            let seen = Rc::clone(&seen);
            let config = Arc::new(shared());
            let build = Box::new(move || build(id, &config, &seen));
            kernel.add(Wiring { id, name, may_send, mailbox: 64, build });
        }
        let mut node = Self { kernel, seen, now: Time::from_nanos(1) };
        node.run();
        node
    }

    /// Steps until there is nothing to do now.
    fn run(&mut self) {
        for _ in 0..1000 {
            if self.kernel.step(self.now).is_none_or(|next| next > self.now) {
                return;
            }
        }
        panic!("the servers never come to rest");
    }

    fn apply(&mut self, source: Objects) {
        let source = Arc::new(source);
        self.seen.borrow_mut().source = Arc::clone(&source);
        self.kernel.mailer(wiring::MANIFESTS).send(wiring::STORE, Message::Source(source));
        self.run();
    }

    /// Lets `victim` die of its next letter and come back.
    fn crash(&mut self, victim: ServerId) {
        self.kernel.crash_next_call(victim);
        // A letter that means nothing to anyone but needs a call.
        self.kernel.mailer(victim).send(victim, Message::Released);
        self.kernel.step(self.now);
        let dead = |state| matches!(state, ServerState::Restarting(_));
        let reports = self.kernel.reports();
        assert_eq!(reports.iter().filter(|report| dead(report.state)).count(), 1);
        self.now = self.now + supervisor::LONGEST_PAUSE;
        self.run();
        let reports = self.kernel.reports();
        assert!(reports.iter().all(|report| report.state == ServerState::Running));
        assert!(reports.iter().all(|report| report.refused == 0), "{reports:#?}");
    }

    /// Everything that can be seen at the ends, without version numbers and times.
    fn state(&self) -> String {
        let seen = self.seen.borrow();
        let mut lines = Vec::new();
        for ((ip, port, _), listener) in &seen.listeners.by_address {
            lines.push(format!("listener {ip} {port} {:?}", listener.service));
        }
        for (port, list) in &seen.endpoints.by_port {
            let list: Vec<String> = list.iter().map(|e| e.address.to_string()).collect();
            lines.push(format!("endpoints {}:{} {list:?}", port.service, port.port));
        }
        if let Some(program) = seen.programs.last() {
            lines.push(format!("program {:?}", program.steers));
        }
        let services = seen.view.objects.services.keys();
        lines.extend(services.map(|name| format!("service {name}")));
        let slices = seen.view.objects.endpoint_slices.keys();
        lines.extend(slices.map(|name| format!("slice {name}")));
        for (key, status) in seen.view.statuses.iter() {
            let conditions: Vec<_> = status.conditions.iter().map(|(c, _)| c).collect();
            lines.push(format!(
                "status {key} {conditions:?} {:?} {:?}",
                status.load_balancer, status.ports
            ));
        }
        lines.extend(seen.view.problems.iter().map(|(_, problem)| format!("problem {problem}")));
        lines.sort();
        lines.join("\n")
    }
}

fn build(id: ServerId, config: &Arc<Config>, seen: &Shared) -> Box<dyn Server<Message>> {
    match id {
        wiring::STORE => Box::new(StoreServer::new(UNIX, &[wiring::ADMIN])),
        wiring::ENDPOINT => Box::new(EndpointServer::new()),
        wiring::ROUTE => Box::new(RouteServer::new(Arc::clone(config), UNIX)),
        wiring::DATAPATH => Box::new(DatapathServer::new(config)),
        _ => Box::new(Stub { id, seen: Rc::clone(seen), assignments: Arc::default() }),
    }
}

fn source() -> Objects {
    let (chain, key) = certificate(&["t.com"], 2025, 2030);
    let mut objects = objects(&[
        ingress("default/basic").rule("*", &[("/a", 'P', "a:80"), ("/", 'P', "web:80")]),
        ingress("default/tls").rule("t.com", &[("/", 'P', "b:80")]).tls(&["t.com"], "s"),
        ingress("default/own")
            .note("loadbalancer-mode", "dedicated")
            .rule("*", &[("/", 'P', "gone:80")]),
        ingress("default/nginx").class(Some("nginx")).rule("*", &[("/", 'P', "c:80")]),
    ]);
    put(&mut objects.secrets, secret("default/s", &chain, &key));
    put(&mut objects.pods, pod("default/a1", "a", &["10.0.0.1"]));
    put(&mut objects.pods, pod("default/b1", "b", &["10.0.0.2"]));
    objects
}

#[test]
fn from_objects_to_listeners_and_back_to_status() {
    let node = Node::new(source());
    let state = node.state();
    for line in [
        "listener 192.168.10.211 80 default/pilus-ingress-own",
        "listener 192.168.10.212 80 kube-system/pilus-ingress",
        "listener 192.168.10.212 443 kube-system/pilus-ingress",
        "endpoints default/a:80 [\"10.0.0.1:80\"]",
        "endpoints default/web:80 []",
        "service kube-system/pilus-ingress",
        "status Ingress default/basic [] Some([192.168.10.212]) [80, 443]",
        "status Ingress default/own [] Some([192.168.10.211]) [80]",
        "problem own.yaml:1:1: Ingress default/own: spec.rules[0].http.paths[0].backend.service.name: Service default/gone does not exist; requests get 503",
    ] {
        assert!(state.lines().any(|known| known == line), "{line} is not in\n{state}");
    }
    assert!(state.contains("192.168.10.212:80, 192.168.10.212:443 reach the proxy"), "{state}");
    assert!(!state.contains("nginx"), "{state}");
    let seen = node.seen.borrow();
    assert_eq!(seen.snapshots, [2], "LB-IPAM saw one snapshot, and it was complete");
    assert_eq!(seen.programs.len(), 1);
    let slices = seen.view.objects.endpoint_slices.len();
    assert_eq!(slices, 5, "one for each Service with a selector");
}

#[test]
fn each_server_dies_once_and_the_state_is_the_same_again() {
    for victim in [wiring::STORE, wiring::ENDPOINT, wiring::ROUTE, wiring::DATAPATH] {
        let mut node = Node::new(source());
        let before = node.state();
        let steers = node.seen.borrow().programs[0].steers.clone();
        node.crash(victim);
        assert_eq!(node.state(), before, "{victim:?}");
        {
            let seen = node.seen.borrow();
            assert!(seen.programs.iter().all(|p| p.steers == steers), "{victim:?}: never less");
            assert!(seen.snapshots.iter().all(|&count| count == 2), "{victim:?}: never fewer");
            let programs = 1 + usize::from(victim == wiring::DATAPATH);
            assert_eq!(seen.programs.len(), programs, "{victim:?}: told anew by the new one only");
        }
        // It lives: a change goes all the way.
        let mut changed = source();
        put(&mut changed.pods, pod("default/a1", "a", &["10.0.0.9"]));
        let more = ingress("default/more")
            .note("loadbalancer-mode", "dedicated")
            .rule("*", &[("/", 'P', "a:80")]);
        put(&mut changed.ingresses, more.0);
        node.apply(changed);
        let state = node.state();
        assert!(state.contains("endpoints default/a:80 [\"10.0.0.9:80\"]"), "{victim:?}\n{state}");
        assert!(state.contains("listener 192.168.10.211 80 default/pilus-ingress-more"));
        assert!(state.contains("status Ingress default/more [] Some([192.168.10.211]) [80]"));
    }
}

/// A Gateway with one HTTPRoute.
fn with_gateway() -> Objects {
    let mut objects = crate::gateway_build::cluster();
    let listeners = [on("http 80 HTTP")];
    put(&mut objects.gateways, gateway("infra/gw", &listeners));
    put(&mut objects.http_routes, http("infra/r", &["gw"]).rule(&[], &["a:80"]));
    objects
}

impl Node {
    /// The Programmed condition of `infra/gw` as the store has it, and whether its Service has been made.
    fn programmed(&self) -> (String, bool) {
        let view = Arc::clone(&self.seen.borrow().view);
        let made = view.objects.services.contains_key(&name("infra/pilus-gateway-gw"));
        let gateway = key(pilus::api::meta::Kind::Gateway, "infra/gw");
        let text = format!("{:?}", view.statuses.get(&gateway));
        let at = text.find("\"Programmed\"").expect("a condition");
        let reason = text[at..].split("reason: ").nth(1).unwrap().split(',').next().unwrap();
        (reason.to_owned(), made)
    }
}

#[test]
fn a_gateway_is_programmed_when_everybody_has_said_so_and_again_after_each_death() {
    let good = ("\"Programmed\"".to_owned(), true);
    for victim in [wiring::STORE, wiring::ROUTE, wiring::DATAPATH, wiring::PROXY, wiring::BPF] {
        let mut node = Node::new(with_gateway());
        assert_eq!(node.programmed(), good);
        let version = |node: &Node| {
            let listeners = Arc::clone(&node.seen.borrow().listeners);
            (listeners.generation, listeners.routes)
        };
        let before = version(&node);
        node.crash(victim);
        assert_eq!(node.programmed(), good, "{victim:?}");
        let after = version(&node);
        match victim {
            wiring::ROUTE => assert!(after.1 > before.1, "a new life, later numbers"),
            wiring::DATAPATH => assert!(after.0 > before.0, "a new life, later numbers"),
            _ => assert_eq!(after, before),
        }
        let mut changed = (*node.seen.borrow().source).clone();
        let mut newer = gateway("infra/gw", &[on("http 81 HTTP")]);
        newer.meta.generation = 9;
        put(&mut changed.gateways, newer);
        node.apply(changed);
        assert_eq!(node.programmed(), good, "{victim:?}");
        let keys: Vec<u16> =
            node.seen.borrow().listeners.by_address.keys().map(|(_, port, _)| port.0).collect();
        assert_eq!(keys, [81]);
    }
}

#[test]
fn small_changes_go_only_where_they_matter() {
    let mut node = Node::new(source());
    let (listeners, programs, snapshots) = {
        let seen = node.seen.borrow();
        (seen.listeners.generation, seen.programs.len(), seen.snapshots.len())
    };
    let mut changed = (*node.seen.borrow().source).clone();
    put(&mut changed.pods, Pod { ready: false, ..pod("default/a1", "a", &["10.0.0.1"]) });
    node.apply(changed);
    let seen = node.seen.borrow();
    assert_eq!(seen.listeners.generation, listeners, "a Pod is no reason for new listeners");
    assert_eq!(seen.programs.len(), programs);
    assert_eq!(seen.snapshots.len(), snapshots + 1);
}

#[test]
fn shutdown() {
    let mut node = Node::new(source());
    node.kernel.mailer(wiring::SIGNAL).send(wiring::DATAPATH, Message::Shutdown);
    node.run();
    let seen = node.seen.borrow();
    assert_eq!(seen.released, 1);
    assert!(seen.programs.last().is_some_and(|program| program.steers.is_empty()));
}
