//! Error codes (RFC 9113 section 7) and what ends a connection.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal,)*) => {
        /// Why a stream or a connection ends (RFC 9113 section 7). Codes nobody has defined stand for
        /// `Internal`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name = $value,)*
        }

        impl ErrorCode {
            /// The code of a frame.
            #[must_use]
            pub fn from_wire(code: u32) -> Self {
                match code {
                    $($value => Self::$name,)*
                    _ => Self::Internal,
                }
            }
        }
    };
}

codes! {
    /// No error: a graceful end.
    None = 0,
    /// The peer broke the protocol.
    Protocol = 1,
    /// A failure in the implementation.
    Internal = 2,
    /// More data than the window allowed.
    FlowControl = 3,
    /// SETTINGS were not acknowledged in time.
    SettingsTimeout = 4,
    /// A frame on a stream that had ended.
    StreamClosed = 5,
    /// A frame of an impossible size.
    FrameSize = 6,
    /// The stream was refused before anything was done: it may be tried again.
    RefusedStream = 7,
    /// The stream is not needed any more.
    Cancel = 8,
    /// A header block that is not HPACK.
    Compression = 9,
    /// The tunnel's connection broke.
    Connect = 10,
    /// The peer does what only serves to cause work.
    EnhanceYourCalm = 11,
    /// The transport is not safe enough.
    InadequateSecurity = 12,
    /// HTTP/1.1 must be used.
    Http11Required = 13,
}

/// The connection is broken. GOAWAY with this code has been written: send it, and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError(pub ErrorCode);

/// What is wrong with a frame, by how much of the connection it takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    Connection(ErrorCode),
    Stream(ErrorCode),
}
