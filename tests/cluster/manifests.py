"""Each file of manifests/examples: the API server accepts it, and what it asks for is there. Where its programs come from the Internet, the
echo server stands in for them; what Pilus reads is applied as it is."""
import json
import socket
import struct
import tarfile
import threading

from cluster import (CACHE, FIGURES, HOME, ROOT, apply, ask, condition, enter_outside, eventually, expect, get, kubectl, secret, trusting)

EXAMPLES = ROOT / "manifests/examples"
# It has objects of the same names as another, and goes into a namespace of its own.
APART = {"gateway-grpc-tls-termination": "examples-grpc-tls"}
# Applied last: its addresses are not of this LAN, and nobody shall have one.
POOL = EXAMPLES / "lb-ippool-l2policy.yaml"
# Those of the Deployments in the files that are run; the others are left at none.
RUN = {"details-v1", "productpage-v1", "echo-1", "echo-2", "exactpath", "prefixpath", "prefixpath2", "implpath", "implpath2", "my-nginx", "dns",
       "webpod"}
WEBPOD = """
apiVersion: v1
kind: Service
metadata: {name: webpod}
spec: {selector: {app: webpod}, ports: [{port: 80, targetPort: 3000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: webpod}
spec:
  selector: {matchLabels: {app: webpod}}
  template:
    metadata: {labels: {app: webpod}}
    spec: {containers: [{name: webpod, image: webpod, ports: [{containerPort: 3000}]}]}
"""
GREAT = ["-H", "magic: foo"]
# Kind and name of what has the address, host, path, more words for curl, the Deployment that answers (or the status).
ASKED = [
    ("ingress", "basic-ingress", "bookinfo.test", "/details/1", [], "details-v1"),
    ("ingress", "basic-ingress", "bookinfo.test", "/ratings", [], "productpage-v1"),
    ("ingress", "webpod-ingress", "webpod.test", "/", [], "webpod"),
    ("ingress", "multiple-path-types", "pathtypes.example.com", "/exact", [], "exactpath"),
    ("ingress", "multiple-path-types", "pathtypes.example.com", "/exactbar", [], "prefixpath"),
    ("ingress", "multiple-path-types", "pathtypes.example.com", "/prefix", [], "prefixpath2"),
    ("ingress", "multiple-path-types", "pathtypes.example.com", "/impl", [], "implpath"),
    ("ingress", "multiple-path-types", "pathtypes.example.com", "/implementation", [], "implpath2"),
    ("gateway", "my-gateway", "any.test", "/details/1", [], "details-v1"),
    ("gateway", "my-gateway", "any.test", "/?great=example", GREAT, "productpage-v1"),
    ("gateway", "my-gateway", "any.test", "/?great=example", [], 404),
    ("gateway", "cilium-gateway", "any.test", "/details/1", [], "details-v1"),
    ("gateway", "cilium-gateway", "any.test", "/", [], "productpage-v1"),
]
# The same over TLS, with the certificate for these names.
NAMES = ["bookinfo.cilium.rocks", "webpod.cilium.rocks", "nginx.cilium.rocks"]
ASKED_TLS = [
    ("ingress", "tls-ingress", "webpod.cilium.rocks", "/", "webpod"),
    ("ingress", "tls-ingress", "bookinfo.cilium.rocks", "/details/1", "details-v1"),
    ("gateway", "tls-gateway", "bookinfo.cilium.rocks", "/details/1", "details-v1"),
    ("gateway", "tls-gateway", "webpod.cilium.rocks", "/", "webpod"),
    # Passed through: the certificate is the endpoint's.
    ("gateway", "cilium-tls-gateway", "nginx.cilium.rocks", "/", "my-nginx"),
]
GATEWAYS = [("default", name) for name in ("my-gateway", "tls-gateway", "cilium-gw", "cilium-gateway", "cilium-tls-gateway", "dns-gateway", "grpc")] + [
    ("examples-grpc-tls", "tls-gateway")]
ROUTES = [("default", f"httproute/{name}") for name in ("http-app-1", "https-app-route-1", "https-app-route-2", "example-route-1", "header-http-echo",
                                                        "all-hosts")] + [
    ("default", "tlsroute/nginx"), ("default", "udproute/dns"), ("default", "tcproute/dns"), ("default", "grpcroute/yages"),
    ("examples-grpc-tls", "grpcroute/grpc-route")]


def coredns_image():
    """A name under which CoreDNS is on the nodes: the first tag of the image."""
    with tarfile.open(CACHE / "img/coredns.tar") as image:
        return json.load(image.extractfile("manifest.json"))[0]["RepoTags"][0]


def stand_in(deployment):
    """Lets the echo server answer on the port of this Deployment."""
    spec, name = deployment["spec"], deployment["metadata"]["name"]
    if name not in RUN:
        spec["replicas"] = 0
        return
    pod = spec["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 1
    for container in pod["containers"]:
        container["imagePullPolicy"] = "Never"
        if name == "dns":
            container["image"] = coredns_image()
            continue
        port = container.get("ports", [{"containerPort": 3000}])[0]["containerPort"]
        tls = port == 443
        files = "/etc/nginx-server-certs/tls"
        container.update(image="localhost/echo:1", env=[
            {"name": "HTTPS_PORT" if tls else "HTTP_PORT", "value": str(port)}, {"name": "SERVICE_NAME", "value": name},
            *([{"name": "TLS_SERVER_CERT", "value": f"{files}.crt"}, {"name": "TLS_SERVER_PRIVKEY", "value": f"{files}.key"}] if tls else [])])
        for word in ("readinessProbe", "livenessProbe", "command", "args"):
            container.pop(word, None)


def make(files, namespace):
    """Applies all objects of these files; of a Deployment, with programs that are here."""
    text = kubectl("create", "--dry-run=client", "-n", namespace, "-o", "json", *(f"--filename={file}" for file in files))
    found = {}
    while text := text.strip():
        one, end = json.JSONDecoder().raw_decode(text)
        for one in one["items"] if one["kind"] == "List" else [one]:
            if one["kind"] == "Deployment":
                stand_in(one)
            # A Gateway that is in two files is the same in both.
            found[one["kind"], one["metadata"]["name"]] = one
        text = text[end:]
    kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(found.values())}))


def address_of(kind, name):
    status = get(kind, name, "default")["status"]
    return status["loadBalancer"]["ingress"][0]["ip"] if kind == "ingress" else status["addresses"][0]["value"]


def answered(kind, name, host, path, wanted, **options):
    code, _, body = seen = ask(address_of(kind, name), host, path, **options)
    return code == wanted or code == 200 and body["service"] == wanted or expect(f"{name}: {host}{path} is answered by {wanted}", False, seen)


def name_query(address, name, protocol):
    """The first IPv4 address that a DNS server gives for a name, asked outside the nodes."""
    found = []

    def work():
        enter_outside()
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)
        kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
        try:
            with socket.socket(socket.AF_INET, kind) as server:
                server.settimeout(2)
                server.connect((address, 53))
                server.send(query if protocol == "UDP" else struct.pack("!H", len(query)) + query)
                found.append(socket.inet_ntoa(server.recv(512)[-4:]))
        except OSError as error:
            found.append(repr(error))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def check_statuses():
    kinds = "gateway,httproute,grpcroute,tlsroute,tcproute,udproute"

    def all_true():
        objects = {(one["metadata"]["namespace"], f"{one['kind'].lower()}/{one['metadata']['name']}"): one.get("status", {})
                   for one in json.loads(kubectl("get", kinds, "-A", "-o", "json"))["items"]}
        for space, name in GATEWAYS:
            expect(f"{space} {name} is Programmed", condition(objects[space, f"gateway/{name}"]["conditions"], "Programmed")[0] == "True")
        for space, name in ROUTES:
            for wanted in ("Accepted", "ResolvedRefs"):
                seen = condition(objects[space, name]["parents"][0]["conditions"], wanted)
                expect(f"{space} {name} is {wanted}", seen[0] == "True", seen)
        return True
    eventually("all Gateways are Programmed, all routes Accepted and resolved", 30, all_true)
    status = get("ingress", "webpod-ingress-nginx", "default")["status"]
    expect("the Ingress of another class is left alone", status == {"loadBalancer": {}}, status)
    kubectl("apply", "-f", POOL)
    eventually("the pool of the examples has five addresses", 20, lambda: kubectl(
        "get", "ippool", "cilium-lb-ippool", "--no-headers").split()[:4] == ["cilium-lb-ippool", "false", "False", "5"])


def check_answers(crt):
    for kind, name, host, path, words, wanted in ASKED:
        eventually(f"{kind} {name}: {host}{path} from {wanted}", 30, lambda: answered(kind, name, host, path, wanted, more=words))
    for kind, name, host, path, wanted in ASKED_TLS:
        eventually(f"{kind} {name}: https://{host}{path} from {wanted}", 30, lambda: answered(
            kind, name, host, path, wanted, trusted=trusting(crt, host, address_of(kind, name))))
    gate = address_of("gateway", "cilium-gw")
    eventually("splitting reaches both", 30, lambda: {ask(gate, "any.test", "/echo")[2]["service"] for _ in range(30)} == {"echo-1", "echo-2"})
    body = ask(gate, "any.test", "/add-a-request-header")[2]
    expect("the header is added", body["headers"].get("My-Header-Name") == ["my-header-value"], body)
    dns = address_of("gateway", "dns-gateway")
    for protocol in ("UDP", "TCP"):
        eventually(f"DNS over {protocol}", 30, lambda: name_query(dns, "shop.home.arpa", protocol) == "192.168.10.211" or expect(
            protocol, False, name_query(dns, "shop.home.arpa", protocol)))


def case_examples():
    """Each file of manifests/examples is accepted by the API server, and does in the cluster what it says."""
    files = sorted(EXAMPLES.glob("*.yaml"))
    kubectl("apply", "--dry-run=server", "-n", "default", "-f", EXAMPLES)
    spaces = ["default", *APART.values()]
    try:
        for space in spaces:
            apply(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {space}}}}}")
        crt = secret("demo-cert", "default", *NAMES)
        secret("grpc-certificate", "examples-grpc-tls", "grpc-echo.cilium.rocks")
        webpod = HOME / "run/webpod.yaml"
        webpod.write_text(WEBPOD)
        make([webpod, *(file for file in files if file.stem not in APART and file != POOL)], "default")
        for stem, space in APART.items():
            make([EXAMPLES / f"{stem}.yaml"], space)
        check_statuses()
        kubectl("wait", "--for=condition=Available", "deployment", "--all", "-n", "default", "--timeout=90s")
        check_answers(crt)
        FIGURES.append(f"examples: {len(files)} files: {len(GATEWAYS)} Gateways, {len(ROUTES)} routes, {len(ASKED) + len(ASKED_TLS) + 4} answers as they say")
    finally:
        kubectl("delete", "--ignore-not-found", "--wait=false", "-n", "default", "-f", EXAMPLES)
        kubectl("delete", "--ignore-not-found", "-n", "default", "service/webpod", "deployment/webpod", "secret/demo-cert")
        kubectl("delete", "namespace", "--ignore-not-found", "--timeout=60s", *APART.values())
    eventually("nothing is left", 60, lambda: not json.loads(kubectl("get", "pod", "-n", "default", "-o", "json"))["items"])


CASES = [case_examples]
