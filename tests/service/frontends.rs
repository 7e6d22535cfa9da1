//! Which frontends there are, and with which settings.
use std::time::Duration;

use pilus::api::meta::{NamespacedName, Origin};
use pilus::api::object::{ExternalTrafficPolicy, Service, ServiceType};
use pilus::api::route::ListenerProtocol;

use crate::harness::*;

/// One row: a Service with address .211 and a backend in a Pod here, and its frontends without and with
/// `--kube-proxy-replacement`.
struct Row {
    rule: &'static str,
    service: Service,
    addresses: &'static [&'static str],
    plain: &'static [&'static str],
    replaced: &'static [&'static str],
}

const POD: &str = "10.244.1.5:8080@n1";

fn with(change: impl FnOnce(&mut Service)) -> Service {
    let mut service = balanced("default/web", &["80"]);
    change(&mut service);
    service
}

fn rows() -> Vec<Row> {
    const LB: &str = "lb 192.168.10.211:80/TCP default/web -> 10.244.1.5:8080 L";
    const NODE: &str = "node 192.168.10.101:30080/TCP default/web -> 10.244.1.5:8080 L";
    const CNI: &str = "node 10.244.1.1:30080/TCP default/web -> 10.244.1.5:8080 L";
    const NODE6: &str = "node [fd00:10::101]:30080/TCP default/web -> none";
    const CLUSTER: &str = "cluster 10.96.0.9:80/TCP default/web -> 10.244.1.5:8080 L";
    const EXTERNAL: &str = "external 192.168.10.250:80/TCP default/web -> 10.244.1.5:8080 L";
    let given: &[&str] = &["192.168.10.211"];
    vec![
        Row {
            rule: "an assigned address; node ports at all addresses of the node",
            service: with(|_| {}),
            addresses: given,
            plain: &[LB],
            replaced: &[CNI, NODE, LB, NODE6],
        },
        Row {
            rule: "no address yet",
            service: with(|_| {}),
            addresses: &[],
            plain: &[],
            replaced: &[CNI, NODE, NODE6],
        },
        Row {
            rule: "a class of somebody else",
            service: with(|it| {
                it.load_balancer_class = Some("metallb.io/l2".into());
                it.external_ips = vec![ip("192.168.10.250")];
            }),
            addresses: &[],
            plain: &[],
            replaced: &[CNI, NODE, EXTERNAL, NODE6],
        },
        Row {
            rule: "Cilium's class is ours; externalIPs beside the address",
            service: with(|it| {
                it.load_balancer_class = Some("io.cilium/l2-announcer".into());
                it.external_ips = vec![ip("192.168.10.250"), ip("192.168.10.211")];
            }),
            addresses: given,
            plain: &[LB, EXTERNAL],
            replaced: &[CNI, NODE, LB, EXTERNAL, NODE6],
        },
        Row {
            rule: "ClusterIP: kube-proxy's, unless it is replaced; no node ports",
            service: with(|it| {
                it.kind = ServiceType::ClusterIp;
                it.cluster_ips = vec![ip("10.96.0.9")];
                it.external_ips = vec![ip("192.168.10.250")];
            }),
            addresses: &[],
            plain: &[],
            replaced: &[CLUSTER, EXTERNAL],
        },
        Row {
            rule: "headless has no cluster address",
            service: with(|it| {
                it.kind = ServiceType::ClusterIp;
                it.headless = true;
                it.cluster_ips = vec![];
            }),
            addresses: &[],
            plain: &[],
            replaced: &[],
        },
        Row {
            rule: "NodePort without a number is not open",
            service: with(|it| {
                it.kind = ServiceType::NodePort;
                it.ports[0].node_port = 0;
                it.cluster_ips = vec![ip("10.96.0.9")];
            }),
            addresses: &[],
            plain: &[],
            replaced: &[CLUSTER],
        },
        Row {
            rule: "another service proxy has the cluster address, LB-IPAM the other",
            service: with(|it| {
                let label = "service.kubernetes.io/service-proxy-name";
                it.meta.labels.insert(label.into(), "mine".into());
                it.cluster_ips = vec![ip("10.96.0.9")];
            }),
            addresses: given,
            plain: &[LB],
            replaced: &[LB],
        },
        Row {
            rule: "ExternalName has nothing",
            service: with(|it| {
                it.kind = ServiceType::ExternalName;
                it.external_ips = vec![ip("192.168.10.250")];
            }),
            addresses: &[],
            plain: &[],
            replaced: &[],
        },
        Row {
            rule: "what is made for an Ingress or Gateway is the proxy's",
            service: with(|it| it.meta.origin = Origin::Generated("route")),
            addresses: given,
            plain: &[],
            replaced: &[],
        },
        Row {
            rule: "so is what another agent has made",
            service: with(|it| {
                it.meta.origin = Origin::Cluster;
                let label = "app.kubernetes.io/managed-by";
                it.meta.labels.insert(label.into(), "pilus".into());
            }),
            addresses: given,
            plain: &[],
            replaced: &[],
        },
        Row {
            rule: "external policy Local is for all but the cluster address, internal for that alone; affinity for all",
            service: with(|it| {
                it.external_traffic_policy = ExternalTrafficPolicy::Local;
                it.session_affinity = Some(Duration::from_secs(60));
                it.cluster_ips = vec![ip("10.96.0.9")];
            }),
            addresses: given,
            plain: &[
                "lb 192.168.10.211:80/TCP default/web affinity=60s outside-local -> 10.244.1.5:8080 L | 10.244.1.5:8080 L",
            ],
            replaced: &[
                "cluster 10.96.0.9:80/TCP default/web affinity=60s -> 10.244.1.5:8080 L",
                "node 10.244.1.1:30080/TCP default/web affinity=60s outside-local -> 10.244.1.5:8080 L | 10.244.1.5:8080 L",
                "node 192.168.10.101:30080/TCP default/web affinity=60s outside-local -> 10.244.1.5:8080 L | 10.244.1.5:8080 L",
                "lb 192.168.10.211:80/TCP default/web affinity=60s outside-local -> 10.244.1.5:8080 L | 10.244.1.5:8080 L",
                "node [fd00:10::101]:30080/TCP default/web affinity=60s outside-local -> none | none",
            ],
        },
        Row {
            rule: "internal policy Local",
            service: with(|it| {
                it.internal_traffic_local = true;
                it.cluster_ips = vec![ip("10.96.0.9")];
                it.ports[0].node_port = 0;
            }),
            addresses: given,
            plain: &[LB],
            replaced: &[
                "cluster 10.96.0.9:80/TCP default/web outside-local inside-local -> 10.244.1.5:8080 L | 10.244.1.5:8080 L",
                LB,
            ],
        },
        Row {
            rule: "source ranges are for LoadBalancer addresses; sorted, host bits cut",
            service: with(|it| {
                it.source_ranges = vec!["203.0.113.9/24".into(), " 10.0.0.0/8".into()];
                it.external_ips = vec![ip("192.168.10.250")];
                it.ports[0].node_port = 0;
            }),
            addresses: given,
            plain: &[
                "lb 192.168.10.211:80/TCP default/web from=[10.0.0.0/8 203.0.113.0/24] -> 10.244.1.5:8080 L",
                EXTERNAL,
            ],
            replaced: &[
                "lb 192.168.10.211:80/TCP default/web from=[10.0.0.0/8 203.0.113.0/24] -> 10.244.1.5:8080 L",
                EXTERNAL,
            ],
        },
    ]
}

#[test]
fn each_kind_of_service_has_the_frontends_that_kubernetes_gives_it() {
    for row in rows() {
        for (mut cluster, expected) in
            [(Cluster::new(), row.plain), (Cluster::as_kube_proxy(), row.replaced)]
        {
            cluster.service(row.service.clone(), row.addresses, &[POD]);
            cluster.tell();
            assert_eq!(cluster.lines(), expected, "{}", row.rule);
            assert_eq!(cluster.problems(), [""; 0], "{}", row.rule);
        }
    }
}

#[test]
fn ports_that_the_proxy_serves_are_its_own_by_transport() {
    let mut cluster = Cluster::new();
    let service = balanced("default/web", &["80", "443", "443/UDP", "443/SCTP"]);
    cluster.service(service, &["192.168.10.211"], &[POD]);
    cluster.listener("default/web", 443, ListenerProtocol::Tls);
    cluster.listener("default/other", 80, ListenerProtocol::Http);
    cluster.tell();
    assert_eq!(
        cluster.lines(),
        [
            "lb 192.168.10.211:80/TCP default/web -> 10.244.1.5:8080 L",
            "lb 192.168.10.211:443/UDP default/web -> 10.244.1.5:8080 L",
            "lb 192.168.10.211:443/SCTP default/web -> 10.244.1.5:8080 L",
        ]
    );
    cluster.routes.listeners.clear();
    cluster.tell();
    assert_eq!(cluster.lines().len(), 4);
}

#[test]
fn tcp_and_udp_of_one_number_have_their_own_target_ports() {
    let mut cluster = Cluster::new();
    cluster.service(balanced("kube-system/dns", &["53", "53/UDP"]), &["192.168.10.211"], &[]);
    let dns = name("kube-system/dns");
    cluster.endpoints_of(&dns, 53, pilus::api::object::PortProtocol::Tcp, &["10.244.1.5:5301@n1"]);
    cluster.endpoints_of(&dns, 53, pilus::api::object::PortProtocol::Udp, &["10.244.1.5:5302@n1"]);
    cluster.tell();
    assert_eq!(
        cluster.lines(),
        [
            "lb 192.168.10.211:53/TCP kube-system/dns -> 10.244.1.5:5301 L",
            "lb 192.168.10.211:53/UDP kube-system/dns -> 10.244.1.5:5302 L",
        ]
    );
}

#[test]
fn a_source_range_that_cannot_be_read_closes_the_door() {
    let mut cluster = Cluster::new();
    let service = with(|it| it.source_ranges = vec!["10.0.0.0/8".into(), "10.0.0.0/33".into()]);
    cluster.service(service, &["192.168.10.211"], &[POD]);
    // As cloud controllers read it: of no effect beside the field, which the first Service has.
    let mut annotated = balanced("default/x", &["81"]);
    let key = "service.beta.kubernetes.io/load-balancer-source-ranges";
    annotated.meta.annotations.insert(key.into(), "172.16.0.0/12, ::/zero".into());
    cluster.service(annotated.clone(), &["192.168.10.212"], &[POD]);
    cluster.tell();
    assert_eq!(
        cluster.lines(),
        [
            "lb 192.168.10.211:80/TCP default/web from=[] -> 10.244.1.5:8080 L",
            "lb 192.168.10.212:81/TCP default/x from=[] -> 10.244.1.5:8080 L",
        ]
    );
    let problems = cluster.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    for (problem, (field, bad)) in problems.iter().zip([
        ("Service default/web: spec.loadBalancerSourceRanges[1]: ", "`10.0.0.0/33`"),
        ("Service default/x: metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: ", "`::/zero`"),
    ]) {
        assert!(problem.contains(field) && problem.contains(bad), "{problem}");
        assert!(problem.ends_with("; nobody may connect"), "{problem}");
    }
    annotated.meta.annotations.insert(key.into(), "172.16.0.0/12".into());
    cluster.service(annotated, &["192.168.10.212"], &[POD]);
    cluster.tell();
    assert!(cluster.lines()[1].contains("from=[172.16.0.0/12]"), "{:?}", cluster.lines());
}

#[test]
fn of_two_services_with_one_place_one_has_it_on_every_node() {
    let external = |text: &str, kind| {
        let mut service = balanced(text, &["80"]);
        service.kind = kind;
        service.external_ips = vec![ip("192.168.10.211")];
        service
    };
    let mut cluster = Cluster::new();
    // The holder by LB-IPAM has a later name than who merely writes the address.
    cluster.service(balanced("default/z", &["80"]), &["192.168.10.211"], &[POD]);
    cluster.service(external("default/a", ServiceType::LoadBalancer), &[], &["10.244.1.6:80@n1"]);
    cluster.tell();
    assert_eq!(cluster.lines(), ["lb 192.168.10.211:80/TCP default/z -> 10.244.1.5:8080 L"]);
    assert_eq!(
        cluster.problems(),
        [
            "a.yaml:1:1: Service default/a: spec.externalIPs: 192.168.10.211:80/TCP is not served: Service default/z has the same address and port"
        ]
    );
    // Among equals the first name, whoever came first; another port is no clash.
    let mut cluster = Cluster::as_kube_proxy();
    cluster.interfaces.list.truncate(1);
    cluster.service(external("default/b", ServiceType::ClusterIp), &[], &[POD]);
    cluster.tell();
    cluster.service(external("default/a", ServiceType::ClusterIp), &[], &["10.244.1.6:80@n1"]);
    let mut other = external("default/c", ServiceType::ClusterIp);
    other.ports[0].port = 81;
    cluster.service(other, &[], &[POD]);
    cluster.tell();
    assert_eq!(
        cluster.lines(),
        [
            "external 192.168.10.211:80/TCP default/a -> 10.244.1.6:80 L",
            "external 192.168.10.211:81/TCP default/c -> 10.244.1.5:8080 L",
        ]
    );
    assert_eq!(cluster.problems().len(), 1, "{:?}", cluster.problems());
    // A place of the proxy is nobody else's.
    let mut cluster = Cluster::new();
    cluster.service(external("default/a", ServiceType::LoadBalancer), &[], &[POD]);
    let gateway = NamespacedName::new("kube-system", "pilus-ingress");
    cluster.assignments.by_service.insert(gateway, vec![ip("192.168.10.211")]);
    cluster.listener("kube-system/pilus-ingress", 80, ListenerProtocol::Http);
    cluster.tell();
    assert_eq!(cluster.lines(), [""; 0]);
    assert!(
        cluster.problems()[0]
            .ends_with("Service kube-system/pilus-ingress has the same address and port")
    );
}

#[test]
fn addresses_that_no_client_can_use_are_left_out() {
    let mut cluster = Cluster::new();
    let service =
        with(|it| it.external_ips = vec![ip("127.0.0.1"), ip("224.0.0.1"), ip("192.168.10.250")]);
    cluster.service(service, &[], &[POD]);
    cluster.tell();
    assert_eq!(
        cluster.lines(),
        ["external 192.168.10.250:80/TCP default/web -> 10.244.1.5:8080 L"]
    );
    assert_eq!(
        cluster.problems(),
        [
            "web.yaml:1:1: Service default/web: spec.externalIPs[0]: 127.0.0.1 cannot be an address for clients; it is left out",
            "web.yaml:1:1: Service default/web: spec.externalIPs[1]: 224.0.0.1 cannot be an address for clients; it is left out",
        ]
    );
}
