use super::{Outbox, Time};

/// A server's place in the wiring table; also its priority, the smaller the earlier it is served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(pub u8);

/// What travels between servers.
pub trait Message: Send + 'static {
    /// Whether this message makes an older one from the same sender pointless. A message that carries a
    /// whole state does: a busy receiver then needs only the newest, and its mailbox cannot fill up.
    fn supersedes(&self, older: &Self) -> bool;

    /// A short name for diagnostics.
    fn name(&self) -> &'static str;
}

/// One isolated part of the program.
///
/// Rules: no sockets, no clock, no randomness, no globals; everything comes in as an argument and goes
/// out through the [`Outbox`]. A panic in any method kills this server only: what it had put into the
/// outbox in that call is dropped, and the supervisor builds a new one.
pub trait Server<M: Message> {
    /// Called once, before any message.
    fn start(&mut self, _now: Time, _out: &mut Outbox<M>) {}

    /// Takes one message.
    fn handle(&mut self, now: Time, from: ServerId, message: M, out: &mut Outbox<M>);

    /// When [`Server::tick`] wants to be called next, if at all.
    fn timeout(&self) -> Option<Time> {
        None
    }

    /// Called when the time of [`Server::timeout`] has come.
    fn tick(&mut self, _now: Time, _out: &mut Outbox<M>) {}

    /// `peer` has died and was built anew: it knows nothing. Send it again all that it should know.
    fn peer_restarted(&mut self, _now: Time, _peer: ServerId, _out: &mut Outbox<M>) {}
}
