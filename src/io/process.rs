//! What this process uses, and where it runs.
use std::time::Duration;

/// What the process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// User and system time.
    pub cpu: Duration,
    /// Open descriptors.
    pub open_fds: usize,
}

/// The figures from `/proc/self`; None where there is no such file system.
pub fn usage() -> Option<Usage> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: no preconditions.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    let cpu = Duration::new(u64::try_from(time.tv_sec).ok()?, nanos);
    let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(Usage { resident_bytes: pages * page, cpu, open_fds })
}

/// The machine's name, for nodes that are not given one.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_something() {
        let usage = super::usage().unwrap();
        assert!(usage.resident_bytes > 100_000);
        assert!(usage.open_fds >= 3);
        assert!(super::host_name().is_some());
    }
}
