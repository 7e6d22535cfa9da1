//! Where the API server is and who we are: a kubeconfig, or what every pod finds in its file system.
use std::fmt;
use std::path::{Path, PathBuf};

use super::json::Json;

/// Where a pod finds its token and the authority of the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whom to talk to, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub server: Server,
    /// The namespace of the context, or `default`.
    pub namespace: String,
    /// The certificates that vouch for the server; None without TLS.
    pub authority: Option<Source>,
    /// Certificate chain and key that are shown to the server.
    pub identity: Option<(Source, Source)>,
    /// What is sent along with each request.
    pub token: Token,
}

/// `https://HOST:PORT/PREFIX`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What goes before each path; empty or `/…` without a slash at the end.
    pub prefix: String,
    /// The name its certificate must have, if not `host`.
    pub tls_name: Option<String>,
}

/// Something that is in the kubeconfig or in a file beside it.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// The file; it may change, and is read again for each connection.
    File(PathBuf),
    /// The thing itself.
    Data(Vec<u8>),
}

/// Where a bearer token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// There is none.
    None,
    /// It is this.
    Text(String),
    /// It is in this file, which changes.
    File(PathBuf),
    /// A program prints it (client.authentication.k8s.io).
    Exec(Exec),
}

/// A credential plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program: a path, or a name looked for in PATH.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is added to its environment.
    pub env: Vec<(String, String)>,
    /// `client.authentication.k8s.io/v1` or `v1beta1`.
    pub api_version: String,
}

/// What is wrong with the configuration, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

// === impl Config ===

impl Config {
    /// Of a kubeconfig that was turned from YAML into JSON and lies in `folder`, the current context.
    ///
    /// # Errors
    /// Which entry is missing, or asks for something this client does not do.
    pub fn from_kubeconfig(config: Json<'_>, folder: &Path) -> Result<Self, ConfigError> {
        let current = text(config, "current-context").filter(|name| !name.is_empty());
        let current = current.ok_or_else(|| error("current-context is not set"))?;
        let context = entry(config, "contexts", "context", &current)?;
        let of_context = |key: &str| {
            let missing = || error(&format!("context {current:?} has no {key}"));
            text(context, key).ok_or_else(missing)
        };
        let cluster = entry(config, "clusters", "cluster", &of_context("cluster")?)?;
        let user = entry(config, "users", "user", &of_context("user")?)?;
        for (at, key, instead) in [
            (cluster, "insecure-skip-tls-verify", "give the cluster's certificate-authority"),
            (cluster, "proxy-url", "the API server must be reached directly"),
            (user, "auth-provider", "it was removed from Kubernetes; use exec"),
            (user, "username", "it was removed from Kubernetes; use a certificate or a token"),
            (user, "as", "impersonation is not supported"),
        ] {
            let set = at.get(key).is_some_and(|v| !matches!(v.text(), "false" | "null" | "\"\""));
            if set {
                return Err(error(&format!("{key} is not supported: {instead}")));
            }
        }
        let url = text(cluster, "server").ok_or_else(|| error("the cluster has no server"))?;
        let mut server = Server::parse(&url)?;
        server.tls_name = text(cluster, "tls-server-name").filter(|name| !name.is_empty());
        let authority = source(cluster, "certificate-authority", folder)?;
        if server.tls && authority.is_none() {
            return Err(error("the cluster has no certificate-authority"));
        }
        let chain = source(user, "client-certificate", folder)?;
        let key = source(user, "client-key", folder)?;
        let identity = match (chain, key) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => return Err(error("client-certificate and client-key belong together")),
        };
        let token = match (text(user, "token"), text(user, "tokenFile"), user.get("exec")) {
            (_, Some(file), _) if !file.is_empty() => Token::File(folder.join(file)),
            (Some(token), ..) if !token.is_empty() => Token::Text(token),
            (.., Some(exec)) if exec.text() != "null" => Token::Exec(Exec::of(exec, folder)?),
            _ => Token::None,
        };
        let namespace = text(context, "namespace").filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        Ok(Self { server, namespace, authority, identity, token })
    }

    /// Of the pod this runs in; `env` looks up variables of the environment.
    ///
    /// # Errors
    /// This is no pod, or one without a service account.
    pub fn in_cluster(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let not_a_pod = |name: &str| error(&format!("{name} is not set: is this a pod?"));
        let of_env =
            |name: &str| env(name).filter(|v| !v.is_empty()).ok_or_else(|| not_a_pod(name));
        let host = of_env("KUBERNETES_SERVICE_HOST")?;
        let port = of_env("KUBERNETES_SERVICE_PORT")?;
        let port = port.parse().map_err(|_| error("KUBERNETES_SERVICE_PORT is no port"))?;
        let folder = Path::new(SERVICE_ACCOUNT);
        Ok(Self {
            server: Server { tls: true, host, port, prefix: String::new(), tls_name: None },
            namespace: "default".to_owned(),
            authority: Some(Source::File(folder.join("ca.crt"))),
            identity: None,
            token: Token::File(folder.join("token")),
        })
    }
}

// === impl Server ===

impl Server {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// It is none of http or https.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        let wrong = || error(&format!("server {url:?} is not https://HOST[:PORT]"));
        let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if tls => 443,
            None => 80,
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#');
        if host.is_empty() || url.contains(odd) {
            return Err(wrong());
        }
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Self { tls, host: host.to_owned(), port, prefix, tls_name: None })
    }

    /// The value of `host`.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

// === impl Source ===

impl Source {
    /// What it is.
    ///
    /// # Errors
    /// The file cannot be read; the text names it.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::Data(data) => Ok(data.clone()),
            Self::File(path) => std::fs::read(path)
                .map_err(|reason| error(&format!("{} cannot be read: {reason}", path.display()))),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            // It may be a key.
            Self::Data(data) => write!(f, "({} bytes)", data.len()),
        }
    }
}

// === impl Token ===

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => path.fmt(f),
            Self::Exec(exec) => f.write_str(&exec.command),
        }
    }
}

// === impl Exec ===

impl Exec {
    fn of(exec: Json<'_>, folder: &Path) -> Result<Self, ConfigError> {
        let command = text(exec, "command").ok_or_else(|| error("exec has no command"))?;
        let api_version = text(exec, "apiVersion").unwrap_or_default();
        if !matches!(
            &*api_version,
            "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1"
        ) {
            return Err(error(&format!("exec has the unknown apiVersion {api_version:?}")));
        }
        if text(exec, "interactiveMode").as_deref() == Some("Always") {
            return Err(error("exec wants to ask a person, and an agent has none"));
        }
        // As client-go has it: relative to the kubeconfig if it has a slash, else looked for in PATH.
        let command = match command.contains('/') {
            true => folder.join(command).to_string_lossy().into_owned(),
            false => command,
        };
        let strings = |json: Json<'_>| json.items().filter_map(Json::owned).collect();
        let variable = |json: Json<'_>| Some((text(json, "name")?, text(json, "value")?));
        Ok(Self {
            command,
            args: exec.get("args").map(strings).unwrap_or_default(),
            env: exec
                .get("env")
                .map_or_else(Vec::new, |e| e.items().filter_map(variable).collect()),
            api_version,
        })
    }
}

impl Json<'_> {
    fn owned(self) -> Option<String> {
        self.string().map(std::borrow::Cow::into_owned)
    }
}

fn error(text: &str) -> ConfigError {
    ConfigError(text.to_owned())
}

fn text(json: Json<'_>, key: &str) -> Option<String> {
    json.get(key).and_then(Json::owned)
}

/// The entry of that name in a list of `{name, KIND}`.
fn entry<'t>(
    config: Json<'t>,
    list: &str,
    kind: &str,
    name: &str,
) -> Result<Json<'t>, ConfigError> {
    let mut items = config.get(list).into_iter().flat_map(Json::items);
    let found = items.find(|item| text(*item, "name").as_deref() == Some(name));
    found
        .and_then(|item| item.get(kind))
        .ok_or_else(|| error(&format!("{list} has no entry named {name:?}")))
}

/// What is under `KEY-data` in base64, or in the file under `KEY`.
fn source(json: Json<'_>, key: &str, folder: &Path) -> Result<Option<Source>, ConfigError> {
    if let Some(data) = text(json, &format!("{key}-data")).filter(|data| !data.is_empty()) {
        let wrong = || error(&format!("{key}-data is not base64"));
        return Ok(Some(Source::Data(base64(&data).ok_or_else(wrong)?)));
    }
    let file = text(json, key).filter(|file| !file.is_empty());
    Ok(file.map(|file| Source::File(folder.join(file))))
}

/// RFC 4648 section 4.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end().trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\r' | b'\n' => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && count < 6).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, user: &str) -> Result<Config, ConfigError> {
        let text = format!(
            r#"{{"current-context":"c","contexts":[{{"name":"b","context":{{}}}},{{"name":"c","context":{{"cluster":"k","user":"u"}}}}],
            "clusters":[{{"name":"k","cluster":{cluster}}}],"users":[{{"name":"u","user":{user}}}]}}"#
        );
        Config::from_kubeconfig(Json::check(&text).unwrap(), Path::new("/etc/k"))
    }

    #[test]
    fn the_current_context_is_read() {
        let cluster = r#"{"server":"https://[fd00::1]:6443/k8s/","certificate-authority-data":"Y2E=","tls-server-name":"k"}"#;
        let read =
            config(cluster, r#"{"client-certificate":"c.pem","client-key-data":"a2V5"}"#).unwrap();
        assert_eq!(read.server.authority(), "[fd00::1]:6443");
        assert_eq!((&*read.server.prefix, read.server.tls_name.as_deref()), ("/k8s", Some("k")));
        assert_eq!(read.authority, Some(Source::Data(b"ca".to_vec())));
        let chain = Source::File("/etc/k/c.pem".into());
        assert_eq!(read.identity, Some((chain, Source::Data(b"key".to_vec()))));
        assert_eq!((read.token, &*read.namespace), (Token::None, "default"));
        let read = config(r#"{"server":"http://h"}"#, r#"{"token":"t"}"#).unwrap();
        assert_eq!((read.server.port, read.token), (80, Token::Text("t".to_owned())));
        let exec = r#"{"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":"bin/login","args":["-x"],"env":[{"name":"A","value":"b"}]}}"#;
        let Token::Exec(exec) = config(r#"{"server":"http://h"}"#, exec).unwrap().token else {
            panic!()
        };
        assert_eq!((&*exec.command, &exec.args[..]), ("/etc/k/bin/login", &["-x".to_owned()][..]));
        assert_eq!(exec.env, [("A".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let good = r#"{"server":"https://h","certificate-authority":"ca"}"#;
        for (cluster, user, part) in [
            (
                r#"{"server":"https://h","insecure-skip-tls-verify":true}"#,
                "{}",
                "insecure-skip-tls-verify",
            ),
            (r#"{"server":"https://h"}"#, "{}", "certificate-authority"),
            (r#"{"server":"ftp://h"}"#, "{}", "ftp://h"),
            (r#"{"server":"https://u@h"}"#, "{}", "u@h"),
            (r#"{"server":"https://h:x"}"#, "{}", "h:x"),
            ("{}", "{}", "no server"),
            (good, r#"{"client-key":"k"}"#, "belong together"),
            (good, r#"{"client-key-data":"?","client-certificate":"c"}"#, "base64"),
            (good, r#"{"auth-provider":{}}"#, "auth-provider"),
            (good, r#"{"exec":{"command":"x","apiVersion":"v9"}}"#, "v9"),
        ] {
            let ConfigError(text) = config(cluster, user).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
        let none = Config::from_kubeconfig(Json::check("{}").unwrap(), Path::new("/"));
        assert_eq!(none, Err(error("current-context is not set")));
    }

    #[test]
    fn a_pod_knows_where_it_is() {
        let env =
            |name: &str| Some(if name.ends_with("HOST") { "10.0.0.1" } else { "443" }.to_owned());
        let config = Config::in_cluster(&env).unwrap();
        assert_eq!(config.server.authority(), "10.0.0.1:443");
        assert!(matches!(config.token, Token::File(path) if path.ends_with("token")));
        assert!(Config::in_cluster(&|_| None).unwrap_err().0.contains("KUBERNETES_SERVICE_HOST"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let read = config(r#"{"server":"http://h"}"#, r#"{"token":"s3cret"}"#).unwrap();
        assert!(!format!("{read:?}").contains("s3cret"));
        let exact = |text| base64(text);
        assert_eq!(exact("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(exact("aGVsbG8"), Some(b"hello".to_vec()));
        assert_eq!(exact("aGVsb\nG8="), Some(b"hello".to_vec()));
        assert_eq!(exact("a"), None);
        assert_eq!(exact("aGVsbG9="), None);
    }
}
