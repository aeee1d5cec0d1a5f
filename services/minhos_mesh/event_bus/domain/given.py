"""Decides which answers of a reader are late and which name something that it was never given."""

from __future__ import annotations

from collections import deque
from typing import Final

REMEMBERED: Final = 16_384
"""Deliveries of one stream that are remembered; an answer to an older one counts as late."""


class RecentlyGiven:
    """The sequences that one stream was given, the newest of them exactly."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._order: deque[int] = deque()
        self._given: dict[int, int] = {}
        self._forgotten_through = 0

    def add(self, sequence: int) -> None:
        """Notes that the event was given."""
        self._given[sequence] = self._given.get(sequence, 0) + 1
        self._order.append(sequence)
        if len(self._order) > self._remembered:
            oldest = self._order.popleft()
            self._forgotten_through = max(self._forgotten_through, oldest)
            self._given[oldest] -= 1
            if not self._given[oldest]:
                del self._given[oldest]

    def __contains__(self, sequence: int) -> bool:
        """Whether the event was given, or may have been so long ago that it is forgotten."""
        return sequence in self._given or 0 < sequence <= self._forgotten_through
