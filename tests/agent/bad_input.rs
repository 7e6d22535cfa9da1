//! What is wrong is named to the column, by the agent and by `pilus check`; nothing else is harmed, and what
//! was good before stays.
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;

use crate::backend::Backend;
use crate::load::{Load, Way};
use crate::support::{Agent, CLASS, POOL, ingress, pair, secret, service, wait_until};

const HEALTHY: &str = "healthy.test";
/// Longer than what is read of a file.
const TOO_LONG: usize = 17 << 20;

/// Files that are wrong, and what is said about them.
struct Case {
    files: Vec<(&'static str, String)>,
    says: Vec<&'static str>,
    /// What only `pilus check` says: how many there are.
    counts: &'static str,
}

fn case(files: Vec<(&'static str, String)>, says: &[&'static str], counts: &'static str) -> Case {
    Case { files, says: says.to_vec(), counts }
}

/// A running agent with one Ingress that is right.
fn healthy_agent(name: &str, backend: &Backend) -> Agent {
    let mut agent = Agent::new(name);
    let healthy = ingress("healthy", HEALTHY, &[("/", "web")], "");
    let web = service("web", backend.address);
    agent.write("base.yaml", &format!("{CLASS}{POOL}{web}{healthy}"));
    agent.start();
    agent.await_status(HEALTHY, "/", 200);
    agent
}

fn load(agent: &Agent) -> Load {
    let ports = (agent.http, agent.https);
    Load::start(&[Way::KeepAlive, Way::New], ports, HEALTHY, &["web"])
}

/// An Ingress for one prefix, with changes made to its text.
fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    let text = ingress(name, &format!("{name}.test"), &[("/", "web")], "");
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replacen(from, to, 1)
    })
}

fn with_secret(name: &str, secret: &str) -> String {
    ingress(name, &format!("{name}.test"), &[("/", "web")], secret)
}

fn pool(name: &str, start: &str, stop: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata:\n  name: {name}\n\
         spec:\n  blocks:\n  - start: {start}\n    stop: {stop}\n"
    )
}

/// Everything that is one file or two, in a directory whose other objects are right.
fn cases() -> Vec<Case> {
    let (good, other) = (pair("k.test"), pair("k.test"));
    let broken_pem = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----";
    let regex = [("path: /", "path: /a("), ("Prefix", "ImplementationSpecific")];
    let (one, two) = (changed("one", &[]), changed("two", &[]));
    vec![
        case(
            vec![("a.yaml", with_secret("s", "nope"))],
            &[
                "m/a.yaml:9:5: Ingress default/s: spec.tls[0].secretName: Secret default/nope does not exist; \
                 TLS handshakes for s.test are refused",
            ],
            "6 objects, 1 error, 0 warnings",
        ),
        case(
            vec![
                ("a.yaml", with_secret("g", "garbage")),
                ("b.yaml", secret("garbage", "nonsense", "nonsense")),
            ],
            &[
                "m/a.yaml:9:5: Ingress default/g: spec.tls[0].secretName: tls.crt of Secret default/garbage \
                 contains no certificate; TLS handshakes for g.test are refused",
            ],
            "7 objects, 1 error, 0 warnings",
        ),
        case(
            vec![
                ("a.yaml", with_secret("p", "half")),
                ("b.yaml", secret("half", broken_pem, &good.key)),
            ],
            &[
                "m/a.yaml:9:5: Ingress default/p: spec.tls[0].secretName: tls.crt of Secret default/half is not \
                 valid PEM: base64 decode error: InvalidCharacter(33); TLS handshakes for p.test are refused",
            ],
            "7 objects, 1 error, 0 warnings",
        ),
        case(
            vec![
                ("a.yaml", with_secret("k", "mismatch")),
                ("b.yaml", secret("mismatch", &good.certificate, &other.key)),
            ],
            &[
                "m/a.yaml:9:5: Ingress default/k: spec.tls[0].secretName: tls.key of Secret default/mismatch \
                 does not belong to the first certificate in tls.crt; TLS handshakes for k.test are refused",
            ],
            "7 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("r", &regex))],
            &[
                "m/a.yaml:11:9: Ingress default/r: spec.rules[0].http.paths[0].path: `/a(` is not a valid \
                 regular expression: found open group without closing ')'",
            ],
            "5 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("twin", &[("twin.test", HEALTHY)]))],
            &[
                "m/a.yaml:11:9: warning: Ingress default/twin: spec.rules[0].http.paths[0]: host \
                 \"healthy.test\" and path \"/\" (Prefix) is also in Ingress default/healthy \
                 (spec.rules[0].http.paths[0]): requests are spread evenly over all of them",
                "m/base.yaml:32:9: warning: Ingress default/healthy: spec.rules[0].http.paths[0]: host \
                 \"healthy.test\" and path \"/\" (Prefix) is also in Ingress default/twin \
                 (spec.rules[0].http.paths[0]): requests are spread evenly over all of them",
            ],
            "6 objects, 0 errors, 2 warnings",
        ),
        case(
            vec![("a.yaml", pool("zoo", "192.0.2.150", "192.0.2.250"))],
            &[
                "m/a.yaml:7:5: CiliumLoadBalancerIPPool zoo: spec.blocks[0]: Pool conflicts since range \
                 '192.0.2.150 - 192.0.2.250' overlaps range '192.0.2.1 - 192.0.2.200' from IP Pool 'pool'",
            ],
            "6 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", pool("backwards", "192.0.2.250", "192.0.2.210"))],
            &[
                "m/a.yaml:7:5: CiliumLoadBalancerIPPool backwards: spec.blocks[0].start: start 192.0.2.250 is \
                 greater than stop 192.0.2.210",
            ],
            "5 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", format!("{one}---\nkind: Ingress\n  broken: [\n---\n{two}"))],
            &["m/a.yaml:20:9: not valid YAML: mapping values are not allowed in this context"],
            "7 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("d", &[("name: web", "name: wbe")]))],
            &[
                "m/a.yaml:15:13: Ingress default/d: spec.rules[0].http.paths[0].backend.service.name: Service \
                 default/wbe does not exist (did you mean \"web\"?); requests get 503",
            ],
            "6 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("port", &[("number: 80", "name: htp")]))],
            &[
                "m/a.yaml:17:15: Ingress default/port: spec.rules[0].http.paths[0].backend.service.port.name: \
                 Service default/web has no TCP port named \"htp\" (did you mean \"http\"?); requests get 503",
            ],
            "6 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("port", &[("number: 80", "number: 81")]))],
            &[
                "m/a.yaml:17:15: Ingress default/port: spec.rules[0].http.paths[0].backend.service.port.number: \
                 Service default/web has no TCP port 81 (it has 80); requests get 503",
            ],
            "6 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("u", &[("pathType", "pathtype")]))],
            &[
                "m/a.yaml:11:9: Ingress default/u: spec.rules[0].http.paths[0].pathType: required, and missing",
                "m/a.yaml:12:9: Ingress default/u: spec.rules[0].http.paths[0].pathtype: unknown field (did \
                 you mean `pathType`?)",
            ],
            "5 objects, 2 errors, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("w", &[("number: 80", "number: \"80\"")]))],
            &[
                "m/a.yaml:17:15: Ingress default/w: spec.rules[0].http.paths[0].backend.service.port.number: \
                 expected a number, found a string: write 80 without quotes",
            ],
            "5 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("n", &[]))],
            &[
                "m/a.yaml:4:3: metadata.name: expected a string, found the boolean false: no, off, n and \
                 false are strings only in quotes",
            ],
            "5 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", changed("q", &[("kind: Ingress", "kind: Ingres")]))],
            &["m/a.yaml:2:1: kind: no such kind `Ingres` (did you mean `Ingress`?); q is left out"],
            "5 objects, 1 error, 0 warnings",
        ),
        case(
            vec![("a.yaml", other_kind("gateway.networking.x-k8s.io/v1alpha1", "XMesh"))],
            &[
                "m/a.yaml:2:1: warning: XMesh other: kind XMesh is not supported by this version and has \
                 no effect",
            ],
            "5 objects, 0 errors, 1 warning\nskipped, of kinds that are not read: 1 XMesh",
        ),
        case(
            vec![("a.yaml", other_kind("gateway.networking.k8s.io/v1", "Gateway"))],
            &[
                "m/a.yaml:4:1: Gateway default/other: spec.gatewayClassName: required, and missing",
                "m/a.yaml:4:1: Gateway default/other: spec.listeners: required, and missing",
            ],
            "5 objects, 2 errors, 0 warnings",
        ),
        case(
            vec![("a.yaml", other_kind("apps/v1", "Deployment"))],
            &[],
            "5 objects, 0 errors, 0 warnings\nskipped, of kinds that are not read: 1 Deployment",
        ),
        case(
            vec![("a.yaml", changed("o", &[("Name: pilus", "Name: pius")]))],
            &[
                "m/a.yaml:6:3: warning: Ingress default/o: spec.ingressClassName: IngressClass \"pius\" does \
                 not exist (did you mean \"pilus\"?); the Ingress has no effect",
            ],
            "6 objects, 0 errors, 1 warning",
        ),
    ]
}

#[test]
fn each_fault_is_named_to_the_column_and_harms_nobody_else() {
    let backend = Backend::answering("web");
    let agent = healthy_agent("faults", &backend);
    let load = load(&agent);
    for case in cases() {
        let says: Vec<String> = case.says.iter().map(ToString::to_string).collect();
        // Put in place file by file; what is said in between is not looked at.
        for (file, text) in &case.files {
            agent.write(file, text);
        }
        agent.expect_problems(&says);
        if says.is_empty() {
            let skipped = || agent.json(&["status"]).path(&["sources", "skipped"]).cloned();
            wait_until("it is counted", || skipped().is_some_and(|it| !it.members().is_empty()));
        }
        load.round();
        let printed = agent.run(&["check", "--config", "pilus.yaml", "m"]);
        let expected: String = says.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(printed.out, format!("{expected}{}\n", case.counts));
        let is_wrong = case.says.iter().any(|text| !text.contains(": warning: "));
        assert_eq!((printed.code, &*printed.err), (i32::from(is_wrong), ""));
        case.files.iter().for_each(|(file, _)| agent.remove(file));
        agent.expect_problems(&[]);
    }
    no_failures(load);
}

#[test]
fn what_is_beside_a_fault_is_in_effect() {
    let backend = Backend::answering("web");
    let agent = healthy_agent("beside", &backend);
    let one = changed("one", &[]);
    // Broken by syntax, by a field, by a reference; the rest of the file is good.
    let (syntax, field) = ("kind: Ingress\n  broken: [\n", changed("x", &[("pathType", "p")]));
    let reference = with_secret("s", "nope");
    let two = changed("two", &[]);
    agent.write("a.yaml", &format!("{one}---\n{syntax}---\n{field}---\n{reference}---\n{two}"));
    agent.await_status("two.test", "/", 200);
    assert_eq!(agent.get("one.test", "/").status(), 200);
    assert_eq!(agent.problems().len(), 4, "{:#?}", agent.problems());
    // Nothing of what is broken was let through.
    assert_eq!(agent.get("x.test", "/").status(), 404);
    assert_eq!(agent.get("s.test", "/").status(), 301);
    let refused = agent.certificate("s.test").unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
}

/// A broken version of `x.yaml`, and what is said about it.
type Broken = (fn(&Agent), &'static [&'static str]);

const BROKEN: &[Broken] = &[
    (
        |agent| agent.write("x.yaml", &changed("x", &[("pathType", "pathtype")])),
        &[
            "m/x.yaml:11:9: Ingress default/x: spec.rules[0].http.paths[0].pathType: required, and missing; \
             its last good version stays in effect",
            "m/x.yaml:12:9: Ingress default/x: spec.rules[0].http.paths[0].pathtype: unknown field (did you \
             mean `pathType`?); its last good version stays in effect",
        ],
    ),
    (
        |agent| {
            let regex = [("path: /", "path: /a("), ("Prefix", "ImplementationSpecific")];
            agent.write("x.yaml", &changed("x", &regex));
        },
        &[
            "m/x.yaml:11:9: Ingress default/x: spec.rules[0].http.paths[0].path: `/a(` is not a valid regular \
             expression: found open group without closing ')'; its last good version stays in effect",
        ],
    ),
    (
        |agent| agent.write("x.yaml", "kind: Ingress\n  broken: [\n"),
        &[
            "m/x.yaml:2:9: not valid YAML: mapping values are not allowed in this context; objects of before \
             that are not found now stay as they were",
        ],
    ),
    (
        |agent| agent.write("x.yaml", &"#".repeat(TOO_LONG)),
        &[
            "m/x.yaml:1:1: cannot be read: 17825792 bytes long; at most 16777216 are read; its objects stay as \
             they were",
        ],
    ),
    (
        |agent| {
            let beside = agent.manifests().join(".link");
            symlink("/nowhere/x.yaml", &beside).unwrap();
            fs::rename(beside, agent.manifests().join("x.yaml")).unwrap();
        },
        &[
            "m/x.yaml:1:1: cannot be read: it is a link to /nowhere/x.yaml, which does not exist; its objects \
             stay as they were",
        ],
    ),
    (
        |agent| {
            fs::write(agent.manifests().join(".new"), b"\xff\xfe").unwrap();
            fs::rename(agent.manifests().join(".new"), agent.manifests().join("x.yaml")).unwrap();
        },
        &[
            "m/x.yaml:1:1: not UTF-8 text; objects of before that are not found now stay as they were",
        ],
    ),
];

#[test]
fn the_last_good_version_stays_until_there_is_a_better_one() {
    let backend = Backend::answering("web");
    let agent = healthy_agent("last-good", &backend);
    let load = load(&agent);
    for (round, (break_it, says)) in BROKEN.iter().enumerate() {
        let path = format!("/v{round}");
        agent.write("x.yaml", &ingress("x", "x.test", &[(&path, "web")], ""));
        agent.await_status("x.test", &path, 200);
        agent.expect_problems(&[]);
        break_it(&agent);
        agent.expect_problems(&says.iter().map(ToString::to_string).collect::<Vec<_>>());
        load.round();
        assert_eq!(agent.get("x.test", &path).status(), 200, "{says:?}");
    }
    agent.remove("x.yaml");
    agent.await_status("x.test", "/v5", 404);
    // A directory by the name of a manifest is named; it has never held anything.
    fs::create_dir(agent.manifests().join("folder.yaml")).unwrap();
    agent.expect_problems(&["m/folder.yaml:1:1: cannot be read: it is a directory".to_owned()]);
    no_failures(load);
}

#[test]
fn a_certificate_that_becomes_unusable_is_shown_on_until_it_is_deleted() {
    let backend = Backend::answering("web");
    let agent = healthy_agent("certificate", &backend);
    let (first, second) = (pair("k.test"), pair("k.test"));
    let prefix = "m/a.yaml:9:5: Ingress default/k: spec.tls[0].secretName: ";
    let shows = |pair: &crate::support::Pair| agent.certificate("k.test").as_ref() == Ok(&pair.der);
    agent.write("a.yaml", &with_secret("k", "tls"));
    agent.write("b.yaml", &secret("tls", &first.certificate, &first.key));
    wait_until("the first certificate", || shows(&first));

    // Half renewed: the new certificate with the old key.
    agent.write("b.yaml", &secret("tls", &second.certificate, &first.key));
    agent.expect_problems(&[format!(
        "{prefix}tls.key of Secret default/tls does not belong to the first certificate in tls.crt; its last \
         good version stays in effect for k.test"
    )]);
    assert!(shows(&first));
    agent.write("b.yaml", &secret("tls", "nonsense", "nonsense"));
    agent.expect_problems(&[format!(
        "{prefix}tls.crt of Secret default/tls contains no certificate; its last good version stays in effect \
         for k.test"
    )]);
    assert!(shows(&first));
    agent.write("b.yaml", &secret("tls", &second.certificate, &second.key));
    wait_until("the second certificate", || shows(&second));
    agent.expect_problems(&[]);
    // Deleted is deleted.
    agent.remove("b.yaml");
    agent.expect_problems(&[format!(
        "{prefix}Secret default/tls does not exist; TLS handshakes for k.test are refused"
    )]);
    wait_until("refused", || agent.certificate("k.test").is_err());
    assert_eq!(agent.get(HEALTHY, "/").text(), "web");
}

#[test]
fn a_default_certificate_that_is_missing_is_named_and_taken_when_it_comes() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("default-certificate");
    let (own, default) = (pair("k.test"), pair("other.test"));
    let config = fs::read_to_string(agent.folder.join("pilus.yaml")).unwrap();
    let config = config.replace('}', ", default-tls-secret: tls/default}");
    fs::write(agent.folder.join("pilus.yaml"), config).unwrap();
    let web = service("web", backend.address);
    let (k, own_secret) = (with_secret("k", "own"), secret("own", &own.certificate, &own.key));
    agent.write("base.yaml", &format!("{CLASS}{web}{k}---\n{own_secret}"));
    agent.start();
    let says = "ingress.default-tls-secret: Secret tls/default does not exist; TLS handshakes for names that no \
                Ingress has are refused";
    agent.expect_problems(&[says.to_owned()]);
    let printed = agent.run(&["check", "--config", "pilus.yaml", "m"]);
    assert_eq!((printed.code, printed.out.lines().next()), (1, Some(says)));
    assert_eq!(agent.certificate("k.test").as_ref(), Ok(&own.der));
    assert!(agent.certificate("other.test").is_err());
    let text = secret("default", &default.certificate, &default.key);
    agent
        .write("default.yaml", &text.replace("{name: default}", "{name: default, namespace: tls}"));
    wait_until("the default certificate", || {
        agent.certificate("other.test").as_ref() == Ok(&default.der)
    });
    agent.expect_problems(&[]);
}

#[test]
fn an_overlapping_pool_takes_no_address_away() {
    let backend = Backend::answering("web");
    let agent = healthy_agent("overlap", &backend);
    let address = || {
        let service = agent.json(&["get", "svc", "pilus-ingress", "-n", "kube-system"]);
        let ingress = service.path(&["status", "loadBalancer", "ingress"]).cloned();
        ingress.and_then(|list| list.items()[0].get("ip")?.as_str().map(str::to_owned))
    };
    wait_until("an address", || address().is_some());
    let before = address();
    // By its name it goes before the pool the address is from, which now conflicts.
    agent.write("a.yaml", &pool("another", "192.0.2.1", "192.0.2.9"));
    agent.expect_problems(&["m/base.yaml:9:17: CiliumLoadBalancerIPPool pool: spec.blocks[0]: Pool conflicts \
        since range '192.0.2.1 - 192.0.2.200' overlaps range '192.0.2.1 - 192.0.2.9' from IP Pool 'another'"
        .to_owned()]);
    assert_eq!(address(), before);
    let table = agent.good(&["get", "ippool"]);
    let conflicting = |line: &&str| line.starts_with("pool ") && line.contains("True");
    assert!(table.lines().any(|line| conflicting(&line)), "{table}");
    agent.remove("a.yaml");
    agent.expect_problems(&[]);
    assert_eq!(address(), before);
}

#[test]
fn a_directory_that_disappears_changes_nothing_until_it_is_back() {
    let backend = Backend::answering("web");
    let agent = healthy_agent("vanish", &backend);
    let load = load(&agent);
    let away = agent.folder.join("away");
    for round in 0..3 {
        fs::rename(agent.manifests(), &away).unwrap();
        let says = "m:1:1: cannot be read: no such file or directory";
        agent.expect_problems(&[format!("{says}; its objects stay as they were until it is back")]);
        load.round();
        let printed = agent.run(&["check", "m"]);
        assert_eq!(printed.out, format!("{says}\n0 objects, 1 error, 0 warnings\n"));
        assert_eq!(printed.code, 1);
        // Changed while it was away.
        let host = format!("back-{round}.test");
        let text = ingress("back", &host, &[("/", "web")], "");
        fs::write(away.join("back.yaml"), text).unwrap();
        fs::rename(&away, agent.manifests()).unwrap();
        agent.await_status(&host, "/", 200);
        agent.expect_problems(&[]);
        load.round();
    }
    no_failures(load);
}

#[test]
fn a_port_in_use_is_named_and_had_once_it_is_free() {
    let backend = Backend::answering("web");
    let mut agent = Agent::new("port");
    let somebody = TcpListener::bind((Ipv4Addr::UNSPECIFIED, agent.http)).unwrap();
    let plain = changed("healthy", &[]);
    let (tls, web) = (pair("k.test"), service("web", backend.address));
    let secret = secret("tls", &tls.certificate, &tls.key);
    let encrypted = with_secret("k", "tls");
    agent.write("base.yaml", &format!("{CLASS}{web}{plain}---\n{secret}---\n{encrypted}"));
    agent.start();
    let error = std::io::Error::from_raw_os_error(libc::EADDRINUSE);
    agent.expect_problems(&[format!(
        "cannot listen on 0.0.0.0:{}, which Ingress service kube-system/pilus-ingress wants: {error}; find who \
         has it with `ss -ltnp`, it is tried again",
        agent.http
    )]);
    // The other port is served all the time.
    assert_eq!(agent.certificate("k.test"), Ok(tls.der));
    drop(somebody);
    agent.await_status(HEALTHY, "/", 200);
    agent.expect_problems(&[]);
}

fn other_kind(version: &str, kind: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: other}}\nspec: {{}}\n")
}

fn no_failures(load: Load) {
    let (requests, failures) = load.end();
    assert!(failures.is_empty(), "{} of {requests}: {:?}", failures.len(), failures.first());
}
