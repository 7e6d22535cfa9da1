//! Changes while clients ask: every one becomes visible, none costs a request.
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::Client;
use crate::load::{Load, Way};
use crate::support::{Agent, CLASS, Pair, get, ingress, pair, secret, service, wait_until};

const CHANGES: usize = 50;
const INGRESSES: usize = 1_000;
const HOST: &str = "steady.test";

/// What the directory holds at one moment.
struct World {
    /// The Service that the steady host is sent to.
    service: &'static str,
    certificate: Pair,
    /// The path that only this version of the Ingress `marker` has.
    marker: usize,
    extra: Option<usize>,
}

impl World {
    fn steady(&self) -> String {
        let plain = "  annotations: {ingress.cilium.io/force-https: disabled}\nspec:";
        ingress("steady", HOST, &[("/", self.service)], "tls").replacen("spec:", plain, 1)
    }

    fn secret(&self) -> String {
        secret("tls", &self.certificate.certificate, &self.certificate.key)
    }

    fn marker(&self) -> String {
        let path = format!("/generation-{}", self.marker);
        ingress("marker", "marker.test", &[(&path, "a")], "")
    }

    fn write_all(&self, agent: &Agent, base: &str) {
        agent.write("base.yaml", base);
        agent.write("secret.yaml", &self.secret());
        agent.write("steady.yaml", &self.steady());
        agent.write("marker.yaml", &self.marker());
    }

    /// Makes the change with this number, and waits until it is there.
    fn change(&mut self, number: usize, agent: &Agent, base: &str) {
        match number % 5 {
            0 => {
                self.extra = Some(number);
                let host = format!("extra-{number}.test");
                agent.write("extra.yaml", &ingress("extra", &host, &[("/", "a")], ""));
                agent.await_status(&host, "/", 200);
            }
            1 => {
                self.service = if self.service == "a" { "b" } else { "a" };
                agent.write("steady.yaml", &self.steady());
                let body = self.service;
                wait_until("the steady host has another backend", || {
                    agent.get(HOST, "/").text() == body
                });
            }
            2 => {
                let before = format!("/generation-{}", self.marker);
                self.marker = number;
                self.write_all(agent, &format!("# version {number}\n{base}"));
                agent.await_status("marker.test", &format!("/generation-{number}"), 200);
                assert_eq!(agent.get("marker.test", &before).status(), 404);
            }
            3 => {
                self.certificate = pair(HOST);
                agent.write("secret.yaml", &self.secret());
                wait_until("the new certificate is shown", || {
                    agent.certificate(HOST).as_ref() == Ok(&self.certificate.der)
                });
            }
            _ => {
                let host = format!("extra-{}.test", self.extra.take().unwrap());
                agent.remove("extra.yaml");
                agent.await_status(&host, "/", 404);
            }
        }
    }
}

#[test]
fn fifty_changes_under_load_fail_no_request() {
    let (a, b) = (Backend::answering("a"), Backend::answering("b"));
    let mut agent = Agent::new("reload");
    let base = format!("{CLASS}{}{}", service("a", a.address), service("b", b.address));
    let mut world = World { service: "a", certificate: pair(HOST), marker: 1_000, extra: None };
    world.write_all(&agent, &base);
    agent.start();
    agent.await_status(HOST, "/", 200);
    wait_until("TLS", || agent.certificate(HOST).is_ok());

    let ways = [Way::KeepAlive, Way::KeepAlive, Way::New, Way::New, Way::Tls];
    let load = Load::start(&ways, (agent.http, agent.https), HOST, &["a", "b"]);
    for number in 0..CHANGES {
        load.round();
        world.change(number, &agent, &base);
    }
    load.round();
    let (requests, failures) = load.end();
    assert!(
        failures.is_empty(),
        "{} of {requests} failed: {:#?}",
        failures.len(),
        failures.first()
    );
    assert!(requests >= CHANGES * ways.len(), "{requests} requests are no load");
    assert_eq!(agent.problems(), [""; 0]);
    println!("{CHANGES} changes under {requests} requests, none failed");
}

fn host(number: usize) -> String {
    format!("host-{number}.test")
}

fn numbered(number: usize, host: &str) -> String {
    ingress(&format!("i-{number}"), host, &[("/", "a")], "")
}

/// The status for each of the thousand hosts, on one connection.
fn statuses(agent: &Agent) -> Vec<u16> {
    let mut client = Client::connect(agent.http);
    (0..INGRESSES).map(|it| get(&mut client, &host(it), "/").unwrap().status()).collect()
}

#[test]
fn of_a_thousand_ingresses_one_changes_and_the_others_do_not() {
    let backend = Backend::answering("a");
    let mut agent = Agent::new("thousand");
    for number in 0..INGRESSES {
        agent.write(&format!("i-{number}.yaml"), &numbered(number, &host(number)));
    }
    agent.write("base.yaml", &format!("{CLASS}{}", service("a", backend.address)));
    let begun = Instant::now();
    agent.start();
    agent.await_status(&host(INGRESSES - 1), "/", 200);
    let loaded = begun.elapsed();
    assert_eq!(statuses(&agent), [200; INGRESSES]);
    let versions = versions(&agent);
    assert_eq!(versions.len(), INGRESSES);

    // One file of them; its host moves on ten times.
    let mut latencies: Vec<Duration> = Vec::new();
    for round in 0..10 {
        let moved = format!("moved-{round}.test");
        let begun = Instant::now();
        agent.write("i-500.yaml", &numbered(500, &moved));
        agent.await_status(&moved, "/", 200);
        latencies.push(begun.elapsed());
    }
    let mut expected = [200; INGRESSES];
    expected[500] = 404;
    assert_eq!(statuses(&agent), expected);
    assert_eq!(agent.get("moved-8.test", "/").status(), 404);
    let after = self::versions(&agent);
    let changed: Vec<&String> = after.iter().filter(|it| !versions.contains(it)).collect();
    assert_eq!(changed, ["i-500 generation 11"]);
    assert_eq!(agent.problems(), [""; 0]);
    latencies.sort();
    println!("{INGRESSES} Ingresses: start to live {loaded:?}, a change {:?}", latencies[5]);
}

/// Every Ingress and its `metadata.generation`, which counts its changes.
fn versions(agent: &Agent) -> Vec<String> {
    let list = agent.json(&["get", "ingress"]);
    let version = |object: &pilus::proto::value::Value| {
        let meta = object.get("metadata").unwrap();
        let mut text = meta.get("name").unwrap().as_str().unwrap().to_owned();
        let generation = &meta.get("generation").unwrap().data;
        let pilus::proto::value::Data::Int(generation) = generation else { panic!("{text}") };
        let _ = write!(text, " generation {generation}");
        text
    };
    list.get("items").unwrap().items().iter().map(version).collect()
}

/// Enough for a second of work.
const REPLACED: usize = 3_000;
/// Requests of one client, one after the other, that must have been answered meanwhile: a thread that is held up by the
/// change answers two or three.
const MEANWHILE: usize = 100;

#[test]
fn requests_go_on_while_thousands_of_routes_are_replaced() {
    let (a, b) = (Backend::answering("a"), Backend::answering("b"));
    let mut agent = Agent::new("replace");
    let all = |service: &str| -> String {
        let one = |number: usize| {
            ingress(&format!("i-{number}"), &host(number), &[("/", service)], "") + "---\n"
        };
        (0..REPLACED).map(one).collect()
    };
    let services = [service("a", a.address), service("b", b.address)].concat();
    agent.write("base.yaml", &format!("{CLASS}{services}"));
    agent.write("routes.yaml", &all("a"));
    agent.start();
    agent.await_status(&host(REPLACED - 1), "/", 200);
    let load =
        Load::start(&[Way::KeepAlive], (agent.http, agent.https), "host-0.test", &["a", "b"]);
    load.round();
    agent.write("routes.yaml", &all("b"));
    let before: usize = load.counts().iter().sum();
    // A configuration is swapped in whole: the last host is there, so all are.
    wait_until("all are replaced", || agent.get(&host(REPLACED - 1), "/").text() == "b");
    let meanwhile = load.counts().iter().sum::<usize>() - before;
    assert_eq!(agent.get("host-0.test", "/").text(), "b");
    let (_, failures) = load.end();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(meanwhile >= MEANWHILE, "only {meanwhile} requests were answered");
    println!("{REPLACED} Ingresses replaced under {meanwhile} requests, none failed");
}
