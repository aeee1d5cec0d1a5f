"""Decides how every Watch behaves: changes by revision, resume behind one, heartbeat, and a clear end when it is gone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.errors import never_told, position_lost

T = TypeVar("T")

HELD: Final = 10_000
"""Changes that are held for readers that resume."""


def first_revision(clock: Clock) -> int:
    """A revision above all that any earlier life of the same service has told: microseconds since the Unix epoch."""
    return clock.wall_ns() // 1_000


class RevisionLog(Generic[T]):
    """Changes in order, each with a revision one above the one before; the oldest are dropped.

    Taking a snapshot and reading `newest` without an await between them is consistent.
    """

    def __init__(self, first: int = 0, held: int = HELD) -> None:
        self._newest = first
        self._changes: deque[T] = deque(maxlen=held)
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def newest(self) -> int:
        """Revision of the newest change."""
        return self._newest

    @property
    def oldest_resumable(self) -> int:
        """The oldest revision that a reader can resume behind."""
        return self._newest - len(self._changes)

    def append(self, change: T) -> int:
        """Adds a change, wakes all readers and returns its revision."""
        self._changes.append(change)
        self._newest += 1
        self._wake.set()
        self._wake = asyncio.Event()
        return self._newest

    def close(self) -> None:
        """Ends all readers."""
        self._closed = True
        self._wake.set()

    def check(self, after: int) -> None:
        """Raises MeshError OUT_OF_RANGE when a reader cannot resume behind this revision, of the past or of the future."""
        if after > self._newest:
            raise never_told(after, self.oldest_resumable, self._newest)
        if after < self.oldest_resumable:
            raise position_lost(after, self.oldest_resumable, self._newest)

    async def follow(self, after: int, heartbeat_s: float) -> AsyncIterator[tuple[int, T | None]]:
        """Yields (revision, change) behind `after`, and (last revision, None) when nothing came for `heartbeat_s`.

        Raises MeshError OUT_OF_RANGE at once, or later when the reader is slower than what is held.
        """
        position = after
        while not self._closed:
            self.check(position)
            wake = self._wake
            if position == self._newest:
                if not await _woken(wake, heartbeat_s):
                    yield position, None  # and not the newest: a change may have come in the instant of the heartbeat
                continue
            change = self._changes[position - self.oldest_resumable]
            position += 1
            yield position, change


async def _woken(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
