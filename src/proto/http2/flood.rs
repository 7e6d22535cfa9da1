//! Frames that cost us more than their sender: how many of them are borne.

/// Streams a client may have broken off at once: browsers cancel whole pages, gRPC clients all calls of a
/// channel. Each costs a request to an endpoint (CVE-2023-44487), so it is not much more than may be open.
const RESETS: u32 = 500;
/// And how many more each second.
const RESETS_PER_SECOND: u32 = 50;
/// Frames that carry nothing (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones) in a row.
/// gRPC sends a PING with every batch of data, and some clients a WINDOW_UPDATE for every frame: those are
/// paid for by what flows.
const IDLE_FRAMES: u32 = 1000;
/// And how many more each second.
const IDLE_FRAMES_PER_SECOND: u32 = 100;
/// Idle frames that a frame with something in it, in either direction, pays for.
const PAID_BY_A_FRAME: u32 = 4;

/// A number of permits that grows with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    filled_at: u64,
}

/// What a peer may still do. Times are milliseconds of any clock that does not go back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    resets: Bucket,
    idle: Bucket,
}

// === impl Bucket ===

impl Bucket {
    fn take(&mut self, now: u64, most: u32, per_second: u32) -> bool {
        let whole = now.saturating_sub(self.filled_at) / 1000;
        if whole > 0 {
            self.filled_at += whole * 1000;
            let more = whole.saturating_mul(u64::from(per_second)).min(u64::from(most));
            self.left = (self.left + more as u32).min(most);
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}

// === impl Patience ===

impl Patience {
    pub(super) fn new(now: u64) -> Self {
        let bucket = |left| Bucket { left, filled_at: now };
        Self { resets: bucket(RESETS), idle: bucket(IDLE_FRAMES) }
    }

    /// A stream broken off before its end, or by us because of the peer. False: too many.
    pub(super) fn bears_reset(&mut self, now: u64) -> bool {
        self.resets.take(now, RESETS, RESETS_PER_SECOND)
    }

    /// A frame that carries nothing. False: too many.
    pub(super) fn bears_idle_frame(&mut self, now: u64) -> bool {
        self.idle.take(now, IDLE_FRAMES, IDLE_FRAMES_PER_SECOND)
    }

    /// A frame with something in it was received or sent.
    #[inline]
    pub(super) fn useful_frame(&mut self) {
        self.idle.left = (self.idle.left + PAID_BY_A_FRAME).min(IDLE_FRAMES);
    }
}
