"""Objects at random, from a seed: what people write, right and wrong, and what becomes of it."""
import base64
import subprocess
import tempfile
from pathlib import Path

GATEWAY = "/apis/gateway.networking.k8s.io/v1"
# Kind: (path of its group and version, plural, whether it has a namespace)
KINDS = {
    "Namespace": ("/api/v1", "namespaces", False),
    "Node": ("/api/v1", "nodes", False),
    "Service": ("/api/v1", "services", True),
    "Secret": ("/api/v1", "secrets", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices", True),
    "Ingress": ("/apis/networking.k8s.io/v1", "ingresses", True),
    "IngressClass": ("/apis/networking.k8s.io/v1", "ingressclasses", False),
    "CiliumLoadBalancerIPPool": ("/apis/cilium.io/v2", "ciliumloadbalancerippools", False),
    "CiliumL2AnnouncementPolicy": ("/apis/cilium.io/v2alpha1", "ciliuml2announcementpolicies", False),
    "GatewayClass": (GATEWAY, "gatewayclasses", False),
    "Gateway": (GATEWAY, "gateways", True),
    "HTTPRoute": (GATEWAY, "httproutes", True),
    "ReferenceGrant": (GATEWAY, "referencegrants", True),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases", True),
}
# How often each kind is chosen, and how many there are at most.
WEIGHTS = {"Service": (20, 150), "EndpointSlice": (28, 650), "Ingress": (10, 40), "Gateway": (4, 12), "HTTPRoute": (20, 150),
           "CiliumLoadBalancerIPPool": (2, 6), "Secret": (6, 30), "ReferenceGrant": (4, 16), "Namespace": (2, 8)}
SPACES = [f"soak-{i}" for i in range(8)]
CLASS = "pilus"


def path(kind, namespace, name=""):
    group, plural, has_namespace = KINDS[kind]
    place = f"/namespaces/{namespace}" if has_namespace and namespace else ""
    return f"{group}{place}/{plural}" + (f"/{name}" if name else "")


def make(kind, namespace, name, **rest):
    group = KINDS[kind][0].split("/", 2)[2] if KINDS[kind][0].startswith("/apis/") else "v1"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | rest.pop("metadata", {})
    return {"apiVersion": group, "kind": kind, "metadata": metadata} | rest


def certificates():
    """Two certificates with their keys: [(certificate, key)] in base64."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            key, cert = Path(folder, "key"), Path(folder, "cert")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                            "-days", "30", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:*.{name}.test",
                            "-keyout", key, "-out", cert], check=True, capture_output=True)
            pairs.append(tuple(base64.b64encode(file.read_bytes()).decode() for file in (cert, key)))
    return pairs


class Author:
    """Writes one object after the other; `draw` is a random.Random. `is_wrong`: an agent that knows a version from before
    keeps that one instead of what was written last, so what it serves is a matter of history."""

    def __init__(self, draw):
        self.draw, self.pairs, self.is_wrong = draw, certificates(), False

    def chance(self, share):
        return self.draw.random() < share

    def pick(self, *choices):
        return self.draw.choice(choices)

    def some(self, stem, count):
        return f"{stem}-{self.draw.randrange(count)}"

    def wrong(self, value):
        self.is_wrong = True
        return value

    def write(self, kind, namespace, name):
        self.is_wrong = False
        return getattr(self, kind.lower())(namespace, name)

    def namespace(self, _, name):
        return make("Namespace", "", name, metadata={"labels": {"team": self.pick("red", "blue")}})

    def service(self, namespace, name):
        ports = [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
        if self.chance(0.2):
            ports.append({"name": "more", "port": self.draw.randrange(81, 90), "protocol": self.pick("TCP", "UDP")})
        spec = {"ports": ports, "type": "ClusterIP"}
        notes = {}
        if self.chance(0.4):
            spec |= {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}
            spec["externalTrafficPolicy"] = self.pick("Cluster", "Cluster", "Local")
            if self.chance(0.2):
                notes["lbipam.cilium.io/ips"] = self.pick("10.203.0.3", "10.203.1.4", "10.203.77.1") if self.chance(0.8) else self.wrong("no-address")
            if self.chance(0.2):
                notes["lbipam.cilium.io/sharing-key"] = self.pick("x", "y")
        labels = {"color": self.pick("red", "blue", "green")}
        return make("Service", namespace, name, metadata={"labels": labels, "annotations": notes}, spec=spec)

    def endpointslice(self, namespace, name):
        def endpoint():
            conditions = {"ready": self.chance(0.8), "terminating": self.chance(0.1)}
            return {"addresses": [f"10.204.{self.draw.randrange(4)}.{self.draw.randrange(1, 250)}"], "conditions": conditions,
                    "nodeName": self.pick("n1", "n2")}
        labels = {"kubernetes.io/service-name": self.some("svc", 30)}
        endpoints = {one["addresses"][0]: one for one in (endpoint() for _ in range(self.draw.randrange(6)))}
        return make("EndpointSlice", namespace, name, metadata={"labels": labels}, addressType="IPv4",
                    endpoints=list(endpoints.values()), ports=[{"name": "web", "port": 8080, "protocol": "TCP"}])

    def secret(self, namespace, name):
        cert, key = self.pick(*self.pairs)
        if self.chance(0.15):
            key = self.wrong(self.pick(base64.b64encode(b"no key").decode(), [k for _, k in self.pairs if k != key][0]))
        return make("Secret", namespace, name, type="kubernetes.io/tls", data={"tls.crt": cert, "tls.key": key})

    def ingress(self, namespace, name):
        def rule():
            one = {"path": self.pick("/", "/a", "/a/b", "/c"), "pathType": self.pick("Prefix", "Exact", "ImplementationSpecific"),
                   "backend": {"service": {"name": self.some("svc", 34), "port": {"number": self.pick(80, 80, 81)}}}}
            return {"host": f"{self.some('h', 20)}.{self.pick('a', 'b')}.test", "http": {"paths": [one]}}
        spec = {"ingressClassName": self.pick("cilium", "cilium", "cilium", "other"), "rules": [rule() for _ in range(self.draw.randrange(1, 4))]}
        if self.chance(0.3):
            spec["tls"] = [{"hosts": ["*.a.test"], "secretName": self.some("cert", 6)}]
        notes = {"ingress.cilium.io/loadbalancer-mode": "dedicated"} if self.chance(0.3) else {}
        if self.chance(0.1):
            notes["ingress.cilium.io/request-timeout"] = "5s" if self.chance(0.5) else self.wrong("soon")
        return make("Ingress", namespace, name, metadata={"annotations": notes}, spec=spec)

    def ciliumloadbalancerippool(self, _, name):
        third = self.draw.randrange(5)
        block = self.pick({"cidr": f"10.203.{third}.0/28"}, {"start": f"10.203.{third}.8", "stop": f"10.203.{third}.30"})
        # The pool of the canary is its own: these never serve its Service.
        spec = {"blocks": [block], "disabled": self.chance(0.1),
                "serviceSelector": {"matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]}}
        if self.chance(0.3):
            spec["serviceSelector"]["matchLabels"] = {"color": self.pick("red", "blue")}
        return make("CiliumLoadBalancerIPPool", "", name, spec=spec)

    def gateway(self, namespace, name):
        listeners = [{"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": self.pick("All", "Same")}}}]
        if self.chance(0.5):
            reference = {"name": self.some("cert", 6)}
            if self.chance(0.4):
                reference["namespace"] = self.pick(*SPACES)
            listeners.append({"name": "tls", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [reference]},
                              "hostname": self.pick("*.a.test", "*.b.test")})
        if self.chance(0.2):
            selector = {"matchLabels": {"team": self.pick("red", "blue")}}
            listeners.append({"name": "chosen", "port": 8080, "protocol": "HTTP",
                              "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}}})
        if self.chance(0.1):
            listeners.append({"name": "odd", "port": 80, "protocol": "TLS", "tls": {"mode": "Passthrough"}})
        return make("Gateway", namespace, name, spec={"gatewayClassName": self.pick(CLASS, CLASS, CLASS, "nobody"), "listeners": listeners})

    def httproute(self, namespace, name):
        def parent():
            one = {"name": self.some("gate", 5), "namespace": self.pick(*SPACES)}
            return one | ({"sectionName": self.pick("web", "tls", "none")} if self.chance(0.3) else {})

        def backend():
            one = {"name": self.some("svc", 34), "port": self.pick(80, 80, 80, 81), "weight": self.draw.randrange(4)}
            return one | ({"namespace": self.pick(*SPACES)} if self.chance(0.3) else {})

        def rule():
            match = {"path": {"type": "PathPrefix", "value": self.pick("/", "/a", "/b/c")}}
            if self.chance(0.1):
                match["path"] = {"type": "RegularExpression", "value": "/x[0-9]+" if self.chance(0.5) else self.wrong("/x(")}
            if self.chance(0.3):
                match["headers"] = [{"name": "x-a", "value": self.pick("1", "2")}]
            one = {"matches": [match], "backendRefs": [backend() for _ in range(self.draw.randrange(4))]}
            if self.chance(0.2):
                one["filters"] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-b", "value": "1"}]}}]
            elif self.chance(0.1):
                one["filters"] = [{"type": "ExtensionRef", "extensionRef": {"group": "example.test", "kind": "Odd", "name": "x"}}]
            return one
        parents = {(p["name"], p["namespace"], p.get("sectionName")): p for p in (parent() for _ in range(self.draw.randrange(1, 3)))}
        if len({key[:2] for key in parents}) < len(parents):
            parents = dict([next(iter(parents.items()))])
        spec = {"parentRefs": list(parents.values()), "rules": [rule() for _ in range(self.draw.randrange(1, 4))]}
        if self.chance(0.7):
            spec["hostnames"] = [f"{self.some('h', 20)}.{self.pick('a', 'b', 'c')}.test"]
        return make("HTTPRoute", namespace, name, spec=spec)

    def referencegrant(self, namespace, name):
        kinds = self.pick([("HTTPRoute", "", "Service")], [("Gateway", "", "Secret")])
        (source, group, target), = kinds
        spec = {"from": [{"group": "gateway.networking.k8s.io", "kind": source, "namespace": self.pick(*SPACES)}],
                "to": [{"group": group, "kind": target}]}
        return make("ReferenceGrant", namespace, name, spec=spec)
