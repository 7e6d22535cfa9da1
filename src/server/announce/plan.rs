//! From the objects to the pairs of address and interface: which may be announced, by which nodes, and
//! which of them this node must keep quiet about (L2-02, L2-03, L2-04, L2-12).
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::interfaces::Lan;
use super::rendezvous::{self, Candidate, MAX_WEIGHT};
use super::timing;
use crate::api::address::{Assignments, IfIndex, NodeName};
use crate::api::config::Config;
use crate::api::endpoint::Endpoints;
use crate::api::meta::{Kind, Labels, Meta, NamespacedName, ObjectKey, Str};
use crate::api::object::{ExternalTrafficPolicy, L2Policy, Node, Service, ServiceType};
use crate::api::objects::Objects;
use crate::api::problem::{Problem, Severity};
use crate::arrange::{Arrange, Gather};

/// The loadBalancerClass that Cilium gives to services announced on layer 2 (L2-03).
const L2_CLASS: &str = "io.cilium/l2-announcer";
/// Marks the Services generated for Ingresses; their endpoints are the proxies of all nodes (L2-12).
const INGRESS_LABEL: &str = "cilium.io/ingress";
/// How much of the load a node takes, 1 to [`MAX_WEIGHT`]; 1 if absent.
const WEIGHT_ANNOTATION: &str = "pilus.dev/announce-weight";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// All that the plan depends on.
pub(super) struct Given<'a> {
    pub(super) config: &'a Config,
    pub(super) objects: &'a Objects,
    pub(super) assignments: &'a Assignments,
    pub(super) endpoints: &'a Endpoints,
    pub(super) lan: &'a Lan,
    /// Interfaces without working hooks, and why.
    pub(super) unhooked: &'a BTreeMap<IfIndex, String>,
}

/// One address on one interface.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    /// Whether this node may hold it.
    pub(super) eligible: bool,
    /// Why not; or how this node ranks.
    pub(super) why: String,
    pub(super) vrid: u8,
    pub(super) priority: u8,
    pub(super) services: Vec<NamespacedName>,
    pub(super) policy: Str,
}

/// What follows from the objects.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) pairs: BTreeMap<(IfIndex, IpAddr), Pair>,
    pub(super) not_announced: BTreeMap<NamespacedName, String>,
    pub(super) problems: Vec<Problem>,
    /// Policies whose interface expressions do not compile, with the error.
    pub(super) bad_interfaces: BTreeMap<ObjectKey, String>,
    /// Addresses beyond what the hooks have room for.
    pub(super) left_out: BTreeSet<IpAddr>,
    pub(super) node_of: BTreeMap<IpAddr, NodeName>,
    /// Services that are announced, with their addresses in order.
    pub(super) announced: BTreeMap<NamespacedName, Vec<IpAddr>>,
}

struct Policy<'a> {
    object: &'a L2Policy,
    regexes: Vec<regex_lite::Regex>,
    /// Nodes its selector matches.
    nodes: BTreeSet<NodeName>,
}

#[derive(Default)]
struct Wanted<'a> {
    services: Vec<NamespacedName>,
    policies: Vec<&'a Policy<'a>>,
    eligible: BTreeSet<NodeName>,
    why_not: String,
}

struct Planner<'a> {
    given: &'a Given<'a>,
    nodes: Vec<(Candidate, Labels)>,
    plan: Plan,
}

/// Computes the plan.
pub(super) fn plan(given: &Given<'_>) -> Plan {
    let mut planner = Planner { given, nodes: Vec::new(), plan: Plan::default() };
    planner.read_nodes();
    let policies = planner.read_policies();
    let wanted = planner.wanted_addresses(&policies);
    planner.place(&wanted);
    let mut plan = planner.plan;
    plan.problems.arrange();
    plan.problems.dedup();
    plan
}

// === impl Planner ===

impl<'a> Planner<'a> {
    fn problem(&mut self, meta: &Meta, kind: Kind, field: &str, severity: Severity, text: String) {
        self.plan.problems.push(Problem {
            position: meta.position(field),
            object: Some(ObjectKey { kind, name: meta.name.clone() }),
            field: field.to_owned(),
            message: text,
            severity,
        });
    }

    fn read_nodes(&mut self) {
        let objects = self.given.objects;
        for node in objects.nodes.values() {
            let name = NodeName::clone(&node.meta.name.name);
            for &address in &node.internal_ips {
                self.plan.node_of.insert(address, NodeName::clone(&name));
            }
            let mut labels = node.meta.labels.clone();
            labels.entry(HOSTNAME_LABEL.into()).or_insert_with(|| NodeName::clone(&name));
            let weight = self.weight(node);
            self.nodes.push((Candidate { name, weight }, labels));
        }
        let me = NodeName::clone(&self.given.config.node);
        if self.nodes.iter().any(|(node, _)| node.name == me) {
            return;
        }
        if !self.nodes.is_empty() {
            self.plan.problems.push(Problem {
                position: None,
                object: Some(ObjectKey {
                    kind: Kind::Node,
                    name: NamespacedName { namespace: "".into(), name: NodeName::clone(&me) },
                }),
                field: String::new(),
                message: format!(
                    "there are Node objects, but none named {me:?}: this node has no labels for a \
                     nodeSelector to match, and the other nodes rank without it; add the Node or \
                     start this agent with --node"
                ),
                severity: Severity::Warning,
            });
        }
        let labels = Labels::from([(HOSTNAME_LABEL.into(), NodeName::clone(&me))]);
        self.nodes.push((Candidate { name: me, weight: 1 }, labels));
    }

    fn weight(&mut self, node: &Node) -> u8 {
        let Some(text) = node.meta.annotation(WEIGHT_ANNOTATION) else { return 1 };
        if let Some(weight) = text.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight)) {
            return weight;
        }
        let field = format!("metadata.annotations.{WEIGHT_ANNOTATION}");
        let text = format!("{text:?} is no whole number from 1 to {MAX_WEIGHT}; 1 is taken");
        self.problem(&node.meta, Kind::Node, &field, Severity::Warning, text);
        1
    }

    fn read_policies(&mut self) -> Vec<Policy<'a>> {
        let mut policies = Vec::new();
        for object in self.given.objects.l2_policies.values() {
            let (meta, kind) = (&object.meta, Kind::CiliumL2AnnouncementPolicy);
            let mut regexes = Vec::new();
            let mut broken = None;
            for (i, text) in object.interfaces.iter().enumerate() {
                match regex_lite::Regex::new(text) {
                    Ok(regex) => regexes.push(regex),
                    Err(error) => broken = Some((i, format!("{text:?}: {error}"))),
                }
            }
            if let Some((i, error)) = broken {
                let key = ObjectKey { kind, name: meta.name.clone() };
                self.plan.bad_interfaces.insert(key, error.clone());
                let field = format!("spec.interfaces[{i}]");
                let text = format!("{error}; the whole policy is left out");
                self.problem(meta, kind, &field, Severity::Error, text);
                continue;
            }
            let nodes = self.nodes.iter().filter(|(_, labels)| {
                object.node_selector.as_ref().is_none_or(|selector| selector.matches(labels))
            });
            let nodes: BTreeSet<NodeName> =
                nodes.map(|(node, _)| NodeName::clone(&node.name)).gather();
            if nodes.is_empty() {
                let hint = if self.given.objects.nodes.is_empty() {
                    "there are no Node objects; add one for each node, with its labels"
                } else {
                    "no node has these labels"
                };
                let text = format!("selects no node, so nothing is announced: {hint}");
                self.problem(meta, kind, "spec.nodeSelector", Severity::Warning, text);
            }
            if !object.load_balancer_ips && !object.external_ips {
                let text =
                    "announces nothing: set spec.loadBalancerIPs or spec.externalIPs to true";
                self.problem(meta, kind, "spec", Severity::Warning, text.to_owned());
            }
            policies.push(Policy { object, regexes, nodes });
        }
        self.check_interfaces(&policies);
        self.check_named_interfaces();
        policies
    }

    /// `--interface` with a name that this node does not have.
    fn check_named_interfaces(&mut self) {
        let Given { config, lan, .. } = self.given;
        let is_there = |name: &Arc<str>| lan.list.iter().any(|interface| interface.name == *name);
        for name in config.interfaces.iter().filter(|name| !is_there(name)) {
            let names: Vec<&str> = lan.list.iter().map(|it| &*it.name).collect();
            self.plan.problems.push(Problem {
                position: None,
                object: None,
                field: String::new(),
                message: format!(
                    "--interface {name}: node {} has no such interface on which it could announce; it has: {}",
                    config.node,
                    names.join(", ")
                ),
                severity: Severity::Error,
            });
        }
    }

    /// Cilium says nothing about an expression that matches no interface (L2-04); that is the most
    /// common reason for an address that nobody answers for.
    fn check_interfaces(&mut self, policies: &[Policy<'_>]) {
        let lan = self.given.lan;
        for policy in policies.iter().filter(|p| p.nodes.contains(&self.given.config.node)) {
            for (i, regex) in policy.regexes.iter().enumerate() {
                if lan.list.iter().any(|interface| regex.is_match(&interface.name)) {
                    continue;
                }
                let names: Vec<&str> = lan.list.iter().map(|it| &*it.name).collect();
                let field = format!("spec.interfaces[{i}]");
                let text = format!(
                    "{:?} matches no interface of node {}, which has: {}",
                    policy.object.interfaces[i],
                    self.given.config.node,
                    names.join(", ")
                );
                let kind = Kind::CiliumL2AnnouncementPolicy;
                self.problem(&policy.object.meta, kind, &field, Severity::Warning, text);
            }
        }
    }

    fn wanted_addresses(&mut self, policies: &'a [Policy<'a>]) -> BTreeMap<IpAddr, Wanted<'a>>
    where
        'a: 'a,
    {
        let mut wanted: BTreeMap<IpAddr, Wanted<'a>> = BTreeMap::new();
        let mut used = BTreeSet::new();
        let local_nodes = local_nodes(self.given);
        for (name, service) in self.given.objects.services.iter() {
            if !class_is_ours(service) {
                continue;
            }
            let assigned = self.given.assignments.by_service.get(name);
            let load_balancer = service.kind == ServiceType::LoadBalancer;
            let mut found = BTreeSet::new();
            let mut selected = false;
            for policy in policies.iter().filter(|policy| selects(policy.object, service)) {
                used.insert(&policy.object.meta.name);
                selected = true;
                let mut addresses: Vec<IpAddr> = Vec::new();
                if policy.object.load_balancer_ips && load_balancer {
                    addresses.extend(self.given.assignments.settled(name));
                }
                if policy.object.external_ips {
                    addresses.extend(&service.external_ips);
                }
                for address in addresses {
                    if self.is_a_nodes_own(address, service) {
                        continue;
                    }
                    found.insert(address);
                    wanted.entry(address).or_default().policies.push(policy);
                }
            }
            for &address in assigned.into_iter().flatten().filter(|_| load_balancer) {
                // Also without a policy: the local route of the address would make this node's kernel
                // answer for it.
                wanted.entry(address).or_default();
            }
            for &address in &found {
                self.join(&mut wanted, address, service, local_nodes.get(name));
            }
            self.explain_service(service, selected, !found.is_empty(), assigned.is_some());
            if !found.is_empty() {
                let order = assigned.into_iter().flatten().chain(&service.external_ips);
                let order = order.copied().filter(|address| found.contains(address)).collect();
                self.plan.announced.insert(name.clone(), order);
            }
        }
        for policy in policies.iter().filter(|policy| !used.contains(&policy.object.meta.name)) {
            let (meta, kind) = (&policy.object.meta, Kind::CiliumL2AnnouncementPolicy);
            let text = "selects no service".to_owned();
            self.problem(meta, kind, "spec.serviceSelector", Severity::Warning, text);
        }
        wanted
    }

    /// Narrows the nodes that may hold `address` to those that may hold it for `service`.
    fn join(
        &mut self,
        wanted: &mut BTreeMap<IpAddr, Wanted<'a>>,
        address: IpAddr,
        service: &Service,
        local: Option<&BTreeSet<NodeName>>,
    ) {
        let entry = wanted.entry(address).or_default();
        let mine = entry.policies.iter().filter(|policy| selects(policy.object, service));
        let mut nodes: BTreeSet<NodeName> =
            mine.flat_map(|policy| policy.nodes.iter().cloned()).gather();
        if nodes.is_empty() {
            entry.why_not = "no node satisfies the policy's nodeSelector".to_owned();
        } else if !nodes.contains(&self.given.config.node) {
            entry.why_not = "the policy's nodeSelector does not select this node".to_owned();
        }
        if needs_local_endpoint(service) {
            nodes.retain(|node| local.is_some_and(|local| local.contains(node)));
            if !nodes.contains(&self.given.config.node) && entry.why_not.is_empty() {
                entry.why_not = format!(
                    "externalTrafficPolicy of {} is Local and this node has no ready endpoint of it",
                    service.meta.name
                );
            }
        }
        let first = entry.services.is_empty();
        entry.services.push(service.meta.name.clone());
        if first {
            entry.eligible = nodes;
            return;
        }
        let both: BTreeSet<NodeName> = entry.eligible.intersection(&nodes).cloned().gather();
        if both.is_empty() && !nodes.is_empty() && !entry.eligible.is_empty() {
            entry.eligible.extend(nodes);
            let text = format!(
                "{address} is shared with {}, and no node may announce it for both: one of the two \
                 is served badly",
                entry.services[0]
            );
            self.problem(&service.meta, Kind::Service, "", Severity::Warning, text);
        } else {
            entry.eligible = both;
        }
    }

    fn is_a_nodes_own(&mut self, address: IpAddr, service: &Service) -> bool {
        let here = self.given.lan.owner(address).map(|interface| {
            format!("is configured on {} of node {}", interface.name, self.given.config.node)
        });
        let there = || {
            self.plan.node_of.get(&address).map(|node| format!("is the InternalIP of node {node}"))
        };
        let Some(fact) = here.or_else(there) else { return false };
        let text = format!("{address} {fact}, which answers for it itself: not announced");
        self.problem(&service.meta, Kind::Service, "", Severity::Warning, text);
        true
    }

    fn explain_service(&mut self, service: &Service, selected: bool, found: bool, assigned: bool) {
        if found || (service.kind != ServiceType::LoadBalancer && service.external_ips.is_empty()) {
            return;
        }
        let why = if !selected {
            "no CiliumL2AnnouncementPolicy selects it"
        } else if !assigned && service.external_ips.is_empty() {
            "it has no address yet"
        } else {
            "the policies that select it do not announce addresses of its kind: see \
             spec.loadBalancerIPs and spec.externalIPs"
        };
        self.plan.not_announced.insert(service.meta.name.clone(), why.to_owned());
    }

    /// Ranks the nodes for each address, and puts it on the interfaces.
    fn place(&mut self, wanted: &BTreeMap<IpAddr, Wanted<'_>>) {
        let groups = self.groups(wanted);
        let order: BTreeMap<&Group, usize> =
            groups.values().gather::<BTreeSet<_>>().into_iter().zip(0..).gather();
        for (&address, wanted) in wanted {
            let group = &groups[&address];
            // More than 255 groups share VRIDs: every address is settled by itself, so that is harmless.
            let vrid = (order[group] % 255) as u8 + 1;
            self.place_address(address, wanted, group, vrid);
        }
        if self.plan.pairs.len() > timing::MAX_CLAIMS {
            let text = format!(
                "{} pairs of address and interface, {} are possible: the last ones are left out",
                self.plan.pairs.len(),
                timing::MAX_CLAIMS
            );
            self.plan.problems.push(Problem {
                position: None,
                object: None,
                field: String::new(),
                message: text,
                severity: Severity::Error,
            });
            self.leave_out_last();
        }
    }

    /// Whole addresses are left out, so that nothing is routed to this node that its kernel would answer for.
    fn leave_out_last(&mut self) {
        let pairs = &mut self.plan.pairs;
        let mut count: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (_, address) in pairs.keys() {
            *count.entry(*address).or_default() += 1;
        }
        let mut left = pairs.len();
        while left > timing::MAX_CLAIMS
            && let Some((address, pairs)) = count.pop_last()
        {
            left -= pairs;
            self.plan.left_out.insert(address);
        }
        pairs.retain(|(_, address), _| count.contains_key(address));
    }

    fn groups(&self, wanted: &BTreeMap<IpAddr, Wanted<'_>>) -> BTreeMap<IpAddr, Group> {
        let group = |address: &IpAddr, wanted: &Wanted<'_>| {
            if self.given.objects.nodes.is_empty() {
                return Group::default();
            }
            let nodes: Vec<Candidate> = self
                .nodes
                .iter()
                .map(|(node, _)| node)
                .filter(|node| wanted.eligible.contains(&node.name))
                .cloned()
                .gather();
            let key = address.to_string();
            let first = rendezvous::preferred(key.as_bytes(), &nodes);
            let first = first.map_or_else(|| "".into(), |node| NodeName::clone(&node.name));
            Group { eligible: wanted.eligible.clone(), first }
        };
        wanted.iter().map(|(address, wanted)| (*address, group(address, wanted))).gather()
    }

    fn priority(&self, group: &Group) -> u8 {
        let me = &self.given.config.node;
        if self.given.objects.nodes.is_empty() {
            return rendezvous::lone_priority(me);
        }
        let nodes: Vec<Candidate> = self
            .nodes
            .iter()
            .map(|(node, _)| node)
            .filter(|node| group.eligible.contains(&node.name))
            .cloned()
            .gather();
        rendezvous::priority(&group.first, &nodes, me)
    }

    fn place_address(&mut self, address: IpAddr, wanted: &Wanted<'_>, group: &Group, vrid: u8) {
        let lan = self.given.lan;
        let config = self.given.config;
        let here = wanted.eligible.contains(&config.node);
        let mut placed = false;
        for interface in &lan.list {
            let policy = wanted.policies.iter().find(|policy| {
                (!here || policy.nodes.contains(&config.node))
                    && if policy.regexes.is_empty() {
                        interface.by_default
                    } else {
                        interface.permitted
                            && policy.regexes.iter().any(|regex| regex.is_match(&interface.name))
                    }
            });
            let on_link = interface.contains(address);
            if policy.is_none() && !on_link && interface.container {
                continue;
            }
            // The kernel answers for a routed address on every interface, whatever is configured there.
            let quiet = policy.is_none() && !on_link;
            let obstacle = if config.no_bpf {
                Some("this agent runs with --no-bpf".to_owned())
            } else if wanted.policies.is_empty() {
                Some("no CiliumL2AnnouncementPolicy selects its service".to_owned())
            } else if !here {
                Some(wanted.why_not.clone())
            } else if policy.is_none() {
                Some(format!("no policy allows interface {}", interface.name))
            } else if !interface.up {
                Some(format!("{} is down", interface.name))
            } else if interface.source(address).is_none() {
                Some(interface.lacks_source(address))
            } else {
                let failure = self.given.unhooked.get(&interface.index);
                failure.map(|failure| format!("{} cannot be hooked: {failure}", interface.name))
            };
            placed |= obstacle.is_none();
            let eligible = obstacle.is_none();
            let why = obstacle.unwrap_or_else(|| self.rank(group));
            let policy = policy.or_else(|| wanted.policies.first());
            let pair = Pair {
                eligible,
                why,
                vrid,
                priority: self.priority(group),
                services: if quiet { Vec::new() } else { wanted.services.clone() },
                policy: policy
                    .map_or_else(|| "".into(), |it| Arc::clone(&it.object.meta.name.name)),
            };
            self.plan.pairs.insert((interface.index, address), pair);
            if eligible && !on_link {
                self.warn_off_link(address, wanted, &interface.name);
            }
        }
        if here && !placed && !wanted.policies.is_empty() {
            for name in &wanted.services {
                let why =
                    format!("this node has no interface for {address} that is up and allowed");
                self.plan.not_announced.entry(name.clone()).or_insert(why);
            }
        } else if wanted.eligible.is_empty() && !wanted.policies.is_empty() {
            for name in &wanted.services {
                self.plan
                    .not_announced
                    .entry(name.clone())
                    .or_insert_with(|| format!("no node may hold {address}: {}", wanted.why_not));
            }
        }
    }

    fn warn_off_link(&mut self, address: IpAddr, wanted: &Wanted<'_>, interface: &str) {
        let given = self.given;
        let service = wanted.services.first().and_then(|name| given.objects.services.get(name));
        let Some(service) = service else { return };
        let text = format!(
            "{address} lies in no subnet of {interface}: hosts there reach it only if they have a \
             route for it to this link"
        );
        self.problem(&service.meta, Kind::Service, "", Severity::Warning, text);
    }

    fn rank(&self, group: &Group) -> String {
        if self.given.objects.nodes.is_empty() {
            return "there are no Node objects, so the node names decide".to_owned();
        }
        if group.first == self.given.config.node {
            return format!("this node ranks first of {}", join(&group.eligible));
        }
        format!("{} ranks first of {}", group.first, join(&group.eligible))
    }
}

/// Addresses with the same nodes in the same order: one VRRP virtual router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Group {
    eligible: BTreeSet<NodeName>,
    first: NodeName,
}

fn join(names: &BTreeSet<NodeName>) -> String {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    names.join(", ")
}

fn class_is_ours(service: &Service) -> bool {
    service.kind != ServiceType::LoadBalancer
        || service.load_balancer_class.as_deref().is_none_or(|class| class == L2_CLASS)
}

fn needs_local_endpoint(service: &Service) -> bool {
    service.external_traffic_policy == ExternalTrafficPolicy::Local
        && service.meta.labels.get(INGRESS_LABEL).is_none_or(|value| &**value != "true")
}

/// Labels of the service plus the two synthetic ones (LB-06).
fn selects(policy: &L2Policy, service: &Service) -> bool {
    let meta = &service.meta;
    policy.service_selector.as_ref().is_none_or(|selector| {
        selector.matches_with(|key| match key {
            "io.kubernetes.service.name" => Some(&*meta.name.name),
            "io.kubernetes.service.namespace" => Some(&*meta.name.namespace),
            _ => meta.labels.get(key).map(|value| &**value),
        })
    })
}

/// The nodes with a ready endpoint, of the Services that ask for it.
fn local_nodes(given: &Given<'_>) -> BTreeMap<NamespacedName, BTreeSet<NodeName>> {
    let mut nodes: BTreeMap<NamespacedName, BTreeSet<NodeName>> = BTreeMap::new();
    for (port, endpoints) in &given.endpoints.by_port {
        let local =
            given.objects.services.get(&port.service).is_some_and(|it| needs_local_endpoint(it));
        if local {
            let ready = endpoints.iter().filter(|endpoint| endpoint.ready);
            let entry = nodes.entry(port.service.clone()).or_default();
            entry.extend(ready.filter_map(|endpoint| endpoint.node.clone()));
        }
    }
    nodes
}
