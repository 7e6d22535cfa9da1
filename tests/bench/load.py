"""Processes, what they use, and what loads them."""
import glob
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

from proxies import ADDRESS, HOST

PROXY_CORE, LOAD_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")
BODY = "x" * 128


def pinned(core, command, **kwargs):
    return subprocess.Popen(["taskset", "-c", core, *command], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, **kwargs)


def children(pid):
    found = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            for child in open(path).read().split():
                found += children(int(child))
        except OSError:
            pass
    return found


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        # With what ended children have used: a reload ends workers.
        total += sum(int(fields[at]) for at in (11, 12, 13, 14))
    return total / TICK


def rss_kib(pids):
    return sum(int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) for pid in pids)


def ask(port, host=HOST, path="/r1/x", address=ADDRESS):
    try:
        with socket.create_connection((address, port), timeout=1) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in client.recv(256).split(b"\r\n")[0]
    except OSError:
        return False


class Running:
    """The processes that were started, to be ended whatever happens."""

    def __init__(self):
        self.processes = []

    def start(self, name, core, command, port, address=ADDRESS, host=HOST, path="/r1/x"):
        begun = time.monotonic()
        process = pinned(core, command)
        self.processes.append(process)
        while not ask(port, host, path, address):
            if process.poll() is not None:
                sys.exit(f"{name} ended with {process.returncode}: {' '.join(command)}")
            if time.monotonic() - begun > 60:
                sys.exit(f"{name} does not answer on port {port}: {' '.join(command)}")
            time.sleep(0.001)
        return process, time.monotonic() - begun

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in children(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()
        self.processes.remove(process)

    def stop_all(self):
        for process in list(self.processes):
            self.stop(process)


def micros(text):
    found = re.match(r"([\d.]+)(us|ms|s|m)", text)
    if not found:
        return 0.0  # no request was answered
    number, unit = found.groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


def scaled(amount, unit):
    return float(amount) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[unit]


# What went wrong since the last look, for the table.
COMPLAINTS = []


def complain(what, url):
    COMPLAINTS.append(f"{what} ({url})")
    print(f"  errors with {url}: {what}", file=sys.stderr)


def wrk(url, seconds, connections, script=None, headers=(), timeout=10):
    """HTTP/1.1: requests, bytes, and percentiles of the time in µs."""
    arguments = ["-s", script] if script else []
    for header in (f"Host: {HOST}", *headers):
        arguments += ["-H", header]
    result = subprocess.run(["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={timeout}s",
                             "--latency", *arguments, url], capture_output=True, text=True, check=True).stdout
    errors = re.search(r"Non-2xx.*: (\d+)|Socket errors: (.*)", result)
    if errors:
        complain(errors[0], url)
    requests, amount, unit = re.search(r"(\d+) requests in .*?, ([\d.]+)(\wB|B) read", result).groups()
    return {"count": int(requests), "bytes": scaled(amount, unit),
            "p50": micros(re.search(r"50%\s+(\S+)", result)[1]), "p99": micros(re.search(r"99%\s+(\S+)", result)[1])}


def h2load(scheme, port, path, seconds, connections, streams, http1=False):
    """Requests and bytes; the times are the mean and the longest. The name is in the handshake and in the request."""
    url = f"{scheme}://{HOST}{path}"
    result = subprocess.run(["taskset", "-c", LOAD_CORE, "h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=0",
                             f"--connect-to={ADDRESS}:{port}", *(["--h1"] if http1 else []), url], capture_output=True, text=True).stdout
    numbers = re.search(r"requests: (\d+) total, .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", result)
    if not numbers:
        sys.exit(f"h2load {url} failed:\n{result}")
    _, good, failed, errored, _ = map(int, numbers.groups())
    codes = re.search(r"status codes: (\d+) 2xx", result)
    if failed or errored or int(codes[1]) < good:
        complain(f"{failed} failed, {errored} errored, {codes[0]}", url)
    times = re.search(r"time for request:\s+\S+\s+(\S+)\s+(\S+)", result)
    amount, unit = re.search(r"traffic: ([\d.]+)(\wB|B)", result).groups()
    return {"count": int(codes[1]), "bytes": scaled(amount, unit), "p50": micros(times[2]), "p99": micros(times[1])}


def handshakes(port, seconds, processes=4):
    """Full TLS 1.3 handshakes without a request."""
    command = ["taskset", "-c", LOAD_CORE, "openssl", "s_time", "-connect", f"{ADDRESS}:{port}", "-new", "-tls1_3", "-time", str(seconds)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(processes)]
    count = 0
    for process in started:
        text = process.communicate()[0]
        found = re.search(r"(\d+) connections in (\d+) real seconds", text)
        if not found:
            sys.exit(f"openssl s_time failed on port {port}:\n{text}")
        count += int(found[1])
    return {"count": count, "bytes": 0, "p50": 0, "p99": 0}


class Watch:
    """Clients that keep asking, half of them on connections of their own each time; they count what fails."""

    def __init__(self, port, host, path="/r1/x", address=ADDRESS, clients=4):
        self.ended, self.asked, self.failed, self.slowest = False, 0, 0, 0.0
        self.first = None
        self.threads = [threading.Thread(target=self.run, args=((address, port), host, path, number % 2 == 0)) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, address, host, path, keep):
        client = None
        while not self.ended:
            good, begun = False, time.monotonic()
            try:
                client = client or socket.create_connection(address, timeout=10)
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                answer = b""
                while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < len(BODY):
                    piece = client.recv(4096)
                    if not piece:
                        break
                    answer += piece
                good = answer.startswith(b"HTTP/1.1 200 ")
                closing = b"connection: close" in answer.lower()
                if not good and self.first is None:
                    self.first = repr(answer[:100])
            except OSError as error:
                closing = True
                self.first = self.first or repr(error)
            self.asked += 1
            self.failed += not good
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if client and (not keep or not good or closing):
                client.close()
                client = None
            time.sleep(0.001)

    def end(self):
        self.ended = True
        for thread in self.threads:
            thread.join()
        return self.asked, self.failed


def median(rows):
    return [statistics.median(column) for column in zip(*rows)]
