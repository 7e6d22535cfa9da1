"""A proxy between agents and an API server that does what can go wrong there: refusals, cuts, silence, slowness.

Plain HTTP to the agents, TLS to the API server; one port for each agent. What goes wrong is drawn from a seed. Requests
and faults are counted, and the seconds in which requests came are kept.
"""
import asyncio
import json
import random
import threading
import time
from collections import Counter

REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
# Of requests: what becomes of them, and how often. "cut": no answer; "lost": carried out, and the answer cut off.
REQUEST_FAULTS = [(409, 0.03), (410, 0.03), (429, 0.03), (500, 0.03), (503, 0.03), ("cut", 0.03), ("lost", 0.04), ("slow", 0.05)]
# Of events in a watch. "silent": nothing comes any more, and the connection stays.
EVENT_FAULTS = [("end", 0.006), ("cut", 0.006), ("half", 0.006), (410, 0.006), ("slow", 0.01), ("silent", 0.0006)]
SILENT_AT_MOST = 12


def status(code):
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": REASONS[code], "message": f"injected: {REASONS[code]}"}


def answer(code):
    body = json.dumps(status(code)).encode()
    again = b"Retry-After: 1\r\n" if code in (429, 503) else b""
    return b"HTTP/1.1 %d x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n" % (code, again, len(body)) + body


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Cut(Exception):
    """The connection is to be cut off."""


class Over(Exception):
    """The connection is to be closed after what was sent."""


class Faults:
    """The proxy; runs in a thread of its own between `start` and `stop`."""

    def __init__(self, seed, api_port, tls):
        self.draw, self.api_port, self.tls = random.Random(seed), api_port, tls
        self.on = False
        self.down = False
        # Watches as (agent, path): all, and those that cannot be gone on with.
        self.watched, self.forgotten = set(), set()
        self.faults = Counter()
        self.requests = []  # (time, agent, method, path)
        self.silent = 0
        self.silent_ended = 0
        self.connections = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def start(self, address, agents):
        """`agents`: name → port."""
        self.thread.start()
        for agent, port in agents.items():
            serve = asyncio.start_server(lambda r, w, a=agent: self.serve(a, r, w), address, port, limit=1 << 26)
            asyncio.run_coroutine_threadsafe(serve, self.loop).result()

    def stop(self):
        async def end():
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def go_down(self):
        """As a server that is off: connections break, and new ones with them."""
        self.down = True
        self.loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in list(self.connections)])

    def come_back(self, expired):
        """Up again; with `expired` no version of before is known any more, as after an hour."""
        self.forgotten = set(self.watched) if expired else set()
        self.down = False

    def choose(self, faults):
        """One of the faults, or None."""
        if self.on:
            left = self.draw.random()
            for fault, share in faults:
                left -= share
                if left < 0:
                    return fault
        return None

    def note(self, where, fault):
        self.faults[f"{where} {fault}"] += 1

    async def serve(self, agent, reader, writer):
        if self.down:
            self.requests.append((time.time(), agent, "-", "refused"))
            writer.transport.abort()
            return
        self.connections.add(writer)
        upstream = None
        try:
            while head := await self.head(reader):
                method, path, length = head[1]
                body = await reader.readexactly(length)
                self.requests.append((time.time(), agent, method, path))
                is_watch = "watch=1" in path
                fault = self.fault_of(agent, method, path, is_watch)
                if isinstance(fault, int):
                    writer.write(answer(fault))
                    await writer.drain()
                    continue
                if fault == "cut":
                    raise Cut
                if fault == "slow":
                    await asyncio.sleep(self.draw.uniform(0.1, 4))
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self.api_port, ssl=self.tls, limit=1 << 26)
                upstream[1].write(head[0] + body)
                await self.pass_on(upstream[0], reader, writer, fault == "lost", is_watch)
        except (Cut, OSError, asyncio.IncompleteReadError, ValueError):
            writer.transport.abort()
        except asyncio.CancelledError:
            pass
        except Over:
            pass
        finally:
            self.connections.discard(writer)
            writer.close()
            if upstream:
                upstream[1].transport.abort()

    def fault_of(self, agent, method, path, is_watch):
        where = "watch" if is_watch else method
        place = agent, path.split("?")[0]
        if is_watch and place in self.forgotten:
            # The version that it goes on from is from before.
            self.forgotten.discard(place)
            return 410
        if is_watch:
            self.watched.add(place)
        fault = self.choose(REQUEST_FAULTS)
        if fault == 409 and method == "GET" or fault == 410 and method != "GET" or fault == "lost" and is_watch:
            fault = None
        if fault:
            self.note(where, fault)
        return fault

    async def head(self, reader):
        """The bytes of a head and what is in it; None at the end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        lines = head.decode().split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        first = lines[0].split(" ")
        return head, (first[0], first[1], int(fields.get("content-length", 0)))

    async def pass_on(self, upstream, reader, writer, lose, is_watch):
        head = await upstream.readuntil(b"\r\n\r\n")
        fields = head.lower()
        if lose:
            # It was carried out; nobody hears of it.
            raise Cut
        writer.write(head)
        if b"transfer-encoding: chunked" not in fields:
            at = fields.find(b"content-length:")
            length = int(fields[at + 15:fields.index(b"\r\n", at)]) if at >= 0 else 0
            writer.write(await upstream.readexactly(length))
            await writer.drain()
            return
        while True:
            size = int(await upstream.readline(), 16)
            data = (await upstream.readexactly(size + 2))[:-2]
            if is_watch and size:
                await self.event(reader, writer, data)
            writer.write(chunk(data))
            await writer.drain()
            if size == 0:
                return

    async def event(self, reader, writer, data):
        fault = self.choose(EVENT_FAULTS)
        if fault == "silent" and self.silent >= SILENT_AT_MOST:
            return
        if fault:
            self.note("event", fault)
        if fault == 410:
            writer.write(chunk(json.dumps({"type": "ERROR", "object": status(410)}).encode() + b"\n"))
            writer.write(chunk(b""))
            raise Over
        if fault == "end":
            writer.write(chunk(b""))
            raise Over
        if fault == "half":
            writer.write(b"%x\r\n" % len(data) + data[:len(data) // 2])
            raise Over
        if fault == "cut":
            raise Cut
        if fault == "slow":
            await asyncio.sleep(self.draw.uniform(0.1, 4))
        if fault == "silent":
            self.silent += 1
            # Until the agent has had enough: it says nothing on a watch, so the end is all there is to read.
            await reader.read(1)
            self.silent_ended += 1
            raise Cut
