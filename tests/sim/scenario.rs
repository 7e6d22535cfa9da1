//! What happens to a cluster under one seed.
use std::collections::BTreeSet;
use std::sync::Once;
use std::time::Duration;

use pilus::api::Message;
use pilus::api::wiring;
use pilus::kernel::Time;

use crate::cluster::Cluster;
use crate::config::{Setup, Vip, vip};
use crate::judge::{Judge, SAMPLE};
use crate::lan::{Random, Wire};

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) lossy: bool,
    pub(crate) violations: Vec<String>,
    pub(crate) failovers: Vec<u64>,
    pub(crate) doubles: u64,
    pub(crate) samples: u64,
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Fault {
    Kill(usize),
    Start(usize),
    Stop(usize),
    GoOn(usize),
    ReadMail(usize),
    Shutdown(usize),
    Link(usize, bool),
    AllLinks(bool),
    Partition(Vec<u8>),
    Heal,
    Configure(usize, Setup),
    CrashServer(usize),
    StrangerComes(usize),
    StrangerGoes,
}

const START: Duration = Duration::from_millis(1500);
const APART: Duration = Duration::from_millis(4500);

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: bool) -> Outcome {
    quiet_panics();
    let mut random = Random(seed);
    let setup = random_setup(&mut random);
    let lossy = random.chance(30);
    let wire = Wire {
        loss: if lossy { 1 + random.below(20) } else { 0 },
        duplicates: if random.chance(30) { 10 } else { 0 },
        delay_micros: 100 + random.below(1900),
        side: vec![0; setup.nodes],
    };
    let mut cluster = Cluster::new(&setup, wire, random.clone(), trace);
    if random.chance(10) && !lossy && setup.vips[0].address.is_ipv4() {
        // A host that has had the address all along, and says so only when it is asked.
        cluster.stranger = Some(setup.vips[0].address);
        cluster.stranger_is_quiet = true;
    }
    let mut judge = Judge { lossy, disturbed: cluster.now, ..Judge::default() };
    let mut at = cluster.now + START;
    let mut plan = Vec::new();
    for _ in 0..2 {
        plan.extend(random_faults(&mut random, &setup, at));
        at = at + APART;
    }
    plan.sort_by_key(|(at, _)| *at);
    if trace {
        println!("{setup:#?}\n{:?}\n{plan:#?}", cluster.wire);
    }
    let mut plan = plan.into_iter().peekable();
    let mut next_speech = Time::ZERO;
    while cluster.now < at {
        let sample = cluster.now + SAMPLE;
        while let Some((due, _)) = plan.peek()
            && *due <= sample
        {
            let Some((due, fault)) = plan.next() else { break };
            cluster.run_until(due.max(cluster.now));
            apply(&mut cluster, &mut judge, &fault);
        }
        cluster.run_until(sample);
        if cluster.stranger.is_some() && !cluster.stranger_is_quiet && next_speech <= cluster.now {
            cluster.stranger_speaks();
            next_speech = cluster.now + Duration::from_millis(250);
        }
        judge.sample(&cluster);
    }
    check_rates(&mut judge, &cluster, &setup);
    Outcome {
        seed,
        lossy,
        violations: judge.violations,
        failovers: judge.failovers,
        doubles: judge.doubles,
        samples: judge.samples,
    }
}

fn check_rates(judge: &mut Judge, cluster: &Cluster, setup: &Setup) {
    // Per node and address in one second: three probes, three takeovers (a handover to and fro) with six
    // frames each, some answers to challenges.
    let most = (setup.nodes * (setup.vips.len() + 2) * 24) as u64;
    let peak = cluster.frames.values().copied().max().unwrap_or(0);
    if peak > most {
        judge.violations.push(format!("{peak} frames in one second, {most} are allowed"));
    }
    // Ten regular ones per router and second, and as many again in disputes.
    let most = (setup.nodes * setup.nodes.max(setup.vips.len() + 1) * 2 * 30) as u64;
    let peak = cluster.adverts.values().copied().max().unwrap_or(0);
    if peak > most {
        judge.violations.push(format!("{peak} advertisements in one second, {most} are allowed"));
    }
}

fn random_setup(random: &mut Random) -> Setup {
    let nodes = 2 + random.below(3) as usize;
    let node_objects = random.chance(80);
    let subset = |random: &mut Random| -> BTreeSet<usize> {
        (0..nodes).filter(|_| random.chance(70)).collect()
    };
    let selected = (node_objects && random.chance(30)).then(|| subset(random));
    let vips =
        (1..=1 + random.below(5) as u32).map(|number| random_vip(random, number, nodes)).collect();
    Setup { nodes, node_objects, selected, vips }
}

fn random_vip(random: &mut Random, number: u32, nodes: usize) -> Vip {
    let local = random.chance(25);
    let local = local.then(|| (0..nodes).filter(|_| random.chance(60)).collect());
    Vip { address: vip(number, random.chance(25)), local, ingress: random.chance(20) }
}

/// One disturbance at `at`, with what follows from it within three seconds.
fn random_faults(random: &mut Random, setup: &Setup, at: Time) -> Vec<(Time, Fault)> {
    let node = random.below(setup.nodes as u64) as usize;
    let other = (node + 1) % setup.nodes;
    let millis = |n: u64| Duration::from_millis(n);
    let at = at + millis(random.below(100));
    let back = at + millis(700 + random.below(1500));
    match random.below(12) {
        0 => vec![(at, Fault::Kill(node)), (back, Fault::Start(node))],
        1 => vec![(at, Fault::Kill(node)), (at + millis(random.below(400)), Fault::Kill(other))],
        2 => {
            vec![(at, Fault::Kill(node)), (at + millis(20 + random.below(300)), Fault::Start(node))]
        }
        3 => {
            let end = at + millis(10 + random.below(2500));
            let read = end + millis(30);
            vec![(at, Fault::Stop(node)), (end, Fault::GoOn(node)), (read, Fault::ReadMail(node))]
        }
        4 => vec![(at, Fault::Shutdown(node)), (back, Fault::Start(node))],
        5 => vec![(at, Fault::Link(node, false)), (back, Fault::Link(node, true))],
        6 => vec![(at, Fault::AllLinks(false)), (back, Fault::AllLinks(true))],
        7 => {
            let side = (0..setup.nodes).map(|_| random.below(2) as u8).collect();
            vec![(at, Fault::Partition(side)), (back, Fault::Heal)]
        }
        8 | 9 => {
            let new = changed_setup(random, setup);
            (0..setup.nodes)
                .map(|i| (at + millis(random.below(400)), Fault::Configure(i, new.clone())))
                .collect()
        }
        10 => vec![(at, Fault::CrashServer(node))],
        _ => {
            let which = random.below(setup.vips.len() as u64) as usize;
            vec![(at, Fault::StrangerComes(which)), (back + millis(500), Fault::StrangerGoes)]
        }
    }
}

fn changed_setup(random: &mut Random, setup: &Setup) -> Setup {
    let mut new = setup.clone();
    match random.below(5) {
        0 => new.vips.push(random_vip(random, 50, setup.nodes)),
        1 => drop(new.vips.pop()),
        2 => new.selected = Some((0..setup.nodes).filter(|_| random.chance(50)).collect()),
        3 => new.selected = None,
        _ => {
            for vip in &mut new.vips {
                vip.local = Some((0..setup.nodes).filter(|_| random.chance(50)).collect());
            }
        }
    }
    new
}

fn apply(cluster: &mut Cluster, judge: &mut Judge, fault: &Fault) {
    if cluster.trace {
        println!("{:?} === {fault:?}", cluster.now);
    }
    let now = cluster.now;
    judge.disturbed = now;
    if let Fault::GoOn(i) | Fault::Start(i) = fault {
        judge.watched.retain(|_, (_, victim)| victim != i);
    }
    let mut touched = Vec::new();
    match fault {
        Fault::Kill(i) => {
            watch(cluster, judge, *i);
            cluster.nodes[*i].kill();
        }
        Fault::Start(i) => {
            if cluster.nodes[*i].kernel.is_some() {
                cluster.nodes[*i].kill();
            }
            cluster.nodes[*i].start();
            touched.push(*i);
        }
        Fault::Stop(i) => {
            watch(cluster, judge, *i);
            cluster.nodes[*i].stopped = true;
        }
        Fault::GoOn(i) => {
            cluster.nodes[*i].go_on();
            touched.push(*i);
        }
        Fault::ReadMail(i) => {
            cluster.nodes[*i].read_mail();
            touched.push(*i);
        }
        Fault::Shutdown(i) => {
            judge.graceful = Some(now);
            watch(cluster, judge, *i);
            cluster.nodes[*i].mail(wiring::SIGNAL, Message::Shutdown);
            touched.push(*i);
        }
        Fault::Link(i, up) => {
            if !up {
                watch(cluster, judge, *i);
            }
            cluster.nodes[*i].link = *up;
            cluster.nodes[*i].update_inputs();
            touched.push(*i);
        }
        Fault::AllLinks(up) => {
            for i in 0..cluster.nodes.len() {
                cluster.nodes[i].link = *up;
                cluster.nodes[i].update_inputs();
                touched.push(i);
            }
        }
        Fault::Partition(side) => cluster.wire.side.clone_from(side),
        Fault::Heal => {
            cluster.wire.side.fill(0);
            judge.joining_until = now + Duration::from_millis(150);
        }
        Fault::Configure(i, setup) => {
            cluster.nodes[*i].setup = setup.clone();
            cluster.nodes[*i].update_inputs();
            touched.push(*i);
        }
        Fault::CrashServer(i) => {
            watch(cluster, judge, *i);
            if let Some(kernel) = &mut cluster.nodes[*i].kernel {
                kernel.crash_next_call(wiring::ANNOUNCE);
            }
        }
        Fault::StrangerComes(_) if cluster.stranger.is_some() => {}
        Fault::StrangerComes(which) => {
            let vip = cluster.nodes[0].setup.vips.get(*which).map(|vip| vip.address);
            // It comes to stay when it finds the address free, and speaks up twice at once.
            cluster.stranger_is_quiet = false;
            cluster.stranger = vip.filter(|address| address.is_ipv4());
        }
        Fault::StrangerGoes => {
            // Its address is asked about every ten seconds only; so it is out of the game.
            if let Some(address) = cluster.stranger {
                for i in 0..cluster.nodes.len() {
                    cluster.nodes[i].setup.vips.retain(|vip| vip.address != address);
                    cluster.nodes[i].update_inputs();
                    touched.push(i);
                }
            }
            cluster.stranger = None;
        }
    }
    for i in touched {
        cluster.step(i);
    }
}

/// Measures how long it takes until another node answers for what this one holds.
fn watch(cluster: &Cluster, judge: &mut Judge, victim: usize) {
    let node = &cluster.nodes[victim];
    for vip in &node.setup.vips {
        let others = cluster.nodes.iter().any(|other| {
            other.number != victim
                && other.is_running()
                && other.link
                && other.setup.allows(other.number, vip)
        });
        if node.answers(vip.address, cluster.now) && others {
            judge.watched.insert(vip.address, (cluster.now, victim));
        }
    }
}

/// Crashes on purpose are not worth a message each.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let normal = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let on_purpose = info
                .payload()
                .downcast_ref::<&str>()
                .is_some_and(|text| *text == "crashed on purpose");
            if !on_purpose {
                normal(info);
            }
        }));
    });
}

pub(crate) struct Storm {
    /// ARP frames in the busiest second.
    pub(crate) peak: u64,
    pub(crate) moved_ms: u64,
    pub(crate) unanswered: usize,
}

/// Two nodes, a thousand addresses, and the death of one node.
pub(crate) fn storm() -> Storm {
    let vips = (1..=1000).map(|n| Vip { address: vip(n, false), local: None, ingress: false });
    let setup = Setup { nodes: 2, node_objects: true, selected: None, vips: vips.collect() };
    let wire = Wire { loss: 0, duplicates: 0, delay_micros: 500, side: vec![0; 2] };
    let mut cluster = Cluster::new(&setup, wire, Random(1), false);
    let run = |cluster: &mut Cluster, millis: u64| {
        let end = cluster.now + Duration::from_millis(millis);
        cluster.run_until(end);
    };
    let unanswered = |cluster: &Cluster| {
        let answered = |vip: &&Vip| {
            cluster.nodes[1].is_running() && cluster.nodes[1].answers(vip.address, cluster.now)
        };
        setup.vips.len() - setup.vips.iter().filter(answered).count()
    };
    run(&mut cluster, 12_000);
    cluster.nodes[0].kill();
    let died = cluster.now;
    while unanswered(&cluster) > 0 && cluster.now.since(died) < Duration::from_secs(5) {
        run(&mut cluster, 10);
    }
    let moved_ms = cluster.now.since(died).as_millis() as u64;
    run(&mut cluster, 3000);
    let peak = cluster.frames.values().copied().max().unwrap_or(0);
    Storm { peak, moved_ms, unanswered: unanswered(&cluster) }
}
