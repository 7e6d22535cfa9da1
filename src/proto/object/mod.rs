//! Values → objects: strict decoding by the schema of each kind, Kubernetes' defaulting, and a
//! complaint with its place for every fault.
//!
//! The schema ([`tables`]) says which fields there are and of what type; what a table cannot say (two
//! fields that exclude each other, a range that runs backwards) is checked by the kind's own function.
//! Both run to the end, so that all faults of an object are reported at once.
mod cluster;
mod encoding;
mod faults;
mod fuzz;
mod gateway;
mod gateway_filter;
mod gateway_policy;
mod gateway_route;
mod gateway_status;
mod gateway_tables;
mod http_names;
mod ingress;
mod lb;
mod load_balancer;
mod meta;
mod names;
mod route_tables;
mod schema;
mod service;
mod slice;
mod tables;

use std::fmt;
use std::sync::Arc;

use crate::api::meta::{Kind, Meta, NamespacedName, ObjectKey, Origin, Position, Str};
use crate::api::object::gateway::{
    BackendTlsPolicy, BackendTrafficPolicy, ExternalBackend, Gateway, GatewayClass, ListenerSet,
    ReferenceGrant,
};
use crate::api::object::gateway_route::{GrpcRoute, HttpRoute, L4Route};
use crate::api::object::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, L2Policy, Namespace, Node, Pod, Pool, Secret,
    Service,
};
use crate::api::problem::Problem;
use crate::proto::value::{Data, Mark, SyntaxError, Value, parse_json, to_json_compact};
pub use encoding::decode_base64;
use faults::Faults;
pub use faults::{MAX_PROBLEMS, did_you_mean};
pub use fuzz::fuzz_manifest;
pub use gateway_status::{conditions, gateway_status};
pub use load_balancer::load_balancer;
pub use meta::object_uid;
pub use names::{parse_network, parse_network_of};

/// One decoded object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// v1 Namespace
    Namespace(Arc<Namespace>),
    /// v1 Node
    Node(Arc<Node>),
    /// v1 Pod
    Pod(Arc<Pod>),
    /// v1 Service
    Service(Arc<Service>),
    /// discovery.k8s.io/v1 EndpointSlice, or a v1 Endpoints as one slice for each of its subsets
    EndpointSlices(Vec<Arc<EndpointSlice>>),
    /// v1 Secret
    Secret(Arc<Secret>),
    /// v1 ConfigMap
    ConfigMap(Arc<ConfigMap>),
    /// networking.k8s.io/v1 Ingress
    Ingress(Arc<Ingress>),
    /// networking.k8s.io/v1 IngressClass
    IngressClass(Arc<IngressClass>),
    /// CiliumLoadBalancerIPPool
    Pool(Arc<Pool>),
    /// CiliumL2AnnouncementPolicy
    L2Policy(Arc<L2Policy>),
    /// GatewayClass
    GatewayClass(Arc<GatewayClass>),
    /// Gateway
    Gateway(Arc<Gateway>),
    /// ListenerSet
    ListenerSet(Arc<ListenerSet>),
    /// HTTPRoute
    HttpRoute(Arc<HttpRoute>),
    /// GRPCRoute
    GrpcRoute(Arc<GrpcRoute>),
    /// TLSRoute
    TlsRoute(Arc<L4Route>),
    /// TCPRoute
    TcpRoute(Arc<L4Route>),
    /// UDPRoute
    UdpRoute(Arc<L4Route>),
    /// ReferenceGrant
    ReferenceGrant(Arc<ReferenceGrant>),
    /// BackendTLSPolicy
    BackendTlsPolicy(Arc<BackendTlsPolicy>),
    /// XBackendTrafficPolicy
    XBackendTrafficPolicy(Arc<BackendTrafficPolicy>),
    /// XBackend
    XBackend(Arc<ExternalBackend>),
}

/// What became of one document or List item.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is in effect, warnings aside.
    Decoded(ObjectKey, Object),
    /// It has faults. The key is known if kind and name could be read.
    Broken(Option<ObjectKey>),
    /// It is of a kind that is not read; the kind.
    Skipped(String),
}

/// The outcome with its place and complaints.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Where it starts.
    pub position: Position,
    /// What became of it.
    pub outcome: Outcome,
    /// Faults (if it is broken) and warnings.
    pub problems: Vec<Problem>,
}

/// What is known of an object from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// `metadata.generation`
    pub generation: u64,
    /// `metadata.creationTimestamp`, seconds since 1970; 0: not known, and not shown.
    pub created: u64,
}

/// What decoding needs to know besides the value.
#[derive(Clone, Copy)]
pub struct Context<'c> {
    /// The file that is read.
    pub file: &'c Str,
    /// It comes from an API server, which has checked and completed it; `file` is of no use then.
    pub served: bool,
    /// Generation and age of an object whose content (all but metadata and status) has this hash.
    pub life: &'c dyn Fn(&ObjectKey, u64) -> Life,
}

/// Decodes one document: an object, or a List of objects.
pub fn decode(value: Value, context: Context<'_>) -> Vec<Decoded> {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| {
        kind.ends_with("List") && value.get("items").is_none_or(|items| items.as_str().is_none())
    });
    if is_list { decode_list(value, context) } else { vec![decode_object(value, context)] }
}

/// Decodes an object of this kind as an API server serves it in `version` (`GROUP/VERSION`).
///
/// # Errors
/// It is not JSON.
pub fn decode_served(kind: Kind, version: &str, text: &str) -> Result<Decoded, SyntaxError> {
    let mut value = parse_json(text)?;
    // Items of a list leave them out.
    value.set_default("apiVersion", version);
    value.set_default("kind", kind.as_str());
    if let Some(metadata) = value.get_mut("metadata") {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations") {
            // The object once more.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    if kind == Kind::Node {
        // Images and the like are most of it.
        let addresses = value.path(&["status", "addresses"]).cloned();
        value.remove("status");
        if let Some(addresses) = addresses {
            value.entry("status").set("addresses", addresses);
        }
    }
    let life = |_: &ObjectKey, _| Life { generation: 0, created: 0 };
    let context = Context { file: &Str::from(""), served: true, life: &life };
    Ok(decode_object(value, context))
}

/// kind `List`, or `ServiceList` and the like, whose items may leave their kind out.
fn decode_list(mut list: Value, context: Context<'_>) -> Vec<Decoded> {
    let item_kind = list
        .get("kind")
        .and_then(Value::as_str)
        .and_then(|kind| kind.strip_suffix("List"))
        .filter(|kind| !kind.is_empty())
        .map(str::to_owned);
    let version = list.get("apiVersion").cloned();
    let mark = list.mark;
    match list.remove("items").map(|items| (items.mark, items.data)) {
        Some((_, Data::List(items))) => items
            .into_iter()
            .map(|mut item| {
                if let (Some(kind), Some(version), Data::Map(_)) =
                    (&item_kind, &version, &item.data)
                {
                    item.set_default("kind", kind.as_str());
                    item.set_default("apiVersion", version.clone());
                }
                decode_object(item, context)
            })
            .collect(),
        None | Some((_, Data::Null)) => Vec::new(),
        Some((at, _)) => {
            let mut faults = Faults::new(context);
            faults.error(at, "items", "expected a list of objects");
            vec![broken(None, mark, faults, context)]
        }
    }
}

fn broken(key: Option<ObjectKey>, mark: Mark, faults: Faults, context: Context<'_>) -> Decoded {
    let position = faults::position(context.file, mark);
    let problems = faults.finish(key.as_ref());
    Decoded { position, outcome: Outcome::Broken(key), problems }
}

/// Which kind this apiVersion and kind are.
enum Known {
    Read(Kind),
    /// Not read by this version, and it would matter: the reason.
    Refused(String),
    /// Read, but in another version.
    WrongVersion(String),
    /// There is no such kind, but this one.
    Misspelt(&'static str),
    Other,
}

/// The kinds of Gateway API with the versions that the CRDs of v1.6.1 serve, the newest first.
const GATEWAY_KINDS: [(Kind, &[&str]); 12] = {
    const V1: &str = "gateway.networking.k8s.io/v1";
    const BETA: &str = "gateway.networking.k8s.io/v1beta1";
    const ALPHA2: &str = "gateway.networking.k8s.io/v1alpha2";
    const ALPHA3: &str = "gateway.networking.k8s.io/v1alpha3";
    const X: &str = "gateway.networking.x-k8s.io/v1alpha1";
    [
        (Kind::GatewayClass, &[V1, BETA]),
        (Kind::Gateway, &[V1, BETA]),
        (Kind::ListenerSet, &[V1]),
        (Kind::HttpRoute, &[V1, BETA]),
        (Kind::GrpcRoute, &[V1]),
        (Kind::TlsRoute, &[V1, ALPHA2, ALPHA3]),
        (Kind::TcpRoute, &[V1, ALPHA2]),
        (Kind::UdpRoute, &[V1, ALPHA2]),
        (Kind::ReferenceGrant, &[V1, BETA]),
        (Kind::BackendTlsPolicy, &[V1, ALPHA3]),
        (Kind::XBackendTrafficPolicy, &[X]),
        (Kind::XBackend, &[X]),
    ]
};

fn classify(version: &str, kind: &str) -> Known {
    let wanted: (&[&str], Kind) = match kind {
        "Namespace" => (&["v1"], Kind::Namespace),
        "Node" => (&["v1"], Kind::Node),
        "Pod" => (&["v1"], Kind::Pod),
        "Service" => (&["v1"], Kind::Service),
        "Endpoints" => (&["v1"], Kind::Endpoints),
        "Secret" => (&["v1"], Kind::Secret),
        "ConfigMap" => (&["v1"], Kind::ConfigMap),
        "EndpointSlice" => (&["discovery.k8s.io/v1"], Kind::EndpointSlice),
        "Ingress" => (&["networking.k8s.io/v1"], Kind::Ingress),
        "IngressClass" => (&["networking.k8s.io/v1"], Kind::IngressClass),
        "CiliumLoadBalancerIPPool" => {
            (&["cilium.io/v2", "cilium.io/v2alpha1"], Kind::CiliumLoadBalancerIPPool)
        }
        "CiliumL2AnnouncementPolicy" => {
            (&["cilium.io/v2alpha1", "cilium.io/v2"], Kind::CiliumL2AnnouncementPolicy)
        }
        _ => match GATEWAY_KINDS.iter().find(|row| row.0.as_str() == kind) {
            Some((kind, versions)) => (*versions, *kind),
            None => return classify_other(version, kind),
        },
    };
    if wanted.0.contains(&version) {
        return Known::Read(wanted.1);
    }
    let group = |version: &str| version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    // Kinds of Gateway API move from its experimental group to the other.
    let gateway = |version: &str| version.starts_with("gateway.networking.");
    let same_group = wanted
        .0
        .iter()
        .any(|wanted| group(wanted) == group(version) || gateway(wanted) && gateway(version));
    let legacy = version == "extensions/v1beta1";
    if same_group || legacy {
        let known = wanted.0.join(" or ");
        return Known::WrongVersion(format!("`{version}` is not served; {kind} is {known}"));
    }
    Known::Other
}

fn classify_other(version: &str, kind: &str) -> Known {
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    if (version, kind) == ("coordination.k8s.io/v1", "Lease") {
        return Known::Refused("Leases are made by the agents; one in a file has no effect".into());
    }
    let read = Kind::ALL.map(Kind::as_str);
    let hint = did_you_mean(kind, read.into_iter().filter(|known| *known != "Lease"));
    if let Some(hint) = hint
        && matches!(
            group,
            "" | "networking.k8s.io"
                | "discovery.k8s.io"
                | "cilium.io"
                | "gateway.networking.k8s.io"
                | "gateway.networking.x-k8s.io"
        )
    {
        return Known::Misspelt(hint);
    }
    let matters = matches!(group, "cilium.io" | "gateway.networking.k8s.io")
        || group.starts_with("gateway.networking.x-k8s.io")
        || kind == "NetworkPolicy";
    if matters {
        let message = format!("kind {kind} is not supported by this version and has no effect");
        return Known::Refused(message);
    }
    Known::Other
}

fn decode_object(mut value: Value, context: Context<'_>) -> Decoded {
    let mut faults = Faults::new(context);
    let mark = value.mark;
    if !matches!(value.data, Data::Map(_)) {
        faults.error(mark, "", format!("expected an object, found {}", value.describe()));
        return broken(None, mark, faults, context);
    }
    let (Some(version), Some(kind)) =
        (type_field(&value, "apiVersion", &mut faults), type_field(&value, "kind", &mut faults))
    else {
        return broken(None, mark, faults, context);
    };
    let shown_name = shown_name(&value);
    match classify(&version, &kind) {
        Known::Read(kind) => {
            let key = meta::key(kind, &value);
            let decoded = decode_kind(kind, &mut value, &mut faults, context);
            match (key, decoded) {
                (Some(key), Some(object)) if !faults.has_errors() => Decoded {
                    position: faults::position(context.file, mark),
                    problems: faults.finish(Some(&key)),
                    outcome: Outcome::Decoded(key, object),
                },
                (key, _) => broken(key, mark, faults, context),
            }
        }
        Known::WrongVersion(message) => {
            let at = value.member("apiVersion").map_or(mark, |member| member.mark);
            faults.error(at, "apiVersion", message);
            let key = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
            broken(key.and_then(|kind| meta::key(kind, &value)), mark, faults, context)
        }
        Known::Refused(message) => {
            let at = value.member("kind").map_or(mark, |member| member.mark);
            faults.warn(at, "", format!("{kind} {shown_name}: {message}"));
            Decoded {
                position: faults::position(context.file, mark),
                problems: faults.finish(None),
                outcome: Outcome::Skipped(kind),
            }
        }
        Known::Misspelt(hint) => {
            let at = value.member("kind").map_or(mark, |member| member.mark);
            let message =
                format!("no such kind `{kind}` (did you mean `{hint}`?); {shown_name} is left out");
            faults.error(at, "kind", message);
            broken(None, mark, faults, context)
        }
        Known::Other => Decoded {
            position: faults::position(context.file, mark),
            problems: Vec::new(),
            outcome: Outcome::Skipped(kind),
        },
    }
}

/// `apiVersion` or `kind`; complains if it is not there. Both are asked for, so that both are reported.
fn type_field(value: &Value, name: &str, faults: &mut Faults) -> Option<String> {
    match value.member(name) {
        None => faults.error(value.mark, name, "required, and missing"),
        Some(member) => match member.value.as_str() {
            Some(text) if !text.is_empty() => return Some(text.to_owned()),
            Some(_) => faults.error(member.mark, name, "required, and empty"),
            None => {
                let found = member.value.describe();
                faults.error(member.mark, name, format!("expected a string, found {found}"));
            }
        },
    }
    None
}

/// Namespace and name for a message about an object that is not decoded.
fn shown_name(value: &Value) -> String {
    let text = |key| value.path(&["metadata", key]).and_then(Value::as_str);
    let name = text("name").unwrap_or("without a name");
    text("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

fn decode_kind(
    kind: Kind,
    value: &mut Value,
    faults: &mut Faults,
    context: Context<'_>,
) -> Option<Object> {
    let is_custom = |group: &str| group.starts_with("cilium.io/") || group.starts_with("gateway.");
    let version = value.get("apiVersion").and_then(Value::as_str);
    faults.lenient = context.served && !version.is_some_and(is_custom);
    schema::check(value, tables::of(kind), faults);
    let meta = meta::decode(kind, value, faults, context)?;
    schema::fill(value, tables::of(kind));
    let json = |meta: &mut Meta, value: &mut Value| {
        value.remove("status");
        value.sort();
        meta.json = to_json_compact(value).into();
    };
    let mut object = match kind {
        Kind::Namespace => Object::Namespace(Arc::new(Namespace { meta })),
        Kind::Node => Object::Node(Arc::new(cluster::node(meta, value))),
        Kind::Pod => Object::Pod(Arc::new(cluster::pod(meta, value))),
        Kind::Service => Object::Service(Arc::new(service::decode(meta, value, faults))),
        Kind::EndpointSlice => {
            Object::EndpointSlices(vec![Arc::new(slice::decode(meta, value, faults))])
        }
        Kind::Endpoints => Object::EndpointSlices(
            slice::decode_endpoints(meta, value, faults).into_iter().map(Arc::new).collect(),
        ),
        Kind::Secret => Object::Secret(Arc::new(cluster::secret(meta, value, faults))),
        Kind::ConfigMap => Object::ConfigMap(Arc::new(cluster::config_map(meta, value, faults))),
        Kind::Ingress => Object::Ingress(Arc::new(ingress::decode(meta, value, faults))),
        Kind::IngressClass => Object::IngressClass(Arc::new(ingress::class(meta, value))),
        Kind::CiliumLoadBalancerIPPool => Object::Pool(Arc::new(lb::pool(meta, value, faults))),
        Kind::CiliumL2AnnouncementPolicy => {
            Object::L2Policy(Arc::new(lb::l2_policy(meta, value, faults)))
        }
        Kind::Lease => return None,
        _ => decode_gateway_kind(kind, meta, value, faults),
    };
    if !faults.has_errors() {
        object.with_meta(|meta| json(meta, value));
    }
    Some(object)
}

/// The kinds of Gateway API; they are shown in their newest version.
fn decode_gateway_kind(kind: Kind, meta: Meta, value: &mut Value, faults: &mut Faults) -> Object {
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let must_name_hosts = kind == Kind::TlsRoute && !version.ends_with("v1alpha2");
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let l4_route = |faults: &mut Faults| {
        Arc::new(gateway_route::l4_route(meta.clone(), spec, must_name_hosts, faults))
    };
    let object = match kind {
        Kind::TlsRoute => Object::TlsRoute(l4_route(faults)),
        Kind::TcpRoute => Object::TcpRoute(l4_route(faults)),
        Kind::UdpRoute => Object::UdpRoute(l4_route(faults)),
        Kind::Gateway => Object::Gateway(Arc::new(gateway::gateway(meta, spec, faults))),
        Kind::ListenerSet => {
            Object::ListenerSet(Arc::new(gateway::listener_set(meta, spec, faults)))
        }
        Kind::HttpRoute => {
            Object::HttpRoute(Arc::new(gateway_route::http_route(meta, spec, faults)))
        }
        Kind::GrpcRoute => {
            Object::GrpcRoute(Arc::new(gateway_route::grpc_route(meta, spec, faults)))
        }
        Kind::ReferenceGrant => {
            Object::ReferenceGrant(Arc::new(gateway::reference_grant(meta, spec)))
        }
        Kind::BackendTlsPolicy => Object::BackendTlsPolicy(Arc::new(
            gateway_policy::backend_tls_policy(meta, spec, faults),
        )),
        Kind::XBackendTrafficPolicy => Object::XBackendTrafficPolicy(Arc::new(
            gateway_policy::backend_traffic_policy(meta, spec, faults),
        )),
        Kind::XBackend => {
            Object::XBackend(Arc::new(gateway_policy::external_backend(meta, spec, faults)))
        }
        _ => Object::GatewayClass(Arc::new(gateway::class(meta, spec))),
    };
    if let Some((_, versions)) = GATEWAY_KINDS.iter().find(|row| row.0 == kind) {
        value.set("apiVersion", versions[0]);
    }
    object
}

// === impl Object ===

impl Object {
    /// Its metadata; that of the first slice for an Endpoints object.
    fn with_meta(&mut self, mut change: impl FnMut(&mut Meta)) {
        macro_rules! change {
            ($object:expr) => {
                if let Some(object) = Arc::get_mut($object) {
                    change(&mut object.meta);
                }
            };
        }
        match self {
            Self::Namespace(object) => change!(object),
            Self::Node(object) => change!(object),
            Self::Pod(object) => change!(object),
            Self::Service(object) => change!(object),
            Self::EndpointSlices(slices) => slices.iter_mut().for_each(|slice| change!(slice)),
            Self::Secret(object) => change!(object),
            Self::ConfigMap(object) => change!(object),
            Self::Ingress(object) => change!(object),
            Self::IngressClass(object) => change!(object),
            Self::Pool(object) => change!(object),
            Self::L2Policy(object) => change!(object),
            Self::GatewayClass(object) => change!(object),
            Self::Gateway(object) => change!(object),
            Self::ListenerSet(object) => change!(object),
            Self::HttpRoute(object) => change!(object),
            Self::GrpcRoute(object) => change!(object),
            Self::TlsRoute(object) | Self::TcpRoute(object) | Self::UdpRoute(object) => {
                change!(object);
            }
            Self::ReferenceGrant(object) => change!(object),
            Self::BackendTlsPolicy(object) => change!(object),
            Self::XBackendTrafficPolicy(object) => change!(object),
            Self::XBackend(object) => change!(object),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decoded(key, _) => write!(f, "{key}"),
            Self::Broken(Some(key)) => write!(f, "{key} (broken)"),
            Self::Broken(None) => f.write_str("broken"),
            Self::Skipped(kind) => write!(f, "{kind} (skipped)"),
        }
    }
}

/// The name under which an object is known: that of a v1 Endpoints has the prefix `endpoints/` in the
/// table of EndpointSlices.
pub fn endpoints_name(name: &NamespacedName) -> NamespacedName {
    NamespacedName {
        namespace: Str::clone(&name.namespace),
        name: format!("endpoints/{}", name.name).into(),
    }
}

/// The origin of an object without faults.
fn origin(context: Context<'_>, value: &Value) -> Origin {
    if context.served {
        return Origin::Cluster;
    }
    Origin::File(meta::file_origin(context.file, value))
}

#[cfg(test)]
mod gateway_tests;
#[cfg(test)]
mod tests;
