"""Decides who sends ticks to whom in the benchmark of market data: our way, and those that it stands beside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from tests.performance.bus_servers import nats_server
from tests.performance.children import Child, children
from tests.performance.market_ticks import BATCH, symbols
from tests.performance.mesh_run import MeshFailed, own_mb
from tests.performance.results import Settings
from tests.performance.service_process import running_service

_SENDER: Final = Path(__file__).with_name("market_sender.py")
_READER: Final = Path(__file__).with_name("market_reader.py")
SETTLE_S: Final = 90.0

MESH: Final = "mesh"
MESH_RECORDED: Final = "mesh, recorded on disk too"
ZMQ: Final = "pyzmq, a message per tick"
ZMQ_BATCHES: Final = f"pyzmq, {BATCH:,} ticks per message"
NATS: Final = "nats-py, a message per tick"
NATS_BATCHES: Final = f"nats-py, {BATCH:,} ticks per message"
RAW: Final = "raw gRPC bytes, server to readers"
RAW_RELAYED: Final = "raw gRPC bytes, source to server to readers"
RAW_KEPT: Final = "raw gRPC bytes, source to server to readers, freed memory kept"
RING: Final = 2_097_152
"""Ticks that market data holds here: it loses none, as its peers do whose bounds are taken away."""
NATS_BOUNDS: Final = 'max_pending: 2GB, max_payload: 4MB, write_deadline: "120s"'


@dataclass(slots=True)
class Lap:
    """What one lap of a scene gave."""

    ticks_per_s: float = 0.0
    """To the slowest reader, from the first tick sent to the last one taken."""
    cpu_s_per_million: float = 0.0
    """CPU of all processes for a million ticks sent."""
    served_cpu_s_per_million: float = 0.0
    """Of these, of what stands between source and readers, or of the sender where nothing does."""
    p50_us: float = 0.0
    """From the source to the slowest reader."""
    p99_us: float = 0.0
    hop_p50_us: float = 0.0
    """From the receipt in market data to the slowest reader."""
    hop_p99_us: float = 0.0
    ticks_per_message: float = 0.0
    served_mb: float = 0.0
    """Memory that what stands between source and readers has of its own behind it."""


@dataclass(slots=True)
class Scene:
    """One way of ticks from a sender to readers."""

    name: str
    sender: Child
    readers: list[Child]
    between: list[int] = field(default_factory=list)
    """Processes between both."""
    places: int = 1
    """Symbols."""
    batch: int = BATCH
    laps: list[Lap] = field(default_factory=list)

    async def flood(self, count: int) -> Lap:
        """So many ticks of each symbol as fast as it goes. Raises MeshFailed when one is lost."""
        return await self._lap(count, timed=False, do="flood", batch=self.batch)

    async def pace(self, count: int, per_s: int) -> Lap:
        """So many ticks, one after the other. Raises MeshFailed when one is lost."""
        return await self._lap(count, timed=True, do="pace", per_s=per_s)

    async def _lap(self, count: int, *, timed: bool, **asked: Any) -> Lap:
        prepared = await self.sender.ask(do="prepare", count=count)
        places = 1 if timed else self.places
        total = count * places
        reading = [asyncio.create_task(reader.ask(SETTLE_S, count=total, timed=timed)) for reader in self.readers]
        await asyncio.sleep(0.1)
        before = self._cpu()
        try:
            sent = await self.sender.ask(SETTLE_S, **asked)
            told = await asyncio.gather(*reading)
        except MeshFailed as failed:
            raise MeshFailed(f"{self.name}: {failed}") from None
        used = [after - earlier for after, earlier in zip(self._cpu(), before, strict=True)]
        wanted = [value * places for value in prepared["sums"]]
        if not self.name.startswith("raw") or timed:
            for each in told:
                if each["lost"] or each["sums"] != wanted:
                    raise MeshFailed(f"{self.name}: a reader took {each}, and {wanted} was sent")
        lap = self._told(total, sent, told, used)
        self.laps.append(lap)
        return lap

    def _told(self, total: int, sent: dict[str, Any], told: Sequence[dict[str, Any]], used: Sequence[float]) -> Lap:
        last = max(each["last_ns"] for each in told)
        lap = Lap(total / (last - sent["began_ns"]) * 1e9)
        lap.cpu_s_per_million = sum(used) / total * 1e6
        served = used[1 : 1 + len(self.between)] or used[:1]
        lap.served_cpu_s_per_million = sum(served) / total * 1e6
        lap.served_mb = sum(map(own_mb, self.between))
        lap.ticks_per_message = total / max(1, *(each["messages"] for each in told))
        if told[0]["waits_us"]:
            lap.p50_us, lap.p99_us = (max(each["waits_us"][index] for each in told) for index in (0, 1))
        if told[0]["hops_us"]:
            lap.hop_p50_us, lap.hop_p99_us = (max(each["hops_us"][index] for each in told) for index in (0, 1))
        return lap

    def _cpu(self) -> list[float]:
        """Seconds of CPU of each process: the sender, those between, the readers."""
        pids = [self.sender.process.pid, *self.between, *(reader.process.pid for reader in self.readers)]
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return [float(each.user + each.system) for each in times]


Open = Callable[[contextlib.AsyncExitStack, Settings, int], Any]


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many read."""

    processes: int
    streams: int = 1
    """Of each process."""
    symbols: int = 1

    @property
    def readers(self) -> int:
        """All streams."""
        return self.processes * self.streams


async def _readers(stack: contextlib.AsyncExitStack, crowd: Crowd, what: str, address: str) -> list[Child]:
    names = ",".join(symbols(crowd.symbols))
    reading = children(_READER, what, address, names, str(crowd.streams), count=crowd.processes)
    return await stack.enter_async_context(reading)


async def _sender(stack: contextlib.AsyncExitStack, crowd: Crowd, what: str, address: str) -> Child:
    names = ",".join(symbols(crowd.symbols))
    (sender,) = await stack.enter_async_context(children(_SENDER, what, address, names, str(crowd.readers)))
    return sender


async def mesh(
    stack: contextlib.AsyncExitStack, folder: Path, crowd: Crowd, *, recorded: bool = False, ring: int = RING
) -> Scene:
    """A source, the real market data in its own process, readers by `MarketSubscription`."""
    table = {"symbols": symbols(crowd.symbols), "ring_ticks": ring}
    if not recorded:
        table["record"] = []
    market = await stack.enter_async_context(running_service("market_data", folder, {"market_data": table}))
    readers = await _readers(stack, crowd, "mesh", market.address)
    sender = await _sender(stack, crowd, "mesh", market.address)
    return Scene(MESH_RECORDED if recorded else MESH, sender, readers, [market.pid], crowd.symbols)


async def pyzmq(stack: contextlib.AsyncExitStack, crowd: Crowd, *, batch: int = 1) -> Scene:
    """A PUB socket and SUB sockets without bounds, over TCP."""
    sender = await _sender(stack, crowd, "zmq", "-")
    readers = await _readers(stack, crowd, "zmq", sender.opened["address"])
    return Scene(ZMQ if batch == 1 else ZMQ_BATCHES, sender, readers, batch=batch)


async def raw(
    stack: contextlib.AsyncExitStack, crowd: Crowd, *, relayed: bool = False, memory_kept: bool = False
) -> Scene:
    """A bare grpc.aio server that gives all readers the same bytes; `relayed` it gets them from a source.

    `memory_kept`: its processes keep the memory that they free, as those of a mesh do.
    """
    what = "raw-kept" if memory_kept else "raw"
    server = await _sender(stack, crowd, what, "-")
    readers = await _readers(stack, crowd, what, server.opened["address"])
    if not relayed:
        return Scene(RAW, server, readers)
    source = await _sender(stack, crowd, what, server.opened["address"])
    return Scene(RAW_KEPT if memory_kept else RAW_RELAYED, source, readers, [server.process.pid])


async def nats(
    stack: contextlib.AsyncExitStack, folder: Path, crowd: Crowd, settings: Settings, *, batch: int = 1
) -> Scene | None:
    """nats-py on both sides of a nats-server without bounds; None where there is none."""
    address = await stack.enter_async_context(nats_server(folder, always=False, say=settings.say, more=NATS_BOUNDS))
    if address is None:
        return None
    port = int(address.rpartition(":")[2])
    server = [
        each.pid
        for each in psutil.process_iter()
        if any(connection.laddr.port == port for connection in _listening(each))
    ]
    readers = await _readers(stack, crowd, "nats", address)
    sender = await _sender(stack, crowd, "nats", address)
    return Scene(NATS if batch == 1 else NATS_BATCHES, sender, readers, server, batch=batch)


def _listening(process: psutil.Process) -> list[Any]:
    try:
        return [each for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except (psutil.Error, OSError):
        return []


@contextlib.asynccontextmanager
async def stacked() -> AsyncIterator[contextlib.AsyncExitStack]:
    """Where scenes are opened, and ended in reverse."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack
