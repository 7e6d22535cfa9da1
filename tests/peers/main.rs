//! Clients and backends that others wrote: gRPC by grpcio, WebSocket by websockets and wsproto, through a real agent
//! between network namespaces. The Python scripts say what came of each check; scripts/tools installs the packages.
#![expect(clippy::unwrap_used, reason = "a test: whatever fails should end it with its place")]
#[path = "../bpf_lab/mod.rs"]
mod bpf_lab;
#[allow(dead_code, reason = "the conformance scenarios use the rest")]
#[path = "../conformance/ground.rs"]
mod ground;
#[allow(dead_code, reason = "the conformance scenarios use the rest")]
#[path = "../conformance/language.rs"]
mod language;
#[path = "../conformance/manifest.rs"]
mod manifest;
#[path = "../conformance/python.rs"]
mod python;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ground::Ground;
use language::What;
use pilus::proto::value::Value;

/// A backend that runs until its standard input ends.
struct Backend(Child);

impl Backend {
    fn start(ground: &Ground, script: &str, arguments: &[&str]) -> Self {
        let mut command = peer(&ground.pods_namespace(), script);
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn peer(namespace: &str, script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg(python::interpreter())
        .arg(root.join("tests/peers").join(script));
    command
}

/// Brings up what the file of the area describes, and returns the address of its Gateway `shop`.
fn bring_up(area: &str, ground: &mut Ground) -> String {
    let scenario = language::read(&format!("../peers/{area}.scenarios")).remove(0);
    let documents: Vec<String> = scenario
        .steps
        .iter()
        .map(|step| match &step.what {
            What::Apply(block) => manifest::expand(block, area, ground),
            _ => panic!("only objects"),
        })
        .collect();
    ground.write(area, &documents.concat());
    ground.start();
    bpf_lab::eventually("the Gateway is not programmed", || {
        let gateway = ground.object("gateway", area, "shop").ok()?;
        let conditions = gateway.items_at("status.conditions");
        let mut programmed = conditions.iter().filter(|it| it.text_at("type") == "Programmed");
        programmed.find(|it| it.text_at("status") == "True")?;
        gateway.items_at("status.addresses").first()?.get("value").map(Value::plain)
    })
}

/// Runs the client; `count` checks must have gone well, and none badly.
fn check(ground: &Ground, script: &str, address: &str, area: &str, count: usize) {
    let output = peer(&ground.client_namespace(), script)
        .args([address, "kit.test", &ground.file(area, "keys", "crt")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let failed: Vec<&str> = text.lines().filter(|line| !line.starts_with("ok ")).collect();
    let good = text.lines().filter(|line| line.starts_with("ok ")).count();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && failed.is_empty() && good == count,
        "{good} of {count} checks went well:\n{}\n{errors}\n--- the agent\n{}",
        failed.join("\n"),
        ground.log()
    );
}

#[test]
fn grpc_calls_by_grpcio() {
    needs_root!("grpc_calls_by_grpcio");
    let mut ground = Ground::new("grpc-peers");
    let address = bring_up("grpc", &mut ground);
    let pod = ground.addresses("grpc", "calls")[0].clone();
    let sealed = ground.addresses("grpc", "sealed")[0].clone();
    let (certificate, key) =
        (ground.file("grpc", "inner", "crt"), ground.file("grpc", "inner", "key"));
    let _plain = Backend::start(&ground, "grpc_backend.py", &[&format!("{pod}:4000")]);
    let sealed = format!("{sealed}:4001");
    let _sealed = Backend::start(&ground, "grpc_backend.py", &[&sealed, &certificate, &key]);
    check(&ground, "grpc_client.py", &address, "grpc", 3 * 13 + 3);
}

#[test]
fn websockets_by_wsproto() {
    needs_root!("websockets_by_wsproto");
    let mut ground = Ground::new("ws-peers");
    let address = bring_up("ws", &mut ground);
    let pod = ground.addresses("ws", "echo")[0].clone();
    let _backend = Backend::start(&ground, "ws_backend.py", &[&pod, "4002"]);
    check(&ground, "ws_client.py", &address, "ws", 4 * 15);
}
