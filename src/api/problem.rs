//! What is wrong, for whom, and where: one shape for every complaint.
use std::fmt;

use super::meta::{ObjectKey, Position};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The object (or the part named) is not in effect.
    Error,
    /// It is in effect, and probably not what was meant.
    Warning,
}

/// One complaint. Printed as `file:line:column: Kind ns/name: field.path: message`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Where it is written, if in a file.
    pub position: Option<Position>,
    /// The object, unless the file could not be read so far.
    pub object: Option<ObjectKey>,
    /// The path of the field, such as `spec.rules[0].http.paths[1].pathType`; may be empty.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
