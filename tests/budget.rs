//! Budgets that do not depend on the clock: the size of the static binary, its memory, BPF instructions.
//! scripts/test builds the static binary and passes it in PILUS_BINARY; without that it is built here.
#![expect(clippy::unwrap_used, reason = "a budget that cannot be read must fail")]
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs, thread, time::Duration};

const MIB: u64 = 1024 * 1024;
/// What the README says. The aim is 6 MiB: with L4 services it is missed by 0.1 MiB. Optimising for size alone would meet
/// it (5.9 MiB) and cost 7 to 15 % of the processor time of a request, which weighs more.
const BINARY: u64 = 6 * MIB + MIB / 4;
const RSS_IDLE: u64 = 8 * MIB;
const RSS_1000_ROUTES: u64 = 12 * MIB;
const ROUTES: usize = 1000;

fn binary() -> PathBuf {
    if let Some(path) = env::var_os("PILUS_BINARY") {
        return path.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build");
    let built = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "scripts/build failed");
    String::from_utf8(built.stdout).unwrap().trim().into()
}

/// The type of the program header that names a dynamic loader (System V ABI).
const PT_INTERP: u32 = 3;

/// The types of the program headers of a 64-bit little-endian ELF file.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    let number = |at: usize, size: usize| {
        elf[at..at + size].iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
    };
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    assert!(count > 0);
    (0..count).map(|at| u32::try_from(number(table + at * size, 4)).unwrap()).collect()
}

struct Agent {
    child: Child,
    folder: PathBuf,
}

impl Agent {
    fn start(name: &str, manifests: &str, config: &str) -> Self {
        let folder = env::temp_dir().join(format!("pilus-budget-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("manifests")).unwrap();
        fs::write(folder.join("manifests/all.yaml"), manifests).unwrap();
        fs::write(folder.join("pilus.yaml"), config).unwrap();
        let child = Command::new(binary())
            .args(["run", "--no-bpf", "--node", "budget", "--metrics", "", "--config"])
            .arg(folder.join("pilus.yaml"))
            .arg("--manifests")
            .arg(folder.join("manifests"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--admin")
            .arg(format!("unix:{}", folder.join("admin.sock").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { child, folder };
        agent.wait_until("its admin socket", || agent.folder.join("admin.sock").exists());
        agent
    }

    fn wait_until(&self, what: &str, ready: impl Fn() -> bool) {
        for _ in 0..2000 {
            if ready() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("waited in vain for {what}");
    }

    fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_static_binary_is_small_and_static() {
    let bytes = fs::read(binary()).unwrap();
    println!("binary: {} bytes", bytes.len());
    assert!(bytes.len() as u64 <= BINARY, "{} bytes", bytes.len());
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert!(!program_headers(&bytes).contains(&PT_INTERP), "asks for a dynamic loader");
}

#[test]
fn an_idle_agent_needs_little_memory() {
    let agent = Agent::start("idle", "", "");
    println!("idle: {} KiB", agent.rss() / 1024);
    assert!(agent.rss() <= RSS_IDLE, "{} KiB", agent.rss() / 1024);
}

/// Two ports nobody uses.
fn free_ports() -> (u16, u16) {
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let two = TcpListener::bind("127.0.0.1:0").unwrap();
    (one.local_addr().unwrap().port(), two.local_addr().unwrap().port())
}

fn answers(port: u16, host: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = format!("GET /r HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 503")
}

#[test]
fn a_thousand_routes_need_little_memory() {
    let mut manifests = String::from(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: pilus}\n\
         spec: {controller: pilus.dev/ingress-controller}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: backend}\nspec: {selector: {app: none}, ports: [{port: 80}]}\n",
    );
    for number in 0..ROUTES {
        manifests.push_str(&format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: route{number}\n  annotations:\n    \
             ingress.cilium.io/loadbalancer-mode: shared\nspec:\n  ingressClassName: pilus\n  rules:\n  - host: host{number}.example.com\n    \
             http:\n      paths:\n      - path: /r\n        pathType: Prefix\n        backend:\n          service:\n            \
             name: backend\n            port:\n              number: 80\n"
        ));
    }
    let (http, https) = free_ports();
    let config = format!("ingress:\n  http-port: {http}\n  https-port: {https}\n");
    let agent = Agent::start("routes", &manifests, &config);
    agent
        .wait_until("the last route", || answers(http, &format!("host{}.example.com", ROUTES - 1)));
    println!("{ROUTES} routes: {} KiB", agent.rss() / 1024);
    assert!(agent.rss() <= RSS_1000_ROUTES, "{} KiB", agent.rss() / 1024);
}
