//! gateway.networking.k8s.io: GatewayClass, Gateway, ListenerSet, ReferenceGrant and BackendTLSPolicy (v1), and the
//! experimental XBackendTrafficPolicy and XBackend (gateway.networking.x-k8s.io/v1alpha1). Routes are in
//! [`super::gateway_route`].
use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::meta::{Labels, Meta, Str};
use crate::api::selector::LabelSelector;

/// A reference to an object of any kind. Defaults have been filled in; `namespace` is None where it was left
/// out: then it is the referrer's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectRef {
    /// API group; empty for core.
    pub group: Str,
    /// Kind.
    pub kind: Str,
    /// Namespace, if written.
    pub namespace: Option<Str>,
    /// Name.
    pub name: Str,
}

/// GatewayClass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayClass {
    /// Metadata.
    pub meta: Meta,
    /// `spec.controllerName`
    pub controller: Str,
    /// `spec.parametersRef`
    pub parameters: Option<ObjectRef>,
}

/// Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gateway {
    /// Metadata.
    pub meta: Meta,
    /// `spec.gatewayClassName`
    pub class: Str,
    /// `spec.addresses`, in order.
    pub addresses: Vec<GatewayAddress>,
    /// `spec.listeners`, in order.
    pub listeners: Vec<GatewayListener>,
    /// `spec.allowedListeners.namespaces`; default None: no ListenerSet may attach.
    pub allowed_listeners: FromNamespaces,
    /// `spec.infrastructure.labels`
    pub infrastructure_labels: Labels,
    /// `spec.infrastructure.annotations`
    pub infrastructure_annotations: Labels,
    /// `spec.infrastructure.parametersRef`
    pub infrastructure_parameters: Option<ObjectRef>,
    /// `spec.tls.backend.clientCertificateRef`
    pub client_certificate: Option<ObjectRef>,
    /// `spec.tls.frontend.default.validation`
    pub frontend_validation: Option<FrontendValidation>,
    /// `spec.tls.frontend.perPort`: overrides the default for a port; None there: no validation.
    pub frontend_validation_per_port: BTreeMap<u16, Option<FrontendValidation>>,
    /// `spec.defaultScope: All`: routes with `useDefaultGateways: All` attach.
    pub default_scope: bool,
}

/// One entry of `spec.addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayAddress {
    /// `IPAddress`, `Hostname` or a domain-prefixed word.
    pub kind: Str,
    /// None: one is to be assigned.
    pub value: Option<Str>,
}

/// One entry of `spec.listeners` of a Gateway or ListenerSet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayListener {
    /// `name`, unique in its object.
    pub name: Str,
    /// `hostname`, lower-case; may begin with `*.`; None: every host.
    pub hostname: Option<Str>,
    /// `port`
    pub port: u16,
    /// `protocol` as written: HTTP, HTTPS, TLS, TCP, UDP, or something else.
    pub protocol: Str,
    /// `tls`
    pub tls: Option<ListenerTls>,
    /// `allowedRoutes.namespaces`, default Same.
    pub allowed_namespaces: FromNamespaces,
    /// `allowedRoutes.kinds` as (group, kind); empty: those of the protocol.
    pub allowed_kinds: Vec<(Str, Str)>,
}

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerTls {
    /// `mode: Passthrough`; else Terminate.
    pub passthrough: bool,
    /// `certificateRefs`, in order.
    pub certificates: Vec<ObjectRef>,
    /// `options`
    pub options: Labels,
}

/// `namespaces.from` with its selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FromNamespaces {
    /// None: nobody.
    None,
    /// Same: the object's own.
    #[default]
    Same,
    /// All.
    All,
    /// Selector: those whose labels match.
    Selector(LabelSelector),
}

/// How clients' certificates are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendValidation {
    /// `caCertificateRefs`, at least one.
    pub authorities: Vec<ObjectRef>,
    /// `mode: AllowInsecureFallback`: a missing or wrong certificate is let through.
    pub insecure_fallback: bool,
}

/// ListenerSet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerSet {
    /// Metadata.
    pub meta: Meta,
    /// `spec.parentRef`
    pub parent: ObjectRef,
    /// `spec.listeners`, in order.
    pub listeners: Vec<GatewayListener>,
}

/// ReferenceGrant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferenceGrant {
    /// Metadata.
    pub meta: Meta,
    /// `spec.from`: (group, kind, namespace).
    pub from: Vec<(Str, Str, Str)>,
    /// `spec.to`: (group, kind, name); without a name: all.
    pub to: Vec<(Str, Str, Option<Str>)>,
}

/// BackendTLSPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendTlsPolicy {
    /// Metadata.
    pub meta: Meta,
    /// `spec.targetRefs` with `sectionName` (a Service's port name).
    pub targets: Vec<(ObjectRef, Option<Str>)>,
    /// `spec.validation`
    pub validation: BackendValidation,
}

/// How a backend's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendValidation {
    /// `caCertificateRefs`
    pub authorities: Vec<ObjectRef>,
    /// `wellKnownCACertificates`, as written.
    pub well_known: Option<Str>,
    /// `hostname`: the SNI name, and what the certificate must be for unless `alternative_names` says otherwise.
    pub hostname: Str,
    /// `subjectAltNames`: one of them must be in the certificate.
    pub alternative_names: Vec<AlternativeName>,
}

/// One entry of `subjectAltNames`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlternativeName {
    /// `hostname`
    Hostname(Str),
    /// `uri`
    Uri(Str),
}

/// XBackendTrafficPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendTrafficPolicy {
    /// Metadata.
    pub meta: Meta,
    /// `spec.targetRefs`
    pub targets: Vec<ObjectRef>,
    /// `spec.retryConstraint`
    pub retry: Option<RetryConstraint>,
    /// `spec.sessionPersistence`
    pub session: Option<SessionPersistence>,
}

/// `retryConstraint`, with its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryConstraint {
    /// `budget.percent`, default 20: retries as a share of the requests of the interval.
    pub percent: u32,
    /// `budget.interval`, default 10s.
    pub interval: Duration,
    /// `minRetryRate`, default 10 in 1s: this many are always allowed.
    pub minimum: (u32, Duration),
}

/// `sessionPersistence`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionPersistence {
    /// `sessionName`: the cookie's or header's name.
    pub name: Option<Str>,
    /// `type: Header`; else Cookie.
    pub header: bool,
    /// `absoluteTimeout`
    pub absolute_timeout: Option<Duration>,
    /// `cookieConfig.lifetimeType: Permanent`; else Session.
    pub permanent: bool,
}

/// XBackend: a host outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExternalBackend {
    /// Metadata.
    pub meta: Meta,
    /// `spec.externalHostname.hostname`: a DNS name or an IP address.
    pub hostname: Str,
    /// `spec.port.port`
    pub port: u16,
    /// `spec.protocol` as written; None: HTTP.
    pub protocol: Option<Str>,
    /// `spec.tls`, unless its mode is None.
    pub tls: Option<ExternalTls>,
}

/// `spec.tls` of an XBackend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExternalTls {
    /// `validation`; None: the hostname, against the system's authorities.
    pub validation: Option<BackendValidation>,
    /// `clientCertificateRef`, with mode ClientAndServer.
    pub client_certificate: Option<ObjectRef>,
}
