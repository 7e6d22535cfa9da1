//! `/v1/status` and `/v1/config`.
use std::collections::{BTreeMap, BTreeSet};

use super::list::{announcements, listener_protocol, name, object_key};
use super::moment::{Moment, rfc3339};
use super::routes::hosts;
use super::state::{State, place_of};
use super::{API_VERSION, VERSION};
use crate::api::config::{Config, IngressMode};
use crate::api::meta::{Kind, Meta, Origin};
use crate::api::objects::HasMeta;
use crate::api::problem::{Problem, Severity};
use crate::arrange::Gather;
use crate::kernel::{ServerReport, ServerState};
use crate::proto::value::Value;

/// How many complaints one answer lists; more are only counted, so that the answer stays readable and
/// its making does not hold up the loop.
const PROBLEMS_SHOWN: usize = 1_000;

/// Everything `pilus status` prints.
pub(super) fn status(state: &State, moment: Moment) -> Value {
    let uptime = moment.time.since(state.started).as_secs();
    let problems = &state.view.problems;
    let shown = problems.iter().take(PROBLEMS_SHOWN).map(|(since, it)| problem(*since, it));
    let not_announced = state.announcements.not_announced.iter().map(|(service, why)| {
        Value::map().with("service", name(service)).with("why", why.as_str())
    });
    let servers = state.reports();
    Value::map()
        .with("apiVersion", API_VERSION)
        .with("kind", "Status")
        .with("node", &*state.config.node)
        .with("version", VERSION)
        .with("startedAt", rfc3339(moment.unix.saturating_sub(uptime)))
        .with("uptimeSeconds", uptime)
        .with("servers", servers.iter().map(|it| server(it, moment)).collect::<Vec<_>>())
        .with("sources", sources(state))
        .with("addresses", announcements(state, moment))
        .with("notAnnounced", not_announced.collect::<Vec<_>>())
        .with("listeners", listeners(state))
        .with("datapath", datapath(state))
        .with("problemCount", problems.len())
        .with("problems", shown.collect::<Vec<_>>())
}

fn server(report: &ServerReport, moment: Moment) -> Value {
    let (name, restart) = match report.state {
        ServerState::Running => ("Running", None),
        ServerState::Restarting(at) => ("Restarting", Some(at.since(moment.time).as_secs())),
    };
    Value::map()
        .with("name", report.name)
        .with("state", name)
        .with_some("restartInSeconds", restart)
        .with("restarts", report.crashes)
        .with_some("lastPanic", report.last_panic.as_deref())
        .with("handled", report.handled)
        .with("waiting", report.waiting)
        .with("refused", report.refused)
}

/// How many objects of each kind there are, in the order of [`Kind::ALL`].
pub(super) fn object_counts(state: &State) -> [(Kind, usize); Kind::ALL.len()] {
    let objects = &state.view.objects;
    let declared_endpoints =
        objects.endpoint_slices.keys().filter(|name| name.name.starts_with("endpoints/")).count();
    Kind::ALL.map(|kind| {
        let count = match kind {
            Kind::Namespace => objects.namespaces.len(),
            Kind::Node => objects.nodes.len(),
            Kind::Pod => objects.pods.len(),
            Kind::Service => objects.services.len(),
            Kind::Endpoints => declared_endpoints,
            Kind::EndpointSlice => objects.endpoint_slices.len() - declared_endpoints,
            Kind::Secret => objects.secrets.len(),
            Kind::ConfigMap => objects.config_maps.len(),
            Kind::Ingress => objects.ingresses.len(),
            Kind::IngressClass => objects.ingress_classes.len(),
            Kind::CiliumLoadBalancerIPPool => objects.pools.len(),
            Kind::CiliumL2AnnouncementPolicy => objects.l2_policies.len(),
            Kind::GatewayClass => objects.gateway_classes.len(),
            Kind::Gateway => objects.gateways.len(),
            Kind::ListenerSet => objects.listener_sets.len(),
            Kind::HttpRoute => objects.http_routes.len(),
            Kind::GrpcRoute => objects.grpc_routes.len(),
            Kind::TlsRoute => objects.tls_routes.len(),
            Kind::TcpRoute => objects.tcp_routes.len(),
            Kind::UdpRoute => objects.udp_routes.len(),
            Kind::ReferenceGrant => objects.reference_grants.len(),
            Kind::BackendTlsPolicy => objects.backend_tls_policies.len(),
            Kind::XBackendTrafficPolicy => objects.backend_traffic_policies.len(),
            Kind::XBackend => objects.external_backends.len(),
            Kind::Lease => objects.leases.len(),
        };
        (kind, count)
    })
}

fn sources(state: &State) -> Value {
    let directories =
        state.config.manifests.iter().map(|path| Value::from(path.display().to_string()));
    let counts = object_counts(state);
    let by_kind = counts.iter().filter(|(_, count)| *count > 0);
    let by_kind = by_kind.map(|(kind, count)| (kind.as_str(), *count));
    let skipped = state.view.objects.skipped.iter();
    let skipped = skipped.map(|(kind, count)| (kind.as_str(), *count));
    let (files, generated) = count_origins(state);
    Value::map()
        .with("directories", directories.collect::<Vec<_>>())
        .with_some("kubernetes", state.config.kubernetes.as_ref().map(ToString::to_string))
        .with("files", files)
        .with("objects", counts.iter().map(|(_, count)| count).sum::<usize>())
        .with("generated", generated)
        .with("byKind", by_kind.collect::<Value>())
        .with("skipped", skipped.collect::<Value>())
}

/// How many files have given objects, and how many objects Pilus made itself.
fn count_origins(state: &State) -> (usize, usize) {
    let objects = &state.view.objects;
    let mut files: BTreeSet<&str> = BTreeSet::new();
    let mut generated = 0;
    fn visit<'a>(meta: &'a Meta, files: &mut BTreeSet<&'a str>, generated: &mut usize) {
        match &meta.origin {
            Origin::File(origin) => {
                files.insert(&origin.file);
            }
            Origin::Generated(_) => *generated += 1,
            Origin::Cluster => {}
        }
    }
    macro_rules! visit_all {
        ($($table:ident),*) => {
            $(for object in objects.$table.values() {
                visit(object.meta(), &mut files, &mut generated);
            })*
        };
    }
    visit_all!(
        namespaces,
        nodes,
        pods,
        services,
        endpoint_slices,
        secrets,
        config_maps,
        ingresses,
        ingress_classes,
        pools,
        l2_policies,
        gateway_classes,
        gateways,
        listener_sets,
        http_routes,
        grpc_routes,
        tls_routes,
        tcp_routes,
        udp_routes,
        reference_grants,
        backend_tls_policies,
        backend_traffic_policies,
        external_backends,
        leases
    );
    (files.len(), generated)
}

fn listeners(state: &State) -> Vec<Value> {
    let addresses = state.listener_addresses();
    let item = |listener: &std::sync::Arc<crate::api::route::Listener>| {
        let own = addresses.get(&place_of(listener)).map_or(&[][..], |it| it);
        let hosts = hosts(listener);
        let routes: usize = hosts
            .iter()
            .map(|(_, host)| host.exact.len() + host.regex.len() + host.prefix.len())
            .sum();
        Value::map()
            .with("service", name(&listener.service))
            .with("port", listener.port.0)
            .with("protocol", listener_protocol(listener.protocol))
            .with("addresses", own.iter().map(|ip| Value::from(ip.to_string())).collect::<Vec<_>>())
            .with("hosts", hosts.len())
            .with("routes", routes)
            .with(
                "certificates",
                listener.tls.exact.len() + listener.tls.wildcard.len() + listener.tls.suffix.len(),
            )
    };
    state.all_listeners().iter().map(item).collect()
}

fn datapath(state: &State) -> Value {
    let hooks = state
        .datapath
        .lines
        .iter()
        .chain(&state.services.lines)
        .map(|(name, value)| Value::map().with("name", &**name).with("value", value.as_str()));
    let mut json = Value::map().with("enabled", !state.config.no_bpf);
    if let Some(programmed) = &state.programmed {
        json.set("generation", programmed.generation.0);
        let failures = programmed.failures.iter().map(|text| Value::from(text.as_str()));
        json.set("failures", failures.collect::<Vec<_>>());
    }
    json.with("hooks", hooks.collect::<Vec<_>>())
}

fn problem(since: u64, problem: &Problem) -> Value {
    let position = problem.position.as_ref().map(|position| {
        Value::map()
            .with("file", &*position.file)
            .with("line", position.line)
            .with("column", position.column)
    });
    let severity = match problem.severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
    };
    Value::map()
        .with("severity", severity)
        .with("since", rfc3339(since))
        .with_some("position", position)
        .with_some("object", problem.object.as_ref().map(object_key))
        .with("field", problem.field.as_str())
        .with("message", problem.message.as_str())
        .with("text", problem.to_string())
}

/// The settings as `cilium config view` names them where Cilium has the same, sorted by key. What is
/// printed is what is in effect.
pub(super) fn config(config: &Config) -> BTreeMap<&'static str, String> {
    let join = |items: Vec<String>| items.join(",");
    let secret = config.default_tls_secret.as_ref();
    let mode = match config.ingress_mode {
        IngressMode::Shared => "shared",
        IngressMode::Dedicated => "dedicated",
    };
    [
        ("access-log", config.access_log.as_ref().map_or(String::new(), ToString::to_string)),
        ("access-log-format", config.access_log_format.name().to_owned()),
        ("admin", config.admin.clone()),
        ("bpf-root", config.bpf_root.display().to_string()),
        ("enable-bpf", (!config.no_bpf).to_string()),
        ("enable-envoy-config", "false".to_owned()),
        ("enable-gateway-api", "true".to_owned()),
        ("enable-ingress-controller", "true".to_owned()),
        ("enable-ipv4", config.ipv4.to_string()),
        ("enable-ipv6", config.ipv6.to_string()),
        ("enable-l2-announcements", (!config.no_bpf).to_string()),
        ("enable-l7-proxy", "true".to_owned()),
        ("enable-lb-ipam", "true".to_owned()),
        ("enforce-ingress-https", config.enforce_https.to_string()),
        ("ingress-default-class", config.ingress_default_class.to_string()),
        ("ingress-default-lb-mode", mode.to_owned()),
        ("ingress-default-secret-name", secret.map_or(String::new(), |it| it.name.to_string())),
        (
            "ingress-default-secret-namespace",
            secret.map_or(String::new(), |it| it.namespace.to_string()),
        ),
        ("ingress-default-xff-num-trusted-hops", config.xff_trusted_hops.to_string()),
        ("ingress-hostnetwork-enabled", config.no_bpf.to_string()),
        ("ingress-http-port", config.host_ports.0.to_string()),
        ("ingress-https-port", config.host_ports.1.to_string()),
        ("interfaces", join(config.interfaces.iter().map(ToString::to_string).collect())),
        ("kube-proxy-replacement", config.kube_proxy_replacement.to_string()),
        ("l2-announcements-advert-interval", format!("{:?}", config.advert_interval)),
        ("kubernetes", config.kubernetes.as_ref().map_or(String::new(), ToString::to_string)),
        ("loadbalancer-l7-algorithm", "round_robin".to_owned()),
        ("manifests", join(config.manifests.iter().map(|it| it.display().to_string()).collect())),
        ("metrics", config.metrics.clone()),
        ("name-prefix", config.name_prefix.to_string()),
        (
            "nameservers",
            config.nameservers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ),
        ("node-name", config.node.to_string()),
        ("state-dir", config.state_dir.display().to_string()),
        ("trusted-proxies", join(config.trusted_proxies.iter().map(ToString::to_string).collect())),
    ]
    .into_iter()
    .gather()
}

/// `/v1/config`
pub(super) fn config_json(state: &State) -> Value {
    let settings = config(&state.config);
    Value::map()
        .with("apiVersion", API_VERSION)
        .with("kind", "Config")
        .with("settings", settings.into_iter().collect::<Value>())
}
