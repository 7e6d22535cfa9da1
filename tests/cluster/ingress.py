"""The five features of the official conformance suite of Ingress (kubernetes-sigs/ingress-controller-conformance), and the table of
paths in the documentation of Kubernetes, as tables of what is asked and what must come. The suite itself is not built any more."""
import time

from cluster import FIGURES, OUTSIDE, apply, ask, eventually, expect, get, kubectl, run, secret, trusting

SPACE = "ingress"
SERVICES = ["foo-exact", "foo-prefix", "aaa-slash-bbb-prefix", "aaa-prefix", "aaa-slash-bbb-slash-prefix", "foo-slash-exact",
            "wildcard-foo-com", "foo-bar-com"]
# The suite asks for 10; the rule is the same for 3.
REPLICAS = 3
NOTHING = 404


def pod_spec(service):
    return f"""
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: localhost/echo:1
    imagePullPolicy: Never
    ports: [{{name: http, containerPort: 3000}}]
    env:
    - {{name: SERVICE_NAME, value: {service}}}
    - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
"""


def service(name):
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {SPACE}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 8080, targetPort: http}}]}}
---
"""


def backends():
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SPACE}}}\n---\n" + service("echo-service")
    for name in SERVICES:
        text += service(name)
        text += f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {SPACE}, labels: {{app: {name}}}}}\nspec:{pod_spec(name)}---\n"
    template = pod_spec("echo-service").replace("\n", "\n    ")
    return text + f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo-service, namespace: {SPACE}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: echo-service}}}}
  template:
    metadata: {{labels: {{app: echo-service}}}}
    spec:{template}
"""


def backend(name, port="{number: 8080}"):
    return f"{{service: {{name: {name}, port: {port}}}}}"


def rule(host, *paths, port="{number: 8080}"):
    """A rule of an Ingress for a host; paths are (path, type, Service)."""
    rows = ", ".join(f"{{path: {path}, pathType: {kind}, backend: {backend(name, port)}}}" for path, kind, name in paths)
    return f"  - {{host: '{host}', http: {{paths: [{rows}]}}}}\n"


def ingress(name, rules="", more=""):
    listed = f"  rules:\n{rules}" if rules else ""
    return f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: {SPACE}}}
spec:
  ingressClassName: cilium
{more}{listed}---
"""


DEFAULT = f"  defaultBackend: {backend('echo-service')}\n"

PATH_RULES = (
    rule("exact-path-rules", ("/foo", "Exact", "foo-exact"))
    + rule("prefix-path-rules", ("/foo", "Prefix", "foo-prefix"), ("/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"),
           ("/aaa", "Prefix", "aaa-prefix"))
    + rule("mixed-path-rules", ("/foo", "Prefix", "foo-prefix"), ("/foo", "Exact", "foo-exact"))
    + rule("trailing-slash-path-rules", ("/aaa/bbb/", "Prefix", "aaa-slash-bbb-slash-prefix"), ("/foo/", "Exact", "foo-slash-exact")))

PATH_ROWS = [
    ("exact-path-rules", "/foo", "foo-exact"),
    ("exact-path-rules", "/foo/", NOTHING),
    ("exact-path-rules", "/FOO", NOTHING),
    ("exact-path-rules", "/bar", NOTHING),
    ("prefix-path-rules", "/foo", "foo-prefix"),
    ("prefix-path-rules", "/foo/", "foo-prefix"),
    ("prefix-path-rules", "/FOO", NOTHING),
    ("prefix-path-rules", "/aaa/bbb", "aaa-slash-bbb-prefix"),
    ("prefix-path-rules", "/aaa/bbb/ccc", "aaa-slash-bbb-prefix"),
    ("prefix-path-rules", "/aaa/ccc", "aaa-prefix"),
    ("prefix-path-rules", "/aaaccc", NOTHING),
    ("mixed-path-rules", "/foo", "foo-exact"),
    ("trailing-slash-path-rules", "/aaa/bbb", "aaa-slash-bbb-slash-prefix"),
    ("trailing-slash-path-rules", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
    ("trailing-slash-path-rules", "/foo", NOTHING),
]

HOST_RULES = (rule("*.foo.com", ("/", "Prefix", "wildcard-foo-com"))
              + rule("foo.bar.com", ("/", "Prefix", "foo-bar-com"), port="{name: http}"))
HOST_ROWS = [
    # There is no redirect to https that nobody asked for.
    ("foo.bar.com", "/", "foo-bar-com"),
    ("subdomain.bar.com", "/", NOTHING),
    ("bar.foo.com", "/", "wildcard-foo-com"),
    # A wildcard is one label: not two, as in a Gateway, and not none.
    ("baz.bar.foo.com", "/", NOTHING),
    ("foo.com", "/", NOTHING),
]

# The documentation's table: type and paths of the rule, the path asked for, the Service that answers. The three Services stand
# for the first, the second and the third path.
FIRST, SECOND, THIRD = "foo-exact", "foo-prefix", "aaa-prefix"
DOCUMENTED = [
    ("Prefix", ["/"], "/any/path", FIRST),
    ("Exact", ["/foo"], "/foo", FIRST),
    ("Exact", ["/foo"], "/bar", NOTHING),
    ("Exact", ["/foo"], "/foo/", NOTHING),
    ("Exact", ["/foo/"], "/foo", NOTHING),
    ("Prefix", ["/foo"], "/foo", FIRST),
    ("Prefix", ["/foo"], "/foo/", FIRST),
    ("Prefix", ["/foo/"], "/foo", FIRST),
    ("Prefix", ["/foo/"], "/foo/", FIRST),
    ("Prefix", ["/aaa/bb"], "/aaa/bbb", NOTHING),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbb", FIRST),
    ("Prefix", ["/aaa/bbb/"], "/aaa/bbb", FIRST),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbb/", FIRST),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbb/ccc", FIRST),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbbxyz", NOTHING),
    ("Prefix", ["/", "/aaa"], "/aaa/ccc", SECOND),
    ("Prefix", ["/", "/aaa", "/aaa/bbb"], "/aaa/bbb", THIRD),
    ("Prefix", ["/", "/aaa", "/aaa/bbb"], "/ccc", FIRST),
    ("Mixed", ["/foo", "/foo"], "/foo", SECOND),
]
# With a default backend: it has what no path matches.
DOCUMENTED_DEFAULT = [("Prefix", ["/aaa"], "/ccc", "echo-service"), ("Prefix", ["/aaa"], "/aaa", FIRST)]

DEFAULT_ROWS = [
    ("GET", "my-host", "/"), ("GET", "my-host", "/sub-path"), ("POST", "some-host", "/"), ("PUT", None, "/resource"),
    ("DELETE", "some-host", "/resource"), ("PATCH", "my-host", "/resource"),
]


def documented(rows):
    """Each row has a host of its own: its rules, and what is asked."""
    rules, asked = "", []
    for number, (kind, paths, path, wanted) in enumerate(rows):
        types = ["Prefix", "Exact"] if kind == "Mixed" else [kind] * len(paths)
        rules += rule(f"row{number}.test", *zip(paths, types, [FIRST, SECOND, THIRD]))
        asked.append((f"row{number}.test", path, wanted))
    return rules, asked


def address_of(name):
    """The address in the status: the Ingress is exposed there."""
    return eventually(f"the status of Ingress {name} shows an address", 30,
                      lambda: get("ingress", name, SPACE)["status"]["loadBalancer"]["ingress"][0]["ip"])


def check(what, seen, wanted, host=None, path=None):
    """The status, the Service that answered, and the request as it arrived there."""
    code, _, body = seen
    if wanted == NOTHING:
        return expect(f"{what}: 404", code == NOTHING, seen)
    expect(f"{what}: 200 from {wanted}", code == 200 and body["service"] == wanted, seen)
    expect(f"{what}: the path arrives as it was", path is None or body["path"] == path, body)
    return expect(f"{what}: the host arrives as it was", host is None or body["host"] == host, body)


def check_rows(feature, address, rows):
    for host, path, wanted in rows:
        check(f"{feature}: http://{host}{path}", ask(address, host, path), wanted, host, path)


def check_default_backend():
    address = address_of("default-backend")
    for method, host, path in DEFAULT_ROWS:
        what = f"default backend: {method} {host or ''}{path}"
        _, headers, body = seen = ask(address, host, path, method)
        check(what, seen, "echo-service", host or address, path)
        missing = {"content-length", "content-type", "date", "server"} - {name for name, value in headers.items() if value}
        expect(f"{what}: the answer has {missing}", not missing, headers)
        expect(f"{what}: the method arrives as it was", body["method"] == method, body)
        expect(f"{what}: HTTP/1.1", body["proto"] == "HTTP/1.1", body)
        expect(f"{what}: User-Agent arrives as it was", body["headers"]["User-Agent"][0].startswith("curl/"), body)
    return len(DEFAULT_ROWS)


def check_host_rules(crt):
    address = address_of("host-rules")
    trusted = trusting(crt, "foo.bar.com", address)
    # curl refuses a certificate that is not this one, or not for this host.
    eventually("host rules: https://foo.bar.com is served", 20, lambda: ask(address, "foo.bar.com", "/", trusted=trusted)[0] == 200)
    check("host rules: https://foo.bar.com/", ask(address, "foo.bar.com", "/", trusted=trusted), "foo-bar-com", "foo.bar.com", "/")
    check_rows("host rules", address, HOST_ROWS)
    return len(HOST_ROWS) + 1


def check_load_balancing():
    address = address_of("load-balancing")
    kubectl("scale", "deployment/echo-service", "-n", SPACE, f"--replicas={REPLICAS}")
    kubectl("rollout", "status", "deployment/echo-service", "-n", SPACE, "--timeout=90s")

    def pods():
        text = run(*OUTSIDE, "curl", "-s", "-m", 20, "-w", "%{http_code}\n", "-H", "Host: load-balancing", f"http://{address}/[1-100]")
        codes = [line for line in text.splitlines() if line.isdigit() or line.startswith("}")]
        expect("load balancing: all of 100 answers are 200", len(codes) == 100 and all(code.endswith("200") for code in codes), codes[:3])
        return {line.split('"')[3] for line in text.splitlines() if '"pod"' in line}
    eventually(f"load balancing: 100 requests reach {REPLICAS} pods", 20, lambda: len(pods()) == REPLICAS)
    return 1


def case_ingress():
    """Ingress: the scenarios of its official suite (default backend, hosts, class, balancing, paths) and the documented table."""
    apply(backends())
    try:
        crt = secret("conformance-tls", SPACE, "foo.bar.com")
        table, table_rows = documented(DOCUMENTED)
        table_default, table_default_rows = documented(DOCUMENTED_DEFAULT)
        apply(ingress("default-backend", more=DEFAULT) + ingress("load-balancing", more=DEFAULT) + ingress("path-rules", PATH_RULES)
              + ingress("host-rules", HOST_RULES, "  tls: [{hosts: [foo.bar.com], secretName: conformance-tls}]\n")
              + ingress("table", table) + ingress("table-default", table_default, DEFAULT)
              + ingress("nobodys", more=DEFAULT).replace("ingressClassName: cilium", "ingressClassName: some-invalid-class-name"))
        kubectl("wait", "--for=condition=Ready", "pod", "--all", "-n", SPACE, "--timeout=90s")
        eventually("the endpoints are in use", 30, lambda: all(
            ask(address_of(name), host, path)[0] == 200 for name, host, path in
            [("table-default", "nobody.test", "/"), ("path-rules", "trailing-slash-path-rules", "/aaa/bbb"), ("host-rules", "bar.foo.com", "/"),
             ("path-rules", "prefix-path-rules", "/aaa"), ("path-rules", "exact-path-rules", "/foo")]))
        done = check_default_backend() + check_host_rules(crt) + check_load_balancing()
        for name, rows in [("path-rules", PATH_ROWS), ("table", table_rows), ("table-default", table_default_rows)]:
            check_rows(name, address_of(name), rows)
            done += len(rows)
        time.sleep(2)
        status = get("ingress", "nobodys", SPACE)["status"]
        expect("an Ingress of a class that nobody has stays without a status", status == {"loadBalancer": {}}, status)
        FIGURES.append(f"ingress: {done + 1} scenarios and rows of tables as the official texts want them")
    finally:
        kubectl("delete", "namespace", SPACE, "--timeout=60s")


CASES = [case_ingress]
