//! The `pilus` command: the command line, and the wiring table: which servers run, whom each may talk to.
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use pilus::api::Message;
use pilus::api::config::Config;
use pilus::api::wiring as to;
use pilus::io::admin_socket::{AdminSocket, SocketError};
use pilus::io::event_loop::EventLoop;
use pilus::io::files::Files;
use pilus::io::hooks::HookDriver;
use pilus::io::interfaces::InterfaceDriver;
use pilus::io::lan::Lan;
use pilus::io::notify::Notifier;
use pilus::io::signals::{self, SignalDriver};
use pilus::io::{clock, logger};
use pilus::kernel::{Driver, Kernel, Server, ServerId, Wiring};
use pilus::server::admin::{Admin, AdminSockets};
use pilus::server::{announce, datapath, endpoint, ipam, manifests, proxy, route, store};

/// Room for a burst; whole-state messages replace their older selves, so only events pile up.
const MAILBOX: usize = 256;
/// Frames and datagrams from the LAN come in bursts of their own.
const LAN_MAILBOX: usize = 1024;

/// What is kept in the state directory, and for whom.
const STATE: &[(&str, ServerId)] = &[(ipam::STATE_NAME, to::IPAM)];

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
        log::warn!("{complaint}");
    }
    let sockets = match listen(&config) {
        Ok(sockets) => sockets,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let notifier = Rc::new(Notifier::from_env());
    let mut kernel = Kernel::new();
    if let Err(error) = wire(&mut kernel, Rc::new(config), sockets) {
        log::error!("signals cannot be received: {error}");
        return ExitCode::FAILURE;
    }
    let mut event_loop = EventLoop;
    kernel.step(event_loop.now());
    notifier.ready();
    notifier.spawn_watchdog();
    pilus::kernel::run(&mut kernel, &mut event_loop);
    notifier.stopping();
    ExitCode::SUCCESS
}

pub(crate) fn listen(config: &Config) -> Result<AdminSockets, SocketError> {
    let metrics = match config.metrics.as_str() {
        "" => None,
        address => Some(AdminSocket::bind_metrics(address)?),
    };
    Ok(AdminSockets { admin: Some(AdminSocket::bind_admin(&config.admin)?), metrics })
}

/// The wiring table. In `--no-bpf` mode nothing is announced, so those servers do not run.
pub(crate) fn wire(
    kernel: &mut Kernel<Message>,
    config: Rc<Config>,
    sockets: AdminSockets,
) -> std::io::Result<()> {
    let offset = clock::unix_offset_nanos();
    let unix_at_zero = Duration::from_nanos(offset);
    let started = clock::now();
    let mut signals = Some(signals::block()?);
    let stages: &[&[ServerId]] = match config.no_bpf {
        true => &[&[to::PROXY]],
        false => &[&[to::ANNOUNCE], &[to::PROXY], &[to::DATAPATH], &[to::BPF]],
    };
    let mail = |id| kernel.mailer(id);
    let (netlink, files, lan, signal, admin) =
        (mail(to::NETLINK), mail(to::FILES), mail(to::LAN), mail(to::SIGNAL), mail(to::ADMIN));
    let c = || Rc::clone(&config);
    let (ipam_config, announce_config, route_config, admin_config) = (c(), c(), c(), c());
    let (files_config, datapath_config, proxy_config) = (c(), c(), c());
    let bpf_root = config.bpf_root.clone();

    let mut add =
        |id, name, may_send, mailbox, build: Box<dyn Fn() -> Box<dyn Server<Message>>>| {
            kernel.add(Wiring { id, name, may_send, mailbox, build });
        };
    // Sources: what comes from outside.
    add(
        to::NETLINK,
        "interfaces",
        &[to::ANNOUNCE, to::DATAPATH],
        MAILBOX,
        Box::new(move || Box::new(InterfaceDriver::new(netlink.clone()))),
    );
    add(
        to::FILES,
        "files",
        &[to::MANIFESTS, to::IPAM],
        MAILBOX,
        Box::new(move || Box::new(Files::new(&files_config, STATE, files.clone()))),
    );
    let signals = std::cell::RefCell::new(signals.take());
    add(
        to::SIGNAL,
        "signals",
        &[to::ANNOUNCE, to::PROXY, to::DATAPATH, to::BPF],
        MAILBOX,
        Box::new(move || {
            let stages = stages.iter().map(|stage| stage.to_vec());
            Box::new(SignalDriver::new(signal.clone(), signals.take(), stages))
        }),
    );
    // Objects, and what follows from them.
    add(
        to::MANIFESTS,
        "manifests",
        &[to::STORE],
        MAILBOX,
        Box::new(move || Box::new(manifests::Manifests::new(unix_at_zero))),
    );
    add(
        to::STORE,
        "store",
        &[to::IPAM, to::ENDPOINT, to::ROUTE, to::ANNOUNCE, to::ADMIN],
        MAILBOX,
        Box::new(move || Box::new(store::StoreServer::new(unix_at_zero))),
    );
    add(
        to::IPAM,
        "ipam",
        &[to::ANNOUNCE, to::DATAPATH, to::ROUTE, to::STORE, to::LAN, to::FILES, to::ADMIN],
        LAN_MAILBOX,
        Box::new(move || Box::new(ipam::Ipam::new(Rc::clone(&ipam_config)))),
    );
    add(
        to::ENDPOINT,
        "endpoint",
        &[to::PROXY, to::ANNOUNCE, to::STORE, to::ADMIN],
        MAILBOX,
        Box::new(|| Box::new(endpoint::EndpointServer::new())),
    );
    add(
        to::ROUTE,
        "route",
        &[to::DATAPATH, to::STORE, to::ADMIN],
        MAILBOX,
        Box::new(move || Box::new(route::RouteServer::new(Rc::clone(&route_config), unix_at_zero))),
    );
    // Effects: what the LAN, the kernel and the clients see.
    if !config.no_bpf {
        add(
            to::LAN,
            "lan",
            &[to::ANNOUNCE, to::IPAM],
            MAILBOX,
            Box::new(move || Box::new(Lan::new(lan.clone()))),
        );
        add(
            to::ANNOUNCE,
            "announce",
            &[to::DATAPATH, to::BPF, to::LAN, to::STORE, to::ADMIN, to::SIGNAL],
            LAN_MAILBOX,
            Box::new(move || {
                Box::new(announce::Announce::new(Rc::clone(&announce_config), offset))
            }),
        );
        add(
            to::BPF,
            "hooks",
            &[to::DATAPATH, to::ADMIN, to::SIGNAL],
            MAILBOX,
            Box::new(move || Box::new(HookDriver::new(bpf_root.clone()))),
        );
    }
    add(
        to::DATAPATH,
        "datapath",
        &[to::PROXY, to::BPF, to::STORE, to::SIGNAL, to::ADMIN],
        MAILBOX,
        Box::new(move || Box::new(datapath::DatapathServer::new(&datapath_config))),
    );
    add(
        to::PROXY,
        "proxy",
        &[to::BPF, to::STORE, to::SIGNAL],
        MAILBOX,
        Box::new(move || Box::new(proxy::Proxy::new(&proxy_config))),
    );
    add(
        to::ADMIN,
        "admin",
        &[],
        MAILBOX,
        Box::new(move || {
            let admin = Admin::new(Rc::clone(&admin_config), started, admin.clone(), &sockets);
            Box::new(admin.with_counters(Rc::new(|| proxy::stats().entries())))
        }),
    );
    Ok(())
}
