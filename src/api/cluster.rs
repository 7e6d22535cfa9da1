//! What the driver of a Kubernetes API server and the servers say to each other.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::meta::{Kind, NamespacedName, ObjectKey, Str};

/// One kind that is read from an API server.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// Its group; empty for the core group.
    pub group: &'static str,
    /// Its plural, as in paths.
    pub plural: &'static str,
    /// Versions that are understood, the best first.
    pub versions: &'static [&'static str],
    /// Which of them are read; empty: all.
    pub field_selector: &'static str,
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const GATEWAY_X: &str = "gateway.networking.x-k8s.io";

/// Every kind that is read. Pods are not: who is behind a Service stands in its EndpointSlices. Of Secrets only those
/// that are certificates are: the others are nobody's business here.
pub const WATCHED: [Watched; 22] = {
    const fn core(kind: Kind, plural: &'static str, field_selector: &'static str) -> Watched {
        Watched { kind, group: "", plural, versions: &["v1"], field_selector }
    }
    const fn of(
        kind: Kind,
        group: &'static str,
        plural: &'static str,
        versions: &'static [&'static str],
    ) -> Watched {
        Watched { kind, group, plural, versions, field_selector: "" }
    }
    const V1_BETA: &[&str] = &["v1", "v1beta1"];
    const V1_ALPHA: &[&str] = &["v1", "v1alpha2"];
    [
        core(Kind::Namespace, "namespaces", ""),
        core(Kind::Node, "nodes", ""),
        core(Kind::Service, "services", ""),
        core(Kind::Secret, "secrets", "type=kubernetes.io/tls"),
        core(Kind::ConfigMap, "configmaps", ""),
        of(Kind::EndpointSlice, "discovery.k8s.io", "endpointslices", &["v1"]),
        of(Kind::Ingress, "networking.k8s.io", "ingresses", &["v1"]),
        of(Kind::IngressClass, "networking.k8s.io", "ingressclasses", &["v1"]),
        of(
            Kind::CiliumLoadBalancerIPPool,
            "cilium.io",
            "ciliumloadbalancerippools",
            &["v2", "v2alpha1"],
        ),
        of(
            Kind::CiliumL2AnnouncementPolicy,
            "cilium.io",
            "ciliuml2announcementpolicies",
            &["v2alpha1", "v2"],
        ),
        of(Kind::GatewayClass, GATEWAY, "gatewayclasses", V1_BETA),
        of(Kind::Gateway, GATEWAY, "gateways", V1_BETA),
        of(Kind::ListenerSet, GATEWAY, "listenersets", &["v1"]),
        of(Kind::HttpRoute, GATEWAY, "httproutes", V1_BETA),
        of(Kind::GrpcRoute, GATEWAY, "grpcroutes", &["v1"]),
        of(Kind::TlsRoute, GATEWAY, "tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
        of(Kind::TcpRoute, GATEWAY, "tcproutes", V1_ALPHA),
        of(Kind::UdpRoute, GATEWAY, "udproutes", V1_ALPHA),
        of(Kind::ReferenceGrant, GATEWAY, "referencegrants", V1_BETA),
        of(Kind::BackendTlsPolicy, GATEWAY, "backendtlspolicies", &["v1", "v1alpha3"]),
        of(Kind::XBackendTrafficPolicy, GATEWAY_X, "xbackendtrafficpolicies", &["v1alpha1"]),
        of(Kind::XBackend, GATEWAY_X, "xbackends", &["v1alpha1"]),
    ]
};

/// One thing that the API server has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Objects of the kind follow as [`Fact::Put`] until [`Fact::Complete`]; what is not among them is gone.
    Listing(Kind),
    /// The object is there: its JSON, with or without `apiVersion` and `kind`.
    Put(Kind, Str),
    /// The object is gone.
    Gone(Kind, NamespacedName),
    /// All objects of the kind have been named.
    Complete(Kind),
    /// The kind is served in this version (`gateway.networking.k8s.io/v1`), or in none that is understood: why.
    Served(Kind, Result<Str, Str>),
    /// The kind cannot be read at present: why; None: it can.
    Trouble(Kind, Option<Str>),
    /// It cannot be found out which kinds are served: why; None: it can.
    Unknown(Option<Str>),
    /// The Lease of the writer, as JSON; None: there is none.
    Lease(Option<Str>),
}

/// A number by which an answer finds its question.
pub type WriteId = u64;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterWrite {
    /// The number of this write.
    pub id: WriteId,
    /// How.
    pub verb: Verb,
    /// Path and query.
    pub path: Str,
    /// The body; empty for a deletion.
    pub body: Str,
}

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// POST
    Create,
    /// PUT
    Replace,
    /// PATCH as a server-side apply.
    Apply,
    /// PATCH as a merge patch (RFC 7396).
    Merge,
    /// DELETE
    Delete,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterWritten {
    /// The number of the write.
    pub id: WriteId,
    /// The object as it is now, or the HTTP status (0: there was no answer) and a sentence.
    pub outcome: Result<Str, (u16, Str)>,
}

/// The version in which each kind is served, as `GROUP/VERSION`.
pub type ServedVersions = Arc<BTreeMap<Kind, Str>>;

/// What an API server has of an object besides what it means: its identity, and what was written to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// `metadata.uid`
    pub uid: Str,
    /// `metadata.resourceVersion`
    pub version: Str,
    /// `status` as JSON; empty if there is none.
    pub status: Str,
    /// The annotation [`APPLIED`] if it is one of the objects that the agents make.
    pub applied: Option<Str>,
    /// It is a Service that was a LoadBalancer: conditions of ours still stand there, and nobody else takes them away.
    pub was_balancer: bool,
    /// It is an Ingress or a Gateway whose status is from us, as its `managedFields` say.
    pub is_written_by_us: bool,
}

/// Conditions of ours on objects that others have conditions on as well begin so.
pub const OUR_CONDITIONS: &[&str] = &["cilium.io/", "pilus.dev/"];

/// Objects that were seen, changed or gone since the last message.
pub type SeenObjects = Arc<[(ObjectKey, Option<Arc<Seen>>)]>;

/// The field manager of all writes but those of Leases.
pub const FIELD_MANAGER: &str = "pilus";
/// The annotation of objects that the agents make: a hash of what was applied.
pub const APPLIED: &str = "pilus.dev/applied";
/// The label of the same objects.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pilus");
