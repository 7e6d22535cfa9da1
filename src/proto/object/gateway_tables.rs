//! The fields of the kinds of Gateway API that are no routes: the CRDs of v1.6.1, experimental channel.
use super::schema::{Field, Literal, Type, def, opt, req};
use super::tables::{KIND, LABEL_SELECTOR, META, PORT, STATUS, VERSION};
use super::{http_names, names};
use Type::{Enum, Full, Int, List, Many, Map, Object, Str, Text, Unique};

/// The group of a reference; empty for core.
pub(super) const GROUP: Type = Text(names::dns_subdomain);
/// The kind of a reference.
pub(super) const KIND_NAME: Type = Full(http_names::kind);
/// The name of what is referred to.
pub(super) const NAME: Type = Full(http_names::object_name);
/// A namespace.
pub(super) const NAMESPACE: Type = Full(names::dns_label);
/// The name of a listener, rule or port.
pub(super) const SECTION: Type = Full(names::dns_subdomain);
/// A duration as GEP-2257 writes it.
pub(super) const DURATION: Type = Full(http_names::duration);

const ANNOTATION_VALUES: Type = Many(0, 16, &Map(&Full(http_names::annotation_value)));

/// A reference without namespace that says everything.
const LOCAL_REFERENCE: &[Field] = &[req("group", GROUP), req("kind", KIND_NAME), req("name", NAME)];

/// A reference that says everything but perhaps the namespace.
const FULL_REFERENCE: &[Field] =
    &[req("group", GROUP), req("kind", KIND_NAME), req("name", NAME), opt("namespace", NAMESPACE)];

/// A reference to a Secret unless it says otherwise.
const SECRET_REFERENCE: Type = Object(&[
    def("group", Literal::Text(""), GROUP),
    def("kind", Literal::Text("Secret"), KIND_NAME),
    req("name", NAME),
    opt("namespace", NAMESPACE),
]);

const GATEWAY_GROUP: Literal = Literal::Text("gateway.networking.k8s.io");

pub(super) const GATEWAY_CLASS: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req("controllerName", Full(names::domain_prefixed_path)),
            opt("description", Full(http_names::description)),
            opt("parametersRef", Object(FULL_REFERENCE)),
        ]),
    ),
    STATUS,
];

/// `namespaces` with this default of `from`.
const fn from_namespaces(words: &'static [&'static str], default: &'static str) -> [Field; 2] {
    [def("from", Literal::Text(default), Enum(words)), opt("selector", LABEL_SELECTOR)]
}

const ROUTE_NAMESPACES: [Field; 2] = from_namespaces(&["All", "Selector", "Same"], "Same");
const LISTENER_NAMESPACES: [Field; 2] =
    from_namespaces(&["All", "Selector", "Same", "None"], "None");

const LISTENERS: Type = Many(
    1,
    64,
    &Unique(
        "name",
        &List(&Object(&[
            req("name", SECTION),
            opt("hostname", Full(names::host)),
            req("port", PORT),
            req("protocol", Full(http_names::listener_protocol)),
            opt(
                "tls",
                Object(&[
                    def("mode", Literal::Text("Terminate"), Enum(&["Terminate", "Passthrough"])),
                    opt("certificateRefs", Many(0, 64, &List(&SECRET_REFERENCE))),
                    opt("options", ANNOTATION_VALUES),
                ]),
            ),
            def(
                "allowedRoutes",
                Literal::Map,
                Object(&[
                    def("namespaces", Literal::Map, Object(&ROUTE_NAMESPACES)),
                    opt(
                        "kinds",
                        Many(
                            0,
                            8,
                            &List(&Object(&[
                                def("group", GATEWAY_GROUP, GROUP),
                                req("kind", KIND_NAME),
                            ])),
                        ),
                    ),
                ]),
            ),
        ])),
    ),
);

const FRONTEND_VALIDATION: Field = opt(
    "validation",
    Object(&[
        req("caCertificateRefs", Many(1, 16, &List(&Object(FULL_REFERENCE)))),
        def(
            "mode",
            Literal::Text("AllowValidOnly"),
            Enum(&["AllowValidOnly", "AllowInsecureFallback"]),
        ),
    ]),
);

const GATEWAY_TLS: Type = Object(&[
    opt("backend", Object(&[opt("clientCertificateRef", SECRET_REFERENCE)])),
    opt(
        "frontend",
        Object(&[
            req("default", Object(&[FRONTEND_VALIDATION])),
            opt(
                "perPort",
                Many(
                    0,
                    64,
                    &Unique(
                        "port",
                        &List(&Object(&[
                            req("port", PORT),
                            req("tls", Object(&[FRONTEND_VALIDATION])),
                        ])),
                    ),
                ),
            ),
        ]),
    ),
]);

pub(super) const GATEWAY: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req("gatewayClassName", NAME),
            req("listeners", LISTENERS),
            opt(
                "addresses",
                Many(
                    0,
                    16,
                    &List(&Object(&[
                        def(
                            "type",
                            Literal::Text("IPAddress"),
                            Full(http_names::gateway_address_type),
                        ),
                        opt("value", Str),
                    ])),
                ),
            ),
            opt(
                "infrastructure",
                Object(&[
                    opt("labels", Many(0, 8, &Map(&Text(names::label_value)))),
                    opt("annotations", ANNOTATION_VALUES),
                    opt("parametersRef", Object(LOCAL_REFERENCE)),
                ]),
            ),
            opt(
                "allowedListeners",
                Object(&[def("namespaces", Literal::Map, Object(&LISTENER_NAMESPACES))]),
            ),
            opt("tls", GATEWAY_TLS),
            opt("defaultScope", Enum(&["All", "None"])),
        ]),
    ),
    STATUS,
];

pub(super) const LISTENER_SET: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req(
                "parentRef",
                Object(&[
                    def("group", GATEWAY_GROUP, GROUP),
                    def("kind", Literal::Text("Gateway"), KIND_NAME),
                    req("name", NAME),
                    opt("namespace", NAMESPACE),
                ]),
            ),
            req("listeners", LISTENERS),
        ]),
    ),
    STATUS,
];

pub(super) const REFERENCE_GRANT: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req(
                "from",
                Many(
                    1,
                    16,
                    &List(&Object(&[
                        req("group", GROUP),
                        req("kind", KIND_NAME),
                        req("namespace", NAMESPACE),
                    ])),
                ),
            ),
            req(
                "to",
                Many(
                    1,
                    16,
                    &List(&Object(&[
                        req("group", GROUP),
                        req("kind", KIND_NAME),
                        opt("name", NAME),
                    ])),
                ),
            ),
        ]),
    ),
];

const BACKEND_VALIDATION: Type = Object(&[
    opt("caCertificateRefs", Many(0, 8, &List(&Object(LOCAL_REFERENCE)))),
    opt("wellKnownCACertificates", Full(http_names::well_known_authorities)),
    req("hostname", Full(names::dns_subdomain)),
    opt(
        "subjectAltNames",
        Many(
            0,
            5,
            &List(&Object(&[
                req("type", Enum(&["Hostname", "URI"])),
                opt("hostname", Text(names::host)),
                opt("uri", Text(http_names::absolute_uri)),
            ])),
        ),
    ),
]);

pub(super) const BACKEND_TLS_POLICY: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req(
                "targetRefs",
                Many(
                    1,
                    16,
                    &List(&Object(&[
                        req("group", GROUP),
                        req("kind", KIND_NAME),
                        req("name", NAME),
                        opt("sectionName", SECTION),
                    ])),
                ),
            ),
            req("validation", BACKEND_VALIDATION),
            opt("options", ANNOTATION_VALUES),
        ]),
    ),
    STATUS,
];

/// `sessionPersistence` of a rule or policy.
pub(super) const SESSION: Field = opt(
    "sessionPersistence",
    Object(&[
        opt("sessionName", Full(http_names::session_name)),
        opt("absoluteTimeout", DURATION),
        def("type", Literal::Text("Cookie"), Enum(&["Cookie", "Header"])),
        opt(
            "cookieConfig",
            Object(&[def(
                "lifetimeType",
                Literal::Text("Session"),
                Enum(&["Permanent", "Session"]),
            )]),
        ),
    ]),
);

pub(super) const BACKEND_TRAFFIC_POLICY: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req("targetRefs", Many(1, 16, &List(&Object(LOCAL_REFERENCE)))),
            opt(
                "retryConstraint",
                Object(&[
                    def(
                        "budget",
                        Literal::Map,
                        Object(&[
                            def("percent", Literal::Number(20), Int(0, 100)),
                            def("interval", Literal::Text("10s"), DURATION),
                        ]),
                    ),
                    def(
                        "minRetryRate",
                        Literal::Map,
                        Object(&[
                            def("count", Literal::Number(10), Int(1, 1_000_000)),
                            def("interval", Literal::Text("1s"), DURATION),
                        ]),
                    ),
                ]),
            ),
            SESSION,
        ]),
    ),
    STATUS,
];

pub(super) const EXTERNAL_BACKEND: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            req("type", Enum(&["ExternalHostname"])),
            opt("externalHostname", Object(&[req("hostname", Full(names::dns_subdomain))])),
            req("port", Object(&[opt("name", Text(names::dns_label)), req("port", PORT)])),
            opt("protocol", Enum(&["TCP", "HTTP", "HTTP2", "HTTP11", "H2C", "MCP"])),
            opt(
                "tls",
                Object(&[
                    req("mode", Enum(&["None", "ServerOnly", "ClientAndServer"])),
                    opt("validation", BACKEND_VALIDATION),
                    opt("clientCertificateRef", SECRET_REFERENCE),
                ]),
            ),
        ]),
    ),
    STATUS,
];
