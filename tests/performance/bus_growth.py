"""Measures what a growing journal costs: publishing and memory from its first events to its last, and reading all of it again."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from tests.performance import bus_events
from tests.performance.bus_process import BusProcess, running_bus
from tests.performance.bus_references import ROW_BYTES
from tests.performance.bus_servers import nats_server, nats_stream, redis_client, redis_server
from tests.performance.results import Metric, Reach, Settings

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_mesh.runtime.streams import messages, read

EVENTS: Final = 1_000_000
LONG: Final = 10_000_000
READ_AGAIN: Final = 1_000_000
BESIDE_EVENTS: Final = 200_000
BATCH: Final = 256
IN_FLIGHT: Final = 4
"""Batches."""
FIRST: Final = 10_000
"""From here on the cost is that of a bus that runs."""
WINDOW: Final = 50_000
"""Events over which a cost is taken."""
CREDIT: Final = 100_000
PARTS: Final = 10


@dataclass(frozen=True, slots=True)
class _Point:
    """Where the journal was, and what it had cost."""

    count: int
    at_s: float
    cpu_s: float
    memory_mb: float


@dataclass(slots=True)
class _Growth:
    points: list[_Point] = field(default_factory=list)

    def costs(self, first: int, last: int) -> tuple[list[float], list[float]]:
        """Microseconds, and of CPU, for each event, between each two points of a part."""
        some = [point for point in self.points if first <= point.count <= last]
        pairs = list(itertools.pairwise(some))
        wall = [(b.at_s - a.at_s) / (b.count - a.count) * 1e6 for a, b in pairs]
        return wall, [(b.cpu_s - a.cpu_s) / (b.count - a.count) * 1e6 for a, b in pairs]


async def growth(settings: Settings) -> Sequence[Metric]:
    """Publishes a million events, ten millions when it may take long, then reads the first million again."""
    total = LONG if settings.long else EVENTS
    limits = {"max_mb": 0, "max_age_h": 0, "unacked_max_mb": 0, "unacked_max_age_h": 0}
    async with running_bus(settings.folder / "growth" / "bus", limits) as bus:
        grown = _Growth()
        await _fill(bus, total, grown, settings)
        rates = [rate async for rate in _rates(_bus_counts(bus), min(total, READ_AGAIN))]
    return [*_growth_metrics(grown, total), *await _replay_metrics(rates, settings)]


async def _fill(bus: BusProcess, total: int, grown: _Growth, settings: Settings) -> None:
    call = bus.stub.PublishStream()
    await read(call)
    room = asyncio.Semaphore(IN_FLIGHT)
    begun = time.perf_counter()

    async def send() -> None:
        for number in range(1, -(-total // BATCH) + 1):
            await room.acquire()
            await call.write(pb.PublishStreamRequest(batch_id=number, events=bus_events.events(BATCH)))
        await call.done_writing()

    sending = asyncio.create_task(send())
    count, noted, told = 0, 0, total // PARTS
    async for answer in messages(call):
        if not answer.batch_id:
            continue
        assert len(answer.sequences) == BATCH, answer
        room.release()
        count += BATCH
        if count >= noted + FIRST:
            noted = count
            grown.points.append(_Point(count, time.perf_counter(), bus.cpu_s(), bus.own_mb()))
            if count >= told:
                told += total // PARTS
                rate, memory = count / (time.perf_counter() - begun), grown.points[-1].memory_mb
                settings.say(f"{count:,} events, {rate:,.0f}/s so far, {memory:.0f} MB")
    await sending


def _growth_metrics(grown: _Growth, total: int) -> list[Metric]:
    first, first_cpu = grown.costs(FIRST, FIRST + WINDOW)
    last, last_cpu = grown.costs(total - WINDOW, total)
    tenth = total // PARTS
    early = [point.memory_mb for point in grown.points if tenth <= point.count < 2 * tenth]
    late = [point.memory_mb for point in grown.points if point.count > total - tenth]
    beside = f"the same at {FIRST:,} stored"
    return [
        Metric(f"publish at {total:,} stored, per event", "us", last, beside, first, Reach(1.5, of_ratio=True)),
        Metric(f"CPU of the bus at {total:,} stored, per event", "us", last_cpu, beside, first_cpu),
        Metric(
            f"memory of the bus (its own), last tenth of {total:,} stored",
            "MB",
            late,
            "the same in the second tenth",
            early,
            Reach(1.1, of_ratio=True),
        ),
        Metric(f"publish, all {total:,}", "1/s", [_rate(grown)]),
    ]


def _rate(grown: _Growth) -> float:
    first, last = grown.points[0], grown.points[-1]
    return (last.count - first.count) / (last.at_s - first.at_s)


async def _rates(counts: AsyncIterator[int], total: int) -> AsyncIterator[float]:
    """Events a second in each part of a reading."""
    seen = before = 0
    begun = time.perf_counter()
    async for count in counts:
        seen += count
        if seen - before >= total // PARTS or seen >= total:
            now = time.perf_counter()
            yield (seen - before) / (now - begun)
            before, begun = seen, now
        if seen >= total:
            return


async def _bus_counts(bus: BusProcess) -> AsyncIterator[int]:
    """Reads from the beginning, every event decoded."""
    call = bus.stub.Subscribe()
    opening = pb.SubscribeOpen(credit=CREDIT, start=pb.SubscribeStart(beginning=True))
    await call.write(pb.SubscribeRequest(open=opening))
    owed = 0
    while (answer := await read(call)) is not grpc.aio.EOF:
        count = len(answer.delivery.events)
        assert all(item.event.payload.value for item in answer.delivery.events), "every event is looked at"
        owed += count
        if owed > CREDIT // 2:
            await call.write(pb.SubscribeRequest(credit=pb.SubscribeCredit(count=owed)))
            owed = 0
        yield count
    call.cancel()


async def _replay_metrics(rates: Sequence[float], settings: Settings) -> list[Metric]:
    folder = settings.folder / "growth"
    found = {"nats-py, JetStream, ordered consumer": await _nats_rates(folder, settings)}
    found["redis-py, Streams, XRANGE of 1,000"] = await _redis_rates(folder, settings)
    found["plain SQLite loop, SELECT"] = await _sqlite_rates(folder)
    name = f"replay of {READ_AGAIN:,} events"
    return [Metric(name, "1/s", rates, beside, values) for beside, values in found.items() if values] or [
        Metric(name, "1/s", rates)
    ]


async def _nats_rates(folder: Path, settings: Settings) -> list[float]:
    async with nats_server(folder / "nats", always=False, say=settings.say) as address:
        if address is None:
            return []
        async with nats_stream(address) as stream:
            for number in range(BESIDE_EVENTS):
                await stream.publish_async(f"bench.{number % 8}", bus_events.payload())
            await stream.publish_async_completed()
            subscription = await stream.subscribe("bench.*", ordered_consumer=True)

            async def counts() -> AsyncIterator[int]:
                while True:
                    await subscription.next_msg(timeout=20)
                    yield 1

            return [rate async for rate in _rates(counts(), BESIDE_EVENTS)]


async def _redis_rates(folder: Path, settings: Settings) -> list[float]:
    async with redis_server(folder / "redis", settings.say) as address:
        if address is None:
            return []
        async with redis_client(address) as client:
            for _ in range(BESIDE_EVENTS // 1_000):
                pipeline = client.pipeline(transaction=False)
                for _ in range(1_000):
                    pipeline.xadd("bench", {"p": bus_events.payload()})
                await pipeline.execute()

            async def counts() -> AsyncIterator[int]:
                last = b"-"
                while entries := await client.xrange("bench", min=last, count=1_000):
                    last = b"(" + entries[-1][0]
                    yield len(entries)

            return [rate async for rate in _rates(counts(), BESIDE_EVENTS)]


async def _sqlite_rates(folder: Path) -> list[float]:
    connection = sqlite3.connect(folder / "plain.db", isolation_level=None)
    connection.execute("CREATE TABLE event (sequence INTEGER PRIMARY KEY, body BLOB)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO event (body) VALUES (?)", [(b"x" * ROW_BYTES,)] * BESIDE_EVENTS)
    connection.execute("COMMIT")

    async def counts() -> AsyncIterator[int]:
        rows = connection.execute("SELECT sequence, body FROM event ORDER BY sequence")
        while some := rows.fetchmany(1_000):
            yield len(some)

    rates = [rate async for rate in _rates(counts(), BESIDE_EVENTS)]
    connection.close()
    return rates


GROWTH: Final = (growth,)
"""Sections for the benchmark of the bus."""
