//! The bytes of one file → its entries.
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Entry, File};
use crate::api::file::MAX_FILE_BYTES;
use crate::api::meta::{ObjectKey, Position, Str};
use crate::api::problem::{Problem, Severity};
use crate::proto::object::{Context, Decoded, Life, Outcome, decode};
use crate::proto::value::{
    Mark, SyntaxError, Value, parse_json_stream, parse_yaml, split_documents,
};

struct Reader<'r> {
    name: &'r Str,
    context: Context<'r>,
    file: File,
}

/// Reads a file. The content hash of each object goes into `hashes`.
pub(super) fn read(
    name: &Str,
    bytes: &[u8],
    life: &dyn Fn(&ObjectKey, u64) -> Life,
    hashes: &mut BTreeMap<ObjectKey, u64>,
) -> File {
    let seen = RefCell::new(hashes);
    let noted = |key: &ObjectKey, hash: u64| {
        seen.borrow_mut().entry(key.clone()).or_insert(hash);
        life(key, hash)
    };
    let context = Context { file: name, served: false, life: &noted };
    let mut reader = Reader { name, context, file: File::default() };
    match text(bytes) {
        Ok(text) => reader.text(text),
        Err(error) => reader.syntax_error(error),
    }
    reader.file
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
            match parse_yaml(document) {
                Ok(Some(value)) => self.value(value),
                Ok(None) => {}
                Err(error) => self.syntax_error(error),
            }
        }
    }

    fn value(&mut self, value: Value) {
        for decoded in decode(value, self.context) {
            self.decoded(decoded);
        }
    }

    fn decoded(&mut self, decoded: Decoded) {
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
        self.file.entries.push(Entry {
            key,
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
