//! Asks the LAN who has which address, with frames of its own.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::bpf_lab::frames::{Nd, arp_request};
use crate::bpf_lab::{Namespace, eventually};
use pilus::io::netlink::Netlink;

/// A host whose answer takes longer than this is down. Far more than a veth and a busy machine need.
const PATIENCE: Duration = Duration::from_millis(300);

/// The hardware address of an interface.
pub(crate) fn mac(ns: &Namespace, name: &str) -> [u8; 6] {
    ns.enter(|| link(name).1)
}

fn link(name: &str) -> (u32, [u8; 6]) {
    let mut netlink = Netlink::open().expect("netlink opens");
    eventually("the interface does not come up", || {
        let links = netlink.links().expect("links are listed");
        let link = links.into_iter().find(|link| link.name == name)?;
        link.usable().then(|| (link.ifindex, link.mac.expect("a veth has a hardware address")))
    })
}

/// A packet socket of a host on the LAN.
pub(crate) struct Wire {
    fd: OwnedFd,
    mac: [u8; 6],
    ip: Ipv4Addr,
}

// === impl Wire ===

#[expect(unsafe_code, reason = "packet sockets have no safe wrapper among the dependencies")]
impl Wire {
    pub(crate) fn new(ns: &Namespace, name: &str, ip: Ipv4Addr) -> Self {
        ns.enter(|| {
            let (index, mac) = link(name);
            let protocol = (libc::ETH_P_ALL as u16).to_be();
            // SAFETY: pointers are to live values of the sizes passed.
            unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
                assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
                let fd = OwnedFd::from_raw_fd(fd);
                let mut addr: libc::sockaddr_ll = std::mem::zeroed();
                addr.sll_family = libc::AF_PACKET as u16;
                addr.sll_protocol = protocol;
                addr.sll_ifindex = index as i32;
                let len = size_of::<libc::sockaddr_ll>() as u32;
                let bound = libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len);
                assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
                Self { fd, mac, ip }
            }
        })
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: pointer and length are those of a live buffer.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }

    /// The next frame that came in; None if none comes until then.
    fn receive(&self, until: Instant) -> Option<Vec<u8>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut poll =
                libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one live pollfd.
            if unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) } <= 0 {
                return None;
            }
            let mut buffer = vec![0_u8; 2048];
            // SAFETY: pointers are to live buffers of the sizes passed; sockaddr_ll may be zero.
            let (count, from) = unsafe {
                let mut from: libc::sockaddr_ll = std::mem::zeroed();
                let mut len = size_of::<libc::sockaddr_ll>() as u32;
                let count = libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut len,
                );
                (count, from)
            };
            if count > 0 && from.sll_pkttype != libc::PACKET_OUTGOING {
                buffer.truncate(count as usize);
                return Some(buffer);
            }
        }
    }

    fn drain(&self) -> usize {
        std::iter::from_fn(|| self.receive(Instant::now())).count()
    }

    fn ask(&self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.send(&arp_request(self.mac, self.ip, address)),
            IpAddr::V6(address) => {
                let source = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
                self.send(&Nd::solicitation(self.mac, source, address).bytes());
            }
        }
    }

    /// Who answers for each of `addresses`. `controls` are asked after them, one for each host that may
    /// answer; frames keep their order, so when a control has answered, that host's other answers are in.
    pub(crate) fn sample(
        &self,
        addresses: &[IpAddr],
        controls: &[IpAddr],
    ) -> BTreeMap<IpAddr, Vec<[u8; 6]>> {
        self.drain();
        for &address in addresses.iter().chain(controls) {
            self.ask(address);
        }
        let mut found: BTreeMap<IpAddr, Vec<[u8; 6]>> =
            addresses.iter().chain(controls).map(|&address| (address, Vec::new())).collect();
        let until = Instant::now() + PATIENCE;
        while controls.iter().any(|control| found[control].is_empty()) {
            let Some(frame) = self.receive(until) else { break };
            let Some((address, mac)) = self.answer(&frame) else { continue };
            if let Some(macs) = found.get_mut(&address)
                && !macs.contains(&mac)
            {
                macs.push(mac);
            }
        }
        found.retain(|address, _| addresses.contains(address));
        found
    }

    /// Of an answer to us: for which address, and from whom.
    fn answer(&self, frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
        let mac = |at: usize| frame[at..at + 6].try_into().expect("six bytes");
        if frame.len() < 42 || frame[..6] != self.mac {
            return None;
        }
        if frame[12..14] == [8, 6] && frame[20..22] == [0, 2] {
            let address: [u8; 4] = frame[28..32].try_into().expect("four bytes");
            return Some((address.into(), mac(22)));
        }
        if frame.len() >= 86 && frame[12..14] == [0x86, 0xdd] && frame[54] == 136 {
            let target: [u8; 16] = frame[62..78].try_into().expect("sixteen bytes");
            return Some((target.into(), mac(80)));
        }
        None
    }

    /// How many frames come in while nobody asks anything.
    pub(crate) fn count(&self, during: Duration) -> usize {
        self.drain();
        let until = Instant::now() + during;
        std::iter::from_fn(|| self.receive(until)).count()
    }
}
