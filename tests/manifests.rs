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
