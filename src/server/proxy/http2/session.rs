//! What the task of a connection and the tasks of its streams share. All of them run on one thread.
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::task::{Context, Waker};

use crate::io::buffer::Buffer;
use crate::io::reactor::loop_now;
use crate::kernel::Time;
use crate::proto::http2::{Connection, ErrorCode};

/// Bytes of frames that may wait for the transport. What does not fit stays with its stream.
const OUT_BYTES: usize = 31 * 1024;

/// Bytes of frames beyond which nothing more is received. Payload cannot get there; answers to what the peer sends
/// can, if it does not take them. It is more than payload needs, because two ends that each wait for the other to
/// read would wait for ever.
const MUCH_OUT_BYTES: usize = 256 * 1024;

/// A connection of either side.
pub(super) struct Session {
    state: RefCell<State>,
    /// Streams of a client's side that exist and have not sent their head.
    pub(super) opening: Cell<usize>,
}

/// What both kinds of tasks work on.
pub(super) struct State {
    pub(super) protocol: Connection,
    /// To be sent.
    pub(super) out: Buffer,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Streams that wait for room in `out`, or in the window of the connection.
    waiting: VecDeque<u32>,
    driver: Option<Waker>,
    /// The driver will run anyway.
    scheduled: bool,
    /// The transport is gone.
    pub(super) closed: bool,
    /// When the driver looks at the deadlines of streams again.
    pub(super) next_look: Time,
}

/// A stream, as its tasks see it.
#[derive(Default)]
pub(super) struct Slot {
    /// 0 while it has not been opened.
    pub(super) id: u32,
    /// What has arrived: of responses first the text of their heads.
    pub(super) received: Buffer,
    /// Bytes of `received` that are no payload.
    pub(super) head_bytes: usize,
    pub(super) ended: bool,
    pub(super) trailers: Vec<u8>,
    pub(super) reset: Option<ErrorCode>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    pub(super) deadline: Time,
    pub(super) expired: bool,
    in_use: bool,
}

// === impl Session ===

impl Session {
    pub(super) fn new(protocol: Connection) -> Self {
        let mut state = State {
            protocol,
            out: Buffer::new(),
            slots: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            driver: None,
            scheduled: false,
            closed: false,
            next_look: Time::MAX,
        };
        state.protocol.start(state.out.vec());
        Self { state: RefCell::new(state), opening: Cell::new(0) }
    }

    #[inline]
    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }
}

/// Milliseconds, as the protocol counts them.
#[inline]
pub(super) fn millis(now: Time) -> u64 {
    now.as_nanos() / 1_000_000
}

// === impl State ===

impl State {
    /// The protocol, and where it writes to.
    #[inline]
    pub(super) fn parts(&mut self) -> (&mut Connection, &mut Vec<u8>) {
        (&mut self.protocol, self.out.vec())
    }

    /// How many more bytes of payload may be written.
    #[inline]
    pub(super) fn room(&self) -> usize {
        OUT_BYTES.saturating_sub(self.out.len())
    }

    /// Whether the peer should first take what there is for it.
    #[inline]
    pub(super) fn is_choked(&self) -> bool {
        self.out.len() > MUCH_OUT_BYTES
    }

    #[inline]
    pub(super) fn slot(&mut self, token: u32) -> &mut Slot {
        &mut self.slots[token as usize]
    }

    /// A slot for a stream.
    pub(super) fn take_slot(&mut self, id: u32) -> u32 {
        let token = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // There are no more than streams.
            (self.slots.len() - 1) as u32
        });
        let slot = self.slot(token);
        slot.id = id;
        slot.in_use = true;
        slot.deadline = Time::MAX;
        token
    }

    /// Lets go of a stream; one that has not ended is broken off with `code`.
    pub(super) fn release(&mut self, token: u32, code: ErrorCode) {
        let slot = std::mem::take(self.slot(token));
        self.free.push(token);
        if self.free.len() == self.slots.len() {
            // Idle: many connections are.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.waiting = VecDeque::new();
        }
        if slot.id == 0 || self.closed {
            return;
        }
        let before = self.out.len();
        let (protocol, out) = self.parts();
        protocol.release(slot.id, code, out);
        protocol.consumed(slot.id, slot.received.len() - slot.head_bytes, out);
        if self.out.len() > before || self.protocol.stream_count() == 0 {
            self.wake_driver();
        }
        self.out.release();
    }

    /// Has the driver send what is in `out`.
    #[inline]
    pub(super) fn wake_driver(&mut self) {
        if !std::mem::replace(&mut self.scheduled, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// The driver runs.
    #[inline]
    pub(super) fn driver_runs(&mut self, cx: &Context<'_>) {
        self.scheduled = false;
        register(&mut self.driver, cx);
    }

    /// Has the stream wait for what only the driver can give.
    pub(super) fn wait_for_room(&mut self, token: u32, cx: &Context<'_>) {
        register(&mut self.slot(token).writer, cx);
        if !self.waiting.contains(&token) {
            self.waiting.push_back(token);
        }
        self.wake_driver();
    }

    /// Lets one stream go on that waits for room, if there is some now. Returns whether others wait, for whose
    /// sake the driver has to come back.
    pub(super) fn give_room(&mut self) -> bool {
        if self.room() == 0 || !self.protocol.may_send() {
            return false;
        }
        if let Some(token) = self.waiting.pop_front()
            && let Some(slot) = self.slots.get(token as usize)
            && let Some(writer) = &slot.writer
        {
            writer.wake_by_ref();
        }
        !self.waiting.is_empty()
    }

    /// Lets all streams look at their windows.
    pub(super) fn wake_writers(&mut self) {
        for slot in &self.slots {
            if let Some(writer) = &slot.writer {
                writer.wake_by_ref();
            }
        }
    }

    /// The stream must be over by then.
    #[inline]
    pub(super) fn set_deadline(&mut self, token: u32, at: Time) {
        let slot = self.slot(token);
        slot.deadline = at;
        slot.expired = false;
        if at < self.next_look {
            self.wake_driver();
        }
    }

    /// The earliest deadline of all streams.
    pub(super) fn earliest(&self) -> Option<Time> {
        self.slots.iter().filter(|s| s.in_use && !s.expired).map(|s| s.deadline).min()
    }

    /// Wakes the streams whose time is over.
    pub(super) fn expire(&mut self) {
        let now = loop_now();
        for slot in &mut self.slots {
            if slot.in_use && slot.deadline <= now && !slot.expired {
                slot.expired = true;
                slot.wake();
            }
        }
    }

    /// The transport is gone, and with it all streams.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for slot in &mut self.slots {
            if slot.in_use {
                slot.reset = slot.reset.or(Some(ErrorCode::Cancel));
                slot.wake();
            }
        }
    }
}

// === impl Slot ===

impl Slot {
    #[inline]
    pub(super) fn wait_to_read(&mut self, cx: &Context<'_>) {
        register(&mut self.reader, cx);
    }

    #[inline]
    pub(super) fn wait_to_write(&mut self, cx: &Context<'_>) {
        register(&mut self.writer, cx);
    }

    #[inline]
    pub(super) fn wake_reader(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }

    #[inline]
    pub(super) fn wake_writer(&self) {
        if let Some(writer) = &self.writer {
            writer.wake_by_ref();
        }
    }

    fn wake(&self) {
        self.wake_reader();
        self.wake_writer();
    }
}

#[inline]
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}
