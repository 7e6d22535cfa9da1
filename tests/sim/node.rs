//! One node: a kernel with the announce server and stand-ins for its neighbours, and the hooks in the
//! node's kernel, which outlive the agent.
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use pilus::api::address::{IfIndex, MacAddr};
use pilus::api::config::Config;
use pilus::api::interface::{Interface, Interfaces, Prefix};
use pilus::api::{Message, wiring};
use pilus::kernel::{Kernel, Outbox, Server, ServerId, Time, Wiring};
use pilus::server::announce::Announce;

use crate::config::{Setup, node_ip, node_ip6, node_name};
use crate::lan::Packet;

pub(crate) const ETH: IfIndex = IfIndex(2);

/// What the stand-ins have been told, and what they tell.
#[derive(Default)]
pub(crate) struct World {
    /// Sent by the agent and not yet on the wire.
    pub(crate) wire: Vec<Packet>,
    /// The hooks' table and liveness: they survive the agent.
    pub(crate) answers: Vec<(IpAddr, bool)>,
    pub(crate) alive_until: Time,
    pub(crate) released: bool,
    pub(crate) inputs: Vec<(ServerId, Message)>,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) kernel: Option<Kernel<Message>>,
    pub(crate) world: Rc<RefCell<World>>,
    pub(crate) setup: Setup,
    pub(crate) mac: MacAddr,
    pub(crate) link: bool,
    /// The agent's process does not run, its mail waits.
    pub(crate) stopped: bool,
    pub(crate) mailbag: Vec<(ServerId, Message)>,
}

struct Neighbour {
    id: ServerId,
    world: Rc<RefCell<World>>,
}

impl Neighbour {
    fn tell(&self, out: &mut Outbox<Message>) {
        for (from, message) in &self.world.borrow().inputs {
            if *from == self.id {
                out.send(wiring::ANNOUNCE, message.clone());
            }
        }
    }
}

impl Server<Message> for Neighbour {
    fn start(&mut self, _now: Time, out: &mut Outbox<Message>) {
        self.tell(out);
    }
    fn handle(
        &mut self,
        _now: Time,
        _from: ServerId,
        message: Message,
        _out: &mut Outbox<Message>,
    ) {
        let mut world = self.world.borrow_mut();
        match message {
            Message::SendFrame(_, frame) => world.wire.push(Packet::Frame(frame)),
            Message::SendVrrp(_, source, payload) => {
                let mac = MacAddr::ZERO;
                world.wire.push(Packet::Vrrp { mac, source, payload });
            }
            Message::Answers(answers) => {
                world.answers = answers.answers.iter().map(|it| (it.address, it.held)).collect();
            }
            Message::Alive(until) => world.alive_until = until,
            Message::Released => world.released = true,
            _ => {}
        }
    }
    fn peer_restarted(&mut self, _now: Time, _peer: ServerId, out: &mut Outbox<Message>) {
        self.tell(out);
    }
}

impl Node {
    pub(crate) fn new(number: usize, setup: Setup) -> Self {
        let mut node = Self {
            number,
            kernel: None,
            world: Rc::default(),
            setup,
            mac: MacAddr([2, 0, 0, 0, 0, number as u8 + 1]),
            link: true,
            stopped: false,
            mailbag: Vec::new(),
        };
        node.start();
        node
    }

    /// Starts the agent's process.
    pub(crate) fn start(&mut self) {
        {
            let mut world = self.world.borrow_mut();
            world.inputs.clear();
            world.wire.clear();
            world.released = false;
        }
        self.set_inputs();
        let mut kernel = Kernel::new();
        for id in [
            wiring::NETLINK,
            wiring::LAN,
            wiring::SIGNAL,
            wiring::STORE,
            wiring::IPAM,
            wiring::ENDPOINT,
            wiring::DATAPATH,
            wiring::BPF,
            wiring::ADMIN,
        ] {
            let world = Rc::clone(&self.world);
            kernel.add(Wiring {
                id,
                name: "neighbour",
                may_send: &[wiring::ANNOUNCE],
                mailbox: 4096,
                build: Box::new(move || Box::new(Neighbour { id, world: Rc::clone(&world) })),
            });
        }
        let config = Arc::new(Config { node: node_name(self.number).into(), ..Config::default() });
        kernel.add(Wiring {
            id: wiring::ANNOUNCE,
            name: "announce",
            may_send: &[
                wiring::LAN,
                wiring::SIGNAL,
                wiring::STORE,
                wiring::DATAPATH,
                wiring::BPF,
                wiring::ADMIN,
            ],
            mailbox: 4096,
            build: Box::new(move || Box::new(Announce::new(Arc::clone(&config), 0))),
        });
        self.kernel = Some(kernel);
    }

    /// SIGKILL: all state is lost, the hooks stay.
    pub(crate) fn kill(&mut self) {
        self.kernel = None;
        self.stopped = false;
        self.mailbag.clear();
    }

    fn set_inputs(&self) {
        let interface = Interface {
            index: ETH,
            name: "eth1".into(),
            mac: self.mac,
            up: self.link,
            loopback: false,
            port: false,
            kind: "".into(),
            addresses: vec![
                Prefix { address: node_ip(self.number).into(), length: 16 },
                Prefix { address: node_ip6(self.number).into(), length: 64 },
            ],
        };
        let interfaces = Interfaces { list: vec![interface] };
        self.world.borrow_mut().inputs = vec![
            (wiring::NETLINK, Message::Interfaces(Arc::new(interfaces))),
            (wiring::STORE, Message::Objects(Arc::new(self.setup.objects()))),
            (wiring::IPAM, Message::Assignments(Arc::new(self.setup.assignments()))),
            (wiring::ENDPOINT, Message::Endpoints(Arc::new(self.setup.endpoints()))),
        ];
    }

    /// Gives the agent what has changed.
    pub(crate) fn update_inputs(&mut self) {
        self.set_inputs();
        let inputs = self.world.borrow().inputs.clone();
        for (from, message) in inputs {
            self.mail(from, message);
        }
    }

    pub(crate) fn mail(&mut self, from: ServerId, message: Message) {
        if self.stopped {
            self.mailbag.push((from, message));
        } else if let Some(kernel) = &self.kernel {
            kernel.mailer(from).send(wiring::ANNOUNCE, message);
        }
    }

    /// Runs the agent until it has nothing to do; returns when it wants to run next.
    pub(crate) fn step(&mut self, now: Time) -> Option<Time> {
        if self.stopped {
            return None;
        }
        let kernel = self.kernel.as_mut()?;
        for _ in 0..1000 {
            let next = kernel.step(now);
            if !kernel.has_mail() && next.is_none_or(|next| next > now) {
                return next;
            }
        }
        panic!("the agent of node {} spins at {now:?}", self.number);
    }

    /// The agent runs again; what has waited is read by [`Node::read_mail`], a moment later.
    pub(crate) fn go_on(&mut self) {
        self.stopped = false;
    }

    /// Reads what has come in while the agent stood still.
    pub(crate) fn read_mail(&mut self) {
        for (from, message) in std::mem::take(&mut self.mailbag) {
            self.mail(from, message);
        }
    }

    /// Whether the hooks answer questions for `address` now.
    pub(crate) fn answers(&self, address: IpAddr, now: Time) -> bool {
        let world = self.world.borrow();
        self.link && world.alive_until > now && world.answers.contains(&(address, true))
    }

    /// Whether there is an entry that keeps the node's own kernel silent.
    pub(crate) fn is_silenced(&self, address: IpAddr) -> bool {
        self.world.borrow().answers.iter().any(|(own, _)| *own == address)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.kernel.is_some() && !self.stopped && !self.world.borrow().released
    }
}
