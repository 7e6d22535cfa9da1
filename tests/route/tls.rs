//! TLS: certificates, redirects, passthrough.
use std::time::Duration;

use pilus::api::config::Config;
use pilus::api::object::Secret;
use pilus::api::objects::Objects;
use pilus::kernel::{Outbox, Server, Time};

use crate::build::*;

fn with_secret(ingresses: &[Build], text: &str, hosts: &[&str]) -> Objects {
    let (chain, key) = certificate(hosts, 2025, 2030);
    let mut objects = objects(ingresses);
    put(&mut objects.secrets, secret(text, &chain, &key));
    objects
}

fn routed(config: Config, objects: Objects) -> Router {
    let mut router = Router::new(config);
    router.objects(objects);
    router
}

#[test]
fn ing_10_two_hosts_one_secret() {
    let web = ingress("default/web")
        .rule("h.rocks", &[("/x", 'P', "a:80")])
        .rule("b.rocks", &[("/", 'P', "b:80")])
        .rule("plain.rocks", &[("/", 'P', "c:80")])
        .tls(&["b.rocks", "h.rocks"], "demo-cert");
    let objects = with_secret(&[web], "default/demo-cert", &["b.rocks", "h.rocks"]);
    let router = routed(shared(), objects);
    router.complains(&[]);
    for (port, host, path, answer) in [
        (443, "h.rocks", "/x", "a:80"),
        (443, "h.rocks", "/", "404"),
        (443, "b.rocks", "/", "b:80"),
        (443, "plain.rocks", "/", "404"),
        (80, "h.rocks", "/x", "https"),
        (80, "h.rocks", "/", "404"),
        (80, "b.rocks", "/", "https"),
        (80, "plain.rocks", "/", "c:80"),
    ] {
        assert_eq!(router.ask(port, host, path), answer, "{port} {host}{path}");
    }
    for (host, answer) in [
        (Some("b.rocks"), "default/demo-cert"),
        (Some("h.rocks"), "default/demo-cert"),
        (Some("plain.rocks"), "closed"),
        (None, "closed"),
    ] {
        assert_eq!(router.sni(host), answer, "{host:?}");
    }
}

#[test]
fn ing_10_tls_hosts_without_a_rule_use_the_rules_for_every_host() {
    let web = ingress("default/web")
        .default_backend("c:80")
        .rule("*", &[("/x", 'P', "a:80")])
        .tls(&["t.com"], "s");
    let router = routed(shared(), with_secret(&[web], "default/s", &["t.com"]));
    router.complains(&[]);
    for (port, host, path, answer) in [
        (443, "t.com", "/x", "a:80"),
        (443, "t.com", "/", "c:80"),
        (443, "u.com", "/", "404"),
        (80, "t.com", "/x", "https"),
        (80, "t.com", "/", "https"),
        (80, "u.com", "/x", "a:80"),
    ] {
        assert_eq!(router.ask(port, host, path), answer, "{port} {host}{path}");
    }
}

#[test]
fn ing_10_wildcards() {
    let web = ingress("default/web")
        .rule("a.foo.com", &[("/", 'P', "a:80")])
        .rule("foo.com", &[("/", 'P', "b:80")])
        .rule("*.bar.com", &[("/", 'P', "c:80")])
        .tls(&["*.foo.com", "*.bar.com"], "s");
    let router = routed(shared(), with_secret(&[web], "default/s", &["*.foo.com", "*.bar.com"]));
    router.complains(&[]);
    for (port, host, answer) in [
        (443, "a.foo.com", "a:80"),
        (443, "foo.com", "404"),
        (443, "x.bar.com", "c:80"),
        (80, "a.foo.com", "https"),
        (80, "foo.com", "b:80"),
        (80, "x.bar.com", "https"),
    ] {
        assert_eq!(router.ask(port, host, "/"), answer, "{port} {host}");
    }
    for (host, answer) in [
        ("a.foo.com", "default/s"),
        ("z.foo.com", "default/s"),
        ("foo.com", "closed"),
        ("a.b.foo.com", "closed"),
    ] {
        assert_eq!(router.sni(Some(host)), answer, "{host}");
    }
}

#[test]
fn ing_10_default_certificate() {
    let web = || ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "");
    let router = routed(shared(), objects(&[web()]));
    assert_eq!(router.sni(Some("t.com")), "refused");
    router.complains(&["E default/web spec.tls[0].secretName: there is no secretName, and no default certificate is configured; TLS handshakes for t.com are refused"]);
    let config = Config { default_tls_secret: Some(name("certs/fallback")), ..shared() };
    let router = routed(config.clone(), with_secret(&[web()], "certs/fallback", &["t.com"]));
    router.complains(&[]);
    assert_eq!(router.sni(Some("t.com")), "certs/fallback");
    assert_eq!(router.sni(Some("unknown.com")), "certs/fallback");
    assert_eq!(router.sni(None), "certs/fallback");
    assert_eq!(router.ask(443, "unknown.com", "/"), "404");
    // A host whose own certificate is missing is refused even if there is a default.
    let broken =
        ingress("default/broken").rule("m.com", &[("/", 'P', "a:80")]).tls(&["m.com"], "no");
    let router = routed(config, with_secret(&[web(), broken], "certs/fallback", &["t.com"]));
    assert_eq!(router.sni(Some("m.com")), "refused");
}

#[test]
fn ing_10_the_secret_s_faults() {
    let (chain, key) = certificate(&["t.com"], 2025, 2030);
    let (_, other_key) = certificate(&["t.com"], 2025, 2030);
    let good = secret("default/s", &chain, &key);
    let without = |entry: &str| {
        let mut secret = good.clone();
        secret.data.remove(entry);
        secret
    };
    let opaque = Secret { kind: "Opaque".into(), data: [].into(), ..good.clone() };
    let long = chain.repeat(17);
    for (secret, why) in [
        (None, "Secret default/s does not exist"),
        (
            Some(without("tls.crt")),
            "Secret default/s (type kubernetes.io/tls) has no entry tls.crt",
        ),
        (
            Some(without("tls.key")),
            "Secret default/s (type kubernetes.io/tls) has no entry tls.key",
        ),
        (Some(opaque), "Secret default/s (type Opaque) has no entry tls.crt"),
        (Some(secret("default/s", "", &key)), "has no entry tls.crt"),
        (
            Some(secret("default/s", "rubbish", &key)),
            "tls.crt of Secret default/s contains no certificate",
        ),
        (
            Some(secret(
                "default/s",
                "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                &key,
            )),
            "tls.crt of Secret default/s is not valid PEM",
        ),
        (
            Some(secret("default/s", &chain, "rubbish")),
            "tls.key of Secret default/s is not a private key in PEM",
        ),
        (
            Some(secret("default/s", &chain, &chain)),
            "tls.key of Secret default/s is not a private key in PEM",
        ),
        (
            Some(secret("default/s", &chain, &other_key)),
            "tls.key of Secret default/s does not belong to the first certificate in tls.crt",
        ),
        (
            Some(secret(
                "default/s",
                "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n",
                &key,
            )),
            "tls.crt of Secret default/s cannot be used",
        ),
        (Some(secret("default/s", &long, &key)), "has more than 16 certificates"),
    ] {
        let web = ingress("default/web")
            .rule("t.com", &[("/", 'P', "a:80")])
            .rule("p.com", &[("/", 'P', "b:80")])
            .tls(&["t.com"], "s");
        let mut objects = objects(&[web]);
        if let Some(secret) = secret {
            put(&mut objects.secrets, secret);
        }
        let router = routed(shared(), objects);
        router.complains(&[&format!(
            "E default/web spec.tls[0].secretName: ..{why}..TLS handshakes for t.com are refused"
        )]);
        assert_eq!(router.sni(Some("t.com")), "refused", "{why}");
        assert_eq!(router.ask(443, "t.com", "/"), "404", "{why}: not by another name's connection");
        assert_eq!(router.ask(80, "t.com", "/"), "https", "{why}: fail closed");
        assert_eq!(router.ask(80, "p.com", "/"), "b:80", "{why}: nobody else is harmed");
    }
    let web =
        ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "demo-crt");
    let router = routed(shared(), with_secret(&[web], "default/demo-cert", &["t.com"]));
    router.complains(&["E ..Secret default/demo-crt does not exist (did you mean \"demo-cert\"?)"]);
}

#[test]
fn warnings_about_certificates_that_serve() {
    for (hosts, from, to, complaints) in [
        (&["t.com"][..], 2025, 2030, &[][..]),
        (&["t.com"], 2020, 2025, &["W default/s data: ..expired 365 days ago"]),
        (&["t.com"], 2027, 2030, &["W default/s data: ..not valid yet"]),
        (
            &["u.com", "v.com"],
            2025,
            2030,
            &["W default/web spec.tls[0].hosts[0]: ..is not for \"t.com\" but for u.com, v.com"],
        ),
    ] {
        let (chain, key) = certificate(hosts, from, to);
        let web = ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "s");
        let mut objects = objects(&[web]);
        put(&mut objects.secrets, secret("default/s", &chain, &key));
        let router = routed(shared(), objects.clone());
        router.complains(complaints);
        assert_eq!(router.sni(Some("t.com")), "default/s");
        let opaque = Secret { kind: "Opaque".into(), ..secret("default/s", &chain, &key) };
        put(&mut objects.secrets, opaque);
        let router = routed(shared(), objects);
        assert_eq!(router.problems().len(), complaints.len() + 1);
        assert!(router.problems().iter().any(|text| text.contains("instead of kubernetes.io/tls")));
    }
    let web = ingress("default/web")
        .rule("web.com", &[("/", 'P', "a:80")])
        .tls(&["wbe.com"], "s")
        .tls(&[], "s");
    let router = routed(shared(), with_secret(&[web], "default/s", &["wbe.com"]));
    router.complains(&[
        "W default/web spec.tls[0].hosts[0]: no rule is for host \"wbe.com\" (did you mean \"web.com\"?)",
        "E default/web spec.tls[1].hosts: the entry names no hosts",
    ]);
    assert_eq!(router.ask(80, "web.com", "/"), "a:80");
}

#[test]
fn the_warning_comes_when_the_certificate_expires() {
    let (chain, key) = certificate(&["t.com"], 2025, 2027);
    let web = ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "s");
    let mut objects = objects(&[web]);
    put(&mut objects.secrets, secret("default/s", &chain, &key));
    let mut router = routed(shared(), objects);
    router.complains(&[]);
    let at = router.server.timeout().unwrap();
    assert_eq!(at, Time::ZERO + Duration::from_secs(365 * 86_400 + 1));
    let mut out = Outbox::new();
    router.server.tick(at, &mut out);
    router.take(&mut out);
    router.complains(&["W default/s data: ..expired 0 days ago"]);
    assert_eq!(router.server.timeout(), None);
    assert_eq!(router.sent, (1, 2), "the routes are the same");
    assert_eq!(router.server.work().certificates, 1, "and the Secret was not parsed again");
}

#[test]
fn ing_11_force_https() {
    for (global, annotation, answer) in [
        (true, None, "https"),
        (false, None, "a:80"),
        (true, Some("disabled"), "a:80"),
        (true, Some("false"), "a:80"),
        (false, Some("enabled"), "https"),
        (false, Some("true"), "https"),
        (false, Some("nonsense"), "https"),
    ] {
        let mut web =
            ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "s");
        if let Some(value) = annotation {
            web = web.note("force-https", value);
        }
        let config = Config { enforce_https: global, ..shared() };
        let router = routed(config, with_secret(&[web], "default/s", &["t.com"]));
        assert_eq!(router.ask(80, "t.com", "/"), answer, "{global} {annotation:?}");
        assert_eq!(router.ask(443, "t.com", "/"), "a:80");
    }
    // No TLS: plain HTTP, whatever the annotation says.
    let web =
        ingress("default/web").rule("t.com", &[("/", 'P', "a:80")]).note("force-https", "true");
    assert_eq!(Router::shared(&[web]).ask(80, "t.com", "/"), "a:80");
    // Where one Ingress redirects and another serves the same path, the redirect wins.
    let one = ingress("default/one").rule("t.com", &[("/", 'P', "a:80")]);
    let two = ingress("default/two").rule("t.com", &[("/", 'P', "b:80")]).tls(&["t.com"], "s");
    let router = routed(shared(), with_secret(&[one, two], "default/s", &["t.com"]));
    assert_eq!(router.ask(80, "t.com", "/"), "https");
    assert_eq!(
        router.ask(443, "t.com", "/"),
        "b:80",
        "the Ingress without TLS is not served on 443"
    );
    router.complains(&[
        "W default/one ..the other is in effect",
        "W default/two ..this one is in effect",
    ]);
}

#[test]
fn ing_12_passthrough() {
    let pass = ingress("default/pass")
        .note("tls-passthrough", "enabled")
        .default_backend("c:80")
        .rule("p.com", &[("/", 'P', "a:80"), ("/x", 'P', "b:80")])
        .rule("*", &[("/", 'P', "b:80")])
        .rule("*.w.com", &[("/", 'I', "web:80")])
        .rule("empty.com", &[])
        .tls(&["p.com"], "s");
    let router = Router::shared(&[pass]);
    for (host, answer) in [
        (Some("p.com"), "pass a:80"),
        (Some("x.w.com"), "pass web:80"),
        (Some("empty.com"), "closed"),
        (Some("other.com"), "closed"),
        (None, "closed"),
    ] {
        assert_eq!(router.sni(host), answer, "{host:?}");
    }
    assert_eq!(router.ask(80, "p.com", "/"), "-", "nothing on port 80");
    router.complains(&[
        "E default/pass spec.defaultBackend: ..left out",
        "E default/pass spec.rules[0].http.paths[1].path: only the path / ..left out",
        "E default/pass spec.rules[1]: a rule without a host ..left out",
        "E default/pass spec.rules[3]: a rule without the path / ..left out",
        "W default/pass spec.tls: ..not used",
    ]);
    // Beside a terminated host the listener does both; the same host twice is a contradiction.
    let tls = ingress("default/tls").rule("t.com", &[("/", 'P', "a:80")]).tls(&["t.com"], "s");
    let twice =
        ingress("default/z").note("tls-passthrough", "true").rule("t.com", &[("/", 'P', "b:80")]);
    let pass =
        ingress("default/a").note("tls-passthrough", "true").rule("p.com", &[("/", 'P', "b:80")]);
    let router = routed(shared(), with_secret(&[tls, twice, pass], "default/s", &["t.com"]));
    assert_eq!(router.sni(Some("t.com")), "default/s");
    assert_eq!(router.sni(Some("p.com")), "pass b:80");
    assert_eq!(router.ask(80, "t.com", "/"), "https");
    router.complains(&["E default/z ..already terminated for Ingress default/tls"]);
}

#[test]
fn two_ingresses_with_different_certificates_for_one_host() {
    let one = ingress("default/one").rule("t.com", &[("/1", 'P', "a:80")]).tls(&["t.com"], "s");
    let two = ingress("default/two").rule("t.com", &[("/2", 'P', "b:80")]).tls(&["t.com"], "s2");
    let mut objects = with_secret(&[one, two], "default/s", &["t.com"]);
    let (chain, key) = certificate(&["t.com"], 2025, 2030);
    put(&mut objects.secrets, secret("default/s2", &chain, &key));
    let router = routed(shared(), objects);
    assert_eq!(router.sni(Some("t.com")), "default/s");
    assert_eq!(router.ask(443, "t.com", "/1"), "a:80");
    assert_eq!(router.ask(443, "t.com", "/2"), "b:80");
    router.complains(&["W default/two spec.tls[0].secretName: Secret default/s2 is not used for host \"t.com\": Ingress default/one already names Secret default/s"]);
}

#[test]
fn certificates_are_parsed_once() {
    let web = |path: &str| {
        ingress("default/web").rule("t.com", &[(path, 'P', "a:80")]).tls(&["t.com"], "s")
    };
    let objects = with_secret(&[web("/")], "default/s", &["t.com"]);
    let mut router = routed(shared(), objects.clone());
    for path in ["/1", "/2", "/3"] {
        let mut changed = objects.clone();
        put(&mut changed.ingresses, web(path).0);
        router.objects(changed);
    }
    assert_eq!(router.sent.0, 4);
    assert_eq!(router.server.work().certificates, 1);
}
