//! Static manifests: file contents in, one snapshot of all objects out.
//!
//! Each object stands alone: a broken one is left out, or its last good version kept where there is one,
//! and all others are applied. A batch of file changes becomes one snapshot, so a half-applied
//! configuration is never visible. Files that did not change are not parsed again, objects that did not
//! change keep their [`Arc`], and kinds that did not change keep their table.
mod merge;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use read::Read;

use crate::api::address::Generation;
use crate::api::file::{FileState, Files};
use crate::api::meta::{ObjectKey, Position, Str};
use crate::api::objects::Objects;
use crate::api::problem::{Problem, Severity};
use crate::api::status::Statuses;
use crate::api::{Message, wiring};
use crate::arrange::{Arrange, Gather};
use crate::kernel::{Outbox, Server, ServerId, Time};
use crate::proto::object::{Life, Object};

/// What one file held when it was last read.
#[derive(Debug, Default)]
struct File {
    entries: Vec<Entry>,
    /// Complaints that belong to no entry: syntax errors, what is not supported.
    problems: Vec<Problem>,
    skipped: BTreeMap<String, u32>,
    /// Why it could not be read the last time, if so; then the rest is from before.
    unreadable: Option<String>,
    /// Whether a document could not be read so far as to know which object it is.
    has_unknown: bool,
}

/// One object of a file.
#[derive(Debug, Clone)]
struct Entry {
    key: ObjectKey,
    /// What was known of it when it was decoded, if it is not broken.
    life: Option<Known>,
    /// The document whose entries are all good, this one included.
    document: Option<read::Print>,
    position: Position,
    /// None: it is broken and there is no version from before.
    object: Option<Object>,
    /// It is broken (or its document is) and `object` is the last good version.
    is_stale: bool,
    /// It was in a document that cannot be read now; a definition elsewhere goes first.
    is_leftover: bool,
    problems: Vec<Problem>,
}

/// What is remembered of an object as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    hash: u64,
    life: Life,
}

/// The server.
#[derive(Debug, Default)]
pub struct Manifests {
    unix_at_zero: Duration,
    files: BTreeMap<PathBuf, File>,
    missing: Vec<(PathBuf, String)>,
    known: BTreeMap<ObjectKey, Known>,
    /// What was last sent; None before the first complete reading.
    sent: Option<Arc<Objects>>,
    problems: Vec<Problem>,
    decoded: u64,
}

/// Decodes files that are all there is, as `pilus check` does. The problems are those of the decoding;
/// whether objects fit together is for the other servers to say. They are in the order of the files.
pub fn check(files: &[(PathBuf, Result<Vec<u8>, String>)]) -> (Objects, Vec<Problem>) {
    let state = |result: &Result<Vec<u8>, String>| match result {
        Ok(bytes) => FileState::Content(Arc::from(bytes.as_slice())),
        Err(reason) => FileState::Unreadable(reason.clone()),
    };
    let mut server = Manifests::default();
    // Without a clock: creationTimestamp is left out.
    let files = Files {
        changes: files.iter().map(|(path, result)| (path.clone(), state(result))).collect(),
        missing_directories: Vec::new(),
        complete: true,
    };
    server.apply(&files, 0);
    let objects = server.sent.as_deref().cloned().unwrap_or_default();
    (objects, server.problems)
}

// === impl Manifests ===

impl Manifests {
    /// A server that has read nothing yet. `unix_at_zero` is what the clock of the day showed (since 1970)
    /// at [`Time::ZERO`]: objects are as old as their first reading.
    pub fn new(unix_at_zero: Duration) -> Self {
        Self { unix_at_zero, ..Self::default() }
    }

    /// How many YAML documents were decoded since the start; for tests that count work instead of time.
    pub const fn decoded(&self) -> u64 {
        self.decoded
    }

    /// Takes a batch of changes, read in the second `read_at` since 1970; returns whether the objects and
    /// whether the problems are others now.
    fn apply(&mut self, files: &Files, read_at: u64) -> (bool, bool) {
        for (path, state) in &files.changes {
            self.apply_file(path, state, read_at);
        }
        if files.complete {
            let named: BTreeSet<&PathBuf> = files.changes.iter().map(|(path, _)| path).gather();
            let missing = &files.missing_directories;
            let is_missing = |path: &Path| missing.iter().any(|(dir, _)| path.starts_with(dir));
            self.files.retain(|path, _| named.contains(path) || is_missing(path));
        }
        self.missing.clone_from(&files.missing_directories);
        let old = self.sent.as_deref().cloned().unwrap_or_default();
        let merged = merge::merge(&self.files, &old);
        self.known.retain(|key, _| merged.first.contains_key(key));
        let problems = self.problems(merged.problems);
        let problems_changed = self.sent.is_none() || problems != self.problems;
        self.problems = problems;
        let objects_changed = self.sent.is_none() || merged.changed;
        if objects_changed {
            let generation = Generation(old.generation.0 + 1);
            self.sent = Some(Arc::new(Objects { generation, ..merged.objects }));
        }
        (objects_changed, problems_changed)
    }

    fn apply_file(&mut self, path: &Path, state: &FileState, read_at: u64) {
        match state {
            FileState::Removed => {
                self.files.remove(path);
            }
            FileState::Unreadable(reason) => {
                self.files.entry(path.to_owned()).or_default().unreadable = Some(reason.clone());
            }
            FileState::Content(bytes) => {
                let name: Str = path.to_string_lossy().into();
                let known = &self.known;
                let life =
                    |key: &ObjectKey, hash: u64| next_life(known.get(key), hash, read_at).life;
                let old = self.files.remove(path).unwrap_or_default();
                let Read { file, decoded, keys } = read::read(&name, bytes, &old, known, &life);
                self.decoded += decoded;
                self.note_lives(&file, read_at);
                let file = self.keep_last_good(file, old, &keys);
                self.files.insert(path.to_owned(), file);
            }
        }
    }

    /// Remembers what the generations count. A broken version is not in effect, so it does not count as a change; nor
    /// does a second definition.
    fn note_lives(&mut self, file: &File, read_at: u64) {
        let mut seen = BTreeSet::new();
        for entry in file.entries.iter().filter(|entry| entry.object.is_some()) {
            let (known, Some(life)) = (self.known.get(&entry.key), entry.life) else { continue };
            if seen.insert(&entry.key) && known != Some(&life) {
                let known = next_life(known, life.hash, read_at);
                self.known.insert(entry.key.clone(), known);
            }
        }
    }

    /// Gives broken entries the version from before, unchanged entries their old [`Arc`], and takes over
    /// the objects of documents that cannot be read at present. `decoded` are the objects that were not taken over.
    fn keep_last_good(&self, mut file: File, old: File, decoded: &BTreeSet<ObjectKey>) -> File {
        // What was taken over is as it was, and need not be looked up.
        let matters = |entry: &Entry| file.has_unknown || decoded.contains(&entry.key);
        let entries = old.entries.into_iter().rev().filter(matters);
        let mut before: BTreeMap<ObjectKey, Entry> =
            entries.map(|entry| (entry.key.clone(), entry)).gather();
        for entry in &mut file.entries {
            let last = match before.remove(&entry.key) {
                Some(old) => old.object,
                None if entry.object.is_none() => self.object_elsewhere(&entry.key),
                None => None,
            };
            match (&entry.object, last) {
                (Some(new), Some(last)) if *new == last => entry.object = Some(last),
                (None, Some(last)) => {
                    entry.object = Some(last);
                    entry.is_stale = true;
                }
                _ => {}
            }
        }
        if file.has_unknown {
            let leftovers = before.into_values().filter(|entry| entry.object.is_some());
            let entries_before = file.entries.len();
            for mut entry in leftovers {
                entry.is_stale = true;
                entry.is_leftover = true;
                entry.document = None;
                entry.problems.clear();
                file.entries.push(entry);
            }
            let has_leftovers = file.entries.len() > entries_before;
            for problem in file.problems.iter_mut().filter(|_| has_leftovers) {
                if problem.severity == Severity::Error {
                    problem
                        .message
                        .push_str("; objects of before that are not found now stay as they were");
                }
            }
        }
        file
    }

    /// The object as another file has it: a broken one may have been moved here.
    fn object_elsewhere(&self, key: &ObjectKey) -> Option<Object> {
        let entries = self.files.values().flat_map(|file| &file.entries);
        entries.filter(|entry| entry.key == *key).find_map(|entry| entry.object.clone())
    }

    /// All problems, sorted by place.
    fn problems(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        for (path, reason) in &self.missing {
            let message =
                format!("cannot be read: {reason}; its objects stay as they were until it is back");
            problems.push(file_problem(path, message));
        }
        for (path, file) in &self.files {
            if let Some(reason) = &file.unreadable {
                let kept =
                    if file.entries.is_empty() { "" } else { "; its objects stay as they were" };
                problems.push(file_problem(path, format!("cannot be read: {reason}{kept}")));
            }
            problems.extend(file.problems.iter().cloned());
            for entry in &file.entries {
                let kept = |mut problem: Problem| {
                    if entry.is_stale && problem.severity == Severity::Error {
                        problem.message.push_str("; its last good version stays in effect");
                    }
                    problem
                };
                problems.extend(entry.problems.iter().cloned().map(kept));
            }
        }
        problems.arrange();
        problems.dedup();
        problems
    }

    fn send_objects(&self, out: &mut Outbox<Message>) {
        if let Some(objects) = &self.sent {
            out.send(wiring::STORE, Message::Source(Arc::clone(objects)));
        }
    }

    fn send_problems(&self, out: &mut Outbox<Message>) {
        let statuses = Statuses { problems: self.problems.clone(), ..Statuses::default() };
        out.send(wiring::STORE, Message::Statuses(Arc::new(statuses)));
    }
}

fn next_life(known: Option<&Known>, hash: u64, read_at: u64) -> Known {
    let life = match known {
        None => Life { generation: 1, created: read_at },
        Some(known) if known.hash == hash => known.life,
        Some(known) => Life { generation: known.life.generation + 1, ..known.life },
    };
    Known { hash, life }
}

fn file_problem(path: &Path, message: String) -> Problem {
    let file = path.to_string_lossy().into();
    let position = Some(Position { file, line: 1, column: 1 });
    Problem { position, object: None, field: String::new(), message, severity: Severity::Error }
}

impl Server<Message> for Manifests {
    fn handle(&mut self, now: Time, from: ServerId, message: Message, out: &mut Outbox<Message>) {
        let Message::Files(files) = message else {
            debug_assert!(false, "{from:?} sent something that is not files");
            return;
        };
        let read_at = (self.unix_at_zero + now.since(Time::ZERO)).as_secs();
        let (objects, problems) = self.apply(&files, read_at);
        if objects {
            self.send_objects(out);
        }
        if problems {
            self.send_problems(out);
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, out: &mut Outbox<Message>) {
        if peer == wiring::STORE && self.sent.is_some() {
            self.send_objects(out);
            self.send_problems(out);
        }
    }
}

#[cfg(test)]
mod tests;
