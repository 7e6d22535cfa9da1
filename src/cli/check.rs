//! `pilus check`
use std::fmt::Write;
use std::path::PathBuf;

use super::args::Check;
use super::{Failure, Output, config_file};
use crate::api::config::Config;
use crate::api::objects::Objects;
use crate::api::problem::{Problem, Severity};
use crate::arrange::Arrange;
use crate::io::clock::unix_seconds;
use crate::io::files::read_once;
use crate::server::{endpoint, ipam, manifests, route};

/// Validates files and directories without an agent.
pub(super) fn check(arguments: &Check) -> Result<Output, Failure> {
    if arguments.paths.is_empty() {
        return Err(Failure::Usage("pilus check needs at least one file or directory".to_owned()));
    }
    let mut config = Config::default();
    if let Some(file) = &arguments.config {
        config_file::read_file(Some(file), &mut config)?;
    }
    let (objects, problems) = faults(&arguments.paths, &config);
    Ok(report(&objects, problems))
}

/// All problems in order, and a line that counts them.
fn report(objects: &Objects, mut problems: Vec<Problem>) -> Output {
    problems.arrange();
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
        numbered(count(objects), "object"),
        numbered(errors, "error"),
        numbered(warnings, "warning")
    );
    if !objects.skipped.is_empty() {
        let kinds = objects.skipped.iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds: Vec<String> = kinds.collect();
        let _ = writeln!(text, "skipped, of kinds that are not read: {}", kinds.join(", "));
    }
    Output { text, good: errors == 0 }
}

/// The objects, and everything that is wrong with them: each for itself, and together.
fn faults(paths: &[String], config: &Config) -> (Objects, Vec<Problem>) {
    let sources: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let (files, subdirectories) = read_once(&sources);
    let (objects, mut problems) = manifests::check(&files);
    problems.extend(endpoint::check(&objects));
    problems.extend(ipam::check(&objects, config));
    problems.extend(route::check(&objects, config, unix_seconds()));
    problems.extend(subdirectories.iter().map(|path| Problem {
        position: None,
        object: None,
        field: String::new(),
        message: format!("{}: a directory in a directory is not read", path.display()),
        severity: Severity::Warning,
    }));
    (objects, problems)
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
        + objects.gateway_classes.len()
        + objects.gateways.len()
        + objects.listener_sets.len()
        + objects.http_routes.len()
        + objects.grpc_routes.len()
        + objects.tls_routes.len()
        + objects.tcp_routes.len()
        + objects.udp_routes.len()
        + objects.reference_grants.len()
        + objects.backend_tls_policies.len()
        + objects.backend_traffic_policies.len()
        + objects.external_backends.len()
        + objects.leases.len()
}
