"""An echo server and its clients, with asyncio's streams.

usage: echo.py serve HOST PORT
       echo.py load HOST PORT CONNECTIONS BYTES

A client writes in pieces, half-closes, and compares what comes back until the server's end.
"""

import asyncio
import sys

from peer import pattern

AT_ONCE = 50
PIECE = 10_000


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def serve(host, port):
    server = await asyncio.start_server(echo, host, int(port), backlog=200)
    print("READY", flush=True)
    async with server:
        await server.serve_forever()


async def client(host, port, data, room):
    async with room:
        reader, writer = await asyncio.open_connection(host, port)

        async def send():
            for at in range(0, len(data), PIECE):
                writer.write(data[at : at + PIECE])
                await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read())
        writer.close()
        await writer.wait_closed()
        return received == data


async def load(host, port, connections, size):
    data = pattern(int(size))
    room = asyncio.Semaphore(AT_ONCE)
    clients = [client(host, int(port), data, room) for _ in range(int(connections))]
    results = await asyncio.gather(*clients, return_exceptions=True)
    failures = sorted({repr(result) for result in results if result is not True})
    print(f"{sum(result is True for result in results)} echoes", *failures)


def main():
    role, *arguments = sys.argv[1:]
    asyncio.run({"serve": serve, "load": load}[role](*arguments))


if __name__ == "__main__":
    main()
