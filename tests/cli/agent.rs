//! An admin server with a known state, on a thread of its own.
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use pilus::api::address::{Generation, Port};
use pilus::api::announce::{Announcement, Announcements, Role};
use pilus::api::config::Config;
use pilus::api::datapath::Transport;
use pilus::api::datapath::{DatapathReport, Programmed};
use pilus::api::endpoint::{Endpoint, Endpoints, ServicePort};
use pilus::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Origin, Position, Str};
use pilus::api::object::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, L2Policy, Lease, Namespace, Node, Pod, Pool,
    PortProtocol, Secret, Service, ServicePortSpec, ServiceType, SliceEndpoint, SlicePort,
    TargetPort,
};
use pilus::api::objects::{HasMeta, Objects, Table};
use pilus::api::problem::{Problem, Severity};
use pilus::api::query::{ShownStatus, View};
use pilus::api::route::{
    Action, Backend, HostTable, Listener, ListenerProtocol, ListenerTable, Route, VirtualHost,
};
use pilus::api::service::{Backend as Place, Balancing, Frontend, FrontendKind, Reach};
use pilus::api::status::{Condition, Truth};
use pilus::api::{Message, wiring};
use pilus::io::admin_socket::AdminSocket;
use pilus::io::clock;
use pilus::io::event_loop::{EventLoop, spawn, stop};
use pilus::io::reactor::Timer;
use pilus::kernel::{Kernel, Wiring, run};
use pilus::server::admin::{Admin, AdminSockets};

/// Everything is 3 days, 5 hours and half an hour old.
const AGE: u64 = 3 * 86_400 + 5 * 3_600 + 1_800;

/// A running admin server; it ends when this is dropped.
pub(crate) struct TestAgent {
    /// `unix:PATH`
    pub address: String,
    directory: PathBuf,
    end: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// A fresh directory.
pub(crate) fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pilus-cli-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

impl TestAgent {
    /// Starts one; `name` must be unique among the tests.
    pub(crate) fn start(name: &str) -> Self {
        let directory = directory(name);
        let address = format!("unix:{}", directory.join("run/admin.sock").display());
        let (end, ended) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let bound = address.clone();
        let thread = std::thread::spawn(move || serve(&bound, &ready, ended));
        is_ready.recv().unwrap();
        Self { address, directory, end, thread: Some(thread) }
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        let _ = self.end.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn serve(address: &str, ready: &mpsc::Sender<()>, ended: mpsc::Receiver<()>) {
    let admin = Some(AdminSocket::bind_admin(address).unwrap());
    let sockets = Arc::new(AdminSockets { admin, metrics: None });
    let config = Arc::new(Config { node: "k8s-w1".into(), ..Config::default() });
    let mut kernel: Kernel<Message> = Kernel::new();
    let mailer = kernel.mailer(wiring::ADMIN);
    let (letters, started) = (mailer.clone(), clock::now());
    kernel.add(Wiring {
        id: wiring::ADMIN,
        name: "admin",
        may_send: &[],
        mailbox: 64,
        build: Box::new(move || {
            Box::new(Admin::new(Arc::clone(&config), started, mailer.clone(), &sockets))
        }),
    });
    kernel.step(clock::now());
    for message in messages() {
        assert!(letters.send(wiring::ADMIN, message));
    }
    kernel.step(clock::now());
    ready.send(()).unwrap();
    spawn(async move {
        while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
            Timer::at(clock::now() + std::time::Duration::from_millis(5)).await;
        }
        stop();
    })
    .detach();
    run(&mut kernel, &mut EventLoop);
}

fn created() -> u64 {
    clock::unix_seconds() - AGE
}

fn meta(namespace: &str, name: &str, json: &str) -> Meta {
    Meta {
        name: NamespacedName::new(namespace, name),
        created: created(),
        origin: if json.is_empty() { Origin::Generated("route") } else { Origin::Cluster },
        json: json.into(),
        ..Meta::default()
    }
}

/// A file's object: `head` is `apiVersion kind`, `rest` its fields after the metadata.
fn written(head: &str, namespace: &str, name: &str, rest: &str) -> Meta {
    let (version, kind) = head.split_once(' ').unwrap();
    let namespaced = if namespace.is_empty() {
        String::new()
    } else {
        format!(",\"namespace\":\"{namespace}\"")
    };
    let comma = if rest.is_empty() { "" } else { "," };
    let json = format!(
        "{{\"apiVersion\":\"{version}\",\"kind\":\"{kind}\",\"metadata\":{{\"name\":\"{name}\"{namespaced}}}{comma}{rest}}}"
    );
    meta(namespace, name, &json)
}

fn table<T: HasMeta>(objects: Vec<T>) -> Table<T> {
    Arc::new(objects.into_iter().map(|it| (it.meta().name.clone(), Arc::new(it))).collect())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(number: u16, protocol: PortProtocol) -> ServicePortSpec {
    ServicePortSpec {
        name: "".into(),
        port: number,
        target: TargetPort::Number(number),
        protocol,
        node_port: if number == 53 { 31_053 } else { 0 },
        app_protocol: None,
    }
}

fn services() -> Vec<Service> {
    let balanced = |name: &str, ports| Service {
        meta: meta("kube-system", name, ""),
        kind: ServiceType::LoadBalancer,
        ports,
        ..Service::default()
    };
    let webpod = "\"spec\":{\"type\":\"ClusterIP\",\"clusterIP\":\"10.96.4.233\",\
                  \"selector\":{\"app\":\"webpod\"},\"ports\":[{\"port\":9080,\"protocol\":\"TCP\"}]}";
    let legacy = "\"spec\":{\"type\":\"ClusterIP\",\"clusterIP\":\"None\"}";
    vec![
        balanced("cilium-ingress", vec![port(80, PortProtocol::Tcp), port(443, PortProtocol::Tcp)]),
        balanced("waiting", vec![port(53, PortProtocol::Udp)]),
        Service {
            meta: written("v1 Service", "default", "webpod", webpod),
            ports: vec![port(9080, PortProtocol::Tcp)],
            ..Service::default()
        },
        Service {
            meta: written("v1 Service", "default", "legacy", legacy),
            headless: true,
            ..Service::default()
        },
    ]
}

fn pods() -> Vec<Pod> {
    let pod = |name: &str, address: &str, ready: bool| {
        let spec = "\"spec\":{\"nodeName\":\"k8s-w1\",\"containers\":[{\"name\":\"c\"}]}";
        let mut meta = written("v1 Pod", "default", name, spec);
        meta.labels.insert("app".into(), "webpod".into());
        Pod { meta, ips: vec![ip(address)], node: Some("k8s-w1".into()), ready, ..Pod::default() }
    };
    vec![pod("webpod-1", "10.244.0.5", true), pod("webpod-2", "10.244.1.6", false)]
}

fn ingresses() -> Vec<Ingress> {
    let basic = "\"spec\":{\"ingressClassName\":\"cilium\",\"rules\":[{\"http\":{\"paths\":[]}}]}";
    let hosts = "\"spec\":{\"tls\":[{\"hosts\":[\"a.shop\"]}],\"rules\":[{\"host\":\"a.shop\"},\
                 {\"host\":\"b.shop\"},{\"host\":\"c.shop\"},{\"host\":\"d.shop\"}]}";
    let ingress = |name: &str, spec: &str| Ingress {
        meta: written("networking.k8s.io/v1 Ingress", "default", name, spec),
        ..Ingress::default()
    };
    vec![ingress("basic-ingress", basic), ingress("many-hosts", hosts)]
}

fn objects() -> Objects {
    let mut node = Node {
        meta: written("v1 Node", "", "k8s-w1", ""),
        internal_ips: vec![ip("192.168.10.101")],
        ..Node::default()
    };
    node.meta.json = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"k8s-w1\",\
                      \"labels\":{\"node-role.kubernetes.io/control-plane\":\"\"}}}"
        .into();
    let secret = Secret {
        meta: written("v1 Secret", "default", "cert", "\"type\":\"kubernetes.io/tls\""),
        kind: "kubernetes.io/tls".into(),
        data: BTreeMap::from([
            ("tls.crt".into(), b"PUBLIC".to_vec()),
            ("tls.key".into(), b"PRIVATE".to_vec()),
        ]),
    };
    let slice = EndpointSlice {
        meta: meta("default", "webpod-abc", ""),
        service: "webpod".into(),
        ports: vec![SlicePort { name: "".into(), port: 9080, protocol: PortProtocol::Tcp }],
        endpoints: vec![SliceEndpoint {
            addresses: vec![ip("10.244.0.5")],
            ready: true,
            terminating: false,
            serving: true,
            node: None,
            pod: None,
        }],
    };
    let lease = Lease {
        meta: meta("kube-system", "pilus-l2announce-kube-system-cilium-ingress", ""),
        holder: Some("k8s-w1".into()),
        acquired: created(),
        transitions: 1,
    };
    let class = written(
        "networking.k8s.io/v1 IngressClass",
        "",
        "cilium",
        "\"spec\":{\"controller\":\"cilium.io/ingress-controller\"}",
    );
    let config_map = ConfigMap {
        meta: written("v1 ConfigMap", "default", "settings", "\"data\":{\"a\":\"b\"}"),
        ..ConfigMap::default()
    };
    Objects {
        generation: Generation(1),
        namespaces: table(vec![Namespace { meta: written("v1 Namespace", "", "default", "") }]),
        nodes: table(vec![node]),
        pods: table(pods()),
        services: table(services()),
        endpoint_slices: table(vec![slice]),
        secrets: table(vec![secret]),
        config_maps: table(vec![config_map]),
        ingresses: table(ingresses()),
        ingress_classes: table(vec![IngressClass { meta: class, ..IngressClass::default() }]),
        pools: table(vec![Pool {
            meta: written(
                "cilium.io/v2 CiliumLoadBalancerIPPool",
                "",
                "cilium-lb-pool",
                "\"spec\":{\"disabled\":false}",
            ),
            ..Pool::default()
        }]),
        l2_policies: table(vec![L2Policy {
            meta: written("cilium.io/v2alpha1 CiliumL2AnnouncementPolicy", "", "lan", ""),
            ..L2Policy::default()
        }]),
        leases: table(vec![lease]),
        skipped: Arc::new(BTreeMap::from([("Deployment".to_owned(), 2)])),
        ..Objects::default()
    }
}

fn condition(kind: &'static str, status: Truth, reason: &str, message: &str) -> (Condition, u64) {
    (Condition { kind, status, reason: reason.into(), message: message.to_owned() }, created())
}

fn statuses() -> BTreeMap<ObjectKey, ShownStatus> {
    let key = |kind, namespace: &str, name: &str| ObjectKey {
        kind,
        name: NamespacedName::new(namespace, name),
    };
    BTreeMap::from([
        (
            key(Kind::Service, "kube-system", "cilium-ingress"),
            ShownStatus {
                conditions: vec![condition(
                    "cilium.io/IPAMRequestSatisfied",
                    Truth::True,
                    "satisfied",
                    "",
                )],
                load_balancer: Some(vec![ip("192.168.10.211"), ip("fd00::211")]),
                ports: vec![],
                gateway: None,
            },
        ),
        (
            key(Kind::Service, "kube-system", "waiting"),
            ShownStatus {
                conditions: vec![condition(
                    "cilium.io/IPAMRequestSatisfied",
                    Truth::False,
                    "out_of_ips",
                    "no more",
                )],
                ..ShownStatus::default()
            },
        ),
        (
            key(Kind::Ingress, "default", "basic-ingress"),
            ShownStatus {
                load_balancer: Some(vec![ip("192.168.10.211")]),
                ports: vec![80],
                ..ShownStatus::default()
            },
        ),
        (
            key(Kind::CiliumLoadBalancerIPPool, "", "cilium-lb-pool"),
            ShownStatus {
                conditions: vec![
                    condition("cilium.io/PoolConflict", Truth::False, "resolved", ""),
                    condition("cilium.io/IPsAvailable", Truth::Unknown, "noreason", "4"),
                    condition("cilium.io/IPsUsed", Truth::Unknown, "noreason", "1"),
                ],
                ..ShownStatus::default()
            },
        ),
    ])
}

fn view() -> View {
    let problem = Problem {
        position: Some(Position { file: "/m/a.yaml".into(), line: 3, column: 7 }),
        object: Some(ObjectKey {
            kind: Kind::Ingress,
            name: NamespacedName::new("default", "broken"),
        }),
        field: "spec.rules[0].host".to_owned(),
        message: "bad host".to_owned(),
        severity: Severity::Error,
    };
    View {
        objects: Arc::new(objects()),
        statuses: Arc::new(statuses()),
        problems: Arc::new(vec![(created(), problem)]),
    }
}

fn service_port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        service: NamespacedName::new("default", name),
        port: Port(port),
        protocol: PortProtocol::Tcp,
    }
}

fn listener() -> Arc<Listener> {
    let ingress =
        ObjectKey { kind: Kind::Ingress, name: NamespacedName::new("default", "basic-ingress") };
    let route = |path: usize, action| {
        let origins = vec![(ingress.clone(), format!("spec.rules[0].http.paths[{path}]"))];
        vec![Arc::new(Route { origins, ..Route::new(action) }).into()]
    };
    let forward = |name, port| Action::Forward(vec![Backend::new(service_port(name, port), 1)]);
    let host = VirtualHost {
        name: Str::from("*"),
        exact: HashMap::from([(
            "/exact".into(),
            route(1, Action::Refuse(404, "no such Service".to_owned())),
        )]),
        regex: vec![],
        prefix: HashMap::from([
            ("".into(), route(0, forward("webpod", 9080))),
            ("/details".into(), route(2, forward("gone", 80))),
        ]),
        prefix_depth: 1,
        ..VirtualHost::default()
    };
    Arc::new(Listener {
        shared: true,
        hosts: HostTable { any: Some(Arc::new(host)), ..HostTable::default() },
        ..Listener::new(
            NamespacedName::new("kube-system", "cilium-ingress"),
            Port::HTTP,
            ListenerProtocol::Http,
        )
    })
}

fn endpoints() -> Endpoints {
    let endpoint = |address: &str, ready: bool, pod: &str| Endpoint {
        address: address.parse().unwrap(),
        ready,
        terminating: false,
        node: Some("k8s-w1".into()),
        pod: Some(NamespacedName::new("default", pod)),
    };
    let both = [
        endpoint("10.244.0.5:9080", true, "webpod-1"),
        endpoint("10.244.1.6:9080", false, "webpod-2"),
    ];
    Endpoints {
        by_port: HashMap::from([
            (service_port("webpod", 9080), Arc::from(both)),
            (service_port("gone", 80), Arc::from([])),
        ]),
    }
}

/// The cluster's address of `webpod`, as with `--kube-proxy-replacement`; its Pods are on another node.
fn balancing() -> Balancing {
    let backend = Place {
        address: "10.244.0.5:9080".parse().unwrap(),
        reach: Reach::Node(ip("192.168.10.102")),
    };
    let frontend = Frontend {
        address: ip("10.96.0.9"),
        port: Port(9080),
        protocol: PortProtocol::Tcp,
        service: NamespacedName::new("default", "webpod"),
        kind: FrontendKind::ClusterIp,
        affinity: None,
        local_from_outside: false,
        local_from_inside: false,
        sources: None,
        backends: [backend].into(),
        local_backends: Arc::default(),
    };
    Balancing { frontends: vec![Arc::new(frontend)], ..Balancing::default() }
}

fn messages() -> Vec<Message> {
    let ingress = NamespacedName::new("kube-system", "cilium-ingress");
    let announcement = Announcement {
        address: ip("192.168.10.211"),
        interface: "eth1".into(),
        role: Role::Holder,
        holder: Some("k8s-w1".into()),
        since: clock::now(),
        why: "the highest priority of 2 nodes".to_owned(),
        services: vec![ingress],
        policy: "lan".into(),
        vrid: 7,
        priority: 200,
    };
    let waiting = NamespacedName::new("kube-system", "waiting");
    let announcements = Announcements {
        list: vec![announcement],
        not_announced: BTreeMap::from([(waiting, "it has no address".to_owned())]),
    };
    let listener = listener();
    let listeners = ListenerTable {
        generation: Generation(7),
        by_address: HashMap::from([(
            (ip("192.168.10.211"), Port::HTTP, Transport::Tcp),
            Arc::clone(&listener),
        )]),
        routes: Generation(7),
        all: vec![listener],
    };
    let programmed = Programmed {
        generation: Generation(7),
        failures: vec!["eth9: no such device".to_owned()],
        unhooked: BTreeMap::new(),
    };
    let report = DatapathReport { lines: vec![("tc eth1".into(), "attached".to_owned())] };
    vec![
        Message::View(Arc::new(view())),
        Message::Announcements(Arc::new(announcements)),
        Message::Listeners(Arc::new(listeners)),
        Message::Endpoints(Arc::new(endpoints())),
        Message::Balancing(Arc::new(balancing())),
        Message::Programmed(Arc::new(programmed)),
        Message::DatapathReport(Arc::new(report)),
    ]
}
