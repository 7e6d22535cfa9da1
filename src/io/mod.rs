//! The only system calls and the only unsafe code.

pub mod bpf;
pub mod netlink;
