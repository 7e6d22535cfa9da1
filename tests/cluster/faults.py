"""What dies, under load: an agent, a node, the API server again and again. Whoever is alive serves on; afterwards nothing is stale."""
import time

from cluster import (FIGURES, HERE, NODES, Answers, Load, agent, control_plane, curl, end, eventually, expect, expect_one_answers,
                     gateway_address, get, holder, kubectl, leases_are_true, process, run, served, statuses, targets, writer)

# What a client waits before it gives up: longer than three attempts at endpoints that are silent.
PATIENCE = 10
# How often the API server is killed.
ROUNDS = 3


def settled(before, addresses):
    """Statuses are what they were, each address is announced by one node, and by the node that its Lease names."""
    eventually("statuses are what they were", 60, lambda: statuses() == before)
    eventually("the Leases of addresses are true", 60, leases_are_true)
    expect("the addresses are the same", targets() == addresses, targets())
    expect_one_answers(*(address for address, _ in addresses))


def killed(node):
    """Ends an agent without a warning, under load; what was measured for each address that it held."""
    addresses = targets()
    held = {address: holder(address) for address, _ in addresses}
    other = next(one for one in NODES if one != node)
    with Load(*addresses) as load, Answers(*held) as answers:
        time.sleep(1)
        end(f"pilus-{node}", "KILL")
        eventually("the other node has all addresses", 30, lambda: all(holder(address) == other for address in held))
        time.sleep(1)
    answers.expect_no_duplicate()
    answers.expect_one()
    gaps = {target: load.gap(target) for target in addresses}
    load.expect_failures_within({target: gap if held[target[0]] == node else (0, 0) for target, gap in gaps.items()})
    return [(host, held[address] == node, gaps[address, host][0]) for address, host in addresses], len(load.failures), load.count


def case_killed():
    """Agents are killed under load: addresses of the other never miss an answer; another writes; nothing is stale afterwards."""
    eventually("both answer", 30, served)
    before, addresses = statuses(), targets()
    for node in NODES:
        was_writer, since = writer() == node, time.monotonic()
        gaps, failed, count = killed(node)
        for host, was_held, gap in gaps:
            what = "its address was taken over" if was_held else "the other node's address, untouched"
            FIGURES.append(f"killed: agent of {node}, {host}: {what}; longest time without an answer {gap * 1000:.0f} ms")
        FIGURES.append(f"killed: agent of {node}: {failed} of {count} requests failed, all of them before the takeover")
        expect("statuses do not change", statuses() == before, statuses())
        if was_writer:
            eventually("the other node writes", 90, lambda: writer() not in (node, ""))
            FIGURES.append(f"killed: agent of {node} was the writer: another holds the Lease after {time.monotonic() - since:.0f} s")
        agent(node)
        eventually("both answer", 30, served)
        settled(before, addresses)


def case_node():
    """A node dies at once (agent, kubelet, containerd, pods, cable) under load, is NotReady, and comes back empty."""
    eventually("both answer", 30, served)
    before, addresses = statuses(), targets()
    first = eventually("somebody announces", 10, lambda: holder(addresses[1][0]))
    other = next(node for node in NODES if node != first)
    try:
        with Load(*addresses, seconds=PATIENCE, clients=3) as load, Answers(*(address for address, _ in addresses)) as answers:
            time.sleep(1)
            run("ip", "-n", "k8s-cp", "link", "set", f"v{first}", "down")
            end(f"pilus-{first}", "KILL")
            end(f"node-{first}", "KILL")
            eventually("the other node has all addresses", 30, lambda: all(holder(address) == other for address, _ in addresses))
            eventually("Kubernetes has noticed", 90, lambda: kubectl("wait", "--for=condition=Ready=Unknown", f"node/{first}", "--timeout=1s"))
            expect("statuses do not change", statuses() == before, statuses())
            time.sleep(5)
        answers.expect_no_duplicate()
        answers.expect_one()
        load.expect_failures_within({target: load.gap(target) for target in addresses})
        longest = max(end - begin for begin, end, _, _ in load.results)
        FIGURES.append(f"node: {first} died: {len(load.failures)} of {load.count} requests failed, all of them before the takeover; longest request "
                       f"{longest:.1f} s; longest time without an answer {max(load.gap(target)[0] for target in addresses):.1f} s")
    finally:
        run("ip", "-n", "k8s-cp", "link", "set", f"v{first}", "up")
        if process(f"node-{first}") is None:
            run(HERE / "node-up.sh", first)
        if process(f"pilus-{first}") is None:
            with Load(*addresses, seconds=PATIENCE) as load:
                agent(first)
                kubectl("rollout", "status", "deployment/echo", "-n", "demo", "--timeout=90s")
                time.sleep(5)
            load.expect_only_cut(f"node: {first} is back", 1)
    settled(before, addresses)


def case_flapping():
    """The API server is killed and started three times in a row under load; a change made between is served and written."""
    eventually("both answer", 30, served)
    before, addresses = statuses(), targets()
    with Load(*addresses) as load:
        for number in range(ROUNDS):
            end("kube-apiserver", "KILL")
            time.sleep(1)
            control_plane("kube-apiserver")
            eventually("a change can be made", 30, lambda host=f"flap{number}.test": kubectl(
                "patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", f'{{"spec":{{"hostnames":["gate.test","{host}"]}}}}'))
    load.expect_none_failed()
    eventually("the last change is served", 60, lambda: curl(gateway_address(), f"flap{ROUNDS - 1}.test") == "200")
    generation = get("httproute", "echo")["metadata"]["generation"]
    eventually("its status is written", 90, lambda: all(one["observedGeneration"] == generation
                                                        for one in get("httproute", "echo")["status"]["parents"][0]["conditions"]))
    kubectl("patch", "httproute", "echo", "-n", "demo", "--type=merge", "-p", '{"spec":{"hostnames":["gate.test"]}}')
    settled(before, addresses)


CASES = [case_killed, case_node, case_flapping]
