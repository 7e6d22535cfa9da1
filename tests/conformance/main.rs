//! Every situation that the published conformance tests of Gateway API v1.6.1 look at (but for Mesh), in our own
//! data: the *.scenarios files, in the language that README.md describes. One real agent for each file, with a
//! client and pods in network namespaces of their own; all objects of a file are there from the start, so that each
//! scenario also shows that the others do not disturb it. Needs root.
//!
//! `PILUS_SCENARIO=HTTPRouteWeight cargo test --test conformance http_match` runs one of them.
#![expect(clippy::unwrap_used, reason = "a test: whatever fails should end it with its place")]
#![expect(clippy::disallowed_methods, reason = "waits are bounded by the clock")]
#[path = "../bpf_lab/mod.rs"]
mod bpf_lab;
mod coverage;
#[allow(dead_code, reason = "the peers use the rest")]
mod ground;
mod language;
mod manifest;
mod python;
mod status;
mod traffic;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ground::Ground;
use language::{Block, Scenario, Step, What, namespaced};

/// Until a step's result is as wanted. Only a test that fails waits it out.
const PATIENCE: Duration = Duration::from_secs(15);
/// After one step of a scenario has failed, the others get less.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// The objects of a scenario, in the order in which they came.
#[derive(Default)]
struct Objects(Vec<Block>);

macro_rules! areas {
    ($($name:ident)*) => {
        pub(crate) const AREAS: &[&str] = &[$(concat!(stringify!($name), ".scenarios")),*];
        $(#[test]
        fn $name() {
            needs_root!(stringify!($name));
            run_area(stringify!($name));
        })*
    };
}

areas! { gateway http_match http_routes http_filters tls frontend_tls backend_tls tcp udp grpc listener_set }

fn run_area(area: &str) {
    let only = std::env::var("PILUS_SCENARIO").ok();
    let mut scenarios = language::read(&format!("{area}.scenarios"));
    scenarios.retain(|it| only.as_ref().is_none_or(|name| it.test == *name));
    if scenarios.is_empty() {
        return; // the one that was asked for is in another file
    }
    let mut ground = Ground::new(area);
    let mut objects = Vec::new();
    for scenario in &scenarios {
        let mut all = Objects::default();
        let first = scenario.steps.iter().map_while(|step| match &step.what {
            What::Apply(block) => Some(block),
            _ => None,
        });
        for block in first {
            all.apply(block);
        }
        all.write(scenario, &mut ground);
        objects.push(all);
    }
    ground.start();
    let mut report = String::new();
    for (scenario, objects) in scenarios.iter().zip(&mut objects) {
        let failures = run_scenario(scenario, objects, &mut ground);
        let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
        eprintln!("scenario {} ... {verdict}", scenario.test);
        for (line, failure) in failures {
            let _ = writeln!(report, "{} ({area}.scenarios:{line}): {failure}", scenario.test);
        }
    }
    assert!(report.is_empty(), "\n{report}\n--- the agent\n{}", ground.log());
}

/// Runs what comes after the first objects; the lines that failed, and how.
fn run_scenario(
    scenario: &Scenario,
    objects: &mut Objects,
    ground: &mut Ground,
) -> Vec<(usize, String)> {
    let mut failures = Vec::new();
    let applied =
        scenario.steps.iter().take_while(|step| matches!(step.what, What::Apply(_))).count();
    let mut changed = false;
    for (at, step) in scenario.steps.iter().enumerate().skip(applied) {
        match &step.what {
            What::Apply(block) => objects.apply(block),
            What::Delete { kind, name } => objects.delete(kind, name),
            _ => {
                if std::mem::take(&mut changed) {
                    objects.write(scenario, ground);
                }
                let patience = if failures.is_empty() { PATIENCE } else { IMPATIENCE };
                if let Some(failure) = settle(step, scenario, ground, patience) {
                    failures.push((step.line, failure));
                }
                continue;
            }
        }
        changed = true;
        assert!(at + 1 < scenario.steps.len(), "{}: a change that nobody looks at", scenario.test);
    }
    failures
}

/// Repeats a step until its result is as wanted; what is wrong with it in the end.
fn settle(
    step: &Step,
    scenario: &Scenario,
    ground: &mut Ground,
    patience: Duration,
) -> Option<String> {
    let begun = Instant::now();
    let namespace = scenario.namespace();
    loop {
        let (what, wrong) = match &step.what {
            What::Status(line) => {
                let (of, name) = namespaced(&line.name, &namespace);
                let wrong = match ground.object(&line.kind.to_lowercase(), of, name) {
                    Ok(object) => status::differences(&object, line),
                    Err(message) => vec![message],
                };
                (format!("{} {}", line.kind, line.name), wrong)
            }
            What::Request(line) => {
                (line.text.clone(), traffic::differences(ground, &namespace, line))
            }
            What::Apply(_) | What::Delete { .. } => unreachable!("handled by the caller"),
        };
        if wrong.is_empty() {
            return None;
        }
        if begun.elapsed() > patience {
            return Some(format!("{what}\n    {}", wrong.join("\n    ")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

// === impl Objects ===

impl Objects {
    /// Adds an object, or takes the place of the one with its kind and name.
    fn apply(&mut self, block: &Block) {
        let same = |it: &&mut Block| it.kind == block.kind && it.name == block.name;
        match self.0.iter_mut().find(same) {
            Some(old) => *old = block.clone(),
            None => self.0.push(block.clone()),
        }
    }

    fn delete(&mut self, kind: &str, name: &str) {
        let before = self.0.len();
        self.0.retain(|it| it.kind != kind || it.name != name);
        assert!(self.0.len() < before, "there is no {kind} {name} to delete");
    }

    fn write(&self, scenario: &Scenario, ground: &mut Ground) {
        let namespace = scenario.namespace();
        let documents: Vec<String> =
            self.0.iter().map(|block| manifest::expand(block, &namespace, ground)).collect();
        ground.write(&namespace, &documents.concat());
    }
}
