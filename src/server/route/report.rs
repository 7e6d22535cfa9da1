use crate::api::meta::{Kind, Meta, ObjectKey};
use crate::api::object::Ingress;
use crate::api::problem::{Problem, Severity};
use crate::arrange::Arrange;

/// Collects the complaints of one compilation.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
}

// === impl Report ===

impl Report {
    pub(super) fn push(
        &mut self,
        kind: Kind,
        meta: &Meta,
        field: String,
        message: String,
        severity: Severity,
    ) {
        self.problems.push(Problem {
            position: meta.position(&field),
            object: Some(ObjectKey { kind, name: meta.name.clone() }),
            field,
            message,
            severity,
        });
    }

    pub(super) fn error(&mut self, kind: Kind, meta: &Meta, field: String, message: String) {
        self.push(kind, meta, field, message, Severity::Error);
    }

    pub(super) fn warning(&mut self, kind: Kind, meta: &Meta, field: String, message: String) {
        self.push(kind, meta, field, message, Severity::Warning);
    }

    pub(super) fn ingress_error(&mut self, ingress: &Ingress, field: String, message: String) {
        self.push(Kind::Ingress, &ingress.meta, field, message, Severity::Error);
    }

    pub(super) fn ingress_warning(&mut self, ingress: &Ingress, field: String, message: String) {
        self.push(Kind::Ingress, &ingress.meta, field, message, Severity::Warning);
    }

    /// The certificate for clients that ask for no name of any Ingress cannot be had.
    pub(super) fn default_certificate_error(&mut self, why: &str) {
        self.problems.push(Problem {
            position: None,
            object: None,
            field: "ingress.default-tls-secret".to_owned(),
            message: format!("{why}; TLS handshakes for names that no Ingress has are refused"),
            severity: Severity::Error,
        });
    }

    /// All of them, sorted and without repetition.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.arrange();
        self.problems.dedup();
        self.problems
    }
}
