#!/usr/bin/env python3
"""Side-by-side measurement of L4 services; see scripts/bench-services."""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import time
from pathlib import Path

from service_ground import CLIENT_CORE, HOME, LOAD, NAME, POD_CORE, PODS, Api, Direct, KubeProxy, Pilus, inside, run, service_address

PARTS = ["connect", "ask", "bulk", "small", "program", "memory", "packets"]
PARALLEL = 64
STREAMS = 4
# Connections of which the memory is counted; fewer than either table has room for.
CONNECTIONS = 50000
ACCOUNT = [Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")]


class Account:
    """The CPU time of all that is in a control group: load and Pods, and what the kernel does for their packets, which it does on their
    time. What else runs on the machine is not in it."""

    def __init__(self):
        self.root = next(root for root in ACCOUNT if (root / "cgroup.procs").exists())
        self.folder = self.root / f"{NAME}-{os.getpid()}"
        self.folder.mkdir()
        # Packets that were too many at once are the work of these threads.
        self.threads = [pid for pid in os.listdir("/proc") if pid.isdigit() and comm(pid).startswith("ksoftirqd/")]

    def enter(self):
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self):
        usage = self.folder / "cpuacct.usage"
        own = int(usage.read_text()) / 1e9 if usage.exists() else int(re.search(r"usage_usec (\d+)", (self.folder / "cpu.stat").read_text())[1]) / 1e6
        return own + sum(int(open(f"/proc/{pid}/schedstat").read().split()[0]) for pid in self.threads) / 1e9

    def close(self):
        (self.root / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(50):
            try:
                return self.folder.rmdir()
            except OSError:
                time.sleep(0.1)


def comm(pid):
    try:
        return open(f"/proc/{pid}/comm").read()
    except OSError:
        return ""


def slab_bytes():
    """What the kernel's allocators have given out."""
    text = open("/proc/meminfo").read()
    return sum(int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) * 1024 for name in ("SUnreclaim", "VmallocUsed"))


class Bench:
    def __init__(self, options):
        self.options = options
        self.only = options.only.split(",")
        self.api, self.pilus, self.proxy = Api(), Pilus(), KubeProxy()
        self.direct = Direct()
        self.subjects = [self.pilus, self.direct, self.proxy]
        self.account = Account()
        self.pods = []
        self.rows, self.records = {}, 0
        self.notes = []

    # Load.

    def start_pods(self):
        for number in (0, 1):
            for offset in (0, 8000):
                command = inside(f"pod{number}", "taskset", "-c", POD_CORE, LOAD, "serve", offset)
                self.pods.append(subprocess.Popen(command, preexec_fn=self.account.enter))

    def load(self, *words):
        """(amount, failed, seconds, CPU-seconds)"""
        recorder = self.record(words)
        before = self.account.seconds()
        done = subprocess.run(inside("client", "taskset", "-c", CLIENT_CORE, LOAD, *words), capture_output=True, text=True, preexec_fn=self.account.enter)
        used = self.account.seconds() - before
        if recorder:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
        if done.returncode:
            raise SystemExit(f"load {' '.join(map(str, words))}: {done.stderr}")
        amount, failed, seconds = map(float, done.stdout.split())
        if failed > amount / 1000:
            print(f"  {failed:.0f} of {amount:.0f} failed: {' '.join(map(str, words))}", flush=True)
        return amount, failed, seconds, used

    def record(self, words):
        if not self.options.perf:
            return None
        Path(self.options.perf).mkdir(exist_ok=True)
        self.records += 1
        path = f"{self.options.perf}/{self.records:03}-{'-'.join(map(str, words))}.perf"
        recorder = subprocess.Popen(["perf", "record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", "2000", "-o", path])
        time.sleep(0.5)
        return recorder

    def note(self, what, unit, subject, value):
        self.rows.setdefault((what, unit), {}).setdefault(subject.name, []).append(value)

    def measure(self, what, unit, subject, scale, *words):
        amount, _, seconds, used = self.load(*words)
        self.note(what, unit + "/s", subject, amount * scale / seconds)
        self.note(what, unit + " per CPU-s", subject, amount * scale / used)

    def loads(self, subject, count):
        seconds = self.options.seconds
        local, usual = (service_address(0), service_address(1)) if subject is not self.direct else (PODS[0], PODS[0])
        several = f"{count:,} service{'s' if count > 1 else ''}"
        over = count if subject is not self.direct else 2
        if "connect" in self.only:
            self.measure(f"new TCP connections, {several}", "1", subject, 1, "connect", usual, over, seconds, PARALLEL)
            if subject is not self.direct:
                self.measure(f"new TCP connections, policy Local, {several}", "1", subject, 1, "connect", local, 1, seconds, PARALLEL)
        if "ask" in self.only:
            self.measure(f"UDP requests, {several}", "1", subject, 1, "ask", usual, 1, seconds, PARALLEL)
        if "bulk" in self.only:
            self.measure(f"TCP, {several}", "Gbit", subject, 8e-9, "bulk", usual, seconds, STREAMS)
        if "small" in self.only:
            self.offload("off")
            self.measure(f"TCP without segmentation offload, {several}", "Gbit", subject, 8e-9, "bulk", usual, seconds, STREAMS)
            self.offload("on")

    def offload(self, state):
        """Segments of the wire's size, as between machines whose cards do not join them."""
        for place, link in (("client", "lan0"), ("pod0", "eth0"), ("pod1", "eth0")):
            run(*inside(place, "ethtool", "-K", link, "tso", state, "gso", state))

    # The parts.

    def round(self, count, turn):
        # Each is first as often as the other.
        for subject in self.subjects if turn % 2 == 0 else reversed(self.subjects):
            if subject is self.direct:
                self.loads(subject, count)
                continue
            took = subject.timed_start(count)
            if "program" in self.only:
                self.note(f"start until {count:,} services answer", "s", subject, took)
                if subject is self.proxy:
                    self.notes.append(f"kube-proxy's own syncs of {count:,} services: {subject.sync_seconds():.2f} s")
            self.load("connect", service_address(1), count, 0.5, PARALLEL)
            self.loads(subject, count)
            if "memory" in self.only and turn == 0:
                self.memory(subject, count)
            subject.stop()
            say(f"{subject.name}, {count:,} services, round {turn + 1}")

    def memory(self, subject, count):
        if subject is self.pilus:
            maps = subject.maps()
            flows = maps["flows"]
            self.note(f"memory of the table, {count:,} services", "KiB", subject,
                      sum(one["bytes_memlock"] for one in maps.values() if one["name"] in ("frontends", "maglev", "backends", "sources")) / 1024)
            # Two for a connection, all of them allocated from the start.
            self.note("memory of a connection", "bytes", subject, 2 * flows["bytes_memlock"] / flows["max_entries"])
            return
        run(*inside("node", "conntrack", "-F"))
        time.sleep(2)
        before = slab_bytes()
        self.load("flows", service_address(1), 1, CONNECTIONS)
        tracked = int(run(*inside("node", "cat", "/proc/sys/net/netfilter/nf_conntrack_count")))
        with_flows = slab_bytes()
        self.note("memory of a connection", "bytes", subject, (with_flows - before) / tracked)
        run(*inside("node", "conntrack", "-F"))
        subject.end()
        time.sleep(2)
        before = slab_bytes()
        for family in ("ip", "ip6"):
            run(*inside("node", "nft", "delete", "table", family, "kube-proxy"))
        time.sleep(2)
        self.note(f"memory of the table, {count:,} services", "KiB", subject, (before - slab_bytes()) / 1024)

    def programming(self, before, count):
        """The manifests of `count` services are written while it runs with some."""
        self.pilus.timed_start(before)
        begun, first = time.monotonic(), None
        self.pilus.grow(count)
        written, there = time.monotonic(), self.pilus.frontends()
        last = subprocess.Popen(inside("client", LOAD, "wait", service_address(count), 80, 60), stdout=subprocess.PIPE, text=True)
        until = float(last.communicate()[0])
        self.pilus.expect(count)
        self.note(f"{before:,} to {count:,} services, until all answer", "s", self.pilus, until - begun)
        self.notes.append(f"{before:,} to {count:,} services: writing the manifests took {written - begun:.2f} s of that")
        self.pilus.stop()

    def packets(self):
        """What a run of a program costs, by the kernel's own count."""
        was = run("sysctl", "-n", "kernel.bpf_stats_enabled").strip()
        run("sysctl", "-qw", "kernel.bpf_stats_enabled=1")
        try:
            self.pilus.timed_start(self.options.services[-1])
            for what, words in (("first packets (UDP)", ("flows", service_address(1), 1, 100000)),
                                ("UDP requests and answers", ("ask", service_address(1), 1, self.options.seconds, PARALLEL)),
                                ("connections, opened and closed", ("connect", service_address(1), 1, self.options.seconds, PARALLEL))):
                before = self.pilus.programs()
                amount = self.load(*words)[0]
                after = self.pilus.programs()
                for name in sorted(after):
                    time_ns, runs = (b - a for a, b in zip(before.get(name, (0, 0)), after[name]))
                    if runs:
                        self.notes.append(f"{what}: {name} {time_ns / runs:.0f} ns a run, {runs / amount:.2f} runs for each")
        finally:
            run("sysctl", "-qw", f"kernel.bpf_stats_enabled={was}")
            self.pilus.stop()

    def all(self):
        self.start_pods()
        before = None
        for count in self.options.services:
            self.api.grow(count)
            if before and "program" in self.only:
                self.programming(before, count)
            else:
                self.pilus.grow(count)
            before = count
            say(f"the API server has {count:,} services")
            for turn in range(self.options.rounds):
                self.round(count, turn)
        if "packets" in self.only:
            self.packets()
        self.report()

    def report(self):
        print("\n| measurement | unit | Pilus | kube-proxy | ratio | Pods themselves |\n|---|---|---:|---:|---:|---:|")
        results = []
        for (what, unit), values in self.rows.items():
            middle = {name: statistics.median(some) for name, some in values.items()}
            ours, theirs = middle.get("Pilus"), middle.get("kube-proxy")
            less_is_better = unit in ("s", "KiB", "bytes")
            ratio = None
            if ours and theirs:
                ratio = theirs / ours if less_is_better else ours / theirs
            shown = ["–" if it is None else f"{it:,.0f}" if it >= 100 else f"{it:.3g}" for it in (ours, theirs, middle.get("Pods"))]
            print(f"| {what} | {unit} | {shown[0]} | {shown[1]} | {'–' if ratio is None else f'{ratio:.2f}'} | {shown[2]} |")
            results.append({"what": what, "unit": unit, "values": values, "medians": middle, "ratio": ratio})
        print()
        for note in self.notes:
            print(note)
        print("\nMedians of interleaved rounds; a ratio above 1 means that Pilus is ahead. Only ratios within one run mean something.")
        if self.options.json:
            Path(self.options.json).write_text(json.dumps({"rows": results, "notes": self.notes}, indent=1))

    def close(self):
        for subject in self.subjects:
            subject.end()
        for pod in self.pods:
            pod.kill()
            pod.wait()
        self.account.close()


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="compares Pilus with kube-proxy")
    parser.add_argument("--services", default="1,1000,5000", type=lambda text: sorted(map(int, text.split(","))))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", default=",".join(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--perf", help="folder for records of perf, one for each load; the figures are worth nothing then")
    parser.add_argument("--json", help="where the table goes as JSON")
    options = parser.parse_args()
    for part in options.only.split(","):
        if part not in PARTS:
            parser.error(f"there is no part {part}")
    if os.cpu_count() < 2:
        parser.error("two cores are needed: one for the client, one for the Pods")
    bench = Bench(options)
    try:
        bench.all()
    finally:
        bench.close()


main()
