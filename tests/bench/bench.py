#!/usr/bin/env python3
"""Side-by-side measurement of reverse proxies; see scripts/bench."""
import argparse
import glob
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PROXY_CORE, LOAD_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")
BACKEND_PORT = 18080
CONNECTIONS = 64
PORTS = {"pilus": (18180, 18143), "nginx": (18280, 18243), "haproxy": (18380, 18343), "envoy": (18480, 18443)}
HOST = "bench.example.com"
ROUTES = 1000
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
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def rss_kib(pids):
    return sum(int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) for pid in pids)


def ask(port, host=HOST, path="/r1/x"):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in client.recv(256).split(b"\r\n")[0]
    except OSError:
        return False


class Bench:
    def __init__(self, folder, envoy):
        self.folder = folder
        self.envoy = envoy
        self.running = []
        self.certificate()

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        return path

    def certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
                        "-keyout", self.path("tls.key"), "-out", self.path("tls.crt")],
                       check=True, stderr=subprocess.DEVNULL)
        pem = open(self.path("tls.crt")).read() + open(self.path("tls.key")).read()
        self.path("both.pem", pem)

    def start(self, name, core, command, port, **kwargs):
        begun = time.monotonic()
        process = pinned(core, command, **kwargs)
        self.running.append(process)
        while not ask(port):
            if process.poll() is not None:
                sys.exit(f"{name} ended with {process.returncode}: {' '.join(command)}")
            if time.monotonic() - begun > 20:
                sys.exit(f"{name} does not answer on port {port}: {' '.join(command)}")
            time.sleep(0.001)
        return process, time.monotonic() - begun

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.running.remove(process)

    def stop_all(self):
        for process in list(self.running):
            self.stop(process)

    def backend(self):
        config = self.path("backend.conf", f"""
daemon off; worker_processes 1; pid {self.path('backend.pid')}; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; server {{ listen 127.0.0.1:{BACKEND_PORT} backlog=4096;
  location / {{ default_type text/plain; return 200 "{BODY}"; }} }} }}""")
        self.start("backend", LOAD_CORE, ["nginx", "-c", config], BACKEND_PORT)

    def commands(self, routes):
        made = {"pilus": self.pilus(routes), "nginx": self.nginx(routes), "haproxy": self.haproxy(routes)}
        if self.envoy:
            made["envoy"] = self.envoy_config(routes)
        return made

    def pilus_base(self):
        """What every Ingress needs."""
        return f"""apiVersion: v1
kind: Pod
metadata: {{name: backend, labels: {{app: backend}}}}
spec: {{containers: [{{name: backend, ports: [{{containerPort: {BACKEND_PORT}}}]}}]}}
status: {{podIP: 127.0.0.1}}
---
apiVersion: v1
kind: Service
metadata: {{name: backend}}
spec: {{selector: {{app: backend}}, ports: [{{port: 80, targetPort: {BACKEND_PORT}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: pilus}}
spec: {{controller: pilus.dev/ingress-controller}}
---
apiVersion: v1
kind: Secret
metadata: {{name: tls}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {open(self.path('tls.crt')).read().strip().replace(chr(10), chr(10) + '    ')}
  tls.key: |
    {open(self.path('tls.key')).read().strip().replace(chr(10), chr(10) + '    ')}
"""

    def pilus_command(self, name):
        """Runs on the manifests in NAME/m."""
        plain, tls = PORTS["pilus"]
        root = os.path.join(self.folder, name)
        config = self.path(f"{name}/pilus.yaml", f"ingress:\n  http-port: {plain}\n  https-port: {tls}\n  default-tls-secret: default/tls\n")
        return [os.environ["PILUS_BINARY"], "run", "--config", config, "--manifests", f"{root}/m", "--no-bpf",
                "--state-dir", f"{root}/state", "--admin", f"unix:{root}/admin.sock", "--metrics", "", "--node", "bench"]

    def pilus(self, routes):
        text = self.pilus_base()
        backend = "backend: {service: {name: backend, port: {number: 80}}}"
        for number in range(1, routes + 1):
            host = HOST if number == 1 else f"host{number}.example.com"
            tls_entry = f"\n  tls: [{{hosts: [{host}], secretName: tls}}]" if number == 1 else ""
            text += f"""---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: route{number}
  annotations: {{ingress.cilium.io/loadbalancer-mode: dedicated, ingress.cilium.io/force-https: disabled}}
spec:
  ingressClassName: pilus{tls_entry}
  rules: [{{host: {host}, http: {{paths: [{{path: /r{number}, pathType: Prefix, {backend}}}]}}}}]
""".replace("ingress.cilium.io/loadbalancer-mode: dedicated, ", "ingress.cilium.io/loadbalancer-mode: shared, ")
        self.path(f"pilus-{routes}/m/base.yaml", text)
        return self.pilus_command(f"pilus-{routes}")

    def nginx(self, routes):
        plain, tls = PORTS["nginx"]
        servers = ""
        for number in range(1, routes + 1):
            host = HOST if number == 1 else f"host{number}.example.com"
            listen = f"listen 127.0.0.1:{plain} backlog=4096 reuseport;" if number == 1 else f"listen 127.0.0.1:{plain};"
            if number == 1:
                listen += (f" listen 127.0.0.1:{tls} ssl backlog=4096 reuseport; ssl_certificate {self.path('tls.crt')};"
                           f" ssl_certificate_key {self.path('tls.key')}; ssl_protocols TLSv1.2 TLSv1.3;")
            servers += f"""server {{ {listen} server_name {host}; location /r{number} {{ proxy_pass http://backend;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $request_id; }} }}\n"""
        config = self.path(f"nginx-{routes}.conf", f"""
daemon off; worker_processes 1; pid {self.path('nginx.pid')}; error_log /dev/null;
events {{ worker_connections 9900; }}
http {{ access_log off; keepalive_requests 1000000000; server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  upstream backend {{ server 127.0.0.1:{BACKEND_PORT}; keepalive 256; keepalive_requests 1000000000; }}
  {servers} }}""")
        return ["nginx", "-c", config]

    def haproxy(self, routes):
        plain, tls = PORTS["haproxy"]
        table = "".join(f"{HOST if n == 1 else f'host{n}.example.com'}/r{n} backend\n" for n in range(1, routes + 1))
        table = self.path(f"haproxy-{routes}.map", table)
        config = self.path(f"haproxy-{routes}.cfg", f"""
global
  nbthread 1
  maxconn 9900
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  option forwardfor
  http-reuse always
frontend plain
  bind 127.0.0.1:{plain} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {self.path('both.pem')} backlog 4096 ssl-min-ver TLSv1.2 alpn http/1.1
  http-request set-header X-Forwarded-Proto http
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  use_backend %[base,lower,map_beg({table})]
backend backend
  server one 127.0.0.1:{BACKEND_PORT} pool-max-conn 256
""")
        return ["haproxy", "-db", "-f", config]

    def envoy_config(self, routes):
        plain, tls = PORTS["envoy"]
        hosts = ""
        for number in range(1, routes + 1):
            host = HOST if number == 1 else f"host{number}.example.com"
            hosts += f"""
              - {{name: h{number}, domains: ["{host}", "{host}:*"], routes: [{{match: {{prefix: /r{number}}}, route: {{cluster: backend}}}}]}}"""
        manager = f"""
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          use_remote_address: true
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:{hosts}"""
        config = self.path(f"envoy-{routes}.yaml", f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {plain}}}}}
    filter_chains:
    - filters:{manager}
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {tls}}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{{certificate_chain: {{filename: {self.path('tls.crt')}}}, private_key: {{filename: {self.path('tls.key')}}}}}]
      filters:{manager}
  clusters:
  - name: backend
    connect_timeout: 5s
    load_assignment: {{cluster_name: backend, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {BACKEND_PORT}}}}}}}}}]}}]}}
""")
        return [self.envoy, "--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c", config]

    def load(self, url, seconds, connections):
        result = subprocess.run(["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency",
                                 "-H", f"Host: {HOST}", url], capture_output=True, text=True, check=True).stdout
        def micros(text):
            number, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
            return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
        errors = re.search(r"Non-2xx.*: (\d+)|Socket errors: (.*)", result)
        if errors:
            print(f"  errors with {url}: {errors[0]}", file=sys.stderr)
        return {"requests": int(re.search(r"(\d+) requests in", result)[1]),
                "p50": micros(re.search(r"50%\s+(\S+)", result)[1]), "p99": micros(re.search(r"99%\s+(\S+)", result)[1])}

    def compare(self, title, scheme, rounds, seconds, connections=CONNECTIONS):
        port_index = 1 if scheme == "https" else 0
        processes = {name: self.start(name, PROXY_CORE, command, PORTS[name][0])[0]
                     for name, command in self.commands(1).items()}
        rows = {name: [] for name in processes}
        for turn in range(rounds + 1):
            for name, process in processes.items():
                pids = children(process.pid)
                before = cpu_seconds(pids)
                run = self.load(f"{scheme}://127.0.0.1:{PORTS[name][port_index]}/r1/x", seconds if turn else 1, connections)
                used = cpu_seconds(pids) - before
                if turn:
                    rows[name].append((run["requests"] / max(used, 1 / TICK), run["requests"] / seconds, run["p50"], run["p99"], rss_kib(pids)))
        table(title, rows)
        for process in processes.values():
            self.stop(process)

    def footprint(self):
        print(f"\nStart to the first answered request, and memory, with 1 and with {ROUTES} routes (5 starts each, median)")
        print(f"{'':10}{'start 1':>10}{f'start {ROUTES}':>12}{'RSS 1':>10}{f'RSS {ROUTES}':>10}{'binary':>10}")
        binaries = {"pilus": os.environ["PILUS_BINARY"], "nginx": shutil.which("nginx"), "haproxy": shutil.which("haproxy"), "envoy": self.envoy}
        few, many = self.commands(1), self.commands(ROUTES)
        for name in few:
            cells = {}
            for label, command in (("few", few[name]), ("many", many[name])):
                times, sizes = [], []
                for _ in range(5):
                    process, took = self.start(name, PROXY_CORE, command, PORTS[name][0])
                    time.sleep(0.2)
                    times.append(took * 1000)
                    sizes.append(rss_kib(children(process.pid)) / 1024)
                    self.stop(process)
                cells[label] = statistics.median(times), statistics.median(sizes)
            size = os.path.getsize(os.path.realpath(binaries[name])) / 2**20
            print(f"{name:10}{cells['few'][0]:7.0f} ms{cells['many'][0]:9.0f} ms{cells['few'][1]:6.1f} MiB{cells['many'][1]:6.1f} MiB{size:6.1f} MiB")

    def idle(self, count=9500):
        print(f"\nMemory with {count} idle keep-alive connections")
        for name, command in self.commands(1).items():
            process, _ = self.start(name, PROXY_CORE, command, PORTS[name][0])
            before = rss_kib(children(process.pid))
            clients = []
            for number in range(count):
                client = socket.socket()
                # Several source addresses, so that the ports suffice.
                client.bind((f"127.0.1.{1 + number % 8}", 0))
                client.connect(("127.0.0.1", PORTS[name][0]))
                client.sendall(f"GET /r1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                if b" 200 " not in client.recv(1024).split(b"\r\n")[0]:
                    print(f"  {name} refused connection {number}")
                    break
                clients.append(client)
            time.sleep(0.5)
            after = rss_kib(children(process.pid))
            print(f"{name:10}{after / 1024:8.1f} MiB  ({(after - before) / max(1, len(clients)):.1f} KiB a connection)")
            for client in clients:
                client.close()
            self.stop(process)


    def reload(self, starts=5, changes=50):
        """Load time of many Ingresses, and how long a change takes under load."""
        print(f"\nPilus: {ROUTES} Ingresses, start to all live ({starts} starts, median), and {changes} changes under load")
        port = PORTS["pilus"][0]
        for name, files in (("one file each", True), ("all in one file", False)):
            folder = f"reload-{'many' if files else 'one'}"
            ingresses = [reload_ingress(number, reload_host(number)) for number in range(ROUTES)]
            self.path(f"{folder}/m/base.yaml", self.pilus_base())
            if files:
                for number, text in enumerate(ingresses):
                    self.path(f"{folder}/m/ingress-{number:04}.yaml", text)
            else:
                self.path(f"{folder}/m/ingresses.yaml", "---\n".join(ingresses))
            times = []
            for turn in range(starts):
                begun = time.monotonic()
                process = pinned(PROXY_CORE, self.pilus_command(folder))
                self.running.append(process)
                while not ask(port, reload_host(ROUTES - 1), "/"):
                    if process.poll() is not None or time.monotonic() - begun > 20:
                        sys.exit(f"pilus does not answer: {process.poll()}")
                    time.sleep(0.001)
                # One configuration is swapped in whole: the last host is there, so all are. Proof:
                times.append((time.monotonic() - begun) * 1000)
                missing = [n for n in range(ROUTES) if not ask(port, reload_host(n), "/")]
                if missing:
                    sys.exit(f"{len(missing)} hosts do not answer, the first is {reload_host(missing[0])}")
                if turn < starts - 1:
                    self.stop(process)
            latencies, (asked, failed) = self.changes(folder, ingresses, files, changes)
            self.stop(process)
            p50, p99 = statistics.median(latencies), sorted(latencies)[max(0, -(-len(latencies) * 99 // 100) - 1)]
            print(f"{name:16} start {statistics.median(times):6.0f} ms   change to live p50 {p50:6.1f} ms  p99 {p99:6.1f} ms"
                  f"   {failed} of {asked} requests failed")

    def changes(self, folder, ingresses, files, changes):
        """Moves the host of one Ingress on; the times in ms from the rename until it answers."""
        port = PORTS["pilus"][0]
        load = Load(port, reload_host(0))
        latencies, middle = [], ROUTES // 2
        for number in range(changes):
            host = f"moved-{number}.example.com"
            ingresses[middle] = reload_ingress(middle, host)
            text = ingresses[middle] if files else "---\n".join(ingresses)
            beside = self.path(f"{folder}/new", text)
            target = f"ingress-{middle:04}.yaml" if files else "ingresses.yaml"
            os.rename(beside, os.path.join(self.folder, folder, "m", target))
            begun = time.monotonic()
            while not ask(port, host, "/"):
                if time.monotonic() - begun > 20:
                    sys.exit(f"change {number} is not live after 20 s")
            latencies.append((time.monotonic() - begun) * 1000)
        return latencies, load.end()


class Load:
    """Two clients, one that keeps its connection and one that makes a new one each time; they count."""

    def __init__(self, port, host):
        self.ended, self.asked, self.failed = False, 0, 0
        self.threads = [threading.Thread(target=self.run, args=(port, host, keep)) for keep in (True, False)]
        for thread in self.threads:
            thread.start()

    def run(self, port, host, keep):
        client = None
        while not self.ended:
            good = False
            try:
                client = client or socket.create_connection(("127.0.0.1", port), timeout=5)
                client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                answer = b""
                while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < len(BODY):
                    piece = client.recv(4096)
                    if not piece:
                        break
                    answer += piece
                good = answer.startswith(b"HTTP/1.1 200 ")
            except OSError:
                pass
            self.asked += 1
            self.failed += not good
            if client and not (keep and good):
                client.close()
                client = None
            time.sleep(0.001)

    def end(self):
        self.ended = True
        for thread in self.threads:
            thread.join()
        return self.asked, self.failed


def reload_host(number):
    return f"host-{number}.example.com"


def reload_ingress(number, host):
    backend = "backend: {service: {name: backend, port: {number: 80}}}"
    return f"""apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: route-{number}
  annotations: {{ingress.cilium.io/loadbalancer-mode: shared}}
spec:
  ingressClassName: pilus
  rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, {backend}}}]}}}}]
"""


def table(title, rows):
    print(f"\n{title}")
    print(f"{'':10}{'req/CPU-s':>12}{'req/s':>10}{'p50 us':>10}{'p99 us':>10}{'RSS MiB':>10}{'ratio':>8}")
    medians = {name: [statistics.median(column) for column in zip(*runs)] for name, runs in rows.items()}
    best = max(values[0] for name, values in medians.items() if name != "pilus")
    for name, (per_cpu, rate, p50, p99, rss) in medians.items():
        print(f"{name:10}{per_cpu:12.0f}{rate:10.0f}{p50:10.0f}{p99:10.0f}{rss / 1024:10.1f}{per_cpu / best:8.2f}")
    print("ratio: requests per CPU-second against the best of the others")


def find_envoy():
    for path in glob.glob(os.path.join(os.environ.get("PILUS_BENCH_CACHE", "/nonexistent"), "envoy", "**", "envoy*"), recursive=True):
        if os.path.isfile(path) and os.access(path, os.X_OK) and os.path.getsize(path) > 10 * 2**20:
            return path
    return None


def main():
    parser = argparse.ArgumentParser(description="compares Pilus with nginx, HAProxy and Envoy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="http,tls,footprint,reload,idle")
    parser.add_argument("--no-envoy", action="store_true")
    options = parser.parse_args()
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the proxy, one for load and backend")
    # 10,000 connections on both ends.
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tempfile.mkdtemp(prefix="pilus-bench-")
    bench = Bench(folder, None if options.no_envoy else find_envoy())
    try:
        bench.backend()
        wanted = options.only.split(",")
        if "http" in wanted:
            bench.compare(f"HTTP/1.1 keep-alive, GET, 128 bytes, {CONNECTIONS} connections", "http", options.rounds, options.seconds)
        if "tls" in wanted:
            bench.compare(f"TLS keep-alive, GET, 128 bytes, {CONNECTIONS} connections", "https", options.rounds, options.seconds)
        if "footprint" in wanted:
            bench.footprint()
        if "reload" in wanted:
            bench.reload()
        if "idle" in wanted:
            bench.idle()
    finally:
        bench.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


main()
