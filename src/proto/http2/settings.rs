//! SETTINGS (RFC 9113 section 6.5, RFC 8441 section 3).
use super::error::ErrorCode;
use super::frame::{self, MAX_FRAME_BYTES};
use super::{DEFAULT_WINDOW, Role};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
const ENTRY_BYTES: usize = 6;
/// The largest a window can be.
pub(super) const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What the peer has said about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub(super) header_table_bytes: usize,
    pub(super) max_streams: u32,
    pub(super) initial_window: u32,
    pub(super) max_frame_bytes: usize,
    pub(super) connect_protocol: bool,
}

// === impl PeerSettings ===

impl PeerSettings {
    /// What holds until SETTINGS arrive.
    pub(super) const fn new() -> Self {
        Self {
            header_table_bytes: 4096,
            max_streams: u32::MAX,
            initial_window: DEFAULT_WINDOW,
            max_frame_bytes: MAX_FRAME_BYTES,
            connect_protocol: false,
        }
    }

    /// Takes in the payload of a SETTINGS frame.
    pub(super) fn apply(&mut self, role: Role, payload: &[u8]) -> Result<(), ErrorCode> {
        for entry in payload.chunks(ENTRY_BYTES) {
            let &[a, b, c, d, e, f] = entry else { return Err(ErrorCode::FrameSize) };
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                HEADER_TABLE_SIZE => self.header_table_bytes = value as usize,
                // A server may only say 0.
                ENABLE_PUSH if value > u32::from(role == Role::Server) => {
                    return Err(ErrorCode::Protocol);
                }
                MAX_CONCURRENT_STREAMS => self.max_streams = value,
                INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(ErrorCode::FlowControl),
                INITIAL_WINDOW_SIZE => self.initial_window = value,
                MAX_FRAME_SIZE => match value {
                    0x4000..=0xff_ffff => self.max_frame_bytes = value as usize,
                    _ => return Err(ErrorCode::Protocol),
                },
                ENABLE_CONNECT_PROTOCOL => match value {
                    0 if self.connect_protocol => return Err(ErrorCode::Protocol),
                    0 | 1 => self.connect_protocol = value == 1,
                    _ => return Err(ErrorCode::Protocol),
                },
                // Unknown ones have to be ignored; the limit of the header list is advice.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Appends our own settings.
pub(super) fn write(out: &mut Vec<u8>, role: Role, max_streams: u32, window: u32) {
    let common =
        [(INITIAL_WINDOW_SIZE, window), (MAX_HEADER_LIST_SIZE, super::MAX_HEAD_BYTES as u32)];
    let of_role: &[(u16, u32)] = match role {
        Role::Server => &[(MAX_CONCURRENT_STREAMS, max_streams), (ENABLE_CONNECT_PROTOCOL, 1)],
        Role::Client => &[(ENABLE_PUSH, 0)],
    };
    let length = (common.len() + of_role.len()) * ENTRY_BYTES;
    frame::write_header(out, frame::SETTINGS, 0, 0, length);
    for (id, value) in of_role.iter().chain(&common) {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}
