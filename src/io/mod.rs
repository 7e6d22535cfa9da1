//! The world outside: the only system calls, the only unsafe code, the only clock.
pub mod clock;
pub mod event_loop;
pub mod reactor;
pub mod admin_socket;
pub mod logger;
pub mod notify;
pub mod process;
