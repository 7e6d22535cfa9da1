//! h2spec, the conformance test of HTTP/2, against the proxy; `scripts/test` installs it.
mod support;

use std::process::Command;

use support::backend::Backend;
use support::{Front, NameSpec, RouteSpec, TestProxy, World, certificate, free_port};

/// Runs h2spec with these arguments; returns its last line.
fn h2spec(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("h2spec")
        .args(["--host", "localhost", "--timeout", "5", "--port", &port.to_string()])
        .args(arguments)
        .output()
        .expect("h2spec is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failures = text.split("Failures:").nth(1).unwrap_or_default();
    assert!(output.status.success(), "h2spec {arguments:?}: {failures}\n{text}");
    text.trim_end().lines().last().unwrap_or_default().to_owned()
}

#[test]
fn every_case_of_h2spec_passes() {
    let backend = Backend::answering("long enough for a window of one byte after the other");
    let (plain, tls) = (free_port(), free_port());
    let mut world = World::simple(plain, &[backend.address]);
    let (key, _) = certificate("localhost");
    let secure = Front {
        tls: true,
        names: vec![("localhost".to_owned(), NameSpec::Certificate(key))],
        ..Front::http(tls, vec![RouteSpec::all("web")])
    };
    world.listeners.push(secure);
    let proxy = TestProxy::start(world);
    assert_eq!(
        h2spec(tls, &["--tls", "--insecure", "--strict"]),
        "146 tests, 146 passed, 0 skipped, 0 failed"
    );
    // On a port that also speaks HTTP/1.1, what is no preface is answered as that (the one case of section 3.5).
    for section in ["generic", "hpack", "http2/4", "http2/5", "http2/6", "http2/7", "http2/8"] {
        let summary = h2spec(plain, &[section, "--strict"]);
        assert!(summary.ends_with(" 0 skipped, 0 failed"), "{section}: {summary}");
        assert!(!summary.starts_with("0 tests"), "{section}: {summary}");
    }
    assert_eq!(proxy.stats().connections_panicked, 0);
}
