"""Where time comes from: every clock is handed in, so that a test or a replay decides what time it is."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """What code may ask about time."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. For durations and deadlines."""
        ...

    async def sleep_until(self, monotonic: float) -> None:
        """Returns once `monotonic()` has reached the given value, at once when it already has."""
        ...


class SystemClock:
    """The clock of the machine."""

    def wall_ns(self) -> int:
        """See `Clock`."""
        return time.time_ns()

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep_until(self, monotonic: float) -> None:
        """See `Clock`."""
        while (left := monotonic - time.monotonic()) > 0:  # noqa: ASYNC110 - not a poll: a timer may fire a moment early
            await asyncio.sleep(left)


class ManualClock:
    """A clock that stands still until it is advanced; wakes who sleeps on it. For tests and replays."""

    def __init__(self, wall_ns: int = 1_790_000_000_000_000_000, monotonic: float = 1000.0) -> None:
        self._wall_ns = wall_ns
        self._start = monotonic
        self._elapsed_ns = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()

    def wall_ns(self) -> int:
        """See `Clock`."""
        return self._wall_ns

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._start + self._elapsed_ns / 1e9

    async def sleep_until(self, monotonic: float) -> None:
        """See `Clock`."""
        if monotonic <= self.monotonic():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (monotonic, next(self._tickets), future))
        await future

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward and wakes the sleepers that are due. Raises ValueError when negative."""
        self.advance_ns(round(seconds * 1e9))

    def advance_ns(self, nanoseconds: int) -> None:
        """As `advance`, in whole nanoseconds."""
        if nanoseconds < 0:
            raise ValueError(f"a clock cannot be advanced by {nanoseconds} ns")
        self._wall_ns += nanoseconds
        self._elapsed_ns += nanoseconds
        while self._sleepers and self._sleepers[0][0] <= self.monotonic():
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)

    def next_wake(self) -> float | None:
        """When the first sleeper is due, on the monotonic clock; None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None
