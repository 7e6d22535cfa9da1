//! Label selectors (metav1.LabelSelector).
use super::meta::{Labels, Str};

/// One entry of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of the values.
    In(Str, Vec<Str>),
    /// The label is absent or has none of the values.
    NotIn(Str, Vec<Str>),
    /// The label is there.
    Exists(Str),
    /// The label is absent.
    DoesNotExist(Str),
}

/// `matchLabels` (as [`Requirement::In`] with one value) and `matchExpressions`, all of which must hold.
/// The empty selector selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
}

// === impl LabelSelector ===

impl LabelSelector {
    /// Whether labels, looked up by `get`, satisfy the selector.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                get(key).is_some_and(|value| values.iter().any(|wanted| &**wanted == value))
            }
            Requirement::NotIn(key, values) => {
                !get(key).is_some_and(|value| values.iter().any(|wanted| &**wanted == value))
            }
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::DoesNotExist(key) => get(key).is_none(),
        })
    }

    /// Whether `labels` satisfy the selector.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_with(|key| labels.get(key).map(|value| &**value))
    }
}
