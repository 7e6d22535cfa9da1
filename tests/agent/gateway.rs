//! Gateway API objects in a running agent: what `get`, `route list` and `explain` print, and that requests fare as
//! explained.
use pilus::proto::value::Value;

use crate::backend::Backend;
use crate::support::{
    Agent, POOL, Pair, TlsClient, free_port, get, pair, secret, service, trusting_all, wait_until,
};

/// Listeners of every protocol; `PLAIN`, `SECURE`, `BYTES`, `FLOWS`, `NAMES` stand for ports.
const OBJECTS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: pilus}
spec: {controllerName: pilus.dev/gateway-controller, description: the router}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: foreign}
spec: {gatewayClassName: other, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: pilus
  listeners:
  - {name: plain, port: PLAIN, protocol: HTTP}
  - {name: shop, port: PLAIN, protocol: HTTP, hostname: '*.shop.test'}
  - {name: one, port: SECURE, protocol: HTTPS, hostname: one.test, tls: {certificateRefs: [{name: one}, {name: first}]}}
  - {name: rest, port: SECURE, protocol: HTTPS, tls: {certificateRefs: [{name: first}]}}
  - {name: bytes, port: BYTES, protocol: TCP}
  - {name: flows, port: FLOWS, protocol: UDP}
  - {name: names, port: NAMES, protocol: TLS, tls: {mode: Passthrough}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: g, sectionName: shop}]
  hostnames: [a.shop.test]
  rules:
  - name: api
    matches:
    - path: {value: /api}
      method: POST
      headers: [{name: X-User, value: '[0-9]+', type: RegularExpression}]
      queryParams: [{name: q, value: b c}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: b}], remove: [z]}}
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}
    backendRefs: [{name: web, port: 80, weight: 9}, {name: gone, port: 80, weight: 1}]
    timeouts: {request: 10s, backendRequest: 2s}
    retry: {codes: [503], attempts: 2, backoff: 100ms}
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
  - matches: [{path: {value: /}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: secure}
spec:
  parentRefs: [{name: g, port: SECURE}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: bytes}
spec:
  parentRefs: [{name: g, sectionName: bytes}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: names}
spec:
  parentRefs: [{name: g, sectionName: names}]
  hostnames: [pass.test]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
";

struct Ports {
    plain: u16,
    secure: u16,
    bytes: u16,
    flows: u16,
    names: u16,
}

fn agent(name: &str, backend: &Backend) -> (Agent, Ports, Pair) {
    let mut agent = Agent::new(name);
    let ports = Ports {
        plain: free_port(),
        secure: free_port(),
        bytes: free_port(),
        flows: free_port(),
        names: free_port(),
    };
    let (first, one) = (pair("first.test"), pair("one.test"));
    let objects = OBJECTS
        .replace("PLAIN", &ports.plain.to_string())
        .replace("SECURE", &ports.secure.to_string())
        .replace("BYTES", &ports.bytes.to_string())
        .replace("FLOWS", &ports.flows.to_string())
        .replace("NAMES", &ports.names.to_string());
    let secrets = [
        secret("first", &first.certificate, &first.key),
        secret("one", &one.certificate, &one.key),
    ];
    let text =
        format!("{POOL}{}{objects}{}", service("web", backend.address), secrets.join("\n---\n"));
    agent.write("base.yaml", &text);
    agent.start();
    wait_until("the Gateway is programmed", || {
        let out = agent.run(&["get", "gtw", "g"]).out;
        out.contains("True") && out.contains("192.0.2.1")
    });
    (agent, ports, one)
}

/// What a command prints, with ages and ports left out.
fn rows(text: &str) -> Vec<Vec<String>> {
    let is_age = |word: &str| word.ends_with('s') && word[..word.len() - 1].parse::<u32>().is_ok();
    let row = |line: &str| {
        let words = line.split_whitespace().filter(|word| !is_age(word));
        words.map(str::to_owned).collect()
    };
    text.lines().map(row).collect()
}

fn explained(agent: &Agent, words: &str, code: i32, parts: &[&str]) {
    let words: Vec<&str> = std::iter::once("explain").chain(words.split('|')).collect();
    let printed = agent.run(&words);
    assert_eq!((printed.code, &*printed.err), (code, ""), "{words:?}: {}", printed.out);
    let mut rest = printed.out.as_str();
    for part in parts {
        let Some(at) = rest.find(part) else {
            panic!("{words:?}: {part:?} is not there, or not in this order, in\n{}", printed.out);
        };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn get_prints_the_columns_of_the_definitions() {
    let backend = Backend::answering("web");
    let (agent, ..) = agent("gateway-get", &backend);
    assert_eq!(
        rows(&agent.good(&["get", "gc", "-o", "wide"])),
        [
            vec!["NAME", "CONTROLLER", "ACCEPTED", "AGE", "DESCRIPTION"],
            vec!["other", "example.com/other", "Unknown"],
            vec!["pilus", "pilus.dev/gateway-controller", "True", "the", "router"],
        ]
    );
    assert_eq!(
        rows(&agent.good(&["get", "gateways.gateway.networking.k8s.io"])),
        [
            vec!["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"],
            vec!["foreign", "other", "Unknown"],
            vec!["g", "pilus", "192.0.2.1", "True"],
        ]
    );
    assert_eq!(
        rows(&agent.good(&["get", "httproutes"])),
        [vec!["NAME", "HOSTNAMES", "AGE"], vec!["secure"], vec!["shop", "[\"a.shop.test\"]"]]
    );
    assert_eq!(rows(&agent.good(&["get", "tcproute"])), [vec!["NAME", "AGE"], vec!["bytes"]]);
    let foreign = agent.json(&["get", "gtw", "foreign"]);
    let waiting = foreign.path(&["status", "conditions"]).unwrap().items();
    assert_eq!(waiting.len(), 2);
    assert_eq!(waiting[1].text_at("lastTransitionTime"), "1970-01-01T00:00:00Z");
    assert_eq!(waiting[1].text_at("reason"), "Pending");
}

#[test]
fn statuses_are_those_of_kubernetes() {
    let backend = Backend::answering("web");
    let (agent, ports, _) = agent("gateway-status", &backend);
    let gateway = agent.json(&["get", "gtw", "g"]);
    let status = gateway.get("status").unwrap();
    let address = &status.items_at("addresses")[0];
    assert_eq!((address.text_at("type"), address.text_at("value")), ("IPAddress", "192.0.2.1"));
    let listeners = status.items_at("listeners");
    let attached: Vec<(&str, i64, Vec<&str>)> = listeners
        .iter()
        .map(|it| {
            let kinds = it.items_at("supportedKinds").iter().map(|it| it.text_at("kind"));
            let count = it.get("attachedRoutes").and_then(Value::as_int).unwrap();
            (it.text_at("name"), count, kinds.collect())
        })
        .collect();
    let http = || vec!["HTTPRoute", "GRPCRoute"];
    assert_eq!(
        attached,
        [
            ("plain", 0, http()),
            ("shop", 1, http()),
            ("one", 1, http()),
            ("rest", 1, http()),
            ("bytes", 1, vec!["TCPRoute"]),
            ("flows", 0, vec!["UDPRoute"]),
            ("names", 1, vec!["TLSRoute"]),
        ]
    );
    let route = agent.json(&["get", "httproute", "shop"]);
    let parents = route.get("status").unwrap().items_at("parents");
    assert_eq!(parents.len(), 1);
    assert_eq!(parents[0].text_at("controllerName"), "pilus.dev/gateway-controller");
    assert_eq!(parents[0].text_at("parentRef.sectionName"), "shop");
    assert_eq!(parents[0].text_at("parentRef.group"), "gateway.networking.k8s.io");
    let secure = agent.json(&["get", "httproute", "secure"]);
    let parent = &secure.get("status").unwrap().items_at("parents")[0];
    let port = parent.path(&["parentRef", "port"]).and_then(Value::as_int);
    assert_eq!(port, Some(i64::from(ports.secure)));
    for condition in parents[0].items_at("conditions") {
        let members: Vec<&str> = condition.members().iter().map(|it| &*it.key).collect();
        let wanted =
            ["lastTransitionTime", "message", "observedGeneration", "reason", "status", "type"];
        assert_eq!(members, wanted);
        let wanted = match condition.text_at("type") {
            "Accepted" => ("True", "Accepted"),
            "ResolvedRefs" => ("False", "BackendNotFound"),
            other => panic!("{other}"),
        };
        assert_eq!((condition.text_at("status"), condition.text_at("reason")), wanted);
    }
    let class = agent.json(&["get", "gc", "pilus"]);
    let features = class.get("status").unwrap().items_at("supportedFeatures");
    let names: Vec<&str> = features.iter().map(|it| it.text_at("name")).collect();
    assert!(names.contains(&"Gateway") && names.is_sorted(), "{names:?}");
}

#[test]
fn explain_tells_each_rule_that_lost_and_what_the_winner_does() {
    let backend = Backend::answering("web");
    let (agent, ports, _) = agent("gateway-explain", &backend);
    let shop = |rest: &str| format!("http://a.shop.test:{}{rest}", ports.plain);
    explained(
        &agent,
        &shop("/api/x?q=b%20c|-X|POST|-H|x-user: 7"),
        0,
        &[
            "POST http://a.shop.test:",
            "/api/x\n",
            "because: listener `shop` of Gateway default/g (HTTP, *.shop.test)\n",
            "host       a.shop.test\n",
            "tried      Exact /old of HTTPRoute default/shop spec.rules[1]\n",
            "because: the path is /api/x\n",
            "route      PathPrefix /api, method POST, header x-user ~ [0-9]+, query q = b c\n",
            "because: wins over PathPrefix / (",
            "rule       HTTPRoute default/shop (`api`)\n",
            "because: spec.rules[0]\n",
            "filter     RequestHeaderModifier: remove z; set x: b\n",
            "filter     URLRewrite: prefix /api becomes /v2\n",
            "timeout    10s for the whole request, 2s for each attempt\n",
            "retry      up to 2 more on 503",
            ", 100ms apart\n",
            "active (Pod default/web)\n",
            "because: default/web:80 gets 9 of 10\n",
            "backend    1 of 10 gets 500\n",
            "because: Service default/gone does not exist\n",
            "=> forwarded; a share of the requests gets 500: Service default/gone does not exist\n",
        ],
    );
    for (rest, why) in [
        ("/api?q=b%20c|-H|x-user: 7", "because: the method is GET\n"),
        ("/api?q=b%20c|-XPOST", "because: there is no header x-user\n"),
        ("/api?q=b%20c|-XPOST|-H|x-user: me", "because: header x-user is `me`\n"),
        ("/api?q=c|-XPOST|-H|x-user: 7", "because: query parameter q is `c`\n"),
        ("/api|-XPOST|-H|x-user: 7", "because: there is no query parameter q\n"),
        ("/apix|-XPOST|-H|x-user: 7", "because: /apix does not begin with it\n"),
    ] {
        let tried = "tried      PathPrefix /api, method POST";
        let parts = [tried, why, "route      PathPrefix /\n", "=> forwarded, round robin over 1"];
        explained(&agent, &shop(rest), 0, &parts);
    }
    explained(
        &agent,
        &shop("/old"),
        0,
        &["route      Exact /old\n", "=> 301 redirect: scheme becomes https\n"],
    );
    let other = format!("http://b.shop.test:{}/", ports.plain);
    let parts = ["host       *.shop.test\n", "=> 404: no path of this host matches\n"];
    explained(&agent, &other, 1, &parts);
    let nobody = format!("http://nobody.test:{}/", ports.plain);
    explained(
        &agent,
        &nobody,
        1,
        &["listener `plain` of Gateway default/g (HTTP)\n", "=> 404: no"],
    );
}

#[test]
fn explain_knows_certificates_misdirected_requests_and_ports_of_bytes() {
    let backend = Backend::answering("web");
    let (agent, ports, one) = agent("gateway-tls", &backend);
    let one_test = format!("https://one.test:{}/", ports.secure);
    explained(
        &agent,
        &one_test,
        0,
        &[
            "because: listener `one` of Gateway default/g (HTTPS, one.test)\n",
            "certificate   Secret default/one, valid until ",
            "; for other names and signature algorithms: default/first\n",
            "because: SNI is the very name\n",
            "=> forwarded, round robin over 1 endpoint\n",
        ],
    );
    let mut client = TlsClient::connect(ports.secure, "one.test", &trusting_all()).unwrap();
    client.handshake().unwrap();
    assert_eq!(client.shown(), one.der);
    assert_eq!(get(&mut client.client, "one.test", "/").unwrap().status(), 200);
    // The same connection, for a host of the other listener.
    assert_eq!(get(&mut client.client, "two.test", "/").unwrap().status(), 421);
    explained(
        &agent,
        &format!("{one_test}|-H|Host: two.test"),
        1,
        &[
            "listener `one` of Gateway default/g (HTTPS, one.test)\n",
            "=> 421 Misdirected Request: the TLS name one.test leads to another listener than the host \
             two.test, which belongs to listener `rest` of Gateway default/g (HTTPS)\n",
        ],
    );
    explained(
        &agent,
        &format!("https://two.test:{}/", ports.secure),
        0,
        &[
            "Secret default/first, valid until ",
            "default: SNI names nothing else\n",
            "=> forwarded",
        ],
    );
    explained(
        &agent,
        &format!("tcp://any.test:{}", ports.bytes),
        0,
        &[
            "tcp://any.test:",
            "listener `bytes` of Gateway default/g (TCP)\n",
            "rule       TCPRoute default/bytes\n",
            "=> forwarded, round robin over 1 endpoint\n",
        ],
    );
    let flows = format!("udp://any.test:{}", ports.flows);
    explained(
        &agent,
        &flows,
        1,
        &["listener `flows`", "=> no route is attached: datagrams are dropped\n"],
    );
    let plain = format!("tcp://any.test:{}", ports.plain);
    explained(&agent, &plain, 1, &["=> nothing is served on this port\n"]);
    let pass = format!("tls://pass.test:{}", ports.names);
    let parts =
        ["the backend's own: TLS is passed through\n", "rule          TLSRoute default/names\n"];
    explained(&agent, &pass, 0, &parts);
    explained(
        &agent,
        &format!("https://other.test:{}/", ports.names),
        1,
        &["=> the TLS handshake is refused: no TLSRoute is for this name\n"],
    );
}

#[test]
fn route_list_has_every_rule_name_and_port() {
    let backend = Backend::answering("web");
    let (agent, ports, _) = agent("gateway-list", &backend);
    let lines: Vec<String> = agent
        .good(&["route", "list"])
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let of = |port: u16, rest: &str| format!("default/pilus-gateway-g:{port} {rest}");
    for line in [
        of(
            ports.plain,
            "a.shop.test PathPrefix /api, method POST, header x-user ~ [0-9]+, query q = b c default/web:80 \
             (weight 9),500 Service default/gone does not exist (weight 1) HTTPRoute default/shop spec.rules[0]",
        ),
        of(
            ports.plain,
            "a.shop.test Exact /old 301 redirect: scheme becomes https HTTPRoute default/shop spec.rules[1]",
        ),
        of(
            ports.secure,
            "one.test PathPrefix / default/web:80 HTTPRoute default/secure spec.rules[0]",
        ),
        of(ports.bytes, "* Any default/web:80 TCPRoute default/bytes spec.rules[0]"),
        of(ports.names, "pass.test SNI default/web:80 TLSRoute default/names spec.rules[0]"),
    ] {
        assert!(lines.contains(&line), "{line:?} is not in {lines:#?}");
    }
    let json = agent.json(&["route", "list"]);
    let items = json.items_at("items");
    let api = items.iter().find(|it| it.text_at("path") == "/api").unwrap();
    assert_eq!(api.text_at("name"), "api");
    assert_eq!(api.text_at("requestTimeout"), "10s");
    assert_eq!(api.text_at("backendTimeout"), "2s");
    assert_eq!(api.items_at("filters").len(), 2);
    assert_eq!(api.items_at("conditions").len(), 3);
    let pass = items.iter().find(|it| it.text_at("match") == "SNI").unwrap();
    assert_eq!(pass.text_at("tls"), "Passthrough");
}
