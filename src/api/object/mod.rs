//! The Kubernetes and Cilium kinds that are read, reduced to the fields that have an effect here.
//!
//! Defaults have been filled in (as the API server does) and values have been validated when one of
//! these structs exists: "parse, don't validate".
mod cluster;
pub mod gateway;
pub mod gateway_route;
mod ingress;
mod lb;
mod service;

pub use cluster::{ConfigMap, Lease, Namespace, Node, Pod, PodPort, Secret};
pub use ingress::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, IngressTls, PathType,
    ServicePortRef,
};
pub use lb::{IpBlock, L2Policy, Pool};
pub use service::{
    EndpointSlice, ExternalTrafficPolicy, IpFamilyPolicy, PortProtocol, Service, ServicePortSpec,
    ServiceType, SliceEndpoint, SlicePort, TargetPort,
};
