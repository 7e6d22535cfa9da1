"""Network namespaces and what is done to them, without starting programs where a fault must happen at one moment."""
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFNAME, SIOCGIFHWADDR = 0x8913, 0x8914, 0x8923, 0x8927
IFF_UP = 1
RTM_SETLINK, NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 19, 1, 4, 2
IFLA_MASTER, IFLA_PROTINFO, IFLA_BRPORT_STATE, NLA_F_NESTED = 10, 12, 1, 0x8000
PORT_DISABLED, PORT_FORWARDING = 0, 3
libc = ctypes.CDLL(None, use_errno=True)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def ip(namespace, command):
    return run("ip", "-n", namespace, *command.split())


def inside(namespace, action):
    """Calls `action` in a thread of that network namespace and returns its result; its sockets stay in there."""
    result = []

    def enter():
        try:
            with open(f"/run/netns/{namespace}") as handle:
                if libc.setns(handle.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {namespace}")
            result.append((action(), None))
        except BaseException as error:  # handed to the caller
            result.append((None, error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


class Control:
    """Sockets in a namespace through which its links are changed at once."""

    def __init__(self, namespace):
        self.inet = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.netlink = inside(namespace, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
        self.index = lambda link: inside(namespace, lambda: socket.if_nametoindex(link))

    def set_up(self, link, up):
        request = struct.pack("16sH14x", link.encode(), 0)
        flags = struct.unpack_from("H", fcntl.ioctl(self.inet, SIOCGIFFLAGS, request), 16)[0]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(self.inet, SIOCSIFFLAGS, struct.pack("16sH14x", link.encode(), flags))

    def rename(self, link, name):
        fcntl.ioctl(self.inet, SIOCSIFNAME, struct.pack("16s16s", link.encode(), name.encode()))

    def mac(self, link):
        answer = fcntl.ioctl(self.inet, SIOCGIFHWADDR, struct.pack("16s24x", link.encode()))
        return answer[18:24].hex(":")

    def set_port_state(self, index, state):
        """The bridge port forwards or discards; the link keeps its carrier."""
        inner = struct.pack("=HHB3x", 5, IFLA_BRPORT_STATE, state)
        self._set_link(socket.AF_BRIDGE, index, IFLA_PROTINFO | NLA_F_NESTED, inner)

    def set_master(self, index, master):
        """The link becomes a port of another bridge, as if the cable between two switches were cut behind it."""
        self._set_link(socket.AF_UNSPEC, index, IFLA_MASTER, struct.pack("=I", master))

    def _set_link(self, family, index, kind, value):
        body = struct.pack("=BxHiII", family, 0, index, 0, 0) + struct.pack("=HH", 4 + len(value), kind) + value
        self.netlink.send(struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        answer = self.netlink.recv(4096)
        error = struct.unpack_from("=i", answer, 16)[0]
        if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR and error:
            raise OSError(-error, os.strerror(-error))

    def close(self):
        self.inet.close()
        self.netlink.close()
