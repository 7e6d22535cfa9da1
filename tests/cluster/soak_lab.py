"""What the soak and the scale test stand on: the API server without detours, agents in their network namespaces, and a
canary that is asked all the time."""
import http.client
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ["CLUSTER_HOME"])
BINARY = os.environ["PILUS_BINARY"]
ADDRESS = "10.201.0.1"
PORTS = {"n1": 8011, "n2": 8012, "n3": 8013}
SECONDS_FOR_ANSWER = 60


class Failure(Exception):
    """What was seen, and not expected."""


def expect(what, is_so, seen=""):
    if not is_so:
        raise Failure(f"{what}: {seen}" if seen != "" else what)


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def tls():
    context = ssl.create_default_context(cafile=HOME / "certs/ca.crt")
    return context


class Api:
    """The API server, with the rights of an administrator, one request at a time."""

    def __init__(self):
        self.context = tls()
        self.context.load_cert_chain(HOME / "certs/admin.crt", HOME / "certs/admin.key")
        self.connection = None

    def ask(self, method, path, body=None, kind="application/json"):
        """(status, JSON)"""
        text = None if body is None else json.dumps(body)
        # The API server closes a connection that was idle for a while: once more, on a new one.
        for is_last in (self.connection is None, True):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=self.context, timeout=SECONDS_FOR_ANSWER)
            try:
                self.connection.request(method, path, text, {"Content-Type": kind})
                answer = self.connection.getresponse()
                data = answer.read()
                return answer.status, json.loads(data) if data.startswith(b"{") else data
            except (http.client.HTTPException, OSError):
                self.connection.close()
                self.connection = None
                if is_last:
                    raise
        return None

    def must(self, *arguments):
        code, answer = self.ask(*arguments)
        expect(f"{arguments[0]} {arguments[1]} succeeds", code < 300, answer)
        return answer

    def apply(self, path, thing):
        return self.ask("PATCH", f"{path}?fieldManager=soak&force=true", thing, "application/apply-patch+yaml")

    def items(self, path):
        return self.must("GET", path)["items"]


class Agent:
    """One `pilus run` in the network namespace of a node."""

    def __init__(self, name, server=None):
        self.name, self.folder, self.process = name, HOME / "run" / name, None
        self.folder.mkdir(exist_ok=True)
        (self.folder / "pilus.yaml").write_text("ingress: {enforce-https: false}\n")
        server = {"server": server or f"http://{ADDRESS}:{PORTS[name]}", "certificate-authority": str(HOME / "certs/ca.crt")}
        (self.folder / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"tokenFile": str(HOME / "certs/pilus.token")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}))

    def start(self):
        log = open(HOME / "log" / f"{self.name}.log", "ab")
        command = ["nsenter", f"--net=/run/netns/{os.environ['SOAK_NAME']}-{self.name}", BINARY, "run", "--config", self.folder / "pilus.yaml",
                   "--kubeconfig", self.folder / "kubeconfig", "--node", self.name, "--interface", "eth0",
                   "--state-dir", self.folder / "state", "--bpf-root", HOME / "run/bpf" / self.name,
                   "--admin", f"unix:{self.folder}/admin.sock", "--metrics", ""]
        env = {"PILUS_LOG": "info"} | os.environ
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        self.until(30, "it answers", lambda: self.pilus("status", fails=True))

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def until(self, seconds, what, look):
        end = time.monotonic() + seconds
        while not (seen := look()):
            expect(f"{self.name} runs", self.is_alive(), (HOME / "log" / f"{self.name}.log").read_text()[-1000:])
            expect(f"{self.name}: {what} within {seconds} s", time.monotonic() < end)
            time.sleep(0.1)
        return seen

    def pilus(self, *words, fails=False):
        command = [BINARY, *words, "--admin", f"unix:{self.folder}/admin.sock"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_FOR_ANSWER)
        # 1 is an answer: something is wrong somewhere.
        expect(f"pilus {' '.join(words)} on {self.name}", done.returncode in (0, 1) or fails, done.stderr)
        return done.stdout

    def json(self, *words):
        return json.loads(self.pilus(*words, "-o", "json"))

    def memory(self):
        """KiB of RSS."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def cpu(self):
        """Seconds of CPU."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Backends:
    """Echo servers: name → port."""

    def __init__(self, ports):
        words = [f"{name}={ADDRESS}:{port}" for name, port in ports.items()]
        self.process = subprocess.Popen(["python3", HERE.parent / "lab/backends.py", *words], stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Canary:
    """Asks an address again and again, in a thread; what was not answered with 200 is in `failures`."""

    def __init__(self, address, host, pause):
        self.address, self.host, self.pause = address, host, pause
        self.failures, self.count, self.ends = [], 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def ask(self):
        connection = http.client.HTTPConnection(self.address, 80, timeout=5)
        try:
            connection.request("GET", "/", headers={"Host": self.host})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError as error:
            return str(error)
        finally:
            connection.close()

    def run(self):
        while not self.ends.wait(self.pause):
            seen = self.ask()
            self.count += 1
            if seen != 200:
                self.failures.append((time.strftime("%H:%M:%S"), seen))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()
