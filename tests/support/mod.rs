//! A proxy on a thread of its own, with real sockets, and the world it serves.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it"
)]
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pilus::api::address::{Generation, Port};
use pilus::api::config::Config;
use pilus::api::datapath::Sockets;
use pilus::api::endpoint::{Endpoint, Endpoints, ServicePort};
use pilus::api::message::{Message, wiring};
use pilus::api::meta::NamespacedName;
use pilus::api::object::PortProtocol;
use pilus::api::route::{
    Action, Backend, Certificate, HostTable, Listener, ListenerProtocol, ListenerTable, Route,
    TlsAction, TlsTable, VirtualHost,
};
use pilus::io::clock;
use pilus::io::event_loop::{self, EventLoop};
use pilus::io::reactor::{AsyncFd, Timer};
use pilus::kernel::{Kernel, Mailer, Outbox, Server, ServerId, Time, Wiring, run};
use pilus::server::proxy::{Proxy, Stats, stats};

pub mod backend;
pub mod client;
pub mod http2;
pub mod pki;

/// All that the proxy is told, in a form that can be sent to its thread.
#[derive(Clone, Default)]
pub struct World {
    pub listeners: Vec<Front>,
    /// Endpoints by Service name.
    pub services: BTreeMap<String, Vec<EndpointSpec>>,
}

/// A listener.
#[derive(Clone)]
pub struct Front {
    pub service: String,
    pub shared: bool,
    pub port: u16,
    pub host_port: Option<u16>,
    pub tls: bool,
    pub addresses: Vec<IpAddr>,
    pub routes: Vec<RouteSpec>,
    /// Server name (`*.` for a wildcard, empty for the default) and what is done with it.
    pub names: Vec<(String, NameSpec)>,
    /// Changes the listener once it is built, on the proxy's thread.
    pub shape: Option<Shape<Listener>>,
}

#[derive(Clone)]
pub enum NameSpec {
    Certificate(Arc<rustls::sign::CertifiedKey>),
    Passthrough(String),
}

/// A route of a host (empty: any) by path prefix (empty: all).
#[derive(Clone)]
pub struct RouteSpec {
    pub host: String,
    pub prefix: String,
    pub action: ActionSpec,
    pub timeout: Option<Duration>,
    /// Changes the route once it is built, on the proxy's thread.
    pub shape: Option<Shape<Route>>,
}

/// See [`RouteSpec::shape`].
pub type Shape<T> = Arc<dyn Fn(&mut T) + Send + Sync>;

#[derive(Clone)]
pub enum ActionSpec {
    /// Service names with weights.
    Forward(Vec<(String, u32)>),
    RedirectHttps(u16),
    Refuse(u16, String),
}

#[derive(Clone, Copy)]
pub struct EndpointSpec {
    pub address: SocketAddr,
    pub ready: bool,
    pub terminating: bool,
}

/// What the proxy has said.
#[derive(Default)]
pub struct Said {
    pub problems: Vec<String>,
    pub sockets: Option<Sockets>,
    pub released: bool,
}

type Command = Box<dyn FnOnce(&Mailer<Message>, &Mailer<Message>) + Send>;

/// A proxy that runs until dropped.
pub struct TestProxy {
    commands: Sender<Command>,
    wake: UnixStream,
    said: Arc<Mutex<Said>>,
    thread: Option<JoinHandle<()>>,
}

struct Quiet;

impl Server<Message> for Quiet {
    fn handle(&mut self, _: Time, _: ServerId, _: Message, _: &mut Outbox<Message>) {}
}

struct Listening(Arc<Mutex<Said>>);

impl Server<Message> for Listening {
    fn handle(&mut self, _: Time, _: ServerId, message: Message, _: &mut Outbox<Message>) {
        let mut said = self.0.lock().unwrap();
        match message {
            Message::Statuses(statuses) => {
                said.problems = statuses.problems.iter().map(ToString::to_string).collect();
            }
            Message::Sockets(sockets) => said.sockets = Some(sockets),
            Message::Released => said.released = true,
            other => panic!("the proxy sent {other:?}"),
        }
    }
}

// === impl TestProxy ===

impl TestProxy {
    /// A proxy on ordinary sockets (`--no-bpf`).
    pub fn start(world: World) -> Self {
        Self::with_config(|| Config { no_bpf: true, ..Config::default() }, world)
    }

    pub fn with_config(config: impl FnOnce() -> Config + Send + 'static, world: World) -> Self {
        let (commands, receiver) = channel::<Command>();
        let (wake, woken) = UnixStream::pair().unwrap();
        let said = Arc::new(Mutex::new(Said::default()));
        let thread = std::thread::spawn({
            let said = Arc::clone(&said);
            move || serve(config(), receiver, woken, &said)
        });
        let proxy = Self { commands, wake, said, thread: Some(thread) };
        proxy.update(world);
        proxy
    }

    /// Serves on this thread until the process is killed. A process with one thread spends less in the C
    /// library, and the agent has one.
    pub fn serve_here(world: World) {
        let (commands, receiver) = channel::<Command>();
        let (wake, woken) = UnixStream::pair().unwrap();
        commands.send(Box::new(move |datapath, endpoint| world.tell(datapath, endpoint))).unwrap();
        (&wake).write_all(&[1]).unwrap();
        let config = Config { no_bpf: true, ..Config::default() };
        serve(config, receiver, woken, &Arc::default());
    }

    /// Gives the proxy new tables; they are in effect when this returns.
    pub fn update(&self, world: World) {
        self.command(move |datapath, endpoint| world.tell(datapath, endpoint));
        self.settle();
    }

    pub fn shutdown(&self) {
        self.command(|datapath, _| {
            datapath.send(wiring::PROXY, Message::Shutdown);
        });
        self.settle();
    }

    /// What SIGHUP does.
    pub fn reopen_logs(&self) {
        self.command(|datapath, _| {
            datapath.send(wiring::PROXY, Message::ReopenLogs);
        });
        self.settle();
    }

    pub fn stats(&self) -> Stats {
        let (sender, receiver) = channel();
        self.command(move |_, _| sender.send(stats()).unwrap());
        receiver.recv().unwrap()
    }

    /// Runs `question` on the proxy's thread.
    pub fn ask<T: Send + 'static>(&self, question: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        self.command(move |_, _| drop(sender.send(question())));
        receiver.recv().unwrap()
    }

    pub fn problems(&self) -> Vec<String> {
        self.settle();
        self.said.lock().unwrap().problems.clone()
    }

    pub fn sockets(&self) -> Option<Sockets> {
        self.settle();
        self.said.lock().unwrap().sockets.clone()
    }

    pub fn is_released(&self) -> bool {
        self.settle();
        self.said.lock().unwrap().released
    }

    /// Waits until the proxy has worked off what it was sent: mail goes out in the turn after.
    pub fn settle(&self) {
        for _ in 0..3 {
            self.ask(|| ());
        }
    }

    fn command(&self, command: impl FnOnce(&Mailer<Message>, &Mailer<Message>) + Send + 'static) {
        self.commands.send(Box::new(command)).unwrap();
        (&self.wake).write_all(&[1]).unwrap();
    }
}

impl Drop for TestProxy {
    fn drop(&mut self) {
        let _ = self.commands.send(Box::new(|_, _| event_loop::stop()));
        let _ = (&self.wake).write_all(&[1]);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the proxy's thread panicked");
        }
    }
}

fn serve(config: Config, commands: Receiver<Command>, woken: UnixStream, said: &Arc<Mutex<Said>>) {
    woken.set_nonblocking(true).unwrap();
    let mut kernel: Kernel<Message> = Kernel::new();
    const TO_PROXY: &[ServerId] = &[wiring::PROXY];
    const LISTENERS: &[ServerId] = &[wiring::BPF, wiring::STORE, wiring::SIGNAL];
    const FROM_PROXY: &[ServerId] = &[wiring::BPF, wiring::STORE, wiring::SIGNAL, wiring::DATAPATH];
    let mut add = |id, name, may_send, build: Box<dyn Fn() -> Box<dyn Server<Message>>>| {
        kernel.add(Wiring { id, name, may_send, mailbox: 64, build });
    };
    for (id, name) in [(wiring::DATAPATH, "datapath"), (wiring::ENDPOINT, "endpoint")] {
        add(id, name, TO_PROXY, Box::new(|| Box::new(Quiet)));
    }
    for id in LISTENERS {
        let said = Arc::clone(said);
        add(*id, "listening", &[], Box::new(move || Box::new(Listening(Arc::clone(&said)))));
    }
    add(wiring::PROXY, "proxy", FROM_PROXY, Box::new(move || Box::new(Proxy::new(&config))));
    let (datapath, endpoint) = (kernel.mailer(wiring::DATAPATH), kernel.mailer(wiring::ENDPOINT));
    event_loop::spawn(async move {
        let fd = AsyncFd::new(woken.try_clone().unwrap().into()).unwrap();
        let mut bytes = [0; 256];
        loop {
            fd.readable().await;
            fd.clear_readable();
            while matches!(std::io::Read::read(&mut &woken, &mut bytes), Ok(1..)) {}
            while let Ok(command) = commands.try_recv() {
                command(&datapath, &endpoint);
                // A turn of the loop, so that the servers get what this one has sent.
                Timer::at(clock::now() + Duration::from_millis(1)).await;
            }
        }
    })
    .detach();
    run(&mut kernel, &mut EventLoop);
}

// === impl World ===

impl World {
    /// One HTTP listener on `port` that sends everything to the endpoints.
    pub fn simple(port: u16, endpoints: &[SocketAddr]) -> Self {
        let mut world = Self::default();
        world.listeners.push(Front::http(port, vec![RouteSpec::all("web")]));
        world.serve("web", endpoints);
        world
    }

    pub fn serve(&mut self, service: &str, endpoints: &[SocketAddr]) {
        let spec = |&address| EndpointSpec { address, ready: true, terminating: false };
        self.services.insert(service.to_owned(), endpoints.iter().map(spec).collect());
    }

    fn tell(self, datapath: &Mailer<Message>, endpoint: &Mailer<Message>) {
        let (table, endpoints) = self.build();
        endpoint.send(wiring::PROXY, Message::Endpoints(Arc::new(endpoints)));
        datapath.send(wiring::PROXY, Message::Listeners(Arc::new(table)));
    }

    fn build(self) -> (ListenerTable, Endpoints) {
        let mut table = ListenerTable { generation: Generation(1), ..ListenerTable::default() };
        for front in self.listeners {
            let addresses = front.addresses.clone();
            let listener = Arc::new(front.build());
            for address in addresses {
                let key = (address, listener.port, listener.protocol.transport());
                table.by_address.insert(key, Arc::clone(&listener));
            }
            table.all.push(listener);
        }
        let mut endpoints = Endpoints::default();
        for (name, specs) in self.services {
            let list: Arc<[Endpoint]> = specs.iter().map(EndpointSpec::build).collect();
            endpoints.by_port.insert(service_port(&name), list);
        }
        (table, endpoints)
    }
}

impl Front {
    pub fn http(port: u16, routes: Vec<RouteSpec>) -> Self {
        Self {
            service: "kube-system/pilus-ingress".to_owned(),
            shared: true,
            port,
            host_port: None,
            tls: false,
            addresses: Vec::new(),
            routes,
            names: Vec::new(),
            shape: None,
        }
    }

    fn build(self) -> Listener {
        let (namespace, name) = self.service.split_once('/').unwrap();
        let protocol = if self.tls { ListenerProtocol::Tls } else { ListenerProtocol::Http };
        let mut listener = Listener {
            shared: self.shared,
            host_port: self.host_port.map(Port),
            hosts: hosts(self.routes),
            tls: tls_table(self.names),
            ..Listener::new(NamespacedName::new(namespace, name), Port(self.port), protocol)
        };
        if let Some(shape) = self.shape {
            shape(&mut listener);
        }
        listener
    }
}

impl RouteSpec {
    pub fn all(service: &str) -> Self {
        Self::to("", "", service)
    }

    pub fn to(host: &str, prefix: &str, service: &str) -> Self {
        Self {
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            action: ActionSpec::Forward(vec![(service.to_owned(), 1)]),
            timeout: None,
            shape: None,
        }
    }

    /// With what else the route does; called on the proxy's thread.
    pub fn with(mut self, shape: impl Fn(&mut Route) + Send + Sync + 'static) -> Self {
        self.shape = Some(Arc::new(shape));
        self
    }

    fn build(self) -> Route {
        let backend = |(name, weight): (String, u32)| Backend::new(service_port(&name), weight);
        let action = match self.action {
            ActionSpec::Forward(to) => Action::Forward(to.into_iter().map(backend).collect()),
            ActionSpec::RedirectHttps(port) => Action::RedirectHttps(Port(port)),
            ActionSpec::Refuse(status, why) => Action::Refuse(status, why),
        };
        let mut route = Route { request_timeout: self.timeout, ..Route::new(action) };
        if let Some(shape) = self.shape {
            shape(&mut route);
        }
        route
    }
}

impl EndpointSpec {
    fn build(&self) -> Endpoint {
        let Self { address, ready, terminating } = *self;
        Endpoint { address, ready, terminating, node: None, pod: None }
    }
}

/// The port 80 of the Service `default/NAME`, as `World::services` names it.
pub fn service_port(name: &str) -> ServicePort {
    ServicePort {
        service: NamespacedName::new("default", name),
        port: Port(80),
        protocol: PortProtocol::Tcp,
    }
}

fn hosts(routes: Vec<RouteSpec>) -> HostTable {
    let mut by_host: BTreeMap<String, VirtualHost> = BTreeMap::new();
    for route in routes {
        let host = by_host.entry(route.host.clone()).or_default();
        host.prefix_depth = host.prefix_depth.max(route.prefix.matches('/').count());
        host.prefix.insert(route.prefix.clone().into(), vec![Arc::new(route.build()).into()]);
    }
    let mut table = HostTable::default();
    for (name, host) in by_host {
        let host = Arc::new(host);
        match name.strip_prefix("*.") {
            _ if name.is_empty() => table.any = Some(host),
            Some(parent) => drop(table.wildcard.insert(parent.into(), host)),
            None => drop(table.exact.insert(name.into(), host)),
        }
    }
    table
}

fn tls_table(names: Vec<(String, NameSpec)>) -> TlsTable {
    let mut table = TlsTable::default();
    for (name, spec) in names {
        let action = match spec {
            NameSpec::Certificate(key) => {
                let certificate = Certificate {
                    secret: NamespacedName::new("default", "tls"),
                    key,
                    not_after: None,
                    names: Vec::new(),
                };
                TlsAction::Terminate(Arc::new(Arc::new(certificate).into()))
            }
            NameSpec::Passthrough(service) => {
                TlsAction::Passthrough(Arc::new(RouteSpec::all(&service).build()))
            }
        };
        match name.strip_prefix("*.") {
            _ if name.is_empty() => table.default = Some(action),
            Some(parent) => drop(table.wildcard.insert(parent.into(), action)),
            None => drop(table.exact.insert(name.into(), action)),
        }
    }
    table
}

/// Ports below those the kernel gives to connections, so that none is taken by chance.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// A port of this machine that was free a moment ago.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes that run at the same time begin at different ones.
    let start = std::process::id().wrapping_mul(61) % count;
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::SeqCst));
        let port = PORTS.start + ((start + step) % count) as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A certificate for `name`, and its DER for clients that trust it.
pub fn certificate(name: &str) -> (Arc<rustls::sign::CertifiedKey>, Vec<u8>) {
    let generated = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let der = generated.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(generated.signing_key.serialize_der());
    let key = rustls::crypto::ring::sign::any_supported_type(&key.unwrap()).unwrap();
    (Arc::new(rustls::sign::CertifiedKey::new(vec![der.clone()], key)), der.to_vec())
}
