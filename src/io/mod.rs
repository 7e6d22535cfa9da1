//! The world outside: the only system calls, the only unsafe code, the only clock.
pub mod clock;
pub mod event_loop;
pub mod lan;
pub mod reactor;
