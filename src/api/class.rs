//! Names that this project claims for itself in Kubernetes objects, and those of Cilium it understands.
use super::object::{Service, ServiceType};

/// `spec.controller` of the IngressClasses that are ours.
pub const INGRESS_CONTROLLER: &str = "pilus.dev/ingress-controller";
/// Cilium's own, taken as ours so that what people wrote for Cilium works unchanged.
pub const CILIUM_INGRESS_CONTROLLER: &str = "cilium.io/ingress-controller";
/// `spec.controllerName` of the GatewayClasses that are ours.
pub const GATEWAY_CONTROLLER: &str = "pilus.dev/gateway-controller";
/// Cilium's own, taken as ours likewise.
pub const CILIUM_GATEWAY_CONTROLLER: &str = "io.cilium/gateway-controller";
/// The API group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Marks what is generated for a Gateway, which it names.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The values of `spec.loadBalancerClass` that are ours besides none at all: Cilium's two (LB-11), and our own names for
/// the same.
pub const LOAD_BALANCER_CLASSES: [&str; 4] = [
    "io.cilium/bgp-control-plane",
    "io.cilium/l2-announcer",
    "pilus.dev/lb",
    "pilus.dev/l2-announcer",
];
/// Marks Services that kube-proxy must leave alone.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Whether LB-IPAM and the balancer are responsible for a Service at all (LB-11).
pub fn is_our_load_balancer(service: &Service) -> bool {
    service.kind == ServiceType::LoadBalancer
        && service
            .load_balancer_class
            .as_ref()
            .is_none_or(|class| LOAD_BALANCER_CLASSES.contains(&&**class))
}
