//! The bytes of one file → its entries. Documents that are as they were when the file was last read, and where they were,
//! are not parsed again: one changed route among ten thousand costs what one route costs.
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

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
    /// The hashes of the objects in the value that is being decoded, in their order.
    hashes: &'r RefCell<Vec<(ObjectKey, u64)>>,
    known: &'r BTreeMap<ObjectKey, Known>,
    /// Whole documents of the former version that can be taken again.
    former: HashMap<Print, Vec<Entry>>,
    file: File,
    decoded: u64,
}

/// Reads a file whose former version was `old`, of which only those entries remain that are not taken over as they are.
/// `life` tells what is to become of an object with this content. Returns how many documents were decoded as well.
pub(super) fn read(
    name: &Str,
    bytes: &[u8],
    old: &mut File,
    known: &BTreeMap<ObjectKey, Known>,
    life: &dyn Fn(&ObjectKey, u64) -> Life,
) -> (File, u64) {
    let hashes = RefCell::new(Vec::new());
    let noted = |key: &ObjectKey, hash: u64| {
        hashes.borrow_mut().push((key.clone(), hash));
        life(key, hash)
    };
    let context = Context { file: name, life: &noted };
    let former = take_whole_documents(&mut old.entries);
    let file = File::default();
    let mut reader = Reader { name, context, hashes: &hashes, known, former, file, decoded: 0 };
    match text(bytes) {
        Ok(text) => reader.text(text),
        Err(error) => reader.syntax_error(error),
    }
    old.entries.extend(reader.former.into_values().flatten());
    (reader.file, reader.decoded)
}

/// Takes the entries out that are all that was in their document, and in effect as they were written there.
fn take_whole_documents(entries: &mut Vec<Entry>) -> HashMap<Print, Vec<Entry>> {
    let mut whole: HashMap<Print, Vec<Entry>> = HashMap::with_capacity(entries.len());
    let mut rest = Vec::new();
    for entry in std::mem::take(entries) {
        match entry.document {
            Some(print) => whole.entry(print).or_default().push(entry),
            None => rest.push(entry),
        }
    }
    *entries = rest;
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

impl Reader<'_> {
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
                self.file.entries.extend(entries);
                continue;
            }
            self.decoded += 1;
            let (entries, others) = (self.file.entries.len(), self.others());
            match parse_yaml(document) {
                Ok(Some(value)) => self.value(value),
                Ok(None) => {}
                Err(error) => self.syntax_error(error),
            }
            let is_whole = self.others() == others
                && self.file.entries[entries..].iter().all(|entry| entry.object.is_some());
            for entry in self.file.entries[entries..].iter_mut().filter(|_| is_whole) {
                entry.document = Some(print);
            }
        }
    }

    /// The entries of the same document in the former version, if its objects are those in effect: what their generation
    /// is depends on that.
    fn as_before(&mut self, print: Print) -> Option<Vec<Entry>> {
        let in_effect = |entry: &Entry| {
            self.known.get(&entry.key).is_some_and(|known| known.hash == entry.hash)
        };
        if !self.former.get(&print)?.iter().all(in_effect) {
            return None;
        }
        self.former.remove(&print)
    }

    /// How much there is besides entries, which no entry can stand for.
    fn others(&self) -> (usize, u32) {
        (self.file.problems.len(), self.file.skipped.values().sum())
    }

    fn value(&mut self, value: Value) {
        let decoded = decode(value, self.context);
        let mut hashes = std::mem::take(&mut *self.hashes.borrow_mut()).into_iter();
        for decoded in decoded {
            self.decoded(decoded, &mut hashes);
        }
    }

    fn decoded(&mut self, decoded: Decoded, hashes: &mut std::vec::IntoIter<(ObjectKey, u64)>) {
        let Decoded { position, outcome, problems } = decoded;
        let (key, object) = match outcome {
            Outcome::Decoded(key, object) => (key, Some(object)),
            Outcome::Broken(Some(key)) => (key, None),
            Outcome::Broken(None) => {
                self.file.has_unknown = true;
                self.file.problems.extend(problems);
                return;
            }
            Outcome::Skipped(kind) => {
                *self.file.skipped.entry(kind).or_default() += 1;
                self.file.problems.extend(problems);
                return;
            }
        };
        // Broken ones may have no hash; those that are whole have.
        let of_this = |(hashed, _): &(ObjectKey, u64)| *hashed == key;
        let hash = object.as_ref().and_then(|_| hashes.find(of_this)).map_or(0, |(_, hash)| hash);
        self.file.entries.push(Entry {
            key,
            hash,
            document: None,
            position,
            object,
            is_stale: false,
            is_leftover: false,
            problems,
        });
    }

    fn syntax_error(&mut self, error: SyntaxError) {
        self.file.has_unknown = true;
        let SyntaxError { mark, message } = error;
        let file = Str::clone(self.name);
        let position = Some(Position { file, line: mark.line, column: mark.column });
        let field = String::new();
        let severity = Severity::Error;
        self.file.problems.push(Problem { position, object: None, field, message, severity });
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
