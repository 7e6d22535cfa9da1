//! What routes change in requests and responses, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::io::BufReader;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use pilus::api::route::{
    Action, Backend as To, Conditions, Cors, Filters, HeaderChange, Listener, PathRewrite,
    Redirect, Route, TlsAction, UrlRewrite, ValueMatch, VirtualHost,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::backend::{Backend, WATCHDOG};
use support::client::{Client, Response};
use support::{
    Front, NameSpec, RouteSpec, Shape, TestProxy, World, certificate, free_port, service_port,
};

fn world(port: u16, routes: Vec<RouteSpec>, backends: &[(&str, &Backend)]) -> World {
    let mut world = World::default();
    world.listeners.push(Front::http(port, routes));
    for (name, backend) in backends {
        world.serve(name, &[backend.address]);
    }
    world
}

/// A proxy with one route of this shape to an endpoint that echoes.
fn echo(shape: impl Fn(&mut Route) + Send + Sync + 'static) -> (TestProxy, Backend, u16) {
    let (backend, port) = (Backend::echoing(), free_port());
    let routes = vec![RouteSpec::all("echo").with(shape)];
    let proxy = TestProxy::start(world(port, routes, &[("echo", &backend)]));
    (proxy, backend, port)
}

fn ask(port: u16, request: &str) -> Response {
    let mut client = Client::connect(port);
    client.send(request.replace('\n', "\r\n"));
    client.response()
}

/// All values of a header in a head, in order.
fn all<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

fn change(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> HeaderChange {
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    HeaderChange {
        remove: remove.iter().map(|name| (*name).into()).collect(),
        set: pairs(set),
        add: pairs(add),
    }
}

#[test]
fn request_headers_change_by_route_and_then_by_backend() {
    let (_proxy, _backend, port) = echo(|route| {
        route.filters.request =
            change(&["X-Gone"], &[("X-Set", "route"), ("x-new", "1")], &[("x-add", "route")]);
        let Action::Forward(backends) = &mut route.action else { panic!() };
        let request = change(&[], &[("x-set", "backend")], &[("X-Add", "backend")]);
        backends[0].filters = Some(Arc::new(Filters { request, ..Filters::default() }));
    });
    let response = ask(
        port,
        "GET /a?b HTTP/1.1\nHost: a\nx-gone: 1\nX-SET: 1\nX-Gone: 2\nx-add: old\nx-set: 2\n\n",
    );
    let head = response.text();
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\nhost: a\r\n"), "{head}");
    assert_eq!(all(head, "x-gone"), [""; 0]);
    assert_eq!(all(head, "x-set"), ["backend"]);
    assert_eq!(all(head, "x-new"), ["1"]);
    assert_eq!(all(head, "x-add"), ["old,route,backend"]);
    assert_eq!(all(head, "x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn response_headers_change_also_in_answers_of_our_own() {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.say(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Gone: 1\r\nx-set: 1\r\nx-add: old\r\n\
                 set-cookie: a=1\r\n\r\nhi",
            );
        }
    });
    let shape = |route: &mut Route| {
        route.filters.response = change(
            &["x-gone", "x-envoy-upstream-service-time"],
            &[("X-Set", "2"), ("server", "mine")],
            &[("X-Add", "new"), ("set-cookie", "b=2")],
        );
    };
    let port = free_port();
    let routes =
        vec![RouteSpec::all("up").with(shape), RouteSpec::to("", "/none", "none").with(shape)];
    let _proxy = TestProxy::start(world(port, routes, &[("up", &backend)]));
    let mut client = Client::connect(port);
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.text(), "hi");
        assert_eq!(all(&response.head, "x-gone"), [""; 0]);
        assert_eq!(all(&response.head, "x-envoy-upstream-service-time"), [""; 0]);
        assert_eq!(all(&response.head, "x-set"), ["2"]);
        assert_eq!(all(&response.head, "server"), ["mine"]);
        assert_eq!(all(&response.head, "x-add"), ["old,new"]);
        assert_eq!(all(&response.head, "set-cookie"), ["a=1", "b=2"]);
    }
    let refused = client.get("/none");
    assert_eq!((refused.status(), refused.text()), (503, "no healthy upstream"));
    assert_eq!(refused.header("x-set"), Some("2"));
    assert_eq!(client.get("/").text(), "hi", "the connection persists");
}

#[test]
fn hosts_and_paths_are_rewritten() {
    let rewrite = |kind: &'static str, to: &'static str, host: Option<&'static str>| {
        move |route: &mut Route| {
            let path = match kind {
                "full" => PathRewrite::Full(to.into()),
                _ => PathRewrite::Prefix(to.into()),
            };
            route.filters.rewrite = UrlRewrite { host: host.map(Into::into), path: Some(path) };
        }
    };
    let (backend, port) = (Backend::echoing(), free_port());
    let to = |prefix, shape| RouteSpec::to("", prefix, "echo").with(shape);
    let routes = vec![
        to("/prefix/one", rewrite("prefix", "/one", None)),
        to("/strip", rewrite("prefix", "/", Some("other.example:8080"))),
        RouteSpec::to("", "/full", "echo").with(rewrite("full", "/all", None)),
    ];
    let _proxy = TestProxy::start(world(port, routes, &[("echo", &backend)]));
    let cases = [
        ("/prefix/one/two?q=/prefix/one", "/one/two?q=/prefix/one", "a"),
        ("/prefix/one/", "/one/", "a"),
        ("/strip/x", "/x", "other.example:8080"),
        ("/strip", "/", "other.example:8080"),
        ("/full/x/y?z", "/all?z", "a"),
    ];
    let mut client = Client::connect(port);
    for (asked, wanted, host) in cases {
        let response = client.get(asked);
        let line = response.text().split("\r\n").next().unwrap();
        assert_eq!(line, format!("GET {wanted} HTTP/1.1"), "{asked}");
        assert_eq!(all(response.text(), "host"), [host], "{asked}");
    }
}

fn redirect(to: &'static [(&'static str, &'static str)]) -> impl Fn(&mut Route) + Send + Sync {
    move |route| {
        let get = |key| to.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        route.action = Action::Redirect(Redirect {
            scheme: get("scheme").map(Into::into),
            host: get("host").map(Into::into),
            port: get("port").map(|text| text.parse().unwrap()),
            path: get("full")
                .map(|path| PathRewrite::Full(path.into()))
                .or(get("prefix").map(|path| PathRewrite::Prefix(path.into()))),
            status: get("status").map_or(302, |text| text.parse().unwrap()),
        });
    }
}

#[test]
fn redirects_name_scheme_host_port_and_path() {
    let port = free_port();
    let to = |prefix, shape| RouteSpec::to("", prefix, "none").with(shape);
    let routes = vec![
        to("/host", redirect(&[("host", "b.example")])),
        RouteSpec::to("", "/scheme", "none")
            .with(redirect(&[("scheme", "https"), ("status", "301")])),
        RouteSpec::to("", "/port", "none").with(redirect(&[("port", "8443"), ("scheme", "https")])),
        RouteSpec::to("", "/80", "none").with(redirect(&[("port", "80"), ("status", "307")])),
        RouteSpec::to("", "/443", "none").with(redirect(&[("port", "443")])),
        RouteSpec::to("", "/prefix", "none")
            .with(redirect(&[("prefix", "/new/"), ("status", "308")])),
        RouteSpec::to("", "/full", "none").with(redirect(&[("full", "/new"), ("status", "303")])),
    ];
    let _proxy = TestProxy::start(world(port, routes, &[]));
    let listener = format!("http://a.example:{port}");
    let cases = [
        ("/host/x?y", 302, format!("http://b.example:{port}/host/x?y")),
        ("/scheme", 301, "https://a.example/scheme".to_owned()),
        ("/port/", 302, "https://a.example:8443/port/".to_owned()),
        ("/80", 307, "http://a.example/80".to_owned()),
        ("/443", 302, "http://a.example:443/443".to_owned()),
        ("/prefix/x?y", 308, format!("{listener}/new/x?y")),
        ("/full/x?y", 303, format!("{listener}/new?y")),
    ];
    let mut client = Client::connect(port);
    for (path, status, location) in cases {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.example:1234\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status(), response.header("location")), (status, Some(&*location)));
    }
    let none = ask(port, "GET /full HTTP/1.0\n\n");
    assert_eq!(none.status(), 400, "there is no host to redirect to");
}

fn cors(
    origins: &'static [&'static str],
    any: bool,
    credentials: bool,
) -> impl Fn(&mut Route) + Send + Sync {
    move |route| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        route.filters.cors = Some(Arc::new(Cors {
            origins: list(origins),
            credentials,
            methods: list(if any { &["*"] } else { &["GET", "OPTIONS"] }),
            headers: list(if any { &["*"] } else { &["x-a", "x-b"] }),
            expose: list(&["x-c", "x-d"]),
            max_age: 5,
        }));
    }
}

#[test]
fn preflights_are_answered_and_responses_say_who_may_read_them() {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nvary: Accept\r\n\r\nhi");
        }
    });
    let port = free_port();
    let routes = vec![
        RouteSpec::all("up").with(cors(&["https://www.foo.com", "https://*.bar.com"], false, true)),
        RouteSpec::to("", "/any", "up").with(cors(&["*"], true, true)),
    ];
    let proxy = TestProxy::start(world(port, routes, &[("up", &backend)]));
    let preflight = |path: &str, origin: &str| {
        ask(
            port,
            &format!(
                "OPTIONS {path} HTTP/1.1\nHost: a\nOrigin: {origin}\n\
                 Access-Control-Request-Method: PUT\nAccess-Control-Request-Headers: x-q, x-r\n\n"
            ),
        )
    };
    let says = |response: &Response| {
        let names =
            ["allow-origin", "allow-credentials", "allow-methods", "allow-headers", "max-age"];
        names.map(|name| {
            response.header(&format!("access-control-{name}")).unwrap_or("-").to_owned()
        })
    };
    for origin in ["https://www.foo.com", "https://a.b.bar.com"] {
        let response = preflight("/", origin);
        assert_eq!(response.status(), 204);
        assert_eq!(says(&response), [origin, "true", "GET, OPTIONS", "x-a, x-b", "5"]);
        assert_eq!(response.header("vary"), Some("Origin"));
    }
    let response = preflight("/any", "http://x:81");
    assert_eq!(says(&response), ["http://x:81", "true", "PUT", "x-q, x-r", "5"]);
    let response = preflight("/", "https://evil.com");
    assert_eq!(says(&response), ["-"; 5]);
    assert_eq!(proxy.stats().upstream_connects, 0, "no preflight reaches an endpoint");

    let get = |origin: &str| ask(port, &format!("GET / HTTP/1.1\nHost: a\nOrigin: {origin}\n\n"));
    let response = get("https://www.foo.com");
    assert_eq!(response.text(), "hi");
    assert_eq!(says(&response), ["https://www.foo.com", "true", "-", "-", "-"]);
    assert_eq!(response.header("access-control-expose-headers"), Some("x-c, x-d"));
    assert_eq!(response.header("vary"), Some("Accept,Origin"));
    assert_eq!(says(&get("https://www.foo.com:8443")), ["-"; 5]);
    let plain = ask(port, "OPTIONS / HTTP/1.1\nHost: a\nOrigin: https://www.foo.com\n\n");
    assert_eq!(plain.text(), "hi", "not a preflight");
}

#[test]
fn conditions_choose_among_routes_of_a_path() {
    let names = ["method", "header", "query", "else"];
    let backends = names.map(Backend::answering);
    let port = free_port();
    let shape: Shape<Listener> = Arc::new(|listener| {
        let to = |name: &str, conditions: Option<Conditions>| pilus::api::route::Candidate {
            conditions: conditions.map(Arc::new),
            route: Arc::new(Route::new(Action::Forward(vec![To::new(service_port(name), 1)]))),
        };
        let exact = |value: &str| ValueMatch::Exact(value.into());
        let mut host = VirtualHost::default();
        let candidates = vec![
            to("method", Some(Conditions { method: Some("PUT".into()), ..Conditions::default() })),
            to(
                "header",
                Some(Conditions {
                    headers: vec![("x-a".into(), exact("1,2"))],
                    ..Conditions::default()
                }),
            ),
            to(
                "query",
                Some(Conditions {
                    query: vec![("q".into(), exact("a b"))],
                    ..Conditions::default()
                }),
            ),
            to("else", None),
        ];
        host.prefix.insert("".into(), candidates);
        listener.hosts.any = None;
        listener.hosts.suffix.insert("example".into(), Arc::new(host));
    });
    let mut world = world(port, Vec::new(), &[]);
    world.listeners[0].shape = Some(shape);
    for (name, backend) in names.iter().zip(&backends) {
        world.serve(name, &[backend.address]);
    }
    let proxy = TestProxy::start(world);
    let cases = [
        ("PUT / HTTP/1.1\nHost: a.b.Example:81\nContent-Length: 0\n\n", "method"),
        ("GET / HTTP/1.1\nHost: a.example\nX-A: 1\nx-a: 2\n\n", "header"),
        ("GET /?q=a%20b HTTP/1.1\nHost: a.example\nX-A: 1\n\n", "query"),
        ("GET /?q=a&q=a%20b HTTP/1.1\nHost: a.example\n\n", "else"),
    ];
    for (request, wanted) in cases {
        assert_eq!(ask(port, request).text(), wanted);
    }
    for host in ["example", "a.other"] {
        assert_eq!(ask(port, &format!("GET / HTTP/1.1\nHost: {host}\n\n")).status(), 404);
    }
    assert_eq!(proxy.stats().no_route, 2);
}

#[test]
fn a_request_for_another_listener_than_the_handshake_is_misdirected() {
    let backend = Backend::answering("hi");
    let port = free_port();
    let (key, der) = certificate("a.example");
    let mut world = world(
        port,
        vec![RouteSpec::to("a.example", "", "up"), RouteSpec::to("b.example", "", "up")],
        &[("up", &backend)],
    );
    let front = &mut world.listeners[0];
    front.tls = true;
    front.names = vec![("a.example".to_owned(), NameSpec::Certificate(key))];
    let scopes = |of_name: u32, of_host: u32| -> Shape<Listener> {
        Arc::new(move |listener| {
            let Some(TlsAction::Terminate(to)) = listener.tls.exact.get_mut("a.example") else {
                panic!()
            };
            Arc::get_mut(to).unwrap().scope = of_name;
            Arc::get_mut(listener.hosts.exact.get_mut("a.example").unwrap()).unwrap().scope =
                of_host;
            Arc::get_mut(listener.hosts.exact.get_mut("b.example").unwrap()).unwrap().scope = 7;
        })
    };
    front.shape = Some(scopes(3, 3));
    let proxy = TestProxy::start(world.clone());

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut client = Client { stream: BufReader::new(StreamOwned::new(connection, stream)) };
    let mut ask = |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response().status()
    };
    assert_eq!([ask("a.example"), ask("b.example"), ask("c.example")], [200, 421, 404]);
    // The numbers of the listeners may change while the connection lives.
    world.listeners[0].shape = Some(scopes(4, 4));
    proxy.update(world.clone());
    assert_eq!([ask("a.example"), ask("b.example")], [200, 421]);
    world.listeners[0].shape = Some(scopes(7, 4));
    proxy.update(world.clone());
    assert_eq!([ask("a.example"), ask("b.example")], [421, 200]);
    assert_eq!(proxy.stats().misdirected, 3);
    // Nothing is terminated for that name any more.
    world.listeners[0].shape = None;
    world.listeners[0].names.clear();
    proxy.update(world);
    assert_eq!(ask("a.example"), 421);
}
