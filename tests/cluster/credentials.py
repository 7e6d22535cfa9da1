"""How an agent proves who it is: a token file that is replaced while it runs, and a plugin that is asked for tokens.

The API server gives out no token for less than ten minutes; one that is bound to a Secret ends with that Secret.
"""
import json
import os
import time

from cluster import (BINARY, FIGURES, HERE, HOME, NODES, Load, agent, control_plane, end, eventually, expect, get, kubectl, process, run, served, status,
                     targets)


def bound_token(name):
    """A token of the service account that is good as long as the Secret `name` is there."""
    kubectl("create", "secret", "generic", name, "-n", "kube-system")
    return kubectl("create", "token", "pilus", "-n", "kube-system", "--duration=1h", "--bound-object-kind=Secret",
                   f"--bound-object-name={name}").strip()


def kubeconfig(name, user):
    file = HOME / f"run/{name}.kubeconfig"
    file.write_text(f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{certificate-authority: {HOME}/certs/ca.crt, server: "https://10.201.0.1:6443"}}}}]
users:
- name: u
  user: {user}
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
""")
    return file


def with_kubeconfig(node, file):
    end(f"pilus-{node}")
    run(HERE / "agents.sh", BINARY, node, env={**os.environ, "PILUS_KUBECONFIG": str(file)})
    eventually(f"Pilus on {node} answers", 20, lambda: status(node))


def follow(host):
    """A change of a route reaches both agents: they know the host."""
    kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", f'{{"spec":{{"hostnames":["gate.test","{host}"]}}}}')
    for node in NODES:
        eventually(f"{node} knows {host}", 90, lambda node=node: host in run(
            BINARY, "get", "httproute", "echo", "-n", "demo", "-o", "json", env={**os.environ, "PILUS_ADMIN": f"unix:{HOME}/run/{node}/admin.sock"}))


def make_plugin(token, asked):
    """A plugin of client-go's protocol, whose tokens are good for forty seconds as far as it says."""
    plugin = HOME / "run/plugin.sh"
    plugin.write_text(f"""#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" >>{asked}
printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"%s","expirationTimestamp":"%s"}}}}' \\
    "$(cat {token})" "$(date -u -d '+40 seconds' +%Y-%m-%dT%H:%M:%SZ)"
""")
    plugin.chmod(0o755)
    return plugin


def case_credentials():
    """A token file (n1) is replaced, a plugin (n2) gives another token, and the old one is refused: nobody notices."""
    eventually("both answer", 30, served)
    token, asked = HOME / "run/replaced.token", HOME / "run/plugin.asked"
    asked.write_text("")
    user = f"""
      exec: {{apiVersion: client.authentication.k8s.io/v1, command: {make_plugin(token, asked)}, interactiveMode: Never}}"""
    try:
        token.write_text(bound_token("first-token"))
        with_kubeconfig("n1", kubeconfig("token", f"{{tokenFile: {token}}}"))
        with_kubeconfig("n2", kubeconfig("plugin", user))
        follow("first.test")
        addresses = targets()
        with Load(*addresses) as load:
            token.write_text(bound_token("second-token"))
            kubectl("delete", "secret", "first-token", "-n", "kube-system")
            # Connections that stand would stay: who asks again is asked for a token. Started anew, the API server remembers none.
            end("kube-apiserver", "KILL")
            control_plane("kube-apiserver")
            since = time.monotonic()
            follow("second.test")
            took = time.monotonic() - since
            eventually("no complaint is left", 60, lambda: not any("cannot be" in status(node) for node in NODES))
        load.expect_none_failed()
        FIGURES.append(f"credentials: both agents follow with another token {took:.1f} s after the API server, which refuses the old one, is back")
        generation = get("httproute", "echo")["metadata"]["generation"]
        eventually("statuses are written", 60, lambda: all(
            one["observedGeneration"] == generation for one in get("httproute", "echo")["status"]["parents"][0]["conditions"]))
        times = [line for line in asked.read_text().splitlines() if json.loads(line)["kind"] == "ExecCredential"]
        expect("the plugin was asked again", len(times) > 1, times)
    finally:
        kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", '{"spec":{"hostnames":["gate.test"]}}')
        kubectl("delete", "secret", "first-token", "second-token", "-n", "kube-system", "--ignore-not-found")
        for node in NODES:
            if process(f"pilus-{node}"):
                end(f"pilus-{node}")
            agent(node)


CASES = [case_credentials]
