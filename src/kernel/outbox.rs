use super::ServerId;

/// The messages a server sends in one call. They are delivered after the call has returned, and not at
/// all if it panics: a half-done step has no effect.
pub struct Outbox<M> {
    pub(super) letters: Vec<(ServerId, M)>,
}

// === impl Outbox ===

impl<M> Outbox<M> {
    /// An empty outbox; the kernel makes them, and so do unit tests of a single server.
    pub const fn new() -> Self {
        Self { letters: Vec::new() }
    }

    /// Sends `message` to the server `to`. Whether it may is checked on delivery.
    pub fn send(&mut self, to: ServerId, message: M) {
        self.letters.push((to, message));
    }

    /// Takes what has been sent so far, in order; for unit tests and simulations.
    pub fn take(&mut self) -> Vec<(ServerId, M)> {
        std::mem::take(&mut self.letters)
    }
}

impl<M> Default for Outbox<M> {
    fn default() -> Self {
        Self::new()
    }
}
