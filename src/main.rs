//! The `pilus` command: the command line, and the wiring table: which servers run, whom each may talk to.
use std::{process::ExitCode, rc::Rc, sync::Arc, time::Duration};

use pilus::api::{Message, config::Config, wiring as to};
use pilus::io::{balancer::Balancer, hooks::HookDriver, interfaces::InterfaceDriver, lan::Lan};
use pilus::io::{clock, event_loop::EventLoop, files::Files, logger, notify::Notifier, worker};
use pilus::io::{cluster, cluster::Cluster, resolver::Resolver, signals, signals::SignalDriver};
use pilus::kernel::{Kernel, Mailer, Server, ServerId, Wiring};
use pilus::server::{admin::Admin, admin::AdminSockets, proxy, proxy::StatsReader, service};
use pilus::server::{announce, datapath, endpoint, ipam, kube, manifests, publish, route, store};

/// Room for a burst; whole-state messages replace their older selves, so only events pile up.
const MAILBOX: usize = 256;
/// Frames and datagrams from the LAN come in bursts of their own.
const LAN_MAILBOX: usize = 1024;

/// What is kept in the state directory, and for whom.
const STATE: &[(&str, ServerId)] = &[(ipam::STATE_NAME, to::IPAM)];

type Build = Box<dyn Fn() -> Box<dyn Server<Message>>>;
/// Takes a row of the table: who, the name, to whom it may send, the mailbox.
type Add<'a> = dyn FnMut(ServerId, &'static str, &'static [ServerId], usize, Build) + 'a;

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    match words {
        Ok(words) => pilus::cli::main(&words, run),
        Err(word) => {
            eprintln!("{}: the command line must be UTF-8", word.display());
            ExitCode::from(2)
        }
    }
}

/// Runs the agent until it is told to end.
fn run(config: Config) -> ExitCode {
    if let Some(complaint) = logger::init() {
        log::warn!("PILUS_LOG: {complaint}");
    }
    let served = serve(config).inspect_err(|error| log::error!("{error}"));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let sockets = AdminSockets::open(&config)?;
    config.kubernetes.as_ref().map(cluster::configuration).transpose()?;
    let notifier = Rc::new(Notifier::from_env());
    let (config, sockets) = (Arc::new(config), Arc::new(sockets));
    let stats = proxy::stats_reader();
    let wire = move |kernel: &mut Kernel<Message>| wire(kernel, &config, &sockets, stats);
    let mut kernel = Kernel::new();
    let second = worker::split(&mut kernel, to::EFFECTS, to::OBJECTS, wire)
        .map_err(|error| format!("the servers cannot be started: {error}"))?;
    notifier.ready();
    notifier.spawn_watchdog();
    pilus::kernel::run(&mut kernel, &mut EventLoop);
    notifier.stopping();
    second.end();
    Ok(())
}

/// The wiring table, in order of priority: who runs, and to whom each may send. In `--no-bpf` mode nothing is
/// announced, so those servers do not run. A kernel that is one of two takes only its own.
#[rustfmt::skip] // one server, one row
pub(crate) fn wire(
    kernel: &mut Kernel<Message>, config: &Arc<Config>, sockets: &Arc<AdminSockets>, stats: StatsReader,
) -> std::io::Result<()> {
    let (offset, started) = (clock::unix_offset_nanos(), clock::now());
    let unix_at_zero = Duration::from_nanos(offset);
    let signals = if kernel.has_place_for(to::SIGNAL) { Some(signals::block()?) } else { None };
    let signals = std::cell::RefCell::new(signals);
    let stages: &[&[ServerId]] = match config.no_bpf {
        true => &[&[to::PROXY]],
        false => &[&[to::ANNOUNCE], &[to::PROXY], &[to::DATAPATH], &[to::BPF]],
    };
    let [netlink, files, lan, resolver, signal, admin, cluster] =
        [to::NETLINK, to::FILES, to::LAN, to::RESOLVER, to::SIGNAL, to::ADMIN, to::CLUSTER].map(|id| kernel.mailer(id));
    let [c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11] = std::array::from_fn(|_| Arc::clone(config));
    let sockets = Arc::clone(sockets);
    let mut add = |id, name, may_send, mailbox, build: Build| kernel.add(Wiring { id, name, may_send, mailbox, build });

    // Sources: what comes from outside.
    add(to::NETLINK, "interfaces", &[to::ANNOUNCE, to::DATAPATH, to::SERVICE], MAILBOX,
        Box::new(move || Box::new(InterfaceDriver::new(netlink.clone()))));
    add(to::FILES, "files", &[to::MANIFESTS, to::IPAM], MAILBOX,
        Box::new(move || Box::new(Files::new(&c1, STATE, files.clone()))));
    add(to::RESOLVER, "resolver", &[to::ENDPOINT], MAILBOX,
        Box::new(move || Box::new(Resolver::new(Arc::clone(&c9), resolver.clone()))));
    add(to::SIGNAL, "signals", &[to::ANNOUNCE, to::PROXY, to::DATAPATH, to::BPF], MAILBOX,
        Box::new(move || Box::new(SignalDriver::new(signal.clone(), signals.take(), stages.iter().map(|s| s.to_vec())))));
    // Objects, and what follows from them.
    let viewers = wire_objects(&mut add, config, unix_at_zero, cluster);
    add(to::STORE, "store", &[to::SERVICE, to::IPAM, to::ENDPOINT, to::ROUTE, to::ANNOUNCE, to::ADMIN, to::PUBLISH], MAILBOX,
        Box::new(move || Box::new(store::StoreServer::new(unix_at_zero, viewers))));
    add(to::IPAM, "ipam", &[to::ANNOUNCE, to::DATAPATH, to::ROUTE, to::SERVICE, to::STORE, to::LAN, to::FILES, to::ADMIN], LAN_MAILBOX,
        Box::new(move || Box::new(ipam::Ipam::new(Arc::clone(&c2)))));
    add(to::ENDPOINT, "endpoint", &[to::RESOLVER, to::SERVICE, to::PROXY, to::ANNOUNCE, to::STORE, to::ADMIN], MAILBOX,
        Box::new(|| Box::new(endpoint::EndpointServer::new())));
    add(to::ROUTE, "route", &[to::DATAPATH, to::SERVICE, to::STORE, to::ADMIN], MAILBOX,
        Box::new(move || Box::new(route::RouteServer::new(Arc::clone(&c3), unix_at_zero))));
    // Effects: what the LAN, the kernel and the clients see.
    if !config.no_bpf {
        add(to::SERVICE, "service", &[to::BALANCER, to::STORE, to::ADMIN], LAN_MAILBOX,
            Box::new(move || Box::new(service::ServiceServer::new(Arc::clone(&c10)))));
        add(to::BALANCER, "balancer", &[to::SERVICE, to::ADMIN], MAILBOX, Box::new(move || Box::new(Balancer::new(c11.bpf_root.clone()))));
        add(to::LAN, "lan", &[to::ANNOUNCE, to::IPAM, to::SERVICE], MAILBOX, Box::new(move || Box::new(Lan::new(lan.clone()))));
        add(to::ANNOUNCE, "announce", &[to::DATAPATH, to::BPF, to::LAN, to::STORE, to::ADMIN, to::SIGNAL], LAN_MAILBOX,
            Box::new(move || Box::new(announce::Announce::new(Arc::clone(&c4), offset))));
        add(to::BPF, "hooks", &[to::ANNOUNCE, to::DATAPATH, to::ADMIN, to::SIGNAL], MAILBOX,
            Box::new(move || Box::new(HookDriver::new(c5.bpf_root.clone()))));
    }
    add(to::DATAPATH, "datapath", &[to::ROUTE, to::PROXY, to::BPF, to::STORE, to::SIGNAL, to::ADMIN], MAILBOX,
        Box::new(move || Box::new(datapath::DatapathServer::new(&c6))));
    add(to::PROXY, "proxy", &[to::DATAPATH, to::BPF, to::STORE, to::SIGNAL], MAILBOX,
        Box::new(move || Box::new(proxy::Proxy::new(&c7))));
    add(to::ADMIN, "admin", &[], MAILBOX, Box::new(move || {
        let admin = Admin::new(Arc::clone(&c8), started, admin.clone(), &sockets);
        Box::new(admin.with_counters(Arc::new(move || stats.read().entries())))
    }));
    Ok(())
}

/// Who reads the objects: from files, or from an API server, to which is written as well. Returns who sees the outcome.
#[rustfmt::skip] // one server, one row
fn wire_objects(
    add: &mut Add<'_>, config: &Arc<Config>, unix_at_zero: Duration, cluster: Mailer<Message>,
) -> &'static [ServerId] {
    if config.kubernetes.is_none() {
        add(to::MANIFESTS, "manifests", &[to::STORE], MAILBOX,
            Box::new(move || Box::new(manifests::Manifests::new(unix_at_zero))));
        return &[to::ADMIN];
    }
    let [c1, c2] = std::array::from_fn(|_| Arc::clone(config));
    add(to::CLUSTER, "cluster", &[to::KUBE, to::PUBLISH], MAILBOX,
        Box::new(move || Box::new(Cluster::new(&c1, cluster.clone()))));
    add(to::KUBE, "kube", &[to::CLUSTER, to::STORE, to::PUBLISH], MAILBOX, Box::new(|| Box::new(kube::Kube::new())));
    add(to::PUBLISH, "publish", &[to::CLUSTER, to::STORE], MAILBOX,
        Box::new(move || Box::new(publish::Publish::new(Arc::clone(&c2), unix_at_zero))));
    &[to::ADMIN, to::PUBLISH]
}
