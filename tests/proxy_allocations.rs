//! The path of a small request allocates nothing.
#![expect(unsafe_code, reason = "an allocator cannot be written without it")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pilus::api::config::{AccessLog, Config, LogFormat};
use support::backend::Backend;
use support::client::Client;
use support::{TestProxy, World, free_port};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the proxy's thread during so many requests, those of asking included.
fn allocations(proxy: &TestProxy, client: &mut Client, requests: usize) -> u64 {
    let count = || ALLOCATIONS.with(Cell::get);
    let before = proxy.ask(count);
    for _ in 0..requests {
        assert_eq!(client.get("/").text(), "small");
    }
    proxy.ask(count) - before
}

#[test]
fn a_small_request_allocates_nothing() {
    allocates_nothing(|| Config { no_bpf: true, ..Config::default() });
}

#[test]
fn nor_does_its_line_in_the_access_log() {
    for access_log_format in [LogFormat::Json, LogFormat::Combined] {
        allocates_nothing(move || Config {
            no_bpf: true,
            access_log: Some(AccessLog::File("/dev/null".into())),
            access_log_format,
            ..Config::default()
        });
    }
}

fn allocates_nothing(config: impl FnOnce() -> Config + Send + 'static) {
    let backend = Backend::answering("small");
    let port = free_port();
    let proxy = TestProxy::with_config(config, World::simple(port, &[backend.address]));
    let mut client = Client::connect(port);
    allocations(&proxy, &mut client, 100);
    let few = allocations(&proxy, &mut client, 10);
    let many = allocations(&proxy, &mut client, 1010);
    // The date and the sweep cost a few per second, whatever is served.
    assert!(many < few + 100, "{few} allocations for 10 requests, {many} for 1010");
}
