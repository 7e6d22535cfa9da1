//! The client of API servers against a server that is made of its rules: objects, versions, a log that forgets, and every
//! fault there is. No socket and no clock: thousands of changes pass in a second, and seeds tell each run again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pilus::kube_lite::json::Json;
use pilus::kube_lite::kubeconfig::{Config, Exec, Server, Token};
use pilus::kube_lite::{
    Change, Client, Later, Net, Reflector, Resource, Selection, Stream, follow,
};

/// Objects in a page, however many are asked for: so that lists have several.
const PAGE: usize = 7;
/// The log remembers so many changes; who comes from further back is told that it is too late.
const REMEMBERED: usize = 60;

/// The server, the clock and the dice.
struct World {
    objects: RefCell<BTreeMap<String, (u64, u32)>>,
    /// Version, kind of event, name, content.
    log: RefCell<Vec<(u64, &'static str, String, u32)>>,
    version: Cell<u64>,
    now: Cell<Duration>,
    /// When somebody who sleeps wakes up.
    wake: Cell<Option<Duration>>,
    seed: Cell<u64>,
    faults: Cell<bool>,
    down: Cell<bool>,
    requests: Cell<u64>,
}

struct FakeNet(Rc<World>);

/// One connection, from the client's end.
struct Pipe {
    world: Rc<World>,
    asked: Vec<u8>,
    answer: Vec<u8>,
    /// Up to where the watch on it has told.
    watch: Option<u64>,
    closed: bool,
    /// It never answers.
    dead: bool,
}

impl World {
    fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            objects: RefCell::default(),
            log: RefCell::default(),
            version: Cell::new(1),
            now: Cell::new(Duration::ZERO),
            wake: Cell::new(None),
            seed: Cell::new(seed),
            faults: Cell::new(false),
            down: Cell::new(false),
            requests: Cell::new(0),
        })
    }

    fn random(&self) -> u64 {
        let mut x = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(x);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn one_in(&self, count: u64) -> bool {
        self.random().is_multiple_of(count)
    }

    fn change(&self) {
        let name = format!("o{}", self.random() % 40);
        let version = self.version.get() + 1;
        self.version.set(version);
        let mut objects = self.objects.borrow_mut();
        let kind = match objects.get(&name).copied() {
            Some((_, content)) if self.one_in(3) => {
                objects.remove(&name);
                self.log.borrow_mut().push((version, "DELETED", name, content));
                return;
            }
            Some(_) => "MODIFIED",
            None => "ADDED",
        };
        let content = self.random() as u32;
        objects.insert(name.clone(), (version, content));
        self.log.borrow_mut().push((version, kind, name, content));
    }

    fn oldest(&self) -> u64 {
        let log = self.log.borrow();
        log.len().checked_sub(REMEMBERED).map_or(0, |at| log[at].0 - 1)
    }
}

fn object(name: &str, version: u64, content: u32) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}},"content":{content}}}"#
    )
}

fn whole(status: &str, head: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

const GONE: &str = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;

impl Pipe {
    fn serve(&mut self) {
        let Some(end) = self.asked.windows(4).position(|part| part == b"\r\n\r\n") else { return };
        let head: Vec<u8> = self.asked.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let world = Rc::clone(&self.world);
        world.requests.set(world.requests.get() + 1);
        if world.faults.get() {
            match world.random() % 12 {
                0 => return self.answer.extend(whole("500 Oops", "", "etcd is away")),
                1 => {
                    let body = r#"{"kind":"Status","code":429,"message":"slow down"}"#;
                    return self.answer.extend(whole("429 Busy", "retry-after: 3\r\n", body));
                }
                2 => return self.answer.extend(whole("410 Gone", "", GONE)),
                3 => self.dead = true,
                4 => self.closed = true,
                _ => {}
            }
        }
        let query = |key: &str| {
            let pairs = path.split_once('?').unwrap().1.split('&');
            pairs.filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == key).map(|it| it.1)
        };
        if query("watch").is_some() {
            let from: u64 = query("resourceVersion").unwrap().parse().unwrap();
            self.answer.extend(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            if from < world.oldest() {
                let event = format!("{{\"type\":\"ERROR\",\"object\":{GONE}}}\n");
                self.answer.extend(chunk(&event).into_bytes());
                self.answer.extend(b"0\r\n\r\n");
            } else {
                self.watch = Some(from);
            }
            return;
        }
        let objects = world.objects.borrow();
        let from = query("continue").map(str::to_owned).unwrap_or_default();
        // A list is of one moment; a real server remembers it, this one says that it has forgotten.
        let (moment, from) = from.split_once('.').unwrap_or(("", ""));
        if !moment.is_empty() && moment != world.version.get().to_string() {
            return self.answer.extend(whole("410 Gone", "", GONE));
        }
        let page: Vec<_> =
            objects.iter().filter(|(name, _)| name.as_str() > from).take(PAGE + 1).collect();
        let items: Vec<String> = page
            .iter()
            .take(PAGE)
            .map(|(name, (version, content))| object(name, *version, *content))
            .collect();
        let version = world.version.get();
        let next = match page.len() > PAGE {
            true => format!("{version}.{}", page[PAGE - 1].0),
            false => String::new(),
        };
        let body = format!(
            r#"{{"metadata":{{"resourceVersion":"{version}","continue":"{next}"}},"items":[{}]}}"#,
            items.join(",")
        );
        self.answer.extend(whole("200 OK", "", &body));
    }

    fn tell(&mut self) {
        let Some(from) = self.watch else { return };
        let world = Rc::clone(&self.world);
        for (version, kind, name, content) in world.log.borrow().iter().filter(|it| it.0 > from) {
            let object = object(name, *version, *content);
            let event = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
            self.answer.extend(chunk(&event).into_bytes());
            self.watch = Some(*version);
        }
        if world.faults.get() && world.one_in(40) {
            // In the middle of something, or in good order.
            self.watch = None;
            if world.one_in(2) {
                let keep = world.random() as usize % (self.answer.len() + 1);
                self.answer.truncate(keep);
                self.closed = true;
            } else {
                self.answer.extend(b"0\r\n\r\n");
            }
        } else if world.one_in(50) {
            let version = world.version.get();
            let event = format!(
                "{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n"
            );
            self.answer.extend(chunk(&event).into_bytes());
            self.watch = Some(version);
        }
    }
}

impl Stream for Pipe {
    fn poll_recv(&mut self, _: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        if self.world.down.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.dead {
            return Poll::Pending;
        }
        if self.answer.is_empty() && !self.closed {
            self.tell();
        }
        if self.answer.is_empty() {
            return if self.closed { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        let count = (1 + self.world.random() as usize % 200).min(self.answer.len());
        into.extend(self.answer.drain(..count));
        Poll::Ready(Ok(count))
    }

    fn poll_send(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(1 + self.world.random() as usize % 100);
        self.asked.extend(&bytes[..count]);
        self.serve();
        Poll::Ready(Ok(count))
    }

    fn is_quiet(&mut self) -> bool {
        !self.closed && !self.dead && self.answer.is_empty()
    }
}

impl Net for FakeNet {
    fn connect<'a>(
        &'a self,
        _: &'a Server,
        _: Option<Arc<rustls::ClientConfig>>,
    ) -> Later<'a, io::Result<Box<dyn Stream>>> {
        let world = Rc::clone(&self.0);
        Box::pin(async move {
            if world.down.get() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (asked, answer) = (Vec::new(), Vec::new());
            let pipe = Pipe { world, asked, answer, watch: None, closed: false, dead: false };
            Ok(Box::new(pipe) as Box<dyn Stream>)
        })
    }

    fn sleep(&self, time: Duration) -> Later<'static, ()> {
        let (world, until) = (Rc::clone(&self.0), self.0.now.get() + time);
        Box::pin(std::future::poll_fn(move |_| {
            if world.now.get() >= until {
                return Poll::Ready(());
            }
            world.wake.set(Some(world.wake.get().map_or(until, |wake| wake.min(until))));
            Poll::Pending
        }))
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn unix(&self) -> Duration {
        self.0.now.get()
    }

    fn run(&self, _: &Exec, _: String) -> Later<'static, io::Result<Vec<u8>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

fn client(world: &Rc<World>) -> Client {
    let server =
        Server { tls: false, host: "api".into(), port: 80, prefix: String::new(), tls_name: None };
    let config = Config {
        server,
        namespace: "default".into(),
        authority: None,
        identity: None,
        token: Token::None,
    };
    Client::new(config, Rc::new(FakeNet(Rc::clone(world))), "test".to_owned())
}

/// A copy of the collection, made of what is told.
#[derive(Default)]
struct Copy {
    objects: BTreeMap<String, u32>,
    listed: Option<BTreeMap<String, u32>>,
    lists: u32,
    failures: u32,
}

impl Copy {
    fn take(&mut self, change: Change<'_>) {
        let read = |json: Json<'_>| {
            let name = json.at(&["metadata", "name"]).and_then(Json::string).unwrap().into_owned();
            (name, json.get("content").and_then(Json::int).unwrap() as u32)
        };
        match change {
            Change::Listing => self.listed = Some(BTreeMap::new()),
            Change::Put(json) => {
                let (name, content) = read(json);
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone(), content);
                }
                self.objects.insert(name, content);
            }
            Change::Gone(json) => {
                self.objects.remove(&read(json).0);
            }
            Change::Complete => {
                self.lists += 1;
                self.objects = self.listed.take().unwrap();
            }
            Change::Failed(_) => self.failures += 1,
            Change::Works => {}
        }
    }
}

/// Polls until nothing moves, then lets the clock jump to the next one who sleeps, at most to `until`.
fn run(world: &World, until: Duration, work: &mut std::pin::Pin<&mut impl Future>) {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        for _ in 0..50 {
            world.wake.set(None);
            assert!(work.as_mut().poll(&mut cx).is_pending());
        }
        match world.wake.get() {
            Some(wake) if wake <= until => world.now.set(wake.max(world.now.get())),
            _ => {
                world.now.set(until);
                return;
            }
        }
    }
}

fn follow_through(seed: u64, changes: u32, faults: bool) -> (u64, Duration, u32, u32) {
    let world = World::new(seed);
    let client = client(&world);
    let resource = Resource { group: "", version: "v1".to_owned(), plural: "things" };
    let mut reflector = Reflector::new(resource, Selection::default());
    let copy = RefCell::new(Copy::default());
    let mut tell = |change: Change<'_>| copy.borrow_mut().take(change);
    let mut work = pin!(follow(&client, &mut reflector, &mut tell));
    (0..30).for_each(|_| world.change());
    world.faults.set(faults);
    for _ in 0..changes {
        // Bursts and pauses; now and then the server is away.
        (0..world.random() % 6).for_each(|_| world.change());
        world.down.set(faults && (world.down.get() && !world.one_in(10) || world.one_in(100)));
        let pause = Duration::from_millis(world.random() % 2000);
        run(&world, world.now.get() + pause, &mut work);
    }
    world.faults.set(false);
    world.down.set(false);
    let requests = world.requests.get();
    let lasted = world.now.get();
    let (lists, failures) = (copy.borrow().lists, copy.borrow().failures);
    // Longer than any wait: back-off, a server that never answers, a watch on which nothing comes.
    run(&world, world.now.get() + Duration::from_secs(400), &mut work);
    let real: BTreeMap<String, u32> = world
        .objects
        .borrow()
        .iter()
        .map(|(name, (_, content))| (name.clone(), *content))
        .collect();
    let copy = copy.borrow();
    assert_eq!(copy.objects, real, "seed {seed}");
    (requests, lasted, lists, failures)
}

#[test]
fn without_faults_one_list_and_one_watch_are_enough() {
    for seed in 0..20 {
        let (requests, _, lists, failures) = follow_through(seed, 100, false);
        // Five pages at most, and the watch.
        assert!(requests <= 12, "{requests}");
        assert_eq!((lists, failures), (1, 0), "seed {seed}");
    }
}

#[test]
fn after_any_faults_the_copy_is_the_original_and_the_server_was_not_stormed() {
    let (mut all, mut failed) = (0, 0);
    for seed in 100..160 {
        let (requests, lasted, _, failures) = follow_through(seed, 200, true);
        all += requests;
        failed += failures;
        // Back-off: on average far below one request a second, though every third fails.
        assert!(requests < lasted.as_secs() * 2, "seed {seed}: {requests} in {lasted:?}");
    }
    assert!(
        all > 1_000 && failed > 500,
        "{all} requests, {failed} failures: the faults were there"
    );
}
