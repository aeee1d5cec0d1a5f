"""Decides the least that the way of a tick can take here: as many processes, messages and commits, and nothing in them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from tests.performance.bare_link import sender, serve

_LINK: Final = Path(__file__).with_name("bare_link.py")
READY_S: Final = 30.0
ARRIVE_S: Final = 5.0
BODY: Final = b"x" * 500

LINKS: Final = ("market_data", "ai_brain", "event_bus", "trading_engine", "risk_manager", "paper_venue")
WAY: Final = (
    "market_data", "ai_brain", "event_bus*", "trading_engine", "risk_manager*", "trading_engine*", "paper_venue*",
    "trading_engine*", "event_bus*",
)  # fmt: skip
"""Where the message goes, and where it is written to disk before it goes on; from the last it comes back."""


class Chain:
    """A running chain; `trip_ms` sends one message around."""

    def __init__(self) -> None:
        self.way = b""
        self.first: Any = None
        self._arrived: asyncio.Future[int] | None = None

    async def push(self, _request: bytes, _context: Any) -> bytes:
        """The RPC of the end."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(time.perf_counter_ns())
        return b""

    async def trip_ms(self) -> float:
        """Milliseconds of one message around the chain. Raises TimeoutError."""
        arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._arrived = arrived
        begun = time.perf_counter_ns()
        await self.first(self.way + b"\n" + BODY)
        async with asyncio.timeout(ARRIVE_S):
            return (await arrived - begun) / 1e6


@contextlib.asynccontextmanager
async def bare_chain(folder: Path) -> AsyncIterator[Chain]:
    """Yields when a message has been around."""
    chain, ports = Chain(), dict[str, str]()
    server, end = await serve(chain.push)
    processes: list[asyncio.subprocess.Process] = []
    try:
        for name in LINKS:
            command = (sys.executable, str(_LINK), str(folder / f"{name}.db"))
            processes.append(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE))
        async with asyncio.timeout(READY_S):
            for name, process in zip(LINKS, processes, strict=True):
                assert process.stdout is not None, "stdout is a pipe"
                ports[name] = (await process.stdout.readline()).decode().strip()
        stops = [ports[stop.rstrip("*")] + ("*" if stop.endswith("*") else "") for stop in WAY]
        chain.way = " ".join([*stops, str(end)]).encode()
        chain.first = sender(stops[0])
        await chain.trip_ms()
        yield chain
    finally:
        for process in processes:
            process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))
        await server.stop(0)


async def trips_ms(chain: Chain, count: int, gap_s: float) -> list[float]:
    """Milliseconds of messages that leave at a steady gap; at 0 each leaves when the one before has arrived."""
    times: list[float] = []
    for _ in range(count):
        times.append(await chain.trip_ms())
        await asyncio.sleep(max(0.0, gap_s - times[-1] / 1e3))
    return times
