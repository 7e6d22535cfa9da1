//! The endpoints of Services, as the endpoint controllers of Kubernetes find them.
//!
//! A Service with a selector has those of the Pods it selects, and any EndpointSlice of its name that
//! was not made here; a Service without one has its EndpointSlices. For Services in files, where no
//! controller does it, EndpointSlices are generated (`generate`), so that they can be looked at.
//!
//! In: `Objects` from the store. Out: `Endpoints` to the proxy, announce and service servers, `Statuses`
//! (generated EndpointSlices, problems) to the store.
mod generate;
mod select;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use select::{PodIndex, Target};

use crate::api::address::{Port, is_elsewhere};
use crate::api::endpoint::{Endpoint, Endpoints, ServicePort};
use crate::api::message::Resolved;
use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Origin, Str};
use crate::api::object::gateway::ExternalBackend;
use crate::api::object::{EndpointSlice, Pod, PortProtocol, Service, ServiceType};
use crate::api::objects::{Generated, Objects};
use crate::api::problem::{Problem, Severity};
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::arrange::{Arrange, Gather};
use crate::kernel::{Outbox, Retired, Server, ServerId, Time};

/// All complaints about the endpoints of the Services in `objects`. For `pilus check`.
pub fn check(objects: &Objects) -> Vec<Problem> {
    problems(objects)
}

/// The server; see the module.
#[derive(Default)]
pub struct EndpointServer {
    objects: Option<Arc<Objects>>,
    /// What was computed for each Service, and from what.
    services: HashMap<NamespacedName, Known>,
    endpoints: Arc<Endpoints>,
    /// Those of before, which the proxy may still have.
    retired: Retired<Endpoints>,
    statuses: Arc<Statuses>,
    /// The names of XBackends that are to be looked up, and what they have been found to be.
    names: Arc<BTreeSet<Str>>,
    resolved: Arc<BTreeMap<Str, Resolved>>,
    computed: u64,
}

/// The endpoints of one Service with the objects they come from.
struct Known {
    service: Arc<Service>,
    pods: Vec<Arc<Pod>>,
    slices: Vec<Arc<EndpointSlice>>,
    by_port: Vec<(ServicePort, Arc<[Endpoint]>)>,
    generated: Vec<Arc<EndpointSlice>>,
}

// === impl EndpointServer ===

impl EndpointServer {
    /// A server that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many Services were computed since the start; for tests that count work instead of time.
    pub const fn computed(&self) -> u64 {
        self.computed
    }

    fn compute(&mut self, now: Time, objects: &Objects, out: &mut Outbox<Message>) {
        let index = PodIndex::new(objects);
        let slices = slices_by_service(objects);
        let mut known = HashMap::with_capacity(objects.services.len());
        for (name, service) in objects.services.iter() {
            let pods = index.select(service);
            let slices = slices.get(name).map_or(&[][..], Vec::as_slice);
            let entry = match self.services.remove(name) {
                Some(old) if old.is_from(service, &pods, slices) => old,
                _ => {
                    self.computed += 1;
                    compute_service(service, pods, slices)
                }
            };
            known.insert(name.clone(), entry);
        }
        self.services = known;
        self.resolve(objects, out);
        self.publish(now, objects, out);
    }

    fn publish(&mut self, now: Time, objects: &Objects, out: &mut Outbox<Message>) {
        let mut endpoints = Endpoints::default();
        let mut generated = Generated::default();
        for name in objects.services.keys() {
            let Some(known) = self.services.get(name) else { continue };
            for (port, list) in &known.by_port {
                endpoints.by_port.insert(port.clone(), Arc::clone(list));
            }
            generated.endpoint_slices.extend(known.generated.iter().map(Arc::clone));
        }
        let external = objects.external_backends.values();
        endpoints.by_port.extend(external.map(|it| self.external(it)));
        if self.objects.is_none() || endpoints.by_port != self.endpoints.by_port {
            let former = std::mem::replace(&mut self.endpoints, Arc::new(endpoints));
            self.retired.add(now, former);
            self.send_endpoints(wiring::PROXY, out);
            self.send_endpoints(wiring::ANNOUNCE, out);
            self.send_endpoints(wiring::ADMIN, out);
            self.send_endpoints(wiring::SERVICE, out);
        }
        let statuses = Statuses {
            problems: self.problems(objects),
            generated: Arc::new(generated),
            ..Statuses::default()
        };
        if statuses != *self.statuses {
            self.statuses = Arc::new(statuses);
            out.send(wiring::STORE, Message::Statuses(Arc::clone(&self.statuses)));
        }
    }

    /// Asks for the names of XBackends.
    fn resolve(&mut self, objects: &Objects, out: &mut Outbox<Message>) {
        let hosts = objects.external_backends.values().map(|backend| &backend.hostname);
        let names: BTreeSet<Str> =
            hosts.filter(|host| literal(host).is_none()).map(Str::clone).gather();
        if names != *self.names {
            self.names = Arc::new(names);
            out.send(wiring::RESOLVER, Message::Resolve(Arc::clone(&self.names)));
        }
    }

    /// The endpoints of an XBackend: those of the Service port `xbackend/NAME`, a name that no Service can have.
    fn external(&self, backend: &ExternalBackend) -> (ServicePort, Arc<[Endpoint]>) {
        let NamespacedName { namespace, name } = &backend.meta.name;
        let name = format!("xbackend/{name}").into();
        let service = NamespacedName { namespace: Str::clone(namespace), name };
        let addresses = match literal(&backend.hostname) {
            Some(address) => vec![address],
            None => self
                .resolved
                .get(&backend.hostname)
                .map_or_else(Vec::new, |it| it.addresses.clone()),
        };
        let endpoint = |address| Endpoint {
            address: SocketAddr::new(address, backend.port),
            ready: true,
            terminating: false,
            node: None,
            pod: None,
        };
        let port = Port(backend.port);
        let elsewhere = addresses.into_iter().filter(|&address| is_elsewhere(address));
        (
            ServicePort { service, port, protocol: PortProtocol::Tcp },
            elsewhere.map(endpoint).collect(),
        )
    }

    fn problems(&self, objects: &Objects) -> Vec<Problem> {
        let mut problems = problems(objects);
        for backend in objects.external_backends.values() {
            let Some(found) = self.resolved.get(&backend.hostname) else { continue };
            let field = "spec.externalHostname.hostname";
            let only_here = found.addresses.iter().find(|&&address| !is_elsewhere(address));
            let message = match (&found.fault, only_here) {
                (Some(fault), _) => fault.clone(),
                (None, Some(address)) => {
                    format!(
                        "{} is {address}, which is not an address of another host; it is left out",
                        backend.hostname
                    )
                }
                (None, None) => continue,
            };
            problems.push(Problem {
                position: backend.meta.position(field),
                object: Some(ObjectKey { kind: Kind::XBackend, name: backend.meta.name.clone() }),
                field: field.to_owned(),
                message,
                severity: Severity::Error,
            });
        }
        problems.arrange();
        problems
    }

    fn send_endpoints(&self, to: ServerId, out: &mut Outbox<Message>) {
        out.send(to, Message::Endpoints(Arc::clone(&self.endpoints)));
    }

    fn is_new(&self, objects: &Objects) -> bool {
        let Some(old) = &self.objects else { return true };
        !(Arc::ptr_eq(&old.pods, &objects.pods)
            && Arc::ptr_eq(&old.services, &objects.services)
            && Arc::ptr_eq(&old.endpoint_slices, &objects.endpoint_slices)
            && Arc::ptr_eq(&old.external_backends, &objects.external_backends))
    }
}

impl Server<Message> for EndpointServer {
    fn handle(&mut self, now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::Objects(objects) => {
                if self.is_new(&objects) {
                    self.compute(now, &objects, out);
                }
                self.objects = Some(objects);
            }
            Message::Resolved(resolved) => {
                self.resolved = resolved;
                if let Some(objects) = self.objects.clone() {
                    self.publish(now, &objects, out);
                }
            }
            _ => {}
        }
    }

    fn timeout(&self) -> Option<Time> {
        self.retired.timeout()
    }

    fn tick(&mut self, now: Time, _out: &mut Outbox<Message>) {
        self.retired.sweep(now);
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if self.objects.is_none() {
            return;
        }
        match peer {
            wiring::PROXY | wiring::ANNOUNCE | wiring::ADMIN | wiring::SERVICE => {
                self.send_endpoints(peer, out);
            }
            wiring::RESOLVER => out.send(peer, Message::Resolve(Arc::clone(&self.names))),
            wiring::STORE => out.send(peer, Message::Statuses(Arc::clone(&self.statuses))),
            _ => {}
        }
    }
}

// === impl Known ===

impl Known {
    fn is_from(
        &self,
        service: &Arc<Service>,
        pods: &[Arc<Pod>],
        slices: &[Arc<EndpointSlice>],
    ) -> bool {
        Arc::ptr_eq(&self.service, service)
            && self.pods.len() == pods.len()
            && self.slices.len() == slices.len()
            && self.pods.iter().zip(pods).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.slices.iter().zip(slices).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

fn compute_service(
    service: &Arc<Service>,
    pods: Vec<Arc<Pod>>,
    slices: &[Arc<EndpointSlice>],
) -> Known {
    let targets: Vec<Target> = pods.iter().flat_map(|pod| select::targets(service, pod)).collect();
    let mut by_port: Vec<(ServicePort, Arc<[Endpoint]>)> = Vec::new();
    for (at, spec) in service.ports.iter().enumerate() {
        let port = ServicePort {
            service: service.meta.name.clone(),
            port: Port(spec.port),
            protocol: spec.protocol,
        };
        if by_port.iter().any(|(known, _)| *known == port) {
            continue;
        }
        let mut list: Vec<Endpoint> =
            targets.iter().filter_map(|target| target.endpoint(at)).collect();
        if service.kind == ServiceType::ExternalName {
            list.clear();
        } else {
            list.extend(slice_endpoints(service, slices, &spec.name, spec.protocol));
        }
        // Stable: where a Pod and a slice name the same address, the Pod's word counts.
        list.arrange_by_key(|endpoint| endpoint.address);
        list.dedup_by_key(|endpoint| endpoint.address);
        by_port.push((port, list.into()));
    }
    let generated = match (&service.meta.origin, &service.selector) {
        (Origin::File(_), Some(_)) if service.kind != ServiceType::ExternalName => {
            generate::slices(service, &targets)
        }
        _ => Vec::new(),
    };
    Known { service: Arc::clone(service), pods, slices: slices.to_vec(), by_port, generated }
}

/// The endpoints that EndpointSlices list for one port, which they name (discovery.k8s.io/v1).
fn slice_endpoints<'a>(
    service: &'a Service,
    slices: &'a [Arc<EndpointSlice>],
    port_name: &'a str,
    protocol: PortProtocol,
) -> impl Iterator<Item = Endpoint> + 'a {
    slices.iter().flat_map(move |slice| {
        let ports = slice
            .ports
            .iter()
            .filter(move |port| *port.name == *port_name && port.protocol == protocol);
        ports.flat_map(move |port| {
            slice.endpoints.iter().filter_map(move |endpoint| {
                Some(Endpoint {
                    address: SocketAddr::new(*endpoint.addresses.first()?, port.port),
                    ready: endpoint.ready || service.publish_not_ready,
                    terminating: endpoint.terminating && endpoint.serving,
                    node: endpoint.node.as_ref().map(Arc::clone),
                    pod: endpoint.pod.clone(),
                })
            })
        })
    })
}

/// The address that a host of an XBackend is, unless it is a name.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The EndpointSlices of each Service, without those made here.
fn slices_by_service(objects: &Objects) -> HashMap<NamespacedName, Vec<Arc<EndpointSlice>>> {
    let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
    for slice in objects.endpoint_slices.values() {
        if !matches!(slice.meta.origin, Origin::Generated(_)) {
            by_service.entry(service_of(slice)).or_default().push(Arc::clone(slice));
        }
    }
    by_service
}

fn service_of(slice: &EndpointSlice) -> NamespacedName {
    NamespacedName {
        namespace: Str::clone(&slice.meta.name.namespace),
        name: Str::clone(&slice.service),
    }
}

fn problems(objects: &Objects) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut warn = |kind: Kind, meta: &Meta, field: &str, message: String| {
        problems.push(Problem {
            position: meta.position(field),
            object: Some(ObjectKey { kind, name: meta.name.clone() }),
            field: field.to_owned(),
            message,
            severity: Severity::Warning,
        });
    };
    for service in objects.services.values() {
        if service.kind == ServiceType::ExternalName {
            let message =
                "a Service of type ExternalName has no endpoints here: an Ingress cannot use it";
            warn(Kind::Service, &service.meta, "spec.type", message.to_owned());
        }
    }
    for slice in objects.endpoint_slices.values() {
        let service = service_of(slice);
        let own = matches!(slice.meta.origin, Origin::File(_));
        if own && !slice.service.is_empty() && !objects.services.contains_key(&service) {
            let message = format!("it is for the Service {service}, which does not exist");
            warn(Kind::EndpointSlice, &slice.meta, "metadata.labels", message);
        }
    }
    problems.arrange();
    problems
}
