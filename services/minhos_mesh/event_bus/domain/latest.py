"""Decides what a reader who wants only the newest per type and subject gets, and what it is told it missed."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from minhos_mesh.event_bus.domain.records import StoredEvent


class GapCause(enum.Enum):
    """Why a reader does not get events."""

    SLOW_READER = enum.auto()
    RETENTION = enum.auto()


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences that a reader does not get; `skipped` counts the matching events in it, 0 when that is not known."""

    first: int
    last: int
    skipped: int
    cause: GapCause = GapCause.SLOW_READER

    def joined(self, other: Gap) -> Gap:
        """Both as one of the same cause."""
        return Gap(min(self.first, other.first), max(self.last, other.last), self.skipped + other.skipped, self.cause)


class LatestPerSubject:
    """Holds the newest event per type and subject until the reader takes it; memory grows with subjects only."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], StoredEvent] = {}
        self._gap: Gap | None = None

    def __len__(self) -> int:
        return len(self._newest)

    def offer(self, events: Iterable[StoredEvent]) -> None:
        """Takes matching events in order of sequence."""
        for event in events:
            key = (event.type, event.subject)
            passed_over = self._newest.pop(key, None)
            self._newest[key] = event
            if passed_over is not None:
                self._widen(passed_over.sequence)

    def take(self, limit: int) -> tuple[list[StoredEvent], Gap | None]:
        """Gives up to `limit` events in order of sequence, and what was passed over since the last time."""
        keys = list(islice(self._newest, limit))
        gap, self._gap = self._gap, None
        return [self._newest.pop(key) for key in keys], gap

    def _widen(self, sequence: int) -> None:
        gap = Gap(sequence, sequence, 1)
        self._gap = gap if self._gap is None else self._gap.joined(gap)
