"""Decides which sequences of a generation are held and which are missing: ranges that never touch each other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of whole numbers as ranges, both ends inclusive, in order."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            self.add(first, last)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._ranges == other._ranges

    __hash__ = None  # type: ignore[assignment] # it changes

    @property
    def count(self) -> int:
        """How many numbers are in it."""
        return sum(last - first + 1 for first, last in self._ranges)

    def add(self, first: int, last: int) -> None:
        """Adds a range; one that touches others is joined with them. An empty range changes nothing."""
        if first > last:
            return
        if self._ranges and first == self._ranges[-1][1] + 1:
            self._ranges[-1] = (self._ranges[-1][0], last)
            return
        begin = bisect_left(self._ranges, first - 1, key=lambda held: held[1])
        end = begin
        while end < len(self._ranges) and self._ranges[end][0] <= last + 1:
            first, last = min(first, self._ranges[end][0]), max(last, self._ranges[end][1])
            end += 1
        self._ranges[begin:end] = [(first, last)]

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of a range that are not in it, in order."""
        if not self._ranges or first > self._ranges[-1][1]:
            return [(first, last)] if first <= last else []
        found = []
        place = bisect_left(self._ranges, first, key=lambda held: held[1])
        while first <= last and place < len(self._ranges) and self._ranges[place][0] <= last:
            begin, end = self._ranges[place]
            if first < begin:
                found.append((first, begin - 1))
            first, place = end + 1, place + 1
        if first <= last:
            found.append((first, last))
        return found
