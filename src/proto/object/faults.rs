//! Collecting the complaints about one object.
use crate::api::meta::{ObjectKey, Position, Str};
use crate::api::problem::{Problem, Severity};
use crate::arrange::Arrange;
use crate::proto::value::Mark;

/// How many complaints about one object are kept; who has more than this wrong does not need the rest.
pub const MAX_PROBLEMS: usize = 64;

/// The longest word for which a similar one is looked up.
const LONGEST_WORD: usize = 64;

/// The complaints about one object so far.
pub(super) struct Faults {
    file: Str,
    /// It comes from an API server: there are no lines to point to.
    served: bool,
    /// It is of a kind of Kubernetes itself, checked and completed by the API server: fields that are not known here belong
    /// to a newer version, and those without effect were often not written by a person.
    pub(super) lenient: bool,
    problems: Vec<Problem>,
    errors: bool,
}

/// A place in `file`.
pub(super) fn position(file: &Str, mark: Mark) -> Position {
    Position { file: Str::clone(file), line: mark.line, column: mark.column }
}

// === impl Faults ===

impl Faults {
    pub(super) fn new(context: super::Context<'_>) -> Self {
        let super::Context { file, served, .. } = context;
        Self { file: Str::clone(file), served, lenient: false, problems: Vec::new(), errors: false }
    }

    /// The object is not in effect because of `field`, written at `mark`.
    pub(super) fn error(
        &mut self,
        mark: Mark,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.errors = true;
        self.push(mark, field.into(), message.into(), Severity::Error);
    }

    /// `field`, written at `mark`, is probably not what was meant.
    pub(super) fn warn(
        &mut self,
        mark: Mark,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.push(mark, field.into(), message.into(), Severity::Warning);
    }

    pub(super) const fn has_errors(&self) -> bool {
        self.errors
    }

    /// All complaints, in the order of the text, as complaints about `object`.
    pub(super) fn finish(mut self, object: Option<&ObjectKey>) -> Vec<Problem> {
        for problem in &mut self.problems {
            problem.object = object.cloned();
        }
        self.problems.arrange();
        self.problems.dedup();
        self.problems
    }

    fn push(&mut self, mark: Mark, field: String, message: String, severity: Severity) {
        // An error must not be lost behind many warnings.
        if self.problems.len() < MAX_PROBLEMS
            || (severity == Severity::Error
                && self.problems.iter().all(|problem| problem.severity == Severity::Warning))
        {
            let position = (!self.served).then(|| position(&self.file, mark));
            self.problems.push(Problem { position, object: None, field, message, severity });
        }
    }
}

/// The candidate nearest to `word`, if it is near enough to be a typing error.
pub fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if word.len() > LONGEST_WORD {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let near = (word.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST_WORD)
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= near)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Damerau's edit distance (optimal string alignment), in bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replace = last[j] + usize::from(a[i] != b[j]);
            let mut best = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
