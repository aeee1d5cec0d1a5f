"""Decides how the bus is published to when that is measured: by batches on a stream, or by one unary call for each event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tests.performance import bus_events
from tests.performance.results import percentile

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_api.events.v1 import event_pb2
from minhos_mesh.runtime.streams import messages, read

ANSWER_S: Final = 20.0


@dataclass(slots=True)
class Lap:
    """What one round of publishing gave: the acknowledged events, and how long each waited for it."""

    begun: float = field(default_factory=time.perf_counter)
    waits: list[tuple[float, int]] = field(default_factory=list)
    """Seconds, and how many events waited so long."""
    ended: float = 0.0

    def acknowledged(self, sent: float, count: int) -> None:
        """Takes note that events sent at a moment are acknowledged now."""
        self.ended = time.perf_counter()
        self.waits.append((self.ended - sent, count))

    @property
    def count(self) -> int:
        """Events acknowledged."""
        return sum(count for _, count in self.waits)

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.count / (self.ended - self.begun)

    def wait_ms(self, share: float) -> float:
        """The wait that this share of the events does not exceed."""
        return percentile([wait for wait, count in self.waits for _ in range(count)], share) * 1e3


class Publisher(Protocol):
    """Something that is published to."""

    name: str
    """With its durability."""

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """Makes what is published next, before the time runs."""

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """Publishes for so long, with never more events unacknowledged than that."""


class StreamPublisher:
    """PublishStream: a new batch goes out as soon as another is acknowledged."""

    def __init__(self, name: str, stub: Any, message: int, most_per_s: int = 80_000) -> None:
        """`message` is how many events one message has at the most."""
        self.name = name
        self._stub = stub
        self._message = message
        self._most_per_s = most_per_s
        self._made: Sequence[list[event_pb2.Event]] = ()

    def _sizes(self, in_flight: int) -> tuple[int, int]:
        """How many messages are in flight, and how many events each has."""
        size = min(self._message, in_flight)
        return in_flight // size, size

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher."""
        most = min(self._most_per_s, 8_000 * in_flight)
        self._made = bus_events.batches(round(most * seconds), self._sizes(in_flight)[1])

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher. Ends early when everything that was made is published."""
        call = self._stub.PublishStream()
        await read(call)  # the heartbeat that says that it is heard
        count, size = self._sizes(in_flight)
        room = asyncio.Semaphore(count)
        sent: dict[int, float] = {}
        lap = Lap()

        async def send() -> None:
            for number, batch in enumerate(self._made, start=1):
                await room.acquire()
                if time.perf_counter() - lap.begun > seconds:
                    break
                sent[number] = time.perf_counter()
                await call.write(pb.PublishStreamRequest(batch_id=number, events=batch))
            await call.done_writing()

        async with asyncio.TaskGroup() as group, asyncio.timeout(seconds + ANSWER_S):
            group.create_task(send())
            async for answer in messages(call):
                if answer.batch_id:
                    assert len(answer.sequences) == size, answer
                    lap.acknowledged(sent.pop(answer.batch_id), size)
                    room.release()
        assert not sent, "every batch is answered"
        return lap


class UnaryPublisher:
    """Publish: as many calls at once as there are events in flight."""

    def __init__(self, name: str, stub: Any) -> None:
        self.name = name
        self._stub = stub
        self._made: list[event_pb2.Event] = []

    async def prepare(self, in_flight: int, seconds: float) -> None:
        """See Publisher."""
        self._made = bus_events.events(round(min(10_000, 5_000 * in_flight) * seconds))

    async def publish(self, in_flight: int, seconds: float) -> Lap:
        """See Publisher."""
        lap = Lap()

        async def worker() -> None:
            while self._made and time.perf_counter() - lap.begun < seconds:
                request = pb.PublishRequest(events=[self._made.pop()])
                sent = time.perf_counter()
                await self._stub.Publish(request, timeout=ANSWER_S)
                lap.acknowledged(sent, 1)

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return lap
