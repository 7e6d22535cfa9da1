//! Which groups, versions and resources a server has.
use std::collections::BTreeMap;

use super::client::Client;
use super::error::Error;
use super::http::Request;
use super::json::Json;

/// All in one answer (KEP-3352), or from servers before 1.27 a list of groups.
const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// The versions in which each resource is served, by group and plural, those that the server prefers first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    versions: BTreeMap<(String, String), Vec<String>>,
}

// === impl Served ===

impl Served {
    /// The first of `wanted` in which the server has the resource.
    #[must_use]
    pub fn version(
        &self,
        group: &str,
        plural: &str,
        wanted: &[&'static str],
    ) -> Option<&'static str> {
        let served = self.versions.get(&(group.to_owned(), plural.to_owned()))?;
        wanted.iter().find(|version| served.iter().any(|served| served == *version)).copied()
    }

    /// The versions in which the server has the resource.
    #[must_use]
    pub fn versions(&self, group: &str, plural: &str) -> &[String] {
        self.versions.get(&(group.to_owned(), plural.to_owned())).map_or(&[], |served| served)
    }

    fn add(&mut self, group: &str, version: &str, resources: Json<'_>, name: &str) {
        for resource in resources.items() {
            let plural = resource.get(name).and_then(Json::string).unwrap_or_default();
            // Subresources are listed beside them in the old form.
            if !plural.is_empty() && !plural.contains('/') {
                let key = (group.to_owned(), plural.into_owned());
                self.versions.entry(key).or_default().push(version.to_owned());
            }
        }
    }
}

/// Asks the server what it has of these groups.
///
/// # Errors
/// There is no answer.
pub async fn discover(client: &Client, groups: &[&str]) -> Result<Served, Error> {
    let request = Request { accept: Some(AGGREGATED), ..Request::get("/apis".to_owned()) };
    let body = client.request(&request).await?;
    let wrong = || Error::Broken("the list of API groups is not JSON".to_owned());
    let list = Json::check(&body).ok_or_else(wrong)?;
    let mut served = Served::default();
    let aggregated = list.get("items");
    for group in aggregated.or_else(|| list.get("groups")).into_iter().flat_map(Json::items) {
        let name = group.at(&["metadata", "name"]).or_else(|| group.get("name"));
        let name = name.and_then(Json::string).unwrap_or_default();
        if !groups.contains(&&*name) {
            continue;
        }
        for version in group.get("versions").into_iter().flat_map(Json::items) {
            let number = version.get("version").and_then(Json::string).unwrap_or_default();
            if aggregated.is_some() {
                if let Some(resources) = version.get("resources") {
                    served.add(&name, &number, resources, "resource");
                }
                continue;
            }
            let request = Request::get(format!("/apis/{name}/{number}"));
            let body = client.request(&request).await?;
            let list = Json::check(&body).ok_or_else(wrong)?;
            if let Some(resources) = list.get("resources") {
                served.add(&name, &number, resources, "name");
            }
        }
    }
    Ok(served)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wanted_version_that_is_served() {
        let mut served = Served::default();
        let resources = Json::check(r#"[{"name":"gateways"},{"name":"gateways/status"}]"#).unwrap();
        served.add("g", "v1beta1", resources, "name");
        served.add("g", "v1", resources, "name");
        assert_eq!(served.version("g", "gateways", &["v1", "v1beta1"]), Some("v1"));
        assert_eq!(served.version("g", "gateways", &["v2", "v1beta1"]), Some("v1beta1"));
        assert_eq!(served.version("g", "gateways", &["v2"]), None);
        assert_eq!(served.version("g", "gateways/status", &["v1"]), None);
        assert_eq!(served.versions("g", "gateways"), ["v1beta1", "v1"]);
    }
}
