//! backendRefs to backends: grants, Services and XBackends, `appProtocol`, TLS policies. What cannot be used gets its
//! share of the traffic and refuses it.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::policy::{Policies, validation, with_client};
use super::reference::{EXPERIMENTAL_GROUP, Grants, Referrer, is};
use super::status::Fault;
use crate::api::address::is_elsewhere;
use crate::api::endpoint::ServicePort;
use crate::api::meta::{Kind, NamespacedName, Str};
use crate::api::object::gateway::ExternalBackend;
use crate::api::object::gateway_route::BackendRef;
use crate::api::object::{PortProtocol, ServicePortRef};
use crate::api::route::{
    Backend, Certificate, Target, UpstreamProtocol, UpstreamSettings, UpstreamTls,
};
use crate::server::route::context::Context;
use crate::server::route::upstream::AppProtocol;

/// What goes to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Traffic {
    /// Requests, in the version that the backend speaks.
    Http,
    /// gRPC: always HTTP/2.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS that is not ours: nothing is put around it.
    Passthrough,
    /// Datagrams.
    Udp,
}

/// The certificate that a Gateway shows to its backends, or why it cannot.
pub(super) type Client = Result<Option<Arc<Certificate>>, Fault>;

/// Looks up the backends of routes.
pub(super) struct Backends<'c, 'a> {
    pub(super) context: &'c mut Context<'a>,
    pub(super) grants: &'c Grants,
    pub(super) policies: &'c Policies,
    /// Settings with TLS, so that equal ones are shared: by Service port, traffic, and the client's Secret.
    secured: HashMap<SecuredKey, Arc<UpstreamSettings>>,
}

type SecuredKey = (ServicePort, UpstreamProtocol, Option<NamespacedName>);

/// Who refers to a backend and what for.
#[derive(Clone, Copy)]
pub(super) struct Use<'u> {
    pub(super) from: Referrer<'u>,
    pub(super) traffic: Traffic,
    pub(super) client: &'u Client,
}

// === impl Backends ===

impl<'c, 'a> Backends<'c, 'a> {
    pub(super) fn new(
        context: &'c mut Context<'a>,
        grants: &'c Grants,
        policies: &'c Policies,
    ) -> Self {
        Self { context, grants, policies, secured: HashMap::new() }
    }

    /// The backend without its filters; it refuses if the fault is there.
    pub(super) fn resolve(
        &mut self,
        of: Use<'_>,
        reference: &BackendRef,
    ) -> (Backend, Option<Fault>) {
        let found = self.find(of, reference);
        let weight = reference.weight;
        match found {
            Ok((target, settings)) => (Backend { target, weight, settings, filters: None }, None),
            Err((status, fault, counts)) => {
                // What gRPC clients make of it without a grpc-status: 503 is UNAVAILABLE (14).
                let status = if of.traffic == Traffic::Grpc { 503 } else { status };
                let target = Target::Refuse(status, fault.message.clone());
                let backend = Backend { target, weight, settings: Arc::default(), filters: None };
                (backend, counts.then_some(fault))
            }
        }
    }

    fn find(&mut self, of: Use<'_>, reference: &BackendRef) -> Result<Found, Refusal> {
        let object = &reference.object;
        let permitted = || {
            let permit = self.grants.permit(of.from, object);
            permit.map_err(|why| (500, Fault::new("RefNotPermitted", why), true))
        };
        if is(object, "", Kind::Service) {
            return self.service(of, permitted()?, reference.port);
        }
        if is(object, EXPERIMENTAL_GROUP, Kind::XBackend) {
            return self.external(of, permitted()?);
        }
        let group = if object.group.is_empty() { "core" } else { &*object.group };
        let message = format!(
            "{} {} (group {group}) cannot be a backend: only Services and XBackends can",
            object.kind, object.name
        );
        Err((500, Fault::new("InvalidKind", message), true))
    }

    fn service(
        &mut self,
        of: Use<'_>,
        name: NamespacedName,
        port: Option<u16>,
    ) -> Result<Found, Refusal> {
        let not_found = |why: String| (500, Fault::new("BackendNotFound", why), true);
        let Some(port) = port else {
            return Err(not_found(format!("the reference to Service {name} needs a port")));
        };
        let protocol = match of.traffic {
            Traffic::Udp => PortProtocol::Udp,
            _ => PortProtocol::Tcp,
        };
        let found = self
            .context
            .service_port(&name, &ServicePortRef::Number(port), protocol)
            .map_err(|(_, why)| not_found(why))?;
        let app = AppProtocol::parse(found.spec.app_protocol.as_deref());
        let secured = match of.traffic {
            Traffic::Passthrough | Traffic::Udp => None,
            _ => self.policies.tls(&name, &found.spec.name),
        };
        let is_http = matches!(of.traffic, Traffic::Http | Traffic::Grpc);
        if is_http
            && (app == AppProtocol::Unsupported || app == AppProtocol::Tls && secured.is_none())
        {
            let written = found.spec.app_protocol.as_deref().unwrap_or_default();
            let why = if app == AppProtocol::Tls {
                "needs a BackendTLSPolicy that says whom to trust"
            } else {
                "is not supported"
            };
            let message = format!("appProtocol {written} of port {port} of Service {name} {why}");
            return Err((500, Fault::new("UnsupportedProtocol", message), true));
        }
        let http2 = is_http && (of.traffic == Traffic::Grpc || app == AppProtocol::Http2);
        let settings = self.context.settings(found.service, http2);
        let port = found.port();
        let settings = match secured {
            None => settings,
            // The policy's own status says what is wrong with it.
            Some(Err(fault)) => return Err((500, fault.clone(), false)),
            Some(Ok(tls)) => self.secure(&port, settings, tls, of.client)?,
        };
        Ok((Target::Service(port), settings))
    }

    /// The same settings with TLS.
    fn secure(
        &mut self,
        port: &ServicePort,
        settings: Arc<UpstreamSettings>,
        tls: &UpstreamTls,
        client: &Client,
    ) -> Result<Arc<UpstreamSettings>, Refusal> {
        let client = client.as_ref().map_err(|fault| (503, fault.clone(), false))?;
        let secret = client.as_ref().map(|certificate| certificate.secret.clone());
        let key = (port.clone(), settings.protocol, secret);
        let secured = self.secured.entry(key).or_insert_with(|| {
            let tls = Some(with_client(tls, client.as_ref()));
            Arc::new(UpstreamSettings { tls, ..(*settings).clone() })
        });
        Ok(Arc::clone(secured))
    }

    fn external(&mut self, of: Use<'_>, name: NamespacedName) -> Result<Found, Refusal> {
        let Some(backend) = self.context.objects.external_backends.get(&name) else {
            let message = format!("XBackend {name} does not exist");
            return Err((500, Fault::new("BackendNotFound", message), true));
        };
        let protocol = external_protocol(backend, of.traffic)?;
        external_address(backend)?;
        let mut settings = UpstreamSettings { protocol, ..UpstreamSettings::default() };
        if let Some(tls) = &backend.tls
            && of.traffic != Traffic::Passthrough
        {
            settings.tls = Some(self.external_tls(backend, tls)?);
        }
        let service = NamespacedName {
            namespace: Str::clone(&name.namespace),
            name: format!("xbackend/{}", name.name).into(),
        };
        let port = crate::api::address::Port(backend.port);
        let port = ServicePort { service, port, protocol: PortProtocol::Tcp };
        Ok((Target::Service(port), Arc::new(settings)))
    }

    fn external_tls(
        &mut self,
        backend: &ExternalBackend,
        tls: &crate::api::object::gateway::ExternalTls,
    ) -> Result<Arc<UpstreamTls>, Refusal> {
        let refused = |fault: Fault| (503, fault, true);
        let Some(wanted) = &tls.validation else {
            let message = format!(
                "XBackend {}: TLS without validation needs the system's CA certificates, which is not supported; name a ConfigMap in tls.validation.caCertificateRefs",
                backend.meta.name
            );
            return Err(refused(Fault::new("BackendNotFound", message)));
        };
        let namespace = &backend.meta.name.namespace;
        let mut unresolved = None;
        let checked = validation(self.context, namespace, wanted, &mut unresolved);
        let checked = checked.map_err(|fault| {
            let message = unresolved.map_or(fault.message, |fault| fault.message);
            let message = format!("XBackend {}: {message}", backend.meta.name);
            refused(Fault::new("BackendNotFound", message))
        })?;
        let client = match &tls.client_certificate {
            None => None,
            Some(reference) => {
                let from = Referrer { kind: Kind::XBackend, namespace };
                let invalid = "BackendNotFound";
                let loaded = super::listener_tls::certificate(
                    self.context,
                    self.grants,
                    from,
                    reference,
                    invalid,
                );
                Some(loaded.map_err(refused)?.certificate)
            }
        };
        Ok(with_client(&checked, client.as_ref()))
    }
}

/// A backend that can be used.
type Found = (Target, Arc<UpstreamSettings>);

/// The status for its share, why, and whether the route's ResolvedRefs is False because of it.
type Refusal = (u16, Fault, bool);

fn external_protocol(
    backend: &ExternalBackend,
    traffic: Traffic,
) -> Result<UpstreamProtocol, Refusal> {
    let written = backend.protocol.as_deref().unwrap_or("HTTP");
    let is_http = matches!(traffic, Traffic::Http | Traffic::Grpc);
    match written {
        _ if !is_http => Ok(UpstreamProtocol::Http1),
        _ if traffic == Traffic::Grpc && written != "TCP" => Ok(UpstreamProtocol::Http2),
        "HTTP" | "HTTP11" | "MCP" => Ok(UpstreamProtocol::Http1),
        "HTTP2" | "H2C" | "GRPC" => Ok(UpstreamProtocol::Http2),
        _ => {
            let message =
                format!("protocol {written} of XBackend {} is not HTTP", backend.meta.name);
            Err((500, Fault::new("UnsupportedProtocol", message), true))
        }
    }
}

/// Whether requests may go there: never to this node itself or to what only it can reach.
fn external_address(backend: &ExternalBackend) -> Result<(), Refusal> {
    let name = &backend.meta.name;
    let refused = |message: String| Err((503, Fault::new("BackendNotFound", message), true));
    let host = backend.hostname.trim_start_matches('[').trim_end_matches(']');
    // Names are looked up by the endpoint server, which leaves such addresses out as well.
    let Ok(address) = host.parse::<IpAddr>() else { return Ok(()) };
    if !is_elsewhere(address) {
        return refused(format!("XBackend {name}: {address} is not an address of another host"));
    }
    Ok(())
}
