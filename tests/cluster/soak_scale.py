"""How much memory 1,000 Services, 5,000 endpoints and 1,000 routes cost an agent, and how soon a changed EndpointSlice is
in the data path: a route's only endpoint is moved from one backend to the other and back, and asked for all the while.
"""
import http.client
import json
import statistics
import time

from soak_lab import ADDRESS, Agent, Api, Backends, expect, say
from soak_objects import make, path

SERVICES, ENDPOINTS_EACH, ROUTES_OF_A_GATEWAY = 1000, 5, 250
MEMORY_MIB, CHANGE_MS = 25, 50
CHANGES = 40
PORT_OF = {"one": 9001, "two": 9002}


def write(api):
    def put(kind, namespace, name, **rest):
        code, answer = api.apply(path(kind, namespace, name), make(kind, namespace, name, **rest))
        expect(f"{kind} {name} can be made", code < 300, answer)

    put("Node", "", "n1")
    put("GatewayClass", "", "pilus", spec={"controllerName": "pilus.dev/gateway-controller"})
    put("CiliumL2AnnouncementPolicy", "", "lan", spec={"loadBalancerIPs": True, "interfaces": ["eth0"]})
    put("CiliumLoadBalancerIPPool", "", "lan", spec={"blocks": [{"start": "10.201.0.100", "stop": "10.201.0.120"}]})
    put("Namespace", "", "scale")
    for number in range(SERVICES // ROUTES_OF_A_GATEWAY):
        put("Gateway", "scale", f"gate-{number}", spec={"gatewayClassName": "pilus", "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]})
    for number in range(SERVICES):
        name = f"svc-{number}"
        put("Service", "scale", name, spec={"ports": [{"name": "web", "port": 80, "targetPort": 9001}]})
        addresses = [f"10.204.{number // 40}.{number % 40 * 6 + i + 1}" for i in range(ENDPOINTS_EACH)]
        put_slice(api, name, addresses, 9001)
        put("HTTPRoute", "scale", f"route-{number}", spec={
            "parentRefs": [{"name": f"gate-{number // ROUTES_OF_A_GATEWAY}"}], "hostnames": [f"h{number}.test"],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [{"name": name, "port": 80}]}]})
        if number % 250 == 249:
            say(f"{number + 1} Services written")


def put_slice(api, service, addresses, port):
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    code, answer = api.apply(path("EndpointSlice", "scale", service), make(
        "EndpointSlice", "scale", service, metadata={"labels": {"kubernetes.io/service-name": service}}, addressType="IPv4",
        endpoints=endpoints, ports=[{"name": "web", "port": port}]))
    expect("the slice can be written", code < 300, answer)


def asked(connection):
    """Which backend answers."""
    connection.request("GET", "/", headers={"Host": "h999.test"})
    answer = connection.getresponse()
    text = answer.read()
    return json.loads(text)["pod"] if answer.status == 200 else answer.status


def measure(api, address):
    """Milliseconds from the answer of the API server to a change until the first request that another backend answers."""
    taken, patched = [], []
    connection = http.client.HTTPConnection(address, 80, timeout=10)
    for number in range(CHANGES):
        name = ["two", "one"][number % 2]
        began = time.monotonic()
        put_slice(api, "svc-999", [ADDRESS], PORT_OF[name])
        written = time.monotonic()
        while (seen := asked(connection)) != name:
            expect("the change is served within 10 s", time.monotonic() < written + 10, seen)
        taken.append((time.monotonic() - written) * 1000)
        patched.append((written - began) * 1000)
        time.sleep(0.3)
    return taken, patched


def run():
    api, agent, backends = Api(), Agent("n1", server=f"https://{ADDRESS}:6443"), Backends(PORT_OF)
    try:
        write(api)
        began = time.monotonic()
        agent.start()

        def ready():
            gates = api.items(path("Gateway", "scale"))
            return all(gate.get("status", {}).get("addresses") and gate["status"]["listeners"][0]["attachedRoutes"] == ROUTES_OF_A_GATEWAY
                       for gate in gates)
        agent.until(120, "all routes are attached", ready)
        say(f"all is read, served and said in {time.monotonic() - began:.1f} s; CPU {agent.cpu():.2f} s")
        written = lambda: all(one.get("status", {}).get("parents") for one in api.items(path("HTTPRoute", "scale")))
        agent.until(120, "all statuses are written", written)
        say(f"all 1,000 statuses are written after {time.monotonic() - began:.1f} s; CPU {agent.cpu():.2f} s; RSS {agent.memory() / 1024:.1f} MiB")
        put_slice(api, "svc-999", [ADDRESS], PORT_OF["one"])
        gate = api.must("GET", path("Gateway", "scale", f"gate-{999 // ROUTES_OF_A_GATEWAY}"))
        address = gate["status"]["addresses"][0]["value"]
        time.sleep(10)
        before = agent.cpu()
        taken, patched = measure(api, address)
        each = (agent.cpu() - before) / CHANGES * 1000
        middle, most = statistics.median(taken), sorted(taken)[int(len(taken) * 0.9)]
        say(f"a changed EndpointSlice is served after {middle:.1f} ms (median of {CHANGES}; 90 % within {most:.1f} ms), counted "
            f"from the answer of the API server, which takes {statistics.median(patched):.1f} ms; {each:.1f} ms of CPU each")
        memory = agent.memory() / 1024
        say(f"RSS {memory:.1f} MiB")
        expect(f"memory is below {MEMORY_MIB} MiB", memory < MEMORY_MIB, f"{memory:.1f}")
        expect(f"half of the changes are served within {CHANGE_MS} ms", middle < CHANGE_MS, f"{middle:.1f} ms")
    finally:
        agent.stop()
        backends.stop()
    say("scale: passed")
