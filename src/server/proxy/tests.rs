//! Tests of the proxy's parts that need no socket.
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use super::balance::{Cluster, Plan};
use super::connection::{self, Connection};
use super::limits::{DISMISSAL_LOOKS, IDLE_TOTAL};
use super::shared::Shared;
use super::stats::stats;
use super::table::Snapshot;
use super::upstream::Hosts;
use crate::api::address::Port;
use crate::api::endpoint::{Endpoint, Endpoints, ServicePort};
use crate::api::meta::NamespacedName;
use crate::api::route::{Action, Backend, ListenerTable, Route};
use crate::io::event_loop::{self, EventLoop};
use crate::io::reactor::AsyncFd;
use crate::kernel::{Driver, Time};

fn endpoint(port: u16, ready: bool, terminating: bool) -> Endpoint {
    let address = ([127, 0, 0, 1], port).into();
    Endpoint { address, ready, terminating, node: None, pod: None }
}

fn cluster(hosts: &Hosts, ports: &[u16]) -> Rc<Cluster> {
    let list: Vec<Endpoint> = ports.iter().map(|&port| endpoint(port, true, false)).collect();
    Rc::new(Cluster::new(&list, 0, |endpoint| hosts.get(endpoint.address)))
}

#[test]
fn weights_are_exact_and_smooth() {
    let hosts = Hosts::new(IDLE_TOTAL);
    let weights = [5, 1, 1, 0];
    let clusters = [1, 2, 3, 4].map(|port| cluster(&hosts, &[port]));
    let plan = Plan::new(weights.into_iter().zip(clusters));
    let turn = || plan.next().and_then(|cluster| cluster.next_host()).map(|h| h.address.port());
    let round: Vec<_> = (0..7).filter_map(|_| turn()).collect();
    assert_eq!(round, [1, 1, 2, 1, 3, 1, 1], "evenly spread");
    assert_eq!((0..7).filter_map(|_| turn()).collect::<Vec<_>>(), round, "and again");
}

#[test]
fn without_a_weight_or_an_endpoint_there_is_no_host() {
    let hosts = Hosts::new(IDLE_TOTAL);
    assert!(Plan::new([(0, cluster(&hosts, &[1]))].into_iter()).next().is_none());
    assert!(cluster(&hosts, &[]).next_host().is_none());
    let list = [endpoint(1, false, false), endpoint(2, false, true)];
    let leaving = Cluster::new(&list, 0, |endpoint| hosts.get(endpoint.address));
    assert_eq!(leaving.next_host().map(|host| host.address.port()), Some(2));
}

#[test]
fn turns_go_on_when_the_tables_are_replaced() {
    let service = ServicePort { service: NamespacedName::new("default", "web"), port: Port(80) };
    let endpoints = |ports: &[u16]| {
        let list = ports.iter().map(|&port| endpoint(port, true, false)).collect();
        Rc::new(Endpoints { by_port: HashMap::from([(service.clone(), list)]) })
    };
    let route = Rc::new(Route::new(Action::Forward(vec![Backend::new(service.clone(), 1)])));
    let table = Rc::new(ListenerTable::default());
    let mut snapshot = Snapshot::empty(Rc::new(Hosts::new(IDLE_TOTAL)));
    let mut seen = Vec::new();
    for ports in [&[1, 2, 3][..], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3, 4]] {
        let (next, _) = Snapshot::new(&snapshot, Rc::clone(&table), endpoints(ports), false);
        snapshot = next;
        let plan = snapshot.plan(&route);
        seen.extend(plan.next().and_then(|c| c.next_host()).map(|host| host.address.port()));
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn a_waiting_connection_is_small() {
    // Ten thousand of them have to fit into 60 MiB, with everything else.
    assert!(size_of::<Connection>() <= 512, "{} bytes", size_of::<Connection>());
    let size = connection::size_of_task();
    assert!(size <= 2048, "the task of a connection has {size} bytes");
}

#[test]
fn a_connection_that_panics_leaves_and_is_counted() {
    let tls = super::tls::server_config().unwrap();
    let shared = Rc::new(Shared::new(0, 1, IDLE_TOTAL, tls));
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let fd = AsyncFd::new(near.into()).unwrap();
    let admission = shared.admit(fd.wake_handle()).expect("there is room");
    assert!(shared.admit(fd.wake_handle()).is_none(), "the limit holds");
    let before = stats().connections_panicked;
    event_loop::spawn(async move {
        let _place = admission;
        panic!("on purpose");
    })
    .detach();
    let survived = Rc::new(Cell::new(false));
    let flag = Rc::clone(&survived);
    event_loop::spawn(async move { flag.set(true) }).detach();
    let mut driver = EventLoop;
    while !survived.get() {
        driver.run_tasks();
        driver.wait(Some(Time::ZERO));
    }
    assert_eq!((shared.open(), stats().connections_panicked - before), (0, 1));
    assert!(shared.admit(fd.wake_handle()).is_some(), "its place is free");
}

#[test]
fn connections_that_only_wait_do_not_keep_others_out() {
    let tls = super::tls::server_config().unwrap();
    let shared = Rc::new(Shared::new(0, 2, IDLE_TOTAL, tls));
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let fd = AsyncFd::new(near.into()).unwrap();
    let admit = || shared.admit(fd.wake_handle());
    let (waiting, busy) = (admit().expect("room"), admit().expect("room"));
    assert!(admit().is_none(), "both are in use");
    waiting.begin_idle();
    let newcomer = admit().expect("the waiting one makes room");
    assert!(waiting.is_unwanted() && !busy.is_unwanted() && !newcomer.is_unwanted());
    assert!(admit().is_none(), "once");
    drop(waiting);
    assert_eq!(shared.open(), 2);
    // Requests that arrive at this very moment save their connections, but not without end.
    let mut saved = Vec::new();
    while saved.len() < 10 * DISMISSAL_LOOKS {
        newcomer.begin_idle();
        let Some(place) = admit() else { break };
        newcomer.end_idle();
        saved.push(place);
    }
    assert!((1..=DISMISSAL_LOOKS).contains(&saved.len()), "{}", saved.len());
}
