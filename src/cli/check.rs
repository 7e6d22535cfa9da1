//! `pilus check`
use std::fmt::Write;
use std::path::PathBuf;

use super::{Failure, Output};
use crate::api::config::Config;
use crate::api::objects::Objects;
use crate::api::problem::{Problem, Severity};
use crate::io::clock::unix_seconds;
use crate::io::files::read_once;
use crate::server::{endpoint, manifests, route};

/// Validates files and directories without an agent.
pub(super) fn check(paths: &[String]) -> Result<Output, Failure> {
    if paths.is_empty() {
        return Err(Failure::Usage("pilus check needs at least one file or directory".to_owned()));
    }
    let (objects, problems) = faults(paths);
    Ok(report(objects, problems))
}

/// All problems in order, and a line that counts them.
fn report(objects: usize, mut problems: Vec<Problem>) -> Output {
    problems.sort();
    problems.dedup();
    let mut text = String::new();
    for problem in &problems {
        let _ = writeln!(text, "{problem}");
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let numbered = |number: usize, noun: &str| {
        format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
    };
    let _ = writeln!(
        text,
        "{}, {}, {}",
        numbered(objects, "object"),
        numbered(errors, "error"),
        numbered(warnings, "warning")
    );
    Output { text, good: errors == 0 }
}

/// How many objects there are, and everything that is wrong with them: each for itself, and together.
fn faults(paths: &[String]) -> (usize, Vec<Problem>) {
    let sources: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let (files, subdirectories) = read_once(&sources);
    let (objects, mut problems) = manifests::check(&files);
    problems.extend(endpoint::check(&objects));
    problems.extend(route::check(&objects, &Config::default(), unix_seconds()));
    problems.extend(subdirectories.iter().map(|path| Problem {
        position: None,
        object: None,
        field: String::new(),
        message: format!("{}: a directory in a directory is not read", path.display()),
        severity: Severity::Warning,
    }));
    (count(&objects), problems)
}

fn count(objects: &Objects) -> usize {
    objects.namespaces.len()
        + objects.nodes.len()
        + objects.pods.len()
        + objects.services.len()
        + objects.endpoint_slices.len()
        + objects.secrets.len()
        + objects.config_maps.len()
        + objects.ingresses.len()
        + objects.ingress_classes.len()
        + objects.pools.len()
        + objects.l2_policies.len()
        + objects.leases.len()
}
