//! The bpf(2) calls that aya cannot make without first parsing the kernel's whole BTF.
//!
//! `EbpfLoader::new` reads /sys/kernel/btf/vmlinux (5 MB and more) even for an object that relocates
//! nothing against it; that costs 50-100 ms and tens of megabytes at every start. So programs and
//! links are made here; reading the object file and using the maps stays with aya.
//!
//! Attribute layouts: `union bpf_attr` in <linux/bpf.h>. The kernel accepts shorter attributes than
//! its own and reads the missing tail as zero, so each struct ends where its command's use ends.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::bpf_insn;

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_NEXT_KEY: u32 = 4;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_DETACH: u32 = 34;

/// Program and attach types used (`enum bpf_prog_type`, `enum bpf_attach_type`).
pub(super) const PROG_TYPE_SCHED_CLS: u32 = 3;
pub(super) const PROG_TYPE_SK_LOOKUP: u32 = 30;
pub(super) const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
pub(super) const ATTACH_SK_LOOKUP: u32 = 36;
pub(super) const ATTACH_TCX_INGRESS: u32 = 46;
pub(super) const ATTACH_TCX_EGRESS: u32 = 47;

/// `SO_NETNS_COOKIE` of <asm-generic/socket.h>.
const SO_NETNS_COOKIE: i32 = 71;
/// Put a tcx program before all others: it passes on whatever is not ours.
const F_BEFORE: u32 = 1 << 3;
/// `BPF_OBJ_NAME_LEN` less the terminating zero.
const NAME_MAX: usize = 15;
/// Enough for the verifier's last words.
const LOG_SIZE: usize = 64 * 1024;
/// How much of them an error message carries.
const LOG_TAIL: usize = 800;

fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live repr(C) struct of the size given, and every pointer put in it by
    // the callers of this module points to memory that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as i32) }
}

/// The number by which programs know the network namespace of the calling thread (Linux 5.14).
pub(super) fn netns_cookie() -> io::Result<u64> {
    // Not by a text, which would link the resolver of the C library.
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: value and length point to live variables of the size stated.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if ret == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let n = name.len().min(NAME_MAX);
    out[..n].copy_from_slice(&name.as_bytes()[..n]);
    out
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path contains a zero byte"))
}

/// What a map is made of; equal shapes can share a pinned map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MapShape {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

pub(super) fn map_create(name: &str, shape: MapShape) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        shape: [u32; 5],
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attr = Attr {
        shape: [shape.kind, shape.key_size, shape.value_size, shape.max_entries, shape.flags],
        inner_map_fd: 0,
        numa_node: 0,
        name: object_name(name),
    };
    match bpf(MAP_CREATE, &mut attr) {
        // Before Linux 5.11 maps count against RLIMIT_MEMLOCK, which is tiny by default.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            let unlimited =
                libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: setrlimit only reads the struct. A refusal shows in the second attempt.
            unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
            bpf(MAP_CREATE, &mut attr).map(owned)
        }
        other => other.map(owned),
    }
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Processors that could ever be there: how many values a per-CPU entry has.
fn processors() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

/// One map as bytes. Keys and values must have the sizes that the map was made with.
#[derive(Debug)]
pub(super) struct RawMap {
    fd: OwnedFd,
    shape: MapShape,
}

// === impl RawMap ===

impl RawMap {
    /// A map whose layout is `shape`.
    pub(super) const fn new(fd: OwnedFd, shape: MapShape) -> Self {
        Self { fd, shape }
    }

    fn attr(&self, key: u64, value: u64) -> ElementAttr {
        ElementAttr { map_fd: self.fd.as_raw_fd() as u32, pad: 0, key, value, flags: 0 }
    }

    /// Puts an entry, new or not.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!((key.len(), value.len()), self.sizes(), "the sizes are the map's");
        bpf(MAP_UPDATE, &mut self.attr(key.as_ptr() as u64, value.as_ptr() as u64)).map(drop)
    }

    /// Removes an entry; one that is not there is no error.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        assert_eq!(key.len(), self.sizes().0, "the size is the map's");
        match bpf(MAP_DELETE, &mut self.attr(key.as_ptr() as u64, 0)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The value of a key; of a per-CPU map this is no use.
    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        assert_eq!(key.len(), self.sizes().0, "the size is the map's");
        let mut value = vec![0_u8; self.sizes().1];
        match bpf(MAP_LOOKUP, &mut self.attr(key.as_ptr() as u64, value.as_mut_ptr() as u64)) {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every entry, unless others change the map meanwhile.
    pub(super) fn entries(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (mut found, mut last) = (Vec::new(), None::<Vec<u8>>);
        // A map that others change may lead in circles.
        for _ in 0..=self.shape.max_entries {
            let mut next = vec![0_u8; self.sizes().0];
            let from = last.as_ref().map_or(0, |key| key.as_ptr() as u64);
            match bpf(MAP_NEXT_KEY, &mut self.attr(from, next.as_mut_ptr() as u64)) {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => break,
                Err(e) => return Err(e),
            }
            if let Some(value) = self.get(&next)? {
                found.push((next.clone(), value));
            }
            last = Some(next);
        }
        Ok(found)
    }

    /// The sum of a per-CPU number.
    pub(super) fn sum(&self, index: u32) -> io::Result<u64> {
        let mut values = vec![0_u64; processors()?];
        let key = index.to_ne_bytes();
        bpf(MAP_LOOKUP, &mut self.attr(key.as_ptr() as u64, values.as_mut_ptr() as u64))?;
        Ok(values.into_iter().sum())
    }

    /// Its bound.
    pub(super) const fn max_entries(&self) -> u32 {
        self.shape.max_entries
    }

    fn sizes(&self) -> (usize, usize) {
        (self.shape.key_size as usize, self.shape.value_size as usize)
    }
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut out = T::default();
    let mut attr = Attr {
        fd: fd.as_raw_fd() as u32,
        info_len: size_of::<T>() as u32,
        info: &raw mut out as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(out)
}

pub(super) fn map_shape(fd: BorrowedFd<'_>) -> io::Result<MapShape> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }
    let i: Info = info(fd)?;
    Ok(MapShape {
        kind: i.kind,
        key_size: i.key_size,
        value_size: i.value_size,
        max_entries: i.max_entries,
        flags: i.flags,
    })
}

/// Loads a program; on refusal loads it again with a log and returns the end of that.
pub(super) fn prog_load(
    name: &str,
    kind: u32,
    attach: u32,
    code: &[bpf_insn],
    license: &CString,
) -> Result<OwnedFd, (io::Error, String)> {
    #[repr(C)]
    struct Attr {
        kind: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        flags: u32,
        name: [u8; 16],
        ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attr = Attr {
        kind,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        flags: 0,
        name: object_name(name),
        ifindex: 0,
        expected_attach_type: attach,
    };
    let refused = match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(owned(fd)),
        Err(e) => e,
    };
    let mut log = vec![0u8; LOG_SIZE];
    attr.log_level = 1;
    attr.log_size = log.len() as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    if let Ok(fd) = bpf(PROG_LOAD, &mut attr) {
        return Ok(owned(fd));
    }
    let len = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let tail = &log[len.saturating_sub(LOG_TAIL)..len];
    Err((refused, String::from_utf8_lossy(tail).trim().to_owned()))
}

#[repr(C)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { path: path.as_ptr() as u64, fd: fd.as_raw_fd() as u32, flags: 0 };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    bpf(OBJ_GET, &mut attr).map(owned)
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// A tcx link, before all other programs (Linux 6.6).
pub(super) fn link_create_tcx(
    prog: BorrowedFd<'_>,
    ifindex: u32,
    attach: u32,
) -> io::Result<OwnedFd> {
    bpf(
        LINK_CREATE,
        &mut LinkCreateAttr {
            prog_fd: prog.as_raw_fd() as u32,
            target: ifindex,
            attach,
            flags: F_BEFORE,
            relative: 0,
            pad: 0,
            expected_revision: 0,
        },
    )
    .map(owned)
}

/// A link on a network namespace (sk_lookup, Linux 5.9) or on a control group (5.7).
pub(super) fn link_create_on(
    prog: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach: u32,
) -> io::Result<OwnedFd> {
    bpf(
        LINK_CREATE,
        &mut LinkCreateAttr {
            prog_fd: prog.as_raw_fd() as u32,
            target: target.as_raw_fd() as u32,
            attach,
            flags: 0,
            relative: 0,
            pad: 0,
            expected_revision: 0,
        },
    )
    .map(owned)
}

/// Replaces the program of a link at once: no packet sees the hook empty.
pub(super) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: prog.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// Takes a link's program off at once; removing the pin alone does so some time later.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = link.as_raw_fd();
    bpf(LINK_DETACH, &mut fd).map(drop)
}

/// What a link is attached to: the interface of a tcx link, the inode of the namespace of an
/// sk_lookup link; 0 when that is gone.
pub(super) fn link_target(link: BorrowedFd<'_>) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        pad: u32,
        target: u32,
        attach: u32,
    }
    Ok(info::<Info>(link)?.target)
}

/// What the kernel says of a loaded program.
#[repr(C)]
#[derive(Default, Debug)]
pub(super) struct ProgInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    tag: [u8; 8],
    jited_len: u32,
    pub(super) xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    /// Bit 0: `gpl_compatible`.
    pub(super) bits: u32,
    netns_dev: u64,
    netns_ino: u64,
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    /// Instructions the verifier walked (Linux 5.16; 0 before).
    pub(super) verified_insns: u32,
    attach_btf_obj_id: u32,
    attach_btf_id: u32,
    end: u32,
}

pub(super) fn prog_info(fd: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    info(fd)
}

/// Runs a program once on `data` with the context given; returns its verdict and the packet after.
pub(super) fn prog_test_run(
    prog: BorrowedFd<'_>,
    data: &[u8],
    ctx: &[u8],
) -> io::Result<(u32, Vec<u8>)> {
    /// Programs grow a packet by less than this.
    const GROWTH: usize = 256;
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
    }
    let mut out = vec![0u8; data.len() + GROWTH];
    let mut attr = Attr {
        prog_fd: prog.as_raw_fd() as u32,
        retval: 0,
        data_size_in: data.len() as u32,
        data_size_out: if data.is_empty() { 0 } else { out.len() as u32 },
        data_in: if data.is_empty() { 0 } else { data.as_ptr() as u64 },
        data_out: if data.is_empty() { 0 } else { out.as_mut_ptr() as u64 },
        repeat: 0,
        duration: 0,
        ctx_size_in: ctx.len() as u32,
        ctx_size_out: 0,
        ctx_in: ctx.as_ptr() as u64,
        ctx_out: 0,
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    Ok((attr.retval, out))
}
