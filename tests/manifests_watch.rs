//! Real files and inotify under the files driver and the manifests server: what is written is live, and
//! what disappears is kept until it is back.
#![expect(clippy::unwrap_used, reason = "a test that cannot write its files must fail")]
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pilus::api::config::Config;
use pilus::api::file::StateBlob;
use pilus::api::objects::Objects;
use pilus::api::{Message, wiring};
use pilus::io::clock;
use pilus::io::event_loop::EventLoop;
use pilus::io::files::Files;
use pilus::kernel::{Driver, Kernel, Outbox, Server, ServerId, Time, Wiring};
use pilus::server::manifests::Manifests;

/// A test that hangs ends after this; none comes near it.
const PATIENCE: Duration = Duration::from_secs(20);

static DIRECTORIES: AtomicU32 = AtomicU32::new(0);

/// What reached the store and IPAM.
#[derive(Default)]
struct Seen {
    objects: Arc<Objects>,
    snapshots: u32,
    problems: Vec<String>,
    restored: Vec<Option<Vec<u8>>>,
}

/// Takes the place of the store and of IPAM.
struct Recorder(Rc<RefCell<Seen>>);

impl Server<Message> for Recorder {
    fn handle(&mut self, _: Time, _: ServerId, message: Message, _: &mut Outbox<Message>) {
        let mut seen = self.0.borrow_mut();
        match message {
            Message::Source(objects) => {
                seen.objects = objects;
                seen.snapshots += 1;
            }
            Message::Statuses(statuses) => {
                seen.problems = statuses.problems.iter().map(ToString::to_string).collect();
            }
            Message::Restored(blob) => seen.restored.push(blob.content),
            other => panic!("{other:?}"),
        }
    }
}

/// An agent that consists of the files driver and the manifests server.
struct Bench {
    root: PathBuf,
    kernel: Kernel<Message>,
    seen: Rc<RefCell<Seen>>,
}

impl Bench {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("pilus-files-{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("m")).unwrap();
        prepare(&root);
        let seen = Rc::new(RefCell::new(Seen::default()));
        let mut bench = Self { root, kernel: Kernel::new(), seen };
        bench.add_servers();
        bench
    }

    fn add_servers(&mut self) {
        let config = Config {
            manifests: vec![self.root.join("m"), self.root.join("single.yaml")],
            state_dir: self.root.join("state"),
            ..Config::default()
        };
        let mailer = self.kernel.mailer(wiring::FILES);
        let blobs = &[("ipam.json", wiring::IPAM)];
        let mut add = |id, name, may_send, build| {
            self.kernel.add(Wiring { id, name, may_send, mailbox: 64, build });
        };
        add(
            wiring::FILES,
            "files",
            &[wiring::MANIFESTS, wiring::IPAM],
            Box::new(move || Box::new(Files::new(&config, blobs, mailer.clone()))),
        );
        add(
            wiring::MANIFESTS,
            "manifests",
            &[wiring::STORE],
            Box::new(|| Box::new(Manifests::new(Duration::ZERO))),
        );
        for (id, name, may_send) in
            [(wiring::STORE, "store", &[][..]), (wiring::IPAM, "ipam", &[wiring::FILES][..])]
        {
            let seen = Rc::clone(&self.seen);
            add(id, name, may_send, Box::new(move || Box::new(Recorder(Rc::clone(&seen)))));
        }
    }

    /// Runs the loop until it is so.
    fn until(&mut self, what: &str, so: impl Fn(&Seen) -> bool) {
        let end = clock::now() + PATIENCE;
        let mut driver = EventLoop;
        while !so(&self.seen.borrow()) {
            if clock::now() > end {
                let seen = self.seen.borrow();
                panic!("{what}: not so; {:?} {:?}", names(&seen), seen.problems);
            }
            let next = self.kernel.step(driver.now());
            let busy = driver.run_tasks() || self.kernel.has_mail();
            let soon = driver.now() + Duration::from_millis(50);
            driver.wait(Some(if busy {
                Time::ZERO
            } else {
                next.map_or(soon, |next| next.min(soon))
            }));
        }
    }

    /// Runs the loop until the driver has looked at everything that was done so far: a marker file is
    /// written last and is seen last.
    fn settle(&mut self) {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("marker-{number}");
        self.write("m/marker.yaml", &namespace(&name));
        self.until("the marker", |seen| names(seen).contains(&name));
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n---\n")
}

fn names(seen: &Seen) -> Vec<String> {
    seen.objects.namespaces.keys().map(|name| name.name.to_string()).collect()
}

fn has(wanted: &[&str]) -> impl Fn(&Seen) -> bool {
    let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    move |seen| {
        let found = names(seen);
        found.iter().filter(|name| !name.starts_with("marker-")).eq(&wanted)
    }
}

#[test]
fn files_are_read_at_the_start_and_every_kind_of_change_is_seen() {
    let mut bench = Bench::new(|root| {
        fs::write(root.join("m/a.yaml"), namespace("a")).unwrap();
        fs::write(
            root.join("m/b.json"),
            r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}"#,
        )
        .unwrap();
        fs::write(root.join("single.yaml"), namespace("single")).unwrap();
        for ignored in
            [".hidden.yaml", "c.yaml~", "#c.yaml#", ".c.yaml.swp", "c.yaml.bak", "README"]
        {
            fs::write(root.join("m").join(ignored), "not: [yaml").unwrap();
        }
        fs::create_dir(root.join("m/sub")).unwrap();
        fs::write(root.join("m/sub/x.yaml"), namespace("sub")).unwrap();
    });
    // The first step has it all: nothing had to be waited for.
    bench.kernel.step(clock::now());
    assert!(has(&["a", "b", "single"])(&bench.seen.borrow()), "{:?}", names(&bench.seen.borrow()));
    assert!(bench.seen.borrow().problems.is_empty(), "{:?}", bench.seen.borrow().problems);
    assert_eq!(bench.seen.borrow().restored, [None]);

    bench.write("m/c.yml", &namespace("c"));
    bench.until("a new file", has(&["a", "b", "c", "single"]));
    bench.write("m/a.yaml", &namespace("a2"));
    bench.until("a changed file", has(&["a2", "b", "c", "single"]));
    bench.write("m/new", &namespace("a3"));
    fs::rename(bench.path("m/new"), bench.path("m/a.yaml")).unwrap();
    bench.until("a file moved over another", has(&["a3", "b", "c", "single"]));
    fs::remove_file(bench.path("m/b.json")).unwrap();
    bench.until("a removed file", has(&["a3", "c", "single"]));
    fs::rename(bench.path("m/c.yml"), bench.path("m/c.off")).unwrap();
    bench.until("a file moved away", has(&["a3", "single"]));
    fs::hard_link(bench.path("m/c.off"), bench.path("m/d.yaml")).unwrap();
    bench.until("a link made", has(&["a3", "c", "single"]));
    bench.write("single.yaml", &namespace("one"));
    bench.until("the single file", has(&["a3", "c", "one"]));
    bench.write("single.new", &namespace("two"));
    fs::rename(bench.path("single.new"), bench.path("single.yaml")).unwrap();
    bench.until("the single file replaced", has(&["a3", "c", "two"]));
}

#[test]
fn what_is_written_together_arrives_together_and_nothing_else_wakes_the_store() {
    let mut bench = Bench::new(|root| {
        for at in 0..50 {
            fs::write(root.join(format!("m/{at:02}.yaml")), namespace(&format!("n{at:02}")))
                .unwrap();
        }
    });
    bench.until("the start", |seen| names(seen).len() == 50);
    assert_eq!(bench.seen.borrow().snapshots, 1);
    for at in 0..50 {
        bench.write(&format!("m/{at:02}.yaml"), &namespace(&format!("o{at:02}")));
    }
    bench.until("all 50", |seen| names(seen).iter().all(|name| name.starts_with('o')));
    let snapshots = bench.seen.borrow().snapshots;
    assert!(snapshots < 30, "{snapshots} snapshots for 50 files written at once");
    // The same content, other attributes, files that are none of ours: no snapshot.
    bench.settle();
    let before = bench.seen.borrow().snapshots;
    bench.write("m/00.yaml", &namespace("o00"));
    bench.write("m/note.txt", "x");
    fs::set_permissions(bench.path("m/01.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.settle();
    assert_eq!(bench.seen.borrow().snapshots, before + 1, "only the marker's");
}

#[test]
fn a_file_that_is_still_being_written_is_not_read() {
    use std::io::Write;
    let mut bench = Bench::new(|root| {
        fs::write(root.join("m/a.yaml"), namespace("a")).unwrap();
    });
    bench.until("the start", has(&["a"]));
    let mut file = fs::File::create(bench.path("m/b.yaml")).unwrap();
    file.write_all(b"apiVersion: v1\nkind: Names").unwrap();
    bench.settle();
    assert!(has(&["a"])(&bench.seen.borrow()));
    assert_eq!(bench.seen.borrow().problems.len(), 1, "only that single.yaml is missing");
    file.write_all(b"pace\nmetadata: {name: b}\n").unwrap();
    drop(file);
    bench.until("the end of the writing", has(&["a", "b"]));
}

#[test]
fn a_mounted_config_map_is_swapped_as_a_whole() {
    let version = |root: &Path, number: u32| {
        let data = root.join(format!("m/..{number}"));
        fs::create_dir(&data).unwrap();
        for file in ["a", "b"] {
            fs::write(data.join(format!("{file}.yaml")), namespace(&format!("{file}{number}")))
                .unwrap();
        }
    };
    let mut bench = Bench::new(|root| {
        version(root, 1);
        symlink("..1", root.join("m/..data")).unwrap();
        for file in ["a.yaml", "b.yaml"] {
            symlink(Path::new("..data").join(file), root.join("m").join(file)).unwrap();
        }
    });
    bench.until("the start", has(&["a1", "b1"]));
    let before = bench.seen.borrow().snapshots;
    version(&bench.root, 2);
    symlink("..2", bench.path("m/..data_tmp")).unwrap();
    fs::rename(bench.path("m/..data_tmp"), bench.path("m/..data")).unwrap();
    fs::remove_dir_all(bench.path("m/..1")).unwrap();
    bench.until("the swap", has(&["a2", "b2"]));
    assert_eq!(bench.seen.borrow().snapshots, before + 1, "half a swap was visible");
}

#[test]
fn a_directory_that_disappears_keeps_its_objects_until_it_is_back() {
    let mut bench = Bench::new(|root| {
        fs::write(root.join("m/a.yaml"), namespace("a")).unwrap();
        fs::write(root.join("single.yaml"), namespace("single")).unwrap();
    });
    bench.until("the start", has(&["a", "single"]));
    fs::rename(bench.path("m"), bench.path("away")).unwrap();
    bench.until("the complaint", |seen| seen.problems.len() == 1);
    let problem = bench.seen.borrow().problems[0].clone();
    assert!(problem.contains("no such file or directory; its objects stay"), "{problem}");
    assert!(has(&["a", "single"])(&bench.seen.borrow()));
    // Another source goes on meanwhile.
    bench.write("single.yaml", &namespace("other"));
    bench.until("the other source", has(&["a", "other"]));
    // A new manifests server is sent what is there.
    fs::create_dir(bench.path("m")).unwrap();
    bench.write("m/b.yaml", &namespace("b"));
    bench.until("the directory is back", has(&["b", "other"]));
    bench.until("the complaint is gone", |seen| seen.problems.is_empty());
    bench.write("m/c.yaml", &namespace("c"));
    bench.until("it is watched again", has(&["b", "c", "other"]));
}

#[test]
fn unreadable_files_are_named_and_a_new_manifests_server_is_told_everything() {
    let mut bench = Bench::new(|root| {
        fs::write(root.join("m/a.yaml"), namespace("a")).unwrap();
        symlink("nowhere", root.join("m/b.yaml")).unwrap();
        fs::write(root.join("m/c.yaml"), b"a: \xff\n").unwrap();
        let fifo = std::ffi::CString::new(root.join("m/f.yaml").to_str().unwrap()).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(fifo.to_str().unwrap())
                .status()
                .unwrap()
                .success()
        );
    });
    bench.until("the start", |seen| seen.problems.len() == 4);
    let problems = bench.seen.borrow().problems.join("\n");
    for part in [
        "m/b.yaml:1:1: cannot be read: it is a link to nowhere, which does not exist",
        "m/c.yaml:1:1: not UTF-8 text",
        "m/f.yaml:1:1: cannot be read: not a regular file",
        "single.yaml:1:1: cannot be read: no such file or directory",
    ] {
        assert!(problems.contains(part), "{part} is not in\n{problems}");
    }
    let before = bench.seen.borrow().snapshots;
    bench.kernel.crash_next_call(wiring::MANIFESTS);
    bench.write("m/d.yaml", &namespace("d"));
    bench.until("the new server", |seen| seen.snapshots > before && has(&["a", "d"])(seen));
    assert_eq!(bench.seen.borrow().problems.len(), 4);
    // The driver itself: a new one reads and watches anew.
    bench.kernel.crash_next_call(wiring::FILES);
    bench
        .kernel
        .mailer(wiring::IPAM)
        .send(wiring::FILES, Message::Save(StateBlob { name: "ipam.json", content: None }));
    bench.until("the new driver", |seen| seen.restored.len() == 2);
    bench.write("m/e.yaml", &namespace("e"));
    bench.until("it watches", has(&["a", "d", "e"]));
}

#[test]
fn blobs_are_kept_and_given_back() {
    let mut bench = Bench::new(|root| {
        fs::create_dir(root.join("state")).unwrap();
        fs::write(root.join("state/ipam.json"), "old").unwrap();
    });
    bench.until("the old state", |seen| seen.restored == [Some(b"old".to_vec())]);
    let mailer = bench.kernel.mailer(wiring::IPAM);
    for content in ["1", "2", "the last"] {
        let content = Some(content.as_bytes().to_vec());
        mailer.send(wiring::FILES, Message::Save(StateBlob { name: "ipam.json", content }));
    }
    let state = bench.path("state/ipam.json");
    bench.until("it is written", |_| fs::read(&state).is_ok_and(|content| content == b"the last"));
    bench.kernel.crash_next_call(wiring::IPAM);
    bench
        .kernel
        .mailer(wiring::FILES)
        .send(wiring::IPAM, Message::Restored(StateBlob { name: "ipam.json", content: None }));
    bench.until("the new IPAM", |seen| seen.restored.last() == Some(&Some(b"the last".to_vec())));
    let left: Vec<_> = fs::read_dir(bench.path("state")).unwrap().collect();
    assert_eq!(left.len(), 1, "only the blob is left");
}
