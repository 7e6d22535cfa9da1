#!/usr/bin/env python3
"""Asks without pause from the namespace it is started in, and writes a line about each question (see `Asker`, `Watcher`).

probe.py ask ADDRESS...               every 10 ms a new connection to port 80 of each and an HTTP request, whatever became of those before
probe.py watch INTERFACE ADDRESS...   every 50 ms an ARP question for each; the questions of a round have a sender address of their
                                      own, so each answer is known to belong to one question
Times are CLOCK_MONOTONIC in seconds.
"""
import selectors
import socket
import struct
import sys
import time

ASK_EVERY, WATCH_EVERY = 0.01, 0.05
# Shorter than the second after which TCP asks again by itself; longer than an answer takes on a busy machine.
PATIENCE = 0.3
REQUEST = b"GET / HTTP/1.1\r\nHost: matrix.test\r\nConnection: close\r\n\r\n"
ETH_P_ARP = 0x0806


class Asker:
    """`ADDRESS ASKED ANSWERED`; ANSWERED is - if no good answer came."""

    def __init__(self, addresses):
        self.addresses = addresses
        self.poll = selectors.DefaultSelector()
        self.open = {}

    def start(self, address):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.setblocking(False)
        asked = time.monotonic()
        if client.connect_ex((address, 80)) not in (0, 115):
            client.close()
            return say(address, asked, None)
        self.open[client] = (address, asked)
        self.poll.register(client, selectors.EVENT_WRITE)

    def end(self, client, answered):
        address, asked = self.open.pop(client)
        self.poll.unregister(client)
        client.close()
        say(address, asked, answered)

    def event(self, client, events):
        try:
            if events & selectors.EVENT_WRITE:
                client.send(REQUEST)
                self.poll.modify(client, selectors.EVENT_READ)
            else:
                good = client.recv(256).startswith(b"HTTP/1.1 200")
                self.end(client, time.monotonic() if good else None)
        except OSError:
            self.end(client, None)

    def run(self):
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                for address in self.addresses:
                    self.start(address)
                due = max(due + ASK_EVERY, now)
                for client in [client for client, (_, asked) in self.open.items() if asked + PATIENCE < now]:
                    self.end(client, None)
                sys.stdout.flush()
            for key, events in self.poll.select(max(0, due - time.monotonic())):
                self.event(key.fileobj, events)


def say(address, asked, answered):
    print(address, f"{asked:.6f}", f"{answered:.6f}" if answered else "-")


class Watcher:
    """`ADDRESS ASKED MAC,MAC`, 200 ms after the question; - if nobody answered."""

    def __init__(self, interface, addresses):
        self.addresses = addresses
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
        self.socket.bind((interface, ETH_P_ARP))
        self.mac = self.socket.getsockname()[4]
        self.rounds = {}

    def ask(self, number):
        sender = bytes([10, 79, 128 + number // 250 % 120, 1 + number % 250])
        self.rounds[sender] = (time.monotonic(), {socket.inet_aton(address): set() for address in self.addresses})
        for address in self.addresses:
            arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + self.mac + sender + bytes(6) + socket.inet_aton(address)
            self.socket.send(b"\xff" * 6 + self.mac + struct.pack("!H", ETH_P_ARP) + arp)

    def listen(self, until):
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                frame = self.socket.recv(2048)
            except OSError:
                continue
            if frame[20:22] == b"\x00\x02" and frame[38:42] in self.rounds:
                answers = self.rounds[frame[38:42]][1]
                if frame[28:32] in answers:
                    answers[frame[28:32]].add(frame[22:28].hex(":"))

    def run(self):
        number = 0
        while True:
            try:
                self.ask(number)
            except OSError:
                pass  # the link is down: nobody answers
            number += 1
            self.listen(time.monotonic() + WATCH_EVERY)
            for sender, (asked, answers) in list(self.rounds.items()):
                if asked + 4 * WATCH_EVERY < time.monotonic():
                    del self.rounds[sender]
                    for address, macs in answers.items():
                        print(socket.inet_ntoa(address), f"{asked:.6f}", ",".join(sorted(macs)) or "-")
            sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        Asker(sys.argv[2:]).run()
    else:
        Watcher(sys.argv[2], sys.argv[3:]).run()
