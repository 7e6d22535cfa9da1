//! Names that this project claims for itself in Kubernetes objects, and those of Cilium it understands.

/// `spec.controller` of the IngressClasses that are ours.
pub const INGRESS_CONTROLLER: &str = "pilus.dev/ingress-controller";
/// Cilium's own, taken as ours so that what people wrote for Cilium works unchanged.
pub const CILIUM_INGRESS_CONTROLLER: &str = "cilium.io/ingress-controller";
/// Marks Services that kube-proxy must leave alone.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
