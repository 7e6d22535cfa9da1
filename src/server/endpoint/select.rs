//! From Pods to endpoints.
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::api::endpoint::Endpoint;
use crate::api::meta::NamespacedName;
use crate::api::object::{IpFamilyPolicy, Pod, Service, TargetPort};
use crate::api::objects::Objects;

/// The Pods of a snapshot by (namespace, label, value), for those labels only by which a Service selects.
pub(super) struct PodIndex<'a> {
    pods: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Arc<Pod>>>,
}

/// One address of one Pod with the target port of each port of the Service.
pub(super) struct Target {
    pub(super) ip: IpAddr,
    /// In the order of `spec.ports`; None where the Pod has no port of the name.
    pub(super) ports: Vec<Option<u16>>,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) node: Option<Arc<str>>,
    pub(super) pod: NamespacedName,
}

// === impl PodIndex ===

impl<'a> PodIndex<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let mut keys = HashSet::new();
        let mut wanted = HashSet::new();
        for (name, service) in objects.services.iter() {
            for (key, value) in service.selector.iter().flatten() {
                keys.insert(&**key);
                wanted.insert((&*name.namespace, &**key, &**value));
            }
        }
        let mut pods: HashMap<_, Vec<_>> = HashMap::new();
        for (name, pod) in objects.pods.iter() {
            for (key, value) in &pod.meta.labels {
                let label = (&*name.namespace, &**key, &**value);
                if keys.contains(&**key) && wanted.contains(&label) {
                    pods.entry(label).or_default().push(pod);
                }
            }
        }
        Self { pods }
    }

    /// The Pods that `service` selects, in the order of their names. An empty selector selects none,
    /// as no selector does.
    pub(super) fn select(&self, service: &Service) -> Vec<Arc<Pod>> {
        let Some(selector) = &service.selector else { return Vec::new() };
        let namespace = &*service.meta.name.namespace;
        let candidates = selector
            .iter()
            .map(|(key, value)| {
                self.pods.get(&(namespace, &**key, &**value)).map_or(&[][..], Vec::as_slice)
            })
            .min_by_key(|pods| pods.len())
            .unwrap_or_default();
        let selected = candidates.iter().filter(|pod| {
            selector.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value))
        });
        selected.map(|pod| Arc::clone(pod)).collect()
    }
}

/// The endpoints of `pod` for `service`, one for each address of the Service's families.
pub(super) fn targets(service: &Service, pod: &Pod) -> Vec<Target> {
    if pod.finished {
        return Vec::new();
    }
    let ports: Vec<Option<u16>> = service
        .ports
        .iter()
        .map(|spec| match &spec.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod
                .ports
                .iter()
                .find(|port| port.name == *name && port.protocol == spec.protocol)
                .map(|port| port.port),
        })
        .collect();
    addresses(service, pod)
        .into_iter()
        .map(|ip| Target {
            ip,
            ports: ports.clone(),
            ready: service.publish_not_ready || (pod.ready && !pod.terminating),
            serving: service.publish_not_ready || pod.ready,
            terminating: pod.terminating,
            node: pod.node.as_ref().map(Arc::clone),
            pod: pod.meta.name.clone(),
        })
        .collect()
}

/// The Pod's addresses of the Service's families: those it names; or else those of its cluster
/// addresses; or else all for a dual-stack Service, and the Pod's first for any other.
fn addresses(service: &Service, pod: &Pod) -> Vec<IpAddr> {
    let families: Vec<bool> = if !service.ip_families_v6.is_empty() {
        service.ip_families_v6.clone()
    } else if !service.cluster_ips.is_empty() {
        service.cluster_ips.iter().map(IpAddr::is_ipv6).collect()
    } else if service.ip_family_policy == IpFamilyPolicy::SingleStack {
        return pod.ips.first().copied().into_iter().collect();
    } else {
        return pod.ips.clone();
    };
    // One address of each family, as a Pod has them.
    let of = |v6: &bool| pod.ips.iter().find(|ip| ip.is_ipv6() == *v6).copied();
    families.iter().filter_map(of).collect()
}

// === impl Target ===

impl Target {
    /// The endpoint for the port at `port_index` of `spec.ports`, if the Pod has it.
    pub(super) fn endpoint(&self, port_index: usize) -> Option<Endpoint> {
        let port = (*self.ports.get(port_index)?)?;
        Some(Endpoint {
            address: SocketAddr::new(self.ip, port),
            ready: self.ready,
            terminating: self.terminating && self.serving,
            node: self.node.clone(),
            pod: Some(self.pod.clone()),
        })
    }
}
