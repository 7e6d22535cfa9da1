"""Backends of the conformance scenarios: every address of the namespace is a pod.

  3000  HTTP/1.1 and WebSocket      3001  HTTP/2 with prior knowledge, gRPC
  3002  TCP                         3003  UDP (only on the addresses named by {"udp": ADDRESS})
  any   TLS, started by {"tls": ADDRESS, "port": P, "cert": FILE, "key": FILE, "ca": FILE or absent}

HTTP answers with JSON of what it saw. Commands are JSON lines on stdin, each answered by one line:
{"seen": ID} lists the addresses that got a request with the header x-conformance-id: ID.
"""
import asyncio
import base64
import hashlib
import json
import os
import ssl
import struct
import sys
import urllib.parse

import h2.config
import h2.connection
import h2.events

SEEN = {}
TRIES = {}


def observed(method, path, host, proto, headers, local, tls):
    """The JSON that the echo answers with."""
    grouped = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append(value)
    for identity in grouped.get("x-conformance-id", []):
        SEEN.setdefault(identity, []).append({"address": local, "path": path, "headers": grouped})
    return {"method": method, "path": path, "host": host, "proto": proto, "headers": grouped, "address": local, "tls": tls}


class Reset(Exception):
    """The connection is to be reset."""


async def respond(request):
    """Status, headers and body for a request as observed."""
    url = urllib.parse.urlsplit(request["path"])
    query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
    status = 200
    headers = [("content-type", "application/json"), ("x-echo-address", request["address"])]
    if "delay" in query:
        await asyncio.sleep(seconds(query["delay"]))
    if url.path.startswith("/status/"):
        status = int(url.path.split("/")[2])
    if "/retry" in url.path and "succeedAfter" in query:
        key = query.get("uuid", "")
        TRIES[key] = TRIES.get(key, 0) + 1
        if TRIES[key] <= int(query["succeedAfter"]):
            if "delayRetry" in query:
                await asyncio.sleep(seconds(query["delayRetry"]))
            if "responseCode" not in query:
                raise Reset
            status = int(query["responseCode"])
        request["tries"] = TRIES[key]
    for pair in ",".join(request["headers"].get("x-echo-set-header", [])).split(","):
        if ":" in pair:
            name, value = pair.split(":", 1)
            headers.append((name.strip().lower(), value.strip()))
    return status, headers, json.dumps(request).encode()


def seconds(text):
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text.rstrip("s"))


def reset(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: close sends RST
    writer.transport.abort()


def tls_report(writer):
    tls = writer.get_extra_info("ssl_object")
    if tls is None:
        return None
    der = tls.getpeercert(True)
    return {"version": tls.version(), "sni": getattr(tls, "asked_name", None), "alpn": tls.selected_alpn_protocol(),
            "client": base64.b64encode(der).decode() if der else None}


async def http1(reader, writer):
    local, tls = writer.get_extra_info("sockname")[0], tls_report(writer)
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = [(name.strip(), value.strip()) for name, value in (line.split(":", 1) for line in lines[1:] if line)]
        fields = {name.lower(): value for name, value in headers}
        length = 0
        if fields.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await reader.readline()).split(b";")[0], 16):
                length += len(await reader.readexactly(size))
                await reader.readline()
            while (await reader.readline()).strip():
                pass
        else:
            length = len(await reader.readexactly(int(fields.get("content-length", 0))))
        request = observed(method, path, fields.get("host", ""), "HTTP/1.1", headers, local, tls)
        request["body"] = length
        if fields.get("upgrade", "").lower() == "websocket":
            await websocket(reader, writer, fields, local)
            return
        status, extra, body = await respond(request)
        sys.stderr.write(f"{local} {method} {path} {status}\n")
        out = f"HTTP/1.1 {status} Echo\r\n" + "".join(f"{name}: {value}\r\n" for name, value in extra)
        if status == 204 or status == 304:
            body = b""
        else:
            out += f"content-length: {len(body)}\r\n"
        writer.write(out.encode() + b"\r\n" + (b"" if method == "HEAD" else body))
        await writer.drain()
        if fields.get("connection", "").lower() == "close":
            return


async def websocket(reader, writer, fields, local):
    accept = base64.b64encode(hashlib.sha1((fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"x-echo-address: " + local.encode() + b"\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        first, second = await reader.readexactly(2)
        length = second & 127
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        mask = await reader.readexactly(4)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length)))
        writer.write(bytes([first, min(length, 126)]) + (length.to_bytes(2, "big") if length > 125 else b"") + data)
        await writer.drain()
        if first & 15 == 8:
            return


async def http2(reader, writer):
    local, tls = writer.get_extra_info("sockname")[0], tls_report(writer)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    requests, tasks = {}, set()

    async def answer(stream):
        headers, payload = requests.pop(stream)
        fields = dict(headers)
        plain = [(name, value) for name, value in headers if not name.startswith(":")]
        request = observed(fields[":method"], fields.get(":path", ""), fields.get(":authority", ""), "HTTP/2.0", plain, local, tls)
        request["body"] = len(payload)
        grpc = fields.get("content-type", "").startswith("application/grpc")
        try:
            status, extra, body = await respond(request)
        except Reset:
            return reset(writer)
        sys.stderr.write(f"{local} h2 {fields[':method']} {fields.get(':path')} {status}\n")
        try:
            if grpc:
                code = fields.get("x-echo-grpc-status")
                extra = [(name, value) for name, value in extra if name != "content-type"]
                start = [(":status", "200"), ("content-type", "application/grpc"), *extra]
                if code:
                    connection.send_headers(stream, [*start, ("grpc-status", code)], end_stream=True)
                else:
                    connection.send_headers(stream, start)
                    connection.send_data(stream, b"\0" + struct.pack(">I", len(body)) + body)
                    connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
            else:
                connection.send_headers(stream, [(":status", str(status)), *extra, ("content-length", str(len(body)))])
                connection.send_data(stream, body, end_stream=True)
            writer.write(connection.data_to_send())
        except h2.exceptions.ProtocolError:
            pass  # reset meanwhile

    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                requests[event.stream_id] = (event.headers, bytearray())
            elif isinstance(event, h2.events.DataReceived):
                requests[event.stream_id][1].extend(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                task = asyncio.ensure_future(answer(event.stream_id))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        writer.write(connection.data_to_send())
        await writer.drain()


async def tcp(reader, writer):
    line = await reader.readline()
    peer = writer.get_extra_info("peername")
    writer.write(json.dumps({"address": writer.get_extra_info("sockname")[0], "client": peer[0], "line": line.decode("latin-1")}).encode() + b"\n")
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def either(reader, writer):
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    await (http2 if chosen == "h2" else http1)(reader, writer)


def served(handler):
    async def run(reader, writer):
        try:
            await handler(reader, writer)
        except Reset:
            reset(writer)
        except (OSError, EOFError, ValueError, KeyError, asyncio.IncompleteReadError, h2.exceptions.ProtocolError) as error:
            if not isinstance(error, (OSError, EOFError, asyncio.IncompleteReadError)):
                sys.stderr.write(f"echo: {error!r}\n")
        finally:
            writer.close()
    return run


class Udp(asyncio.DatagramProtocol):
    def __init__(self, address):
        self.address = address

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        answer = {"address": self.address, "client": peer[0], "line": data.decode("latin-1")}
        self.transport.sendto(json.dumps(answer).encode(), peer)


async def command(wanted):
    loop = asyncio.get_running_loop()
    if "udp" in wanted:
        await loop.create_datagram_endpoint(lambda: Udp(wanted["udp"]), local_addr=(wanted["udp"], 3003))
    elif "tls" in wanted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(wanted["cert"], wanted["key"])
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.sni_callback = lambda tls, name, _: setattr(tls, "asked_name", name)
        if "ca" in wanted:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(wanted["ca"])
        await asyncio.start_server(served(either), wanted["tls"], wanted["port"], ssl=context)
    elif "seen" in wanted:
        return {"seen": SEEN.get(wanted["seen"], [])}
    return {}


async def main():
    for handler, port in ((http1, 3000), (http2, 3001), (tcp, 3002)):
        await asyncio.start_server(served(handler), "0.0.0.0", port, backlog=1024)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("{}", flush=True)
    while line := await reader.readline():
        print(json.dumps(await command(json.loads(line))), flush=True)
    os._exit(0)


asyncio.run(main())
