//! Filters of HTTPRoutes (spec 5.5): what is handed on, and what never forwards.
use pilus::api::meta::Kind;
use pilus::api::object::gateway_route::{
    CorsFilter, ExternalAuthFilter, HeaderModifier, PathModifier, RequestRedirect, RouteFilter,
};
use pilus::api::route::{Action, PathRewrite, Target};

use crate::gateway_build::*;
use crate::gateway_route::{plain, routed};

fn headers(set: &[(&str, &str)], remove: &[&str]) -> HeaderModifier {
    HeaderModifier {
        set: set.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        add: vec![],
        remove: remove.iter().map(|&name| name.into()).collect(),
    }
}

fn redirect(path: Option<PathModifier>) -> RouteFilter {
    RouteFilter::Redirect(RequestRedirect {
        scheme: Some("https".into()),
        hostname: None,
        path,
        port: None,
        status: 302,
    })
}

fn rewrite(path: PathModifier) -> RouteFilter {
    RouteFilter::Rewrite { hostname: Some("b.com".into()), path: Some(path) }
}

fn mirror(text: &str) -> RouteFilter {
    RouteFilter::Mirror { backend: to(text), fraction: (1, 2) }
}

fn auth(text: &str) -> RouteFilter {
    RouteFilter::ExternalAuth(ExternalAuthFilter {
        backend: to(text),
        grpc: false,
        path: "/check".into(),
        allowed_headers: vec!["X-Token".into()],
        allowed_response_headers: vec![],
        body_limit: None,
    })
}

#[test]
fn filters_are_handed_on() {
    let filters = [
        RouteFilter::RequestHeaders(headers(&[("X-A", "1")], &["x-b"])),
        RouteFilter::ResponseHeaders(headers(&[("X-C", "2")], &[])),
        rewrite(PathModifier::Prefix("new".into())),
        mirror("b:80"),
        mirror("c:80"),
        RouteFilter::Cors(CorsFilter { origins: vec!["*".into()], ..CorsFilter::default() }),
        auth("c:80"),
    ];
    let mut route = http("infra/r", &["gw"]).filtered(&["P/x"], &filters, &["a:80"]);
    route.rules[0].backends[0].filters =
        vec![RouteFilter::RequestHeaders(headers(&[("X-D", "3")], &[]))];
    let router = routed(&plain(), &[route]);
    assert_eq!(router.parents(Kind::HttpRoute, "infra/r"), ["Accepted ResolvedRefs"]);
    let found = router.found(80, "h", "/x", &Ask::default()).unwrap();
    let compiled = &found.filters;
    assert_eq!(compiled.request.set, [("X-A".into(), "1".into())]);
    assert_eq!(compiled.request.remove, ["x-b".into()]);
    assert_eq!(compiled.response.set, [("X-C".into(), "2".into())]);
    assert_eq!(compiled.rewrite.host.as_deref(), Some("b.com"));
    let prefix = PathRewrite::Prefix("/new".into());
    assert_eq!(compiled.rewrite.path, Some(prefix));
    let mirrors = compiled.mirrors.iter().map(|it| (it.backend.target.clone(), it.fraction));
    assert_eq!(mirrors.clone().count(), 2);
    assert!(
        mirrors
            .into_iter()
            .all(|(target, part)| { matches!(target, Target::Service(_)) && part == (1, 2) })
    );
    assert_eq!(compiled.cors.as_ref().unwrap().origins, ["*".into()]);
    let auth = compiled.auth.as_ref().unwrap();
    assert_eq!(auth.allowed_headers, ["x-token".into()]);
    let Action::Forward(backends) = &found.action else { panic!("{found:?}") };
    let own = backends[0].filters.as_ref().unwrap();
    assert_eq!(own.request.set, [("X-D".into(), "3".into())]);
}

/// Filters that cannot be honoured, with the reason for the rule.
fn unusable() -> Vec<(RouteFilter, &'static str)> {
    let header =
        |name: &str, value: &str| RouteFilter::RequestHeaders(headers(&[(name, value)], &[]));
    let value = "UnsupportedValue";
    vec![
        (RouteFilter::Extension(object("example.com", "Auth", "x")), value),
        (RouteFilter::Unknown("Wasm".into()), value),
        (header("bad name", "x"), value),
        (header("", "x"), value),
        (header("x", "a\r\nb: c"), value),
        (header("Content-Length", "5"), value),
        (header("transfer-encoding", "chunked"), value),
        (header("Host", "x"), value),
        (RouteFilter::ResponseHeaders(headers(&[], &["Connection"])), value),
        (rewrite(PathModifier::Full("/a b".into())), value),
        (rewrite(PathModifier::Prefix("/a\r\n".into())), value),
        (redirect(Some(PathModifier::Full("/a?b".into()))), value),
        (RouteFilter::Rewrite { hostname: Some("a.com:80\r".into()), path: None }, value),
        (
            RouteFilter::Redirect(RequestRedirect {
                scheme: None,
                hostname: None,
                path: None,
                port: None,
                status: 200,
            }),
            value,
        ),
    ]
}

#[test]
fn no_rule_with_a_filter_that_cannot_be_honoured_forwards() {
    let good = RouteFilter::RequestHeaders(headers(&[("x", "y")], &[]));
    for (filter, reason) in unusable() {
        for filters in [
            vec![filter.clone()],
            vec![good.clone(), filter.clone()],
            vec![filter.clone(), mirror("b:80")],
        ] {
            let compatible =
                !matches!(filter, RouteFilter::RequestHeaders(_)) || filters.len() == 1;
            let reason = if compatible || filters[1] == mirror("b:80") {
                reason
            } else {
                "IncompatibleFilters"
            };
            // Alone in its route, which is not accepted then, with another route for the same hosts behind it.
            let alone = http("infra/r", &["gw"]).filtered(&["P/x"], &filters, &["a:80"]);
            let other = http("infra/z", &["gw"]).rule(&["P/"], &["b:80"]);
            let router = routed(&plain(), &[alone.clone(), other]);
            assert_eq!(router.get(80, "h", "/x"), "500", "{filters:?}");
            let status = router.parents(Kind::HttpRoute, "infra/r");
            assert_eq!(status, [format!("Accepted=False/{reason} ResolvedRefs")], "{filters:?}");
            let listeners = &router.api_status(Kind::Gateway, "infra/gw").listeners;
            assert_eq!(listeners[0].attached_routes, 1, "the other one");
            // Beside a good rule: the route is accepted, and says what it lost.
            let router = routed(&plain(), &[alone.rule(&["P/y"], &["b:80"])]);
            assert_eq!(router.get(80, "h", "/x"), "500");
            assert_eq!(router.get(80, "h", "/y"), "b:80");
            let status = router.parents(Kind::HttpRoute, "infra/r");
            assert_eq!(status, ["Accepted ResolvedRefs PartiallyInvalid=True/UnsupportedValue"]);
            let parents = &router.api_status(Kind::HttpRoute, "infra/r").parents;
            assert!(parents[0].conditions[2].message.starts_with("Dropped Rule"));
        }
        // At a backend: its share is refused.
        let mut route = http("infra/r", &["gw"]).rule(&["P/x"], &["a:80", "b:80"]);
        route.rules[0].backends[1].filters = vec![filter.clone()];
        let router = routed(&plain(), &[route]);
        assert_eq!(router.get(80, "h", "/x"), "a:80+refuse 500", "{filter:?}");
    }
}

#[test]
fn filters_that_exclude_each_other() {
    let set = || RouteFilter::RequestHeaders(headers(&[("x", "y")], &[]));
    let full = || PathModifier::Full("/x".into());
    for filters in [
        vec![rewrite(full()), redirect(None)],
        vec![set(), set()],
        vec![redirect(None), redirect(None)],
    ] {
        let router =
            routed(&plain(), &[http("infra/r", &["gw"]).filtered(&["P/"], &filters, &["a:80"])]);
        let status = router.parents(Kind::HttpRoute, "infra/r");
        assert_eq!(status, ["Accepted=False/IncompatibleFilters ResolvedRefs"], "{filters:?}");
        assert_eq!(router.get(80, "h", "/"), "500");
    }
    // A prefix can be replaced only where one was matched.
    let prefix = [rewrite(PathModifier::Prefix("/y".into()))];
    let router =
        routed(&plain(), &[http("infra/r", &["gw"]).filtered(&["E/x", "P/z"], &prefix, &["a:80"])]);
    assert_eq!(router.get(80, "h", "/z"), "500");
    // What is for a whole rule is not for one of its backends.
    for filter in [redirect(None), auth("c:80"), RouteFilter::Cors(CorsFilter::default())] {
        let mut route = http("infra/r", &["gw"]).rule(&["P/x"], &["a:80"]);
        route.rules[0].backends[0].filters = vec![filter];
        assert_eq!(routed(&plain(), &[route]).get(80, "h", "/x"), "refuse 500");
    }
}

#[test]
fn a_mirror_that_is_not_there_is_left_out_and_an_auth_server_is_not() {
    let status = |filter: RouteFilter| {
        let route = http("infra/r", &["gw"]).filtered(&["P/"], &[filter], &["a:80"]);
        let router = routed(&plain(), &[route]);
        let found = router.found(80, "h", "/", &Ask::default()).unwrap();
        let mirrors = found.filters.mirrors.len();
        (forwarded(&found), mirrors, router.parents(Kind::HttpRoute, "infra/r").remove(0))
    };
    let refs = |reason: &str| format!("Accepted ResolvedRefs=False/{reason}");
    let go = "a:80".to_owned();
    assert_eq!(status(mirror("missing:80")), (go.clone(), 0, refs("BackendNotFound")));
    assert_eq!(status(mirror("other/a:80")), (go, 0, refs("RefNotPermitted")));
    assert_eq!(status(auth("missing:80")), ("500".to_owned(), 0, refs("BackendNotFound")));
    assert_eq!(status(auth("other/a:80")), ("500".to_owned(), 0, refs("RefNotPermitted")));
}

#[test]
fn redirects_need_no_backend() {
    let route = http("infra/r", &["gw"]).filtered(&["P/"], &[redirect(None)], &[]);
    let router = routed(&plain(), &[route]);
    assert_eq!(router.get(80, "h", "/"), "redirect 302");
    assert_eq!(router.parents(Kind::HttpRoute, "infra/r"), ["Accepted ResolvedRefs"]);
}
