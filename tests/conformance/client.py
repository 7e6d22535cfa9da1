"""The client of the conformance scenarios. Reads one JSON request a line on stdin, prints one JSON answer a line.

{"kind": "http" | "h2" | "grpc" | "ws" | "tcp" | "udp", "address", "port", "tls": bool, "sni", "ca", "cert", "key",
 "method", "path", "headers": [[name, value]], "body", "count", "together"}

One request ("count" absent): {"status", "headers", "body", "proto", "shown", "grpc"} or {"error"}.
With "count": {"outcomes": {OUTCOME: number}}; an outcome is the address of the backend, "status N", "grpc N" or "error".
Every request has a connection of its own.
"""
import asyncio
import base64
import collections
import json
import ssl
import struct
import sys

import h2.config
import h2.connection
import h2.events

PATIENCE = 10


def context_for(job, alpn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if job.get("ca"):
        context.load_verify_locations(job["ca"])
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if job.get("cert"):
        context.load_cert_chain(job["cert"], job["key"])
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


async def connect(job, alpn):
    if not job.get("tls"):
        return await asyncio.open_connection(job["address"], job["port"])
    # An empty name sends no SNI.
    name = job.get("sni") or ""
    return await asyncio.open_connection(job["address"], job["port"], ssl=context_for(job, alpn), server_hostname=name)


def shown(writer):
    tls = writer.get_extra_info("ssl_object")
    return base64.b64encode(tls.getpeercert(True)).decode() if tls else None


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    return int(head[0].split(" ")[1]), [[n.lower().strip(), v.strip()] for n, v in (line.split(":", 1) for line in head[1:] if line)]


async def http(job, reader, writer):
    body = job.get("body", "").encode()
    lines = [f"{job['method']} {job['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in job["headers"]), "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
    status, headers = 100, []
    while status < 200:
        status, headers = await read_head(reader)
    fields = dict(headers)
    if job["method"] == "HEAD" or status in (204, 304):
        data = b""
    elif fields.get("transfer-encoding") == "chunked":
        data = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            data += await reader.readexactly(size)
            await reader.readline()
    elif "content-length" in fields:
        data = await reader.readexactly(int(fields["content-length"]))
    else:
        data = await reader.read()
    return {"status": status, "headers": headers, "body": data.decode("latin-1"), "proto": "http/1.1"}


async def http2(job, reader, writer):
    grpc = job["kind"] == "grpc"
    if job.get("tls") and writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        return {"error": "h2 was not negotiated"}
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    given = [(name.lower(), value) for name, value in job["headers"]]
    host = dict(given).get("host", job["address"])
    headers = [(":method", job["method"]), (":scheme", "https" if job.get("tls") else "http"), (":authority", host),
               (":path", job["path"]), *(pair for pair in given if pair[0] != "host")]
    if grpc:
        headers += [("content-type", "application/grpc"), ("te", "trailers")]
    body = b"\0" + struct.pack(">I", 2) + b"hi" if grpc else job.get("body", "").encode()
    connection.send_headers(1, headers, end_stream=not body)
    if body:
        connection.send_data(1, body, end_stream=True)
    writer.write(connection.data_to_send())
    answer = {"status": 0, "headers": [], "body": "", "proto": "h2"}
    data = b""
    while True:
        piece = await reader.read(65536)
        if not piece:
            return {"error": "closed before the end of the answer"}
        for event in connection.receive_data(piece):
            if isinstance(event, h2.events.ResponseReceived):
                answer["headers"] = [list(pair) for pair in event.headers if not pair[0].startswith(":")]
                answer["status"] = int(dict(event.headers)[":status"])
            elif isinstance(event, h2.events.TrailersReceived):
                answer["headers"] += [list(pair) for pair in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                data += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                return {"error": repr(event)}
            elif isinstance(event, h2.events.StreamEnded):
                answer["body"] = (data[5:] if grpc else data).decode("latin-1")
                if grpc:
                    answer["grpc"] = int(dict(answer["headers"]).get("grpc-status", -1))
                return answer
        writer.write(connection.data_to_send())


async def websocket(job, reader, writer):
    lines = [f"GET {job['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in job["headers"]), "Upgrade: websocket",
             "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: Y29uZm9ybWFuY2UgdGVzdHM="]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    status, headers = await read_head(reader)
    if status != 101:
        return {"status": status, "headers": headers, "body": ""}
    text, mask = b"over the wire", b"\x11\x22\x33\x44"
    writer.write(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
    echoed = await reader.readexactly(2 + len(text))
    return {"status": status, "headers": headers, "body": echoed[2:].decode("latin-1"), "proto": "ws"}


async def tcp(job, reader, writer):
    writer.write(b"who is there\n")
    line = await reader.readline()
    if not line:
        return {"error": "closed without an answer"}
    # Half-close: what is sent before it still comes back.
    writer.write(b"tail")
    if writer.can_write_eof():
        writer.write_eof()
    tail = await reader.readexactly(4)
    return {"status": 0, "headers": [["x-echo-address", json.loads(line)["address"]]], "body": line.decode(), "tail": tail.decode()}


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.answer = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, _):
        if not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, error):
        if not self.answer.done():
            self.answer.set_exception(error)


async def udp(job):
    # A connected socket: an answer from anywhere but the address asked is dropped by the kernel.
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, remote_addr=(job["address"], job["port"]))
    try:
        transport.sendto(b"who is there")
        data = await asyncio.wait_for(protocol.answer, job.get("wait", 2))
        return {"status": 0, "headers": [["x-echo-address", json.loads(data)["address"]]], "body": data.decode()}
    finally:
        transport.close()


async def ask(job):
    try:
        async with asyncio.timeout(PATIENCE):
            if job["kind"] == "udp":
                return await udp(job)
            handler, alpn = {"http": (http, ["http/1.1"]), "h2": (http2, ["h2"]), "grpc": (http2, ["h2"]), "ws": (websocket, ["http/1.1"]), "tcp": (tcp, None)}[job["kind"]]
            reader, writer = await connect(job, alpn)
            try:
                return {"shown": shown(writer), **await handler(job, reader, writer)}
            finally:
                writer.transport.abort()
    except (OSError, EOFError, asyncio.TimeoutError, ValueError, h2.exceptions.ProtocolError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def outcome(answer):
    if "error" in answer:
        return "error"
    if answer.get("grpc"):
        return f"grpc {answer['grpc']}"
    if answer["status"] not in (0, 101, 200):
        return f"status {answer['status']}"
    return dict(answer["headers"]).get("x-echo-address", "nobody")


async def many(job):
    outcomes, left = collections.Counter(), job["count"]

    async def worker():
        nonlocal left
        while left > 0:
            left -= 1
            outcomes[outcome(await ask(job))] += 1

    await asyncio.gather(*(worker() for _ in range(job.get("together", 1))))
    return {"outcomes": outcomes}


async def main():
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("{}", flush=True)
    while line := await reader.readline():
        job = json.loads(line)
        print(json.dumps(await (many if "count" in job else ask)(job)), flush=True)


asyncio.run(main())
