"""What scripts/bench-services compares: Pilus and kube-proxy on the same node, with the same Services."""
import glob
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

HOME, CACHE = Path(os.environ["CLUSTER_HOME"]), Path(os.environ["CLUSTER_CACHE"])
NAME, PILUS = os.environ["BENCH_NAME"], os.environ["PILUS_BINARY"]
LOAD = HOME / "load"
CLIENT_CORE, POD_CORE = "0", "1"
PODS = ["10.1.0.2", "10.1.0.3"]
LONGEST_START = 120


def service_address(number):
    """Number 0 is the Service with externalTrafficPolicy: Local."""
    return f"172.30.{16 + number // 256}.{number % 256}"


def inside(place, *words):
    return ["nsenter", f"--net=/run/netns/{NAME}-{place}", *map(str, words)]


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def service(number):
    """Number 0 and 1 have four ports, for all kinds of load; the others one."""
    kinds = [("TCP", 80)] if number > 1 else [("TCP", 80), ("TCP", 81), ("UDP", 80), ("UDP", 81)]
    ports = [{"name": f"{protocol.lower()}-{port}", "port": port, "targetPort": 8000 + port, "protocol": protocol} for protocol, port in kinds]
    spec = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": ports,
            "externalTrafficPolicy": "Cluster" if number else "Local"}
    return {"apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": f"s{number}", "namespace": "default", "annotations": {"lbipam.cilium.io/ips": service_address(number)}}}


def frontends(count):
    """How many there are with `count` Services beside number 0."""
    return count + 7


def endpoints(number):
    ports = [{"name": it["name"], "port": it["targetPort"], "protocol": it["protocol"]} for it in service(number)["spec"]["ports"]]
    both = [{"addresses": [pod], "nodeName": "n1", "conditions": {"ready": True}} for pod in PODS]
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports, "endpoints": both,
            "metadata": {"name": f"s{number}", "namespace": "default", "labels": {"kubernetes.io/service-name": f"s{number}"}}}


NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.2"}]}}
POOL = {"apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "lan"},
        "spec": {"blocks": [{"start": service_address(0), "stop": "172.30.63.255"}]}}


class Api:
    """Writes the objects to the API server, some at a time."""

    def __init__(self):
        self.context = ssl.create_default_context(cafile=HOME / "certs/ca.crt")
        self.context.load_cert_chain(HOME / "certs/admin.crt", HOME / "certs/admin.key")
        self.count = 0

    def ask(self, connection, method, path, body):
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection.request(method, path, json.dumps(body), {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")

    def write(self, numbers):
        connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=self.context, timeout=60)
        try:
            for number in numbers:
                if number == 0:
                    self.ask(connection, "POST", "/api/v1/nodes", NODE)
                    self.ask(connection, "PATCH", "/api/v1/nodes/n1/status", {"status": NODE["status"]})
                spaces = "/namespaces/default"
                self.ask(connection, "POST", f"/apis/discovery.k8s.io/v1{spaces}/endpointslices", endpoints(number))
                self.ask(connection, "POST", f"/api/v1{spaces}/services", service(number))
                ingress = {"status": {"loadBalancer": {"ingress": [{"ip": service_address(number), "ipMode": "VIP"}]}}}
                self.ask(connection, "PATCH", f"/api/v1{spaces}/services/s{number}/status", ingress)
        except Exception as error:  # it ends the thread, and must end the run
            self.failed = error

    def grow(self, count):
        """So many Services, and the one with policy Local."""
        self.failed = None
        missing = range(self.count, count + 1) if self.count else range(count + 1)
        threads = [threading.Thread(target=self.write, args=(missing[part::4],)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failed:
            raise SystemExit(f"the API server: {self.failed}")
        self.count = count + 1


class Subject:
    """One of the two. At most one is in place at a time."""

    process = None

    def launch(self, name, command):
        log = open(HOME / "log" / f"{name}.log", "ab")
        self.process = subprocess.Popen(inside("node", *command), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def end(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def timed_start(self, count):
        """Starts it; the seconds until the last Service answers, which is until all are in place."""
        begun = time.monotonic()
        self.start()
        until = float(run(*inside("client", LOAD, "wait", service_address(count), 80, LONGEST_START)))
        self.expect(count)
        return until - begun


class Direct(Subject):
    """No service: the client asks the Pods by their own addresses, and the node only forwards."""
    name = "Pods"


class Pilus(Subject):
    name = "Pilus"
    root = HOME / "run/bpf/pilus"
    manifests = HOME / "manifests"
    part = 500

    def grow(self, count):
        """Writes the manifests, in files of some hundred Services; the others stay as they are."""
        self.manifests.mkdir(exist_ok=True)
        first = [NODE, POOL, service(0), endpoints(0)]
        self.put("first", first)
        for at in range(1, count + 1, self.part):
            numbers = range(at, min(at + self.part, count + 1))
            self.put(f"services-{at}", [make(number) for number in numbers for make in (service, endpoints)])

    def put(self, name, objects):
        new = HOME / "run" / f"{name}.new"
        new.write_text("\n---\n".join(json.dumps(it) for it in objects))
        new.rename(self.manifests / f"{name}.yaml")

    def start(self):
        config = HOME / "run/pilus.yaml"
        config.write_text("ingress: {enforce-https: false}\n")
        self.launch("pilus", [PILUS, "run", "--config", config, "--manifests", self.manifests, "--node", "n1", "--interface", "lan0",
                              "--state-dir", HOME / "run/state", "--bpf-root", self.root, "--admin", f"unix:{HOME}/run/admin.sock", "--metrics", ""])

    def stop(self):
        self.end()
        shutil.rmtree(self.root)
        # The kernel takes programs off some time after their links have gone.
        end = time.monotonic() + 20
        while subprocess.run(inside("client", LOAD, "wait", service_address(1), 80, 0.2), capture_output=True).returncode == 0:
            if time.monotonic() > end:
                raise SystemExit("Pilus is stopped, and a service answers still")

    def frontends(self):
        """How many frontends are in the kernel; echo requests have an entry of their own for each address."""
        path = self.root / "maps/frontends"
        return run("bpftool", "map", "dump", "pinned", path).count("key:") if path.exists() else 0

    def expect(self, count):
        end = time.monotonic() + 10
        while self.frontends() != frontends(count) + count + 1:
            if time.monotonic() > end:
                raise SystemExit(f"Pilus has {self.frontends()} entries for {count + 1} Services: {log_of('pilus')}")

    def maps(self):
        shown = [json.loads(run("bpftool", "-j", "map", "show", "pinned", path)) for path in glob.glob(f"{self.root}/maps/*")]
        return {one["name"]: one for one in shown}

    def programs(self):
        """Name to (nanoseconds, runs) since they were loaded."""
        links = [json.loads(run("bpftool", "-j", "link", "show", "pinned", path)) for path in glob.glob(f"{self.root}/links/service*")]
        shown = [json.loads(run("bpftool", "-j", "prog", "show", "id", number)) for number in {link["prog_id"] for link in links}]
        return {one["name"]: (one.get("run_time_ns", 0), one.get("run_cnt", 0)) for one in shown}


class KubeProxy(Subject):
    name = "kube-proxy"
    metrics = "http://10.201.0.11:10249/metrics"

    def start(self):
        config = HOME / "run/kube-proxy.yaml"
        config.write_text(json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
            "hostnameOverride": "n1", "clusterCIDR": "10.1.0.0/24", "bindAddress": "0.0.0.0",
            "metricsBindAddress": "0.0.0.0:10249", "healthzBindAddress": "127.0.0.1:10256",
            # The size of the kernel's table is this machine's, not the namespace's.
            "conntrack": {"maxPerCore": 0, "min": 0}, "clientConnection": {"kubeconfig": str(HOME / "certs/kube-proxy.kubeconfig")}}))
        self.launch("kube-proxy", [CACHE / "bin/kube-proxy", f"--config={config}"])

    def stop(self):
        self.end()
        for family in ("ip", "ip6"):
            subprocess.run(inside("node", "nft", "delete", "table", family, "kube-proxy"), stderr=subprocess.DEVNULL)
        run(*inside("node", "conntrack", "-F"))

    def expect(self, count):
        elements = run(*inside("node", "nft", "list", "map", "ip", "kube-proxy", "service-ips"))
        found = len(re.findall(r"172\.30\.\d+\.\d+ \. ", elements))
        if found != frontends(count):
            raise SystemExit(f"kube-proxy has {found} of {frontends(count)} elements: {log_of('kube-proxy')}")

    def sync_seconds(self):
        """The longest of its own syncs of the rules since it was started."""
        text = urllib.request.urlopen(self.metrics, timeout=20).read().decode()
        total = re.findall(r'kubeproxy_sync_(?:full_)?proxy_rules_duration_seconds_sum(?:{[^}]*})? (\S+)', text)
        return max(map(float, total), default=0.0)


def log_of(name):
    return (HOME / "log" / f"{name}.log").read_text()[-2000:]
