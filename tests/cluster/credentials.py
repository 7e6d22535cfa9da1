"""How an agent proves who it is: a token file that is replaced while it runs, and a plugin that is asked for tokens.

The API server gives out no token for less than ten minutes; one that is bound to a Secret ends with that Secret.
"""
import os
import time

from cluster import (BINARY, FIGURES, HERE, HOME, agent, curl, end, eventually, expect, gateway_address, kubectl, run, served, status)

NODE = "n1"


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


def with_kubeconfig(file):
    end(f"pilus-{NODE}")
    run(HERE / "agents.sh", BINARY, NODE, env={**os.environ, "PILUS_KUBECONFIG": str(file)})
    eventually(f"Pilus on {NODE} answers", 20, lambda: status(NODE))


def follows(host):
    """A change of a route reaches the agent of NODE: it knows the host."""
    kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", f'{{"spec":{{"hostnames":["gate.test","{host}"]}}}}')
    eventually(f"{NODE} knows {host}", 90, lambda: host in run(
        BINARY, "get", "httproute", "echo", "-n", "demo", "-o", "json", env={**os.environ, "PILUS_ADMIN": f"unix:{HOME}/run/{NODE}/admin.sock"}))


def replaced(name, write, file):
    """An agent runs with a first token, which a second one replaces; then the first is worth nothing."""
    try:
        write(bound_token(f"{name}-1"))
        with_kubeconfig(file)
        follows(f"{name}1.test")
        write(bound_token(f"{name}-2"))
        kubectl("delete", "secret", f"{name}-1", "-n", "kube-system")
        # The API server remembers tokens that it has seen for ten seconds. Connections that stand are ended: it asks at each request.
        time.sleep(12)
        end("kube-apiserver", "KILL")
        run(HERE / "control-plane.sh", "kube-apiserver")
        eventually("the API server is ready", 60, lambda: kubectl("get", "--raw", "/readyz") == "ok")
        since = time.monotonic()
        follows(f"{name}2.test")
        FIGURES.append(f"credentials: {name}: {time.monotonic() - since:.1f} s after the API server came back and knew the old token no more")
        eventually("no complaint is left", 60, lambda: "cannot be read" not in status(NODE))
        expect("the gateway answers", curl(gateway_address(), f"{name}2.test") == "200")
    finally:
        kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", '{"spec":{"hostnames":["gate.test"]}}')
        kubectl("delete", "secret", f"{name}-1", f"{name}-2", "-n", "kube-system", "--ignore-not-found")
        end(f"pilus-{NODE}")
        agent(NODE)


def case_token():
    """The token file is replaced while the agent runs, and the old token is refused: nobody notices."""
    eventually("both answer", 30, served)
    token = HOME / "run/replaced.token"
    replaced("token", token.write_text, kubeconfig("token", f"{{tokenFile: {token}}}"))


def case_plugin():
    """A plugin gives the tokens (exec in the kubeconfig): it is asked again when its token expires or is refused."""
    eventually("both answer", 30, served)
    token, asked, plugin = HOME / "run/plugin.token", HOME / "run/plugin.asked", HOME / "run/plugin.sh"
    asked.write_text("")
    plugin.write_text(f"""#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" >>{asked}
printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"%s","expirationTimestamp":"%s"}}}}' \\
    "$(cat {token})" "$(date -u -d '+40 seconds' +%Y-%m-%dT%H:%M:%SZ)"
""")
    plugin.chmod(0o755)
    replaced("plugin", token.write_text, kubeconfig("plugin", f"""
      exec: {{apiVersion: client.authentication.k8s.io/v1, command: {plugin}, interactiveMode: Never, provideClusterInfo: true}}"""))
    times = [line for line in asked.read_text().splitlines() if '"kind":"ExecCredential"' in line]
    expect("the plugin was asked again, each time by the protocol", len(times) > 1, asked.read_text()[:300])


CASES = [case_token, case_plugin]
