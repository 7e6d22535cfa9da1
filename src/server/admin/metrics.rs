//! `/metrics`: Prometheus text. The names of LB-IPAM's metrics are Cilium's (LB-19) with `pilus_` in
//! place of `cilium_operator_`.
use std::fmt::{Display, Write};

use super::moment::Moment;
use super::state::State;
use super::status::object_counts;
use super::{VERSION, list};
use crate::api::announce::Role;
use crate::api::meta::Kind;
use crate::api::problem::Severity;
use crate::api::query::ShownStatus;
use crate::api::status::Truth;
use crate::io::process;
use crate::kernel::{ServerReport, ServerState};

const POOL_CONFLICT: &str = "cilium.io/PoolConflict";
const IPS_AVAILABLE: &str = "cilium.io/IPsAvailable";
const IPS_USED: &str = "cilium.io/IPsUsed";
const REQUEST_SATISFIED: &str = "cilium.io/IPAMRequestSatisfied";

struct Page(String);

/// All metrics at one moment.
pub(super) fn metrics(state: &State, moment: Moment) -> String {
    let mut page = Page(String::new());
    page.family("pilus_build_info", "gauge", "The version that runs; always 1.");
    page.sample("pilus_build_info", &[("version", VERSION), ("node", &state.config.node)], 1);
    process_figures(&mut page, state, moment);
    ipam(&mut page, state);
    announcements(&mut page, state);
    objects(&mut page, state);
    servers(&mut page, &state.reports());
    for counters in &state.counters {
        for (name, value) in counters() {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let name = format!("pilus_{name}");
            let _ = writeln!(page.0, "# TYPE {name} {kind}\n{name} {value}");
        }
    }
    page.0
}

fn process_figures(page: &mut Page, state: &State, moment: Moment) {
    let uptime = moment.time.since(state.started).as_secs();
    let start = moment.unix.saturating_sub(uptime);
    page.family("process_start_time_seconds", "gauge", "When the agent started, since 1970.");
    page.sample("process_start_time_seconds", &[], start);
    if let Some(usage) = process::usage() {
        page.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        page.sample("process_resident_memory_bytes", &[], usage.resident_bytes);
        page.family("process_cpu_seconds_total", "counter", "User and system time.");
        page.sample("process_cpu_seconds_total", &[], usage.cpu.as_secs_f64());
        page.family("process_open_fds", "gauge", "Open descriptors.");
        page.sample("process_open_fds", &[], usage.open_fds);
    }
}

fn condition<'a>(status: &'a ShownStatus, kind: &str) -> Option<&'a crate::api::status::Condition> {
    status.conditions.iter().map(|(condition, _)| condition).find(|it| it.kind == kind)
}

fn ipam(page: &mut Page, state: &State) {
    let statuses = &state.view.statuses;
    let pools = statuses.iter().filter(|(key, _)| key.kind == Kind::CiliumLoadBalancerIPPool);
    let services = statuses.iter().filter(|(key, _)| key.kind == Kind::Service);
    let is = |status: &ShownStatus, kind: &str, truth: Truth| {
        condition(status, kind).is_some_and(|condition| condition.status == truth)
    };
    let conflicting = pools.clone().filter(|(_, it)| is(it, POOL_CONFLICT, Truth::True)).count();
    page.family("pilus_lbipam_conflicting_pools", "gauge", "Pools that overlap another.");
    page.sample("pilus_lbipam_conflicting_pools", &[], conflicting);
    for (metric, kind, help) in [
        ("pilus_lbipam_ips_available", IPS_AVAILABLE, "Free addresses of a pool."),
        ("pilus_lbipam_ips_used", IPS_USED, "Assigned addresses of a pool."),
    ] {
        page.family(metric, "gauge", help);
        for (key, status) in pools.clone() {
            // An IPv6 pool has more addresses than fit any integer of ours: the text is the number.
            let value = condition(status, kind).map(|it| it.message.as_str());
            let number = value.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            if let Some(number) = number.filter(|text| !text.is_empty()) {
                page.sample(metric, &[("pool", &key.name.name)], number);
            }
        }
    }
    let matching = services.clone().filter(|(_, it)| condition(it, REQUEST_SATISFIED).is_some());
    let unsatisfied = services.filter(|(_, it)| is(it, REQUEST_SATISFIED, Truth::False)).count();
    page.family("pilus_lbipam_services_matching", "gauge", "Services that LB-IPAM handles.");
    page.sample("pilus_lbipam_services_matching", &[], matching.count());
    page.family("pilus_lbipam_services_unsatisfied", "gauge", "Those without what they asked for.");
    page.sample("pilus_lbipam_services_unsatisfied", &[], unsatisfied);
}

fn announcements(page: &mut Page, state: &State) {
    page.family("pilus_announced_addresses", "gauge", "Addresses by this node's role.");
    for role in [Role::Holder, Role::Standby, Role::Probing, Role::Conflict] {
        let count = state.announcements.list.iter().filter(|entry| entry.role == role).count();
        page.sample("pilus_announced_addresses", &[("role", list::role(role))], count);
    }
    if let Some(programmed) = &state.programmed {
        page.family("pilus_datapath_generation", "gauge", "The generation the hooks hold.");
        page.sample("pilus_datapath_generation", &[], programmed.generation.0);
        page.family("pilus_datapath_failures", "gauge", "What could not be applied.");
        page.sample("pilus_datapath_failures", &[], programmed.failures.len());
    }
}

fn objects(page: &mut Page, state: &State) {
    page.family("pilus_objects", "gauge", "Objects by kind, generated ones included.");
    for (kind, count) in object_counts(state) {
        page.sample("pilus_objects", &[("kind", kind.as_str())], count);
    }
    page.family("pilus_problems", "gauge", "Complaints shown by `pilus status`.");
    for (name, severity) in [("error", Severity::Error), ("warning", Severity::Warning)] {
        let problems = state.view.problems.iter();
        let count = problems.filter(|(_, problem)| problem.severity == severity).count();
        page.sample("pilus_problems", &[("severity", name)], count);
    }
}

fn servers(page: &mut Page, reports: &[ServerReport]) {
    type Column = (&'static str, &'static str, &'static str, fn(&ServerReport) -> u64);
    let columns: [Column; 5] = [
        ("pilus_server_up", "gauge", "1 while the server takes messages.", |it| {
            u64::from(it.state == ServerState::Running)
        }),
        ("pilus_server_restarts_total", "counter", "Crashes.", |it| it.crashes),
        ("pilus_server_messages_total", "counter", "Messages handled.", |it| it.handled),
        ("pilus_server_refused_total", "counter", "Messages refused.", |it| it.refused),
        ("pilus_server_mailbox", "gauge", "Messages waiting.", |it| it.waiting as u64),
    ];
    for (metric, kind, help, value) in columns {
        page.family(metric, kind, help);
        for report in reports {
            page.sample(metric, &[("server", report.name)], value(report));
        }
    }
}

// === impl Page ===

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if index == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}
