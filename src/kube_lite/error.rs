//! What can go wrong between a client and an API server, by who is to blame.
use std::fmt;

use super::json::Json;
use super::kubeconfig::ConfigError;

/// Why there is no answer, or not the one that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The kubeconfig, or what it names.
    Config(String),
    /// There is no connection: who, and why.
    Unreachable(String),
    /// The connection broke, or what came over it is not what an API server says.
    Broken(String),
    /// Nothing came for so long.
    Silent,
    /// It says no.
    Refused(Status),
}

/// A `Status` object, or what an HTTP status says without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status.
    pub code: u16,
    /// One word, such as `Conflict`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Seconds that the server wants to be left alone.
    pub retry_after: Option<u32>,
}

// === impl Status ===

impl Status {
    /// Of a response with this status and body.
    #[must_use]
    pub fn of(code: u16, retry_after: Option<u32>, body: &str) -> Self {
        let json = Json::check(body);
        let text = |key: &str| {
            let value = json.and_then(|json| json.get(key)).and_then(Json::string);
            value.map(std::borrow::Cow::into_owned).unwrap_or_default()
        };
        let mut status =
            Self { code, reason: text("reason"), message: text("message"), retry_after };
        if status.message.is_empty() {
            // A proxy between, or a server that is not up yet.
            let words: String = body.chars().filter(|c| !c.is_control()).take(200).collect();
            status.message = words.trim().to_owned();
        }
        status
    }

    /// Of the object of a watch event of the type ERROR.
    #[must_use]
    pub fn of_event(object: Json<'_>) -> Self {
        let code = object.get("code").and_then(Json::int).and_then(|code| u16::try_from(code).ok());
        Self::of(code.unwrap_or(500), None, object.text())
    }

    /// The resource version is too old: all must be read anew.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code == 410 || self.reason == "Expired" || self.reason == "Gone"
    }
}

// === impl Error ===

impl Error {
    /// The HTTP status, if it is one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            _ => None,
        }
    }
}

impl From<ConfigError> for Error {
    fn from(ConfigError(text): ConfigError) -> Self {
        Self::Config(text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::Unreachable(text) => write!(f, "the API server cannot be reached: {text}"),
            Self::Broken(text) => write!(f, "the connection to the API server broke: {text}"),
            Self::Silent => f.write_str("the API server does not answer"),
            Self::Refused(Status { code, message, .. }) => {
                write!(f, "the API server says {code}: {message}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_or_without_its_object() {
        let body = r#"{"kind":"Status","reason":"Expired","message":"too old","code":410}"#;
        let status = Status::of(410, None, body);
        assert_eq!((&*status.reason, &*status.message), ("Expired", "too old"));
        assert!(status.is_expired());
        let status = Status::of(503, Some(3), "etcd is away\n");
        assert_eq!((&*status.message, status.retry_after), ("etcd is away", Some(3)));
        let event = Json::check(body).unwrap();
        assert_eq!(Status::of_event(event).code, 410);
        let shown = Error::Refused(Status::of(403, None, r#"{"message":"no"}"#)).to_string();
        assert_eq!(shown, "the API server says 403: no");
    }
}
