#!/usr/bin/env python3
"""A pod: answers every HTTP request on port 8080 with its name, many on a connection. pod.py NAME"""
import asyncio
import sys


async def serve(reader, writer):
    body = sys.argv[1].encode()
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            if b"connection: close" in head.lower():
                break
        await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 8080, backlog=512)
    await server.serve_forever()

asyncio.run(main())
