//! Frames that carry no message: what they do to the connection or to a stream (RFC 9113 sections 6.3 to 6.9).
use super::Role;
use super::connection::{Connection, DRAIN_PING, Departure, Event, depends_on};
use super::error::{ErrorCode, FrameError};
use super::frame::{self, FrameHeader, number};
use super::settings::MAX_WINDOW;
use super::stream::Reset;

impl Connection {
    /// Priorities are not used; what they may look like is checked all the same.
    pub(super) fn priority(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event>, FrameError> {
        self.idle_frame(now)?;
        match payload.first_chunk() {
            Some(first) if payload.len() == 5 => match depends_on(first) {
                stream if stream == header.stream => Err(FrameError::Stream(ErrorCode::Protocol)),
                _ => Ok(None),
            },
            _ => Err(FrameError::Stream(ErrorCode::FrameSize)),
        }
    }

    pub(super) fn reset_received(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event>, FrameError> {
        let code = number(payload).ok_or(FrameError::Connection(ErrorCode::FrameSize))?;
        self.must_not_be_idle(header.stream)?;
        let Some(at) = self.find(header.stream) else {
            return self.idle_frame(now).map(|()| None);
        };
        let stream = &mut self.streams[at];
        if stream.is_over() {
            return self.idle_frame(now).map(|()| None);
        }
        stream.reset = Reset::ByPeer;
        let token = stream.token;
        if self.role == Role::Server && !self.patience.bears_reset(now) {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm));
        }
        Ok(Some(Event::Reset { token, code: ErrorCode::from_wire(code) }))
    }

    pub(super) fn settings(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        self.idle_frame(now)?;
        if header.has(frame::ACK) {
            let good = payload.is_empty();
            return if good { Ok(None) } else { Err(FrameError::Connection(ErrorCode::FrameSize)) };
        }
        self.settings_seen = true;
        let before = self.peer.initial_window;
        self.peer.apply(self.role, payload).map_err(FrameError::Connection)?;
        self.encoder.set_limit(self.peer.header_table_bytes);
        let change = i64::from(self.peer.initial_window) - i64::from(before);
        for stream in &mut self.streams {
            stream.send_window += change;
            if stream.send_window > i64::from(MAX_WINDOW) {
                return Err(FrameError::Connection(ErrorCode::FlowControl));
            }
        }
        frame::write_header(out, frame::SETTINGS, frame::ACK, 0, 0);
        Ok(Some(Event::AllWindowsOpened))
    }

    pub(super) fn ping(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, FrameError> {
        self.idle_frame(now)?;
        let &data: &[u8; 8] =
            payload.try_into().map_err(|_| FrameError::Connection(ErrorCode::FrameSize))?;
        if !header.has(frame::ACK) {
            frame::write_ping(out, frame::ACK, data);
        } else if data == DRAIN_PING && self.departure == Departure::Announced {
            return Ok(Some(Event::DepartureKnown));
        }
        Ok(None)
    }

    pub(super) fn goaway(&mut self, payload: &[u8]) -> Result<Option<Event>, FrameError> {
        let (last, rest) =
            payload.split_first_chunk().ok_or(FrameError::Connection(ErrorCode::FrameSize))?;
        if rest.len() < 4 {
            return Err(FrameError::Connection(ErrorCode::FrameSize));
        }
        let last = depends_on(last);
        // It may only become smaller.
        self.refused_above = Some(self.refused_above.map_or(last, |before| before.min(last)));
        Ok(Some(Event::GoAway))
    }

    pub(super) fn window_update(
        &mut self,
        now: u64,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event>, FrameError> {
        let increment = number(payload).ok_or(FrameError::Connection(ErrorCode::FrameSize))?;
        let increment = increment & MAX_WINDOW;
        self.idle_frame(now)?;
        if header.stream == 0 {
            if increment == 0 {
                return Err(FrameError::Connection(ErrorCode::Protocol));
            }
            self.send_window += i64::from(increment);
            if self.send_window > i64::from(MAX_WINDOW) {
                return Err(FrameError::Connection(ErrorCode::FlowControl));
            }
            return Ok(Some(Event::AllWindowsOpened));
        }
        self.must_not_be_idle(header.stream)?;
        let Some(at) = self.find(header.stream) else { return Ok(None) };
        let stream = &mut self.streams[at];
        if stream.is_over() {
            return Ok(None);
        }
        if increment == 0 {
            return Err(FrameError::Stream(ErrorCode::Protocol));
        }
        stream.open_window(increment)?;
        Ok(Some(Event::WindowOpened { token: stream.token }))
    }
}
