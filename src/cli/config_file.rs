//! The settings: defaults, then `/etc/pilus/pilus.yaml`, then the flags.
//!
//! The file is YAML and read strictly: an unknown key, a wrong type or a value out of range is refused
//! with its place.
//!
//! ```yaml
//! node: k8s-w1
//! manifests: [/etc/pilus/manifests]
//! interfaces: [eth1]
//! state-dir: /var/lib/pilus
//! bpf-root: /sys/fs/bpf/pilus
//! admin: unix:/run/pilus/admin.sock
//! metrics: 127.0.0.1:9965          # "" for none
//! name-prefix: pilus
//! nameservers: [192.168.1.1]      # for names of XBackends; default: /etc/resolv.conf
//! no-bpf: false
//! kube-proxy-replacement: false   # serve cluster addresses and node ports too
//! ipv4: true
//! ipv6: true
//! ingress:
//!   mode: dedicated                # or shared
//!   http-port: 80                  # the node's ports, with no-bpf
//!   https-port: 443
//!   default-class: false           # take Ingresses without a class
//!   enforce-https: true
//!   default-tls-secret: kube-system/default-cert
//!   xff-trusted-hops: 0
//! proxy:
//!   trusted-proxies: []            # CIDRs; X-Forwarded-* and PROXY headers are believed from there only
//!   access-log: stdout             # or a file; default: none
//!   access-log-format: json        # or common, combined
//! announce:
//!   advert-interval: 100ms         # a dead holder is noticed after about three
//! ```
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::args::Run;
use crate::api::config::{AccessLog, Config, IngressMode, Kubernetes, LogFormat};
use crate::api::meta::NamespacedName;
use crate::io::admin_socket::AdminAddress;
use crate::io::line_log;
use crate::io::process::host_name;
use crate::proto::object::{did_you_mean, parse_network};
use crate::proto::value::{Data, Mark, Member, Value, parse_yaml, split_documents};

/// Read if it is there and no other is named.
const DEFAULT_FILE: &str = "/etc/pilus/pilus.yaml";
/// Read if it is there and no directory is named.
const DEFAULT_MANIFESTS: &str = "/etc/pilus/manifests";
/// RFC 9568 section 5.2.7: Max Advertise Interval is 12 bits of centiseconds and not 0.
const ADVERT_INTERVAL: std::ops::RangeInclusive<u64> = 10..=40_950;
/// A DNS label (RFC 1123) is 63 long; `PREFIX-l2announce-NAMESPACE-SERVICE` needs the rest.
const MAX_PREFIX: usize = 32;
/// A DNS subdomain, as Kubernetes wants node names.
const MAX_NODE_NAME: usize = 253;
/// Far more proxies than anybody puts in a row.
const MAX_HOPS: i64 = 16;

/// Each is compared with the address of a connection, and with elements of X-Forwarded-For. The lists that CDNs publish
/// have two dozen.
const MAX_TRUSTED_PROXIES: usize = 64;

/// What is wrong with the file's text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The place.
    pub mark: Mark,
    /// What is wrong and what to do.
    pub message: String,
}

type Setter = fn(&mut Config, &Value) -> Result<(), String>;

const TOP: &[(&str, Setter)] = &[
    ("node", |config, it| node_name(text(it)?).map(|name| config.node = name.into())),
    ("manifests", |config, it| {
        texts(it).map(|paths| config.manifests = paths.into_iter().map(Into::into).collect())
    }),
    ("kubeconfig", |config, it| {
        path(text(it)?).map(|path| config.kubernetes = Some(Kubernetes::Kubeconfig(path.into())))
    }),
    ("in-cluster", |config, it| {
        if truth(it)? {
            config.kubernetes = Some(Kubernetes::InCluster);
        }
        Ok(())
    }),
    ("interfaces", |config, it| {
        texts(it).map(|names| config.interfaces = names.into_iter().map(Arc::from).collect())
    }),
    ("state-dir", |config, it| path(text(it)?).map(|path| config.state_dir = path.into())),
    ("bpf-root", |config, it| path(text(it)?).map(|path| config.bpf_root = path.into())),
    ("admin", |config, it| admin(text(it)?).map(|address| config.admin = address)),
    ("metrics", |config, it| metrics(text(it)?).map(|address| config.metrics = address)),
    ("name-prefix", |config, it| prefix(text(it)?).map(|it| config.name_prefix = it.into())),
    ("nameservers", |config, it| {
        let servers = texts(it)?.into_iter().map(nameserver).collect::<Result<_, _>>();
        servers.map(|servers| config.nameservers = servers)
    }),
    ("no-bpf", |config, it| truth(it).map(|it| config.no_bpf = it)),
    ("kube-proxy-replacement", |config, it| truth(it).map(|it| config.kube_proxy_replacement = it)),
    ("ipv4", |config, it| truth(it).map(|it| config.ipv4 = it)),
    ("ipv6", |config, it| truth(it).map(|it| config.ipv6 = it)),
];

const INGRESS: &[(&str, Setter)] = &[
    ("mode", |config, it| {
        config.ingress_mode = match text(it)? {
            "shared" => IngressMode::Shared,
            "dedicated" => IngressMode::Dedicated,
            other => return Err(format!("{other:?} is neither shared nor dedicated")),
        };
        Ok(())
    }),
    ("http-port", |config, it| port(it).map(|it| config.host_ports.0 = it)),
    ("https-port", |config, it| port(it).map(|it| config.host_ports.1 = it)),
    ("default-class", |config, it| truth(it).map(|it| config.ingress_default_class = it)),
    ("enforce-https", |config, it| truth(it).map(|it| config.enforce_https = it)),
    ("default-tls-secret", |config, it| {
        let (namespace, name) = text(it)?
            .split_once('/')
            .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
            .ok_or("write NAMESPACE/NAME")?;
        config.default_tls_secret = Some(NamespacedName::new(namespace, name));
        Ok(())
    }),
    ("xff-trusted-hops", |config, it| {
        let hops = it.as_int().filter(|hops| (0..=MAX_HOPS).contains(hops));
        let hops = hops.and_then(|hops| u8::try_from(hops).ok());
        config.xff_trusted_hops =
            hops.ok_or_else(|| format!("a number from 0 to {MAX_HOPS} is expected"))?;
        one_trust(config)
    }),
];

const PROXY: &[(&str, Setter)] = &[
    ("trusted-proxies", |config, it| {
        let texts = match it.data {
            Data::List(_) => texts(it)?,
            _ => return Err(format!("a list of CIDRs is expected, not {}", it.describe())),
        };
        if texts.len() > MAX_TRUSTED_PROXIES {
            return Err(format!("{} CIDRs, and {MAX_TRUSTED_PROXIES} are possible", texts.len()));
        }
        let networks = texts.into_iter().map(parse_network).collect::<Result<_, _>>();
        config.trusted_proxies = networks?;
        one_trust(config)
    }),
    ("access-log", |config, it| {
        config.access_log = Some(match text(it)? {
            "stdout" => AccessLog::Stdout,
            file if file.starts_with('/') => AccessLog::File(file.into()),
            other => {
                return Err(format!(
                    "{other:?} is neither stdout nor the path of a file from / on"
                ));
            }
        });
        Ok(())
    }),
    ("access-log-format", |config, it| {
        let name = text(it)?;
        let format = LogFormat::ALL.iter().find(|row| row.0 == name).map(|row| row.1);
        config.access_log_format =
            format.ok_or_else(|| format!("{name:?} is not one of json, common, combined"))?;
        Ok(())
    }),
];

/// Envoy refuses both as well: there is no saying which of them a request would meet first.
fn one_trust(config: &Config) -> Result<(), String> {
    if config.xff_trusted_hops == 0 || config.trusted_proxies.is_empty() {
        return Ok(());
    }
    Err("ingress.xff-trusted-hops and proxy.trusted-proxies exclude each other: keep the latter, which asks who the \
         proxies are and not only how many"
        .to_owned())
}

fn port(value: &Value) -> Result<u16, String> {
    let port = value.as_int().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| "a port from 1 to 65535 is expected".to_owned())
}

const ANNOUNCE: &[(&str, Setter)] = &[("advert-interval", |config, it| {
    duration(text(it)?).map(|interval| config.advert_interval = interval)
})];

/// Every section with its keys.
const SECTIONS: &[(&str, &[(&str, Setter)])] =
    &[("ingress", INGRESS), ("proxy", PROXY), ("announce", ANNOUNCE)];

/// The settings for `pilus run`.
pub(super) fn configure(arguments: &Run) -> Result<Config, Failure> {
    let node = host_name().unwrap_or_else(|| "localhost".to_owned());
    let mut config = Config { node: node.to_ascii_lowercase().into(), ..Config::default() };
    read_file(arguments.config.as_deref(), &mut config)?;
    flags(arguments, &mut config)
        .map_err(|(flag, message)| Failure::Usage(format!("--{flag}: {message}")))?;
    if config.kubernetes.is_some() {
        if !config.manifests.is_empty() {
            let text = "objects come from manifests or from a Kubernetes API server, not from both";
            return Err(Failure::Usage(text.to_owned()));
        }
        return check_families(config);
    }
    if config.manifests.is_empty() && Path::new(DEFAULT_MANIFESTS).is_dir() {
        config.manifests.push(DEFAULT_MANIFESTS.into());
    }
    if config.manifests.is_empty() {
        let text = "pilus run has nothing to read: give --manifests DIR, --kubeconfig FILE or --in-cluster, \
                    or `manifests:` in the configuration file";
        return Err(Failure::Usage(text.to_owned()));
    }
    check_families(config)
}

fn check_families(config: Config) -> Result<Config, Failure> {
    if config.no_bpf && config.kube_proxy_replacement {
        let text = "kube-proxy-replacement needs eBPF, and no-bpf asks to do without";
        return Err(Failure::Wrong(text.to_owned()));
    }
    if !config.ipv4 && !config.ipv6 {
        let text = "ipv4 and ipv6 are both off: there is no address to hand out";
        return Err(Failure::Wrong(text.to_owned()));
    }
    Ok(config)
}

pub(super) fn read_file(named: Option<&str>, config: &mut Config) -> Result<(), Failure> {
    let file = named.unwrap_or(DEFAULT_FILE);
    match std::fs::read_to_string(Path::new(file)) {
        Ok(text) => apply(&text, config).map_err(|error| {
            let Mark { line, column } = error.mark;
            Failure::Wrong(format!("{file}:{line}:{column}: {}", error.message))
        })?,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::Wrong(format!("{file}: cannot be read: {error}"))),
    }
    if let Some(AccessLog::File(path)) = &config.access_log
        && let Err(error) = line_log::probe(path)
    {
        let why = line_log::describe(path, &error);
        return Err(Failure::Wrong(format!("{file}: proxy.access-log: {why}")));
    }
    Ok(())
}

type Flag<'a> = (&'static str, Option<&'a str>, Setter);

fn flags(arguments: &Run, config: &mut Config) -> Result<(), (&'static str, String)> {
    let setter = |name: &str| TOP.iter().find(|(key, _)| *key == name).map(|(_, setter)| *setter);
    let single: [(&'static str, Option<&str>); 6] = [
        ("node", arguments.node.as_deref()),
        ("state-dir", arguments.state_dir.as_deref()),
        ("bpf-root", arguments.bpf_root.as_deref()),
        ("admin", arguments.admin.as_deref()),
        ("metrics", arguments.metrics.as_deref()),
        ("name-prefix", arguments.name_prefix.as_deref()),
    ];
    let given = single.into_iter().filter_map(|(name, value)| {
        setter(name).map(|setter| -> Flag<'_> { (name, value, setter) })
    });
    for (name, value, setter) in given {
        if let Some(value) = value {
            setter(config, &Value::string(value)).map_err(|message| (name, message))?;
        }
    }
    if !arguments.manifests.is_empty() {
        config.manifests = arguments.manifests.iter().map(Into::into).collect();
    }
    match (&arguments.kubeconfig, arguments.in_cluster) {
        (Some(_), true) => return Err(("in-cluster", "give this or --kubeconfig".to_owned())),
        (Some(file), false) => {
            let file = path(file).map_err(|message| ("kubeconfig", message))?;
            config.kubernetes = Some(Kubernetes::Kubeconfig(file.into()));
        }
        (None, true) => config.kubernetes = Some(Kubernetes::InCluster),
        (None, false) => {}
    }
    if !arguments.interface.is_empty() {
        config.interfaces =
            arguments.interface.iter().map(|name| Arc::from(name.as_str())).collect();
    }
    config.no_bpf |= arguments.no_bpf;
    config.kube_proxy_replacement |= arguments.kube_proxy_replacement;
    Ok(())
}

/// Reads the text of a configuration file over `config`.
///
/// # Errors
/// The first fault with its place.
pub fn apply(text: &str, config: &mut Config) -> Result<(), ConfigError> {
    let documents = split_documents(text);
    if let Some(second) = documents.get(1) {
        let mark = Mark { line: second.lines_before + 1, column: 1 };
        let message = "a configuration file has one document".to_owned();
        return Err(ConfigError { mark, message });
    }
    let Some(document) = documents.first() else { return Ok(()) };
    let parsed = parse_yaml(*document)
        .map_err(|error| ConfigError { mark: error.mark, message: error.message })?;
    let Some(root) = parsed else { return Ok(()) };
    expect_map(&root, "")?;
    for member in root.members() {
        match SECTIONS.iter().find(|(name, _)| **name == *member.key) {
            Some((name, keys)) => {
                expect_map(&member.value, name)?;
                for inner in member.value.members() {
                    set(keys, name, inner, config)?;
                }
            }
            None => set(TOP, "", member, config)?,
        }
    }
    Ok(())
}

fn expect_map(value: &Value, section: &str) -> Result<(), ConfigError> {
    if matches!(value.data, Data::Map(_) | Data::Null) {
        return Ok(());
    }
    let place = if section.is_empty() { String::new() } else { format!("{section}: ") };
    let message = format!("{place}keys with values are expected, not {}", value.describe());
    Err(ConfigError { mark: value.mark, message })
}

fn set(
    keys: &[(&str, Setter)],
    section: &str,
    member: &Member,
    config: &mut Config,
) -> Result<(), ConfigError> {
    let path = if section.is_empty() {
        member.key.to_string()
    } else {
        format!("{section}.{}", member.key)
    };
    let Some((_, setter)) = keys.iter().find(|(key, _)| **key == *member.key) else {
        let sections = SECTIONS.iter().map(|(name, _)| *name).filter(|_| section.is_empty());
        let known = keys.iter().map(|(key, _)| *key).chain(sections);
        let hint = did_you_mean(&member.key, known)
            .or_else(|| keys.iter().map(|(key, _)| *key).find(|key| same_letters(key, &member.key)))
            .map_or_else(String::new, |key| format!(" (did you mean {key:?}?)"));
        return Err(ConfigError {
            mark: member.mark,
            message: format!("{path}: unknown key{hint}"),
        });
    };
    setter(config, &member.value).map_err(|message| ConfigError {
        mark: member.value.mark,
        message: format!("{path}: {message}"),
    })
}

/// `stateDir` and `state_dir` for `state-dir`.
fn same_letters(left: &str, right: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect()
    };
    letters(left) == letters(right)
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("a string is expected, not {}", value.describe()))
}

/// A list of strings, or one.
fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let items = match &value.data {
        Data::List(items) => items.iter().map(text).collect(),
        _ => text(value).map(|one| vec![one]),
    }?;
    match items.iter().any(|item: &&str| item.is_empty()) {
        true => Err("an empty name".to_owned()),
        false => Ok(items),
    }
}

/// An address, with a port unless it is 53.
fn nameserver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53)));
    address.map_err(|_| format!("{text:?} is no IP address, with or without a port"))
}

fn truth(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("true or false is expected, not {}", value.describe()))
}

fn path(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("an empty path".to_owned()) } else { Ok(text) }
}

fn admin(text: &str) -> Result<String, String> {
    text.parse::<AdminAddress>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn metrics(text: &str) -> Result<String, String> {
    match text.parse::<AdminAddress>() {
        Ok(AdminAddress::Tcp(_)) => Ok(text.to_owned()),
        _ if text.is_empty() => Ok(String::new()),
        _ => Err(format!("{text:?} is no IP address with a port")),
    }
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn prefix(text: &str) -> Result<&str, String> {
    if is_label(text) && text.len() <= MAX_PREFIX {
        return Ok(text);
    }
    Err(format!(
        "{text:?} cannot begin names of objects: at most {MAX_PREFIX} lower-case letters, digits and `-`"
    ))
}

fn node_name(text: &str) -> Result<&str, String> {
    if text.len() <= MAX_NODE_NAME && text.split('.').all(is_label) {
        return Ok(text);
    }
    Err(format!("{text:?} is no node name: lower-case letters, digits, `-` and `.` (RFC 1123)"))
}

/// `100ms`, `1s`, `2.5s`: whole centiseconds that a VRRP advertisement can carry.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.strip_suffix("ms") {
        Some(number) => number.parse::<f64>().ok(),
        None => text.strip_suffix('s').and_then(|it| it.parse::<f64>().ok()).map(|it| it * 1_000.0),
    };
    let millis = parsed.filter(|millis| millis.fract() == 0.0 && (0.0..1e9).contains(millis));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a whole number below 1e9"
    )]
    let millis = millis.map(|millis| millis as u64);
    millis
        .filter(|millis| ADVERT_INTERVAL.contains(millis) && millis.is_multiple_of(10))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            format!("{text:?}: 10ms to 40950ms in steps of 10ms are possible (RFC 9568)")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = apply(text, &mut Config::default()).unwrap_err();
        format!("{}:{}: {}", error.mark.line, error.mark.column, error.message)
    }

    #[test]
    fn every_key_arrives() {
        let text = "
node: k8s-w1
manifests: [/a, /b]
interfaces: eth1
state-dir: /s
bpf-root: /b
admin: unix:/x
metrics: ''
name-prefix: cilium
no-bpf: true
kube-proxy-replacement: true
ipv4: true
ipv6: false
ingress:
  mode: shared
  default-class: true
  enforce-https: false
  default-tls-secret: ns/cert
  xff-trusted-hops: 2
proxy:
  access-log: /var/log/pilus/access.log
  access-log-format: combined
announce:
  advert-interval: 1.5s
";
        let mut config = Config::default();
        apply(text, &mut config).unwrap();
        assert_eq!(&*config.node, "k8s-w1");
        assert_eq!(config.manifests.len(), 2);
        assert_eq!(&*config.interfaces[0], "eth1");
        assert_eq!(config.state_dir, Path::new("/s"));
        assert_eq!(config.bpf_root, Path::new("/b"));
        assert_eq!((config.admin.as_str(), config.metrics.as_str()), ("unix:/x", ""));
        assert_eq!(&*config.name_prefix, "cilium");
        assert!(config.no_bpf && config.ipv4 && !config.ipv6);
        assert!(config.kube_proxy_replacement);
        assert!(check_families(config.clone()).is_err(), "it needs what no-bpf does without");
        assert_eq!(config.ingress_mode, IngressMode::Shared);
        assert!(config.ingress_default_class && !config.enforce_https);
        assert_eq!(config.default_tls_secret, Some(NamespacedName::new("ns", "cert")));
        assert_eq!(config.xff_trusted_hops, 2);
        assert_eq!(config.access_log, Some(AccessLog::File("/var/log/pilus/access.log".into())));
        assert_eq!(config.access_log_format, LogFormat::Combined);
        assert_eq!(config.advert_interval, Duration::from_millis(1_500));
        apply("", &mut config).unwrap();
        apply("# nothing\n", &mut config).unwrap();
        apply("ingress:\n", &mut config).unwrap();
        let text = "ingress: {xff-trusted-hops: 0}\nproxy:\n  trusted-proxies: [10.0.0.0/8, '::1/128', 0.0.0.0/0]\n  access-log: stdout\n";
        apply(text, &mut config).unwrap();
        let networks: Vec<String> =
            config.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "::1/128", "0.0.0.0/0"]);
        assert_eq!(config.access_log, Some(AccessLog::Stdout));
    }

    #[test]
    fn faults_have_a_place_and_a_suggestion() {
        for (text, expected) in [
            ("manifets: [/a]\n", "1:1: manifets: unknown key (did you mean \"manifests\"?)"),
            ("node: a\nstateDir: /x\n", "2:1: stateDir: unknown key (did you mean \"state-dir\"?)"),
            ("ingress:\n  mod: shared\n", "2:3: ingress.mod: unknown key (did you mean \"mode\"?)"),
            (
                "ingress:\n  mode: both\n",
                "2:9: ingress.mode: \"both\" is neither shared nor dedicated",
            ),
            ("no-bpf: 1\n", "1:9: no-bpf: true or false is expected, not the number 1"),
            ("ingress: [a]\n", "1:10: ingress: keys with values are expected, not a list"),
            ("- a\n", "1:1: keys with values are expected, not a list"),
            (
                "node: A_b\n",
                "1:7: node: \"A_b\" is no node name: lower-case letters, digits, `-` and `.` (RFC 1123)",
            ),
            (
                "announce:\n  advert-interval: 1ms\n",
                "2:20: announce.advert-interval: \"1ms\": 10ms to 40950ms in steps of 10ms are possible (RFC 9568)",
            ),
            ("a: 1\n---\nb: 2\n", "2:1: a configuration file has one document"),
            (
                "proxy:\n  access-logs: stdout\n",
                "2:3: proxy.access-logs: unknown key (did you mean \"access-log\"?)",
            ),
            (
                "proxy:\n  access-log: access.log\n",
                "2:15: proxy.access-log: \"access.log\" is neither stdout nor the path of a file from / on",
            ),
            (
                "proxy:\n  access-log-format: xml\n",
                "2:22: proxy.access-log-format: \"xml\" is not one of json, common, combined",
            ),
            (
                "proxy:\n  trusted-proxies: 10.0.0.0/8\n",
                "2:20: proxy.trusted-proxies: a list of CIDRs is expected, not a string",
            ),
            (
                "proxy:\n  trusted-proxies: [10.0.0.1]\n",
                "2:20: proxy.trusted-proxies: `10.0.0.1` is not a CIDR, such as 192.0.2.0/24 or 2001:db8::/64; for \
                 one address add its length, /32 (IPv6: /128)",
            ),
            (
                "proxy:\n  trusted-proxies: [10.0.0.0/33]\n",
                "2:20: proxy.trusted-proxies: `10.0.0.0/33`: the prefix length must be 0 to 32",
            ),
            (
                "proxy:\n  trusted-proxies: [10.0.0.7/8]\n",
                "2:20: proxy.trusted-proxies: `10.0.0.7/8` has bits beyond its prefix: write 10.0.0.0/8 for the \
                 network, 10.0.0.7/32 for the address",
            ),
            (
                "proxy:\n  trusted-proxies: ['::ffff:10.0.0.0/104']\n",
                "2:20: proxy.trusted-proxies: `::ffff:10.0.0.0/104` is an IPv4 network: write it as one",
            ),
            (
                "ingress:\n  xff-trusted-hops: 1\nproxy:\n  trusted-proxies: [10.0.0.0/8]\n",
                "4:20: proxy.trusted-proxies: ingress.xff-trusted-hops and proxy.trusted-proxies exclude each other: \
                 keep the latter, which asks who the proxies are and not only how many",
            ),
        ] {
            assert_eq!(error(text), expected);
        }
        assert!(error("a: [\n").starts_with("2:") || error("a: [\n").starts_with("1:"));
        assert!(error("node: a\nnode: b\n").starts_with("2:1: "));
        assert!(error("metrics: unix:/x\n").contains("no IP address"));
        let many = vec!["10.0.0.0/8"; MAX_TRUSTED_PROXIES + 1].join(", ");
        assert_eq!(
            error(&format!("proxy:\n  trusted-proxies: [{many}]\n")),
            "2:20: proxy.trusted-proxies: 65 CIDRs, and 64 are possible"
        );
        assert!(error("admin: example.org:80\n").contains("neither unix:PATH"));
    }
}
