"""What kubectl shows of the objects: columns, and what `kubectl describe` says about those that are refused."""
import re

from cluster import (Failure, apply, eventually, expect, gateway_address, ingress_address, kubectl, served)

AGE = r"\d+[smhd]\S*"
ADDRESS = r"10\.201\.0\.1\d\d"


def rows(*words):
    """The head and the lines that kubectl prints, blanks between columns as one."""
    lines = [re.sub(r"   +", "  ", line.strip()) for line in kubectl("get", *words).splitlines()]
    return [re.split(r"  +", line) for line in lines]


# Arguments of `kubectl get`, the columns that people know, and the row (one expression a column).
COLUMNS = [
    (["ippool", "lan"], "NAME DISABLED CONFLICTING IPS-AVAILABLE AGE", ["lan", "false", "False", r"\d+", AGE]),
    (["l2announcement", "lan"], "NAME AGE", ["lan", AGE]),
    (["ingressclass", "cilium"], "NAME CONTROLLER PARAMETERS AGE", ["cilium", "cilium.io/ingress-controller", "<none>", AGE]),
    (["ingress", "web", "-n", "demo"], "NAME CLASS HOSTS ADDRESS PORTS AGE", ["web", "cilium", "web.test", "INGRESS", "80", AGE]),
    (["gatewayclass", "pilus"], "NAME CONTROLLER ACCEPTED AGE", ["pilus", "pilus.dev/gateway-controller", "True", AGE]),
    (["gateway", "gate", "-n", "demo"], "NAME CLASS ADDRESS PROGRAMMED AGE", ["gate", "pilus", "GATEWAY", "True", AGE]),
    (["httproute", "echo", "-n", "demo"], "NAME HOSTNAMES AGE", ["echo", r'\["gate.test"\]', AGE]),
    (["svc", "balanced", "-n", "demo"], "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
     ["balanced", "LoadBalancer", r"10\.96\.\d+\.\d+", ADDRESS, r"80:\d+/TCP", AGE]),
    # What is made: no node ports, the address of its owner.
    (["svc", "pilus-ingress-web", "-n", "demo"], "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
     ["pilus-ingress-web", "LoadBalancer", r"10\.96\.\d+\.\d+", "INGRESS", "80/TCP", AGE]),
    (["svc", "pilus-gateway-gate", "-n", "demo"], "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
     ["pilus-gateway-gate", "LoadBalancer", r"10\.96\.\d+\.\d+", "GATEWAY", "80/TCP", AGE]),
    (["lease", "pilus-l2announce-demo-balanced", "-n", "kube-system"], "NAME HOLDER AGE", ["pilus-l2announce-demo-balanced", "n[12]", AGE]),
]


def case_columns():
    """`kubectl get` of each kind has the columns and values that people know; a kind without a CRD is nobody's trouble."""
    eventually("both answer", 30, served)
    addresses = {"INGRESS": re.escape(ingress_address()), "GATEWAY": re.escape(gateway_address())}
    for words, head, wanted in COLUMNS:
        def right(words=words, head=head, wanted=wanted):
            seen_head, row = rows(*words)
            expect(f"kubectl get {' '.join(words)}: the columns {head}", " ".join(it.replace(" ", "-") for it in seen_head) == head, seen_head)
            fits = len(row) == len(wanted) and all(re.fullmatch(addresses.get(one, one), it) for one, it in zip(wanted, row))
            return fits or expect(f"kubectl get {' '.join(words)}: {wanted}", False, row)
        eventually(f"kubectl get {' '.join(words)}", 10, right)
    try:
        kubectl("get", "cnp")
        raise AssertionError("CiliumNetworkPolicy is served")
    except Failure as error:
        expect("the API server does not know cnp", "doesn't have a resource type" in str(error), error)
    expect("both answer", served())


REFUSED = """
apiVersion: v1
kind: Namespace
metadata: {name: refused}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: refused}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: annotated, namespace: refused, annotations: {ingress.cilium.io/request-timeout: soon}}
spec: {ingressClassName: cilium, defaultBackend: {service: {name: echo, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: backendless, namespace: refused}
spec: {ingressClassName: cilium, defaultBackend: {service: {name: nowhere, port: {number: 80}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: certless, namespace: refused}
spec:
  gatewayClassName: pilus
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: nowhere}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filtered, namespace: refused}
spec:
  parentRefs: [{name: gate, namespace: refused}]
  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Wall, name: brick}}]
    backendRefs: [{name: echo, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: refused}
spec: {gatewayClassName: pilus, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orphan, namespace: refused}
spec: {parentRefs: [{name: gate, sectionName: https}], rules: [{backendRefs: [{name: echo, port: 80}]}]}
---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: overlap}
spec: {blocks: [{start: 10.201.0.190, stop: 10.201.0.220}]}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: misspelt}
spec: {loadBalancerIPs: true, interfaces: ["^eth["]}
---
apiVersion: v1
kind: Service
metadata: {name: first, namespace: refused, annotations: {lbipam.cilium.io/sharing-key: k, lbipam.cilium.io/ips: 10.201.0.180}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: sharer, namespace: refused, annotations: {lbipam.cilium.io/sharing-key: k, lbipam.cilium.io/ips: 10.201.0.180}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outsider, namespace: refused, annotations: {lbipam.cilium.io/ips: 192.0.2.1}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
"""

# Kind, name, and what `kubectl describe` must say: in a sentence, with the name of what is wrong.
SENTENCES = [
    ("ingress", "annotated", r'"soon" is not a value for ingress\.cilium\.io/request-timeout: a duration such as 30s'),
    ("ingress", "backendless", r"Service refused/nowhere does not exist"),
    ("gateway", "certless", r"Secret refused/nowhere does not exist"),
    ("httproute", "filtered", r"ExtensionRef to Wall brick \(example\.com\): no such filters are known"),
    ("httproute", "orphan", r"https"),
    ("ippool", "overlap", r"range '10\.201\.0\.190 - 10\.201\.0\.220' overlaps range '10\.201\.0\.100 - 10\.201\.0\.199' from IP Pool 'lan'"),
    ("l2announcement", "misspelt", r"\^eth\["),
    ("svc", "sharer", r"'10\.201\.0\.180' is already allocated to an incompatible service\. Reason: same port and protocol"),
    ("svc", "outsider", r"192\.0\.2\.1"),
]


def case_describe():
    """`kubectl describe` of a refused object of each kind says in an Event what is wrong; the others go on."""
    try:
        apply(REFUSED)
        for kind, name, sentence in SENTENCES:
            def described(kind=kind, name=name, sentence=sentence):
                text = kubectl("describe", kind, name, "-n", "refused")
                events = text.rpartition("\nEvents:")[2]
                return re.search(r"Warning +Refused .*" + sentence, events) or expect("an Event", False, events)
            eventually(f"kubectl describe {kind} {name}: {sentence}", 20, described)
        for kind, name, sentence in SENTENCES:
            count = len(re.findall("Warning", kubectl("describe", kind, name, "-n", "refused").rpartition("\nEvents:")[2]))
            expect(f"{kind} {name}: it is said once, by one of the agents", count == 1, count)
        expect("both answer", served())
    finally:
        kubectl("delete", "ippool/overlap", "l2announcement/misspelt", "--ignore-not-found")
        kubectl("delete", "namespace", "refused", "--timeout=60s")
    eventually("both answer", 30, served)


CASES = [case_columns, case_describe]
