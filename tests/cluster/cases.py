#!/usr/bin/env python3
"""The tests of Pilus in a cluster: cases.py [NAME...], the cases whose names begin so; all without one.

They see what people see: kubectl, curl from outside the nodes (the network namespace k8s-cp), `pilus status`. Each
leaves the cluster as it found it. Deadlines are many times what is usual: a busy machine is no failure.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import credentials
import daemonset
import faults
import ingress
import manifests
import objects
from cluster import (FIGURES, HERE, HOME, NODES, ROOT, Failure, Load, agent, apply, condition, control_plane, curl, end, eventually,
                     expect, gateway_address, get, holder, ingress_address, kubectl, process, run, served, status, targets, writer)

CRDS = ROOT / "manifests" / "crds" / "gateway-api"
ROUTE_CRD = CRDS / "gateway.networking.k8s.io_httproutes.yaml"
# What the two agents together may ask the API server while nothing happens.
REQUESTS_A_MINUTE = 60
IDLE_SECONDS = int(os.environ.get("IDLE_SECONDS", "60"))


def case_answers():
    """Ingress and Gateway answer at their announced addresses; statuses have the columns that people know."""
    eventually("both answer", 30, served)
    rows = kubectl("get", "ingress", "web", "-n", "demo", "--no-headers").split()
    expect("kubectl get ingress", rows[:5] == ["web", "cilium", "web.test", ingress_address(), "80"], rows)
    rows = kubectl("get", "gateway", "gate", "-n", "demo", "--no-headers").split()
    expect("kubectl get gateway", rows[:4] == ["gate", "pilus", gateway_address(), "True"], rows)
    rows = kubectl("get", "service", "balanced", "-n", "demo", "--no-headers").split()
    expect("kubectl get service", rows[1] == "LoadBalancer" and rows[3].startswith("10.201.0.1"), rows)
    rows = kubectl("get", "ippool", "lan", "--no-headers").split()
    expect("kubectl get ippool", rows[:4] == ["lan", "false", "False", "97"], rows)
    rows = kubectl("get", "gatewayclass", "pilus", "--no-headers").split()
    expect("kubectl get gatewayclass", rows[:3] == ["pilus", "pilus.dev/gateway-controller", "True"], rows)
    route = get("httproute", "echo")["status"]["parents"][0]
    expect("the route is accepted", condition(route["conditions"], "Accepted")[0] == "True", route)
    expect("another host is not served", curl(gateway_address(), "other.test") == "404")


def case_refused():
    """A refused object has a condition and an Event that say why."""
    apply("""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: refused, namespace: demo}
spec: {parentRefs: [{name: gate}], hostnames: [refused.test], rules: [{backendRefs: [{name: nowhere, port: 80}]}]}
""")
    try:
        def refused():
            return condition(get("httproute", "refused")["status"]["parents"][0]["conditions"], "ResolvedRefs")
        eventually("ResolvedRefs is False", 20, lambda: refused()[:2] == ("False", "BackendNotFound"))
        expect("the condition names the backend", "nowhere" in refused()[2], refused())
        eventually("kubectl describe shows an Event that names the backend", 20, lambda: "nowhere" in kubectl(
            "get", "events", "-n", "demo", "--field-selector", "involvedObject.kind=HTTPRoute,involvedObject.name=refused",
            "-o", "jsonpath={.items[*].message}"))
        expect("nothing is forwarded", curl(gateway_address(), "refused.test") == "500")
    finally:
        kubectl("delete", "httproute", "refused", "-n", "demo")


def case_deleted():
    """What was made for an object goes with it."""
    apply("""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: short, namespace: demo}
spec: {gatewayClassName: pilus, listeners: [{name: http, port: 80, protocol: HTTP}]}
""")

    def made():
        services = json.loads(kubectl("get", "service", "-n", "demo", "-o", "json"))["items"]
        return [one["metadata"]["name"] for one in services
                if any(owner["name"] == "short" for owner in one["metadata"].get("ownerReferences", []))]
    eventually("a Service is made for the Gateway", 20, made)
    kubectl("delete", "gateway", "short", "-n", "demo")
    eventually("the Service is gone", 40, lambda: not made())


def case_crds():
    """A CRD goes and comes back while the agents run: what is missing is said, then it is served again."""
    eventually("both answer", 30, served)
    kubectl("delete", "-f", ROUTE_CRD)
    try:
        eventually("the route is gone", 30, lambda: curl(gateway_address(), "gate.test") == "404")
        eventually("pilus status says so", 30, lambda: all("HTTPRoute is not served" in status(n) for n in NODES))
        expect("the Ingress answers meanwhile", curl(ingress_address(), "web.test") == "200")
    finally:
        kubectl("apply", "--server-side", "-f", ROUTE_CRD)
        eventually("the route can be applied", 30, lambda: kubectl("apply", "--server-side", "-f", HERE / "demo.yaml"))
    eventually("it is served again", 30, lambda: curl(gateway_address(), "gate.test") == "200")
    eventually("nothing is missing", 30, lambda: not any("HTTPRoute is not served" in status(n) for n in NODES))


def case_apiserver():
    """The API server is away for 20 s under load, and the holder of an address dies meanwhile."""
    eventually("both answer", 30, served)
    addresses = targets()
    with Load(*addresses) as load:
        end("kube-apiserver", "KILL")
        time.sleep(20)
    load.expect_none_failed()
    expect("pilus status says that the API server is away", "cannot be read" in status("n1"), status("n1"))
    first = eventually("somebody announces", 10, lambda: holder(addresses[1][0]))
    other = next(node for node in NODES if node != first)
    end(f"pilus-{first}", "KILL")
    try:
        eventually("the other node takes over without an API server", 30, lambda: holder(addresses[1][0]) == other)
        eventually("all is served", 20, lambda: all(curl(*target) == "200" for target in addresses))
    finally:
        control_plane("kube-apiserver")
    # 30 s until the Lease has expired; the watch needs its back-off before that.
    eventually("the other node writes", 90, lambda: writer() == other)
    expect("the addresses are the same", targets() == addresses, targets())
    agent(first)
    eventually("both answer", 30, served)


def case_etcd():
    """etcd is away under load."""
    eventually("both answer", 30, served)
    with Load(*targets()) as load:
        end("etcd", "KILL")
        time.sleep(5)
        control_plane("etcd")
    load.expect_none_failed()
    apply("{apiVersion: v1, kind: Service, metadata: {name: later, namespace: demo}, spec: {type: LoadBalancer, ports: [{port: 80}]}}")
    try:
        eventually("a new Service gets an address", 90,
                   lambda: get("service", "later")["status"]["loadBalancer"]["ingress"][0]["ip"])
    finally:
        kubectl("delete", "service", "later", "-n", "demo")


def case_restart():
    """An agent is restarted: the addresses stay, and no request fails."""
    eventually("both answer", 30, served)
    addresses = targets()
    for node in NODES:
        with Load(*addresses) as load:
            end(f"pilus-{node}")
            agent(node)
            time.sleep(8)
        load.expect_only_cut(f"restart: {node}", 1)
    expect("the addresses are the same", targets() == addresses, targets())


def case_cut():
    """A node is cut from the LAN: another announces; when it is back, one of them does."""
    eventually("both answer", 30, served)
    addresses = targets()
    first = eventually("somebody announces", 10, lambda: holder(addresses[1][0]))
    other = next(node for node in NODES if node != first)
    run("ip", "-n", "k8s-cp", "link", "set", f"v{first}", "down")
    try:
        eventually("the other node takes over", 30, lambda: holder(addresses[1][0]) == other)
        # Endpoints of the node that is cut are tried, found dead, and left out.
        eventually("all is served", 60, lambda: all(curl(*target) == "200" for target in addresses))
    finally:
        run("ip", "-n", "k8s-cp", "link", "set", f"v{first}", "up")
    eventually("one node announces", 30, lambda: holder(addresses[1][0]))
    eventually("the node is ready", 60, lambda: kubectl("wait", "--for=condition=Ready", f"node/{first}", "--timeout=1s"))
    with Load(*addresses) as load:
        time.sleep(5)
    load.expect_only_cut("cut", 1)
    expect("the addresses are the same", targets() == addresses, targets())


def asked(since, until):
    """How many requests of Pilus the API server noted between two times of the day (UTC)."""
    found = set()
    for line in (HOME / "log/audit.log").read_text().splitlines():
        request = json.loads(line)
        if since <= request["requestReceivedTimestamp"][:19] < until:
            found.add(request["auditID"])
    return len(found)


def cpu(node):
    fields = Path(f"/proc/{process(f'pilus-{node}')}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(node):
    text = Path(f"/proc/{process(f'pilus-{node}')}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def case_idle():
    """A cluster in which nothing happens is asked little, and a change after that silence arrives at once."""
    eventually("both answer", 30, served)
    time.sleep(12)
    stamp = "%Y-%m-%dT%H:%M:%S"
    since, before = time.strftime(stamp, time.gmtime()), {node: cpu(node) for node in NODES}
    time.sleep(IDLE_SECONDS)
    until = time.strftime(stamp, time.gmtime())
    requests = asked(since, until) * 60 / IDLE_SECONDS
    for node in NODES:
        used = (cpu(node) - before[node]) / IDLE_SECONDS * 100
        FIGURES.append(f"footprint: {node}: {rss(node):.1f} MiB RSS, {used:.2f} % of one CPU at idle")
    FIGURES.append(f"footprint: both agents: {requests:.0f} API requests a minute at idle")
    address = gateway_address()
    kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", '{"spec":{"hostnames":["gate.test","new.test"]}}')
    changed = time.monotonic()
    try:
        eventually("the change is served", 10, lambda: curl(address, "new.test") == "200")
        took = time.monotonic() - changed
    finally:
        kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", '{"spec":{"hostnames":["gate.test"]}}')
    FIGURES.append(f"footprint: a change after {IDLE_SECONDS} s of silence was served {took * 1000:.0f} ms after kubectl ended")
    expect(f"{requests:.0f} requests a minute are at most {REQUESTS_A_MINUTE}", requests <= REQUESTS_A_MINUTE)


def case_late():
    """An agent that starts while the API server is away says so, and serves as soon as it is back."""
    eventually("both answer", 30, served)
    end("pilus-n1")
    end("kube-apiserver", "KILL")
    log = HOME / "log/pilus-n1.log"
    before = len(log.read_text())
    try:
        agent("n1")
        eventually("pilus status says so", 20, lambda: "cannot be reached" in status("n1"))
        eventually("the log says so", 20, lambda: "cannot be reached" in log.read_text()[before:])
        time.sleep(5)
        expect("the log says it once", log.read_text()[before:].count("cannot be reached") == 1)
    finally:
        control_plane("kube-apiserver")
    eventually("no complaint is left", 90, lambda: "cannot be reached" not in status("n1"))
    eventually("both answer", 30, served)


CASES = [case_answers, *objects.CASES, case_refused, case_deleted, *ingress.CASES, *manifests.CASES, case_crds, case_idle, case_restart, case_cut,
         *daemonset.CASES, case_etcd, case_apiserver, case_late, *credentials.CASES, *faults.CASES]


def main(wanted):
    chosen = [case for case in CASES
              if not wanted or any(case.__name__.removeprefix("case_").startswith(name) for name in wanted)]
    if not chosen:
        print(f"cases.py: no case is called {' or '.join(wanted)}", file=sys.stderr)
        return 2
    kubectl("apply", "--server-side", "-f", HERE / "demo.yaml")
    kubectl("rollout", "status", "deployment/echo", "-n", "demo", "--timeout=90s")
    failed = 0
    for case in chosen:
        began = time.monotonic()
        try:
            # What a failed case took away.
            eventually("the demo is there", 60, lambda: kubectl("apply", "--server-side", "-f", HERE / "demo.yaml"))
            case()
            result, why = "passed", ""
        except (Failure, subprocess.TimeoutExpired) as error:
            result, why, failed = "FAILED", f"\n    {error}", failed + 1
        name = case.__name__.removeprefix("case_")
        print(f"{name:<12} {result}  {time.monotonic() - began:5.0f} s  {case.__doc__.strip()}{why}", flush=True)
    print("\n".join(FIGURES))
    print(f"test-cluster: {len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
