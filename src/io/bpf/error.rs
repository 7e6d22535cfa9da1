//! What can go wrong with the kernel data path, and what the operator can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::io::netlink::NetlinkError;

/// Why the data path could not be loaded, attached or changed.
#[derive(Debug)]
pub enum BpfError {
    /// The BPF root directory is not on a BPF file system.
    NotMounted {
        /// The directory asked for.
        root: PathBuf,
    },
    /// The process lacks a capability.
    NotPermitted {
        /// The operation refused.
        operation: String,
    },
    /// The kernel lacks a feature that Linux 5.10 has.
    NotSupported {
        /// The operation refused.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The built-in object file cannot be used: an error in this build.
    Object {
        /// What is wrong with it.
        reason: String,
    },
    /// The verifier refused a program: an error in this build or in the kernel.
    Refused {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// A table is full: the limit is one of ours.
    Full {
        /// The map.
        map: &'static str,
        /// Its bound.
        limit: u32,
    },
    /// A system call failed in a way this list has no name for.
    System {
        /// The operation, with what it was done to.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A netlink request for the tc filter failed.
    Netlink(NetlinkError),
}

impl BpfError {
    /// Whether the interface that was to be hooked is not there any more.
    pub fn is_gone(&self) -> bool {
        let source = match self {
            Self::System { source, .. } => source,
            Self::Netlink(error) => &error.source,
            _ => return false,
        };
        source.raw_os_error() == Some(libc::ENODEV)
    }

    /// Sorts a failed system call into the case an operator can act on.
    pub(super) fn system(operation: impl Into<String>, source: io::Error) -> Self {
        let operation = operation.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { operation },
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => Self::NotSupported { operation, source },
            _ => Self::System { operation, source },
        }
    }
}

impl From<NetlinkError> for BpfError {
    fn from(e: NetlinkError) -> Self {
        Self::Netlink(e)
    }
}

impl fmt::Display for BpfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted { root } => write!(
                f,
                "{} is not on a BPF file system: run `mount -t bpf bpf /sys/fs/bpf`, or point \
                 --bpf-root below a mounted one, or use --no-bpf",
                root.display()
            ),
            Self::NotPermitted { operation } => write!(
                f,
                "{operation}: not permitted: the agent needs CAP_BPF and CAP_NET_ADMIN, and write \
                 access to the BPF root; or use --no-bpf"
            ),
            Self::NotSupported { operation, source } => write!(
                f,
                "{operation}: {source}: this needs Linux 5.10 or newer with CONFIG_BPF_SYSCALL, \
                 CONFIG_NET_CLS_BPF and CONFIG_BPF_STREAM_PARSER, or use --no-bpf"
            ),
            Self::Object { reason } => {
                write!(f, "the built-in BPF object is unusable: {reason}: please report this build")
            }
            Self::Refused { program, source, log } => {
                write!(f, "the kernel refused BPF program {program}: {source}: {log}")
            }
            Self::Full { map, limit } => write!(f, "BPF map {map} is full ({limit} entries)"),
            Self::System { operation, source } => write!(f, "{operation}: {source}"),
            Self::Netlink(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for BpfError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotSupported { source, .. }
            | Self::Refused { source, .. }
            | Self::System { source, .. } => Some(source),
            Self::Netlink(e) => Some(e),
            _ => None,
        }
    }
}
