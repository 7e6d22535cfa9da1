#!/usr/bin/env python3
"""The fault matrix; see scripts/fault-matrix, which starts it.

Each run: every address is where it was at first and is answered; a connection to each pod is opened; the fault; some time later it is
judged what happened; the fault is taken back, and judged again. The time of a run is the longest in which no good answer came,
from the fault on: where the holder is cut off at once, that is the time to the first good answer; where the old path answers for a while
before it dies, its answers do not hide the silence after it.
"""
import argparse
import os
import shutil
import signal
import sys
import time

from lab import ADDRESSES, ANNOUNCING, NODES, Failure, Lab, exchange, ip, manifests, until
from net import PORT_DISABLED, PORT_FORWARDING
from probe import WATCH_EVERY

# Seconds after which it is judged what a fault has done; where the node comes back by itself, the preferred nodes have their addresses
# again by then.
WINDOW, LONG_WINDOW = 1.5, 4
# The promise for single faults, in milliseconds.
PROMISE = 500
# When two take an address over, or the preferred node takes it back, both answer until one has heard the other: milliseconds in which it must.
DOUBLE_LIMIT = 500
# A hung holder that goes on must not answer besides the new one: not more than one question, which may be that of its last moment.
DOUBLE_ONCE = 1000 * WATCH_EVERY
# A run in which the machine did not let the client ask for so long, in seconds, says nothing about Pilus: it is done again, and that is said.
STALL = 0.1


class Run:
    """What one run of a row has shown."""

    def __init__(self):
        self.times = {"page": [], "web": []}
        self.silence, self.stalled = 0, False
        # Milliseconds in which two answered: soon after the fault, and later.
        self.doubled = {"fault": 0, "back": 0}
        self.broken = set()
        self.kept = {"fault": (0, 0), "back": (0, 0)}


class Row:
    """A fault. `single`: the promise holds for it; `pods_lost`: nobody reaches the holder, its pods included."""
    title, single, pods_lost = "", True, False
    # It must not answer as a second one when it is back.
    silent_at_first = False
    window = WINDOW

    def __init__(self, lab):
        self.lab = lab
        self.holder = None

    def prepare(self):
        pass

    def fault(self):
        raise NotImplementedError

    def meanwhile(self, run):
        """Beyond what is judged for all rows, while the fault lasts."""

    def back(self):
        """Takes the fault back."""

    def finish(self):
        """After the run, or after one that failed: nothing may be left of it."""


class Killed(Row):
    title = "holder's agent killed (SIGKILL)"

    def fault(self):
        self.holder.kill()
        return time.monotonic()

    def back(self):
        self.holder.agent.wait()
        self.holder.start()


class PowerCut(Killed):
    title = "holder without power (killed, off the LAN at once)"
    pods_lost = True

    def fault(self):
        moment = time.monotonic()
        self.lab.switch.set_up(self.holder.port, False)
        self.holder.kill()
        return moment

    def back(self):
        self.lab.switch.set_up(self.holder.port, True)
        super().back()


class Hung(Row):
    title = "holder's agent hung (SIGSTOP, later SIGCONT)"
    silent_at_first = True

    def fault(self):
        moment = time.monotonic()
        self.holder.agent.send_signal(signal.SIGSTOP)
        return moment

    def back(self):
        self.holder.agent.send_signal(signal.SIGCONT)


class Restarted(Row):
    title = "holder's agent restarted (SIGTERM, start)"
    window = LONG_WINDOW
    binary = None

    def fault(self):
        moment = time.monotonic()
        self.holder.end()
        self.holder.start(self.binary)
        return moment


class Upgraded(Restarted):
    title = "holder's agent upgraded (SIGTERM, another binary)"

    def prepare(self):
        self.binary = f"{self.lab.dir}/pilus-{time.monotonic_ns()}"
        shutil.copy(self.lab.binary, self.binary)

    def finish(self):
        for name in os.listdir(self.lab.dir):
            if name.startswith("pilus-") and f"{self.lab.dir}/{name}" != self.binary:
                os.unlink(f"{self.lab.dir}/{name}")


class Cable(Row):
    title = "cable cut (the node sees no carrier)"
    pods_lost = True

    def fault(self):
        moment = time.monotonic()
        self.lab.switch.set_up(self.holder.port, False)
        return moment

    def back(self):
        self.lab.switch.set_up(self.holder.port, True)


class Discards(Row):
    title = "switch discards (the node sees its carrier)"
    pods_lost = True

    def fault(self):
        moment = time.monotonic()
        self.lab.switch.set_port_state(self.holder.index, PORT_DISABLED)
        return moment

    def back(self):
        self.lab.switch.set_port_state(self.holder.index, PORT_FORWARDING)


class Renamed(Row):
    title = "interface renamed (down, rename, up)"
    window = LONG_WINDOW

    def fault(self):
        moment = time.monotonic()
        self.rename()
        return moment

    def rename(self):
        new = "lan1" if self.holder.link == "lan0" else "lan0"
        self.holder.control.set_up(self.holder.link, False)
        self.holder.control.rename(self.holder.link, new)
        self.holder.control.set_up(new, True)
        self.holder.link = new
        # The kernel has dropped them with the link.
        self.holder.routes()


class Ages(Row):
    title = "switch forgets its table, floods nothing, ages in 1 s"

    def prepare(self):
        self.flood("off")
        ip(self.lab.ns("sw"), "link set br0 type bridge ageing_time 100")

    def fault(self):
        moment = time.monotonic()
        ip(self.lab.ns("sw"), "link set br0 type bridge fdb_flush")
        return moment

    def flood(self, state):
        for name in NODES:
            ip(self.lab.ns("sw"), f"link set {self.lab.nodes[name].port} type bridge_slave flood {state}")

    def finish(self):
        self.flood("on")
        ip(self.lab.ns("sw"), "link set br0 type bridge ageing_time 30000")


class Partition(Row):
    """The holder with a client and a watcher on one side, the others with theirs on the other; pods on both."""
    title = "LAN in two parts, both served; then one again"
    single, pods_lost = False, True

    def prepare(self):
        self.lab.apply(manifests(NODES))
        self.ask2 = self.lab.probe("cl2", "ask", self.lab.page, self.lab.web)
        self.watch2 = self.lab.probe("wa2", "watch", "lan0", *ADDRESSES)
        self.ports = [self.holder.index, *(self.lab.switch.index(f"port-{name}") for name in ("cl2", "wa2"))]
        time.sleep(1)

    def fault(self):
        self.begin = time.monotonic()
        for port in self.ports:
            self.lab.switch.set_master(port, self.lab.bridges[1])
        return self.begin

    def meanwhile(self, run):
        for address in ADDRESSES:
            answers = self.lab.answers(address, time.monotonic() - 0.75, self.watch2)
            if set().union(*answers) != {self.holder.mac}:
                run.broken.add(f"{address} in the holder's part is answered by {answers}")
        for address in (self.lab.page, self.lab.web):
            if not any(answered != "-" for _, answered in self.ask2.since(address, self.begin + 0.5)):
                run.broken.add(f"{address} is not served in the holder's part")

    def back(self):
        for port in self.ports:
            self.lab.switch.set_master(port, self.lab.bridges[0])

    def finish(self):
        self.back()
        for probe in (self.ask2, self.watch2):
            probe.end()
            self.lab.probes.remove(probe)
        self.lab.apply(manifests(["n4"]))
        time.sleep(1)


class Bounce(Row):
    title = "whole LAN gone for 1 s (every node's port), timed from its return"
    single = False
    window = LONG_WINDOW

    def fault(self):
        for up in (False, True):
            moment = time.monotonic()
            for name in NODES:
                self.lab.switch.set_up(self.lab.nodes[name].port, up)
            if not up:
                time.sleep(1)
        return moment


class TwoDie(Row):
    title = "of three nodes two killed, one after the other (each kill)"

    def fault(self):
        self.dead = [self.holder]
        self.holder.kill()
        return time.monotonic()

    def second(self):
        """The next holder of the Service's address dies as well."""
        name = until("nobody has taken over", lambda: self.lab.holder(self.lab.web))
        self.dead.append(self.lab.nodes[name])
        self.lab.nodes[name].kill()
        return time.monotonic()

    def back(self):
        for node in self.dead:
            node.agent.wait()
            node.start()


ROWS = {"killed": Killed, "power": PowerCut, "hung": Hung, "restarted": Restarted, "upgraded": Upgraded, "cable": Cable,
        "discards": Discards, "renamed": Renamed, "ages": Ages, "partition": Partition, "bounce": Bounce, "two-die": TwoDie}


def restored(records, moment, end):
    """Milliseconds of the longest time after the fault in which no good answer came; None if none came at last."""
    good = sorted(float(answered) for _, answered in records if answered != "-" and float(answered) >= moment)
    points = [moment, *good]
    if end - points[-1] > PROMISE / 1000:
        return None
    return max((b - a for a, b in zip(points, points[1:])), default=0) * 1000


def longest_silence(records):
    good = sorted(float(answered) for _, answered in records if answered != "-")
    return max((b - a for a, b in zip(good, good[1:])), default=float("inf")) * 1000


def judge(row, run, moment, open_connections, window):
    """After a fault: the times, and exactly one answerer for each address, and which connections are still there."""
    lab = row.lab
    end = max(moment, time.monotonic() - 0.1) + window
    time.sleep(max(0, end - time.monotonic()))
    wait_for_records(lab)
    for name, address in (("page", lab.page), ("web", lab.web)):
        took = restored(lab.ask.since(address, moment - 0.3, end), moment, end)
        if took is None:
            run.broken.add(f"no good answers from {address} {window} s after the fault")
        else:
            run.times[name].append(took)
    run.doubled["fault"] = max(run.doubled["fault"], doubled(lab, moment, moment + WINDOW))
    run.doubled["back"] = max(run.doubled["back"], doubled(lab, moment + WINDOW))
    one_answerer(lab, run, "after the fault")
    run.kept["fault"] = still(lab, open_connections, row)


def wait_for_records(lab):
    """The probes write about a question when its time is up."""
    now = time.monotonic()
    until("the probes are silent", lambda: lab.ask.since(lab.page, now) and lab.watch.since(ADDRESSES[0], now))


def doubled(lab, begin, end=float("inf")):
    """For how many milliseconds at most an address was answered by two: from the first to behind the last of such questions in a row."""
    longest = 0
    for address in ADDRESSES:
        first = None
        for asked, macs in lab.watch.since(address, begin, end):
            first = (first or asked) if "," in macs else None
            longest = max(longest, asked + WATCH_EVERY - first if first else 0)
    return round(longest * 1000)


def one_answerer(lab, run, when):
    """Over a second: the same one to each question."""
    begin = time.monotonic() - 0.2
    time.sleep(1)
    for address in ADDRESSES:
        answers = lab.answers(address, begin)
        if len(answers) < 5:
            raise Failure("the machine is too slow: the watcher does not keep up")
        macs = set().union(*answers)
        if any(len(found) > 1 for found in answers):
            run.broken.add(f"{when}, two answer for {address}: {' '.join(sorted(macs))}")
        elif sum(map(bool, answers)) * 2 < len(answers):
            run.broken.add(f"{when}, {address} is lost: {sum(not found for found in answers)} of {len(answers)} questions without an answer")


def still(lab, open_connections, row):
    """How many connections work, of those whose pod can be reached."""
    there = {pod: client for pod, client in open_connections.items() if not (row.pods_lost and pod == row.holder.name)}
    lost = [pod for pod, client in there.items() if exchange(client, 1) != pod]
    if lost:
        say(f"connections lost to the pods on {' '.join(lost)}; the fault was on {row.holder.name}")
    return len(there) - len(lost), len(there)


def stalled(lab):
    asked = [asked for asked, _ in lab.ask.since(lab.page, 0)]
    return max((b - a for a, b in zip(asked, asked[1:])), default=0) > STALL


def once(row):
    lab, run = row.lab, Run()
    lab.settle()
    for probe in (lab.ask, lab.watch):
        probe.forget()
    row.holder = lab.nodes[lab.home[lab.page]]
    open_connections = {}
    try:
        try:
            row.prepare()
            open_connections = lab.connections()
            moment = row.fault()
            judge(row, run, moment, open_connections, row.window)
            if isinstance(row, TwoDie):
                judge(row, run, row.second(), open_connections, row.window)
            row.meanwhile(run)
        finally:
            moment = time.monotonic()
            row.back()
        lab.settle()
        wait_for_records(lab)
        run.silence = max(longest_silence(lab.ask.since(address, moment - 0.2)) for address in (lab.page, lab.web))
        run.doubled["back"] = max(run.doubled["back"], doubled(lab, moment))
        if row.silent_at_first and doubled(lab, moment, moment + WINDOW) > DOUBLE_ONCE:
            run.broken.add("two answered when it went on")
        one_answerer(lab, run, "afterwards")
        row.pods_lost, lost = False, row.pods_lost
        run.kept["back"] = still(lab, open_connections, row)
        row.pods_lost = lost
    except Failure as error:
        run.broken.add(str(error))
    finally:
        run.stalled = stalled(lab)
        for client in open_connections.values():
            client.close()
        row.finish()
    if max(run.doubled.values()) > DOUBLE_LIMIT:
        run.broken.add(f"two answered at once: {run.doubled}")
    return run


def percentiles(times):
    ordered = sorted(times)
    if not ordered:
        return "none"
    return " / ".join(f"{one:.0f}" for one in (ordered[(len(ordered) - 1) // 2], p99(ordered), ordered[-1]))


def p99(times):
    ordered = sorted(times)
    return ordered[len(ordered) - 1 - len(ordered) // 100]


def kept(runs, phase):
    return f"{sum(run.kept[phase][0] for run in runs)}/{sum(run.kept[phase][1] for run in runs)}"


def line(row, runs):
    page = [took for run in runs for took in run.times["page"]]
    web = [took for run in runs for took in run.times["web"]]
    twice = [max(run.doubled[phase] for run in runs) for phase in ("fault", "back")]
    silence = sorted(run.silence for run in runs)
    return (f"| {row.title} | {len(runs)} | {percentiles(page)} | {percentiles(web)} | {percentiles(silence)} "
            f"| {kept(runs, 'fault')}, {kept(runs, 'back')} | {twice[0]:.0f}, {twice[1]:.0f} |")


HEAD = ("| fault | runs | Ingress, ms p50 / p99 / max | Service, ms p50 / p99 / max | longest silence when it is taken back, ms p50 / p99 / max "
        "| connections kept in it, after it | longest time two answered in it, after it, ms |\n|---|---|---|---|---|---|---|")


def failures(row, runs):
    found = [f"run {number}: {text}" for number, run in enumerate(runs, 1) for text in sorted(run.broken)]
    for name in ("page", "web"):
        times = [took for run in runs for took in run.times[name]]
        if row.single and times and p99(times) > PROMISE:
            found.append(f"p99 {p99(times):.0f} ms of the {'Ingress' if name == 'page' else 'Service'} is above {PROMISE} ms")
    return found


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(lab, options):
    lines, bad, repeated = [], [], []
    for name in options.row or ROWS:
        row, runs, again = ROWS[name](lab), [], 0
        while len(runs) < options.runs:
            run = once(row)
            took = ", ".join(f"{key} {' '.join(f'{one:.0f}' for one in times)} ms" for key, times in run.times.items())
            say(f"{name} {len(runs) + 1}: {took}, back {run.silence:.0f} ms, connections {run.kept}, two for {run.doubled} ms {'; '.join(run.broken)}")
            if run.broken and options.logs:
                say(lab.logs())
            if run.stalled and again < options.runs:
                say(f"{name}: the machine stood still for more than {STALL * 1000:.0f} ms: again")
                again += 1
                continue
            runs.append(run)
        if again:
            repeated.append(f"{name}: {again} runs more, in which the machine stood still for {STALL * 1000:.0f} ms and more, are not counted")
        lines.append(line(row, runs))
        bad += [f"{name}: {text}" for text in failures(row, runs)]
    print(HEAD, *lines, *repeated, sep="\n")
    for text in bad:
        print("FAILED", text)
    return bool(bad)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="scripts/fault-matrix", description="times from a fault on the LAN to the first good answer")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="runs of each row (20)")
    parser.add_argument("--row", nargs="+", choices=list(ROWS), metavar="NAME", help=f"only these: {' '.join(ROWS)}")
    parser.add_argument("--logs", action="store_true", help="show the ends of the agents' logs after a run that failed")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    lab = Lab(os.environ["PILUS_BINARY"])
    try:
        lab.up()
        return measure(lab, options)
    except Failure as error:
        print(f"FAILED {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lab.down()


sys.exit(main())
