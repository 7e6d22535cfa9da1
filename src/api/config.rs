//! The settings of one agent, from the command line and the configuration file.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Network, NodeName, Port};
use super::meta::NamespacedName;

/// Whether Ingresses that do not say share one address or get each its own (ING-02).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngressMode {
    /// All share the Service `kube-system/PREFIX-ingress`.
    Shared,
    /// Each has a Service `PREFIX-ingress-NAME` in its namespace.
    Dedicated,
}

/// How a Kubernetes API server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kubernetes {
    /// By a kubeconfig: `--kubeconfig`.
    Kubeconfig(PathBuf),
    /// By what every pod is given: `--in-cluster`.
    InCluster,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// This file, to its end.
    File(PathBuf),
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Apache's Common Log Format.
    Common,
    /// The same with referer and user agent at its end.
    Combined,
}

impl fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig(path) => path.display().fmt(f),
            Self::InCluster => f.write_str("in-cluster"),
        }
    }
}

/// All settings. `pilus config view` prints them.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name: `--node`, default the host name.
    pub node: NodeName,
    /// Directories of static manifests: `--manifests`, may be several.
    pub manifests: Vec<PathBuf>,
    /// The API server that objects are read from and statuses written to, instead of manifests.
    pub kubernetes: Option<Kubernetes>,
    /// LAN interfaces named by `--interface`; empty: those with a default route or a global address.
    pub interfaces: Vec<Arc<str>>,
    /// `--state-dir`, default `/var/lib/pilus`.
    pub state_dir: PathBuf,
    /// `--bpf-root`, default `/sys/fs/bpf/pilus`.
    pub bpf_root: PathBuf,
    /// `--admin`: `unix:PATH` or `HOST:PORT`.
    pub admin: String,
    /// `--metrics`: `HOST:PORT`, default 127.0.0.1:9965; empty: none.
    pub metrics: String,
    /// `--name-prefix`, default `pilus`: the stem of generated objects.
    pub name_prefix: Arc<str>,
    /// `--no-bpf`: serve on ordinary sockets, announce nothing.
    pub no_bpf: bool,
    /// `--kube-proxy-replacement`: cluster addresses and node ports are served too.
    pub kube_proxy_replacement: bool,
    /// Mode of Ingresses without the annotation; default dedicated, as Cilium's.
    pub ingress_mode: IngressMode,
    /// Whether an Ingress without a class is ours even if no IngressClass is marked default.
    pub ingress_default_class: bool,
    /// In `--no-bpf` mode: the node's port for what has virtual port 80, and for 443.
    pub host_ports: (u16, u16),
    /// Whether TLS hosts redirect plain HTTP (ING-11); default true.
    pub enforce_https: bool,
    /// The certificate for TLS entries without a secretName (ING-10).
    pub default_tls_secret: Option<NamespacedName>,
    /// How many proxies in front of this one are trusted for X-Forwarded-For; default 0.
    pub xff_trusted_hops: u8,
    /// Proxies that are believed about their clients, by address (`proxy.trusted-proxies`); empty: the rule above.
    pub trusted_proxies: Arc<[Network]>,
    /// Where finished requests are written to; default nowhere.
    pub access_log: Option<AccessLog>,
    /// How they are written.
    pub access_log_format: LogFormat,
    /// VRRP advertisement interval; a dead holder is noticed after about three. Default 100 ms.
    pub advert_interval: Duration,
    /// Who is asked for the addresses of XBackends; empty: those in `/etc/resolv.conf`.
    pub nameservers: Vec<SocketAddr>,
    /// Hand out IPv4 addresses.
    pub ipv4: bool,
    /// Hand out IPv6 addresses.
    pub ipv6: bool,
}

// === impl Config ===

impl Config {
    /// The Lease of the one agent that writes to the API server.
    pub fn writer_lease(&self) -> NamespacedName {
        NamespacedName::new("kube-system", &format!("{}-controller", self.name_prefix))
    }

    /// The node's port for a virtual one in `--no-bpf` mode, if the settings name another.
    pub fn host_port(&self, port: Port) -> Option<Port> {
        let (http, https) = self.host_ports;
        let host = match port {
            Port::HTTP => http,
            Port::HTTPS => https,
            _ => return None,
        };
        (self.no_bpf && host != port.0).then_some(Port(host))
    }
}

// === impl AccessLog ===

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

// === impl LogFormat ===

impl LogFormat {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("json", Self::Json), ("common", Self::Common), ("combined", Self::Combined)];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: "localhost".into(),
            manifests: Vec::new(),
            kubernetes: None,
            interfaces: Vec::new(),
            state_dir: "/var/lib/pilus".into(),
            bpf_root: "/sys/fs/bpf/pilus".into(),
            admin: "unix:/run/pilus/admin.sock".into(),
            metrics: "127.0.0.1:9965".into(),
            name_prefix: "pilus".into(),
            no_bpf: false,
            kube_proxy_replacement: false,
            ingress_mode: IngressMode::Dedicated,
            ingress_default_class: false,
            host_ports: (80, 443),
            enforce_https: true,
            default_tls_secret: None,
            xff_trusted_hops: 0,
            trusted_proxies: Arc::default(),
            access_log: None,
            access_log_format: LogFormat::Json,
            advert_interval: Duration::from_millis(100),
            nameservers: Vec::new(),
            ipv4: true,
            ipv6: true,
        }
    }
}
