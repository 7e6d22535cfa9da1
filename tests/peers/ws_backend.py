"""A WebSocket echo of the package websockets. Arguments: ADDRESS PORT."""
import asyncio
import logging
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    # A fragmented message comes back in one piece; pings are answered by the package.
    async for message in connection:
        if message == "close me":
            await connection.close(4321, "as asked")
        elif message == "ping me":
            await (await connection.ping(b"are you there"))
            await connection.send("you are")
        else:
            await connection.send(message)


def choose(_, offered):
    return "other.kit" if "other.kit" in offered else None


async def main():
    async with serve(echo, sys.argv[1], int(sys.argv[2]), max_size=None, ping_interval=None, select_subprotocol=choose):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


logging.disable()  # clients that go without a word are a part of the checks
asyncio.run(main())
