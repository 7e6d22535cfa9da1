//! The names under which people ask for kinds: plural, singular and short, as kubectl knows them.
use crate::api::meta::Kind;

/// A kind's names and API version.
#[derive(Debug)]
pub struct Resource {
    /// The kind.
    pub kind: Kind,
    /// The plural, as in the API's paths.
    pub plural: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// `apiVersion` of the objects Pilus makes itself.
    pub api_version: &'static str,
    /// Short names.
    pub short: &'static [&'static str],
}

/// The group of Gateway API.
pub(super) const GATEWAY: &str = "gateway.networking.k8s.io";
/// The group of what is tried out in Gateway API.
pub(super) const EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";

/// Every kind that can be asked for.
pub static RESOURCES: [Resource; 25] = [
    core(Kind::Namespace, "namespaces", &["ns"]),
    core(Kind::Node, "nodes", &["no"]),
    core(Kind::Pod, "pods", &["po"]),
    core(Kind::Service, "services", &["svc"]),
    core(Kind::Endpoints, "endpoints", &["ep"]),
    Resource {
        kind: Kind::EndpointSlice,
        plural: "endpointslices",
        group: "discovery.k8s.io",
        api_version: "discovery.k8s.io/v1",
        short: &[],
    },
    core(Kind::Secret, "secrets", &[]),
    core(Kind::ConfigMap, "configmaps", &["cm"]),
    Resource {
        kind: Kind::Ingress,
        plural: "ingresses",
        group: "networking.k8s.io",
        api_version: "networking.k8s.io/v1",
        short: &["ing"],
    },
    Resource {
        kind: Kind::IngressClass,
        plural: "ingressclasses",
        group: "networking.k8s.io",
        api_version: "networking.k8s.io/v1",
        short: &[],
    },
    Resource {
        kind: Kind::CiliumLoadBalancerIPPool,
        plural: "ciliumloadbalancerippools",
        group: "cilium.io",
        api_version: "cilium.io/v2",
        short: &["ippool", "ippools", "lbippool", "lbippools"],
    },
    Resource {
        kind: Kind::CiliumL2AnnouncementPolicy,
        plural: "ciliuml2announcementpolicies",
        group: "cilium.io",
        api_version: "cilium.io/v2alpha1",
        short: &["l2announcement"],
    },
    gateway(Kind::GatewayClass, "gatewayclasses", &["gc"]),
    gateway(Kind::Gateway, "gateways", &["gtw"]),
    gateway(Kind::ListenerSet, "listenersets", &["lset"]),
    gateway(Kind::HttpRoute, "httproutes", &[]),
    gateway(Kind::GrpcRoute, "grpcroutes", &[]),
    gateway(Kind::TlsRoute, "tlsroutes", &[]),
    gateway(Kind::TcpRoute, "tcproutes", &[]),
    gateway(Kind::UdpRoute, "udproutes", &[]),
    gateway(Kind::ReferenceGrant, "referencegrants", &["refgrant"]),
    gateway(Kind::BackendTlsPolicy, "backendtlspolicies", &["btlspolicy"]),
    experimental(Kind::XBackendTrafficPolicy, "xbackendtrafficpolicies", &["xbtrafficpolicy"]),
    experimental(Kind::XBackend, "xbackends", &[]),
    Resource {
        kind: Kind::Lease,
        plural: "leases",
        group: "coordination.k8s.io",
        api_version: "coordination.k8s.io/v1",
        short: &[],
    },
];

const fn core(kind: Kind, plural: &'static str, short: &'static [&'static str]) -> Resource {
    Resource { kind, plural, group: "", api_version: "v1", short }
}

const fn gateway(kind: Kind, plural: &'static str, short: &'static [&'static str]) -> Resource {
    Resource { kind, plural, group: GATEWAY, api_version: "gateway.networking.k8s.io/v1", short }
}

const fn experimental(
    kind: Kind,
    plural: &'static str,
    short: &'static [&'static str],
) -> Resource {
    Resource {
        kind,
        plural,
        group: EXPERIMENTAL,
        api_version: "gateway.networking.x-k8s.io/v1alpha1",
        short,
    }
}

// === impl Resource ===

impl Resource {
    /// `services`, `ingresses.networking.k8s.io`: how kubectl names the resource in errors.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    fn is_called(&self, name: &str) -> bool {
        name == self.plural
            || self.short.contains(&name)
            || name == self.kind.as_str().to_ascii_lowercase()
    }
}

/// The resource of a kind.
pub fn of(kind: Kind) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind)
        .expect("the table has one row for each kind, which a test checks")
}

/// The resource that people call `name`: any case, with or without the group.
pub fn find(name: &str) -> Option<&'static Resource> {
    let name = name.to_ascii_lowercase();
    let (name, group) = name.split_once('.').unwrap_or((&name, ""));
    RESOURCES.iter().find(|resource| {
        let version_and_group =
            group.split_once('.').map_or(group, |(version, rest)| match version.as_bytes() {
                [b'v', b'1'..=b'9', ..] => rest,
                _ => group,
            });
        resource.is_called(name)
            && (group.is_empty() || resource.group == group || resource.group == version_and_group)
    })
}

/// Every name, for suggestions.
pub fn names() -> impl Iterator<Item = &'static str> {
    RESOURCES
        .iter()
        .flat_map(|resource| std::iter::once(resource.plural).chain(resource.short.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row_and_the_names_people_type_find_it() {
        for kind in Kind::ALL {
            assert_eq!(of(kind).kind, kind);
            assert_eq!(find(kind.as_str()).unwrap().kind, kind);
        }
        for (name, kind) in [
            ("svc", Kind::Service),
            ("ing", Kind::Ingress),
            ("ingresses.networking.k8s.io", Kind::Ingress),
            ("ingresses.v1.networking.k8s.io", Kind::Ingress),
            ("IPPools", Kind::CiliumLoadBalancerIPPool),
            ("lbippool", Kind::CiliumLoadBalancerIPPool),
            ("l2announcement", Kind::CiliumL2AnnouncementPolicy),
            ("cm", Kind::ConfigMap),
            ("ep", Kind::Endpoints),
            ("gc", Kind::GatewayClass),
            ("gtw", Kind::Gateway),
            ("gateways", Kind::Gateway),
            ("gateways.gateway.networking.k8s.io", Kind::Gateway),
            ("lset", Kind::ListenerSet),
            ("httproute", Kind::HttpRoute),
            ("HTTPRoutes", Kind::HttpRoute),
            ("tlsroutes.v1.gateway.networking.k8s.io", Kind::TlsRoute),
            ("refgrant", Kind::ReferenceGrant),
            ("btlspolicy", Kind::BackendTlsPolicy),
            ("xbtrafficpolicy", Kind::XBackendTrafficPolicy),
            ("xbackend", Kind::XBackend),
        ] {
            assert_eq!(find(name).unwrap().kind, kind, "{name}");
        }
        assert!(find("meshes").is_none());
        assert!(find("services.example.org").is_none());
        assert!(find("").is_none());
    }
}
