//! Secrets to certificates (ING-10).
use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::api::meta::NamespacedName;
use crate::api::object::Secret;
use crate::api::objects::Objects;
use crate::api::route::Certificate;
use crate::proto::x509::{self, CertificateInfo};

/// The longest chain; real ones have two or three certificates.
const MAX_CHAIN: usize = 16;

const TLS_TYPE: &str = "kubernetes.io/tls";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A Secret that can be served.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) certificate: Arc<Certificate>,
    /// What the leaf says about itself, or why it cannot be read.
    pub(super) info: Result<Arc<CertificateInfo>, x509::Error>,
    /// The Secret has another type than it should.
    pub(super) wrong_type: bool,
    /// Why the Secret as it is now cannot be used, if so; then this is the last version that could.
    pub(super) fault: Option<Arc<str>>,
}

/// A certificate, or a clause that says why there is none.
type Outcome = Result<Loaded, Arc<str>>;

/// Parsed Secrets, kept as long as the Secret object is the same. One that becomes unusable keeps its last
/// good version: a slip while a certificate is renewed costs nobody a handshake. One that is deleted does not.
#[derive(Default)]
pub(super) struct Certificates {
    cache: HashMap<NamespacedName, (Arc<Secret>, Outcome)>,
    used: Vec<NamespacedName>,
    /// How many Secrets were parsed; what the tests count.
    pub(super) parsed: u64,
}

// === impl Certificates ===

impl Certificates {
    /// The certificate of the Secret `name`, or a clause that says why there is none.
    pub(super) fn load(
        &mut self,
        objects: &Objects,
        name: &NamespacedName,
    ) -> Result<Loaded, Arc<str>> {
        let Some(secret) = objects.secrets.get(name) else {
            let same = |key: &&NamespacedName| key.namespace == name.namespace;
            let candidates = objects.secrets.keys().filter(same).map(|key| &*key.name);
            let hint = super::suggest::closest(&name.name, candidates);
            return Err(format!("Secret {name} does not exist{hint}").into());
        };
        self.used.push(name.clone());
        if let Some((known, result)) = self.cache.get(name)
            && Arc::ptr_eq(known, secret)
        {
            return result.clone();
        }
        self.parsed += 1;
        let last_good = self.cache.remove(name).and_then(|(_, outcome)| outcome.ok());
        let result = match (parse(secret), last_good) {
            (Err(why), Some(good)) => Ok(Loaded { fault: Some(why.into()), ..good }),
            (result, _) => result.map_err(Arc::from),
        };
        self.cache.insert(name.clone(), (Arc::clone(secret), result.clone()));
        result
    }

    /// Forgets what was not used since the last call.
    pub(super) fn sweep(&mut self) {
        let used: std::collections::HashSet<_> = self.used.drain(..).collect();
        self.cache.retain(|name, _| used.contains(name));
    }
}

fn parse(secret: &Secret) -> Result<Loaded, String> {
    let name = &secret.meta.name;
    let entry = |key: &str| {
        let value = secret.data.get(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("Secret {name} (type {}) has no entry {key}", secret.kind))
    };
    let (chain, key) = (entry(CHAIN)?, entry(KEY)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{CHAIN} of Secret {name} is not valid PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{CHAIN} of Secret {name} contains no certificate"));
    }
    if chain.len() > MAX_CHAIN {
        return Err(format!("{CHAIN} of Secret {name} has more than {MAX_CHAIN} certificates"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("{KEY} of Secret {name} is not a private key in PEM: {error}"))?;
    let key = any_supported_type(&key).map_err(|_| {
        format!(
            "{KEY} of Secret {name} is of no supported kind (RSA, ECDSA P-256 or P-384, Ed25519)"
        )
    })?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) => {}
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            return Err(format!(
                "{KEY} of Secret {name} does not belong to the first certificate in {CHAIN}"
            ));
        }
        Err(error) => return Err(format!("{CHAIN} of Secret {name} cannot be used: {error}")),
    }
    let info = x509::parse(&key.cert[0]).map(Arc::new);
    let not_after = info.as_ref().ok().map(|info| info.not_after);
    let certificate = Arc::new(Certificate {
        secret: name.clone(),
        key: Arc::new(key),
        not_after,
        names: info.as_ref().map_or_else(
            |_| Vec::new(),
            |info| info.dns_names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        ),
    });
    Ok(Loaded { certificate, info, wrong_type: &*secret.kind != TLS_TYPE, fault: None })
}
