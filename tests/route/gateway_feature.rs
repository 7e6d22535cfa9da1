//! Every feature that a GatewayClass of ours claims, from manifest to routing table or status.
use std::collections::BTreeMap;
use std::sync::Arc;

use pilus::api::Message;
use pilus::api::file::{FileState, Files};
use pilus::api::message::wiring;
use pilus::api::meta::Kind;
use pilus::api::objects::Objects;
use pilus::api::route::{Action, Backend, PathRewrite, Route, TlsAction, UpstreamProtocol};
use pilus::kernel::{Outbox, Server, Time};
use pilus::server::manifests::Manifests;

use crate::build::*;
use crate::gateway_build::*;

/// What is there unless a feature's own manifest defines it.
const BASE: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: pilus}
spec: {controllerName: pilus.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec: {gatewayClassName: pilus, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: infra}
spec: {ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: infra}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: other}
spec: {ports: [{name: http, port: 80}]}
";

/// One feature.
struct Feature {
    name: &'static str,
    manifest: String,
    check: fn(&Router),
}

/// A resource of Gateway API in namespace `infra`.
fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: infra}}\nspec: {spec}\n"
    )
}

/// An HTTPRoute `infra/r` of `infra/gw` with one rule.
fn route(rule: &str) -> String {
    resource("HTTPRoute", "r", &format!("{{parentRefs: [{{name: gw}}], rules: [{rule}]}}"))
}

fn to_a(rest: &str) -> String {
    route(&format!("{{backendRefs: [{{name: a, port: 80}}], {rest}}}"))
}

fn filtered(filter: &str) -> String {
    to_a(&format!("filters: [{filter}]"))
}

fn gateway_spec(listeners: &str, rest: &str) -> String {
    resource(
        "Gateway",
        "gw",
        &format!("{{gatewayClassName: pilus, listeners: [{listeners}]{rest}}}"),
    )
}

const TLS: &str = "tls: {certificateRefs: [{name: cert}]}";

fn https(rest: &str) -> String {
    gateway_spec(&format!("{{name: https, port: 443, protocol: HTTPS, {TLS}}}"), rest)
}

fn service(name: &str, app_protocol: &str) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: infra}}\nspec: {{ports: [{{name: http, port: 80, appProtocol: {app_protocol}}}]}}\n"
    )
}

fn found(router: &Router) -> Arc<Route> {
    router.found(80, "h", "/x", &Ask::default()).expect("a route")
}

fn backend(router: &Router) -> Backend {
    let found = found(router);
    let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
    backends[0].clone()
}

fn accepted(router: &Router, kind: Kind) {
    assert_eq!(router.parents(kind, "infra/r"), ["Accepted ResolvedRefs"]);
}

fn redirects(router: &Router) -> pilus::api::route::Redirect {
    let Action::Redirect(redirect) = &found(router).action else { panic!() };
    redirect.clone()
}

fn redirected(rest: &str) -> String {
    route(&format!("{{filters: [{{type: RequestRedirect, requestRedirect: {{{rest}}}}}]}}"))
}

const POLICY: &str = "{targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}], SAN}}";

fn policy(san: &str) -> String {
    resource("BackendTLSPolicy", "p", &POLICY.replace("SAN", san)) + &to_a("")
}

fn retry(rest: &str) -> String {
    to_a(&format!("retry: {{{rest}}}"))
}

fn f(name: &'static str, manifest: String, check: fn(&Router)) -> Feature {
    Feature { name, manifest, check }
}

fn of_gateways() -> Vec<Feature> {
    vec![
        f("Gateway", String::new(), |r| {
            assert_eq!(r.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
        }),
        f(
            "GatewayAddressEmpty",
            gateway_spec(
                "{name: http, port: 80, protocol: HTTP}",
                ", addresses: [{type: IPAddress}]",
            ),
            |r| {
                assert_eq!(r.api_status(Kind::Gateway, "infra/gw").addresses.len(), 1);
            },
        ),
        f(
            "GatewayStaticAddresses",
            gateway_spec(
                "{name: http, port: 80, protocol: HTTP}",
                ", addresses: [{value: 10.0.0.1}]",
            ),
            |r| {
                let service = r.generated("infra/pilus-gateway-gw").unwrap();
                assert_eq!(service.meta.annotation("lbipam.cilium.io/ips"), Some("10.0.0.1"));
                assert_eq!(r.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
            },
        ),
        f(
            "GatewayPort8080",
            gateway_spec("{name: http, port: 8080, protocol: HTTP}", "") + &to_a(""),
            |r| {
                assert_eq!(r.get(8080, "h", "/"), "a:80");
            },
        ),
        f(
            "GatewayInfrastructurePropagation",
            gateway_spec(
                "{name: http, port: 80, protocol: HTTP}",
                ", infrastructure: {labels: {l: v}, annotations: {note: v}}",
            ),
            |r| {
                let meta = &r.generated("infra/pilus-gateway-gw").unwrap().meta;
                assert_eq!(meta.labels.get("l").map(|it| &**it), Some("v"));
                assert_eq!(meta.annotation("note"), Some("v"));
            },
        ),
        f(
            "GatewayHTTPListenerIsolation",
            gateway_spec(
                "{name: any, port: 80, protocol: HTTP}, {name: a, port: 80, protocol: HTTP, hostname: a.com}",
                "",
            ) + &resource(
                "HTTPRoute",
                "r",
                "{parentRefs: [{name: gw, sectionName: any}], rules: [{backendRefs: [{name: a, port: 80}]}]}",
            ),
            |r| {
                assert_eq!(r.get(80, "b.com", "/"), "a:80");
                assert_eq!(r.get(80, "a.com", "/"), "404");
            },
        ),
        f(
            "GatewayHTTPSListenerDetectMisdirectedRequests",
            gateway_spec(
                &format!(
                    "{{name: any, port: 443, protocol: HTTPS, {TLS}}}, {{name: a, port: 443, protocol: HTTPS, hostname: a.com, {TLS}}}"
                ),
                "",
            ),
            |r| {
                let listener = r.listener("infra/pilus-gateway-gw", 443).unwrap();
                for name in ["a.com", "b.com"] {
                    let Some(TlsAction::Terminate(tls)) = listener.tls.find(Some(name)) else {
                        panic!()
                    };
                    assert_eq!(listener.hosts.find(name).unwrap().scope, tls.scope);
                }
                let scope = |name| listener.hosts.find(name).unwrap().scope;
                assert_ne!(scope("a.com"), scope("b.com"));
            },
        ),
        f(
            "GatewayBackendClientCertificate",
            gateway_spec(
                "{name: http, port: 80, protocol: HTTP}",
                ", tls: {backend: {clientCertificateRef: {name: cert}}}",
            ) + &policy(""),
            |r| {
                let settings = backend(r).settings;
                assert!(settings.tls.as_ref().unwrap().client.is_some());
                assert_eq!(
                    r.conditions(Kind::Gateway, "infra/gw"),
                    "Accepted Programmed ResolvedRefs"
                );
            },
        ),
        f(
            "GatewayFrontendClientCertificateValidation",
            https(
                ", tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}",
            ),
            |r| {
                assert_eq!(client_auth(r), Some(false));
            },
        ),
        f(
            "GatewayFrontendClientCertificateValidationInsecureFallback",
            https(
                ", tls: {frontend: {default: {validation: {mode: AllowInsecureFallback, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}",
            ),
            |r| {
                assert_eq!(client_auth(r), Some(true));
                let conditions =
                    "Accepted Programmed InsecureFrontendValidationMode=True/ConfigurationChanged";
                assert_eq!(r.conditions(Kind::Gateway, "infra/gw"), conditions);
            },
        ),
        f(
            "ListenerSet",
            gateway_spec(
                "{name: http, port: 80, protocol: HTTP}",
                ", allowedListeners: {namespaces: {from: Same}}",
            ) + &resource(
                "ListenerSet",
                "s",
                "{parentRef: {name: gw}, listeners: [{name: own, port: 81, protocol: HTTP}]}",
            ) + &resource(
                "HTTPRoute",
                "r",
                "{parentRefs: [{kind: ListenerSet, name: s}], rules: [{backendRefs: [{name: a, port: 80}]}]}",
            ),
            |r| {
                assert_eq!(r.get(81, "h", "/"), "a:80");
                assert_eq!(r.conditions(Kind::ListenerSet, "infra/s"), "Accepted Programmed");
            },
        ),
        f(
            "ReferenceGrant",
            route("{backendRefs: [{name: a, namespace: other, port: 80}]}")
                + "\n---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}], to: [{group: '', kind: Service}]}\n",
            |r| {
                assert_eq!(r.get(80, "h", "/"), "other/a:80");
            },
        ),
        f("BackendTLSPolicy", policy(""), |r| {
            assert_eq!(&*backend(r).settings.tls.as_ref().unwrap().server_name, "a.com");
            assert_eq!(r.parents(Kind::BackendTlsPolicy, "infra/p"), ["Accepted ResolvedRefs"]);
        }),
        f(
            "BackendTLSPolicySANValidation",
            policy(
                "subjectAltNames: [{type: URI, uri: 'spiffe://a/b'}, {type: Hostname, hostname: b.com}]",
            ),
            |r| {
                let settings = backend(r).settings;
                let tls = settings.tls.as_ref().unwrap();
                assert_eq!((tls.names.len(), tls.uris.len()), (1, 1));
            },
        ),
    ]
}

fn client_auth(router: &Router) -> Option<bool> {
    let listener = router.listener("infra/pilus-gateway-gw", 443).unwrap();
    let Some(TlsAction::Terminate(tls)) = listener.tls.find(None) else { panic!() };
    tls.client_auth.as_ref().map(|auth| auth.optional)
}

fn of_matches() -> Vec<Feature> {
    vec![
        f(
            "HTTPRoute",
            to_a("matches: [{path: {type: Exact, value: /x}, headers: [{name: V, value: '1'}]}]"),
            |r| {
                accepted(r, Kind::HttpRoute);
                let ask = Ask { headers: &[("v", "1")], ..Ask::default() };
                assert_eq!(r.route(80, "h", "/x", &ask), "a:80");
                assert_eq!(r.get(80, "h", "/x"), "404");
            },
        ),
        f("HTTPRouteMethodMatching", to_a("matches: [{method: POST}]"), |r| {
            assert_eq!(r.route(80, "h", "/", &Ask { method: "POST", ..Ask::default() }), "a:80");
            assert_eq!(r.get(80, "h", "/"), "404");
        }),
        f(
            "HTTPRouteQueryParamMatching",
            to_a("matches: [{queryParams: [{name: q, value: v}]}]"),
            |r| {
                let ask = Ask { query: &[("q", "v")], ..Ask::default() };
                assert_eq!(r.route(80, "h", "/", &ask), "a:80");
                assert_eq!(r.get(80, "h", "/"), "404");
            },
        ),
        f("HTTPRouteNamedRouteRule", to_a("name: mine"), |r| {
            assert_eq!(found(r).name.as_deref(), Some("mine"));
        }),
        f(
            "HTTPRouteParentRefPort",
            gateway_spec(
                "{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}",
                "",
            ) + &resource(
                "HTTPRoute",
                "r",
                "{parentRefs: [{name: gw, port: 81}], rules: [{backendRefs: [{name: a, port: 80}]}]}",
            ),
            |r| {
                assert_eq!(
                    (r.get(80, "h", "/"), r.get(81, "h", "/")),
                    ("404".to_owned(), "a:80".to_owned())
                );
            },
        ),
        f(
            "HTTPRouteDestinationPortMatching",
            gateway_spec(
                "{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}",
                "",
            ) + &resource(
                "HTTPRoute",
                "r",
                "{parentRefs: [{name: gw, port: 81}], hostnames: [h], rules: [{backendRefs: [{name: a, port: 80}]}]}",
            ) + &resource(
                "HTTPRoute",
                "q",
                "{parentRefs: [{name: gw, port: 80}], hostnames: [h], rules: [{backendRefs: [{name: b, port: 80}]}]}",
            ),
            |r| {
                assert_eq!(
                    (r.get(80, "h", "/"), r.get(81, "h", "/")),
                    ("b:80".to_owned(), "a:80".to_owned())
                );
            },
        ),
        f(
            "GRPCRoute",
            resource(
                "GRPCRoute",
                "r",
                "{parentRefs: [{name: gw}], rules: [{matches: [{method: {service: s.S, method: M}}], backendRefs: [{name: a, port: 80}]}]}",
            ),
            |r| {
                accepted(r, Kind::GrpcRoute);
                assert_eq!(r.get(80, "h", "/s.S/M"), "a:80");
                assert_eq!(r.get(80, "h", "/s.S/N"), "404");
            },
        ),
        f(
            "GRPCRouteNamedRouteRule",
            resource(
                "GRPCRoute",
                "r",
                "{parentRefs: [{name: gw}], rules: [{name: mine, backendRefs: [{name: a, port: 80}]}]}",
            ),
            |r| {
                assert_eq!(found(r).name.as_deref(), Some("mine"));
            },
        ),
        f(
            "TCPRoute",
            gateway_spec("{name: t, port: 9300, protocol: TCP}", "")
                + &resource(
                    "TCPRoute",
                    "r",
                    "{parentRefs: [{name: gw}], rules: [{backendRefs: [{name: a, port: 80}]}]}",
                ),
            |r| {
                accepted(r, Kind::TcpRoute);
                assert_eq!(forward(r, 9300), "a:80");
            },
        ),
        f(
            "UDPRoute",
            gateway_spec("{name: u, port: 5300, protocol: UDP}", "")
                + &resource(
                    "UDPRoute",
                    "r",
                    "{parentRefs: [{name: gw}], rules: [{backendRefs: [{name: a, port: 53}]}]}",
                ),
            |r| {
                accepted(r, Kind::UdpRoute);
                assert_eq!(forward(r, 5300), "a:53");
            },
        ),
        f(
            "TLSRoute",
            gateway_spec("{name: t, port: 443, protocol: TLS, tls: {mode: Passthrough}}", "")
                + &tls_route("a.com"),
            |r| {
                accepted(r, Kind::TlsRoute);
                assert_eq!(r.tls(443, Some("a.com")), "pass a:80");
                assert_eq!(r.tls(443, Some("b.com")), "refused");
            },
        ),
        f(
            "TLSRouteModeTerminate",
            gateway_spec(&format!("{{name: t, port: 443, protocol: TLS, {TLS}}}"), "")
                + &tls_route("a.com"),
            |r| {
                assert_eq!(r.tls(443, Some("a.com")), "cert> a:80");
            },
        ),
        f(
            "TLSRouteModeMixed",
            gateway_spec(
                &format!(
                    "{{name: t, port: 443, protocol: TLS, hostname: a.com, {TLS}}}, {{name: p, port: 443, protocol: TLS, hostname: b.com, tls: {{mode: Passthrough}}}}"
                ),
                "",
            ) + &tls_route("a.com, b.com"),
            |r| {
                assert_eq!(r.tls(443, Some("a.com")), "cert> a:80");
                assert_eq!(r.tls(443, Some("b.com")), "pass a:80");
                assert_eq!(r.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
            },
        ),
    ]
}

fn tls_route(names: &str) -> String {
    resource(
        "TLSRoute",
        "r",
        &format!(
            "{{parentRefs: [{{name: gw}}], hostnames: [{names}], rules: [{{backendRefs: [{{name: a, port: 80}}]}}]}}"
        ),
    )
}

fn forward(router: &Router, port: u16) -> String {
    let listener = router.listener("infra/pilus-gateway-gw", port).unwrap();
    forwarded(listener.forward.as_ref().unwrap())
}

fn of_filters() -> Vec<Feature> {
    let status = |status| redirected(&format!("statusCode: {status}"));
    vec![
        f(
            "HTTPRouteBackendRequestHeaderModification",
            route(
                "{backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X, value: v}]}}]}]}",
            ),
            |r| {
                assert_eq!(backend(r).filters.unwrap().request.add.len(), 1);
            },
        ),
        f(
            "HTTPRouteResponseHeaderModification",
            filtered("{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [X]}}"),
            |r| {
                assert_eq!(found(r).filters.response.remove, ["X".into()]);
            },
        ),
        f(
            "HTTPRouteHostRewrite",
            filtered("{type: URLRewrite, urlRewrite: {hostname: b.com}}"),
            |r| {
                assert_eq!(found(r).filters.rewrite.host.as_deref(), Some("b.com"));
            },
        ),
        f(
            "HTTPRoutePathRewrite",
            filtered(
                "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}}}",
            ),
            |r| {
                assert_eq!(found(r).filters.rewrite.path, Some(PathRewrite::Prefix("/y".into())));
            },
        ),
        f(
            "HTTPRouteRequestMirror",
            filtered("{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}"),
            |r| {
                let found = found(r);
                let [mirror] = &found.filters.mirrors[..] else { panic!("{found:?}") };
                assert_eq!(mirror.fraction.0, mirror.fraction.1, "all of them");
            },
        ),
        f(
            "HTTPRouteRequestMultipleMirrors",
            filtered(
                "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}, {type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}",
            ),
            |r| {
                assert_eq!(found(r).filters.mirrors.len(), 2);
            },
        ),
        f(
            "HTTPRouteRequestPercentageMirror",
            filtered(
                "{type: RequestMirror, requestMirror: {percent: 20, backendRef: {name: b, port: 80}}}",
            ),
            |r| {
                let (part, of) = found(r).filters.mirrors[0].fraction;
                assert_eq!(part * 5, of);
            },
        ),
        f(
            "HTTPRouteCORS",
            filtered("{type: CORS, cors: {allowOrigins: ['https://a.com'], maxAge: 60}}"),
            |r| {
                assert_eq!(found(r).filters.cors.as_ref().unwrap().max_age, 60);
            },
        ),
        f("HTTPRouteSchemeRedirect", redirected("scheme: https"), |r| {
            assert_eq!(redirects(r).scheme.as_deref(), Some("https"));
        }),
        f("HTTPRoutePortRedirect", redirected("port: 8443"), |r| {
            assert_eq!(redirects(r).port, Some(8443))
        }),
        f(
            "HTTPRoutePathRedirect",
            redirected("path: {type: ReplaceFullPath, replaceFullPath: /y}"),
            |r| {
                assert_eq!(redirects(r).path, Some(PathRewrite::Full("/y".into())));
            },
        ),
        f("HTTPRoute303RedirectStatusCode", status(303), |r| assert_eq!(redirects(r).status, 303)),
        f("HTTPRoute307RedirectStatusCode", status(307), |r| assert_eq!(redirects(r).status, 307)),
        f("HTTPRoute308RedirectStatusCode", status(308), |r| assert_eq!(redirects(r).status, 308)),
        f("HTTPRouteRequestTimeout", to_a("timeouts: {request: 500ms}"), |r| {
            assert_eq!(found(r).request_timeout.unwrap().as_millis(), 500);
        }),
        f("HTTPRouteBackendTimeout", to_a("timeouts: {backendRequest: 500ms}"), |r| {
            assert_eq!(found(r).backend_timeout.unwrap().as_millis(), 500);
        }),
        f("HTTPRouteBackendProtocolH2C", service("a", "kubernetes.io/h2c") + &to_a(""), |r| {
            assert_eq!(backend(r).settings.protocol, UpstreamProtocol::Http2);
        }),
        f("HTTPRouteBackendProtocolWebSocket", service("a", "kubernetes.io/ws") + &to_a(""), |r| {
            assert_eq!(backend(r).settings.protocol, UpstreamProtocol::Http1);
            accepted(r, Kind::HttpRoute);
        }),
        f("HTTPRouteRetry", retry("codes: [500, 503], attempts: 3, backoff: 100ms"), |r| {
            let found = found(r);
            let retry = found.retry.as_ref().unwrap();
            assert_eq!((&retry.codes[..], retry.attempts), (&[500, 503][..], 3));
            assert_eq!(retry.backoff.as_millis(), 100);
        }),
        f("HTTPRouteRetryConnectionError", retry("attempts: 2"), |r| {
            let found = found(r);
            let retry = found.retry.as_ref().unwrap();
            assert!(retry.on_failure && retry.codes.is_empty());
        }),
        f(
            "HTTPRouteRetryBackendTimeout",
            to_a("retry: {attempts: 2}, timeouts: {request: 1s, backendRequest: 100ms}"),
            |r| {
                let found = found(r);
                assert!(
                    found.retry.as_ref().unwrap().on_failure && found.backend_timeout.is_some()
                );
            },
        ),
    ]
}

/// Decodes manifests as the agent does; the first definition of an object counts. Complaints are failures.
fn decoded(files: &[(&str, &str)]) -> Objects {
    let mut server = Manifests::new(UNIX);
    let changes = files
        .iter()
        .map(|(path, text)| (path.into(), FileState::Content(text.as_bytes().into())))
        .collect();
    let files = Files { changes, missing_directories: vec![], complete: true };
    let mut out = Outbox::new();
    server.handle(Time::ZERO, wiring::FILES, Message::Files(Arc::new(files)), &mut out);
    let mut objects = None;
    for (_, message) in out.take() {
        match message {
            Message::Source(source) => objects = Some(source),
            Message::Statuses(statuses) => {
                let bad = |text: &String| !text.contains("this definition is not in effect");
                let problems = statuses.problems.iter().map(ToString::to_string);
                let problems: Vec<_> = problems.filter(bad).collect();
                assert_eq!(problems, [""; 0]);
            }
            other => panic!("{other:?}"),
        }
    }
    Objects::clone(&objects.expect("objects"))
}

#[test]
fn every_feature_that_is_claimed_has_an_effect() {
    let mut features: BTreeMap<&str, Feature> = BTreeMap::new();
    for feature in of_gateways().into_iter().chain(of_matches()).chain(of_filters()) {
        assert!(features.insert(feature.name, feature).is_none());
    }
    let (pem, key_pem) = certificate(&["a.com"], 2025, 2030);
    let mut claimed = Vec::new();
    for Feature { name: feature, manifest, check } in features.values() {
        println!("{feature}");
        let mut objects = decoded(&[("a.yaml", manifest), ("b.yaml", BASE)]);
        put(&mut objects.secrets, secret("infra/cert", &pem, &key_pem));
        put(&mut objects.config_maps, authorities("infra/ca", &pem));
        let router = Router::gateway(objects);
        assert_eq!(router.problems(), [""; 0], "{feature}");
        check(&router);
        claimed.clone_from(&router.api_status(Kind::GatewayClass, "pilus").supported_features);
    }
    let tested: Vec<&str> = features.into_keys().collect();
    assert_eq!(claimed, tested);
}
