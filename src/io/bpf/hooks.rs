//! Attaching the programs so that they outlive the agent, and taking over what is attached.
//!
//! A killed agent's node must stay silent about announced addresses, and its kernel would answer ARP
//! for them because of their local routes. So nothing here is tied to a descriptor of this process:
//! links are pinned under `links/` of the BPF root, and the filter used before Linux 6.6 stays by
//! nature. What is attached is recorded by names in `links/`:
//!
//! - `PROGRAM-IFINDEX`: the tcx link of an interface;
//! - `clsact-IFINDEX`, `PROGRAM_clsact-IFINDEX` (empty directories): a clsact filter is on the interface;
//! - `qdisc-IFINDEX` (an empty directory): we created the interface's clsact qdisc;
//! - `steer`: the sk_lookup link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::TcHook;
use super::error::BpfError;
use super::object::Program;
use super::sys;
use crate::arrange::Arrange;
use crate::io::netlink::{Netlink, tc};

const QDISC: &str = "qdisc-";
const STEER: &str = "steer";

/// A tc hook of an interface, and the names of what is ours there.
#[derive(Debug)]
pub(super) struct Place {
    /// The stem of the tcx link's pin.
    tcx: &'static str,
    /// The stem of the mark that a clsact filter is there.
    clsact: &'static str,
    /// The filter's name in `tc filter show`; how a predecessor's filter is recognised.
    filter: &'static str,
    attach: u32,
    hook: u32,
}

/// Answers to ARP and NDP.
pub(super) const ANNOUNCE: Place = Place {
    tcx: "l2_announce-",
    clsact: "clsact-",
    filter: "pilus_l2_announce",
    attach: sys::ATTACH_TCX_INGRESS,
    hook: tc::INGRESS,
};
/// Packets to frontends, and backends' answers.
pub(super) const SERVICE_IN: Place = Place {
    tcx: "service_in-",
    clsact: "service_in_clsact-",
    filter: "pilus_service_in",
    attach: sys::ATTACH_TCX_INGRESS,
    hook: tc::INGRESS,
};
/// Answers of backends on the node itself.
pub(super) const SERVICE_OUT: Place = Place {
    tcx: "service_out-",
    clsact: "service_out_clsact-",
    filter: "pilus_service_out",
    attach: sys::ATTACH_TCX_EGRESS,
    hook: tc::EGRESS,
};

/// The `links` directory.
#[derive(Debug)]
pub(super) struct Hooks {
    dir: PathBuf,
}

impl Hooks {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, stem: &str, ifindex: u32) -> PathBuf {
        self.dir.join(format!("{stem}{ifindex}"))
    }

    /// Interfaces with our program at the place, whoever attached it.
    pub(super) fn attached(&self, place: &Place) -> Result<Vec<u32>, BpfError> {
        let entries = std::fs::read_dir(&self.dir)
            .map_err(|e| BpfError::system(format!("listing {}", self.dir.display()), e))?;
        let mut found: Vec<u32> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let index =
                    name.strip_prefix(place.tcx).or_else(|| name.strip_prefix(place.clsact))?;
                index.parse().ok()
            })
            .collect();
        found.arrange();
        found.dedup();
        Ok(found)
    }

    /// Puts `program` at the place of an interface, instead of what a predecessor left there.
    pub(super) fn attach(
        &self,
        place: &Place,
        program: &Program,
        ifindex: u32,
        mode: TcHook,
    ) -> Result<(), BpfError> {
        let doing = |what: &str| format!("{what} {} on interface {ifindex}", program.name);
        if mode != TcHook::Clsact {
            let pin = self.path(place.tcx, ifindex);
            let create = || sys::link_create_tcx(program.fd.as_fd(), ifindex, place.attach);
            match replace_or_create(&pin, program.fd.as_fd(), ifindex, create) {
                Ok(()) => return self.remove_filter(place, ifindex),
                // No tcx before Linux 6.6: link creation knows no such attach type.
                Err(e) if mode == TcHook::Auto && e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(BpfError::system(doing("attaching"), e)),
            }
        }
        let mut netlink = Netlink::open()?;
        if tc::add_clsact(&mut netlink, ifindex)? {
            make_dir(&self.path(QDISC, ifindex))?;
        }
        make_dir(&self.path(place.clsact, ifindex))?;
        tc::set_filter(&mut netlink, ifindex, place.hook, program.fd.as_fd(), place.filter)?;
        detach(&self.path(place.tcx, ifindex))
    }

    /// Whether our program is at the place, as [`Self::attach`] leaves it.
    pub(super) fn is_attached(&self, place: &Place, ifindex: u32) -> Result<bool, BpfError> {
        if let Ok(link) = sys::obj_get(&self.path(place.tcx, ifindex)) {
            let doing = "looking at the tc link";
            let target = sys::link_target(link.as_fd()).map_err(|e| BpfError::system(doing, e))?;
            return Ok(target == ifindex);
        }
        Ok(self.path(place.clsact, ifindex).exists()
            && tc::has_filter(&mut Netlink::open()?, ifindex, place.hook, place.filter)?)
    }

    /// Whether the pinned link steers in some network namespace that exists.
    pub(super) fn is_steering(&self) -> bool {
        sys::obj_get(&self.dir.join(STEER))
            .and_then(|link| sys::link_target(link.as_fd()))
            .is_ok_and(|target| target != 0)
    }

    /// Takes our program off an interface; an interface that is gone is no error.
    pub(super) fn detach(&self, place: &Place, ifindex: u32) -> Result<(), BpfError> {
        detach(&self.path(place.tcx, ifindex))?;
        self.remove_filter(place, ifindex)
    }

    fn remove_filter(&self, place: &Place, ifindex: u32) -> Result<(), BpfError> {
        let filter = self.path(place.clsact, ifindex);
        let qdisc = self.path(QDISC, ifindex);
        if filter.exists() {
            tc::remove_filter(&mut Netlink::open()?, ifindex, place.hook, place.filter)?;
            remove_dir(&filter)?;
        }
        if qdisc.exists() {
            tc::remove_clsact_if_unused(&mut Netlink::open()?, ifindex)?;
            remove_dir(&qdisc)?;
        }
        Ok(())
    }

    /// Puts `program` on a network namespace's socket lookup, in place of a predecessor's.
    pub(super) fn attach_steer(
        &self,
        program: &Program,
        netns: &std::fs::File,
    ) -> Result<(), BpfError> {
        let doing = "attaching steer to the network namespace";
        // The kernel tells namespaces of links by 32 bits of their inode number.
        let inode = netns.metadata().map_err(|e| BpfError::system(doing, e))?.ino() as u32;
        let create =
            || sys::link_create_on(program.fd.as_fd(), netns.as_fd(), sys::ATTACH_SK_LOOKUP);
        replace_or_create(&self.dir.join(STEER), program.fd.as_fd(), inode, create)
            .map_err(|e| BpfError::system(doing, e))
    }

    /// Puts a program on a control group, in place of a predecessor's.
    pub(super) fn attach_cgroup(
        &self,
        program: &Program,
        (name, attach): (&str, u32),
        group: &std::fs::File,
    ) -> Result<(), BpfError> {
        let pin = self.dir.join(name);
        let create = || sys::link_create_on(program.fd.as_fd(), group.as_fd(), attach);
        let done = match sys::obj_get(&pin) {
            Ok(link) if sys::link_update(link.as_fd(), program.fd.as_fd()).is_ok() => return Ok(()),
            // The control group of then is gone.
            Ok(_) => std::fs::remove_file(&pin),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        done.and_then(|()| create()).and_then(|link| sys::obj_pin(link.as_fd(), &pin)).map_err(
            |e| BpfError::system(format!("attaching {} to the control group", program.name), e),
        )
    }

    /// Whether links of these names are there and on something.
    pub(super) fn has_links(&self, names: &[&str]) -> bool {
        names.iter().all(|name| sys::obj_get(&self.dir.join(name)).is_ok())
    }

    /// Takes a link off.
    pub(super) fn detach_link(&self, name: &str) -> Result<(), BpfError> {
        detach(&self.dir.join(name))
    }

    pub(super) fn detach_steer(&self) -> Result<(), BpfError> {
        detach(&self.dir.join(STEER))
    }
}

/// Gives the link pinned at `pin` the new program if it still points to `target`, else makes one.
fn replace_or_create(
    pin: &Path,
    program: BorrowedFd<'_>,
    target: u32,
    create: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<()> {
    match sys::obj_get(pin) {
        Ok(link) => {
            if sys::link_target(link.as_fd())? == target
                && sys::link_update(link.as_fd(), program).is_ok()
            {
                return Ok(());
            }
            // Left over from an interface or namespace that is gone.
            std::fs::remove_file(pin)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    sys::obj_pin(create()?.as_fd(), pin)
}

fn make_dir(path: &Path) -> Result<(), BpfError> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(BpfError::system(format!("creating {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

fn remove_dir(path: &Path) -> Result<(), BpfError> {
    gone(std::fs::remove_dir(path), path)
}

/// Detaches and unpins a link; one that is not there is no error.
fn detach(path: &Path) -> Result<(), BpfError> {
    if let Ok(link) = sys::obj_get(path) {
        // Fails only for a link whose interface or namespace is gone: detached already.
        if let Err(e) = sys::link_detach(link.as_fd()) {
            log::debug!("detaching {}: {e}", path.display());
        }
    }
    gone(std::fs::remove_file(path), path)
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), BpfError> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(BpfError::system(format!("removing {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
