//! Tests of the proxy's parts that need no socket.
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::balance::Plan;
use super::cluster::{Cluster, Wish};
use super::connection::{self, Connection};
use super::limits::{DISMISSAL_LOOKS, IDLE_TOTAL};
use super::shared::Shared;
use super::stats::stats;
use super::table::Snapshot;
use super::upstream::Hosts;
use crate::api::address::Port;
use crate::api::config::Config;
use crate::api::endpoint::{Endpoint, Endpoints, ServicePort};
use crate::api::meta::NamespacedName;
use crate::api::object::PortProtocol;
use crate::api::route::{
    Action, Backend, Balance, CircuitBreaker, Listener, ListenerProtocol, ListenerTable,
    OutlierDetection, RetryBudget, Route, Target, UpstreamSettings, VirtualHost,
};
use crate::io::event_loop::{self, EventLoop};
use crate::io::reactor::AsyncFd;
use crate::kernel::{Driver, Time};

fn endpoint(port: u16, ready: bool, terminating: bool) -> Endpoint {
    let address = ([127, 0, 0, 1], port).into();
    Endpoint { address, ready, terminating, node: None, pod: None }
}

fn cluster_with(settings: UpstreamSettings, hosts: &Hosts, list: &[Endpoint]) -> Rc<Cluster> {
    let mut host = |endpoint: &Endpoint| hosts.get(endpoint.address, &UpstreamSettings::default());
    Rc::new(Cluster::new(Arc::new(settings), list, None, Time::ZERO, &mut host))
}

fn list(ports: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
    ports.into_iter().map(|port| endpoint(port, true, false)).collect()
}

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// Counts up.
fn dice() -> u64 {
    DICE.replace(DICE.get() + 1)
}

fn wish(now: Time) -> Wish<'static> {
    Wish { now, affinity: 0, avoid: None, random: dice }
}

fn pick(cluster: &Cluster, wish: &Wish<'_>) -> u16 {
    cluster.pick(wish).map_or(0, |member| member.host.address.port())
}

fn backends(weights: &[u32]) -> Vec<Backend> {
    let service = |i: usize| ServicePort {
        service: NamespacedName::new("default", &format!("web{i}")),
        port: Port(80),
        protocol: PortProtocol::Tcp,
    };
    weights.iter().enumerate().map(|(i, &weight)| Backend::new(service(i), weight)).collect()
}

fn plan(weights: &[u32]) -> Plan {
    let hosts = Hosts::new(IDLE_TOTAL);
    Plan::new(None, &backends(weights), &mut |_| {
        cluster_with(UpstreamSettings::default(), &hosts, &[])
    })
}

#[test]
fn weights_are_exact_and_smooth() {
    let uneven = plan(&[5, 1, 1, 0]);
    let turn = || uneven.next();
    let round: Vec<_> = (0..7).filter_map(|_| turn()).collect();
    assert_eq!(round, [0, 0, 1, 0, 2, 0, 0], "evenly spread");
    assert_eq!((0..7).filter_map(|_| turn()).collect::<Vec<_>>(), round, "and again");
    for (weights, requests, share) in
        [([90, 10], 1000, 900), ([90, 10], 20, 18), ([900_000, 100_000], 20, 18)]
    {
        let plan = plan(&weights);
        let first = (0..requests).filter(|_| plan.next() == Some(0)).count();
        assert_eq!(first, share, "{weights:?} over {requests}");
    }
}

#[test]
fn without_a_weight_or_an_endpoint_there_is_no_host() {
    let hosts = Hosts::new(IDLE_TOTAL);
    assert!(
        plan(&[0]).next().is_none() && plan(&[0, 0]).next().is_none() && plan(&[]).next().is_none()
    );
    let none = cluster_with(UpstreamSettings::default(), &hosts, &[]);
    assert!(none.pick(&wish(Time::ZERO)).is_none());
    let leaving = [endpoint(1, false, false), endpoint(2, false, true)];
    let leaving = cluster_with(UpstreamSettings::default(), &hosts, &leaving);
    assert_eq!(pick(&leaving, &wish(Time::ZERO)), 2);
}

#[test]
fn a_refused_share_is_a_share() {
    let mut backends = backends(&[1, 1]);
    backends[1].target = Target::Refuse(500, "no such Service".to_owned());
    let hosts = Hosts::new(IDLE_TOTAL);
    let mut cluster = |_: &Backend| cluster_with(UpstreamSettings::default(), &hosts, &[]);
    let plan = Plan::new(None, &backends, &mut cluster);
    let refused = (0..10).filter_map(|_| plan.next()).filter(|i| plan.cluster(*i).is_none());
    assert_eq!(refused.count(), 5);
}

#[test]
fn turns_go_on_when_the_tables_are_replaced() {
    let service = ServicePort {
        service: NamespacedName::new("default", "web"),
        port: Port(80),
        protocol: PortProtocol::Tcp,
    };
    let endpoints = |ports: &[u16]| {
        let list = list(ports.iter().copied()).into();
        Arc::new(Endpoints { by_port: HashMap::from([(service.clone(), list)]) })
    };
    let route = Arc::new(Route::new(Action::Forward(vec![Backend::new(service.clone(), 1)])));
    let table = Arc::new(ListenerTable::default());
    let mut snapshot = Snapshot::empty(Rc::new(Hosts::new(IDLE_TOTAL)));
    let mut seen = Vec::new();
    for ports in [&[1, 2, 3][..], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3, 4]] {
        let endpoints = endpoints(ports);
        let (next, _) = Snapshot::new(&snapshot, Arc::clone(&table), endpoints, false, Time::ZERO);
        snapshot = next;
        let plan = snapshot.plan(&route);
        let cluster = plan.next().and_then(|backend| plan.cluster(backend));
        seen.extend(cluster.map(|cluster| pick(cluster, &wish(Time::ZERO))));
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn shares_stay_exact_when_equal_routes_replace_each_other() {
    let mut snapshot = Snapshot::empty(Rc::new(Hosts::new(IDLE_TOTAL)));
    let mut counts = [0, 0];
    for _ in 0..100 {
        // All made anew, as the route server does when anything about the listener changes.
        let route = Arc::new(Route::new(Action::Forward(backends(&[9, 1]))));
        let mut host = VirtualHost::default();
        host.prefix.insert("".into(), vec![Arc::clone(&route).into()]);
        let name = NamespacedName::new("kube-system", "pilus");
        let mut listener = Listener::new(name, Port(80), ListenerProtocol::Http);
        listener.hosts.any = Some(Arc::new(host));
        let all = vec![Arc::new(listener)];
        let table = Arc::new(ListenerTable { all, ..ListenerTable::default() });
        let (next, _) = Snapshot::new(&snapshot, table, Arc::default(), false, Time::ZERO);
        snapshot = next;
        counts[snapshot.plan(&route).next().unwrap()] += 1;
    }
    assert_eq!(counts, [90, 10], "one request for each table");
}

#[test]
fn least_request_prefers_the_idle_and_source_address_the_same() {
    let hosts = Hosts::new(IDLE_TOTAL);
    let settings = |balance| UpstreamSettings { balance, ..UpstreamSettings::default() };
    let cluster = cluster_with(settings(Balance::LeastRequest), &hosts, &list(1..=2));
    let busy = cluster.lease(&cluster.members()[0]).unwrap();
    assert!((0..10).all(|_| pick(&cluster, &wish(Time::ZERO)) == 2));
    drop(busy);
    assert!((0..10).any(|_| pick(&cluster, &wish(Time::ZERO)) == 1), "the place is free again");

    let random = cluster_with(settings(Balance::Random), &hosts, &list(1..=3));
    let mut seen: Vec<_> = (0..3).map(|_| pick(&random, &wish(Time::ZERO))).collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3]);

    let cluster = cluster_with(settings(Balance::SourceAddress), &hosts, &list(1..=5));
    let of = |client: u8, avoid| {
        let affinity = crate::proto::maglev::affinity([192, 168, 0, client].into());
        pick(&cluster, &Wish { affinity, avoid, ..wish(Time::ZERO) })
    };
    let first: Vec<_> = (0..100).map(|client| of(client, None)).collect();
    assert_eq!(first, (0..100).map(|client| of(client, None)).collect::<Vec<_>>());
    assert!((1..=5).all(|port| first.contains(&port)));
    let dead = &cluster.members()[usize::from(first[0]) - 1];
    dead.set_dead(true);
    for (client, port) in (0..100).zip(&first) {
        let now = of(client, None);
        assert!(now != first[0] && (*port == first[0] || now == *port), "only its clients move");
    }
}

#[test]
fn the_dead_are_passed_over_unless_all_are() {
    let hosts = Hosts::new(IDLE_TOTAL);
    let cluster = cluster_with(UpstreamSettings::default(), &hosts, &list(1..=3));
    cluster.members()[0].set_dead(true);
    let turns: Vec<_> = (0..6).map(|_| pick(&cluster, &wish(Time::ZERO))).collect();
    assert_eq!(turns, [2, 3, 2, 3, 2, 3], "its share goes to all others");
    let avoid = &cluster.members()[1];
    let avoiding = Wish { avoid: Some(avoid), ..wish(Time::ZERO) };
    assert_eq!(pick(&cluster, &avoiding), 3);
    for member in cluster.members() {
        member.set_dead(true);
    }
    let mut all: Vec<_> = (0..3).map(|_| pick(&cluster, &wish(Time::ZERO))).collect();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3], "a wrong verdict takes nothing away");
}

#[test]
fn failures_in_a_row_eject_for_growing_times_and_never_too_many() {
    const BASE: Duration = Duration::from_secs(30);
    let outlier = OutlierDetection { consecutive: 3, base_ejection: BASE, max_percent: 50 };
    let settings = UpstreamSettings { outlier: Some(outlier), ..UpstreamSettings::default() };
    let hosts = Hosts::new(IDLE_TOTAL);
    let cluster = cluster_with(settings, &hosts, &list(1..=3));
    let start = Time::ZERO + Duration::from_secs(1000);
    let fail = |member: usize, times: usize, now: Time| {
        let lease = cluster.lease(&cluster.members()[member]).unwrap();
        (0..times).for_each(|_| lease.report(now, true));
    };
    let taking = |now: Time| -> Vec<u16> {
        let mut ports: Vec<_> = (0..6).map(|_| pick(&cluster, &wish(now))).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    fail(0, 2, start);
    cluster.lease(&cluster.members()[0]).unwrap().report(start, false);
    fail(0, 2, start);
    assert_eq!(taking(start), [1, 2, 3], "a success in between starts over");
    fail(0, 1, start);
    assert_eq!(taking(start), [2, 3]);
    fail(1, 3, start);
    assert_eq!(taking(start), [2, 3], "more than half are not left out");
    assert_eq!(taking(start + BASE), [1, 2, 3]);
    fail(0, 3, start + BASE);
    assert_eq!(taking(start + BASE * 2), [2, 3], "twice as long the second time");
    assert_eq!(taking(start + BASE * 3), [1, 2, 3]);
}

#[test]
fn a_breaker_bounds_what_is_in_flight_also_across_tables() {
    let breaker = CircuitBreaker { max_requests: 2, max_connections: 0 };
    let settings = UpstreamSettings { breaker, ..UpstreamSettings::default() };
    let hosts = Hosts::new(IDLE_TOTAL);
    let cluster = cluster_with(settings, &hosts, &list([1]));
    let lease = |cluster: &Rc<Cluster>| cluster.lease(&cluster.members()[0]);
    let (first, _second) = (lease(&cluster).unwrap(), lease(&cluster).unwrap());
    let mut host = |endpoint: &Endpoint| hosts.get(endpoint.address, &UpstreamSettings::default());
    let settings = Arc::clone(cluster.settings());
    let next = Cluster::new(settings, &list([1, 2]), Some(&cluster), Time::ZERO, &mut host);
    let next = Rc::new(next);
    assert!(lease(&cluster).is_none() && lease(&next).is_none());
    drop(first);
    assert!(lease(&next).is_some());
}

#[test]
fn a_newcomer_starts_slowly() {
    let slow_start = Duration::from_secs(100);
    let settings = UpstreamSettings { slow_start, ..UpstreamSettings::default() };
    let hosts = Hosts::new(IDLE_TOTAL);
    let before = cluster_with(settings, &hosts, &list([1]));
    let joined = Time::ZERO + Duration::from_secs(1);
    let mut host = |endpoint: &Endpoint| hosts.get(endpoint.address, &UpstreamSettings::default());
    let settings = Arc::clone(before.settings());
    let cluster = Cluster::new(settings, &list([1, 2]), Some(&before), joined, &mut host);
    let share = |now: Time| {
        DICE.set(0);
        (0..4000).filter(|_| pick(&cluster, &wish(now)) == 2).count()
    };
    let shares = [1, 50, 100].map(|age| share(joined + Duration::from_secs(age)));
    assert!(shares[0] < shares[1] && shares[1] < shares[2], "{shares:?}");
    assert_eq!(shares[2], 2000);
}

#[test]
fn a_retry_budget_is_a_share_of_the_requests_and_has_a_minimum() {
    let second = Duration::from_secs(1);
    let budget = RetryBudget { percent: 20, interval: second * 10, minimum: (2, second) };
    let hosts = Hosts::new(IDLE_TOTAL);
    let cluster = cluster_with(UpstreamSettings::default(), &hosts, &list([1]));
    let start = Time::ZERO + second * 100;
    let retries = |now: Time| (0..100).take_while(|_| cluster.take_retry(now, &budget)).count();
    assert_eq!(retries(start), 2, "the minimum");
    (0..100).for_each(|_| cluster.count_for_budget(start, &budget));
    assert_eq!(retries(start), 18, "and a fifth in all");
    assert_eq!(retries(start + second), 2, "the minimum again");
    assert_eq!(retries(start + second * 10), 2, "the interval is over");
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
    let tls = super::terminate::Terminator::new().unwrap();
    let shared = Rc::new(Shared::new(&Config::default(), 1, IDLE_TOTAL, tls));
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
    let tls = super::terminate::Terminator::new().unwrap();
    let shared = Rc::new(Shared::new(&Config::default(), 2, IDLE_TOTAL, tls));
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
