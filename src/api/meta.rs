//! What every object has: name, labels, and where it was written.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A shared string. Names and labels are compared and cloned often and changed never.
pub type Str = Arc<str>;

/// Labels or annotations.
pub type Labels = BTreeMap<Str, Str>;

/// The name of an object of a known kind. `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace, or empty.
    pub namespace: Str,
    /// The name.
    pub name: Str,
}

/// The kinds that are read or generated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// v1
    Namespace,
    /// v1
    Node,
    /// v1
    Pod,
    /// v1
    Service,
    /// v1
    Endpoints,
    /// discovery.k8s.io/v1
    EndpointSlice,
    /// v1
    Secret,
    /// v1
    ConfigMap,
    /// networking.k8s.io/v1
    Ingress,
    /// networking.k8s.io/v1
    IngressClass,
    /// cilium.io/v2 and v2alpha1
    CiliumLoadBalancerIPPool,
    /// cilium.io/v2alpha1 (and v2)
    CiliumL2AnnouncementPolicy,
    /// gateway.networking.k8s.io/v1
    GatewayClass,
    /// gateway.networking.k8s.io/v1
    Gateway,
    /// gateway.networking.k8s.io/v1
    ListenerSet,
    /// gateway.networking.k8s.io/v1
    HttpRoute,
    /// gateway.networking.k8s.io/v1
    GrpcRoute,
    /// gateway.networking.k8s.io/v1
    TlsRoute,
    /// gateway.networking.k8s.io/v1
    TcpRoute,
    /// gateway.networking.k8s.io/v1
    UdpRoute,
    /// gateway.networking.k8s.io/v1
    ReferenceGrant,
    /// gateway.networking.k8s.io/v1
    BackendTlsPolicy,
    /// gateway.networking.x-k8s.io/v1alpha1
    XBackendTrafficPolicy,
    /// gateway.networking.x-k8s.io/v1alpha1
    XBackend,
    /// coordination.k8s.io/v1
    Lease,
}

/// An object's kind and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: NamespacedName,
}

/// A place in a file. Lines and columns count from 1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The file.
    pub file: Str,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// Where an object comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A manifest file.
    File(FileOrigin),
    /// The Kubernetes API server.
    #[default]
    Cluster,
    /// Made by Pilus itself; the name of the server that made it.
    Generated(&'static str),
}

/// An object's place in its file, and those of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOrigin {
    /// The file's path as given on the command line plus the file name.
    pub file: Str,
    /// Where the object starts.
    pub line: u32,
    /// See `line`.
    pub column: u32,
    /// (hash of the field's path, line, column), sorted by hash; see [`FileOrigin::position`].
    pub fields: Arc<[(u32, u32, u32)]>,
}

/// An object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// In static mode made of kind, namespace and name, so that it is the same on every node.
    pub uid: Str,
    /// metadata.generation; in static mode counts the changes of all but metadata and status.
    pub generation: u64,
    /// metadata.creationTimestamp, seconds since 1970; in static mode when the object was first read.
    pub created: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// The whole object as compact JSON after defaulting, without `status`: what `get -o json` prints.
    pub json: Str,
}

// === impl NamespacedName ===

impl NamespacedName {
    /// `namespace/name`; an empty namespace for cluster-scoped objects.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl Default for NamespacedName {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 25] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
        Self::Ingress,
        Self::IngressClass,
        Self::CiliumLoadBalancerIPPool,
        Self::CiliumL2AnnouncementPolicy,
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::ReferenceGrant,
        Self::BackendTlsPolicy,
        Self::XBackendTrafficPolicy,
        Self::XBackend,
        Self::Lease,
    ];

    /// The kind as written in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::CiliumLoadBalancerIPPool => "CiliumLoadBalancerIPPool",
            Self::CiliumL2AnnouncementPolicy => "CiliumL2AnnouncementPolicy",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::XBackendTrafficPolicy => "XBackendTrafficPolicy",
            Self::XBackend => "XBackend",
            Self::Lease => "Lease",
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace
                | Self::Node
                | Self::IngressClass
                | Self::CiliumLoadBalancerIPPool
                | Self::CiliumL2AnnouncementPolicy
                | Self::GatewayClass
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

// === impl FileOrigin ===

impl FileOrigin {
    /// The place of the field at `path` (such as `spec.rules[0].host`), of its nearest parent that was
    /// written, or else of the object.
    pub fn position(&self, path: &str) -> Position {
        let mut path = path;
        while !path.is_empty() {
            let hash = field_hash(path);
            if let Ok(at) = self.fields.binary_search_by_key(&hash, |field| field.0) {
                let (_, line, column) = self.fields[at];
                return Position { file: Str::clone(&self.file), line, column };
            }
            path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        }
        Position { file: Str::clone(&self.file), line: self.line, column: self.column }
    }
}

impl Meta {
    /// Where the field at `path` was written, if in a file.
    pub fn position(&self, path: &str) -> Option<Position> {
        match &self.origin {
            Origin::File(origin) => Some(origin.position(path)),
            Origin::Cluster | Origin::Generated(_) => None,
        }
    }

    /// The annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(|value| &**value)
    }
}

/// The hash by which [`FileOrigin`] finds a field: FNV-1a, 32 bits. A collision misplaces a message by a
/// few lines, nothing else.
pub fn field_hash(path: &str) -> u32 {
    path.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
