//! The snapshot of all objects.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::Generation;
use super::meta::{Meta, NamespacedName};
use super::object::gateway::{
    BackendTlsPolicy, BackendTrafficPolicy, ExternalBackend, Gateway, GatewayClass, ListenerSet,
    ReferenceGrant,
};
use super::object::gateway_route::{GrpcRoute, HttpRoute, L4Route};
use super::object::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, L2Policy, Lease, Namespace, Node, Pod, Pool,
    Secret, Service,
};

/// All objects of one kind. Shared, so that a snapshot in which this kind did not change shares the
/// table with the one before (compare with [`Arc::ptr_eq`]), and unchanged objects are shared as well.
pub type Table<T> = Arc<BTreeMap<NamespacedName, Arc<T>>>;

/// All objects at one moment, those made by Pilus included. Immutable; replaced whole.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Counts the snapshots.
    pub generation: Generation,
    /// v1 Namespace
    pub namespaces: Table<Namespace>,
    /// v1 Node
    pub nodes: Table<Node>,
    /// v1 Pod
    pub pods: Table<Pod>,
    /// v1 Service
    pub services: Table<Service>,
    /// EndpointSlice, and Endpoints under the name `endpoints/NAME`
    pub endpoint_slices: Table<EndpointSlice>,
    /// v1 Secret
    pub secrets: Table<Secret>,
    /// v1 ConfigMap
    pub config_maps: Table<ConfigMap>,
    /// Ingress
    pub ingresses: Table<Ingress>,
    /// IngressClass
    pub ingress_classes: Table<IngressClass>,
    /// CiliumLoadBalancerIPPool
    pub pools: Table<Pool>,
    /// CiliumL2AnnouncementPolicy
    pub l2_policies: Table<L2Policy>,
    /// GatewayClass
    pub gateway_classes: Table<GatewayClass>,
    /// Gateway
    pub gateways: Table<Gateway>,
    /// ListenerSet
    pub listener_sets: Table<ListenerSet>,
    /// HTTPRoute
    pub http_routes: Table<HttpRoute>,
    /// GRPCRoute
    pub grpc_routes: Table<GrpcRoute>,
    /// TLSRoute
    pub tls_routes: Table<L4Route>,
    /// TCPRoute
    pub tcp_routes: Table<L4Route>,
    /// UDPRoute
    pub udp_routes: Table<L4Route>,
    /// ReferenceGrant
    pub reference_grants: Table<ReferenceGrant>,
    /// BackendTLSPolicy
    pub backend_tls_policies: Table<BackendTlsPolicy>,
    /// XBackendTrafficPolicy
    pub backend_traffic_policies: Table<BackendTrafficPolicy>,
    /// XBackend
    pub external_backends: Table<ExternalBackend>,
    /// Lease
    pub leases: Table<Lease>,
    /// How many objects of kinds that are not read were skipped, by kind.
    pub skipped: Arc<BTreeMap<String, u32>>,
}

/// Objects that a server makes from others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Generated {
    /// Services for Ingresses (and later Gateways).
    pub services: Vec<Arc<Service>>,
    /// Their EndpointSlices.
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    /// Leases that record who announces.
    pub leases: Vec<Arc<Lease>>,
}

/// Anything with metadata.
pub trait HasMeta {
    /// Its metadata.
    fn meta(&self) -> &Meta;
}

macro_rules! has_meta {
    ($($kind:ty),*) => {
        $(impl HasMeta for $kind {
            fn meta(&self) -> &Meta {
                &self.meta
            }
        })*
    };
}
has_meta!(
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Ingress,
    IngressClass,
    Pool,
    L2Policy,
    GatewayClass,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    L4Route,
    ReferenceGrant,
    BackendTlsPolicy,
    BackendTrafficPolicy,
    ExternalBackend,
    Lease
);
