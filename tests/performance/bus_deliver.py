"""Measures the way of an event from its publisher to the handler of its readers, at a steady pace, with one reader and with four."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.performance.bus_pace import EVENTS_PER_S, ReaderProcess, Send, keep_pace, readers, to_bus, to_nats, to_redis
from tests.performance.bus_process import running_bus
from tests.performance.bus_servers import nats_server, nats_stream, redis_client, redis_server
from tests.performance.results import Metric, Reach, Settings

READERS: Final = (1, 4)
LAP_S: Final = 2.0
BUS: Final = "event bus, sqlite, fsync"
BESIDE: Final = "nats-py, JetStream always, fsync"
REACH: Final = Reach(10.0)

_Open = Callable[[], AbstractAsyncContextManager[Send]]


@dataclass(slots=True)
class Scene:
    """A server with its readers, and how it is published to."""

    name: str
    readers: list[ReaderProcess]
    opened: _Open
    halves: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    async def lap(self, seconds: float, *, counts: bool, per_s: int = EVENTS_PER_S) -> None:
        """Publishes for so long, and asks the readers; of several the slowest is told."""
        async with self.opened() as send:
            published = await keep_pace(send, seconds, per_s)
        told = await asyncio.gather(*(reader.settled(published) for reader in self.readers))
        if counts:
            self.halves.append(max(each["p50_ms"] for each in told))
            self.tails.append(max(each["p99_ms"] for each in told))


async def deliver(settings: Settings) -> Sequence[Metric]:
    """All are published to in turn; a first round only warms up."""
    metrics: list[Metric] = []
    for count in READERS:
        async with contextlib.AsyncExitStack() as stack:
            scenes = await _scenes(stack, settings, count)
            for number in range(settings.rounds + 1):
                for scene in scenes:
                    await scene.lap(LAP_S, counts=number > 0)
                last = ", ".join(f"{scene.tails[-1]:.2f}" for scene in scenes if scene.tails)
                settings.say(f"{count} readers, {f'round {number}, p99 ms: {last}' if number else 'warm up'}")
            metrics += _metrics(scenes, count)
    return metrics


async def _scenes(stack: contextlib.AsyncExitStack, settings: Settings, count: int) -> list[Scene]:
    folder, enter = settings.folder / f"deliver-{count}", stack.enter_async_context
    bus = await enter(running_bus(folder / "bus"))
    scenes = [Scene(BUS, await enter(readers(count, "bus", bus.address)), lambda: to_bus(bus.stub))]
    for name, always in ((BESIDE, True), ("nats-py, JetStream default, NOT fsync", False)):
        address = await enter(nats_server(folder / f"nats-{always}", always=always, say=settings.say))
        if address is not None:
            stream: Any = await enter(nats_stream(address))
            reading = await enter(readers(count, "nats", address))
            scenes.append(Scene(name, reading, functools.partial(to_nats, stream)))
    redis = await enter(redis_server(folder / "redis", settings.say))
    if redis is not None:
        client = await enter(redis_client(redis))
        reading = await enter(readers(count, "redis", redis))
        scenes.append(Scene("redis-py, Streams always, fsync", reading, lambda: to_redis(client)))
    return scenes


def _metrics(scenes: Sequence[Scene], count: int) -> list[Metric]:
    beside = next((scene for scene in scenes if scene.name == BESIDE), None)
    who = "1 reader" if count == 1 else f"slowest of {count} readers"
    metrics: list[Metric] = []
    for scene in scenes:
        for share, values, others in (
            ("p50", scene.halves, beside.halves if beside else ()),
            ("p99", scene.tails, beside.tails if beside else ()),
        ):
            is_it = beside is None or scene is beside
            metrics.append(
                Metric(
                    f"publish to deliver at {EVENTS_PER_S:,}/s, {who}, {share}: {scene.name}",
                    "ms",
                    values,
                    None if is_it else BESIDE,
                    () if is_it else others,
                    REACH if scene.name == BUS and share == "p99" else None,
                )
            )
    return metrics


DELIVER: Final = (deliver,)
"""Sections for the benchmark of the bus."""
