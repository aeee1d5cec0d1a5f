"""A reader of ticks in a process of its own, for the benchmark of market data.

Arguments: what to read (`mesh`, `raw`, `raw-kept`, `zmq` or `nats`), the address, symbols with commas between, and how many streams.
It says `{}` when all streams are open. `{"count": N, "timed": false}` makes it take N ticks from each stream and say what it took.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import uvloop

FEW = 16
"""Up to so many ticks are read as objects, more of them by column."""

Take = Callable[["Taken", int], Awaitable[None]]


async def mesh_stream(address: str, symbols: list[str]) -> Take:
    """As a service does."""
    from tests.performance.service_process import own_channel

    from minhos_mesh.runtime.market import (
        Gap,
        MarketKind,
        MarketSubscription,
        SlowReader,
        Snapshot,
        TickBatchView,
    )

    channel = grpc.aio.insecure_channel(address, options=own_channel())
    reading = MarketSubscription(channel, symbols, {MarketKind.TICKS}, SlowReader.GAP, 0, {})
    opened = 0
    while opened < len(symbols):
        opened += isinstance(await anext(reading), Snapshot)

    async def take(taken: Taken, count: int) -> None:
        async for update in reading:
            if isinstance(update, TickBatchView):
                if len(update) > FEW:
                    taken.array(update.ticks)
                else:
                    taken.objects(update.objects())
                if taken.count >= count:
                    return
            elif isinstance(update, Gap):
                taken.lost += update.last_sequence - update.first_sequence + 1

    return take


async def raw_stream(address: str, _symbols: list[str]) -> Take:
    """Messages of one stream of grpc.aio as bytes: their length is counted, nothing is read but where it is timed."""
    from tests.performance.service_process import own_channel

    channel = grpc.aio.insecure_channel(address, options=own_channel())
    opened: Any = channel.unary_stream("/raw.Ticks/Read")
    call = opened(b"")
    await call.read()

    async def take(taken: Taken, count: int) -> None:
        while taken.count < count:
            data = await call.read()
            if taken.timed:
                taken.wire(data)
            else:
                taken.began()
                taken.count += len(data) // TICK_BYTES

    return take


async def nats_stream(address: str, _symbols: list[str]) -> Take:
    """One subscription without bounds."""
    import nats

    connection = await nats.connect(f"nats://{address}")
    taking: list[tuple[Taken, int]] = []
    done = asyncio.Event()

    async def handle(message: Any) -> None:
        taken, count = taking[-1]
        taken.wire(message.data)
        if taken.count >= count:
            done.set()

    await connection.subscribe("ticks", cb=handle, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()

    async def take(taken: Taken, count: int) -> None:
        done.clear()
        taking.append((taken, count))
        await done.wait()

    return take


def zmq_stream(address: str) -> Callable[[Taken, int], None]:
    """One SUB socket without bounds, read in a plain loop."""
    import zmq

    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(f"tcp://{address}")

    def take(taken: Taken, count: int) -> None:
        receive, wire = socket.recv, taken.wire
        data = receive()
        wire(data)
        if len(data) == TICK_BYTES and not taken.timed:
            _take_ones(receive, taken, count)
        while taken.count < count:
            wire(receive())

    return take


def _take_ones(receive: Callable[[], bytes], taken: Taken, count: int) -> None:
    """Messages of one tick with nothing around them but their two fields."""
    left, prices, sizes, unpack = count - taken.count, 0, 0, TWO.unpack_from
    for _ in range(left):
        price, size = unpack(receive())
        prices += price
        sizes += size
    taken.count, taken.messages = count, taken.messages + left
    taken.price_steps += prices // STEP_E9
    taken.sizes += sizes


def measured(taken: list[Taken], before: tuple[float, float]) -> dict[str, Any]:
    """What all streams took: of several the slowest is told, with what this process used meanwhile."""
    slowest = max(taken, key=lambda each: each.last_ns)
    cpu, began = before
    return {
        **slowest.told(),
        "lost": sum(each.lost for each in taken),
        "cpu_s": time.process_time() - cpu,
        "took_s": time.perf_counter() - began,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


async def main(what: str, address: str, symbols: str, streams: str) -> None:
    """Until whoever asks is gone."""
    if what in {"mesh", "raw-kept"}:
        keep_freed_memory(READER_BYTES)
    opening = {"mesh": mesh_stream, "raw": raw_stream, "raw-kept": raw_stream, "nats": nats_stream}[what]
    takes = [await opening(address, symbols.split(",")) for _ in range(int(streams))]

    async def one(take: Take, taken: Taken, count: int) -> None:
        await take(taken, count)
        taken.last_ns = time.perf_counter_ns()

    say()
    async for question in questions():
        taken = [Taken(question["timed"]) for _ in takes]
        before = time.process_time(), time.perf_counter()
        await asyncio.gather(*(one(take, each, question["count"]) for take, each in zip(takes, taken, strict=True)))
        say(**measured(taken, before))


def main_zmq(address: str) -> None:
    """The same without an event loop."""
    take = zmq_stream(address)
    say()
    for line in sys.stdin:
        question = json.loads(line)
        taken = Taken(question["timed"])
        before = time.process_time(), time.perf_counter()
        take(taken, question["count"])
        taken.last_ns = time.perf_counter_ns()
        say(**measured([taken], before))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.performance.children import questions, say  # noqa: E402 - the folder of the project comes first
from tests.performance.market_ticks import STEP_E9, TICK_BYTES, TWO, Taken  # noqa: E402 - the folder of the project comes first

from minhos_mesh.runtime.memory import READER_BYTES, keep_freed_memory  # noqa: E402 - the folder of the project comes first

if __name__ == "__main__":
    if sys.argv[1] == "zmq":
        main_zmq(sys.argv[2])
    else:
        uvloop.run(main(*sys.argv[1:]))
