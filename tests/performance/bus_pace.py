"""Decides how events are published at a steady pace: each millisecond what is due goes out, whatever is still unanswered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.performance import bus_events
from tests.performance.mesh_run import MeshFailed

from minhos_api.events.v1 import event_bus_service_pb2 as pb
from minhos_mesh.runtime.streams import messages, read

EVENTS_PER_S: Final = 5_000
STEP_S: Final = 0.001
MOST: Final = 500
"""Events of one message, when the publisher has fallen behind."""
OPEN_S: Final = 30.0
SETTLE_S: Final = 10.0
_READER: Final = Path(__file__).with_name("bus_reader.py")

Send = Callable[[Sequence[int]], Awaitable[None]]
"""Publishes one event for each moment (ns of the monotonic clock) that it carries."""


async def keep_pace(send: Send, seconds: float, per_s: int) -> int:
    """Publishes for so long; gives how many events that were. Each carries the moment at which it was due."""
    begun, sent = time.perf_counter_ns(), 0
    every_ns = 1_000_000_000 // per_s
    total = int(seconds * per_s)
    while sent < total:
        due = min(total, sent + MOST, (time.perf_counter_ns() - begun) // every_ns)
        if due > sent:
            await send([begun + number * every_ns for number in range(sent, due)])
            sent = due
        await asyncio.sleep(STEP_S)
    return sent


@contextlib.asynccontextmanager
async def to_bus(stub: Any) -> AsyncIterator[Send]:
    """Publishes what is due as one message on a stream."""
    call = stub.PublishStream()
    await read(call)
    count = 0

    async def send(moments: Sequence[int]) -> None:
        nonlocal count
        count += 1
        batch = [bus_events.event(number, moment) for number, moment in enumerate(moments)]
        await call.write(pb.PublishStreamRequest(batch_id=count, events=batch))

    async def answers() -> None:
        async for answer in messages(call):
            assert not answer.refusals, answer

    reading = asyncio.create_task(answers())
    try:
        yield send
        await call.done_writing()
        await reading
    finally:
        reading.cancel()
        call.cancel()


@contextlib.asynccontextmanager
async def to_nats(stream: Any) -> AsyncIterator[Send]:
    """Publishes each event by `publish_async`."""

    async def send(moments: Sequence[int]) -> None:
        for moment in moments:
            await stream.publish_async(f"bench.{moment % len(bus_events.SUBJECTS)}", bus_events.payload(moment))

    yield send
    await stream.publish_async_completed()


@contextlib.asynccontextmanager
async def to_redis(client: Any) -> AsyncIterator[Send]:
    """Publishes what is due in one pipeline, behind which the next waits."""

    async def send(moments: Sequence[int]) -> None:
        pipeline = client.pipeline(transaction=False)
        for moment in moments:
            pipeline.xadd("bench", {"p": bus_events.payload(moment)})
        await pipeline.execute()

    yield send


@dataclass(slots=True)
class ReaderProcess:
    """A reader in a process of its own."""

    process: asyncio.subprocess.Process

    @classmethod
    async def started(cls, *arguments: str) -> ReaderProcess:
        """Returns once it reads."""
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = (sys.executable, str(_READER), *arguments)
        made = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment))
        assert await made._line() == b"open\n", "a reader opens or says why not"
        return made

    async def take(self) -> dict[str, Any]:
        """What came since the last question."""
        assert self.process.stdin is not None, "stdin is a pipe"
        self.process.stdin.write(b"\n")
        told: dict[str, Any] = json.loads(await self._line())
        return told

    async def settled(self, count: int) -> dict[str, Any]:
        """What came, once everything that was published came. Raises MeshFailed when it does not."""
        end, parts = time.monotonic() + SETTLE_S, [await self.take()]
        while (seen := sum(part["count"] for part in parts)) < count:
            if time.monotonic() > end:
                raise MeshFailed(f"a reader got {seen} of {count} events within {SETTLE_S:g} s")
            await asyncio.sleep(0.2)
            parts.append(await self.take())
        return max(parts, key=lambda part: float(part["count"]))

    async def _line(self) -> bytes:
        assert self.process.stdout is not None, "stdout is a pipe"
        async with asyncio.timeout(OPEN_S):
            return await self.process.stdout.readline()

    async def end(self) -> None:
        """Ends it, also when it is stopped."""
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def readers(count: int, *arguments: str) -> AsyncIterator[list[ReaderProcess]]:
    """So many of the same kind."""
    made = await asyncio.gather(*(ReaderProcess.started(*arguments) for _ in range(count)))
    try:
        yield list(made)
    finally:
        for reader in made:
            await reader.end()
