"""Decides how bare grpc.aio servers are set beside the mesh: spawned plainly, one Python process each, on port 0."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

_SERVER: Final = Path(__file__).with_name("bare_server.py")
READY_S: Final = 30.0


@dataclass(slots=True)
class BareServer:
    """One running server and a channel to it."""

    process: asyncio.subprocess.Process
    channel: grpc.aio.Channel
    echo: Any = field(init=False)
    """One unary call: bytes that come back."""

    def __post_init__(self) -> None:
        self.echo = self.channel.unary_unary("/bare.Echo/Echo")

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid


@contextlib.asynccontextmanager
async def bare_servers(count: int) -> AsyncIterator[list[BareServer]]:
    """Yields when all of them have answered a call."""
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, str(_SERVER), stdout=asyncio.subprocess.PIPE)
        for _ in range(count)
    ]
    servers: list[BareServer] = []
    try:
        async with asyncio.timeout(READY_S):
            for process in processes:
                assert process.stdout is not None, "stdout is a pipe"
                port = int(await process.stdout.readline())
                servers.append(BareServer(process, grpc.aio.insecure_channel(f"127.0.0.1:{port}")))
            await asyncio.gather(*(server.echo(b"ready") for server in servers))
        yield servers
    finally:
        for server in servers:
            await server.channel.close()
        for process in processes:
            process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))


async def time_of_calls(server: BareServer, count: int, payload: bytes = b"x" * 100) -> list[float]:
    """Milliseconds of unary calls, one after the other."""
    times: list[float] = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        await server.echo(payload)
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return times
