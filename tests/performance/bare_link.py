"""A link of the bare chain: takes a message, writes it to disk when told to, passes it on; nothing else. Prints its port.

A message is its way in ports, a line feed, and bytes that are carried along; a port with `*` writes first.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop


class Link:
    """Passes messages on, each by one unary call."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE IF NOT EXISTS message (number INTEGER PRIMARY KEY, body BLOB)")
        self._next: dict[str, Any] = {}
        self._passing: set[asyncio.Task[None]] = set()

    async def push(self, request: bytes, _context: Any) -> bytes:
        """The RPC: it is answered at once, the message goes on behind it."""
        task = asyncio.create_task(self._pass_on(request))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        return b""

    async def _pass_on(self, message: bytes) -> None:
        way, _, body = message.partition(b"\n")
        here, _, rest = way.partition(b" ")
        if here.endswith(b"*"):
            self._database.execute("INSERT INTO message (body) VALUES (?)", (body,))
        await self._push_to(rest.partition(b" ")[0].rstrip(b"*").decode())(rest + b"\n" + body)

    def _push_to(self, port: str) -> Any:
        push = self._next.get(port)
        if push is None:
            push = self._next[port] = sender(port)
        return push


def sender(port: str) -> Any:
    """What sends a message to a port."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}").unary_unary("/bare.Link/Push")


async def serve(push: Any) -> tuple[grpc.aio.Server, int]:
    """A server whose only method is `push`, and its port."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Push": grpc.unary_unary_rpc_method_handler(push)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Link", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def _run(file: Path) -> None:
    server, port = await serve(Link(file).push)
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_run(Path(sys.argv[1])))
