//! A client and a node, each in a network namespace of its own, joined by a veth pair, and a BPF
//! file system of their own: the ground the BPF tests stand on. Everything is removed on drop,
//! also when a test fails.
#![allow(dead_code, reason = "every test binary uses a part of this")]

pub(crate) mod frames;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pilus::io::netlink::Netlink;

/// Addresses of the lab. The service addresses are on no interface.
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3480);
/// The interface's name on both sides.
pub(crate) const LAN: &str = "lan0";

/// Whether the tests can run. Without root they fail, unless the caller said that they cannot have
/// root; then each says so on the terminal, whatever the test runner captures.
pub(crate) fn privileged(test: &str) -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    });
    if root {
        return true;
    }
    assert!(
        std::env::var_os("PILUS_TEST_UNPRIVILEGED").is_some_and(|v| v == "1"),
        "{test} needs root (network namespaces, BPF). Run as root, or set \
         PILUS_TEST_UNPRIVILEGED=1 to leave such tests out"
    );
    let _ = writeln!(std::io::stderr(), "test {test} ... ignored: PILUS_TEST_UNPRIVILEGED=1");
    false
}

/// Leaves the calling test when it may be left out.
#[macro_export]
macro_rules! needs_root {
    ($name:expr) => {
        if !bpf_lab::privileged($name) {
            return;
        }
    };
}

/// Runs a command and returns what it printed; fails the test if it fails.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command has a first word"))
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn try_run(command: &str) {
    let mut words = command.split_whitespace();
    if let Some(program) = words.next() {
        let _ = Command::new(program).args(words).output();
    }
}

/// The lab.
pub(crate) struct Lab {
    pub(crate) client: Namespace,
    pub(crate) node: Namespace,
    /// The node's interface.
    pub(crate) ifindex: u32,
    pub(crate) node_mac: [u8; 6],
    pub(crate) client_mac: [u8; 6],
    mount: PathBuf,
}

/// A named network namespace.
#[derive(Clone)]
pub(crate) struct Namespace(pub(crate) String);

impl Lab {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("plbpf{}-{number}", std::process::id());
        let mount = PathBuf::from(format!("/tmp/{id}"));
        let mut lab = Self {
            client: Namespace(format!("{id}c")),
            node: Namespace(format!("{id}n")),
            ifindex: 0,
            node_mac: [0; 6],
            client_mac: [0; 6],
            mount,
        };
        lab.build();
        lab
    }

    fn build(&mut self) {
        let (client, node) = (&self.client.0, &self.node.0);
        std::fs::create_dir_all(&self.mount).expect("the temporary directory is writable");
        run(&format!("mount -t bpf bpf {}", self.mount.display()));
        run(&format!("ip netns add {client}"));
        run(&format!("ip netns add {node}"));
        run(&format!("ip -n {client} link add {LAN} type veth peer name {LAN} netns {node}"));
        for (ns, v4, v6) in [(client, CLIENT4, CLIENT6), (node, NODE4, NODE6)] {
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} addr add {v4}/24 dev {LAN}"));
            run(&format!("ip -n {ns} addr add {v6}/64 dev {LAN} nodad"));
            run(&format!("ip -n {ns} link set {LAN} up"));
        }
        (self.ifindex, self.node_mac) = self.node.enter(lan);
        self.client_mac = self.client.enter(lan).1;
    }

    /// The node's BPF root.
    pub(crate) fn bpf_root(&self) -> PathBuf {
        self.mount.join("pilus")
    }
}

/// Index and hardware address of [`LAN`], once the kernel's worker has brought it up.
fn lan() -> (u32, [u8; 6]) {
    let mut netlink = Netlink::open().expect("netlink opens");
    eventually("the veth does not come up", || {
        let links = netlink.links().expect("links are listed");
        let link = links.into_iter().find(|l| l.name == LAN).expect("the veth is there");
        link.usable().then(|| (link.ifindex, link.mac.expect("a veth has a hardware address")))
    })
}

/// Tries until something comes true by itself, for half a minute or more.
pub(crate) fn eventually<T>(failure: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    const ATTEMPTS: usize = 3000;
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt() {
            return done;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{failure}");
}

impl Drop for Lab {
    fn drop(&mut self) {
        try_run(&format!("ip netns del {}", self.client.0));
        try_run(&format!("ip netns del {}", self.node.0));
        try_run(&format!("umount -l {}", self.mount.display()));
        let _ = std::fs::remove_dir(&self.mount);
    }
}

impl Namespace {
    /// Runs `what` on a thread inside the namespace.
    pub(crate) fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join();
                what()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread into the namespace for good.
    pub(crate) fn join(&self) {
        let path = format!("/run/netns/{}", self.0);
        let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        #[expect(unsafe_code, reason = "no safe wrapper of setns among the dependencies")]
        // SAFETY: no memory is passed; the descriptor is open.
        let ret = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(ret, 0, "setns {path}: {}", std::io::Error::last_os_error());
    }
}

/// A socket that sends and receives whole Ethernet frames on [`LAN`].
pub(crate) struct Wire(OwnedFd);

#[expect(unsafe_code, reason = "packet sockets have no safe wrapper among the dependencies")]
impl Wire {
    /// Opens it in a namespace.
    pub(crate) fn new(ns: &Namespace) -> Self {
        ns.enter(|| {
            let protocol = (libc::ETH_P_ALL as u16).to_be();
            let name = std::ffi::CString::new(LAN).expect("no zero byte in the name");
            // SAFETY: pointers are to live values of the sizes passed.
            unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
                assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
                let fd = OwnedFd::from_raw_fd(fd);
                let mut addr: libc::sockaddr_ll = std::mem::zeroed();
                addr.sll_family = libc::AF_PACKET as u16;
                addr.sll_protocol = protocol;
                addr.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
                let len = size_of::<libc::sockaddr_ll>() as u32;
                let bound = libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len);
                assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
                // Long enough for any machine; a test that waits it out has failed.
                let timeout = libc::timeval { tv_sec: 10, tv_usec: 0 };
                let len = size_of::<libc::timeval>() as u32;
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_RCVTIMEO,
                    (&raw const timeout).cast(),
                    len,
                );
                Self(fd)
            }
        })
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: pointer and length are those of a live buffer.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }

    /// The next frame that came in (not one that was sent).
    pub(crate) fn receive(&self) -> Vec<u8> {
        loop {
            let mut buffer = vec![0u8; 2048];
            // SAFETY: pointers are to live buffers of the sizes passed; sockaddr_ll may be zero.
            let (n, from) = unsafe {
                let mut from: libc::sockaddr_ll = std::mem::zeroed();
                let mut len = size_of::<libc::sockaddr_ll>() as u32;
                let n = libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut len,
                );
                (n, from)
            };
            assert!(n >= 0, "no frame came: {}", std::io::Error::last_os_error());
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                buffer.truncate(n as usize);
                return buffer;
            }
        }
    }

    /// Sends a question and then another that the node's kernel always answers; returns the
    /// answers that came before that one's. Frames keep their order on a veth, so nothing here
    /// depends on time.
    pub(crate) fn ask(&self, question: &[u8], control: &Control) -> Vec<Vec<u8>> {
        self.send(question);
        self.send(&control.question);
        let mut answers = Vec::new();
        loop {
            let frame = self.receive();
            if (control.is_answer)(&frame) {
                return answers;
            }
            if frames::is_answer(&frame) {
                answers.push(frame);
            }
        }
    }
}

/// A question with a certain answer.
pub(crate) struct Control {
    pub(crate) question: Vec<u8>,
    pub(crate) is_answer: fn(&[u8]) -> bool,
}

impl Lab {
    /// ARP for the node's own address.
    pub(crate) fn control(&self) -> Control {
        Control {
            question: frames::arp_request(self.client_mac, CLIENT4, NODE4),
            is_answer: |frame| {
                frame.len() >= 42
                    && frame[12..14] == [8, 6]
                    && frame[20..22] == [0, 2]
                    && frame[28..32] == NODE4.octets()
            },
        }
    }
}

/// Both service addresses.
pub(crate) const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
