//! Serves until killed: for benchmarks and for trying the proxy by hand.
//!
//! `PILUS_PORT=8080 PILUS_BACKEND=127.0.0.1:8000 cargo test --release --test proxy_serve -- --ignored --test-threads=1`;
//! `PILUS_TLS=1` serves TLS for `localhost` and any other name.
mod support;

use support::{NameSpec, TestProxy, World};

#[test]
#[ignore = "runs until killed"]
fn serve() {
    let port = std::env::var("PILUS_PORT").unwrap().parse().unwrap();
    let backends = std::env::var("PILUS_BACKEND").unwrap();
    let backends: Vec<_> = backends.split(',').map(|text| text.parse().unwrap()).collect();
    let mut world = World::simple(port, &backends);
    if std::env::var_os("PILUS_TLS").is_some() {
        world.listeners[0].tls = true;
        let (key, _) = support::certificate("localhost");
        world.listeners[0].names.push((String::new(), NameSpec::Certificate(key)));
    }
    TestProxy::serve_here(world);
}
