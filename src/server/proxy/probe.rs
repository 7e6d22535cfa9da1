//! Endpoints that could not be connected to: nobody waits for them, until they are back.
use std::rc::Rc;

use super::cluster::Member;
use super::limits::{CONNECT_TIMEOUT, FIRST_PROBE_PAUSE, LONGEST_PROBE_PAUSE};
use crate::io::reactor::Timer;
use crate::io::tcp::TcpStream;
use crate::io::{clock, event_loop};

/// Remembers that `member` is dead, and looks now and then whether it still is. One that swallows connections would
/// cost each request of its share the time to connect.
pub(super) fn bury(member: &Rc<Member>) {
    if !member.set_dead(true) {
        return;
    }
    log::debug!("{} is dead", member.host.address);
    let member = Rc::downgrade(member);
    let watch = async move {
        let mut pause = FIRST_PROBE_PAUSE;
        loop {
            Timer::at(clock::now() + pause).await;
            pause = (pause * 2).min(LONGEST_PROBE_PAUSE);
            // No backend has it any more.
            let Some(member) = member.upgrade() else { return };
            if !member.is_dead() || is_alive(member.host.address).await {
                member.set_dead(false);
                return;
            }
        }
    };
    event_loop::spawn_connection(watch).detach();
}

async fn is_alive(address: std::net::SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(address) else { return false };
    let connected = async { std::future::poll_fn(|cx| stream.poll_connected(cx)).await.is_ok() };
    let late = async {
        Timer::at(clock::now() + CONNECT_TIMEOUT).await;
        false
    };
    smol::future::or(connected, late).await
}
