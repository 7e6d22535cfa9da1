//! What makes the server believe who we are: read where it lies, and again before it expires.
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::client::Net;
use super::error::Error;
use super::json::{Json, push_string};
use super::kubeconfig::{Config, Exec, Source, Token};
use super::time;

/// A token file is read again after this; kubelet replaces it long before it expires (client-go does the same).
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// A plugin's token is replaced so long before it expires.
const EARLY: Duration = Duration::from_secs(30);

/// What was read last.
#[derive(Default)]
pub(super) struct Credentials {
    token: Option<Cached>,
    tls: Option<Arc<ClientConfig>>,
}

struct Cached {
    token: Option<String>,
    /// When it is read anew; None: not unless the server refuses it.
    until: Option<Duration>,
}

// === impl Credentials ===

impl Credentials {
    /// All is read anew: the server does not accept it, or could not be reached.
    pub(super) fn forget(&mut self) {
        self.token = None;
        self.tls = None;
    }

    /// The token for a request.
    pub(super) async fn token(
        this: &RefCell<Self>,
        config: &Config,
        net: &dyn Net,
    ) -> Result<Option<String>, Error> {
        if let Some(cached) = &this.borrow().token
            && cached.until.is_none_or(|until| net.now() < until)
        {
            return Ok(cached.token.clone());
        }
        let cached = match &config.token {
            Token::None => Cached { token: None, until: None },
            Token::Text(token) => Cached { token: Some(checked(token)?), until: None },
            Token::File(path) => {
                let token = Source::File(path.clone()).read()?;
                let token = String::from_utf8_lossy(&token).trim().to_owned();
                Cached { token: Some(checked(&token)?), until: Some(net.now() + TOKEN_LIFE) }
            }
            Token::Exec(exec) => from_plugin(exec, net).await?,
        };
        let token = cached.token.clone();
        this.borrow_mut().token = Some(cached);
        Ok(token)
    }

    /// The configuration for TLS.
    pub(super) fn tls(&mut self, config: &Config) -> Result<Arc<ClientConfig>, Error> {
        let from_files =
            [&config.authority, &config.identity.as_ref().map(|(chain, _)| chain.clone())]
                .into_iter()
                .any(|source| matches!(source, Some(Source::File(_))));
        if let Some(tls) = &self.tls
            && !from_files
        {
            return Ok(Arc::clone(tls));
        }
        let tls = Arc::new(client_config(config)?);
        self.tls = Some(Arc::clone(&tls));
        Ok(tls)
    }
}

/// A token that can stand in a header.
fn checked(token: &str) -> Result<String, Error> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Config(
            "the bearer token is empty, or has bytes that no token has".to_owned(),
        ));
    }
    Ok(token.to_owned())
}

async fn from_plugin(exec: &Exec, net: &dyn Net) -> Result<Cached, Error> {
    let wrong = |what: &str| Error::Config(format!("{}: {what}", exec.command));
    let mut info =
        String::from(r#"{"kind":"ExecCredential","spec":{"interactive":false},"apiVersion":"#);
    push_string(&mut info, &exec.api_version);
    info.push('}');
    let printed = net.run(exec, info).await.map_err(|error| wrong(&error.to_string()))?;
    let printed = String::from_utf8_lossy(&printed);
    let status = Json::check(&printed).and_then(|json| json.get("status"));
    let status = status.ok_or_else(|| wrong("it has printed no ExecCredential with a status"))?;
    let token = status.get("token").and_then(Json::string);
    let token = token.ok_or_else(|| {
        wrong("it gave no token; client certificates of plugins are not supported")
    })?;
    let expires = status.get("expirationTimestamp").and_then(Json::string);
    let expires = expires.and_then(|text| time::parse(&text)).map(Duration::from_secs);
    let left = expires.map(|expires| expires.saturating_sub(net.unix()).saturating_sub(EARLY));
    Ok(Cached { token: Some(checked(&token)?), until: left.map(|left| net.now() + left) })
}

fn client_config(config: &Config) -> Result<ClientConfig, Error> {
    let wrong =
        |what: &str, reason: &dyn std::fmt::Display| Error::Config(format!("{what}: {reason}"));
    let mut roots = RootCertStore::empty();
    if let Some(authority) = &config.authority {
        for certificate in CertificateDer::pem_slice_iter(&authority.read()?) {
            let certificate = certificate.map_err(|e| wrong("certificate-authority", &e))?;
            roots.add(certificate).map_err(|e| wrong("certificate-authority", &e))?;
        }
    }
    if roots.is_empty() {
        return Err(Error::Config("certificate-authority has no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|e| wrong("TLS", &e))?
        .with_root_certificates(roots);
    let Some((chain, key)) = &config.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(&chain.read()?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| wrong("client-certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|e| wrong("client-key", &e))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| wrong("client-certificate", &e))
}
