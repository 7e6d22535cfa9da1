#!/usr/bin/env python3
"""Side-by-side measurement of reverse proxies; see scripts/bench."""
import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import load
import reload
from load import BODY, LOAD_CORE, PROXY_CORE, TICK, Running, Watch, ask, children, cpu_seconds, h2load, handshakes, median, rss_kib, wrk
from proxies import ADDRESS, BACKEND_PORT, H2C, HOST, PASSTHROUGH, PLAIN, PORTS, SECURE_BACKEND_PORT, TCP, TLS, Proxies, find_envoy, host_of

CONNECTIONS = 64
ROUTES = 1000


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.running = Running()
        only = options.proxies.split(",") if options.proxies else None
        self.proxies = Proxies(self.path, folder, None if options.no_envoy else find_envoy(), only)
        self.results = []
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

    def backend(self):
        self.path("files/64k", "x" * 65536)
        self.path("files/8m", "x" * (8 << 20))
        places = f"""location / {{ default_type text/plain; return 200 "{BODY}"; }}
  location /r1/64k {{ alias {self.path('files/64k')}; }} location /8m {{ alias {self.path('files/8m')}; }}"""
        config = self.path("backend.conf", f"""
daemon off; worker_processes 1; pid {self.path('backend.pid')}; error_log /dev/null;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; sendfile on; client_max_body_size 0; keepalive_timeout 600s;
  ssl_certificate {self.path('tls.crt')}; ssl_certificate_key {self.path('tls.key')};
  server {{ listen 127.0.0.1:{BACKEND_PORT} backlog=4096; listen 127.0.0.2:{BACKEND_PORT} backlog=4096; {places} }}
  server {{ listen 127.0.0.2:{SECURE_BACKEND_PORT} ssl backlog=4096; {places} }} }}""")
        self.running.start("backend", LOAD_CORE, ["nginx", "-c", config], BACKEND_PORT, address="127.0.0.1")

    def start(self, name, command):
        return self.running.start(name, PROXY_CORE, command, PORTS[name][PLAIN])

    def note(self, part, unit, values, more_is_better=True, detail=None):
        """A line of the table at the end; values by proxy."""
        others = [value for name, value in values.items() if name != "pilus" and value]
        best = (max if more_is_better else min)(others) if others else None
        ratio = None
        if best and values.get("pilus"):
            ratio = values["pilus"] / best if more_is_better else best / values["pilus"]
        self.results.append({"part": part, "unit": unit, "more_is_better": more_is_better, "values": values, "ratio": ratio, "detail": detail})
        shown = "  ".join(f"{name} {value:,.1f}" for name, value in values.items() if value is not None)
        print(f"{part}: {shown} {unit}" + (f"  (ratio {ratio:.2f})" if ratio else "") + (f"  {detail}" if detail else ""), flush=True)

    def compare(self, part, run, routes=1, unit="req/CPU-s", amount="count"):
        """Interleaved rounds of `run(name, seconds)`; the medians per second of the proxy's CPU."""
        options = self.options
        processes = {name: self.start(name, command)[0] for name, command in self.proxies.commands(routes).items()}
        rows = {name: [] for name in processes}
        for turn in range(options.rounds + 1):
            for name, process in processes.items():
                pids = children(process.pid)
                before = cpu_seconds(pids)
                begun = time.monotonic()
                result = run(name, options.seconds if turn else 1)
                took = time.monotonic() - begun
                used = cpu_seconds(pids) - before
                if turn:
                    rows[name].append((result[amount] / max(used, 1 / TICK), result[amount] / took, result["p50"], result["p99"], rss_kib(pids) / 1024))
        for process in processes.values():
            self.running.stop(process)
        medians = {name: median(runs) for name, runs in rows.items()}
        print(f"\n{part}\n{'':10}{unit:>14}{'per s':>12}{'p50 us':>10}{'p99 us':>10}{'RSS MiB':>10}")
        for name, (per_cpu, rate, p50, p99, rss) in medians.items():
            print(f"{name:10}{per_cpu:14.0f}{rate:12.0f}{p50:10.0f}{p99:10.0f}{rss:10.1f}")
        self.note(part, unit, {name: row[0] for name, row in medians.items()}, detail="; ".join(load.COMPLAINTS) or None)
        load.COMPLAINTS.clear()
        return {name: row[0] for name, row in medians.items()}

    # --- the parts

    def http(self):
        self.compare("HTTP/1.1 keep-alive, 128 B", lambda name, s: wrk(f"http://{ADDRESS}:{PORTS[name][PLAIN]}/r1/x", s, CONNECTIONS))

    def tls(self):
        self.compare("TLS 1.3 keep-alive, 128 B", lambda name, s: wrk(f"https://{ADDRESS}:{PORTS[name][TLS]}/r1/x", s, CONNECTIONS))

    def handshake(self):
        self.compare("TLS 1.3 full handshakes", lambda name, s: handshakes(PORTS[name][TLS], s), unit="handshakes/CPU-s")

    def h2(self):
        self.compare("HTTP/2 over TLS, 16 streams", lambda name, s: h2load("https", PORTS[name][TLS], "/r1/x", s, CONNECTIONS, 16))

    def h2c(self):
        self.compare("HTTP/2 without TLS, 16 streams", lambda name, s: h2load("http", PORTS[name][H2C], "/r1/x", s, CONNECTIONS, 16))

    def body(self):
        self.compare("HTTP/1.1 download of 64 KiB", lambda name, s: wrk(f"http://{ADDRESS}:{PORTS[name][PLAIN]}/r1/64k", s, CONNECTIONS))
        script = self.path("upload.lua", 'wrk.method = "POST"\nwrk.body = string.rep("x", 65536)\n')
        self.compare("HTTP/1.1 upload of 64 KiB", lambda name, s: wrk(f"http://{ADDRESS}:{PORTS[name][PLAIN]}/r1/x", s, CONNECTIONS, script))
        self.compare("TLS download of 64 KiB", lambda name, s: wrk(f"https://{ADDRESS}:{PORTS[name][TLS]}/r1/64k", s, CONNECTIONS))

    def connections(self):
        close = ("Connection: close",)
        self.compare("HTTP/1.1, a connection each", lambda name, s: wrk(f"http://{ADDRESS}:{PORTS[name][PLAIN]}/r1/x", s, CONNECTIONS, headers=close))

    def tcp(self):
        self.compare("TCP, 8 MiB pieces", lambda name, s: wrk(f"http://{ADDRESS}:{PORTS[name][TCP]}/8m", s, 8), unit="bytes/CPU-s", amount="bytes")

    def passthrough(self):
        self.compare("TLS passthrough, 8 MiB pieces", lambda name, s: h2load("https", PORTS[name][PASSTHROUGH], "/8m", s, 8, 1, http1=True),
                     unit="bytes/CPU-s", amount="bytes")

    def routes(self):
        """The same load on more and more routes; every request is for another of them."""
        per_cpu = {}
        for count in (10, 1000, 10000):
            script = self.path(f"routes-{count}.lua", f"""
local n, count = 0, {count}
request = function()
  n = n * 1103515245 % 2147483647 + 12345
  local r = n % count + 1
  local host = r == 1 and "{HOST}" or "host" .. r .. ".example.com"
  return wrk.format("GET", "/r" .. r .. "/x", {{["Host"] = host}})
end
""")
            per_cpu[count] = self.compare(f"HTTP/1.1 over {count:,} routes", lambda name, s, script=script:
                                          wrk(f"http://{ADDRESS}:{PORTS[name][PLAIN]}/", s, CONNECTIONS, script), routes=count)
        cost = {name: 100 * (per_cpu[10][name] / per_cpu[10000][name] - 1) for name in per_cpu[10]}
        self.note("CPU per request, 10,000 routes against 10", "% more", cost, more_is_better=False)

    def idle(self):
        for count in (1000, 10000):
            grown, whole = {}, {}
            for name, command in self.proxies.commands(1).items():
                process, _ = self.start(name, command)
                before = rss_kib(children(process.pid))
                clients = []
                for number in range(count):
                    client = socket.socket()
                    # Several source addresses, so that the ports suffice.
                    client.bind((f"127.0.1.{1 + number % 8}", 0))
                    client.connect((ADDRESS, PORTS[name][PLAIN]))
                    client.sendall(f"GET /r1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                    if b" 200 " not in client.recv(1024).split(b"\r\n")[0]:
                        print(f"  {name} refused connection {number}")
                        break
                    clients.append(client)
                time.sleep(0.5)
                after = rss_kib(children(process.pid))
                whole[name] = after / 1024 if len(clients) == count else None
                grown[name] = (after - before) / max(1, len(clients))
                for client in clients:
                    client.close()
                self.running.stop(process)
            detail = "KiB each: " + ", ".join(f"{name} {value:.1f}" for name, value in grown.items())
            self.note(f"RSS with {count:,} idle connections", "MiB", whole, more_is_better=False, detail=detail)

    def footprint(self):
        binaries = self.proxies.binaries()
        times, sizes = {}, {}
        for routes in (1, ROUTES):
            commands = self.proxies.commands(routes)
            for name, command in commands.items():
                runs = []
                for _ in range(self.options.rounds):
                    process, took = self.start(name, command)
                    time.sleep(0.2)
                    runs.append((took * 1000, rss_kib(children(process.pid)) / 1024))
                    self.running.stop(process)
                times[name, routes], sizes[name, routes] = median(runs)
            self.note(f"start to the first answer, {routes:,} routes", "ms", {name: times[name, routes] for name in commands}, more_is_better=False)
            self.note(f"RSS, {routes:,} routes", "MiB", {name: sizes[name, routes] for name in commands}, more_is_better=False)
        self.note("binary", "MiB", {name: os.path.getsize(os.path.realpath(binaries[name])) / 2**20 for name in commands}, more_is_better=False)

    def replace(self, count=10000):
        """All routes are replaced, whole, while clients ask: what fails, and what it takes until the new ones answer."""
        failed, cpu, live = {}, {}, {}
        details = []
        for name, command in self.proxies.commands(count).items():
            process, _ = self.start(name, command)
            port = PORTS[name][PLAIN]
            watch = Watch(port, HOST)
            runs = []
            for version in range(1, self.options.rounds + 1):
                before = cpu_seconds(children(process.pid))
                begun = time.monotonic()
                self.proxies.routes_of(name, count, version)
                written = time.monotonic()
                if name == "nginx":
                    os.kill(children(process.pid)[0], signal.SIGHUP)
                elif name == "haproxy":
                    os.kill(children(process.pid)[0], signal.SIGUSR2)
                while not ask(port, host_of(count), f"/v{version}"):
                    if time.monotonic() - written > 60:
                        sys.exit(f"{name}: version {version} of the routes is not live after 60 s; writing took {written - begun:.1f} s")
                    time.sleep(0.005)
                took = time.monotonic() - written
                time.sleep(1)
                runs.append((took * 1000, cpu_seconds(children(process.pid)) - before))
            asked, failed[name] = watch.end()
            self.running.stop(process)
            live[name], cpu[name] = median(runs)
            details.append(f"{name}: {failed[name]} of {asked}, slowest {watch.slowest * 1000:.0f} ms{', ' + watch.first if watch.first else ''}")
        self.note(f"requests failed while {count:,} routes were replaced {self.options.rounds} times", "requests",
                  {name: float(value) for name, value in failed.items()}, more_is_better=False, detail="; ".join(details))
        self.note(f"{count:,} routes replaced, until live", "ms", live, more_is_better=False)
        self.note(f"{count:,} routes replaced, CPU", "s", cpu, more_is_better=False, detail="with about a second of the same light load for each")

    def reload(self):
        reload.measure(self)

    def report(self):
        names = [name for name in PORTS if any(name in row["values"] for row in self.results)]
        print(f"\n| measurement | unit | {' | '.join(names)} | Pilus against the best other |")
        print(f"|---|---|{'---:|' * (len(names) + 1)}")
        for row in self.results:
            cells = [f"{row['values'][name]:,.4g}" if row["values"].get(name) is not None else "–" for name in names]
            print(f"| {row['part']} | {row['unit']} | {' | '.join(cells)} | {'–' if row['ratio'] is None else format(row['ratio'], '.2f')} |")
        for row in self.results:
            if row["detail"]:
                print(f"\n{row['part']}: {row['detail']}")
        print("\nMedians of interleaved rounds; a ratio above 1 means that Pilus is ahead. Only ratios within one run mean something.")
        if self.options.json:
            with open(self.options.json, "w") as file:
                json.dump(self.results, file, indent=1)


PARTS = ["http", "tls", "handshake", "h2", "h2c", "body", "connections", "routes", "tcp", "passthrough", "idle", "footprint", "replace", "reload"]


def main():
    parser = argparse.ArgumentParser(description="compares Pilus with nginx, HAProxy and Envoy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default=",".join(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--proxies", default="", help="of pilus,nginx,haproxy,envoy")
    parser.add_argument("--json", help="where the table goes as JSON")
    parser.add_argument("--no-envoy", action="store_true")
    options = parser.parse_args()
    wanted = options.only.split(",")
    for part in wanted:
        if part not in PARTS:
            parser.error(f"there is no part {part}")
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the proxy, one for load and backend")
    # 10,000 connections, and both ends of each are in processes that inherit this.
    import resource
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
    except ValueError:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tempfile.mkdtemp(prefix="pilus-bench-")
    os.chmod(folder, 0o755)  # the backend's workers are not root
    bench = Bench(folder, options)
    try:
        bench.backend()
        for part in PARTS:
            if part in wanted:
                getattr(bench, part)()
        bench.report()
    finally:
        bench.running.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


main()
