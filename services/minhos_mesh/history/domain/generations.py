"""Decides which recording of a symbol is read where several cover the same time: the one that began first, to its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """A contiguous run of sequences of one generation as it lies in one place; times in ns since the Unix epoch."""

    epoch: int
    first_sequence: int
    last_sequence: int
    first_ns: int
    last_ns: int

    @property
    def count(self) -> int:
        """Ticks in it."""
        return self.last_sequence - self.first_sequence + 1


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of a source: all its runs together."""

    epoch: int
    first_ns: int
    last_ns: int
    after_ns: int | None
    """Only its ticks later than this are read by time; None: all of them."""


def generations_of(runs: Iterable[Run]) -> list[Generation]:
    """The generations in the order in which they are read by time; one that another covers whole is left out.

    Two generations that overlap tell the same trades twice. The one that began first is read to its end, the next one
    behind that, so every time is told once and the answer does not depend on the range that is asked for.
    """
    spans: dict[int, tuple[int, int]] = {}
    for run in runs:
        first, last = spans.get(run.epoch, (run.first_ns, run.last_ns))
        spans[run.epoch] = (min(first, run.first_ns), max(last, run.last_ns))
    found: list[Generation] = []
    through: int | None = None
    for epoch, (first, last) in sorted(spans.items(), key=lambda item: (item[1][0], -item[1][1], item[0])):
        if through is None or last > through:
            found.append(Generation(epoch, first, last, through if through is not None and first <= through else None))
            through = last
    return found
