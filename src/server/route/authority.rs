//! ConfigMaps to CA certificates: whom clients (`spec.tls.frontend` of a Gateway) and backends (BackendTLSPolicy)
//! must have been signed by.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::suggest::closest;
use crate::api::meta::NamespacedName;
use crate::api::object::ConfigMap;
use crate::api::objects::Objects;
use crate::api::route::Authorities;

/// The most certificates of one ConfigMap: the bundles of browsers have about 150.
const MAX_AUTHORITIES: usize = 512;

/// The entry of a ConfigMap that holds them.
const ENTRY: &str = "ca.crt";

type Outcome = Result<Arc<Authorities>, Arc<str>>;

/// Parsed ConfigMaps, kept as long as the object is the same.
#[derive(Default)]
pub(super) struct AuthorityCache {
    cache: HashMap<NamespacedName, (Arc<ConfigMap>, Outcome)>,
    used: HashSet<NamespacedName>,
}

// === impl AuthorityCache ===

impl AuthorityCache {
    /// The authorities in the ConfigMap `name`, or a clause that says why there are none.
    pub(super) fn load(&mut self, objects: &Objects, name: &NamespacedName) -> Outcome {
        let Some(map) = objects.config_maps.get(name) else {
            let same = |key: &&NamespacedName| key.namespace == name.namespace;
            let candidates = objects.config_maps.keys().filter(same).map(|key| &*key.name);
            let hint = closest(&name.name, candidates);
            return Err(format!("ConfigMap {name} does not exist{hint}").into());
        };
        self.used.insert(name.clone());
        if let Some((known, outcome)) = self.cache.get(name)
            && Arc::ptr_eq(known, map)
        {
            return outcome.clone();
        }
        let outcome = parse(map).map(Arc::new).map_err(Arc::from);
        self.cache.insert(name.clone(), (Arc::clone(map), outcome.clone()));
        outcome
    }

    /// Forgets what was not used since the last call.
    pub(super) fn sweep(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.cache.retain(|name, _| used.contains(name));
    }
}

fn parse(map: &ConfigMap) -> Result<Authorities, String> {
    let name = &map.meta.name;
    let text = map.data.get(ENTRY).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| format!("ConfigMap {name} has no entry {ENTRY}"))?;
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(text.as_bytes())
            .take(MAX_AUTHORITIES + 1)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{ENTRY} of ConfigMap {name} is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{ENTRY} of ConfigMap {name} contains no certificate"));
    }
    if certificates.len() > MAX_AUTHORITIES {
        return Err(format!(
            "{ENTRY} of ConfigMap {name} has more than {MAX_AUTHORITIES} certificates"
        ));
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| {
            format!("a certificate in {ENTRY} of ConfigMap {name} cannot be used: {error}")
        })?;
    }
    Ok(Authorities { source: format!("ConfigMap {name}"), certificates, roots: Arc::new(roots) })
}

/// One set of all of them; None if there is none.
pub(super) fn joined(mut all: Vec<Arc<Authorities>>) -> Option<Arc<Authorities>> {
    if all.len() <= 1 {
        return all.pop();
    }
    let sources: Vec<&str> = all.iter().map(|one| &*one.source).collect();
    let mut roots = RootCertStore::empty();
    roots.extend(all.iter().flat_map(|one| one.roots.roots.iter().cloned()));
    Some(Arc::new(Authorities {
        source: sources.join(", "),
        certificates: all.iter().flat_map(|one| one.certificates.iter().cloned()).collect(),
        roots: Arc::new(roots),
    }))
}
