"""Pilus as a DaemonSet: manifests/daemonset.yaml as it is, by its kustomization, with an image that is made here."""
import json
import os
import time
from pathlib import Path

from cluster import (BINARY, FIGURES, HERE, HOME, NODES, ROOT, Load, agent, apply, end, eventually, expect, expect_one_answers, kubectl, process, run,
                     served, statuses, targets)

IMAGE = "localhost/pilus"


def give_image_to(node, archive):
    """Into the containerd of a node, which runs in a mount namespace of its own."""
    unshared = process(f"node-{node}")
    pid = Path(f"/proc/{unshared}/task/{unshared}/children").read_text().split()[0]
    run("nsenter", "--target", pid, "--mount", "ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", "images", "import", archive)


def overlay():
    """A kustomization that changes nothing but the image's name."""
    folder = HOME / "run/daemonset"
    folder.mkdir(exist_ok=True)
    (folder / "kustomization.yaml").write_text(f"""apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [{os.path.relpath(ROOT / "manifests", folder)}]
images: [{{name: pilus, newName: {IMAGE}, newTag: test}}]
""")
    return folder


def pods():
    found = json.loads(kubectl("get", "pod", "-n", "kube-system", "-l", "app.kubernetes.io/name=pilus", "-o", "json"))["items"]
    return {one["spec"]["nodeName"]: one for one in found if "deletionTimestamp" not in one["metadata"]}


def refused_requests(since):
    """What the API server did not allow Pilus to do."""
    found = []
    for line in (HOME / "log/audit.log").read_text().splitlines():
        request = json.loads(line)
        if request["requestReceivedTimestamp"][:19] >= since and request.get("responseStatus", {}).get("code") in (401, 403):
            found.append((request["verb"], request["requestURI"], request["responseStatus"]["code"]))
    return found


def ready():
    kubectl("rollout", "status", "daemonset/pilus", "-n", "kube-system", "--timeout=90s")
    return eventually("a pod on each node", 20, lambda: (lambda it: it if sorted(it) == NODES else None)(pods()))


def case_daemonset():
    """Pilus as a DaemonSet takes over from the processes, with its own rights; its restart under load is noticed by nobody."""
    eventually("both answer", 30, served)
    before, addresses = statuses(), targets()
    archive = HOME / "run/pilus.tar"
    run("python3", HERE / "mkimage.py", archive, f"{IMAGE}:test", BINARY, "/pilus")
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    try:
        for node in NODES:
            give_image_to(node, archive)
            end(f"pilus-{node}")
        apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: pilus, namespace: kube-system}, data: {pilus.yaml: 'ingress: {enforce-https: false}'}}")
        began = time.monotonic()
        kubectl("apply", "--server-side", "-k", overlay())
        first = ready()
        FIGURES.append(f"daemonset: Ready on both nodes {time.monotonic() - began:.0f} s after kubectl apply -k")
        eventually("both answer", 30, served)
        eventually("statuses are what they were", 60, lambda: statuses() == before)
        expect("the addresses are the same", targets() == addresses, targets())
        for node, pod in first.items():
            name = pod["metadata"]["name"]
            eventually(f"kubectl logs {name} shows the log", 10, lambda: "hooking eth0" in kubectl("logs", "-n", "kube-system", name))
            seen = kubectl("exec", "-n", "kube-system", name, "--", "/pilus", "status")
            expect("kubectl exec pilus status", f"Node {node} " in seen, seen)
            expect("the configuration of the ConfigMap is used", "false" in kubectl(
                "exec", "-n", "kube-system", name, "--", "/pilus", "config", "view").split("enforce-ingress-https")[1].splitlines()[0])
        with Load(*addresses) as load:
            time.sleep(1)
            began = time.monotonic()
            kubectl("rollout", "restart", "daemonset/pilus", "-n", "kube-system")
            second = ready()
            took = time.monotonic() - began
            time.sleep(5)
        load.expect_only_cut("daemonset: rollout restart", len(NODES))
        expect("the pods are others", not {one["metadata"]["uid"] for one in first.values()} & {one["metadata"]["uid"] for one in second.values()})
        FIGURES.append(f"daemonset: rollout restart of both nodes in {took:.0f} s: longest time without an answer "
                       f"{max(load.gap(target)[0] for target in addresses) * 1000:.0f} ms")
        eventually("statuses are what they were", 60, lambda: statuses() == before)
        expect_one_answers(*(address for address, _ in addresses))
        expect("Pilus did nothing that it may not", not refused_requests(since), refused_requests(since)[:3])
    finally:
        kubectl("delete", "daemonset/pilus", "configmap/pilus", "-n", "kube-system", "--ignore-not-found")
        eventually("the pods are gone", 60, lambda: not pods())
        for node in NODES:
            if process(f"pilus-{node}") is None:
                agent(node)
    eventually("both answer", 30, served)
    expect("the addresses are the same", targets() == addresses, targets())


CASES = [case_daemonset]
