#!/usr/bin/env python3
"""Asks the LAN again and again who has each address, and counts who answers.

arp_sampler.py INTERFACE SECONDS ADDRESS=EXPECTED...: every 50 ms one ARP request per address. Prints one line an
address, and how many frames the LAN carried a second besides our own. Exit code 1 if in any sample an
address had another number of answers than EXPECTED.
"""
import socket
import struct
import sys
import time

INTERVAL = 0.05
ETH_P_ARP, ETH_P_ALL = 0x0806, 0x0003


def main():
    interface, seconds = sys.argv[1], float(sys.argv[2])
    wanted = {address: int(count) for address, count in (a.split("=") for a in sys.argv[3:])}
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((interface, ETH_P_ALL))
    sock.setblocking(False)
    mac = sock.getsockname()[4]
    own = socket.inet_aton(OWN) if (OWN := own_address(interface)) else bytes(4)
    samples = {address: [] for address in wanted}
    macs = {address: set() for address in wanted}
    frames, end, asked = 0, time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for address in wanted:
            packet = b"\xff" * 6 + mac + struct.pack("!HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, 1)
            sock.send(packet + mac + own + bytes(6) + socket.inet_aton(address))
            asked += 1
        answers = {address: set() for address in wanted}
        until = time.monotonic() + INTERVAL
        while time.monotonic() < until:
            try:
                frame, meta = sock.recvfrom(2048)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            if meta[2] == socket.PACKET_OUTGOING:
                continue
            frames += 1
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02" and frame[:6] == mac:
                address = socket.inet_ntoa(frame[28:32])
                if address in answers:
                    answers[address].add(frame[22:28].hex(":"))
        for address, found in answers.items():
            samples[address].append(len(found))
            macs[address] |= found
    failed = False
    for address, expected in wanted.items():
        counts = samples[address]
        wrong = sum(count != expected for count in counts)
        failed |= wrong > 0
        print(f"{address}: {len(counts)} samples, {wrong} without exactly {expected} answer(s), answered by {', '.join(sorted(macs[address])) or 'nobody'}")
    answered = sum(sum(counts) for counts in samples.values())
    print(f"{asked / seconds:.0f} questions a second; the LAN carried {(frames - answered) / seconds:.0f} other frames a second")
    sys.exit(failed)


def own_address(interface):
    import fcntl
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, struct.pack("256s", interface.encode()))[20:24])
        except OSError:
            return None


main()
