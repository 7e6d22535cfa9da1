//! What is read of Gateway API objects, with the defaults of the API server.
use super::tests::object;
use super::*;
use crate::api::object::gateway::*;
use crate::api::object::gateway_route::*;
use crate::api::selector::Requirement;
use std::time::Duration;

/// The JSON of an object without its metadata.
fn json(object: &mut Object) -> String {
    let mut json = Str::from("");
    object.with_meta(|meta| json = Str::clone(&meta.json));
    let at = json.find("\"spec\"").unwrap_or(0);
    json[at..].to_owned()
}

fn http(spec: &str) -> (Arc<HttpRoute>, String) {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec: {spec}\n"
    );
    let mut decoded = object(&text);
    let json = json(&mut decoded);
    let Object::HttpRoute(route) = decoded else { panic!("no HTTPRoute") };
    (route, json)
}

fn service(name: &str) -> ObjectRef {
    ObjectRef { kind: "Service".into(), name: name.into(), ..ObjectRef::default() }
}

#[test]
fn an_empty_http_route_matches_every_path() {
    let (route, json) = http("{}");
    assert_eq!(
        json,
        r#""spec":{"rules":[{"matches":[{"path":{"type":"PathPrefix","value":"/"}}]}]}}"#
    );
    assert_eq!(route.rules.len(), 1);
    let path = PathMatcher::Prefix("/".into());
    let all = HttpRouteMatch { path, headers: Vec::new(), query: Vec::new(), method: None };
    assert_eq!(route.rules[0].matches, std::slice::from_ref(&all));
    let (route, json) = http("{rules: [{matches: []}]}");
    assert_eq!(route.rules[0].matches, [all]);
    assert_eq!(json, r#""spec":{"rules":[{"matches":[]}]}}"#);
}

#[test]
fn the_newest_version_is_shown() {
    let mut decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\nmetadata: {name: t}\nspec:\n  rules: \
         [{name: o, backendRefs: [{name: a, port: 1, weight: 0}, {name: b, namespace: x, port: 2}]}]\n",
    );
    assert_eq!(
        json(&mut decoded),
        r#""spec":{"rules":[{"backendRefs":[{"group":"","kind":"Service","name":"a","port":1,"weight":0},{"group":"","kind":"Service","name":"b","namespace":"x","port":2,"weight":1}],"name":"o"}]}}"#
    );
    let Object::TlsRoute(route) = decoded else { panic!("no TLSRoute") };
    assert!(route.meta.json.starts_with(r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind""#));
    assert_eq!(route.rule_name.as_deref(), Some("o"));
    assert_eq!(route.hostnames, []);
    let b = ObjectRef { namespace: Some("x".into()), ..service("b") };
    assert_eq!(
        route.backends,
        [
            BackendRef { object: service("a"), port: Some(1), weight: 0, filters: Vec::new() },
            BackendRef { object: b, port: Some(2), weight: 1, filters: Vec::new() },
        ]
    );
}

#[test]
fn parents_and_matches_of_an_http_route() {
    let (route, json) = http(
        "{parentRefs: [{name: g, sectionName: s, port: 80}, {kind: ListenerSet, name: l, namespace: o}], \
         useDefaultGateways: All, hostnames: ['*.a.b', c.d], rules: [{matches: [{path: {value: /x}, method: \
         GET, headers: [{name: X-A, value: b}, {name: x-a, value: c}, {name: B, type: RegularExpression, \
         value: '[ab]'}], queryParams: [{name: Q, value: 'ä b'}, {name: q, value: c}]}, {path: {type: \
         RegularExpression, value: '/a.*'}}, {path: {type: Exact, value: /e}}]}]}",
    );
    assert!(json.starts_with(r#""spec":{"hostnames":["*.a.b","c.d"],"parentRefs":[{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"g","port":80,"sectionName":"s"},{"group":"gateway.networking.k8s.io","kind":"ListenerSet""#), "{json}");
    let parent = |kind: &str, name: &str, namespace: Option<&str>| ObjectRef {
        group: "gateway.networking.k8s.io".into(),
        kind: kind.into(),
        namespace: namespace.map(Str::from),
        name: name.into(),
    };
    assert_eq!(
        route.parents,
        [
            ParentRef {
                object: parent("Gateway", "g", None),
                section: Some("s".into()),
                port: Some(80)
            },
            ParentRef { object: parent("ListenerSet", "l", Some("o")), section: None, port: None },
        ]
    );
    assert!(route.default_gateways);
    assert_eq!(route.hostnames, [Str::from("*.a.b"), "c.d".into()]);
    let value = |name: &str, value: &str, regex| ValueMatcher {
        name: name.into(),
        value: value.into(),
        regex,
    };
    let [first, second, third] = &route.rules[0].matches[..] else { panic!("not three") };
    assert_eq!(first.path, PathMatcher::Prefix("/x".into()));
    assert_eq!(first.headers, [value("x-a", "b", false), value("b", "[ab]", true)]);
    assert_eq!(first.query, [value("Q", "ä b", false), value("q", "c", false)]);
    assert_eq!(first.method.as_deref(), Some("GET"));
    assert_eq!(second.path, PathMatcher::Regex("/a.*".into()));
    assert_eq!(third.path, PathMatcher::Exact("/e".into()));
}

#[test]
fn every_filter_is_read() {
    let (route, json) = http(
        "{rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], \
         add: [{name: c, value: 'd e'}], remove: [F]}}, {type: URLRewrite, urlRewrite: {hostname: h.i, path: \
         {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}, {type: RequestMirror, requestMirror: \
         {backendRef: {name: m, port: 1}, fraction: {numerator: 3}}}, {type: RequestMirror, requestMirror: \
         {backendRef: {name: m, port: 2}, percent: 0}}, {type: RequestMirror, requestMirror: {backendRef: \
         {name: m, port: 3}}}, {type: CORS, cors: {allowOrigins: ['*'], allowCredentials: true}}, {type: \
         ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: x, port: 4}, http: {path: /p, \
         allowedHeaders: [H], allowedResponseHeaders: [R]}, forwardBody: {maxSize: 0}}}, {type: ExtensionRef, \
         extensionRef: {group: g.h, kind: K, name: o}}]}, {filters: [{type: RequestRedirect, requestRedirect: \
         {}}, {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]}, {filters: [{type: \
         RequestRedirect, requestRedirect: {scheme: https, hostname: a.b, port: 8443, statusCode: 308, path: \
         {type: ReplaceFullPath, replaceFullPath: /x}}}]}]}",
    );
    assert!(json.contains(r#""requestRedirect":{"statusCode":302}"#), "{json}");
    assert!(json.contains(r#""cors":{"allowCredentials":true,"allowOrigins":["*"],"maxAge":5}"#));
    assert!(json.contains(r#""fraction":{"denominator":100,"numerator":3}"#));
    let backend = |name: &str, port| BackendRef {
        object: service(name),
        port: Some(port),
        weight: 1,
        filters: Vec::new(),
    };
    assert_eq!(
        route.rules[0].filters,
        [
            RouteFilter::RequestHeaders(HeaderModifier {
                set: vec![("A".into(), "b".into())],
                add: vec![("c".into(), "d e".into())],
                remove: vec!["F".into()],
            }),
            RouteFilter::Rewrite {
                hostname: Some("h.i".into()),
                path: Some(PathModifier::Prefix("".into()))
            },
            RouteFilter::Mirror { backend: backend("m", 1), fraction: (3, 100) },
            RouteFilter::Mirror { backend: backend("m", 2), fraction: (0, 100) },
            RouteFilter::Mirror { backend: backend("m", 3), fraction: (1, 1) },
            RouteFilter::Cors(CorsFilter {
                origins: vec!["*".into()],
                credentials: true,
                max_age: 5,
                ..CorsFilter::default()
            }),
            RouteFilter::ExternalAuth(ExternalAuthFilter {
                backend: backend("x", 4),
                grpc: false,
                path: "/p".into(),
                allowed_headers: vec!["H".into()],
                allowed_response_headers: vec!["R".into()],
                body_limit: None,
            }),
            RouteFilter::Extension(ObjectRef {
                group: "g.h".into(),
                kind: "K".into(),
                namespace: None,
                name: "o".into()
            }),
        ]
    );
    let plain =
        RequestRedirect { scheme: None, hostname: None, path: None, port: None, status: 302 };
    let remove = vec!["a".into()];
    assert_eq!(
        route.rules[1].filters,
        [
            RouteFilter::Redirect(plain),
            RouteFilter::ResponseHeaders(HeaderModifier { remove, ..HeaderModifier::default() })
        ]
    );
    assert_eq!(
        route.rules[2].filters,
        [RouteFilter::Redirect(RequestRedirect {
            scheme: Some("https".into()),
            hostname: Some("a.b".into()),
            path: Some(PathModifier::Full("/x".into())),
            port: Some(8443),
            status: 308,
        })]
    );
}

#[test]
fn timeouts_retries_and_sessions_are_read() {
    let (route, json) = http(
        "{rules: [{name: o, timeouts: {request: 1h1m1s1ms, backendRequest: 0s}, retry: {codes: [503, 500], \
         attempts: 3, backoff: 99999ms}, sessionPersistence: {sessionName: s, absoluteTimeout: 2h, \
         cookieConfig: {lifetimeType: Permanent}}, backendRefs: [{name: a, port: 1, weight: 1000000, filters: \
         [{type: RequestHeaderModifier, requestHeaderModifier: {}}]}]}, {retry: {}, sessionPersistence: \
         {type: Header}}, {sessionPersistence: {cookieConfig: {}}}]}",
    );
    assert!(
        json.contains(r#""cookieConfig":{"lifetimeType":"Session"},"type":"Cookie""#),
        "{json}"
    );
    let rule = &route.rules[0];
    assert_eq!(rule.name.as_deref(), Some("o"));
    assert_eq!(rule.request_timeout, Some(Duration::from_millis(3_661_001)));
    assert_eq!(rule.backend_timeout, Some(Duration::ZERO));
    let backoff = Some(Duration::from_millis(99_999));
    assert_eq!(rule.retry, Some(RouteRetry { codes: vec![503, 500], attempts: Some(3), backoff }));
    assert_eq!(
        rule.session,
        Some(SessionPersistence {
            name: Some("s".into()),
            header: false,
            absolute_timeout: Some(Duration::from_secs(7200)),
            permanent: true,
        })
    );
    assert_eq!(rule.backends[0].weight, 1_000_000);
    assert_eq!(rule.backends[0].filters, [RouteFilter::RequestHeaders(HeaderModifier::default())]);
    assert_eq!(route.rules[1].retry, Some(RouteRetry::default()));
    assert!(route.rules[1].session.as_ref().unwrap().header);
    assert_eq!(route.rules[2].session, Some(SessionPersistence::default()));
}

#[test]
fn a_grpc_route_is_read() {
    let decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: {rules: \
         [{matches: [{method: {service: a.B, method: C}, headers: [{name: X, value: z}]}, {method: {type: \
         RegularExpression, method: 'Get.*'}}, {}], backendRefs: [{name: a, port: 1}]}, {}]}\n",
    );
    let Object::GrpcRoute(route) = decoded else { panic!("no GRPCRoute") };
    let headers = vec![ValueMatcher { name: "x".into(), value: "z".into(), regex: false }];
    assert_eq!(
        route.rules[0].matches,
        [
            GrpcRouteMatch {
                service: Some("a.B".into()),
                method: Some("C".into()),
                regex: false,
                headers,
            },
            GrpcRouteMatch {
                service: None,
                method: Some("Get.*".into()),
                regex: true,
                headers: Vec::new(),
            },
            GrpcRouteMatch::default(),
        ]
    );
    assert_eq!(route.rules[1], GrpcRouteRule::default());
    let empty = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: {}\n";
    assert_eq!(json(&mut object(empty)), r#""spec":{}}"#);
}

#[test]
fn a_gateway_has_the_defaults_of_the_api_server() {
    let mut decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  \
         gatewayClassName: c\n  listeners:\n  - {name: a, port: 80, protocol: HTTP}\n  - {name: b, port: 443, \
         protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}\n",
    );
    assert_eq!(
        json(&mut decoded),
        r#""spec":{"gatewayClassName":"c","listeners":[{"allowedRoutes":{"namespaces":{"from":"Same"}},"name":"a","port":80,"protocol":"HTTP"},{"allowedRoutes":{"namespaces":{"from":"Same"}},"name":"b","port":443,"protocol":"HTTPS","tls":{"certificateRefs":[{"group":"","kind":"Secret","name":"s"}],"mode":"Terminate"}}]}}"#
    );
    let Object::Gateway(gateway) = decoded else { panic!("no Gateway") };
    assert_eq!(gateway.allowed_listeners, FromNamespaces::None);
    assert!(!gateway.default_scope);
    assert_eq!(gateway.listeners[0].allowed_namespaces, FromNamespaces::Same);
    let tls = gateway.listeners[1].tls.as_ref().unwrap();
    assert!(!tls.passthrough);
    assert_eq!(tls.certificates, [ObjectRef { kind: "Secret".into(), ..service("s") }]);
}

#[test]
fn a_gateway_is_read_in_full() {
    let decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  \
         gatewayClassName: c\n  defaultScope: All\n  allowedListeners: {namespaces: {}}\n  addresses: [{value: \
         192.0.2.1}, {type: Hostname, value: a.b}, {}]\n  infrastructure: {labels: {a: b}, annotations: {c: d}, \
         parametersRef: {group: '', kind: ConfigMap, name: p}}\n  tls: {backend: {clientCertificateRef: {name: \
         s}}, frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}, \
         perPort: [{port: 443, tls: {}}, {port: 444, tls: {validation: {mode: AllowInsecureFallback, \
         caCertificateRefs: [{group: '', kind: ConfigMap, name: ca, namespace: x}]}}}]}}\n  listeners:\n  - {name: \
         a, port: 80, protocol: HTTP, hostname: '*.a.b', allowedRoutes: {namespaces: {from: Selector, selector: \
         {matchLabels: {a: b}}}, kinds: [{kind: HTTPRoute}, {group: x.z, kind: Foo}]}}\n  - {name: b, port: 443, \
         protocol: TLS, tls: {mode: Passthrough, options: {a.b/c: d}}, allowedRoutes: {namespaces: {from: All}}}\n",
    );
    let Object::Gateway(gateway) = decoded else { panic!("no Gateway") };
    let address = |kind: &str, value: Option<&str>| GatewayAddress {
        kind: kind.into(),
        value: value.map(Str::from),
    };
    let wanted = [
        address("IPAddress", Some("192.0.2.1")),
        address("Hostname", Some("a.b")),
        address("IPAddress", None),
    ];
    assert_eq!(gateway.addresses, wanted);
    assert_eq!(gateway.allowed_listeners, FromNamespaces::None);
    assert!(gateway.default_scope);
    assert_eq!(gateway.infrastructure_labels.get("a").map(|value| &**value), Some("b"));
    assert_eq!(gateway.infrastructure_annotations.get("c").map(|value| &**value), Some("d"));
    let map = |name: &str| ObjectRef { kind: "ConfigMap".into(), ..service(name) };
    assert_eq!(gateway.infrastructure_parameters, Some(map("p")));
    assert_eq!(gateway.client_certificate.as_ref().map(|it| &*it.kind), Some("Secret"));
    let validation = gateway.frontend_validation.as_ref().unwrap();
    assert_eq!(validation.authorities, [map("ca")]);
    assert!(!validation.insecure_fallback);
    assert_eq!(gateway.frontend_validation_per_port[&443], None);
    let other = gateway.frontend_validation_per_port[&444].as_ref().unwrap();
    assert!(other.insecure_fallback);
    assert_eq!(other.authorities[0].namespace.as_deref(), Some("x"));
    let [first, second] = &gateway.listeners[..] else { panic!("not two") };
    let FromNamespaces::Selector(selector) = &first.allowed_namespaces else { panic!("none") };
    assert_eq!(selector.requirements, [Requirement::In("a".into(), vec!["b".into()])]);
    assert_eq!(
        first.allowed_kinds,
        [
            ("gateway.networking.k8s.io".into(), "HTTPRoute".into()),
            (Str::from("x.z"), Str::from("Foo"))
        ]
    );
    assert_eq!(first.hostname.as_deref(), Some("*.a.b"));
    assert!(second.tls.as_ref().unwrap().passthrough);
    assert_eq!(second.allowed_namespaces, FromNamespaces::All);
}

#[test]
fn policies_are_read_with_their_defaults() {
    let mut decoded = object(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {name: p}\n\
         spec: {targetRefs: [{group: '', kind: Service, name: a}], retryConstraint: {}}\n",
    );
    assert_eq!(
        json(&mut decoded),
        r#""spec":{"retryConstraint":{"budget":{"interval":"10s","percent":20},"minRetryRate":{"count":10,"interval":"1s"}},"targetRefs":[{"group":"","kind":"Service","name":"a"}]}}"#
    );
    let Object::XBackendTrafficPolicy(policy) = decoded else { panic!("no policy") };
    let second = Duration::from_secs(1);
    assert_eq!(
        policy.retry,
        Some(RetryConstraint { percent: 20, interval: second * 10, minimum: (10, second) })
    );
    assert_eq!(policy.session, None);
    let decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1alpha3\nkind: BackendTLSPolicy\nmetadata: {name: p}\nspec: \
         {targetRefs: [{group: '', kind: Service, name: a, sectionName: s}, {group: '', kind: Service, name: b}], \
         validation: {hostname: h.i, wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, \
         hostname: '*.a.b'}, {type: URI, uri: 'spiffe://a/b'}]}}\n",
    );
    let Object::BackendTlsPolicy(policy) = decoded else { panic!("no policy") };
    assert_eq!(policy.targets, [(service("a"), Some("s".into())), (service("b"), None)]);
    assert_eq!(
        policy.validation,
        BackendValidation {
            authorities: Vec::new(),
            well_known: Some("System".into()),
            hostname: "h.i".into(),
            alternative_names: vec![
                AlternativeName::Hostname("*.a.b".into()),
                AlternativeName::Uri("spiffe://a/b".into())
            ],
        }
    );
}

#[test]
fn an_external_backend_has_tls_unless_its_mode_is_none() {
    let decode = |tls: &str| {
        let decoded = object(&format!(
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {{name: b}}\nspec: \
             {{type: ExternalHostname, externalHostname: {{hostname: nas.lan}}, port: {{port: 443}}, protocol: \
             HTTP2, tls: {tls}}}\n"
        ));
        let Object::XBackend(backend) = decoded else { panic!("no XBackend") };
        backend
    };
    let none = decode("{mode: None}");
    assert_eq!(
        (&*none.hostname, none.port, none.protocol.as_deref()),
        ("nas.lan", 443, Some("HTTP2"))
    );
    assert_eq!(none.tls, None);
    assert_eq!(decode("{mode: ServerOnly}").tls, Some(ExternalTls::default()));
    let both = decode("{mode: ClientAndServer, clientCertificateRef: {name: c}}").tls.clone();
    assert_eq!(both.unwrap().client_certificate.unwrap().kind, "Secret".into());
}

#[test]
fn a_grant_and_a_listener_set_are_read() {
    let decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g}\nspec: {from: \
         [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], to: [{group: '', kind: Service}, \
         {group: '', kind: Secret, name: s}]}\n",
    );
    let Object::ReferenceGrant(grant) = decoded else { panic!("no grant") };
    let from = ("gateway.networking.k8s.io".into(), "HTTPRoute".into(), "a".into());
    assert_eq!(grant.from, [from]);
    let wanted =
        [("".into(), "Service".into(), None), (Str::from(""), "Secret".into(), Some("s".into()))];
    assert_eq!(grant.to, wanted);
    let decoded = object(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {name: l}\nspec: {parentRef: \
         {name: g, namespace: o}, listeners: [{name: a, port: 80, protocol: HTTP}]}\n",
    );
    let Object::ListenerSet(set) = decoded else { panic!("no ListenerSet") };
    assert_eq!(&*set.parent.kind, "Gateway");
    assert_eq!(set.parent.namespace.as_deref(), Some("o"));
    assert_eq!(set.listeners.len(), 1);
}
