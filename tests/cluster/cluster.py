"""What the cases have in common: commands, processes of the cluster, what is seen from outside, load.

Deadlines are many times what is usual: a busy machine is no failure.
"""
import ctypes
import http.client
import json
import os
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOME = Path(os.environ["CLUSTER_HOME"])
CACHE = Path(os.environ["CLUSTER_CACHE"])
BINARY = os.environ["PILUS_BINARY"]
NODES = ["n1", "n2"]
OUTSIDE = ["nsenter", "--net=/run/netns/k8s-cp"]
# What is printed below the cases.
FIGURES = []


class Failure(Exception):
    """What was seen, and not expected."""


def run(*words, fails=False, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, **options)
    if done.returncode and not fails:
        raise Failure(f"{' '.join(map(str, words))}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def kubectl(*words, **options):
    return run(CACHE / "bin/kubectl", "--kubeconfig", HOME / "certs/admin.kubeconfig", "--cache-dir", HOME / "run/kubectl", *words, **options)


def apply(text):
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)


def get(kind, name, namespace="demo"):
    return json.loads(kubectl("get", kind, name, "-n", namespace, "-o", "json"))


def condition(conditions, kind):
    found = [one for one in conditions if one["type"] == kind]
    return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else (None, None, None)


def eventually(what, seconds, look):
    """Calls `look` until it returns something true, which is returned."""
    last, end = None, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            last = look()
            if last:
                return last
        except (Failure, KeyError, IndexError) as error:
            last = error
        time.sleep(0.1)
    raise Failure(f"not within {seconds} s: {what}; last: {last!r}")


def expect(what, is_so, seen=""):
    if not is_so:
        raise Failure(f"{what}: {seen}" if seen != "" else what)


def process(name):
    """The number of a process that the scripts started, if it is still the same one."""
    try:
        pid, start = (HOME / "pids" / f"{name}.pid").read_text().split()
        now = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, ValueError):
        return None
    return int(pid) if now == start else None


def end(name, signal="TERM"):
    pid = process(name)
    expect(f"{name} runs", pid)
    run("kill", f"-{signal}", pid)
    eventually(f"{name} ends", 20, lambda: process(name) is None)


def control_plane(*names):
    run(HERE / "control-plane.sh", *names)
    eventually("the API server is ready", 60, lambda: kubectl("get", "--raw", "/readyz") == "ok")


def agent(node):
    run(HERE / "agents.sh", BINARY, node)
    eventually(f"Pilus on {node} answers", 20, lambda: status(node))


def status(node):
    return run(BINARY, "status", env={**os.environ, "PILUS_ADMIN": f"unix:{HOME}/run/{node}/admin.sock"}, fails=True)


def curl(address, host, path="/", seconds=2):
    """The status code seen outside the nodes; 000: there was none."""
    return run(*OUTSIDE, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", seconds,
               "-H", f"Host: {host}", f"http://{address}{path}", fails=True)


def ingress_address():
    return get("ingress", "web")["status"]["loadBalancer"]["ingress"][0]["ip"]


def gateway_address():
    return get("gateway", "gate")["status"]["addresses"][0]["value"]


def served():
    return curl(ingress_address(), "web.test") == "200" and curl(gateway_address(), "gate.test") == "200"


def holder(address):
    """The node whose hardware address the LAN has for an address."""
    run(*OUTSIDE, "ip", "neigh", "flush", "to", address, fails=True)
    curl(address, "gate.test")
    seen = run("ip", "-n", "k8s-cp", "neigh", "show", "to", address).split()
    if "lladdr" not in seen:
        return None
    mac = seen[seen.index("lladdr") + 1]
    return next((n for n in NODES if mac in run("ip", "-n", f"k8s-{n}", "link", "show", "eth0")), None)


def writer():
    return get("lease", "pilus-controller", "kube-system")["spec"]["holderIdentity"]


def enter_outside():
    """Moves this thread, and no other, into the network namespace of the clients."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/run/netns/k8s-cp") as there:
        if libc.setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


# A connection that the other side knows nothing of.
CUT = {"ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"}


class Load:
    """Asks for each target without a pause until it is left, each request on a connection of its own: `clients` do, one request at a
    time each.

    `results` has a tuple of begin and end (monotonic seconds), target, and status or name of the error.
    """

    def __init__(self, *targets, seconds=2, clients=1):
        self.seconds, self.results, self.ends = seconds, [], threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(target,)) for target in targets * clients]

    def ask(self, target):
        enter_outside()
        while not self.ends.is_set():
            begin = time.monotonic()
            connection = http.client.HTTPConnection(target[0], 80, timeout=self.seconds)
            try:
                connection.request("GET", "/", headers={"Host": target[1]})
                response = connection.getresponse()
                response.read()
                seen = response.status
            except (OSError, http.client.HTTPException) as error:
                seen = type(error).__name__
            connection.close()
            self.results.append((begin, time.monotonic(), target, seen))
            time.sleep(0.01)

    @property
    def count(self):
        return len(self.results)

    @property
    def failures(self):
        return [one for one in self.results if one[3] != 200]

    def gap(self, target):
        """The longest time in seconds without an answer, and when it ended."""
        ends = sorted(end for _, end, of, seen in self.results if of == target and seen == 200)
        return max(((later - sooner, later) for sooner, later in zip(ends, ends[1:])), default=(float("inf"), 0))

    def expect_none_failed(self, what=""):
        expect(f"{what}no request of {self.count} failed", self.count and not self.failures, self.failures[:3])

    def expect_only_cut(self, what, returns):
        """A node that is back gets its addresses back: that cuts the request under way at that moment, and no other. `returns` is how
        often it happens; each client has one request at a time."""
        expect(f"{what}: no request of {self.count} failed but those that a returning address cut", self.count and len(
            self.failures) <= returns * len(self.threads) and all(one[3] in CUT for one in self.failures), self.failures[:5])
        if self.failures:
            FIGURES.append(f"{what}: {len(self.failures)} of {self.count} requests were cut when an address went back to its node")

    def expect_failures_within(self, gaps):
        """Each failure began before the end of the gap of its target."""
        late = [one for one in self.failures if one[0] > gaps[one[2]][1]]
        expect(f"no request of {self.count} failed after the failover", not late, late[:3])

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()


class Answers:
    """Asks the LAN by ARP who has each address, ten times a second, until it is left. `rounds` has for each address a list of sets:
    the hardware addresses that answered one question."""

    ROUND = 0.1

    def __init__(self, *addresses):
        self.rounds, self.ends = {address: [] for address in addresses}, threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        enter_outside()
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as lan:
            lan.bind(("br0", 0x0806))
            us = lan.getsockname()[4]
            while not self.ends.is_set():
                heard = {address: set() for address in self.rounds}
                for address in self.rounds:
                    ours, theirs = socket.inet_aton("10.201.0.1"), socket.inet_aton(address)
                    lan.send(b"\xff" * 6 + us + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + us + ours + bytes(6) + theirs)
                end = time.monotonic() + self.ROUND
                while (left := end - time.monotonic()) > 0:
                    lan.settimeout(left)
                    try:
                        frame = lan.recv(128)
                    except TimeoutError:
                        break
                    answer, address = frame[20:22] == b"\0\2" and frame[:6] == us, socket.inet_ntoa(frame[28:32])
                    if answer and address in heard:
                        heard[address].add(frame[22:28].hex(":"))
                for address, macs in heard.items():
                    self.rounds[address].append(macs)

    def expect_no_duplicate(self):
        for address, rounds in self.rounds.items():
            double = [macs for macs in rounds if len(macs) > 1]
            expect(f"{address}: one hardware address answered each of {len(rounds)} questions", rounds and not double, double[:3])

    def expect_one(self):
        """At the end each address is one node's: nobody has lost it, nobody shares it."""
        for address, rounds in self.rounds.items():
            expect(f"{address}: one node answers at last", len(rounds[-1]) == 1, rounds[-1])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def expect_one_answers(*addresses):
    with Answers(*addresses) as answers:
        time.sleep(1)
    answers.expect_no_duplicate()
    answers.expect_one()


def ask(address, host=None, path="/", method="GET", more=(), trusted=()):
    """What curl gets outside the nodes: status, headers (names in small letters), body (read as JSON if it is). `trusted`: over TLS."""
    named = ["-H", f"Host: {host}"] if host and not trusted else []
    url = f"https://{host}{path}" if trusted else f"http://{address}{path}"
    text = run(*OUTSIDE, "curl", "-s", "-i", "-m", 5, "-X", method, *named, *trusted, *more, url, fails=True)
    head, _, body = text.partition("\n\n")
    lines = head.splitlines()
    if not lines:
        return 0, {}, ""
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    try:
        body = json.loads(body)
    except ValueError:
        pass
    return int(lines[0].split()[1]), headers, body


def certificate(name, *hosts):
    """A certificate that signs itself: (file of the certificate, file of the key)."""
    files = HOME / f"run/{name}.crt", HOME / f"run/{name}.key"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-out", files[0],
        "-keyout", files[1], "-subj", f"/CN={hosts[0]}", "-addext", "subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts))
    return files


def secret(name, namespace, *hosts):
    """Makes a Secret with such a certificate; the words for curl that trust it."""
    crt, key = certificate(name, *hosts)
    text = kubectl("create", "secret", "tls", name, "-n", namespace, f"--cert={crt}", f"--key={key}", "--dry-run=client", "-o", "yaml")
    apply(text)
    return crt


def trusting(crt, host, address, port=443):
    return ["--cacert", crt, "--resolve", f"{host}:{port}:{address}"]


def targets():
    return (ingress_address(), "web.test"), (gateway_address(), "gate.test")




def conditions(of):
    return sorted((one["type"], one["status"], one["reason"]) for one in of.get("conditions", []))


def statuses():
    """All that Pilus has written about the objects of the demo, without times: the same before and after whatever happens."""
    gateway, route = get("gateway", "gate")["status"], get("httproute", "echo")["status"]
    return {
        "ingress": get("ingress", "web")["status"],
        "service": get("service", "balanced")["status"]["loadBalancer"],
        "addresses": gateway["addresses"],
        "gateway": conditions(gateway),
        "listeners": [(one["name"], one["attachedRoutes"], conditions(one)) for one in gateway["listeners"]],
        "route": [(one["controllerName"], conditions(one)) for one in route["parents"]],
        "class": conditions(get("gatewayclass", "pilus")["status"]),
        "pool": [(one["type"], one["status"], one["message"]) for one in get("ippool", "lan")["status"]["conditions"]],
    }


def leases_are_true():
    """Each Lease of an announced address names the node that answers for it."""
    leases = json.loads(kubectl("get", "lease", "-n", "kube-system", "-o", "json"))["items"]
    holders = {one["metadata"]["name"].removeprefix("pilus-l2announce-"): one["spec"].get("holderIdentity") for one in leases
               if one["metadata"]["name"].startswith("pilus-l2announce-")}
    services = json.loads(kubectl("get", "service", "-n", "demo", "-o", "json"))["items"]
    held = {f"demo-{one['metadata']['name']}": holder(one["status"]["loadBalancer"]["ingress"][0]["ip"]) for one in services
            if one["spec"]["type"] == "LoadBalancer"}
    return held and all(holders.get(name) == node for name, node in held.items())
