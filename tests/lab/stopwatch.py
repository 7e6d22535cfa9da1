#!/usr/bin/env python3
"""Measures how long an address does not answer.

stopwatch.py ADDRESS PORT PATH COMMAND...: asks for PATH every 5 ms on a new connection, runs COMMAND once
answers come steadily, and prints the milliseconds from the command's end to the first good answer that
was asked for after it and is followed by ten more. Exit code 1 if none comes within 10 s.
"""
import socket
import subprocess
import sys
import time

ATTEMPT_TIMEOUT = 0.03
INTERVAL = 0.005
STEADY = 10
GIVE_UP = 10.0


def ask(address, port, path):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(ATTEMPT_TIMEOUT)
        try:
            client.connect((address, port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def steady(address, port, path, deadline):
    """When the first of STEADY good answers in a row was asked for."""
    good, first = 0, None
    while time.monotonic() < deadline:
        asked = time.monotonic()
        if ask(address, port, path):
            first = asked if good == 0 else first
            good += 1
            if good == STEADY:
                return first
        else:
            good = 0
        time.sleep(INTERVAL)
    return None


def main():
    address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if steady(address, port, path, time.monotonic() + GIVE_UP) is None:
        sys.exit(f"{address} does not answer before the fault")
    subprocess.run(sys.argv[4:], check=True)
    # The moment of the fault is when the command has done its work.
    start = time.monotonic()
    first = steady(address, port, path, start + GIVE_UP)
    if first is None:
        sys.exit(f"{address} does not answer {GIVE_UP:.0f} s after the fault")
    print(f"{(first - start) * 1000:.0f}")


main()
