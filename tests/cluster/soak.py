#!/usr/bin/env python3
"""The soak; see scripts/soak, which starts it in the network namespace of the control plane.

Every expectation is about an end: what two agents that lived through everything know and wrote must be what an agent
that has just been started knows, and what is written again after all of it was taken away. Nothing depends on the time
something took, but on whether it comes to be at all.
"""
import argparse
import json
import random
import signal
import sys
import time
from collections import Counter

from faulty_proxy import Faults
from soak_lab import ADDRESS, PORTS, Agent, Api, Backends, Canary, Failure, expect, say, tls
from soak_objects import KINDS, SPACES, WEIGHTS, Author, make, path

# What others may change between two looks, and what is a matter of time.
VOLATILE = {"resourceVersion", "managedFields", "lastTransitionTime", "creationTimestamp", "uid", "generation",
            "observedGeneration", "renewTime", "acquireTime", "leaseTransitions", "since", "age", "uptime"}
# Who announces an address, and who is on which machine, is not the same on two nodes.
OF_THE_NODE = {"role", "holder", "identity"}
COMPARED = ["Service", "EndpointSlice", "Ingress", "Gateway", "GatewayClass", "HTTPRoute", "CiliumLoadBalancerIPPool",
            "CiliumL2AnnouncementPolicy", "Secret", "ReferenceGrant", "Namespace"]
WITH_STATUS = ["Service", "Ingress", "Gateway", "GatewayClass", "HTTPRoute", "CiliumLoadBalancerIPPool", "CiliumL2AnnouncementPolicy"]
LISTS = ["route", "service", "endpoint", "ip"]
# A silent watch is given up after 150 s, a failed write tried again after 30 s at most, a reflector waits 60 s at most.
SETTLES_WITHIN = 400
# The control plane, two agents and this test share two cores: not more changes a second than a busy cluster has.
PAUSE = 0.004
# The two agents have 25 reflectors each, and each asks three times when it comes back (watch, 410, list, watch): how many
# of these may be in one second. Writes are two at a time, of one agent.
MOST_A_SECOND = 20
GROWTH_ALLOWED = 1.15


def plain(value, left_out=frozenset(VOLATILE)):
    """Without what may differ; lists in the order in which they are."""
    if isinstance(value, dict):
        return {key: plain(one, left_out) for key, one in sorted(value.items()) if key not in left_out}
    if isinstance(value, list):
        return [plain(one, left_out) for one in value]
    return value


def differences(left, right, where=""):
    """Sentences about what is not the same."""
    if isinstance(left, dict) and isinstance(right, dict):
        return [text for key in sorted(left.keys() | right.keys())
                for text in differences(left.get(key), right.get(key), f"{where}.{key}")]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [text for i, (a, b) in enumerate(zip(left, right)) for text in differences(a, b, f"{where}[{i}]")]
    return [] if left == right else [f"{where}: {json.dumps(left)[:300]} and {json.dumps(right)[:300]}"]


def named(items):
    return {f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}": plain(one) for one in items}


def view(agent):
    """All that an agent shows, without what may differ."""
    seen = {kind: named(agent.json("get", kind, "-A")["items"]) for kind in COMPARED}
    for one in LISTS:
        seen[one] = plain(agent.json(one, "list"), VOLATILE | OF_THE_NODE)
    return seen


def announced(services):
    """The entries about announced addresses, wherever they stand."""
    if isinstance(services, dict):
        here = [services] if "role" in services else []
        return here + [one for value in services.values() for one in announced(value)]
    return [one for value in services for one in announced(value)] if isinstance(services, list) else []


class Soak:
    def __init__(self, options):
        self.options = options
        self.draw = random.Random(options.seed)
        self.api, self.author = Api(), Author(self.draw)
        self.faults = Faults(options.seed, 6443, tls())
        self.faults.start(ADDRESS, PORTS)
        self.agents = {name: Agent(name) for name in PORTS}
        self.there = {kind: set() for kind in WEIGHTS}
        self.wrong = set()
        self.done = Counter()
        self.memory = []

    # Preparation.

    def put(self, kind, namespace, name, thing):
        code, answer = self.api.apply(path(kind, namespace, name), thing)
        expect(f"{kind} {namespace}/{name} can be made", code < 300, answer)

    def base(self):
        for number, node in enumerate(PORTS):
            labels = {} if node == "n3" else {"edge": "yes"}
            self.put("Node", "", node, make("Node", "", node, metadata={"labels": labels}))
            status = {"status": {"addresses": [{"type": "InternalIP", "address": f"10.201.0.1{number + 1}"}]}}
            self.api.must("PATCH", path("Node", "", node) + "/status", status, "application/merge-patch+json")
        self.put("GatewayClass", "", "pilus", make("GatewayClass", "", "pilus", spec={"controllerName": "pilus.dev/gateway-controller"}))
        self.put("IngressClass", "", "cilium", make("IngressClass", "", "cilium", spec={"controller": "cilium.io/ingress-controller"}))
        # The third agent announces nothing: it only says what it would have done.
        spec = {"loadBalancerIPs": True, "externalIPs": True, "interfaces": ["eth0"], "nodeSelector": {"matchLabels": {"edge": "yes"}}}
        self.put("CiliumL2AnnouncementPolicy", "", "lan", make("CiliumL2AnnouncementPolicy", "", "lan", spec=spec))
        spec = {"blocks": [{"start": "10.201.0.100", "stop": "10.201.0.103"}], "serviceSelector": {"matchLabels": {"canary": "yes"}}}
        self.put("CiliumLoadBalancerIPPool", "", "canary", make("CiliumLoadBalancerIPPool", "", "canary", spec=spec))
        for space in ["canary", *SPACES]:
            self.put("Namespace", "", space, self.author.namespace("", space))
        self.there["Namespace"] = {("", space) for space in SPACES}
        self.canary_objects()

    def canary_objects(self):
        port = {"name": "web", "port": 80, "targetPort": 9001}
        self.put("Service", "canary", "echo", make("Service", "canary", "echo", spec={"ports": [port]}))
        self.put("EndpointSlice", "canary", "echo", make(
            "EndpointSlice", "canary", "echo", metadata={"labels": {"kubernetes.io/service-name": "echo"}}, addressType="IPv4",
            endpoints=[{"addresses": [ADDRESS]}], ports=[{"name": "web", "port": 9001}]))
        spec = {"gatewayClassName": "pilus", "infrastructure": {"labels": {"canary": "yes"}},
                "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]}
        self.put("Gateway", "canary", "gate", make("Gateway", "canary", "gate", spec=spec))
        spec = {"parentRefs": [{"name": "gate"}], "hostnames": ["canary.test"], "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]}
        self.put("HTTPRoute", "canary", "echo", make("HTTPRoute", "canary", "echo", spec=spec))

    def canary_address(self):
        """The address once it is there and answers."""
        def look():
            gate = self.api.must("GET", path("Gateway", "canary", "gate"))
            addresses = gate.get("status", {}).get("addresses", [])
            return addresses and Canary(addresses[0]["value"], "canary.test", 1).ask() == 200 and addresses[0]["value"]
        return self.agents["n1"].until(60, "the canary is served", look)

    # Changes.

    def change(self):
        kinds = list(WEIGHTS)
        kind = self.draw.choices(kinds, [WEIGHTS[one][0] for one in kinds])[0]
        there, most = self.there[kind], WEIGHTS[kind][1]
        full = len(there) / most
        if kind != "Namespace" and self.draw.random() < 0.35 * full + 0.05 and there:
            return self.delete(kind, *self.draw.choice(sorted(there)))
        if kind == "Namespace":
            name = self.draw.choice(SPACES)
            if ("", name) in there and self.draw.random() < 0.06:
                return self.end_namespace(name)
            return self.write(kind, "", name)
        if there and self.draw.random() < 0.4:
            return self.write(kind, *self.draw.choice(sorted(there)))
        spaces = sorted(name for _, name in self.there["Namespace"])
        namespace = self.draw.choice(spaces) if KINDS[kind][2] and spaces else ""
        if KINDS[kind][2] and not spaces:
            return None
        stem = {"Service": ("svc", 30), "Secret": ("cert", 6), "Gateway": ("gate", 5), "EndpointSlice": ("slice", 100),
                "CiliumLoadBalancerIPPool": ("pool", 6)}.get(kind, (kind.lower()[:5], 40))
        return self.write(kind, namespace, self.author.some(*stem))

    def write(self, kind, namespace, name):
        key = (namespace, name)
        verb = "update" if key in self.there[kind] else "create"
        if verb == "create" and len(self.there[kind]) >= WEIGHTS[kind][1]:
            return None
        code, answer = self.api.apply(path(kind, namespace, name), self.author.write(kind, namespace, name))
        if code >= 300:
            # Some updates are refused by the API server: then it stays as it was.
            self.done[f"refused {kind} {code}"] += 1
            self.refusal = answer
            return None
        self.there[kind].add(key)
        self.wrong.discard((kind, *key))
        if self.author.is_wrong:
            self.wrong.add((kind, *key))
        self.done[f"{verb} {kind}"] += 1
        return True

    def delete(self, kind, namespace, name):
        code, answer = self.api.ask("DELETE", path(kind, namespace, name))
        expect(f"{kind} {namespace}/{name} can be deleted", code in (200, 202), answer)
        self.there[kind].discard((namespace, name))
        self.wrong.discard((kind, namespace, name))
        self.done[f"delete {kind}"] += 1
        return True

    def end_namespace(self, name):
        """As the controller of namespaces does it: all that is in it goes first, in no order, then it does."""
        self.api.must("DELETE", path("Namespace", "", name))
        inside = [(kind, key) for kind, keys in self.there.items() for key in keys if key[0] == name]
        self.draw.shuffle(inside)
        for kind, key in inside:
            self.delete(kind, *key)
        for made in self.api.items(path("Service", name)):
            self.api.ask("DELETE", path("Service", name, made["metadata"]["name"]))
        space = self.api.must("GET", path("Namespace", "", name))
        space["spec"] = {"finalizers": []}
        self.api.must("PUT", path("Namespace", "", name) + "/finalize", space)
        self.there["Namespace"].discard(("", name))
        self.done["delete Namespace"] += 1
        return True

    def run_changes(self):
        count = 0
        while count < self.options.changes:
            if self.change():
                count += 1
                if count % 1000 == 0:
                    self.tell(count)
            time.sleep(PAUSE)
        self.mend()
        refused = sum(number for what, number in self.done.items() if what.startswith("refused"))
        expect("the API server takes nearly all", refused < count / 10, self.refusal if refused else "")

    def mend(self):
        """What is wrong is written anew until it is right: in the end nothing may depend on the past."""
        say(f"{len(self.wrong)} wrong objects are mended")
        while self.wrong:
            for key in sorted(self.wrong):
                self.write(*key)

    def tell(self, count):
        both = [self.agents[name] for name in ("n1", "n2")]
        for agent in both:
            expect(f"{agent.name} runs", agent.is_alive())
        self.memory.append([agent.memory() for agent in both])
        say(f"{count} changes; RSS {' and '.join(f'{kib / 1024:.1f}' for kib in self.memory[-1])} MiB; CPU "
            f"{' and '.join(f'{agent.cpu():.1f}' for agent in both)} s; faults {sum(self.faults.faults.values())}; "
            f"requests {len(self.faults.requests)}; objects {sum(map(len, self.there.values()))}")

    # What must be so.

    def memory_is_flat(self):
        rows = self.memory[1:]
        half = len(rows) // 2
        if half == 0:
            return say("memory: too few changes to judge")
        for place, name in enumerate(("n1", "n2")):
            first, last = (max(row[place] for row in part) for part in (rows[:half], rows[half:]))
            expect(f"the memory of {name} is flat", last <= first * GROWTH_ALLOWED, f"{first} KiB in the first half, {last} in the last")
            say(f"{name}: at most {first / 1024:.1f} MiB in the first half, {last / 1024:.1f} in the last")

    def settle(self, what, look):
        """`look` says what is not as it must be; it must come to be nothing, and stay so for a moment."""
        end = time.monotonic() + SETTLES_WITHIN
        wrong, times, said = ["not looked at"], 0, time.monotonic()
        while time.monotonic() < end:
            wrong = look()
            if wrong and time.monotonic() > said + 30:
                said = time.monotonic()
                say(f"not yet: {what}: {len(wrong)} differences, as {wrong[0]}")
            times = 0 if wrong else times + 1
            if times == 3:
                return say(f"as it must be: {what}")
            time.sleep(2)
        raise Failure(f"{what}: {len(wrong)} differences, as " + "\n  ".join(wrong[:12]))

    def agents_agree(self, names):
        views = {name: view(self.agents[name]) for name in names}
        first = views[names[0]]
        return [f"{names[0]} and {name}: {text}" for name in names[1:] for text in differences(first, views[name])]

    def api_agrees(self):
        """The API server has what an agent shows: statuses and made Services."""
        seen = []
        for kind in WITH_STATUS:
            api = named(self.api.items(path(kind, "")))
            agent = named(self.agents["n3"].json("get", kind, "-A")["items"])
            for name in sorted(api.keys() | agent.keys()):
                left, right = (clean_status(side.get(name)) for side in (api, agent))
                seen += differences(left, right, f"API and n3: {kind} {name}")
        return seen

    def addresses_are_unique(self):
        """Each address has one Service, or Services that share it; each balancer that a pool serves has one."""
        owners = {}
        for service in self.api.items(path("Service", "")):
            key = service["metadata"].get("annotations", {}).get("lbipam.cilium.io/sharing-key")
            for entry in service["status"].get("loadBalancer", {}).get("ingress", []):
                owners.setdefault(entry["ip"], []).append((service["metadata"]["namespace"] + "/" + service["metadata"]["name"], key))
        wrong = []
        for address, users in owners.items():
            if len(users) > 1 and (len({key for _, key in users}) > 1 or users[0][1] is None):
                wrong.append(f"{address} is given to {users}")
        return wrong

    def holders_fit(self):
        """No address has two holders, and Leases name nobody but the two; nobody holds what is Local and without endpoints."""
        roles = {}
        for name in ("n1", "n2"):
            for address in announced(self.agents[name].json("service", "list")):
                roles.setdefault(address["frontend"]["address"], set()).add((name, address["role"]))
        wrong = []
        for ip, both in roles.items():
            holders = sorted(name for name, role in both if role == "Holder")
            if len(holders) > 1:
                wrong.append(f"{ip} has the holders {holders}")
        for lease in self.api.items(path("Lease", "kube-system")):
            name = lease["metadata"]["name"]
            if name.startswith("pilus-l2announce-") and lease["spec"].get("holderIdentity") not in ("n1", "n2", ""):
                wrong.append(f"{name} is held by {lease['spec'].get('holderIdentity')}")
        return wrong

    def statuses(self):
        return {kind: {name: clean_status(one) for name, one in named(self.api.items(path(kind, ""))).items()} for kind in WITH_STATUS}

    def wipe(self):
        """Takes away all that was written."""
        for kind in WITH_STATUS:
            for one in self.api.items(path(kind, "")):
                place = path(kind, one["metadata"].get("namespace"), one["metadata"]["name"])
                if one["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "pilus":
                    self.api.must("DELETE", place)
                elif one.get("status"):
                    empty = {key: None for key in one["status"]}
                    if kind == "HTTPRoute":
                        empty = {"parents": []}
                    self.api.must("PATCH", place + "/status", {"status": empty}, "application/merge-patch+json")
        for lease in self.api.items(path("Lease", "kube-system")):
            self.api.must("DELETE", path("Lease", "kube-system", lease["metadata"]["name"]))

    # The parts.

    def through_faults(self):
        with Canary(self.canary_address(), "canary.test", 0.05) as canary:
            self.faults.on = True
            self.run_changes()
            self.faults.on = False
            say(f"changes: {dict(sorted(self.done.items()))}")
            say(f"faults: {dict(sorted(self.faults.faults.items()))}")
            self.agents["n3"].start()
            self.settle("two agents that saw it all show what a new one shows", lambda: self.agents_agree(["n1", "n2", "n3"]))
            self.settle("the API server has what the new agent shows", self.api_agrees)
            self.settle("no address is given twice", self.addresses_are_unique)
            self.settle("each announced address has its holder", self.holders_fit)
            expect("every silent watch was given up", self.faults.silent == self.faults.silent_ended,
                   f"{self.faults.silent_ended} of {self.faults.silent}")
            self.agents["n3"].stop()
        expect("the canary was always served", not canary.failures, canary.failures[:5])
        expect("the canary was asked", canary.count > 100, canary.count)
        say(f"the canary was served {canary.count} times, and failed 0 times")

    def server_away(self):
        with Canary(self.canary_address(), "canary.test", 0.05) as canary:
            say(f"the API server is away for {self.options.down} s")
            self.faults.go_down()
            time.sleep(self.options.down)
            away = [one for one in self.faults.requests if one[3] == "refused"]
            came_back = time.time()
            for number in range(20):
                self.write("EndpointSlice", "canary", f"later-{number}")
            self.faults.come_back(expired=True)
            time.sleep(100)
            self.settle("after the return both agents agree", lambda: self.agents_agree(["n1", "n2"]))
        later = [one for one in self.faults.requests if one[0] >= came_back and one[2] != "-"]
        back, writes = (Counter(int(one[0] - came_back) for one in later if (one[2] == "GET") == reads) for reads in (True, False))
        say(f"requests while it was away: {len(away)}; after the return, reads in each second: {[back[i] for i in range(100)]}; "
            f"writes: {[writes[i] for i in range(100)]}")
        expect("the agents did come back", sum(back.values()) > 40, sum(back.values()))
        expect(f"no second has more than {MOST_A_SECOND} reads", max(back.values()) <= MOST_A_SECOND, max(back.values()))
        expect("the canary was always served", not canary.failures, canary.failures[:5])
        say(f"the canary was served {canary.count} times meanwhile")

    def from_scratch(self):
        before = self.statuses()
        for name in ("n1", "n2"):
            self.agents[name].stop()
        self.wipe()
        for name in ("n1", "n2"):
            self.agents[name].start()

        def look():
            return differences(without_addresses(before), without_addresses(self.statuses()))
        self.settle("all that was wiped is written again as it was", look)
        self.settle("no address is given twice", self.addresses_are_unique)

    def run(self):
        backends = Backends({"echo": 9001})
        try:
            self.base()
            for name in ("n1", "n2"):
                self.agents[name].start()
            self.through_faults()
            self.server_away()
            self.from_scratch()
            self.memory_is_flat()
        finally:
            for agent in self.agents.values():
                agent.stop()
            backends.stop()
            self.faults.stop()


def clean_status(one):
    """The status, without conditions of others and what stands for nothing."""
    status = (one or {}).get("status") or {}
    balancer = status.get("loadBalancer")
    if balancer is not None and not balancer.get("ingress"):
        status = {key: value for key, value in status.items() if key != "loadBalancer"}
    if status.get("loadBalancer"):
        ingress = [{key: value for key, value in entry.items() if key != "ipMode"} for entry in status["loadBalancer"]["ingress"]]
        status = status | {"loadBalancer": {"ingress": ingress}}
    return {key: value for key, value in status.items() if value not in ([], {})}


def without_addresses(value):
    """Which of the addresses one gets is a matter of history; whether one does is not."""
    if isinstance(value, dict):
        if "conditions" in value and "cilium.io/IPsUsed" in json.dumps(value["conditions"]):
            value = value | {"conditions": []}
        return {key: without_addresses(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_addresses(one) for one in value]
    return "ADDRESS" if isinstance(value, str) and value.startswith("10.20") else value


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--down", type=int, default=120)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        if options.scale:
            import soak_scale
            soak_scale.run()
        else:
            say(f"seed {options.seed}, {options.changes} changes")
            Soak(options).run()
            say(f"soak: passed: {options.changes} changes, seed {options.seed}")
    except Failure as failure:
        say(f"soak: FAILED: {failure}")
        sys.exit(1)


if __name__ == "__main__":
    main()
