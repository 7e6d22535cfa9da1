//! What is wrong with a part of an object, as a condition says it.
use crate::api::meta::Str;
use crate::api::status::{Condition, Truth};

pub(super) const ACCEPTED: &str = "Accepted";
pub(super) const PROGRAMMED: &str = "Programmed";
pub(super) const RESOLVED_REFS: &str = "ResolvedRefs";
pub(super) const CONFLICTED: &str = "Conflicted";

/// Why a condition is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server::route) struct Fault {
    /// One of the words of Gateway API.
    pub(super) reason: &'static str,
    /// A sentence that names what is wrong.
    pub(super) message: String,
}

// === impl Fault ===

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

pub(super) fn condition(
    kind: &'static str,
    status: bool,
    reason: &str,
    message: impl Into<String>,
) -> Condition {
    let status = if status { Truth::True } else { Truth::False };
    Condition { kind, status, reason: Str::from(reason), message: message.into() }
}

/// True with the kind's own name as its reason, or False with the fault's.
pub(super) fn verdict(kind: &'static str, fault: Option<&Fault>) -> Condition {
    match fault {
        None => condition(kind, true, kind, ""),
        Some(fault) => condition(kind, false, fault.reason, fault.message.as_str()),
    }
}
