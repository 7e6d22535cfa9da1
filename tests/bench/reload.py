"""Pilus alone: loading many Ingresses, and how long a change takes under load."""
import os
import statistics
import sys
import time

from load import PROXY_CORE, Watch, ask, pinned
from proxies import BACKEND_PORT, PORTS

ROUTES, STARTS, CHANGES = 1000, 5, 50
LOCAL = "127.0.0.1"
# The listener of the shared Ingress, beside that of the Gateways.
PORT = PORTS["pilus"][0] + 9

BASE = f"""apiVersion: v1
kind: Service
metadata: {{name: backend}}
spec: {{ports: [{{port: 80, targetPort: {BACKEND_PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: backend-1, labels: {{kubernetes.io/service-name: backend}}}}
addressType: IPv4
ports: [{{port: {BACKEND_PORT}}}]
endpoints: [{{addresses: [127.0.0.2]}}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: pilus}}
spec: {{controller: pilus.dev/ingress-controller}}
"""


def host_of(number):
    return f"host-{number}.example.com"


def ingress(number, host):
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


def measure(bench):
    for name, many in (("one file each", True), ("all in one file", False)):
        folder = f"reload-{'many' if many else 'one'}"
        ingresses = [ingress(number, host_of(number)) for number in range(ROUTES)]
        bench.path(f"{folder}/m/base.yaml", BASE)
        if many:
            for number, text in enumerate(ingresses):
                bench.path(f"{folder}/m/ingress-{number:04}.yaml", text)
        else:
            bench.path(f"{folder}/m/ingresses.yaml", "---\n".join(ingresses))
        times = []
        for turn in range(STARTS):
            begun = time.monotonic()
            process = pinned(PROXY_CORE, bench.proxies.pilus_command(folder))
            bench.running.processes.append(process)
            while not ask(PORT, host_of(ROUTES - 1), "/", LOCAL):
                if process.poll() is not None or time.monotonic() - begun > 20:
                    sys.exit(f"pilus does not answer: {process.poll()}")
                time.sleep(0.001)
            # One configuration is swapped in whole: the last host is there, so all are. Proof:
            times.append((time.monotonic() - begun) * 1000)
            missing = [n for n in range(ROUTES) if not ask(PORT, host_of(n), "/", LOCAL)]
            if missing:
                sys.exit(f"{len(missing)} hosts do not answer, the first is {host_of(missing[0])}")
            if turn < STARTS - 1:
                bench.running.stop(process)
        latencies, (asked, failed) = changes(bench, folder, ingresses, many)
        bench.running.stop(process)
        p50, p99 = statistics.median(latencies), sorted(latencies)[max(0, -(-len(latencies) * 99 // 100) - 1)]
        bench.note(f"{ROUTES:,} Ingresses, {name}: start", "ms", {"pilus": statistics.median(times)}, more_is_better=False)
        bench.note(f"{ROUTES:,} Ingresses, {name}: a change until live", "ms", {"pilus": p50}, more_is_better=False,
                   detail=f"p99 {p99:.1f} ms, {failed} of {asked} requests failed")


def changes(bench, folder, ingresses, many):
    """Moves the host of one Ingress on; the times in ms from the rename until it answers."""
    watch = Watch(PORT, host_of(0), "/", LOCAL, clients=2)
    latencies, middle = [], ROUTES // 2
    for number in range(CHANGES):
        host = f"moved-{number}.example.com"
        ingresses[middle] = ingress(middle, host)
        text = ingresses[middle] if many else "---\n".join(ingresses)
        beside = bench.path(f"{folder}/new", text)
        target = f"ingress-{middle:04}.yaml" if many else "ingresses.yaml"
        os.rename(beside, os.path.join(bench.folder, folder, "m", target))
        begun = time.monotonic()
        while not ask(PORT, host, "/", LOCAL):
            if time.monotonic() - begun > 20:
                sys.exit(f"change {number} is not live after 20 s")
        latencies.append((time.monotonic() - begun) * 1000)
    return latencies, watch.end()
