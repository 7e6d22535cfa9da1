use super::*;
use crate::api::meta::NamespacedName;

/// What the clock of the day shows at first.
const START: Duration = Duration::from_secs(1_755_953_577);

/// The server as the store sees it.
struct Bench {
    server: Manifests,
    now: Time,
    objects: Option<Arc<Objects>>,
    problems: Vec<String>,
    sent: Vec<&'static str>,
}

fn content(text: &str) -> FileState {
    FileState::Content(text.as_bytes().into())
}

impl Bench {
    fn new() -> Self {
        let server = Manifests::new(START);
        let sent = Vec::new();
        Self { server, now: Time::ZERO, objects: None, problems: Vec::new(), sent }
    }

    fn files(&mut self, changes: &[(&str, FileState)], missing: &[&str], complete: bool) {
        let reason = || "no such file or directory".to_owned();
        let files = Files {
            changes: changes.iter().map(|(path, state)| (path.into(), state.clone())).collect(),
            missing_directories: missing.iter().map(|path| (path.into(), reason())).collect(),
            complete,
        };
        let mut out = Outbox::new();
        self.server.handle(self.now, wiring::FILES, Message::Files(Arc::new(files)), &mut out);
        self.take(&mut out);
    }

    fn take(&mut self, out: &mut Outbox<Message>) {
        self.sent.clear();
        for (to, message) in out.take() {
            assert_eq!(to, wiring::STORE);
            match message {
                Message::Source(objects) => {
                    self.sent.push("objects");
                    self.objects = Some(objects);
                }
                Message::Statuses(statuses) => {
                    self.sent.push("problems");
                    self.problems = statuses.problems.iter().map(ToString::to_string).collect();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn set(&mut self, path: &str, text: &str) {
        self.files(&[(path, content(text))], &[], false);
    }

    fn objects(&self) -> &Objects {
        self.objects.as_ref().unwrap()
    }

    fn ports(&self) -> Vec<(String, u16)> {
        let services = self.objects().services.values();
        services.map(|service| (service.meta.name.to_string(), service.ports[0].port)).collect()
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports:\n  - port: {port}\n---\n"
    )
}

#[test]
fn the_first_reading_is_sent_even_if_there_is_nothing() {
    let mut bench = Bench::new();
    bench.files(&[], &[], true);
    assert_eq!(bench.sent, ["objects", "problems"]);
    assert_eq!(bench.objects().generation, Generation(1));
    bench.files(&[], &[], true);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_broken_edit_keeps_the_last_good_version_and_harms_nobody_else() {
    let mut bench = Bench::new();
    bench.set("d/a.yaml", &(service("one", 1) + &service("two", 2)));
    assert_eq!(bench.ports(), [("default/one".into(), 1), ("default/two".into(), 2)]);
    let broken = service("one", 1).replace("port: 1", "prot: 1");
    bench.set("d/a.yaml", &(broken.clone() + &service("two", 22)));
    assert_eq!(bench.ports(), [("default/one".into(), 1), ("default/two".into(), 22)]);
    assert_eq!(
        bench.problems,
        [
            "d/a.yaml:6:5: Service default/one: spec.ports[0].port: required, and missing; its last good \
             version stays in effect",
            "d/a.yaml:6:5: Service default/one: spec.ports[0].prot: unknown field (did you mean `port`?); \
             its last good version stays in effect",
        ]
    );
    // Still kept when it is broken in another way, and gone when it is removed.
    bench.set("d/a.yaml", &(broken.replace("prot", "x") + &service("two", 22)));
    assert_eq!(bench.ports(), [("default/one".into(), 1), ("default/two".into(), 22)]);
    bench.set("d/a.yaml", &service("two", 22));
    assert_eq!(bench.ports(), [("default/two".into(), 22)]);
    assert!(bench.problems.is_empty());
    // One that was never good is left out.
    bench.set("d/b.yaml", &broken);
    assert_eq!(bench.ports(), [("default/two".into(), 22)]);
    assert!(!bench.problems[0].contains("last good"), "{:?}", bench.problems);
}

#[test]
fn a_syntax_error_in_one_document_keeps_its_object() {
    let mut bench = Bench::new();
    bench.set("a.yaml", &(service("one", 1) + &service("two", 2)));
    bench.set(
        "a.yaml",
        &(service("one", 1).replace("metadata:", "metadata: {") + &service("two", 3)),
    );
    assert_eq!(bench.ports(), [("default/one".into(), 1), ("default/two".into(), 3)]);
    assert_eq!(bench.problems.len(), 1);
    assert!(bench.problems[0].starts_with("a.yaml:4:1: not valid YAML"), "{:?}", bench.problems);
    assert!(
        bench.problems[0].ends_with("objects of before that are not found now stay as they were")
    );
    // A definition elsewhere takes the place of what was only kept.
    bench.set("b.yaml", &service("one", 9));
    assert_eq!(bench.ports(), [("default/one".into(), 9), ("default/two".into(), 3)]);
    assert_eq!(bench.problems.len(), 1);
    bench.set("a.yaml", "");
    assert_eq!(bench.ports(), [("default/one".into(), 9)]);
    assert!(bench.problems.is_empty());
}

#[test]
fn files_that_cannot_be_read_keep_their_objects_and_removed_ones_do_not() {
    let mut bench = Bench::new();
    bench.files(
        &[("d/a.yaml", content(&service("a", 1))), ("e/b.yaml", content(&service("b", 2)))],
        &[],
        true,
    );
    bench.files(&[("d/a.yaml", FileState::Unreadable("permission denied".into()))], &[], false);
    assert_eq!(bench.ports().len(), 2);
    assert_eq!(
        bench.problems,
        ["d/a.yaml:1:1: cannot be read: permission denied; its objects stay as they were"]
    );
    assert_eq!(bench.sent, ["problems"]);
    bench.set("d/a.yaml", &service("a", 1));
    assert!(bench.problems.is_empty());
    // The directory is gone: what it held stays, also in a complete reading.
    for complete in [false, true] {
        bench.files(&[], &["e"], complete);
        let expected = if complete { 1 } else { 2 };
        assert_eq!(bench.ports().len(), expected);
        assert!(bench.ports().contains(&("default/b".into(), 2)));
        assert_eq!(
            bench.problems,
            [
                "e:1:1: cannot be read: no such file or directory; its objects stay as they were until it \
              is back"
            ]
        );
    }
    bench.files(&[("e/b.yaml", FileState::Removed)], &[], false);
    assert!(bench.ports().is_empty());
    assert!(bench.problems.is_empty());
}

#[test]
fn the_first_definition_wins_in_the_order_of_files_whatever_came_first() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    let (a, b) = (service("x", 1), service("x", 2));
    one.set("a.yaml", &a);
    one.set("b.yaml", &b);
    other.set("b.yaml", &b);
    assert_eq!(other.ports(), [("default/x".into(), 2)]);
    other.set("a.yaml", &a);
    for bench in [&one, &other] {
        assert_eq!(bench.ports(), [("default/x".into(), 1)]);
        assert_eq!(
            bench.problems,
            [
                "b.yaml:1:1: Service default/x: defined already at a.yaml:1:1; this definition is not in \
              effect"
            ]
        );
    }
    one.files(&[("a.yaml", FileState::Removed)], &[], false);
    assert_eq!(one.ports(), [("default/x".into(), 2)]);
    assert!(one.problems.is_empty());
}

#[test]
fn what_does_not_change_is_shared_and_not_sent() {
    let mut bench = Bench::new();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n";
    bench.files(
        &[
            ("a.yaml", content(&(service("a", 1) + &service("b", 2)))),
            ("n.yaml", content(namespace)),
        ],
        &[],
        true,
    );
    let before = Arc::clone(bench.objects.as_ref().unwrap());
    bench.set("a.yaml", &(service("a", 1) + &service("b", 2)));
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    bench.set("a.yaml", &(service("a", 1) + &service("b", 3)));
    assert_eq!(bench.sent, ["objects"]);
    let after = bench.objects();
    assert_eq!(after.generation, Generation(before.generation.0 + 1));
    assert!(Arc::ptr_eq(&after.namespaces, &before.namespaces));
    assert!(!Arc::ptr_eq(&after.services, &before.services));
    let (a, b) = (NamespacedName::new("default", "a"), NamespacedName::new("default", "b"));
    assert!(Arc::ptr_eq(&after.services[&a], &before.services[&a]));
    assert!(!Arc::ptr_eq(&after.services[&b], &before.services[&b]));
}

#[test]
fn generation_counts_the_changes_in_effect_and_the_age_stays() {
    let mut bench = Bench::new();
    let life = |bench: &Bench| {
        let service = bench.objects().services.values().next().unwrap();
        (service.meta.generation, service.meta.created)
    };
    let born = START.as_secs();
    bench.set("a.yaml", &service("a", 1));
    assert_eq!(life(&bench), (1, born));
    bench.now = bench.now + Duration::from_secs(100);
    bench.set("a.yaml", &service("a", 2));
    assert_eq!(life(&bench), (2, born));
    // Neither a broken version nor a label nor a comment is a change of the specification.
    bench.set("a.yaml", &service("a", 3).replace("port:", "prot:"));
    assert_eq!(life(&bench), (2, born));
    bench.set("a.yaml", &service("a", 2).replace("{name: a}", "{name: a, labels: {x: z}} # c"));
    assert_eq!(life(&bench), (2, born));
    // Moved to another file it is the same object; removed and made again it is another.
    bench.files(
        &[("a.yaml", FileState::Removed), ("b.yaml", content(&service("a", 2)))],
        &[],
        false,
    );
    assert_eq!(life(&bench), (2, born));
    bench.files(&[("b.yaml", FileState::Removed)], &[], false);
    bench.set("b.yaml", &service("a", 2));
    assert_eq!(life(&bench), (1, born + 100));
}

#[test]
fn a_new_store_is_told_everything_again() {
    let mut bench = Bench::new();
    let mut out = Outbox::new();
    bench.server.peer_restarted(Time::ZERO, wiring::STORE, &mut out);
    assert!(out.take().is_empty(), "nothing is known before the first reading");
    bench.set(
        "a.yaml",
        &(service("a", 1) + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"),
    );
    let before = Arc::clone(bench.objects.as_ref().unwrap());
    assert_eq!(before.skipped.get("Deployment"), Some(&1));
    bench.server.peer_restarted(Time::ZERO, wiring::STORE, &mut out);
    bench.take(&mut out);
    assert_eq!(bench.sent, ["objects", "problems"]);
    assert!(Arc::ptr_eq(&before, bench.objects.as_ref().unwrap()));
}

#[test]
fn one_changed_document_among_thousands_is_the_only_one_that_is_decoded() {
    const COUNT: usize = 2000;
    let mut texts: Vec<String> = (0..COUNT).map(|n| service(&format!("s{n}"), 80)).collect();
    let mut bench = Bench::new();
    bench.set("a.yaml", &texts.concat());
    assert_eq!(bench.server.decoded(), COUNT as u64);
    let before = Arc::clone(bench.objects.as_ref().unwrap());
    texts[COUNT / 2] = service(&format!("s{}", COUNT / 2), 81);
    bench.set("a.yaml", &texts.concat());
    assert_eq!(bench.server.decoded(), COUNT as u64 + 1);
    let after = &bench.objects().services;
    let changed = after.iter().filter(|(name, it)| !Arc::ptr_eq(it, &before.services[*name]));
    assert_eq!(changed.map(|(_, it)| it.ports[0].port).collect::<Vec<_>>(), [81]);
    // What comes after a new line has other places, which objects know.
    texts[COUNT - 3].insert_str(0, "# a comment\n");
    bench.set("a.yaml", &texts.concat());
    assert_eq!(bench.server.decoded(), COUNT as u64 + 1 + 3);
}

/// Texts in which objects come, go, move, break, repeat and change.
fn any_text(random: &mut dyn FnMut(usize) -> usize) -> Vec<String> {
    let mut documents: Vec<String> = Vec::new();
    for _ in 0..random(7) {
        let name = ["a", "b", "c"][random(3)];
        let good = service(name, 1 + random(3) as u16);
        documents.push(match random(12) {
            0 => good.replace("port:", "prot:"),
            1 => good.replace("spec:", "spec: ["),
            2 => good.replace("kind: Service", "kind: Deployment"),
            3 => good.replace("kind: Service", "kind: Sevrice"),
            4 => "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}]}}\n- {apiVersion: apps/v1, kind: Deployment}\n---\n".into(),
            5 => good.replace("ports:", "loadBalancerSourceRanges: [10.0.0.0/8]\n  ports:"),
            _ => good,
        });
    }
    documents
}

#[test]
fn what_is_taken_over_is_what_decoding_again_would_give() {
    for seed in 0..120u64 {
        let mut state = seed;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut quick, mut thorough) = (Bench::new(), Bench::new());
        for turn in 0..12 {
            let path = ["x.yaml", "y.yaml"][random(2)];
            let documents = any_text(&mut random);
            // A comment that differs each time makes every document another one, with the same content and places.
            let text = |mark: String| -> String {
                documents.iter().map(|document| format!("--- # {mark}\n{document}")).collect()
            };
            quick.set(path, &text(String::new()));
            thorough.set(path, &text(format!("{turn}")));
            assert_eq!(quick.problems, thorough.problems, "seed {seed}, turn {turn}");
            assert_eq!(quick.ports(), thorough.ports(), "seed {seed}, turn {turn}");
            let all = quick.objects().services.values().zip(thorough.objects().services.values());
            for (quick, thorough) in all {
                assert_eq!(quick, thorough, "seed {seed}, turn {turn}");
            }
        }
        assert!(quick.server.decoded() <= thorough.server.decoded());
    }
}
