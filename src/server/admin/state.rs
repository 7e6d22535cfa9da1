//! What the admin server was last told, shared with the tasks that answer questions.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::Message;
use crate::api::address::{Assignments, Port};
use crate::api::announce::{Announcement, Announcements, Role};
use crate::api::config::Config;
use crate::api::datapath::{DatapathReport, Programmed, Transport};
use crate::api::endpoint::{Endpoint, Endpoints, ServicePort};
use crate::api::meta::{Kind, NamespacedName, ObjectKey};
use crate::api::object::{PortProtocol, Service};
use crate::api::query::View;
use crate::api::route::{Listener, ListenerTable, RouteTable};
use crate::api::service::{Balancing, Frontend};
use crate::arrange::Arrange;
use crate::kernel::{Mailer, ServerReport, Time};

/// Figures of another part of the program, asked for with each `/metrics`: metric name (without the
/// prefix `pilus_`, `_total` at the end marks a counter) and value.
pub type Counters = Arc<dyn Fn() -> Vec<(&'static str, u64)>>;

/// The last of each whole-state message. Cloning is cheap: a task that writes a long answer keeps the
/// state it began with.
#[derive(Clone)]
pub(super) struct State {
    pub(super) config: Arc<Config>,
    pub(super) started: Time,
    pub(super) view: Arc<View>,
    pub(super) assignments: Arc<Assignments>,
    pub(super) announcements: Arc<Announcements>,
    pub(super) programmed: Option<Arc<Programmed>>,
    pub(super) datapath: Arc<DatapathReport>,
    pub(super) services: Arc<DatapathReport>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) listeners: Arc<ListenerTable>,
    pub(super) balancing: Arc<Balancing>,
    pub(super) mailer: Option<Mailer<Message>>,
    pub(super) counters: Vec<Counters>,
}

/// What tells listeners apart.
pub(super) type Place<'a> = (&'a NamespacedName, Port, Transport);

/// Where a listener listens.
pub(super) const fn place_of(listener: &Listener) -> Place<'_> {
    (&listener.service, listener.port, listener.protocol.transport())
}

// === impl State ===

impl State {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            started: Time::ZERO,
            view: Arc::default(),
            assignments: Arc::default(),
            announcements: Arc::default(),
            programmed: None,
            datapath: Arc::default(),
            services: Arc::default(),
            endpoints: Arc::default(),
            routes: Arc::default(),
            listeners: Arc::default(),
            balancing: Arc::default(),
            mailer: None,
            counters: Vec::new(),
        }
    }

    /// Takes what concerns this server; everything else is no message of its own.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::View(view) => self.view = view,
            Message::Assignments(assignments) => self.assignments = assignments,
            Message::Announcements(announcements) => self.announcements = announcements,
            Message::Programmed(programmed) => self.programmed = Some(programmed),
            Message::DatapathReport(report) => self.datapath = report,
            Message::ServiceReport(report) => self.services = report,
            Message::Endpoints(endpoints) => self.endpoints = endpoints,
            Message::Routes(routes) => self.routes = routes,
            Message::Listeners(listeners) => self.listeners = listeners,
            Message::Balancing(balancing) => self.balancing = balancing,
            other => log::debug!("the admin server has no use for {}", name_of(&other)),
        }
    }

    pub(super) fn reports(&self) -> Vec<ServerReport> {
        self.mailer.as_ref().map(Mailer::reports).unwrap_or_default()
    }

    /// The backends of one Service port; none if it is not known.
    pub(super) fn endpoints_of(&self, port: &ServicePort) -> &[Endpoint] {
        self.endpoints.by_port.get(port).map_or(&[], |list| list)
    }

    /// The LoadBalancer addresses of a Service, as the status shows them.
    pub(super) fn addresses_of(&self, service: &Service) -> Vec<IpAddr> {
        let name = &service.meta.name;
        let key = ObjectKey { kind: Kind::Service, name: name.clone() };
        self.assignments
            .by_service
            .get(name)
            .or_else(|| self.view.statuses.get(&key).and_then(|shown| shown.load_balancer.as_ref()))
            .unwrap_or(&service.status_ips)
            .clone()
    }

    /// What the service programs do at one place for a Service.
    pub(super) fn frontend(
        &self,
        service: &NamespacedName,
        address: IpAddr,
        port: Port,
        protocol: PortProtocol,
    ) -> Option<&Arc<Frontend>> {
        let all = &self.balancing.frontends;
        let place = (address, port, protocol);
        let at = all.binary_search_by(|it| (it.address, it.port, it.protocol).cmp(&place)).ok()?;
        all.get(at).filter(|it| it.service == *service)
    }

    /// What is announced for one address, on the interface where most is known: a holder first.
    pub(super) fn announcement(&self, address: IpAddr) -> Option<&Announcement> {
        let all = self.announcements.list.iter().filter(|entry| entry.address == address);
        all.max_by_key(|entry| (entry.holder.is_some(), entry.role == Role::Holder))
    }

    /// All listeners: those with addresses, and those that have none yet.
    pub(super) fn all_listeners(&self) -> Vec<Arc<Listener>> {
        let mut all: Vec<Arc<Listener>> = if self.listeners.all.is_empty() {
            &self.routes.listeners
        } else {
            &self.listeners.all
        }
        .clone();
        all.arrange_by(|left, right| place_of(left).cmp(&place_of(right)));
        all
    }

    /// The addresses of each listener, sorted.
    pub(super) fn listener_addresses(&self) -> HashMap<Place<'_>, Vec<IpAddr>> {
        let mut addresses: HashMap<_, Vec<IpAddr>> = HashMap::new();
        for ((address, ..), listener) in &self.listeners.by_address {
            addresses.entry(place_of(listener)).or_default().push(*address);
        }
        for list in addresses.values_mut() {
            list.arrange();
        }
        addresses
    }
}

fn name_of(message: &Message) -> &'static str {
    crate::kernel::Message::name(message)
}
