//! The backends of Services.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::address::Port;
use super::meta::NamespacedName;
use super::object::PortProtocol;

/// A Service port: what an Ingress backend names, once a named port has been looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The Service.
    pub service: NamespacedName,
    /// Its port number (not the target port).
    pub port: Port,
    /// The same number may be there for TCP and for UDP, with other target ports.
    pub protocol: PortProtocol,
}

/// One backend of a Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and target port.
    pub address: SocketAddr,
    /// May take new connections.
    pub ready: bool,
    /// Is being taken away: used only if no ready one is left.
    pub terminating: bool,
    /// The node it runs on, if known.
    pub node: Option<Arc<str>>,
    /// The Pod behind it, if known, for explanations.
    pub pod: Option<NamespacedName>,
}

/// All Service ports with their endpoints; whole state.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// Every Service port that exists is a key, with an empty list if it has no endpoint. Lists are
    /// sorted by address, so that all nodes see the same order.
    pub by_port: HashMap<ServicePort, Arc<[Endpoint]>>,
}
