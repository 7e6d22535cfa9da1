"""What WebSocket clients see through the gateway: frames by hand for what a library would refuse to send, wsproto for the rest.
The groups are those that WebSocket test suites have in common. Arguments: ADDRESS, NAME, CERT (the gateway's)."""
import base64
import os
import socket
import ssl
import struct
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto.connection
import wsproto.events as ws

from checks import Checks, equal

PATIENCE = 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    # Whole integers: a loop over megabytes is slow.
    long = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(long, "big")).to_bytes(len(payload), "big")


def connect(address, port, name, certificate, alpn):
    sock = socket.create_connection((address, port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        context.set_alpn_protocols([alpn])
        sock = context.wrap_socket(sock, server_hostname=name)
        equal(sock.selected_alpn_protocol(), alpn)
    return sock


class Http1:
    """A tunnel by Upgrade."""

    def __init__(self, address, port, name, certificate, protocols=""):
        self.sock = connect(address, port, name, certificate, "http/1.1")
        extra = f"Sec-WebSocket-Protocol: {protocols}\r\n" if protocols else ""
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(f"GET /echo HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extra}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.sock.recv(4096)
            if not piece:
                raise AssertionError(f"closed after {head!r}")
            head += piece
        head, self.rest = head.split(b"\r\n\r\n", 1)
        self.head = head.decode()
        equal(self.head.split(" ")[1], "101")

    def protocol(self):
        return dict(line.lower().split(": ", 1) for line in self.head.split("\r\n")[1:]).get("sec-websocket-protocol")

    def send(self, data):
        self.sock.sendall(data)

    def receive(self):
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        try:
            return self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def close(self):
        self.sock.close()


class Http2:
    """A tunnel by extended CONNECT (RFC 8441)."""

    def __init__(self, address, port, name, certificate, protocols=""):
        self.sock = connect(address, port, name, certificate, "h2")
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.sock.sendall(self.connection.data_to_send())
        self.data, self.ended, self.headers, self.stream = b"", False, None, 0
        while self.connection.remote_settings.enable_connect_protocol != 1:
            self.pump()
        self.stream = self.connection.get_next_available_stream_id()
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https" if certificate else "http"), (":path", "/echo"),
                   (":authority", name), ("sec-websocket-version", "13")]
        if protocols:
            headers.append(("sec-websocket-protocol", protocols))
        self.connection.send_headers(self.stream, headers)
        self.sock.sendall(self.connection.data_to_send())
        while self.headers is None:
            self.pump()
        equal(self.headers[":status"], "200")

    def protocol(self):
        return self.headers.get("sec-websocket-protocol")

    def pump(self):
        piece = self.sock.recv(65536)
        if not piece:
            self.ended = True
            if self.headers is None:
                raise AssertionError("the connection was closed")
            return
        for event in self.connection.receive_data(piece):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                self.ended = True
                if self.headers is None:
                    raise AssertionError(repr(event))
        self.sock.sendall(self.connection.data_to_send())

    def send(self, data):
        while data and not self.ended:
            window = min(self.connection.local_flow_control_window(self.stream), self.connection.max_outbound_frame_size)
            if window <= 0:
                self.pump()
                continue
            self.connection.send_data(self.stream, data[:window])
            data = data[window:]
            self.sock.sendall(self.connection.data_to_send())

    def receive(self):
        while not self.data and not self.ended:
            self.pump()
        data, self.data = self.data, b""
        return data

    def close(self):
        self.sock.close()


class Conversation:
    """Frames are sent as they are; what comes back is read by wsproto, which refuses what is not a WebSocket."""

    def __init__(self, tunnel):
        self.tunnel = tunnel
        self.peer = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
        self.waiting = []
        self.text, self.bytes = "", b""

    def send(self, *frames):
        for one in frames:
            self.tunnel.send(one)

    def next(self):
        """The next whole message (str or bytes), ping or pong (as event), or the close code with its reason, or None at the end."""
        while True:
            for event in self.events():
                if isinstance(event, ws.TextMessage):
                    self.text += event.data
                    if event.message_finished:
                        text, self.text = self.text, ""
                        return text
                elif isinstance(event, ws.BytesMessage):
                    self.bytes += bytes(event.data)
                    if event.message_finished:
                        data, self.bytes = self.bytes, b""
                        return data
                elif isinstance(event, ws.CloseConnection):
                    return (event.code, event.reason or "")
                else:
                    return event
            data = self.tunnel.receive()
            if not data:
                return None
            self.peer.receive_data(data)
            self.waiting = list(self.waiting) + list(self.peer.events())

    def events(self):
        while self.waiting:
            yield self.waiting.pop(0)

    def closed_with(self, code):
        event = self.next()
        equal(event[0] if isinstance(event, tuple) else event, code)


class Groups:
    def __init__(self, tunnel):
        self.tunnel = tunnel

    def conversation(self, **options):
        return Conversation(self.tunnel(**options))

    def framing(self):
        talk = self.conversation()
        for size in (0, 1, 125, 126, 127, 128, 65535, 65536):
            talk.send(frame(TEXT, b"*" * size))
            equal(talk.next(), "*" * size)
            data = bytes(number % 256 for number in range(size))
            talk.send(frame(BINARY, data))
            equal(talk.next(), data)

    def in_small_pieces(self):
        talk = self.conversation()
        for byte in frame(TEXT, b"one byte at a time"):
            talk.send(bytes([byte]))
        equal(talk.next(), "one byte at a time")

    def many_messages(self):
        talk = self.conversation()
        talk.send(b"".join(frame(TEXT, b"%d" % number) for number in range(500)))
        equal([talk.next() for _ in range(500)], [str(number) for number in range(500)])

    def pings(self):
        talk = self.conversation()
        for payload in (b"", b"hello", b"\x00\xff\xfe", b"x" * 125):
            talk.send(frame(PING, payload))
            event = talk.next()
            equal((type(event).__name__, bytes(event.payload)), ("Pong", payload))
        talk.send(frame(PONG, b"nobody asked"), frame(TEXT, b"still here"))
        equal(talk.next(), "still here")
        talk.send(*(frame(PING, b"%d" % number) for number in range(10)))
        equal([bytes(talk.next().payload) for _ in range(10)], [b"%d" % number for number in range(10)])
        talk.send(frame(TEXT, b"ping me"))
        event = talk.next()
        equal((type(event).__name__, bytes(event.payload)), ("Ping", b"are you there"))
        talk.send(frame(PONG, b"are you there"))
        equal(talk.next(), "you are")

    def ping_too_long(self):
        talk = self.conversation()
        talk.send(frame(PING, b"x" * 126))
        talk.closed_with(1002)

    def reserved_bits(self):
        for rsv in range(1, 8):
            talk = self.conversation()
            talk.send(frame(TEXT, b"bits", rsv=rsv))
            talk.closed_with(1002)

    def reserved_opcodes(self):
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            talk = self.conversation()
            talk.send(frame(TEXT, b"before"))
            equal(talk.next(), "before")
            talk.send(frame(opcode, b"odd"))
            talk.closed_with(1002)

    def not_masked(self):
        talk = self.conversation()
        talk.send(frame(TEXT, b"bare", masked=False))
        talk.closed_with(1002)

    def fragments(self):
        talk = self.conversation()
        talk.send(frame(TEXT, b"one ", fin=False), frame(0, b"two ", fin=False), frame(PING, b"between"), frame(0, b"three"))
        event = talk.next()
        equal(bytes(event.payload), b"between")
        equal(talk.next(), "one two three")
        talk.send(frame(BINARY, b"", fin=False), *(frame(0, b"x", fin=False) for _ in range(100)), frame(0, b""))
        equal(talk.next(), b"x" * 100)
        talk = self.conversation()
        talk.send(frame(0, b"of nothing"))
        talk.closed_with(1002)
        talk = self.conversation()
        talk.send(frame(TEXT, b"a", fin=False), frame(TEXT, b"b"))
        talk.closed_with(1002)
        talk = self.conversation()
        talk.send(frame(PING, b"in parts", fin=False))
        talk.closed_with(1002)

    def utf8(self):
        talk = self.conversation()
        for text in ("κόσμε", "\u0000", "\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff", "Hello-µ@ßöäüàá-UTF-8!!"):
            talk.send(frame(TEXT, text.encode()))
            equal(talk.next(), text)
        # A character cut by a fragment's end is whole again.
        data = "κόσμε".encode()
        talk.send(*(frame(0 if at else TEXT, data[at:at + 1], fin=at == len(data) - 1) for at in range(len(data))))
        equal(talk.next(), "κόσμε")
        for wrong in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xce", b"ok\x80ok"):
            talk = self.conversation()
            talk.send(frame(TEXT, wrong))
            talk.closed_with(1007)

    def closing(self):
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
            talk = self.conversation()
            talk.send(frame(CLOSE, struct.pack(">H", code) + b"bye"))
            talk.closed_with(code)
            equal(talk.next(), None)
        talk = self.conversation()
        talk.send(frame(CLOSE))
        event = talk.next()
        equal(event[0] in (1000, 1005), True)
        equal(talk.next(), None)
        talk = self.conversation()
        talk.send(frame(TEXT, b"close me"))
        equal(talk.next(), (4321, "as asked"))

    def closing_wrongly(self):
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000):
            talk = self.conversation()
            talk.send(frame(CLOSE, struct.pack(">H", code)))
            talk.closed_with(1002)
        talk = self.conversation()
        talk.send(frame(CLOSE, b"\x03"))
        talk.closed_with(1002)
        talk = self.conversation()
        talk.send(frame(CLOSE, struct.pack(">H", 1000) + b"\xce\xba\xe1"))
        event = talk.next()
        equal(event[0] in (1002, 1007), True)

    def large(self):
        talk = self.conversation()
        for size in (1 << 18, 1 << 20, 1 << 22):
            data = os.urandom(1024) * (size // 1024)
            talk.send(frame(BINARY, data))
            equal(talk.next() == data, True)
        piece = b"y" * 65536
        talk.send(frame(BINARY, piece, fin=False), *(frame(0, piece, fin=False) for _ in range(62)), frame(0, piece))
        equal(talk.next() == piece * 64, True)

    def subprotocol(self):
        talk = self.conversation(protocols="none.kit, other.kit")
        equal(talk.tunnel.protocol(), "other.kit")
        talk.send(frame(TEXT, b"agreed"))
        equal(talk.next(), "agreed")

    def gone_without_a_word(self):
        # The gateway has to bear it; the next one is served.
        talk = self.conversation()
        talk.send(frame(TEXT, b"half a mess", fin=False))
        talk.tunnel.close()
        talk = self.conversation()
        talk.send(frame(TEXT, b"next"))
        equal(talk.next(), "next")


def main():
    address, name, certificate = sys.argv[1:4]
    checks = Checks()
    ways = {
        "http/1.1": lambda **options: Http1(address, 80, name, None, **options),
        "http/1.1 tls": lambda **options: Http1(address, 443, name, certificate, **options),
        "http/2": lambda **options: Http2(address, 80, name, None, **options),
        "http/2 tls": lambda **options: Http2(address, 443, name, certificate, **options),
    }
    for way, tunnel in ways.items():
        groups = Groups(tunnel)
        for group in ("framing", "in_small_pieces", "many_messages", "pings", "ping_too_long", "reserved_bits", "reserved_opcodes", "not_masked",
                      "fragments", "utf8", "closing", "closing_wrongly", "large", "subprotocol", "gone_without_a_word"):
            checks.run(f"{way} {group}", getattr(groups, group))
    checks.end()


main()
