//! Endpoints of Services, as Kubernetes finds them.
use std::net::IpAddr;
use std::sync::Arc;

use pilus::api::Message;
use pilus::api::address::Port;
use pilus::api::endpoint::{Endpoints, ServicePort};
use pilus::api::message::wiring;
use pilus::api::meta::Origin;
use pilus::api::object::gateway::ExternalBackend;
use pilus::api::object::{
    EndpointSlice, IpFamilyPolicy, Pod, PodPort, PortProtocol, Service, ServicePortSpec,
    ServiceType, SliceEndpoint, SlicePort, TargetPort,
};
use pilus::api::objects::{Objects, Table};
use pilus::api::status::Statuses;
use pilus::kernel::{Outbox, Server, Time};
use pilus::server::endpoint::{EndpointServer, check};

use crate::build::*;

#[derive(Default)]
struct Finder {
    server: EndpointServer,
    endpoints: Arc<Endpoints>,
    statuses: Arc<Statuses>,
    sent: usize,
}

impl Finder {
    fn of(objects: &Objects) -> Self {
        let mut finder = Self::default();
        finder.objects(objects);
        finder
    }

    fn objects(&mut self, objects: &Objects) {
        let mut out = Outbox::new();
        let message = Message::Objects(Arc::new(objects.clone()));
        self.server.handle(Time::ZERO, wiring::STORE, message, &mut out);
        for (to, message) in out.take() {
            match message {
                // What the others are told is shown to people as well.
                Message::Endpoints(_) if [wiring::ADMIN, wiring::SERVICE].contains(&to) => {}
                Message::Endpoints(endpoints) => {
                    assert!([wiring::PROXY, wiring::ANNOUNCE].contains(&to));
                    self.endpoints = endpoints;
                    self.sent += 1;
                }
                Message::Statuses(statuses) => {
                    assert_eq!(to, wiring::STORE);
                    self.statuses = statuses;
                }
                Message::Resolve(_) => assert_eq!(to, wiring::RESOLVER),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Each endpoint as `ADDRESS` with `!` if it is not ready and `~` if it is terminating.
    fn list(&self, service: &str, port: u16) -> String {
        self.list_of(service, port, PortProtocol::Tcp)
    }

    fn list_of(&self, service: &str, port: u16, protocol: PortProtocol) -> String {
        let port = ServicePort { service: name(service), port: Port(port), protocol };
        let Some(list) = self.endpoints.by_port.get(&port) else { return "no port".to_owned() };
        let shown = list.iter().map(|endpoint| {
            let ready = if endpoint.ready { "" } else { "!" };
            let terminating = if endpoint.terminating { "~" } else { "" };
            format!("{ready}{terminating}{}", endpoint.address)
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn slices(&self) -> &[Arc<EndpointSlice>] {
        &self.statuses.generated.endpoint_slices
    }
}

fn world(services: &[Service], pods: &[Pod]) -> Objects {
    let mut objects = Objects::default();
    services.iter().for_each(|service| put(&mut objects.services, service.clone()));
    pods.iter().for_each(|pod| put(&mut objects.pods, pod.clone()));
    objects
}

fn slice(
    text: &str,
    service: &str,
    port: (&str, u16),
    endpoints: Vec<SliceEndpoint>,
) -> EndpointSlice {
    let ports = vec![SlicePort { name: port.0.into(), port: port.1, protocol: PortProtocol::Tcp }];
    EndpointSlice { meta: meta(text), service: service.into(), ports, endpoints }
}

fn at(ip: &str, ready: bool, serving: bool, terminating: bool) -> SliceEndpoint {
    SliceEndpoint {
        addresses: vec![ip.parse().unwrap(), "9.9.9.9".parse().unwrap()],
        ready,
        terminating,
        serving,
        node: None,
        pod: None,
    }
}

#[test]
fn pods_by_selector_and_state() {
    let base = || pod("default/p", "web", &["10.0.0.5"]);
    for (pod, list) in [
        (base(), "10.0.0.5:80"),
        (Pod { ready: false, ..base() }, "!10.0.0.5:80"),
        (Pod { terminating: true, ..base() }, "!~10.0.0.5:80"),
        (Pod { terminating: true, ready: false, ..base() }, "!10.0.0.5:80"),
        (Pod { finished: true, ..base() }, ""),
        (Pod { ips: vec![], ..base() }, ""),
        (pod("other/p", "web", &["10.0.0.5"]), ""),
        (pod("default/p", "wbe", &["10.0.0.5"]), ""),
    ] {
        let described = format!("{pod:?}");
        let objects = world(&[service("default/web", &[("http", 80)])], std::slice::from_ref(&pod));
        let finder = Finder::of(&objects);
        assert_eq!(finder.list("default/web", 80), list, "{described}");
        let all = Service { publish_not_ready: true, ..service("default/web", &[("http", 80)]) };
        let finder = Finder::of(&world(&[all], &[pod]));
        let published = list.replace('!', "");
        assert_eq!(
            finder.list("default/web", 80).replace('~', ""),
            published.replace('~', ""),
            "{described}"
        );
    }
    let mut two = service("default/web", &[("http", 80)]);
    two.selector = Some(labels(&[("app", "web"), ("v", "2")]));
    let mut second = pod("default/p2", "web", &["10.0.0.6"]);
    second.meta.labels.insert("v".into(), "2".into());
    let objects = world(&[two.clone()], &[base(), second]);
    assert_eq!(Finder::of(&objects).list("default/web", 80), "10.0.0.6:80");
    two.selector = Some(labels(&[]));
    let finder = Finder::of(&world(&[two], &[base()]));
    assert_eq!(finder.list("default/web", 80), "", "an empty selector selects nothing");
    assert_eq!(finder.list("default/web", 81), "no port");
}

#[test]
fn target_ports_and_order() {
    let mut web = service("default/web", &[("http", 80), ("admin", 81), ("none", 82)]);
    web.ports[0].target = TargetPort::Name("web".into());
    web.ports[1].target = TargetPort::Number(9000);
    web.ports[2].target = TargetPort::Name("nowhere".into());
    let udp = ServicePortSpec { protocol: PortProtocol::Udp, ..web.ports[1].clone() };
    web.ports.push(udp);
    let mut other = pod("default/a", "web", &["10.0.0.9"]);
    other.ports[0].port = 3000;
    let finder = Finder::of(&world(
        &[web],
        &[other, pod("default/b", "web", &["10.0.0.2"]), pod("default/c", "web", &["10.0.0.10"])],
    ));
    assert_eq!(finder.list("default/web", 80), "10.0.0.2:8080 10.0.0.9:3000 10.0.0.10:8080");
    assert_eq!(finder.list("default/web", 81), "10.0.0.2:9000 10.0.0.9:9000 10.0.0.10:9000");
    assert_eq!(finder.list("default/web", 82), "");
    let port =
        ServicePort { service: name("default/web"), port: Port(80), protocol: PortProtocol::Tcp };
    let first = &finder.endpoints.by_port[&port][0];
    assert_eq!(first.pod, Some(name("default/b")));
    assert_eq!(first.node.as_deref(), Some("n1"));
}

#[test]
fn families() {
    let both = pod("default/p", "web", &["10.0.0.5", "fd00::5"]);
    let base = || service("default/web", &[("http", 80)]);
    let (v4, v6) = ("10.0.0.5:80", "[fd00::5]:80");
    let all = format!("{v4} {v6}");
    let cluster: Vec<IpAddr> = vec!["fd00::a".parse().unwrap()];
    for (service, list) in [
        (base(), v4),
        (Service { ip_families_v6: vec![true], ..base() }, v6),
        (Service { ip_families_v6: vec![true, false], ..base() }, &all),
        (Service { cluster_ips: cluster, ..base() }, v6),
        (Service { ip_family_policy: IpFamilyPolicy::PreferDualStack, ..base() }, &all),
    ] {
        let finder = Finder::of(&world(&[service], std::slice::from_ref(&both)));
        assert_eq!(finder.list("default/web", 80), list);
    }
}

#[test]
fn slices_of_a_service_without_a_selector() {
    let web = Service { selector: None, ..service("default/web", &[("http", 80), ("", 81)]) };
    let mut objects = world(&[web], &[pod("default/p", "web", &["10.0.0.5"])]);
    let list = vec![
        at("10.1.0.3", true, true, false),
        at("10.1.0.1", false, false, false),
        at("10.1.0.2", false, true, true),
        at("10.1.0.4", false, false, true),
    ];
    put(&mut objects.endpoint_slices, slice("default/s1", "web", ("http", 8080), list));
    let v6 = vec![at("fd00::1", true, true, false)];
    put(&mut objects.endpoint_slices, slice("default/s2", "web", ("http", 8080), v6));
    let unnamed = vec![at("10.2.0.1", true, true, false)];
    put(&mut objects.endpoint_slices, slice("default/endpoints/web", "web", ("", 9), unnamed));
    let elsewhere = vec![at("10.3.0.1", true, true, false)];
    put(&mut objects.endpoint_slices, slice("other/s", "web", ("http", 8080), elsewhere));
    let finder = Finder::of(&objects);
    assert_eq!(
        finder.list("default/web", 80),
        "!10.1.0.1:8080 !~10.1.0.2:8080 10.1.0.3:8080 !10.1.0.4:8080 [fd00::1]:8080"
    );
    assert_eq!(finder.list("default/web", 81), "10.2.0.1:9");
    assert!(finder.slices().is_empty());
    let problems = check(&objects);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "s.yaml:1:1: warning: EndpointSlice other/s: metadata.labels: it is for the Service other/web, which does not exist"
    );
}

#[test]
fn slices_are_generated_for_selectors_in_files_and_not_read_back() {
    let mut objects = world(
        &[service("default/web", &[("http", 80)]), service("default/idle", &[("", 80)])],
        &[pod("default/p", "web", &["10.0.0.5"]), pod("default/q", "web", &["10.0.0.6"])],
    );
    let mut finder = Finder::of(&objects);
    let names: Vec<&str> = finder.slices().iter().map(|slice| &*slice.service).collect();
    assert_eq!(names, ["idle", "web"]);
    let (idle, web) = (&finder.slices()[0], &finder.slices()[1]);
    assert!(idle.endpoints.is_empty() && idle.ports.is_empty());
    assert_eq!(web.endpoints.len(), 2);
    assert_eq!(
        web.ports,
        [SlicePort { name: "http".into(), port: 80, protocol: PortProtocol::Tcp }]
    );
    assert!(web.meta.name.name.starts_with("web-") && web.meta.name.name.len() == 9);
    for part in [
        r#""addressType":"IPv4""#,
        r#"{"addresses":["10.0.0.5"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"p","namespace":"default"}}"#,
        r#""kubernetes.io/service-name":"web""#,
        r#""ports":[{"name":"http","port":80,"protocol":"TCP"}]"#,
    ] {
        assert!(web.meta.json.contains(part), "{part} in {}", web.meta.json);
    }
    let mut table: Table<EndpointSlice> = Arc::clone(&objects.endpoint_slices);
    for slice in finder.slices() {
        put(&mut table, (**slice).clone());
    }
    objects.endpoint_slices = table;
    let before = (finder.sent, Arc::clone(&finder.statuses));
    finder.objects(&objects);
    assert_eq!(finder.sent, before.0, "a fixed point");
    assert!(Arc::ptr_eq(&finder.statuses, &before.1));
    // A cluster has its own controller; hand-written slices count beside the Pods.
    let mut cluster = service("default/web", &[("http", 80)]);
    cluster.meta.origin = Origin::Cluster;
    put(&mut objects.services, cluster);
    let more = vec![at("10.0.0.5", false, false, false), at("10.0.0.7", true, true, false)];
    put(&mut objects.endpoint_slices, slice("default/mine", "web", ("http", 80), more));
    finder.objects(&objects);
    assert_eq!(finder.slices().len(), 1);
    assert_eq!(finder.list("default/web", 80), "10.0.0.5:80 10.0.0.6:80 10.0.0.7:80");
}

#[test]
fn external_names_have_none_and_say_so() {
    let external =
        Service { kind: ServiceType::ExternalName, ..service("default/web", &[("http", 80)]) };
    let finder = Finder::of(&world(&[external], &[pod("default/p", "web", &["10.0.0.5"])]));
    assert_eq!(finder.list("default/web", 80), "");
    assert!(finder.slices().is_empty());
    let problem = &finder.statuses.problems[0];
    assert_eq!(problem.object, Some(key(pilus::api::meta::Kind::Service, "default/web")));
    assert_eq!(problem.field, "spec.type");
}

#[test]
fn a_change_costs_the_services_it_concerns() {
    let services: Vec<Service> =
        (0..100).map(|i| service(&format!("default/s{i}"), &[("http", 80)])).collect();
    let pods: Vec<Pod> = (0..500)
        .map(|i| {
            pod(
                &format!("default/p{i}"),
                &format!("s{}", i % 100),
                &[&format!("10.0.{}.{}", i / 250, i % 250)],
            )
        })
        .collect();
    let mut objects = world(&services, &pods);
    let mut finder = Finder::of(&objects);
    assert_eq!(finder.server.computed(), 100);
    assert_eq!(finder.sent, 2);
    put(&mut objects.pods, Pod { ready: false, ..pods[7].clone() });
    finder.objects(&objects);
    assert_eq!(finder.server.computed(), 101);
    assert_eq!(finder.sent, 4);
    put(&mut objects.secrets, secret("default/s", "", ""));
    finder.objects(&objects);
    assert_eq!((finder.server.computed(), finder.sent), (101, 4));
    let mut out = Outbox::new();
    finder.server.peer_restarted(Time::ZERO, wiring::PROXY, &mut out);
    assert_eq!(out.take().len(), 1);
}

#[test]
fn a_host_outside_of_the_cluster_is_its_own_endpoint() {
    let backend = |text: &str, hostname: &str| ExternalBackend {
        meta: meta(text),
        hostname: hostname.into(),
        port: 8443,
        protocol: None,
        tls: None,
    };
    let mut objects = world(&[], &[]);
    put(&mut objects.external_backends, backend("default/four", "192.0.2.1"));
    let mut finder = Finder::of(&objects);
    assert_eq!(finder.list("default/xbackend/four", 8443), "192.0.2.1:8443");
    put(&mut objects.external_backends, backend("default/six", "2001:db8::1"));
    put(&mut objects.external_backends, backend("default/name", "api.example.com"));
    finder.objects(&objects);
    assert_eq!(finder.list("default/xbackend/six", 8443), "[2001:db8::1]:8443");
    assert_eq!(finder.list("default/xbackend/name", 8443), "", "not looked up yet");
}

#[test]
fn tcp_and_udp_of_one_number_are_two_ports() {
    let mut dns = service("default/dns", &[("tcp", 53), ("udp", 53)]);
    dns.ports[0].target = TargetPort::Name("dns".into());
    dns.ports[1].target = TargetPort::Name("dns".into());
    dns.ports[1].protocol = PortProtocol::Udp;
    let mut server = pod("default/p", "dns", &["10.0.0.5"]);
    let target = |port, protocol| PodPort { name: "dns".into(), port, protocol };
    server.ports = vec![target(1053, PortProtocol::Tcp), target(2053, PortProtocol::Udp)];
    let mut objects = world(&[dns], &[server]);
    let finder = Finder::of(&objects);
    assert_eq!(finder.list_of("default/dns", 53, PortProtocol::Tcp), "10.0.0.5:1053");
    assert_eq!(finder.list_of("default/dns", 53, PortProtocol::Udp), "10.0.0.5:2053");
    // The same by slices, which tell the ports apart by name and protocol.
    let mut by_hand =
        slice("default/mine", "dns", ("tcp", 3053), vec![at("10.0.0.6", true, true, false)]);
    by_hand.ports.push(SlicePort { name: "udp".into(), port: 4053, protocol: PortProtocol::Udp });
    put(&mut objects.endpoint_slices, by_hand);
    let finder = Finder::of(&objects);
    assert_eq!(finder.list_of("default/dns", 53, PortProtocol::Tcp), "10.0.0.5:1053 10.0.0.6:3053");
    assert_eq!(finder.list_of("default/dns", 53, PortProtocol::Udp), "10.0.0.5:2053 10.0.0.6:4053");
}
