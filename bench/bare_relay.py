"""The least that a relay can do: bytes from one socket to the other, both ways, without a look at them.

`python -m bench.bare_relay PORT ENGINE.sock`: what it costs on a machine is what nothing in Python costs less than.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import cast

import uvloop


class Relay(asyncio.Protocol):
    """One client's connection, and one to the engine that lives as long."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._fd = transport.get_extra_info("socket").fileno()
        self._engine = socket.socket(socket.AF_UNIX)
        self._engine.setblocking(False)
        self._engine.connect(self._path)
        asyncio.get_running_loop().add_reader(self._engine.fileno(), self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().remove_reader(self._engine.fileno())
        self._engine.close()

    def data_received(self, data: bytes) -> None:
        self._engine.send(data)

    def _answer(self) -> None:
        data = self._engine.recv(16384)
        if not data:
            self._transport.close()
            return
        sent = 0 if self._transport.get_write_buffer_size() else os.write(self._fd, data)
        if sent < len(data):
            self._transport.write(data[sent:])


async def serve(port: int, path: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Relay(path), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
