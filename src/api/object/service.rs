use std::net::IpAddr;
use std::time::Duration;

use crate::api::meta::{Labels, Meta, NamespacedName, Str};

/// `spec.type` of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceType {
    /// ClusterIP
    #[default]
    ClusterIp,
    /// NodePort
    NodePort,
    /// LoadBalancer
    LoadBalancer,
    /// ExternalName
    ExternalName,
}

/// `spec.externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExternalTrafficPolicy {
    /// Any node may take the traffic.
    #[default]
    Cluster,
    /// Only nodes with an endpoint of their own.
    Local,
}

/// `spec.ipFamilyPolicy` (LB-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpFamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Both if there are both.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PortProtocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number; the port itself if it was left out.
    Number(u16),
    /// The name of a container port.
    Name(Str),
}

/// One entry of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortSpec {
    /// The name; empty if it has none.
    pub name: Str,
    /// The port clients connect to.
    pub port: u16,
    /// The port of the Pods.
    pub target: TargetPort,
    /// TCP by default.
    pub protocol: PortProtocol,
    /// `nodePort`; 0 if none.
    pub node_port: u16,
    /// `appProtocol`, such as `kubernetes.io/h2c`.
    pub app_protocol: Option<Str>,
}

/// v1 Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Metadata.
    pub meta: Meta,
    /// `spec.type`
    pub kind: ServiceType,
    /// `spec.selector`; None: endpoints come from EndpointSlices.
    pub selector: Option<Labels>,
    /// `spec.ports`, in order.
    pub ports: Vec<ServicePortSpec>,
    /// `spec.clusterIPs`; "None" is left out.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.clusterIP: None`
    pub headless: bool,
    /// `spec.externalIPs`
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerIP` as written (LB-13).
    pub load_balancer_ip: Option<Str>,
    /// `spec.loadBalancerClass` (LB-11).
    pub load_balancer_class: Option<Str>,
    /// `spec.externalTrafficPolicy`
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// `spec.ipFamilyPolicy`
    pub ip_family_policy: IpFamilyPolicy,
    /// `spec.ipFamilies`: true is IPv6; in order; empty if not given.
    pub ip_families_v6: Vec<bool>,
    /// `spec.publishNotReadyAddresses`
    pub publish_not_ready: bool,
    /// `spec.internalTrafficPolicy: Local`: who connects to the cluster's own address gets endpoints of its node only.
    pub internal_traffic_local: bool,
    /// `spec.sessionAffinity: ClientIP`, with the time after which a silent client is forgotten.
    pub session_affinity: Option<Duration>,
    /// `spec.loadBalancerSourceRanges` as written; empty: everybody may connect.
    pub source_ranges: Vec<Str>,
    /// `spec.healthCheckNodePort`; 0 if none.
    pub health_check_node_port: u16,
    /// Addresses already in `status.loadBalancer.ingress` when it was read (LB-17).
    pub status_ips: Vec<IpAddr>,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Matches the Service port's name.
    pub name: Str,
    /// The target port.
    pub port: u16,
    /// TCP by default.
    pub protocol: PortProtocol,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its addresses (only the first is used, as Kubernetes says).
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, nil is true.
    pub ready: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// `conditions.serving`, nil is `ready`.
    pub serving: bool,
    /// `nodeName`
    pub node: Option<Str>,
    /// `targetRef`, if it is a Pod.
    pub pod: Option<NamespacedName>,
}

/// discovery.k8s.io/v1 EndpointSlice; a v1 Endpoints object is read as one too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSlice {
    /// Metadata.
    pub meta: Meta,
    /// The Service: label `kubernetes.io/service-name`, or the Endpoints object's own name.
    pub service: Str,
    /// Ports.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}
