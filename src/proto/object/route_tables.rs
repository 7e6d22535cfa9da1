//! The fields of the routes of Gateway API: the CRDs of v1.6.1, experimental channel.
use super::gateway_tables::{DURATION, GROUP, KIND_NAME, NAME, NAMESPACE, SECTION, SESSION};
use super::schema::{Field, Literal, Type, def, opt, req};
use super::tables::{KIND, META, PORT, STATUS, VERSION};
use super::{http_names, names};
use Type::{Bool, Enum, Full, Int, List, Many, Object, Str, Unique};

/// The largest 32-bit number, the bound of most numbers of the API.
const MAX_INT: i64 = 2_147_483_647;

const HEADER_NAME: Type = Full(http_names::header_name);

const PARENT_REFS: Field = opt(
    "parentRefs",
    Many(
        0,
        32,
        &List(&Object(&[
            def("group", Literal::Text("gateway.networking.k8s.io"), GROUP),
            def("kind", Literal::Text("Gateway"), KIND_NAME),
            opt("namespace", NAMESPACE),
            req("name", NAME),
            opt("sectionName", SECTION),
            opt("port", PORT),
        ])),
    ),
);

const DEFAULT_GATEWAYS: Field = opt("useDefaultGateways", Enum(&["All", "None"]));

/// A reference to a Service unless it says otherwise.
macro_rules! backend {
    ($($more:expr),*) => {
        Object(&[
            def("group", Literal::Text(""), GROUP),
            def("kind", Literal::Text("Service"), KIND_NAME),
            req("name", NAME),
            opt("namespace", NAMESPACE),
            opt("port", PORT),
            $($more),*
        ])
    };
}

const WEIGHT: Field = def("weight", Literal::Number(1), Int(0, 1_000_000));
const BACKEND: Type = backend!();

const HEADER_LINES: Type = Many(
    0,
    16,
    &Unique(
        "name",
        &List(&Object(&[req("name", HEADER_NAME), req("value", Full(http_names::header_value))])),
    ),
);

const HEADER_MODIFIER: Type = Object(&[
    opt("set", HEADER_LINES),
    opt("add", HEADER_LINES),
    opt("remove", Many(0, 16, &Unique("", &List(&HEADER_NAME)))),
]);

const EXTENSION: Field =
    opt("extensionRef", Object(&[req("group", GROUP), req("kind", KIND_NAME), req("name", NAME)]));
const REQUEST_HEADERS: Field = opt("requestHeaderModifier", HEADER_MODIFIER);
const RESPONSE_HEADERS: Field = opt("responseHeaderModifier", HEADER_MODIFIER);
const MIRROR: Field = opt(
    "requestMirror",
    Object(&[
        req("backendRef", BACKEND),
        opt("percent", Int(0, 100)),
        opt(
            "fraction",
            Object(&[
                req("numerator", Int(0, MAX_INT)),
                def("denominator", Literal::Number(100), Int(1, MAX_INT)),
            ]),
        ),
    ]),
);

const PATH_MODIFIER: Type = Object(&[
    req("type", Enum(&["ReplaceFullPath", "ReplacePrefixMatch"])),
    opt("replaceFullPath", Full(http_names::path_of_redirect)),
    opt("replacePrefixMatch", Full(http_names::path_of_redirect)),
]);

const NAMES: Type = Many(0, 64, &Unique("", &List(&HEADER_NAME)));

const HTTP_METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

const CORS: Field = opt(
    "cors",
    Object(&[
        opt("allowOrigins", Many(0, 64, &Unique("", &List(&Full(http_names::origin))))),
        opt("allowCredentials", Bool),
        opt(
            "allowMethods",
            Many(
                0,
                9,
                &Unique(
                    "",
                    &List(&Enum(&[
                        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE",
                        "PATCH", "*",
                    ])),
                ),
            ),
        ),
        opt("allowHeaders", NAMES),
        opt("exposeHeaders", NAMES),
        def("maxAge", Literal::Number(5), Int(1, MAX_INT)),
    ]),
);

const EXTERNAL_AUTH: Field = opt(
    "externalAuth",
    Object(&[
        req("protocol", Enum(&["HTTP", "GRPC"])),
        req("backendRef", BACKEND),
        opt("grpc", Object(&[opt("allowedHeaders", NAMES)])),
        opt(
            "http",
            Object(&[
                opt("path", Full(http_names::path_prefix)),
                opt("allowedHeaders", NAMES),
                opt("allowedResponseHeaders", NAMES),
            ]),
        ),
        opt("forwardBody", Object(&[opt("maxSize", Int(0, MAX_INT))])),
    ]),
);

const HTTP_FILTERS: Field = opt(
    "filters",
    Many(
        0,
        16,
        &List(&Object(&[
            req(
                "type",
                Enum(&[
                    "RequestHeaderModifier",
                    "ResponseHeaderModifier",
                    "RequestMirror",
                    "RequestRedirect",
                    "URLRewrite",
                    "ExtensionRef",
                    "CORS",
                    "ExternalAuth",
                ]),
            ),
            REQUEST_HEADERS,
            RESPONSE_HEADERS,
            MIRROR,
            opt(
                "requestRedirect",
                Object(&[
                    opt("scheme", Enum(&["http", "https"])),
                    opt("hostname", Full(names::dns_subdomain)),
                    opt("path", PATH_MODIFIER),
                    opt("port", PORT),
                    def("statusCode", Literal::Number(302), Int(301, 308)),
                ]),
            ),
            opt(
                "urlRewrite",
                Object(&[opt("hostname", Full(names::dns_subdomain)), opt("path", PATH_MODIFIER)]),
            ),
            CORS,
            EXTERNAL_AUTH,
            EXTENSION,
        ])),
    ),
);

const HOSTNAMES: Field = opt("hostnames", Many(0, 16, &List(&Full(names::host))));

/// `headers` or `queryParams` of a match.
macro_rules! value_matchers {
    ($field:literal, $value:expr) => {
        opt(
            $field,
            Many(
                0,
                16,
                &Unique(
                    "name",
                    &List(&Object(&[
                        def("type", Literal::Text("Exact"), Enum(&["Exact", "RegularExpression"])),
                        req("name", HEADER_NAME),
                        req("value", Full($value)),
                    ])),
                ),
            ),
        )
    };
}

const HTTP_MATCHES: Field = def(
    "matches",
    Literal::OneMap,
    Many(
        0,
        64,
        &List(&Object(&[
            def(
                "path",
                Literal::Map,
                Object(&[
                    def(
                        "type",
                        Literal::Text("PathPrefix"),
                        Enum(&["Exact", "PathPrefix", "RegularExpression"]),
                    ),
                    def("value", Literal::Text("/"), Str),
                ]),
            ),
            value_matchers!("headers", http_names::header_value),
            value_matchers!("queryParams", http_names::query_value),
            opt("method", Enum(HTTP_METHODS)),
        ])),
    ),
);

pub(super) const HTTP_ROUTE: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            PARENT_REFS,
            HOSTNAMES,
            def(
                "rules",
                Literal::OneMap,
                Many(
                    1,
                    16,
                    &List(&Object(&[
                        opt("name", SECTION),
                        HTTP_MATCHES,
                        HTTP_FILTERS,
                        opt("backendRefs", Many(0, 16, &List(&backend!(WEIGHT, HTTP_FILTERS)))),
                        opt(
                            "timeouts",
                            Object(&[opt("request", DURATION), opt("backendRequest", DURATION)]),
                        ),
                        opt(
                            "retry",
                            Object(&[
                                opt("codes", Unique("", &List(&Int(400, 599)))),
                                opt("attempts", Int(1, MAX_INT)),
                                opt("backoff", DURATION),
                            ]),
                        ),
                        SESSION,
                    ])),
                ),
            ),
            DEFAULT_GATEWAYS,
        ]),
    ),
    STATUS,
];

const GRPC_FILTERS: Field = opt(
    "filters",
    Many(
        0,
        16,
        &List(&Object(&[
            req(
                "type",
                Enum(&[
                    "ResponseHeaderModifier",
                    "RequestHeaderModifier",
                    "RequestMirror",
                    "ExtensionRef",
                ]),
            ),
            REQUEST_HEADERS,
            RESPONSE_HEADERS,
            MIRROR,
            EXTENSION,
        ])),
    ),
);

const GRPC_MATCHES: Field = opt(
    "matches",
    Many(
        0,
        64,
        &List(&Object(&[
            opt(
                "method",
                Object(&[
                    def("type", Literal::Text("Exact"), Enum(&["Exact", "RegularExpression"])),
                    opt("service", Str),
                    opt("method", Str),
                ]),
            ),
            value_matchers!("headers", http_names::grpc_header_value),
        ])),
    ),
);

pub(super) const GRPC_ROUTE: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            PARENT_REFS,
            HOSTNAMES,
            opt(
                "rules",
                Many(
                    0,
                    16,
                    &List(&Object(&[
                        opt("name", SECTION),
                        GRPC_MATCHES,
                        GRPC_FILTERS,
                        opt("backendRefs", Many(0, 16, &List(&backend!(WEIGHT, GRPC_FILTERS)))),
                        SESSION,
                    ])),
                ),
            ),
            DEFAULT_GATEWAYS,
        ]),
    ),
    STATUS,
];

const L4_RULES: Field = req(
    "rules",
    Many(
        1,
        1,
        &List(&Object(&[
            opt("name", SECTION),
            req("backendRefs", Many(1, 16, &List(&backend!(WEIGHT)))),
        ])),
    ),
);

pub(super) const L4_ROUTE: &[Field] =
    &[VERSION, KIND, META, req("spec", Object(&[PARENT_REFS, L4_RULES, DEFAULT_GATEWAYS])), STATUS];

pub(super) const TLS_ROUTE: &[Field] = &[
    VERSION,
    KIND,
    META,
    req(
        "spec",
        Object(&[
            PARENT_REFS,
            opt("hostnames", Many(0, 1024, &List(&Full(names::host)))),
            L4_RULES,
            DEFAULT_GATEWAYS,
        ]),
    ),
    STATUS,
];
