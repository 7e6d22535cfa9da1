//! Reading manifest directories.
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::file::{FileState, MAX_FILE_BYTES};

/// How many files are read; four times what the largest installation in mind needs.
pub const MAX_FILES: usize = 40_000;

/// What tells one content of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file as it was last seen: its stamp, or why it cannot be read.
pub(super) type Seen = Result<Stamp, String>;

/// All there is at one moment.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) files: BTreeMap<PathBuf, Seen>,
    pub(super) missing: Vec<(PathBuf, String)>,
    /// Directories in the directories: they are not read.
    pub(super) subdirectories: Vec<PathBuf>,
}

/// Whether a file of this name in a directory is a manifest: YAML or JSON, no dotfile, no backup.
pub(super) fn is_manifest(name: &Path) -> bool {
    let Some(text) = name.file_name().and_then(|name| name.to_str()) else { return false };
    let is_known = [".yaml", ".yml", ".json"].iter().any(|extension| text.ends_with(extension));
    is_known && !text.starts_with(['.', '#', '~'])
}

/// Lists the sources, which are directories or single files. Nothing is opened.
pub(super) fn list(sources: &[PathBuf]) -> Listing {
    let mut listing = Listing::default();
    for source in sources {
        match fs::metadata(source) {
            Ok(metadata) if metadata.is_dir() => list_directory(source, &mut listing),
            Ok(metadata) => {
                listing.files.insert(source.clone(), stamp(&metadata));
            }
            Err(error) => listing.missing.push((source.clone(), reason(&error))),
        }
    }
    listing
}

fn list_directory(directory: &Path, listing: &mut Listing) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            listing.missing.push((directory.to_owned(), reason(&error)));
            return;
        }
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                listing.missing.push((directory.to_owned(), reason(&error)));
                return;
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && !is_manifest(&path) => {
                listing.subdirectories.push(path);
            }
            Ok(metadata) if is_manifest(&path) => {
                listing.files.insert(path, stamp(&metadata));
            }
            // Gone between the two calls; a link that leads nowhere stays and is named.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && fs::symlink_metadata(&path).is_err() => {}
            Err(error) if is_manifest(&path) => {
                let reason = unreadable(&path, &error);
                listing.files.insert(path, Err(reason));
            }
            _ => {}
        }
        if listing.files.len() > MAX_FILES {
            let message = format!("more than {MAX_FILES} files; they are not all read");
            listing.missing.push((directory.to_owned(), message));
            return;
        }
    }
}

fn stamp(metadata: &Metadata) -> Seen {
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Reads one file. None if it is gone.
pub(super) fn read(path: &Path) -> Option<(Seen, FileState)> {
    match try_read(path) {
        Ok((stamp, content)) => Some((Ok(stamp), FileState::Content(content))),
        Err(_)
            if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) =>
        {
            None
        }
        Err(reason) => Some((Err(reason.clone()), FileState::Unreadable(reason))),
    }
}

/// A manifest's path and its content, or why it cannot be read.
pub type ReadFile = (PathBuf, Result<Vec<u8>, String>);

/// Reads directories and files once, by the rules of the watched ones; for `pilus check`. What is missing
/// is among the files, with the reason. Second: directories in directories, which are not read.
pub fn read_once(sources: &[PathBuf]) -> (Vec<ReadFile>, Vec<PathBuf>) {
    let listing = list(sources);
    let mut files: Vec<ReadFile> =
        listing.missing.into_iter().map(|(path, reason)| (path, Err(reason))).collect();
    for path in listing.files.into_keys() {
        match read(&path) {
            Some((_, FileState::Content(content))) => files.push((path, Ok(content.to_vec()))),
            Some((_, FileState::Unreadable(reason))) => files.push((path, Err(reason))),
            Some((_, FileState::Removed)) | None => {}
        }
    }
    (files, listing.subdirectories)
}

fn try_read(path: &Path) -> Result<(Stamp, Arc<[u8]>), String> {
    // Not blocking: a FIFO in the directory must not hold up the loop.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let stamp = stamp(&file.metadata().map_err(|error| reason(&error))?)?;
    if stamp.size > MAX_FILE_BYTES as u64 {
        return Err(format!("{} bytes long; at most {MAX_FILE_BYTES} are read", stamp.size));
    }
    let mut content = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0) + 1);
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| reason(&error))?;
    Ok((stamp, content.into()))
}

/// Why a file that is listed cannot be read.
fn unreadable(path: &Path, error: &io::Error) -> String {
    match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            format!("it is a link to {}, which does not exist", target.display())
        }
        _ => reason(error),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the agent's user read it".to_owned()
        }
        _ => error.to_string(),
    }
}
