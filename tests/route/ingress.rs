//! Ingress on plain HTTP, by the IDs of the specification.
use std::sync::Arc;
use std::time::Duration;

use pilus::api::config::Config;
use pilus::api::meta::Kind;
use pilus::api::object::{
    ExternalTrafficPolicy, IngressBackend, PortProtocol, ServiceType, TargetPort,
};
use pilus::api::objects::Objects;
use pilus::api::route::{Action, PathMatch};
use pilus::server::route::check;

use crate::build::*;

#[test]
fn ing_01_class_ownership() {
    let annotation = "kubernetes.io/ingress.class";
    let ours = class("lab", "pilus.dev/ingress-controller", false);
    let ciliums = class("cilium", "cilium.io/ingress-controller", false);
    let nginx = class("nginx", "k8s.io/ingress-nginx", true);
    let stolen = class("pilus", "k8s.io/ingress-nginx", false);
    let default = class("lab", "pilus.dev/ingress-controller", true);
    let web = || ingress("default/web").rule("*", &[("/", 'P', "a:80")]);
    for (classes, ingress, owned) in [
        (vec![&ours, &nginx], web().class(Some("lab")), true),
        (vec![&ciliums], web().class(Some("cilium")), true),
        (vec![&nginx], web().class(Some("nginx")), false),
        (vec![], web().class(Some("nginx")), false),
        (vec![], web().class(Some("pilus")), true),
        (vec![], web().class(Some("cilium")), true),
        (vec![&stolen], web().class(Some("pilus")), false),
        (vec![&ours], web().class(None), false),
        (vec![&nginx], web().class(None), false),
        (vec![&default], web().class(None), true),
        (vec![&default], web().class(Some("")), true),
        (vec![&ours, &nginx], web().class(Some("nginx")).note(annotation, "lab"), true),
        (vec![&ours, &nginx], web().class(Some("lab")).note(annotation, "nginx"), false),
    ] {
        let described = format!("{:?} {:?}", ingress.0.class, ingress.0.meta.annotations);
        // A foreign Ingress may be as broken as it likes: nothing is said about it.
        let mut objects = objects(&[ingress.note("force-https", "maybe")]);
        for class in &classes {
            put(&mut objects.ingress_classes, (*class).clone());
        }
        let mut router = Router::new(Config::default());
        router.objects(objects);
        let key = key(Kind::Ingress, "default/web");
        assert_eq!(router.statuses.by_object.contains_key(&key), owned, "{described}");
        assert_eq!(!router.problems().is_empty(), owned, "{described}");
        assert_eq!(router.services().is_empty(), !owned, "{described}");
    }
    let mut router = Router::new(Config { ingress_default_class: true, ..Config::default() });
    router.objects(objects(&[web().class(None)]));
    assert_eq!(router.services(), ["default/pilus-ingress-web"]);
}

#[test]
fn ing_02_shared_and_dedicated_services() {
    let web = || ingress("default/web").rule("*", &[("/", 'P', "a:80")]);
    for (config, mode, services) in [
        (Config::default(), None, "default/pilus-ingress-web"),
        (Config::default(), Some("shared"), "kube-system/pilus-ingress"),
        (shared(), None, "kube-system/pilus-ingress"),
        (shared(), Some("dedicated"), "default/pilus-ingress-web"),
        (
            Config { name_prefix: "cilium".into(), ..shared() },
            Some("dedicated"),
            "default/cilium-ingress-web",
        ),
    ] {
        for key in ["ingress.cilium.io/loadbalancer-mode", "io.cilium.ingress/loadbalancer-mode"] {
            let ingress = mode.map_or_else(web, |mode| web().note(key, mode));
            let mut router = Router::new(config.clone());
            router.objects(objects(&[ingress]));
            assert_eq!(router.services(), [services]);
            assert_eq!(router.ask_at(services, 80, "x", "/"), "a:80");
            router.complains(&[]);
            let service = router.generated(services).unwrap();
            assert_eq!(service.kind, ServiceType::LoadBalancer);
            assert_eq!(service.meta.labels.get("cilium.io/ingress").map(|v| &**v), Some("true"));
            let proxy = "service.kubernetes.io/service-proxy-name";
            assert_eq!(service.meta.labels.get(proxy).map(|v| &**v), Some("pilus"));
            assert!(service.selector.is_none());
            assert!(service.ports.iter().all(|port| port.node_port == 0));
        }
    }
    let mut router = Router::new(Config::default());
    router.objects(objects(&[]));
    assert!(router.services().is_empty(), "the shared Service exists only if it is used");
    assert_eq!(router.sent.0, 1, "an empty table is sent, so that the others know");
}

#[test]
fn ing_02_ports_as_needed() {
    let (chain, key) = certificate(&["t.com"], 2025, 2030);
    let plain = ingress("default/web").rule("*", &[("/", 'P', "a:80")]);
    let tls = ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "s");
    let pass =
        ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).note("tls-passthrough", "true");
    for (ingress, ports) in [(plain, vec![80]), (tls, vec![80, 443]), (pass, vec![443])] {
        let mut objects = objects(&[ingress]);
        put(&mut objects.secrets, secret("default/s", &chain, &key));
        let mut router = Router::new(Config::default());
        router.objects(objects);
        router.complains(&[]);
        let service = router.generated("default/pilus-ingress-web").unwrap();
        assert_eq!(service.ports.iter().map(|port| port.port).collect::<Vec<_>>(), ports);
        let listeners: Vec<u16> = router.table.listeners.iter().map(|l| l.port.0).collect();
        assert_eq!(listeners, ports);
        let status = &router.statuses.by_object[&key_of("default/web")];
        assert_eq!(status.ports, ports);
    }
}

fn key_of(text: &str) -> pilus::api::meta::ObjectKey {
    key(Kind::Ingress, text)
}

#[test]
fn ing_03_status_is_copied_from_the_service() {
    let mut router = Router::shared(&[
        ingress("default/web").rule("a.com", &[("/", 'P', "a:80")]),
        ingress("default/own")
            .rule("*", &[("/", 'P', "a:80")])
            .note("loadbalancer-mode", "dedicated"),
    ]);
    let address = |router: &Router, text: &str| {
        let status = &router.statuses.by_object[&key_of(text)];
        let ips = status.load_balancer.iter().flatten();
        ips.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(address(&router, "default/web"), "");
    router.assign("kube-system/pilus-ingress", &["192.168.10.211", "fd00::211"]);
    assert_eq!(address(&router, "default/web"), "192.168.10.211 fd00::211");
    assert_eq!(address(&router, "default/own"), "");
    assert_eq!(router.sent, (1, 2), "addresses are no reason to send routes");
    router.assign("default/pilus-ingress-own", &["192.168.10.212"]);
    assert_eq!(address(&router, "default/web"), "");
    assert_eq!(address(&router, "default/own"), "192.168.10.212");
}

#[test]
fn ing_04_ing_05_annotations_shape_the_dedicated_service() {
    let web = ingress("default/web")
        .rule("*", &[("/", 'P', "a:80")])
        .note("loadbalancer-mode", "dedicated")
        .note("loadbalancer-class", "io.cilium/l2-announcer")
        .note("service-external-traffic-policy", "Local")
        .note("host-listener-port", "8081")
        .note("lbipam.cilium.io/ips", "192.168.10.215")
        .note("service.beta.kubernetes.io/x", "1")
        .note("service.kubernetes.io/y", "2")
        .note("cloud.google.com/z", "3")
        .note("nodeipam.cilium.io/w", "4")
        .note("example.com/not", "5");
    let mut web = web;
    web.0.meta.labels = labels(&[("lbipam.cilium.io/pool", "p"), ("team", "t")]);
    let router = Router::shared(&[web]);
    router.complains(&[]);
    let service = router.generated("default/pilus-ingress-web").unwrap();
    assert_eq!(service.load_balancer_class.as_deref(), Some("io.cilium/l2-announcer"));
    assert_eq!(service.external_traffic_policy, ExternalTrafficPolicy::Local);
    let keys: Vec<&str> = service.meta.annotations.keys().map(|key| &**key).collect();
    assert_eq!(
        keys,
        [
            "cloud.google.com/z",
            "lbipam.cilium.io/ips",
            "nodeipam.cilium.io/w",
            "service.beta.kubernetes.io/x",
            "service.kubernetes.io/y"
        ]
    );
    let keys: Vec<&str> = service.meta.labels.keys().map(|key| &**key).collect();
    assert_eq!(
        keys,
        ["cilium.io/ingress", "lbipam.cilium.io/pool", "service.kubernetes.io/service-proxy-name"]
    );
    let listener = router.listener("default/pilus-ingress-web", 80).unwrap();
    assert_eq!(listener.host_port.map(|port| port.0), Some(8081), "ING-16");
    for part in [
        r#""kind":"Service""#,
        r#""lbipam.cilium.io/ips":"192.168.10.215""#,
        r#""loadBalancerClass":"io.cilium/l2-announcer""#,
        r#""externalTrafficPolicy":"Local""#,
        r#""ownerReferences":[{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","name":"web","uid":"u"}]"#,
        r#""ports":[{"name":"http","port":80,"protocol":"TCP","targetPort":80}]"#,
    ] {
        assert!(service.meta.json.contains(part), "{part} in {}", service.meta.json);
    }
}

#[test]
fn ing_04_bad_annotations_are_named_with_what_is_allowed() {
    let web = |key: &str, value: &str| {
        vec![
            ingress("default/web")
                .rule("*", &[("/", 'P', "a:80")])
                .note("loadbalancer-mode", "dedicated")
                .note(key, value),
        ]
    };
    for (key, value, complaint) in [
        ("loadbalancer-mode", "share", "shared or dedicated; the default, shared, is in effect"),
        ("service-type", "ClusterIP", "LoadBalancer or NodePort"),
        ("service-external-traffic-policy", "local", "Cluster or Local"),
        ("insecure-node-port", "0", "a port number from 1 to 65535"),
        ("secure-node-port", "70000", "a port number from 1 to 65535"),
        ("host-listener-port", "http", "a port number from 1 to 65535"),
        ("tls-passthrough", "yes", "enabled, disabled, true or false; not passed through"),
        ("force-https", "yes", "enabled, disabled, true or false; treated as enabled"),
        ("request-timeout", "30", "a duration such as 30s"),
        ("request-timeout", "-1s", "a duration such as 30s"),
    ] {
        let router = Router::shared(&web(key, value));
        let field = format!("E default/web metadata.annotations.ingress.cilium.io/{key}: ");
        let start = format!("{field}..{value:?}..{complaint}");
        let all = router.problems();
        assert_eq!(
            all.iter().filter(|text| text.starts_with(&field)).count(),
            1,
            "{start} {all:?}"
        );
        let text = all.iter().find(|text| text.starts_with(&field)).unwrap();
        assert!(text.contains(&format!("{value:?}")) && text.contains(complaint), "{text}");
    }
    Router::shared(&web("force-http", "true"))
        .complains(&["W default/web metadata.annotations.ingress.cilium.io/force-http: ..did you mean \"force-https\"?"]);
    Router::shared(&web("service-type", "NodePort"))
        .complains(&["W ..service-type: ..no effect: a NodePort Service gets no address"]);
    Router::shared(&web("insecure-node-port", "30080"))
        .complains(&["W ..insecure-node-port: ..node ports are not served"]);
    Router::shared(&[ingress("default/web")
        .rule("*", &[("/", 'P', "a:80")])
        .note("lbipam.cilium.io/ips", "10.0.0.1")])
    .complains(&["W default/web metadata.annotations.lbipam.cilium.io/ips: ..shares its address"]);
}

#[test]
fn ing_06_ing_07_path_types_and_their_precedence() {
    let paths = [
        ("/exact", 'E', "exact"),
        ("/", 'P', "root"),
        ("/foo", 'P', "foo"),
        ("/foo/bar/", 'P', "foobar"),
        ("/foo/bar/baz", 'E', "baz"),
        ("/impl", 'I', "impl"),
        ("/impl.+", 'I', "implplus"),
        ("/v[0-9]+/x", 'I', "version"),
        ("/a|/b", 'I', "either"),
        ("/exact.*", 'I', "shadow"),
        ("/foo/q", 'I', "q"),
    ];
    let rows = [
        ("/exact", "exact"),
        ("/exact/", "shadow"),
        ("/exacter", "shadow"),
        ("/", "root"),
        ("/else", "root"),
        ("/foo", "foo"),
        ("/foo/", "foo"),
        ("/foobar", "root"),
        ("/foo/x/y/z/w", "foo"),
        ("/foo/bar", "foobar"),
        ("/foo/bar/", "foobar"),
        ("/foo/barbaz", "foo"),
        ("/foo/bar/baz", "baz"),
        ("/foo/bar/baz/", "foobar"),
        ("/foo//bar", "foo"),
        ("//foo", "root"),
        ("/impl", "impl"),
        ("/implx", "implplus"),
        ("/impl/x", "implplus"),
        ("/v12/x", "version"),
        ("/v12/xy", "root"),
        ("/u/v12/x", "root"),
        ("/a", "either"),
        ("/b", "either"),
        ("/ab", "root"),
        ("/foo/q", "q"),
        ("/foo%2Fbar", "root"),
        ("/%66oo", "root"),
        ("/FOO", "root"),
    ];
    let targets: Vec<(&str, char, String)> =
        paths.iter().map(|&(path, kind, name)| (path, kind, format!("{name}:80"))).collect();
    let targets: Vec<Path<'_>> = targets.iter().map(|(p, k, t)| (*p, *k, &**t)).collect();
    let mut objects = objects(&[ingress("default/web").rule("p.com", &targets)]);
    for (_, _, name) in paths {
        put(&mut objects.services, service(&format!("default/{name}"), &[("", 80)]));
    }
    let mut router = Router::new(shared());
    router.objects(objects);
    router.complains(&[]);
    for (path, target) in rows {
        assert_eq!(router.ask(80, "p.com", path), format!("{target}:80"), "{path}");
    }
}

#[test]
fn ing_07_a_longer_pattern_shadows_a_shorter_one() {
    let router = Router::shared(&[ingress("default/web")
        .rule("*", &[("/impl", 'I', "a:80"), ("/impl.*", 'I', "b:80"), ("/", 'P', "c:80")])]);
    for (path, target) in [("/impl", "b:80"), ("/implx", "b:80"), ("/imp", "c:80")] {
        assert_eq!(router.ask(80, "x", path), target, "{path}");
    }
    let listener = router.listener("kube-system/pilus-ingress", 80).unwrap();
    let host = listener.hosts.any.as_ref().unwrap();
    let (by, route) = host.find_match("/impl", &Get).unwrap();
    assert_eq!(by, PathMatch::Regex("/impl.*"));
    assert_eq!(route.origins, [(key_of("default/web"), "spec.rules[0].http.paths[1]".to_owned())]);
    assert_eq!(host.find_match("/x/y", &Get).unwrap().0, PathMatch::Prefix(""));
}

#[test]
fn a_bad_regex_is_left_out_and_named_and_the_rest_serves() {
    let router = Router::shared(&[ingress("default/web").rule(
        "*",
        &[("/a(", 'I', "a:80"), ("/a)(b", 'I', "a:80"), ("/", 'P', "b:80"), ("/", 'I', "c:80")],
    )]);
    assert_eq!(router.ask(80, "x", "/a("), "b:80");
    assert_eq!(router.ask(80, "x", "/"), "c:80");
    router.complains(&[
        "E default/web spec.rules[0].http.paths[0].path: \"/a(\" is not a regular expression: ",
        "E default/web spec.rules[0].http.paths[1].path: \"/a)(b\" is not a regular expression: ",
        "W default/web spec.rules[0].http.paths[3].path: ..use pathType: Prefix",
    ]);
}

#[test]
fn ing_08_hosts() {
    let router = Router::shared(&[ingress("default/web")
        .rule("foo.com", &[("/", 'P', "a:80")])
        .rule("*.foo.com", &[("/x", 'P', "b:80")])
        .rule("*", &[("/", 'P', "c:80")])]);
    router.complains(&[]);
    for (host, path, target) in [
        ("foo.com", "/", "a:80"),
        ("a.foo.com", "/x", "b:80"),
        ("a.foo.com", "/", "404"),
        ("a.b.foo.com", "/x", "c:80"),
        ("bar.com", "/", "c:80"),
        ("oo.com", "/", "c:80"),
        ("10.0.0.1", "/", "c:80"),
        ("", "/", "c:80"),
    ] {
        assert_eq!(router.ask(80, host, path), target, "{host}{path}");
    }
}

#[test]
fn ing_09_same_host_and_path_in_several_ingresses() {
    let rule = |text: &str, target: &str| ingress(text).rule("m.com", &[("/", 'P', target)]);
    let router = Router::shared(&[
        rule("default/one", "a:80").note("request-timeout", "5s"),
        rule("default/two", "b:80").note("request-timeout", "3s"),
        rule("other/three", "a:80"),
    ]);
    assert_eq!(router.ask(80, "m.com", "/"), "a:80+b:80+other/a:80");
    router.complains(&[
        "W default/one spec.rules[0].http.paths[0]: host \"m.com\" and path \"/\" (Prefix) is also in Ingress default/two (spec.rules[0].http.paths[0]) and 1 more: requests are spread evenly",
        "W other/three ..is also in Ingress default/one",
        "W default/two ..is also in Ingress default/one",
    ]);
    let listener = router.listener("kube-system/pilus-ingress", 80).unwrap();
    let route = listener.hosts.find("m.com").unwrap().find("/", &Get).unwrap();
    assert_eq!(route.request_timeout, Some(Duration::from_secs(3)));
    assert_eq!(route.origins.len(), 3);
    // The same path with another type is another path, and dedicated Ingresses do not share.
    let router = Router::shared(&[
        rule("default/one", "a:80"),
        ingress("default/two").rule("m.com", &[("/", 'E', "b:80")]),
        rule("default/three", "c:80").note("loadbalancer-mode", "dedicated"),
    ]);
    router.complains(&[]);
    assert_eq!(router.ask(80, "m.com", "/"), "b:80");
}

#[test]
fn ing_09_within_one_ingress_and_with_a_broken_backend() {
    let router = Router::shared(&[ingress("default/web")
        .rule("*", &[("/x", 'P', "a:80"), ("/x/", 'P', "a:80"), ("/y", 'E', "a:80")])
        .rule("*", &[("/y", 'E', "gone:80")])]);
    assert_eq!(router.ask(80, "h", "/x"), "a:80*2");
    assert_eq!(router.ask(80, "h", "/y"), "a:80", "what can be served is served");
    router.complains(&[
        "W ..spec.rules[0].http.paths[0]: host \"*\" and path \"/x\" (Prefix) is also in spec.rules[0].http.paths[1]: requests are spread",
        "W ..spec.rules[0].http.paths[1]: ..is also in spec.rules[0].http.paths[0]",
        "W ..spec.rules[0].http.paths[2]: ..this one is in effect",
        "W ..spec.rules[1].http.paths[0]: ..the other is in effect",
        "E ..spec.rules[1].http.paths[0].backend.service.name: ..default/gone does not exist",
    ]);
}

#[test]
fn default_backend() {
    let router = Router::shared(&[ingress("default/web")
        .default_backend("c:http")
        .rule("h.com", &[("/x", 'P', "a:80")])
        .rule("*", &[("/y", 'P', "b:80")])]);
    router.complains(&[]);
    for (host, path, target) in [
        ("h.com", "/x", "a:80"),
        // The table of examples in the documentation of Ingress: no path matches, so the default backend has it.
        ("h.com", "/z", "c:80"),
        ("other.com", "/y", "b:80"),
        ("other.com", "/z", "c:80"),
    ] {
        assert_eq!(router.ask(80, host, path), target, "{host}{path}");
    }
    // It is the default of its own Ingress; a rule for / of a host is no matter of it.
    let router = Router::shared(&[
        ingress("default/one").default_backend("a:80").rule("h.com", &[("/x", 'P', "b:80")]),
        ingress("default/two")
            .rule("h.com", &[("/", 'P', "c:80")])
            .rule("i.com", &[("/x", 'E', "c:80")]),
    ]);
    router.complains(&[]);
    for (host, path, target) in [
        ("h.com", "/x", "b:80"),
        ("h.com", "/z", "c:80"),
        ("i.com", "/z", "404"),
        ("j.com", "/z", "a:80"),
    ] {
        assert_eq!(router.ask(80, host, path), target, "{host}{path}");
    }
    let router = Router::shared(&[
        ingress("default/one").default_backend("a:80"),
        ingress("default/two").rule("*", &[("/", 'P', "b:80")]),
    ]);
    assert_eq!(router.ask(80, "x", "/"), "b:80");
    router.complains(&["W default/one spec.defaultBackend: ..Ingress default/two has a rule"]);
}

#[test]
fn ing_14_request_timeout() {
    for (text, timeout) in [("1m30s", Some(90)), ("0s", None)] {
        let router = Router::shared(&[ingress("default/web")
            .rule("*", &[("/", 'P', "a:80")])
            .note("request-timeout", text)]);
        router.complains(&[]);
        let listener = router.listener("kube-system/pilus-ingress", 80).unwrap();
        let route = listener.hosts.find("x").unwrap().find("/", &Get).unwrap();
        assert_eq!(route.request_timeout, timeout.map(Duration::from_secs));
    }
}

#[test]
fn ing_15_dangling_references() {
    let at = "spec.rules[0].http.paths[0].backend";
    let mut udp = service("default/udp", &[("dns", 53)]);
    udp.ports[0].protocol = PortProtocol::Udp;
    let mut external = service("default/ext", &[("http", 80)]);
    external.kind = ServiceType::ExternalName;
    let mut named = service("default/named", &[("http", 8080), ("admin", 9000)]);
    named.ports[0].target = TargetPort::Name("web".into());
    for (target, answer, complaint) in [
        (
            "wbe:80",
            "503",
            format!(
                "E default/web {at}.service.name: Service default/wbe does not exist (did you mean \"web\"?); requests get 503"
            ),
        ),
        (
            "zzzzzz:80",
            "503",
            format!("E default/web {at}.service.name: Service default/zzzzzz does not exist; "),
        ),
        (
            "web:81",
            "503",
            format!(
                "E default/web {at}.service.port.number: Service default/web has no TCP port 81 (it has 80)"
            ),
        ),
        (
            "web:htp",
            "503",
            format!(
                "E default/web {at}.service.port.name: ..no TCP port named \"htp\" (did you mean \"http\"?)"
            ),
        ),
        ("udp:53", "503", format!("E default/web {at}.service.port.number: ..(it has none)")),
        ("ext:80", "503", format!("E default/web {at}.service.name: ..ExternalName")),
        ("named:http", "named:8080", String::new()),
        ("named:9000", "named:9000", String::new()),
    ] {
        let mut objects = objects(&[ingress("default/web").rule("*", &[("/", 'P', target)])]);
        for service in [&udp, &external, &named] {
            put(&mut objects.services, service.clone());
        }
        let mut router = Router::new(shared());
        router.objects(objects.clone());
        assert_eq!(router.ask(80, "x", "/"), answer, "{target}");
        if complaint.is_empty() {
            router.complains(&[]);
        } else {
            router.complains(&[&complaint]);
        }
        assert_eq!(check(&objects, &shared(), UNIX.as_secs()), router.statuses.problems);
    }
    let mut web = ingress("default/web").rule("*", &[("/", 'P', "a:80")]);
    web.0.rules[0].paths[0].backend = IngressBackend::Resource("StorageBucket x".to_owned());
    let router = Router::shared(&[web]);
    assert_eq!(router.ask(80, "x", "/"), "500", "fail closed");
    router.complains(&[
        "E default/web spec.rules[0].http.paths[0].backend.resource: ..StorageBucket x",
    ]);
}

#[test]
fn all_nodes_come_to_the_same_table_and_unchanged_work_is_not_done_again() {
    let many: Vec<Build> = (0..50)
        .map(|i| {
            ingress(&format!("default/i{i}")).rule(
                &format!("h{i}.com"),
                &[("/", 'P', "a:80"), (&format!("/r{i}.*"), 'I', "b:80"), ("/x.*", 'I', "c:80")],
            )
        })
        .collect();
    let forward = Router::shared(&many);
    let backward = Router::shared(&many.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(forward.table.listeners, backward.table.listeners);
    let mut router = forward;
    assert_eq!(router.server.work().regexes, 51);
    let before = Arc::clone(&router.table);
    let objects: Objects = objects(&many);
    router.objects(objects.clone());
    assert_eq!(router.sent, (1, 1), "equal objects, nothing to send");
    assert_eq!(router.server.work().regexes, 51);
    let mut changed = objects;
    let more = ingress("default/i1").rule("h1.com", &[("/n.*", 'I', "a:80")]);
    put(&mut changed.ingresses, more.0);
    router.objects(changed);
    assert_eq!(router.server.work().regexes, 52);
    assert_eq!(router.sent.0, 2);
    assert!(router.table.generation > before.generation);
    let own = many[0].clone().note("loadbalancer-mode", "dedicated");
    let mut two = Router::shared(&[own.clone(), many[1].clone()]);
    let dedicated = Arc::clone(two.listener("default/pilus-ingress-i0", 80).unwrap());
    two.objects(crate::build::objects(&[own, many[2].clone()]));
    let after = two.listener("default/pilus-ingress-i0", 80).unwrap();
    assert!(Arc::ptr_eq(&dedicated, after), "an unchanged listener stays the same one");
    assert!(matches!(
        after.hosts.find("h0.com").unwrap().find("/", &Get).unwrap().action,
        Action::Forward(_)
    ));
}
