//! Events: sentences for people, attached to an object.
use super::json::push_string;
use super::resource::Resource;
use super::time;

/// Longest message; the API server refuses more than 1,024 bytes.
const MAX_MESSAGE: usize = 1000;

/// What happened to which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'e> {
    /// `apiVersion` of the object.
    pub api_version: &'e str,
    /// Its kind.
    pub kind: &'e str,
    /// Its namespace; empty if it has none.
    pub namespace: &'e str,
    /// Its name.
    pub name: &'e str,
    /// Its uid.
    pub uid: &'e str,
    /// Whether it is a warning.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: &'e str,
    /// A sentence.
    pub message: &'e str,
    /// Who says so.
    pub component: &'e str,
    /// On which node.
    pub host: &'e str,
}

// === impl Event ===

impl Event<'_> {
    /// The path to POST it to, and the object. Its name follows from what it says, so that the same is said once: a
    /// server that has it already answers 409. `hour` tells repetitions apart.
    #[must_use]
    pub fn write(&self, unix: u64) -> (String, String) {
        let namespace = if self.namespace.is_empty() { "default" } else { self.namespace };
        let text = self.message;
        let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_MESSAGE).last();
        let message = if text.len() > MAX_MESSAGE { &text[..cut.unwrap_or(0)] } else { text };
        let hour = unix / 3600;
        let hash = [self.uid, self.reason, message, &hour.to_string()]
            .iter()
            .flat_map(|part| part.bytes().chain([0]))
            // FNV-1a, 64 bits.
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        // Names of objects may be as long as those of events.
        let stem: String = self.name.chars().take(200).collect();
        let name = format!("{}.{hash:016x}", stem.trim_end_matches(['.', '-']));
        let when = time::format(unix, None);
        let kind = if self.warning { "Warning" } else { "Normal" };
        let mut out = String::from(r#"{"apiVersion":"v1","kind":"Event","metadata":{"#);
        let mut member = |before: &str, value: &str| {
            out.push_str(before);
            push_string(&mut out, value);
        };
        member(r#""name":"#, &name);
        member(r#","namespace":"#, namespace);
        member(r#"},"involvedObject":{"apiVersion":"#, self.api_version);
        member(r#","kind":"#, self.kind);
        member(r#","name":"#, self.name);
        if !self.namespace.is_empty() {
            member(r#","namespace":"#, self.namespace);
        }
        member(r#","uid":"#, self.uid);
        member(r#"},"type":"#, kind);
        member(r#","reason":"#, self.reason);
        member(r#","message":"#, message);
        member(r#","source":{"component":"#, self.component);
        member(r#","host":"#, self.host);
        member(r#"},"count":1,"firstTimestamp":"#, &when);
        member(r#","lastTimestamp":"#, &when);
        out.push('}');
        let events = Resource { group: "", version: "v1".to_owned(), plural: "events" };
        (events.path(Some(namespace)), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_lite::json::Json;

    #[test]
    fn the_same_is_said_under_the_same_name() {
        let event = |message| Event {
            api_version: "gateway.networking.k8s.io/v1",
            kind: "Gateway",
            namespace: "a",
            name: "g",
            uid: "u",
            warning: true,
            reason: "Invalid",
            message,
            component: "pilus",
            host: "n1",
        };
        let (path, body) = event("x \"y\"").write(7200);
        assert_eq!(path, "/api/v1/namespaces/a/events");
        let json = Json::check(&body).unwrap();
        assert_eq!(json.get("message").and_then(Json::string).as_deref(), Some("x \"y\""));
        assert_eq!(
            json.at(&["involvedObject", "name"]).and_then(Json::string).as_deref(),
            Some("g")
        );
        let name = |body: &str| {
            Json::check(body).unwrap().at(&["metadata", "name"]).unwrap().text().to_owned()
        };
        assert_eq!(name(&body), name(&event("x \"y\"").write(7201).1));
        assert_ne!(name(&body), name(&event("x").write(7200).1));
        assert_ne!(name(&body), name(&event("x \"y\"").write(10_800).1));
        let long = "é".repeat(2000);
        let (_, body) = event(&long).write(0);
        let message = Json::check(&body).unwrap().get("message").and_then(Json::string).unwrap();
        assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 3);
    }
}
