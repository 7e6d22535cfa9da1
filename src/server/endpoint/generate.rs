//! EndpointSlices for Services in files, as the controllers of a cluster would make them.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use nanoserde::SerJson as _;

use super::select::Target;
use crate::api::meta::{Labels, Meta, NamespacedName, Origin, Str};
use crate::api::object::{EndpointSlice, PortProtocol, Service, SliceEndpoint, SlicePort};
use crate::arrange::Arrange;

/// How many endpoints one slice lists; the default of Kubernetes.
const MAX_ENDPOINTS: usize = 100;
/// The letters of generated names; no vowels, so that no words come out.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The slices of `service`: one for each family and each set of target ports.
pub(super) fn slices(service: &Service, targets: &[Target]) -> Vec<Arc<EndpointSlice>> {
    let mut groups: BTreeMap<(bool, &[Option<u16>]), Vec<&Target>> = BTreeMap::new();
    for target in targets {
        groups.entry((target.ip.is_ipv6(), &target.ports)).or_default().push(target);
    }
    if groups.is_empty() {
        let v6 = service.ip_families_v6.first().copied().unwrap_or(false);
        return vec![Arc::new(slice(service, v6, &[], &[], 0))];
    }
    let mut slices = Vec::new();
    for ((v6, ports), mut targets) in groups {
        targets.arrange_by_key(|target| target.ip);
        for (at, chunk) in targets.chunks(MAX_ENDPOINTS).enumerate() {
            slices.push(Arc::new(slice(service, v6, ports, chunk, at)));
        }
    }
    slices
}

fn slice(
    service: &Service,
    v6: bool,
    ports: &[Option<u16>],
    targets: &[&Target],
    number: usize,
) -> EndpointSlice {
    let NamespacedName { namespace, name } = &service.meta.name;
    let mut hasher = DefaultHasher::new();
    (&**namespace, &**name, v6, ports, number).hash(&mut hasher);
    let suffix = suffix(hasher.finish());
    let mut slice = EndpointSlice {
        meta: Meta {
            name: NamespacedName {
                namespace: Str::clone(namespace),
                name: format!("{name}-{suffix}").into(),
            },
            labels: labels(name),
            uid: format!("{:016x}", hasher.finish()).into(),
            generation: 1,
            created: service.meta.created,
            origin: Origin::Generated("endpoint"),
            ..Meta::default()
        },
        service: Str::clone(name),
        ports: slice_ports(service, ports),
        endpoints: targets.iter().map(|target| slice_endpoint(target)).collect(),
    };
    slice.meta.json = json(&slice, service, v6).into();
    slice
}

fn suffix(mut hash: u64) -> String {
    let base = NAME_LETTERS.len() as u64;
    let mut suffix = String::new();
    for _ in 0..5 {
        let letter = usize::try_from(hash % base).unwrap_or(0);
        suffix.push(char::from(NAME_LETTERS[letter]));
        hash /= base;
    }
    suffix
}

fn labels(service: &Str) -> Labels {
    Labels::from([
        ("endpointslice.kubernetes.io/managed-by".into(), "pilus.dev".into()),
        ("kubernetes.io/service-name".into(), Str::clone(service)),
    ])
}

fn slice_ports(service: &Service, ports: &[Option<u16>]) -> Vec<SlicePort> {
    let specs = service.ports.iter().zip(ports);
    specs
        .filter_map(|(spec, port)| {
            Some(SlicePort {
                name: Str::clone(&spec.name),
                port: (*port)?,
                protocol: spec.protocol,
            })
        })
        .collect()
}

fn slice_endpoint(target: &Target) -> SliceEndpoint {
    SliceEndpoint {
        addresses: vec![target.ip],
        ready: target.ready,
        terminating: target.terminating,
        serving: target.serving,
        node: target.node.clone(),
        pod: Some(target.pod.clone()),
    }
}

/// As `kubectl get -o json` prints it.
fn json(slice: &EndpointSlice, service: &Service, v6: bool) -> String {
    let endpoints: Vec<String> = slice.endpoints.iter().map(endpoint_json).collect();
    let ports: Vec<String> = slice.ports.iter().map(port_json).collect();
    let name = &service.meta.name;
    let labels: Vec<String> = slice
        .meta
        .labels
        .iter()
        .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
        .collect();
    format!(
        concat!(
            r#"{{"addressType":"{family}","apiVersion":"discovery.k8s.io/v1","endpoints":[{endpoints}],"#,
            r#""kind":"EndpointSlice","metadata":{{"labels":{{{labels}}},"name":{name},"#,
            r#""namespace":{namespace},"ownerReferences":[{{"apiVersion":"v1","blockOwnerDeletion":true,"#,
            r#""controller":true,"kind":"Service","name":{owner},"uid":{uid}}}]}},"ports":[{ports}]}}"#
        ),
        family = if v6 { "IPv6" } else { "IPv4" },
        endpoints = endpoints.join(","),
        labels = labels.join(","),
        name = quoted(&slice.meta.name.name),
        namespace = quoted(&name.namespace),
        owner = quoted(&name.name),
        uid = quoted(&service.meta.uid),
        ports = ports.join(","),
    )
}

fn endpoint_json(endpoint: &SliceEndpoint) -> String {
    let addresses: Vec<String> =
        endpoint.addresses.iter().map(IpAddr::to_string).map(|ip| quoted(&ip)).collect();
    let mut text = format!(
        r#"{{"addresses":[{}],"conditions":{{"ready":{},"serving":{},"terminating":{}}}"#,
        addresses.join(","),
        endpoint.ready,
        endpoint.serving,
        endpoint.terminating
    );
    if let Some(node) = &endpoint.node {
        text += &format!(r#","nodeName":{}"#, quoted(node));
    }
    if let Some(pod) = &endpoint.pod {
        text += &format!(
            r#","targetRef":{{"kind":"Pod","name":{},"namespace":{}}}"#,
            quoted(&pod.name),
            quoted(&pod.namespace)
        );
    }
    text + "}"
}

fn port_json(port: &SlicePort) -> String {
    let protocol = match port.protocol {
        PortProtocol::Tcp => "TCP",
        PortProtocol::Udp => "UDP",
        PortProtocol::Sctp => "SCTP",
    };
    let name = quoted(&port.name);
    format!(r#"{{"name":{name},"port":{},"protocol":"{protocol}"}}"#, port.port)
}

fn quoted(text: &str) -> String {
    text.to_owned().serialize_json()
}
