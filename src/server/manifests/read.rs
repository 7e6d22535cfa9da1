//! The bytes of one file → its entries. Documents that are as they were when the file was last read, and where they were,
//! are not parsed again: one changed route among ten thousand costs what one route costs.
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::{Entry, File, Known};
use crate::api::file::MAX_FILE_BYTES;
use crate::api::meta::{ObjectKey, Position, Str};
use crate::api::problem::{Problem, Severity};
use crate::proto::object::{Context, Decoded, Life, Outcome, decode};
use crate::proto::value::{
    Document, Mark, SyntaxError, Value, parse_json_stream, parse_yaml, split_documents,
};

/// What a document is known by: its text and its place, for objects know the lines of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Print {
    hash: u64,
    length: usize,
    lines_before: u32,
}

struct Reader<'r> {
    name: &'r Str,
    context: Context<'r>,
    /// The objects in the value that is being decoded, in their order.
    lives: &'r RefCell<Vec<(ObjectKey, Known)>>,
    known: &'r BTreeMap<ObjectKey, Known>,
    /// The former version, and where in it the entries of whole documents are.
    old: &'r File,
    former: HashMap<Print, Range<usize>>,
    done: Read,
}

/// What became of a file.
#[derive(Default)]
pub(super) struct Read {
    pub(super) file: File,
    /// How many documents were decoded.
    pub(super) decoded: u64,
    /// The objects that were in them, so far as they are known.
    pub(super) keys: BTreeSet<ObjectKey>,
}

/// Reads a file whose former version was `old`. `life` tells what is to become of an object with this content.
pub(super) fn read(
    name: &Str,
    bytes: &[u8],
    old: &File,
    known: &BTreeMap<ObjectKey, Known>,
    life: &dyn Fn(&ObjectKey, u64) -> Life,
) -> Read {
    let lives = RefCell::new(Vec::new());
    let noted = |key: &ObjectKey, hash: u64| {
        let life = life(key, hash);
        lives.borrow_mut().push((key.clone(), Known { hash, life }));
        life
    };
    let context = Context { file: name, served: false, life: &noted };
    let former = whole_documents(&old.entries);
    let done = Read::default();
    let mut reader = Reader { name, context, lives: &lives, known, old, former, done };
    match text(bytes) {
        Ok(text) => reader.text(text),
        Err(error) => reader.syntax_error(error),
    }
    reader.done
}

/// Where the entries are that are all that was in their document, and in effect as they were written there.
fn whole_documents(entries: &[Entry]) -> HashMap<Print, Range<usize>> {
    let mut whole: HashMap<Print, Range<usize>> = HashMap::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        if let Some(print) = entry.document {
            whole.entry(print).or_insert(at..at).end = at + 1;
        }
    }
    whole
}

fn text(bytes: &[u8]) -> Result<&str, SyntaxError> {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("{} bytes; at most {MAX_FILE_BYTES} are read", bytes.len());
        return Err(SyntaxError { mark: Mark { line: 1, column: 1 }, message });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let lines = before.iter().filter(|&&byte| byte == b'\n').count();
        let line = u32::try_from(lines + 1).unwrap_or(u32::MAX);
        let mark = Mark { line, column: 1 };
        SyntaxError { mark, message: "not UTF-8 text".to_owned() }
    })
}

// === impl Reader ===

impl<'r> Reader<'r> {
    fn text(&mut self, text: &str) {
        if self.name.ends_with(".json") {
            let (values, error) = parse_json_stream(text.trim_start_matches('\u{feff}'));
            values.into_iter().for_each(|value| self.value(value));
            if let Some(error) = error {
                self.syntax_error(error);
            }
            return;
        }
        for document in split_documents(text) {
            let print = Print::of(document);
            if let Some(entries) = self.as_before(print) {
                self.done.file.entries.extend_from_slice(entries);
                continue;
            }
            self.done.decoded += 1;
            let (entries, others) = (self.done.file.entries.len(), self.others());
            match parse_yaml(document) {
                Ok(Some(value)) => self.value(value),
                Ok(None) => {}
                Err(error) => self.syntax_error(error),
            }
            let is_whole = self.others() == others
                && self.done.file.entries[entries..].iter().all(|entry| entry.object.is_some());
            for entry in self.done.file.entries[entries..].iter_mut().filter(|_| is_whole) {
                entry.document = Some(print);
            }
        }
    }

    /// The entries of the same document in the former version, if its objects are those in effect: what their generation
    /// is depends on that.
    fn as_before(&self, print: Print) -> Option<&'r [Entry]> {
        let entries = &self.old.entries[self.former.get(&print)?.clone()];
        let in_effect = |entry: &Entry| self.known.get(&entry.key) == entry.life.as_ref();
        entries.iter().all(in_effect).then_some(entries)
    }

    /// How much there is besides entries, which no entry can stand for.
    fn others(&self) -> (usize, u32) {
        (self.done.file.problems.len(), self.done.file.skipped.values().sum())
    }

    fn value(&mut self, value: Value) {
        let decoded = decode(value, self.context);
        let mut lives = std::mem::take(&mut *self.lives.borrow_mut()).into_iter();
        for decoded in decoded {
            self.decoded(decoded, &mut lives);
        }
    }

    fn decoded(&mut self, decoded: Decoded, lives: &mut std::vec::IntoIter<(ObjectKey, Known)>) {
        let Decoded { position, outcome, problems } = decoded;
        let (key, object) = match outcome {
            Outcome::Decoded(key, object) => (key, Some(object)),
            Outcome::Broken(Some(key)) => (key, None),
            Outcome::Broken(None) => {
                self.done.file.has_unknown = true;
                self.done.file.problems.extend(problems);
                return;
            }
            Outcome::Skipped(kind) => {
                *self.done.file.skipped.entry(kind).or_default() += 1;
                self.done.file.problems.extend(problems);
                return;
            }
        };
        self.done.keys.insert(key.clone());
        // Broken ones may have none; those that are whole have.
        let of_this = |(known, _): &(ObjectKey, Known)| *known == key;
        let life = object.as_ref().and_then(|_| lives.find(of_this)).map(|(_, life)| life);
        self.done.file.entries.push(Entry {
            key,
            life,
            document: None,
            position,
            object,
            is_stale: false,
            is_leftover: false,
            problems,
        });
    }

    fn syntax_error(&mut self, error: SyntaxError) {
        self.done.file.has_unknown = true;
        let SyntaxError { mark, message } = error;
        let file = Str::clone(self.name);
        let position = Some(Position { file, line: mark.line, column: mark.column });
        let field = String::new();
        let severity = Severity::Error;
        self.done.file.problems.push(Problem { position, object: None, field, message, severity });
    }
}

// === impl Print ===

impl Print {
    fn of(document: Document<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        document.text.hash(&mut hasher);
        let Document { text, lines_before } = document;
        Self { hash: hasher.finish(), length: text.len(), lines_before }
    }
}
