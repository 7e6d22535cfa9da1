use super::*;
use crate::kernel::Time;

fn facts(server: &mut Kube, facts: Vec<Fact>) -> Vec<Message> {
    let mut out = Outbox::default();
    server.handle(Time::ZERO, wiring::CLUSTER, Message::Facts(facts.into()), &mut out);
    out.take().into_iter().map(|(_, message)| message).collect()
}

fn served(kind: Kind) -> Fact {
    let watched = WATCHED.iter().find(|watched| watched.kind == kind).unwrap();
    let group = watched.group;
    let version = watched.versions[0];
    let text = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Fact::Served(kind, Ok(text.into()))
}

/// A server that has read everything, and nothing was there.
fn ready() -> Kube {
    let mut server = Kube::new();
    for watched in &WATCHED {
        let kind = watched.kind;
        facts(&mut server, vec![served(kind), Fact::Listing(kind), Fact::Complete(kind)]);
    }
    server
}

fn source(messages: &[Message]) -> Option<Arc<Objects>> {
    messages.iter().find_map(|message| match message {
        Message::Source(objects) => Some(Arc::clone(objects)),
        _ => None,
    })
}

fn problems(messages: &[Message]) -> Vec<String> {
    let found = messages.iter().find_map(|message| match message {
        Message::Statuses(statuses) => Some(Arc::clone(statuses)),
        _ => None,
    });
    found.map_or_else(Vec::new, |it| it.problems.iter().map(ToString::to_string).collect())
}

fn service(name: &str, port: u16) -> Fact {
    let text = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"a","uid":"u-{name}","resourceVersion":"7","managedFields":[{{}}]}},"spec":{{"newField":1,"internalTrafficPolicy":"Cluster","ports":[{{"port":{port},"protocol":"TCP"}}]}}}}"#
    );
    Fact::Put(Kind::Service, text.into())
}

#[test]
fn nothing_is_sent_on_before_every_kind_was_read() {
    let mut server = Kube::new();
    let last = WATCHED.len() - 1;
    for (at, watched) in WATCHED.iter().enumerate() {
        let kind = watched.kind;
        assert!(source(&facts(&mut server, vec![served(kind), Fact::Listing(kind)])).is_none());
        // One is not there at all.
        let done = match kind {
            Kind::XBackend => Fact::Served(kind, Err("no".into())),
            _ => Fact::Complete(kind),
        };
        assert_eq!(source(&facts(&mut server, vec![done])).is_some(), at == last, "{kind}");
    }
}

#[test]
fn objects_come_change_and_go_and_the_rest_is_shared() {
    let mut server = ready();
    let messages = facts(&mut server, vec![service("s", 80), service("t", 80)]);
    let first = source(&messages).unwrap();
    assert_eq!(first.services.len(), 2);
    let known = first.services.values().next().unwrap();
    assert_eq!((&*known.meta.uid, known.ports[0].port), ("u-s", 80));
    assert!(!known.meta.json.contains("managedFields"));
    // The same again is no change.
    assert!(source(&facts(&mut server, vec![service("s", 80)])).is_none());
    let second = source(&facts(&mut server, vec![service("s", 81)])).unwrap();
    let name = |name| NamespacedName::new("a", name);
    assert!(Arc::ptr_eq(&first.services[&name("t")], &second.services[&name("t")]));
    assert!(Arc::ptr_eq(&first.nodes, &second.nodes));
    assert!(second.generation > first.generation);
    let gone = facts(&mut server, vec![Fact::Gone(Kind::Service, name("s"))]);
    assert_eq!(source(&gone).unwrap().services.len(), 1);
    // What a new list does not name is gone as well.
    let list = vec![Fact::Listing(Kind::Service), service("u", 1), Fact::Complete(Kind::Service)];
    let objects = source(&facts(&mut server, list)).unwrap();
    assert_eq!(objects.services.keys().collect::<Vec<_>>(), [&name("u")]);
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_says_so() {
    let mut server = ready();
    let pool = |block: &str| {
        let text = format!(r#"{{"metadata":{{"name":"p"}},"spec":{{"blocks":[{block}]}}}}"#);
        Fact::Put(Kind::CiliumLoadBalancerIPPool, text.into())
    };
    let messages = facts(&mut server, vec![pool(r#"{"cidr":"10.0.0.0/33"}"#)]);
    assert!(source(&messages).is_none());
    assert_eq!(problems(&messages).len(), 1);
    let good = facts(&mut server, vec![pool(r#"{"cidr":"10.0.0.0/24"}"#)]);
    assert_eq!(source(&good).unwrap().pools.len(), 1);
    let bad = facts(&mut server, vec![pool(r#"{"cidr":"10.0.0.0/24","cdir":"x"}"#)]);
    assert!(source(&bad).is_none());
    let shown = problems(&bad).join("\n");
    assert!(shown.contains("CiliumLoadBalancerIPPool p"), "{shown}");
    assert!(shown.contains("spec.blocks[0].cdir") && shown.contains("did you mean"), "{shown}");
    assert!(shown.contains("its last good version stays in effect"), "{shown}");
}

#[test]
fn trouble_and_missing_kinds_are_said() {
    let mut server = ready();
    let trouble = Fact::Trouble(Kind::Secret, Some("403: no".into()));
    let shown = problems(&facts(&mut server, vec![trouble])).join("\n");
    assert!(shown.contains("secrets cannot be read: 403: no"), "{shown}");
    let messages = facts(&mut server, vec![Fact::Trouble(Kind::Secret, None)]);
    assert!(messages.iter().any(|message| matches!(message, Message::Statuses(_))));
    assert!(problems(&messages).is_empty());
    let missing = Fact::Served(Kind::Gateway, Err("Gateway is not served".into()));
    let shown = problems(&facts(&mut server, vec![missing])).join("\n");
    assert!(shown.contains("Gateway is not served"), "{shown}");
}

#[test]
fn config_maps_without_certificates_are_not_kept() {
    let mut server = ready();
    let map = |name: &str, key: &str| {
        let text =
            format!(r#"{{"metadata":{{"name":"{name}","namespace":"a"}},"data":{{"{key}":"x"}}}}"#);
        Fact::Put(Kind::ConfigMap, text.into())
    };
    let objects = source(&facts(&mut server, vec![map("m", "game.conf"), map("n", "ca.crt")]));
    assert_eq!(objects.unwrap().config_maps.len(), 1);
    let objects = source(&facts(&mut server, vec![map("n", "other")]));
    assert_eq!(objects.unwrap().config_maps.len(), 0);
}

#[test]
fn an_api_server_that_is_away_at_the_start_is_said_at_once_and_forgotten_later() {
    let mut server = Kube::new();
    let away = Fact::Unknown(Some("the API server cannot be reached: refused".into()));
    let shown = problems(&facts(&mut server, vec![away])).join("\n");
    assert!(shown.contains("cannot be reached: refused"), "{shown}");
    assert!(server.in_trouble && server.logged == Some(Time::ZERO));
    let messages = facts(&mut server, vec![Fact::Unknown(None)]);
    assert!(messages.iter().any(|message| matches!(message, Message::Statuses(_))));
    assert!(problems(&messages).is_empty() && !server.in_trouble);
    // Again within the minute: not said again.
    let again = Fact::Trouble(Kind::Node, Some("away".into()));
    let mut out = Outbox::default();
    let soon = Time::ZERO + LOG_AGAIN / 2;
    server.handle(soon, wiring::CLUSTER, Message::Facts(Arc::from([again])), &mut out);
    assert!(server.in_trouble && server.logged == Some(Time::ZERO));
}

#[test]
fn a_former_load_balancer_is_seen_as_long_as_conditions_of_ours_stand_there() {
    let seen = |service: &str, condition: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"s","namespace":"a"}},"spec":{{"type":"{service}"}},"status":{{"conditions":[{{"type":"{condition}"}}]}}}}"#
        );
        let (_, seen) = seen::of(Kind::Service, &text).unwrap();
        seen.map(|seen| (seen.was_balancer, !seen.status.is_empty()))
    };
    assert_eq!(seen("ClusterIP", "cilium.io/IPAMRequestSatisfied"), Some((true, true)));
    assert_eq!(seen("ClusterIP", "theirs"), None);
    assert_eq!(seen("LoadBalancer", "cilium.io/IPAMRequestSatisfied"), Some((false, true)));
}

#[test]
fn who_wrote_the_status_of_an_ingress_is_seen() {
    let seen = |manager: &str, subresource: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"i","managedFields":[{{"manager":"{manager}","subresource":"{subresource}"}}]}}}}"#
        );
        seen::of(Kind::Ingress, &text).unwrap().1.unwrap().is_written_by_us
    };
    assert!(seen("pilus", "status"));
    assert!(!seen("other", "status") && !seen("pilus", ""));
}
