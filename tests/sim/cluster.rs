//! The nodes, the wire between them, a client and the clock.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;

use pilus::api::address::MacAddr;
use pilus::api::{Message, wiring};
use pilus::kernel::Time;
use pilus::proto::{arp, ndp};

use crate::config::Setup;
use crate::lan::{Packet, Random, Wire};
use crate::node::{ETH, Node};

pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wire: Wire,
    pub(crate) random: Random,
    /// The client's neighbour table: filled by what it overhears, as a router that has the addresses in
    /// use would.
    pub(crate) client: BTreeMap<IpAddr, MacAddr>,
    /// A host that is no node and uses an address.
    pub(crate) stranger: Option<IpAddr>,
    /// It only answers questions.
    pub(crate) stranger_is_quiet: bool,
    /// ARP and neighbour frames in each second, and VRRP packets.
    pub(crate) frames: BTreeMap<u64, u64>,
    pub(crate) adverts: BTreeMap<u64, u64>,
    wakes: Vec<Option<Time>>,
    flights: BinaryHeap<Reverse<(Time, u64)>>,
    landing: BTreeMap<u64, (usize, Packet)>,
    next_flight: u64,
    pub(crate) trace: bool,
}

pub(crate) const STRANGER: MacAddr = MacAddr([2, 0xee, 0, 0, 0, 1]);

impl Cluster {
    pub(crate) fn new(setup: &Setup, wire: Wire, random: Random, trace: bool) -> Self {
        let nodes: Vec<Node> = (0..setup.nodes).map(|i| Node::new(i, setup.clone())).collect();
        Self {
            now: Time::from_nanos(1_000_000_000),
            wakes: vec![Some(Time::ZERO); nodes.len()],
            nodes,
            wire,
            random,
            client: BTreeMap::new(),
            stranger: None,
            stranger_is_quiet: false,
            frames: BTreeMap::new(),
            adverts: BTreeMap::new(),
            flights: BinaryHeap::new(),
            landing: BTreeMap::new(),
            next_flight: 0,
            trace,
        }
    }

    /// Lets time pass until `end`.
    pub(crate) fn run_until(&mut self, end: Time) {
        loop {
            let flight = self.flights.peek().map(|Reverse((at, _))| *at);
            let wake = self.wakes.iter().copied().flatten().min();
            let Some(next) = [flight, wake].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if flight == Some(next) {
                self.land();
            } else {
                let due = self.wakes.iter().position(|wake| *wake == Some(next));
                self.step(due.expect("the wake that was found"));
            }
        }
        self.now = end;
    }

    /// Runs one node's agent now and puts on the wire what it sends.
    pub(crate) fn step(&mut self, node: usize) {
        self.wakes[node] = self.nodes[node].step(self.now);
        let packets = std::mem::take(&mut self.nodes[node].world.borrow_mut().wire);
        for packet in packets {
            self.send(node, packet);
        }
    }

    fn send(&mut self, from: usize, mut packet: Packet) {
        if !self.nodes[from].link {
            return;
        }
        let second = self.now.as_nanos() / 1_000_000_000;
        match &mut packet {
            Packet::Vrrp { mac, .. } => {
                *mac = self.nodes[from].mac;
                *self.adverts.entry(second).or_default() += 1;
            }
            Packet::Frame(frame) => {
                *self.frames.entry(second).or_default() += 1;
                let frame = std::sync::Arc::clone(frame);
                self.stranger_hears(&frame);
                if !self.random.chance(self.wire.loss) {
                    self.client_hears(&frame);
                }
            }
        }
        if self.trace {
            let what = match &packet {
                Packet::Vrrp { payload, .. } => format!("vrrp {:?}", &payload[1..]),
                Packet::Frame(frame) => format!("frame {:?}", arp::Packet::parse(frame).ok()),
            };
            println!("{:?} node {from} sends {what}", self.now);
        }
        for to in 0..self.nodes.len() {
            if to != from && self.wire.side[to] == self.wire.side[from] {
                self.fly(to, &packet);
            }
        }
    }

    fn fly(&mut self, to: usize, packet: &Packet) {
        for delay in self.wire.copies(&mut self.random) {
            let at = self.now + std::time::Duration::from_nanos(delay);
            self.flights.push(Reverse((at, self.next_flight)));
            self.landing.insert(self.next_flight, (to, packet.clone()));
            self.next_flight += 1;
        }
    }

    fn land(&mut self) {
        let Some(Reverse((_, id))) = self.flights.pop() else { return };
        let Some((to, packet)) = self.landing.remove(&id) else { return };
        if !self.nodes[to].link {
            return;
        }
        if let Packet::Frame(frame) = &packet {
            self.hooks_hear(to, frame);
        }
        let message = match packet {
            Packet::Frame(frame) => Message::Frame(ETH, frame),
            Packet::Vrrp { mac, source, payload } => Message::Vrrp(ETH, mac, source, 255, payload),
        };
        self.nodes[to].mail(wiring::LAN, message);
        self.step(to);
    }

    /// The hooks answer a probe, whether or not the agent lives.
    fn hooks_hear(&mut self, node: usize, frame: &[u8]) {
        let Ok(question) = arp::Packet::parse(frame) else { return };
        let asked =
            question.operation == arp::Operation::Request && question.sender != question.target;
        if !asked || !self.nodes[node].answers(question.target.into(), self.now) {
            return;
        }
        let mac = self.nodes[node].mac;
        let reply = arp::Packet {
            operation: arp::Operation::Reply,
            sender_mac: mac,
            sender: question.target,
            target_mac: question.sender_mac,
            target: question.sender,
        };
        let asker = self.nodes.iter().position(|it| it.mac == question.sender_mac);
        if let Some(asker) = asker {
            self.fly(asker, &Packet::Frame(reply.frame(question.sender_mac).into()));
        }
    }

    fn stranger_hears(&mut self, frame: &[u8]) {
        let Some(address) = self.stranger else { return };
        let asker = match (arp::Packet::parse(frame), address) {
            (Ok(it), IpAddr::V4(own)) if it.is_probe() && it.target == own => it.sender_mac,
            _ => return,
        };
        let to = self.nodes.iter().position(|it| it.mac == asker);
        if let Some(to) = to {
            let frame = self.stranger_claim(asker);
            self.fly(to, &Packet::Frame(frame.into()));
        }
    }

    fn stranger_claim(&self, to: MacAddr) -> Vec<u8> {
        let Some(IpAddr::V4(address)) = self.stranger else { return Vec::new() };
        let operation = arp::Operation::Reply;
        let packet = arp::Packet::announcement(operation, STRANGER, address);
        packet.frame(to)
    }

    /// The stranger announces itself to all.
    pub(crate) fn stranger_speaks(&mut self) {
        let frame: std::sync::Arc<[u8]> = self.stranger_claim(MacAddr::BROADCAST).into();
        for to in 0..self.nodes.len() {
            self.fly(to, &Packet::Frame(std::sync::Arc::clone(&frame)));
        }
    }

    fn client_hears(&mut self, frame: &[u8]) {
        if let Ok(packet) = arp::Packet::parse(frame) {
            if packet.sender == packet.target {
                self.client.insert(packet.sender.into(), packet.sender_mac);
            }
        } else if let Ok(message) = ndp::Message::parse(frame)
            && matches!(message.kind, ndp::Kind::Advertisement { .. })
        {
            self.client.insert(message.target.into(), message.source_mac);
        }
    }
}
