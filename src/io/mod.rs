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
pub mod admin_socket;
pub mod logger;
pub mod notify;
pub mod process;
