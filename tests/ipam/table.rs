//! LB-01 to LB-19, with conditions, reasons and messages compared literally.
use pilus::api::meta::Kind;
use pilus::api::object::{
    ExternalTrafficPolicy, IpBlock, IpFamilyPolicy, PortProtocol, Service, ServiceType,
};

use crate::harness::*;

const SATISFIED: &str = "True satisfied: ";
const NO_POOL: &str =
    "False no_pool: There are no enabled CiliumLoadBalancerIPPools that match this service";
const OUT_OF_IPS: &str = "False out_of_ips: All enabled CiliumLoadBalancerIPPools that match this \
                          service ran out of allocatable IPs";

#[test]
fn lb_01_dormant_until_the_first_pool() {
    let mut node = Node::with([], [service("a/web")]);
    assert_eq!((node.of("a/web"), node.satisfied("a/web")), (String::new(), String::new()));
    assert!(node.statuses.by_object.is_empty());
    node.put_pool(pool("p", "10.0.0.1"));
    assert_eq!((node.of("a/web").as_str(), node.satisfied("a/web").as_str()), ("10.0.0.1", ""));
    // It is said when it stays.
    node.wait(1_000);
    assert_eq!(
        (node.of("a/web").as_str(), node.satisfied("a/web").as_str()),
        ("10.0.0.1", SATISFIED)
    );
    // Once awake it says what is missing.
    node.remove("p");
    assert_eq!((node.of("a/web").as_str(), node.satisfied("a/web").as_str()), ("", NO_POOL));
}

#[test]
fn lb_02_blocks_of_every_kind_and_bad_ones_named() {
    let mut bad = pool("p", "10.0.0.5 10.0.0.9-10.0.0.8 10.0.1.0-10.0.1.1");
    bad.blocks.push(IpBlock::Range(ip("10.0.2.1"), ip("fd00::1")));
    let node = Node::with([bad], ["a/a", "a/b", "a/c", "a/d"].map(service));
    let all = ["a/a", "a/b", "a/c", "a/d"].map(|s| node.of(s));
    assert_eq!(all, ["10.0.0.5", "10.0.1.0", "10.0.1.1", ""]);
    let what = "not a range of addresses; write the lower address first, both of one family";
    assert_eq!(
        node.problems("p"),
        [
            format!("CiliumLoadBalancerIPPool p: spec.blocks[1]: {what}"),
            format!("CiliumLoadBalancerIPPool p: spec.blocks[3]: {what}"),
        ]
    );
}

#[test]
fn lb_03_first_and_last_addresses() {
    for (blocks, allow, first, total) in [
        ("10.0.0.0/29", true, "10.0.0.0", ["8", "7", "1"]),
        ("10.0.0.0/29", false, "10.0.0.1", ["8", "5", "3"]),
        ("10.0.0.4/30", false, "10.0.0.5", ["4", "1", "3"]),
        ("10.0.0.4/31", false, "10.0.0.4", ["2", "1", "1"]),
        ("10.0.0.4/32", false, "10.0.0.4", ["1", "0", "1"]),
        ("fd00::/126", false, "fd00::1", ["4", "1", "3"]),
        ("fd00::/127", false, "fd00::", ["2", "1", "1"]),
        ("10.0.0.0-10.0.0.7", false, "10.0.0.0", ["8", "7", "1"]),
    ] {
        let v6 = first.contains(':');
        let node = Node::with(
            [pool("p", blocks).with(|p| p.allow_first_last = allow)],
            [service("a/a").families(IpFamilyPolicy::SingleStack, &[v6])],
        );
        assert_eq!(node.of("a/a"), first, "{blocks}");
        assert_eq!(node.counts("p"), total, "{blocks}");
    }
}

#[test]
fn lb_03_the_last_address_is_kept_back_and_not_given_on_request() {
    let closed = pool("p", "10.0.0.0/30").with(|p| p.allow_first_last = false);
    let node = Node::with([closed.clone()], ["a/a", "a/b", "a/c"].map(service));
    assert_eq!(node.satisfied("a/c"), OUT_OF_IPS);
    let node = Node::with([closed], [service("a/a").ips("10.0.0.3")]);
    assert_eq!(
        node.satisfied("a/a"),
        "False already_allocated: The IP '10.0.0.3' is already allocated to another service"
    );
}

#[test]
fn lb_03_taking_the_ends_back_revokes_nothing() {
    let open = pool("p", "10.0.0.0/29");
    let mut node = Node::with([open.clone()], [service("a/a")]);
    node.wait(2_000);
    node.put_pool(open.with(|p| p.allow_first_last = false));
    node.put(service("a/b"));
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.0", "10.0.0.1"]);
    assert_eq!(node.counts("p"), ["8", "5", "3"]);
}

#[test]
fn lb_04_start_without_stop_is_one_address() {
    let node = Node::with([pool("p", "10.0.0.7")], ["a/a", "a/b"].map(service));
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.7", ""]);
    assert_eq!(node.satisfied("a/b"), OUT_OF_IPS);
}

#[test]
fn lb_05_lowest_free_address_pools_by_name_ranges_in_order() {
    let pools = [pool("b", "10.0.0.1-10.0.0.9"), pool("a", "10.0.9.9 10.0.5.1-10.0.5.2")];
    let names = ["a/a", "a/b", "a/c", "a/d", "b/a"];
    let mut node = Node::with(pools, names.map(service));
    let expected = ["10.0.9.9", "10.0.5.1", "10.0.5.2", "10.0.0.1", "10.0.0.2"];
    assert_eq!(names.map(|s| node.of(s)), expected);
    node.wait(2_000);
    node.remove("a/b");
    node.put(service("c/a"));
    assert_eq!(node.of("c/a"), "10.0.5.1", "the gap is filled first");
}

#[test]
fn lb_06_selectors_see_labels_and_the_synthetic_ones() {
    for (key, value, selected) in [
        ("color", "red", "a/one"),
        ("io.kubernetes.service.name", "two", "a/two"),
        ("io.kubernetes.service.namespace", "b", "b/three"),
    ] {
        let picky = pool("p", "10.0.0.1-10.0.0.9").with(|p| p.selector = selecting(key, value));
        let services =
            [service("a/one").label("color", "red"), service("a/two"), service("b/three")];
        let node = Node::with([picky], services).settled();
        for one in ["a/one", "a/two", "b/three"] {
            let expected = if one == selected { ("10.0.0.1", SATISFIED) } else { ("", NO_POOL) };
            assert_eq!(
                (node.of(one).as_str(), node.satisfied(one).as_str()),
                expected,
                "{key} {one}"
            );
        }
    }
}

#[test]
fn lb_07_the_later_of_two_overlapping_pools_conflicts() {
    let mut node = Node::with([pool("a", "10.0.0.0/30"), pool("b", "10.0.0.2-10.0.0.9")], []);
    let conflict = "cilium.io/PoolConflict";
    assert_eq!(node.pool_condition("a", conflict), "False resolved: ");
    let message = "Pool conflicts since range '10.0.0.2 - 10.0.0.9' overlaps range \
                   '10.0.0.0 - 10.0.0.3' from IP Pool 'a'";
    assert_eq!(node.pool_condition("b", conflict), format!("True cidr_overlap: {message}"));
    assert_eq!(
        node.problems("b"),
        [format!("CiliumLoadBalancerIPPool b: spec.blocks[0]: {message}")]
    );
    assert_eq!(node.statuses.ipam.as_ref().unwrap().conflicting_pools, 1);
    // Nothing comes from it, not even what does not overlap.
    node.put(service("s/s").ips("10.0.0.9"));
    assert_eq!(
        node.satisfied("s/s"),
        "False no_pool: No pool exists with a CIDR containing '10.0.0.9'"
    );
    // A third pool that overlaps only the conflicting one is fine.
    node.put_pool(pool("c", "10.0.0.8"));
    assert_eq!(node.pool_condition("c", conflict), "False resolved: ");
    node.remove("c");
    node.remove("a");
    assert_eq!(node.pool_condition("b", conflict), "False resolved: ");
    assert_eq!(node.of("s/s"), "10.0.0.9");
}

#[test]
fn lb_07_a_pool_can_conflict_with_itself_and_later_is_by_time_on_a_cluster() {
    let node = Node::with([pool("a", "10.0.0.0/24 10.0.0.7 fd00::/64")], []);
    assert_eq!(
        node.pool_condition("a", "cilium.io/PoolConflict"),
        "True cidr_overlap: Pool conflicts since range '10.0.0.0 - 10.0.0.255' overlaps range \
         '10.0.0.7 - 10.0.0.7' from IP Pool 'a'"
    );
    let at = |p: pilus::api::object::Pool, created| p.with(|p| p.meta.created = created);
    let node = Node::with([at(pool("a", "fd00::/64"), 9), at(pool("b", "fd00::5"), 8)], []);
    assert_eq!(
        node.pool_condition("a", "cilium.io/PoolConflict"),
        "True cidr_overlap: Pool conflicts since range 'fd00:: - fd00::ffff:ffff:ffff:ffff' overlaps \
         range 'fd00::5 - fd00::5' from IP Pool 'b'"
    );
    let from_file = |p: pilus::api::object::Pool| {
        p.with(|p| {
            p.meta.origin = pilus::api::meta::Origin::File(pilus::api::meta::FileOrigin {
                file: "f".into(),
                line: 1,
                column: 1,
                fields: [].into(),
            });
        })
    };
    let pools = [at(pool("a", "fd00::/64"), 9), at(pool("b", "fd00::5"), 8)].map(from_file);
    let node = Node::with(pools, []);
    assert_eq!(node.pool_condition("a", "cilium.io/PoolConflict"), "False resolved: ");
    assert!(node.pool_condition("b", "cilium.io/PoolConflict").starts_with("True cidr_overlap"));
}

#[test]
fn lb_08_a_disabled_or_conflicting_pool_keeps_what_it_gave() {
    let open = pool("p", "10.0.0.1-10.0.0.9");
    let mut node = Node::with([open.clone()], [service("a/a")]);
    node.wait(2_000);
    node.set([open.clone().with(|p| p.disabled = true)], ["a/a", "a/b"].map(service));
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.1", ""]);
    assert_eq!(node.satisfied("a/b"), NO_POOL);
    node.set([open, pool("a", "10.0.0.5")], ["a/a", "a/b"].map(service));
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.1", "10.0.0.5"]);
}

#[test]
fn lb_09_counts_are_exact_whatever_the_size() {
    for (blocks, total) in [
        ("192.168.10.211-192.168.10.215", ["5", "4", "1"]),
        ("10.0.0.0/16", ["65536", "65535", "1"]),
        ("10.0.0.0/32 fd00::/64", ["18446744073709551617", "18446744073709551616", "1"]),
        (
            "10.0.0.0/32 ::/0",
            [
                "340282366920938463463374607431768211457",
                "340282366920938463463374607431768211456",
                "1",
            ],
        ),
        (
            "0.0.0.0/0 ::/0",
            [
                "340282366920938463463374607436063178752",
                "340282366920938463463374607436063178751",
                "1",
            ],
        ),
    ] {
        let node = Node::with([pool("p", blocks)], [service("a/a")]);
        assert_eq!(node.counts("p"), total, "{blocks}");
        let total = node.pool_condition("p", "cilium.io/IPsTotal");
        assert!(total.starts_with("Unknown noreason: "), "{total}");
    }
    let node = Node::with(
        [pool("p", "::/0")],
        [service("a/a").families(IpFamilyPolicy::SingleStack, &[true])],
    );
    assert_eq!(node.counts("p")[1], "340282366920938463463374607431768211455");
}

#[test]
fn lb_10_shrinking_a_pool_moves_only_those_who_must() {
    let names = ["a/a", "a/b", "a/c", "a/d"];
    let mut node = Node::with(
        [pool("p", "10.0.0.1-10.0.0.4"), pool("q", "10.0.1.1-10.0.1.9")],
        names.map(service),
    );
    node.wait(2_000);
    node.remove("a/a");
    node.put_pool(pool("p", "10.0.0.2-10.0.0.3"));
    assert_eq!(names.map(|s| node.of(s)), ["", "10.0.0.2", "10.0.0.3", "10.0.1.1"]);
    node.wait(60_000);
    node.remove("p");
    assert_eq!(names.map(|s| node.of(s)), ["", "10.0.1.2", "10.0.1.3", "10.0.1.1"]);
    node.wait(60_000);
    // Growing again calls nobody back.
    node.put_pool(pool("p", "10.0.0.1-10.0.0.4"));
    assert_eq!(names.map(|s| node.of(s)), ["", "10.0.1.2", "10.0.1.3", "10.0.1.1"]);
}

#[test]
fn lb_10_a_pool_that_is_gone_for_a_moment_costs_nobody_his_address() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.4")], ["a/a", "a/b"].map(service));
    node.wait(2_000);
    node.remove("a/a");
    node.wait(2_000);
    node.remove("p");
    node.wait(5_000);
    assert_eq!((node.of("a/b").as_str(), node.satisfied("a/b").as_str()), ("", NO_POOL));
    node.put_pool(pool("p", "10.0.0.1-10.0.0.4"));
    assert_eq!(node.of("a/b"), "10.0.0.2");
}

#[test]
fn lb_11_only_load_balancers_of_our_classes() {
    let class = |class: &str| service("a/a").with(|s| s.load_balancer_class = Some(class.into()));
    let typed = |kind| service("a/a").with(|s| s.kind = kind);
    for (service, ours) in [
        (service("a/a"), true),
        (class("io.cilium/bgp-control-plane"), true),
        (class("io.cilium/l2-announcer"), true),
        (class("pilus.dev/lb"), true),
        (class("pilus.dev/l2-announcer"), true),
        (class("service.k8s.aws/nlb"), false),
        (class(""), false),
        (typed(ServiceType::ClusterIp), false),
        (typed(ServiceType::NodePort), false),
        (typed(ServiceType::ExternalName), false),
    ] {
        let text = format!("{:?} {:?}", service.kind, service.load_balancer_class);
        let node = Node::with([pool("p", "10.0.0.1")], [service]).settled();
        assert_eq!(node.status(Kind::Service, "a/a").is_some(), ours, "{text}");
        assert_eq!(node.of("a/a").is_empty(), !ours, "{text}");
        let metrics = node.statuses.ipam.clone().unwrap();
        assert_eq!(metrics.services_matching, u64::from(ours), "{text}");
    }
}

#[test]
fn lb_12_a_service_that_is_no_longer_ours_loses_addresses_and_condition() {
    let mut node = Node::with([pool("p", "10.0.0.1")], [service("a/a")]);
    node.wait(2_000);
    // As an API server has it: the status that we wrote, and a type that is not ours any more.
    let gone = service("a/a").with(|s| {
        s.kind = ServiceType::ClusterIp;
        s.status_ips = ips("10.0.0.1 192.0.2.9");
    });
    node.put(gone);
    assert_eq!(node.of("a/a"), "");
    let status = node.status(Kind::Service, "a/a").unwrap();
    assert_eq!(status.conditions, []);
    assert_eq!(status.load_balancer, Some(ips("192.0.2.9")), "only what was ours goes");
    // When that is done we have nothing to say about it.
    node.put(service("a/a").with(|s| s.kind = ServiceType::ClusterIp));
    assert!(node.status(Kind::Service, "a/a").is_none());
    node.put(service("b/b"));
    assert_eq!(node.of("b/b"), "10.0.0.1", "the address is free again");
}

#[test]
fn lb_13_requested_addresses() {
    let range = || pool("p", "10.0.0.1-10.0.0.9 fd00::/64");
    let by_field = |text: &str| service("a/a").with(|s| s.load_balancer_ip = Some(text.into()));
    for (service, expected) in [
        (by_field("10.0.0.5"), "10.0.0.5"),
        (service("a/a").ips("10.0.0.6"), "10.0.0.6"),
        (service("a/a").annotate("io.cilium/lb-ipam-ips", "10.0.0.7"), "10.0.0.7"),
        (service("a/a").ips("10.0.0.6").annotate("io.cilium/lb-ipam-ips", "10.0.0.7"), "10.0.0.6"),
        (service("a/a").ips(" 10.0.0.8 ,10.0.0.3,10.0.0.8"), "10.0.0.8 10.0.0.3"),
        (by_field("10.0.0.5").ips("10.0.0.4, fd00::1"), "10.0.0.5 10.0.0.4 fd00::1"),
    ] {
        let node = Node::with([range()], [service]).settled();
        assert_eq!(
            (node.of("a/a").as_str(), node.satisfied("a/a").as_str()),
            (expected, SATISFIED)
        );
    }
}

#[test]
fn lb_13_unparsable_entries_are_named_and_the_rest_honoured() {
    let broken = service("a/a")
        .with(|s| s.load_balancer_ip = Some("10.0.0.300".into()))
        .ips("10.0.0.5, ten.0.0.1");
    let node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [broken]).settled();
    assert_eq!((node.of("a/a").as_str(), node.satisfied("a/a").as_str()), ("10.0.0.5", SATISFIED));
    assert_eq!(
        node.problems("a/a"),
        [
            "Service a/a: spec.loadBalancerIP: '10.0.0.300' is not an IP address; this entry is \
             ignored",
            "Service a/a: metadata.annotations[lbipam.cilium.io/ips]: 'ten.0.0.1' is not an IP \
             address; this entry is ignored",
        ]
    );
}

#[test]
fn lb_13_a_bound_on_requests_is_named() {
    let many: Vec<String> = (1..=33).map(|n| format!("10.0.0.{n}")).collect();
    let node = Node::with([pool("p", "10.0.0.0/24")], [service("a/a").ips(&many.join(","))]);
    assert_eq!(node.of("a/a").split(' ').count(), 32);
    let expected = "Service a/a: metadata.annotations[lbipam.cilium.io/ips]: 10.0.0.33: a Service can \
                    ask for 32 addresses at most";
    assert_eq!(node.problems("a/a"), [expected]);
}

#[test]
fn lb_13_requests_go_before_what_it_had_and_before_automatic_ones() {
    let mut node = Node::with(
        [pool("p", "10.0.0.1-10.0.0.9")],
        [service("a/a"), service("a/b").ips("10.0.0.1")],
    );
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.2", "10.0.0.1"]);
    node.wait(2_000);
    node.put(service("a/b").ips("10.0.0.7"));
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.2", "10.0.0.7"]);
    node.wait(2_000);
    // Without a request any address will do, so it keeps the one it has.
    node.put(service("a/b"));
    node.wait(2_000);
    assert_eq!([node.of("a/a"), node.of("a/b")], ["10.0.0.2", "10.0.0.7"]);
}

#[test]
fn lb_14_families() {
    use IpFamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
    const BOTH: &str = "10.0.0.1 10.0.0.2 fd00::1 fd00::2";
    const V4: &str = "10.0.0.1 10.0.0.2";
    const V6: &str = "fd00::1 fd00::2";
    for (policy, families, enabled, blocks, expected, condition) in [
        (SingleStack, &[][..], [true, true], BOTH, "10.0.0.1", SATISFIED),
        (SingleStack, &[], [false, true], BOTH, "fd00::1", SATISFIED),
        (SingleStack, &[true], [true, true], BOTH, "fd00::1", SATISFIED),
        (SingleStack, &[true], [true, false], BOTH, "", NO_POOL),
        (SingleStack, &[false, true], [true, true], BOTH, "10.0.0.1", SATISFIED),
        (SingleStack, &[], [true, true], V6, "", NO_POOL),
        (PreferDualStack, &[], [true, true], BOTH, "10.0.0.1 fd00::1", SATISFIED),
        (PreferDualStack, &[true, false], [true, true], BOTH, "10.0.0.1 fd00::1", SATISFIED),
        (PreferDualStack, &[true], [true, true], BOTH, "fd00::1", SATISFIED),
        (PreferDualStack, &[], [true, false], BOTH, "10.0.0.1", SATISFIED),
        (PreferDualStack, &[], [true, true], V4, "10.0.0.1", SATISFIED),
        (PreferDualStack, &[], [true, true], V6, "fd00::1", SATISFIED),
        (RequireDualStack, &[], [true, true], BOTH, "10.0.0.1 fd00::1", SATISFIED),
        (RequireDualStack, &[], [true, true], V4, "10.0.0.1", NO_POOL),
        (RequireDualStack, &[], [true, false], BOTH, "10.0.0.1", NO_POOL),
        (RequireDualStack, &[], [false, true], BOTH, "fd00::1", NO_POOL),
    ] {
        let [ipv4, ipv6] = enabled;
        let config = config("n1").with(|c| (c.ipv4, c.ipv6) = (ipv4, ipv6));
        let mut node = Node::configured(config, None);
        node.set([pool("p", blocks)], [service("a/a").families(policy, families)]);
        let node = node.settled();
        let what = format!("{policy:?} {families:?} {enabled:?} {blocks}");
        assert_eq!(
            (node.of("a/a").as_str(), node.satisfied("a/a").as_str()),
            (expected, condition),
            "{what}"
        );
    }
}

#[test]
fn lb_14_a_family_that_is_no_longer_asked_for_is_given_back() {
    let dual = service("a/a").families(IpFamilyPolicy::PreferDualStack, &[]);
    let mut node = Node::with([pool("p", "10.0.0.1 fd00::1")], [dual]);
    node.wait(2_000);
    assert_eq!(node.of("a/a"), "10.0.0.1 fd00::1");
    node.put(service("a/a"));
    node.put(service("b/b").families(IpFamilyPolicy::SingleStack, &[true]));
    assert_eq!([node.of("a/a"), node.of("b/b")], ["10.0.0.1", "fd00::1"]);
}

#[test]
fn lb_15_conditions_of_explicit_requests() {
    let red = pool("red", "10.0.1.1-10.0.1.9").with(|p| p.selector = selecting("color", "red"));
    let pools = || [pool("p", "10.0.0.1-10.0.0.9"), red.clone()];
    let first = || service("a/a").ips("10.0.0.1");
    for (second, expected) in [
        (
            service("a/b").ips("10.0.2.1"),
            "no_pool: No pool exists with a CIDR containing '10.0.2.1'",
        ),
        (service("a/b").ips("fd00::1"), "no_pool: No pool exists with a CIDR containing 'fd00::1'"),
        (
            service("a/b").ips("10.0.1.1"),
            "pool_selector_mismatch: The pool with the CIDR containing '10.0.1.1', doesn't select \
             this service",
        ),
        (
            service("a/b").ips("10.0.0.1"),
            "already_allocated: The IP '10.0.0.1' is already allocated to another service",
        ),
        (
            service("a/b").ips("10.0.0.1").key("k"),
            "already_allocated_incompatible_service: The IP '10.0.0.1' is already allocated to an \
             incompatible service. Reason: different sharing key",
        ),
        // With several requests the last refusal is the condition; what can be had is given.
        (
            service("a/b").ips("10.0.0.1,10.0.0.2,10.0.2.1"),
            "no_pool: No pool exists with a CIDR containing '10.0.2.1'",
        ),
    ] {
        let node = Node::with(pools(), [first(), second]).settled();
        assert_eq!(node.satisfied("a/b"), format!("False {expected}"));
        assert_eq!(node.satisfied("a/a"), SATISFIED);
        let message = expected.split_once(": ").unwrap().1;
        assert_eq!(node.problems("a/b"), [format!("Service a/b: {message}")]);
        assert_eq!(node.statuses.ipam.as_ref().unwrap().services_unsatisfied, 1);
    }
}

/// `a` and `b` ask for one address; returns why `b` does not get it, empty if it does.
fn sharing(a: Service, b: Service) -> String {
    let node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [a.ips("10.0.0.1"), b.ips("10.0.0.1")]);
    let second = if node.services.contains_key(&name("n/b")) { "n/b" } else { "o/b" };
    let text = node.satisfied(second);
    text.rsplit_once("Reason: ").map_or(String::new(), |(_, reason)| reason.to_owned())
}

#[test]
fn lb_15_lb_16_who_may_share() {
    let a = || service("n/a").key("k");
    let b = || service("n/b").key("k").port(81);
    let other = || service("o/b").key("k").port(81);
    let cross = "lbipam.cilium.io/sharing-cross-namespace";
    let local = |s: Service, app: &str| {
        s.with(|s| {
            s.external_traffic_policy = ExternalTrafficPolicy::Local;
            s.selector = (!app.is_empty()).then(|| [("app".into(), app.into())].into());
        })
    };
    let pods = "compatible ExternalTrafficPolicy local but selecting different set of pods";
    let namespace = "different and not permitted namespace";
    for (one, two, expected) in [
        (a(), b(), ""),
        (a(), b().key("l"), "different sharing key"),
        (a(), b().port(80), "same port and protocol"),
        (a(), b().with(|s| s.ports = vec![port(80, PortProtocol::Udp)]), ""),
        (a(), other(), namespace),
        (a().annotate(cross, "o"), other(), namespace),
        (a(), other().annotate(cross, "n"), namespace),
        (a().annotate(cross, "x,o"), other().annotate(cross, "n"), ""),
        (a().annotate(cross, "*"), other().annotate(cross, "*"), ""),
        (a().annotate(cross, "*"), other().annotate(cross, "x"), namespace),
        (local(a(), "x"), b(), "different ExternalTrafficPolicy"),
        (local(a(), "x"), local(b(), "x"), ""),
        (local(a(), "x"), local(b(), "y"), pods),
        (local(a(), ""), local(b(), ""), pods),
        (local(a(), "x"), local(b(), ""), pods),
    ] {
        let what = format!("{:?} {:?}", one.meta.annotations, two.meta.annotations);
        assert_eq!(sharing(one, two), expected, "{what}");
    }
}

#[test]
fn lb_16_a_sharing_key_fills_its_addresses_one_by_one() {
    let mut node = Node::with(
        [pool("p", "10.0.0.1-10.0.0.9 fd00::1-fd00::9")],
        [
            service("n/a").key("k").port(80),
            service("n/b").key("k").port(81),
            service("n/c").key("k").port(80),
            service("n/d").annotate("io.cilium/lb-ipam-sharing-key", "k").port(81),
            service("n/e").key("k").port(82),
            service("n/f").key("").port(83),
        ],
    );
    let of = |node: &Node| ["n/a", "n/b", "n/c", "n/d", "n/e", "n/f"].map(|s| node.of(s));
    let expected = ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.1", "10.0.0.3"];
    assert_eq!(of(&node), expected);
    assert_eq!(node.counts("p")[2], "3", "a shared address is used once");
    node.wait(2_000);
    // A clash that arises later moves the one who came later (here: by name, as all settled at once).
    node.put(service("n/a").key("k").port(82));
    assert_eq!(of(&node)[..5], ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2"]);
}

#[test]
fn lb_16_both_families_are_shared() {
    let dual = |s: Service| s.families(IpFamilyPolicy::RequireDualStack, &[]);
    let node = Node::with(
        [pool("p", "10.0.0.1-10.0.0.9 fd00::1-fd00::9")],
        [dual(service("n/a").key("k")), dual(service("n/b").key("k").port(81))],
    );
    assert_eq!([node.of("n/a"), node.of("n/b")], ["10.0.0.1 fd00::1", "10.0.0.1 fd00::1"]);
}

#[test]
fn lb_17_status_addresses_are_imported_if_they_fit() {
    let had = |s: &str, list: &str| service(s).with(|s| s.status_ips = ips(list));
    let red = pool("red", "10.0.1.1").with(|p| p.selector = selecting("color", "red"));
    for (one, expected) in [
        (had("b/b", "10.0.0.5"), "10.0.0.5"),
        (had("b/b", "10.0.0.5 10.0.0.6"), "10.0.0.5"),
        (had("b/b", "192.0.2.1"), "10.0.0.1"),
        (had("b/b", "10.0.1.1"), "10.0.0.1"),
        (had("b/b", "fd00::5"), "10.0.0.1"),
        (had("b/b", "10.0.0.5").ips("10.0.0.6"), "10.0.0.6"),
        (had("b/b", "10.0.0.6 10.0.0.5").ips("10.0.0.5,10.0.0.6"), "10.0.0.5 10.0.0.6"),
    ] {
        let node = Node::with([pool("p", "10.0.0.1-10.0.0.9 fd00::/64"), red.clone()], [one]);
        assert_eq!(node.of("b/b"), expected);
    }
    // What a status has goes before another's request, as it is in use.
    let node = Node::with(
        [pool("p", "10.0.0.1-10.0.0.9")],
        [service("a/a").ips("10.0.0.5"), had("b/b", "10.0.0.5")],
    );
    assert_eq!([node.of("a/a"), node.of("b/b")], ["", "10.0.0.5"]);
}

#[test]
fn lb_18_no_question_is_asked_on_the_lan() {
    // Conflict detection belongs to announcement; the only packets from here are claims.
    let mut node = Node::with([pool("p", "10.0.0.1")], [service("a/a")]);
    node.wait(3_000);
    assert!(!node.sent.is_empty() && node.sent.iter().all(|packet| packet.starts_with(b"PLCL")));
}

#[test]
fn lb_19_metrics() {
    let node = Node::with(
        [pool("a", "10.0.0.1-10.0.0.4"), pool("b", "10.0.0.2")],
        [service("a/a"), service("a/b"), service("a/c").ips("1.1.1.1")],
    );
    let metrics = node.statuses.ipam.clone().unwrap();
    assert_eq!((metrics.conflicting_pools, metrics.services_matching), (1, 3));
    assert_eq!(metrics.services_unsatisfied, 1);
    assert_eq!(metrics.pools.get("a"), Some(&(2.0, 2)));
}

#[test]
fn an_explicit_request_does_not_take_an_address_in_use() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("z/auto")]);
    node.wait(2_000);
    node.put(service("a/wants").ips("10.0.0.1"));
    assert_eq!([node.of("z/auto"), node.of("a/wants")], ["10.0.0.1", ""]);
    node.remove("z/auto");
    assert_eq!(node.of("a/wants"), "10.0.0.1");
}

#[test]
fn a_service_that_comes_later_moves_nobody_and_a_restart_changes_nothing() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("b/b")]);
    node.wait(2_000);
    node.put(service("a/a"));
    node.wait(2_000);
    assert_eq!([node.of("a/a"), node.of("b/b")], ["10.0.0.2", "10.0.0.1"]);
    let again = node.restarted();
    assert_eq!([again.of("a/a"), again.of("b/b")], ["10.0.0.2", "10.0.0.1"]);
}

#[test]
fn services_that_come_while_a_node_listens_or_just_after_each_other_are_sorted_by_name() {
    let pools = || [pool("p", "10.0.0.1-10.0.0.9")];
    let mut node = Node::with(pools(), [service("b/b")]);
    assert_eq!(node.of("b/b"), "10.0.0.1", "nothing waits");
    node.wait(500);
    node.put(service("a/a"));
    assert_eq!([node.of("a/a"), node.of("b/b")], ["10.0.0.1", "10.0.0.2"]);
    let mut node = Node::with(pools(), []);
    node.wait(2_000);
    node.put(service("c/c"));
    node.wait(80);
    node.put(service("b/b"));
    assert_eq!([node.of("b/b"), node.of("c/c")], ["10.0.0.1", "10.0.0.2"]);
    node.wait(200);
    node.put(service("a/a"));
    let now = ["a/a", "b/b", "c/c"].map(|name| node.of(name));
    assert_eq!(now, ["10.0.0.3", "10.0.0.1", "10.0.0.2"], "what is in use stays");
}

#[test]
fn a_service_that_appears_late_after_a_restart_finds_its_address() {
    let mut node = Node::with([pool("p", "10.0.0.1-10.0.0.9")], ["a/a", "b/b"].map(service));
    node.wait(2_000);
    let mut again = Node::configured(config("n1"), node.saved.clone());
    again.set([pool("p", "10.0.0.1-10.0.0.9")], [service("b/b"), service("c/c")]);
    again.wait(20);
    again.put(service("a/a"));
    assert_eq!(["a/a", "b/b", "c/c"].map(|s| again.of(s)), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[test]
fn the_first_allocation_waits_a_little_for_the_state_file() {
    use pilus::api::Message;
    use pilus::kernel::{Outbox, Server};
    let mut ipam = pilus::server::ipam::Ipam::new(std::sync::Arc::new(config("n1")));
    let node = Node::with([pool("p", "10.0.0.1")], [service("a/a")]);
    let objects = pilus::api::objects::Objects {
        services: std::sync::Arc::new(node.services.clone()),
        pools: std::sync::Arc::new(node.pools.clone()),
        ..Default::default()
    };
    let mut out = Outbox::new();
    ipam.start(node.now, &mut out);
    let objects = Message::Objects(std::sync::Arc::new(objects));
    ipam.handle(node.now, pilus::api::wiring::STORE, objects, &mut out);
    assert!(out.take().is_empty());
    let end = node.now + pilus::server::ipam::RESTORE_WAIT;
    ipam.tick(end, &mut out);
    assert!(out.take().iter().any(|(_, message)| matches!(message, Message::Assignments(_))));
}

#[test]
fn nothing_is_said_twice() {
    let mut node = Node::with([pool("p", "10.0.0.1")], [service("a/a")]);
    node.wait(5_000);
    let (said, sent) = (node.messages, node.sent.len());
    node.objects();
    node.wait(10_000);
    assert_eq!(node.messages - said, node.sent.len() - sent, "only digests go on");
    assert!((9..=12).contains(&(node.sent.len() - sent)), "one a second");
}

#[test]
fn nothing_is_said_of_an_address_that_may_still_change() {
    let mut node =
        Node::with([pool("p", "10.0.0.1-10.0.0.9")], [service("b/late").key("k")]).settled();
    assert_eq!(node.said("b/late"), "10.0.0.1");
    // Another takes part in it: the first keeps it for all to see, the other has it when it stays.
    node.put(service("b/later").key("k").with(|s| s.ports[0].port = 81));
    assert_eq!((node.of("b/later").as_str(), node.said("b/later").as_str()), ("10.0.0.1", ""));
    assert_eq!(
        (node.said("b/late").as_str(), node.settled_of("b/late").as_str()),
        ("10.0.0.1", "10.0.0.1")
    );
    // Two that appear one after the other, the one that goes first later: whoever was given the address moves, unsaid.
    node.put(service("c/second"));
    assert_eq!((node.of("c/second").as_str(), node.said("c/second").as_str()), ("10.0.0.2", ""));
    node.put(service("c/first"));
    assert_eq!(
        (node.of("c/first").as_str(), node.of("c/second").as_str()),
        ("10.0.0.2", "10.0.0.3")
    );
    assert_eq!((node.said("c/first"), node.said("c/second")), (String::new(), String::new()));
    node.wait(200);
    assert_eq!(
        ["b/late", "b/later", "c/first", "c/second"].map(|one| node.said(one)),
        ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]
    );
}
