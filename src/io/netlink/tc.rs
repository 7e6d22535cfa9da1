//! The clsact qdisc and bpf filters on its hooks: how a program is attached before Linux 6.6.
//! `struct tcmsg` and its attributes: <linux/rtnetlink.h>, <linux/pkt_cls.h>.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{self, Attributes, Malformed, Message, Request};
use super::{Netlink, NetlinkError, done_unless, failed};

/// Handle and parent of the clsact qdisc.
const HANDLE: u32 = 0xffff_0000;
const PARENT: u32 = 0xffff_fff1;
/// Its hooks.
pub(crate) const INGRESS: u32 = 0xffff_fff2;
/// See [`INGRESS`].
pub(crate) const EGRESS: u32 = 0xffff_fff3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's return value is the verdict.
const DIRECT_ACTION: u32 = 1;

/// First priority tried; ours must run before filters that end the matter.
const FIRST_PRIORITY: u16 = 1;
/// A priority can be taken by a filter of another kind: how many are tried.
const PRIORITIES: u16 = 16;
/// Our handle below a priority, "pil", so that others' filters there are not replaced.
const FILTER_HANDLE: u32 = 0x0070_696c;

/// A filter on a hook.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Filter {
    priority: u16,
    handle: u32,
    name: Option<String>,
}

fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut out = [0; 20];
    for (at, value) in [(4, ifindex), (8, handle), (12, parent), (16, info)] {
        out[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    out
}

/// Priority and protocol of a filter; the protocol is in network order.
fn filter_info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

/// Adds the clsact qdisc; `false` if the interface has one (or an ingress qdisc) already.
pub(crate) fn add_clsact(netlink: &mut Netlink, ifindex: u32) -> Result<bool, NetlinkError> {
    let fixed = tcmsg(ifindex, HANDLE, PARENT, 0);
    let request = Request::new(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
        .put(TCA_KIND, b"clsact\0");
    done_unless(netlink.change(request), &[libc::EEXIST])
        .map_err(failed(format!("adding the clsact qdisc to interface {ifindex}")))
}

/// Removes the clsact qdisc if nobody has a filter on it.
pub(crate) fn remove_clsact_if_unused(
    netlink: &mut Netlink,
    ifindex: u32,
) -> Result<(), NetlinkError> {
    for hook in [INGRESS, EGRESS] {
        if !filters(netlink, ifindex, hook)?.is_empty() {
            return Ok(());
        }
    }
    let request = Request::new(libc::RTM_DELQDISC, 0, &tcmsg(ifindex, HANDLE, PARENT, 0));
    done_unless(netlink.change(request), &GONE)
        .map(drop)
        .map_err(failed(format!("removing the clsact qdisc of interface {ifindex}")))
}

/// The interface, qdisc or filter is not there any more.
const GONE: [i32; 3] = [libc::ENODEV, libc::ENOENT, libc::EINVAL];

/// Puts a program on a hook, replacing our filter at once if there is one.
pub(crate) fn set_filter(
    netlink: &mut Netlink,
    ifindex: u32,
    hook: u32,
    program: BorrowedFd<'_>,
    name: &str,
) -> Result<(), NetlinkError> {
    let fail = || failed(format!("attaching the tc filter to interface {ifindex}"));
    let ours = filters(netlink, ifindex, hook)?.into_iter().find(|f| is_named(f, name));
    if let Some(old) = ours {
        let request = filter_request(ifindex, hook, (old.priority, old.handle), 0, program, name);
        return netlink.change(request).map_err(fail());
    }
    let new = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut last = io::Error::from_raw_os_error(libc::EEXIST);
    for priority in FIRST_PRIORITY..FIRST_PRIORITY + PRIORITIES {
        let request = filter_request(ifindex, hook, (priority, FILTER_HANDLE), new, program, name);
        match netlink.change(request) {
            Ok(()) => return Ok(()),
            // Another kind or protocol of filter has this priority.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::EINVAL)) => last = e,
            Err(e) => return Err(fail()(e)),
        }
    }
    Err(fail()(last))
}

/// Whether our filter is on the hook.
pub(crate) fn has_filter(
    netlink: &mut Netlink,
    ifindex: u32,
    hook: u32,
    name: &str,
) -> Result<bool, NetlinkError> {
    Ok(filters(netlink, ifindex, hook)?.iter().any(|filter| is_named(filter, name)))
}

/// Removes our filter; one that is not there is no error.
pub(crate) fn remove_filter(
    netlink: &mut Netlink,
    ifindex: u32,
    hook: u32,
    name: &str,
) -> Result<(), NetlinkError> {
    for filter in filters(netlink, ifindex, hook)? {
        if is_named(&filter, name) {
            let fixed = tcmsg(ifindex, filter.handle, hook, filter_info(filter.priority));
            let request = Request::new(libc::RTM_DELTFILTER, 0, &fixed).put(TCA_KIND, b"bpf\0");
            done_unless(netlink.change(request), &GONE)
                .map_err(failed(format!("removing the tc filter of interface {ifindex}")))?;
        }
    }
    Ok(())
}

fn is_named(filter: &Filter, name: &str) -> bool {
    filter.name.as_deref() == Some(name)
}

fn filter_request(
    ifindex: u32,
    hook: u32,
    (priority, handle): (u16, u32),
    flags: i32,
    program: BorrowedFd<'_>,
    name: &str,
) -> Request {
    let fixed = tcmsg(ifindex, handle, hook, filter_info(priority));
    let name = [name.as_bytes(), &[0]].concat();
    Request::new(libc::RTM_NEWTFILTER, flags, &fixed).put(TCA_KIND, b"bpf\0").nest(
        TCA_OPTIONS,
        |options| {
            options
                .put(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
                .put(TCA_BPF_NAME, &name)
                .put(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes())
        },
    )
}

/// The filters of a hook; none if the interface or the qdisc is not there.
fn filters(netlink: &mut Netlink, ifindex: u32, hook: u32) -> Result<Vec<Filter>, NetlinkError> {
    let fixed = tcmsg(ifindex, 0, hook, 0);
    let request = || Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &fixed);
    let result = netlink.dump(&format!("listing tc filters of interface {ifindex}"), request, read);
    match result {
        Err(e) if e.source.raw_os_error().is_some_and(|n| GONE.contains(&n)) => Ok(Vec::new()),
        // A dump also names each chain's head, without a handle.
        other => Ok(other?.into_iter().filter(|f| f.handle != 0).collect()),
    }
}

fn read(message: &Message<'_>) -> Result<Option<Filter>, Malformed> {
    if message.kind != libc::RTM_NEWTFILTER {
        return Ok(None);
    }
    let mut filter = Filter {
        priority: (message::u32_at(message.body, 16)? >> 16) as u16,
        handle: message::u32_at(message.body, 8)?,
        name: None,
    };
    for found in Attributes(message.body.get(20..).ok_or(Malformed)?) {
        let (kind, value) = found?;
        if kind == TCA_OPTIONS {
            for found in Attributes(value) {
                let (kind, value) = found?;
                if kind == TCA_BPF_NAME {
                    filter.name = Some(message::text(value));
                }
            }
        }
    }
    Ok(Some(filter))
}
