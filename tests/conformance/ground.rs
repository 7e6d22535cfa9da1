//! The ground the scenarios stand on: one agent, its client and all pods, each in a network namespace on one LAN.
//! Everything is removed on drop, also when a test fails.
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use pilus::proto::value::{Value, parse_json, to_json_compact};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::bpf_lab::{Namespace, eventually, run};

/// The class, the pool, the policy to announce, and the node.
const BASE: &str = "\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: pool}
spec: {blocks: [{start: 10.78.1.1, stop: 10.78.1.250}]}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: all}
spec: {loadBalancerIPs: true}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kit}
spec: {controllerName: pilus.dev/gateway-controller}
---
apiVersion: v1
kind: Node
metadata: {name: node}
status: {addresses: [{type: InternalIP, address: 10.78.0.1}]}
";

/// A peer program that answers each line on its standard input by one on its standard output.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A certificate and its key in PEM.
pub(crate) type Pem = (String, String);

pub(crate) struct Ground {
    id: String,
    dir: PathBuf,
    node: Namespace,
    pods: Namespace,
    pub(crate) ask: Peer,
    pub(crate) echo: Peer,
    agent: Option<Child>,
    /// By scenario and name of the Service.
    addresses: HashMap<(String, String), Vec<String>>,
    /// By scenario and name without namespace.
    certificates: HashMap<(String, String), Pem>,
    authorities: HashMap<(String, String), (Issuer<'static, KeyPair>, String)>,
    next_pod: u16,
    /// Addresses where TLS is spoken.
    tls: Vec<String>,
}

// === impl Peer ===

impl Peer {
    fn start(namespace: &Namespace, script: &str, log: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace.0))
            .arg(crate::python::interpreter())
            .arg(root.join("tests/conformance").join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut peer = Self { child, input, output: BufReader::new(output) };
        peer.read();
        peer
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        parse_json(&line).unwrap_or_else(|e| panic!("the peer said {line:?}: {e:?}"))
    }

    /// Sends one line and returns what comes back.
    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.input, "{}", to_json_compact(question)).unwrap();
        self.read()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Ground ===

impl Ground {
    /// A LAN with a node whose agent does not run yet.
    pub(crate) fn new(area: &str) -> Self {
        let id = format!("pilus-conf-{}-{}", area.replace('_', "-"), std::process::id());
        let dir = std::env::temp_dir().join(&id);
        let guard = Leftovers { id: id.clone(), dir: dir.clone() };
        fs::create_dir_all(dir.join("manifests")).unwrap();
        fs::create_dir_all(dir.join("bpf")).unwrap();
        run(&format!("mount -t bpf bpf {}", dir.join("bpf").display()));
        let name = |what: &str| Namespace(format!("{id}-{what}"));
        let (lan, node, client, pods) = (name("lan"), name("node"), name("client"), name("pods"));
        run(&format!("ip netns add {}", lan.0));
        run(&format!("ip -n {} link add br0 type bridge", lan.0));
        run(&format!("ip -n {} link set br0 up", lan.0));
        for (ns, address) in [(&node, "10.78.0.1"), (&client, "10.78.0.100"), (&pods, "10.78.64.1")]
        {
            connect(&lan, ns, address);
        }
        let ask = Peer::start(&client, "client.py", &dir.join("client.log"));
        let echo = Peer::start(&pods, "echo.py", &dir.join("echo.log"));
        std::mem::forget(guard);
        let (addresses, certificates) = (HashMap::new(), HashMap::new());
        let ground = Self {
            id,
            dir,
            node,
            pods,
            ask,
            echo,
            agent: None,
            addresses,
            certificates,
            authorities: HashMap::new(),
            next_pod: 0,
            tls: Vec::new(),
        };
        ground.write("0-base", BASE);
        ground
    }

    pub(crate) fn client_namespace(&self) -> String {
        format!("{}-client", self.id)
    }

    pub(crate) fn pods_namespace(&self) -> String {
        format!("{}-pods", self.id)
    }

    /// Puts a file into the manifests, whole.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.dir.join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.dir.join("manifests").join(format!("{name}.yaml"))).unwrap();
    }

    pub(crate) fn start(&mut self) {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let log = fs::File::create(self.dir.join("log")).unwrap();
        fs::write(self.dir.join("pilus.yaml"), "{}\n").unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.node.0))
            .arg(env!("CARGO_BIN_EXE_pilus"))
            .args(["run", "--config", &at("pilus.yaml"), "--manifests", &at("manifests")])
            .args(["--state-dir", &at("state"), "--node", "node", "--interface", "eth1"])
            .args(["--admin", &self.admin(), "--metrics", ""])
            .args(["--bpf-root", &at("bpf/pilus")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
        eventually("the agent does not answer", || {
            let ended = self.agent.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended: {}", self.log());
            self.pilus(&["status", "-o", "json"]).ok()
        });
    }

    fn admin(&self) -> String {
        format!("unix:{}", self.dir.join("admin.sock").display())
    }

    /// What a client command prints, or what it complains about.
    pub(crate) fn pilus(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_pilus"))
            .args(arguments)
            .env("PILUS_ADMIN", self.admin())
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The object as `pilus get -o json` prints it.
    pub(crate) fn object(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, String> {
        let text = self.pilus(&["get", kind, name, "-n", namespace, "-o", "json"])?;
        parse_json(&text).map_err(|e| format!("{e:?}"))
    }

    /// The last lines of the agent's log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The addresses of the pods of a Service, which has `count` of them from now on.
    pub(crate) fn pods(&mut self, scenario: &str, service: &str, count: usize) -> Vec<String> {
        let key = (scenario.to_owned(), service.to_owned());
        let mut addresses = self.addresses.remove(&key).unwrap_or_default();
        while addresses.len() < count {
            self.next_pod += 1;
            let address = format!("10.78.{}.{}", 65 + self.next_pod / 250, 1 + self.next_pod % 250);
            run(&format!("ip -n {} addr add {address}/16 dev eth1", self.pods.0));
            self.echo.ask(&Value::map().with("udp", &*address));
            addresses.push(address);
        }
        self.addresses.insert(key, addresses.clone());
        addresses.truncate(count);
        addresses
    }

    pub(crate) fn addresses(&self, scenario: &str, service: &str) -> &[String] {
        let found = self.addresses.get(&(scenario.to_owned(), service.to_owned()));
        found.unwrap_or_else(|| panic!("{scenario} has no pods of {service}"))
    }

    /// The Service, as the scenario names it, that has a pod at this address.
    pub(crate) fn service_at(&self, scenario: &str, address: &str) -> Option<String> {
        let mut found = self.addresses.iter().filter(|((of, _), _)| of == scenario);
        let ((_, service), _) = found.find(|(_, all)| all.iter().any(|it| it == address))?;
        Some(service.clone())
    }

    /// A certificate authority in PEM; the same for the same name.
    pub(crate) fn authority(&mut self, scenario: &str, name: &str) -> String {
        let key = (scenario.to_owned(), name.to_owned());
        let made = self.authorities.entry(key).or_insert_with(|| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, format!("{name} of {scenario}"));
            let pair = KeyPair::generate().unwrap();
            let pem = params.self_signed(&pair).unwrap().pem();
            (Issuer::new(params, pair), pem)
        });
        let pem = made.1.clone();
        let file = self.dir.join(format!("{scenario}.{name}.ca"));
        fs::write(file, &pem).unwrap();
        pem
    }

    /// A certificate for `NAMES [by CA]`, self-signed without a CA. A repetition gives the same one.
    pub(crate) fn certificate(&mut self, scenario: &str, name: &str, text: &str) -> Pem {
        let key = (scenario.to_owned(), name.to_owned());
        if let Some(made) = self.certificates.get(&key) {
            return made.clone();
        }
        let (names, authority) = text.split_once(" by ").unwrap_or((text, ""));
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.split(' ').map(subject).collect();
        let pair = KeyPair::generate().unwrap();
        let certificate = match authority {
            "" => params.self_signed(&pair).unwrap(),
            authority => {
                self.authority(scenario, authority);
                let signer = &self.authorities[&(scenario.to_owned(), authority.to_owned())].0;
                params.signed_by(&pair, signer).unwrap()
            }
        };
        let made = (certificate.pem(), pair.serialize_pem());
        fs::write(self.file(scenario, name, "crt"), &made.0).unwrap();
        fs::write(self.file(scenario, name, "key"), &made.1).unwrap();
        self.certificates.insert(key, made.clone());
        made
    }

    /// A certificate's file (`crt`), its key (`key`), or an authority (`ca`).
    pub(crate) fn file(&self, scenario: &str, name: &str, what: &str) -> String {
        self.dir.join(format!("{scenario}.{name}.{what}")).display().to_string()
    }

    /// The certificate of the scenario that has this DER (in base64, as the peers report it).
    pub(crate) fn certificate_name(&self, scenario: &str, der: &str) -> String {
        if der.is_empty() {
            return "-".to_owned();
        }
        let body =
            |pem: &str| pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        let mut all = self.certificates.iter().filter(|((of, _), _)| of == scenario);
        let found = all.find(|(_, (pem, _))| body(pem) == der);
        found.map_or_else(|| format!("another: {der}"), |((_, name), _)| name.clone())
    }

    /// Starts TLS on port 8443 of a pod.
    pub(crate) fn speak_tls(
        &mut self,
        scenario: &str,
        name: &str,
        ca: Option<&str>,
        address: &str,
    ) {
        if self.tls.iter().any(|it| it == address) {
            return;
        }
        self.tls.push(address.to_owned());
        let mut command = Value::map()
            .with("tls", address)
            .with("port", 8443_i64)
            .with("cert", &*self.file(scenario, name, "crt"))
            .with("key", &*self.file(scenario, name, "key"));
        if let Some(ca) = ca {
            self.authority(scenario, ca);
            command.set("ca", &*self.file(scenario, ca, "ca"));
        }
        self.echo.ask(&command);
    }
}

/// A DNS name, or a URI.
fn subject(name: &str) -> SanType {
    if name.contains("://") {
        return SanType::URI(name.try_into().unwrap());
    }
    SanType::DnsName(name.try_into().unwrap())
}

fn connect(lan: &Namespace, ns: &Namespace, address: &str) {
    let port = format!("p{}", address.replace('.', "-"));
    run(&format!("ip netns add {}", ns.0));
    run(&format!("ip -n {} link set lo up", ns.0));
    run(&format!("ip link add eth1 netns {} type veth peer name {port} netns {}", ns.0, lan.0));
    run(&format!("ip -n {} link set {port} master br0 up", lan.0));
    run(&format!("ip -n {} addr add {address}/16 dev eth1", ns.0));
    run(&format!("ip -n {} link set eth1 up", ns.0));
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        self.ask.end();
        self.echo.end();
        drop(Leftovers { id: self.id.clone(), dir: self.dir.clone() });
    }
}

/// What a ground leaves on the machine.
struct Leftovers {
    id: String,
    dir: PathBuf,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}-", self.id)) {
                let _ = Command::new("ip").args(["netns", "del", &name]).output();
            }
        }
        let _ = Command::new("umount").arg("-l").arg(self.dir.join("bpf")).output();
        // For a look at manifests and logs after a failure.
        if std::env::var_os("PILUS_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
