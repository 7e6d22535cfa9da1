//! Driver: the files of the manifest directories, watched, and the blobs of the state directory.
//!
//! Read are `*.yaml`, `*.yml` and `*.json` directly in the directories given (not in subdirectories), or
//! single files. A change is handed on a few milliseconds after its last sign, so that several files
//! written together arrive together, and at the latest [`LONGEST_WAIT`] after its first.
mod scan;
mod state;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::inotify::{Event, Inotify, WatchId};
use super::reactor::Timer;
use super::{clock, event_loop};
use crate::api::config::Config;
use crate::api::file::{self, FileState, StateBlob};
use crate::api::{Message, wiring};
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};
use scan::Seen;
pub use scan::{MAX_FILES, ReadFile, read_once};
use state::StateDirectory;

/// How long it must be quiet before changes are handed on.
pub const QUIET: Duration = Duration::from_millis(5);
/// How long a change waits at most while others keep coming.
pub const LONGEST_WAIT: Duration = Duration::from_millis(25);
/// How often everything is looked at without a sign: inotify does not see what happens behind a link or
/// on a network file system.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// The same while a directory is missing or cannot be watched.
const LOOK_AROUND_SOON: Duration = Duration::from_secs(1);

/// The driver. It must be built on the thread of the event loop.
pub struct Files {
    shared: Rc<RefCell<Directories>>,
    mailer: Mailer<Message>,
    state: StateDirectory,
    blobs: &'static [(&'static str, ServerId)],
    watcher: Option<smol::Task<()>>,
    check_watcher_at: Time,
}

/// The manifest directories as they were last seen.
#[derive(Default)]
struct Directories {
    sources: Vec<PathBuf>,
    known: BTreeMap<PathBuf, Seen>,
    missing: Vec<(PathBuf, String)>,
    named_subdirectories: BTreeSet<PathBuf>,
    watches: BTreeMap<WatchId, BTreeSet<PathBuf>>,
    unwatched: BTreeSet<PathBuf>,
    /// A batch was refused: the next one must hold everything.
    is_resend_due: bool,
}

/// What the signs so far ask for.
#[derive(Default, Debug, PartialEq, Eq)]
struct Signs {
    /// These files are read again.
    files: BTreeSet<PathBuf>,
    /// Everything is compared with what was last seen.
    everything: bool,
}

// === impl Files ===

impl Files {
    /// A driver for the directories of `config`. `blobs` says who is told about which blob of the state
    /// directory.
    pub fn new(
        config: &Config,
        blobs: &'static [(&'static str, ServerId)],
        mailer: Mailer<Message>,
    ) -> Self {
        let directories =
            Directories { sources: config.manifests.clone(), ..Directories::default() };
        Self {
            shared: Rc::new(RefCell::new(directories)),
            mailer,
            state: StateDirectory::new(&config.state_dir),
            blobs,
            watcher: None,
            check_watcher_at: Time::ZERO,
        }
    }

    fn restore(&self, owner: Option<ServerId>, out: &mut Outbox<Message>) {
        for (name, to) in self.blobs {
            if owner.is_none_or(|owner| owner == *to) {
                out.send(*to, Message::Restored(self.state.read(name)));
            }
        }
    }
}

impl Server<Message> for Files {
    fn start(&mut self, now: Time, out: &mut Outbox<Message>) {
        let inotify = Inotify::new()
            .inspect_err(|error| log::warn!("manifests are polled, not watched: {error}"))
            .ok();
        let mut directories = self.shared.borrow_mut();
        // First watch, then read: what changes in between is seen twice rather than never.
        directories.watch_all(inotify.as_ref());
        let files = directories.read_all();
        out.send(wiring::MANIFESTS, Message::Files(std::sync::Arc::new(files)));
        self.restore(None, out);
        if !directories.sources.is_empty() {
            let watching = watch(Rc::clone(&self.shared), inotify, self.mailer.clone());
            self.watcher = Some(event_loop::spawn(watching));
            self.check_watcher_at = now + LOOK_AROUND;
        }
    }

    fn timeout(&self) -> Option<Time> {
        self.watcher.as_ref().map(|_| self.check_watcher_at)
    }

    /// A task that panics dies alone and unnoticed; this driver dies with it and is built again.
    fn tick(&mut self, now: Time, _out: &mut Outbox<Message>) {
        let is_dead = self.watcher.as_ref().is_some_and(smol::Task::is_finished);
        assert!(!is_dead, "the task that watches the manifests has died");
        self.check_watcher_at = now + LOOK_AROUND;
    }

    fn handle(&mut self, _now: Time, from: ServerId, message: Message, _out: &mut Outbox<Message>) {
        match message {
            Message::Save(StateBlob { name, content }) => {
                self.state.save(StateBlob { name, content });
            }
            _ => debug_assert!(false, "{from:?} sent something that is not a blob"),
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if peer == wiring::MANIFESTS {
            let files = self.shared.borrow_mut().read_all();
            out.send(peer, Message::Files(std::sync::Arc::new(files)));
        }
        self.restore(Some(peer), out);
    }
}

/// The task that waits for signs.
async fn watch(
    shared: Rc<RefCell<Directories>>,
    mut inotify: Option<Inotify>,
    mailer: Mailer<Message>,
) {
    loop {
        let pause = shared.borrow().look_around_after(inotify.is_some());
        let mut signs = Signs::default();
        if sign(inotify.as_ref(), clock::now() + pause).await {
            let first = clock::now();
            loop {
                let events = inotify.as_mut().map(Inotify::events).unwrap_or_default();
                shared.borrow().understand(&events, &mut signs);
                let until = (clock::now() + QUIET).min(first + LONGEST_WAIT);
                if clock::now() >= until || !sign(inotify.as_ref(), until).await {
                    break;
                }
            }
        } else {
            signs.everything = true;
        }
        shared.borrow_mut().hand_on(&signs, inotify.as_ref(), &mailer);
    }
}

/// Waits for a sign, at most until `until`; whether there was one.
async fn sign(inotify: Option<&Inotify>, until: Time) -> bool {
    let timeout = async {
        Timer::at(until).await;
        false
    };
    match inotify {
        None => timeout.await,
        Some(inotify) => {
            let signal = async {
                inotify.readable().await;
                true
            };
            smol::future::or(signal, timeout).await
        }
    }
}

// === impl Directories ===

impl Directories {
    fn look_around_after(&self, has_inotify: bool) -> Duration {
        let is_watched = has_inotify && self.unwatched.is_empty() && self.missing.is_empty();
        if is_watched && !self.is_resend_due { LOOK_AROUND } else { LOOK_AROUND_SOON }
    }

    /// Watches all sources and their parents: a source that is replaced or made is a change there.
    fn watch_all(&mut self, inotify: Option<&Inotify>) {
        let Some(inotify) = inotify else { return };
        let mut watches: BTreeMap<WatchId, BTreeSet<PathBuf>> = BTreeMap::new();
        let mut unwatched = BTreeSet::new();
        for source in &self.sources {
            let is_directory = source.is_dir();
            for directory in [Some(source.as_path()).filter(|_| is_directory), parent(source)] {
                let Some(directory) = directory else { continue };
                match inotify.watch(directory) {
                    Ok(watch) => {
                        watches.entry(watch).or_default().insert(directory.to_owned());
                    }
                    Err(error) => {
                        if !self.unwatched.contains(directory) && directory.exists() {
                            let path = directory.display();
                            log::warn!("{path} cannot be watched, it is polled: {error}");
                        }
                        unwatched.insert(directory.to_owned());
                    }
                }
            }
        }
        for old in self.watches.keys().filter(|old| !watches.contains_key(old)) {
            inotify.forget(*old);
        }
        self.watches = watches;
        self.unwatched = unwatched;
    }

    /// What events ask for.
    fn understand(&self, events: &[Event], signs: &mut Signs) {
        for event in events {
            if event.mask & (libc::IN_Q_OVERFLOW | libc::IN_IGNORED | libc::IN_UNMOUNT) != 0
                || event.name.is_empty()
            {
                signs.everything = true;
                continue;
            }
            for directory in self.watches.get(&event.watch).into_iter().flatten() {
                self.understand_name(event, &directory.join(&event.name), directory, signs);
            }
        }
    }

    fn understand_name(&self, event: &Event, path: &Path, directory: &Path, signs: &mut Signs) {
        let same = |source: &Path| {
            source == path
                || (parent(source) == Some(directory) && source.file_name() == path.file_name())
        };
        if let Some(source) = self.sources.iter().find(|source| same(source)) {
            // A single file that was written is read; a directory that came or went is looked through.
            if event.mask & libc::IN_CLOSE_WRITE != 0 {
                signs.files.insert(source.clone());
            } else if !is_being_written(event, path) {
                signs.everything = true;
            }
            return;
        }
        if !self.sources.iter().any(|source| source == directory) {
            return;
        }
        if event.name.as_encoded_bytes().starts_with(b"..") {
            // Kubernetes swaps the link `..data` when a mounted ConfigMap changes.
            signs.everything = true;
        } else if scan::is_manifest(path) && !is_being_written(event, path) {
            signs.files.insert(path.to_owned());
        }
    }

    /// Reads what the signs name, and sends what has changed.
    fn hand_on(&mut self, signs: &Signs, inotify: Option<&Inotify>, mailer: &Mailer<Message>) {
        let missing_before = self.missing.clone();
        let files = if self.is_resend_due {
            self.watch_all(inotify);
            self.read_all()
        } else {
            let mut changes = BTreeMap::new();
            if signs.everything {
                self.watch_all(inotify);
                self.compare_all(&mut changes);
            }
            for path in &signs.files {
                self.read_again(path, &mut changes);
            }
            self.batch(changes, false)
        };
        if files.changes.is_empty() && !files.complete && self.missing == missing_before {
            return;
        }
        let is_sent = mailer.send(wiring::MANIFESTS, Message::Files(std::sync::Arc::new(files)));
        self.is_resend_due = !is_sent;
    }

    /// Reads everything anew.
    fn read_all(&mut self) -> file::Files {
        let kept = std::mem::take(&mut self.known);
        let mut changes = BTreeMap::new();
        let listing = self.look();
        for path in listing.files.keys() {
            self.read_again(path, &mut changes);
        }
        for (path, seen) in kept {
            if self.is_in_missing(&path) {
                self.known.entry(path).or_insert(seen);
            }
        }
        self.batch(changes, true)
    }

    /// Reads the files whose stamp has changed, and notes those that are gone.
    fn compare_all(&mut self, changes: &mut BTreeMap<PathBuf, FileState>) {
        let listing = self.look();
        for (path, seen) in &listing.files {
            if self.known.get(path) != Some(seen) {
                self.read_again(path, changes);
            }
        }
        let gone: Vec<PathBuf> = self
            .known
            .keys()
            .filter(|path| !listing.files.contains_key(*path) && !self.is_in_missing(path))
            .cloned()
            .collect();
        for path in gone {
            self.known.remove(&path);
            changes.insert(path, FileState::Removed);
        }
    }

    fn look(&mut self) -> scan::Listing {
        let listing = scan::list(&self.sources);
        for (path, reason) in &listing.missing {
            if !self.missing.iter().any(|(known, _)| known == path) {
                log::error!("manifests: {} cannot be read: {reason}", path.display());
            }
        }
        for (path, _) in &self.missing {
            if !listing.missing.iter().any(|(missing, _)| missing == path) {
                log::info!("manifests: {} is back", path.display());
            }
        }
        for path in &listing.subdirectories {
            if self.named_subdirectories.insert(path.clone()) {
                let path = path.display();
                log::warn!("manifests: {path} is a subdirectory; what is in it is not read");
            }
        }
        self.named_subdirectories.retain(|path| listing.subdirectories.contains(path));
        self.missing.clone_from(&listing.missing);
        listing
    }

    fn read_again(&mut self, path: &Path, changes: &mut BTreeMap<PathBuf, FileState>) {
        match scan::read(path) {
            Some((seen, state)) => {
                if let (Err(reason), Some(Ok(_)) | None) = (&seen, self.known.get(path)) {
                    log::error!("manifests: {} cannot be read: {reason}", path.display());
                }
                self.known.insert(path.to_owned(), seen);
                changes.insert(path.to_owned(), state);
            }
            None => {
                // If the whole directory is gone this is no removal.
                let is_removal =
                    parent(path).is_some_and(Path::is_dir) && !self.is_in_missing(path);
                if is_removal && self.known.remove(path).is_some() {
                    changes.insert(path.to_owned(), FileState::Removed);
                }
            }
        }
    }

    fn is_in_missing(&self, path: &Path) -> bool {
        self.missing.iter().any(|(missing, _)| path.starts_with(missing))
    }

    fn batch(&self, changes: BTreeMap<PathBuf, FileState>, complete: bool) -> file::Files {
        file::Files {
            changes: changes.into_iter().collect(),
            missing_directories: self.missing.clone(),
            complete,
        }
    }
}

/// The directory a path is in; `.` for a bare name.
fn parent(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// A regular file was made just now: its writer has yet to close it, which is another event. Links are
/// complete when they are made.
fn is_being_written(event: &Event, path: &Path) -> bool {
    event.mask & libc::IN_CREATE != 0
        && fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.nlink() == 1)
}
