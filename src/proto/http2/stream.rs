//! One stream: where each direction is, and its windows (RFC 9113 sections 5.1 and 5.2).
use super::error::{ErrorCode, FrameError};
use super::settings::MAX_WINDOW;

/// Where a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// The (final) head is still to come.
    Head,
    Body,
    Ended,
}

/// Who has broken the stream off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    None,
    ByUs,
    ByPeer,
}

/// A stream that is open, or closed and not yet let go of by the caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// The caller's name for it.
    pub(super) token: u32,
    pub(super) recv: Half,
    pub(super) send: Half,
    pub(super) reset: Reset,
    /// Bytes that may still be sent; negative after the peer has made its windows smaller.
    pub(super) send_window: i64,
    /// Bytes that may still be received.
    pub(super) recv_window: i64,
    /// Bytes received and consumed, and not yet announced.
    pub(super) credit: u32,
    /// Bytes of the body still to come, if that was declared.
    pub(super) length_left: Option<u64>,
    /// The request's method is HEAD.
    pub(super) is_head: bool,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(id: u32, token: u32, send_window: u32, recv_window: u32) -> Self {
        Self {
            id,
            token,
            recv: Half::Head,
            send: Half::Head,
            reset: Reset::None,
            send_window: i64::from(send_window),
            recv_window: i64::from(recv_window),
            credit: 0,
            length_left: None,
            is_head: false,
        }
    }

    /// Nothing is received or sent any more.
    pub(super) fn is_over(&self) -> bool {
        self.reset != Reset::None || self.recv == Half::Ended && self.send == Half::Ended
    }

    /// Takes in the payload of a DATA frame of `frame` bytes, of which `data` are no padding.
    pub(super) fn receive(
        &mut self,
        frame: usize,
        data: usize,
        end: bool,
    ) -> Result<(), FrameError> {
        match self.recv {
            Half::Head => return Err(FrameError::Stream(ErrorCode::Protocol)),
            Half::Ended => return Err(FrameError::Stream(ErrorCode::StreamClosed)),
            Half::Body => {}
        }
        self.recv_window -= frame as i64;
        if self.recv_window < 0 {
            return Err(FrameError::Stream(ErrorCode::FlowControl));
        }
        if let Some(left) = &mut self.length_left {
            *left = left.checked_sub(data as u64).ok_or(FrameError::Stream(ErrorCode::Protocol))?;
        }
        if end { self.end_received() } else { Ok(()) }
    }

    /// The peer has said all.
    pub(super) fn end_received(&mut self) -> Result<(), FrameError> {
        self.recv = Half::Ended;
        match self.length_left {
            None | Some(0) => Ok(()),
            Some(_) => Err(FrameError::Stream(ErrorCode::Protocol)),
        }
    }

    /// The peer allows `increment` more bytes.
    pub(super) fn open_window(&mut self, increment: u32) -> Result<(), FrameError> {
        self.send_window += i64::from(increment);
        if self.send_window > i64::from(MAX_WINDOW) {
            return Err(FrameError::Stream(ErrorCode::FlowControl));
        }
        Ok(())
    }
}
