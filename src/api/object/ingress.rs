use crate::api::meta::{Meta, Str};

/// networking.k8s.io/v1 Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ingress {
    /// Metadata.
    pub meta: Meta,
    /// `spec.ingressClassName`; the annotation `kubernetes.io/ingress.class` wins over it (ING-01).
    pub class: Option<Str>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<IngressBackend>,
    /// `spec.rules`, in order.
    pub rules: Vec<IngressRule>,
    /// `spec.tls`, in order.
    pub tls: Vec<IngressTls>,
}

/// One entry of `spec.rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressRule {
    /// Lower-case; None is every host; may start with `*.`.
    pub host: Option<Str>,
    /// `http.paths`, in order; a rule without `http` has none.
    pub paths: Vec<IngressPath>,
}

/// One entry of `http.paths`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressPath {
    /// The path; `/` if it was left out.
    pub path: Str,
    /// How it is compared.
    pub path_type: PathType,
    /// Where requests go.
    pub backend: IngressBackend,
}

/// `pathType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    /// The whole path, byte for byte.
    Exact,
    /// Whole path elements (ING-06).
    Prefix,
    /// A regular expression that must match the whole path (ING-06).
    ImplementationSpecific,
}

/// A backend of an Ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngressBackend {
    /// `service`: name and port, in the Ingress' namespace.
    Service(Str, ServicePortRef),
    /// `resource`: not supported; the text names it.
    Resource(String),
}

/// `service.port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePortRef {
    /// `number`
    Number(u16),
    /// `name`
    Name(Str),
}

/// One entry of `spec.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressTls {
    /// Lower-case host names.
    pub hosts: Vec<Str>,
    /// The Secret in the Ingress' namespace.
    pub secret: Option<Str>,
}

/// networking.k8s.io/v1 IngressClass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IngressClass {
    /// Metadata; the annotation `ingressclass.kubernetes.io/is-default-class` is looked up there.
    pub meta: Meta,
    /// `spec.controller`.
    pub controller: Str,
}
