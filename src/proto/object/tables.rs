//! The fields of each kind: the API reference of Kubernetes 1.36 and the CRDs of Cilium 1.18 as tables.
use super::schema::{Field, Type, dead, opt, req};
use super::{gateway_tables, names, route_tables};
use crate::api::meta::Kind;
use Type::{Any, Bool, Enum, Int, List, Map, Object, Open, PortOrName, Str, Text};

/// The fields of an object of this kind.
pub(super) const fn of(kind: Kind) -> &'static [Field] {
    match kind {
        Kind::Namespace => NAMESPACE,
        Kind::Node => NODE,
        Kind::Pod => POD,
        Kind::Service => SERVICE,
        Kind::Endpoints => ENDPOINTS,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        Kind::Secret => SECRET,
        Kind::ConfigMap => CONFIG_MAP,
        Kind::Ingress => INGRESS,
        Kind::IngressClass => INGRESS_CLASS,
        Kind::CiliumLoadBalancerIPPool => POOL,
        Kind::CiliumL2AnnouncementPolicy => L2_POLICY,
        Kind::GatewayClass => gateway_tables::GATEWAY_CLASS,
        Kind::Gateway => gateway_tables::GATEWAY,
        Kind::ListenerSet => gateway_tables::LISTENER_SET,
        Kind::HttpRoute => route_tables::HTTP_ROUTE,
        Kind::GrpcRoute => route_tables::GRPC_ROUTE,
        Kind::TlsRoute => route_tables::TLS_ROUTE,
        Kind::TcpRoute | Kind::UdpRoute => route_tables::L4_ROUTE,
        Kind::ReferenceGrant => gateway_tables::REFERENCE_GRANT,
        Kind::BackendTlsPolicy => gateway_tables::BACKEND_TLS_POLICY,
        Kind::XBackendTrafficPolicy => gateway_tables::BACKEND_TRAFFIC_POLICY,
        Kind::XBackend => gateway_tables::EXTERNAL_BACKEND,
        Kind::Lease => &[],
    }
}

pub(super) const VERSION: Field = req("apiVersion", Str);
pub(super) const KIND: Field = req("kind", Str);
pub(super) const META: Field = req("metadata", Object(OBJECT_META));
pub(super) const STATUS: Field = opt("status", Any);

pub(super) const PORT: Type = Int(1, 65_535);
pub(super) const ANY_INT: Type = Int(i64::MIN, i64::MAX);
const PROTOCOL: Type = Enum(&["TCP", "UDP", "SCTP"]);
pub(super) const STRINGS: Type = Map(&Str);

const OBJECT_META: &[Field] = &[
    opt("name", Str),
    opt("generateName", Str),
    opt("namespace", Str),
    opt("selfLink", Str),
    opt("uid", Str),
    opt("resourceVersion", Str),
    opt("generation", ANY_INT),
    opt("creationTimestamp", Str),
    opt("deletionTimestamp", Str),
    opt("deletionGracePeriodSeconds", ANY_INT),
    opt("labels", STRINGS),
    opt("annotations", STRINGS),
    opt("ownerReferences", List(&Any)),
    opt("finalizers", List(&Str)),
    opt("managedFields", List(&Any)),
];

const OBJECT_REFERENCE: &[Field] = &[
    opt("kind", Str),
    opt("namespace", Str),
    opt("name", Str),
    opt("uid", Str),
    opt("apiVersion", Str),
    opt("resourceVersion", Str),
    opt("fieldPath", Str),
];

pub(super) const LABEL_SELECTOR: Type = Object(&[
    opt("matchLabels", STRINGS),
    opt(
        "matchExpressions",
        List(&Object(&[
            req("key", Text(names::qualified_name)),
            req("operator", Enum(&["In", "NotIn", "Exists", "DoesNotExist"])),
            opt("values", List(&Text(names::label_value))),
        ])),
    ),
]);

const NAMESPACE: &[Field] =
    &[VERSION, KIND, META, opt("spec", Object(&[opt("finalizers", List(&Str))])), STATUS];

const NODE: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt(
        "spec",
        Open(&[
            opt("podCIDR", Text(names::cidr)),
            opt("podCIDRs", List(&Text(names::cidr))),
            opt("unschedulable", Bool),
        ]),
    ),
    opt("status", Open(&[opt("addresses", List(&Open(&[req("type", Str), req("address", Str)])))])),
];

const CONTAINERS: Type = List(&Open(&[
    req("name", Text(names::dns_label)),
    opt(
        "ports",
        List(&Object(&[
            opt("name", Text(names::port_name)),
            opt("hostPort", Int(0, 65_535)),
            req("containerPort", PORT),
            opt("protocol", PROTOCOL),
            opt("hostIP", Str),
        ])),
    ),
]));

const POD: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt(
        "spec",
        Open(&[
            req("containers", CONTAINERS),
            opt("initContainers", CONTAINERS),
            opt("nodeName", Text(names::dns_subdomain)),
            opt("hostNetwork", Bool),
        ]),
    ),
    opt(
        "status",
        Open(&[
            opt("phase", Str),
            opt("podIP", Text(names::ip)),
            opt("podIPs", List(&Object(&[req("ip", Text(names::ip))]))),
            opt("conditions", List(&Open(&[req("type", Str), req("status", Str)]))),
        ]),
    ),
];

const SERVICE: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt(
        "spec",
        Object(&[
            opt("type", Enum(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
            opt("selector", STRINGS),
            opt(
                "ports",
                List(&Object(&[
                    opt("name", Text(names::dns_label)),
                    opt("protocol", PROTOCOL),
                    opt("appProtocol", Str),
                    req("port", PORT),
                    opt("targetPort", PortOrName),
                    opt("nodePort", Int(0, 65_535)),
                ])),
            ),
            opt("clusterIP", Text(names::cluster_ip)),
            opt("clusterIPs", List(&Text(names::cluster_ip))),
            opt("externalIPs", List(&Text(names::ip))),
            opt("sessionAffinity", Enum(&["ClientIP", "None"])),
            opt(
                "sessionAffinityConfig",
                Object(&[opt("clientIP", Object(&[opt("timeoutSeconds", Int(1, 86_400))]))]),
            ),
            opt("loadBalancerIP", Str),
            opt("loadBalancerClass", Text(names::qualified_name)),
            opt("loadBalancerSourceRanges", List(&Text(names::cidr))),
            opt("externalName", Text(names::dns_subdomain)),
            opt("externalTrafficPolicy", Enum(&["Cluster", "Local"])),
            opt("internalTrafficPolicy", Enum(&["Cluster", "Local"])),
            dead("trafficDistribution", Str),
            opt("healthCheckNodePort", Int(0, 65_535)),
            opt("publishNotReadyAddresses", Bool),
            opt("ipFamilies", List(&Enum(&["IPv4", "IPv6"]))),
            opt("ipFamilyPolicy", Enum(&["SingleStack", "PreferDualStack", "RequireDualStack"])),
            opt("allocateLoadBalancerNodePorts", Bool),
        ]),
    ),
    opt(
        "status",
        Open(&[opt(
            "loadBalancer",
            Open(&[opt("ingress", List(&Open(&[opt("ip", Text(names::ip))])))]),
        )]),
    ),
];

const ENDPOINT_SLICE: &[Field] = &[
    VERSION,
    KIND,
    META,
    req("addressType", Enum(&["IPv4", "IPv6", "FQDN"])),
    opt(
        "endpoints",
        List(&Object(&[
            req("addresses", List(&Str)),
            opt(
                "conditions",
                Object(&[opt("ready", Bool), opt("serving", Bool), opt("terminating", Bool)]),
            ),
            opt("hostname", Text(names::dns_label)),
            opt("targetRef", Object(OBJECT_REFERENCE)),
            opt("deprecatedTopology", STRINGS),
            opt("nodeName", Text(names::dns_subdomain)),
            opt("zone", Str),
            opt("hints", Any),
        ])),
    ),
    opt(
        "ports",
        List(&Object(&[
            opt("name", Text(names::dns_label)),
            opt("protocol", PROTOCOL),
            opt("port", PORT),
            opt("appProtocol", Str),
        ])),
    ),
];

const ENDPOINT_ADDRESS: Type = Object(&[
    req("ip", Text(names::ip)),
    opt("hostname", Text(names::dns_label)),
    opt("nodeName", Text(names::dns_subdomain)),
    opt("targetRef", Object(OBJECT_REFERENCE)),
]);

const ENDPOINTS: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt(
        "subsets",
        List(&Object(&[
            opt("addresses", List(&ENDPOINT_ADDRESS)),
            opt("notReadyAddresses", List(&ENDPOINT_ADDRESS)),
            opt(
                "ports",
                List(&Object(&[
                    opt("name", Text(names::dns_label)),
                    req("port", PORT),
                    opt("protocol", PROTOCOL),
                    opt("appProtocol", Str),
                ])),
            ),
        ])),
    ),
];

const SECRET: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt("type", Str),
    opt("data", STRINGS),
    opt("stringData", STRINGS),
    opt("immutable", Bool),
];

const CONFIG_MAP: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt("data", STRINGS),
    opt("binaryData", STRINGS),
    opt("immutable", Bool),
];

const INGRESS_BACKEND: Type = Object(&[
    opt(
        "service",
        Object(&[
            req("name", Text(names::dns_1035_label)),
            opt("port", Object(&[opt("name", Text(names::port_name)), opt("number", PORT)])),
        ]),
    ),
    opt("resource", Object(&[opt("apiGroup", Str), req("kind", Str), req("name", Str)])),
]);

const INGRESS: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            opt("ingressClassName", Text(names::dns_subdomain)),
            opt("defaultBackend", INGRESS_BACKEND),
            opt(
                "tls",
                List(&Object(&[
                    opt("hosts", List(&Text(names::host))),
                    opt("secretName", Text(names::dns_subdomain)),
                ])),
            ),
            opt(
                "rules",
                List(&Object(&[
                    opt("host", Text(names::host)),
                    opt(
                        "http",
                        Object(&[req(
                            "paths",
                            List(&Object(&[
                                opt("path", Str),
                                req(
                                    "pathType",
                                    Enum(&["Exact", "Prefix", "ImplementationSpecific"]),
                                ),
                                req("backend", INGRESS_BACKEND),
                            ])),
                        )]),
                    ),
                ])),
            ),
        ]),
    ),
    STATUS,
];

const INGRESS_CLASS: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req("controller", Text(names::domain_prefixed_path)),
            dead(
                "parameters",
                Object(&[
                    opt("apiGroup", Str),
                    req("kind", Str),
                    req("name", Str),
                    opt("scope", Enum(&["Cluster", "Namespace"])),
                    opt("namespace", Str),
                ]),
            ),
        ]),
    ),
];

const POOL: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            opt(
                "blocks",
                List(&Object(&[
                    opt("cidr", Text(names::cidr)),
                    opt("start", Text(names::ip)),
                    opt("stop", Text(names::ip)),
                ])),
            ),
            opt("serviceSelector", LABEL_SELECTOR),
            opt("allowFirstLastIPs", Enum(&["Yes", "No"])),
            opt("disabled", Bool),
        ]),
    ),
    STATUS,
];

const L2_POLICY: &[Field] = &[
    VERSION,
    KIND,
    META,
    opt(
        "spec",
        Object(&[
            opt("serviceSelector", LABEL_SELECTOR),
            opt("nodeSelector", LABEL_SELECTOR),
            opt("interfaces", List(&Text(names::regex))),
            opt("externalIPs", Bool),
            opt("loadBalancerIPs", Bool),
        ]),
    ),
    STATUS,
];
