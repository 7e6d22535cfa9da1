#!/usr/bin/env python3
"""Stand-ins for the pods of the lab: small HTTP servers that say who they are.

backends.py POD=ADDRESS:PORT ...: the pod's name decides how it answers:
productpage-*, details-*, reviews-*, ratings-* as the bookinfo demo does; webpod-* as traefik/whoami; any other
as the Gateway API project's echo-basic (JSON).
"""
import asyncio
import json
import sys

MAX_HEAD = 64 * 1024


def answer(pod, peer, local, method, target, headers, body_length):
    path = target.split("?")[0]
    if pod.startswith("productpage"):
        if path in ("/", "/productpage"):
            return 200, "text/html", "<html><head><title>Simple Bookstore App</title></head></html>\n"
        return 404, "text/html", "<h1>Not Found</h1>\n"
    if pod.startswith("details"):
        if path.startswith("/details/"):
            return 200, "application/json", json.dumps(
                {"id": int(path.rsplit("/", 1)[1] or 0), "author": "William Shakespeare", "year": 1595, "pages": 200}) + "\n"
        return 404, "text/plain", "not found\n"
    if pod.startswith("webpod"):
        lines = [f"Hostname: {pod}", f"IP: {local}", f"RemoteAddr: {peer}", f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers]
        return 200, "text/plain", "\n".join(lines) + "\n"
    grouped = {}
    for name, value in headers:
        grouped.setdefault(name.title(), []).append(value)
    host = next((value for name, value in headers if name.lower() == "host"), "")
    return 200, "application/json", json.dumps(
        {"path": target, "host": host, "method": method, "proto": "HTTP/1.1", "headers": grouped,
         "namespace": "default", "pod": pod, "bodyLength": body_length}) + "\n"


async def serve(pod, reader, writer):
    peer = writer.get_extra_info("peername")
    local = writer.get_extra_info("sockname")
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ", 2)
            headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if line]
            lower = {name.lower(): value for name, value in headers}
            length = int(lower.get("content-length", 0))
            if length:
                await reader.readexactly(length)
            elif lower.get("transfer-encoding", "").lower() == "chunked":
                while True:
                    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                    length += size
                    await reader.readexactly(size)
                    await reader.readuntil(b"\r\n")
                    if size == 0:
                        break
            code, kind, text = answer(pod, f"{peer[0]}:{peer[1]}", local[0], method, target, headers, length)
            body = text.encode()
            reason = {200: "OK", 404: "Not Found"}[code]
            writer.write(f"HTTP/1.1 {code} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                         + (b"" if method == "HEAD" else body))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        pass
    finally:
        writer.close()


async def main():
    servers = []
    for argument in sys.argv[1:]:
        pod, address = argument.split("=", 1)
        host, port = address.rsplit(":", 1)
        servers.append(await asyncio.start_server(
            lambda reader, writer, pod=pod: serve(pod, reader, writer), host.strip("[]"), int(port), limit=MAX_HEAD))
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
