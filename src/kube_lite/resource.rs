//! What can be asked of an API server, as paths.
use std::fmt::Write as _;

/// A collection of objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// Such as `v1`.
    pub version: String,
    /// The plural, as in paths.
    pub plural: &'static str,
}

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this namespace only.
    pub namespace: Option<String>,
    /// Such as `type=kubernetes.io/tls`.
    pub field_selector: Option<String>,
    /// Such as `app.kubernetes.io/managed-by=pilus`.
    pub label_selector: Option<String>,
    /// Metadata only: the server leaves spec and status away.
    pub metadata_only: bool,
}

// === impl Resource ===

impl Resource {
    /// The path of the collection, or of the part of it in `namespace`.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let Self { group, version, plural } = self;
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        match namespace {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{version}/{plural}"),
        }
    }

    /// The path of one object; `namespace` is empty if the kind is not namespaced.
    #[must_use]
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        format!("{}/{name}", self.path(namespace))
    }
}

/// Appends `key=value` to the query of `path`, percent-encoded.
pub(super) fn push_query(path: &mut String, key: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(key);
    path.push('=');
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte));
            }
            _ => {
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_collections_and_objects() {
        let pods = Resource { group: "", version: "v1".to_owned(), plural: "pods" };
        assert_eq!(pods.path(None), "/api/v1/pods");
        assert_eq!(pods.object_path("a", "b"), "/api/v1/namespaces/a/pods/b");
        let version = "v1".to_owned();
        let classes =
            Resource { group: "gateway.networking.k8s.io", version, plural: "gatewayclasses" };
        let path = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/c";
        assert_eq!(classes.object_path("", "c"), path);
        let mut path = pods.path(None);
        push_query(&mut path, "fieldSelector", "type=kubernetes.io/tls");
        push_query(&mut path, "watch", "1");
        assert_eq!(path, "/api/v1/pods?fieldSelector=type%3Dkubernetes.io%2Ftls&watch=1");
    }
}
