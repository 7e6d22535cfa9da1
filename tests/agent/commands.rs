//! What the commands print about a running agent, and their exit codes.
use pilus::proto::value::{Value, parse_yaml, split_documents};

use crate::backend::Backend;
use crate::support::{Agent, CLASS, POOL, ingress, pair, secret, service, wait_until};

/// A host of each kind: right, with TLS, and wrong in four ways.
fn agent(name: &str, backend: &Backend) -> Agent {
    let mut agent = Agent::new(name);
    let tls = pair("tls.test");
    let paths = [("/api", "web"), ("/", "web")];
    let pattern = ingress("regex", "regex.test", &[("/a(", "web")], "");
    let parts = [
        POOL.to_owned(),
        service("web", backend.address),
        ingress("healthy", "healthy.test", &paths, ""),
        secret("tls", &tls.certificate, &tls.key),
        ingress("tls", "tls.test", &[("/", "web")], "tls"),
        ingress("secretless", "secretless.test", &[("/", "web")], "nope"),
        ingress("dangling", "dangling.test", &[("/", "wbe")], ""),
        pattern.replace("Prefix", "ImplementationSpecific"),
    ];
    agent.write("base.yaml", &format!("{CLASS}{}", parts.join("\n---\n")));
    agent.start();
    agent.await_status("healthy.test", "/", 200);
    // It is told when it is certain that it stays.
    wait_until("an address", || agent.run(&["get", "ing"]).out.contains("192.0.2.1"));
    agent
}

/// Every one of these texts is in what a command prints.
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

fn string<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    value.path(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path:?} in {value:?}"))
}

/// `scheme host path`, the exit code, and what must be said.
const EXPLAINED: &[(&str, &str, &str, i32, &[&str])] = &[
    (
        "http",
        "healthy.test",
        "/api/x",
        0,
        &[
            "--no-bpf: ordinary sockets, nothing is announced",
            "HTTP port 80 of Service kube-system/pilus-ingress",
            "the very name; it wins over wildcards and *",
            "PathPrefix /api",
            "wins over PathPrefix /",
            "Ingress default/healthy",
            "active (Pod default/web)",
            "=> forwarded, round robin over 1 endpoint",
        ],
    ),
    ("https", "tls.test", "/", 0, &["Secret default/tls, valid until", "=> forwarded"]),
    ("http", "tls.test", "/", 0, &["=> 301 to https on port HTTPS", "force-https is on"]),
    (
        "https",
        "secretless.test",
        "/",
        1,
        &[
            "handshake refused: Secret default/nope does not exist",
            "=> the TLS handshake is refused: no certificate for this name",
        ],
    ),
    (
        "http",
        "dangling.test",
        "/",
        1,
        &["=> 503: Service default/wbe does not exist (did you mean \"web\"?)"],
    ),
    (
        "http",
        "regex.test",
        "/",
        1,
        &[
            "=> 404: no Ingress rule in effect has this host; left out, see `pilus status`: default/regex",
        ],
    ),
];

#[test]
fn explain_says_what_happens_and_it_does() {
    let backend = Backend::answering("web");
    let agent = agent("explain", &backend);
    let https = agent.https.to_string();
    for (scheme, host, path, code, parts) in EXPLAINED {
        // The node's port and the virtual one lead to the same.
        let port = if *scheme == "https" { agent.https } else { agent.http };
        for url in [format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{port}{path}")] {
            let printed = agent.run(&["explain", &url]);
            assert_eq!((printed.code, &*printed.err), (*code, ""), "{url}: {}", printed.out);
            let parts: Vec<String> = parts.iter().map(|it| it.replace("HTTPS", &https)).collect();
            assert_contains(&printed.out, &parts.iter().map(|it| &**it).collect::<Vec<_>>());
            assert_contains(&printed.out, &[&format!("every address of this node, port {port}\n")]);
        }
    }
    // The same, asked by requests.
    assert_eq!(agent.get("healthy.test", "/api/x").text(), "web");
    assert_eq!(agent.get("dangling.test", "/").status(), 503);
    assert_eq!(agent.get("regex.test", "/").status(), 404);
    assert!(agent.certificate("tls.test").is_ok());
    assert!(agent.certificate("secretless.test").is_err());
    let redirect = agent.get("tls.test", "/x?y=z");
    let location = format!("https://tls.test:{https}/x?y=z");
    assert_eq!((redirect.status(), redirect.header("location")), (301, Some(&*location)));

    let json = agent.run(&["explain", "http://dangling.test/", "-o", "json"]);
    let json = pilus::proto::value::parse_json(&json.out).unwrap();
    assert_eq!(string(&json, &["kind"]), "Explanation");
    assert_eq!(json.path(&["outcome", "status"]).and_then(Value::as_int), Some(503));
    let unserved = agent.run(&["explain", &format!("http://healthy.test:{}/", agent.http + 1)]);
    assert_eq!(unserved.code, 1);
    assert_contains(&unserved.out, &["=> nothing is served on this port"]);
}

#[test]
fn get_prints_what_kubectl_prints() {
    let backend = Backend::answering("web");
    let agent = agent("get", &backend);
    let table = agent.good(&["get", "ing"]);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"]);
    assert_eq!(rows[2][..5], ["healthy", "pilus", "healthy.test", "192.0.2.1", "80"]);
    assert_eq!(rows[4][..6], ["tls", "pilus", "tls.test", "192.0.2.1", "80,", "443"]);
    assert_eq!(rows.len(), 5);
    let wide = agent.good(&["get", "svc", "web", "-o", "wide"]);
    assert_contains(&wide, &["SELECTOR", "app=web"]);

    let json = agent.json(&["get", "ingress", "healthy"]);
    assert_eq!(string(&json, &["kind"]), "Ingress");
    assert_eq!(string(&json, &["spec", "ingressClassName"]), "pilus");
    let list = agent.json(&["get", "ingress"]);
    assert_eq!(string(&list, &["kind"]), "List");
    assert_eq!(list.get("items").unwrap().items().len(), 4);
    let text = agent.good(&["get", "ingress", "healthy", "-o", "yaml"]);
    let mut yaml = parse_yaml(split_documents(&text).remove(0));
    let yaml = yaml.as_mut().unwrap().take().unwrap();
    assert_eq!(string(&yaml, &["metadata", "uid"]), string(&json, &["metadata", "uid"]));
    let created = string(&json, &["metadata", "creationTimestamp"]);
    assert_contains(&text, &[&format!("creationTimestamp: \"{created}\"")]);
    let ip = |value: &Value| {
        let ingress = value.path(&["status", "loadBalancer", "ingress"]).unwrap();
        string(&ingress.items()[0], &["ip"]).to_owned()
    };
    assert_eq!((ip(&yaml), ip(&json)), ("192.0.2.1".to_owned(), "192.0.2.1".to_owned()));

    // Keys stay with those who need them.
    let secret = agent.good(&["get", "secret", "tls", "-o", "yaml"]);
    assert_contains(&secret, &["tls.key: null"]);
    let all = agent.good(&["get", "svc", "-A"]);
    assert_contains(&all, &["kube-system   pilus-ingress   LoadBalancer", "80/TCP,443/TCP"]);
}

#[test]
fn lists_show_what_is_in_effect() {
    let backend = Backend::answering("web");
    let agent = agent("lists", &backend);
    let services = agent.good(&["service", "list"]);
    assert_contains(&services, &["192.0.2.1:80    TCP        proxy"]);
    let endpoint = backend.address.to_string();
    let endpoints = agent.good(&["endpoint", "list"]);
    assert_contains(&endpoints, &["default/web   80", &endpoint, "active", "default/web\n"]);
    let routes = agent.good(&["route", "list"]);
    let of_host: Vec<&str> = routes.lines().filter(|line| line.contains("healthy.test")).collect();
    assert_eq!(of_host.len(), 2, "{routes}");
    assert!(of_host[0].contains("/api") && of_host[1].contains(" / "), "not in order: {routes}");
    assert_contains(
        &routes,
        &["503 Service default/wbe does not exist", "Ingress default/tls spec.rules[0]"],
    );
    let addresses = agent.good(&["ip", "list"]);
    assert_contains(&addresses, &["192.0.2.1", "lb-ipam", "Service kube-system/pilus-ingress"]);
    let settings = agent.good(&["config", "view"]);
    let setting = |name: &str| {
        let line = settings.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned)
    };
    assert_eq!(setting("ingress-default-lb-mode").as_deref(), Some("shared"));
    assert_eq!(setting("ingress-http-port"), Some(agent.http.to_string()));
    assert_eq!(setting("ingress-https-port"), Some(agent.https.to_string()));
    assert_eq!(setting("enable-bpf").as_deref(), Some("false"));
    assert_eq!(setting("node-name").as_deref(), Some("n1"));
    assert_eq!(agent.good(&["version"]), format!("pilus {}\n", env!("CARGO_PKG_VERSION")));
    let status = agent.good(&["status"]);
    assert_contains(
        &status,
        &[
            "Node n1   version",
            "directories: m\n",
            "kube-system/pilus-ingress   80",
            "off (--no-bpf): ordinary sockets, nothing is announced",
            "m/base.yaml:",
        ],
    );
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let backend = Backend::answering("web");
    let mut agent = agent("codes", &backend);
    // The words, the code, and what is said on standard error.
    let mut table: Vec<(&[&str], i32, &str)> = vec![
        (&["version"], 0, ""),
        (&["status"], 0, ""),
        (&["get", "ing", "nope"], 1, "ingresses.networking.k8s.io \"nope\" not found"),
        (&["get", "nonsense"], 1, "the server doesn't have a resource type \"nonsense\""),
        (&["explain", "http://nobody.test/"], 1, ""),
        (&["check", "m"], 1, ""),
        (&["check", "nowhere"], 1, ""),
        (&["check", "--config", "nowhere.yaml", "m"], 1, "nowhere.yaml: cannot be read"),
        (&["check"], 2, "needs at least one file or directory"),
        (&["explain", "ftp://x/"], 2, "must start with http:// or https://"),
        (&["explain", "http://a/", "--from", "x"], 2, "neither an IP address nor NAMESPACE/POD"),
        (&["get"], 2, "pilus --help"),
        (&["get", "pods", "-o", "xml"], 2, "is not one of table, wide, yaml, json"),
        (&["status", "--bogus"], 2, "Unrecognized argument: --bogus"),
        (
            &["run", "--in-cluster", "--kubeconfig", "k"],
            2,
            "--in-cluster: give this or --kubeconfig",
        ),
        (&["run", "--in-cluster", "--manifests", "m"], 2, "not from both"),
        (&["observe"], 2, "is not there yet"),
    ];
    for (words, code, says) in table.drain(..) {
        let printed = agent.run(words);
        assert_eq!(printed.code, code, "{words:?}: {printed:?}");
        assert!(printed.err.contains(says), "{words:?}: {printed:?}");
        assert_eq!(printed.err.is_empty(), says.is_empty(), "{words:?}: {printed:?}");
    }
    agent.kill();
    for words in [&["status"][..], &["get", "ing"], &["explain", "http://a/"], &["ip", "list"]] {
        let printed = agent.run(words);
        assert_eq!((printed.code, &*printed.out), (3, ""), "{words:?}: {printed:?}");
        assert_contains(&printed.err, &["no agent at unix:", "is it running?"]);
    }
    assert_eq!(agent.run(&["version"]).code, 0);
}

#[test]
fn explain_says_whose_word_about_the_client_counts() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("explain-trust");
    agent.configure("proxy: {trusted-proxies: [10.0.0.0/8]}\n");
    let web = ingress("web", "a", &[("/", "web")], "");
    agent.write("base.yaml", &format!("{CLASS}{}{web}", service("web", backend.address)));
    agent.start();
    agent.await_status("a", "/", 200);
    for (from, said) in [
        (
            "10.0.0.1",
            "one of proxy.trusted-proxies (10.0.0.0/8), whose word counts: the client is 203.0.113.7",
        ),
        ("203.0.113.1", "it is none of proxy.trusted-proxies: what it says of its client"),
    ] {
        let header = "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.2";
        let printed = agent.run(&["explain", "http://a/", "--from", from, "-H", header]);
        assert_contains(&printed.out, &[from, said, "=> forwarded"]);
    }
    assert_contains(&agent.good(&["config", "view"]), &["trusted-proxies", "10.0.0.0/8"]);
}
