//! The words of the command line, and nothing else.
use argh::FromArgs;

/// LoadBalancer addresses, L2 announcement and Ingress for small clusters, in one binary per node.
#[derive(FromArgs, Debug)]
#[argh(
    help_triggers("-h", "--help", "help"),
    example = "Serve what stands in a directory, and look at it:\n  {command_name} run --manifests /etc/pilus/manifests\n  {command_name} status\n  {command_name} get ingress -A\n  {command_name} explain http://shop.example/cart",
    note = "The client commands ask the agent at --admin, else at PILUS_ADMIN, else at unix:/run/pilus/admin.sock.",
    error_code(0, "done"),
    error_code(1, "the thing asked about is wrong"),
    error_code(2, "the command line is wrong"),
    error_code(3, "the agent cannot be reached")
)]
pub(super) struct Pilus {
    #[argh(subcommand)]
    pub(super) command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(super) enum Command {
    Run(Run),
    Check(Check),
    Get(Get),
    Status(Status),
    Service(Service),
    Endpoint(Endpoint),
    Ip(Ip),
    Route(Route),
    Config(Config),
    Explain(Explain),
    Observe(#[expect(dead_code, reason = "its flags are taken and not used")] Observe),
    Version(Version),
}

/// run the agent
#[derive(FromArgs, Debug, Default)]
#[argh(
    subcommand,
    name = "run",
    help_triggers("-h", "--help"),
    example = "  {command_name} --manifests /etc/pilus/manifests --interface eth1",
    note = "Flags win over the configuration file, which has more: proxy.access-log, proxy.access-log-format, proxy.trusted-proxies, ingress.*, announce.* (see README). SIGHUP opens the access log again. PILUS_LOG sets the log level: off, error, warn, info, debug or trace."
)]
pub(super) struct Run {
    /// configuration file (default: /etc/pilus/pilus.yaml, if it is there)
    #[argh(option, arg_name = "file")]
    pub(super) config: Option<String>,
    /// directory of manifests to watch; may be given several times
    #[argh(option, arg_name = "dir")]
    pub(super) manifests: Vec<String>,
    /// kubeconfig of a cluster whose objects are served, instead of manifests
    #[argh(option, arg_name = "file")]
    pub(super) kubeconfig: Option<String>,
    /// serve the objects of the cluster this Pod runs in, instead of manifests
    #[argh(switch)]
    pub(super) in_cluster: bool,
    /// name of this node (default: the host name)
    #[argh(option, arg_name = "name")]
    pub(super) node: Option<String>,
    /// LAN interface; may be given several times (default: those with a global address)
    #[argh(option, arg_name = "if")]
    pub(super) interface: Vec<String>,
    /// directory for what must survive a restart (default: /var/lib/pilus)
    #[argh(option, arg_name = "dir")]
    pub(super) state_dir: Option<String>,
    /// where eBPF maps and links are pinned (default: /sys/fs/bpf/pilus)
    #[argh(option, arg_name = "dir")]
    pub(super) bpf_root: Option<String>,
    /// admin address, unix:PATH or a loopback HOST:PORT (default: unix:/run/pilus/admin.sock)
    #[argh(option, arg_name = "addr")]
    pub(super) admin: Option<String>,
    /// address of Prometheus metrics, empty for none (default: 127.0.0.1:9965)
    #[argh(option, arg_name = "addr")]
    pub(super) metrics: Option<String>,
    /// stem of the names of generated objects (default: pilus)
    #[argh(option, arg_name = "name")]
    pub(super) name_prefix: Option<String>,
    /// serve on ordinary sockets and announce nothing, for machines without eBPF
    #[argh(switch)]
    pub(super) no_bpf: bool,
    /// serve cluster addresses and node ports as well, on nodes without kube-proxy
    #[argh(switch)]
    pub(super) kube_proxy_replacement: bool,
}

/// validate manifests offline: every fault with file, line and column
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "check",
    help_triggers("-h", "--help"),
    example = "  {command_name} /etc/pilus/manifests\n  {command_name} pool.yaml ingress.yaml",
    note = "Needs neither an agent nor root. Exit code 1 if there is an error; warnings alone are no error."
)]
pub(super) struct Check {
    /// configuration file of the agent they are for (default: the defaults)
    #[argh(option, arg_name = "file")]
    pub(super) config: Option<String>,
    /// files or directories
    #[argh(positional, arg_name = "path")]
    pub(super) paths: Vec<String>,
}

/// show objects with their status, as this node sees them
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "get",
    help_triggers("-h", "--help"),
    example = "  {command_name} svc -A\n  {command_name} ippool\n  {command_name} ingress shop -n web -o yaml\n  {command_name} lease -n kube-system -o json"
)]
pub(super) struct Get {
    /// a kind by any of kubectl's names: svc, ingress, ippool, lease, …
    #[argh(positional)]
    pub(super) kind: String,
    /// the name of one object
    #[argh(positional)]
    pub(super) name: Option<String>,
    /// namespace (default: default)
    #[argh(option, short = 'n', arg_name = "ns")]
    pub(super) namespace: Option<String>,
    /// all namespaces
    #[argh(switch, short = 'A')]
    pub(super) all_namespaces: bool,
    /// table, wide, yaml or json
    #[argh(option, short = 'o', default = "Format::Table", arg_name = "format")]
    pub(super) output: Format,
    /// admin address of the agent
    #[argh(option, arg_name = "addr")]
    pub(super) admin: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Wide,
    Yaml,
    Json,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "yaml" => Ok(Self::Yaml),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not one of table, wide, yaml, json")),
        }
    }
}

macro_rules! client_command {
    ($(#[$attribute:meta])* $name:ident) => {
        #[derive(FromArgs, Debug)]
        $(#[$attribute])*
        pub(super) struct $name {
            /// table, wide, yaml or json
            #[argh(option, short = 'o', default = "Format::Table", arg_name = "format")]
            pub(super) output: Format,
            /// admin address of the agent
            #[argh(option, arg_name = "addr")]
            pub(super) admin: Option<String>,
        }
    };
}

client_command!(
    /// servers, sources, addresses and who holds them, listeners, what is wrong and since when
    #[argh(subcommand, name = "status", help_triggers("-h", "--help"))]
    Status
);
client_command!(
    /// every virtual address and port, its backends, and who holds it
    #[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
    ServiceList
);
client_command!(
    /// the backends of every Service port
    #[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
    EndpointList
);
client_command!(
    /// every known address, its labels and where it is known from
    #[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
    IpList
);
client_command!(
    /// the routes of every listener, in the order in which they are tried
    #[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
    RouteList
);
client_command!(
    /// the settings in effect
    #[argh(subcommand, name = "view", help_triggers("-h", "--help"))]
    ConfigView
);

macro_rules! noun {
    ($(#[$attribute:meta])* $name:ident, $verbs:ident { $verb:ident($arguments:ident) }) => {
        #[derive(FromArgs, Debug)]
        $(#[$attribute])*
        pub(super) struct $name {
            #[argh(subcommand)]
            pub(super) verb: $verbs,
        }

        #[derive(FromArgs, Debug)]
        #[argh(subcommand)]
        pub(super) enum $verbs {
            $verb($arguments),
        }
    };
}

noun!(
    /// virtual addresses and their backends
    #[argh(subcommand, name = "service", help_triggers("-h", "--help"))]
    Service,
    ServiceVerb { List(ServiceList) }
);
noun!(
    /// backends
    #[argh(subcommand, name = "endpoint", help_triggers("-h", "--help"))]
    Endpoint,
    EndpointVerb { List(EndpointList) }
);
noun!(
    /// addresses
    #[argh(subcommand, name = "ip", help_triggers("-h", "--help"))]
    Ip,
    IpVerb { List(IpList) }
);
noun!(
    /// routes
    #[argh(subcommand, name = "route", help_triggers("-h", "--help"))]
    Route,
    RouteVerb { List(RouteList) }
);
noun!(
    /// settings
    #[argh(subcommand, name = "config", help_triggers("-h", "--help"))]
    Config,
    ConfigVerb { View(ConfigView) }
);

/// which address, node, listener, certificate, route and backend a request meets, and why
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "explain",
    help_triggers("-h", "--help"),
    example = "  {command_name} http://192.168.10.211/details/1\n  {command_name} https://shop.example/cart -X POST -H 'x-user: 7'\n  {command_name} http://192.168.10.211/ -H 'Host: shop.example' --from default/client",
    note = "Exit code 1 if the request would not be served."
)]
pub(super) struct Explain {
    /// http://HOST[:PORT]/PATH[?QUERY] or https://…; tls://HOST, tcp://HOST:PORT, udp://HOST:PORT
    #[argh(positional)]
    pub(super) url: String,
    /// method (default: GET)
    #[argh(option, short = 'X', long = "request", arg_name = "method")]
    pub(super) method: Option<String>,
    /// header, 'name: value'; may be given several times
    #[argh(option, short = 'H', arg_name = "header")]
    pub(super) header: Vec<String>,
    /// where the request comes from: an address or NAMESPACE/POD
    #[argh(option, arg_name = "source")]
    pub(super) from: Option<String>,
    /// table, wide, yaml or json
    #[argh(option, short = 'o', default = "Format::Table", arg_name = "format")]
    pub(super) output: Format,
    /// admin address of the agent
    #[argh(option, arg_name = "addr")]
    pub(super) admin: Option<String>,
}

/// flows, with the flags of `hubble observe` (not there yet)
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "observe", help_triggers("-h", "--help"))]
pub(super) struct Observe {
    /// flags of hubble observe
    #[argh(positional, greedy)]
    #[expect(dead_code, reason = "taken, so that the answer is not a complaint about a flag")]
    pub(super) flags: Vec<String>,
}

/// the version of this program
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "version", help_triggers("-h", "--help"))]
pub(super) struct Version {}

/// Options that take a value: their `--name=value`, `-nVALUE` forms are split before parsing.
const SHORT_WITH_VALUE: &[u8] = b"noXH";

/// `--name=value` and `-ojson` as two words each, which is how the parser wants them.
pub(super) fn split_values(words: &[String]) -> Vec<String> {
    let mut out = Vec::with_capacity(words.len());
    let mut plain_from_here = false;
    for word in words {
        let bytes = word.as_bytes();
        let is_value = out.last().is_some_and(|last: &String| takes_value(last));
        plain_from_here |= word == "--" && !is_value;
        if plain_from_here || is_value {
            out.push(word.clone());
        } else if let Some((name, value)) =
            word.split_once('=').filter(|(name, _)| name.starts_with("--"))
        {
            out.extend([name.to_owned(), value.to_owned()]);
        } else if bytes.len() > 2 && bytes[0] == b'-' && SHORT_WITH_VALUE.contains(&bytes[1]) {
            let value = word[2..].strip_prefix('=').unwrap_or(&word[2..]);
            out.extend([word[..2].to_owned(), value.to_owned()]);
        } else {
            out.push(word.clone());
        }
    }
    out
}

fn takes_value(word: &str) -> bool {
    match word.as_bytes() {
        [b'-', short] => SHORT_WITH_VALUE.contains(short),
        _ => matches!(word, "--header" | "--request" | "--from"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_glued_to_their_option_are_split_off() {
        let split = |words: &str| {
            split_values(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).join(" ")
        };
        assert_eq!(split("get svc -ojson -n=web"), "get svc -o json -n web");
        assert_eq!(split("run --node=a=b --no-bpf"), "run --node a=b --no-bpf");
        assert_eq!(split("explain u -H --x=y: -XPOST"), "explain u -H --x=y: -X POST");
        assert_eq!(split("get -A -- --a=b"), "get -A -- --a=b");
    }
}
