"""Measures durable publishing with 1, 16 and 256 events in flight: the bus, and what it is set beside, in turn in each round."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.performance.bus_bare import bare_journal
from tests.performance.bus_process import running_bus
from tests.performance.bus_publishers import Lap, Publisher, StreamPublisher, UnaryPublisher
from tests.performance.bus_references import BareStream, FileLoop, NatsPublisher, RedisPublisher, SqliteLoop
from tests.performance.bus_servers import nats_server, nats_stream, redis_client, redis_server
from tests.performance.results import Metric, Reach, Settings

IN_FLIGHT: Final = (1, 16, 256)
LAP_S: Final = 0.5
MESSAGE: Final = 128
"""Most events of one message: of more in flight one message is made ready while another is on its way to the disk."""
MANY: Final = "PublishStream, many a message, sqlite, fsync"
BESIDE: Final = "nats-py, JetStream always, fsync"
REACH: Final = Reach(5.0, at_most=False, of_ratio=True)


@dataclass(slots=True)
class _Seen:
    rates: list[float] = field(default_factory=list)
    halves: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def add(self, lap: Lap) -> None:
        self.rates.append(lap.rate)
        self.halves.append(lap.wait_ms(0.5))
        self.tails.append(lap.wait_ms(0.99))


async def publish(settings: Settings) -> Sequence[Metric]:
    """All publish in turn; a first round only warms up."""
    async with contextlib.AsyncExitStack() as stack:
        publishers = await _publishers(stack, settings)
        seen = {(each.name, in_flight): _Seen() for each in publishers for in_flight in IN_FLIGHT}
        for number in range(settings.rounds + 1):
            for in_flight in IN_FLIGHT:
                for publisher in publishers:
                    await publisher.prepare(in_flight, LAP_S)
                    gc.collect()
                    lap = await publisher.publish(in_flight, LAP_S)
                    if number:
                        seen[publisher.name, in_flight].add(lap)
            rates = ", ".join(
                f"{each.rates[-1]:.0f}" for (name, _), each in seen.items() if name in (MANY, BESIDE) and each.rates
            )
            settings.say(f"{f'round {number}' if number else 'warm up'}: {rates}")
    return [metric for in_flight in IN_FLIGHT for metric in _metrics(publishers, in_flight, seen)]


async def _publishers(stack: contextlib.AsyncExitStack, settings: Settings) -> list[Publisher]:
    folder, enter = settings.folder / "publish", stack.enter_async_context
    bus = await enter(running_bus(folder / "bus"))
    found: list[Publisher] = [
        StreamPublisher(MANY, bus.stub, MESSAGE),
        StreamPublisher("PublishStream, one a message, sqlite, fsync", bus.stub, 1, 20_000),
        UnaryPublisher("Publish, sqlite, fsync", bus.stub),
    ]
    always = await enter(nats_server(folder / "nats-always", always=True, say=settings.say))
    if always is not None:
        found.append(NatsPublisher(BESIDE, await enter(nats_stream(always))))
        jetstream = {"engine": "jetstream", "servers": [always], "replicas": 1}
        stored = await enter(running_bus(folder / "bus-jetstream", jetstream))
        found += [
            StreamPublisher("PublishStream, many a message, jetstream always, fsync", stored.stub, MESSAGE),
            UnaryPublisher("Publish, jetstream always, fsync", stored.stub),
        ]
    default = await enter(nats_server(folder / "nats-default", always=False, say=settings.say))
    if default is not None:
        stream = await enter(nats_stream(default))
        found.append(NatsPublisher("nats-py, JetStream default, NOT fsync", stream))
    redis = await enter(redis_server(folder / "redis", settings.say))
    if redis is not None:
        client = await enter(redis_client(redis))
        found.append(RedisPublisher("redis-py, Streams always, fsync", client))
    bare = await enter(bare_journal(folder / "bare"))
    found.append(BareStream("bare grpc.aio stream, one fdatasync for all", bare))
    loops = (
        SqliteLoop("plain SQLite, a commit per event, fsync", folder / "one.db", batch=False),
        SqliteLoop("plain SQLite, one commit for all, fsync", folder / "all.db", batch=True),
        FileLoop("plain file, one fdatasync for all", folder / "file"),
    )
    for loop in loops:
        stack.callback(loop.close)
    return [*found, *loops]


def _metrics(publishers: Sequence[Publisher], in_flight: int, seen: dict[tuple[str, int], _Seen]) -> list[Metric]:
    """Each stands beside JetStream with `always`, and the reach is asked of the stream with many events a message."""
    beside = seen.get((BESIDE, in_flight), _Seen())
    metrics: list[Metric] = []
    for publisher in publishers:
        found, is_it = seen[publisher.name, in_flight], publisher.name == BESIDE
        name = f"{in_flight} in flight: {publisher.name}"
        reference = None if is_it or not beside.rates else BESIDE
        for what, unit, values, others in (
            ("", "1/s", found.rates, beside.rates),
            (", p50", "ms", found.halves, beside.halves),
            (", p99", "ms", found.tails, beside.tails),
        ):
            reach = REACH if publisher.name == MANY and not what else None
            metrics.append(Metric(name + what, unit, values, reference, others if reference else (), reach))
    return metrics


PUBLISH: Final = (publish,)
"""Sections for the benchmark of the bus."""
