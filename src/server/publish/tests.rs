use super::*;
use crate::api::meta::{Meta, NamespacedName, Origin};
use crate::api::object::Service;
use crate::api::objects::Objects;
use crate::api::query::ShownStatus;

/// An API server as far as writes go, and the clock.
struct Bench {
    server: Publish,
    now: Time,
    /// The writer's Lease.
    lease: Option<String>,
    /// By path: everything that was written.
    log: Vec<(Verb, String)>,
    /// Objects: path, version, status, applied.
    objects: BTreeMap<ObjectKey, Seen>,
    version: u64,
    /// Of the objects that are put from now on.
    uid: &'static str,
    /// The next writes fail with these.
    failures: Vec<u16>,
    /// The messages of Events.
    events: Vec<String>,
}

fn service_key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::Service, name: NamespacedName::new("a", name) }
}

fn view(services: &[(&str, &str)], made: &[(&str, &str)]) -> Arc<View> {
    let status = |(name, ip): &(&str, &str)| {
        let ips = Some(vec![ip.parse().unwrap()]);
        (service_key(name), ShownStatus { load_balancer: ips, ..ShownStatus::default() })
    };
    let object = |(name, port): &(&str, &str)| {
        let meta = Meta {
            name: NamespacedName::new("a", name),
            origin: Origin::Generated("route"),
            json: format!(
                r#"{{"kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"ports":[{port}]}}}}"#
            )
            .into(),
            ..Meta::default()
        };
        (meta.name.clone(), Arc::new(Service { meta, ..Service::default() }))
    };
    let objects =
        Objects { services: Arc::new(made.iter().map(object).collect()), ..Objects::default() };
    let statuses = Arc::new(services.iter().map(status).collect());
    Arc::new(View { objects: Arc::new(objects), statuses, ..View::default() })
}

impl Bench {
    fn new(node: &str) -> Self {
        let config = Config { node: node.into(), ..Config::default() };
        let server = Publish::new(Arc::new(config), Duration::from_secs(1_000_000));
        let (log, objects, failures) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut bench = Self {
            server,
            now: Time::ZERO,
            lease: None,
            log,
            objects,
            version: 1,
            uid: "u",
            failures,
            events: Vec::new(),
        };
        let versions = BTreeMap::from([(Kind::Service, "v1".into())]);
        bench.handle(Message::Served(Arc::new(versions)));
        bench
    }

    fn handle(&mut self, message: Message) {
        let mut out = Outbox::default();
        self.server.handle(self.now, wiring::STORE, message, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, mut out: Outbox<Message>) {
        for (_, message) in out.take() {
            if let Message::Write(write) = message {
                let outcome = self.write(&write);
                let written = ClusterWritten { id: write.id, outcome };
                self.handle(Message::Written(Arc::new(written)));
            }
        }
    }

    /// Lets the time go by.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.server.timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let mut out = Outbox::default();
            self.server.tick(self.now, &mut out);
            self.carry_out(out);
        }
        self.now = end;
    }

    fn see(&mut self, name: &str) {
        let key = service_key(name);
        let seen = self.objects.get(&key).cloned().map(Arc::new);
        self.handle(Message::SeenObjects(Arc::from([(key, seen)])));
    }

    fn put(&mut self, name: &str, status: &str, applied: Option<&str>) {
        self.version += 1;
        let seen = Seen {
            uid: self.uid.into(),
            version: self.version.to_string().into(),
            status: status.into(),
            applied: applied.map(Str::from),
            ..Seen::default()
        };
        self.objects.insert(service_key(name), seen);
        self.see(name);
    }

    fn write(&mut self, write: &ClusterWrite) -> Result<Str, (u16, Str)> {
        self.log.push((write.verb, write.path.to_string()));
        let body = Json::check(&write.body);
        if write.path.contains("/leases") {
            self.lease = Some(write.body.to_string());
            return Ok(Str::clone(&write.body));
        }
        if let Some(code) = self.failures.pop() {
            return Err((code, "no".into()));
        }
        let name = write
            .path
            .split('/')
            .nth(6)
            .or(Some(""))
            .and_then(|it| it.split('?').next())
            .unwrap()
            .to_owned();
        let seen = self.objects.get(&service_key(&name)).cloned();
        match write.verb {
            Verb::Merge => {
                let seen = seen.ok_or((404, Str::from("gone")))?;
                let version =
                    body.unwrap().at(&["metadata", "resourceVersion"]).and_then(Json::string);
                if version.as_deref() != Some(&*seen.version) {
                    return Err((409, "conflict".into()));
                }
                let status = body.unwrap().get("status").unwrap().text();
                // What is null is not there afterwards.
                let status = status.replace(r#""ingress":null"#, "");
                self.put(&name, &status, seen.applied.as_deref());
            }
            Verb::Apply => {
                let applied = body.unwrap().at(&["metadata", "annotations", "pilus.dev/applied"]);
                let applied = applied.and_then(Json::string).unwrap().into_owned();
                self.put(&name, seen.as_ref().map_or("", |seen| &seen.status), Some(&applied));
            }
            Verb::Delete => {
                self.objects.remove(&service_key(&name));
                self.see(&name);
            }
            Verb::Create => self.events.push(body.unwrap().get("message").unwrap().text().into()),
            Verb::Replace => {}
        }
        Ok("{}".into())
    }

    /// The writes since the last look, Leases aside.
    fn writes(&mut self) -> Vec<(Verb, String)> {
        let log = std::mem::take(&mut self.log);
        log.into_iter().filter(|(_, path)| !path.contains("/leases")).collect()
    }

    fn lead(&mut self) {
        self.handle(Message::WriterLease(self.lease.clone().map(Str::from)));
        self.run(Duration::from_secs(1));
    }

    fn status(&self, name: &str) -> &str {
        self.objects.get(&service_key(name)).map_or("", |seen| &seen.status)
    }
}

#[test]
fn only_the_holder_of_the_lease_writes_and_only_what_differs() {
    let mut bench = Bench::new("n1");
    bench.put("s", "{}", None);
    bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
    bench.run(Duration::from_secs(60));
    assert!(bench.writes().is_empty(), "the Lease is not known yet");
    bench.lead();
    assert_eq!(bench.writes().len(), 1);
    assert!(bench.status("s").contains(r#""ip":"10.0.0.1""#));
    // Seen again, shown again: nothing to write. The Lease is renewed six times a minute.
    bench.see("s");
    bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
    bench.run(Duration::from_secs(60));
    assert_eq!(bench.log.len(), 6);
    assert!(bench.writes().is_empty());
    // Somebody has written something else into it.
    bench.put("s", r#"{"loadBalancer":{"ingress":[{"ip":"9.9.9.9"}]}}"#, None);
    bench.run(Duration::from_secs(1));
    assert_eq!(bench.writes().len(), 1);
    assert!(bench.status("s").contains("10.0.0.1"));
}

#[test]
fn another_holder_is_left_to_write_until_it_falls_silent() {
    let mut bench = Bench::new("n2");
    let lease =
        r#"{"metadata":{"resourceVersion":"1"},"spec":{"holderIdentity":"n1","renewTime":"x"}}"#;
    bench.put("s", "{}", None);
    bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
    bench.handle(Message::WriterLease(Some(lease.into())));
    bench.run(Duration::from_secs(29));
    assert!(bench.log.is_empty());
    bench.run(Duration::from_secs(2));
    assert_eq!(bench.writes().len(), 1);
}

#[test]
fn made_objects_are_applied_adopted_and_deleted_when_it_is_certain() {
    let mut bench = Bench::new("n1");
    bench.put("old", "", Some("hash"));
    bench.put("theirs", "", None);
    bench.handle(Message::View(view(&[], &[("new", "1"), ("theirs", "1")])));
    bench.lead();
    let made = "/api/v1/namespaces/a/services/new?fieldManager=pilus&force=true".to_owned();
    // What has the name and is not ours is left alone, and nothing is deleted at once.
    assert_eq!(bench.writes(), [(Verb::Apply, made)]);
    bench.run(Duration::from_secs(30));
    assert_eq!(bench.writes(), [(Verb::Delete, "/api/v1/namespaces/a/services/old".to_owned())]);
    // Another agent that takes over finds everything as it would have made it.
    let mut other = Bench::new("n2");
    other.objects = bench.objects.clone();
    other.see("new");
    other.see("theirs");
    other.handle(Message::View(view(&[], &[("new", "1"), ("theirs", "1")])));
    other.lead();
    other.run(Duration::from_secs(30));
    assert!(other.writes().is_empty());
    // Changed, it is applied again; gone, it is deleted.
    other.handle(Message::View(view(&[], &[("new", "2")])));
    other.run(Duration::from_secs(1));
    assert_eq!(other.writes().len(), 1);
    other.handle(Message::View(view(&[], &[])));
    other.run(Duration::from_secs(30));
    assert_eq!(other.writes(), [(Verb::Delete, "/api/v1/namespaces/a/services/new".to_owned())]);
}

#[test]
fn what_fails_is_tried_again_and_what_is_forbidden_is_said() {
    for code in [0, 409, 429, 500] {
        let mut bench = Bench::new("n1");
        bench.put("s", "{}", None);
        bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
        bench.failures = vec![code; 3];
        bench.lead();
        bench.run(Duration::from_secs(10));
        assert_eq!(bench.writes().len(), 4, "{code}");
        assert!(bench.status("s").contains("10.0.0.1"));
    }
    let mut bench = Bench::new("n1");
    bench.put("s", "{}", None);
    bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
    bench.failures = vec![403; 2];
    bench.lead();
    assert!(
        bench.server.refusals[&Kind::Service]
            .contains("the status of Service a/s cannot be written: no")
    );
    bench.run(Duration::from_secs(65));
    assert_eq!(bench.writes().len(), 3);
    assert!(bench.server.refusals.is_empty());
}

#[test]
fn somebody_who_undoes_everything_is_not_fought_at_full_speed() {
    let mut bench = Bench::new("n1");
    bench.put("s", "{}", None);
    bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
    bench.lead();
    for _ in 0..100 {
        bench.put("s", "{}", None);
        bench.run(Duration::from_millis(300));
    }
    let writes = bench.writes().len();
    assert!((1..=10).contains(&writes), "{writes} in 30 s");
}

#[test]
fn a_version_that_is_too_old_is_not_forced() {
    let mut bench = Bench::new("n1");
    bench.put("s", "{}", None);
    // Changed meanwhile, and not seen yet.
    bench.objects.get_mut(&service_key("s")).unwrap().version = "99".into();
    bench.handle(Message::View(view(&[("s", "10.0.0.1")], &[])));
    bench.lead();
    assert_eq!(bench.status("s"), "{}");
    bench.see("s");
    bench.run(Duration::from_secs(1));
    assert!(bench.status("s").contains("10.0.0.1"));
}

#[test]
fn what_stays_wrong_is_an_event_once_for_each_object_that_has_the_name() {
    let mut bench = Bench::new("n1");
    bench.put("s", "{}", None);
    bench.lead();
    let complaint = |message: &str| {
        let problem = Problem {
            position: None,
            object: Some(service_key("s")),
            field: "spec".to_owned(),
            message: message.to_owned(),
            severity: Severity::Error,
        };
        let problems = Arc::from(vec![(1, problem)]);
        Message::View(Arc::new(View { problems, ..View::default() }))
    };
    let events = |bench: &mut Bench| {
        bench.run(Duration::from_secs(5));
        bench.writes().iter().filter(|(_, path)| path.ends_with("/events")).count()
    };
    // Wrong for a moment: the object that it names comes next.
    bench.handle(complaint("Gateway a/g does not exist"));
    bench.run(Duration::from_millis(500));
    bench.handle(complaint("no such filter"));
    assert_eq!(events(&mut bench), 1);
    bench.handle(complaint("no such filter"));
    bench.put("s", "{}", None);
    assert_eq!(events(&mut bench), 0, "it is said");
    // Deleted and made again, the object is another one.
    bench.uid = "v";
    bench.put("s", "{}", None);
    assert_eq!(events(&mut bench), 1);
    // A server without time is told again, one that has the Event already is not.
    for (code, told) in [(500, 2), (409, 1)] {
        bench.failures = vec![code];
        bench.handle(complaint(&format!("wrong until {code}")));
        assert_eq!(events(&mut bench), told, "{code}");
    }
}
#[test]
fn a_service_that_is_no_load_balancer_any_more_loses_what_we_said_of_it() {
    let condition = |kind| format!(r#"{{"type":"{kind}","status":"True"}}"#);
    let (ours, theirs) = (condition("cilium.io/IPAMRequestSatisfied"), condition("theirs"));
    let mut bench = Bench::new("n1");
    let mut seen = Seen { version: "1".into(), was_balancer: true, ..Seen::default() };
    seen.status = format!(r#"{{"conditions":[{ours},{theirs}],"loadBalancer":{{}}}}"#).into();
    bench.objects.insert(service_key("s"), seen);
    bench.see("s");
    bench.handle(Message::View(view(&[], &[])));
    bench.lead();
    assert_eq!(bench.writes().len(), 1);
    let status = Json::check(bench.status("s")).unwrap();
    let left: Vec<_> = status.get("conditions").unwrap().items().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].get("type").and_then(Json::string).as_deref(), Some("theirs"));
}

#[test]
fn an_address_is_taken_back_when_it_is_certain_that_there_is_none() {
    let mut bench = Bench::new("n1");
    bench.put("s", r#"{"loadBalancer":{"ingress":[{"ip":"10.0.0.1"}]}}"#, None);
    let status = ShownStatus { load_balancer: Some(Vec::new()), ..ShownStatus::default() };
    let statuses = Arc::new(BTreeMap::from([(service_key("s"), status)]));
    bench.handle(Message::View(Arc::new(View { statuses, ..View::default() })));
    bench.lead();
    bench.run(Duration::from_secs(5));
    assert!(bench.writes().is_empty(), "it may come yet");
    bench.run(Duration::from_secs(20));
    assert_eq!(bench.status("s"), r#"{"loadBalancer":{}}"#);
    assert_eq!(bench.writes().len(), 1);
}

#[test]
fn what_is_of_another_class_keeps_only_what_others_say() {
    let wanted = |kind, is_written_by_us| {
        let key = ObjectKey { kind, name: NamespacedName::new("a", "i") };
        let seen = Seen { is_written_by_us, ..Seen::default() };
        wanted::status(&key, None, &seen).map(|(status, _)| to_json_compact(&status))
    };
    assert_eq!(wanted(Kind::Ingress, true).as_deref(), Some(r#"{"loadBalancer":{}}"#));
    assert_eq!(wanted(Kind::Gateway, true).as_deref(), Some("{}"));
    assert!(wanted(Kind::Ingress, false).is_none() && wanted(Kind::Gateway, false).is_none());
}

fn complaints(services: &[&str], messages: &[&str]) -> Arc<View> {
    let of = |name: &&str| {
        let problem = |message: &&str| Problem {
            position: None,
            object: Some(service_key(name)),
            field: String::new(),
            message: (*message).to_owned(),
            severity: Severity::Error,
        };
        messages.iter().map(problem).map(|problem| (0, problem)).collect::<Vec<_>>()
    };
    Arc::new(View { problems: Arc::new(services.iter().flat_map(of).collect()), ..View::default() })
}

#[test]
fn a_complaint_is_said_once_and_a_server_in_trouble_is_told_later() {
    for (code, times) in [(0, 1), (429, 1), (503, 1), (409, 0), (403, 0)] {
        let mut bench = Bench::new("n1");
        bench.put("s", "{}", None);
        bench.failures = vec![code];
        bench.handle(Message::View(complaints(&["s", "gone"], &["it is wrong"])));
        bench.lead();
        bench.run(Duration::from_secs(30));
        assert_eq!(bench.events.len(), times, "{code}");
        assert!(bench.server.dirty.is_empty() && bench.server.waiting.is_empty());
        bench.handle(Message::View(complaints(&["s"], &["it is wrong", "very wrong"])));
        bench.run(Duration::from_secs(30));
        assert_eq!(bench.events.len(), times + 1, "{code}");
        // An Event is forgotten after an hour, and said again if it is still true.
        bench.run(Duration::from_secs(3600));
        bench.handle(Message::View(complaints(&["s"], &["it is wrong"])));
        bench.run(Duration::from_secs(1));
        assert_eq!(bench.events.len(), times + 2, "{code}");
    }
}

#[test]
fn more_complaints_than_anyone_reads_are_no_storm() {
    let texts: Vec<String> = (0..5000).map(|number| format!("wrong {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let view = complaints(&["s"], &texts);
    let mut events = event::Events::default();
    let uid = |_: &ObjectKey| Some("u".into());
    let versions = ServedVersions::new(BTreeMap::from([(Kind::Service, "v1".into())]));
    let mut said = |unix| {
        let wanted = events.of(&view.problems, &uid, unix);
        wanted.into_iter().filter_map(|id| events.write(id, &uid, &versions, "n", unix)).count()
    };
    assert_eq!([0, 1, 2].map(&mut said), [4096, 0, 0]);
    assert_eq!([3600, 3601].map(&mut said), [4096, 0]);
}

#[test]
fn one_that_changes_all_the_time_does_not_keep_the_others_from_being_written() {
    let mut bench = Bench::new("n1");
    for name in ["a", "b", "c"] {
        bench.put(name, "{}", None);
    }
    bench.lead();
    let keys = ["a", "b", "c"].map(|name| Target::Status(service_key(name)));
    bench.server.dirty.extend(keys.clone());
    bench.server.dirty.extend([Target::Event(1), Target::Event(2)]);
    let mut taken = Vec::new();
    // The first is dirty again each time, and no write is ever done.
    for id in 1000..1005 {
        bench.server.dirty.insert(keys[0].clone());
        let next = bench.server.next_dirty().unwrap();
        bench.server.writing.insert(id, next.clone());
        taken.push(next);
    }
    let [a, b, c] = keys;
    // A hundred Events take one place of those that there are for writes.
    assert_eq!(taken, [Target::Event(2), a.clone(), b, c, a]);
}
