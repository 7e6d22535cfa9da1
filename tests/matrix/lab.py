"""Three nodes that announce, one that only has pods, a switch, two clients and two watchers, in network namespaces of their own."""
import bisect
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from net import Control, inside, ip, run

HERE = os.path.dirname(os.path.abspath(__file__))
ANNOUNCING, NODES = ["n1", "n2", "n3"], ["n1", "n2", "n3", "n4"]
HOSTS = {"n1": 1, "n2": 2, "n3": 3, "n4": 4, "cl": 100, "wa": 101, "cl2": 102, "wa2": 103}
INGRESSES = {f"page-{i}": f"10.79.0.{200 + i}" for i in (1, 2, 3)}
SERVICES = {f"web-{i}": f"10.79.0.{210 + i}" for i in (1, 2, 3)}
# Its pods are on the nodes that announce, those of all others on the fourth.
NEAR = "10.79.0.220"
ADDRESSES = [*INGRESSES.values(), *SERVICES.values(), NEAR]
# Longer than anything takes; what has not come by then is lost.
PATIENCE = 20


class Failure(Exception):
    """Something that must come true has not."""


def until(what, attempt, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := attempt():
            return value
        time.sleep(0.02)
    raise Failure(what)


def slices(service, nodes):
    endpoints = "".join(f"- {{addresses: [10.80.{HOSTS[node]}.2], nodeName: {node}, conditions: {{ready: true}}}}\n" for node in nodes)
    return (f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: {service}}}}}\n"
            f"addressType: IPv4\nports: [{{name: web, port: 8080, protocol: TCP}}]\nendpoints:\n{endpoints}")


def manifests(far):
    """`far`: the nodes with pods of all Services but NEAR."""
    text = """apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: lan}
spec: {blocks: [{start: 10.79.0.201, stop: 10.79.0.220}]}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: lan}
spec: {loadBalancerIPs: true, nodeSelector: {matchLabels: {edge: "yes"}}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: pilus}
spec: {controller: pilus.dev/ingress-controller}
---
apiVersion: v1
kind: Service
metadata: {name: pages}
spec: {ports: [{name: web, port: 80, targetPort: 8080}]}
"""
    text += slices("pages", far)
    for node in NODES:
        edge = "yes" if node in ANNOUNCING else "no"
        text += (f'---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}, labels: {{edge: "{edge}"}}}}\n'
                 f"status: {{addresses: [{{type: InternalIP, address: 10.79.0.{HOSTS[node]}}}]}}\n")
    for name, address in INGRESSES.items():
        text += (f"---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations:\n"
                 f'    ingress.cilium.io/loadbalancer-mode: dedicated\n    lbipam.cilium.io/ips: "{address}"\n'
                 "spec: {ingressClassName: pilus, rules: [{http: {paths: [{path: /, pathType: Prefix, "
                 "backend: {service: {name: pages, port: {number: 80}}}}]}}]}\n")
    for name, address in [*SERVICES.items(), ("near", NEAR)]:
        text += (f'---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{lbipam.cilium.io/ips: "{address}"}}}}\n'
                 "spec: {type: LoadBalancer, ports: [{name: web, port: 80, targetPort: 8080}]}\n")
        text += slices(name, ANNOUNCING if name == "near" else far)
    return text


class Records:
    """What a probe has written, by address, in the order of asking."""

    def __init__(self, namespace, *arguments):
        self.lines = {}
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, f"{HERE}/probe.py", *arguments],
            stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            if not line.endswith("\n"):
                return  # it was killed at this word
            address, asked, answer = line.split()
            bisect.insort(self.lines.setdefault(address, []), (float(asked), answer))

    def since(self, address, begin, end=float("inf")):
        records = self.lines.get(address, [])
        return records[bisect.bisect(records, (begin,)):bisect.bisect(records, (end,))]

    def forget(self):
        for records in self.lines.values():
            del records[:-1]

    def end(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()


class Node:
    def __init__(self, lab, name):
        self.lab, self.name, self.number = lab, name, HOSTS[name]
        self.namespace, self.port, self.link = lab.ns(name), f"port-{name}", "lan0"
        self.control = Control(self.namespace)
        self.mac = self.control.mac(self.link)
        self.index = lab.switch.index(self.port)
        self.agent = None

    def path(self, name):
        return f"{self.lab.dir}/{self.name}/{name}"

    def start(self, binary=None):
        with open(self.path("log"), "a") as log:
            self.agent = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", binary or self.lab.binary, "run", "--config", self.path("pilus.yaml"),
                 "--manifests", self.path("manifests"), "--state-dir", self.path("state"), "--node", self.name,
                 "--bpf-root", f"{self.lab.dir}/bpf/{self.name}", "--admin", f"unix:{self.path('admin.sock')}", "--metrics", "127.0.0.1:9965"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        self.agent.kill()

    def end(self):
        """SIGTERM, and waits for the end."""
        self.agent.send_signal(signal.SIGTERM)
        try:
            self.agent.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"the agent of {self.name} does not end") from error

    def routes(self):
        """To the pods of the others, as a CNI makes them."""
        for other in NODES:
            if other != self.name:
                ip(self.namespace, f"route replace 10.80.{HOSTS[other]}.0/24 via 10.79.0.{HOSTS[other]}")


class Lab:
    def __init__(self, binary):
        self.binary, self.id = os.path.realpath(binary), f"plmx{os.getpid()}"
        self.dir = tempfile.mkdtemp(prefix=f"{self.id}-")
        self.nodes, self.pods, self.probes = {}, [], []

    def ns(self, name):
        return f"{self.id}-{name}"

    def up(self):
        os.mkdir(f"{self.dir}/bpf")
        run("mount", "-t", "bpf", "bpf", f"{self.dir}/bpf")
        run("ip", "netns", "add", self.ns("sw"))
        for bridge in ("br0", "br1"):
            ip(self.ns("sw"), f"link add {bridge} type bridge")
            ip(self.ns("sw"), f"link set {bridge} up")
        for name in HOSTS:
            self.connect(name)
        self.switch = Control(self.ns("sw"))
        self.bridges = [self.switch.index(bridge) for bridge in ("br0", "br1")]
        for name in NODES:
            self.nodes[name] = Node(self, name)
            self.pod(self.nodes[name])
        self.apply(manifests(["n4"]))
        for node in self.nodes.values():
            with open(node.path("pilus.yaml"), "w") as file:
                file.write("ingress:\n  mode: dedicated\n")
            node.routes()
            node.start()
        self.watch = self.probe("wa", "watch", "lan0", *ADDRESSES)
        self.home = {}
        until("not every address has one holder", lambda: all(self.place()))
        # The preferred node takes over when it has been fit for two seconds.
        time.sleep(5)
        until("not every address has one holder", lambda: all(self.place()))
        self.home = dict(zip(ADDRESSES, self.place()))
        pairs = [(page, web) for page in INGRESSES.values() for web in SERVICES.values() if self.home[page] == self.home[web] != None]
        if not pairs:
            raise Failure(f"no node has an Ingress's and a Service's address: {self.home}")
        self.page, self.web = pairs[0]
        self.ask = self.probe("cl", "ask", self.page, self.web)
        self.settle()

    def probe(self, place, *arguments):
        self.probes.append(Records(self.ns(place), *arguments))
        return self.probes[-1]

    def connect(self, name):
        namespace = self.ns(name)
        run("ip", "netns", "add", namespace)
        ip(namespace, "link set lo up")
        ip(namespace, f"link add lan0 type veth peer name port-{name} netns {self.ns('sw')}")
        ip(self.ns("sw"), f"link set port-{name} master br0 up")
        ip(namespace, f"addr add 10.79.0.{HOSTS[name]}/16 dev lan0")
        ip(namespace, "link set lan0 up")

    def pod(self, node):
        pod, net = self.ns(f"p{node.number}"), f"10.80.{node.number}"
        run("ip", "netns", "add", pod)
        ip(pod, f"link add eth0 type veth peer name vethpod netns {node.namespace}")
        ip(node.namespace, f"addr add {net}.1/24 dev vethpod")
        ip(node.namespace, "link set vethpod up")
        for command in ("link set lo up", f"addr add {net}.2/24 dev eth0", "link set eth0 up", f"route add default via {net}.1"):
            ip(pod, command)
        inside(node.namespace, lambda: write("/proc/sys/net/ipv4/ip_forward", "1"))
        self.pods.append(subprocess.Popen(["nsenter", f"--net=/run/netns/{pod}", sys.executable, f"{HERE}/pod.py", node.name]))
        os.makedirs(node.path("manifests"))

    def apply(self, text):
        for node in self.nodes.values():
            write(node.path("manifests/.new"), text)
            os.rename(node.path("manifests/.new"), node.path("manifests/all.yaml"))

    def logs(self):
        text = ""
        for node in self.nodes.values():
            with open(node.path("log")) as file:
                text += f"--- {node.name}\n" + "".join(file.readlines()[-12:])
        return text

    # What the LAN says.

    def answers(self, address, begin, watch=None):
        return [set() if macs == "-" else set(macs.split(",")) for _, macs in (watch or self.watch).since(address, begin)]

    def holder(self, address, watch=None):
        """The node that alone answered the last questions."""
        last = self.answers(address, time.monotonic() - 0.75, watch)
        macs = set().union(*last)
        if len(last) < 5 or len(macs) != 1 or not all(last):
            return None
        return next((name for name, node in self.nodes.items() if node.mac in macs), None)

    def place(self):
        return [self.holder(address) for address in ADDRESSES]

    def settle(self):
        """Waits until every address is where it was at first and answers; raises Failure naming what is not."""
        def there():
            wrong = [address for address in ADDRESSES if self.holder(address) != self.home[address]]
            recent = time.monotonic() - 0.6
            quiet = [address for address in (self.page, self.web)
                     if not (found := self.ask.since(address, recent, recent + 0.3)) or any(answered == "-" for _, answered in found)]
            self.lacking = f"not back where it was: {wrong}; without steady answers: {quiet}"
            return not wrong and not quiet
        try:
            until("", there)
        except Failure as error:
            raise Failure(self.lacking) from error

    # Connections that stay open.

    def connections(self):
        """One to each pod of NEAR and one to the timed Service; by the node of the pod."""
        found = {}

        def look():
            for address in (NEAR, self.web):
                client = inside(self.ns("cl"), lambda: socket.create_connection((address, 80), 2))
                pod = exchange(client)
                if pod and pod not in found:
                    found[pod] = client
                else:
                    client.close()
            return len(found) == len(NODES)
        until("no connection to each pod", look)
        return found

    def down(self):
        for probe in self.probes:
            probe.end()
        for node in self.nodes.values():
            if node.agent and node.agent.poll() is None:
                node.agent.send_signal(signal.SIGCONT)
                node.agent.kill()
                node.agent.wait()
        for pod in self.pods:
            pod.kill()
            pod.wait()
        for name in os.listdir("/run/netns"):
            if name.startswith(f"{self.id}-"):
                run("ip", "netns", "del", name)
        if os.path.ismount(f"{self.dir}/bpf"):
            run("umount", f"{self.dir}/bpf")
        shutil.rmtree(self.dir)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def exchange(client, seconds=5):
    """One request on an open connection: the name of the pod, or None."""
    try:
        client.settimeout(seconds)
        client.sendall(b"GET / HTTP/1.1\r\nHost: matrix.test\r\n\r\n")
        answer = b""
        while not answer.partition(b"\r\n\r\n")[2]:
            part = client.recv(4096)
            if not part:
                return None
            answer += part
        return answer.partition(b"\r\n\r\n")[2].decode()
    except OSError:
        return None
