use super::*;
use crate::api::address::{IfIndex, MacAddr};
use crate::api::announce::Answer;
use crate::api::interface::Interface;
use crate::api::route::ListenerProtocol;

struct Bench {
    server: DatapathServer,
    out: Outbox<Message>,
    sent: Vec<(ServerId, Message)>,
}

impl Bench {
    fn new(no_bpf: bool) -> Self {
        let config = Config { no_bpf, ..Config::default() };
        let mut bench =
            Self { server: DatapathServer::new(&config), out: Outbox::new(), sent: Vec::new() };
        bench.send(vec![answers(&[])]);
        bench
    }

    /// Delivers messages at once and lets the server work; returns what it sends.
    fn send(&mut self, messages: Vec<Message>) -> Vec<String> {
        for message in messages {
            self.server.handle(Time::ZERO, wiring::ROUTE, message, &mut self.out);
        }
        while self.server.timeout().is_some() {
            self.server.tick(Time::ZERO, &mut self.out);
        }
        let letters = self.out.take();
        let names = letters.iter().map(|(to, m)| format!("{} {}", to.0, kernel_name(m))).collect();
        self.sent.extend(letters);
        names
    }

    fn program(&self) -> Arc<Program> {
        let find = |(_, message): &(ServerId, Message)| match message {
            Message::Program(program) => Some(Arc::clone(program)),
            _ => None,
        };
        self.sent.iter().rev().find_map(find).unwrap()
    }

    fn acknowledge(&mut self, failures: &[&str]) -> Vec<String> {
        let generation = self.program().generation;
        self.send(vec![programmed(generation, failures)])
    }

    fn condition(&self, service: &str) -> Option<(Truth, String)> {
        let name = NamespacedName::new("default", service);
        let key = ObjectKey { kind: Kind::Service, name };
        let status = self.server.statuses.by_object.get(&key)?;
        Some((status.conditions[0].status, status.conditions[0].message.clone()))
    }
}

fn kernel_name(message: &Message) -> &'static str {
    crate::kernel::Message::name(message)
}

fn programmed(generation: Generation, failures: &[&str]) -> Message {
    let failures = failures.iter().map(|&text| text.to_owned()).collect();
    Message::Programmed(Arc::new(Programmed { generation, failures, unhooked: BTreeMap::new() }))
}

fn routes(listeners: &[(&str, u16)]) -> Message {
    let listeners = listeners
        .iter()
        .map(|&(service, port)| {
            let service = NamespacedName::new("default", service);
            Arc::new(Listener::new(service, Port(port), ListenerProtocol::Http))
        })
        .collect();
    Message::Routes(Arc::new(RouteTable { generation: Generation(1), listeners }))
}

fn assignments(list: &[(&str, &[&str])]) -> Message {
    let ips = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let by_service = list
        .iter()
        .map(|(service, addresses)| (NamespacedName::new("default", service), ips(addresses)))
        .collect();
    Message::Assignments(Arc::new(Assignments { by_service, ..Assignments::default() }))
}

/// Answers that take into account all addresses of these tests.
fn answers(list: &[(&str, u32)]) -> Message {
    let all = ["10.0.0.1", "10.0.0.9", "10.0.0.11", "fd00::1", "fd00::11"];
    answers_considering(list, &all)
}

fn answers_considering(list: &[(&str, u32)], considered: &[&str]) -> Message {
    let considered = considered.iter().map(|ip| ip.parse().unwrap()).collect();
    let answers = list
        .iter()
        .map(|&(ip, index)| Answer {
            address: ip.parse().unwrap(),
            interface: IfIndex(index),
            mac: MacAddr::ZERO,
            held: true,
        })
        .collect();
    Message::Answers(Arc::new(Answers { answers, considered }))
}

fn interfaces(list: &[u32]) -> Message {
    let list = list
        .iter()
        .map(|&index| Interface {
            index: IfIndex(index),
            name: format!("eth{index}").into(),
            mac: MacAddr::ZERO,
            up: true,
            loopback: false,
            port: false,
            kind: "".into(),
            addresses: vec![],
        })
        .collect();
    Message::Interfaces(Arc::new(Interfaces { list }))
}

#[test]
fn nothing_is_sent_before_routes_and_addresses_are_known() {
    let mut bench = Bench::new(false);
    assert!(bench.send(vec![answers(&[("10.0.0.1", 2)])]).is_empty());
    assert!(bench.send(vec![routes(&[("web", 80)])]).is_empty());
    assert_eq!(
        bench.send(vec![assignments(&[("web", &["10.0.0.1"])])]),
        ["18 Listeners", "20 Listeners", "17 Program"]
    );
    let program = bench.program();
    assert_eq!(program.generation, Generation(1));
    assert_eq!(program.answers.answers.len(), 1);
    let steers: Vec<String> =
        program.steers.iter().map(|s| format!("{}:{}", s.address, s.port)).collect();
    assert_eq!(steers, ["10.0.0.1:80"]);
    let again = vec![routes(&[]), assignments(&[("web", &["10.0.0.1"])])];
    assert_eq!(
        bench.send(again),
        ["18 Listeners", "20 Listeners", "17 Program"],
        "both at once, one answer"
    );
}

#[test]
fn listeners_and_steers_are_the_join() {
    let mut bench = Bench::new(false);
    let all = vec![
        routes(&[("own", 80), ("web", 80), ("web", 443)]),
        assignments(&[("web", &["10.0.0.1", "fd00::1"]), ("unknown", &["10.0.0.9"])]),
    ];
    bench.send(all.clone());
    let listeners = Arc::clone(bench.server.listeners.as_ref().unwrap());
    let mut keys: Vec<_> = listeners.by_address.keys().collect();
    keys.sort();
    let keys: Vec<String> = keys.iter().map(|(ip, port, _)| format!("{ip} {port}")).collect();
    assert_eq!(keys, ["10.0.0.1 80", "10.0.0.1 443", "fd00::1 80", "fd00::1 443"]);
    assert_eq!(listeners.all.len(), 3);
    assert_eq!(bench.program().steers.len(), 4);
    let assigned = all.into_iter().nth(1).unwrap();
    assert!(bench.send(vec![assigned]).is_empty(), "equal input, no output");
    assert_eq!(bench.send(vec![answers(&[("10.0.0.1", 2)])]), ["17 Program"]);
    assert_eq!(bench.program().generation, Generation(2));
}

#[test]
fn one_address_and_port_twice() {
    let mut bench = Bench::new(false);
    bench.send(vec![
        routes(&[("a", 80), ("b", 80)]),
        assignments(&[("a", &["10.0.0.1"]), ("b", &["10.0.0.1"])]),
    ]);
    let message = &bench.server.statuses.problems[0].message;
    assert_eq!(
        message,
        "10.0.0.1:80 is not served: Service default/a has the same address and port"
    );
    assert_eq!(bench.program().steers.len(), 1);
    bench.acknowledge(&[]);
    assert!(bench.condition("a").is_some() && bench.condition("b").is_none());
}

#[test]
fn an_answer_on_an_interface_that_is_gone_is_left_out() {
    let mut bench = Bench::new(false);
    bench.send(vec![
        routes(&[]),
        assignments(&[]),
        answers(&[("10.0.0.1", 2), ("10.0.0.1", 3)]),
        interfaces(&[1, 2]),
    ]);
    assert_eq!(bench.program().answers.answers.len(), 1);
    assert_eq!(bench.send(vec![interfaces(&[1, 2, 3])]), ["17 Program"]);
    assert_eq!(bench.program().answers.answers.len(), 2);
}

#[test]
fn status_is_computed_from_effects() {
    let mut bench = Bench::new(false);
    let addresses = assignments(&[("web", &["10.0.0.1"]), ("own", &["10.0.0.11"])]);
    bench.send(vec![routes(&[("own", 80), ("web", 80)]), addresses]);
    assert_eq!(bench.condition("web"), None, "not acknowledged yet");
    assert_eq!(bench.send(vec![programmed(Generation(0), &[])]), [""; 0], "of another generation");
    assert_eq!(bench.acknowledge(&[]), ["10 Statuses"]);
    assert_eq!(
        bench.condition("web"),
        Some((Truth::True, "10.0.0.1:80 reach the proxy".to_owned()))
    );
    // A new program: until it is acknowledged the old one is what is in effect.
    bench.send(vec![routes(&[("own", 80), ("web", 80), ("web", 443)])]);
    assert_eq!(bench.condition("web").unwrap().1, "10.0.0.1:80 reach the proxy");
    let failure = "10.0.0.11/32: no local route: permission denied";
    bench.acknowledge(&[failure]);
    assert_eq!(bench.condition("web").unwrap().1, "10.0.0.1:80, 10.0.0.1:443 reach the proxy");
    assert_eq!(bench.condition("own"), Some((Truth::False, failure.to_owned())));
    assert_eq!(bench.server.statuses.problems[0].message, format!("data path: {failure}"));
    assert!(bench.acknowledge(&[failure]).is_empty(), "said already");
}

#[test]
fn a_failure_names_exactly_its_address() {
    for (text, address, named) in [
        ("10.0.0.1: no", "10.0.0.1", true),
        ("eth0 (10.0.0.1/32), no", "10.0.0.1", true),
        ("steer 10.0.0.1:80 failed", "10.0.0.1", true),
        ("steer 10.0.0.11:80 failed", "10.0.0.1", false),
        ("steer [fd00::1]:80 failed", "fd00::1", true),
        ("fd00::1/128 failed", "fd00::1", true),
        ("fd00::11 failed", "fd00::1", false),
    ] {
        assert_eq!(names(text, address.parse().unwrap()), named, "{text}");
    }
}

#[test]
fn shutdown_releases_after_the_acknowledgement() {
    let mut bench = Bench::new(false);
    bench.send(vec![
        routes(&[("web", 80)]),
        assignments(&[("web", &["10.0.0.1"])]),
        answers(&[("10.0.0.1", 2)]),
    ]);
    let before = bench.program().generation;
    assert_eq!(bench.send(vec![Message::Shutdown]), ["17 Program"]);
    let last = bench.program();
    assert_eq!((last.steers.len(), last.answers.answers.len()), (0, 0));
    assert!(bench.send(vec![programmed(before, &[])]).is_empty(), "an old acknowledgement");
    assert!(bench.send(vec![routes(&[("web", 81)]), Message::Shutdown]).is_empty());
    let mut out = Outbox::new();
    bench.server.peer_restarted(Time::ZERO, wiring::BPF, &mut out);
    assert!(matches!(&out.take()[..], [(wiring::BPF, Message::Program(p))] if p.steers.is_empty()));
    assert_eq!(bench.acknowledge(&[]), ["3 Released"]);
    let mut bench = Bench::new(false);
    assert_eq!(
        bench.send(vec![Message::Shutdown]),
        ["17 Program"],
        "even before anything is known"
    );
}

#[test]
fn without_bpf_there_is_no_program() {
    let mut bench = Bench::new(true);
    assert_eq!(bench.send(vec![routes(&[("web", 80)])]), ["18 Listeners", "20 Listeners"]);
    assert_eq!(
        bench.send(vec![assignments(&[("web", &["10.0.0.1"])])]),
        ["18 Listeners", "20 Listeners"]
    );
    assert_eq!(bench.send(vec![Message::Shutdown]), ["3 Released"]);
    assert!(bench.server.statuses.by_object.is_empty());
}

#[test]
fn numbers_go_on_after_a_restart() {
    let mut bench = Bench::new(false);
    // The hooks still have program 57 of this server's predecessor and say so.
    bench.send(vec![programmed(Generation(57), &[]), routes(&[]), assignments(&[])]);
    assert_eq!(bench.program().generation, Generation(58));
}

#[test]
fn an_address_is_not_routed_before_the_answers_take_it_into_account() {
    let mut bench = Bench::new(false);
    bench.send(vec![
        answers_considering(&[], &["10.0.0.1"]),
        routes(&[("web", 80), ("own", 80)]),
        assignments(&[("web", &["10.0.0.1"]), ("own", &["10.0.0.11"])]),
    ]);
    assert_eq!(bench.program().steers.len(), 1, "the kernel would answer ARP for the other");
    bench.send(vec![answers_considering(&[], &["10.0.0.1", "10.0.0.11"])]);
    assert_eq!(bench.program().steers.len(), 2);
}

fn listening(generation: u64, faults: &[&str]) -> Message {
    let faults = faults.iter().map(|&fault| fault.to_owned()).collect();
    Message::Listening(Generation(generation), faults)
}

impl Bench {
    /// What the route server was told last: the generation, and the ports that are not served.
    fn serving(&self) -> Option<(u64, Vec<String>)> {
        let find = |(to, message): &(ServerId, Message)| match message {
            Message::Serving(serving) if *to == wiring::ROUTE => Some(Arc::clone(serving)),
            _ => None,
        };
        let serving = self.sent.iter().rev().find_map(find)?;
        let failed = serving.failed.iter();
        let failed = failed.map(|(service, port, ..)| format!("{}:{port}", service.name));
        Some((serving.routes.0, failed.collect()))
    }
}

#[test]
fn routes_are_in_effect_when_proxy_and_hooks_have_said_so() {
    let mut bench = Bench::new(false);
    bench.send(vec![routes(&[("web", 80)]), assignments(&[("web", &["10.0.0.1"])])]);
    assert_eq!(bench.serving(), None);
    bench.send(vec![listening(1, &[])]);
    assert_eq!(bench.serving(), None, "the hooks have not answered");
    bench.acknowledge(&[]);
    assert_eq!(bench.serving(), Some((1, vec![])));
    // A newer table with the same places: the hooks have nothing to do, the proxy has.
    let Message::Routes(table) = routes(&[("web", 80), ("new", 81)]) else { panic!() };
    let newer = RouteTable { generation: Generation(2), listeners: table.listeners.clone() };
    bench.send(vec![Message::Routes(Arc::new(newer))]);
    assert_eq!(bench.serving(), Some((1, vec![])));
    bench.send(vec![listening(1, &[])]);
    assert_eq!(bench.serving(), Some((1, vec![])), "an old acknowledgement");
    bench.send(vec![listening(2, &[])]);
    assert_eq!(bench.serving(), Some((2, vec![])));
    // What the hooks, the proxy or another Service keep from being served.
    bench.send(vec![assignments(&[("web", &["10.0.0.1"]), ("new", &["10.0.0.77"])])]);
    bench.send(vec![listening(3, &[])]);
    bench.acknowledge(&["no route to 10.0.0.1"]);
    let failed = ["new:81", "web:80"].map(str::to_owned).to_vec();
    assert_eq!(bench.serving(), Some((2, failed)), "10.0.0.77 is not announced");
}

#[test]
fn routes_without_hooks_are_in_effect_when_the_proxy_says_so() {
    let mut bench = Bench::new(true);
    bench.send(vec![routes(&[("a", 80), ("b", 443)])]);
    assert_eq!(bench.serving(), None);
    bench.send(vec![listening(1, &["cannot listen on 0.0.0.0:443, which b wants: no"])]);
    assert_eq!(bench.serving(), Some((1, vec!["b:443".to_owned()])));
    bench.send(vec![listening(1, &["port 80: several services want it"])]);
    assert_eq!(bench.serving(), Some((1, vec!["a:80".to_owned()])));
    bench.send(vec![listening(1, &["out of descriptors"])]);
    assert_eq!(bench.serving(), Some((1, vec!["a:80".to_owned(), "b:443".to_owned()])));
}
