//! The world outside: the only system calls, the only unsafe code, the only clock.
pub mod bpf;
pub mod clock;
pub mod event_loop;
pub mod hooks;
pub mod interfaces;
pub mod netlink;
pub mod files;
pub mod inotify;
pub mod reactor;
pub mod signals;
