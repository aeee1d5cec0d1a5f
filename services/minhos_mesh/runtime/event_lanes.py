"""Decides how events are handled at once: each subject in order, each type with places of its own, answers as they come.

A handler that is slow holds up its own subjects and its own type, and nothing else, for as long as the reader has credit left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from minhos_api.events.v1 import event_bus_service_pb2 as bus_pb2

_MOST_SEQUENCES: Final = 10_000

Handle = Callable[[bus_pb2.DeliveredEvent], Awaitable[bus_pb2.SubscribeNack | None]]
"""Handles one event; gives what is to be told of its failure, None when all is well."""


class Lanes:
    """The events of one stream that are being handled or wait for it."""

    def __init__(self, handle: Handle, places: Callable[[str], int], *, durable: bool, waits_s: float) -> None:
        """`places` says how many events of a type are handled at once; `waits_s` is how long an event may wait before the bus
        must be told that it is not forgotten.
        """
        self.position: int | None = None
        """Everything up to here is handled."""
        self._handle, self._places = handle, places
        self._durable, self._waits_s = durable, waits_s
        self._lanes: dict[str, deque[bus_pb2.DeliveredEvent]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._types: dict[str, asyncio.Semaphore] = {}
        self._open: dict[int, None] = {}
        self._running: set[int] = set()
        self._done: list[int] = []
        self._failed: list[bus_pb2.SubscribeNack] = []
        self._owed = 0
        self._last = 0
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    def put(self, items: Iterable[bus_pb2.DeliveredEvent]) -> None:
        """Takes what was delivered. What comes again while it is still being handled is not handled twice at once."""
        for item in items:
            sequence, subject = item.event.sequence, item.event.subject
            self._last = max(self._last, sequence)
            if sequence in self._open:
                self._settle(sequence, credit_only=True)
                continue
            self._open[sequence] = None
            self._lanes.setdefault(subject, deque()).append(item)
            if subject not in self._tasks:
                self._tasks[subject] = asyncio.create_task(self._run(subject), name="events-handle")

    async def answer(self, call: Any, credit: int) -> None:
        """Tells the bus what is done as it is done, until cancelled; `credit` is what the stream was opened with."""
        time = asyncio.get_running_loop().time
        extended = time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(extended + self._waits_s):
                    await self._wake.wait()
            # Also while there is much to answer: what waits behind it has been silent just as long.
            if time() >= extended + self._waits_s:
                extended = time()
                await self._extend(call)
            self._wake.clear()
            await self.flush(call)
            if self._owed * 2 >= credit:
                owed, self._owed = self._owed, 0
                await self._write(call, credit=bus_pb2.SubscribeCredit(count=owed))

    async def flush(self, call: Any) -> None:
        """Writes the answers that wait: what failed first, since the rest of its subject comes again behind it."""
        failed, self._failed = self._failed, []
        done, self._done = self._done, []
        for nack in failed:
            await self._write(call, nack=nack)
        for start in range(0, len(done), _MOST_SEQUENCES):
            await self._write(call, ack=bus_pb2.SubscribeAck(sequences=done[start : start + _MOST_SEQUENCES]))

    async def stop(self) -> None:
        """Ends every handler; what was not done is not answered."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, subject: str) -> None:
        lane = self._lanes[subject]
        try:
            while lane:
                item = lane[0]
                async with self._place(item.event.type):
                    self._running.add(item.event.sequence)
                    try:
                        failed = await self._handle(item)
                    finally:
                        self._running.discard(item.event.sequence)
                lane.popleft()
                self._note(item.event.sequence, failed, lane)
        finally:
            del self._tasks[subject]
            del self._lanes[subject]

    def _note(self, sequence: int, failed: bus_pb2.SubscribeNack | None, lane: deque[bus_pb2.DeliveredEvent]) -> None:
        """Notes how one event ended. Behind one that failed the rest of its subject is let go: the bus sends it again."""
        if self._durable and failed is not None:
            self._failed.append(failed)
            while lane:
                self._settle(lane.popleft().event.sequence)
        elif self._durable:
            self._done.append(sequence)
        self._settle(sequence)

    def _settle(self, sequence: int, *, credit_only: bool = False) -> None:
        self._owed += 1
        if not credit_only:
            del self._open[sequence]
            self.position = next(iter(self._open), self._last + 1) - 1
        self._wake.set()

    async def _extend(self, call: Any) -> None:
        """Says of events that wait for a place that they are not forgotten; what is being handled has its own deadline."""
        waiting = [lane[0].event.sequence for lane in self._lanes.values() if lane]
        waiting = [sequence for sequence in waiting if sequence not in self._running]
        if self._durable and waiting:
            await self._write(call, in_progress=bus_pb2.SubscribeInProgress(sequences=waiting[:_MOST_SEQUENCES]))

    async def _write(self, call: Any, **message: Any) -> None:
        async with self._writing:
            await call.write(bus_pb2.SubscribeRequest(**message))

    def _place(self, event_type: str) -> asyncio.Semaphore:
        if event_type not in self._types:
            self._types[event_type] = asyncio.Semaphore(self._places(event_type))
        return self._types[event_type]
