"""Decides how far a source of ticks runs ahead of market data: what comes meanwhile waits at the source, and goes together.

gRPC takes thousands of small messages before it makes their writer wait. Sent one by one, ticks that come faster than they
can be handled would each be a message still, although thousands wait, and the line would only grow.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MESSAGES: Final = 24
"""So many may be on their way without an acknowledgement."""
FEWEST: Final = 8
"""As many as market data takes before it acknowledges them; with fewer it would wait for more that cannot come."""
LATE_S: Final = 0.01
"""When market data, which may have many readers, takes longer for the newest message that it acknowledges, half as many may,
and twice as many when it does not. Above the time for which it waits with an acknowledgement for more, or it would always be late.
"""
LARGE: Final = 256
"""Messages of so many ticks are not counted: they have gathered, and gRPC holds back who sends too many bytes."""


class Ahead:
    """Messages of one stream that are on their way."""

    def __init__(self, messages: int = MESSAGES, now_s: Callable[[], float] = time.monotonic) -> None:
        """Of which there are so many at the most; `now_s` is a clock that only runs forward, in seconds."""
        self._most = self._allowed = messages
        self._now_s = now_s
        self._sent: deque[tuple[int, float]] = deque()
        self._room = asyncio.Event()
        self._ended = False

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def allowed(self) -> int:
        """How many may be on their way now."""
        return self._allowed

    @property
    def full(self) -> bool:
        """Whether no more may be sent now; never after `end`."""
        return len(self._sent) >= self._allowed and not self._ended

    async def room(self) -> None:
        """Returns when one more may be sent."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    def sent(self, through: int, ticks: int = 1) -> None:
        """A message is sent that holds so many ticks, the last of which stands at this position."""
        if ticks < LARGE:
            self._sent.append((through, self._now_s()))

    def taken(self, through: int) -> None:
        """All records up to this position were taken."""
        newest_s = None
        while self._sent and self._sent[0][0] <= through:
            _, newest_s = self._sent.popleft()
        if newest_s is not None:
            if self._now_s() - newest_s > LATE_S:
                self._allowed = max(min(FEWEST, self._most), self._allowed // 2)
            else:
                self._allowed = min(self._most, 2 * self._allowed)
        self._room.set()

    def end(self) -> None:
        """Nothing will be acknowledged any more: nobody is to wait for it."""
        self._ended = True
        self._room.set()
