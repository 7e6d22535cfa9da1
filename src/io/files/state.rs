//! Small blobs in the state directory, written so that a power cut leaves the old or the new content.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::file::StateBlob;

/// The longest blob that is read back: the state of 10,000 Services takes 1 MB.
const MAX_BLOB_BYTES: u64 = 16 << 20;

/// The stack of the writing thread, which only makes system calls.
const WRITER_STACK: usize = 256 << 10;

/// The state directory. Writing waits for the disk (fsync takes up to seconds on an SD card), so it
/// happens on a thread of its own, which lives as long as there is something to write.
#[derive(Debug, Default)]
pub(super) struct StateDirectory {
    path: PathBuf,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By name: only the newest content of each blob is worth writing. None removes it.
    blobs: BTreeMap<&'static str, Option<Vec<u8>>>,
    is_writing: bool,
}

// === impl StateDirectory ===

impl StateDirectory {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), queue: Arc::default() }
    }

    /// Reads a blob; one that is not there or cannot be read has no content.
    pub(super) fn read(&self, name: &'static str) -> StateBlob {
        let path = self.path.join(name);
        let content = match fs::metadata(&path).map(|metadata| metadata.len()) {
            Ok(length) if length > MAX_BLOB_BYTES => {
                Err(io::Error::other(format!("{length} bytes long; at most {MAX_BLOB_BYTES}")))
            }
            _ => fs::read(&path),
        };
        let content = content
            .inspect_err(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    log::error!("the kept state {} cannot be read: {error}", path.display());
                }
            })
            .ok();
        StateBlob { name, content }
    }

    /// Writes a blob soon.
    pub(super) fn save(&self, blob: StateBlob) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.blobs.insert(blob.name, blob.content);
        if queue.is_writing {
            return;
        }
        queue.is_writing = true;
        drop(queue);
        let (shared, path) = (Arc::clone(&self.queue), self.path.clone());
        let thread = std::thread::Builder::new().name("state".into()).stack_size(WRITER_STACK);
        if let Err(error) = thread.spawn(move || write_all(&shared, &path)) {
            log::error!("no thread for writing the state: {error}");
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_writing = false;
        }
    }
}

fn write_all(queue: &Mutex<Queue>, directory: &Path) {
    loop {
        let next = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let next = queue.blobs.pop_first();
            queue.is_writing = next.is_some();
            next
        };
        let Some((name, content)) = next else { break };
        if let Err(error) = write(directory, name, content.as_deref()) {
            log::error!(
                "the state {} cannot be kept: {error}; after a restart addresses may be assigned anew",
                directory.join(name).display()
            );
        }
    }
}

fn write(directory: &Path, name: &str, content: Option<&[u8]>) -> io::Result<()> {
    let path = directory.join(name);
    let Some(content) = content else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    // The new name is on the disk only when the directory is.
    File::open(directory)?.sync_all()
}
