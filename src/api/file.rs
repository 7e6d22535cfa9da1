//! Files of the manifest directories and of the state directory, as the io side hands them over.
use std::path::PathBuf;
use std::sync::Arc;

/// The longest manifest file that is read. 10,000 Ingresses take 5 MB; what is longer is no manifest, and
/// would hold up everything else while it is parsed.
pub const MAX_FILE_BYTES: usize = 16 << 20;

/// What is known of one file after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// Its whole content.
    Content(Arc<[u8]>),
    /// It is gone.
    Removed,
    /// It is there and cannot be read: the reason.
    Unreadable(String),
}

/// A batch of changes; applied as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Path and state, sorted by path.
    pub changes: Vec<(PathBuf, FileState)>,
    /// Directories that cannot be read at present, with the reason. Their files keep their last state:
    /// a directory that disappears takes nothing with it until it is back.
    pub missing_directories: Vec<(PathBuf, String)>,
    /// Whether this is the complete first reading (sent once, and after a restart of the receiver).
    pub complete: bool,
}

/// A small named blob in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateBlob {
    /// File name without a directory.
    pub name: &'static str,
    /// Content; None if there is no such file.
    pub content: Option<Vec<u8>>,
}
