//! Static manifests: what people have in their hands loads, and every fault is named with its place.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures must fail")]
use std::fs;
use std::path::{Path, PathBuf};

use pilus::api::problem::Severity;
use pilus::server::manifests::check;

fn yaml_files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

fn example_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/examples"), &mut files);
    files.sort();
    files
}

#[test]
fn every_example_loads_without_an_error() {
    let files = example_files();
    assert!(files.len() > 90, "{} examples", files.len());
    for file in files {
        let content = fs::read(&file).unwrap();
        let (_, problems) = check(&[(file, Ok(content))]);
        for problem in problems {
            assert_eq!(problem.severity, Severity::Warning, "{problem}");
            println!("{problem}");
        }
    }
}

/// Examples that go together, and what is left to their user.
const TOGETHER: &[(&[&str], &[&str])] = &[
    (&["bookinfo", "gateway-class", "gateway-http"], &[]),
    (
        &["bookinfo", "gateway-class", "gateway-https"],
        &["Secret default/demo-cert", "Secret default/demo-cert", "Service default/webpod"],
    ),
    (&["gateway-class", "gateway-tls-passthrough"], &[]),
    (&["gateway-class", "gateway-tcp-udp"], &[]),
    (&["gateway-class", "gateway-echo", "gateway-splitting"], &[]),
    (&["gateway-class", "gateway-echo", "gateway-request-header"], &[]),
    (&["gateway-class", "gateway-grpc-route"], &[]),
    (&["gateway-class", "gateway-grpc-tls-termination"], &["Secret default/grpc-certificate"]),
    (&["bookinfo", "gateway-class", "gateway-http-migration"], &[]),
    (&["ingress-path-types", "ingress-path-types-ingress"], &[]),
    (&["bookinfo", "ingress-basic", "lb-ippool-l2policy"], &[]),
    (
        &["bookinfo", "ingress-dedicated-webpod", "ingress-other-class-nginx", "ingress-tls"],
        &["Service default/webpod", "Service default/webpod", "Secret default/demo-cert"],
    ),
];

#[test]
fn the_examples_need_nothing_but_what_is_left_to_their_user() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/examples");
    let mut named: Vec<PathBuf> = Vec::new();
    for (names, missing) in TOGETHER {
        let files: Vec<PathBuf> =
            names.iter().map(|name| directory.join(format!("{name}.yaml"))).collect();
        let check = env!("CARGO_BIN_EXE_pilus");
        let output = std::process::Command::new(check).arg("check").args(&files).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let is_error = |line: &&str| line.contains(".yaml:") && !line.contains(": warning: ");
        let errors: Vec<&str> = text.lines().filter(is_error).collect();
        assert_eq!(errors.len(), missing.len(), "{names:?}: {text}");
        for (error, missing) in errors.iter().zip(*missing) {
            assert!(error.contains(&format!("{missing} does not exist")), "{error}");
        }
        named.extend(files);
    }
    let mut found = Vec::new();
    yaml_files(&directory, &mut found);
    for file in found {
        assert!(named.contains(&file), "{} belongs to no set", file.display());
    }
}

/// A manifest and the problems it must give, each as `pilus check` prints it without the file's name.
struct Row {
    name: &'static str,
    text: &'static str,
    problems: &'static [&'static str],
}

fn problems_of(text: &str) -> Vec<String> {
    let (_, problems) = check(&[(PathBuf::from("f"), Ok(text.as_bytes().to_vec()))]);
    problems.iter().map(|problem| problem.to_string().replacen("f:", "", 1)).collect()
}

#[path = "fixtures/faults.rs"]
mod faults;
#[path = "fixtures/gateway_faults.rs"]
mod gateway_faults;
#[path = "fixtures/route_faults.rs"]
mod route_faults;

#[test]
fn every_fault_is_named_with_its_place() {
    let mut wrong = String::new();
    let rows = [faults::ROWS, gateway_faults::ROWS, route_faults::ROWS];
    for row in rows.into_iter().flatten() {
        let found = problems_of(row.text);
        if found != row.problems {
            wrong.push_str(&format!(
                "\n{}:\n  found  {found:#?}\n  wanted {:#?}\n",
                row.name, row.problems
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
