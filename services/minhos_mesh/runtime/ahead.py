"""Decides how far a source of ticks runs ahead of market data: what comes meanwhile waits at the source, and goes together.

gRPC takes thousands of small messages before it makes their writer wait. Sent one by one, ticks that come faster than they
can be handled would each be a message still, although thousands wait, and the line would only grow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

MESSAGES: Final = 16
"""So many may be on their way without an acknowledgement; twice as many as market data takes before it acknowledges."""


class Ahead:
    """Messages of one stream that are on their way."""

    def __init__(self, messages: int = MESSAGES) -> None:
        """Of which there are so many at the most."""
        self._messages = messages
        self._through: deque[int] = deque()
        self._room = asyncio.Event()
        self._ended = False

    def __len__(self) -> int:
        return len(self._through)

    async def room(self) -> None:
        """Returns when one more may be sent; at once when `end` was called."""
        while len(self._through) >= self._messages and not self._ended:
            self._room.clear()
            await self._room.wait()

    def sent(self, through: int) -> None:
        """A message is sent whose last record stands at this position."""
        self._through.append(through)

    def taken(self, through: int) -> None:
        """All records up to this position were taken."""
        waiting = self._through
        while waiting and waiting[0] <= through:
            waiting.popleft()
        self._room.set()

    def end(self) -> None:
        """Nothing will be acknowledged any more: nobody is to wait for it."""
        self._ended = True
        self._room.set()
