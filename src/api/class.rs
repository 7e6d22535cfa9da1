//! Names that this project claims for itself in Kubernetes objects, and those of Cilium it understands.

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
/// Marks Services that kube-proxy must leave alone.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
