//! A copy of a collection that follows the original: list, then watch from there, and again when that is lost.
//!
//! This decides only; [`super::follow`] carries it out. Invariants: what is reported between [`Step::List`] of a first
//! page and the last one is the whole collection; watches go on from the last version seen, bookmarks included,
//! so that nothing is missed and nothing is read twice.
use std::time::Duration;

use super::backoff::Backoff;
use super::error::{Error, Status};
use super::json::Json;
use super::resource::{Resource, Selection, push_query};

/// Objects in a page of a list, as client-go's.
const PAGE: &str = "500";
/// A watch ends after so many seconds at least, and twice as many at most: so that connections are spread anew.
const WATCH_SECONDS: u64 = 300;
/// A watch that ended sooner was no good: the next one waits.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a page of the list: the path, and whether it is the first page.
    List(String, bool),
    /// Watch: the path.
    Watch(String),
    /// Do nothing for so long.
    Wait(Duration),
}

/// What a page or event of the collection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'t> {
    /// The object is there, as it is now.
    Put(Json<'t>),
    /// The object is gone; its last state.
    Gone(Json<'t>),
    /// Nothing of interest.
    Nothing,
}

/// The state of the copy.
#[derive(Debug)]
pub struct Reflector {
    resource: Resource,
    selection: Selection,
    /// Up to where the collection is known.
    version: Option<String>,
    /// Where the list goes on.
    page: Option<String>,
    /// Set by failures.
    wait: Option<Duration>,
    backoff: Backoff,
}

// === impl Reflector ===

impl Reflector {
    /// Of a collection of which nothing is known.
    #[must_use]
    pub fn new(resource: Resource, selection: Selection) -> Self {
        let backoff = Backoff::default();
        Self { resource, selection, version: None, page: None, wait: None, backoff }
    }

    /// What it is a copy of.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// What is to be done next. `random` is any number.
    pub fn step(&mut self, random: u64) -> Step {
        if let Some(wait) = self.wait.take() {
            return Step::Wait(wait);
        }
        let mut path = self.resource.path(self.selection.namespace.as_deref());
        if let Some(selector) = &self.selection.field_selector {
            push_query(&mut path, "fieldSelector", selector);
        }
        if let Some(selector) = &self.selection.label_selector {
            push_query(&mut path, "labelSelector", selector);
        }
        match (&self.version, &self.page) {
            (Some(version), None) => {
                push_query(&mut path, "watch", "1");
                push_query(&mut path, "allowWatchBookmarks", "true");
                push_query(&mut path, "resourceVersion", version);
                let seconds = WATCH_SECONDS + random % WATCH_SECONDS;
                push_query(&mut path, "timeoutSeconds", &seconds.to_string());
                Step::Watch(path)
            }
            (_, page) => {
                push_query(&mut path, "limit", PAGE);
                if let Some(page) = page {
                    push_query(&mut path, "continue", page);
                }
                Step::List(path, page.is_none())
            }
        }
    }

    /// What is asked for in `accept`.
    #[must_use]
    pub fn accept(&self) -> Option<&'static str> {
        // The watch of metadata has a type of its own, and each server takes either for both.
        const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
            application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        self.selection.metadata_only.then_some(METADATA)
    }

    /// Takes a page of the list in; its items are for the caller to read. Returns whether it was the last page.
    ///
    /// # Errors
    /// It is no list.
    pub fn listed(&mut self, list: Json<'_>) -> Result<bool, Error> {
        let text = |key| list.at(&["metadata", key]).and_then(Json::string);
        let version = text("resourceVersion").filter(|version| !version.is_empty());
        let version =
            version.ok_or_else(|| Error::Broken("a list without a version".to_owned()))?;
        self.page =
            text("continue").filter(|page| !page.is_empty()).map(std::borrow::Cow::into_owned);
        if self.page.is_none() {
            self.version = Some(version.into_owned());
            self.backoff.reset();
        }
        Ok(self.page.is_none())
    }

    /// Takes an event of the watch in.
    ///
    /// # Errors
    /// It says that the watch has failed, or is no event.
    pub fn watched<'t>(&mut self, event: Json<'t>) -> Result<Told<'t>, Error> {
        let kind = event.get("type").and_then(Json::string);
        let object = event.get("object");
        let (Some(kind), Some(object)) = (kind, object) else {
            return Err(Error::Broken("a watch event without type or object".to_owned()));
        };
        if kind == "ERROR" {
            return Err(Error::Refused(Status::of_event(object)));
        }
        let version = object.at(&["metadata", "resourceVersion"]).and_then(Json::string);
        let version =
            version.ok_or_else(|| Error::Broken("an event without a version".to_owned()))?;
        self.version = Some(version.into_owned());
        self.backoff.reset();
        Ok(match &*kind {
            "ADDED" | "MODIFIED" => Told::Put(object),
            "DELETED" => Told::Gone(object),
            _ => Told::Nothing,
        })
    }

    /// The watch has ended in good order after `lasted`.
    pub fn ended(&mut self, lasted: Duration, random: u64) {
        if lasted < SHORTEST_WATCH {
            self.wait = Some(self.backoff.next(random));
        } else {
            self.backoff.reset();
        }
    }

    /// A list or watch has failed.
    pub fn failed(&mut self, error: &Error, random: u64) {
        let mut least = Duration::ZERO;
        if let Error::Refused(status) = error {
            if status.is_expired() {
                // From the beginning; a continued list as well. The server answers: what failed before is over.
                self.version = None;
                self.page = None;
                self.backoff.reset();
            }
            least = Duration::from_secs(status.retry_after.unwrap_or_default().into());
        } else if self.version.is_none() {
            // Pages are of one moment, and the server that remembers it may be another one now.
            self.page = None;
        }
        // All are told the same time; by chance they do not all come back in the same moment.
        self.wait = Some(least + self.backoff.next(random));
    }

    /// All is to be read anew, for what was told was lost.
    pub fn restart(&mut self) {
        self.version = None;
        self.page = None;
        self.wait = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reflector() -> Reflector {
        let resource = Resource { group: "", version: "v1".to_owned(), plural: "services" };
        Reflector::new(resource, Selection::default())
    }

    fn list(version: &str, page: &str) -> String {
        format!(
            r#"{{"metadata":{{"resourceVersion":"{version}","continue":"{page}"}},"items":[]}}"#
        )
    }

    fn event(kind: &str, version: &str) -> String {
        format!(r#"{{"type":"{kind}","object":{{"metadata":{{"resourceVersion":"{version}"}}}}}}"#)
    }

    fn take_list(copy: &mut Reflector, version: &str, page: &str) -> bool {
        copy.listed(Json::check(&list(version, page)).unwrap()).unwrap()
    }

    const WATCH: &str = "/api/v1/services?watch=1&allowWatchBookmarks=true&resourceVersion=";

    #[test]
    fn lists_page_by_page_then_watches_from_the_last_version_seen() {
        let mut copy = reflector();
        assert_eq!(copy.step(0), Step::List("/api/v1/services?limit=500".to_owned(), true));
        assert!(!take_list(&mut copy, "10", "a/b"));
        let second = "/api/v1/services?limit=500&continue=a%2Fb".to_owned();
        assert_eq!(copy.step(0), Step::List(second, false));
        assert!(take_list(&mut copy, "10", ""));
        assert_eq!(copy.step(0), Step::Watch(format!("{WATCH}10&timeoutSeconds=300")));
        let text = event("MODIFIED", "12");
        let json = Json::check(&text).unwrap();
        assert_eq!(copy.watched(json), Ok(Told::Put(json.get("object").unwrap())));
        let text = event("BOOKMARK", "20");
        assert_eq!(copy.watched(Json::check(&text).unwrap()), Ok(Told::Nothing));
        copy.ended(Duration::from_secs(300), 0);
        assert_eq!(copy.step(299), Step::Watch(format!("{WATCH}20&timeoutSeconds=599")));
        let text = event("DELETED", "21");
        assert!(matches!(copy.watched(Json::check(&text).unwrap()), Ok(Told::Gone(_))));
        // A server that ends watches at once is not asked a thousand times a second.
        copy.ended(Duration::from_millis(3), 0);
        assert_eq!(copy.step(0), Step::Wait(Duration::from_millis(800)));
        assert_eq!(copy.step(0), Step::Watch(format!("{WATCH}21&timeoutSeconds=300")));
    }

    #[test]
    fn a_version_that_is_too_old_means_to_list_again() {
        let gone = r#"{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"old"}}"#;
        let mut copy = reflector();
        take_list(&mut copy, "10", "");
        let error = copy.watched(Json::check(gone).unwrap()).unwrap_err();
        copy.failed(&error, 0);
        assert!(matches!(copy.step(0), Step::Wait(_)));
        assert!(matches!(copy.step(0), Step::List(_, true)));
        // In the middle of a list as well.
        take_list(&mut copy, "11", "x");
        copy.failed(&error, 0);
        assert!(matches!(copy.step(0), Step::Wait(_)));
        assert!(matches!(copy.step(0), Step::List(_, true)));
        // After a server that was away long as soon as after one that was not.
        take_list(&mut copy, "12", "");
        for _ in 0..5 {
            copy.failed(&Error::Silent, 0);
        }
        copy.failed(&error, 0);
        assert_eq!(copy.step(0), Step::Wait(Duration::from_millis(800)));
    }

    #[test]
    fn a_broken_watch_goes_on_where_it_was_and_a_busy_server_is_left_alone() {
        let mut copy = reflector();
        take_list(&mut copy, "10", "");
        copy.failed(&Error::Silent, 0);
        assert_eq!(copy.step(0), Step::Wait(Duration::from_millis(800)));
        assert!(matches!(copy.step(0), Step::Watch(path) if path.contains("resourceVersion=10&")));
        copy.failed(&Error::Refused(Status::of(429, Some(7), "")), 0);
        assert_eq!(copy.step(0), Step::Wait(Duration::from_millis(7000 + 1600)));
        let broken = Json::check(r#"{"type":"ADDED"}"#).unwrap();
        assert!(matches!(copy.watched(broken), Err(Error::Broken(_))));
        let broken = Json::check("{}").unwrap();
        assert!(matches!(copy.listed(broken), Err(Error::Broken(_))));
    }
}
