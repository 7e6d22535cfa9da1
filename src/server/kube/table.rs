//! The entries of one kind → its table in the snapshot.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Entry;
use crate::api::meta::Kind;
use crate::api::objects::Objects;
use crate::proto::object::Object;

/// The one key of a ConfigMap that anything refers to: a bundle of certificates.
const CERTIFICATES: &str = "ca.crt";

/// Whether an object is kept at all: ConfigMaps without certificates are most of what a cluster has of them.
pub(super) fn is_wanted(object: &Object) -> bool {
    match object {
        Object::ConfigMap(map) => map.data.contains_key(CERTIFICATES),
        _ => true,
    }
}

/// Puts the objects of `kind` in the place of those before. Equal tables keep their [`Arc`].
pub(super) fn replace<'e>(
    objects: &mut Objects,
    kind: Kind,
    entries: impl Iterator<Item = &'e Entry>,
) {
    let decoded = entries.filter_map(|entry| entry.object.as_ref());
    macro_rules! table {
        ($field:ident, $variant:ident) => {{
            let mut table = BTreeMap::new();
            for object in decoded {
                if let Object::$variant(object) = object {
                    table.insert(object.meta.name.clone(), Arc::clone(object));
                }
            }
            objects.$field = Arc::new(table);
        }};
    }
    match kind {
        Kind::Namespace => table!(namespaces, Namespace),
        Kind::Node => table!(nodes, Node),
        Kind::Pod => table!(pods, Pod),
        Kind::Service => table!(services, Service),
        Kind::Endpoints | Kind::EndpointSlice => {
            let mut table = BTreeMap::new();
            for object in decoded {
                if let Object::EndpointSlices(slices) = object {
                    for slice in slices {
                        table.insert(slice.meta.name.clone(), Arc::clone(slice));
                    }
                }
            }
            objects.endpoint_slices = Arc::new(table);
        }
        Kind::Secret => table!(secrets, Secret),
        Kind::ConfigMap => table!(config_maps, ConfigMap),
        Kind::Ingress => table!(ingresses, Ingress),
        Kind::IngressClass => table!(ingress_classes, IngressClass),
        Kind::CiliumLoadBalancerIPPool => table!(pools, Pool),
        Kind::CiliumL2AnnouncementPolicy => table!(l2_policies, L2Policy),
        Kind::GatewayClass => table!(gateway_classes, GatewayClass),
        Kind::Gateway => table!(gateways, Gateway),
        Kind::ListenerSet => table!(listener_sets, ListenerSet),
        Kind::HttpRoute => table!(http_routes, HttpRoute),
        Kind::GrpcRoute => table!(grpc_routes, GrpcRoute),
        Kind::TlsRoute => table!(tls_routes, TlsRoute),
        Kind::TcpRoute => table!(tcp_routes, TcpRoute),
        Kind::UdpRoute => table!(udp_routes, UdpRoute),
        Kind::ReferenceGrant => table!(reference_grants, ReferenceGrant),
        Kind::BackendTlsPolicy => table!(backend_tls_policies, BackendTlsPolicy),
        Kind::XBackendTrafficPolicy => table!(backend_traffic_policies, XBackendTrafficPolicy),
        Kind::XBackend => table!(external_backends, XBackend),
        Kind::Lease => {}
    }
}
